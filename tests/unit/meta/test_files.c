/* SPDX-License-Identifier: Apache-2.0
 *
 * What files of shares contain, as meta knows it: bytes in the inode, a volume, how far it goes,
 * what has to be zeroed. And that volume among all volumes. */
#include "tests/unit/meta/tree_rig.h"

struct frig {
    struct rig r; /* first */
    uint64_t f;
};

static int setup(void **state)
{
    static struct frig r;

    rig_init(&r.r);
    r.f = (uint64_t)create(&r.r, r.r.root, "f", REG);
    *state = &r;
    return 0;
}

static int teardown(void **state)
{
    rig_fini(*state);
    return 0;
}

static struct inode *file(struct frig *r)
{
    return inode_of(&r->r, (int64_t)r->f);
}

static struct volume *volume(struct frig *r)
{
    return state_volume(&r->r.st, file(r)->volume_id);
}

/* The file gets a volume. */
static void attach(struct frig *r, uint64_t bytes)
{
    int64_t v = volume_for(&r->r, r->f, bytes);

    assert_true(v > 0);
    assert_int_equal(attaches(&r->r, r->f, (uint64_t)v, file(r)->change), 0);
    assert_int_equal(file(r)->volume_id, v);
}

static void small_files_are_in_their_inodes(void **state)
{
    struct frig *r = *state;
    char all[FILE_INLINE_BYTES + 2];

    assert_int_equal(writes(&r->r, r->f, 3, "abc"), 0);
    assert_int_equal(file(r)->size, 6);
    assert_memory_equal(file(r)->data, "\0\0\0abc", 6);
    assert_int_equal(writes(&r->r, r->f, 1, "x"), 0);
    assert_memory_equal(file(r)->data, "\0x\0abc", 6);
    assert_int_equal(set_size_of(&r->r, r->f, 4), 0);
    assert_int_equal(set_size_of(&r->r, r->f, 1ull << 40), 0); /* a hole costs nothing */
    assert_int_equal(file(r)->data_len, 4);
    assert_int_equal(writes(&r->r, r->f, 5, "y"), 0);
    assert_memory_equal(file(r)->data, "\0x\0a\0y", 6);
    assert_int_equal(file(r)->size, 1ull << 40);
    memset(all, 'z', sizeof(all));
    all[FILE_INLINE_BYTES + 1] = 0;
    assert_int_equal(writes(&r->r, r->f, 0, all), ERR_TOO_LARGE);
    assert_int_equal(writes(&r->r, r->f, FILE_INLINE_BYTES, "1"), ERR_TOO_LARGE);
    assert_int_equal(writes(&r->r, r->f, UINT64_MAX, "1"), ERR_TOO_LARGE);
    assert_int_equal(writes(&r->r, r->f, 1, all + 2), 0);
    assert_int_equal(file(r)->data_len, FILE_INLINE_BYTES);
    assert_int_equal(writes(&r->r, r->r.root, 0, "1"), ERR_IS_DIR);
    assert_int_equal(file(r)->mtime_ns, file(r)->ctime_ns);
}

static void the_candidate_becomes_the_volume(void **state)
{
    struct frig *r = *state;
    int64_t first, second;
    uint64_t change;

    assert_int_equal(writes(&r->r, r->f, 0, "abc"), 0);
    change = file(r)->change;
    first = volume_for(&r->r, r->f, 5000);
    assert_int_equal(file(r)->change, change);
    second = volume_for(&r->r, r->f, 5000); /* another access server's */
    assert_true(state_volume(&r->r.st, (uint64_t)first)->removed);
    assert_int_equal(attaches(&r->r, r->f, (uint64_t)first, change), ERR_MISCOMPARE);
    assert_int_equal(writes(&r->r, r->f, 0, "ABC"), 0);
    assert_int_equal(attaches(&r->r, r->f, (uint64_t)second, change), ERR_MISCOMPARE);
    change = file(r)->change;
    assert_int_equal(attaches(&r->r, r->f, (uint64_t)second, change), 0);
    assert_int_equal(attaches(&r->r, r->f, (uint64_t)second, change), 0); /* again */
    assert_int_equal(file(r)->volume_id, second);
    assert_int_equal(file(r)->candidate, 0);
    assert_int_equal(file(r)->data_len, 0);
    assert_int_equal(file(r)->size, 3);
    assert_int_equal(volume(r)->inode_id, r->f);
    assert_int_equal(writes(&r->r, r->f, 0, "x"), ERR_TOO_LARGE);
    assert_int_equal(volume_for(&r->r, r->f, 5000), 0); /* it has one */
    assert_int_equal(file(r)->volume_id, second);
}

