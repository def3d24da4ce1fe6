/* SPDX-License-Identifier: Apache-2.0
 *
 * Loops that take turns share a CPU. Two processes that handle one request at a time through shared
 * memory hardly ever work at once: each sleeps while the other works. To wake a thread on a CPU
 * that is idle takes an interrupt and the way out of idleness, 10 to 20 us of processor time on
 * virtual CPUs; on the waker's own CPU it takes 1 or 2. The kernel, which does not know that the
 * waker is about to sleep, prefers the idle one. So a loop that made the memory (it leads) binds
 * itself to the CPU that it is on and says so in its rings, and the other side's loop follows.
 *
 * That pays only while they take turns and nobody else wants that CPU. The kernel counts how long a
 * thread that could run had to wait for a CPU: when that is more, on average, than what a wake-up
 * on another CPU costs, the loop leaves and does not come back for a while. Each side judges for
 * itself. */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>
#include "common/env/real/real.h"

#define LOOK_EVERY (20 * NSEC_PER_MSEC)
#define BELLS_MIN  200 /* a second: fewer wake-ups are not worth it */
#define DELAY_MAX  (20 * NSEC_PER_USEC)
#define PAUSE_MIN  (100 * NSEC_PER_MSEC)
#define PAUSE_MAX  NSEC_PER_SEC
#define STAY_LONG  NSEC_PER_SEC /* a stay that begins the pauses anew */

/* What the kernel counted since the last call: the mean wait for a CPU each time the thread ran. */
static nsec_t delay_take(struct real_cpu *c)
{
    char text[96];
    ssize_t len = pread(c->stat_fd, text, sizeof(text) - 1, 0);
    uint64_t waited, times;
    nsec_t mean;

    if (len <= 0)
        return NSEC_NEVER;
    text[len] = '\0';
    if (sscanf(text, "%*u %" SCNu64 " %" SCNu64, &waited, &times) != 2)
        return NSEC_NEVER;
    mean = times > c->times ? (nsec_t)((waited - c->waited) / (times - c->times)) : 0;
    c->waited = waited;
    c->times = times;
    return mean;
}

/* Who rang most since the last call, if there was much to hear at all. */
static struct real_poller *bells_take(struct real_loop *l, nsec_t window)
{
    struct real_poller *most = NULL;
    uint32_t most_bells = 0;
    uint64_t sum = 0;

    LIST_FOREACH (p, &l->pollers, struct real_poller, link) {
        if (p->bells > most_bells) {
            most = p;
            most_bells = p->bells;
        }
        sum += p->bells;
        p->bells = 0;
    }
    return sum * NSEC_PER_SEC >= (uint64_t)window * BELLS_MIN ? most : NULL;
}

static bool mask_set(struct real_cpu *c, const cpu_set_t *mask)
{
    if (sched_setaffinity(0, sizeof(*mask), mask) == 0)
        return true;
    close(c->stat_fd); /* not allowed here: never mind */
    c->stat_fd = -1;
    return false;
}

void real_cpu_leave(struct real_cpu *c)
{
    if (c->bound < 0)
        return;
    c->bound = -1;
    (void)mask_set(c, &c->former);
}

/* Binds the thread to one of the CPUs that it may run on anyway. */
static void cpu_bind(struct real_cpu *c, int cpu, nsec_t now)
{
    cpu_set_t one;

    if (c->bound < 0 && sched_getaffinity(0, sizeof(c->former), &c->former) < 0)
        return;
    if (cpu < 0 || cpu >= CPU_SETSIZE || !CPU_ISSET(cpu, &c->former) || CPU_COUNT(&c->former) == 1)
        return;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    if (!mask_set(c, &one))
        return;
    if (c->bound < 0)
        c->since = now;
    c->bound = cpu;
}

static void cpu_give_up(struct real_cpu *c, nsec_t now)
{
    c->pause = now - c->since >= STAY_LONG ? PAUSE_MIN : MIN(2 * c->pause, PAUSE_MAX);
    c->not_before = now + c->pause;
    real_cpu_leave(c);
}

void real_cpu_decide(struct real_cpu *c, int cpu, nsec_t delay, nsec_t now)
{
    if (delay > DELAY_MAX && c->bound >= 0)
        cpu_give_up(c, now);
    else if (cpu < 0)
        real_cpu_leave(c);
    else if (cpu != c->bound && delay <= DELAY_MAX && now >= c->not_before)
        cpu_bind(c, cpu, now);
}

/* Where we would be, -1: anywhere. */
static int cpu_wanted(const struct real_cpu *c, const struct real_poller *busiest)
{
    if (busiest == NULL)
        return -1;
    if (busiest->leader_cpu != NULL)
        return (int)atomic_load_explicit(busiest->leader_cpu, memory_order_relaxed) - 1;
    return c->bound >= 0 ? c->bound : sched_getcpu();
}

void real_cpu_look(struct real_loop *l)
{
    struct real_cpu *c = &l->cpu;
    nsec_t now = co_now(), window = now - c->looked, delay;

    if (window < LOOK_EVERY || c->stat_fd < 0 || (list_empty(&l->pollers) && c->bound < 0))
        return;
    c->looked = now;
    delay = delay_take(c);
    real_cpu_decide(c, cpu_wanted(c, bells_take(l, window)), delay, now);
    LIST_FOREACH (p, &l->pollers, struct real_poller, link) {
        if (p->cpu != NULL)
            atomic_store_explicit(p->cpu, (uint32_t)(c->bound + 1), memory_order_relaxed);
    }
}

void real_cpu_begin(struct real_cpu *c)
{
    c->bound = -1;
    c->pause = PAUSE_MIN;
    c->stat_fd = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
}

void real_cpu_end(struct real_cpu *c)
{
    real_cpu_leave(c);
    if (c->stat_fd >= 0)
        close(c->stat_fd);
}
