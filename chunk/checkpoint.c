/* SPDX-License-Identifier: Apache-2.0
 *
 * Dirty metadata pages on their way home. A batch is written twice: to the staging area as one
 * durable write, then in place. A crash in the first leaves the pages in place untouched; a crash
 * in the second is mended at start from the staging area, which then holds the newest image of
 * each of its pages. So pages are never torn, and a batch is atomic. */
#include <inttypes.h>
#include <string.h>
#include "chunk/internal.h"

struct batch {
    struct dev *d;
    uint8_t *pages;    /* stage header, then images */
    uint64_t *offs;    /* of the images */
    struct ext **exts; /* held while their pages are on the way */
    uint32_t n, n_exts;
};

static uint32_t image_one(struct batch *b, struct mpage *m)
{
    struct dev *d = b->d;
    uint8_t *dst = b->pages + (size_t)(1 + b->n) * PAGE_BYTES;
    uint64_t *off = &b->offs[b->n];

    switch (m->kind) {
    case MP_BITMAP:
        *off = d->g.bitmap_off + (uint64_t)m->index * PAGE_BYTES;
        memset(dst, 0, sizeof(struct meta_head));
        memcpy(dst + sizeof(struct meta_head), d->bits + (size_t)m->index * (BITS_PER_PAGE / 64),
               META_BODY_BYTES);
        meta_seal(&d->sb, dst, META_BITMAP, *off, 0, m->index, 0);
        return 1;
    case MP_MAP:
        *off = map_off(m->ext, m->index);
        if (m->map != NULL)
            memcpy(dst, m->map, PAGE_BYTES);
        else
            memset(dst, 0, PAGE_BYTES);
        meta_seal(&d->sb, dst, META_MAP, *off, m->ext->id, m->index, 0);
        return 1;
    case MP_HEAD:
    default:
        return head_pack(m->ext, dst, off);
    }
}

/* Snapshots what is dirty since records up to rsn, as much as fits. */
static void batch_fill(struct batch *b, uint64_t rsn)
{
    struct dev *d = b->d;

    LIST_FOREACH_SAFE (m, &d->dirty, struct mpage, dirty) {
        uint32_t most = m->kind == MP_HEAD ? 1 + OVERFLOW_PAGES : 1;

        if (m->dirty_rsn > rsn)
            continue;
        if (b->n + most > d->g.stage_pages)
            break;
        b->n += image_one(b, m);
        list_del(&m->dirty);
        m->dirty_rsn = RSN_NONE;
        if (m->ext != NULL)
            b->exts[b->n_exts++] = ext_get(m->ext);
    }
}

static int batch_stage(struct batch *b)
{
    struct dev *d = b->d;
    struct stage_head *h = (struct stage_head *)b->pages;
    int rc;

    memset(h, 0, PAGE_BYTES);
    h->count = b->n;
    for (uint32_t i = 0; i < b->n; i++) {
        h->e[i].off = b->offs[i];
        h->e[i].crc = crc32c(0, b->pages + (size_t)(1 + i) * PAGE_BYTES, PAGE_BYTES);
    }
    meta_seal(&d->sb, h, META_STAGE, d->g.stage_off, 0, 0, 0);
    d->stage_started++;
    rc = dev_write(d, b->pages, (size_t)(1 + b->n) * PAGE_BYTES, d->g.stage_off, true);
    if (rc == 0) {
        d->stage_durable = d->stage_started;
        pending_release(d);
    }
    return rc;
}

static int batch_home(struct batch *b)
{
    struct dev *d = b->d;
    struct disk_req *reqs = MEM_NEW_ARRAY(struct disk_req, b->n);
    struct iovec *iov = MEM_NEW_ARRAY(struct iovec, b->n);
    uint32_t n = 0;
    int rc = 0;

    for (uint32_t i = 0; i < b->n; i++) {
        uint8_t *page = b->pages + (size_t)(1 + i) * PAGE_BYTES;

        if (i > 0 && b->offs[i] == b->offs[i - 1] + PAGE_BYTES) {
            iov[n - 1].iov_len += PAGE_BYTES; /* images lie one behind the other */
            continue;
        }
        iov[n] = (struct iovec){page, PAGE_BYTES};
        reqs[n] = (struct disk_req){
            .op = DISK_WRITE, .disk = d->disk, .off = b->offs[i], .iov = &iov[n], .iov_count = 1};
        n++;
    }
    for (uint32_t i = 0; i < n; i++)
        disk_submit(&reqs[i]);
    for (uint32_t i = 0; i < n; i++) {
        int one = disk_wait(&reqs[i]);

        if (one < 0)
            rc = one;
    }
    d->bytes_written += (uint64_t)b->n * PAGE_BYTES;
    mem_free(iov);
    mem_free(reqs);
    return rc < 0 ? rc : dev_flush(d);
}

