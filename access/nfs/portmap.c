/* SPDX-License-Identifier: Apache-2.0
 *
 * The portmapper, version 2 (RFC 1833, 3): where the programs of this access server listen. Nobody
 * can register anything here, and it calls nobody on others' behalf. */
#include "access/nfs/nfs_int.h"

/* What NFS clients look for; over both protocols at one port, but NFS itself. */
static const struct {
    const struct onc_program *program;
    uint32_t protocol;
} mappings[] = {
    {&nfs_program, PORTMAP_TCP},        {&nfs_mount_program, PORTMAP_TCP},
    {&nfs_mount_program, PORTMAP_UDP},  {&nfs_lock_program, PORTMAP_TCP},
    {&nfs_lock_program, PORTMAP_UDP},   {&nfs_status_program, PORTMAP_TCP},
    {&nfs_status_program, PORTMAP_UDP},
};

static co_fn enum onc_accept on_refused(struct onc_call *call)
{
    xdr_put_bool(&call->out, false);
    return ONC_SUCCESS;
}

static co_fn enum onc_accept on_getport(struct onc_call *call)
{
    uint32_t number = xdr_u32(&call->args), version = xdr_u32(&call->args);
    uint32_t protocol = xdr_u32(&call->args), port = 0;

    (void)xdr_u32(&call->args); /* port, without meaning here */
    if (call->args.bad)
        return ONC_GARBAGE_ARGS;
    for (size_t i = 0; i < ARRAY_SIZE(mappings); i++) {
        const struct onc_program *p = mappings[i].program;

        if (p->number == number && p->version == version && mappings[i].protocol == protocol)
            port = nfs_server_of(call)->port;
    }
    xdr_put_u32(&call->out, port);
    return ONC_SUCCESS;
}

static co_fn enum onc_accept on_dump(struct onc_call *call)
{
    for (size_t i = 0; i < ARRAY_SIZE(mappings); i++) {
        xdr_put_bool(&call->out, true);
        xdr_put_u32(&call->out, mappings[i].program->number);
        xdr_put_u32(&call->out, mappings[i].program->version);
        xdr_put_u32(&call->out, mappings[i].protocol);
        xdr_put_u32(&call->out, nfs_server_of(call)->port);
    }
    xdr_put_bool(&call->out, false);
    return ONC_SUCCESS;
}

static const struct onc_procedure procedures[PORTMAP_PROCEDURES] = {
    [PORTMAP_NULL] = {.name = "NULL"},
    [PORTMAP_SET] = {.name = "SET", .handler = on_refused},
    [PORTMAP_UNSET] = {.name = "UNSET", .handler = on_refused},
    [PORTMAP_GETPORT] = {.name = "GETPORT", .handler = on_getport},
    [PORTMAP_DUMP] = {.name = "DUMP", .handler = on_dump},
};

const struct onc_program nfs_portmap_program = {
    .number = PORTMAP_PROGRAM,
    .version = PORTMAP_V2,
    .name = "portmap",
    .procedures = procedures,
    .procedure_count = PORTMAP_PROCEDURES,
};
