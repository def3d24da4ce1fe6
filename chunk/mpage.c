/* SPDX-License-Identifier: Apache-2.0
 *
 * Metadata pages: which are dirty, which somebody holds, and which may leave memory. */
#include "chunk/internal.h"

/* Pages that are read when needed; the others are, or are views of, what is in memory anyway. */
static bool is_cached(const struct mpage *m)
{
    return m->kind == MP_MAP || m->kind == MP_GENS || m->kind == MP_REFS;
}

void mpage_init(struct mpage *m, struct dev *d, enum mpage_kind kind, uint32_t index, struct ext *x)
{
    *m = (struct mpage){.dev = d, .kind = kind, .index = index, .ext = x, .dirty_rsn = RSN_NONE};
    list_init(&m->dirty);
    list_init(&m->idle);
}

static bool in_use(const struct mpage *m)
{
    return m->holds > 0 || m->images > 0 || m->dirty_rsn != RSN_NONE;
}

/* Puts it on the list of those that may leave, or takes it off. */
static void settle(struct mpage *m)
{
    if (m->kind == MP_HEAD && m->ext->map != NULL)
        settle(&m->ext->map->gens); /* a dirty head needs them */
    if (!is_cached(m))
        return;
    if (in_use(m) || (m->kind == MP_GENS && in_use(&m->ext->head_page)))
        list_del(&m->idle);
    else if (!list_linked(&m->idle))
        list_push_back(&m->dev->e->idle, &m->idle);
}

void mpage_hold(struct mpage *m)
{
    m->holds++;
    settle(m);
}

void mpage_release(struct mpage *m)
{
    ASSERT(m->holds > 0);
    m->holds--;
    settle(m);
}

/* ---- dirty pages ---- */

void mpage_dirty(struct dev *d, struct mpage *m, uint64_t rsn)
{
    if (!list_linked(&m->dirty)) {
        list_push_back(&d->dirty, &m->dirty);
        d->e->dirty_pages += m->kind == MP_MAP;
    }
    m->dirty_rsn = MIN(m->dirty_rsn, rsn);
    settle(m);
    if (is_cached(m) && memory_dirty(d->e) && !d->flush_now)
        flush_kick(d);
}

static void make_clean(struct mpage *m)
{
    if (list_linked(&m->dirty))
        m->dev->e->dirty_pages -= m->kind == MP_MAP;
    list_del(&m->dirty);
    m->dirty_rsn = RSN_NONE;
}

void mpage_forget(struct mpage *m)
{
    make_clean(m);
    settle(m);
}

void mpage_image_begin(struct mpage *m)
{
    m->images++;
    make_clean(m);
    settle(m);
}

void mpage_image_end(struct mpage *m)
{
    ASSERT(m->images > 0);
    m->images--;
    settle(m);
}

/* ---- memory ---- */

void mpage_charge(struct mpage *m, uint32_t bytes)
{
    m->bytes += bytes;
    budget_add(&m->dev->e->memory, &m->dev->e->mem_meta, bytes);
}

void mpage_fini(struct mpage *m)
{
    make_clean(m);
    list_del(&m->idle);
    budget_sub(&m->dev->e->memory, &m->dev->e->mem_meta, m->bytes);
    m->bytes = 0;
}

/* For the budget: those that nobody needed for the longest time go first. */
static void reclaim(void *arg, uint64_t bytes)
{
    struct engine *e = arg;
    uint64_t until = e->mem_meta.bytes > bytes ? e->mem_meta.bytes - bytes : 0;

    while (e->mem_meta.bytes > until && !list_empty(&e->idle)) {
        struct mpage *m = LIST_FIRST(&e->idle, struct mpage, idle);

        if (m->kind == MP_REFS)
            refs_evict(m);
        else
            map_evict(m);
    }
}

void mpages_init(struct engine *e)
{
    list_init(&e->idle);
    budget_join(&e->memory, &e->mem_meta, 50, reclaim, e);
}

#define DIRTY_PAGES_MIN 16u

static uint64_t dirty_max(const struct engine *e, uint32_t part)
{
    return MAX(budget_room(&e->memory) / part / PAGE_BYTES, DIRTY_PAGES_MIN);
}

bool memory_dirty(const struct engine *e)
{
    return e->dirty_pages > dirty_max(e, 4);
}

bool memory_full_of_dirt(const struct engine *e)
{
    return e->dirty_pages > dirty_max(e, 2);
}
