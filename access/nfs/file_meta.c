/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests to meta about one file. Each answers with the inode, which renews the copy. */
#include <string.h>
#include "access/nfs/file_int.h"

/* ---- the copy ---- */

static void learn_data(struct file *f, const Zbs__Meta__Inode *inode)
{
    mem_free(f->data);
    f->data = NULL;
    f->data_len = (uint32_t)inode->data.len;
    if (f->data_len > 0) {
        f->data = mem_alloc(f->data_len);
        memcpy(f->data, inode->data.data, f->data_len);
    }
}

/* since: it was so then, or later. */
void file_learn(struct file *f, const Zbs__Meta__Inode *inode, nsec_t since)
{
    if (f->known && inode->change < f->attr.change)
        return; /* an answer that was overtaken */
    /* Somebody else has set a modification time since: it counts. */
    if (f->known && inode->mtime_ns != f->attr.mtime_ns && inode->mtime_ns != f->mtime_told)
        f->mtime_ns = 0;
    nfs_attr_from_inode(&f->attr, inode);
    f->volume_id = inode->volume_id;
    f->volume_bytes = inode->volume_bytes;
    f->candidate = inode->candidate;
    f->dirty_end = inode->dirty_end;
    f->cut = inode->cut;
    learn_data(f, inode);
    f->known = true;
    f->told = MAX(f->told, since);
}

/* *r is initialised here and has to be freed in every case. */
static co_fn int ask(struct file *f, enum meta_method method, const ProtobufCMessage *request,
                     struct rpc_reply *r)
{
    struct nfs_backend *b = &f->files->backend;
    int rc;

    rpc_reply_init(r);
    rc = b->call(b->arg, method, request, r);
    if (rc == ERR_STALE)
        f->gone = true;
    return rc;
}

/* A request that is answered with the inode. */
static co_fn int ask_inode(struct file *f, enum meta_method method, const ProtobufCMessage *request)
{
    nsec_t sent = co_now();
    struct rpc_reply r;
    int rc = ask(f, method, request, &r);

    if (rc == 0)
        file_learn(f, (const Zbs__Meta__Inode *)r.msg, sent);
    rpc_reply_free(&r);
    return rc;
}

/* `fn` is `ask` or `ask_inode`, for a request that changes something: what these have in common is
 * filled in. */
