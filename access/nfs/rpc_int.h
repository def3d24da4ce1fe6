/* SPDX-License-Identifier: Apache-2.0
 *
 * Shared by the files of ONC RPC (rpc*.c). A connection is a coroutine that reads and one that
 * writes; each call runs in a coroutine of its own. When the reader ends, for whatever reason,
 * calls are waited for and everything of the connection is freed. */
#ifndef ZBS_ACCESS_NFS_RPC_INT_H
#define ZBS_ACCESS_NFS_RPC_INT_H

#include "access/nfs/rpc.h"
#include "access/stream/stream.h"
#include "common/base/assert.h"
#include "common/base/bytes.h"
#include "common/base/list.h"
#include "common/base/log.h"
#include "common/base/mem.h"

#define ONC_HEAD_BYTES 1024u /* hold a call's header and what is before its bulk data */
#define ONC_AUTH_BYTES 400u  /* of a credential or verifier */
#define ONC_MARK_BYTES 4u
#define ONC_LAST       (UINT32_C(1) << 31) /* of a record's mark: its last fragment */

#define ONC_VERSION 2u

enum onc_type { ONC_CALL = 0, ONC_REPLY = 1 };

/* Where calls come from: a connection, or one datagram. */
struct onc_source {
    const struct onc_conf *conf;
    const char *peer_text, *local_text;
    struct addr peer;
};

struct onc_server {
    struct stream_server stream;
    struct onc_conf conf; /* with defaults filled in */
};

struct onc_conn {
    struct stream_conn stream; /* first member */
    struct onc_server *s;
    struct onc_source source;

    /* receiving */
    uint32_t last_bulk; /* bytes of the last call's bulk data */
    uint32_t fragment;  /* bytes of it that are still to come */
    uint32_t record;    /* bytes of this record so far */
    bool last;          /* this fragment ends the record */
    uint8_t *head;      /* the record, without bulk data */

    uint64_t call_count;
    char machine[ONC_MACHINE_MAX + 1]; /* of the last call */
    struct list calls;                 /* in flight */
    struct co_group requests;
    struct co_sem slots, memory;
};

/* A call and what only these files know of it. */
struct onc_request {
    struct onc_call call;
    struct list link;        /* conn->calls */
    struct stream_item item; /* its answer */
    const struct onc_procedure *procedure;
    uint32_t held;   /* memory credits */
    uint8_t *record; /* that call.args points into; NULL: none */
};

/* ---- rpc_conn.c ---- */

void onc_conn_init(struct stream_conn *c);
co_fn void onc_conn_serve(struct stream_conn *c);
void onc_conn_broken(struct stream_conn *c);

/* ---- rpc_record.c ---- */

/* Waits for the next record's first byte. */
co_fn int onc_record_begin(struct onc_conn *c) MUST_CHECK;
/* Bytes of the record, `len` of them unless it ends before. */
co_fn int onc_record_read(struct onc_conn *c, void *dst, uint32_t len, uint32_t *ret) MUST_CHECK;
/* Nothing of it is left, as far as is known: an empty fragment may follow. */
bool onc_record_ended(const struct onc_conn *c);
/* Drops what is left of it. */
co_fn int onc_record_skip(struct onc_conn *c) MUST_CHECK;

/* ---- rpc_header.c ---- */

/* The texts have to stay. */
void onc_source_init(struct onc_source *source, const struct onc_conf *conf, const char *peer,
                     const char *local);
/* Takes xid and type: is it a call? */
bool onc_call_begins(struct onc_call *call, struct xdr_in *in);
/* Takes the rest of the header. False: what is wrong was put as the answer. */
bool onc_header_take(struct onc_call *call, struct xdr_in *in, const struct onc_procedure **ret);
/* Is one the other, sent again? (By the same client.) */
bool onc_call_same(const struct onc_call *a, const struct onc_call *b);
/* Executes it. False: there is to be no answer. */
co_fn bool onc_call_run(struct onc_call *call, const struct onc_procedure *procedure);

/* ---- rpc_call.c ---- */

/* Receives one call and begins it, or answers what is wrong with it. */
co_fn int onc_call_receive(struct onc_conn *c) MUST_CHECK;
void onc_request_free(struct onc_request *q);

/* ---- rpc_reply.c ---- */

/* Puts what a reply begins with; the handler's results follow. */
void onc_reply_begin(struct onc_call *call);
/* Replaces it by an error of the protocol. */
void onc_reply_error(struct onc_call *call, enum onc_accept stat, uint32_t low, uint32_t high);
void onc_reply_auth_error(struct onc_call *call, uint32_t why);
void onc_reply_version_error(struct onc_call *call);
/* Queues it; ends the request. */
void onc_reply_send(struct onc_request *q);
int onc_reply_pieces(struct stream_conn *c, struct stream_item *item, struct iovec *iov);
void onc_reply_sent(struct stream_conn *c, struct stream_item *item);

#endif
