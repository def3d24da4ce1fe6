/* SPDX-License-Identifier: Apache-2.0
 *
 * The real environment: streams and datagrams. The bodies run as coroutines, where cmocka's jumps
 * must not go, so they ASSERT. */
#include <sys/socket.h>
#include <sys/un.h>
#include "common/base/mem.h"
#include "common/co/sync.h"
#include "tests/lib/nouring.h"
#include "tests/unit/common/env_rig.h"

#define MESSAGES 10000

static int dir_remove(void **state)
{
    (void)state;
    unlink(path_in_dir("sock"));
    return rmdir(dir);
}

struct echo {
    struct net_listener *listener;
    char addr[NET_ADDR_MAX];
};

static int echo_conn(void *arg)
{
    struct net_conn *c = arg;
    uint8_t data[3000];
    int rc = 0;

    while (rc == 0) {
        struct iovec iov = {.iov_base = data, .iov_len = sizeof(data)};
        ssize_t n = net_readv(c, &iov, 1);

        iov.iov_len = n > 0 ? (size_t)n : 0;
        rc = n < 0 ? (int)n : net_writev_full(c, &iov, 1);
    }
    net_close(c);
    return rc == ERR_CLOSED ? 0 : rc;
}

static int echo_serve(void *arg)
{
    struct echo *e = arg;
    struct co_group g;
    struct net_conn *c;
    int rc;

    co_group_init(&g);
    while ((rc = net_accept(e->listener, &c)) == 0)
        (void)co_spawn(&g, "echo", echo_conn, c);
    (void)co_group_close(&g);
    return rc == ERR_CLOSED ? 0 : rc;
}

static int sender(void *arg)
{
    struct net_conn *c = arg;
    int rc = 0;

    for (uint32_t i = 0; i < MESSAGES && rc == 0; i++) {
        uint32_t head[2] = {i, i * 2654435761u};
        uint8_t body[200];
        struct iovec iov[2] = {{head, sizeof(head)}, {body, sizeof(body)}};

        memset(body, (int)i, sizeof(body));
        rc = net_writev_full(c, iov, 2);
    }
    return rc;
}

static void echo_check(const char *addr)
{
    struct net_conn *c;
    struct co_group g;
    uint8_t msg[208];
    uint32_t head[2];

    ASSERT(net_connect(addr, &c) == 0);
    co_group_init(&g);
    (void)co_spawn(&g, "sender", sender, c);
    for (uint32_t i = 0; i < MESSAGES; i++) {
        ASSERT(net_read_full(c, msg, sizeof(msg)) == 0);
        memcpy(head, msg, sizeof(head));
        ASSERT(head[0] == i && head[1] == i * 2654435761u);
        ASSERT(msg[8] == (uint8_t)i && msg[207] == (uint8_t)i);
    }
    ASSERT(co_group_join(&g) == 0);
    ASSERT(!net_readable(c));
    net_close(c);
}

static int body_echo(void *arg)
{
    struct echo e;
    struct co_group g;

    ASSERT(net_listen(arg, &e.listener) == 0);
    strcpy(e.addr, net_listener_addr(e.listener));
    co_group_init(&g);
    (void)co_spawn(&g, "serve", echo_serve, &e);
    echo_check(e.addr);
    net_listener_close(e.listener);
    return co_group_join(&g);
}

static void echo_over_tcp(void **state)
{
    struct env_real_conf conf = {.name = "test"};
    char v4[] = "127.0.0.1:0", v6[] = "[::1]:0";

    (void)state;
    assert_int_equal(run_conf(&conf, body_echo, v4), 0);
    if (access("/proc/net/if_inet6", R_OK) == 0)
        assert_int_equal(run_conf(&conf, body_echo, v6), 0);
}

static void echo_over_unix(void **state)
{
    struct env_real_conf conf = {.name = "test", .spin_us = 50};
    char addr[NET_ADDR_MAX];

    (void)state;
    snprintf(addr, sizeof(addr), "unix:%s", path_in_dir("sock"));
    assert_int_equal(run_conf(&conf, body_echo, addr), 0);
    assert_int_equal(access(path_in_dir("sock"), F_OK), -1);
}

#define CROWD 100

static int byte_read(void *arg)
{
    uint8_t byte;

    return net_read_full(arg, &byte, 1);
}

