/* SPDX-License-Identifier: Apache-2.0
 *
 * Procedures that ask for one inode or change its attributes: GETATTR, SETATTR, LOOKUP, ACCESS,
 * READLINK. */
#include "access/nfs/nfs_int.h"
#include "common/cluster/permission.h"

/* ---- GETATTR ---- */

co_fn enum onc_accept nfs_getattr(struct onc_call *call)
{
    struct nfs_server *s = nfs_server_of(call);
    const Zbs__Meta__Inode *inode = NULL;
    struct nfs_handle h;
    struct nfs_cred who;
    struct nfs_attr attr;
    struct rpc_reply r;
    enum nfs_status status;

    nfs_take_handle(call, &h);
    if (call->args.bad)
        return ONC_GARBAGE_ARGS;
    rpc_reply_init(&r);
    status = nfs_admit(call, &h, false, &who);
    if (status == NFS3_OK)
        status = nfs_status_of(nfs_inode_get(s, &h.fh, &r, &inode));
    nfs_put_status(call, status);
    if (status == NFS3_OK) {
        nfs_attr_of(s, inode, &attr);
        nfs_put_attr(&call->out, &attr);
    }
    rpc_reply_free(&r);
    return ONC_SUCCESS;
}

/* ---- SETATTR ---- */

struct setattr_args {
    struct nfs_handle h;
    struct nfs_sattr sattr;
    bool guard;
    uint64_t guard_ctime_ns;
};

static void take_guard(struct xdr_in *in, struct setattr_args *a)
{
    uint64_t seconds;

    a->guard = xdr_bool(in);
    if (!a->guard)
        return;
    seconds = xdr_u32(in);
    a->guard_ctime_ns = seconds * NSEC_PER_SEC + xdr_u32(in);
}

/* A file grows over a tail that a truncation left only when that is zeroed, and is truncated only
 * when nobody has a write lease. */
static co_fn int set(struct onc_call *call, struct setattr_args *a, const struct nfs_cred *who,
                     struct rpc_reply *r)
{
    struct nfs_server *s = nfs_server_of(call);
    Zbs__Meta__InodeSetRequest rq = ZBS__META__INODE_SET_REQUEST__INIT;
    int rc = ERR_BUSY;

    rq.inode_id = a->h.fh.inode_id;
    rq.attrs = &a->sattr.message;
    rq.guard = a->guard;
    rq.guard_ctime_ns = a->guard_ctime_ns;
    for (int i = 0; rc == ERR_BUSY && i < NFS_SIZE_TRIES; i++) {
        rpc_reply_free(r);
        rc = nfs_meta_change(call, who, META_INODE_SET, &rq, r);
        if (rc == ERR_BUSY)
            rc = nfs_file_make_way(s->files, rq.inode_id) < 0 ? ERR_TIMEOUT : ERR_BUSY;
    }
    return rc;
}

co_fn enum onc_accept nfs_setattr(struct onc_call *call)
{
    struct nfs_server *s = nfs_server_of(call);
    const Zbs__Meta__InodeWcc *wcc = NULL;
    struct setattr_args a;
    struct nfs_cred who;
    struct rpc_reply r;
    enum nfs_status status;

    nfs_take_handle(call, &a.h);
    nfs_take_sattr(&call->args, &a.sattr);
    take_guard(&call->args, &a);
    if (call->args.bad)
        return ONC_GARBAGE_ARGS;
    rpc_reply_init(&r);
    status = nfs_admit(call, &a.h, true, &who);
    if (status == NFS3_OK)
        status = nfs_status_of(set(call, &a, &who, &r));
    if (status == NFS3_OK)
        wcc = ((const Zbs__Meta__InodeSetReply *)r.msg)->inode;
    nfs_put_status(call, status);
    nfs_put_inode_wcc(call, wcc);
    /* The size holds already: what is left behind it is zeroed by whoever needs the place. */
    if (status == NFS3_OK && a.sattr.message.size != NULL)
        (void)!nfs_file_settle(s->files, a.h.fh.inode_id);
    rpc_reply_free(&r);
    return ONC_SUCCESS;
}

/* ---- LOOKUP ---- */

static co_fn int lookup(struct onc_call *call, const struct nfs_fh *dir, char *name,
                        const struct nfs_cred *who, struct rpc_reply *r)
{
    Zbs__Meta__LookupRequest rq = ZBS__META__LOOKUP_REQUEST__INIT;
    Zbs__Meta__Credentials cred;

    nfs_cred_message(who, &cred);
    rq.dir_id = dir->inode_id;
    rq.name = name;
    rq.who = &cred;
    return nfs_meta_call(nfs_server_of(call), META_LOOKUP, &rq.base, r);
}

