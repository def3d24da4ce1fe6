/* SPDX-License-Identifier: Apache-2.0
 *
 * Decisions about snapshots, clones and rollbacks (PROTOCOL 7). */
#include <inttypes.h>
#include <string.h>
#include "common/base/err.h"
#include "common/base/name.h"
#include "common/base/prng.h"
#include "meta/check.h"
#include "meta/decide.h"

/* Another random value for each of several new volumes. */
static ProtobufCBinaryData fresh_uuid(const struct decide *d, uint64_t i)
{
    uint8_t *uuid = pad_memdup(d->pad, d->w->uuid, sizeof(d->w->uuid));
    uint64_t mix = i == 0 ? 0 : prng_mix(d->w->random + i);

    for (uint32_t k = 0; k < sizeof(mix); k++)
        uuid[8 + k] ^= (uint8_t)(mix >> (8 * k));
    return (ProtobufCBinaryData){.data = uuid, .len = sizeof(d->w->uuid)};
}

/* ---- imports: a volume is filled from a stream, and becomes a snapshot ---- */

/* While it is imported nobody else takes snapshots of it: they would be of half a state. */
static int check_import_end(const Zbs__Meta__VolumeSnapshotRequest *rq, const struct volume *v)
{
    if (v->importing == rq->importing && (rq->importing == 0 || rq->n_volumes == 1))
        return 0;
    if (rq->importing == 0)
        return err_set(ERR_BUSY,
                       "an import into volume '%s/%s' was begun and has not ended: import again, "
                       "go back to a snapshot, or delete it",
                       v->pool->name, v->name);
    return err_set(ERR_STALE, "volume '%s/%s' is not the one that the import was begun with",
                   v->pool->name, v->name);
}

static bool same_table(const struct volume *v, const struct volume *s)
{
    uint32_t n = MAX(v->n_pages, s->n_pages);

    for (uint32_t i = 0; i < n; i++) {
        if ((i < v->n_pages ? v->table[i] : NULL) != (i < s->n_pages ? s->table[i] : NULL))
            return false;
    }
    return v->size_bytes == s->size_bytes;
}

static int check_import_begin(const ProtobufCBinaryData *content, const struct volume *v,
                              const struct volume *s)
{
    int rc = check_uuid("content of the import", content);
    uint32_t n;
    struct volume **snapshots = volume_snapshots(v, &n);

    for (uint32_t i = 0; rc == 0 && i < n; i++) {
        const struct volume *other = snapshots[i];

        if (other->origin_id == v->id && other->id > s->id)
            rc = err_set(ERR_STALE, "the stream begins at snapshot '%s/%s', but '%s/%s' is newer",
                         v->pool->name, s->name, v->pool->name, other->name);
    }
    if (rc == 0 && v->importing == 0 && !same_table(v, s))
        rc = err_set(ERR_STALE,
                     "volume '%s/%s' has changed since snapshot '%s', at which the stream begins: "
                     "go back to it first",
                     v->pool->name, v->name, s->name);
    return rc;
}

/* ---- snapshots ---- */

static int snapshot_item(const struct decide *d, const Zbs__Meta__VolumeSnapshotRequest *rq,
                         size_t i, Zbs__Metalog__SnapshotItem *item)
{
    const Zbs__Meta__VolumeName *of = rq->volumes[i];
    uint64_t unready;
    struct volume *v;
    int rc = decide_volume(d, of->pool, of->name, &v);

    if (rc < 0)
        return rc;
    if (v->snapshot)
        return err_set(ERR_INVAL, "'%s/%s' is a snapshot itself", of->pool, of->name);
    rc = check_import_end(rq, v);
    if (rc < 0)
        return rc;
    zbs__metalog__snapshot_item__init(item);
    item->volume_id = v->id;
    item->name = pad_printf(d->pad, "%s@%s", of->name, rq->snapshot);
    item->uuid = fresh_uuid(d, i);
    rc = name_check("name of the snapshot", item->name, NAME_BYTES_MAX);
    if (rc < 0)
        return rc;
    if (pool_volume(v->pool, item->name) != NULL)
        return err_set(ERR_EXISTS, "snapshot '%s/%s' exists already", of->pool, item->name);
    if (volume_unready(d->st, v, false, &unready, 1) > 0)
        return err_set(ERR_AGAIN, "extent %" PRIu64 " of volume '%s/%s' has to be opened first",
                       unready, of->pool, of->name);
    return 0;
}

