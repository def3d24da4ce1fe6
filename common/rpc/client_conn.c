/* SPDX-License-Identifier: Apache-2.0
 *
 * One connection of an RPC client: connecting with backoff, hello, receiving replies, breaking. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "common/base/assert.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/rpc/client.h"

#define CLIENT_BACKOFF_FIRST_NS (10 * NSEC_PER_MSEC)
#define CLIENT_BACKOFF_MAX_NS   (200 * NSEC_PER_MSEC)
#define CLIENT_LOG_PAUSE_NS     (10 * NSEC_PER_SEC)
#define CLIENT_LOG_PAUSE_MAX_NS (320 * NSEC_PER_SEC)

/* At once after the first failure, then 10, 20, … 200 ms, a quarter more or less. */
static void client_failed(struct rpc_client *c)
{
    nsec_t delay;

    c->failures++;
    if (c->failures <= 1) {
        c->retry_at = 0;
        return;
    }
    delay = c->failures < 8 ? CLIENT_BACKOFF_FIRST_NS << (c->failures - 2) : CLIENT_BACKOFF_MAX_NS;
    delay = MIN(delay, CLIENT_BACKOFF_MAX_NS);
    delay += (nsec_t)(env_random() % (uint64_t)(delay / 2)) - delay / 4;
    c->retry_at = co_now() + MIN(delay, CLIENT_BACKOFF_MAX_NS);
}

/* The first failure is logged, then one line every 10, 20, 40 … 320 s for as long as it lasts. A
 * peer that answers and breaks off in turns gets a pair of lines every 10 s at most. */
static void client_log_trouble(struct rpc_client *c, const char *event, const char *why)
{
    nsec_t now = co_now();

    if (c->closing)
        return;
    if (c->trouble_pause != 0 && now - c->trouble_logged_at < c->trouble_pause) {
        c->trouble_quiet++;
        return;
    }
    c->trouble_pause =
        c->in_trouble ? MIN(2 * c->trouble_pause, CLIENT_LOG_PAUSE_MAX_NS) : CLIENT_LOG_PAUSE_NS;
    log_info(event, "peer=%s more=%u reason=\"%s\"", c->addr, c->trouble_quiet, why);
    c->in_trouble = true;
    c->trouble_logged_at = now;
    c->trouble_quiet = 0;
}

static void client_log_answer(struct rpc_client *c)
{
    if (!c->in_trouble)
        return;
    c->in_trouble = false;
    c->trouble_pause = CLIENT_LOG_PAUSE_NS;
    log_info("rpc.reachable", "peer=%s failures=%u", c->addr, c->trouble_quiet + 1);
    c->trouble_quiet = 0;
}

void client_conn_break(struct client_conn *cc, int rc, const char *text)
{
    struct rpc_client *c = cc->client;

    if (c->conn != cc)
        return; /* broken before */
    conn_break(&cc->base, rc, text);
    c->conn = NULL;
    if (!cc->answered) {
        client_failed(c);
        c->share_failed = (cc->base.features & FRAME_FEATURE_SHM) != 0; /* perhaps for that */
    }
    snprintf(c->connect_text, sizeof(c->connect_text), "%s: %.200s", c->addr, cc->base.broken_text);
    client_log_trouble(c, "rpc.broken", cc->base.broken_text);
    for (uint32_t i = 0; i < c->n_slots; i++) {
        struct client_call *call = c->slots[i].call;

        if (call == NULL || call->conn != cc || call->receiving)
            continue;
        snprintf(call->text, sizeof(call->text), "%s: %.200s", c->addr, cc->base.broken_text);
        client_call_end(c, (uint64_t)c->slots[i].generation << 32 | i, ERR_CLOSED);
    }
    co_cond_broadcast(&c->changed);
}

static co_fn void client_conn_put(struct client_conn *cc)
{
    ASSERT(cc->tasks > 0);
    if (--cc->tasks > 0)
        return;
    client_lent_settle(cc);
    conn_fini(&cc->base);
    mem_free(cc);
}

/* ---- receiving ---- */

/* A reply on its way to its call. The call may end while the payload is being received. */
struct incoming {
    struct frame_header h;
    int rc;
    struct arena *arena;
    ProtobufCMessage *msg;
    struct buf *payload;
};

/* Unpacks the message area for a call that waits for it. What is wrong with the contents fails
 * the call and not the connection, whose framing is sound. */
static void incoming_unpack(struct rpc_client *c, struct incoming *in, struct client_call *call,
                            const uint8_t *area)
{
    uint32_t len = in->h.area_len - in->h.text_len;

    in->rc = in->h.status;
    if (in->h.text_len > 0)
        conn_text_copy(call->text, sizeof(call->text), area, in->h.text_len);
    else if (in->rc < 0)
        snprintf(call->text, sizeof(call->text), "%s", err_default_text(in->rc));
    if (in->rc < 0 && !(in->h.flags & FRAME_F_MESSAGE))
        return;
    in->arena = arena_new(c->arenas, arena_unpack_limit(len));
    in->msg = protobuf_c_message_unpack(call->output, arena_allocator(in->arena), len,
                                        area + in->h.text_len);
    if (in->msg != NULL)
        return;
    in->rc = arena_exhausted(in->arena) ? ERR_TOO_LARGE : ERR_PROTO;
    snprintf(call->text, sizeof(call->text), "%s: reply of %u bytes cannot be decoded as %s",
             c->addr, len, call->output->name);
    arena_free(in->arena);
    in->arena = NULL;
}

