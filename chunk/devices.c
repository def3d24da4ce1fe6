/* SPDX-License-Identifier: Apache-2.0
 *
 * The disks of a chunk server. One that is bad at start is left out and reported: its replicas
 * count as missing, never as deleted, and the others are served. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "chunk/server.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/co/sync.h"

/* ---- bad ones ---- */

/* What somebody who reads the log can do about it. */
static const char *remedy(int rc)
{
    switch (rc) {
    case ERR_NOTFOUND:
        return "connect the device, or correct its name in the configuration, and restart";
    case ERR_FORMAT:
        return "a new device: 'zbs-chunkd --format'; one that was in use: zbs-fsck explains what "
               "it holds; then restart";
    case ERR_REFUSED:
    case ERR_EXISTS:
        return "take it out of the configuration, or put the right device in its place, and "
               "restart";
    case ERR_CORRUPT:
        return "zbs-fsck explains what is damaged; a device that can't be repaired is replaced, "
               "and its replicas are copied from the others";
    default:
        return "see to the device, and restart";
    }
}

static void guard_close(struct server_disk *sd)
{
    if (sd->guard != NULL)
        disk_close(sd->guard);
    sd->guard = NULL;
}

/* Out of service until the next start. */
static void disk_bad(struct server *s, struct server_disk *sd, int rc)
{
    snprintf(sd->why, sizeof(sd->why), "%s", err_text(rc));
    sd->bad = true;
    s->n_bad++;
    guard_close(sd);
    log_error("disk.unusable", "disk=%s why=\"%s\" remedy=\"%s\"", sd->path, sd->why, remedy(rc));
}

/* ---- taking ---- */

static bool same_uuid(const uint8_t *a, const uint8_t *b)
{
    return memcmp(a, b, 16) == 0;
}

/* Requests of a predecessor that was killed keep a device in use until they end. */
#define DISK_PATIENCE (3 * NSEC_PER_SEC)

/* Opens a device for this server alone and reads its superblock. */
int disk_read_super(struct server_disk *sd)
{
    nsec_t end = co_now() + DISK_PATIENCE;
    int rc;

    do
        rc = disk_open(sd->path, DISK_EXCLUSIVE, &sd->guard);
    while (rc == ERR_BUSY && co_now() < end && co_sleep(50 * NSEC_PER_MSEC) == 0);
    return rc == 0 ? super_read(sd->path, &sd->sb) : rc;
}

/* Is it one of this server's, and like the others? */
int disk_check(const struct server *s, const struct server_disk *sd)
{
    const struct super_block *sb = &sd->sb;

    for (uint32_t i = 0; i < s->n_disks; i++) {
        const struct server_disk *other = &s->disks[i];

        if (other != sd && !other->bad && other->taken &&
            same_uuid(other->sb.disk_uuid, sb->disk_uuid))
            return err_set(ERR_EXISTS, "%s is the same disk as %s", sd->path, other->path);
    }
    if (!same_uuid(s->uuid, sb->server_uuid))
        return err_set(ERR_REFUSED, "%s belongs to another chunk server", sd->path);
    if (s->n_workers != 0 && s->n_workers != sb->workers)
        return err_set(ERR_REFUSED,
                       "%s is formatted for %" PRIu32 " workers, the others for %" PRIu32, sd->path,
                       sb->workers, s->n_workers);
    if (s->chunk_id != 0 && sb->chunk_id != 0 &&
        (s->chunk_id != sb->chunk_id ||
         strncmp(s->cluster_id, (const char *)sb->cluster_id, sizeof(s->cluster_id)) != 0))
        return err_set(ERR_REFUSED,
                       "%s is of chunk server %" PRIu32
                       " of cluster '%.64s', the others of %" PRIu32 " of '%s'",
                       sd->path, sb->chunk_id, (const char *)sb->cluster_id, s->chunk_id,
                       s->cluster_id);
    return 0;
}

void disk_take(struct server *s, struct server_disk *sd)
{
    sd->taken = true;
    memcpy(s->uuid, sd->sb.server_uuid, 16);
    s->n_workers = sd->sb.workers;
    if (s->chunk_id == 0 && sd->sb.chunk_id != 0) {
        s->chunk_id = sd->sb.chunk_id;
        memcpy(s->cluster_id, sd->sb.cluster_id, sizeof(s->cluster_id));
    }
}

struct server_disk *disk_new(struct server *s, const char *path)
{
    struct server_disk *sd = &s->disks[s->n_disks++];

