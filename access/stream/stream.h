/* SPDX-License-Identifier: Apache-2.0
 *
 * What the servers of streams (iSCSI, NBD, ONC RPC) have in common: accepting connections up to a
 * limit, reading ahead, sending answers in the order in which they are ready, and ending. A server
 * embeds a stream_server, each of its connections begins with a stream_conn. A connection is a
 * coroutine that reads and, once stream_sender_start was called, one that writes. Belongs to the
 * loop that initialised it. */
#ifndef ZBS_ACCESS_STREAM_STREAM_H
#define ZBS_ACCESS_STREAM_STREAM_H

#include "common/co/sync.h"
#include "common/env/env.h"

#define STREAM_LISTENERS  2u
#define STREAM_PIECES     3      /* of an item at most */
#define STREAM_RX_BYTES   16384u /* read ahead */
#define STREAM_DIRECT_MIN 16384u /* what is so long is received in place */

struct stream_server;

/* Something to be sent, embedded in what it belongs to. */
struct stream_item {
    struct list link;
    bool last; /* the connection ends after it */
};

struct stream_conn {
    struct list link; /* server->conns */
    struct stream_server *server;
    struct net_conn *net;
    uint64_t id;        /* of this process, for the log */
    uint32_t listener;  /* at which it came in */
    const char *broken; /* not NULL: it ends, and this is why; nothing that it holds is begun */

    /* receiving */
    uint8_t *rx; /* STREAM_RX_BYTES */
    uint32_t rx_pos, rx_end;
    uint32_t burst; /* turns since the reader last waited */

    /* sending */
    struct list tx;
    struct co_group sender;
    struct co_cond tx_wake;
    struct co_cond tx_progress; /* items have left, or the sender has ended */
    bool tx_closing;            /* nothing more comes: the sender ends when the queue is empty */
    bool tx_ended;
};

/* What a protocol adds. */
struct stream_ops {
    size_t conn_bytes; /* of its connection; the stream_conn is its first member */
    /* The rest of a new connection; its memory is zeroed. */
    void (*init)(struct stream_conn *c);
    /* From its first byte to its last: a coroutine's body. Frees what the connection has, and has
     * called stream_sender_end. The stream is closed and the memory freed afterwards. */
    co_fn void (*serve)(struct stream_conn *c);
    /* It was broken: what it holds is not begun any more. */
    void (*broken)(struct stream_conn *c);
    /* What an item consists of, now that it leaves. Entries used, at most STREAM_PIECES. */
    int (*pieces)(struct stream_conn *c, struct stream_item *item, struct iovec *iov);
    /* It has left, or never will. */
    void (*sent)(struct stream_conn *c, struct stream_item *item);
};

struct stream_listener {
    struct stream_server *server;
    struct net_listener *net; /* NULL: nothing listens here */
};

struct stream_server {
    const struct stream_ops *ops;
    const char *name; /* for the log: "nbd" */
    uint32_t conn_max;
    struct stream_listener listeners[STREAM_LISTENERS];
    struct list conns; /* struct stream_conn */
    uint32_t conn_count;
    struct co_cond conn_gone;
    struct co_group accepting, serving;
    uint64_t next_id;
};

/* ---- server.c ---- */

/* name: outlives it. */
void stream_server_init(struct stream_server *s, const struct stream_ops *ops, const char *name,
                        uint32_t conn_max);
/* addr NULL, "": nothing listens there. Nobody is accepted yet. */
co_fn int stream_listen(struct stream_server *s, uint32_t listener, const char *addr) MUST_CHECK;
/* With the real port; "" if nothing listens there. */
const char *stream_server_addr(const struct stream_server *s, uint32_t listener);
void stream_accept(struct stream_server *s);
/* Breaks every connection. Does not suspend. why: static. */
void stream_server_drop(struct stream_server *s, const char *why);
/* Nobody is accepted any more. */
co_fn void stream_accept_end(struct stream_server *s);
/* After that: connections get some time to end, those that are left are broken; listeners are
 * closed. */
co_fn void stream_server_end(struct stream_server *s, uint32_t patience_ms);
/* Both, and readers are cancelled in between: no new request comes in; connections end once those
 * in flight have been answered. */
co_fn void stream_server_stop(struct stream_server *s, uint32_t patience_ms);

/* Its reader will end, and no request of it is begun any more. Does not suspend. why: static. */
void stream_break(struct stream_conn *c, const char *why);

/* ---- reader.c ---- */

/* A flood of input may not hold the loop: lets others have their turn now and then. */
co_fn int stream_turn(struct stream_conn *c) MUST_CHECK;
/* Exactly len bytes. What follows them is read ahead, so that a burst of small requests costs one
 * system call: as much as there is room for, or `ahead` bytes if these are long or `streaming` says
 * that the next ones are, too, which so are received in place. */
co_fn int stream_read(struct stream_conn *c, void *dst, uint32_t len, bool streaming,
                      uint32_t ahead) MUST_CHECK;

/* ---- sender.c ---- */

void stream_sender_start(struct stream_conn *c);
/* Queues it; all that is queued in one turn of the loop leaves together. */
void stream_queue(struct stream_conn *c, struct stream_item *item);
/* By the connection's coroutine: what is queued leaves if the client takes it, then the connection
 * is broken. Whatever is sent later is dropped. */
co_fn void stream_sender_end(struct stream_conn *c);

#endif
