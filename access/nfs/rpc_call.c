/* SPDX-License-Identifier: Apache-2.0
 *
 * ONC RPC: a call from its record to its coroutine. The reader takes a place among the calls in
 * flight and memory for bulk data before it goes on, so a client that asks for too much waits in
 * its socket. */
#include "access/nfs/rpc_int.h"

/* ---- requests ---- */

static struct onc_request *request_new(struct onc_conn *c)
{
    struct onc_request *q = MEM_NEW(struct onc_request);

    q->call.conn = c;
    q->call.source = &c->source;
    xdr_out_init(&q->call.out);
    list_push_back(&c->calls, &q->link);
    return q;
}

void onc_request_free(struct onc_request *q)
{
    struct onc_conn *c = q->call.conn;

    buf_put(q->call.bulk);
    buf_put(q->call.tail);
    xdr_out_fini(&q->call.out);
    mem_free(q->record);
    if (q->held > 0)
        co_sem_release(&c->memory, q->held);
    list_del(&q->link);
    mem_free(q);
    co_sem_release(&c->slots, 1);
}

co_fn int onc_call_reserve(struct onc_call *call, uint32_t bytes)
{
    struct onc_request *q = CONTAINER_OF(call, struct onc_request, call);
    uint32_t credits = ROUND_UP(bytes, BUF_ALIGN);
    int rc;

    ASSERT(call->conn != NULL);
    if (q->held + credits > call->conn->s->conf.memory_bytes)
        return err_set(ERR_TOO_LARGE, "a call that needs %u bytes", credits);
    rc = co_sem_acquire(&call->conn->memory, credits);
    if (rc == 0)
        q->held += credits;
    return rc;
}

/* ---- arguments ---- */

static void keep_args(struct onc_request *q, const uint8_t *args, size_t len)
{
    q->record = mem_alloc(MAX(len, (size_t)1));
    memcpy(q->record, args, len);
    xdr_in_init(&q->call.args, q->record, len);
    q->call.args_start = q->record;
    q->call.args_len = len;
}

/* Both: ERR_INVAL: the record can't be such a call. `have`: bytes of it that are in c->head. */
static co_fn int receive_plain(struct onc_request *q, const uint8_t *args, uint32_t have)
{
    struct onc_conn *c = q->call.conn;
    uint32_t got;
    int rc = onc_record_read(c, c->head + have, ONC_RECORD_BYTES - have, &got);

    c->last_bulk = 0;
    if (rc < 0)
        return rc;
    keep_args(q, args, (size_t)(c->head + have + got - args));
    return onc_record_ended(c) ? 0 : ERR_INVAL;
}

static co_fn int receive_bulk(struct onc_request *q, const struct xdr_in *args)
{
    struct onc_conn *c = q->call.conn;
    struct xdr_in in = *args;
    uint32_t len, have, got;
    int rc;

    q->procedure->bulk(&in);
    len = xdr_u32(&in);
    if (in.bad || len > ONC_BULK_BYTES)
        return ERR_INVAL;
    keep_args(q, args->p, (size_t)(in.p - args->p) - XDR_UNIT);
    c->last_bulk = len;
    if (len == 0)
        return 0;
    rc = onc_call_reserve(&q->call, len);
    if (rc < 0)
        return rc;
    q->call.bulk = buf_alloc(len);
    q->call.bulk_len = len;
    have = (uint32_t)MIN(in.left, (size_t)len);
    memcpy(q->call.bulk->data, in.p, have);
    rc = onc_record_read(c, q->call.bulk->data + have, len - have, &got);
    return rc == 0 && have + got < len ? ERR_INVAL : rc;
}

/* ---- execution ---- */

static co_fn int request_main(void *arg)
{
    struct onc_request *q = arg;

    if (onc_call_run(&q->call, q->procedure) && q->call.conn->stream.broken == NULL)
        onc_reply_send(q);
    else
        onc_request_free(q);
    return 0;
}

/* A call that the client sent again because its answer takes long: the first one's answer is it. */
static bool in_flight_already(const struct onc_request *q)
{
    LIST_FOREACH (other, &q->call.conn->calls, struct onc_request, link) {
        if (other != q && onc_call_same(&other->call, &q->call))
            return true;
    }
    return false;
}

/* ---- from the record on ---- */

/* Receives what is behind xid and type. *ret_good: it is to be executed, otherwise answered. */
static co_fn int receive_rest(struct onc_request *q, struct xdr_in *in, uint32_t have,
                              bool *ret_good)
{
    struct onc_conn *c = q->call.conn;
    int rc = 0;

    *ret_good = onc_header_take(&q->call, in, &q->procedure);
    if (*ret_good)
        rc = q->procedure->bulk != NULL ? receive_bulk(q, in) : receive_plain(q, in->p, have);
    if (rc == ERR_INVAL) {
        *ret_good = false;
        onc_reply_error(&q->call, ONC_GARBAGE_ARGS, 0, 0);
        rc = 0;
    }
    return rc == 0 ? onc_record_skip(c) : rc;
}

co_fn int onc_call_receive(struct onc_conn *c)
{
    struct onc_request *q;
    struct xdr_in in;
    uint32_t have = 0;
    bool good;
    int rc = onc_record_begin(c);

    if (rc == 0)
        rc = onc_record_read(c, c->head, ONC_HEAD_BYTES, &have);
    if (rc == 0)
        rc = co_sem_acquire(&c->slots, 1);
    if (rc < 0)
        return rc;
    q = request_new(c);
    xdr_in_init(&in, c->head, have);
    if (!onc_call_begins(&q->call, &in)) {
        onc_request_free(q);
        return err_set(ERR_PROTO, "a record that is no call");
    }
    rc = receive_rest(q, &in, have, &good);
    c->call_count++;
    if (good && q->call.cred.flavor == ONC_AUTH_SYS)
        memcpy(c->machine, q->call.cred.machine, strlen(q->call.cred.machine) + 1);
    if (rc < 0 || (good && in_flight_already(q)))
        onc_request_free(q);
    else if (!good)
        onc_reply_send(q);
    else
        co_spawn_detached_deadline(&c->requests, "onc-call", request_main, q);
    return rc;
}
