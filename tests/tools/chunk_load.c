/* SPDX-License-Identifier: Apache-2.0
 *
 * Load on a chunk server, without access and meta servers: it owns the extents itself. Prints one
 * JSON object (tests/lib/loadstat.h). See usage below.
 *
 * With --rate operations are due at fixed times and their latency counts from then, so that a
 * stall shows in every operation that it delayed. Sequential streams cross from one extent to the
 * next; stream k of n uses extents k, k + n, … and starts again when it has written them all.
 *
 * What is to happen meanwhile is told with --at (tests/lib/loadevent.h). */
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/conf.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/prng.h"
#include "common/base/units.h"
#include "common/env/env_real.h"
#include "tests/lib/chunkowner.h"
#include "tests/lib/loadevent.h"
#include "tests/lib/loadstat.h"

#define DEPTH_MAX   1024u
#define STREAMS_MAX 256u

static const char usage[] =
    "usage: chunk_load --addr ADDR --rw KIND [options]\n"
    "  --rw KIND            randwrite randread randrw seqwrite seqread\n"
    "  --reads PERCENT      of randrw (50)\n"
    "  --block SIZE         of an operation (4K)\n"
    "  --depth N            operations in flight (1)\n"
    "  --per-worker         so many for each worker of the server, on its extents (random kinds)\n"
    "  --extents N          how many (1), --first-extent ID the first of them (1)\n"
    "  --span SIZE          used of each extent (256M)\n"
    "  --streams N          of sequential kinds (1)\n"
    "  --seconds S          measured (5), after --ramp S (0)\n"
    "  --bytes SIZE         ends after so much instead; --ios N after so many operations\n"
    "  --rate N             operations a second, evenly; 0: as fast as they go (0)\n"
    "  --seed N             of addresses and contents (1)\n"
    "  --verify             compare what is read, and at the end all that was written\n"
    "  --pid PID            the server, whose CPU time is measured\n"
    "  --at S:EVENT         after S seconds: add=DEVICE drain=DEVICE scrub=BYTES children rate=N\n"
    "  --csv FILE           percentiles over time, in windows of --window S (1)\n";

struct load_conf {
    struct owner_conf owner;
    uint64_t reads, block, depth, streams, ios, bytes, rate, seed, pid;
    double seconds, ramp, window;
    const char *rw, *csv;
    bool random, per_worker;
};

struct load {
    struct load_conf conf;
    struct owner *owner;
    struct prng prng;
    struct loadstat stat;
    struct loadevents events;
    nsec_t begin, end;
    uint64_t tickets, limit;
    uint64_t rate, rate_ticket;   /* operations a second; the first at this rate */
    nsec_t rate_begin;            /* its time */
    uint64_t cursor[STREAMS_MAX]; /* blocks; of each stream */
    int rc;
    char why[256];
};

struct op {
    enum loadstat_dir dir;
    struct owner_extent *extent;
    uint32_t off;
    nsec_t due;
};

/* One of those who do operations, one after the other. */
struct runner {
    struct load *load;
    const struct rpc_client *only; /* extents of this worker; NULL: all */
};

/* ---- what comes next ---- */

static void place_random(struct load *l, const struct runner *r, struct op *op)
{
    const struct owner_conf *c = &l->conf.owner;

    do
        op->extent = &l->owner->extents[prng_below(&l->prng, c->n_extents)];
    while (r->only != NULL && op->extent->client != r->only);
    op->off = (uint32_t)(prng_below(&l->prng, c->span_bytes / l->conf.block) * l->conf.block);
}

static void place_sequential(struct load *l, uint64_t ticket, struct op *op)
{
    const struct owner_conf *c = &l->conf.owner;
    uint64_t k = ticket % l->conf.streams, per_extent = c->span_bytes / l->conf.block;
    uint64_t extents = (c->n_extents - k - 1) / l->conf.streams + 1; /* of this stream */
    uint64_t at = l->cursor[k]++ % (extents * per_extent);

    op->extent = &l->owner->extents[k + at / per_extent * l->conf.streams];
    op->off = (uint32_t)(at % per_extent * l->conf.block);
}

/* From now on. */
static void rate_set(void *arg, uint64_t per_s)
{
    struct load *l = arg;

    l->rate = per_s;
    l->rate_ticket = l->tickets;
    l->rate_begin = co_now();
}

/* False: it is over. */
static bool op_next(const struct runner *r, struct op *op)
{
    struct load *l = r->load;
    const struct load_conf *c = &l->conf;
    uint64_t ticket = l->tickets, n = ticket - l->rate_ticket;

    op->due = l->rate == 0 ? co_now()
                           : l->rate_begin + (nsec_t)(n / l->rate * NSEC_PER_SEC +
                                                      n % l->rate * NSEC_PER_SEC / l->rate);
    if (l->rc < 0 || ticket == l->limit || MAX(op->due, co_now()) >= l->end)
        return false;
    l->tickets++;
    op->dir = prng_below(&l->prng, 100) < c->reads ? LOADSTAT_READ : LOADSTAT_WRITE;
    if (c->random)
        place_random(l, r, op);
    else
        place_sequential(l, ticket, op);
    return true;
}

