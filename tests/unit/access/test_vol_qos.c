/* SPDX-License-Identifier: Apache-2.0
 *
 * Limits of volumes and pools, in virtual time: what front ends get is within 5% of the limit, with
 * one access server and with three, under needs that differ and limits that change. */
#include "tests/unit/access/vol_world.h"

#define UNIT (4 * KIB)

/* One client: I/O after I/O through one access server. */
struct load {
    struct job job;
    struct vworld *w;
    uint32_t node;
    uint64_t volume, at;
    uint32_t bytes;
    nsec_t pause; /* after each: what it needs */
    uint64_t done;
    nsec_t slowest;
    bool stop;
};

static int load_run(struct job *j, struct vol_engine *e)
{
    struct load *l = CONTAINER_OF(j, struct load, job);
    struct buf *b = buf_alloc(l->bytes);
    struct vol *v;
    int rc = vol_open(e, l->volume, &v);

    while (rc == 0 && !l->stop) {
        nsec_t start = co_now();

        rc = vol_write(v, l->at, l->bytes, b, 0);
        l->slowest = MAX(l->slowest, co_now() - start);
        l->done++;
        if (l->pause)
            (void)co_sleep(l->pause);
    }
    vol_close(v);
    buf_put(b);
    return rc;
}

#define LOADS_MAX 24u

struct loads {
    struct vworld *w;
    struct load l[LOADS_MAX];
    uint32_t n;
};

static struct load *load_add(struct loads *ls, uint32_t node, uint64_t volume, uint32_t bytes,
                             nsec_t pause)
{
    struct load *l = &ls->l[ls->n];

    CHECK(ls->n < LOADS_MAX);
    *l = (struct load){.job.fn = load_run, .node = node, .volume = volume, .bytes = bytes};
    l->at = ls->n++ * MIB;
    l->pause = pause;
    job_post(ls->w, node, &l->job);
    return l;
}

static uint64_t loads_done(const struct loads *ls)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < ls->n; i++)
        n += ls->l[i].done;
    return n;
}

static void loads_stop(struct loads *ls)
{
    for (uint32_t i = 0; i < ls->n; i++)
        ls->l[i].stop = true;
    for (uint32_t i = 0; i < ls->n; i++)
        CHECK(job_wait(ls->w, ls->l[i].node, &ls->l[i].job, 1) == 0);
    ls->n = 0;
}

/* I/Os per second of all loads over a span. */
static double rate(const struct loads *ls, nsec_t span)
{
    uint64_t before = loads_done(ls);

    (void)co_sleep(span);
    return (double)(loads_done(ls) - before) / ((double)span / (double)NSEC_PER_SEC);
}

static void check_rate(double got, double want)
{
    ASSERTF(got > want * 0.95 && got < want * 1.05, "%.1f instead of %.1f", got, want);
}

/* ---- meta ---- */

static void limits_fill(Zbs__Meta__LimitsChange *c, Zbs__Meta__Value v[4], uint64_t iops,
                        uint64_t bandwidth)
{
    zbs__meta__limits_change__init(c);
    zbs__meta__value__init(&v[0]);
    zbs__meta__value__init(&v[1]);
    v[0].value = iops;
    v[1].value = bandwidth;
    c->iops = &v[0];
    c->bandwidth = &v[1];
}

static void volume_limits(struct vworld *w, const char *volume, uint64_t iops, uint64_t iops_burst,
                          uint64_t bandwidth)
{
    Zbs__Meta__VolumeSetRequest q = ZBS__META__VOLUME_SET_REQUEST__INIT;
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    char pool[] = "pool", name[16];
    Zbs__Meta__LimitsChange c;
    Zbs__Meta__Value v[4];
    struct rpc_reply r;

    snprintf(name, sizeof(name), "%s", volume);
    limits_fill(&c, v, iops, bandwidth);
    zbs__meta__value__init(&v[2]);
    v[2].value = iops_burst;
    c.iops_burst = &v[2];
    meta_client_mutation(w->mc, &m);
    q.mutation = &m;
    q.pool = pool;
    q.name = name;
    q.limits = &c;
    CHECK(meta_ask(w, META_VOLUME_SET, &q.base, &r) == 0);
    rpc_reply_free(&r);
    (void)co_sleep(SEC(1)); /* reaches the access servers with their next renewal */
}

static void volume_limit(struct vworld *w, const char *volume, uint64_t iops, uint64_t bandwidth)
{
    volume_limits(w, volume, iops, 0, bandwidth);
}

