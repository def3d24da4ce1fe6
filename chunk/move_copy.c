/* SPDX-License-Identifier: Apache-2.0
 *
 * Copying the pages of an extent to its twin. Block by block: the block is locked against writers,
 * its dirty pages are read and verified, and written in place to the twin's block. Nobody reads the
 * twin, and after a crash it is deleted, so the order of data and records does not matter; the
 * device is flushed before the twin counts. What others may be going to share, because they share
 * it where the extent comes from, gets a block that the twin only reads. */
#include <inttypes.h>
#include <string.h>
#include "chunk/move.h"

#define PARALLEL 4u /* blocks on their way at a time */

void move_note(struct ext *x, uint32_t first, uint32_t count)
{
    uint32_t page = first, end = first + count;

    while (page < end) {
        uint32_t bit = page % PAGES_PER_BLOCK, n = MIN(end - page, PAGES_PER_BLOCK - bit);

        x->move->dirty[page / PAGES_PER_BLOCK] |= page_mask(bit, n);
        page += n;
    }
}

uint32_t move_dirty_blocks(const struct move *m)
{
    uint32_t n = 0;

    for (uint32_t b = 0; b < BLOCKS_PER_EXTENT; b++)
        n += m->dirty[b] != 0;
    return n;
}

/* ---- reading ---- */

struct fetched { /* pages of one block */
    struct buf *buf;
    uint32_t crc[PAGES_PER_BLOCK];
    uint64_t data; /* those that are not zero */
};

/* A page that fails its checksum stays one: the twin gets a checksum that it does not match. */
static int fetch_page(struct ext *x, uint32_t page, struct fetched *f)
{
    uint32_t bit = page % PAGES_PER_BLOCK;
    uint8_t *dst = f->buf->data + (size_t)bit * PAGE_BYTES;
    bool zero = false;
    int rc = pages_read(x, page, 1, dst, &f->crc[bit], &zero);

    if (rc == ERR_CORRUPT) {
        memset(dst, 0, PAGE_BYTES);
        f->crc[bit] = ~zero_page_crc();
        rc = 0;
    }
    if (rc == 0 && !zero && !(f->crc[bit] == zero_page_crc() && mem_is_zero(dst, PAGE_BYTES)))
        f->data |= 1ull << bit;
    return rc;
}

static int fetch_run(struct ext *x, uint32_t first, uint32_t count, struct fetched *f)
{
    uint32_t bit = first % PAGES_PER_BLOCK, zero_crc = zero_page_crc();
    uint8_t *dst = f->buf->data + (size_t)bit * PAGE_BYTES;
    bool zero = false;
    int rc = pages_read(x, first, count, dst, &f->crc[bit], &zero);

    if (rc == ERR_CORRUPT) {
        rc = 0;
        for (uint32_t i = 0; i < count && rc == 0; i++)
            rc = fetch_page(x, first + i, f);
        return rc;
    }
    for (uint32_t i = 0; i < count && rc == 0 && !zero; i++) {
        if (f->crc[bit + i] != zero_crc || !mem_is_zero(dst + (size_t)i * PAGE_BYTES, PAGE_BYTES))
            f->data |= 1ull << (bit + i);
    }
    return rc;
}

/* ---- writing ---- */

/* The record of a copied run: version 0.0 changes no version. */
static struct rec_write *copy_rec(struct ext *y, enum rec_type type, uint32_t first, uint32_t count,
                                  size_t more)
{
    struct rec_write *r = rec_new(y->dev, type, y->id, sizeof(*r) + more);

    r->first = first;
    r->count = count;
    return r;
}

static int rec_space(struct dev *d, struct rec_head *h)
{
    int rc = journal_space(d, journal_cost(d, h->bytes, 0), false);

    if (rc < 0)
        mem_free(h);
    return rc;
}

static uint64_t rec_add(struct dev *d, struct rec_head *h)
{
    return journal_add(d, h, NULL, journal_cost(d, h->bytes, 0), true);
}

/* The record of pages that leave what the twin shares; space was waited for. */
static uint64_t rec_leave(struct ext *y, struct rec_write *r, struct rec_ref *refs, bool all,
                          uint32_t cost)
{
    uint32_t index = r->first / PAGES_PER_BLOCK;
    bool change;

    r->n_refs = (uint16_t)share_dropped(y, index, page_mask(r->first % PAGES_PER_BLOCK, r->count),
                                        all, refs, &change);
    r->h.bytes = (uint16_t)ROUND_UP((uint8_t *)(refs + r->n_refs) - (uint8_t *)r, 8);
    return journal_add(y->dev, &r->h, NULL, cost, true);
}

