/* SPDX-License-Identifier: Apache-2.0
 *
 * RPC when things go wrong, on the simulator: crashes, partitions, peers that do not belong here,
 * peers that speak nonsense, stopping with work in flight, and a soak under random faults. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "common/base/crc32c.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/rpc/conn.h"
#include "tests/lib/rpcworld.h"

static struct rpcworld world(uint64_t seed)
{
    return (struct rpcworld){.sim_conf = {.seed = seed}};
}

/* ---- lost servers ---- */

struct sleeper {
    struct rpcworld *w;
    nsec_t span;
    uint32_t closed, ended;
};

static int sleeper_main(void *arg)
{
    struct sleeper *s = arg;
    struct rpc_reply r;
    int rc = rpctest_sleep(s->w->client, s->span, &r);

    if (rc == ERR_CLOSED) {
        CHECK(!r.answered);
        s->closed++;
    }
    s->ended++;
    rpc_reply_free(&r);
    return 0;
}

static void body_crash(struct rpcworld *w)
{
    struct sleeper s = {.w = w, .span = NSEC_PER_SEC};
    struct co_group g;
    struct rpc_reply r;

    co_group_init(&g);
    CHECK(rpctest_echo(w->client, 1, "", NULL, &r) == 0);
    CHECK(r.incarnation == 1001);
    rpc_reply_free(&r);
    for (int i = 0; i < 20; i++)
        co_spawn(&g, "sleeper", sleeper_main, &s);
    co_sleep(100 * NSEC_PER_MSEC);
    CHECK(s.ended == 0 && rpc_client_in_flight(w->client) == 20);
    rpcworld_restart(w);
    CHECK(co_group_join(&g) == 0);
    CHECK(s.closed == 20);
    CHECK(rpctest_echo(w->client, 1, "", NULL, &r) == 0);
    CHECK(r.incarnation == 1002 && rpc_client_incarnation(w->client) == 1002);
    rpc_reply_free(&r);
}

static void a_crash_closes_calls_and_changes_the_incarnation(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed < 6; seed++) {
        struct rpcworld w = world(seed);

        rpcworld_run(&w, body_crash);
    }
}

static void body_unreachable(struct rpcworld *w)
{
    struct rpc_reply r;
    uint32_t attempts = 0;
    nsec_t start;
    int rc;

    CHECK(rpctest_echo(w->client, 1, "", NULL, &r) == 0);
    rpc_reply_free(&r);
    sim_proc_crash(w->proc);
    co_sleep(10 * NSEC_PER_MSEC);
    start = co_now();
    while (co_now() < start + 2 * NSEC_PER_SEC) {
        rc = rpctest_echo(w->client, 1, "", NULL, &r);
        CHECK(rc == ERR_UNREACHABLE || (rc == ERR_CLOSED && attempts == 0));
        CHECK(!rpc_client_connected(w->client));
        attempts++;
    }
    CHECK(attempts >= 8 && attempts < 40); /* paced, by 200 ms at most */
    rpcworld_restart(w);
    start = co_now();
    while ((rc = rpctest_echo(w->client, 1, "", NULL, &r)) < 0)
        CHECK(rc == ERR_UNREACHABLE);
    CHECK(co_now() < start + 300 * NSEC_PER_MSEC);
    rpc_reply_free(&r);
}

static void absent_servers_are_retried_with_backoff(void **state)
{
    struct rpcworld w = world(7);

    (void)state;
    rpcworld_run(&w, body_unreachable);
}

static void body_partition(struct rpcworld *w)
{
    struct rpc_reply r;
    nsec_t former;
    int rc;

    CHECK(rpctest_echo(w->client, 1, "", NULL, &r) == 0);
    rpc_reply_free(&r);
    sim_net_cut(w->sim, RPCWORLD_SERVER_HOST, RPCWORLD_CLIENT_HOST);
    former = co_deadline_push(co_now() + 100 * NSEC_PER_MSEC);
    CHECK(rpctest_echo(w->client, 1, "", NULL, &r) == ERR_TIMEOUT);
    co_deadline_restore(former);
    rpc_client_reset(w->client);
    former = co_deadline_push(co_now() + 100 * NSEC_PER_MSEC);
    CHECK(rpctest_echo(w->client, 1, "", NULL, &r) == ERR_UNREACHABLE);
    co_deadline_restore(former);
    sim_net_heal_all(w->sim);
    while ((rc = rpctest_echo(w->client, 1, "", NULL, &r)) < 0)
        CHECK(rc == ERR_UNREACHABLE);
    rpc_reply_free(&r);
}

