/* SPDX-License-Identifier: Apache-2.0
 *
 * Shared by the files of access/nfs above ONC RPC: the three programs, shares, and what procedures
 * have in common. */
#ifndef ZBS_ACCESS_NFS_NFS_INT_H
#define ZBS_ACCESS_NFS_NFS_INT_H

#include <string.h>
#include "access/nfs/fh.h"
#include "access/nfs/nfs.h"
#include "access/nfs/proto.h"
#include "access/nfs/rpc.h"
#include "common/base/assert.h"
#include "common/base/limits.h"
#include "common/base/list.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/network.h"
#include "common/co/sync.h"
#include "common/env/env.h"

_Static_assert(ONC_GIDS_MAX == FILE_GROUPS_MAX, "all groups of a credential count");

struct nfs_server;

/* ---- shares (share.c) ---- */

struct nfs_permit { /* an entry of an access list */
    struct network network;
    char *text; /* as the administrator wrote it */
    bool read_only;
    Zbs__Meta__ShareClient__Squash squash;
};

struct nfs_share {
    uint64_t id, root;
    char *name, *pool;
    uint32_t anonymous_uid, anonymous_gid;
    struct nfs_permit *clients;
    size_t client_count;
};

/* As meta told last. Read anew by whoever finds it older than a second. */
struct nfs_shares {
    struct nfs_share *list;
    size_t count;
    bool known;          /* there was an answer once */
    bool failing;        /* the last attempt had none: nobody waits for the next one */
    bool reading;        /* an attempt is under way */
    nsec_t tried_at;     /* when the last attempt began */
    struct co_cond read; /* an attempt has ended */
    struct co_group group;
};

void nfs_shares_init(struct nfs_shares *shares);
co_fn void nfs_shares_fini(struct nfs_shares *shares);
/* The list is not older than a second, or meta can't be reached. ERR_AGAIN: there never was one. */
co_fn int nfs_shares_refresh(struct nfs_server *s) MUST_CHECK;
/* The list is read anew now: for a mount, which may follow the share's creation at once. */
co_fn int nfs_shares_reread(struct nfs_server *s) MUST_CHECK;
/* Both valid until the caller suspends; NULL: none. */
const struct nfs_share *nfs_share_by_id(const struct nfs_server *s, uint64_t id);
const struct nfs_share *nfs_share_by_name(const struct nfs_server *s, const char *name, size_t len);
/* The entry of its access list that a client's address belongs to; NULL: it may not use the share.
 */
const struct nfs_permit *nfs_share_permit(const struct nfs_share *share, const struct addr *addr);

/* ---- the server (server.c) ---- */

struct nfs_mount {
    struct list link; /* server->mounts, oldest first */
    char *path;
    char *client; /* address without port */
};

#define NFS_HANDLES_KNOWN 64u

struct nfs_server {
    struct nfs_conf conf;
    char *cluster_id;
    struct onc_server *onc, *portmap;
    struct onc_udp *udp, *portmap_udp;
    struct nfs_files *files;
    struct nfs_shares shares;
    struct list mounts;
    uint32_t mount_count;
    struct list lock_waits; /* struct nlm_wait, in order */
    struct co_group lock_waiting;
    struct co_cond lock_wait_gone;
    uint16_t port; /* of all programs but the portmapper */
    uint8_t verifier[NFS3_VERIFIER_BYTES];
    struct nfs_known_handle {
        bool there;
        uint8_t bytes[NFS_FH_BYTES];
    } handles[NFS_HANDLES_KNOWN]; /* that were found to be of this cluster */
};

extern const struct onc_program nfs_program, nfs_mount_program, nfs_portmap_program,
    nfs_lock_program, nfs_status_program;
void nfs_mounts_free(struct nfs_server *s); /* mount.c */
/* All locks of a client go (nlm.c). */
co_fn int nfs_locks_forget(struct onc_call *call, const char *client) MUST_CHECK;

static inline struct nfs_server *nfs_server_of(const struct onc_call *call)
{
    return onc_call_arg(call);
}

/* ---- what procedures have in common (common.c) ---- */

/* A request to meta; *r is initialised here and has to be freed in every case. */
co_fn int nfs_meta_call(struct nfs_server *s, enum meta_method method, const ProtobufCMessage *rq,
                        struct rpc_reply *r) MUST_CHECK;
/* The same for whichever access server gets the call and each of its retries. */
void nfs_call_mutation(const struct onc_call *call, Zbs__Meta__Mutation *ret);
enum nfs_status nfs_status_of(int rc);

