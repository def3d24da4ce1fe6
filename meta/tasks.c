/* SPDX-License-Identifier: Apache-2.0
 *
 * What the leader asks sessions to do, in the answers to their renewals:
 *   RETURN  bring an absent replica back, whose chunk server is alive
 *   OPEN    open an extent that a dead owner left unclean, or one whose replica was reported lost
 *           (the opener finds out which member fails, and removes it)
 *   REPAIR  write a page anew that a member found to be bad
 *   REMOVE  take a member out that is one too many
 *   RELEASE give back a lease, when the host is in maintenance
 *   FLATTEN give the next slot of a volume blocks of its own
 *   THICK   have its space promised by all replicas of the next slot of a volume; make it if it is
 * a hole or shared THIN    take that promise back An extent's owner is asked, else one of the live
 * sessions: on a host that holds a member if there is one, else any, chosen by the extent's id; so
 * when that session ends, another is chosen. The lists are rotated while they are looked through,
 * so that a long one is covered in turns. */
#include <string.h>
#include "common/base/prng.h"
#include "meta/family.h"
#include "meta/lead.h"
#include "meta/settings.h"

#define TASK_AGAIN   (2 * NSEC_PER_SEC) /* before the same task is given out again */
#define WANTED_AGAIN (NSEC_PER_SEC / 2)
#define OPENS_MAX    16u                 /* in one answer: opening is not urgent */
#define OPEN_AFTER   (2 * NSEC_PER_SEC)  /* clients of a dead owner come by themselves first */
#define RETURNS_MAX  64u                 /* replicas on their way back, of one session */
#define ROOM_AGAIN   (5 * NSEC_PER_SEC)  /* for a slot that there was no space for */
#define REPLACE_WAIT (30 * NSEC_PER_SEC) /* for another place of what goes before a relative */

enum {
    TASK_RETURN = 0,
    TASK_RELEASE = 1,
    TASK_OPEN = 2,
    TASK_REPAIR = 3,
    TASK_REMOVE = 10,
    TASK_FLATTEN = 60,
    TASK_THICK = 61,
    TASK_THIN = 62
};

struct tasks {
    struct live *l;
    const struct session *session;
    struct pad *pad;
    Zbs__Meta__SessionRenewReply *m;
    nsec_t now;
    struct world w;
    uint32_t returns; /* given so far */
};

static bool host_has_member(const struct state *st, const struct extent *e, const char *host)
{
    for (uint32_t i = 0; i < e->n_members; i++) {
        if (host[0] != 0 && strcmp(state_chunk(st, e->replicas[i])->host, host) == 0)
            return true;
    }
    return false;
}

/* Who works on this extent. */
static bool is_for(const struct tasks *t, const struct extent *e)
{
    const struct state *st = &t->l->m->st;
    const struct slot *s = extent_lease(st, e);
    const struct session *best = s != NULL ? slot_owner(st, s) : NULL;
    uint64_t best_score = 0;

    if (best != NULL)
        return best == t->session;
    for (uint32_t i = 0; i < st->sessions.count; i++) {
        const struct session *c = st->sessions.items[i];
        uint64_t score = prng_mix(e->id ^ prng_mix(c->id)) >> 1;

        if (host_has_member(st, e, c->host))
            score |= 1ull << 63;
        if (state_host_maintenance(st, c->host) != 0)
            score >>= 8;
        if (best == NULL || score > best_score) {
            best = c;
            best_score = score;
        }
    }
    return best == t->session;
}

/* The volume is 0 if the extent is shared: then it is leased by itself. */
static Zbs__Meta__Task *give(struct tasks *t, const struct extent *e, uint32_t kind,
                             uint32_t replica)
{
    const struct volume *v = extent_volume(&t->l->m->st, e);
    Zbs__Meta__Task *task = PAD_NEW(t->pad, Zbs__Meta__Task);

    zbs__meta__task__init(task);
    task->volume_id = v != NULL ? v->id : 0;
    task->slot = e->slot;
    task->extent_id = e->id;
    task->replica = replica;
    task->kind = kind;
    t->m->tasks[t->m->n_tasks++] = task;
    return task;
}

/* Is it about to be given another place for a replica that is gone? Not for ever: there may be
 * none, or nobody who opens it. */
static bool is_to_be_replaced(const struct tasks *t, const struct extent *e)
{
    nsec_t grace = (nsec_t)state_setting(&t->l->m->st, SETTING_RECOVERY_GRACE) * NSEC_PER_SEC;

    for (uint32_t i = 0; i < e->n_members + (uint32_t)e->n_absent; i++) {
        nsec_t away = live_chunk_away(live_chunk(t->l, e->replicas[i]), t->now);

        if (away > grace && away < grace + REPLACE_WAIT)
            return true;
    }
    return false;
}

/* What it could begin as a copy of comes there, too: that goes first, unless nobody can be asked
 * for it. */
