/* SPDX-License-Identifier: Apache-2.0
 *
 * Missing sets (PROTOCOL 5.1): what absent replicas of an extent lack, exactly, by block. */
#include <inttypes.h>
#include <string.h>
#include "chunk/internal.h"

/* ---- sets of pages ---- */

/* Index of the entry of this block, or where it belongs. */
static uint32_t mask_pos(const struct mask_set *s, uint32_t block)
{
    uint32_t lo = 0, hi = s->n;

    while (lo < hi) {
        uint32_t mid = (lo + hi) / 2;

        if (s->e[mid].block < block)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

void mask_set_add(struct mask_set *s, uint32_t block, uint64_t mask)
{
    uint32_t i = mask_pos(s, block);

    if (mask == 0)
        return;
    if (i < s->n && s->e[i].block == block) {
        s->e[i].mask |= mask;
        return;
    }
    if (s->n == s->cap) {
        s->cap = s->cap != 0 ? s->cap * 2 : 4;
        s->e = mem_realloc(s->e, s->cap * sizeof(*s->e));
    }
    memmove(s->e + i + 1, s->e + i, (s->n - i) * sizeof(*s->e));
    s->e[i] = (struct mask_entry){block, mask};
    s->n++;
}

void mask_set_clear(struct mask_set *s, uint32_t block, uint64_t mask)
{
    uint32_t i = mask_pos(s, block);

    if (i == s->n || s->e[i].block != block)
        return;
    s->e[i].mask &= ~mask;
    if (s->e[i].mask != 0)
        return;
    s->n--;
    memmove(s->e + i, s->e + i + 1, (s->n - i) * sizeof(*s->e));
}

void mask_set_free(struct mask_set *s)
{
    mem_free(s->e);
    *s = (struct mask_set){0};
}

static uint64_t mask_of(uint32_t first_bit, uint32_t count)
{
    return (count == 64 ? UINT64_MAX : (1ull << count) - 1) << first_bit;
}

/* Calls fn for the part of a page range in each block. */
static void masks_of_range(struct mask_set *s, uint32_t first, uint32_t count,
                           void (*fn)(struct mask_set *s, uint32_t block, uint64_t mask))
{
    while (count > 0) {
        uint32_t bit = first % PAGES_PER_BLOCK, n = MIN(count, PAGES_PER_BLOCK - bit);

        fn(s, first / PAGES_PER_BLOCK, mask_of(bit, n));
        first += n;
        count -= n;
    }
}

/* ---- sets of an extent ---- */

struct missing_set *missing_find(struct ext *x, uint32_t replica)
{
    for (uint32_t i = 0; i < MISSING_MAX && x->missing != NULL; i++) {
        if (x->missing[i].replica == replica)
            return &x->missing[i];
    }
    return NULL;
}

uint32_t missing_free_sets(const struct ext *x)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < MISSING_MAX; i++)
        n += x->missing == NULL || x->missing[i].replica == 0;
    return n;
}

struct missing_set *missing_make(struct ext *x, uint32_t replica)
{
    struct missing_set *m = missing_find(x, replica);

    if (m != NULL)
        return m;
    if (x->missing == NULL)
        x->missing = MEM_NEW_ARRAY(struct missing_set, MISSING_MAX);
    m = missing_find(x, 0);
    if (m != NULL)
        m->replica = replica;
    return m;
}

void missing_drop(struct missing_set *m)
{
    mask_set_free(&m->pages);
    *m = (struct missing_set){0};
}

void missing_free_all(struct ext *x)
{
    for (uint32_t i = 0; i < MISSING_MAX && x->missing != NULL; i++)
        missing_drop(&x->missing[i]);
    mem_free(x->missing);
    x->missing = NULL;
}

void missing_add(struct missing_set *m, uint32_t first, uint32_t count)
{
    if (!m->everything)
        masks_of_range(&m->pages, first, count, mask_set_add);
}

