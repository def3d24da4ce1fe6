/* SPDX-License-Identifier: Apache-2.0
 *
 * A back end in memory, for tests and for running a front end without a cluster. Pages come into
 * being at their first write, so a large one costs nothing. */
#include <string.h>
#include "access/block/block.h"
#include "common/base/assert.h"
#include "common/base/mem.h"

#define RUN_BYTES (64u * 1024)

struct backend_mem {
    struct block_backend base;
    struct block_backend_info info;
    uint8_t **runs; /* NULL: zeroes */
    uint64_t run_count;
    struct co_event *hold;
    int hold_rc;
    uint32_t hold_count;
    struct co_event *confirm;
};

static struct backend_mem *mem_of(struct block_backend *b)
{
    return CONTAINER_OF(b, struct backend_mem, base);
}

static void backend_info(struct block_backend *b, struct block_backend_info *ret)
{
    *ret = mem_of(b)->info;
}

/* Range check and what the test asked for. */
static co_fn int backend_enter(struct backend_mem *m, uint64_t off, uint64_t len)
{
    struct co_event *hold = m->hold;

    if (off % BLOCK_SECTOR_BYTES != 0 || len % BLOCK_SECTOR_BYTES != 0)
        return err_set(ERR_INVAL, "range is not of whole sectors");
    if (off > m->info.size_bytes || len > m->info.size_bytes - off)
        return err_set(ERR_TOO_LARGE, "range beyond the end");
    if (m->hold_count == 0)
        return 0;
    m->hold_count--;
    if (hold != NULL)
        co_event_wait_always(hold);
    return m->hold_rc < 0 ? err_set(m->hold_rc, "injected") : 0;
}

static void run_free(struct backend_mem *m, uint64_t i)
{
    mem_free(m->runs[i]);
    m->runs[i] = NULL;
}

/* Calls for each run of the range: copies in, out, or zeroes. */
enum copy_kind { COPY_OUT, COPY_IN, COPY_ZERO };

static void backend_copy(struct backend_mem *m, enum copy_kind kind, uint64_t off, uint64_t len,
                         uint8_t *data)
{
    while (len > 0) {
        uint64_t i = off / RUN_BYTES, in_run = off % RUN_BYTES, n = MIN(len, RUN_BYTES - in_run);

        ASSERT(i < m->run_count);
        if (kind == COPY_IN && m->runs[i] == NULL)
            m->runs[i] = mem_alloc(RUN_BYTES);
        if (kind == COPY_IN)
            memcpy(m->runs[i] + in_run, data, n);
        else if (kind == COPY_OUT && m->runs[i] == NULL)
            memset(data, 0, n);
        else if (kind == COPY_OUT)
            memcpy(data, m->runs[i] + in_run, n);
        else if (n == RUN_BYTES) /* zeroed whole: a hole again */
            run_free(m, i);
        else if (m->runs[i] != NULL)
            memset(m->runs[i] + in_run, 0, n);
        off += n;
        len -= n;
        if (data != NULL)
            data += n;
    }
}

static co_fn int backend_read(struct block_backend *b, uint64_t off, uint32_t len, struct buf *dst,
                              uint32_t dst_off)
{
    int rc = backend_enter(mem_of(b), off, len);

    if (rc == 0)
        backend_copy(mem_of(b), COPY_OUT, off, len, dst->data + dst_off);
    return rc;
}

static co_fn int backend_write(struct block_backend *b, uint64_t off, uint32_t len, struct buf *src,
                               uint32_t src_off)
{
    int rc = backend_enter(mem_of(b), off, len);

    if (rc == 0)
        backend_copy(mem_of(b), COPY_IN, off, len, src->data + src_off);
    return rc;
}

static co_fn int backend_zero(struct block_backend *b, uint64_t off, uint64_t len)
{
    int rc = backend_enter(mem_of(b), off, len);

    if (rc == 0)
        backend_copy(mem_of(b), COPY_ZERO, off, len, NULL);
    return rc;
}

