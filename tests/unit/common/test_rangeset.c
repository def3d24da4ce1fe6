/* SPDX-License-Identifier: Apache-2.0
 *
 * Range sets: named cases, and random operations against a plain bitmap. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include "common/base/prng.h"
#include "common/base/rangeset.h"

static void expect(const struct rangeset *s, size_t n, const struct range *want)
{
    uint64_t total = 0;

    assert_int_equal(rangeset_count(s), n);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(s->ranges.data[i].start, want[i].start);
        assert_int_equal(s->ranges.data[i].end, want[i].end);
        total += want[i].end - want[i].start;
    }
    assert_int_equal(rangeset_total(s), total);
}

static void touching_ranges_become_one(void **state)
{
    struct rangeset s;

    (void)state;
    rangeset_init(&s);
    assert_true(rangeset_empty(&s));
    rangeset_add(&s, 10, 20);
    rangeset_add(&s, 30, 40);
    rangeset_add(&s, 5, 5);
    expect(&s, 2, (struct range[]){{10, 20}, {30, 40}});
    rangeset_add(&s, 20, 30);
    expect(&s, 1, (struct range[]){{10, 40}});
    rangeset_add(&s, 0, 100);
    rangeset_add(&s, UINT64_MAX - 1, UINT64_MAX);
    expect(&s, 2, (struct range[]){{0, 100}, {UINT64_MAX - 1, UINT64_MAX}});
    rangeset_fini(&s);
}

static void remove_splits_and_trims(void **state)
{
    struct rangeset s, t;

    (void)state;
    rangeset_init(&s);
    rangeset_init(&t);
    rangeset_add(&s, 0, 100);
    rangeset_remove(&s, 40, 50);
    expect(&s, 2, (struct range[]){{0, 40}, {50, 100}});
    rangeset_copy(&t, &s);
    rangeset_remove(&s, 30, 60);
    expect(&s, 2, (struct range[]){{0, 30}, {60, 100}});
    rangeset_remove(&s, 100, 200);
    rangeset_remove(&s, 30, 60);
    expect(&s, 2, (struct range[]){{0, 30}, {60, 100}});
    rangeset_remove_set(&t, &s);
    expect(&t, 2, (struct range[]){{30, 40}, {50, 60}});
    rangeset_add_set(&t, &s);
    expect(&t, 2, (struct range[]){{0, 40}, {50, 100}});
    rangeset_clear(&t);
    expect(&t, 0, NULL);
    rangeset_fini(&s);
    rangeset_fini(&t);
}

static void iteration_tolerates_changes(void **state)
{
    struct rangeset s;
    struct range r;
    uint64_t seen = 0;

    (void)state;
    rangeset_init(&s);
    for (uint64_t i = 0; i < 10; i++)
        rangeset_add(&s, i * 10, i * 10 + 5);
    for (uint64_t at = 0; rangeset_next(&s, at, &r); at = r.end) {
        rangeset_remove(&s, r.start, r.end);
        seen += r.end - r.start;
    }
    assert_int_equal(seen, 50);
    assert_true(rangeset_empty(&s));
    rangeset_add(&s, 10, 20);
    assert_true(rangeset_next(&s, 15, &r));
    assert_int_equal(r.start, 15);
    assert_int_equal(r.end, 20);
    assert_false(rangeset_next(&s, 20, &r));
    rangeset_fini(&s);
}

#define UNIVERSE 200

static void random_operations_match_a_bitmap(void **state)
{
    bool bits[UNIVERSE] = {false};
    struct rangeset s;
    struct prng p;

    (void)state;
    rangeset_init(&s);
    prng_init(&p, 42);
    for (int op = 0; op < 20000; op++) {
        uint64_t from = prng_below(&p, UNIVERSE), to = from + prng_below(&p, 20);
        bool add = prng_chance(&p, 500000), all = true, any = false;
        size_t runs = 0, ones = 0;

        to = MIN(to, UNIVERSE);
        for (uint64_t i = from; i < to; i++) {
            all = all && bits[i];
            any = any || bits[i];
        }
        assert_int_equal(rangeset_contains(&s, from, to), all);
        assert_int_equal(rangeset_intersects(&s, from, to), any);
        if (add)
            rangeset_add(&s, from, to);
        else
            rangeset_remove(&s, from, to);
        memset(bits + from, add, to - from);
        for (size_t i = 0; i < UNIVERSE; i++) {
            ones += bits[i];
            runs += bits[i] && (i == 0 || !bits[i - 1]);
        }
        assert_int_equal(rangeset_total(&s), ones);
        assert_int_equal(rangeset_count(&s), runs);
        for (size_t i = 0; i < rangeset_count(&s); i++)
            assert_true(bits[s.ranges.data[i].start] && bits[s.ranges.data[i].end - 1]);
    }
    rangeset_fini(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(touching_ranges_become_one),
        cmocka_unit_test(remove_splits_and_trims),
        cmocka_unit_test(iteration_tolerates_changes),
        cmocka_unit_test(random_operations_match_a_bitmap),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