static void partitions_end_in_timeouts(void **state)
{
    struct rpcworld w = world(8);

    (void)state;
    rpcworld_run(&w, body_partition);
}

/* A payload that stops flowing in the middle must not hold its caller for ever. */
static void body_stalled_payload(struct rpcworld *w)
{
    struct buf *dst = buf_alloc(RPC_PAYLOAD_MAX);
    struct rpc_reply r;
    nsec_t former, start;
    uint32_t timeouts = 0;

    for (int i = 0; i < 20; i++) {
        rpc_reply_init(&r);
        r.dst = dst;
        r.dst_cap = RPC_PAYLOAD_MAX;
        start = co_now();
        former = co_deadline_push(start + (nsec_t)(sim_random(w->sim) % 20) * NSEC_PER_MSEC);
        if (i % 2 == 1)
            sim_net_cut(w->sim, RPCWORLD_SERVER_HOST, RPCWORLD_CLIENT_HOST);
        if (rpctest_source(w->client, RPC_PAYLOAD_MAX, 1, 1, &r) < 0)
            timeouts++;
        co_deadline_restore(former);
        CHECK(co_now() < start + 2 * NSEC_PER_SEC);
        rpc_reply_free(&r);
        sim_net_heal_all(w->sim);
    }
    CHECK(timeouts > 0);
    co_sleep(NSEC_PER_SEC);
    CHECK(atomic_load(&dst->refs) == 1);
    buf_put(dst);
}

static void a_stalled_payload_releases_its_caller(void **state)
{
    (void)state;
    for (uint64_t seed = 100; seed < 105; seed++) {
        struct rpcworld w = world(seed);

        rpcworld_run(&w, body_stalled_payload);
    }
}

/* ---- peers that do not belong here ---- */

/* A connection on which the test itself speaks. */
static void raw_connect(struct rpc_conn *c)
{
    struct net_conn *net;

    CHECK(net_connect(RPCWORLD_ADDR, &net) == 0);
    conn_init(c, net);
}

static void raw_write(struct rpc_conn *c, const void *data, size_t len)
{
    struct iovec iov = {(void *)data, len};

    (void)!net_writev_full(c->net, &iov, 1); /* the peer may have closed */
}

static bool raw_closed(struct rpc_conn *c)
{
    uint8_t byte;
    int rc;

    while ((rc = net_read_full(c->net, &byte, 1)) == 0)
        ;
    return rc == ERR_CLOSED;
}

static struct conn_hello good_hello(void)
{
    return (struct conn_hello){.version_min = 1,
                               .version_max = 1,
                               .features = FRAME_FEATURE_AREA_CRC,
                               .cluster_id = "c1",
                               .self = "raw"};
}

static void raw_greet(struct rpc_conn *c)
{
    struct conn_hello hello = good_hello(), theirs;

    raw_connect(c);
    CHECK(conn_hello_send(c, &hello, 0) == 0);
    CHECK(conn_hello_recv(c, &theirs) == 0);
    CHECK(theirs.status == 0 && theirs.version_max == 1 && theirs.incarnation == 1001);
    CHECK(strcmp(theirs.self, "server-1") == 0 && strcmp(theirs.cluster_id, "c1") == 0);
    c->version = 1;
    c->features = theirs.features;
}

static int refused_with(const struct conn_hello *hello, const char *text)
{
    struct conn_hello theirs;
    struct rpc_conn c;

    raw_connect(&c);
    CHECK(conn_hello_send(&c, hello, 0) == 0);
    CHECK(conn_hello_recv(&c, &theirs) == 0);
    CHECK(theirs.status < 0 && strstr(theirs.text, text) != NULL);
    CHECK(raw_closed(&c));
    conn_fini(&c);
    return theirs.status;
}

