/* SPDX-License-Identifier: Apache-2.0
 *
 * Socket addresses from and to the text form of env.h. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include "common/base/addr.h"
#include "common/env/real/net_addr.h"

#define UNIX_PREFIX "unix:"

_Static_assert(ADDR_UNIX_PATH_MAX + 1 == sizeof(((struct sockaddr_un *)0)->sun_path),
               "the longest path fits");

int net_addr_parse(const char *text, struct net_addr *ret)
{
    struct sockaddr_in *in4 = (struct sockaddr_in *)(void *)&ret->storage;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)(void *)&ret->storage;
    struct addr a;
    int rc = addr_parse(text, &a);

    memset(ret, 0, sizeof(*ret));
    if (rc < 0)
        return err_prefix(rc, "address");
    switch (a.kind) {
    case ADDR_UNIX:
        ret->un.sun_family = AF_UNIX;
        memcpy(ret->un.sun_path, a.path, strlen(a.path) + 1);
        ret->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(a.path) + 1);
        break;
    case ADDR_INET:
        in4->sin_family = AF_INET;
        in4->sin_port = htons(a.port);
        memcpy(&in4->sin_addr, a.ip, sizeof(in4->sin_addr));
        ret->len = sizeof(*in4);
        break;
    default:
        in6->sin6_family = AF_INET6;
        in6->sin6_port = htons(a.port);
        memcpy(&in6->sin6_addr, a.ip, sizeof(in6->sin6_addr));
        ret->len = sizeof(*in6);
        break;
    }
    return 0;
}

void net_addr_any_port(struct net_addr *addr)
{
    if (addr->sa.sa_family == AF_INET)
        ((struct sockaddr_in *)(void *)&addr->storage)->sin_port = 0;
    else if (addr->sa.sa_family == AF_INET6)
        ((struct sockaddr_in6 *)(void *)&addr->storage)->sin6_port = 0;
}

void net_addr_format(const struct net_addr *addr, char ret[NET_ADDR_MAX])
{
    const struct sockaddr_in *in4 = (const void *)&addr->storage;
    const struct sockaddr_in6 *in6 = (const void *)&addr->storage;
    char ip[INET6_ADDRSTRLEN] = "?";

    switch (addr->sa.sa_family) {
    case AF_INET:
        inet_ntop(AF_INET, &in4->sin_addr, ip, sizeof(ip));
        snprintf(ret, NET_ADDR_MAX, "%s:%u", ip, ntohs(in4->sin_port));
        break;
    case AF_INET6:
        inet_ntop(AF_INET6, &in6->sin6_addr, ip, sizeof(ip));
        snprintf(ret, NET_ADDR_MAX, "[%s]:%u", ip, ntohs(in6->sin6_port));
        break;
    default:
        if (addr->len > offsetof(struct sockaddr_un, sun_path) && addr->un.sun_path[0] != '\0')
            snprintf(ret, NET_ADDR_MAX, UNIX_PREFIX "%.*s",
                     (int)strnlen(addr->un.sun_path, sizeof(addr->un.sun_path)), addr->un.sun_path);
        else
            snprintf(ret, NET_ADDR_MAX, UNIX_PREFIX);
        break;
    }
}
