/* SPDX-License-Identifier: Apache-2.0
 *
 * NBD under TLS on the simulator: who is let in, what is refused before TLS, and peers that break
 * the handshake or the stream. Real clients: tests/it/test_nbd.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "common/env/env_ops.h"
#include "tests/lib/certs.h"
#include "tests/lib/nbdworld.h"

#define CHECK(x) ASSERTF(x, "seen here")
#define BOTH     (NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)
#define MIB      (1024u * 1024)

/* ---- who is there ---- */

static struct cert authority, stranger;
static bool asks_clients; /* for a certificate */

static co_fn struct net_tls *identity(const char *name, const struct cert *by, int hours,
                                      const char *ca)
{
    struct net_tls_files files = {.cert = "/tls/cert", .key = "/tls/key", .ca = ca};
    struct net_tls *tls = NULL;
    struct cert c;

    cert_make(&c, name, by, hours);
    cert_write(files.cert, &c);
    cert_write_key(files.key, &c);
    cert_free(&c);
    CHECK(net_tls_new(&files, &tls) == 0);
    return tls;
}

static co_fn void setup(struct nbdworld *w)
{
    cert_make(&authority, "authority", NULL, 24);
    cert_make(&stranger, "stranger", NULL, 24);
    cert_write("/tls/ca", &authority);
    cert_write("/tls/stranger", &stranger);
    w->tls = identity("server", &authority, 24, asks_clients ? "/tls/ca" : NULL);
}

static void run(void (*body)(struct nbdworld *w), enum nbd_tls mode, bool client_certs)
{
    struct nbdworld w = {.body = body, .setup = setup, .conf = {.tls = mode}};

    asks_clients = client_certs;
    nbdworld_run(&w);
    cert_free(&authority);
    cert_free(&stranger);
}

/* ---- a client ---- */

static co_fn void hello(struct nc *n, struct nbdworld *w)
{
    nc_connect(n, w->addr);
    nc_hello(n, BOTH);
}

static co_fn int go(struct nc *n)
{
    uint8_t data[256];

    return nc_option_ask(n, NBD_OPT_GO, data, nc_go_data(data, NW_EXPORT)) == NBD_REP_ACK ? 0 : -1;
}

/* Greeting and STARTTLS; what the handshake gives. */
static co_fn int starttls(struct nc *n, struct nbdworld *w, const struct net_tls *tls)
{
    hello(n, w);
    CHECK(nc_option_ask(n, NBD_OPT_STARTTLS, NULL, 0) == NBD_REP_ACK);
    return net_tls_connect(n->net, tls, NULL);
}

/* The server ends the connection without another word in plain text. */
static co_fn void expect_end(struct nc *n)
{
    uint8_t byte;

    CHECK(nc_get(n, &byte, 1) < 0);
    nc_close(n);
}

/* Bytes below TLS. */
static co_fn void put_raw(struct nc *n, const void *data, size_t len)
{
    struct tls_stream *tls = n->net->tls;

    n->net->tls = NULL;
    (void)!nc_put(n, data, len);
    n->net->tls = tls;
}

/* A good client is served as if nothing had happened. */
static co_fn void check_good(struct nbdworld *w)
{
    struct net_tls *tls = identity("client", &authority, 24, "/tls/ca");
    uint8_t data[512];
    struct nc n;

    CHECK(starttls(&n, w, tls) == 0 && go(&n) == 0);
    CHECK(nc_do(&n, NBD_CMD_READ, 0, 0, sizeof(data), data) == 0);
    nc_close(&n);
    net_tls_free(tls);
    nbdworld_quiet(w);
}

/* ---- good clients ---- */

static co_fn void large_io(struct nc *n)
{
    uint8_t *data = mem_alloc(5 * MIB), *back = mem_alloc(5 * MIB);

    for (uint32_t i = 0; i < 5 * MIB; i++)
        data[i] = (uint8_t)(i * 7 + i / 4096);
    CHECK(nc_do(n, NBD_CMD_WRITE, 0, 512, 5 * MIB - 512, data) == 0);
    CHECK(nc_do(n, NBD_CMD_READ, 0, 512, 5 * MIB - 512, back) == 0);
    CHECK(memcmp(data, back, 5 * MIB - 512) == 0);
    mem_free(data);
    mem_free(back);
}

