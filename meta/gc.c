/* SPDX-License-Identifier: Apache-2.0
 *
 * Garbage that the log does not know: see gc.h. */
#include "meta/gc.h"

#include <inttypes.h>
#include <stdio.h>
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/vec.h"
#include "common/env/env.h"
#include "meta/lead.h"
#include "meta/settings.h"

#define ROUND_MIN   NSEC_PER_SEC /* between two lists of a server */
#define ROUND_MAX   (60 * NSEC_PER_SEC)
#define LIST_MAX    1024u
#define CALL_LIMIT  (5 * NSEC_PER_SEC)
#define UNKNOWN_MAX 4096u /* watched at once, of one server */
#define COLLECT_MAX 256u  /* in one record */
#define LIST_METHOD 13    /* position of ListReplicas in proto/chunk.proto */

struct gc_chunk {
    VEC(struct gc_unknown) unknown;
};

bool gc_is_known(const struct state *st, uint32_t chunk_id, uint64_t extent_id, uint64_t applied)
{
    const struct extent *e = state_extent(st, extent_id);
    const struct chunk *c = state_chunk(st, chunk_id);

    if (c == NULL || extent_id >= applied)
        return true;
    if (e != NULL && (extent_has_member(e, chunk_id) || extent_has_absent(e, chunk_id)))
        return true;
    return chunk_garbage(c, extent_id) != NULL;
}

Zbs__Metalog__Record *decide_garbage_add(struct pad *pad, uint32_t chunk_id,
                                         const struct gc_unknown *items, uint32_t n)
{
    Zbs__Metalog__Record *r = record_new(pad, ZBS__METALOG__RECORD__KIND_GARBAGE_ADD);
    Zbs__Metalog__GarbageAdd *m = PAD_NEW(pad, Zbs__Metalog__GarbageAdd);

    r->garbage_add = m;
    zbs__metalog__garbage_add__init(m);
    m->chunk_id = chunk_id;
    m->extent_ids = PAD_NEW_ARRAY(pad, uint64_t, n);
    m->epochs = PAD_NEW_ARRAY(pad, uint64_t, n);
    m->families = PAD_NEW_ARRAY(pad, uint64_t, n);
    m->n_extent_ids = m->n_epochs = m->n_families = n;
    for (uint32_t i = 0; i < n; i++) {
        m->extent_ids[i] = items[i].extent_id;
        m->epochs[i] = items[i].epoch;
        m->families[i] = items[i].family;
    }
    return r;
}

static struct gc_chunk *gc_chunk(struct gc *g, uint32_t id)
{
    struct gc_chunk *c = idmap_get_ptr(&g->chunks, id);

    if (c == NULL) {
        c = MEM_NEW(struct gc_chunk);
        idmap_put_ptr(&g->chunks, id, c);
    }
    return c;
}

void gc_fini(struct gc *g)
{
    for (uint64_t i = 0; i < g->chunks.cap; i++) {
        struct gc_chunk *c = (void *)(uintptr_t)g->chunks.entries[i].value;

        if (g->chunks.entries[i].id == 0)
            continue;
        VEC_FINI(&c->unknown);
        mem_free(c);
    }
    idmap_fini(&g->chunks);
}

/* ---- watching ---- */

static void note(struct lead *l, uint32_t chunk_id, const Zbs__Chunk__ReplicaInfo *m)
{
    struct gc_chunk *c = gc_chunk(&l->gc, chunk_id);
    struct gc_unknown *u = NULL;

    if (gc_is_known(&l->m->st, chunk_id, m->extent_id, l->m->st.next_mutation))
        return;
    for (size_t i = 0; i < c->unknown.count && u == NULL; i++)
        if (c->unknown.data[i].extent_id == m->extent_id)
            u = &c->unknown.data[i];
    if (u == NULL) {
        if (c->unknown.count >= UNKNOWN_MAX)
            return;
        u = VEC_PUSH(&c->unknown);
        *u = (struct gc_unknown){.extent_id = m->extent_id, .since = co_now()};
        log_warn("replica.unknown", "extent=%" PRIu64 " chunk=%u epoch=%" PRIu64, m->extent_id,
                 chunk_id, m->epoch);
    }
    u->epoch = m->epoch;
    u->family = m->family != 0 ? m->family : m->extent_id;
    u->round = l->gc.round;
}

