/* SPDX-License-Identifier: Apache-2.0
 *
 * Writing (PROTOCOL 2.2, 3, 5.1). A request is cut into segments of one block each. A large one
 * goes straight to a new block, or to pages of its block that hold nothing there, durably; then
 * its record says where it is. A small one travels in its record. Everything that can fail comes
 * before the first record. */
#include <inttypes.h>
#include <string.h>
#include "chunk/internal.h"
#include "chunk/write.h"

#define ZERO_PAGES_MIN DIRECT_PAGES_MIN /* fewer zeroes between data are data */

/* ---- checking a request ---- */

static int crc_check(const struct write_args *a)
{
    uint32_t at = 0, page_off = a->off % PAGE_BYTES;

    for (uint32_t i = 0; i < a->n_crc; i++) {
        uint32_t n = MIN(PAGE_BYTES - page_off, a->len - at);

        if (crc32c(0, a->payload->data + at, n) != a->crc[i])
            return err_set(ERR_CORRUPT,
                           "extent %" PRIu64 ": the payload for page %" PRIu32
                           " does not match its checksum",
                           a->id, a->off / PAGE_BYTES + i);
        at += n;
        page_off = 0;
    }
    return 0;
}

static int args_check(const struct write_args *a)
{
    uint32_t pages;

    if (a->off % SECTOR_BYTES != 0 || a->len % SECTOR_BYTES != 0 || a->len == 0 ||
        a->off >= EXTENT_BYTES || a->len > EXTENT_BYTES - a->off)
        return err_set(ERR_INVAL, "write of %" PRIu32 " bytes at %" PRIu32, a->len, a->off);
    if (a->kind != W_DATA && a->kind != W_ZERO && a->kind != W_DISCARD)
        return err_set(ERR_INVAL, "write of kind %d", (int)a->kind);
    if (a->v.epoch == 0 || a->v.gen == 0)
        return err_set(ERR_INVAL, "version %" PRIu64 ".%" PRIu64, a->v.epoch, a->v.gen);
    if (a->commit_point.epoch != 0 && version_cmp(a->commit_point, a->v) >= 0)
        return err_set(ERR_INVAL, "a write that is not above its own commit point");
    if (a->n_missing > MISSING_MAX)
        return err_set(ERR_TOO_LARGE, "%" PRIu32 " replicas miss the write", a->n_missing);
    for (uint32_t i = 0; i < a->n_missing; i++) {
        if (a->missing[i] == 0)
            return err_set(ERR_INVAL, "replica 0 misses the write");
    }
    if (a->kind != W_DATA)
        return 0;
    pages = (a->off + a->len - 1) / PAGE_BYTES - a->off / PAGE_BYTES + 1;
    if (a->len > 4 * MIB || a->payload == NULL || a->payload->cap < a->len || a->n_crc != pages)
        return err_set(ERR_INVAL, "a payload or checksums of another length than the write");
    return crc_check(a);
}

/* ---- contents ---- */

/* The present content of a page with the request's part of it put over; zeroes for ZERO. */
static int page_merge(struct writing *w, uint32_t page, uint8_t *dst, bool *ret_was_zero)
{
    const struct write_args *a = w->a;
    uint32_t start = page * PAGE_BYTES, from = MAX(start, a->off);
    uint32_t to = MIN(start + PAGE_BYTES, a->off + a->len);
    int rc = pages_read(w->x, page, 1, dst, NULL, ret_was_zero);

    if (rc < 0)
        return rc;
    if (*ret_was_zero)
        memset(dst, 0, PAGE_BYTES);
    if (a->kind == W_DATA)
        memcpy(dst + (from - start), a->payload->data + (from - a->off), to - from);
    else
        memset(dst + (from - start), 0, to - from);
    return 0;
}

static bool page_partial(const struct write_args *a, uint32_t page)
{
    return page * PAGE_BYTES < a->off || (page + 1) * PAGE_BYTES > a->off + a->len;
}

/* Does any page of the range still need version v? */
static bool page_wanted(const struct writing *w, uint32_t page)
{
    bool have;

    (void)version_run(w->x, page, page, w->a->v, &have);
    return !have;
}

/* Prepares the pages that can't be taken from the payload as they lie: partial ones, and all of
 * them if the request does not start at a page. */
