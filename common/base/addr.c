/* SPDX-License-Identifier: Apache-2.0
 *
 * Addresses of services as text. */
#include <arpa/inet.h>
#include <string.h>
#include "common/base/addr.h"
#include "common/base/conf.h"
#include "common/base/err.h"

#define UNIX_PREFIX "unix:"

static int unix_parse(const char *path, struct addr *ret)
{
    size_t len = strlen(path);

    if (len == 0 || len > ADDR_UNIX_PATH_MAX)
        return err_set(ERR_INVAL, "the path of a UNIX socket has 1 to %d bytes, not %zu",
                       ADDR_UNIX_PATH_MAX, len);
    ret->kind = ADDR_UNIX;
    ret->path = path;
    return 0;
}

static int port_parse(const char *text, const char *digits, uint16_t *ret)
{
    uint64_t port = 0;

    if (conf_u64_parse(digits, &port) < 0 || port > UINT16_MAX)
        return err_set(ERR_INVAL, "'%.80s': '%.20s' is not a port (0 to %u)", text, digits,
                       UINT16_MAX);
    *ret = (uint16_t)port;
    return 0;
}

static int not_numeric(const char *text)
{
    return err_set(ERR_INVAL,
                   "'%.80s' is not numeric: write for example 10.0.0.1:7200 or [fd00::1]:7200",
                   text);
}

int addr_parse(const char *text, struct addr *ret)
{
    const char *colon = strrchr(text, ':'), *host = text;
    char ip[INET6_ADDRSTRLEN];
    bool bracketed;
    size_t len;
    int rc;

    memset(ret, 0, sizeof(*ret));
    if (strncmp(text, UNIX_PREFIX, strlen(UNIX_PREFIX)) == 0)
        return unix_parse(text + strlen(UNIX_PREFIX), ret);
    if (colon == NULL)
        return err_set(ERR_INVAL,
                       "'%.80s' has no port: write for example 10.0.0.1:7200 or [fd00::1]:7200",
                       text);
    rc = port_parse(text, colon + 1, &ret->port);
    if (rc < 0)
        return rc;
    len = (size_t)(colon - text);
    bracketed = len > 2 && host[0] == '[' && host[len - 1] == ']';
    if (bracketed) {
        host++;
        len -= 2;
    }
    if (len >= sizeof(ip))
        return not_numeric(text);
    memcpy(ip, host, len);
    ip[len] = '\0';
    ret->kind = bracketed ? ADDR_INET6 : ADDR_INET;
    if (inet_pton(bracketed ? AF_INET6 : AF_INET, ip, ret->ip) != 1)
        return not_numeric(text);
    return 0;
}

bool addr_same_host(const char *a, const char *b)
{
    struct addr x, y;

    return addr_parse(a, &x) == 0 && addr_parse(b, &y) == 0 && x.kind == y.kind &&
           x.kind != ADDR_UNIX && memcmp(x.ip, y.ip, sizeof(x.ip)) == 0;
}

bool addr_is_any(const struct addr *addr)
{
    static const uint8_t none[sizeof(addr->ip)];

    return addr->kind != ADDR_UNIX && memcmp(addr->ip, none, sizeof(none)) == 0;
}
