/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading: pages come from memory, from the ring or from home, and every one that comes from a
 * device is checked against its checksum before anybody sees it. */
#include <inttypes.h>
#include <string.h>
#include "chunk/internal.h"
#include "common/base/mutate.h"

uint32_t zero_page_crc(void)
{
    return ZERO_PAGE_CRC;
}

enum source { FROM_ZERO, FROM_MEMORY, FROM_RING, FROM_HOME };
struct page_source {
    enum source from;
    bool ahead; /* it was read ahead for this reader */
    uint32_t crc;
    uint64_t off; /* not ZERO: on the device */
    /* MEMORY: valid until the next suspension */
    struct buf *buf;
    const uint8_t *data;
};
struct reading {
    struct ext *x;
    uint32_t first, count;
    uint8_t *dst;
    struct page_source *src;
    bool cached;      /* look for pages in the cache */
    bool keep;        /* put what was read into it */
    struct buf *room; /* dst lies there if nothing is kept; NULL: none */
    uint32_t data;    /* pages that are not zero */
    uint32_t hits;    /* pages that the cache had */
    uint32_t loading; /* pages that are just being read ahead */
};

bool page_home(struct ext *x, uint32_t page, uint64_t *ret_off, uint32_t *ret_crc)
{
    uint32_t bit = page % PAGES_PER_BLOCK;
    const struct map_entry *en;
    const struct map_src *src;

    if (!block_mapped(x, page / PAGES_PER_BLOCK))
        return false;
    en = map_get(x, page / PAGES_PER_BLOCK);
    src = entry_source(en, bit);
    if (src == NULL)
        return false;
    *ret_crc = en->crc[bit];
    *ret_off = block_off(x->dev, src->block) + (uint64_t)bit * PAGE_BYTES;
    return true;
}

static void source_cached(struct reading *r, struct page_source *s)
{
    struct cached hit;
    enum cache_answer a = cache_find(r->x->dev, s->off, s->crc, &hit);

    r->loading += a == CACHE_LOADING;
    if (a == CACHE_MISS || a == CACHE_LOADING)
        return;
    r->hits++;
    s->from = FROM_MEMORY;
    s->ahead = a == CACHE_AHEAD;
    s->buf = hit.buf;
    s->data = hit.data;
}

static void source_find(struct reading *r, uint32_t page, struct page_source *s)
{
    const struct jpage *jp = jpage_find(r->x, page);

    *s = (struct page_source){.from = FROM_ZERO, .crc = ZERO_PAGE_CRC};
    if (jp != NULL) {
        s->crc = jp->crc;
        s->from = jp->buf != NULL ? FROM_MEMORY : FROM_RING;
        s->off = ring_off(&r->x->dev->j, jp->pos);
        s->buf = jp->buf;
        s->data = jp->data;
    } else if (page_home(r->x, page, &s->off, &s->crc)) {
        s->from = FROM_HOME;
        if (r->cached)
            source_cached(r, s);
    }
    r->data += s->from != FROM_ZERO;
}

static void sources_find(struct reading *r)
{
    r->data = r->hits = r->loading = 0;
    for (uint32_t i = 0; i < r->count; i++)
        source_find(r, r->first + i, &r->src[i]);
}

/* At once: what memory has may leave it. */
static void sources_copy(const struct reading *r)
{
    for (uint32_t i = 0; i < r->count; i++) {
        if (r->src[i].from == FROM_MEMORY)
            memcpy(r->dst + (size_t)i * PAGE_BYTES, r->src[i].data, PAGE_BYTES);
    }
}

/* Reads the pages i..i+n-1, which lie behind one another on the device. */
static void run_submit(struct reading *r, struct disk_req *req, struct iovec *iov, uint32_t i,
                       uint32_t n)
{
    *iov = (struct iovec){r->dst + (size_t)i * PAGE_BYTES, (size_t)n * PAGE_BYTES};
    *req =
        (struct disk_req){.op = DISK_READ,
                          .disk = r->src[i].from == FROM_RING ? r->x->dev->ring : r->x->dev->disk,
                          .off = r->src[i].off,
                          .iov = iov,
                          .iov_count = 1};
    disk_submit(req);
}

