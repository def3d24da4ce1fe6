/* SPDX-License-Identifier: Apache-2.0
 *
 * The volumes' tables, their pages, and extents: see table.h. */
#include "meta/table.h"

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "meta/family.h"

/* ---- finding ---- */

struct extent *volume_extent(const struct volume *v, uint32_t number)
{
    const struct table_page *p;

    if (number >= v->n_slots)
        return NULL;
    p = v->table[number / SLOTS_PER_PAGE];
    return p != NULL ? p->extents[number % SLOTS_PER_PAGE] : NULL;
}

struct volume *extent_volume(const struct state *st, const struct extent *e)
{
    const struct table_page *p;
    struct volume *v;

    if (e->refs != 1 || !list_empty(&e->unborn))
        return NULL;
    p = (const struct table_page *)(uintptr_t)e->pages_sum;
    if (p->refs != 1)
        return NULL;
    v = state_volume(st, p->volumes_sum);
    return v->snapshot ? NULL : v;
}

struct slot *extent_lease(const struct state *st, const struct extent *e)
{
    const struct volume *v = extent_volume(st, e);

    return v != NULL ? volume_slot(v, e->slot) : e->lease;
}

struct extent *slot_extent(const struct slot *s)
{
    return s->volume != NULL ? volume_extent(s->volume, s->number) : s->extent;
}

bool slot_writes(const struct slot *s, const struct extent *e)
{
    if (e == NULL || s->epoch != e->epoch)
        return false;
    return s->volume == NULL || s->epoch > s->volume->shared_at;
}

/* ---- health ---- */

static bool extent_is_degraded(const struct extent *e)
{
    return e->n_members < e->wanted;
}

static bool extent_is_at_risk(const struct extent *e)
{
    return e->n_members == 1 && e->wanted > 1;
}

static void page_look(struct table_page *p, uint64_t health)
{
    p->health_at = health;
    p->degraded = p->at_risk = 0;
    for (uint32_t i = 0; i < SLOTS_PER_PAGE; i++) {
        if (p->extents[i] == NULL)
            continue;
        p->degraded = (uint8_t)(p->degraded + extent_is_degraded(p->extents[i]));
        p->at_risk = (uint8_t)(p->at_risk + extent_is_at_risk(p->extents[i]));
    }
}

uint32_t volume_unready(const struct state *st, const struct volume *v, bool unowned_only,
                        uint64_t *ids, uint32_t max)
{
    uint32_t found = 0;

    LIST_FOREACH (s, &st->orphans, struct slot, owned) {
        const struct extent *e = s->volume == v ? slot_extent(s) : NULL;

        if (found < max && e != NULL && slot_writes(s, e))
            ids[found++] = e->id;
    }
    LIST_FOREACH (e, &st->fresh, struct extent, fresh) {
        const struct slot *s = extent_volume(st, e) == v ? volume_slot(v, e->slot) : NULL;

        if (found < max && s != NULL && s->owner == 0)
            ids[found++] = e->id;
        else if (found < max && s != NULL && !unowned_only && slot_owner(st, s) != NULL)
            ids[found++] = e->id;
    }
    return found;
}

struct health volume_health(const struct state *st, const struct volume *v)
{
    struct health h = {0};

    if (st->n_degraded == 0)
        return h;
    for (uint32_t i = 0; i < v->n_pages; i++) {
        struct table_page *p = v->table[i];

        if (p == NULL)
            continue;
        if (p->health_at != st->health)
            page_look(p, st->health);
        h.degraded += p->degraded;
        h.at_risk += p->at_risk;
    }
    return h;
}

/* ---- extents ---- */

static void unsettled_end(struct state *st, struct extent *e)
{
    if (e->unsettled == NULL)
        return;
    st->n_unsettled[e->unsettled->danger]--;
    list_del(&e->unsettled->link);
    mem_free(e->unsettled);
    e->unsettled = NULL;
}

static void unsettled_set(struct state *st, struct extent *e)
{
    uint32_t danger = extent_is_degraded(e) ? e->n_members - 1u : DANGER_NONE;
    int64_t task_ns = e->unsettled != NULL ? e->unsettled->task_ns : 0;

    if (e->unsettled != NULL && e->unsettled->danger == danger)
        return;
    unsettled_end(st, e);
    e->unsettled = MEM_NEW(struct unsettled);
    *e->unsettled = (struct unsettled){.extent = e, .danger = danger, .task_ns = task_ns};
    list_push_back(&st->unsettled[danger], &e->unsettled->link);
    st->n_unsettled[danger]++;
}

