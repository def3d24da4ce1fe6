/* SPDX-License-Identifier: Apache-2.0
 *
 * Payloads that stay where they are: in the client's arena, which the server has mapped. A request
 * names where its payload lies and where the reply's is to be put.
 *
 * What the client lends belongs to the server until the reply came or the server has closed its
 * end, which it does after its last handler: the client keeps a reference for as long, whether or
 * not the call still waits. So a device may read and write there directly, and nothing that comes
 * late hits memory that has a new use. What a call gets is never the lent memory of another call,
 * nor the caller's own destination, which he may use again after he gave up.
 *
 * The client may change what it lent at any time. A handler sees it in place only if its method
 * says that it can deal with that (rpc_method.payload_shared_min), else a copy. Nothing that lies
 * there is trusted after it was looked at; descriptors come in the frame's header, which is ours.
 */
#include <inttypes.h>
#include <string.h>
#include "common/base/assert.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/rpc/client.h"

/* ---- the client lends ---- */

/* The payload as one piece of the arena, with a reference; NULL: it can't be. */
static struct buf *out_in_arena(struct rpc_payload *out, uint64_t *ret_at)
{
    struct buf *b = out->slices[0].buf, *copy;
    uint32_t done = 0;

    if (out->count == 1 && buf_arena_offset(b, ret_at)) {
        *ret_at += out->slices[0].off;
        return buf_get(b);
    }
    copy = buf_alloc(out->len);
    if (!buf_arena_offset(copy, ret_at)) {
        buf_put(copy);
        return NULL;
    }
    for (uint32_t i = 0; i < out->count; i++) {
        memcpy(copy->data + done, slice_data(&out->slices[i]), out->slices[i].len);
        done += out->slices[i].len;
    }
    return copy;
}

static void lend_out(struct client_lent *l, struct frame_header *h, struct rpc_payload *out)
{
    uint64_t at;

    if (out == NULL || out->len < SLOT_BYTES_MIN)
        return;
    l->out = out_in_arena(out, &at);
    if (l->out == NULL)
        return;
    h->flags |= FRAME_F_SLOT;
    h->payload_at = (uint32_t)at;
    h->payload_len = out->len;
    payload_drop(out);
}

static void lend_in(struct client_lent *l, struct frame_header *h, const struct rpc_reply *r)
{
    uint32_t cap = MIN(r->dst != NULL ? r->dst_cap : r->expect, RPC_PAYLOAD_MAX);
    uint64_t at;

    if (cap < SLOT_BYTES_MIN)
        return;
    l->in = buf_alloc(cap);
    if (!buf_arena_offset(l->in, &at)) {
        buf_put(l->in);
        l->in = NULL;
        return;
    }
    h->flags |= FRAME_F_ROOM;
    h->reply_at = (uint32_t)at;
    h->reply_cap = cap;
    l->in_cap = cap;
}

void client_lend(struct client_conn *cc, struct frame_header *h, struct rpc_payload *out,
                 const struct rpc_reply *r)
{
    struct client_lent l = {.id = h->id}, *kept;

    if (!(cc->base.features & FRAME_FEATURE_SLOTS))
        return;
    lend_out(&l, h, out);
    lend_in(&l, h, r);
    if (l.out == NULL && l.in == NULL)
        return;
    kept = MEM_NEW(struct client_lent);
    *kept = l;
    list_init(&kept->link);
    list_push_back(&cc->lent, &kept->link);
}

struct client_lent *client_lent_find(struct client_conn *cc, uint64_t id)
{
    LIST_FOREACH (l, &cc->lent, struct client_lent, link) {
        if (l->id == id)
            return l;
    }
    return NULL;
}

void client_lent_end(struct client_lent *l)
{
    if (l == NULL)
        return;
    list_del(&l->link);
    buf_put(l->out);
    buf_put(l->in);
    mem_free(l);
}

co_fn void client_lent_settle(struct client_conn *cc)
{
    struct co_shield shield;
    int rc;

    if (list_empty(&cc->lent))
        return;
    rc = net_wait_end(cc->base.net);
    if (rc < 0) { /* the client is being closed: hurry */
        co_shield_begin(&shield);
        co_deadline_push(co_now() + CLIENT_DRAIN_NS);
        rc = net_wait_end(cc->base.net);
        co_shield_end(&shield);
    }
    if (rc < 0)
        log_warn("rpc.lent",
                 "peer=%s reason=\"it holds payloads of ours and does not let go: "
                 "their memory is given up\"",
                 cc->client->addr);
    while (!list_empty(&cc->lent)) {
        struct client_lent *l = LIST_FIRST(&cc->lent, struct client_lent, link);

        if (rc < 0)
            l->in = l->out = NULL;
        client_lent_end(l);
    }
}

/* ---- the server uses it ---- */

static bool slot_inside(const struct net_arena *a, uint32_t at, uint32_t len)
{
    return a->base != NULL && (uint64_t)at + len <= a->bytes;
}

int slot_check(const struct rpc_conn *c, const struct frame_header *h)
{
    if ((h->flags & FRAME_F_SLOT) && !slot_inside(&c->arena, h->payload_at, h->payload_len))
        return err_set(ERR_PROTO, "payload at %" PRIu32 "+%" PRIu32 " of shared memory of %" PRIu64,
                       h->payload_at, h->payload_len, c->arena.bytes);
    if ((h->flags & FRAME_F_ROOM) &&
        (!slot_inside(&c->arena, h->reply_at, h->reply_cap) || h->reply_at % BUF_ALIGN != 0))
        return err_set(ERR_PROTO, "reply at %" PRIu32 "+%" PRIu32 " of shared memory of %" PRIu64,
                       h->reply_at, h->reply_cap, c->arena.bytes);
    return 0;
}

struct buf *slot_payload(const struct rpc_conn *c, const struct frame_header *h,
                         uint32_t shared_min)
{
    uint8_t *data = c->arena.base + h->payload_at;
    struct buf *b;

    if (shared_min > 0 && h->payload_len >= shared_min && h->payload_at % BUF_ALIGN == 0)
        return buf_foreign(data, ROUND_UP(h->payload_len, BUF_ALIGN));
    b = buf_alloc(h->payload_len);
    memcpy(b->data, data, h->payload_len);
    return b;
}

struct buf *slot_room(const struct rpc_conn *c, const struct frame_header *h)
{
    if (!(h->flags & FRAME_F_ROOM))
        return NULL;
    return buf_foreign(c->arena.base + h->reply_at, ROUND_UP(h->reply_cap, BUF_ALIGN));
}

void slot_fill(struct buf *room, struct rpc_payload *out)
{
    uint32_t done = 0;

    for (uint32_t i = 0; i < out->count; i++) {
        const struct slice *s = &out->slices[i];

        if (slice_data(s) != room->data + done)
            memcpy(room->data + done, slice_data(s), s->len);
        done += s->len;
    }
    payload_drop(out);
}
