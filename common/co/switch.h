/* SPDX-License-Identifier: Apache-2.0
 *
 * The context switch: private to common/co and its benchmark.
 *
 * co_switch(from, to) saves where it is called and goes where `to` was saved. It is inlined and
 * tells the compiler that every register is lost, so the compiler saves only what is alive, and
 * it leaves by an indirect jump that has its own place in the branch predictor; a called function
 * ending in `ret` would mispredict each time. The frame pointer cannot be named as lost and is
 * saved by hand. Floating-point control words are not switched: nobody may change them.
 *
 * A fresh context starts in a plain C function entered by that jump, whose second argument is
 * its own context: both switch arguments travel in the argument registers. */
#ifndef ZBS_CO_SWITCH_H
#define ZBS_CO_SWITCH_H

#include <stdint.h>
#include "common/base/attr.h"

#if !defined(ZBS_CO_PORTABLE) && !defined(__x86_64__) && !defined(__aarch64__)
#define ZBS_CO_PORTABLE 1
#endif

#ifdef ZBS_CO_PORTABLE
#include <ucontext.h>
#endif

struct co_ctx;
/* Entered once, never returns. */
typedef void (*co_ctx_entry)(struct co_ctx *from, struct co_ctx *self);

#ifdef ZBS_CO_PORTABLE

struct co_ctx {
    ucontext_t uc;
    struct co_ctx *from; /* who switched here last; for the first entry */
    co_ctx_entry entry;
};

static inline void co_switch(struct co_ctx *from, struct co_ctx *to)
{
    to->from = from;
    (void)swapcontext(&from->uc, &to->uc);
}

void co_ctx_portable_start(unsigned hi, unsigned lo); /* stack.c */

static inline void co_ctx_make(struct co_ctx *ctx, void *stack, size_t bytes, co_ctx_entry entry)
{
    uint64_t self = (uint64_t)(uintptr_t)ctx;

    (void)getcontext(&ctx->uc);
    ctx->entry = entry;
    ctx->uc.uc_stack.ss_sp = stack;
    ctx->uc.uc_stack.ss_size = bytes;
    ctx->uc.uc_link = NULL;
    makecontext(&ctx->uc, (void (*)(void))co_ctx_portable_start, 2, (unsigned)(self >> 32),
                (unsigned)self);
}

#elif defined(__x86_64__)

struct co_ctx {
    void *ip, *sp, *fp;
};

#ifdef __AVX512F__
#define CO_CLOBBER_AVX512                                                                          \
    , "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25",    \
        "xmm26", "xmm27", "xmm28", "xmm29", "xmm30", "xmm31", "k1", "k2", "k3", "k4", "k5", "k6",  \
        "k7"
#else
#define CO_CLOBBER_AVX512
#endif
#ifdef __CET__
#define CO_LANDING "endbr64\n\t"
#else
#define CO_LANDING
#endif

static inline __attribute__((always_inline)) void co_switch(struct co_ctx *from, struct co_ctx *to)
{
    __asm__ volatile("leaq 1f(%%rip), %%rax\n\t"
                     "movq %%rax, 0(%%rdi)\n\t"
                     "movq %%rsp, 8(%%rdi)\n\t"
                     "movq %%rbp, 16(%%rdi)\n\t"
                     "movq 8(%%rsi), %%rsp\n\t"
                     "movq 16(%%rsi), %%rbp\n\t"
                     "jmpq *0(%%rsi)\n\t"
                     ".p2align 4\n"
                     "1:\n\t" CO_LANDING
                     : "+D"(from), "+S"(to)
                     :
                     : "memory", "cc", "rax", "rbx", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12",
                       "r13", "r14", "r15", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6",
                       "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15",
                       "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)",
                       "st(7)" CO_CLOBBER_AVX512);
}

static inline void co_ctx_make(struct co_ctx *ctx, void *stack, size_t bytes, co_ctx_entry entry)
{
    uintptr_t top = ((uintptr_t)stack + bytes) & ~(uintptr_t)15;
    void **sp = (void **)(top - 24); /* as if called: 8 below a multiple of 16 */

    sp[0] = NULL; /* return address: ends backtraces */
    ctx->ip = (void *)(uintptr_t)entry;
    ctx->sp = sp;
    ctx->fp = NULL;
}

#else /* aarch64 */

struct co_ctx {
    void *ip, *sp, *fp;
};

static inline __attribute__((always_inline)) void co_switch(struct co_ctx *from, struct co_ctx *to)
{
    register struct co_ctx *x0 __asm__("x0") = from;
    register struct co_ctx *x1 __asm__("x1") = to;

    __asm__ volatile("adr x9, 1f\n\t"
                     "mov x10, sp\n\t"
                     "stp x9, x10, [x0]\n\t"
                     "str x29, [x0, #16]\n\t"
                     "ldp x16, x10, [x1]\n\t"
                     "ldr x29, [x1, #16]\n\t"
                     "mov sp, x10\n\t"
                     "mov x30, xzr\n\t"
                     "br x16\n"
                     "1:\n\t"
                     "hint #36\n\t" /* bti j */
                     : "+r"(x0), "+r"(x1)
                     :
                     : "memory", "cc", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11",
                       "x12", "x13", "x14", "x15", "x16", "x17", "x18", "x19", "x20", "x21", "x22",
                       "x23", "x24", "x25", "x26", "x27", "x28", "x30", "v0", "v1", "v2", "v3",
                       "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15",
                       "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26",
                       "v27", "v28", "v29", "v30", "v31");
}

static inline void co_ctx_make(struct co_ctx *ctx, void *stack, size_t bytes, co_ctx_entry entry)
{
    ctx->ip = (void *)(uintptr_t)entry;
    ctx->sp = (void *)(((uintptr_t)stack + bytes) & ~(uintptr_t)15);
    ctx->fp = NULL;
}

#endif

#endif