static bool waits_for_elder(const struct tasks *t, const struct extent *e, uint32_t chunk_id)
{
    const struct extent *elder = family_elder(&t->l->m->st, e);

    if (elder == NULL || extent_has_member(elder, chunk_id))
        return false;
    if (!extent_has_absent(elder, chunk_id) && !is_to_be_replaced(t, elder))
        return false;
    for (uint32_t i = 0; i < elder->n_members; i++)
        if (live_chunk(t->l, elder->replicas[i])->alive)
            return true;
    return false;
}

/* An absent replica that could come back; 0: none. */
static uint32_t replica_to_return(const struct tasks *t, const struct extent *e)
{
    for (uint32_t i = 0; i < e->n_absent; i++) {
        const struct chunk_live *c = live_chunk(t->l, extent_absent(e)[i]);

        if (c->alive && c->heard && c->size_bytes > 0 &&
            !state_chunk(&t->l->m->st, c->id)->removing && !waits_for_elder(t, e, c->id))
            return c->id;
    }
    return 0;
}

/* Of a volume that is being deleted. */
static bool is_going(const struct tasks *t, const struct extent *e)
{
    const struct volume *v = extent_volume(&t->l->m->st, e);

    return v != NULL && v->removed;
}

static void give_return(struct tasks *t, struct unsettled *u)
{
    const struct extent *e = u->extent;
    uint32_t surplus = surplus_member(&t->l->m->st, &t->w, e);
    uint32_t replica = surplus == 0 ? replica_to_return(t, e) : 0;

    if (surplus == 0 && replica == 0)
        return;
    u->task_ns = t->now;
    give(t, e, surplus != 0 ? TASK_REMOVE : TASK_RETURN, surplus != 0 ? surplus : replica);
    t->returns++;
}

/* Those in most danger first. A session gets no more than it can soon begin with, so that what is
 * in more danger later does not wait behind them. */
static void give_returns(struct tasks *t)
{
    struct session_live *live = live_session(t->l, t->session->id);
    uint32_t under_way = live->copy_extents;

    if (t->now - live->given_at < NSEC_PER_SEC)
        under_way = MAX(under_way, live->given);
    else
        live->given = 0;
    for (uint32_t danger = 0; danger < DANGERS; danger++) {
        struct list *list = &t->l->m->st.unsettled[danger];
        uint64_t n = MIN(t->l->m->st.n_unsettled[danger], (uint64_t)TASK_SCAN_MAX);

        for (uint64_t i = 0;
             i < n && under_way + t->returns < RETURNS_MAX && t->m->n_tasks < TASKS_MAX - OPENS_MAX;
             i++) {
            struct unsettled *u = LIST_FIRST(list, struct unsettled, link);

            list_del(&u->link);
            list_push_back(list, &u->link);
            if (!is_going(t, u->extent) && t->now - u->task_ns >= TASK_AGAIN &&
                is_for(t, u->extent))
                give_return(t, u);
        }
    }
    if (t->returns > 0) {
        live->given += t->returns;
        live->given_at = t->now;
    }
}

static void give_opens(struct tasks *t)
{
    struct list *orphans = &t->l->m->st.orphans;
    struct slot *first = NULL;
    uint32_t given = 0;

    for (uint32_t i = 0; i < TASK_SCAN_MAX && !list_empty(orphans) && given < OPENS_MAX; i++) {
        struct slot *s = LIST_FIRST(orphans, struct slot, owned);
        struct extent *e = slot_extent(s);

        if (s == first)
            break;
        if (first == NULL)
            first = s;
        list_del(&s->owned);
        list_push_back(orphans, &s->owned);
        if (e == NULL || !slot_writes(s, e) || s != extent_lease(&t->l->m->st, e) || is_going(t, e))
            continue;
        if (e->task_ns == 0)
            e->task_ns = t->now - TASK_AGAIN + OPEN_AFTER;
        if (t->now - e->task_ns < TASK_AGAIN || !is_for(t, e))
            continue;
        e->task_ns = t->now;
        given++;
        give(t, e, TASK_OPEN, 0);
    }
}

/* What stands in the way of a snapshot. */
static void give_wanted(struct tasks *t)
{
    uint64_t extent_id;
    uint32_t given = 0;

    for (uint32_t i = 0; given < OPENS_MAX;) {
        struct extent *e;

        i = hold_to_open(t->l->m->lead, i, &extent_id);
        if (i == 0)
            break;
        e = state_extent(&t->l->m->st, extent_id);
        if (e == NULL || t->now - e->task_ns < WANTED_AGAIN || !is_for(t, e))
            continue;
        e->task_ns = t->now;
        given++;
        give(t, e, TASK_OPEN, 0);
    }
}

/* Extents with a member that has failed: whoever opens one will see and remove it. */
static void give_failed(struct tasks *t, const struct chunk_live *c, struct idmap *extents)
{
    for (uint64_t k = 0; k < extents->cap && t->m->n_tasks < TASKS_MAX; k++) {
        uint64_t extent_id = extents->entries[k].id;
        struct extent *e = state_extent(&t->l->m->st, extent_id);

        if (extent_id == 0)
            continue;
        if (e == NULL || !extent_has_member(e, c->id)) {
            idmap_del(extents, extent_id);
            continue;
        }
        if (t->now - e->task_ns < TASK_AGAIN || !is_for(t, e))
            continue;
        e->task_ns = t->now;
        give(t, e, TASK_OPEN, 0);
    }
}

