/* SPDX-License-Identifier: Apache-2.0
 *
 * The engine's self-check: what maps, heads and counts say about one another. */
#include <inttypes.h>
#include "chunk/internal.h"

struct count {
    struct htab_node node; /* by block */
    uint32_t refs;         /* as the maps have it */
};
struct checking {
    struct dev *d;
    uint64_t *named;     /* blocks: by a map or a head */
    struct htab *shared; /* struct count of those whose shared bit is set */
    struct ext **exts;
    uint32_t n_exts, blocks, credits;
};

static void check_collect(void *arg, struct ext *x)
{
    struct checking *c = arg;

    if (x->dev == c->d)
        c->exts[c->n_exts++] = ext_get(x);
}

static uint32_t count_get(const struct checking *c, uint32_t block)
{
    const struct count *n = HTAB_FIND(c->shared, block, struct count, node);

    return n != NULL ? n->refs : 0;
}

static void count_add(struct checking *c, uint32_t block)
{
    struct count *n = HTAB_FIND(c->shared, block, struct count, node);

    if (n == NULL) {
        n = MEM_NEW(struct count);
        htab_insert(c->shared, &n->node, block);
    }
    n->refs++;
}

static void counts_free(struct checking *c)
{
    HTAB_FOREACH (n, c->shared, struct count, node) {
        htab_remove(c->shared, &n->node);
        mem_free(n);
    }
    htab_fini(c->shared);
}

/* The extent names a block, for itself alone or (may_share) with others. */
static int check_block(struct checking *c, const struct ext *x, uint32_t block, bool may_share)
{
    uint64_t bit = 1ull << ((block - 1) % 64), *named;
    bool first;

    if (block == BLOCK_NONE || block > c->d->g.blocks)
        return err_set(ERR_CORRUPT, "extent %" PRIu64 ": block number %" PRIu32, x->id, block);
    named = &c->named[(block - 1) / 64];
    first = (*named & bit) == 0;
    *named |= bit;
    if (shared_bit_get(c->d, block))
        count_add(c, block);
    else if (!first)
        return err_set(ERR_CORRUPT, "block %" PRIu32 " belongs to extent %" PRIu64 " and another",
                       block, x->id);
    if (shared_bit_get(c->d, block) && !may_share)
        return err_set(ERR_CORRUPT, "block %" PRIu32 " of extent %" PRIu64 " counts as shared",
                       block, x->id);
    c->blocks += first;
    if (!(c->d->bits[(block - 1) / 64] >> ((block - 1) % 64) & 1))
        return err_set(ERR_CORRUPT, "block %" PRIu32 " of extent %" PRIu64 " counts as free", block,
                       x->id);
    return 0;
}

static int check_entry(struct checking *c, struct ext *x, uint32_t b, const struct map_entry *en)
{
    const struct vblk *v = vblk_get(x, b);
    bool own = en->src[0].block != BLOCK_NONE, others = false;
    uint64_t seen = 0;
    int rc = 0;

    for (uint32_t k = 0; k < MAP_SOURCES && rc == 0; k++) {
        const struct map_src *s = &en->src[k];

        others |= k > 0 && s->block != BLOCK_NONE;
        if ((s->valid & seen) != 0 || (k > 0 && (s->block == BLOCK_NONE) != (s->valid == 0)))
            rc = err_set(ERR_CORRUPT, "extent %" PRIu64 " block %" PRIu32 ": sources", x->id, b);
        seen |= s->valid;
        if (rc == 0 && s->block != BLOCK_NONE)
            rc = check_block(c, x, s->block, k > 0 || x->frozen);
    }
    if (rc == 0 && (block_allocated(x, b) != own || block_shared(x, b) != others ||
                    (v != NULL && v->mask != 0 && !own)))
        rc = err_set(ERR_CORRUPT, "extent %" PRIu64 " block %" PRIu32 ": map and allocation differ",
                     x->id, b);
    return rc;
}

/* The blocks first..last of an extent. */
static int check_map(struct checking *c, struct ext *x, uint32_t first, uint32_t last, uint32_t *n)
{
    struct map_hold hold;
    int rc = map_hold(x, first, last, &hold);

    for (uint32_t b = first; b <= last && rc == 0; b++) {
        *n += block_allocated(x, b);
        rc = check_entry(c, x, b, map_get(x, b));
    }
    map_release(&hold);
    return rc;
}

#define CHECK_BLOCKS (16 * MAP_ENTRIES) /* at a time */

