/* SPDX-License-Identifier: Apache-2.0
 *
 * NBD transmission on the simulator: every command, limits, errors, order, endings. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "tests/lib/nbdworld.h"

#define CHECK(x) ASSERTF(x, "seen here")
#define KIB      1024u
#define MIB      (1024u * KIB)

static void run(void (*body)(struct nbdworld *w))
{
    struct nbdworld w = {.body = body};

    nbdworld_run(&w);
}

static void fill(uint8_t *p, uint32_t len, uint8_t seed)
{
    for (uint32_t i = 0; i < len; i++)
        p[i] = (uint8_t)(seed + i * 31 + (i >> 8) * 7 + 1);
}

static void expect_end(struct nc *n)
{
    uint8_t byte;

    CHECK(nc_get(n, &byte, 1) == ERR_CLOSED);
    nc_close(n);
}

/* ---- data ---- */

static void body_data(struct nbdworld *w)
{
    static const uint32_t sizes[] = {512, 4096, 16384, 16896, 65536, 300032, MIB, 32 * MIB};
    uint8_t *out = mem_alloc(32 * MIB), *in = mem_alloc(32 * MIB);

    for (int structured = 0; structured < 2; structured++) {
        struct nc n;

        nc_open(&n, structured ? w->addr : NW_UNIX, structured, false);
        for (size_t s = 0; s < ARRAY_SIZE(sizes); s++) {
            uint16_t fua = s & 1 ? NBD_CMD_FLAG_FUA : 0;

            fill(out, sizes[s], (uint8_t)s);
            CHECK(nc_do(&n, NBD_CMD_WRITE, fua, 1536, sizes[s], out) == 0);
            CHECK(nc_do(&n, NBD_CMD_READ, 0, 1536, sizes[s], in) == 0);
            CHECK(memcmp(in, out, sizes[s]) == 0);
        }
        CHECK(nc_do(&n, NBD_CMD_READ, 0, 0, 1536, in) == 0 && mem_is_zero(in, 1536));
        CHECK(nc_do(&n, NBD_CMD_READ, 0, NW_SIZE - 512, 512, in) == 0 && mem_is_zero(in, 512));
        CHECK(nc_do(&n, NBD_CMD_FLUSH, 0, 0, 0, NULL) == 0);
        CHECK(nc_do(&n, NBD_CMD_CACHE, 0, 0, 4096, NULL) == 0);
        CHECK(nc_do(&n, NBD_CMD_READ, 0, 0, 0, in) == 0);
        CHECK(nc_do(&n, NBD_CMD_WRITE, 0, 0, 0, in) == 0);
        CHECK(nc_do(&n, NBD_CMD_TRIM, 0, 0, 0, NULL) == 0);
        CHECK(nc_send(&n, NBD_CMD_DISC, 0, 0, 0, NULL) == 0);
        expect_end(&n);
    }
    mem_free(out);
    mem_free(in);
}

static void data_is_written_and_read(void **state)
{
    (void)state;
    run(body_data);
}

static void body_zeroes(struct nbdworld *w)
{
    uint8_t *data = mem_alloc(MIB);
    const uint16_t keep = NBD_CMD_FLAG_NO_HOLE, fast = NBD_CMD_FLAG_FAST_ZERO;
    struct nc n;

    nc_open(&n, w->addr, true, true);
    fill(data, MIB, 1);
    CHECK(nc_do(&n, NBD_CMD_WRITE, 0, 0, MIB, data) == 0);
    CHECK(nc_do(&n, NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_FUA, 512, 1024, NULL) == 0);
    CHECK(nc_do(&n, NBD_CMD_WRITE_ZEROES, keep, 4096, 512, NULL) == 0);
    CHECK(nc_do(&n, NBD_CMD_WRITE_ZEROES, fast, 8192, 512, NULL) == 0);
    CHECK(nc_do(&n, NBD_CMD_WRITE_ZEROES, keep | fast, 16384, 512, NULL) == NBD_ENOTSUP);
    CHECK(nc_do(&n, NBD_CMD_TRIM, 0, 64 * KIB, 64 * KIB, NULL) == 0);
    CHECK(nc_do(&n, NBD_CMD_WRITE_ZEROES, keep, 8 * MIB, 3 * MIB + 512, NULL) == 0);
    memset(data + 512, 0, 1024);
    memset(data + 4096, 0, 512);
    memset(data + 8192, 0, 512);
    memset(data + 64 * KIB, 0, 64 * KIB);
    uint8_t *back = mem_alloc(MIB);
    CHECK(nc_do(&n, NBD_CMD_READ, 0, 0, MIB, back) == 0 && memcmp(data, back, MIB) == 0);
    CHECK(nc_do(&n, NBD_CMD_WRITE_ZEROES, 0, 0, NW_SIZE, NULL) == 0);
    CHECK(nc_do(&n, NBD_CMD_READ, 0, 0, MIB, back) == 0 && mem_is_zero(back, MIB));
    nc_close(&n);
    mem_free(data);
    mem_free(back);
}

