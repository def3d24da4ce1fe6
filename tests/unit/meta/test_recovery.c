/* SPDX-License-Identifier: Apache-2.0
 *
 * Decisions of recovery: what is replaced, moved, removed as one too many, and forgotten. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "common/base/err.h"
#include "common/base/units.h"
#include "meta/apply.h"
#include "meta/decide.h"
#include "meta/family.h"
#include "meta/gc.h"
#include "meta/table.h"

#define HOSTS 5u

struct fixture {
    struct state st;
    struct world w;
    struct pad pad;
    struct place_chunk chunks[HOSTS];
    uint64_t session;
    struct extent *e;
};

static void commit(struct fixture *f, Zbs__Metalog__Record *r)
{
    struct packed reply;

    assert_non_null(r);
    assert_int_equal(apply_record(&f->st, r, NULL, &f->pad, &reply), 0);
}

static int act(struct fixture *f, decide_fn fn, ProtobufCMessage *rq)
{
    struct decide d = {.st = &f->st, .w = &f->w, .rq = rq, .pad = &f->pad};
    Zbs__Metalog__Record *r = NULL;
    int rc = fn(&d, &r);

    if (rc == 0 && r != NULL)
        commit(f, r);
    return rc;
}

static void add_chunk(struct fixture *f, uint32_t i)
{
    Zbs__Meta__ChunkRegisterRequest rq = ZBS__META__CHUNK_REGISTER_REQUEST__INIT;
    uint8_t uuid[16] = {(uint8_t)(i + 1)};

    rq.uuid = (ProtobufCBinaryData){.data = uuid, .len = 16};
    rq.addr = pad_printf(&f->pad, "127.0.0.1:%u", 7200 + i);
    rq.host = pad_printf(&f->pad, "host-%u", i + 1);
    rq.workers = 1;
    assert_int_equal(act(f, decide_chunk_register, &rq.base), 0);
    f->chunks[i] = (struct place_chunk){.id = i + 1,
                                        .host = state_chunk(&f->st, i + 1)->host,
                                        .rack = "",
                                        .zone = "",
                                        .size_bytes = 100 * GIB,
                                        .free_bytes = 50 * GIB,
                                        .alive = true,
                                        .heard = true};
    f->w.n_chunks = i + 1;
}

/* The extent's set was `set_number` when it was created at its members. */
static int created(struct fixture *f, uint64_t set_number)
{
    Zbs__Meta__ExtentCreatedRequest rq = ZBS__META__EXTENT_CREATED_REQUEST__INIT;

    rq.session_id = f->session;
    rq.extent_ids = &f->e->id;
    rq.epochs = &f->e->epoch;
    rq.set_numbers = &set_number;
    rq.n_extent_ids = rq.n_epochs = rq.n_set_numbers = 1;
    return act(f, decide_extent_created, &rq.base);
}

/* The extent in that slot of the volume is allocated. */
static void allocate(struct fixture *f, uint32_t slot)
{
    Zbs__Meta__LeaseAcquireRequest rq = ZBS__META__LEASE_ACQUIRE_REQUEST__INIT;

    rq.session_id = f->session;
    rq.volume_id = pool_volume(state_pool(&f->st, "p"), "p")->id;
    rq.first_slot = slot;
    rq.count = 1;
    rq.allocate = true;
    assert_int_equal(act(f, decide_lease_acquire, &rq.base), 0);
    f->e = volume_extent(state_volume(&f->st, rq.volume_id), slot);
}

/* One extent of three replicas, created; `n` chunk servers. */
static void begin(struct fixture *f, uint32_t n)
{
    Zbs__Meta__SessionOpenRequest session = ZBS__META__SESSION_OPEN_REQUEST__INIT;
    Zbs__Meta__PoolCreateRequest pool = ZBS__META__POOL_CREATE_REQUEST__INIT;
    Zbs__Meta__VolumeCreateRequest volume = ZBS__META__VOLUME_CREATE_REQUEST__INIT;

    *f = (struct fixture){.w = {.chunks = f->chunks, .random = 3}};
    state_init(&f->st);
    pad_init(&f->pad);
    for (uint32_t i = 0; i < n; i++)
        add_chunk(f, i);
    session.name = session.host = (char *)"host-1";
    session.addr = (char *)"127.0.0.1:7300";
    assert_int_equal(act(f, decide_session_open, &session.base), 0);
    f->session = state_session_by_name(&f->st, "host-1")->id;
    pool.name = volume.pool = volume.name = (char *)"p";
    pool.replicas = 3;
    volume.size_bytes = GIB;
    assert_int_equal(act(f, decide_pool_create, &pool.base), 0);
    assert_int_equal(act(f, decide_volume_create, &volume.base), 0);
    allocate(f, 0);
    assert_int_equal(created(f, f->e->set_number), 0);
    assert_int_equal(f->e->n_members, 3);
}

