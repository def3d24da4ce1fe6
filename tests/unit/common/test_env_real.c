/* SPDX-License-Identifier: Apache-2.0
 *
 * The real environment: loops, timers, threads, the pool, sockets, disks on temporary files.
 * The bodies run as coroutines, where cmocka's jumps must not go, so they ASSERT. */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>
#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/co/sync.h"
#include "common/env/env.h"
#include "common/env/env_real.h"
#include "tests/lib/nouring.h"

#define PAGE     4096u
#define DISK_LEN (8u * 1024 * 1024)
#define MESSAGES 10000

static char dir[64];

static const char *path_in_dir(const char *name)
{
    static char path[128];

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    return path;
}

static int group_setup(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/zbs-env-XXXXXX");
    return mkdtemp(dir) != NULL ? 0 : -1;
}

static int group_teardown(void **state)
{
    static const char *const names[] = {"disk", "lock", "small", "sock", "probe"};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        unlink(path_in_dir(names[i]));
    return rmdir(dir);
}

static int run_conf(const struct env_real_conf *conf, int (*fn)(void *arg), void *arg)
{
    return env_real_run(conf, fn, arg);
}

static int run(int (*fn)(void *arg))
{
    struct env_real_conf conf = {.name = "test"};

    return run_conf(&conf, fn, NULL);
}

/* ---- loop, timers, randomness ---- */

static int body_result(void *arg)
{
    (void)arg;
    return err_set(ERR_STALE, "as wanted");
}

static void result_of_main_is_returned(void **state)
{
    (void)state;
    assert_int_equal(run(body_result), ERR_STALE);
}

static int sleeper_order[3], sleepers_done;

static int sleeper(void *arg)
{
    int n = (int)(intptr_t)arg, rc;

    rc = co_sleep(n * 3 * NSEC_PER_MSEC);
    if (rc == 0)
        sleeper_order[sleepers_done++] = n;
    return rc;
}

static int body_timers(void *arg)
{
    struct co_group g;
    nsec_t start = co_now(), former;

    (void)arg;
    sleepers_done = 0;
    co_group_init(&g);
    for (intptr_t n = 3; n >= 1; n--)
        (void)co_spawn(&g, "sleeper", sleeper, (void *)n);
    ASSERT(co_group_join(&g) == 0);
    ASSERT(sleeper_order[0] == 1 && sleeper_order[1] == 2 && sleeper_order[2] == 3);
    ASSERT(co_now() - start >= 9 * NSEC_PER_MSEC);
    former = co_deadline_push(co_now() + NSEC_PER_MSEC);
    ASSERT(co_sleep(60 * NSEC_PER_SEC) == ERR_TIMEOUT);
    co_deadline_restore(former);
    (void)co_spawn(&g, "sleeper", sleeper, (void *)(intptr_t)1000000);
    ASSERT(co_yield () == 0);
    ASSERT(co_group_close(&g) == 0);
    ASSERT(env_random() != env_random());
    ASSERT(env_wall_ns() > 0);
    return 0;
}

static void timers_fire_in_order_and_deadlines_end_waits(void **state)
{
    (void)state;
    assert_int_equal(run(body_timers), 0);
}

static int body_signal(void *arg)
{
    (void)arg;
    ASSERT(kill(getpid(), SIGTERM) == 0);
    return co_sleep(60 * NSEC_PER_SEC);
}

static void sigterm_cancels_main(void **state)
{
    struct env_real_conf conf = {.name = "test", .handle_signals = true};

    (void)state;
    assert_int_equal(run_conf(&conf, body_signal, NULL), ERR_CANCELED);
}

/* ---- threads and pool ---- */

static int body_threads(void *arg)
{
    struct co_loop *threads[3], *home, *self = co_loop();
    uint64_t drawn;
    int visits = 0;

    (void)arg;
    for (int i = 0; i < 3; i++)
        ASSERT(env_thread_start("worker", &threads[i]) == 0);
    for (int round = 0; round < 200; round++) {
        for (int i = 0; i < 3; i++) {
            home = co_enter(threads[i]);
            ASSERT(home == self && co_loop() == threads[i]);
            if (round % 50 == 0)
                ASSERT(co_sleep(NSEC_PER_MSEC) == 0);
            visits++;
            ASSERT(co_enter(home) == threads[i]);
        }
        home = co_enter(env_pool());
        drawn = env_random();
        co_enter(home);
        ASSERT(drawn != env_random()); /* 64 bits: equal once in the age of the world */
    }
    ASSERT(visits == 600);
    for (int i = 0; i < 3; i++)
        env_thread_stop(threads[i]);
    return 0;
}

