/* SPDX-License-Identifier: Apache-2.0
 *
 * The difference of two extents, from their maps alone: what both read from the same block has not
 * been written since they parted. */
#include <inttypes.h>
#include "chunk/internal.h"

struct diffing {
    struct ext *a, *b; /* b may be NULL */
    bool in_common;    /* not a difference: what of a is in blocks that others have, too */
    struct page_range *ranges;
    uint32_t max;
    struct diff_result *ret;
};

static uint64_t journaled(const struct ext *x, uint32_t block)
{
    const struct vblk *v = vblk_get(x, block);

    return v != NULL ? v->mask : 0;
}

/* The pages that a source has, or will have when they are home: children take them for its. */
static uint64_t source_pages(const struct ext *x, uint32_t block, uint32_t k)
{
    const struct vblk *v = k == 0 ? vblk_get(x, block) : NULL;

    return map_get(x, block)->src[k].valid | (v != NULL && v->lent ? v->mask : 0);
}

/* Pages that no map but the extent's own can name yet. */
static uint64_t journaled_alone(const struct ext *x, uint32_t block)
{
    const struct vblk *v = vblk_get(x, block);

    return v != NULL && !v->lent ? v->mask : 0;
}

static uint64_t pages_held(const struct ext *x, uint32_t block)
{
    uint64_t mask = journaled(x, block);

    for (uint32_t k = 0; k < MAP_SOURCES && block_mapped(x, block); k++)
        mask |= map_get(x, block)->src[k].valid;
    return mask;
}

/* Pages that both have in the same place. */
static uint64_t pages_common(const struct ext *a, const struct ext *b, uint32_t block)
{
    uint64_t same = 0;

    if (a->dev != b->dev || !block_mapped(a, block) || !block_mapped(b, block))
        return 0;
    for (uint32_t i = 0; i < MAP_SOURCES; i++) {
        const struct map_src *s = &map_get(a, block)->src[i];

        for (uint32_t k = 0; k < MAP_SOURCES; k++) {
            const struct map_src *t = &map_get(b, block)->src[k];

            if (s->block == t->block)
                same |= source_pages(a, block, i) & source_pages(b, block, k);
        }
    }
    return same & ~journaled_alone(a, block) & ~journaled_alone(b, block);
}

static uint64_t pages_in_common(const struct ext *x, uint32_t block)
{
    uint64_t mask = 0;

    for (uint32_t k = 0; k < MAP_SOURCES && block_mapped(x, block); k++) {
        const struct map_src *s = &map_get(x, block)->src[k];

        if (s->block != BLOCK_NONE && shared_bit_get(x->dev, s->block))
            mask |= source_pages(x, block, k);
    }
    return mask & ~journaled_alone(x, block);
}

static uint64_t pages_wanted(const struct diffing *d, uint32_t block)
{
    uint64_t held;

    if (d->in_common)
        return pages_in_common(d->a, block);
    held = pages_held(d->a, block);
    if (d->b == NULL)
        return held;
    return (held | pages_held(d->b, block)) & ~pages_common(d->a, d->b, block);
}

/* False if there is no room for it. */
static bool page_add(struct diffing *d, uint32_t page)
{
    struct page_range *last = d->ret->count > 0 ? &d->ranges[d->ret->count - 1] : NULL;

    if (last != NULL && last->first + last->count == page) {
        last->count++;
        return true;
    }
    if (d->ret->count == d->max) {
        d->ret->more = true;
        d->ret->next_page = page;
        return false;
    }
    d->ranges[d->ret->count++] = (struct page_range){page, 1};
    return true;
}

static int differ_at(const struct diffing *d, uint32_t block, uint64_t *ret)
{
    struct map_hold a, b = {0};
    int rc = map_hold(d->a, block, block, &a);

    if (rc == 0 && d->b != NULL)
        rc = map_hold(d->b, block, block, &b);
    if (rc == 0)
        *ret = pages_wanted(d, block);
    map_release(&a);
    map_release(&b);
    return rc;
}

static bool any_held(const struct ext *x, uint32_t block)
{
    return x != NULL && (block_mapped(x, block) || vblk_get(x, block) != NULL);
}

static int diff_run(struct diffing *d, uint32_t from_page)
{
    for (uint32_t b = from_page / PAGES_PER_BLOCK; b < BLOCKS_PER_EXTENT; b++) {
        uint64_t mask = 0;
        int rc = any_held(d->a, b) || any_held(d->b, b) ? differ_at(d, b, &mask) : 0;

        if (rc < 0)
            return rc;
        if (b == from_page / PAGES_PER_BLOCK)
            mask &= UINT64_MAX << from_page % PAGES_PER_BLOCK;
        for (; mask != 0; mask &= mask - 1) {
            if (!page_add(d, b * PAGES_PER_BLOCK + (uint32_t)__builtin_ctzll(mask)))
                return 0;
        }
    }
    return 0;
}

/* One of the two; shared: as reads of shared extents. */
static int diff_begin(struct engine *e, uint64_t id, bool shared, uint64_t view_epoch,
                      struct op *op)
{
    return shared ? op_begin_shared(e, id, view_epoch, op)
                  : op_begin_closed(e, id, OP_EPOCH_NONE, op);
}

static int diff_of(struct engine *e, const struct diff_shared *of, bool shared, uint32_t from_page,
                   struct diffing *d)
{
    struct op op_a, op_b;
    int rc;

    *d->ret = (struct diff_result){0};
    if (from_page >= PAGES_PER_EXTENT || d->max == 0)
        return err_set(ERR_INVAL, "difference from page %" PRIu32 ", %" PRIu32 " ranges", from_page,
                       d->max);
    rc = diff_begin(e, of->a, shared, of->a_view_epoch, &op_a);
    if (rc < 0)
        return rc;
    d->a = op_a.ext;
    if (of->b != 0)
        rc = diff_begin(e, of->b, shared, of->b_view_epoch, &op_b);
    if (rc == 0) {
        d->b = of->b != 0 ? op_b.ext : NULL;
        rc = diff_run(d, from_page);
        if (rc == 0 && shared)
            rc = op_check(&op_a);
        if (rc == 0 && shared && of->b != 0)
            rc = op_check(&op_b);
        if (of->b != 0)
            op_end(&op_b);
    }
    op_end(&op_a);
    return rc;
}

int engine_diff(struct engine *e, uint64_t a, uint64_t b, uint32_t from_page,
                struct page_range *ranges, uint32_t max, struct diff_result *ret)
{
    struct diffing d = {.ranges = ranges, .max = max, .ret = ret};

    return diff_of(e, &(struct diff_shared){.a = a, .b = b}, false, from_page, &d);
}

int engine_diff_shared(struct engine *e, const struct diff_shared *of, uint32_t from_page,
                       struct page_range *ranges, uint32_t max, struct diff_result *ret)
{
    struct diffing d = {.ranges = ranges, .max = max, .ret = ret};

    return diff_of(e, of, true, from_page, &d);
}

int engine_in_common(struct engine *e, uint64_t id, uint32_t from_page, struct page_range *ranges,
                     uint32_t max, struct diff_result *ret)
{
    struct diffing d = {.ranges = ranges, .max = max, .ret = ret, .in_common = true};

    return diff_of(e, &(struct diff_shared){.a = id}, false, from_page, &d);
}
