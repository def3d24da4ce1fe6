/* SPDX-License-Identifier: Apache-2.0
 *
 * Decisions about chunk servers and access sessions, and what all decisions share. */
#include <inttypes.h>
#include <string.h>
#include "common/base/err.h"
#include "common/base/name.h"
#include "common/base/units.h"
#include "meta/check.h"
#include "meta/decide.h"

Zbs__Metalog__Record *record_new(struct pad *pad, Zbs__Metalog__Record__KindCase kind)
{
    Zbs__Metalog__Record *r = PAD_NEW(pad, Zbs__Metalog__Record);

    zbs__metalog__record__init(r);
    r->kind_case = kind;
    return r;
}

int decide_pool(const struct decide *d, const char *name, struct pool **ret)
{
    *ret = state_pool(d->st, name);
    if (*ret == NULL)
        return err_set(ERR_NOTFOUND,
                       "pool '%s' does not exist: create it with `zbs-cli pool create %s "
                       "--replicas 3`",
                       name, name);
    return 0;
}

int decide_volume(const struct decide *d, const char *pool, const char *name, struct volume **ret)
{
    struct pool *p;
    int rc = decide_pool(d, pool, &p);

    if (rc < 0)
        return rc;
    *ret = pool_volume(p, name);
    if (*ret == NULL)
        return err_set(ERR_NOTFOUND,
                       "volume '%s/%s' does not exist: `zbs-cli volume list` shows those that do",
                       pool, name);
    return 0;
}

int decide_session(const struct decide *d, uint64_t id, struct session **ret)
{
    *ret = state_session(d->st, id);
    if (*ret == NULL)
        return err_set(ERR_EXPIRED, "session %" PRIu64 " has ended: open a new one", id);
    return 0;
}

const struct place_chunk *world_chunk(const struct world *w, uint32_t id)
{
    for (uint32_t i = 0; i < w->n_chunks; i++) {
        if (w->chunks[i].id == id)
            return &w->chunks[i];
    }
    return NULL;
}

/* ---- chunk servers ---- */

static int check_chunk_register(const struct decide *d, const Zbs__Meta__ChunkRegisterRequest *rq)
{
    int rc = check_uuid("chunk server uuid", &rq->uuid);

    if (rc == 0)
        rc = check_addr("chunk server address", rq->addr);
    if (rc == 0)
        rc = check_addr_or_none("chunk server UNIX address", rq->addr_unix);
    if (rc == 0)
        rc = check_name_or_none("host", rq->host);
    if (rc == 0)
        rc = check_name_or_none("rack", rq->rack);
    if (rc == 0)
        rc = check_name_or_none("zone", rq->zone);
    if (rc < 0)
        return rc;
    if (rq->workers < 1 || rq->workers > 64)
        return err_set(ERR_INVAL, "%u workers: 1 to 64 are allowed", rq->workers);
    if (rq->n_disks > DISKS_MAX)
        return err_set(ERR_INVAL, "%zu disks: at most %u are allowed", rq->n_disks, DISKS_MAX);
    if (rq->cluster_id[0] != 0 && strcmp(rq->cluster_id, d->st->cluster_id) != 0)
        return err_set(ERR_REFUSED,
                       "the disks of chunk server %s belong to cluster %s, this is cluster %s: "
                       "point it to its own meta servers, or format its disks anew",
                       rq->addr, rq->cluster_id, d->st->cluster_id);
    return 0;
}

static bool chunk_is_as_told(const struct chunk *c, const Zbs__Meta__ChunkRegisterRequest *rq)
{
    return strcmp(c->addr, rq->addr) == 0 && strcmp(c->addr_unix, rq->addr_unix) == 0 &&
           strcmp(c->host, rq->host) == 0 && strcmp(c->rack, rq->rack) == 0 &&
           strcmp(c->zone, rq->zone) == 0 && c->workers == rq->workers;
}

