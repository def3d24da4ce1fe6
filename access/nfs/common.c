/* SPDX-License-Identifier: Apache-2.0
 *
 * What procedures have in common: handles and names in, attributes and errors out, who asks, and
 * what makes a call repeatable. */
#include <openssl/evp.h>
#include "access/nfs/nfs_int.h"
#include "common/base/bytes.h"

/* ---- meta ---- */

co_fn int nfs_meta_call(struct nfs_server *s, enum meta_method method, const ProtobufCMessage *rq,
                        struct rpc_reply *r)
{
    rpc_reply_init(r);
    return s->conf.backend.call(s->conf.backend.arg, method, rq, r);
}

/* A client that repeats a call sends the same bytes from the same address, perhaps over another
 * connection and to another access server. Numbers of calls (xid) come around, so what is asked
 * and by whom count, too. Calls without bulk data only. */
void nfs_call_mutation(const struct onc_call *call, Zbs__Meta__Mutation *ret)
{
    const struct addr *peer = onc_call_peer_addr(call);
    uint8_t head[16], digest[EVP_MAX_MD_SIZE];
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool good;

    put_be32(head, call->xid);
    put_be32(head + 4, call->procedure);
    put_be32(head + 8, call->cred.uid);
    put_be32(head + 12, peer->kind);
    good = ctx != NULL && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1 &&
           EVP_DigestUpdate(ctx, "nfs", 3) == 1 &&
           EVP_DigestUpdate(ctx, peer->ip, sizeof(peer->ip)) == 1 &&
           EVP_DigestUpdate(ctx, head, sizeof(head)) == 1 &&
           EVP_DigestUpdate(ctx, call->args_start, call->args_len) == 1 &&
           EVP_DigestFinal_ex(ctx, digest, NULL) == 1;
    EVP_MD_CTX_free(ctx);
    ASSERT(good);
    zbs__meta__mutation__init(ret);
    ret->client = get_be64(digest);
    ret->number = get_be64(digest + 8);
}

enum nfs_status nfs_status_of(int rc)
{
    switch (rc) {
    case 0:
        return NFS3_OK;
    case ERR_PERM:
        return NFS3ERR_PERM;
    case ERR_NOTFOUND:
        return NFS3ERR_NOENT;
    case ERR_ACCESS:
        return NFS3ERR_ACCES;
    case ERR_EXISTS:
        return NFS3ERR_EXIST;
    case ERR_NOT_DIR:
        return NFS3ERR_NOTDIR;
    case ERR_IS_DIR:
        return NFS3ERR_ISDIR;
    case ERR_INVAL:
        return NFS3ERR_INVAL;
    case ERR_TOO_LARGE:
        return NFS3ERR_FBIG;
    case ERR_NOSPACE:
        return NFS3ERR_NOSPC;
    case ERR_NAME_TOO_LONG:
        return NFS3ERR_NAMETOOLONG;
    case ERR_NOT_EMPTY:
        return NFS3ERR_NOTEMPTY;
    case ERR_STALE:
        return NFS3ERR_STALE;
    case ERR_MISCOMPARE:
        return NFS3ERR_NOT_SYNC;
    case ERR_UNSUPPORTED:
        return NFS3ERR_NOTSUPP;
    case ERR_IO:
    case ERR_CORRUPT:
    case ERR_NO_REPLICA:
        return NFS3ERR_IO;
    default: /* the cluster can't now: the client asks again after a while */
        return NFS3ERR_JUKEBOX;
    }
}

/* ---- arguments ---- */

/* Of this cluster? Most calls are about few files: their handles are not hashed each time. */
static bool unpack_handle(struct nfs_server *s, const uint8_t *data, struct nfs_fh *ret)
{
    struct nfs_known_handle *known = &s->handles[data[NFS_FH_BYTES - 1] % NFS_HANDLES_KNOWN];

    if (known->there && memcmp(known->bytes, data, NFS_FH_BYTES) == 0) {
        nfs_fh_read(data, ret);
        return true;
    }
    if (!nfs_fh_unpack(s->cluster_id, data, NFS_FH_BYTES, ret))
        return false;
    known->there = true;
    memcpy(known->bytes, data, NFS_FH_BYTES);
    return true;
}

void nfs_take_handle(struct onc_call *call, struct nfs_handle *ret)
{
    uint32_t len;
    const uint8_t *data = xdr_opaque(&call->args, NFS_FH_BYTES_MAX, &len);

    if (data == NULL || len != NFS_FH_BYTES)
        ret->status = NFS3ERR_BADHANDLE;
    else if (!unpack_handle(nfs_server_of(call), data, &ret->fh))
        ret->status = NFS3ERR_STALE; /* of another cluster, perhaps: the client has to mount anew */
    else
        ret->status = NFS3_OK;
}

