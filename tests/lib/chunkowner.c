/* SPDX-License-Identifier: Apache-2.0
 *
 * An owner with one replica: every version that is confirmed and has none in flight below it is
 * committed at once, and travels with the next write. */
#include "tests/lib/chunkowner.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "common/base/crc32c.h"
#include "common/base/units.h"
#include "common/base/mem.h"
#include "common/cluster/layout.h"
#include "common/env/env.h"
#include "proto/chunk.pb-c.h"
#include "tests/lib/chunk_methods.h"
#include "tests/lib/chunkops.h"

#define PAGES_MAX (RPC_PAYLOAD_MAX / PAGE_BYTES)

/* By position in the service of proto/chunk.proto. */
static int call(struct rpc_client *c, enum method m, const ProtobufCMessage *req,
                struct rpc_payload *out, struct rpc_reply *r)
{
    return rpc_call(c, &zbs__chunk__chunk__descriptor, m, req, out, r);
}

static int result_rc(const Zbs__Result *r)
{
    return r->rc < 0 ? err_set(r->rc, "%s", r->text) : 0;
}

/* ---- create, open, reserve ---- */

/* origin: its id, of epoch `origin_epoch`; 0: none. */
static int extent_create(const struct owner *o, const struct owner_extent *x, uint64_t origin,
                         uint64_t origin_epoch)
{
    Zbs__Chunk__CreateItem item = ZBS__CHUNK__CREATE_ITEM__INIT, *items[] = {&item};
    Zbs__Chunk__CreateRequest req = ZBS__CHUNK__CREATE_REQUEST__INIT;
    struct rpc_reply r;
    int rc;

    item.extent_id = x->id;
    item.family = x->family;
    item.epoch = x->epoch;
    item.volume_id = 1;
    item.slot = (uint32_t)(x->family - o->conf.first_id);
    item.origin = origin;
    item.origin_epoch = origin_epoch;
    req.items = items;
    req.n_items = 1;
    rpc_reply_init(&r);
    rc = call(x->client, CREATE, &req.base, NULL, &r);
    if (rc == 0)
        rc = result_rc(((Zbs__Chunk__CreateReply *)r.msg)->results[0]);
    rpc_reply_free(&r);
    return rc;
}

static int commit_point_tell(const struct owner_extent *x, uint64_t epoch, uint64_t gen)
{
    Zbs__Chunk__CommitPointItem item = ZBS__CHUNK__COMMIT_POINT_ITEM__INIT, *items[] = {&item};
    Zbs__Chunk__CommitPointRequest req = ZBS__CHUNK__COMMIT_POINT_REQUEST__INIT;
    Zbs__Version v = ZBS__VERSION__INIT;
    struct rpc_reply r;
    int rc;

    v.epoch = epoch;
    v.gen = gen;
    item.extent_id = x->id;
    item.family = x->family;
    item.epoch = x->epoch;
    item.commit_point = &v;
    item.vouch = true; /* nobody has another replica */
    req.items = items;
    req.n_items = 1;
    rpc_reply_init(&r);
    rc = call(x->client, COMMIT_POINT, &req.base, NULL, &r);
    rpc_reply_free(&r);
    return rc;
}

static int extent_reserve(const struct owner_extent *x, uint32_t blocks)
{
    Zbs__Chunk__ReserveRequest req = ZBS__CHUNK__RESERVE_REQUEST__INIT;
    struct rpc_reply r;
    int rc;

    req.extent_id = x->id;
    req.family = x->family;
    req.epoch = x->epoch;
    req.blocks = blocks;
    rpc_reply_init(&r);
    rc = call(x->client, RESERVE, &req.base, NULL, &r);
    rpc_reply_free(&r);
    return rc;
}

static bool bit(const ProtobufCBinaryData *bits, uint32_t i)
{
    return i / 8 < bits->len && (bits->data[i / 8] >> i % 8 & 1) != 0;
}

