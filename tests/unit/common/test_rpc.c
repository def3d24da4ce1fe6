/* SPDX-License-Identifier: Apache-2.0
 *
 * RPC calls on the simulator: results, payloads, concurrency, deadlines, cancellation, limits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "common/base/crc32c.h"
#include "common/base/mem.h"
#include "common/rpc/rpc_pool.h"
#include "tests/lib/rpcworld.h"

static struct rpcworld world(uint64_t seed)
{
    return (struct rpcworld){.sim_conf = {.seed = seed}};
}

/* ---- one call ---- */

static void body_echo(struct rpcworld *w)
{
    const Zbs__Rpctest__EchoReply *reply;
    struct rpc_reply r;

    CHECK(!rpc_client_connected(w->client) && rpc_client_incarnation(w->client) == 0);
    w->test.want_peer = true;
    CHECK(rpctest_echo(w->client, 13, "hello", NULL, &r) == 0);
    reply = (const Zbs__Rpctest__EchoReply *)r.msg;
    CHECK(reply->number == 13 && strcmp(reply->text, "hello") == 0);
    CHECK(reply->n_squares == 13 && reply->squares[12] == 144);
    CHECK(r.payload == NULL && r.payload_len == 0 && r.answered);
    CHECK(r.incarnation == 1001 && rpc_client_incarnation(w->client) == 1001);
    CHECK(strncmp(w->test.last_peer, "tester@127.1.0.2:", 17) == 0);
    rpc_reply_free(&r);
    rpc_reply_free(&r);
    CHECK(rpc_client_connected(w->client) && rpc_client_in_flight(w->client) == 0);
}

static void echo_comes_back(void **state)
{
    struct rpcworld w = world(1);

    (void)state;
    rpcworld_run(&w, body_echo);
}

static void body_errors(struct rpcworld *w)
{
    Zbs__Rpctest__SinkRequest q = ZBS__RPCTEST__SINK_REQUEST__INIT;
    static const struct ProtobufCMethodDescriptor no_methods[] = {
        {"X", &zbs__rpctest__sink_request__descriptor, &zbs__rpctest__sink_reply__descriptor}};
    static const ProtobufCServiceDescriptor other = {
        .name = "zbs.rpctest.Other", .n_methods = 1, .methods = no_methods};
    struct rpc_reply r;
    char long_text[600];

    CHECK(rpctest_fail(w->client, ERR_NOSPACE, "pool p1 is full", false, &r) == ERR_NOSPACE);
    CHECK(strcmp(err_text(ERR_NOSPACE), "pool p1 is full") == 0);
    CHECK(r.msg == NULL && r.answered);
    rpc_reply_free(&r);
    CHECK(rpctest_fail(w->client, ERR_STALE, "epoch\n4", true, &r) == ERR_STALE);
    CHECK(strcmp(err_text(ERR_STALE), "epoch?4") == 0);
    CHECK(strcmp(((Zbs__Rpctest__FailReply *)r.msg)->detail, "detail") == 0);
    rpc_reply_free(&r);
    memset(long_text, 'x', sizeof(long_text));
    long_text[599] = '\0';
    CHECK(rpctest_fail(w->client, ERR_IO, long_text, true, &r) == ERR_IO);
    rpc_reply_free(&r);
    rpc_reply_init(&r);
    CHECK(rpc_call(w->client, &zbs__rpctest__test__descriptor, RPCTEST_MISSING, &q.base, NULL,
                   &r) == ERR_UNSUPPORTED);
    CHECK(rpc_call(w->client, &other, 0, &q.base, NULL, &r) == ERR_UNSUPPORTED);
    CHECK(rpctest_echo(w->client, 1, "still there", NULL, &r) == 0);
    rpc_reply_free(&r);
    CHECK(atomic_load(&w->test.disconnects) == 0);
}

static void errors_carry_code_text_and_reply(void **state)
{
    struct rpcworld w = world(2);

    (void)state;
    rpcworld_run(&w, body_errors);
}