static void zeroes_and_trim(void **state)
{
    (void)state;
    run(body_zeroes);
}

/* Runs of zeroes are holes of the answer; not with DF; too short ones are data. */
static void body_holes(struct nbdworld *w)
{
    struct nc_reply r;
    uint8_t data[4096];
    uint64_t at = 0;
    struct nc n;

    nc_open(&n, w->addr, true, false);
    fill(data, sizeof(data), 5);
    CHECK(nc_do(&n, NBD_CMD_WRITE, 0, 64 * KIB, 4096, data) == 0);
    CHECK(nc_send(&n, NBD_CMD_READ, 0, 0, 256 * KIB, NULL) == 0);
    for (int i = 0; i < 3; i++) {
        CHECK(nc_recv(&n, &r) == 0 && r.structured && get_be64(r.data) == at);
        CHECK(r.flags == (i == 2 ? NBD_REPLY_FLAG_DONE : 0));
        CHECK(r.type == (i == 1 ? NBD_REPLY_TYPE_OFFSET_DATA : NBD_REPLY_TYPE_OFFSET_HOLE));
        at += i == 1 ? r.len - 8 : get_be32(r.data + 8);
        nc_reply_free(&r);
    }
    CHECK(at == 256 * KIB);
    CHECK(nc_send(&n, NBD_CMD_READ, NBD_CMD_FLAG_DF, 0, 256 * KIB, NULL) == 0);
    CHECK(nc_recv(&n, &r) == 0 && r.type == NBD_REPLY_TYPE_OFFSET_DATA);
    CHECK(r.flags == NBD_REPLY_FLAG_DONE && r.len == 256 * KIB + 8);
    nc_reply_free(&r);
    CHECK(nc_send(&n, NBD_CMD_READ, 0, 0, 0, NULL) == 0);
    CHECK(nc_recv(&n, &r) == 0 && r.type == NBD_REPLY_TYPE_NONE && r.len == 0);
    nc_reply_free(&r);
    nc_close(&n);
}

static void reads_tell_holes(void **state)
{
    (void)state;
    run(body_holes);
}

static void body_status(struct nbdworld *w)
{
    static const struct {
        uint32_t len, flags;
    } want[] = {{MIB, 3}, {64 * KIB, 0}, {NW_SIZE - MIB - 64 * KIB, 3}};
    struct nc_reply r;
    uint8_t data[512];
    struct nc n;

    nc_open(&n, w->addr, true, true);
    fill(data, sizeof(data), 5);
    CHECK(nc_do(&n, NBD_CMD_WRITE, 0, MIB, 512, data) == 0);
    CHECK(nc_send(&n, NBD_CMD_BLOCK_STATUS, 0, 0, NW_SIZE, NULL) == 0);
    CHECK(nc_recv(&n, &r) == 0 && r.type == NBD_REPLY_TYPE_BLOCK_STATUS);
    CHECK(r.flags == NBD_REPLY_FLAG_DONE && r.len == 4 + 3 * 8);
    CHECK(get_be32(r.data) == NBD_CONTEXT_ID);
    for (uint32_t i = 0; i < 3; i++)
        CHECK(get_be32(r.data + 4 + i * 8) == want[i].len &&
              get_be32(r.data + 8 + i * 8) == want[i].flags);
    nc_reply_free(&r);
    CHECK(nc_send(&n, NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_REQ_ONE, MIB - 512, NW_SIZE / 2, NULL) ==
          0);
    CHECK(nc_recv(&n, &r) == 0 && r.len == 4 + 8);
    CHECK(get_be32(r.data + 4) == 512 && get_be32(r.data + 8) == 3);
    nc_reply_free(&r);
    CHECK(nc_do(&n, NBD_CMD_BLOCK_STATUS, 0, 0, 0, NULL) == NBD_EINVAL);
    CHECK(nc_do(&n, NBD_CMD_BLOCK_STATUS, 0, NW_SIZE, 512, NULL) == NBD_EINVAL);
    /* more pieces than one answer has */
    for (uint32_t i = 0; i < 200; i++)
        CHECK(nc_do(&n, NBD_CMD_WRITE, 0, i * 128 * KIB, 512, data) == 0);
    CHECK(nc_send(&n, NBD_CMD_BLOCK_STATUS, 0, 0, NW_SIZE, NULL) == 0);
    CHECK(nc_recv(&n, &r) == 0 && r.len == 4 + 8 * NBD_EXTENTS_MAX);
    nc_reply_free(&r);
    nc_close(&n);
}

