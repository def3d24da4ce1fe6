/* SPDX-License-Identifier: Apache-2.0
 *
 * What a truncation leaves behind the size is zeroed before the file grows over it. Meta gives this
 * to one session at a time: a second access server could otherwise zero what was written after the
 * first had finished. Each step begins only while our session certainly lives. */
#include <string.h>
#include "access/nfs/file_int.h"

#define ZERO_STEP ((uint64_t)1 << 30)

/* The rest of the sector in which the file ends. */
static co_fn int zero_cut_sector(struct block_backend *b, uint64_t from, uint64_t to)
{
    uint32_t len = (uint32_t)(to - from);
    struct buf *zeroes = buf_alloc(BLOCK_SECTOR_BYTES);
    int rc;

    memset(zeroes->data, 0, len);
    rc = file_put_bytes(b, from, len, zeroes, 0);
    buf_put(zeroes);
    return rc;
}

co_fn int file_session_lives(struct file *f, uint64_t session)
{
    struct nfs_backend *b = &f->files->backend;
    int rc = b->lease(b->arg);

    if (rc == 0 && b->session(b->arg) != session)
        rc = err_set(ERR_EXPIRED, "session %llu expired", (unsigned long long)session);
    return rc;
}

static co_fn int zero_range(struct file *f, uint64_t session, uint64_t from, uint64_t to)
{
    uint64_t at = ROUND_UP(from, BLOCK_SECTOR_BYTES), n;
    struct block_backend *b;
    int rc = file_volume(f, &b);

    to = ROUND_UP(to, BLOCK_SECTOR_BYTES); /* behind the size everything may be zeroed */
    if (rc == 0)
        rc = file_session_lives(f, session);
    if (rc == 0 && from < at && from < to)
        rc = zero_cut_sector(b, from, at);
    for (; at < to && rc == 0; at += n) {
        n = MIN(to - at, ZERO_STEP);
        rc = file_session_lives(f, session);
        if (rc == 0)
            rc = b->ops->zero(b, at, n);
    }
    return rc;
}

/* From the question on meta may have given it to us, so the background sees to it that it is done.
 */
static co_fn int zero_once(struct file *f)
{
    uint64_t session = f->files->backend.session(f->files->backend.arg), size;
    int rc;

    f->zero_owed = true;
    file_owe(f);
    rc = file_ask_zero(f, session);
    if (rc < 0 || !file_dirty(f))
        return rc;
    size = f->attr.size;
    rc = zero_range(f, session, size, MIN(f->dirty_end, f->volume_bytes));
    if (rc == 0 && f->attr.size == size)
        rc = file_tell_zeroed(f, session);
    return rc == ERR_MISCOMPARE ? file_get(f) : rc; /* truncated once more */
}

co_fn int file_zero(struct file *f)
{
    int rc = co_mutex_lock(&f->zeroing);

    if (rc < 0)
        return rc;
    rc = file_get(f);
    while (rc == 0 && file_dirty(f)) {
        rc = zero_once(f);
        if (rc == ERR_BUSY || rc == ERR_AMBIGUOUS) /* another's turn; or not known if it is done */
            rc = co_sleep(FILE_PAUSE);
        if (rc == 0 && file_dirty(f))
            rc = file_get(f);
    }
    if (rc == 0)
        f->zero_owed = false;
    co_mutex_unlock(&f->zeroing);
    return rc;
}

co_fn int nfs_file_settle(struct nfs_files *files, uint64_t inode_id)
{
    nsec_t former = co_deadline_push(co_now() + FILE_CALL_TIME);
    struct file *f = file_use(files, inode_id);
    int rc = file_zero(f);

    co_deadline_restore(former);
    file_put(f);
    return rc;
}