static void end(struct fixture *f)
{
    state_fini(&f->st);
    pad_fini(&f->pad);
}

static int change(struct fixture *f, uint32_t remove, uint32_t add, uint32_t forget)
{
    Zbs__Meta__ReplicaChangeRequest rq = ZBS__META__REPLICA_CHANGE_REQUEST__INIT;

    rq.session_id = f->session;
    rq.extent_id = f->e->id;
    rq.epoch = f->e->epoch;
    rq.set_number = f->e->set_number;
    rq.remove = &remove;
    rq.n_remove = remove != 0;
    rq.add = &add;
    rq.n_add = add != 0;
    rq.forget = &forget;
    rq.n_forget = forget != 0;
    rq.reason = (char *)"test";
    return act(f, decide_replica_change, &rq.base);
}

static struct place_chunk *at(struct fixture *f, uint32_t id)
{
    return &f->chunks[id - 1];
}

static Zbs__Metalog__Record *repair(struct fixture *f)
{
    return decide_repair(&f->st, &f->w, f->e, &f->pad);
}

static void the_gone_are_replaced(void **state)
{
    struct fixture fix, *f = &fix;
    uint32_t lost, other;

    (void)state;
    begin(f, 5);
    lost = f->e->replicas[1];
    assert_null(f->e->unsettled);
    assert_int_equal(change(f, lost, 0, 0), 0);
    assert_int_equal(f->e->unsettled->danger, 1); /* two in-sync ones */
    at(f, lost)->alive = false;
    assert_null(repair(f)); /* it may come back yet */
    at(f, lost)->gone = true;
    commit(f, repair(f));
    assert_int_equal(f->e->n_members, 2);
    assert_int_equal(f->e->n_absent, 1);
    other = extent_absent(f->e)[0];
    assert_int_not_equal(other, lost);
    assert_non_null(chunk_garbage(state_chunk(&f->st, lost), f->e->id));
    assert_null(repair(f));
    assert_int_equal(change(f, 0, other, 0), 0);
    assert_null(f->e->unsettled);
    end(f);
}

static void without_a_place_nothing_is_forgotten(void **state)
{
    struct fixture fix, *f = &fix;
    uint32_t lost;

    (void)state;
    begin(f, 3);
    lost = f->e->replicas[2];
    assert_int_equal(change(f, lost, 0, 0), 0);
    at(f, lost)->alive = false;
    at(f, lost)->gone = true;
    assert_null(repair(f));
    add_chunk(f, 3);
    at(f, 4)->leaving = true; /* in maintenance: no place either */
    assert_null(repair(f));
    at(f, 4)->leaving = false;
    at(f, 4)->free_bytes = 0;
    assert_null(repair(f));
    at(f, 4)->free_bytes = GIB;
    commit(f, repair(f));
    assert_true(extent_has_absent(f->e, 4));
    end(f);
}

/* Where a former replica still waits for its deletion, no new one is begun. */
static void not_where_garbage_is(void **state)
{
    struct fixture fix, *f = &fix;
    uint32_t lost, other;

    (void)state;
    begin(f, 4);
    lost = f->e->replicas[2];
    assert_int_equal(change(f, lost, 0, 0), 0);
    at(f, lost)->gone = true;
    commit(f, repair(f));
    other = extent_absent(f->e)[0];
    at(f, lost)->gone = false; /* it comes back, the other goes */
    at(f, other)->gone = true;
    assert_null(repair(f));
    assert_true(chunk_garbage_del(state_chunk(&f->st, lost), f->e->id));
    commit(f, repair(f));
    assert_true(extent_has_absent(f->e, lost) && !extent_has_absent(f->e, other));
    end(f);
}