static void block_status_tells_holes(void **state)
{
    (void)state;
    run(body_status);
}

/* ---- what is refused ---- */

static void body_refused(struct nbdworld *w)
{
    static const struct {
        uint16_t type, flags;
        uint64_t off;
        uint32_t len, error;
    } rows[] = {
        {NBD_CMD_READ, 0, NW_SIZE, 512, NBD_EINVAL},
        {NBD_CMD_READ, 0, UINT64_MAX - 511, 1024, NBD_EINVAL},
        {NBD_CMD_READ, 0, 1, 512, NBD_EINVAL},
        {NBD_CMD_READ, 0, 0, 511, NBD_EINVAL},
        {NBD_CMD_READ, 0, 0, NBD_PAYLOAD_MAX + 512, NBD_EOVERFLOW},
        {NBD_CMD_READ, NBD_CMD_FLAG_NO_HOLE, 0, 512, NBD_EINVAL},
        {NBD_CMD_READ, 0x8000, 0, 512, NBD_EINVAL},
        {NBD_CMD_WRITE, 0, NW_SIZE - 512, 1024, NBD_ENOSPC},
        {NBD_CMD_WRITE, 0, 1, 512, NBD_EINVAL},
        {NBD_CMD_WRITE, 0, 0, 100, NBD_EINVAL},
        {NBD_CMD_WRITE, NBD_CMD_FLAG_DF, 0, 512, NBD_EINVAL},
        {NBD_CMD_TRIM, 0, NW_SIZE, 512, NBD_ENOSPC},
        {NBD_CMD_TRIM, NBD_CMD_FLAG_FAST_ZERO, 0, 512, NBD_EINVAL},
        {NBD_CMD_WRITE_ZEROES, 0, NW_SIZE, 512, NBD_ENOSPC},
        {NBD_CMD_WRITE_ZEROES, 0, 100, 512, NBD_EINVAL},
        {NBD_CMD_FLUSH, 0, 512, 0, NBD_EINVAL},
        {NBD_CMD_FLUSH, 0, 0, 512, NBD_EINVAL},
        {NBD_CMD_CACHE, 0, NW_SIZE, 512, NBD_EINVAL},
        {NBD_CMD_BLOCK_STATUS, 0, 0, 512, NBD_EINVAL}, /* no context */
        {8, 0, 0, 512, NBD_EINVAL},
        {0xffff, 0, 0, 0, NBD_EINVAL},
    };
    uint8_t data[1024] = {1};
    struct nc n;

    for (int structured = 0; structured < 2; structured++) {
        nc_open(&n, w->addr, structured, false);
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
            CHECK(nc_do(&n, rows[i].type, rows[i].flags, rows[i].off, rows[i].len, data) ==
                  rows[i].error);
        CHECK(nc_do(&n, NBD_CMD_READ, NBD_CMD_FLAG_DF, 0, 512, data) ==
              (structured ? 0 : NBD_EINVAL));
        CHECK(nc_do(&n, NBD_CMD_READ, 0, 0, 512, data) == 0 && mem_is_zero(data, 512));
        nc_close(&n);
    }
    nc_open(&n, w->addr, true, false);
    CHECK(nc_send(&n, NBD_CMD_WRITE, 0, 0, NBD_PAYLOAD_MAX + 512, NULL) == 0);
    expect_end(&n);
    nc_open(&n, w->addr, true, false);
    memset(data, 0x77, sizeof(data));
    CHECK(nc_put(&n, data, NBD_REQUEST_BYTES) == 0); /* no magic number */
    expect_end(&n);
}

