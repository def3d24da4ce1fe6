/* SPDX-License-Identifier: Apache-2.0
 *
 * The whole state from one meta server to another, whose place in the log has been trimmed away.
 *
 * The giver scans its store in a coroutine, from one point in time, and hands the pairs out in
 * pieces as they are asked for; one that is not asked for a while ends. The taker empties its
 * store, marks it as being loaded (durably), writes the pieces, and with the last removes the
 * mark: a crash in between leaves the mark, or nothing, and never half a state that looks whole. */
#include <inttypes.h>
#include <string.h>
#include "common/base/assert.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/env/env.h"
#include "meta/codec.h"
#include "meta/pad.h"
#include "meta/server.h"

#define GIVEN_MAX  2u                 /* at once */
#define GIVEN_IDLE (5 * NSEC_PER_SEC) /* before one that nobody asks for is dropped */
#define PAIRS_MAX  8192u              /* in a piece */

/* ---- giving ---- */

struct pair {
    uint8_t *key, *val;
    size_t key_len, val_len;
};

struct given {
    struct list link;
    struct snapshots *all;
    struct metad *m;
    uint64_t id, applied;
    struct pad pad; /* of the present piece */
    struct pair pairs[PAIRS_MAX];
    uint32_t n_pairs;
    size_t bytes;
    bool ready; /* the piece waits to be taken */
    bool last;  /* and it is the last one */
    bool busy;  /* a request is at it */
    struct co_cond changed;
};

struct snapshots {
    struct co_group group;
    struct list given;
    uint32_t count;
    uint64_t next_id;
};

struct snapshots *snapshots_new(void)
{
    struct snapshots *s = MEM_NEW(struct snapshots);

    co_group_init(&s->group);
    list_init(&s->given);
    s->next_id = env_random() | 1;
    return s;
}

co_fn void snapshots_close(struct snapshots *s)
{
    (void)co_group_close(&s->group);
    ASSERT(list_empty(&s->given));
    mem_free(s);
}

/* Offers the piece and waits until it was taken. */
static co_fn int piece_offer(struct given *g, bool last)
{
    nsec_t former = co_deadline_push(co_now() + GIVEN_IDLE);
    int rc = 0;

    g->last = last;
    g->ready = true;
    co_cond_broadcast(&g->changed);
    while (g->ready && rc == 0)
        rc = co_cond_wait(&g->changed);
    co_deadline_restore(former);
    return rc;
}

static int give_pair(void *arg, const void *key, size_t key_len, const void *val, size_t val_len)
{
    struct given *g = arg;
    int rc = 0;

    if (g->n_pairs == PAIRS_MAX || g->bytes >= SNAPSHOT_PIECE_BYTES)
        rc = piece_offer(g, false);
    if (rc < 0)
        return rc;
    g->pairs[g->n_pairs++] = (struct pair){
        .key = pad_memdup(&g->pad, key, key_len),
        .key_len = key_len,
        .val = pad_memdup(&g->pad, val, val_len),
        .val_len = val_len,
    };
    g->bytes += key_len + val_len + 8;
    return 0;
}

static co_fn int given_main(void *arg)
{
    struct given *g = arg;

    if (kv_scan(g->m->kv, "", 0, NULL, 0, give_pair, g) == 0)
        (void)piece_offer(g, true);
    list_del(&g->link); /* nobody finds it any more */
    g->all->count--;
    g->ready = false;
    co_cond_broadcast(&g->changed);
    while (g->busy) {
        struct co_shield shield;

        co_shield_begin(&shield);
        (void)co_yield ();
        co_shield_end(&shield);
    }
    pad_fini(&g->pad);
    mem_free(g);
    return 0;
}

static struct given *given_find(struct metad *m, uint64_t id)
{
    LIST_FOREACH (g, &m->snapshots->given, struct given, link) {
        if (g->id == id)
            return g;
    }
    return NULL;
}

static int given_new(struct metad *m, struct given **ret)
{
    struct snapshots *all = m->snapshots;
    struct given *g;

    if (all->count >= GIVEN_MAX)
        return err_set(ERR_AGAIN, "%u snapshots are being given already", all->count);
    g = MEM_NEW(struct given);
    g->all = all;
    g->m = m;
    g->id = all->next_id++;
    g->applied = m->applied;
    pad_init(&g->pad);
    co_cond_init(&g->changed);
    list_push_back(&all->given, &g->link);
    all->count++;
    co_spawn_detached_deadline(&all->group, "snapshot", given_main, g);
    *ret = g;
    return 0;
}

static void piece_take(struct rpc_request *q, struct given *g, Zbs__Meta__SnapshotReply *m)
{
    m->id = g->id;
    m->applied = g->applied;
    m->more = !g->last;
    m->keys = rpc_alloc(q, sizeof(*m->keys) * (g->n_pairs + 1));
    m->values = rpc_alloc(q, sizeof(*m->values) * (g->n_pairs + 1));
    m->n_keys = m->n_values = g->n_pairs;
    for (uint32_t i = 0; i < g->n_pairs; i++) {
        const struct pair *p = &g->pairs[i];

        m->keys[i].len = p->key_len;
        m->keys[i].data = memcpy(rpc_alloc(q, p->key_len + 1), p->key, p->key_len);
        m->values[i].len = p->val_len;
        m->values[i].data = memcpy(rpc_alloc(q, p->val_len + 1), p->val, p->val_len);
    }
    pad_fini(&g->pad);
    g->n_pairs = 0;
    g->bytes = 0;
    g->ready = false;
    co_cond_broadcast(&g->changed);
}

