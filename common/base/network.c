/* SPDX-License-Identifier: Apache-2.0
 *
 * Networks as text, and who belongs to them. */
#include "common/base/network.h"

#include <arpa/inet.h>
#include <string.h>
#include "common/base/conf.h"
#include "common/base/err.h"

static int not_a_network(const char *text)
{
    return err_set(ERR_INVAL,
                   "'%.80s' is not a network: write for example 10.0.0.0/24, 10.0.0.7, fd00::/8 "
                   "or * for everybody",
                   text);
}

/* Does a byte of the address count, and which of its bits? */
static uint8_t mask_of(const struct network *n, uint32_t byte)
{
    uint32_t before = byte * 8;

    if (n->prefix >= before + 8)
        return 0xff;
    return n->prefix <= before ? 0 : (uint8_t)(0xff << (before + 8 - n->prefix));
}

static int prefix_parse(const char *text, const char *digits, struct network *ret)
{
    uint32_t most = ret->kind == ADDR_INET ? 32 : 128;
    uint64_t prefix = most;

    if (digits != NULL && (conf_u64_parse(digits, &prefix) < 0 || prefix > most))
        return err_set(ERR_INVAL, "'%.80s': '%.20s' is not a prefix length (0 to %u)", text, digits,
                       most);
    ret->prefix = (uint32_t)prefix;
    for (uint32_t i = 0; i < sizeof(ret->ip); i++) {
        if (ret->ip[i] & ~mask_of(ret, i))
            return err_set(ERR_INVAL, "'%.80s' has bits set behind its prefix", text);
    }
    return 0;
}

int network_parse(const char *text, struct network *ret)
{
    const char *slash = strchr(text, '/');
    size_t len = slash != NULL ? (size_t)(slash - text) : strlen(text);
    char ip[INET6_ADDRSTRLEN];

    memset(ret, 0, sizeof(*ret));
    ret->any = strcmp(text, "*") == 0;
    if (ret->any)
        return 0;
    if (len >= sizeof(ip))
        return not_a_network(text);
    memcpy(ip, text, len);
    ip[len] = '\0';
    ret->kind = strchr(ip, ':') != NULL ? ADDR_INET6 : ADDR_INET;
    if (inet_pton(ret->kind == ADDR_INET6 ? AF_INET6 : AF_INET, ip, ret->ip) != 1)
        return not_a_network(text);
    return prefix_parse(text, slash != NULL ? slash + 1 : NULL, ret);
}

static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

bool network_contains(const struct network *n, const struct addr *addr)
{
    bool is_mapped = addr->kind == ADDR_INET6 && memcmp(addr->ip, mapped, sizeof(mapped)) == 0;
    const uint8_t *ip = is_mapped ? addr->ip + sizeof(mapped) : addr->ip;
    enum addr_kind kind = is_mapped ? ADDR_INET : addr->kind;

    if (n->any)
        return true;
    if (kind != n->kind)
        return false;
    for (uint32_t i = 0; i * 8 < n->prefix; i++) {
        if ((ip[i] ^ n->ip[i]) & mask_of(n, i))
            return false;
    }
    return true;
}
