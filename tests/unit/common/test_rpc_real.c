/* SPDX-License-Identifier: Apache-2.0
 *
 * RPC on the real environment: TCP and UNIX sockets, a server whose two instances run on threads
 * of their own, clients on several loops. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "common/base/log.h"
#include "common/co/sync.h"
#include "common/env/env.h"
#include "common/env/env_real.h"
#include "tests/lib/rpcworld.h"

struct place {
    char dir[64], addr_unix[96], addr_tcp[NET_ADDR_MAX];
    struct co_loop *loops[2];
    struct rpctest test;
    struct rpc_server *server;
};

static void place_start(struct place *p)
{
    struct rpc_server_conf conf = {.addr = "127.0.0.1:0",
                                   .self = "real-1",
                                   .cluster_id = "c1",
                                   .incarnation = 42,
                                   .n_instances = 2};

    snprintf(p->dir, sizeof(p->dir), "/tmp/zbs-rpc-XXXXXX");
    CHECK(mkdtemp(p->dir) != NULL);
    snprintf(p->addr_unix, sizeof(p->addr_unix), "unix:%s/sock", p->dir);
    rpctest_init(&p->test);
    for (int i = 0; i < 2; i++)
        CHECK(env_thread_start("worker", &p->loops[i]) == 0);
    conf.addr_unix = p->addr_unix;
    conf.instances = p->loops;
    conf.services = p->test.table;
    conf.on_disconnect = rpctest_on_disconnect;
    conf.on_disconnect_ctx = &p->test;
    CHECK(rpc_server_start(&conf, &p->server) == 0);
    snprintf(p->addr_tcp, sizeof(p->addr_tcp), "%s", rpc_server_addr(p->server));
}

static void place_stop(struct place *p)
{
    rpc_server_stop(p->server);
    CHECK(atomic_load(&p->test.running) == 0);
    for (int i = 0; i < 2; i++)
        env_thread_stop(p->loops[i]);
    unlink(p->addr_unix + 5);
    CHECK(rmdir(p->dir) == 0);
}

static struct rpc_client *client_of(const char *addr, uint32_t instance)
{
    struct rpc_client_conf conf = {
        .addr = addr, .self = "tester", .cluster_id = "c1", .instance = instance};

    return rpc_client_new(&conf);
}

/* Real results must not hide behind cmocka's jumps out of a coroutine: CHECK aborts. */
static void run_real(int (*fn)(void *arg))
{
    struct env_real_conf conf = {.name = "test_rpc_real", .arena_bytes = 64u << 20};
    struct place p = {.server = NULL};

    CHECK(env_real_run(&conf, fn, &p) == 0);
}

/* ---- payloads over both transports ---- */

static void sizes_over(const char *addr, uint32_t instance)
{
    static const uint32_t sizes[] = {0, 1, 4096, 5000, 65536, 262144, RPC_PAYLOAD_MAX};
    struct rpc_client *c = client_of(addr, instance);
    struct buf *b = buf_alloc(RPC_PAYLOAD_MAX), *dst = buf_alloc(RPC_PAYLOAD_MAX);
    struct rpc_reply r;

    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        struct rpc_payload out = {.count = 0};

        rpctest_fill(b->data, sizes[i], 9);
        rpc_payload_add(&out, b, 0, sizes[i]);
        CHECK(rpctest_echo(c, i, "real", &out, &r) == 0);
        CHECK(r.payload_len == sizes[i] && r.incarnation == 42);
        CHECK(sizes[i] == 0 || rpctest_filled(r.payload->data, sizes[i], 9));
        rpc_reply_free(&r);
        rpc_reply_init(&r);
        r.dst = dst;
        r.dst_cap = RPC_PAYLOAD_MAX;
        CHECK(rpctest_source(c, sizes[i], 5, 8, &r) == 0);
        CHECK(rpctest_filled(dst->data, sizes[i], 8));
        rpc_reply_free(&r);
    }
    CHECK(atomic_load(&b->refs) == 1 && atomic_load(&dst->refs) == 1);
    buf_put(b);
    buf_put(dst);
    rpc_client_close(c);
}

static int main_sizes(void *arg)
{
    struct place *p = arg;

    place_start(p);
    for (uint32_t i = 0; i < 2; i++) {
        sizes_over(p->addr_tcp, i);
        CHECK(atomic_load(&p->test.last_loop) == p->loops[i]);
        sizes_over(p->addr_unix, i);
        CHECK(atomic_load(&p->test.last_loop) == p->loops[i]);
    }
    place_stop(p);
    CHECK(atomic_load(&p->test.disconnects) == 4);
    return 0;
}

static void payloads_over_tcp_and_unix(void **state)
{
    (void)state;
    run_real(main_sizes);
}

/* ---- load from several loops ---- */

#define LOAD_CALLERS 32
#define LOAD_CALLS   100

struct load {
    struct place *p;
    struct rpc_client *client;
    uint32_t next, done;
};

