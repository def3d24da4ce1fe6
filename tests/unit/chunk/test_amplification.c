/* SPDX-License-Identifier: Apache-2.0
 *
 * Write amplification: bytes written to the device for each byte of a request, metadata included,
 * until everything is home. On a device that writes 512 bytes in one piece, and on one that needs
 * 4096, where a small commit costs more. */
#include "tests/unit/chunk/engine_load.h"

static const struct sim_disk_speed ssd = {80 * NSEC_PER_USEC, 5 * NSEC_PER_USEC, 1000000000};

/* An even seed is a device of 512 bytes. */
static double amplification(const char *what, uint64_t seed, struct load l)
{
    double ret;

    l.speed = ssd;
    load_run(seed, &l);
    load_print(what, &l);
    ret = (double)l.dev_bytes / (double)l.user_bytes;
    load_free(&l);
    return ret;
}

static void test_random(void **state)
{
    struct load deep = {.depth = 32, .requests = 60000, .set_pages = 45056, .bytes = PAGE_BYTES};
    struct load one = {.depth = 1, .requests = 20000, .set_pages = 45056, .bytes = PAGE_BYTES};

    (void)state;
    assert_true(amplification("random 4 KiB, depth 32", 2, deep) <= 2.1);
    assert_true(amplification("random 4 KiB, depth 32, 4Kn", 3, deep) <= 2.2);
    /* Each has a commit of its own: 512, or 4096 bytes more. */
    assert_true(amplification("random 4 KiB, depth 1", 2, one) <= 2.2);
    assert_true(amplification("random 4 KiB, depth 1, 4Kn", 3, one) <= 3.2);
}

static void test_sequential(void **state)
{
    struct load l = {.depth = 1, .requests = 1400, .sequential = true, .bytes = 128 * KIB};

    (void)state;
    assert_true(amplification("sequential 128 KiB, depth 1", 2, l) <= 1.02);
    assert_true(amplification("sequential 128 KiB, depth 1, 4Kn", 3, l) <= 1.05);
    l.depth = 8;
    assert_true(amplification("sequential 128 KiB, depth 8", 2, l) <= 1.02);
    assert_true(amplification("sequential 128 KiB, depth 8, 4Kn", 3, l) <= 1.02);
    l.depth = 1;
    l.bytes = MIB;
    l.requests = 175;
    assert_true(amplification("sequential 1 MiB, depth 1", 2, l) <= 1.02);
    assert_true(amplification("sequential 1 MiB, depth 1, 4Kn", 3, l) <= 1.02);
}

/* Over blocks with data, in parts of them: two to a block, a bit more than one and a half. */
static void test_overwrite(void **state)
{
    struct load l = {
        .depth = 1, .requests = 1400, .sequential = true, .set_pages = 16384, .bytes = 128 * KIB};

    (void)state;
    assert_true(amplification("overwriting 128 KiB, depth 1", 2, l) <= 1.04);
    assert_true(amplification("overwriting 128 KiB, depth 1, 4Kn", 3, l) <= 1.12);
    l.depth = 8;
    assert_true(amplification("overwriting 128 KiB, depth 8", 2, l) <= 1.1);
    l.depth = 1;
    l.bytes = 64 * KIB;
    assert_true(amplification("overwriting 64 KiB, depth 1", 2, l) <= 1.06);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_sequential),
        cmocka_unit_test(test_overwrite),
    };

    log_threshold = LOG_LV_ERROR;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
