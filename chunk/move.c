/* SPDX-License-Identifier: Apache-2.0
 *
 * Moving an extent to another device of its worker while it serves.
 *   1. A twin is created there, marked as arriving; what relatives have there it shares.
 *   2. Passes: blocks are copied; pages that are written meanwhile are copied again, until few are
 *      left.
 *   3. No request is admitted (they wait), the running ones end, the rest is copied, the device is
 *      flushed.
 *   4. What else an extent is - epoch, versions, missing sets - is journaled there, and as the last
 *      record REC_ARRIVE. When that is durable the twin is the extent.
 *   5. The former one is deleted, durably. Requests go on.
 * A crash before the record of 4 leaves the former extent and a twin that is deleted at start; one
 * behind it leaves two equal copies, of which one is deleted at start (settle.c): nothing was
 * admitted in between. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "chunk/move.h"

#define PASSES_MAX   8u   /* before requests have to wait whatever is left */
#define FINAL_BLOCKS 16u  /* few enough for them to wait for */
#define RUNS_MAX     512u /* of one REC_VERSIONS */

/* ---- the twin ---- */

int twin_check(const struct move *m)
{
    const struct ext *x = m->from;

    if (x->dead || x->deleting)
        return err_set(ERR_NO_REPLICA, "extent %" PRIu64 " is being deleted", x->id);
    if (ext_is_apart(m->dev->e, x->id)) /* meanwhile */
        return err_set(ERR_AGAIN, "a copy of extent %" PRIu64 " is being deleted", x->id);
    return m->twin.reserve ? reserve_room(m->dev, x->id, 0) : 0;
}

/* An empty one. */
static int twin_new(struct move *m)
{
    struct ext_place place = {0};
    int rc = ext_place_take(m->dev, &place);

    if (rc < 0)
        return rc;
    rc = twin_check(m);
    if (rc < 0) {
        ext_place_return(m->dev, &place);
        return rc;
    }
    m->to = ext_new(m->dev, m->from->id, place.head);
    ext_apart_begin(m->to);
    (void)ext_create_add(m->to, &m->twin, &place, true);
    return 0;
}

static void all_dirty(struct move *m)
{
    for (uint32_t b = 0; b < BLOCKS_PER_EXTENT; b++)
        m->dirty[b] = block_mapped(m->from, b) ? UINT64_MAX : 0;
}

/* It begins with what its relatives have there already. */
static int twin_make(struct move *m)
{
    int rc = ext_apart_wait(m->dev->e, m->from->id); /* of a former move */

    all_dirty(m);
    if (rc == 0)
        rc = move_share(m);
    if (rc == ERR_TOO_LARGE) { /* more can't share it */
        all_dirty(m);
        rc = 0;
    }
    return rc == 0 && m->to == NULL ? twin_new(m) : rc;
}

/* ---- the state ---- */

/* Adds a record to the twin's journal and applies it as replay would. */
static int state_add(struct ext *y, struct rec_head *h, uint64_t *ret_rsn)
{
    struct dev *d = y->dev;
    uint32_t cost = journal_cost(d, h->bytes, 0);
    int rc = journal_space(d, cost, false);

    if (rc < 0) {
        mem_free(h);
        return rc;
    }
    if (h->type == REC_MISSING)
        missing_apply(y, (struct rec_missing *)h,
                      (const struct disk_mask *)((struct rec_missing *)h + 1));
    else if (h->type == REC_VERSIONS)
        ext_apply_versions(y, (struct rec_versions *)h);
    *ret_rsn = journal_add(d, h, NULL, cost, false);
    if (h->type == REC_ARRIVE)
        ext_apply_arrive(y, (struct rec_arrive *)h, *ret_rsn);
    ext_dirty(y, *ret_rsn);
    return 0;
}

