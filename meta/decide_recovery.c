/* SPDX-License-Identifier: Apache-2.0
 *
 * Decisions of recovery: where replicas are made anew, which are moved, which are too many, and
 * chunk servers that go away for a while or for good. All of it is done with absent replicas:
 * a new one is adopted, comes back like any other, and then the one too many is removed. */
#include <inttypes.h>
#include <string.h>
#include "common/base/err.h"
#include "common/base/units.h"
#include "meta/decide.h"
#include "meta/family.h"
#include "meta/table.h"

static struct place_chunk *chunk_at(struct world *w, uint32_t id)
{
    return (struct place_chunk *)(uintptr_t)world_chunk(w, id);
}

static const char *failure_domain(const struct state *st, const struct extent *e)
{
    const struct pool *p = state_pool_by_id(st, e->pool_id);

    return p != NULL ? p->failure_domain : "host";
}

/* A replica is not put where a former one is still to be deleted. */
static void avoid_garbage(const struct state *st, struct world *w, const struct extent *e)
{
    for (uint32_t i = 0; i < w->n_chunks; i++)
        w->chunks[i].avoid = chunk_garbage(state_chunk(st, w->chunks[i].id), e->id) != NULL;
}

static void avoid_nothing(struct world *w)
{
    for (uint32_t i = 0; i < w->n_chunks; i++)
        w->chunks[i].avoid = false;
}

/* Where relatives are, blocks are shared. */
static void prefer_kin(struct world *w, const struct extent *e)
{
    for (uint32_t i = 0; i < w->n_chunks; i++)
        w->chunks[i].kin = family_is_large(e) && family_is_at(e, w->chunks[i].id);
}

static void prefer_nothing(struct world *w)
{
    for (uint32_t i = 0; i < w->n_chunks; i++)
        w->chunks[i].kin = false;
}

static Zbs__Metalog__Record *replica_set(struct pad *pad, const struct extent *e,
                                         const char *reason)
{
    Zbs__Metalog__Record *r = record_new(pad, ZBS__METALOG__RECORD__KIND_REPLICA_SET);

    r->replica_set = PAD_NEW(pad, Zbs__Metalog__ReplicaSet);
    zbs__metalog__replica_set__init(r->replica_set);
    r->replica_set->extent_id = e->id;
    r->replica_set->reason = (char *)(uintptr_t)reason;
    return r;
}

/* ---- too few ---- */

struct replicas {
    uint32_t keep[SLOT_REPLICAS_MAX], gone[SLOT_REPLICAS_MAX];
    uint32_t n_keep, n_gone;
};

/* A member is never given up here, whatever becomes of its server: only an owner removes one, after
 * the others have begun its missing set (PROTOCOL 5.2). */
static void replicas_sort(const struct world *w, const struct extent *e, struct replicas *r)
{
    *r = (struct replicas){.n_keep = 0};
    for (uint32_t i = 0; i < (uint32_t)e->n_members + e->n_absent; i++) {
        const struct place_chunk *c = world_chunk(w, e->replicas[i]);

        if (i >= e->n_members && c != NULL && (c->gone || c->crowded))
            r->gone[r->n_gone++] = e->replicas[i];
        else
            r->keep[r->n_keep++] = e->replicas[i];
    }
}

static uint32_t adopt(const struct state *st, struct world *w, const struct extent *e,
                      const struct replicas *r, uint32_t *ids)
{
    const struct volume *v = extent_volume(st, e);
    struct place_want want = {.replicas = e->wanted,
                              .preferred_host = "",
                              .failure_domain = failure_domain(st, e),
                              .seed = e->family,
                              .room = v != NULL ? volume_room(v) : 0};
    uint32_t n;

    if (r->n_keep >= e->wanted)
        return 0;
    avoid_garbage(st, w, e);
    prefer_kin(w, e);
    n = place_owed(w->chunks, w->n_chunks, &want, r->keep, r->n_keep, e->wanted - r->n_keep, true,
                   ids);
    prefer_nothing(w);
    avoid_nothing(w);
    world_promise(w, ids, n);
    return n;
}

Zbs__Metalog__Record *decide_repair(const struct state *st, struct world *w, const struct extent *e,
                                    struct pad *pad)
{
    const struct volume *v = extent_volume(st, e);
    uint32_t *ids = PAD_NEW_ARRAY(pad, uint32_t, SLOT_REPLICAS_MAX);
    uint32_t *forget = PAD_NEW_ARRAY(pad, uint32_t, SLOT_REPLICAS_MAX);
    Zbs__Metalog__Record *rec;
    struct replicas r;
    uint32_t n, still;