int decide_chunk_register(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__ChunkRegisterRequest *rq = (const void *)d->rq;
    struct chunk *c;
    Zbs__Metalog__ChunkSet *m;
    int rc = check_chunk_register(d, rq);

    if (rc < 0)
        return rc;
    c = state_chunk_by_uuid(d->st, rq->uuid.data);
    if (c == NULL && rq->chunk_id != 0)
        return err_set(ERR_REFUSED,
                       "the disks of chunk server %s say that it is number %u of this cluster, "
                       "which does not know them",
                       rq->addr, rq->chunk_id);
    if (c != NULL && rq->chunk_id != 0 && c->id != rq->chunk_id)
        return err_set(ERR_REFUSED, "chunk server %s has number %u here, its disks say %u",
                       rq->addr, c->id, rq->chunk_id);
    if (c == NULL && d->st->chunks.count >= CHUNKS_MAX)
        return err_set(ERR_TOO_LARGE, "the cluster has %u chunk servers, the most allowed",
                       CHUNKS_MAX);
    *ret = NULL;
    if (c != NULL && chunk_is_as_told(c, rq))
        return 0;
    *ret = record_new(d->pad, ZBS__METALOG__RECORD__KIND_CHUNK_SET);
    (*ret)->chunk_set = m = PAD_NEW(d->pad, Zbs__Metalog__ChunkSet);
    zbs__metalog__chunk_set__init(m);
    m->chunk_id = c != NULL ? c->id : 0;
    m->uuid = rq->uuid;
    m->addr = rq->addr;
    m->addr_unix = rq->addr_unix;
    m->host = rq->host;
    m->rack = rq->rack;
    m->zone = rq->zone;
    m->workers = rq->workers;
    return 0;
}

int answer_chunk_register(const struct decide *d, ProtobufCMessage *reply)
{
    const Zbs__Meta__ChunkRegisterRequest *rq = (const void *)d->rq;
    Zbs__Meta__ChunkRegisterReply *m = (void *)reply;

    m->chunk_id = state_chunk_by_uuid(d->st, rq->uuid.data)->id;
    m->cluster_id = (char *)d->st->cluster_id;
    m->heartbeat_ms = MAX(d->w->chunk_dead_ms / 4, 10u);
    return 0;
}

/* Confirmed deletions leave the list. */
int decide_chunk_heartbeat(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__ChunkHeartbeatRequest *rq = (const void *)d->rq;
    struct chunk *c = state_chunk(d->st, rq->chunk_id);
    Zbs__Metalog__GarbageDone *m;
    uint64_t *ids;
    size_t n = 0;

    *ret = NULL;
    if (rq->n_disks > DISKS_MAX || rq->n_deleted_extents > BATCH_ITEMS_MAX)
        return err_set(ERR_INVAL, "too many disks or deleted extents in one heartbeat");
    if (c == NULL)
        return 0;
    ids = PAD_NEW_ARRAY(d->pad, uint64_t, rq->n_deleted_extents);
    for (size_t i = 0; i < rq->n_deleted_extents; i++) {
        if (idmap_get(&c->garbage, rq->deleted_extents[i]) != 0)
            ids[n++] = rq->deleted_extents[i];
    }
    if (n == 0)
        return 0;
    *ret = record_new(d->pad, ZBS__METALOG__RECORD__KIND_GARBAGE_DONE);
    (*ret)->garbage_done = m = PAD_NEW(d->pad, Zbs__Metalog__GarbageDone);
    zbs__metalog__garbage_done__init(m);
    m->chunk_id = c->id;
    m->extent_ids = ids;
    m->n_extent_ids = n;
    return 0;
}

/* ---- access sessions ---- */

