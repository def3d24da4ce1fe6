/* SPDX-License-Identifier: Apache-2.0
 *
 * Coroutine micro-benchmarks. */
#undef _FORTIFY_SOURCE /* its longjmp refuses to go to another stack */
#include <setjmp.h>
#include <time.h>
#include <ucontext.h>
#include "common/base/mem.h"
#include "common/co/co.h"
#include "common/co/loop.h"
#include "common/co/switch.h"
#include "tools/bench/bench_co.h"

#define ROUNDS        7
#define SWITCHES      1000000u
#define SLOW_SWITCHES 100000u
#define SPAWNS        200000u
#define SPAWN_BATCH   100u
#define STACK_BYTES   (128u * 1024)

static nsec_t clock_ns(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * NSEC_PER_SEC + ts.tv_nsec;
}

/* Best time of one of `count` operations. */
static double best_of(void (*run)(uint32_t count), uint32_t count)
{
    double best = 0.0;

    run(count / 10); /* warm */
    for (int round = 0; round < ROUNDS; round++) {
        nsec_t begin = clock_ns();
        double ns;

        run(count);
        ns = (double)(clock_ns() - begin) / count;
        if (round == 0 || ns < best)
            best = ns;
    }
    return best;
}

/* ---- our switch alone ---- */

static struct co_ctx raw_main, raw_other;

static void raw_entry(struct co_ctx *from, struct co_ctx *self)
{
    (void)from;
    for (;;)
        co_switch(self, &raw_main);
}

static void raw_run(uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        co_switch(&raw_main, &raw_other);
}

static double raw_measure(void)
{
    void *stack = mem_alloc_aligned(4096, STACK_BYTES);
    double ns;

    co_ctx_make(&raw_other, stack, STACK_BYTES, raw_entry);
    ns = best_of(raw_run, SWITCHES);
    mem_free(stack);
    return ns;
}

/* ---- swapcontext ---- */

static ucontext_t uc_main, uc_other;

static void uc_entry(void)
{
    for (;;)
        (void)swapcontext(&uc_other, &uc_main);
}

static void uc_run(uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        (void)swapcontext(&uc_main, &uc_other);
}

static void uc_make(ucontext_t *uc, void *stack, void (*entry)(void))
{
    (void)getcontext(uc);
    uc->uc_stack.ss_sp = stack;
    uc->uc_stack.ss_size = STACK_BYTES;
    uc->uc_link = NULL;
    makecontext(uc, entry, 0);
}

static double uc_measure(void)
{
    void *stack = mem_alloc_aligned(4096, STACK_BYTES);
    double ns;

    uc_make(&uc_other, stack, uc_entry);
    ns = best_of(uc_run, SLOW_SWITCHES);
    mem_free(stack);
    return ns;
}

/* ---- sigsetjmp and siglongjmp, the second stack entered once by swapcontext ---- */

static sigjmp_buf jmp_main, jmp_other;

static void jmp_entry(void)
{
    for (;;)
        if (sigsetjmp(jmp_other, 0) == 0)
            siglongjmp(jmp_main, 1);
}

static void jmp_run(uint32_t count)
{
    for (volatile uint32_t i = 0; i < count; i++)
        if (sigsetjmp(jmp_main, 0) == 0)
            siglongjmp(jmp_other, 1);
}

static double jmp_measure(void)
{
    void *stack = mem_alloc_aligned(4096, STACK_BYTES);
    double ns;

    uc_make(&uc_other, stack, jmp_entry);
    if (sigsetjmp(jmp_main, 0) == 0)
        (void)swapcontext(&uc_main, &uc_other);
    ns = best_of(jmp_run, SWITCHES);
    mem_free(stack);
    return ns;
}

/* ---- coroutines on a loop ---- */

static nsec_t loop_now(struct co_loop *loop)
{
    (void)loop;
    return clock_ns();
}

static void loop_wakeup(struct co_loop *loop)
{
    (void)loop;
}

static const struct co_loop_ops loop_ops = {.now = loop_now, .wakeup = loop_wakeup};

static void yield_run(uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        (void)co_yield ();
}

static int nothing(void *arg)
{
    (void)arg;
    return 0;
}

static void spawn_run(uint32_t count)
{
    struct co_group g;

    co_group_init(&g);
    for (uint32_t i = 0; i < count; i += SPAWN_BATCH) {
        for (uint32_t j = 0; j < SPAWN_BATCH; j++)
            co_spawn(&g, "leaf", nothing, NULL);
        (void)co_group_join(&g);
    }
}

static int measure_on_loop(void *arg)
{
    struct bench_co *ret = arg;

    ret->yield_ns = best_of(yield_run, SWITCHES);
    ret->create_destroy_ns = best_of(spawn_run, SPAWNS);
    return 0;
}

void bench_co_run(struct bench_co *ret)
{
    struct co_loop *loop = co_loop_new("bench", &loop_ops, NULL, NULL);

    co_loop_start(loop, "bench", measure_on_loop, ret, NULL);
    while (co_loop_run(loop, 0))
        ;
    co_loop_free(loop, false);
    ret->switch_in_out_ns = raw_measure();
    ret->swapcontext_switch_in_out_ns = uc_measure();
    ret->sjlj_switch_in_out_ns = jmp_measure();
}
