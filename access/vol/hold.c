/* SPDX-License-Identifier: Apache-2.0
 *
 * Holding volumes for a snapshot or a rollback (PROTOCOL 7.1). One call is always outstanding at
 * the leader. When it names volumes, no I/O on them begins any more, what is in flight ends, and
 * every extent that we were granted is made clean: all members have confirmed a commit point that
 * covers every write. Then the leader is told, and its answer says what the volumes' extents are
 * now. Until it comes, or the session is gone, nothing begins: the record may be in the log
 * already. The same call brings write leases of files that are recalled. */
#include "access/vol/vol_int.h"

#include <stdio.h>

/* While I/O goes on: opening what was granted and is not open; commit points, so that fewer are
 * left to be sent while it waits. */
#define OPEN_LIMIT  (800 * NSEC_PER_MSEC)
#define EARLY_LIMIT (200 * NSEC_PER_MSEC)
#define DRAIN_LIMIT (900 * NSEC_PER_MSEC)
#define POLL        (NSEC_PER_MSEC / 2)
#define CALL_LIMIT  (5 * NSEC_PER_SEC)

struct hold {
    struct vol_engine *e;
    uint64_t session, attempt;
    struct volume *volumes[HOLD_VOLUMES_MAX];
    uint32_t n;
    int rc;
    nsec_t opened, drained, cleaned; /* when; I/O waits from the first on */
};

/* ---- making clean ---- */

/* Is there anything at meta that nobody but us could make clean? */
static bool slot_unopened(const struct hold *h, const struct slot *s)
{
    if (s->state == SLOT_GRANTED || s->unplaced)
        return true;
    return s->state == SLOT_NONE && s->owner == h->session && s->grant.extent_id != 0;
}

static uint32_t open_all(const struct hold *h)
{
    uint32_t left = 0;

    for (uint32_t k = 0; k < h->n; k++) {
        for (uint32_t i = 0; i < h->volumes[k]->n_slots; i++) {
            struct slot *s = h->volumes[k]->slots[i];

            if (!s || !slot_unopened(h, s))
                continue;
            left++;
            s->want_open = true;
            slot_kick(s);
        }
    }
    return left;
}

/* I/O goes on meanwhile. New epochs are refused by now, so an extent that was lost can't be opened
 * before this attempt is given up: then it will be, in time for the next one. */
static int hold_open(struct hold *h)
{
    nsec_t until = co_now() + OPEN_LIMIT;

    while (open_all(h) > 0) {
        int rc = co_now() < until ? co_sleep(POLL) : ERR_TIMEOUT;

        if (rc < 0)
            return err_set(rc, "extents could not be opened in time");
        if (h->e->session != h->session)
            return err_set(ERR_EXPIRED, "the session is gone");
    }
    return 0;
}

bool tenure_is_clean(const struct tenure *t)
{
    uint32_t members = t->set & ~t->leaving;

    if (!list_empty(&t->ops) || t->leaving || t->adding)
        return false;
    for (uint32_t i = 0; i < t->n; i++)
        if (members >> i & 1 &&
            (!(t->open >> i & 1) || commit_owed(t, i) || ver_cmp(t->cp, t->m[i].confirmed) < 0))
            return false;
    return true;
}

/* One that did not confirm is asked until it does, or is removed. */
static int member_clean(struct tenure *t, uint32_t i)
{
    Zbs__Chunk__CommitPointRequest req = ZBS__CHUNK__COMMIT_POINT_REQUEST__INIT;
    struct commit_item item;
    Zbs__Chunk__CommitPointItem *items[] = {&item.msg};
    struct member_req q = {.method = CHUNK_COMMIT_POINT, .msg = &req.base, .stop_leaving = true};
    struct rpc_reply r;
    int rc;

    commit_item_fill(&item, t, i);
    req.items = items;
    req.n_items = 1;
    rpc_reply_init(&r);
    rc = member_call(t, i, &q, &r);
    rpc_reply_free(&r);
    if (rc == 0)
        commit_item_confirmed(&item, t, i);
    return rc == ERR_NO_REPLICA ? 0 : rc;
}