static void pool_limit(struct vworld *w, uint64_t iops, uint64_t bandwidth)
{
    Zbs__Meta__PoolSetRequest q = ZBS__META__POOL_SET_REQUEST__INIT;
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    char pool[] = "pool";
    Zbs__Meta__LimitsChange c;
    Zbs__Meta__Value v[4];
    struct rpc_reply r;

    limits_fill(&c, v, iops, bandwidth);
    meta_client_mutation(w->mc, &m);
    q.mutation = &m;
    q.name = pool;
    q.limits = &c;
    CHECK(meta_ask(w, META_POOL_SET, &q.base, &r) == 0);
    rpc_reply_free(&r);
    (void)co_sleep(SEC(1));
}

static uint64_t second_volume(struct vworld *w)
{
    Zbs__Meta__VolumeCreateRequest q = ZBS__META__VOLUME_CREATE_REQUEST__INIT;
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    char pool[] = "pool", name[] = "second";
    struct rpc_reply r;
    uint64_t id;

    meta_client_mutation(w->mc, &m);
    q.mutation = &m;
    q.pool = pool;
    q.name = name;
    q.size_bytes = GIB;
    CHECK(meta_ask(w, META_VOLUME_CREATE, &q.base, &r) == 0);
    id = ((Zbs__Meta__Volume *)r.msg)->id;
    rpc_reply_free(&r);
    return id;
}

static void begin(struct vworld *w, struct loads *ls)
{
    wait_ready(w);
    CHECK(volume_make(w, 1, GIB) == 0);
    *ls = (struct loads){.w = w};
}

/* ---- cases ---- */

static int script_iops(struct vworld *w)
{
    static struct loads ls;
    double free_rate;

    begin(w, &ls);
    for (uint32_t i = 0; i < 4; i++)
        load_add(&ls, 0, w->volume, UNIT, 0);
    free_rate = rate(&ls, SEC(2));
    CHECK(free_rate > 1000);
    volume_limit(w, "volume", 200, 0);
    check_rate(rate(&ls, SEC(4)), 200);
    volume_limit(w, "volume", 500, 0); /* under load, up and down */
    check_rate(rate(&ls, SEC(4)), 500);
    volume_limit(w, "volume", 10, 0);
    check_rate(rate(&ls, SEC(10)), 10);
    volume_limit(w, "volume", 0, 0);
    CHECK(rate(&ls, SEC(2)) > free_rate * 0.9);
    loads_stop(&ls);
    return 0;
}

static void test_iops(void **state)
{
    (void)state;
    world_script(script_iops, 21, 512 * MIB);
}

/* After a pause a burst is done at once, then it goes on at the limit. */
static int script_burst(struct vworld *w)
{
    static struct loads ls;
    uint64_t done;

    begin(w, &ls);
    CHECK(do_write(w, 0, 0, UNIT, 1) == 0);
    volume_limits(w, "volume", 50, 100, 0);
    for (uint32_t i = 0; i < 8; i++)
        load_add(&ls, 0, w->volume, UNIT, 0);
    (void)co_sleep(MSEC(500));
    done = loads_done(&ls);
    ASSERTF(done >= 100 && done <= 135, "%" PRIu64 " at once", done);
    check_rate(rate(&ls, SEC(4)), 50);
    loads_stop(&ls);
    return 0;
}

static void test_burst(void **state)
{
    (void)state;
    world_script(script_burst, 26, 512 * MIB);
}

/* Also I/O that is larger than the burst, among small I/O. */
static int script_bandwidth(struct vworld *w)
{
    static struct loads ls;
    struct load *large;
    uint64_t small;

    begin(w, &ls);
    volume_limit(w, "volume", 0, 4 * MIB);
    load_add(&ls, 0, w->volume, 64 * KIB, 0);
    load_add(&ls, 0, w->volume, 64 * KIB, 0);
    (void)co_sleep(SEC(1));
    check_rate(rate(&ls, SEC(4)), 64);
    large = load_add(&ls, 0, w->volume, MIB, 0);
    (void)co_sleep(SEC(1));
    small = loads_done(&ls) - large->done;
    large->done = 0;
    (void)co_sleep(SEC(8));
    small = loads_done(&ls) - large->done - small;
    CHECK(large->done >= 20 && small >= 40); /* by turns: neither starves */
    check_rate((double)(large->done * MIB + small * 64 * KIB), 8.0 * 4 * MIB);
    loads_stop(&ls);
    return 0;
}

