/* SPDX-License-Identifier: Apache-2.0
 *
 * RPC payloads in memory that client and server share: used where they should be, given back when
 * they may be, and peers that name memory which is not theirs to name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "common/base/crc32c.h"
#include "common/base/mem.h"
#include "common/co/sync.h"
#include "common/env/env_real.h"
#include "common/rpc/conn.h"
#include "tests/lib/rpcworld.h"

#define ARENA (64u << 20)

struct place {
    char dir[64], addr[96];
    struct rpctest test;
    struct rpc_server *server;
    struct rpc_client *client;
};

static void place_start(struct place *p)
{
    struct rpc_server_conf conf = {
        .addr = "127.0.0.1:0", .self = "real-1", .cluster_id = "c1", .incarnation = 42};
    struct rpc_client_conf client = {.self = "tester", .cluster_id = "c1"};

    snprintf(p->dir, sizeof(p->dir), "/tmp/zbs-slots-XXXXXX");
    CHECK(mkdtemp(p->dir) != NULL);
    snprintf(p->addr, sizeof(p->addr), "unix:%s/sock", p->dir);
    rpctest_init(&p->test);
    conf.addr_unix = p->addr;
    conf.services = p->test.table;
    CHECK(rpc_server_start(&conf, &p->server) == 0);
    client.addr = p->addr;
    p->client = rpc_client_new(&client);
}

static void place_stop(struct place *p)
{
    if (p->client != NULL)
        rpc_client_close(p->client);
    if (p->server != NULL)
        rpc_server_stop(p->server);
    CHECK(rmdir(p->dir) == 0);
}

static void run_real(int (*fn)(void *arg))
{
    struct env_real_conf conf = {.name = "test_rpc_slots", .arena_bytes = ARENA};
    struct place p = {.server = NULL};
    uint64_t used = buf_used_bytes();

    CHECK(env_real_run(&conf, fn, &p) == 0);
    CHECK(buf_used_bytes() == used);
}

/* ---- payloads ---- */

static unsigned in_place(struct place *p)
{
    return atomic_exchange(&p->test.in_place, 0);
}

/* One of `len` bytes, in `count` slices that start at `off`. */
static void sink(struct place *p, uint32_t len, uint32_t off, uint32_t count)
{
    struct buf *b = buf_alloc(len + off);
    struct rpc_payload out = {.count = 0};
    uint32_t part = DIV_UP(len, count);
    const Zbs__Rpctest__SinkReply *reply;
    struct rpc_reply r;

    rpctest_fill(b->data + off, len, len);
    for (uint32_t at = 0; at < len; at += part)
        rpc_payload_add(&out, b, off + at, MIN(part, len - at));
    CHECK(rpctest_sink(p->client, &out, &r) == 0);
    reply = (const Zbs__Rpctest__SinkReply *)r.msg;
    CHECK(reply->len == len && reply->crc32c == crc32c(0, b->data + off, len));
    rpc_reply_free(&r);
    CHECK(atomic_load(&b->refs) == 1);
    buf_put(b);
}

static int main_requests(void *arg)
{
    struct place *p = arg;

    place_start(p);
    sink(p, 262144, 0, 1);
    CHECK(in_place(p) == 1);
    sink(p, 65536, 8192, 1);
    CHECK(in_place(p) == 1);
    sink(p, 65535, 0, 1); /* the method wants shorter ones for itself */
    sink(p, 100000, 512, 1);
    CHECK(in_place(p) == 0); /* a device could not take it from there */
    sink(p, 262144, 4096, 7);
    CHECK(in_place(p) == 1); /* gathered */
    sink(p, 100, 0, 1);
    sink(p, 4096, 0, 1);
    CHECK(in_place(p) == 0);
    place_stop(p);
    return 0;
}

static void request_payloads(void **state)
{
    (void)state;
    run_real(main_requests);
}

