/* SPDX-License-Identifier: Apache-2.0
 *
 * Applying records of snapshots, clones and rollbacks: a table's page pointers are copied. */
#include <string.h>
#include "common/base/assert.h"
#include "meta/apply.h"
#include "meta/codec.h"

/* A new volume with another's layout, policy and content. */
static struct volume *volume_like(struct apply *a, const struct volume *of, uint64_t id,
                                  const char *name, uint64_t created_ns, const uint8_t *uuid)
{
    struct volume *v = state_volume_add(a->st, of->pool, id, name, &of->layout, of->size_bytes);

    v->replicas = of->replicas;
    v->min_replicas = of->min_replicas;
    v->limits = of->limits;
    state_volume_policy_left(a->st, v, of->policy_left);
    str_set(&v->preferred_host, of->preferred_host);
    v->origin_id = of->id;
    v->created_ns = created_ns;
    memcpy(v->uuid, uuid, sizeof(v->uuid));
    v->version = v->shared_at = a->number;
    return v;
}

static void put_table(struct apply *a, const struct volume *v)
{
    for (uint32_t i = 0; i < v->n_pages; i += TABLE_GROUP)
        codec_put_table(a->to, v, i);
}

static void share_table(struct apply *a, struct volume *v, const struct volume *of)
{
    for (uint32_t i = 0; i < of->n_pages; i++)
        volume_set_page(v, i, of->table[i]);
    put_table(a, v);
}

void apply_import_begin(struct apply *a, struct volume *v, const ProtobufCBinaryData *content)
{
    bool any = content->len == sizeof(v->content);

    v->importing = any ? a->number : 0;
    memset(v->content, 0, sizeof(v->content));
    if (any)
        memcpy(v->content, content->data, sizeof(v->content));
}

/* The snapshot of a volume that is imported is what was imported. */
static void import_end(struct volume *s, struct volume *v)
{
    memcpy(s->content, v->importing != 0 ? v->content : s->uuid, sizeof(s->content));
    memset(v->content, 0, sizeof(v->content));
    v->importing = 0;
}

int apply_volumes_snapshot(struct apply *a)
{
    const Zbs__Metalog__VolumesSnapshot *m = a->record->volumes_snapshot;
    Zbs__Meta__VolumeSnapshotReply reply = ZBS__META__VOLUME_SNAPSHOT_REPLY__INIT;

    reply.snapshots = PAD_NEW_ARRAY(a->pad, Zbs__Meta__Volume *, m->n_items);
    for (size_t i = 0; i < m->n_items; i++) {
        const Zbs__Metalog__SnapshotItem *item = m->items[i];
        struct volume *v = state_volume(a->st, item->volume_id), *s;

        if (v == NULL || v->removed || v->snapshot || item->uuid.len != 16 ||
            pool_volume(v->pool, item->name) != NULL)
            return apply_misfit(a, "snapshot");
        s = volume_like(a, v, a->number + i, item->name, m->created_ns, item->uuid.data);
        state_volume_snapshot(s);
        share_table(a, s, v);
        import_end(s, v);
        if (v->inode_id != 0)
            s->file_bytes = tree_inode(&a->st->tree, v->inode_id)->size;
        codec_put_volume(a->to, s);
        v->shared_at = v->version = a->number;
        apply_volume_thick_from(a, v, 0);
        codec_put_volume(a->to, v);
        reply.snapshots[i] = PAD_NEW(a->pad, Zbs__Meta__Volume);
        view_volume(reply.snapshots[reply.n_snapshots++], a->st, s);
    }
    a->reply = view_pack(&reply.base, a->pad);
    return 0;
}

static void reply_volume(struct apply *a, const struct volume *v)
{
    Zbs__Meta__Volume view;

    view_volume(&view, a->st, v);
    a->reply = view_pack(&view.base, a->pad);
}

int apply_volume_clone(struct apply *a)
{
    const Zbs__Metalog__VolumeClone *m = a->record->volume_clone;
    struct volume *s = state_volume(a->st, m->snapshot_id), *v;

    if (s == NULL || s->removed || !s->snapshot || m->uuid.len != 16 ||
        pool_volume(s->pool, m->name) != NULL)
        return apply_misfit(a, "clone");
    v = volume_like(a, s, a->number, m->name, m->created_ns, m->uuid.data);
    share_table(a, v, s);
    codec_put_volume(a->to, v);
    reply_volume(a, v);
    return 0;
}

/* A removed volume takes over the table, to be swept. */
static void give_away_table(struct apply *a, struct volume *v)
{
    struct volume *heir =
        state_volume_add_removed(a->st, a->number, v->name, &v->layout, v->size_bytes);

    state_volume_policy_left(a->st, v, 0);
    heir->pool_id = v->pool_id;
    heir->version = a->number;
    for (uint32_t i = 0; i < v->n_pages; i++)
        volume_set_page(heir, i, volume_set_page(v, i, NULL));
    put_table(a, heir);
    codec_put_volume(a->to, heir);
}

int apply_volume_rollback(struct apply *a)
{
    const Zbs__Metalog__VolumeRollback *m = a->record->volume_rollback;
    struct volume *v = state_volume(a->st, m->volume_id);
    struct volume *s = state_volume(a->st, m->snapshot_id);

    if (v == NULL || v->removed || s == NULL || s->removed || !s->snapshot ||
        s->origin_id != v->id || v->luns > 0)
        return apply_misfit(a, "rollback");
    give_away_table(a, v);
    if (s->size_bytes > v->size_bytes)
        state_volume_resize(v, s->size_bytes);
    share_table(a, v, s);
    state_volume_policy_left(a->st, v, v->n_pages); /* it may have changed since */
    v->version = v->shared_at = v->table_at = a->number;
    apply_import_begin(a, v, &m->import_content);
    if (v->flattening) /* that was of the former table */
        state_volume_flatten(a->st, v, true, 0);
    apply_volume_thick_from(a, v, 0);
    codec_put_volume(a->to, v);
    apply_file_rollback(a, v, s, m->time_ns);
    reply_volume(a, v);
    return 0;
}

int apply_volume_flatten(struct apply *a)
{
    const Zbs__Metalog__VolumeFlatten *m = a->record->volume_flatten;
    struct volume *v = state_volume(a->st, m->volume_id);

    if (v == NULL || v->removed || v->snapshot)
        return apply_misfit(a, "volume");
    state_volume_flatten(a->st, v, !m->end, m->next_slot);
    v->version = a->number;
    codec_put_volume(a->to, v);
    return 0;
}
