/* SPDX-License-Identifier: Apache-2.0
 *
 * One worker's region of a device: opening, failing, pins, counters. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "chunk/replay.h"
#include "common/env/overlay.h"

int dev_check(const struct dev *d)
{
    if (d->failed)
        return err_set(ERR_IO, "disk %s has failed: %s", d->path, d->error);
    if (d->stopping)
        return err_set(ERR_HALTED, "disk %s is being closed", d->path);
    return 0;
}

static void wake_waiting(void *arg, struct ext *x)
{
    const struct dev *d = arg;

    move_target_failed(x, d);
    if (x->dev != d)
        return;
    co_range_lock_break(&x->lock, ERR_IO);
    co_cond_broadcast(&x->ops_ended);
}

/* Nothing of this region may be served any more: memory is ahead of what the device holds, or
 * nobody knows when the device would answer. Whoever waits for something else than the device
 * itself is woken. */
void dev_isolate(struct dev *d, const char *why)
{
    if (d->failed)
        return;
    snprintf(d->error, sizeof(d->error), "%s", why);
    d->failed = true;
    log_error("disk.failed", "disk=%s worker=%" PRIu32 " why=\"%s\"", d->path, d->e->conf.worker,
              d->error);
    journal_wake_failed(d);
    co_cond_broadcast(&d->freed);
    co_cond_broadcast(&d->flush_work);
    co_cond_broadcast(&d->maps_written);
    co_cond_broadcast(&d->loaded);
    co_cond_broadcast(&d->doomed_less);
    ext_foreach(d->e, wake_waiting, d);
    LIST_FOREACH (o, &d->e->devs, struct dev, link)
        dev_host_failed(o, d);
    if (d->e->conf.dev_failed != NULL)
        d->e->conf.dev_failed(d->e->conf.dev_failed_arg);
}

/* What has its journal there can't go on either. */
void dev_host_failed(struct dev *d, const struct dev *host)
{
    char why[256];

    if (d == host || strcmp(d->ring_path, host->path) != 0)
        return;
    snprintf(why, sizeof(why), "its journal is on %s, which has failed: %.150s", host->path,
             host->error);
    dev_isolate(d, why);
}

void dev_fail(struct dev *d, int rc, const char *what)
{
    char why[256];

    snprintf(why, sizeof(why), "%s: %s", what, err_text(rc));
    dev_isolate(d, why);
}

/* ---- choosing ---- */

bool dev_may_take(const struct dev *d, uint32_t blocks)
{
    return !d->failed && !d->stopping && d->drain == DRAIN_NONE &&
           blocks_available(d) >= (int64_t)blocks;
}

/* By chance, with the odds of their free space: they fill evenly, and a device that is new or
 * empty does not get every new extent at once. */
struct dev *dev_choose(struct engine *e, uint32_t blocks)
{
    uint64_t total = 0, at;

    LIST_FOREACH (d, &e->devs, struct dev, link)
        total += dev_may_take(d, blocks) ? (uint64_t)blocks_available(d) : 0;
    if (total == 0)
        return NULL;
    at = env_random() % total;
    LIST_FOREACH (d, &e->devs, struct dev, link) {
        uint64_t n = dev_may_take(d, blocks) ? (uint64_t)blocks_available(d) : 0;

        if (at < n)
            return d;
        at -= n;
    }
    return NULL;
}

/* ---- pins ---- */

void pin_begin(struct dev *d, struct pin *p)
{
    p->id = d->next_pin++;
    list_push_back(&d->pins, &p->link);
}

void pin_end(struct dev *d, struct pin *p)
{
    list_del(&p->link);
    pending_release(d);
    co_cond_broadcast(&d->unpinned);
}

void pin_barrier(struct dev *d)
{
    uint64_t limit = d->next_pin;

    for (;;) {
        struct pin *oldest = LIST_FIRST(&d->pins, struct pin, link);

        if (oldest == NULL || oldest->id >= limit)
            return;
        co_cond_wait_always(&d->unpinned);
    }
}

/* ---- device access ---- */

int dev_write(struct dev *d, const void *src, size_t len, uint64_t off, bool durable)
{
    int rc = disk_write(d->disk, src, len, off, durable);

    if (rc < 0) {
        d->io_errors++;
        return err_prefix(rc, "disk %s", d->path);
    }
    d->bytes_written += len;
    pace_waited(d);
    return 0;
}

int dev_flush(struct dev *d)
{
    int rc = disk_flush(d->disk);

    if (rc < 0) {
        d->io_errors++;
        return err_prefix(rc, "disk %s", d->path);
    }
    pace_waited(d);
    return 0;
}

int ring_flush(struct dev *d)
{
    int rc = d->ring != d->disk ? disk_flush(d->ring) : 0;

    return rc < 0 ? err_prefix(rc, "disk %s", d->ring_path) : dev_flush(d);
}

/* ---- opening ---- */

