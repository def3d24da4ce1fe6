/* SPDX-License-Identifier: Apache-2.0
 *
 * The connection of a coordination handle: requests leave and replies return in order, and all
 * that is in flight becomes uncertain when it breaks. */
#include <string.h>
#include "common/env/sim/sim_coordd.h"

#define RETRANSMIT (20 * NSEC_PER_MSEC)
#define CREATE_MAX 32 /* parts of a root path */

/* ---- requests and watches ---- */

void coord_request_free(struct coord_request *r)
{
    for (int i = 0; i < r->op_count; i++) {
        sim_mem_free((void *)(uintptr_t)r->ops[i].path);
        sim_mem_free((void *)(uintptr_t)r->ops[i].data);
    }
    sim_mem_free(r->ops);
    sim_mem_free(r->path);
    sim_mem_free(r->data);
    sim_mem_free(r->names);
    sim_mem_free(r->real_path);
    sim_mem_free(r);
}

void coord_watcher_free(struct coord_watcher *w)
{
    list_del(&w->link);
    list_del(&w->handle_link);
    list_del(&w->msg.link);
    if (w->watch)
        w->watch->priv = NULL;
    sim_mem_free(w->path);
    sim_mem_free(w);
}

void coord_request_complete(struct coord_request *r, int rc)
{
    ASSERT(!r->done);
    list_del(&r->link);
    list_del(&r->msg.link);
    if (r->abandoned) {
        if (r->watcher && rc < 0)
            coord_watcher_free(r->watcher);
        coord_request_free(r);
        return;
    }
    r->done = true;
    r->rc = rc;
    sim_wake_all(&r->waiters, 0);
}

/* ---- the connection ---- */

bool coord_handle_reaches(const struct sim_coord *h)
{
    struct sim *s = h->proc->sim;

    if (!h->d->available || h->proc->coord_cut)
        return false;
    for (int i = 0; i < h->host_count; i++)
        if (!sim_net_is_cut(s, h->proc->host, h->hosts[i]) &&
            !sim_net_is_cut(s, h->hosts[i], h->proc->host))
            return true;
    return false;
}

void coord_handle_connect_later(struct sim_coord *h)
{
    struct sim *s = h->proc->sim;

    sim_event_arm(s, &h->conn_ev, s->now + sim_span(s, 50 * NSEC_PER_MSEC, 300 * NSEC_PER_MSEC));
}

/* Ends everything in flight; watches that have fired are told after the next connection. */
static void handle_fail_all(struct sim_coord *h, int rc)
{
    struct list *elem;

    sim_event_disarm(h->proc->sim, &h->req_ev);
    sim_event_disarm(h->proc->sim, &h->out_ev);
    h->stalled_since = 0;
    while ((elem = list_pop_front(&h->out))) {
        struct coord_msg *m = LIST_ENTRY(elem, struct coord_msg, link);

        if (m->is_watch)
            list_push_back(&h->unsent, &m->link);
        else
            coord_request_complete(LIST_ENTRY(m, struct coord_request, msg), rc);
    }
    while (!list_empty(&h->to_server))
        coord_request_complete(LIST_ENTRY(h->to_server.next, struct coord_request, link), rc);
}

void coord_handle_break(struct sim_coord *h)
{
    h->state = COORD_CONNECTING;
    handle_fail_all(h, ERR_UNCERTAIN);
    coord_handle_connect_later(h);
}

void coord_handle_expired(struct sim_coord *h)
{
    h->state = COORD_EXPIRED;
    sim_event_disarm(h->proc->sim, &h->conn_ev);
    handle_fail_all(h, ERR_EXPIRED);
    while (!list_empty(&h->watchers)) {
        struct coord_watcher *w = LIST_FIRST(&h->watchers, struct coord_watcher, handle_link);
        struct coord_watch *watch = w->watch;

        coord_watcher_free(w);
        if (watch)
            coord_watch_fire(watch, ERR_EXPIRED);
    }
    sim_wake_all(&h->state_waiters, 0);
}

static void root_create(struct sim_coord *h)
{
    for (const char *end = h->root; *end;) {
        struct coord_op op = {.kind = COORD_OP_CREATE};
        char *part;
        int rc;

        end += 1 + strcspn(end + 1, "/");
        op.path = part = sim_memdup(h->root, (size_t)(end - h->root));
        rc = coordd_commit(h->d, &op, 1, 0, &h->follower_at, NULL, NULL);
        ASSERT(rc == 0 || rc == ERR_EXISTS);
        sim_mem_free(part);
    }
    /* made by others, perhaps just now */
    h->follower_at = MAX(h->follower_at, h->d->txn_last_at);
}

