/* SPDX-License-Identifier: Apache-2.0
 *
 * ONC RPC over UDP: calls and answers of a datagram, what is too long, what is lost and comes
 * again, how many are in flight. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>
#include "access/nfs/rpc_int.h"
#include "common/env/sim.h"
#include "tests/lib/onc_client.h"

#define CHECK(x) ASSERTF(x, "seen here")

#define PROGRAM     0x20000001u
#define SERVER_HOST "127.1.0.1"
#define CLIENT_HOST "127.1.0.2"
#define SERVER      SERVER_HOST ":2049"

enum { PROC_NULL, PROC_REPEAT, PROC_BULK, PROC_WAIT, PROC_DROP, PROC_PEER };

/* Of the world, which outlives its processes. */
static uint32_t waiting, began;
static bool opened;

/* ---- a program ---- */

/* So many bytes. */
static co_fn enum onc_accept on_repeat(struct onc_call *call)
{
    uint32_t n = xdr_u32(&call->args);

    if (call->args.bad)
        return ONC_GARBAGE_ARGS;
    for (uint32_t i = 0; i < n; i += XDR_UNIT)
        xdr_put_u32(&call->out, i);
    return ONC_SUCCESS;
}

static void bulk_args(struct xdr_in *args)
{
    (void)xdr_u32(args);
}

static co_fn enum onc_accept on_bulk(struct onc_call *call)
{
    (void)call;
    CHECK(false);
}

static co_fn enum onc_accept on_wait(struct onc_call *call)
{
    int rc = 0;

    (void)call;
    began++;
    waiting++;
    while (rc == 0 && !opened)
        rc = co_sleep(NSEC_PER_MSEC);
    waiting--;
    return rc == 0 ? ONC_SUCCESS : ONC_SYSTEM_ERR;
}

static co_fn enum onc_accept on_drop(struct onc_call *call)
{
    (void)call;
    return ONC_DROPPED;
}

static co_fn enum onc_accept on_peer(struct onc_call *call)
{
    CHECK(strncmp(onc_call_peer(call), CLIENT_HOST ":", strlen(CLIENT_HOST) + 1) == 0);
    CHECK(strcmp(onc_call_local(call), SERVER) == 0);
    CHECK(onc_call_peer_addr(call)->kind == ADDR_INET && onc_call_peer_addr(call)->ip[3] == 2);
    xdr_put_u32(&call->out, call->cred.uid);
    return ONC_SUCCESS;
}

static const struct onc_procedure procedures[] = {
    [PROC_NULL] = {.name = "NULL"},
    [PROC_REPEAT] = {.name = "REPEAT", .handler = on_repeat},
    [PROC_BULK] = {.name = "BULK", .bulk = bulk_args, .handler = on_bulk},
    [PROC_WAIT] = {.name = "WAIT", .handler = on_wait},
    [PROC_DROP] = {.name = "DROP", .handler = on_drop},
    [PROC_PEER] = {.name = "PEER", .handler = on_peer},
};
static const struct onc_program program = {PROGRAM, 3, "test", procedures, ARRAY_SIZE(procedures)};
static const struct onc_program *const programs[] = {&program, NULL};

/* ---- a server and a client ---- */

static co_fn int server_main(void *arg)
{
    struct onc_conf conf = {.listen = arg, .name = "test", .programs = programs};
    uint64_t before = mem_heap_bytes(mem_heap_current());
    struct co_shield shield;
    struct onc_udp *u, *second;

    CHECK(onc_udp_start(&conf, &u) == 0);
    CHECK(onc_udp_start(&conf, &second) == ERR_BUSY);
    while (co_sleep(NSEC_PER_SEC) == 0)
        ;
    co_shield_begin(&shield);
    onc_udp_stop(u);
    co_shield_end(&shield);
    CHECK(waiting == 0);
    CHECK(mem_heap_bytes(mem_heap_current()) == before);
    return 0;
}

static bool is_over(void *arg)
{
    return !sim_proc_running(arg);
}

