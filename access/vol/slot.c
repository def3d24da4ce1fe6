/* SPDX-License-Identifier: Apache-2.0
 *
 * The state of one extent slot. At most one driver (a coroutine) moves it on, while there is
 * something to do: I/O that waits, an absent replica to bring back, a lease to give back. */
#include "access/vol/open.h"

#define HOLD_LIMIT  (2 * NSEC_PER_SEC)
#define MOVE_LIMIT  (100 * NSEC_PER_MSEC) /* for a mere improvement nobody waits longer */
#define GIVEN_LIMIT NSEC_PER_SEC          /* for the new owner to take what it was given */

struct slot *slot_new(struct volume *v, uint32_t index)
{
    struct slot *s = MEM_NEW(struct slot);

    s->vol = v;
    s->index = index;
    co_cond_init(&s->changed);
    co_cond_init(&s->idle);
    list_init(&s->open_link);
    return s;
}

void slot_free(struct slot *s)
{
    ASSERT(!s->tenure && s->active == 0 && s->waiters == 0 && s->tenures == 0);
    shared_put(s->shared);
    follow_forget(s);
    mem_free(s->kin);
    mem_free(s);
}

void slot_set_state(struct slot *s, enum slot_state state)
{
    ASSERT(!s->tenure);
    shared_put(s->shared);
    s->shared = NULL;
    s->unplaced = false;
    s->state = state;
}

void slot_shared_stale(struct slot *s, const struct shared *sh)
{
    if (s->shared == sh && !s->driving)
        slot_set_state(s, SLOT_NONE);
}

void slot_reset(struct slot *s)
{
    if (s->tenure)
        tenure_lose(s->tenure, "the session or the volume is gone");
    /* Else whoever opens it would go on asking meta in the name of a session that ended. */
    if (s->opening)
        tenure_lose(s->opening, "the session or the volume is gone");
    slot_set_state(s, SLOT_NONE);
    s->owner = 0;
    s->n_join = 0;
    s->want_open = s->want_release = s->for_task = false;
    follow_forget(s);
    co_cond_broadcast(&s->changed);
}

int slot_hold(struct slot *s, nsec_t limit)
{
    nsec_t former = co_deadline_push(co_now() + limit);
    int rc = 0;

    ASSERT(!s->holding);
    s->holding = true;
    while (s->active > 0 && rc == 0)
        rc = co_cond_wait(&s->idle);
    co_deadline_restore(former);
    if (rc < 0)
        slot_unhold(s);
    return rc;
}

void slot_unhold(struct slot *s)
{
    s->holding = false;
    co_cond_broadcast(&s->changed);
}

void slot_leave(struct slot *s, struct entry *en)
{
    if (!en->t && !en->shared)
        return; /* a hole */
    ASSERT(s->active > 0);
    s->last_used = co_now();
    if (--s->active == 0)
        co_cond_broadcast(&s->idle);
    if (en->t)
        tenure_put(en->t);
    shared_put(en->shared);
}

void slot_not_foreign(struct slot *s, uint64_t was, uint64_t owner)
{
    struct vol_engine *e = s->vol->e;

    if (s->state != SLOT_FOREIGN || s->owner != was)
        return;
    if (owner && owner != was && owner != e->session && access_find(e, owner)) {
        s->owner = owner;
        s->foreign_until = co_now() + NSEC_PER_SEC;
    } else {
        s->state = SLOT_NONE;
    }
}

void slot_forwarded_by(struct slot *s, uint64_t session)
{
    if (co_now() >= s->given_until)
        slot_not_foreign(s, session, 0);
}

/* Needs nothing but a good lease: a hole or a shared extent has no replica to ask whether the slot
 * is ours still. A snapshot needs none. */
static bool needs_lease_only(const struct slot *s, enum enter how)
{
    return (s->state == SLOT_HOLE && how != ENTER_WRITE) ||
           (s->state == SLOT_SHARED && how == ENTER_READ);
}

