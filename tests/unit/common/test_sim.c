/* SPDX-License-Identifier: Apache-2.0
 *
 * The simulated world: determinism, time, processes and their ends, control coroutines. */
#include "common/co/sync.h"
#include "tests/unit/common/sim_fixture.h"

/* ---- determinism ---- */

static int busy_child(void *arg)
{
    uint64_t *sum = arg;

    for (int i = 0; i < 20; i++) {
        (void)co_sleep((nsec_t)(env_random() % 1000000));
        *sum = *sum * 31 + env_random() % 7;
    }
    return 0;
}

static int busy_main(void *arg)
{
    struct co_group g;
    uint64_t sum = 0;
    struct disk *d;
    uint8_t *page = mem_alloc_aligned(4096, 4096);

    (void)arg;
    memset(page, 1, 4096);
    CHECK(disk_open("/d", 0, &d) == 0);
    co_group_init(&g);
    for (int i = 0; i < 5; i++)
        co_spawn(&g, "child", busy_child, &sum);
    for (uint64_t i = 0; i < 20; i++)
        CHECK(disk_write(d, page, 4096, i * 4096, i % 2) == 0);
    CHECK(co_group_join(&g) == 0);
    disk_close(d);
    mem_free(page);
    return (int)(sum % 1000);
}

static uint64_t busy_hash(uint64_t seed, int *ret_result)
{
    struct sim *s = world_new(seed);
    struct sim_proc *p = sim_proc_new(s, HOST_A, "busy");
    uint64_t hash;

    sim_disk_create(p, "/d", 1 << 20);
    *ret_result = proc_run(s, p, busy_main, NULL);
    hash = sim_trace_hash(s);
    sim_free(s);
    return hash;
}

static void same_seed_same_trace(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed < 6; seed++) {
        int a, b, c;
        uint64_t first = busy_hash(seed, &a);

        assert_true(busy_hash(seed, &b) == first);
        assert_true(busy_hash(seed + 100, &c) != first);
        assert_int_equal(a, b);
    }
}

static void trace_text_is_kept_on_demand(void **state)
{
    struct sim_conf conf = {.seed = 1, .trace = true};
    struct sim *s = sim_new(&conf);

    (void)state;
    sim_note(s, "hello %d", 7);
    assert_non_null(strstr(sim_trace_text(s), "note hello 7"));
    sim_free(s);
    s = world_new(1);
    assert_null(sim_trace_text(s));
    assert_false(sim_step(s));
    sim_free(s);
}

/* ---- processes ---- */

static int sleeper(void *arg)
{
    nsec_t start = co_now();
    int rc = co_sleep(SEC(5));

    if (arg)
        *(nsec_t *)arg = co_now() - start;
    return rc;
}

static void time_is_virtual(void **state)
{
    struct sim *s = world_new(3);
    struct sim_proc *p = sim_proc_new(s, HOST_A, "p");
    nsec_t slept = 0, start = sim_now(s);

    (void)state;
    assert_int_equal(proc_run(s, p, sleeper, &slept), 0);
    assert_true(slept >= SEC(5) && slept < SEC(5) + MSEC(1));
    sim_run_for(s, SEC(3600));
    assert_true(sim_now(s) - start > SEC(3604));
    sim_free(s);
}

struct clocks {
    nsec_t mono, wall;
};

static int clocks_read(void *arg)
{
    struct clocks *c = arg;

    *c = (struct clocks){co_now(), env_wall_ns()};
    CHECK(co_sleep(SEC(100)) == 0);
    CHECK(co_now() >= c->mono + SEC(100) && co_now() < c->mono + SEC(100) + MSEC(1));
    *c = (struct clocks){co_now() - c->mono, env_wall_ns() - c->wall};
    return 0;
}

