/* SPDX-License-Identifier: Apache-2.0
 *
 * The chunk server's life: workers, RPC, until it is cancelled. Its disks: devices.c. */
#include "chunk/chunkd.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "chunk/server.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/co/sync.h"

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
        .merge_us = s->conf->merge_us,
        .readahead = s->conf->readahead,
        .drain_bytes_per_s = DIV_UP(s->conf->drain_bytes_per_s, s->n_workers),
        .dev_failed = health_dev_failed,
        .dev_failed_arg = s,
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
    co_enter(home);
    return 0;
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
    co_spawn(&group, "health", health_main, s);
    co_spawn(&group, "scrub-rounds", scrub_server_main, s);
    if (s->conf->ready != NULL)
        s->conf->ready(s->conf->ready_arg, rpc_server_addr(s->rpc));
    log_info("chunkd.serving", "listen=%s workers=%" PRIu32 " disks=%" PRIu32,
             rpc_server_addr(s->rpc), s->n_workers, s->n_disks);
    while (rc != ERR_CANCELED)
        rc = co_sleep(3600 * NSEC_PER_SEC);
    (void)co_group_close(&group);
    return 0;
}

static struct chunkd_health health_defaults(struct chunkd_health h)
{
    return (struct chunkd_health){
        .errors = h.errors != 0 ? h.errors : 8,
        .hung = h.hung != 0 ? h.hung : 10 * NSEC_PER_SEC,
        .slow_factor = h.slow_factor != 0 ? h.slow_factor : 8,
        .slow_floor = h.slow_floor != 0 ? h.slow_floor : 50 * NSEC_PER_MSEC,
        .slow_windows = h.slow_windows != 0 ? h.slow_windows : 10,
    };
}

int chunkd_main(const struct chunkd_conf *conf)
{
    struct server *s = MEM_NEW(struct server);
    struct chunkd_conf full = *conf;
    int rc = 0;

    full.health = health_defaults(conf->health);
    s->conf = &full;
    s->loop = co_loop();
    co_cond_init(&s->health_work);
    co_cond_init(&s->disks_free);
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
        rc = disks_open(s);
    if (rc == 0)
        rc = rpc_start(s);
    if (rc == 0) {
        rc = server_run(s);
        rpc_server_stop(s->rpc);
    }
    workers_stop(s);
    disks_close(s);
    mem_free(s);
    return rc;
}
