/* SPDX-License-Identifier: Apache-2.0
 *
 * One connection of an RPC server, on the loop of its instance: admits requests, runs each in a
 * coroutine of its own, and sends the replies in the order in which they are ready. */
#include <inttypes.h>
#include <string.h>
#include "common/base/assert.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/rpc/server.h"

struct request {
    struct rpc_request q; /* first: handlers know only this */
    struct rpc_session *session;
    struct list link; /* session->requests */
    struct co *co;
    const struct rpc_method *method;
    uint64_t id;
    nsec_t deadline;
    uint64_t charged_bytes; /* of session->admitted_bytes */
};

/* ---- for handlers ---- */

void *rpc_alloc(struct rpc_request *q, size_t bytes)
{
    void *p = arena_alloc(q->arena, bytes);

    ASSERT(p != NULL); /* no limit any more once the handler runs */
    return memset(p, 0, bytes);
}

char *rpc_strdup(struct rpc_request *q, const char *s)
{
    size_t len = strlen(s);
    char *copy = arena_alloc(q->arena, len + 1);

    ASSERT(copy != NULL);
    return memcpy(copy, s, len + 1);
}

int rpc_fail_with_reply(struct rpc_request *q, int rc)
{
    ASSERT(rc < 0);
    q->reply_on_error = true;
    return rc;
}

const char *rpc_session_peer(const struct rpc_session *s)
{
    return s->peer;
}

void **rpc_session_slot(struct rpc_session *s)
{
    return &s->slot;
}

uint64_t rpc_session_id(const struct rpc_session *s)
{
    return s->id;
}

/* ---- replies ---- */

static void session_on_sent(struct rpc_conn *base, uint32_t frames, uint64_t bytes)
{
    struct rpc_session *s = CONTAINER_OF(base, struct rpc_session, conn);

    ASSERT(s->in_flight >= frames && s->admitted_bytes >= bytes);
    s->in_flight -= frames;
    s->admitted_bytes -= bytes;
    if (!list_empty(&s->room.waiters))
        co_cond_broadcast(&s->room);
}

/* Queues an error without a message and gives the admission back when it has left. */
static void reply_error(struct rpc_session *s, uint64_t id, int rc, uint64_t charged_bytes)
{
    struct frame_header h = {.kind = FRAME_REPLY, .id = id, .status = rc};
    const char *text = err_text(rc);

    h.text_len = (uint32_t)MIN(strlen(text), FRAME_TEXT_MAX);
    if (conn_send(&s->conn, &h, text, NULL, NULL, charged_bytes) < 0)
        session_on_sent(&s->conn, 1, charged_bytes);
}

/* A handler that keeps what was only lent would see it change, or vanish. */
static void lent_put(struct buf *b)
{
    ASSERT(b == NULL || !buf_is_foreign(b) || atomic_load(&b->refs) == 1);
    buf_put(b);
}

static void reply_send(struct request *req, int rc)
{
    struct rpc_session *s = req->session;
    struct frame_header h = {.kind = FRAME_REPLY, .id = req->id, .status = rc};
    const char *text = NULL;
    int sent;

    if (rc < 0) {
        text = err_text(rc);
        h.text_len = (uint32_t)MIN(strlen(text), FRAME_TEXT_MAX);
        h.flags = FRAME_F_MESSAGE;
    }
    if (req->q.room != NULL && req->q.out.len > 0 && req->q.out.len <= req->q.room_len) {
        h.flags |= FRAME_F_SLOT;
        h.payload_len = req->q.out.len;
        slot_fill(req->q.room, &req->q.out);
    }
    sent = conn_send(&s->conn, &h, text, req->q.reply, &req->q.out, req->charged_bytes);
    if (sent == ERR_TOO_LARGE)
        reply_error(s, req->id, sent, req->charged_bytes);
    else if (sent < 0)
        session_on_sent(&s->conn, 1, req->charged_bytes);
}

