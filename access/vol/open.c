/* SPDX-License-Identifier: Apache-2.0
 *
 * Opening an extent under a new epoch (PROTOCOL 2): fences the former owner at every member,
 * drops those that can't be opened, makes the rest equal, and only then serves. */
#include "access/vol/open.h"

#include <string.h>

#define ROUND_PAUSE   (20 * NSEC_PER_MSEC)
#define REFUSED_PAUSE (200 * NSEC_PER_MSEC)
#define ORIGIN_LIMIT  (2 * NSEC_PER_SEC)

/* ---- one replica ---- */

static int create_call(struct tenure *t, uint32_t i, uint64_t origin, uint64_t origin_epoch,
                       bool reserve)
{
    Zbs__Chunk__CreateRequest req = ZBS__CHUNK__CREATE_REQUEST__INIT;
    Zbs__Chunk__CreateItem item = ZBS__CHUNK__CREATE_ITEM__INIT;
    Zbs__Chunk__CreateItem *items[] = {&item};
    struct rpc_reply r;
    int rc;

    item.extent_id = t->extent_id;
    item.family = t->family;
    item.epoch = t->epoch;
    item.volume_id = t->slot->vol->info.id;
    item.slot = t->slot->index;
    item.origin = origin;
    item.origin_epoch = origin_epoch;
    item.reserve = reserve;
    req.items = items;
    req.n_items = 1;
    rpc_reply_init(&r);
    phase_enter(PHASE_GROWING);
    rc = chunk_call(t->m[i].chunk, t->family, CHUNK_CREATE, &req.base, NULL, &r,
                    t->e->member_deadline);
    phase_leave(PHASE_GROWING);
    if (rc == 0) {
        const Zbs__Chunk__CreateReply *a = (const Zbs__Chunk__CreateReply *)r.msg;

        if (a->n_results != 1)
            rc = err_set(ERR_PROTO, "a create was answered with %zu results", a->n_results);
        else if (a->results[0]->rc < 0)
            rc = err_set(a->results[0]->rc, "%s", a->results[0]->text);
    }
    rpc_reply_free(&r);
    return rc;
}

/* A replica is worth more than its promise. */
int replica_create(struct tenure *t, uint32_t i, uint64_t origin, uint64_t origin_epoch)
{
    int rc = create_call(t, i, origin, origin_epoch, t->thick);

    return rc == ERR_NOSPACE && t->thick ? create_call(t, i, origin, origin_epoch, false) : rc;
}

/* Copies what the answer says, checked: it lives in the batch's reply. */
static int report_read(struct open_state *o, uint32_t i, const Zbs__Chunk__OpenResult *r)
{
    mem_free(o->unc[i]);
    o->unc[i] = MEM_NEW_ARRAY(struct confirmed, MAX(r->n_uncommitted, 1u));
    o->n_unc[i] = 0;
    for (size_t k = 0; k < r->n_uncommitted; k++) {
        const Zbs__PageRangeVersion *u = r->uncommitted[k];

        if (u->count == 0 || u->first >= PAGES_PER_EXTENT || u->count > PAGES_PER_EXTENT - u->first)
            return err_set(ERR_PROTO, "an open reports pages %u+%u", u->first, u->count);
        o->unc[i][o->n_unc[i]++] = (struct confirmed){u->first, u->count, ver_of(u->version)};
    }
    o->n_info[i] = 0;
    for (size_t k = 0; k < r->n_missing && o->n_info[i] < ARRAY_SIZE(o->info[i]); k++) {
        const Zbs__Chunk__MissingInfo *m = r->missing[k];

        o->info[i][o->n_info[i]++] = (struct absent_info){
            .replica = m->replica,
            .known = true,
            .everything = m->everything,
            .pages = m->pages,
            .last = ver_of(m->last_version),
        };
    }
    o->reported_cp[i] = ver_of(r->commit_point);
    o->t->m[i].cp_sent = o->reported_cp[i];
    return 0;
}

