/* SPDX-License-Identifier: Apache-2.0
 *
 * Single decisions: what is refused and why, leases, replica sets (PROTOCOL 1, 5.2,
 * 5.3), garbage. Each decision is applied, so the state moves on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "common/base/err.h"
#include "common/base/units.h"
#include "meta/apply.h"
#include "meta/check.h"
#include "meta/decide.h"
#include "tests/unit/meta/decide_rig.h"

/* ---- names and limits ---- */

static void bad_input_is_refused(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(add_pool(f, "", 3, 0), ERR_INVAL);
    assert_int_equal(add_pool(f, "a/b", 3, 0), ERR_INVAL);
    assert_int_equal(add_pool(f, "\xff", 3, 0), ERR_INVAL);
    assert_int_equal(add_pool(f, "q", 0, 0), ERR_INVAL);
    assert_int_equal(add_pool(f, "q", 6, 0), ERR_INVAL);
    assert_int_equal(add_pool(f, "q", 2, 3), ERR_INVAL);
    assert_int_equal(add_pool(f, "p", 2, 0), ERR_EXISTS);
    assert_int_equal(add_volume(f, "p", "v", GIB), ERR_EXISTS);
    assert_int_equal(add_volume(f, "nowhere", "w", GIB), ERR_NOTFOUND);
    assert_non_null(strstr(err_text(ERR_NOTFOUND), "zbs-cli pool create nowhere"));
    assert_int_equal(add_volume(f, "p", "w", 4096), ERR_INVAL);
    assert_int_equal(add_volume(f, "p", "w", GIB + 1), ERR_INVAL);
    assert_int_equal(add_volume(f, "p", "w", 65 * TIB), ERR_INVAL);
    assert_int_equal(add_volume(f, "p", "w", 64 * TIB), 0);
    assert_int_equal(acquire(f, f->sessions[0], 0, 0, false, false), ERR_INVAL);
    assert_int_equal(acquire(f, f->sessions[0], 0, 65, false, false), ERR_INVAL);
    assert_int_equal(acquire(f, f->sessions[0], 255, 2, false, false), ERR_INVAL);
    assert_int_equal(acquire(f, f->sessions[0], UINT32_MAX, 2, false, false), ERR_INVAL);
    assert_int_equal(acquire(f, 12345, 0, 1, false, false), ERR_EXPIRED);
}

static void iscsi_names_are_checked(void **state)
{
    (void)state;
    assert_int_equal(check_iqn("x", "iqn.2024-01.org.example:disk-1"), 0);
    assert_int_equal(check_iqn("x", "iqn.2024-01.org"), 0);
    assert_int_equal(check_iqn("x", "eui.0123456789abcdef"), 0);
    assert_int_equal(check_iqn("x", "naa.52004567ba64678d"), 0);
    assert_int_equal(check_iqn("x", ""), ERR_INVAL);
    assert_int_equal(check_iqn("x", "iqn.2024-01."), ERR_INVAL);
    assert_int_equal(check_iqn("x", "iqn.24-01.org"), ERR_INVAL);
    assert_int_equal(check_iqn("x", "iqn.2024-01.org:UPPER"), ERR_INVAL);
    assert_int_equal(check_iqn("x", "iqn.2024-01.org:a b"), ERR_INVAL);
    assert_int_equal(check_iqn("x", "eui.012345"), ERR_INVAL);
    assert_int_equal(check_chap("", ""), 0);
    assert_int_equal(check_chap("user", "short"), ERR_INVAL);
    assert_int_equal(check_chap("user", "long enough!"), 0);
    assert_int_equal(check_chap("", "long enough!"), ERR_INVAL);
}

/* ---- leases ---- */

