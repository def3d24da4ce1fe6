/* SPDX-License-Identifier: Apache-2.0
 *
 * Two threads, a loop each: entering another loop, posting, resuming from outside. Meant for
 * ThreadSanitizer too. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>
#include "tests/unit/common/co_driver.h"

struct worker {
    struct co_loop *loop;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool signalled, stop;
};

static nsec_t worker_now(struct co_loop *loop)
{
    struct timespec ts;

    (void)loop;
    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * NSEC_PER_SEC + ts.tv_nsec;
}

static void worker_wakeup(struct co_loop *loop)
{
    struct worker *w = co_loop_driver(loop);

    (void)pthread_mutex_lock(&w->lock);
    w->signalled = true;
    (void)pthread_cond_signal(&w->wake);
    (void)pthread_mutex_unlock(&w->lock);
}

static const struct co_loop_ops worker_ops = {.now = worker_now, .wakeup = worker_wakeup};

static void worker_drive(struct worker *w)
{
    bool stop = false;

    while (!stop) {
        while (co_loop_run(w->loop, 0))
            ;
        (void)pthread_mutex_lock(&w->lock);
        while (!w->signalled && !w->stop)
            (void)pthread_cond_wait(&w->wake, &w->lock);
        w->signalled = false;
        stop = w->stop;
        (void)pthread_mutex_unlock(&w->lock);
    }
}

static void *worker_thread(void *arg)
{
    worker_drive(arg);
    return NULL;
}

static void worker_init(struct worker *w, const char *name)
{
    memset(w, 0, sizeof(*w));
    (void)pthread_mutex_init(&w->lock, NULL);
    (void)pthread_cond_init(&w->wake, NULL);
    w->loop = co_loop_new(name, &worker_ops, w, NULL);
}

static void worker_stop(struct worker *w)
{
    (void)pthread_mutex_lock(&w->lock);
    w->stop = true;
    (void)pthread_cond_signal(&w->wake);
    (void)pthread_mutex_unlock(&w->lock);
}

static void worker_fini(struct worker *w)
{
    co_loop_free(w->loop, false);
    (void)pthread_cond_destroy(&w->wake);
    (void)pthread_mutex_destroy(&w->lock);
}

static struct worker here, there;
static uint32_t only_there; /* touched by the second loop alone */

/* Not pthread_self() in the coroutine itself: its result is kept across a move, because the C
 * library declares that a function's thread never changes. */
static NOINLINE bool on_second_thread(void)
{
    return pthread_equal(pthread_self(), there.thread) != 0;
}

static int go_and_return(void *arg)
{
    struct co *self = co_self();
    char *name = arg;

    for (int i = 0; i < 500; i++) {
        struct co_loop *home = co_enter(there.loop);

        assert_ptr_equal(home, here.loop);
        assert_ptr_equal(co_loop(), there.loop);
        assert_ptr_equal(co_self(), self);
        assert_true(on_second_thread());
        only_there++;
        (void)err_set(ERR_IO, "%s %d", name, i);
        if (i % 7 == 0)
            assert_int_equal(co_yield (), 0);
        assert_ptr_equal(co_enter(there.loop), there.loop); /* already there */
        assert_ptr_equal(co_enter(home), there.loop);
        assert_ptr_equal(co_loop(), here.loop);
        assert_false(on_second_thread());
        assert_int_equal(atoi(strrchr(err_text(ERR_IO), ' ') + 1), i);
    }
    return 0;
}

static atomic_uint posts_sent;
static uint32_t posts_seen;

static void count_post(void *arg)
{
    assert_null(co_self());
    assert_ptr_equal(co_loop(), there.loop);
    assert_int_equal((uintptr_t)arg, posts_seen); /* in order */
    posts_seen++;
}

struct remote {
    struct co_wait wait;
    uint32_t n;
};

static void answer(void *arg)
{
    struct remote *r = arg;

    r->n++;
    co_resume_remote(here.loop, &r->wait, ERR_AGAIN);
}

static int post_and_wait(void *arg)
{
    struct remote r = {.n = 0};

    (void)arg;
    for (uint32_t i = 0; i < 500; i++) {
        co_wait_init(&r.wait);
        co_post(there.loop, count_post, (void *)(uintptr_t)atomic_fetch_add(&posts_sent, 1));
        co_post(there.loop, answer, &r);
        assert_int_equal(co_suspend(&r.wait, CO_UNINTERRUPTIBLE), ERR_AGAIN);
        assert_int_equal(r.n, i + 1);
    }
    return 0;
}

static int cancelled_while_away(void *arg)
{
    struct co_loop *home = co_enter(there.loop);
    atomic_bool *arrived = arg;
    int turns = 0;

    atomic_store(arrived, true);
    while (co_yield () == 0) /* ends by the cancel that the other thread marks */
        turns++;
    (void)co_enter(home);
    assert_true(co_canceled());
    return co_yield ();
}

static int threads_main(void *arg)
{
    struct co_group g;
    atomic_bool arrived = false;

    (void)arg;
    co_group_init(&g);
    co_spawn(&g, "a", go_and_return, (void *)"a");
    co_spawn(&g, "b", go_and_return, (void *)"b");
    co_spawn(&g, "poster", post_and_wait, NULL);
    assert_int_equal(co_group_join(&g), 0);
    assert_int_equal(posts_seen, 500);
    co_spawn(&g, "away", cancelled_while_away, &arrived);
    while (!atomic_load(&arrived))
        assert_int_equal(co_yield (), 0);
    assert_int_equal(co_group_close(&g), 0);
    return 0;
}

static void main_done(void *arg, int rc)
{
    *(int *)arg = rc;
    worker_stop(&here);
    worker_stop(&there);
}

static void coroutines_move_between_threads(void **state)
{
    int rc = -1;

    (void)state;
    worker_init(&here, "here");
    worker_init(&there, "there");
    assert_int_equal(pthread_create(&there.thread, NULL, worker_thread, &there), 0);
    co_loop_start(here.loop, "main", threads_main, &rc, main_done);
    worker_drive(&here);
    assert_int_equal(pthread_join(there.thread, NULL), 0);
    assert_int_equal(rc, 0);
    assert_int_equal(only_there, 1000);
    worker_fini(&here);
    worker_fini(&there);
}

/* Stacks are recycled through the process's cache by many short-lived threads. */
static int leaf(void *arg)
{
    (void)arg;
    return co_yield ();
}

static int spawn_some(void *arg)
{
    struct co_group g;

    (void)arg;
    co_group_init(&g);
    for (int i = 0; i < 20; i++)
        co_spawn(&g, "leaf", leaf, NULL);
    return co_group_join(&g);
}

static void own_done(void *arg, int rc)
{
    assert_int_equal(rc, 0);
    worker_stop(arg);
}

static void *short_thread(void *arg)
{
    (void)arg;
    for (int i = 0; i < 20; i++) {
        struct worker w;

        worker_init(&w, "short");
        co_loop_start(w.loop, "main", spawn_some, &w, own_done);
        worker_drive(&w);
        worker_fini(&w);
    }
    return NULL;
}

static void stacks_are_shared_between_threads(void **state)
{
    pthread_t threads[3];

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, short_thread, NULL), 0);
    for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(coroutines_move_between_threads),
        cmocka_unit_test(stacks_are_shared_between_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