static struct dev *dev_new(struct engine *e, const char *path, const struct super_block *sb,
                           const struct journal_host *host)
{
    struct dev *d = MEM_NEW(struct dev);

    list_init(&d->link);
    list_init(&d->doomed);
    co_cond_init(&d->doomed_less);
    co_cond_init(&d->drain_ended);
    htab_init(&d->opening);
    htab_init(&d->apart);
    htab_init(&d->lent);
    d->e = e;
    d->path = mem_strdup(path);
    d->ring_path = mem_strdup(host != NULL ? host->path : path);
    d->sb = *sb;
    co_group_init(&d->group);
    list_init(&d->pins);
    co_cond_init(&d->unpinned);
    co_cond_init(&d->homed);
    co_cond_init(&d->loaded);
    d->number = ++e->dev_numbers;
    list_init(&d->dirty);
    list_init(&d->journaled);
    list_init(&d->cycle);
    co_mutex_init(&d->flush_turn);
    co_cond_init(&d->flush_work);
    co_cond_init(&d->maps_written);
    return d;
}

static void dev_free(struct dev *d)
{
    htab_fini(&d->apart);
    journal_free(d);
    refs_free(d);
    mem_free(d->scrubbed);
    roll_free(d);
    bits_free(d);
    mem_free(d->ring_path);
    mem_free(d->path);
    mem_free(d);
}

struct dropping {
    struct ext **list;
    uint32_t n;
};

static void drop_one(void *arg, struct ext *x)
{
    struct dropping *p = arg;

    p->list[p->n++] = x;
}

static void dev_drop_extents(struct dev *d)
{
    struct dropping p = {MEM_NEW_ARRAY(struct ext *, d->extents + 1), 0};

    dev_ext_foreach(d, drop_one, &p);
    for (uint32_t i = 0; i < p.n; i++)
        ext_remove(p.list[i]);
    mem_free(p.list);
}

static int dev_place(struct dev *d, const struct journal_host *host)
{
    uint32_t worker = d->e->conf.worker;
    int rc = geometry_compute(&d->sb, worker, &d->g);

    if (rc < 0 || !super_is_guest(&d->sb))
        return rc;
    if (host == NULL)
        return err_set(ERR_INVAL, "its journals are on another device, which was not named");
    rc = guest_check(&d->sb, host->path, host->sb);
    return rc == 0 ? guest_place(&d->sb, host->sb, worker, &d->g) : rc;
}

static void disks_close(struct dev *d)
{
    if (d->ring != NULL && d->ring != d->disk)
        disk_close(d->ring);
    if (d->disk != NULL)
        disk_close(d->disk);
}

static int disks_open(struct dev *d, const struct journal_host *host)
{
    int rc = disk_open(d->path, d->e->conf.overlay != NULL ? DISK_READ_ONLY : 0, &d->disk);

    if (rc == 0 && d->e->conf.overlay != NULL)
        disk_overlay_attach(d->disk, d->e->conf.overlay);
    if (rc < 0 || !super_is_guest(&d->sb)) {
        d->ring = d->disk;
        return rc;
    }
    rc = disk_open(d->ring_path, host->overlay != NULL ? DISK_READ_ONLY : 0, &d->ring);
    if (rc == 0 && host->overlay != NULL)
        disk_overlay_attach(d->ring, host->overlay);
    return rc;
}

static void promise(void *arg, struct ext *x)
{
    (void)arg;
    credits_keep(x);
}

int dev_open(struct engine *e, const char *path, const struct super_block *sb,
             const struct journal_host *host, struct dev **ret)
{
    struct dev *d = dev_new(e, path, sb, host);
    int rc = dev_place(d, host);

    d->replaying = d->unsettled = true;
    bits_init(d);
    refs_init(d);
    roll_init(d);
    journal_init(d);
    if (rc < 0)
        goto err_after_new;
    rc = disks_open(d, host);
    if (rc == 0)
        rc = stage_recover(d);
    if (rc == 0)
        rc = bitmap_load(d);
    if (rc == 0) {
        phase_enter(PHASE_REPLAYING);
        rc = journal_replay(d);
        phase_leave(PHASE_REPLAYING);
    }
    if (rc < 0)
        goto err_after_open;
    d->replaying = false;
    dev_ext_foreach(d, promise, NULL);
    if (d->any_damaged) /* for good, before anybody asks */
        rc = checkpoint_to(d, d->j.durable_rsn);
    if (rc < 0)
        goto err_after_open;
    dev_settle(d); /* from here on its extents are looked for among all */
    co_spawn_detached_deadline(&d->group, "journal", journal_main, d);
    co_spawn_detached_deadline(&d->group, "flusher", flush_main, d);
    *ret = d;
    return 0;

err_after_open:
    dev_drop_extents(d);
    htab_fini(&d->opening);
err_after_new:
    disks_close(d);
    dev_free(d);
    return err_prefix(rc, "disk %s, worker %" PRIu32, path, e->conf.worker);
}

void dev_close(struct dev *d)
{
    d->stopping = true;
    journal_wake_failed(d);
    co_cond_broadcast(&d->flush_work);
    co_cond_broadcast(&d->maps_written);
    co_cond_broadcast(&d->freed);
    (void)co_group_join(&d->group);
    dev_settle_end(d);
    dev_drop_extents(d);
    while (d->ext_count > 0) /* requests of a failed device that are about to end */
        co_cond_wait_always(&d->doomed_less);
    cache_drop_dev(d);
    disks_close(d);
    dev_free(d);
}
