/* SPDX-License-Identifier: Apache-2.0
 *
 * Mutex, condition, semaphore, wait group, event, queue. Every hand-over goes straight to the
 * first waiter at the time of the wake-up, so nobody overtakes and nobody wakes in vain. */
#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/co/co_impl.h"
#include "common/co/sync.h"

static struct co_wait *first_waiter(struct list *waiters)
{
    struct co_wait *w = LIST_FIRST(waiters, struct co_wait, link);

#ifdef ZBS_DEBUG
    ASSERTF(w == NULL || w->co == NULL || w->co->ctx.loop == co_loop() || co_loop() == NULL,
            "an object of loop %s is used on another loop", w->co->ctx.loop_name);
#endif
    return w;
}

static void wake_all(struct list *waiters, int rc)
{
    for (struct co_wait *w; (w = first_waiter(waiters)) != NULL;)
        co_resume(w, rc);
}

/* Waits at the end of a queue. */
static int wait_on(struct list *waiters, struct co_wait *w, enum co_wait_kind kind)
{
    (void)first_waiter(waiters);
    co_wait_init(w);
    list_push_back(waiters, &w->link);
    return co_suspend(w, kind);
}

/* ---- mutex ---- */

void co_mutex_init(struct co_mutex *m)
{
    m->holder = NULL;
    list_init(&m->waiters);
}

static int mutex_lock(struct co_mutex *m, enum co_wait_kind kind)
{
    struct co *self = co_self();
    struct co_wait w;

    ASSERTF(self != NULL, "a mutex is locked outside coroutines");
    if (LIKELY(m->holder == NULL)) {
        m->holder = self;
        self->locks++;
        return 0;
    }
    ASSERTF(m->holder != self, "coroutine %s locks a mutex twice", co_name(self));
    return wait_on(&m->waiters, &w, kind); /* 0: unlock made us the holder */
}

int co_mutex_lock(struct co_mutex *m)
{
    return mutex_lock(m, CO_INTERRUPTIBLE);
}

void co_mutex_lock_always(struct co_mutex *m)
{
    (void)mutex_lock(m, CO_UNINTERRUPTIBLE);
}

bool co_mutex_trylock(struct co_mutex *m)
{
    if (m->holder != NULL)
        return false;
    return mutex_lock(m, CO_UNINTERRUPTIBLE) == 0;
}

void co_mutex_unlock(struct co_mutex *m)
{
    struct co *self = co_self();
    struct co_wait *w;

    ASSERTF(m->holder == self && self != NULL, "a mutex is unlocked by someone else");
    self->locks--;
    w = first_waiter(&m->waiters);
    m->holder = w != NULL ? w->co : NULL;
    if (w != NULL) {
        m->holder->locks++;
        co_resume(w, 0);
    }
}

/* ---- condition ---- */

void co_cond_init(struct co_cond *c)
{
    list_init(&c->waiters);
}

int co_cond_wait(struct co_cond *c)
{
    struct co_wait w;

    return wait_on(&c->waiters, &w, CO_INTERRUPTIBLE);
}

void co_cond_wait_always(struct co_cond *c)
{
    struct co_wait w;

    (void)wait_on(&c->waiters, &w, CO_UNINTERRUPTIBLE);
}

void co_cond_signal(struct co_cond *c)
{
    struct co_wait *w = first_waiter(&c->waiters);

    if (w != NULL)
        co_resume(w, 0);
}

void co_cond_broadcast(struct co_cond *c)
{
    wake_all(&c->waiters, 0);
}

/* ---- semaphore ---- */

struct sem_waiter {
    struct co_wait wait;
    uint64_t n;
};

void co_sem_init(struct co_sem *s, uint64_t credits)
{
    s->free = credits;
    list_init(&s->waiters);
}

static void sem_grant(struct co_sem *s)
{
    for (struct co_wait *w; (w = first_waiter(&s->waiters)) != NULL;) {
        uint64_t n = CONTAINER_OF(w, struct sem_waiter, wait)->n;

        if (n > s->free)
            break;
        s->free -= n;
        co_resume(w, 0);
    }
}

bool co_sem_try(struct co_sem *s, uint64_t n)
{
    if (!list_empty(&s->waiters) || n > s->free)
        return false;
    s->free -= n;
    return true;
}

int co_sem_acquire(struct co_sem *s, uint64_t n)
{
    struct sem_waiter w = {.n = n};
    int rc;

    if (LIKELY(co_sem_try(s, n)))
        return 0;
    rc = wait_on(&s->waiters, &w.wait, CO_INTERRUPTIBLE);
    if (rc < 0)
        sem_grant(s); /* those behind us may want less */
    return rc;
}