/* Can an I/O enter in the present state? True: yes, *rc tells how. */
static bool slot_admit(struct slot *s, enum enter how, struct entry *ret, int *rc)
{
    *rc = 0;
    *ret = (struct entry){0};
    if (s->holding || s->vol->held)
        return false;
    if (s->state == SLOT_SERVING) {
        s->active++;
        ret->t = tenure_get(s->tenure);
        return true;
    }
    if (needs_lease_only(s, how)) {
        if (!s->vol->info.read_only && !lease_valid(s->vol->e))
            return false;
        ret->shared = s->shared;
        if (ret->shared) {
            ret->shared->refs++;
            s->active++;
        }
        return true;
    }
    if (s->state == SLOT_FOREIGN && co_now() < s->foreign_until) {
        ret->owner = s->owner;
        *rc = ERR_NOT_OWNER;
        return true;
    }
    if (s->state == SLOT_FOREIGN && !s->driving)
        s->state = SLOT_NONE;
    return false;
}

int slot_enter(struct slot *s, enum enter how, struct entry *ret)
{
    struct vol_engine *e = s->vol->e;
    int rc;

    s->failed = 0;
    for (;;) {
        if (e->stopping)
            return err_set(ERR_HALTED, "the volume engine is stopping");
        if (s->vol->deleted)
            return err_set(ERR_NOTFOUND, "volume %" PRIu64 " was deleted", s->vol->info.id);
        if (s->index >= s->vol->n_slots)
            return err_set(ERR_TOO_LARGE, "volume %" PRIu64 " was made smaller", s->vol->info.id);
        s->for_task = false;
        if (slot_admit(s, how, ret, &rc))
            return rc;
        if (s->failed < 0)
            return err_set(s->failed, "slot %u of volume %" PRIu64 " cannot be served", s->index,
                           s->vol->info.id);
        s->waiters++;
        if (needs_lease_only(s, how) && !s->holding && !s->vol->held) {
            rc = co_cond_wait(&e->lease_changed);
        } else {
            s->want_alloc |= how == ENTER_WRITE || (how == ENTER_CLEAR && s->state == SLOT_SHARED);
            slot_kick(s);
            rc = co_cond_wait(&s->changed);
        }
        s->waiters--;
        if (rc < 0)
            return rc;
    }
}

/* ---- the driver ---- */

static bool slot_has_work(const struct slot *s)
{
    const struct vol_engine *e = s->vol->e;

    if (e->stopping || s->vol->deleted || s->vol->held || s->index >= s->vol->n_slots)
        return false;
    switch (s->state) {
    case SLOT_NONE:
        return s->waiters > 0 || s->want_open || s->n_join > 0;
    case SLOT_FOREIGN:
        return false;
    case SLOT_SHARED:
        /* To be opened, says meta: nothing shares it any more. */
        return s->want_open || s->n_join > 0 || s->want_release ||
               (s->want_alloc && s->waiters > 0);
    case SLOT_HOLE:
        return s->want_release || (s->want_alloc && s->waiters > 0) || s->want_open ||
               s->n_join > 0; /* says meta: so there is an extent */
    case SLOT_GRANTED:
        return s->want_release || s->waiters > 0 || s->want_open || s->n_join > 0;
    case SLOT_SERVING:
        return s->want_release || s->n_join > 0;
    }
    return false;
}

/* Nobody has room for the extent that was granted, so nothing was ever written to it: the slot
 * reads as what it was before, a hole or what its volume shares with others. */
static void slot_set_unplaced(struct slot *s)
{
    struct grant was = s->grant;

    if (was.origin) {
        was.extent_id = was.origin;
        slot_set_shared(s, &was);
    } else {
        slot_set_state(s, SLOT_HOLE);
    }
    s->unplaced = true;
}