static void body_hello(struct rpcworld *w)
{
    struct rpc_client *foreign = rpcworld_client("c2", 0);
    struct conn_hello h = good_hello();
    struct rpc_reply r;

    CHECK(rpctest_echo(foreign, 1, "", NULL, &r) == ERR_UNREACHABLE);
    CHECK(strstr(err_text(ERR_UNREACHABLE), "cluster") != NULL);
    rpc_client_close(foreign);
    h.version_min = 2;
    h.version_max = 9;
    CHECK(refused_with(&h, "versions 1 to 1, you 2 to 9") == ERR_VERSION);
    h.version_min = h.version_max = 0;
    CHECK(refused_with(&h, "versions") == ERR_VERSION);
    h = good_hello();
    h.instance = 7;
    CHECK(refused_with(&h, "no number 7") == ERR_INVAL);
    h = good_hello();
    strcpy(h.cluster_id, "c9");
    CHECK(refused_with(&h, "c9") == ERR_REFUSED);
    /* A newer peer that still speaks our version, with features that we do not know. */
    h = good_hello();
    h.version_max = 5;
    h.features = UINT64_MAX;
    {
        struct conn_hello theirs;
        struct rpc_conn c;

        raw_connect(&c);
        CHECK(conn_hello_send(&c, &h, 0) == 0);
        CHECK(conn_hello_recv(&c, &theirs) == 0);
        CHECK(theirs.status == 0 && theirs.version_max == 1);
        CHECK(theirs.features ==
              (FRAME_FEATURES_SUPPORTED & ~FRAME_FEATURES_SHARING)); /* this is TCP */
        conn_fini(&c);
    }
    CHECK(rpctest_echo(w->client, 1, "", NULL, &r) == 0);
    rpc_reply_free(&r);
}

static void strangers_are_refused_with_a_reason(void **state)
{
    struct rpcworld w = world(9);

    (void)state;
    rpcworld_run(&w, body_hello);
}

static void body_connection_limit(struct rpcworld *w)
{
    struct rpc_client *c[4];
    struct rpc_reply r;

    for (int i = 0; i < 4; i++) {
        c[i] = rpcworld_client("c1", 0);
        CHECK(rpctest_echo(c[i], 1, "", NULL, &r) == (i < 3 ? 0 : ERR_UNREACHABLE));
        rpc_reply_free(&r);
    }
    rpc_client_close(c[0]);
    co_sleep(300 * NSEC_PER_MSEC);
    CHECK(rpctest_echo(c[3], 1, "", NULL, &r) == 0);
    rpc_reply_free(&r);
    for (int i = 1; i < 4; i++)
        rpc_client_close(c[i]);
    (void)w;
}

static void connections_are_limited(void **state)
{
    struct rpcworld w = world(17);

    (void)state;
    w.conf.limits.connections = 3;
    rpcworld_run(&w, body_connection_limit);
}

/* ---- nonsense ---- */

static struct frame_header echo_header(void)
{
    return (struct frame_header){
        .version = 1,
        .kind = FRAME_REQUEST,
        .flags = FRAME_F_AREA_CRC,
        .service = frame_service_hash(&zbs__rpctest__test__descriptor),
        .method = RPCTEST_ECHO,
        .id = 77,
    };
}

/* Greets, sends a header and an area, expects the connection to be closed without a reply. */
static void nonsense_closes(const struct frame_header *h, const void *area, int flip_byte)
{
    uint8_t bytes[FRAME_HEADER_BYTES];
    struct rpc_conn c;

    raw_greet(&c);
    frame_header_encode(bytes, h);
    if (flip_byte >= 0)
        bytes[flip_byte] ^= 0x10;
    raw_write(&c, bytes, sizeof(bytes));
    if (area != NULL)
        raw_write(&c, area, h->area_len);
    CHECK(raw_closed(&c));
    conn_fini(&c);
}

static void body_nonsense(struct rpcworld *w)
{
    struct frame_header h = echo_header();
    uint8_t garbage[3000];
    struct rpc_conn c;
    struct rpc_reply r;

    rpctest_fill(garbage, sizeof(garbage), 99);
    raw_connect(&c);
    raw_write(&c, garbage, sizeof(garbage)); /* instead of a hello */
    CHECK(raw_closed(&c));
    conn_fini(&c);
    raw_greet(&c);
    raw_write(&c, garbage, sizeof(garbage));
    CHECK(raw_closed(&c));
    conn_fini(&c);
    for (int i = 0; i < (int)FRAME_HEADER_BYTES; i += 7)
        nonsense_closes(&h, NULL, i);
    h.area_len = RPC_MESSAGE_MAX + 1;
    nonsense_closes(&h, NULL, -1);
    h = echo_header();
    h.payload_len = RPC_PAYLOAD_MAX + 1;
    nonsense_closes(&h, NULL, -1);
    h = echo_header();
    h.area_len = 100; /* with a wrong checksum */
    nonsense_closes(&h, garbage, -1);
    h = (struct frame_header){.version = 1, .kind = FRAME_REPLY, .flags = FRAME_F_AREA_CRC};
    nonsense_closes(&h, NULL, -1);
    h = echo_header();
    h.flags = 0; /* although checksums were agreed on */
    nonsense_closes(&h, NULL, -1);
    /* Truncated: the stream ends within a frame. */
    raw_greet(&c);
    h = echo_header();
    h.payload_len = 100000;
    frame_header_encode(garbage, &h);
    raw_write(&c, garbage, sizeof(garbage));
    conn_fini(&c);
    CHECK(rpctest_echo(w->client, 1, "", NULL, &r) == 0);
    rpc_reply_free(&r);
}

