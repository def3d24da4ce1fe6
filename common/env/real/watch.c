/* SPDX-License-Identifier: Apache-2.0
 *
 * The watchdog: finds out where a loop is while it is stalled. One thread looks fifty times a
 * second at when each loop last looked at its clock; a loop that was held for too long gets a
 * signal, whose handler notes the stack it interrupted. The loop logs it once it is back.
 *
 * It costs a loop one counter a turn, and nothing at all while no loop does anything: then the
 * watchdog sleeps until a loop begins a turn. A stall that falls between two looks, or begins in
 * the very moment in which the watchdog falls asleep, is logged without a stack. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <ucontext.h>
#include "common/base/assert.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/symbol.h"
#include "common/env/real/real.h"

#define WATCH_PERIOD_NS  (20 * NSEC_PER_MSEC)
#define WATCH_SUSPECT_NS NSEC_PER_MSEC /* held for so long: is looked at again in time */
#define WATCH_SIGNAL     SIGURG /* ignored by default, passed on by debuggers, and no one else's */

struct real_watch {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool stop;
    struct list loops; /* of real_loop, by watched */
    atomic_bool asleep;
};

/* ---- on the stalled thread ---- */

static __thread struct real_loop *loop_here;

struct registers {
    uintptr_t ip, sp, fp, link; /* link: return address in a register, 0 if there is none */
};

static struct registers registers_of(const ucontext_t *uc)
{
    const mcontext_t *m = &uc->uc_mcontext;

#if defined(__x86_64__)
    return (struct registers){(uintptr_t)m->gregs[REG_RIP], (uintptr_t)m->gregs[REG_RSP],
                              (uintptr_t)m->gregs[REG_RBP], 0};
#elif defined(__aarch64__)
    return (struct registers){m->pc, m->sp, m->regs[29], m->regs[30]};
#else
    (void)m;
    return (struct registers){0};
#endif
}

static bool is_code(uintptr_t addr)
{
    return symbol_in_program((const void *)addr);
}

/* A library function has no frame of its own, so its frame pointer is our caller's: the caller
 * is named by the return address nearest to the stack pointer. */
NO_ASAN static uintptr_t library_caller(const struct registers *r, uintptr_t end)
{
    uintptr_t stop = r->fp > r->sp && r->fp < end ? r->fp : end;

    if (is_code(r->link))
        return r->link;
    for (uintptr_t at = r->sp; at + sizeof(at) <= stop; at += sizeof(at)) {
        uintptr_t word = *(const uintptr_t *)at;

        if (is_code(word))
            return word;
    }
    return 0;
}

/* Follows the frame pointers, which all of our own code keeps, up to `end`. */
NO_ASAN static unsigned frames_walk(const struct registers *r, uintptr_t end, void **frames)
{
    uintptr_t fp = r->fp, caller = is_code(r->ip) ? 0 : library_caller(r, end);
    unsigned n = 0;

    frames[n++] = (void *)r->ip;
    if (caller != 0)
        frames[n++] = (void *)caller;
    while (n < REAL_STALL_FRAMES && fp >= r->sp && fp % sizeof(fp) == 0 &&
           fp + 2 * sizeof(fp) <= end) {
        const uintptr_t *record = (const uintptr_t *)fp; /* the caller's, then where it goes on */

        if (record[1] == 0)
            break;
        frames[n++] = (void *)record[1];
        if (record[0] <= fp)
            break;
        fp = record[0];
    }
    return n;
}

static void on_signal(int sig, siginfo_t *info, void *context)
{
    struct real_loop *l = loop_here;
    const struct co *co = co_self();
    struct registers r = registers_of(context);
    uintptr_t end;

    (void)sig;
    (void)info;
    if (l == NULL || co_loop_held_since(l->co) == 0)
        return; /* it has come back meanwhile */
    end = (uintptr_t)(co != NULL ? co_stack_end(co) : l->stack_end);
    if (co != NULL && (r.sp >= end || end - r.sp > CO_STACK_BYTES_DEFAULT))
        end = (uintptr_t)l->stack_end; /* just switching */
    if (r.sp >= end)
        return;
    l->stall.co_name = co != NULL ? co_name(co) : NULL;
    l->stall.count = frames_walk(&r, end, l->stall.frames);
}

void real_watch_report(struct real_loop *l, nsec_t stall)
{
    char stack[1024] = "";
    size_t len = 0;

    for (unsigned i = 0; i < l->stall.count && len + 1 < sizeof(stack); i++) {
        /* A return address may lie behind the function whose last act was the call. */
        const char *addr = (const char *)l->stall.frames[i] - (i > 0);
        char name[128];

        symbol_format(addr, name, sizeof(name));
        len += (size_t)snprintf(stack + len, sizeof(stack) - len, "%s%s", i > 0 ? " < " : "", name);
    }
    log_warn("loop.stall", "loop=%s held_ms=%d coroutine=%s stack=\"%s\"", l->name,
             (int)(stall / NSEC_PER_MSEC),
             l->stall.count > 0 && l->stall.co_name != NULL ? l->stall.co_name : "?", stack);
    l->stall.count = 0;
}