static void volumes_grow_in_steps(void **state)
{
    struct frig *r = *state;
    const uint64_t cases[][2] = {
        {MIB + 1, 2 * MIB},        {3 * MIB, 4 * MIB}, {GIB, GIB},
        {GIB + 1, 2 * GIB},        {5 * GIB, 5 * GIB}, {5 * GIB + 1, 6 * GIB},
        {64ull << 40, 64ull << 40}};

    assert_int_equal(grows(&r->r, r->f, 1), ERR_INVAL);
    attach(r, 1);
    assert_int_equal(volume(r)->size_bytes, MIB);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_int_equal(grows(&r->r, r->f, cases[i][0]), 0);
        assert_int_equal(volume(r)->size_bytes, cases[i][1]);
    }
    assert_int_equal(grows(&r->r, r->f, MIB), 0); /* it is that large */
    assert_int_equal(volume(r)->size_bytes, 64ull << 40);
    assert_int_equal(grows(&r->r, r->f, (64ull << 40) + 1), ERR_TOO_LARGE);
}

static void sizes_follow_what_is_written(void **state)
{
    struct frig *r = *state;
    uint64_t ctime;

    assert_int_equal(written(&r->r, r->f, 10, 0), ERR_INVAL); /* where to? */
    attach(r, MIB);
    assert_int_equal(written(&r->r, r->f, 1000, 7), 0);
    assert_int_equal(file(r)->size, 1000);
    assert_int_equal(written(&r->r, r->f, MIB + 1, 0), ERR_INVAL);
    ctime = file(r)->ctime_ns;
    assert_int_equal(written(&r->r, r->f, 10, 7), 0);
    assert_int_equal(file(r)->size, 1000);
    assert_int_equal(file(r)->ctime_ns, ctime); /* nothing was new */
    uint64_t mtime = file(r)->mtime_ns + 5;
    assert_int_equal(written(&r->r, r->f, 0, mtime), 0);
    assert_int_equal(file(r)->mtime_ns, mtime);
    assert_true(file(r)->ctime_ns > ctime);
}

static void a_cut_tail_is_zeroed_before_it_is_seen(void **state)
{
    struct frig *r = *state;

    attach(r, MIB);
    assert_int_equal(written(&r->r, r->f, 9000, 0), 0);
    assert_int_equal(set_size_of(&r->r, r->f, 5000), 0);
    assert_int_equal(file(r)->dirty_end, 9000);
    assert_int_equal(set_size_of(&r->r, r->f, 100), 0);
    assert_int_equal(file(r)->dirty_end, 9000);
    assert_int_equal(set_size_of(&r->r, r->f, 200), ERR_BUSY);
    assert_int_equal(written(&r->r, r->f, 200, 0), ERR_BUSY);
    assert_int_equal(written(&r->r, r->f, 100, file(r)->mtime_ns + 1), 0);
    assert_int_equal(zeroed(&r->r, r->f, 100, 9000), ERR_MISCOMPARE); /* by nobody */
    assert_int_equal(takes_zeroing(&r->r, r->f, ZEROER), 0);
    assert_int_equal(zeroed(&r->r, r->f, 5000, 9000), ERR_MISCOMPARE);
    assert_int_equal(zeroed(&r->r, r->f, 100, 8000), ERR_MISCOMPARE);
    assert_int_equal(zeroed(&r->r, r->f, 100, 9000), 0);
    assert_int_equal(file(r)->dirty_end, 0);
    assert_int_equal(zeroed(&r->r, r->f, 100, 0), ERR_MISCOMPARE);
    assert_int_equal(set_size_of(&r->r, r->f, 1ull << 40), 0);
    assert_int_equal(set_size_of(&r->r, r->f, 2 * MIB), 0); /* beyond the volume: nothing there */
    assert_int_equal(file(r)->dirty_end, 0);
    assert_int_equal(set_size_of(&r->r, r->f, 0), 0);
    assert_int_equal(file(r)->dirty_end, MIB);
}

