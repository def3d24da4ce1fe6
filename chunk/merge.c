/* SPDX-License-Identifier: Apache-2.0
 *
 * Small writes of a sequential stream are written together: those that go to neighbouring pages
 * which hold nothing yet wait for one another, become one durable write of the device, straight
 * to their block, and then each queues its own record, so that one commit takes them all.
 *
 * How long they wait: a stream's *depth* is how many of its requests were under way at once. When
 * as many are waiting, no other can come before one of these is answered, so they leave; they
 * leave too when they reach their block's end, and after merge_us in any case, which shows that
 * the depth fell. A stream that sends one request at a time has depth 1 and never waits.
 *
 * Each waiting request holds its own range lock and may give up while it waits; what is on its
 * way to the device is waited for. */
#include <inttypes.h>
#include "chunk/stream.h"
#include "chunk/write.h"

#define RUN_PAGES_MIN                                                                              \
    4u /* less is better off in the journal: that is one device write, not two                     \
        */
#define ANY_BLOCK UINT32_MAX

struct gather {          /* of one stream */
    struct list waiting; /* struct seg, by page */
    uint32_t requests;   /* that have segments there */
    uint32_t under_way;  /* requests, those waiting included */
    uint32_t depth;
};
struct merge {
    struct stream_set streams;
    struct gather g[STREAMS_MAX];
};

struct run { /* neighbouring pages of one block on their way */
    struct ext *x;
    struct list segs;
    uint32_t block; /* of the extent */
    uint32_t pages;
    struct iovec iov[PAGES_PER_BLOCK];
    struct disk_req req;
};

void merge_free(struct ext *x)
{
    mem_free(x->merge);
}

static struct merge *merge_make(struct ext *x)
{
    if (x->merge == NULL) {
        x->merge = MEM_NEW(struct merge);
        for (uint32_t i = 0; i < STREAMS_MAX; i++)
            list_init(&x->merge->g[i].waiting);
    }
    return x->merge;
}

void merge_note(struct writing *w)
{
    struct merge *m;
    int i;

    co_cond_init(&w->merging.moved);
    if (w->a->kind != W_DATA || w->x->dev->e->conf.merge_us == MERGE_NEVER)
        return;
    m = merge_make(w->x);
    i = stream_note(&m->streams, w->a->off, w->a->len, co_now());
    if (i >= 0)
        w->merging.g = &m->g[i];
}

/* ---- one device write ---- */

static void run_add(struct run *r, int *n, struct seg *s)
{
    for (uint32_t i = 0; i < s->count; i++) {
        uint8_t *data = (uint8_t *)page_content(s->w, s->first + i).data;
        struct iovec *last = *n > 0 ? &r->iov[*n - 1] : NULL;

        if (last != NULL && (uint8_t *)last->iov_base + last->iov_len == data)
            last->iov_len += PAGE_BYTES;
        else
            r->iov[(*n)++] = (struct iovec){data, PAGE_BYTES};
    }
    list_push_back(&r->segs, &s->merge);
    r->pages += s->count;
    s->w->merging.running++;
}

static void run_end(struct run *r, int rc)
{
    struct list *l;

    while ((l = list_pop_front(&r->segs)) != NULL) {
        struct merging *m = &LIST_ENTRY(l, struct seg, merge)->w->merging;

        m->running--;
        if (rc < 0)
            m->rc = rc;
        co_cond_signal(&m->moved);
    }
    vblk_get(r->x, r->block)->users--;
    vblk_tidy(r->x, r->block);
    ext_put(r->x);
    mem_free(r);
}

static co_fn int run_main(void *arg)
{
    struct run *r = arg;
    struct dev *d = r->x->dev;
    int rc;

    disk_submit(&r->req);
    rc = disk_wait(&r->req);
    d->bytes_written += (uint64_t)r->pages * PAGE_BYTES;
    d->io_errors += rc < 0;
    run_end(r, rc);
    return 0;
}

/* The segments from `first` to before `end` in the list of those that wait. */
static void run_start(struct list *first, struct list *end)
{
    struct seg *s = LIST_ENTRY(first, struct seg, merge);
    struct run *r = MEM_NEW(struct run);
    struct dev *d = s->w->x->dev;
    int n = 0;

    r->x = ext_get(s->w->x);
    list_init(&r->segs);
    r->block = s->first / PAGES_PER_BLOCK;
    r->req = (struct disk_req){.op = DISK_WRITE, .durable = true, .disk = d->disk, .iov = r->iov};
    s->block = map_get(r->x, r->block)->src[0].block;
    r->req.off = block_off(d, s->block) + (uint64_t)(s->first % PAGES_PER_BLOCK) * PAGE_BYTES;
    vblk_make(r->x, r->block)->users++;
    for (struct list *l = first, *next; l != end; l = next) {
        next = l->next;
        s = LIST_ENTRY(l, struct seg, merge);
        s->how = SEG_IN_PLACE;
        s->block = map_get(r->x, r->block)->src[0].block;
        list_del(l);
        run_add(r, &n, s);
    }
    r->req.iov_count = n;
    co_spawn_detached_deadline(&d->group, "merge", run_main, r);
}

/* ---- waiting for one another ---- */

static void seg_leaves(struct gather *g, struct seg *s)
{
    struct merging *m = &s->w->merging;

    m->waiting--;
    g->requests -= m->waiting == 0;
    co_cond_signal(&m->moved);
}