bool missing_has(const struct missing_set *m, uint32_t first, uint32_t count)
{
    while (!m->everything && count > 0) {
        uint32_t bit = first % PAGES_PER_BLOCK, n = MIN(count, PAGES_PER_BLOCK - bit);
        uint32_t i = mask_pos(&m->pages, first / PAGES_PER_BLOCK);

        if (i == m->pages.n || m->pages.e[i].block != first / PAGES_PER_BLOCK ||
            (mask_of(bit, n) & ~m->pages.e[i].mask) != 0)
            return false;
        first += n;
        count -= n;
    }
    return true;
}

void missing_apply(struct ext *x, const struct rec_missing *r, const struct disk_mask *masks)
{
    struct missing_set *m;
    struct version last = {r->last_epoch, r->last_gen};

    if (r->h.flags & REC_F_DROP) {
        m = missing_find(x, r->replica);
        if (m != NULL)
            missing_drop(m);
        if (missing_free_sets(x) == MISSING_MAX)
            missing_free_all(x);
        return;
    }
    m = missing_make(x, r->replica);
    if (m == NULL) {
        ASSERT(x->dev->replaying); /* checked before it was journaled */
        return;
    }
    if (version_cmp(last, m->last_version) > 0)
        m->last_version = last;
    if (r->h.flags & REC_F_EVERYTHING) {
        m->everything = true;
        mask_set_free(&m->pages);
    }
    if ((r->h.flags & REC_F_CLEAR) && m->everything && r->count > 0) {
        m->everything = false;
        for (uint32_t b = 0; b < BLOCKS_PER_EXTENT; b++)
            mask_set_add(&m->pages, b, UINT64_MAX);
    }
    for (uint32_t i = 0; i < r->count; i++) {
        if (r->h.flags & REC_F_CLEAR)
            mask_set_clear(&m->pages, masks[i].block, masks[i].mask);
        else if (!m->everything)
            mask_set_add(&m->pages, masks[i].block, masks[i].mask);
    }
}

/* ---- requests ---- */

/* One record: all of `ranges` as masks. NULL if there is nothing to say. */
static struct rec_missing *missing_rec(struct ext *x, const struct missing_change *c,
                                       const struct page_range *ranges, uint32_t n, uint16_t flags)
{
    struct mask_set s = {0};
    struct rec_missing *r;
    struct disk_mask *masks;

    for (uint32_t i = 0; i < n; i++)
        masks_of_range(&s, ranges[i].first, ranges[i].count, mask_set_add);
    r = rec_new(x->dev, REC_MISSING, x->id, sizeof(*r) + s.n * sizeof(*masks));
    r->h.flags = flags;
    r->replica = c->replica;
    r->count = s.n;
    r->last_epoch = c->last_version.epoch;
    r->last_gen = c->last_version.gen;
    masks = (struct disk_mask *)(r + 1);
    for (uint32_t i = 0; i < s.n; i++) {
        masks[i].block = (uint16_t)s.e[i].block;
        masks[i].mask = s.e[i].mask;
    }
    mask_set_free(&s);
    return r;
}

static int missing_rec_add(struct op *op, struct rec_missing *r, uint64_t *rsn)
{
    struct ext *x = op->ext;
    uint32_t cost = journal_cost(x->dev, r->h.bytes, 0);
    int rc = journal_space(x->dev, cost, true);

    if (rc < 0) {
        mem_free(r);
        return rc;
    }
    rc = op_check(op);
    if (rc == 0 && !(r->h.flags & REC_F_DROP) && missing_find(x, r->replica) == NULL &&
        missing_free_sets(x) == 0)
        rc = err_set(ERR_TOO_LARGE, "extent %" PRIu64 ": more than %u absent replicas", x->id,
                     MISSING_MAX);
    if (rc < 0) {
        journal_space_return(x->dev, cost);
        mem_free(r);
        return rc;
    }
    missing_apply(x, r, (const struct disk_mask *)(r + 1));
    *rsn = journal_add(x->dev, &r->h, NULL, cost, false);
    ext_dirty(x, *rsn);
    return 0;
}

