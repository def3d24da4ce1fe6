/* SPDX-License-Identifier: Apache-2.0
 *
 * Simulated streams: order, windows, ends of streams, partitions, crashes. A server process on
 * host A echoes; a client process on host B runs the test's body. */
#include "tests/unit/common/sim_fixture.h"

#define ADDR "127.1.0.1:9000"

struct rig {
    struct sim *s;
    struct sim_proc *server, *client;
    int (*body)(struct rig *r);
    const char *addr;
    bool mute; /* the server accepts and never reads */
    bool ready, half_open;
    int server_rc;
    nsec_t broke_at;
};

static int echo_conn(void *arg)
{
    struct net_conn *c = arg;
    char buf[5000];
    int rc = 0;

    while (rc == 0) {
        struct iovec in = {buf, sizeof(buf)};
        ssize_t n = net_readv(c, &in, 1);
        struct iovec out = {buf, (size_t)n};

        rc = n < 0 ? (int)n : net_writev_full(c, &out, 1);
    }
    net_close(c);
    return 0;
}

static int server_main(void *arg)
{
    struct rig *r = arg;
    struct net_listener *l;
    struct net_conn *c;
    struct co_group g;
    int rc;

    co_group_init(&g);
    CHECK(net_listen(r->addr, &l) == 0);
    while ((rc = net_accept(l, &c)) == 0)
        if (!r->mute)
            co_spawn(&g, "echo", echo_conn, c);
    net_listener_close(l);
    (void)co_group_close(&g);
    return rc;
}

static int client_main(void *arg)
{
    struct rig *r = arg;

    return r->body(r);
}

static struct rig rig_new(uint64_t seed, int (*body)(struct rig *r))
{
    struct rig r = {.s = world_new(seed), .body = body, .addr = ADDR};

    r.server = sim_proc_new(r.s, HOST_A, "server");
    r.client = sim_proc_new(r.s, HOST_B, "client");
    return r;
}

static int rig_run(struct rig *r)
{
    int rc;

    sim_proc_start(r->server, server_main, r);
    sim_run_for(r->s, MSEC(10));
    rc = proc_run(r->s, r->client, client_main, r);
    sim_free(r->s);
    return rc;
}

static void send_text(struct net_conn *c, const char *text)
{
    struct iovec iov = {(void *)(uintptr_t)text, strlen(text)};

    CHECK(net_writev_full(c, &iov, 1) == 0);
}

static int ping(struct net_conn *c, const char *text)
{
    struct iovec iov = {(void *)(uintptr_t)text, strlen(text)};
    char buf[100];
    int rc = net_writev_full(c, &iov, 1);

    if (rc == 0)
        rc = net_read_full(c, buf, strlen(text));
    if (rc == 0)
        CHECK(memcmp(buf, text, strlen(text)) == 0);
    return rc;
}

/* ---- streams ---- */

static int body_echo(struct rig *r)
{
    struct net_conn *c;

    CHECK(net_connect(r->addr, &c) == 0);
    CHECK(strcmp(net_peer(c), ADDR) == 0);
    CHECK(strncmp(net_local(c), "127.1.0.2:", 10) == 0);
    CHECK(ping(c, "hello") == 0 && ping(c, "world") == 0 && !net_readable(c));
    net_close(c);
    return 0;
}

static void bytes_come_back(void **state)
{
    struct rig r = rig_new(1, body_echo);

    (void)state;
    assert_int_equal(rig_run(&r), 0);
}

struct pump {
    struct net_conn *c;
    size_t total;
};

static int pump_out(void *arg)
{
    struct pump *p = arg;
    uint8_t buf[30000];

    for (size_t done = 0; done < p->total;) {
        size_t n = MIN(p->total - done, 1 + env_random() % sizeof(buf));
        struct iovec iov[2];

        for (size_t i = 0; i < n; i++)
            buf[i] = (uint8_t)((done + i) * 7 >> 3);
        iov[0] = (struct iovec){buf, n / 3};
        iov[1] = (struct iovec){buf + n / 3, n - n / 3};
        CHECK(net_writev_full(p->c, iov, 2) == 0);
        done += n;
    }
    return 0;
}

