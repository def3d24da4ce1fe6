/* SPDX-License-Identifier: Apache-2.0
 *
 * What both ends of an RPC connection share: the receive buffer with its read-ahead, the queue of
 * outgoing frames with the coroutine that writes it, and the hello. Used by client.c, server.c
 * and session.c.
 *
 * Sending: conn_send packs header and message straight into the staging bytes of the open batch
 * and notes the payload's slices, so a frame costs no allocation and a payload no copy. The
 * sender coroutine takes the whole batch and writes it with one writev; what is queued meanwhile
 * goes into the other batch.
 *
 * Receiving: everything is read through a small buffer with as much read-ahead as fits; a payload
 * gets what is already there by copy and the rest straight from the socket, whose readv also
 * refills the buffer behind it. */
#ifndef ZBS_RPC_CONN_H
#define ZBS_RPC_CONN_H

#include "common/co/sync.h"
#include "common/env/env.h"
#include "common/rpc/frame.h"

#define CONN_RX_BYTES_MIN 4096u
#define CONN_RX_BYTES_MAX 65536u
/* Payloads from this size on are not worth reading the next frames ahead of by copy. */
#define CONN_RX_BULK_BYTES 32768u
#define CONN_TX_KEEP_BYTES 262144u            /* staging kept between batches */
#define CONN_TX_QUEUE_MAX  (8u * 1024 * 1024) /* queued bytes after which callers wait */
#define CONN_NAME_MAX      64u                /* bytes of a name in a hello */

struct conn_seg {
    struct buf *buf; /* NULL: staging bytes; else a reference */
    uint32_t off, len;
};

struct conn_batch {
    uint8_t *bytes; /* headers and messages */
    uint32_t len, cap;
    struct conn_seg *segs;
    struct iovec *iov; /* as many as segs */
    uint32_t n_segs, segs_cap;
    uint64_t total;         /* bytes to send, payloads included */
    uint32_t credit_frames; /* handed to on_sent when the batch has left or failed */
    uint64_t credit_bytes;
};

struct rpc_conn {
    struct net_conn *net;
    uint8_t version;        /* negotiated; 0 before the hello */
    uint64_t features;      /* negotiated */
    struct net_arena arena; /* with FRAME_FEATURE_SLOTS, on the server's side: the client's */

    bool broken;
    int broken_rc; /* why, with its text */
    char broken_text[256];

    uint8_t *rx; /* bytes rx_head .. rx_tail are there */
    uint32_t rx_head, rx_tail, rx_cap;
    bool rx_bulk;      /* the last payload was large: read ahead little */
    bool rx_mid_frame; /* part of a frame has been consumed */

    struct conn_batch batches[2];
    uint32_t open; /* index of the batch that frames are queued to */
    struct co_cond tx_ready;
    /* A batch has left (or failed): runs on the loop in the sender; must not suspend. */
    void (*on_sent)(struct rpc_conn *c, uint32_t frames, uint64_t bytes);
};

void conn_init(struct rpc_conn *c, struct net_conn *net);
/* Closes the stream and frees the buffers. Nobody may be suspended in it. */
void conn_fini(struct rpc_conn *c);

/* Ends the connection for a reason; the first one counts. Readers and the sender then stop. */
void conn_break(struct rpc_conn *c, int rc, const char *text);

/* ---- sending ---- */

/* Drops the references; NULL is allowed. */
void payload_drop(struct rpc_payload *out);
/* Queues a frame; area_len, area_crc and, without FRAME_F_SLOT, payload_len of *h are filled here.
 * text (h->text_len
 * bytes) and msg may be NULL. The references of out are taken over in every case. credit_bytes
 * goes to on_sent. ERR_CLOSED if broken (on_sent is not called for it), ERR_TOO_LARGE. Does not
 * suspend. */
int conn_send(struct rpc_conn *c, struct frame_header *h, const char *text,
              const ProtobufCMessage *msg, struct rpc_payload *out,
              uint64_t credit_bytes) MUST_CHECK;
uint64_t conn_queued_bytes(const struct rpc_conn *c);
/* The sender: returns when the connection is broken (and breaks it when writing fails or when it
 * is cancelled); all references are dropped then. */
co_fn void conn_sender_run(struct rpc_conn *c);

/* ---- receiving: ERR_CLOSED at the end, ERR_PROTO, ERR_CORRUPT, ERR_TOO_LARGE, ERR_VERSION;
 * ERR_CANCELED and ERR_TIMEOUT of the caller. Any error leaves the stream useless. ---- */

co_fn int conn_recv_header(struct rpc_conn *c, struct frame_header *ret) MUST_CHECK;
/* A view of the message area, checked against its checksum, valid until the next receive; *tmp is
 * mem_ memory to free afterwards (NULL for areas that fit the receive buffer). */
co_fn int conn_recv_area(struct rpc_conn *c, const struct frame_header *h, const uint8_t **ret,
                         void **tmp) MUST_CHECK;
co_fn int conn_recv_payload(struct rpc_conn *c, void *dst, uint32_t len) MUST_CHECK;
co_fn int conn_skip(struct rpc_conn *c, uint32_t len) MUST_CHECK;

/* ---- payloads in the client's arena, as the server sees them (slots.c) ---- */

#define SLOT_BYTES_MIN 8192u /* shorter payloads travel with the frame: that costs less */

/* Does what the header says lie within the arena? ERR_PROTO: the connection is useless. */
int slot_check(const struct rpc_conn *c, const struct frame_header *h) MUST_CHECK;
/* The payload of a request with FRAME_F_SLOT, which was checked: in place from shared_min bytes on
 * (0: never) if it is aligned, else a copy. */
struct buf *slot_payload(const struct rpc_conn *c, const struct frame_header *h,
                         uint32_t shared_min);
/* Where the reply's payload may be put; NULL: nowhere. */
struct buf *slot_room(const struct rpc_conn *c, const struct frame_header *h);
/* Puts a payload there unless it is there already. Drops its references. */
void slot_fill(struct buf *room, struct rpc_payload *out);

/* ---- hello ---- */

struct conn_hello {
    int status; /* 0, or why the peer refuses, with its text */
    char text[256];
    uint32_t version_min, version_max;
    uint64_t features;
    char cluster_id[CONN_NAME_MAX], self[CONN_NAME_MAX];
    uint32_t instance;
    uint64_t incarnation;
};

/* Writes a hello frame, before any sender runs. */
co_fn int conn_hello_send(struct rpc_conn *c, const struct conn_hello *hello,
                          uint32_t in_flight_max) MUST_CHECK;
/* Reads and checks the peer's. 0 also if its status is negative. */
co_fn int conn_hello_recv(struct rpc_conn *c, struct conn_hello *ret) MUST_CHECK;
/* The features that can be had on this stream. */
uint64_t conn_features(struct rpc_conn *c);
/* After the hellos, on the server's side: goes over to the memory that the client offers. */
co_fn int conn_share_take(struct rpc_conn *c) MUST_CHECK;
/* Do both name a cluster, and not the same one? */
bool conn_hello_foreign(const char *ours, const char *theirs);

/* Copies text from the network for logs and errors: cut, printable, terminated. */
void conn_text_copy(char *dst, size_t dst_bytes, const void *src, size_t len);

/* Lets through a few log lines every ten seconds: whoever connects cannot fill the log. Belongs to
 * one loop. */
struct conn_log_gate {
    nsec_t window_start;
    uint32_t count;
};
bool conn_log_allowed(struct conn_log_gate *g);

#endif