enum { FLOOD = 200 };

static co_fn int flood_main(void *arg)
{
    uint8_t *data = mem_alloc(MIB);
    struct nc *n = arg;

    for (uint32_t i = 0; i < FLOOD; i++) {
        uint32_t len = (1 + (uint32_t)(env_random() % 512)) * 512;
        bool write = env_random() % 2 == 0;

        CHECK(nc_send(n, write ? NBD_CMD_WRITE : NBD_CMD_READ, 0, i * MIB / 8, len,
                      write ? data : NULL) == 0);
    }
    mem_free(data);
    return 0;
}

/* Requests and answers cross each other. */
static co_fn void both_ways(struct nc *n)
{
    struct co_group g;
    struct nc_reply r;

    co_group_init(&g);
    co_spawn(&g, "flood", flood_main, n);
    for (uint32_t ended = 0; ended < FLOOD;) {
        CHECK(nc_recv(n, &r) == 0 && r.error == 0);
        ended += !r.structured || (r.flags & NBD_REPLY_FLAG_DONE);
        nc_reply_free(&r);
    }
    CHECK(co_group_join(&g) == 0);
}

static void body_both_ways(struct nbdworld *w)
{
    struct net_tls *tls = identity("client", &authority, 24, "/tls/ca");
    struct nc n;

    CHECK(starttls(&n, w, tls) == 0);
    CHECK(nc_option_ask(&n, NBD_OPT_STRUCTURED_REPLY, NULL, 0) == NBD_REP_ACK && go(&n) == 0);
    both_ways(&n);
    nc_close(&n);
    net_tls_free(tls);
}

static void requests_and_answers_cross(void **state)
{
    (void)state;
    run(body_both_ways, NBD_TLS_REQUIRED, true);
}

static void body_served(struct nbdworld *w)
{
    struct net_tls *tls = identity("client", &authority, 24, "/tls/ca");
    struct nc n;

    hello(&n, w);
    CHECK(nc_option_ask(&n, NBD_OPT_STRUCTURED_REPLY, NULL, 0) == NBD_REP_ACK);
    CHECK(nc_option_ask(&n, NBD_OPT_STARTTLS, "x", 1) == NBD_REP_ERR_INVALID);
    CHECK(nc_option_ask(&n, NBD_OPT_STARTTLS, NULL, 0) == NBD_REP_ACK);
    CHECK(net_tls_connect(n.net, tls, "server") == 0);
    CHECK(strcmp(net_tls_version(n.net), "TLSv1.3") == 0);
    CHECK(strcmp(net_tls_peer(n.net), "CN=server") == 0);
    CHECK(nc_option_ask(&n, NBD_OPT_STARTTLS, NULL, 0) == NBD_REP_ERR_INVALID);
    CHECK(go(&n) == 0);
    CHECK(!(n.flags & NBD_FLAG_SEND_DF)); /* what was agreed in plain text is forgotten */
    large_io(&n);
    nc_close(&n);
    nc_open(&n, w->addr, true, true); /* in plain text */
    large_io(&n);
    nc_close(&n);
    hello(&n, w);
    CHECK(nc_option_ask(&n, NBD_OPT_STARTTLS, NULL, 0) == NBD_REP_ACK);
    CHECK(net_tls_connect(n.net, tls, "another") == ERR_REFUSED);
    nc_close(&n);
    net_tls_free(tls);
    check_good(w);
}

static void clients_choose_tls_where_it_is_allowed(void **state)
{
    (void)state;
    run(body_served, NBD_TLS_ALLOWED, false);
}

