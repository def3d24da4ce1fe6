/* SPDX-License-Identifier: Apache-2.0
 *
 * The volume engine while servers die, pause and are cut off. A checker knows for each place the
 * values that may be read: each place has one writer, whose values rise, so that a read must not
 * be older than what was acknowledged before it began, nor than what any earlier read returned. */
#include "common/base/mutate.h"
#include "tests/unit/access/vol_world.h"

#define VOLUME  (1 * GIB)
#define WRITERS 16u
#define SPOTS   48u /* places of one writer */
#define PLACES  (WRITERS * SPOTS)

struct place {
    uint64_t off, len;
    uint64_t issued, acked; /* values */
    uint64_t seen;          /* highest that a finished read returned */
    bool left;              /* its last write was ambiguous, and is left so */
};

struct load {
    struct vworld *w;
    struct place places[PLACES];
    uint32_t latest[WRITERS];
    uint32_t avoid; /* writers' clients do not use this node */
    bool running;
    uint32_t alive; /* loops */
    uint64_t writes, reads, failures;
    nsec_t longest;
};

struct loop {
    struct load *l;
    uint32_t index;
};

static struct load load;
static struct loop loops[2 * WRITERS];

static bool alive(struct vworld *w, uint32_t node)
{
    return w->nodes[node].engine && sim_proc_running(w->nodes[node].procs[ACCESS]) &&
           !sim_proc_paused(w->nodes[node].procs[ACCESS]);
}

static uint32_t some_node(struct vworld *w, uint32_t avoid)
{
    uint32_t node = (uint32_t)(sim_random(w->sim) % HOSTS);

    for (uint32_t k = 0; k < HOSTS && (!alive(w, node) || node == avoid); k++)
        node = (node + 1) % HOSTS;
    return node;
}

/* As an initiator: the same write again, by another path, until it is known to be done. But some
 * die, too: then it is not known whether it was done, and nobody writes there any more. */
static void write_once(struct load *l, struct place *p)
{
    struct vworld *w = l->w;
    nsec_t start = co_now();
    uint64_t value = p->issued + 1;

    p->issued = value;
    while (true) {
        uint32_t node = some_node(w, l->avoid);
        struct job *j = calloc(1, sizeof(*j));
        bool ended;
        int rc;

        if (!alive(w, node)) {
            free(j);
            (void)co_sleep(MSEC(10));
            continue;
        }
        *j = (struct job){
            .fn = job_write, .off = p->off, .len = p->len, .value = value, .limit = SEC(20)};
        rc = job_do(w, node, j);
        ended = j->done;
        free(j); /* if it did not end, then its server is dead */
        if (!ended && sim_random(w->sim) % 2) {
            p->left = true;
            return;
        }
        if (rc == 0)
            break;
        l->failures++;
        ASSERTF(co_now() - start < SEC(100), "writing value %" PRIu64 " at %" PRIu64 ": %s %s",
                value, p->off, err_name(rc), err_text(rc));
        (void)co_sleep(MSEC(5));
    }
    l->longest = MAX(l->longest, co_now() - start);
    /* What a failure delayed is kept as it is for the last look. */
    p->left = co_now() - start > MSEC(300) && sim_random(w->sim) % 2;
    p->acked = value;
    l->writes++;
}

static void read_once(struct load *l, struct place *p)
{
    struct vworld *w = l->w;
    uint64_t least = MAX(p->acked, p->seen);
    uint32_t node = some_node(w, HOSTS);
    struct job *j;
    int rc;

    if (!alive(w, node)) {
        (void)co_sleep(MSEC(10));
        return;
    }
    j = calloc(1, sizeof(*j));
    *j = (struct job){.fn = job_read, .off = p->off, .len = p->len, .limit = SEC(20)};
    rc = job_do(w, node, j);
    if (rc == 0) {
        ASSERTF(j->got >= least, "at %" PRIu64 " value %" PRIu64 " after %" PRIu64, p->off, j->got,
                least);
        ASSERTF(j->got <= p->issued, "at %" PRIu64 " value %" PRIu64 " of the future", p->off,
                j->got);
        p->seen = MAX(p->seen, j->got);
        l->reads++;
    }
    free(j);
}

