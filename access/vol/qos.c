/* SPDX-License-Identifier: Apache-2.0
 *
 * Limits of I/Os and bytes per second, of a volume and of its pool, where I/O of front ends enters
 * (what other access servers forward was counted there). A token bucket each, kept as the time at
 * which it will be full again.
 *
 * Who may not enter at once waits in its volume's queue, first come first served. One coroutine
 * for each pool, the pump, admits the heads of the queues by turns, so that a deep queue takes
 * nothing from a shallow one. An I/O larger than the burst waits for a full bucket and leaves it in
 * debt. A limit that changes counts at once, also for who waits.
 *
 * This server has a share of each limit (qos_share.c). Without limits a volume costs one test. */
#include "access/vol/qos.h"

#define BURST_SPAN 10u /* of a second: what may always be done at once */

struct qos_waiter {
    struct list link;
    struct co_event admitted;
    uint64_t bytes;
};

/* ---- buckets ---- */

static double bucket_rate(const struct qos_bucket *b)
{
    return (double)b->limit * MAX(b->share, 1u) / QOS_WHOLE;
}

static nsec_t bucket_time(const struct qos_bucket *b, double tokens)
{
    return (nsec_t)(tokens / bucket_rate(b) * (double)NSEC_PER_SEC);
}

/* Room for two, so that a late wake-up loses nothing. */
static double bucket_depth(const struct qos_bucket *b)
{
    double part = (double)b->burst * b->share / QOS_WHOLE;

    return MAX(MAX(part, bucket_rate(b) / BURST_SPAN), 2);
}

static nsec_t bucket_ready_at(const struct qos_bucket *b, uint64_t n)
{
    nsec_t depth;

    if (b->limit == 0 || n == 0)
        return 0;
    depth = bucket_time(b, bucket_depth(b));
    return b->full_at - depth + MIN(bucket_time(b, (double)n), depth);
}

static void bucket_take(struct qos_bucket *b, uint64_t n, nsec_t now)
{
    b->taken += n;
    if (b->limit > 0)
        b->full_at = MAX(b->full_at, now) + bucket_time(b, (double)n);
}

/* A new one is full. Else it stays as full as it was; what is owed stays owed. */
static void bucket_change(struct qos_bucket *b, uint64_t limit, uint64_t burst, uint32_t share)
{
    bool fresh = b->limit == 0;
    nsec_t now = co_now();
    double part = 1, owed = 0;

    if (!fresh && b->full_at > now) {
        double depth = bucket_depth(b);
        double gone = (double)(b->full_at - now) / (double)NSEC_PER_SEC * bucket_rate(b);

        part = MAX(1 - gone / depth, 0);
        owed = MAX(gone - depth, 0);
    }
    b->limit = limit;
    b->burst = burst;
    b->share = share;
    b->full_at = 0;
    if (limit > 0)
        b->full_at = now + bucket_time(b, (1 - part) * bucket_depth(b) + owed);
}

static nsec_t limit_ready_at(const struct qos_limit *l, uint64_t bytes)
{
    return MAX(bucket_ready_at(&l->ios, 1), bucket_ready_at(&l->bytes, bytes));
}

static void limit_take(struct qos_limit *l, uint64_t bytes, nsec_t now)
{
    l->used = now;
    bucket_take(&l->ios, 1, now);
    bucket_take(&l->bytes, bytes, now);
}

static void limit_queue(struct qos_limit *l, uint64_t bytes)
{
    l->used = co_now();
    l->ios.queued++;
    l->bytes.queued += bytes;
}

static void limit_unqueue(struct qos_limit *l, uint64_t bytes)
{
    l->ios.queued--;
    l->bytes.queued -= bytes;
}

bool qos_limited(const struct qos_limit *l)
{
    return l->ios.limit > 0 || l->bytes.limit > 0;
}

void qos_share_set(struct qos_limit *l, uint32_t ios_share, uint32_t bytes_share)
{
    bucket_change(&l->ios, l->ios.limit, l->ios.burst, MIN(ios_share, QOS_WHOLE));
    bucket_change(&l->bytes, l->bytes.limit, l->bytes.burst, MIN(bytes_share, QOS_WHOLE));
}

/* ---- queues ---- */

static struct qos_waiter *head_of(struct qos_volume *q)
{
    return LIST_FIRST(&q->waiters, struct qos_waiter, link);
}

static void waiter_remove(struct qos_volume *q, struct qos_waiter *w)
{
    list_del(&w->link);
    limit_unqueue(&q->limit, w->bytes);
    limit_unqueue(&q->pool->limit, w->bytes);
    if (list_empty(&q->waiters))
        list_del(&q->link);
}

static nsec_t ready_at(struct qos_volume *q, uint64_t bytes)
{
    return MAX(limit_ready_at(&q->limit, bytes), limit_ready_at(&q->pool->limit, bytes));
}

static void admit(struct qos_volume *q, uint64_t bytes, nsec_t now)
{
    limit_take(&q->limit, bytes, now);
    limit_take(&q->pool->limit, bytes, now);
}

/* Admits the first head that may go, and puts its volume at the end. NULL: admitted; else when
 * the next can. */