/* One worker's replicas. */
static co_fn int list_worker(struct lead *l, uint32_t chunk_id, const char *addr, uint32_t worker)
{
    struct rpc_client_conf conf = {.addr = addr,
                                   .self = l->m->conf.name,
                                   .cluster_id = l->m->st.cluster_id,
                                   .instance = worker,
                                   .connect_timeout = NSEC_PER_SEC};
    struct rpc_client *client = rpc_client_new(&conf);
    Zbs__Chunk__ListReplicasRequest rq = ZBS__CHUNK__LIST_REPLICAS_REQUEST__INIT;
    bool more = true;
    int rc = 0;

    rq.max = LIST_MAX;
    while (rc == 0 && more && !l->ended) {
        const Zbs__Chunk__ListReplicasReply *m;
        nsec_t former = co_deadline_push(co_now() + CALL_LIMIT);
        struct rpc_reply r;

        rpc_reply_init(&r);
        rc = rpc_call(client, &zbs__chunk__chunk__descriptor, LIST_METHOD, &rq.base, NULL, &r);
        co_deadline_restore(former);
        m = (const void *)r.msg;
        for (size_t i = 0; rc == 0 && !l->ended && i < m->n_replicas; i++) {
            rq.after_extent_id = m->replicas[i]->extent_id;
            note(l, chunk_id, m->replicas[i]);
        }
        more = rc == 0 && m->more && m->n_replicas > 0;
        rpc_reply_free(&r);
    }
    rpc_client_close(client);
    return l->ended ? ERR_NOT_LEADER : rc;
}

/* Those that were not seen in this round, or are known meanwhile, are watched no more. */
static void forget(struct lead *l, uint32_t chunk_id)
{
    struct gc_chunk *c = gc_chunk(&l->gc, chunk_id);
    size_t kept = 0;

    for (size_t i = 0; i < c->unknown.count; i++) {
        const struct gc_unknown *u = &c->unknown.data[i];

        if (u->round == l->gc.round &&
            !gc_is_known(&l->m->st, chunk_id, u->extent_id, l->m->st.next_mutation))
            c->unknown.data[kept++] = *u;
    }
    c->unknown.count = kept;
}

static void collect(struct lead *l, uint32_t chunk_id)
{
    struct gc_chunk *c = gc_chunk(&l->gc, chunk_id);
    nsec_t delay = (nsec_t)state_setting(&l->m->st, SETTING_GC_DELAY) * NSEC_PER_SEC;
    struct gc_unknown due[COLLECT_MAX];
    struct packed reply;
    struct pad pad;
    uint32_t n = 0;

    for (size_t i = 0; i < c->unknown.count && n < COLLECT_MAX; i++)
        if (co_now() - c->unknown.data[i].since >= delay)
            due[n++] = c->unknown.data[i];
    if (n == 0 || lead_enter_mutation(l->m) < 0)
        return;
    for (uint32_t i = 0; i < n; i++)
        log_warn("replica.collect",
                 "extent=%" PRIu64 " chunk=%u: no extent's for %" PRId64 " s, it is deleted",
                 due[i].extent_id, chunk_id, (co_now() - due[i].since) / NSEC_PER_SEC);
    pad_init(&pad);
    lead_submit(l->m, decide_garbage_add(&pad, chunk_id, due, n), &pad, &reply);
    pad_fini(&pad);
    forget(l, chunk_id);
}

/* Nothing of the state is held across calls: the server is found anew by its number. */
static co_fn void look_at(struct lead *l, uint32_t chunk_id)
{
    const struct chunk *c = state_chunk(&l->m->st, chunk_id);
    char addr[ADDR_BYTES_MAX + 1];
    uint32_t workers;
    int rc = 0;

    if (c == NULL || !live_chunk(&l->live, chunk_id)->heard ||
        !live_chunk(&l->live, chunk_id)->alive)
        return;
    snprintf(addr, sizeof(addr), "%s", c->addr);
    workers = c->workers;
    l->gc.round++;
    for (uint32_t w = 0; w < workers && rc == 0; w++)
        rc = list_worker(l, chunk_id, addr, w);
    /* What could not be listed was not seen to be there all the time. */
    if (rc == 0 && !l->ended && lead_has_authority(l)) {
        forget(l, chunk_id);
        collect(l, chunk_id);
    } else if (!l->ended) {
        gc_chunk(&l->gc, chunk_id)->unknown.count = 0;
    }
}

int gc_main(void *arg)
{
    struct lead *l = arg;
    nsec_t looked = 0;
    uint32_t last = 0;

    while (!l->ended) {
        nsec_t delay = (nsec_t)state_setting(&l->m->st, SETTING_GC_DELAY) * NSEC_PER_SEC;
        uint32_t n = MAX(l->m->st.chunks.count, 1u), next = 0;

        /* Each server several times within the delay, which may change, one after another. */
        if (co_sleep(ROUND_MIN / n) < 0)
            break;
        if (l->ended || !l->serving ||
            co_now() - looked < MAX(MIN(delay / 8, ROUND_MAX), ROUND_MIN) / n)
            continue;
        looked = co_now();
        for (uint32_t i = 0; i < l->m->st.chunks.count && next == 0; i++) {
            const struct chunk *c = l->m->st.chunks.items[i];

            if (c->id > last)
                next = c->id;
        }
        last = next;
        if (next != 0)
            look_at(l, next);
    }
    return 0;
}