static void source(struct place *p, uint32_t len, uint32_t slices, struct buf *dst, uint32_t expect)
{
    struct rpc_reply r;

    rpc_reply_init(&r);
    r.dst = dst;
    r.dst_off = dst != NULL ? 100 : 0;
    r.dst_cap = dst != NULL ? len : 0;
    r.expect = expect;
    CHECK(rpctest_source(p->client, len, slices, 5, &r) == 0);
    CHECK(r.payload_len == len && (dst == NULL || r.payload == dst));
    CHECK(rpctest_filled(r.payload->data + r.payload_off, len, 5));
    rpc_reply_free(&r);
}

static int main_replies(void *arg)
{
    struct place *p = arg;
    struct buf *dst = buf_alloc(RPC_PAYLOAD_MAX);

    place_start(p);
    source(p, 262144, 1, NULL, 262144);
    CHECK(in_place(p) == 1);
    source(p, 262144, 1, dst, 0);
    CHECK(in_place(p) == 1);
    source(p, 100000, 9, dst, 0); /* the server puts the pieces there */
    source(p, 100000, 1, NULL, 99999);
    source(p, 100000, 1, NULL, 0);
    source(p, 4096, 1, dst, 0);
    CHECK(in_place(p) == 0);
    source(p, 10, 1, NULL, 100000); /* less than expected */
    CHECK(in_place(p) == 1);
    CHECK(atomic_load(&dst->refs) == 1);
    buf_put(dst);
    place_stop(p);
    return 0;
}

static void reply_payloads(void **state)
{
    (void)state;
    run_real(main_replies);
}

/* ---- what is lent comes back ---- */

static int call_sink(struct place *p, struct buf *b)
{
    struct rpc_payload out = {.count = 0};
    struct rpc_reply r;
    int rc;

    rpc_payload_add(&out, b, 0, 65536);
    rc = rpctest_sink(p->client, &out, &r);
    rpc_reply_free(&r);
    return rc;
}

static void until_free(const struct buf *b)
{
    while (atomic_load(&b->refs) > 1)
        CHECK(co_sleep(NSEC_PER_MSEC) == 0);
}

static int main_given_up(void *arg)
{
    struct buf *b = buf_alloc(65536);
    struct place *p = arg;

    place_start(p);
    memset(b->data, 1, 65536);
    sink(p, 100, 0, 1); /* connected */
    atomic_store(&p->test.sink_ms, 60);
    co_deadline_push(co_now() + 5 * NSEC_PER_MSEC);
    CHECK(call_sink(p, b) == ERR_TIMEOUT);
    co_deadline_restore(NSEC_NEVER);
    CHECK(atomic_load(&p->test.running) == 1 && atomic_load(&b->refs) == 2); /* it is in use */
    until_free(b);
    CHECK(atomic_load(&p->test.running) == 0);
    buf_put(b);
    place_stop(p);
    return 0;
}

static void a_call_that_gave_up_still_lends(void **state)
{
    (void)state;
    run_real(main_given_up);
}

static int sink_main(void *arg)
{
    struct place *p = arg;
    struct buf *b = buf_alloc(65536);
    int rc;

    memset(b->data, 1, 65536);
    rc = call_sink(p, b);
    CHECK(rc == ERR_CLOSED);
    /* The call is over, but the server has not let go. */
    CHECK(atomic_load(&p->test.running) == 0 || atomic_load(&b->refs) == 2);
    until_free(b);
    CHECK(atomic_load(&p->test.running) == 0);
    buf_put(b);
    return 0;
}

static int main_broken(void *arg)
{
    struct place *p = arg;
    struct co_group g;

    place_start(p);
    for (int i = 0; i < 2; i++) {
        sink(p, 100, 0, 1);
        atomic_store(&p->test.sink_ms, 40);
        co_group_init(&g);
        co_spawn(&g, "sink", sink_main, p);
        while (atomic_load(&p->test.running) == 0)
            CHECK(co_sleep(NSEC_PER_MSEC) == 0);
        if (i == 0) {
            rpc_client_reset(p->client);
        } else {
            rpc_server_stop(p->server);
            p->server = NULL;
        }
        CHECK(co_group_join(&g) == 0);
        atomic_store(&p->test.sink_ms, 1);
    }
    place_stop(p);
    return 0;
}

