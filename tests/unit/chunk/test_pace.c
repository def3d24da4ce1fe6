/* SPDX-License-Identifier: Apache-2.0
 *
 * Pacing (chunk/pace.c) in virtual time, on simulated devices of known speed: many ring-fulls of
 * random overwrites, more than the device can bring home. Nobody waits long, throughput goes to
 * what the device can do and stays there, and a load that it can do is not slowed down. */
#include "chunk/internal.h"
#include "tests/unit/chunk/engine_fixture.h"

#define DISK_BYTES  (256u << 20)
#define RING_BYTES  (16u << 20)
#define WORKERS_ALL 128u
#define TENTHS      10u

struct load {
    /* what to do */
    struct sim_disk_speed speed;
    uint32_t depth, requests, set_pages;
    uint32_t bytes, big_bytes; /* of a request; of every tenth one, if given */
    nsec_t pause;              /* of each worker, between its requests */
    /* what happened */
    uint64_t ring_bytes, dev_bytes, user_bytes, waits;
    nsec_t start, end, wait_max;
    nsec_t *latency, *done_at; /* by number of the request, in order of completion */
    uint32_t by_worker[WORKERS_ALL], n;
    nsec_t worst_of[WORKERS_ALL];
};
struct worker_arg {
    struct rig *r;
    struct load *l;
    uint32_t number;
};

static uint64_t gen;    /* of the writes */
static uint32_t issued; /* requests begun */

static int worker_main(void *arg)
{
    struct worker_arg *w = arg;
    struct load *l = w->l;

    while (issued < l->requests) {
        uint32_t i = issued++, bytes = l->big_bytes != 0 && i % 10 == 0 ? l->big_bytes : l->bytes;
        uint32_t page = (uint32_t)(env_random() % (l->set_pages - bytes / PAGE_BYTES));
        nsec_t begin = co_now(), took;
        uint64_t number = ++gen;

        CHECK(put(w->r, (struct put){.id = ID,
                                     .v = V(1, number),
                                     .off = page * PAGE_BYTES,
                                     .len = bytes,
                                     .byte = (uint8_t)(1 + i % 200)}) == 0);
        took = co_now() - begin;
        l->latency[l->n] = took;
        l->done_at[l->n++] = co_now();
        l->user_bytes += bytes;
        l->by_worker[w->number]++;
        l->worst_of[w->number] = MAX(l->worst_of[w->number], took);
        if (number % 256 == 0) /* keeps the number of ranges above the commit point low */
            CHECK(engine_commit_point(w->r->e, ID, 1, V(1, number - l->depth)) == 0);
        if (l->pause > 0)
            (void)co_sleep(l->pause);
    }
    return 0;
}

static struct dev *the_dev(const struct rig *r)
{
    return LIST_FIRST(&r->e->devs, struct dev, link);
}

/* Gives every block of the working set its place, and brings all home. */
static void fill(struct rig *r, uint32_t pages)
{
    CHECK(create(r, ID, 1) == 0 && open_at(r, ID, 1) == 0);
    for (uint32_t p = 0; p < pages; p += PAGES_PER_BLOCK)
        CHECK(put(r, (struct put){.id = ID,
                                  .v = V(1, ++gen),
                                  .off = p * PAGE_BYTES,
                                  .len = BLOCK_BYTES,
                                  .byte = 1}) == 0);
    CHECK(engine_commit_point(r->e, ID, 1, V(1, gen)) == 0);
    CHECK(engine_flush(r->e) == 0);
}

static void body_load(struct rig *r)
{
    struct load *l = (struct load *)(uintptr_t)r->x[0];
    struct worker_arg w[WORKERS_ALL];
    struct co_group g;
    struct dev *d = the_dev(r);
    uint64_t before;

    fill(r, l->set_pages);
    issued = 0;
    before = d->bytes_written;
    l->start = co_now();
    co_group_init(&g);
    for (uint32_t i = 0; i < l->depth; i++) {
        w[i] = (struct worker_arg){r, l, i};
        co_spawn(&g, "worker", worker_main, &w[i]);
    }
    CHECK(co_group_join(&g) == 0);
    l->end = co_now();
    CHECK(engine_flush(r->e) == 0);
    l->dev_bytes = d->bytes_written - before;
    l->ring_bytes = (uint64_t)d->j.units * d->j.unit;
    l->waits = d->pace.waits;
    l->wait_max = d->pace.wait_max;
}

