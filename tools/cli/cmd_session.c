/* SPDX-License-Identifier: Apache-2.0
 *
 * zbs-cli iscsi sessions, nfs clients: who is logged in or connected, as each access server tells
 * it. */
#include <stdio.h>

#include "common/base/assert.h"
#include "proto/access.pb-c.h"
#include "tools/cli/cli.h"

#define STATUS_SECONDS 5

static const struct cli_column session_columns[] = {
    {"access", "ACCESS", CLI_TEXT},
    {"initiator", "INITIATOR", CLI_TEXT},
    {"address", "ADDRESS", CLI_TEXT},
    {"target", "TARGET", CLI_TEXT},
    {"reads", "READS", CLI_TEXT},
    {"read_bytes", "READ", CLI_SIZE},
    {"writes", "WRITES", CLI_TEXT},
    {"write_bytes", "WRITTEN", CLI_SIZE},
    {0},
};
static const struct cli_column client_columns[] = {
    {"access", "ACCESS", CLI_TEXT},
    {"address", "ADDRESS", CLI_TEXT},
    {"machine", "MACHINE", CLI_TEXT},
    {"calls", "CALLS", CLI_TEXT},
    {0},
};

/* Rows of what one access server told. */
typedef void (*add_fn)(const char *access, const Zbs__Access__StatusReply *status, json_t *rows);

static int access_status(const char *addr, struct rpc_reply *r)
{
    Zbs__Access__StatusRequest q = ZBS__ACCESS__STATUS_REQUEST__INIT;
    const ProtobufCServiceDescriptor *service = &zbs__access__access__descriptor;
    const ProtobufCMethodDescriptor *m =
        protobuf_c_service_descriptor_get_method_by_name(service, "Status");
    nsec_t former = co_deadline_push(co_now() + STATUS_SECONDS * NSEC_PER_SEC);
    struct rpc_client *client = rpc_client_new(
        &(struct rpc_client_conf){.addr = addr, .self = "zbs-cli", .cluster_id = ""});
    int rc;

    ASSERT(m != NULL);
    rpc_reply_init(r);
    rc = rpc_call(client, service, (uint32_t)(m - service->methods), &q.base, NULL, r);
    co_deadline_restore(former);
    rpc_client_close(client);
    return rc;
}

static void add_sessions(const char *access, const Zbs__Access__StatusReply *status, json_t *rows)
{
    for (size_t i = 0; i < status->n_initiators; i++) {
        const Zbs__Access__InitiatorSession *s = status->initiators[i];

        json_array_append_new(
            rows, json_pack("{s:s,s:s,s:s,s:s,s:I,s:I,s:I,s:I}", "access", access, "initiator",
                            s->initiator, "address", s->address, "target", s->target, "reads",
                            (json_int_t)s->reads, "read_bytes", (json_int_t)s->read_bytes, "writes",
                            (json_int_t)s->writes, "write_bytes", (json_int_t)s->write_bytes));
    }
}

static void add_clients(const char *access, const Zbs__Access__StatusReply *status, json_t *rows)
{
    for (size_t i = 0; i < status->n_nfs_clients; i++) {
        const Zbs__Access__NfsClient *n = status->nfs_clients[i];

        json_array_append_new(rows, json_pack("{s:s,s:s,s:s,s:I}", "access", access, "address",
                                              n->address, "machine", n->machine, "calls",
                                              (json_int_t)n->calls));
    }
}

static enum cli_exit add_one(const Zbs__Meta__AccessView *access, add_fn add, json_t *rows)
{
    enum cli_exit rc = CLI_OK;
    struct rpc_reply r;
    int err = access_status(access->addr, &r);

    if (err < 0)
        rc = cli_report(err, access->name);
    else
        add(access->name, (const Zbs__Access__StatusReply *)r.msg, rows);
    rpc_reply_free(&r);
    return rc;
}

/* Shows what the others say if one does not answer, and ends with its error. */
static enum cli_exit show_all(struct cli *c, add_fn add, const struct cli_column *columns)
{
    const Zbs__Meta__ClusterStatusReply *s;
    struct rpc_reply r;
    enum cli_exit rc = cli_cluster_status(c, &r), printed;
    json_t *rows;

    if (rc)
        return rc;
    rows = json_array();
    s = (const Zbs__Meta__ClusterStatusReply *)r.msg;
    for (size_t i = 0; i < s->n_accesses; i++) {
        enum cli_exit one = add_one(s->accesses[i], add, rows);

        if (one)
            rc = one;
    }
    rpc_reply_free(&r);
    cli_sort(rows, "access");
    printed = cli_print_table(c, rows, columns);
    return rc ? rc : printed;
}

enum cli_exit cli_iscsi_sessions(struct cli *c)
{
    return show_all(c, add_sessions, session_columns);
}

enum cli_exit cli_nfs_clients(struct cli *c)
{
    return show_all(c, add_clients, client_columns);
}