/* Many connections have something to say at once, again and again, most of them with nobody
 * waiting; some go with things unsaid. */
static int body_many_at_once(void *arg)
{
    struct iovec iov = {.iov_base = (char[]){7}, .iov_len = 1};
    struct net_conn *a[CROWD], *b[CROWD];
    struct net_listener *l;
    struct co_group g;

    (void)arg;
    co_group_init(&g);
    ASSERT(net_listen("127.0.0.1:0", &l) == 0);
    for (int i = 0; i < CROWD; i++)
        ASSERT(net_connect(net_listener_addr(l), &a[i]) == 0 && net_accept(l, &b[i]) == 0);
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < CROWD; i++) {
            if (round % 2 == 0)
                (void)co_spawn(&g, "reader", byte_read, b[i]);
        }
        ASSERT(co_sleep(NSEC_PER_MSEC) == 0);
        for (int i = 0; i < CROWD; i++)
            ASSERT(net_writev_full(a[i], &iov, 1) == 0);
        for (int i = 0; i < CROWD; i++) {
            if (round % 2 != 0)
                ASSERT(byte_read(b[i]) == 0);
        }
        ASSERT(co_group_join(&g) == 0);
    }
    for (int i = 0; i < CROWD; i++) {
        ASSERT(net_writev_full(a[i], &iov, 1) == 0);
        net_close(b[i]);
        ASSERT(byte_read(a[i]) == ERR_CLOSED);
        net_close(a[i]);
    }
    net_listener_close(l);
    return 0;
}

static void more_events_than_the_ring_holds(void **state)
{
    struct env_real_conf conf = {.name = "test", .ring_entries = 2};

    (void)state;
    assert_int_equal(run_conf(&conf, body_many_at_once, NULL), 0);
}

static int reader(void *arg)
{
    struct iovec iov;
    uint8_t byte;
    ssize_t n;

    iov.iov_base = &byte;
    iov.iov_len = 1;
    n = net_readv(arg, &iov, 1);
    return (int)n;
}

static int body_net_errors(void *arg)
{
    struct net_listener *l;
    struct net_conn *c, *peer;
    struct co_group g;
    nsec_t former;
    char addr[NET_ADDR_MAX], byte = 1;

    (void)arg;
    ASSERT(net_listen("127.0.0.1:0", &l) == 0);
    strcpy(addr, net_listener_addr(l));
    ASSERT(strcmp(addr, "127.0.0.1:0") != 0);
    ASSERT(net_connect(addr, &c) == 0);
    ASSERT(net_accept(l, &peer) == 0);
    ASSERT(strcmp(net_peer(c), addr) == 0 && strcmp(net_peer(peer), net_local(c)) == 0);
    former = co_deadline_push(co_now() + NSEC_PER_MSEC);
    ASSERT(reader(c) == ERR_TIMEOUT);
    co_deadline_restore(former);
    co_group_init(&g);
    (void)co_spawn(&g, "reader", reader, c);
    ASSERT(co_yield () == 0);
    net_shutdown(c);
    ASSERT(co_group_join(&g) == ERR_CLOSED);
    ASSERT(net_read_full(peer, &byte, 1) == ERR_CLOSED);
    (void)co_spawn(&g, "reader", reader, peer);
    ASSERT(co_group_join(&g) == ERR_CLOSED);
    net_close(c);
    net_close(peer);
    net_listener_close(l);
    ASSERT(net_connect(addr, &c) == ERR_UNREACHABLE);
    ASSERT(net_connect("localhost:1", &c) == ERR_INVAL);
    ASSERT(net_listen("127.0.0.1:99999", &l) == ERR_INVAL);
    return 0;
}

static void network_errors(void **state)
{
    (void)state;
    assert_int_equal(run(body_net_errors), 0);
}

/* ---- an end right behind the last bytes ---- */

static int reads_to_the_end(void *arg)
{
    nsec_t former = co_deadline_push(co_now() + NSEC_PER_SEC);
    char buf[100];
    struct iovec iov = {buf, sizeof(buf)};
    ssize_t n;

    do
        n = net_readv(arg, &iov, 1);
    while (n > 0);
    co_deadline_restore(former);
    return (int)n;
}

