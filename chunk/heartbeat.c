/* SPDX-License-Identifier: Apache-2.0
 *
 * The session with the meta leader: registration, heartbeats, garbage. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "chunk/server.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/cluster/layout.h"
#include "common/co/sync.h"

#define RETRY_NS     (200 * NSEC_PER_MSEC)
#define HEARTBEAT_MS 250u
#define CALL_NS      (2 * NSEC_PER_SEC)
#define LOST_MAX     1024u /* told in one heartbeat */
#define DELETED_MAX  4096u /* confirmations kept until a heartbeat got through */

struct session {
    struct server *s;
    struct meta_client *mc;
    uint32_t heartbeat_ms;
    bool registered;
    uint64_t *deleted;
    uint32_t n_deleted;
};

/* ---- disks in messages ---- */

struct disk_messages {
    struct disk_view *views;
    Zbs__Chunk__Disk *disks, **ptrs;
    uint32_t n;
};

static co_fn void disk_messages_make(struct server *s, struct disk_messages *m)
{
    m->n = server_disk_views(s, &m->views);
    m->disks = MEM_NEW_ARRAY(Zbs__Chunk__Disk, m->n + 1);
    m->ptrs = MEM_NEW_ARRAY(Zbs__Chunk__Disk *, m->n + 1);
    for (uint32_t i = 0; i < m->n; i++) {
        disk_view_message(&m->views[i], &m->disks[i]);
        m->ptrs[i] = &m->disks[i];
    }
}

static void disk_messages_free(struct disk_messages *m)
{
    mem_free(m->views);
    mem_free(m->disks);
    mem_free(m->ptrs);
}

/* ---- registration ---- */

static int identity_take(struct session *ss, const Zbs__Meta__ChunkRegisterReply *r)
{
    struct server *s = ss->s;

    if (r->chunk_id == 0 || r->cluster_id == NULL || strlen(r->cluster_id) >= sizeof(s->cluster_id))
        return err_set(ERR_PROTO, "a registration without ids");
    if ((s->chunk_id != 0 && s->chunk_id != r->chunk_id) ||
        (s->cluster_id[0] != 0 && strcmp(s->cluster_id, r->cluster_id) != 0))
        return err_set(ERR_REFUSED,
                       "this server is chunk %" PRIu32 " of cluster '%s', meta says chunk %" PRIu32
                       " of '%s'",
                       s->chunk_id, s->cluster_id, r->chunk_id, r->cluster_id);
    ss->heartbeat_ms = r->heartbeat_ms != 0 ? MIN(r->heartbeat_ms, 10000u) : HEARTBEAT_MS;
    if (s->chunk_id != 0)
        return 0;
    s->chunk_id = r->chunk_id;
    memcpy(s->cluster_id, r->cluster_id, strlen(r->cluster_id) + 1);
    return server_identity_save(s);
}

static co_fn int register_once(struct session *ss)
{
    struct server *s = ss->s;
    Zbs__Meta__ChunkRegisterRequest req = ZBS__META__CHUNK_REGISTER_REQUEST__INIT;
    struct disk_messages disks;
    struct rpc_reply reply;
    int rc;

    disk_messages_make(s, &disks);
    req.uuid.data = s->uuid;
    req.uuid.len = sizeof(s->uuid);
    req.chunk_id = s->chunk_id;
    req.incarnation = s->incarnation;
    req.addr = (char *)rpc_server_addr(s->rpc);
    req.addr_unix = (char *)(s->conf->listen_unix != NULL ? s->conf->listen_unix : "");
    req.host = (char *)(s->conf->host != NULL ? s->conf->host : "");
    req.rack = (char *)(s->conf->rack != NULL ? s->conf->rack : "");
    req.zone = (char *)(s->conf->zone != NULL ? s->conf->zone : "");
    req.workers = s->n_workers;
    req.cluster_id = s->cluster_id;
    req.disks = disks.ptrs;
    req.n_disks = disks.n;
    rpc_reply_init(&reply);
    rc = meta_call(ss->mc, META_CHUNK_REGISTER, &req.base, true, &reply);
    if (rc == 0)
        rc = identity_take(ss, (const Zbs__Meta__ChunkRegisterReply *)reply.msg);
    rpc_reply_free(&reply);
    disk_messages_free(&disks);
    if (rc == 0) {
        ss->registered = true;
        log_info("chunkd.registered", "chunk=%" PRIu32 " cluster=%s", s->chunk_id, s->cluster_id);
    }
    return rc;
}

/* ---- garbage ---- */