static int contents_prepare(struct writing *w)
{
    const struct write_args *a = w->a;
    bool shifted = a->off % PAGE_BYTES != 0, zero;
    int rc = 0;

    if (a->kind == W_DATA && shifted && w->last > w->first) {
        w->copy = buf_alloc((size_t)(w->last - w->first + 1) * PAGE_BYTES);
        memcpy(w->copy->data + a->off % PAGE_BYTES, a->payload->data, a->len);
    }
    for (int i = 0; i < 2 && rc == 0; i++) {
        uint32_t page = i == 0 ? w->first : w->last;
        struct edge *g = &w->edge[i];

        if (!page_partial(a, page) || (i == 1 && w->last == w->first) || !page_wanted(w, page))
            continue;
        g->page = page;
        g->buf = buf_alloc(PAGE_BYTES);
        rc = page_merge(w, page, g->buf->data, &zero);
        g->crc = crc32c(0, g->buf->data, PAGE_BYTES);
        g->zero = zero && a->kind != W_DATA;
    }
    return rc;
}

static const struct edge *edge_of(const struct writing *w, uint32_t page)
{
    for (int i = 0; i < 2; i++) {
        if (w->edge[i].buf != NULL && w->edge[i].page == page)
            return &w->edge[i];
    }
    return NULL;
}

struct content page_content(const struct writing *w, uint32_t page)
{
    const struct edge *g = edge_of(w, page);

    if (g != NULL)
        return (struct content){g->buf, g->buf->data, g->crc};
    ASSERT(w->a->kind == W_DATA && !page_partial(w->a, page));
    if (w->copy != NULL)
        return (struct content){w->copy, w->copy->data + (size_t)(page - w->first) * PAGE_BYTES,
                                w->a->crc[page - w->first]};
    return (struct content){w->a->payload,
                            w->a->payload->data + (size_t)(page - w->first) * PAGE_BYTES,
                            w->a->crc[page - w->first]};
}

/* ---- cutting into segments ---- */

static void segs_grow(struct writing *w)
{
    bool first = w->segs == NULL, many = w->segs != NULL && w->segs != &w->one;

    w->cap_segs = first ? 1 : w->cap_segs * 8;
    w->segs = first ? &w->one : mem_realloc(many ? w->segs : NULL, w->cap_segs * sizeof(*w->segs));
    if (!first && !many)
        w->segs[0] = w->one;
}

static void seg_add(struct writing *w, enum seg_how how, uint32_t first, uint32_t count)
{
    struct seg *last = w->n_segs > 0 ? &w->segs[w->n_segs - 1] : NULL;

    if (count == 0)
        return;
    if (how == SEG_ZERO && last != NULL && last->how == how && last->first + last->count == first) {
        last->count += count;
        return;
    }
    if (w->n_segs == w->cap_segs)
        segs_grow(w);
    ASSERT(w->segs != NULL);
    w->segs[w->n_segs++] = (struct seg){
        .w = w, .how = how, .first = first, .count = count, .whole = edge_of(w, first) == NULL};
}

bool pages_fresh(const struct ext *x, uint32_t first, uint32_t count)
{
    uint32_t block = first / PAGES_PER_BLOCK, bit = first % PAGES_PER_BLOCK;
    uint64_t mask = count < 64 ? ((1ull << count) - 1) << bit : UINT64_MAX;
    const struct vblk *v = vblk_get(x, block);

    if (v != NULL && ((v->mask | v->flushing) & mask) != 0)
        return false;
    return !block_allocated(x, block) || (map_get(x, block)->src[0].valid & mask) == 0;
}

static void cut_filled(struct writing *w, uint32_t first, uint32_t count)
{
    enum seg_how how = SEG_JOURNAL;

    if (count == PAGES_PER_BLOCK)
        how = SEG_BLOCK;
    else if (count >= DIRECT_PAGES_MIN && pages_fresh(w->x, first, count))
        how = SEG_IN_PLACE;
    seg_add(w, how, first, count);
}

/* How many pages from `first` on are all zeroes. */
static uint32_t zero_run(const struct writing *w, uint32_t first, uint32_t count)
{
    uint32_t n = 0;

    while (n < count) {
        struct content c = page_content(w, first + n);

        if (c.crc != zero_page_crc() || !mem_is_zero(c.data, PAGE_BYTES))
            break;
        n++;
    }
    return n;
}

/* Whole pages of one block. Zeroes are recorded as such, not written, unless that would cut data
 * which is written in one piece into small ones. */