co_fn enum onc_accept nfs_lookup(struct onc_call *call)
{
    const Zbs__Meta__LookupReply *m;
    struct nfs_handle dir;
    struct nfs_name name;
    struct nfs_cred who;
    struct rpc_reply r;
    enum nfs_status status;

    nfs_take_handle(call, &dir);
    nfs_take_name(call, &name);
    if (call->args.bad)
        return ONC_GARBAGE_ARGS;
    rpc_reply_init(&r);
    status = nfs_admit(call, &dir, false, &who);
    if (status == NFS3_OK)
        status = name.status;
    if (status == NFS3_OK)
        status = nfs_status_of(lookup(call, &dir.fh, name.text, &who, &r));
    nfs_put_status(call, status);
    m = status == NFS3_OK ? (const Zbs__Meta__LookupReply *)r.msg : NULL;
    if (m != NULL) {
        nfs_put_handle(call, dir.fh.share_id, m->inode->id);
        nfs_put_inode_attr(call, m->inode);
    }
    nfs_put_inode_attr(call, m != NULL ? m->dir : NULL);
    rpc_reply_free(&r);
    return ONC_SUCCESS;
}

/* ---- ACCESS ---- */

static uint32_t access_bits(const Zbs__Meta__Inode *inode, const struct nfs_cred *who)
{
    struct permission_who asks = {who->uid, who->gid, who->gids, who->gid_count};
    struct permission_of of = {.mode = inode->mode,
                               .uid = inode->uid,
                               .gid = inode->gid,
                               .directory = inode->type == ZBS__META__INODE_TYPE__INODE_DIR};
    uint32_t may = permission_bits(&asks, &of), bits = 0;

    if (may & PERMISSION_READ)
        bits |= ACCESS3_READ;
    if (may & PERMISSION_WRITE)
        bits |= ACCESS3_MODIFY | ACCESS3_EXTEND | (of.directory ? ACCESS3_DELETE : 0u);
    if (may & PERMISSION_EXECUTE)
        bits |= of.directory ? ACCESS3_LOOKUP : ACCESS3_EXECUTE;
    return bits;
}

co_fn enum onc_accept nfs_access(struct onc_call *call)
{
    const Zbs__Meta__Inode *inode = NULL;
    uint32_t wanted, bits = 0;
    struct nfs_handle h;
    struct nfs_cred who;
    struct rpc_reply r;
    enum nfs_status status;

    nfs_take_handle(call, &h);
    wanted = xdr_u32(&call->args);
    if (call->args.bad)
        return ONC_GARBAGE_ARGS;
    rpc_reply_init(&r);
    status = nfs_admit(call, &h, false, &who);
    if (status == NFS3_OK)
        status = nfs_status_of(nfs_inode_get(nfs_server_of(call), &h.fh, &r, &inode));
    nfs_put_status(call, status);
    nfs_put_inode_attr(call, inode);
    if (status == NFS3_OK) {
        bits = access_bits(inode, &who) & wanted;
        if (nfs_admit(call, &h, true, &who) == NFS3ERR_ROFS)
            bits &= ~(uint32_t)(ACCESS3_MODIFY | ACCESS3_EXTEND | ACCESS3_DELETE);
        xdr_put_u32(&call->out, bits);
    }
    rpc_reply_free(&r);
    return ONC_SUCCESS;
}

/* ---- READLINK ---- */

co_fn enum onc_accept nfs_readlink(struct onc_call *call)
{
    const Zbs__Meta__Inode *inode = NULL;
    struct nfs_handle h;
    struct nfs_cred who;
    struct rpc_reply r;
    enum nfs_status status;

    nfs_take_handle(call, &h);
    if (call->args.bad)
        return ONC_GARBAGE_ARGS;
    rpc_reply_init(&r);
    status = nfs_admit(call, &h, false, &who);
    if (status == NFS3_OK)
        status = nfs_status_of(nfs_inode_get(nfs_server_of(call), &h.fh, &r, &inode));
    if (status == NFS3_OK && inode->type != ZBS__META__INODE_TYPE__INODE_LNK)
        status = NFS3ERR_INVAL;
    nfs_put_status(call, status);
    nfs_put_inode_attr(call, inode);
    if (status == NFS3_OK)
        xdr_put_opaque(&call->out, inode->data.data, (uint32_t)inode->data.len);
    rpc_reply_free(&r);
    return ONC_SUCCESS;
}
