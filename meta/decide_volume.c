/* SPDX-License-Identifier: Apache-2.0
 *
 * Decisions and answers about pools and volumes. */
#include <inttypes.h>
#include <string.h>
#include "common/base/err.h"
#include "common/base/name.h"
#include "common/base/units.h"
#include "meta/check.h"
#include "meta/decide.h"

/* ---- pools ---- */

int decide_pool_create(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__PoolCreateRequest *rq = (const void *)d->rq;
    const char *domain = rq->failure_domain[0] != 0 ? rq->failure_domain : "host";
    uint32_t min = rq->min_replicas;
    Zbs__Metalog__PoolAdd *m;
    int rc = name_check("pool name", rq->name, NAME_BYTES_MAX);

    if (rc < 0)
        return rc;
    if (rq->replicas < 1 || rq->replicas > REPLICAS_MAX)
        return err_set(ERR_INVAL, "%u replicas: 1 to %u are allowed", rq->replicas, REPLICAS_MAX);
    if (min == 0)
        min = MAX(rq->replicas - 1, 1u);
    if (min > rq->replicas)
        return err_set(ERR_INVAL, "at least %u replicas of %u can't be kept in sync", min,
                       rq->replicas);
    if (strcmp(domain, "host") != 0 && strcmp(domain, "rack") != 0 && strcmp(domain, "zone") != 0)
        return err_set(ERR_INVAL, "failure domain '%s': use host, rack or zone", domain);
    if (state_pool(d->st, rq->name) != NULL)
        return err_set(ERR_EXISTS, "pool '%s' exists already", rq->name);
    if (d->st->pools.count >= POOLS_MAX)
        return err_set(ERR_TOO_LARGE, "the cluster has %u pools, the most allowed", POOLS_MAX);
    *ret = record_new(d->pad, ZBS__METALOG__RECORD__KIND_POOL_ADD);
    (*ret)->pool_add = m = PAD_NEW(d->pad, Zbs__Metalog__PoolAdd);
    zbs__metalog__pool_add__init(m);
    m->name = rq->name;
    m->replicas = rq->replicas;
    m->min_replicas = min;
    m->failure_domain = (char *)domain;
    return 0;
}

int answer_pool_list(const struct decide *d, ProtobufCMessage *reply)
{
    const Zbs__Meta__PoolListRequest *rq = (const void *)d->rq;
    Zbs__Meta__PoolListReply *m = (void *)reply;
    struct pool *only = NULL;
    int rc;

    if (rq->name[0] != 0) {
        rc = decide_pool(d, rq->name, &only);
        if (rc < 0)
            return rc;
    }
    m->pools = PAD_NEW_ARRAY(d->pad, Zbs__Meta__Pool *, d->st->pools.count);
    for (uint32_t i = 0; i < d->st->pools.count; i++) {
        const struct pool *p = d->st->pools.items[i];

        if (only != NULL && p != only)
            continue;
        m->pools[m->n_pools] = PAD_NEW(d->pad, Zbs__Meta__Pool);
        view_pool(m->pools[m->n_pools++], p);
    }
    return 0;
}

int decide_pool_delete(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__PoolDeleteRequest *rq = (const void *)d->rq;
    struct pool *p;
    int rc = decide_pool(d, rq->name, &p);

    if (rc < 0)
        return rc;
    if (p->volumes.count > 0)
        return err_set(ERR_NOT_EMPTY, "pool '%s' has %u volumes: delete them first", p->name,
                       p->volumes.count);
    if (tree_pool_share(&d->st->tree, p->id) != NULL)
        return err_set(ERR_NOT_EMPTY, "pool '%s' has share '%s': delete it first", p->name,
                       tree_pool_share(&d->st->tree, p->id)->name);
    *ret = record_new(d->pad, ZBS__METALOG__RECORD__KIND_POOL_REMOVE);
    (*ret)->pool_remove = PAD_NEW(d->pad, Zbs__Metalog__PoolRemove);
    zbs__metalog__pool_remove__init((*ret)->pool_remove);
    (*ret)->pool_remove->pool_id = p->id;
    return 0;
}

/* ---- volumes ---- */

