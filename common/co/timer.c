/* SPDX-License-Identifier: Apache-2.0
 *
 * Timers of a loop, and sleeping. */
#include "common/base/assert.h"
#include "common/co/co_impl.h"

nsec_t co_now(void)
{
    struct co_loop *loop = co_loop();

    ASSERTF(loop != NULL, "the clock belongs to a loop");
    return loop->ops->now(loop);
}

void co_timer_init(struct co_timer *t, void (*fn)(struct co_timer *t))
{
    t->at = NSEC_NEVER;
    t->fn = fn;
    t->heap_pos = 0;
}

void co_timer_arm(struct co_timer *t, nsec_t at)
{
    struct co_loop *loop = co_loop();

    ASSERTF(loop != NULL, "a timer belongs to a loop");
    heap_remove(&loop->timers, &t->heap_pos);
    t->at = at;
    heap_push(&loop->timers, at, &t->heap_pos);
    if (!loop->running && loop->ops->kick != NULL)
        loop->ops->kick(loop); /* the driver may have computed its wait already */
}

void co_timer_disarm(struct co_timer *t)
{
    struct co_loop *loop;

    if (t->heap_pos == 0)
        return;
    loop = co_loop();
    ASSERTF(loop != NULL, "a timer belongs to a loop");
    heap_remove(&loop->timers, &t->heap_pos); /* asserts that it is this loop's */
}

struct sleeper {
    struct co_timer timer;
    struct co_wait wait;
};

static void sleeper_fire(struct co_timer *t)
{
    co_resume(&CONTAINER_OF(t, struct sleeper, timer)->wait, 0);
}

int co_sleep_until(nsec_t t)
{
    struct sleeper s;
    int rc;

    co_wait_init(&s.wait);
    if (t > co_deadline()) /* the deadline comes first */
        return co_suspend(&s.wait, CO_INTERRUPTIBLE);
    co_timer_init(&s.timer, sleeper_fire);
    co_timer_arm(&s.timer, t);
    rc = co_suspend_by(&s.wait, CO_BY_CANCEL);
    co_timer_disarm(&s.timer);
    return rc;
}

int co_sleep(nsec_t span)
{
    nsec_t now = co_now();

    return co_sleep_until(span < NSEC_NEVER - now ? now + span : NSEC_NEVER);
}
