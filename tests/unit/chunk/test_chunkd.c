/* SPDX-License-Identifier: Apache-2.0
 *
 * The chunk server as its callers see it: RPC to the right worker, over restarts, with two disks.
 */
#include "chunk/chunkd.h"
#include "chunk/format.h"
#include "common/base/crc32c.h"
#include "common/base/log.h"
#include "common/cluster/layout.h"
#include "common/rpc/rpc.h"
#include "proto/chunk.pb-c.h"
#include "tests/lib/chunk_methods.h"
#include "tests/unit/common/sim_fixture.h"

#define WORKERS 3u
#define ADDR    "127.1.0.1:7200"
#define DISK    "/dev/a"
#define DISK2   "/dev/b"

struct world {
    struct sim *s;
    struct sim_proc *p;
    struct chunkd_conf conf;
    bool formatted, up;
    struct rpc_client *c[WORKERS];
    uint64_t incarnation;
};

static void on_ready(void *arg, const char *addr)
{
    struct world *w = arg;

    CHECK(strcmp(addr, ADDR) == 0);
    w->up = true;
}

static int server_main(void *arg)
{
    struct world *w = arg;
    struct chunk_format_conf fc = {.workers = WORKERS};

    if (!w->formatted) {
        CHECK(chunk_format(DISK, &fc) == 0);
        w->formatted = true;
    }
    return chunkd_main(&w->conf);
}

static int call(struct rpc_client *c, enum method m, const ProtobufCMessage *req,
                struct rpc_payload *out, struct rpc_reply *r)
{
    rpc_reply_init(r);
    return rpc_call(c, &zbs__chunk__chunk__descriptor, m, req, out, r);
}

static void restart(struct world *w)
{
    w->up = false;
    sim_proc_crash(w->p);
    sim_proc_start(w->p, server_main, w);
    while (!w->up)
        (void)co_sleep(NSEC_PER_MSEC);
}

/* ---- requests ---- */

static struct rpc_client *client_of(struct world *w, uint64_t id)
{
    return w->c[extent_worker(id, WORKERS)];
}

static void create_all(struct world *w, uint64_t first, uint64_t last)
{
    for (uint64_t id = first; id <= last; id++) {
        Zbs__Chunk__CreateItem item = ZBS__CHUNK__CREATE_ITEM__INIT, *items[] = {&item};
        Zbs__Chunk__CreateRequest req = ZBS__CHUNK__CREATE_REQUEST__INIT;
        struct rpc_reply r;

        item.extent_id = id;
        item.epoch = 1;
        req.items = items;
        req.n_items = 1;
        CHECK(call(client_of(w, id), CREATE, &req.base, NULL, &r) == 0);
        CHECK(((Zbs__Chunk__CreateReply *)r.msg)->results[0]->rc == 0);
        rpc_reply_free(&r);
        /* A worker takes its own extents only. */
        CHECK(call(w->c[(extent_worker(id, WORKERS) + 1) % WORKERS], CREATE, &req.base, NULL, &r) ==
              0);
        CHECK(((Zbs__Chunk__CreateReply *)r.msg)->results[0]->rc == ERR_INVAL);
        rpc_reply_free(&r);
    }
}

/* All of one worker's extents in one request. */
static void open_all(struct world *w, uint64_t n, uint64_t epoch, uint64_t written)
{
    for (uint32_t k = 0; k < WORKERS; k++) {
        Zbs__Chunk__OpenRequest req = ZBS__CHUNK__OPEN_REQUEST__INIT;
        Zbs__Chunk__OpenItem items[100], *ptrs[100];
        struct rpc_reply r;

        req.items = ptrs;
        for (uint64_t id = 1; id <= n; id++) {
            if (extent_worker(id, WORKERS) != k)
                continue;
            zbs__chunk__open_item__init(&items[req.n_items]);
            items[req.n_items].extent_id = id;
            items[req.n_items].epoch = epoch;
            items[req.n_items].credit_blocks = 2;
            ptrs[req.n_items] = &items[req.n_items];
            req.n_items++;
        }
        CHECK(call(w->c[k], OPEN, &req.base, NULL, &r) == 0);
        for (size_t i = 0; i < req.n_items; i++) {
            const Zbs__Chunk__OpenResult *o = ((Zbs__Chunk__OpenReply *)r.msg)->results[i];

            CHECK(o->result->rc == 0 && o->epoch == epoch && o->credit_blocks == 2);
            CHECK(o->last_version->gen == (items[i].extent_id <= written));
            CHECK(o->n_uncommitted == o->last_version->gen && o->allocated.len == 128);
        }
        rpc_reply_free(&r);
    }
}