/* Blocks that will be needed: for what holds nothing, or only shares. */
static uint32_t blocks_needed(const struct owner *o, const Zbs__Chunk__OpenResult *res)
{
    uint32_t n = (uint32_t)ROUND_UP(o->conf.span_bytes, BLOCK_BYTES) / BLOCK_BYTES, needed = 0;

    for (uint32_t i = 0; i < n; i++)
        needed += !bit(&res->allocated, i) || bit(&res->shared, i);
    return needed;
}

/* The only replica has whatever was ever confirmed: all of it is committed (PROTOCOL 2.4). */
static int extent_opened(const struct owner *o, const struct owner_extent *x,
                         const Zbs__Chunk__OpenResult *res)
{
    const Zbs__Version *last = res->last_version;
    uint32_t needed = blocks_needed(o, res);
    int rc = 0;

    if (last != NULL && last->epoch != 0)
        rc = commit_point_tell(x, last->epoch, last->gen);
    if (rc == 0 && needed > 0)
        rc = extent_reserve(x, needed);
    return rc;
}

static int extent_open(const struct owner *o, const struct owner_extent *x)
{
    Zbs__Chunk__OpenItem item = ZBS__CHUNK__OPEN_ITEM__INIT, *items[] = {&item};
    Zbs__Chunk__OpenRequest req = ZBS__CHUNK__OPEN_REQUEST__INIT;
    struct rpc_reply r;
    int rc;

    item.extent_id = x->id;
    item.family = x->family;
    item.epoch = x->epoch;
    req.items = items;
    req.n_items = 1;
    rpc_reply_init(&r);
    rc = call(x->client, OPEN, &req.base, NULL, &r);
    if (rc == 0)
        rc = result_rc(((Zbs__Chunk__OpenReply *)r.msg)->results[0]->result);
    if (rc == 0)
        rc = extent_opened(o, x, ((Zbs__Chunk__OpenReply *)r.msg)->results[0]);
    rpc_reply_free(&r);
    return rc;
}

static int extent_start(struct owner *o, uint32_t i)
{
    struct owner_extent *x = &o->extents[i];
    int rc;

    x->id = x->family = o->conf.first_id + i;
    x->epoch = o->epoch;
    x->client = o->clients[extent_worker(x->id, o->n_workers)];
    x->next_gen = 1;
    list_init(&x->writing);
    co_range_lock_init(&x->ranges);
    if (o->conf.verify)
        x->crc = MEM_NEW_ARRAY(uint32_t, EXTENT_BYTES / PAGE_BYTES);
    rc = extent_create(o, x, 0, 0);
    if (rc == 0)
        rc = extent_open(o, x);
    return rc < 0 ? err_prefix(rc, "extent %" PRIu64, x->id) : 0;
}

/* ---- the server ---- */

static struct rpc_client *client_new(const struct owner *o, uint32_t worker)
{
    return rpc_client_new(&(struct rpc_client_conf){
        .addr = o->conf.addr,
        .self = "load",
        .cluster_id = "",
        .instance = worker,
    });
}

int owner_used_bytes(struct owner *o, uint64_t *ret)
{
    struct rpc_reply r;
    int rc = chunk_info(o->clients[0], &r);

    *ret = 0;
    if (rc == 0) {
        const Zbs__Chunk__InfoReply *info = (Zbs__Chunk__InfoReply *)r.msg;

        for (size_t i = 0; i < info->n_disks; i++)
            *ret += info->disks[i]->used_bytes;
    }
    rpc_reply_free(&r);
    return rc;
}

static int workers_start(struct owner *o)
{
    struct rpc_reply r;
    uint32_t n = 0;
    int rc;

    o->clients[0] = client_new(o, 0);
    o->n_workers = 1;
    rc = chunk_info(o->clients[0], &r);
    if (rc == 0)
        n = ((Zbs__Chunk__InfoReply *)r.msg)->workers;
    rpc_reply_free(&r);
    if (rc < 0)
        return rc;
    if (n < 1 || n > OWNER_WORKERS_MAX)
        return err_set(ERR_INVAL, "a server with %" PRIu32 " workers", n);
    while (o->n_workers < n) {
        o->clients[o->n_workers] = client_new(o, o->n_workers);
        o->n_workers++;
    }
    return 0;
}

