/* SPDX-License-Identifier: Apache-2.0
 *
 * Journaled pages on their way home. A cycle goes through the extents that have any, and through
 * their blocks in order, so that it comes to each map page once. It takes what was journaled when
 * it began, in steps: neighbours are one device write, writes leave in the device's order, a
 * window of them is in flight, and one flush ends the step. A page that is overwritten before its
 * write has left is not written. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "chunk/internal.h"

#define STEP_BLOCKS 512u
#define STEP_PAGES  2048u
#define HOLDERS     8u /* map pages read at the same time */

struct home_page {
    struct jpage *jp;
    struct ext *x;
    struct vblk *v;
    uint64_t off;    /* of its home */
    struct buf *buf; /* of a page that was only in the ring */
    const uint8_t *data;
};
struct home {
    struct dev *d;
    uint64_t rsn; /* the last record that counts */
    struct {
        struct ext *x;
        uint32_t block;
        struct map_hold hold;
    } blocks[STEP_BLOCKS];
    uint32_t n_blocks, room;
    struct home_page *p;
    uint32_t n;
    bool elsewhere; /* somebody else has pages on the way */
};

/* ---- which pages ---- */

void home_begin(struct dev *d)
{
    list_splice_back(&d->cycle, &d->journaled);
    d->cycle_ext = NULL;
}

static uint32_t block_due(const struct dev *d, const struct vblk *v)
{
    uint32_t n = 0;

    for (uint64_t mask = v->mask; mask != 0; mask &= mask - 1)
        n += vblk_page(v, (uint32_t)__builtin_ctzll(mask))->rsn <= d->cycle_rsn;
    return n;
}

/* Adds the blocks of the first extent from the cursor on. False: no room for more. */
static bool gather_ext(struct home *h, struct ext *x)
{
    struct dev *d = h->d;

    if (d->cycle_ext != x)
        d->cycle_block = 0;
    d->cycle_ext = x;
    for (; d->cycle_block < BLOCKS_PER_EXTENT; d->cycle_block++) {
        const struct vblk *v = vblk_get(x, d->cycle_block);
        uint32_t due = v != NULL ? block_due(d, v) : 0;

        if (due == 0)
            continue;
        if (h->n_blocks == STEP_BLOCKS || h->room + due > STEP_PAGES)
            return false;
        h->blocks[h->n_blocks].x = ext_get(x);
        h->blocks[h->n_blocks++].block = d->cycle_block;
        h->room += due;
    }
    return true;
}

/* The blocks of one step. False: there are more. */
static bool gather(struct home *h)
{
    struct dev *d = h->d;
    struct ext *x;

    while ((x = LIST_FIRST(&d->cycle, struct ext, journaled)) != NULL) {
        if (!gather_ext(h, x))
            return false;
        d->cycle_ext = NULL;
        list_del(&x->journaled);
        list_push_back(&d->journaled, &x->journaled); /* as it may have newer ones */
    }
    return true;
}

static bool lent(const struct ext *x, uint32_t block)
{
    const struct vblk *v = vblk_get(x, block);

    return v != NULL && v->lent;
}

/* Lent blocks of one extent, as many as there is room for. */
static void gather_lent(struct home *h, struct ext *x, uint32_t first, uint32_t last)
{
    for (uint32_t b = first; b <= last; b++) {
        const struct vblk *v = lent(x, b) ? vblk_get(x, b) : NULL;
        uint32_t n = v != NULL ? (uint32_t)__builtin_popcountll(v->mask & ~v->flushing) : 0;

        if (n == 0)
            continue;
        if (h->n_blocks == STEP_BLOCKS || h->room + n > STEP_PAGES)
            return;
        h->blocks[h->n_blocks].x = ext_get(x);
        h->blocks[h->n_blocks++].block = b;
        h->room += n;
    }
}

struct holding {
    struct home *h;
    uint32_t next;
};

static int hold_main(void *arg)
{
    struct holding *l = arg;
    int rc = 0;

    while (l->next < l->h->n_blocks && rc == 0) {
        uint32_t i = l->next++, block = l->h->blocks[i].block;

        rc = map_hold(l->h->blocks[i].x, block, block, &l->h->blocks[i].hold);
        if (rc == ERR_CORRUPT)
            rc = 0; /* the extent is void */
    }
    return rc;
}

static int maps_hold(struct home *h)
{
    struct holding l = {.h = h};
    struct co_group g;

    int rc, others;

    co_group_init(&g);
    for (uint32_t i = 1; i < MIN(h->n_blocks / HOLDERS, HOLDERS); i++)
        co_spawn(&g, "map holder", hold_main, &l);
    rc = hold_main(&l);
    others = co_group_join(&g);
    return rc < 0 ? rc : others;
}