static int replica_open(struct open_state *o, uint32_t i)
{
    struct tenure *t = o->t;
    bool joining = o->want_join >> i & 1;
    struct open_call call = {.extent_id = t->extent_id, .epoch = t->epoch, .family = t->family};
    int rc = 0;

    if (!joining && !o->created)
        rc = replica_create(t, i, t->origin, t->origin_epoch);
    if (rc < 0)
        return rc;
    call.credit_blocks = CREDITS_OPEN;
    call.thaw = !t->repair;
    rc = chunk_open(t->m[i].chunk, &call);
    if (rc == ERR_NO_REPLICA && joining) {
        open_call_done(&call);
        o->lacks[i] = true;
        /* In the place of a lost one it is made now, to have no versions of a relative's. */
        if (relative_at(t, i, 0) && !o->refused) {
            o->late |= 1u << i;
            return rc;
        }
        o->late &= ~(1u << i);
        rc = replica_create(t, i, 0, 0);
        if (rc == 0)
            rc = chunk_open(t->m[i].chunk, &call);
    }
    if (rc == 0)
        rc = report_read(o, i, call.result);
    if (rc == 0 && joining && call.result->void_)
        o->lacks[i] = true; /* whatever it has, everything is copied */
    if (rc == 0 && !(joining && call.result->void_))
        rc = member_opened(t, i, &call, false);
    else if (rc == 0)
        t->open |= 1u << i;
    if (rc == 0)
        thick_opened(t, i, call.result);
    open_call_done(&call);
    return rc;
}

struct opener {
    struct open_state *o;
    uint32_t i;
};

static int open_one(void *arg)
{
    struct opener *op = arg;
    struct open_state *o = op->o;
    struct tenure *t = o->t;
    uint32_t bit = 1u << op->i;
    bool joining = o->want_join & bit;
    int rc = replica_open(o, op->i);

    if (rc == 0 && joining)
        o->join |= bit;
    if (rc == 0)
        return 0;
    log_debug("replica.open_failed", "extent=%" PRIu64 " chunk=%u error=%s \"%s\"", t->extent_id,
              t->m[op->i].chunk->id, err_name(rc), err_text(rc));
    if (rc == ERR_STALE)
        tenure_lose(t, "a replica has seen a higher epoch");
    if (joining)
        return 0;
    if (t->origin && rc == ERR_AGAIN) {
        o->busy |= bit; /* its origin is being repaired there, or not clean: it will be */
        recover_open(t->e, t->origin);
    }
    if (t->origin && rc == ERR_INVAL)
        tenure_lose(t, "the origin was repaired since: a higher epoch is needed");
    if (rc == ERR_NO_REPLICA && (o->created || t->origin || t->m[op->i].everything)) {
        t->m[op->i].everything = true;
        o->gone |= bit;
    } else if (rc == ERR_IO || rc == ERR_CORRUPT || rc == ERR_FORMAT || rc == ERR_NOSPACE) {
        o->gone |= bit;
        o->full |= rc == ERR_NOSPACE ? bit : 0;
    }
    return 0;
}

/* Opens, at once, what is not open yet. */
static void open_round(struct open_state *o)
{
    struct tenure *t = o->t;
    struct opener ops[MEMBERS_MAX];
    struct co_group g;

    o->busy = 0;
    co_group_init(&g);
    for (uint32_t i = 0; i < t->n; i++) {
        if ((t->open | o->gone) >> i & 1 || !((t->set | o->want_join) >> i & 1))
            continue;
        ops[i] = (struct opener){o, i};
        co_spawn(&g, "open", open_one, &ops[i]);
    }
    (void)co_group_join(&g);
    o->want_join &= o->join; /* one attempt: the leader asks again */
}

/* ---- members that can't be opened ---- */