static int check_extent(struct checking *c, struct ext *x)
{
    uint32_t n = 0;
    int rc = 0;

    for (uint32_t k = 0; k < META_BLOCKS && rc == 0; k++)
        rc = check_block(c, x, x->meta_block[k], false);
    for (uint32_t b = 0; b < BLOCKS_PER_EXTENT && rc == 0; b += CHECK_BLOCKS)
        rc = check_map(c, x, b, MIN(b + CHECK_BLOCKS, BLOCKS_PER_EXTENT) - 1, &n);
    if (rc == 0 && n != x->blocks)
        rc = err_set(ERR_CORRUPT, "extent %" PRIu64 ": %" PRIu32 " blocks, counted %" PRIu32, x->id,
                     x->blocks, n);
    if (rc == 0 && x->reserved && x->credits != BLOCKS_PER_EXTENT - x->blocks)
        rc = err_set(ERR_CORRUPT,
                     "extent %" PRIu64 " is reserved: %" PRIu32 " blocks and %" PRIu32 " credits",
                     x->id, x->blocks, x->credits);
    c->credits += x->credits;
    return rc;
}

/* References that were lost (REFS_LOST) are more than the maps have. */
static int check_refs(struct checking *c)
{
    struct refs_hold hold = {0};
    struct dev *d = c->d;
    int rc = 0;

    for (uint32_t b = 1; b <= d->g.blocks && rc == 0; b++) {
        if (!shared_bit_get(d, b))
            continue;
        rc = refs_load(d, b, &hold);
        if (rc == 0 && refs_get(d, b) != count_get(c, b) && refs_get(d, b) != REFS_LOST)
            rc = err_set(ERR_CORRUPT,
                         "block %" PRIu32 " has %" PRIu32 " references, the maps %" PRIu32, b,
                         refs_get(d, b), count_get(c, b));
        refs_hold_free(&hold);
    }
    return rc;
}

static int check_dev(struct engine *e, struct dev *d)
{
    struct htab shared;
    struct checking c = {.d = d, .shared = &shared};
    uint32_t used = 0, heads = 0;
    int rc = 0;

    dev_settled_wait(d);
    htab_init(&shared);
    c.named = MEM_NEW_ARRAY(uint64_t, DIV_UP(d->g.blocks, 64));
    c.exts = MEM_NEW_ARRAY(struct ext *, e->exts.count + 1);
    ext_foreach(e, check_collect, &c);
    for (uint32_t i = 0; i < c.n_exts; i++) {
        if (rc == 0)
            rc = check_extent(&c, c.exts[i]);
        ext_put(c.exts[i]);
    }
    if (rc == 0)
        rc = check_refs(&c);
    for (uint32_t i = 0; i < d->g.blocks; i++)
        used += d->bits[i / 64] >> (i % 64) & 1;
    for (uint32_t i = 0; i < d->g.heads; i++)
        heads += head_bit_get(d, i);
    if (rc == 0 && used != c.blocks)
        rc = err_set(ERR_CORRUPT, "%" PRIu32 " blocks are allocated, extents have %" PRIu32, used,
                     c.blocks);
    if (rc == 0 && heads != c.n_exts)
        rc = err_set(ERR_CORRUPT, "%" PRIu32 " heads are in use, there are %" PRIu32 " extents",
                     heads, c.n_exts);
    if (rc == 0 && !place_check(d))
        rc = err_set(ERR_CORRUPT, "free stretches are not what the busy blocks say");
    if (rc == 0 && d->spares != 0)
        rc = err_set(ERR_CORRUPT, "%" PRIu32 " blocks count as spares at rest", d->spares);
    if (rc == 0 && d->free_blocks != d->g.blocks - used)
        rc = err_set(ERR_CORRUPT, "%" PRIu32 " blocks count as free of %" PRIu32 " less %" PRIu32,
                     d->free_blocks, d->g.blocks, used);
    if (rc == 0 && d->credits < c.credits)
        rc = err_set(ERR_CORRUPT,
                     "%" PRIu32 " blocks are promised, extents have %" PRIu32 " credits",
                     d->credits, c.credits);
    if (rc == 0 && d->reserved > 0 && d->reserved + d->reserve_blocks > d->free_blocks)
        rc = err_set(ERR_CORRUPT, "%" PRIu32 " blocks are promised, %" PRIu32 " are free",
                     d->reserved, d->free_blocks);
    mem_free(c.exts);
    mem_free(c.named);
    counts_free(&c);
    return rc;
}

int engine_check(struct engine *e)
{
    LIST_FOREACH (d, &e->devs, struct dev, link) {
        int rc = check_dev(e, d);

        if (rc < 0)
            return err_prefix(rc, "disk %s", d->path);
    }
    return 0;
}