/* The pages of one block; its map is held. No suspension from here to the first submission. */
static void take(struct home *h, struct ext *x, uint32_t block)
{
    struct vblk *v = vblk_get(x, block);
    uint64_t mask = v != NULL ? v->mask : 0, base;

    if (mask == 0)
        return;
    if (!block_allocated(x, block)) { /* its map page was lost: the extent is void */
        log_error("flush.no_home", "extent=%" PRIu64 " block=%" PRIu32, x->id, block);
        ASSERT(x->is_void);
        jpage_drop(x, block * PAGES_PER_BLOCK, PAGES_PER_BLOCK);
        return;
    }
    base = block_off(h->d, map_get(x, block)->src[0].block);
    for (; mask != 0; mask &= mask - 1) {
        uint32_t bit = (uint32_t)__builtin_ctzll(mask);
        struct jpage *jp = vblk_page(v, bit);

        if (jp->rsn > h->rsn)
            continue;
        if (v->flushing >> bit & 1) {
            h->elsewhere = true;
            continue;
        }
        ASSERT(h->n < h->room);
        jp->refs++;
        v->flushing |= 1ull << bit;
        h->p[h->n++] = (struct home_page){.jp = jp,
                                          .x = ext_get(x),
                                          .v = v,
                                          .off = base + (uint64_t)bit * PAGE_BYTES,
                                          .data = jp->data};
    }
}

static int home_cmp(const void *a, const void *b)
{
    const struct home_page *x = a, *y = b;

    return x->off < y->off ? -1 : x->off > y->off;
}

/* ---- pages that are in the ring only ---- */

/* A page that is damaged in the ring is left out, and its extent is void. */
static void verify(struct home_page *p)
{
    if (crc32c(0, p->buf->data, PAGE_BYTES) == p->jp->crc)
        p->data = p->buf->data;
    else if (p->jp->current)
        ext_damaged(p->x, "a page in the journal has another checksum");
}

/* Reads those of the n pages, a window of them. */
static int fetch(struct dev *d, struct home_page *p, uint32_t n)
{
    struct disk_req req[FLUSH_WINDOW];
    struct iovec iov[FLUSH_WINDOW];
    int rc = 0;

    ASSERT(n <= FLUSH_WINDOW);
    for (uint32_t i = 0; i < n; i++) {
        if (p[i].data != NULL || !p[i].jp->current)
            continue;
        p[i].buf = buf_alloc(PAGE_BYTES);
        iov[i] = (struct iovec){p[i].buf->data, PAGE_BYTES};
        req[i] = (struct disk_req){.op = DISK_READ,
                                   .disk = d->ring,
                                   .off = ring_off(&d->j, p[i].jp->pos),
                                   .iov = &iov[i],
                                   .iov_count = 1};
        disk_submit(&req[i]);
    }
    for (uint32_t i = 0; i < n; i++) {
        int one = p[i].buf != NULL ? disk_wait(&req[i]) : 0;

        if (one < 0)
            rc = one;
        else if (p[i].buf != NULL)
            verify(&p[i]);
    }
    return rc;
}

/* ---- writing ---- */

struct run { /* of neighbours: one device write */
    struct disk_req req;
    struct iovec iov[PAGES_PER_BLOCK];
    struct home_page *first;
    uint32_t n;
};
struct window {
    struct run runs[FLUSH_WINDOW];
    uint32_t submitted, waited;
};

static struct run *run_of(struct window *w, uint32_t i)
{
    return &w->runs[i % FLUSH_WINDOW];
}

static int run_wait(struct dev *d, struct window *w)
{
    struct run *r = run_of(w, w->waited++);
    int rc = disk_wait(&r->req);

    for (uint32_t i = 0; i < r->n; i++)
        r->first[i].jp->counted = true;
    pace_pages(d, r->n);
    return rc;
}

static bool wanted(const struct home_page *p)
{
    return p->data != NULL && p->jp->current;
}

/* Submits the run that begins with page i; returns its length. */
static uint32_t run_submit(struct home *h, struct window *w, uint32_t i)
{
    struct run *r = run_of(w, w->submitted++);
    uint32_t n = 0;

    do {
        r->iov[n] = (struct iovec){(void *)h->p[i + n].data, PAGE_BYTES};
        n++;
    } while (n < PAGES_PER_BLOCK && i + n < h->n && wanted(&h->p[i + n]) &&
             h->p[i + n].off == h->p[i + n - 1].off + PAGE_BYTES);
    r->first = &h->p[i];
    r->n = n;
    r->req = (struct disk_req){.op = DISK_WRITE,
                               .disk = h->d->disk,
                               .off = h->p[i].off,
                               .iov = r->iov,
                               .iov_count = (int)n};
    h->d->bytes_written += (uint64_t)n * PAGE_BYTES;
    disk_submit(&r->req);
    return n;
}