/* One whose last version is below another's commit point lost the tail of its journal (2.5). */
static void tails_check(struct open_state *o)
{
    struct tenure *t = o->t;
    /* Nothing was ever written to one that is not created. As a child it has the versions of its
     * origin, which go on if a replica of that returns while members make their copies. */
    uint32_t open = mutate(MUT_NO_TAIL_CHECK) || !o->created ? 0 : t->set & t->open;

    for (uint32_t i = 0; i < t->n; i++) {
        for (uint32_t k = 0; k < t->n && (open >> i & 1); k++) {
            if (k == i || !(open >> k & 1) ||
                ver_cmp(t->m[i].last_reported, o->reported_cp[k]) >= 0)
                continue;
            log_warn("replica.behind", "extent=%" PRIu64 " chunk=%u: below the commit point",
                     t->extent_id, t->m[i].chunk->id);
            t->m[i].everything = true;
            t->open &= ~(1u << i);
            o->gone |= 1u << i;
            break;
        }
    }
}

/* May an unopened member be dropped now? Meta grants a slot only after the former lease was
 * released or has run out (1.6). Servers that this cluster start has not seen yet get more time
 * (2.6). */
static bool drop_due(const struct open_state *o, uint32_t i)
{
    const struct vol_engine *e = o->t->e;
    const struct chunk *c = o->t->m[i].chunk;
    nsec_t now = co_now();

    if (o->gone >> i & 1)
        return true;
    if (o->busy >> i & 1)
        return false;
    if (!c->last_heard && now < e->session_since + e->boot_wait)
        return false;
    return chunk_given_up(c) || now - o->since >= e->member_deadline;
}

/* A new extent that too few servers have room for: whoever waits is told rather than kept waiting
 * until somebody deletes something. */
static bool open_full(const struct open_state *o)
{
    const struct tenure *t = o->t;

    return !o->created && (t->set & ~t->open) && !(t->set & ~t->open & ~o->full) &&
           (o->refused || !(t->set & t->open));
}

/* 0: every member is open; ERR_AGAIN: not yet. */
static int members_settle(struct open_state *o)
{
    struct tenure *t = o->t;
    uint32_t drop = 0;
    int rc;

    tails_check(o);
    if (!(t->set & ~t->open))
        return 0;
    if (!(t->set & t->open))
        return ERR_AGAIN; /* the last one is never dropped */
    for (uint32_t i = 0; i < t->n; i++) {
        if (!((t->set & ~t->open) >> i & 1))
            continue;
        if (!drop_due(o, i))
            return ERR_AGAIN;
        drop |= 1u << i;
    }
    /* Even of one that nobody reached it is known that it had everything up to the commit point:
     * should it come back with less, then it lost the tail of its journal (5.4). */
    for (uint32_t i = 0; i < t->n; i++)
        if (drop >> i & 1)
            t->m[i].confirmed = ver_max(t->m[i].confirmed, open_commit_point(o));
    for (uint32_t i = 0; i < t->n; i++)
        if (drop >> i & 1)
            member_fail(t, i, false,
                        o->gone >> i & 1 ? "it has lost the extent or its disk"
                                         : "it cannot be opened");
    open_compute_uncommitted(o);
    rc = leave_step(t);
    o->refused = rc == ERR_REFUSED;
    if (o->refused && !open_full(o) && co_sleep(REFUSED_PAUSE) < 0)
        return ERR_CANCELED;
    if (rc < 0 && rc != ERR_STALE) {
        t->leaving &= t->asked;
        return ERR_AGAIN;
    }
    return rc;
}

/* All that are left: everybody lost the extent, or its servers are away. */
static void say_stuck(const struct open_state *o)
{
    const struct tenure *t = o->t;

    if (co_now() - o->since < 5 * NSEC_PER_SEC)
        return;
    for (uint32_t i = 0; i < t->n; i++)
        if (t->set >> i & 1)
            log_debug("open.waiting", "extent=%" PRIu64 " chunk=%u open=%d gone=%d alive=%d",
                      t->extent_id, t->m[i].chunk->id, t->open >> i & 1, o->gone >> i & 1,
                      t->m[i].chunk->alive);
}

