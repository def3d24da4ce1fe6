/* SPDX-License-Identifier: Apache-2.0
 *
 * Socket addresses from and to the text form of env.h. */
#ifndef ZBS_ENV_REAL_NET_ADDR_H
#define ZBS_ENV_REAL_NET_ADDR_H

#include <sys/socket.h>
#include <sys/un.h>
#include "common/env/env.h"

struct net_addr {
    union {
        struct sockaddr sa;
        struct sockaddr_storage storage;
        struct sockaddr_un un;
    };
    socklen_t len;
};

/* Numeric only, never resolves. ERR_INVAL. */
int net_addr_parse(const char *text, struct net_addr *ret) MUST_CHECK;
void net_addr_any_port(struct net_addr *addr);
/* For UNIX sockets without a name (a client): "unix:". */
void net_addr_format(const struct net_addr *addr, char ret[NET_ADDR_MAX]);

#endif
