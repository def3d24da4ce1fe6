/* SPDX-License-Identifier: Apache-2.0
 *
 * Page-aligned, reference-counted payload buffers, and slices of them. A payload is received
 * from a socket into a buffer once and handed on by reference down to the device. Reference
 * counts are atomic, because a buffer may be released on another thread; the contents are
 * immutable once shared. Memory comes from per-size pools and counts towards a process limit. */
#ifndef ZBS_BASE_BUF_H
#define ZBS_BASE_BUF_H

#include <stdatomic.h>
#include <sys/uio.h>
#include "common/base/attr.h"

#define BUF_ALIGN 4096u

struct buf {
    uint8_t *data; /* aligned to BUF_ALIGN */
    size_t cap;    /* usable bytes, a multiple of BUF_ALIGN */
    atomic_uint refs;
    uint32_t pool; /* size class, private */
};

/* At least len bytes, contents undefined, one reference for the caller. len <= 64 MiB. */
struct buf *buf_alloc(size_t len);
struct buf *buf_get(struct buf *b); /* one more reference; returns b */
void buf_put(struct buf *b);        /* NULL is allowed */

/* A run of bytes in a buffer. Does not own a reference unless said so. */
struct slice {
    struct buf *buf;
    uint32_t off, len;
};

static inline uint8_t *slice_data(const struct slice *s)
{
    return s->buf->data + s->off;
}

/* A page of zeroes (BUF_ALIGN bytes) and a 256 KiB run of zeroes, shared, read-only. */
extern const uint8_t zero_page[BUF_ALIGN];

/* Is every byte zero? len may be anything. */
int mem_is_zero(const void *p, size_t len);

#endif