/* Replicas that a chunk server says it has lost, and those of servers that are gone. */
static void give_lost(struct tasks *t)
{
    for (uint32_t i = 0; i < t->l->chunks.count; i++) {
        struct chunk_live *c = t->l->chunks.items[i];

        give_failed(t, c, &c->lost);
        give_failed(t, c, &c->away);
    }
}

/* Once for each lease: what clients need of the host after that is theirs to move. */
static void give_releases(struct tasks *t)
{
    uint64_t since = state_host_maintenance(&t->l->m->st, t->session->host);

    if (since == 0)
        return;
    LIST_FOREACH (s, &t->session->owned, struct slot, owned) {
        const struct extent *e = slot_extent(s);

        if (t->m->n_tasks >= TASKS_MAX)
            break;
        if (e != NULL && s->volume != NULL && s->epoch < since && !is_going(t, e))
            give(t, e, TASK_RELEASE, 0)->volume_id = s->volume->id; /* also if it is shared */
    }
}

/* Until the chunk server has them written anew and no longer tells them. */
static void give_repairs(struct tasks *t)
{
    for (uint32_t i = 0; i < t->l->chunks.count; i++) {
        struct chunk_live *c = t->l->chunks.items[i];
        bool mine = false;

        if (c->n_corrupt == 0 || t->now - c->repair_ns < TASK_AGAIN)
            continue;
        for (uint32_t k = 0; k < c->n_corrupt && t->m->n_tasks < TASKS_MAX; k++) {
            const struct extent *e = state_extent(&t->l->m->st, c->corrupt[k].extent_id);

            if (e == NULL || !extent_has_member(e, c->id) || is_going(t, e) || !is_for(t, e))
                continue;
            give(t, e, TASK_REPAIR, c->id)->page = c->corrupt[k].page;
            mine = true;
        }
        if (mine)
            c->repair_ns = t->now;
    }
}

/* Is the session the owner of the slot, else who would be asked to work on its extent? */
static bool is_for_slot(const struct tasks *t, const struct volume *v, uint32_t number)
{
    const struct state *st = &t->l->m->st;
    const struct slot *s = volume_slot(v, number);
    const struct session *owner = s != NULL ? slot_owner(st, s) : NULL;
    const struct extent *e = volume_extent(v, number);

    if (owner != NULL)
        return owner == t->session;
    return e != NULL ? is_for(t, e) : t->session == st->sessions.items[0];
}

static Zbs__Meta__Task *give_slot(struct tasks *t, const struct volume *v, uint32_t number,
                                  uint32_t kind)
{
    Zbs__Meta__Task *task = PAD_NEW(t->pad, Zbs__Meta__Task);

    zbs__meta__task__init(task);
    task->volume_id = v->id;
    task->slot = number;
    task->kind = kind;
    t->m->tasks[t->m->n_tasks++] = task;
    return task;
}

static void give_flattens(struct tasks *t)
{
    const struct sorted *volumes = &t->l->m->st.flattens;

    for (uint32_t i = 0; i < volumes->count && t->m->n_tasks < TASKS_MAX; i++) {
        struct volume *v = volumes->items[i];

        if (t->now - v->flatten_task_ns < TASK_AGAIN || !is_for_slot(t, v, v->flatten_next))
            continue;
        v->flatten_task_ns = t->now;
        give_slot(t, v, v->flatten_next, TASK_FLATTEN);
    }
}

/* Whoever has done a slot goes on with the next by itself: only if that ends is it asked again. */
static void give_passes(struct tasks *t)
{
    const struct sorted *volumes = &t->l->m->st.passes;

    for (uint32_t i = 0; i < volumes->count && t->m->n_tasks < TASKS_MAX; i++) {
        struct volume *v = volumes->items[i];
        const Zbs__Meta__Provisioning *p = &v->provisioning;

        if (t->now - v->pass_task_ns < (p->no_space ? ROOM_AGAIN : TASK_AGAIN) ||
            !is_for_slot(t, v, p->next_slot))
            continue;
        v->pass_task_ns = t->now;
        give_slot(t, v, p->next_slot, p->thick ? TASK_THICK : TASK_THIN)->pass = p->pass;
    }
}

void tasks_fill(struct live *l, const struct session *s, struct pad *pad,
                Zbs__Meta__SessionRenewReply *m)
{
    struct tasks t = {.l = l, .session = s, .pad = pad, .m = m, .now = co_now()};

    live_world(l, pad, false, true, &t.w);
    m->tasks = PAD_NEW_ARRAY(pad, Zbs__Meta__Task *, TASKS_MAX);
    give_wanted(&t);
    give_returns(&t);
    give_opens(&t);
    give_lost(&t);
    give_repairs(&t);
    give_releases(&t);
    give_flattens(&t);
    give_passes(&t);
}