static void test_bandwidth(void **state)
{
    (void)state;
    world_script(script_bandwidth, 22, 512 * MIB);
}

/* Three servers share a limit: by need. */
static int script_shared(struct vworld *w)
{
    static struct loads ls;
    struct load *modest;
    uint64_t before;

    begin(w, &ls);
    volume_limit(w, "volume", 300, 0);
    for (uint32_t n = 0; n < HOSTS; n++)
        for (uint32_t i = 0; i < 4; i++)
            load_add(&ls, n, w->volume, UNIT, 0);
    (void)co_sleep(SEC(3));
    check_rate(rate(&ls, SEC(5)), 300);
    loads_stop(&ls);

    /* one needs little and gets it, the rest goes to the other */
    modest = load_add(&ls, 1, w->volume, UNIT, MSEC(50));
    for (uint32_t i = 0; i < 4; i++)
        load_add(&ls, 0, w->volume, UNIT, 0);
    (void)co_sleep(SEC(4));
    before = modest->done;
    modest->slowest = 0;
    check_rate(rate(&ls, SEC(6)), 300);
    CHECK(modest->done - before > 100); /* of 20 a second */
    volume_limit(w, "volume", 600, 0);
    (void)co_sleep(SEC(2));
    check_rate(rate(&ls, SEC(5)), 600);
    loads_stop(&ls);

    /* and all of it to one that is alone */
    for (uint32_t i = 0; i < 4; i++)
        load_add(&ls, 2, w->volume, UNIT, 0);
    (void)co_sleep(SEC(9)); /* the lease follows meanwhile */
    check_rate(rate(&ls, SEC(5)), 600);
    loads_stop(&ls);
    return 0;
}

static void test_shared(void **state)
{
    (void)state;
    world_script(script_shared, 23, 512 * MIB);
}

/* A pool's limit holds for its volumes together; a deep queue takes nothing from a shallow one. */
static int script_pool(struct vworld *w)
{
    static struct loads ls;
    struct load *shallow;
    uint64_t second, before;

    begin(w, &ls);
    second = second_volume(w);
    pool_limit(w, 400, 0);
    for (uint32_t i = 0; i < 8; i++)
        load_add(&ls, 0, w->volume, UNIT, 0);
    shallow = load_add(&ls, 0, second, UNIT, 0);
    (void)co_sleep(SEC(2));
    before = shallow->done;
    check_rate(rate(&ls, SEC(5)), 400);
    CHECK(shallow->done - before > 5 * 400 / 4);
    loads_stop(&ls);
    pool_limit(w, 0, 0);
    return 0;
}

static void test_pool(void **state)
{
    (void)state;
    world_script(script_pool, 24, 512 * MIB);
}

/* A neighbour's limit costs an unlimited volume nothing: it is as fast beside clients that are held
 * back by a limit as beside clients that want no more. */
static double beside(struct vworld *w, uint64_t volume, bool limited)
{
    static struct loads free_one, others;
    double got;

    free_one = others = (struct loads){.w = w};
    load_add(&free_one, 0, volume, UNIT, 0);
    for (uint32_t i = 0; i < 8; i++)
        load_add(&others, 0, w->volume, UNIT, limited ? 0 : MSEC(800));
    (void)co_sleep(SEC(3));
    free_one.l[0].slowest = 0;
    got = rate(&free_one, SEC(5));
    CHECK(free_one.l[0].slowest < MSEC(30));
    loads_stop(&free_one);
    loads_stop(&others);
    return got;
}

static int script_unlimited(struct vworld *w)
{
    uint64_t second;
    double modest, held;

    wait_ready(w);
    CHECK(volume_make(w, 1, GIB) == 0);
    second = second_volume(w);
    modest = beside(w, second, false);
    volume_limit(w, "volume", 10, 0);
    held = beside(w, second, true);
    ASSERTF(held > modest * 0.95, "%.0f instead of %.0f", held, modest);
    return 0;
}

static void test_unlimited(void **state)
{
    (void)state;
    world_script(script_unlimited, 25, 512 * MIB);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_iops),      cmocka_unit_test(test_burst),
        cmocka_unit_test(test_bandwidth), cmocka_unit_test(test_shared),
        cmocka_unit_test(test_pool),      cmocka_unit_test(test_unlimited),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
