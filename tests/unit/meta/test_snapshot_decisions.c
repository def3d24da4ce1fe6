/* SPDX-License-Identifier: Apache-2.0
 *
 * Single decisions about snapshots, and what they cost with 64 TiB. */
#include "tests/unit/meta/snapshot_model.h"

#include <time.h>

/* ---- single decisions ---- */

static struct model *new_model(void)
{
    struct model *m = calloc(1, sizeof(*m));

    prng_init(&m->prng, 1);
    set_up(m);
    make_volume(m);
    return m;
}

static void free_model(struct model *m)
{
    tear_down(m);
    free(m);
}

static int rollback_to(struct model *m, char *volume, char *snapshot)
{
    Zbs__Meta__VolumeRollbackRequest rq = ZBS__META__VOLUME_ROLLBACK_REQUEST__INIT;
    Zbs__Meta__VolumeName name = ZBS__META__VOLUME_NAME__INIT;

    name.pool = (char *)"p";
    name.name = volume;
    rq.volume = &name;
    rq.snapshot = snapshot;
    return act(m, decide_volume_rollback, &rq.base);
}

static int create(struct model *m, char *name)
{
    Zbs__Meta__VolumeCreateRequest rq = ZBS__META__VOLUME_CREATE_REQUEST__INIT;

    rq.pool = (char *)"p";
    rq.name = name;
    rq.size_bytes = GIB;
    return act(m, decide_volume_create, &rq.base);
}

static int delete_named(struct model *m, char *name)
{
    Zbs__Meta__VolumeDeleteRequest rq = ZBS__META__VOLUME_DELETE_REQUEST__INIT;

    rq.pool = (char *)"p";
    rq.name = name;
    return act(m, decide_volume_delete, &rq.base);
}

static void wrong_requests_are_refused(void **state)
{
    struct model *m = new_model();
    struct mvolume *v = &m->volumes[0], *twice[2] = {v, v}, other = {.name = "nowhere"},
                   *no = &other;
    Zbs__Meta__VolumeResizeRequest resize = ZBS__META__VOLUME_RESIZE_REQUEST__INIT;
    Zbs__Meta__VolumeRenameRequest rename = ZBS__META__VOLUME_RENAME_REQUEST__INIT;
    struct mvolume snapshot, *of = &snapshot;
    struct volume *s;

    (void)state;
    assert_int_equal(create(m, (char *)"a@b"), ERR_INVAL);
    assert_int_equal(snapshot_of(m, &v, 1, (char *)""), ERR_INVAL);
    assert_int_equal(snapshot_of(m, &v, 1, (char *)"a@b"), ERR_INVAL);
    assert_int_equal(snapshot_of(m, &v, 1, (char *)"a/b"), ERR_INVAL);
    assert_int_equal(snapshot_of(m, &v, 0, (char *)"s"), ERR_INVAL);
    assert_int_equal(snapshot_of(m, twice, 2, (char *)"s"), ERR_INVAL);
    assert_int_equal(snapshot_of(m, &no, 1, (char *)"s"), ERR_NOTFOUND);
    assert_int_equal(snapshot_of(m, &v, 1, (char *)"s"), 0);
    assert_int_equal(snapshot_of(m, &v, 1, (char *)"s"), ERR_EXISTS);
    snapshot = *v;
    strcat(snapshot.name, "@s");
    s = pool_volume(state_pool(&m->st, "p"), snapshot.name);
    assert_non_null(s);
    assert_int_equal(snapshot_of(m, &of, 1, (char *)"t"), ERR_INVAL);
    assert_int_equal(acquire(m, m->sessions[0], s->id, 0, 1, true, false), ERR_PERM);
    assert_non_null(strstr(err_text(ERR_PERM), "snapshot"));
    resize.pool = rename.pool = (char *)"p";
    resize.name = rename.name = snapshot.name;
    resize.size_bytes = 100 * GIB;
    assert_int_equal(act(m, decide_volume_resize, &resize.base), ERR_PERM);
    rename.new_name = (char *)"new";
    assert_int_equal(act(m, decide_volume_rename, &rename.base), ERR_PERM);
    rename.name = v->name;
    rename.new_name = (char *)"new@x";
    assert_int_equal(act(m, decide_volume_rename, &rename.base), ERR_INVAL);
    assert_int_equal(rollback_to(m, v->name, (char *)"t"), ERR_NOTFOUND);
    assert_int_equal(rollback_to(m, snapshot.name, (char *)"s"), ERR_NOTFOUND);
    /* A namesake of the volume that it was taken of. */
    assert_int_equal(delete_named(m, v->name), 0);
    assert_int_equal(create(m, v->name), 0);
    assert_int_equal(rollback_to(m, v->name, (char *)"s"), ERR_INVAL);
    free_model(m);
}

