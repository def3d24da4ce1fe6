/* SPDX-License-Identifier: Apache-2.0
 *
 * The NBD server of an access server: fixed newstyle negotiation and transmission over TCP and a
 * UNIX socket. README.md describes its parts. Belongs to the loop that started it. */
#ifndef ZBS_ACCESS_NBD_NBD_H
#define ZBS_ACCESS_NBD_NBD_H

#include "access/block/block.h"
#include "common/env/net_tls.h"

struct nbd_server;

/* Of TCP connections; the UNIX socket is never encrypted. */
enum nbd_tls {
    NBD_TLS_OFF,
    NBD_TLS_ALLOWED,  /* clients choose */
    NBD_TLS_REQUIRED, /* nothing is said of any export before TLS */
};

struct nbd_conf {
    const char *listen;            /* "127.1.0.1:10809"; port 0: a free one; NULL, "": none */
    const char *listen_unix;       /* "unix:/run/zbs-access/nbd"; NULL, "": none */
    uint32_t connections;          /* most at once; 0: 256 */
    uint32_t requests;             /* of a connection in flight; 0: 128 */
    uint32_t memory_bytes;         /* payload of a connection; 0: 32 MiB */
    uint32_t handshake_timeout_ms; /* from connect to transmission; 0: 15,000 */
    uint32_t stop_timeout_ms;      /* at a stop, for what is in flight; 0: 1,000 */
    enum nbd_tls tls;
    const struct net_tls *tls_identity; /* of this server; outlives it; NULL with NBD_TLS_OFF */
    /* Opens an export by its name. ERR_NOTFOUND: there is none such. May suspend. */
    co_fn int (*open)(void *arg, const char *name, struct block_backend **ret);
    /* Calls fn for each export until it fails (fn may suspend). NULL: exports can't be listed. */
    co_fn int (*list)(void *arg, int (*fn)(void *fn_arg, const char *name), void *fn_arg);
    void *arg;
};

/* Listens and serves in the background. */
co_fn int nbd_server_start(const struct nbd_conf *conf, struct nbd_server **ret) MUST_CHECK;
/* Reads no more requests, answers those in flight, closes, frees. */
co_fn void nbd_server_stop(struct nbd_server *s);
const char *nbd_server_addr(const struct nbd_server *s); /* of TCP, with the real port; "" */

/* Ends every connection; what the back end has not got yet is not begun. Does not suspend. */
void nbd_server_drop(struct nbd_server *s, const char *why);

#endif
