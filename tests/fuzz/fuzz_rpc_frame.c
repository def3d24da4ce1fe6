/* SPDX-License-Identifier: Apache-2.0
 *
 * Fuzzes what RPC receives: the header parser, a server's connection and a client's connection
 * (both on the simulator, so that a run is a function of its input). The first byte chooses:
 *   0  a header, as it is
 *   1  bytes to a server, from the very start
 *   2  bytes to a server that has been greeted
 *   3  the same, but the bytes are cut into frames whose magic, version, kind and checksums are
 *      made right, so that what lies behind the header check is reached
 *   4  bytes to a client, as the server's hello and everything after
 *   5  as 3, to a client that waits for a reply
 * Whatever comes, nothing may crash, hang or leak, and a good client is still served afterwards. */
#include <string.h>
#include "common/base/crc32c.h"
#include "common/base/mem.h"
#include "common/rpc/conn.h"
#include "tests/lib/fuzz.h"
#include "tests/lib/rpcworld.h"

#define FUZZ_CLIENT_ADDR RPCWORLD_CLIENT_HOST ":7000"

static void fuzz_header(struct fuzz_input *in)
{
    uint8_t bytes[FRAME_HEADER_BYTES] = {0}, again[FRAME_HEADER_BYTES];
    struct frame_header h;

    fuzz_take(in, bytes, sizeof(bytes));
    if (frame_header_parse(bytes, &h) == 0) {
        frame_header_encode(again, &h);
        CHECK(memcmp(bytes, again, sizeof(bytes)) == 0);
        CHECK(h.area_len <= FRAME_AREA_MAX && h.payload_len <= RPC_PAYLOAD_MAX);
        CHECK(h.text_len <= h.area_len);
    }
}

/* One frame from the input: a header whose fields are the input's but whose form is right, then
 * an area from the input with a right checksum. */
static bool send_frame(struct net_conn *net, struct fuzz_input *in, enum frame_kind kind,
                       uint64_t id)
{
    struct {
        uint8_t flags, method, choice, pad;
        uint32_t area_len, text_len, payload_len, timeout_us;
        int32_t status;
    } f = {0};
    struct frame_header h = {.version = 1, .kind = (uint8_t)kind};
    uint8_t bytes[FRAME_HEADER_BYTES], *area;
    bool ok;

    if (fuzz_take(in, &f, sizeof(f)) == 0)
        return false;
    h.area_len = (uint32_t)MIN(f.area_len % 70000, in->size);
    area = mem_alloc(h.area_len + 1);
    fuzz_take(in, area, h.area_len);
    h.flags = (f.flags & FRAME_F_MESSAGE) | (f.choice & 1 ? 0 : FRAME_F_AREA_CRC);
    h.area_crc = h.flags & FRAME_F_AREA_CRC ? crc32c(0, area, h.area_len) : 0;
    h.id = f.choice & 2 ? f.pad : id;
    h.payload_len = f.choice & 4 ? f.payload_len % 100000 : f.choice & 8 ? f.payload_len : 0;
    if (kind == FRAME_REQUEST) {
        h.method = f.method % 8;
        h.timeout_us = f.timeout_us;
        h.service = frame_service_hash(&zbs__rpctest__test__descriptor) + (f.choice >> 7);
    } else {
        h.status = f.choice & 16 ? f.status : 0;
        h.text_len = f.choice & 32 ? f.text_len % 600 : 0;
    }
    frame_header_encode(bytes, &h);
    ok = fuzz_send(net, bytes, sizeof(bytes)) && fuzz_send(net, area, h.area_len);
    mem_free(area);
    for (uint32_t sent = 0; ok && sent < h.payload_len && h.payload_len < 100000; sent += 4096)
        ok = fuzz_send(net, zero_page, MIN(4096u, h.payload_len - sent));
    return ok;
}

/* Reads and drops until the peer has nothing more to say for a while. */
static int drain_main(void *arg)
{
    struct net_conn *net = arg;
    uint8_t bytes[4096];
    struct iovec iov = {bytes, sizeof(bytes)};

    while (net_readv(net, &iov, 1) > 0)
        ;
    return 0;
}

