/* SPDX-License-Identifier: Apache-2.0
 *
 * Writing where blocks are shared with other extents. A block of the extent has its own place once
 * something is written to it (source 0); the pages not written since stay in the other sources,
 * which are only read. A source that nobody else has becomes the block's own instead. */
#include <inttypes.h>
#include <string.h>
#include "chunk/internal.h"

/* A block that has its own keeps one slot free, so that its children have room for all sources. */
#define OTHERS_MAX (MAP_SOURCES - 2)
#define RENEW_MAX  64u /* blocks that one request renews: whoever asks has a deadline */

static uint32_t others(const struct map_entry *en)
{
    uint32_t n = 0;

    for (uint32_t k = 1; k < MAP_SOURCES; k++)
        n += en->src[k].block != BLOCK_NONE;
    return n;
}

uint32_t share_dropped(const struct ext *x, uint32_t index, uint64_t mask, bool all,
                       struct rec_ref *ret, bool *ret_change)
{
    const struct map_entry *en = map_get(x, index);
    uint32_t n = 0;

    *ret_change = false;
    for (uint32_t k = 0; k < MAP_SOURCES; k++) {
        const struct map_src *s = &en->src[k];

        if (s->block == BLOCK_NONE || (k == 0 && !all))
            continue;
        *ret_change |= (s->valid & mask) != 0;
        if (all || (s->valid & ~mask) == 0)
            ret[n++] = refs_less(x->dev, s->block);
    }
    return n;
}

uint64_t share_alloc_add(struct ext *x, uint32_t index, uint32_t block, uint32_t space)
{
    struct rec_alloc *r = rec_new(x->dev, REC_ALLOC, x->id, sizeof(*r));
    uint64_t rsn;

    r->index = index;
    r->block = block;
    rsn = journal_add(x->dev, &r->h, NULL, space, true);
    map_apply_alloc(x, index, block, rsn);
    return rsn;
}

bool entry_may_renew(const struct map_entry *en)
{
    return others(en) < OTHERS_MAX;
}

/* ---- adopting ---- */

/* What an extent has from a device that is being drained may yet be shared by relatives that come
 * from there. */
static bool relatives_may_come(const struct ext *x)
{
    LIST_FOREACH (d, &x->dev->e->devs, struct dev, link) {
        if (d != x->dev && d->drain_running)
            return true;
    }
    return false;
}

/* The source with most pages that is this extent's alone; BLOCK_NONE if there is none. */
static uint32_t orphan(const struct ext *x, uint32_t index)
{
    const struct map_entry *en;
    uint32_t best = 0;
    int most = 0;

    if (block_allocated(x, index) || !block_shared(x, index) || relatives_may_come(x))
        return BLOCK_NONE;
    en = map_get(x, index);
    for (uint32_t k = 1; k < MAP_SOURCES; k++) {
        int pages = __builtin_popcountll(en->src[k].valid);

        if (en->src[k].block != BLOCK_NONE && !shared_bit_get(x->dev, en->src[k].block) &&
            pages > most) {
            most = pages;
            best = k;
        }
    }
    return best != 0 ? en->src[best].block : BLOCK_NONE;
}

static int adopt(struct op *op, uint32_t index)
{
    struct dev *d = op->ext->dev;
    uint32_t cost = journal_cost(d, sizeof(struct rec_alloc), 0);
    int rc = journal_space(d, cost, false);

    if (rc < 0)
        return rc;
    rc = op_check(op);
    if (rc == 0 && orphan(op->ext, index) != BLOCK_NONE) /* nobody else was faster */
        share_alloc_add(op->ext, index, orphan(op->ext, index), cost);
    else
        journal_space_return(d, cost);
    return rc;
}

int share_adopt(struct op *op, uint32_t first_block, uint32_t last_block)
{
    int rc = 0;

    for (uint32_t b = first_block; b <= last_block && rc == 0; b++) {
        if (orphan(op->ext, b) != BLOCK_NONE)
            rc = adopt(op, b);
    }
    return rc;
}

/* ---- merging: the smallest source moves to the block's own ---- */

static int bind(struct op *op, uint32_t index)
{
    struct ext *x = op->ext;
    uint32_t block, cost = journal_cost(x->dev, sizeof(struct rec_alloc), 0);
    struct claim claim;
    int rc = blocks_claim(x, 1, &claim);

    if (rc < 0)
        return rc;
    rc = journal_space(x->dev, cost, false);
    if (rc < 0)
        goto err_after_claim;
    rc = block_take(x, index, &block);
    if (rc < 0)
        goto err_after_space;
    claim.n--;
    rc = op_check(op);
    if (rc == 0) {
        share_alloc_add(x, index, block, cost);
        block_placed(x);
        return 0;
    }
    block_return(x, &claim, block);

err_after_space:
    journal_space_return(x->dev, cost);
err_after_claim:
    blocks_unclaim(x, &claim);
    return rc;
}

