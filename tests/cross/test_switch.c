/* SPDX-License-Identifier: Apache-2.0
 *
 * The context switch alone, without libraries, so that it can be built for another processor and
 * run under an emulator (make check-aarch64): integers and floating-point values that are alive
 * across a switch, stacks of their own, alignment at the entry, and many contexts in turn. */
#include <stdio.h>
#include <stdlib.h>
#include "common/co/switch.h"

#define CONTEXTS 16
#define ROUNDS   20000
#define STACK    (64 * 1024)

#ifdef ZBS_CO_PORTABLE
void co_ctx_portable_start(unsigned hi, unsigned lo)
{
    struct co_ctx *self = (struct co_ctx *)(((uintptr_t)hi << 32) | lo);

    self->entry(self->from, self);
}
#endif

static struct co_ctx main_ctx, contexts[CONTEXTS];
static uint64_t sums[CONTEXTS], turns;
static double halves[CONTEXTS];

static void check(int ok, const char *what)
{
    if (ok)
        return;
    printf("FAIL %s\n1 failed\n", what);
    exit(1);
}

/* Deep enough for values to be in stack slots and registers alike. */
static __attribute__((noinline)) uint64_t work(int depth, unsigned me, uint64_t a, double d)
{
    uint64_t b = a * 3 + me, c = a ^ 0x5555, e = a + 7, f = a << 1, g = ~a;
    double x = d / 2, y = d * 3, z = d + 1;

    if (depth > 0)
        return work(depth - 1, me, a + 1, d + 1) + b;
    turns++;
    co_switch(&contexts[me], &contexts[(me + 1) % CONTEXTS]);
    check(b == a * 3 + me && c == (a ^ 0x5555) && e == a + 7 && f == a << 1 && g == ~a,
          "integers that were alive");
    check(x == d / 2 && y == d * 3 && z == d + 1, "floating-point values that were alive");
    halves[me] += x;
    return b;
}

static void context_main(struct co_ctx *from, struct co_ctx *self)
{
    unsigned me = (unsigned)(self - contexts);
    _Alignas(16) char probe[16];

    check(from == (me == 0 ? &main_ctx : &contexts[me - 1]), "who switched here");
    check(((uintptr_t)probe & 15) == 0, "the stack's alignment");
    for (uint64_t i = 0; i < ROUNDS; i++)
        sums[me] += work((int)(i % 5), me, i, (double)i);
    if (me == CONTEXTS - 1)
        co_switch(self, &main_ctx);
    co_switch(self, &contexts[me + 1]);
    check(0, "an ended context went on");
}

int main(void)
{
    for (unsigned i = 0; i < CONTEXTS; i++) {
        void *stack = malloc(STACK);

        check(stack != NULL, "memory");
        co_ctx_make(&contexts[i], stack, STACK, context_main);
    }
    co_switch(&main_ctx, &contexts[0]);
    check(turns == (uint64_t)CONTEXTS * ROUNDS, "turns");
    for (unsigned i = 1; i < CONTEXTS; i++)
        check(sums[i] > sums[0] && halves[i] == halves[0], "sums");
    printf("%llu switches\n1 passed, 0 failed\n", (unsigned long long)turns);
    return 0;
}