/* A full server is no place for a copy; what it has had too long without finishing is made
 * elsewhere, if there is another place. */
static void the_full_are_avoided(void **state)
{
    struct fixture fix, *f = &fix;
    uint32_t lost, other;

    (void)state;
    begin(f, 4);
    lost = f->e->replicas[2];
    other = 10 - f->e->replicas[0] - f->e->replicas[1] - lost;
    assert_int_equal(change(f, lost, 0, 0), 0);
    at(f, lost)->full = at(f, other)->full = true;
    assert_null(repair(f)); /* it may have room again */
    at(f, lost)->crowded = true;
    assert_null(repair(f)); /* and there is no better place */
    assert_null(decide_move(&f->st, &f->w, f->e, f->e->replicas[0], true, &f->pad));
    at(f, other)->full = false;
    commit(f, repair(f));
    assert_true(extent_has_absent(f->e, other) && !extent_has_absent(f->e, lost));
    end(f);
}

/* Of two members that it can do without the one on a full server goes, were it the newest. */
static void the_full_lose_a_surplus(void **state)
{
    struct fixture fix, *f = &fix;
    uint32_t from, to;

    (void)state;
    begin(f, 4);
    from = f->e->replicas[0];
    commit(f, decide_move(&f->st, &f->w, f->e, from, false, &f->pad));
    to = extent_absent(f->e)[0];
    assert_int_equal(change(f, 0, to, 0), 0);
    at(f, to)->full = true;
    assert_int_equal(surplus_member(&f->st, &f->w, f->e), to);
    at(f, from)->full = true;
    assert_int_not_equal(surplus_member(&f->st, &f->w, f->e), to);
    end(f);
}

static void moves_end_with_a_surplus(void **state)
{
    struct fixture fix, *f = &fix;
    uint32_t from, to;

    (void)state;
    begin(f, 4);
    from = f->e->replicas[0];
    at(f, from)->removing = at(f, from)->leaving = at(f, from)->gone = true;
    assert_int_equal(surplus_member(&f->st, &f->w, f->e), 0);
    commit(f, decide_move(&f->st, &f->w, f->e, from, false, &f->pad));
    assert_int_equal(f->e->unsettled->danger, DANGER_NONE);
    assert_int_equal(f->st.n_degraded, 0);
    assert_null(decide_move(&f->st, &f->w, f->e, from, false, &f->pad)); /* it is under way */
    to = extent_absent(f->e)[0];
    assert_int_equal(change(f, 0, to, 0), 0);
    assert_int_equal(f->e->n_members, 4);
    assert_int_equal(surplus_member(&f->st, &f->w, f->e), from);
    assert_int_equal(change(f, from, 0, from), 0);
    assert_null(f->e->unsettled);
    assert_non_null(chunk_garbage(state_chunk(&f->st, from), f->e->id));
    assert_int_equal(state_chunk(&f->st, from)->replicas, 0);
    end(f);
}

/* If another member has failed meanwhile, the surplus one is needed: out, but not forgotten. */
static void a_needed_one_is_not_forgotten(void **state)
{
    struct fixture fix, *f = &fix;
    uint32_t out;

    (void)state;
    begin(f, 4);
    out = f->e->replicas[0];
    assert_int_equal(change(f, out, 0, out), 0);
    assert_true(extent_has_absent(f->e, out));
    assert_null(chunk_garbage(state_chunk(&f->st, out), f->e->id));
    end(f);
}

static void balance_keeps_the_distance(void **state)
{
    struct fixture fix, *f = &fix;

    (void)state;
    begin(f, 4);
    for (uint32_t i = 0; i < 3; i++) { /* the fourth is on the host of a member */
        uint32_t stays = f->e->replicas[i], from = f->e->replicas[(i + 1) % 3];
        uint32_t fourth = 0;

        for (uint32_t id = 1; id <= 4; id++)
            if (!extent_has_member(f->e, id))
                fourth = id;
        at(f, fourth)->host = at(f, stays)->host;
        assert_null(decide_move(&f->st, &f->w, f->e, from, false, &f->pad));
        assert_non_null(decide_move(&f->st, &f->w, f->e, from, true, &f->pad));
    }
    end(f);
}

