/* SPDX-License-Identifier: Apache-2.0
 *
 * What journaled records change in the block map, also at replay. */
#include <string.h>
#include "chunk/internal.h"

/* Pages leave all sources but the block's own. */
static void entry_unshare(struct map_entry *en, uint64_t mask)
{
    for (uint32_t k = 1; k < MAP_SOURCES; k++) {
        en->src[k].valid &= ~mask;
        if (en->src[k].valid == 0)
            en->src[k].block = BLOCK_NONE;
    }
}

/* A new block, or one of the sources. At replay it may have been done already, and more. */
void map_apply_alloc(struct ext *x, uint32_t index, uint32_t block, uint64_t rsn)
{
    struct map_entry *en = map_change(x, index, rsn);
    uint32_t k = 0;

    while (k < MAP_SOURCES && en->src[k].block != block)
        k++;
    if (k == MAP_SOURCES) {
        en->src[0] = (struct map_src){.block = block};
        bit_set(x->dev, block, rsn);
    } else if (k > 0) {
        en->src[0] = en->src[k];
        en->src[k] = (struct map_src){0};
    }
    head_bits_put(x, index, en);
    ext_dirty(x, rsn);
}

/* At replay the map may be older or newer: this is what it was, and later records follow. */
void map_apply_thaw(struct ext *x, const struct thaw_block *t, uint64_t rsn)
{
    struct map_entry *en = map_change(x, t->index, rsn);

    memcpy(en->src, t->src, sizeof(en->src));
    head_bits_put(x, t->index, en);
}

void map_apply_write(struct ext *x, const struct rec_write *r, const uint32_t *crc, uint64_t rsn)
{
    uint32_t index = r->first / PAGES_PER_BLOCK, bit = r->first % PAGES_PER_BLOCK;
    uint64_t mask = page_mask(bit, r->count);
    struct map_entry *en = map_change(x, index, rsn);

    if (r->h.flags & REC_F_REPLACE) {
        memset(en, 0, sizeof(*en));
        en->src[0].block = r->block;
        bit_set(x->dev, r->block, rsn);
    }
    ASSERT(x->dev->replaying || en->src[0].block == r->block);
    entry_unshare(en, mask);
    en->src[0].block = r->block;
    en->src[0].valid |= mask;
    head_bits_put(x, index, en);
    corrupt_forget(x, r->first, r->count);
    cache_drop(x->dev, block_off(x->dev, r->block) + (uint64_t)bit * PAGE_BYTES, r->count);
    memcpy(&en->crc[bit], crc, r->count * sizeof(*crc));
    jpage_drop(x, r->first, r->count);
    ext_dirty(x, rsn);
}

void map_apply_data(struct ext *x, const struct rec_write *r, uint64_t rsn)
{
    uint32_t index = r->first / PAGES_PER_BLOCK, bit = r->first % PAGES_PER_BLOCK;
    struct map_entry *en = map_change(x, index, rsn);

    entry_unshare(en, page_mask(bit, r->count));
    head_bits_put(x, index, en);
}

static void entry_zero(struct ext *x, uint32_t index, uint64_t mask, uint64_t rsn)
{
    struct map_entry *en;

    if (entry_empty(map_get(x, index))) {
        head_bits_put(x, index, map_get(x, index)); /* at replay the head may be older */
        return;
    }
    en = map_change(x, index, rsn);
    if (mask == UINT64_MAX)
        memset(en, 0, sizeof(*en));
    en->src[0].valid &= ~mask;
    entry_unshare(en, mask);
    head_bits_put(x, index, en);
}

void map_apply_zero(struct ext *x, const struct rec_write *r, uint64_t rsn)
{
    uint32_t page = r->first, end = r->first + r->count;

    while (page < end) {
        uint32_t bit = page % PAGES_PER_BLOCK, n = MIN(end - page, PAGES_PER_BLOCK - bit);

        entry_zero(x, page / PAGES_PER_BLOCK, page_mask(bit, n), rsn);
        page += n;
    }
    corrupt_forget(x, r->first, r->count);
    jpage_drop(x, r->first, r->count);
    ext_dirty(x, rsn);
}
