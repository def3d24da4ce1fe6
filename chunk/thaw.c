/* SPDX-License-Identifier: Apache-2.0
 *
 * Writing to an extent that has children. A frozen extent's own blocks may be its children's, too:
 * before anything is written to one, it becomes one of the sources that are only read, by a record,
 * and the write finds a block of the extent's own as it does in a child. A repair does this for the
 * blocks that it touches; an opener who says that nothing shares the extent any more, for all. */
#include <inttypes.h>
#include <string.h>
#include "chunk/internal.h"

/* MAP_SOURCES: none. */
static uint32_t slot_free(const struct map_entry *en)
{
    uint32_t k = 1;

    while (k < MAP_SOURCES && en->src[k].block != BLOCK_NONE)
        k++;
    return k;
}

bool entry_has_room(const struct map_entry *en)
{
    return slot_free(en) < MAP_SOURCES;
}

/* Is the block's own place others', too? The map is loaded. Not if no slot is free, whatever a lost
 * bitmap says: a child has none for as many sources. */
static bool own_shared(const struct ext *x, uint32_t index)
{
    const struct map_entry *en;

    if (!block_allocated(x, index))
        return false;
    en = map_get(x, index);
    return en->src[0].valid != 0 && shared_bit_get(x->dev, en->src[0].block) && entry_has_room(en);
}

static uint32_t count_shared(const struct ext *x, uint32_t first, uint32_t last)
{
    uint32_t n = 0;

    for (uint32_t b = first; b <= last; b++)
        n += own_shared(x, b);
    return n;
}

static uint32_t rec_room(uint32_t n)
{
    return sizeof(struct rec_thaw) + n * (uint32_t)sizeof(struct thaw_block);
}

/* The block's sources when its own is only read; a slot must be free. The map is loaded. */
static void thaw_one(const struct ext *x, uint32_t index, struct thaw_block *ret)
{
    const struct map_entry *en = map_get(x, index);

    ret->index = index;
    memcpy(ret->src, en->src, sizeof(ret->src));
    ret->src[slot_free(en)] = ret->src[0];
    ret->src[0] = (struct map_src){0};
}

uint32_t thaw_cost(const struct ext *x, uint32_t blocks)
{
    return journal_cost(x->dev, rec_room(blocks), 0);
}

void thaw_add_one(struct ext *x, uint32_t index, uint32_t space)
{
    struct rec_thaw *r = rec_new(x->dev, REC_THAW, x->id, rec_room(1));
    struct thaw_block *t = (struct thaw_block *)(r + 1);
    uint64_t rsn;

    r->count = 1;
    thaw_one(x, index, t);
    rsn = journal_add(x->dev, &r->h, NULL, space, true);
    map_apply_thaw(x, t, rsn);
    ext_dirty(x, rsn);
}

/* From block *next on, as much as one record holds. No suspension; the map is loaded. */
static uint64_t thaw_add(struct ext *x, uint32_t *next, uint32_t last, bool all, uint32_t cost)
{
    uint32_t n = MIN(count_shared(x, *next, last), THAW_BLOCKS_MAX);
    struct rec_thaw *r = rec_new(x->dev, REC_THAW, x->id, rec_room(n));
    struct thaw_block *t = (struct thaw_block *)(r + 1);
    uint64_t rsn;

    r->count = n;
    for (; *next <= last; (*next)++) {
        if (!own_shared(x, *next))
            continue;
        if (n == 0)
            break;
        thaw_one(x, *next, t++);
        n--;
    }
    r->h.flags = all && *next > last ? REC_F_THAWED : 0;
    rsn = journal_add(x->dev, &r->h, NULL, cost, false);
    t = (struct thaw_block *)(r + 1);
    for (uint32_t i = 0; i < r->count; i++)
        map_apply_thaw(x, &t[i], rsn);
    if (r->h.flags & REC_F_THAWED)
        x->frozen = false;
    ext_dirty(x, rsn);
    return rsn;
}

