/* SPDX-License-Identifier: Apache-2.0
 *
 * Page-aligned, reference-counted payload buffers, and slices of them. A payload is received
 * from a socket into a buffer once and handed on by reference down to the device. Reference
 * counts are atomic, because a buffer may be released on another thread; the contents are
 * immutable once shared. Memory comes from per-size pools and counts towards a process limit. */
#ifndef ZBS_BASE_BUF_H
#define ZBS_BASE_BUF_H

#include <stdatomic.h>
#include <stdbool.h>
#include <sys/uio.h>
#include "common/base/attr.h"

#define BUF_ALIGN     4096u
#define BUF_BYTES_MAX (64u << 20)

struct buf {
    uint8_t *data; /* aligned to BUF_ALIGN */
    size_t cap;    /* usable bytes, a multiple of BUF_ALIGN */
    atomic_uint refs;
    uint32_t pool; /* size class, private */
};

/* While a tracked heap is set (mem.h, the simulator) buffers belong to that heap and die with it:
 * a simulated network hands over copies, never references. Callable anywhere. */

/* At least len bytes, contents undefined, one reference for the caller. len <= 64 MiB. */
struct buf *buf_alloc(size_t len);
struct buf *buf_get(struct buf *b); /* one more reference; returns b */
void buf_put(struct buf *b);        /* NULL is allowed */

/* As buf_alloc, or NULL if the process would go over its limit: for admission. */
struct buf *buf_try_alloc(size_t len);

/* The limit: buf_try_alloc refuses beyond it and idle buffers are given back to the system.
 * buf_alloc is not refused (work that was admitted may finish). Default: no limit. */
void buf_limit_set(uint64_t bytes);
uint64_t buf_used_bytes(void); /* in use now, in pools not counted; not those of tracked heaps */
void buf_pool_trim(void);      /* gives back all idle buffers */

/* Memory that other processes may map, for buffers from then on as long as there is room: set once,
 * before the first buffer. Its pages come and go with what is used of it. */
struct buf_arena {
    uint8_t *base; /* page-aligned */
    uint64_t bytes;
    int fd;
};
void buf_arena_set(const struct buf_arena *a);
const struct buf_arena *buf_arena(void); /* NULL: none */
/* Does the buffer lie in it? Then where. */
bool buf_arena_offset(const struct buf *b, uint64_t *ret);

/* A buffer that is memory of somebody else, who may change it at any time, and who outlives it:
 * data and cap aligned to BUF_ALIGN. Not counted. */
struct buf *buf_foreign(void *data, size_t cap);
bool buf_is_foreign(const struct buf *b);

/* A run of bytes in a buffer. Does not own a reference unless said so. */
struct slice {
    struct buf *buf;
    uint32_t off, len;
};

static inline uint8_t *slice_data(const struct slice *s)
{
    return s->buf->data + s->off;
}

/* A page of zeroes, shared, read-only. */
extern const uint8_t zero_page[BUF_ALIGN];

/* Is every byte zero? len may be anything. */
int mem_is_zero(const void *p, size_t len);

#endif