static void clocks_drift_and_jump(void **state)
{
    static const int32_t rates[] = {30000, -30000, 1, 0};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rates); i++) {
        struct sim *s = world_new(5);
        struct sim_proc *p = sim_proc_new(s, HOST_A, "p");
        nsec_t begin = sim_now(s), real = SEC(100) / (1000000 + rates[i]) * 1000000;
        struct clocks spans;

        sim_clock_drift(s, HOST_A, rates[i]);
        sim_clock_drift(s, HOST_B, -rates[i]); /* another host's: no matter */
        sim_proc_start(p, clocks_read, &spans);
        sim_run_for(s, SEC(50));
        sim_clock_jump(s, HOST_A, -SEC(10));
        assert_true(sim_run_until(s, proc_is_over, p, SEC(100)));
        assert_true(sim_now(s) - begin > real - MSEC(1) && sim_now(s) - begin < real + MSEC(1));
        assert_int_equal(spans.wall, spans.mono - SEC(10));
        sim_free(s);
    }
}

static void stop_cancels_main(void **state)
{
    struct sim *s = world_new(4);
    struct sim_proc *p = sim_proc_new(s, HOST_A, "p");

    (void)state;
    sim_proc_start(p, sleeper, NULL);
    sim_run_for(s, SEC(1));
    sim_proc_stop(p);
    assert_false(sim_proc_running(p));
    assert_int_equal(sim_proc_result(p), ERR_CANCELED);
    sim_proc_start(p, sleeper, NULL);
    sim_proc_stop(p); /* before it ran at all */
    assert_int_equal(sim_proc_result(p), ERR_CANCELED);
    sim_free(s);
}

static void pause_holds_time_back(void **state)
{
    struct sim *s = world_new(5);
    struct sim_proc *p = sim_proc_new(s, HOST_A, "p");
    nsec_t slept = 0;

    (void)state;
    sim_proc_start(p, sleeper, &slept);
    sim_run_for(s, SEC(1));
    sim_proc_pause(p);
    sim_run_for(s, SEC(20));
    assert_true(sim_proc_running(p) && sim_proc_paused(p) && slept == 0);
    sim_proc_resume(p);
    assert_true(sim_run_until(s, proc_is_over, p, SEC(1)));
    assert_true(slept >= SEC(20));
    sim_free(s);
}

struct locker {
    bool nested;
    int rc;
};

static int hungry(void *arg)
{
    for (int i = 0; i < 100; i++)
        CHECK(mem_alloc(1000) != NULL); /* kept: the crash reclaims it */
    return sleeper(arg);
}

static int lock_and_die(void *arg)
{
    struct co_group g;
    struct co_loop *loop;

    (void)arg;
    CHECK(env_lock_file("/run/lock") == 0);
    CHECK(env_file_write("/etc/id", "seven", 5) == 0);
    CHECK(env_thread_start("worker", &loop) == 0);
    co_group_init(&g);
    co_spawn(&g, "hungry", hungry, NULL);
    return co_group_join(&g);
}

static int try_lock(void *arg)
{
    struct locker *l = arg;
    char *text;
    size_t len;

    l->rc = env_lock_file("/run/lock");
    if (l->nested)
        return env_file_read("/etc/id", &text, &len) == ERR_NOTFOUND ? 0 : ERR_INVAL;
    CHECK(env_file_read("/etc/id", &text, &len) == 0);
    CHECK(len == 5 && strcmp(text, "seven") == 0);
    mem_free(text);
    return 0;
}

static void crash_releases_locks_and_memory(void **state)
{
    struct sim *s = world_new(6);
    struct sim_proc *p = sim_proc_new(s, HOST_A, "p");
    struct sim_proc *q = sim_proc_new(s, HOST_A, "q");
    struct locker other = {.nested = true}, again = {0};

    (void)state;
    sim_proc_start(p, lock_and_die, NULL);
    sim_run_for(s, SEC(1));
    assert_int_equal(proc_run(s, q, try_lock, &other), 0);
    assert_int_equal(other.rc, ERR_BUSY);
    sim_proc_crash(p);
    assert_false(sim_proc_running(p));
    assert_int_equal(proc_run(s, p, try_lock, &again), 0);
    assert_int_equal(again.rc, 0);
    sim_free(s);
}

static int halting_child(void *arg)
{
    (void)arg;
    env_halt("no way %d", 9);
}

static int halting(void *arg)
{
    struct co_group g;

    co_group_init(&g);
    co_spawn(&g, "child", halting_child, NULL);
    (void)co_sleep(SEC(1));
    *(bool *)arg = true; /* never */
    return 0;
}

