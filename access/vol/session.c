/* SPDX-License-Identifier: Apache-2.0
 *
 * The session with meta: opened, renewed, and opened anew when it expired. Its renewals carry the
 * lease clock, the views of chunk and access servers, and the leader's tasks. */
#include "access/vol/vol_int.h"

#include <stdio.h>
#include <string.h>

/* A renewal each, of ours and of the others. */
#define LEAVE_NOTICE (500 * NSEC_PER_MSEC)

/* Clocks of two hosts drift apart by less than this in a lease's time (PROTOCOL 1.4). */
static nsec_t drift_margin(nsec_t ttl)
{
    return mutate(MUT_NO_DRIFT_MARGIN) ? 0 : ttl / 10;
}

bool lease_valid(const struct vol_engine *e)
{
    if (mutate(MUT_LEASE_NEVER_EXPIRES))
        return true;
    return e->session && co_now() < e->lease_until;
}

/* ---- has this process been stopped? ---- */

/* Between two beats of the pulse: more says that nothing ran here, while others may have waited
 * for us in vain and gone elsewhere. */
#define PULSE_EVERY (100 * NSEC_PER_MSEC)
#define PULSE_GAP   (500 * NSEC_PER_MSEC)

static void pulse_look(struct vol_engine *e)
{
    nsec_t now = co_now();

    if (UNLIKELY(now - e->pulse > PULSE_GAP)) {
        log_warn("session.stopped", "nothing ran here for %" PRId64 " ms: asking meta",
                 (now - e->pulse) / NSEC_PER_MSEC);
        e->doubted = now;
    }
    e->pulse = now;
}

int meta_session_pulse(void *arg)
{
    struct vol_engine *e = arg;

    while (!co_canceled()) {
        pulse_look(e);
        (void)co_sleep(PULSE_EVERY);
    }
    return 0;
}

int lease_change_wait(struct vol_engine *e, uint64_t *session)
{
    int rc;

    if (e->stopping)
        return err_set(ERR_HALTED, "the volume engine is stopping");
    rc = co_cond_wait(&e->lease_changed);
    if (rc < 0)
        return rc;
    if (*session && e->session != *session)
        return err_set(ERR_EXPIRED, "session %" PRIu64 " expired", *session);
    *session = e->session;
    return 0;
}

int vol_engine_confirm(struct vol_engine *e)
{
    uint64_t session = e->session;

    /* What arrived before a stop is looked at before the pulse beats again. */
    if (UNLIKELY(co_now() - e->pulse > PULSE_GAP))
        pulse_look(e);
    while (UNLIKELY(!session || e->doubted)) {
        int rc = lease_change_wait(e, &session);

        if (rc < 0)
            return rc;
    }
    return 0;
}

static void lease_extend(struct vol_engine *e, nsec_t sent)
{
    nsec_t until = sent + e->ttl - drift_margin(e->ttl);

    if (until > e->lease_until)
        e->lease_until = until;
    if (sent >= e->doubted)
        e->doubted = 0;
    co_cond_broadcast(&e->lease_changed);
}

int meta_session_open(struct vol_engine *e)
{
    for (bool said = false;; said = true) {
        Zbs__Meta__SessionOpenRequest req = ZBS__META__SESSION_OPEN_REQUEST__INIT;
        struct rpc_reply r;
        nsec_t sent = co_now();
        int rc;

        req.name = e->name;
        req.incarnation = e->incarnation;
        req.former_is_dead = e->former_is_dead;
        req.addr = e->rpc_addr;
        req.host = e->host;
        req.rack = e->rack;
        req.zone = e->zone;
        req.iscsi_portal = e->iscsi_portal;
        rpc_reply_init(&r);
        rc = meta_call(e->meta, META_SESSION_OPEN, &req.base, true, &r);
        if (rc == 0) {
            const Zbs__Meta__SessionOpenReply *a = (const Zbs__Meta__SessionOpenReply *)r.msg;

            e->session = a->session_id;
            e->session_since = co_now();
            e->ttl = MAX(a->ttl_ms, 10u) * NSEC_PER_MSEC;
            e->renew_every = MAX(a->renew_ms, 5u) * NSEC_PER_MSEC;
            e->view_version = 0;
            e->lease_until = 0;
            snprintf(e->cluster_id, sizeof(e->cluster_id), "%s", a->cluster_id);
            lease_extend(e, sent);
            log_info("session.open", "session=%" PRIu64 " ttl_ms=%u", e->session, a->ttl_ms);
            rpc_reply_free(&r);
            return 0;
        }
        rpc_reply_free(&r);
        if (co_canceled() || rc == ERR_CANCELED)
            return ERR_CANCELED;
        if (rc == ERR_INVAL || rc == ERR_VERSION || rc == ERR_PERM)
            return err_prefix(rc, "meta refuses our session");
        if (!said)
            log_warn("session.waiting", "error=%s \"%s\"", err_name(rc), err_text(rc));
        rc = co_sleep(5 * RETRY_PAUSE);
        if (rc < 0)
            return rc;
    }
}

