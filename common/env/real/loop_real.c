/* SPDX-License-Identifier: Apache-2.0
 *
 * A loop of the real environment: one thread that alternates between running coroutines and
 * waiting, in its ring (uring.c) or, if it has none, in libev. One turn: run what is ready, hand
 * what was queued to the kernel (prewait), wait. The earliest coroutine timer is kept in one
 * timerfd, because libev rounds up to milliseconds and knows no clock that counts suspend. */
#include <errno.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>
#include "common/base/assert.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/env/real/uring.h"

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

/* Of this and the loop's exchange one comes first: either the loop sees what there is for it, or
 * we see that it sleeps. */
static void op_wakeup(struct co_loop *loop)
{
    struct real_loop *l = co_loop_driver(loop);
    const uint64_t one = 1;

    if (atomic_exchange(&l->asleep, false) && write(l->wake.io.fd, &one, sizeof(one)) < 0)
        ASSERTF(errno == EAGAIN, "eventfd of loop %s: errno %d", l->name, errno);
}

static const struct co_loop_ops loop_ops = {.now = op_now, .wakeup = op_wakeup};

struct real_loop *real_loop_self(void)
{
    return co_loop_driver(co_loop());
}

/* The wake-up itself is all: co_loop_run follows every wait. */
static void wake_fn(struct real_edge *e)
{
    real_edge_drain(e);
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

void real_ev_io_start(struct real_loop *l, ev_io *io)
{
    ev_io_start(l->ev, io);
    l->ev_due = true;
}

static void ev_look(struct real_loop *l)
{
    l->ev_due = false;
    ev_run(l->ev, EVRUN_NOWAIT);
}

/* Takes what has come, without waiting. */
static bool look(struct real_loop *l)
{
    bool found = pollers_run(l, false);

    if (l->ring != NULL)
        real_ring_look(l->ring);
    if (l->ring == NULL || l->ev_due)
        ev_look(l);
    return found || co_loop_ready(l->co) || !list_empty(&l->prewaits);
}

/* Looks for events again and again for a bounded time instead of sleeping, since a wake-up costs
 * some 20 us; gives the processor away on each round, because the peer may need it. */
static bool spin(struct real_loop *l, nsec_t start)
{
    nsec_t limit = l->env->spin_us * NSEC_PER_USEC;

    do {
        if (look(l) || co_loop_next_timer(l->co) <= real_now())
            return true;
        sched_yield();
    } while (real_now() - start < limit);
    return false;
}

/* True: there is nothing to do, and whoever has something from now on wakes us. */
static bool fall_asleep(struct real_loop *l)
{
    bool found = pollers_run(l, true);

    if (l->ring != NULL && l->ev_due)
        ev_look(l);
    real_edge_watch(l, &l->wake);
    if (l->ring != NULL)
        real_ring_arm(l->ring);
    timer_update(l);
    (void)atomic_exchange(&l->asleep, true);
    if (l->ring != NULL)
        found |= l->ev_due;
    return !found && !co_loop_ready(l->co) && list_empty(&l->prewaits);
}

static void sleep_for_events(struct real_loop *l)
{
    bool sleep = fall_asleep(l);

    if (l->ring == NULL)
        ev_run(l->ev, sleep ? EVRUN_ONCE : EVRUN_NOWAIT);
    else if (sleep)
        real_ring_sleep(l->ring);
    else
        real_ring_look(l->ring);
    atomic_store(&l->asleep, false);
    if (l->ring != NULL && l->ev_due)
        ev_look(l);
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

static void ring_try(struct real_loop *l)
{
    int rc = real_ring_get(l);

    if (rc < 0)
        log_info("loop.no_ring", "loop=%s reason=\"%s\"", l->name, err_text(rc));
}

void real_loop_run(struct real_loop *l)
{
    struct co_loop *former = co_loop_bind(l->co);
    bool more;

    if (!l->is_pool) {
        real_watch_add(l);
        real_cpu_begin(&l->cpu);
        ring_try(l);
    }
    while (true) {
        if (!l->is_pool)
            real_watch_turn(l);
        more = co_loop_run(l->co, REAL_RUN_BUDGET);
        stall_check(l);
        real_cpu_look(l);
        prewaits_run(l);
        if (more || l->poll_again || co_loop_ready(l->co)) {
            (void)look(l);
            continue;
        }
        if (l->stop && co_loop_count(l->co) == 0)
            break;
        wait_for_events(l);
    }
    if (!l->is_pool) {
        real_cpu_end(&l->cpu);
        real_watch_remove(l);
    }
    real_edge_forget(l, &l->wake);
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
    int wake_fd, rc;

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
    wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (wake_fd < 0) {
        rc = err_from_errno(errno, "eventfd of loop %s", name);
        goto err_timer;
    }
    /* Signals by a descriptor: libev may not be asleep itself when they come. */
    l->ev = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV | EVFLAG_SIGNALFD);
    if (l->ev == NULL) {
        rc = err_set(ERR_IO, "cannot create the event loop %s", name);
        goto err_wake;
    }
    ev_set_userdata(l->ev, l);
    real_edge_init(&l->wake, wake_fd, EV_READ, wake_fn);
    ev_io_init(&l->timer_io, timer_cb, l->timer_fd, EV_READ);
    l->timer_io.data = l;
    real_ev_io_start(l, &l->timer_io);
    l->co = co_loop_new(l->name, &loop_ops, l, &env->base);
    *ret = l;
    return 0;

err_wake:
    close(wake_fd);
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
    ev_loop_destroy(l->ev);
    close(l->wake.io.fd);
    close(l->timer_fd);
    mem_free(l->name);
    mem_free(l);
}
