/* SPDX-License-Identifier: Apache-2.0
 *
 * A simulated world with up to three meta servers and a control coroutine that talks to them.
 * Included by tests only, so everything is static. */
#ifndef ZBS_TESTS_META_WORLD_H
#define ZBS_TESTS_META_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "common/base/assert.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/cluster/meta_client.h"
#include "common/coord/coord.h"
#include "common/env/env.h"
#include "common/env/sim.h"
#include "meta/metad.h"

#define METAS   3u
#define CONTROL "127.1.0.9"
#define MSEC(n) ((n)*NSEC_PER_MSEC)
#define SEC(n)  ((n)*NSEC_PER_SEC)

struct world_meta {
    char host[24], name[16], listen[32];
    struct metad_conf conf;
    struct sim_proc *proc;
};

struct mworld {
    struct sim *sim;
    struct world_meta metas[METAS];
    uint32_t n;
    char peers[128];
    int (*script)(struct mworld *w);
    struct meta_client *mc; /* the script's */
    bool done;
};

static int world_meta_main(void *arg)
{
    return metad_main(&((struct world_meta *)arg)->conf);
}

/* What the servers have said, counted: a test makes sure that it reached what it is about. */
struct world_marks {
    uint32_t serve, deposed, resume, snapshot;
};
static struct world_marks world_marks;

UNUSED static void world_sink(void *arg, enum log_level level, const char *line)
{
    (void)arg;
    (void)level;
    world_marks.serve += strstr(line, "lead.serve") != NULL;
    world_marks.deposed += strstr(line, "deposed") != NULL;
    world_marks.resume += strstr(line, "lead.resume") != NULL;
    world_marks.snapshot += strstr(line, "snapshot.load") != NULL;
    if (getenv("ZBS_TEST_LOG") != NULL)
        fprintf(stderr, "%s\n", line);
}

static void world_init(struct mworld *w, const struct sim_conf *conf, uint32_t n)
{
    *w = (struct mworld){.n = n};
    world_marks = (struct world_marks){0};
    w->sim = sim_new(conf);
    log_set_sink(world_sink, NULL); /* instead of the world's own */
    for (uint32_t i = 0; i < n; i++)
        snprintf(w->peers + strlen(w->peers), sizeof(w->peers) - strlen(w->peers),
                 "%s127.1.0.%u:7100", i > 0 ? "," : "", i + 1);
    for (uint32_t i = 0; i < n; i++) {
        struct world_meta *m = &w->metas[i];

        snprintf(m->host, sizeof(m->host), "127.1.0.%u", i + 1);
        snprintf(m->name, sizeof(m->name), "meta-%u", i + 1);
        snprintf(m->listen, sizeof(m->listen), "127.1.0.%u:7100", i + 1);
        m->conf = (struct metad_conf){.name = m->name,
                                      .listen = m->listen,
                                      .data_dir = "/meta",
                                      .zookeeper = "127.1.0.1:2181,127.1.0.2:2181,127.1.0.3:2181",
                                      .zk_root = "/zbs",
                                      .peers = w->peers,
                                      .log_keep = 20};
        m->proc = sim_proc_new(w->sim, m->host, m->name);
    }
}

static void world_start(struct mworld *w, uint32_t i)
{
    sim_proc_start(w->metas[i].proc, world_meta_main, &w->metas[i]);
}

static int world_script_main(void *arg)
{
    struct mworld *w = arg;

    w->mc = meta_client_new(w->peers, "test");
    int rc = w->script(w);
    ASSERTF(rc == 0, "the script failed: %d %s", rc, err_text(rc));
    meta_client_close(w->mc);
    w->done = true;
    return 0;
}

static bool world_is_done(void *arg)
{
    return ((struct mworld *)arg)->done;
}

/* Starts all meta servers, runs the script to its end, checks that nothing halted. */
UNUSED static void world_run(struct mworld *w, int (*script)(struct mworld *w))
{
    w->script = script;
    w->done = false;
    for (uint32_t i = 0; i < w->n; i++) {
        if (!sim_proc_running(w->metas[i].proc))
            world_start(w, i);
    }
    sim_control(w->sim, CONTROL, "script", world_script_main, w);
    assert_true(sim_run_until(w->sim, world_is_done, w, SEC(300)));
    for (uint32_t i = 0; i < w->n; i++)
        assert_null(sim_proc_halted(w->metas[i].proc));
}

UNUSED static void world_fini(struct mworld *w)
{
    sim_free(w->sim);
}

/* The script in worlds of three meta servers, one for each seed from 1. */
UNUSED static void for_seeds(int (*script)(struct mworld *w), uint32_t seeds)
{
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        struct sim_conf conf = {.seed = seed};
        struct mworld w;

        world_init(&w, &conf, 3);
        world_run(&w, script);
        world_fini(&w);
    }
}

/* ---- calls; from the script ---- */

/* The reply must be freed. */
UNUSED static int call(struct mworld *w, enum meta_method method, const ProtobufCMessage *rq,
                       struct rpc_reply *r)
{
    rpc_reply_init(r);
    return meta_call(w->mc, method, rq, true, r);
}