static int write_one(struct world *w, uint64_t id, uint64_t epoch, uint32_t off, uint32_t len,
                     uint8_t byte)
{
    Zbs__Chunk__WriteRequest req = ZBS__CHUNK__WRITE_REQUEST__INIT;
    struct buf *b = buf_alloc(len);
    struct rpc_payload out = {0};
    uint32_t crc[64];
    struct rpc_reply r;
    int rc;

    memset(b->data, byte, len);
    req.extent_id = id;
    req.epoch = epoch;
    req.gen = 1;
    req.offset = off;
    req.length = len;
    req.crc = crc;
    for (uint32_t at = 0; at < len; at += PAGE_BYTES)
        crc[req.n_crc++] = crc32c(0, b->data + at, PAGE_BYTES);
    rpc_payload_add(&out, b, 0, len);
    buf_put(b);
    rc = call(client_of(w, id), WRITE, &req.base, &out, &r);
    rpc_reply_free(&r);
    return rc;
}

static int read_one(struct world *w, uint64_t id, uint64_t epoch, uint32_t off, uint32_t len)
{
    Zbs__Chunk__ReadRequest req = ZBS__CHUNK__READ_REQUEST__INIT;
    struct rpc_reply r;
    int value = -1;

    req.extent_id = id;
    req.epoch = epoch;
    req.offset = off;
    req.length = len;
    if (call(client_of(w, id), READ, &req.base, NULL, &r) == 0) {
        const Zbs__Chunk__ReadReply *m = (Zbs__Chunk__ReadReply *)r.msg;

        CHECK(m->zero || r.payload_len == len);
        value = m->zero ? 0 : r.payload->data[r.payload_off];
        for (uint32_t i = 0; !m->zero && i < len; i++)
            CHECK(r.payload->data[r.payload_off + i] == value);
        if (!m->zero)
            CHECK(m->crc[0] == crc32c(0, r.payload->data + r.payload_off, MIN(len, PAGE_BYTES)));
    }
    rpc_reply_free(&r);
    return value;
}

static void info_check(struct world *w, size_t disks, bool read)
{
    Zbs__Chunk__InfoRequest req = ZBS__CHUNK__INFO_REQUEST__INIT;
    const Zbs__Chunk__InfoReply *m;
    struct rpc_reply r;

    CHECK(call(w->c[0], INFO, &req.base, NULL, &r) == 0);
    m = (Zbs__Chunk__InfoReply *)r.msg;
    CHECK(m->workers == WORKERS && m->uuid.len == 16 && m->n_disks == disks);
    CHECK(m->incarnation != w->incarnation && m->chunk_id == 0);
    CHECK(m->disks[0]->used_bytes > 0 && m->disks[0]->used_bytes < m->disks[0]->size_bytes);
    w->incarnation = m->incarnation;
    CHECK(m->cache != NULL && (m->cache->misses > 0) == read);
    rpc_reply_free(&r);
}

static void list_check(struct world *w, uint64_t n)
{
    uint64_t seen = 0;

    for (uint32_t k = 0; k < WORKERS; k++) {
        Zbs__Chunk__ListReplicasRequest req = ZBS__CHUNK__LIST_REPLICAS_REQUEST__INIT;
        bool more = true;

        while (more) {
            const Zbs__Chunk__ListReplicasReply *m;
            struct rpc_reply r;

            req.max = 3;
            CHECK(call(w->c[k], LIST, &req.base, NULL, &r) == 0);
            m = (Zbs__Chunk__ListReplicasReply *)r.msg;
            more = m->more;
            for (size_t i = 0; i < m->n_replicas; i++) {
                CHECK(m->replicas[i]->extent_id > req.after_extent_id);
                req.after_extent_id = m->replicas[i]->extent_id;
            }
            seen += m->n_replicas;
            rpc_reply_free(&r);
        }
    }
    CHECK(seen == n);
}