#define CHANGE_BY(fn, f, method, rq, ...)                                                          \
    ({                                                                                             \
        const struct nfs_backend *change_backend = &(f)->files->backend;                           \
        Zbs__Meta__Mutation change_mutation;                                                       \
                                                                                                   \
        change_backend->mutation(change_backend->arg, &change_mutation);                           \
        (rq)->mutation = &change_mutation;                                                         \
        (rq)->inode_id = (f)->by_id.key;                                                           \
        fn(f, method, &(rq)->base, ##__VA_ARGS__);                                                 \
    })
#define CHANGE(f, method, rq) CHANGE_BY(ask_inode, f, method, rq)

co_fn int file_get(struct file *f)
{
    Zbs__Meta__InodeGetRequest rq = ZBS__META__INODE_GET_REQUEST__INIT;

    rq.inode_id = f->by_id.key;
    return ask_inode(f, META_INODE_GET, &rq.base);
}

co_fn int file_missing(struct file *f, int rc)
{
    int there = rc == ERR_NOTFOUND ? file_get(f) : 0;

    return there < 0 ? there : rc;
}

/* ---- bytes, size and times ---- */

co_fn int file_tell_data(struct file *f, uint64_t off, const void *data, uint32_t len)
{
    Zbs__Meta__FileWriteRequest rq = ZBS__META__FILE_WRITE_REQUEST__INIT;

    rq.offset = off;
    rq.data = (ProtobufCBinaryData){len, (uint8_t *)(uintptr_t)data};
    rq.change = f->attr.change;
    return CHANGE(f, META_FILE_WRITE, &rq);
}

co_fn int file_tell_written(struct file *f, uint64_t size, uint64_t cut)
{
    Zbs__Meta__FileWrittenRequest rq = ZBS__META__FILE_WRITTEN_REQUEST__INIT;
    uint64_t now = (uint64_t)env_wall_ns();
    int rc;

    rq.size = size;
    rq.cut = cut;
    rq.mtime_ns = size > 0 ? MAX(now, f->mtime_ns) : f->mtime_ns;
    f->mtime_told = rq.mtime_ns;
    rc = CHANGE(f, META_FILE_WRITTEN, &rq);
    if (rc == 0 && f->mtime_ns <= rq.mtime_ns)
        f->mtime_ns = 0;
    return rc;
}

co_fn int file_tell_user(struct file *f)
{
    Zbs__Meta__FileWrittenRequest rq = ZBS__META__FILE_WRITTEN_REQUEST__INIT;

    rq.by_user = true;
    return CHANGE(f, META_FILE_WRITTEN, &rq);
}

/* ---- its volume ---- */

co_fn int file_ask_candidate(struct file *f, uint64_t bytes)
{
    Zbs__Meta__FileVolumeRequest rq = ZBS__META__FILE_VOLUME_REQUEST__INIT;

    rq.bytes = bytes;
    return CHANGE(f, META_FILE_VOLUME, &rq);
}

co_fn int file_ask_attach(struct file *f, uint64_t volume_id, uint64_t change)
{
    Zbs__Meta__FileAttachRequest rq = ZBS__META__FILE_ATTACH_REQUEST__INIT;

    rq.volume_id = volume_id;
    rq.change = change;
    return CHANGE(f, META_FILE_ATTACH, &rq);
}

co_fn int file_ask_grow(struct file *f, uint64_t bytes)
{
    Zbs__Meta__FileGrowRequest rq = ZBS__META__FILE_GROW_REQUEST__INIT;

    rq.bytes = bytes;
    return CHANGE(f, META_FILE_GROW, &rq);
}

/* ---- write leases ---- */

co_fn int file_ask_lease(struct file *f, uint64_t session, uint64_t *ret)
{
    Zbs__Meta__FileLeaseRequest rq = ZBS__META__FILE_LEASE_REQUEST__INIT;
    nsec_t sent = co_now();
    struct rpc_reply r;
    int rc;

    rq.session_id = session;
    rc = CHANGE_BY(ask, f, META_FILE_LEASE, &rq, &r);
    if (rc == 0) {
        file_learn(f, ((const Zbs__Meta__FileLeaseReply *)r.msg)->inode, sent);
        *ret = ((const Zbs__Meta__FileLeaseReply *)r.msg)->lease;
    }
    rpc_reply_free(&r);
    return rc;
}

co_fn int file_tell_return(struct file *f, uint64_t lease)
{
    Zbs__Meta__FileReturnRequest rq = ZBS__META__FILE_RETURN_REQUEST__INIT;
    struct rpc_reply r;
    int rc;

    rq.lease = lease;
    rc = CHANGE_BY(ask, f, META_FILE_RETURN, &rq, &r);
    rpc_reply_free(&r);
    return rc;
}

co_fn int file_ask_recall(struct file *f, uint32_t *ret)
{
    Zbs__Meta__FileRecallRequest rq = ZBS__META__FILE_RECALL_REQUEST__INIT;
    struct rpc_reply r;
    int rc;

    rq.inode_id = f->by_id.key;
    rc = ask(f, META_FILE_RECALL, &rq.base, &r);
    if (rc == 0)
        *ret = ((const Zbs__Meta__FileRecallReply *)r.msg)->writers;
    rpc_reply_free(&r);
    return rc;
}

/* ---- zeroing ---- */

co_fn int file_ask_zero(struct file *f, uint64_t session)
{
    Zbs__Meta__FileZeroRequest rq = ZBS__META__FILE_ZERO_REQUEST__INIT;

    rq.session_id = session;
    return CHANGE(f, META_FILE_ZERO, &rq);
}

co_fn int file_tell_zeroed(struct file *f, uint64_t session)
{
    Zbs__Meta__FileZeroedRequest rq = ZBS__META__FILE_ZEROED_REQUEST__INIT;

    rq.size = f->attr.size;
    rq.dirty_end = f->dirty_end;
    rq.session_id = session;
    return CHANGE(f, META_FILE_ZEROED, &rq);
}