    *sd = (struct server_disk){.path = mem_strdup(path)};
    return sd;
}

void disk_drop(struct server *s, struct server_disk *sd)
{
    uint32_t i = (uint32_t)(sd - s->disks);

    guard_close(sd);
    s->n_bad -= sd->bad;
    mem_free(sd->path);
    s->n_disks--;
    memmove(sd, sd + 1, (s->n_disks - i) * sizeof(*sd));
    s->disks[s->n_disks] = (struct server_disk){0};
}

bool disk_serves(const struct server_disk *sd)
{
    return sd->taken && !sd->bad && !sd->isolated;
}

struct server_disk *disk_host(struct server *s, const struct server_disk *sd)
{
    for (uint32_t i = 0; i < s->n_disks && super_is_guest(&sd->sb); i++) {
        if (same_uuid(s->disks[i].sb.disk_uuid, sd->sb.journal_disk))
            return &s->disks[i];
    }
    return NULL;
}

/* Does the disk that has its journals serve, and for this one? */
static int host_check(struct server *s, const struct server_disk *sd)
{
    const struct server_disk *host = disk_host(s, sd);
    char uuid[33];

    if (host == NULL) {
        for (int i = 0; i < 16; i++)
            snprintf(uuid + (size_t)2 * i, 3, "%02x", sd->sb.journal_disk[i]);
        return err_set(ERR_NOTFOUND,
                       "its journals are on disk %s, which is none of this server's, or can't be "
                       "read",
                       uuid);
    }
    if (!disk_serves(host))
        return err_set(ERR_IO, "its journals are on %s, which is out of service: %.150s",
                       host->path, host->why);
    return guest_check(&sd->sb, host->path, &host->sb);
}

void disks_lock(struct server *s)
{
    while (s->disks_busy || s->disks_checking)
        co_cond_wait_always(&s->disks_free);
    s->disks_busy = true;
}

void disks_unlock(struct server *s)
{
    s->disks_busy = false;
    co_cond_broadcast(&s->disks_free);
}

/* Takes a disk from the first n workers. */
static void workers_disk_drop(struct server *s, const struct server_disk *sd, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        struct co_loop *home = co_enter(s->workers[i].loop);

        engine_dev_drop(s->workers[i].engine, sd->path);
        co_enter(home);
    }
}

/* Opens a disk in every worker, or in none. */
int workers_disk_add(struct server *s, const struct server_disk *sd)
{
    const struct server_disk *on = disk_host(s, sd);
    struct journal_host host = {.path = on != NULL ? on->path : NULL,
                                .sb = on != NULL ? &on->sb : NULL};
    int rc = super_is_guest(&sd->sb) ? host_check(s, sd) : 0;

    if (rc < 0)
        return rc;
    for (uint32_t i = 0; i < s->n_workers; i++) {
        struct co_loop *home = co_enter(s->workers[i].loop);

        rc = engine_dev_add_guest(s->workers[i].engine, sd->path, &sd->sb,
                                  on != NULL ? &host : NULL);
        co_enter(home);
        if (rc < 0) {
            char why[256];

            snprintf(why, sizeof(why), "%s", err_text(rc));
            workers_disk_drop(s, sd, i);
            return err_set(rc, "%s", why);
        }
    }
    return 0;
}

/* ---- start ---- */

char *disks_file(const struct server *s)
{
    return s->conf->data_dir != NULL ? mem_printf("%s/disks", s->conf->data_dir) : NULL;
}

bool disk_known(const struct server *s, const char *path)
{
    for (uint32_t i = 0; i < s->n_disks; i++) {
        if (strcmp(s->disks[i].path, path) == 0)
            return true;
    }
    return false;
}

/* Those of the configuration, then those that were added while running. */
static int disks_name(struct server *s)
{
    char *name = disks_file(s), *text = NULL, *save = NULL;
    size_t len;
    int rc = 0;

    for (uint32_t i = 0; i < s->conf->n_disks; i++) {
        if (!disk_known(s, s->conf->disks[i]))
            disk_new(s, s->conf->disks[i]);
    }
    if (name != NULL && env_file_read(name, &text, &len) == 0) {
        for (char *line = strtok_r(text, "\n", &save); line != NULL && rc == 0;
             line = strtok_r(NULL, "\n", &save)) {
            if (disk_known(s, line))
                continue;
            if (s->n_disks == CHUNKD_DISKS_MAX)
                rc = err_set(ERR_TOO_LARGE, "more than %u disks", CHUNKD_DISKS_MAX);
            else
                disk_new(s, line);
        }
    }
    mem_free(text);
    mem_free(name);
    if (rc == 0 && s->n_disks == 0)
        rc = err_set(ERR_INVAL, "no disk is configured; format one with zbs-chunkd --format");
    return rc;
}

