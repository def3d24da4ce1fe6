/* SPDX-License-Identifier: Apache-2.0
 *
 * The access server as a function of its environment and configuration: main.c and the simulator
 * both enter here. */
#ifndef ZBS_ACCESS_ACCESSD_H
#define ZBS_ACCESS_ACCESSD_H

#include "access/vol/vol.h"

struct nfs_files;

struct accessd_conf {
    const char *name;     /* unique: "access-1" */
    const char *listen;   /* RPC address */
    const char *data_dir; /* lock file */
    const char *meta;     /* addresses of the meta servers, comma separated */
    const char *host, *rack, *zone;
    const char *iscsi_listen;    /* portal "127.1.0.1:3260"; "" for none */
    const char *iscsi_virtual;   /* NULL, "": none */
    uint32_t member_deadline_ms; /* a member that has not confirmed by then is removed; 0: 1000 */
    uint32_t iscsi_connections;  /* 0: 256 */
    const char *nbd_listen, *nbd_listen_unix;            /* NULL, "": none */
    uint32_t nbd_tls;                                    /* enum nbd_tls */
    const char *nbd_tls_cert, *nbd_tls_key, *nbd_tls_ca; /* PEM files; NULL, "": none */
    const char *nfs_listen, *portmap_listen;             /* likewise */
    uint32_t nfs_client_portmap;                         /* port of clients' portmappers; 0: 111 */
    void (*ready)(void *arg, const char *addr);          /* serving at addr; may be NULL */
    void *ready_arg;
    /* Called when the engine runs, before ready: the simulator's clients enter here. May be NULL.
     */
    void (*engine_ready)(void *arg, struct vol_engine *engine);
    /* Called before anything ends; what engine_ready has begun must have ended when it returns. A
     * coroutine's; may be NULL. */
    void (*engine_stopping)(void *arg);
    /* Called when NFS is served: they enter there, too, and end with the others. May be NULL. */
    void (*files_ready)(void *arg, struct nfs_files *files, struct meta_client *meta);
    void *engine_arg;
};

/* Runs until cancelled: 0; or a start-up error. A coroutine's body. */
co_fn int accessd_main(const struct accessd_conf *conf);

#endif