static int state_versions(const struct ext *x, struct ext *y, uint64_t *rsn)
{
    int rc = 0;

    for (uint32_t i = 0, n; i < x->n_unc && rc == 0; i += n) {
        struct rec_versions *r;
        struct disk_uncommitted *u;

        n = MIN(x->n_unc - i, RUNS_MAX);
        r = rec_new(y->dev, REC_VERSIONS, x->id, sizeof(*r) + n * sizeof(*u));
        r->count = n;
        u = (struct disk_uncommitted *)(r + 1);
        for (uint32_t k = 0; k < n; k++) {
            const struct uncommitted *from = &x->unc[i + k];

            u[k] = (struct disk_uncommitted){from->first, from->last, from->v.epoch, from->v.gen};
        }
        rc = state_add(y, &r->h, rsn);
    }
    return rc;
}

static int state_missing(const struct ext *x, struct ext *y, uint64_t *rsn)
{
    int rc = 0;

    for (uint32_t i = 0; x->missing != NULL && i < MISSING_MAX && rc == 0; i++) {
        const struct missing_set *m = &x->missing[i];
        struct rec_missing *r;
        struct disk_mask *out;

        if (m->replica == 0)
            continue;
        r = rec_new(y->dev, REC_MISSING, x->id, sizeof(*r) + m->pages.n * sizeof(*out));
        r->replica = m->replica;
        r->count = m->pages.n;
        r->last_epoch = m->last_version.epoch;
        r->last_gen = m->last_version.gen;
        r->h.flags = m->everything ? REC_F_EVERYTHING : 0;
        out = (struct disk_mask *)(r + 1);
        for (uint32_t k = 0; k < m->pages.n; k++)
            out[k] = (struct disk_mask){(uint16_t)m->pages.e[k].block, m->pages.e[k].mask};
        rc = state_add(y, &r->h, rsn);
    }
    return rc;
}

/* All of it durable; then the twin counts. */
static int state_journal(const struct ext *x, struct ext *y)
{
    struct rec_arrive *r;
    uint64_t rsn = 0;
    int rc = state_versions(x, y, &rsn);

    if (rc == 0)
        rc = state_missing(x, y, &rsn);
    if (rc < 0)
        return rc;
    r = rec_new(y->dev, REC_ARRIVE, x->id, sizeof(*r));
    r->epoch = x->durable_epoch;
    r->cp_epoch = x->cp.epoch;
    r->cp_gen = x->cp.gen;
    r->last_epoch = x->last.epoch;
    r->last_gen = x->last.gen;
    r->is_void = x->is_void;
    r->frozen = x->frozen;
    r->h.flags = x->reserved ? REC_F_RESERVED : 0;
    rc = state_add(y, &r->h, &rsn);
    return rc == 0 ? journal_wait(y->dev, rsn) : rc;
}

/* ---- sharing ---- */

int ext_shares(struct ext *x, bool *ret)
{
    int rc = 0;

    *ret = false;
    for (uint32_t b = 0; b < BLOCKS_PER_EXTENT && rc == 0 && !*ret; b++) {
        struct map_hold hold;

        if (!block_shared(x, b) && !(x->frozen && block_mapped(x, b)))
            continue;
        rc = map_hold(x, b, b, &hold);
        for (uint32_t k = 0; k < MAP_SOURCES && rc == 0; k++) {
            uint32_t block = map_get(x, b)->src[k].block;

            *ret |= block != BLOCK_NONE && shared_bit_get(x->dev, block);
        }
        map_release(&hold);
        if (rc == ERR_CORRUPT)
            rc = 0; /* it is void */
    }
    return rc;
}

/* ---- the switch ---- */

/* Requests that come now wait (ext_admit), those that run end. */
static int quiesce(struct move *m)
{
    struct ext *x = m->from;

    x->switching = true;
    while (!x->dev->failed && (!list_empty(&x->ops) || x->opening > 0))
        co_cond_wait_always(&x->ops_ended);
    if (x->dead || x->deleting)
        return err_set(ERR_NO_REPLICA, "extent %" PRIu64 " is being deleted", x->id);
    m->alone = true;
    return dev_check(x->dev);
}

