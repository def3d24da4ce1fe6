/* SPDX-License-Identifier: Apache-2.0
 *
 * Disks are added, drained and removed while the server runs. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "chunk/server.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/co/sync.h"

static struct server_disk *disk_named(struct server *s, const char *path)
{
    for (uint32_t i = 0; i < s->n_disks; i++) {
        if (strcmp(s->disks[i].path, path) == 0)
            return &s->disks[i];
    }
    return NULL;
}

static int no_disk(const char *path)
{
    return err_set(ERR_NOTFOUND, "%s is no disk of this server", path);
}

/* ---- those added while running are remembered in the data folder ---- */

static int disks_save(struct server *s)
{
    char *name = disks_file(s), *text = mem_strdup("");
    int rc = 0;

    for (uint32_t i = 0; i < s->n_disks; i++) {
        bool configured = false;
        char *more;

        for (uint32_t k = 0; k < s->conf->n_disks; k++)
            configured = configured || strcmp(s->conf->disks[k], s->disks[i].path) == 0;
        if (configured)
            continue;
        more = mem_printf("%s%s\n", text, s->disks[i].path);
        mem_free(text);
        text = more;
    }
    if (name != NULL)
        rc = env_file_write(name, text, strlen(text));
    mem_free(text);
    mem_free(name);
    return rc;
}

/* It is one of this server's, and its journals are as asked for. */
static bool prepared(const struct server *s, const struct super_block *sb, const struct disk_add *a,
                     const struct server_disk *host)
{
    return memcmp(sb->server_uuid, s->uuid, 16) == 0 && sb->workers == s->n_workers &&
           a->guests <= sb->guests && (host == NULL || guest_check(sb, host->path, &host->sb) == 0);
}

/* Formats a device for this server, unless it is prepared already. */
static int disk_prepare(struct server *s, const struct disk_add *a, struct server_disk *host)
{
    struct chunk_format_conf fc = {.workers = s->n_workers,
                                   .force = a->force,
                                   .guests = a->guests,
                                   .journal_on = host != NULL ? host->path : NULL,
                                   .journal_super = host != NULL ? &host->sb : NULL};
    struct super_block *sb = mem_alloc(sizeof(*sb));
    int rc = super_read(a->path, sb);

    if (rc < 0 || !prepared(s, sb, a, host)) {
        memcpy(fc.server_uuid, s->uuid, 16);
        rc = chunk_format(a->path, &fc);
    }
    mem_free(sb);
    return rc;
}

static int disk_add_locked(struct server *s, const struct disk_add *a)
{
    struct server_disk *sd, *host = NULL;
    int rc;

    if (a->journal_on != NULL && a->journal_on[0] != 0) {
        host = disk_named(s, a->journal_on);
        if (host == NULL)
            return no_disk(a->journal_on);
        if (!disk_serves(host))
            return err_set(ERR_IO, "%s is out of service: %s", host->path, host->why);
        if (host->sb.flags & SUPER_F_DRAINING)
            return err_set(ERR_BUSY, "%s is being drained", host->path);
    }
    rc = disk_prepare(s, a, host);
    if (rc < 0)
        return rc;
    if (s->n_disks == CHUNKD_DISKS_MAX)
        return err_set(ERR_TOO_LARGE, "more than %u disks", CHUNKD_DISKS_MAX);
    sd = disk_new(s, a->path);
    rc = disk_read_super(sd);
    if (rc == 0)
        rc = disk_check(s, sd);
    if (rc == 0)
        rc = workers_disk_add(s, sd);
    if (rc < 0) {
        disk_drop(s, sd); /* why it failed is still the error's text */
        return rc;
    }
    disk_take(s, sd);
    return disks_save(s);
}

int server_disk_add(struct server *s, const struct disk_add *a)
{
    int rc;

    if (s->disks_busy)
        return err_set(ERR_BUSY, "the disks are being changed");
    if (disk_known(s, a->path))
        return err_set(ERR_EXISTS, "%s is in use here already", a->path);
    disks_lock(s);
    rc = disk_add_locked(s, a);
    disks_unlock(s);
    if (rc == 0 && s->chunk_id != 0)
        rc = server_identity_save(s);
    if (rc == 0)
        log_info("disk.added", "disk=%s", a->path);
    return rc;
}

