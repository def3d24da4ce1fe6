/* SPDX-License-Identifier: Apache-2.0
 *
 * What the leader knows of the world: see live.h. */
#include "meta/live.h"
#include "meta/settings.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/units.h"
#include "common/env/env.h"
#include "meta/server.h"
#include "meta/state_compare.h"

static int compare_chunk_live(const void *item, const void *key)
{
    return compare_u64(((const struct chunk_live *)item)->id, *(const uint32_t *)key);
}

static int compare_session_live(const void *item, const void *key)
{
    return compare_u64(((const struct session_live *)item)->id, *(const uint64_t *)key);
}

void live_init(struct live *l, struct metad *m, uint64_t term)
{
    *l = (struct live){.m = m,
                       .start = co_now(),
                       .view_version = term << 32 | 1,
                       .changes = MEM_NEW_ARRAY(struct volume_change, VOLUME_CHANGES),
                       .volumes_version = term << 32 | 1};
}

static void chunk_live_free(struct chunk_live *c)
{
    idmap_fini(&c->lost);
    idmap_fini(&c->away);
    mem_free(c);
}

void live_fini(struct live *l)
{
    mem_free(l->changes);
    for (uint32_t i = 0; i < l->chunks.count; i++)
        chunk_live_free(l->chunks.items[i]);
    for (uint32_t i = 0; i < l->sessions.count; i++)
        mem_free(l->sessions.items[i]);
    sorted_fini(&l->chunks);
    sorted_fini(&l->sessions);
    shares_fini(&l->shares);
}

void live_restart(struct live *l, nsec_t now)
{
    l->start = now;
    for (uint32_t i = 0; i < l->chunks.count; i++)
        ((struct chunk_live *)l->chunks.items[i])->seen = now;
    for (uint32_t i = 0; i < l->sessions.count; i++)
        ((struct session_live *)l->sessions.items[i])->seen = now;
}

void live_extend(struct live *l, nsec_t span)
{
    nsec_t now = co_now();

    l->start = MIN(l->start + span, now);
    for (uint32_t i = 0; i < l->chunks.count; i++) {
        struct chunk_live *c = l->chunks.items[i];

        c->seen = MIN(c->seen + span, now);
    }
    for (uint32_t i = 0; i < l->sessions.count; i++) {
        struct session_live *s = l->sessions.items[i];

        s->seen = MIN(s->seen + span, now);
    }
}

void live_view_changed(struct live *l)
{
    l->view_version++;
}

struct chunk_live *live_chunk(struct live *l, uint32_t id)
{
    struct chunk_live *c = sorted_find(&l->chunks, compare_chunk_live, &id);

    if (c != NULL)
        return c;
    c = MEM_NEW(struct chunk_live);
    c->id = id;
    c->seen = l->start;
    c->alive = true;
    sorted_insert(&l->chunks, compare_chunk_live, &id, c);
    return c;
}

void live_chunk_drop(struct live *l, uint32_t id)
{
    struct chunk_live *c = sorted_remove(&l->chunks, compare_chunk_live, &id);

    if (c != NULL)
        chunk_live_free(c);
}

struct session_live *live_session(struct live *l, uint64_t id)
{
    struct session_live *s = sorted_find(&l->sessions, compare_session_live, &id);

    if (s != NULL)
        return s;
    s = MEM_NEW(struct session_live);
    s->id = id;
    s->seen = l->start;
    sorted_insert(&l->sessions, compare_session_live, &id, s);
    return s;
}

void live_session_drop(struct live *l, uint64_t id)
{
    mem_free(sorted_remove(&l->sessions, compare_session_live, &id));
}

/* ---- chunk servers ---- */

static void copy_disk(struct disk_live *to, const Zbs__Chunk__Disk *from)
{
    *to = (struct disk_live){.size_bytes = from->size_bytes,
                             .used_bytes = MIN(from->used_bytes, from->size_bytes),
                             .reserved_bytes = from->reserved_bytes,
                             .extents = from->extents,
                             .state = from->state,
                             .drain = from->drain};
    if (from->uuid.len == sizeof(to->uuid))
        memcpy(to->uuid, from->uuid.data, sizeof(to->uuid));
    snprintf(to->path, sizeof(to->path), "%s", from->path);
    snprintf(to->model, sizeof(to->model), "%s", from->model);
    snprintf(to->error, sizeof(to->error), "%s", from->error);
    snprintf(to->journal_on, sizeof(to->journal_on), "%s", from->journal_on);
}