static int check_session_open(const Zbs__Meta__SessionOpenRequest *rq)
{
    int rc = name_check("access server name", rq->name, NAME_BYTES_MAX);

    if (rc == 0)
        rc = check_addr("access server address", rq->addr);
    if (rc == 0)
        rc = check_addr_or_none("iSCSI portal", rq->iscsi_portal);
    if (rc == 0)
        rc = check_name_or_none("host", rq->host);
    if (rc == 0)
        rc = check_name_or_none("rack", rq->rack);
    if (rc == 0)
        rc = check_name_or_none("zone", rq->zone);
    return rc;
}

int decide_session_open(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__SessionOpenRequest *rq = (const void *)d->rq;
    struct session *former;
    Zbs__Metalog__SessionStart *m;
    int rc = check_session_open(rq);

    if (rc < 0)
        return rc;
    *ret = NULL;
    former = state_session_by_name(d->st, rq->name);
    if (former != NULL && former->incarnation == rq->incarnation && rq->incarnation != 0)
        return 0; /* asked again */
    if (former != NULL && !rq->former_is_dead)
        return err_set(ERR_AGAIN,
                       "access server '%s' still has a session; it expires within %u ms of its "
                       "last sign of life",
                       rq->name, d->w->session_ttl_ms);
    if (former == NULL && d->st->sessions.count >= SESSIONS_MAX)
        return err_set(ERR_TOO_LARGE, "the cluster has %u access servers, the most allowed",
                       SESSIONS_MAX);
    *ret = record_new(d->pad, ZBS__METALOG__RECORD__KIND_SESSION_START);
    (*ret)->session_start = m = PAD_NEW(d->pad, Zbs__Metalog__SessionStart);
    zbs__metalog__session_start__init(m);
    m->name = rq->name;
    m->incarnation = rq->incarnation;
    m->addr = rq->addr;
    m->host = rq->host;
    m->rack = rq->rack;
    m->zone = rq->zone;
    m->iscsi_portal = rq->iscsi_portal;
    m->replaces = former != NULL ? former->id : 0;
    return 0;
}

int answer_session_open(const struct decide *d, ProtobufCMessage *reply)
{
    const Zbs__Meta__SessionOpenRequest *rq = (const void *)d->rq;
    Zbs__Meta__SessionOpenReply *m = (void *)reply;

    m->session_id = state_session_by_name(d->st, rq->name)->id;
    m->ttl_ms = d->w->session_ttl_ms;
    m->renew_ms = MAX(d->w->session_ttl_ms / 4, 10u);
    m->cluster_id = (char *)d->st->cluster_id;
    return 0;
}

static Zbs__Metalog__Record *session_end(struct pad *pad, uint64_t session_id, bool expired)
{
    Zbs__Metalog__Record *r = record_new(pad, ZBS__METALOG__RECORD__KIND_SESSION_END);

    r->session_end = PAD_NEW(pad, Zbs__Metalog__SessionEnd);
    zbs__metalog__session_end__init(r->session_end);
    r->session_end->session_id = session_id;
    r->session_end->expired = expired;
    return r;
}

int decide_session_close(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__SessionCloseRequest *rq = (const void *)d->rq;

    *ret = NULL;
    if (state_session(d->st, rq->session_id) != NULL)
        *ret = session_end(d->pad, rq->session_id, false);
    return 0;
}

Zbs__Metalog__Record *decide_session_expiry(struct pad *pad, uint64_t session_id)
{
    return session_end(pad, session_id, true);
}

Zbs__Metalog__Record *decide_sweep(const struct state *st, struct pad *pad)
{
    Zbs__Metalog__Record *r;
    struct volume *v;

    if (st->removed.count == 0)
        return NULL;
    v = st->removed.items[0];
    r = record_new(pad, ZBS__METALOG__RECORD__KIND_VOLUME_SWEEP);
    r->volume_sweep = PAD_NEW(pad, Zbs__Metalog__VolumeSweep);
    zbs__metalog__volume_sweep__init(r->volume_sweep);
    r->volume_sweep->volume_id = v->id;
    r->volume_sweep->max = SWEEP_MAX;
    return r;
}
