/* SPDX-License-Identifier: Apache-2.0
 *
 * The metadata in memory: see state.h. Finding, and life and death of the whole. */
#include "meta/state.h"

#include <string.h>
#include "common/base/assert.h"
#include "common/base/mem.h"
#include "meta/reservations.h"
#include "meta/settings.h"
#include "meta/state_compare.h"

void str_set(char **to, const char *from)
{
    char *copy = mem_strdup(from);

    mem_free(*to);
    *to = copy;
}

void state_init(struct state *st)
{
    *st = (struct state){
        .next_mutation = 1, .next_pool_id = 1, .next_chunk_id = 1, .next_page_id = 1, .health = 1};
    tree_init(&st->tree);
    list_init(&st->orphans);
    list_init(&st->fresh);
    for (uint32_t i = 0; i < DANGERS; i++)
        list_init(&st->unsettled[i]);
    list_init(&st->results);
}

static void session_free(struct session *s)
{
    mem_free(s->name);
    mem_free(s->addr);
    mem_free(s->host);
    mem_free(s->rack);
    mem_free(s->zone);
    mem_free(s->iscsi_portal);
    mem_free(s);
}

static void chunk_free(struct chunk *c)
{
    mem_free(c->addr);
    mem_free(c->addr_unix);
    mem_free(c->host);
    mem_free(c->rack);
    mem_free(c->zone);
    for (uint64_t i = 0; i < c->garbage.cap; i++) {
        if (c->garbage.entries[i].id != 0)
            mem_free((void *)(uintptr_t)c->garbage.entries[i].value);
    }
    idmap_fini(&c->garbage);
    mem_free(c);
}

void state_chunk_remove(struct state *st, struct chunk *c)
{
    ASSERT(c->replicas == 0);
    sorted_remove(&st->chunks, compare_chunk, &c->id);
    chunk_free(c);
}

static void target_free(struct target *t)
{
    for (uint32_t i = 0; i < t->n_initiators; i++)
        mem_free(t->initiators[i]);
    mem_free(t->initiators);
    mem_free(t->iqn);
    mem_free(t->chap_user);
    mem_free(t->chap_secret);
    mem_free(t->luns);
    mem_free(t);
}

static void volume_free(struct volume *v)
{
    for (uint32_t i = 0; i < v->n_pages; i++)
        mem_free(v->pages[i]);
    mem_free(v->pages);
    mem_free(v->table);
    mem_free(v->name);
    mem_free(v->preferred_host);
    mem_free(v);
}

static void pool_free(struct pool *p)
{
    sorted_fini(&p->volumes);
    mem_free(p->name);
    mem_free(p->failure_domain);
    mem_free(p);
}

static void extent_free(struct extent *e)
{
    mem_free(e->lease);
    mem_free(e->unsettled);
    mem_free(e);
}

void state_fini(struct state *st)
{
    for (uint64_t i = 0; i < st->extents.cap; i++) {
        if (st->extents.entries[i].id != 0)
            extent_free((struct extent *)(uintptr_t)st->extents.entries[i].value);
    }
    for (uint64_t i = 0; i < st->pages.cap; i++) {
        if (st->pages.entries[i].id != 0)
            mem_free((void *)(uintptr_t)st->pages.entries[i].value);
    }
    for (uint64_t i = 0; i < st->volumes.cap; i++) {
        if (st->volumes.entries[i].id != 0)
            volume_free((struct volume *)(uintptr_t)st->volumes.entries[i].value);
    }
    for (uint32_t i = 0; i < st->pools.count; i++)
        pool_free(st->pools.items[i]);
    for (uint32_t i = 0; i < st->chunks.count; i++)
        chunk_free(st->chunks.items[i]);
    for (uint32_t i = 0; i < st->sessions.count; i++)
        session_free(st->sessions.items[i]);
    for (uint32_t i = 0; i < st->targets.count; i++)
        target_free(st->targets.items[i]);
    while (st->n_results > 0)
        state_result_drop_oldest(st);
    sorted_fini(&st->pools);
    sorted_fini(&st->chunks);
    sorted_fini(&st->sessions);
    sorted_fini(&st->targets);
    sorted_fini(&st->removed);
    sorted_fini(&st->policies);
    sorted_fini(&st->flattens);
    sorted_fini(&st->passes);
    state_settings_fini(st);
    state_reservations_fini(st);
    tree_fini(&st->tree);
    idmap_fini(&st->volumes);
    idmap_fini(&st->extents);
    idmap_fini(&st->families);
    idmap_fini(&st->pages);
    idmap_fini(&st->results_by_hash);
    state_init(st);
}