static int mark(struct fixture *f, uint32_t id, bool maintenance, bool removing)
{
    Zbs__Meta__ChunkMarkRequest rq = ZBS__META__CHUNK_MARK_REQUEST__INIT;

    rq.chunk_id = id;
    rq.maintenance = maintenance;
    rq.removing = removing;
    return act(f, decide_chunk_mark, &rq.base);
}

static void chunks_are_removed_when_empty(void **state)
{
    struct fixture fix, *f = &fix;
    uint32_t lost;

    (void)state;
    begin(f, 5);
    lost = f->e->replicas[0];
    assert_int_equal(mark(f, 77, false, true), ERR_NOTFOUND);
    assert_int_equal(mark(f, lost, false, true), 0);
    assert_null(decide_chunk_remove(&f->st, state_chunk(&f->st, lost), false, &f->pad));
    assert_int_equal(change(f, lost, 0, 0), 0);
    at(f, lost)->gone = at(f, lost)->leaving = at(f, lost)->removing = true;
    commit(f, repair(f));
    /* Alive, it deletes its garbage first. */
    assert_null(decide_chunk_remove(&f->st, state_chunk(&f->st, lost), true, &f->pad));
    commit(f, decide_chunk_remove(&f->st, state_chunk(&f->st, lost), false, &f->pad));
    assert_null(state_chunk(&f->st, lost));
    end(f);
}

static void maintenance_asks_who_depends_on_it(void **state)
{
    struct fixture fix, *f = &fix;
    uint32_t a, b, c;

    (void)state;
    begin(f, 3);
    a = f->e->replicas[0];
    b = f->e->replicas[1];
    c = f->e->replicas[2];
    assert_int_equal(mark(f, a, true, false), 0);
    assert_true(state_chunk(&f->st, a)->maintenance);
    assert_int_equal(mark(f, a, false, false), 0);
    at(f, b)->alive = at(f, c)->alive = false;
    assert_int_equal(mark(f, a, true, false), ERR_REFUSED);
    at(f, b)->alive = true;
    assert_int_equal(mark(f, a, true, false), 0);
    end(f);
}

static void only_the_unknown_is_collected(void **state)
{
    struct fixture fix, *f = &fix;
    struct gc_unknown u = {.extent_id = 1, .epoch = 7, .family = 1};
    uint64_t next;

    (void)state;
    begin(f, 4);
    next = f->st.next_mutation;
    for (uint32_t id = 1; id <= 4; id++)
        assert_int_equal(gc_is_known(&f->st, id, f->e->id, next), extent_has_member(f->e, id));
    /* What the log has not reached yet, and what is being deleted, is left alone. */
    assert_true(gc_is_known(&f->st, 1, next, next));
    assert_false(gc_is_known(&f->st, 1, u.extent_id, next));
    commit(f, decide_garbage_add(&f->pad, 1, &u, 1));
    assert_true(gc_is_known(&f->st, 1, u.extent_id, next));
    assert_int_equal(chunk_garbage(state_chunk(&f->st, 1), u.extent_id)->epoch, 7);
    end(f);
}

/* ---- families ---- */

/* An extent that nobody has, hence that never changes. */
static struct extent *relative(struct fixture *f, uint64_t id, uint64_t family)
{
    struct extent *e = state_extent_add(&f->st, id, family, 0);

    e->pool_id = f->e->pool_id;
    extent_set_created(e);
    return e;
}

static void check_elders(struct fixture *f, const struct extent *e, uint64_t a, uint64_t b)
{
    const struct extent *elders[ELDERS_MAX];
    uint32_t n = family_elders(&f->st, e, elders);

    assert_int_equal(n, (a != 0) + (b != 0));
    assert_true(a == 0 || elders[0]->id == a);
    assert_true(b == 0 || elders[1]->id == b);
}

