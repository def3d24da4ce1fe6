/* SPDX-License-Identifier: Apache-2.0
 *
 * NBD negotiation on the simulator: every option, good and malformed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "tests/lib/nbdworld.h"

#define CHECK(x) ASSERTF(x, "seen here")
#define BOTH     (NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)

static void run(void (*body)(struct nbdworld *w))
{
    struct nbdworld w = {.body = body};

    nbdworld_run(&w);
}

static void hello(struct nc *n, struct nbdworld *w, uint32_t flags)
{
    nc_connect(n, w->addr);
    nc_hello(n, flags);
}

/* The server has closed; nothing came before that. */
static void expect_end(struct nc *n)
{
    uint8_t byte;

    CHECK(nc_get(n, &byte, 1) == ERR_CLOSED);
    nc_close(n);
}

/* ---- into transmission ---- */

static void body_export_name(struct nbdworld *w)
{
    static const uint32_t flags[] = {0, NBD_FLAG_NO_ZEROES, NBD_FLAG_FIXED_NEWSTYLE, BOTH};
    uint8_t answer[134], data[512];
    struct nc n;

    for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
        hello(&n, w, flags[i]);
        CHECK(nc_option(&n, NBD_OPT_EXPORT_NAME, NW_EXPORT, strlen(NW_EXPORT)) == 0);
        CHECK(nc_get(&n, answer, flags[i] & NBD_FLAG_NO_ZEROES ? 10 : 134) == 0);
        CHECK(get_be64(answer) == NW_SIZE);
        CHECK(get_be16(answer + 8) & NBD_FLAG_HAS_FLAGS);
        CHECK(!(get_be16(answer + 8) & NBD_FLAG_SEND_DF)); /* no structured replies */
        CHECK(nc_do(&n, NBD_CMD_READ, 0, 0, 512, data) == 0);
        nc_close(&n);
    }
    hello(&n, w, BOTH);
    CHECK(nc_option(&n, NBD_OPT_EXPORT_NAME, "nothing", 7) == 0);
    expect_end(&n);
}

static void export_name_enters_transmission(void **state)
{
    (void)state;
    run(body_export_name);
}

static void body_go(struct nbdworld *w)
{
    static const uint16_t want = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
                                 NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES |
                                 NBD_FLAG_CAN_MULTI_CONN | NBD_FLAG_SEND_CACHE |
                                 NBD_FLAG_SEND_FAST_ZERO;
    uint8_t data[512];
    struct nc n;

    hello(&n, w, BOTH);
    CHECK(nc_option_ask(&n, NBD_OPT_INFO, data, nc_go_data(data, "none")) == NBD_REP_ERR_UNKNOWN);
    CHECK(nc_option_ask(&n, NBD_OPT_INFO, data, nc_go_data(data, "")) == NBD_REP_ERR_UNKNOWN);
    CHECK(nc_option_ask(&n, NBD_OPT_INFO, data, nc_go_data(data, NW_OTHER)) == NBD_REP_ACK);
    CHECK(n.size == NW_SIZE && n.flags == want);
    CHECK(n.block_min == 512 && n.block_preferred == 4096 && n.payload_max == NBD_PAYLOAD_MAX);
    CHECK(nc_option_ask(&n, NBD_OPT_STRUCTURED_REPLY, NULL, 0) == NBD_REP_ACK);
    CHECK(nc_option_ask(&n, NBD_OPT_GO, data, nc_go_data(data, "none")) == NBD_REP_ERR_UNKNOWN);
    CHECK(nc_option_ask(&n, NBD_OPT_GO, data, nc_go_data(data, NW_EXPORT)) == NBD_REP_ACK);
    CHECK(n.flags == (want | NBD_FLAG_SEND_DF));
    CHECK(nc_do(&n, NBD_CMD_READ, 0, 0, 512, data) == 0);
    nc_close(&n);
    nc_connect(&n, NW_UNIX);
    nc_hello(&n, BOTH);
    CHECK(nc_option_ask(&n, NBD_OPT_GO, data, nc_go_data(data, NW_EXPORT)) == NBD_REP_ACK);
    CHECK(nc_do(&n, NBD_CMD_READ, 0, 0, 512, data) == 0);
    nc_close(&n);
}

static void go_and_info_describe_the_export(void **state)
{
    (void)state;
    run(body_go);
}

/* ---- the other options ---- */

