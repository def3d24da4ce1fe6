/* SPDX-License-Identifier: Apache-2.0
 *
 * Procedures about a share as a file system: FSSTAT, FSINFO, PATHCONF. */
#include "access/nfs/nfs_int.h"

#define DIR_BYTES_PREFERRED 65536u
#define IO_MULTIPLE         4096u
#define INODES_MAX          UINT32_MAX /* stands for "as many as you like" */

/* Takes a handle and gets its inode; puts the status and the inode's attributes. NULL: it failed.
 */
static co_fn const Zbs__Meta__Inode *begin(struct onc_call *call, const struct nfs_handle *h,
                                           struct rpc_reply *r)
{
    const Zbs__Meta__Inode *inode = NULL;
    struct nfs_cred who;
    enum nfs_status status = nfs_admit(call, h, false, &who);

    rpc_reply_init(r);
    if (status == NFS3_OK)
        status = nfs_status_of(nfs_inode_get(nfs_server_of(call), &h->fh, r, &inode));
    nfs_put_status(call, status);
    nfs_put_inode_attr(call, inode);
    return inode;
}

/* ---- FSSTAT ---- */

struct space {
    uint64_t total, available, inodes;
};

static co_fn int replicas_of(struct nfs_server *s, char *pool, uint32_t *ret)
{
    Zbs__Meta__PoolListRequest rq = ZBS__META__POOL_LIST_REQUEST__INIT;
    const Zbs__Meta__PoolListReply *m;
    struct rpc_reply r;
    int rc;

    rq.name = pool;
    rc = nfs_meta_call(s, META_POOL_LIST, &rq.base, &r);
    m = rc == 0 ? (const Zbs__Meta__PoolListReply *)r.msg : NULL;
    if (m != NULL && m->n_pools == 0)
        rc = err_set(ERR_NOTFOUND, "pool %s", pool);
    else if (m != NULL)
        *ret = MAX(m->pools[0]->replicas, 1u);
    rpc_reply_free(&r);
    return rc;
}

/* What the cluster's disks have room for, each byte as often as the share's pool keeps it. */
static co_fn int space_of(struct nfs_server *s, uint64_t share_id, struct space *ret)
{
    Zbs__Meta__ClusterStatusRequest rq = ZBS__META__CLUSTER_STATUS_REQUEST__INIT;
    const struct nfs_share *share = nfs_share_by_id(s, share_id);
    const Zbs__Meta__ClusterStatusReply *m;
    uint32_t replicas = 1;
    struct rpc_reply r;
    char *pool;
    int rc;

    if (share == NULL)
        return err_set(ERR_STALE, "the share was deleted");
    pool = mem_strdup(share->pool);
    rc = replicas_of(s, pool, &replicas);
    mem_free(pool);
    if (rc < 0)
        return rc;
    rc = nfs_meta_call(s, META_CLUSTER_STATUS, &rq.base, &r);
    if (rc == 0) {
        m = (const Zbs__Meta__ClusterStatusReply *)r.msg;
        ret->total = m->size_bytes / replicas;
        ret->available = (m->size_bytes - MIN(m->used_bytes, m->size_bytes)) / replicas;
    }
    rpc_reply_free(&r);
    return rc;
}

co_fn enum onc_accept nfs_fsstat(struct onc_call *call)
{
    struct space space = {0};
    struct nfs_handle h;
    struct nfs_cred who;
    enum nfs_status status;

    nfs_take_handle(call, &h);
    if (call->args.bad)
        return ONC_GARBAGE_ARGS;
    status = nfs_admit(call, &h, false, &who);
    if (status == NFS3_OK)
        status = nfs_status_of(space_of(nfs_server_of(call), h.fh.share_id, &space));
    nfs_put_status(call, status);
    nfs_put_post_attr(&call->out, NULL);
    if (status != NFS3_OK)
        return ONC_SUCCESS;
    xdr_put_u64(&call->out, space.total);
    xdr_put_u64(&call->out, space.available);
    xdr_put_u64(&call->out, space.available);
    for (int i = 0; i < 3; i++) /* all, free, and free for this user */
        xdr_put_u64(&call->out, INODES_MAX);
    xdr_put_u32(&call->out, 0); /* seconds for which this will not change */
    return ONC_SUCCESS;
}

/* ---- FSINFO ---- */

co_fn enum onc_accept nfs_fsinfo(struct onc_call *call)
{
    struct nfs_handle h;
    struct rpc_reply r;

    nfs_take_handle(call, &h);
    if (call->args.bad)
        return ONC_GARBAGE_ARGS;
    if (begin(call, &h, &r) != NULL) {
        for (int i = 0; i < 2; i++) { /* reading, writing */
            xdr_put_u32(&call->out, IO_BYTES_MAX);
            xdr_put_u32(&call->out, IO_BYTES_MAX); /* preferred */
            xdr_put_u32(&call->out, IO_MULTIPLE);
        }
        xdr_put_u32(&call->out, DIR_BYTES_PREFERRED);
        xdr_put_u64(&call->out, FILE_BYTES_MAX);
        nfs_put_time(&call->out, 1); /* granularity of times */
        xdr_put_u32(&call->out, FSF3_LINK | FSF3_SYMLINK | FSF3_HOMOGENEOUS | FSF3_CANSETTIME);
    }
    rpc_reply_free(&r);
    return ONC_SUCCESS;
}

/* ---- PATHCONF ---- */

co_fn enum onc_accept nfs_pathconf(struct onc_call *call)
{
    struct nfs_handle h;
    struct rpc_reply r;

    nfs_take_handle(call, &h);
    if (call->args.bad)
        return ONC_GARBAGE_ARGS;
    if (begin(call, &h, &r) != NULL) {
        xdr_put_u32(&call->out, FILE_LINKS_MAX);
        xdr_put_u32(&call->out, FILE_NAME_MAX);
        xdr_put_bool(&call->out, true);  /* longer names are refused, not cut */
        xdr_put_bool(&call->out, true);  /* only root gives files away */
        xdr_put_bool(&call->out, false); /* names that differ in case are different */
        xdr_put_bool(&call->out, true);  /* and keep it */
    }
    rpc_reply_free(&r);
    return ONC_SUCCESS;
}