static co_fn int handler_main(void *arg)
{
    struct request *req = arg;
    int rc;

    if (req->deadline != NSEC_NEVER)
        co_deadline_push(req->deadline);
    rc = req->method->handler(&req->q);
    ASSERT(rc <= 0);
    if (rc == 0 || req->q.reply_on_error) {
        reply_send(req, rc);
    } else {
        payload_drop(&req->q.out);
        reply_error(req->session, req->id, rc, req->charged_bytes);
    }
    list_del(&req->link);
    lent_put(req->q.payload);
    lent_put(req->q.room);
    arena_free(req->q.arena);
    return 0;
}

/* ---- requests ---- */

/* Waits until a request with such a payload is admitted. One is always admitted. */
static co_fn int session_admit(struct rpc_session *s, uint32_t payload_len)
{
    const struct rpc_limits *l = &s->server->limits;

    while (s->in_flight >= l->in_flight ||
           (s->in_flight > 0 && s->admitted_bytes + payload_len > l->payload_bytes)) {
        int rc = co_cond_wait(&s->room);

        if (rc < 0)
            return rc;
        if (s->conn.broken)
            return err_set(ERR_CLOSED, "%s", s->conn.broken_text);
    }
    s->in_flight++;
    return 0;
}

static const struct rpc_service *service_find(const struct server_instance *inst, uint32_t hash)
{
    for (uint32_t i = 0; i < inst->n_services; i++) {
        if (inst->services[i].hash == hash)
            return inst->services[i].service;
    }
    return NULL;
}

static int request_check(const struct rpc_service *service, const struct frame_header *h)
{
    const struct rpc_method *m;

    if (service == NULL)
        return err_set(ERR_UNSUPPORTED, "no service 0x%08" PRIx32 " here", h->service);
    if (h->method >= service->descriptor->n_methods || service->methods[h->method].handler == NULL)
        return err_set(ERR_UNSUPPORTED, "%s has no method %u here", service->descriptor->name,
                       h->method);
    m = &service->methods[h->method];
    if (h->payload_len > m->payload_max)
        return err_set(ERR_TOO_LARGE, "%s takes payloads of at most %u bytes, not %u",
                       service->descriptor->methods[h->method].name, m->payload_max,
                       h->payload_len);
    return 0;
}

/* Makes the request in an arena of its own; the arena is freed on failure. */
static int request_new(struct rpc_session *s, const struct rpc_service *service,
                       const struct frame_header *h, const uint8_t *area, struct request **ret)
{
    const ProtobufCMethodDescriptor *d = &service->descriptor->methods[h->method];
    struct arena *a = arena_new(s->instance->arenas, arena_unpack_limit(h->area_len));
    struct request *req = arena_alloc(a, sizeof(*req));
    ProtobufCMessage *msg;
    int rc;

    ASSERT(req != NULL);
    msg = protobuf_c_message_unpack(d->input, arena_allocator(a), h->area_len, area);
    if (msg == NULL) {
        rc = arena_exhausted(a) ? ERR_TOO_LARGE : ERR_PROTO;
        arena_free(a);
        return err_set(rc, "request of %u bytes cannot be decoded as %s", h->area_len,
                       d->input->name);
    }
    req->session = s;
    list_init(&req->link);
    req->co = NULL;
    req->method = &service->methods[h->method];
    req->id = h->id;
    req->deadline = h->timeout_us != 0 ? co_now() + h->timeout_us * NSEC_PER_USEC : NSEC_NEVER;
    req->charged_bytes = h->payload_len + arena_bytes(a) - ARENA_FIRST_BYTES;
    arena_set_limit(a, SIZE_MAX / 2);
    req->q.ctx = service->ctx;
    req->q.session = s;
    req->q.msg = msg;
    req->q.payload = NULL;
    req->q.payload_len = h->payload_len;
    req->q.reply = arena_alloc(a, d->output->sizeof_message);
    protobuf_c_message_init(d->output, req->q.reply);
    req->q.out.count = req->q.out.len = 0;
    req->q.room = slot_room(&s->conn, h);
    req->q.room_len = h->reply_cap;
    req->q.arena = a;
    req->q.reply_on_error = false;
    *ret = req;
    return 0;
}