static int sources_fetch(struct reading *r)
{
    struct disk_req *reqs = NULL, one_req;
    struct iovec *iovs = NULL, one_iov;
    uint32_t n = 0;
    int rc = 0;

    if (r->count > 1) {
        reqs = MEM_NEW_ARRAY(struct disk_req, r->count);
        iovs = MEM_NEW_ARRAY(struct iovec, r->count);
    }
    for (uint32_t i = 0; i < r->count;) {
        uint32_t k = 1;

        if (r->src[i].from != FROM_RING && r->src[i].from != FROM_HOME) {
            i++;
            continue;
        }
        while (i + k < r->count && r->src[i + k].from == r->src[i].from &&
               r->src[i + k].off == r->src[i].off + (uint64_t)k * PAGE_BYTES)
            k++;
        run_submit(r, reqs != NULL ? &reqs[n] : &one_req, iovs != NULL ? &iovs[n] : &one_iov, i, k);
        n++;
        i += k;
    }
    for (uint32_t i = 0; i < n; i++) {
        int got = disk_wait(reqs != NULL ? &reqs[i] : &one_req);

        if (got < 0)
            rc = got;
    }
    if (rc < 0) {
        r->x->dev->io_errors++;
        err_prefix(rc, "extent %" PRIu64 ", disk %s", r->x->id, r->x->dev->path);
    }
    mem_free(reqs);
    mem_free(iovs);
    return rc;
}

static bool source_good(const struct reading *r, uint32_t i)
{
    const struct page_source *s = &r->src[i];

    return (s->from != FROM_RING && s->from != FROM_HOME) ||
           (mutate(MUT_NO_CHECKSUM) ||
            crc32c(0, r->dst + (size_t)i * PAGE_BYTES, PAGE_BYTES) == s->crc);
}

/* ERR_CORRUPT names the place. */
static int sources_verify(const struct reading *r)
{
    for (uint32_t i = 0; i < r->count; i++) {
        if (!source_good(r, i))
            return err_set(ERR_CORRUPT,
                           "extent %" PRIu64 " page %" PRIu32 ": checksum mismatch (disk %s, byte "
                           "%" PRIu64 ")",
                           r->x->id, r->first + i, r->x->dev->path, r->src[i].off);
    }
    return 0;
}

/* Remembered, so that the owner is asked to write them anew. */
static void corrupt_note_all(const struct reading *r)
{
    for (uint32_t i = 0; i < r->count; i++) {
        if (!source_good(r, i))
            corrupt_note(r->x, r->first + i);
    }
}

/* A page that shares its buffer with others would keep all of them. */
static void keep_one(const struct reading *r, uint32_t i, struct buf *buf)
{
    const struct page_source *s = &r->src[i];
    const uint8_t *data = r->dst + (size_t)i * PAGE_BYTES;

    if (buf != NULL && buf->cap == PAGE_BYTES) {
        cache_put(r->x->dev, s->off, buf, data, s->crc);
        return;
    }
    buf = buf_alloc(PAGE_BYTES);
    memcpy(buf->data, data, PAGE_BYTES);
    cache_put(r->x->dev, s->off, buf, buf->data, s->crc);
    buf_put(buf);
}

/* Once more, in case the transfer was at fault, or whoever else can write to the memory: nobody can
 * now, so a device is not blamed for that. */
static int sources_again(struct reading *r)
{
    struct buf *own = buf_alloc((size_t)r->count * PAGE_BYTES);
    uint8_t *dst = r->dst;
    int rc;

    r->dst = own->data;
    rc = sources_fetch(r);
    if (rc == 0)
        rc = sources_verify(r);
    if (rc == ERR_CORRUPT) {
        log_error("page.corrupt", "%s", err_text(rc));
        corrupt_note_all(r);
    }
    for (uint32_t i = 0; i < r->count && rc == 0; i++) {
        if (r->src[i].from == FROM_RING || r->src[i].from == FROM_HOME)
            memcpy(dst + (size_t)i * PAGE_BYTES, own->data + (size_t)i * PAGE_BYTES, PAGE_BYTES);
    }
    r->dst = dst;
    buf_put(own);
    return rc;
}

/* Copies and reads all pages, verified. buf: dst lies there. */
static int sources_read(struct reading *r, struct buf *buf)
{
    struct pin pin;
    int rc;

    pin_begin(r->x->dev, &pin);
    sources_copy(r);
    rc = sources_fetch(r);
    if (rc == 0)
        rc = sources_verify(r);
    if (rc == ERR_CORRUPT)
        rc = sources_again(r);
    for (uint32_t i = 0; i < r->count && rc == 0; i++) {
        if (r->src[i].from == FROM_ZERO)
            memset(r->dst + (size_t)i * PAGE_BYTES, 0, PAGE_BYTES);
        if (r->src[i].from == FROM_HOME && r->keep)
            keep_one(r, i, buf);
    }
    pin_end(r->x->dev, &pin);
    return rc;
}

