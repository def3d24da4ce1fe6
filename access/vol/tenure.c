/* SPDX-License-Identifier: Apache-2.0
 *
 * Our ownership of one extent at one epoch: its life, and what happens to its members. */
#include "access/vol/open.h"

#include <string.h>

static void member_init(struct tenure *t, uint32_t chunk_id)
{
    struct member *m = &t->m[t->n];

    m->chunk = chunk_get(t->e, chunk_id);
    rangeset_init(&m->missing);
    rangeset_init(&m->stale);
    t->n++;
}

struct tenure *tenure_new(struct slot *s, const struct grant *g)
{
    struct tenure *t = MEM_NEW(struct tenure);

    ASSERT(g->n_members > 0 && g->n_members + g->n_absent <= MEMBERS_MAX);
    ASSERTF(g->epoch > s->epoch_used, "epoch %" PRIu64 " after %" PRIu64, g->epoch, s->epoch_used);
    s->epoch_used = g->epoch;
    t->e = s->vol->e;
    t->slot = s;
    t->refs = 1;
    t->extent_id = g->extent_id;
    t->family = g->family;
    t->epoch = g->epoch;
    t->set_number = g->set_number;
    t->origin = g->created ? 0 : g->origin;
    t->origin_epoch = g->origin_epoch;
    t->repair = s->extent_id != 0;
    t->thick = g->thick;
    t->kin = s->kin;
    s->kin = NULL;
    s->tenures++;
    t->session = t->e->session;
    co_cond_init(&t->changed);
    list_init(&t->ops);
    list_init(&t->dirty_link);
    co_sem_init(&t->room, OPS_IN_FLIGHT);
    co_range_lock_init(&t->ranges);
    co_mutex_init(&t->change);
    co_mutex_init(&t->credit);
    rangeset_init(&t->unc.pages);
    for (uint32_t i = 0; i < g->n_members; i++)
        member_init(t, g->members[i]);
    for (uint32_t i = 0; i < g->n_absent; i++)
        member_init(t, g->absent[i]);
    t->set = (1u << g->n_members) - 1;
    t->absent = ((1u << t->n) - 1) & ~t->set;
    return t;
}

void tenure_put(struct tenure *t)
{
    ASSERT(t->refs > 0);
    if (--t->refs > 0)
        return;
    ASSERT(t->lost && list_empty(&t->ops));
    t->slot->tenures--;
    list_del(&t->dirty_link);
    for (uint32_t i = 0; i < t->n; i++) {
        rangeset_fini(&t->m[i].missing);
        rangeset_fini(&t->m[i].stale);
    }
    uncommitted_free(&t->unc);
    mem_free(t->kin);
    mem_free(t);
}

void tenure_lose(struct tenure *t, const char *why)
{
    struct slot *s = t->slot;

    if (t->lost)
        return;
    tenure_get(t);
    t->lost = true;
    t->serving = false;
    log_debug("extent.lost", "extent=%" PRIu64 " epoch=%" PRIu64 " why=\"%s\"", t->extent_id,
              t->epoch, why);
    if (s->tenure == t) {
        s->tenure = NULL;
        s->state = SLOT_NONE;
        list_del(&s->open_link);
        t->e->n_open--;
        co_cond_broadcast(&s->changed);
        tenure_put(t);
    }
    list_del(&t->dirty_link);
    ops_check(t);
    co_cond_broadcast(&t->changed);
    slot_kick(s);
    tenure_put(t);
}

int tenure_member(const struct tenure *t, uint32_t chunk_id)
{
    for (uint32_t i = 0; i < t->n; i++)
        if (t->m[i].chunk->id == chunk_id)
            return (int)i;
    return -1;
}

/* ---- failing ---- */

void member_give_up_join(struct tenure *t, uint32_t i, const char *why)
{
    uint32_t bit = 1u << i;

    if (!(t->joining & bit))
        return;
    log_info("replica.return_given_up", "extent=%" PRIu64 " chunk=%u why=\"%s\"", t->extent_id,
             t->m[i].chunk->id, why);
    t->joining &= ~bit;
    t->absent |= bit;
    t->open &= ~bit;
    credits_recount(t);
    ops_check(t);
    co_cond_broadcast(&t->changed);
}

void member_fail(struct tenure *t, uint32_t i, bool everything, const char *why)
{
    uint32_t bit = 1u << i;

    t->m[i].everything |= everything;
    if (t->joining & bit) {
        member_give_up_join(t, i, why);
        return;
    }
    if (!(t->set & bit) || (t->leaving & bit) || t->lost)
        return;
    if (t->rescuing) {
        tenure_lose(t, "the last whole member failed");
        return;
    }
    log_warn("replica.leaving",
             "extent=%" PRIu64 " epoch=%" PRIu64 " chunk=%u everything=%d why=\"%s\"", t->extent_id,
             t->epoch, t->m[i].chunk->id, everything, why);
    t->leaving |= bit;
    co_cond_broadcast(&t->changed);
    leave_kick(t);
}

/* ---- confirmations ---- */

