/* SPDX-License-Identifier: Apache-2.0
 *
 * Procedures that change names: REMOVE, RMDIR, RENAME, LINK. */
#include "access/nfs/nfs_int.h"

struct place { /* diropargs3 */
    struct nfs_handle dir;
    struct nfs_name name;
};

static void take_place(struct onc_call *call, struct place *p)
{
    nfs_take_handle(call, &p->dir);
    nfs_take_name(call, &p->name);
}

/* A second handle of the same call: of the same share, or the inode can't be moved there. */
static enum nfs_status same_share(const struct nfs_handle *first, const struct nfs_handle *second)
{
    if (second->status != NFS3_OK)
        return second->status;
    return first->fh.share_id == second->fh.share_id ? NFS3_OK : NFS3ERR_XDEV;
}

/* Names are limited in number (FILE_LINKS_MAX). */
static enum nfs_status link_status(int rc)
{
    return rc == ERR_TOO_LARGE ? NFS3ERR_MLINK : nfs_status_of(rc);
}

/* ---- REMOVE, RMDIR ---- */

static co_fn int remove_name(struct onc_call *call, struct place *p, const struct nfs_cred *who,
                             bool directory, struct rpc_reply *r)
{
    Zbs__Meta__InodeRemoveRequest rq = ZBS__META__INODE_REMOVE_REQUEST__INIT;

    rq.dir_id = p->dir.fh.inode_id;
    rq.name = p->name.text;
    rq.directory = directory;
    return nfs_meta_change(call, who, META_INODE_REMOVE, &rq, r);
}

static co_fn enum onc_accept removal(struct onc_call *call, bool directory)
{
    struct place p;
    struct nfs_cred who;
    struct rpc_reply r;
    enum nfs_status status;

    take_place(call, &p);
    if (call->args.bad)
        return ONC_GARBAGE_ARGS;
    rpc_reply_init(&r);
    status = nfs_admit(call, &p.dir, true, &who);
    if (status == NFS3_OK)
        status = p.name.status;
    if (status == NFS3_OK)
        status = nfs_status_of(remove_name(call, &p, &who, directory, &r));
    nfs_put_status(call, status);
    nfs_put_inode_wcc(call,
                      status == NFS3_OK ? ((const Zbs__Meta__InodeRemoveReply *)r.msg)->dir : NULL);
    rpc_reply_free(&r);
    return ONC_SUCCESS;
}

co_fn enum onc_accept nfs_remove(struct onc_call *call)
{
    return removal(call, false);
}

co_fn enum onc_accept nfs_rmdir(struct onc_call *call)
{
    return removal(call, true);
}

/* ---- RENAME ---- */

static co_fn int rename_name(struct onc_call *call, struct place *from, struct place *to,
                             const struct nfs_cred *who, struct rpc_reply *r)
{
    Zbs__Meta__InodeRenameRequest rq = ZBS__META__INODE_RENAME_REQUEST__INIT;

    rq.from_dir_id = from->dir.fh.inode_id;
    rq.from_name = from->name.text;
    rq.to_dir_id = to->dir.fh.inode_id;
    rq.to_name = to->name.text;
    return nfs_meta_change(call, who, META_INODE_RENAME, &rq, r);
}

co_fn enum onc_accept nfs_rename(struct onc_call *call)
{
    const Zbs__Meta__InodeRenameReply *m;
    struct place from, to;
    struct nfs_cred who;
    struct rpc_reply r;
    enum nfs_status status;

    take_place(call, &from);
    take_place(call, &to);
    if (call->args.bad)
        return ONC_GARBAGE_ARGS;
    rpc_reply_init(&r);
    status = nfs_admit(call, &from.dir, true, &who);
    if (status == NFS3_OK)
        status = same_share(&from.dir, &to.dir);
    if (status == NFS3_OK)
        status = from.name.status != NFS3_OK ? from.name.status : to.name.status;
    if (status == NFS3_OK)
        status = link_status(rename_name(call, &from, &to, &who, &r));
    nfs_put_status(call, status);
    m = status == NFS3_OK ? (const Zbs__Meta__InodeRenameReply *)r.msg : NULL;
    nfs_put_inode_wcc(call, m != NULL ? m->from_dir : NULL);
    nfs_put_inode_wcc(call, m != NULL ? m->to_dir : NULL);
    rpc_reply_free(&r);
    return ONC_SUCCESS;
}

/* ---- LINK ---- */

static co_fn int link_name(struct onc_call *call, const struct nfs_handle *inode, struct place *p,
                           const struct nfs_cred *who, struct rpc_reply *r)
{
    Zbs__Meta__InodeLinkRequest rq = ZBS__META__INODE_LINK_REQUEST__INIT;

    rq.inode_id = inode->fh.inode_id;
    rq.dir_id = p->dir.fh.inode_id;
    rq.name = p->name.text;
    return nfs_meta_change(call, who, META_INODE_LINK, &rq, r);
}

co_fn enum onc_accept nfs_link(struct onc_call *call)
{
    const Zbs__Meta__InodeLinkReply *m;
    struct nfs_handle inode;
    struct place p;
    struct nfs_cred who;
    struct rpc_reply r;
    enum nfs_status status;

    nfs_take_handle(call, &inode);
    take_place(call, &p);
    if (call->args.bad)
        return ONC_GARBAGE_ARGS;
    rpc_reply_init(&r);
    status = nfs_admit(call, &inode, true, &who);
    if (status == NFS3_OK)
        status = same_share(&inode, &p.dir);
    if (status == NFS3_OK)
        status = p.name.status;
    if (status == NFS3_OK)
        status = link_status(link_name(call, &inode, &p, &who, &r));
    nfs_put_status(call, status);
    m = status == NFS3_OK ? (const Zbs__Meta__InodeLinkReply *)r.msg : NULL;
    nfs_put_inode_attr(call, m != NULL ? m->inode : NULL);
    nfs_put_inode_wcc(call, m != NULL ? m->dir : NULL);
    rpc_reply_free(&r);
    return ONC_SUCCESS;
}
