/* SPDX-License-Identifier: Apache-2.0
 *
 * Building and steering the simulated cluster: see cluster.h. */
#include "tests/sim/cluster.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/base/units.h"
#include "chunk/engine.h"
#include "proto/access.pb-c.h"
#include "tests/sim/files.h"
#include "tests/sim/operator.h"

#define VERIFY_METHOD 2
#define STATE_METHOD  0

void cluster_fail(struct cluster *c, const char *fmt, ...)
{
    va_list ap;

    if (c->failure[0])
        return;
    va_start(ap, fmt);
    vsnprintf(c->failure, sizeof(c->failure), fmt, ap);
    va_end(ap);
    sim_note(c->sim, "violation: %s", c->failure);
}

static int meta_proc(void *arg)
{
    return metad_main(&((struct node *)arg)->meta);
}

static int chunk_proc(void *arg)
{
    return chunkd_main(&((struct node *)arg)->chunk);
}

static int access_proc(void *arg)
{
    return accessd_main(&((struct node *)arg)->access);
}

const char *cluster_disk(uint32_t i)
{
    static const char *const paths[DISKS_MAX] = {"/dev/disk", "/dev/disk2", "/dev/disk3"};

    return paths[i];
}

bool cluster_has_disk(const struct node *n, uint32_t i)
{
    return i < n->cluster->disks || (i == DISK_ADDED && n->added);
}

static int format_proc(void *arg)
{
    struct node *n = arg;
    struct chunk_format_conf conf = {.workers = 1 + n->cluster->seed % 2, .journal_bytes = 8 << 20};
    struct super_block *sb;
    int rc = chunk_format(cluster_disk(0), &conf);

    if (rc < 0 || n->cluster->disks == 1)
        return rc;
    sb = mem_alloc(sizeof(*sb));
    rc = super_read(cluster_disk(0), sb);
    if (rc == 0) {
        memcpy(conf.server_uuid, sb->server_uuid, sizeof(conf.server_uuid));
        rc = chunk_format(cluster_disk(1), &conf);
    }
    mem_free(sb);
    return rc;
}

static int (*const mains[ROLES])(void *) = {meta_proc, chunk_proc, access_proc};

static void node_init(struct cluster *c, uint32_t i)
{
    static const char *const words[ROLES] = {"meta", "chunk", "access"};
    struct node *n = &c->nodes[i];

    n->cluster = c;
    n->index = i;
    snprintf(n->addr, sizeof(n->addr), "127.1.0.%u", i + 1);
    snprintf(n->host, sizeof(n->host), "host-%u", i + 1);
    for (uint32_t r = 0; r < ROLES; r++) {
        snprintf(n->names[r], sizeof(n->names[r]), "%s-%u", words[r], i + 1);
        snprintf(n->listen[r], sizeof(n->listen[r]), "%s:%u", n->addr, 7100 + 100 * r);
        n->procs[r] = sim_proc_new(c->sim, n->addr, n->names[r]);
    }
    snprintf(n->nfs_listen, sizeof(n->nfs_listen), "%s:2049", n->addr);
    n->meta = (struct metad_conf){.name = n->names[ROLE_META],
                                  .listen = n->listen[ROLE_META],
                                  .data_dir = "/meta",
                                  .zookeeper = "127.1.0.1:2181",
                                  .zk_root = "/zbs",
                                  .peers = c->metas,
                                  .log_keep = 20};
    n->chunk = (struct chunkd_conf){.listen = n->listen[ROLE_CHUNK],
                                    .data_dir = "/chunk",
                                    .meta = c->metas,
                                    .host = n->host,
                                    .rack = "",
                                    .zone = "",
                                    .disks = {cluster_disk(0), cluster_disk(1)},
                                    .n_disks = c->disks,
                                    .memory_bytes = 64 << 20,
                                    .flush_delay_ms = 100};
    n->access = (struct accessd_conf){.name = n->names[ROLE_ACCESS],
                                      .listen = n->listen[ROLE_ACCESS],
                                      .data_dir = "/access",
                                      .meta = c->metas,
                                      .host = n->host,
                                      .rack = "",
                                      .zone = "",
                                      .iscsi_listen = "",
                                      .engine_ready = workload_engine_ready,
                                      .engine_stopping = workload_engine_stopping,
                                      .files_ready = files_ready,
                                      .engine_arg = n};
}

struct cluster *cluster_new(const struct scenario *s, bool trace)
{
    struct cluster *c = calloc(1, sizeof(*c));
    struct sim_conf conf = {.trace = trace};

