/* SPDX-License-Identifier: Apache-2.0
 *
 * A sequential writer that comes to a block with data, with large requests that don't fill it: the
 * block gets a new place, where what is written goes straight, and what it had remains, only to be
 * read, until the writer has replaced all of it. So nothing is written twice; a block has two
 * places while the writer is in it. Where it stopped in the middle the scrubber joins them.
 *
 * Not for random writers: they would leave two places for each block, or pay for joining them what
 * the journal costs. */
#include "chunk/write.h"

/* The writer is at the block's beginning, what it has is its own and home, and nothing but this
 * request is on the way there. */
static bool may_renew(const struct writing *w, uint32_t index)
{
    uint32_t begin = index * PAGES_PER_BLOCK;
    const struct ext *x = w->x;

    return w->first <= begin && w->last < begin + PAGES_PER_BLOCK - 1 && !x->frozen &&
           block_allocated(x, index) && !pages_fresh(x, begin, w->last - begin + 1) &&
           vblk_get(x, index) == NULL && entry_may_renew(map_get(x, index)) &&
           blocks_available(x->dev) > (int64_t)x->dev->reserve_blocks;
}

static int renew(struct writing *w, uint32_t index)
{
    uint32_t thaw = thaw_cost(w->x, 1),
             alloc = journal_cost(w->x->dev, sizeof(struct rec_alloc), 0);
    struct dev *d = w->x->dev;
    uint32_t block;
    int rc = journal_space(d, thaw + alloc, false);

    if (rc < 0)
        return rc;
    d->claimed++;
    rc = block_take(w->x, index, &block);
    d->claimed -= rc < 0;
    if (rc < 0)
        goto err_after_space;
    rc = op_check(&w->op);
    if (rc == 0 && may_renew(w, index)) { /* still */
        thaw_add_one(w->x, index, thaw);
        share_alloc_add(w->x, index, block, alloc);
        return 0;
    }
    block_untake(d, block);
err_after_space:
    journal_space_return(d, thaw + alloc);
    return rc;
}

int renew_last(struct writing *w)
{
    uint32_t index = w->last / PAGES_PER_BLOCK;

    if (w->a->kind != W_DATA || w->last - w->first + 1 < DIRECT_PAGES_MIN || !merge_is_alone(w) ||
        !may_renew(w, index))
        return 0;
    return renew(w, index);
}