struct cleaning {
    struct tenure *t;
    uint32_t i;
};

static int clean_one(void *arg)
{
    const struct cleaning *c = arg;

    return member_clean(c->t, c->i);
}

/* All members at once. */
static int members_clean(struct tenure *t)
{
    struct cleaning cleaning[MEMBERS_MAX];
    struct co_group g;

    co_group_init(&g);
    for (uint32_t i = 0; i < t->n && list_empty(&t->ops); i++) {
        if (!((t->set & ~t->leaving) >> i & 1) || (t->open >> i & 1 && !commit_owed(t, i)))
            continue;
        cleaning[i] = (struct cleaning){t, i};
        co_spawn(&g, "clean", clean_one, &cleaning[i]);
    }
    return co_group_join(&g);
}

int tenure_clean(struct tenure *t, nsec_t until)
{
    nsec_t former = co_deadline_push(until);
    int rc = 0;

    while (rc == 0 && !t->lost && !tenure_is_clean(t)) {
        rc = members_clean(t);
        if (rc == 0 && !tenure_is_clean(t))
            rc = co_sleep(POLL);
    }
    co_deadline_restore(former);
    return t->lost ? ERR_STALE : rc;
}

static bool slot_quiet(const struct slot *s)
{
    return !s->tenure || (s->active == 0 && list_empty(&s->tenure->ops));
}

static int slot_drain(struct slot *s, nsec_t until)
{
    while (!slot_quiet(s)) {
        int rc = co_now() < until ? co_sleep(POLL) : ERR_TIMEOUT;

        if (rc < 0)
            return err_set(rc, "I/O on slot %u did not end in time", s->index);
    }
    return 0;
}

static int clean_slot(struct slot *s, nsec_t until)
{
    int rc = slot_drain(s, until); /* again: something may have begun a tenure */
    struct tenure *t;

    if (rc < 0 || !s->tenure || tenure_is_clean(s->tenure))
        return rc;
    t = tenure_get(s->tenure);
    rc = tenure_clean(t, until);
    tenure_put(t);
    return rc < 0 ? err_prefix(rc, "slot %u", s->index) : 0;
}

static int each_slot(const struct hold *h, co_fn int (*fn)(struct slot *s, nsec_t until),
                     nsec_t until)
{
    int rc = 0;

    for (uint32_t k = 0; k < h->n; k++) {
        for (uint32_t i = 0; i < h->volumes[k]->n_slots && rc == 0; i++) {
            if (h->volumes[k]->slots[i])
                rc = fn(h->volumes[k]->slots[i], until);
        }
    }
    return rc;
}

/* What is in flight ends; what the round of commit points, many to a request, leaves is done one by
 * one. */
static int hold_clean(struct hold *h)
{
    nsec_t until = co_now() + DRAIN_LIMIT;
    int rc;

    if (mutate(MUT_HOLD_NO_DRAIN))
        return 0;
    rc = each_slot(h, slot_drain, until);
    h->drained = co_now();
    if (rc < 0)
        return rc;
    commit_round(h->e, h->volumes, h->n, DRAIN_LIMIT);
    return each_slot(h, clean_slot, until);
}

/* A tenure may have been lost while others were made clean. */
static int hold_check(const struct hold *h)
{
    if (h->e->session != h->session)
        return err_set(ERR_EXPIRED, "the session is gone");
    for (uint32_t k = 0; k < h->n; k++) {
        for (uint32_t i = 0; i < h->volumes[k]->n_slots; i++) {
            const struct slot *s = h->volumes[k]->slots[i];

            if (s && !mutate(MUT_HOLD_NO_DRAIN) &&
                (slot_unopened(h, s) || (s->tenure && !tenure_is_clean(s->tenure))))
                return err_set(ERR_AGAIN, "slot %u was lost meanwhile", s->index);
        }
    }
    return 0;
}