static void halt_ends_the_process(void **state)
{
    struct sim *s = world_new(7);
    struct sim_proc *p = sim_proc_new(s, HOST_A, "p");
    bool went_on = false;

    (void)state;
    sim_proc_start(p, halting, &went_on);
    assert_true(sim_run_until(s, proc_is_over, p, SEC(5)));
    assert_string_equal(sim_proc_halted(p), "no way 9");
    assert_false(went_on);
    sim_proc_start(p, sleeper, NULL);
    assert_null(sim_proc_halted(p));
    sim_free(s); /* crashes it */
}

/* ---- threads ---- */

struct threads {
    struct co_loop *main, *worker;
    int visits;
};

static int visitor(void *arg)
{
    struct threads *t = arg;
    struct co_loop *home = co_enter(t->worker);

    CHECK(home == t->main && co_loop() == t->worker);
    t->visits++;
    CHECK(co_sleep(MSEC(1)) == 0);
    CHECK(co_enter(env_pool()) == t->worker);
    co_enter(t->worker);
    co_enter(home);
    return 0;
}

static int threads_main(void *arg)
{
    struct threads *t = arg;
    struct co_group g;

    t->main = co_loop();
    CHECK(env_thread_start("worker", &t->worker) == 0);
    co_group_init(&g);
    for (int i = 0; i < 10; i++)
        co_spawn(&g, "visitor", visitor, t);
    CHECK(co_group_join(&g) == 0);
    env_thread_stop(t->worker);
    return 0;
}

static void threads_are_loops(void **state)
{
    struct threads t = {0};
    struct sim *s = world_new(8);
    struct sim_proc *p = sim_proc_new(s, HOST_A, "p");

    (void)state;
    assert_int_equal(proc_run(s, p, threads_main, &t), 0);
    assert_int_equal(t.visits, 10);
    sim_free(s);
}

/* ---- control coroutines ---- */

struct drill {
    struct sim *s;
    struct sim_proc *p;
    int steps;
    bool done;
};

static int drill_main(void *arg)
{
    struct drill *d = arg;

    for (int i = 0; i < 3; i++) {
        sim_proc_start(d->p, sleeper, NULL);
        CHECK(co_sleep(MSEC(100)) == 0);
        CHECK(sim_proc_running(d->p));
        if (i == 0)
            sim_proc_crash(d->p);
        else if (i == 1)
            sim_proc_stop(d->p);
        else
            sim_proc_power_loss(d->p);
        CHECK(!sim_proc_running(d->p));
        d->steps++;
    }
    d->done = true;
    return 0;
}

static int idle_forever(void *arg)
{
    (void)arg;
    return co_sleep_until(NSEC_NEVER);
}

static void control_runs_faults(void **state)
{
    struct drill d = {.s = world_new(9)};

    (void)state;
    d.p = sim_proc_new(d.s, HOST_A, "p");
    sim_control(d.s, HOST_B, "drill", drill_main, &d);
    assert_int_equal(sim_control_running(d.s), 1);
    sim_run_for(d.s, SEC(10));
    assert_int_equal(sim_control_running(d.s), 0);
    assert_true(d.done && d.steps == 3);
    sim_control(d.s, HOST_B, "idle", idle_forever, NULL);
    sim_run_for(d.s, SEC(1));
    assert_int_equal(sim_control_running(d.s), 1);
    sim_control(d.s, HOST_A, "never started", idle_forever, NULL);
    sim_free(d.s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_seed_same_trace),  cmocka_unit_test(trace_text_is_kept_on_demand),
        cmocka_unit_test(time_is_virtual),       cmocka_unit_test(stop_cancels_main),
        cmocka_unit_test(pause_holds_time_back), cmocka_unit_test(crash_releases_locks_and_memory),
        cmocka_unit_test(halt_ends_the_process), cmocka_unit_test(threads_are_loops),
        cmocka_unit_test(control_runs_faults),   cmocka_unit_test(clocks_drift_and_jump),
    };

    return cmocka_run_group_tests_name("sim", tests, NULL, NULL);
}