void co_sem_release(struct co_sem *s, uint64_t n)
{
    ASSERT(s->free <= UINT64_MAX - n);
    s->free += n;
    sem_grant(s);
}

/* ---- wait group ---- */

void co_wg_init(struct co_wg *wg)
{
    wg->count = 0;
    list_init(&wg->waiters);
}

void co_wg_add(struct co_wg *wg, uint32_t n)
{
    ASSERT(wg->count <= UINT32_MAX - n);
    wg->count += n;
}

void co_wg_done(struct co_wg *wg)
{
    ASSERT(wg->count > 0);
    if (--wg->count == 0)
        wake_all(&wg->waiters, 0);
}

void co_wg_wait(struct co_wg *wg)
{
    struct co_wait w;

    if (wg->count > 0)
        (void)wait_on(&wg->waiters, &w, CO_UNINTERRUPTIBLE);
}

/* ---- event ---- */

void co_event_init(struct co_event *e)
{
    e->set = false;
    e->rc = 0;
    list_init(&e->waiters);
}

void co_event_set(struct co_event *e, int rc)
{
    if (e->set)
        return;
    e->set = true;
    e->rc = rc;
    wake_all(&e->waiters, rc);
}

static int event_wait(struct co_event *e, enum co_wait_kind kind)
{
    struct co_wait w;

    return e->set ? e->rc : wait_on(&e->waiters, &w, kind);
}

int co_event_wait(struct co_event *e)
{
    return event_wait(e, CO_INTERRUPTIBLE);
}

int co_event_wait_always(struct co_event *e)
{
    return event_wait(e, CO_UNINTERRUPTIBLE);
}

/* ---- queue ---- */

struct queue_waiter {
    struct co_wait wait;
    void *item; /* of a pusher: what it brings; of a popper: what it got */
};

void co_queue_init(struct co_queue *q, uint32_t cap)
{
    ASSERT(cap > 0);
    q->ring = MEM_NEW_ARRAY(void *, cap);
    q->cap = cap;
    q->head = q->count = 0;
    q->closed = false;
    list_init(&q->pushers);
    list_init(&q->poppers);
}

void co_queue_fini(struct co_queue *q)
{
    ASSERTF(list_empty(&q->pushers) && list_empty(&q->poppers), "somebody waits in the queue");
    mem_free(q->ring);
    q->ring = NULL;
}

static void ring_put(struct co_queue *q, void *item)
{
    q->ring[(q->head + q->count++) % q->cap] = item;
}

bool co_queue_try_push(struct co_queue *q, void *item)
{
    struct co_wait *popper;

    if (q->closed)
        return false;
    popper = first_waiter(&q->poppers);
    if (popper != NULL) {
        CONTAINER_OF(popper, struct queue_waiter, wait)->item = item;
        co_resume(popper, 0);
        return true;
    }
    if (q->count == q->cap)
        return false;
    ring_put(q, item);
    return true;
}

int co_queue_push(struct co_queue *q, void *item)
{
    struct queue_waiter w = {.item = item};
    int rc;

    if (LIKELY(co_queue_try_push(q, item)))
        return 0;
    if (q->closed)
        return err_set(ERR_CLOSED, "the queue is closed");
    rc = wait_on(&q->pushers, &w.wait, CO_INTERRUPTIBLE);
    return rc == ERR_CLOSED ? err_set(rc, "the queue is closed") : rc;
}

int co_queue_pop(struct co_queue *q, void **ret_item)
{
    struct queue_waiter w = {.item = NULL};
    struct co_wait *pusher;
    int rc;

    if (q->count > 0) {
        *ret_item = q->ring[q->head];
        q->head = (q->head + 1) % q->cap;
        q->count--;
        pusher = first_waiter(&q->pushers);
        if (pusher != NULL) {
            ring_put(q, CONTAINER_OF(pusher, struct queue_waiter, wait)->item);
            co_resume(pusher, 0);
        }
        return 0;
    }
    if (q->closed)
        return err_set(ERR_CLOSED, "the queue is closed");
    rc = wait_on(&q->poppers, &w.wait, CO_INTERRUPTIBLE);
    if (rc == 0)
        *ret_item = w.item;
    return rc == ERR_CLOSED ? err_set(rc, "the queue is closed") : rc;
}

void co_queue_close(struct co_queue *q)
{
    q->closed = true;
    wake_all(&q->pushers, ERR_CLOSED);
    wake_all(&q->poppers, ERR_CLOSED);
}