void member_confirmed(struct tenure *t, uint32_t i, uint64_t gen, uint32_t first, uint32_t count)
{
    struct member *m = &t->m[i];
    struct ver v = {t->epoch, gen};

    m->confirmed = ver_max(m->confirmed, v);
    m->recent[m->recent_pos++ % CONFIRMED_KEPT] = (struct confirmed){first, count, v};
    m->failing_since = 0;
}

/* Highest version that an open reports for a page; zero if none above its commit point. */
static struct ver reported_version(const Zbs__Chunk__OpenResult *r, uint32_t page)
{
    struct ver best = {0, 0};

    for (size_t k = 0; k < r->n_uncommitted; k++) {
        const Zbs__PageRangeVersion *u = r->uncommitted[k];

        if (page >= u->first && page - u->first < u->count)
            best = ver_max(best, ver_of(u->version));
    }
    return best;
}

/* Does the restarted server have what it confirmed? (PROTOCOL 2.5) */
static bool tail_kept(const struct member *m, const Zbs__Chunk__OpenResult *r)
{
    struct ver last = ver_of(r->last_version);
    struct ver cp = ver_of(r->commit_point);

    if (mutate(MUT_NO_TAIL_CHECK))
        return true;
    if (ver_cmp(last, m->last_reported) < 0 || ver_cmp(last, m->confirmed) < 0)
        return false;
    for (uint32_t k = 0; k < CONFIRMED_KEPT; k++) {
        const struct confirmed *c = &m->recent[k];

        /* What its commit point covers was durable before that was. */
        if (c->count == 0 || ver_cmp(c->ver, cp) <= 0)
            continue;
        for (uint32_t p = c->first; p < c->first + c->count; p++)
            if (ver_cmp(reported_version(r, p), c->ver) < 0)
                return false;
    }
    return true;
}

int member_opened(struct tenure *t, uint32_t i, const struct open_call *call, bool again)
{
    struct member *m = &t->m[i];
    const Zbs__Chunk__OpenResult *r = call->result;

    if (r->void_ || (again && !tail_kept(m, r))) {
        m->everything = true;
        return err_set(ERR_NO_REPLICA, "chunk server %u lost writes of extent %" PRIu64,
                       m->chunk->id, t->extent_id);
    }
    if (!again)
        m->last_reported = ver_of(r->last_version);
    m->incarnation = call->incarnation;
    m->cp_sent = ver_of(r->commit_point);
    m->vouched = r->vouched;
    credits_opened(t, i, r);
    t->open |= 1u << i;
    commit_note_dirty(t);
    co_cond_broadcast(&t->changed);
    return 0;
}

/* The server restarted: opens the replica again under our epoch. One at a time; others wait. */
int member_reopen(struct tenure *t, uint32_t i)
{
    struct member *m = &t->m[i];
    uint32_t bit = 1u << i;
    struct open_call call = {.extent_id = t->extent_id, .epoch = t->epoch, .family = t->family};
    int rc;

    while (m->reopening) {
        rc = co_cond_wait(&t->changed);
        if (rc < 0)
            return rc;
        if (t->lost || (t->open & bit) || !((t->set | t->joining) & bit))
            return t->lost ? ERR_STALE : 0;
    }
    m->reopening = true;
    t->open &= ~bit;
    m->credits = 0; /* its server has forgotten them */
    call.credit_blocks = credits_to_reopen(t, i);
    call.thaw = !t->repair;
    rc = chunk_open(m->chunk, &call);
    if (rc == 0)
        rc = member_opened(t, i, &call, true);
    open_call_done(&call);
    m->reopening = false;
    co_cond_broadcast(&t->changed);
    if (rc == ERR_STALE)
        tenure_lose(t, "a member was opened by another");
    else if (rc == ERR_NO_REPLICA)
        member_fail(t, i, true, "lost its writes");
    else if (rc == 0)
        log_info("replica.reopened", "extent=%" PRIu64 " chunk=%u", t->extent_id, m->chunk->id);
    return rc;
}

/* ---- calls to members ---- */

static bool member_wanted(const struct tenure *t, uint32_t i)
{
    return !t->lost && ((t->set | t->joining) >> i & 1);
}

/* What an error says about the member; true: there is no point in trying again. */
static bool member_judge(struct tenure *t, uint32_t i, int rc, const struct member_req *q,
                         nsec_t since)
{
    struct member *m = &t->m[i];

    if (q->pass_unread && is_unread(rc))
        return true;
    switch (rc) {
    case ERR_STALE:
        tenure_lose(t, "a member has seen a higher epoch");
        return true;
    case ERR_NOT_OPEN:
        t->open &= ~(1u << i);
        break;
    case ERR_NO_REPLICA:
        member_fail(t, i, true, "unknown there");
        break;
    case ERR_NOSPACE:
        if (q->pass_nospace)
            return true;
        member_fail(t, i, false, "no space");
        break;
    case ERR_IO:
    case ERR_FORMAT:
        member_fail(t, i, false, err_text(rc));
        break;
    default: /* ERR_CORRUPT too: the payload may have been damaged on its way */
        if (chunk_given_up(m->chunk) || co_now() - since >= t->e->member_deadline)
            member_fail(t, i, false, err_text(rc));
        break;
    }
    return false;
}

