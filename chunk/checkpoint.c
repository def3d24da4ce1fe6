/* SPDX-License-Identifier: Apache-2.0
 *
 * Dirty metadata pages on their way home: first the map pages, each to that of its two slots
 * which does not hold the newest image, so that a torn write leaves the former one; then heads
 * (which say how new the map pages must be), overflow, bitmap and reference pages, together with
 * those of the roll, which says how new these must be. These are written twice:
 * to the staging area as one durable write, then in place. A crash in the first leaves the pages
 * in place untouched; a crash in the second is mended at start from the staging area, which then
 * holds the newest image of each of its pages. So they are never torn, and a batch is atomic. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "chunk/internal.h"

/* ---- map pages ---- */

#define MAP_BATCH 256u

struct map_image {
    struct mpage *m;
    struct ext *x;
    uint64_t dirty_rsn, gen, off;
    struct map_page *page;
};
struct map_batch {
    struct dev *d;
    struct map_page *pages;
    struct map_image m[MAP_BATCH];
    uint32_t n;
};

static void map_image(struct map_batch *b, struct mpage *m)
{
    struct map_image *i = &b->m[b->n];

    *i = (struct map_image){
        .m = m, .x = ext_get(m->ext), .dirty_rsn = m->dirty_rsn, .page = &b->pages[b->n]};
    if (m->map != NULL)
        memcpy(i->page, m->map, PAGE_BYTES);
    else
        memset(i->page, 0, PAGE_BYTES);
    mpage_image_begin(m);
    b->n++;
}

static int map_image_cmp(const void *a, const void *b)
{
    const struct map_image *x = a, *y = b;

    return x->off < y->off ? -1 : x->off > y->off;
}

/* Gives the images their places, now that the records which they reflect are durable. */
static void map_batch_seal(struct map_batch *b)
{
    for (uint32_t k = 0; k < b->n; k++) {
        struct map_image *i = &b->m[k];
        uint32_t index = i->m->index, slot = map_slot(i->x->map->gen[index] + 1);

        i->gen = map_gen_next(b->d, slot);
        i->off = map_off(i->x, index, slot);
        meta_seal(&b->d->sb, i->page, META_MAP, i->off, i->x->id, index, i->gen);
    }
    qsort(b->m, b->n, sizeof(b->m[0]), map_image_cmp);
}

static int map_batch_write(struct map_batch *b)
{
    struct disk_req *reqs = MEM_NEW_ARRAY(struct disk_req, b->n);
    struct iovec *iov = MEM_NEW_ARRAY(struct iovec, b->n);
    int rc;

    for (uint32_t k = 0; k < b->n; k++) {
        iov[k] = (struct iovec){b->m[k].page, PAGE_BYTES};
        reqs[k] = (struct disk_req){.op = DISK_WRITE,
                                    .disk = b->d->disk,
                                    .off = b->m[k].off,
                                    .iov = &iov[k],
                                    .iov_count = 1};
    }
    rc = pace_writes(b->d, reqs, b->n);
    b->d->bytes_written += (uint64_t)b->n * PAGE_BYTES;
    mem_free(iov);
    mem_free(reqs);
    return rc < 0 ? rc : dev_flush(b->d);
}

/* From now on the heads call for these images. */
static void map_batch_done(struct map_batch *b, bool ok)
{
    for (uint32_t k = 0; k < b->n; k++) {
        struct map_image *i = &b->m[k];

        if (ok) {
            i->x->map->gen[i->m->index] = i->gen;
            if (!i->x->dead)
                ext_dirty(i->x, i->dirty_rsn);
        }
        mpage_image_end(i->m);
        ext_put(i->x);
    }
}

int maps_to(struct dev *d, uint64_t rsn)
{
    struct map_batch *b = MEM_NEW(struct map_batch);
    struct pin pin;
    int rc = 0;

    b->d = d;
    b->pages = mem_alloc_aligned(PAGE_BYTES, (size_t)MAP_BATCH * PAGE_BYTES);
    do {
        b->n = 0;
        pin_begin(d, &pin);
        LIST_FOREACH_SAFE (m, &d->dirty, struct mpage, dirty) {
            if (b->n == MAP_BATCH)
                break;
            if (m->kind == MP_MAP && m->dirty_rsn <= rsn)
                map_image(b, m);
        }
        /* The images may be ahead of the journal. */
        if (b->n > 0)
            rc = journal_sync(d);
        if (b->n > 0 && rc == 0) {
            map_batch_seal(b);
            rc = map_batch_write(b);
        }
        map_batch_done(b, rc == 0);
        pin_end(d, &pin);
    } while (rc == 0 && b->n > 0);
    mem_free(b->pages);
    mem_free(b);
    return rc;
}

/* ---- staged pages ---- */

struct batch {
    struct dev *d;
    uint8_t *pages;      /* stage header, then images */
    uint64_t *offs;      /* of the images */
    struct mpage **m;    /* of which these are images; their extents are held */
    struct mpage **roll; /* the roll's pages that name these, or are dirty; held */
    uint32_t n, n_m, n_roll;
    uint64_t gen; /* of all of them */
};

struct completing {
    struct ext **x;
    uint32_t n, next;
};

static int complete_main(void *arg)
{
    struct completing *c = arg;
    int rc = 0;

    while (c->next < c->n && (rc == 0 || rc == ERR_CORRUPT)) /* the latter: it is void now */
        rc = map_gens(c->x[c->next++]);
    return rc == ERR_CORRUPT ? 0 : rc;
}

#define COMPLETE_LANES 16u /* reads in flight */

