/* SPDX-License-Identifier: Apache-2.0
 *
 * The metadata in memory: adding to it and changing it, see state.h. */
#include "meta/state.h"

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "meta/state_compare.h"

struct pool *state_pool_add(struct state *st, uint32_t id, const char *name)
{
    struct pool *p = MEM_NEW(struct pool);

    p->id = id;
    p->name = mem_strdup(name);
    sorted_insert(&st->pools, compare_pool, name, p);
    return p;
}

static struct volume *volume_new(struct state *st, uint64_t id, const char *name,
                                 const struct layout *layout, uint64_t size_bytes)
{
    struct volume *v = MEM_NEW(struct volume);

    v->id = id;
    v->name = mem_strdup(name);
    v->preferred_host = mem_strdup("");
    v->layout = *layout;
    v->size_bytes = size_bytes;
    v->n_slots = layout_slots(layout, size_bytes);
    zbs__meta__provisioning__init(&v->provisioning);
    v->n_pages = DIV_UP(v->n_slots, SLOTS_PER_PAGE);
    v->pages = MEM_NEW_ARRAY(struct slot_page *, MAX(v->n_pages, 1u));
    v->table = MEM_NEW_ARRAY(struct table_page *, MAX(v->n_pages, 1u));
    idmap_put_ptr(&st->volumes, id, v);
    return v;
}

/* Into a pool, and out of it. */
static void pool_put(struct pool *pool, struct volume *v)
{
    v->pool = pool;
    v->pool_id = pool->id;
    sorted_insert(&pool->volumes, compare_volume, v->name, v);
    pool->bytes += v->snapshot ? 0 : v->size_bytes;
}

static void pool_take(struct volume *v)
{
    sorted_remove(&v->pool->volumes, compare_volume, v->name);
    v->pool->bytes -= v->snapshot ? 0 : v->size_bytes;
    v->pool = NULL;
}

struct volume *state_volume_add(struct state *st, struct pool *pool, uint64_t id, const char *name,
                                const struct layout *layout, uint64_t size_bytes)
{
    struct volume *v = volume_new(st, id, name, layout, size_bytes);

    pool_put(pool, v);
    st->n_volumes++;
    return v;
}

struct volume *state_volume_add_removed(struct state *st, uint64_t id, const char *name,
                                        const struct layout *layout, uint64_t size_bytes)
{
    struct volume *v = volume_new(st, id, name, layout, size_bytes);

    v->removed = true;
    sorted_insert(&st->removed, compare_volume_id, &id, v);
    return v;
}

void state_volume_snapshot(struct volume *v)
{
    ASSERT(!v->snapshot);
    if (v->pool != NULL)
        v->pool->bytes -= v->size_bytes;
    v->snapshot = true;
}

void state_volume_of_file(struct state *st, struct volume *v, uint64_t inode_id)
{
    ASSERT(v->inode_id == 0 && inode_id != 0);
    v->inode_id = inode_id;
    st->n_file_volumes++;
}

void state_volume_resize(struct volume *v, uint64_t size_bytes)
{
    uint32_t pages;

    ASSERT(v->pool != NULL && !v->snapshot && size_bytes >= v->size_bytes);
    v->pool->bytes += size_bytes - v->size_bytes;
    v->size_bytes = size_bytes;
    v->n_slots = layout_slots(&v->layout, size_bytes);
    pages = DIV_UP(v->n_slots, SLOTS_PER_PAGE);
    if (pages > v->n_pages) {
        v->pages = mem_realloc(v->pages, pages * sizeof(*v->pages));
        memset(v->pages + v->n_pages, 0, (pages - v->n_pages) * sizeof(*v->pages));
        v->table = mem_realloc(v->table, pages * sizeof(*v->table));
        memset(v->table + v->n_pages, 0, (pages - v->n_pages) * sizeof(*v->table));
        v->n_pages = pages;
    }
}

void state_volume_rename(struct volume *v, const char *name)
{
    struct pool *pool = v->pool;

    pool_take(v);
    str_set(&v->name, name);
    pool_put(pool, v);
}

void state_volume_move(struct volume *v, struct pool *to)
{
    pool_take(v);
    pool_put(to, v);
}

void state_volume_shrink(struct state *st, struct volume *v, uint64_t size_bytes)
{
    uint32_t pages;

    ASSERT(v->pool != NULL && !v->snapshot && size_bytes <= v->size_bytes);
    v->pool->bytes -= v->size_bytes - size_bytes;
    v->size_bytes = size_bytes;
    v->n_slots = layout_slots(&v->layout, size_bytes);
    pages = DIV_UP(v->n_slots, SLOTS_PER_PAGE);
    for (uint32_t i = pages; i < v->n_pages; i++) {
        ASSERT(v->table[i] == NULL);
        mem_free(v->pages[i]);
    }
    v->n_pages = pages;
    state_volume_policy_left(st, v, MIN(v->policy_left, pages));
    state_volume_pass(st, v, v->provisioning.pass, v->provisioning.next_slot,
                      v->provisioning.no_space);
}

void state_volume_policy_left(struct state *st, struct volume *v, uint32_t pages)
{
    bool was = v->policy_left > 0;

    v->policy_left = pages;
    if (was && pages == 0)
        sorted_remove(&st->policies, compare_volume_id, &v->id);
    else if (!was && pages > 0)
        sorted_insert(&st->policies, compare_volume_id, &v->id, v);
}

