/* SPDX-License-Identifier: Apache-2.0
 *
 * Leases of slots, as asked of meta: grants, and what they make of a slot. */
#include "access/vol/vol_int.h"

#include <string.h>

#define WRITTEN_LATELY (30 * NSEC_PER_SEC)

/* Checks and copies what meta granted. */
static int grant_read(const Zbs__Meta__Grant *m, struct grant *g)
{
    memset(g, 0, sizeof(*g));
    if (m->n_members + m->n_absent > MEMBERS_MAX || (m->extent_id != 0 && m->n_members == 0))
        return err_set(ERR_PROTO, "meta grants extent %" PRIu64 " with %zu members, %zu absent",
                       m->extent_id, m->n_members, m->n_absent);
    g->epoch = m->epoch;
    g->extent_id = m->extent_id;
    g->family = m->family ? m->family : m->extent_id;
    g->set_number = m->set_number;
    g->created = m->created;
    g->shared = m->shared;
    g->thick = m->thick;
    g->extent_epoch = m->extent_epoch;
    g->origin = m->origin;
    g->origin_epoch = m->origin_epoch;
    for (size_t i = 0; i < m->n_members; i++)
        g->members[g->n_members++] = m->members[i];
    for (size_t i = 0; i < m->n_absent; i++)
        g->absent[g->n_absent++] = m->absent[i];
    for (uint32_t i = 0; i < g->n_members; i++) {
        for (uint32_t j = 0; j < i; j++)
            if (g->members[j] == g->members[i])
                return err_set(ERR_PROTO, "meta names a member twice");
        for (uint32_t j = 0; j < g->n_absent; j++)
            if (g->absent[j] == g->members[i])
                return err_set(ERR_PROTO, "meta names a member absent");
    }
    return 0;
}

/* Reads need no open; what was known of it as its owner is over. */
void slot_set_shared(struct slot *s, const struct grant *g)
{
    slot_set_state(s, SLOT_NONE);
    s->state = SLOT_SHARED;
    s->shared = shared_new(s->vol->e, g);
    s->want_epoch = s->want_open = false;
    s->n_join = 0;
}

/* It was on its way while the volume was held: what it says was so before. */
static bool grant_is_old(const struct volume *v, const struct grant *g)
{
    return g->epoch < v->table_at || (g->extent_id && !g->shared && g->epoch < v->shared_at);
}

/* It is gone, or nothing shares it any more: there is nothing to do for us. */
static int extent_over(struct slot *s)
{
    slot_set_state(s, SLOT_NONE);
    s->owner = 0;
    s->want_open = s->want_release = s->want_epoch = false;
    s->n_join = 0;
    return 0;
}

static void grant_apply(struct slot *s, uint64_t owner, const struct grant *g)
{
    struct vol_engine *e = s->vol->e;

    ASSERT(!s->tenure);
    if (owner == e->session && s->owner != owner)
        s->owned_since = co_now();
    s->owner = owner;
    if (owner != e->session && s->extent_id) {
        best_effort(extent_over(s)); /* another works on it */
    } else if (owner != e->session && !(owner == 0 && s->vol->info.read_only)) {
        slot_set_state(s, owner ? SLOT_FOREIGN : SLOT_NONE);
        s->foreign_until = co_now() + NSEC_PER_SEC;
    } else if (owner && !s->extent_id && grant_is_old(s->vol, g)) {
        static const struct grant none;

        slot_set_state(s, SLOT_NONE);
        g = &none;
    } else if (g->extent_id == 0) {
        slot_set_state(s, SLOT_HOLE);
        s->want_open = false;
        s->n_join = 0;
    } else if (g->shared && !s->extent_id) {
        slot_set_shared(s, g);
    } else if (s->vol->info.read_only) {
        slot_set_state(s, SLOT_NONE);
    } else if (g->epoch <= s->epoch_used) {
        /* Versions of this epoch may be out already: never again. */
        slot_set_state(s, SLOT_NONE);
        s->want_epoch = true;
    } else {
        slot_set_state(s, SLOT_GRANTED);
        s->want_alloc = false;
        s->want_epoch = false;
    }
    s->grant = *g;
    co_cond_broadcast(&s->changed);
}

struct window {
    struct slot *slots[64];
    uint32_t first, n;
};

static bool eligible(struct slot *s, const struct slot *like)
{
    if (!s || s->driving || s->want_epoch || s->holding || s->state != like->state)
        return false;
    /* Children are made ahead where writes are likely. */
    return s->state != SLOT_SHARED || (s->last_write && co_now() - s->last_write < WRITTEN_LATELY);
}

/* The slots of the same stripe group that are in the same state: who needs one needs the others
 * soon. */
static void window_open(struct window *w, struct slot *s, bool alone)
{
    struct volume *v = s->vol;
    uint32_t group = v->info.layout.stripe_count;
    uint32_t base = s->index / group * group;
    uint32_t lo = s->index, hi = s->index + 1;

    if (!alone) {
        while (lo > base && eligible(vol_slot_at(v, lo - 1), s))
            lo--;
        while (hi < base + group && hi - lo < ARRAY_SIZE(w->slots) &&
               eligible(vol_slot_at(v, hi), s))
            hi++;
    }
    w->first = lo;
    w->n = hi - lo;
    for (uint32_t i = 0; i < w->n; i++) {
        w->slots[i] = vol_slot_at(v, lo + i);
        w->slots[i]->driving = true;
    }
}

