/* SPDX-License-Identifier: Apache-2.0
 *
 * Procedures that make an inode with a name: CREATE, MKDIR, SYMLINK, MKNOD. Each reads its
 * arguments into one request to meta. */
#include "access/nfs/nfs_int.h"

struct create {
    struct nfs_handle dir;
    struct nfs_name name;
    struct nfs_sattr sattr;
    enum nfs_status status;           /* not NFS3_OK: there can't be such an inode */
    Zbs__Meta__InodeCreateRequest rq; /* refers to the others */
};

static void take_where(struct onc_call *call, struct create *c)
{
    nfs_take_handle(call, &c->dir);
    nfs_take_name(call, &c->name);
    c->status = c->name.status;
    zbs__meta__inode_create_request__init(&c->rq);
    c->rq.name = c->name.text;
}

static void take_attrs(struct onc_call *call, struct create *c)
{
    nfs_take_sattr(&call->args, &c->sattr);
    c->rq.attrs = &c->sattr.message;
}

/* The size that an existing file is to have is in somebody's way: which file is it? (Meta has found
 * already that the client may know, and truncate it.) */
static co_fn int make_way(struct onc_call *call, const struct create *c)
{
    Zbs__Meta__LookupRequest rq = ZBS__META__LOOKUP_REQUEST__INIT;
    struct nfs_server *s = nfs_server_of(call);
    struct rpc_reply r;
    uint64_t inode_id = 0;
    int rc;

    rq.dir_id = c->rq.dir_id;
    rq.name = c->rq.name;
    rc = nfs_meta_call(s, META_LOOKUP, &rq.base, &r);
    if (rc == 0)
        inode_id = ((const Zbs__Meta__LookupReply *)r.msg)->inode->id;
    rpc_reply_free(&r);
    return rc < 0 ? rc : nfs_file_make_way(s->files, inode_id);
}

static co_fn int create(struct onc_call *call, struct create *c, const struct nfs_cred *who,
                        struct rpc_reply *r)
{
    int rc = ERR_BUSY;

    c->rq.dir_id = c->dir.fh.inode_id;
    for (int i = 0; rc == ERR_BUSY && i < NFS_SIZE_TRIES; i++) {
        rpc_reply_free(r);
        rc = nfs_meta_change(call, who, META_INODE_CREATE, &c->rq, r);
        if (rc == ERR_BUSY)
            rc = make_way(call, c) < 0 ? ERR_TIMEOUT : ERR_BUSY;
    }
    return rc;
}

/* An existing file that was truncated so may have left a tail in its volume. */
static co_fn void settle(struct onc_call *call, const struct create *c,
                         const Zbs__Meta__Inode *inode)
{
    if (c->rq.attrs != NULL && c->rq.attrs->size != NULL && inode->dirty_end != 0)
        (void)!nfs_file_settle(nfs_server_of(call)->files, inode->id);
}

static co_fn enum onc_accept execute(struct onc_call *call, struct create *c)
{
    const Zbs__Meta__InodeCreateReply *m;
    struct nfs_cred who;
    struct rpc_reply r;
    enum nfs_status status;
    int rc;

    if (call->args.bad)
        return ONC_GARBAGE_ARGS;
    rpc_reply_init(&r);
    status = nfs_admit(call, &c->dir, true, &who);
    if (status == NFS3_OK)
        status = c->status;
    if (status == NFS3_OK) {
        rc = create(call, c, &who, &r);
        status = rc == ERR_TOO_LARGE ? NFS3ERR_MLINK : nfs_status_of(rc);
    }
    nfs_put_status(call, status);
    m = status == NFS3_OK ? (const Zbs__Meta__InodeCreateReply *)r.msg : NULL;
    if (m != NULL) {
        xdr_put_bool(&call->out, true);
        nfs_put_handle(call, c->dir.fh.share_id, m->inode->id);
        nfs_put_inode_attr(call, m->inode);
    }
    nfs_put_inode_wcc(call, m != NULL ? m->dir : NULL);
    if (m != NULL)
        settle(call, c, m->inode);
    rpc_reply_free(&r);
    return ONC_SUCCESS;
}

co_fn enum onc_accept nfs_create(struct onc_call *call)
{
    struct create c;
    const uint8_t *verifier;
    uint32_t how;

    take_where(call, &c);
    c.rq.type = ZBS__META__INODE_TYPE__INODE_REG;
    how = xdr_u32(&call->args);
    switch (how) {
    case CREATE_UNCHECKED:
        c.rq.how = ZBS__META__INODE_CREATE_REQUEST__HOW__UNCHECKED;
        take_attrs(call, &c);
        break;
    case CREATE_GUARDED:
        c.rq.how = ZBS__META__INODE_CREATE_REQUEST__HOW__GUARDED;
        take_attrs(call, &c);
        break;
    case CREATE_EXCLUSIVE:
        c.rq.how = ZBS__META__INODE_CREATE_REQUEST__HOW__EXCLUSIVE;
        verifier = xdr_fixed(&call->args, NFS3_VERIFIER_BYTES);
        c.rq.verifier.data = (uint8_t *)(uintptr_t)verifier;
        c.rq.verifier.len = verifier != NULL ? NFS3_VERIFIER_BYTES : 0;
        break;
    default:
        return ONC_GARBAGE_ARGS;
    }
    return execute(call, &c);
}

co_fn enum onc_accept nfs_mkdir(struct onc_call *call)
{
    struct create c;

    take_where(call, &c);
    c.rq.type = ZBS__META__INODE_TYPE__INODE_DIR;
    take_attrs(call, &c);
    return execute(call, &c);
}

co_fn enum onc_accept nfs_symlink(struct onc_call *call)
{
    struct create c;
    const uint8_t *target;
    uint32_t len;

    take_where(call, &c);
    c.rq.type = ZBS__META__INODE_TYPE__INODE_LNK;
    take_attrs(call, &c);
    target = xdr_opaque(&call->args, ONC_RECORD_BYTES, &len);
    c.rq.target.data = (uint8_t *)(uintptr_t)target;
    c.rq.target.len = len;
    if (len > SYMLINK_BYTES_MAX)
        c.status = NFS3ERR_NAMETOOLONG;
    return execute(call, &c);
}

co_fn enum onc_accept nfs_mknod(struct onc_call *call)
{
    struct create c;

    take_where(call, &c);
    c.rq.type = xdr_u32(&call->args);
    switch (c.rq.type) {
    case ZBS__META__INODE_TYPE__INODE_BLK:
    case ZBS__META__INODE_TYPE__INODE_CHR:
        take_attrs(call, &c);
        c.rq.rdev = xdr_u64(&call->args);
        break;
    case ZBS__META__INODE_TYPE__INODE_SOCK:
    case ZBS__META__INODE_TYPE__INODE_FIFO:
        take_attrs(call, &c);
        break;
    default:
        c.status = NFS3ERR_BADTYPE;
    }
    return execute(call, &c);
}
