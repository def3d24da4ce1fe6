/* SPDX-License-Identifier: Apache-2.0
 *
 * zbs-cli: calls to the cluster and what a failed one means to the user. */
#include "tools/cli/cli.h"

#include <stdio.h>

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
