/* SPDX-License-Identifier: Apache-2.0
 *
 * Coroutines in known states on two loops, then abort(): what the gdb commands are tested with. */
#include <stdlib.h>
#include "common/base/assert.h"
#include "common/co/sync.h"
#include "common/env/env.h"
#include "common/env/env_real.h"

static struct co_mutex mutex;
static struct co_group group;
static volatile int kept; /* no call below is the last act of its caller */

static NOINLINE co_fn int wait_in_the_inner(void)
{
    struct co_cond never;
    int rc;

    co_cond_init(&never);
    rc = co_cond_wait(&never);
    kept++;
    return rc;
}

static NOINLINE co_fn int wait_in_the_outer(void)
{
    int rc = wait_in_the_inner();

    kept++;
    return rc;
}

static co_fn int patient(void *arg)
{
    (void)arg;
    co_deadline_push(co_now() + 1000 * NSEC_PER_SEC);
    kept += wait_in_the_outer();
    return 0;
}

static co_fn int stubborn(void *arg)
{
    (void)arg;
    co_mutex_lock_always(&mutex);
    kept++;
    return 0;
}

static co_fn int guest(void *arg)
{
    co_enter(arg);
    kept += wait_in_the_outer();
    return 0;
}

static co_fn int late(void *arg)
{
    (void)arg;
    return 0;
}

static co_fn int program(void *arg)
{
    struct co_loop *home = co_loop(), *other;

    (void)arg;
    ASSERT(env_thread_start("other", &other) == 0);
    co_group_init(&group);
    co_spawn(&group, "guest", guest, other);
    ASSERT(co_yield () == 0);
    co_enter(other); /* behind the guest, so that it waits when we are back */
    co_enter(home);
    co_mutex_init(&mutex);
    co_mutex_lock_always(&mutex);
    co_spawn(&group, "patient", patient, NULL);
    co_cancel(co_spawn(&group, "stubborn", stubborn, NULL));
    ASSERT(co_yield () == 0);
    co_spawn(&group, "late", late, NULL); /* ready, and will never run */
    abort();
}

int main(void)
{
    struct env_real_conf conf = {.name = "sleepers"};

    return env_real_run(&conf, program, NULL);
}
