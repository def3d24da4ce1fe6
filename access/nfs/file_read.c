/* SPDX-License-Identifier: Apache-2.0
 *
 * READ. */
#include <string.h>
#include "access/nfs/file_int.h"
#include "common/cluster/permission.h"

/* Bytes of the inode; behind them there are zeroes. */
static void read_inode(struct file *f, uint64_t off, struct nfs_read *r)
{
    uint32_t there = off < f->data_len ? MIN(f->data_len - (uint32_t)off, r->len) : 0;

    r->data = buf_alloc(r->len);
    if (there > 0)
        memcpy(r->data->data, f->data + off, there);
    memset(r->data->data + there, 0, r->len - there);
}

/* Whole sectors around what is wanted. The volume may be smaller than the file. */
static co_fn int read_volume(struct file *f, uint64_t off, struct nfs_read *r)
{
    uint64_t from = ROUND_DOWN(off, BLOCK_SECTOR_BYTES);
    uint64_t to = ROUND_UP(off + r->len, BLOCK_SECTOR_BYTES);
    uint64_t end = MAX(MIN(to, f->volume_bytes), from);
    struct block_backend *b;
    int rc = file_volume(f, &b);

    if (rc < 0)
        return file_missing(f, rc);
    r->data = buf_alloc(to - from);
    r->off = (uint32_t)(off - from);
    if (end > from)
        rc = b->ops->read(b, from, (uint32_t)(end - from), r->data, 0);
    memset(r->data->data + (end - from), 0, to - end);
    return rc < 0 ? file_missing(f, rc) : 0;
}

/* Could an old copy show what is not so any more? Bytes in the inode, an end, zeroes where there
 * was no volume yet: another access server may have written since. */
static bool may_be_old(const struct file *f, uint64_t off, uint32_t len)
{
    uint64_t known = MIN(f->attr.size, f->volume_bytes);

    return f->volume_id == 0 || off >= known || len >= known - off;
}

static co_fn int read_file(struct file *f, const struct nfs_cred *who, uint64_t off, uint32_t len,
                           struct nfs_read *r)
{
    nsec_t began = co_now();
    int rc = file_fresh(f);

    if (rc == 0)
        rc = file_permit(f, who, PERMISSION_READ);
    if (rc == 0 && f->told < began && may_be_old(f, off, len))
        rc = file_confirm(f, 0, 0);
    if (rc < 0)
        return rc;
    r->len = off < f->attr.size ? (uint32_t)MIN(len, f->attr.size - off) : 0;
    r->eof = off + r->len >= f->attr.size;
    if (r->len == 0)
        return 0;
    if (f->volume_id != 0)
        return read_volume(f, off, r);
    read_inode(f, off, r);
    return 0;
}

co_fn int nfs_file_read(struct nfs_files *files, uint64_t inode_id, const struct nfs_cred *who,
                        uint64_t off, uint32_t len, struct nfs_read *ret)
{
    nsec_t former = co_deadline_push(co_now() + FILE_CALL_TIME);
    struct file *f = file_use(files, inode_id);
    int rc;

    *ret = (struct nfs_read){0};
    rc = read_file(f, who, off, MIN(len, IO_BYTES_MAX), ret);
    if (rc < 0) {
        buf_put(ret->data);
        ret->data = NULL;
        ret->len = 0;
    }
    file_attr(f, &ret->attr);
    co_deadline_restore(former);
    file_put(f);
    return rc;
}
