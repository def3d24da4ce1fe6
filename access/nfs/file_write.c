/* SPDX-License-Identifier: Apache-2.0
 *
 * WRITE and COMMIT. */
#include "access/nfs/file_int.h"
#include "common/cluster/permission.h"

/* ---- permission ---- */

int file_permit(const struct file *f, const struct nfs_cred *who, uint32_t wanted)
{
    const struct nfs_attr *a = &f->attr;
    struct permission_who w = {who->uid, who->gid, who->gids, who->gid_count};
    struct permission_of of = {a->mode, a->uid, a->gid,
                               a->type == ZBS__META__INODE_TYPE__INODE_DIR};

    if (a->type != ZBS__META__INODE_TYPE__INODE_REG)
        return err_set(ERR_INVAL, "inode %llu is not a file", (unsigned long long)a->inode_id);
    if ((permission_io_bits(&w, &of) & wanted) != wanted)
        return err_set(ERR_ACCESS, "uid %u may not do this with inode %llu", who->uid,
                       (unsigned long long)a->inode_id);
    return 0;
}

/* ---- one write ---- */

struct write {
    const struct nfs_cred *who;
    uint64_t off;
    struct buf *src;
    uint32_t src_off, len;
    bool stable;
    struct nfs_wcc *wcc;
};

enum { WRITE_DONE = 0, WRITE_AGAIN = 1 };

static void wcc_before(struct file *f, struct nfs_wcc *wcc)
{
    struct nfs_attr a;

    file_attr(f, &a);
    wcc->before_known = true;
    wcc->size = a.size;
    wcc->mtime_ns = a.mtime_ns;
    wcc->ctime_ns = a.ctime_ns;
}

/* A program whose bytes are changed must not run with its owner's rights. */
static co_fn int drop_rights(struct file *f, const struct write *w)
{
    if (w->who->uid == 0 || permission_lost_by_write(f->attr.mode) == 0)
        return 0;
    return file_tell_user(f);
}

/* Into the inode, unless it has changed since we knew it. */
static co_fn int write_inode(struct file *f, const struct write *w)
{
    int rc = co_mutex_lock(&f->changing);

    if (rc < 0)
        return rc;
    if (f->volume_id == 0) {
        wcc_before(f, w->wcc);
        rc = drop_rights(f, w);
        if (rc == 0)
            rc = file_tell_data(f, w->off, w->src->data + w->src_off, w->len);
    } else {
        rc = WRITE_AGAIN;
    }
    /* Another access server was faster: with a newer copy. */
    if (rc == ERR_MISCOMPARE || rc == ERR_TOO_LARGE || rc == ERR_BUSY) {
        rc = file_get(f);
        rc = rc < 0 ? rc : WRITE_AGAIN;
    }
    co_mutex_unlock(&f->changing);
    return rc;
}

static void mtime_later(struct file *f, bool stable)
{
    f->mtime_ns = MAX(f->mtime_ns, (uint64_t)env_wall_ns());
    f->mtime_due = co_now() + (stable ? 0 : FILE_MTIME_TIME);
    file_owe(f);
}

/* Into the volume; what became of the file meanwhile decides whether that counts, and whether there
 * are rights to be dropped. */
static co_fn int write_volume(struct file *f, const struct write *w)
{
    uint64_t end = w->off + w->len, cut = f->cut;
    bool extends = end > f->attr.size;
    struct block_backend *b;
    int rc = f->volume_bytes < end ? file_grow(f, end) : 0;

    if (rc == 0)
        rc = file_volume(f, &b);
    if (rc == 0)
        rc = file_put_bytes(b, w->off, w->len, w->src, w->src_off);
    if (rc == 0 && (extends || !file_leased(f)))
        rc = file_confirm(f, end, cut);
    if (rc == 0)
        rc = drop_rights(f, w);
    if (rc < 0)
        return file_missing(f, rc);
    if (f->cut != cut || f->attr.size < end)
        return WRITE_AGAIN;
    if (!extends)
        mtime_later(f, w->stable);
    return WRITE_DONE;
}

static co_fn int write_once(struct file *f, const struct write *w)
{
    uint64_t end = w->off + w->len;
    int rc = 0;

    if (file_dirty(f) && end > f->attr.size)
        rc = file_zero(f);
    if (rc == 0 && f->volume_id == 0 && end <= FILE_INLINE_BYTES)
        return write_inode(f, w);
    if (rc == 0 && f->volume_id == 0)
        rc = file_move_out(f, end);
    if (rc == 0)
        rc = drop_rights(f, w);
    return rc < 0 ? rc : write_volume(f, w);
}

static co_fn int write_file(struct file *f, const struct write *w)
{
    int rc = file_fresh(f);

    if (rc == 0)
        rc = file_permit(f, w->who, PERMISSION_WRITE);
    if (rc < 0 || w->len == 0)
        return rc;
    do
        rc = write_once(f, w);
    while (rc == WRITE_AGAIN);
    return rc;
}

static void wcc_after(struct file *f, struct nfs_wcc *wcc)
{
    wcc->after_known = f->known && !f->gone;
    if (wcc->after_known)
        file_attr(f, &wcc->after);
}

/* ---- what clients ask for ---- */

co_fn int nfs_file_write(struct nfs_files *files, uint64_t inode_id, const struct nfs_cred *who,
                         uint64_t off, struct buf *src, uint32_t src_off, uint32_t len, bool stable,
                         struct nfs_wcc *wcc)
{
    struct write w = {who, off, src, src_off, len, stable, wcc};
    nsec_t former = co_deadline_push(co_now() + FILE_CALL_TIME);
    struct file *f = file_use(files, inode_id);
    int rc;

    *wcc = (struct nfs_wcc){0};
    if (off > FILE_BYTES_MAX || len > FILE_BYTES_MAX - off)
        rc = err_set(ERR_TOO_LARGE, "a file has at most %llu bytes",
                     (unsigned long long)FILE_BYTES_MAX);
    else
        rc = write_file(f, &w);
    wcc_after(f, wcc);
    co_deadline_restore(former);
    file_put(f);
    return rc;
}

co_fn int nfs_file_commit(struct nfs_files *files, uint64_t inode_id, struct nfs_wcc *wcc)
{
    nsec_t former = co_deadline_push(co_now() + FILE_CALL_TIME);
    struct file *f = file_use(files, inode_id);
    int rc = file_fresh(f);

    f->mtime_due = co_now();
    *wcc = (struct nfs_wcc){0};
    wcc_after(f, wcc);
    co_deadline_restore(former);
    file_put(f);
    return rc;
}
