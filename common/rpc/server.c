/* SPDX-License-Identifier: Apache-2.0
 *
 * RPC server: listening, greeting, handing connections to loops, stopping. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "common/base/assert.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/rpc/server.h"

#define SERVER_HELLO_TIMEOUT_NS (5 * NSEC_PER_SEC)
#define SERVER_ACCEPT_PAUSE_NS  (20 * NSEC_PER_MSEC) /* after accept failed */

/* ---- greeting ---- */

/* Decides on the client's hello; fills what we answer. */
static int hello_judge(struct rpc_server *srv, const struct conn_hello *theirs,
                       struct conn_hello *ours)
{
    uint32_t version = MIN(theirs->version_max, FRAME_VERSION_MAX);

    if (srv->stopping)
        return err_set(ERR_HALTED, "%s is stopping", srv->self);
    if (version < MAX(theirs->version_min, FRAME_VERSION_MIN))
        return err_set(ERR_VERSION, "%s speaks versions %u to %u, you %u to %u", srv->self,
                       FRAME_VERSION_MIN, FRAME_VERSION_MAX, theirs->version_min,
                       theirs->version_max);
    if (conn_hello_foreign(srv->cluster_id, theirs->cluster_id))
        return err_set(ERR_REFUSED, "%s belongs to cluster %s, not %s", srv->self, srv->cluster_id,
                       theirs->cluster_id);
    if (theirs->instance >= srv->n_instances)
        return err_set(ERR_INVAL, "%s has %u instances, no number %u", srv->self, srv->n_instances,
                       theirs->instance);
    if (srv->n_sessions > srv->limits.connections)
        return err_set(ERR_BUSY, "%s serves %u connections, its limit", srv->self,
                       srv->limits.connections);
    ours->version_min = ours->version_max = version;
    ours->features &= theirs->features;
    return 0;
}

static co_fn int session_greet(struct rpc_session *s)
{
    struct rpc_server *srv = s->server;
    struct conn_hello ours = {
        .version_min = FRAME_VERSION_MIN,
        .version_max = FRAME_VERSION_MAX,
        .features = conn_features(&s->conn),
        .incarnation = srv->incarnation,
    };
    struct conn_hello theirs;
    int rc, sent;

    snprintf(s->peer, sizeof(s->peer), "?@%s", net_peer(s->conn.net));
    rc = conn_hello_recv(&s->conn, &theirs);
    if (rc < 0)
        return err_prefix(rc, "hello");
    snprintf(s->peer, sizeof(s->peer), "%s@%s", theirs.self, net_peer(s->conn.net));
    strcpy(ours.self, srv->self);
    strcpy(ours.cluster_id, srv->cluster_id);
    rc = hello_judge(srv, &theirs, &ours);
    if (rc < 0) {
        ours.status = rc;
        snprintf(ours.text, sizeof(ours.text), "%s", err_text(rc));
    }
    sent = conn_hello_send(&s->conn, &ours, srv->limits.in_flight);
    if (rc < 0)
        return err_set(rc, "%s", ours.text);
    if (sent < 0)
        return err_prefix(sent, "hello");
    s->conn.version = (uint8_t)ours.version_max;
    s->conn.features = ours.features;
    if (ours.features & FRAME_FEATURE_SHM) {
        rc = conn_share_take(&s->conn);
        if (rc < 0)
            return err_prefix(rc, "sharing memory");
    }
    s->instance = &srv->instances[theirs.instance];
    return 0;
}

/* A connection from accept to end. Runs on home, on the instance's loop while it is served, and
 * on home again. */
static co_fn int session_main(void *arg)
{
    struct rpc_session *s = arg;
    struct rpc_server *srv = s->server;
    struct co_loop *home = srv->home;
    nsec_t former;
    int rc;

    former = co_deadline_push(co_now() + SERVER_HELLO_TIMEOUT_NS);
    rc = session_greet(s);
    co_deadline_restore(former);
    list_del(&s->link);
    if (rc < 0) {
        if (conn_log_allowed(&srv->log_gate) && !srv->stopping)
            log_warn("rpc.refused", "peer=%s code=%s reason=\"%s\"", s->peer, err_name(rc),
                     err_text(rc));
        conn_fini(&s->conn);
    } else {
        struct co_loop *loop = s->instance->loop;

        if (loop != home) {
            net_conn_move(s->conn.net, loop);
            co_enter(loop);
        }
        if (!s->instance->stopping)
            session_serve(s);
        conn_fini(&s->conn);
        co_enter(home);
    }
    srv->n_sessions--;
    co_wg_done(&srv->sessions_alive);
    mem_free(s);
    return 0;
}

/* ---- accepting ---- */

struct acceptor {
    struct rpc_server *server;
    struct net_listener *listener;
};

static co_fn int acceptor_main(void *arg)
{
    struct acceptor a = *(struct acceptor *)arg;

    mem_free(arg);
    for (;;) {
        struct rpc_session *s;
        struct net_conn *net;
        int rc = net_accept(a.listener, &net);

        if (rc == ERR_CANCELED)
            return 0;
        if (rc < 0) {
            if (conn_log_allowed(&a.server->log_gate))
                log_error("rpc.accept", "addr=%s reason=\"%s\"", net_listener_addr(a.listener),
                          err_text(rc));
            if (co_sleep(SERVER_ACCEPT_PAUSE_NS) == ERR_CANCELED)
                return 0;
            continue;
        }
        s = MEM_NEW(struct rpc_session);
        conn_init(&s->conn, net);
        s->server = a.server;
        s->id = env_random();
        list_init(&s->link);
        list_push_back(&a.server->greeting, &s->link);
        a.server->n_sessions++;
        co_wg_add(&a.server->sessions_alive, 1);
        co_spawn_detached_deadline(&a.server->sessions, "rpc-session", session_main, s);
    }
}

