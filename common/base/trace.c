/* SPDX-License-Identifier: Apache-2.0
 *
 * Per-thread ring of recent events. */
#include <inttypes.h>
#include <stdio.h>
#include "common/base/thread_ctx.h"
#include "common/base/trace.h"

struct trace_record {
    const char *what;    /* NULL: never written */
    const char *co_name; /* NULL outside coroutines */
    uint64_t a, b, c;
};

struct trace_ring {
    uint64_t next;
    struct trace_record records[TRACE_RING_RECORDS];
};

static __thread struct trace_ring ring;

NOINLINE void trace(const char *what, uint64_t a, uint64_t b, uint64_t c)
{
    const struct thread_ctx *ctx = thread_ctx_get();
    struct trace_record *r = &ring.records[ring.next++ % TRACE_RING_RECORDS];

    *r = (struct trace_record){what, ctx != NULL ? ctx->co_name : NULL, a, b, c};
}

NOINLINE void trace_dump(int fd)
{
    uint64_t from = ring.next > TRACE_RING_RECORDS ? ring.next - TRACE_RING_RECORDS : 0;

    for (uint64_t i = from; i < ring.next; i++) {
        const struct trace_record *r = &ring.records[i % TRACE_RING_RECORDS];

        dprintf(fd, "  trace %" PRIu64 " [%s] %s %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", i,
                r->co_name != NULL ? r->co_name : "-", r->what, r->a, r->b, r->c);
    }
}