int decide_volume_room(const struct decide *d, size_t n)
{
    uint32_t volumes = d->st->n_volumes + d->st->removed.count - d->st->n_file_volumes;

    if (volumes + n > VOLUMES_MAX)
        return err_set(ERR_TOO_LARGE, "the cluster has %u volumes and snapshots, %u are allowed",
                       volumes, VOLUMES_MAX);
    return 0;
}

static int check_volume_create(const Zbs__Meta__VolumeCreateRequest *rq)
{
    int rc = name_check("volume name", rq->name, NAME_BYTES_MAX);

    if (rc == 0)
        rc = check_volume_name(rq->name);
    if (rc == 0)
        rc = check_volume_size(rq->size_bytes);
    if (rc == 0)
        rc = check_name_or_none("preferred host", rq->preferred_host);
    if (rc == 0 && rq->import_content.len > 0)
        rc = check_uuid("content of the import", &rq->import_content);
    if (rc < 0)
        return rc;
    if (rq->replicas > REPLICAS_MAX)
        return err_set(ERR_INVAL, "%u replicas: 1 to %u are allowed", rq->replicas, REPLICAS_MAX);
    if (rq->stripe_count > 64)
        return err_set(ERR_INVAL, "%u stripes: 1 to 64 are allowed", rq->stripe_count);
    if (rq->stripe_bytes % BLOCK_BYTES != 0 ||
        (rq->stripe_bytes != 0 && EXTENT_BYTES % rq->stripe_bytes != 0))
        return err_set(ERR_INVAL,
                       "stripe size %u: a multiple of 256 KiB that divides 256 MiB is allowed",
                       rq->stripe_bytes);
    return 0;
}

int decide_volume_create(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__VolumeCreateRequest *rq = (const void *)d->rq;
    Zbs__Metalog__VolumeAdd *m;
    struct pool *p;
    int rc = check_volume_create(rq);

    if (rc == 0)
        rc = decide_pool(d, rq->pool, &p);
    if (rc != 0)
        return rc;
    if (pool_volume(p, rq->name) != NULL)
        return err_set(ERR_EXISTS, "volume '%s/%s' exists already", p->name, rq->name);
    rc = decide_volume_room(d, 1);
    if (rc < 0)
        return rc;
    *ret = record_new(d->pad, ZBS__METALOG__RECORD__KIND_VOLUME_ADD);
    (*ret)->volume_add = m = PAD_NEW(d->pad, Zbs__Metalog__VolumeAdd);
    zbs__metalog__volume_add__init(m);
    m->pool_id = p->id;
    m->name = rq->name;
    m->size_bytes = rq->size_bytes;
    m->replicas = rq->replicas != 0 ? rq->replicas : p->replicas;
    m->min_replicas = m->replicas == p->replicas ? p->min_replicas : MAX(m->replicas - 1, 1u);
    m->stripe_count = rq->stripe_count != 0 ? rq->stripe_count : STRIPE_COUNT_DEFAULT;
    m->stripe_bytes = rq->stripe_bytes != 0 ? rq->stripe_bytes : STRIPE_BYTES_DEFAULT;
    m->preferred_host = rq->preferred_host;
    m->created_ns = (uint64_t)d->w->wall_ns;
    m->uuid = (ProtobufCBinaryData){.data = d->w->uuid, .len = sizeof(d->w->uuid)};
    m->import_content = rq->import_content;
    m->thick = rq->thick;
    return 0;
}

static Zbs__Metalog__Record *volume_set(const struct decide *d, const struct volume *v,
                                        uint64_t size_bytes, const char *name)
{
    Zbs__Metalog__Record *r = record_new(d->pad, ZBS__METALOG__RECORD__KIND_VOLUME_SET);

    r->volume_set = PAD_NEW(d->pad, Zbs__Metalog__VolumeSet);
    zbs__metalog__volume_set__init(r->volume_set);
    r->volume_set->volume_id = v->id;
    r->volume_set->size_bytes = size_bytes;
    r->volume_set->name = (char *)name;
    return r;
}

