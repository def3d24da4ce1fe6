/* SPDX-License-Identifier: Apache-2.0
 *
 * Reservations in meta: compare-and-set, what a session is told, what waits for whom. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "common/base/err.h"
#include "common/base/units.h"
#include "meta/apply.h"
#include "meta/live.h"
#include "meta/reservations.h"

struct rig {
    struct state st;
    struct pad pad;
    struct live live;
    uint64_t volumes[2];
    uint64_t told; /* reservations_changed of the last renewal */
};

static int setup(void **state)
{
    static struct rig r;
    const struct layout layout = {.stripe_count = 1};
    struct pool *p;

    memset(&r, 0, sizeof(r));
    state_init(&r.st);
    pad_init(&r.pad);
    p = state_pool_add(&r.st, 1, "p");
    state_volume_add(&r.st, p, 5, "a", &layout, GIB);
    state_volume_add(&r.st, p, 6, "b", &layout, GIB);
    state_session_add(&r.st, 1);
    state_session_add(&r.st, 2);
    *state = &r;
    return 0;
}

static int teardown(void **state)
{
    struct rig *r = *state;

    live_fini(&r->live);
    pad_fini(&r->pad);
    state_fini(&r->st);
    return 0;
}

/* The new version, or an error. */
static int64_t set(struct rig *r, uint64_t volume, uint64_t version, const char *record)
{
    Zbs__Meta__ReservationSetRequest rq = ZBS__META__RESERVATION_SET_REQUEST__INIT;
    struct world w = {0};
    struct decide d = {.st = &r->st, .w = &w, .rq = &rq.base, .pad = &r->pad};
    Zbs__Metalog__Record *rec = NULL;
    struct packed reply;

    rq.session_id = 1;
    rq.volume_id = volume;
    rq.version = version;
    rq.record = (ProtobufCBinaryData){.data = (uint8_t *)record, .len = strlen(record)};
    int rc = decide_reservation_set(&d, &rec);
    if (rc < 0)
        return rc;
    assert_int_equal(apply_record(&r->st, rec, NULL, &r->pad, &reply), 0);
    assert_true(reply.len > 0); /* kept for a retry */
    return (int64_t)state_reservation(&r->st, volume)->version;
}

static uint64_t renew(struct rig *r, uint64_t session, uint64_t seen)
{
    Zbs__Meta__SessionRenewRequest rq = ZBS__META__SESSION_RENEW_REQUEST__INIT;
    Zbs__Meta__SessionRenewReply m = ZBS__META__SESSION_RENEW_REPLY__INIT;
    struct decide d = {.st = &r->st, .rq = &rq.base, .pad = &r->pad};

    rq.session_id = session;
    rq.reservations_version = seen;
    reservations_fill(&r->live, &d, &m);
    r->told = m.n_reservations_changed;
    return m.reservations_settled;
}

static void records_are_compared_and_set(void **state)
{
    struct rig *r = *state;
    int64_t v = set(r, 5, 0, "one");

    assert_true(v > 0);
    assert_int_equal(set(r, 5, 0, "two"), ERR_STALE);
    assert_true(set(r, 5, (uint64_t)v, "two") > v);
    assert_memory_equal(state_reservation(&r->st, 5)->record, "two", 3);
    assert_int_equal(set(r, 7, 0, "one"), ERR_NOTFOUND);
    assert_int_equal(set(r, 6, 0, ""), ERR_INVAL);
}

static void changes_settle_when_all_have_seen_them(void **state)
{
    struct rig *r = *state;
    uint64_t first = (uint64_t)set(r, 5, 0, "one");
    uint64_t second = (uint64_t)set(r, 6, 0, "one");

    assert_int_equal(renew(r, 1, second), 0); /* nothing is known of session 2 */
    assert_int_equal(renew(r, 2, 0), second);
    assert_int_equal(r->told, 2);
    assert_int_equal(renew(r, 1, second), 0);
    assert_int_equal(r->told, 0);
    renew(r, 2, first);
    assert_int_equal(r->told, 1);
    assert_int_equal(renew(r, 1, second), first);
    renew(r, 2, second);
    assert_int_equal(renew(r, 1, second), second);
    state_session_remove(&r->st, state_session(&r->st, 2));
    uint64_t third = (uint64_t)set(r, 6, second, "two");
    assert_int_equal(renew(r, 1, second), third); /* who is gone is not waited for */
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(records_are_compared_and_set),
        T(changes_settle_when_all_have_seen_them),
    };

    return cmocka_run_group_tests_name("reservations", tests, NULL, NULL);
}