int snapshot_give(struct rpc_request *q)
{
    struct metad *m = q->ctx;
    const Zbs__Meta__SnapshotRequest *rq = (const void *)q->msg;
    struct given *g;
    int rc = 0;

    if (m->loading || m->applied == 0)
        return err_set(ERR_AGAIN, "this server has no state to give");
    if (rq->id == 0)
        rc = given_new(m, &g);
    else if ((g = given_find(m, rq->id)) == NULL)
        rc = err_set(ERR_STALE, "snapshot %" PRIu64 " is not being given any more", rq->id);
    if (rc < 0)
        return rc;
    if (g->busy)
        return err_set(ERR_BUSY, "snapshot %" PRIu64 " is being asked for twice", rq->id);
    g->busy = true;
    while (!g->ready && rc == 0 && list_linked(&g->link))
        rc = co_cond_wait(&g->changed);
    if (rc == 0 && !g->ready)
        rc = err_set(ERR_STALE, "snapshot %" PRIu64 " has ended", rq->id);
    if (rc == 0)
        piece_take(q, g, (Zbs__Meta__SnapshotReply *)q->reply);
    g->busy = false;
    return rc;
}

/* ---- taking ---- */

static co_fn int write_piece(struct metad *m, const Zbs__Meta__SnapshotReply *piece)
{
    struct kv_batch *b = kv_batch_new();
    int rc = 0;

    if (piece->n_keys != piece->n_values)
        rc = err_set(ERR_PROTO, "a piece of a snapshot has keys without values");
    for (size_t i = 0; i < piece->n_keys && rc == 0; i++) {
        if (piece->keys[i].len == 0)
            rc = err_set(ERR_PROTO, "a piece of a snapshot has an empty key");
        else
            kv_batch_put(b, piece->keys[i].data, piece->keys[i].len, piece->values[i].data,
                         piece->values[i].len);
    }
    if (rc == 0 && !piece->more)
        codec_unmark_loading(b);
    if (rc == 0)
        rc = kv_write(m->kv, b, !piece->more);
    kv_batch_free(b);
    return rc;
}

static co_fn int ask_piece(struct peer *p, uint64_t id, struct rpc_reply *r)
{
    Zbs__Meta__SnapshotRequest rq = ZBS__META__SNAPSHOT_REQUEST__INIT;
    nsec_t former = co_deadline_push(co_now() + 3 * NSEC_PER_SEC);
    int rc;

    rq.id = id;
    rc = rpc_call(p->client, &zbs__meta__meta_peer__descriptor, 1, &rq.base, NULL, r);
    co_deadline_restore(former);
    return rc;
}

/* Nothing of ours is touched before the first piece is here and is worth it. */
static co_fn int load_from(struct metad *m, struct peer *p, uint64_t tail)
{
    const Zbs__Meta__SnapshotReply *piece;
    struct rpc_reply r;
    uint64_t id;
    bool more;
    int rc;

    rpc_reply_init(&r);
    rc = ask_piece(p, 0, &r);
    piece = (const void *)r.msg;
    if (rc == 0 && (piece->applied <= m->applied || piece->applied + 1 < tail))
        rc = err_set(ERR_AGAIN, "%s has applied only entry %" PRIu64, p->addr, piece->applied);
    if (rc < 0) {
        rpc_reply_free(&r);
        return rc;
    }
    log_info("snapshot.load", "from=%s applied=%" PRIu64, p->addr, piece->applied);
    id = piece->id;
    m->loading = true;
    m->applied = m->synced = 0;
    state_fini(&m->st);
    rc = kv_clear(m->kv);
    if (rc == 0)
        rc = codec_mark_loading(m->kv);
    do {
        if (rc == 0)
            rc = write_piece(m, piece);
        more = rc == 0 && piece->more;
        rpc_reply_free(&r);
        rpc_reply_init(&r);
        if (more)
            rc = ask_piece(p, id, &r);
        piece = (const void *)r.msg;
    } while (more);
    rpc_reply_free(&r);
    if (rc == 0)
        rc = metad_load(m);
    return rc;
}

co_fn int snapshot_load(struct metad *m)
{
    uint64_t tail;
    int rc = zk_tail_read(m, &tail);

    if (rc < 0)
        return rc;
    (void)peers_ask(m, NSEC_PER_SEC);
    rc = err_set(ERR_AGAIN,
                 "the log begins at entry %" PRIu64 ", this server has applied %" PRIu64
                 ", and no other meta server is there to load the state from",
                 tail, m->applied);
    for (uint32_t i = 0; i < m->n_peers && !co_canceled(); i++) {
        if (!m->peers[i].alive)
            continue;
        rc = load_from(m, &m->peers[i], tail);
        if (rc == 0)
            return 0;
        log_warn("snapshot.fail", "from=%s why=\"%s\"", m->peers[i].addr, err_text(rc));
    }
    return rc < 0 && rc != ERR_CANCELED ? err_set(ERR_AGAIN, "no snapshot could be loaded") : rc;
}