static int writer(void *arg)
{
    struct loop *lp = arg;
    struct load *l = lp->l;

    while (l->running) {
        uint32_t spot = (uint32_t)(sim_random(l->w->sim) % SPOTS);
        struct place *p = &l->places[lp->index * SPOTS + spot];

        l->latest[lp->index] = spot;
        if (!p->left)
            write_once(l, p);
        (void)co_sleep((nsec_t)(sim_random(l->w->sim) % MSEC(20)));
    }
    l->alive--;
    return 0;
}

static int reader(void *arg)
{
    struct loop *lp = arg;
    struct load *l = lp->l;

    while (l->running) {
        uint32_t by = (uint32_t)(lp->index + sim_random(l->w->sim) % 5) % WRITERS;
        uint32_t spot =
            sim_random(l->w->sim) % 3 ? (uint32_t)(sim_random(l->w->sim) % SPOTS) : l->latest[by];

        read_once(l, &l->places[by * SPOTS + spot]);
        (void)co_sleep((nsec_t)(sim_random(l->w->sim) % MSEC(20)));
    }
    l->alive--;
    return 0;
}

static void load_start(struct vworld *w)
{
    static const uint64_t lens[] = {512, 4096, 1024, 8192, 65536, 128 * 1024};

    memset(&load, 0, sizeof(load));
    load.w = w;
    load.avoid = HOSTS;
    load.running = true;
    for (uint32_t i = 0; i < PLACES; i++) {
        uint32_t spot = i % SPOTS, by = i / SPOTS;

        load.places[i].len = lens[(by + spot) % ARRAY_SIZE(lens)];
        load.places[i].off = i % 64 * 16 * MIB + i / 64 * BLOCK_BYTES + spot % 8 * 512;
        if (spot == 0) { /* neighbours in a page */
            load.places[i].len = 512;
            load.places[i].off = 12 * MIB + by * 512;
        }
    }
    for (uint32_t i = 0; i < 2 * WRITERS; i++) {
        loops[i] = (struct loop){&load, i % WRITERS};
        load.alive++;
        sim_control(w->sim, CONTROL, "load", i < WRITERS ? writer : reader, &loops[i]);
    }
}

static void load_stop(struct vworld *w)
{
    nsec_t until = co_now() + SEC(150);

    load.running = false;
    while (load.alive > 0) {
        ASSERTF(co_now() < until, "%u clients do not end", load.alive);
        (void)co_sleep(MSEC(10));
    }
    if (getenv("ZBS_TEST_LOG"))
        fprintf(stderr,
                "writes %" PRIu64 " reads %" PRIu64 " retried %" PRIu64 " longest %" PRId64 " ms\n",
                load.writes, load.reads, load.failures, load.longest / NSEC_PER_MSEC);
    for (uint32_t i = 0; i < PLACES; i++) {
        struct place *p = &load.places[i];
        uint64_t got = do_read(w, i % HOSTS, p->off, p->len);

        ASSERTF(got >= MAX(p->acked, p->seen) && got <= p->issued,
                "place %u has %" PRIu64 ", not %" PRIu64 " to %" PRIu64, i, got,
                MAX(p->acked, p->seen), p->issued);
    }
}

static void settle(struct vworld *w)
{
    struct sim_conf calm = {.seed = 1};

    sim_set_conf(w->sim, &calm);
    for (uint32_t i = 0; i < HOSTS; i++)
        for (uint32_t r = 0; r < ROLES; r++) {
            if (sim_proc_paused(w->nodes[i].procs[r]))
                sim_proc_resume(w->nodes[i].procs[r]);
            if (!sim_proc_running(w->nodes[i].procs[r]))
                start(w, i, (enum role)r);
        }
    sim_net_heal_all(w->sim);
    wait_ready(w);
    load_stop(w);
    (void)co_sleep(SEC(2)); /* idle extents notice too */
    wait_degraded(w, false, SEC(120));
    CHECK(do_verify(w, 4) > 0);
}

static int script_chaos(struct vworld *w);