int owner_open(const struct owner_conf *conf, struct owner **ret)
{
    struct owner *o = MEM_NEW(struct owner);
    int rc;

    o->conf = *conf;
    o->epoch = (uint64_t)env_wall_ns() / NSEC_PER_MSEC; /* above all that ended before */
    o->next_id = conf->first_id + conf->n_extents;
    o->extents = MEM_NEW_ARRAY(struct owner_extent, conf->n_extents);
    rc = workers_start(o);
    for (uint32_t i = 0; i < conf->n_extents && rc == 0; i++)
        rc = extent_start(o, i);
    if (rc < 0) {
        owner_close(o);
        return rc;
    }
    *ret = o;
    return 0;
}

void owner_close(struct owner *o)
{
    for (uint32_t i = 0; i < o->conf.n_extents; i++) {
        struct owner_extent *x = &o->extents[i];

        if (x->next_gen > 1)
            (void)commit_point_tell(x, x->epoch, x->next_gen - 1);
        mem_free(x->crc);
    }
    for (uint32_t w = 0; w < o->n_workers; w++)
        rpc_client_close(o->clients[w]);
    mem_free(o->extents);
    mem_free(o);
}

/* ---- writing ---- */

struct writing {
    struct list link; /* owner_extent.writing */
    uint64_t gen;
};

static uint64_t committed_gen(const struct owner_extent *x)
{
    const struct writing *oldest = LIST_FIRST(&x->writing, struct writing, link);

    return (oldest != NULL ? oldest->gen : x->next_gen) - 1;
}

static void pages_stamp(const struct owner_extent *x, uint64_t gen, uint8_t *data, uint32_t off,
                        uint32_t len, uint32_t *crc)
{
    for (uint32_t done = 0; done < len; done += PAGE_BYTES) {
        uint64_t stamp[3] = {x->id, gen, off + done};

        memcpy(data + done, stamp, sizeof(stamp));
        *crc++ = crc32c(0, data + done, PAGE_BYTES);
    }
}

static int write_send(struct owner_extent *x, struct buf *data, uint32_t off, uint32_t len,
                      uint64_t gen)
{
    Zbs__Chunk__WriteRequest req = ZBS__CHUNK__WRITE_REQUEST__INIT;
    Zbs__Version committed = ZBS__VERSION__INIT;
    struct rpc_payload out = {0};
    uint32_t crc[PAGES_MAX];
    struct rpc_reply r;
    int rc;

    pages_stamp(x, gen, data->data, off, len, crc);
    committed.epoch = x->epoch;
    committed.gen = committed_gen(x);
    req.extent_id = x->id;
    req.family = x->family;
    req.epoch = x->epoch;
    req.gen = gen;
    req.commit_point = &committed;
    req.offset = off;
    req.length = len;
    req.crc = crc;
    req.n_crc = len / PAGE_BYTES;
    rpc_payload_add(&out, data, 0, len);
    rpc_reply_init(&r);
    rc = call(x->client, WRITE, &req.base, &out, &r);
    rpc_reply_free(&r);
    if (rc == 0 && x->crc != NULL)
        memcpy(x->crc + off / PAGE_BYTES, crc, req.n_crc * sizeof(*crc));
    return rc;
}

int owner_write(struct owner_extent *x, struct buf *data, uint32_t off, uint32_t len)
{
    struct writing w;
    struct co_range range;
    int rc;

    co_range_acquire_always(&x->ranges, &range, off, len, true);
    w.gen = x->next_gen++;
    list_push_back(&x->writing, &w.link);
    rc = write_send(x, data, off, len, w.gen);
    list_del(&w.link);
    co_range_release(&x->ranges, &range);
    return rc;
}

/* ---- reading ---- */

