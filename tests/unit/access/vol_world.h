/* SPDX-License-Identifier: Apache-2.0
 *
 * A whole simulated cluster for tests of the volume engine: three hosts with a meta, a chunk and
 * an access server each. A script (a control coroutine) has jobs executed in the access servers'
 * own coroutines. Included by tests only, so everything is static. */
#ifndef ZBS_TESTS_ACCESS_VOL_WORLD_H
#define ZBS_TESTS_ACCESS_VOL_WORLD_H

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "access/accessd.h"
#include "chunk/chunkd.h"
#include "common/base/assert.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/units.h"
#include "common/cluster/meta_client.h"
#include "common/env/env.h"
#include "common/env/sim.h"
#include "meta/metad.h"
#include "proto/access.pb-c.h"

#define HOSTS    3u
#define CONTROL  "127.1.0.9"
#define DISK     "/dev/disk"
#define MSEC(n)  ((n)*NSEC_PER_MSEC)
#define SEC(n)   ((n)*NSEC_PER_SEC)
#define CHECK(x) ASSERTF(x, "at %" PRId64 " ms", co_now() / NSEC_PER_MSEC)
#define WORKERS  16u

enum role { META, CHUNK, ACCESS, ROLES };

struct vworld;

/* Something to be done in an access server. Memory of the world. */
struct job {
    struct list link;
    int (*fn)(struct job *j, struct vol_engine *e);
    struct vworld *w;
    uint64_t off, len, value;
    nsec_t limit; /* 0: none */
    uint64_t got; /* result */
    int rc;
    bool done;
};

struct vnode {
    struct vworld *w;
    char addr[24], host[16], names[ROLES][16], listen[ROLES][32];
    struct metad_conf meta;
    struct chunkd_conf chunk;
    struct accessd_conf access;
    struct sim_proc *procs[ROLES];
    struct list jobs;
    struct co_group workers;
    struct vol_engine *engine;
    uint32_t life; /* of the access server */
    bool ending;   /* its workers go */
};

struct vworld {
    struct sim *sim;
    struct vnode nodes[HOSTS];
    char metas[128];
    uint64_t disk_bytes;
    uint64_t volume;
    struct meta_client *mc;
    int (*script)(struct vworld *w);
    bool done;
};

/* ---- processes ---- */

static int meta_main(void *arg)
{
    return metad_main(&((struct vnode *)arg)->meta);
}
static int chunk_main(void *arg)
{
    return chunkd_main(&((struct vnode *)arg)->chunk);
}
static int access_main(void *arg)
{
    return accessd_main(&((struct vnode *)arg)->access);
}
static int format_main(void *arg)
{
    struct vnode *n = arg;
    struct chunk_format_conf conf = {.workers = 2, .journal_bytes = 8 * MIB};

    return chunk_format(n->chunk.disks[0], &conf);
}

static int worker(void *arg)
{
    struct vnode *n = arg;

    while (!n->ending) {
        struct job *j = LIST_FIRST(&n->jobs, struct job, link);
        nsec_t former;

        if (!j) {
            int rc = co_sleep(MSEC(1) / 5);

            if (rc < 0)
                return 0;
            continue;
        }
        list_del(&j->link);
        former = co_deadline_push(j->limit ? co_now() + j->limit : NSEC_NEVER);
        j->rc = j->fn(j, n->engine);
        co_deadline_restore(former);
        j->done = true;
    }
    return 0;
}

static void engine_ready(void *arg, struct vol_engine *e)
{
    struct vnode *n = arg;

    n->engine = e;
    n->ending = false;
    co_group_init(&n->workers);
    for (uint32_t i = 0; i < WORKERS; i++)
        co_spawn(&n->workers, "worker", worker, n);
}

static void start(struct vworld *w, uint32_t i, enum role r)
{
    static int (*const mains[])(void *) = {meta_main, chunk_main, access_main};
    struct vnode *n = &w->nodes[i];

    if (r == ACCESS)
        n->life++;
    sim_proc_start(n->procs[r], mains[r], n);
}

