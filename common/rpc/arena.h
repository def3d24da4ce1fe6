/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory of one message or request, released in one go. The first chunk comes from a pool that
 * the client or server keeps, so that a call allocates nothing in the steady state. An arena has
 * a limit, because a small frame of unknown fields unpacks into something many times larger.
 *
 * A pool belongs to the loop that made it; an arena may be released on any loop (it then goes back
 * to the heap instead of the pool). */
#ifndef ZBS_RPC_ARENA_H
#define ZBS_RPC_ARENA_H

#include <stdbool.h>
#include <protobuf-c/protobuf-c.h>
#include "common/base/attr.h"

#define ARENA_FIRST_BYTES 4096u /* of an arena with its first chunk */
#define ARENA_POOL_KEEP   256u  /* unused arenas that a pool keeps at most */

struct arena;
struct arena_pool;

struct arena_pool *arena_pool_new(void);
/* Arenas that are still out keep the pool's memory until they are released. */
void arena_pool_close(struct arena_pool *p);

/* limit_bytes: of everything allocated from it, the first chunk included. */
struct arena *arena_new(struct arena_pool *p, size_t limit_bytes);
void arena_free(struct arena *a); /* NULL is allowed */

/* Aligned to 8 bytes, not zeroed; NULL when the limit would be passed. */
void *arena_alloc(struct arena *a, size_t bytes);
/* Raises the limit: what a handler allocates for its reply is the service's business. */
void arena_set_limit(struct arena *a, size_t limit_bytes);
/* Memory held, first chunk included. */
size_t arena_bytes(const struct arena *a);
/* Has an allocation failed for the limit? */
bool arena_exhausted(const struct arena *a);

/* For protobuf-c: lives as long as the arena; freeing does nothing. */
ProtobufCAllocator *arena_allocator(struct arena *a);

/* Limit for unpacking a message of so many bytes: sparse messages of many fields legitimately grow
 * about fifty times, hostile ones are stopped at a fixed sum. */
static inline size_t arena_unpack_limit(size_t message_bytes)
{
    return MIN((size_t)256 * 1024 + 64 * message_bytes, (size_t)16 * 1024 * 1024);
}

#endif
