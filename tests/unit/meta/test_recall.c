/* SPDX-License-Identifier: Apache-2.0
 *
 * Write leases of a file, with meta servers in the simulator: who would take away what was written
 * waits until the sessions that are told so have given them back, or have ended. */
#include <inttypes.h>
#include "meta/limits.h"
#include "tests/unit/meta/world.h"

#define SESSIONS 2u
#define BYTES    (UINT64_C(1) << 20)

struct writer {
    struct cast *cast;
    uint64_t session_id, lease;
    bool dead, deaf; /* does not give back */
    struct meta_client *mc;
};

struct cast {
    struct mworld *w;
    struct writer writers[SESSIONS];
    uint64_t inode_id;
    char volume[64];
    struct co_group group;
};

/* ---- requests ---- */

/* Any request about the file that has a mutation; the reply must be freed. */
static int change(struct cast *c, enum meta_method method, ProtobufCMessage *rq,
                  Zbs__Meta__Mutation **mutation, struct rpc_reply *r)
{
    Zbs__Meta__Mutation m;
    int rc;

    meta_client_mutation(c->w->mc, &m);
    *mutation = &m;
    rc = call(c->w, method, rq, r);
    *mutation = NULL;
    return rc;
}

static int set_size(struct cast *c, uint64_t size)
{
    Zbs__Meta__InodeSetRequest rq = ZBS__META__INODE_SET_REQUEST__INIT;
    Zbs__Meta__InodeAttrs attrs = ZBS__META__INODE_ATTRS__INIT;
    Zbs__Meta__InodeAttrs__U64 value = ZBS__META__INODE_ATTRS__U64__INIT;
    struct rpc_reply r;
    int rc;

    value.value = size;
    attrs.size = &value;
    rq.attrs = &attrs;
    rq.inode_id = c->inode_id;
    rc = change(c, META_INODE_SET, &rq.base, &rq.mutation, &r);
    rpc_reply_free(&r);
    return rc;
}

static int take_lease(struct cast *c, struct writer *wr)
{
    Zbs__Meta__FileLeaseRequest rq = ZBS__META__FILE_LEASE_REQUEST__INIT;
    struct rpc_reply r;
    int rc;

    rq.inode_id = c->inode_id;
    rq.session_id = wr->session_id;
    rc = change(c, META_FILE_LEASE, &rq.base, &rq.mutation, &r);
    wr->lease = rc == 0 ? ((const Zbs__Meta__FileLeaseReply *)r.msg)->lease : 0;
    rpc_reply_free(&r);
    return rc;
}

static int give_back(struct cast *c, uint64_t lease)
{
    Zbs__Meta__FileReturnRequest rq = ZBS__META__FILE_RETURN_REQUEST__INIT;
    struct rpc_reply r;
    int rc;

    rq.inode_id = c->inode_id;
    rq.lease = lease;
    rc = change(c, META_FILE_RETURN, &rq.base, &rq.mutation, &r);
    rpc_reply_free(&r);
    return rc;
}

/* How many still have one, or ERR_*. */
static int recall(struct cast *c)
{
    Zbs__Meta__FileRecallRequest rq = ZBS__META__FILE_RECALL_REQUEST__INIT;
    struct rpc_reply r;
    int rc;

    rq.inode_id = c->inode_id;
    rc = call(c->w, META_FILE_RECALL, &rq.base, &r);
    if (rc == 0)
        rc = (int)((const Zbs__Meta__FileRecallReply *)r.msg)->writers;
    rpc_reply_free(&r);
    return rc;
}

static int snapshot_or_back(struct cast *c, bool back)
{
    Zbs__Meta__VolumeSnapshotRequest snap = ZBS__META__VOLUME_SNAPSHOT_REQUEST__INIT;
    Zbs__Meta__VolumeRollbackRequest roll = ZBS__META__VOLUME_ROLLBACK_REQUEST__INIT;
    Zbs__Meta__VolumeName of = ZBS__META__VOLUME_NAME__INIT, *ofs[] = {&of};
    nsec_t former = co_deadline_push(co_now() + SEC(20));
    struct rpc_reply r;
    int rc;

    of.pool = (char *)"p";
    of.name = c->volume;
    snap.volumes = ofs;
    snap.n_volumes = 1;
    roll.volume = &of;
    snap.snapshot = roll.snapshot = (char *)"s";
    rc = back ? change(c, META_VOLUME_ROLLBACK, &roll.base, &roll.mutation, &r)
              : change(c, META_VOLUME_SNAPSHOT, &snap.base, &snap.mutation, &r);
    rpc_reply_free(&r);
    co_deadline_restore(former);
    return rc;
}

