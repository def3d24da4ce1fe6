/* SPDX-License-Identifier: Apache-2.0
 *
 * Networks, as access lists name clients.
 *
 *     10.0.0.7    10.0.0.0/24    fd00::7    fd00::/8    * */
#ifndef ZBS_BASE_NETWORK_H
#define ZBS_BASE_NETWORK_H

#include "common/base/addr.h"

struct network {
    bool any; /* every address; else: */
    enum addr_kind kind;
    uint8_t ip[16];
    uint32_t prefix; /* bits of ip that count */
};

/* ERR_INVAL with a text that says what is wrong and shows a right one; so are bits behind the
 * prefix that are not 0, because then one of the two is not what was meant. */
int network_parse(const char *text, struct network *ret) MUST_CHECK;
/* An IPv4 address that a socket for both kinds shows as ::ffff:a.b.c.d is the IPv4 address. */
bool network_contains(const struct network *n, const struct addr *addr);

#endif
