/* SPDX-License-Identifier: Apache-2.0
 *
 * Applying records of what files contain: bytes in the inode, or a volume. */
#include <inttypes.h>
#include <string.h>
#include "meta/apply.h"
#include "meta/codec.h"

static struct inode *find_file(struct apply *a, uint64_t id)
{
    struct inode *i = tree_inode(&a->st->tree, id);

    return i != NULL && i->type == ZBS__META__INODE_TYPE__INODE_REG ? i : NULL;
}

int apply_file_data(struct apply *a)
{
    const Zbs__Metalog__FileData *m = a->record->file_data;
    struct inode *i = find_file(a, m->inode_id);
    uint64_t end = m->offset + m->data.len;
    uint8_t bytes[FILE_INLINE_BYTES] = {0};

    if (i == NULL || i->volume_id != 0 || m->offset > FILE_INLINE_BYTES ||
        m->data.len > FILE_INLINE_BYTES - m->offset)
        return apply_misfit(a, "bytes of a small file");
    if (i->data_len > 0)
        memcpy(bytes, i->data, i->data_len);
    memcpy(bytes + m->offset, m->data.data, m->data.len);
    inode_set_data(i, bytes, MAX(end, (uint64_t)i->data_len));
    i->size = MAX(i->size, end);
    i->mtime_ns = m->time_ns;
    apply_inode_touch(a, i, m->time_ns);
    return 0;
}

int apply_file_volume(struct apply *a)
{
    const Zbs__Metalog__FileVolume *m = a->record->file_volume;
    struct inode *i = find_file(a, m->inode_id);
    const struct layout layout = {.stripe_count = STRIPE_COUNT_DEFAULT,
                                  .stripe_bytes = STRIPE_BYTES_DEFAULT};
    struct pool *pool = i != NULL ? state_pool_by_id(a->st, i->share->pool_id) : NULL;
    const char *name;
    struct volume *v;

    if (pool == NULL || i->volume_id != 0 || i->candidate != m->former || m->size_bytes == 0 ||
        m->size_bytes > VOLUME_BYTES_MAX || m->uuid.len != 16)
        return apply_misfit(a, "volume of a file");
    if (m->former != 0 && !apply_volume_drop(a, m->former))
        return apply_misfit(a, "former candidate");
    name = pad_printf(a->pad, FILE_VOLUME_NAME, i->id);
    if (pool_volume(pool, name) != NULL)
        return apply_misfit(a, "a volume of the file's name");
    v = state_volume_add(a->st, pool, a->number, name, &layout, m->size_bytes);
    v->replicas = pool->replicas;
    v->min_replicas = pool->min_replicas;
    v->created_ns = m->time_ns;
    memcpy(v->uuid, m->uuid.data, sizeof(v->uuid));
    v->version = a->number;
    state_volume_of_file(a->st, v, i->id);
    codec_put_volume(a->to, v);
    i->candidate = v->id;
    codec_put_inode(a->to, i);
    return 0;
}

int apply_file_attach(struct apply *a)
{
    const Zbs__Metalog__FileAttach *m = a->record->file_attach;
    struct inode *i = find_file(a, m->inode_id);

    if (i == NULL || i->volume_id != 0 || i->candidate == 0 || i->candidate != m->volume_id)
        return apply_misfit(a, "candidate of a file");
    i->volume_id = i->candidate;
    i->candidate = 0;
    inode_set_data(i, NULL, 0);
    i->change = a->number;
    codec_put_inode(a->to, i);
    return 0;
}

int apply_file_grow(struct apply *a)
{
    const Zbs__Metalog__FileGrow *m = a->record->file_grow;
    struct inode *i = find_file(a, m->inode_id);
    struct volume *v = i != NULL ? state_volume(a->st, i->volume_id) : NULL;
    uint32_t slots = v != NULL ? v->n_slots : 0;

    if (v == NULL || m->size_bytes < v->size_bytes || m->size_bytes > VOLUME_BYTES_MAX)
        return apply_misfit(a, "volume of a file");
    state_volume_resize(v, m->size_bytes);
    apply_volume_thick_from(a, v, slots);
    v->version = a->number;
    if (v->luns > 0)
        a->st->exports_version = a->number;
    codec_put_volume(a->to, v);
    i->change = a->number;
    codec_put_inode(a->to, i);
    return 0;
}