static void body_required(struct nbdworld *w)
{
    static const uint32_t options[] = {
        NBD_OPT_LIST, NBD_OPT_INFO, NBD_OPT_GO, NBD_OPT_STRUCTURED_REPLY, NBD_OPT_SET_META_CONTEXT,
        4711};
    struct net_tls *tls = identity("client", &authority, 24, "/tls/ca");
    struct nc n;

    hello(&n, w);
    for (size_t i = 0; i < ARRAY_SIZE(options); i++)
        CHECK(nc_option_ask(&n, options[i], "abc", 3) == NBD_REP_ERR_TLS_REQD);
    CHECK(w->opens == 0);
    CHECK(nc_option_ask(&n, NBD_OPT_STARTTLS, NULL, 0) == NBD_REP_ACK);
    CHECK(net_tls_connect(n.net, tls, NULL) == 0 && go(&n) == 0);
    large_io(&n);
    nc_close(&n);
    hello(&n, w);
    CHECK(nc_option_ask(&n, NBD_OPT_ABORT, NULL, 0) == NBD_REP_ACK);
    expect_end(&n);
    hello(&n, w);
    CHECK(nc_option(&n, NBD_OPT_EXPORT_NAME, NW_EXPORT, strlen(NW_EXPORT)) == 0);
    expect_end(&n);
    nc_connect(&n, NW_UNIX); /* whose folder says who may open it */
    nc_hello(&n, BOTH);
    CHECK(nc_option_ask(&n, NBD_OPT_STARTTLS, NULL, 0) == NBD_REP_ERR_POLICY);
    CHECK(go(&n) == 0);
    nc_close(&n);
    net_tls_free(tls);
}

static void nothing_is_said_before_tls_where_it_is_required(void **state)
{
    (void)state;
    run(body_required, NBD_TLS_REQUIRED, false);
}

/* ---- certificates of clients ---- */

/* TLS 1.3 lets the client think that it is done before its certificate was looked at. */
static co_fn void expect_refused(struct nbdworld *w, struct net_tls *tls)
{
    struct nc n;
    uint8_t byte;
    int rc = starttls(&n, w, tls);

    if (rc == 0)
        rc = nc_get(&n, &byte, 1);
    CHECK(rc == ERR_REFUSED);
    nc_close(&n);
    net_tls_free(tls);
}

static void body_certificates(struct nbdworld *w)
{
    const struct net_tls_files none = {.ca = "/tls/ca"};
    struct net_tls *tls;

    CHECK(net_tls_new(&none, &tls) == 0);
    expect_refused(w, tls);
    expect_refused(w, identity("client", &stranger, 24, "/tls/ca"));
    expect_refused(w, identity("client", &authority, -1, "/tls/ca"));
    expect_refused(w, identity("client", &authority, 24, "/tls/stranger")); /* it refuses us */
    CHECK(w->opens == 0);
    check_good(w);
}

static void clients_show_a_certificate_where_authorities_are_named(void **state)
{
    (void)state;
    run(body_certificates, NBD_TLS_REQUIRED, true);
}

/* ---- bad peers ---- */

static void body_bad_handshakes(struct nbdworld *w)
{
    uint8_t junk[4096], option[NBD_OPTION_BYTES + 5] = {0};
    static const uint8_t half_hello[] = {22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3};
    nsec_t began;
    struct nc n;

    env_random_bytes(junk, sizeof(junk));
    junk[0] = 22; /* a handshake record, at least */
    junk[1] = 3;
    for (size_t len = 1; len <= sizeof(junk); len *= 4) {
        hello(&n, w);
        CHECK(nc_option_ask(&n, NBD_OPT_STARTTLS, NULL, 0) == NBD_REP_ACK);
        CHECK(nc_put(&n, junk, len) == 0);
        nc_close(&n);
    }
    hello(&n, w); /* goes on as if nothing were */
    CHECK(nc_option_ask(&n, NBD_OPT_STARTTLS, NULL, 0) == NBD_REP_ACK);
    CHECK(nc_option(&n, NBD_OPT_LIST, NULL, 0) == 0);
    while (nc_get(&n, junk, 1) == 0) /* an alert */
        ;
    nc_close(&n);
    hello(&n, w); /* does not wait for the answer */
    put_be64(option, NBD_OPTION_MAGIC);
    put_be32(option + 8, NBD_OPT_STARTTLS);
    CHECK(nc_put(&n, option, sizeof(option)) == 0);
    expect_end(&n);
    hello(&n, w); /* says half of it, and nothing more */
    CHECK(nc_option_ask(&n, NBD_OPT_STARTTLS, NULL, 0) == NBD_REP_ACK);
    CHECK(nc_put(&n, half_hello, sizeof(half_hello)) == 0);
    began = co_now();
    expect_end(&n);
    CHECK(co_now() - began > 10 * NSEC_PER_SEC && co_now() - began < 20 * NSEC_PER_SEC);
    nbdworld_quiet(w);
    CHECK(w->opens == 0);
    check_good(w);
}

