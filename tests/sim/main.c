/* SPDX-License-Identifier: Apache-2.0
 *
 * zbs-sim: seeds of the simulated cluster. Each seed: start three hosts, run clients while faults
 * strike (safety), then end all faults and demand progress: every replica in-sync again, all equal,
 * everything acknowledged readable, the history linearizable (liveness and the final word).
 *
 *   zbs-sim [--from S] [--seeds N] [--seconds T] [--mutation NAME] [--trace] [--twice]
 *           [--watch SECTOR] [--batch]
 *
 * --watch notes what clients did with a sector in the trace; --batch is for the program that runs
 * many of these (tests/sim/batch.py): a line for each seed, then counts to be added up.
 *
 * One line per failing seed, with how to run it again; exit 1 if any failed. --twice runs each seed
 * two times and demands the same trace. With --mutation a rule is broken on purpose: then the first
 * seed that finds it ends the run with exit 0, and finding nothing is the failure. */
#include <getopt.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/base/mutate.h"
#include "tests/sim/faults.h"
#include "tests/sim/workload.h"

#define HEAL_SECONDS 120

struct run {
    struct cluster *c;
    uint32_t kinds;
    nsec_t span;
    struct fault_stats faults;
    bool done;
};

struct result {
    char failure[512];
    uint64_t hash, ops;
    struct fault_stats faults;
    struct workload_stats work;
    nsec_t virtual_time;
};

/* The whole story of a seed, as straight code on a loop that no fault touches. */
static int director(void *arg)
{
    struct run *r = arg;
    struct cluster *c = r->c;
    nsec_t until;

    cluster_start_all(c);
    if (cluster_create_volume(c, 3, 512ull << 20) < 0) {
        cluster_fail(c, "creating the volume: %s", err_text(ERR_TIMEOUT));
        r->done = true;
        return 0;
    }
    (void)co_sleep(2 * NSEC_PER_SEC);
    faults_run(c, r->kinds, r->span, &r->faults);
    sim_note(c->sim, "healing");
    faults_heal(c);
    workload_stop(c);
    until = co_now() + HEAL_SECONDS * NSEC_PER_SEC;
    while (workload_active(c) && co_now() < until)
        (void)co_sleep(100 * NSEC_PER_MSEC);
    if (workload_active(c))
        cluster_fail(c, "no progress: %u operations still hang %d s after all faults ended",
                     workload_active(c), HEAL_SECONDS);
    if (!c->failure[0] && cluster_wait_in_sync(c, HEAL_SECONDS * NSEC_PER_SEC) == 0) {
        workload_final_read(c, (uint32_t)(sim_random(c->sim) % HOSTS));
        until = co_now() + HEAL_SECONDS * NSEC_PER_SEC;
        while (!workload_final_done(c) && co_now() < until)
            (void)co_sleep(100 * NSEC_PER_MSEC);
        if (!workload_final_done(c))
            cluster_fail(c, "no progress: the final reads hang");
        (void)cluster_verify(c);
        (void)cluster_check_metas(c);
    }
    r->done = true;
    return 0;
}

static bool is_done(void *arg)
{
    const struct run *r = arg;

    return r->done || r->c->failure[0];
}

static void check_halts(struct cluster *c)
{
    for (uint32_t n = 0; n < HOSTS; n++)
        for (uint32_t p = 0; p < ROLES; p++)
            if (sim_proc_halted(c->nodes[n].procs[p]))
                cluster_fail(c, "%s halted: %s", c->nodes[n].names[p],
                             sim_proc_halted(c->nodes[n].procs[p]));
}

static struct result run_seed(uint64_t seed, nsec_t span, bool trace, uint64_t watch)
{
    struct sim_conf conf = {.trace = trace};
    struct run r = {.kinds = faults_choose(seed, &conf), .span = span};
    struct result out = {0};
    const char *bad;

    r.c = cluster_new(&conf);
    r.c->watch = watch;
    workload_start(r.c, 2);
    sim_control(r.c->sim, "127.1.0.99", "director", director, &r);
    if (!sim_run_until(r.c->sim, is_done, &r, span + 20 * 60 * NSEC_PER_SEC))
        cluster_fail(r.c, "no end after the whole time");
    check_halts(r.c);
    bad = history_check(r.c->history);
    if (bad)
        cluster_fail(r.c, "%s", bad);
    snprintf(out.failure, sizeof(out.failure), "%s", r.c->failure);
    out.hash = sim_trace_hash(r.c->sim);
    out.ops = history_ops(r.c->history);
    out.faults = r.faults;
    out.work = *workload_stats(r.c);
    out.virtual_time = sim_now(r.c->sim);
    if (trace && sim_trace_text(r.c->sim))
        fputs(sim_trace_text(r.c->sim), stdout);
    workload_free(r.c);
    cluster_free(r.c);
    return out;
}

struct totals {
    uint64_t ops, passed, failed;
    struct fault_stats faults;
    struct workload_stats work;
};