static co_fn void deletes_do(struct session *ss, const Zbs__Meta__ChunkHeartbeatReply *r)
{
    for (size_t i = 0; i < r->n_deletes && ss->n_deleted < DELETED_MAX; i++) {
        const Zbs__Chunk__DeleteItem *it = r->deletes[i];
        uint64_t family = it->family != 0 ? it->family : it->extent_id;
        struct worker *w = &ss->s->workers[extent_worker(family, ss->s->n_workers)];
        struct co_loop *home = co_enter(w->loop);
        int rc = engine_delete(w->engine, r->term, it->extent_id, it->epoch);

        co_enter(home);
        if (rc == 0)
            ss->deleted[ss->n_deleted++] = it->extent_id;
        else if (rc != ERR_BUSY && rc != ERR_IO) /* the latter: meta asks again */
            log_warn("garbage.refused", "extent=%" PRIu64 " why=\"%s\"", it->extent_id,
                     err_text(rc));
    }
}

/* ---- heartbeat ---- */

static co_fn uint32_t lost_gather(struct server *s, uint64_t *ids)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < s->n_workers; i++) {
        struct co_loop *home = co_enter(s->workers[i].loop);
        uint32_t more = engine_lost(s->workers[i].engine, ids + n, LOST_MAX - n);

        co_enter(home);
        n += MIN(more, LOST_MAX - n);
    }
    return n;
}

#define CORRUPT_TOLD 64u /* in one heartbeat */

struct corrupt_messages {
    Zbs__Chunk__CorruptPage pages[CORRUPT_TOLD], *ptrs[CORRUPT_TOLD];
};

static co_fn void corrupt_messages_make(struct server *s, struct corrupt_messages *m,
                                        Zbs__Meta__ChunkHeartbeatRequest *req)
{
    struct corrupt_page bad[CORRUPT_TOLD];
    struct scrub_status st;
    uint32_t n = server_scrub_view(s, &st, bad, CORRUPT_TOLD);

    for (uint32_t i = 0; i < n; i++) {
        zbs__chunk__corrupt_page__init(&m->pages[i]);
        m->pages[i].extent_id = bad[i].id;
        m->pages[i].page = bad[i].page;
        m->ptrs[i] = &m->pages[i];
    }
    req->corrupt_pages = m->ptrs;
    req->n_corrupt_pages = n;
}

static co_fn int heartbeat_once(struct session *ss)
{
    Zbs__Meta__ChunkHeartbeatRequest req = ZBS__META__CHUNK_HEARTBEAT_REQUEST__INIT;
    uint64_t *lost = MEM_NEW_ARRAY(uint64_t, LOST_MAX);
    uint32_t n_told = ss->n_deleted;
    struct corrupt_messages corrupt;
    struct disk_messages disks;
    struct rpc_reply reply;
    int rc;

    corrupt_messages_make(ss->s, &corrupt, &req);
    disk_messages_make(ss->s, &disks);
    req.chunk_id = ss->s->chunk_id;
    req.incarnation = ss->s->incarnation;
    req.disks = disks.ptrs;
    req.n_disks = disks.n;
    req.lost_extents = lost;
    req.n_lost_extents = lost_gather(ss->s, lost);
    req.deleted_extents = ss->deleted;
    req.n_deleted_extents = n_told;
    rpc_reply_init(&reply);
    rc = meta_call(ss->mc, META_CHUNK_HEARTBEAT, &req.base, true, &reply);
    if (rc == 0) {
        const Zbs__Meta__ChunkHeartbeatReply *r = (const Zbs__Meta__ChunkHeartbeatReply *)reply.msg;

        ss->n_deleted = 0; /* all of them were told */
        if (r->register_)
            ss->registered = false;
        deletes_do(ss, r);
    }
    rpc_reply_free(&reply);
    disk_messages_free(&disks);
    mem_free(lost);
    return rc;
}

co_fn int heartbeat_main(void *arg)
{
    struct session ss = {.s = arg, .heartbeat_ms = HEARTBEAT_MS};
    char self[32];
    int last = 0;

    snprintf(self, sizeof(self), "chunk-%" PRIu32, ss.s->chunk_id);
    ss.mc = meta_client_new(ss.s->conf->meta, self);
    ss.deleted = MEM_NEW_ARRAY(uint64_t, DELETED_MAX);
    while (!co_canceled()) {
        nsec_t start = co_now(), former = co_deadline_push(start + CALL_NS);
        int rc = ss.registered ? heartbeat_once(&ss) : register_once(&ss);

        co_deadline_restore(former);
        if (rc < 0 && rc != ERR_CANCELED && rc != last)
            log_warn("meta.unreachable", "why=\"%s\"", err_text(rc));
        last = rc;
        (void)co_sleep_until(start + (rc < 0 ? RETRY_NS : ss.heartbeat_ms * NSEC_PER_MSEC));
    }
    meta_client_close(ss.mc);
    mem_free(ss.deleted);
    return 0;
}