/* Answers of a snapshot's map, and to its readers, name no owner and log nothing. */
static void snapshot_is_read_without_leases(void **state)
{
    struct model *m = new_model();
    struct mvolume *v = &m->volumes[0];
    Zbs__Meta__LeaseAcquireRequest rq = ZBS__META__LEASE_ACQUIRE_REQUEST__INIT;
    Zbs__Meta__LeaseAcquireReply reply = ZBS__META__LEASE_ACQUIRE_REPLY__INIT;
    struct decide d = {.st = &m->st, .w = &m->w, .rq = &rq.base, .pad = &m->pad};
    uint64_t number;

    (void)state;
    assert_int_equal(acquire(m, m->sessions[0], v->id, 0, 1, true, false), 0);
    assert_int_equal(snapshot_of(m, &v, 1, (char *)"s"), ERR_AGAIN); /* not created yet */
    check_allocated(m, v, 0, false);
    made(m, v, 0);
    assert_int_equal(snapshot_of(m, &v, 1, (char *)"s"), 0);
    number = m->st.next_mutation;
    rq.session_id = m->sessions[1];
    rq.volume_id = number - 1;
    rq.count = MIN(2u, v->n);
    assert_int_equal(act(m, decide_lease_acquire, &rq.base), 0);
    assert_int_equal(m->st.next_mutation, number);
    assert_int_equal(answer_lease_acquire(&d, &reply.base), 0);
    assert_true(reply.grants[0]->shared && reply.grants[0]->owner_session == 0);
    assert_true(reply.grants[0]->extent_id == v->ids[0] && reply.grants[0]->n_members == 3);
    assert_true(reply.grants[0]->created && reply.grants[0]->family == v->ids[0]);
    if (rq.count == 2)
        assert_true(reply.grants[1]->shared && reply.grants[1]->extent_id == 0);
    /* Its owner sees the same extent as shared now, at its old epoch. */
    rq.session_id = m->sessions[0];
    rq.volume_id = v->id;
    rq.count = 1;
    assert_int_equal(act(m, decide_lease_acquire, &rq.base), 0);
    assert_int_equal(m->st.next_mutation, number);
    assert_int_equal(answer_lease_acquire(&d, &reply.base), 0);
    assert_true(reply.grants[0]->shared && reply.grants[0]->owner_session == m->sessions[0]);
    assert_true(reply.grants[0]->epoch < state_volume(&m->st, v->id)->shared_at);
    /* Held volumes give no new lease, but show what there is. */
    m->w.held = &v->id;
    m->w.n_held = 1;
    assert_int_equal(act(m, decide_lease_acquire, &rq.base), 0);
    rq.allocate = true;
    assert_int_equal(act(m, decide_lease_acquire, &rq.base), ERR_AGAIN);
    m->w.n_held = 0;
    assert_int_equal(act(m, decide_lease_acquire, &rq.base), 0);
    assert_int_equal(answer_lease_acquire(&d, &reply.base), 0);
    assert_true(!reply.grants[0]->shared && !reply.grants[0]->created);
    assert_true(reply.grants[0]->origin == v->ids[0] && reply.grants[0]->family == v->ids[0]);
    assert_int_equal(reply.grants[0]->origin_epoch, state_extent(&m->st, v->ids[0])->epoch);
    free_model(m);
}