static int body_pump(struct rig *r)
{
    struct pump p = {.total = 5u << 20};
    struct co_group g;
    uint8_t buf[10000];

    CHECK(net_connect(r->addr, &p.c) == 0);
    co_group_init(&g);
    co_spawn(&g, "pump", pump_out, &p);
    for (size_t done = 0; done < p.total;) {
        struct iovec iov = {buf, 1 + env_random() % sizeof(buf)};
        ssize_t n = net_readv(p.c, &iov, 1);

        CHECK(n > 0);
        for (size_t i = 0; i < (size_t)n; i++)
            CHECK(buf[i] == (uint8_t)((done + i) * 7 >> 3));
        done += (size_t)n;
    }
    CHECK(co_group_join(&g) == 0);
    net_close(p.c);
    return 0;
}

static void order_is_kept_beyond_the_window(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed < 4; seed++) {
        struct rig r = rig_new(seed, body_pump);

        assert_int_equal(rig_run(&r), 0);
    }
}

static int body_window(struct rig *r)
{
    struct net_conn *c;
    char *big = mem_alloc(3u << 20);
    struct iovec iov = {big, 3u << 20};

    CHECK(net_connect(r->addr, &c) == 0);
    (void)co_deadline_push(co_now() + MSEC(500));
    CHECK(net_writev_full(c, &iov, 1) == ERR_TIMEOUT); /* nobody reads */
    net_close(c);
    mem_free(big);
    return 0;
}

static void writer_waits_for_the_window(void **state)
{
    struct rig r = rig_new(2, body_window);

    (void)state;
    r.mute = true;
    assert_int_equal(rig_run(&r), 0);
}

static int write_much(void *arg)
{
    char *big = mem_alloc(3u << 20);
    struct iovec iov = {big, 3u << 20};
    int rc = net_writev_full(arg, &iov, 1);

    mem_free(big);
    return rc;
}

static int body_unread(struct rig *r)
{
    struct net_listener *l;
    struct net_conn *c, *d;
    struct co_group writer;

    (void)r;
    CHECK(net_listen("127.1.0.2:0", &l) == 0);
    CHECK(net_connect(net_listener_addr(l), &c) == 0 && net_accept(l, &d) == 0);
    co_group_init(&writer);
    co_spawn(&writer, "writer", write_much, d);
    CHECK(co_sleep(MSEC(500)) == 0);
    net_close(c); /* there is much that it has not read */
    CHECK(co_group_join(&writer) == ERR_CLOSED);
    net_close(d);
    net_listener_close(l);
    return 0;
}

/* Whoever waits for room in the window must not wait for ever. */
static void closing_what_was_not_read_resets(void **state)
{
    struct rig r = rig_new(4, body_unread);

    (void)state;
    assert_int_equal(rig_run(&r), 0);
}

static int body_ends(struct rig *r)
{
    struct net_conn *c, *d;
    char buf[10];

    CHECK(net_connect(r->addr, &c) == 0);
    send_text(c, "bye");
    net_shutdown(c);
    net_shutdown(c);
    CHECK(net_read_full(c, buf, 3) == ERR_CLOSED);
    net_close(c);
    CHECK(net_connect("127.1.0.1:9999", &d) == ERR_UNREACHABLE);
    CHECK(strstr(err_text(ERR_UNREACHABLE), "refused"));
    CHECK(net_connect("somewhere:1", &d) == ERR_INVAL);
    CHECK(net_connect("127.1.0.1", &d) == ERR_INVAL);
    CHECK(net_connect("unix:/run/none", &d) == ERR_UNREACHABLE);
    return 0;
}

static void closed_things_say_so(void **state)
{
    struct rig r = rig_new(3, body_ends);

    (void)state;
    assert_int_equal(rig_run(&r), 0);
}

static int body_local(struct rig *r)
{
    struct net_listener *a, *b, *u;
    struct net_conn *c, *d;

    (void)r;
    CHECK(net_listen("127.1.0.2:0", &a) == 0 && net_listen("127.0.0.1:0", &b) == 0);
    CHECK(strcmp(net_listener_addr(a), net_listener_addr(b)) != 0);
    CHECK(net_listen("unix:/run/x", &u) == 0);
    net_listener_close(b);
    CHECK(net_listen("unix:/run/x", &b) == ERR_BUSY);
    CHECK(net_listen("127.1.0.1:5", &b) == ERR_INVAL); /* another host's */
    CHECK(net_listen(net_listener_addr(a), &b) == ERR_BUSY);
    CHECK(net_connect("unix:/run/x", &c) == 0 && net_accept(u, &d) == 0);
    send_text(c, "abc");
    net_close(c); /* after all data */
    {
        char buf[4];

        CHECK(net_read_full(d, buf, 3) == 0 && memcmp(buf, "abc", 3) == 0);
        CHECK(net_read_full(d, buf, 1) == ERR_CLOSED);
        CHECK(strstr(err_text(ERR_CLOSED), "end of stream"));
    }
    net_close(d);
    net_listener_close(u);
    net_listener_close(a);
    return 0;
}

