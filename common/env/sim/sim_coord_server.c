/* SPDX-License-Identifier: Apache-2.0
 *
 * The servers of the coordination service: committing, following, executing requests, sessions. */
#include <string.h>
#include "common/env/sim/sim_coordd.h"

#define REPLY_MAX (1024u * 1024)

/* A committed change, as the follower and the watches see it. */
struct change {
    struct coord_op op; /* with its own path and data */
};

struct txn {
    struct list link;
    nsec_t at;
    int64_t zxid;
    uint64_t owner;
    int count;
    struct change changes[];
};

nsec_t coordd_delay(struct sim *s)
{
    return sim_span(s, s->conf.coord_delay_min, s->conf.coord_delay_max) / 2;
}

/* ---- watches ---- */

static bool is_parent(const char *parent, const char *path)
{
    size_t len = (size_t)(strrchr(path, '/') - path);

    if (len == 0)
        return strcmp(parent, "/") == 0;
    return strlen(parent) == len && strncmp(parent, path, len) == 0;
}

static void watches_fire(struct coord_tree *t, const struct coord_op *op)
{
    if (op->kind == COORD_OP_CHECK)
        return;
    LIST_FOREACH_SAFE (w, &t->watches, struct coord_watcher, link) {
        bool same = strcmp(w->path, op->path) == 0;
        bool fires;

        if (w->kind == COORD_WATCH_NODE)
            fires = same;
        else
            fires = (same && op->kind == COORD_OP_DELETE) ||
                    (op->kind != COORD_OP_SET && is_parent(w->path, op->path));
        if (fires) {
            list_del(&w->link);
            coord_watcher_fired(w);
        }
    }
}

/* ---- committing and following ---- */

static void txn_free(struct txn *t)
{
    for (int i = 0; i < t->count; i++) {
        sim_mem_free((void *)(uintptr_t)t->changes[i].op.path);
        sim_mem_free((void *)(uintptr_t)t->changes[i].op.data);
    }
    sim_mem_free(t);
}

static void follow(struct sim *s, struct sim_event *e)
{
    struct sim_coordd *d = CONTAINER_OF(e, struct sim_coordd, follow_ev);
    struct txn *t = LIST_FIRST(&d->txns, struct txn, link);

    list_del(&t->link);
    for (int i = 0; i < t->count; i++) {
        struct coord_undo undo;
        int rc = coord_tree_change(&d->follower, &t->changes[i].op, t->owner, t->zxid, &undo, NULL);

        ASSERTF(rc == 0, "the follower fails to apply: %s", err_name(rc));
        coord_tree_forget(&undo);
    }
    for (int i = 0; i < t->count; i++)
        watches_fire(&d->follower, &t->changes[i].op);
    txn_free(t);
    if (!list_empty(&d->txns))
        sim_event_arm(s, &d->follow_ev, LIST_ENTRY(d->txns.next, struct txn, link)->at);
}

static nsec_t txn_enqueue(struct sim_coordd *d, struct txn *t)
{
    struct sim *s = d->sim;
    bool first = list_empty(&d->txns);

    t->at = MAX(d->txn_last_at + 1, s->now + sim_span(s, 0, s->conf.coord_delay_max));
    d->txn_last_at = t->at;
    list_push_back(&d->txns, &t->link);
    if (first)
        sim_event_arm(s, &d->follow_ev, t->at);
    return t->at;
}