static int missing_check(const struct missing_change *c)
{
    if (c->replica == 0)
        return err_set(ERR_INVAL, "missing set of replica 0");
    for (uint32_t i = 0; i < c->n_add + c->n_clear; i++) {
        const struct page_range *r = i < c->n_add ? &c->add[i] : &c->clear[i - c->n_add];

        if (r->first >= PAGES_PER_EXTENT || r->count == 0 || r->count > PAGES_PER_EXTENT ||
            r->first + r->count > PAGES_PER_EXTENT)
            return err_set(ERR_INVAL, "missing set: pages %" PRIu32 "+%" PRIu32, r->first,
                           r->count);
    }
    return 0;
}

static int missing_change_one(struct op *op, const struct missing_change *c, uint64_t *rsn)
{
    uint16_t f = (uint16_t)(c->everything ? REC_F_EVERYTHING : 0);
    bool known = missing_find(op->ext, c->replica) != NULL;
    int rc = 0;

    if (c->drop)
        return known ? missing_rec_add(op, missing_rec(op->ext, c, NULL, 0, REC_F_DROP), rsn) : 0;
    if (c->n_clear > 0 && known)
        rc = missing_rec_add(op, missing_rec(op->ext, c, c->clear, c->n_clear, REC_F_CLEAR), rsn);
    if (rc == 0 && (c->start || c->everything || c->n_add > 0 ||
                    (known && c->n_clear == 0 && c->last_version.epoch != 0)))
        rc = missing_rec_add(op, missing_rec(op->ext, c, c->add, c->n_add, f), rsn);
    return rc;
}

int engine_missing_change(struct engine *e, uint64_t id, uint64_t epoch,
                          const struct missing_change *c, uint32_t n)
{
    struct op op;
    uint64_t rsn = 0;
    int rc = 0;

    for (uint32_t i = 0; i < n && rc == 0; i++)
        rc = missing_check(&c[i]);
    if (rc < 0)
        return rc;
    rc = op_begin(e, id, epoch, &op);
    if (rc < 0)
        return rc;
    for (uint32_t i = 0; i < n && rc == 0; i++)
        rc = missing_change_one(&op, &c[i], &rsn);
    /* Also what an earlier request queued and this one found done must be durable. */
    if (rc == 0)
        rc = journal_sync(op.ext->dev);
    op_end(&op);
    return rc;
}

int engine_missing_get(struct engine *e, uint64_t id, uint64_t epoch, uint32_t replica,
                       uint32_t from_page, struct page_range *ranges, uint32_t max,
                       struct missing_page *ret)
{
    const struct missing_set *m;
    struct op op;
    int rc = op_begin(e, id, epoch, &op);

    *ret = (struct missing_page){0};
    ASSERT(ranges != NULL);
    if (rc < 0)
        return rc;
    m = replica != 0 ? missing_find(op.ext, replica) : NULL;
    if (m == NULL)
        goto out;
    ret->known = true;
    ret->last_version = m->last_version;
    if (m->everything && from_page < PAGES_PER_EXTENT) {
        if (max > 0)
            ranges[ret->count++] = (struct page_range){from_page, PAGES_PER_EXTENT - from_page};
        ret->more = max == 0;
        goto out;
    }
    for (uint32_t i = mask_pos(&m->pages, from_page / PAGES_PER_BLOCK); i < m->pages.n; i++) {
        for (uint32_t bit = 0; bit < PAGES_PER_BLOCK; bit++) {
            uint32_t page = m->pages.e[i].block * PAGES_PER_BLOCK + bit;
            struct page_range *last = ret->count > 0 ? &ranges[ret->count - 1] : NULL;

            if (page < from_page || !(m->pages.e[i].mask >> bit & 1))
                continue;
            if (last != NULL && last->first + last->count == page) {
                last->count++;
                continue;
            }
            if (ret->count == max) {
                ret->more = true;
                goto out;
            }
            ranges[ret->count++] = (struct page_range){page, 1};
        }
    }
out:
    op_end(&op);
    return 0;
}
