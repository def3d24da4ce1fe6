/* SPDX-License-Identifier: Apache-2.0
 *
 * Volume handles: what front ends call. An I/O is cut into runs inside extents, which go in
 * parallel. */
#include "access/vol/vol_int.h"

#include <string.h>

#define RUNS_AT_ONCE 16u

struct vol {
    struct volume *v;
    uint64_t importing; /* the import that it is for; 0: none */
    uint32_t active;
    struct co_cond idle;
};

int vol_open(struct vol_engine *e, uint64_t volume_id, struct vol **ret)
{
    struct volume *v;
    int rc = vol_object_get(e, volume_id, &v);

    if (rc < 0)
        return rc;
    *ret = MEM_NEW(struct vol);
    (*ret)->v = v;
    co_cond_init(&(*ret)->idle);
    v->handles++;
    return 0;
}

int vol_open_import(struct vol_engine *e, uint64_t volume_id, uint64_t importing, struct vol **ret)
{
    int rc = vol_open(e, volume_id, ret);

    if (rc == 0)
        (*ret)->importing = importing;
    return rc;
}

void vol_close(struct vol *h)
{
    while (h->active > 0)
        co_cond_wait_always(&h->idle);
    h->v->handles--;
    mem_free(h);
}

const struct vol_info *vol_info(const struct vol *h)
{
    return &h->v->info;
}

int vol_refresh(struct vol *h)
{
    return vol_object_refresh(h->v);
}

void vol_space(const struct vol *h, uint64_t *ret_bytes, uint64_t *ret_free)
{
    uint32_t replicas = MAX(h->v->info.replicas, 1u);

    *ret_bytes = h->v->e->space_bytes / replicas;
    *ret_free = h->v->e->space_free_bytes / replicas;
}

static int vol_begin(struct vol *h, uint64_t off, uint64_t len)
{
    const struct volume *v = h->v;

    if (off % SECTOR_BYTES != 0 || len % SECTOR_BYTES != 0)
        return err_set(ERR_INVAL, "%" PRIu64 " bytes at %" PRIu64 ": not whole sectors", len, off);
    if (off > v->info.size_bytes || len > v->info.size_bytes - off)
        return err_set(ERR_TOO_LARGE,
                       "%" PRIu64 " bytes at %" PRIu64 " are beyond the volume's end", len, off);
    if (v->deleted)
        return err_set(ERR_NOTFOUND, "volume %" PRIu64 " was deleted", v->info.id);
    h->active++;
    return 0;
}

static void vol_end(struct vol *h)
{
    if (--h->active == 0)
        co_cond_broadcast(&h->idle);
}

/* For what moves or changes data: within the limits (data: bytes that count). */
static int vol_begin_io(struct vol *h, uint64_t off, uint64_t len, uint64_t data)
{
    int rc = vol_begin(h, off, len);

    if (rc < 0)
        return rc;
    rc = qos_enter(h->v, data);
    if (rc == 0 && off + len > h->v->info.size_bytes) /* it was made smaller meanwhile */
        rc = err_set(ERR_TOO_LARGE, "%" PRIu64 " bytes at %" PRIu64 " are beyond the volume's end",
                     len, off);
    if (rc < 0)
        vol_end(h);
    return rc;
}

/* Is the volume free for this handle's writes? */
static int import_check(struct vol *h)
{
    const struct vol_info *i = &h->v->info;

    int rc = 0;

    if (i->importing != h->importing)
        rc = vol_object_refresh(h->v); /* it may have ended, or begun */
    if (rc < 0 || i->importing == h->importing)
        return rc;
    return h->importing ? err_set(ERR_STALE, "the import into %s/%s has ended", i->pool, i->name)
                        : err_set(ERR_PERM, "%s/%s is being imported: it can't be written", i->pool,
                                  i->name);
}

static int vol_begin_write(struct vol *h, uint64_t off, uint64_t len, uint64_t data)
{
    const struct vol_info *i = &h->v->info;
    int rc;

    if (i->read_only)
        return err_set(ERR_PERM, "%s/%s is a snapshot: it can't be written", i->pool, i->name);
    rc = import_check(h);
    return rc < 0 ? rc : vol_begin_io(h, off, len, data);
}

/* ---- runs ---- */

static int run_io(void *arg)
{
    return io_run(arg);
}

/* All of them at once; the first in our own coroutine. */
static int runs_go(struct io *ios, uint32_t n)
{
    struct co_group g;
    int rc, group_rc;

    if (n == 1)
        return io_run(&ios[0]);
    co_group_init(&g);
    for (uint32_t k = 1; k < n; k++)
        co_spawn(&g, "run", run_io, &ios[k]);
    rc = io_run(&ios[0]);
    group_rc = co_group_join(&g);
    return rc < 0 ? rc : group_rc;
}