int coordd_commit(struct sim_coordd *d, struct coord_op *ops, int n, uint64_t owner, nsec_t *ret_at,
                  char **ret_path, struct coord_stat *ret_stat)
{
    struct txn *t = sim_alloc(sizeof(*t) + sizeof(t->changes[0]) * (size_t)n);
    struct coord_undo *undos = sim_alloc(sizeof(*undos) * (size_t)n);
    int rc = 0;

    t->zxid = d->zxid + 1;
    t->owner = owner;
    for (int i = 0; i < n && rc == 0; i++) {
        char *path = NULL;

        rc = ops[i].rc = coord_tree_change(&d->leader, &ops[i], owner, t->zxid, &undos[i], &path);
        if (rc < 0)
            break;
        if (ops[i].kind == COORD_OP_SET)
            ops[i].ret_version = undos[i].node->version;
        if (ret_stat)
            coord_node_stat(undos[i].node, ret_stat);
        t->changes[i].op = ops[i];
        t->changes[i].op.path = path;
        t->changes[i].op.data = sim_memdup(ops[i].data, ops[i].len);
        t->changes[i].op.version = -1;
        t->changes[i].op.flags &= ~(unsigned)COORD_SEQUENCE;
        t->count++;
    }
    for (int i = t->count - 1; i >= 0; i--) {
        if (rc < 0)
            coord_tree_undo(&undos[i]);
        else
            coord_tree_forget(&undos[i]);
    }
    sim_mem_free(undos);
    if (rc < 0) {
        txn_free(t);
        return rc;
    }
    d->zxid = t->zxid;
    for (int i = 0; i < n; i++)
        watches_fire(&d->leader, &t->changes[i].op);
    if (ret_path)
        *ret_path = sim_strdup(t->changes[0].op.path);
    *ret_at = txn_enqueue(d, t);
    return 0;
}

/* ---- requests ---- */

bool coordd_is_write(const struct coord_request *r)
{
    return r->kind == REQ_MULTI || r->kind == REQ_CLOSE;
}

static void session_end(struct coord_session *ss);

static int execute_children(struct coord_node *n, struct coord_request *r)
{
    size_t total = 0, off = 0;

    for (uint32_t i = 0; i < n->kid_count; i++)
        total += strlen(n->kids[i]->name) + 1;
    if (total + 4 * n->kid_count > REPLY_MAX)
        return ERR_TOO_LARGE;
    r->names = sim_alloc(total + 1);
    r->len = total;
    r->name_count = n->kid_count;
    for (uint32_t i = 0; i < n->kid_count; i++) {
        size_t len = strlen(n->kids[i]->name) + 1;

        memcpy(r->names + off, n->kids[i]->name, len);
        off += len;
    }
    return 0;
}

static int execute_watch(struct sim_coord *h, struct coord_tree *t, struct coord_request *r)
{
    struct coord_watcher *w = r->watcher;

    if (w->kind == COORD_WATCH_CHILDREN && !coord_tree_find(t, w->path))
        return ERR_NOTFOUND;
    w->handle = h;
    list_push_back(&t->watches, &w->link);
    return 0;
}

int coordd_execute(struct sim_coord *h, struct coord_request *r)
{
    struct coord_tree *t = h->follower ? &h->d->follower : &h->d->leader;
    struct coord_node *n;

    switch (r->kind) {
    case REQ_MULTI:
        return coordd_commit(h->d, r->ops, r->op_count, h->session->id, &h->follower_at,
                             &r->real_path, &r->stat);
    case REQ_CLOSE:
        session_end(h->session);
        return 0;
    case REQ_SYNC:
        h->follower_at = MAX(h->follower_at, h->d->txn_last_at);
        return 0;
    case REQ_WATCH:
        return execute_watch(h, t, r);
    case REQ_GET:
    case REQ_CHILDREN:
        break;
    }
    n = coord_tree_find(t, r->path);
    if (!n)
        return ERR_NOTFOUND;
    if (r->kind == REQ_CHILDREN)
        return execute_children(n, r);
    r->data = sim_memdup(n->data, n->len);
    r->len = n->len;
    coord_node_stat(n, &r->stat);
    return 0;
}

/* ---- sessions ---- */

struct owned {
    struct coord_op *ops;
    int count, cap;
};

static void owned_add(void *arg, char *path)
{
    struct owned *o = arg;

    if (o->count == o->cap) {
        o->cap = o->cap * 2 + 16;
        o->ops = mem_raw_realloc(o->ops, sizeof(*o->ops) * (size_t)o->cap);
    }
    o->ops[o->count++] =
        (struct coord_op){.kind = COORD_OP_DELETE, .path = sim_strdup(path), .version = -1};
}

/* The service forgets the session and its ephemerals. */
static void session_end(struct coord_session *ss)
{
    struct sim_coordd *d = ss->proc->sim->coordd;
    struct owned o = {0};

    if (ss->dead)
        return;
    ss->dead = true;
    coord_tree_owned(&d->leader, ss->id, owned_add, &o);
    if (o.count > 0) {
        nsec_t at;
        int rc = coordd_commit(d, o.ops, o.count, 0, &at, NULL, NULL);

        ASSERT(rc == 0);
    }
    for (int i = 0; i < o.count; i++)
        sim_mem_free((void *)(uintptr_t)o.ops[i].path);
    sim_mem_free(o.ops);
}