struct extent *state_extent_add(struct state *st, uint64_t id, uint64_t family, uint32_t slot)
{
    struct extent *e = MEM_NEW(struct extent);

    ASSERT(state_extent(st, id) == NULL);
    e->id = id;
    e->family = family;
    e->slot = slot;
    list_init(&e->unborn);
    list_init(&e->sibling);
    list_push_back(&st->fresh, &e->fresh);
    family_join(st, e);
    idmap_put_ptr(&st->extents, id, e);
    return e;
}

void state_extent_free(struct state *st, struct extent *e)
{
    ASSERT(e->refs == 0 && list_empty(&e->unborn));
    unsettled_end(st, e);
    extent_lease_end(st, e);
    extent_set_created(e);
    family_leave(st, e);
    idmap_del(&st->extents, e->id);
    mem_free(e);
}

void extent_set_origin(struct extent *e, struct extent *origin)
{
    list_del(&e->sibling);
    e->origin = origin;
    if (origin != NULL)
        list_push_back(&origin->unborn, &e->sibling);
}

void extent_set_created(struct extent *e)
{
    extent_set_origin(e, NULL);
    list_del(&e->fresh);
    e->created = true;
}

struct slot *extent_lease_make(struct extent *e)
{
    if (e->lease == NULL) {
        e->lease = MEM_NEW(struct slot);
        e->lease->extent = e;
        e->lease->number = e->slot;
        e->lease->used = true;
        list_init(&e->lease->owned);
    }
    return e->lease;
}

void extent_lease_end(struct state *st, struct extent *e)
{
    if (e->lease == NULL)
        return;
    state_slot_own(st, e->lease, 0);
    mem_free(e->lease);
    e->lease = NULL;
}

void state_extent_uncount(struct state *st, struct extent *e)
{
    st->n_extents--;
    st->n_at_risk -= extent_is_at_risk(e);
    st->n_degraded -= extent_is_degraded(e);
    st->health += extent_is_degraded(e);
    for (uint32_t i = 0; i < e->n_members + e->n_absent; i++)
        state_chunk(st, e->replicas[i])->replicas--;
}

void state_extent_count(struct state *st, struct extent *e)
{
    st->n_extents++;
    st->n_at_risk += extent_is_at_risk(e);
    st->n_degraded += extent_is_degraded(e);
    st->health += extent_is_degraded(e);
    if (e->n_members == e->wanted && e->n_absent == 0)
        unsettled_end(st, e);
    else
        unsettled_set(st, e);
    for (uint32_t i = 0; i < e->n_members + e->n_absent; i++)
        state_chunk(st, e->replicas[i])->replicas++;
}

/* ---- pages ---- */

struct table_page *state_page_add(struct state *st, uint64_t id, uint32_t index)
{
    struct table_page *p = MEM_NEW(struct table_page);

    p->id = id;
    p->index = index;
    idmap_put_ptr(&st->pages, id, p);
    return p;
}

void state_page_free(struct state *st, struct table_page *p)
{
    ASSERT(p->refs == 0);
    for (uint32_t i = 0; i < SLOTS_PER_PAGE; i++)
        page_set(p, NULL, i, NULL);
    idmap_del(&st->pages, p->id);
    mem_free(p);
}

void page_set(struct table_page *p, struct volume *v, uint32_t at, struct extent *e)
{
    struct extent *former = p->extents[at];

    ASSERT(p->refs == (v != NULL));
    if (former != NULL) {
        former->refs--;
        former->pages_sum -= (uintptr_t)p;
        p->n_extents--;
        if (v != NULL)
            v->extents--;
    }
    p->extents[at] = e;
    p->health_at = 0;
    if (e != NULL) {
        e->refs++;
        e->pages_sum += (uintptr_t)p;
        p->n_extents++;
        if (v != NULL)
            v->extents++;
    }
}

struct table_page *volume_set_page(struct volume *v, uint32_t index, struct table_page *p)
{
    struct table_page *former = v->table[index];

    if (former != NULL) {
        former->refs--;
        former->volumes_sum -= v->id;
        v->extents -= former->n_extents;
    }
    v->table[index] = p;
    if (p != NULL) {
        p->refs++;
        p->volumes_sum += v->id;
        v->extents += p->n_extents;
    }
    return former;
}
