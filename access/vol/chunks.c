/* SPDX-License-Identifier: Apache-2.0
 *
 * Chunk servers as the engine knows them: where they are (meta's view), a connection to each
 * worker, and how long each has been silent. */
#include "access/vol/vol_int.h"

#include <stdio.h>
#include <string.h>

struct open_batch {
    uint32_t refs;
    struct rpc_reply reply;
};

struct chunk *chunk_get(struct vol_engine *e, uint32_t id)
{
    struct chunk *c;

    LIST_FOREACH (known, &e->chunks, struct chunk, link)
        if (known->id == id)
            return known;
    c = MEM_NEW(struct chunk);
    c->e = e;
    c->id = id;
    list_push_back(&e->chunks, &c->link);
    return c;
}

static struct peer *peer_new(struct chunk *c, uint32_t worker, const char *addr)
{
    struct peer *p = MEM_NEW(struct peer);

    p->chunk = c;
    p->worker = worker;
    list_init(&p->open_queue);
    p->rpc = rpc_client_new(&(struct rpc_client_conf){
        .addr = addr,
        .self = c->e->name,
        .cluster_id = c->e->cluster_id,
        .instance = worker,
        .connect_timeout = c->e->member_deadline / 2,
    });
    return p;
}

struct closing {
    struct rpc_client **clients;
    uint32_t n;
};

static int close_clients(void *arg)
{
    struct closing *cl = arg;
    struct co_shield shield;

    co_shield_begin(&shield);
    for (uint32_t i = 0; i < cl->n; i++)
        rpc_client_close(cl->clients[i]);
    co_shield_end(&shield);
    mem_free(cl->clients);
    mem_free(cl);
    return 0;
}

/* The server moved, or has another number of workers: connections of the former address are
 * closed in the background; whoever waits on them gets ERR_CLOSED and comes again. */
static void peers_replace(struct chunk *c, uint32_t workers, const char *addr)
{
    struct closing *cl = MEM_NEW(struct closing);

    cl->n = c->n_peers;
    cl->clients = MEM_NEW_ARRAY(struct rpc_client *, MAX(c->n_peers, 1u));
    for (uint32_t w = 0; w < c->n_peers; w++)
        cl->clients[w] = c->peers[w]->rpc;
    for (uint32_t w = 0; w < workers; w++) {
        if (w < c->n_peers) {
            /* The peer itself stays: openers may be queued on it. */
            struct peer *fresh = peer_new(c, w, addr);

            c->peers[w]->rpc = fresh->rpc;
            mem_free(fresh);
        } else {
            c->peers = mem_realloc(c->peers, sizeof(*c->peers) * workers);
            c->peers[w] = peer_new(c, w, addr);
            c->n_peers = w + 1;
        }
    }
    c->workers = workers;
    snprintf(c->addr, sizeof(c->addr), "%s", addr);
    if (cl->n > 0) {
        co_spawn_detached_deadline(&c->e->io, "chunk-close", close_clients, cl);
    } else {
        mem_free(cl->clients);
        mem_free(cl);
    }
}

void chunks_update(struct vol_engine *e, Zbs__Meta__ChunkView *const *views, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const Zbs__Meta__ChunkView *v = views[i];
        struct chunk *c = chunk_get(e, v->chunk_id);
        const char *addr;

        snprintf(c->host, sizeof(c->host), "%s", v->host);
        c->local = e->host[0] && strcmp(v->host, e->host) == 0;
        if (c->alive != v->alive)
            c->alive_changed = co_now();
        c->alive = v->alive;
        addr = c->local && v->addr_unix[0] ? v->addr_unix : v->addr;
        if (!addr[0] || strlen(addr) >= sizeof(c->addr) || v->workers == 0 || v->workers > 64)
            continue;
        /* Extents are hashed over the workers, so their number does not shrink while a server
         * holds extents; if it says otherwise, requests are refused there. */
        if (strcmp(addr, c->addr) != 0 || v->workers != c->workers)
            peers_replace(c, v->workers, addr);
    }
}

void chunks_reset(struct vol_engine *e)
{
    LIST_FOREACH (c, &e->chunks, struct chunk, link)
        for (uint32_t w = 0; w < c->n_peers; w++)
            rpc_client_reset(c->peers[w]->rpc);
}

void chunks_close(struct vol_engine *e)
{
    for (;;) {
        struct chunk *c = LIST_FIRST(&e->chunks, struct chunk, link);

        if (!c)
            return;
        list_del(&c->link);
        for (uint32_t w = 0; w < c->n_peers; w++) {
            ASSERT(list_empty(&c->peers[w]->open_queue));
            rpc_client_close(c->peers[w]->rpc);
            mem_free(c->peers[w]);
        }
        mem_free(c->peers);
        mem_free(c);
    }
}

bool chunk_given_up(const struct chunk *c)
{
    nsec_t deadline = c->e->member_deadline;

    /* Silent for the whole deadline, and tried again lately. */
    return c->silent_since && c->last_unheard - c->silent_since >= deadline &&
           co_now() - c->last_unheard < 2 * deadline;
}

static void chunk_heard(struct chunk *c)
{
    c->last_heard = co_now();
    c->silent_since = 0;
}

/* A request sent at `sent` got no answer. */
static void chunk_unheard(struct chunk *c, nsec_t sent)
{
    bool was_given_up = chunk_given_up(c);

    if (c->last_heard > sent)
        return; /* others were answered meanwhile: slow with this one, not silent */
    if (!c->silent_since || sent < c->silent_since ||
        sent - c->last_unheard > 5 * c->e->member_deadline)
        c->silent_since = sent;
    c->last_unheard = co_now();
    if (was_given_up || !chunk_given_up(c))
        return;
    log_warn("chunk.silent", "chunk=%u addr=%s", c->id, c->addr);
    /* Those who wait on its connections need not sit their own time out. */
    for (uint32_t w = 0; w < c->n_peers; w++)
        if (rpc_client_connected(c->peers[w]->rpc))
            rpc_client_reset(c->peers[w]->rpc);
}

