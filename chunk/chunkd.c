/* SPDX-License-Identifier: Apache-2.0
 *
 * The chunk server's life: disks, workers, RPC, until it is cancelled. */
#include "chunk/chunkd.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "chunk/server.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/co/sync.h"

/* ---- disks ---- */

static bool uuid_empty(const uint8_t *u)
{
    return mem_is_zero(u, 16) != 0;
}

/* Reads and takes a device; it must fit the others. */
static int disk_take(struct server *s, const char *path)
{
    struct server_disk *sd = &s->disks[s->n_disks];
    int rc;

    if (s->n_disks == CHUNKD_DISKS_MAX)
        return err_set(ERR_TOO_LARGE, "more than %u disks", CHUNKD_DISKS_MAX);
    rc = disk_open(path, DISK_EXCLUSIVE, &sd->guard);
    if (rc < 0)
        return rc;
    rc = super_read(path, &sd->sb);
    if (rc < 0)
        goto err_after_open;
    for (uint32_t i = 0; i < s->n_disks; i++) {
        if (memcmp(s->disks[i].sb.disk_uuid, sd->sb.disk_uuid, 16) == 0)
            rc = err_set(ERR_EXISTS, "%s is the same disk as %s", path, s->disks[i].path);
    }
    if (!uuid_empty(s->uuid) && memcmp(s->uuid, sd->sb.server_uuid, 16) != 0)
        rc = err_set(ERR_REFUSED, "%s belongs to another chunk server", path);
    if (s->n_workers != 0 && s->n_workers != sd->sb.workers)
        rc =
            err_set(ERR_REFUSED, "%s is formatted for %" PRIu32 " workers, the others for %" PRIu32,
                    path, sd->sb.workers, s->n_workers);
    if (rc < 0)
        goto err_after_open;
    memcpy(s->uuid, sd->sb.server_uuid, 16);
    s->n_workers = sd->sb.workers;
    if (s->chunk_id == 0 && sd->sb.chunk_id != 0) {
        s->chunk_id = sd->sb.chunk_id;
        memcpy(s->cluster_id, sd->sb.cluster_id, sizeof(s->cluster_id));
    }
    sd->path = mem_strdup(path);
    s->n_disks++;
    return 0;

err_after_open:
    disk_close(sd->guard);
    sd->guard = NULL;
    return rc;
}

static void disk_untake(struct server *s)
{
    struct server_disk *sd = &s->disks[--s->n_disks];

    disk_close(sd->guard);
    mem_free(sd->path);
    *sd = (struct server_disk){0};
}

/* Takes the newest disk, which nothing lies on yet, from the first n workers again. */
static void workers_disk_drop(struct server *s, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        struct co_loop *home = co_enter(s->workers[i].loop);

        engine_dev_drop(s->workers[i].engine, s->disks[s->n_disks - 1].path);
        co_enter(home);
    }
}

/* Opens the newest disk in every worker. */
static int workers_disk_add(struct server *s)
{
    const struct server_disk *sd = &s->disks[s->n_disks - 1];

    for (uint32_t i = 0; i < s->n_workers; i++) {
        struct co_loop *home = co_enter(s->workers[i].loop);
        int rc = engine_dev_add(s->workers[i].engine, sd->path, &sd->sb);

        co_enter(home);
        if (rc < 0) {
            workers_disk_drop(s, i);
            return rc;
        }
    }
    return 0;
}

int server_identity_save(struct server *s)
{
    int rc = 0;
    uint32_t n;

    while (s->disk_adding)
        co_cond_wait_always(&s->disk_added);
    n = s->n_disks; /* one that is added meanwhile gets its own */
    for (uint32_t i = 0; i < n && rc == 0; i++) {
        struct super_block *sb = &s->disks[i].sb;

        if (sb->chunk_id == s->chunk_id)
            continue;
        sb->chunk_id = s->chunk_id;
        memcpy(sb->cluster_id, s->cluster_id, sizeof(sb->cluster_id));
        rc = super_write(s->disks[i].path, sb);
    }
    return rc;
}

/* ---- disks that were added while running are remembered in the data folder ---- */

static char *disks_file(const struct server *s)
{
    return s->conf->data_dir != NULL ? mem_printf("%s/disks", s->conf->data_dir) : NULL;
}

static bool disk_known(const struct server *s, const char *path)
{
    for (uint32_t i = 0; i < s->n_disks; i++) {
        if (strcmp(s->disks[i].path, path) == 0)
            return true;
    }
    return false;
}