UNUSED static void crash(struct vworld *w, uint32_t i, enum role r)
{
    struct vnode *n = &w->nodes[i];

    sim_proc_crash(n->procs[r]);
    if (r == ACCESS) {
        n->life++;
        n->engine = NULL;
        /* Its jobs end with an unknown outcome: whoever waits sees the other life. */
        while (!list_empty(&n->jobs))
            list_pop_front(&n->jobs);
    }
}

UNUSED static void quiet(void *arg, enum log_level level, const char *line)
{
    (void)arg;
    (void)level;
    (void)line;
}

static void node_init(struct vworld *w, uint32_t i)
{
    static const char *const words[] = {"meta", "chunk", "access"};
    struct vnode *n = &w->nodes[i];

    n->w = w;
    list_init(&n->jobs);
    snprintf(n->addr, sizeof(n->addr), "127.1.0.%u", i + 1);
    snprintf(n->host, sizeof(n->host), "host-%u", i + 1);
    for (uint32_t r = 0; r < ROLES; r++) {
        snprintf(n->names[r], sizeof(n->names[r]), "%s-%u", words[r], i + 1);
        snprintf(n->listen[r], sizeof(n->listen[r]), "%s:%u", n->addr, 7100 + 100 * r);
        n->procs[r] = sim_proc_new(w->sim, n->addr, n->names[r]);
    }
    n->meta = (struct metad_conf){.name = n->names[META],
                                  .listen = n->listen[META],
                                  .data_dir = "/meta",
                                  .zookeeper = "127.1.0.1:2181",
                                  .zk_root = "/zbs",
                                  .peers = w->metas};
    n->chunk = (struct chunkd_conf){.listen = n->listen[CHUNK],
                                    .data_dir = "/chunk",
                                    .meta = w->metas,
                                    .host = n->host,
                                    .rack = "",
                                    .zone = "",
                                    .disks = {DISK},
                                    .n_disks = 1,
                                    .memory_bytes = 64 * MIB,
                                    .flush_delay_ms = 100};
    n->access = (struct accessd_conf){.name = n->names[ACCESS],
                                      .listen = n->listen[ACCESS],
                                      .data_dir = "/access",
                                      .meta = w->metas,
                                      .host = n->host,
                                      .rack = "",
                                      .zone = "",
                                      .iscsi_listen = "",
                                      .engine_ready = engine_ready,
                                      .engine_arg = n};
}

/* The disk that the host's chunk server has, formatted. */
static void world_disk(struct vworld *w, uint32_t i, const char *path, uint64_t bytes)
{
    struct vnode *n = &w->nodes[i];

    n->chunk.disks[0] = path;
    sim_disk_create(n->procs[CHUNK], path, bytes);
    sim_proc_start(n->procs[CHUNK], format_main, n);
    while (sim_proc_running(n->procs[CHUNK]))
        assert_true(sim_step(w->sim));
    assert_int_equal(sim_proc_result(n->procs[CHUNK]), 0);
}

static void world_init(struct vworld *w, const struct sim_conf *conf, uint64_t disk_bytes)
{
    *w = (struct vworld){.disk_bytes = disk_bytes};
    if (!getenv("ZBS_TEST_LOG"))
        log_set_sink(quiet, NULL);
    else
        log_threshold = LOG_LV_DEBUG;
    w->sim = sim_new(conf);
    snprintf(w->metas, sizeof(w->metas), "127.1.0.1:7100,127.1.0.2:7100,127.1.0.3:7100");
    for (uint32_t i = 0; i < HOSTS; i++) {
        node_init(w, i);
        world_disk(w, i, DISK, disk_bytes);
    }
}

