/* SPDX-License-Identifier: Apache-2.0
 *
 * The read cache: its queues, and who leaves. */
#include "chunk/cache.h"
#include <inttypes.h>
#include "chunk/internal.h"

#define READS_MAX     3u /* that count */
#define NEW_PART      10 /* the queue of new pages is one of so many parts */
#define AHEAD_PART    4  /* of the budget: what may be ahead of its readers */
#define AHEAD_STREAMS 8  /* that share it */

enum queue {
    Q_NEW,
    Q_MAIN,
    Q_GONE, /* names of pages that left Q_NEW */
    Q_AHEAD,
    Q_LOADING,
    QUEUES,
};
struct cache_run {  /* of pages that were read ahead into one buffer */
    uint32_t pages; /* loading or ahead */
    uint64_t bytes; /* all that the buffer has room for */
};
struct cpage {
    struct htab_node node; /* cache->pages, by place */
    struct list link;
    struct buf *buf;       /* NULL: GONE, LOADING */
    struct cache_run *run; /* NULL: not LOADING or AHEAD */
    const uint8_t *data;
    uint32_t crc;
    uint8_t queue, reads;
};
struct cache {
    struct engine *e;
    struct budget_user mem;
    struct htab pages;
    struct list q[QUEUES];
    uint64_t n[QUEUES];
    struct cache_stats st;
};

#define NAME_BYTES (sizeof(struct cpage) + 24) /* with what the heap and the table add */

static uint64_t key_of(const struct dev *d, uint64_t off)
{
    return (uint64_t)d->number << 48 | off / PAGE_BYTES;
}

static struct cpage *find(const struct cache *c, uint64_t key)
{
    return HTAB_FIND(&c->pages, key, struct cpage, node);
}

/* Pages that are read ahead lie in their run's buffer, which is charged as a whole. */
static uint64_t cost(enum queue q)
{
    return q == Q_NEW || q == Q_MAIN ? NAME_BYTES + PAGE_BYTES : NAME_BYTES;
}

/* ---- queues ---- */

static void enqueue(struct cache *c, struct cpage *p, enum queue q)
{
    p->queue = q;
    list_push_back(&c->q[q], &p->link);
    c->n[q]++;
}

static void dequeue(struct cache *c, struct cpage *p)
{
    list_del(&p->link);
    c->n[p->queue]--;
}

static void run_more(struct cache *c, struct cache_run *r)
{
    r->pages++;
    r->bytes += PAGE_BYTES;
    c->st.ahead_bytes += PAGE_BYTES;
    budget_add(&c->e->memory, &c->mem, PAGE_BYTES);
}

static void run_less(struct cache *c, struct cache_run *r)
{
    if (--r->pages > 0)
        return;
    c->st.ahead_bytes -= r->bytes;
    budget_sub(&c->e->memory, &c->mem, r->bytes);
    mem_free(r);
}

static void forget(struct cache *c, struct cpage *p)
{
    dequeue(c, p);
    htab_remove(&c->pages, &p->node);
    budget_sub(&c->e->memory, &c->mem, cost(p->queue));
    if (p->run != NULL)
        run_less(c, p->run);
    buf_put(p->buf);
    mem_free(p);
}

/* May drop it at once, if there is no room for anything. */
static void insert(struct cache *c, uint64_t key, enum queue q, struct cpage with)
{
    struct cpage *p = MEM_NEW(struct cpage);

    *p = with;
    htab_insert(&c->pages, &p->node, key);
    enqueue(c, p, q);
    budget_add(&c->e->memory, &c->mem, cost(q));
}

/* ---- who leaves ---- */

static struct cpage *oldest(struct cache *c, enum queue q)
{
    return LIST_FIRST(&c->q[q], struct cpage, link);
}

static void move(struct cache *c, struct cpage *p, enum queue to)
{
    dequeue(c, p);
    enqueue(c, p, to);
}

static void step_new(struct cache *c)
{
    struct cpage *p = oldest(c, Q_NEW);

    if (p->reads > 0) {
        p->reads = 0;
        move(c, p, Q_MAIN);
        return;
    }
    buf_put(p->buf);
    p->buf = NULL;
    move(c, p, Q_GONE);
    budget_sub(&c->e->memory, &c->mem, cost(Q_NEW) - cost(Q_GONE));
    if (c->n[Q_GONE] > c->n[Q_NEW] + c->n[Q_MAIN])
        forget(c, oldest(c, Q_GONE));
}

static void step_main(struct cache *c)
{
    struct cpage *p = oldest(c, Q_MAIN);

    if (p->reads == 0) {
        forget(c, p);
        return;
    }
    p->reads--;
    move(c, p, Q_MAIN);
}

static void waste(struct cache *c)
{
    c->st.ahead_wasted++;
    forget(c, oldest(c, Q_AHEAD));
}

static uint64_t ahead_max(const struct engine *e)
{
    return budget_room(&e->memory) / AHEAD_PART;
}

/* A page leaves, or moves on. False: there is none. */
static bool step(struct cache *c)
{
    uint64_t pages = c->n[Q_NEW] + c->n[Q_MAIN];

    if (c->n[Q_NEW] > pages / NEW_PART)
        step_new(c);
    else if (c->n[Q_MAIN] > 0)
        step_main(c);
    else if (c->n[Q_AHEAD] > 0)
        waste(c);
    else if (c->n[Q_GONE] > 0)
        forget(c, oldest(c, Q_GONE));
    else
        return false;
    return true;
}