static int disks_load(struct server *s)
{
    char *name = disks_file(s), *text = NULL, *save = NULL;
    size_t len;
    int rc = 0;

    for (uint32_t i = 0; i < s->conf->n_disks && rc == 0; i++)
        rc = disk_take(s, s->conf->disks[i]);
    if (rc == 0 && name != NULL && env_file_read(name, &text, &len) == 0) {
        for (char *line = strtok_r(text, "\n", &save); line != NULL && rc == 0;
             line = strtok_r(NULL, "\n", &save)) {
            if (!disk_known(s, line))
                rc = disk_take(s, line);
        }
    }
    mem_free(text);
    mem_free(name);
    if (rc == 0 && s->n_disks == 0)
        rc = err_set(ERR_INVAL, "no disk is configured; format one with zbs-chunkd --format");
    return rc;
}

static int disks_save(struct server *s)
{
    char *name = disks_file(s), *text = mem_strdup("");
    int rc = 0;

    for (uint32_t i = s->conf->n_disks; i < s->n_disks; i++) { /* behind the configured ones */
        char *more = mem_printf("%s%s\n", text, s->disks[i].path);

        mem_free(text);
        text = more;
    }
    if (name != NULL)
        rc = env_file_write(name, text, strlen(text));
    mem_free(text);
    mem_free(name);
    return rc;
}

/* Formats a device for this server, unless it is one of its own already. */
static int disk_prepare(struct server *s, const char *path, bool force)
{
    struct chunk_format_conf fc = {.workers = s->n_workers, .force = force};
    struct super_block *sb = mem_alloc(sizeof(*sb));
    int rc = super_read(path, sb);

    if (rc < 0 || memcmp(sb->server_uuid, s->uuid, 16) != 0 || sb->workers != s->n_workers) {
        memcpy(fc.server_uuid, s->uuid, 16);
        rc = chunk_format(path, &fc);
    }
    mem_free(sb);
    return rc;
}

int server_disk_add(struct server *s, const char *path, bool force)
{
    int rc;

    if (s->disk_adding)
        return err_set(ERR_BUSY, "another disk is being added");
    if (disk_known(s, path))
        return err_set(ERR_EXISTS, "%s is in use here already", path);
    s->disk_adding = true;
    rc = disk_prepare(s, path, force);
    if (rc == 0)
        rc = disk_take(s, path);
    if (rc == 0) {
        rc = workers_disk_add(s);
        if (rc == 0)
            rc = disks_save(s);
        else
            disk_untake(s); /* why it failed is still the error's text */
    }
    s->disk_adding = false;
    co_cond_broadcast(&s->disk_added);
    if (rc == 0 && s->chunk_id != 0)
        rc = server_identity_save(s);
    if (rc == 0)
        log_info("disk.added", "disk=%s", path);
    return rc;
}

/* ---- what is told about disks ---- */

static void view_add(struct disk_view *v, const struct dev_stats *st)
{
    v->size_bytes += st->size_bytes;
    v->used_bytes += st->used_bytes;
    if (st->state > v->state) {
        v->state = st->state;
        snprintf(v->error, sizeof(v->error), "%s", st->error);
    }
}

