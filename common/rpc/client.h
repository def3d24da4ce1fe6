/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside of an RPC client: client.c has its life and the calls, client_conn.c one connection of
 * it with its receiver and the connecting. */
#ifndef ZBS_RPC_CLIENT_H
#define ZBS_RPC_CLIENT_H

#include "common/rpc/arena.h"
#include "common/rpc/conn.h"

struct client_conn;

/* One call in flight; on the stack of rpc_call. */
struct client_call {
    struct co_wait wait;
    struct rpc_reply *reply;
    const ProtobufCMessageDescriptor *output;
    struct client_conn *conn; /* that it was sent on */
    bool receiving;           /* its dst is being filled: only the receiver ends it now */
    bool done;
    int rc;
    char text[256]; /* of an error */
};

struct client_slot {
    struct client_call *call; /* NULL: unused */
    uint32_t generation;      /* upper half of the request id: tells late replies */
    uint32_t next_unused;
};
#define CLIENT_SLOT_NONE UINT32_MAX

struct rpc_client {
    struct co_loop *loop;
    char *addr, *self, *cluster_id;
    uint32_t instance;
    nsec_t connect_timeout;

    struct client_conn *conn; /* usable one, or NULL */
    bool connecting, closing;
    uint32_t attempts; /* finished attempts to connect */
    uint32_t failures; /* in a row: failed attempts, and connections that never answered */
    nsec_t retry_at;
    char connect_text[256]; /* why the last attempt failed */
    bool share_failed;      /* memory could not be shared: do without until a connection works */
    uint64_t incarnation;
    struct co_cond changed; /* connected, attempt failed, queue drained, connection broken */

    struct client_slot *slots;
    uint32_t n_slots, unused_slot, in_flight;
    uint32_t users; /* coroutines inside rpc_call */
    struct co_cond users_gone;
    struct arena_pool *arenas;
    struct co_group group; /* connector, receivers, senders */

    /* What the log was told: a peer that is gone for long is mentioned ever more rarely. */
    nsec_t trouble_logged_at, trouble_pause;
    uint32_t trouble_quiet; /* failures since then that were not logged */
    bool in_trouble;        /* the log's last word is that it does not work */
};

struct client_conn {
    struct rpc_conn base;
    struct rpc_client *client;
    uint64_t incarnation;
    struct list lent; /* struct client_lent */
    uint32_t tasks;   /* receiver and sender; the last one frees */
    bool answered;    /* at least one reply came */
};

/* Starts an attempt to connect in the background unless one is running. */
void client_connect_start(struct rpc_client *c);
/* Ends a connection and fails its calls with ERR_CLOSED. */
void client_conn_break(struct client_conn *cc, int rc, const char *text);

/* What the server may use of our arena until it has answered; the call may have ended before. */
struct client_lent {
    struct list link; /* client_conn.lent */
    uint64_t id;
    struct buf *out, *in; /* payloads of the request and for the reply; or NULL */
    uint32_t in_cap;
};
/* How long to wait, at the end, for a peer that uses memory of ours. */
#define CLIENT_DRAIN_NS (500 * NSEC_PER_MSEC)

/* Lends the request's payload and room for the reply's if the connection can and they are worth
 * it: the header then says so, and the references of *out are dropped. */
void client_lend(struct client_conn *cc, struct frame_header *h, struct rpc_payload *out,
                 const struct rpc_reply *r);
struct client_lent *client_lent_find(struct client_conn *cc, uint64_t id);
/* The server has answered. NULL is allowed. */
void client_lent_end(struct client_lent *l);
/* The connection is over: waits until the server has let go of what is still lent. */
co_fn void client_lent_settle(struct client_conn *cc);

/* The call of a request id, NULL if it has ended. */
struct client_call *client_call_find(struct rpc_client *c, uint64_t id);
/* Ends a call: its slot becomes unused and its coroutine is woken. */
void client_call_end(struct rpc_client *c, uint64_t id, int rc);

#endif