/* ---- the watchdog's thread ---- */

/* Returns when to look again: never, if the loop has done nothing since the last look. */
static nsec_t loop_look(struct real_loop *l, nsec_t now)
{
    nsec_t since = co_loop_held_since(l->co);
    unsigned turns = atomic_load_explicit(&l->turns, memory_order_relaxed);
    bool active = since != 0 || turns != l->turns_seen;

    l->turns_seen = turns;
    if (since != 0 && l->stall_signalled != since && now - since > WATCH_SUSPECT_NS) {
        if (now - since <= REAL_STALL_LOG_NS)
            return since + REAL_STALL_LOG_NS + 1;
        l->stall_signalled = since;
        (void)pthread_kill(l->self, WATCH_SIGNAL);
    }
    return active ? now + WATCH_PERIOD_NS : NSEC_NEVER;
}

static void pause_for(struct real_watch *w, nsec_t span)
{
    struct timespec ts;
    nsec_t until;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    until = ts.tv_sec * NSEC_PER_SEC + ts.tv_nsec + span;
    ts.tv_sec = until / NSEC_PER_SEC;
    ts.tv_nsec = until % NSEC_PER_SEC;
    (void)pthread_cond_timedwait(&w->wake, &w->lock, &ts);
}

static void *watch_main(void *arg)
{
    struct real_watch *w = arg;

    pthread_mutex_lock(&w->lock);
    while (!w->stop) {
        nsec_t now = real_now(), next = NSEC_NEVER;

        LIST_FOREACH (l, &w->loops, struct real_loop, watched) {
            nsec_t again = loop_look(l, now);

            next = MIN(next, again);
        }
        if (next != NSEC_NEVER) {
            pause_for(w, next - now);
            continue;
        }
        atomic_store(&w->asleep, true);
        while (atomic_load(&w->asleep) && !w->stop)
            pthread_cond_wait(&w->wake, &w->lock);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

static void watch_wake(struct real_watch *w)
{
    pthread_mutex_lock(&w->lock);
    atomic_store(&w->asleep, false);
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
}

void real_watch_turn(struct real_loop *l)
{
    struct real_watch *w = l->env->watch;

    atomic_store_explicit(&l->turns, l->turns + 1, memory_order_relaxed);
    if (UNLIKELY(atomic_load_explicit(&w->asleep, memory_order_relaxed)))
        watch_wake(w);
}

void real_watch_add(struct real_loop *l)
{
    struct real_watch *w = l->env->watch;
    sigset_t set;

    loop_here = l;
    l->stack_end = __builtin_frame_address(0);
    pthread_mutex_lock(&w->lock);
    l->self = pthread_self();
    list_push_back(&w->loops, &l->watched);
    pthread_mutex_unlock(&w->lock);
    sigemptyset(&set);
    sigaddset(&set, WATCH_SIGNAL);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

void real_watch_remove(struct real_loop *l)
{
    pthread_mutex_lock(&l->env->watch->lock);
    list_del(&l->watched);
    pthread_mutex_unlock(&l->env->watch->lock);
    loop_here = NULL;
}

int real_watch_start(struct real_env *env)
{
    struct real_watch *w = MEM_NEW(struct real_watch);
    struct sigaction sa = {.sa_sigaction = on_signal,
                           .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
    pthread_condattr_t attr;
    sigset_t all, former;
    int rc;

    pthread_mutex_init(&w->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&w->wake, &attr);
    pthread_condattr_destroy(&attr);
    list_init(&w->loops);
    sigemptyset(&sa.sa_mask);
    ASSERT(sigaction(WATCH_SIGNAL, &sa, NULL) == 0);
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &former);
    rc = pthread_create(&w->thread, NULL, watch_main, w);
    pthread_sigmask(SIG_SETMASK, &former, NULL);
    if (rc != 0) {
        mem_free(w);
        return err_from_errno(rc, "starting the watchdog");
    }
    pthread_setname_np(w->thread, "watchdog");
    env->watch = w;
    return 0;
}

void real_watch_stop(struct real_env *env)
{
    struct real_watch *w = env->watch;

    if (w == NULL)
        return;
    ASSERT(list_empty(&w->loops));
    pthread_mutex_lock(&w->lock);
    w->stop = true;
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    pthread_cond_destroy(&w->wake);
    pthread_mutex_destroy(&w->lock);
    mem_free(w);
    env->watch = NULL;
}
