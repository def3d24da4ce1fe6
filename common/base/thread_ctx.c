/* SPDX-License-Identifier: Apache-2.0
 *
 * The one thread-local pointer of the runtime. */
#include "common/base/thread_ctx.h"

static __thread const struct thread_ctx *current;

NOINLINE const struct thread_ctx *thread_ctx_get(void)
{
    __asm__ volatile(""); /* keeps callers from merging two calls around a suspension */
    return current;
}

NOINLINE void thread_ctx_set(const struct thread_ctx *ctx)
{
    __asm__ volatile("");
    current = ctx;
}