static int member_call_once(struct tenure *t, uint32_t i, const struct member_req *q,
                            struct rpc_reply *r, nsec_t since)
{
    struct member *m = &t->m[i];
    nsec_t left = since + t->e->member_deadline - co_now();
    struct rpc_payload out = {.count = 0};

    if (!(t->open >> i & 1) && q->method != CHUNK_CREATE) {
        int rc = member_reopen(t, i);

        if (rc < 0)
            return rc;
        /* Meanwhile it may have been removed, and the write acknowledged without it. */
        if (t->lost || !member_wanted(t, i))
            return err_set(ERR_CLOSED, "no longer wanted there");
    }
    if (q->data)
        rpc_payload_add(&out, q->data->buf, q->data->off, q->data->len);
    return chunk_call(m->chunk, t->family, q->method, q->msg, q->data ? &out : NULL, r,
                      MAX(left, t->e->member_deadline / 10));
}

int member_call(struct tenure *t, uint32_t i, const struct member_req *q, struct rpc_reply *r)
{
    nsec_t since = co_now();

    /* Others have waited for this server long enough: its removal need not wait again (5.7). */
    if (chunk_given_up(t->m[i].chunk))
        member_fail(t, i, false, "its server is silent");
    for (uint32_t tries = 0;; tries++) {
        int rc;

        if (t->lost)
            return ERR_STALE;
        if (!member_wanted(t, i) || (q->stop_leaving && (t->leaving >> i & 1)))
            return ERR_NO_REPLICA;
        rpc_reply_free(r);
        rpc_reply_init(r);
        rc = member_call_once(t, i, q, r, since);
        if (rc >= 0)
            return 0;
        if (rc == ERR_CANCELED)
            return rc;
        if (member_judge(t, i, rc, q, since))
            return rc;
        if (!member_wanted(t, i))
            continue;
        if (rc == ERR_NOT_OPEN && tries == 0)
            continue;
        /* Tried again even while it is being removed: that may be refused, or it may be the last
         * member. */
        rc = co_sleep(t->leaving >> i & 1 ? IDLE_PAUSE : RETRY_PAUSE);
        if (rc < 0)
            return rc;
        if (t->leaving >> i & 1)
            since = co_now();
    }
}

struct fan {
    struct tenure *t;
    uint32_t i;
    const struct member_req *q;
};

static int fan_one(void *arg)
{
    struct fan *f = arg;
    struct rpc_reply r;
    int rc;

    rpc_reply_init(&r);
    rc = member_call(f->t, f->i, f->q, &r);
    rpc_reply_free(&r);
    return rc == ERR_NO_REPLICA ? 0 : rc;
}

int members_call(struct tenure *t, uint32_t mask, const struct member_req *q)
{
    struct fan fans[MEMBERS_MAX];
    struct co_group g;
    uint32_t last = MEMBERS_MAX;
    int rc = 0, group_rc;

    co_group_init(&g);
    for (uint32_t i = 0; i < t->n; i++) {
        if (!(mask >> i & 1))
            continue;
        fans[i] = (struct fan){t, i, q};
        if (last < MEMBERS_MAX)
            co_spawn(&g, "member", fan_one, &fans[last]);
        last = i;
    }
    if (last < MEMBERS_MAX)
        rc = fan_one(&fans[last]);
    group_rc = co_group_join(&g);
    if (t->lost)
        return ERR_STALE;
    return rc < 0 ? rc : group_rc;
}

/* ---- are they there? ---- */

struct probe {
    struct tenure *t;
    uint32_t i;
};

static int probe_run(void *arg)
{
    struct probe *p = arg;
    struct tenure *t = p->t;
    Zbs__Chunk__CheckEpochRequest req = ZBS__CHUNK__CHECK_EPOCH_REQUEST__INIT;
    struct member_req q = {.method = CHUNK_CHECK_EPOCH, .msg = &req.base, .stop_leaving = true};
    struct rpc_reply r;

    req.extent_id = t->extent_id;
    req.family = t->family;
    req.epoch = t->epoch;
    rpc_reply_init(&r);
    best_effort(member_call(t, p->i, &q, &r));
    rpc_reply_free(&r);
    t->probing &= ~(1u << p->i);
    tenure_put(t);
    mem_free(p);
    return 0;
}

void tenure_probe(struct tenure *t, uint32_t mask)
{
    mask &= t->set & ~t->leaving & ~t->probing;
    for (uint32_t i = 0; i < t->n && t->serving; i++) {
        struct probe *p;

        if (!(mask >> i & 1))
            continue;
        p = MEM_NEW(struct probe);
        p->t = tenure_get(t);
        p->i = i;
        t->probing |= 1u << i;
        co_spawn_detached_deadline(&t->e->io, "probe", probe_run, p);
    }
}
