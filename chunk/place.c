/* SPDX-License-Identifier: Apache-2.0
 *
 * Where the next block goes. Blocks of an extent keep the distances on the device that they have
 * in the extent wherever that is free, so a sequential writer, and a random one in the end, gets
 * long runs. What has no neighbour yet starts in a *stretch* - 64 blocks, 16 MiB, one word of the
 * bitmap - that is free as a whole, as long as there are any.
 *
 * Two sets of words, those that are free as a whole and those with any free block, are kept as
 * trees of bits: to find the next member takes a few steps, whatever the device's size. */
#include <string.h>
#include "chunk/internal.h"

#define STRETCH    64u
#define CANDIDATES 8u /* stretches that are looked at when none is free as a whole */
#define NOWHERE    UINT32_MAX

/* ---- a set of small numbers ---- */

static void set_init(struct bit_tree *t, uint32_t n)
{
    uint32_t k = 0;

    t->n = n;
    do {
        t->words[k] = n = DIV_UP(n, 64);
        t->level[k] = MEM_NEW_ARRAY(uint64_t, n);
        k++;
    } while (n > 1);
    t->levels = k;
    ASSERT(k <= BIT_TREE_LEVELS);
}

static void set_fini(struct bit_tree *t)
{
    for (uint32_t k = 0; k < t->levels; k++)
        mem_free(t->level[k]);
}

static bool set_has(const struct bit_tree *t, uint32_t i)
{
    return t->level[0][i / 64] >> (i % 64) & 1;
}

static void set_put(struct bit_tree *t, uint32_t i, bool on)
{
    for (uint32_t k = 0; k < t->levels; k++, i /= 64) {
        uint64_t *w = &t->level[k][i / 64], was = *w;

        *w = on ? was | 1ull << (i % 64) : was & ~(1ull << (i % 64));
        if ((was != 0) == (*w != 0))
            return;
    }
}

/* The first member from i on; NOWHERE if there is none. */
static uint32_t set_next(const struct bit_tree *t, uint32_t i)
{
    uint64_t w = 0;
    uint32_t k = 0;

    while (w == 0) {
        if (k == t->levels || i / 64 >= t->words[k])
            return NOWHERE;
        w = t->level[k][i / 64] >> (i % 64) << (i % 64);
        if (w == 0) {
            i = i / 64 + 1;
            k++;
        }
    }
    i = i / 64 * 64 + (uint32_t)__builtin_ctzll(w);
    while (k-- > 0)
        i = i * 64 + (uint32_t)__builtin_ctzll(t->level[k][i]);
    return i;
}

/* As set_next, around the end. */
static uint32_t set_next_around(const struct bit_tree *t, uint32_t i)
{
    uint32_t found = set_next(t, i);

    return found != NOWHERE ? found : set_next(t, 0);
}

/* ---- what is free ---- */

/* Free blocks of a stretch. The last one may be shorter, and heads share its word. */
static uint64_t stretch_free(const struct dev *d, uint32_t s)
{
    uint32_t rest = d->g.blocks - s * STRETCH;

    return ~d->busy[s] & (rest < STRETCH ? (1ull << rest) - 1 : UINT64_MAX);
}

static bool block_free(const struct dev *d, uint32_t i)
{
    return i < d->g.blocks && !(d->busy[i / STRETCH] >> (i % STRETCH) & 1);
}

void place_init(struct dev *d)
{
    set_init(&d->place.some, DIV_UP(d->g.blocks, STRETCH));
    set_init(&d->place.whole, DIV_UP(d->g.blocks, STRETCH));
}

void place_fini(struct dev *d)
{
    set_fini(&d->place.some);
    set_fini(&d->place.whole);
}

void place_changed(struct dev *d, uint32_t i)
{
    uint64_t mask;

    if (i >= d->g.blocks)
        return; /* a head */
    mask = stretch_free(d, i / STRETCH);
    set_put(&d->place.some, i / STRETCH, mask != 0);
    set_put(&d->place.whole, i / STRETCH, mask == UINT64_MAX);
}

void place_build(struct dev *d)
{
    for (uint32_t i = 0; i < d->g.blocks; i += STRETCH)
        place_changed(d, i);
}

bool place_check(const struct dev *d)
{
    bool ok = true;

    for (uint32_t s = 0; s * STRETCH < d->g.blocks; s++) {
        uint64_t mask = stretch_free(d, s);

        ok = ok && set_has(&d->place.some, s) == (mask != 0) &&
             set_has(&d->place.whole, s) == (mask == UINT64_MAX) &&
             (mask == 0 || set_next(&d->place.some, s) == s);
    }
    return ok;
}

