/* SPDX-License-Identifier: Apache-2.0
 *
 * An extent that shares blocks moves behind its relatives. What it reads as they do, and they have
 * on the other device already, it goes on sharing with them: its twin begins with a map that names
 * their blocks, as a child's does, and only the rest is copied. Relatives are recognised by their
 * family, and equal pages by their checksums first and byte by byte then, so nothing has to be
 * remembered: a drain that was interrupted finds what moved before. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "chunk/child.h"
#include "chunk/move.h"

#define DONORS_MAX 3u /* relatives that are looked at */
#define SHARED_MAX 2u /* of their blocks, for each block: copies may need a third source */

struct share { /* one block of the extent, in one of a donor's */
    struct map_src src;
    uint8_t donor;
    bool in_place; /* the donor's own: only as long as nobody writes to it */
};
struct sharing {
    struct move *m;
    struct dev *d; /* the target */
    struct ext *donor[DONORS_MAX];
    uint32_t n_donors;
    struct share shares[BLOCKS_PER_EXTENT][SHARED_MAX];
    struct child_map map;
};

/* ---- donors ---- */

/* Frozen ones first, which do not change; then those of the same volume; then the latest before. */
static bool closer(const struct ext *x, const struct ext *a, const struct ext *b)
{
    if (a->frozen != b->frozen)
        return a->frozen;
    if ((a->volume_id == x->volume_id) != (b->volume_id == x->volume_id))
        return a->volume_id == x->volume_id;
    if ((a->epoch <= x->epoch) != (b->epoch <= x->epoch))
        return a->epoch <= x->epoch;
    return a->epoch <= x->epoch ? a->epoch > b->epoch : a->epoch < b->epoch;
}

static void donor_offer(void *arg, struct ext *z)
{
    struct sharing *s = arg;
    struct ext *x = s->m->from;
    uint32_t at = s->n_donors;

    if (z->dev != s->d || z->family != x->family || z->dead || z->deleting || z->is_void)
        return;
    while (at > 0 && closer(x, z, s->donor[at - 1]))
        at--;
    if (at == DONORS_MAX)
        return;
    if (s->n_donors == DONORS_MAX)
        ext_put(s->donor[--s->n_donors]);
    memmove(&s->donor[at + 1], &s->donor[at], (s->n_donors - at) * sizeof(struct ext *));
    s->donor[at] = ext_get(z);
    s->n_donors++;
}

static int id_cmp(const void *a, const void *b)
{
    const struct ext *const *x = a, *const *y = b;

    return (*x)->id < (*y)->id ? -1 : (*x)->id > (*y)->id;
}

/* ---- what is equal ---- */

static bool page_crc_of(struct ext *x, uint32_t page, uint32_t *ret)
{
    const struct jpage *jp = jpage_find(x, page);
    uint64_t off;

    if (jp != NULL)
        *ret = jp->crc;
    return jp != NULL || page_home(x, page, &off, ret);
}

/* Pages of a donor's source that have the checksums wanted; its own only if it does not write. */
static uint64_t pages_alike(struct ext *z, uint32_t b, uint32_t k, uint64_t want,
                            const uint32_t *crc)
{
    const struct map_entry *en = map_get(z, b);
    uint64_t alike = 0, mask = en->src[k].valid & want;

    if (k == 0 && !z->frozen)
        return 0;
    for (; mask != 0; mask &= mask - 1) {
        uint32_t bit = (uint32_t)__builtin_ctzll(mask);

        if (en->crc[bit] == crc[bit] && jpage_find(z, b * PAGES_PER_BLOCK + bit) == NULL)
            alike |= 1ull << bit;
    }
    return alike;
}

/* The donors' source that has most of the pages wanted; its mask is 0 if there is none. */
static struct share best_share(const struct sharing *s, uint32_t b, uint64_t want,
                               const uint32_t *crc)
{
    struct share best = {.src.valid = 0};

    for (uint32_t i = 0; i < s->n_donors; i++) {
        struct ext *z = s->donor[i];

        for (uint32_t k = 0; k < MAP_SOURCES && block_mapped(z, b); k++) {
            uint64_t alike = pages_alike(z, b, k, want, crc);

            if (__builtin_popcountll(alike) > __builtin_popcountll(best.src.valid))
                best = (struct share){
                    {map_get(z, b)->src[k].block, alike}, .donor = (uint8_t)i, .in_place = k == 0};
        }
    }
    return best;
}

static int dev_read(struct dev *d, void *dst, size_t len, uint64_t off)
{
    int rc = disk_read(d->disk, dst, len, off);

    d->io_errors += rc < 0;
    return rc < 0 ? err_prefix(rc, "disk %s", d->path) : 0;
}