static int body_last_bytes(void *arg)
{
    struct net_listener *l;
    struct net_conn *c, *peer;
    struct co_group g;

    ASSERT(net_listen(arg, &l) == 0);
    for (int i = 0; i < 20; i++) {
        char last[] = "last";
        struct iovec iov = {last, 4};

        ASSERT(net_connect(net_listener_addr(l), &c) == 0 && net_accept(l, &peer) == 0);
        co_group_init(&g);
        (void)co_spawn(&g, "reader", reads_to_the_end, peer);
        ASSERT(co_sleep(NSEC_PER_MSEC) == 0); /* it waits, and the kernel knows */
        ASSERT(net_writev_full(c, &iov, 1) == 0);
        net_close(c);
        ASSERT(co_group_join(&g) == ERR_CLOSED);
        net_close(peer);
    }
    net_listener_close(l);
    return 0;
}

static void an_end_is_noticed_behind_the_last_bytes(void **state)
{
    struct env_real_conf conf = {.name = "test"};
    char tcp[] = "127.0.0.1:0";

    (void)state;
    assert_int_equal(run_conf(&conf, body_last_bytes, tcp), 0);
}

/* ---- datagrams ---- */

static co_fn void dgram_echo(struct net_dgram *a, struct net_dgram *b, const char *peer)
{
    struct net_way way = {.local = ""}, back;
    char buf[100];

    strcpy(way.peer, peer);
    ASSERT(net_dgram_send(a, "question", 8, &way) == 0);
    ASSERT(net_dgram_recv(b, buf, sizeof(buf), &back) == 8 && memcmp(buf, "question", 8) == 0);
    ASSERT(strcmp(back.local, peer) == 0); /* where it was sent to, although b hears all */
    ASSERT(net_dgram_send(b, "answer", 6, &back) == 0);
    ASSERT(net_dgram_recv(a, buf, 3, &way) == 3 && memcmp(buf, "ans", 3) == 0);
    ASSERT(strcmp(way.peer, peer) == 0);
}

static int dgram_recv_one(void *arg)
{
    struct net_way way;
    char byte;
    ssize_t n = net_dgram_recv(arg, &byte, 1, &way);

    return n == 1 ? 0 : (int)n;
}

static int body_dgrams(void *arg)
{
    const char *host = arg, *any = host[0] == '[' ? "[::]:0" : "0.0.0.0:0";
    char addr[NET_ADDR_MAX], peer[NET_ADDR_MAX];
    struct net_dgram *a, *b, *c;
    struct net_way way = {.local = ""};
    struct co_group g;
    nsec_t former;

    snprintf(addr, sizeof(addr), "%s:0", host);
    ASSERT(net_dgram_open(addr, &a) == 0 && net_dgram_open(any, &b) == 0);
    snprintf(peer, sizeof(peer), "%s%s", host, strrchr(net_dgram_addr(b), ':'));
    ASSERT(net_dgram_open(peer, &c) == ERR_BUSY);
    ASSERT(net_dgram_open("unix:/tmp/x", &c) == ERR_INVAL);
    for (int i = 0; i < 200; i++)
        dgram_echo(a, b, peer);
    former = co_deadline_push(co_now() + NSEC_PER_MSEC);
    ASSERT(dgram_recv_one(a) == ERR_TIMEOUT);
    co_deadline_restore(former);
    co_group_init(&g);
    (void)co_spawn(&g, "receiver", dgram_recv_one, a);
    ASSERT(co_yield () == 0);
    strcpy(way.peer, net_dgram_addr(a));
    ASSERT(net_dgram_send(b, "x", 1, &way) == 0 && co_group_join(&g) == 0);
    net_dgram_close(b);
    strcpy(way.peer, peer); /* nobody is there, and nobody says so */
    ASSERT(net_dgram_send(a, "x", 1, &way) == 0);
    former = co_deadline_push(co_now() + 5 * NSEC_PER_MSEC);
    ASSERT(dgram_recv_one(a) == ERR_TIMEOUT);
    co_deadline_restore(former);
    net_dgram_close(a);
    return 0;
}

static void datagrams(void **state)
{
    struct env_real_conf conf = {.name = "test"};
    char v4[] = "127.0.0.2", v6[] = "[::1]";

    (void)state;
    assert_int_equal(run_conf(&conf, body_dgrams, v4), 0);
    assert_int_equal(run_conf(&conf, body_dgrams, v6), 0);
}