/* The payload is in the room that we lent. The caller gets that, or a copy where he asked for it:
 * his own memory was never lent. */
static int incoming_slot(struct client_conn *cc, struct incoming *in, struct client_call *call,
                         struct client_lent *lent)
{
    uint32_t len = in->h.payload_len;
    struct rpc_reply *r;

    if (lent == NULL || lent->in == NULL || len > lent->in_cap)
        return err_set(ERR_PROTO, "%s: a payload of %u bytes in a slot that is not",
                       cc->client->addr, len);
    if (call == NULL || (in->rc < 0 && in->msg == NULL))
        return 0;
    r = call->reply;
    in->payload = buf_get(r->dst != NULL ? r->dst : lent->in);
    if (r->dst != NULL)
        memcpy(r->dst->data + r->dst_off, lent->in->data, len);
    return 0;
}

/* Receives the payload: into the caller's buffer, into a new one, or nowhere. */
static co_fn int incoming_payload(struct client_conn *cc, struct incoming *in,
                                  struct client_call *call)
{
    struct rpc_client *c = cc->client;
    uint32_t len = in->h.payload_len;
    struct rpc_reply *r;
    int rc;

    if (call == NULL || (in->rc < 0 && in->msg == NULL))
        return conn_skip(&cc->base, len);
    r = call->reply;
    if (r->dst == NULL) {
        in->payload = buf_alloc(len);
        return conn_recv_payload(&cc->base, in->payload->data, len);
    }
    if (len > r->dst_cap) {
        in->rc = ERR_TOO_LARGE;
        snprintf(call->text, sizeof(call->text), "%s: payload of %u bytes for a buffer of %u",
                 c->addr, len, r->dst_cap);
        return conn_skip(&cc->base, len);
    }
    in->payload = buf_get(r->dst);
    call->receiving = true;
    rc = conn_recv_payload(&cc->base, r->dst->data + r->dst_off, len);
    call->receiving = false;
    if (rc < 0)
        snprintf(call->text, sizeof(call->text), "%s: connection broke within the payload",
                 c->addr);
    return rc;
}

static void incoming_deliver(struct client_conn *cc, struct incoming *in)
{
    struct client_call *call = client_call_find(cc->client, in->h.id);
    struct rpc_reply *r;

    if (call == NULL) {
        arena_free(in->arena);
        buf_put(in->payload);
        return;
    }
    r = call->reply;
    r->arena = in->arena;
    r->msg = in->msg;
    r->payload = in->payload;
    r->payload_off = in->payload != NULL && in->payload == r->dst ? r->dst_off : 0;
    r->payload_len = in->payload != NULL ? in->h.payload_len : 0;
    r->incarnation = cc->incarnation;
    r->answered = true;
    client_call_end(cc->client, in->h.id, in->rc);
}

static co_fn int receive_one(struct client_conn *cc)
{
    struct incoming in = {.rc = 0};
    struct client_call *call;
    struct client_lent *lent;
    const uint8_t *area;
    void *tmp;
    int rc;

    rc = conn_recv_header(&cc->base, &in.h);
    if (rc < 0)
        return rc;
    if (in.h.kind != FRAME_REPLY)
        return err_set(ERR_PROTO, "frame of kind %u from a server", in.h.kind);
    rc = conn_recv_area(&cc->base, &in.h, &area, &tmp);
    if (rc < 0)
        return rc;
    call = client_call_find(cc->client, in.h.id);
    if (call != NULL && call->conn != cc)
        call = NULL;
    if (call == NULL)
        in.rc = ERR_CANCELED; /* a late reply */
    else
        incoming_unpack(cc->client, &in, call, area);
    mem_free(tmp);
    lent = client_lent_find(cc, in.h.id);
    if (in.h.flags & FRAME_F_SLOT)
        rc = incoming_slot(cc, &in, call, lent);
    else if (in.h.payload_len > 0)
        rc = incoming_payload(cc, &in, call);
    if (rc == 0)
        client_lent_end(lent);
    if (!cc->answered) {
        cc->answered = true;
        cc->client->failures = 0;
        cc->client->share_failed = false;
        client_log_answer(cc->client);
    }
    if (rc < 0) {
        /* Only a call that is receiving can still be there when the connection was broken. */
        buf_put(in.payload);
        arena_free(in.arena);
        if (client_call_find(cc->client, in.h.id) == call && call != NULL) {
            if (call->text[0] == '\0')
                snprintf(call->text, sizeof(call->text), "%s: connection broke", cc->client->addr);
            client_call_end(cc->client, in.h.id, ERR_CLOSED);
        }
        return rc;
    }
    incoming_deliver(cc, &in);
    return 0;
}