static void coroutines_move_between_threads(void **state)
{
    struct env_real_conf conf = {.name = "test", .pool_threads = 3, .spin_us = 20};

    (void)state;
    assert_int_equal(run_conf(&conf, body_threads, NULL), 0);
}

/* ---- small files, locks ---- */

static int body_files(void *arg)
{
    char path[128], *text;
    size_t len;
    int rc;

    (void)arg;
    strcpy(path, path_in_dir("small"));
    ASSERT(env_file_read(path, &text, &len) == ERR_NOTFOUND);
    rc = env_file_write(path, "first", 5);
    ASSERTF(rc == 0, "%s", err_text(rc));
    ASSERT(env_file_write(path, "second\n", 7) == 0);
    ASSERT(env_file_read(path, &text, &len) == 0);
    ASSERT(len == 7 && strcmp(text, "second\n") == 0);
    mem_free(text);
    ASSERT(env_file_read(dir, &text, &len) == ERR_INVAL);
    strcpy(path, path_in_dir("lock"));
    ASSERT(env_lock_file(path) == 0);
    ASSERT(env_lock_file(path) == ERR_BUSY);
    ASSERT(strstr(err_text(ERR_BUSY), "lock") != NULL);
    return 0;
}

static void files_are_replaced_and_locks_exclude(void **state)
{
    (void)state;
    assert_int_equal(run(body_files), 0);
    unlink(path_in_dir("small"));
    assert_int_equal(run(body_files), 0); /* the lock went with the environment */
}

/* ---- sockets ---- */

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

/* ---- disks ---- */

static void file_create(const char *name, size_t len)
{
    int fd = open(path_in_dir(name), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)len), 0);
    close(fd);
}

#define DEPTH 600 /* more than the ring has entries */

static void disk_many(struct disk *d)
{
    struct disk_req *reqs = MEM_NEW_ARRAY(struct disk_req, DEPTH);
    struct iovec *iovs = MEM_NEW_ARRAY(struct iovec, DEPTH);
    uint8_t *data = mem_alloc_aligned(PAGE, (size_t)DEPTH * PAGE);

    for (int pass = 0; pass < 2; pass++) {
        for (uint32_t i = 0; i < DEPTH; i++) {
            memset(data + (size_t)i * PAGE, pass == 0 ? (int)i % 251 : 255, PAGE);
            iovs[i].iov_base = data + (size_t)i * PAGE;
            iovs[i].iov_len = PAGE;
            reqs[i] = (struct disk_req){.op = pass == 0 ? DISK_WRITE : DISK_READ,
                                        .durable = i % 3 == 0,
                                        .disk = d,
                                        .off = (uint64_t)i * PAGE,
                                        .iov = &iovs[i],
                                        .iov_count = 1};
            disk_submit(&reqs[i]);
        }
        for (uint32_t i = 0; i < DEPTH; i++) {
            ASSERT(disk_wait(&reqs[i]) == 0);
            ASSERT(reqs[i].latency_ns > 0);
        }
    }
    for (uint32_t i = 0; i < DEPTH; i++)
        ASSERT(data[(size_t)i * PAGE] == i % 251 && data[(size_t)i * PAGE + 4095] == i % 251);
    mem_free(data);
    mem_free(iovs);
    mem_free(reqs);
}

/* The smallest write changes nothing beside it. */
static void disk_sector(struct disk *d)
{
    uint32_t n = disk_info(d)->block_bytes;
    char *page = mem_alloc_aligned(4096, 8192);

    ASSERT(n >= 512 && n <= 4096 && disk_info(d)->physical_bytes >= n);
    memset(page, 'a', 8192);
    ASSERT(disk_write(d, page, 8192, 0, false) == 0);
    memset(page, 'b', n);
    ASSERT(disk_write(d, page, n, n, true) == 0);
    ASSERT(disk_read(d, page, 8192, 0) == 0);
    for (uint32_t i = 0; i < 8192; i++)
        ASSERT(page[i] == (i >= n && i < 2 * n ? 'b' : 'a'));
    mem_free(page);
}