static void bad_requests_are_refused(void **state)
{
    (void)state;
    run(body_refused);
}

static void body_errors(struct nbdworld *w)
{
    static const struct {
        int rc;
        uint32_t read, write; /* 0: the connection ends */
    } rows[] = {
        {ERR_NOSPACE, NBD_ENOSPC, NBD_ENOSPC},
        {ERR_IO, NBD_EIO, NBD_EIO},
        {ERR_CORRUPT, NBD_EIO, NBD_EIO},
        {ERR_NOTFOUND, NBD_EIO, NBD_EIO},
        {ERR_PERM, NBD_EPERM, NBD_EPERM},
        {ERR_INVAL, NBD_EINVAL, NBD_EINVAL},
        {ERR_TOO_LARGE, NBD_EINVAL, NBD_ENOSPC},
        {ERR_HALTED, NBD_ESHUTDOWN, 0},
        {ERR_AMBIGUOUS, 0, 0},
        {ERR_EXPIRED, 0, 0},
        {ERR_TIMEOUT, 0, 0},
        {ERR_UNREACHABLE, 0, 0},
    };
    static const uint16_t types[] = {NBD_CMD_READ, NBD_CMD_WRITE, NBD_CMD_TRIM,
                                     NBD_CMD_WRITE_ZEROES};
    uint8_t data[512] = {1};
    struct nc n;

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        for (size_t t = 0; t < ARRAY_SIZE(types); t++) {
            uint32_t want = t == 0 ? rows[i].read : rows[i].write;

            nc_open(&n, w->addr, t & 1, false);
            block_backend_mem_hold(w->last, NULL, rows[i].rc, 1);
            if (want != 0) {
                CHECK(nc_do(&n, types[t], 0, 0, 512, data) == want);
                CHECK(nc_do(&n, NBD_CMD_READ, 0, 0, 512, data) == 0);
                nc_close(&n);
            } else {
                CHECK(nc_send(&n, types[t], 0, 0, 512, types[t] == NBD_CMD_WRITE ? data : NULL) ==
                      0);
                expect_end(&n);
            }
            nbdworld_quiet(w);
        }
    }
}

static void errors_become_numbers_or_ends(void **state)
{
    (void)state;
    run(body_errors);
}

/* ---- order and limits ---- */

/* Answers come as requests end; one that is held holds nobody. */
static void body_order(struct nbdworld *w)
{
    struct co_event until;
    uint8_t data[512] = {7};
    struct nc_reply r;
    struct nc n;

    co_event_init(&until);
    nc_open(&n, w->addr, true, false);
    block_backend_mem_hold(w->last, &until, 0, 1);
    CHECK(nc_send(&n, NBD_CMD_WRITE, 0, 0, 512, data) == 0);
    (void)!co_sleep(NSEC_PER_MSEC);
    CHECK(nc_do(&n, NBD_CMD_FLUSH, 0, 0, 0, NULL) == 0);
    CHECK(nc_do(&n, NBD_CMD_READ, 0, 4096, 512, data) == 0);
    co_event_set(&until, 0);
    CHECK(nc_recv(&n, &r) == 0 && r.cookie == 1 && r.error == 0);
    nc_reply_free(&r);
    /* after DISC everything in flight is still answered */
    struct co_event again;
    co_event_init(&again);
    block_backend_mem_hold(w->last, &again, 0, 3);
    for (int i = 0; i < 3; i++)
        CHECK(nc_send(&n, NBD_CMD_TRIM, 0, 0, 512, NULL) == 0);
    CHECK(nc_send(&n, NBD_CMD_DISC, 0, 0, 0, NULL) == 0);
    (void)!co_sleep(NSEC_PER_MSEC);
    co_event_set(&again, 0);
    for (int i = 0; i < 3; i++)
        CHECK(nc_recv(&n, &r) == 0 && r.error == 0);
    expect_end(&n);
}

