/* SPDX-License-Identifier: Apache-2.0
 *
 * Where the pages of an extent are: the block map, in pages that are read on first use, and the
 * journaled pages that are not home yet. Map pages are kept in memory in their on-disk form;
 * everything goes through map_load, map_get and map_change, so that pages can be put aside one
 * day without the callers knowing. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "chunk/internal.h"

/* ---- metadata pages ---- */

void mpage_init(struct mpage *m, enum mpage_kind kind, uint32_t index, struct ext *x)
{
    *m = (struct mpage){.kind = kind, .index = index, .ext = x};
    m->dirty_rsn = RSN_NONE;
    list_init(&m->dirty);
}

void mpage_dirty(struct dev *d, struct mpage *m, uint64_t rsn)
{
    if (!list_linked(&m->dirty))
        list_push_back(&d->dirty, &m->dirty);
    m->dirty_rsn = MIN(m->dirty_rsn, rsn);
}

void mpage_forget(struct mpage *m)
{
    list_del(&m->dirty);
    m->dirty_rsn = RSN_NONE;
}

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
    uint64_t gen = MAX(d->j.seq << GEN_SEQ_SHIFT, d->map_gen_last + MAP_SLOTS);

    d->map_gen_last = ROUND_DOWN(gen, MAP_SLOTS);
    return d->map_gen_last + slot;
}

/* ---- loading ---- */

static bool entry_ok(const struct dev *d, const struct map_entry *en)
{
    const struct map_src *s = &en->src[0];

    for (uint32_t i = 1; i < MAP_SOURCES; i++) {
        if (en->src[i].block != BLOCK_NONE || en->src[i].valid != 0)
            return false;
    }
    return s->block <= d->g.blocks && (s->block != BLOCK_NONE || s->valid == 0);
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
    if (best != NULL && best->h.gen < x->map_gen[index]) {
        err_set(ERR_CORRUPT, "map page %" PRIu32 " of extent %" PRIu64 ": its last write was lost",
                index, x->id);
        return NULL;
    }
    return best;
}

static void allocated_put(struct ext *x, uint32_t block, bool on)
{
    uint64_t bit = 1ull << (block % 64);

    if (block_allocated(x, block) == on)
        return;
    x->allocated[block / 64] ^= bit;
    x->blocks += on ? 1 : UINT32_MAX; /* -1 */
}

bool block_allocated(const struct ext *x, uint32_t block)
{
    return x->allocated[block / 64] >> (block % 64) & 1;
}

/* Every block in a loaded page is allocated, and its alone. During replay this is not yet so. */
static int map_page_own(struct ext *x, const struct map_page *p, uint32_t index)
{
    for (uint32_t i = 0; i < MAP_ENTRIES; i++) {
        uint32_t b = index * MAP_ENTRIES + i, block = p->e[i].src[0].block;

        if (b < BLOCKS_PER_EXTENT ? (block != BLOCK_NONE) == block_allocated(x, b) &&
                                        (block == BLOCK_NONE || block_own(x->dev, block))
                                  : block == BLOCK_NONE)
            continue;
        while (i-- > 0) {
            if (p->e[i].src[0].block != BLOCK_NONE)
                block_disown(x->dev, p->e[i].src[0].block);
        }
        return err_set(ERR_CORRUPT,
                       "map page %" PRIu32 " of extent %" PRIu64 " contradicts the allocation",
                       index, x->id);
    }
    return 0;
}

/* The page is lost: it counts as empty, and the extent as missing. */
static void map_page_lost(struct ext *x, uint32_t index)
{
    char why[160];

    snprintf(why, sizeof(why), "%s", err_text(ERR_CORRUPT));
    for (uint32_t b = index * MAP_ENTRIES; b < MIN((index + 1) * MAP_ENTRIES, BLOCKS_PER_EXTENT);
         b++)
        allocated_put(x, b, false);
    ext_damaged(x, why);
    mpage_dirty(x->dev, x->map[index], x->dev->replaying ? RSN_START : x->dev->j.durable_rsn);
}

