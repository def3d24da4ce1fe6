/* SPDX-License-Identifier: Apache-2.0
 *
 * Attributes of inodes as NFS version 3 has them, between meta's messages and the wire. */
#ifndef ZBS_ACCESS_NFS_ATTR_H
#define ZBS_ACCESS_NFS_ATTR_H

#include "access/nfs/xdr.h"
#include "proto/namespace.pb-c.h"

#define NFS_GIDS_MAX 16u

/* Who asks, after squashing. */
struct nfs_cred {
    uint32_t uid, gid;
    uint32_t gids[NFS_GIDS_MAX];
    uint32_t gid_count;
};

struct nfs_attr {
    uint64_t inode_id, share_id;
    uint64_t size, used;
    uint64_t atime_ns, mtime_ns, ctime_ns;
    uint64_t rdev;   /* major << 32 | minor */
    uint64_t change; /* the newer copy of an inode has the greater one */
    uint32_t type;   /* Zbs__Meta__InodeType, as ftype3 */
    uint32_t mode, uid, gid, nlink;
};

/* Weak cache consistency: what a call that changed an inode found and left. */
struct nfs_wcc {
    bool before_known, after_known;
    uint64_t size, mtime_ns, ctime_ns; /* before */
    struct nfs_attr after;
};

void nfs_attr_from_inode(struct nfs_attr *ret, const Zbs__Meta__Inode *inode);
void nfs_wcc_from_message(struct nfs_wcc *ret, const Zbs__Meta__InodeWcc *m);

/* ---- the wire ---- */

void nfs_put_time(struct xdr_out *out, uint64_t ns);
void nfs_put_attr(struct xdr_out *out, const struct nfs_attr *a); /* fattr3 */
void nfs_put_post_attr(struct xdr_out *out,
                       const struct nfs_attr *a);               /* post_op_attr; NULL: none */
void nfs_put_wcc(struct xdr_out *out, const struct nfs_wcc *w); /* wcc_data; NULL: nothing */

/* sattr3: what a client wants to be set, decoded, and as a message whose parts lie in here. */
struct nfs_sattr {
    Zbs__Meta__InodeAttrs message;
    Zbs__Meta__InodeAttrs__U32 mode, uid, gid;
    Zbs__Meta__InodeAttrs__U64 size;
    Zbs__Meta__InodeAttrs__Time atime, mtime;
};
void nfs_take_sattr(struct xdr_in *in, struct nfs_sattr *ret);

#endif
