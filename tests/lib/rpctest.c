/* SPDX-License-Identifier: Apache-2.0
 *
 * Handlers and calls of the RPC test service. */
#include <stdio.h>
#include <string.h>
#include "common/base/assert.h"
#include "common/base/crc32c.h"
#include "tests/lib/rpctest.h"

void rpctest_fill(void *dst, size_t len, uint32_t seed)
{
    uint8_t *p = dst;

    for (size_t i = 0; i < len; i++)
        p[i] = (uint8_t)(seed * 31 + i * 7 + (i >> 8) * 13);
}

bool rpctest_filled(const void *p, size_t len, uint32_t seed)
{
    const uint8_t *b = p;

    for (size_t i = 0; i < len; i++) {
        if (b[i] != (uint8_t)(seed * 31 + i * 7 + (i >> 8) * 13))
            return false;
    }
    return true;
}

/* ---- handlers ---- */

static struct rpctest *handler_begin(struct rpc_request *q)
{
    struct rpctest *t = q->ctx;
    unsigned running = atomic_fetch_add(&t->running, 1) + 1;

    if (running > atomic_load(&t->running_max))
        atomic_store(&t->running_max, running);
    atomic_store(&t->last_loop, co_loop());
    atomic_store(&t->last_session, rpc_session_id(q->session));
    *(uintptr_t *)rpc_session_slot(q->session) += 1;
    return t;
}

static int handler_end(struct rpctest *t, int rc)
{
    atomic_fetch_sub(&t->running, 1);
    return rc;
}

static int handle_echo(struct rpc_request *q)
{
    struct rpctest *t = handler_begin(q);
    const Zbs__Rpctest__EchoRequest *in = (const Zbs__Rpctest__EchoRequest *)q->msg;
    Zbs__Rpctest__EchoReply *out = (Zbs__Rpctest__EchoReply *)q->reply;

    if (t->want_peer)
        snprintf(t->last_peer, sizeof(t->last_peer), "%s", rpc_session_peer(q->session));
    out->number = in->number;
    out->text = rpc_strdup(q, in->text);
    out->n_squares = in->number % 16;
    out->squares = rpc_alloc(q, out->n_squares * sizeof(uint64_t));
    for (size_t i = 0; i < out->n_squares; i++)
        out->squares[i] = i * i;
    if (q->payload != NULL)
        rpc_payload_add(&q->out, q->payload, 0, q->payload_len);
    return handler_end(t, 0);
}

static int handle_sink(struct rpc_request *q)
{
    struct rpctest *t = handler_begin(q);
    Zbs__Rpctest__SinkReply *out = (Zbs__Rpctest__SinkReply *)q->reply;
    struct co_shield shield;

    co_shield_begin(&shield); /* like a device */
    co_sleep(MAX(atomic_load(&t->sink_ms), 1u) * NSEC_PER_MSEC);
    co_shield_end(&shield);
    if (q->payload != NULL && buf_is_foreign(q->payload))
        atomic_fetch_add(&t->in_place, 1);
    out->len = q->payload_len;
    out->crc32c = q->payload != NULL ? crc32c(0, q->payload->data, q->payload_len) : 0;
    return handler_end(t, 0);
}

static int handle_fail(struct rpc_request *q)
{
    struct rpctest *t = handler_begin(q);
    const Zbs__Rpctest__FailRequest *in = (const Zbs__Rpctest__FailRequest *)q->msg;
    Zbs__Rpctest__FailReply *out = (Zbs__Rpctest__FailReply *)q->reply;
    int rc = err_set(in->rc < 0 ? in->rc : ERR_INVAL, "%s", in->text);

    out->detail = rpc_strdup(q, "detail");
    return handler_end(t, in->with_reply ? rpc_fail_with_reply(q, rc) : rc);
}

static int handle_sleep(struct rpc_request *q)
{
    struct rpctest *t = handler_begin(q);
    const Zbs__Rpctest__SleepRequest *in = (const Zbs__Rpctest__SleepRequest *)q->msg;
    Zbs__Rpctest__SleepReply *out = (Zbs__Rpctest__SleepReply *)q->reply;
    nsec_t span = (nsec_t)(in->usec % (100000 * 1000000ull)) * NSEC_PER_USEC;
    struct co_shield shield;
    int rc;

    if (co_deadline() != NSEC_NEVER)
        out->deadline_usec = (uint64_t)((co_deadline() - co_now()) / NSEC_PER_USEC);
    if (in->uninterruptible)
        co_shield_begin(&shield);
    rc = co_sleep(span);
    if (in->uninterruptible)
        co_shield_end(&shield);
    if (rc == ERR_CANCELED)
        atomic_fetch_add(&t->canceled, 1);
    return handler_end(t, rc < 0 ? err_set(rc, "sleep ended early") : 0);
}

