/* SPDX-License-Identifier: Apache-2.0
 *
 * Decisions about what files contain. The access servers write a file's bytes to its volume; here
 * is decided whose volume becomes the file's, and how far the file goes. */
#include <inttypes.h>
#include <string.h>
#include "common/base/err.h"
#include "common/base/mem.h"
#include "common/base/units.h"
#include "common/cluster/permission.h"
#include "meta/decide_tree.h"
#include "meta/view_tree.h"

int decide_file(const struct decide *d, uint64_t id, struct inode **ret)
{
    int rc = decide_inode(d, id, ret);

    if (rc < 0)
        return rc;
    if (inode_is_dir(*ret))
        return err_set(ERR_IS_DIR, "inode %" PRIu64 " is a directory", id);
    if ((*ret)->type != ZBS__META__INODE_TYPE__INODE_REG)
        return err_set(ERR_INVAL, "inode %" PRIu64 " is not a file", id);
    return 0;
}

/* All these requests begin with their mutation and the inode, and are answered with the inode as
 * it is. */
#define INODE_FIRST(type)                                                                          \
    _Static_assert(offsetof(Zbs__Meta__##type, inode_id) ==                                        \
                       offsetof(Zbs__Meta__FileWriteRequest, inode_id),                            \
                   "answer_file finds the inode")
INODE_FIRST(FileVolumeRequest);
INODE_FIRST(FileAttachRequest);
INODE_FIRST(FileGrowRequest);
INODE_FIRST(FileWrittenRequest);
INODE_FIRST(FileZeroedRequest);
INODE_FIRST(FileZeroRequest);

int answer_file(const struct decide *d, ProtobufCMessage *reply)
{
    const Zbs__Meta__FileWriteRequest *rq = (const void *)d->rq;
    struct inode *i;
    int rc = decide_file(d, rq->inode_id, &i);

    if (rc == 0)
        view_inode((Zbs__Meta__Inode *)reply, d->st, i);
    return rc;
}

int decide_file_write(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__FileWriteRequest *rq = (const void *)d->rq;
    Zbs__Metalog__FileData *m;
    struct inode *i;
    int rc = decide_file(d, rq->inode_id, &i);

    if (rc < 0)
        return rc;
    if (i->volume_id != 0 || rq->offset > FILE_INLINE_BYTES ||
        rq->data.len > FILE_INLINE_BYTES - rq->offset)
        return err_set(ERR_TOO_LARGE, "the bytes of inode %" PRIu64 " belong into a volume", i->id);
    if (rq->change != i->change)
        return err_set(ERR_MISCOMPARE, "inode %" PRIu64 " was changed since", i->id);
    *ret = NULL;
    if (rq->data.len == 0)
        return 0;
    *ret = record_new(d->pad, ZBS__METALOG__RECORD__KIND_FILE_DATA);
    (*ret)->file_data = m = PAD_NEW(d->pad, Zbs__Metalog__FileData);
    zbs__metalog__file_data__init(m);
    m->inode_id = i->id;
    m->offset = rq->offset;
    m->data = rq->data;
    m->time_ns = (uint64_t)d->w->wall_ns;
    return 0;
}

/* ---- volumes of files ---- */

/* So that a file that grows asks rarely: the next power of two, from 1 GiB on the next GiB. */
static uint64_t volume_bytes(uint64_t bytes)
{
    uint64_t size = VOLUME_BYTES_MIN;

    while (size < bytes && size < GIB)
        size *= 2;
    return MAX(size, ROUND_UP(bytes, GIB) * (bytes > GIB));
}

static int check_bytes(uint64_t bytes)
{
    if (bytes > FILE_BYTES_MAX)
        return err_set(ERR_TOO_LARGE, "a file has at most 64 TiB");
    return 0;
}

static int check_volume_room(const struct decide *d, const struct inode *i)
{
    const struct pool *pool = state_pool_by_id(d->st, i->share->pool_id);
    const char *name = pad_printf(d->pad, FILE_VOLUME_NAME, i->id);
    const struct volume *v = pool_volume(pool, name);

    if (v != NULL && v->id != i->candidate)
        return err_set(ERR_EXISTS, "volume '%s/%s' has the name that a file's volume needs",
                       pool->name, name);
    if (d->st->n_file_volumes >= FILE_VOLUMES_MAX)
        return err_set(ERR_NOSPACE, "the cluster has %u files with volumes, the most allowed",
                       FILE_VOLUMES_MAX);
    return i->candidate != 0 ? decide_exported(d, state_volume(d->st, i->candidate)) : 0;
}

/* A file that has a volume already needs none. */
int decide_file_volume(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__FileVolumeRequest *rq = (const void *)d->rq;
    Zbs__Metalog__FileVolume *m;
    struct inode *i;
    int rc = decide_file(d, rq->inode_id, &i);

    *ret = NULL;
    if (rc == 0)
        rc = check_bytes(rq->bytes);
    if (rc == 0 && i->volume_id == 0)
        rc = check_volume_room(d, i);
    if (rc < 0 || i->volume_id != 0)
        return rc;
    *ret = record_new(d->pad, ZBS__METALOG__RECORD__KIND_FILE_VOLUME);
    (*ret)->file_volume = m = PAD_NEW(d->pad, Zbs__Metalog__FileVolume);
    zbs__metalog__file_volume__init(m);
    m->inode_id = i->id;
    m->size_bytes = volume_bytes(rq->bytes);
    m->time_ns = (uint64_t)d->w->wall_ns;
    m->uuid = (ProtobufCBinaryData){.data = d->w->uuid, .len = sizeof(d->w->uuid)};
    m->former = i->candidate;
    return 0;
}

int decide_file_attach(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__FileAttachRequest *rq = (const void *)d->rq;
    struct inode *i;
    int rc = decide_file(d, rq->inode_id, &i);

    if (rc < 0)
        return rc;
    *ret = NULL;
    if (i->volume_id != 0 && i->volume_id == rq->volume_id)
        return 0;
    if (rq->volume_id == 0 || i->candidate != rq->volume_id || i->change != rq->change)
        return err_set(ERR_MISCOMPARE,
                       "inode %" PRIu64 " was changed since the volume was written, or has another",
                       i->id);
    *ret = record_new(d->pad, ZBS__METALOG__RECORD__KIND_FILE_ATTACH);
    (*ret)->file_attach = PAD_NEW(d->pad, Zbs__Metalog__FileAttach);
    zbs__metalog__file_attach__init((*ret)->file_attach);
    (*ret)->file_attach->inode_id = i->id;
    (*ret)->file_attach->volume_id = rq->volume_id;
    return 0;
}

int decide_file_grow(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__FileGrowRequest *rq = (const void *)d->rq;
    struct inode *i;
    int rc = decide_file(d, rq->inode_id, &i);

    if (rc == 0)
        rc = check_bytes(rq->bytes);
    if (rc != 0)
        return rc;
    if (i->volume_id == 0)
        return err_set(ERR_INVAL, "inode %" PRIu64 " has no volume", i->id);
    *ret = NULL;
    if (rq->bytes <= state_volume(d->st, i->volume_id)->size_bytes)
        return 0;
    *ret = record_new(d->pad, ZBS__METALOG__RECORD__KIND_FILE_GROW);
    (*ret)->file_grow = PAD_NEW(d->pad, Zbs__Metalog__FileGrow);
    zbs__metalog__file_grow__init((*ret)->file_grow);
    (*ret)->file_grow->inode_id = i->id;
    (*ret)->file_grow->size_bytes = volume_bytes(rq->bytes);
    return 0;
}

/* ---- how far a file goes ---- */

int check_file_tail(const struct inode *i, uint64_t size)
{
    if (size > i->size && i->dirty_end > i->size)
        return err_set(ERR_BUSY,
                       "inode %" PRIu64 " has to be zeroed from %" PRIu64 " to %" PRIu64 " first",
                       i->id, i->size, i->dirty_end);
    return 0;
}

static int check_written(const struct decide *d, const struct inode *i,
                         const Zbs__Meta__FileWrittenRequest *rq)
{
    uint64_t size = rq->size;

    if (size > i->size && i->volume_id == 0)
        return err_set(ERR_INVAL, "inode %" PRIu64 " has no volume to be written", i->id);
    if (size > i->size && size > state_volume(d->st, i->volume_id)->size_bytes)
        return err_set(ERR_INVAL, "the volume of inode %" PRIu64 " has less than %" PRIu64 " bytes",
                       i->id, size);
    if (size > i->size && rq->cut != i->cut)
        return err_set(ERR_MISCOMPARE, "inode %" PRIu64 " was truncated since", i->id);
    return check_file_tail(i, size);
}

int decide_file_written(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__FileWrittenRequest *rq = (const void *)d->rq;
    Zbs__Metalog__FileWritten *m;
    uint32_t mode_less;
    struct inode *i;
    int rc = decide_file(d, rq->inode_id, &i);

    if (rc == 0)
        rc = check_written(d, i, rq);
    if (rc != 0)
        return rc;
    *ret = NULL;
    mode_less = rq->by_user ? permission_lost_by_write(i->mode) : 0;
    if (rq->size <= i->size && rq->mtime_ns <= i->mtime_ns && mode_less == 0)
        return 0;
    *ret = record_new(d->pad, ZBS__METALOG__RECORD__KIND_FILE_WRITTEN);
    (*ret)->file_written = m = PAD_NEW(d->pad, Zbs__Metalog__FileWritten);
    zbs__metalog__file_written__init(m);
    m->inode_id = i->id;
    m->size = MAX(rq->size, i->size);
    m->mtime_ns = MAX(rq->mtime_ns, i->mtime_ns);
    m->time_ns = (uint64_t)d->w->wall_ns;
    m->mode_less = mode_less;
    return 0;
}

/* One session at a time, as long as it lives: a second would zero what was written after the first
 * had finished. */
int decide_file_zero(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__FileZeroRequest *rq = (const void *)d->rq;
    struct inode *i;
    int rc = decide_file(d, rq->inode_id, &i);

    *ret = NULL;
    if (rc < 0 || i->dirty_end == 0 || (i->zeroer != 0 && i->zeroer == rq->session_id))
        return rc;
    if (state_session(d->st, rq->session_id) == NULL)
        return err_set(ERR_EXPIRED, "session %" PRIu64 " has ended", rq->session_id);
    if (i->zeroer != 0 && state_session(d->st, i->zeroer) != NULL)
        return err_set(ERR_BUSY, "session %" PRIu64 " zeroes the end of inode %" PRIu64, i->zeroer,
                       i->id);
    *ret = record_new(d->pad, ZBS__METALOG__RECORD__KIND_FILE_ZERO);
    (*ret)->file_zero = PAD_NEW(d->pad, Zbs__Metalog__FileZero);
    zbs__metalog__file_zero__init((*ret)->file_zero);
    (*ret)->file_zero->inode_id = i->id;
    (*ret)->file_zero->session_id = rq->session_id;
    return 0;
}

int decide_file_zeroed(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__FileZeroedRequest *rq = (const void *)d->rq;
    struct inode *i;
    int rc = decide_file(d, rq->inode_id, &i);

    if (rc < 0)
        return rc;
    if (i->dirty_end == 0 || i->size != rq->size || i->dirty_end != rq->dirty_end ||
        i->zeroer != rq->session_id)
        return err_set(ERR_MISCOMPARE, "inode %" PRIu64 " is not to be zeroed there any more",
                       i->id);
    *ret = record_new(d->pad, ZBS__METALOG__RECORD__KIND_FILE_ZEROED);
    (*ret)->file_zeroed = PAD_NEW(d->pad, Zbs__Metalog__FileZeroed);
    zbs__metalog__file_zeroed__init((*ret)->file_zeroed);
    (*ret)->file_zeroed->inode_id = i->id;
    return 0;
}

/* ---- a file's volume among the volumes ---- */

int decide_not_of_file(const struct decide *d, const struct volume *v, const char *what)
{
    const struct inode *i;
    char *path;
    int rc;

    if (v->inode_id == 0)
        return 0;
    i = tree_inode(&d->st->tree, v->inode_id);
    path = inode_path(i);
    rc = err_set(ERR_PERM, "volume '%s/%s' has the bytes of file %s: it can't be %s by itself",
                 v->pool->name, v->name, path, what);
    mem_free(path);
    return rc;
}

/* While an access server copies a small file's bytes there, zeroes behind the file's end, or has a
 * write lease, it relies on what it knows of the volume. */
int decide_file_quiet(const struct decide *d, const struct volume *v)
{
    const struct inode *i = v->inode_id != 0 ? tree_inode(&d->st->tree, v->inode_id) : NULL;

    if (i == NULL)
        return 0;
    if (i->candidate == v->id)
        return err_set(ERR_BUSY, "volume '%s/%s' is about to become a file's", v->pool->name,
                       v->name);
    if (i->zeroer != 0 && state_session(d->st, i->zeroer) != NULL)
        return err_set(ERR_BUSY, "the end of volume '%s/%s' is being zeroed", v->pool->name,
                       v->name);
    if (file_leases(d->st, i) > 0)
        return err_set(ERR_AGAIN, "volume '%s/%s' is being written as a file", v->pool->name,
                       v->name);
    return 0;
}