static void cut_pages(struct writing *w, uint32_t first, uint32_t count)
{
    bool replaces = count == PAGES_PER_BLOCK && block_allocated(w->x, first / PAGES_PER_BLOCK);
    uint32_t least = replaces ? PAGES_PER_BLOCK : MIN(count, ZERO_PAGES_MIN);
    uint32_t from = first, end = first + count;

    for (uint32_t page = first; page < end;) {
        uint32_t n = zero_run(w, page, end - page);

        if (n >= least) {
            cut_filled(w, from, page - from);
            seg_add(w, SEG_ZERO, page, n);
            from = page + n;
        }
        page += MAX(n, 1u);
    }
    cut_filled(w, from, end - from);
}

static void cut_data(struct writing *w, uint32_t first, uint32_t count)
{
    while (count > 0) {
        uint32_t n = MIN(count, PAGES_PER_BLOCK - first % PAGES_PER_BLOCK);
        uint32_t head = edge_of(w, first) != NULL;
        uint32_t tail = n > head && edge_of(w, first + n - 1) != NULL;

        seg_add(w, SEG_JOURNAL, first, head);
        cut_pages(w, first + head, n - head - tail);
        seg_add(w, SEG_JOURNAL, first + n - 1, tail);
        first += n;
        count -= n;
    }
}

static void cut_zero(struct writing *w, uint32_t first, uint32_t count)
{
    const struct edge *head = edge_of(w, first);
    const struct edge *tail = count > 1 ? edge_of(w, first + count - 1) : NULL;

    if (head != NULL && !head->zero) {
        seg_add(w, SEG_JOURNAL, first, 1);
        first++;
        count--;
    }
    if (tail != NULL && !tail->zero)
        count--;
    seg_add(w, SEG_ZERO, first, count);
    if (tail != NULL && !tail->zero)
        seg_add(w, SEG_JOURNAL, first + count, 1);
}

static void cut(struct writing *w)
{
    uint32_t page = w->first;

    while (page <= w->last) {
        bool have;
        uint32_t n = version_run(w->x, page, w->last, w->a->v, &have);

        if (!have && w->a->kind == W_DATA)
            cut_data(w, page, n);
        else if (!have)
            cut_zero(w, page, n);
        page += n;
    }
}

/* ---- space ---- */

static bool seg_needs_block(const struct writing *w, const struct seg *s)
{
    return s->how != SEG_ZERO && !block_allocated(w->x, s->first / PAGES_PER_BLOCK);
}

/* Others may write to the block at the same time; it is bound once. */
static int block_bind_locked(struct writing *w, uint32_t index)
{
    struct dev *d = w->x->dev;
    uint32_t block, cost = journal_cost(d, sizeof(struct rec_alloc), 0);
    int rc;

    if (block_allocated(w->x, index))
        return 0;
    rc = journal_space(d, cost, false);
    if (rc < 0)
        return rc;
    ASSERT(w->claim.n > 0);
    rc = block_take(w->x, index, &block);
    if (rc < 0)
        goto err_after_space;
    w->claim.n--;
    rc = op_check(&w->op);
    if (rc < 0 || block_allocated(w->x, index)) { /* another has adopted one */
        block_return(w->x, &w->claim, block);
        goto err_after_space;
    }
    share_alloc_add(w->x, index, block, cost);
    block_placed(w->x);
    w->new_blocks++;
    return 0;

err_after_space:
    journal_space_return(d, cost);
    return rc;
}

/* Gives the extent's block a place, ahead of the pages that will lie there. */
static int block_bind(struct writing *w, uint32_t index)
{
    int rc = co_mutex_lock(&w->x->bind);

    if (rc < 0)
        return rc;
    rc = block_bind_locked(w, index);
    co_mutex_unlock(&w->x->bind);
    return rc;
}