/* ---- payloads and sizes ---- */

static struct buf *filled_buf(uint32_t len, uint32_t seed)
{
    struct buf *b = buf_alloc(len);

    rpctest_fill(b->data, len, seed);
    return b;
}

static void body_payloads(struct rpcworld *w)
{
    static const uint32_t sizes[] = {1,     63,    4095,  4096,   4097,    32767,          32768,
                                     65536, 65537, 99999, 262144, 1048577, RPC_PAYLOAD_MAX};
    struct rpc_reply r;

    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        uint32_t len = sizes[i], half = len / 3;
        struct buf *b = filled_buf(len, len), *dst = buf_alloc(RPC_PAYLOAD_MAX);
        struct rpc_payload out = {.count = 0};

        rpc_payload_add(&out, b, 0, half);
        rpc_payload_add(&out, b, half, len - half);
        CHECK(rpctest_echo(w->client, i, "p", &out, &r) == 0);
        CHECK(out.count == 0 && r.payload_len == len && r.payload_off == 0);
        CHECK((uintptr_t)r.payload->data % BUF_ALIGN == 0);
        CHECK(rpctest_filled(r.payload->data, len, len));
        rpc_reply_free(&r);
        CHECK(atomic_load(&b->refs) == 1);

        rpc_reply_init(&r);
        r.dst = dst;
        r.dst_off = len < RPC_PAYLOAD_MAX ? 17 : 0;
        r.dst_cap = len;
        CHECK(rpctest_source(w->client, len, 64, 5, &r) == 0);
        CHECK(r.payload == dst && r.payload_off == r.dst_off && r.payload_len == len);
        CHECK(rpctest_filled(dst->data + r.payload_off, len, 5));
        r.dst = NULL;
        rpc_reply_free(&r);
        CHECK(atomic_load(&dst->refs) == 1);
        buf_put(dst);
        buf_put(b);
    }
}

static void payloads_up_to_the_limit_both_ways(void **state)
{
    struct rpcworld w = world(3);

    (void)state;
    rpcworld_run(&w, body_payloads);
}

static void body_sizes(struct rpcworld *w)
{
    char *text = mem_alloc(RPC_MESSAGE_MAX + 100);
    struct rpc_payload out = {.count = 0};
    struct buf *b = filled_buf(2 * 1024 * 1024, 1);
    struct rpc_reply r;

    memset(text, 'm', RPC_MESSAGE_MAX - 200);
    CHECK(rpctest_echo(w->client, 1, text, NULL, &r) == 0);
    CHECK(strcmp(((Zbs__Rpctest__EchoReply *)r.msg)->text, text) == 0);
    rpc_reply_free(&r);
    memset(text, 'm', RPC_MESSAGE_MAX + 1);
    CHECK(rpctest_echo(w->client, 1, text, NULL, &r) == ERR_TOO_LARGE);
    /* The request fits, the reply with its squares does not. */
    text[RPC_MESSAGE_MAX - 10] = '\0';
    CHECK(rpctest_echo(w->client, 15, text, NULL, &r) == ERR_TOO_LARGE);
    rpc_reply_free(&r);
    mem_free(text);
    /* More than the method takes; more than the caller's buffer. */
    rpc_payload_add(&out, b, 0, 2 * 1024 * 1024);
    CHECK(rpctest_sink(w->client, &out, &r) == ERR_TOO_LARGE);
    rpc_reply_init(&r);
    r.dst = b;
    r.dst_cap = 4096;
    CHECK(rpctest_source(w->client, 4097, 1, 1, &r) == ERR_TOO_LARGE);
    rpc_reply_free(&r);
    CHECK(rpctest_filled(b->data, 8192, 1));
    CHECK(rpctest_echo(w->client, 1, "", NULL, &r) == 0);
    rpc_reply_free(&r);
    CHECK(atomic_load(&w->test.disconnects) == 0);
    buf_put(b);
}