void nfs_take_name(struct onc_call *call, struct nfs_name *ret)
{
    uint32_t len;
    const uint8_t *data = xdr_opaque(&call->args, ONC_RECORD_BYTES, &len);

    ret->status = NFS3ERR_INVAL;
    if (data == NULL || memchr(data, '\0', len) != NULL)
        return;
    if (len > FILE_NAME_MAX) {
        ret->status = NFS3ERR_NAMETOOLONG;
        return;
    }
    memcpy(ret->text, data, len);
    ret->text[len] = '\0';
    ret->status = NFS3_OK;
}

/* ---- who asks ---- */

static uint32_t squash_gid(uint32_t gid, uint32_t anonymous)
{
    return gid == 0 ? anonymous : gid;
}

static void squash(const struct onc_cred *cred, const struct nfs_share *share,
                   Zbs__Meta__ShareClient__Squash how, struct nfs_cred *ret)
{
    *ret = (struct nfs_cred){.uid = share->anonymous_uid, .gid = share->anonymous_gid};
    if (cred->flavor == ONC_AUTH_NONE || how == ZBS__META__SHARE_CLIENT__SQUASH__ALL)
        return;
    ret->uid = cred->uid;
    ret->gid = cred->gid;
    ret->gid_count = cred->gid_count;
    memcpy(ret->gids, cred->gids, sizeof(ret->gids));
    if (how == ZBS__META__SHARE_CLIENT__SQUASH__NONE)
        return;
    if (cred->uid == 0)
        ret->uid = share->anonymous_uid;
    ret->gid = squash_gid(cred->gid, share->anonymous_gid);
    for (uint32_t i = 0; i < ret->gid_count; i++)
        ret->gids[i] = squash_gid(ret->gids[i], share->anonymous_gid);
}

co_fn enum nfs_status nfs_admit(struct onc_call *call, const struct nfs_handle *h, bool change,
                                struct nfs_cred *ret)
{
    struct nfs_server *s = nfs_server_of(call);
    const struct nfs_share *share;
    const struct nfs_permit *permit;
    int rc;

    if (h->status != NFS3_OK)
        return h->status;
    rc = nfs_shares_refresh(s);
    if (rc == 0 && nfs_share_by_id(s, h->fh.share_id) == NULL)
        rc = nfs_shares_reread(s); /* mounted elsewhere since we read it */
    if (rc < 0)
        return nfs_status_of(rc);
    share = nfs_share_by_id(s, h->fh.share_id);
    if (share == NULL)
        return NFS3ERR_STALE;
    permit = nfs_share_permit(share, onc_call_peer_addr(call));
    if (permit == NULL)
        return NFS3ERR_ACCES;
    if (change && permit->read_only)
        return NFS3ERR_ROFS;
    squash(&call->cred, share, permit->squash, ret);
    return NFS3_OK;
}

void nfs_cred_message(const struct nfs_cred *who, Zbs__Meta__Credentials *ret)
{
    zbs__meta__credentials__init(ret);
    ret->uid = who->uid;
    ret->gid = who->gid;
    ret->gids = (uint32_t *)(uintptr_t)who->gids;
    ret->n_gids = who->gid_count;
}

/* ---- inodes ---- */

co_fn int nfs_inode_get(struct nfs_server *s, const struct nfs_fh *fh, struct rpc_reply *r,
                        const Zbs__Meta__Inode **ret)
{
    Zbs__Meta__InodeGetRequest rq = ZBS__META__INODE_GET_REQUEST__INIT;
    int rc;

    rq.inode_id = fh->inode_id;
    rc = nfs_meta_call(s, META_INODE_GET, &rq.base, r);
    if (rc == 0)
        *ret = (const Zbs__Meta__Inode *)r->msg;
    return rc;
}

void nfs_attr_of(struct nfs_server *s, const Zbs__Meta__Inode *inode, struct nfs_attr *ret)
{
    nfs_files_learn(s->files, inode);
    nfs_attr_from_inode(ret, inode);
    nfs_files_amend(s->files, ret);
}

/* ---- results ---- */

void nfs_put_status(struct onc_call *call, enum nfs_status status)
{
    xdr_put_u32(&call->out, status);
}

void nfs_put_inode_attr(struct onc_call *call, const Zbs__Meta__Inode *inode)
{
    struct nfs_attr attr;

    if (inode != NULL)
        nfs_attr_of(nfs_server_of(call), inode, &attr);
    nfs_put_post_attr(&call->out, inode != NULL ? &attr : NULL);
}

void nfs_put_inode_wcc(struct onc_call *call, const Zbs__Meta__InodeWcc *m)
{
    struct nfs_wcc wcc;

    nfs_wcc_from_message(&wcc, m);
    if (wcc.after_known)
        nfs_attr_of(nfs_server_of(call), m->after, &wcc.after);
    nfs_put_wcc(&call->out, &wcc);
}

void nfs_put_handle(struct onc_call *call, uint64_t share_id, uint64_t inode_id)
{
    struct nfs_fh fh = {.share_id = share_id, .inode_id = inode_id};
    uint8_t bytes[NFS_FH_BYTES];

    nfs_fh_pack(nfs_server_of(call)->cluster_id, &fh, bytes);
    xdr_put_opaque(&call->out, bytes, sizeof(bytes));
}
