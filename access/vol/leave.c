/* SPDX-License-Identifier: Apache-2.0
 *
 * Members leave (PROTOCOL 5.1 to 5.3): what they lack is noted durably at everyone who stays,
 * then meta logs the removal, then the waiting writes are acknowledged. And how any change of
 * the set is agreed with meta. */
#include "access/vol/open.h"

#include <stdio.h>

#define ASK_LIMIT     (2 * NSEC_PER_SEC)
#define REFUSED_PAUSE (200 * NSEC_PER_MSEC)

/* ---- changes of the set ---- */

static void member_removed(struct tenure *t, uint32_t i)
{
    uint32_t bit = 1u << i;

    log_warn("replica.removed", "extent=%" PRIu64 " epoch=%" PRIu64 " chunk=%u", t->extent_id,
             t->epoch, t->m[i].chunk->id);
    t->set &= ~bit;
    t->adding &= ~bit;
    t->leaving &= ~bit;
    t->asked &= ~bit;
    t->open &= ~bit;
    t->absent |= bit;
}

/* Takes over what meta says is logged. */
static void set_adopt(struct tenure *t, uint64_t set_number, const uint32_t *members, size_t n)
{
    uint32_t logged = 0;

    if (set_number < t->set_number) {
        tenure_lose(t, "the set number went back");
        return;
    }
    t->set_number = set_number;
    for (size_t k = 0; k < n; k++) {
        int i = tenure_member(t, members[k]);

        if (i < 0 || !((t->set) >> i & 1)) {
            tenure_lose(t, "the set has a member that we do not know");
            return;
        }
        logged |= 1u << i;
    }
    if (logged == 0 || (t->set & ~t->adding & ~t->leaving & ~logged)) {
        tenure_lose(t, "the set lacks a member that we did not remove");
        return;
    }
    t->adding &= ~logged;
    commit_note_dirty(t);
    for (uint32_t i = 0; i < t->n; i++)
        if ((t->asked & ~logged) >> i & 1)
            member_removed(t, i);
    credits_recount(t);
    co_cond_broadcast(&t->changed);
    ops_check(t);
}

/* Meta refused our epoch or set number: are we the owner still, and of which set? */
static int set_resolve(struct tenure *t)
{
    struct grant g;
    uint64_t owner = 0;
    int rc = acquire_peek(t->slot, &g, &owner);

    if (t->lost)
        return ERR_STALE;
    if (rc == ERR_NOTFOUND && t->repair)
        tenure_lose(t, "the extent is gone");
    if (rc < 0)
        return rc == ERR_EXPIRED || rc == ERR_NOTFOUND ? ERR_STALE : ERR_AGAIN;
    if (owner != t->session || g.epoch != t->epoch || g.extent_id != t->extent_id) {
        tenure_lose(t, "meta knows a later owner or epoch");
        return ERR_STALE;
    }
    set_adopt(t, g.set_number, g.members, g.n_members);
    return t->lost ? ERR_STALE : ERR_AGAIN;
}

/* What is to become of meta's answer; ERR_CLOSED: none yet, ask the same again. */
static int set_answered(struct tenure *t, int rc, const struct rpc_reply *r)
{
    const Zbs__Meta__ReplicaChangeReply *a = (const Zbs__Meta__ReplicaChangeReply *)r->msg;

    switch (rc) {
    case 0:
        set_adopt(t, a->set_number, a->members, a->n_members);
        return t->lost ? ERR_STALE : 0;
    case ERR_STALE:
        return set_resolve(t);
    case ERR_EXPIRED:
        meta_session_lost(t->e, t->session);
        return ERR_STALE;
    case ERR_NOT_OWNER:
        tenure_lose(t, "meta moved the lease");
        return ERR_STALE;
    case ERR_NOTFOUND:
        if (!t->repair && vol_object_refresh(t->slot->vol) < 0 && !t->slot->vol->deleted)
            return ERR_CLOSED;
        tenure_lose(t, "the extent is gone");
        return ERR_STALE;
    case ERR_REFUSED:
    case ERR_INVAL:
    case ERR_PERM:
        return ERR_REFUSED;
    default:
        return ERR_CLOSED;
    }
}

static uint32_t mask_ids(const struct tenure *t, uint32_t mask, uint32_t *ids)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < t->n; i++)
        if (mask >> i & 1)
            ids[n++] = t->m[i].chunk->id;
    return n;
}