static void run_at(const char *addr, const struct sim_conf *conf, int (*body)(void *))
{
    struct sim *s = sim_new(conf);
    struct sim_proc *a = sim_proc_new(s, SERVER_HOST, "server");
    struct sim_proc *b = sim_proc_new(s, CLIENT_HOST, "client");

    waiting = began = 0;
    opened = false;
    sim_proc_start(a, server_main, (void *)(uintptr_t)addr);
    sim_run_for(s, NSEC_PER_MSEC);
    sim_proc_start(b, body, NULL);
    CHECK(sim_run_until(s, is_over, b, 600 * NSEC_PER_SEC));
    CHECK(sim_proc_halted(b) == NULL && sim_proc_result(b) == 0);
    sim_proc_stop(a);
    CHECK(sim_proc_halted(a) == NULL && sim_proc_result(a) == 0);
    sim_free(s);
}

static void run(int (*body)(void *))
{
    struct sim_conf conf = {.seed = 1};

    run_at(SERVER, &conf, body);
}

static void begin(struct onc_client *o, struct xdr_out *out, uint32_t procedure)
{
    onc_begin(o, out, PROGRAM, 3, procedure);
}

static co_fn void expect(struct onc_client *o, struct xdr_out *out, uint32_t stat)
{
    struct onc_answer a;

    CHECK(onc_send(o, out) == 0 && onc_recv(o, &a) == 0);
    CHECK(a.xid == o->xid && !a.denied && a.stat == stat);
    onc_answer_free(&a);
}

/* Nothing comes within a second. */
static co_fn void expect_nothing(struct onc_client *o)
{
    nsec_t former = co_deadline_push(co_now() + NSEC_PER_SEC);
    struct onc_answer a;

    CHECK(onc_recv(o, &a) == ERR_TIMEOUT);
    co_deadline_restore(former);
}

/* ---- answers ---- */

static int answers_body(void *arg)
{
    struct onc_client o;
    struct xdr_out out;
    struct onc_answer a;

    (void)arg;
    onc_open_udp(&o, CLIENT_HOST ":0", SERVER);
    o.uid = 77;
    begin(&o, &out, PROC_NULL);
    expect(&o, &out, ONC_SUCCESS);
    begin(&o, &out, PROC_PEER);
    onc_ask(&o, &out, &a);
    CHECK(xdr_u32(&a.in) == 77 && a.in.left == 0);
    onc_answer_free(&a);
    begin(&o, &out, PROC_REPEAT);
    expect(&o, &out, ONC_GARBAGE_ARGS);
    begin(&o, &out, 99);
    expect(&o, &out, ONC_PROC_UNAVAIL);
    begin(&o, &out, PROC_BULK);
    xdr_put_u32(&out, 1);
    expect(&o, &out, ONC_PROC_UNAVAIL);
    onc_begin(&o, &out, PROGRAM + 1, 3, 0);
    expect(&o, &out, ONC_PROG_UNAVAIL);
    onc_begin(&o, &out, PROGRAM, 4, 0);
    expect(&o, &out, ONC_PROG_MISMATCH);
    begin(&o, &out, PROC_DROP);
    CHECK(onc_send(&o, &out) == 0);
    expect_nothing(&o);
    onc_close(&o);
    return 0;
}

static void test_answers(void **state)
{
    struct sim_conf conf = {.seed = 2};

    (void)state;
    run(answers_body);
    run_at("0.0.0.0:2049", &conf, answers_body);
}

/* ---- lengths ---- */

