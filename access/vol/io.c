/* SPDX-License-Identifier: Apache-2.0
 *
 * One I/O on one slot: served by our tenure, answered from a hole, or forwarded to the owner, and
 * begun again when ownership changed under it.
 *
 * Only what certainly had no effect is begun again. A write that was sent to a member may have been
 * applied, and seen, before ownership was lost; executed once more it could bring its value back
 * after a newer one. Then the outcome is unknown, and the caller is told so (PROTOCOL 8.2). */
#include "access/vol/vol_int.h"

#include <string.h>

#define UNKNOWN_LIMIT (10 * NSEC_PER_SEC)

static uint32_t write_kind(const struct io *io)
{
    switch (io->kind) {
    case IO_ZERO:
        return ZBS__CHUNK__WRITE_KIND__WRITE_ZERO;
    case IO_DISCARD:
        return ZBS__CHUNK__WRITE_KIND__WRITE_DISCARD;
    default:
        return ZBS__CHUNK__WRITE_KIND__WRITE_DATA;
    }
}

/* A forwarded write that was sent must be seen through to its end, because its outcome is asked
 * for by number; our own callers may leave. */
static int op_wait_for(struct op *op, const struct io *io)
{
    struct co_shield shield;
    int rc;

    while (mutate(MUT_ACK_EARLY) && !op->done) {
        if ((op->got & op->t->set) != 0)
            return 0;
        co_cond_wait_always(&op->finished);
    }
    if (!io->forwarded)
        return op_wait(op);
    co_shield_begin(&shield);
    rc = op_wait(op);
    co_shield_end(&shield);
    return rc;
}

static int tenure_write(struct tenure *t, struct io *io)
{
    struct slice data = {io->buf, io->buf_off, io->len};
    bool has_data = io->kind == IO_WRITE;
    struct op *op = op_new(t, write_kind(io), io->off, io->len, has_data ? &data : NULL);
    int rc = op_lock(op);

    if (rc == 0)
        rc = has_data ? credits_ensure(t, io->off, io->len)
                      : credits_ensure_edges(t, io->off, io->len);
    if (rc == 0)
        rc = reservations_check(io);
    if (rc == 0 && t->lost)
        rc = ERR_STALE;
    if (rc == 0) {
        io->sent = true;
        op_send(op);
        if (!has_data)
            credits_freed(t, io->off, io->len);
        rc = op_wait_for(op, io);
    }
    op_put(op);
    return rc;
}

int io_attempt(struct io *io, struct tenure *t)
{
    switch (io->kind) {
    case IO_READ:
        return tenure_read(t, io->off, io->len, io->buf, io->buf_off);
    case IO_COMPARE_AND_WRITE:
        return tenure_compare_and_write(t, io);
    default:
        return tenure_write(t, io);
    }
}

/* Nobody has written it and it is ours: it reads as zeroes, and is discarded already. */
static int io_hole(struct io *io)
{
    if (io->kind == IO_READ)
        memset(io->buf->data + io->buf_off, 0, io->len);
    return 0;
}

/* What a failed forwarding means: 0: begin again after a pause. */
static int forward_failed(struct io *io, uint64_t owner, int rc)
{
    struct vol_engine *e = io->slot->vol->e;

    switch (rc) {
    case ERR_NOT_OWNER:
        slot_not_foreign(io->slot, owner, io->fwd_hint);
        return 0;
    case ERR_AGAIN:
        return 0;
    case ERR_UNREACHABLE:
    case ERR_CLOSED:
    case ERR_HALTED:
    case ERR_EXPIRED:
    case ERR_TIMEOUT:
        if (co_now() >= co_deadline())
            return ERR_TIMEOUT;
        if (e->stopping)
            return ERR_HALTED;
        slot_not_foreign(io->slot, owner, 0);
        return 0;
    default:
        return rc;
    }
}

static int io_forward(struct io *io, uint64_t owner)
{
    int rc = forward_io(io, owner);

    if (rc == 0) {
        io->slot->foreign_until = co_now() + 10 * NSEC_PER_SEC;
        return 0;
    }
    rc = forward_failed(io, owner, rc);
    return rc < 0 ? rc : ERR_STALE;
}

static const enum enter enter_of[] = {
    [IO_READ] = ENTER_READ,
    [IO_WRITE] = ENTER_WRITE,
    [IO_ZERO] = ENTER_CLEAR,
    [IO_DISCARD] = ENTER_CLEAR,
    [IO_COMPARE_AND_WRITE] = ENTER_WRITE,
};

static int io_loop(struct io *io)
{
    struct slot *s = io->slot;
    nsec_t pause = 0;

    for (;;) {
        struct entry en;
        int rc = slot_enter(s, enter_of[io->kind], &en);

        if (io->unknown && (rc == 0 || (rc == ERR_NOT_OWNER && en.owner != io->fwd_session))) {
            if (rc == 0)
                slot_leave(s, &en);
            return err_set(ERR_AMBIGUOUS, "the former owner of slot %u did not answer", s->index);
        }
        if (rc == ERR_NOT_OWNER && io->forwarded) {
            io->fwd_hint = en.owner;
            return err_set(ERR_NOT_OWNER, "slot %u belongs to another session", s->index);
        }
        if (rc == 0 && UNLIKELY(s->follow || io->from))
            follow_count(s, io->from);
        if (rc == ERR_NOT_OWNER) {
            rc = io_forward(io, en.owner);
        } else if (rc < 0) {
            return rc;
        } else if (en.shared) {
            rc = shared_read(en.shared, io->off, io->len, io->buf, io->buf_off);
            if (rc == ERR_STALE)
                slot_shared_stale(s, en.shared);
            slot_leave(s, &en);
        } else if (!en.t) {
            return io_hole(io);
        } else {
            rc = io_attempt(io, en.t);
            slot_leave(s, &en);
        }
        if (rc != ERR_STALE)
            return rc;
        if (io->sent)
            return err_set(ERR_AMBIGUOUS, "ownership of slot %u was lost during a write", s->index);
        if (io->forwarded)
            return err_set(ERR_AGAIN, "ownership of slot %u changed", s->index);
        pause = MIN(pause + 2 * NSEC_PER_MSEC, IDLE_PAUSE);
        rc = co_sleep(pause);
        if (rc < 0)
            return rc;
    }
}

/* A caller that loses patience leaves a write of ours behind in its range lock, where everything
 * later waits for it. One that was forwarded may not have reached the owner's lock yet, and could
 * be executed after what the caller does next: so its end is awaited, within a bound after which
 * the owner would not start it any more. */
int io_run(struct io *io)
{
    struct co_shield shield;
    nsec_t former;
    int rc;

    ASSERT(io->len > 0 && (uint64_t)io->off + io->len <= EXTENT_BYTES);
    rc = io_loop(io);
    if (LIKELY(rc == 0) || !io->unknown || (rc != ERR_TIMEOUT && rc != ERR_CANCELED))
        return rc;
    co_shield_begin(&shield);
    former = co_deadline_push(co_now() + UNKNOWN_LIMIT);
    rc = io_loop(io);
    co_deadline_restore(former);
    co_shield_end(&shield);
    return rc == ERR_TIMEOUT ? err_set(ERR_AMBIGUOUS, "the owner did not answer") : rc;
}