static int script_main(void *arg)
{
    struct vworld *w = arg;
    int rc;

    w->mc = meta_client_new(w->metas, "script");
    rc = w->script(w);
    ASSERTF(rc == 0, "the script failed: %d %s", rc, err_text(rc));
    meta_client_close(w->mc);
    w->done = true;
    return 0;
}

static bool is_done(void *arg)
{
    return ((struct vworld *)arg)->done;
}

/* Starts everything, runs the script to its end. */
static void world_run(struct vworld *w, int (*script)(struct vworld *w), nsec_t limit)
{
    w->script = script;
    w->done = false;
    for (uint32_t i = 0; i < HOSTS; i++)
        for (uint32_t r = 0; r < ROLES; r++)
            if (!sim_proc_running(w->nodes[i].procs[r]))
                start(w, i, (enum role)r);
    sim_control(w->sim, CONTROL, "script", script_main, w);
    assert_true(sim_run_until(w->sim, is_done, w, limit));
    for (uint32_t i = 0; i < HOSTS; i++)
        for (uint32_t r = 0; r < ROLES; r++)
            assert_null(sim_proc_halted(w->nodes[i].procs[r]));
}

static void world_fini(struct vworld *w)
{
    sim_free(w->sim);
    log_set_sink(NULL, NULL);
}

/* ---- from the script: meta ---- */

static int meta_ask(struct vworld *w, enum meta_method m, const ProtobufCMessage *rq,
                    struct rpc_reply *r)
{
    nsec_t former = co_deadline_push(co_now() + SEC(30));
    int rc;

    rpc_reply_init(r);
    rc = meta_call(w->mc, m, rq, true, r);
    co_deadline_restore(former);
    return rc;
}

static int volume_make(struct vworld *w, uint32_t replicas, uint64_t size_bytes)
{
    Zbs__Meta__PoolCreateRequest pool = ZBS__META__POOL_CREATE_REQUEST__INIT;
    Zbs__Meta__VolumeCreateRequest vol = ZBS__META__VOLUME_CREATE_REQUEST__INIT;
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    struct rpc_reply r;
    char pool_name[] = "pool", name[] = "volume";
    int rc;

    meta_client_mutation(w->mc, &m);
    pool.mutation = &m;
    pool.name = pool_name;
    pool.replicas = replicas;
    rc = meta_ask(w, META_POOL_CREATE, &pool.base, &r);
    rpc_reply_free(&r);
    if (rc < 0)
        return rc;
    meta_client_mutation(w->mc, &m);
    vol.mutation = &m;
    vol.pool = pool_name;
    vol.name = name;
    vol.size_bytes = size_bytes;
    vol.stripe_count = 2;
    rc = meta_ask(w, META_VOLUME_CREATE, &vol.base, &r);
    if (rc == 0)
        w->volume = ((Zbs__Meta__Volume *)r.msg)->id;
    rpc_reply_free(&r);
    return rc;
}

UNUSED static void setting_set(struct vworld *w, const char *name, uint64_t value)
{
    Zbs__Meta__SettingSetRequest q = ZBS__META__SETTING_SET_REQUEST__INIT;
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    struct rpc_reply r;

    meta_client_mutation(w->mc, &m);
    q.mutation = &m;
    q.name = (char *)name;
    q.value = value;
    CHECK(meta_ask(w, META_SETTING_SET, &q.base, &r) == 0);
    rpc_reply_free(&r);
}

static uint32_t degraded(struct vworld *w)
{
    Zbs__Meta__ClusterStatusRequest q = ZBS__META__CLUSTER_STATUS_REQUEST__INIT;
    struct rpc_reply r;
    uint32_t n = UINT32_MAX;

    if (meta_ask(w, META_CLUSTER_STATUS, &q.base, &r) == 0)
        n = ((Zbs__Meta__ClusterStatusReply *)r.msg)->extents_degraded;
    rpc_reply_free(&r);
    return n;
}

