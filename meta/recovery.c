/* SPDX-License-Identifier: Apache-2.0
 *
 * Recovery as the leader drives it: see recovery.h. */
#include "meta/recovery.h"

#include <inttypes.h>
#include "common/base/log.h"
#include "common/base/units.h"
#include "common/env/env.h"
#include "meta/family.h"
#include "meta/lead.h"
#include "meta/settings.h"
#include "meta/table.h"

#define REPAIR_SCAN_MAX 256u  /* unsettled extents of each danger looked at in a tick */
#define REPAIR_MAX      32u   /* records in a tick */
#define SCAN_MAX        2048u /* extents looked at in a tick, of all */
#define MOVES_MAX       64u   /* replicas moved off servers to be removed, at once */
#define FORESEE_MAX     512u  /* moves under way that balance takes into account */
#define LOOK            NSEC_PER_SEC

static void submit(struct lead *l, const Zbs__Metalog__Record *r, struct pad *pad)
{
    const Zbs__Metalog__ReplicaSet *m = r->replica_set;
    struct packed reply;

    if (r->kind_case == ZBS__METALOG__RECORD__KIND_REPLICA_SET) {
        log_info("replica.place", "extent=%" PRIu64 " chunk=%u instead=%u why=\"%s\"", m->extent_id,
                 m->n_adopt > 0 ? m->adopt[0] : 0, m->n_forget > 0 ? m->forget[0] : 0, m->reason);
        for (size_t i = 0; i < m->n_adopt; i++)
            live_chunk(&l->live, m->adopt[i])->promised_bytes += EXTENT_BYTES;
    }
    lead_submit(l->m, r, pad, &reply);
}

/* ---- replacing ---- */

/* Those in most danger first. */
static void repair(struct lead *l, struct world *w, struct pad *pad)
{
    struct state *st = &l->m->st;
    uint32_t done = 0;

    for (uint32_t danger = 0; danger < DANGERS; danger++) {
        uint64_t n = MIN(st->n_unsettled[danger], (uint64_t)REPAIR_SCAN_MAX);

        for (uint64_t i = 0; i < n && done < REPAIR_MAX && !list_empty(&st->unsettled[danger]);
             i++) {
            struct unsettled *u = LIST_FIRST(&st->unsettled[danger], struct unsettled, link);
            Zbs__Metalog__Record *r;

            list_del(&u->link);
            list_push_back(&st->unsettled[danger], &u->link);
            r = decide_repair(st, w, u->extent, pad);
            if (r == NULL)
                continue;
            l->recovery.replaced += r->replica_set->n_forget;
            submit(l, r, pad);
            done++;
        }
    }
}

/* What a replica holds on average. */
static uint64_t replica_bytes(struct lead *l)
{
    const struct state *st = &l->m->st;
    uint64_t used = 0, replicas = 0;

    for (uint32_t i = 0; i < st->chunks.count; i++) {
        const struct chunk *c = st->chunks.items[i];
        const struct chunk_live *live = live_chunk(&l->live, c->id);

        if (live->size_bytes == 0)
            continue;
        used += live->size_bytes - live->free_bytes;
        replicas += c->replicas;
    }
    return replicas > 0 ? MIN(used / replicas, (uint64_t)EXTENT_BYTES) : 0;
}

/* Most of what a family holds is held by all of it. */
static uint64_t family_bytes(struct lead *l)
{
    const struct state *st = &l->m->st;
    uint64_t families = st->n_extents - MIN(st->n_copies, st->n_extents);

    return families > 0 ? MIN(replica_bytes(l) * st->n_extents / families, (uint64_t)EXTENT_BYTES)
                        : EXTENT_BYTES;
}

/* ---- balance ---- */

/* In 1/1000 of a server's space. */
static uint32_t use_of(const struct place_chunk *c)
{
    return (uint32_t)(1000 - MIN(c->free_bytes, c->size_bytes) / (c->size_bytes / 1000 + 1));
}

struct balance {
    bool on;
    bool full_only; /* something is degraded: no more than makes room */
    uint32_t mean;  /* use */
    uint64_t moves_max;
    uint64_t bytes;        /* that one move shifts */
    uint64_t family_bytes; /* likewise, if all that shares blocks with it will follow */
};

