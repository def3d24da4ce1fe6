/* SPDX-License-Identifier: Apache-2.0
 *
 * File handles: see fh.h. */
#include "access/nfs/fh.h"

#include <openssl/evp.h>
#include <string.h>
#include "common/base/assert.h"
#include "common/base/bytes.h"

#define VERSION    1u
#define SEAL_AT    16u /* and what it covers */
#define SEAL_BYTES 16u

static void seal(const char *cluster_id, const uint8_t *head, uint8_t *dst)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    uint8_t digest[EVP_MAX_MD_SIZE];
    bool good = ctx != NULL && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1 &&
                EVP_DigestUpdate(ctx, cluster_id, strlen(cluster_id) + 1) == 1 &&
                EVP_DigestUpdate(ctx, head, SEAL_AT) == 1 &&
                EVP_DigestFinal_ex(ctx, digest, NULL) == 1;

    EVP_MD_CTX_free(ctx);
    ASSERT(good);
    memcpy(dst, digest, SEAL_BYTES);
}

void nfs_fh_pack(const char *cluster_id, const struct nfs_fh *fh, uint8_t *dst)
{
    ASSERT(fh->share_id <= UINT32_MAX);
    put_be32(dst, VERSION);
    put_be32(dst + 4, (uint32_t)fh->share_id);
    put_be64(dst + 8, fh->inode_id);
    seal(cluster_id, dst, dst + SEAL_AT);
}

void nfs_fh_read(const uint8_t *src, struct nfs_fh *ret)
{
    ret->share_id = get_be32(src + 4);
    ret->inode_id = get_be64(src + 8);
}

bool nfs_fh_unpack(const char *cluster_id, const uint8_t *src, size_t len, struct nfs_fh *ret)
{
    uint8_t expected[SEAL_BYTES];

    if (len != NFS_FH_BYTES || get_be32(src) != VERSION)
        return false;
    seal(cluster_id, src, expected);
    nfs_fh_read(src, ret);
    return memcmp(expected, src + SEAL_AT, SEAL_BYTES) == 0;
}
