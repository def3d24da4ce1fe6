/* SPDX-License-Identifier: Apache-2.0
 *
 * A loop of the real environment: one thread that alternates between running coroutines and
 * waiting in libev. One turn: run what is ready, hand what was queued to the kernel (prewait),
 * wait. The earliest coroutine timer is kept in one timerfd, because libev rounds up to
 * milliseconds and knows no clock that counts suspend. */
#include <errno.h>
#include <sched.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>
#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/env/real/real.h"

nsec_t real_now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_BOOTTIME, &ts);
    return ts.tv_sec * NSEC_PER_SEC + ts.tv_nsec;
}

static nsec_t op_now(struct co_loop *loop)
{
    (void)loop;
    return real_now();
}

static void op_wakeup(struct co_loop *loop)
{
    struct real_loop *l = co_loop_driver(loop);

    ev_async_send(l->ev, &l->wake);
}

static const struct co_loop_ops loop_ops = {.now = op_now, .wakeup = op_wakeup};

struct real_loop *real_loop_self(void)
{
    return co_loop_driver(co_loop());
}

/* The wake-up itself is all: co_loop_run follows every wait. */
static void wake_cb(struct ev_loop *ev, ev_async *w, int revents)
{
    (void)ev;
    (void)w;
    (void)revents;
}

static void timer_cb(struct ev_loop *ev, ev_io *w, int revents)
{
    struct real_loop *l = w->data;
    uint64_t expirations;

    (void)ev;
    (void)revents;
    if (read(l->timer_fd, &expirations, sizeof(expirations)) < 0)
        return; /* EAGAIN: it was set anew meanwhile */
    l->timer_at = NSEC_NEVER;
}

/* Sets the timerfd only when it has to go off earlier than it would; going off too early costs
 * one empty turn, and most timers are deadlines that are disarmed long before. */
static void timer_update(struct real_loop *l)
{
    nsec_t at = co_loop_next_timer(l->co);
    struct itimerspec spec = {0};

    if (at >= l->timer_at)
        return;
    l->timer_at = at;
    at = MAX(at, 1); /* 0 would disarm */
    spec.it_value.tv_sec = at / NSEC_PER_SEC;
    spec.it_value.tv_nsec = at % NSEC_PER_SEC;
    if (timerfd_settime(l->timer_fd, TFD_TIMER_ABSTIME, &spec, NULL) < 0)
        ASSERTF(false, "timerfd_settime: errno %d", errno);
}

void real_prewait_init(struct real_prewait *p, void (*fn)(struct real_prewait *p))
{
    list_init(&p->link);
    p->fn = fn;
}

void real_prewait_queue(struct real_loop *l, struct real_prewait *p)
{
    if (!list_linked(&p->link))
        list_push_back(&l->prewaits, &p->link);
}

static void prewaits_run(struct real_loop *l)
{
    struct list due, *link;

    l->poll_again = false;
    list_init(&due);
    list_splice_back(&due, &l->prewaits);
    while ((link = list_pop_front(&due)) != NULL) {
        struct real_prewait *p = CONTAINER_OF(link, struct real_prewait, link);

        p->fn(p);
    }
    if (!list_empty(&l->prewaits))
        l->poll_again = true;
}

static bool pollers_run(struct real_loop *l, bool sleep)
{
    bool found = false;

    LIST_FOREACH (p, &l->pollers, struct real_poller, link)
        found |= p->fn(p, sleep);
    return found;
}

/* Looks for events again and again for a bounded time instead of sleeping, since a wake-up costs
 * some 20 us; gives the processor away on each round, because the peer may need it. */
static bool spin(struct real_loop *l, nsec_t start)
{
    nsec_t limit = l->env->spin_us * NSEC_PER_USEC;

    do {
        if (pollers_run(l, false))
            return true;
        ev_run(l->ev, EVRUN_NOWAIT);
        if (co_loop_ready(l->co) || !list_empty(&l->prewaits))
            return true;
        if (co_loop_next_timer(l->co) <= real_now())
            return true;
        sched_yield();
    } while (real_now() - start < limit);
    return false;
}

