/* SPDX-License-Identifier: Apache-2.0
 *
 * RPC client: calls in flight and the client's life. */
#include <inttypes.h>
#include <string.h>
#include "common/base/assert.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/rpc/client.h"

#define CLIENT_SLOTS_MAX 65536u

struct rpc_client *rpc_client_new(const struct rpc_client_conf *conf)
{
    struct rpc_client *c = MEM_NEW(struct rpc_client);

    ASSERT(strlen(conf->self) < CONN_NAME_MAX);
    ASSERT(conf->cluster_id == NULL || strlen(conf->cluster_id) < CONN_NAME_MAX);
    c->loop = co_loop();
    c->addr = mem_strdup(conf->addr);
    c->self = mem_strdup(conf->self);
    c->cluster_id = mem_strdup(conf->cluster_id != NULL ? conf->cluster_id : "");
    c->instance = conf->instance;
    c->connect_timeout = conf->connect_timeout > 0 ? conf->connect_timeout : NSEC_PER_SEC;
    co_cond_init(&c->changed);
    co_cond_init(&c->users_gone);
    c->unused_slot = CLIENT_SLOT_NONE;
    c->arenas = arena_pool_new();
    co_group_init(&c->group);
    return c;
}

co_fn void rpc_client_close(struct rpc_client *c)
{
    ASSERT(co_loop() == c->loop && !c->closing);
    c->closing = true;
    rpc_client_reset(c);
    co_group_cancel(&c->group);
    co_cond_broadcast(&c->changed);
    while (c->users > 0)
        co_cond_wait_always(&c->users_gone);
    co_group_join(&c->group);
    ASSERT(c->conn == NULL && c->in_flight == 0);
    arena_pool_close(c->arenas);
    mem_free(c->slots);
    mem_free(c->addr);
    mem_free(c->self);
    mem_free(c->cluster_id);
    mem_free(c);
}

void rpc_client_reset(struct rpc_client *c)
{
    if (c->conn != NULL)
        client_conn_break(c->conn, ERR_CLOSED, "connection was reset");
}

bool rpc_client_connected(const struct rpc_client *c)
{
    return c->conn != NULL;
}

uint64_t rpc_client_incarnation(const struct rpc_client *c)
{
    return c->incarnation;
}

const char *rpc_client_addr(const struct rpc_client *c)
{
    return c->addr;
}

uint32_t rpc_client_in_flight(const struct rpc_client *c)
{
    return c->in_flight;
}

/* ---- calls in flight ---- */

static void slots_grow(struct rpc_client *c)
{
    uint32_t n = MAX(2 * c->n_slots, 64u);

    c->slots = mem_realloc(c->slots, n * sizeof(c->slots[0]));
    for (uint32_t i = n; i-- > c->n_slots;) {
        c->slots[i] = (struct client_slot){NULL, 0, c->unused_slot};
        c->unused_slot = i;
    }
    c->n_slots = n;
}

/* Registers a call under a new request id; 0 if there are too many. */
static uint64_t call_begin(struct rpc_client *c, struct client_call *call)
{
    struct client_slot *s;
    uint32_t i;

    if (c->unused_slot == CLIENT_SLOT_NONE) {
        if (c->n_slots >= CLIENT_SLOTS_MAX)
            return 0;
        slots_grow(c);
    }
    i = c->unused_slot;
    s = &c->slots[i];
    c->unused_slot = s->next_unused;
    s->call = call;
    if (++s->generation == 0)
        s->generation = 1;
    c->in_flight++;
    return (uint64_t)s->generation << 32 | i;
}

struct client_call *client_call_find(struct rpc_client *c, uint64_t id)
{
    uint32_t i = (uint32_t)id;

    if (i >= c->n_slots || c->slots[i].generation != id >> 32)
        return NULL;
    return c->slots[i].call;
}

static void call_forget(struct rpc_client *c, uint64_t id)
{
    struct client_slot *s = &c->slots[(uint32_t)id];

    ASSERT(client_call_find(c, id) != NULL);
    s->call = NULL;
    s->next_unused = c->unused_slot;
    c->unused_slot = (uint32_t)id;
    c->in_flight--;
}

void client_call_end(struct rpc_client *c, uint64_t id, int rc)
{
    struct client_call *call = client_call_find(c, id);

    ASSERT(!call->done);
    call_forget(c, id);
    call->done = true;
    call->rc = rc;
    co_resume(&call->wait, 0);
}

