/* SPDX-License-Identifier: Apache-2.0
 *
 * Answers from what only the leader knows: see status.h. */
#include "meta/status.h"

#include <string.h>
#include "meta/decide.h"
#include "meta/reservations.h"
#include "meta/settings.h"

/* ---- renewals ---- */

void knock_session_renew(struct lead *l, const ProtobufCMessage *msg)
{
    const Zbs__Meta__SessionRenewRequest *rq = (const void *)msg;

    struct session_live *s;

    if (state_session(&l->m->st, rq->session_id) == NULL)
        return;
    s = live_session(&l->live, rq->session_id);
    s->seen = co_now();
    /* Less than before: it was heard by another leader last, or has started anew. */
    if (rq->copied_bytes > s->copied && s->told)
        recovery_copied(l, rq->copied_bytes - s->copied);
    s->told = true;
    if (rq->leaving != s->leaving)
        live_view_changed(&l->live);
    s->leaving = rq->leaving;
    s->copied = rq->copied_bytes;
    s->copy_left = rq->copy_left_bytes;
    s->copy_extents = rq->copy_extents;
}

static void fill_views(struct lead *l, struct pad *pad, Zbs__Meta__SessionRenewReply *m)
{
    const struct state *st = &l->m->st;

    m->chunks = PAD_NEW_ARRAY(pad, Zbs__Meta__ChunkView *, st->chunks.count);
    m->n_chunks = st->chunks.count;
    for (uint32_t i = 0; i < st->chunks.count; i++) {
        m->chunks[i] = PAD_NEW(pad, Zbs__Meta__ChunkView);
        live_view_chunk(&l->live, st->chunks.items[i], m->chunks[i]);
    }
    m->accesses = PAD_NEW_ARRAY(pad, Zbs__Meta__AccessView *, st->sessions.count);
    m->n_accesses = st->sessions.count;
    for (uint32_t i = 0; i < st->sessions.count; i++) {
        const struct session *s = st->sessions.items[i];

        m->accesses[i] = PAD_NEW(pad, Zbs__Meta__AccessView);
        view_access(m->accesses[i], s);
        m->accesses[i]->leaving =
            live_session(&l->live, s->id)->leaving || state_host_maintenance(st, s->host) != 0;
    }
}

/* What the ring tells. To a session that was told by another leader the version says the rest. */
static void fill_volumes(const struct live *l, struct pad *pad, Zbs__Meta__SessionRenewReply *m)
{
    uint64_t oldest = l->n_changes > VOLUME_CHANGES ? l->n_changes - VOLUME_CHANGES : 0;
    uint64_t first = l->n_changes;
    nsec_t since = co_now() - CHANGES_SHOWN;

    while (first > oldest && l->changes[(first - 1) % VOLUME_CHANGES].at >= since)
        first--;
    m->volumes_version = l->volumes_version;
    m->volumes_changed = PAD_NEW_ARRAY(pad, uint64_t, l->n_changes - first);
    for (uint64_t i = first; i < l->n_changes; i++)
        m->volumes_changed[m->n_volumes_changed++] = l->changes[i % VOLUME_CHANGES].volume_id;
}

/* Of healthy disks. */
static void space_sum(struct lead *l, uint64_t *ret_bytes, uint64_t *ret_free)
{
    const struct state *st = &l->m->st;

    *ret_bytes = *ret_free = 0;
    for (uint32_t i = 0; i < st->chunks.count; i++) {
        const struct chunk *chunk = st->chunks.items[i];
        const struct chunk_live *live = live_chunk(&l->live, chunk->id);

        *ret_bytes += live->size_bytes;
        *ret_free += live->free_bytes;
    }
}

int status_session_renew(struct lead *l, const struct decide *d, ProtobufCMessage *reply)
{
    const Zbs__Meta__SessionRenewRequest *rq = (const void *)d->rq;
    Zbs__Meta__SessionRenewReply *m = (void *)reply;
    struct session *s;
    int rc = decide_session(d, rq->session_id, &s);
    bool all_heard = co_now() - l->live.start > l->m->conf.session_ttl_ms * NSEC_PER_MSEC;

    if (rc < 0)
        return rc;
    m->view_version = l->live.view_version;
    m->exports_version = d->st->exports_version;
    if (rq->view_version != m->view_version)
        fill_views(l, d->pad, m);
    fill_volumes(&l->live, d->pad, m);
    m->settings_version = d->st->settings_version;
    if (rq->settings_version != m->settings_version) {
        m->settings = view_settings(d->st, d->pad);
        m->n_settings = SETTINGS;
    }
    shares_fill(&l->live.shares, d->st, s->id, all_heard, rq, d->pad, m);
    if (all_heard)
        space_sum(l, &m->space_bytes, &m->space_free_bytes);
    reservations_fill(&l->live, d, m);
    tasks_fill(&l->live, s, d->pad, m);
    return 0;
}

/* ---- heartbeats ---- */

static struct chunk_live *known_chunk(struct lead *l, const Zbs__Meta__ChunkHeartbeatRequest *rq)
{
    struct chunk_live *c;

    if (state_chunk(&l->m->st, rq->chunk_id) == NULL)
        return NULL;
    c = live_chunk(&l->live, rq->chunk_id);
    return c->heard && c->incarnation == rq->incarnation ? c : NULL;
}

void knock_chunk_heartbeat(struct lead *l, const ProtobufCMessage *msg)
{
    struct chunk_live *c = known_chunk(l, (const void *)msg);

    if (c != NULL)
        c->seen = co_now();
}