int decide_volume_snapshot(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__VolumeSnapshotRequest *rq = (const void *)d->rq;
    Zbs__Metalog__VolumesSnapshot *m = PAD_NEW(d->pad, Zbs__Metalog__VolumesSnapshot);
    int rc = name_check("name of the snapshot", rq->snapshot, NAME_BYTES_MAX);

    if (rc == 0)
        rc = check_no_snapshot_name(rq->snapshot);
    if (rc == 0)
        rc = decide_volume_room(d, rq->n_volumes);
    if (rc < 0)
        return rc;
    if (rq->n_volumes < 1 || rq->n_volumes > SNAPSHOT_GROUP_MAX)
        return err_set(ERR_INVAL, "%zu volumes: 1 to %u are allowed", rq->n_volumes,
                       SNAPSHOT_GROUP_MAX);
    zbs__metalog__volumes_snapshot__init(m);
    m->created_ns = (uint64_t)d->w->wall_ns;
    m->items = PAD_NEW_ARRAY(d->pad, Zbs__Metalog__SnapshotItem *, rq->n_volumes);
    for (size_t i = 0; i < rq->n_volumes; i++) {
        m->items[i] = PAD_NEW(d->pad, Zbs__Metalog__SnapshotItem);
        rc = snapshot_item(d, rq, i, m->items[i]);
        if (rc < 0)
            return rc;
        for (size_t k = 0; k < i; k++) {
            if (m->items[k]->volume_id == m->items[i]->volume_id)
                return err_set(ERR_INVAL, "volume '%s' is named twice", rq->volumes[i]->name);
        }
        m->n_items++;
    }
    *ret = record_new(d->pad, ZBS__METALOG__RECORD__KIND_VOLUMES_SNAPSHOT);
    (*ret)->volumes_snapshot = m;
    return 0;
}

/* ---- clones and rollbacks ---- */

static int decide_snapshot(const struct decide *d, const char *pool, const char *name,
                           struct volume **ret)
{
    int rc = decide_volume(d, pool, name, ret);

    if (rc == 0 && !(*ret)->snapshot)
        return err_set(ERR_INVAL, "'%s/%s' is not a snapshot", pool, name);
    return rc;
}

int decide_volume_clone(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__VolumeCloneRequest *rq = (const void *)d->rq;
    Zbs__Metalog__VolumeClone *m;
    struct volume *s;
    struct pool *p;
    int rc = name_check("volume name", rq->name, NAME_BYTES_MAX);

    if (rc == 0)
        rc = check_volume_name(rq->name);
    if (rc == 0 && rq->snapshot == NULL)
        rc = err_set(ERR_INVAL, "no snapshot is named");
    if (rc == 0)
        rc = decide_snapshot(d, rq->snapshot->pool, rq->snapshot->name, &s);
    if (rc == 0)
        rc = decide_pool(d, rq->pool, &p);
    if (rc == 0)
        rc = decide_volume_room(d, 1);
    if (rc != 0)
        return rc;
    if (p != s->pool)
        return err_set(ERR_INVAL,
                       "a clone shares extents with its snapshot: it has to be in the "
                       "same pool, '%s'",
                       s->pool->name);
    if (pool_volume(p, rq->name) != NULL)
        return err_set(ERR_EXISTS, "volume '%s/%s' exists already", p->name, rq->name);
    *ret = record_new(d->pad, ZBS__METALOG__RECORD__KIND_VOLUME_CLONE);
    (*ret)->volume_clone = m = PAD_NEW(d->pad, Zbs__Metalog__VolumeClone);
    zbs__metalog__volume_clone__init(m);
    m->snapshot_id = s->id;
    m->name = rq->name;
    m->created_ns = (uint64_t)d->w->wall_ns;
    m->uuid = fresh_uuid(d, 0);
    return 0;
}

int decide_volume_rollback(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__VolumeRollbackRequest *rq = (const void *)d->rq;
    struct volume *v, *s;
    int rc;

    if (rq->volume == NULL)
        return err_set(ERR_INVAL, "no volume is named");
    rc = decide_volume(d, rq->volume->pool, rq->volume->name, &v);
    if (rc == 0)
        rc = decide_snapshot(d, rq->volume->pool,
                             pad_printf(d->pad, "%s@%s", rq->volume->name, rq->snapshot), &s);
    if (rc == 0)
        rc = decide_exported(d, v);
    if (rc == 0)
        rc = decide_file_quiet(d, v);
    if (rc == 0)
        rc = decide_volume_room(d, 1);
    if (rc != 0)
        return rc;
    if (s->origin_id != v->id)
        return err_set(ERR_INVAL, "'%s/%s' is a snapshot of an earlier volume of that name",
                       rq->volume->pool, s->name);
    if (rq->import_content.len > 0) {
        rc = check_import_begin(&rq->import_content, v, s);
        if (rc != 0)
            return rc;
    }
    *ret = record_new(d->pad, ZBS__METALOG__RECORD__KIND_VOLUME_ROLLBACK);
    (*ret)->volume_rollback = PAD_NEW(d->pad, Zbs__Metalog__VolumeRollback);
    zbs__metalog__volume_rollback__init((*ret)->volume_rollback);
    (*ret)->volume_rollback->volume_id = v->id;
    (*ret)->volume_rollback->snapshot_id = s->id;
    (*ret)->volume_rollback->import_content = rq->import_content;
    (*ret)->volume_rollback->time_ns = (uint64_t)d->w->wall_ns;
    return 0;
}
