/* SPDX-License-Identifier: Apache-2.0
 *
 * Reads ahead of sequential readers, into the cache. A stream has a *window*: so much lies between
 * its front and the end of what was read ahead. When half of it is used up the next half is read,
 * one device request for each run of pages that lie behind one another. The window doubles when
 * what was read ahead is used, and shrinks when it is not; streams that follow one that wasted
 * most of it begin with less. Reading ahead is a request like any other: admitted with the one that
 * caused it, under the range lock of its pages. */
#include "chunk/internal.h"
#include "chunk/stream.h"

#define WINDOW_MIN 4u  /* pages */
#define WINDOW_NEW 16u /* of a new stream, if none wasted it */
#define JUMP_PAGES 1024u
#define JOBS_MAX   2u  /* of a stream at a time: the device is never idle between them */
#define RUNS_MAX   32u /* device requests of each */

struct ahead_stream {
    uint32_t front, hits; /* as last seen */
    uint32_t end;         /* everything before this page was read ahead, or need not be */
    uint32_t window;
    uint32_t read, used; /* pages read ahead last, and used since */
    uint32_t jobs;       /* reading ahead */
    uint32_t starting;   /* of these: have not run yet */
};
struct ahead {
    struct list recent; /* engine->aheads */
    struct ext *ext;
    uint32_t users;
    uint32_t window_new;
    struct stream_set streams;
    struct ahead_stream s[STREAMS_MAX];
};

/* ---- life ---- */

void readahead_free(struct ext *x)
{
    struct ahead *a = x->ahead;

    if (a == NULL)
        return;
    ASSERT(a->users == 0);
    list_del(&a->recent);
    budget_sub(&x->dev->e->memory, &x->dev->e->mem_aheads, sizeof(*a));
    x->ahead = NULL;
    mem_free(a);
}

/* Streams of extents that were not read for long are forgotten. */
static void reclaim(void *arg, uint64_t bytes)
{
    struct engine *e = arg;
    uint64_t before = e->mem_aheads.bytes;

    LIST_FOREACH_SAFE (a, &e->aheads, struct ahead, recent) {
        if (before - e->mem_aheads.bytes >= bytes)
            break;
        if (a->users == 0)
            readahead_free(a->ext);
    }
}

void readahead_init(struct engine *e)
{
    list_init(&e->aheads);
    budget_join(&e->memory, &e->mem_aheads, 2, reclaim, e);
}

static struct ahead *ahead_use(struct ext *x)
{
    struct engine *e = x->dev->e;
    struct ahead *a = x->ahead;
    bool first = a == NULL;

    if (first) {
        a = x->ahead = MEM_NEW(struct ahead);
        a->ext = x;
        a->window_new = WINDOW_NEW;
        list_init(&a->recent);
    }
    list_del(&a->recent);
    list_push_back(&e->aheads, &a->recent);
    a->users++; /* it stays */
    if (first)
        budget_add(&e->memory, &e->mem_aheads, sizeof(*a));
    return a;
}

/* ---- reading ahead ---- */

struct run { /* of pages that lie behind one another on the device */
    struct disk_req req;
    struct iovec iov;
    struct buf *buf;
    uint32_t first, n; /* pages */
    struct cache_run *pages;
};
struct job {
    struct op op;
    struct ahead *a;
    struct ahead_stream *s;
    uint32_t first, count;
    struct run runs[RUNS_MAX];
    uint32_t n_runs;
    uint32_t *crc; /* of the pages */
};

static void run_submit(struct job *j, struct run *r)
{
    r->buf = buf_alloc((size_t)r->n * PAGE_BYTES);
    r->iov = (struct iovec){r->buf->data, (size_t)r->n * PAGE_BYTES};
    r->req.op = DISK_READ;
    r->req.disk = j->op.ext->dev->disk;
    r->req.iov = &r->iov;
    r->req.iov_count = 1;
    disk_submit(&r->req);
}

/* Only pages at home: the others are in memory, or cost a device request each. */
static void runs_find(struct job *j)
{
    struct ext *x = j->op.ext;
    struct run *r = NULL;
    uint64_t next = 0, off;

    for (uint32_t i = 0; i < j->count; i++) {
        uint32_t page = j->first + i;
        bool here = jpage_find(x, page) == NULL && page_home(x, page, &off, &j->crc[i]);
        bool joins = r != NULL && r->first + r->n == page && off == next;

        if (!here || (!joins && j->n_runs == RUNS_MAX))
            continue;
        if (!joins)
            r = &j->runs[j->n_runs];
        if (!cache_ahead_begin(x->dev, off, &r->pages))
            continue;
        if (!joins) {
            j->n_runs++;
            r->first = page;
            r->req.off = off;
        }
        r->n++;
        next = off + PAGE_BYTES;
    }
}

/* A page that is not what it should be is left to whoever needs it. */
static void run_finish(struct job *j, struct run *r)
{
    struct dev *d = j->op.ext->dev;
    int rc = disk_wait(&r->req);

    d->io_errors += rc < 0;
    for (uint32_t i = 0; i < r->n; i++) {
        const uint8_t *data = r->buf->data + (size_t)i * PAGE_BYTES;
        uint32_t crc = j->crc[r->first + i - j->first];
        bool good = rc == 0 && crc32c(0, data, PAGE_BYTES) == crc;

        cache_ahead_end(d, r->req.off + (uint64_t)i * PAGE_BYTES, good ? r->buf : NULL, data, crc);
    }
    j->s->read += r->n;
    buf_put(r->buf);
    co_cond_broadcast(&d->loaded);
}