int decide_volume_resize(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__VolumeResizeRequest *rq = (const void *)d->rq;
    struct volume *v;
    int rc = check_volume_size(rq->size_bytes);

    if (rc == 0)
        rc = decide_volume(d, rq->pool, rq->name, &v);
    if (rc != 0)
        return rc;
    if (v->snapshot)
        return err_set(ERR_PERM, "'%s/%s' is a snapshot: it never changes", rq->pool, rq->name);
    if (rq->size_bytes < v->size_bytes) {
        rc = decide_not_of_file(d, v, "made smaller");
        return rc < 0 ? rc : decide_shrink(d, v, ret);
    }
    *ret = rq->size_bytes > v->size_bytes ? volume_set(d, v, rq->size_bytes, "") : NULL;
    return 0;
}

int answer_volume_resize(const struct decide *d, ProtobufCMessage *reply)
{
    const Zbs__Meta__VolumeResizeRequest *rq = (const void *)d->rq;
    struct volume *v;
    int rc = decide_volume(d, rq->pool, rq->name, &v);

    if (rc == 0)
        view_volume((Zbs__Meta__Volume *)reply, d->st, v);
    return rc;
}

/* Its snapshots are renamed with it. */
static int check_snapshot_renames(const struct decide *d, const struct volume *v,
                                  const char *new_name)
{
    uint32_t n;
    struct volume **snapshots = volume_snapshots(v, &n);

    for (uint32_t i = 0; i < n; i++) {
        const struct volume *s = snapshots[i];
        const char *name;

        if (s->origin_id != v->id)
            continue;
        name = pad_printf(d->pad, "%s%s", new_name, strchr(s->name, '@'));
        if (strlen(name) > NAME_BYTES_MAX)
            return err_set(ERR_INVAL, "its snapshot would be '%s', more than %u bytes", name,
                           NAME_BYTES_MAX);
        if (pool_volume(v->pool, name) != NULL)
            return err_set(ERR_EXISTS, "its snapshot would be '%s/%s', which exists already",
                           v->pool->name, name);
    }
    return 0;
}

int decide_volume_rename(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__VolumeRenameRequest *rq = (const void *)d->rq;
    struct volume *v;
    int rc = name_check("new volume name", rq->new_name, NAME_BYTES_MAX);

    if (rc == 0)
        rc = check_volume_name(rq->new_name);
    if (rc == 0)
        rc = decide_volume(d, rq->pool, rq->name, &v);
    if (rc != 0)
        return rc;
    *ret = NULL;
    if (v->snapshot)
        return err_set(ERR_PERM, "'%s/%s' is a snapshot: it is renamed with its volume", rq->pool,
                       rq->name);
    if (strcmp(rq->name, rq->new_name) == 0)
        return 0;
    rc = decide_not_of_file(d, v, "renamed");
    if (rc < 0)
        return rc;
    if (pool_volume(v->pool, rq->new_name) != NULL)
        return err_set(ERR_EXISTS, "volume '%s/%s' exists already", rq->pool, rq->new_name);
    rc = check_snapshot_renames(d, v, rq->new_name);
    if (rc == 0)
        *ret = volume_set(d, v, 0, rq->new_name);
    return rc;
}

int answer_volume_rename(const struct decide *d, ProtobufCMessage *reply)
{
    const Zbs__Meta__VolumeRenameRequest *rq = (const void *)d->rq;
    struct volume *v;
    int rc = decide_volume(d, rq->pool, rq->new_name, &v);

    if (rc == 0)
        view_volume((Zbs__Meta__Volume *)reply, d->st, v);
    return rc;
}

/* "iqn… LUN 3", of the first target that shows it. */
static const char *exported_as(const struct decide *d, const struct volume *v)
{
    for (uint32_t i = 0; i < d->st->targets.count; i++) {
        const struct target *t = d->st->targets.items[i];

        for (uint32_t k = 0; k < t->n_luns; k++) {
            if (t->luns[k].volume_id == v->id)
                return pad_printf(d->pad, "%s LUN %u", t->iqn, t->luns[k].lun);
        }
    }
    return "?";
}

int decide_exported(const struct decide *d, const struct volume *v)
{
    if (v->luns == 0)
        return 0;
    return err_set(ERR_BUSY, "volume '%s/%s' is exported as %s: end the export first",
                   v->pool->name, v->name, exported_as(d, v));
}