static void one_owner_at_a_time(void **state)
{
    struct fixture *f = *state;
    uint64_t epoch, extent_id;
    struct slot *s;

    assert_int_equal(acquire(f, f->sessions[0], 5, 2, false, false), 0);
    s = slot_at(f, 5);
    assert_int_equal(s->owner, f->sessions[0]);
    assert_null(extent_at(f, 5)); /* a leased hole */
    epoch = s->epoch;
    assert_int_equal(acquire(f, f->sessions[1], 5, 1, true, true), 0);
    assert_int_equal(s->owner, f->sessions[0]); /* not granted */
    assert_int_equal(s->epoch, epoch);
    assert_int_equal(acquire(f, f->sessions[0], 5, 1, false, false), 0);
    assert_int_equal(s->epoch, epoch); /* the same answer again */
    assert_int_equal(acquire(f, f->sessions[0], 5, 1, true, false), 0);
    assert_true(s->epoch > epoch && extent_at(f, 5) != NULL);
    epoch = s->epoch;
    extent_id = extent_at(f, 5)->id;
    assert_int_equal(acquire(f, f->sessions[0], 5, 1, true, false), 0);
    assert_true(s->epoch == epoch && extent_at(f, 5)->id == extent_id);
    assert_int_equal(acquire(f, f->sessions[0], 5, 1, true, true), 0);
    assert_true(s->epoch > epoch && extent_at(f, 5)->id == extent_id);
}

static void dead_owner_leaves_orphans(void **state)
{
    struct fixture *f = *state;
    struct packed reply;
    struct slot *s;
    uint64_t epoch;

    assert_int_equal(acquire(f, f->sessions[0], 0, 8, true, false), 0);
    s = slot_at(f, 3);
    epoch = s->epoch;
    assert_int_equal(
        apply_record(&f->st, decide_session_expiry(&f->pad, f->sessions[0]), NULL, &f->pad, &reply),
        0);
    assert_null(slot_owner(&f->st, s));
    assert_true(s->owner != 0); /* unclean */
    assert_false(list_empty(&f->st.orphans));
    assert_int_equal(acquire(f, f->sessions[1], 0, 8, false, false), 0);
    assert_true(s->epoch > epoch && s->owner == f->sessions[1]);
    assert_true(list_empty(&f->st.orphans));
}

static void released_slot_is_clean(void **state)
{
    struct fixture *f = *state;
    Zbs__Meta__LeaseReleaseRequest rq = ZBS__META__LEASE_RELEASE_REQUEST__INIT;
    uint32_t number = 0;
    uint64_t epoch;

    assert_int_equal(acquire(f, f->sessions[0], 0, 1, true, false), 0);
    epoch = slot_at(f, 0)->epoch - 1;
    rq.session_id = f->sessions[0];
    rq.volume_id = f->volume_id;
    rq.slots = &number;
    rq.epochs = &epoch;
    rq.n_slots = rq.n_epochs = 1;
    assert_int_equal(act(f, decide_lease_release, &rq.base), 0);
    assert_true(slot_at(f, 0)->owner != 0); /* an old epoch returns nothing */
    epoch++;
    assert_int_equal(act(f, decide_lease_release, &rq.base), 0);
    assert_int_equal(slot_at(f, 0)->owner, 0);
    assert_int_equal(act(f, decide_lease_release, &rq.base), 0);
}

/* So that no snapshot takes it for clean, and somebody is asked to open it. */
static void slot_released_unclean_has_an_owner_that_ended(void **state)
{
    struct fixture *f = *state;
    Zbs__Meta__LeaseReleaseRequest rq = ZBS__META__LEASE_RELEASE_REQUEST__INIT;
    uint32_t number = 0;
    uint64_t epoch;

    assert_int_equal(acquire(f, f->sessions[0], 0, 1, true, false), 0);
    epoch = slot_at(f, 0)->epoch;
    rq.session_id = f->sessions[0];
    rq.volume_id = f->volume_id;
    rq.slots = &number;
    rq.epochs = &epoch;
    rq.n_slots = rq.n_epochs = 1;
    rq.unclean = true;
    assert_int_equal(act(f, decide_lease_release, &rq.base), 0);
    assert_true(slot_at(f, 0)->owner != 0);
    assert_null(slot_owner(&f->st, slot_at(f, 0)));
    assert_false(list_empty(&f->st.orphans));
    assert_int_equal(acquire(f, f->sessions[1], 0, 1, false, false), 0);
    assert_int_equal(slot_at(f, 0)->owner, f->sessions[1]);
}