static void answers_come_as_requests_end(void **state)
{
    (void)state;
    run(body_order);
}

/* More requests and more memory than a connection has: they wait, all are answered. */
static void body_limits(struct nbdworld *w)
{
    enum { N = 200 };
    struct co_event until;
    struct nc_reply r;
    struct nc n;
    uint32_t seen = 0;

    co_event_init(&until);
    nc_open(&n, w->addr, true, false);
    block_backend_mem_hold(w->last, &until, 0, N);
    for (int i = 0; i < N; i++)
        CHECK(nc_send(&n, NBD_CMD_TRIM, 0, 0, 512, NULL) == 0);
    (void)!co_sleep(NSEC_PER_MSEC);
    struct nbd_conn *c = LIST_FIRST(&w->server->stream.conns, struct nbd_conn, stream.link);
    CHECK(c->requests.count == 8);
    co_event_set(&until, 0);
    while (seen < N) {
        CHECK(nc_recv(&n, &r) == 0 && r.error == 0);
        nc_reply_free(&r);
        seen++;
    }
    struct co_event again;
    co_event_init(&again);
    block_backend_mem_hold(w->last, &again, 0, 8);
    for (int i = 0; i < 8; i++)
        CHECK(nc_send(&n, NBD_CMD_READ, NBD_CMD_FLAG_DF, 0, 8 * MIB, NULL) == 0);
    (void)!co_sleep(NSEC_PER_MSEC);
    CHECK(c->requests.count == 4); /* 32 MiB */
    co_event_set(&again, 0);
    for (int i = 0; i < 8; i++) {
        CHECK(nc_recv(&n, &r) == 0 && r.error == 0 && r.len == 8 * MIB + 8);
        nc_reply_free(&r);
    }
    nc_close(&n);
}

static void requests_wait_for_places_and_memory(void **state)
{
    struct nbdworld w = {.body = body_limits, .conf = {.requests = 8}};

    (void)state;
    nbdworld_run(&w);
}

/* ---- endings ---- */

/* A client that leaves after any number of bytes leaves nothing behind. */
static void body_cut(struct nbdworld *w)
{
    uint8_t data[40000];
    uint32_t total = NBD_REQUEST_BYTES + 20480 + 2 * NBD_REQUEST_BYTES;

    memset(data, 1, sizeof(data));
    for (uint32_t cut = 0; cut <= total; cut += cut < 40 || cut > total - 70 ? 1 : 997) {
        struct nc n;
        uint8_t *p = data;

        for (int i = 0; i < 3; i++) {
            put_be32(p, NBD_REQUEST_MAGIC);
            put_be16(p + 4, 0);
            put_be16(p + 6, i == 0 ? NBD_CMD_WRITE : NBD_CMD_READ);
            put_be64(p + 8, (uint64_t)i);
            put_be64(p + 16, 0);
            put_be32(p + 24, 20480);
            p += NBD_REQUEST_BYTES + (i == 0 ? 20480 : 0);
        }
        nc_open(&n, w->addr, cut & 1, false);
        CHECK(nc_put(&n, data, cut) == 0);
        if (cut % 3 == 0)
            (void)!co_sleep(NSEC_PER_MSEC);
        nc_close(&n);
        nbdworld_quiet(w);
        CHECK(w->opens == w->closes);
    }
}

static void clients_may_leave_at_any_time(void **state)
{
    (void)state;
    run(body_cut);
}

/* What a client left behind ends before its next connection begins. */
static void body_reconnect(struct nbdworld *w)
{
    uint8_t data[512] = {9}, greeting[256];
    struct co_event until;
    struct nc n, next;

    co_event_init(&until);
    nc_open(&n, w->addr, true, false);
    block_backend_mem_hold(w->last, &until, 0, 1);
    CHECK(nc_send(&n, NBD_CMD_WRITE, 0, 0, 512, data) == 0);
    (void)!co_sleep(NSEC_PER_MSEC);
    nc_close(&n);
    nc_connect(&next, w->addr);
    nc_hello(&next, NBD_FLAG_FIXED_NEWSTYLE);
    CHECK(nc_option(&next, NBD_OPT_GO, greeting, nc_go_data(greeting, NW_EXPORT)) == 0);
    (void)!co_sleep(5 * NSEC_PER_SEC);
    CHECK(!net_readable(next.net));
    nc_connect(&n, NW_UNIX); /* another volume does not wait */
    nc_hello(&n, NBD_FLAG_FIXED_NEWSTYLE);
    CHECK(nc_option_ask(&n, NBD_OPT_GO, greeting, nc_go_data(greeting, NW_OTHER)) == NBD_REP_ACK);
    nc_close(&n);
    co_event_set(&until, 0);
    CHECK(nc_get(&next, greeting, NBD_OPTION_REPLY_BYTES) == 0);
    CHECK(get_be32(greeting + 12) == NBD_REP_INFO);
    nc_close(&next);
}

