/* SPDX-License-Identifier: Apache-2.0
 *
 * Not there yet: files can be named, not read or written. */
#include "access/nfs/file.h"
#include "common/base/mem.h"

struct nfs_files {
    struct nfs_backend backend;
};

struct nfs_files *nfs_files_new(const struct nfs_backend *backend)
{
    struct nfs_files *f = MEM_NEW(struct nfs_files);

    f->backend = *backend;
    return f;
}

co_fn void nfs_files_free(struct nfs_files *f)
{
    mem_free(f);
}

co_fn int nfs_file_read(struct nfs_files *f, uint64_t inode_id, const struct nfs_cred *who,
                        uint64_t off, uint32_t len, struct nfs_read *ret)
{
    (void)f, (void)inode_id, (void)who, (void)off, (void)len, (void)ret;
    return err_set(ERR_UNSUPPORTED, "files can't be read yet");
}

co_fn int nfs_file_write(struct nfs_files *f, uint64_t inode_id, const struct nfs_cred *who,
                         uint64_t off, struct buf *src, uint32_t src_off, uint32_t len, bool stable,
                         struct nfs_wcc *wcc)
{
    (void)f, (void)inode_id, (void)who, (void)off, (void)src, (void)src_off, (void)len;
    (void)stable, (void)wcc;
    return err_set(ERR_UNSUPPORTED, "files can't be written yet");
}

co_fn int nfs_file_commit(struct nfs_files *f, uint64_t inode_id, struct nfs_wcc *wcc)
{
    (void)f, (void)inode_id, (void)wcc;
    return err_set(ERR_UNSUPPORTED, "files can't be written yet");
}

co_fn int nfs_file_settle(struct nfs_files *f, uint64_t inode_id)
{
    (void)f, (void)inode_id;
    return 0;
}

void nfs_files_learn(struct nfs_files *f, const Zbs__Meta__Inode *inode)
{
    (void)f, (void)inode;
}

void nfs_files_amend(struct nfs_files *f, struct nfs_attr *attr)
{
    (void)f, (void)attr;
}

void nfs_files_volume_changed(struct nfs_files *f, uint64_t volume_id)
{
    (void)f, (void)volume_id;
}
