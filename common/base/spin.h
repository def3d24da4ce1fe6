/* SPDX-License-Identifier: Apache-2.0
 *
 * A lock for a handful of instructions on data that threads share. Yields the CPU when it has to
 * wait long, because the holder may have been preempted. Never held across a suspension. */
#ifndef ZBS_BASE_SPIN_H
#define ZBS_BASE_SPIN_H

#include <sched.h>
#include <stdatomic.h>
#include "common/base/attr.h"

struct spin {
    atomic_flag busy;
};

#define SPIN_INIT                                                                                  \
    {                                                                                              \
        ATOMIC_FLAG_INIT                                                                           \
    }

static inline void spin_lock(struct spin *s)
{
    for (unsigned turn = 1; atomic_flag_test_and_set_explicit(&s->busy, memory_order_acquire);
         turn++)
        if (turn % 64 == 0)
            (void)sched_yield();
}

static inline void spin_unlock(struct spin *s)
{
    atomic_flag_clear_explicit(&s->busy, memory_order_release);
}

#endif