static void run_seeds(int (*script)(struct vworld *w), uint64_t seeds)
{
    const char *only = getenv("SEED");
    uint64_t first = only ? strtoull(only, NULL, 10) : 1;

    for (uint64_t seed = first; seed < first + (only ? 1 : seeds); seed++) {
        struct sim_conf conf = {.seed = seed};
        struct vworld w;

        if (script == script_chaos && seed % 2 == 0) {
            conf.net_spike_ppm = 200;
            conf.net_reset_ppm = 100;
            conf.disk_spike_ppm = 100;
            conf.disk_eio_ppm = seed % 4 ? 0 : 20;
        }

        if (getenv("ZBS_TEST_LOG"))
            fprintf(stderr, "seed %" PRIu64 "\n", seed);
        world_init(&w, &conf, 2 * GIB);
        world_run(&w, script, SEC(900));
        world_fini(&w);
    }
}

/* ---- scripts ---- */

static int script_healthy(struct vworld *w)
{
    wait_ready(w);
    CHECK(volume_make(w, 3, VOLUME) == 0);
    load_start(w);
    (void)co_sleep(SEC(5));
    settle(w);
    CHECK(load.failures == 0);
    return 0;
}

static void test_healthy(void **state)
{
    (void)state;
    run_seeds(script_healthy, 1);
}

/* A chunk server dies and comes back: removed, brought back through its missing set. */
static int script_member(struct vworld *w)
{
    wait_ready(w);
    CHECK(volume_make(w, 3, VOLUME) == 0);
    load_start(w);
    (void)co_sleep(SEC(2));
    crash(w, 1, CHUNK);
    wait_degraded(w, true, SEC(10));
    (void)co_sleep(SEC(3));
    start(w, 1, CHUNK);
    wait_degraded(w, false, SEC(60));
    (void)co_sleep(SEC(1));
    settle(w);
    CHECK(load.longest < SEC(4));
    CHECK(load.failures == 0);
    return 0;
}

static void test_member_crash(void **state)
{
    (void)state;
    run_seeds(script_member, 2);
}

static int script_pause(struct vworld *w)
{
    wait_ready(w);
    CHECK(volume_make(w, 3, VOLUME) == 0);
    load_start(w);
    (void)co_sleep(SEC(2));
    sim_proc_pause(w->nodes[2].procs[CHUNK]);
    (void)co_sleep(SEC(8));
    sim_proc_resume(w->nodes[2].procs[CHUNK]);
    (void)co_sleep(SEC(3));
    settle(w);
    CHECK(load.longest < SEC(4));
    CHECK(load.failures == 0);
    return 0;
}

static void test_member_pause(void **state)
{
    (void)state;
    run_seeds(script_pause, 1);
}

/* The access server that owns most. */
static uint32_t busiest(struct vworld *w)
{
    uint32_t best = 0, most = 0;

    for (uint32_t i = 0; i < HOSTS; i++) {
        struct vol_engine_stats stats = {0};

        if (w->nodes[i].engine)
            vol_engine_stats(w->nodes[i].engine, &stats);
        if (stats.extents_owned > most) {
            most = stats.extents_owned;
            best = i;
        }
    }
    return best;
}

/* An access server dies: another opens its extents. */
static int script_owner(struct vworld *w)
{
    wait_ready(w);
    CHECK(volume_make(w, 3, VOLUME) == 0);
    load_start(w);
    for (uint32_t round = 0; round < 6; round++) {
        uint32_t i = busiest(w);

        (void)co_sleep(SEC(1) + (nsec_t)(sim_random(w->sim) % SEC(1)));
        crash(w, i, ACCESS);
        (void)co_sleep(SEC(2));
        start(w, i, ACCESS);
    }
    settle(w);
    return 0;
}

static void test_owner_crash(void **state)
{
    (void)state;
    run_seeds(script_owner, 1);
}

/* An access server is paused beyond its session and goes on believing what it believed. */
static int script_owner_pause(struct vworld *w)
{
    wait_ready(w);
    CHECK(volume_make(w, 3, VOLUME) == 0);
    load_start(w);
    for (uint32_t i = 0; i < HOSTS; i++) {
        (void)co_sleep(SEC(3));
        sim_proc_pause(w->nodes[i].procs[ACCESS]);
        (void)co_sleep(SEC(4));
        sim_proc_resume(w->nodes[i].procs[ACCESS]);
    }
    settle(w);
    return 0;
}

static void test_owner_pause(void **state)
{
    (void)state;
    run_seeds(script_owner_pause, 1);
}

