/* SPDX-License-Identifier: Apache-2.0
 *
 * A simulated chunk server with several disks, and requests to it over RPC: for tests of what the
 * server does with its devices. */
#ifndef ZBS_TESTS_SERVER_WORLD_H
#define ZBS_TESTS_SERVER_WORLD_H

#include "chunk/chunkd.h"
#include "chunk/engine.h"
#include "common/base/crc32c.h"
#include "common/base/log.h"
#include "common/cluster/layout.h"
#include "common/rpc/rpc.h"
#include "proto/chunk.pb-c.h"
#include "tests/lib/chunk_methods.h"
#include "tests/unit/common/sim_fixture.h"

#define WORKERS  2u
#define ADDR     "127.1.0.1:7200"
#define DISKS_IN 4u
#define EXTENTS  24u

#ifndef DISK_BYTES
#define DISK_BYTES ((uint64_t)128 << 20)
#endif

static const char *const disk_paths[DISKS_IN] = {"/dev/a", "/dev/b", "/dev/c", "/dev/d"};

struct server_world {
    struct sim *s;
    struct sim_proc *p;
    struct chunkd_conf conf;
    uint32_t n_disks; /* formatted and configured */
    bool formatted, up;
    struct rpc_client *c[WORKERS];
    uint8_t uuid[16];
};

static inline void sw_ready(void *arg, const char *addr)
{
    (void)addr;
    ((struct server_world *)arg)->up = true;
}

static inline int sw_main(void *arg)
{
    struct server_world *w = arg;
    struct chunk_format_conf fc = {.workers = WORKERS};

    if (!w->formatted) {
        memset(w->uuid, 7, sizeof(w->uuid));
        memcpy(fc.server_uuid, w->uuid, 16);
        for (uint32_t i = 0; i < w->n_disks; i++)
            CHECK(chunk_format(disk_paths[i], &fc) == 0);
        w->formatted = true;
    }
    return chunkd_main(&w->conf);
}

static inline void sw_init(struct server_world *w, uint64_t seed, uint32_t n_disks)
{
    *w = (struct server_world){.s = world_new(seed), .n_disks = n_disks};
    w->p = sim_proc_new(w->s, HOST_A, "chunk");
    for (uint32_t i = 0; i < DISKS_IN; i++)
        sim_disk_create(w->p, disk_paths[i], DISK_BYTES);
    w->conf = (struct chunkd_conf){.listen = ADDR,
                                   .data_dir = "/var/lib/zbs/chunk",
                                   .meta = "",
                                   .host = "h",
                                   .n_disks = n_disks,
                                   .ready = sw_ready,
                                   .ready_arg = w};
    memcpy(w->conf.disks, disk_paths, n_disks * sizeof(disk_paths[0]));
}

/* From a control coroutine: (re)starts the server; false if it ended instead of serving. */
static inline bool sw_start(struct server_world *w)
{
    w->up = false;
    if (sim_proc_running(w->p))
        sim_proc_crash(w->p);
    sim_proc_start(w->p, sw_main, w);
    while (!w->up && sim_proc_running(w->p))
        (void)co_sleep(NSEC_PER_MSEC);
    for (uint32_t i = 0; i < WORKERS; i++) {
        struct rpc_client_conf cc = {
            .addr = ADDR, .self = "tester", .cluster_id = "", .instance = i};

        if (w->c[i] != NULL) /* after a power loss it would wait for the former server's host */
            rpc_client_close(w->c[i]);
        w->c[i] = rpc_client_new(&cc);
    }
    return w->up;
}

static inline void sw_close_clients(struct server_world *w)
{
    for (uint32_t i = 0; i < WORKERS && w->c[i] != NULL; i++)
        rpc_client_close(w->c[i]);
}

static inline bool sw_over(void *arg)
{
    return sim_control_running(arg) == 0;
}

/* Runs a story in a control coroutine to its end; the server must not have halted. */
static inline void sw_run(struct server_world *w, int (*story)(void *arg))
{
    sim_control(w->s, HOST_B, "story", story, w);
    assert_true(sim_run_until(w->s, sw_over, w->s, SEC(5000)));
    assert_null(sim_proc_halted(w->p));
    if (sim_proc_running(w->p)) {
        sim_proc_stop(w->p);
        assert_int_equal(sim_proc_result(w->p), 0);
    }
    sim_free(w->s);
}

/* ---- requests: at most five seconds each ---- */

static inline int sw_call(struct rpc_client *c, enum method m, const ProtobufCMessage *req,
                          struct rpc_payload *out, struct rpc_reply *r)
{
    nsec_t former = co_deadline_push(co_now() + 5 * NSEC_PER_SEC);
    int rc;