static int handle_source(struct rpc_request *q)
{
    struct rpctest *t = handler_begin(q);
    const Zbs__Rpctest__SourceRequest *in = (const Zbs__Rpctest__SourceRequest *)q->msg;
    uint32_t slices = MIN(MAX(in->slices, 1u), RPC_SLICES_MAX), part, off;
    struct buf *buf;

    if (in->len > RPC_PAYLOAD_MAX)
        return handler_end(t, err_set(ERR_TOO_LARGE, "source of %u bytes", in->len));
    /* In place if in one piece, else from elsewhere. */
    if (q->room != NULL && slices == 1 && in->len <= q->room_len) {
        buf = buf_get(q->room);
        atomic_fetch_add(&t->in_place, 1);
    } else {
        buf = buf_alloc(MAX(in->len, 1u));
    }
    rpctest_fill(buf->data, in->len, in->seed);
    part = DIV_UP(in->len, slices);
    for (off = 0; off < in->len; off += part)
        rpc_payload_add(&q->out, buf, off, MIN(part, in->len - off));
    buf_put(buf);
    return handler_end(t, 0);
}

static const struct rpc_method methods[] = {
    [RPCTEST_ECHO] = {.handler = handle_echo, .payload_max = RPC_PAYLOAD_MAX},
    [RPCTEST_SINK] = {.handler = handle_sink,
                      .payload_max = 1024 * 1024,
                      .payload_shared_min = 65536},
    [RPCTEST_FAIL] = {.handler = handle_fail},
    [RPCTEST_SLEEP] = {.handler = handle_sleep, .cancel_on_disconnect = true},
    [RPCTEST_SOURCE] = {.handler = handle_source},
    [RPCTEST_MISSING] = {.handler = NULL},
};

void rpctest_init(struct rpctest *t)
{
    memset(t, 0, sizeof(*t));
    ASSERT(zbs__rpctest__test__descriptor.n_methods == ARRAY_SIZE(methods));
    t->services[0] = (struct rpc_service){&zbs__rpctest__test__descriptor, methods, t};
    for (size_t i = 0; i < ARRAY_SIZE(t->table); i++)
        t->table[i] = t->services;
}

void rpctest_on_disconnect(void *ctx, struct rpc_session *s)
{
    struct rpctest *t = ctx;

    ASSERT(rpc_session_id(s) != 0);
    atomic_fetch_add(&t->disconnects, 1);
}

/* ---- calls ---- */

static co_fn int call(struct rpc_client *c, enum rpctest_method m, const ProtobufCMessage *msg,
                      struct rpc_payload *out, struct rpc_reply *r)
{
    return rpc_call(c, &zbs__rpctest__test__descriptor, (uint32_t)m, msg, out, r);
}

co_fn int rpctest_echo(struct rpc_client *c, uint64_t number, const char *text,
                       struct rpc_payload *out, struct rpc_reply *r)
{
    Zbs__Rpctest__EchoRequest q = ZBS__RPCTEST__ECHO_REQUEST__INIT;

    rpc_reply_init(r);
    q.number = number;
    q.text = (char *)text;
    return call(c, RPCTEST_ECHO, &q.base, out, r);
}

co_fn int rpctest_sleep(struct rpc_client *c, nsec_t span, struct rpc_reply *r)
{
    Zbs__Rpctest__SleepRequest q = ZBS__RPCTEST__SLEEP_REQUEST__INIT;

    rpc_reply_init(r);
    q.usec = (uint64_t)(span / NSEC_PER_USEC);
    return call(c, RPCTEST_SLEEP, &q.base, NULL, r);
}

co_fn int rpctest_source(struct rpc_client *c, uint32_t len, uint32_t slices, uint32_t seed,
                         struct rpc_reply *r)
{
    Zbs__Rpctest__SourceRequest q = ZBS__RPCTEST__SOURCE_REQUEST__INIT;

    q.len = len;
    q.slices = slices;
    q.seed = seed;
    return call(c, RPCTEST_SOURCE, &q.base, NULL, r);
}

co_fn int rpctest_sink(struct rpc_client *c, struct rpc_payload *out, struct rpc_reply *r)
{
    Zbs__Rpctest__SinkRequest q = ZBS__RPCTEST__SINK_REQUEST__INIT;

    rpc_reply_init(r);
    return call(c, RPCTEST_SINK, &q.base, out, r);
}

co_fn int rpctest_fail(struct rpc_client *c, int rc, const char *text, bool with_reply,
                       struct rpc_reply *r)
{
    Zbs__Rpctest__FailRequest q = ZBS__RPCTEST__FAIL_REQUEST__INIT;

    rpc_reply_init(r);
    q.rc = rc;
    q.text = (char *)text;
    q.with_reply = with_reply;
    return call(c, RPCTEST_FAIL, &q.base, NULL, r);
}
