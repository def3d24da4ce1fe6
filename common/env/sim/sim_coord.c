/* SPDX-License-Identifier: Apache-2.0
 *
 * Operations of a simulated coordination handle: a request is queued, the caller waits for its
 * reply or goes away (then the request is abandoned, not withdrawn). */
#include <string.h>
#include "common/env/sim/sim_coordd.h"

static struct sim_coord *handle_of(struct coord *c)
{
    return CONTAINER_OF(c, struct sim_coord, base);
}

static char *full_path(const struct sim_coord *h, const char *path)
{
    if (strcmp(path, "/") == 0)
        return sim_strdup(h->root[0] ? h->root : "/");
    return sim_printf("%s%s", h->root, path);
}

static struct coord_request *request_new(struct sim_coord *h, enum coord_request_kind kind,
                                         const char *path)
{
    struct coord_request *r = SIM_NEW(struct coord_request);

    r->kind = kind;
    list_init(&r->link);
    list_init(&r->msg.link);
    list_init(&r->waiters);
    if (path)
        r->path = full_path(h, path);
    return r;
}

/* Sends and waits. On success the caller takes what it wants of the request and frees it; on
 * failure it is freed here, except that of a multi, if it was answered (*ret_answered). */
static int request_call(struct sim_coord *h, struct coord_request *r, enum co_wait_kind kind)
{
    struct co_wait wait;
    int rc;

    if (h->state == COORD_EXPIRED) {
        r->done = true;
        r->rc = ERR_EXPIRED;
        return ERR_EXPIRED;
    }
    coord_handle_send(h, r);
    co_wait_init(&wait);
    list_push_back(&r->waiters, &wait.link);
    rc = co_suspend(&wait, kind);
    if (r->done)
        return r->rc;
    ASSERT(rc < 0);
    r->abandoned = true; /* its completion frees it */
    if (r->watcher)
        r->watcher->watch = NULL;
    return rc;
}

static int request_end(struct coord_request *r, int rc, const char *what, const char *path)
{
    if (r->done)
        coord_request_free(r);
    if (rc == ERR_TIMEOUT || rc == ERR_CANCELED)
        return rc;
    return rc < 0 ? err_set(rc, "coordination: %s of %s: %s", what, path, err_default_text(rc)) : 0;
}

/* ---- handles ---- */

/* Hosts of "ip:port,ip:port". */
static int servers_parse(struct sim_coord *h, const char *servers)
{
    while (*servers) {
        size_t len = strcspn(servers, ","), host_len = strcspn(servers, ":,");

        if (h->host_count == COORD_HOSTS_MAX || host_len == 0 || host_len >= SIM_HOST_MAX ||
            host_len == len)
            return err_set(ERR_INVAL, "bad list of coordination servers");
        memcpy(h->hosts[h->host_count++], servers, host_len);
        servers += len + (servers[len] == ',');
    }
    return 0;
}

int sim_coord_open(struct env *env, const char *servers, const char *root, uint32_t session_ms,
                   struct coord **ret)
{
    struct sim_proc *p = sim_proc_of(env);
    struct sim_coord *h = SIM_NEW(struct sim_coord);
    int rc = servers_parse(h, servers);

    if (rc < 0) {
        sim_mem_free(h);
        return rc;
    }
    h->base.env = env;
    h->base.loop = co_loop();
    h->proc = p;
    h->session_ms = session_ms;
    h->root = sim_strdup(root);
    coord_handle_init(h);
    sim_event_arm(p->sim, &h->conn_ev, p->sim->now + 2 * coordd_delay(p->sim));
    *ret = &h->base;
    return 0;
}

void sim_coord_close(struct coord *c)
{
    struct sim_coord *h = handle_of(c);

    if (h->state == COORD_CONNECTED) {
        struct coord_request *r = request_new(h, REQ_CLOSE, NULL);

        (void)request_call(h, r, CO_UNINTERRUPTIBLE);
        coord_request_free(r);
    }
    while (!list_empty(&h->to_server))
        coord_request_complete(LIST_FIRST(&h->to_server, struct coord_request, link), ERR_CLOSED);
    LIST_FOREACH_SAFE (m, &h->out, struct coord_msg, link) {
        list_del(&m->link);
        if (!m->is_watch)
            coord_request_complete(LIST_ENTRY(m, struct coord_request, msg), ERR_CLOSED);
    }
    while (!list_empty(&h->watchers)) {
        struct coord_watcher *w = LIST_FIRST(&h->watchers, struct coord_watcher, handle_link);
        struct coord_watch *watch = w->watch;

        coord_watcher_free(w);
        if (watch)
            coord_watch_fire(watch, ERR_CLOSED);
    }
    sim_wake_all(&h->state_waiters, ERR_CLOSED);
    coord_handle_free(h);
}