static void nonsense_closes_the_connection(void **state)
{
    struct rpcworld w = world(11);

    (void)state;
    rpcworld_run(&w, body_nonsense);
}

/* Sends a request with a given message area and returns the status of the reply. */
static int raw_request(struct rpc_conn *c, uint8_t *area, uint32_t len)
{
    struct frame_header h = echo_header(), reply;
    uint8_t bytes[FRAME_HEADER_BYTES];
    const uint8_t *reply_area;
    void *tmp;

    h.area_len = len;
    h.area_crc = crc32c(0, area, len);
    frame_header_encode(bytes, &h);
    raw_write(c, bytes, sizeof(bytes));
    raw_write(c, area, len);
    CHECK(conn_recv_header(c, &reply) == 0);
    CHECK(reply.kind == FRAME_REPLY && reply.id == 77);
    CHECK(conn_recv_area(c, &reply, &reply_area, &tmp) == 0);
    mem_free(tmp);
    return reply.status;
}

static void body_bad_messages(struct rpcworld *w)
{
    uint8_t *area = mem_alloc(RPC_MESSAGE_MAX);
    struct rpc_conn c;

    raw_greet(&c);
    memset(area, 0xff, 100);
    CHECK(raw_request(&c, area, 100) == ERR_PROTO);
    /* Unknown fields of two bytes each: a few are kept, a megabyte of them is too much. */
    for (uint32_t i = 0; i < RPC_MESSAGE_MAX; i += 2) {
        area[i] = 15 << 3;
        area[i + 1] = 1;
    }
    CHECK(raw_request(&c, area, 200) == 0);
    CHECK(raw_request(&c, area, RPC_MESSAGE_MAX) == ERR_TOO_LARGE);
    CHECK(raw_request(&c, area, 0) == 0);
    conn_fini(&c);
    mem_free(area);
    (void)w;
}

static void bad_messages_fail_alone(void **state)
{
    struct rpcworld w = world(12);

    (void)state;
    rpcworld_run(&w, body_bad_messages);
}

/* ---- servers that speak nonsense ---- */

struct liar {
    struct net_listener *listener;
    int lie;
};

enum lie { LIE_GARBAGE, LIE_VERSION, LIE_NO_HELLO, LIE_REPLY_GARBAGE, LIE_REPLY_BROKEN, LIE_COUNT };

static int liar_main(void *arg)
{
    struct liar *l = arg;
    struct conn_hello ours = good_hello(), theirs;
    struct frame_header h;
    uint8_t bytes[200];
    struct net_conn *net;
    struct rpc_conn c;

    rpctest_fill(bytes, sizeof(bytes), 3);
    while (net_accept(l->listener, &net) == 0) {
        conn_init(&c, net);
        if (conn_hello_recv(&c, &theirs) == 0 && l->lie != LIE_NO_HELLO) {
            ours.version_min = ours.version_max = l->lie == LIE_VERSION ? 3 : 1;
            if (l->lie == LIE_GARBAGE)
                raw_write(&c, bytes, sizeof(bytes));
            else
                CHECK(conn_hello_send(&c, &ours, 0) == 0);
            c.version = 1;
            c.features = ours.features;
            if (l->lie >= LIE_REPLY_GARBAGE && conn_recv_header(&c, &h) == 0) {
                h = (struct frame_header){.version = 1,
                                          .kind = FRAME_REPLY,
                                          .flags = FRAME_F_AREA_CRC,
                                          .id = h.id,
                                          .area_len = 100};
                if (l->lie == LIE_REPLY_BROKEN)
                    h.area_crc = crc32c(0, bytes + FRAME_HEADER_BYTES, 100);
                frame_header_encode(bytes, &h);
                raw_write(&c, bytes, sizeof(bytes) - (l->lie == LIE_REPLY_GARBAGE ? 0 : 36));
                co_sleep(10 * NSEC_PER_MSEC);
            }
        }
        conn_fini(&c);
    }
    return 0;
}