/* The twin takes the place of the former one, which is deleted. */
static void take_over(struct move *m)
{
    struct ext *x = m->from, *y = m->to;
    int64_t room = MAX(blocks_available(y->dev), 0);
    int rc;

    y->epoch = x->epoch;
    y->open_epoch = x->open_epoch;
    y->vouched = x->vouched;
    if (!y->reserved)
        credits_put(y, (uint32_t)MIN((int64_t)x->credits, room));
    y->switching = true; /* until the former one is gone */
    x->dead = true;
    x->move = NULL;
    ext_unlist(x);
    ext_apart_begin(x);
    ext_apart_end(y);
    ext_insert(y);
    rc = ext_discard(ext_get(x)); /* drops the table's reference */
    if (rc < 0) /* the device failed; at the next start the copy that was written to later wins */
        log_warn("move.leftover", "extent=%" PRIu64 " disk=%s why=\"%s\"", x->id, x->dev->path,
                 err_text(rc));
    y->switching = x->switching = false;
    co_cond_broadcast(&x->ops_ended);
    co_cond_broadcast(&y->ops_ended);
    ext_put(x);
}

void move_target_failed(struct ext *x, const struct dev *d)
{
    if (!x->switching || x->move == NULL || x->move->dev != d)
        return;
    x->switching = false; /* the move can't succeed any more: nobody need wait for its end */
    co_cond_broadcast(&x->ops_ended);
}

/* What was promised since the twin was made; REC_ARRIVE says whether it is in force. */
static int twin_reserve(struct move *m)
{
    struct ext *y = m->to;
    int rc = m->from->reserved && !y->reserved ? reserve_check(y) : 0;

    if (rc == 0 && m->from->reserved) {
        y->reserved = true;
        credits_keep(y);
    }
    return rc;
}

static int move_switch(struct move *m)
{
    struct map_hold hold = {0};
    int rc = quiesce(m);

    if (rc == 0)
        rc = move_pass(m);
    if (rc == 0) /* so that the deletion need not read: its device may stop answering */
        rc = map_hold(m->from, 0, BLOCKS_PER_EXTENT - 1, &hold);
    if (rc == ERR_CORRUPT)
        rc = 0; /* what is left of it */
    if (rc == 0)
        rc = twin_reserve(m);
    if (rc == 0)
        rc = dev_flush(m->to->dev);
    if (rc == 0)
        rc = state_journal(m->from, m->to);
    if (rc == 0)
        take_over(m);
    map_release(&hold);
    if (rc == 0)
        return 0;
    m->from->switching = false;
    co_cond_broadcast(&m->from->ops_ended);
    return rc;
}

/* ---- all of it ---- */

static int copy_run(struct move *m)
{
    int rc;

    m->passes = 0;
    m->each = move_copy_block;
    do
        rc = move_pass(m);
    while (rc == 0 && m->passes < PASSES_MAX && move_dirty_blocks(m) > FINAL_BLOCKS);
    return rc == 0 ? move_switch(m) : rc;
}

static int move_run(struct move *m)
{
    struct ext *x = m->from;
    int rc;

    x->move = m; /* from here on writes are noted */
    rc = twin_make(m);
    if (rc == 0)
        rc = copy_run(m);
    if (!x->dead || rc < 0)
        x->move = NULL;
    return rc;
}

int ext_move(struct ext *x, struct dev *d)
{
    struct move *m = MEM_NEW(struct move);
    char why[200];
    int rc;

    m->dev = d;
    m->from = ext_get(x);
    m->twin = (struct create_args){.id = x->id,
                                   .epoch = x->durable_epoch,
                                   .volume_id = x->volume_id,
                                   .slot = x->slot,
                                   .family = x->family,
                                   .reserve = x->reserved};
    rc = move_run(m);
    if (rc == 0)
        log_debug("extent.moved", "extent=%" PRIu64 " from=%s to=%s", x->id, x->dev->path, d->path);
    if (rc < 0 && m->to != NULL) {
        snprintf(why, sizeof(why), "%s", err_text(rc));
        if (ext_discard(m->to) < 0)
            log_debug("move.twin_left", "extent=%" PRIu64 " disk=%s", x->id, d->path);
        rc = err_set(rc, "%s", why);
    }
    ext_put(x);
    mem_free(m);
    return rc;
}