static void addresses_belong_to_hosts(void **state)
{
    struct rig r = rig_new(4, body_local);

    (void)state;
    assert_int_equal(rig_run(&r), 0);
}

static int acceptor(void *arg)
{
    struct net_conn *c;

    return net_accept(arg, &c);
}

static int body_close_listener(struct rig *r)
{
    struct net_listener *l;
    struct co_group g;
    struct co *co;

    (void)r;
    CHECK(net_listen("127.1.0.2:0", &l) == 0);
    co_group_init(&g);
    co_spawn(&g, "accept", acceptor, l);
    co = co_spawn(&g, "accept", acceptor, l);
    CHECK(co_sleep(MSEC(1)) == 0);
    co_cancel(co);
    CHECK(co_sleep(MSEC(1)) == 0);
    net_listener_close(l);
    return co_group_join(&g) == ERR_CANCELED ? 0 : ERR_INVAL;
}

static void closing_a_listener_ends_accept(void **state)
{
    struct rig r = rig_new(5, body_close_listener);

    (void)state;
    assert_int_equal(rig_run(&r), 0);
}

/* ---- faults ---- */

static int body_crash(struct rig *r)
{
    struct net_conn *c;
    char buf[1];

    CHECK(net_connect(r->addr, &c) == 0);
    CHECK(ping(c, "x") == 0);
    r->ready = true;
    CHECK(net_read_full(c, buf, 1) == ERR_CLOSED);
    net_close(c);
    CHECK(net_connect(r->addr, &c) == ERR_UNREACHABLE);
    return 0;
}

static bool is_ready(void *arg)
{
    return ((struct rig *)arg)->ready;
}

static void crash_resets_connections(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed < 9; seed++) {
        struct rig r = rig_new(seed, body_crash);

        sim_proc_start(r.server, server_main, &r);
        sim_run_for(r.s, MSEC(1));
        sim_proc_start(r.client, client_main, &r);
        assert_true(sim_run_until(r.s, is_ready, &r, SEC(1)));
        if (seed % 2)
            sim_proc_crash(r.server);
        else
            sim_proc_power_loss(r.server); /* may leave silence: keepalive finds it */
        assert_true(sim_run_until(r.s, proc_is_over, r.client, seed % 2 ? MSEC(10) : SEC(11)));
        assert_int_equal(sim_proc_result(r.client), 0);
        sim_free(r.s);
    }
}

static int body_stall(struct rig *r)
{
    struct net_conn *c;
    nsec_t start;

    CHECK(net_connect(r->addr, &c) == 0);
    CHECK(ping(c, "one") == 0);
    start = co_now();
    sim_net_cut(r->s, HOST_B, HOST_A); /* shorter than rst_after: only late */
    send_text(c, "two");
    CHECK(co_sleep(MSEC(1500)) == 0);
    sim_net_heal(r->s, HOST_B, HOST_A);
    CHECK(ping(c, "") == 0);
    {
        char buf[3];

        CHECK(net_read_full(c, buf, 3) == 0 && memcmp(buf, "two", 3) == 0);
    }
    CHECK(co_now() - start >= MSEC(1500));
    sim_net_cut(r->s, "*", HOST_B); /* no answers: breaks */
    start = co_now();
    CHECK(ping(c, "three") == ERR_CLOSED);
    CHECK(co_now() - start >= SEC(2) && co_now() - start < SEC(3));
    net_close(c);
    start = co_now();
    CHECK(net_connect(r->addr, &c) == ERR_UNREACHABLE);
    CHECK(co_now() - start >= SEC(3));
    (void)co_deadline_push(co_now() + MSEC(100));
    CHECK(net_connect(r->addr, &c) == ERR_TIMEOUT);
    sim_net_heal_all(r->s);
    return 0;
}

