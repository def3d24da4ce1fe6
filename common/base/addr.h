/* SPDX-License-Identifier: Apache-2.0
 *
 * Addresses of services as text, and nothing but text: what is valid is decided here, for the
 * configuration and for the network alike. Numeric only, because a name would have to be resolved
 * in the middle of something else.
 *
 *     127.0.0.1:7200    [fd00::1]:7200    unix:/run/zbs/chunk.sock */
#ifndef ZBS_BASE_ADDR_H
#define ZBS_BASE_ADDR_H

#include <stdbool.h>
#include "common/base/attr.h"

#define ADDR_UNIX_PATH_MAX 107 /* bytes that the kernel takes, without the terminator */

enum addr_kind { ADDR_INET, ADDR_INET6, ADDR_UNIX };

struct addr {
    enum addr_kind kind;
    uint8_t ip[16]; /* network order; INET: the first four */
    uint16_t port;
    const char *path; /* of a UNIX socket: points into the parsed text */
};

/* ERR_INVAL with a text that says what is wrong and shows a right one. Port 0 is accepted. */
int addr_parse(const char *text, struct addr *ret) MUST_CHECK;

/* Do both name the same host, whatever their ports? Not UNIX sockets, nor what is no address. */
bool addr_same_host(const char *a, const char *b);

/* 0.0.0.0 or [::]: good to listen at, but nobody can be told to connect to it. */
bool addr_is_any(const struct addr *addr);

#endif
