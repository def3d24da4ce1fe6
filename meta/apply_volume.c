/* SPDX-License-Identifier: Apache-2.0
 *
 * Applying records of volumes, targets and LUNs. */
#include <string.h>
#include "common/base/assert.h"
#include "common/base/mem.h"
#include "meta/apply.h"
#include "meta/codec.h"
#include "meta/reservations.h"

static void reply_volume(struct apply *a, const struct volume *v)
{
    Zbs__Meta__Volume view;

    view_volume(&view, a->st, v);
    a->reply = view_pack(&view.base, a->pad);
}

int apply_volume_add(struct apply *a)
{
    const Zbs__Metalog__VolumeAdd *m = a->record->volume_add;
    struct pool *pool = state_pool_by_id(a->st, m->pool_id);
    struct layout layout = {.stripe_count = m->stripe_count, .stripe_bytes = m->stripe_bytes};
    struct volume *v;

    if (pool == NULL || pool_volume(pool, m->name) != NULL || m->uuid.len != 16 ||
        m->stripe_count == 0 || m->stripe_bytes == 0 || m->size_bytes == 0 ||
        m->size_bytes > VOLUME_BYTES_MAX)
        return apply_misfit(a, "volume");
    v = state_volume_add(a->st, pool, a->number, m->name, &layout, m->size_bytes);
    v->replicas = m->replicas;
    v->min_replicas = m->min_replicas;
    str_set(&v->preferred_host, m->preferred_host);
    v->created_ns = m->created_ns;
    memcpy(v->uuid, m->uuid.data, 16);
    v->version = a->number;
    apply_import_begin(a, v, &m->import_content);
    apply_volume_thick(a, v, m->thick);
    codec_put_volume(a->to, v);
    reply_volume(a, v);
    return 0;
}

struct volume **apply_snapshots_of(struct apply *a, const struct volume *v, uint32_t *ret_count)
{
    uint32_t named, n = 0;
    struct volume **all = volume_snapshots(v, &named);
    struct volume **of = PAD_NEW_ARRAY(a->pad, struct volume *, named + 1);

    for (uint32_t i = 0; i < named; i++) {
        if (all[i]->origin_id == v->id)
            of[n++] = all[i];
    }
    *ret_count = n;
    return of;
}

static void rename_snapshots(struct apply *a, const struct volume *v, const char *name)
{
    uint32_t n;
    struct volume **of = apply_snapshots_of(a, v, &n);

    for (uint32_t i = 0; i < n; i++) {
        state_volume_rename(of[i], pad_printf(a->pad, "%s%s", name, strchr(of[i]->name, '@')));
        of[i]->version = a->number;
        if (of[i]->luns > 0)
            a->st->exports_version = a->number;
        codec_put_volume(a->to, of[i]);
    }
}

int apply_volume_set(struct apply *a)
{
    const Zbs__Metalog__VolumeSet *m = a->record->volume_set;
    struct volume *v = state_volume(a->st, m->volume_id);
    uint32_t slots = v != NULL ? v->n_slots : 0;

    if (v == NULL || v->removed || (m->size_bytes != 0 && m->size_bytes < v->size_bytes) ||
        m->size_bytes > VOLUME_BYTES_MAX)
        return apply_misfit(a, "volume");
    if (m->size_bytes != 0)
        state_volume_resize(v, m->size_bytes);
    apply_volume_thick_from(a, v, slots);
    if (m->name[0] != 0) {
        if (pool_volume(v->pool, m->name) != NULL)
            return apply_misfit(a, "name is taken");
        rename_snapshots(a, v, m->name);
        state_volume_rename(v, m->name);
    }
    v->version = a->number;
    if (v->luns > 0)
        a->st->exports_version = a->number;
    codec_put_volume(a->to, v);
    reply_volume(a, v);
    return 0;
}

bool apply_volume_drop(struct apply *a, uint64_t volume_id)
{
    struct volume *v = state_volume(a->st, volume_id);

    if (v == NULL || v->removed || v->luns > 0)
        return false;
    apply_reservation_drop(a, v->id);
    state_volume_mark_removed(a->st, v);
    v->version = a->number;
    codec_put_volume(a->to, v);
    return true;
}

int apply_volume_remove(struct apply *a)
{
    if (!apply_volume_drop(a, a->record->volume_remove->volume_id))
        return apply_misfit(a, "volume is unknown or exported");
    return 0;
}

