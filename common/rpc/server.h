/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside of an RPC server. server.c listens, greets and hands connections to the loops of their
 * instances; session.c serves one connection there.
 *
 * Affinity: struct rpc_server is used on the loop that started it (its "home"), apart from what
 * is fixed after the start. A server_instance's sessions are used on the instance's loop only; a
 * session belongs to home until its hello is done, then to its instance's loop until it has
 * ended, then to home again. */
#ifndef ZBS_RPC_SERVER_H
#define ZBS_RPC_SERVER_H

#include "common/rpc/arena.h"
#include "common/rpc/conn.h"

struct server_service {
    uint32_t hash;
    const struct rpc_service *service;
};

struct server_instance {
    /* fixed after the start */
    struct co_loop *loop;
    struct server_service *services;
    uint32_t n_services;
    /* on loop */
    struct list sessions;
    struct arena_pool *arenas; /* NULL before the first session */
    bool stopping;
    struct conn_log_gate log_gate;
};

struct rpc_server {
    /* fixed after the start */
    struct co_loop *home;
    char *self, *cluster_id;
    uint64_t incarnation;
    struct rpc_limits limits;
    struct server_instance *instances;
    uint32_t n_instances;
    void (*on_disconnect)(void *ctx, struct rpc_session *s);
    void *on_disconnect_ctx;
    /* on home */
    struct net_listener *listeners[2];
    uint32_t n_listeners;
    struct co_group acceptors;
    struct co_group sessions;
    struct co_wg sessions_alive;
    struct list greeting; /* sessions whose hello is not done */
    uint32_t n_sessions;
    bool stopping;
    struct conn_log_gate log_gate;
};

struct rpc_session {
    struct rpc_conn conn;
    struct rpc_server *server;
    struct server_instance *instance; /* NULL until the hello is done */
    struct list link;                 /* server->greeting, then instance->sessions */
    uint64_t id;
    char peer[CONN_NAME_MAX + NET_ADDR_MAX];
    void *slot;

    struct co_group group; /* sender and handlers */
    struct list requests;  /* being handled */
    uint32_t in_flight;    /* admitted, reply not yet sent */
    uint64_t admitted_bytes;
    struct co_cond room; /* in_flight or admitted_bytes fell */
};

/* Serves a connection until it ends and all its handlers have: on the instance's loop, s->conn
 * belonging to it. */
co_fn void session_serve(struct rpc_session *s);
/* Makes it end: closes the stream and cancels its handlers. On the instance's loop. */
void session_stop(struct rpc_session *s);

#endif