static void a_handshake_that_goes_wrong_ends_the_connection(void **state)
{
    (void)state;
    run(body_bad_handshakes, NBD_TLS_ALLOWED, false);
}

static void body_bad_streams(struct nbdworld *w)
{
    struct net_tls *tls = identity("client", &authority, 24, "/tls/ca");
    static const uint8_t record[] = {23, 3, 3, 0, 32}; /* the head of one: data, 32 bytes */
    uint8_t junk[64];
    struct nc n;

    memset(junk, 0x5a, sizeof(junk));
    CHECK(starttls(&n, w, tls) == 0 && go(&n) == 0); /* a record that can't be authentic */
    put_raw(&n, record, sizeof(record));
    put_raw(&n, junk, 32);
    expect_end(&n);
    CHECK(starttls(&n, w, tls) == 0 && go(&n) == 0); /* no record */
    put_raw(&n, junk, sizeof(junk));
    expect_end(&n);
    CHECK(starttls(&n, w, tls) == 0 && go(&n) == 0); /* the middle of one */
    put_raw(&n, record, sizeof(record));
    nc_close(&n);
    CHECK(starttls(&n, w, tls) == 0 && go(&n) == 0); /* the middle of a request's payload */
    CHECK(nc_send(&n, NBD_CMD_WRITE, 0, 0, MIB, NULL) == 0 && nc_put(&n, junk, sizeof(junk)) == 0);
    nc_close(&n);
    CHECK(starttls(&n, w, tls) == 0 && go(&n) == 0); /* answers under way that nobody takes */
    for (int i = 0; i < 16; i++)
        CHECK(nc_send(&n, NBD_CMD_READ, 0, 0, MIB, NULL) == 0);
    nc_close(&n);
    net_tls_free(tls);
    nbdworld_quiet(w);
    check_good(w);
}

static void a_stream_that_goes_wrong_ends_the_connection(void **state)
{
    (void)state;
    run(body_bad_streams, NBD_TLS_REQUIRED, true);
}

/* ---- files ---- */

static co_fn void expect_bad(const char *cert, const char *key, const char *ca, const char *text)
{
    struct net_tls_files files = {cert, key, ca};
    struct net_tls *tls;
    int rc = net_tls_new(&files, &tls);

    CHECK(rc < 0);
    ASSERTF(strstr(err_text(rc), text) != NULL, "\"%s\" in \"%s\"", text, err_text(rc));
}

static void body_files(struct nbdworld *w)
{
    CHECK(env_file_write("/tls/text", "no PEM", 6) == 0);
    cert_write_key("/tls/other", &stranger);
    expect_bad("/tls/none", "/tls/key", NULL, "/tls/none");
    expect_bad("/tls/text", "/tls/key", NULL, "/tls/text holds no certificate");
    expect_bad("/tls/cert", "/tls/text", NULL, "/tls/text holds no private key");
    expect_bad("/tls/cert", "/tls/other", NULL, "/tls/other does not go with the certificate");
    expect_bad("/tls/cert", "/tls/key", "/tls/text", "/tls/text holds no certificate");
    check_good(w);
}

static void files_that_are_wrong_are_named(void **state)
{
    (void)state;
    run(body_files, NBD_TLS_ALLOWED, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clients_choose_tls_where_it_is_allowed),
        cmocka_unit_test(requests_and_answers_cross),
        cmocka_unit_test(nothing_is_said_before_tls_where_it_is_required),
        cmocka_unit_test(clients_show_a_certificate_where_authorities_are_named),
        cmocka_unit_test(a_handshake_that_goes_wrong_ends_the_connection),
        cmocka_unit_test(a_stream_that_goes_wrong_ends_the_connection),
        cmocka_unit_test(files_that_are_wrong_are_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