int apply_file_written(struct apply *a)
{
    const Zbs__Metalog__FileWritten *m = a->record->file_written;
    struct inode *i = find_file(a, m->inode_id);

    if (i == NULL || m->size < i->size || m->mtime_ns < i->mtime_ns)
        return apply_misfit(a, "a file that was written");
    i->size = m->size;
    i->mtime_ns = m->mtime_ns;
    i->mode &= ~m->mode_less;
    apply_inode_touch(a, i, m->time_ns);
    return 0;
}

int apply_file_zero(struct apply *a)
{
    const Zbs__Metalog__FileZero *m = a->record->file_zero;
    struct inode *i = find_file(a, m->inode_id);

    if (i == NULL || i->dirty_end == 0)
        return apply_misfit(a, "a file that is to be zeroed");
    i->zeroer = m->session_id;
    codec_put_inode(a->to, i);
    return 0;
}

int apply_file_zeroed(struct apply *a)
{
    struct inode *i = find_file(a, a->record->file_zeroed->inode_id);

    if (i == NULL || i->dirty_end == 0)
        return apply_misfit(a, "a file that was zeroed");
    i->dirty_end = i->zeroer = 0;
    i->change = a->number;
    codec_put_inode(a->to, i);
    return 0;
}

/* ---- write leases ---- */

static void forget_writers(struct apply *a, struct inode *i, uint64_t session_id)
{
    for (uint32_t k = i->writers != NULL ? i->writers->count : 0; k-- > 0;) {
        uint64_t s = i->writers->sessions[k];

        if (s == session_id || state_session(a->st, s) == NULL)
            inode_writer_remove(i, k);
    }
}

void apply_writers_ended(struct apply *a, struct inode *i)
{
    forget_writers(a, i, 0);
}

int apply_file_lease(struct apply *a)
{
    const Zbs__Metalog__FileLease *m = a->record->file_lease;
    struct inode *i = find_file(a, m->inode_id);

    if (i == NULL || i->volume_id == 0)
        return apply_misfit(a, "write lease of a file");
    forget_writers(a, i, m->session_id);
    if (i->writers != NULL && i->writers->count >= FILE_WRITERS_MAX)
        return apply_misfit(a, "too many write leases of a file");
    inode_writer_add(i, m->session_id, a->number);
    codec_put_inode(a->to, i);
    return 0;
}

int apply_file_return(struct apply *a)
{
    const Zbs__Metalog__FileReturn *m = a->record->file_return;
    struct inode *i = find_file(a, m->inode_id);
    uint32_t k = 0, n = i != NULL && i->writers != NULL ? i->writers->count : 0;

    while (k < n && i->writers->leases[k] != m->lease)
        k++;
    if (k == n)
        return apply_misfit(a, "return of an unknown write lease");
    inode_writer_remove(i, k);
    codec_put_inode(a->to, i);
    return 0;
}

/* ---- rollback ---- */

/* What the snapshot's volume had beyond the end of the file is not known to be zeroes. */
void apply_file_rollback(struct apply *a, const struct volume *v, const struct volume *snapshot,
                         uint64_t time_ns)
{
    struct inode *i = find_file(a, v->inode_id);

    if (i == NULL || i->volume_id != v->id)
        return;
    i->size = snapshot->file_bytes;
    i->cut = a->number;
    apply_writers_ended(a, i);
    i->dirty_end = v->size_bytes > i->size ? v->size_bytes : 0;
    i->mtime_ns = time_ns;
    apply_inode_touch(a, i, time_ns);
}