static void one_session_zeroes_at_a_time(void **state)
{
    struct frig *r = *state;
    Zbs__Meta__FileZeroRequest rq = ZBS__META__FILE_ZERO_REQUEST__INIT;

    attach(r, MIB);
    assert_int_equal(takes_zeroing(&r->r, r->f, ZEROER), 0); /* there is nothing to zero */
    assert_int_equal(file(r)->zeroer, 0);
    assert_int_equal(written(&r->r, r->f, 9000, 0), 0);
    assert_int_equal(set_size_of(&r->r, r->f, 100), 0);
    rq.inode_id = r->f;
    rq.session_id = ZEROER;
    assert_int_equal(rig_file(&r->r, decide_file_zero, &rq.base), ERR_EXPIRED);
    state_session_add(&r->r.st, ZEROER);
    assert_int_equal(rig_file(&r->r, decide_file_zero, &rq.base), 0);
    assert_int_equal(file(r)->zeroer, ZEROER);
    assert_int_equal(rig_file(&r->r, decide_file_zero, &rq.base), 0); /* it does already */
    assert_int_equal(takes_zeroing(&r->r, r->f, ZEROER + 1), ERR_BUSY);
    state_session_remove(&r->r.st, state_session(&r->r.st, ZEROER));
    assert_int_equal(takes_zeroing(&r->r, r->f, ZEROER + 1), 0);
    assert_int_equal(zeroed(&r->r, r->f, 100, 9000), ERR_MISCOMPARE); /* the former one is late */
    assert_int_equal(takes_zeroing(&r->r, r->f, ZEROER), 0);
    assert_int_equal(zeroed(&r->r, r->f, 100, 9000), 0);
    assert_int_equal(file(r)->zeroer, 0);
}

static void nobody_cuts_what_others_write(void **state)
{
    struct frig *r = *state;
    uint64_t first, again, second, change;

    state_session_add(&r->r.st, 901);
    state_session_add(&r->r.st, 902);
    assert_int_equal(takes_lease(&r->r, r->f, 901), 0); /* bytes in the inode have no need of one */
    attach(r, MIB);
    assert_int_equal(written(&r->r, r->f, 9000, 0), 0);
    change = file(r)->change;
    assert_int_equal(takes_lease(&r->r, r->f, 903), 0); /* there is no such session */
    first = takes_lease(&r->r, r->f, 901);
    second = takes_lease(&r->r, r->f, 902);
    assert_true(first > 0 && second > first);
    assert_int_equal(file(r)->change, change);
    assert_int_equal(set_size_of(&r->r, r->f, 100), ERR_BUSY);
    assert_int_equal(set_size_of(&r->r, r->f, 9000), 0);
    assert_int_equal(set_size_of(&r->r, r->f, 10000), 0);
    again = takes_lease(&r->r, r->f, 901);
    assert_true(again > second);
    assert_int_equal(file_leases(&r->r.st, file(r)), 2);
    returns_lease(&r->r, r->f, first); /* comes late */
    assert_int_equal(file_leases(&r->r.st, file(r)), 2);
    returns_lease(&r->r, r->f, again);
    returns_lease(&r->r, r->f, again);
    returns_lease(&r->r, 1ull << 40, 1); /* no such file */
    assert_int_equal(set_mode_of(&r->r, r->f, 0755), 0);
    assert_int_equal(set_mode_of(&r->r, r->f, 04755), ERR_BUSY);
    assert_int_equal(set_size_of(&r->r, r->f, 100), ERR_BUSY);
    state_session_remove(&r->r.st, state_session(&r->r.st, 902));
    assert_int_equal(set_size_of(&r->r, r->f, 100), 0);
    assert_null(file(r)->writers);
    assert_int_equal(set_mode_of(&r->r, r->f, 04755), 0);
}

static void few_sessions_have_leases_of_one_file(void **state)
{
    struct frig *r = *state;

    attach(r, MIB);
    for (uint64_t s = 1; s <= FILE_WRITERS_MAX + 1; s++)
        state_session_add(&r->r.st, 900 + s);
    for (uint64_t s = 1; s <= FILE_WRITERS_MAX; s++)
        assert_true(takes_lease(&r->r, r->f, 900 + s) > 0);
    assert_int_equal(takes_lease(&r->r, r->f, 901 + FILE_WRITERS_MAX), 0);
    assert_true(takes_lease(&r->r, r->f, 903) > 0); /* in place of its former one */
    state_session_remove(&r->r.st, state_session(&r->r.st, 905));
    assert_true(takes_lease(&r->r, r->f, 901 + FILE_WRITERS_MAX) > 0);
    assert_int_equal(file_leases(&r->r.st, file(r)), FILE_WRITERS_MAX);
}

