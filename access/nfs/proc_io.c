/* SPDX-License-Identifier: Apache-2.0
 *
 * Procedures about a file's bytes: READ, WRITE, COMMIT. */
#include "access/nfs/nfs_int.h"

/* ---- READ ---- */

co_fn enum onc_accept nfs_read(struct onc_call *call)
{
    struct nfs_server *s = nfs_server_of(call);
    struct nfs_read data = {0};
    struct nfs_handle h;
    struct nfs_cred who;
    uint64_t off;
    uint32_t count;
    enum nfs_status status;
    int rc;

    nfs_take_handle(call, &h);
    off = xdr_u64(&call->args);
    count = xdr_u32(&call->args);
    if (call->args.bad)
        return ONC_GARBAGE_ARGS;
    count = MIN(count, IO_BYTES_MAX);
    status = nfs_admit(call, &h, false, &who);
    if (status == NFS3_OK) {
        count = MIN(count, IO_BYTES_MAX);
        rc = onc_call_reserve(call, count);
        if (rc == 0)
            rc = nfs_file_read(s->files, h.fh.inode_id, &who, off, count, &data);
        status = nfs_status_of(rc);
    }
    nfs_put_status(call, status);
    nfs_put_post_attr(&call->out, status == NFS3_OK ? &data.attr : NULL);
    if (status == NFS3_OK) {
        xdr_put_u32(&call->out, data.len);
        xdr_put_bool(&call->out, data.eof);
        xdr_put_u32(&call->out, data.len);
        call->tail = data.data;
        call->tail_off = data.off;
        call->tail_len = data.len;
    }
    return ONC_SUCCESS;
}

/* ---- WRITE ---- */

struct write_args {
    struct nfs_handle h;
    uint64_t off;
    uint32_t count, stable;
};

void nfs_write_head(struct xdr_in *args)
{
    uint32_t len;

    (void)xdr_opaque(args, NFS_FH_BYTES_MAX, &len);
    (void)xdr_u64(args); /* offset */
    (void)xdr_u32(args); /* count */
    (void)xdr_u32(args); /* stable */
}

static void put_verifier(struct onc_call *call)
{
    xdr_put_fixed(&call->out, nfs_server_of(call)->verifier, NFS3_VERIFIER_BYTES);
}

/* What is answered is durable; UNSTABLE is answered as such, because only a COMMIT makes the
 * modification time so. */
co_fn enum onc_accept nfs_write(struct onc_call *call)
{
    struct nfs_server *s = nfs_server_of(call);
    struct nfs_wcc wcc = {0};
    struct write_args a;
    struct nfs_cred who;
    enum nfs_status status;

    nfs_take_handle(call, &a.h);
    a.off = xdr_u64(&call->args);
    a.count = xdr_u32(&call->args);
    a.stable = xdr_u32(&call->args);
    if (call->args.bad || a.stable > FILE_SYNC)
        return ONC_GARBAGE_ARGS;
    status = nfs_admit(call, &a.h, true, &who);
    if (status == NFS3_OK && a.count > call->bulk_len)
        status = NFS3ERR_INVAL;
    if (status == NFS3_OK)
        status = nfs_status_of(nfs_file_write(s->files, a.h.fh.inode_id, &who, a.off, call->bulk, 0,
                                              a.count, a.stable != UNSTABLE, &wcc));
    nfs_put_status(call, status);
    nfs_put_wcc(&call->out, &wcc);
    if (status == NFS3_OK) {
        xdr_put_u32(&call->out, a.count);
        xdr_put_u32(&call->out, a.stable);
        put_verifier(call);
    }
    return ONC_SUCCESS;
}

/* ---- COMMIT ---- */

co_fn enum onc_accept nfs_commit(struct onc_call *call)
{
    struct nfs_wcc wcc = {0};
    struct nfs_handle h;
    struct nfs_cred who;
    enum nfs_status status;

    nfs_take_handle(call, &h);
    (void)xdr_u64(&call->args); /* offset and count: everything is durable already */
    (void)xdr_u32(&call->args);
    if (call->args.bad)
        return ONC_GARBAGE_ARGS;
    status = nfs_admit(call, &h, true, &who);
    if (status == NFS3_OK)
        status = nfs_status_of(nfs_file_commit(nfs_server_of(call)->files, h.fh.inode_id, &wcc));
    nfs_put_status(call, status);
    nfs_put_wcc(&call->out, &wcc);
    if (status == NFS3_OK)
        put_verifier(call);
    return ONC_SUCCESS;
}