/* A head names the generations of its extent's map pages, which may have left memory. */
static int heads_complete(struct dev *d, uint64_t rsn)
{
    struct completing c = {.x = MEM_NEW_ARRAY(struct ext *, d->g.stage_pages)};
    struct co_group g;
    int rc = 0;

    LIST_FOREACH (m, &d->dirty, struct mpage, dirty) {
        if (m->kind == MP_HEAD && m->dirty_rsn <= rsn && m->ext->map == NULL &&
            c.n < d->g.stage_pages)
            c.x[c.n++] = ext_get(m->ext);
    }
    if (c.n > 0) {
        co_group_init(&g);
        for (uint32_t i = 0; i < MIN(c.n, COMPLETE_LANES); i++)
            co_spawn(&g, "heads", complete_main, &c);
        rc = co_group_join(&g);
    }
    for (uint32_t i = 0; i < c.n; i++)
        ext_put(c.x[i]);
    mem_free(c.x);
    return rc;
}

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
        meta_seal(&d->sb, dst, META_BITMAP, *off, 0, m->index, b->gen);
        return 1;
    case MP_REFS:
        refs_pack(d, m->index, dst, off, b->gen);
        return 1;
    case MP_ROLL:
        roll_pack(d, m->index, dst, off);
        return 1;
    default: /* a head */
        return head_pack(m->ext, dst, off, b->gen);
    }
}

static void batch_add(struct batch *b, struct mpage *m)
{
    mpage_image_begin(m);
    if (m->ext != NULL)
        ext_get(m->ext);
    b->m[b->n_m++] = m;
}

/* The page of the roll that says how new this one is; of the roll's, itself. */
static void batch_add_roll(struct batch *b, struct mpage *m)
{
    if (m->kind == MP_BITMAP)
        m = roll_set(b->d, META_BITMAP, m->index, b->gen);
    else if (m->kind == MP_REFS)
        m = roll_set(b->d, META_REFS, m->index, b->gen);
    else if (m->kind == MP_HEAD)
        m = roll_set(b->d, META_HEAD, m->ext->head, b->gen);
    if (m->holds > 0) /* it is there */
        return;
    mpage_hold(m);
    b->roll[b->n_roll++] = m;
}

static void batch_pack_roll(struct batch *b)
{
    for (uint32_t i = 0; i < b->n_roll; i++) {
        b->n += image_one(b, b->roll[i]);
        batch_add(b, b->roll[i]);
        mpage_release(b->roll[i]);
    }
    b->n_roll = 0;
}

/* Snapshots what is dirty since records up to rsn, as much as fits, and what the roll says of it.
 */
static void batch_fill(struct batch *b, uint64_t rsn)
{
    struct dev *d = b->d;
    b->gen = gen_next(d);

    LIST_FOREACH_SAFE (m, &d->dirty, struct mpage, dirty) {
        uint32_t most = m->kind == MP_HEAD ? 1 + OVERFLOW_PAGES : 1;

        if (m->kind == MP_MAP || m->dirty_rsn > rsn || (m->kind == MP_HEAD && m->ext->map == NULL))
            continue;
        if (b->n + b->n_roll + most + 1 > d->g.stage_pages)
            break;
        batch_add_roll(b, m);
        if (m->kind == MP_ROLL)
            continue;
        b->n += image_one(b, m);
        batch_add(b, m);
    }
    batch_pack_roll(b);
}

static int batch_stage(struct batch *b)
{
    struct dev *d = b->d;
    struct stage_head *h = (struct stage_head *)b->pages;
    int rc;

    for (uint32_t i = 0; i < b->n; i++)
        head_seal(d, b->pages + (size_t)(1 + i) * PAGE_BYTES);

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
    int rc;

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
    rc = pace_writes(d, reqs, n);
    d->bytes_written += (uint64_t)b->n * PAGE_BYTES;
    mem_free(iov);
    mem_free(reqs);
    return rc < 0 ? rc : dev_flush(d);
}

static void batch_done(struct batch *b)
{
    while (b->n_m > 0) {
        struct mpage *m = b->m[--b->n_m];

        mpage_image_end(m);
        if (m->ext != NULL)
            ext_put(m->ext);
    }
}

static int staged_to(struct dev *d, uint64_t rsn)
{
    struct batch b = {.d = d};
    struct pin pin;
    int rc = 0;

    b.pages = mem_alloc_aligned(PAGE_BYTES, (size_t)(1 + d->g.stage_pages) * PAGE_BYTES);
    b.offs = MEM_NEW_ARRAY(uint64_t, d->g.stage_pages);
    b.m = MEM_NEW_ARRAY(struct mpage *, d->g.stage_pages);
    b.roll = MEM_NEW_ARRAY(struct mpage *, d->g.stage_pages);
    do {
        b.n = 0;
        rc = heads_complete(d, rsn);
        if (rc < 0)
            break;
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
        batch_done(&b);
    } while (rc == 0);
    mem_free(b.roll);
    mem_free(b.m);
    mem_free(b.offs);
    mem_free(b.pages);
    return rc;
}

int checkpoint_to(struct dev *d, uint64_t rsn)
{
    int rc = maps_to(d, rsn);

    return rc < 0 ? rc : staged_to(d, rsn);
}

/* ---- at start ---- */

static int stage_restore(struct dev *d, const struct stage_head *h, uint8_t *images)
{
    uint8_t *home = mem_alloc_aligned(PAGE_BYTES, PAGE_BYTES);
    uint32_t restored = 0;
    /* The batch itself may be in the device's cache only: it must not be lost while the pages in
     * place are being written. */
    int rc = dev_flush(d);

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

        if (h->e[i].off < d->g.roll_off || h->e[i].off > end - PAGE_BYTES ||
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