static co_fn int receiver_main(void *arg)
{
    struct client_conn *cc = arg;
    int rc;

    do
        rc = receive_one(cc);
    while (rc == 0);
    client_conn_break(cc, rc, err_text(rc));
    client_conn_put(cc);
    return 0;
}

static co_fn int sender_main(void *arg)
{
    struct client_conn *cc = arg;

    conn_sender_run(&cc->base);
    /* If writing failed first: the reason is noted in the connection. */
    if (cc->client->conn == cc)
        client_conn_break(cc, cc->base.broken_rc, cc->base.broken_text);
    client_conn_put(cc);
    return 0;
}

/* ---- connecting ---- */

static void client_on_sent(struct rpc_conn *base, uint32_t frames UNUSED, uint64_t bytes UNUSED)
{
    struct client_conn *cc = CONTAINER_OF(base, struct client_conn, base);

    if (!list_empty(&cc->client->changed.waiters))
        co_cond_broadcast(&cc->client->changed);
}

static co_fn int client_hello(struct rpc_client *c, struct client_conn *cc)
{
    struct conn_hello ours = {
        .version_min = FRAME_VERSION_MIN,
        .version_max = FRAME_VERSION_MAX,
        .features = conn_features(&cc->base) & ~(c->share_failed ? FRAME_FEATURES_SHARING : 0) &
                    ~(buf_arena() == NULL ? FRAME_FEATURE_SLOTS : 0),
        .instance = c->instance,
    };
    struct conn_hello theirs = {.status = 0};
    int rc;

    strcpy(ours.cluster_id, c->cluster_id);
    strcpy(ours.self, c->self);
    rc = conn_hello_send(&cc->base, &ours, 0);
    if (rc == 0)
        rc = conn_hello_recv(&cc->base, &theirs);
    if (rc < 0)
        return err_prefix(rc, "%s: hello", c->addr);
    if (theirs.status < 0)
        return err_set(theirs.status, "%s refused: %s", c->addr, theirs.text);
    if (theirs.version_max != theirs.version_min || theirs.version_min < FRAME_VERSION_MIN ||
        theirs.version_max > FRAME_VERSION_MAX || (theirs.features & ~ours.features))
        return err_set(ERR_VERSION, "%s chose version %u, features 0x%" PRIx64, c->addr,
                       theirs.version_max, theirs.features);
    if (conn_hello_foreign(c->cluster_id, theirs.cluster_id))
        return err_set(ERR_REFUSED, "%s (%s) belongs to cluster %s, not %s", c->addr, theirs.self,
                       theirs.cluster_id, c->cluster_id);
    cc->base.version = (uint8_t)theirs.version_max;
    cc->base.features = theirs.features;
    cc->incarnation = theirs.incarnation;
    if (!(theirs.features & FRAME_FEATURE_SHM))
        return 0;
    rc = net_share(cc->base.net);
    c->share_failed = rc < 0;
    return rc < 0 ? err_prefix(rc, "%s: sharing memory", c->addr) : 0;
}

static co_fn int client_connect(struct rpc_client *c, struct client_conn **ret)
{
    struct client_conn *cc;
    struct net_conn *net;
    int rc;

    rc = net_connect(c->addr, &net);
    if (rc < 0)
        return err_prefix(rc, "connect to %s", c->addr);
    cc = MEM_NEW(struct client_conn);
    conn_init(&cc->base, net);
    list_init(&cc->lent);
    cc->base.on_sent = client_on_sent;
    cc->client = c;
    rc = client_hello(c, cc);
    if (rc < 0) {
        conn_fini(&cc->base);
        mem_free(cc);
        return rc;
    }
    *ret = cc;
    return 0;
}

static co_fn int connector_main(void *arg)
{
    struct rpc_client *c = arg;
    struct client_conn *cc = NULL;
    nsec_t former;
    int rc = 0;

    if (c->retry_at > co_now())
        rc = co_sleep_until(c->retry_at);
    if (rc == 0) {
        former = co_deadline_push(co_now() + c->connect_timeout);
        rc = client_connect(c, &cc);
        co_deadline_restore(former);
    }
    if (rc == 0 && c->closing) {
        conn_fini(&cc->base);
        mem_free(cc);
    } else if (rc == 0) {
        c->conn = cc;
        c->incarnation = cc->incarnation;
        cc->tasks = 2;
        co_spawn_detached_deadline(&c->group, "rpc-receive", receiver_main, cc);
        co_spawn_detached_deadline(&c->group, "rpc-send", sender_main, cc);
    } else {
        client_failed(c);
        snprintf(c->connect_text, sizeof(c->connect_text), "%s", err_text(rc));
        client_log_trouble(c, "rpc.unreachable", c->connect_text);
    }
    c->connecting = false;
    c->attempts++;
    co_cond_broadcast(&c->changed);
    return 0;
}

void client_connect_start(struct rpc_client *c)
{
    if (c->connecting || c->closing)
        return;
    c->connecting = true;
    co_spawn_detached_deadline(&c->group, "rpc-connect", connector_main, c);
}