UNUSED static void wait_degraded(struct vworld *w, bool want, nsec_t limit)
{
    nsec_t until = co_now() + limit;

    while ((degraded(w) != 0) != want) {
        ASSERTF(co_now() < until, "still %u degraded extents", degraded(w));
        (void)co_sleep(MSEC(50));
    }
}

static uint32_t chunks_alive(struct vworld *w)
{
    Zbs__Meta__ClusterStatusRequest q = ZBS__META__CLUSTER_STATUS_REQUEST__INIT;
    struct rpc_reply r;
    uint32_t n = 0;

    if (meta_ask(w, META_CLUSTER_STATUS, &q.base, &r) == 0) {
        const Zbs__Meta__ClusterStatusReply *s = (const Zbs__Meta__ClusterStatusReply *)r.msg;

        for (size_t i = 0; i < s->n_chunks; i++)
            n += s->chunks[i]->view->alive;
    }
    rpc_reply_free(&r);
    return n;
}

UNUSED static void wait_ready(struct vworld *w)
{
    nsec_t until = co_now() + SEC(30);

    for (uint32_t i = 0; i < HOSTS; i++)
        while (!w->nodes[i].engine || chunks_alive(w) < HOSTS) {
            ASSERTF(co_now() < until, "not ready: access %u, %u chunk servers", i, chunks_alive(w));
            (void)co_sleep(MSEC(20));
        }
}

/* ---- from the script: jobs ---- */

static void job_post(struct vworld *w, uint32_t node, struct job *j)
{
    j->w = w;
    j->done = false;
    list_push_back(&w->nodes[node].jobs, &j->link);
}

/* Its result, or ERR_AMBIGUOUS if its server died meanwhile. */
static int job_wait(struct vworld *w, uint32_t node, struct job *j, uint32_t life)
{
    while (!j->done && w->nodes[node].life == life)
        (void)co_sleep(MSEC(1) / 5);
    return j->done ? j->rc : ERR_AMBIGUOUS;
}

static int job_do(struct vworld *w, uint32_t node, struct job *j)
{
    uint32_t life = w->nodes[node].life;

    job_post(w, node, j);
    return job_wait(w, node, j, life);
}

/* Every sector names its number and value. */
static void sectors_fill(uint8_t *p, uint64_t off, uint64_t len, uint64_t value)
{
    for (uint64_t at = 0; at < len; at += SECTOR_BYTES)
        for (uint32_t k = 0; k < SECTOR_BYTES / 16; k++) {
            uint64_t words[2] = {(off + at) / SECTOR_BYTES + k, value};

            memcpy(p + at + 16 * k, words, sizeof(words));
        }
}

UNUSED static int job_write(struct job *j, struct vol_engine *e)
{
    struct buf *b = buf_alloc(j->len);
    struct vol *v;
    int rc = vol_open(e, j->w->volume, &v);

    sectors_fill(b->data, j->off, j->len, j->value);
    if (rc == 0) {
        rc = vol_write(v, j->off, (uint32_t)j->len, b, 0);
        vol_close(v);
    }
    buf_put(b);
    return rc;
}

/* All sectors must be whole and of one value (0: never written), which is the result. */
UNUSED static int job_read(struct job *j, struct vol_engine *e)
{
    struct buf *b = buf_alloc(j->len), *want = buf_alloc(j->len);
    struct vol *v;
    int rc = vol_open(e, j->w->volume, &v);

    if (rc == 0) {
        rc = vol_read(v, j->off, (uint32_t)j->len, b, 0);
        vol_close(v);
    }
    if (rc == 0) {
        memcpy(&j->got, b->data + 8, 8);
        if (j->got)
            sectors_fill(want->data, j->off, j->len, j->got);
        else
            memset(want->data, 0, j->len);
        ASSERTF(memcmp(b->data, want->data, j->len) == 0, "torn or foreign sectors at %" PRIu64,
                j->off);
    }
    buf_put(b);
    buf_put(want);
    return rc;
}