int set_change(struct tenure *t, uint32_t remove, uint32_t add, const char *reason)
{
    Zbs__Meta__ReplicaChangeRequest req = ZBS__META__REPLICA_CHANGE_REQUEST__INIT;
    Zbs__Meta__Mutation mutation = ZBS__META__MUTATION__INIT;
    uint32_t removed[MEMBERS_MAX], added[MEMBERS_MAX], forgotten[MEMBERS_MAX];
    char text[128];

    /* The same mutation until it is answered: its outcome decides what may be acknowledged. */
    meta_client_mutation(t->e->meta, &mutation);
    snprintf(text, sizeof(text), "%s", reason);
    req.mutation = &mutation;
    req.session_id = t->session;
    req.extent_id = t->extent_id;
    req.epoch = t->epoch;
    req.set_number = t->set_number;
    req.remove = removed;
    req.n_remove = mask_ids(t, remove, removed);
    req.add = added;
    req.n_add = mask_ids(t, add, added);
    req.forget = forgotten;
    req.n_forget = mask_ids(t, remove & t->surplus, forgotten);
    req.reason = text;
    req.volume_id = t->slot->vol->info.id;
    req.slot = t->slot->index;
    for (;;) {
        struct rpc_reply r;
        nsec_t former = co_deadline_push(co_now() + ASK_LIMIT);
        int rc;

        rpc_reply_init(&r);
        rc = meta_call(t->e->meta, META_REPLICA_CHANGE, &req.base, true, &r);
        co_deadline_restore(former);
        if (t->lost)
            rc = ERR_STALE;
        else
            rc = set_answered(t, rc, &r);
        rpc_reply_free(&r);
        if (rc != ERR_CLOSED)
            return rc;
        rc = co_sleep(IDLE_PAUSE);
        if (rc < 0)
            return rc;
    }
}

static int check_run(void *arg)
{
    struct tenure *t = arg;

    co_mutex_lock_always(&t->change);
    if (!t->lost)
        best_effort(set_resolve(t));
    co_mutex_unlock(&t->change);
    t->checking = false;
    tenure_put(t);
    return 0;
}

/* Without a write that fails, an owner would never learn of it: a child's set may have changed
 * with its origin's between the grant and the open. */
void set_check(struct tenure *t)
{
    if (t->checking || t->lost || !t->serving)
        return;
    t->checking = true;
    co_spawn_detached_deadline(&t->e->io, "check", check_run, tenure_get(t));
}

/* ---- removal ---- */

/* Every page that a leaving member is not known to have. */
static void unconfirmed_pages(const struct tenure *t, uint32_t i, struct rangeset *ret)
{
    rangeset_init(ret);
    LIST_FOREACH (op, &t->ops, struct op, link)
        if (!(op->got >> i & 1))
            rangeset_add(ret, op_first_page(op), op_first_page(op) + op_pages(op));
    if (!t->serving)
        rangeset_add_set(ret, &t->unc.pages);
}

/* Durably at everyone who stays: what the leaving ones lack. */
static int leave_note(struct tenure *t, uint32_t stay, uint32_t leave)
{
    struct rangeset pages[MEMBERS_MAX];
    int rc = 0;

    /* All of it as it stands now: writes from here on name them as missing themselves. */
    for (uint32_t i = 0; i < t->n; i++)
        if (leave >> i & 1)
            unconfirmed_pages(t, i, &pages[i]);
    for (uint32_t i = 0; i < t->n; i++) {
        const struct member *m = &t->m[i];

        if (!(leave >> i & 1))
            continue;
        if (rc == 0)
            rc = mset_start(t, stay, m->chunk->id, ver_max(m->confirmed, m->last_reported),
                            &pages[i], m->everything);
        rangeset_fini(&pages[i]);
    }
    return rc;
}

/* A volume's owner hears of its deletion; that an extent which volumes shared has gone with the
 * last of them shows in this only. */
static bool nobody_has_it(const struct tenure *t)
{
    uint32_t left = t->set;

    for (uint32_t i = 0; i < t->n; i++)
        if (t->m[i].everything)
            left &= ~(1u << i);
    return t->repair && !left;
}

