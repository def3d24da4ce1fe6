/* SPDX-License-Identifier: Apache-2.0
 *
 * Synchronisation between coroutines of one loop. No object here is shared between loops: each
 * belongs to the loop of its first use (asserted in debug builds). All live in their owner's
 * memory; fini asserts that nobody waits. Interruptible waits return ERR_TIMEOUT at the
 * coroutine's deadline and ERR_CANCELED after a cancel. All queues are first come, first served. */
#ifndef ZBS_CO_SYNC_H
#define ZBS_CO_SYNC_H

#include "common/co/co.h"

/* Mutual exclusion across suspension points. Not recursive. */
struct co_mutex {
    struct co *holder;
    struct list waiters;
};
void co_mutex_init(struct co_mutex *m);
co_fn int co_mutex_lock(struct co_mutex *m) MUST_CHECK; /* 0, ERR_TIMEOUT, ERR_CANCELED */
co_fn void co_mutex_lock_always(struct co_mutex *m);    /* uninterruptible */
bool co_mutex_trylock(struct co_mutex *m);
void co_mutex_unlock(struct co_mutex *m);

/* Condition: wait for a change of state that its waker announces. No mutex is needed, since
 * code between suspension points is atomic: test, wait, test again. */
struct co_cond {
    struct list waiters;
};
void co_cond_init(struct co_cond *c);
co_fn int co_cond_wait(struct co_cond *c);         /* interruptible */
co_fn void co_cond_wait_always(struct co_cond *c); /* uninterruptible */
void co_cond_signal(struct co_cond *c);            /* wakes the first */
void co_cond_broadcast(struct co_cond *c);         /* wakes all */

/* Counted credits. acquire(n) waits until n are free, in order (no overtaking). */
struct co_sem {
    uint64_t free;
    struct list waiters;
};
void co_sem_init(struct co_sem *s, uint64_t credits);
co_fn int co_sem_acquire(struct co_sem *s, uint64_t n) MUST_CHECK;
bool co_sem_try(struct co_sem *s, uint64_t n);
void co_sem_release(struct co_sem *s, uint64_t n);

/* Counts outstanding work; wait returns when it reaches zero. */
struct co_wg {
    uint32_t count;
    struct list waiters;
};
void co_wg_init(struct co_wg *wg);
void co_wg_add(struct co_wg *wg, uint32_t n);
void co_wg_done(struct co_wg *wg);
co_fn void co_wg_wait(struct co_wg *wg); /* uninterruptible */

/* A value that will be set once: any number of waiters get it. */
struct co_event {
    bool set;
    int rc;
    struct list waiters;
};
void co_event_init(struct co_event *e);
void co_event_set(struct co_event *e, int rc); /* first call counts */
co_fn int co_event_wait(struct co_event *e);   /* rc, or ERR_TIMEOUT, ERR_CANCELED */
co_fn int co_event_wait_always(struct co_event *e);

/* Bounded queue of pointers. close wakes everybody: push fails with ERR_CLOSED, pop drains what
 * is left and then fails with ERR_CLOSED. */
struct co_queue {
    void **ring;
    uint32_t cap, head, count;
    bool closed;
    struct list pushers, poppers;
};
void co_queue_init(struct co_queue *q, uint32_t cap);
void co_queue_fini(struct co_queue *q);
co_fn int co_queue_push(struct co_queue *q, void *item) MUST_CHECK;
bool co_queue_try_push(struct co_queue *q, void *item);
co_fn int co_queue_pop(struct co_queue *q, void **ret_item) MUST_CHECK;
void co_queue_close(struct co_queue *q);

/* Byte-range lock, shared or exclusive, fair: a request waits for every earlier overlapping
 * request, held or waiting, that conflicts. Caller's memory holds the lock record. */
struct co_range_lock {
    struct list records; /* in order of request */
};
struct co_range {
    struct list link;
    uint64_t start, end; /* [start, end) */
    bool exclusive, held, always;
    struct co_wait wait;
};
void co_range_lock_init(struct co_range_lock *l);
co_fn int co_range_acquire(struct co_range_lock *l, struct co_range *r, uint64_t start,
                           uint64_t len, bool exclusive) MUST_CHECK;
co_fn void co_range_acquire_always(struct co_range_lock *l, struct co_range *r, uint64_t start,
                                   uint64_t len, bool exclusive);
/* Everybody who waits now gets rc, those of acquire_always excepted. */
void co_range_lock_break(struct co_range_lock *l, int rc);
void co_range_release(struct co_range_lock *l, struct co_range *r);

#endif
