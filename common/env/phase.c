/* SPDX-License-Identifier: Apache-2.0
 *
 * Counters of what a process is in the middle of: see phase.h. */
#include "common/env/phase.h"

#include "common/co/loop.h"
#include "common/env/env_ops.h"

static const char *const names[PHASES] = {
#define X(name, text) [PHASE_##name] = text,
    PHASE_LIST(X)
#undef X
};

const char *phase_name(enum phase p)
{
    return names[p];
}

#ifdef ZBS_MUTATE
/* The loops of a process may be threads. */
void phase_enter(enum phase p)
{
    (void)__atomic_add_fetch(&co_loop_env(co_loop())->phases[p], 1, __ATOMIC_RELAXED);
}

void phase_leave(enum phase p)
{
    (void)__atomic_sub_fetch(&co_loop_env(co_loop())->phases[p], 1, __ATOMIC_RELAXED);
}
#endif
