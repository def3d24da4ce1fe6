/* SPDX-License-Identifier: Apache-2.0
 *
 * Where the pages of an extent lie: the block map. Its pages are in memory in their on-disk form
 * while somebody holds them, and longer if there is room (mpage.c). */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "chunk/internal.h"

/* ---- places ---- */

uint64_t meta_off(const struct ext *x, uint32_t page)
{
    return block_off(x->dev, x->meta_block[page / PAGES_PER_BLOCK]) +
           (uint64_t)(page % PAGES_PER_BLOCK) * PAGE_BYTES;
}

uint64_t map_off(const struct ext *x, uint32_t index, uint32_t slot)
{
    return meta_off(x, index * MAP_SLOTS + slot);
}

/* ---- generations ---- */

#define GEN_SEQ_SHIFT 20 /* with SEQ_MAX this fits in 64 bits */

uint32_t map_slot(uint64_t gen)
{
    return gen % MAP_SLOTS;
}

/* Higher than any before, those of former extents in the same place included: it counts from the
 * journal's number, which no two starts share, and a block is given out again only when the
 * deletion is durable. */
uint64_t map_gen_next(struct dev *d, uint32_t slot)
{
    uint64_t gen = MAX(d->j.seq << GEN_SEQ_SHIFT, d->gen_last + MAP_SLOTS);

    d->gen_last = ROUND_DOWN(gen, MAP_SLOTS);
    return d->gen_last + slot;
}

uint64_t gen_next(struct dev *d)
{
    return map_gen_next(d, 0);
}

/* ---- loading ---- */

static bool entry_ok(const struct dev *d, const struct map_entry *en)
{
    uint64_t seen = 0;

    for (uint32_t i = 0; i < MAP_SOURCES; i++) {
        const struct map_src *s = &en->src[i];

        if (s->block > d->g.blocks || (s->valid & seen) != 0 ||
            (s->block == BLOCK_NONE && s->valid != 0) ||
            (i > 0 && s->block != BLOCK_NONE && s->valid == 0))
            return false;
        seen |= s->valid;
        for (uint32_t k = 0; k < i; k++) {
            if (s->block != BLOCK_NONE && en->src[k].block == s->block)
                return false;
        }
    }
    return true;
}

static int map_page_check(const struct ext *x, const struct map_page *p, uint32_t index,
                          uint32_t slot)
{
    int rc = meta_check(&x->dev->sb, p, META_MAP, map_off(x, index, slot), x->id, index);

    if (rc == 0 && map_slot(p->h.gen) != slot)
        rc = err_set(ERR_CORRUPT, "map page %" PRIu32 " of extent %" PRIu64 " in a wrong slot",
                     index, x->id);
    for (uint32_t i = 0; i < MAP_ENTRIES && rc == 0; i++) {
        if (!entry_ok(x->dev, &p->e[i]))
            rc = err_set(ERR_CORRUPT,
                         "map page %" PRIu32 " of extent %" PRIu64 ": entry %" PRIu32
                         " out of range",
                         index, x->id, i);
    }
    return rc;
}

/* The newer of a page's two slots; NULL with the error set if neither is what the head expects:
 * a page of a lower generation means that a later write of it was lost. */
static const struct map_page *map_pick(const struct ext *x, const struct map_page slots[MAP_SLOTS],
                                       uint32_t index)
{
    const struct map_page *best = NULL;

    for (uint32_t s = 0; s < MAP_SLOTS; s++) {
        if (map_page_check(x, &slots[s], index, s) == 0 &&
            (best == NULL || slots[s].h.gen > best->h.gen))
            best = &slots[s];
    }
    if (best != NULL && best->h.gen < x->map->gen[index]) {
        err_set(ERR_CORRUPT, "map page %" PRIu32 " of extent %" PRIu64 ": its last write was lost",
                index, x->id);
        return NULL;
    }
    return best;
}

bool block_allocated(const struct ext *x, uint32_t block)
{
    return x->allocated[block / 64] >> (block % 64) & 1;
}

bool block_shared(const struct ext *x, uint32_t block)
{
    return x->shared[block / 64] >> (block % 64) & 1;
}

bool block_mapped(const struct ext *x, uint32_t block)
{
    return ((x->allocated[block / 64] | x->shared[block / 64]) >> (block % 64)) & 1;
}

static bool entry_shared(const struct map_entry *en)
{
    bool any = false;

    for (uint32_t k = 1; k < MAP_SOURCES; k++)
        any |= en->src[k].block != BLOCK_NONE;
    return any;
}