/* ---- finding ---- */

struct pool *state_pool(const struct state *st, const char *name)
{
    return sorted_find(&st->pools, compare_pool, name);
}

struct pool *state_pool_by_id(const struct state *st, uint32_t id)
{
    for (uint32_t i = 0; i < st->pools.count; i++) {
        struct pool *p = st->pools.items[i];

        if (p->id == id)
            return p;
    }
    return NULL;
}

struct volume *state_volume(const struct state *st, uint64_t id)
{
    return idmap_get_ptr(&st->volumes, id);
}

struct volume *pool_volume(const struct pool *pool, const char *name)
{
    return sorted_find(&pool->volumes, compare_volume, name);
}

uint32_t pool_volumes_behind(const struct pool *pool, const char *name)
{
    bool found;
    uint32_t at = sorted_lower(&pool->volumes, compare_volume, name, &found);

    return at + found;
}

struct volume **volume_snapshots(const struct volume *v, uint32_t *ret_count)
{
    const struct sorted *all = &v->pool->volumes;
    bool found;
    uint32_t first = sorted_lower(all, compare_snapshot, v, &found), end = first;

    while (end < all->count && compare_snapshot(all->items[end], v) == 0)
        end++;
    *ret_count = end - first;
    return (struct volume **)all->items + first;
}

struct chunk *state_chunk(const struct state *st, uint32_t id)
{
    return sorted_find(&st->chunks, compare_chunk, &id);
}

uint64_t state_host_maintenance(const struct state *st, const char *host)
{
    for (uint32_t i = 0; i < st->chunks.count; i++) {
        const struct chunk *c = st->chunks.items[i];

        if (c->maintenance && host[0] != 0 && strcmp(c->host, host) == 0)
            return c->marked_at;
    }
    return 0;
}

struct chunk *state_chunk_by_uuid(const struct state *st, const uint8_t *uuid)
{
    for (uint32_t i = 0; i < st->chunks.count; i++) {
        struct chunk *c = st->chunks.items[i];

        if (memcmp(c->uuid, uuid, sizeof(c->uuid)) == 0)
            return c;
    }
    return NULL;
}

struct session *state_session(const struct state *st, uint64_t id)
{
    return sorted_find(&st->sessions, compare_session, &id);
}

struct session *state_session_by_name(const struct state *st, const char *name)
{
    for (uint32_t i = 0; i < st->sessions.count; i++) {
        struct session *s = st->sessions.items[i];

        if (strcmp(s->name, name) == 0)
            return s;
    }
    return NULL;
}

struct target *state_target(const struct state *st, const char *iqn)
{
    return sorted_find(&st->targets, compare_target, iqn);
}

struct target_lun *target_lun(const struct target *t, uint32_t lun)
{
    for (uint32_t i = 0; i < t->n_luns; i++) {
        if (t->luns[i].lun == lun)
            return &t->luns[i];
    }
    return NULL;
}

struct extent *state_extent(const struct state *st, uint64_t extent_id)
{
    return idmap_get_ptr(&st->extents, extent_id);
}

struct slot *volume_slot(const struct volume *v, uint32_t number)
{
    struct slot_page *page;
    struct slot *s;

    if (number >= v->n_slots)
        return NULL;
    page = v->pages[number / SLOTS_PER_PAGE];
    if (page == NULL)
        return NULL;
    s = &page->slots[number % SLOTS_PER_PAGE];
    return s->used ? s : NULL;
}