static int disk_add(struct world *w, uint32_t instance, bool force)
{
    Zbs__Chunk__DiskAddRequest req = ZBS__CHUNK__DISK_ADD_REQUEST__INIT;
    struct rpc_reply r;
    int rc;

    req.path = (char *)DISK2;
    req.force = force;
    rc = call(w->c[instance], DISK_ADD, &req.base, NULL, &r);
    if (rc == 0)
        CHECK(strcmp(((Zbs__Chunk__DiskAddReply *)r.msg)->disk->path, DISK2) == 0);
    rpc_reply_free(&r);
    return rc;
}

/* ---- children ---- */

static int child_create(struct world *w, uint32_t instance, uint64_t id, uint64_t origin,
                        uint64_t family)
{
    Zbs__Chunk__CreateItem item = ZBS__CHUNK__CREATE_ITEM__INIT, *items[] = {&item};
    Zbs__Chunk__CreateRequest req = ZBS__CHUNK__CREATE_REQUEST__INIT;
    struct rpc_reply r;
    int rc;

    item.extent_id = id;
    item.epoch = 100;
    item.family = family;
    item.origin = origin;
    item.origin_epoch = 99;
    req.items = items;
    req.n_items = 1;
    CHECK(call(w->c[instance], CREATE, &req.base, NULL, &r) == 0);
    rc = ((Zbs__Chunk__CreateReply *)r.msg)->results[0]->rc;
    rpc_reply_free(&r);
    return rc;
}

static void commit(struct world *w, uint64_t id, uint64_t epoch)
{
    Zbs__Chunk__CommitPointItem item = ZBS__CHUNK__COMMIT_POINT_ITEM__INIT, *items[] = {&item};
    Zbs__Chunk__CommitPointRequest req = ZBS__CHUNK__COMMIT_POINT_REQUEST__INIT;
    Zbs__Version v = ZBS__VERSION__INIT;
    struct rpc_reply r;

    v.epoch = epoch;
    v.gen = 1;
    item.extent_id = id;
    item.epoch = epoch;
    item.commit_point = &v;
    item.vouch = true;
    req.items = items;
    req.n_items = 1;
    CHECK(call(client_of(w, id), COMMIT_POINT, &req.base, NULL, &r) == 0);
    rpc_reply_free(&r);
}

/* A child is served by its origin's worker, whatever its own id. */
static void children(struct world *w, uint64_t origin, uint64_t epoch)
{
    uint32_t here = extent_worker(origin, WORKERS), other = (here + 1) % WORKERS;
    Zbs__Chunk__DiffRequest req = ZBS__CHUNK__DIFF_REQUEST__INIT;
    const Zbs__Chunk__DiffReply *d;
    struct rpc_reply r;
    uint64_t id = 100 * origin;

    while (extent_worker(id, WORKERS) != other)
        id++;
    CHECK(child_create(w, here, id, origin, origin) == ERR_AGAIN);
    commit(w, origin, epoch);
    CHECK(child_create(w, here, id, origin, 0) == ERR_INVAL);
    CHECK(child_create(w, other, id, origin, origin) == ERR_INVAL);
    CHECK(child_create(w, here, id, origin + 500, origin) == ERR_NO_REPLICA);
    CHECK(child_create(w, here, id, origin, origin) == 0);
    CHECK(write_one(w, origin, epoch, 0, 4096, 1) == ERR_PERM);
    req.extent_id = id;
    req.family = origin;
    req.max_ranges = 10;
    CHECK(call(w->c[here], DIFF, &req.base, NULL, &r) == 0);
    d = (const Zbs__Chunk__DiffReply *)r.msg;
    CHECK(d->n_ranges == 1 && d->ranges[0]->first == 0 && d->ranges[0]->count == 2 && !d->more);
    rpc_reply_free(&r);
    req.other_id = origin;
    CHECK(call(w->c[here], DIFF, &req.base, NULL, &r) == 0);
    CHECK(((const Zbs__Chunk__DiffReply *)r.msg)->n_ranges == 0);
    rpc_reply_free(&r);
    CHECK(call(w->c[other], DIFF, &req.base, NULL, &r) == ERR_INVAL);
    rpc_reply_free(&r);
}