static void namesake_replaces_with_proof_only(void **state)
{
    struct fixture *f = *state;
    Zbs__Meta__SessionOpenRequest rq = ZBS__META__SESSION_OPEN_REQUEST__INIT;

    rq.name = (char *)"access-0";
    rq.addr = (char *)"127.0.0.1:7300";
    rq.incarnation = 999;
    assert_int_equal(act(f, decide_session_open, &rq.base), ERR_AGAIN);
    rq.former_is_dead = true;
    assert_int_equal(act(f, decide_session_open, &rq.base), 0);
    assert_null(state_session(&f->st, f->sessions[0]));
    f->sessions[0] = state_session_by_name(&f->st, "access-0")->id;
    rq.former_is_dead = false; /* the same incarnation asks again */
    assert_int_equal(act(f, decide_session_open, &rq.base), 0);
    assert_int_equal(state_session_by_name(&f->st, "access-0")->id, f->sessions[0]);
}

/* ---- replica sets ---- */

static void set_changes_name_where_they_start(void **state)
{
    struct fixture *f = *state;
    struct extent *e;
    uint32_t gone;

    assert_int_equal(acquire(f, f->sessions[0], 0, 1, true, false), 0);
    e = extent_at(f, 0);
    gone = e->replicas[2];
    assert_int_equal(e->set_number, 1);
    assert_int_equal(change(f, f->sessions[1], e, (struct change){.n_remove = 1, .remove = {gone}}),
                     ERR_STALE);
    assert_int_equal(change(f, f->sessions[0], e,
                            (struct change){.n_remove = 1, .remove = {gone}, .epoch_off = -1}),
                     ERR_STALE);
    assert_int_equal(change(f, f->sessions[0], e,
                            (struct change){.n_remove = 1, .remove = {gone}, .set_off = -1}),
                     ERR_STALE);
    assert_int_equal(change(f, f->sessions[0], e, (struct change){.n_remove = 1, .remove = {77}}),
                     ERR_INVAL);
    assert_int_equal(change(f, f->sessions[0], e, (struct change){.n_remove = 1, .remove = {gone}}),
                     0);
    assert_int_equal(e->set_number, 2);
    assert_true(e->n_members == 2 && extent_has_absent(e, gone));
    assert_int_equal(f->st.n_degraded, 1);
    assert_int_equal(change(f, f->sessions[0], e, (struct change){0}), 0);
    assert_int_equal(e->set_number, 3); /* also one that changes nothing */
    /* Two of three are the least. */
    assert_int_equal(
        change(f, f->sessions[0], e, (struct change){.n_remove = 1, .remove = {e->replicas[1]}}),
        ERR_REFUSED);
    assert_int_equal(change(f, f->sessions[0], e, (struct change){.n_add = 1, .add = {gone}}), 0);
    assert_true(e->n_members == 3 && e->n_absent == 0);
    assert_int_equal(f->st.n_degraded, 0);
}

static void isolated_reporter_is_refused(void **state)
{
    struct fixture *f = *state;
    struct change c = {.n_remove = 2};
    struct extent *e;

    assert_int_equal(add_pool(f, "one", 3, 1), 0);
    assert_int_equal(add_volume(f, "one", "v", GIB), 0);
    f->volume_id = pool_volume(state_pool(&f->st, "one"), "v")->id;
    assert_int_equal(acquire(f, f->sessions[0], 0, 1, true, false), 0);
    e = extent_at(f, 0);
    c.remove[0] = e->replicas[1];
    c.remove[1] = e->replicas[2];
    assert_int_equal(change(f, f->sessions[0], e, c), ERR_REFUSED);
    assert_non_null(strstr(err_text(ERR_REFUSED), "isolated"));
    for (uint32_t i = 0; i < HOSTS; i++)
        f->chunks[i].alive = f->chunks[i].id != e->replicas[2];
    assert_int_equal(change(f, f->sessions[0], e, c), 0); /* one of them is dead indeed */
    c = (struct change){.n_remove = 1, .remove = {e->replicas[0]}};
    assert_int_equal(change(f, f->sessions[0], e, c), ERR_REFUSED); /* the last member */
}

/* ---- deletion ---- */