/* Formatted, and in no cluster since: it holds nothing. */
static bool disk_is_new(const struct server_disk *sd)
{
    return sd->sb.chunk_id == 0 && sd->sb.cluster_id[0] == 0;
}

/* The server that most of the readable disks belong to; of several, the first named. New ones
 * only count where there is nothing else. */
static void server_choose(struct server *s)
{
    uint32_t best = 0;

    for (uint32_t i = 0; i < s->n_disks; i++) {
        const struct server_disk *sd = &s->disks[i];
        uint32_t n = 0;

        for (uint32_t k = 0; k < s->n_disks && !sd->bad; k++) {
            if (!s->disks[k].bad && same_uuid(s->disks[k].sb.server_uuid, sd->sb.server_uuid))
                n += disk_is_new(&s->disks[k]) ? 1 : 1 + CHUNKD_DISKS_MAX;
        }
        if (n <= best)
            continue;
        best = n;
        memcpy(s->uuid, sd->sb.server_uuid, 16);
    }
}

/* Each disk that is formatted gets a server of its own; a new one becomes this one's. */
static int disk_adopt(const struct server *s, struct server_disk *sd)
{
    if (!disk_is_new(sd) || same_uuid(s->uuid, sd->sb.server_uuid))
        return 0;
    memcpy(sd->sb.server_uuid, s->uuid, 16);
    log_info("disk.adopted", "disk=%s", sd->path);
    return super_write(sd->path, &sd->sb);
}

/* The first bad one's reason stands for all. */
static int none_usable(const struct server *s)
{
    return err_set(ERR_FORMAT, "none of %" PRIu32 " disk(s) is usable; the first: %s", s->n_disks,
                   s->disks[0].why);
}

int disks_load(struct server *s)
{
    int rc = disks_name(s);

    if (rc < 0)
        return rc;
    for (uint32_t i = 0; i < s->n_disks; i++) {
        rc = disk_read_super(&s->disks[i]);
        if (rc < 0)
            disk_bad(s, &s->disks[i], rc);
    }
    server_choose(s);
    for (uint32_t i = 0; i < s->n_disks; i++) {
        struct server_disk *sd = &s->disks[i];

        if (sd->bad)
            continue;
        rc = disk_adopt(s, sd);
        if (rc == 0)
            rc = disk_check(s, sd);
        if (rc == 0)
            disk_take(s, sd);
        else
            disk_bad(s, sd, rc);
    }
    return s->n_bad < s->n_disks ? 0 : none_usable(s);
}

/* Extents that are not in the tables may be on a disk that is out of service. */
void workers_tell_absent(struct server *s)
{
    for (uint32_t i = 0; i < s->n_workers; i++) {
        struct co_loop *home = co_enter(s->workers[i].loop);

        engine_devs_absent(s->workers[i].engine, s->n_bad);
        co_enter(home);
    }
}

static void disks_open_some(struct server *s, bool guests)
{
    for (uint32_t i = 0; i < s->n_disks; i++) {
        struct server_disk *sd = &s->disks[i];
        int rc = sd->bad || super_is_guest(&sd->sb) != guests ? 0 : workers_disk_add(s, sd);

        if (rc < 0)
            disk_bad(s, sd, rc);
    }
}

int disks_open(struct server *s)
{
    disks_open_some(s, false);
    disks_open_some(s, true); /* which ask for the disk that has their journals */
    workers_tell_absent(s);
    drains_resume(s);
    return s->n_bad < s->n_disks ? 0 : none_usable(s);
}

void disks_close(struct server *s)
{
    while (s->n_disks > 0)
        disk_drop(s, &s->disks[s->n_disks - 1]);
}

/* ---- identity ---- */

static int identity_save(struct server *s, struct server_disk *sd)
{
    int rc;

    if (sd->sb.chunk_id == s->chunk_id)
        return 0;
    sd->sb.chunk_id = s->chunk_id;
    memcpy(sd->sb.cluster_id, s->cluster_id, sizeof(sd->sb.cluster_id));
    rc = super_write(sd->path, &sd->sb);
    if (rc < 0) {
        sd->sb.chunk_id = 0; /* again at the next registration */
        log_warn("disk.identity", "disk=%s why=\"%s\"", sd->path, err_text(rc));
    }
    return rc;
}

