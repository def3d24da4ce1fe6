/* SPDX-License-Identifier: Apache-2.0
 *
 * Loops: run queue, mailbox, and the round that a driver calls. Coroutines switch only to and
 * from the frame of co_loop_run, which does for them what cannot be done on their own stack:
 * ending them and sending them to other loops. */
#include <string.h>
#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/base/spin.h"
#include "common/co/co_impl.h"

#define IDLE_STACKS_MAX 256u /* kept by one loop; more go to the process's cache */

/* Every loop of the process: the root from which tools/gdb/zbs.py finds all coroutines. */
static struct {
    struct spin lock;
    struct list loops;
} loop_registry = {SPIN_INIT, {&loop_registry.loops, &loop_registry.loops}};

struct co_loop *co_loop_new(const char *name, const struct co_loop_ops *ops, void *driver,
                            struct env *env)
{
    /* Not of the running process's heap: a simulated crash frees that before the loop. */
    struct co_loop *loop = mem_raw_alloc(sizeof(*loop));
    size_t len = strlen(name);

    co_fault_handler_install();
    loop->name = mem_raw_alloc(len + 1);
    memcpy(loop->name, name, len);
    loop->ctx = (struct thread_ctx){&loop->err, NULL, loop->name, NULL, loop};
    loop->ops = ops;
    loop->driver = driver;
    loop->env = env;
    heap_init(&loop->timers, mem_raw_realloc);
    list_init(&loop->stacks);
    spin_lock(&loop_registry.lock);
    list_push_back(&loop_registry.loops, &loop->registered);
    spin_unlock(&loop_registry.lock);
    return loop;
}

void *co_loop_driver(struct co_loop *loop)
{
    return loop->driver;
}

struct env *co_loop_env(struct co_loop *loop)
{
    return loop->env;
}

const char *co_loop_name(struct co_loop *loop)
{
    return loop->name;
}

uint32_t co_loop_count(struct co_loop *loop)
{
    return loop->live_count;
}

nsec_t co_loop_longest_stall(struct co_loop *loop)
{
    nsec_t stall = loop->longest_stall;

    loop->longest_stall = 0;
    return stall;
}

nsec_t co_loop_held_since(const struct co_loop *loop)
{
    return atomic_load_explicit(&loop->held_since, memory_order_relaxed);
}

size_t co_loop_stack_high_water(struct co_loop *loop)
{
    return loop->stack_high_water;
}

nsec_t co_loop_next_timer(struct co_loop *loop)
{
    return heap_top_key(&loop->timers);
}

bool co_loop_ready(struct co_loop *loop)
{
    return loop->ready_count > 0 || atomic_load_explicit(&loop->mail, memory_order_acquire) != 0;
}

struct co_loop *co_loop_bind(struct co_loop *loop)
{
    struct co_loop *former = co_loop();

    ASSERTF(co_self() == NULL, "a coroutine binds its thread to a loop");
    thread_ctx_set(loop != NULL ? &loop->ctx : NULL);
    return former;
}

void co_loop_start(struct co_loop *loop, const char *name, int (*fn)(void *arg), void *arg,
                   void (*done)(void *arg, int rc))
{
    co_launch(loop, name, fn, arg)->done = done;
}

/* ---- run queue ---- */

void co_ready_push(struct co_loop *loop, struct co *co)
{
    co->next = NULL;
    if (loop->ready_first == NULL)
        loop->ready_first = co;
    else
        loop->ready_last->next = co;
    loop->ready_last = co;
    loop->ready_count++;
    if (UNLIKELY(!loop->running) && loop->ops->kick != NULL)
        loop->ops->kick(loop);
}

static struct co *ready_pop(struct co_loop *loop)
{
    struct co **slot = &loop->ready_first, *before = NULL, *co;

    if (UNLIKELY(loop->ops->pick != NULL) && loop->ready_count > 1) {
        uint32_t n = loop->ops->pick(loop, loop->ready_count);

        ASSERT(n < loop->ready_count);
        while (n-- > 0) {
            before = *slot;
            slot = &before->next;
        }
    }
    co = *slot;
    *slot = co->next;
    if (loop->ready_last == co)
        loop->ready_last = before;
    loop->ready_count--;
    return co;
}

