/* SPDX-License-Identifier: Apache-2.0
 *
 * The engine of one worker as a whole: life, statistics, self-check. */
#include <inttypes.h>
#include <string.h>
#include "chunk/internal.h"

struct engine *engine_new(const struct engine_conf *conf)
{
    struct engine *e = MEM_NEW(struct engine);

    ASSERT(crc32c(0, zero_page, PAGE_BYTES) == zero_page_crc());
    e->conf = *conf;
    if (e->conf.memory_bytes == 0)
        e->conf.memory_bytes = GIB;
    if (e->conf.flush_delay_ms == 0)
        e->conf.flush_delay_ms = 1000;
    if (e->conf.merge_us == 0)
        e->conf.merge_us = 200;
    e->loop = co_loop();
    htab_init(&e->exts);
    list_init(&e->devs);
    list_init(&e->merges);
    co_group_init(&e->drains);
    e->scrub = scrub_new();
    budget_init(&e->memory, e->conf.memory_bytes);
    jpages_init(e);
    mpages_init(e);
    return e;
}

int engine_dev_add(struct engine *e, const char *path, const struct super_block *sb)
{
    struct dev *d;
    int rc = dev_open(e, path, sb, &d);

    if (rc < 0)
        return rc;
    list_push_back(&e->devs, &d->link);
    e->n_devs++;
    return 0;
}

void engine_dev_drop(struct engine *e, const char *path)
{
    LIST_FOREACH_SAFE (d, &e->devs, struct dev, link) {
        if (strcmp(d->path, path) != 0)
            continue;
        list_del(&d->link);
        e->n_devs--;
        dev_close(d);
    }
}

void engine_stop(struct engine *e)
{
    struct list *l;

    e->conf.dev_failed = NULL; /* whoever stops it need not know any more */
    drains_end(e);
    scrub_end(e);
    while ((l = list_pop_front(&e->devs)) != NULL)
        dev_close(LIST_ENTRY(l, struct dev, link));
    scrub_free(e);
    ASSERT(e->memory.used == 0 && e->memory.fixed == 0 && e->dirty_pages == 0);
    htab_fini(&e->exts);
    mem_free(e);
}

int engine_flush(struct engine *e)
{
    LIST_FOREACH (d, &e->devs, struct dev, link) {
        int rc = journal_sync(d);

        if (rc == 0)
            rc = flush_to(d, d->j.durable_rsn);
        if (rc < 0)
            return rc;
    }
    return 0;
}

void engine_devs_absent(struct engine *e, uint32_t n)
{
    e->devs_absent = n;
}

/* ---- statistics ---- */

uint32_t engine_devs(const struct engine *e)
{
    return e->n_devs;
}

static struct dev *dev_at(const struct engine *e, uint32_t i)
{
    LIST_FOREACH (d, &e->devs, struct dev, link) {
        if (i-- == 0)
            return d;
    }
    ASSERTF(false, "no device of that number");
    return NULL;
}

void engine_dev_fail(struct engine *e, const char *path, const char *why)
{
    LIST_FOREACH (d, &e->devs, struct dev, link) {
        if (strcmp(d->path, path) == 0)
            dev_isolate(d, why);
    }
}

void engine_dev_window(struct engine *e, uint32_t dev, struct disk_window *ret)
{
    disk_window_take(dev_at(e, dev)->disk, ret);
}

void engine_dev_stats(const struct engine *e, uint32_t dev, struct dev_stats *ret)
{
    const struct dev *d = dev_at(e, dev);

    *ret = (struct dev_stats){
        .size_bytes = (uint64_t)d->g.blocks * BLOCK_BYTES,
        .used_bytes = (uint64_t)(d->g.blocks - d->free_blocks) * BLOCK_BYTES,
        .journal_bytes = (uint64_t)d->j.units * d->j.unit,
        .journal_used_bytes = journal_used(d) * d->j.unit,
        .bytes_written = d->bytes_written,
        .extents = d->extents,
        .drain = d->drain,
        .drain_why = d->drain_why,
        .state = d->failed          ? DISK_FAILED
                 : d->io_errors > 0 ? DISK_FAILING
                                    : DISK_HEALTHY,
        .path = d->path,
        .error = d->error,
        .model = disk_info(d->disk)->model,
        .disk_uuid = d->sb.disk_uuid,
    };
}

void engine_memory(const struct engine *e, struct memory_stats *ret)
{
    *ret = (struct memory_stats){
        .fixed = e->memory.fixed,
        .journal = e->mem_journal.bytes,
        .meta = e->mem_meta.bytes,
        .meta_reads = e->map_reads,
        .evicted = e->map_evictions,
    };
}

struct losing {
    uint64_t *ids;
    uint32_t n, max;
};

static void lost_one(void *arg, struct ext *x)
{
    struct losing *l = arg;

    if (!x->is_void && !x->dev->failed)
        return;
    if (l->n < l->max)
        l->ids[l->n] = x->id;
    l->n++;
}

uint32_t engine_lost(struct engine *e, uint64_t *ids, uint32_t max)
{
    struct losing l = {ids, 0, max};

    LIST_FOREACH (d, &e->devs, struct dev, link)
        e->any_void = e->any_void || d->failed;
    if (e->any_void)
        ext_foreach(e, lost_one, &l);
    e->any_void = l.n > 0;
    return l.n;
}