    /* What begins as a copy of another is created first: both hold the same replicas until then. */
    if ((v != NULL && v->removed) || e->origin != NULL || !list_empty(&e->unborn))
        return NULL;
    replicas_sort(w, e, &r);
    n = adopt(st, w, e, &r, ids);
    /* A gone one for which there is no other place may still come back. */
    still = r.n_keep + n < e->wanted ? MIN(e->wanted - r.n_keep - n, r.n_gone) : 0;
    if (n == 0 && r.n_gone == still)
        return NULL;
    memcpy(forget, r.gone + still, (r.n_gone - still) * sizeof(*forget));
    rec = replica_set(pad, e, r.n_gone > 0 ? "replaced" : "too few replicas");
    rec->replica_set->adopt = ids;
    rec->replica_set->n_adopt = n;
    rec->replica_set->forget = forget;
    rec->replica_set->n_forget = r.n_gone - still;
    return rec;
}

/* ---- moving ---- */

static const char *domain_of(const struct place_chunk *c, const char *failure_domain)
{
    return strcmp(failure_domain, "zone") == 0   ? c->zone
           : strcmp(failure_domain, "rack") == 0 ? c->rack
                                                 : c->host;
}

/* In how many failure domains these are; an unknown place counts as one of its own. */
static uint32_t spread(const struct world *w, const char *failure_domain, const uint32_t *ids,
                       uint32_t n)
{
    uint32_t domains = 0;

    for (uint32_t i = 0; i < n; i++) {
        const char *d = domain_of(world_chunk(w, ids[i]), failure_domain);
        bool known = false;

        for (uint32_t k = 0; k < i && d[0] != 0; k++)
            known |= strcmp(domain_of(world_chunk(w, ids[k]), failure_domain), d) == 0;
        domains += !known;
    }
    return domains;
}

/* The members without one of them. */
static uint32_t members_without(const struct extent *e, uint32_t id, uint32_t *ret)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < e->n_members; i++)
        if (e->replicas[i] != id)
            ret[n++] = e->replicas[i];
    return n;
}

Zbs__Metalog__Record *decide_move(const struct state *st, struct world *w, const struct extent *e,
                                  uint32_t from, bool anyway, struct pad *pad)
{
    const struct volume *v = extent_volume(st, e);
    const char *domain = failure_domain(st, e);
    struct place_want want = {.replicas = e->wanted,
                              .preferred_host = "",
                              .failure_domain = domain,
                              .seed = e->family ^ w->random,
                              .room = v != NULL ? volume_room(v) : 0};
    uint32_t others[SLOT_REPLICAS_MAX], *to = PAD_NEW_ARRAY(pad, uint32_t, SLOT_REPLICAS_MAX);
    Zbs__Metalog__Record *rec;
    struct place_chunk *source = chunk_at(w, from);
    bool avoided = source->avoid;
    uint32_t n;

    if ((v != NULL && v->removed) || !e->created || !list_empty(&e->unborn) ||
        e->unsettled != NULL || !extent_has_member(e, from))
        return NULL;
    n = members_without(e, from, others);
    source->avoid = true;
    prefer_kin(w, e);
    if (place_owed(w->chunks, w->n_chunks, &want, others, n, 1, true, to) == 0)
        to[0] = 0;
    prefer_nothing(w);
    source->avoid = avoided;
    if (to[0] == 0 || chunk_garbage(state_chunk(st, to[0]), e->id) != NULL)
        return NULL;
    others[n++] = to[0];
    if (!anyway && spread(w, domain, others, n) < spread(w, domain, e->replicas, e->n_members))
        return NULL;
    world_promise(w, to, 1);
    rec = replica_set(pad, e, "moved");
    rec->replica_set->adopt = to;
    rec->replica_set->n_adopt = 1;
    return rec;
}

Zbs__Metalog__Record *decide_gather(const struct state *st, struct world *w, const struct extent *e,
                                    struct pad *pad)
{
    const struct extent *elder = family_elder(st, e);
    Zbs__Metalog__Record *r = NULL;

    if (elder == NULL || elder->unsettled != NULL)
        return NULL;
    for (uint32_t i = 0; i < w->n_chunks; i++)
        w->chunks[i].avoid = !extent_has_member(elder, w->chunks[i].id);
    for (uint32_t i = 0; i < e->n_members && r == NULL; i++)
        if (!extent_has_member(elder, e->replicas[i]))
            r = decide_move(st, w, e, e->replicas[i], false, pad);
    avoid_nothing(w);
    return r;
}

/* ---- too many ---- */

static uint32_t use_percent(const struct place_chunk *c)
{
    return c->size_bytes == 0
               ? 100
               : (uint32_t)(100 - MIN(c->free_bytes, c->size_bytes) / (c->size_bytes / 100 + 1));
}

