/* SPDX-License-Identifier: Apache-2.0
 *
 * A state with a pool and a share, and requests that are decided on it and applied at once, with
 * their mutations. Included by tests only, so everything is static. */
#ifndef ZBS_TESTS_META_TREE_RIG_H
#define ZBS_TESTS_META_TREE_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "common/base/err.h"
#include "common/base/units.h"
#include "meta/apply.h"
#include "meta/codec.h"
#include "meta/decide_tree.h"

#define REG ZBS__META__INODE_TYPE__INODE_REG
#define DIR ZBS__META__INODE_TYPE__INODE_DIR
#define LNK ZBS__META__INODE_TYPE__INODE_LNK

struct rig {
    struct state st;
    struct pad pad;
    struct world w;
    uint64_t root;
    Zbs__Meta__Credentials *who; /* of the requests that follow; NULL: the system */
    struct packed reply;         /* of the last request */
    struct kv_batch *batch;      /* where changes go, or NULL */
    void (*applied)(struct rig *r, const Zbs__Metalog__Record *record);
};

/* Decides, applies; the reply stays in the pad. 0, or the error. */
UNUSED static int rig_do(struct rig *r, decide_fn decide, answer_fn answer,
                         const ProtobufCMessage *rq, ProtobufCMessage *reply)
{
    struct decide d = {.st = &r->st, .w = &r->w, .rq = rq, .pad = &r->pad};
    Zbs__Metalog__Record *record = NULL;
    int rc;

    r->w.wall_ns += 1000;
    r->reply = (struct packed){0};
    rc = decide(&d, &record);
    if (rc < 0)
        return rc;
    if (record != NULL) {
        assert_int_equal(apply_record(&r->st, record, r->batch, &r->pad, &r->reply), 0);
        if (r->applied != NULL)
            r->applied(r, record);
    }
    if (r->reply.bytes != NULL || answer == NULL)
        return 0;
    rc = answer(&d, reply);
    if (rc == 0)
        r->reply = view_pack(reply, &r->pad);
    return rc;
}

UNUSED static void *rig_reply(struct rig *r, const ProtobufCMessageDescriptor *type)
{
    void *m = protobuf_c_message_unpack(type, &r->pad.allocator, r->reply.len, r->reply.bytes);

    assert_non_null(m);
    return m;
}

UNUSED static int share_create(struct rig *r, const char *name)
{
    Zbs__Meta__ShareCreateRequest rq = ZBS__META__SHARE_CREATE_REQUEST__INIT;
    Zbs__Meta__Share share = ZBS__META__SHARE__INIT;
    Zbs__Meta__ShareClient all = ZBS__META__SHARE_CLIENT__INIT, *clients[] = {&all};

    all.network = (char *)"*";
    share.name = (char *)name;
    share.pool = (char *)"p";
    share.clients = clients;
    share.n_clients = 1;
    rq.share = &share;
    return rig_do(r, decide_share_create, NULL, &rq.base, NULL);
}

UNUSED static void rig_init(struct rig *r)
{
    memset(r, 0, sizeof(*r));
    state_init(&r->st);
    pad_init(&r->pad);
    r->w.wall_ns = 1000000;
    state_pool_add(&r->st, r->st.next_pool_id++, "p")->replicas = 1;
    assert_int_equal(share_create(r, "s"), 0);
    r->root = tree_share(&r->st.tree, "s")->root;
}

UNUSED static void rig_fini(struct rig *r)
{
    pad_fini(&r->pad);
    state_fini(&r->st);
}

/* The request may be completed by the caller before `rig_create`. */
UNUSED static Zbs__Meta__InodeCreateRequest
create_request(struct rig *r, uint64_t dir, const char *name, Zbs__Meta__InodeType type)
{
    Zbs__Meta__InodeCreateRequest rq = ZBS__META__INODE_CREATE_REQUEST__INIT;

    rq.who = r->who;
    rq.dir_id = dir;
    rq.name = (char *)name;
    rq.type = type;
    if (type == LNK)
        rq.target = (ProtobufCBinaryData){.data = (uint8_t *)"target", .len = 6};
    return rq;
}

