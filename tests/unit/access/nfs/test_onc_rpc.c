/* SPDX-License-Identifier: Apache-2.0
 *
 * ONC RPC: records in fragments of every length, errors of the protocol, calls in flight, limits.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>
#include "access/nfs/rpc_int.h"
#include "tests/lib/frontworld.h"
#include "tests/lib/onc_client.h"

#define CHECK(x) ASSERTF(x, "seen here")

#define PROGRAM 0x20000001u

enum { PROC_NULL, PROC_ECHO, PROC_BULK, PROC_WAIT, PROC_NONE, PROC_DROP };

static struct onc_server *server;
static struct co_event gate;
static uint32_t waiting, began;

/* ---- a program ---- */

static co_fn enum onc_accept on_echo(struct onc_call *call)
{
    uint32_t len;
    const uint8_t *data = xdr_opaque(&call->args, ONC_RECORD_BYTES, &len);

    if (call->args.bad)
        return ONC_GARBAGE_ARGS;
    xdr_put_u32(&call->out, call->cred.uid);
    xdr_put_opaque(&call->out, data, len);
    return ONC_SUCCESS;
}

static void bulk_args(struct xdr_in *args)
{
    uint32_t len;

    (void)xdr_u32(args);
    (void)xdr_opaque(args, 64, &len);
}

/* Sends the bulk data back, from its own buffer. */
static co_fn enum onc_accept on_bulk(struct onc_call *call)
{
    uint32_t number = xdr_u32(&call->args);

    xdr_put_u32(&call->out, number);
    xdr_put_u32(&call->out, call->bulk_len);
    if (call->bulk != NULL) {
        call->tail = buf_get(call->bulk);
        call->tail_len = call->bulk_len;
    }
    return ONC_SUCCESS;
}

static co_fn enum onc_accept on_wait(struct onc_call *call)
{
    (void)call;
    began++;
    waiting++;
    int rc = co_event_wait(&gate);
    waiting--;
    return rc == 0 ? ONC_SUCCESS : ONC_SYSTEM_ERR;
}

static co_fn enum onc_accept on_drop(struct onc_call *call)
{
    (void)call;
    return ONC_DROPPED;
}

static const struct onc_procedure procedures[] = {
    [PROC_NULL] = {.name = "NULL"},
    [PROC_ECHO] = {.name = "ECHO", .handler = on_echo},
    [PROC_BULK] = {.name = "BULK", .bulk = bulk_args, .handler = on_bulk},
    [PROC_WAIT] = {.name = "WAIT", .handler = on_wait},
    [PROC_DROP] = {.name = "DROP", .handler = on_drop},
};
static const struct onc_program low = {PROGRAM, 3, "low", procedures, ARRAY_SIZE(procedures)};
static const struct onc_program high = {PROGRAM, 5, "high", procedures, 1};
static const struct onc_program *const programs[] = {&low, &high, NULL};

static co_fn int world_main(void *arg)
{
    void (*body)(void) = *(void (**)(void))arg;
    struct onc_conf conf = {.listen = FRONT_HOST ":2049",
                            .name = "test",
                            .programs = programs,
                            .calls = 4,
                            .stop_timeout_ms = 10};
    uint64_t before = mem_heap_bytes(mem_heap_current());

    co_event_init(&gate);
    waiting = began = 0;
    CHECK(onc_server_start(&conf, &server) == 0);
    body();
    onc_server_stop(server);
    CHECK(waiting == 0);
    CHECK(mem_heap_bytes(mem_heap_current()) == before);
    return 0;
}

static void run(void (*body)(void))
{
    frontworld_run(1, world_main, &body);
}

static void begin(struct onc_client *o, struct xdr_out *out, uint32_t procedure)
{
    onc_begin(o, out, PROGRAM, 3, procedure);
}

/* ---- records ---- */

static void put_bulk(struct xdr_out *out, uint32_t number, const void *data, uint32_t len)
{
    xdr_put_u32(out, number);
    xdr_put_string(out, "handle");
    xdr_put_opaque(out, data, len);
}

static void check_bulk(struct onc_answer *a, uint32_t number, const void *data, uint32_t len)
{
    uint32_t got;
    const uint8_t *back;

    CHECK(xdr_u32(&a->in) == number);
    back = xdr_opaque(&a->in, UINT32_MAX, &got);
    CHECK(back != NULL && got == len && memcmp(back, data, len) == 0);
    CHECK(a->in.left == 0);
    onc_answer_free(a);
}

/* One call with bulk data, in fragments of this many bytes. */
static void one_fragmented(struct onc_client *o, uint32_t fragment, const uint8_t *data,
                           uint32_t len)
{
    struct xdr_out out;
    struct onc_answer a;

    o->fragment = fragment;
    begin(o, &out, PROC_BULK);
    put_bulk(&out, fragment, data, len);
    onc_ask(o, &out, &a);
    check_bulk(&a, fragment, data, len);
}