static int write_all(struct home *h)
{
    struct window *w = mem_alloc(sizeof(*w));
    uint32_t fetched = 0;
    int rc = 0;

    for (uint32_t i = 0; i < h->n && rc == 0;) {
        if (i >= fetched) { /* while former ones are being written */
            fetched = MIN(i + FLUSH_WINDOW, h->n);
            rc = fetch(h->d, &h->p[i], fetched - i);
        } else if (!wanted(&h->p[i]))
            i++;
        else if (w->submitted - w->waited >= pace_window(h->d))
            rc = run_wait(h->d, w);
        else
            i += run_submit(h, w, i);
    }
    while (w->waited < w->submitted) {
        int one = run_wait(h->d, w);

        if (one < 0)
            rc = one;
    }
    mem_free(w);
    return rc < 0 ? rc : dev_flush(h->d);
}

/* They are home: from now on the map answers for them, and holds their records. */
static void done(struct home *h, bool ok)
{
    for (uint32_t i = 0; i < h->n; i++) {
        struct home_page *p = &h->p[i];
        struct jpage *jp = p->jp;
        uint32_t block = jp->page / PAGES_PER_BLOCK, bit = jp->page % PAGES_PER_BLOCK;

        if (ok && jp->current && p->data != NULL && block_allocated(p->x, block)) {
            struct map_entry *en = map_change(p->x, block, jp->rsn);

            ASSERT(block_off(h->d, en->src[0].block) + (uint64_t)bit * PAGE_BYTES == p->off);
            en->src[0].valid |= 1ull << bit;
            en->crc[bit] = jp->crc;
            cache_drop(h->d, p->off, 1);
            jpage_drop(p->x, jp->page, 1);
        } else if (ok && jp->current) {
            jpage_drop(p->x, jp->page, 1); /* damaged */
        }
        jpage_put(jp);
        buf_put(p->buf);
        p->v->flushing &= ~(1ull << bit);
        vblk_tidy(p->x, block);
        ext_put(p->x);
    }
}

static int run_all(struct home *h)
{
    int rc = maps_hold(h);

    h->p = MEM_NEW_ARRAY(struct home_page, h->room + 1);
    for (uint32_t i = 0; i < h->n_blocks; i++) {
        if (rc == 0)
            take(h, h->blocks[i].x, h->blocks[i].block);
    }
    qsort(h->p, h->n, sizeof(*h->p), home_cmp);
    if (rc == 0 && h->n > 0)
        rc = write_all(h);
    done(h, rc == 0);
    co_cond_broadcast(&h->d->homed);
    for (uint32_t i = 0; i < h->n_blocks; i++) {
        map_release(&h->blocks[i].hold);
        ext_put(h->blocks[i].x);
    }
    mem_free(h->p);
    return rc;
}

int home_step(struct dev *d, bool *ret_more)
{
    struct home *h = MEM_NEW(struct home);
    struct pin pin;
    int rc;

    h->d = d;
    h->rsn = d->cycle_rsn;
    pin_begin(d, &pin);
    *ret_more = !gather(h);
    rc = run_all(h);
    pin_end(d, &pin);
    /* Or the flusher, pressed by a full ring, would look again and again without a pause. */
    if (rc == 0 && h->n == 0 && h->elsewhere)
        co_cond_wait_always(&d->homed);
    mem_free(h);
    return rc;
}

static int lent_step(struct ext *x, uint32_t first, uint32_t last)
{
    struct home *h = MEM_NEW(struct home);
    struct pin pin;
    int rc = 0;

    h->d = x->dev;
    h->rsn = x->dev->j.durable_rsn;
    gather_lent(h, x, first, last);
    if (h->n_blocks > 0) {
        pin_begin(x->dev, &pin);
        rc = run_all(h);
        pin_end(x->dev, &pin);
    } else { /* all that is left is on the way */
        co_cond_wait_always(&x->dev->homed);
    }
    mem_free(h);
    return rc;
}

static bool any_lent(const struct ext *x, uint32_t first, uint32_t last)
{
    bool any = false;

    for (uint32_t b = first; b <= last && x->n_vblk > 0; b++)
        any |= lent(x, b);
    return any;
}

int home_lent(struct ext *x, uint32_t first_block, uint32_t last_block)
{
    int rc = 0;

    if (any_lent(x, first_block, last_block))
        rc = journal_sync(x->dev);
    while (rc == 0 && any_lent(x, first_block, last_block)) {
        rc = lent_step(x, first_block, last_block);
        if (rc < 0 && rc != ERR_HALTED)
            dev_fail(x->dev, rc, "flush");
        if (rc == 0)
            rc = dev_check(x->dev);
    }
    return rc;
}