static void body_options(struct nbdworld *w)
{
    struct nc_option_reply r;
    struct nc n;

    hello(&n, w, BOTH);
    CHECK(nc_option(&n, NBD_OPT_LIST, NULL, 0) == 0);
    for (uint32_t i = 0; i < NW_EXPORTS; i++) {
        const char *name = i == 0 ? NW_EXPORT : NW_OTHER;

        CHECK(nc_option_get(&n, &r) == 0 && r.type == NBD_REP_SERVER);
        CHECK(get_be32(r.data) == strlen(name) && r.len == 4 + strlen(name));
        CHECK(memcmp(r.data + 4, name, strlen(name)) == 0);
    }
    CHECK(nc_option_get(&n, &r) == 0 && r.type == NBD_REP_ACK);
    CHECK(nc_option_ask(&n, NBD_OPT_LIST, "x", 1) == NBD_REP_ERR_INVALID);
    CHECK(nc_option_ask(&n, NBD_OPT_STARTTLS, NULL, 0) == NBD_REP_ERR_POLICY);
    CHECK(nc_option_ask(&n, NBD_OPT_STRUCTURED_REPLY, "x", 1) == NBD_REP_ERR_INVALID);
    CHECK(nc_option_ask(&n, 4711, "abc", 3) == NBD_REP_ERR_UNSUP);
    CHECK(nc_option_ask(&n, NBD_OPT_ABORT, NULL, 0) == NBD_REP_ACK);
    expect_end(&n);
    w->server->conf.list = NULL;
    hello(&n, w, BOTH);
    CHECK(nc_option_ask(&n, NBD_OPT_LIST, NULL, 0) == NBD_REP_ERR_POLICY);
    nc_close(&n);
}

static void options_are_answered(void **state)
{
    (void)state;
    run(body_options);
}

static uint32_t contexts(struct nc *n, uint32_t option, const char *name, const char *query,
                         uint32_t *ret_count)
{
    struct nc_option_reply r;
    uint8_t data[256];

    *ret_count = 0;
    CHECK(nc_option(n, option, data, nc_meta_data(data, name, query)) == 0);
    for (;;) {
        CHECK(nc_option_get(n, &r) == 0);
        if (r.type != NBD_REP_META_CONTEXT)
            return r.type;
        CHECK(r.len == 4 + 15 && memcmp(r.data + 4, "base:allocation", 15) == 0);
        ++*ret_count;
    }
}

static void body_contexts(struct nbdworld *w)
{
    uint8_t data[256];
    uint32_t count;
    struct nc n;

    hello(&n, w, BOTH);
    CHECK(contexts(&n, NBD_OPT_SET_META_CONTEXT, NW_EXPORT, NBD_CONTEXT_NAME, &count) ==
          NBD_REP_ERR_INVALID); /* structured replies come first */
    CHECK(nc_option_ask(&n, NBD_OPT_STRUCTURED_REPLY, NULL, 0) == NBD_REP_ACK);
    CHECK(contexts(&n, NBD_OPT_LIST_META_CONTEXT, NW_EXPORT, "", &count) == NBD_REP_ACK);
    CHECK(count == 1);
    CHECK(contexts(&n, NBD_OPT_LIST_META_CONTEXT, NW_EXPORT, "base:", &count) == NBD_REP_ACK);
    CHECK(count == 1);
    CHECK(contexts(&n, NBD_OPT_LIST_META_CONTEXT, NW_EXPORT, "qemu:", &count) == NBD_REP_ACK);
    CHECK(count == 0);
    CHECK(contexts(&n, NBD_OPT_SET_META_CONTEXT, NW_EXPORT, "", &count) == NBD_REP_ACK);
    CHECK(count == 0);
    CHECK(contexts(&n, NBD_OPT_SET_META_CONTEXT, NW_EXPORT, "base:", &count) == NBD_REP_ACK);
    CHECK(count == 0);
    CHECK(contexts(&n, NBD_OPT_SET_META_CONTEXT, "none", NBD_CONTEXT_NAME, &count) ==
          NBD_REP_ERR_UNKNOWN);
    CHECK(contexts(&n, NBD_OPT_SET_META_CONTEXT, NW_OTHER, NBD_CONTEXT_NAME, &count) ==
          NBD_REP_ACK);
    CHECK(count == 1);
    /* the selection was made for another export */
    CHECK(nc_option_ask(&n, NBD_OPT_GO, data, nc_go_data(data, NW_EXPORT)) == NBD_REP_ACK);
    CHECK(nc_do(&n, NBD_CMD_BLOCK_STATUS, 0, 0, 4096, NULL) == NBD_EINVAL);
    nc_close(&n);
}

static void contexts_are_listed_and_selected(void **state)
{
    (void)state;
    run(body_contexts);
}

/* ---- malformed ---- */

