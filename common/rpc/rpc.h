/* SPDX-License-Identifier: Apache-2.0
 *
 * Remote procedure calls (design section 5): protobuf-c services over streams, payload outside the
 * message. On the wire a connection opens with a hello in each direction (magic, version range,
 * feature bits, cluster id, what the peer is, and which instance of the server's loops it wants);
 * then frames follow, each a fixed little-endian header (common/rpc/frame.h), a message and a
 * payload. Requests are pipelined and complete out of order. All frames queued in one turn of the
 * loop leave in one writev.
 *
 * Transports: TCP and UNIX sockets by the address given; over a UNIX socket both sides go over to
 * shared memory after the hellos if both offer it (common/README.md). (TLS is there for streams,
 * env/net_tls.h; a feature bit of the hello is reserved to choose it.)
 *
 * Methods are numbered by their position in the .proto service, which is append-only.
 *
 * Memory per connection is bounded: at most rpc_limits.in_flight requests and
 * rpc_limits.payload_bytes of payload are admitted, then reading stops; unpacking uses an arena
 * per message with its own cap (unknown fields can blow a small frame up). */
#ifndef ZBS_RPC_RPC_H
#define ZBS_RPC_RPC_H

#include <protobuf-c/protobuf-c.h>
#include "common/base/buf.h"
#include "common/co/co.h"

#define RPC_PAYLOAD_MAX (4u * 1024 * 1024)
#define RPC_MESSAGE_MAX (1u * 1024 * 1024)
#define RPC_SLICES_MAX  64 /* slices of one outgoing payload */

/* ---- payloads ---- */

/* Outgoing: slices, referenced until the frame has left (or failed). */
struct rpc_payload {
    struct slice slices[RPC_SLICES_MAX];
    uint32_t count;
    uint32_t len; /* sum of slices */
};
/* Adds a slice and takes a reference of its own, dropped when the frame is done. */
void rpc_payload_add(struct rpc_payload *p, struct buf *buf, uint32_t off, uint32_t len);

/* ---- client ---- */

struct rpc_client; /* a cached, self-reconnecting connection to one address */

struct rpc_client_conf {
    const char *addr;       /* "127.0.0.1:9000" or "unix:/…"; copied */
    const char *self;       /* who we are, for the peer's log: "access-2"; copied */
    const char *cluster_id; /* checked by the peer if both sides name one; "" for none; copied */
    uint32_t instance;      /* which of the server's loops: a chunk server's worker; 0 otherwise */
    nsec_t connect_timeout; /* 0: 1 s */
};

/* No connection is made before the first call. Belongs to this loop. */
struct rpc_client *rpc_client_new(const struct rpc_client_conf *conf);
/* Fails what is in flight with ERR_CLOSED, waits for it, frees. */
co_fn void rpc_client_close(struct rpc_client *c);
/* Breaks the present connection: what is in flight fails with ERR_CLOSED; the next call connects
 * anew. */
void rpc_client_reset(struct rpc_client *c);
bool rpc_client_connected(const struct rpc_client *c);
/* Incarnation of the peer's process from its hello, 0 before the first connection; changes when
 * the peer restarts (PROTOCOL 2.5). */
uint64_t rpc_client_incarnation(const struct rpc_client *c);
const char *rpc_client_addr(const struct rpc_client *c);
uint32_t rpc_client_in_flight(const struct rpc_client *c);

struct rpc_reply {
    /* in: where the reply's payload goes; dst may be NULL: then a buffer is allocated */
    struct buf *dst;
    uint32_t dst_off, dst_cap;
    uint32_t expect; /* without dst: bytes of payload that are expected at most; 0: not known */
    /* out */
    ProtobufCMessage *msg; /* the unpacked reply; freed by rpc_reply_free */
    struct buf *payload;   /* reference held by the reply; == dst if that was given */
    uint32_t payload_off, payload_len;
    uint64_t incarnation; /* of the server that answered */
    bool answered;        /* the server answered: a negative result is the handler's own (which
                           * may well be ERR_UNREACHABLE of a call that it made), or says what
                           * was wrong with the request or reply as such */
    void *arena;
};
void rpc_reply_init(struct rpc_reply *r);
void rpc_reply_free(struct rpc_reply *r); /* idempotent; drops the message and the payload ref */

/* One call; suspends until the reply is there. The coroutine's deadline travels with it as a
 * remaining time. `out` may be NULL; its references are consumed in every case. Errors: those the
 * handler returned, with its text (then `r->msg` may be NULL); ERR_UNREACHABLE: nothing was sent
 * (no connection could be made, also within the deadline, or the server refused the hello);
 * ERR_TOO_LARGE without r->answered: the request is over a limit and was not sent;
 * ERR_CLOSED: the connection broke after it was (perhaps) sent, the outcome is unknown;
 * ERR_TIMEOUT, ERR_CANCELED: likewise unknown. A late reply is dropped (its dst is not touched
 * after the call returned: a reply into dst that is being received holds the return back until
 * received or the connection closed). */