/* Neighbours in one block, as long as their pages hold nothing: *ret_pages of them. */
static struct list *run_find(struct gather *g, struct list *first, uint32_t *ret_pages)
{
    struct seg *s = LIST_ENTRY(first, struct seg, merge);
    uint32_t page = s->first, block = s->first / PAGES_PER_BLOCK;
    struct list *l = first;

    while (l != &g->waiting) {
        s = LIST_ENTRY(l, struct seg, merge);
        if (s->first != page || s->first / PAGES_PER_BLOCK != block ||
            !pages_fresh(s->w->x, s->first, s->count))
            break;
        page += s->count;
        l = l->next;
    }
    *ret_pages = page - LIST_ENTRY(first, struct seg, merge)->first;
    return l;
}

/* Lets those that wait for a place in the block go: together if that is worth it, else each the
 * way that it would have gone alone. */
static void dispatch(struct gather *g, uint32_t block)
{
    struct list *l = g->waiting.next;

    while (l != &g->waiting) {
        struct seg *s = LIST_ENTRY(l, struct seg, merge);
        struct list *end = l->next;
        uint32_t pages;

        if (block != ANY_BLOCK && s->first / PAGES_PER_BLOCK != block) {
            l = end;
            continue;
        }
        end = run_find(g, l, &pages);
        if (end == l) /* its pages hold something by now */
            end = l->next;
        for (struct list *i = l; i != end; i = i->next)
            seg_leaves(g, LIST_ENTRY(i, struct seg, merge));
        if (pages >= RUN_PAGES_MIN) {
            run_start(l, end);
        } else {
            for (struct list *next; l != end; l = next) {
                next = l->next;
                list_del(l);
            }
        }
        l = end;
    }
}

/* Do those that wait for this block reach its end without a gap? */
static bool block_full(const struct gather *g, uint32_t block)
{
    uint64_t mask = 0;

    LIST_FOREACH (s, &g->waiting, struct seg, merge) {
        if (s->first / PAGES_PER_BLOCK == block)
            mask |= (s->count < 64 ? (1ull << s->count) - 1 : UINT64_MAX)
                    << s->first % PAGES_PER_BLOCK;
    }
    return (mask | (mask - 1)) == UINT64_MAX;
}

static void join(struct writing *w, struct seg *s)
{
    struct gather *g = w->merging.g;
    struct list *pos = g->waiting.prev;

    while (pos != &g->waiting && LIST_ENTRY(pos, struct seg, merge)->first > s->first)
        pos = pos->prev;
    s->w = w;
    list_add_after(pos, &s->merge);
    g->requests += w->merging.waiting++ == 0;
}

static void withdraw(struct writing *w)
{
    for (uint32_t i = 0; i < w->n_segs && w->merging.waiting > 0; i++) {
        struct seg *s = &w->segs[i];

        if (s->w == NULL || s->how != SEG_JOURNAL || !list_linked(&s->merge))
            continue;
        list_del(&s->merge);
        seg_leaves(w->merging.g, s);
    }
}

/* Until nothing of the request waits any more. */
static int wait_for_others(struct writing *w)
{
    const struct engine_conf *conf = &w->x->dev->e->conf;
    nsec_t former = co_deadline_push(co_now() + conf->merge_us * NSEC_PER_USEC);
    struct gather *g = w->merging.g;
    int rc = 0;

    while (w->merging.waiting > 0 && rc == 0)
        rc = co_cond_wait(&w->merging.moved);
    co_deadline_restore(former);
    if (w->merging.waiting == 0)
        return 0;
    if (rc == ERR_TIMEOUT && co_now() < former) { /* nobody else came */
        g->depth = g->under_way;
        dispatch(g, ANY_BLOCK);
        return 0;
    }
    withdraw(w);
    return rc;
}

/* Only a request that is all small has something to gain. */
static bool worth_it(const struct writing *w)
{
    bool yes = w->n_segs > 0;

    for (uint32_t i = 0; i < w->n_segs; i++) {
        const struct seg *s = &w->segs[i];

        yes = yes && s->how == SEG_JOURNAL && s->whole && pages_fresh(w->x, s->first, s->count);
    }
    return yes;
}

int merge_write(struct writing *w)
{
    struct merging *m = &w->merging;
    struct gather *g = m->g;
    int rc = 0;

    if (g == NULL || !worth_it(w))
        return 0;
    m->joined = true;
    g->under_way++;
    g->depth = MAX(g->depth, g->under_way);
    if (g->depth == 1)
        return 0;
    for (uint32_t i = 0; i < w->n_segs; i++)
        join(w, &w->segs[i]);
    for (uint32_t i = 0; i < w->n_segs; i++) {
        uint32_t block = w->segs[i].first / PAGES_PER_BLOCK;

        if (block_full(g, block))
            dispatch(g, block);
    }
    if (g->requests >= g->depth)
        dispatch(g, ANY_BLOCK);
    if (m->waiting > 0)
        rc = wait_for_others(w);
    while (m->running > 0)
        co_cond_wait_always(&m->moved);
    if (rc == 0 && m->rc < 0)
        rc = err_set(m->rc, "disk %s: a write failed", w->x->dev->path);
    return rc;
}

void merge_leave(struct writing *w)
{
    if (w->merging.joined)
        w->merging.g->under_way--;
}