/* The inode's id, or an error. */
UNUSED static int64_t rig_create(struct rig *r, const Zbs__Meta__InodeCreateRequest *rq)
{
    Zbs__Meta__InodeCreateReply reply = ZBS__META__INODE_CREATE_REPLY__INIT;
    int rc = rig_do(r, decide_inode_create, answer_inode_create, &rq->base, &reply.base);
    Zbs__Meta__InodeCreateReply *m;

    if (rc < 0)
        return rc;
    m = rig_reply(r, &zbs__meta__inode_create_reply__descriptor);
    return (int64_t)m->inode->id;
}

UNUSED static int64_t create(struct rig *r, uint64_t dir, const char *name,
                             Zbs__Meta__InodeType type)
{
    Zbs__Meta__InodeCreateRequest rq = create_request(r, dir, name, type);

    return rig_create(r, &rq);
}

UNUSED static int64_t lookup(struct rig *r, uint64_t dir, const char *name)
{
    Zbs__Meta__LookupRequest rq = ZBS__META__LOOKUP_REQUEST__INIT;
    Zbs__Meta__LookupReply m = ZBS__META__LOOKUP_REPLY__INIT;
    struct decide d = {.st = &r->st, .rq = &rq.base, .pad = &r->pad};
    int rc;

    rq.dir_id = dir;
    rq.name = (char *)name;
    rq.who = r->who;
    rc = answer_lookup(&d, &m.base);
    return rc < 0 ? rc : (int64_t)m.inode->id;
}

UNUSED static int removes(struct rig *r, uint64_t dir, const char *name, bool directory)
{
    Zbs__Meta__InodeRemoveRequest rq = ZBS__META__INODE_REMOVE_REQUEST__INIT;

    rq.dir_id = dir;
    rq.name = (char *)name;
    rq.directory = directory;
    rq.who = r->who;
    return rig_do(r, decide_inode_remove, NULL, &rq.base, NULL);
}

UNUSED static int renames(struct rig *r, uint64_t from, const char *from_name, uint64_t to,
                          const char *to_name)
{
    Zbs__Meta__InodeRenameRequest rq = ZBS__META__INODE_RENAME_REQUEST__INIT;
    Zbs__Meta__InodeRenameReply reply = ZBS__META__INODE_RENAME_REPLY__INIT;

    rq.from_dir_id = from;
    rq.from_name = (char *)from_name;
    rq.to_dir_id = to;
    rq.to_name = (char *)to_name;
    rq.who = r->who;
    return rig_do(r, decide_inode_rename, answer_inode_rename, &rq.base, &reply.base);
}

UNUSED static int links(struct rig *r, uint64_t inode, uint64_t dir, const char *name)
{
    Zbs__Meta__InodeLinkRequest rq = ZBS__META__INODE_LINK_REQUEST__INIT;

    rq.inode_id = inode;
    rq.dir_id = dir;
    rq.name = (char *)name;
    rq.who = r->who;
    return rig_do(r, decide_inode_link, NULL, &rq.base, NULL);
}

UNUSED static int sets(struct rig *r, uint64_t inode, Zbs__Meta__InodeAttrs *attrs)
{
    Zbs__Meta__InodeSetRequest rq = ZBS__META__INODE_SET_REQUEST__INIT;

    rq.inode_id = inode;
    rq.attrs = attrs;
    rq.who = r->who;
    return rig_do(r, decide_inode_set, NULL, &rq.base, NULL);
}

UNUSED static int set_mode_of(struct rig *r, uint64_t inode, uint32_t mode)
{
    Zbs__Meta__InodeAttrs attrs = ZBS__META__INODE_ATTRS__INIT;
    Zbs__Meta__InodeAttrs__U32 v = ZBS__META__INODE_ATTRS__U32__INIT;

    v.value = mode;
    attrs.mode = &v;
    return sets(r, inode, &attrs);
}