int server_identity_save(struct server *s)
{
    uint32_t saved = 0;
    int rc = 0;

    disks_lock(s);
    for (uint32_t i = 0; i < s->n_disks; i++) {
        int one = disk_serves(&s->disks[i]) ? identity_save(s, &s->disks[i]) : 0;

        saved += disk_serves(&s->disks[i]) && one == 0;
        if (one < 0)
            rc = one;
    }
    disks_unlock(s);
    return saved > 0 ? 0 : rc;
}

/* ---- what is told about disks ---- */

static void view_init(struct server *s, struct disk_view *v, const struct server_disk *sd)
{
    const struct server_disk *host = disk_host(s, sd);

    if (host != NULL)
        snprintf(v->journal_on, sizeof(v->journal_on), "%s", host->path);
    else if (super_is_guest(&sd->sb))
        snprintf(v->journal_on, sizeof(v->journal_on), "another, absent disk");
    memcpy(v->uuid, sd->sb.disk_uuid, 16);
    snprintf(v->path, sizeof(v->path), "%s", sd->path);
    if (sd->bad || sd->isolated) {
        v->state = DISK_FAILED;
        snprintf(v->error, sizeof(v->error), "%s", sd->why);
    } else if (sd->slow[0] != 0) {
        v->state = DISK_FAILING;
        snprintf(v->error, sizeof(v->error), "%s", sd->slow);
    }
    if (sd->guard != NULL)
        snprintf(v->model, sizeof(v->model), "%s", disk_info(sd->guard)->model);
}

/* Of several workers: what is going on, else what needs somebody, else what is done. */
static const uint8_t drain_rank[] = {
    [DRAIN_NONE] = 0, [DRAIN_DONE] = 1, [DRAIN_STOPPED] = 2, [DRAIN_RUNNING] = 3};

static void view_add(struct disk_view *v, const struct dev_stats *st)
{
    v->size_bytes += st->size_bytes;
    v->used_bytes += st->used_bytes + st->reserved_bytes;
    v->reserved_bytes += st->reserved_bytes;
    v->extents += st->extents;
    if (drain_rank[st->drain] > drain_rank[v->drain]) {
        v->drain = st->drain;
        if (v->state < DISK_FAILED)
            snprintf(v->error, sizeof(v->error), "%s", st->drain_why);
    }
    if (st->state > v->state) {
        v->state = st->state;
        snprintf(v->error, sizeof(v->error), "%s", st->error);
    }
}

uint32_t server_disk_views(struct server *s, struct disk_view **ret)
{
    uint32_t n = s->n_disks;
    struct disk_view *views = MEM_NEW_ARRAY(struct disk_view, n + 1);

    for (uint32_t i = 0; i < n; i++)
        view_init(s, &views[i], &s->disks[i]);
    for (uint32_t w = 0; w < s->n_workers; w++) {
        struct co_loop *home = co_enter(s->workers[w].loop);

        for (uint32_t k = 0; k < engine_devs(s->workers[w].engine); k++) {
            struct dev_stats st;

            engine_dev_stats(s->workers[w].engine, k, &st);
            for (uint32_t i = 0; i < n; i++) {
                if (strcmp(st.path, views[i].path) == 0)
                    view_add(&views[i], &st);
            }
        }
        co_enter(home);
    }
    for (uint32_t i = 0; i < n; i++) {
        if (views[i].drain != DRAIN_NONE && views[i].state != DISK_FAILED)
            views[i].state = DISK_DRAINING;
    }
    *ret = views;
    return n;
}

void disk_view_message(const struct disk_view *v, Zbs__Chunk__Disk *m)
{
    zbs__chunk__disk__init(m);
    m->uuid.data = (uint8_t *)v->uuid;
    m->uuid.len = sizeof(v->uuid);
    m->path = (char *)v->path;
    m->model = (char *)v->model;
    m->error = (char *)v->error;
    m->journal_on = (char *)v->journal_on;
    m->size_bytes = v->size_bytes;
    m->used_bytes = v->used_bytes;
    m->reserved_bytes = v->reserved_bytes;
    m->state = v->state;
    m->extents = v->extents;
    m->drain = v->drain;
}