/* One server, not the leader that the client knows. */
UNUSED static int call_at(struct mworld *w, uint32_t i, enum meta_method method,
                          const ProtobufCMessage *rq, struct rpc_reply *r)
{
    struct rpc_client_conf conf = {.addr = w->metas[i].listen, .self = "test", .cluster_id = ""};
    struct rpc_client *c = rpc_client_new(&conf);
    nsec_t former = co_deadline_push(co_now() + SEC(2));
    int rc;

    rpc_reply_init(r);
    rc = rpc_call(c, &zbs__meta__meta__descriptor, method, rq, NULL, r);
    co_deadline_restore(former);
    rpc_client_close(c);
    return rc;
}

UNUSED static int pool_create(struct mworld *w, const char *name, uint32_t replicas)
{
    Zbs__Meta__PoolCreateRequest rq = ZBS__META__POOL_CREATE_REQUEST__INIT;
    Zbs__Meta__Mutation mutation;
    struct rpc_reply r;
    int rc;

    meta_client_mutation(w->mc, &mutation);
    rq.mutation = &mutation;
    rq.name = (char *)name;
    rq.replicas = replicas;
    rc = call(w, META_POOL_CREATE, &rq.base, &r);
    rpc_reply_free(&r);
    return rc;
}

UNUSED static int volume_create(struct mworld *w, const char *pool, const char *name,
                                uint64_t size_bytes, uint64_t *ret_id)
{
    Zbs__Meta__VolumeCreateRequest rq = ZBS__META__VOLUME_CREATE_REQUEST__INIT;
    Zbs__Meta__Mutation mutation;
    struct rpc_reply r;
    int rc;

    meta_client_mutation(w->mc, &mutation);
    rq.mutation = &mutation;
    rq.pool = (char *)pool;
    rq.name = (char *)name;
    rq.size_bytes = size_bytes;
    rc = call(w, META_VOLUME_CREATE, &rq.base, &r);
    if (rc == 0)
        *ret_id = ((Zbs__Meta__Volume *)r.msg)->id;
    rpc_reply_free(&r);
    return rc;
}

/* ERR_* or the number of pools. */
UNUSED static int pool_count(struct mworld *w)
{
    Zbs__Meta__PoolListRequest rq = ZBS__META__POOL_LIST_REQUEST__INIT;
    struct rpc_reply r;
    int rc = call(w, META_POOL_LIST, &rq.base, &r);

    if (rc == 0)
        rc = (int)((Zbs__Meta__PoolListReply *)r.msg)->n_pools;
    rpc_reply_free(&r);
    return rc;
}

/* Index of the server that leads with authority; METAS if none does. */
UNUSED static uint32_t leader(struct mworld *w)
{
    for (uint32_t i = 0; i < w->n; i++) {
        Zbs__Meta__LeaderRequest rq = ZBS__META__LEADER_REQUEST__INIT;
        struct rpc_reply r;
        bool self = false;

        if (!sim_proc_running(w->metas[i].proc) || sim_proc_paused(w->metas[i].proc))
            continue;
        if (call_at(w, i, META_LEADER, &rq.base, &r) == 0)
            self = ((Zbs__Meta__LeaderReply *)r.msg)->self;
        rpc_reply_free(&r);
        if (self)
            return i;
    }
    return METAS;
}

UNUSED static uint32_t wait_leader(struct mworld *w)
{
    for (int i = 0; i < 2000; i++) {
        uint32_t l = leader(w);

        if (l < METAS)
            return l;
        (void)co_sleep(MSEC(10));
    }
    return METAS;
}

/* ---- equality (invariant 7) ---- */

struct peer_state {
    bool there;
    uint64_t applied, synced, digest;
};

UNUSED static struct peer_state state_of(struct mworld *w, uint32_t i)
{
    struct rpc_client_conf conf = {.addr = w->metas[i].listen, .self = "test", .cluster_id = ""};
    struct rpc_client *c = rpc_client_new(&conf);
    Zbs__Meta__StateRequest rq = ZBS__META__STATE_REQUEST__INIT;
    nsec_t former = co_deadline_push(co_now() + SEC(1));
    struct peer_state s = {0};
    struct rpc_reply r;

    rq.digest = true;
    rpc_reply_init(&r);
    if (rpc_call(c, &zbs__meta__meta_peer__descriptor, 0, &rq.base, NULL, &r) == 0) {
        Zbs__Meta__StateReply *m = (void *)r.msg;

        s.applied = m->applied;
        s.synced = m->synced;
        s.there = m->digest.len == sizeof(s.digest);
        if (s.there)
            memcpy(&s.digest, m->digest.data, sizeof(s.digest));
    }
    rpc_reply_free(&r);
    co_deadline_restore(former);
    rpc_client_close(c);
    return s;
}

/* Waits until all running servers have applied the same, and checks that they are equal. */
UNUSED static void check_equal(struct mworld *w)
{
    for (int tries = 0; tries < 500; tries++) {
        struct peer_state first = {0};
        bool same = true;

        for (uint32_t i = 0; i < w->n; i++) {
            struct peer_state s;

            if (!sim_proc_running(w->metas[i].proc))
                continue;
            s = state_of(w, i);
            if (first.applied == 0)
                first = s;
            same = same && s.there && s.applied == first.applied;
            if (s.there && first.there && s.applied == first.applied)
                assert_int_equal(s.digest, first.digest);
        }
        if (same && first.there)
            return;
        (void)co_sleep(MSEC(50));
    }
    fail_msg("the servers never reached the same position");
}

#endif
