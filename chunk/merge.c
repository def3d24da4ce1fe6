/* SPDX-License-Identifier: Apache-2.0
 *
 * Small writes of a sequential stream are written together: they wait for one another, those that
 * go to neighbouring pages become one durable write of the device, and each request has its own
 * record in the commit that follows. Pages that hold nothing yet are written in place. Pages that
 * do can only be replaced a block at a time: when all of a block has gathered it goes to a new
 * one; what does not make a block goes through the journal.
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

#define RUN_PAGES_MIN 4u /* what is less is better off in the journal */
#define LAST_BLOCK    UINT32_MAX

struct gather {          /* of one stream */
    struct list waiting; /* struct seg, by page */
    uint32_t requests;   /* that have segments there */
    uint32_t under_way;  /* requests, those waiting included */
    uint32_t depth;
};
struct merge {
    struct list recent; /* engine->merges, by last use */
    struct ext *ext;
    uint32_t users; /* requests that point here */
    struct stream_set streams;
    struct gather g[STREAMS_MAX];
};

struct run { /* neighbouring pages of one block on their way */
    struct ext *x;
    struct list segs;
    uint32_t block; /* of the extent */
    uint32_t place; /* BLOCK_NONE: in place; else its new one */
    uint32_t pages;
    struct iovec iov[PAGES_PER_BLOCK];
    struct disk_req req;
};

void merge_free(struct ext *x)
{
    struct merge *m = x->merge;

    if (m == NULL)
        return;
    ASSERT(m->users == 0);
    list_del(&m->recent);
    budget_sub(&x->dev->e->memory, &x->dev->e->mem_merges, sizeof(*m));
    x->merge = NULL;
    mem_free(m);
}

/* Streams of extents that were not written for long are forgotten. */
static void reclaim(void *arg, uint64_t bytes)
{
    struct engine *e = arg;
    uint64_t before = e->mem_merges.bytes;

    LIST_FOREACH_SAFE (m, &e->merges, struct merge, recent) {
        if (before - e->mem_merges.bytes >= bytes)
            break;
        if (m->users == 0)
            merge_free(m->ext);
    }
}

void merges_init(struct engine *e)
{
    list_init(&e->merges);
    budget_join(&e->memory, &e->mem_merges, 2, reclaim, e);
}

static struct merge *merge_use(struct ext *x)
{
    struct engine *e = x->dev->e;
    struct merge *m = x->merge;
    bool first = m == NULL;

    if (first) {
        m = x->merge = MEM_NEW(struct merge);
        m->ext = x;
        list_init(&m->recent);
        for (uint32_t i = 0; i < STREAMS_MAX; i++)
            list_init(&m->g[i].waiting);
    }
    list_del(&m->recent);
    list_push_back(&e->merges, &m->recent);
    m->users++; /* it stays */
    if (first)
        budget_add(&e->memory, &e->mem_merges, sizeof(*m));
    return m;
}

void merge_note(struct writing *w)
{
    int i;

    co_cond_init(&w->merging.moved);
    if (w->a->kind != W_DATA || w->x->dev->e->conf.merge_us == MERGE_NEVER)
        return;
    w->merging.m = merge_use(w->x);
    i = stream_note(&w->merging.m->streams, w->a->off, w->a->len, co_now());
    if (i >= 0)
        w->merging.g = &w->merging.m->g[i];
}

/* ---- one device write ---- */