static void body_liars(struct rpcworld *w)
{
    struct rpc_client_conf conf = {.addr = RPCWORLD_CLIENT_HOST ":7000", .self = "victim"};
    struct rpc_client *c = rpc_client_new(&conf);
    struct liar l = {.lie = 0};
    struct co_group g;
    struct rpc_reply r;
    nsec_t former;

    co_group_init(&g);
    CHECK(net_listen(conf.addr, &l.listener) == 0);
    co_spawn(&g, "liar", liar_main, &l);
    for (l.lie = 0; l.lie < LIE_COUNT; l.lie++) {
        int rc;

        former = co_deadline_push(co_now() + 3 * NSEC_PER_SEC);
        rc = rpctest_echo(c, 1, "", NULL, &r);
        co_deadline_restore(former);
        if (l.lie < LIE_REPLY_GARBAGE)
            CHECK(rc == ERR_UNREACHABLE && !r.answered);
        else if (l.lie == LIE_REPLY_GARBAGE)
            CHECK(rc == ERR_CLOSED && !r.answered); /* checksum */
        else
            CHECK(rc == ERR_PROTO); /* undecodable message of a sound frame */
        rpc_reply_free(&r);
        rpc_client_reset(c);
        co_sleep(20 * NSEC_PER_MSEC);
    }
    co_group_close(&g);
    net_listener_close(l.listener);
    rpc_client_close(c);
    (void)w;
}

static void lying_servers_are_not_believed(void **state)
{
    struct rpcworld w = world(13);

    (void)state;
    rpcworld_run(&w, body_liars);
}

/* ---- stopping ---- */

static void body_client_close(struct rpcworld *w)
{
    struct sleeper s = {.w = w, .span = 3600 * NSEC_PER_SEC};
    struct co_group g;

    co_group_init(&g);
    for (int i = 0; i < 10; i++)
        co_spawn(&g, "sleeper", sleeper_main, &s);
    co_sleep(100 * NSEC_PER_MSEC);
    CHECK(atomic_load(&w->test.running) == 10);
    rpc_client_close(w->client);
    CHECK(s.ended == 10 && s.closed == 10);
    co_group_join(&g);
    w->client = rpcworld_client("c1", 0);
    co_sleep(100 * NSEC_PER_MSEC);
    CHECK(atomic_load(&w->test.canceled) == 10); /* the method asks for it */
    CHECK(atomic_load(&w->test.running) == 0 && atomic_load(&w->test.disconnects) == 1);
}

static void closing_a_client_ends_its_calls(void **state)
{
    struct rpcworld w = world(14);

    (void)state;
    rpcworld_run(&w, body_client_close);
}

static void body_server_stop(struct rpcworld *w)
{
    struct rpc_server_conf conf = {.addr = RPCWORLD_CLIENT_HOST ":0",
                                   .addr_unix = "unix:/run/test.sock",
                                   .self = "second",
                                   .cluster_id = "",
                                   .incarnation = 5,
                                   .services = w->test.table};
    struct sleeper s = {.w = w, .span = 3600 * NSEC_PER_SEC};
    struct rpc_client_conf cc = {.self = "tester", .cluster_id = "c1"};
    struct rpc_client *first = w->client, *by_unix;
    struct rpc_server *server;
    struct co_group g;
    struct rpc_reply r;

    CHECK(rpc_server_start(&conf, &server) == 0);
    cc.addr = rpc_server_addr(server);
    w->client = rpc_client_new(&cc);
    cc.addr = conf.addr_unix;
    by_unix = rpc_client_new(&cc);
    CHECK(rpctest_echo(by_unix, 1, "", NULL, &r) == 0);
    CHECK(r.incarnation == 5);
    rpc_reply_free(&r);
    co_group_init(&g);
    for (int i = 0; i < 10; i++)
        co_spawn(&g, "sleeper", sleeper_main, &s);
    co_sleep(100 * NSEC_PER_MSEC);
    CHECK(atomic_load(&w->test.running) == 10);
    rpc_server_stop(server);
    CHECK(atomic_load(&w->test.running) == 0);
    co_group_join(&g);
    CHECK(s.ended == 10);
    CHECK(rpctest_echo(by_unix, 1, "", NULL, &r) < 0);
    rpc_client_close(by_unix);
    rpc_client_close(w->client);
    w->client = first;
}