/* The pages are locked and their map is held. */
static void job_read(struct job *j)
{
    struct dev *d = j->op.ext->dev;
    struct pin pin;

    j->crc = MEM_NEW_ARRAY(uint32_t, j->count);
    pin_begin(d, &pin);
    runs_find(j);
    for (uint32_t i = 0; i < j->n_runs; i++)
        run_submit(j, &j->runs[i]);
    for (uint32_t i = 0; i < j->n_runs; i++)
        run_finish(j, &j->runs[i]);
    pin_end(d, &pin);
    mem_free(j->crc);
}

static int job_main(void *arg)
{
    struct job *j = arg;
    struct ext *x = j->op.ext;
    struct map_hold hold = {0};
    struct co_range range;
    int rc;

    j->s->starting--;
    rc = co_range_acquire(&x->lock, &range, j->first, j->count, false);
    if (rc == 0) {
        rc = op_check(&j->op);
        if (rc == 0)
            rc = map_hold(x, j->first / PAGES_PER_BLOCK,
                          (j->first + j->count - 1) / PAGES_PER_BLOCK, &hold);
        if (rc == 0)
            rc = op_check(&j->op);
        if (rc == 0)
            job_read(j);
        map_release(&hold);
        co_range_release(&x->lock, &range);
    }
    j->s->jobs--;
    j->a->users--;
    op_end(&j->op);
    mem_free(j);
    return 0; /* whoever needs the pages finds out why not */
}

static void job_start(const struct op *op, struct ahead *a, struct ahead_stream *s, uint32_t first,
                      uint32_t count)
{
    struct job *j = MEM_NEW(struct job);

    op_again(op, &j->op);
    j->a = a;
    j->s = s;
    j->first = first;
    j->count = count;
    a->users++;
    s->jobs++;
    s->starting++;
    co_spawn_detached_deadline(&op->ext->dev->e->readers, "read ahead", job_main, j);
    /* It announces its pages before this reader looks for any, unless it has to wait itself. */
    while (s->starting > 0 && co_yield () == 0)
        ;
}

/* ---- streams ---- */

static uint32_t window_max(const struct engine *e)
{
    return MIN(e->conf.readahead / PAGE_BYTES, cache_ahead_room(e));
}

/* Is what the stream's place holds still the stream that was there? */
static bool continues(const struct ahead_stream *s, const struct stream *now)
{
    return s->window > 0 && now->hits >= s->hits && now->next >= s->front &&
           now->next - s->front <= JUMP_PAGES;
}

static bool mostly_wasted(const struct ahead_stream *s)
{
    return s->read > 0 && s->used < s->read / 4;
}

static void stream_begin(struct ahead *a, struct ahead_stream *s)
{
    if (mostly_wasted(s))
        a->window_new = MAX(a->window_new / 2, WINDOW_MIN);
    s->end = s->read = s->used = 0;
    s->window = a->window_new;
}

/* The next half of the window is due. */
static void window_adapt(struct ahead *a, struct ahead_stream *s, uint32_t max)
{
    if (mostly_wasted(s)) {
        s->window = MAX(s->window / 2, WINDOW_MIN);
    } else if (s->read > 0) {
        s->window *= 2;
        a->window_new = WINDOW_NEW;
    }
    s->window = MIN(s->window, max);
    s->read = s->used = 0;
}

static void follow(const struct op *op, struct ahead *a, uint32_t i, uint32_t first, uint32_t len)
{
    const struct stream *now = &a->streams.s[i];
    uint32_t max = window_max(op->ext->dev->e), from, to;
    struct ahead_stream *s = &a->s[i];

    if (!continues(s, now))
        stream_begin(a, s);
    s->front = now->next;
    s->hits = now->hits;
    if (s->jobs == JOBS_MAX || len > max / 2 * PAGE_BYTES || s->end > s->front + s->window / 2)
        return;
    window_adapt(a, s, max);
    from = MAX(s->end, MIN(s->front, first)); /* its own pages too: one request instead of two */
    to = MIN(s->front + MAX(s->window, 2 * len / PAGE_BYTES), PAGES_PER_EXTENT);
    if (from >= to)
        return;
    s->end = to;
    job_start(op, a, s, from, to - from);
}

void readahead_begin(const struct op *op, uint32_t off, uint32_t len, struct ahead_use *ret)
{
    struct engine *e = op->ext->dev->e;
    int i;

    *ret = (struct ahead_use){.a = NULL};
    if (e->conf.readahead == READAHEAD_NEVER)
        return;
    ret->a = ahead_use(op->ext);
    i = stream_note(&ret->a->streams, off, len, co_now());
    if (i < 0)
        return;
    ret->s = &ret->a->s[i];
    follow(op, ret->a, (uint32_t)i, off / PAGE_BYTES, len);
}

void readahead_end(struct ahead_use *u, uint32_t hits)
{
    if (u->s != NULL)
        u->s->used += hits;
    if (u->a != NULL)
        u->a->users--;
}