/* ---- those whose journals are on others ---- */

/* Refused while it has the journals of another disk of this server, in service or not; says of
 * which. */
static int guests_none(struct server *s, const struct server_disk *host)
{
    for (uint32_t i = 0; i < s->n_disks; i++) {
        const struct server_disk *sd = &s->disks[i];

        if (disk_host(s, sd) == host)
            return err_set(ERR_BUSY, "%s has the journals of %s: remove that first", host->path,
                           sd->path);
    }
    return 0;
}

/* The same of those that the server does not know, or could not read: they may come back. */
static int guests_absent_none(struct server *s, const struct server_disk *host)
{
    int rc = guests_none(s, host);

    for (uint32_t i = 0; rc == 0 && i < host->sb.guests; i++) {
        char uuid[33];

        for (int k = 0; k < 16; k++)
            snprintf(uuid + (size_t)2 * k, 3, "%02x", host->sb.guest[i][k]);
        if (!mem_is_zero(host->sb.guest[i], 16))
            rc = err_set(ERR_BUSY,
                         "%s has the journals of disk %s, which is absent: connect that, or give "
                         "it up by force",
                         host->path, uuid);
    }
    return rc;
}

/* Before a disk goes for good: its place with its host is free again. */
static int guest_ends(struct server *s, const struct server_disk *sd)
{
    struct server_disk *host = disk_host(s, sd);

    return host != NULL && disk_serves(host) ? guest_leave(&sd->sb, host->path, &host->sb) : 0;
}

/* ---- draining ---- */

/* Are there others that its replicas could move to? */
static bool others_serve(const struct server *s, const struct server_disk *sd)
{
    for (uint32_t i = 0; i < s->n_disks; i++) {
        const struct server_disk *o = &s->disks[i];

        if (o != sd && disk_serves(o) && (o->sb.flags & SUPER_F_DRAINING) == 0)
            return true;
    }
    return false;
}

static int workers_drain(struct server *s, const struct server_disk *sd, bool cancel)
{
    int rc = 0;

    for (uint32_t i = 0; i < s->n_workers; i++) {
        struct co_loop *home = co_enter(s->workers[i].loop);
        int one = 0;

        if (cancel)
            engine_drain_stop(s->workers[i].engine, sd->path);
        else
            one = engine_drain(s->workers[i].engine, sd->path);
        engine_drain_copies(s->workers[i].engine, sd->path,
                            (sd->sb.flags & SUPER_F_DRAIN_COPIES) != 0);
        co_enter(home);
        if (one < 0 && one != ERR_NOTFOUND) /* there: it is removed already */
            rc = one;
    }
    return rc;
}

static int drain_locked(struct server *s, struct server_disk *sd, bool cancel, bool copies)
{
    uint32_t flags = sd->sb.flags, set = SUPER_F_DRAINING | (copies ? SUPER_F_DRAIN_COPIES : 0);
    int rc;

    if (!disk_serves(sd))
        return err_set(ERR_IO, "%s is out of service: %s", sd->path, sd->why);
    if (!cancel && !others_serve(s, sd))
        return err_set(ERR_REFUSED, "there is no other disk that %s could be drained to", sd->path);
    rc = cancel ? 0 : guests_none(s, sd);
    if (rc < 0)
        return rc;
    sd->sb.flags = flags & ~(SUPER_F_DRAINING | SUPER_F_DRAIN_COPIES);
    if (!cancel)
        sd->sb.flags |= set;
    rc = sd->sb.flags != flags ? super_write(sd->path, &sd->sb) : 0;
    if (rc == 0)
        rc = workers_drain(s, sd, cancel);
    else
        sd->sb.flags = flags;
    if (rc == 0)
        log_info(cancel ? "drain.canceled" : "drain.started", "disk=%s", sd->path);
    return rc;
}

