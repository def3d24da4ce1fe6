/* SPDX-License-Identifier: Apache-2.0
 *
 * One versioned write on its way to the members (PROTOCOL 3). It holds the range lock from before
 * it gets its version until every member has confirmed it or has been removed, whatever becomes
 * of whoever asked for it. */
#include "access/vol/vol_int.h"

#include "common/base/crc32c.h"
#include <string.h>

#define OP_POOL_KEEP 256u

uint32_t page_crcs(uint32_t off, uint32_t len, const uint8_t *p, uint32_t *ret)
{
    uint32_t n = 0;

    while (len > 0) {
        uint32_t piece = MIN(PAGE_BYTES - off % PAGE_BYTES, len);

        ret[n++] = crc32c(0, p, piece);
        p += piece;
        off += piece;
        len -= piece;
    }
    return n;
}

static struct op *op_alloc(struct vol_engine *e)
{
    struct op *op;

    if (list_empty(&e->op_pool))
        return MEM_NEW(struct op);
    e->op_pool_count--;
    op = LIST_ENTRY(list_pop_front(&e->op_pool), struct op, link);
    memset(op, 0, sizeof(*op));
    return op;
}

struct op *op_new(struct tenure *t, uint32_t kind, uint32_t off, uint32_t len,
                  const struct slice *data)
{
    struct op *op = op_alloc(t->e);

    ASSERT(len > 0 && off % SECTOR_BYTES == 0 && len % SECTOR_BYTES == 0);
    ASSERT((uint64_t)off + len <= EXTENT_BYTES);
    list_init(&op->link);
    op->t = tenure_get(t);
    op->refs = 1;
    op->kind = kind;
    op->off = off;
    op->len = len;
    op->crc = op->crc_small;
    co_cond_init(&op->finished);
    if (data) {
        uint32_t pieces = page_pieces(off, len);

        ASSERT(data->len == len && len <= OP_BYTES_MAX);
        op->data = *data;
        buf_get(op->data.buf);
        if (pieces > ARRAY_SIZE(op->crc_small))
            op->crc = MEM_NEW_ARRAY(uint32_t, pieces);
        op->n_crc = page_crcs(off, len, slice_data(data), op->crc);
    }
    return op;
}

static void op_data_drop(struct op *op)
{
    if (op->data.buf)
        buf_put(op->data.buf);
    op->data.buf = NULL;
}

static void op_unlock(struct op *op)
{
    if (op->locked)
        co_range_release(&op->t->ranges, &op->range);
    op->locked = false;
}

void op_put(struct op *op)
{
    struct tenure *t = op->t;
    struct vol_engine *e = t->e;

    ASSERT(op->refs > 0);
    if (--op->refs > 0)
        return;
    ASSERT(!op->in_list);
    op_unlock(op);
    if (op->has_room)
        co_sem_release(&t->room, 1);
    op_data_drop(op);
    if (op->crc != op->crc_small)
        mem_free(op->crc);
    tenure_put(t);
    if (e->op_pool_count < OP_POOL_KEEP) {
        list_push_front(&e->op_pool, &op->link);
        e->op_pool_count++;
    } else {
        mem_free(op);
    }
}

int op_lock(struct op *op)
{
    struct tenure *t = op->t;
    uint64_t start = ROUND_DOWN(op->off, PAGE_BYTES);
    uint64_t end = ROUND_UP((uint64_t)op->off + op->len, PAGE_BYTES);
    int rc = co_sem_acquire(&t->room, 1);

    if (rc < 0)
        return rc;
    op->has_room = true;
    if (mutate(MUT_NO_RANGE_LOCK))
        return 0;
    rc = co_range_acquire(&t->ranges, &op->range, start, end - start, true);
    if (rc < 0)
        return rc;
    op->locked = true;
    return t->lost ? ERR_STALE : 0;
}

/* ---- on its way ---- */

static void op_unlist(struct op *op)
{
    ASSERT(op->in_list);
    list_del(&op->link);
    op->in_list = false;
    op_put(op);
}

static void op_finish(struct op *op, int rc)
{
    struct tenure *t = op->t;

    ASSERT(!op->done);
    op->done = true;
    op->rc = rc;
    op_unlock(op);
    op_data_drop(op);
    co_cond_broadcast(&op->finished);
    if (rc == 0)
        commit_advance(t);
    else
        op_unlist(op);
}

void op_fail(struct op *op, int rc)
{
    struct tenure *t = op->t;

    if (op->done)
        return;
    /* Those that return may have done it: what they have, and nobody else, they will miss. */
    for (uint32_t i = 0; i < t->n; i++)
        if (op->dst >> i & 1)
            member_give_up_join(t, i, "no member can do a write that it was sent");
    op_finish(op, rc);
    credits_unused(t, op->off, op->len);
    commit_advance(t);
}

static void op_check(struct op *op)
{
    struct tenure *t = op->t;
    uint32_t pending = op->dst & (t->set | t->joining) & ~op->got;

    if (op->done || pending)
        return;
    /* The set never grows while a write is under way, nor becomes empty. */
    ASSERT((t->set & ~op->dst) == 0 && (t->set & ~t->adding) != 0);
    op_finish(op, 0);
}

/* Also those that are done and wait for one before them: no commit point will ever cover them. */
static void ops_drop(struct tenure *t)
{
    struct op *op;

    while ((op = LIST_FIRST(&t->ops, struct op, link)) != NULL) {
        if (op->done)
            op_unlist(op);
        else
            op_finish(op, ERR_STALE);
    }
}