/* What was decided on when the file was another does not happen any more. */
static void late_requests_are_refused(void **state)
{
    struct frig *r = *state;
    Zbs__Meta__FileWriteRequest write = ZBS__META__FILE_WRITE_REQUEST__INIT;
    Zbs__Meta__FileWrittenRequest wrote = ZBS__META__FILE_WRITTEN_REQUEST__INIT;

    write.inode_id = wrote.inode_id = r->f;
    write.change = file(r)->change;
    write.data = (ProtobufCBinaryData){.data = (uint8_t *)"old", .len = 3};
    assert_int_equal(writes(&r->r, r->f, 0, "newer"), 0);
    assert_int_equal(rig_file(&r->r, decide_file_write, &write.base), ERR_MISCOMPARE);
    attach(r, MIB);
    wrote.cut = file(r)->cut;
    wrote.size = 9000;
    assert_int_equal(rig_file(&r->r, decide_file_written, &wrote.base), 0);
    assert_int_equal(set_size_of(&r->r, r->f, 0), 0);
    assert_int_equal(rig_file(&r->r, decide_file_written, &wrote.base), ERR_MISCOMPARE);
    assert_int_equal(file(r)->size, 0);
}

static void volumes_go_with_their_files(void **state)
{
    struct frig *r = *state;
    int64_t v;

    attach(r, MIB);
    v = (int64_t)file(r)->volume_id;
    assert_int_equal(links(&r->r, r->f, r->r.root, "g"), 0);
    assert_int_equal(removes(&r->r, r->r.root, "f", false), 0);
    assert_false(state_volume(&r->r.st, (uint64_t)v)->removed);
    assert_true(create(&r->r, r->r.root, "h", REG) > 0);
    assert_int_equal(renames(&r->r, r->r.root, "h", r->r.root, "g"), 0);
    assert_true(state_volume(&r->r.st, (uint64_t)v)->removed);
    int64_t k = create(&r->r, r->r.root, "k", REG), c = volume_for(&r->r, (uint64_t)k, 1);
    assert_int_equal(removes(&r->r, r->r.root, "k", false), 0);
    assert_true(state_volume(&r->r.st, (uint64_t)c)->removed);
    assert_int_equal(r->r.st.n_file_volumes, 2); /* to be swept */
}

static void an_exported_volume_keeps_its_file(void **state)
{
    struct frig *r = *state;

    attach(r, MIB);
    struct target *t = state_target_add(&r->r.st, "iqn.2020-01.x:a");
    state_lun_set(&r->r.st, t, 0, volume(r));
    assert_int_equal(removes(&r->r, r->r.root, "f", false), ERR_BUSY);
    assert_true(create(&r->r, r->r.root, "h", REG) > 0);
    assert_int_equal(renames(&r->r, r->r.root, "h", r->r.root, "f"), ERR_BUSY);
    state_lun_unset(&r->r.st, t, target_lun(t, 0));
    assert_int_equal(removes(&r->r, r->r.root, "f", false), 0);
}

static int command(struct frig *r, decide_fn decide, const ProtobufCMessage *rq)
{
    return rig_do(&r->r, decide, NULL, rq, NULL);
}

static void volume_commands_refuse_files(void **state)
{
    struct frig *r = *state;
    Zbs__Meta__VolumeDeleteRequest del = ZBS__META__VOLUME_DELETE_REQUEST__INIT;
    Zbs__Meta__VolumeRenameRequest rename = ZBS__META__VOLUME_RENAME_REQUEST__INIT;
    Zbs__Meta__VolumeResizeRequest resize = ZBS__META__VOLUME_RESIZE_REQUEST__INIT;
    Zbs__Meta__VolumeCreateRequest new = ZBS__META__VOLUME_CREATE_REQUEST__INIT;

    attach(r, 8 * MIB);
    del.pool = rename.pool = resize.pool = new.pool = (char *)"p";
    del.name = rename.name = resize.name = volume(r)->name;
    rename.new_name = (char *)"mine";
    assert_int_equal(command(r, decide_volume_delete, &del.base), ERR_PERM);
    assert_non_null(strstr(err_text(ERR_PERM), "of file /s/f:"));
    assert_int_equal(command(r, decide_volume_rename, &rename.base), ERR_PERM);
    resize.size_bytes = 4 * MIB;
    assert_int_equal(command(r, decide_volume_resize, &resize.base), ERR_PERM);
    resize.size_bytes = 16 * MIB;
    assert_int_equal(command(r, decide_volume_resize, &resize.base), 0);
    assert_int_equal(volume(r)->size_bytes, 16 * MIB);
    new.name = (char *)"file-0123456789abcdef";
    new.size_bytes = MIB;
    assert_int_equal(command(r, decide_volume_create, &new.base), ERR_INVAL);
    new.name = (char *)"file-1";
    assert_int_equal(command(r, decide_volume_create, &new.base), 0);
}

