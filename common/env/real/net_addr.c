/* SPDX-License-Identifier: Apache-2.0
 *
 * Socket addresses from and to the text form of env.h. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/env/real/net_addr.h"

#define UNIX_PREFIX "unix:"

static int parse_unix(const char *path, struct net_addr *ret)
{
    size_t len = strlen(path);

    if (len == 0 || len >= sizeof(ret->un.sun_path))
        return err_set(ERR_INVAL, "path of a UNIX socket: 1 to %zu bytes",
                       sizeof(ret->un.sun_path) - 1);
    ret->un.sun_family = AF_UNIX;
    memcpy(ret->un.sun_path, path, len + 1);
    ret->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + 1);
    return 0;
}

static int parse_port(const char *text, const char *digits, uint16_t *ret)
{
    unsigned long port;
    char *end;

    if (digits[0] < '0' || digits[0] > '9')
        return err_set(ERR_INVAL, "address %s: no port", text);
    errno = 0;
    port = strtoul(digits, &end, 10);
    if (errno != 0 || *end != '\0' || port > UINT16_MAX)
        return err_set(ERR_INVAL, "address %s: bad port", text);
    *ret = (uint16_t)port;
    return 0;
}

int net_addr_parse(const char *text, struct net_addr *ret)
{
    struct sockaddr_in *in4 = (struct sockaddr_in *)(void *)&ret->storage;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)(void *)&ret->storage;
    const char *colon = strrchr(text, ':'), *host = text;
    char ip[INET6_ADDRSTRLEN];
    size_t len;
    uint16_t port;
    int rc;

    memset(ret, 0, sizeof(*ret));
    if (strncmp(text, UNIX_PREFIX, strlen(UNIX_PREFIX)) == 0)
        return parse_unix(text + strlen(UNIX_PREFIX), ret);
    if (colon == NULL)
        return err_set(ERR_INVAL, "address %s: no port", text);
    rc = parse_port(text, colon + 1, &port);
    if (rc < 0)
        return rc;
    len = (size_t)(colon - text);
    if (len > 2 && host[0] == '[' && host[len - 1] == ']') {
        host++;
        len -= 2;
    }
    if (len >= sizeof(ip))
        return err_set(ERR_INVAL, "address %s is not numeric", text);
    memcpy(ip, host, len);
    ip[len] = '\0';
    if (host == text && inet_pton(AF_INET, ip, &in4->sin_addr) == 1) {
        in4->sin_family = AF_INET;
        in4->sin_port = htons(port);
        ret->len = sizeof(*in4);
        return 0;
    }
    if (host != text && inet_pton(AF_INET6, ip, &in6->sin6_addr) == 1) {
        in6->sin6_family = AF_INET6;
        in6->sin6_port = htons(port);
        ret->len = sizeof(*in6);
        return 0;
    }
    return err_set(ERR_INVAL, "address %s is not numeric", text);
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
