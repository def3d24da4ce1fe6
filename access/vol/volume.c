/* SPDX-License-Identifier: Apache-2.0
 *
 * Volumes as meta describes them, with their tables of slots. */
#include "access/vol/vol_int.h"

#include <stdio.h>
#include <string.h>

struct volume *vol_object_find(struct vol_engine *e, uint64_t id)
{
    return HTAB_FIND(&e->volumes_by_id, id, struct volume, by_id);
}

static void volume_mark_deleted(struct volume *v)
{
    if (v->deleted)
        return;
    v->deleted = true;
    log_info("volume.deleted", "volume=%" PRIu64, v->info.id);
    for (uint32_t i = 0; i < v->cap_slots; i++)
        if (v->slots[i])
            slot_reset(v->slots[i]);
}

/* Slots beyond a smaller end are nobody's; the objects stay: coroutines may be in them. */
static void volume_slots(struct volume *v, uint32_t n)
{
    for (uint32_t i = n; i < v->n_slots; i++)
        if (v->slots[i])
            slot_reset(v->slots[i]);
    if (n > v->cap_slots) {
        v->slots = mem_realloc(v->slots, sizeof(*v->slots) * n);
        memset(v->slots + v->cap_slots, 0, sizeof(*v->slots) * (n - v->cap_slots));
        v->cap_slots = n;
    }
    v->n_slots = n;
}

/* What meta says is checked like everything that comes from outside. */
int vol_object_told(struct volume *v, const Zbs__Meta__Volume *m)
{
    struct layout l = {m->stripe_count, m->stripe_bytes};

    if (m->id != v->info.id || l.stripe_count < 1 || l.stripe_count > 64 || l.stripe_bytes == 0 ||
        l.stripe_bytes % BLOCK_BYTES != 0 || EXTENT_BYTES % l.stripe_bytes != 0 ||
        m->size_bytes > 64 * TIB || m->size_bytes % SECTOR_BYTES != 0)
        return err_set(ERR_PROTO, "meta describes volume %" PRIu64 " impossibly", v->info.id);
    if (v->known && (l.stripe_count != v->info.layout.stripe_count ||
                     l.stripe_bytes != v->info.layout.stripe_bytes))
        return err_set(ERR_PROTO, "volume %" PRIu64 " changed its striping", v->info.id);
    if (v->known && m->version < v->version)
        return 0; /* an answer that was overtaken */
    volume_slots(v, layout_slots(&l, m->size_bytes));
    snprintf(v->info.pool, sizeof(v->info.pool), "%s", m->pool);
    snprintf(v->info.name, sizeof(v->info.name), "%s", m->name);
    v->info.size_bytes = m->size_bytes;
    v->info.replicas = m->replicas;
    v->info.read_only = m->snapshot;
    v->info.importing = m->importing;
    v->info.layout = l;
    if (m->uuid.len == sizeof(v->info.uuid))
        memcpy(v->info.uuid, m->uuid.data, sizeof(v->info.uuid));
    qos_update(v, m);
    v->version = m->version;
    v->known = true;
    v->stale = false;
    return 0;
}

int vol_object_refresh(struct volume *v)
{
    Zbs__Meta__VolumeGetRequest req = ZBS__META__VOLUME_GET_REQUEST__INIT;
    struct rpc_reply r;
    int rc;

    req.id = v->info.id;
    rpc_reply_init(&r);
    rc = meta_call(v->e->meta, META_VOLUME_GET, &req.base, true, &r);
    if (rc == 0)
        rc = vol_object_told(v, (const Zbs__Meta__Volume *)r.msg);
    else if (rc == ERR_NOTFOUND)
        volume_mark_deleted(v);
    rpc_reply_free(&r);
    return rc;
}

int vol_object_get(struct vol_engine *e, uint64_t id, struct volume **ret)
{
    struct volume *v = vol_object_find(e, id);
    int rc = 0;

    if (id == 0)
        return err_set(ERR_NOTFOUND, "volume 0 does not exist");
    if (!v) {
        v = MEM_NEW(struct volume);
        v->e = e;
        v->info.id = id;
        co_mutex_init(&v->loading);
        list_push_back(&e->volumes, &v->link);
        htab_insert(&e->volumes_by_id, &v->by_id, id);
    }
    if (!v->known || v->stale) {
        rc = co_mutex_lock(&v->loading);
        if (rc < 0)
            return rc;
        if ((!v->known || v->stale) && !v->deleted)
            rc = vol_object_refresh(v);
        co_mutex_unlock(&v->loading);
    }
    if (v->deleted)
        return err_set(ERR_NOTFOUND, "volume %" PRIu64 " does not exist", id);
    if (rc == 0)
        *ret = v;
    return rc;
}

void vol_object_changed(struct vol_engine *e, uint64_t id)
{
    struct volume *v = vol_object_find(e, id);

    if (v && v->known)
        best_effort(vol_object_refresh(v));
    if (e->volume_changed)
        e->volume_changed(e->arg, id);
}

static bool volume_used(const struct volume *v)
{
    bool used = v->handles > 0;

    for (uint32_t i = 0; i < v->cap_slots && !used; i++)
        used = v->slots[i] && v->slots[i]->tenure;
    return used;
}

void vol_objects_changed(struct vol_engine *e)
{
    uint64_t *ids = mem_alloc(MAX(e->volumes_by_id.count, 1u) * sizeof(*ids));
    size_t n = 0;

    HTAB_FOREACH (v, &e->volumes_by_id, struct volume, by_id) {
        if (volume_used(v))
            ids[n++] = v->info.id;
        v->stale = v->known && !v->deleted;
    }
    for (size_t i = 0; i < n && !co_canceled(); i++)
        vol_object_changed(e, ids[i]);
    mem_free(ids);
}

struct slot *vol_slot_at(struct volume *v, uint32_t index)
{
    if (index >= v->n_slots)
        return NULL;
    if (!v->slots[index])
        v->slots[index] = slot_new(v, index);
    return v->slots[index];
}

void vol_objects_free(struct vol_engine *e)
{
    for (;;) {
        struct volume *v = LIST_FIRST(&e->volumes, struct volume, link);

        if (!v)
            break;
        list_del(&v->link);
        for (uint32_t i = 0; i < v->cap_slots; i++)
            if (v->slots[i])
                slot_free(v->slots[i]);
        mem_free(v->slots);
        mem_free(v->qos);
        mem_free(v);
    }
    htab_fini(&e->volumes_by_id);
}