static void a_rollback_takes_the_file_along(void **state)
{
    struct frig *r = *state;
    Zbs__Meta__VolumeSnapshotRequest snap = ZBS__META__VOLUME_SNAPSHOT_REQUEST__INIT;
    Zbs__Meta__VolumeRollbackRequest back = ZBS__META__VOLUME_ROLLBACK_REQUEST__INIT;
    Zbs__Meta__VolumeName name = ZBS__META__VOLUME_NAME__INIT, *names[] = {&name};
    int64_t c = volume_for(&r->r, r->f, MIB);

    name.pool = (char *)"p";
    name.name = state_volume(&r->r.st, (uint64_t)c)->name;
    snap.volumes = names;
    snap.n_volumes = 1;
    snap.snapshot = back.snapshot = (char *)"early";
    back.volume = &name;
    assert_int_equal(command(r, decide_volume_snapshot, &snap.base), 0);
    assert_int_equal(command(r, decide_volume_rollback, &back.base), ERR_BUSY);
    assert_int_equal(attaches(&r->r, r->f, (uint64_t)c, file(r)->change), 0);
    assert_int_equal(written(&r->r, r->f, 7000, 0), 0);
    snap.snapshot = back.snapshot = (char *)"then";
    assert_int_equal(command(r, decide_volume_snapshot, &snap.base), 0);
    assert_int_equal(written(&r->r, r->f, 9000, 0), 0);
    assert_int_equal(set_size_of(&r->r, r->f, 8000), 0);
    assert_int_equal(takes_zeroing(&r->r, r->f, ZEROER), 0);
    state_session_add(&r->r.st, ZEROER); /* which is at it */
    assert_int_equal(command(r, decide_volume_rollback, &back.base), ERR_BUSY);
    state_session_remove(&r->r.st, state_session(&r->r.st, ZEROER));
    state_session_add(&r->r.st, 901);
    uint64_t change = file(r)->change, lease = takes_lease(&r->r, r->f, 901);
    assert_int_equal(command(r, decide_volume_rollback, &back.base), ERR_AGAIN);
    returns_lease(&r->r, r->f, lease);
    assert_int_equal(command(r, decide_volume_rollback, &back.base), 0);
    assert_int_equal(file(r)->size, 7000);
    assert_int_equal(file(r)->dirty_end, MIB);
    assert_true(file(r)->change > change);
    assert_int_equal(removes(&r->r, r->r.root, "f", false), 0); /* snapshots stay */
    assert_non_null(pool_volume(state_pool(&r->r.st, "p"), "file-0000000000000002@then"));
}

/* A program whose bytes others have changed does not run with its owner's rights. */
static void who_writes_takes_rights_away(void **state)
{
    struct frig *r = *state;
    Zbs__Meta__Credentials ann = ZBS__META__CREDENTIALS__INIT;

    ann.uid = ann.gid = 1;
    file(r)->mode = 06757;
    assert_int_equal(written_by(&r->r, r->f, false), 0);
    assert_int_equal(file(r)->mode, 06757);
    assert_int_equal(written_by(&r->r, r->f, true), 0);
    assert_int_equal(file(r)->mode, 0757);
    file(r)->mode = 06747; /* no group runs it: the bit means something else */
    assert_int_equal(written_by(&r->r, r->f, true), 0);
    assert_int_equal(file(r)->mode, 02747);
    file(r)->mode = 06757;
    assert_int_equal(set_size_of(&r->r, r->f, 1), 0);
    assert_int_equal(file(r)->mode, 06757);
    r->r.who = &ann;
    assert_int_equal(set_size_of(&r->r, r->f, 2), 0);
    assert_int_equal(file(r)->mode, 0757);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(small_files_are_in_their_inodes),
        T(the_candidate_becomes_the_volume),
        T(volumes_grow_in_steps),
        T(sizes_follow_what_is_written),
        T(who_writes_takes_rights_away),
        T(a_cut_tail_is_zeroed_before_it_is_seen),
        T(one_session_zeroes_at_a_time),
        T(nobody_cuts_what_others_write),
        T(few_sessions_have_leases_of_one_file),
        T(late_requests_are_refused),
        T(volumes_go_with_their_files),
        T(an_exported_volume_keeps_its_file),
        T(volume_commands_refuse_files),
        T(a_rollback_takes_the_file_along),
    };

    return cmocka_run_group_tests_name("files", tests, NULL, NULL);
}
