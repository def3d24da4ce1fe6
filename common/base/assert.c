/* SPDX-License-Identifier: Apache-2.0
 *
 * The end of a process whose invariants broke: say everything that is known, then abort. */
#include <execinfo.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "common/base/assert.h"
#include "common/base/thread_ctx.h"
#include "common/base/trace.h"

void assert_fail(const char *expr, const char *file, int line, const char *fmt, ...)
{
    static __thread int depth;
    const struct thread_ctx *ctx = thread_ctx_get();
    char why[512];
    void *frames[48];
    va_list ap;

    if (depth++ > 0) /* the report itself failed */
        abort();
    va_start(ap, fmt);
    (void)vsnprintf(why, sizeof(why), fmt, ap);
    va_end(ap);
    dprintf(STDERR_FILENO, "assertion failed: %s at %s:%d, coroutine %s, loop %s: %s\n", expr, file,
            line, ctx != NULL && ctx->co_name != NULL ? ctx->co_name : "-",
            ctx != NULL ? ctx->loop_name : "-", why);
    trace_dump(STDERR_FILENO);
    backtrace_symbols_fd(frames, backtrace(frames, ARRAY_SIZE(frames)), STDERR_FILENO);
    abort();
}
