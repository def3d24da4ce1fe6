/* SPDX-License-Identifier: Apache-2.0
 *
 * The budget of memory: who has to give, and how much. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "chunk/memory.h"
#include "common/base/attr.h"

struct holder {
    struct budget_user u;
    struct budget *b;
    uint64_t stuck; /* of its bytes: in use */
};

static void give(void *arg, uint64_t bytes)
{
    struct holder *h = arg;
    uint64_t can = h->u.bytes - MIN(h->u.bytes, h->stuck);

    budget_sub(h->b, &h->u, MIN(bytes, can));
}

static void holders_init(struct budget *b, struct holder h[2])
{
    budget_init(b, 1000);
    for (int i = 0; i < 2; i++) {
        h[i] = (struct holder){.b = b};
        budget_join(b, &h[i].u, 30, give, &h[i]);
    }
}

static void test_order(void **state)
{
    struct holder h[2];
    struct budget b;

    (void)state;
    holders_init(&b, h);
    budget_add(&b, &h[0].u, 900);
    assert_int_equal(b.used, 900);
    /* The one of less value gives, down to its share. */
    budget_add(&b, &h[1].u, 600);
    assert_int_equal(h[0].u.bytes, 400);
    assert_int_equal(h[1].u.bytes, 600);
    budget_add(&b, &h[1].u, 300);
    assert_int_equal(h[0].u.bytes, 300);
    assert_int_equal(h[1].u.bytes, 700);
    /* And it has a right to that share. */
    budget_add(&b, &h[0].u, 50);
    assert_int_equal(h[0].u.bytes, 300);
    assert_int_equal(h[1].u.bytes, 700);
}

static void test_stuck(void **state)
{
    struct holder h[2];
    struct budget b;

    (void)state;
    holders_init(&b, h);
    budget_add(&b, &h[0].u, 300);
    h[1].stuck = 900;
    budget_add(&b, &h[1].u, 900); /* what it uses it can't give: the other goes below its share */
    assert_int_equal(h[0].u.bytes, 100);
    h[1].stuck = 1200;
    budget_add(&b, &h[1].u, 300); /* nobody can: over the limit, until something is let go */
    assert_int_equal(b.used, 1200);
    h[1].stuck = 0;
    budget_trim(&b);
    assert_int_equal(b.used, 1000);
}

static void test_fixed(void **state)
{
    struct holder h[2];
    struct budget b;

    (void)state;
    holders_init(&b, h);
    budget_add(&b, &h[1].u, 1000);
    budget_fixed(&b, 600);
    assert_int_equal(b.used, 400);
    budget_fixed(&b, 600); /* a quarter is left at least */
    assert_int_equal(b.used, 250);
    budget_fixed(&b, -1200);
    assert_int_equal(budget_room(&b), 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_stuck),
        cmocka_unit_test(test_fixed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