static void stopping_a_server_ends_its_handlers(void **state)
{
    struct rpcworld w = world(15);

    (void)state;
    rpcworld_run(&w, body_server_stop);
}

/* ---- soak ---- */

struct soak {
    struct rpcworld *w;
    uint32_t ok, failed;
    bool calm; /* every call must succeed */
};

static int soak_main(void *arg)
{
    struct soak *s = arg;
    struct sim *sim = s->w->sim;

    for (int i = 0; i < 40; i++) {
        uint32_t len = (uint32_t)(sim_random(sim) % 300000);
        nsec_t deadline = co_now() + (nsec_t)(1 + sim_random(sim) % 200) * NSEC_PER_MSEC;
        struct rpc_payload out = {.count = 0};
        struct buf *b = buf_alloc(len + 1);
        struct rpc_reply r;
        nsec_t former;
        int rc;

        rpctest_fill(b->data, len, len);
        rpc_payload_add(&out, b, 0, len);
        former = co_deadline_push(s->calm ? NSEC_NEVER : deadline);
        rc = rpctest_echo(s->w->client, len, "soak", &out, &r);
        co_deadline_restore(former);
        if (rc == 0) {
            CHECK(((Zbs__Rpctest__EchoReply *)r.msg)->number == len && r.payload_len == len);
            CHECK(len == 0 || rpctest_filled(r.payload->data, len, len));
            s->ok++;
        } else {
            CHECK(!s->calm);
            CHECK(rc == ERR_TIMEOUT || rc == ERR_CLOSED || rc == ERR_UNREACHABLE);
            s->failed++;
        }
        rpc_reply_free(&r);
        buf_put(b);
    }
    return 0;
}

static void body_soak(struct rpcworld *w)
{
    struct soak s = {.w = w};
    struct co_group g;
    struct rpc_reply r;

    co_group_init(&g);
    for (int i = 0; i < 10; i++)
        co_spawn(&g, "soak", soak_main, &s);
    co_sleep(30 * NSEC_PER_MSEC);
    rpcworld_restart(w);
    co_group_join(&g);
    *(uint32_t *)w->arg += s.failed;
    sim_set_conf(w->sim, &(struct sim_conf){.seed = 1});
    while (rpctest_echo(w->client, 1, "", NULL, &r) < 0)
        co_sleep(10 * NSEC_PER_MSEC);
    rpc_reply_free(&r);
    co_sleep(2 * NSEC_PER_SEC);
    s.calm = true;
    for (int i = 0; i < 10; i++)
        co_spawn(&g, "calm", soak_main, &s);
    co_group_join(&g);
    CHECK(rpc_client_in_flight(w->client) == 0);
}

static void soak_under_resets_and_delays(void **state)
{
    uint32_t failed = 0;

    (void)state;
    for (uint64_t seed = 200; seed < 206; seed++) {
        struct rpcworld w = world(seed);

        w.arg = &failed;
        w.sim_conf.net_reset_ppm = 3000;
        w.sim_conf.net_spike_ppm = 3000;
        rpcworld_run(&w, body_soak);
    }
    CHECK(failed > 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_crash_closes_calls_and_changes_the_incarnation),
        cmocka_unit_test(absent_servers_are_retried_with_backoff),
        cmocka_unit_test(partitions_end_in_timeouts),
        cmocka_unit_test(a_stalled_payload_releases_its_caller),
        cmocka_unit_test(strangers_are_refused_with_a_reason),
        cmocka_unit_test(connections_are_limited),
        cmocka_unit_test(nonsense_closes_the_connection),
        cmocka_unit_test(bad_messages_fail_alone),
        cmocka_unit_test(lying_servers_are_not_believed),
        cmocka_unit_test(closing_a_client_ends_its_calls),
        cmocka_unit_test(stopping_a_server_ends_its_handlers),
        cmocka_unit_test(soak_under_resets_and_delays),
    };

    log_threshold = LOG_LV_ERROR; /* refusals are what is tested here */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