/* ---- mail from other threads ---- */

enum { CO_MAIL_POST, CO_MAIL_WAIT, CO_MAIL_CO, CO_MAIL_MASK = 3 };

struct co_post {
    struct list node;
    void (*fn)(void *arg);
    void *arg;
};

static void mail_send(struct co_loop *target, struct list *node, unsigned tag)
{
    uintptr_t letter = (uintptr_t)node | tag;
    uintptr_t head = atomic_load_explicit(&target->mail, memory_order_relaxed);

    do
        node->next = (struct list *)head;
    while (!atomic_compare_exchange_weak_explicit(&target->mail, &head, letter,
                                                  memory_order_release, memory_order_relaxed));
    if (head == 0)
        target->ops->wakeup(target);
}

void co_mail_send_co(struct co_loop *target, struct co *co)
{
    mail_send(target, &co->mail, CO_MAIL_CO);
}

void co_post(struct co_loop *target, void (*fn)(void *arg), void *arg)
{
    struct co_post *p = mem_raw_alloc(sizeof(*p));

    p->fn = fn;
    p->arg = arg;
    mail_send(target, &p->node, CO_MAIL_POST);
}

void co_resume_remote(struct co_loop *loop, struct co_wait *w, int rc)
{
    w->rc = rc; /* read by the loop after the mail: see co_suspend_by */
    mail_send(loop, &w->link, CO_MAIL_WAIT);
}

/* Takes all mail; returns the oldest letter, chained to newer ones. */
static uintptr_t mail_take(struct co_loop *loop)
{
    uintptr_t newest = 0, oldest = 0;

    if (atomic_load_explicit(&loop->mail, memory_order_relaxed) != 0)
        newest = atomic_exchange_explicit(&loop->mail, 0, memory_order_acquire);
    while (newest != 0) {
        struct list *node = (struct list *)(newest & ~(uintptr_t)CO_MAIL_MASK);
        uintptr_t older = (uintptr_t)node->next;

        node->next = (struct list *)oldest;
        oldest = newest;
        newest = older;
    }
    return oldest;
}

static void co_arrive(struct co_loop *loop, struct co *co)
{
    list_init(&co->mail);
    list_push_back(&loop->stacks, &co->all);
    loop->live_count++;
    if (co->home == loop)
        co->away = false;
    co_ready_push(loop, co);
}

static void mail_deliver(struct co_loop *loop)
{
    for (uintptr_t letter = mail_take(loop), next; letter != 0; letter = next) {
        struct list *node = (struct list *)(letter & ~(uintptr_t)CO_MAIL_MASK);

        next = (uintptr_t)node->next;
        switch (letter & CO_MAIL_MASK) {
        case CO_MAIL_CO:
            co_arrive(loop, CONTAINER_OF(node, struct co, mail));
            break;
        case CO_MAIL_WAIT: {
            struct co_wait *w = CONTAINER_OF(node, struct co_wait, link);

            list_init(node);
            co_resume(w, w->rc);
            break;
        }
        default: {
            struct co_post *p = CONTAINER_OF(node, struct co_post, node);
            void (*fn)(void *arg) = p->fn;
            void *arg = p->arg;

            mem_raw_free(p);
            fn(arg);
        }
        }
    }
}

/* ---- the round ---- */

static void timers_fire(struct co_loop *loop)
{
    /* A timer that re-arms itself in the past waits for the next round. */
    for (uint32_t n = loop->timers.count; n > 0 && heap_top_key(&loop->timers) <= loop->now; n--) {
        struct co_timer *t = CONTAINER_OF(heap_pop(&loop->timers), struct co_timer, heap_pos);

        t->fn(t);
    }
}

static void co_depart(struct co_loop *loop, struct co *co)
{
    struct co_loop *target = co->target;

    list_del(&co->all);
    loop->live_count--;
    if (co->home == loop)
        co->away = true;
    co->ctx.loop = target;
    co->ctx.loop_name = target->name;
    co_mail_send_co(target, co);
}

