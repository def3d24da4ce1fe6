/* SPDX-License-Identifier: Apache-2.0
 *
 * Pacing (chunk/pace.c) in virtual time, on simulated devices of known speed: many ring-fulls of
 * random overwrites, more than the device can bring home. Nobody waits long, throughput goes to
 * what the device can do and stays there, and a load that it can do is not slowed down. */
#include "tests/unit/chunk/engine_load.h"

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
    /* No cliff, from the empty ring to the last of many ring-fulls. */
    for (uint32_t i = 0; i < TENTHS * TENTHS; i++)
        assert_true(2 * tenth_p99(l, i / TENTHS) <= 3 * tenth_p99(l, i % TENTHS));
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

/* The ring is on a fast device: as long as the slow one can follow, requests take what the fast one
 * does; under overload it alone says how many there can be. */
static void test_ring_elsewhere(void **state)
{
    struct load light = {.speed = slow,
                         .ring_speed = &fast,
                         .depth = 4,
                         .pause = 20 * NSEC_PER_MSEC,
                         .requests = 8000,
                         .set_pages = 24576,
                         .bytes = PAGE_BYTES};
    struct load own = light, heavy = light;
    double home = NSEC_PER_SEC / ((double)slow.per_request + PAGE_BYTES * 10.0);

    (void)state;
    own.ring_speed = NULL;
    own.requests = 500; /* it goes home afterwards */
    heavy.depth = 32;
    heavy.pause = 0;
    heavy.requests = 20000;
    load_run(2, &own);
    load_print("light load, own ring", &own);
    load_run(2, &light);
    load_print("light load, ring on a fast disk", &light);
    load_run(2, &heavy);
    load_print("overload, ring on a fast disk", &heavy);
    assert_true(latency_mean(&own, 0) > 2 * NSEC_PER_MSEC);
    assert_true(latency_mean(&light, 0) < 2 * (fast.latency + fast.per_request));
    assert_true(tenth_p99(&light, TENTHS - 1) < 4 * (fast.latency + fast.per_request));
    for (uint32_t i = TENTHS / 2; i < TENTHS; i++) {
        assert_true(tenth_rate(&heavy, i) > home / 1.3 && tenth_rate(&heavy, i) < home * 1.3);
        assert_true(2 * tenth_p99(&heavy, i) <= 3 * tenth_p99(&heavy, TENTHS - 1));
    }
    load_free(&own);
    load_free(&light);
    load_free(&heavy);
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

/* Most pages are only in the ring when the flusher comes to them, most map pages only on the disk,
 * and few may be dirty. */
static void test_overload_memory(void **state)
{
    struct load l = {.speed = fast,
                     .depth = 32,
                     .requests = 40000,
                     .set_pages = 45056,
                     .bytes = PAGE_BYTES,
                     .memory_bytes = 512 * KIB};

    (void)state;
    load_run(2, &l);
    load_print("overload with little memory", &l);
    for (uint32_t i = 0; i < TENTHS; i++)
        assert_true(tenth_rate(&l, i) > home_rate(&l) / 2.5);
    assert_true(latency_max(&l) < 6 * latency_mean(&l, l.n / 2));
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

/* A device that takes one request after the other: a commit waits for what the flusher has in the
 * device's queue, which is little as long as the ring is far from full; a request waits for the
 * commit that is on its way and for its own. */
static void test_light_slow(void **state)
{
    struct load l = {.speed = slow,
                     .depth = 8,
                     .requests = 10000,
                     .set_pages = 24576,
                     .bytes = PAGE_BYTES,
                     .pause = 35 * NSEC_PER_MSEC};

    (void)state;
    load_run(9, &l);
    load_print("light load of a slow disk", &l);
    assert_int_equal(l.waits, 0);
    assert_true(latency_mean(&l, 0) < 5 * slow.per_request);
    assert_true(latency_max(&l) < 12 * slow.per_request);
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
        cmocka_unit_test(test_overload_latency), cmocka_unit_test(test_ring_elsewhere),
        cmocka_unit_test(test_overload_mixed),   cmocka_unit_test(test_overload_memory),
        cmocka_unit_test(test_depth_one),        cmocka_unit_test(test_light),
        cmocka_unit_test(test_light_slow),       cmocka_unit_test(test_hot_pages),
    };

    log_threshold = LOG_LV_ERROR;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