/* ---- doing it ---- */

static int op_run(const struct load *l, const struct op *op, struct buf *data)
{
    uint32_t len = (uint32_t)l->conf.block;

    return op->dir == LOADSTAT_READ ? owner_read(op->extent, op->off, len)
                                    : owner_write(op->extent, data, op->off, len);
}

static void load_fail(struct load *l, int rc)
{
    if (l->rc == 0)
        snprintf(l->why, sizeof(l->why), "%s", err_text(rc));
    l->rc = rc;
}

static struct buf *data_new(struct load *l)
{
    struct buf *b = buf_alloc(l->conf.block);

    prng_fill(&l->prng, b->data, l->conf.block);
    return b;
}

static int runner_main(void *arg)
{
    const struct runner *r = arg;
    struct load *l = r->load;
    struct buf *data = data_new(l);
    struct op op;

    while (op_next(r, &op)) {
        nsec_t now;
        int rc;

        if (op.due > co_now())
            (void)co_sleep_until(op.due);
        rc = op_run(l, &op, data);
        now = co_now();
        if (rc < 0)
            load_fail(l, rc);
        else
            loadstat_add(&l->stat, op.dir, now, now - op.due, (uint32_t)l->conf.block);
    }
    buf_put(data);
    return 0;
}

/* Does everything there is to do, `depth` operations at a time. */
static void runners_run(struct load *l)
{
    uint32_t per = l->conf.per_worker ? l->owner->n_workers : 1;
    uint32_t n = (uint32_t)l->conf.depth * per;
    struct runner *runners = MEM_NEW_ARRAY(struct runner, n);
    struct co_group group;

    co_group_init(&group);
    for (uint32_t i = 0; i < n; i++) {
        runners[i].load = l;
        runners[i].only = l->conf.per_worker ? l->owner->clients[i % per] : NULL;
        co_spawn(&group, "load", runner_main, &runners[i]);
    }
    (void)co_group_join(&group);
    mem_free(runners);
}

/* Is there an extent on every worker? */
static bool workers_covered(const struct owner *o)
{
    for (uint32_t w = 0; w < o->n_workers; w++) {
        bool found = false;

        for (uint32_t i = 0; i < o->conf.n_extents; i++)
            found |= o->extents[i].client == o->clients[w];
        if (!found)
            return false;
    }
    return true;
}

static int load_run(struct load *l)
{
    const struct load_conf *c = &l->conf;
    int rc;

    if (c->per_worker && !workers_covered(l->owner))
        return err_set(ERR_INVAL, "too few extents: a worker has none");
    l->begin = co_now();
    l->limit = c->ios != 0 ? c->ios : c->bytes != 0 ? c->bytes / c->block : UINT64_MAX;
    l->end = l->limit != UINT64_MAX ? NSEC_NEVER
                                    : l->begin + (nsec_t)((c->ramp + c->seconds) * NSEC_PER_SEC);
    rc = loadstat_start(&l->stat,
                        &(struct loadstat_conf){
                            .from = l->begin + (nsec_t)(c->ramp * NSEC_PER_SEC),
                            .to = l->limit != UINT64_MAX ? INT64_MAX : l->end,
                            .server = (pid_t)c->pid,
                            .csv = c->csv,
                            .window = (nsec_t)(c->window * NSEC_PER_SEC),
                        },
                        l->begin);
    if (rc < 0)
        return rc;
    rate_set(l, c->rate);
    l->events.rate = rate_set;
    l->events.arg = l;
    loadevents_start(&l->events, l->owner, l->begin);
    runners_run(l);
    rc = loadevents_stop(&l->events);
    loadstat_stop(&l->stat, co_now());
    if (rc < 0)
        return rc;
    return l->rc < 0 ? err_set(l->rc, "%s", l->why) : 0;
}

/* Everything that was written, once more. */
static int verify_all(struct load *l)
{
    const uint32_t piece = 1u << 20;
    int rc = 0;

    for (uint32_t i = 0; i < l->conf.owner.n_extents && rc == 0; i++) {
        for (uint64_t off = 0; off < l->conf.owner.span_bytes && rc == 0; off += piece)
            rc = owner_read(&l->owner->extents[i], (uint32_t)off,
                            (uint32_t)MIN(l->conf.owner.span_bytes - off, piece));
    }
    return rc;
}

static int load_all(struct load *l)
{
    uint64_t used = 0;
    int rc = load_run(l);

    if (rc == 0 && l->conf.owner.verify)
        rc = verify_all(l);
    if (rc == 0)
        rc = owner_used_bytes(l->owner, &used);
    if (rc < 0)
        return rc;
    printf("{");
    loadstat_print(&l->stat, stdout);
    printf(", \"used_bytes\": %" PRIu64 ", \"events\": ", used);
    loadevents_print(&l->events, stdout);
    printf("}\n");
    return 0;
}