static void a_connection_that_broke_still_lends(void **state)
{
    (void)state;
    run_real(main_broken);
}

static int main_closed(void *arg)
{
    struct place *p = arg;
    struct co_group g;

    place_start(p);
    sink(p, 100, 0, 1);
    atomic_store(&p->test.sink_ms, 40);
    co_group_init(&g);
    co_spawn(&g, "sink", sink_main, p);
    while (atomic_load(&p->test.running) == 0)
        CHECK(co_sleep(NSEC_PER_MSEC) == 0);
    rpc_client_close(p->client);
    p->client = NULL;
    CHECK(co_group_join(&g) == 0);
    place_stop(p);
    return 0;
}

static void closing_waits_for_what_is_lent(void **state)
{
    (void)state;
    run_real(main_closed);
}

/* ---- peers that do it wrong ---- */

static void raw_hello(struct rpc_conn *c, uint64_t features)
{
    struct conn_hello ours = {.version_min = 1, .version_max = 1, .features = features};
    struct conn_hello theirs = {0};

    strcpy(ours.self, "raw");
    CHECK(conn_hello_send(c, &ours, 0) == 0 && conn_hello_recv(c, &theirs) == 0);
    CHECK(theirs.status == 0 && theirs.features == features);
    CHECK(net_share(c->net) == 0);
    c->version = 1;
    c->features = features;
}

static void raw_frame(struct rpc_conn *c, struct frame_header h)
{
    uint8_t bytes[FRAME_HEADER_BYTES];
    struct iovec iov = {bytes, sizeof(bytes)};

    h.version = 1;
    frame_header_encode(bytes, &h);
    CHECK(net_writev_full(c->net, &iov, 1) == 0);
}

/* The server ends the connection for this request, and serves others. */
static void refused(struct place *p, uint64_t features, struct frame_header h)
{
    struct net_conn *net;
    struct rpc_conn c;
    uint8_t byte;

    CHECK(net_connect(p->addr, &net) == 0);
    conn_init(&c, net);
    raw_hello(&c, features);
    h.kind = FRAME_REQUEST;
    h.service = frame_service_hash(&zbs__rpctest__test__descriptor);
    h.id = 1;
    raw_frame(&c, h);
    CHECK(net_read_full(net, &byte, 1) == ERR_CLOSED);
    conn_fini(&c);
    sink(p, 65536, 0, 1);
}

#define SHARING FRAME_FEATURES_SHARING

static int main_strangers(void *arg)
{
    struct place *p = arg;

    place_start(p);
    refused(p, SHARING,
            (struct frame_header){.flags = FRAME_F_SLOT, .payload_at = ARENA, .payload_len = 1});
    refused(p, SHARING,
            (struct frame_header){
                .flags = FRAME_F_SLOT, .payload_at = ARENA - 8192, .payload_len = 8193});
    refused(p, SHARING,
            (struct frame_header){
                .flags = FRAME_F_SLOT, .payload_at = UINT32_MAX, .payload_len = RPC_PAYLOAD_MAX});
    refused(p, SHARING, (struct frame_header){.flags = FRAME_F_SLOT, .payload_at = 0});
    refused(p, SHARING,
            (struct frame_header){.flags = FRAME_F_ROOM, .reply_at = ARENA, .reply_cap = 4096});
    refused(
        p, SHARING,
        (struct frame_header){.flags = FRAME_F_ROOM, .reply_at = ARENA - 4096, .reply_cap = 4097});
    refused(p, SHARING,
            (struct frame_header){.flags = FRAME_F_ROOM, .reply_at = 512, .reply_cap = 4096});
    refused(p, SHARING,
            (struct frame_header){
                .flags = FRAME_F_ROOM, .reply_at = 0, .reply_cap = RPC_PAYLOAD_MAX + 1});
    refused(p, SHARING, (struct frame_header){.flags = FRAME_F_ROOM});
    refused(p, SHARING, (struct frame_header){.payload_at = 4096});
    refused(p, SHARING, (struct frame_header){.reply_at = 4096, .reply_cap = 4096});
    /* Memory, but no slots. */
    refused(p, FRAME_FEATURE_SHM,
            (struct frame_header){.flags = FRAME_F_ROOM, .reply_at = 0, .reply_cap = 4096});
    place_stop(p);
    return 0;
}