static struct mpage *map_add(struct ext *x, uint32_t index)
{
    x->map[index] = MEM_NEW(struct mpage);
    mpage_init(x->map[index], MP_MAP, index, x);
    return x->map[index];
}

/* Reads the map pages first..last, whose slots lie in one metadata block. */
static int map_read(struct ext *x, uint32_t first, uint32_t last)
{
    size_t len = (size_t)(last - first + 1) * MAP_SLOTS * PAGE_BYTES;
    struct map_page *pages = mem_alloc_aligned(PAGE_BYTES, len);
    int rc = disk_read(x->dev->disk, pages, len, map_off(x, first, 0));
    bool lost = false;

    for (uint32_t i = first; rc == 0 && i <= last; i++) {
        const struct map_page *p;
        struct mpage *m;

        if (x->map[i] != NULL)
            continue;
        m = map_add(x, i);
        if (x->map_gen[i] == 0)
            continue; /* never written: empty, whatever lies there */
        p = map_pick(x, &pages[(i - first) * MAP_SLOTS], i);
        if (p != NULL && (x->dev->replaying || map_page_own(x, p, i) == 0)) {
            x->map_gen[i] = p->h.gen;
            m->map = mem_alloc_aligned(PAGE_BYTES, PAGE_BYTES);
            memcpy(m->map, p, PAGE_BYTES);
        } else {
            lost = true;
            map_page_lost(x, i);
        }
    }
    mem_free(pages);
    if (rc < 0)
        return err_prefix(rc, "map of extent %" PRIu64, x->id);
    return lost ? err_set(ERR_CORRUPT, "extent %" PRIu64 ": damaged block map", x->id) : 0;
}

void map_check_loaded(struct ext *x)
{
    for (uint32_t i = 0; i < MAP_PAGES; i++) {
        struct mpage *m = x->map[i];
        static const struct map_page empty;

        if (m == NULL || map_page_own(x, m->map != NULL ? m->map : &empty, i) == 0)
            continue;
        mem_free(m->map);
        m->map = NULL;
        map_page_lost(x, i);
    }
}

static bool map_loaded(const struct ext *x, uint32_t first, uint32_t last)
{
    for (uint32_t i = first; i <= last; i++) {
        if (x->map[i] == NULL && x->map_gen[i] != 0)
            return false;
    }
    return true;
}

#define MAP_PAGES_A_BLOCK (PAGES_PER_BLOCK / MAP_SLOTS)

int map_load(struct ext *x, uint32_t first_block, uint32_t last_block)
{
    uint32_t first = first_block / MAP_ENTRIES, last = last_block / MAP_ENTRIES;
    int rc = 0;

    if (map_loaded(x, first, last))
        return 0;
    co_mutex_lock_always(&x->load_lock);
    while (first <= last && rc == 0) {
        uint32_t to = MIN(last, ROUND_DOWN(first, MAP_PAGES_A_BLOCK) + MAP_PAGES_A_BLOCK - 1);

        if (!map_loaded(x, first, to))
            rc = map_read(x, first, to);
        first = to + 1;
    }
    co_mutex_unlock(&x->load_lock);
    return rc;
}

void map_free_all(struct ext *x)
{
    for (uint32_t i = 0; i < MAP_PAGES; i++) {
        if (x->map[i] == NULL)
            continue;
        mem_free(x->map[i]->map);
        mem_free(x->map[i]);
        x->map[i] = NULL;
    }
}

/* ---- entries ---- */

const struct map_entry *map_get(const struct ext *x, uint32_t block)
{
    static const struct map_entry empty;
    const struct mpage *m = x->map[block / MAP_ENTRIES];

    if (m == NULL) {
        ASSERT(x->map_gen[block / MAP_ENTRIES] == 0);
        return &empty;
    }
    return m->map != NULL ? &m->map->e[block % MAP_ENTRIES] : &empty;
}

struct map_entry *map_change(struct ext *x, uint32_t block, uint64_t rsn)
{
    uint32_t index = block / MAP_ENTRIES;
    struct mpage *m = x->map[index];

