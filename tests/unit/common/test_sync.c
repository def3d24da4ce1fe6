/* SPDX-License-Identifier: Apache-2.0
 *
 * Synchronisation between coroutines of one loop. Where interleaving matters, the expected trail
 * is written down: one letter per step, in order. */
#include <stdio.h>
#include "tests/unit/common/co_driver.h"
#include "common/base/prng.h"
#include "common/co/sync.h"

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

/* ---- mutex ---- */

static struct co_mutex mutex;

static int lock_and_sleep(void *arg)
{
    assert_int_equal(co_mutex_lock(&mutex), 0);
    step(arg);
    assert_int_equal(co_sleep(10), 0);
    step(arg);
    co_mutex_unlock(&mutex);
    return 0;
}

static int lock_in_vain(void *arg)
{
    int rc;

    (void)co_deadline_push(co_now() + 5);
    rc = co_mutex_lock(&mutex);
    step(arg);
    return rc;
}

static int mutex_main(void *arg)
{
    struct co_group g, doomed;

    (void)arg;
    co_mutex_init(&mutex);
    co_group_init(&g);
    co_group_init(&doomed);
    co_spawn(&g, "a", lock_and_sleep, (void *)"a");
    co_spawn(&doomed, "x", lock_in_vain, (void *)"x");
    co_spawn(&g, "b", lock_and_sleep, (void *)"b");
    co_spawn(&g, "c", lock_and_sleep, (void *)"c");
    assert_int_equal(co_yield (), 0);
    assert_false(co_mutex_trylock(&mutex));
    assert_int_equal(co_group_join(&doomed), ERR_TIMEOUT);
    assert_int_equal(co_group_join(&g), 0);
    assert_true(co_mutex_trylock(&mutex));
    co_mutex_unlock(&mutex);
    co_mutex_lock_always(&mutex);
    co_mutex_unlock(&mutex);
    return 0;
}

static void mutex_passes_from_hand_to_hand_in_order(void **state)
{
    (void)state;
    assert_int_equal(driver_run(mutex_main, NULL), 0);
    assert_string_equal(trail, "axabbcc");
}

/* The lock is handed over and the cancel comes before the new holder runs: it holds the lock. */
static int lock_despite_cancel(void *arg)
{
    (void)arg;
    assert_int_equal(co_mutex_lock(&mutex), 0);
    assert_true(co_canceled());
    co_mutex_unlock(&mutex);
    return 0;
}

static int handover_main(void *arg)
{
    struct co_group g;

    (void)arg;
    co_mutex_init(&mutex);
    co_group_init(&g);
    assert_int_equal(co_mutex_lock(&mutex), 0);
    co_spawn(&g, "next", lock_despite_cancel, NULL);
    assert_int_equal(co_yield (), 0);
    co_mutex_unlock(&mutex);
    co_group_cancel(&g);
    assert_int_equal(co_group_join(&g), 0);
    assert_null(mutex.holder);
    return 0;
}

static void cancel_after_handover_does_not_lose_the_lock(void **state)
{
    (void)state;
    assert_int_equal(driver_run(handover_main, NULL), 0);
}

/* ---- condition, event, wait group ---- */

static struct co_cond cond;
static struct co_event event;
static struct co_wg wg;

static int wait_cond(void *arg)
{
    int rc = co_cond_wait(&cond);

    step(arg);
    return rc;
}

static int wait_cond_always(void *arg)
{
    co_cond_wait_always(&cond);
    step(arg);
    return 0;
}