static void load_run(uint64_t seed, struct load *l)
{
    struct rig r = rig_new(seed, DISK_BYTES, RING_BYTES);

    gen = 0;
    assert_true(l->depth <= WORKERS_ALL);
    l->latency = calloc(l->requests, sizeof(nsec_t));
    l->done_at = calloc(l->requests, sizeof(nsec_t));
    sim_disk_set_speed(r.p, DISK, &l->speed);
    r.x[0] = (uint64_t)(uintptr_t)l;
    rig_life(&r, body_load, END_STOP);
    assert_int_equal(l->n, l->requests);
    sim_free(r.s);
}

static void load_free(struct load *l)
{
    free(l->latency);
    free(l->done_at);
}

/* ---- what is measured ---- */

static uint32_t usec(nsec_t t)
{
    return (uint32_t)(t / NSEC_PER_USEC);
}

/* Requests a second in one tenth of the time. */
static double tenth_rate(const struct load *l, uint32_t tenth)
{
    nsec_t span = (l->end - l->start) / TENTHS, from = l->start + span * tenth;
    uint32_t n = 0;

    for (uint32_t i = 0; i < l->n; i++)
        n += l->done_at[i] > from && l->done_at[i] <= from + span;
    return (double)n * NSEC_PER_SEC / (double)span;
}

static nsec_t latency_mean(const struct load *l, uint32_t first)
{
    nsec_t sum = 0;

    for (uint32_t i = first; i < l->n; i++)
        sum += l->latency[i];
    return sum / (l->n - first);
}

static nsec_t latency_max(const struct load *l)
{
    nsec_t max = 0;

    for (uint32_t i = 0; i < l->n; i++)
        max = MAX(max, l->latency[i]);
    return max;
}

static void load_print(const char *what, const struct load *l)
{
    print_message(
        "%s: %.1f ring-fulls, %.3f bytes written per byte; latency mean %u us, max %u us; "
        "%" PRIu64 " waits of up to %u us; rates:",
        what, (double)l->user_bytes / (double)l->ring_bytes,
        (double)l->dev_bytes / (double)l->user_bytes, usec(latency_mean(l, l->n / 2)),
        usec(latency_max(l)), l->waits, usec(l->wait_max));
    for (uint32_t i = 0; i < TENTHS; i++)
        print_message(" %.0f", tenth_rate(l, i));
    print_message("\n");
}

/* What the device can do for ever, if a request's pages are written to the ring (together with
 * those of the others in the queue) and home. */
static double home_rate(const struct load *l)
{
    double byte = (double)NSEC_PER_SEC / (double)l->speed.bytes_per_sec;
    double page = (double)l->speed.per_request + PAGE_BYTES * byte;

    return NSEC_PER_SEC / (page + PAGE_BYTES * byte + (double)l->speed.per_request / l->depth);
}

/* ---- overload ---- */

static void overload_check(const struct load *l, double factor)
{
    double home = home_rate(l);

    for (uint32_t i = 0; i < TENTHS; i++)
        assert_true(tenth_rate(l, i) > home / factor);
    for (uint32_t i = TENTHS / 2; i < TENTHS; i++)
        assert_true(tenth_rate(l, i) < home * factor);
    for (uint32_t i = 0; i < l->depth; i++) /* no one starves */
        assert_true(l->by_worker[i] > l->requests / l->depth / 2);
}

static const struct sim_disk_speed fast = {80 * NSEC_PER_USEC, 10 * NSEC_PER_USEC, 400000000};
static const struct sim_disk_speed slow = {0, 2 * NSEC_PER_MSEC, 100000000};

static const struct sim_disk_speed distant = {5 * NSEC_PER_MSEC, NSEC_PER_USEC, 4000000000};