bool entry_empty(const struct map_entry *en)
{
    return en->src[0].block == BLOCK_NONE && !entry_shared(en);
}

void head_bits_put(struct ext *x, uint32_t block, const struct map_entry *en)
{
    uint64_t bit = 1ull << (block % 64);
    bool own = en->src[0].block != BLOCK_NONE;

    if (block_allocated(x, block) != own) {
        x->allocated[block / 64] ^= bit;
        x->blocks += own ? 1 : UINT32_MAX; /* -1 */
        credits_keep(x);
    }
    if (block_shared(x, block) != entry_shared(en))
        x->shared[block / 64] ^= bit;
}

/* Takes the entry's blocks; returns how many sources it came through. */
static uint32_t entry_own(struct dev *d, const struct map_entry *en, bool again)
{
    uint32_t k = 0;

    while (k < MAP_SOURCES) {
        uint32_t block = en->src[k].block;

        if (block != BLOCK_NONE && !(again && block_owned(d, block)) && !block_own(d, block))
            break;
        k++;
    }
    return k;
}

static void entry_disown(struct dev *d, const struct map_entry *en, uint32_t end)
{
    for (uint32_t k = 0; k < end; k++) {
        if (en->src[k].block != BLOCK_NONE)
            block_disown(d, en->src[k].block);
    }
}

static bool seen(const struct ext *x, uint32_t index)
{
    return x->map_seen[index / 64] >> (index % 64) & 1;
}

/* Does the entry say what the head says, as far as that goes? */
static bool entry_as_head(const struct ext *x, uint32_t block, const struct map_entry *en)
{
    if (block >= BLOCKS_PER_EXTENT)
        return entry_empty(en);
    return (en->src[0].block != BLOCK_NONE) == block_allocated(x, block) &&
           entry_shared(en) == block_shared(x, block);
}

/* Every block in a page is allocated, and its alone unless it is shared: claimed when the page is
 * read for the first time, and known to be its own later (or since it ceased to be shared). During
 * replay this is not yet so. */
static int map_page_own(struct ext *x, const struct map_page *p, uint32_t index)
{
    for (uint32_t i = 0; i < MAP_ENTRIES; i++) {
        bool same = entry_as_head(x, index * MAP_ENTRIES + i, &p->e[i]);
        uint32_t got = same ? entry_own(x->dev, &p->e[i], seen(x, index)) : 0;

        if (same && got == MAP_SOURCES)
            continue;
        if (!seen(x, index))
            entry_disown(x->dev, &p->e[i], got);
        while (!seen(x, index) && i-- > 0)
            entry_disown(x->dev, &p->e[i], MAP_SOURCES);
        return err_set(ERR_CORRUPT,
                       "map page %" PRIu32 " of extent %" PRIu64 " contradicts the allocation",
                       index, x->id);
    }
    x->map_seen[index / 64] |= 1ull << (index % 64);
    return 0;
}

/* The pages are lost: they count as empty, and the extent as missing. */
static void map_lost(struct ext *x, uint32_t first, uint32_t last)
{
    static const struct map_entry empty;
    char why[160];

    snprintf(why, sizeof(why), "%s", err_text(ERR_CORRUPT));
    for (uint32_t b = first * MAP_ENTRIES; b < MIN((last + 1) * MAP_ENTRIES, BLOCKS_PER_EXTENT);
         b++)
        head_bits_put(x, b, &empty);
    ext_damaged(x, why);
}

/* ---- pages in memory ---- */

struct ext_map *map_new(struct ext *x)
{
    ASSERT(x->map == NULL);
    x->map = MEM_NEW(struct ext_map);
    mpage_init(&x->map->gens, x->dev, MP_GENS, 0, x);
    mpage_hold(&x->map->gens);
    mpage_charge(&x->map->gens, sizeof(*x->map));
    return x->map;
}

/* A page without content, held once. */
static struct mpage *page_add(struct ext *x, uint32_t index)
{
    struct mpage *m = MEM_NEW(struct mpage);

    mpage_init(m, x->dev, MP_MAP, index, x);
    mpage_hold(m);
    x->map->page[index] = m;
    mpage_hold(&x->map->gens);
    mpage_charge(m, sizeof(*m));
    return m;
}

static void page_content_new(struct mpage *m, const struct map_page *from)
{
    m->map = mem_alloc(PAGE_BYTES);
    if (from != NULL)
        memcpy(m->map, from, PAGE_BYTES);
    mpage_charge(m, PAGE_BYTES);
}

