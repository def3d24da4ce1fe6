/* SPDX-License-Identifier: Apache-2.0
 *
 * A tiny driver for tests of common/co: virtual time that moves to the next timer whenever
 * nothing is ready. */
#ifndef ZBS_TESTS_CO_DRIVER_H
#define ZBS_TESTS_CO_DRIVER_H

#include <stdarg.h>
#include <setjmp.h>
#include <string.h>
#include <cmocka.h>
#include "common/co/co.h"
#include "common/co/loop.h"

struct driver {
    struct co_loop *loop;
    nsec_t now;
    uint32_t kicks, wakeups;
    bool last_first; /* pick the newest ready coroutine */
};

static inline nsec_t driver_now(struct co_loop *loop)
{
    return ((struct driver *)co_loop_driver(loop))->now;
}

static inline void driver_wakeup(struct co_loop *loop)
{
    ((struct driver *)co_loop_driver(loop))->wakeups++;
}

static inline void driver_kick(struct co_loop *loop)
{
    ((struct driver *)co_loop_driver(loop))->kicks++;
}

static inline uint32_t driver_pick(struct co_loop *loop, uint32_t n)
{
    return ((struct driver *)co_loop_driver(loop))->last_first ? n - 1 : 0;
}

static inline void driver_init(struct driver *d, const char *name)
{
    static const struct co_loop_ops ops = {
        .now = driver_now,
        .wakeup = driver_wakeup,
        .kick = driver_kick,
        .pick = driver_pick,
    };

    memset(d, 0, sizeof(*d));
    d->now = 1000;
    d->loop = co_loop_new(name, &ops, d, NULL);
}

/* Runs everything that can happen, moving time from timer to timer. */
static inline void driver_drain(struct driver *d)
{
    for (;;) {
        nsec_t next;

        while (co_loop_run(d->loop, 0))
            ;
        next = co_loop_next_timer(d->loop);
        if (next == NSEC_NEVER)
            break;
        d->now = MAX(d->now, next);
    }
}

struct driver_main {
    bool ended;
    int rc;
    int (*fn)(void *arg);
    void *arg;
};

static inline int driver_main_fn(void *arg)
{
    struct driver_main *m = arg;

    return m->fn(m->arg);
}

static inline void driver_main_done(void *arg, int rc)
{
    struct driver_main *m = arg;

    m->ended = true;
    m->rc = rc;
}

/* Runs fn(arg) as the main coroutine of a fresh loop until it ends; returns its result. */
static inline int driver_run(int (*fn)(void *arg), void *arg)
{
    struct driver_main m = {.fn = fn, .arg = arg};
    struct driver d;

    driver_init(&d, "test");
    co_loop_start(d.loop, "main", driver_main_fn, &m, driver_main_done);
    driver_drain(&d);
    assert_true(m.ended);
    assert_int_equal(co_loop_count(d.loop), 0);
    co_loop_free(d.loop, false);
    return m.rc;
}

#endif