static int cond_main(void *arg)
{
    struct co_group g;

    (void)arg;
    co_cond_init(&cond);
    co_group_init(&g);
    co_cond_signal(&cond); /* nobody waits: lost */
    co_spawn(&g, "a", wait_cond, (void *)"a");
    co_spawn(&g, "b", wait_cond_always, (void *)"b");
    co_spawn(&g, "c", wait_cond, (void *)"c");
    assert_int_equal(co_yield (), 0);
    assert_string_equal(trail, "");
    co_cond_signal(&cond);
    assert_int_equal(co_yield (), 0);
    assert_string_equal(trail, "a");
    co_group_cancel(&g); /* ends c's wait only */
    assert_int_equal(co_yield (), 0);
    assert_string_equal(trail, "ac");
    co_cond_broadcast(&cond);
    return co_group_join(&g);
}

static void condition_wakes_in_order_and_respects_cancel(void **state)
{
    (void)state;
    assert_int_equal(driver_run(cond_main, NULL), 0);
    assert_string_equal(trail, "acb");
}

static int wait_event(void *arg)
{
    (void)arg;
    assert_int_equal(co_event_wait(&event), ERR_STALE);
    assert_int_equal(co_event_wait_always(&event), ERR_STALE);
    co_wg_done(&wg);
    return 0;
}

static int event_main(void *arg)
{
    struct co_group g;

    (void)arg;
    co_event_init(&event);
    co_wg_init(&wg);
    co_group_init(&g);
    co_wg_wait(&wg); /* nothing outstanding */
    co_wg_add(&wg, 3);
    for (int i = 0; i < 3; i++)
        co_spawn(&g, "waiter", wait_event, NULL);
    assert_int_equal(co_yield (), 0);
    co_event_set(&event, ERR_STALE);
    co_event_set(&event, 0); /* too late */
    co_wg_wait(&wg);
    assert_int_equal(wg.count, 0);
    return co_group_join(&g);
}

static void event_reaches_everybody_once_set(void **state)
{
    (void)state;
    assert_int_equal(driver_run(event_main, NULL), 0);
}

/* ---- semaphore ---- */

static struct co_sem sem;

static int take_three(void *arg)
{
    int rc = co_sem_acquire(&sem, 3);

    step(arg);
    return rc;
}

static int take_one(void *arg)
{
    int rc = co_sem_acquire(&sem, 1);

    step(arg);
    return rc;
}

static int sem_main(void *arg)
{
    struct co_group g, doomed;

    (void)arg;
    co_sem_init(&sem, 2);
    co_group_init(&g);
    co_group_init(&doomed);
    co_spawn(&doomed, "A", take_three, (void *)"A");
    co_spawn(&g, "b", take_one, (void *)"b");
    co_spawn(&g, "C", take_three, (void *)"C");
    assert_int_equal(co_yield (), 0);
    assert_string_equal(trail, "");    /* b does not overtake A */
    assert_false(co_sem_try(&sem, 1)); /* nor do we */
    assert_int_equal(co_group_close(&doomed), 0);
    assert_int_equal(co_yield (), 0);
    assert_string_equal(trail, "Ab"); /* A gave up: b fits */
    co_sem_release(&sem, 1);
    assert_int_equal(co_yield (), 0);
    assert_string_equal(trail, "Ab");
    co_sem_release(&sem, 1);
    assert_int_equal(co_group_join(&g), 0);
    assert_string_equal(trail, "AbC");
    assert_true(co_sem_try(&sem, 0));
    assert_false(co_sem_try(&sem, 1));
    return 0;
}

static void semaphore_lets_nobody_overtake(void **state)
{
    (void)state;
    assert_int_equal(driver_run(sem_main, NULL), 0);
}

/* ---- queue ---- */

static struct co_queue queue;

static int produce(void *arg)
{
    for (uintptr_t i = 1; i <= 10; i++)
        assert_int_equal(co_queue_push(&queue, (void *)((uintptr_t)arg + i)), 0);
    return 0;
}

static int consume(void *arg)
{
    uintptr_t *sum = arg;
    void *item;
    int rc;

    while ((rc = co_queue_pop(&queue, &item)) == 0)
        *sum += (uintptr_t)item;
    assert_int_equal(rc, ERR_CLOSED);
    return 0;
}