static void exported_volume_is_not_rolled_back(void **state)
{
    struct model *m = new_model();
    struct mvolume *v = &m->volumes[0];
    Zbs__Meta__Target t = ZBS__META__TARGET__INIT;
    Zbs__Meta__TargetCreateRequest target = ZBS__META__TARGET_CREATE_REQUEST__INIT;
    Zbs__Meta__LunAddRequest add = ZBS__META__LUN_ADD_REQUEST__INIT;
    char name[100];

    (void)state;
    assert_int_equal(snapshot_of(m, &v, 1, (char *)"s"), 0);
    snprintf(name, sizeof(name), "%s@s", v->name);
    t.iqn = add.iqn = (char *)"iqn.2024-01.org:t";
    target.target = &t;
    assert_int_equal(act(m, decide_target_create, &target.base), 0);
    add.pool = (char *)"p";
    add.volume = name;
    add.any_lun = true;
    assert_int_equal(act(m, decide_lun_add, &add.base), 0); /* a snapshot can be exported */
    assert_int_equal(delete_named(m, name), ERR_BUSY);
    assert_int_equal(rollback_to(m, v->name, (char *)"s"), 0);
    add.volume = v->name;
    assert_int_equal(act(m, decide_lun_add, &add.base), 0);
    assert_int_equal(rollback_to(m, v->name, (char *)"s"), ERR_BUSY);
    free_model(m);
}

/* ---- imports ---- */

static const uint8_t content_ids[2][16] = {{1}, {2}};

static ProtobufCBinaryData content(uint32_t i)
{
    return (ProtobufCBinaryData){.data = (uint8_t *)content_ids[i], .len = 16};
}

static int import_create(struct model *m, const char *name)
{
    Zbs__Meta__VolumeCreateRequest rq = ZBS__META__VOLUME_CREATE_REQUEST__INIT;

    rq.pool = (char *)"p";
    rq.name = (char *)name;
    rq.size_bytes = GIB;
    rq.import_content = content(0);
    return act(m, decide_volume_create, &rq.base);
}

static int import_continue(struct model *m, const char *name, const char *snapshot)
{
    Zbs__Meta__VolumeRollbackRequest rq = ZBS__META__VOLUME_ROLLBACK_REQUEST__INIT;
    Zbs__Meta__VolumeName of = ZBS__META__VOLUME_NAME__INIT;

    of.pool = (char *)"p";
    of.name = (char *)name;
    rq.volume = &of;
    rq.snapshot = (char *)snapshot;
    rq.import_content = content(1);
    return act(m, decide_volume_rollback, &rq.base);
}

/* importing 0: a snapshot as anybody takes it. */
static int import_end(struct model *m, const char *name, const char *snapshot, uint64_t importing)
{
    Zbs__Meta__VolumeSnapshotRequest rq = ZBS__META__VOLUME_SNAPSHOT_REQUEST__INIT;
    Zbs__Meta__VolumeName of = ZBS__META__VOLUME_NAME__INIT, *volumes[] = {&of};

    of.pool = (char *)"p";
    of.name = (char *)name;
    rq.volumes = volumes;
    rq.n_volumes = 1;
    rq.snapshot = (char *)snapshot;
    rq.importing = importing;
    return act(m, decide_volume_snapshot, &rq.base);
}

static void grow(struct model *m, const char *name)
{
    Zbs__Meta__VolumeResizeRequest rq = ZBS__META__VOLUME_RESIZE_REQUEST__INIT;

    rq.pool = (char *)"p";
    rq.name = (char *)name;
    rq.size_bytes = 2 * GIB;
    assert_int_equal(act(m, decide_volume_resize, &rq.base), 0);
}

static const struct volume *named(struct model *m, const char *name)
{
    const struct volume *v = pool_volume(state_pool(&m->st, "p"), name);

    assert_non_null(v);
    return v;
}

