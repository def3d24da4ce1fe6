/* SPDX-License-Identifier: Apache-2.0
 *
 * ONC RPC: answers and the writer. A call is freed (with its memory and its place among those in
 * flight) once its answer has left: a client that does not read its answers stops itself. */
#include "access/nfs/rpc_int.h"

#define TX_IOVS 96 /* of one writev */

enum { MSG_REPLY = 1 };
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
    xdr_put_u32(&call->out, MSG_REPLY);
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
    xdr_put_u32(&call->out, 2); /* lowest and highest version */
    xdr_put_u32(&call->out, 2);
}

/* ---- sending ---- */

void onc_reply_send(struct onc_request *q)
{
    struct onc_call *call = &q->call;
    struct onc_conn *c = call->conn;
    size_t len = call->out.len - ONC_MARK_BYTES + XDR_PADDED(call->tail_len);

    if (c->tx_ended) {
        onc_request_free(q);
        return;
    }
    ASSERT(len < ONC_LAST);
    xdr_set_u32(&call->out, 0, ONC_LAST | (uint32_t)len);
    list_push_back(&c->tx, &q->tx);
    co_cond_signal(&c->tx_wake);
}

static int reply_iovs(const struct onc_call *call, struct iovec *iov)
{
    size_t pad = XDR_PADDED(call->tail_len) - call->tail_len;
    int n = 0;

    iov[n++] = (struct iovec){call->out.data, call->out.len};
    if (call->tail_len > 0)
        iov[n++] = (struct iovec){call->tail->data + call->tail_off, call->tail_len};
    if (pad > 0)
        iov[n++] = (struct iovec){(void *)(uintptr_t)padding, pad};
    return n;
}

static struct onc_request *tx_pop(struct list *queue)
{
    return LIST_ENTRY(list_pop_front(queue), struct onc_request, tx);
}

/* As much of the queue as one writev takes. */
static co_fn int send_some(struct onc_conn *c)
{
    struct iovec iov[TX_IOVS];
    struct list out;
    int n = 0, rc;

    list_init(&out);
    while (!list_empty(&c->tx) && n + 3 <= TX_IOVS) {
        struct onc_request *q = tx_pop(&c->tx);

        n += reply_iovs(&q->call, iov + n);
        list_push_back(&out, &q->tx);
    }
    rc = net_writev_full(c->net, iov, n);
    while (!list_empty(&out))
        onc_request_free(tx_pop(&out));
    return rc;
}

co_fn int onc_writer_main(void *arg)
{
    struct onc_conn *c = arg;
    int rc = 0;

    while (rc == 0) {
        if (!list_empty(&c->tx)) {
            rc = send_some(c);
        } else if (c->tx_closing) {
            break;
        } else {
            rc = co_cond_wait(&c->tx_wake);
        }
    }
    c->tx_ended = true;
    while (!list_empty(&c->tx))
        onc_request_free(tx_pop(&c->tx));
    co_cond_broadcast(&c->tx_done);
    if (rc < 0)
        onc_conn_break(c, "the client takes no answers");
    return 0;
}