static int step_open(struct slot *s)
{
    struct tenure *t;
    int rc;

    phase_enter(PHASE_OPENING);
    rc = tenure_open(s, &t);
    phase_leave(PHASE_OPENING);

    if (rc < 0) {
        if (s->state == SLOT_GRANTED && rc == ERR_NOSPACE && !s->grant.created && !s->extent_id)
            slot_set_unplaced(s);
        else if (s->state == SLOT_GRANTED)
            s->state = SLOT_NONE;
        return rc;
    }
    if (t->lost || s->state != SLOT_GRANTED) {
        tenure_lose(t, "lost while it was opened");
        tenure_put(t);
        return ERR_STALE;
    }
    s->tenure = t; /* our reference */
    list_push_back(&s->vol->e->open, &s->open_link);
    s->vol->e->n_open++;
    s->state = SLOT_SERVING;
    s->want_open = false;
    s->n_join = 0;
    s->last_used = co_now();
    slot_unhold(s);
    if (t->repair) { /* readers wait until its replicas are vouched for */
        tenure_get(t);
        commit_flush(t);
        tenure_put(t);
    }
    return 0;
}

/* Those that are on their way back go on under the next epoch. */
static void keep_joining(struct slot *s)
{
    const struct tenure *t = s->tenure;

    for (uint32_t i = 0; t && i < t->n; i++) {
        bool known = !(t->joining >> i & 1);

        for (uint32_t k = 0; k < s->n_join; k++)
            known |= s->join[k] == t->m[i].chunk->id;
        if (!known && s->n_join < MEMBERS_MAX)
            s->join[s->n_join++] = t->m[i].chunk->id;
    }
}

static int drain_slot(struct slot *s, nsec_t limit)
{
    int rc;

    phase_enter(PHASE_DRAINING);
    rc = slot_hold(s, limit);
    phase_leave(PHASE_DRAINING);
    return rc;
}

/* Absent replicas return under a new epoch: drained first (PROTOCOL 5.4). */
static int step_new_epoch(struct slot *s)
{
    struct tenure *t = s->tenure;
    int rc = drain_slot(s, HOLD_LIMIT);

    if (rc < 0) {
        /* A write can't be finished at present: the leader will ask again. */
        s->n_join = 0;
        return rc == ERR_TIMEOUT ? 0 : rc;
    }
    if (s->tenure == t) {
        keep_joining(s);
        rc = acquire_slots(s, true);
    }
    if (rc < 0) {
        s->n_join = 0; /* goes on under the present epoch, if that is any good */
        slot_unhold(s);
        return rc;
    }
    if (s->state == SLOT_GRANTED)
        rc = step_open(s);
    if (s->holding)
        slot_unhold(s);
    return rc;
}

/* Who waits here is sent to the new owner, and that finds itself named. What it forwarded before
 * it knows may still arrive, and says nothing. */
static void slot_given(struct slot *s, uint64_t to)
{
    s->state = SLOT_FOREIGN;
    s->owner = to;
    s->foreign_until = s->given_until = co_now() + GIVEN_LIMIT;
    s->vol->e->stats.leases_moved++;
}

static int step_release(struct slot *s)
{
    uint64_t to = s->release_to;
    nsec_t limit = to ? MOVE_LIMIT : HOLD_LIMIT;
    int rc;

    s->want_release = false;
    s->release_to = 0;
    if (s->unplaced)
        return 0; /* whoever comes next could not make it clean either */
    if (s->state == SLOT_GRANTED) {
        /* A former owner may have left it unclean: what nobody has is taken to be clean. */
        rc = step_open(s);
        if (rc < 0)
            return rc;
    }
    rc = drain_slot(s, limit);
    if (rc < 0)
        return rc == ERR_TIMEOUT ? 0 : rc;
    if (s->tenure) {
        struct tenure *t = tenure_get(s->tenure);

        rc = tenure_clean(t, co_now() + limit);
        if (rc == 0)
            tenure_lose(t, "released");
        tenure_put(t);
        if (rc < 0) {
            slot_unhold(s);
            return rc == ERR_TIMEOUT ? 0 : rc;
        }
    }
    rc = release_slot(s, true);
    if (rc == 0 && to && s->state == SLOT_NONE && access_find(s->vol->e, to))
        slot_given(s, to);
    follow_forget(s);
    slot_unhold(s);
    return rc;
}