static int page_check(const struct owner_extent *x, uint32_t page, const uint8_t *data,
                      uint32_t told)
{
    uint32_t is = crc32c(0, data, PAGE_BYTES), want = x->crc[page];

    if (is != told)
        return err_set(ERR_CORRUPT, "extent %" PRIu64 " page %" PRIu32 ": damaged on its way",
                       x->id, page);
    if (want != 0 && is != want)
        return err_set(ERR_CORRUPT, "extent %" PRIu64 " page %" PRIu32 ": not what was written",
                       x->id, page);
    return 0;
}

static int read_check(const struct owner_extent *x, const struct rpc_reply *r, uint32_t off,
                      uint32_t len)
{
    const Zbs__Chunk__ReadReply *reply = (const Zbs__Chunk__ReadReply *)r->msg;
    uint32_t pages = len / PAGE_BYTES;
    int rc = 0;

    if (!reply->zero && (r->payload_len != len || reply->n_crc != pages))
        return err_set(ERR_CORRUPT, "a reply of %" PRIu32 " bytes instead of %" PRIu32,
                       r->payload_len, len);
    for (uint32_t i = 0; i < pages && rc == 0; i++) {
        const uint8_t *page =
            reply->zero ? zero_page : r->payload->data + r->payload_off + i * PAGE_BYTES;

        rc = page_check(x, off / PAGE_BYTES + i, page,
                        reply->zero ? crc32c(0, zero_page, PAGE_BYTES) : reply->crc[i]);
    }
    return rc;
}

int owner_read(struct owner_extent *x, uint32_t off, uint32_t len)
{
    Zbs__Chunk__ReadRequest req = ZBS__CHUNK__READ_REQUEST__INIT;
    struct co_range range;
    struct rpc_reply r;
    int rc;

    req.extent_id = x->id;
    req.family = x->family;
    req.epoch = x->epoch;
    req.offset = off;
    req.length = len;
    rpc_reply_init(&r);
    r.expect = len;
    co_range_acquire_always(&x->ranges, &range, off, len, false);
    rc = call(x->client, READ, &req.base, NULL, &r);
    if (rc == 0 && x->crc != NULL)
        rc = read_check(x, &r, off, len);
    co_range_release(&x->ranges, &range);
    rpc_reply_free(&r);
    return rc;
}

/* ---- snapshots ---- */

/* When what was under way has ended, the commit point says that nothing is above it. */
static int child_make(struct owner *o, struct owner_extent *x)
{
    struct owner_extent origin = *x;
    int rc = commit_point_tell(x, x->epoch, x->next_gen - 1);

    if (rc < 0)
        return rc;
    x->id = o->next_id++;
    x->epoch++;
    x->next_gen = 1;
    rc = extent_create(o, x, origin.id, origin.epoch);
    return rc == 0 ? extent_open(o, x) : rc;
}

struct child_job {
    struct owner *owner;
    struct owner_extent *extent;
    int rc;
    char why[200];
};

static int child_main(void *arg)
{
    struct child_job *job = arg;
    struct co_range range;

    co_range_acquire_always(&job->extent->ranges, &range, 0, EXTENT_BYTES, true);
    job->rc = child_make(job->owner, job->extent);
    if (job->rc < 0)
        snprintf(job->why, sizeof(job->why), "%s", err_text(job->rc));
    co_range_release(&job->extent->ranges, &range);
    return 0;
}

int owner_children(struct owner *o)
{
    struct child_job *jobs = MEM_NEW_ARRAY(struct child_job, o->conf.n_extents);
    struct co_group group;
    int rc = 0;

    co_group_init(&group);
    for (uint32_t i = 0; i < o->conf.n_extents; i++) {
        jobs[i].owner = o;
        jobs[i].extent = &o->extents[i];
        co_spawn(&group, "child", child_main, &jobs[i]);
    }
    (void)co_group_join(&group);
    for (uint32_t i = 0; i < o->conf.n_extents && rc == 0; i++) {
        if (jobs[i].rc < 0)
            rc = err_set(jobs[i].rc, "a child of extent %" PRIu64 ": %s", jobs[i].extent->family,
                         jobs[i].why);
    }
    mem_free(jobs);
    return rc;
}