/* Length of the run of ones from `bit` on. */
static uint32_t ones(uint64_t mask, uint32_t bit)
{
    uint64_t rest = ~(mask >> bit);

    return rest != 0 ? (uint32_t)__builtin_ctzll(rest) : PAGES_PER_BLOCK;
}

/* Leaves only pages that are equal; one that can't be read is not. */
static int compare(const struct sharing *s, uint32_t b, struct share *sh)
{
    uint8_t *theirs = mem_alloc_aligned(PAGE_BYTES, BLOCK_BYTES),
            *ours = mem_alloc_aligned(PAGE_BYTES, BLOCK_BYTES);
    uint64_t off = block_off(s->d, sh->src.block), equal = 0;
    int rc = 0;

    for (uint64_t mask = sh->src.valid; mask != 0 && rc == 0;) {
        uint32_t bit = (uint32_t)__builtin_ctzll(mask), n = ones(mask, bit);
        bool zero;

        mask &= ~page_mask(bit, n);
        rc = pages_read(s->m->from, b * PAGES_PER_BLOCK + bit, n, ours, NULL, &zero);
        if (rc == ERR_CORRUPT) {
            rc = 0;
            continue;
        }
        if (rc == 0)
            rc = dev_read(s->d, theirs, (size_t)n * PAGE_BYTES, off + bit * PAGE_BYTES);
        for (uint32_t i = 0; i < n && rc == 0 && !zero; i++) {
            size_t at = (size_t)i * PAGE_BYTES;

            equal |= (uint64_t)(memcmp(ours + at, theirs + at, PAGE_BYTES) == 0) << (bit + i);
        }
    }
    sh->src.valid = equal;
    mem_free(ours);
    mem_free(theirs);
    return rc;
}

/* The maps are held. Which pages the twin's map has now, and which it still lacks. */
static int block_share(struct sharing *s, uint32_t b, uint64_t *ret, uint64_t *ret_left)
{
    uint32_t crc[PAGES_PER_BLOCK];
    uint64_t want = 0;
    int rc = 0;

    for (uint32_t bit = 0; bit < PAGES_PER_BLOCK; bit++)
        want |= (uint64_t)page_crc_of(s->m->from, b * PAGES_PER_BLOCK + bit, &crc[bit]) << bit;
    *ret = 0;
    for (uint32_t n = 0; n < SHARED_MAX && rc == 0; n++) {
        struct share sh = best_share(s, b, want & ~*ret, crc);

        if (sh.src.valid == 0)
            break;
        rc = compare(s, b, &sh);
        if (rc < 0 || sh.src.valid == 0)
            break;
        s->shares[b][n] = sh;
        (void)child_map_add(&s->map, b, &sh.src); /* there is room for SHARED_MAX */
        *ret |= sh.src.valid;
    }
    for (uint64_t mask = *ret; mask != 0; mask &= mask - 1) {
        uint32_t bit = (uint32_t)__builtin_ctzll(mask);

        child_map_entry(&s->map, b)->crc[bit] = crc[bit];
    }
    *ret_left = want & ~*ret;
    return rc;
}

static int maps_hold(const struct sharing *s, uint32_t first, uint32_t last,
                     struct map_hold hold[DONORS_MAX])
{
    int rc = 0;

    for (uint32_t i = 0; i < s->n_donors && rc == 0; i++)
        rc = map_hold(s->donor[i], first, last, &hold[i]);
    return rc;
}

static void maps_release(struct map_hold hold[DONORS_MAX])
{
    for (uint32_t i = 0; i < DONORS_MAX; i++)
        map_release(&hold[i]);
}

/* A block of the pass over all of them (move_pass): writers are kept out. */
int move_share_block(struct move *m, uint32_t b, uint64_t dirty, uint32_t *ret_pages)
{
    struct map_hold from, hold[DONORS_MAX] = {0};
    struct sharing *s = m->sharing;
    uint64_t shared = 0, left = dirty;
    int rc = map_hold(m->from, b, b, &from);

    if (rc == 0)
        rc = maps_hold(s, b, b, hold);
    if (rc == 0)
        rc = block_share(s, b, &shared, &left);
    maps_release(hold);
    map_release(&from);
    m->dirty[b] |= left;
    *ret_pages = (uint32_t)__builtin_popcountll(shared);
    return rc == ERR_CORRUPT ? 0 : rc; /* void: what is left is copied */
}

/* ---- the twin ---- */

/* What was found still holds: a donor's own block has been left alone; what it only reads nobody
 * writes to, as long as it has it. */