uint32_t surplus_member(const struct state *st, const struct world *w, const struct extent *e)
{
    const char *domain = failure_domain(st, e);
    const struct extent *elder = family_elder(st, e);
    uint64_t best_score = 0;
    uint32_t best = 0;

    if (e->n_members <= e->wanted)
        return 0;
    for (uint32_t i = 0; i < e->n_members; i++) {
        const struct place_chunk *c = world_chunk(w, e->replicas[i]);
        uint32_t others[SLOT_REPLICAS_MAX];
        uint32_t n = members_without(e, c->id, others);
        uint64_t score = 1 + use_percent(c);

        /* The newest is what the extent was given instead of another. */
        score += i + 1 < e->n_members ? 1u << 8 : 0;
        score += (uint64_t)c->full << 9;
        score += (uint64_t)(elder != NULL && !extent_has_member(elder, c->id)) << 10;
        score += (uint64_t)spread(w, domain, others, n) << 16;
        score += (uint64_t)!c->alive << 24;
        score += (uint64_t)c->removing << 32;
        if (score > best_score) {
            best_score = score;
            best = c->id;
        }
    }
    return best;
}

/* ---- chunk servers ---- */

/* Extents that would have no in-sync replica on a live server without this one. */
static uint64_t depending(const struct decide *d, uint32_t chunk_id)
{
    uint64_t n = 0;

    for (uint64_t i = 0; i < d->st->extents.cap; i++) {
        const struct extent *e = (const void *)(uintptr_t)d->st->extents.entries[i].value;
        bool other = false;

        if (d->st->extents.entries[i].id == 0 || !extent_has_member(e, chunk_id))
            continue;
        for (uint32_t k = 0; k < e->n_members; k++)
            other |= e->replicas[k] != chunk_id && world_chunk(d->w, e->replicas[k])->alive;
        n += !other;
    }
    return n;
}

int decide_chunk_mark(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__ChunkMarkRequest *rq = (const void *)d->rq;
    const struct chunk *c = state_chunk(d->st, rq->chunk_id);
    Zbs__Metalog__ChunkMark *m;
    uint64_t n;

    if (c == NULL)
        return err_set(ERR_NOTFOUND, "there is no chunk server %u: `zbs-cli chunk list` shows them",
                       rq->chunk_id);
    *ret = NULL;
    if (c->maintenance == rq->maintenance && c->removing == rq->removing)
        return 0;
    n = rq->maintenance && !c->maintenance && !rq->force ? depending(d, c->id) : 0;
    if (n > 0)
        return err_set(ERR_REFUSED,
                       "%" PRIu64 " extents have no other in-sync replica on a live server: wait "
                       "for `zbs-cli recovery status` to be clear, or use --force",
                       n);
    *ret = record_new(d->pad, ZBS__METALOG__RECORD__KIND_CHUNK_MARK);
    (*ret)->chunk_mark = m = PAD_NEW(d->pad, Zbs__Metalog__ChunkMark);
    zbs__metalog__chunk_mark__init(m);
    m->chunk_id = c->id;
    m->maintenance = rq->maintenance;
    m->removing = rq->removing;
    return 0;
}

int answer_chunk_mark(const struct decide *d, ProtobufCMessage *reply)
{
    const Zbs__Meta__ChunkMarkRequest *rq = (const void *)d->rq;
    Zbs__Meta__ChunkMarkReply *m = (void *)reply;

    m->replicas = state_chunk(d->st, rq->chunk_id)->replicas;
    return 0;
}

Zbs__Metalog__Record *decide_chunk_remove(const struct state *st, const struct chunk *c, bool alive,
                                          struct pad *pad)
{
    Zbs__Metalog__Record *r;
    Zbs__Metalog__ChunkRemove *m;

    /* What is being swept may still name it. */
    if (!c->removing || c->replicas > 0 || st->removed.count > 0)
        return NULL;
    if (alive && c->garbage.count > 0)
        return NULL;
    r = record_new(pad, ZBS__METALOG__RECORD__KIND_CHUNK_REMOVE);
    r->chunk_remove = m = PAD_NEW(pad, Zbs__Metalog__ChunkRemove);
    zbs__metalog__chunk_remove__init(m);
    m->chunk_id = c->id;
    m->garbage = PAD_NEW_ARRAY(pad, uint64_t, SWEEP_MAX);
    for (uint64_t i = 0; i < c->garbage.cap && m->n_garbage < SWEEP_MAX; i++)
        if (c->garbage.entries[i].id != 0)
            m->garbage[m->n_garbage++] = c->garbage.entries[i].id;
    return r;
}