int thaw_blocks(struct op *op, uint32_t first_block, uint32_t last_block)
{
    struct ext *x = op->ext;
    uint32_t next = first_block, cost;
    int rc = home_lent(x, first_block, last_block);

    while (rc == 0 && x->frozen && next <= last_block && count_shared(x, next, last_block) > 0) {
        cost = thaw_cost(x, MIN(last_block - next + 1, THAW_BLOCKS_MAX));
        rc = journal_space(x->dev, cost, false);
        if (rc < 0)
            break;
        rc = op_check(op);
        if (rc == 0)
            (void)thaw_add(x, &next, last_block, false, cost);
        else
            journal_space_return(x->dev, cost);
    }
    return rc;
}

static int thaw_locked(struct ext *x, uint64_t epoch)
{
    uint32_t cost = thaw_cost(x, THAW_BLOCKS_MAX), next = 0;
    struct map_hold hold = {0};
    int rc = map_hold(x, 0, BLOCKS_PER_EXTENT - 1, &hold);

    if (rc == ERR_CORRUPT)
        rc = 0; /* it is void now; what is left of it is written like everything */
    if (rc == 0)
        rc = home_lent(x, 0, BLOCKS_PER_EXTENT - 1);
    while (rc == 0 && x->frozen) {
        rc = journal_space(x->dev, cost, true);
        if (rc < 0)
            break;
        if (x->dead || x->deleting || x->epoch != epoch) {
            journal_space_return(x->dev, cost);
            break; /* the opener finds it out */
        }
        (void)thaw_add(x, &next, BLOCKS_PER_EXTENT - 1, true, cost);
    }
    map_release(&hold);
    return rc;
}

int ext_thaw(struct ext *x, uint64_t epoch)
{
    struct co_range range;
    int rc;

    if (!x->frozen)
        return 0;
    rc = co_range_acquire(&x->lock, &range, 0, PAGES_PER_EXTENT, true);
    if (rc < 0)
        return rc;
    rc = thaw_locked(x, epoch);
    co_range_release(&x->lock, &range);
    return rc;
}

/* ---- at start ---- */

/* Pages of the block that records before this one put into the journal were home when it was made,
 * where they are read from now on: they are not to be written again, wherever the block is now. */
static void thaw_settle(struct ext *x, uint32_t index)
{
    const struct vblk *v = vblk_get(x, index);

    for (uint64_t mask = v != NULL ? v->mask : 0; mask != 0; mask &= mask - 1) {
        uint32_t bit = (uint32_t)__builtin_ctzll(mask);
        const struct jpage *jp = vblk_page(v, bit);

        map_change(x, index, jp->rsn)->crc[bit] = jp->crc;
    }
    jpage_drop(x, index * PAGES_PER_BLOCK, PAGES_PER_BLOCK);
}

int thaw_replay(struct ext *x, const struct rec_thaw *r, uint64_t rsn)
{
    const struct thaw_block *t = (const struct thaw_block *)(r + 1);
    struct map_hold hold;
    int rc = 0;

    for (uint32_t i = 0; i < r->count && rc == 0; i++) {
        rc = map_hold(x, t[i].index, t[i].index, &hold);
        if (rc == ERR_CORRUPT)
            rc = 0; /* void */
        if (rc == 0) {
            thaw_settle(x, t[i].index);
            map_apply_thaw(x, &t[i], rsn);
        }
        map_release(&hold);
    }
    if (r->h.flags & REC_F_THAWED)
        x->frozen = false;
    ext_dirty(x, rsn);
    return rc;
}

bool thaw_ok(const struct rec_thaw *r, uint32_t blocks)
{
    const struct thaw_block *t = (const struct thaw_block *)(r + 1);
    bool ok = r->count <= THAW_BLOCKS_MAX;

    for (uint32_t i = 0; i < r->count && ok; i++) {
        ok = t[i].index < BLOCKS_PER_EXTENT && t[i].src[0].block == BLOCK_NONE;
        for (uint32_t k = 0; k < MAP_SOURCES; k++)
            ok = ok && t[i].src[k].block <= blocks;
    }
    return ok;
}