    ASSERT(c);
    scenario_conf(s, &conf);
    c->seed = s->seed;
    c->disks = s->disks;
    c->small = s->disk_mib < LARGE_DISK_MIB;
    c->fragile = scenario_fragile(s);
    c->n_spaces = 1;
    c->sim = sim_new(&conf);
    c->history = history_new();
    snprintf(c->metas, sizeof(c->metas), "127.1.0.1:7100,127.1.0.2:7100,127.1.0.3:7100");
    for (uint32_t i = 0; i < HOSTS; i++) {
        struct node *n = &c->nodes[i];

        node_init(c, i);
        if (s->files)
            n->access.nfs_listen = n->nfs_listen;
        sim_clock_drift(c->sim, n->addr, s->drift_ppm[i]);
        for (uint32_t d = 0; d < DISKS_MAX; d++)
            sim_disk_create(n->procs[ROLE_CHUNK], cluster_disk(d), (uint64_t)s->disk_mib * MIB);
        sim_proc_start(n->procs[ROLE_CHUNK], format_proc, n);
        while (sim_proc_running(n->procs[ROLE_CHUNK]))
            ASSERT(sim_step(c->sim));
        ASSERTF(sim_proc_result(n->procs[ROLE_CHUNK]) == 0, "formatting failed: %d",
                sim_proc_result(n->procs[ROLE_CHUNK]));
    }
    return c;
}

void cluster_free(struct cluster *c)
{
    sim_free(c->sim);
    history_free(c->history);
    for (uint32_t i = 0; i < c->n_extras; i++)
        free(c->extras[i].frozen);
    free(c);
}

void cluster_start(struct cluster *c, uint32_t node, enum role role)
{
    struct node *n = &c->nodes[node];

    if (sim_proc_running(n->procs[role]))
        return;
    n->engine = role == ROLE_ACCESS ? NULL : n->engine;
    sim_proc_start(n->procs[role], mains[role], n);
}

void cluster_start_all(struct cluster *c)
{
    for (uint32_t i = 0; i < HOSTS; i++)
        for (uint32_t r = 0; r < ROLES; r++) {
            struct sim_proc *p = c->nodes[i].procs[r];

            if (sim_proc_paused(p))
                sim_proc_resume(p);
            cluster_start(c, i, r);
        }
}

int cluster_wait_in_sync(struct cluster *c, nsec_t limit)
{
    nsec_t until = co_now() + limit;
    struct cluster_counts n = {.degraded = UINT32_MAX};
    int rc = 0;

    while ((n.degraded != 0 || n.chunks_alive < HOSTS) && co_now() < until) {
        rc = operator_status(c, &n);
        if (n.degraded != 0 || n.chunks_alive < HOSTS)
            (void)co_sleep(200 * NSEC_PER_MSEC);
    }
    if (n.degraded == 0 && n.chunks_alive == HOSTS)
        return 0;
    cluster_fail(c,
                 "no progress: %u extents still lack a replica, %u chunk servers alive after %d s "
                 "of health (%s)",
                 n.degraded, n.chunks_alive, (int)(limit / NSEC_PER_SEC),
                 rc < 0 ? err_text(rc) : "meta answers");
    return ERR_TIMEOUT;
}

/* Has some access server verify one slot; false if none could. */
static bool verify_slot(struct cluster *c, struct rpc_client **clients, uint32_t slot)
{
    Zbs__Access__VerifyRequest q = ZBS__ACCESS__VERIFY_REQUEST__INIT;

    q.volume_id = c->volume_id;
    q.first_slot = slot;
    q.count = 1;
    for (uint32_t i = 0; i < 10 * HOSTS; i++) {
        nsec_t former = co_deadline_push(co_now() + 30 * NSEC_PER_SEC);
        struct rpc_reply r;
        int rc;

        rpc_reply_init(&r);
        rc = rpc_call(clients[i % HOSTS], &zbs__access__access__descriptor, VERIFY_METHOD, &q.base,
                      NULL, &r);
        co_deadline_restore(former);
        if (rc == 0) {
            const Zbs__Access__VerifyReply *v = (const Zbs__Access__VerifyReply *)r.msg;

            if (v->mismatch_count)
                cluster_fail(c, "replicas differ: slot %u, %" PRIu64 " pages, first page %u", slot,
                             v->mismatch_count, v->n_mismatches ? v->mismatches[0]->page : 0);
            rpc_reply_free(&r);
            return true;
        }
        rpc_reply_free(&r);
        (void)co_sleep(300 * NSEC_PER_MSEC);
    }
    return false;
}