/* Journals pages as they are. */
static int move_run(struct op *op, uint32_t first, uint32_t count, uint64_t *rsn)
{
    struct ext *x = op->ext;
    uint32_t index = first / PAGES_PER_BLOCK;
    uint64_t mask = ((1ull << count) - 1) << first % PAGES_PER_BLOCK; /* never all pages */
    size_t room = count * sizeof(uint32_t) + MAP_SOURCES * sizeof(struct rec_ref);
    struct rec_write *r = rec_new(x->dev, REC_DATA, x->id, sizeof(*r) + room);
    uint32_t *crc = (uint32_t *)(r + 1), cost = journal_cost(x->dev, r->h.bytes, count);
    struct rec_ref *refs = (struct rec_ref *)(crc + count);
    struct buf *buf = buf_alloc((size_t)count * PAGE_BYTES);
    struct jpage **jp;
    bool zero, change;
    int rc = pages_read(x, first, count, buf->data, crc, &zero);

    if (rc == 0)
        rc = journal_space(x->dev, cost, false);
    if (rc == 0) {
        rc = op_check(op);
        if (rc < 0)
            journal_space_return(x->dev, cost);
    }
    if (rc < 0) {
        mem_free(r);
        goto out;
    }
    jp = MEM_NEW_ARRAY(struct jpage *, count);
    for (uint32_t i = 0; i < count; i++)
        jp[i] = jpage_new(first + i, buf, buf->data + (size_t)i * PAGE_BYTES, crc[i]);
    r->h.flags = REC_F_MAP | REC_F_MOVE;
    r->h.pages = (uint16_t)count;
    r->first = first;
    r->count = count;
    r->n_refs = (uint16_t)share_dropped(x, index, mask, false, refs, &change);
    r->h.bytes = (uint16_t)ROUND_UP((uint8_t *)(refs + r->n_refs) - (uint8_t *)r, 8);
    *rsn = journal_add(x->dev, &r->h, jp, cost, true);
    map_apply_data(x, r, *rsn);
    refs_apply(x->dev, refs, r->n_refs, *rsn);
    for (uint32_t i = 0; i < count; i++)
        jpage_insert(x, jp[i]);
    ext_dirty(x, *rsn);
out:
    buf_put(buf);
    return rc;
}

static int move_source(struct op *op, uint32_t index, uint32_t k)
{
    uint32_t most = MIN(op->ext->dev->j.rec_pages_max, PAGES_PER_BLOCK - 1);
    uint64_t mask = map_get(op->ext, index)->src[k].valid, rsn = 0;
    int rc = 0;

    while (mask != 0 && rc == 0) {
        uint32_t bit = (uint32_t)__builtin_ctzll(mask), n = 1;

        while (n < most && bit + n < PAGES_PER_BLOCK && (mask >> (bit + n) & 1))
            n++;
        rc = move_run(op, index * PAGES_PER_BLOCK + bit, n, &rsn);
        mask &= ~(((1ull << n) - 1) << bit);
    }
    if (rsn != 0 && journal_wait(op->ext->dev, rsn) < 0 && rc == 0)
        rc = dev_check(op->ext->dev);
    return rc;
}

static uint32_t smallest(const struct map_entry *en)
{
    uint32_t best = 1;

    for (uint32_t k = 2; k < MAP_SOURCES; k++) {
        if (__builtin_popcountll(en->src[k].valid) < __builtin_popcountll(en->src[best].valid))
            best = k;
    }
    return best;
}

/* What moving a source of the block needs in memory. */
static int block_hold(struct op *op, uint32_t index, struct map_hold *map, struct refs_hold *refs)
{
    int rc = op_check(op);

    if (rc == 0)
        rc = map_hold(op->ext, index, index, map);
    return rc == 0 ? refs_load_map(op->ext, index, index, refs) : rc;
}

static int merge_locked(struct op *op, uint32_t index, struct map_hold *map, struct refs_hold *refs)
{
    struct ext *x = op->ext;
    int rc = block_hold(op, index, map, refs);

    if (rc == 0)
        rc = share_adopt(op, index, index);
    if (rc < 0 || others(map_get(x, index)) <= OTHERS_MAX)
        return rc;
    if (!block_allocated(x, index))
        rc = bind(op, index);
    return rc == 0 ? move_source(op, index, smallest(map_get(x, index))) : rc;
}

/* ---- renewing: what is in a source that may have no more references moves likewise ---- */

/* The first such source; MAP_SOURCES: there is none. */
static uint32_t worn(const struct ext *x, uint32_t index)
{
    const struct map_entry *en = map_get(x, index);
    uint32_t k = 0;

    while (k < MAP_SOURCES &&
           (en->src[k].block == BLOCK_NONE || !refs_full(x->dev, en->src[k].block)))
        k++;
    return k;
}