/* Does any healthy disk have room to speak of? */
static bool any_room(const struct chunk_live *c)
{
    for (uint32_t i = 0; i < c->n_disks; i++) {
        const struct disk_live *d = &c->disks[i];

        if (d->state == 0 && d->size_bytes - d->used_bytes > d->size_bytes / 100 * DISK_ROOM)
            return true;
    }
    return false;
}

/* Keeps since when a condition has held; 0: it does not. */
static void since(nsec_t *at, bool holds, nsec_t now)
{
    if (!holds)
        *at = 0;
    else if (*at == 0)
        *at = now;
}

void live_chunk_heard(struct live *l, struct chunk_live *c, uint64_t incarnation,
                      Zbs__Chunk__Disk *const *disks, size_t n_disks)
{
    if (!c->heard || c->incarnation != incarnation || !c->alive)
        live_view_changed(l);
    if (c->incarnation != incarnation)
        idmap_fini(&c->lost); /* it tells them again */
    idmap_fini(&c->away);
    c->heard = c->alive = true;
    c->seen = co_now();
    c->incarnation = incarnation;
    c->n_disks = (uint32_t)MIN(n_disks, (size_t)DISKS_MAX);
    c->size_bytes = c->free_bytes = c->promised_bytes = 0;
    for (uint32_t i = 0; i < c->n_disks; i++) {
        copy_disk(&c->disks[i], disks[i]);
        if (c->disks[i].state != 0)
            continue;
        c->size_bytes += c->disks[i].size_bytes;
        c->free_bytes += c->disks[i].size_bytes - c->disks[i].used_bytes;
    }
    since(&c->unfit, c->size_bytes == 0, c->seen);
    since(&c->full, c->size_bytes > 0 && !any_room(c), c->seen);
}

nsec_t live_chunk_away(const struct chunk_live *c, nsec_t now)
{
    if (!c->alive)
        return MAX(now - c->seen, (nsec_t)1);
    return c->unfit ? MAX(now - c->unfit, (nsec_t)1) : 0;
}

void live_chunk_lost(struct live *l, struct chunk_live *c, const uint64_t *extents, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct extent *e = state_extent(&l->m->st, extents[i]);

        if (e == NULL || !extent_has_member(e, c->id) || c->lost.count >= LOST_MAX ||
            idmap_get(&c->lost, extents[i]) != 0)
            continue;
        log_warn("replica.lost", "extent=%" PRIu64 " chunk=%u", extents[i], c->id);
        idmap_put(&c->lost, extents[i], 1);
    }
}

void live_chunk_corrupt(struct chunk_live *c, Zbs__Chunk__CorruptPage *const *pages, size_t n)
{
    c->n_corrupt = (uint32_t)MIN(n, (size_t)CORRUPT_MAX);
    for (uint32_t i = 0; i < c->n_corrupt; i++)
        c->corrupt[i] = (struct corrupt_live){pages[i]->extent_id, pages[i]->page};
}

void live_chunks_check(struct live *l, nsec_t now)
{
    nsec_t ttl = l->m->conf.chunk_dead_ms * NSEC_PER_MSEC;

    for (uint32_t i = 0; i < l->m->st.chunks.count; i++) {
        const struct chunk *chunk = l->m->st.chunks.items[i];
        struct chunk_live *c = live_chunk(l, chunk->id);

        if (!c->alive || now - c->seen <= ttl)
            continue;
        c->alive = false;
        live_view_changed(l);
        log_warn("chunk.silent", "chunk=%u addr=%s host=%s", c->id, chunk->addr, chunk->host);
    }
}

void live_volume_changed(struct live *l, uint64_t volume_id)
{
    struct volume_change *c = &l->changes[l->n_changes % VOLUME_CHANGES];

    if (l->n_changes >= VOLUME_CHANGES && co_now() - c->at <= CHANGES_SHOWN)
        l->volumes_version++;
    *c = (struct volume_change){.volume_id = volume_id, .at = co_now()};
    l->n_changes++;
}

