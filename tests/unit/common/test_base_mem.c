/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory: tracked heaps and payload buffers, the latter from several threads. */
#include <pthread.h>
#include <stdio.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include "common/base/buf.h"
#include "common/base/mem.h"
#include "common/base/prng.h"

static void destroyed_heap_gives_everything_back(void **state)
{
    struct mem_heap *a = mem_heap_new(), *b = mem_heap_new();
    char *of_a, *of_b, *of_none = mem_strdup("none");

    (void)state;
    assert_null(mem_heap_set(a));
    of_a = mem_alloc(100);
    (void)mem_alloc_aligned(4096, 8192);
    assert_int_equal(mem_heap_bytes(a), 8292);
    assert_ptr_equal(mem_heap_set(b), a);
    of_b = mem_printf("%s %d", "b", 1);
    assert_string_equal(of_b, "b 1");
    of_a = mem_realloc(of_a, 1000); /* stays in a */
    assert_int_equal(mem_heap_bytes(a), 9192);
    assert_int_equal(mem_heap_bytes(b), 4);
    of_none = mem_realloc(of_none, 50);
    (void)buf_alloc(10000);
    for (int i = 0; i < 10000; i++)
        (void)mem_alloc(8);
    assert_ptr_equal(mem_heap_set(NULL), b);
    mem_free(of_b); /* no matter which heap is set */
    mem_free(of_none);
    mem_heap_destroy(b);
    mem_free(of_a);
    assert_int_equal(mem_heap_bytes(a), 8192);
    mem_heap_destroy(a); /* a leak checker finds what is left */
}

static void memory_is_zeroed(void **state)
{
    uint8_t *p = mem_alloc(1000);

    (void)state;
    assert_true(mem_is_zero(p, 1000));
    for (size_t i = 0; i < 1000; i += 111) {
        p[i] = 1;
        assert_false(mem_is_zero(p, 1000));
        assert_true(mem_is_zero(p + i + 1, 1000 - i - 1));
        assert_true(mem_is_zero(p, i));
        p[i] = 0;
    }
    assert_true(mem_is_zero(NULL, 0));
    assert_true(mem_is_zero(zero_page, BUF_ALIGN));
    mem_free(p);
}

static void buffers_are_aligned_counted_and_limited(void **state)
{
    uint64_t before = buf_used_bytes();
    struct buf *b;

    (void)state;
    for (size_t len = 0; len <= 3u << 20; len += len < 300000 ? 1777 : 300001) {
        b = buf_alloc(len);
        assert_true(b->cap >= len && b->cap >= BUF_ALIGN && b->cap % BUF_ALIGN == 0);
        assert_true(b->cap <= BUF_ALIGN || b->cap <= len + len / 2 + BUF_ALIGN);
        assert_int_equal((uintptr_t)b->data % BUF_ALIGN, 0);
        memset(b->data, 0xAA, b->cap);
        assert_ptr_equal(buf_get(b), b);
        buf_put(b);
        assert_int_equal(buf_used_bytes(), before + b->cap);
        buf_put(b);
    }
    buf_put(NULL);
    assert_int_equal(buf_used_bytes(), before);
    buf_limit_set(before + 100000);
    b = buf_try_alloc(90000);
    assert_non_null(b);
    assert_null(buf_try_alloc(90000));
    buf_put(b);
    buf_limit_set(0);
    buf_pool_trim();
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
static uint64_t resident(void)
{
    unsigned long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");

    assert_non_null(f);
    assert_int_equal(fscanf(f, "%*u %lu", &pages), 1);
    fclose(f);
    return (uint64_t)pages * 4096;
}

static void single_pages_take_one_page(void **state)
{
    enum { COUNT = 16384 };
    static struct buf *held[COUNT];
    uint64_t before = resident(), bytes = (uint64_t)COUNT * BUF_ALIGN;

    (void)state;
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < COUNT; i++) {
            held[i] = buf_alloc(BUF_ALIGN);
            held[i]->data[0] = 1;
        }
        assert_true(resident() - before < bytes + bytes / 8);
        for (int i = 0; i < COUNT; i++)
            buf_put(held[i]);
        buf_pool_trim();
        assert_true(resident() - before < bytes / 8);
    }
}
#else
static void single_pages_take_one_page(void **state)
{
    (void)state; /* a sanitizer has memory of its own */
}
#endif

static void *churn(void *arg)
{
    struct buf *held[16] = {NULL};
    struct prng p;

    prng_init(&p, (uint64_t)(uintptr_t)arg);
    for (int i = 0; i < 20000; i++) {
        struct buf **slot = &held[prng_below(&p, 16)];

        buf_put(*slot);
        *slot = buf_alloc(prng_below(&p, 40000));
        (*slot)->data[0] = (uint8_t)i;
        (*slot)->data[(*slot)->cap - 1] = (uint8_t)i;
    }
    for (size_t i = 0; i < 16; i++)
        buf_put(held[i]);
    return NULL;
}

static void buffers_survive_two_threads(void **state)
{
    uint64_t before = buf_used_bytes();
    pthread_t other;

    (void)state;
    assert_int_equal(pthread_create(&other, NULL, churn, (void *)1), 0);
    (void)churn((void *)2);
    assert_int_equal(pthread_join(other, NULL), 0);
    assert_int_equal(buf_used_bytes(), before);
    buf_pool_trim();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(destroyed_heap_gives_everything_back),
        cmocka_unit_test(memory_is_zeroed),
        cmocka_unit_test(buffers_are_aligned_counted_and_limited),
        cmocka_unit_test(single_pages_take_one_page),
        cmocka_unit_test(buffers_survive_two_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