static int load_main(void *arg)
{
    struct load *l = arg;
    int rc = owner_open(&l->conf.owner, &l->owner);

    if (rc == 0)
        rc = load_all(l);
    if (rc < 0)
        fprintf(stderr, "chunk_load: %s\n", err_text(rc));
    if (l->owner != NULL)
        owner_close(l->owner);
    return rc;
}

/* ---- options ---- */

struct option_target {
    const char *name;
    uint64_t *size;
    double *seconds;
    const char **text;
};

static bool option_set(const struct option_target *t, const char *text)
{
    char *end;

    if (t->size != NULL)
        return conf_size_parse(text, t->size) == 0;
    if (t->text != NULL) {
        *t->text = text;
        return true;
    }
    *t->seconds = strtod(text, &end);
    return end != text && *end == 0;
}

/* The index of an option is its `val`; names without a target are flags. */
static bool options_parse(int argc, char **argv, struct load *l)
{
    struct load_conf *c = &l->conf;
    uint64_t n_extents = 1;
    const struct option_target targets[] = {
        {"addr", .text = &c->owner.addr},
        {"rw", .text = &c->rw},
        {"csv", .text = &c->csv},
        {"extents", .size = &n_extents},
        {"first-extent", .size = &c->owner.first_id},
        {"span", .size = &c->owner.span_bytes},
        {"reads", .size = &c->reads},
        {"block", .size = &c->block},
        {"depth", .size = &c->depth},
        {"streams", .size = &c->streams},
        {"ios", .size = &c->ios},
        {"bytes", .size = &c->bytes},
        {"rate", .size = &c->rate},
        {"seed", .size = &c->seed},
        {"pid", .size = &c->pid},
        {"seconds", .seconds = &c->seconds},
        {"ramp", .seconds = &c->ramp},
        {"window", .seconds = &c->window},
    };
    const int n = ARRAY_SIZE(targets);
    struct option options[ARRAY_SIZE(targets) + 4] = {0};
    int o;

    for (int i = 0; i < n; i++)
        options[i] = (struct option){targets[i].name, required_argument, NULL, i};
    options[n] = (struct option){"verify", no_argument, NULL, n};
    options[n + 1] = (struct option){"per-worker", no_argument, NULL, n + 1};
    options[n + 2] = (struct option){"at", required_argument, NULL, n + 2};
    while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (o == n)
            c->owner.verify = true;
        else if (o == n + 1)
            c->per_worker = true;
        else if (o > n + 2 || o < 0 ||
                 !(o == n + 2 ? loadevents_parse(&l->events, optarg)
                              : option_set(&targets[o], optarg)))
            return false;
    }
    c->owner.n_extents = (uint32_t)n_extents;
    return optind == argc && n_extents >= 1 && n_extents <= 1u << 20;
}

static bool kind_set(struct load_conf *c)
{
    static const struct {
        const char *name;
        bool random;
        int reads; /* percent; -1: as given */
    } kinds[] = {{"randwrite", true, 0},
                 {"randread", true, 100},
                 {"randrw", true, -1},
                 {"seqwrite", false, 0},
                 {"seqread", false, 100}};

    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        if (c->rw == NULL || strcmp(c->rw, kinds[i].name) != 0)
            continue;
        c->random = kinds[i].random;
        if (kinds[i].reads >= 0)
            c->reads = (uint64_t)kinds[i].reads;
        return true;
    }
    return false;
}

static bool conf_valid(const struct load_conf *c)
{
    return c->owner.addr != NULL && c->block >= PAGE_BYTES && c->block % PAGE_BYTES == 0 &&
           c->block <= RPC_PAYLOAD_MAX && c->depth >= 1 && c->depth <= DEPTH_MAX &&
           c->owner.span_bytes <= EXTENT_BYTES && c->owner.span_bytes >= c->block &&
           c->owner.span_bytes % c->block == 0 && c->owner.span_bytes % PAGE_BYTES == 0 &&
           c->streams >= 1 && c->streams <= STREAMS_MAX && c->streams <= c->owner.n_extents &&
           c->reads <= 100 && c->seconds > 0 && c->ramp >= 0 && c->window > 0 &&
           (c->random || !c->per_worker);
}

int main(int argc, char **argv)
{
    static struct load l = {.conf = {.owner = {.first_id = 1, .span_bytes = EXTENT_BYTES},
                                     .reads = 50,
                                     .block = PAGE_BYTES,
                                     .depth = 1,
                                     .streams = 1,
                                     .seed = 1,
                                     .seconds = 5,
                                     .window = 1}};
    struct env_real_conf env = {.name = "chunk_load", .arena_bytes = 1u << 30};

    if (!options_parse(argc, argv, &l) || !kind_set(&l.conf) || !conf_valid(&l.conf)) {
        fputs(usage, stderr);
        return 2;
    }
    prng_init(&l.prng, l.conf.seed);
    log_set_service("chunk_load");
    return env_real_run(&env, load_main, &l) < 0 ? 1 : 0;
}
