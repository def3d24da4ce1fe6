/* SPDX-License-Identifier: Apache-2.0
 *
 * ONC RPC: answers. A call is freed (with its memory and its place among those in flight) once its
 * answer has left. */
#include "access/nfs/rpc_int.h"

enum { MSG_ACCEPTED = 0, MSG_DENIED = 1 };
enum { RPC_MISMATCH = 0, AUTH_ERROR = 1 };

static const uint8_t padding[XDR_UNIT];

/* ---- headers ---- */

static void begin(struct onc_call *call, uint32_t reply_stat)
{
    buf_put(call->tail);
    call->tail = NULL;
    call->tail_len = 0;
    xdr_cut(&call->out, 0);
    xdr_put_u32(&call->out, 0); /* the record's mark, when the length is known */
    xdr_put_u32(&call->out, call->xid);
    xdr_put_u32(&call->out, ONC_REPLY);
    xdr_put_u32(&call->out, reply_stat);
}

static void accepted(struct onc_call *call, enum onc_accept stat)
{
    begin(call, MSG_ACCEPTED);
    xdr_put_u32(&call->out, ONC_AUTH_NONE); /* verifier */
    xdr_put_u32(&call->out, 0);
    xdr_put_u32(&call->out, stat);
}

void onc_reply_begin(struct onc_call *call)
{
    accepted(call, ONC_SUCCESS);
}

void onc_reply_error(struct onc_call *call, enum onc_accept stat, uint32_t low, uint32_t high)
{
    accepted(call, stat);
    if (stat == ONC_PROG_MISMATCH) {
        xdr_put_u32(&call->out, low);
        xdr_put_u32(&call->out, high);
    }
}

void onc_reply_auth_error(struct onc_call *call, uint32_t why)
{
    begin(call, MSG_DENIED);
    xdr_put_u32(&call->out, AUTH_ERROR);
    xdr_put_u32(&call->out, why);
}

void onc_reply_version_error(struct onc_call *call)
{
    begin(call, MSG_DENIED);
    xdr_put_u32(&call->out, RPC_MISMATCH);
    xdr_put_u32(&call->out, ONC_VERSION); /* lowest and highest */
    xdr_put_u32(&call->out, ONC_VERSION);
}

/* ---- sending ---- */

void onc_reply_send(struct onc_request *q)
{
    struct onc_call *call = &q->call;
    size_t len = call->out.len - ONC_MARK_BYTES + XDR_PADDED(call->tail_len);

    ASSERT(len < ONC_LAST);
    xdr_set_u32(&call->out, 0, ONC_LAST | (uint32_t)len);
    stream_queue(&call->conn->stream, &q->item);
}

int onc_reply_pieces(struct stream_conn *stream, struct stream_item *item, struct iovec *iov)
{
    const struct onc_call *call = &CONTAINER_OF(item, struct onc_request, item)->call;
    size_t pad = XDR_PADDED(call->tail_len) - call->tail_len;
    int n = 0;

    (void)stream;
    iov[n++] = (struct iovec){call->out.data, call->out.len};
    if (call->tail_len > 0)
        iov[n++] = (struct iovec){call->tail->data + call->tail_off, call->tail_len};
    if (pad > 0)
        iov[n++] = (struct iovec){(void *)(uintptr_t)padding, pad};
    return n;
}

void onc_reply_sent(struct stream_conn *stream, struct stream_item *item)
{
    (void)stream;
    onc_request_free(CONTAINER_OF(item, struct onc_request, item));
}
