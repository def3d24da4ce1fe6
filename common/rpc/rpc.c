/* SPDX-License-Identifier: Apache-2.0
 *
 * Payloads and replies as callers hold them. */
#include <string.h>
#include "common/base/assert.h"
#include "common/rpc/arena.h"
#include "common/rpc/rpc.h"

void rpc_payload_add(struct rpc_payload *p, struct buf *buf, uint32_t off, uint32_t len)
{
    ASSERT(p->count < RPC_SLICES_MAX);
    ASSERT((uint64_t)off + len <= buf->cap && len <= RPC_PAYLOAD_MAX - p->len);
    if (len == 0)
        return;
    p->slices[p->count++] = (struct slice){buf_get(buf), off, len};
    p->len += len;
}

void rpc_reply_init(struct rpc_reply *r)
{
    *r = (struct rpc_reply){0};
}

void rpc_reply_free(struct rpc_reply *r)
{
    arena_free(r->arena);
    r->arena = NULL;
    r->msg = NULL;
    buf_put(r->payload);
    r->payload = NULL;
    r->payload_len = 0;
    r->answered = false;
}