static void import_begins_at_the_newest_snapshot_only(void **state)
{
    struct model *m = new_model();
    uint64_t number;

    (void)state;
    assert_int_equal(import_create(m, "i"), 0);
    number = named(m, "i")->importing;
    assert_true(number != 0 && number == named(m, "i")->id);
    assert_int_equal(import_end(m, "i", "s1", 0), ERR_BUSY);
    assert_int_equal(import_end(m, "i", "s1", number + 1), ERR_STALE);
    assert_int_equal(import_end(m, "i", "s1", number), 0);
    assert_int_equal(named(m, "i")->importing, 0);
    assert_memory_equal(named(m, "i@s1")->content, content_ids[0], 16);
    assert_int_equal(import_end(m, "i", "s2", number), ERR_STALE); /* it has ended */

    /* Nothing may have changed since, until it is begun; then it begins anew as often as need be.
     */
    grow(m, "i");
    assert_int_equal(import_continue(m, "i", "s1"), ERR_STALE);
    assert_int_equal(import_end(m, "i", "s2", 0), 0);
    assert_memory_equal(named(m, "i@s2")->content, named(m, "i@s2")->uuid, 16);
    assert_int_equal(import_continue(m, "i", "s1"), ERR_STALE); /* not the newest */
    assert_int_equal(import_continue(m, "i", "s2"), 0);
    number = named(m, "i")->importing;
    assert_int_equal(acquire(m, m->sessions[0], named(m, "i")->id, 0, 1, true, false), 0);
    assert_int_equal(import_continue(m, "i", "s2"), 0);
    assert_true(named(m, "i")->importing > number && named(m, "i")->extents == 0);
    assert_int_equal(import_end(m, "i", "s3", number), ERR_STALE); /* the earlier one has ended */
    number = named(m, "i")->importing;
    assert_int_equal(import_end(m, "i", "s3", number), 0);
    assert_memory_equal(named(m, "i@s3")->content, content_ids[1], 16);

    /* A written slot is a change. */
    assert_int_equal(acquire(m, m->sessions[0], named(m, "i")->id, 0, 1, true, false), 0);
    assert_int_equal(import_continue(m, "i", "s3"), ERR_STALE);
    assert_int_equal(rollback_to(m, (char *)"i", (char *)"s3"), 0);
    assert_int_equal(import_continue(m, "i", "s3"), 0);
    assert_int_equal(rollback_to(m, (char *)"i", (char *)"s3"), 0); /* gives it up */
    assert_int_equal(named(m, "i")->importing, 0);
    free_model(m);
}

/* ---- blocks of a volume's own ---- */

static int flatten(struct model *m, const char *name, bool cancel)
{
    Zbs__Meta__VolumeFlattenRequest rq = ZBS__META__VOLUME_FLATTEN_REQUEST__INIT;

    rq.pool = (char *)"p";
    rq.name = (char *)name;
    rq.cancel = cancel;
    return act(m, decide_volume_flatten, &rq.base);
}

static int flattened(struct model *m, const char *name, uint32_t slot)
{
    Zbs__Meta__SlotFlattenedRequest rq = ZBS__META__SLOT_FLATTENED_REQUEST__INIT;

    rq.session_id = m->sessions[0];
    rq.volume_id = named(m, name)->id;
    rq.slot = slot;
    return act(m, decide_slot_flattened, &rq.base);
}