    rpc_reply_init(r);
    rc = rpc_call(c, &zbs__chunk__chunk__descriptor, m, req, out, r);
    co_deadline_restore(former);
    return rc;
}

/* A request of whose reply only the result counts. */
static inline int sw_do(struct rpc_client *c, enum method m, const ProtobufCMessage *req)
{
    struct rpc_reply r;
    int rc = sw_call(c, m, req, NULL, &r);

    rpc_reply_free(&r);
    return rc;
}

static inline struct rpc_client *sw_client(struct server_world *w, uint64_t id)
{
    return w->c[extent_worker(id, WORKERS)];
}

static inline int sw_create(struct server_world *w, uint64_t id, uint64_t epoch)
{
    Zbs__Chunk__CreateItem item = ZBS__CHUNK__CREATE_ITEM__INIT, *items[] = {&item};
    Zbs__Chunk__CreateRequest req = ZBS__CHUNK__CREATE_REQUEST__INIT;
    struct rpc_reply r;
    int rc;

    item.extent_id = id;
    item.epoch = epoch;
    req.items = items;
    req.n_items = 1;
    rc = sw_call(sw_client(w, id), CREATE, &req.base, NULL, &r);
    if (rc == 0)
        rc = ((Zbs__Chunk__CreateReply *)r.msg)->results[0]->rc;
    rpc_reply_free(&r);
    return rc;
}

static inline int sw_open(struct server_world *w, uint64_t id, uint64_t epoch)
{
    Zbs__Chunk__OpenItem item = ZBS__CHUNK__OPEN_ITEM__INIT, *items[] = {&item};
    Zbs__Chunk__OpenRequest req = ZBS__CHUNK__OPEN_REQUEST__INIT;
    struct rpc_reply r;
    int rc;

    item.extent_id = id;
    item.epoch = epoch;
    req.items = items;
    req.n_items = 1;
    rc = sw_call(sw_client(w, id), OPEN, &req.base, NULL, &r);
    if (rc == 0)
        rc = ((Zbs__Chunk__OpenReply *)r.msg)->results[0]->result->rc;
    rpc_reply_free(&r);
    return rc;
}

static inline int sw_write(struct server_world *w, uint64_t id, uint64_t epoch, uint64_t gen,
                           uint32_t off, uint32_t len, uint8_t byte)
{
    Zbs__Chunk__WriteRequest req = ZBS__CHUNK__WRITE_REQUEST__INIT;
    struct buf *b = buf_alloc(len);
    struct rpc_payload out = {0};
    uint32_t crc[256];
    struct rpc_reply r;
    int rc;

    memset(b->data, byte, len);
    req.extent_id = id;
    req.epoch = epoch;
    req.gen = gen;
    req.offset = off;
    req.length = len;
    req.crc = crc;
    for (uint32_t at = 0; at < len; at += PAGE_BYTES)
        crc[req.n_crc++] = crc32c(0, b->data + at, PAGE_BYTES);
    rpc_payload_add(&out, b, 0, len);
    buf_put(b);
    rc = sw_call(sw_client(w, id), WRITE, &req.base, &out, &r);
    rpc_reply_free(&r);
    return rc;
}

/* The byte that the range is full of; -2: not of one; a negative ERR_ that is lower otherwise. */
static inline int sw_read(struct server_world *w, uint64_t id, uint64_t epoch, uint32_t off,
                          uint32_t len)
{
    Zbs__Chunk__ReadRequest req = ZBS__CHUNK__READ_REQUEST__INIT;
    struct rpc_reply r;
    int value;

    req.extent_id = id;
    req.epoch = epoch;
    req.offset = off;
    req.length = len;
    value = sw_call(sw_client(w, id), READ, &req.base, NULL, &r);
    if (value == 0 && !((Zbs__Chunk__ReadReply *)r.msg)->zero) {
        value = r.payload->data[r.payload_off];
        for (uint32_t i = 0; i < len && value >= 0; i++)
            value = r.payload->data[r.payload_off + i] == value ? value : -2;
    }
    rpc_reply_free(&r);
    return value;
}

static inline int sw_check_epoch(struct server_world *w, uint64_t id, uint64_t epoch)
{
    Zbs__Chunk__CheckEpochRequest req = ZBS__CHUNK__CHECK_EPOCH_REQUEST__INIT;

    req.extent_id = id;
    req.epoch = epoch;
    return sw_do(sw_client(w, id), CHECK_EPOCH, &req.base);
}

