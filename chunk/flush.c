/* SPDX-License-Identifier: Apache-2.0
 *
 * The flusher: journaled pages go home (neighbours together, in device order), then the metadata
 * that says so, then the ring is trimmed. It starts early, so that the ring never fills suddenly,
 * and works in large steps, so that each metadata page is written once for many data pages. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "chunk/internal.h"

#define HOME_BLOCKS_MAX 512u /* of one step */
#define HOME_WINDOW     32u  /* device writes in flight */
#define RING_START_PCT  30u  /* used: flushing begins */

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
    struct {
        struct ext *x;
        uint32_t block;
        struct map_hold hold;
    } blocks[HOME_BLOCKS_MAX];
    uint32_t n_blocks;
    struct home_page *p;
    uint32_t n;
};

/* The blocks of the oldest journaled pages. */
static void home_gather(struct home *h, uint64_t rsn)
{
    struct dev *d = h->d;

    d->flush_cycle++;
    LIST_FOREACH (jp, &d->j.live, struct jpage, live) {
        uint32_t block = jp->page / PAGES_PER_BLOCK;
        struct vblk *v = vblk_get(jp->ext, block);

        if (jp->rsn > rsn || h->n_blocks == HOME_BLOCKS_MAX)
            break;
        if (v->gathered == d->flush_cycle)
            continue;
        v->gathered = d->flush_cycle;
        h->blocks[h->n_blocks].x = ext_get(jp->ext);
        h->blocks[h->n_blocks++].block = block;
    }
}

/* The pages of one block; its map is held. No suspension from here to the submission. */
static void home_take(struct home *h, struct ext *x, uint32_t block)
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

        if (jp->rsn > h->d->j.durable_rsn)
            continue; /* it may yet not have happened */
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

/* Reads the pages that are in the ring only, a window of them at a time. */
static int home_fetch(struct home *h)
{
    struct dev *d = h->d;
    struct disk_req req[HOME_WINDOW];
    struct iovec iov[HOME_WINDOW];
    int rc = 0;

    for (uint32_t i = 0, next; i < h->n && rc == 0; i = next) {
        uint32_t n = 0;

        for (next = i; next < h->n && n < HOME_WINDOW; next++) {
            struct home_page *p = &h->p[next];

            if (p->data != NULL)
                continue;
            p->buf = buf_alloc(PAGE_BYTES);
            iov[n] = (struct iovec){p->buf->data, PAGE_BYTES};
            req[n] = (struct disk_req){.op = DISK_READ,
                                       .disk = d->disk,
                                       .off = ring_off(&d->j, p->jp->pos),
                                       .iov = &iov[n],
                                       .iov_count = 1};
            disk_submit(&req[n++]);
        }
        for (uint32_t k = 0; k < n; k++) {
            int one = disk_wait(&req[k]);

            if (one < 0)
                rc = one;
        }
    }
    return rc;
}

/* A page that is damaged in the ring is left out, and its extent is void. */
static void home_verify(struct home *h)
{
    for (uint32_t i = 0; i < h->n; i++) {
        struct home_page *p = &h->p[i];

        if (p->buf == NULL)
            continue;
        if (crc32c(0, p->buf->data, PAGE_BYTES) == p->jp->crc)
            p->data = p->buf->data;
        else
            ext_damaged(p->x, "a page in the journal has another checksum");
    }
}

struct window {
    struct disk_req req[HOME_WINDOW];
    struct iovec iov[HOME_WINDOW][PAGES_PER_BLOCK];
    uint32_t submitted, waited;
};

static int window_wait(struct window *w)
{
    return disk_wait(&w->req[w->waited++ % HOME_WINDOW]);
}

/* Writes runs of neighbouring homes, a window of them at a time. */
static int home_write(struct home *h)
{
    struct window *w = mem_alloc(sizeof(*w));
    int rc = 0, one;

    for (uint32_t i = 0; i < h->n && rc == 0;) {
        uint32_t slot = w->submitted % HOME_WINDOW, k = 0;
        struct disk_req *r = &w->req[slot];

        if (h->p[i].data == NULL) {
            i++;
            continue;
        }
        if (w->submitted - w->waited == HOME_WINDOW)
            rc = window_wait(w);
        *r = (struct disk_req){
            .op = DISK_WRITE, .disk = h->d->disk, .off = h->p[i].off, .iov = w->iov[slot]};
        do
            w->iov[slot][k++] = (struct iovec){(void *)h->p[i++].data, PAGE_BYTES};
        while (k < PAGES_PER_BLOCK && i < h->n && h->p[i].data != NULL &&
               h->p[i].off == h->p[i - 1].off + PAGE_BYTES);
        r->iov_count = (int)k;
        h->d->bytes_written += k * PAGE_BYTES;
        disk_submit(r);
        w->submitted++;
    }
    while (w->waited < w->submitted) {
        one = window_wait(w);
        if (one < 0)
            rc = one;
    }
    mem_free(w);
    return rc;
}

/* They are home: from now on the map answers for them, and holds their records. */
static void home_done(struct home *h, bool ok)
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