/* ---- afterwards ---- */

static void slot_share(struct slot *s)
{
    struct tenure *t = s->tenure;
    struct grant g = {.epoch = t->epoch,
                      .extent_id = t->extent_id,
                      .family = t->family,
                      .extent_epoch = t->epoch,
                      .set_number = t->set_number,
                      .created = true,
                      .shared = true};
    uint32_t members = t->set & ~t->adding & ~t->leaving;

    for (uint32_t i = 0; i < t->n; i++)
        if (members >> i & 1)
            g.members[g.n_members++] = t->m[i].chunk->id;
    s->last_write = t->last_write;
    tenure_lose(t, "its extent is shared from now on");
    slot_set_shared(s, &g);
}

static void slot_forget(struct slot *s)
{
    slot_set_state(s, SLOT_NONE);
    s->grant = (struct grant){0};
}

/* Of what was granted before the volume's table or sharing changed. */
static void slot_after(struct slot *s, const struct volume *v)
{
    uint64_t epoch = s->tenure ? s->tenure->epoch : s->grant.epoch;

    if (s->state == SLOT_FOREIGN || s->state == SLOT_NONE)
        return;
    if (epoch < v->table_at) {
        if (s->tenure)
            tenure_lose(s->tenure, "the volume was rolled back");
        slot_forget(s);
    } else if (epoch < v->shared_at && s->tenure) {
        if (!mutate(MUT_WRITE_SHARED))
            slot_share(s);
    } else if (epoch < v->shared_at && s->state == SLOT_GRANTED) {
        slot_forget(s);
    }
}

void volume_shared(struct volume *v, uint64_t shared_at, uint64_t table_at)
{
    v->shared_at = MAX(v->shared_at, shared_at);
    v->table_at = MAX(v->table_at, table_at);
    for (uint32_t i = 0; i < v->n_slots; i++)
        if (v->slots[i])
            slot_after(v->slots[i], v);
}

static void volume_hold(struct volume *v, bool on)
{
    v->held = on;
    for (uint32_t i = 0; i < v->n_slots && !on; i++) {
        struct slot *s = v->slots[i];

        if (!s)
            continue;
        co_cond_broadcast(&s->changed);
        slot_kick(s);
    }
}

/* What the leader did not say a word about is asked for anew. */
static void hold_end(struct hold *h, const Zbs__Meta__HoldReply *a)
{
    for (uint32_t k = 0; k < h->n; k++) {
        struct volume *v = h->volumes[k];
        const Zbs__Meta__Volume *m = NULL;

        for (size_t i = 0; a && i < a->n_volumes; i++)
            if (a->volumes[i]->id == v->info.id)
                m = a->volumes[i];
        if (m) {
            best_effort(vol_object_told(v, m)); /* it may be imported now */
            volume_shared(v, m->shared_at, m->table_at);
        }
        for (uint32_t i = 0; !m && i < v->n_slots; i++)
            if (v->slots[i])
                slot_reset(v->slots[i]);
        volume_hold(v, false);
    }
}

/* ---- calls ---- */

static int hold_call(struct vol_engine *e, uint64_t session, uint64_t attempt, const char *error,
                     struct rpc_reply *r)
{
    Zbs__Meta__HoldRequest req = ZBS__META__HOLD_REQUEST__INIT;
    nsec_t former = co_deadline_push(co_now() + CALL_LIMIT);
    int rc;

    req.session_id = session;
    req.attempt = attempt;
    req.error = (char *)error;
    rpc_reply_init(r);
    rc = meta_call(e->meta, META_HOLD, &req.base, true, r);
    co_deadline_restore(former);
    if (rc == ERR_EXPIRED)
        meta_session_lost(e, session);
    return rc;
}