static int body_connect_from(void *arg)
{
    struct net_listener *l;
    struct net_conn *c, *peer;

    (void)arg;
    ASSERT(net_listen("127.0.0.1:0", &l) == 0);
    ASSERT(net_connect_from("127.0.0.9:1", net_listener_addr(l), &c) == 0);
    ASSERT(net_accept(l, &peer) == 0);
    ASSERT(strncmp(net_peer(peer), "127.0.0.9:", 10) == 0 &&
           strcmp(net_peer(peer), net_local(c)) == 0);
    net_close(c);
    net_close(peer);
    ASSERT(net_connect_from("unix:/tmp/x", net_listener_addr(l), &c) == ERR_INVAL);
    ASSERT(net_connect_from("192.0.2.1:0", net_listener_addr(l), &c) < 0); /* not ours */
    net_listener_close(l);
    return 0;
}

static void the_own_address_is_chosen(void **state)
{
    (void)state;
    assert_int_equal(run(body_connect_from), 0);
}

static int body_stale_unix(void *arg)
{
    struct net_listener *l, *second;
    struct net_conn *c;

    ASSERT(net_listen(arg, &l) == 0);
    ASSERT(net_listen(arg, &second) == ERR_BUSY);
    ASSERT(net_connect(arg, &c) == 0);
    net_close(c);
    net_listener_close(l);
    return 0;
}

/* A socket file that a killed process left is replaced; one that is served is not. */
static void stale_unix_socket_is_replaced(void **state)
{
    struct env_real_conf conf = {.name = "test"};
    char addr[NET_ADDR_MAX];
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    (void)state;
    snprintf(addr, sizeof(addr), "unix:%s", path_in_dir("sock"));
    strcpy(un.sun_path, path_in_dir("sock"));
    assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
    close(fd);
    assert_int_equal(run_conf(&conf, body_stale_unix, addr), 0);
}

static int body_move(void *arg)
{
    struct co_loop *worker, *home;
    struct net_listener *l;
    struct net_conn *c, *peer;
    char byte = 0;

    (void)arg;
    ASSERT(net_listen("127.0.0.1:0", &l) == 0);
    ASSERT(net_connect(net_listener_addr(l), &c) == 0);
    ASSERT(net_accept(l, &peer) == 0);
    ASSERT(env_thread_start("worker", &worker) == 0);
    for (char round = 1; round < 50; round++) {
        struct iovec iov = {.iov_base = &round, .iov_len = 1};

        ASSERT(net_writev_full(c, &iov, 1) == 0);
        ASSERT(net_read_full(peer, &byte, 1) == 0 && byte == round);
        net_conn_move(peer, worker);
        home = co_enter(worker);
        iov.iov_base = &round;
        iov.iov_len = 1;
        ASSERT(net_writev_full(peer, &iov, 1) == 0);
        net_conn_move(peer, home);
        co_enter(home);
        ASSERT(net_read_full(c, &byte, 1) == 0 && byte == round);
    }
    net_close(peer);
    net_close(c);
    net_listener_close(l);
    env_thread_stop(worker);
    return 0;
}

static void connections_move_between_loops(void **state)
{
    (void)state;
    assert_int_equal(run(body_move), 0);
}

/* ---- the last: there is no way back ---- */

static void all_works_without_io_uring(void **state)
{
    nouring();
    echo_over_tcp(state);
    echo_over_unix(state);
    network_errors(state);
    datagrams(state);
    an_end_is_noticed_behind_the_last_bytes(state);
    connections_move_between_loops(state);
    assert_int_equal(run(body_many_at_once), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(echo_over_tcp),
        cmocka_unit_test(echo_over_unix),
        cmocka_unit_test(more_events_than_the_ring_holds),
        cmocka_unit_test(network_errors),
        cmocka_unit_test(an_end_is_noticed_behind_the_last_bytes),
        cmocka_unit_test(datagrams),
        cmocka_unit_test(the_own_address_is_chosen),
        cmocka_unit_test(stale_unix_socket_is_replaced),
        cmocka_unit_test(connections_move_between_loops),
        cmocka_unit_test(all_works_without_io_uring),
    };

    return cmocka_run_group_tests(tests, dir_make, dir_remove);
}