/* An owner that meta can't be reached from goes on, validated by its members, until another has
 * been granted its extents. */
static int script_cut_meta(struct vworld *w)
{
    wait_ready(w);
    CHECK(volume_make(w, 3, VOLUME) == 0);
    load_start(w);
    (void)co_sleep(SEC(3));
    for (uint32_t i = 0; i < HOSTS; i++) {
        sim_proc_pause(w->nodes[(i + 1) % HOSTS].procs[META]);
        (void)co_sleep(SEC(4));
        sim_proc_resume(w->nodes[(i + 1) % HOSTS].procs[META]);
        (void)co_sleep(SEC(1));
    }
    settle(w);
    return 0;
}

static void test_meta_pause(void **state)
{
    (void)state;
    run_seeds(script_cut_meta, 1);
}

/* A host that nobody reaches, its access server's clients going on. */
static int script_isolated(struct vworld *w)
{
    wait_ready(w);
    CHECK(volume_make(w, 3, VOLUME) == 0);
    load_start(w);
    (void)co_sleep(SEC(3));
    for (uint32_t i = 0; i < HOSTS; i++) {
        const char *host = w->nodes[i].addr;

        load.avoid = i;
        /* The clients are on the hosts themselves: their way to the control host does not count. */
        for (uint32_t k = 0; k < HOSTS; k++) {
            if (k == i)
                continue;
            sim_net_cut(w->sim, host, w->nodes[k].addr);
            sim_net_cut(w->sim, w->nodes[k].addr, host);
        }
        (void)co_sleep(SEC(6));
        sim_net_heal_all(w->sim);
        load.avoid = HOSTS;
        (void)co_sleep(SEC(3));
    }
    settle(w);
    return 0;
}

static void test_isolated(void **state)
{
    (void)state;
    run_seeds(script_isolated, 1);
}

/* Anything, again and again. */
static int script_chaos(struct vworld *w)
{
    wait_ready(w);
    CHECK(volume_make(w, 3, VOLUME) == 0);
    load_start(w);
    for (uint32_t round = 0; round < 12; round++) {
        uint32_t node = (uint32_t)(sim_random(w->sim) % HOSTS);
        enum role r = sim_random(w->sim) % 5 == 0 ? META : sim_random(w->sim) % 2 ? CHUNK : ACCESS;
        struct sim_proc *p = w->nodes[node].procs[r];
        char other[24];

        (void)co_sleep((nsec_t)(sim_random(w->sim) % SEC(2)));
        snprintf(other, sizeof(other), "127.1.0.%u", (node + 1) % HOSTS + 1);
        switch (sim_random(w->sim) % 4) {
        case 0:
            sim_proc_pause(p);
            (void)co_sleep((nsec_t)(sim_random(w->sim) % SEC(4)));
            sim_proc_resume(p);
            break;
        case 1:
            sim_net_cut(w->sim, w->nodes[node].addr, other);
            if (sim_random(w->sim) % 2)
                sim_net_cut(w->sim, other, w->nodes[node].addr);
            (void)co_sleep((nsec_t)(sim_random(w->sim) % SEC(4)));
            sim_net_heal_all(w->sim);
            break;
        case 2:
            if (r == CHUNK)
                sim_proc_power_loss(p);
            else
                crash(w, node, r);
            (void)co_sleep((nsec_t)(sim_random(w->sim) % SEC(4)));
            start(w, node, r);
            break;
        default:
            crash(w, node, r);
            start(w, node, r);
            break;
        }
    }
    settle(w);
    return 0;
}

static void test_chaos(void **state)
{
    (void)state;
    run_seeds(script_chaos, 2);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_healthy),      cmocka_unit_test(test_member_crash),
        cmocka_unit_test(test_member_pause), cmocka_unit_test(test_owner_crash),
        cmocka_unit_test(test_owner_pause),  cmocka_unit_test(test_meta_pause),
        cmocka_unit_test(test_isolated),     cmocka_unit_test(test_chaos),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
#ifdef ZBS_MUTATE
    if (getenv("ZBS_MUTATION"))
        mutation_active = mutation_by_name(getenv("ZBS_MUTATION"));
#endif
    return cmocka_run_group_tests(tests, NULL, NULL);
}