static int load_caller(void *arg)
{
    struct load *l = arg;
    uint32_t n = l->next++;

    for (uint32_t i = 0; i < LOAD_CALLS; i++) {
        uint32_t len = (n * 977 + i * 131) % 20000;
        struct rpc_payload out = {.count = 0};
        struct buf *b = buf_alloc(len + 1);
        struct rpc_reply r;

        rpctest_fill(b->data, len, i);
        rpc_payload_add(&out, b, 0, len);
        buf_put(b);
        CHECK(rpctest_echo(l->client, i, "load", &out, &r) == 0);
        CHECK(r.payload_len == len && (len == 0 || rpctest_filled(r.payload->data, len, i)));
        rpc_reply_free(&r);
        l->done++;
    }
    return 0;
}

static void load_on(struct place *p, const char *addr, uint32_t instance)
{
    struct load l = {.p = p, .client = client_of(addr, instance)};
    struct co_group g;

    co_group_init(&g);
    for (int i = 0; i < LOAD_CALLERS; i++)
        co_spawn(&g, "load", load_caller, &l);
    CHECK(co_group_join(&g) == 0);
    CHECK(l.done == LOAD_CALLERS * LOAD_CALLS);
    rpc_client_close(l.client);
}

struct remote {
    struct place *p;
    const char *addr;
    uint32_t instance;
    struct co_loop *loop;
};

static int remote_main(void *arg)
{
    struct remote *r = arg;
    struct co_loop *home = co_enter(r->loop);

    load_on(r->p, r->addr, r->instance);
    co_enter(home);
    return 0;
}

static int main_load(void *arg)
{
    struct place *p = arg;
    struct remote remotes[4];
    struct co_loop *third;
    struct co_group g;

    place_start(p);
    CHECK(env_thread_start("third", &third) == 0);
    co_group_init(&g);
    for (uint32_t i = 0; i < 4; i++) {
        remotes[i] = (struct remote){p, i % 2 == 0 ? p->addr_tcp : p->addr_unix, i / 2,
                                     i == 0   ? co_loop()
                                     : i == 1 ? third
                                              : p->loops[i - 2]};
        co_spawn(&g, "remote", remote_main, &remotes[i]);
    }
    CHECK(co_group_join(&g) == 0);
    env_thread_stop(third);
    place_stop(p);
    return 0;
}

static void load_from_several_loops(void **state)
{
    (void)state;
    run_real(main_load);
}

/* ---- deadlines, disconnects and stopping ---- */

struct sleepers {
    struct rpc_client *client;
    atomic_uint ended;
};

static int sleeper_main(void *arg)
{
    struct sleepers *s = arg;
    struct rpc_reply r;
    int rc = rpctest_sleep(s->client, 3600 * NSEC_PER_SEC, &r);

    CHECK(rc == ERR_CLOSED || rc == ERR_CANCELED);
    rpc_reply_free(&r);
    atomic_fetch_add(&s->ended, 1);
    return 0;
}

static void wait_running(struct place *p, unsigned n)
{
    while (atomic_load(&p->test.running) != n)
        co_sleep(NSEC_PER_MSEC);
}

static int main_stop(void *arg)
{
    struct place *p = arg;
    struct sleepers s = {.client = NULL};
    struct rpc_client *other;
    struct co_group g;
    struct rpc_reply r;
    nsec_t former;

    place_start(p);
    co_group_init(&g);
    other = client_of(p->addr_unix, 1);
    former = co_deadline_push(co_now() + 30 * NSEC_PER_MSEC);
    CHECK(rpctest_sleep(other, 3600 * NSEC_PER_SEC, &r) == ERR_TIMEOUT);
    co_deadline_restore(former);
    wait_running(p, 0); /* the deadline went with the call */
    CHECK(rpctest_echo(other, 1, "", NULL, &r) == 0);
    rpc_reply_free(&r);
    /* A client that breaks its connection: its sleeps are cancelled. */
    s.client = client_of(p->addr_tcp, 0);
    for (int i = 0; i < 8; i++)
        co_spawn(&g, "sleeper", sleeper_main, &s);
    wait_running(p, 8);
    rpc_client_reset(s.client);
    co_group_join(&g);
    wait_running(p, 0);
    CHECK(atomic_load(&s.ended) == 8 && atomic_load(&p->test.canceled) == 8);
    /* A server that stops with sleeps in flight on another thread. */
    for (int i = 0; i < 8; i++)
        co_spawn(&g, "sleeper", sleeper_main, &s);
    wait_running(p, 8);
    place_stop(p);
    co_group_join(&g);
    CHECK(atomic_load(&s.ended) == 16);
    CHECK(rpctest_echo(other, 1, "", NULL, &r) == ERR_UNREACHABLE ||
          rpctest_echo(other, 1, "", NULL, &r) == ERR_UNREACHABLE);
    rpc_client_close(s.client);
    rpc_client_close(other);
    return 0;
}

static void stopping_with_calls_in_flight(void **state)
{
    (void)state;
    run_real(main_stop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(payloads_over_tcp_and_unix),
        cmocka_unit_test(load_from_several_loops),
        cmocka_unit_test(stopping_with_calls_in_flight),
    };

    log_threshold = LOG_LV_WARN;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
