/* SPDX-License-Identifier: Apache-2.0
 *
 * RPC against bare TCP. The bare side sends and receives the same number of bytes through
 * blocking sockets, a whole depth at a time: nothing that multiplexes can be cheaper. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>
#include "common/base/assert.h"
#include "common/env/env.h"
#include "common/env/env_real.h"
#include "common/rpc/frame.h"
#include "proto/rpctest.pb-c.h"
#include "tools/bench/bench_rpc.h"

#define DEPTH_MAX     32
#define PAGE_LEN      4096u
#define MESSAGE_BYTES 16 /* of the bare protocol, about what the test message takes */
#define CHECK_EVERY   64 /* calls between looks at the clock */

struct meter {
    double wall, cpu;
};

static struct meter meter_now(void)
{
    struct timespec ts;
    struct rusage ru;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    getrusage(RUSAGE_SELF, &ru);
    return (struct meter){
        .wall = (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9,
        .cpu = (double)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) +
               (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) * 1e-6,
    };
}

static struct bench_rpc_load load_of(struct meter start, uint64_t calls)
{
    struct meter end = meter_now();

    return (struct bench_rpc_load){
        .calls_per_s = (double)calls / (end.wall - start.wall),
        .cpu_us_per_call = (end.cpu - start.cpu) * 1e6 / (double)MAX(calls, 1u),
    };
}

/* ---- RPC ---- */

static int handle_sink(struct rpc_request *q)
{
    ((Zbs__Rpctest__SinkReply *)q->reply)->len = q->payload_len;
    return 0;
}

static const struct rpc_method bench_methods[] = {
    [1] = {.handler = handle_sink, .payload_max = PAGE_LEN},
    [5] = {.handler = NULL},
};

struct rpc_run {
    struct rpc_client *client;
    struct buf *payload; /* NULL: none */
    double until;
    uint64_t calls;
    int rc;
};

static int rpc_caller(void *arg)
{
    struct rpc_run *run = arg;
    Zbs__Rpctest__SinkRequest request = ZBS__RPCTEST__SINK_REQUEST__INIT;

    for (uint32_t n = 0; n % CHECK_EVERY != 0 || meter_now().wall < run->until; n++) {
        struct rpc_payload out;
        struct rpc_reply reply;
        int rc;

        out.count = out.len = 0;
        if (run->payload != NULL)
            rpc_payload_add(&out, run->payload, 0, PAGE_LEN);
        rpc_reply_init(&reply);
        rc = rpc_call(run->client, &zbs__rpctest__test__descriptor, 1, &request.base, &out, &reply);
        rpc_reply_free(&reply);
        if (rc < 0)
            return rc;
        run->calls++;
    }
    return 0;
}

static int rpc_load(const char *addr, uint32_t payload_len, uint32_t depth, double seconds,
                    struct bench_rpc_load *ret)
{
    struct rpc_client_conf conf = {.addr = addr, .self = "bench"};
    struct rpc_run run = {.client = rpc_client_new(&conf)};
    struct co_group g;
    struct meter start;
    int rc;

    if (payload_len > 0) {
        run.payload = buf_alloc(payload_len);
        memset(run.payload->data, 1, payload_len);
    }
    co_group_init(&g);
    rc = rpc_caller(&run); /* connects, warms up */
    run.calls = 0;
    start = meter_now();
    run.until = start.wall + seconds;
    for (uint32_t i = 0; i < depth && rc == 0; i++)
        co_spawn(&g, "bench", rpc_caller, &run);
    if (rc == 0)
        rc = co_group_join(&g);
    *ret = load_of(start, run.calls);
    buf_put(run.payload);
    rpc_client_close(run.client);
    return rc;
}

struct rpc_bench {
    double seconds;
    struct bench_rpc_result *ret;
};

static int rpc_loads(struct rpc_bench *b, const char *tcp, const char *addr_unix)
{
    struct bench_rpc_size *sizes[2] = {&b->ret->small, &b->ret->page};
    int rc = 0;

    for (int i = 0; i < 2 && rc == 0; i++) {
        uint32_t len = i == 0 ? 0 : PAGE_LEN;

        rc = rpc_load(tcp, len, 1, b->seconds, &sizes[i]->tcp_depth1);
        if (rc == 0)
            rc = rpc_load(tcp, len, DEPTH_MAX, b->seconds, &sizes[i]->tcp_depth32);
        if (rc == 0)
            rc = rpc_load(addr_unix, len, 1, b->seconds, &sizes[i]->unix_depth1);
        if (rc == 0)
            rc = rpc_load(addr_unix, len, DEPTH_MAX, b->seconds, &sizes[i]->unix_depth32);
    }
    return rc;
}