/* ---- choosing ---- */

/* Where block `index` of the extent would keep its distance from block `other`. */
static uint32_t beside(const struct ext *x, uint32_t index, uint32_t other)
{
    const struct map_entry *en = map_peek(x, other); /* not worth reading */

    if (en == NULL || en->src[0].block == BLOCK_NONE)
        return NOWHERE;
    return en->src[0].block - 1 + index - other;
}

/* Beside the nearest block below or above among the 64 that share a stretch at best, or behind
 * the last one before these. in_row: the block above is to be written next, so it won't stay. */
static uint32_t place_beside(const struct ext *x, uint32_t index, bool in_row)
{
    uint32_t bit = index % STRETCH, first = index - bit, at = NOWHERE;
    uint64_t have = x->allocated[first / 64];
    uint64_t below = have & ((1ull << bit) - 1),
             above = have & ~(((1ull << bit) - 1) | 1ull << bit);

    if (below != 0)
        at = beside(x, index, first + 63 - (uint32_t)__builtin_clzll(below));
    else if (first > 0 && block_allocated(x, first - 1))
        at = beside(x, index, first - 1);
    if (!block_free(x->dev, at) && above != 0 && !in_row)
        at = beside(x, index, first + (uint32_t)__builtin_ctzll(above));
    return block_free(x->dev, at) ? at : NOWHERE;
}

/* The place in a stretch that block `index` would like, or any free one behind it or before. */
static uint32_t place_in(const struct dev *d, uint32_t stretch, uint32_t index)
{
    uint64_t mask = stretch_free(d, stretch), behind = mask >> (index % 64) << (index % 64);

    if (mask == 0)
        return NOWHERE;
    return stretch * STRETCH + (uint32_t)__builtin_ctzll(behind != 0 ? behind : mask);
}

static uint32_t run_length(uint64_t mask, uint32_t *ret_first)
{
    uint32_t best = 0;

    for (uint32_t bit = 0; bit < 64 && mask >> bit != 0;) {
        uint32_t n;

        bit += (uint32_t)__builtin_ctzll(mask >> bit);
        n = ~(mask >> bit) != 0 ? (uint32_t)__builtin_ctzll(~(mask >> bit)) : 64;
        n = MIN(n, 64 - bit);
        if (n > best) {
            best = n;
            *ret_first = bit;
        }
        bit += n;
    }
    return best;
}

/* The longest run of free blocks in the next few stretches that have any. */
static uint32_t place_longest(const struct dev *d, uint32_t near)
{
    uint32_t best = NOWHERE, length = 0, s = near;

    for (uint32_t i = 0; i < CANDIDATES; i++) {
        uint32_t first = 0, n;

        s = set_next_around(&d->place.some, s);
        if (s == NOWHERE)
            break;
        n = run_length(stretch_free(d, s), &first);
        if (n > length) {
            length = n;
            best = s * STRETCH + first;
        }
        s++;
    }
    return best;
}

bool place_data(struct ext *x, uint32_t index, bool in_row, uint32_t *ret)
{
    struct dev *d = x->dev;
    bool any = x->latest_place != BLOCK_NONE && x->latest_place <= d->g.blocks;
    bool copy = block_allocated(x, index);
    uint32_t near = any ? (x->latest_place - 1) / STRETCH : d->place.cursor, at = NOWHERE, s;

    if (any && index == x->latest_index + 1) /* which the map may not know yet */
        at = x->latest_place;
    if (!block_free(d, at))
        at = place_beside(x, index, in_row && copy);
    if (at == NOWHERE && any && copy && !in_row)
        at = place_in(d, near, index);
    if (at == NOWHERE) {
        s = set_next_around(&d->place.whole, near);
        at = s != NOWHERE ? place_in(d, s, in_row && copy ? 0 : index) : place_longest(d, near);
    }
    if (at == NOWHERE)
        return false;
    x->latest_index = index;
    x->latest_place = at + 1;
    d->place.cursor = at / STRETCH;
    *ret = at;
    return true;
}

/* Metadata gathers in stretches of its own. */
bool place_meta(struct dev *d, uint32_t *ret)
{
    uint32_t at = d->place.meta;

    if (!block_free(d, at)) {
        uint32_t s = set_next_around(&d->place.some, at / STRETCH);

        if (s == NOWHERE)
            return false;
        at = place_in(d, s, 0);
    }
    d->place.meta = at + 1;
    *ret = at;
    return true;
}