static void disk_vectors(struct disk *d)
{
    uint8_t *data = mem_alloc_aligned(PAGE, 16 * PAGE), *back = mem_alloc_aligned(PAGE, 16 * PAGE);
    struct iovec iov[16];

    for (int i = 0; i < 16; i++) {
        memset(data + i * (int)PAGE, 'a' + i, PAGE);
        iov[i].iov_base = data + (15 - i) * (int)PAGE;
        iov[i].iov_len = PAGE;
    }
    ASSERT(disk_writev(d, iov, 16, 4u << 20, true) == 0);
    ASSERT(disk_flush(d) == 0);
    ASSERT(disk_read(d, back, 16 * PAGE, 4u << 20) == 0);
    for (int i = 0; i < 16; i++)
        ASSERT(back[i * (int)PAGE] == 'a' + 15 - i);
    if (disk_info(d)->discard) {
        ASSERT(disk_discard(d, 4u << 20, 16 * PAGE) == 0);
        ASSERT(disk_read(d, back, 16 * PAGE, 4u << 20) == 0);
    }
    mem_free(back);
    mem_free(data);
}

static int body_disk(void *arg)
{
    char path[128];
    struct disk *d, *second;
    struct co_loop *worker, *home;

    (void)arg;
    strcpy(path, path_in_dir("disk"));
    ASSERT(disk_open(path_in_dir("nothing"), 0, &d) == ERR_NOTFOUND);
    ASSERT(disk_open(dir, 0, &d) == ERR_INVAL);
    ASSERT(disk_open(path, DISK_EXCLUSIVE, &d) == 0);
    ASSERT(disk_info(d)->size_bytes == DISK_LEN && disk_info(d)->is_file);
    ASSERT(disk_open(path, DISK_EXCLUSIVE, &second) == ERR_BUSY);
    ASSERT(disk_probe(path) == ERR_EXISTS && strstr(err_text(ERR_EXISTS), "in use") != NULL);
    disk_many(d);
    disk_vectors(d);
    disk_sector(d);
    ASSERT(env_thread_start("worker", &worker) == 0);
    home = co_enter(worker);
    ASSERT(disk_open(path, 0, &second) == 0);
    disk_many(second);
    disk_close(second);
    co_enter(home);
    env_thread_stop(worker);
    disk_close(d);
    return 0;
}

static void disk_requests(void **state)
{
    struct env_real_conf conf = {.name = "test"}, small = {.name = "test", .ring_entries = 8};

    (void)state;
    file_create("disk", DISK_LEN);
    assert_int_equal(run_conf(&conf, body_disk, NULL), 0);
    small.spin_us = 50;
    assert_int_equal(run_conf(&small, body_disk, NULL), 0);
}

static int body_crowd(void *path)
{
    struct disk *d;

    ASSERT(disk_open(path, 0, &d) == 0);
    for (int round = 0; round < 40; round++)
        disk_many(d);
    disk_close(d);
    return 0;
}

/* A loop device takes 128 requests; the kernel comes back with the others before it tells of any
 * completion. Without root the file stands in. */
static void more_requests_than_the_device_takes(void **state)
{
    struct env_real_conf conf = {.name = "test"};
    char command[200], device[128] = "";
    FILE *losetup;

    (void)state;
    file_create("disk", DISK_LEN);
    snprintf(command, sizeof(command), "losetup --find --show --direct-io=on %s 2>/dev/null",
             path_in_dir("disk"));
    losetup = popen(command, "r");
    assert_non_null(losetup);
    if (fgets(device, sizeof(device), losetup) != NULL)
        device[strcspn(device, "\n")] = 0;
    pclose(losetup);
    alarm(60);
    if (device[0] == 0)
        strcpy(device, path_in_dir("disk"));
    snprintf(command, sizeof(command), "losetup -d %s", device);
    assert_int_equal(run_conf(&conf, body_crowd, device), 0);
    alarm(0);
    if (strncmp(device, "/dev/", 5) == 0)
        assert_int_equal(system(command), 0);
}

#ifdef ZBS_MUTATE
static int body_late(void *arg)
{
    uint8_t *page = mem_alloc_aligned(PAGE, PAGE);
    char path[128];
    struct disk *d;
    nsec_t begin;

    (void)arg;
    strcpy(path, path_in_dir("disk"));
    ASSERT(disk_open(path, 0, &d) == 0);
    begin = co_now();
    ASSERT(disk_read(d, page, PAGE, 0) == 0);
    ASSERT(co_now() - begin >= 30 * NSEC_PER_MSEC);
    disk_many(d); /* all of them at once, not one after the other */
    disk_close(d);
    mem_free(page);
    return 0;
}