int server_disk_drain(struct server *s, const char *path, bool cancel, bool copies)
{
    struct server_disk *sd;
    int rc;

    disks_lock(s);
    sd = disk_named(s, path);
    rc = sd != NULL ? drain_locked(s, sd, cancel, copies) : no_disk(path);
    disks_unlock(s);
    return rc;
}

void drains_resume(struct server *s)
{
    for (uint32_t i = 0; i < s->n_disks; i++) {
        struct server_disk *sd = &s->disks[i];
        int rc = 0;

        if (disk_serves(sd) && (sd->sb.flags & SUPER_F_DRAINING))
            rc = workers_drain(s, sd, false);
        if (rc < 0)
            log_warn("drain.resume", "disk=%s why=\"%s\"", sd->path, err_text(rc));
    }
}

/* ---- removing ---- */

static uint64_t extents_on(struct server *s, const char *path)
{
    struct disk_view *views;
    uint32_t n = server_disk_views(s, &views);
    uint64_t extents = 0;

    for (uint32_t i = 0; i < n; i++)
        extents += strcmp(views[i].path, path) == 0 ? views[i].extents : 0;
    mem_free(views);
    return extents;
}

/* From all workers. What fails in the middle can be tried again. */
static int workers_remove(struct server *s, const struct server_disk *sd, bool force)
{
    int rc = 0;

    for (uint32_t i = 0; i < s->n_workers && rc == 0; i++) {
        struct co_loop *home = co_enter(s->workers[i].loop);

        if (!sd->isolated)
            rc = engine_drain_wait(s->workers[i].engine, sd->path);
        if (rc == 0 || rc == ERR_NOTFOUND)
            rc = engine_dev_remove(s->workers[i].engine, sd->path, force);
        co_enter(home);
    }
    return rc;
}

/* Of a disk that serves: new replicas are kept off it first, so that it stays empty. */
static int remove_serving(struct server *s, struct server_disk *sd)
{
    uint64_t extents = extents_on(s, sd->path);
    int rc;

    if (extents > 0)
        return err_set(ERR_BUSY, "%s holds %" PRIu64 " replicas; drain it first", sd->path,
                       extents);
    rc = drain_locked(s, sd, false, false);
    if (rc == 0)
        rc = workers_remove(s, sd, false);
    if (rc == 0)
        rc = guest_ends(s, sd);
    return rc == 0 ? super_wipe(sd->path, &sd->sb) : rc;
}

static int remove_failed(struct server *s, struct server_disk *sd, bool force)
{
    uint64_t extents = extents_on(s, sd->path);
    int rc;

    if (!force && sd->bad)
        return err_set(ERR_BUSY, "%s is out of service, and may hold replicas: %s", sd->path,
                       sd->why);
    if (!force && extents > 0)
        return err_set(ERR_BUSY, "%s has failed with %" PRIu64 " replicas: %s", sd->path, extents,
                       sd->why);
    rc = sd->bad ? 0 : workers_remove(s, sd, true);
    return rc == 0 && sd->taken ? guest_ends(s, sd) : rc;
}

int server_disk_remove(struct server *s, const char *path, bool force, bool *ret_configured)
{
    struct server_disk *sd;
    int rc;

    disks_lock(s);
    sd = disk_named(s, path);
    rc = sd == NULL ? no_disk(path) : force ? guests_none(s, sd) : guests_absent_none(s, sd);
    if (rc == 0)
        rc = disk_serves(sd) ? remove_serving(s, sd) : remove_failed(s, sd, force);
    if (rc == 0) {
        disk_drop(s, sd);
        rc = disks_save(s);
        workers_tell_absent(s);
        log_info("disk.removed", "disk=%s", path);
    }
    disks_unlock(s);
    *ret_configured = false;
    for (uint32_t i = 0; i < s->conf->n_disks; i++)
        *ret_configured = *ret_configured || strcmp(s->conf->disks[i], path) == 0;
    return rc;
}