/* Gives the twin's block a place. */
static int twin_bind(struct ext *y, uint32_t b)
{
    struct dev *d = y->dev;
    struct rec_alloc *r;
    struct claim claim;
    uint32_t block = 0;
    int rc;

    if (block_allocated(y, b))
        return 0;
    r = rec_new(d, REC_ALLOC, y->id, sizeof(*r));
    rc = rec_space(d, &r->h);
    if (rc < 0)
        return rc;
    rc = blocks_claim(y, 1, &claim);
    if (rc == 0) {
        rc = block_take(y, b, &block);
        if (rc < 0)
            blocks_unclaim(y, &claim);
    }
    if (rc < 0) {
        journal_space_return(d, journal_cost(d, r->h.bytes, 0));
        mem_free(r);
        return rc;
    }
    r->index = b;
    r->block = block;
    map_apply_alloc(y, b, block, rec_add(d, &r->h));
    block_placed(y);
    return 0;
}

static int twin_write(struct ext *y, uint32_t first, uint32_t count, const struct fetched *f)
{
    uint32_t bit = first % PAGES_PER_BLOCK,
             block = map_get(y, first / PAGES_PER_BLOCK)->src[0].block;
    struct dev *d = y->dev;
    struct rec_write *r;
    struct rec_ref *refs;
    uint32_t *crc, cost;
    uint64_t rsn;
    int rc = dev_write(d, f->buf->data + (size_t)bit * PAGE_BYTES, (size_t)count * PAGE_BYTES,
                       block_off(d, block) + (uint64_t)bit * PAGE_BYTES, false);

    if (rc < 0)
        return rc;
    r = copy_rec(y, REC_MAP, first, count, count * sizeof(*crc) + MAP_SOURCES * sizeof(*refs));
    cost = journal_cost(d, r->h.bytes, 0);
    rc = rec_space(d, &r->h);
    if (rc < 0)
        return rc;
    r->block = block;
    crc = (uint32_t *)(r + 1);
    refs = (struct rec_ref *)(crc + count);
    memcpy(crc, &f->crc[bit], count * sizeof(*crc));
    rsn = rec_leave(y, r, refs, false, cost);
    map_apply_write(y, r, crc, rsn);
    refs_apply(d, refs, r->n_refs, rsn);
    return 0;
}

/* What was written to the twin's own block becomes one of those that it only reads. */
static int twin_keep(struct ext *y, uint32_t b)
{
    uint32_t cost = thaw_cost(y, 1);
    int rc = journal_space(y->dev, cost, false);

    if (rc < 0)
        return rc;
    if (y->reserved && blocks_available(y->dev) < 1) { /* it may need another in its place */
        journal_space_return(y->dev, cost);
        return err_set(ERR_NOSPACE, "disk %s is full", y->dev->path);
    }
    thaw_add_one(y, b, cost);
    return 0;
}

/* Zeroes, and the block is free if they are all of it. */
static int twin_zero(struct ext *y, uint32_t first, uint32_t count)
{
    uint32_t b = first / PAGES_PER_BLOCK;
    struct rec_ref *refs;
    struct rec_write *r;
    uint32_t cost;
    uint64_t rsn;
    int rc;

    if (!block_mapped(y, b))
        return 0;
    r = copy_rec(y, REC_ZERO, first, count, MAP_SOURCES * sizeof(*refs));
    cost = journal_cost(y->dev, r->h.bytes, 0);
    rc = rec_space(y->dev, &r->h);
    if (rc < 0)
        return rc;
    refs = (struct rec_ref *)(r + 1);
    rsn = rec_leave(y, r, refs, count == PAGES_PER_BLOCK, cost);
    map_apply_zero(y, r, rsn);
    refs_apply(y->dev, refs, r->n_refs, rsn);
    return 0;
}

/* ---- one block ---- */

/* Length of the run of bits from `from` on that are equal in the masks. */
static uint32_t run_length(uint64_t dirty, uint64_t data, uint32_t from)
{
    uint32_t n = 1;

    while (from + n < PAGES_PER_BLOCK && (dirty >> (from + n) & 1) == (dirty >> from & 1) &&
           (data >> (from + n) & 1) == (data >> from & 1))
        n++;
    return n;
}

static int block_write(struct move *m, uint32_t b, uint64_t dirty, const struct fetched *f)
{
    int rc = f->data != 0 ? twin_bind(m->to, b) : 0;

    for (uint32_t bit = 0, n; bit < PAGES_PER_BLOCK && rc == 0; bit += n) {
        n = run_length(dirty, f->data, bit);
        if (f->data >> bit & 1)
            rc = twin_write(m->to, b * PAGES_PER_BLOCK + bit, n, f);
        else if (dirty >> bit & 1)
            rc = twin_zero(m->to, b * PAGES_PER_BLOCK + bit, n);
    }
    return rc;
}