static int open_alive(const struct open_state *o)
{
    const struct tenure *t = o->t;

    if (t->lost)
        return ERR_STALE;
    if (t->e->stopping || co_canceled())
        return ERR_CANCELED;
    if ((o->busy || (t->repair && !(t->set & ~o->gone))) && co_now() - o->since >= ORIGIN_LIMIT)
        return ERR_STALE; /* what meta says of it may have changed, or it is gone with its volumes
                           */
    return 0;
}

static int open_members(struct open_state *o)
{
    for (;;) {
        int rc = open_alive(o);

        if (rc < 0)
            return rc;
        open_round(o);
        rc = open_alive(o);
        o->refused = false;
        if (rc == 0)
            rc = members_settle(o);
        if (rc != ERR_AGAIN)
            return rc;
        if (open_full(o))
            return err_set(ERR_NOSPACE, "no space for another extent");
        if (o->refused && rescue_due(o)) {
            open_round(o);
            rc = open_alive(o);
            if (rc == 0)
                rc = open_rescue(o);
            if (rc != ERR_AGAIN)
                return rc;
        }
        say_stuck(o);
        /* What a disk or a lost extent made impossible is tried again too: a disk may be back. */
        if (o->refused || !(o->t->set & o->t->open))
            o->gone = o->full = 0;
        rc = co_sleep(ROUND_PAUSE);
        if (rc < 0)
            return rc;
    }
}

/* Meta learns that every member has the extent, before its first use (2.1). Refused if the members
 * are others than at the grant: a child's set changes with its origin's. */
static int tell_created(struct tenure *t)
{
    Zbs__Meta__ExtentCreatedRequest req = ZBS__META__EXTENT_CREATED_REQUEST__INIT;
    uint64_t id = t->extent_id, epoch = t->epoch;

    req.session_id = t->session;
    req.extent_ids = &id;
    req.n_extent_ids = 1;
    req.epochs = &epoch;
    req.n_epochs = 1;
    req.set_numbers = &t->set_number;
    req.n_set_numbers = 1;
    for (;;) {
        struct rpc_reply r;
        int rc;

        rpc_reply_init(&r);
        rc = meta_call(t->e->meta, META_EXTENT_CREATED, &req.base, true, &r);
        rpc_reply_free(&r);
        if (rc == 0)
            return t->lost ? ERR_STALE : 0;
        if (rc == ERR_EXPIRED)
            meta_session_lost(t->e, t->session);
        if (rc == ERR_CANCELED)
            return rc;
        if (rc == ERR_STALE || rc == ERR_NOTFOUND || rc == ERR_NOT_OWNER || t->lost)
            return ERR_STALE;
        rc = co_sleep(ROUND_PAUSE);
        if (rc < 0)
            return rc;
    }
}

/* ---- all of it ---- */

/* Waits until nobody is leaving: the remover is at work. */
static int leavers_wait(struct tenure *t)
{
    leave_kick(t);
    while (t->leaving && !t->lost) {
        int rc = co_cond_wait(&t->changed);

        if (rc < 0)
            return rc;
    }
    return t->lost ? ERR_STALE : 0;
}

static int open_settle(struct open_state *o)
{
    struct tenure *t = o->t;
    int rc;

    t->may_remove = true;
    for (;;) {
        uint32_t set;

        rc = leavers_wait(t);
        if (rc < 0)
            return rc;
        set = t->set;
        open_compute_uncommitted(o);
        phase_enter(PHASE_EQUALISING);
        rc = open_equalise(o);
        phase_leave(PHASE_EQUALISING);
        if (rc == ERR_STALE || rc == ERR_CANCELED)
            return rc;
        if (rc == 0 && !t->leaving && t->set == set)
            rc = open_missing_sets(o);
        if (rc == 0 && !t->leaving && t->set == set && !(t->set & ~t->open))
            return t->lost ? ERR_STALE : 0;
        if (t->lost)
            return ERR_STALE;
        /* A member restarted in between: what it reported is void. Under another epoch, then. */
        if (t->set & ~t->open)
            return err_set(ERR_STALE, "a member restarted during the open");
        rc = co_sleep(RETRY_PAUSE);
        if (rc < 0)
            return rc;
    }
}