void state_volume_flatten(struct state *st, struct volume *v, bool on, uint32_t next_slot)
{
    if (v->flattening && !on)
        sorted_remove(&st->flattens, compare_volume_id, &v->id);
    else if (!v->flattening && on)
        sorted_insert(&st->flattens, compare_volume_id, &v->id, v);
    v->flattening = on;
    v->flatten_next = on ? next_slot : 0;
    v->flatten_task_ns = 0;
}

void state_volume_pass(struct state *st, struct volume *v, uint64_t pass, uint32_t next_slot,
                       bool no_space)
{
    Zbs__Meta__Provisioning *p = &v->provisioning;
    bool was = p->pass != 0, is = pass != 0 && next_slot < v->n_slots;

    if (was && !is)
        sorted_remove(&st->passes, compare_volume_id, &v->id);
    else if (!was && is)
        sorted_insert(&st->passes, compare_volume_id, &v->id, v);
    p->pass = is ? pass : 0;
    p->next_slot = is ? next_slot : 0;
    p->no_space = is && no_space;
    v->pass_task_ns = 0;
}

void state_volume_policy(struct state *st, struct volume *v, uint32_t replicas, uint32_t min)
{
    if (v->replicas == replicas && v->min_replicas == min)
        return;
    v->replicas = replicas;
    v->min_replicas = min;
    if (v->extents > 0)
        state_volume_policy_left(st, v, v->n_pages);
}

void state_volume_mark_removed(struct state *st, struct volume *v)
{
    ASSERT(!v->removed && v->luns == 0);
    state_volume_policy_left(st, v, 0);
    state_volume_flatten(st, v, false, 0);
    state_volume_pass(st, v, 0, 0, false);
    pool_take(v);
    v->removed = true;
    st->n_volumes--;
    sorted_insert(&st->removed, compare_volume_id, &v->id, v);
}

struct slot *volume_slot_make(struct volume *v, uint32_t number)
{
    struct slot_page **page;
    struct slot *s;

    ASSERT(number < v->n_slots);
    page = &v->pages[number / SLOTS_PER_PAGE];
    if (*page == NULL)
        *page = MEM_NEW(struct slot_page);
    s = &(*page)->slots[number % SLOTS_PER_PAGE];
    if (!s->used) {
        s->used = true;
        s->volume = v;
        s->number = number;
        list_init(&s->owned);
    }
    return s;
}

struct chunk *state_chunk_add(struct state *st, uint32_t id)
{
    struct chunk *c = MEM_NEW(struct chunk);

    c->id = id;
    sorted_insert(&st->chunks, compare_chunk, &id, c);
    return c;
}

struct session *state_session_add(struct state *st, uint64_t id)
{
    struct session *s = MEM_NEW(struct session);

    s->id = id;
    list_init(&s->owned);
    sorted_insert(&st->sessions, compare_session, &id, s);
    return s;
}

struct target *state_target_add(struct state *st, const char *iqn)
{
    struct target *t = MEM_NEW(struct target);

    t->iqn = mem_strdup(iqn);
    t->chap_user = mem_strdup("");
    t->chap_secret = mem_strdup("");
    sorted_insert(&st->targets, compare_target, iqn, t);
    return t;
}

void state_lun_set(struct state *st, struct target *t, uint32_t lun, struct volume *v)
{
    uint32_t at = 0;

    (void)st;
    ASSERT(target_lun(t, lun) == NULL && t->n_luns < LUNS_MAX);
    t->luns = mem_realloc(t->luns, (t->n_luns + 1) * sizeof(*t->luns));
    while (at < t->n_luns && t->luns[at].lun < lun)
        at++;
    memmove(t->luns + at + 1, t->luns + at, (t->n_luns - at) * sizeof(*t->luns));
    t->luns[at] = (struct target_lun){.lun = lun, .volume_id = v->id};
    t->n_luns++;
    v->luns++;
}

void state_lun_unset(struct state *st, struct target *t, struct target_lun *lun)
{
    struct volume *v = state_volume(st, lun->volume_id);
    uint32_t at = (uint32_t)(lun - t->luns);

    ASSERT(v != NULL && v->luns > 0 && at < t->n_luns);
    v->luns--;
    t->n_luns--;
    memmove(t->luns + at, t->luns + at + 1, (t->n_luns - at) * sizeof(*t->luns));
}

void state_slot_own(struct state *st, struct slot *s, uint64_t owner)
{
    struct session *session = owner == 0 ? NULL : state_session(st, owner);

    list_del(&s->owned);
    s->owner = owner;
    if (session != NULL)
        list_push_back(&session->owned, &s->owned);
    else if (owner != 0)
        list_push_back(&st->orphans, &s->owned);
}

void chunk_garbage_add(struct chunk *c, uint64_t extent_id, uint64_t epoch, uint64_t family)
{
    struct garbage *g = idmap_get_ptr(&c->garbage, extent_id);

    if (g == NULL) {
        g = MEM_NEW(struct garbage);
        idmap_put_ptr(&c->garbage, extent_id, g);
    }
    *g = (struct garbage){.epoch = epoch, .family = family};
}

bool chunk_garbage_del(struct chunk *c, uint64_t extent_id)
{
    struct garbage *g = idmap_get_ptr(&c->garbage, extent_id);

    idmap_del(&c->garbage, extent_id);
    mem_free(g);
    return g != NULL;
}