/* For the budget. */
static void reclaim(void *arg, uint64_t bytes)
{
    struct cache *c = arg;
    uint64_t until = c->mem.bytes > bytes ? c->mem.bytes - bytes : 0;

    while (c->mem.bytes > until && step(c))
        ;
}

/* ---- life ---- */

struct cache *cache_new(struct engine *e)
{
    struct cache *c = MEM_NEW(struct cache);

    c->e = e;
    htab_init(&c->pages);
    for (uint32_t q = 0; q < QUEUES; q++)
        list_init(&c->q[q]);
    budget_join(&e->memory, &c->mem, 0, reclaim, c);
    return c;
}

void cache_free(struct cache *c)
{
    reclaim(c, UINT64_MAX);
    ASSERT(c->mem.bytes == 0);
    htab_fini(&c->pages);
    mem_free(c);
}

/* ---- for readers ---- */

enum cache_answer cache_find(struct dev *d, uint64_t off, uint32_t crc, struct cached *ret)
{
    struct cache *c = d->e->cache;
    struct cpage *p = find(c, key_of(d, off));

    if (p != NULL && p->queue == Q_LOADING)
        return CACHE_LOADING;
    if (p == NULL || p->queue == Q_GONE) {
        c->st.misses++;
        return CACHE_MISS;
    }
    if (p->crc != crc) {
        log_error("cache.stale", "disk=%s byte=%" PRIu64, d->path, off);
        c->st.stale++;
        c->st.misses++;
        forget(c, p);
        return CACHE_MISS;
    }
    c->st.hits++;
    p->reads += p->reads < READS_MAX;
    *ret = (struct cached){p->buf, p->data};
    return p->queue == Q_AHEAD ? CACHE_AHEAD : CACHE_HIT;
}

void cache_put(struct dev *d, uint64_t off, struct buf *buf, const uint8_t *data, uint32_t crc)
{
    struct cache *c = d->e->cache;
    uint64_t key = key_of(d, off);
    struct cpage *p = find(c, key);
    enum queue q = Q_NEW;

    if (p != NULL && p->queue != Q_GONE)
        return; /* another reader was faster */
    if (p != NULL) {
        forget(c, p);
        q = Q_MAIN;
    }
    insert(c, key, q, (struct cpage){.buf = buf_get(buf), .data = data, .crc = crc});
}

void cache_drop(struct dev *d, uint64_t off, uint32_t count)
{
    struct cache *c = d->e->cache;
    uint64_t key = key_of(d, off);

    for (uint32_t i = 0; i < count && c->pages.count > 0; i++) {
        struct cpage *p = find(c, key + i);

        ASSERT(p == NULL || p->queue != Q_LOADING); /* who loads it has it locked */
        if (p != NULL)
            forget(c, p);
    }
}

void cache_drop_dev(struct dev *d)
{
    struct cache *c = d->e->cache;

    for (uint32_t q = 0; q < QUEUES; q++) {
        LIST_FOREACH_SAFE (p, &c->q[q], struct cpage, link) {
            if (p->node.key >> 48 == d->number)
                forget(c, p);
        }
    }
}

/* ---- reading ahead ---- */

uint32_t cache_ahead_room(const struct engine *e)
{
    return (uint32_t)MIN(ahead_max(e) / PAGE_BYTES / AHEAD_STREAMS, PAGES_PER_EXTENT);
}

/* Room for one more page: what has waited for its reader for the longest time goes. False: what is
 * being loaded takes all of it. */
static bool ahead_make_room(struct cache *c)
{
    uint64_t max = ahead_max(c->e);

    while (c->st.ahead_bytes + PAGE_BYTES > max && c->n[Q_AHEAD] > 0)
        waste(c);
    return c->st.ahead_bytes + PAGE_BYTES <= max;
}

bool cache_ahead_begin(struct dev *d, uint64_t off, struct cache_run **run)
{
    struct cache *c = d->e->cache;
    uint64_t key = key_of(d, off);
    struct cpage *p = find(c, key);

    if ((p != NULL && p->queue != Q_GONE) || !ahead_make_room(c))
        return false;
    if (p != NULL)
        forget(c, p);
    if (*run == NULL)
        *run = MEM_NEW(struct cache_run);
    insert(c, key, Q_LOADING, (struct cpage){.run = *run});
    run_more(c, *run);
    return true;
}

void cache_ahead_end(struct dev *d, uint64_t off, struct buf *buf, const uint8_t *data,
                     uint32_t crc)
{
    struct cache *c = d->e->cache;
    struct cpage *p = find(c, key_of(d, off));

    ASSERT(p != NULL && p->queue == Q_LOADING);
    if (buf == NULL) {
        forget(c, p);
        return;
    }
    p->buf = buf_get(buf);
    p->data = data;
    p->crc = crc;
    c->st.ahead_read++;
    move(c, p, Q_AHEAD);
}

void cache_ahead_used(struct dev *d, uint64_t off)
{
    struct cache *c = d->e->cache;
    struct cpage *p = find(c, key_of(d, off));

    if (p == NULL || p->queue != Q_AHEAD)
        return;
    c->st.ahead_used++;
    forget(c, p);
}

/* ---- statistics ---- */

void engine_cache(const struct engine *e, struct cache_stats *ret)
{
    *ret = e->cache->st;
    ret->bytes = e->cache->mem.bytes;
}