static void what_is_too_large_fails_alone(void **state)
{
    struct rpcworld w = world(4);

    (void)state;
    rpcworld_run(&w, body_sizes);
}

/* ---- concurrency ---- */

struct many {
    struct rpcworld *w;
    uint32_t next, ended, order_breaks, rc_ok, rc_other;
    uint64_t last_ended;
};

static int one_of_many(void *arg)
{
    struct many *m = arg;
    uint32_t n = m->next++;
    struct rpc_reply r;
    char text[32];

    if (n % 2 == 0) {
        snprintf(text, sizeof(text), "call %u", n);
        CHECK(rpctest_echo(m->w->client, n, text, NULL, &r) == 0);
        CHECK(((Zbs__Rpctest__EchoReply *)r.msg)->number == n);
        CHECK(strcmp(((Zbs__Rpctest__EchoReply *)r.msg)->text, text) == 0);
    } else {
        CHECK(rpctest_sleep(m->w->client, (nsec_t)(1000 - n) * NSEC_PER_USEC, &r) == 0);
    }
    rpc_reply_free(&r);
    if (n < m->last_ended)
        m->order_breaks++;
    m->last_ended = n;
    m->ended++;
    return 0;
}

static void body_many(struct rpcworld *w)
{
    struct many m = {.w = w};
    struct co_group g;

    co_group_init(&g);
    for (int i = 0; i < 500; i++)
        co_spawn(&g, "caller", one_of_many, &m);
    CHECK(co_group_join(&g) == 0);
    CHECK(m.ended == 500 && m.order_breaks > 0);
    CHECK(atomic_load(&w->test.running_max) > 1);
}

static void many_calls_complete_out_of_order(void **state)
{
    (void)state;
    for (uint64_t seed = 10; seed < 15; seed++) {
        struct rpcworld w = world(seed);

        rpcworld_run(&w, body_many);
    }
}

static int one_sink(void *arg)
{
    struct many *m = arg;
    struct rpc_payload out = {.count = 0};
    struct buf *b = filled_buf(200000, m->next++);
    uint32_t crc = crc32c(0, b->data, 200000);
    struct rpc_reply r;

    rpc_payload_add(&out, b, 0, 200000);
    buf_put(b);
    CHECK(rpctest_sink(m->w->client, &out, &r) == 0);
    CHECK(((Zbs__Rpctest__SinkReply *)r.msg)->len == 200000);
    CHECK(((Zbs__Rpctest__SinkReply *)r.msg)->crc32c == crc);
    rpc_reply_free(&r);
    return 0;
}

static void body_limits(struct rpcworld *w)
{
    struct many m = {.w = w};
    struct co_group g;

    co_group_init(&g);
    for (int i = 0; i < 60; i++)
        co_spawn(&g, "caller", w->arg == NULL ? one_sink : one_of_many, &m);
    CHECK(co_group_join(&g) == 0);
    CHECK(atomic_load(&w->test.running_max) <= 4);
}

static void admission_is_bounded_by_requests_and_bytes(void **state)
{
    struct rpcworld by_bytes = world(20), by_count = world(21), by_one = world(22);

    (void)state;
    by_bytes.conf.limits.payload_bytes = 900000; /* four payloads of 200000 */
    rpcworld_run(&by_bytes, body_limits);
    CHECK(atomic_load(&by_bytes.test.running_max) == 4);
    by_count.conf.limits.in_flight = 4;
    by_count.arg = &by_count;
    rpcworld_run(&by_count, body_limits);
    by_one.conf.limits.payload_bytes = 1000; /* less than one: still one at a time */
    rpcworld_run(&by_one, body_limits);
    CHECK(atomic_load(&by_one.test.running_max) == 1);
}

/* ---- deadlines and cancellation ---- */