static void test_overload(void **state)
{
    struct load l = {
        .speed = fast, .depth = 32, .requests = 60000, .set_pages = 24576, .bytes = PAGE_BYTES};

    (void)state;
    load_run(2, &l);
    load_print("overload", &l);
    overload_check(&l, 1.3);
    assert_true(latency_max(&l) < 5 * latency_mean(&l, l.n / 2));
    load_free(&l);
}

/* Between the ring's speed and the home-write rate lies a factor of thirty. */
static void test_overload_slow(void **state)
{
    struct load l = {
        .speed = slow, .depth = 32, .requests = 20000, .set_pages = 24576, .bytes = PAGE_BYTES};

    (void)state;
    load_run(3, &l);
    load_print("overload of a slow disk", &l);
    overload_check(&l, 1.3);
    assert_true(latency_max(&l) < 5 * latency_mean(&l, l.n / 2));
    load_free(&l);
}

/* A device that is slow by latency only does not slow the ring down while it is written to: the
 * writers must be. */
static void test_overload_latency(void **state)
{
    struct load l = {
        .speed = distant, .depth = 128, .requests = 40000, .set_pages = 24576, .bytes = PAGE_BYTES};

    (void)state;
    load_run(4, &l);
    load_print("overload of a distant disk", &l);
    for (uint32_t i = TENTHS / 2; i < TENTHS; i++) {
        double home = FLUSH_WINDOW * (double)NSEC_PER_SEC / (double)distant.latency;

        /* A cycle of so small a ring has as many steps of metadata as windows of data. */
        assert_true(tenth_rate(&l, i) > home / 2 && tenth_rate(&l, i) < home * 1.2);
    }
    assert_true(latency_max(&l) < 5 * latency_mean(&l, l.n / 2));
    assert_true(l.waits > l.requests / 2); /* or this test is none */
    load_free(&l);
}

/* Large requests, and small ones behind them. */
static void test_overload_mixed(void **state)
{
    struct load l = {.speed = distant,
                     .depth = 64,
                     .requests = 20000,
                     .set_pages = 24576,
                     .bytes = PAGE_BYTES,
                     .big_bytes = 15 * PAGE_BYTES};

    (void)state;
    load_run(5, &l);
    load_print("overload of mixed sizes", &l);
    for (uint32_t i = 0; i < l.depth; i++)
        assert_true(l.by_worker[i] > l.requests / l.depth / 2);
    assert_true(latency_max(&l) < 5 * latency_mean(&l, l.n / 2));
    load_free(&l);
}

/* ---- loads that the device can do ---- */

/* A queue at depth 1 never waits for the flusher, and hardly behind it. */
static void test_depth_one(void **state)
{
    struct load l = {
        .speed = fast, .depth = 1, .requests = 20000, .set_pages = 24576, .bytes = PAGE_BYTES};

    (void)state;
    load_run(6, &l);
    load_print("depth 1", &l);
    assert_int_equal(l.waits, 0);
    assert_true(latency_max(&l) < 3 * latency_mean(&l, 0));
    load_free(&l);
}

/* Half of what the device can do, from many. */
static void test_light(void **state)
{
    struct load l = {.speed = fast,
                     .depth = 32,
                     .requests = 40000,
                     .set_pages = 24576,
                     .bytes = PAGE_BYTES,
                     .pause = 2 * NSEC_PER_MSEC};

    (void)state;
    load_run(7, &l);
    load_print("light load", &l);
    assert_int_equal(l.waits, 0);
    load_free(&l);
}

/* Pages that are overwritten before the flusher comes to them are not written home. */
static void test_hot_pages(void **state)
{
    struct load l = {
        .speed = fast, .depth = 32, .requests = 40000, .set_pages = 64, .bytes = PAGE_BYTES};

    (void)state;
    load_run(8, &l);
    load_print("hot pages", &l);
    assert_true((double)l.dev_bytes < 1.15 * (double)l.user_bytes);
    load_free(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_overload),         cmocka_unit_test(test_overload_slow),
        cmocka_unit_test(test_overload_latency), cmocka_unit_test(test_overload_mixed),
        cmocka_unit_test(test_depth_one),        cmocka_unit_test(test_light),
        cmocka_unit_test(test_hot_pages),
    };

    log_threshold = LOG_LV_ERROR;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