int pages_read(struct ext *x, uint32_t first, uint32_t count, uint8_t *dst, uint32_t *crc,
               bool *ret_zero)
{
    struct page_source one;
    struct reading r = {.x = x, .first = first, .count = count, .dst = dst, .src = &one};
    int rc = 0;

    if (count > 1)
        r.src = mem_alloc(count * sizeof(*r.src));
    sources_find(&r);
    *ret_zero = r.data == 0;
    if (r.data > 0)
        rc = sources_read(&r, NULL);
    for (uint32_t i = 0; i < count && rc == 0 && crc != NULL; i++)
        crc[i] = r.src[i].crc;
    if (count > 1)
        mem_free(r.src);
    return rc;
}

static bool any_mapped(const struct ext *x, uint32_t first, uint32_t last)
{
    for (uint32_t b = first; b <= last; b++) {
        if (block_mapped(x, b))
            return true;
    }
    return false;
}

/* An admitted reader of some pages gets their range, and holds their map. */
static int read_begin(uint32_t first, uint32_t count, struct op *op, struct co_range *range,
                      struct map_hold *hold)
{
    uint32_t b0 = first / PAGES_PER_BLOCK, b1 = (first + count - 1) / PAGES_PER_BLOCK;
    int rc;

    rc = co_range_acquire(&op->ext->lock, range, first, count, false);
    if (rc < 0)
        goto err_after_op;
    rc = op_check(op);
    if (rc == 0 && any_mapped(op->ext, b0, b1)) {
        rc = map_hold(op->ext, b0, b1, hold);
        if (rc == 0)
            rc = op_check(op);
    }
    if (rc == 0)
        return 0;
    map_release(hold);
    co_range_release(&op->ext->lock, range);
err_after_op:
    op_end(op);
    return rc;
}

static void read_end(struct op *op, struct co_range *range, struct map_hold *hold)
{
    map_release(hold);
    co_range_release(&op->ext->lock, range);
    op_end(op);
}

/* ---- a request ---- */

#define KEEP_PAGES_MAX 15u /* longer requests gain little from the cache */

/* Checksums of the pieces asked for: whole pages have theirs. */
static void piece_crcs(struct read_result *ret, uint32_t off, uint32_t len)
{
    uint32_t at = off, end = off + len;

    for (uint32_t i = 0; i < ret->n_crc; i++) {
        uint32_t next = MIN((at / PAGE_BYTES + 1) * PAGE_BYTES, end);

        if (next - at != PAGE_BYTES)
            ret->crc[i] = crc32c(
                0, ret->zero ? zero_page : ret->buf->data + ret->buf_off + (at - off), next - at);
        at = next;
    }
}

/* All pages lie behind one another in one buffer. */
static bool in_one_buffer(const struct reading *r)
{
    for (uint32_t i = 0; i < r->count; i++) {
        const struct page_source *s = &r->src[i];

        if (s->from != FROM_MEMORY || s->buf != r->src[0].buf ||
            s->data != r->src[0].data + (size_t)i * PAGE_BYTES)
            return false;
    }
    return true;
}

/* Pages that were read ahead leave when their end was read. */
static void ahead_used(const struct reading *r, uint32_t end)
{
    for (uint32_t i = 0; i < r->count; i++) {
        if (r->src[i].ahead && (r->first + i + 1) * PAGE_BYTES <= end)
            cache_ahead_used(r->x->dev, r->src[i].off);
    }
}

/* Finds the pages; waits for those that are being read ahead. */
static int request_find(const struct op *op, struct reading *r)
{
    int rc = 0;

    for (sources_find(r); r->loading > 0 && rc == 0; sources_find(r)) {
        rc = co_cond_wait(&r->x->dev->loaded);
        if (rc == 0)
            rc = op_check(op);
    }
    return rc;
}

static int request_read(const struct op *op, struct reading *r, uint32_t end,
                        struct read_result *ret)
{
    int rc = request_find(op, r);

    if (rc < 0)
        return rc;
    ret->zero = r->data == 0;
    if (in_one_buffer(r)) {
        ret->buf = buf_get(r->src[0].buf);
        ret->buf_off += (uint32_t)(r->src[0].data - ret->buf->data);
    } else if (!ret->zero) {
        ret->buf = r->room != NULL && !r->keep ? buf_get(r->room)
                                               : buf_alloc((size_t)r->count * PAGE_BYTES);
        r->dst = ret->buf->data;
        rc = sources_read(r, ret->buf);
    }
    if (r->hits > 0)
        ahead_used(r, end);
    for (uint32_t i = 0; i < r->count; i++)
        ret->crc[i] = r->src[i].crc;
    return rc;
}