/* Until the leader has said what became of it. */
static void hold_finish(struct hold *h)
{
    char error[200] = "";

    if (h->rc < 0)
        snprintf(error, sizeof(error), "%s", err_text(h->rc));
    while (h->e->session == h->session && !h->e->stopping) {
        struct rpc_reply r;
        int rc = hold_call(h->e, h->session, h->attempt, error, &r);

        if (rc == 0 && h->e->session == h->session) {
            hold_end(h, (const Zbs__Meta__HoldReply *)r.msg);
            rpc_reply_free(&r);
            return;
        }
        rpc_reply_free(&r);
        if (co_canceled() || co_sleep(RETRY_PAUSE) < 0)
            break;
    }
    hold_end(h, NULL);
}

/* How long I/O waited, and what for: what was in flight, commit points, the leader. */
static void hold_log(const struct hold *h, nsec_t begin)
{
    nsec_t end = co_now();

    log_info("volume.held",
             "attempt=%" PRIu64 " volumes=%u rc=%d open_us=%" PRId64 " held_us=%" PRId64
             " drain_us=%" PRId64 " clean_us=%" PRId64 " leader_us=%" PRId64,
             h->attempt, h->n, h->rc, (h->opened - begin) / NSEC_PER_USEC,
             (end - h->opened) / NSEC_PER_USEC, (h->drained - h->opened) / NSEC_PER_USEC,
             (h->cleaned - h->drained) / NSEC_PER_USEC, (end - h->cleaned) / NSEC_PER_USEC);
}

static void hold_run(struct hold *h, const Zbs__Meta__HoldReply *a)
{
    nsec_t begin = co_now();

    for (size_t i = 0; i < a->n_volumes && h->n < HOLD_VOLUMES_MAX; i++) {
        struct volume *v = vol_object_find(h->e, a->volumes[i]->id);

        if (v && !v->held)
            h->volumes[h->n++] = v;
    }
    h->rc = a->n_volumes > HOLD_VOLUMES_MAX ? err_set(ERR_TOO_LARGE, "too many volumes") : 0;
    if (h->rc == 0)
        h->rc = hold_open(h);
    if (h->rc == 0 && h->n > 0)
        commit_round(h->e, h->volumes, h->n, EARLY_LIMIT);
    h->opened = h->drained = co_now();
    for (uint32_t k = 0; k < h->n; k++)
        volume_hold(h->volumes[k], true);
    if (h->rc == 0) {
        phase_enter(PHASE_HOLDING);
        h->rc = hold_clean(h);
        phase_leave(PHASE_HOLDING);
    }
    if (h->rc == 0)
        h->rc = hold_check(h);
    h->cleaned = co_now();
    hold_finish(h);
    hold_log(h, begin);
}

/* Meta tells until it has them back. */
static void files_recalled(struct vol_engine *e, const Zbs__Meta__HoldReply *a)
{
    size_t n = MIN(a->n_recalled_inodes, a->n_recalled_leases);

    for (size_t i = 0; i < n && e->file_recalled; i++)
        e->file_recalled(e->arg, a->recalled_inodes[i], a->recalled_leases[i]);
    if (n)
        (void)co_sleep(RETRY_PAUSE);
}

int hold_waiter(void *arg)
{
    struct vol_engine *e = arg;

    while (!co_canceled()) {
        uint64_t session = e->session;
        struct rpc_reply r;
        int rc;

        if (!session) {
            (void)co_sleep(IDLE_PAUSE);
            continue;
        }
        rc = hold_call(e, session, 0, "", &r);
        if (rc == 0 && e->session == session) {
            const Zbs__Meta__HoldReply *a = (const Zbs__Meta__HoldReply *)r.msg;
            struct hold *h = MEM_NEW(struct hold);

            *h = (struct hold){.e = e, .session = session, .attempt = a->attempt};
            if (a->attempt)
                hold_run(h, a);
            else
                files_recalled(e, a);
            mem_free(h);
        }
        rpc_reply_free(&r);
        if (rc < 0)
            (void)co_sleep(rc == ERR_UNSUPPORTED ? NSEC_PER_SEC : IDLE_PAUSE);
    }
    return 0;
}