static void body_deadline(struct rpcworld *w)
{
    struct rpc_reply r;
    nsec_t former, before;

    CHECK(rpctest_sleep(w->client, NSEC_PER_MSEC, &r) == 0);
    CHECK(((Zbs__Rpctest__SleepReply *)r.msg)->deadline_usec == 0);
    rpc_reply_free(&r);
    before = co_now();
    former = co_deadline_push(co_now() + 50 * NSEC_PER_MSEC);
    CHECK(rpctest_sleep(w->client, NSEC_PER_SEC, &r) == ERR_TIMEOUT);
    CHECK(co_now() - before >= 50 * NSEC_PER_MSEC && co_now() - before < 60 * NSEC_PER_MSEC);
    CHECK(!r.answered);
    co_deadline_restore(former);
    former = co_deadline_push(co_now() + 50 * NSEC_PER_MSEC);
    CHECK(rpctest_sleep(w->client, NSEC_PER_MSEC, &r) == 0);
    co_deadline_restore(former);
    CHECK(((Zbs__Rpctest__SleepReply *)r.msg)->deadline_usec > 0);
    CHECK(((Zbs__Rpctest__SleepReply *)r.msg)->deadline_usec <= 50000);
    rpc_reply_free(&r);
    CHECK(rpctest_echo(w->client, 1, "", NULL, &r) == 0);
    rpc_reply_free(&r);
    former = co_deadline_push(co_now() - 1);
    CHECK(rpctest_echo(w->client, 1, "", NULL, &r) == ERR_UNREACHABLE);
    co_deadline_restore(former);
    CHECK(rpc_client_in_flight(w->client) == 0 && atomic_load(&w->test.disconnects) == 0);
}

static void deadlines_travel_and_end_calls(void **state)
{
    struct rpcworld w = world(30);

    (void)state;
    rpcworld_run(&w, body_deadline);
}

struct racer {
    struct rpcworld *w;
    uint32_t len;
    bool use_dst;
    int rc;
};

static int racer_main(void *arg)
{
    struct racer *a = arg;
    struct buf *dst = buf_alloc(MAX(a->len, 1u));
    struct rpc_reply r;

    rpc_reply_init(&r);
    if (a->use_dst) {
        r.dst = dst;
        r.dst_cap = a->len;
    }
    a->rc = rpctest_source(a->w->client, a->len, 3, a->len, &r);
    if (a->rc == 0) {
        CHECK(r.payload_len == a->len);
        CHECK(a->len == 0 || rpctest_filled(r.payload->data, a->len, a->len));
    }
    rpc_reply_free(&r);
    /* From here on the buffer is ours alone: a late reply that still wrote to it would spoil it. */
    memset(dst->data, 0xa5, dst->cap);
    co_yield ();
    struct co_shield shield;
    co_shield_begin(&shield);
    co_sleep(3 * NSEC_PER_MSEC);
    co_shield_end(&shield);
    for (size_t i = 0; i < dst->cap; i++)
        CHECK(dst->data[i] == 0xa5);
    CHECK(atomic_load(&dst->refs) == 1);
    buf_put(dst);
    return 0;
}

static void body_cancel_race(struct rpcworld *w)
{
    uint32_t outcomes[3] = {0};

    for (uint32_t i = 0; i < 300; i++) {
        struct racer a = {.w = w, .len = (i % 7) * 60000, .use_dst = i % 2 == 0, .rc = 1};
        struct co_group g;

        co_group_init(&g);
        co_spawn(&g, "racer", racer_main, &a);
        co_sleep((nsec_t)(sim_random(w->sim) % 1500) * NSEC_PER_USEC);
        co_group_close(&g);
        CHECK(a.rc == 0 || a.rc == ERR_CANCELED || a.rc == ERR_CLOSED);
        outcomes[a.rc == 0 ? 0 : a.rc == ERR_CANCELED ? 1 : 2]++;
    }
    CHECK(outcomes[0] > 10 && outcomes[1] > 10);
    CHECK(rpc_client_in_flight(w->client) == 0);
}