static void flattening_goes_by_slots_that_share(void **state)
{
    struct model *m = new_model();
    struct mvolume *v = &m->volumes[0];
    uint64_t number;

    (void)state;
    assert_true(v->n >= 4);
    assert_int_equal(flatten(m, v->name, false), 0); /* nothing to do: nothing is logged */
    assert_false(named(m, v->name)->flattening);
    assert_int_equal(acquire(m, m->sessions[0], v->id, 1, 1, true, false), 0);
    check_allocated(m, v, 1, false);
    made(m, v, 1);
    assert_int_equal(acquire(m, m->sessions[0], v->id, 3, 1, true, false), 0);
    check_allocated(m, v, 3, false);
    made(m, v, 3);
    assert_int_equal(snapshot_of(m, &v, 1, (char *)"s"), 0);
    assert_int_equal(flatten(m, v->name, false), 0);
    assert_true(named(m, v->name)->flattening && named(m, v->name)->flatten_next == 1);
    number = m->st.next_mutation;
    assert_int_equal(flatten(m, v->name, false), 0); /* goes on */
    assert_int_equal(flattened(m, v->name, 0), 0);   /* not asked for */
    assert_int_equal(m->st.next_mutation, number);
    assert_int_equal(flattened(m, v->name, 1), 0);
    assert_int_equal(named(m, v->name)->flatten_next, 3);
    assert_int_equal(rollback_to(m, v->name, (char *)"s"), 0); /* everything is shared again */
    assert_true(named(m, v->name)->flattening && named(m, v->name)->flatten_next == 0);
    assert_int_equal(flattened(m, v->name, 0), 0);
    assert_int_equal(flattened(m, v->name, 1), 0);
    assert_int_equal(flattened(m, v->name, 3), 0);
    assert_false(named(m, v->name)->flattening);
    assert_int_equal(flatten(m, v->name, false), 0);
    assert_true(named(m, v->name)->flattening);
    assert_int_equal(flatten(m, v->name, true), 0);
    assert_false(named(m, v->name)->flattening);
    assert_int_equal(flatten(m, v->name, false), 0);
    assert_int_equal(delete_named(m, v->name), 0);
    assert_int_equal(m->st.flattens.count, 0);
    free_model(m);
}

/* ---- 64 TiB ---- */

/* Of this process: others may be at work on the machine. */
static double now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void fill_large(struct model *m, uint64_t id, uint32_t n_slots)
{
    for (uint32_t n = 0; n < n_slots; n += 64) {
        Zbs__Metalog__Record *r = record_new(&m->pad, ZBS__METALOG__RECORD__KIND_EXTENTS_CREATED);
        uint64_t ids[64];

        assert_int_equal(acquire(m, m->sessions[0], id, n, 64, true, false), 0);
        r->extents_created = PAD_NEW(&m->pad, Zbs__Metalog__ExtentsCreated);
        zbs__metalog__extents_created__init(r->extents_created);
        for (uint32_t i = 0; i < 64; i++)
            ids[i] = volume_extent(state_volume(&m->st, id), n + i)->id;
        r->extents_created->extent_ids = ids;
        r->extents_created->n_extent_ids = 64;
        commit(m, r);
        pad_fini(&m->pad);
    }
}

struct cost {
    size_t bytes;
    double ms;
};

static struct cost large_record(struct model *m, decide_fn fn, ProtobufCMessage *rq)
{
    struct decide d = {.st = &m->st, .w = &m->w, .rq = rq, .pad = &m->pad};
    struct kv_batch *batch = kv_batch_new();
    Zbs__Metalog__Record *r;
    struct cost c = {.ms = now_ms()};

    assert_int_equal(fn(&d, &r), 0);
    assert_int_equal(apply_record(&m->st, r, batch, &m->pad, &m->reply), 0);
    c.ms = now_ms() - c.ms;
    c.bytes = zbs__metalog__record__get_packed_size(r);
    kv_batch_free(batch);
    return c;
}

/* Returns the longest record's time. */
static double sweep_large(struct model *m)
{
    Zbs__Metalog__Record *r;
    double longest = 0;

    while ((r = decide_sweep(&m->st, &m->pad)) != NULL) {
        double begin = now_ms(), took;

        commit(m, r);
        took = now_ms() - begin;
        longest = MAX(longest, took);
        pad_fini(&m->pad);
    }
    return longest;
}

static struct cost snapshot_large(struct model *m)
{
    Zbs__Meta__VolumeSnapshotRequest rq = ZBS__META__VOLUME_SNAPSHOT_REQUEST__INIT;
    Zbs__Meta__VolumeName of = ZBS__META__VOLUME_NAME__INIT, *ofs[] = {&of};