static void elders_are_older_and_clean(void **state)
{
    struct fixture fix, *f = &fix;
    struct extent *a, *b, *c, *d, *other;

    (void)state;
    begin(f, 3);
    a = relative(f, 1001, 1001);
    assert_false(family_is_large(a));
    b = relative(f, 1002, 1001);
    other = relative(f, 1003, 1003);
    c = state_extent_add(&f->st, 1004, 1001, 0); /* not created yet */
    d = relative(f, 1005, 1001);
    assert_true(family_is_large(a) && !family_is_large(other));
    check_elders(f, a, 0, 0);
    check_elders(f, b, 1001, 0);
    check_elders(f, c, 1002, 1001);
    check_elders(f, d, 1002, 1001);
    assert_int_equal(f->st.n_copies, 3);
    state_extent_free(&f->st, a); /* the family has lost the first of its origins */
    check_elders(f, d, 1002, 0);
    a = relative(f, 1006, 1001);
    check_elders(f, a, 1005, 1002);
    state_extent_free(&f->st, b);
    state_extent_free(&f->st, c);
    check_elders(f, d, 0, 0);
    check_elders(f, a, 1005, 0);
    state_extent_free(&f->st, d);
    state_extent_free(&f->st, a);
    assert_int_equal(f->st.families.count, 0);
    assert_int_equal(f->st.n_copies, 0);
    state_extent_free(&f->st, other);
    end(f);
}

/* Of all places the one where a relative is; and of members the one where none is goes. */
static void families_stay_together(void **state)
{
    struct fixture fix, *f = &fix;
    struct extent *elder;
    uint32_t from, to;

    (void)state;
    begin(f, 5);
    from = f->e->replicas[1];
    f->e->family = 1;
    elder = relative(f, 1, 1);
    family_join(&f->st, f->e);
    elder->n_members = 3;
    for (uint32_t i = 0; i < 3; i++)
        elder->replicas[i] = f->e->replicas[i];
    assert_null(decide_gather(&f->st, &f->w, f->e, &f->pad));
    for (to = 1; extent_has_member(f->e, to); to++)
        ;
    at(f, to)->free_bytes = GIB; /* seldom drawn otherwise */
    elder->replicas[1] = to;
    commit(f, decide_gather(&f->st, &f->w, f->e, &f->pad));
    assert_true(extent_has_absent(f->e, to));
    assert_int_equal(change(f, 0, to, 0), 0);
    assert_int_equal(surplus_member(&f->st, &f->w, f->e), from);
    /* Nothing hinders it when the replica is lost instead. */
    assert_int_equal(change(f, from, 0, from), 0);
    assert_int_equal(change(f, to, 0, 0), 0);
    at(f, to)->gone = true;
    for (uint32_t id = 1; id <= 5; id++)
        if (id != to && id != from && !extent_has_member(f->e, id))
            elder->replicas[1] = id;
    at(f, elder->replicas[1])->free_bytes = GIB;
    commit(f, repair(f));
    assert_true(extent_has_absent(f->e, elder->replicas[1]));
    elder->n_members = 0;
    family_leave(&f->st, f->e);
    state_extent_free(&f->st, elder);
    end(f);
}

static void created_at_the_members_of_now(void **state)
{
    struct fixture f;
    uint64_t before;

    (void)state;
    begin(&f, 3);
    allocate(&f, 1);
    before = f.e->set_number;
    assert_int_equal(change(&f, f.e->replicas[0], 0, 0), 0);
    assert_int_equal(created(&f, before), ERR_STALE);
    assert_false(f.e->created);
    assert_int_equal(created(&f, f.e->set_number), 0);
    assert_true(f.e->created);
    assert_int_equal(created(&f, before), 0); /* a repetition whose answer was lost */
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(created_at_the_members_of_now),
        cmocka_unit_test(the_gone_are_replaced),
        cmocka_unit_test(without_a_place_nothing_is_forgotten),
        cmocka_unit_test(not_where_garbage_is),
        cmocka_unit_test(the_full_are_avoided),
        cmocka_unit_test(the_full_lose_a_surplus),
        cmocka_unit_test(moves_end_with_a_surplus),
        cmocka_unit_test(a_needed_one_is_not_forgotten),
        cmocka_unit_test(balance_keeps_the_distance),
        cmocka_unit_test(chunks_are_removed_when_empty),
        cmocka_unit_test(maintenance_asks_who_depends_on_it),
        cmocka_unit_test(only_the_unknown_is_collected),
        cmocka_unit_test(elders_are_older_and_clean),
        cmocka_unit_test(families_stay_together),
    };

    return cmocka_run_group_tests_name("recovery", tests, NULL, NULL);
}