static bool share_holds(struct sharing *s, uint32_t b, const struct share *sh)
{
    uint32_t k = 0, crc[PAGES_PER_BLOCK];
    struct ext *z = s->donor[sh->donor];
    const struct map_entry *en;

    if (!block_mapped(z, b))
        return false;
    memcpy(crc, child_map_entry(&s->map, b)->crc, sizeof(crc));
    en = map_get(z, b);
    while (k < MAP_SOURCES && en->src[k].block != sh->src.block)
        k++;
    if (k == MAP_SOURCES)
        return false;
    if (sh->in_place || k == 0)
        return pages_alike(z, b, k, sh->src.valid, crc) == sh->src.valid;
    return true;
}

static int shares_check(struct sharing *s)
{
    for (uint32_t b = 0; b < BLOCKS_PER_EXTENT; b++) {
        for (uint32_t n = 0; n < SHARED_MAX; n++) {
            if (s->shares[b][n].src.valid != 0 && !share_holds(s, b, &s->shares[b][n]))
                return err_set(ERR_AGAIN, "a relative of extent %" PRIu64 " was written to",
                               s->m->from->id);
        }
    }
    return child_map_room(&s->map);
}

/* Nobody writes to the donors, and none is deleted, while the record is made. */
struct donors_locked {
    struct op op[DONORS_MAX];
    struct co_range range[DONORS_MAX];
    struct map_hold hold[DONORS_MAX];
    uint32_t n;
};

static int donor_lock(const struct sharing *s, uint32_t i, struct donors_locked *l)
{
    struct ext *z = s->donor[i];
    int rc = op_begin_closed(s->d->e, z->id, OP_EPOCH_NONE, &l->op[i]);

    if (rc < 0)
        return err_set(ERR_AGAIN, "a relative of extent %" PRIu64 " is gone", s->m->from->id);
    rc = l->op[i].ext == z
             ? co_range_acquire(&z->lock, &l->range[i], 0, PAGES_PER_EXTENT, false)
             : err_set(ERR_AGAIN, "a relative of extent %" PRIu64 " was replaced", s->m->from->id);
    if (rc < 0)
        op_end(&l->op[i]);
    else
        l->n++;
    return rc;
}

static int donors_lock(const struct sharing *s, struct donors_locked *l)
{
    int rc = 0;

    for (uint32_t i = 0; i < s->n_donors && rc == 0; i++)
        rc = donor_lock(s, i, l);
    return rc == 0 ? maps_hold(s, 0, BLOCKS_PER_EXTENT - 1, l->hold) : rc;
}

static void donors_unlock(const struct sharing *s, struct donors_locked *l)
{
    maps_release(l->hold);
    for (uint32_t i = 0; i < l->n; i++) {
        co_range_release(&s->donor[i]->lock, &l->range[i]);
        op_end(&l->op[i]);
    }
}

static int twin_journal(struct sharing *s)
{
    uint32_t cost = child_map_cost(&s->map);
    struct donors_locked *l = MEM_NEW(struct donors_locked);
    int rc = donors_lock(s, l);
    uint64_t rsn;

    if (rc == 0)
        rc = journal_space(s->d, cost, false);
    if (rc == 0) {
        rc = twin_check(s->m);
        if (rc == 0)
            rc = shares_check(s);
        if (rc < 0)
            journal_space_return(s->d, cost);
    }
    if (rc == 0) {
        struct rec_child *r = child_map_rec(&s->map, s->donor[0]->id);

        r->c.h.flags |= REC_F_ARRIVING;
        s->m->to = child_map_journal(&s->map, r, cost, &rsn);
        ext_apart_begin(s->m->to);
    }
    donors_unlock(s, l);
    mem_free(l);
    return rc;
}

static int share_run(struct sharing *s)
{
    struct move *m = s->m;
    int rc;

    child_map_init(&s->map, s->d, &m->twin);
    m->each = move_share_block;
    rc = move_pass(m);
    if (rc == 0 && s->map.n_blocks > 0) {
        rc = child_map_write(&s->map);
        if (rc == 0)
            rc = twin_journal(s);
    }
    child_map_free(&s->map);
    return rc;
}

int move_share(struct move *m)
{
    struct sharing *s = MEM_NEW(struct sharing);
    int rc = 0;

    s->m = m;
    s->d = m->dev;
    m->sharing = s;
    ext_foreach(s->d->e, donor_offer, s);
    qsort(s->donor, s->n_donors, sizeof(s->donor[0]), id_cmp); /* all lock them in this order */
    if (s->n_donors > 0)
        rc = share_run(s);
    for (uint32_t i = 0; i < s->n_donors; i++)
        ext_put(s->donor[i]);
    m->sharing = NULL;
    mem_free(s);
    return rc;
}