static int push_closed(void *arg)
{
    (void)arg;
    assert_int_equal(co_queue_push(&queue, &queue), ERR_CLOSED);
    assert_string_equal(err_text(ERR_CLOSED), "the queue is closed");
    return 0;
}

static int queue_main(void *arg)
{
    struct co_group producers, consumers;
    uintptr_t sums[2] = {0, 0};
    void *item;

    (void)arg;
    co_queue_init(&queue, 3);
    co_group_init(&producers);
    co_group_init(&consumers);
    co_spawn(&consumers, "c0", consume, &sums[0]);
    co_spawn(&consumers, "c1", consume, &sums[1]);
    for (uintptr_t i = 0; i < 4; i++)
        co_spawn(&producers, "p", produce, (void *)(i * 100));
    assert_int_equal(co_group_join(&producers), 0);
    co_queue_close(&queue);
    assert_int_equal(co_group_join(&consumers), 0);
    assert_int_equal(sums[0] + sums[1], 4 * 55 + 10 * 600);
    co_queue_fini(&queue);

    co_queue_init(&queue, 1);
    assert_true(co_queue_try_push(&queue, &sums[0]));
    assert_false(co_queue_try_push(&queue, &sums[1]));
    co_spawn(&producers, "late", push_closed, NULL);
    assert_int_equal(co_yield (), 0);
    co_queue_close(&queue);
    assert_int_equal(co_queue_pop(&queue, &item), 0); /* drains */
    assert_ptr_equal(item, &sums[0]);
    assert_int_equal(co_queue_pop(&queue, &item), ERR_CLOSED);
    assert_int_equal(co_group_join(&producers), 0);
    co_queue_fini(&queue);
    return 0;
}

static void queue_is_bounded_and_drains_after_close(void **state)
{
    (void)state;
    assert_int_equal(driver_run(queue_main, NULL), 0);
}

static int push_in_order(void *arg)
{
    return co_queue_push(&queue, arg);
}

static int queue_order_main(void *arg)
{
    struct co_group g;

    (void)arg;
    co_queue_init(&queue, 2);
    co_group_init(&g);
    for (uintptr_t i = 1; i <= 6; i++)
        co_spawn(&g, "p", push_in_order, (void *)i);
    assert_int_equal(co_yield (), 0);
    for (uintptr_t i = 1; i <= 6; i++) {
        void *item;

        assert_int_equal(co_queue_pop(&queue, &item), 0);
        assert_int_equal((uintptr_t)item, i);
    }
    assert_int_equal(co_group_join(&g), 0);
    co_queue_fini(&queue);
    return 0;
}

static void waiting_pushers_keep_their_order(void **state)
{
    (void)state;
    assert_int_equal(driver_run(queue_order_main, NULL), 0);
}

/* ---- range lock ---- */

struct range_job {
    const char *name;
    uint64_t start, len;
    bool exclusive;
    nsec_t hold, patience;
};

static struct co_range_lock ranges;

static int hold_range(void *arg)
{
    const struct range_job *j = arg;
    struct co_range r;
    char upper[2] = {(char)(j->name[0] & ~0x20), '\0'};
    int rc;

    if (j->patience != 0)
        (void)co_deadline_push(co_now() + j->patience);
    rc = co_range_acquire(&ranges, &r, j->start, j->len, j->exclusive);
    if (rc < 0) {
        step("-");
        return 0;
    }
    step(j->name);
    assert_int_equal(co_sleep(j->hold), 0);
    co_range_release(&ranges, &r);
    step(upper);
    return 0;
}

static int run_jobs(void *arg)
{
    struct range_job *jobs = arg;
    struct co_group g;

    co_range_lock_init(&ranges);
    co_group_init(&g);
    for (; jobs->name != NULL; jobs++)
        co_spawn(&g, jobs->name, hold_range, jobs);
    assert_int_equal(co_group_join(&g), 0);
    assert_true(list_empty(&ranges.records));
    return 0;
}

