/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading extents that volumes share (PROTOCOL 1.1, 1.3). They are clean and nobody writes to them,
 * so any member may be asked, without an open. What was the content when the slot was entered is so
 * for ever: the lease has to be good then, not when the data arrives.
 *
 * Members may change all the same, under a lease of the extent's own. A member that returns has not
 * everything before it is one again; but it was opened under an epoch that is higher than the one
 * at which we learnt of it, and refuses us: then meta is asked again. */
#include "access/vol/vol_int.h"

struct shared *shared_new(struct vol_engine *e, const struct grant *g)
{
    struct shared *sh = MEM_NEW(struct shared);

    sh->e = e;
    sh->refs = 1;
    sh->extent_id = g->extent_id;
    sh->family = g->family;
    sh->epoch = g->extent_epoch;
    for (uint32_t i = 0; i < g->n_members; i++)
        sh->chunks[sh->n++] = chunk_get(e, g->members[i]);
    return sh;
}

void shared_put(struct shared *sh)
{
    if (sh && --sh->refs == 0)
        mem_free(sh);
}

/* Of the mask, which names some. */
static uint32_t choose(const struct shared *sh, uint32_t mask)
{
    uint32_t best = (uint32_t)__builtin_ctz(mask);

    for (uint32_t i = best + 1; i < sh->n; i++)
        if (mask >> i & 1 && chunk_read_cost(sh->chunks[i]) < chunk_read_cost(sh->chunks[best]))
            best = i;
    return best;
}

static int read_at(struct shared *sh, uint32_t i, uint32_t off, uint32_t len, struct buf *dst,
                   uint32_t dst_off, nsec_t timeout)
{
    struct read_of of = {.extent_id = sh->extent_id, .family = sh->family, .view_epoch = sh->epoch};
    nsec_t sent = co_now();
    int rc = chunk_read(sh->chunks[i], &of, off, len, dst, dst_off, NULL, timeout);

    if (rc == 0)
        pace_foreground(sh->chunks[i], co_now() - sent);
    return rc;
}

void shared_refused(struct shared *sh, int rc)
{
    if (rc == ERR_AGAIN || rc == ERR_NO_REPLICA)
        recover_open(sh->e, sh->extent_id);
}

int shared_read(struct shared *sh, uint32_t off, uint32_t len, struct buf *dst, uint32_t dst_off)
{
    uint32_t all = (1u << sh->n) - 1, left = all, bad = 0;
    int bad_rc = 0;

    while (left) {
        nsec_t timeout = sh->e->member_deadline;
        uint32_t i = choose(sh, left);
        int rc;

        if (left & (left - 1))
            timeout /= 2; /* there is another to turn to */
        rc = read_at(sh, i, off, len, dst, dst_off, timeout);
        if (rc == 0 || rc == ERR_CANCELED || rc == ERR_STALE)
            return rc;
        if (rc == ERR_TIMEOUT && co_now() >= co_deadline())
            return rc;
        if (rc == ERR_IO || rc == ERR_CORRUPT) {
            log_warn("shared.read_error", "extent=%" PRIu64 " chunk=%u error=%s \"%s\"",
                     sh->extent_id, sh->chunks[i]->id, err_name(rc), err_text(rc));
            bad |= 1u << i;
            bad_rc = rc;
        }
        shared_refused(sh, rc);
        left &= ~(1u << i);
    }
    if (bad == all)
        return bad_rc;
    return err_set(ERR_STALE, "no member of extent %" PRIu64 " answers", sh->extent_id);
}