static void cancel_races_with_the_reply(void **state)
{
    (void)state;
    for (uint64_t seed = 40; seed < 44; seed++) {
        struct rpcworld w = world(seed);

        rpcworld_run(&w, body_cancel_race);
    }
}

/* ---- instances and the pool ---- */

static void body_instances(struct rpcworld *w)
{
    struct rpc_client *a = rpcworld_client("", 0), *b = rpcworld_client("c1", 1);
    struct rpc_client *none = rpcworld_client("c1", 2);
    struct rpc_reply r;

    CHECK(rpctest_echo(a, 1, "", NULL, &r) == 0);
    CHECK(atomic_load(&w->test.last_loop) == w->loops[0]);
    rpc_reply_free(&r);
    CHECK(rpctest_echo(b, 1, "", NULL, &r) == 0);
    CHECK(atomic_load(&w->test.last_loop) == w->loops[1]);
    rpc_reply_free(&r);
    CHECK(rpctest_echo(none, 1, "", NULL, &r) == ERR_UNREACHABLE);
    CHECK(strstr(err_text(ERR_UNREACHABLE), "2 instances") != NULL);
    rpc_client_close(a);
    rpc_client_close(b);
    rpc_client_close(none);
    while (atomic_load(&w->test.disconnects) < 2)
        co_sleep(NSEC_PER_MSEC);
}

static void connections_live_on_their_instances_loop(void **state)
{
    struct rpcworld w = world(50);

    (void)state;
    w.n_threads = 2;
    rpcworld_run(&w, body_instances);
}

static void body_pool(struct rpcworld *w)
{
    struct rpc_pool_conf conf = {.self = "pooled", .cluster_id = "c1", .idle = NSEC_PER_SEC};
    struct rpc_pool *pool = rpc_pool_new(&conf);
    struct rpc_client *a = rpc_pool_get(pool, RPCWORLD_ADDR, 0);
    struct rpc_client *b = rpc_pool_get(pool, RPCWORLD_ADDR, 0);
    struct rpc_client *other = rpc_pool_get(pool, RPCWORLD_ADDR, 1);
    struct rpc_reply r;

    CHECK(a == b && a != other && rpc_pool_count(pool) == 2);
    CHECK(rpctest_echo(a, 1, "", NULL, &r) == 0);
    rpc_reply_free(&r);
    rpc_pool_put(pool, a);
    rpc_pool_put(pool, other);
    co_sleep(3 * NSEC_PER_SEC);
    CHECK(rpc_pool_count(pool) == 1); /* b still holds its client */
    CHECK(rpc_client_connected(b) && atomic_load(&w->test.disconnects) == 0);
    rpc_pool_put(pool, b);
    co_sleep(3 * NSEC_PER_SEC);
    CHECK(rpc_pool_count(pool) == 0 && atomic_load(&w->test.disconnects) == 1);
    a = rpc_pool_get(pool, RPCWORLD_ADDR, 0);
    CHECK(rpctest_echo(a, 1, "", NULL, &r) == 0);
    rpc_reply_free(&r);
    rpc_pool_put(pool, a);
    rpc_pool_close(pool);
}

static void pool_shares_and_closes_idle_clients(void **state)
{
    struct rpcworld w = world(60);

    (void)state;
    rpcworld_run(&w, body_pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(echo_comes_back),
        cmocka_unit_test(errors_carry_code_text_and_reply),
        cmocka_unit_test(payloads_up_to_the_limit_both_ways),
        cmocka_unit_test(what_is_too_large_fails_alone),
        cmocka_unit_test(many_calls_complete_out_of_order),
        cmocka_unit_test(admission_is_bounded_by_requests_and_bytes),
        cmocka_unit_test(deadlines_travel_and_end_calls),
        cmocka_unit_test(cancel_races_with_the_reply),
        cmocka_unit_test(connections_live_on_their_instances_loop),
        cmocka_unit_test(pool_shares_and_closes_idle_clients),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
