/* SPDX-License-Identifier: Apache-2.0
 *
 * The watchdog of the real environment: whoever holds a loop for too long is named in the log. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>
#include "common/base/assert.h"
#include "common/base/log.h"
#include "common/base/symbol.h"
#include "common/env/env.h"
#include "common/env/env_real.h"

#define HOLD    (50 * NSEC_PER_MSEC)
#define TRIES   200 /* of HOLD each: the watchdog may get no processor for a while */
#define EXPECTS 2

static struct {
    const char *expect[EXPECTS];
    bool seen;
    char line[2048];
} sink;

static void on_line(void *arg, enum log_level level, const char *line)
{
    (void)arg;
    (void)level;
    if (strstr(line, "loop.stall") == NULL)
        return;
    snprintf(sink.line, sizeof(sink.line), "%s", line);
    for (int i = 0; i < EXPECTS; i++) {
        if (strstr(line, sink.expect[i]) == NULL)
            return;
    }
    sink.seen = true;
}

/* ---- somebody who computes ---- */

static volatile uint64_t waste;

static NOINLINE void computes_too_long(nsec_t until)
{
    while (co_now() < until) {
        for (int i = 0; i < 1000; i++)
            waste += (uint64_t)i;
    }
    waste++;
}

static NOINLINE int calls_who_computes(void)
{
    computes_too_long(co_now() + HOLD);
    waste++; /* no tail call */
    return 0;
}

/* ---- somebody who blocks in a library ---- */

static NOINLINE void blocks_in_a_library(void)
{
    struct timespec left = {.tv_nsec = HOLD};

    while (nanosleep(&left, &left) < 0)
        ASSERT(errno == EINTR);
    waste++;
}

static int (*body)(void);

static int blocks(void)
{
    blocks_in_a_library();
    waste++;
    return 0;
}

static co_fn int stall_until_seen(void *arg)
{
    (void)arg;
    for (int i = 0; i < TRIES && !sink.seen; i++) {
        ASSERT(body() == 0);
        co_sleep(NSEC_PER_MSEC);
    }
    return 0;
}

static co_fn int in_a_coroutine(void *arg)
{
    struct co_group g;

    (void)arg;
    co_group_init(&g);
    co_spawn(&g, "sluggard", stall_until_seen, NULL);
    return co_group_join(&g);
}

static co_fn int on_another_thread(void *arg)
{
    struct co_loop *home = co_loop(), *there = NULL;
    int rc = env_thread_start("other", &there);

    ASSERT(rc == 0);
    co_enter(there);
    rc = stall_until_seen(arg);
    co_enter(home);
    env_thread_stop(there);
    return rc;
}

static void expect_report(co_fn int (*main_fn)(void *), int (*what)(void), const char *function,
                          const char *field)
{
    struct env_real_conf conf = {.name = "test"};

    memset(&sink, 0, sizeof(sink));
    sink.expect[0] = function;
    sink.expect[1] = field;
    body = what;
    log_set_sink(on_line, NULL);
    assert_int_equal(env_real_run(&conf, main_fn, NULL), 0);
    log_set_sink(NULL, NULL);
    if (!sink.seen)
        fail_msg("last report: %s", sink.line);
}

static void busy_coroutine_is_named(void **state)
{
    (void)state;
    expect_report(in_a_coroutine, calls_who_computes, "computes_too_long+0x", "coroutine=sluggard");
    assert_non_null(strstr(sink.line, " < calls_who_computes+0x"));
    assert_non_null(strstr(sink.line, " < stall_until_seen+0x"));
    assert_non_null(strstr(sink.line, " < co_main+0x"));
}

static void caller_of_a_blocking_library_is_named(void **state)
{
    (void)state;
    expect_report(in_a_coroutine, blocks, "blocks_in_a_library+0x", "coroutine=sluggard");
    assert_non_null(strstr(sink.line, " < blocks+0x"));
}

static void other_threads_are_watched(void **state)
{
    (void)state;
    expect_report(on_another_thread, calls_who_computes, "computes_too_long+0x", "loop=other");
}

static void addresses_get_names(void **state)
{
    char name[128], program[64];

    (void)state;
    symbol_format((const char *)(uintptr_t)blocks + 2, name, sizeof(name));
    assert_string_equal(name, "blocks+0x2");
    symbol_format((const void *)(uintptr_t)nanosleep, name, sizeof(name));
    assert_non_null(strstr(name, "nanosleep"));
    symbol_format((const void *)(uintptr_t)1, name, sizeof(name));
    assert_string_equal(name, "0x1");
    symbol_format((const void *)(uintptr_t)blocks, program, 4); /* cut, not overrun */
    assert_string_equal(program, "blo");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_get_names),
        cmocka_unit_test(busy_coroutine_is_named),
        cmocka_unit_test(caller_of_a_blocking_library_is_named),
        cmocka_unit_test(other_threads_are_watched),
    };

    return cmocka_run_group_tests_name("watch", tests, NULL, NULL);
}