static int io_prepare(struct volume *v, struct io *io, enum io_kind kind, uint32_t slot,
                      uint32_t off, uint32_t len)
{
    memset(io, 0, sizeof(*io));
    io->kind = kind;
    io->slot = vol_slot_at(v, slot);
    io->off = off;
    io->len = len;
    io->reservations = v->e->reservations_seen;
    return io->slot ? 0 : err_set(ERR_TOO_LARGE, "slot %u is beyond the volume's end", slot);
}

static int vol_data(struct vol *h, enum io_kind kind, uint64_t off, uint32_t len, struct buf *buf,
                    uint32_t buf_off)
{
    struct volume *v = h->v;
    struct io ios[RUNS_AT_ONCE];
    int rc = 0;

    while (len > 0 && rc == 0) {
        uint32_t n = 0;

        while (len > 0 && n < RUNS_AT_ONCE && rc == 0) {
            struct layout_run r = layout_first_run(&v->info.layout, off, MIN(len, OP_BYTES_MAX));

            rc = io_prepare(v, &ios[n], kind, r.slot, r.offset, r.len);
            ios[n].buf = buf;
            ios[n].buf_off = buf_off;
            n++;
            off += r.len;
            len -= r.len;
            buf_off += r.len;
        }
        if (rc == 0)
            rc = runs_go(ios, n);
    }
    return rc;
}

int vol_read(struct vol *h, uint64_t off, uint32_t len, struct buf *dst, uint32_t dst_off)
{
    struct vol_engine_stats *stats = &h->v->e->stats;
    nsec_t start = co_now();
    int rc = vol_begin_io(h, off, len, len);

    if (rc < 0)
        return rc;
    ASSERT((uint64_t)dst_off + len <= dst->cap);
    rc = vol_data(h, IO_READ, off, len, dst, dst_off);
    stats->reads++;
    stats->read_bytes += rc == 0 ? len : 0;
    stats->longest_read_ns = MAX(stats->longest_read_ns, co_now() - start);
    vol_end(h);
    return rc;
}

int vol_write(struct vol *h, uint64_t off, uint32_t len, struct buf *src, uint32_t src_off)
{
    struct vol_engine_stats *stats = &h->v->e->stats;
    nsec_t start = co_now();
    int rc = vol_begin_write(h, off, len, len);

    if (rc < 0)
        return rc;
    ASSERT((uint64_t)src_off + len <= src->cap);
    rc = vol_data(h, IO_WRITE, off, len, src, src_off);
    stats->writes++;
    stats->write_bytes += rc == 0 ? len : 0;
    stats->longest_write_ns = MAX(stats->longest_write_ns, co_now() - start);
    vol_end(h);
    return rc;
}

int vol_compare_and_write(struct vol *h, uint64_t off, uint32_t len, struct buf *cmp,
                          uint32_t cmp_off, struct buf *src, uint32_t src_off, uint32_t *ret_offset)
{
    struct layout_run r;
    struct io io;
    int rc;

    if (len == 0 || len > PAGE_BYTES - off % PAGE_BYTES)
        return err_set(ERR_INVAL, "a compare and write of %u bytes at %" PRIu64, len, off);
    rc = vol_begin_write(h, off, len, len);
    if (rc < 0)
        return rc;
    r = layout_first_run(&h->v->info.layout, off, len);
    ASSERT(r.len == len);
    rc = io_prepare(h->v, &io, IO_COMPARE_AND_WRITE, r.slot, r.offset, r.len);
    io.buf = cmp;
    io.buf_off = cmp_off;
    io.buf2 = src;
    io.buf2_off = src_off;
    if (rc == 0)
        rc = io_run(&io);
    *ret_offset = io.miscompare;
    if (io.sent && rc != 0)
        rc = ERR_AMBIGUOUS;
    vol_end(h);
    return rc;
}

/* ---- holes ---- */

static int slot_is_hole(struct slot *s, bool *ret)
{
    struct entry en;
    int rc = slot_enter(s, ENTER_READ, &en);

    *ret = rc == 0 && !en.t && !en.shared;
    if (rc == 0)
        slot_leave(s, &en);
    return rc == ERR_NOT_OWNER ? 0 : rc;
}

/* One answer serves all slots of a stripe group: it is a hole if each of them is. */
static int group_is_hole(struct volume *v, uint64_t off, uint64_t len, bool *ret)
{
    const struct layout *l = &v->info.layout;
    uint64_t at = off;
    int rc = 0;

    *ret = true;
    for (uint32_t k = 0; k < l->stripe_count && at - off < len && *ret && rc == 0; k++) {
        struct layout_run r = layout_first_run(l, at, len - (at - off));
        struct slot *s = vol_slot_at(v, r.slot);

        rc = s ? slot_is_hole(s, ret) : err_set(ERR_TOO_LARGE, "slot %u is beyond the end", r.slot);
        at += r.len;
    }
    return rc;
}