static void body_malformed(struct nbdworld *w)
{
    static const uint32_t options[] = {NBD_OPT_INFO, NBD_OPT_GO, NBD_OPT_LIST_META_CONTEXT,
                                       NBD_OPT_SET_META_CONTEXT};
    uint8_t data[256];
    struct nc n;

    hello(&n, w, BOTH);
    CHECK(nc_option_ask(&n, NBD_OPT_STRUCTURED_REPLY, NULL, 0) == NBD_REP_ACK);
    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        uint32_t len =
            i < 2 ? nc_go_data(data, NW_EXPORT) : nc_meta_data(data, NW_EXPORT, NBD_CONTEXT_NAME);

        for (uint32_t cut = 0; cut < len; cut++)
            CHECK(nc_option_ask(&n, options[i], data, cut) == NBD_REP_ERR_INVALID);
        data[len] = 0;
        CHECK(nc_option_ask(&n, options[i], data, len + 1) == NBD_REP_ERR_INVALID);
        put_be32(data, UINT32_MAX); /* length of the name */
        CHECK(nc_option_ask(&n, options[i], data, len) == NBD_REP_ERR_INVALID);
    }
    /* too long, but the stream can be followed */
    uint8_t *big = MEM_NEW_ARRAY(uint8_t, NBD_OPTION_SKIP_MAX);
    CHECK(nc_option_ask(&n, NBD_OPT_GO, big, NBD_OPTION_MAX + 1) == NBD_REP_ERR_TOO_BIG);
    CHECK(nc_option_ask(&n, NBD_OPT_GO, big, NBD_OPTION_SKIP_MAX) == NBD_REP_ERR_TOO_BIG);
    /* a name with a zero in it, or longer than names are */
    put_be32(data, 4);
    memcpy(data + 4, "a\0bc\0\0", 6);
    CHECK(nc_option_ask(&n, NBD_OPT_GO, data, 10) == NBD_REP_ERR_UNKNOWN);
    put_be32(big, NBD_NAME_MAX + 1);
    memset(big + 4, 'a', NBD_NAME_MAX + 1);
    memset(big + 4 + NBD_NAME_MAX + 1, 0, 2);
    CHECK(nc_option_ask(&n, NBD_OPT_GO, big, 4 + NBD_NAME_MAX + 1 + 2) == NBD_REP_ERR_UNKNOWN);
    mem_free(big);
    CHECK(nc_option_ask(&n, NBD_OPT_GO, data, nc_go_data(data, NW_EXPORT)) == NBD_REP_ACK);
    nc_close(&n);
}

static void malformed_options_are_refused(void **state)
{
    (void)state;
    run(body_malformed);
}

static void body_sent_away(struct nbdworld *w)
{
    uint8_t head[NBD_OPTION_BYTES];
    struct nc n;

    hello(&n, w, 4); /* a flag that nobody knows */
    expect_end(&n);
    hello(&n, w, 0); /* nothing but EXPORT_NAME without fixed newstyle */
    CHECK(nc_option(&n, NBD_OPT_LIST, NULL, 0) == 0);
    expect_end(&n);
    hello(&n, w, BOTH);
    memset(head, 'x', sizeof(head));
    CHECK(nc_put(&n, head, sizeof(head)) == 0);
    expect_end(&n);
    hello(&n, w, BOTH);
    put_be64(head, NBD_OPTION_MAGIC);
    put_be32(head + 8, NBD_OPT_GO);
    put_be32(head + 12, NBD_OPTION_SKIP_MAX + 1);
    CHECK(nc_put(&n, head, sizeof(head)) == 0);
    expect_end(&n);
    nsec_t begin = co_now(); /* a client that says nothing */
    hello(&n, w, BOTH);
    expect_end(&n);
    CHECK(co_now() - begin >= 15 * NSEC_PER_SEC && co_now() - begin < 16 * NSEC_PER_SEC);
}

static void bad_clients_are_sent_away(void **state)
{
    (void)state;
    run(body_sent_away);
}

/* A client that leaves after any number of bytes leaves nothing behind. */
static void body_cut(struct nbdworld *w)
{
    uint8_t all[256], *p = all + 4;

    put_be32(all, BOTH);
    put_be64(p, NBD_OPTION_MAGIC);
    put_be32(p + 8, NBD_OPT_STRUCTURED_REPLY);
    put_be32(p + 12, 0);
    p += 16;
    put_be64(p, NBD_OPTION_MAGIC);
    put_be32(p + 8, NBD_OPT_GO);
    put_be32(p + 12, nc_go_data(p + 16, NW_EXPORT));
    p += 16 + get_be32(p + 12);
    for (uint32_t cut = 0; cut <= (uint32_t)(p - all); cut++) {
        struct nc n;

        nc_connect(&n, cut & 1 ? w->addr : NW_UNIX);
        CHECK(nc_put(&n, all, cut) == 0);
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

static void body_places(struct nbdworld *w)
{
    struct nc n[3];

    hello(&n[0], w, BOTH);
    hello(&n[1], w, BOTH);
    nc_connect(&n[2], w->addr);
    expect_end(&n[2]);
    nc_close(&n[0]);
    hello(&n[2], w, BOTH);
    nc_close(&n[1]);
    nc_close(&n[2]);
}

static void connections_are_bounded(void **state)
{
    struct nbdworld w = {.body = body_places, .conf = {.connections = 2}};

    (void)state;
    nbdworld_run(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(export_name_enters_transmission),
        cmocka_unit_test(go_and_info_describe_the_export),
        cmocka_unit_test(options_are_answered),
        cmocka_unit_test(contexts_are_listed_and_selected),
        cmocka_unit_test(malformed_options_are_refused),
        cmocka_unit_test(bad_clients_are_sent_away),
        cmocka_unit_test(clients_may_leave_at_any_time),
        cmocka_unit_test(connections_are_bounded),
    };

    log_threshold = LOG_LV_ERROR + 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