void coordd_session_release(struct coord_session *ss)
{
    if (!ss->dead || ss->handle)
        return;
    sim_event_disarm(ss->proc->sim, &ss->tick_ev);
    list_del(&ss->link);
    sim_mem_free(ss);
}

static void session_tick(struct sim *s, struct sim_event *e)
{
    struct coord_session *ss = CONTAINER_OF(e, struct coord_session, tick_ev);
    struct sim_coord *h = ss->handle;
    nsec_t span = ss->ms * NSEC_PER_MSEC, next;
    bool hears = h && !ss->proc->paused && coord_handle_reaches(h);

    if (hears || !s->coordd->available)
        ss->last_heard = s->now;
    if (s->now - ss->last_heard >= span)
        session_end(ss);
    if (ss->dead && !h) {
        coordd_session_release(ss);
        return;
    }
    if (h && !ss->proc->paused) {
        bool silent = s->now - ss->last_heard >= span / 3 * 2 || !s->coordd->available;

        if (ss->dead && hears)
            coord_handle_expired(h);
        else if (h->state == COORD_CONNECTED && silent)
            coord_handle_break(h);
        if (h->state == COORD_EXPIRED)
            return;
    }
    next = s->now + span / 3;
    if (!ss->dead && ss->last_heard + span < next)
        next = MAX(ss->last_heard + span, s->now + 1);
    sim_event_arm(s, &ss->tick_ev, next);
}

void coordd_session_new(struct sim_coord *h)
{
    struct sim_coordd *d = h->d;
    struct coord_session *ss = SIM_NEW(struct coord_session);

    ss->id = ++d->next_session;
    ss->proc = h->proc;
    ss->ms = h->session_ms;
    ss->handle = h;
    ss->last_heard = d->sim->now;
    h->session = ss;
    list_push_back(&d->sessions, &ss->link);
    sim_event_init(&ss->tick_ev, SIM_COORD_SESSION, h->proc, ss->id, session_tick);
    sim_event_arm(d->sim, &ss->tick_ev, d->sim->now + ss->ms * NSEC_PER_MSEC / 3);
}

/* ---- faults ---- */

void sim_coord_expire(struct sim *s, struct sim_proc *p)
{
    LIST_FOREACH_SAFE (ss, &s->coordd->sessions, struct coord_session, link) {
        if (ss->proc != p || ss->dead)
            continue;
        session_end(ss);
        sim_event_arm(s, &ss->tick_ev, s->now + coordd_delay(s)); /* it learns soon */
    }
}

void sim_coord_available(struct sim *s, bool available)
{
    sim_note(s, "coordination %s", available ? "available" : "unavailable");
    LIST_FOREACH (ss, &s->coordd->sessions, struct coord_session, link) {
        ss->last_heard = s->now;
        sim_event_arm(s, &ss->tick_ev, s->now + coordd_delay(s));
    }
    s->coordd->available = available;
}

void sim_coord_cut(struct sim *s, struct sim_proc *p, bool cut)
{
    sim_note(s, "coordination %s %s", cut ? "cut from" : "healed for", p->name);
    p->coord_cut = cut;
}

/* ---- life ---- */

struct sim_coordd *sim_coordd_new(struct sim *s)
{
    struct sim_coordd *d = SIM_NEW(struct sim_coordd);

    d->sim = s;
    d->available = true;
    coord_tree_init(&d->leader);
    coord_tree_init(&d->follower);
    list_init(&d->txns);
    list_init(&d->sessions);
    sim_event_init(&d->follow_ev, SIM_COORD_FOLLOW, NULL, 0, follow);
    return d;
}

void sim_coordd_free(struct sim_coordd *d)
{
    LIST_FOREACH_SAFE (t, &d->txns, struct txn, link)
        txn_free(t);
    LIST_FOREACH_SAFE (ss, &d->sessions, struct coord_session, link) {
        ASSERT(!ss->handle);
        sim_mem_free(ss);
    }
    coord_tree_fini(&d->leader);
    coord_tree_fini(&d->follower);
    sim_mem_free(d);
}