static void deleted_extents_are_garbage_until_confirmed(void **state)
{
    struct fixture *f = *state;
    Zbs__Meta__VolumeDeleteRequest rq = ZBS__META__VOLUME_DELETE_REQUEST__INIT;
    Zbs__Meta__ChunkHeartbeatRequest beat = ZBS__META__CHUNK_HEARTBEAT_REQUEST__INIT;
    Zbs__Metalog__Record *r;
    struct packed reply;
    uint64_t extent_id;
    uint32_t records = 0, chunk_id;

    assert_int_equal(acquire(f, f->sessions[0], 0, 64, true, false), 0);
    assert_int_equal(acquire(f, f->sessions[0], 64, 64, true, false), 0);
    extent_id = extent_at(f, 9)->id;
    chunk_id = extent_at(f, 9)->replicas[1];
    rq.pool = (char *)"p";
    rq.name = (char *)"v";
    assert_int_equal(act(f, decide_volume_delete, &rq.base), 0);
    assert_int_equal(act(f, decide_volume_delete, &rq.base), ERR_NOTFOUND);
    assert_int_equal(acquire(f, f->sessions[0], 0, 1, true, false), ERR_NOTFOUND);
    assert_int_equal(add_volume(f, "p", "v", GIB), 0); /* the name is free */
    while ((r = decide_sweep(&f->st, &f->pad)) != NULL) {
        r->volume_sweep->max = 1; /* a page at a time */
        assert_int_equal(apply_record(&f->st, r, NULL, &f->pad, &reply), 0);
        records++;
    }
    assert_true(records == 3);
    assert_null(state_volume(&f->st, f->volume_id));
    assert_int_equal(f->st.n_extents, 0);
    assert_int_equal(f->st.extents.count, 0);
    assert_int_equal(f->st.pages.count, 0);
    assert_non_null(chunk_garbage(state_chunk(&f->st, chunk_id), extent_id));
    beat.chunk_id = chunk_id;
    beat.deleted_extents = &extent_id;
    beat.n_deleted_extents = 1;
    assert_int_equal(act(f, decide_chunk_heartbeat, &beat.base), 0);
    assert_null(chunk_garbage(state_chunk(&f->st, chunk_id), extent_id));
    assert_int_equal(act(f, decide_chunk_heartbeat, &beat.base), 0); /* said again */
}

static void exported_volume_stays(void **state)
{
    struct fixture *f = *state;
    Zbs__Meta__Target t = ZBS__META__TARGET__INIT;
    Zbs__Meta__TargetCreateRequest create = ZBS__META__TARGET_CREATE_REQUEST__INIT;
    Zbs__Meta__LunAddRequest add = ZBS__META__LUN_ADD_REQUEST__INIT;
    Zbs__Meta__VolumeDeleteRequest del = ZBS__META__VOLUME_DELETE_REQUEST__INIT;
    Zbs__Meta__TargetDeleteRequest end = ZBS__META__TARGET_DELETE_REQUEST__INIT;
    uint64_t version = f->st.exports_version;

    t.iqn = add.iqn = end.iqn = (char *)"iqn.2024-01.org:t";
    create.target = &t;
    add.pool = del.pool = (char *)"p";
    add.volume = del.name = (char *)"v";
    add.any_lun = true;
    assert_int_equal(act(f, decide_lun_add, &add.base), ERR_NOTFOUND);
    assert_int_equal(act(f, decide_target_create, &create.base), 0);
    assert_int_equal(act(f, decide_lun_add, &add.base), 0);
    assert_true(f->st.exports_version > version);
    add.any_lun = false;
    assert_int_equal(act(f, decide_lun_add, &add.base), ERR_EXISTS);
    add.lun = 256;
    assert_int_equal(act(f, decide_lun_add, &add.base), ERR_INVAL);
    assert_int_equal(act(f, decide_volume_delete, &del.base), ERR_BUSY);
    assert_non_null(strstr(err_text(ERR_BUSY), "iqn.2024-01.org:t LUN 0"));
    assert_int_equal(act(f, decide_target_delete, &end.base), 0);
    assert_int_equal(act(f, decide_volume_delete, &del.base), 0);
}

static void foreign_disks_are_refused(void **state)
{
    struct fixture *f = *state;
    Zbs__Meta__ChunkRegisterRequest rq = ZBS__META__CHUNK_REGISTER_REQUEST__INIT;
    uint8_t uuid[16] = {200};

    rq.uuid = (ProtobufCBinaryData){.data = uuid, .len = 16};
    rq.addr = (char *)"127.0.0.1:7299";
    rq.workers = 1;
    rq.chunk_id = 3;
    assert_int_equal(act(f, decide_chunk_register, &rq.base), ERR_REFUSED);
    rq.chunk_id = 0;
    rq.cluster_id = (char *)"another";
    assert_int_equal(act(f, decide_chunk_register, &rq.base), ERR_REFUSED);
    rq.cluster_id = (char *)"";
    rq.workers = 0;
    assert_int_equal(act(f, decide_chunk_register, &rq.base), ERR_INVAL);
    uuid[0] = 0;
    rq.workers = 1;
    assert_int_equal(act(f, decide_chunk_register, &rq.base), ERR_INVAL);
}