    if (m == NULL) {
        ASSERTF(x->map_gen[index] == 0, "extent %" PRIu64 " block %" PRIu32 ": map not loaded",
                x->id, block);
        m = map_add(x, index);
    }
    if (m->map == NULL) {
        m->map = mem_alloc_aligned(PAGE_BYTES, PAGE_BYTES);
        memset(m->map, 0, PAGE_BYTES);
    }
    mpage_dirty(x->dev, m, rsn);
    return &m->map->e[block % MAP_ENTRIES];
}

/* ---- journaled changes, also at replay ---- */

static uint64_t page_mask(uint32_t first_bit, uint32_t count)
{
    return (count == 64 ? UINT64_MAX : (1ull << count) - 1) << first_bit;
}

void map_apply_alloc(struct ext *x, uint32_t index, uint32_t block, uint64_t rsn)
{
    struct map_entry *en = map_change(x, index, rsn);

    memset(en, 0, sizeof(*en));
    en->src[0].block = block;
    allocated_put(x, index, true);
    bit_set(x->dev, block, rsn);
    ext_dirty(x, rsn);
}

void map_apply_write(struct ext *x, const struct rec_write *r, const uint32_t *crc, uint64_t rsn)
{
    uint32_t index = r->first / PAGES_PER_BLOCK, bit = r->first % PAGES_PER_BLOCK;
    uint64_t mask = page_mask(bit, r->count);
    struct map_entry *en = map_change(x, index, rsn);

    if (r->h.flags & REC_F_REPLACE) {
        if (r->old_block != BLOCK_NONE)
            bit_clear(x->dev, r->old_block, rsn, false);
        memset(en, 0, sizeof(*en));
        en->src[0].block = r->block;
        bit_set(x->dev, r->block, rsn);
    }
    ASSERT(x->dev->replaying || en->src[0].block == r->block);
    en->src[0].block = r->block;
    allocated_put(x, index, true);
    en->src[0].valid |= mask;
    corrupt_forget(x, r->first, r->count);
    memcpy(&en->crc[bit], crc, r->count * sizeof(*crc));
    jpage_drop(x, r->first, r->count);
    ext_dirty(x, rsn);
}

void map_apply_zero(struct ext *x, const struct rec_write *r, const struct rec_freed *freed,
                    uint64_t rsn)
{
    uint32_t page = r->first, end = r->first + r->count;

    for (uint32_t i = 0; i < r->n_freed; i++) {
        memset(map_change(x, freed[i].index, rsn), 0, sizeof(struct map_entry));
        allocated_put(x, freed[i].index, false);
        bit_clear(x->dev, freed[i].block, rsn, false);
    }
    while (page < end) {
        uint32_t bit = page % PAGES_PER_BLOCK, n = MIN(end - page, PAGES_PER_BLOCK - bit);
        uint32_t index = page / PAGES_PER_BLOCK;

        if (block_allocated(x, index) && (map_get(x, index)->src[0].valid & page_mask(bit, n)) != 0)
            map_change(x, index, rsn)->src[0].valid &= ~page_mask(bit, n);
        page += n;
    }
    corrupt_forget(x, r->first, r->count);
    jpage_drop(x, r->first, r->count);
    ext_dirty(x, rsn);
}

/* ---- journaled pages ---- */

struct vblk *vblk_get(struct ext *x, uint32_t block)
{
    return x->vblk != NULL ? x->vblk[block] : NULL;
}

struct vblk *vblk_make(struct ext *x, uint32_t block)
{
    if (x->vblk == NULL)
        x->vblk = MEM_NEW_ARRAY(struct vblk *, BLOCKS_PER_EXTENT);
    if (x->vblk[block] == NULL) {
        x->vblk[block] = MEM_NEW(struct vblk);
        x->n_vblk++;
    }
    return x->vblk[block];
}

