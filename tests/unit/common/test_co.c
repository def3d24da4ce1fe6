/* SPDX-License-Identifier: Apache-2.0
 *
 * Coroutines: order, groups, cancellation, deadlines, shields, sleeping. */
#include "tests/unit/common/co_driver.h"

static char trail[256];

static void step(const char *what)
{
    strncat(trail, what, sizeof(trail) - strlen(trail) - 1);
}

static int reset_trail(void **state)
{
    (void)state;
    trail[0] = '\0';
    return 0;
}

static int say_twice(void *arg)
{
    step(arg);
    assert_int_equal(co_yield (), 0);
    step(arg);
    return 0;
}

static int order_main(void *arg)
{
    struct co_group g;

    (void)arg;
    co_group_init(&g);
    co_spawn(&g, "a", say_twice, (void *)"a");
    co_spawn(&g, "b", say_twice, (void *)"b");
    co_spawn(&g, "c", say_twice, (void *)"c");
    step("|");
    return co_group_join(&g);
}

static void ready_coroutines_run_first_come_first_served(void **state)
{
    (void)state;
    assert_int_equal(driver_run(order_main, NULL), 0);
    assert_string_equal(trail, "|abcabc");
}

static void pick_chooses_the_next_coroutine(void **state)
{
    struct driver_main m = {.fn = order_main};
    struct driver d;

    (void)state;
    driver_init(&d, "picked");
    d.last_first = true;
    co_loop_start(d.loop, "main", driver_main_fn, &m, driver_main_done);
    assert_true(d.kicks > 0);
    driver_drain(&d);
    assert_true(m.ended);
    /* The newest runs until it ends, then the one before it. */
    assert_string_equal(trail, "|ccbbaa");
    co_loop_free(d.loop, false);
}

static int sleep_then_say(void *arg)
{
    const char *what = arg;

    assert_int_equal(co_sleep((what[0] - 'a' + 1) * NSEC_PER_MSEC), 0);
    step(what);
    return 0;
}

static int sleep_main(void *arg)
{
    struct co_group g;
    nsec_t begin = co_now();

    (void)arg;
    co_group_init(&g);
    co_spawn(&g, "c", sleep_then_say, (void *)"c");
    co_spawn(&g, "a", sleep_then_say, (void *)"a");
    co_spawn(&g, "b", sleep_then_say, (void *)"b");
    assert_int_equal(co_group_join(&g), 0);
    assert_int_equal(co_now() - begin, 3 * NSEC_PER_MSEC);
    assert_int_equal(co_sleep_until(begin), 0);
    assert_int_equal(co_now() - begin, 3 * NSEC_PER_MSEC);
    return 0;
}

static void sleepers_wake_in_order_of_time(void **state)
{
    (void)state;
    assert_int_equal(driver_run(sleep_main, NULL), 0);
    assert_string_equal(trail, "abc");
}

static int wait_forever(void *arg)
{
    struct co_wait w;

    (void)arg;
    co_wait_init(&w);
    return co_suspend(&w, CO_INTERRUPTIBLE);
}

static int cancel_main(void *arg)
{
    struct co_group g;

    (void)arg;
    co_group_init(&g);
    co_spawn(&g, "waiter", wait_forever, NULL);
    co_spawn(&g, "waiter", wait_forever, NULL);
    assert_int_equal(co_yield (), 0);
    co_group_cancel(&g);
    co_spawn(&g, "born cancelled", wait_forever, NULL);
    assert_int_equal(co_group_close(&g), 0); /* ERR_CANCELED after a cancel is no failure */
    assert_int_equal(g.count, 0);
    return 0;
}

static void cancelled_group_ends_all_waits_for_good(void **state)
{
    (void)state;
    assert_int_equal(driver_run(cancel_main, NULL), 0);
}

static int cancelled_twice(void *arg)
{
    (void)arg;
    assert_int_equal(wait_forever(NULL), ERR_CANCELED);
    assert_string_equal(err_text(ERR_CANCELED), "canceled");
    assert_true(co_canceled());
    assert_int_equal(wait_forever(NULL), ERR_CANCELED);
    assert_int_equal(co_yield (), ERR_CANCELED);
    assert_int_equal(co_sleep(1), ERR_CANCELED);
    return err_set(ERR_IO, "clean-up of %d failed", 7);
}