/* Pages that the extent shares where it is; a frozen one may share all it has. */
static uint64_t pages_kept(const struct move *m, uint32_t b)
{
    const struct map_entry *en = map_get(m->from, b);
    uint64_t mask = 0;

    if (m->from->frozen || block_allocated(m->to, b) || !entry_has_room(map_get(m->to, b)))
        return 0;
    for (uint32_t k = 1; k < MAP_SOURCES; k++) {
        if (en->src[k].block != BLOCK_NONE && shared_bit_get(m->from->dev, en->src[k].block))
            mask |= en->src[k].valid;
    }
    return mask;
}

static int block_write_all(struct move *m, uint32_t b, uint64_t dirty, const struct fetched *f)
{
    uint64_t kept = pages_kept(m, b) & f->data;
    struct fetched part = *f;
    int rc = 0;

    if (kept != 0) {
        part.data = kept;
        rc = block_write(m, b, kept, &part);
        if (rc == 0)
            rc = twin_keep(m->to, b);
        part.data = f->data & ~kept;
    }
    return rc == 0 ? block_write(m, b, dirty & ~kept, &part) : rc;
}

/* *ret_pages: that were written. */
static int block_copy(struct move *m, uint32_t b, uint64_t dirty, uint32_t *ret_pages)
{
    struct fetched f = {.data = 0};
    int rc = 0;

    if (!block_mapped(m->from, b))
        return twin_zero(m->to, b * PAGES_PER_BLOCK, PAGES_PER_BLOCK);
    f.buf = buf_alloc(BLOCK_BYTES);
    for (uint32_t bit = 0, n; bit < PAGES_PER_BLOCK && rc == 0; bit += n) {
        n = run_length(dirty, 0, bit);
        if (dirty >> bit & 1)
            rc = fetch_run(m->from, b * PAGES_PER_BLOCK + bit, n, &f);
    }
    if (rc == 0)
        rc = block_write_all(m, b, dirty, &f);
    *ret_pages = (uint32_t)__builtin_popcountll(f.data);
    buf_put(f.buf);
    return rc;
}

int move_copy_block(struct move *m, uint32_t b, uint64_t dirty, uint32_t *ret_pages)
{
    struct map_hold from, to = {0};
    struct refs_hold refs = {0};
    int rc = map_hold(m->from, b, b, &from);

    if (rc == ERR_CORRUPT)
        rc = 0; /* it is void: what is left of it moves */
    if (rc == 0)
        rc = map_hold(m->to, b, b, &to);
    if (rc == 0)
        rc = refs_load_map(m->to, b, b, &refs);
    if (rc == 0)
        rc = block_copy(m, b, dirty, ret_pages);
    refs_hold_free(&refs);
    map_release(&to);
    map_release(&from);
    return rc;
}

static int block_pass(struct move *m, uint32_t b)
{
    struct ext *x = m->from;
    struct co_range range;
    nsec_t begin = co_now();
    uint32_t pages = 0;
    uint64_t dirty;
    int rc = 0;

    if (!m->alone)
        rc = co_range_acquire(&x->lock, &range, (uint64_t)b * PAGES_PER_BLOCK, PAGES_PER_BLOCK,
                              false);
    if (rc < 0)
        return rc;
    dirty = m->dirty[b];
    m->dirty[b] = 0;
    if (x->dead || x->deleting)
        rc = err_set(ERR_NO_REPLICA, "extent %" PRIu64 " is being deleted", x->id);
    else if (dirty != 0)
        rc = m->each(m, b, dirty, &pages);
    if (!m->alone)
        co_range_release(&x->lock, &range);
    if (rc == 0)
        rc = move_rest(m, pages, co_now() - begin);
    return rc;
}

/* ---- a pass ---- */

static int pass_main(void *arg)
{
    struct move *m = arg;

    while (m->rc == 0 && m->next < BLOCKS_PER_EXTENT) {
        uint32_t b = m->next++;
        int rc = dev_check(m->dev);

        if (rc == 0 && m->dirty[b] != 0)
            rc = block_pass(m, b);
        if (rc == 0 && m->from->dev->drain_stop && !m->alone)
            rc = err_set(ERR_CANCELED, "the drain was stopped");
        if (rc < 0 && m->rc == 0)
            m->rc = rc;
        if (rc < 0)
            return rc;
    }
    return 0;
}

int move_pass(struct move *m)
{
    struct co_group g;

    m->next = 0;
    m->rc = 0;
    m->passes++;
    co_group_init(&g);
    for (uint32_t i = 0; i < PARALLEL; i++)
        co_spawn(&g, "move", pass_main, m);
    return co_group_join(&g);
}
