/* SPDX-License-Identifier: Apache-2.0
 *
 * The Network Status Monitor, version 1 (XNFS, C702, chapter 11), as far as clients of a server
 * need it: one that has restarted says so, and its locks go. Nobody is monitored from here: this
 * server's locks survive it, so there is nothing that clients would have to be told. */
#include "access/nfs/nfs_int.h"

enum nsm_procedure { SM_NULL = 0, SM_NOTIFY = 6, NSM_PROCEDURES };

#define SM_NAME_MAX 1024u

static co_fn enum onc_accept on_notify(struct onc_call *call)
{
    char client[SM_NAME_MAX + 1];
    uint32_t len;
    const uint8_t *name = xdr_opaque(&call->args, SM_NAME_MAX, &len);

    (void)xdr_u32(&call->args); /* state */
    if (call->args.bad || name == NULL)
        return ONC_GARBAGE_ARGS;
    memcpy(client, name, len);
    client[len] = '\0';
    return nfs_locks_forget(call, client) == 0 ? ONC_SUCCESS : ONC_SYSTEM_ERR;
}

static const struct onc_procedure procedures[NSM_PROCEDURES] = {
    [SM_NULL] = {.name = "NULL"},
    [SM_NOTIFY] = {.name = "NOTIFY", .handler = on_notify},
};

const struct onc_program nfs_status_program = {
    .number = NSM_PROGRAM,
    .version = NSM_V1,
    .name = "nsm",
    .procedures = procedures,
    .procedure_count = NSM_PROCEDURES,
};