static int first_error_main(void *arg)
{
    struct co_group g;
    struct co *co;

    (void)arg;
    co_group_init(&g);
    co = co_spawn(&g, "cancelled", cancelled_twice, NULL);
    assert_string_equal(co_name(co), "cancelled");
    assert_int_equal(co_yield (), 0);
    co_cancel(co);
    co_cancel(co);
    assert_int_equal(co_group_join(&g), ERR_IO);
    assert_string_equal(err_text(ERR_IO), "clean-up of 7 failed");
    assert_int_equal(co_group_join(&g), 0);
    return 0;
}

static void join_returns_the_first_error_with_its_text(void **state)
{
    (void)state;
    assert_int_equal(driver_run(first_error_main, NULL), 0);
}

static int join_and_report(void *arg)
{
    struct co_group inner;

    (void)arg;
    co_group_init(&inner);
    co_spawn(&inner, "inner", cancelled_twice, NULL);
    assert_int_equal(co_group_join(&inner), ERR_IO);
    assert_true(inner.canceled);
    return 0;
}

static int join_and_tell(void *arg)
{
    struct co_group inner;
    int *rc = arg;

    co_group_init(&inner);
    co_spawn(&inner, "inner", wait_forever, NULL);
    *rc = co_group_join(&inner);
    return 0;
}

static int pass_cancel_main(void *arg)
{
    struct co_group g;
    int rc = 0;

    (void)arg;
    co_group_init(&g);
    co_spawn(&g, "outer", join_and_report, NULL);
    co_spawn(&g, "outer", join_and_tell, &rc);
    assert_int_equal(co_sleep(5), 0);
    assert_int_equal(co_group_close(&g), 0);
    assert_int_equal(rc, ERR_CANCELED); /* the work was not done */
    return 0;
}

static void join_passes_a_cancel_on_to_the_members(void **state)
{
    (void)state;
    assert_int_equal(driver_run(pass_cancel_main, NULL), 0);
}

static int deadline_child(void *arg)
{
    nsec_t *expected = arg;

    assert_int_equal(co_deadline(), *expected);
    assert_int_equal(wait_forever(NULL), ERR_TIMEOUT);
    assert_int_equal(co_now(), *expected);
    assert_int_equal(wait_forever(NULL), ERR_TIMEOUT); /* at once */
    assert_int_equal(co_sleep(50), ERR_TIMEOUT);
    assert_string_equal(err_text(ERR_TIMEOUT), "deadline passed");
    return 0;
}

static int no_deadline_child(void *arg)
{
    (void)arg;
    assert_true(co_deadline() == NSEC_NEVER);
    assert_int_equal(co_sleep(NSEC_PER_SEC), 0);
    return 0;
}

static int deadline_main(void *arg)
{
    nsec_t begin = co_now(), at = begin + 100, former;
    struct co_group g;

    (void)arg;
    co_group_init(&g);
    former = co_deadline_push(at);
    assert_true(former == NSEC_NEVER);
    assert_true(co_deadline_push(at + 5) == at); /* only narrows */
    co_spawn(&g, "inherits", deadline_child, &at);
    co_spawn_detached_deadline(&g, "service", no_deadline_child, NULL);
    assert_int_equal(co_sleep(40), 0);
    assert_int_equal(co_sleep(400), ERR_TIMEOUT);
    assert_int_equal(co_now(), at);
    co_deadline_restore(former);
    assert_int_equal(co_sleep(400), 0);
    assert_int_equal(co_now(), at + 400);
    /* A timer left armed for an earlier deadline does not end a later one. */
    former = co_deadline_push(co_now() + 10);
    assert_int_equal(co_sleep(5), 0);
    co_deadline_restore(former);
    at = co_now() + 1000;
    former = co_deadline_push(at);
    assert_int_equal(wait_forever(NULL), ERR_TIMEOUT);
    assert_int_equal(co_now(), at);
    co_deadline_restore(former);
    return co_group_join(&g);
}