static void idle_trim(struct co_loop *loop)
{
    while (loop->idle_count > IDLE_STACKS_MAX) {
        struct co *co = loop->idle;

        loop->idle = co->next;
        loop->idle_count--;
        list_del(&co->all);
        co_stack_free(co);
    }
}

static void co_run_one(struct co_loop *loop, struct co *co)
{
    enum co_after after;

    thread_ctx_set(&co->ctx);
    co_san_leave(&loop->san, &co->san);
    co_switch(&loop->sw, &co->sw);
    co_san_arrive(&loop->san, NULL);
    after = co->after;
    if (LIKELY(after == CO_AFTER_NOTHING))
        return;
    co->after = CO_AFTER_NOTHING;
    if (after == CO_AFTER_END)
        co_ended(loop, co);
    else
        co_depart(loop, co);
}

static void now_set(struct co_loop *loop, nsec_t now)
{
    loop->now = now;
    atomic_store_explicit(&loop->held_since, now, memory_order_relaxed);
}

static void look_at_clock(struct co_loop *loop)
{
    nsec_t now = loop->ops->now(loop);

    if (now - loop->now > loop->longest_stall)
        loop->longest_stall = now - loop->now;
    now_set(loop, now);
}

bool co_loop_run(struct co_loop *loop, uint32_t budget)
{
    const struct thread_ctx *former = thread_ctx_get();
    uint32_t left = budget != 0 ? budget : UINT32_MAX;

    ASSERTF(!loop->running, "loop %s is run while it runs", loop->name);
    loop->running = true;
    thread_ctx_set(&loop->ctx);
    co_fault_stack_install();
    co_san_thread(&loop->san);
    now_set(loop, loop->ops->now(loop));
    for (;;) {
        mail_deliver(loop);
        timers_fire(loop);
        for (uint32_t n = 0; n < CO_RUN_BATCH && left > 0 && loop->ready_first != NULL; n++) {
            left -= budget != 0;
            co_run_one(loop, ready_pop(loop));
        }
        thread_ctx_set(&loop->ctx);
        look_at_clock(loop);
        if (left == 0 || !co_loop_ready(loop)) /* due timers: the driver looks at I/O first */
            break;
    }
    idle_trim(loop);
    loop->running = false;
    atomic_store_explicit(&loop->held_since, 0, memory_order_relaxed);
    thread_ctx_set(former);
    return co_loop_ready(loop);
}

/* ---- the end ---- */

/* Releases a coroutine's stack, whatever is on it. */
static void co_discard(struct co *co)
{
    if (co->live) {
        co->live = false;
        co_stack_abandon(co, co_main);
    }
    co_stack_free(co);
}

void co_loop_free(struct co_loop *loop, bool discard)
{
    ASSERTF(!loop->running, "loop %s is freed while it runs", loop->name);
    ASSERTF(discard || loop->live_count == 0, "loop %s is freed with %u coroutines", loop->name,
            loop->live_count);
    ASSERT(co_loop() != loop);
    spin_lock(&loop_registry.lock);
    list_del(&loop->registered);
    spin_unlock(&loop_registry.lock);
    for (uintptr_t letter = mail_take(loop), next; letter != 0; letter = next) {
        struct list *node = (struct list *)(letter & ~(uintptr_t)CO_MAIL_MASK);

        next = (uintptr_t)node->next;
        if ((letter & CO_MAIL_MASK) == CO_MAIL_POST) {
            mem_raw_free(CONTAINER_OF(node, struct co_post, node));
        } else if ((letter & CO_MAIL_MASK) == CO_MAIL_CO) {
            ASSERTF(discard, "a coroutine is on its way to loop %s", loop->name);
            co_discard(CONTAINER_OF(node, struct co, mail));
        }
    }
    while (!list_empty(&loop->stacks)) {
        struct co *co = LIST_FIRST(&loop->stacks, struct co, all);

        list_del(&co->all);
        co_discard(co);
    }
    heap_fini(&loop->timers, mem_raw_free);
    mem_raw_free(loop->name);
    mem_raw_free(loop);
}