void ops_check(struct tenure *t)
{
    bool again = !t->lost;

    /* A finished one may take others off the list with it. */
    tenure_get(t);
    if (t->lost)
        ops_drop(t);
    while (again) {
        again = false;
        LIST_FOREACH (op, &t->ops, struct op, link) {
            bool was_done = op->done;

            op->refs++;
            op_check(op);
            again = op->done && !was_done;
            op_put(op);
            if (again)
                break;
        }
    }
    tenure_put(t);
}

static void op_confirmed(struct op *op, uint32_t i, struct ver cp)
{
    struct tenure *t = op->t;
    struct member *m = &t->m[i];
    uint32_t first = op_first_page(op), pages = op_pages(op);

    op->got |= 1u << i;
    member_confirmed(t, i, op->gen, first, pages);
    m->cp_sent = ver_max(m->cp_sent, cp);
    if (t->joining & op->through & 1u << i)
        rangeset_remove(&m->stale, first, first + pages);
}

/* One member does the write; as: this, or the same of whole pages. */
static int op_call(struct op *op, uint32_t i, struct op *as, struct ver cp, bool pass_unread)
{
    struct tenure *t = op->t;
    Zbs__Chunk__WriteRequest req = ZBS__CHUNK__WRITE_REQUEST__INIT;
    Zbs__Version cp_msg = ZBS__VERSION__INIT;
    struct member_req q = {.method = CHUNK_WRITE,
                           .msg = &req.base,
                           .data = as->data.buf ? &as->data : NULL,
                           .pass_unread = pass_unread};
    struct rpc_reply r;
    int rc;

    cp_msg.epoch = cp.epoch;
    cp_msg.gen = cp.gen;
    req.extent_id = t->extent_id;
    req.repair = t->repair;
    req.family = t->family;
    req.epoch = t->epoch;
    req.gen = op->gen;
    req.commit_point = &cp_msg;
    req.kind = as->kind;
    req.offset = as->off;
    req.length = as->len;
    req.crc = as->crc;
    req.n_crc = as->n_crc;
    req.missing = op->missing;
    req.n_missing = op->n_missing;
    rpc_reply_init(&r);
    rc = member_call(t, i, &q, &r);
    rpc_reply_free(&r);
    return rc;
}

static bool op_is_partial(const struct op *op)
{
    return op->off % PAGE_BYTES != 0 || op->len % PAGE_BYTES != 0;
}

static int op_sender(void *arg)
{
    struct op_send *s = arg;
    struct op *op = s->op, *whole = NULL;
    struct tenure *t = op->t;
    bool partial = op_is_partial(op);
    struct ver cp = t->joining >> s->i & 1 ? commit_for(t, s->i) : op->cp;
    nsec_t sent = co_now();
    int rc;

    ASSERT(cp.epoch < t->epoch || cp.gen < op->gen);
    rc = op_call(op, s->i, op, cp, partial);
    while (partial && is_unread(rc) && !whole && !op->done) {
        whole = op_whole(op, s->i, rc);
        if (!op->done)
            rc = op_call(op, s->i, whole ? whole : op, cp, !whole);
    }
    if (rc == 0) {
        pace_foreground(t->m[s->i].chunk, co_now() - sent);
        op_confirmed(op, s->i, cp);
    }
    if (mutate(MUT_ACK_EARLY))
        co_cond_broadcast(&op->finished);
    op_check(op);
    if (whole)
        op_put(whole);
    op_put(op);
    return 0;
}

/* Joining replicas get what keeps them current; until they confirm it they miss it. */
static void op_send_joining(struct op *op)
{
    struct tenure *t = op->t;
    uint64_t first = op_first_page(op), end = first + op_pages(op);

    for (uint32_t i = 0; i < t->n; i++) {
        struct member *m = &t->m[i];

        if (!(t->joining >> i & 1))
            continue;
        if (!op_is_partial(op) || !rangeset_intersects(&m->stale, first, end))
            op->through |= 1u << i;
        rangeset_add(&m->missing, first, end);
        rangeset_add(&m->stale, first, end);
    }
    op->dst |= op->through;
}

void op_send(struct op *op)
{
    struct tenure *t = op->t;
    uint32_t missing = (t->absent | t->joining | t->leaving);

    ASSERT(op->locked && !t->lost && op->gen == 0);
    op->gen = ++t->gen;
    op->cp = t->cp;
    op->dst = t->set;
    for (uint32_t i = 0; i < t->n; i++)
        if (missing >> i & 1)
            op->missing[op->n_missing++] = t->m[i].chunk->id;
    op_send_joining(op);
    list_push_back(&t->ops, &op->link);
    op->in_list = true;
    op->refs++; /* the list's */
    t->last_write = co_now();
    for (uint32_t i = 0; i < t->n; i++) {
        if (!(op->dst >> i & 1))
            continue;
        op->sends[i] = (struct op_send){op, i};
        op->refs++;
        co_spawn_detached_deadline(&t->e->io, "write", op_sender, &op->sends[i]);
    }
}

int op_wait(struct op *op)
{
    while (!op->done) {
        int rc = co_cond_wait(&op->finished);

        if (rc < 0 && !op->done)
            return rc;
    }
    if (is_unread(op->rc))
        return err_set(op->rc,
                       "extent %" PRIu64 ", pages %u+%u: no replica can read what is kept of a "
                       "page",
                       op->t->extent_id, op_first_page(op), op_pages(op));
    return op->rc;
}
