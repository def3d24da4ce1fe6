/* SPDX-License-Identifier: Apache-2.0
 *
 * Blocks and head pages of a region. Two bitmaps: `bits` is what the journal says (it changes
 * when a record is queued, and its pages go home at checkpoints); `busy` is what may not be given
 * out: allocated, promised to a write that is not journaled yet, or freed by a record that is not
 * durable or while somebody may still read there (PROTOCOL 9.4). */
#include <inttypes.h>
#include <string.h>
#include "chunk/internal.h"

static bool bit_get(const uint64_t *bits, uint32_t i)
{
    return bits[i / 64] >> (i % 64) & 1;
}
static void bit_put(uint64_t *bits, uint32_t i, bool on)
{
    if (on)
        bits[i / 64] |= 1ull << (i % 64);
    else
        bits[i / 64] &= ~(1ull << (i % 64));
}

static void busy_put(struct dev *d, uint32_t i, bool on)
{
    bit_put(d->busy, i, on);
    place_changed(d, i);
}

uint64_t block_off(const struct dev *d, uint32_t block)
{
    ASSERT(block != BLOCK_NONE && block <= d->g.blocks);
    return d->g.data_off + (uint64_t)(block - 1) * BLOCK_BYTES;
}

/* Of d->busy: blocks and heads. */
static size_t busy_bytes(const struct dev *d)
{
    return DIV_UP((size_t)d->g.blocks + d->g.heads, 64) * 8;
}

static int64_t bits_bytes(const struct dev *d)
{
    return (int64_t)(d->g.bitmap_pages * (META_BODY_BYTES + sizeof(*d->bitmap)) + busy_bytes(d) +
                     DIV_UP(d->g.blocks, 64) * 8);
}

void bits_init(struct dev *d)
{
    uint32_t words;

    d->bits_total = d->g.blocks + d->g.heads;
    /* Whole bitmap pages, so that they can be copied. */
    words = d->g.bitmap_pages * (BITS_PER_PAGE / 64);
    budget_fixed(&d->e->memory, bits_bytes(d));
    d->bits = MEM_NEW_ARRAY(uint64_t, words);
    d->busy = mem_alloc(busy_bytes(d));
    d->owned = MEM_NEW_ARRAY(uint64_t, DIV_UP(d->g.blocks, 64));
    d->bitmap = MEM_NEW_ARRAY(struct mpage, d->g.bitmap_pages);
    for (uint32_t i = 0; i < d->g.bitmap_pages; i++)
        mpage_init(&d->bitmap[i], d, MP_BITMAP, i, NULL);
    place_init(d);
    list_init(&d->pending);
    co_cond_init(&d->freed);
    d->reserve_blocks = MIN(MAX(d->g.blocks / 64, 2u), 64u);
}

void bits_take_all(struct dev *d)
{
    for (uint32_t i = 0; i < d->g.blocks; i++) {
        bit_put(d->bits, i, true);
        bit_put(d->bits, d->g.blocks + d->g.heads + i, true);
    }
}

void bits_finish_replay(struct dev *d)
{
    memcpy(d->busy, d->bits, busy_bytes(d));
    d->free_blocks = d->g.blocks;
    for (uint32_t i = 0; i < d->g.blocks / 64; i++)
        d->free_blocks -= (uint32_t)__builtin_popcountll(d->bits[i]);
    for (uint32_t i = ROUND_DOWN(d->g.blocks, 64u); i < d->g.blocks; i++)
        d->free_blocks -= bit_get(d->bits, i);
    place_build(d);
}

void bits_free(struct dev *d)
{
    struct list *l;

    while ((l = list_pop_front(&d->pending)) != NULL)
        mem_free(LIST_ENTRY(l, struct pending_free, link));
    budget_fixed(&d->e->memory, -bits_bytes(d));
    place_fini(d);
    mem_free(d->bits);
    mem_free(d->busy);
    mem_free(d->owned);
    mem_free(d->bitmap);
}

static void bit_journaled(struct dev *d, uint32_t i, bool on, uint64_t rsn)
{
    ASSERT(i < 2 * d->g.blocks + d->g.heads);
    ASSERTF(d->replaying || bit_get(d->bits, i) != on, "bit %" PRIu32 " is %d already", i, on);
    bit_put(d->bits, i, on);
    mpage_dirty(d, &d->bitmap[i / BITS_PER_PAGE], rsn);
}

void bit_set(struct dev *d, uint32_t block, uint64_t rsn)
{
    ASSERT(block != BLOCK_NONE && block <= d->g.blocks);
    ASSERT(d->replaying || bit_get(d->busy, block - 1));
    bit_journaled(d, block - 1, true, rsn);
    if (!d->replaying)
        bit_put(d->owned, block - 1, true);
}

void bit_clear(struct dev *d, uint32_t block, uint64_t rsn, bool meta)
{
    struct pending_free *p;

    ASSERT(block != BLOCK_NONE && block <= d->g.blocks);
    bit_journaled(d, block - 1, false, rsn);
    if (d->replaying)
        return;
    bit_put(d->owned, block - 1, false);
    p = MEM_NEW(struct pending_free);
    p->block = block;
    p->rsn = rsn;
    p->pin_id = d->next_pin;
    p->stage = meta ? d->stage_started + 1 : 0;
    list_push_back(&d->pending, &p->link);
    d->free_blocks++;
}

void head_bit_set(struct dev *d, uint32_t head, uint64_t rsn)
{
    bit_journaled(d, d->g.blocks + head, true, rsn);
}

