/* SPDX-License-Identifier: Apache-2.0
 *
 * The cluster at one end of a stream. */
#include "tools/stream/cluster.h"

#include <stdio.h>
#include <string.h>

#include "common/base/units.h"

#define CALL_LIMIT    (60 * NSEC_PER_SEC) /* with all its repetitions */
#define ATTEMPT_LIMIT (15 * NSEC_PER_SEC)
#define PAUSE         (100 * NSEC_PER_MSEC)

int stream_meta(struct stream_cluster *c, enum meta_method method, const ProtobufCMessage *request,
                struct rpc_reply *r)
{
    nsec_t former = co_deadline_push(co_now() + CALL_LIMIT);
    int rc;

    rpc_reply_init(r);
    rc = meta_call(c->meta, method, request, true, r);
    co_deadline_restore(former);
    if (rc < 0)
        rpc_reply_free(r);
    return rc;
}

int stream_volume_get(struct stream_cluster *c, const char *pool, const char *volume,
                      const char *snapshot, struct rpc_reply *r)
{
    Zbs__Meta__VolumeGetRequest q = ZBS__META__VOLUME_GET_REQUEST__INIT;
    char name[2 * STREAM_NAME_ROOM];

    snprintf(name, sizeof(name), "%s%s%s", volume, snapshot ? "@" : "", snapshot ? snapshot : "");
    q.pool = (char *)pool;
    q.name = name;
    return stream_meta(c, META_VOLUME_GET, &q.base, r);
}

int stream_cluster_init(struct stream_cluster *c, struct meta_client *meta)
{
    Zbs__Meta__ClusterStatusRequest q = ZBS__META__CLUSTER_STATUS_REQUEST__INIT;
    const Zbs__Meta__ClusterStatusReply *s;
    struct rpc_reply r;
    int rc;

    *c = (struct stream_cluster){.meta = meta};
    rc = stream_meta(c, META_CLUSTER_STATUS, &q.base, &r);
    if (rc < 0)
        return rc;
    s = (const Zbs__Meta__ClusterStatusReply *)r.msg;
    for (size_t i = 0; i < s->n_accesses && c->n_accesses < STREAM_ACCESSES_MAX; i++)
        c->accesses[c->n_accesses++] = rpc_client_new(&(struct rpc_client_conf){
            .addr = s->accesses[i]->addr, .self = "stream", .cluster_id = ""});
    rpc_reply_free(&r);
    return c->n_accesses > 0
               ? 0
               : err_set(ERR_UNREACHABLE, "no access server is up: data goes through one");
}

void stream_cluster_fini(struct stream_cluster *c)
{
    for (uint32_t i = 0; i < c->n_accesses; i++)
        rpc_client_close(c->accesses[i]);
    c->n_accesses = 0;
}

/* May another server, or the same one a little later, succeed? */
static bool worth_repeating(int rc)
{
    switch (rc) {
    case ERR_UNREACHABLE:
    case ERR_CLOSED:
    case ERR_TIMEOUT:
    case ERR_AGAIN:
    case ERR_BUSY:
    case ERR_HALTED:
    case ERR_EXPIRED:
    case ERR_AMBIGUOUS:
        return true;
    default:
        return false;
    }
}

static int attempt(struct rpc_client *client, enum access_method method,
                   const ProtobufCMessage *request, struct buf *payload, uint32_t payload_len,
                   struct rpc_reply *r)
{
    nsec_t former = co_deadline_push(co_now() + ATTEMPT_LIMIT);
    struct rpc_payload out = {0};
    int rc;

    rpc_reply_init(r);
    if (payload)
        rpc_payload_add(&out, payload, 0, payload_len);
    rc = rpc_call(client, &zbs__access__access__descriptor, method, request, &out, r);
    co_deadline_restore(former);
    if (rc < 0)
        rpc_reply_free(r);
    return rc;
}

int stream_access(struct stream_cluster *c, enum access_method method,
                  const ProtobufCMessage *request, struct buf *payload, uint32_t payload_len,
                  struct rpc_reply *r)
{
    nsec_t until = co_now() + CALL_LIMIT;

    for (;;) {
        uint32_t at = c->at;
        int rc = attempt(c->accesses[at], method, request, payload, payload_len, r);

        if (!worth_repeating(rc) || co_now() >= until || co_now() >= co_deadline())
            return rc;
        if (c->at == at) /* nobody else has turned away yet */
            c->at = (at + 1) % c->n_accesses;
        rc = co_sleep(PAUSE);
        if (rc < 0)
            return rc;
    }
}