UNUSED static int set_size_of(struct rig *r, uint64_t inode, uint64_t size)
{
    Zbs__Meta__InodeAttrs attrs = ZBS__META__INODE_ATTRS__INIT;
    Zbs__Meta__InodeAttrs__U64 v = ZBS__META__INODE_ATTRS__U64__INIT;

    v.value = size;
    attrs.size = &v;
    return sets(r, inode, &attrs);
}

/* ---- what files contain; the answer is the inode ---- */

UNUSED static int rig_file(struct rig *r, decide_fn decide, const ProtobufCMessage *rq)
{
    Zbs__Meta__Inode reply = ZBS__META__INODE__INIT;

    return rig_do(r, decide, answer_file, rq, &reply.base);
}

static uint64_t change_of(struct rig *r, uint64_t inode)
{
    const struct inode *i = tree_inode(&r->st.tree, inode);

    return i != NULL ? i->change : 0;
}

UNUSED static int writes(struct rig *r, uint64_t inode, uint64_t offset, const char *data)
{
    Zbs__Meta__FileWriteRequest rq = ZBS__META__FILE_WRITE_REQUEST__INIT;

    rq.inode_id = inode;
    rq.offset = offset;
    rq.data = (ProtobufCBinaryData){.data = (uint8_t *)data, .len = strlen(data)};
    rq.change = change_of(r, inode);
    return rig_file(r, decide_file_write, &rq.base);
}

/* The candidate, or an error. */
UNUSED static int64_t volume_for(struct rig *r, uint64_t inode, uint64_t bytes)
{
    Zbs__Meta__FileVolumeRequest rq = ZBS__META__FILE_VOLUME_REQUEST__INIT;
    int rc;

    rq.inode_id = inode;
    rq.bytes = bytes;
    rc = rig_file(r, decide_file_volume, &rq.base);
    return rc < 0 ? rc : (int64_t)tree_inode(&r->st.tree, inode)->candidate;
}

UNUSED static int attaches(struct rig *r, uint64_t inode, uint64_t volume, uint64_t change)
{
    Zbs__Meta__FileAttachRequest rq = ZBS__META__FILE_ATTACH_REQUEST__INIT;

    rq.inode_id = inode;
    rq.volume_id = volume;
    rq.change = change;
    return rig_file(r, decide_file_attach, &rq.base);
}

UNUSED static int grows(struct rig *r, uint64_t inode, uint64_t bytes)
{
    Zbs__Meta__FileGrowRequest rq = ZBS__META__FILE_GROW_REQUEST__INIT;

    rq.inode_id = inode;
    rq.bytes = bytes;
    return rig_file(r, decide_file_grow, &rq.base);
}

UNUSED static int written(struct rig *r, uint64_t inode, uint64_t size, uint64_t mtime_ns)
{
    Zbs__Meta__FileWrittenRequest rq = ZBS__META__FILE_WRITTEN_REQUEST__INIT;

    rq.inode_id = inode;
    rq.size = size;
    rq.mtime_ns = mtime_ns;
    if (tree_inode(&r->st.tree, inode) != NULL)
        rq.cut = tree_inode(&r->st.tree, inode)->cut;
    return rig_file(r, decide_file_written, &rq.base);
}

/* Nothing but that somebody wrote. */
UNUSED static int written_by(struct rig *r, uint64_t inode, bool user)
{
    Zbs__Meta__FileWrittenRequest rq = ZBS__META__FILE_WRITTEN_REQUEST__INIT;

    rq.inode_id = inode;
    rq.by_user = user;
    return rig_file(r, decide_file_written, &rq.base);
}