void meta_session_lost(struct vol_engine *e, uint64_t session)
{
    if (!session || e->session != session)
        return;
    log_warn("session.expired", "session=%" PRIu64, session);
    e->session = 0;
    e->lease_until = 0;
    if (e->session_expired)
        e->session_expired(e->arg);
    LIST_FOREACH (v, &e->volumes, struct volume, link)
        for (uint32_t i = 0; i < v->cap_slots; i++)
            if (v->slots[i])
                slot_reset(v->slots[i]);
    co_cond_broadcast(&e->lease_changed);
}

/* ---- other access servers ---- */

struct access_peer *access_find(struct vol_engine *e, uint64_t session)
{
    LIST_FOREACH (a, &e->accesses, struct access_peer, link)
        if (a->session == session && !a->gone)
            return a;
    return NULL;
}

static void access_free(struct access_peer *a)
{
    list_del(&a->link);
    if (a->rpc)
        rpc_client_close(a->rpc);
    mem_free(a);
}

void access_peers_close(struct vol_engine *e)
{
    struct access_peer *a;

    while ((a = LIST_FIRST(&e->accesses, struct access_peer, link)) != NULL)
        access_free(a);
}

static void accesses_update(struct vol_engine *e, Zbs__Meta__AccessView *const *views, size_t n)
{
    LIST_FOREACH (a, &e->accesses, struct access_peer, link)
        a->gone = true;
    for (size_t i = 0; i < n; i++) {
        struct access_peer *a = NULL;

        LIST_FOREACH (known, &e->accesses, struct access_peer, link)
            if (known->session == views[i]->session_id)
                a = known;
        if (!a) {
            a = MEM_NEW(struct access_peer);
            a->session = views[i]->session_id;
            list_push_back(&e->accesses, &a->link);
        }
        a->gone = false;
        snprintf(a->name, sizeof(a->name), "%s", views[i]->name);
        snprintf(a->addr, sizeof(a->addr), "%s", views[i]->addr);
        snprintf(a->iscsi_portal, sizeof(a->iscsi_portal), "%s", views[i]->iscsi_portal);
        a->leaving = views[i]->leaving;
    }
    if (e->portals_changed)
        e->portals_changed(e->arg);
    /* Those without users go now, the others when a later view comes. */
    for (bool again = true; again;) {
        again = false;
        LIST_FOREACH (a, &e->accesses, struct access_peer, link) {
            if (a->gone && a->users == 0) {
                access_free(a);
                again = true; /* it may have suspended */
                break;
            }
        }
    }
}

void vol_engine_portals(const struct vol_engine *e,
                        void (*fn)(void *arg, const char *portal, bool leaving), void *arg)
{
    LIST_FOREACH (a, &e->accesses, struct access_peer, link)
        if (!a->gone && a->iscsi_portal[0])
            fn(arg, a->iscsi_portal, a->leaving);
}

co_fn void vol_engine_leave(struct vol_engine *e)
{
    e->leaving = true;
    meta_session_renew_now(e);
    (void)co_sleep(LEAVE_NOTICE);
}

/* ---- renewing ---- */

static int task_run(struct vol_engine *e, const Zbs__Meta__Task *task)
{
    struct volume *v;
    struct slot *s;
    int rc;

    if (task->volume_id == 0) {
        recover_task(e, task);
        return 0;
    }
    rc = vol_object_get(e, task->volume_id, &v);
    if (rc < 0)
        return rc;
    s = vol_slot_at(v, task->slot);
    if (s)
        slot_task(s, task);
    return 0;
}

struct tasks {
    struct vol_engine *e;
    struct rpc_reply r;
    bool all_changed; /* volumes */
};

/* Looking a volume up asks meta: not in the renewer's time. */
static int tasks_run(void *arg)
{
    struct tasks *ts = arg;
    const Zbs__Meta__SessionRenewReply *a = (const Zbs__Meta__SessionRenewReply *)ts->r.msg;

    if (ts->all_changed)
        vol_objects_changed(ts->e);
    for (size_t i = 0; i < a->n_volumes_changed; i++)
        vol_object_changed(ts->e, a->volumes_changed[i]);
    for (size_t i = 0; i < a->n_tasks && !co_canceled(); i++)
        (void)task_run(ts->e, a->tasks[i]);
    rpc_reply_free(&ts->r);
    mem_free(ts);
    return 0;
}