static void sleep_for_events(struct real_loop *l)
{
    ev_run(l->ev, pollers_run(l, true) ? EVRUN_NOWAIT : EVRUN_ONCE);
}

static void wait_for_events(struct real_loop *l)
{
    nsec_t limit = l->env->spin_us * NSEC_PER_USEC, start;
    bool expected = l->io_in_flight > 0 || l->io_events > 0;

    l->io_events = 0;
    if (limit == 0 || l->is_pool) {
        sleep_for_events(l);
        return;
    }
    start = real_now();
    if (!expected || l->wait_ewma_ns > limit || !spin(l, start))
        sleep_for_events(l);
    /* One long wait must not end spinning for long, so it counts as four times the limit. */
    l->wait_ewma_ns += (MIN(real_now() - start, 4 * limit) - l->wait_ewma_ns) / 4;
}

static void stall_check(struct real_loop *l)
{
    nsec_t stall = co_loop_longest_stall(l->co);

    if (stall > REAL_STALL_LOG_NS && !l->is_pool)
        real_watch_report(l, stall);
}

void real_loop_run(struct real_loop *l)
{
    struct co_loop *former = co_loop_bind(l->co);
    bool more;

    if (!l->is_pool) {
        real_watch_add(l);
        real_cpu_begin(&l->cpu);
    }
    while (true) {
        if (!l->is_pool)
            real_watch_turn(l);
        more = co_loop_run(l->co, REAL_RUN_BUDGET);
        stall_check(l);
        real_cpu_look(l);
        prewaits_run(l);
        if (more || l->poll_again || co_loop_ready(l->co)) {
            pollers_run(l, false);
            ev_run(l->ev, EVRUN_NOWAIT);
            continue;
        }
        if (l->stop && co_loop_count(l->co) == 0)
            break;
        timer_update(l);
        wait_for_events(l);
    }
    if (!l->is_pool) {
        real_cpu_end(&l->cpu);
        real_watch_remove(l);
    }
    real_ring_free(l);
    co_loop_bind(former);
}

void real_loop_stop(struct real_loop *l)
{
    l->stop = true;
}

int real_loop_new(struct real_env *env, const char *name, bool is_pool, struct real_loop **ret)
{
    struct real_loop *l = MEM_NEW(struct real_loop);
    int rc;

    l->env = env;
    l->name = mem_strdup(name);
    l->is_pool = is_pool;
    l->timer_at = NSEC_NEVER;
    l->cpu = (struct real_cpu){.stat_fd = -1, .bound = -1};
    list_init(&l->prewaits);
    list_init(&l->pollers);
    list_init(&l->watched);
    l->timer_fd = timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK | TFD_CLOEXEC);
    if (l->timer_fd < 0) {
        rc = err_from_errno(errno, "timer of loop %s", name);
        goto err_alloc;
    }
    l->ev = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
    if (l->ev == NULL) {
        rc = err_set(ERR_IO, "cannot create the event loop %s", name);
        goto err_timer;
    }
    ev_set_userdata(l->ev, l);
    ev_async_init(&l->wake, wake_cb);
    ev_async_start(l->ev, &l->wake);
    ev_io_init(&l->timer_io, timer_cb, l->timer_fd, EV_READ);
    l->timer_io.data = l;
    ev_io_start(l->ev, &l->timer_io);
    l->co = co_loop_new(l->name, &loop_ops, l, &env->base);
    *ret = l;
    return 0;

err_timer:
    close(l->timer_fd);
err_alloc:
    mem_free(l->name);
    mem_free(l);
    ASSERT(rc < 0);
    return rc;
}

void real_loop_free(struct real_loop *l)
{
    ASSERT(list_empty(&l->prewaits) && list_empty(&l->pollers));
    co_loop_free(l->co, false);
    ev_io_stop(l->ev, &l->timer_io);
    ev_async_stop(l->ev, &l->wake);
    ev_loop_destroy(l->ev);
    close(l->timer_fd);
    mem_free(l->name);
    mem_free(l);
}
