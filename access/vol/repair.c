/* SPDX-License-Identifier: Apache-2.0
 *
 * Repair of pages that a member could not read (PROTOCOL 4.2): under the range lock, after
 * reading again, from another member, as an ordinary versioned write to all. If a write found it,
 * the write itself mends the page: it goes there as what it has made of the whole page. Where no
 * member can read it, that write fails; one of the whole page mends it. */
#include "access/vol/vol_int.h"

#define READ_TRIES 3u

struct repair {
    struct tenure *t;
    uint32_t i;
    uint32_t off, len;
};

/* What was read, as the op's own. */
static void op_fill(struct op *op, struct buf *b)
{
    uint32_t pieces = page_pieces(op->off, op->len);

    op->data = (struct slice){buf_get(b), 0, op->len};
    if (pieces > ARRAY_SIZE(op->crc_small))
        op->crc = MEM_NEW_ARRAY(uint32_t, pieces);
    op->n_crc = page_crcs(op->off, op->len, b->data, op->crc);
}

int op_rewrite(struct op *op, uint32_t except)
{
    struct tenure *t = op->t;
    struct buf *b = buf_alloc(op->len);
    bool zero = false;
    int rc = members_read(t, except, op->off, op->len, b, 0, &zero);

    if (rc == 0 && !zero)
        rc = credits_ensure(t, op->off, op->len);
    if (rc == 0 && t->lost)
        rc = ERR_STALE;
    if (rc == 0 && t->slot->vol->held)
        rc = ERR_AGAIN; /* a snapshot is being taken */
    if (rc == 0) {
        if (zero)
            op->kind = ZBS__CHUNK__WRITE_KIND__WRITE_ZERO;
        else
            op_fill(op, b);
        op_send(op);
        if (zero)
            credits_freed(t, op->off, op->len);
        rc = op_wait(op);
    }
    buf_put(b);
    return rc;
}

static struct op *whole_new(const struct op *op, struct buf *b, bool zero)
{
    struct op *whole =
        op_new(op->t, op->kind, ROUND_DOWN(op->off, PAGE_BYTES), op_pages(op) * PAGE_BYTES, NULL);

    whole->kind = zero ? ZBS__CHUNK__WRITE_KIND__WRITE_ZERO : ZBS__CHUNK__WRITE_KIND__WRITE_DATA;
    if (!zero)
        op_fill(whole, b);
    return whole;
}

static bool page_unreadable(struct tenure *t, uint32_t i, uint32_t page)
{
    struct buf *b = buf_alloc(PAGE_BYTES);
    int rc = ERR_CORRUPT;

    /* More than once: what arrives may have been damaged on its way. */
    for (uint32_t k = 0; k < READ_TRIES && is_unread(rc); k++)
        rc = replica_read(t, i, page * PAGE_BYTES, PAGE_BYTES, b, 0, NULL, t->e->member_deadline);
    buf_put(b);
    return is_unread(rc);
}

/* Or was it only the payload that arrived damaged? */
static bool edges_unreadable(const struct op *op, uint32_t i)
{
    uint32_t end = op->off + op->len;

    return (op->off % PAGE_BYTES && page_unreadable(op->t, i, op_first_page(op))) ||
           (end % PAGE_BYTES && page_unreadable(op->t, i, end / PAGE_BYTES));
}

/* Who may have done it, or do it, whose pages it could have. */
static uint32_t able(const struct op *op)
{
    return op->dst & op->t->set & ~op->unread;
}

struct op *op_whole(struct op *op, uint32_t i, int why)
{
    struct tenure *t = op->t;
    uint32_t bit = 1u << i, len = op_pages(op) * PAGE_BYTES;
    bool fits = len <= OP_BYTES_MAX + 2 * PAGE_BYTES;
    struct buf *b = fits ? buf_alloc(len) : NULL;
    struct op *whole = NULL;
    nsec_t since = co_now();

    if (edges_unreadable(op, i))
        op->unread |= bit;
    while (!whole && !op->done && !t->lost && (t->set | t->joining) & bit && able(op) & ~bit) {
        uint32_t have = op->got & able(op) & ~bit;
        bool zero = false;

        if (fits && have &&
            members_read(t, ~have, ROUND_DOWN(op->off, PAGE_BYTES), len, b, 0, &zero) == 0)
            whole = whole_new(op, b, zero);
        else if (co_sleep(t->leaving & bit ? IDLE_PAUSE : RETRY_PAUSE) < 0)
            break;
        else if (co_now() - since >= t->e->member_deadline)
            member_fail(t, i, false, "it can't read a page that is written in part");
    }
    if (whole)
        op->unread &= ~bit; /* now it can */
    else if (!t->lost && (t->set & bit) && !able(op))
        op_fail(op, why);
    else if (!op->done)
        best_effort(co_sleep(RETRY_PAUSE));
    log_info("replica.repairing", "extent=%" PRIu64 " chunk=%u page=%u pages=%u done=%d",
             t->extent_id, t->m[i].chunk->id, op_first_page(op), op_pages(op), whole != NULL);
    if (b)
        buf_put(b);
    return whole;
}

static int repair_page(struct tenure *t, uint32_t i, uint32_t page)
{
    struct buf *b = buf_alloc(PAGE_BYTES);
    struct op *op =
        op_new(t, ZBS__CHUNK__WRITE_KIND__WRITE_DATA, page * PAGE_BYTES, PAGE_BYTES, NULL);
    int rc = op_lock(op);

    if (rc == 0)
        rc = replica_read(t, i, op->off, PAGE_BYTES, b, 0, NULL, t->e->member_deadline);
    if (is_unread(rc)) { /* else it was not this page, or it was mended */
        rc = op_rewrite(op, 1u << i);
        log_info("replica.repaired", "extent=%" PRIu64 " chunk=%u page=%u rc=%d", t->extent_id,
                 t->m[i].chunk->id, page, rc);
    }
    op_put(op);
    buf_put(b);
    return rc;
}

static int repair_run(void *arg)
{
    struct repair *p = arg;
    struct tenure *t = p->t;
    uint32_t last = (p->off + p->len - 1) / PAGE_BYTES;

    phase_enter(PHASE_REPAIRING);
    for (uint32_t page = p->off / PAGE_BYTES; page <= last && !t->lost && !co_canceled(); page++)
        (void)repair_page(t, p->i, page);
    phase_leave(PHASE_REPAIRING);
    co_sem_release(&t->e->repair_room, 1);
    tenure_put(t);
    mem_free(p);
    return 0;
}

void repair_start(struct tenure *t, uint32_t i, uint32_t off, uint32_t len)
{
    struct repair *p;

    /* Enough at once: the next read of the page finds it again. */
    if (!t->serving || !co_sem_try(&t->e->repair_room, 1))
        return;
    p = MEM_NEW(struct repair);
    p->t = tenure_get(t);
    p->i = i;
    p->off = off;
    p->len = len;
    co_spawn_detached_deadline(&t->e->bg, "repair", repair_run, p);
}