/* By a session that lives so long. */
UNUSED static int takes_zeroing(struct rig *r, uint64_t inode, uint64_t session)
{
    Zbs__Meta__FileZeroRequest rq = ZBS__META__FILE_ZERO_REQUEST__INIT;
    int rc;

    rq.inode_id = inode;
    rq.session_id = session;
    state_session_add(&r->st, session);
    rc = rig_file(r, decide_file_zero, &rq.base);
    state_session_remove(&r->st, state_session(&r->st, session));
    return rc;
}

#define ZEROER 7u /* session that zeroes in these tests */

/* The number of a session's write lease; 0: it got none. */
UNUSED static uint64_t takes_lease(struct rig *r, uint64_t inode, uint64_t session)
{
    Zbs__Meta__FileLeaseRequest rq = ZBS__META__FILE_LEASE_REQUEST__INIT;
    Zbs__Meta__FileLeaseReply reply = ZBS__META__FILE_LEASE_REPLY__INIT;

    rq.inode_id = inode;
    rq.session_id = session;
    assert_int_equal(rig_do(r, decide_file_lease, answer_file_lease, &rq.base, &reply.base), 0);
    assert_true(reply.inode != NULL && reply.inode->id == inode);
    return reply.lease;
}

UNUSED static void returns_lease(struct rig *r, uint64_t inode, uint64_t lease)
{
    Zbs__Meta__FileReturnRequest rq = ZBS__META__FILE_RETURN_REQUEST__INIT;

    rq.inode_id = inode;
    rq.lease = lease;
    assert_int_equal(rig_do(r, decide_file_return, NULL, &rq.base, NULL), 0);
}

UNUSED static int zeroed(struct rig *r, uint64_t inode, uint64_t size, uint64_t dirty_end)
{
    Zbs__Meta__FileZeroedRequest rq = ZBS__META__FILE_ZEROED_REQUEST__INIT;

    rq.inode_id = inode;
    rq.size = size;
    rq.dirty_end = dirty_end;
    rq.session_id = ZEROER;
    return rig_file(r, decide_file_zeroed, &rq.base);
}

/* ---- locks; length 0: to the end ---- */

UNUSED static Zbs__Meta__Lock lock_of(uint64_t inode, const char *client, uint32_t svid,
                                      uint64_t offset, uint64_t length, bool exclusive)
{
    Zbs__Meta__Lock l = ZBS__META__LOCK__INIT;

    l.inode_id = inode;
    l.client = (char *)client;
    l.svid = svid;
    l.offset = offset;
    l.length = length;
    l.exclusive = exclusive;
    return l;
}

UNUSED static int locks(struct rig *r, Zbs__Meta__Lock l)
{
    Zbs__Meta__LockSetRequest rq = ZBS__META__LOCK_SET_REQUEST__INIT;

    rq.lock = &l;
    return rig_do(r, decide_lock_set, NULL, &rq.base, NULL);
}

/* Unless the owner has something there already. */
UNUSED static int locks_new(struct rig *r, Zbs__Meta__Lock l)
{
    Zbs__Meta__LockSetRequest rq = ZBS__META__LOCK_SET_REQUEST__INIT;

    rq.lock = &l;
    rq.only_new = true;
    return rig_do(r, decide_lock_set, NULL, &rq.base, NULL);
}

UNUSED static int unlocks(struct rig *r, Zbs__Meta__Lock l)
{
    Zbs__Meta__LockClearRequest rq = ZBS__META__LOCK_CLEAR_REQUEST__INIT;

    rq.lock = &l;
    return rig_do(r, decide_lock_clear, NULL, &rq.base, NULL);
}

UNUSED static int forgets(struct rig *r, const char *client)
{
    Zbs__Meta__LockForgetRequest rq = ZBS__META__LOCK_FORGET_REQUEST__INIT;

    rq.client = (char *)client;
    return rig_do(r, decide_lock_forget, NULL, &rq.base, NULL);
}

UNUSED static struct inode *inode_of(struct rig *r, int64_t id)
{
    struct inode *i;

    assert_true(id > 0);
    i = tree_inode(&r->st.tree, (uint64_t)id);
    assert_non_null(i);
    return i;
}

#endif