static void shift(struct world *w, uint32_t id, uint64_t bytes, bool to)
{
    for (uint32_t i = 0; i < w->n_chunks; i++) {
        struct place_chunk *c = &w->chunks[i];

        if (c->id == id)
            c->free_bytes = to ? c->free_bytes - MIN(bytes, c->free_bytes)
                               : MIN(c->free_bytes + bytes, c->size_bytes);
    }
}

/* Space as it will be when the moves under way are done. */
static void foresee(const struct state *st, struct world *w, uint64_t bytes)
{
    uint32_t n = 0;

    LIST_FOREACH (u, &st->unsettled[DANGER_NONE], struct unsettled, link) {
        const struct extent *e = u->extent;
        uint32_t most = 0, from = 0;

        if (++n > FORESEE_MAX)
            break;
        for (uint32_t i = 0; i < e->n_absent; i++)
            shift(w, extent_absent(e)[i], bytes, true);
        for (uint32_t i = 0; i < e->n_members; i++) {
            const struct place_chunk *c = world_chunk(w, e->replicas[i]);

            if (c->size_bytes > 0 && use_of(c) >= most) {
                most = use_of(c);
                from = c->id;
            }
        }
        shift(w, from, bytes, false);
    }
}

static void balance_look(struct lead *l, struct world *w, struct balance *b)
{
    const struct state *st = &l->m->st;
    uint32_t threshold = (uint32_t)state_setting(st, SETTING_BALANCE_THRESHOLD) * 10;
    uint32_t low = UINT32_MAX, high = 0, n = 0, sum = 0;
    bool any_full = false;

    *b = (struct balance){.moves_max = state_setting(st, SETTING_BALANCE_EXTENTS),
                          .bytes = replica_bytes(l),
                          .family_bytes = family_bytes(l)};
    /* What is used, not what was promised to new extents, which are thin. */
    for (uint32_t i = 0; i < w->n_chunks; i++)
        w->chunks[i].free_bytes = live_chunk(&l->live, w->chunks[i].id)->free_bytes;
    foresee(st, w, b->bytes);
    for (uint32_t i = 0; i < w->n_chunks; i++) {
        const struct place_chunk *c = &w->chunks[i];

        if (!c->alive || !c->heard || c->leaving || c->gone || c->size_bytes == 0)
            continue;
        low = MIN(low, use_of(c));
        high = MAX(high, use_of(c));
        sum += use_of(c);
        any_full |= c->full;
        n++;
    }
    b->full_only = st->n_degraded > 0;
    if (n < 2 || b->moves_max == 0 || (b->full_only && !any_full)) {
        l->recovery.balancing = false;
        return;
    }
    /* Begun at the threshold, or where a server is full, continued to half of it. */
    if (l->recovery.balancing || any_full)
        threshold /= 2;
    b->on = l->recovery.balancing = high - low > threshold;
    b->mean = sum / n;
}

/* ---- what is looked for in all extents ---- */

struct scan {
    struct lead *l;
    struct world *w;
    struct pad *pad;
    struct balance balance;
    bool any_gone, any_removing;
};

/* A member on a server that is gone: whoever opens the extent will remove it. */
static void note_gone(struct scan *s, const struct extent *e, const struct place_chunk *c)
{
    struct chunk_live *live = live_chunk(&s->l->live, c->id);

    if (!c->alive && live->away.count < LOST_MAX)
        idmap_put(&live->away, e->id, 1);
}

static bool move(struct scan *s, const struct extent *e, const struct place_chunk *from)
{
    struct world *w = s->w;
    uint64_t bytes = family_is_large(e) ? s->balance.family_bytes : s->balance.bytes;
    Zbs__Metalog__Record *r;

    /* For balance only where it makes the difference smaller. */
    for (uint32_t i = 0; i < w->n_chunks && !from->removing; i++) {
        struct place_chunk *c = &w->chunks[i];

        c->avoid =
            c->size_bytes == 0 || use_of(c) + 2 * bytes * 1000 / c->size_bytes >= use_of(from);
    }
    r = decide_move(&s->l->m->st, w, e, from->id, from->removing, s->pad);
    for (uint32_t i = 0; i < w->n_chunks; i++)
        w->chunks[i].avoid = false;
    if (r == NULL)
        return false;
    s->l->recovery.moved++;
    s->l->recovery.gathering |= family_is_large(e);
    s->l->recovery.gathered &= !family_is_large(e);
    shift(w, r->replica_set->adopt[0], bytes, true);
    shift(w, from->id, bytes, false);
    submit(s->l, r, s->pad);
    return true;
}