/* ---- policies ---- */

static int set_replicas(struct fixture *f, const char *volume, uint32_t replicas, uint32_t min)
{
    Zbs__Meta__VolumeSetRequest rq = ZBS__META__VOLUME_SET_REQUEST__INIT;

    rq.pool = (char *)"p";
    rq.name = (char *)volume;
    rq.replicas = replicas;
    rq.min_replicas = min;
    return act(f, decide_volume_set, &rq.base);
}

/* All that the leader does by and by. */
static void sweep_policies(struct fixture *f)
{
    Zbs__Metalog__Record *r;
    struct packed reply;

    while ((r = decide_policy_sweep(&f->st, &f->pad)) != NULL)
        assert_int_equal(apply_record(&f->st, r, NULL, &f->pad, &reply), 0);
}

static void replicas_reach_the_extents(void **state)
{
    struct fixture *f = *state;
    struct volume *v = state_volume(&f->st, f->volume_id);

    assert_int_equal(acquire(f, f->sessions[0], 0, 8, true, false), 0);
    assert_int_equal(acquire(f, f->sessions[0], 100, 4, true, false), 0);
    assert_int_equal(set_replicas(f, "v", 5, 0), ERR_INVAL); /* four hosts */
    assert_int_equal(set_replicas(f, "v", 0, 4), ERR_INVAL); /* of three */
    assert_int_equal(set_replicas(f, "none", 2, 0), ERR_NOTFOUND);
    assert_int_equal(f->st.n_degraded, 0);

    assert_int_equal(set_replicas(f, "v", 4, 0), 0);
    assert_int_equal(v->min_replicas, 3);
    sweep_policies(f);
    assert_int_equal(v->policy_left, 0);
    assert_int_equal(f->st.n_degraded, 12);
    assert_int_equal(extent_at(f, 101)->wanted, 4);

    assert_int_equal(set_replicas(f, "v", 2, 0), 0);
    sweep_policies(f);
    assert_int_equal(f->st.n_degraded, 0);
    assert_int_equal(extent_at(f, 3)->wanted, 2);
    assert_int_equal(extent_at(f, 3)->min_replicas, 1);
    assert_int_equal(set_replicas(f, "v", 2, 2), 0);
    sweep_policies(f);
    assert_int_equal(extent_at(f, 3)->min_replicas, 2);
}

/* Less than what there is may always be asked for, also while hosts are down. */
static void fewer_replicas_need_no_hosts(void **state)
{
    struct fixture *f = *state;

    for (uint32_t i = 0; i < 3; i++)
        f->chunks[i].alive = false;
    assert_int_equal(set_replicas(f, "v", 4, 0), ERR_INVAL);
    assert_int_equal(set_replicas(f, "v", 2, 0), 0);
}

static void pool_policy_goes_to_its_volumes(void **state)
{
    struct fixture *f = *state;
    Zbs__Meta__PoolSetRequest rq = ZBS__META__POOL_SET_REQUEST__INIT;
    struct pool *p = state_pool(&f->st, "p");

    assert_int_equal(add_volume(f, "p", "own", GIB), 0);
    assert_int_equal(set_replicas(f, "own", 1, 0), 0);
    rq.name = (char *)"p";
    rq.replicas = 2;
    assert_int_equal(act(f, decide_pool_set, &rq.base), 0);
    assert_int_equal(p->replicas, 2);
    assert_int_equal(pool_volume(p, "v")->replicas, 2);
    assert_int_equal(pool_volume(p, "own")->replicas, 1);
    rq.failure_domain = (char *)"rack";
    rq.replicas = 3;
    assert_int_equal(act(f, decide_pool_set, &rq.base), ERR_INVAL); /* two racks */
    rq.failure_domain = (char *)"floor";
    assert_int_equal(act(f, decide_pool_set, &rq.base), ERR_INVAL);
}