static int renew_locked(struct op *op, uint32_t index, struct map_hold *map, struct refs_hold *refs)
{
    struct ext *x = op->ext;
    int rc = block_hold(op, index, map, refs);

    while (rc == 0 && worn(x, index) < MAP_SOURCES) {
        if (worn(x, index) == 0)
            rc = thaw_blocks(op, index, index); /* the children keep it, the extent gets another */
        if (rc == 0 && worn(x, index) == 0)
            rc = err_set(ERR_AGAIN, "extent %" PRIu64 ": block %u can't be given up", x->id, index);
        if (rc == 0 && !block_allocated(x, index))
            rc = bind(op, index);
        if (rc == 0)
            rc = move_source(op, index, worn(x, index));
    }
    return rc;
}

/* ---- block by block ---- */

/* ---- joining: what nobody else has moves to the block's own, too ---- */

/* MAP_SOURCES: there is none. */
static uint32_t left_over(const struct ext *x, uint32_t index)
{
    const struct map_entry *en = map_get(x, index);
    uint32_t k = 1;

    while (k < MAP_SOURCES &&
           (en->src[k].block == BLOCK_NONE || shared_bit_get(x->dev, en->src[k].block)))
        k++;
    return k;
}

static int join_locked(struct op *op, uint32_t index, struct map_hold *map, struct refs_hold *refs)
{
    struct ext *x = op->ext;
    int rc = block_hold(op, index, map, refs);

    while (rc == 0 && block_allocated(x, index) && left_over(x, index) < MAP_SOURCES)
        rc = move_source(op, index, left_over(x, index));
    return rc;
}

typedef int (*locked_fn)(struct op *op, uint32_t index, struct map_hold *map,
                         struct refs_hold *refs);

static int with_block(struct op *op, uint32_t index, locked_fn fn)
{
    struct refs_hold refs = {0};
    struct map_hold map = {0};
    struct co_range range;
    int rc =
        co_range_acquire(&op->ext->lock, &range, index * PAGES_PER_BLOCK, PAGES_PER_BLOCK, true);

    if (rc < 0)
        return rc;
    rc = fn(op, index, &map, &refs);
    refs_hold_free(&refs);
    map_release(&map);
    co_range_release(&op->ext->lock, &range);
    return rc;
}

/* own: only where the block has its own, too. Without, the others are as many as a child has room
 * for, and a block that nobody writes any more would get a new one in each generation. */
static int merge_blocks(struct op *op, uint32_t first_block, uint32_t last_block, bool own)
{
    struct ext *x = op->ext;
    struct map_hold hold;
    int rc = 0;

    for (uint32_t b = first_block; b <= last_block && rc == 0; b++) {
        bool full;

        if (!block_shared(x, b) || (own && !block_allocated(x, b)))
            continue;
        rc = map_hold(x, b, b, &hold);
        full = rc == 0 && others(map_get(x, b)) > OTHERS_MAX;
        map_release(&hold);
        if (full)
            rc = with_block(op, b, merge_locked);
    }
    return rc;
}

int share_merge(struct op *op, uint32_t first_block, uint32_t last_block)
{
    return merge_blocks(op, first_block, last_block, false);
}

int share_join(struct op *op, uint32_t index)
{
    struct ext *x = op->ext;
    struct map_hold hold;
    bool any;
    int rc;

    if (x->frozen || !block_allocated(x, index) || !block_shared(x, index) || relatives_may_come(x))
        return 0;
    rc = map_hold(x, index, index, &hold);
    any = rc == 0 && left_over(x, index) < MAP_SOURCES;
    map_release(&hold);
    return any ? with_block(op, index, join_locked) : rc;
}

int share_fit(struct op *op)
{
    return merge_blocks(op, 0, BLOCKS_PER_EXTENT - 1, true);
}

int share_renew(struct op *op)
{
    struct ext *x = op->ext;
    uint32_t done = 0;
    int rc = 0;

    for (uint32_t b = 0; b < BLOCKS_PER_EXTENT && rc == 0; b++) {
        struct refs_hold refs = {0};
        struct map_hold map = {0};
        bool full;

        if (!block_mapped(x, b))
            continue;
        rc = map_hold(x, b, b, &map);
        if (rc == 0)
            rc = refs_load_map(x, b, b, &refs);
        full = rc == 0 && worn(x, b) < MAP_SOURCES;
        refs_hold_free(&refs);
        map_release(&map);
        if (full && done++ == RENEW_MAX)
            return err_set(ERR_AGAIN, "extent %" PRIu64 ": shared by too many, is copied", x->id);
        if (full)
            rc = with_block(op, b, renew_locked);
    }
    return rc;
}