/* Everything that may be refused for want of space. */
static int space_prepare(struct writing *w)
{
    uint32_t need = 0, last_index = UINT32_MAX;
    bool in_row = w->merging.g != NULL || w->n_segs > 1;
    int rc;

    for (uint32_t i = 0; i < w->n_segs; i++) {
        uint32_t index = w->segs[i].first / PAGES_PER_BLOCK;

        need += seg_needs_block(w, &w->segs[i]) && index != last_index;
        if (seg_needs_block(w, &w->segs[i]))
            last_index = index;
    }
    if (need > 0) {
        rc = blocks_claim(w->x, need, &w->claim);
        if (rc < 0)
            return rc;
    }
    for (uint32_t i = 0; i < w->n_segs; i++) {
        struct seg *s = &w->segs[i];

        rc = 0;
        if (s->how == SEG_BLOCK && seg_needs_block(w, s)) {
            rc = block_take(w->x, s->first / PAGES_PER_BLOCK, &s->block);
            w->claim.n -= rc == 0;
            s->is_new = true;
        } else if (s->how == SEG_BLOCK) {
            if (!block_take_spare(w->x, s->first / PAGES_PER_BLOCK, in_row, &s->block))
                s->how = SEG_JOURNAL;
        } else if (seg_needs_block(w, s)) {
            rc = block_bind(w, s->first / PAGES_PER_BLOCK);
        }
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* ---- direct writes ---- */

/* Where it is to be written. False: it can't be, after all. */
static bool seg_place(struct writing *w, struct seg *s)
{
    uint32_t block = s->first / PAGES_PER_BLOCK;

    if (s->how != SEG_IN_PLACE)
        return s->how == SEG_BLOCK;
    /* State may have changed since the cut, while blocks were waited for. */
    if (!pages_fresh(w->x, s->first, s->count)) {
        s->how = SEG_JOURNAL;
        return false;
    }
    s->block = map_get(w->x, block)->src[0].block;
    vblk_make(w->x, block)->users++;
    return true;
}

/* Makes its device write ready, or enlarges that of the segment before it, if it follows that one
 * in memory and on the device. Returns the segment whose device write it is. */
static struct seg *seg_prepare(struct writing *w, struct seg *s, struct seg *lead)
{
    struct dev *d = w->x->dev;
    uint8_t *data = (uint8_t *)(uintptr_t)page_content(w, s->first).data;
    size_t len = (size_t)s->count * PAGE_BYTES;
    uint64_t off = block_off(d, s->block) + (uint64_t)(s->first % PAGES_PER_BLOCK) * PAGE_BYTES;

    s->direct = true;
    if (lead != NULL && lead->req.off + lead->iov.iov_len == off &&
        (uint8_t *)lead->iov.iov_base + lead->iov.iov_len == data) {
        lead->iov.iov_len += len;
        return lead;
    }
    s->iov = (struct iovec){data, len};
    s->req = (struct disk_req){.op = DISK_WRITE,
                               .durable = true,
                               .disk = d->disk,
                               .off = off,
                               .iov = &s->iov,
                               .iov_count = 1};
    return s;
}

static int direct_write(struct writing *w)
{
    struct seg *lead = NULL;
    int rc = 0;

    for (uint32_t i = 0; i < w->n_segs; i++) {
        if (seg_place(w, &w->segs[i]))
            lead = seg_prepare(w, &w->segs[i], lead);
    }
    for (uint32_t i = 0; i < w->n_segs; i++) {
        if (w->segs[i].req.disk != NULL)
            disk_submit(&w->segs[i].req);
    }
    for (uint32_t i = 0; i < w->n_segs; i++) {
        struct seg *s = &w->segs[i];
        int one = s->req.disk != NULL ? disk_wait(&s->req) : 0;

        if (!s->direct)
            continue;
        w->x->dev->bytes_written += (uint64_t)s->count * PAGE_BYTES;
        if (one < 0) {
            w->x->dev->io_errors++;
            rc = one;
        }
    }
    /* A segment's device write may be that of another. */
    for (uint32_t i = 0; i < w->n_segs; i++) {
        struct seg *s = &w->segs[i];

        if (!s->direct || s->how != SEG_IN_PLACE)
            continue;
        vblk_get(w->x, s->first / PAGES_PER_BLOCK)->users--;
        vblk_tidy(w->x, s->first / PAGES_PER_BLOCK);
    }
    return rc < 0 ? err_prefix(rc, "disk %s", w->x->dev->path) : 0;
}

/* ---- the request ---- */

static void writing_free(struct writing *w)
{
    /* Blocks that no record gave to the extent. */
    for (uint32_t i = 0; i < w->n_segs; i++) {
        if (w->segs[i].how != SEG_BLOCK || w->segs[i].block == BLOCK_NONE || w->segs[i].done)
            continue;
        if (w->segs[i].is_new) {
            block_return(w->x, &w->claim, w->segs[i].block);
        } else {
            block_untake(w->x->dev, w->segs[i].block);
            w->x->dev->spares--;
        }
    }
    if (w->claim.n > 0)
        blocks_unclaim(w->x, &w->claim);
    map_release(&w->hold);
    buf_put(w->copy);
    buf_put(w->edge[0].buf);
    buf_put(w->edge[1].buf);
    refs_hold_free(&w->refs);
    if (w->segs != &w->one)
        mem_free(w->segs);
}

/* The blocks of which it writes a part: the others get a block of their own anyway, or none. */
static int blocks_prepare(struct writing *w,
                          co_fn int (*fn)(struct op *op, uint32_t first, uint32_t last))
{
    uint32_t first = w->first / PAGES_PER_BLOCK, last = w->last / PAGES_PER_BLOCK;
    bool head = w->a->off % BLOCK_BYTES != 0, tail = (w->a->off + w->a->len) % BLOCK_BYTES != 0;
    int rc = 0;

    if (head || (tail && first == last))
        rc = fn(&w->op, first, first);
    if (rc == 0 && tail && first != last)
        rc = fn(&w->op, last, last);
    return rc;
}

static int frozen_check(const struct writing *w)
{
    if (!w->x->frozen || w->a->repair)
        return 0;
    return err_set(ERR_PERM, "extent %" PRIu64 " has children: it is not written any more",
                   w->x->id);
}

static int write_locked(struct writing *w)
{
    int rc = op_check(&w->op);

    if (rc == 0)
        rc = frozen_check(w);
    if (rc == 0 && !version_room(w->x))
        rc = err_set(ERR_AGAIN, "extent %" PRIu64 ": too many ranges above the commit point",
                     w->x->id);
    if (rc == 0)
        rc = missing_room(w);
    if (rc == 0)
        rc = map_hold(w->x, w->first / PAGES_PER_BLOCK, w->last / PAGES_PER_BLOCK, &w->hold);
    if (rc == 0)
        rc = refs_load_map(w->x, w->first / PAGES_PER_BLOCK, w->last / PAGES_PER_BLOCK, &w->refs);
    if (rc == 0)
        rc = thaw_blocks(&w->op, w->first / PAGES_PER_BLOCK, w->last / PAGES_PER_BLOCK);
    if (rc == 0)
        rc = w->a->kind == W_DATA
                 ? share_adopt(&w->op, w->first / PAGES_PER_BLOCK, w->last / PAGES_PER_BLOCK)
                 : blocks_prepare(w, share_adopt);
    if (rc == 0)
        rc = op_check(&w->op);
    if (rc == 0)
        rc = contents_prepare(w);
    if (rc == 0)
        rc = renew_last(w);
    if (rc == 0)
        rc = op_check(&w->op);
    if (rc < 0)
        return rc;
    cut(w);
    rc = space_prepare(w);
    if (rc == 0)
        rc = op_check(&w->op);
    if (rc == 0)
        rc = direct_write(w);
    if (rc == 0)
        rc = merge_write(w);
    if (rc == 0)
        rc = op_check(&w->op);
    if (rc == 0)
        rc = write_journal(w);
    return rc;
}

int engine_write(struct engine *e, const struct write_args *a, struct write_result *ret)
{
    struct writing w = {.a = a};
    struct co_range range;
    int rc = args_check(a);

    *ret = (struct write_result){0};
    if (rc < 0)
        return rc;
    rc = op_begin(e, a->id, a->v.epoch, &w.op);
    if (rc < 0)
        return rc;
    w.x = w.op.ext;
    merge_note(&w);
    w.first = a->off / PAGE_BYTES;
    w.last = (a->off + a->len - 1) / PAGE_BYTES;
    rc = blocks_prepare(&w, share_merge);
    if (rc == 0 ||
        rc == ERR_CORRUPT) /* the latter: of another page; the sources stay as they are */
        rc = dirty_throttle(w.x->dev);
    if (rc == 0)
        rc = co_range_acquire(&w.x->lock, &range, w.first, w.last - w.first + 1, true);
    if (rc == 0) {
        rc = write_locked(&w);
        writing_free(&w);
        ret->new_blocks = w.new_blocks;
        ret->space_low = blocks_available(w.x->dev) < (int64_t)w.x->dev->g.blocks / 16;
        co_range_release(&w.x->lock, &range);
    }
    merge_leave(&w);
    op_end(&w.op);
    return rc;
}