static void run_add(struct run *r, int *n, struct seg *s)
{
    for (uint32_t i = 0; i < s->count; i++) {
        uint8_t *data = (uint8_t *)page_content(s->w, s->first + i).data;
        struct iovec *v = &r->iov[*n];

        if (*n > 0 && (uint8_t *)v[-1].iov_base + v[-1].iov_len == data) {
            v[-1].iov_len += PAGE_BYTES;
        } else {
            *v = (struct iovec){data, PAGE_BYTES};
            (*n)++;
        }
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
    if (r->place != BLOCK_NONE && (rc < 0 || write_journal_run(&r->segs, r->place) < 0)) {
        block_untake(d, r->place); /* each goes through the journal by itself */
        d->spares--;
    }
    run_end(r, rc);
    return 0;
}

/* Writes the segments from `first` to before `end`: in place, or all of a block to a new one. */
static void run_start(struct list *first, struct list *end, uint32_t place)
{
    struct seg *s = LIST_ENTRY(first, struct seg, merge);
    uint32_t to = place, bit = s->first % PAGES_PER_BLOCK;
    struct run *r = MEM_NEW(struct run);
    struct dev *d = s->w->x->dev;
    int n = 0;

    r->x = ext_get(s->w->x);
    list_init(&r->segs);
    r->block = s->first / PAGES_PER_BLOCK;
    r->place = place;
    if (place == BLOCK_NONE)
        to = map_get(r->x, r->block)->src[0].block;
    vblk_make(r->x, r->block)->users++;
    for (struct list *l = first, *next; l != end; l = next) {
        next = l->next;
        s = LIST_ENTRY(l, struct seg, merge);
        list_del(l);
        run_add(r, &n, s);
        if (place != BLOCK_NONE)
            continue;
        s->how = SEG_IN_PLACE;
        s->block = to;
    }
    r->req = (struct disk_req){.op = DISK_WRITE,
                               .durable = true,
                               .disk = d->disk,
                               .off = block_off(d, to) + (uint64_t)bit * PAGE_BYTES,
                               .iov = r->iov,
                               .iov_count = n};
    co_spawn_detached_deadline(&d->group, "merge", run_main, r);
}

/* ---- waiting for one another ---- */

static bool seg_fresh(const struct seg *s)
{
    return pages_fresh(s->w->x, s->first, s->count);
}

/* Neighbours in one block, all of them such as hold nothing yet, or any. */
static struct list *run_find(struct gather *g, struct list *first, bool fresh, uint32_t *ret_pages)
{
    struct seg *s = LIST_ENTRY(first, struct seg, merge);
    uint32_t start = s->first, page = start, block = start / PAGES_PER_BLOCK;
    struct list *l = first;

    for (; l != &g->waiting; l = l->next) {
        s = LIST_ENTRY(l, struct seg, merge);
        if (s->first != page || page / PAGES_PER_BLOCK != block || (fresh && !seg_fresh(s)))
            break;
        page += s->count;
    }
    *ret_pages = page - start;
    return l;
}

static void leave(struct gather *g, struct list *first, struct list *end)
{
    for (struct list *l = first; l != end; l = l->next) {
        struct seg *s = LIST_ENTRY(l, struct seg, merge);

        s->waiting = false;
        g->requests -= --s->w->merging.waiting == 0;
        co_cond_signal(&s->w->merging.moved);
    }
}

/* The first of those that wait leaves, with its neighbours if that is worth it. Returns the next.
 */
static struct list *dispatch_one(struct gather *g, struct list *first)
{
    struct seg *s = LIST_ENTRY(first, struct seg, merge);
    uint32_t pages, place = BLOCK_NONE;
    struct list *end = run_find(g, first, true, &pages);
    bool go = pages >= RUN_PAGES_MIN;

    if (pages < PAGES_PER_BLOCK) {
        uint32_t any;
        struct list *any_end = run_find(g, first, false, &any);

        if (any == PAGES_PER_BLOCK &&
            block_take_spare(s->w->x, s->first / PAGES_PER_BLOCK, true, &place)) {
            end = any_end;
            go = true;
        }
    }
    if (!go)
        end = first->next;
    leave(g, first, end);
    if (go)
        run_start(first, end, place);
    else
        list_del(first);
    return end;
}

static void dispatch(struct gather *g, uint32_t first_block, uint32_t last_block)
{
    struct list *l = g->waiting.next;

    while (l != &g->waiting) {
        uint32_t block = LIST_ENTRY(l, struct seg, merge)->first / PAGES_PER_BLOCK;

        l = block >= first_block && block <= last_block ? dispatch_one(g, l) : l->next;
    }
}

/* Which pages of a block wait. */
static uint64_t waiting_mask(const struct gather *g, uint32_t block)
{
    uint64_t mask = 0;

    LIST_FOREACH (s, &g->waiting, struct seg, merge) {
        if (s->first / PAGES_PER_BLOCK == block)
            mask |= (s->count < 64 ? (1ull << s->count) - 1 : UINT64_MAX)
                    << s->first % PAGES_PER_BLOCK;
    }
    return mask;
}

/* Do those that wait for this block reach its end without a gap? */
static bool block_full(const struct gather *g, uint32_t block)
{
    uint64_t mask = waiting_mask(g, block);

    return (mask | (mask - 1)) == UINT64_MAX;
}

/* As many wait as there are. Unless nothing else would leave, a block to be replaced that has its
 * beginning here is held back for the rest, which those that leave now will be followed by. */
static void dispatch_all(struct gather *g)
{
    struct seg *first = LIST_FIRST(&g->waiting, struct seg, merge);
    struct seg *last = LIST_ENTRY(g->waiting.prev, struct seg, merge);
    uint32_t block = last->first / PAGES_PER_BLOCK;
    uint64_t mask = waiting_mask(g, block);
    bool begins = (mask & 1) != 0 && (mask & (mask + 1)) == 0;

    if (begins && !seg_fresh(last) && first->first / PAGES_PER_BLOCK != block)
        dispatch(g, 0, block - 1);
    else
        dispatch(g, 0, LAST_BLOCK);
}

static void join(struct writing *w, struct seg *s)
{
    struct gather *g = w->merging.g;
    struct list *pos = g->waiting.prev;

    while (pos != &g->waiting && LIST_ENTRY(pos, struct seg, merge)->first > s->first)
        pos = pos->prev;
    s->waiting = true;
    list_add_after(pos, &s->merge);
    g->requests += w->merging.waiting++ == 0;
}

static void withdraw(struct writing *w)
{
    for (uint32_t i = 0; i < w->n_segs; i++) {
        struct seg *s = &w->segs[i];

        if (!s->waiting)
            continue;
        leave(w->merging.g, &s->merge, s->merge.next);
        list_del(&s->merge);
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
        dispatch(g, 0, LAST_BLOCK);
        return 0;
    }
    withdraw(w);
    return rc;
}

bool merge_is_alone(const struct writing *w)
{
    const struct gather *g = w->merging.g;

    return g != NULL &&
           MAX(g->depth, g->under_way + 1) * (w->last - w->first + 1) < PAGES_PER_BLOCK;
}

/* Only a request that would be journaled as a whole has something to gain. */
static bool may_gain(const struct writing *w)
{
    bool yes = w->n_segs > 0;

    for (uint32_t i = 0; i < w->n_segs; i++)
        yes = yes && w->segs[i].how == SEG_JOURNAL && w->segs[i].whole;
    return yes;
}

/* Will it meet others to be written with? */
static bool worth_waiting(const struct writing *w)
{
    const struct gather *g = w->merging.g;
    bool fresh = true;

    for (uint32_t i = 0; i < w->n_segs; i++)
        fresh = fresh && seg_fresh(&w->segs[i]);
    return g->depth > 1 && (fresh || g->depth * (w->last - w->first + 1) >= PAGES_PER_BLOCK);
}

/* Leaves at once with those that wait, if nothing more can be gained. */
static void gather(struct writing *w)
{
    struct gather *g = w->merging.g;

    for (uint32_t i = 0; i < w->n_segs; i++)
        join(w, &w->segs[i]);
    for (uint32_t i = 0; i < w->n_segs; i++) {
        uint32_t block = w->segs[i].first / PAGES_PER_BLOCK;

        if (block_full(g, block))
            dispatch(g, block, block);
    }
    if (!list_empty(&g->waiting) && g->requests >= g->depth)
        dispatch_all(g);
}

int merge_write(struct writing *w)
{
    struct merging *m = &w->merging;
    int rc = 0;

    if (m->g == NULL || !may_gain(w))
        return 0;
    m->joined = true;
    m->g->under_way++;
    m->g->depth = MAX(m->g->depth, m->g->under_way);
    if (!worth_waiting(w))
        return 0;
    gather(w);
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
    if (w->merging.m != NULL)
        w->merging.m->users--;
}