static co_fn int backend_caw(struct block_backend *b, uint64_t off, uint32_t len, struct buf *cmp,
                             uint32_t cmp_off, struct buf *src, uint32_t src_off,
                             uint32_t *ret_offset)
{
    uint8_t have[4096];
    int rc = backend_enter(mem_of(b), off, len);

    if (rc < 0)
        return rc;
    ASSERT(len <= sizeof(have));
    backend_copy(mem_of(b), COPY_OUT, off, len, have);
    for (uint32_t i = 0; i < len; i++) {
        if (have[i] != cmp->data[cmp_off + i]) {
            *ret_offset = i;
            return err_set(ERR_MISCOMPARE, "byte %u differs", i);
        }
    }
    backend_copy(mem_of(b), COPY_IN, off, len, src->data + src_off);
    return 0;
}

static co_fn int backend_hole(struct block_backend *b, uint64_t off, uint64_t len, bool *ret_hole,
                              uint64_t *ret_len)
{
    struct backend_mem *m = mem_of(b);
    int rc = backend_enter(m, off, len);
    uint64_t end = off + len, at = off;

    if (rc < 0)
        return rc;
    *ret_hole = m->runs[off / RUN_BYTES] == NULL;
    while (at < end && (m->runs[at / RUN_BYTES] == NULL) == *ret_hole)
        at = ROUND_DOWN(at, RUN_BYTES) + RUN_BYTES;
    *ret_len = MIN(at, end) - off;
    return 0;
}

static co_fn int backend_flush(struct block_backend *b)
{
    return backend_enter(mem_of(b), 0, 0);
}

static co_fn int backend_confirm(struct block_backend *b)
{
    struct backend_mem *m = mem_of(b);

    return m->confirm != NULL ? co_event_wait(m->confirm) : 0;
}

static void backend_close(struct block_backend *b)
{
    struct backend_mem *m = mem_of(b);

    for (uint64_t i = 0; i < m->run_count; i++)
        mem_free(m->runs[i]);
    mem_free(m->runs);
    mem_free(m);
}

static const struct block_backend_ops backend_mem_ops = {
    .info = backend_info,
    .read = backend_read,
    .write = backend_write,
    .zero = backend_zero,
    .discard = backend_zero,
    .compare_and_write = backend_caw,
    .hole = backend_hole,
    .flush = backend_flush,
    .confirm = backend_confirm,
    .close = backend_close,
};

struct block_backend *block_backend_mem_new(uint64_t volume_id, uint64_t size_bytes)
{
    struct backend_mem *m = MEM_NEW(struct backend_mem);

    m->base.ops = &backend_mem_ops;
    m->info.volume_id = volume_id;
    memcpy(m->info.uuid, "zbs-memory", 10);
    for (int i = 0; i < 6; i++)
        m->info.uuid[10 + i] = (uint8_t)(volume_id >> (8 * i));
    block_backend_mem_resize(&m->base, size_bytes);
    return &m->base;
}

void block_backend_mem_space(struct block_backend *b, uint64_t bytes, uint64_t free_bytes,
                             uint64_t warn_bytes)
{
    struct block_backend_info *info = &mem_of(b)->info;

    info->space_bytes = bytes;
    info->space_free_bytes = free_bytes;
    info->space_warn_bytes = warn_bytes;
}

void block_backend_mem_protect(struct block_backend *b, bool on)
{
    mem_of(b)->info.read_only = on;
}

void block_backend_mem_resize(struct block_backend *b, uint64_t size_bytes)
{
    struct backend_mem *m = mem_of(b);
    uint64_t runs = DIV_UP(size_bytes, RUN_BYTES);

    for (uint64_t i = runs; i < m->run_count; i++)
        mem_free(m->runs[i]);
    m->runs = mem_realloc(m->runs, runs * sizeof(m->runs[0]));
    for (uint64_t i = m->run_count; i < runs; i++)
        m->runs[i] = NULL;
    m->run_count = runs;
    m->info.size_bytes = size_bytes;
}

void block_backend_mem_hold(struct block_backend *b, struct co_event *until, int rc, uint32_t count)
{
    struct backend_mem *m = mem_of(b);

    m->hold = until;
    m->hold_rc = rc;
    m->hold_count = count;
}

void block_backend_mem_confirm(struct block_backend *b, struct co_event *until)
{
    mem_of(b)->confirm = until;
}
