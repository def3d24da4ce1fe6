/* SPDX-License-Identifier: Apache-2.0
 *
 * Repair of pages that a member could not read (PROTOCOL 4.2): under the range lock, after
 * reading again, from another member, as an ordinary versioned write to all. */
#include "access/vol/vol_int.h"

struct repair {
    struct tenure *t;
    uint32_t i;
    uint32_t off, len;
};

static int repair_page(struct tenure *t, uint32_t i, uint32_t page)
{
    struct buf *b = buf_alloc(PAGE_BYTES);
    struct slice data = {b, 0, PAGE_BYTES};
    struct op *op =
        op_new(t, ZBS__CHUNK__WRITE_KIND__WRITE_DATA, page * PAGE_BYTES, PAGE_BYTES, NULL);
    bool zero = false;
    int rc = op_lock(op);

    if (rc == 0)
        rc = replica_read(t, i, op->off, PAGE_BYTES, b, 0, NULL, t->e->member_deadline);
    if (rc != ERR_IO && rc != ERR_CORRUPT)
        goto out; /* it was not this page, or it was mended meanwhile */
    rc = members_read(t, 1u << i, op->off, PAGE_BYTES, b, 0, &zero);
    if (rc == 0 && !zero)
        rc = credits_ensure(t, op->off, PAGE_BYTES);
    if (rc == 0 && t->lost)
        rc = ERR_STALE;
    if (rc < 0)
        goto out;
    if (zero) {
        op->kind = ZBS__CHUNK__WRITE_KIND__WRITE_ZERO;
    } else {
        op->data = data;
        buf_get(b);
        op->n_crc = page_crcs(op->off, PAGE_BYTES, b->data, op->crc);
    }
    if (t->slot->vol->held) {
        rc = ERR_AGAIN; /* a snapshot is being taken: who reads the page finds it again */
        goto out;
    }
    op_send(op);
    rc = op_wait(op);
    log_info("replica.repaired", "extent=%" PRIu64 " chunk=%u page=%u rc=%d", t->extent_id,
             t->m[i].chunk->id, page, rc);
out:
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