static void fragments_body(void)
{
    static uint8_t data[150000];
    static const uint32_t sizes[] = {1, 4, 1000, 1023, 1024, 4096, 40000, sizeof(data)};
    struct onc_client o;
    struct xdr_out out;
    struct onc_answer a;
    uint32_t len;

    for (uint32_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 7 + i / 251);
    onc_open(&o, onc_server_addr(server));
    o.uid = 12;
    for (uint32_t f = 1; f <= 160; f++) {
        one_fragmented(&o, f, data, 61);
        begin(&o, &out, PROC_ECHO);
        xdr_put_string(&out, "seventeen letters");
        onc_ask(&o, &out, &a);
        CHECK(xdr_u32(&a.in) == 12);
        CHECK(memcmp(xdr_opaque(&a.in, 100, &len), "seventeen letters", 17) == 0 && len == 17);
        onc_answer_free(&a);
    }
    for (uint32_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        one_fragmented(&o, 0, data, sizes[i]);
        one_fragmented(&o, 977, data, sizes[i]);
    }
    onc_close(&o);
}

static void test_fragments(void **state)
{
    (void)state;
    run(fragments_body);
}

/* Many calls in one segment, as a client sends them that waits for nothing. */
static void burst_body(void)
{
    uint8_t bytes[4096];
    struct onc_client o;
    struct onc_answer a;
    size_t len = 0;
    uint64_t seen = 0;

    onc_open(&o, onc_server_addr(server));
    for (uint32_t i = 0; i < 30; i++) {
        struct xdr_out out;

        begin(&o, &out, PROC_NULL);
        put_be32(bytes + len, ONC_LAST | (uint32_t)out.len);
        memcpy(bytes + len + 4, out.data, out.len);
        len += 4 + out.len;
        xdr_out_fini(&out);
    }
    CHECK(onc_send_bytes(&o, bytes, len) == 0);
    for (uint32_t i = 0; i < 30; i++) {
        CHECK(onc_recv(&o, &a) == 0 && a.stat == ONC_SUCCESS);
        seen |= UINT64_C(1) << a.xid;
        onc_answer_free(&a);
    }
    CHECK(seen == (UINT64_C(1) << 31) - 2);
    onc_close(&o);
}

static void test_burst(void **state)
{
    (void)state;
    run(burst_body);
}

/* ---- errors of the protocol ---- */

static void expect(struct onc_client *o, struct xdr_out *out, bool denied, uint32_t stat)
{
    struct onc_answer a;

    CHECK(onc_send(o, out) == 0 && onc_recv(o, &a) == 0);
    CHECK(a.xid == o->xid && a.denied == denied && a.stat == stat);
    if (!denied && stat == ONC_PROG_MISMATCH)
        CHECK(a.low == 3 && a.high == 5);
    if (denied && stat == 0)
        CHECK(a.low == 2 && a.high == 2);
    onc_answer_free(&a);
}

static void errors_body(void)
{
    static const uint8_t zeroes[ONC_BULK_BYTES];
    struct onc_client o;
    struct xdr_out out;

    onc_open(&o, onc_server_addr(server));
    onc_begin(&o, &out, PROGRAM + 1, 3, 0);
    expect(&o, &out, false, ONC_PROG_UNAVAIL);
    onc_begin(&o, &out, PROGRAM, 4, 0);
    expect(&o, &out, false, ONC_PROG_MISMATCH);
    begin(&o, &out, PROC_NONE);
    expect(&o, &out, false, ONC_PROC_UNAVAIL);
    begin(&o, &out, 99);
    expect(&o, &out, false, ONC_PROC_UNAVAIL);
    begin(&o, &out, PROC_ECHO);
    xdr_put_u32(&out, 5); /* and nothing there */
    expect(&o, &out, false, ONC_GARBAGE_ARGS);
    begin(&o, &out, PROC_ECHO); /* too long for a call without bulk data */
    xdr_put_opaque(&out, zeroes, ONC_RECORD_BYTES);
    expect(&o, &out, false, ONC_GARBAGE_ARGS);
    begin(&o, &out, PROC_BULK);
    put_bulk(&out, 1, zeroes, 100);
    xdr_cut(&out, out.len - 8);
    expect(&o, &out, false, ONC_GARBAGE_ARGS);
    begin(&o, &out, PROC_BULK);
    xdr_put_u32(&out, 1);
    xdr_put_string(&out, "handle");
    xdr_put_u32(&out, ONC_BULK_BYTES + 1);
    expect(&o, &out, false, ONC_GARBAGE_ARGS);
    begin(&o, &out, PROC_NULL);
    xdr_set_u32(&out, 8, 3); /* version of RPC */
    expect(&o, &out, true, 0);
    begin(&o, &out, PROC_NULL);
    xdr_set_u32(&out, 24, 6); /* flavor of the credential: RPCSEC_GSS */
    expect(&o, &out, true, 1);
    begin(&o, &out, PROC_NULL);
    xdr_set_u32(&out, 52, 17); /* gids */
    expect(&o, &out, true, 1);
    o.none = true;
    begin(&o, &out, PROC_NULL);
    expect(&o, &out, false, ONC_SUCCESS);
    onc_close(&o);
}

