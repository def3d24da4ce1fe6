/* SPDX-License-Identifier: Apache-2.0
 *
 * What files contain: bytes in the inode while they are few, else in a volume
 * (proto/namespace.proto, meta/README.md). Keeps copies of inodes that are in use, and their
 * volumes open. Whoever calls has checked that the inode's share may be used, and changed, by the
 * client; whether the file may be, is decided here. Belongs to one loop. */
#ifndef ZBS_ACCESS_NFS_FILE_H
#define ZBS_ACCESS_NFS_FILE_H

#include "access/block/block.h"
#include "access/nfs/attr.h"
#include "common/cluster/meta_client.h"

struct nfs_files;

/* The world behind the files, for tests to take its place. */
struct nfs_backend {
    /* A request to meta, which may be repeated (meta_call). */
    co_fn int (*call)(void *arg, enum meta_method method, const ProtobufCMessage *request,
                      struct rpc_reply *r);
    void (*mutation)(void *arg, Zbs__Meta__Mutation *ret); /* a fresh one (meta_client_mutation) */
    co_fn int (*open)(void *arg, uint64_t volume_id, struct block_backend **ret);
    uint64_t (*session)(void *arg); /* with meta (vol_engine_session); 0: there is none */
    /* Waits until the session certainly lives (vol_engine_lease_wait). */
    co_fn int (*lease)(void *arg);
    void *arg;
};

struct nfs_files *nfs_files_new(const struct nfs_backend *backend);
/* Waits until nothing is in flight, tells meta what it was not told yet, closes volumes, frees. */
co_fn void nfs_files_free(struct nfs_files *f);

struct nfs_read {
    struct buf *data;  /* the caller's reference; NULL: nothing was read */
    uint32_t off, len; /* of the bytes in `data` */
    bool eof;
    struct nfs_attr attr;
};
/* ERR_ACCESS, ERR_STALE, ERR_INVAL (not a file), and those of the engine. */
co_fn int nfs_file_read(struct nfs_files *f, uint64_t inode_id, const struct nfs_cred *who,
                        uint64_t off, uint32_t len, struct nfs_read *ret) MUST_CHECK;

/* Durable when 0 is returned, size included. stable: so is a modification time, at least within a
 * second; otherwise from COMMIT on. wcc: also filled where known after an error. */
co_fn int nfs_file_write(struct nfs_files *f, uint64_t inode_id, const struct nfs_cred *who,
                         uint64_t off, struct buf *src, uint32_t src_off, uint32_t len, bool stable,
                         struct nfs_wcc *wcc) MUST_CHECK;
/* All that was answered is durable already; the modification time of unstable writes is within a
 * second from here on. */
co_fn int nfs_file_commit(struct nfs_files *f, uint64_t inode_id, struct nfs_wcc *wcc) MUST_CHECK;

/* Bytes behind the size that a truncation left in the volume become zeroes (dirty_end of the inode,
 * as meta has it now). After a change of a size. */
co_fn int nfs_file_settle(struct nfs_files *f, uint64_t inode_id) MUST_CHECK;
/* For a size that meta refused with ERR_BUSY: those who have write leases give them back, and the
 * tail is zeroed. */
co_fn int nfs_file_make_way(struct nfs_files *f, uint64_t inode_id) MUST_CHECK;
/* Meta wants a write lease back, which may be over already. Does not suspend. */
void nfs_files_recalled(struct nfs_files *f, uint64_t inode_id, uint64_t lease);

/* An inode as meta has just told: the copy here is not older. Does not suspend. */
void nfs_files_learn(struct nfs_files *f, const Zbs__Meta__Inode *inode);
/* Adds what meta is not told yet (modification time of unstable writes). Does not suspend. */
void nfs_files_amend(struct nfs_files *f, struct nfs_attr *attr);
/* The volume was resized, rolled back or deleted. Does not suspend. */
void nfs_files_volume_changed(struct nfs_files *f, uint64_t volume_id);

#endif
