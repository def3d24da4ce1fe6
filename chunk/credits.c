/* SPDX-License-Identifier: Apache-2.0
 *
 * Space that is promised. An extent's *credits* are blocks that its owner was promised, so that a
 * write which all replicas take is refused by none; they end with its opening (PROTOCOL 3.4). Of a
 * *reserved* extent they are what all of it may need: as many as it has blocks without a place of
 * their own, at any time, and nobody need ask for them. That follows from its map alone, so only
 * the flag is on the device, and a start counts anew.
 *
 * It never runs out: a block gets a place for a credit; one that is discarded gives it back; one
 * that is replaced takes another place from the device's reserve, or its pages go through the
 * journal. */
#include <inttypes.h>
#include "chunk/internal.h"

/* Free and promised to nobody, the reserve left alone. */
int64_t blocks_available(const struct dev *d)
{
    return (int64_t)d->free_blocks + MIN(d->spares, d->reserve_blocks) - d->claimed - d->credits -
           d->reserve_blocks;
}

void credits_put(struct ext *x, uint32_t n)
{
    struct dev *d = x->dev;

    d->credits = d->credits - x->credits + n;
    if (x->reserved)
        d->reserved = d->reserved - x->credits + n;
    x->credits = n;
}

/* Several requests may have claimed a place for the same block. */
void credits_keep(struct ext *x)
{
    uint32_t taken = MIN(x->blocks + x->claims, BLOCKS_PER_EXTENT);

    if (x->reserved && !x->dev->replaying)
        credits_put(x, BLOCKS_PER_EXTENT - taken);
}

/* ---- claims: promised to running requests ---- */

int blocks_claim(struct ext *x, uint32_t n, struct claim *ret)
{
    struct dev *d = x->dev;
    uint32_t own = MIN(n, x->credits);

    if (!x->reserved && (int64_t)(n - own) > MAX(blocks_available(d), 0))
        return err_set(ERR_NOSPACE, "disk %s is full: %" PRIu32 " new blocks are needed", d->path,
                       n);
    *ret = (struct claim){n, own};
    x->claims += n;
    d->claimed += n;
    if (x->reserved)
        credits_keep(x);
    else
        credits_put(x, x->credits - own);
    return 0;
}

void blocks_unclaim(struct ext *x, struct claim *c)
{
    struct dev *d = x->dev;

    ASSERT(d->claimed >= c->n && x->claims >= c->n);
    d->claimed -= c->n;
    x->claims -= c->n;
    if (x->reserved)
        credits_keep(x);
    else if (x->open_epoch != 0 && !x->dead) /* else there is nobody to hold them */
        credits_put(x, x->credits + MIN(c->n, c->credits));
    *c = (struct claim){0};
}

void block_placed(struct ext *x)
{
    ASSERT(x->claims > 0);
    x->claims--;
    credits_keep(x);
}

void block_return(struct ext *x, struct claim *c, uint32_t block)
{
    block_untake(x->dev, block);
    x->dev->claimed++;
    c->n++;
}

/* ---- owners ---- */

void credits_open(struct ext *x, uint32_t wanted)
{
    if (x->reserved)
        return;
    credits_put(x, 0);
    credits_put(x, (uint32_t)MIN((int64_t)wanted, MAX(blocks_available(x->dev), 0)));
}

int engine_reserve(struct engine *e, uint64_t id, uint64_t epoch, uint32_t blocks,
                   uint32_t *ret_granted)
{
    struct ext *x = ext_find(e, id);
    int rc = engine_check_epoch(e, id, epoch);

    *ret_granted = 0;
    if (rc < 0)
        return rc;
    if (!x->reserved && blocks_available(x->dev) < (int64_t)blocks)
        return err_set(ERR_NOSPACE, "disk %s: %" PRIu32 " blocks are not free", x->dev->path,
                       blocks);
    if (!x->reserved)
        credits_put(x, x->credits + blocks);
    *ret_granted = blocks;
    return 0;
}

/* ---- reserved extents ---- */

int reserve_room(const struct dev *d, uint64_t id, uint32_t own)
{
    if (blocks_available(d) + own >= BLOCKS_PER_EXTENT)
        return 0;
    return err_set(ERR_NOSPACE, "disk %s has no room for all of extent %" PRIu64, d->path, id);
}

int reserve_check(const struct ext *x)
{
    if (x->frozen)
        return err_set(ERR_PERM, "extent %" PRIu64 " has children: it is not written any more",
                       x->id);
    return reserve_room(x->dev, x->id, x->blocks + x->claims + x->credits);
}

void ext_apply_reserve(struct ext *x, bool on, uint64_t rsn)
{
    credits_put(x, 0);
    x->reserved = on;
    credits_keep(x);
    ext_dirty(x, rsn);
}

static int reserve_change(struct op *op, bool on, uint32_t credits)
{
    struct rec_reserve *r;
    struct ext *x = op->ext;
    struct dev *d = x->dev;
    uint32_t cost = journal_cost(d, sizeof(*r), 0);
    uint64_t rsn;
    int rc = journal_space(d, cost, true);

    if (rc < 0)
        return rc;
    rc = op_check(op);
    if (rc == 0 && on && !x->reserved)
        rc = reserve_check(x);
    if (rc < 0) {
        journal_space_return(d, cost);
        return rc;
    }
    r = rec_new(d, REC_RESERVE, x->id, sizeof(*r));
    r->on = on;
    credits = MIN(credits, x->credits);
    rsn = journal_add(d, &r->h, NULL, cost, false);
    ext_apply_reserve(x, on, rsn);
    if (!on)
        credits_put(x, credits);
    return journal_wait(d, rsn);
}

int engine_reserve_extent(struct engine *e, uint64_t id, uint64_t epoch, bool on, uint32_t credits)
{
    struct op op;
    int rc = op_begin(e, id, epoch, &op);

    if (rc < 0)
        return rc;
    rc = op.ext->reserved != on ? reserve_change(&op, on, credits) : journal_sync(op.ext->dev);
    op_end(&op);
    return rc;
}