/* To where its elder has moved: so a family moves one after the other. */
static bool gather(struct scan *s, const struct extent *e)
{
    struct state *st = &s->l->m->st;
    Zbs__Metalog__Record *r = NULL;

    if (!family_is_large(e) || st->n_degraded > 0)
        return false;
    if (st->n_unsettled[DANGER_NONE] < state_setting(st, SETTING_BALANCE_EXTENTS))
        r = decide_gather(st, s->w, e, s->pad);
    else
        s->l->recovery.gathering = true; /* perhaps: not now */
    if (r == NULL)
        return false;
    s->l->recovery.gathering = true;
    s->l->recovery.moved++;
    submit(s->l, r, s->pad);
    return true;
}

/* Of a family the elders that have none are moved, the others follow; those that may share blocks
 * with others, but have no elder, stay. One family after the other, as space is free only when the
 * last has left. */
static bool may_balance(const struct scan *s, const struct extent *e)
{
    const struct state *st = &s->l->m->st;

    if (!family_is_large(e))
        return true;
    return s->l->recovery.gathered && st->n_unsettled[DANGER_NONE] == 0 &&
           extent_is_shared(st, e) && family_elder(st, e) == NULL;
}

static void round_end(struct recovery *rec)
{
    rec->gathered = !rec->gathering;
    rec->gathering = false;
}

static void scan_extent(struct scan *s, const struct extent *e)
{
    uint64_t moving = s->l->m->st.n_unsettled[DANGER_NONE];

    for (uint32_t i = 0; i < e->n_members; i++) {
        const struct place_chunk *c = world_chunk(s->w, e->replicas[i]);
        bool over = s->balance.on && c->size_bytes > 0 && use_of(c) > s->balance.mean &&
                    (c->full || !s->balance.full_only);

        if (c->gone && !c->alive) {
            note_gone(s, e, c);
            continue;
        }
        over = over && may_balance(s, e);
        if ((c->removing && moving < MOVES_MAX) || (over && moving < s->balance.moves_max))
            if (move(s, e, c))
                return;
    }
    (void)gather(s, e);
}

static void scan(struct scan *s)
{
    const struct idmap *extents = &s->l->m->st.extents;
    uint64_t n = MIN(extents->cap, (uint64_t)SCAN_MAX);

    for (uint32_t i = 0; i < s->w->n_chunks; i++) {
        s->any_gone |= s->w->chunks[i].gone && !s->w->chunks[i].alive;
        s->any_removing |= s->w->chunks[i].removing;
    }
    if (!s->any_gone && !s->any_removing && !s->balance.on && s->l->m->st.n_copies == 0)
        return;
    for (uint64_t i = 0; i < n; i++) {
        const struct idmap_entry *entry = &extents->entries[s->l->recovery.cursor++ % extents->cap];

        if (s->l->recovery.cursor % extents->cap == 0)
            round_end(&s->l->recovery);
        if (entry->id != 0)
            scan_extent(s, (const struct extent *)(uintptr_t)entry->value);
    }
}

static void remove_chunks(struct lead *l, struct pad *pad)
{
    struct state *st = &l->m->st;

    for (uint32_t i = 0; i < st->chunks.count; i++) {
        const struct chunk *c = st->chunks.items[i];
        uint32_t id = c->id;
        Zbs__Metalog__Record *r =
            decide_chunk_remove(st, c, live_chunk(&l->live, c->id)->alive, pad);

        if (r == NULL)
            continue;
        submit(l, r, pad);
        if (state_chunk(st, id) == NULL) {
            log_info("chunk.removed", "chunk=%u", id);
            live_chunk_drop(&l->live, id);
            live_view_changed(&l->live);
        }
        return;
    }
}

/* ---- progress ---- */

static uint64_t n_unsettled(const struct state *st)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < DANGERS; i++)
        n += st->n_unsettled[i];
    return n;
}