static void test_errors(void **state)
{
    (void)state;
    run(errors_body);
}

/* What can't be followed ends the connection, and only this one. */
static void broken_body(void)
{
    static const uint8_t reply[] = {0x80, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 1},
                         huge[] = {0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 1}, brief[] = {0x80, 0, 0, 0};
    static const struct iovec bad[] = {{(void *)(uintptr_t)reply, sizeof(reply)},
                                       {(void *)(uintptr_t)huge, sizeof(huge)},
                                       {(void *)(uintptr_t)brief, sizeof(brief)}};
    struct onc_client o, good;
    struct xdr_out out;
    struct onc_answer a;

    onc_open(&good, onc_server_addr(server));
    for (uint32_t i = 0; i < ARRAY_SIZE(bad); i++) {
        onc_open(&o, onc_server_addr(server));
        CHECK(onc_send_bytes(&o, bad[i].iov_base, bad[i].iov_len) == 0);
        CHECK(onc_recv(&o, &a) == ERR_CLOSED);
        onc_close(&o);
    }
    begin(&good, &out, PROC_NULL);
    expect(&good, &out, false, ONC_SUCCESS);
    onc_close(&good);
}

static void test_broken(void **state)
{
    (void)state;
    run(broken_body);
}

/* ---- calls in flight ---- */

static void send_call(struct onc_client *o, uint32_t procedure)
{
    struct xdr_out out;

    begin(o, &out, procedure);
    CHECK(onc_send(o, &out) == 0);
}

static void wait_for(const uint32_t *count, uint32_t n)
{
    for (int i = 0; *count != n; i++) {
        CHECK(i < 1000);
        CHECK(co_sleep(NSEC_PER_MSEC) == 0);
    }
}

/* Answers overtake; a fifth call waits until one of four has ended; a retry is no new call. */
static void flight_body(void)
{
    struct onc_client o;
    struct onc_answer a;

    onc_open(&o, onc_server_addr(server));
    for (int i = 0; i < 3; i++)
        send_call(&o, PROC_WAIT);
    wait_for(&waiting, 3);
    o.xid = 0;
    send_call(&o, PROC_WAIT); /* the first one's retry */
    o.xid = 3;
    send_call(&o, PROC_NULL);
    CHECK(onc_recv(&o, &a) == 0 && a.xid == 4);
    onc_answer_free(&a);
    send_call(&o, PROC_DROP);
    for (int i = 0; i < 3; i++)
        send_call(&o, PROC_WAIT);
    wait_for(&waiting, 4);
    CHECK(co_sleep(NSEC_PER_SEC) == 0 && waiting == 4);
    co_event_set(&gate, 0);
    for (int i = 0; i < 6; i++) {
        CHECK(onc_recv(&o, &a) == 0 && a.stat == ONC_SUCCESS);
        onc_answer_free(&a);
    }
    CHECK(began == 6);
    onc_close(&o);
}

static void test_flight(void **state)
{
    (void)state;
    run(flight_body);
}

/* A connection that ends takes its calls with it; one that is dropped is told nothing. */
static void ending_body(void)
{
    struct onc_client o;
    struct onc_answer a;

    onc_open(&o, onc_server_addr(server));
    send_call(&o, PROC_WAIT);
    wait_for(&waiting, 1);
    onc_close(&o);
    wait_for(&waiting, 0);
    wait_for(&server->stream.conn_count, 0);
    onc_open(&o, onc_server_addr(server));
    send_call(&o, PROC_WAIT);
    wait_for(&waiting, 1);
    onc_server_drop(server, "the test says so");
    CHECK(onc_recv(&o, &a) == ERR_CLOSED);
    onc_close(&o);
    wait_for(&server->stream.conn_count, 0);
    onc_open(&o, onc_server_addr(server)); /* in flight when the server stops */
    send_call(&o, PROC_WAIT);
    wait_for(&waiting, 1);
    onc_close(&o);
}

static void test_ending(void **state)
{
    (void)state;
    run(ending_body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fragments), cmocka_unit_test(test_burst),
        cmocka_unit_test(test_errors),    cmocka_unit_test(test_broken),
        cmocka_unit_test(test_flight),    cmocka_unit_test(test_ending),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