/* The request arrives after those before it. */
static void request_schedule(struct sim_coord *h, struct coord_request *r)
{
    struct sim *s = h->proc->sim;

    r->at = MAX(h->last_arrive + 1, s->now + coordd_delay(s));
    h->last_arrive = r->at;
    if (h->to_server.next == &r->link)
        sim_event_arm(s, &h->req_ev, r->at);
}

static void msg_send(struct sim_coord *h, struct coord_msg *m, nsec_t not_before)
{
    struct sim *s = h->proc->sim;

    m->at = MAX(MAX(h->last_reply + 1, not_before), s->now + coordd_delay(s));
    h->last_reply = m->at;
    list_push_back(&h->out, &m->link);
    if (h->out.next == &m->link)
        sim_event_arm(s, &h->out_ev, m->at);
}

void coord_watcher_fired(struct coord_watcher *w)
{
    struct sim_coord *h = w->handle;

    if (h->state == COORD_CONNECTED)
        msg_send(h, &w->msg, 0);
    else
        list_push_back(&h->unsent, &w->msg.link);
}

void coord_handle_send(struct sim_coord *h, struct coord_request *r)
{
    list_push_back(&h->to_server, &r->link);
    if (h->state == COORD_CONNECTED)
        request_schedule(h, r);
}

static void handle_connect(struct sim *s, struct sim_event *e)
{
    struct sim_coord *h = CONTAINER_OF(e, struct sim_coord, conn_ev);
    struct list unsent, *elem;

    if (h->proc->paused || !coord_handle_reaches(h)) {
        if (!h->proc->paused)
            handle_fail_all(h, ERR_UNCERTAIN);
        coord_handle_connect_later(h);
        return;
    }
    if (!h->session)
        coordd_session_new(h);
    if (h->session->dead) {
        coord_handle_expired(h);
        return;
    }
    h->session->last_heard = s->now;
    h->state = COORD_CONNECTED;
    root_create(h);
    LIST_FOREACH (r, &h->to_server, struct coord_request, link)
        request_schedule(h, r);
    list_init(&unsent);
    list_splice_back(&unsent, &h->unsent);
    while ((elem = list_pop_front(&unsent)))
        msg_send(h, LIST_ENTRY(elem, struct coord_msg, link), 0);
    sim_wake_all(&h->state_waiters, 0);
}

/* Nothing gets through now: waits, or breaks the connection. */
static void handle_stalled(struct sim_coord *h, struct sim_event *e)
{
    struct sim *s = h->proc->sim;

    if (h->stalled_since == 0)
        h->stalled_since = s->now;
    if (!h->d->available || s->now - h->stalled_since >= h->session_ms * NSEC_PER_MSEC / 3 * 2)
        coord_handle_break(h);
    else
        sim_event_arm(s, e, s->now + RETRANSMIT);
}

/* The connection breaks around a write: done or not, the client does not learn it. */
static void request_lost(struct sim_coord *h, struct coord_request *r)
{
    if (sim_coin(h->proc->sim))
        (void)coordd_execute(h, r);
    coord_request_complete(r, ERR_UNCERTAIN);
    coord_handle_break(h);
}

static void request_arrives(struct sim *s, struct sim_event *e)
{
    struct sim_coord *h = CONTAINER_OF(e, struct sim_coord, req_ev);
    struct coord_request *r = LIST_FIRST(&h->to_server, struct coord_request, link);

    if (!coord_handle_reaches(h)) {
        handle_stalled(h, e);
        return;
    }
    h->stalled_since = 0;
    if (h->session->dead) {
        coord_handle_expired(h);
        return;
    }
    h->session->last_heard = s->now;
    if (!coordd_is_write(r) && h->follower && s->now <= h->follower_at) {
        sim_event_arm(s, e, h->follower_at + 1); /* reads see the handle's own writes */
        return;
    }
    if (coordd_is_write(r) && sim_chance(s, s->conf.coord_uncertain_ppm)) {
        request_lost(h, r);
        return;
    }
    list_del(&r->link);
    r->rc = coordd_execute(h, r);
    msg_send(h, &r->msg, h->follower ? h->follower_at : 0);
    if (!list_empty(&h->to_server))
        sim_event_arm(s, e, LIST_ENTRY(h->to_server.next, struct coord_request, link)->at);
}