/* One step: at most HOME_BLOCKS_MAX blocks. *ret_more: there are others. */
static int home_step(struct dev *d, uint64_t rsn, bool *ret_more)
{
    struct home *h = MEM_NEW(struct home);
    struct pin pin;
    uint32_t room = 1;
    int rc = 0;

    h->d = d;
    pin_begin(d, &pin);
    home_gather(h, rsn);
    *ret_more = h->n_blocks == HOME_BLOCKS_MAX;
    for (uint32_t i = 0; i < h->n_blocks && rc == 0; i++) {
        rc = map_hold(h->blocks[i].x, h->blocks[i].block, h->blocks[i].block, &h->blocks[i].hold);
        if (rc == ERR_CORRUPT)
            rc = 0; /* the extent is void */
    }
    for (uint32_t i = 0; i < h->n_blocks; i++) {
        struct vblk *v = vblk_get(h->blocks[i].x, h->blocks[i].block);

        room += v != NULL ? (uint32_t)__builtin_popcountll(v->mask) : 0;
    }
    h->p = MEM_NEW_ARRAY(struct home_page, room);
    for (uint32_t i = 0; i < h->n_blocks; i++) {
        if (rc == 0)
            home_take(h, h->blocks[i].x, h->blocks[i].block);
    }
    qsort(h->p, h->n, sizeof(*h->p), home_cmp);
    if (rc == 0)
        rc = home_fetch(h);
    if (rc == 0) {
        home_verify(h);
        rc = home_write(h);
    }
    if (rc == 0 && h->n > 0)
        rc = dev_flush(d);
    home_done(h, rc == 0);
    for (uint32_t i = 0; i < h->n_blocks; i++) {
        map_release(&h->blocks[i].hold);
        ext_put(h->blocks[i].x);
    }
    pin_end(d, &pin);
    mem_free(h->p);
    mem_free(h);
    return rc;
}

/* ---- trimming ---- */

/* The oldest record that something not yet home depends on. */
static uint64_t needed_rsn(const struct dev *d)
{
    const struct jpage *jp = LIST_FIRST(&d->j.live, struct jpage, live);
    uint64_t rsn = jp != NULL ? jp->rsn : RSN_NONE;

    LIST_FOREACH (m, &d->dirty, struct mpage, dirty)
        rsn = MIN(rsn, m->dirty_rsn);
    return rsn;
}

static int trim(struct dev *d)
{
    struct journal *j = &d->j;
    uint64_t needed = MIN(needed_rsn(d), j->next_rsn);
    struct commit *c;
    int rc;

    /* What is needed no more may have been superseded by records that are only queued. */
    rc = journal_sync(d);
    if (rc < 0)
        return rc;
    while ((c = LIST_FIRST(&j->commits, struct commit, link)) != NULL && c->last_rsn < needed) {
        list_del(&c->link);
        mem_free(c);
    }
    if ((c != NULL ? c->pos : j->start) == j->anchor_pos)
        return 0;
    rc = anchor_write(d); /* sets anchor_pos */
    if (rc < 0)
        return rc;
    pin_barrier(d); /* somebody may be reading pages from the ring */
    j->tail_pos = j->anchor_pos;
    co_cond_broadcast(&j->space);
    return 0;
}

int flush_to(struct dev *d, uint64_t rsn)
{
    bool more = true;
    int rc;

    co_mutex_lock_always(&d->flush_turn);
    rc = dev_check(d);
    rsn = MIN(rsn, d->j.durable_rsn);
    while (rc == 0 && more) {
        rc = home_step(d, rsn, &more);
        if (rc == 0 && memory_dirty(d->e))
            rc = maps_to(d, d->j.next_rsn - 1);
    }
    if (rc == 0)
        rc = checkpoint_to(d, rsn);
    if (rc == 0)
        rc = trim(d);
    if (rc < 0 && rc != ERR_HALTED)
        dev_fail(d, rc, "flush");
    co_mutex_unlock(&d->flush_turn);
    return rc;
}

/* The writer lends a hand itself: whatever the flusher is doing, this ends. */
int dirty_throttle(struct dev *d)
{
    int rc = 0;

    if (!memory_full_of_dirt(d->e))
        return 0;
    co_mutex_lock_always(&d->flush_turn);
    if (memory_full_of_dirt(d->e))
        rc = dev_check(d);
    if (rc == 0 && memory_full_of_dirt(d->e)) {
        rc = maps_to(d, d->j.next_rsn - 1);
        if (rc < 0 && rc != ERR_HALTED)
            dev_fail(d, rc, "flush");
    }
    co_mutex_unlock(&d->flush_turn);
    return rc;
}

/* ---- pacing ---- */

static bool ring_pressed(const struct dev *d)
{
    return journal_used(d) * 100 > (uint64_t)d->j.units * RING_START_PCT;
}

/* The record up to which half of what is used would be free. */
static uint64_t pressed_target(const struct dev *d)
{
    uint64_t pos = d->j.tail_pos + journal_used(d) / 2;
    uint64_t rsn = 0;

    LIST_FOREACH (c, &d->j.commits, struct commit, link) {
        rsn = c->last_rsn;
        if (c->next_pos >= pos)
            break;
    }
    return rsn;
}

void flush_kick(struct dev *d)
{
    d->flush_now = true;
    co_cond_signal(&d->flush_work);
}

static void flush_sleep(struct dev *d)
{
    nsec_t former;

    d->flush_idle = list_empty(&d->j.live) && list_empty(&d->dirty);
    if (d->flush_idle) {
        co_cond_wait_always(&d->flush_work);
        d->flush_idle = false;
        d->flush_mark = 0;
        return;
    }
    former = co_deadline_push(co_now() + d->e->conf.flush_delay_ms * NSEC_PER_MSEC);
    (void)co_cond_wait(&d->flush_work);
    co_deadline_restore(former);
}

int flush_main(void *arg)
{
    struct dev *d = arg;

    while (!d->stopping && !d->failed) {
        uint64_t target;

        if (!ring_pressed(d) && !d->flush_now)
            flush_sleep(d);
        if (d->stopping || d->failed)
            break;
        if (ring_pressed(d) || d->flush_now) {
            d->flush_now = false;
            target = pressed_target(d);
        } else { /* what was there a tick ago */
            target = d->flush_mark;
            d->flush_mark = d->j.next_rsn - 1;
        }
        if (flush_to(d, target) < 0)
            break;
    }
    return 0;
}