int cluster_verify(struct cluster *c)
{
    struct meta_client *mc = meta_client_new(c->metas, "checker");
    struct rpc_client *clients[HOSTS];
    Zbs__Meta__VolumeMapRequest q = ZBS__META__VOLUME_MAP_REQUEST__INIT;
    struct rpc_reply r;
    int rc;

    for (uint32_t i = 0; i < HOSTS; i++)
        clients[i] = rpc_client_new(&(struct rpc_client_conf){
            .addr = c->nodes[i].listen[ROLE_ACCESS], .self = "checker", .cluster_id = ""});
    q.pool = (char *)"pool";
    q.name = (char *)"volume";
    q.max = 256;
    rpc_reply_init(&r);
    rc = meta_call(mc, META_VOLUME_MAP, &q.base, true, &r);
    if (rc == 0) {
        const Zbs__Meta__VolumeMapReply *map = (const Zbs__Meta__VolumeMapReply *)r.msg;

        for (size_t i = 0; i < map->n_extents; i++)
            if (!verify_slot(c, clients, map->extents[i]->slot))
                cluster_fail(c, "no access server could verify slot %u", map->extents[i]->slot);
    } else {
        cluster_fail(c, "volume map: %s", err_text(rc));
    }
    rpc_reply_free(&r);
    for (uint32_t i = 0; i < HOSTS; i++)
        rpc_client_close(clients[i]);
    meta_client_close(mc);
    return c->failure[0] ? ERR_CORRUPT : 0;
}

uint32_t cluster_leader(struct cluster *c)
{
    uint32_t leader = HOSTS;

    for (uint32_t i = 0; i < HOSTS && leader == HOSTS; i++) {
        Zbs__Meta__LeaderRequest q = ZBS__META__LEADER_REQUEST__INIT;
        struct rpc_client *client = rpc_client_new(&(struct rpc_client_conf){
            .addr = c->nodes[i].listen[ROLE_META], .self = "director", .cluster_id = ""});
        nsec_t former = co_deadline_push(co_now() + 200 * NSEC_PER_MSEC);
        struct rpc_reply r;

        rpc_reply_init(&r);
        if (rpc_call(client, &zbs__meta__meta__descriptor, META_LEADER, &q.base, NULL, &r) == 0 &&
            ((const Zbs__Meta__LeaderReply *)r.msg)->self)
            leader = i;
        co_deadline_restore(former);
        rpc_reply_free(&r);
        rpc_client_close(client);
    }
    return leader;
}

int cluster_check_metas(struct cluster *c)
{
    struct {
        uint64_t applied;
        uint8_t digest[64];
        size_t len;
    } states[HOSTS] = {0};

    for (uint32_t i = 0; i < HOSTS; i++) {
        Zbs__Meta__StateRequest q = ZBS__META__STATE_REQUEST__INIT;
        struct rpc_client *client = rpc_client_new(&(struct rpc_client_conf){
            .addr = c->nodes[i].listen[ROLE_META], .self = "checker", .cluster_id = ""});
        nsec_t former = co_deadline_push(co_now() + 5 * NSEC_PER_SEC);
        struct rpc_reply r;

        rpc_reply_init(&r);
        if (rpc_call(client, &zbs__meta__meta_peer__descriptor, STATE_METHOD, &q.base, NULL, &r) ==
            0) {
            const Zbs__Meta__StateReply *s = (const Zbs__Meta__StateReply *)r.msg;

            states[i].applied = s->applied;
            states[i].len = MIN(s->digest.len, sizeof(states[i].digest));
            if (states[i].len)
                memcpy(states[i].digest, s->digest.data, states[i].len);
        }
        co_deadline_restore(former);
        rpc_reply_free(&r);
        rpc_client_close(client);
    }
    for (uint32_t i = 0; i < HOSTS; i++)
        for (uint32_t k = i + 1; k < HOSTS; k++)
            if (states[i].len && states[k].len && states[i].applied == states[k].applied &&
                memcmp(states[i].digest, states[k].digest, sizeof(states[i].digest)) != 0)
                cluster_fail(c, "meta-%u and meta-%u differ at log index %" PRIu64, i + 1, k + 1,
                             states[i].applied);
    return c->failure[0] ? ERR_CORRUPT : 0;
}