static void a_former_connection_ends_first(void **state)
{
    (void)state;
    run(body_reconnect);
}

/* A write is not begun before it is certain that it is not old, and not at all once the session
 * with meta turned out to be over. */
static void body_drop(struct nbdworld *w)
{
    struct co_event confirm, forever;
    uint8_t data[512] = {9};
    struct nc_reply r;
    struct nc n, other;

    co_event_init(&confirm);
    co_event_init(&forever);
    nc_open(&n, w->addr, false, false);
    block_backend_mem_confirm(w->last, &confirm);
    CHECK(nc_send(&n, NBD_CMD_WRITE, 0, 0, 512, data) == 0);
    (void)!co_sleep(NSEC_PER_MSEC);
    CHECK(!net_readable(n.net));
    co_event_set(&confirm, 0);
    CHECK(nc_recv(&n, &r) == 0 && r.error == 0);
    nc_close(&n);
    nbdworld_quiet(w);

    nc_open(&n, w->addr, true, false);
    block_backend_mem_confirm(w->last, &forever);
    CHECK(nc_send(&n, NBD_CMD_WRITE, 0, 0, 512, data) == 0);
    nc_connect(&other, w->addr); /* still negotiating */
    (void)!co_sleep(NSEC_PER_MSEC);
    nbd_server_drop(w->server, "test");
    expect_end(&n);
    nc_hello(&other, 0);
    expect_end(&other);
    nbdworld_quiet(w);
}

static void dropped_connections_begin_nothing(void **state)
{
    (void)state;
    run(body_drop);
}

/* A stop answers what is in flight; connections in every state end. */
static void body_stop(struct nbdworld *w)
{
    struct co_event until;
    struct nc idle, fresh, busy;
    struct nc_reply r;

    co_event_init(&until);
    nc_open(&idle, w->addr, true, false);
    nc_connect(&fresh, w->addr);
    nc_open(&busy, w->addr, true, false);
    block_backend_mem_hold(w->last, &until, 0, 2);
    CHECK(nc_send(&busy, NBD_CMD_TRIM, 0, 0, 512, NULL) == 0);
    CHECK(nc_send(&busy, NBD_CMD_TRIM, 0, 0, 512, NULL) == 0);
    (void)!co_sleep(NSEC_PER_MSEC);
    co_event_set(&until, 0);
    nbd_server_stop(w->server);
    w->server = NULL;
    for (int i = 0; i < 2; i++)
        CHECK(nc_recv(&busy, &r) == 0 && r.error == 0);
    expect_end(&busy);
    expect_end(&idle);
    nc_hello(&fresh, 0);
    expect_end(&fresh);
}

static void a_stop_answers_what_is_in_flight(void **state)
{
    (void)state;
    run(body_stop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(data_is_written_and_read),
        cmocka_unit_test(zeroes_and_trim),
        cmocka_unit_test(reads_tell_holes),
        cmocka_unit_test(block_status_tells_holes),
        cmocka_unit_test(bad_requests_are_refused),
        cmocka_unit_test(errors_become_numbers_or_ends),
        cmocka_unit_test(answers_come_as_requests_end),
        cmocka_unit_test(requests_wait_for_places_and_memory),
        cmocka_unit_test(clients_may_leave_at_any_time),
        cmocka_unit_test(a_former_connection_ends_first),
        cmocka_unit_test(dropped_connections_begin_nothing),
        cmocka_unit_test(a_stop_answers_what_is_in_flight),
    };

    log_threshold = LOG_LV_ERROR + 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
