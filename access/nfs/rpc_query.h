/* SPDX-License-Identifier: Apache-2.0
 *
 * ONC RPC (RFC 5531), the client's side, for the few calls that this server makes: one call to one
 * service, with a connection or a socket of its own. */
#ifndef ZBS_ACCESS_NFS_RPC_QUERY_H
#define ZBS_ACCESS_NFS_RPC_QUERY_H

#include "access/nfs/xdr.h"
#include "common/co/co.h"
#include "common/env/env.h"

#define ONC_QUERY_BYTES 4096u /* of an answer */

struct onc_service {
    char from[NET_ADDR_MAX]; /* our address, as the service is to see it; its port does not count */
    char to[NET_ADDR_MAX];
    bool udp;
    uint32_t program, version;
};

struct onc_answered {
    struct xdr_in in; /* the results */
    uint8_t bytes[ONC_QUERY_BYTES];
};

/* Waits for the answer until the coroutine's deadline, which there has to be; over UDP the call is
 * sent again meanwhile. Interruptible: then nobody knows whether it was executed. ERR_PROTO: it is
 * answered, but not with success. */
co_fn int onc_query(const struct onc_service *service, uint32_t procedure,
                    const struct xdr_out *args, struct onc_answered *ret) MUST_CHECK;

/* The same address with another port. */
void onc_address_with_port(char ret[NET_ADDR_MAX], const char *address, uint32_t port);

#endif