static void artificial_latency(void **state)
{
    (void)state;
    file_create("disk", DISK_LEN);
    setenv("ZBS_DISK_DELAY_US", "30000", 1);
    assert_int_equal(run(body_late), 0);
    unsetenv("ZBS_DISK_DELAY_US");
}
#endif

static int body_fail(void *arg)
{
    char path[128];
    uint8_t *page = mem_alloc_aligned(PAGE, PAGE);
    struct disk *d;

    (void)arg;
    strcpy(path, path_in_dir("disk"));
    ASSERT(disk_open(path, DISK_READ_ONLY, &d) == 0);
    ASSERT(disk_write(d, page, PAGE, 0, true) == ERR_IO);
    ASSERT(truncate(path, 0) == 0);
    ASSERT(disk_read(d, page, PAGE, 0) == ERR_IO);
    disk_close(d);
    mem_free(page);
    return 0;
}

static void failing_requests_are_reported(void **state)
{
    (void)state;
    file_create("disk", DISK_LEN);
    assert_int_equal(run(body_fail), 0);
}

static void poke(const char *name, off_t off, const char *text)
{
    int fd = open(path_in_dir(name), O_WRONLY | O_CLOEXEC);

    ASSERT(fd >= 0 && pwrite(fd, text, strlen(text), off) == (ssize_t)strlen(text));
    close(fd);
}

static int body_probe(void *arg)
{
    char path[128];

    (void)arg;
    strcpy(path, path_in_dir("probe"));
    ASSERT(disk_probe(path) == 0);
    poke("probe", DISK_LEN - 1, "x");
    ASSERT(disk_probe(path) == ERR_EXISTS && strstr(err_text(ERR_EXISTS), "last MiB") != NULL);
    ASSERT(truncate(path, 0) == 0 && truncate(path, DISK_LEN) == 0);
    poke("probe", 4096 - 10, "SWAPSPACE2");
    poke("probe", 1024, "\1"); /* version */
    ASSERT(disk_probe(path) == ERR_EXISTS);
    ASSERT(truncate(path, 0) == 0 && truncate(path, DISK_LEN) == 0);
    poke("probe", 0, "XFSB");
    ASSERT(disk_probe(path) == ERR_EXISTS);
    return 0;
}

static void probe_names_what_it_finds(void **state)
{
    (void)state;
    file_create("probe", DISK_LEN);
    assert_int_equal(run(body_probe), 0);
}

/* ---- the last: there is no way back ---- */

static int body_no_disk(void *arg)
{
    struct disk *d;

    (void)arg;
    ASSERT(disk_open(path_in_dir("disk"), 0, &d) < 0);
    return 0;
}

static void all_but_disks_work_without_io_uring(void **state)
{
    nouring();
    file_create("disk", DISK_LEN);
    assert_int_equal(run(body_no_disk), 0);
    timers_fire_in_order_and_deadlines_end_waits(state);
    sigterm_cancels_main(state);
    coroutines_move_between_threads(state);
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
        cmocka_unit_test(result_of_main_is_returned),
        cmocka_unit_test(timers_fire_in_order_and_deadlines_end_waits),
        cmocka_unit_test(sigterm_cancels_main),
        cmocka_unit_test(coroutines_move_between_threads),
        cmocka_unit_test(files_are_replaced_and_locks_exclude),
        cmocka_unit_test(echo_over_tcp),
        cmocka_unit_test(echo_over_unix),
        cmocka_unit_test(more_events_than_the_ring_holds),
        cmocka_unit_test(network_errors),
        cmocka_unit_test(an_end_is_noticed_behind_the_last_bytes),
        cmocka_unit_test(datagrams),
        cmocka_unit_test(the_own_address_is_chosen),
        cmocka_unit_test(stale_unix_socket_is_replaced),
        cmocka_unit_test(connections_move_between_loops),
        cmocka_unit_test(disk_requests),
        cmocka_unit_test(more_requests_than_the_device_takes),
#ifdef ZBS_MUTATE
        cmocka_unit_test(artificial_latency),
#endif
        cmocka_unit_test(failing_requests_are_reported),
        cmocka_unit_test(probe_names_what_it_finds),
        cmocka_unit_test(all_but_disks_work_without_io_uring),
    };

    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