static void window_close(struct window *w, const struct slot *except)
{
    for (uint32_t i = 0; i < w->n; i++) {
        if (w->slots[i] == except)
            continue;
        w->slots[i]->driving = false;
        co_cond_broadcast(&w->slots[i]->changed);
        slot_kick(w->slots[i]);
    }
}

static int acquire_call(struct slot *s, uint32_t first, uint32_t count, bool allocate,
                        bool new_epoch, struct rpc_reply *r)
{
    struct vol_engine *e = s->vol->e;
    Zbs__Meta__LeaseAcquireRequest req = ZBS__META__LEASE_ACQUIRE_REQUEST__INIT;
    Zbs__Meta__Mutation mutation = ZBS__META__MUTATION__INIT;
    uint64_t session = e->session;
    int rc;

    if (!session)
        return err_set(ERR_AGAIN, "there is no session with meta");
    meta_client_mutation(e->meta, &mutation);
    req.mutation = &mutation;
    req.session_id = session;
    req.volume_id = s->vol->info.id;
    req.extent_id = s->extent_id;
    req.first_slot = first;
    req.count = count;
    req.allocate = allocate;
    req.new_epoch = new_epoch;
    rc = meta_call(e->meta, META_LEASE_ACQUIRE, &req.base, true, r);
    if (rc == ERR_EXPIRED)
        meta_session_lost(e, session);
    else if (rc == ERR_NOTFOUND && !s->extent_id)
        best_effort(vol_object_refresh(s->vol));
    if (rc < 0)
        return rc;
    if (e->session != session)
        return err_set(ERR_AGAIN, "the session changed meanwhile");
    if (((const Zbs__Meta__LeaseAcquireReply *)r->msg)->n_grants != count)
        return err_set(ERR_PROTO, "meta answers another number of grants");
    return 0;
}

int acquire_slots(struct slot *s, bool new_epoch)
{
    bool alloc = s->want_alloc;
    struct window w;
    struct rpc_reply r;
    int rc;

    window_open(&w, s, new_epoch || s->extent_id);
    rpc_reply_init(&r);
    rc = acquire_call(s, w.first, w.n, alloc, new_epoch, &r);
    for (uint32_t i = 0; rc == 0 && i < w.n; i++) {
        const Zbs__Meta__Grant *m = ((const Zbs__Meta__LeaseAcquireReply *)r.msg)->grants[i];
        struct grant g;

        if (!s->extent_id && m->slot != w.slots[i]->index)
            rc = err_set(ERR_PROTO, "meta answers for another slot");
        else
            rc = grant_read(m, &g);
        if (rc == 0 && w.slots[i]->tenure)
            tenure_lose(w.slots[i]->tenure, "a new epoch");
        if (rc == 0) {
            grant_apply(w.slots[i], m->owner_session, &g);
            relatives_read(w.slots[i], m);
        }
        if (rc == 0 && alloc && g.shared && w.slots[i] == s)
            rc = err_set(ERR_AGAIN, "meta gives no extent for slot %u at present", s->index);
    }
    window_close(&w, s);
    rpc_reply_free(&r);
    if (s->extent_id && (rc == ERR_NOTFOUND || rc == ERR_STALE) && !s->tenure)
        return extent_over(s);
    return rc;
}

int acquire_peek(struct slot *s, struct grant *ret, uint64_t *ret_owner)
{
    struct rpc_reply r;
    int rc;

    rpc_reply_init(&r);
    rc = acquire_call(s, s->index, 1, false, false, &r);
    if (rc == 0) {
        const Zbs__Meta__Grant *m = ((const Zbs__Meta__LeaseAcquireReply *)r.msg)->grants[0];

        *ret_owner = m->owner_session;
        rc = s->extent_id || m->slot == s->index ? grant_read(m, ret) : ERR_PROTO;
    }
    rpc_reply_free(&r);
    return rc;
}

int release_slot(struct slot *s, bool clean)
{
    struct vol_engine *e = s->vol->e;
    Zbs__Meta__LeaseReleaseRequest req = ZBS__META__LEASE_RELEASE_REQUEST__INIT;
    uint64_t session = e->session;
    uint64_t epoch = s->grant.epoch;
    uint32_t index = s->index;
    struct rpc_reply r;
    int rc;

    ASSERT(!s->tenure);
    if (!session || s->owner != session)
        return 0;
    slot_set_state(s, SLOT_NONE);
    s->owner = 0;
    req.session_id = session;
    req.volume_id = s->vol->info.id;
    req.unclean = !clean;
    if (s->extent_id) {
        req.extent_ids = &s->extent_id;
        req.n_extent_ids = 1;
    } else {
        req.slots = &index;
        req.n_slots = 1;
    }
    req.epochs = &epoch;
    req.n_epochs = 1;
    rpc_reply_init(&r);
    rc = meta_call(e->meta, META_LEASE_RELEASE, &req.base, true, &r);
    rpc_reply_free(&r);
    if (rc == ERR_EXPIRED)
        meta_session_lost(e, session);
    else if (rc < 0 && e->session == session && s->state == SLOT_NONE && !s->owner)
        s->owner = session; /* for all that is known: forgotten, nobody would give it back */
    return rc;
}