static int read_admitted(const struct op *op, const struct read_args *a, struct read_result *ret)
{
    uint32_t off = a->off, len = a->len, first = off / PAGE_BYTES;
    struct page_source one;
    struct reading r = {
        .x = op->ext, .first = first, .count = ret->n_crc, .src = &one, .cached = true};
    struct ahead_use ahead;
    int rc;

    readahead_begin(op, off, len, &ahead);
    r.keep = ahead.s == NULL && r.count <= KEEP_PAGES_MAX;
    if (off % PAGE_BYTES == 0 && len % PAGE_BYTES == 0)
        r.room = a->room;
    if (r.count > 1)
        r.src = mem_alloc(r.count * sizeof(*r.src));
    rc = request_read(op, &r, off + len, ret);
    readahead_end(&ahead, r.hits);
    if (r.count > 1)
        mem_free(r.src);
    return rc;
}

static int args_check(const struct read_args *a, struct read_result *ret)
{
    uint32_t off = a->off, len = a->len;

    ret->zero = false;
    ret->buf = NULL;
    ret->n_crc = 0;
    if (off % SECTOR_BYTES != 0 || len % SECTOR_BYTES != 0 || len == 0 || len > READ_MAX_BYTES ||
        off >= EXTENT_BYTES || len > EXTENT_BYTES - off)
        return err_set(ERR_INVAL, "read of %" PRIu32 " bytes at %" PRIu32, len, off);
    return 0;
}

static int read_run(struct op *op, const struct read_args *a, struct read_result *ret)
{
    uint32_t off = a->off, len = a->len, first = off / PAGE_BYTES,
             count = (off + len - 1) / PAGE_BYTES - first + 1;
    struct map_hold hold = {0};
    struct co_range range;
    int rc = read_begin(first, count, op, &range, &hold);

    if (rc < 0)
        return rc;
    ret->buf_off = off % PAGE_BYTES;
    ret->n_crc = count;
    rc = read_admitted(op, a, ret);
    read_end(op, &range, &hold);
    if (rc == 0)
        piece_crcs(ret, off, len);
    if (rc < 0) {
        buf_put(ret->buf);
        ret->buf = NULL;
    }
    return rc;
}

int engine_read_as(struct engine *e, const struct read_args *a, struct read_result *ret)
{
    struct op op;
    int rc = args_check(a, ret);

    if (rc == 0)
        rc = a->epoch != 0 ? op_begin(e, a->id, a->epoch, &op)
                           : op_begin_shared(e, a->id, a->view_epoch, &op);
    return rc < 0 ? rc : read_run(&op, a, ret);
}

int engine_read(struct engine *e, uint64_t id, uint64_t epoch, uint32_t off, uint32_t len,
                struct read_result *ret)
{
    return engine_read_as(e, &(struct read_args){.id = id, .epoch = epoch, .off = off, .len = len},
                          ret);
}

/* ---- digest ---- */

#define DIGEST_STEP PAGES_PER_BLOCK

static int digest_step(struct ext *x, uint32_t first, uint32_t count, bool verify, uint32_t *crc)
{
    struct reading r = {.x = x, .first = first, .count = count};
    struct page_source src[DIGEST_STEP];
    struct buf *buf = buf_alloc((size_t)count * PAGE_BYTES);
    bool zero;
    int rc = 0;

    if (verify) {
        rc = pages_read(x, first, count, buf->data, crc, &zero);
    } else {
        r.src = src;
        r.dst = buf->data;
        sources_find(&r);
        for (uint32_t i = 0; i < count; i++)
            crc[i] = src[i].crc;
    }
    buf_put(buf);
    return rc;
}

int engine_digest(struct engine *e, uint64_t id, uint64_t epoch, uint32_t first, uint32_t count,
                  bool verify, uint32_t *crc)
{
    struct op op;
    int rc;

    if (first >= PAGES_PER_EXTENT || count == 0 || count > DIGEST_MAX ||
        count > PAGES_PER_EXTENT - first)
        return err_set(ERR_INVAL, "digest of pages %" PRIu32 "+%" PRIu32, first, count);
    rc = epoch != 0 ? op_begin(e, id, epoch, &op) : op_begin_shared(e, id, 0, &op);
    if (rc < 0)
        return rc;
    while (count > 0 && rc == 0) {
        uint32_t n = MIN(count, DIGEST_STEP - first % DIGEST_STEP);
        struct map_hold hold = {0};
        struct co_range range;

        rc = co_range_acquire(&op.ext->lock, &range, first, n, false);
        if (rc < 0)
            break;
        if (block_mapped(op.ext, first / PAGES_PER_BLOCK))
            rc = map_hold(op.ext, first / PAGES_PER_BLOCK, first / PAGES_PER_BLOCK, &hold);
        if (rc == 0)
            rc = digest_step(op.ext, first, n, verify, crc);
        map_release(&hold);
        co_range_release(&op.ext->lock, &range);
        first += n;
        crc += n;
        count -= n;
    }
    op_end(&op);
    return rc;
}
