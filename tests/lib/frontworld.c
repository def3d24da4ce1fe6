/* SPDX-License-Identifier: Apache-2.0
 *
 * See frontworld.h. */
#include "tests/lib/frontworld.h"

#include "common/base/assert.h"
#include "common/env/sim.h"

static bool is_over(void *arg)
{
    return !sim_proc_running(arg);
}

void frontworld_run(uint64_t seed, int (*body)(void *arg), void *arg)
{
    struct sim_conf conf = {.seed = seed != 0 ? seed : 1};
    struct sim *s = sim_new(&conf);
    struct sim_proc *p = sim_proc_new(s, FRONT_HOST, "access");
    bool ended;

    sim_proc_start(p, body, arg);
    ended = sim_run_until(s, is_over, p, 3600 * NSEC_PER_SEC);
    ASSERTF(ended, "the body did not end within an hour");
    ASSERT(sim_proc_halted(p) == NULL && sim_proc_result(p) == 0);
    sim_free(s);
}
