/* SPDX-License-Identifier: Apache-2.0
 *
 * Applying new policies of pools and volumes. */
#include <string.h>
#include "meta/apply.h"
#include "common/base/units.h"
#include "meta/codec.h"
#include "meta/table.h"

static bool replicas_fit(uint32_t replicas, uint32_t min)
{
    return replicas >= 1 && replicas <= REPLICAS_MAX && min >= 1 && min <= replicas;
}

static void volume_changed(struct apply *a, struct volume *v)
{
    v->version = a->number;
    if (v->luns > 0)
        a->st->exports_version = a->number;
    codec_put_volume(a->to, v);
}

/* With its snapshots, whose names contain its own. */
static bool move_volume(struct apply *a, struct volume *v, struct pool *to)
{
    uint32_t n;
    struct volume **of = apply_snapshots_of(a, v, &n);

    of[n++] = v;
    for (uint32_t i = 0; i < n; i++) {
        if (pool_volume(to, of[i]->name) != NULL)
            return false;
        state_volume_move(of[i], to);
        state_volume_policy_left(a->st, of[i], of[i]->n_pages); /* so have its extents */
        volume_changed(a, of[i]);
    }
    return true;
}

int apply_volume_policy(struct apply *a)
{
    const Zbs__Metalog__VolumePolicy *m = a->record->volume_policy;
    struct volume *v = state_volume(a->st, m->volume_id);
    struct pool *pool = state_pool_by_id(a->st, m->pool_id);
    Zbs__Meta__Volume view;

    if (v == NULL || v->removed || pool == NULL || !replicas_fit(m->replicas, m->min_replicas))
        return apply_misfit(a, "volume policy");
    if (pool != v->pool && !move_volume(a, v, pool))
        return apply_misfit(a, "name is taken");
    state_volume_policy(a->st, v, m->replicas, m->min_replicas);
    limits_set(&v->limits, m->limits);
    apply_volume_thick(a, v, m->thick);
    volume_changed(a, v);
    view_volume(&view, a->st, v);
    a->reply = view_pack(&view.base, a->pad);
    return 0;
}

int apply_pool_policy(struct apply *a)
{
    const Zbs__Metalog__PoolPolicy *m = a->record->pool_policy;
    struct pool *p = state_pool_by_id(a->st, m->pool_id);
    uint32_t replicas, min;
    Zbs__Meta__Pool view;

    if (p == NULL || !replicas_fit(m->replicas, m->min_replicas))
        return apply_misfit(a, "pool policy");
    replicas = p->replicas;
    min = p->min_replicas;
    p->replicas = m->replicas;
    p->min_replicas = m->min_replicas;
    str_set(&p->failure_domain, m->failure_domain);
    limits_set(&p->limits, m->limits);
    codec_put_pool(a->to, p);
    for (uint32_t i = 0;
         i < p->volumes.count && (replicas != p->replicas || min != p->min_replicas); i++) {
        struct volume *v = p->volumes.items[i];

        if (v->replicas != replicas || v->min_replicas != min)
            continue; /* has its own */
        state_volume_policy(a->st, v, p->replicas, p->min_replicas);
        volume_changed(a, v);
    }
    view_pool(&view, p);
    a->reply = view_pack(&view.base, a->pad);
    return 0;
}

void apply_extent_policy(struct apply *a, const struct volume *v, struct extent *e)
{
    bool own = extent_volume(a->st, e) == v;
    uint32_t wanted = own ? v->replicas : MAX(v->replicas, e->wanted);
    uint32_t min = own ? v->min_replicas : MAX(v->min_replicas, e->min_replicas);

    if (wanted == e->wanted && min == e->min_replicas && e->pool_id == v->pool_id)
        return;
    e->pool_id = v->pool_id;
    state_extent_uncount(a->st, e);
    e->wanted = (uint8_t)wanted;
    e->min_replicas = (uint8_t)min;
    state_extent_count(a->st, e);
    codec_put_extent(a->to, e);
}

int apply_policy_sweep(struct apply *a)
{
    const Zbs__Metalog__PolicySweep *m = a->record->policy_sweep;
    struct volume *v = state_volume(a->st, m->volume_id);
    uint32_t left, changes = 0;

    if (v == NULL || v->policy_left == 0)
        return apply_misfit(a, "sweep of a volume whose policy has not changed");
    for (left = v->policy_left; left > 0 && changes < m->max; left--) {
        const struct table_page *p = v->table[left - 1];

        for (uint32_t i = 0; p != NULL && i < SLOTS_PER_PAGE; i++) {
            if (p->extents[i] != NULL)
                apply_extent_policy(a, v, p->extents[i]);
        }
        changes += p != NULL ? p->n_extents : 0;
    }
    state_volume_policy_left(a->st, v, left);
    codec_put_volume(a->to, v);
    return 0;
}

/* ---- a smaller size ---- */

static void lease_drop(struct apply *a, struct slot *s)
{
    state_slot_own(a->st, s, 0);
    codec_del_slot(a->to, s->volume->id, s->number);
    s->used = false;
}

static void extent_cut(struct apply *a, struct volume *v, uint32_t number)
{
    struct extent *e = volume_extent(v, number);
    struct table_page *p;

    if (e == NULL)
        return;
    p = apply_page_own(a, v, number / SLOTS_PER_PAGE);
    page_set(p, v, number % SLOTS_PER_PAGE, NULL);
    codec_put_page(a->to, p);
    apply_extent_drop(a, e);
}

/* One page of the table, from slot `first` on. */
static void page_cut(struct apply *a, struct volume *v, uint32_t index, uint32_t first)
{
    uint32_t base = index * SLOTS_PER_PAGE;

    for (uint32_t n = MAX(first, base); n < MIN(base + SLOTS_PER_PAGE, v->n_slots); n++) {
        struct slot *s = volume_slot(v, n);

        if (s != NULL)
            lease_drop(a, s);
        if (first > base)
            extent_cut(a, v, n);
    }
    if (first > base)
        return;
    apply_page_drop(a, volume_set_page(v, index, NULL));
    codec_put_table(a->to, v, index);
}

int apply_volume_shrink(struct apply *a)
{
    const Zbs__Metalog__VolumeShrink *m = a->record->volume_shrink;
    struct volume *v = state_volume(a->st, m->volume_id);
    Zbs__Meta__Volume view;
    uint32_t first;

    if (v == NULL || v->removed || v->snapshot || m->size_bytes == 0 ||
        m->size_bytes >= v->size_bytes)
        return apply_misfit(a, "smaller size");
    first = layout_slots(&v->layout, m->size_bytes);
    for (uint32_t i = first / SLOTS_PER_PAGE; i < v->n_pages; i++)
        page_cut(a, v, i, first);
    state_volume_shrink(a->st, v, m->size_bytes);
    volume_changed(a, v);
    view_volume(&view, a->st, v);
    a->reply = view_pack(&view.base, a->pad);
    return 0;
}
