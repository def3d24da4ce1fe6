/* SPDX-License-Identifier: Apache-2.0
 *
 * The engine of one worker as a whole: life, statistics. */
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
    if (e->conf.readahead == 0)
        e->conf.readahead = MIB;
    e->loop = co_loop();
    htab_init(&e->exts);
    list_init(&e->devs);
    co_group_init(&e->readers);
    co_group_init(&e->drains);
    e->scrub = scrub_new();
    budget_init(&e->memory, e->conf.memory_bytes);
    deleted_init(e);
    e->cache = cache_new(e);
    jpages_init(e);
    mpages_init(e);
    merges_init(e);
    readahead_init(e);
    return e;
}

int engine_dev_add(struct engine *e, const char *path, const struct super_block *sb)
{
    return engine_dev_add_guest(e, path, sb, NULL);
}

int engine_dev_add_guest(struct engine *e, const char *path, const struct super_block *sb,
                         const struct journal_host *host)
{
    struct dev *d;
    int rc = dev_open(e, path, sb, host, &d);

    if (rc < 0)
        return rc;
    list_push_back(&e->devs, &d->link);
    e->n_devs++;
    LIST_FOREACH (o, &e->devs, struct dev, link) {
        if (o->failed) /* meanwhile */
            dev_host_failed(d, o);
    }
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
    (void)co_group_join(&e->readers);
    while ((l = list_pop_front(&e->devs)) != NULL)
        dev_close(LIST_ENTRY(l, struct dev, link));
    scrub_free(e);
    cache_free(e->cache);
    deleted_fini(e);
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
    struct dev *d = dev_at(e, dev);

    disk_window_take(d->disk, ret);
    LIST_FOREACH (guest, &e->devs, struct dev, link) { /* what it does for the others' journals */
        struct disk_window io;

        if (guest == d || strcmp(guest->ring_path, d->path) != 0)
            continue;
        disk_window_take(guest->ring, &io);
        disk_window_add(ret, &io);
    }
}

void engine_dev_stats(const struct engine *e, uint32_t dev, struct dev_stats *ret)
{
    const struct dev *d = dev_at(e, dev);

    *ret = (struct dev_stats){
        .size_bytes = (uint64_t)d->g.blocks * BLOCK_BYTES,
        .used_bytes = (uint64_t)(d->g.blocks - d->free_blocks) * BLOCK_BYTES,
        .reserved_bytes = (uint64_t)d->reserved * BLOCK_BYTES,
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
        .journal_path = d->ring_path,
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
        .streams = e->mem_merges.bytes + e->mem_aheads.bytes,
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