/* ---- sessions ---- */

static int renew_main(void *arg)
{
    struct writer *wr = arg;

    while (co_sleep(MSEC(200)) == 0 && !wr->dead) {
        Zbs__Meta__SessionRenewRequest rq = ZBS__META__SESSION_RENEW_REQUEST__INIT;
        struct rpc_reply r;

        rq.session_id = wr->session_id;
        rpc_reply_init(&r);
        (void)!meta_call(wr->mc, META_SESSION_RENEW, &rq.base, true, &r);
        rpc_reply_free(&r);
    }
    return 0;
}

/* Gives back what it is told to. */
static int hold_main(void *arg)
{
    struct writer *wr = arg;

    while (!co_canceled() && !wr->dead) {
        Zbs__Meta__HoldRequest rq = ZBS__META__HOLD_REQUEST__INIT;
        uint64_t lease = 0;
        struct rpc_reply r;

        rq.session_id = wr->session_id;
        rpc_reply_init(&r);
        if (meta_call(wr->mc, META_HOLD, &rq.base, true, &r) == 0) {
            const Zbs__Meta__HoldReply *m = (const void *)r.msg;

            for (size_t i = 0; i < m->n_recalled_leases; i++) {
                assert_int_equal(m->recalled_inodes[i], wr->cast->inode_id);
                lease = m->recalled_leases[i];
            }
        }
        rpc_reply_free(&r);
        if (lease != 0 && !wr->deaf)
            (void)!give_back(wr->cast, lease);
        (void)co_sleep(MSEC(1));
    }
    return 0;
}

static void writer_start(struct cast *c, uint32_t index)
{
    Zbs__Meta__SessionOpenRequest rq = ZBS__META__SESSION_OPEN_REQUEST__INIT;
    struct writer *wr = &c->writers[index];
    char name[16];
    struct rpc_reply r;

    *wr = (struct writer){.cast = c, .mc = meta_client_new(c->w->peers, "access")};
    snprintf(name, sizeof(name), "access-%u", index);
    rq.name = name;
    rq.addr = (char *)"127.1.0.9:7300";
    rq.incarnation = index + 1;
    rpc_reply_init(&r);
    assert_int_equal(meta_call(wr->mc, META_SESSION_OPEN, &rq.base, true, &r), 0);
    wr->session_id = ((const Zbs__Meta__SessionOpenReply *)r.msg)->session_id;
    rpc_reply_free(&r);
    co_spawn(&c->group, "renew", renew_main, wr);
    co_spawn(&c->group, "hold", hold_main, wr);
}

/* ---- the file ---- */

static uint64_t root_make(struct cast *c)
{
    Zbs__Meta__ShareCreateRequest rq = ZBS__META__SHARE_CREATE_REQUEST__INIT;
    Zbs__Meta__Share share = ZBS__META__SHARE__INIT;
    struct rpc_reply r;
    uint64_t root;

    share.name = (char *)"files";
    share.pool = (char *)"p";
    rq.share = &share;
    assert_int_equal(change(c, META_SHARE_CREATE, &rq.base, &rq.mutation, &r), 0);
    root = ((const Zbs__Meta__Share *)r.msg)->root;
    rpc_reply_free(&r);
    return root;
}

static void file_make(struct cast *c)
{
    Zbs__Meta__InodeCreateRequest rq = ZBS__META__INODE_CREATE_REQUEST__INIT;
    Zbs__Meta__FileVolumeRequest volume = ZBS__META__FILE_VOLUME_REQUEST__INIT;
    Zbs__Meta__FileAttachRequest attach = ZBS__META__FILE_ATTACH_REQUEST__INIT;
    Zbs__Meta__FileWrittenRequest written = ZBS__META__FILE_WRITTEN_REQUEST__INIT;
    struct rpc_reply r;

    rq.dir_id = root_make(c);
    rq.name = (char *)"f";
    rq.type = ZBS__META__INODE_TYPE__INODE_REG;
    assert_int_equal(change(c, META_INODE_CREATE, &rq.base, &rq.mutation, &r), 0);
    c->inode_id = ((const Zbs__Meta__InodeCreateReply *)r.msg)->inode->id;
    rpc_reply_free(&r);
    volume.inode_id = attach.inode_id = written.inode_id = c->inode_id;
    volume.bytes = written.size = BYTES;
    assert_int_equal(change(c, META_FILE_VOLUME, &volume.base, &volume.mutation, &r), 0);
    attach.volume_id = ((const Zbs__Meta__Inode *)r.msg)->candidate;
    attach.change = ((const Zbs__Meta__Inode *)r.msg)->change;
    rpc_reply_free(&r);
    assert_int_equal(change(c, META_FILE_ATTACH, &attach.base, &attach.mutation, &r), 0);
    rpc_reply_free(&r);
    assert_int_equal(change(c, META_FILE_WRITTEN, &written.base, &written.mutation, &r), 0);
    rpc_reply_free(&r);
    snprintf(c->volume, sizeof(c->volume), FILE_VOLUME_NAME, c->inode_id);
}