co_fn int rpc_call(struct rpc_client *c, const ProtobufCServiceDescriptor *service, uint32_t method,
                   const ProtobufCMessage *request, struct rpc_payload *out,
                   struct rpc_reply *r) MUST_CHECK;

/* ---- server ---- */

struct rpc_server;
struct rpc_session; /* one accepted connection, as handlers see it */

struct rpc_request {
    void *ctx; /* of the service */
    struct rpc_session *session;
    const ProtobufCMessage *msg;
    struct buf *payload;  /* NULL if none; borrowed for the handler's duration (buf_get to keep) */
    uint32_t payload_len; /* starts at payload->data */
    ProtobufCMessage *reply; /* initialised message of the method's type: fill it. Strings, bytes
                              * and arrays that it points to come from rpc_alloc */
    struct rpc_payload out;  /* reply payload: rpc_payload_add */
    struct buf *room;        /* best place for it, from its start, if it is no longer than room_len:
                              * spares a copy. The client may look at it and change it at any time.
                              * NULL: there is none. Not to be kept */
    uint32_t room_len;
    void *arena;
    bool reply_on_error; /* set by rpc_fail_with_reply */
};

/* Memory that lives until the reply has left. Zeroed. */
void *rpc_alloc(struct rpc_request *q, size_t bytes);
char *rpc_strdup(struct rpc_request *q, const char *s);
/* Ends a handler that fails and has filled q->reply (and q->out) all the same; returns rc. */
int rpc_fail_with_reply(struct rpc_request *q, int rc);

/* Runs in a coroutine of its own, with the caller's deadline. Returns 0 (reply is sent) or a
 * negative ERR_* (code and text are sent, and reply too, if the handler marks q->reply valid by
 * returning through rpc_fail_with_reply). A broken connection does not cancel the handler, unless
 * the method says so. */
typedef int (*rpc_handler)(struct rpc_request *q);

struct rpc_method {
    rpc_handler handler;  /* NULL: ERR_UNSUPPORTED */
    uint32_t payload_max; /* of the request; 0: none allowed */
    /* From this length on the payload may be memory that the client can still change
     * (buf_is_foreign), which is not to be kept when the handler returns; 0: never. */
    uint32_t payload_shared_min;
    bool cancel_on_disconnect;
};

struct rpc_service {
    const ProtobufCServiceDescriptor *descriptor;
    const struct rpc_method *methods; /* descriptor->n_methods entries, by position */
    void *ctx;
};

struct rpc_limits {
    uint32_t in_flight;     /* requests per connection; 0: 256 */
    uint32_t payload_bytes; /* admitted payload per connection; 0: 64 MiB */
    uint32_t connections;   /* 0: 1024 */
};

struct rpc_server_conf {
    const char *addr;       /* listen address; port 0 allowed */
    const char *addr_unix;  /* second listener, may be NULL */
    const char *self;       /* "chunk-1" */
    const char *cluster_id; /* "" accepts any */
    uint64_t incarnation;   /* random per process start */
    struct rpc_limits limits;
    /* Loops that connections may be handed to by their hello's instance number; NULL: all stay on
     * the server's loop. services[i] holds the table for instance i. An instance beyond n is
     * refused. */
    struct co_loop **instances;
    uint32_t n_instances; /* 0: 1, the calling loop */
    /* NULL-terminated array of services per instance. */
    const struct rpc_service *const *services; /* services[i] -> array ended by {NULL} */
    /* optional: called on the instance's loop, in a coroutine, when a connection has ended */
    void (*on_disconnect)(void *ctx, struct rpc_session *s);
    void *on_disconnect_ctx;
};

/* Listens; accepting runs in the background until stopped. */
co_fn int rpc_server_start(const struct rpc_server_conf *conf, struct rpc_server **ret) MUST_CHECK;
const char *rpc_server_addr(const struct rpc_server *s); /* with the real port */
/* Closes the listeners and connections, waits for handlers. */
co_fn void rpc_server_stop(struct rpc_server *s);

const char *rpc_session_peer(const struct rpc_session *s); /* "access-2@127.0.0.1:4711" */
void **rpc_session_slot(struct rpc_session *s);            /* one pointer for the service's use */
/* Unique among the connections of this process. */
uint64_t rpc_session_id(const struct rpc_session *s);

#endif