static int slot_step(struct slot *s)
{
    if (s->want_release && s->state != SLOT_NONE && s->state != SLOT_FOREIGN)
        return step_release(s);
    switch (s->state) {
    case SLOT_NONE:
        if (co_now() < s->avoid_until && co_sleep_until(s->avoid_until) < 0)
            return ERR_CANCELED;
        return s->state == SLOT_NONE ? acquire_slots(s, s->want_epoch) : 0;
    case SLOT_HOLE:
        return acquire_slots(s, false);
    case SLOT_SHARED:
        return acquire_slots(s, s->want_open || s->n_join > 0);
    case SLOT_GRANTED:
        return step_open(s);
    case SLOT_SERVING:
        return step_new_epoch(s);
    case SLOT_FOREIGN:
        break;
    }
    return 0;
}

static int slot_drive(void *arg)
{
    struct slot *s = arg;
    int rc = 0;

    while (!co_canceled() && slot_has_work(s)) {
        rc = slot_step(s);
        s->driving = true; /* a reset may have come between */
        if (rc == ERR_NOSPACE || rc == ERR_REFUSED || rc == ERR_INVAL) {
            /* An extent can't be placed: those who wait are told. */
            s->failed = rc;
            s->want_alloc = s->want_open = false;
            s->n_join = 0;
            break;
        }
        if (rc < 0 && rc != ERR_CANCELED) {
            log_debug("slot.retry", "volume=%" PRIu64 " slot=%u error=%s \"%s\"", s->vol->info.id,
                      s->index, err_name(rc), err_text(rc));
            (void)co_sleep(rc == ERR_STALE ? RETRY_PAUSE : IDLE_PAUSE);
        }
    }
    s->driving = false;
    co_cond_broadcast(&s->changed);
    return 0;
}

void slot_kick(struct slot *s)
{
    if (s->driving || !slot_has_work(s))
        return;
    s->driving = true;
    co_spawn_detached_deadline(&s->vol->e->bg, "slot", slot_drive, s);
}

/* ---- tasks of the leader ---- */

static void slot_want_join(struct slot *s, uint32_t replica)
{
    const struct tenure *t = s->tenure;

    if (t) {
        int i = tenure_member(t, replica);

        if (i >= 0 && ((t->set & ~t->adding) >> i & 1))
            set_check(s->tenure); /* is back since, or meta has another set than we have */
        if (i >= 0 && ((t->set | t->joining) >> i & 1))
            return; /* is back, or on its way */
    }
    for (uint32_t i = 0; i < s->n_join; i++)
        if (s->join[i] == replica)
            return;
    if (s->n_join < MEMBERS_MAX)
        s->join[s->n_join++] = replica;
}

static void slot_repair(struct slot *s, uint32_t replica, uint32_t page)
{
    int i = tenure_member(s->tenure, replica);

    if (i >= 0 && page < PAGES_PER_EXTENT && s->tenure->set >> i & 1)
        repair_start(s->tenure, (uint32_t)i, page * PAGE_BYTES, PAGE_BYTES);
}

void slot_task(struct slot *s, const Zbs__Meta__Task *task)
{
    if (s->state == SLOT_FOREIGN && task->kind != TASK_RELEASE)
        s->state = SLOT_NONE; /* meta says otherwise */
    if (s->state == SLOT_NONE && s->waiters == 0)
        s->for_task = true;
    switch (task->kind) {
    case TASK_RETURN:
        slot_want_join(s, task->replica);
        break;
    case TASK_RELEASE:
        s->want_release = true;
        break;
    case TASK_OPEN:
        /* Also when a member was reported lost: then that is found out now. */
        if (s->tenure)
            tenure_probe(s->tenure, UINT32_MAX);
        else
            s->want_open = true;
        break;
    case TASK_REPAIR:
        if (s->tenure)
            slot_repair(s, task->replica, task->page);
        else
            s->want_open = true; /* and it is asked for again */
        break;
    case TASK_REMOVE:
        if (s->tenure)
            leave_surplus(s->tenure, task->replica);
        else
            s->want_open = true; /* likewise */
        break;
    case TASK_FLATTEN:
        flatten_start(s);
        break;
    case TASK_THICK:
    case TASK_THIN:
        thick_task(s->vol, task);
        break;
    default:
        log_warn("task.unknown", "kind=%u", task->kind);
        break;
    }
    slot_kick(s);
}