static void add(struct totals *t, const struct result *r)
{
    t->ops += r->ops;
    for (int f = 0; f < FAULTS; f++)
        t->faults.count[f] += r->faults.count[f];
    t->work.reads += r->work.reads;
    t->work.writes += r->work.writes;
    t->work.zeroes += r->work.zeroes;
    t->work.compares += r->work.compares;
    t->work.unknown += r->work.unknown;
    t->work.failed_reads += r->work.failed_reads;
    t->work.moves += r->work.moves;
}

/* For the program that adds up many processes: "count NAME N". */
static void print_counts(const struct totals *t)
{
    printf("count op writes %" PRIu64 "\ncount op reads %" PRIu64 "\n", t->work.writes,
           t->work.reads);
    printf("count op zeroes and discards %" PRIu64 "\n", t->work.zeroes);
    printf("count op compare-and-writes %" PRIu64 "\n", t->work.compares);
    printf("count op of unknown outcome %" PRIu64 "\n", t->work.unknown);
    printf("count op leases moved %" PRIu64 "\n", t->work.moves);
    for (int f = 0; f < FAULTS; f++)
        printf("count fault %s %u\n", fault_name((enum fault)f), t->faults.count[f]);
}

struct options {
    uint64_t from, seeds, seconds, watch;
    const char *mutation;
    bool trace, twice, verbose, batch;
};

static struct options parse(int argc, char **argv)
{
    static const struct option longs[] = {
        {"from", 1, NULL, 'f'},    {"seeds", 1, NULL, 'n'},
        {"seconds", 1, NULL, 's'}, {"mutation", 1, NULL, 'm'},
        {"trace", 0, NULL, 't'},   {"twice", 0, NULL, '2'},
        {"verbose", 0, NULL, 'v'}, {"batch", 0, NULL, 'b'},
        {"watch", 1, NULL, 'w'},   {0},
    };
    struct options o = {.from = 1, .seeds = 1, .seconds = 25, .watch = UINT64_MAX};
    int k;

    while ((k = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        switch (k) {
        case 'f':
            o.from = strtoull(optarg, NULL, 10);
            break;
        case 'n':
            o.seeds = strtoull(optarg, NULL, 10);
            break;
        case 's':
            o.seconds = strtoull(optarg, NULL, 10);
            break;
        case 'm':
            o.mutation = optarg;
            break;
        case 't':
            o.trace = true;
            break;
        case '2':
            o.twice = true;
            break;
        case 'w':
            o.watch = strtoull(optarg, NULL, 10);
            break;
        case 'b':
            o.batch = true;
            break;
        case 'v':
            o.verbose = true;
            break;
        default:
            exit(2);
        }
    }
    return o;
}

static void set_mutation(const char *name)
{
    if (!name)
        return;
#ifdef ZBS_MUTATE
    mutation_active = mutation_by_name(name);
    if (mutation_active != MUT_NONE)
        return;
    fprintf(stderr, "zbs-sim: unknown mutation '%s'\n", name);
#else
    fprintf(stderr, "zbs-sim: built without mutations: use MODE=debug or asan\n");
#endif
    exit(2);
}

int main(int argc, char **argv)
{
    struct options o = parse(argc, argv);
    struct totals t = {0};

    (void)mallopt(M_MMAP_THRESHOLD, 64 << 20); /* worlds come and go: keep their memory */
    (void)mallopt(M_TRIM_THRESHOLD, 512 << 20);
    set_mutation(o.mutation);
    for (uint64_t seed = o.from; seed < o.from + o.seeds; seed++) {
        struct result r = run_seed(seed, (nsec_t)o.seconds * NSEC_PER_SEC, o.trace, o.watch);

        if (o.twice && !r.failure[0]) {
            struct result again = run_seed(seed, (nsec_t)o.seconds * NSEC_PER_SEC, false, o.watch);

            if (again.hash != r.hash)
                snprintf(r.failure, sizeof(r.failure), "the second run took another course");
        }
        add(&t, &r);
        if (o.verbose)
            printf("seed %" PRIu64 ": %" PRIu64
                   " operations in %.1f virtual seconds, trace %016" PRIx64 "%s%s\n",
                   seed, r.ops, (double)r.virtual_time / 1e9, r.hash, r.failure[0] ? ": " : "",
                   r.failure);
        if (!r.failure[0]) {
            t.passed++;
            if (o.batch)
                printf("seed %" PRIu64 " passed\n", seed);
            fflush(stdout);
            continue;
        }
        t.failed++;
        printf("seed %" PRIu64 " failed: %s\n", seed, r.failure);
        if (o.mutation) {
            printf("found after %" PRIu64 " seeds\n", seed - o.from + 1);
            return 0;
        }
        fflush(stdout);
    }
    if (o.batch)
        print_counts(&t);
    printf("%" PRIu64 " passed, %" PRIu64 " failed\n", t.passed, t.failed);
    return o.mutation || t.failed ? 1 : 0;
}