static struct peer *chunk_peer(struct chunk *c, uint64_t family)
{
    return c->workers ? c->peers[extent_worker(family, c->workers)] : NULL;
}

static bool is_silence(int rc)
{
    return rc == ERR_TIMEOUT || rc == ERR_CLOSED || rc == ERR_UNREACHABLE;
}

static int peer_call(struct peer *p, enum chunk_method method, const ProtobufCMessage *req,
                     struct rpc_payload *out, struct rpc_reply *r, nsec_t timeout)
{
    struct chunk *c = p->chunk;
    nsec_t sent = co_now();
    nsec_t former = co_deadline_push(sent + timeout);
    bool ours = co_deadline() == sent + timeout;
    int rc;

    c->in_flight++;
    rc = rpc_call(p->rpc, &zbs__chunk__chunk__descriptor, method, req, out, r);
    c->in_flight--;
    co_deadline_restore(former);
    if (r->answered || !is_silence(rc)) {
        if (r->answered)
            chunk_heard(c);
        return rc;
    }
    /* The caller's own impatience says nothing about the server. */
    if (rc != ERR_TIMEOUT || ours)
        chunk_unheard(c, sent);
    return rc;
}

static void payload_drop(struct rpc_payload *out)
{
    for (uint32_t i = 0; out && i < out->count; i++)
        buf_put(out->slices[i].buf);
}

int chunk_call(struct chunk *c, uint64_t family, enum chunk_method method,
               const ProtobufCMessage *req, struct rpc_payload *out, struct rpc_reply *r,
               nsec_t timeout)
{
    struct peer *p = chunk_peer(c, family);

    if (p)
        return peer_call(p, method, req, out, r, timeout);
    payload_drop(out);
    chunk_unheard(c, co_now());
    return err_set(ERR_UNREACHABLE, "chunk server %u has no known address", c->id);
}

/* ---- batched opens ---- */

static void batch_put(struct open_batch *b)
{
    if (--b->refs > 0)
        return;
    rpc_reply_free(&b->reply);
    mem_free(b);
}

void open_call_done(struct open_call *call)
{
    if (call->batch)
        batch_put(call->batch);
    call->batch = NULL;
    call->result = NULL;
}

static void batch_answer(struct open_batch *b, struct open_call **calls, uint32_t n, int rc)
{
    const Zbs__Chunk__OpenReply *reply = (const Zbs__Chunk__OpenReply *)b->reply.msg;

    if (rc == 0 && reply->n_results != n)
        rc = ERR_PROTO;
    for (uint32_t i = 0; i < n; i++) {
        int item_rc = rc;

        if (rc == 0) {
            calls[i]->batch = b;
            b->refs++;
            calls[i]->result = reply->results[i];
            calls[i]->incarnation = b->reply.incarnation;
            item_rc = reply->results[i]->result ? reply->results[i]->result->rc : 0;
            if (item_rc > 0)
                item_rc = ERR_PROTO;
        }
        co_resume(&calls[i]->wait, item_rc);
    }
}

static int open_flush(void *arg);

static void open_flush_start(struct peer *p)
{
    if (p->open_flusher || list_empty(&p->open_queue))
        return;
    p->open_flusher = true;
    co_spawn_detached_deadline(&p->chunk->e->io, "open-batch", open_flush, p);
}

static int open_flush(void *arg)
{
    struct peer *p = arg;
    Zbs__Chunk__OpenRequest req = ZBS__CHUNK__OPEN_REQUEST__INIT;
    Zbs__Chunk__OpenItem items[OPEN_BATCH];
    Zbs__Chunk__OpenItem *item_ptrs[OPEN_BATCH];
    struct open_call *calls[OPEN_BATCH];
    struct open_batch *b = MEM_NEW(struct open_batch);
    uint32_t n = 0;
    int rc;

    /* What else becomes ready in this turn of the loop goes into the same request. */
    (void)co_yield ();
    while (n < OPEN_BATCH && !list_empty(&p->open_queue)) {
        struct open_call *call = LIST_ENTRY(list_pop_front(&p->open_queue), struct open_call, link);

        zbs__chunk__open_item__init(&items[n]);
        items[n].extent_id = call->extent_id;
        items[n].family = call->family;
        items[n].epoch = call->epoch;
        items[n].credit_blocks = call->credit_blocks;
        items[n].thaw = call->thaw;
        item_ptrs[n] = &items[n];
        calls[n++] = call;
    }
    p->open_flusher = false;
    open_flush_start(p);
    req.n_items = n;
    req.items = item_ptrs;
    b->refs = 1;
    rpc_reply_init(&b->reply);
    rc = peer_call(p, CHUNK_OPEN, &req.base, NULL, &b->reply, p->chunk->e->member_deadline);
    batch_answer(b, calls, n, rc);
    batch_put(b);
    return 0;
}

int chunk_open(struct chunk *c, struct open_call *call)
{
    struct peer *p = chunk_peer(c, call->family);

    call->batch = NULL;
    call->result = NULL;
    if (!p) {
        chunk_unheard(c, co_now());
        return err_set(ERR_UNREACHABLE, "chunk server %u has no known address", c->id);
    }
    list_push_back(&p->open_queue, &call->link);
    co_wait_init(&call->wait);
    open_flush_start(p);
    /* The flusher's deadline bounds this; the caller's memory is in its hands until then. */
    return co_suspend(&call->wait, CO_UNINTERRUPTIBLE);
}
