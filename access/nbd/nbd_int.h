/* SPDX-License-Identifier: Apache-2.0
 *
 * Shared by the files of access/nbd. A connection is a coroutine that reads (negotiation, then
 * requests) and, during transmission, one that writes; each request runs in a coroutine of its
 * own. When the reader ends, for whatever reason, requests are waited for and everything of the
 * connection is freed. */
#ifndef ZBS_ACCESS_NBD_NBD_INT_H
#define ZBS_ACCESS_NBD_NBD_INT_H

#include "access/nbd/nbd.h"
#include "access/nbd/proto.h"
#include "access/stream/stream.h"
#include "common/base/assert.h"
#include "common/base/bytes.h"
#include "common/base/log.h"
#include "common/base/mem.h"

#define NBD_BLOCK_MIN       BLOCK_SECTOR_BYTES
#define NBD_BLOCK_PREFERRED 4096u
#define NBD_PAYLOAD_MAX     (32u * 1024 * 1024)
#define NBD_NAME_MAX        255u   /* of an export */
#define NBD_OPTION_MAX      16384u /* data of an option that is looked at */
#define NBD_OPTION_SKIP_MAX (1024u * 1024)
#define NBD_EXTENTS_MAX     128u           /* descriptors of one BLOCK_STATUS reply */
#define NBD_ZERO_STEP       (1024u * 1024) /* zeroes that keep their space are written so */
#define NBD_CONTEXT_ID      1u             /* of base:allocation */
#define NBD_CONTEXT_NAME    "base:allocation"

enum { NBD_TCP, NBD_LOCAL }; /* its listeners */

struct nbd_server {
    struct stream_server stream;
    struct nbd_conf conf; /* with defaults filled in */
};

struct nbd_conn {
    struct stream_conn stream; /* first member */
    struct nbd_server *s;

    /* negotiated */
    bool fixed, no_zeroes, structured;
    bool tls;                      /* in force */
    char name[NBD_NAME_MAX + 1];   /* export that is open; "" */
    struct block_backend *backend; /* of it; NULL */
    bool context;                  /* base:allocation is selected for the export that is open */
    bool ending;                   /* its reader has ended */

    /* transmission */
    struct co_group requests;
    struct co_sem slots, memory;
    uint32_t last_payload;
    struct list tx_free; /* pieces for reuse */
    uint32_t tx_free_count;
};

/* ---- conn.c ---- */

void nbd_conn_init(struct stream_conn *c);
co_fn void nbd_conn_serve(struct stream_conn *c);
void nbd_conn_broken(struct stream_conn *c);
/* Exactly len bytes. dst NULL: drops them. payload: a request's header may follow, nothing else. */
co_fn int nbd_read(struct nbd_conn *c, void *dst, uint32_t len, bool payload) MUST_CHECK;

/* ---- handshake.c, option.c, starttls.c ---- */

/* 0: transmission follows; ERR_CLOSED with a text: the client left or was sent away. */
co_fn int nbd_handshake(struct nbd_conn *c) MUST_CHECK;

struct nbd_option_in {
    uint32_t type, len;
    const uint8_t *data;
};
enum { NBD_OPTION_NEXT = 0, NBD_OPTION_TRANSMIT = 1 };
/* Answers it. NBD_OPTION_*, or an error: the connection ends. */
co_fn int nbd_option(struct nbd_conn *c, const struct nbd_option_in *o) MUST_CHECK;
co_fn int nbd_option_reply(struct nbd_conn *c, uint32_t option, uint32_t type, const void *data,
                           uint32_t len) MUST_CHECK;
co_fn int nbd_option_error(struct nbd_conn *c, uint32_t option, uint32_t type,
                           const char *text) MUST_CHECK;
/* Both kinds of META_CONTEXT (option_meta.c). */
co_fn int nbd_option_meta(struct nbd_conn *c, const struct nbd_option_in *o) MUST_CHECK;
/* Must the client go over to TLS before anything else? */
bool nbd_tls_missing(const struct nbd_conn *c);
/* Goes over to TLS, or answers why not. NBD_OPTION_NEXT or an error. */
co_fn int nbd_option_starttls(struct nbd_conn *c, const struct nbd_option_in *o) MUST_CHECK;
/* Forgets the export that is open, if any. */
co_fn void nbd_export_close(struct nbd_conn *c);
/* Opens the export of this name unless it is open already. ERR_NOTFOUND. */
co_fn int nbd_export_open(struct nbd_conn *c, const uint8_t *name, uint32_t len) MUST_CHECK;
/* Before transmission: connections to the same volume that end have finished what they had begun,
 * so that none of it lands after what the client does next. Bounded by the handshake's deadline. */
co_fn int nbd_export_settle(struct nbd_conn *c) MUST_CHECK;
uint16_t nbd_transmission_flags(const struct nbd_conn *c);
uint64_t nbd_export_size(const struct nbd_conn *c);

/* A piece of an option's data, with bounds. False: there is not that much. */
struct nbd_cursor {
    const uint8_t *p;
    uint32_t left;
};
bool nbd_take(struct nbd_cursor *in, uint32_t len, const uint8_t **ret);
bool nbd_take_u16(struct nbd_cursor *in, uint32_t *ret);
bool nbd_take_u32(struct nbd_cursor *in, uint32_t *ret);

/* ---- request.c, command.c ---- */

struct nbd_request {
    struct nbd_conn *c;
    uint16_t flags, type;
    uint64_t cookie, off;
    uint32_t len;
    struct buf *buf;
    uint32_t held; /* memory credits */
};

/* Requests until the client disconnects (0) or an error. */
co_fn int nbd_serve(struct nbd_conn *c) MUST_CHECK;
void nbd_request_free(struct nbd_request *q);
/* What is wrong with it, judged by its header and the export's size: an NBD_E*, or 0. */
uint32_t nbd_request_check(const struct nbd_request *q);
/* Executes and answers it: a coroutine's body. */
co_fn int nbd_request_main(void *arg);

/* ---- reply.c ---- */

/* Each ends the request. */
void nbd_reply_done(struct nbd_request *q);
void nbd_reply_error(struct nbd_request *q, uint32_t error, const char *text);
void nbd_reply_read(struct nbd_request *q);
/* Descriptors, ready to be sent, lie in q->buf. */
void nbd_reply_status(struct nbd_request *q, uint32_t count);
int nbd_reply_pieces(struct stream_conn *c, struct stream_item *item, struct iovec *iov);
void nbd_reply_sent(struct stream_conn *c, struct stream_item *item);

#endif