void live_pool_changed(struct live *l, const struct pool *pool)
{
    if (pool->volumes.count > VOLUME_CHANGES / 2) {
        l->volumes_version++;
        return;
    }
    for (uint32_t i = 0; i < pool->volumes.count; i++)
        live_volume_changed(l, ((const struct volume *)pool->volumes.items[i])->id);
}

/* ---- for decisions ---- */

void live_world(struct live *l, struct pad *pad, bool with_random, bool with_chunks,
                struct world *ret)
{
    const struct state *st = &l->m->st;
    nsec_t now = co_now(), grace;

    *ret = (struct world){.wall_ns = env_wall_ns(),
                          .session_ttl_ms = l->m->conf.session_ttl_ms,
                          .chunk_dead_ms = l->m->conf.chunk_dead_ms};
    if (with_random) {
        ret->random = env_random();
        env_random_bytes(ret->uuid, sizeof(ret->uuid));
    }
    if (!with_chunks)
        return;
    grace = (nsec_t)state_setting(st, SETTING_RECOVERY_GRACE) * NSEC_PER_SEC;
    ret->chunks = PAD_NEW_ARRAY(pad, struct place_chunk, st->chunks.count);
    ret->n_chunks = st->chunks.count;
    for (uint32_t i = 0; i < st->chunks.count; i++) {
        const struct chunk *chunk = st->chunks.items[i];
        const struct chunk_live *c = live_chunk(l, chunk->id);

        ret->chunks[i] = (struct place_chunk){.id = chunk->id,
                                              .host = chunk->host,
                                              .rack = chunk->rack,
                                              .zone = chunk->zone,
                                              .alive = c->alive,
                                              .heard = c->heard,
                                              .leaving = chunk->maintenance || chunk->removing,
                                              .removing = chunk->removing,
                                              .size_bytes = c->size_bytes};
        ret->chunks[i].gone =
            chunk->removing || (!chunk->maintenance && live_chunk_away(c, now) > grace);
        ret->chunks[i].full = c->full != 0;
        ret->chunks[i].crowded = c->full != 0 && !chunk->maintenance && now - c->full > grace;
        ret->chunks[i].free_bytes = c->free_bytes > c->promised_bytes
                                        ? c->free_bytes - c->promised_bytes
                                        : (c->free_bytes != 0);
    }
}

void live_promise(struct live *l, const Zbs__Metalog__LeaseGrant *g)
{
    for (size_t i = 0; i < g->n_items; i++) {
        for (size_t k = 0; k < g->items[i]->n_members; k++)
            live_chunk(l, g->items[i]->members[k])->promised_bytes += EXTENT_BYTES;
    }
}

/* ---- views ---- */

void live_view_chunk(struct live *l, const struct chunk *c, Zbs__Meta__ChunkView *m)
{
    const struct chunk_live *live = live_chunk(l, c->id);

    zbs__meta__chunk_view__init(m);
    m->chunk_id = c->id;
    m->addr = c->addr;
    m->addr_unix = c->addr_unix;
    m->host = c->host;
    m->workers = c->workers;
    m->incarnation = live->incarnation;
    m->alive = live->alive;
}

Zbs__Chunk__Disk **live_view_disks(const struct chunk_live *c, struct pad *pad)
{
    Zbs__Chunk__Disk **disks = PAD_NEW_ARRAY(pad, Zbs__Chunk__Disk *, c->n_disks);

    for (uint32_t i = 0; i < c->n_disks; i++) {
        const struct disk_live *from = &c->disks[i];

        disks[i] = PAD_NEW(pad, Zbs__Chunk__Disk);
        zbs__chunk__disk__init(disks[i]);
        disks[i]->uuid =
            (ProtobufCBinaryData){.data = (uint8_t *)from->uuid, .len = sizeof(from->uuid)};
        disks[i]->path = (char *)from->path;
        disks[i]->size_bytes = from->size_bytes;
        disks[i]->used_bytes = from->used_bytes;
        disks[i]->reserved_bytes = from->reserved_bytes;
        disks[i]->extents = from->extents;
        disks[i]->state = from->state;
        disks[i]->drain = from->drain;
        disks[i]->model = (char *)from->model;
        disks[i]->error = (char *)from->error;
        disks[i]->journal_on = (char *)from->journal_on;
    }
    return disks;
}
