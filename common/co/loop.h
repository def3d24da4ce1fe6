/* SPDX-License-Identifier: Apache-2.0
 *
 * What a driver (common/env: libev thread, or the simulator) needs of a loop. Product code uses
 * co.h only. */
#ifndef ZBS_CO_LOOP_H
#define ZBS_CO_LOOP_H

#include "common/co/co.h"

struct co_loop_ops {
    /* The clock. */
    nsec_t (*now)(struct co_loop *loop);
    /* From any thread: have co_loop_run called soon. Idempotent. */
    void (*wakeup)(struct co_loop *loop);
    /* Same thread: a coroutine became ready while the loop was not running coroutines (from a
     * driver callback); the driver must call co_loop_run before it waits again. May be NULL. */
    void (*kick)(struct co_loop *loop);
    /* Seeded scheduling: which of the n ready coroutines runs next, 0..n-1; NULL: first come,
     * first served. */
    uint32_t (*pick)(struct co_loop *loop, uint32_t n);
};

struct env;

/* driver: for the ops' use, see co_loop_driver. env: what common/env/env.h's functions use. */
struct co_loop *co_loop_new(const char *name, const struct co_loop_ops *ops, void *driver,
                            struct env *env);

/* Frees the loop; no coroutine may be left (asserted) unless discard is true: then stacks of
 * suspended coroutines are released as they are, without running them (a simulated crash). */
void co_loop_free(struct co_loop *loop, bool discard);

void *co_loop_driver(struct co_loop *loop);
struct env *co_loop_env(struct co_loop *loop);
const char *co_loop_name(struct co_loop *loop);

/* Runs due timers, posted messages and ready coroutines until none is ready or `budget`
 * resumptions were made (0: no bound). Called on the loop's thread, outside coroutines. Returns
 * true if more is ready. Sets co_loop() while it runs. */
bool co_loop_run(struct co_loop *loop, uint32_t budget);

/* Makes co_loop() this loop on the calling thread outside co_loop_run, so that a driver's
 * callbacks may arm timers, initialise groups and spawn; NULL undoes it. Outside coroutines.
 * Returns the former one. */
struct co_loop *co_loop_bind(struct co_loop *loop);

/* When the earliest timer is due, NSEC_NEVER for none. */
nsec_t co_loop_next_timer(struct co_loop *loop);
bool co_loop_ready(struct co_loop *loop); /* ready coroutines or posted messages exist */

/* Starts a top-level coroutine outside any group (the main function of a thread or process);
 * done(arg, rc) is called on the loop when it ends. Callable on the loop's thread outside
 * coroutines. */
void co_loop_start(struct co_loop *loop, const char *name, int (*fn)(void *arg), void *arg,
                   void (*done)(void *arg, int rc));

/* Coroutines on this loop, and the longest time the loop was held since the last call: measured
 * over batches of at most 16 resumptions, so it is an upper bound of the slowest one. */
uint32_t co_loop_count(struct co_loop *loop);
nsec_t co_loop_longest_stall(struct co_loop *loop);

/* For a watchdog, from any thread or signal handler: the look at the clock with which the present
 * batch of resumptions began, 0 while co_loop_run is not running. */
nsec_t co_loop_held_since(const struct co_loop *loop);

/* Where a coroutine's stack ends: its frames lie below, within CO_STACK_BYTES_DEFAULT. */
const void *co_stack_end(const struct co *co);

/* Stack use census of this loop's pool: deepest use seen in bytes (debug builds paint stacks; 0
 * where they do not). */
size_t co_loop_stack_high_water(struct co_loop *loop);

#endif