static void cast_enter(struct cast *c, struct mworld *w)
{
    *c = (struct cast){.w = w};
    co_group_init(&c->group);
    assert_int_equal(pool_create(w, "p", 1), 0);
    file_make(c);
    for (uint32_t i = 0; i < SESSIONS; i++) {
        writer_start(c, i);
        assert_int_equal(take_lease(c, &c->writers[i]), 0);
        assert_true(c->writers[i].lease > 0);
    }
}

static void cast_leave(struct cast *c)
{
    check_equal(c->w);
    (void)co_group_close(&c->group);
    for (uint32_t i = 0; i < SESSIONS; i++)
        meta_client_close(c->writers[i].mc);
}

/* ---- scripts ---- */

static int cut_script(struct mworld *w)
{
    struct cast c;
    nsec_t begin;

    cast_enter(&c, w);
    assert_int_equal(set_size(&c, 100), ERR_BUSY);
    assert_int_equal(set_size(&c, 2 * BYTES), 0);
    begin = co_now();
    assert_int_equal(recall(&c), SESSIONS);
    while (recall(&c) > 0)
        (void)co_sleep(MSEC(5));
    assert_true(co_now() - begin < MSEC(200));
    assert_int_equal(set_size(&c, 100), 0);
    /* Nobody is asked for what is taken from now on. */
    (void)co_sleep(SEC(3));
    assert_int_equal(take_lease(&c, &c.writers[0]), 0);
    (void)co_sleep(SEC(1));
    assert_int_equal(set_size(&c, 10), ERR_BUSY);
    cast_leave(&c);
    return 0;
}

static void a_recall_is_answered_at_once(void **state)
{
    (void)state;
    for_seeds(cut_script, 3);
}

static int ends_script(struct mworld *w)
{
    struct cast c;
    nsec_t begin;

    cast_enter(&c, w);
    c.writers[0].deaf = true;
    begin = co_now();
    while (co_now() - begin < SEC(3))
        assert_true(recall(&c) >= 1);
    assert_int_equal(set_size(&c, 100), ERR_BUSY);
    c.writers[0].dead = true;
    while (recall(&c) > 0)
        (void)co_sleep(MSEC(20));
    assert_int_equal(set_size(&c, 100), 0);
    cast_leave(&c);
    return 0;
}

static void a_session_that_does_not_answer_is_waited_for_until_it_ends(void **state)
{
    (void)state;
    for_seeds(ends_script, 3);
}

static int leader_script(struct mworld *w)
{
    struct cast c;

    cast_enter(&c, w);
    c.writers[0].deaf = c.writers[1].deaf = true;
    assert_int_equal(recall(&c), SESSIONS);
    sim_proc_crash(w->metas[wait_leader(w)].proc);
    assert_int_equal(set_size(&c, 100), ERR_BUSY);
    assert_int_equal(recall(&c), SESSIONS);
    c.writers[0].deaf = c.writers[1].deaf = false;
    while (recall(&c) > 0)
        (void)co_sleep(MSEC(5));
    assert_int_equal(set_size(&c, 100), 0);
    cast_leave(&c);
    return 0;
}

static void another_leader_knows_the_leases(void **state)
{
    (void)state;
    for_seeds(leader_script, 3);
}

static int rollback_script(struct mworld *w)
{
    struct cast c;

    cast_enter(&c, w);
    assert_int_equal(snapshot_or_back(&c, false), 0); /* takes nothing away */
    assert_int_equal(snapshot_or_back(&c, true), 0);
    assert_int_equal(recall(&c), 0);
    c.writers[0].deaf = true;
    assert_int_equal(take_lease(&c, &c.writers[0]), 0);
    assert_int_equal(snapshot_or_back(&c, true), ERR_BUSY);
    cast_leave(&c);
    return 0;
}

static void a_rollback_recalls_by_itself(void **state)
{
    (void)state;
    for_seeds(rollback_script, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_recall_is_answered_at_once),
        cmocka_unit_test(a_session_that_does_not_answer_is_waited_for_until_it_ends),
        cmocka_unit_test(another_leader_knows_the_leases),
        cmocka_unit_test(a_rollback_recalls_by_itself),
    };

    return cmocka_run_group_tests_name("recall", tests, NULL, NULL);
}
