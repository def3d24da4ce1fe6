/* SPDX-License-Identifier: Apache-2.0
 *
 * What the calling thread is running: set by common/co around every resumption, read here so
 * that errors, logs and assertions know the coroutine without this folder knowing coroutines. */
#ifndef ZBS_BASE_THREAD_CTX_H
#define ZBS_BASE_THREAD_CTX_H

#include "common/base/attr.h"
#include "common/base/err.h"

struct thread_ctx {
    struct err_slot *err;  /* never NULL */
    const char *co_name;   /* NULL outside coroutines */
    const char *loop_name; /* never NULL */
    struct co *co;         /* NULL outside coroutines */
    struct co_loop *loop;  /* never NULL */
};

/* The calling thread's context, NULL on a thread that runs no loop. Not inlined: a coroutine may
 * move between threads, and compilers keep addresses of thread-local variables. */
const struct thread_ctx *thread_ctx_get(void);
void thread_ctx_set(const struct thread_ctx *ctx);

#endif