int decide_volume_delete(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__VolumeDeleteRequest *rq = (const void *)d->rq;
    struct volume *v;
    int rc = decide_volume(d, rq->pool, rq->name, &v);

    if (rc < 0)
        return rc;
    rc = decide_not_of_file(d, v, "deleted");
    if (rc == 0)
        rc = decide_exported(d, v);
    if (rc < 0)
        return rc;
    *ret = record_new(d->pad, ZBS__METALOG__RECORD__KIND_VOLUME_REMOVE);
    (*ret)->volume_remove = PAD_NEW(d->pad, Zbs__Metalog__VolumeRemove);
    zbs__metalog__volume_remove__init((*ret)->volume_remove);
    (*ret)->volume_remove->volume_id = v->id;
    return 0;
}

int answer_volume_get(const struct decide *d, ProtobufCMessage *reply)
{
    const Zbs__Meta__VolumeGetRequest *rq = (const void *)d->rq;
    struct volume *v;
    int rc = 0;

    if (rq->id != 0) {
        v = state_volume(d->st, rq->id);
        if (v == NULL || v->removed)
            rc = err_set(ERR_NOTFOUND, "volume %" PRIu64 " does not exist", rq->id);
    } else {
        rc = decide_volume(d, rq->pool, rq->name, &v);
    }
    if (rc == 0)
        view_volume((Zbs__Meta__Volume *)reply, d->st, v);
    return rc;
}

static bool list_volumes(const struct decide *d, const struct pool *p, const char *after,
                         Zbs__Meta__VolumeListReply *m)
{
    for (uint32_t i = pool_volumes_behind(p, after); i < p->volumes.count; i++) {
        const struct volume *v = p->volumes.items[i];

        if (m->n_volumes >= VOLUME_LIST_MAX) {
            m->more = true;
            return false;
        }
        m->volumes[m->n_volumes] = PAD_NEW(d->pad, Zbs__Meta__Volume);
        view_volume(m->volumes[m->n_volumes++], d->st, v);
    }
    return true;
}

int answer_volume_list(const struct decide *d, ProtobufCMessage *reply)
{
    const Zbs__Meta__VolumeListRequest *rq = (const void *)d->rq;
    Zbs__Meta__VolumeListReply *m = (void *)reply;
    struct pool *only = NULL;
    int rc;

    if (rq->pool[0] != 0) {
        rc = decide_pool(d, rq->pool, &only);
        if (rc < 0)
            return rc;
    }
    m->volumes = PAD_NEW_ARRAY(d->pad, Zbs__Meta__Volume *, MIN(d->st->n_volumes, VOLUME_LIST_MAX));
    for (uint32_t i = 0; i < d->st->pools.count; i++) {
        const struct pool *p = d->st->pools.items[i];
        int order = strcmp(p->name, rq->after_pool);

        if ((only != NULL && p != only) || (rq->after_pool[0] != 0 && order < 0))
            continue;
        if (!list_volumes(d, p, rq->after_pool[0] != 0 && order == 0 ? rq->after_name : "", m))
            break;
    }
    return 0;
}

int answer_volume_map(const struct decide *d, ProtobufCMessage *reply)
{
    const Zbs__Meta__VolumeMapRequest *rq = (const void *)d->rq;
    Zbs__Meta__VolumeMapReply *m = (void *)reply;
    uint32_t max = rq->max == 0 ? 1024 : MIN(rq->max, VOLUME_MAP_MAX);
    struct volume *v;
    int rc = decide_volume(d, rq->pool, rq->name, &v);

    if (rc < 0)
        return rc;
    m->extents = PAD_NEW_ARRAY(d->pad, Zbs__Meta__ExtentView *, MIN(max, v->extents));
    for (uint32_t n = rq->first_slot; n < v->n_slots; n++) {
        if (volume_extent(v, n) == NULL)
            continue;
        if (m->n_extents == max) {
            m->more = true;
            m->next_slot = n;
            break;
        }
        m->extents[m->n_extents] = PAD_NEW(d->pad, Zbs__Meta__ExtentView);
        view_extent(m->extents[m->n_extents++], d->st, v, n);
    }
    return 0;
}