static void watch_delivered(struct coord_watcher *w)
{
    struct coord_watch *watch = w->watch;

    coord_watcher_free(w);
    if (watch)
        coord_watch_fire(watch, 0);
}

static void reply_arrives(struct sim *s, struct sim_event *e)
{
    struct sim_coord *h = CONTAINER_OF(e, struct sim_coord, out_ev);
    struct coord_msg *m = LIST_FIRST(&h->out, struct coord_msg, link);

    if (!m)
        return; /* a watch, cancelled meanwhile */
    if (m->at > s->now) {
        sim_event_arm(s, e, m->at);
        return;
    }
    if (!coord_handle_reaches(h)) {
        handle_stalled(h, e);
        return;
    }
    h->stalled_since = 0;
    list_del(&m->link);
    if (!list_empty(&h->out))
        sim_event_arm(s, e, LIST_ENTRY(h->out.next, struct coord_msg, link)->at);
    if (m->is_watch) {
        watch_delivered(LIST_ENTRY(m, struct coord_watcher, msg));
    } else {
        struct coord_request *r = LIST_ENTRY(m, struct coord_request, msg);

        coord_request_complete(r, r->rc);
    }
}

/* ---- life ---- */

void coord_handle_init(struct sim_coord *h)
{
    struct list *lists[] = {&h->to_server, &h->out, &h->unsent, &h->watchers, &h->state_waiters};
    struct sim *s = h->proc->sim;
    uint64_t id = sim_id(s);

    for (size_t i = 0; i < ARRAY_SIZE(lists); i++)
        list_init(lists[i]);
    h->d = s->coordd;
    h->state = COORD_CONNECTING;
    h->follower = sim_coin(s);
    sim_event_init(&h->req_ev, SIM_COORD_REQUEST, h->proc, id, request_arrives);
    sim_event_init(&h->out_ev, SIM_COORD_REPLY, h->proc, id, reply_arrives);
    sim_event_init(&h->conn_ev, SIM_COORD_CONNECT, h->proc, id, handle_connect);
    list_push_back(&h->proc->coords, &h->link);
}

void coord_handle_free(struct sim_coord *h)
{
    struct sim *s = h->proc->sim;

    ASSERT(list_empty(&h->to_server) && list_empty(&h->out));
    sim_event_disarm(s, &h->req_ev);
    sim_event_disarm(s, &h->out_ev);
    sim_event_disarm(s, &h->conn_ev);
    while (!list_empty(&h->watchers))
        coord_watcher_free(LIST_FIRST(&h->watchers, struct coord_watcher, handle_link));
    if (h->session) {
        h->session->handle = NULL;
        coordd_session_release(h->session);
    }
    list_del(&h->link);
    sim_mem_free(h->root);
    sim_mem_free(h);
}

/* What was sent before the end arrives up to some point; nobody hears of it. */
static void handle_orphaned(struct sim_coord *h)
{
    uint64_t count = 0, arrived;

    LIST_FOREACH (r, &h->to_server, struct coord_request, link)
        count += h->state == COORD_CONNECTED && coord_handle_reaches(h) && !h->session->dead;
    arrived = sim_below(h->proc->sim, count + 1);
    LIST_FOREACH_SAFE (r, &h->to_server, struct coord_request, link) {
        if (arrived > 0 && coordd_is_write(r)) {
            (void)coordd_execute(h, r);
            arrived--;
        }
        list_del(&r->link);
        coord_request_free(r);
    }
    LIST_FOREACH_SAFE (m, &h->out, struct coord_msg, link) {
        list_del(&m->link);
        if (!m->is_watch)
            coord_request_free(LIST_ENTRY(m, struct coord_request, msg));
    }
}

void sim_coord_proc_ended(struct sim_proc *p, enum sim_end_how how)
{
    (void)how;
    while (!list_empty(&p->coords)) {
        struct sim_coord *h = LIST_FIRST(&p->coords, struct sim_coord, link);

        list_init(&h->state_waiters);
        handle_orphaned(h);
        coord_handle_free(h);
    }
}
