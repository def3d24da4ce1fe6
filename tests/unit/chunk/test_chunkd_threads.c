/* SPDX-License-Identifier: Apache-2.0
 *
 * The chunk server in the real environment: threads, sockets, a device file. Several streams of
 * requests to every worker at once, a restart, and everything read again. The bodies run as
 * coroutines, where cmocka's jumps must not go, so they ASSERT. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "chunk/chunkd.h"
#include "chunk/format.h"
#include "common/base/crc32c.h"
#include "common/base/log.h"
#include "common/cluster/layout.h"
#include "common/env/env_real.h"
#include "common/rpc/rpc.h"
#include "proto/chunk.pb-c.h"

#define CHECK(x) ASSERTF(x, "error: %s", co_err_slot()->text)

#define WORKERS 3u
#define EXTENTS 12u
#define STREAMS 4u
#define WRITES  30u
#define READ_   4u /* methods of the service */
#define WRITE_  3u
#define OPEN_   2u
#define CREATE_ 1u

struct world {
    char dir[64], device[128];
    struct chunkd_conf conf;
    char addr[64];
    bool up;
    uint64_t epoch;
    struct rpc_client *c[WORKERS];
};

static void on_ready(void *arg, const char *addr)
{
    struct world *w = arg;

    snprintf(w->addr, sizeof(w->addr), "%s", addr);
    w->up = true;
}

static int call(struct world *w, uint64_t id, uint32_t method, const ProtobufCMessage *req,
                struct rpc_payload *out, struct rpc_reply *r)
{
    rpc_reply_init(r);
    return rpc_call(w->c[extent_worker(id, WORKERS)], &zbs__chunk__chunk__descriptor, method, req,
                    out, r);
}

static void open_extent(struct world *w, uint64_t id, bool create)
{
    Zbs__Chunk__CreateItem ci = ZBS__CHUNK__CREATE_ITEM__INIT, *cis[] = {&ci};
    Zbs__Chunk__CreateRequest creq = ZBS__CHUNK__CREATE_REQUEST__INIT;
    Zbs__Chunk__OpenItem oi = ZBS__CHUNK__OPEN_ITEM__INIT, *ois[] = {&oi};
    Zbs__Chunk__OpenRequest oreq = ZBS__CHUNK__OPEN_REQUEST__INIT;
    struct rpc_reply r;

    ci.extent_id = oi.extent_id = id;
    ci.epoch = 1;
    oi.epoch = w->epoch;
    creq.items = cis;
    oreq.items = ois;
    creq.n_items = oreq.n_items = 1;
    if (create) {
        CHECK(call(w, id, CREATE_, &creq.base, NULL, &r) == 0);
        CHECK(((Zbs__Chunk__CreateReply *)r.msg)->results[0]->rc == 0);
        rpc_reply_free(&r);
    }
    CHECK(call(w, id, OPEN_, &oreq.base, NULL, &r) == 0);
    CHECK(((Zbs__Chunk__OpenReply *)r.msg)->results[0]->result->rc == 0);
    rpc_reply_free(&r);
}

static uint8_t content(uint64_t id, uint32_t i)
{
    return (uint8_t)(1 + (id * 31 + i) % 255); /* zeroes would read as such */
}

/* Small and large ones in turn; each has a place of its own. */
static uint32_t place(uint32_t i, uint32_t *ret_len)
{
    *ret_len = i % 3 == 0 ? BLOCK_BYTES : i % 3 == 1 ? PAGE_BYTES : 24 * PAGE_BYTES;
    return i * BLOCK_BYTES;
}

static void write_one(struct world *w, uint64_t id, uint32_t i)
{
    Zbs__Chunk__WriteRequest req = ZBS__CHUNK__WRITE_REQUEST__INIT;
    struct rpc_payload out = {0};
    uint32_t crc[64], len;
    struct rpc_reply r;
    struct buf *b;

    req.extent_id = id;
    req.epoch = w->epoch;
    req.gen = i + 1;
    req.offset = place(i, &len);
    req.length = len;
    req.crc = crc;
    b = buf_alloc(len);
    memset(b->data, content(id, i), len);
    for (uint32_t at = 0; at < len; at += PAGE_BYTES)
        crc[req.n_crc++] = crc32c(0, b->data + at, PAGE_BYTES);
    rpc_payload_add(&out, b, 0, len);
    buf_put(b);
    CHECK(call(w, id, WRITE_, &req.base, &out, &r) == 0);
    rpc_reply_free(&r);
}

