/* SPDX-License-Identifier: Apache-2.0
 *
 * Threads that take turns share a CPU: when one is bound and when it leaves, and that nothing of it
 * is left when the loops have ended. */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>
#include "common/base/err.h"
#include "common/env/env.h"
#include "common/env/env_real.h"
#include "common/env/real/real.h"
#include "tests/lib/rpcworld.h"

#define SHORT (5 * NSEC_PER_USEC)
#define LONG  (100 * NSEC_PER_USEC)

static cpu_set_t mask_now(void)
{
    cpu_set_t mask;

    CHECK(sched_getaffinity(0, sizeof(mask), &mask) == 0);
    return mask;
}

static bool only_on(int cpu)
{
    cpu_set_t mask = mask_now();

    return CPU_COUNT(&mask) == 1 && CPU_ISSET(cpu, &mask);
}

static bool anywhere(const cpu_set_t *all)
{
    cpu_set_t mask = mask_now();

    return CPU_EQUAL(&mask, all);
}

static int cpu_at(const cpu_set_t *mask, int nth)
{
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, mask) && nth-- == 0)
            return cpu;
    }
    return -1;
}

/* ---- one thread ---- */

static void a_thread_is_bound_and_let_go(void **state)
{
    cpu_set_t all = mask_now();
    int first = cpu_at(&all, 0), second = cpu_at(&all, 1);
    struct real_cpu c = {0};

    (void)state;
    if (second < 0)
        skip(); /* one CPU: nothing to choose */
    real_cpu_begin(&c);
    real_cpu_decide(&c, first, SHORT, 0);
    CHECK(c.bound == first && only_on(first));
    real_cpu_decide(&c, second, SHORT, 1);
    CHECK(c.bound == second && only_on(second));
    real_cpu_decide(&c, -1, SHORT, 2);
    CHECK(c.bound == -1 && anywhere(&all));

    real_cpu_decide(&c, first, LONG, 3); /* others want it */
    CHECK(c.bound == -1 && anywhere(&all));
    real_cpu_decide(&c, CPU_SETSIZE, SHORT, 4); /* a peer may say anything */
    CHECK(c.bound == -1 && anywhere(&all));
    real_cpu_decide(&c, first, SHORT, 5);
    CHECK(only_on(first));
    real_cpu_end(&c);
    CHECK(anywhere(&all));
}

static void who_had_to_leave_stays_away_for_longer_and_longer(void **state)
{
    cpu_set_t all = mask_now();
    struct real_cpu c = {0};
    nsec_t now = 0, away, former = 0;

    (void)state;
    if (CPU_COUNT(&all) == 1)
        skip(); /* as above */
    real_cpu_begin(&c);
    for (int i = 0; i < 6; i++) {
        int cpu = cpu_at(&all, 0);

        real_cpu_decide(&c, cpu, SHORT, now);
        CHECK(c.bound == cpu);
        real_cpu_decide(&c, cpu, LONG, ++now);
        CHECK(c.bound == -1 && anywhere(&all));
        for (away = 0; c.bound < 0; away += NSEC_PER_MSEC)
            real_cpu_decide(&c, cpu, SHORT, now + away);
        CHECK(away >= former && away <= 2 * NSEC_PER_SEC);
        former = away;
        now += away;
        real_cpu_decide(&c, -1, SHORT, now);
    }
    CHECK(former >= NSEC_PER_SEC);
    /* What went well for long is forgiven. */
    real_cpu_decide(&c, cpu_at(&all, 0), SHORT, now);
    real_cpu_decide(&c, cpu_at(&all, 0), LONG, now + 10 * NSEC_PER_SEC);
    CHECK(c.not_before - (now + 10 * NSEC_PER_SEC) < former / 2);
    real_cpu_end(&c);
}

/* ---- two loops ---- */

#define ROUNDS 20000

struct turns {
    struct net_listener *listener;
    struct co_loop *other;
};

static int other_side(void *arg)
{
    struct turns *t = arg;
    struct co_loop *home = co_enter(t->other);
    struct net_conn *c = NULL;
    char byte = 'x';

    CHECK(net_connect(t->listener->addr, &c) == 0 && net_share(c) == 0);
    for (int i = 0; i < ROUNDS; i++) {
        CHECK(net_writev_full(c, &(struct iovec){&byte, 1}, 1) == 0);
        CHECK(net_read_full(c, &byte, 1) == 0);
    }
    net_close(c);
    (void)co_enter(home);
    return 0;
}

static int main_turns(void *arg)
{
    char dir[] = "/tmp/zbs-cpu-XXXXXX", addr[64], byte;
    struct turns t = {0};
    struct net_conn *c = NULL;
    struct co_group g;

    (void)arg;
    CHECK(mkdtemp(dir) != NULL);
    snprintf(addr, sizeof(addr), "unix:%s/sock", dir);
    CHECK(net_listen(addr, &t.listener) == 0 && env_thread_start("other", &t.other) == 0);
    co_group_init(&g);
    co_spawn(&g, "other", other_side, &t);
    CHECK(net_accept(t.listener, &c) == 0 && net_share_take(c) == 0);
    for (int i = 0; i < ROUNDS; i++) {
        CHECK(net_read_full(c, &byte, 1) == 0 && byte == 'x');
        CHECK(net_writev_full(c, &(struct iovec){&byte, 1}, 1) == 0);
    }
    CHECK(co_group_join(&g) == 0);
    net_close(c);
    env_thread_stop(t.other);
    net_listener_close(t.listener);
    CHECK(rmdir(dir) == 0);
    return 0;
}

/* Whether they are bound depends on who else is on this machine. */
static void loops_that_take_turns_leave_nothing_behind(void **state)
{
    struct env_real_conf conf = {.name = "test_cpu"};
    cpu_set_t all = mask_now();

    (void)state;
    CHECK(env_real_run(&conf, main_turns, NULL) == 0);
    CHECK(anywhere(&all));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_thread_is_bound_and_let_go),
        cmocka_unit_test(who_had_to_leave_stays_away_for_longer_and_longer),
        cmocka_unit_test(loops_that_take_turns_leave_nothing_behind),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