/* The version of a copy is its origin's, and may be above what is noted of the replica. So it is
 * made only when the members have durably noted that it misses everything: else it could be taken
 * for the former one later on. */
static void open_late(struct open_state *o)
{
    struct tenure *t = o->t;

    for (uint32_t i = 0; i < t->n; i++) {
        struct open_call call = {.extent_id = t->extent_id,
                                 .epoch = t->epoch,
                                 .family = t->family,
                                 .credit_blocks = CREDITS_OPEN,
                                 .thaw = !t->repair};
        int rc;

        if (!((o->late & t->absent) >> i & 1))
            continue;
        rc = relative_copy(t, i);
        if (rc < 0)
            continue;
        rc = chunk_open(t->m[i].chunk, &call);
        if (rc == 0)
            rc = member_opened(t, i, &call, false);
        if (rc == 0)
            thick_opened(t, i, call.result);
        open_call_done(&call);
        if (rc < 0)
            continue;
        o->join |= 1u << i;
        rangeset_add(&t->m[i].missing, 0, PAGES_PER_EXTENT);
        rangeset_copy(&t->m[i].stale, &t->m[i].missing);
        t->m[i].everything = false;
    }
}

/* From here on it serves: everything that was ambiguous is decided at every member. */
static void open_serve(struct open_state *o)
{
    struct tenure *t = o->t;
    struct ver cp = open_commit_point(o);

    ASSERT(!t->lost && !t->leaving && list_empty(&t->ops) && (t->set & ~t->open) == 0);
    for (uint64_t k = 0; k < rangeset_total(&t->unc.pages) * t->n; k++)
        if ((t->set >> (k / rangeset_total(&t->unc.pages))) & 1)
            cp = ver_max(cp, t->unc.vers[k]);
    if (t->gen > 0)
        cp = (struct ver){t->epoch, t->gen};
    t->cp = cp;
    uncommitted_free(&t->unc);
    rangeset_init(&t->unc.pages);
    t->serving = true;
    for (uint32_t i = 0; i < t->n; i++) {
        if (!(o->join >> i & 1) || !(t->open >> i & 1))
            continue;
        t->absent &= ~(1u << i);
        t->joining |= 1u << i;
    }
    credits_recount(t);
    for (uint32_t i = 0; i < t->n; i++)
        if (t->joining >> i & 1)
            join_start(t, i);
    commit_note_dirty(t);
    thick_serve(t);
    log_debug("extent.open",
              "extent=%" PRIu64 " epoch=%" PRIu64
              " set=%#x joining=%#x absent=%#x equalised=%" PRIu64,
              t->extent_id, t->epoch, t->set, t->joining, t->absent, t->gen);
}

static void open_state_free(struct open_state *o)
{
    for (uint32_t i = 0; i < MEMBERS_MAX; i++)
        mem_free(o->unc[i]);
    mem_free(o);
}

int tenure_open(struct slot *s, struct tenure **ret)
{
    struct open_state *o = MEM_NEW(struct open_state);
    struct tenure *t = tenure_new(s, &s->grant);
    int rc;

    s->opening = t;
    o->t = t;
    o->created = s->grant.created;
    o->members = t->set;
    o->since = co_now();
    for (uint32_t k = 0; k < s->n_join; k++) {
        int i = tenure_member(t, s->join[k]);

        if (i >= 0 && (t->absent >> i & 1))
            o->want_join |= 1u << i;
    }
    rc = open_members(o);
    if (rc == 0)
        rc = open_settle(o);
    if (rc == 0 && !o->created)
        rc = tell_created(t);
    if (rc == 0)
        open_late(o);
    /* While meta was told, a member may have failed: then it is not equal to the rest yet. */
    if (rc == 0 && (t->lost || t->leaving || (t->set & ~t->open)))
        rc = ERR_STALE;
    s->opening = NULL;
    if (rc == 0) {
        open_serve(o);
        *ret = t;
    } else {
        tenure_lose(t, "it could not be opened");
        tenure_put(t);
    }
    open_state_free(o);
    return rc;
}