static void read_one(struct world *w, uint64_t id, uint32_t i)
{
    Zbs__Chunk__ReadRequest req = ZBS__CHUNK__READ_REQUEST__INIT;
    struct rpc_reply r;
    uint32_t len;

    req.extent_id = id;
    req.epoch = w->epoch;
    req.offset = place(i, &len);
    req.length = len;
    CHECK(call(w, id, READ_, &req.base, NULL, &r) == 0);
    CHECK(r.payload_len == len);
    for (uint32_t k = 0; k < len; k++)
        CHECK(r.payload->data[r.payload_off + k] == content(id, i));
    rpc_reply_free(&r);
}

struct stream {
    struct world *w;
    uint32_t number;
    bool reads_only;
};

static int stream_main(void *arg)
{
    struct stream *s = arg;

    for (uint32_t i = s->number; i < WRITES; i += STREAMS) {
        for (uint64_t id = 1; id <= EXTENTS; id++) {
            if (!s->reads_only)
                write_one(s->w, id, i);
            read_one(s->w, id, i);
        }
    }
    return 0;
}

static int server_main(void *arg)
{
    return chunkd_main(&((struct world *)arg)->conf);
}

static void life(struct world *w, bool first)
{
    struct co_group server, streams;
    struct stream s[STREAMS];

    w->up = false;
    w->epoch++;
    co_group_init(&server);
    co_group_init(&streams);
    co_spawn(&server, "server", server_main, w);
    while (!w->up)
        CHECK(co_sleep(NSEC_PER_MSEC) == 0 && server.count == 1);
    for (uint32_t i = 0; i < WORKERS; i++) {
        struct rpc_client_conf cc = {
            .addr = w->addr, .self = "tester", .cluster_id = "", .instance = i};

        w->c[i] = rpc_client_new(&cc);
    }
    for (uint64_t id = 1; id <= EXTENTS; id++)
        open_extent(w, id, first);
    for (uint32_t i = 0; i < STREAMS; i++) {
        s[i] = (struct stream){w, i, !first};
        co_spawn(&streams, "stream", stream_main, &s[i]);
    }
    CHECK(co_group_join(&streams) == 0);
    for (uint32_t i = 0; i < WORKERS; i++)
        rpc_client_close(w->c[i]);
    co_group_cancel(&server);
    CHECK(co_group_join(&server) == 0);
}

static int world_main(void *arg)
{
    struct world *w = arg;
    struct chunk_format_conf fc = {.workers = WORKERS, .journal_bytes = 4 << 20};

    CHECK(chunk_format(w->device, &fc) == 0);
    life(w, true);
    life(w, false);
    return 0;
}

static void test_threads(void **state)
{
    struct env_real_conf env = {.name = "test"};
    struct world w = {.dir = "/tmp/zbs-chunk-XXXXXX"};
    int fd;

    (void)state;
    assert_non_null(mkdtemp(w.dir));
    snprintf(w.device, sizeof(w.device), "%s/device", w.dir);
    fd = open(w.device, O_RDWR | O_CREAT, 0600);
    assert_true(fd >= 0 && ftruncate(fd, 256 << 20) == 0);
    close(fd);
    w.conf = (struct chunkd_conf){.listen = "127.0.0.1:0",
                                  .meta = "",
                                  .host = "h",
                                  .disks = {w.device},
                                  .n_disks = 1,
                                  .flush_delay_ms = 20,
                                  .ready = on_ready,
                                  .ready_arg = &w};
    assert_int_equal(env_real_run(&env, world_main, &w), 0);
    unlink(w.device);
    assert_int_equal(rmdir(w.dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads),
    };

    log_threshold = LOG_LV_ERROR;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