static bool admit_one(struct qos_pool *p, nsec_t *ret_next)
{
    nsec_t now = co_now();

    *ret_next = NSEC_NEVER;
    LIST_FOREACH (q, &p->waiting, struct qos_volume, link) {
        struct qos_waiter *w = head_of(q);
        nsec_t at = ready_at(q, w->bytes);

        if (at > now) {
            *ret_next = MIN(*ret_next, at);
            continue;
        }
        admit(q, w->bytes, now);
        waiter_remove(q, w);
        if (list_linked(&q->link)) {
            list_del(&q->link);
            list_push_back(&p->waiting, &q->link);
        }
        co_event_set(&w->admitted, 0);
        return true;
    }
    return false;
}

static int pump(void *arg)
{
    struct qos_pool *p = arg;

    while (!co_canceled() && !list_empty(&p->waiting)) {
        nsec_t next, former;

        if (admit_one(p, &next))
            continue;
        former = co_deadline_push(next);
        (void)co_cond_wait(&p->kick);
        co_deadline_restore(former);
    }
    p->pumping = false;
    return 0;
}

static void pump_kick(struct qos_pool *p)
{
    if (p->pumping) {
        co_cond_broadcast(&p->kick);
        return;
    }
    if (list_empty(&p->waiting))
        return;
    p->pumping = true;
    co_spawn_detached_deadline(&p->e->bg, "qos", pump, p);
}

int qos_wait(struct volume *v, uint64_t bytes)
{
    struct qos_volume *q = v->qos;
    struct qos_waiter w = {.bytes = bytes};
    nsec_t now = co_now();
    int rc;

    if (list_empty(&q->waiters) &&
        (list_empty(&q->pool->waiting) || !qos_limited(&q->pool->limit)) &&
        ready_at(q, bytes) <= now) {
        admit(q, bytes, now);
        return 0;
    }
    if (v->e->stopping)
        return err_set(ERR_HALTED, "the volume engine is stopping");
    co_event_init(&w.admitted);
    if (list_empty(&q->waiters))
        list_push_back(&q->pool->waiting, &q->link);
    list_push_back(&q->waiters, &w.link);
    limit_queue(&q->limit, bytes);
    limit_queue(&q->pool->limit, bytes);
    pump_kick(q->pool);
    rc = co_event_wait(&w.admitted);
    if (!w.admitted.set)
        waiter_remove(q, &w);
    return rc;
}

void qos_stop(struct vol_engine *e)
{
    LIST_FOREACH (p, &e->qos_pools, struct qos_pool, link) {
        struct qos_volume *q;

        while ((q = LIST_FIRST(&p->waiting, struct qos_volume, link)) != NULL) {
            struct qos_waiter *w = head_of(q);

            waiter_remove(q, w);
            co_event_set(&w->admitted, ERR_HALTED);
        }
    }
}

/* ---- what meta says ---- */

static struct qos_pool *pool_of(struct vol_engine *e, uint32_t id)
{
    struct qos_pool *p;

    LIST_FOREACH (known, &e->qos_pools, struct qos_pool, link)
        if (known->id == id)
            return known;
    p = MEM_NEW(struct qos_pool);
    p->e = e;
    p->id = id;
    list_init(&p->waiting);
    co_cond_init(&p->kick);
    p->limit.ios.share = p->limit.bytes.share = qos_first_share(e);
    list_push_back(&e->qos_pools, &p->link);
    return p;
}

static struct qos_volume *volume_new(struct volume *v, struct qos_pool *p)
{
    struct qos_volume *q = MEM_NEW(struct qos_volume);

    list_init(&q->link);
    list_init(&q->waiters);
    q->pool = p;
    q->limit.ios.share = q->limit.bytes.share = qos_first_share(v->e);
    return q;
}

static void limit_change(struct qos_limit *l, const Zbs__Meta__Limits *m)
{
    static const Zbs__Meta__Limits none = ZBS__META__LIMITS__INIT;

    if (!m)
        m = &none;
    bucket_change(&l->ios, m->iops, m->iops_burst, l->ios.share);
    bucket_change(&l->bytes, m->bandwidth, m->bandwidth_burst, l->bytes.share);
}

/* To another pool, with all that waits. */
static void volume_move(struct qos_volume *q, struct qos_pool *to)
{
    struct qos_pool *from = q->pool;

    if (from == to)
        return;
    LIST_FOREACH (w, &q->waiters, struct qos_waiter, link) {
        limit_unqueue(&from->limit, w->bytes);
        limit_queue(&to->limit, w->bytes);
    }
    if (!list_empty(&q->waiters)) {
        list_del(&q->link);
        list_push_back(&to->waiting, &q->link);
    }
    q->pool = to;
    pump_kick(from);
}

static bool limits_any(const Zbs__Meta__Limits *m)
{
    return m && (m->iops || m->bandwidth);
}

void qos_update(struct volume *v, const Zbs__Meta__Volume *m)
{
    struct qos_pool *p;

    v->limited = limits_any(m->limits) || limits_any(m->pool_limits);
    if (!v->limited && !v->qos)
        return;
    p = pool_of(v->e, m->pool_id);
    limit_change(&p->limit, m->pool_limits);
    if (!v->qos)
        v->qos = volume_new(v, p);
    volume_move(v->qos, p);
    limit_change(&v->qos->limit, m->limits);
    pump_kick(p);
}

void qos_kick(struct vol_engine *e)
{
    LIST_FOREACH (p, &e->qos_pools, struct qos_pool, link)
        pump_kick(p);
}

void qos_fini(struct vol_engine *e)
{
    struct list *l;

    while ((l = list_pop_front(&e->qos_pools)) != NULL)
        mem_free(LIST_ENTRY(l, struct qos_pool, link));
}