    of.pool = (char *)"p";
    of.name = (char *)"large";
    rq.volumes = ofs;
    rq.n_volumes = 1;
    rq.snapshot = (char *)"s";
    return large_record(m, decide_volume_snapshot, &rq.base);
}

static struct cost clone_large(struct model *m)
{
    Zbs__Meta__VolumeCloneRequest rq = ZBS__META__VOLUME_CLONE_REQUEST__INIT;
    Zbs__Meta__VolumeName of = ZBS__META__VOLUME_NAME__INIT;

    of.pool = rq.pool = (char *)"p";
    of.name = (char *)"large@s";
    rq.snapshot = &of;
    rq.name = (char *)"clone";
    return large_record(m, decide_volume_clone, &rq.base);
}

static struct cost rollback_large(struct model *m)
{
    Zbs__Meta__VolumeRollbackRequest rq = ZBS__META__VOLUME_ROLLBACK_REQUEST__INIT;
    Zbs__Meta__VolumeName of = ZBS__META__VOLUME_NAME__INIT;

    of.pool = (char *)"p";
    of.name = (char *)"large";
    rq.volume = &of;
    rq.snapshot = (char *)"s";
    return large_record(m, decide_volume_rollback, &rq.base);
}

static void sixty_four_tib(void **state)
{
    struct model *m = new_model();
    Zbs__Meta__VolumeCreateRequest rq = ZBS__META__VOLUME_CREATE_REQUEST__INIT;
    struct cost snapshot, clone, back;
    double shared_ms, last_ms;
    uint64_t id;

    (void)state;
    rq.pool = (char *)"p";
    rq.name = (char *)"large";
    rq.size_bytes = 64 * TIB;
    assert_int_equal(act(m, decide_volume_create, &rq.base), 0);
    id = m->st.next_mutation - 1;
    fill_large(m, id, 262144);
    assert_int_equal(m->st.pages.count, 4096);
    snapshot = snapshot_large(m);
    clone = clone_large(m);
    assert_int_equal(m->st.pages.count, 4096); /* only pointers were copied */
    /* One write to it: one page is copied, one extent is new. */
    assert_int_equal(acquire(m, m->sessions[0], id, 100000, 1, true, false), 0);
    assert_int_equal(m->st.pages.count, 4097);
    assert_int_equal(m->st.extents.count, 262145);
    back = rollback_large(m);
    sweep(m);
    assert_int_equal(m->st.pages.count, 4096);
    assert_int_equal(m->st.extents.count, 262144);
    assert_int_equal(delete_named(m, (char *)"large"), 0);
    assert_int_equal(delete_named(m, (char *)"clone"), 0);
    shared_ms = sweep_large(m);
    assert_int_equal(m->st.extents.count, 262144);
    assert_int_equal(delete_named(m, (char *)"large@s"), 0);
    last_ms = sweep_large(m);
    assert_int_equal(m->st.extents.count, 0);
    print_message("64 TiB: snapshot %zu bytes %.2f ms, clone %zu bytes %.2f ms, rollback %zu bytes "
                  "%.2f ms; longest record of a sweep %.2f ms (shared), %.2f ms (last)\n",
                  snapshot.bytes, snapshot.ms, clone.bytes, clone.ms, back.bytes, back.ms,
                  shared_ms, last_ms);
    assert_true(snapshot.bytes < 200 && clone.bytes < 200 && back.bytes < 200);
    free_model(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_requests_are_refused),
        cmocka_unit_test(snapshot_is_read_without_leases),
        cmocka_unit_test(exported_volume_is_not_rolled_back),
        cmocka_unit_test(import_begins_at_the_newest_snapshot_only),
        cmocka_unit_test(flattening_goes_by_slots_that_share),
        cmocka_unit_test(sixty_four_tib),
    };

    return cmocka_run_group_tests_name("snapshot decisions", tests, NULL, NULL);
}