static int rpc_main(void *arg)
{
    struct rpc_service service[2] = {
        {.descriptor = &zbs__rpctest__test__descriptor, .methods = bench_methods}, {0}};
    const struct rpc_service *table[] = {service};
    struct rpc_server_conf conf = {.addr = "127.0.0.1:0",
                                   .self = "bench-server",
                                   .cluster_id = "",
                                   .incarnation = 1,
                                   .n_instances = 1,
                                   .services = table};
    char dir[] = "/tmp/zbs-bench-XXXXXX", addr_unix[80], path[64];
    struct rpc_server *server;
    struct co_loop *loop;
    int rc;

    if (mkdtemp(dir) == NULL)
        return err_from_errno(errno, "mkdtemp");
    snprintf(path, sizeof(path), "%s/rpc", dir);
    snprintf(addr_unix, sizeof(addr_unix), "unix:%s", path);
    conf.addr_unix = addr_unix;
    rc = env_thread_start("bench-server", &loop);
    if (rc == 0) {
        conf.instances = &loop;
        rc = rpc_server_start(&conf, &server);
        if (rc == 0) {
            rc = rpc_loads(arg, rpc_server_addr(server), addr_unix);
            rpc_server_stop(server);
        }
        env_thread_stop(loop);
    }
    unlink(path);
    rmdir(dir);
    return rc;
}

/* ---- bare TCP ---- */

struct bare {
    int fd;
    size_t request_bytes; /* of one request */
    uint32_t depth;
};

static bool fd_read_full(int fd, uint8_t *dst, size_t len)
{
    while (len > 0) {
        ssize_t n = read(fd, dst, len);

        if (n <= 0)
            return false;
        dst += n;
        len -= (size_t)n;
    }
    return true;
}

static bool fd_write_full(int fd, const uint8_t *src, size_t len)
{
    while (len > 0) {
        ssize_t n = send(fd, src, len, MSG_NOSIGNAL);

        if (n <= 0)
            return false;
        src += n;
        len -= (size_t)n;
    }
    return true;
}

/* Takes a whole depth of requests, answers them all. */
static void *bare_server(void *arg)
{
    struct bare *b = arg;
    size_t in = b->request_bytes * b->depth, out = (FRAME_HEADER_BYTES + MESSAGE_BYTES) * b->depth;
    uint8_t *buf = calloc(1, MAX(in, out));

    while (fd_read_full(b->fd, buf, in) && fd_write_full(b->fd, buf, out))
        ;
    close(b->fd);
    free(buf);
    return NULL;
}

/* A connected pair of TCP sockets over loopback. */
static int bare_pair(int fds[2])
{
    struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(sin);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

    fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    fds[1] = -1;
    if (listener >= 0 && fds[0] >= 0 && bind(listener, (struct sockaddr *)&sin, len) == 0 &&
        listen(listener, 1) == 0 && getsockname(listener, (struct sockaddr *)&sin, &len) == 0 &&
        connect(fds[0], (struct sockaddr *)&sin, len) == 0)
        fds[1] = accept(listener, NULL, NULL);
    if (fds[1] < 0) {
        int rc = err_from_errno(errno, "loopback pair");

        close(fds[0]);
        close(listener);
        return rc;
    }
    close(listener);
    setsockopt(fds[0], IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    setsockopt(fds[1], IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    return 0;
}

static int bare_load(uint32_t payload_len, uint32_t depth, double seconds,
                     struct bench_rpc_load *ret)
{
    struct bare b = {.request_bytes = FRAME_HEADER_BYTES + MESSAGE_BYTES + payload_len,
                     .depth = depth};
    size_t out = b.request_bytes * depth, in = (FRAME_HEADER_BYTES + MESSAGE_BYTES) * depth;
    uint8_t *buf;
    struct meter start;
    pthread_t server;
    uint64_t calls = 0;
    int fds[2], rc;

    rc = bare_pair(fds);
    if (rc < 0)
        return rc;
    b.fd = fds[1];
    if (pthread_create(&server, NULL, bare_server, &b) != 0) {
        close(fds[0]);
        close(fds[1]);
        return err_set(ERR_NOMEM, "bench thread");
    }
    buf = calloc(1, MAX(in, out));
    start = meter_now();
    while (calls % CHECK_EVERY != 0 || meter_now().wall < start.wall + seconds) {
        if (!fd_write_full(fds[0], buf, out) || !fd_read_full(fds[0], buf, in)) {
            rc = err_set(ERR_IO, "bare TCP broke");
            break;
        }
        calls += depth;
    }
    *ret = load_of(start, calls);
    close(fds[0]);
    pthread_join(server, NULL);
    free(buf);
    return rc;
}

int bench_rpc_run(double seconds, struct bench_rpc_result *ret)
{
    struct env_real_conf conf = {.name = "zbs-bench"};
    struct rpc_bench b = {seconds, ret};
    struct bench_rpc_size *sizes[2] = {&ret->small, &ret->page};
    int rc;

    memset(ret, 0, sizeof(*ret));
    ASSERT(ARRAY_SIZE(bench_methods) == zbs__rpctest__test__descriptor.n_methods);
    rc = env_real_run(&conf, rpc_main, &b);
    for (int i = 0; i < 2 && rc == 0; i++) {
        uint32_t len = i == 0 ? 0 : PAGE_LEN;

        rc = bare_load(len, 1, seconds, &sizes[i]->bare_depth1);
        if (rc == 0)
            rc = bare_load(len, DEPTH_MAX, seconds, &sizes[i]->bare_depth32);
    }
    return rc;
}