uint32_t server_disk_views(struct server *s, struct disk_view **ret)
{
    struct disk_view *views;
    uint32_t n;

    n = s->n_disks;
    views = MEM_NEW_ARRAY(struct disk_view, n + 1);
    for (uint32_t i = 0; i < n; i++) {
        memcpy(views[i].uuid, s->disks[i].sb.disk_uuid, 16);
        snprintf(views[i].path, sizeof(views[i].path), "%s", s->disks[i].path);
        snprintf(views[i].model, sizeof(views[i].model), "%s", disk_info(s->disks[i].guard)->model);
    }
    for (uint32_t w = 0; w < s->n_workers; w++) {
        struct co_loop *home = co_enter(s->workers[w].loop);

        for (uint32_t k = 0; k < engine_devs(s->workers[w].engine); k++) {
            struct dev_stats st;

            engine_dev_stats(s->workers[w].engine, k, &st);
            for (uint32_t i = 0; i < n; i++) {
                if (memcmp(st.disk_uuid, views[i].uuid, 16) == 0)
                    view_add(&views[i], &st);
            }
        }
        co_enter(home);
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
    m->size_bytes = v->size_bytes;
    m->used_bytes = v->used_bytes;
    m->state = v->state;
}

/* ---- workers ---- */

static int worker_start(struct server *s, uint32_t i)
{
    struct worker *w = &s->workers[i];
    struct engine_conf conf = {
        .worker = i,
        .workers = s->n_workers,
        .memory_bytes =
            (s->conf->memory_bytes != 0 ? s->conf->memory_bytes : (uint64_t)1 << 30) / s->n_workers,
        .flush_delay_ms = s->conf->flush_delay_ms,
    };
    struct co_loop *home;
    char name[32];
    int rc = 0;

    w->server = s;
    w->index = i;
    w->services[0] = (struct rpc_service){&zbs__chunk__chunk__descriptor, chunk_methods, w};
    w->loop = co_loop();
    if (i > 0) {
        snprintf(name, sizeof(name), "worker-%" PRIu32, i);
        rc = env_thread_start(name, &w->loop);
    }
    if (rc < 0) {
        w->loop = NULL;
        return rc;
    }
    home = co_enter(w->loop);
    w->engine = engine_new(&conf);
    for (uint32_t k = 0; k < s->n_disks && rc == 0; k++)
        rc = engine_dev_add(w->engine, s->disks[k].path, &s->disks[k].sb);
    co_enter(home);
    return rc;
}

static int workers_start(struct server *s)
{
    int rc = 0;

    s->workers = MEM_NEW_ARRAY(struct worker, s->n_workers);
    for (uint32_t i = 0; i < s->n_workers && rc == 0; i++)
        rc = worker_start(s, i);
    return rc;
}

static void workers_stop(struct server *s)
{
    for (uint32_t i = 0; s->workers != NULL && i < s->n_workers; i++) {
        struct worker *w = &s->workers[i];
        struct co_loop *home;

        if (w->loop == NULL)
            continue;
        home = co_enter(w->loop);
        if (w->engine != NULL)
            engine_stop(w->engine);
        co_enter(home);
        if (i > 0)
            env_thread_stop(w->loop);
    }
    mem_free(s->workers);
    s->workers = NULL;
}

/* ---- all of it ---- */

static int rpc_start(struct server *s)
{
    struct co_loop **loops = MEM_NEW_ARRAY(struct co_loop *, s->n_workers);
    const struct rpc_service **services = MEM_NEW_ARRAY(const struct rpc_service *, s->n_workers);
    struct rpc_server_conf conf = {
        .addr = s->conf->listen,
        .addr_unix = s->conf->listen_unix != NULL && s->conf->listen_unix[0] != 0
                         ? s->conf->listen_unix
                         : NULL,
        .cluster_id = s->cluster_id,
        .incarnation = s->incarnation,
        .instances = loops,
        .n_instances = s->n_workers,
        .services = services,
    };
    char self[32];
    int rc;

    snprintf(self, sizeof(self), "chunk-%" PRIu32, s->chunk_id);
    conf.self = self;
    for (uint32_t i = 0; i < s->n_workers; i++) {
        loops[i] = s->workers[i].loop;
        services[i] = s->workers[i].services;
    }
    rc = rpc_server_start(&conf, &s->rpc);
    mem_free(loops);
    mem_free(services);
    return rc;
}

static int server_run(struct server *s)
{
    struct co_group group;
    int rc = 0;

    co_group_init(&group);
    if (s->conf->meta != NULL && s->conf->meta[0] != 0)
        co_spawn(&group, "heartbeat", heartbeat_main, s);
    if (s->conf->ready != NULL)
        s->conf->ready(s->conf->ready_arg, rpc_server_addr(s->rpc));
    log_info("chunkd.serving", "listen=%s workers=%" PRIu32 " disks=%" PRIu32,
             rpc_server_addr(s->rpc), s->n_workers, s->n_disks);
    while (rc != ERR_CANCELED)
        rc = co_sleep(3600 * NSEC_PER_SEC);
    (void)co_group_close(&group);
    return 0;
}

int chunkd_main(const struct chunkd_conf *conf)
{
    struct server *s = MEM_NEW(struct server);
    int rc = 0;

    s->conf = conf;
    co_cond_init(&s->disk_added);
    s->incarnation = env_random() | 1;
    if (conf->data_dir != NULL) {
        char *lock = mem_printf("%s/lock", conf->data_dir);

        rc = env_lock_file(lock);
        mem_free(lock);
    }
    if (rc == 0)
        rc = disks_load(s);
    if (rc == 0)
        rc = workers_start(s);
    if (rc == 0)
        rc = rpc_start(s);
    if (rc == 0) {
        rc = server_run(s);
        rpc_server_stop(s->rpc);
    }
    workers_stop(s);
    while (s->n_disks > 0)
        disk_untake(s);
    mem_free(s);
    return rc;
}