static co_fn int server_listen(struct rpc_server *srv, const char *addr)
{
    struct acceptor *a;
    int rc;

    rc = net_listen(addr, &srv->listeners[srv->n_listeners]);
    if (rc < 0)
        return err_prefix(rc, "listen on %s", addr);
    a = MEM_NEW(struct acceptor);
    a->server = srv;
    a->listener = srv->listeners[srv->n_listeners++];
    co_spawn_detached_deadline(&srv->acceptors, "rpc-accept", acceptor_main, a);
    return 0;
}

/* ---- life ---- */

static void instance_init(struct server_instance *inst, struct co_loop *loop,
                          const struct rpc_service *services)
{
    uint32_t n = 0;

    inst->loop = loop;
    list_init(&inst->sessions);
    while (services[n].descriptor != NULL)
        n++;
    inst->services = MEM_NEW_ARRAY(struct server_service, n + 1);
    inst->n_services = n;
    for (uint32_t i = 0; i < n; i++) {
        inst->services[i].hash = frame_service_hash(services[i].descriptor);
        inst->services[i].service = &services[i];
        for (uint32_t j = 0; j < i; j++)
            ASSERT(inst->services[j].hash != inst->services[i].hash);
    }
}

static struct rpc_server *server_new(const struct rpc_server_conf *conf)
{
    struct rpc_server *srv = MEM_NEW(struct rpc_server);
    const struct rpc_limits *l = &conf->limits;

    ASSERT(strlen(conf->self) < CONN_NAME_MAX);
    ASSERT(conf->cluster_id == NULL || strlen(conf->cluster_id) < CONN_NAME_MAX);
    srv->home = co_loop();
    srv->self = mem_strdup(conf->self);
    srv->cluster_id = mem_strdup(conf->cluster_id != NULL ? conf->cluster_id : "");
    srv->incarnation = conf->incarnation;
    srv->limits.in_flight = l->in_flight > 0 ? l->in_flight : 256;
    srv->limits.payload_bytes = l->payload_bytes > 0 ? l->payload_bytes : 64u * 1024 * 1024;
    srv->limits.connections = l->connections > 0 ? l->connections : 1024;
    srv->n_instances = MAX(conf->n_instances, 1u);
    ASSERT(conf->instances != NULL || srv->n_instances == 1);
    srv->instances = MEM_NEW_ARRAY(struct server_instance, srv->n_instances);
    for (uint32_t i = 0; i < srv->n_instances; i++)
        instance_init(&srv->instances[i], conf->instances != NULL ? conf->instances[i] : srv->home,
                      conf->services[i]);
    srv->on_disconnect = conf->on_disconnect;
    srv->on_disconnect_ctx = conf->on_disconnect_ctx;
    co_group_init(&srv->acceptors);
    co_group_init(&srv->sessions);
    co_wg_init(&srv->sessions_alive);
    list_init(&srv->greeting);
    return srv;
}

co_fn int rpc_server_start(const struct rpc_server_conf *conf, struct rpc_server **ret)
{
    struct rpc_server *srv = server_new(conf);
    int rc;

    rc = server_listen(srv, conf->addr);
    if (rc == 0 && conf->addr_unix != NULL)
        rc = server_listen(srv, conf->addr_unix);
    if (rc < 0) {
        char text[256];

        snprintf(text, sizeof(text), "%s", err_text(rc));
        rpc_server_stop(srv);
        return err_set(rc, "%s", text);
    }
    *ret = srv;
    return 0;
}

const char *rpc_server_addr(const struct rpc_server *s)
{
    return net_listener_addr(s->listeners[0]);
}

co_fn void rpc_server_stop(struct rpc_server *s)
{
    ASSERT(co_loop() == s->home && !s->stopping);
    s->stopping = true;
    co_group_close(&s->acceptors);
    for (uint32_t i = 0; i < s->n_listeners; i++)
        net_listener_close(s->listeners[i]);
    LIST_FOREACH (ses, &s->greeting, struct rpc_session, link)
        conn_break(&ses->conn, ERR_HALTED, "server is stopping");
    /* Whoever arrives on an instance's loop after this sees that it is stopping. */
    for (uint32_t i = 0; i < s->n_instances; i++) {
        struct server_instance *inst = &s->instances[i];

        co_enter(inst->loop);
        inst->stopping = true;
        LIST_FOREACH (ses, &inst->sessions, struct rpc_session, link)
            session_stop(ses);
        co_enter(s->home);
    }
    /* Not by joining the group at once, which would pass a cancel of ours on to coroutines that
     * are on other loops. */
    co_wg_wait(&s->sessions_alive);
    co_group_join(&s->sessions);
    for (uint32_t i = 0; i < s->n_instances; i++) {
        co_enter(s->instances[i].loop);
        if (s->instances[i].arenas != NULL)
            arena_pool_close(s->instances[i].arenas);
        co_enter(s->home);
        mem_free(s->instances[i].services);
    }
    mem_free(s->instances);
    mem_free(s->self);
    mem_free(s->cluster_id);
    mem_free(s);
}