static void body_to_server(struct rpcworld *w)
{
    struct conn_hello hello = {.version_min = 1,
                               .version_max = 1,
                               .features = FRAME_FEATURE_AREA_CRC,
                               .cluster_id = "c1",
                               .self = "fuzz"};
    struct fuzz_input *in = w->arg;
    struct rpc_conn c;
    struct net_conn *net;
    struct co_group g;
    struct rpc_reply r;

    CHECK(net_connect(RPCWORLD_ADDR, &net) == 0);
    conn_init(&c, net);
    if (in->mode >= 2) {
        CHECK(conn_hello_send(&c, &hello, 0) == 0);
        CHECK(conn_hello_recv(&c, &hello) == 0 && hello.status == 0);
    }
    co_group_init(&g);
    co_spawn(&g, "drain", drain_main, net);
    if (in->mode == 3) {
        while (send_frame(net, in, FRAME_REQUEST, 1))
            ;
    } else {
        (void)fuzz_send(net, in->data, in->size);
    }
    co_sleep(10 * NSEC_PER_MSEC);
    net_shutdown(net);
    co_group_close(&g);
    conn_fini(&c);
    CHECK(rpctest_echo(w->client, 3, "still there", NULL, &r) == 0);
    rpc_reply_free(&r);
}

struct false_server {
    struct net_listener *listener;
    struct fuzz_input *in;
};

static int false_server_main(void *arg)
{
    struct false_server *f = arg;
    struct conn_hello ours = {
        .version_min = 1, .version_max = 1, .features = FRAME_FEATURE_AREA_CRC, .self = "fuzz"};
    struct conn_hello theirs;
    struct frame_header h;
    struct net_conn *net;
    struct rpc_conn c;

    if (net_accept(f->listener, &net) < 0)
        return 0;
    conn_init(&c, net);
    CHECK(conn_hello_recv(&c, &theirs) == 0);
    if (f->in->mode == 4) {
        (void)fuzz_send(net, f->in->data, f->in->size);
    } else {
        CHECK(conn_hello_send(&c, &ours, 0) == 0);
        c.version = 1;
        c.features = ours.features;
        if (conn_recv_header(&c, &h) == 0) {
            while (send_frame(net, f->in, FRAME_REPLY, h.id))
                ;
        }
    }
    co_sleep(10 * NSEC_PER_MSEC);
    conn_fini(&c);
    return 0;
}

static void body_to_client(struct rpcworld *w)
{
    struct rpc_client_conf conf = {.addr = FUZZ_CLIENT_ADDR, .self = "victim"};
    struct rpc_client *c = rpc_client_new(&conf);
    struct false_server f = {.in = w->arg};
    struct buf *dst = buf_alloc(65536);
    struct rpc_reply r;
    struct co_group g;
    nsec_t former;
    int rc;

    CHECK(net_listen(FUZZ_CLIENT_ADDR, &f.listener) == 0);
    co_group_init(&g);
    co_spawn(&g, "false-server", false_server_main, &f);
    former = co_deadline_push(co_now() + NSEC_PER_SEC);
    rpc_reply_init(&r);
    if (f.in->size % 2 == 0) {
        r.dst = dst;
        r.dst_cap = 65536;
    }
    rc = rpctest_source(c, 100, 1, 1, &r);
    CHECK(rc <= 0 && (rc < 0 || r.answered));
    CHECK(r.payload_len <= RPC_PAYLOAD_MAX && (r.payload_len == 0 || r.payload != NULL));
    co_deadline_restore(former);
    rpc_reply_free(&r);
    rpc_client_close(c);
    co_group_close(&g);
    net_listener_close(f.listener);
    CHECK(atomic_load(&dst->refs) == 1);
    buf_put(dst);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rpcworld w = {.sim_conf = {.seed = 1}};
    struct fuzz_input in;

    if (!fuzz_begin(&in, data, size, 6))
        return 0;
    w.arg = &in;
    if (in.mode == 0)
        fuzz_header(&in);
    else
        rpcworld_run(&w, in.mode <= 3 ? body_to_server : body_to_client);
    return 0;
}
