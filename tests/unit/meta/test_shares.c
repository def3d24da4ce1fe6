/* SPDX-License-Identifier: Apache-2.0
 *
 * How sessions share a limit: by need, never more than the limit, and all of it when it is needed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "common/base/prng.h"
#include "meta/shares.h"

#define SESSIONS 3u
#define IOPS     1000u

struct fixture {
    struct state st;
    struct shares sh;
    struct volume *v;
    uint32_t share[SESSIONS]; /* in force */
};

static void set_up(struct fixture *f)
{
    struct layout layout = {1, STRIPE_BYTES_DEFAULT};
    struct pool *p;

    *f = (struct fixture){0};
    state_init(&f->st);
    p = state_pool_add(&f->st, 1, "pool");
    f->v = state_volume_add(&f->st, p, 7, "volume", &layout, 1u << 30);
    zbs__meta__limits__init(&f->v->limits);
    f->v->limits.iops = IOPS;
    for (uint64_t i = 0; i < SESSIONS; i++) {
        struct session *s = state_session_add(&f->st, i + 1);

        str_set(&s->name, "access");
    }
}

static void tear_down(struct fixture *f)
{
    shares_fini(&f->sh);
    state_fini(&f->st);
}

/* One renewal: what it needs; the share that it gets. */
static uint32_t renew(struct fixture *f, uint32_t i, uint64_t iops, bool may_raise)
{
    Zbs__Meta__SessionRenewRequest rq = ZBS__META__SESSION_RENEW_REQUEST__INIT;
    Zbs__Meta__SessionRenewReply reply = ZBS__META__SESSION_RENEW_REPLY__INIT;
    Zbs__Meta__LimitDemand d = ZBS__META__LIMIT_DEMAND__INIT, *demands = &d;
    struct pad pad;

    d.volume_id = f->v->id;
    d.milli_iops = iops * 1000;
    d.iops_share = f->share[i];
    rq.demands = &demands;
    rq.n_demands = 1;
    pad_init(&pad);
    shares_fill(&f->sh, &f->st, i + 1, may_raise, &rq, &pad, &reply);
    assert_int_equal(reply.n_shares, 1);
    f->share[i] = reply.shares[0]->iops_share;
    pad_fini(&pad);
    return f->share[i];
}

static void give_up(struct fixture *f, uint32_t i)
{
    Zbs__Meta__SessionRenewRequest rq = ZBS__META__SESSION_RENEW_REQUEST__INIT;
    Zbs__Meta__SessionRenewReply reply = ZBS__META__SESSION_RENEW_REPLY__INIT;
    struct pad pad;

    pad_init(&pad);
    shares_fill(&f->sh, &f->st, i + 1, true, &rq, &pad, &reply);
    pad_fini(&pad);
    f->share[i] = 0;
}

static uint32_t sum(const struct fixture *f)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < SESSIONS; i++)
        n += f->share[i];
    return n;
}

static void one_gets_all(void **state)
{
    struct fixture f;

    (void)state;
    set_up(&f);
    assert_int_equal(renew(&f, 0, 50000, true), SHARE_WHOLE);
    assert_int_equal(renew(&f, 0, 1, true), SHARE_WHOLE);
    tear_down(&f);
}

static void needs_are_met_before_the_rest_is_divided(void **state)
{
    struct fixture f;

    (void)state;
    set_up(&f);
    for (int round = 0; round < 3; round++) {
        renew(&f, 0, 5000, true);
        renew(&f, 1, 100, true);
        renew(&f, 2, 5000, true);
        assert_true(sum(&f) <= SHARE_WHOLE);
    }
    assert_in_range(f.share[1], 100000, 110000);
    assert_in_range(f.share[0], 440000, 450000);
    assert_in_range(f.share[2], 440000, 450000);
    assert_true(sum(&f) > SHARE_WHOLE - 10);
    tear_down(&f);
}

/* Who is named no more, or has ended, gives its part back. */
static void parts_come_back(void **state)
{
    struct fixture f;

    (void)state;
    set_up(&f);
    for (int round = 0; round < 2; round++)
        for (uint32_t i = 0; i < SESSIONS; i++)
            renew(&f, i, 5000, true);
    give_up(&f, 1);
    state_session_remove(&f.st, state_session(&f.st, 3));
    f.share[2] = 0;
    assert_int_equal(renew(&f, 0, 5000, true), SHARE_WHOLE);
    tear_down(&f);
}

/* A new leader takes what is in force for granted, and raises nothing yet. */
static void new_leader_raises_nothing(void **state)
{
    struct fixture f;

    (void)state;
    set_up(&f);
    f.share[0] = 300000;
    f.share[1] = 700000;
    assert_int_equal(renew(&f, 0, 5000, false), 300000);
    assert_true(renew(&f, 1, 5000, false) <= 700000);
    assert_true(renew(&f, 0, 5000, true) <= 500001);
    tear_down(&f);
}

static void never_above_the_limit(void **state)
{
    struct prng prng;
    struct fixture f;

    (void)state;
    set_up(&f);
    prng_init(&prng, 5);
    for (int round = 0; round < 10000; round++) {
        uint32_t i = (uint32_t)prng_below(&prng, SESSIONS);

        if (prng_below(&prng, 20) == 0)
            give_up(&f, i);
        else
            renew(&f, i, prng_below(&prng, 3) * prng_below(&prng, 2000), true);
        assert_true(sum(&f) <= SHARE_WHOLE);
    }
    tear_down(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_gets_all),
        cmocka_unit_test(needs_are_met_before_the_rest_is_divided),
        cmocka_unit_test(parts_come_back),
        cmocka_unit_test(new_leader_raises_nothing),
        cmocka_unit_test(never_above_the_limit),
    };

    return cmocka_run_group_tests_name("shares", tests, NULL, NULL);
}