static void volume_moves_to_another_pool(void **state)
{
    struct fixture *f = *state;
    Zbs__Meta__VolumeMoveRequest rq = ZBS__META__VOLUME_MOVE_REQUEST__INIT;

    assert_int_equal(add_pool(f, "q", 2, 0), 0);
    rq.pool = (char *)"p";
    rq.name = (char *)"v";
    rq.to_pool = (char *)"none";
    assert_int_equal(act(f, decide_volume_move, &rq.base), ERR_NOTFOUND);
    rq.to_pool = (char *)"q";
    assert_int_equal(act(f, decide_volume_move, &rq.base), 0);
    assert_null(pool_volume(state_pool(&f->st, "p"), "v"));
    assert_int_equal(pool_volume(state_pool(&f->st, "q"), "v")->id, f->volume_id);
    assert_int_equal(state_volume(&f->st, f->volume_id)->replicas, 3);
    assert_int_equal(add_volume(f, "p", "v", GIB), 0);
    assert_int_equal(act(f, decide_volume_move, &rq.base), ERR_EXISTS);
}

static int resize(struct fixture *f, uint64_t size_bytes, bool discard)
{
    Zbs__Meta__VolumeResizeRequest rq = ZBS__META__VOLUME_RESIZE_REQUEST__INIT;

    rq.pool = (char *)"p";
    rq.name = (char *)"v";
    rq.size_bytes = size_bytes;
    rq.discard = discard;
    return act(f, decide_volume_resize, &rq.base);
}

/* Groups of four extents: a GiB. */
static void tail_is_given_up_when_told(void **state)
{
    struct fixture *f = *state;
    struct volume *v = state_volume(&f->st, f->volume_id);
    uint64_t extent;

    assert_int_equal(acquire(f, f->sessions[0], 0, 4, true, false), 0);
    assert_int_equal(acquire(f, f->sessions[1], 80, 4, true, false), 0);
    extent = extent_at(f, 80)->id;
    assert_int_equal(resize(f, 30 * GIB, false), 0); /* nothing there */
    assert_int_equal(v->n_slots, 120);
    assert_int_equal(resize(f, 10 * GIB, false), ERR_NOT_EMPTY);
    assert_int_equal(resize(f, 20 * GIB + GIB / 2, true), ERR_INVAL); /* in the middle of data */
    assert_int_equal(resize(f, GIB / 2, true), ERR_INVAL);
    assert_int_equal(resize(f, 10 * GIB + GIB / 2, true), 0);
    assert_int_equal(v->n_slots, 44);
    assert_null(state_extent(&f->st, extent));
    assert_int_equal(v->extents, 4);
    assert_int_equal(resize(f, 30 * GIB, false), 0); /* and grows again: holes */
    assert_null(extent_at(f, 80));
    assert_int_equal(acquire(f, f->sessions[2], 80, 4, true, false), 0);
    assert_true(extent_at(f, 80)->id > extent);
}

static void unknown_record_is_unsupported(void **state)
{
    struct fixture *f = *state;
    static const uint8_t future[] = {0xfa, 0x06, 0x00}; /* field 111, a message */
    Zbs__Metalog__Record *r =
        zbs__metalog__record__unpack(&f->pad.allocator, sizeof(future), future);
    struct packed reply;

    assert_non_null(r);
    assert_int_equal(apply_record(&f->st, r, NULL, &f->pad, &reply), ERR_UNSUPPORTED);
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(bad_input_is_refused),
        CASE(iscsi_names_are_checked),
        CASE(one_owner_at_a_time),
        CASE(dead_owner_leaves_orphans),
        CASE(released_slot_is_clean),
        CASE(slot_released_unclean_has_an_owner_that_ended),
        CASE(namesake_replaces_with_proof_only),
        CASE(set_changes_name_where_they_start),
        CASE(isolated_reporter_is_refused),
        CASE(deleted_extents_are_garbage_until_confirmed),
        CASE(exported_volume_stays),
        CASE(foreign_disks_are_refused),
        CASE(replicas_reach_the_extents),
        CASE(fewer_replicas_need_no_hosts),
        CASE(pool_policy_goes_to_its_volumes),
        CASE(volume_moves_to_another_pool),
        CASE(tail_is_given_up_when_told),
        CASE(unknown_record_is_unsupported),
    };

    return cmocka_run_group_tests_name("decide", tests, NULL, NULL);
}