/* ---- the story ---- */

static int client_main(void *arg)
{
    struct world *w = arg;
    uint8_t dirt[4096] = {1};

    while (!w->up)
        (void)co_sleep(NSEC_PER_MSEC);
    for (uint32_t i = 0; i < WORKERS; i++) {
        struct rpc_client_conf cc = {
            .addr = ADDR, .self = "tester", .cluster_id = "", .instance = i};

        w->c[i] = rpc_client_new(&cc);
    }
    create_all(w, 1, 20);
    CHECK(read_one(w, 1, 1, 0, 4096) == -1);
    open_all(w, 20, 2, 0);
    for (uint64_t id = 1; id <= 20; id++)
        CHECK(write_one(w, id, 2, (uint32_t)id * BLOCK_BYTES, 4096 * (uint32_t)id, (uint8_t)id) ==
              0);
    info_check(w, 1, false);
    list_check(w, 20);
    restart(w);
    CHECK(read_one(w, 1, 2, 0, 4096) == -1);
    open_all(w, 20, 3, 20);
    for (uint64_t id = 1; id <= 20; id++) {
        CHECK(read_one(w, id, 3, (uint32_t)id * BLOCK_BYTES, 4096 * (uint32_t)id) == (int)id);
        CHECK(write_one(w, id, 2, 0, 4096, 1) == ERR_STALE);
    }
    sim_disk_poke(w->p, DISK2, dirt, sizeof(dirt), 8192);
    CHECK(disk_add(w, 1, false) == ERR_INVAL);
    CHECK(disk_add(w, 0, false) == ERR_EXISTS);
    CHECK(disk_add(w, 0, true) == 0);
    CHECK(disk_add(w, 0, true) == ERR_EXISTS);
    info_check(w, 2, true);
    /* The new one is emptier, and is still there after a restart. */
    create_all(w, 21, 40);
    open_all(w, 40, 4, 20);
    for (uint64_t id = 21; id <= 40; id++)
        CHECK(write_one(w, id, 4, 0, 8192, (uint8_t)id) == 0);
    restart(w);
    info_check(w, 2, false);
    open_all(w, 40, 5, 40);
    for (uint64_t id = 21; id <= 40; id++)
        CHECK(read_one(w, id, 5, 0, 8192) == (int)id);
    children(w, 30, 5);
    children(w, 31, 5);
    for (uint32_t i = 0; i < WORKERS; i++)
        rpc_client_close(w->c[i]);
    return 0;
}

static bool over(void *arg)
{
    return sim_control_running(arg) == 0;
}

static void test_server(void **state)
{
    struct world w = {.s = world_new(1)};

    (void)state;
    w.p = sim_proc_new(w.s, HOST_A, "chunk");
    sim_disk_create(w.p, DISK, 256 << 20);
    sim_disk_create(w.p, DISK2, 512 << 20);
    w.conf = (struct chunkd_conf){.listen = ADDR,
                                  .data_dir = "/var/lib/zbs/chunk",
                                  .meta = "",
                                  .host = "h",
                                  .disks = {DISK},
                                  .n_disks = 1,
                                  .ready = on_ready,
                                  .ready_arg = &w};
    sim_proc_start(w.p, server_main, &w);
    sim_control(w.s, HOST_B, "client", client_main, &w);
    assert_true(sim_run_until(w.s, over, w.s, SEC(1000)));
    assert_null(sim_proc_halted(w.p));
    sim_proc_stop(w.p);
    assert_int_equal(sim_proc_result(w.p), 0);
    sim_free(w.s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_server),
    };

    log_threshold = LOG_LV_ERROR;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
