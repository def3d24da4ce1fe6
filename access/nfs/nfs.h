/* SPDX-License-Identifier: Apache-2.0
 *
 * The NFS server of an access server: NFS version 3 and MOUNT version 3 on one port, and a
 * portmapper on another, for clients that ask there. README.md describes its parts. Belongs to the
 * loop that started it. */
#ifndef ZBS_ACCESS_NFS_NFS_H
#define ZBS_ACCESS_NFS_NFS_H

#include "access/nfs/file.h"
#include "access/nfs/rpc.h"

struct nfs_server;

struct nfs_conf {
    const char *listen;           /* "127.1.0.1:2049"; port 0: a free one */
    const char *portmap_listen;   /* "127.1.0.1:111"; NULL, "": none */
    uint32_t client_portmap_port; /* where clients' portmappers listen; 0: 111 */
    uint32_t connections;         /* most at once; 0: 1024 */
    uint32_t calls;               /* of a connection in flight; 0: 128 */
    uint32_t memory_bytes;        /* payload of a connection; 0: 32 MiB */
    uint32_t stop_timeout_ms;     /* at a stop, for what is in flight; 0: 1,000 */
    const char *cluster_id;       /* file handles are of this cluster */
    struct nfs_backend backend;
};

/* Listens and serves in the background. */
co_fn int nfs_server_start(const struct nfs_conf *conf, struct nfs_server **ret) MUST_CHECK;
/* Reads no more calls, answers those in flight, closes, frees. */
co_fn void nfs_server_stop(struct nfs_server *s);
struct nfs_files *nfs_server_files(struct nfs_server *s);        /* what it serves */
const char *nfs_server_addr(const struct nfs_server *s);         /* with the real port */
const char *nfs_server_portmap_addr(const struct nfs_server *s); /* "" */

/* Ends every connection; what the engine has not got yet is not begun. Does not suspend. */
void nfs_server_drop(struct nfs_server *s, const char *why);
void nfs_server_volume_changed(struct nfs_server *s, uint64_t volume_id);
/* Meta wants a write lease of a file back. Does not suspend. */
void nfs_server_recalled(struct nfs_server *s, uint64_t inode_id, uint64_t lease);

/* Who is connected, for status. */
void nfs_server_clients(const struct nfs_server *s,
                        void (*fn)(void *arg, const struct onc_client_view *v), void *arg);

#endif