static void wrong_requests_end_the_connection(void **state)
{
    (void)state;
    run_real(main_strangers);
}

/* A server that answers a call with this. */
struct liar {
    struct net_listener *listener;
    struct frame_header h;
};

static int liar_main(void *arg)
{
    struct liar *l = arg;
    struct conn_hello hello;
    struct frame_header h;
    const uint8_t *area;
    struct net_conn *net;
    struct rpc_conn c;
    void *tmp;
    uint8_t byte;

    CHECK(net_accept(l->listener, &net) == 0);
    conn_init(&c, net);
    CHECK(conn_hello_recv(&c, &hello) == 0);
    c.features = hello.features = SHARING;
    hello.version_min = hello.version_max = 1;
    hello.incarnation = 1;
    CHECK(conn_hello_send(&c, &hello, 10) == 0 && conn_share_take(&c) == 0);
    c.version = 1;
    CHECK(conn_recv_header(&c, &h) == 0 && conn_recv_area(&c, &h, &area, &tmp) == 0);
    l->h.kind = FRAME_REPLY;
    l->h.id = h.id;
    raw_frame(&c, l->h);
    CHECK(net_read_full(net, &byte, 1) == ERR_CLOSED);
    conn_fini(&c);
    return 0;
}

static void lied_to(struct place *p, uint32_t expect, struct frame_header h)
{
    struct liar l = {.h = h};
    struct rpc_client_conf conf = {.self = "tester", .cluster_id = ""};
    struct rpc_client *c;
    struct rpc_reply r;
    struct co_group g;
    char addr[96];

    snprintf(addr, sizeof(addr), "unix:%s/liar", p->dir);
    CHECK(net_listen(addr, &l.listener) == 0);
    co_group_init(&g);
    co_spawn(&g, "liar", liar_main, &l);
    conf.addr = addr;
    c = rpc_client_new(&conf);
    rpc_reply_init(&r);
    r.expect = expect;
    CHECK(rpctest_source(c, 65536, 1, 5, &r) == ERR_CLOSED);
    rpc_reply_free(&r);
    CHECK(co_group_join(&g) == 0);
    rpc_client_close(c);
    net_listener_close(l.listener);
}

static int main_liars(void *arg)
{
    struct place *p = arg;

    place_start(p);
    /* There was no room, or less. */
    lied_to(p, 0, (struct frame_header){.flags = FRAME_F_SLOT, .payload_len = 65536});
    lied_to(p, 65536, (struct frame_header){.flags = FRAME_F_SLOT, .payload_len = 65537});
    lied_to(p, 65536, (struct frame_header){.flags = FRAME_F_SLOT});
    lied_to(p, 65536, (struct frame_header){.flags = FRAME_F_ROOM, .reply_cap = 1});
    lied_to(p, 65536,
            (struct frame_header){.flags = FRAME_F_SLOT, .payload_at = 4096, .payload_len = 1});
    place_stop(p);
    return 0;
}

static void wrong_replies_end_the_connection(void **state)
{
    (void)state;
    run_real(main_liars);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(request_payloads),
        cmocka_unit_test(reply_payloads),
        cmocka_unit_test(a_call_that_gave_up_still_lends),
        cmocka_unit_test(a_connection_that_broke_still_lends),
        cmocka_unit_test(closing_waits_for_what_is_lent),
        cmocka_unit_test(wrong_requests_end_the_connection),
        cmocka_unit_test(wrong_replies_end_the_connection),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
