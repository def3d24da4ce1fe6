/* SPDX-License-Identifier: Apache-2.0
 *
 * zbs-cli: calls to the cluster and what a failed one means to the user. */
#include "tools/cli/cli.h"

#include <stdio.h>
#include <string.h>

#include "common/base/assert.h"
#include "proto/chunk.pb-c.h"

#define CALL_SECONDS 15

enum cli_exit cli_report(int rc, const char *where)
{
    switch (rc) {
    case ERR_UNREACHABLE:
    case ERR_TIMEOUT:
    case ERR_CLOSED:
    case ERR_NOT_LEADER:
    case ERR_AGAIN:
        fprintf(stderr, "zbs-cli: %s: %s\n", where, err_text(rc));
        return CLI_UNREACHABLE;
    case ERR_NOTFOUND:
        fprintf(stderr, "zbs-cli: %s\n", err_text(rc));
        return CLI_NOT_FOUND;
    default:
        fprintf(stderr, "zbs-cli: %s\n", err_text(rc));
        return CLI_FAILED;
    }
}

enum cli_exit cli_meta_call(struct cli *c, enum meta_method method, const ProtobufCMessage *request,
                            struct rpc_reply *r)
{
    nsec_t former = co_deadline_push(co_now() + CALL_SECONDS * NSEC_PER_SEC);
    enum cli_exit rc = CLI_OK;
    int err;

    rpc_reply_init(r);
    err = meta_call(c->meta, method, request, true, r);
    co_deadline_restore(former);
    if (err < 0) {
        char where[1200];

        snprintf(where, sizeof(where),
                 "no answer from a meta leader at %s (are the meta servers and ZooKeeper running? "
                 "see their logs)",
                 c->meta_addrs);
        rc = cli_report(err, where);
        rpc_reply_free(r);
    }
    return rc;
}

enum cli_exit cli_cluster_status(struct cli *c, struct rpc_reply *r)
{
    Zbs__Meta__ClusterStatusRequest q = ZBS__META__CLUSTER_STATUS_REQUEST__INIT;

    return cli_meta_call(c, META_CLUSTER_STATUS, &q.base, r);
}

static const Zbs__Meta__ChunkView *chunk_view(const Zbs__Meta__ClusterStatusReply *s,
                                              const char *name)
{
    for (size_t i = 0; i < s->n_chunks; i++) {
        const Zbs__Meta__ChunkView *v = s->chunks[i]->view;
        char id[16];

        snprintf(id, sizeof(id), "%u", v->chunk_id);
        if (!strcmp(id, name) || !strcmp(v->host, name))
            return v;
    }
    return NULL;
}

enum cli_exit cli_chunk_find(struct cli *c, const char *name, struct cli_chunk *ret)
{
    const Zbs__Meta__ChunkView *v;
    struct rpc_reply r;
    enum cli_exit rc = cli_cluster_status(c, &r);

    if (rc)
        return rc;
    v = chunk_view((const Zbs__Meta__ClusterStatusReply *)r.msg, name);
    if (v) {
        ret->id = v->chunk_id;
        snprintf(ret->host, sizeof(ret->host), "%s", v->host);
        snprintf(ret->addr, sizeof(ret->addr), "%s", v->addr);
    } else {
        fprintf(stderr, "zbs-cli: there is no chunk server '%s': 'zbs-cli chunk list' shows them\n",
                name);
        rc = CLI_NOT_FOUND;
    }
    rpc_reply_free(&r);
    return rc;
}

int cli_chunk_try(const struct cli_chunk *chunk, const char *method,
                  const ProtobufCMessage *request, uint32_t seconds, struct rpc_reply *r)
{
    const ProtobufCServiceDescriptor *service = &zbs__chunk__chunk__descriptor;
    const ProtobufCMethodDescriptor *m =
        protobuf_c_service_descriptor_get_method_by_name(service, method);
    nsec_t former = co_deadline_push(co_now() + seconds * NSEC_PER_SEC);
    struct rpc_client *client = rpc_client_new(
        &(struct rpc_client_conf){.addr = chunk->addr, .self = "zbs-cli", .cluster_id = ""});
    int rc;

    ASSERTF(m != NULL, "%s", method);
    rpc_reply_init(r);
    rc = rpc_call(client, service, (uint32_t)(m - service->methods), request, NULL, r);
    co_deadline_restore(former);
    rpc_client_close(client);
    return rc;
}

enum cli_exit cli_chunk_call(struct cli *c, const char *name, const char *method,
                             const ProtobufCMessage *request, uint32_t seconds, uint32_t *ret_id,
                             struct rpc_reply *r)
{
    struct cli_chunk chunk;
    enum cli_exit rc = cli_chunk_find(c, name, &chunk);
    int err;

    if (rc)
        return rc;
    if (ret_id)
        *ret_id = chunk.id;
    err = cli_chunk_try(&chunk, method, request, seconds, r);
    if (err < 0) {
        rc = cli_report(err, chunk.addr);
        rpc_reply_free(r);
    }
    return rc;
}