#define NFS_SIZE_TRIES 3 /* after nfs_file_make_way a size may be in somebody's way again */

/* Arguments. */
struct nfs_handle {
    struct nfs_fh fh;
    enum nfs_status status; /* not NFS3_OK: it is none of ours */
};
void nfs_take_handle(struct onc_call *call, struct nfs_handle *ret);
struct nfs_name {
    char text[FILE_NAME_MAX + 1];
    enum nfs_status status; /* not NFS3_OK: there can't be such a name */
};
void nfs_take_name(struct onc_call *call, struct nfs_name *ret);

/* May the client use the handle's share, or change what is in it? And as whom. */
co_fn enum nfs_status nfs_admit(struct onc_call *call, const struct nfs_handle *h, bool change,
                                struct nfs_cred *ret);
/* A message that refers to *who. */
void nfs_cred_message(const struct nfs_cred *who, Zbs__Meta__Credentials *ret);
/* nfs_meta_call for a request that changes something: what these have in common is filled in. */
#define nfs_meta_change(call, asker, method, rq, r)                                                \
    ({                                                                                             \
        Zbs__Meta__Mutation change_mutation;                                                       \
        Zbs__Meta__Credentials change_cred;                                                        \
        int change_rc;                                                                             \
                                                                                                   \
        nfs_call_mutation(call, &change_mutation);                                                 \
        nfs_cred_message(asker, &change_cred);                                                     \
        (rq)->mutation = &change_mutation;                                                         \
        (rq)->who = &change_cred;                                                                  \
        change_rc = nfs_meta_call(nfs_server_of(call), method, &(rq)->base, r);                    \
        (rq)->mutation = NULL;                                                                     \
        (rq)->who = NULL;                                                                          \
        change_rc;                                                                                 \
    })

/* An inode of the handle's share, as meta has it now, into *r. */
co_fn int nfs_inode_get(struct nfs_server *s, const struct nfs_fh *fh, struct rpc_reply *r,
                        const Zbs__Meta__Inode **ret) MUST_CHECK;
/* Attributes for the client, with what meta was not told yet; the files learn the inode. */
void nfs_attr_of(struct nfs_server *s, const Zbs__Meta__Inode *inode, struct nfs_attr *ret);

/* Results. */
void nfs_put_status(struct onc_call *call, enum nfs_status status);
void nfs_put_inode_attr(struct onc_call *call, const Zbs__Meta__Inode *inode); /* NULL: none */
void nfs_put_inode_wcc(struct onc_call *call, const Zbs__Meta__InodeWcc *m);   /* NULL: nothing */
void nfs_put_handle(struct onc_call *call, uint64_t share_id, uint64_t inode_id);

/* ---- procedures (proc_*.c) ---- */

co_fn enum onc_accept nfs_getattr(struct onc_call *call);
co_fn enum onc_accept nfs_setattr(struct onc_call *call);
co_fn enum onc_accept nfs_lookup(struct onc_call *call);
co_fn enum onc_accept nfs_access(struct onc_call *call);
co_fn enum onc_accept nfs_readlink(struct onc_call *call);
co_fn enum onc_accept nfs_read(struct onc_call *call);
co_fn enum onc_accept nfs_write(struct onc_call *call);
co_fn enum onc_accept nfs_create(struct onc_call *call);
co_fn enum onc_accept nfs_mkdir(struct onc_call *call);
co_fn enum onc_accept nfs_symlink(struct onc_call *call);
co_fn enum onc_accept nfs_mknod(struct onc_call *call);
co_fn enum onc_accept nfs_remove(struct onc_call *call);
co_fn enum onc_accept nfs_rmdir(struct onc_call *call);
co_fn enum onc_accept nfs_rename(struct onc_call *call);
co_fn enum onc_accept nfs_link(struct onc_call *call);
co_fn enum onc_accept nfs_readdir(struct onc_call *call);
co_fn enum onc_accept nfs_readdirplus(struct onc_call *call);
co_fn enum onc_accept nfs_fsstat(struct onc_call *call);
co_fn enum onc_accept nfs_fsinfo(struct onc_call *call);
co_fn enum onc_accept nfs_pathconf(struct onc_call *call);
co_fn enum onc_accept nfs_commit(struct onc_call *call);
/* What is before WRITE's data. */
void nfs_write_head(struct xdr_in *args);

#endif