void vblk_tidy(struct ext *x, uint32_t block)
{
    struct vblk *v = vblk_get(x, block);

    if (v == NULL || v->mask != 0 || v->flushing != 0 || v->users != 0)
        return;
    mem_free(v);
    x->vblk[block] = NULL;
    x->n_vblk--;
}

struct jpage *jpage_find(const struct ext *x, uint32_t page)
{
    const struct vblk *v = x->vblk != NULL ? x->vblk[page / PAGES_PER_BLOCK] : NULL;

    return v != NULL ? v->jp[page % PAGES_PER_BLOCK] : NULL;
}

static void jpage_uncache(struct engine *e, struct jpage *jp)
{
    if (!list_linked(&jp->cached))
        return;
    list_del(&jp->cached);
    e->cached_pages--;
}

void jpage_put(struct jpage *jp)
{
    ASSERT(jp->refs > 0);
    if (--jp->refs > 0)
        return;
    ASSERT(!jp->current && !list_linked(&jp->cached) && !list_linked(&jp->live));
    buf_put(jp->buf);
    mem_free(jp);
}

struct jpage *jpage_new(uint32_t page, struct buf *buf, const uint8_t *data, uint32_t crc)
{
    struct jpage *jp = MEM_NEW(struct jpage);

    list_init(&jp->live);
    list_init(&jp->cached);
    jp->page = (uint16_t)page;
    jp->buf = buf != NULL ? buf_get(buf) : NULL;
    jp->data = data;
    jp->crc = crc;
    jp->refs = 1;
    return jp;
}

/* No longer what the page reads as. */
static void jpage_retire(struct ext *x, struct vblk *v, uint32_t bit)
{
    struct jpage *jp = v->jp[bit];

    v->jp[bit] = NULL;
    v->mask &= ~(1ull << bit);
    jp->current = false;
    list_del(&jp->live);
    jpage_uncache(x->dev->e, jp);
    jpage_put(jp);
}

void jpage_insert(struct ext *x, struct jpage *jp)
{
    struct vblk *v = vblk_make(x, jp->page / PAGES_PER_BLOCK);
    uint32_t bit = jp->page % PAGES_PER_BLOCK;
    struct journal *j = &x->dev->j;

    corrupt_forget(x, jp->page, 1);
    if (v->jp[bit] != NULL)
        jpage_retire(x, v, bit);
    jp->ext = x;
    jp->current = true;
    jp->refs++;
    v->jp[bit] = jp;
    v->mask |= 1ull << bit;
    list_push_back(&j->live, &jp->live);
    if (jp->buf != NULL) {
        list_push_back(&x->dev->e->cached, &jp->cached);
        x->dev->e->cached_pages++;
    }
}

void jpage_drop(struct ext *x, uint32_t first, uint32_t count)
{
    uint32_t page = first, end = first + count;

    if (x->n_vblk == 0)
        return;
    while (page < end) {
        uint32_t bit = page % PAGES_PER_BLOCK, n = MIN(end - page, PAGES_PER_BLOCK - bit);
        uint32_t block = page / PAGES_PER_BLOCK;
        struct vblk *v = vblk_get(x, block);
        uint64_t hit = v != NULL ? v->mask & page_mask(bit, n) : 0;

        for (; hit != 0; hit &= hit - 1)
            jpage_retire(x, v, (uint32_t)__builtin_ctzll(hit));
        vblk_tidy(x, block);
        page += n;
    }
}

void jpages_drop_all(struct ext *x)
{
    jpage_drop(x, 0, PAGES_PER_EXTENT);
}

/* Over the memory limit, the oldest pages are only in the ring from now on. */
void cache_trim(struct engine *e)
{
    while (e->cached_pages > e->cached_pages_max) {
        struct jpage *jp = LIST_FIRST(&e->cached, struct jpage, cached);

        if (jp->rsn > jp->ext->dev->j.durable_rsn)
            break;
        list_del(&jp->cached);
        e->cached_pages--;
        if (jp->refs == 1) { /* nobody is using the memory */
            buf_put(jp->buf);
            jp->buf = NULL;
            jp->data = NULL;
        }
    }
}