static co_fn int request_payload(struct rpc_session *s, struct request *req,
                                 const struct frame_header *h)
{
    if (h->payload_len == 0)
        return 0;
    if (h->flags & FRAME_F_SLOT) {
        req->q.payload = slot_payload(&s->conn, h, req->method->payload_shared_min);
        return 0;
    }
    req->q.payload = buf_alloc(h->payload_len);
    return conn_recv_payload(&s->conn, req->q.payload->data, h->payload_len);
}

/* Receives one request and starts its handler. An error ends the connection. */
static co_fn int session_receive_one(struct rpc_session *s)
{
    const struct rpc_service *service;
    struct frame_header h;
    struct request *req = NULL;
    const uint8_t *area;
    void *tmp;
    int rc, bad;

    rc = conn_recv_header(&s->conn, &h);
    if (rc < 0)
        return rc;
    if (h.kind != FRAME_REQUEST)
        return err_set(ERR_PROTO, "frame of kind %u from a client", h.kind);
    rc = slot_check(&s->conn, &h);
    if (rc < 0)
        return rc;
    rc = session_admit(s, h.payload_len);
    if (rc < 0)
        return rc;
    rc = conn_recv_area(&s->conn, &h, &area, &tmp);
    if (rc < 0)
        goto err_admitted;
    service = service_find(s->instance, h.service);
    bad = request_check(service, &h);
    if (bad == 0)
        bad = request_new(s, service, &h, area, &req);
    mem_free(tmp);
    if (bad < 0) {
        reply_error(s, h.id, bad, 0);
        return conn_skip(&s->conn, h.flags & FRAME_F_SLOT ? 0 : h.payload_len);
    }
    s->admitted_bytes += req->charged_bytes;
    rc = request_payload(s, req, &h);
    if (rc < 0)
        goto err_request;
    list_push_back(&s->requests, &req->link);
    req->co = co_spawn(&s->group, "rpc-handler", handler_main, req);
    return 0;
err_request:
    s->admitted_bytes -= req->charged_bytes;
    buf_put(req->q.payload);
    buf_put(req->q.room);
    arena_free(req->q.arena);
err_admitted:
    s->in_flight--;
    ASSERT(rc < 0);
    return rc;
}

static co_fn int session_sender(void *arg)
{
    struct rpc_session *s = arg;

    conn_sender_run(&s->conn);
    /* The receiver may be waiting for room that nobody will make any more. */
    co_cond_broadcast(&s->room);
    return 0;
}

static void session_log_end(struct rpc_session *s, int rc)
{
    bool clean = rc == ERR_CLOSED || rc == ERR_CANCELED;

    if (clean)
        log_debug("rpc.closed", "peer=%s reason=\"%s\"", s->peer, err_text(rc));
    else if (conn_log_allowed(&s->instance->log_gate))
        log_warn("rpc.dropped", "peer=%s code=%s reason=\"%s\"", s->peer, err_name(rc),
                 err_text(rc));
}

void session_stop(struct rpc_session *s)
{
    conn_break(&s->conn, ERR_HALTED, "server is stopping");
    co_group_cancel(&s->group);
    co_cond_broadcast(&s->room);
}

co_fn void session_serve(struct rpc_session *s)
{
    int rc;

    co_group_init(&s->group);
    list_init(&s->requests);
    co_cond_init(&s->room);
    s->conn.on_sent = session_on_sent;
    if (s->instance->arenas == NULL)
        s->instance->arenas = arena_pool_new();
    list_push_back(&s->instance->sessions, &s->link);
    co_spawn_detached_deadline(&s->group, "rpc-send", session_sender, s);
    do
        rc = session_receive_one(s);
    while (rc == 0);
    session_log_end(s, rc);
    conn_break(&s->conn, rc, err_text(rc));
    LIST_FOREACH (req, &s->requests, struct request, link) {
        if (req->method->cancel_on_disconnect)
            co_cancel(req->co);
    }
    co_group_join(&s->group);
    ASSERT(s->in_flight == 0 && s->admitted_bytes == 0 && list_empty(&s->requests));
    if (s->server->on_disconnect != NULL)
        s->server->on_disconnect(s->server->on_disconnect_ctx, s);
    list_del(&s->link);
}
