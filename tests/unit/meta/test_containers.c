/* SPDX-License-Identifier: Apache-2.0
 *
 * The meta server's containers against naive models. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "common/base/prng.h"
#include "meta/idmap.h"
#include "meta/pad.h"
#include "meta/sorted.h"

#define IDS 300u

static void idmap_equals_its_model(void **state)
{
    uint64_t model[IDS + 1] = {0}, count = 0;
    struct idmap m = {0};
    struct prng p;

    (void)state;
    prng_init(&p, 7);
    assert_int_equal(idmap_get(&m, 1), 0);
    assert_false(idmap_del(&m, 1));
    for (int i = 0; i < 20000; i++) {
        uint64_t id = prng_between(&p, 1, IDS);

        if (prng_below(&p, 2) == 0) {
            count += model[id] == 0;
            model[id] = prng_next(&p) | 1;
            idmap_put(&m, id, model[id]);
        } else {
            assert_int_equal(idmap_del(&m, id), model[id] != 0);
            count -= model[id] != 0;
            model[id] = 0;
        }
        assert_int_equal(m.count, count);
        if (i % 50 == 0) {
            for (uint64_t k = 1; k <= IDS; k++)
                assert_int_equal(idmap_get(&m, k), model[k]);
        }
    }
    idmap_fini(&m);
}

static int compare_int(const void *item, const void *key)
{
    uint32_t a = *(const uint32_t *)item, b = *(const uint32_t *)key;

    return a < b ? -1 : a > b;
}

static void sorted_keeps_the_order(void **state)
{
    static uint32_t numbers[IDS];
    struct sorted v = {0};
    struct prng p;
    bool found = true;

    (void)state;
    prng_init(&p, 9);
    for (uint32_t i = 0; i < IDS; i++)
        numbers[i] = i;
    for (int i = 0; i < 5000; i++) {
        uint32_t *n = &numbers[prng_below(&p, IDS)];

        if (sorted_find(&v, compare_int, n) == NULL)
            sorted_insert(&v, compare_int, n, n);
        else
            assert_ptr_equal(sorted_remove(&v, compare_int, n), n);
        for (uint32_t k = 1; i % 100 == 0 && k < v.count; k++)
            assert_true(*(uint32_t *)v.items[k - 1] < *(uint32_t *)v.items[k]);
    }
    assert_null(sorted_remove(&v, compare_int, &(uint32_t){IDS}));
    assert_int_equal(sorted_lower(&v, compare_int, &(uint32_t){IDS}, &found), v.count);
    assert_false(found);
    sorted_fini(&v);
}

/* As a queue, and as one that grows at its front. */
static void sorted_moves_with_its_ends(void **state)
{
    static uint32_t numbers[4000];
    struct sorted v = {0};

    (void)state;
    for (uint32_t i = 0; i < ARRAY_SIZE(numbers); i++) {
        numbers[i] = i;
        sorted_push(&v, &numbers[i]);
        if (i >= 10)
            assert_ptr_equal(sorted_remove_at(&v, 0), &numbers[i - 10]);
    }
    assert_int_equal(v.count, 10);
    assert_true(v.cap <= 64);
    for (uint32_t i = ARRAY_SIZE(numbers) - 10; i-- > 0;)
        sorted_insert_at(&v, 0, &numbers[i]);
    for (uint32_t i = 0; i < ARRAY_SIZE(numbers); i++)
        assert_ptr_equal(v.items[i], &numbers[i]);
    while (v.count > 0)
        assert_non_null(sorted_remove_at(&v, v.count / 3));
    sorted_fini(&v);
}

static void pad_gives_zeroed_memory(void **state)
{
    struct pad pad;

    (void)state;
    pad_init(&pad);
    for (size_t len = 0; len < 9000; len += 37) {
        uint8_t *p = pad_alloc(&pad, len);

        assert_int_equal((uintptr_t)p % 8, 0);
        for (size_t i = 0; i < len; i++)
            assert_int_equal(p[i], 0);
        memset(p, 0xff, len);
    }
    assert_string_equal(pad_printf(&pad, "%s-%d", "a", 5), "a-5");
    assert_string_equal(pad_strdup(&pad, ""), "");
    pad_fini(&pad);
    pad_fini(&pad);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(idmap_equals_its_model),
        cmocka_unit_test(sorted_keeps_the_order),
        cmocka_unit_test(sorted_moves_with_its_ends),
        cmocka_unit_test(pad_gives_zeroed_memory),
    };

    return cmocka_run_group_tests_name("containers", tests, NULL, NULL);
}
