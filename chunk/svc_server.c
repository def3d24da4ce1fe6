/* SPDX-License-Identifier: Apache-2.0
 *
 * The RPC service: requests about the server as a whole. Worker 0 has its disks. */
#include <inttypes.h>
#include <string.h>
#include "chunk/server.h"
#include "common/base/mem.h"

#define SCRUB_BAD_MAX      256u
#define SCRUB_RATE_DEFAULT (20 * MIB)

/* ---- what it is ---- */

static co_fn Zbs__Chunk__Cache *cache_message(struct rpc_request *q)
{
    struct server *s = ((struct worker *)q->ctx)->server;
    Zbs__Chunk__Cache *m = rpc_alloc(q, sizeof(*m));

    zbs__chunk__cache__init(m);
    for (uint32_t i = 0; i < s->n_workers; i++) {
        struct co_loop *home = co_enter(s->workers[i].loop);
        struct cache_stats st;

        engine_cache(s->workers[i].engine, &st);
        co_enter(home);
        m->bytes += st.bytes;
        m->hits += st.hits;
        m->misses += st.misses;
        m->ahead_read += st.ahead_read;
        m->ahead_used += st.ahead_used;
    }
    return m;
}

co_fn int svc_info(struct rpc_request *q)
{
    struct worker *w = q->ctx;
    struct server *s = w->server;
    Zbs__Chunk__InfoReply *reply = (Zbs__Chunk__InfoReply *)q->reply;
    struct disk_view *views;
    uint32_t n;

    reply->uuid.data = s->uuid;
    reply->uuid.len = sizeof(s->uuid);
    reply->chunk_id = s->chunk_id;
    reply->workers = s->n_workers;
    reply->incarnation = s->incarnation;
    if (w->index != 0)
        return 0; /* disks belong to the main loop */
    n = server_disk_views(s, &views);
    reply->n_disks = n;
    reply->disks = rpc_alloc(q, n * sizeof(*reply->disks));
    for (uint32_t i = 0; i < n; i++) {
        struct disk_view *copy = rpc_alloc(q, sizeof(*copy));

        *copy = views[i];
        reply->disks[i] = rpc_alloc(q, sizeof(Zbs__Chunk__Disk));
        disk_view_message(copy, reply->disks[i]);
    }
    mem_free(views);
    reply->cache = cache_message(q);
    return 0;
}

/* ---- disks ---- */

/* What the server says about one disk; NULL: it is gone. */
static co_fn Zbs__Chunk__Disk *disk_message(struct rpc_request *q, const char *path)
{
    struct worker *w = q->ctx;
    Zbs__Chunk__Disk *m = NULL;
    struct disk_view *views;
    uint32_t n = server_disk_views(w->server, &views);

    for (uint32_t i = 0; i < n; i++) {
        struct disk_view *copy;

        if (strcmp(views[i].path, path) != 0)
            continue;
        copy = rpc_alloc(q, sizeof(*copy));
        *copy = views[i];
        m = rpc_alloc(q, sizeof(*m));
        disk_view_message(copy, m);
    }
    mem_free(views);
    return m;
}

static int disk_request_check(const struct rpc_request *q, const char *path)
{
    const struct worker *w = q->ctx;

    if (w->index != 0)
        return err_set(ERR_INVAL, "disks are changed at instance 0");
    if (path == NULL || path[0] == 0 || strlen(path) > 255)
        return err_set(ERR_INVAL, "the path of the device is missing or too long");
    return 0;
}

co_fn int svc_disk_drain(struct rpc_request *q)
{
    const Zbs__Chunk__DiskDrainRequest *m = (const Zbs__Chunk__DiskDrainRequest *)q->msg;
    Zbs__Chunk__DiskDrainReply *reply = (Zbs__Chunk__DiskDrainReply *)q->reply;
    struct worker *w = q->ctx;
    int rc = disk_request_check(q, m->path);

    if (rc == 0)
        rc = server_disk_drain(w->server, m->path, m->cancel, m->copies);
    if (rc == 0)
        reply->disk = disk_message(q, m->path);
    return rc;
}

co_fn int svc_disk_remove(struct rpc_request *q)
{
    const Zbs__Chunk__DiskRemoveRequest *m = (const Zbs__Chunk__DiskRemoveRequest *)q->msg;
    Zbs__Chunk__DiskRemoveReply *reply = (Zbs__Chunk__DiskRemoveReply *)q->reply;
    struct worker *w = q->ctx;
    bool configured = false;
    int rc = disk_request_check(q, m->path);

    if (rc == 0)
        rc = server_disk_remove(w->server, m->path, m->force, &configured);
    reply->configured = configured;
    return rc;
}

co_fn int svc_disk_add(struct rpc_request *q)
{
    const Zbs__Chunk__DiskAddRequest *m = (const Zbs__Chunk__DiskAddRequest *)q->msg;
    Zbs__Chunk__DiskAddReply *reply = (Zbs__Chunk__DiskAddReply *)q->reply;
    struct worker *w = q->ctx;
    int rc = disk_request_check(q, m->path);

    if (rc == 0)
        rc = server_disk_add(w->server, &(struct disk_add){.path = m->path,
                                                           .journal_on = m->journal_on,
                                                           .guests = m->guest_rings,
                                                           .force = m->force});
    if (rc == 0)
        reply->disk = disk_message(q, m->path);
    return rc;
}

/* ---- scrubbing ---- */

co_fn int svc_scrub(struct rpc_request *q)
{
    const Zbs__Chunk__ScrubRequest *m = (const Zbs__Chunk__ScrubRequest *)q->msg;
    Zbs__Chunk__ScrubReply *reply = (Zbs__Chunk__ScrubReply *)q->reply;
    struct corrupt_page *bad = rpc_alloc(q, SCRUB_BAD_MAX * sizeof(*bad));
    struct worker *w = q->ctx;
    uint64_t rate = w->server->conf->scrub_bytes_per_s;
    struct scrub_status st;
    uint32_t n;

    if (w->index != 0)
        return err_set(ERR_INVAL, "scrubbing is asked for at instance 0");
    if (m->action > 2)
        return err_set(ERR_INVAL, "scrub action %" PRIu32, m->action);
    if (m->bytes_per_s != 0)
        rate = m->bytes_per_s;
    if (m->action == 1)
        server_scrub_start(w->server, rate != 0 ? rate : SCRUB_RATE_DEFAULT);
    if (m->action == 2)
        server_scrub_stop(w->server);
    n = server_scrub_view(w->server, &st, bad, SCRUB_BAD_MAX);
    reply->running = st.running;
    reply->rounds = st.rounds;
    reply->extents = st.extents;
    reply->extents_total = st.extents_total;
    reply->bytes = st.bytes;
    reply->errors = st.errors;
    reply->corrupt_count = st.corrupt;
    reply->corrupt = rpc_alloc(q, n * sizeof(*reply->corrupt));
    reply->n_corrupt = n;
    for (uint32_t i = 0; i < n; i++) {
        reply->corrupt[i] = rpc_alloc(q, sizeof(Zbs__Chunk__CorruptPage));
        zbs__chunk__corrupt_page__init(reply->corrupt[i]);
        reply->corrupt[i]->extent_id = bad[i].id;
        reply->corrupt[i]->page = bad[i].page;
    }
    return 0;
}