UNUSED static int job_zero(struct job *j, struct vol_engine *e)
{
    struct vol *v;
    int rc = vol_open(e, j->w->volume, &v);

    if (rc == 0) {
        rc = j->value ? vol_discard(v, j->off, j->len) : vol_zero(v, j->off, j->len);
        vol_close(v);
    }
    return rc;
}

UNUSED static int do_write(struct vworld *w, uint32_t node, uint64_t off, uint64_t len,
                           uint64_t value)
{
    struct job j = {.fn = job_write, .off = off, .len = len, .value = value};

    return job_do(w, node, &j);
}

/* The value, asserted to be readable. */
UNUSED static uint64_t do_read(struct vworld *w, uint32_t node, uint64_t off, uint64_t len)
{
    struct job j = {.fn = job_read, .off = off, .len = len};
    int rc = job_do(w, node, &j);

    ASSERTF(rc == 0, "read of %" PRIu64 "+%" PRIu64 " at %u: %s %s", off, len, node, err_name(rc),
            err_text(rc));
    return j.got;
}

/* Compares all replicas; returns the number of extents compared. */
UNUSED static uint32_t do_verify(struct vworld *w, uint32_t slots)
{
    uint32_t extents = 0;

    for (uint32_t i = 0; i < HOSTS; i++) {
        Zbs__Access__VerifyRequest q = ZBS__ACCESS__VERIFY_REQUEST__INIT;
        struct rpc_client *c = rpc_client_new(&(struct rpc_client_conf){
            .addr = w->nodes[i].listen[ACCESS], .self = "script", .cluster_id = ""});
        struct rpc_reply r;
        int rc;

        q.volume_id = w->volume;
        q.count = slots;
        rpc_reply_init(&r);
        rc = rpc_call(c, &zbs__access__access__descriptor, 2, &q.base, NULL, &r);
        ASSERTF(rc == 0, "verify at %u: %s %s", i, err_name(rc), err_text(rc));
        ASSERTF(((Zbs__Access__VerifyReply *)r.msg)->mismatch_count == 0, "replicas differ");
        ASSERTF(((Zbs__Access__VerifyReply *)r.msg)->incomplete == 0, "replicas are absent");
        extents += ((Zbs__Access__VerifyReply *)r.msg)->extents;
        rpc_reply_free(&r);
        rpc_client_close(c);
    }
    return extents;
}

/* Finds a page on a disk by its content and damages it; how often. */
UNUSED static uint32_t rot(struct vworld *w, uint32_t node, uint64_t off, uint64_t value)
{
    uint8_t want[PAGE_BYTES];
    uint8_t *have = malloc(MIB);
    uint32_t n = 0;

    sectors_fill(want, off, sizeof(want), value);
    for (uint64_t at = 0; at < w->disk_bytes; at += MIB) {
        sim_disk_peek(w->nodes[node].procs[CHUNK], DISK, have, MIB, at);
        for (uint64_t k = 0; k <= MIB - PAGE_BYTES; k += SECTOR_BYTES) {
            if (memcmp(have + k, want, sizeof(want)) != 0)
                continue;
            have[k + 1000] ^= 0x10;
            sim_disk_poke(w->nodes[node].procs[CHUNK], DISK, have + k, PAGE_BYTES, at + k);
            n++;
        }
    }
    free(have);
    return n;
}

/* A world of its own for one script. */
UNUSED static void world_of(int (*script)(struct vworld *w), uint64_t seed, nsec_t limit,
                            uint64_t disk_bytes)
{
    struct sim_conf conf = {.seed = seed};
    struct vworld w;

    world_init(&w, &conf, disk_bytes);
    world_run(&w, script, limit);
    world_fini(&w);
}

UNUSED static void world_script(int (*script)(struct vworld *w), uint64_t seed, uint64_t disk_bytes)
{
    world_of(script, seed, SEC(600), disk_bytes);
}

#endif