static int lengths_body(void *arg)
{
    static const uint8_t bytes[ONC_DATAGRAM_BYTES + 4];
    struct onc_client o;
    struct xdr_out out;

    (void)arg;
    onc_open_udp(&o, CLIENT_HOST ":0", SERVER);
    begin(&o, &out, PROC_REPEAT);
    xdr_put_u32(&out, ONC_DATAGRAM_BYTES - 24); /* behind the header */
    expect(&o, &out, ONC_SUCCESS);
    begin(&o, &out, PROC_REPEAT);
    xdr_put_u32(&out, ONC_DATAGRAM_BYTES - 20);
    expect(&o, &out, ONC_SYSTEM_ERR);
    begin(&o, &out, PROC_NULL);
    xdr_put_fixed(&out, bytes, ONC_DATAGRAM_BYTES - out.len);
    expect(&o, &out, ONC_SUCCESS);
    begin(&o, &out, PROC_NULL);
    xdr_put_fixed(&out, bytes, ONC_DATAGRAM_BYTES - out.len + 4);
    CHECK(onc_send(&o, &out) == 0);
    expect_nothing(&o);
    for (size_t len = 0; len < 24; len++) /* no call at all, or its beginning */
        CHECK(net_dgram_send(o.udp, bytes, len, &o.way) == 0);
    begin(&o, &out, PROC_NULL);
    for (size_t len = 8; len < out.len; len += 4)
        CHECK(net_dgram_send(o.udp, out.data, len, &o.way) == 0);
    xdr_out_fini(&out);
    CHECK(co_sleep(NSEC_PER_SEC) == 0);
    onc_close(&o);
    onc_open_udp(&o, CLIENT_HOST ":0", SERVER);
    begin(&o, &out, PROC_NULL);
    expect(&o, &out, ONC_SUCCESS);
    onc_close(&o);
    return 0;
}

static void test_lengths(void **state)
{
    (void)state;
    run(lengths_body);
}

/* ---- in flight ---- */

static void send_again(struct onc_client *o, uint32_t xid, uint32_t procedure)
{
    struct xdr_out out;

    o->xid = xid - 1;
    begin(o, &out, procedure);
    CHECK(onc_send(o, &out) == 0);
}

static int flight_body(void *arg)
{
    struct onc_client o, other;
    struct onc_answer a;

    (void)arg;
    onc_open_udp(&o, CLIENT_HOST ":0", SERVER);
    onc_open_udp(&other, CLIENT_HOST ":0", SERVER);
    for (int i = 0; i < 3; i++)
        send_again(&o, 1, PROC_WAIT);
    send_again(&other, 1, PROC_WAIT); /* another client's call of the same number */
    CHECK(co_sleep(NSEC_PER_SEC) == 0);
    CHECK(began == 2 && waiting == 2);
    for (uint32_t xid = 2; xid < 200; xid++)
        send_again(&o, xid, PROC_WAIT);
    CHECK(co_sleep(NSEC_PER_SEC) == 0);
    CHECK(waiting == 64); /* the others are in the socket, or lost */
    opened = true;
    CHECK(onc_recv(&other, &a) == 0 && a.xid == 1);
    onc_answer_free(&a);
    for (int i = 0; i < 64; i++) {
        CHECK(onc_recv(&o, &a) == 0 && a.stat == ONC_SUCCESS);
        onc_answer_free(&a);
    }
    CHECK(co_sleep(NSEC_PER_SEC) == 0 && waiting == 0);
    opened = false;
    send_again(&other, 1000, PROC_WAIT); /* in flight when the server stops */
    CHECK(co_sleep(NSEC_PER_SEC) == 0 && waiting == 1);
    onc_close(&o);
    onc_close(&other);
    return 0;
}

static void test_flight(void **state)
{
    (void)state;
    run(flight_body);
}

/* ---- a bad network ---- */

static int lossy_body(void *arg)
{
    nsec_t former = co_deadline();
    struct onc_client o;
    struct onc_answer a;

    (void)arg;
    onc_open_udp(&o, CLIENT_HOST ":0", SERVER);
    for (uint32_t xid = 1; xid <= 100; xid++) { /* as a client does it */
        bool answered = false;

        for (int tries = 0; tries < 50 && !answered; tries++) {
            send_again(&o, xid, PROC_PEER);
            (void)co_deadline_push(co_now() + 100 * NSEC_PER_MSEC);
            while (!answered && onc_recv(&o, &a) == 0) {
                answered = a.xid == xid; /* else a former one's second answer */
                onc_answer_free(&a);
            }
            co_deadline_restore(former);
        }
        CHECK(answered);
    }
    onc_close(&o);
    return 0;
}

static void test_lossy(void **state)
{
    struct sim_conf conf = {.seed = 3, .net_loss_ppm = 300000, .net_double_ppm = 300000};

    (void)state;
    run_at(SERVER, &conf, lossy_body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_flight),
        cmocka_unit_test(test_lossy),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
