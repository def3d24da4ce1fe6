/* SPDX-License-Identifier: Apache-2.0
 *
 * File handles: 32 bytes that name an inode of a share, the same on every access server and for as
 * long as the inode lives.
 *
 *      0  version, 1
 *      4  share
 *      8  inode
 *     16  16 bytes of SHA-256 over the cluster's id and the bytes before
 *
 * Inodes have no generations, because their numbers are not used again. The hash refuses handles of
 * other clusters, and a client that has none of a share can't make one without the cluster's id:
 * otherwise it could name another share's inode behind a share that it may use. */
#ifndef ZBS_ACCESS_NFS_FH_H
#define ZBS_ACCESS_NFS_FH_H

#include <stdbool.h>
#include "common/base/attr.h"

#define NFS_FH_BYTES     32u
#define NFS_FH_BYTES_MAX 64u /* NFS3_FHSIZE */

struct nfs_fh {
    uint64_t share_id; /* 32 bits */
    uint64_t inode_id;
};

void nfs_fh_pack(const char *cluster_id, const struct nfs_fh *fh, uint8_t *dst);
/* False: it is none of this cluster's. */
bool nfs_fh_unpack(const char *cluster_id, const uint8_t *src, size_t len, struct nfs_fh *ret);
/* Of one that was found to be of this cluster. */
void nfs_fh_read(const uint8_t *src, struct nfs_fh *ret);

#endif
