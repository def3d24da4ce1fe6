/* SPDX-License-Identifier: Apache-2.0
 *
 * TLS under a stream of env.h. Both ends agree, by whatever they say on the stream, that TLS
 * follows, with nothing on its way between them; then one calls net_tls_accept and the other
 * net_tls_connect, and the stream behaves as before: net_readv, net_writev_full, net_shutdown,
 * net_close and all that is built on them. Works in production and in the simulator alike, since
 * only bytes in memory pass through OpenSSL (whose random numbers are real in both).
 *
 * TLS 1.2 and 1.3; no renegotiation, no resumption, no early data, no compression. A handshake is
 * bounded by the caller's deadline and takes at most NET_TLS_HANDSHAKE_BYTES of the peer's bytes;
 * its arithmetic runs in the pool. A stream holds about 200 KiB.
 *
 * A stream that ends without TLS's own goodbye ends with ERR_CLOSED like every other: protocols
 * above say themselves when they are done, so what was cut off is never taken for whole. */
#ifndef ZBS_ENV_NET_TLS_H
#define ZBS_ENV_NET_TLS_H

#include "common/env/env.h"

#define NET_TLS_HANDSHAKE_BYTES (128u * 1024)

/* Who we are, and whom we believe: read once, so new files count after the next net_tls_new. */
struct net_tls;

/* Paths of PEM files; NULL, "": none. */
struct net_tls_files {
    const char *cert; /* our certificate, then those between it and its authority */
    const char *key;  /* of our certificate, without a password */
    const char *ca;   /* authorities, one of which must have signed the peer's certificate */
};

/* With a certificate but no authorities we serve whoever comes; without a certificate we can only
 * be a client. An expired certificate is logged, and used. Errors name the file. */
co_fn int net_tls_new(const struct net_tls_files *files, struct net_tls **ret) MUST_CHECK;
void net_tls_free(
    struct net_tls *tls); /* not while a handshake with it is under way; NULL: no-op */

/* Turns the stream into TLS. ERR_REFUSED: one side does not accept the other's certificate, or its
 * lack; ERR_PROTO: what came is no TLS, or no version that we speak. Interruptible. After an error
 * the connection is useless: close it. */
co_fn int net_tls_accept(struct net_conn *c, const struct net_tls *tls) MUST_CHECK;
/* name: host that the server's certificate has to be made out to; NULL: any. */
co_fn int net_tls_connect(struct net_conn *c, const struct net_tls *tls,
                          const char *name) MUST_CHECK;

/* Of a stream that is TLS, for logs: "TLSv1.3"; subject of the peer's certificate, "" if it showed
 * none. */
const char *net_tls_version(const struct net_conn *c);
const char *net_tls_peer(const struct net_conn *c);

#endif
