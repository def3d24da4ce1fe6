/* SPDX-License-Identifier: Apache-2.0
 *
 * Coroutines and thread contexts (design section 4).
 *
 * A *loop* is a thread context: one thread (in the simulator: a virtual one), its run queue, its
 * timers, and a driver that waits for the outside world. A coroutine runs on one loop at a time
 * and is only ever resumed by it; it may move to another loop and back with co_enter. Everything
 * that a coroutine touches belongs to the loop it is on, so there are no locks between coroutines
 * of one loop; between two suspension points code is atomic.
 *
 * Structured: every coroutine is born in a group, and whoever owns the group cancels and joins
 * it. Cancellation is cooperative: an interruptible wait of a cancelled coroutine returns
 * ERR_CANCELED at once, and so does each later one. A device wait is not interruptible, because
 * the kernel still owns the buffer.
 *
 * A deadline is a property of the coroutine: set once at the edge, it bounds every interruptible
 * wait below it (ERR_TIMEOUT) and is inherited by the coroutines it spawns and by the RPCs it
 * makes.
 *
 * Unless a comment says otherwise, functions here are called from a coroutine, on its loop. */
#ifndef ZBS_CO_CO_H
#define ZBS_CO_CO_H

#include <stdbool.h>
#include "common/base/attr.h"
#include "common/base/err.h"
#include "common/base/list.h"

struct co;      /* a coroutine */
struct co_loop; /* a thread context */

#define CO_STACK_BYTES_DEFAULT (128u * 1024)

/* ---- who and when ---- */

struct co *co_self(void);      /* NULL outside coroutines */
struct co_loop *co_loop(void); /* loop that this thread is running; NULL outside one */
const char *co_name(const struct co *co);
struct err_slot *co_err_slot(void); /* the running coroutine's, else the thread's */

/* Monotonic, counts suspend (CLOCK_BOOTTIME); virtual in the simulator. Read from the clock on
 * every call (about 20 ns). */
nsec_t co_now(void);

/* ---- groups ---- */

/* Lives in its owner's memory. Belongs to the loop that initialised it: spawn, cancel and join
 * happen there, and its coroutines end there (one that entered another loop comes back first). */
struct co_group {
    struct co_loop *loop;
    struct list members;
    struct list joiners;
    uint32_t count;
    int first_err; /* first negative result of a member that ended, other than ERR_CANCELED
                    * after a cancel */
    bool canceled;
    bool
        passed_on; /* canceled because its joiner was: then ERR_CANCELED of a member is a failure */
    struct err_slot err; /* the text that belongs to first_err */
};

void co_group_init(struct co_group *g);

/* Starts fn(arg) on this loop, in the group; it first runs when the caller next suspends. Never
 * fails (see mem.h). name: a string that outlives the coroutine. A group that has been cancelled
 * still spawns; the newcomer is born cancelled. Result of fn: 0 or negative ERR_*. Does not
 * suspend. */
struct co *co_spawn(struct co_group *g, const char *name, int (*fn)(void *arg), void *arg);

/* As co_spawn without inheriting the caller's deadline: for services that outlive a request. */
struct co *co_spawn_detached_deadline(struct co_group *g, const char *name, int (*fn)(void *arg),
                                      void *arg);

/* Asks every member to stop; does not wait. Idempotent. */
void co_group_cancel(struct co_group *g);

/* Waits until the group is empty; returns first_err with its text (and forgets it).
 * Uninterruptible: cancel of the caller is passed on to the members, and if one of them then ends
 * with ERR_CANCELED, so does this: 0 means that all have done their work. A member may not join its
 * own group (asserted). */
co_fn int co_group_join(struct co_group *g);

/* Cancel, then join. */
co_fn int co_group_close(struct co_group *g);

/* Cancels one coroutine that is known to be alive (its group not joined). One that is on another
 * loop is not woken there; it sees the cancel at its next interruptible wait. */
void co_cancel(struct co *co);

/* True once the running coroutine was cancelled; false inside a shield. */
bool co_canceled(void);

/* ---- suspending ---- */

/* Lets other ready coroutines of the loop run. Returns 0 or ERR_CANCELED. */
co_fn int co_yield (void);

/* Sleeps until the clock reaches t, or shorter: ERR_TIMEOUT at the deadline, ERR_CANCELED. */
co_fn int co_sleep_until(nsec_t t);
co_fn int co_sleep(nsec_t span);

/* ---- deadlines ---- */

/* The running coroutine's deadline, NSEC_NEVER for none. */
nsec_t co_deadline(void);

/* Narrows the deadline to at most t; returns the former one for co_deadline_restore. */
nsec_t co_deadline_push(nsec_t t);
void co_deadline_restore(nsec_t former);

/* Leaves the deadline and cancellation behind for a section that must complete (PROTOCOL 3.2: a
 * write that was sent). A deadline that is pushed inside counts. Pair with co_shield_end. Nests. */
struct co_shield {
    nsec_t deadline;
};
void co_shield_begin(struct co_shield *s);
void co_shield_end(struct co_shield *s);

/* ---- the primitive below all others (for runtime code and sync.h) ---- */

/* One suspended coroutine waiting for one completion. Lives on its stack. */
struct co_wait {
    struct list link; /* free for the waker's queue; unlinked when the wait is over */
    struct co *co;    /* NULL: not waiting */
    int rc;
    bool done;
};

enum co_wait_kind { CO_INTERRUPTIBLE, CO_UNINTERRUPTIBLE };

void co_wait_init(struct co_wait *w);

/* Suspends until co_resume(w): returns its rc. Interruptible waits also end with ERR_TIMEOUT or
 * ERR_CANCELED (w is then unlinked from any queue and later resumes are ignored, so w's memory
 * must outlive its waker's knowledge of it: the waker finds it through the queue only). If
 * co_resume came first, returns at once without suspending. */
co_fn int co_suspend(struct co_wait *w, enum co_wait_kind kind);

/* Makes the waiter ready; same loop only. Callable from loop callbacks outside coroutines. */
void co_resume(struct co_wait *w, int rc);

/* From any thread: w must be an uninterruptible wait on `loop`. The fields of w may not be
 * touched by the caller afterwards. */
void co_resume_remote(struct co_loop *loop, struct co_wait *w, int rc);

/* ---- other loops ---- */

/* Moves the running coroutine to another loop and returns the one it was on; pairs like brackets:
 *     struct co_loop *home = co_enter(pool);
 *     rc = blocking_call();
 *     co_enter(home);
 * Uninterruptible. Locks of sync.h may not be held across (asserted for mutexes). Entering the
 * loop one is on costs nothing. */
co_fn struct co_loop *co_enter(struct co_loop *target);

/* Runs fn(arg) soon on another loop, outside any coroutine; from any thread. fn must not suspend.
 * Order between the same pair of loops is kept. */
void co_post(struct co_loop *target, void (*fn)(void *arg), void *arg);

/* A timer callback on this loop, outside any coroutine; must not suspend. Caller's memory. */
struct co_timer {
    nsec_t at;
    void (*fn)(struct co_timer *t);
    uint32_t heap_pos; /* 0: not armed */
};
void co_timer_init(struct co_timer *t, void (*fn)(struct co_timer *t));
void co_timer_arm(struct co_timer *t, nsec_t at); /* re-arms if armed */
void co_timer_disarm(struct co_timer *t);

#endif