static int leave_locked(struct tenure *t)
{
    uint32_t leave = t->leaving;
    uint32_t stay = t->set & ~leave;
    uint32_t ask;
    int rc;

    if (t->lost)
        return ERR_STALE;
    if (!leave)
        return 0;
    if (!(stay & ~t->adding)) {
        /* The last member is never removed: they are waited for again. */
        t->leaving = t->asked;
        co_cond_broadcast(&t->changed);
        return nobody_has_it(t) ? set_resolve(t) : ERR_AGAIN;
    }
    if (!mutate(MUT_SKIP_MISSING_START)) {
        rc = leave_note(t, stay, leave);
        if (rc < 0)
            return rc;
        if (t->leaving != leave)
            return ERR_AGAIN; /* more leave: all in one record */
    }
    /* Of those being added the answer is known (no change is outstanding): they are not logged,
     * so there is nothing to remove them from. */
    ask = leave & ~t->adding;
    t->asked |= ask;
    rc = ask ? set_change(t, ask, 0, ask & ~t->surplus ? "did not confirm" : "one too many") : 0;
    if (rc == ERR_REFUSED) {
        log_warn("replica.removal_refused", "extent=%" PRIu64 " \"%s\"", t->extent_id,
                 err_text(rc));
        t->leaving &= ~ask;
        t->asked &= ~ask;
        t->surplus &= ~ask;
        co_cond_broadcast(&t->changed);
    }
    if (rc == 0 && (leave & t->adding)) {
        for (uint32_t i = 0; i < t->n; i++)
            if ((leave & t->adding) >> i & 1)
                member_removed(t, i);
        credits_recount(t);
        co_cond_broadcast(&t->changed);
        ops_check(t);
    }
    return rc;
}

int leave_exchange(struct tenure *t, uint32_t leave, uint32_t add)
{
    int rc;

    co_mutex_lock_always(&t->change);
    rc = leave_note(t, (t->set & t->open) | add, leave);
    if (rc == 0 && t->lost)
        rc = ERR_STALE;
    if (rc == 0 && (add & ~(t->joining & t->open)))
        rc = err_set(ERR_NO_REPLICA, "it failed");
    if (rc == 0) {
        t->joining &= ~add;
        t->adding |= add;
        t->set |= add;
        t->asked |= leave;
        rc = set_change(t, leave, add, "lost, with too few others");
    }
    co_mutex_unlock(&t->change);
    return rc;
}

int leave_step(struct tenure *t)
{
    int rc;

    co_mutex_lock_always(&t->change);
    phase_enter(PHASE_REMOVING);
    rc = leave_locked(t);
    phase_leave(PHASE_REMOVING);
    co_mutex_unlock(&t->change);
    return rc;
}

/* Meta does not believe us about members that it sees alive: we seem to be the isolated one, and
 * somebody else should have the lease (PROTOCOL 5.2). */
static bool seems_isolated(const struct tenure *t, uint32_t accused)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < t->n; i++) {
        if (!(accused >> i & 1))
            continue;
        if (!t->m[i].chunk->alive)
            return false;
        n++;
    }
    return n >= 2;
}

static void give_lease_away(struct tenure *t)
{
    struct slot *s = t->slot;

    s->avoid_until = co_now() + 2 * t->e->ttl;
    tenure_lose(t, "we seem to be isolated from its members");
    if (!s->tenure && s->state == SLOT_NONE)
        best_effort(release_slot(s, false));
}

static int leave_run(void *arg)
{
    struct tenure *t = arg;

    while (!t->lost && t->leaving) {
        uint32_t accused = t->leaving;
        int rc = leave_step(t);

        if (rc == ERR_REFUSED && seems_isolated(t, accused))
            give_lease_away(t);
        else if (rc == ERR_REFUSED && rescue_possible(t, accused))
            tenure_lose(t, "a member is lost for good, and can be replaced at an open only");
        else if (rc == ERR_REFUSED)
            (void)co_sleep(REFUSED_PAUSE);
        else if (rc < 0)
            (void)co_sleep(RETRY_PAUSE);
    }
    t->remover = false;
    tenure_put(t);
    return 0;
}

void leave_kick(struct tenure *t)
{
    if (t->remover || t->lost || !t->may_remove || !t->leaving)
        return;
    t->remover = true;
    co_spawn_detached_deadline(&t->e->io, "remove", leave_run, tenure_get(t));
}

void leave_surplus(struct tenure *t, uint32_t chunk_id)
{
    int i = tenure_member(t, chunk_id);
    uint32_t others;

    if (i < 0 || !(t->set >> i & 1) || t->leaving || t->adding || t->joining)
        return; /* it is asked for again */
    others = tenure_readable(t) & ~(1u << i);
    if (!others)
        return;
    t->surplus |= 1u << i;
    member_fail(t, (uint32_t)i, false, "one replica too many");
}
