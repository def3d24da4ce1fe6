/* SPDX-License-Identifier: Apache-2.0
 *
 * A simulated world with one RPC server process and a client's coroutine: what the RPC tests and
 * the fuzzer run in. */
#ifndef ZBS_TESTS_LIB_RPCWORLD_H
#define ZBS_TESTS_LIB_RPCWORLD_H

#include "common/env/env.h"
#include "common/env/sim.h"
#include "tests/lib/rpctest.h"

#define RPCWORLD_ADDR        "127.1.0.1:9000"
#define RPCWORLD_SERVER_HOST "127.1.0.1"
#define RPCWORLD_CLIENT_HOST "127.1.0.2"

/* Checks of tests that run inside coroutines. */
#define CHECK(expr)                                                                                \
    do {                                                                                           \
        if (!(expr))                                                                               \
            rpcworld_check_failed(#expr, __FILE__, __LINE__);                                      \
    } while (0)
void rpcworld_check_failed(const char *expr, const char *file, int line);

struct rpcworld {
    struct sim_conf sim_conf;
    struct rpc_server_conf conf; /* what is not set gets a default */
    uint32_t n_threads;          /* instances on loops of their own; 0: the main loop */

    struct sim *sim;
    struct sim_proc *proc;
    struct rpctest test;
    uint64_t starts; /* incarnation is 1000 + starts */
    bool up;         /* the server listens */
    struct co_loop *loops[8];
    struct rpc_client *client; /* to the server, named "tester", cluster "c1" */
    void (*body)(struct rpcworld *w);
    void *arg;
};

/* Runs body in a coroutine of the client's host against a fresh server; checks that it ends
 * within a day of virtual time and that the server then stops cleanly with no handler left. */
void rpcworld_run(struct rpcworld *w, void (*body)(struct rpcworld *w));

/* For bodies. */
struct rpc_client *rpcworld_client(const char *cluster_id, uint32_t instance);
co_fn void rpcworld_wait_up(struct rpcworld *w);
/* kill -9 of the server, and a start. */
co_fn void rpcworld_restart(struct rpcworld *w);

#endif
