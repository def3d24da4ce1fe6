/* SPDX-License-Identifier: Apache-2.0
 *
 * For the tests of the simulator itself: assertions that work in coroutines (cmocka's jump out of
 * the stack they are on), and one process that runs one function. */
#ifndef ZBS_TESTS_SIM_FIXTURE_H
#define ZBS_TESTS_SIM_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/coord/coord.h"
#include "common/env/env.h"
#include "common/env/sim.h"
#include "common/kv/kv.h"

#define CHECK(x) ASSERTF(x, "seen here")
#define MSEC(n)  ((n)*NSEC_PER_MSEC)
#define SEC(n)   ((n)*NSEC_PER_SEC)

#define HOST_A "127.1.0.1"
#define HOST_B "127.1.0.2"

static inline struct sim *world_new(uint64_t seed)
{
    struct sim_conf conf = {.seed = seed};

    return sim_new(&conf);
}

static inline bool proc_is_over(void *arg)
{
    return !sim_proc_running(arg);
}

/* Runs main_fn to its end; returns its result. */
static inline int proc_run(struct sim *s, struct sim_proc *p, int (*main_fn)(void *), void *arg)
{
    sim_proc_start(p, main_fn, arg);
    assert_true(sim_run_until(s, proc_is_over, p, SEC(1000)));
    assert_null(sim_proc_halted(p));
    return sim_proc_result(p);
}

#endif