static void expect_jobs(struct range_job *jobs, const char *want)
{
    trail[0] = '\0';
    assert_int_equal(driver_run(run_jobs, jobs), 0);
    assert_string_equal(trail, want);
}

/* A lower-case letter: acquired, upper-case: released, '-': gave up. */
static void range_lock_is_fair(void **state)
{
    (void)state;
    expect_jobs((struct range_job[]){{"a", 0, 10, true, 5, 0}, {"b", 10, 10, true, 5, 0}, {0}},
                "abAB"); /* neighbours do not conflict */
    expect_jobs((struct range_job[]){{"a", 0, 10, false, 5, 0}, {"b", 5, 10, false, 5, 0}, {0}},
                "abAB"); /* nor do readers */
    expect_jobs((struct range_job[]){{"a", 0, 10, false, 5, 0},
                                     {"b", 5, 10, true, 5, 0},
                                     {"c", 0, 10, false, 5, 0}, /* behind the waiting writer */
                                     {"d", 20, 1, false, 1, 0},
                                     {0}},
                "adDAbBcC");
    expect_jobs((struct range_job[]){{"a", 0, 10, false, 9, 0},
                                     {"b", 5, 10, true, 5, 2}, /* gives up */
                                     {"c", 0, 10, false, 5, 0},
                                     {0}},
                "a-cCA");
}

#define CELLS 64

static struct {
    int readers[CELLS], writers[CELLS];
} cells;

static int random_holder(void *arg)
{
    struct prng p;

    prng_init(&p, (uint64_t)(uintptr_t)arg);
    for (int i = 0; i < 50; i++) {
        uint64_t start = prng_below(&p, CELLS), len = prng_between(&p, 1, CELLS - start);
        bool exclusive = prng_chance(&p, 400000);
        nsec_t former = co_deadline_push(prng_chance(&p, 300000) ? co_now() + 20 : NSEC_NEVER);
        struct co_range r;

        if (co_range_acquire(&ranges, &r, start, len, exclusive) == 0) {
            struct co_shield s;

            for (uint64_t c = start; c < start + len; c++) {
                assert_int_equal(cells.writers[c], 0);
                assert_true(!exclusive || cells.readers[c] == 0);
                ++*(exclusive ? &cells.writers[c] : &cells.readers[c]);
            }
            co_shield_begin(&s);
            (void)co_sleep((nsec_t)prng_below(&p, 10));
            co_shield_end(&s);
            for (uint64_t c = start; c < start + len; c++)
                --*(exclusive ? &cells.writers[c] : &cells.readers[c]);
            co_range_release(&ranges, &r);
        }
        co_deadline_restore(former);
    }
    return 0;
}

static int random_main(void *arg)
{
    struct co_group g;

    (void)arg;
    co_range_lock_init(&ranges);
    co_group_init(&g);
    for (uintptr_t i = 1; i <= 20; i++)
        co_spawn(&g, "holder", random_holder, (void *)i);
    assert_int_equal(co_group_join(&g), 0);
    assert_true(list_empty(&ranges.records));
    return 0;
}

static void range_lock_never_lets_conflicts_overlap(void **state)
{
    (void)state;
    assert_int_equal(driver_run(random_main, NULL), 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup(f, reset_trail)
    const struct CMUnitTest tests[] = {
        T(mutex_passes_from_hand_to_hand_in_order),
        T(cancel_after_handover_does_not_lose_the_lock),
        T(condition_wakes_in_order_and_respects_cancel),
        T(event_reaches_everybody_once_set),
        T(semaphore_lets_nobody_overtake),
        T(queue_is_bounded_and_drains_after_close),
        T(waiting_pushers_keep_their_order),
        T(range_lock_is_fair),
        T(range_lock_never_lets_conflicts_overlap),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