void head_bit_clear(struct dev *d, uint32_t head, uint64_t rsn)
{
    bit_journaled(d, d->g.blocks + head, false, rsn);
    /* Heads are reused at once: the record that creates the next one follows in the journal, and
     * replay ignores the page while that record exists. */
    if (!d->replaying)
        head_untake(d, head);
}

bool head_bit_get(const struct dev *d, uint32_t head)
{
    return bit_get(d->bits, d->g.blocks + head);
}

uint32_t head_bit_next(const struct dev *d, uint32_t from)
{
    uint32_t i = d->g.blocks + from;

    while (i < d->bits_total) {
        uint64_t w = d->bits[i / 64] & ~((1ull << (i % 64)) - 1);

        if (w != 0)
            return MIN(i / 64 * 64 + (uint32_t)__builtin_ctzll(w), d->bits_total) - d->g.blocks;
        i = (i / 64 + 1) * 64;
    }
    return d->g.heads;
}

static uint32_t shared_bit(const struct dev *d, uint32_t block)
{
    return d->bits_total + block - 1;
}

bool shared_bit_get(const struct dev *d, uint32_t block)
{
    return bit_get(d->bits, shared_bit(d, block));
}

/* Nobody is known to own it from here on: whoever is left will be when its map page is loaded. */
void shared_bit_put(struct dev *d, uint32_t block, bool on, uint64_t rsn)
{
    if (shared_bit_get(d, block) == on && !d->replaying)
        return;
    bit_journaled(d, shared_bit(d, block), on, rsn);
    bit_put(d->owned, block - 1, false);
}

bool block_own(struct dev *d, uint32_t block)
{
    if (!bit_get(d->bits, block - 1) || bit_get(d->owned, block - 1))
        return false;
    if (!shared_bit_get(d, block))
        bit_put(d->owned, block - 1, true);
    return true;
}

bool block_owned(const struct dev *d, uint32_t block)
{
    return bit_get(d->bits, block - 1) && bit_get(d->owned, block - 1);
}

void block_disown(struct dev *d, uint32_t block)
{
    bit_put(d->owned, block - 1, false);
}

/* Gives back what was freed by durable records and is read by nobody any more. */
void pending_release(struct dev *d)
{
    struct pin *oldest = LIST_FIRST(&d->pins, struct pin, link);
    bool any = false;

    while (!list_empty(&d->pending)) {
        struct pending_free *p = LIST_FIRST(&d->pending, struct pending_free, link);

        if (p->rsn > d->j.durable_rsn || p->stage > d->stage_durable ||
            (oldest != NULL && oldest->id < p->pin_id))
            break;
        list_del(&p->link);
        busy_put(d, p->block - 1, false);
        mem_free(p);
        any = true;
    }
    if (any)
        co_cond_broadcast(&d->freed);
}

/* First bit that is not busy in [from, to), or `to`. */
static uint32_t busy_find(const struct dev *d, uint32_t from, uint32_t to)
{
    uint32_t i = from;

    while (i < to) {
        uint64_t w = ~(d->busy[i / 64] | ((1ull << (i % 64)) - 1));

        if (w != 0) {
            i = i / 64 * 64 + (uint32_t)__builtin_ctzll(w);
            return MIN(i, to);
        }
        i = (i / 64 + 1) * 64;
    }
    return to;
}

/* Waits until there is a place; x NULL: for metadata. */
static int claimed_take(struct dev *d, struct ext *x, uint32_t index, uint32_t *ret)
{
    uint32_t i;

    ASSERT(d->claimed > 0);
    while (x != NULL ? !place_data(x, index, false, &i) : !place_meta(d, &i)) {
        int rc = dev_check(d);

        if (rc < 0)
            return rc;
        if (list_empty(&d->pending) && d->free_blocks == 0) /* damage took what was promised */
            return err_set(ERR_NOSPACE, "disk %s is full", d->path);
        /* Claims count blocks whose freeing is under way: have it become durable. */
        journal_kick(d);
        flush_kick(d);
        co_cond_wait_always(&d->freed);
    }
    busy_put(d, i, true);
    d->claimed--;
    d->free_blocks--;
    *ret = i + 1;
    return 0;
}

int block_take(struct ext *x, uint32_t index, uint32_t *ret)
{
    return claimed_take(x->dev, x, index, ret);
}

int block_take_meta(struct dev *d, uint32_t *ret)
{
    return claimed_take(d, NULL, 0, ret);
}

bool block_take_spare(struct ext *x, uint32_t index, bool in_row, uint32_t *ret)
{
    struct dev *d = x->dev;
    uint32_t i;

    if ((d->spares >= d->reserve_blocks && blocks_available(d) <= 0) ||
        !place_data(x, index, in_row, &i))
        return false;
    busy_put(d, i, true);
    d->free_blocks--;
    d->spares++;
    *ret = i + 1;
    return true;
}

void block_untake(struct dev *d, uint32_t block)
{
    ASSERT(bit_get(d->busy, block - 1) && !bit_get(d->bits, block - 1));
    busy_put(d, block - 1, false);
    d->free_blocks++;
    co_cond_broadcast(&d->freed);
}

/* The first: so heads that are in use lie together, and few of the roll's pages are. */
int head_take(struct dev *d, uint32_t *ret)
{
    uint32_t end = d->bits_total, i = busy_find(d, MAX(d->head_cursor, d->g.blocks), end);

    if (i == end)
        return err_set(ERR_NOSPACE, "disk %s: no room for another extent", d->path);
    bit_put(d->busy, i, true);
    d->head_cursor = i + 1;
    *ret = i - d->g.blocks;
    return 0;
}

void head_untake(struct dev *d, uint32_t head)
{
    bit_put(d->busy, d->g.blocks + head, false);
    d->head_cursor = MIN(d->head_cursor, d->g.blocks + head);
}
