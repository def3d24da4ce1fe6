/* SPDX-License-Identifier: Apache-2.0
 *
 * The simulated world of the RPC tests. */
#include <stdio.h>
#include <stdlib.h>
#include "common/base/assert.h"
#include "tests/lib/rpcworld.h"

void rpcworld_check_failed(const char *expr, const char *file, int line)
{
    fprintf(stderr, "%s:%d: check failed: %s (last error: %s)\n", file, line, expr,
            co_err_slot()->text);
    abort();
}

static int server_main(void *arg)
{
    struct rpcworld *w = arg;
    struct rpc_server_conf conf = w->conf;
    struct rpc_server *server;

    if (conf.addr == NULL)
        conf.addr = RPCWORLD_ADDR;
    conf.self = "server-1";
    conf.cluster_id = "c1";
    conf.incarnation = 1000 + w->starts;
    conf.services = w->test.table;
    conf.on_disconnect = rpctest_on_disconnect;
    conf.on_disconnect_ctx = &w->test;
    for (uint32_t i = 0; i < w->n_threads; i++)
        CHECK(env_thread_start("worker", &w->loops[i]) == 0);
    if (w->n_threads > 0) {
        conf.instances = w->loops;
        conf.n_instances = w->n_threads;
    }
    CHECK(rpc_server_start(&conf, &server) == 0);
    w->up = true;
    while (co_sleep(NSEC_PER_SEC) == 0)
        ;
    rpc_server_stop(server);
    for (uint32_t i = 0; i < w->n_threads; i++)
        env_thread_stop(w->loops[i]);
    w->up = false;
    return 0;
}

struct rpc_client *rpcworld_client(const char *cluster_id, uint32_t instance)
{
    struct rpc_client_conf conf = {
        .addr = RPCWORLD_ADDR, .self = "tester", .cluster_id = cluster_id, .instance = instance};

    return rpc_client_new(&conf);
}

co_fn void rpcworld_wait_up(struct rpcworld *w)
{
    while (!w->up)
        co_sleep(NSEC_PER_MSEC);
}

static void server_start(struct rpcworld *w)
{
    w->up = false;
    w->starts++;
    rpctest_init(&w->test);
    sim_proc_start(w->proc, server_main, w);
}

co_fn void rpcworld_restart(struct rpcworld *w)
{
    sim_proc_crash(w->proc);
    server_start(w);
    rpcworld_wait_up(w);
}

static int client_main(void *arg)
{
    struct rpcworld *w = arg;

    rpcworld_wait_up(w);
    w->client = rpcworld_client("c1", 0);
    w->body(w);
    rpc_client_close(w->client);
    return 0;
}

static bool client_ended(void *arg)
{
    struct rpcworld *w = arg;

    return sim_control_running(w->sim) == 0;
}

void rpcworld_run(struct rpcworld *w, void (*body)(struct rpcworld *w))
{
    w->sim = sim_new(&w->sim_conf);
    w->proc = sim_proc_new(w->sim, RPCWORLD_SERVER_HOST, "server-1");
    w->body = body;
    w->starts = 0;
    server_start(w);
    sim_control(w->sim, RPCWORLD_CLIENT_HOST, "client", client_main, w);
    CHECK(sim_run_until(w->sim, client_ended, w, 24 * 3600 * NSEC_PER_SEC));
    sim_proc_stop(w->proc);
    CHECK(sim_proc_halted(w->proc) == NULL && sim_proc_result(w->proc) == 0);
    CHECK(atomic_load(&w->test.running) == 0);
    sim_free(w->sim);
}