static void fill_deletes(struct chunk *c, struct pad *pad, Zbs__Meta__ChunkHeartbeatReply *m)
{
    uint64_t cap = c->garbage.cap;

    m->deletes = PAD_NEW_ARRAY(pad, Zbs__Chunk__DeleteItem *, DELETES_MAX);
    for (uint64_t n = 0; n < cap && m->n_deletes < DELETES_MAX; n++) {
        const struct idmap_entry *e = &c->garbage.entries[c->garbage_cursor++ % cap];
        const struct garbage *g = chunk_garbage(c, e->id);
        Zbs__Chunk__DeleteItem *item;

        if (g == NULL)
            continue;
        item = PAD_NEW(pad, Zbs__Chunk__DeleteItem);
        zbs__chunk__delete_item__init(item);
        item->extent_id = e->id;
        item->epoch = g->epoch;
        item->family = g->family;
        m->deletes[m->n_deletes++] = item;
    }
}

int status_chunk_heartbeat(struct lead *l, const struct decide *d, ProtobufCMessage *reply)
{
    const Zbs__Meta__ChunkHeartbeatRequest *rq = (const void *)d->rq;
    Zbs__Meta__ChunkHeartbeatReply *m = (void *)reply;
    struct chunk_live *c = known_chunk(l, rq);

    m->term = l->term.term;
    m->register_ = c == NULL;
    if (c == NULL)
        return 0;
    live_chunk_heard(&l->live, c, rq->incarnation, rq->disks, rq->n_disks);
    live_chunk_lost(&l->live, c, rq->lost_extents, rq->n_lost_extents);
    live_chunk_corrupt(c, rq->corrupt_pages, rq->n_corrupt_pages);
    fill_deletes(state_chunk(d->st, c->id), d->pad, m);
    return 0;
}

/* ---- the cluster ---- */

static Zbs__Meta__MetaView *meta_view(struct pad *pad, const char *name, const char *addr)
{
    Zbs__Meta__MetaView *m = PAD_NEW(pad, Zbs__Meta__MetaView);

    zbs__meta__meta_view__init(m);
    m->name = (char *)name;
    m->addr = (char *)addr;
    return m;
}

static void fill_metas(struct lead *l, struct pad *pad, Zbs__Meta__ClusterStatusReply *m)
{
    const struct metad *self = l->m;

    m->metas = PAD_NEW_ARRAY(pad, Zbs__Meta__MetaView *, self->n_peers + 1);
    m->metas[0] = meta_view(pad, self->conf.name, self->conf.listen);
    m->metas[0]->leader = m->metas[0]->alive = true;
    m->metas[0]->applied = self->applied;
    for (uint32_t i = 0; i < self->n_peers; i++) {
        const struct peer *p = &self->peers[i];

        m->metas[i + 1] = meta_view(pad, p->name, p->addr);
        m->metas[i + 1]->alive = p->alive;
        m->metas[i + 1]->applied = p->applied;
    }
    m->n_metas = self->n_peers + 1;
}

static void fill_chunks(struct lead *l, struct pad *pad, Zbs__Meta__ClusterStatusReply *m)
{
    const struct state *st = &l->m->st;

    m->chunks = PAD_NEW_ARRAY(pad, Zbs__Meta__ChunkStatus *, st->chunks.count);
    m->n_chunks = st->chunks.count;
    for (uint32_t i = 0; i < st->chunks.count; i++) {
        const struct chunk *chunk = st->chunks.items[i];
        const struct chunk_live *live = live_chunk(&l->live, chunk->id);
        Zbs__Meta__ChunkStatus *c = PAD_NEW(pad, Zbs__Meta__ChunkStatus);

        zbs__meta__chunk_status__init(c);
        c->view = PAD_NEW(pad, Zbs__Meta__ChunkView);
        live_view_chunk(&l->live, chunk, c->view);
        c->rack = chunk->rack;
        c->zone = chunk->zone;
        c->disks = live_view_disks(live, pad);
        c->n_disks = live->n_disks;
        c->replicas = chunk->replicas;
        c->last_seen_ms = (uint64_t)((co_now() - live->seen) / NSEC_PER_MSEC);
        m->chunks[i] = c;
    }
}

int status_cluster(struct lead *l, const struct decide *d, ProtobufCMessage *reply)
{
    Zbs__Meta__ClusterStatusReply *m = (void *)reply;
    const struct state *st = d->st;
    uint64_t free_bytes;

    m->cluster_id = (char *)st->cluster_id;
    m->term = l->term.term;
    fill_metas(l, d->pad, m);
    fill_chunks(l, d->pad, m);
    space_sum(l, &m->size_bytes, &free_bytes);
    m->used_bytes = m->size_bytes - free_bytes;
    m->accesses = PAD_NEW_ARRAY(d->pad, Zbs__Meta__AccessView *, st->sessions.count);
    m->n_accesses = st->sessions.count;
    for (uint32_t i = 0; i < st->sessions.count; i++) {
        m->accesses[i] = PAD_NEW(d->pad, Zbs__Meta__AccessView);
        view_access(m->accesses[i], st->sessions.items[i]);
    }
    m->pools = st->pools.count;
    m->volumes = st->n_volumes;
    m->extents = (uint32_t)MIN(st->n_extents, (uint64_t)UINT32_MAX);
    m->extents_degraded = (uint32_t)MIN(st->n_degraded, (uint64_t)UINT32_MAX);
    m->extents_at_risk = (uint32_t)MIN(st->n_at_risk, (uint64_t)UINT32_MAX);
    return 0;
}