static inline int sw_delete(struct server_world *w, uint64_t id, uint64_t epoch)
{
    Zbs__Chunk__DeleteItem item = ZBS__CHUNK__DELETE_ITEM__INIT, *items[] = {&item};
    Zbs__Chunk__DeleteRequest req = ZBS__CHUNK__DELETE_REQUEST__INIT;
    struct rpc_reply r;
    int rc;

    item.extent_id = id;
    item.epoch = epoch;
    req.term = 1;
    req.items = items;
    req.n_items = 1;
    rc = sw_call(sw_client(w, id), DELETE_, &req.base, NULL, &r);
    if (rc == 0)
        rc = ((Zbs__Chunk__DeleteReply *)r.msg)->results[0]->rc;
    rpc_reply_free(&r);
    return rc;
}

static inline int sw_add(struct server_world *w, const char *path, const char *journal_on,
                         uint32_t guest_rings)
{
    Zbs__Chunk__DiskAddRequest req = ZBS__CHUNK__DISK_ADD_REQUEST__INIT;
    struct rpc_reply r;
    int rc;

    req.path = (char *)path;
    req.journal_on = (char *)journal_on;
    req.guest_rings = guest_rings;
    rc = sw_call(w->c[0], DISK_ADD, &req.base, NULL, &r);
    rpc_reply_free(&r);
    return rc;
}

static inline int sw_drain(struct server_world *w, const char *path, bool cancel)
{
    Zbs__Chunk__DiskDrainRequest req = ZBS__CHUNK__DISK_DRAIN_REQUEST__INIT;

    req.path = (char *)path;
    req.cancel = cancel;
    return sw_do(w->c[0], DISK_DRAIN, &req.base);
}

static inline int sw_remove(struct server_world *w, const char *path, bool force)
{
    Zbs__Chunk__DiskRemoveRequest req = ZBS__CHUNK__DISK_REMOVE_REQUEST__INIT;

    req.path = (char *)path;
    req.force = force;
    return sw_do(w->c[0], DISK_REMOVE, &req.base);
}

struct sw_disk {
    uint32_t state, drain;
    uint64_t extents, used_bytes, reserved_bytes, size_bytes;
    char error[256], journal_on[256];
};
/* False: the server names no such disk. */
static inline bool sw_disk(struct server_world *w, const char *path, struct sw_disk *ret)
{
    Zbs__Chunk__InfoRequest req = ZBS__CHUNK__INFO_REQUEST__INIT;
    const Zbs__Chunk__InfoReply *m;
    struct rpc_reply r;
    bool found = false;

    *ret = (struct sw_disk){0};
    CHECK(sw_call(w->c[0], INFO, &req.base, NULL, &r) == 0);
    m = (Zbs__Chunk__InfoReply *)r.msg;
    for (size_t i = 0; i < m->n_disks; i++) {
        if (strcmp(m->disks[i]->path, path) != 0)
            continue;
        found = true;
        ret->state = m->disks[i]->state;
        ret->drain = m->disks[i]->drain;
        ret->extents = m->disks[i]->extents;
        ret->used_bytes = m->disks[i]->used_bytes;
        ret->reserved_bytes = m->disks[i]->reserved_bytes;
        ret->size_bytes = m->disks[i]->size_bytes;
        snprintf(ret->error, sizeof(ret->error), "%s", m->disks[i]->error);
        snprintf(ret->journal_on, sizeof(ret->journal_on), "%s", m->disks[i]->journal_on);
    }
    rpc_reply_free(&r);
    return found;
}

static inline bool sw_state_becomes(struct server_world *w, const char *path, uint32_t state,
                                    nsec_t within)
{
    nsec_t end = co_now() + within;
    struct sw_disk d;

    do {
        CHECK(sw_disk(w, path, &d));
        if (d.state == state)
            return true;
        (void)co_sleep(100 * NSEC_PER_MSEC);
    } while (co_now() < end);
    return false;
}

/* ---- EXTENTS extents, each full of its number ---- */

static inline void sw_fill(struct server_world *w)
{
    for (uint64_t id = 1; id <= EXTENTS; id++) {
        CHECK(sw_create(w, id, 1) == 0 && sw_open(w, id, 2) == 0);
        CHECK(sw_write(w, id, 2, 1, 0, 65536, (uint8_t)id) == 0);
    }
}

/* Every extent is either whole or missing, never empty; returns how many are whole. */
static inline uint32_t sw_whole(struct server_world *w, uint64_t epoch)
{
    uint32_t n = 0;

    for (uint64_t id = 1; id <= EXTENTS; id++) {
        int rc = sw_open(w, id, epoch);

        ASSERTF(rc == 0 || rc == ERR_NO_REPLICA, "extent %d: %s %s", (int)id, err_name(rc),
                err_text(rc));
        if (rc < 0) {
            CHECK(sw_delete(w, id, epoch) == ERR_IO); /* nobody knows: not confirmed */
            continue;
        }
        CHECK(sw_read(w, id, epoch, 0, 65536) == (int)id);
        n++;
    }
    return n;
}

#endif
