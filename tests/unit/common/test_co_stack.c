/* SPDX-License-Identifier: Apache-2.0
 *
 * Stacks: many coroutines, overflow, simulated crashes, nested loops. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include "tests/unit/common/co_driver.h"
#include "common/base/mem.h"
#include "common/co/sync.h"

static int count_one(void *arg)
{
    ++*(uint32_t *)arg;
    return 0;
}

static int many_main(void *arg)
{
    struct co_group g;

    co_group_init(&g);
    for (uint32_t round = 0; round < 100; round++) {
        for (uint32_t i = 0; i < 1000; i++)
            co_spawn(&g, "one", count_one, arg);
        assert_int_equal(co_group_join(&g), 0);
    }
    return 0;
}

static void a_hundred_thousand_coroutines_come_and_go(void **state)
{
    uint32_t count = 0;

    (void)state;
    assert_int_equal(driver_run(many_main, &count), 0);
    assert_int_equal(count, 100000);
}

static NOINLINE uint32_t dig(volatile uint32_t depth)
{
    volatile uint8_t frame[1000];

    frame[0] = (uint8_t)depth;
    return depth == 0 ? frame[0] : dig(depth - 1) + frame[0];
}

static int dig_deep(void *arg)
{
    (void)dig((uint32_t)(uintptr_t)arg);
    return 0;
}

static void overflow_is_explained(void **state)
{
    char text[16384];
    size_t len = 0;
    ssize_t n;
    int fds[2], status;
    pid_t pid;

    (void)state;
    assert_int_equal(pipe(fds), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)dup2(fds[1], STDERR_FILENO);
        /* A fresh process: the test library has its own handlers in this one. */
        (void)execl("/proc/self/exe", "test_co_stack", "overflow", (char *)NULL);
        _exit(1);
    }
    (void)close(fds[1]);
    while (len < sizeof(text) - 1 && (n = read(fds[0], text + len, sizeof(text) - 1 - len)) > 0)
        len += (size_t)n;
    text[len] = '\0';
    (void)close(fds[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    assert_non_null(strstr(text, "stack overflow in coroutine main, loop test"));
}

static void deep_but_allowed(void **state)
{
    struct driver_main m = {.fn = dig_deep, .arg = (void *)50};
    struct driver d;
    size_t used;

    (void)state;
    driver_init(&d, "deep");
    co_loop_start(d.loop, "main", driver_main_fn, &m, driver_main_done);
    driver_drain(&d);
    used = co_loop_stack_high_water(d.loop);
    assert_true(used == 0 || (used > 50000 && used < CO_STACK_BYTES_DEFAULT));
    co_loop_free(d.loop, false);
}

/* ---- simulated crashes: loops are freed with whatever is on them ---- */

struct proc {
    struct mem_heap *heap;
    struct driver a, b;
};

static int hold_memory_and_wait(void *arg)
{
    char *text = mem_printf("%p", arg);
    struct co_wait w;

    co_wait_init(&w);
    (void)co_suspend(&w, CO_INTERRUPTIBLE);
    mem_free(text);
    return 0;
}

static int sleep_with_deadline(void *arg)
{
    (void)arg;
    (void)co_deadline_push(co_now() + NSEC_PER_SEC);
    return co_sleep(10 * NSEC_PER_SEC);
}

static int go_away(void *arg)
{
    struct proc *p = arg;

    (void)co_enter(p->b.loop);
    (void)co_sleep(NSEC_PER_SEC);
    return 0;
}

static int proc_main(void *arg)
{
    struct co_group *g = MEM_NEW(struct co_group);

    co_group_init(g);
    for (int i = 0; i < 5; i++) {
        co_spawn(g, "holder", hold_memory_and_wait, g);
        co_spawn(g, "sleeper", sleep_with_deadline, NULL);
        co_spawn(g, "traveller", go_away, arg);
    }
    return co_group_join(g);
}

static void nothing(void *arg)
{
    (void)arg;
}

static void crash_releases_everything(void **state)
{
    (void)state;
    for (uint32_t rounds = 0; rounds < 20; rounds++) {
        struct driver_main m = {.fn = proc_main};
        struct proc p;

        p.heap = mem_heap_new();
        driver_init(&p.a, "a");
        driver_init(&p.b, "b");
        m.arg = &p;
        co_loop_start(p.a.loop, "main", driver_main_fn, &m, driver_main_done);
        /* Cut at a different point each time: newborn, waiting, on the way, arrived. */
        for (uint32_t i = 0; i < rounds; i++) {
            (void)mem_heap_set(p.heap);
            (void)co_loop_run(p.a.loop, 1);
            if (i > 10)
                (void)co_loop_run(p.b.loop, 1);
            (void)mem_heap_set(NULL);
        }
        co_post(p.b.loop, nothing, NULL);
        assert_false(m.ended);
        mem_heap_destroy(p.heap);
        co_loop_free(p.a.loop, true);
        co_loop_free(p.b.loop, true);
    }
}

/* ---- a loop that is run by a coroutine of another one ---- */

static int run_inner(void *arg)
{
    struct co *self = co_self();
    struct co_loop *outer = co_loop();

    assert_int_equal(driver_run(many_main, arg), 0);
    assert_ptr_equal(co_self(), self);
    assert_ptr_equal(co_loop(), outer);
    return co_yield ();
}

static void loops_nest(void **state)
{
    uint32_t count = 0;

    (void)state;
    assert_int_equal(driver_run(run_inner, &count), 0);
    assert_int_equal(count, 100000);
}

/* Many at once: each keeps its own frame. */
static int remember(void *arg)
{
    uintptr_t mine = (uintptr_t)arg;
    volatile uintptr_t copy = mine * 3;

    for (int i = 0; i < 5; i++) {
        assert_int_equal(co_yield (), 0);
        assert_int_equal(copy, mine * 3);
    }
    return 0;
}

static int crowd_main(void *arg)
{
    struct co_group g;

    (void)arg;
    co_group_init(&g);
    for (uintptr_t i = 0; i < 5000; i++)
        co_spawn(&g, "one of many", remember, (void *)i);
    return co_group_join(&g);
}

static void thousands_at_once_keep_their_frames(void **state)
{
    (void)state;
    assert_int_equal(driver_run(crowd_main, NULL), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_hundred_thousand_coroutines_come_and_go),
        cmocka_unit_test(overflow_is_explained),
        cmocka_unit_test(deep_but_allowed),
        cmocka_unit_test(crash_releases_everything),
        cmocka_unit_test(loops_nest),
        cmocka_unit_test(thousands_at_once_keep_their_frames),
    };

    (void)argv;
    if (argc > 1)
        return driver_run(dig_deep, (void *)1000000);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
