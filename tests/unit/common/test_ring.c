/* SPDX-License-Identifier: Apache-2.0
 *
 * A ring in shared memory: bytes, order, announcements, and a peer that writes nonsense into it. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>
#include "common/base/err.h"
#include "common/base/mem.h"
#include "common/base/prng.h"
#include "common/env/ring.h"

struct pair {
    struct ring_mem *mem;
    struct ring w, r;
};

static void pair_init(struct pair *p, uint32_t start)
{
    p->mem = MEM_NEW(struct ring_mem);
    atomic_store(&p->mem->head, start);
    atomic_store(&p->mem->tail, start);
    p->w = p->r = (struct ring){p->mem, start};
}

static ssize_t put(struct pair *p, const void *bytes, size_t len, bool *ring)
{
    struct iovec iov = {(void *)(uintptr_t)bytes, len};

    return ring_write(&p->w, &iov, 1, ring);
}

static ssize_t take(struct pair *p, void *bytes, size_t len, bool *ring)
{
    struct iovec iov = {bytes, len};

    return ring_read(&p->r, &iov, 1, ring);
}

/* Pieces of all sizes through a ring whose positions wrap in the middle of it. */
static void bytes_come_out_in_order(void **state)
{
    struct pair p;
    struct prng prng;
    uint8_t in[3000], out[3000];
    uint64_t written = 0, read = 0;

    (void)state;
    pair_init(&p, UINT32_MAX - 100000);
    prng_init(&prng, 7);
    while (read < 1000000) {
        struct iovec iov[3] = {{in, prng_below(&prng, 1000)}, {in + 1000, 0}, {in + 1000, 0}};
        bool ring;
        ssize_t n;

        iov[2].iov_len = prng_below(&prng, 2000);
        for (size_t i = 0; i < iov[0].iov_len; i++)
            in[i] = (uint8_t)((written + i) * 7 / 5);
        for (size_t i = 0; i < iov[2].iov_len; i++)
            in[1000 + i] = (uint8_t)((written + iov[0].iov_len + i) * 7 / 5);
        n = ring_write(&p.w, iov, 3, &ring);
        assert_true(n >= 0 && !ring);
        written += (uint64_t)n;
        assert_true(written - read <= RING_BYTES);
        n = take(&p, out, prng_below(&prng, sizeof(out)), &ring);
        assert_true(n >= 0 && !ring);
        for (ssize_t i = 0; i < n; i++)
            assert_int_equal(out[i], (uint8_t)((read + (uint64_t)i) * 7 / 5));
        read += (uint64_t)n;
    }
    mem_free(p.mem);
}

static void full_and_empty(void **state)
{
    static uint8_t bytes[RING_BYTES + 10];
    struct pair p;
    bool ring;

    (void)state;
    pair_init(&p, 12345);
    assert_false(ring_readable(&p.r));
    assert_int_equal(take(&p, bytes, 10, &ring), 0);
    assert_int_equal(put(&p, bytes, sizeof(bytes), &ring), RING_BYTES);
    assert_false(ring_writable(&p.w));
    assert_int_equal(put(&p, bytes, 1, &ring), 0);
    assert_int_equal(take(&p, bytes, 1, &ring), 1);
    assert_true(ring_writable(&p.w));
    assert_int_equal(put(&p, bytes, 2, &ring), 1);
    mem_free(p.mem);
}

static void who_sleeps_is_woken_once(void **state)
{
    static uint8_t bytes[RING_BYTES];
    struct pair p;
    bool ring;

    (void)state;
    pair_init(&p, 0);
    assert_true(ring_reader_sleeps(&p.r));
    assert_int_equal(put(&p, bytes, 5, &ring), 5);
    assert_true(ring);
    assert_int_equal(put(&p, bytes, 5, &ring), 5);
    assert_false(ring);
    assert_false(ring_reader_sleeps(&p.r)); /* there is something */
    assert_int_equal(put(&p, bytes, sizeof(bytes), &ring), RING_BYTES - 10);
    assert_false(ring);
    assert_true(ring_writer_sleeps(&p.w));
    assert_int_equal(take(&p, bytes, 100, &ring), 100);
    assert_true(ring);
    assert_int_equal(take(&p, bytes, 100, &ring), 100);
    assert_false(ring);
    assert_false(ring_writer_sleeps(&p.w));
    mem_free(p.mem);
}

static void the_end_comes_after_the_rest(void **state)
{
    uint8_t bytes[10] = {0};
    struct pair p;
    bool ring;

    (void)state;
    pair_init(&p, 9);
    assert_int_equal(put(&p, bytes, 5, &ring), 5);
    assert_false(ring_closed(&p.r));
    ring_close(&p.w);
    assert_true(ring_closed(&p.r));
    assert_int_equal(take(&p, bytes, 10, &ring), 5);
    assert_int_equal(take(&p, bytes, 10, &ring), 0);
    mem_free(p.mem);
}

static void impossible_positions_are_refused(void **state)
{
    static const uint32_t wrong[] = {RING_BYTES + 1, 1u << 31, UINT32_MAX};
    uint8_t bytes[100] = {0};
    struct pair p;
    bool ring;

    (void)state;
    pair_init(&p, 500);
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        atomic_store(&p.mem->tail, 500 + wrong[i]);
        assert_true(ring_readable(&p.r)); /* so that somebody looks, and sees the error */
        assert_int_equal(take(&p, bytes, sizeof(bytes), &ring), ERR_PROTO);
        atomic_store(&p.mem->head, 500 - wrong[i]);
        assert_true(ring_writable(&p.w));
        assert_int_equal(put(&p, bytes, sizeof(bytes), &ring), ERR_PROTO);
        atomic_store(&p.mem->tail, 500);
        atomic_store(&p.mem->head, 500);
    }
    /* The writer's own position is not taken from memory. */
    assert_int_equal(put(&p, bytes, 10, &ring), 10);
    atomic_store(&p.mem->tail, 7777);
    assert_int_equal(put(&p, bytes, 10, &ring), 10);
    assert_int_equal(atomic_load(&p.mem->tail), 520);
    mem_free(p.mem);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_come_out_in_order),
        cmocka_unit_test(full_and_empty),
        cmocka_unit_test(who_sleeps_is_woken_once),
        cmocka_unit_test(the_end_comes_after_the_rest),
        cmocka_unit_test(impossible_positions_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
