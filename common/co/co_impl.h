/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of common/co share. Nobody else includes this. */
#ifndef ZBS_CO_CO_IMPL_H
#define ZBS_CO_CO_IMPL_H

#include <stdatomic.h>
#include "common/base/heap.h"
#include "common/base/thread_ctx.h"
#include "common/co/co.h"
#include "common/co/loop.h"
#include "common/co/san.h"
#include "common/co/switch.h"

#define CO_GUARD_BYTES (64u * 1024) /* more than any frame: a big one cannot step over it */
#define CO_RUN_BATCH   16u          /* resumptions between two looks at clock, timers and mail */

/* What the loop has to do when a coroutine switched out. */
enum co_after {
    CO_AFTER_NOTHING, /* it waits, or is in the run queue again */
    CO_AFTER_END,     /* its function returned */
    CO_AFTER_MOVE,    /* send it to co->target */
};

/* What may end a wait before its completion. */
#define CO_BY_CANCEL   1u
#define CO_BY_DEADLINE 2u

/* Lies at the top of its own stack's mapping and is recycled with it. */
struct co {
    struct thread_ctx ctx; /* ctx.loop: where it is; changed only while it is switched out */
    struct co_ctx sw;
    struct co_san san;
    struct co *next; /* run queue, or idle pool */
    enum co_after after;
    unsigned wait_by;     /* CO_BY_*; valid while wait is set */
    struct co_wait *wait; /* what it is suspended in */
    int (*fn)(void *arg);
    void *arg;
    int rc; /* of fn */

    struct co_group *group; /* NULL: started by co_loop_start */
    struct list member;     /* of group->members; home loop only */
    struct co_group *joining;
    void (*done)(void *arg, int rc);

    atomic_bool canceled; /* set by the home loop, read where the coroutine is */
    uint32_t shields;     /* open co_shield sections */
    uint32_t locks;       /* co_mutexes held */
    nsec_t deadline;
    struct co_timer deadline_timer; /* may be armed for an earlier deadline: see co_suspend */

    struct co_loop *home; /* where it was born and will end */
    struct co_loop *target;
    bool away;        /* home loop's knowledge: it entered another loop */
    bool live;        /* between spawn and end */
    struct list mail; /* on its way to another loop */
    struct list all;  /* loop->stacks of the loop it is on */

    void *map; /* mapping, guard first */
    struct err_slot err;
};

struct co_loop {
    struct list registered; /* for debuggers: see loop.c */
    struct thread_ctx ctx;
    struct co_ctx sw;
    struct co_san san; /* of the thread that runs the loop */
    const struct co_loop_ops *ops;
    void *driver;
    struct env *env;
    char *name;
    bool running;

    struct co *ready_first, *ready_last;
    uint32_t ready_count;
    struct heap timers;
    nsec_t now; /* at the last look */
    nsec_t longest_stall;
    _Atomic nsec_t held_since; /* now while running, else 0: for other threads */

    struct list stacks; /* every coroutine here, live or idle, through co->all */
    struct co *idle;
    uint32_t idle_count;
    uint32_t live_count;
    size_t stack_high_water;

    _Atomic uintptr_t mail; /* newest first: address of a struct list | CO_MAIL_* */
    struct err_slot err;
};

/* ---- stack.c ---- */

struct co *co_stack_new(co_ctx_entry entry); /* from the process's cache or the system */
void co_stack_free(struct co *co);           /* not live, or abandoned by co_stack_abandon */
void co_stack_abandon(struct co *co, co_ctx_entry entry); /* its frames are forgotten */
size_t co_stack_used(const struct co *co);                /* 0 where stacks are not painted */
void co_fault_handler_install(void);                      /* once per process */
void co_fault_stack_install(void);                        /* once per thread */

/* ---- co.c ---- */

void co_main(struct co_ctx *from, struct co_ctx *self); /* entry of every coroutine */
struct co *co_launch(struct co_loop *loop, const char *name, int (*fn)(void *arg), void *arg);
void co_ended(struct co_loop *loop, struct co *co); /* on the loop, coroutine switched out */
int co_suspend_by(struct co_wait *w, unsigned by);
void co_err_copy(struct err_slot *to, const struct err_slot *from, int rc);

/* ---- loop.c ---- */

void co_ready_push(struct co_loop *loop, struct co *co);
void co_mail_send_co(struct co_loop *target, struct co *co);

/* Leaves for the loop; returns when the loop (perhaps another one by then) resumes it. */
static inline __attribute__((always_inline)) void co_switch_out(struct co *co)
{
    struct co_loop *loop = co->ctx.loop;

    co_san_leave(&co->san, &loop->san);
    co_switch(&co->sw, &loop->sw);
    co_san_arrive(&co->san, &co->ctx.loop->san);
}

/* Cancels it because its joiner was cancelled. */
void co_group_pass_cancel(struct co_group *g);

#endif