struct session *slot_owner(const struct state *st, const struct slot *s)
{
    return s->owner == 0 ? NULL : state_session(st, s->owner);
}

static bool has_chunk(const uint32_t *ids, uint32_t n, uint32_t chunk_id)
{
    for (uint32_t i = 0; i < n; i++) {
        if (ids[i] == chunk_id)
            return true;
    }
    return false;
}

bool extent_has_member(const struct extent *e, uint32_t chunk_id)
{
    return has_chunk(extent_members(e), e->n_members, chunk_id);
}

bool extent_has_absent(const struct extent *e, uint32_t chunk_id)
{
    return has_chunk(extent_absent(e), e->n_absent, chunk_id);
}

const struct garbage *chunk_garbage(const struct chunk *c, uint64_t extent_id)
{
    return idmap_get_ptr(&c->garbage, extent_id);
}

/* ---- results of mutations ---- */

static uint64_t result_hash(uint64_t client, uint64_t number)
{
    uint64_t h = (client ^ number * 0x9e3779b97f4a7c15u) * 0xff51afd7ed558ccdu;

    h ^= h >> 32;
    return h != 0 ? h : 1;
}

struct result *state_result(const struct state *st, uint64_t client, uint64_t number)
{
    struct result *r = idmap_get_ptr(&st->results_by_hash, result_hash(client, number));

    while (r != NULL && (r->client != client || r->number != number))
        r = r->next;
    return r;
}

void state_result_add(struct state *st, uint64_t mutation, uint64_t client, uint64_t number,
                      const void *reply, size_t len)
{
    struct result *r = MEM_NEW(struct result);
    uint64_t hash = result_hash(client, number);

    ASSERT(state_result(st, client, number) == NULL);
    r->mutation = mutation;
    r->client = client;
    r->number = number;
    r->reply = mem_alloc(MAX(len, (size_t)1));
    if (len > 0)
        memcpy(r->reply, reply, len);
    r->reply_len = (uint32_t)len;
    r->next = idmap_get_ptr(&st->results_by_hash, hash);
    idmap_put_ptr(&st->results_by_hash, hash, r);
    list_push_back(&st->results, &r->link);
    st->n_results++;
}

struct result *state_result_oldest(const struct state *st)
{
    ASSERT(!list_empty(&st->results));
    return CONTAINER_OF(st->results.next, struct result, link);
}

void state_result_drop_oldest(struct state *st)
{
    struct result *r = state_result_oldest(st);
    uint64_t hash = result_hash(r->client, r->number);
    struct result *head = idmap_get_ptr(&st->results_by_hash, hash);

    if (head == r) {
        if (r->next != NULL)
            idmap_put_ptr(&st->results_by_hash, hash, r->next);
        else
            idmap_del(&st->results_by_hash, hash);
    } else {
        while (head->next != r)
            head = head->next;
        head->next = r->next;
    }
    list_del(&r->link);
    st->n_results--;
    mem_free(r->reply);
    mem_free(r);
}

/* ---- ends of life ---- */

void state_pool_remove(struct state *st, struct pool *pool)
{
    ASSERT(pool->volumes.count == 0);
    sorted_remove(&st->pools, compare_pool, pool->name);
    pool_free(pool);
}

void state_volume_free(struct state *st, struct volume *v)
{
    ASSERT(v->removed && v->extents == 0);
    sorted_remove(&st->removed, compare_volume_id, &v->id);
    if (v->inode_id != 0)
        st->n_file_volumes--;
    idmap_del(&st->volumes, v->id);
    volume_free(v);
}

void state_session_remove(struct state *st, struct session *s)
{
    list_splice_back(&st->orphans, &s->owned);
    sorted_remove(&st->sessions, compare_session, &s->id);
    session_free(s);
}

void state_target_remove(struct state *st, struct target *t)
{
    while (t->n_luns > 0)
        state_lun_unset(st, t, &t->luns[t->n_luns - 1]);
    sorted_remove(&st->targets, compare_target, t->iqn);
    target_free(t);
}