static void deadline_bounds_waits_and_is_inherited(void **state)
{
    (void)state;
    assert_int_equal(driver_run(deadline_main, NULL), 0);
}

static int shielded(void *arg)
{
    struct co_shield outer, inner;
    nsec_t begin = co_now();

    (void)arg;
    (void)co_deadline_push(begin + 10);
    co_shield_begin(&outer);
    co_shield_begin(&inner);
    assert_int_equal(co_sleep(100), 0);
    co_shield_end(&inner);
    assert_false(co_canceled());
    assert_int_equal(co_sleep(100), 0);
    co_shield_end(&outer);
    assert_int_equal(co_now(), begin + 200);
    assert_true(co_canceled());
    assert_true(co_deadline() == begin + 10);
    assert_int_equal(co_sleep(1), ERR_CANCELED);
    return 0;
}

/* A section that must complete may still give each of its steps a time. */
static int shield_deadline_main(void *arg)
{
    struct co_shield s;
    struct co_wait w;
    nsec_t former;

    (void)arg;
    co_cancel(co_self());
    co_shield_begin(&s);
    former = co_deadline_push(co_now() + 5 * NSEC_PER_MSEC);
    co_wait_init(&w);
    assert_int_equal(co_suspend(&w, CO_INTERRUPTIBLE), ERR_TIMEOUT);
    co_deadline_restore(former);
    assert_int_equal(co_sleep(NSEC_PER_MSEC), 0);
    co_shield_end(&s);
    assert_int_equal(co_sleep(NSEC_PER_MSEC), ERR_CANCELED);
    return 0;
}

static void a_deadline_inside_a_shield_counts(void **state)
{
    (void)state;
    assert_int_equal(driver_run(shield_deadline_main, NULL), 0);
}

static int shield_main(void *arg)
{
    struct co_group g;

    (void)arg;
    co_group_init(&g);
    co_spawn(&g, "shielded", shielded, NULL);
    assert_int_equal(co_sleep(50), 0);
    return co_group_close(&g);
}

static void shield_leaves_deadline_and_cancel_behind(void **state)
{
    (void)state;
    assert_int_equal(driver_run(shield_main, NULL), 0);
}

static int resumed_before(void *arg)
{
    struct co_wait w;

    (void)arg;
    co_wait_init(&w);
    co_resume(&w, ERR_BUSY);
    co_resume(&w, ERR_IO); /* ignored */
    assert_int_equal(co_suspend(&w, CO_INTERRUPTIBLE), ERR_BUSY);
    return 0;
}

static void wait_that_is_over_does_not_suspend(void **state)
{
    (void)state;
    assert_int_equal(driver_run(resumed_before, NULL), 0);
}

static struct co_wait outside_wait;

static int wait_outside(void *arg)
{
    (void)arg;
    co_wait_init(&outside_wait);
    assert_int_equal(co_suspend(&outside_wait, CO_UNINTERRUPTIBLE), ERR_AGAIN);
    step("done");
    return 0;
}

static void driver_callback_resumes_and_kicks(void **state)
{
    struct driver_main m = {.fn = wait_outside};
    struct driver d;

    (void)state;
    driver_init(&d, "kicked");
    co_loop_start(d.loop, "main", driver_main_fn, &m, driver_main_done);
    assert_false(co_loop_run(d.loop, 0));
    assert_null(co_loop());
    d.kicks = 0;
    co_resume(&outside_wait, ERR_AGAIN);
    assert_int_equal(d.kicks, 1);
    assert_true(co_loop_ready(d.loop));
    assert_false(co_loop_run(d.loop, 0));
    assert_true(m.ended);
    assert_string_equal(trail, "done");
    co_loop_free(d.loop, false);
}

static int yield_100(void *arg)
{
    for (int i = 0; i < 100; i++) {
        assert_int_equal(co_yield (), 0);
        ++*(int *)arg;
    }
    return 0;
}