static void look(struct lead *l, nsec_t now)
{
    struct recovery *rec = &l->recovery;
    uint64_t fresh = rec->copied - rec->copied_then;

    if (now - rec->looked < LOOK)
        return;
    fresh = rec->looked ? fresh * NSEC_PER_SEC / (uint64_t)(now - rec->looked) : fresh;
    rec->rate = rec->rate ? (rec->rate * 3 + fresh) / 4 : fresh;
    if (n_unsettled(&l->m->st) == 0)
        rec->copied = rec->rate = 0;
    rec->copied_then = rec->copied;
    rec->looked = now;
}

void recovery_copied(struct lead *l, uint64_t bytes)
{
    l->recovery.copied += bytes;
}

uint64_t recovery_left(struct lead *l)
{
    const struct state *st = &l->m->st;
    uint64_t left = 0, under_way = 0, all = st->n_degraded;

    LIST_FOREACH (u, &st->unsettled[DANGER_NONE], struct unsettled, link)
        all += u->extent->n_absent > 0;
    for (uint32_t i = 0; i < st->sessions.count; i++) {
        const struct session *s = st->sessions.items[i];
        const struct session_live *live = live_session(&l->live, s->id);

        left += live->copy_left;
        under_way += live->copy_extents;
    }
    return left + (all > under_way ? (all - under_way) * replica_bytes(l) : 0);
}

/* ---- all of it ---- */

void recovery_tick(struct lead *l, nsec_t now)
{
    struct world w;
    struct pad pad;
    struct scan s = {.l = l, .w = &w, .pad = &pad};

    pad_init(&pad);
    live_world(&l->live, &pad, true, true, &w);
    repair(l, &w, &pad);
    balance_look(l, &w, &s.balance);
    scan(&s);
    remove_chunks(l, &pad);
    look(l, now);
    pad_fini(&pad);
}

/* ---- status ---- */

static Zbs__Meta__RecoveryChunk *chunk_view(struct lead *l, const struct chunk *c, struct pad *pad)
{
    const struct chunk_live *live = live_chunk(&l->live, c->id);
    nsec_t grace = (nsec_t)state_setting(&l->m->st, SETTING_RECOVERY_GRACE) * NSEC_PER_SEC;
    nsec_t away = live_chunk_away(live, co_now());
    Zbs__Meta__RecoveryChunk *m;

    if (away == 0 && !c->maintenance && !c->removing)
        return NULL;
    m = PAD_NEW(pad, Zbs__Meta__RecoveryChunk);
    zbs__meta__recovery_chunk__init(m);
    m->chunk_id = c->id;
    m->host = c->host;
    m->maintenance = c->maintenance;
    m->removing = c->removing;
    m->alive = live->alive;
    m->replicas = c->replicas;
    m->away_s = (uint64_t)(away / NSEC_PER_SEC);
    m->grace_s = away > 0 && away < grace ? (uint64_t)((grace - away) / NSEC_PER_SEC) + 1 : 0;
    return m;
}

int status_recovery(struct lead *l, const struct decide *d, ProtobufCMessage *reply)
{
    Zbs__Meta__RecoveryStatusReply *m = (void *)reply;
    const struct state *st = d->st;

    m->n_extents_by_in_sync = SLOT_REPLICAS_MAX;
    m->extents_by_in_sync = PAD_NEW_ARRAY(d->pad, uint64_t, SLOT_REPLICAS_MAX);
    for (uint32_t i = 0; i < SLOT_REPLICAS_MAX; i++)
        m->extents_by_in_sync[i] = st->n_unsettled[i];
    m->moving = st->n_unsettled[DANGER_NONE];
    m->left_bytes = recovery_left(l);
    m->copied_bytes = l->recovery.copied;
    m->rate = l->recovery.rate;
    m->balancing = l->recovery.balancing;
    for (uint32_t i = 0; i < st->sessions.count; i++)
        m->copying += live_session(&l->live, ((const struct session *)st->sessions.items[i])->id)
                          ->copy_extents;
    m->chunks = PAD_NEW_ARRAY(d->pad, Zbs__Meta__RecoveryChunk *, st->chunks.count);
    for (uint32_t i = 0; i < st->chunks.count; i++) {
        Zbs__Meta__RecoveryChunk *c = chunk_view(l, st->chunks.items[i], d->pad);

        if (c != NULL)
            m->chunks[m->n_chunks++] = c;
    }
    return 0;
}