/* Leases and extents of one page's worth of slots. How much that was, in changes of the store. */
static uint32_t sweep_page(struct apply *a, struct volume *v, uint32_t index)
{
    struct slot_page *slots = v->pages[index];
    struct table_page *p = v->table[index];
    uint32_t changes = 0;

    for (uint32_t i = 0; slots != NULL && i < SLOTS_PER_PAGE; i++) {
        struct slot *s = &slots->slots[i];

        if (!s->used)
            continue;
        state_slot_own(a->st, s, 0);
        codec_del_slot(a->to, v->id, s->number);
        s->used = false;
        changes++;
    }
    if (p != NULL) {
        changes += p->refs == 1 ? 1 + p->n_extents : 1;
        apply_page_drop(a, volume_set_page(v, index, NULL));
    }
    return changes;
}

int apply_volume_sweep(struct apply *a)
{
    const Zbs__Metalog__VolumeSweep *m = a->record->volume_sweep;
    struct volume *v = state_volume(a->st, m->volume_id);
    uint32_t first, index, changes = 0;

    if (v == NULL || !v->removed)
        return apply_misfit(a, "sweep of a volume that is not removed");
    first = index = v->sweep_next / SLOTS_PER_PAGE;
    for (; index < v->n_pages && changes < m->max; index++)
        changes += sweep_page(a, v, index);
    for (uint32_t i = ROUND_DOWN(first, TABLE_GROUP); i < index; i += TABLE_GROUP)
        codec_put_table(a->to, v, i);
    v->sweep_next = index * SLOTS_PER_PAGE;
    if (index < v->n_pages) {
        codec_put_volume(a->to, v);
        return 0;
    }
    codec_del_volume(a->to, v->id);
    state_volume_free(a->st, v);
    return 0;
}

/* ---- exports ---- */

static void target_changed(struct apply *a, const struct target *t)
{
    Zbs__Meta__Target view;

    a->st->exports_version = a->number;
    codec_put_target(a->to, t);
    view_target(&view, a->st, t, a->pad);
    a->reply = view_pack(&view.base, a->pad);
}

int apply_target_set(struct apply *a)
{
    const Zbs__Metalog__TargetSet *m = a->record->target_set;
    struct target *t = state_target(a->st, m->iqn);

    if (m->n_initiators > INITIATORS_MAX)
        return apply_misfit(a, "too many initiators");
    if (t == NULL)
        t = state_target_add(a->st, m->iqn);
    str_set(&t->chap_user, m->chap_user);
    str_set(&t->chap_secret, m->chap_secret);
    for (uint32_t i = 0; i < t->n_initiators; i++)
        mem_free(t->initiators[i]);
    mem_free(t->initiators);
    t->initiators = MEM_NEW_ARRAY(char *, m->n_initiators + 1);
    t->n_initiators = (uint32_t)m->n_initiators;
    for (size_t i = 0; i < m->n_initiators; i++)
        t->initiators[i] = mem_strdup(m->initiators[i]);
    target_changed(a, t);
    return 0;
}

int apply_target_remove(struct apply *a)
{
    struct target *t = state_target(a->st, a->record->target_remove->iqn);

    if (t == NULL)
        return apply_misfit(a, "unknown target");
    codec_del_target(a->to, t->iqn);
    state_target_remove(a->st, t);
    a->st->exports_version = a->number;
    return 0;
}

int apply_lun_set(struct apply *a)
{
    const Zbs__Metalog__LunSet *m = a->record->lun_set;
    struct target *t = state_target(a->st, m->iqn);
    struct volume *v = state_volume(a->st, m->volume_id);

    if (t == NULL || v == NULL || v->removed || m->lun >= LUNS_MAX || target_lun(t, m->lun) != NULL)
        return apply_misfit(a, "LUN");
    state_lun_set(a->st, t, m->lun, v);
    target_changed(a, t);
    return 0;
}

int apply_lun_unset(struct apply *a)
{
    const Zbs__Metalog__LunUnset *m = a->record->lun_unset;
    struct target *t = state_target(a->st, m->iqn);
    struct target_lun *lun = t != NULL ? target_lun(t, m->lun) : NULL;

    if (lun == NULL)
        return apply_misfit(a, "unknown LUN");
    state_lun_unset(a->st, t, lun);
    target_changed(a, t);
    return 0;
}