static void partitions_stall_then_break(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed < 6; seed++) {
        struct rig r = rig_new(seed, body_stall);

        assert_int_equal(rig_run(&r), 0);
    }
}

/* The last rule about a path counts. */
static int body_rules(struct rig *r)
{
    struct net_conn *c;

    sim_net_cut(r->s, HOST_A, "*");
    (void)co_deadline_push(co_now() + SEC(1));
    CHECK(net_connect(r->addr, &c) == ERR_TIMEOUT);
    co_deadline_restore(NSEC_NEVER);
    sim_net_heal(r->s, HOST_A, HOST_B);
    CHECK(net_connect(r->addr, &c) == 0);
    net_close(c);
    sim_net_cut(r->s, HOST_B, HOST_B); /* a host always reaches itself */
    {
        struct net_listener *l;

        CHECK(net_listen("127.1.0.2:7", &l) == 0 && net_connect("127.1.0.2:7", &c) == 0);
        net_close(c);
        net_listener_close(l);
    }
    return 0;
}

static void last_rule_counts(void **state)
{
    struct rig r = rig_new(6, body_rules);

    (void)state;
    assert_int_equal(rig_run(&r), 0);
}

static int body_pause(struct rig *r)
{
    struct net_conn *c;
    nsec_t start = co_now();

    CHECK(net_connect(r->addr, &c) == 0); /* the kernel accepts */
    CHECK(ping(c, "late") == 0);
    CHECK(co_now() - start > MSEC(900));
    net_close(c);
    return 0;
}

static void paused_peer_is_only_late(void **state)
{
    struct rig r = rig_new(7, body_pause);

    (void)state;
    sim_proc_start(r.server, server_main, &r);
    sim_run_for(r.s, MSEC(10));
    sim_proc_pause(r.server);
    sim_proc_start(r.client, client_main, &r);
    sim_run_for(r.s, SEC(1));
    assert_true(sim_proc_running(r.client));
    sim_proc_resume(r.server);
    assert_true(sim_run_until(r.s, proc_is_over, r.client, SEC(1)));
    assert_int_equal(sim_proc_result(r.client), 0);
    sim_free(r.s);
}

static int body_storm(struct rig *r)
{
    int broken = 0;

    for (int i = 0; i < 60; i++) {
        struct net_conn *c;

        if (net_connect(r->addr, &c) < 0) {
            broken++;
            continue;
        }
        for (int n = 0; n < 20; n++) {
            if (ping(c, "storm") < 0) {
                broken++;
                break;
            }
        }
        net_close(c);
    }
    return broken;
}

static void resets_and_spikes_happen(void **state)
{
    struct sim_conf conf = {.seed = 11, .net_reset_ppm = 20000, .net_spike_ppm = 10000};
    uint64_t hash[2];
    int broken[2];

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct rig r = {.s = sim_new(&conf), .body = body_storm, .addr = ADDR};

        r.server = sim_proc_new(r.s, HOST_A, "server");
        r.client = sim_proc_new(r.s, HOST_B, "client");
        sim_proc_start(r.server, server_main, &r);
        sim_run_for(r.s, MSEC(10));
        broken[i] = proc_run(r.s, r.client, client_main, &r);
        sim_proc_stop(r.server);
        assert_int_equal(sim_proc_result(r.server), ERR_CANCELED);
        hash[i] = sim_trace_hash(r.s);
        sim_free(r.s);
    }
    assert_true(broken[0] > 3 && broken[0] == broken[1]);
    assert_true(hash[0] == hash[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_come_back),
        cmocka_unit_test(order_is_kept_beyond_the_window),
        cmocka_unit_test(writer_waits_for_the_window),
        cmocka_unit_test(closing_what_was_not_read_resets),
        cmocka_unit_test(closed_things_say_so),
        cmocka_unit_test(addresses_belong_to_hosts),
        cmocka_unit_test(closing_a_listener_ends_accept),
        cmocka_unit_test(crash_resets_connections),
        cmocka_unit_test(partitions_stall_then_break),
        cmocka_unit_test(last_rule_counts),
        cmocka_unit_test(paused_peer_is_only_late),
        cmocka_unit_test(resets_and_spikes_happen),
    };

    return cmocka_run_group_tests_name("sim_net", tests, NULL, NULL);
}