static void page_free(struct mpage *m)
{
    struct ext_map *map = m->ext->map;

    map->page[m->index] = NULL;
    mpage_fini(m);
    mem_free(m->map);
    mem_free(m);
    mpage_release(&map->gens);
}

static void gens_free(struct ext *x)
{
    mpage_fini(&x->map->gens);
    mem_free(x->map);
    x->map = NULL;
}

void map_evict(struct mpage *m)
{
    m->dev->e->map_evictions += m->kind == MP_MAP;
    if (m->kind == MP_MAP)
        page_free(m);
    else
        gens_free(m->ext);
}

void map_free_all(struct ext *x)
{
    if (x->map == NULL)
        return;
    for (uint32_t i = 0; i < MAP_PAGES; i++) {
        if (x->map->page[i] != NULL)
            page_free(x->map->page[i]);
    }
    gens_free(x);
}

/* ---- loading ---- */

/* The pages first..last that are not in memory, from what was read of their slots. */
static int map_take(struct ext *x, const struct map_page *slots, uint32_t first, uint32_t last)
{
    int rc = 0;

    for (uint32_t i = first; i <= last; i++) {
        const struct map_page *p;
        struct mpage *m;

        if (x->map->page[i] != NULL)
            continue;
        m = page_add(x, i);
        if (x->map->gen[i] == 0) { /* never written: empty, whatever lies there */
            static const struct map_page empty;

            if (x->dev->replaying || map_page_own(x, &empty, i) == 0)
                continue;
        }
        p = x->map->gen[i] != 0 ? map_pick(x, &slots[(i - first) * MAP_SLOTS], i) : NULL;
        if (p != NULL && (x->dev->replaying || map_page_own(x, p, i) == 0)) {
            x->map->gen[i] = p->h.gen;
            page_content_new(m, p);
            x->dev->e->map_reads++;
        } else {
            map_lost(x, i, i);
            mpage_dirty(x->dev, m, x->dev->replaying ? RSN_START : x->dev->j.durable_rsn);
            rc = err_set(ERR_CORRUPT, "extent %" PRIu64 ": damaged block map", x->id);
        }
    }
    return rc;
}

static bool map_needs_read(const struct ext *x, uint32_t first, uint32_t last)
{
    for (uint32_t i = first; i <= last; i++) {
        if (x->map->page[i] == NULL && x->map->gen[i] != 0)
            return true;
    }
    return false;
}

/* Holds the pages first..last, whose slots lie in one metadata block. */
static int hold_run(struct ext *x, uint32_t first, uint32_t last)
{
    size_t len = (size_t)(last - first + 1) * MAP_SLOTS * PAGE_BYTES;
    struct map_page *slots = NULL;
    int rc = 0;

    for (uint32_t i = first; i <= last; i++) {
        if (x->map->page[i] != NULL)
            mpage_hold(x->map->page[i]);
    }
    if (map_needs_read(x, first, last)) {
        slots = mem_alloc_aligned(PAGE_BYTES, len);
        rc = disk_read(x->dev->disk, slots, len, map_off(x, first, 0));
    }
    if (rc == 0) {
        rc = map_take(x, slots, first, last);
    } else {
        err_prefix(rc, "map of extent %" PRIu64, x->id);
        for (uint32_t i = first; i <= last; i++) {
            if (x->map->page[i] != NULL)
                mpage_release(x->map->page[i]);
        }
    }
    mem_free(slots);
    return rc;
}

/* x->map is there afterwards, held once more, unless an error but ERR_CORRUPT comes back. */
static int gens_hold(struct ext *x)
{
    uint64_t gen[MAP_PAGES];
    int rc;

    if (x->map != NULL) {
        mpage_hold(&x->map->gens);
        return 0;
    }
    rc = head_read_gens(x, gen);
    if (rc < 0 && rc != ERR_CORRUPT)
        return err_prefix(rc, "head of extent %" PRIu64, x->id);
    map_new(x);
    if (rc == 0)
        memcpy(x->map->gen, gen, sizeof(gen));
    else
        map_lost(x, 0, MAP_PAGES - 1);
    return rc;
}

int map_gens(struct ext *x)
{
    int rc;

    co_mutex_lock_always(&x->load_lock);
    rc = gens_hold(x);
    if (x->map != NULL)
        mpage_release(&x->map->gens);
    co_mutex_unlock(&x->load_lock);
    return rc;
}