int vol_hole(struct vol *h, uint64_t off, uint64_t len, bool *ret_hole, uint64_t *ret_len)
{
    const struct layout *l = &h->v->info.layout;
    uint64_t group_bytes = (uint64_t)l->stripe_count * EXTENT_BYTES, at = off, end = off + len;
    int rc = vol_begin(h, off, len);

    if (rc < 0)
        return rc;
    while (at < end && rc == 0) {
        uint64_t n = MIN(end - at, group_bytes - at % group_bytes);
        bool hole;

        rc = group_is_hole(h->v, at, n, &hole);
        if (rc == 0 && at == off)
            *ret_hole = hole;
        if (rc == 0 && hole != *ret_hole)
            break;
        at += n;
    }
    *ret_len = at - off;
    vol_end(h);
    return rc;
}

int vol_flush(struct vol *h)
{
    int rc = vol_begin(h, 0, 0);

    if (rc == 0)
        vol_end(h);
    return rc;
}

/* ---- zeroes ---- */

/* What a range of one stripe group is in one of its slots: always one run. */
static bool group_span(const struct layout *l, uint64_t start, uint64_t end, uint32_t slot,
                       uint32_t *ret_off, uint32_t *ret_len)
{
    uint64_t first = start / l->stripe_bytes, last = (end - 1) / l->stripe_bytes;
    uint64_t lo, hi, from, to;

    /* First and last stripe unit of the range that lie in this slot. */
    lo = first + (slot + l->stripe_count - first % l->stripe_count) % l->stripe_count;
    hi = last - (last % l->stripe_count + l->stripe_count - slot) % l->stripe_count;
    if (lo > last || last < (last % l->stripe_count + l->stripe_count - slot) % l->stripe_count ||
        hi < lo)
        return false;
    from = lo / l->stripe_count * l->stripe_bytes;
    to = (hi / l->stripe_count + 1) * l->stripe_bytes;
    if (lo == first)
        from += start % l->stripe_bytes;
    if (hi == last)
        to -= (last + 1) * l->stripe_bytes - end;
    *ret_off = (uint32_t)from;
    *ret_len = (uint32_t)(to - from);
    return true;
}

struct zero_batch {
    struct volume *v;
    enum io_kind kind;
    struct io ios[RUNS_AT_ONCE];
    uint32_t n;
    int rc;
};

static void zero_go(struct zero_batch *b)
{
    if (b->rc == 0 && b->n > 0)
        b->rc = runs_go(b->ios, b->n);
    b->n = 0;
}

static void zero_span(struct zero_batch *b, uint32_t slot, uint32_t off, uint32_t len)
{
    while (len > 0 && b->rc == 0) {
        /* Pieces end where blocks do, so that whole ones are freed. */
        uint32_t n = MIN(ZERO_BYTES_MAX - off % BLOCK_BYTES, len);

        b->rc = io_prepare(b->v, &b->ios[b->n++], b->kind, slot, off, n);
        off += n;
        len -= n;
        if (b->n == RUNS_AT_ONCE)
            zero_go(b);
    }
}

static int vol_zeroes(struct vol *h, enum io_kind kind, uint64_t off, uint64_t len)
{
    const struct layout *l = &h->v->info.layout;
    uint64_t group_bytes = (uint64_t)l->stripe_count * EXTENT_BYTES;
    struct zero_batch *b;
    int rc = vol_begin_write(h, off, len, 0);

    if (rc < 0)
        return rc;
    b = MEM_NEW(struct zero_batch);
    b->v = h->v;
    b->kind = kind;
    while (len > 0 && b->rc == 0) {
        uint64_t start = off % group_bytes;
        uint64_t end = MIN(start + len, group_bytes);
        uint32_t base = (uint32_t)(off / group_bytes * l->stripe_count);

        for (uint32_t k = 0; k < l->stripe_count; k++) {
            uint32_t span_off, span_len;

            if (group_span(l, start, end, k, &span_off, &span_len))
                zero_span(b, base + k, span_off, span_len);
        }
        off += end - start;
        len -= end - start;
    }
    zero_go(b);
    rc = b->rc;
    mem_free(b);
    vol_end(h);
    return rc;
}

int vol_zero(struct vol *h, uint64_t off, uint64_t len)
{
    return vol_zeroes(h, IO_ZERO, off, len);
}

int vol_discard(struct vol *h, uint64_t off, uint64_t len)
{
    return vol_zeroes(h, IO_DISCARD, off, len);
}