/* Those that we know; the others are not for us, or of another release. */
static void settings_take(struct vol_engine *e, Zbs__Meta__Setting *const *settings, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        int s = setting_find(settings[i]->name);

        if (s >= 0)
            e->settings[s] = settings[i]->value;
    }
    joins_limit(e, (uint32_t)MIN(MAX(e->settings[SETTING_RECOVERY_EXTENTS], 1u), 1024u),
                MAX(e->settings[SETTING_RECOVERY_RATE], 1u));
    if (e->space_changed)
        e->space_changed(e->arg);
}

uint64_t vol_engine_setting(const struct vol_engine *e, enum setting s)
{
    return e->settings[s];
}

/* A leader that does not know yet says nothing, which is no news. */
static void space_take(struct vol_engine *e, uint64_t bytes, uint64_t free_bytes)
{
    if (bytes == 0 || (bytes == e->space_bytes && free_bytes == e->space_free_bytes))
        return;
    e->space_bytes = bytes;
    e->space_free_bytes = free_bytes;
    if (e->space_changed)
        e->space_changed(e->arg);
}

static void renewed(struct vol_engine *e, struct rpc_reply *r)
{
    const Zbs__Meta__SessionRenewReply *a = (const Zbs__Meta__SessionRenewReply *)r->msg;
    bool all_changed = a->volumes_version != e->volumes_version;

    e->volumes_version = a->volumes_version;
    if (a->view_version != e->view_version) {
        bool whole = a->n_chunks > 0 || a->n_accesses > 0;

        if (whole) {
            chunks_update(e, a->chunks, a->n_chunks);
            accesses_update(e, a->accesses, a->n_accesses);
        }
        /* Another leader may count from elsewhere and hold its view for the older one: say that
         * we have none. */
        e->view_version = whole ? a->view_version : 0;
    }
    if (a->settings_version != e->settings_version && a->n_settings > 0) {
        e->settings_version = a->settings_version;
        settings_take(e, a->settings, a->n_settings);
    }
    space_take(e, a->space_bytes, a->space_free_bytes);
    if (a->exports_version != e->exports_version) {
        e->exports_version = a->exports_version;
        if (e->exports_changed)
            e->exports_changed(e->arg, a->exports_version);
    }
    qos_answered(e, a);
    reservations_renewed(e, a);
    if (a->n_tasks || a->n_volumes_changed || all_changed) {
        struct tasks *ts = MEM_NEW(struct tasks);

        ts->e = e;
        ts->all_changed = all_changed;
        ts->r = *r;
        rpc_reply_init(r);
        co_spawn_detached_deadline(&e->bg, "tasks", tasks_run, ts);
    }
}

static int session_renew(struct vol_engine *e)
{
    Zbs__Meta__SessionRenewRequest req = ZBS__META__SESSION_RENEW_REQUEST__INIT;
    uint64_t session = e->session;
    nsec_t sent = co_now();
    nsec_t former;
    struct qos_demands *demands = MEM_NEW(struct qos_demands);
    struct rpc_reply r;
    int rc;

    e->renew_now = false;
    req.session_id = session;
    qos_report(e, &req, demands);
    req.view_version = e->view_version;
    req.exports_version = e->exports_version;
    req.settings_version = e->settings_version;
    req.reservations_version = e->reservations_seen;
    req.leaving = e->leaving;
    req.copied_bytes = e->recovery.copied_bytes;
    req.copy_left_bytes = joins_left(e, &req.copy_extents);
    rpc_reply_init(&r);
    /* Not longer than the time it could win: a fresh attempt has a later time of sending. */
    former = co_deadline_push(sent + e->ttl);
    rc = meta_call(e->meta, META_SESSION_RENEW, &req.base, true, &r);
    co_deadline_restore(former);
    mem_free(demands);
    if (rc == 0 && e->session == session) {
        lease_extend(e, sent);
        renewed(e, &r);
    } else if (rc == ERR_EXPIRED) {
        meta_session_lost(e, session);
    }
    rpc_reply_free(&r);
    return rc;
}

void meta_session_renew_now(struct vol_engine *e)
{
    e->renew_now = true;
    co_cond_signal(&e->renew_wake);
}

static void renew_pause(struct vol_engine *e, nsec_t until)
{
    nsec_t former = co_deadline_push(until);

    while (!e->renew_now && co_cond_wait(&e->renew_wake) == 0)
        ;
    co_deadline_restore(former);
}

int meta_session_renewer(void *arg)
{
    struct vol_engine *e = arg;

    while (!co_canceled()) {
        nsec_t started = co_now();
        int rc;

        if (!e->session && meta_session_open(e) < 0) {
            if (co_canceled())
                break;
            (void)co_sleep(NSEC_PER_SEC);
            continue;
        }
        rc = session_renew(e);
        if (rc < 0 && rc != ERR_CANCELED)
            log_debug("session.renew", "error=%s \"%s\"", err_name(rc), err_text(rc));
        renew_pause(e, started + (rc < 0 ? MIN(e->renew_every, 5 * RETRY_PAUSE) : e->renew_every));
    }
    return 0;
}