static void release_pages(struct ext *x, uint32_t first, uint32_t end)
{
    for (uint32_t i = first; i < end; i++) {
        struct mpage *m = x->map->page[i];

        mpage_release(m);
        if (m->map == NULL && list_linked(&m->idle))
            page_free(m); /* the generations say the same */
    }
}

static int hold_all(struct ext *x, uint32_t first, uint32_t last)
{
    uint32_t at = first;
    int corrupt, rc = gens_hold(x);

    if (x->map == NULL)
        return rc;
    for (corrupt = rc, rc = 0; at <= last && rc == 0;) {
        uint32_t to = MIN(last, ROUND_DOWN(at, MAP_PAGES_A_BLOCK) + MAP_PAGES_A_BLOCK - 1);

        rc = hold_run(x, at, to);
        if (rc == ERR_CORRUPT) {
            corrupt = rc;
            rc = 0;
        }
        at = rc == 0 ? to + 1 : at;
    }
    if (rc < 0)
        release_pages(x, first, at);
    mpage_release(&x->map->gens);
    return rc < 0 ? rc : corrupt;
}

static bool all_there(const struct ext *x, uint32_t first, uint32_t last)
{
    for (uint32_t i = first; i <= last && x->map != NULL; i++) {
        if (x->map->page[i] == NULL)
            return false;
    }
    return x->map != NULL;
}

int map_hold(struct ext *x, uint32_t first_block, uint32_t last_block, struct map_hold *ret)
{
    struct map_hold h = {.first = first_block / MAP_ENTRIES, .last = last_block / MAP_ENTRIES};
    int rc = 0;

    *ret = (struct map_hold){0};
    if (all_there(x, h.first, h.last)) {
        for (uint32_t i = h.first; i <= h.last; i++)
            mpage_hold(x->map->page[i]);
    } else {
        co_mutex_lock_always(&x->load_lock);
        rc = hold_all(x, h.first, h.last);
        co_mutex_unlock(&x->load_lock);
    }
    if (rc < 0 && rc != ERR_CORRUPT)
        return rc;
    h.x = ext_get(x);
    *ret = h;
    return rc;
}

void map_release(struct map_hold *h)
{
    struct ext *x = h->x;

    if (x == NULL)
        return;
    h->x = NULL;
    release_pages(x, h->first, h->last + 1);
    ext_put(x);
}

void map_check_loaded(struct ext *x)
{
    for (uint32_t i = 0; i < MAP_PAGES && x->map != NULL; i++) {
        struct mpage *m = x->map->page[i];
        static const struct map_page empty;

        if (m == NULL || map_page_own(x, m->map != NULL ? m->map : &empty, i) == 0)
            continue;
        if (m->map != NULL)
            memset(m->map, 0, PAGE_BYTES);
        map_lost(x, i, i);
        mpage_dirty(x->dev, m, RSN_START);
    }
}

/* ---- entries ---- */

static struct mpage *held_page(const struct ext *x, uint32_t block)
{
    struct mpage *m = x->map != NULL ? x->map->page[block / MAP_ENTRIES] : NULL;

    ASSERTF(m != NULL && m->holds > 0,
            "extent %" PRIu64 " block %" PRIu32 ": nobody holds its map page", x->id, block);
    return m;
}

const struct map_entry *map_get(const struct ext *x, uint32_t block)
{
    static const struct map_entry empty;
    const struct mpage *m = held_page(x, block);

    return m->map != NULL ? &m->map->e[block % MAP_ENTRIES] : &empty;
}

const struct map_entry *map_peek(const struct ext *x, uint32_t block)
{
    const struct mpage *m = x->map != NULL ? x->map->page[block / MAP_ENTRIES] : NULL;

    return m != NULL && m->map != NULL ? &m->map->e[block % MAP_ENTRIES] : NULL;
}

struct map_entry *map_change(struct ext *x, uint32_t block, uint64_t rsn)
{
    struct mpage *m = held_page(x, block);

    if (m->map == NULL)
        page_content_new(m, NULL);
    mpage_dirty(x->dev, m, rsn);
    return &m->map->e[block % MAP_ENTRIES];
}

const struct map_src *entry_source(const struct map_entry *en, uint32_t bit)
{
    for (uint32_t k = 0; k < MAP_SOURCES; k++) {
        if (en->src[k].valid >> bit & 1)
            return &en->src[k];
    }
    return NULL;
}
