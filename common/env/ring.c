/* SPDX-License-Identifier: Apache-2.0
 *
 * The order of things: positions and announcements are stored and loaded sequentially consistent,
 * so that of "I sleep, is there anything?" and "here is something, do you sleep?" at least one
 * sees the other. */
#include "common/env/ring.h"
#include <assert.h>
#include <string.h>
#include "common/base/assert.h"
#include "common/base/err.h"

static_assert((RING_BYTES & (RING_BYTES - 1)) == 0, "positions wrap");
static_assert(offsetof(struct ring_mem, head) == 64 && offsetof(struct ring_mem, bytes) == 128,
              "sides do not share a cache line");

/* Bytes in the ring as the reader sees them; more than RING_BYTES: nonsense. */
static uint32_t used_by_reader(const struct ring *r)
{
    return atomic_load(&r->mem->tail) - r->pos;
}

static uint32_t used_by_writer(const struct ring *w)
{
    return w->pos - atomic_load(&w->mem->head);
}

/* The part of a vector that is next to be copied, up to max bytes. */
struct piece {
    const struct iovec *iov;
    int n;
    size_t done; /* of the first entry */
};

static uint8_t *piece_next(struct piece *p, size_t max, size_t *ret_len)
{
    uint8_t *at;

    while (p->n > 0 && p->done == p->iov->iov_len) {
        p->iov++;
        p->n--;
        p->done = 0;
    }
    if (p->n == 0 || max == 0) {
        *ret_len = 0;
        return NULL;
    }
    at = (uint8_t *)p->iov->iov_base + p->done;
    *ret_len = MIN(max, p->iov->iov_len - p->done);
    p->done += *ret_len;
    return at;
}

/* Clears the other side's announcement; true: it had made one. */
static bool flag_take(_Atomic uint32_t *flag)
{
    return atomic_load(flag) != 0 && atomic_exchange(flag, 0) != 0;
}

ssize_t ring_read(struct ring *r, const struct iovec *iov, int n, bool *ret_ring)
{
    struct piece p = {iov, n, 0};
    uint32_t used = used_by_reader(r), left = used;
    uint8_t *dst;
    size_t len;

    *ret_ring = false;
    if (used > RING_BYTES)
        return err_set(ERR_PROTO, "shared ring with %u bytes in it", used);
    while (left > 0) {
        uint32_t at = r->pos % RING_BYTES;

        dst = piece_next(&p, MIN(left, RING_BYTES - at), &len);
        if (dst == NULL)
            break;
        memcpy(dst, r->mem->bytes + at, len);
        r->pos += (uint32_t)len;
        left -= (uint32_t)len;
    }
    if (left == used)
        return 0;
    atomic_store(&r->mem->head, r->pos);
    *ret_ring = flag_take(&r->mem->writer_sleeps);
    return used - left;
}

ssize_t ring_write(struct ring *w, const struct iovec *iov, int n, bool *ret_ring)
{
    struct piece p = {iov, n, 0};
    uint32_t used = used_by_writer(w), before = w->pos;
    const uint8_t *src;
    size_t len;

    *ret_ring = false;
    if (used > RING_BYTES)
        return err_set(ERR_PROTO, "shared ring with %u bytes in it", used);
    while (used < RING_BYTES) {
        uint32_t at = w->pos % RING_BYTES;

        src = piece_next(&p, MIN(RING_BYTES - used, RING_BYTES - at), &len);
        if (src == NULL)
            break;
        memcpy(w->mem->bytes + at, src, len);
        w->pos += (uint32_t)len;
        used += (uint32_t)len;
    }
    if (w->pos == before)
        return 0;
    atomic_store(&w->mem->tail, w->pos);
    *ret_ring = flag_take(&w->mem->reader_sleeps);
    return w->pos - before;
}

void ring_close(struct ring *w)
{
    atomic_store(&w->mem->closed, 1);
}

bool ring_closed(const struct ring *r)
{
    return atomic_load(&r->mem->closed) != 0;
}

bool ring_readable(const struct ring *r)
{
    return used_by_reader(r) != 0;
}

bool ring_writable(const struct ring *w)
{
    return used_by_writer(w) != RING_BYTES;
}

bool ring_reader_sleeps(struct ring *r)
{
    atomic_store(&r->mem->reader_sleeps, 1);
    if (!ring_readable(r))
        return true;
    atomic_store(&r->mem->reader_sleeps, 0);
    return false;
}

bool ring_writer_sleeps(struct ring *w)
{
    atomic_store(&w->mem->writer_sleeps, 1);
    if (!ring_writable(w))
        return true;
    atomic_store(&w->mem->writer_sleeps, 0);
    return false;
}