/* Waits for a connection with room in its queue. Whatever fails here, nothing was sent. */
static co_fn int call_connection(struct rpc_client *c, struct client_conn **ret)
{
    uint32_t attempts = c->attempts;
    int rc;

    for (;;) {
        if (c->closing)
            return err_set(ERR_UNREACHABLE, "client of %s is being closed", c->addr);
        if (c->conn != NULL && conn_queued_bytes(&c->conn->base) <= CONN_TX_QUEUE_MAX)
            break;
        if (c->conn == NULL) {
            if (c->attempts != attempts)
                return err_set(ERR_UNREACHABLE, "%s", c->connect_text);
            client_connect_start(c);
        }
        rc = co_cond_wait(&c->changed);
        if (rc == ERR_TIMEOUT)
            return err_set(ERR_UNREACHABLE, "%s: no connection within the deadline%s%s", c->addr,
                           c->failures > 0 ? ": " : "", c->failures > 0 ? c->connect_text : "");
        if (rc < 0)
            return err_set(rc, "%s: canceled while connecting", c->addr);
    }
    *ret = c->conn;
    return 0;
}

/* The wait for a call was interrupted by its deadline or a cancel. */
static co_fn int call_give_up(struct rpc_client *c, struct client_call *call, uint64_t id, int rc)
{
    struct co_shield shield;

    if (call->done)
        return call->rc;
    if (!call->receiving) {
        call_forget(c, id);
        return err_set(rc, "%s: %s; the outcome is unknown", c->addr, err_default_text(rc));
    }
    /* The payload is being read into the caller's buffer: it must stay until that has ended, or
     * the connection is broken instead. */
    co_shield_begin(&shield);
    co_deadline_push(co_now() + CLIENT_DRAIN_NS);
    co_wait_init(&call->wait);
    co_suspend(&call->wait, CO_INTERRUPTIBLE);
    if (!call->done) {
        client_conn_break(call->conn, ERR_TIMEOUT, "a payload stalled past its call's deadline");
        co_wait_init(&call->wait);
        co_suspend(&call->wait, CO_UNINTERRUPTIBLE);
    }
    co_shield_end(&shield);
    ASSERT(call->done);
    return call->rc;
}

static co_fn int call_run(struct rpc_client *c, struct client_call *call, struct frame_header *h,
                          const ProtobufCMessage *request, struct rpc_payload *out)
{
    nsec_t deadline = co_deadline();
    int rc;

    rc = call_connection(c, &call->conn);
    if (rc < 0)
        goto err_unsent;
    if (deadline != NSEC_NEVER) {
        nsec_t now = co_now();

        if (deadline <= now) {
            rc = err_set(ERR_UNREACHABLE, "%s: deadline passed before sending", c->addr);
            goto err_unsent;
        }
        h->timeout_us = frame_timeout_us(deadline, now);
    }
    h->id = call_begin(c, call);
    if (h->id == 0) {
        rc = err_set(ERR_BUSY, "%s: more than %u calls in flight", c->addr, CLIENT_SLOTS_MAX);
        goto err_unsent;
    }
    client_lend(call->conn, h, out, call->reply);
    rc = conn_send(&call->conn->base, h, NULL, request, out, 0);
    if (rc < 0) {
        client_lent_end(client_lent_find(call->conn, h->id));
        call_forget(c, h->id);
        return rc == ERR_CLOSED ? ERR_UNREACHABLE : rc;
    }
    rc = co_suspend(&call->wait, CO_INTERRUPTIBLE);
    if (UNLIKELY(rc < 0))
        rc = call_give_up(c, call, h->id, rc);
    else
        rc = call->rc;
    if (rc < 0 && call->done)
        err_set(rc, "%s", call->text);
    return rc;
err_unsent:
    payload_drop(out);
    return rc;
}

co_fn int rpc_call(struct rpc_client *c, const ProtobufCServiceDescriptor *service, uint32_t method,
                   const ProtobufCMessage *request, struct rpc_payload *out, struct rpc_reply *r)
{
    struct client_call call;
    struct frame_header h = {.kind = FRAME_REQUEST, .method = method};
    int rc;

    ASSERT(co_loop() == c->loop && method < service->n_methods);
    ASSERT(request->descriptor == service->methods[method].input);
    ASSERT(r->msg == NULL && r->payload == NULL && r->arena == NULL);
    ASSERT(r->dst == NULL || (uint64_t)r->dst_off + r->dst_cap <= r->dst->cap);
    h.service = frame_service_hash(service);
    co_wait_init(&call.wait);
    call.reply = r;
    call.output = service->methods[method].output;
    call.conn = NULL;
    call.receiving = call.done = false;
    call.rc = 0;
    call.text[0] = '\0';
    r->answered = false;
    c->users++;
    rc = call_run(c, &call, &h, request, out);
    if (--c->users == 0 && c->closing)
        co_cond_broadcast(&c->users_gone);
    return rc;
}