/* ---- self-check ---- */

struct checking {
    struct dev *d;
    uint64_t *seen;
    struct ext **exts;
    uint32_t n_exts, blocks;
};

static void check_collect(void *arg, struct ext *x)
{
    struct checking *c = arg;

    if (x->dev == c->d)
        c->exts[c->n_exts++] = ext_get(x);
}

static int check_block(struct checking *c, const struct ext *x, uint32_t block)
{
    uint64_t bit = 1ull << ((block - 1) % 64);

    if (block == BLOCK_NONE || block > c->d->g.blocks)
        return err_set(ERR_CORRUPT, "extent %" PRIu64 ": block number %" PRIu32, x->id, block);
    if (c->seen[(block - 1) / 64] & bit)
        return err_set(ERR_CORRUPT, "block %" PRIu32 " belongs to extent %" PRIu64 " and another",
                       block, x->id);
    c->seen[(block - 1) / 64] |= bit;
    c->blocks++;
    if (!(c->d->bits[(block - 1) / 64] & bit))
        return err_set(ERR_CORRUPT, "block %" PRIu32 " of extent %" PRIu64 " counts as free", block,
                       x->id);
    return 0;
}

/* The blocks first..last of an extent. */
static int check_map(struct checking *c, struct ext *x, uint32_t first, uint32_t last, uint32_t *n)
{
    struct map_hold hold;
    int rc = map_hold(x, first, last, &hold);

    for (uint32_t b = first; b <= last && rc == 0; b++) {
        const struct map_entry *en = map_get(x, b);
        const struct vblk *v = vblk_get(x, b);

        if (block_allocated(x, b) != (en->src[0].block != BLOCK_NONE) ||
            (v != NULL && v->mask != 0 && en->src[0].block == BLOCK_NONE))
            rc = err_set(ERR_CORRUPT,
                         "extent %" PRIu64 " block %" PRIu32 ": map and allocation differ", x->id,
                         b);
        *n += block_allocated(x, b);
        if (rc == 0 && en->src[0].block != BLOCK_NONE)
            rc = check_block(c, x, en->src[0].block);
    }
    map_release(&hold);
    return rc;
}

#define CHECK_BLOCKS (16 * MAP_ENTRIES) /* at a time */

static int check_extent(struct checking *c, struct ext *x)
{
    uint32_t n = 0;
    int rc = 0;

    for (uint32_t k = 0; k < META_BLOCKS && rc == 0; k++)
        rc = check_block(c, x, x->meta_block[k]);
    for (uint32_t b = 0; b < BLOCKS_PER_EXTENT && rc == 0; b += CHECK_BLOCKS)
        rc = check_map(c, x, b, MIN(b + CHECK_BLOCKS, BLOCKS_PER_EXTENT) - 1, &n);
    if (rc == 0 && n != x->blocks)
        rc = err_set(ERR_CORRUPT, "extent %" PRIu64 ": %" PRIu32 " blocks, counted %" PRIu32, x->id,
                     x->blocks, n);
    return rc;
}

static int check_dev(struct engine *e, struct dev *d)
{
    struct checking c = {.d = d};
    uint32_t used = 0, heads = 0;
    int rc = 0;

    dev_settled_wait(d);
    c.seen = MEM_NEW_ARRAY(uint64_t, d->g.bitmap_pages * (BITS_PER_PAGE / 64));
    c.exts = MEM_NEW_ARRAY(struct ext *, e->exts.count + 1);
    ext_foreach(e, check_collect, &c);
    for (uint32_t i = 0; i < c.n_exts; i++) {
        if (rc == 0)
            rc = check_extent(&c, c.exts[i]);
        ext_put(c.exts[i]);
    }
    for (uint32_t i = 0; i < d->g.blocks; i++)
        used += d->bits[i / 64] >> (i % 64) & 1;
    for (uint32_t i = 0; i < d->g.heads; i++)
        heads += head_bit_get(d, i);
    if (rc == 0 && used != c.blocks)
        rc = err_set(ERR_CORRUPT, "%" PRIu32 " blocks are allocated, extents have %" PRIu32, used,
                     c.blocks);
    if (rc == 0 && heads != c.n_exts)
        rc = err_set(ERR_CORRUPT, "%" PRIu32 " heads are in use, there are %" PRIu32 " extents",
                     heads, c.n_exts);
    if (rc == 0 && !place_check(d))
        rc = err_set(ERR_CORRUPT, "free stretches are not what the busy blocks say");
    if (rc == 0 && d->spares != 0)
        rc = err_set(ERR_CORRUPT, "%" PRIu32 " blocks count as spares at rest", d->spares);
    if (rc == 0 && d->free_blocks != d->g.blocks - used)
        rc = err_set(ERR_CORRUPT, "%" PRIu32 " blocks count as free of %" PRIu32 " less %" PRIu32,
                     d->free_blocks, d->g.blocks, used);
    mem_free(c.exts);
    mem_free(c.seen);
    return rc;
}

int engine_check(struct engine *e)
{
    LIST_FOREACH (d, &e->devs, struct dev, link) {
        int rc = check_dev(e, d);

        if (rc < 0)
            return err_prefix(rc, "disk %s", d->path);
    }
    return 0;
}