enum coord_state sim_coord_state(const struct coord *c)
{
    return handle_of((struct coord *)(uintptr_t)c)->state;
}

int sim_coord_wait_connected(struct coord *c)
{
    struct sim_coord *h = handle_of(c);

    while (h->state == COORD_CONNECTING) {
        struct co_wait wait;
        int rc;

        co_wait_init(&wait);
        list_push_back(&h->state_waiters, &wait.link);
        rc = co_suspend(&wait, CO_INTERRUPTIBLE);
        if (rc == ERR_CLOSED)
            return err_set(rc, "coordination handle was closed");
        if (rc < 0)
            return rc;
    }
    if (h->state == COORD_EXPIRED)
        return err_set(ERR_EXPIRED, "coordination session expired");
    return 0;
}

/* ---- reads ---- */

int sim_coord_get(struct coord *c, const char *path, void **ret, size_t *ret_len,
                  struct coord_stat *ret_stat)
{
    struct sim_coord *h = handle_of(c);
    struct coord_request *r = request_new(h, REQ_GET, path);
    int rc = request_call(h, r, CO_INTERRUPTIBLE);
    char *data;

    if (rc == 0) {
        data = mem_alloc(r->len + 1);
        memcpy(data, r->data, r->len);
        *ret = data;
        *ret_len = r->len;
        *ret_stat = r->stat;
    }
    return request_end(r, rc, "read", path);
}

int sim_coord_children(struct coord *c, const char *path, char ***ret, uint32_t *ret_n)
{
    struct sim_coord *h = handle_of(c);
    struct coord_request *r = request_new(h, REQ_CHILDREN, path);
    int rc = request_call(h, r, CO_INTERRUPTIBLE);

    if (rc == 0) {
        char **names = mem_alloc(r->name_count * sizeof(*names) + r->len + 1);
        char *text = (char *)(names + r->name_count);

        memcpy(text, r->names, r->len);
        for (uint32_t i = 0; i < r->name_count; i++) {
            names[i] = text;
            text += strlen(text) + 1;
        }
        *ret = names;
        *ret_n = r->name_count;
    }
    return request_end(r, rc, "listing", path);
}

int sim_coord_sync(struct coord *c, const char *path)
{
    struct sim_coord *h = handle_of(c);
    struct coord_request *r = request_new(h, REQ_SYNC, path);

    return request_end(r, request_call(h, r, CO_INTERRUPTIBLE), "sync", path);
}

/* ---- writes ---- */

int sim_coord_multi(struct coord *c, struct coord_op *ops, int n, bool single, char **ret_path,
                    struct coord_stat *ret_stat)
{
    struct sim_coord *h = handle_of(c);
    struct coord_request *r = request_new(h, REQ_MULTI, NULL);
    int rc, failed = 0;

    r->op_count = n;
    r->ops = sim_memdup(ops, sizeof(*ops) * (size_t)n);
    for (int i = 0; i < n; i++) {
        r->ops[i].path = full_path(h, ops[i].path);
        r->ops[i].data = sim_memdup(ops[i].data, ops[i].len);
    }
    rc = request_call(h, r, CO_INTERRUPTIBLE);
    for (int i = 0; r->done && i < n; i++) {
        ops[i].rc = r->ops[i].rc;
        ops[i].ret_version = r->ops[i].ret_version;
        if (ops[i].rc < 0)
            failed = i;
    }
    if (rc == 0 && single) {
        *ret_path = mem_strdup(r->real_path + strlen(h->root));
        *ret_stat = r->stat;
    }
    return request_end(r, rc, "change", ops[failed].path);
}

/* ---- watches ---- */

int sim_coord_watch_arm(struct coord *c, struct coord_watch *w, enum coord_watch_kind kind,
                        const char *path)
{
    struct sim_coord *h = handle_of(c);
    struct coord_request *r = request_new(h, REQ_WATCH, path);
    struct coord_watcher *watcher = SIM_NEW(struct coord_watcher);
    int rc;

    list_init(&watcher->link);
    list_init(&watcher->msg.link);
    watcher->msg.is_watch = true;
    watcher->kind = kind;
    watcher->path = sim_strdup(r->path);
    watcher->watch = w;
    watcher->handle = h;
    list_push_back(&h->watchers, &watcher->handle_link);
    r->watcher = watcher;
    w->priv = watcher;
    rc = request_call(h, r, CO_INTERRUPTIBLE);
    /* Not armed, or nobody knows: nothing will be told. Expiry and close have freed it already. */
    if (rc < 0 && r->done)
        sim_coord_watch_cancel(w);
    else if (rc < 0)
        w->priv = NULL;
    return request_end(r, rc, "watch", path);
}

void sim_coord_watch_cancel(struct coord_watch *w)
{
    struct coord_watcher *watcher = w->priv;

    if (watcher)
        coord_watcher_free(watcher);
}
