/* SPDX-License-Identifier: Apache-2.0
 *
 * Bytes of a file in its volume, and how a file comes to have one. */
#include <string.h>
#include "access/nfs/file_int.h"

/* ---- bytes ---- */

/* Asked before each write: a request that was stopped for long may have been sent again elsewhere,
 * and overwritten since. */
static co_fn int may_write(struct block_backend *b)
{
    return b->ops->confirm != NULL ? b->ops->confirm(b) : 0;
}

static co_fn int put_sectors(struct block_backend *b, uint64_t off, uint32_t len, struct buf *src,
                             uint32_t src_off)
{
    int rc = may_write(b);

    return rc < 0 ? rc : b->ops->write(b, off, len, src, src_off);
}

/* Bytes within one page that are not whole sectors: what is around them stays as others have
 * written it, also at this moment and through another access server. */
static co_fn int put_part(struct block_backend *b, uint64_t off, uint32_t len, struct buf *src,
                          uint32_t src_off)
{
    uint64_t from = ROUND_DOWN(off, BLOCK_SECTOR_BYTES);
    uint32_t n = (uint32_t)(ROUND_UP(off + len, BLOCK_SECTOR_BYTES) - from), differs;
    struct buf *have = buf_alloc(n), *want = buf_alloc(n);
    int rc;

    do {
        rc = b->ops->read(b, from, n, have, 0);
        if (rc == 0)
            rc = may_write(b);
        if (rc < 0)
            break;
        memcpy(want->data, have->data, n);
        memcpy(want->data + (off - from), src->data + src_off, len);
        rc = b->ops->compare_and_write(b, from, n, have, 0, want, 0, &differs);
    } while (rc == ERR_MISCOMPARE);
    buf_put(have);
    buf_put(want);
    return rc;
}

/* The next piece of [off, off + len): whole sectors, or what has to be put into a page. */
static uint32_t piece(uint64_t off, uint32_t len, bool *ret_part)
{
    uint64_t end = off + len, page = ROUND_DOWN(off, PAGE_BYTES) + PAGE_BYTES;
    uint64_t last = ROUND_DOWN(end, PAGE_BYTES);

    *ret_part = off % BLOCK_SECTOR_BYTES != 0 || (end % BLOCK_SECTOR_BYTES != 0 && end < page);
    if (*ret_part)
        return (uint32_t)(MIN(end, page) - off);
    return end % BLOCK_SECTOR_BYTES != 0 ? (uint32_t)(last - off) : len;
}

co_fn int file_put_bytes(struct block_backend *b, uint64_t off, uint32_t len, struct buf *src,
                         uint32_t src_off)
{
    int rc = 0;

    while (len > 0 && rc == 0) {
        bool part;
        uint32_t n = piece(off, len, &part);

        rc = part ? put_part(b, off, n, src, src_off) : put_sectors(b, off, n, src, src_off);
        /* Perhaps it was done. The client waits, so it may be done once more. */
        if (rc == ERR_AMBIGUOUS) {
            rc = co_sleep(FILE_PAUSE);
            continue;
        }
        off += n;
        src_off += n;
        len -= n;
    }
    return rc;
}

/* ---- out of the inode ---- */

/* The inode's bytes into the candidate, which nobody else writes to. */
static co_fn int fill_candidate(struct file *f, uint64_t volume_id, const uint8_t *data,
                                uint32_t len)
{
    struct nfs_backend *m = &f->files->backend;
    struct block_backend *b;
    struct buf *buf;
    int rc;

    if (len == 0)
        return 0;
    buf = buf_alloc(FILE_INLINE_BYTES);
    memset(buf->data, 0, FILE_INLINE_BYTES);
    memcpy(buf->data, data, len);
    rc = m->open(m->arg, volume_id, &b);
    if (rc == 0) {
        rc = file_put_bytes(b, 0, ROUND_UP(len, BLOCK_SECTOR_BYTES), buf, 0);
        b->ops->close(b);
    }
    buf_put(buf);
    return rc;
}

/* ERR_MISCOMPARE: somebody was faster. */
static co_fn int move_once(struct file *f, uint64_t bytes)
{
    uint8_t data[FILE_INLINE_BYTES];
    uint64_t candidate, change;
    uint32_t len;
    int rc = file_ask_candidate(f, MAX(bytes, f->attr.size));

    if (rc < 0 || f->volume_id != 0)
        return rc;
    candidate = f->candidate;
    change = f->attr.change;
    len = f->data_len;
    ASSERT(len <= sizeof(data));
    if (len > 0)
        memcpy(data, f->data, len);
    rc = fill_candidate(f, candidate, data, len);
    return rc < 0 ? rc : file_ask_attach(f, candidate, change);
}

co_fn int file_move_out(struct file *f, uint64_t bytes)
{
    int rc = co_mutex_lock(&f->changing);

    if (rc < 0)
        return rc;
    while (rc == 0 && f->volume_id == 0) {
        int moved = move_once(f, bytes);

        if (moved == 0)
            continue;
        /* Faster ones may have attached theirs, so that ours is gone. */
        rc = file_get(f);
        if (rc == 0 && f->volume_id == 0)
            rc = moved == ERR_MISCOMPARE || moved == ERR_NOTFOUND ? co_sleep(FILE_PAUSE) : moved;
    }
    co_mutex_unlock(&f->changing);
    return rc;
}

co_fn int file_grow(struct file *f, uint64_t bytes)
{
    int rc = co_mutex_lock(&f->changing);

    if (rc < 0)
        return rc;
    if (f->volume_bytes < bytes)
        rc = file_ask_grow(f, bytes);
    co_mutex_unlock(&f->changing);
    return rc;
}