int checkpoint_to(struct dev *d, uint64_t rsn)
{
    struct batch b = {.d = d};
    struct pin pin;
    int rc = 0;

    b.pages = mem_alloc_aligned(PAGE_BYTES, (size_t)(1 + d->g.stage_pages) * PAGE_BYTES);
    b.offs = MEM_NEW_ARRAY(uint64_t, d->g.stage_pages);
    b.exts = MEM_NEW_ARRAY(struct ext *, d->g.stage_pages);
    do {
        b.n = b.n_exts = 0;
        batch_fill(&b, rsn);
        if (b.n == 0)
            break;
        pin_begin(d, &pin);
        /* The images may be ahead of the journal. */
        rc = journal_sync(d);
        if (rc == 0)
            rc = batch_stage(&b);
        if (rc == 0)
            rc = batch_home(&b);
        pin_end(d, &pin);
        while (b.n_exts > 0)
            ext_put(b.exts[--b.n_exts]);
    } while (rc == 0);
    mem_free(b.exts);
    mem_free(b.offs);
    mem_free(b.pages);
    return rc;
}

/* ---- at start ---- */

static int stage_restore(struct dev *d, const struct stage_head *h, uint8_t *images)
{
    uint8_t *home = mem_alloc_aligned(PAGE_BYTES, PAGE_BYTES);
    uint32_t restored = 0;
    int rc = 0;

    for (uint32_t i = 0; i < h->count && rc == 0; i++) {
        rc = disk_read(d->disk, home, PAGE_BYTES, h->e[i].off);
        if (rc < 0 || memcmp(home, images + (size_t)i * PAGE_BYTES, PAGE_BYTES) == 0)
            continue;
        rc = dev_write(d, images + (size_t)i * PAGE_BYTES, PAGE_BYTES, h->e[i].off, false);
        restored++;
    }
    if (rc == 0) /* also what lies in place already may be in the device's cache only */
        rc = dev_flush(d);
    if (restored > 0)
        log_info("stage.restored", "disk=%s pages=%" PRIu32, d->path, restored);
    mem_free(home);
    return rc;
}

/* Is the batch whole, and all of it within the region's metadata? */
static bool stage_whole(const struct dev *d, const struct stage_head *h, const uint8_t *images)
{
    uint64_t end = d->g.data_off + (uint64_t)d->g.blocks * BLOCK_BYTES;

    for (uint32_t i = 0; i < h->count; i++) {
        const uint8_t *image = images + (size_t)i * PAGE_BYTES;

        if (h->e[i].off < d->g.bitmap_off || h->e[i].off > end - PAGE_BYTES ||
            h->e[i].off % PAGE_BYTES != 0 || crc32c(0, image, PAGE_BYTES) != h->e[i].crc ||
            ((const struct meta_head *)image)->off != h->e[i].off)
            return false;
    }
    return true;
}

int stage_recover(struct dev *d)
{
    size_t len = (size_t)(1 + d->g.stage_pages) * PAGE_BYTES;
    uint8_t *pages = mem_alloc_aligned(PAGE_BYTES, len);
    const struct stage_head *h = (const struct stage_head *)pages;
    int rc = disk_read(d->disk, pages, len, d->g.stage_off);

    if (rc == 0 && meta_check(&d->sb, pages, META_STAGE, d->g.stage_off, 0, 0) == 0 &&
        h->count <= d->g.stage_pages && stage_whole(d, h, pages + PAGE_BYTES))
        rc = stage_restore(d, h, pages + PAGE_BYTES);
    /* Its images end here: blocks that held metadata then may hold data from now on. */
    if (rc == 0 && !mem_is_zero(pages, PAGE_BYTES))
        rc = dev_write(d, zero_page, PAGE_BYTES, d->g.stage_off, true);
    mem_free(pages);
    return rc < 0 ? err_prefix(rc, "staging area") : 0;
}