static void budget_bounds_a_round(void **state)
{
    int count = 0;
    struct driver_main m = {.fn = yield_100, .arg = &count};
    struct driver d;

    (void)state;
    driver_init(&d, "budget");
    co_loop_start(d.loop, "main", driver_main_fn, &m, driver_main_done);
    assert_true(co_loop_run(d.loop, 1));
    assert_int_equal(count, 0);
    assert_true(co_loop_run(d.loop, 40));
    assert_int_equal(count, 40);
    assert_false(co_loop_run(d.loop, 0));
    assert_true(m.ended);
    co_loop_free(d.loop, false);
}

static void timer_say(struct co_timer *t)
{
    assert_null(co_self());
    assert_non_null(co_loop());
    step("t");
    t->at = NSEC_NEVER;
}

static int timer_main(void *arg)
{
    struct co_timer a, b, c;

    (void)arg;
    co_timer_init(&a, timer_say);
    co_timer_init(&b, timer_say);
    co_timer_init(&c, timer_say);
    co_timer_arm(&a, co_now() + 10);
    co_timer_arm(&b, co_now() + 20);
    co_timer_arm(&c, co_now() + 15);
    co_timer_arm(&a, co_now() + 30); /* re-armed */
    co_timer_disarm(&c);
    co_timer_disarm(&c);
    assert_int_equal(co_sleep(20), 0);
    step("|");
    assert_int_equal(co_sleep(20), 0);
    assert_int_equal(a.heap_pos, 0);
    return 0;
}

static void timers_fire_re_arm_and_disarm(void **state)
{
    (void)state;
    assert_int_equal(driver_run(timer_main, NULL), 0);
    assert_string_equal(trail, "t|t");
}

static int fail_with_text(void *arg)
{
    (void)arg;
    return err_set(ERR_NOSPACE, "the device %s is full", "d0");
}

static void done_with_text(void *arg, int rc)
{
    (void)arg;
    assert_null(co_self());
    assert_int_equal(rc, ERR_NOSPACE);
    assert_string_equal(err_text(rc), "the device d0 is full");
    step("done");
}

static void result_of_a_top_level_coroutine_keeps_its_text(void **state)
{
    struct driver d;

    (void)state;
    driver_init(&d, "result");
    co_loop_start(d.loop, "main", fail_with_text, NULL, done_with_text);
    driver_drain(&d);
    assert_string_equal(trail, "done");
    co_loop_free(d.loop, false);
}

static int err_slot_child(void *arg)
{
    (void)arg;
    (void)err_set(ERR_IO, "child");
    assert_int_equal(co_yield (), 0);
    assert_string_equal(err_text(ERR_IO), "child");
    return 0;
}

static int err_slot_main(void *arg)
{
    struct co_group g;

    (void)arg;
    co_group_init(&g);
    co_spawn(&g, "child", err_slot_child, NULL);
    (void)err_set(ERR_IO, "parent");
    assert_int_equal(co_group_join(&g), 0);
    assert_string_equal(err_text(ERR_IO), "parent");
    assert_ptr_equal(co_err_slot(), err_slot_current());
    return 0;
}

static void each_coroutine_has_its_own_error_text(void **state)
{
    (void)state;
    assert_int_equal(driver_run(err_slot_main, NULL), 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup(f, reset_trail)
    const struct CMUnitTest tests[] = {
        T(ready_coroutines_run_first_come_first_served),
        T(pick_chooses_the_next_coroutine),
        T(sleepers_wake_in_order_of_time),
        T(cancelled_group_ends_all_waits_for_good),
        T(join_returns_the_first_error_with_its_text),
        T(join_passes_a_cancel_on_to_the_members),
        T(deadline_bounds_waits_and_is_inherited),
        T(shield_leaves_deadline_and_cancel_behind),
        T(a_deadline_inside_a_shield_counts),
        T(wait_that_is_over_does_not_suspend),
        T(driver_callback_resumes_and_kicks),
        T(budget_bounds_a_round),
        T(timers_fire_re_arm_and_disarm),
        T(result_of_a_top_level_coroutine_keeps_its_text),
        T(each_coroutine_has_its_own_error_text),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
