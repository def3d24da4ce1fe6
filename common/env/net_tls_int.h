/* SPDX-License-Identifier: Apache-2.0
 *
 * Between env.c, which dispatches a stream's calls, and the files of TLS. */
#ifndef ZBS_ENV_NET_TLS_INT_H
#define ZBS_ENV_NET_TLS_INT_H

#include <openssl/ssl.h>
#include "common/env/net_tls.h"

struct net_tls {
    SSL_CTX *ctx;
};

/* As net_readv and net_writev_full, of a stream that is TLS. */
co_fn ssize_t net_tls_readv(struct net_conn *c, const struct iovec *iov, int n) MUST_CHECK;
co_fn int net_tls_writev_full(struct net_conn *c, struct iovec *iov, int n) MUST_CHECK;
bool net_tls_readable(struct net_conn *c);
void net_tls_close(struct net_conn *c);

/* Text of the last failure of OpenSSL on this thread; forgets it. */
const char *net_tls_reason(void);

#endif
