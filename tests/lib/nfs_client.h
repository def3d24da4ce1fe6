/* SPDX-License-Identifier: Apache-2.0
 *
 * A small client of NFS version 3, for tests: one function for each procedure, which returns its
 * nfsstat3 and asserts that the answer has the form of RFC 1813, to its last byte. */
#ifndef ZBS_TESTS_NFS_CLIENT_H
#define ZBS_TESTS_NFS_CLIENT_H

#include "access/nfs/proto.h"
#include "tests/lib/onc_client.h"

struct nfs_client {
    struct onc_client onc;
    uint32_t repeat; /* the next call's xid is this; 0: a new one */
};

struct nh { /* a file handle */
    uint8_t bytes[64];
    uint32_t len;
};

struct nattr { /* fattr3 */
    bool there;
    uint32_t type, mode, nlink, uid, gid;
    uint64_t size, used, rdev, fsid, fileid, atime, mtime, ctime;
};

struct nset { /* sattr3 */
    bool mode_set, uid_set, gid_set, size_set, mtime_set, atime_server;
    uint32_t mode, uid, gid;
    uint64_t size, mtime;
};
#define NSET_MODE(m) (&(struct nset){.mode_set = true, .mode = (m)})

struct nentry {
    uint64_t fileid, cookie;
    char name[256];
    struct nattr attr; /* READDIRPLUS */
    struct nh h;
};

co_fn void nfs_open(struct nfs_client *c, const char *addr);
void nfs_close(struct nfs_client *c);

/* mountstat3. */
co_fn uint32_t nfs_mount_path(struct nfs_client *c, const char *path, struct nh *ret);
/* ret arguments may be NULL. */
co_fn uint32_t nfs_do_getattr(struct nfs_client *c, const struct nh *h, struct nattr *ret);
/* guard: ctime that it must have; 0: none. */
co_fn uint32_t nfs_do_setattr(struct nfs_client *c, const struct nh *h, const struct nset *set,
                              uint64_t guard, struct nattr *ret);
co_fn uint32_t nfs_do_lookup(struct nfs_client *c, const struct nh *dir, const char *name,
                             struct nh *ret, struct nattr *attr);
co_fn uint32_t nfs_do_access(struct nfs_client *c, const struct nh *h, uint32_t wanted,
                             uint32_t *ret);
/* buf: NUL-terminated, of 1025 bytes. */
co_fn uint32_t nfs_do_readlink(struct nfs_client *c, const struct nh *h, char *buf);
/* ret: len bytes; *ret_len of them were read. */
co_fn uint32_t nfs_do_read(struct nfs_client *c, const struct nh *h, uint64_t off, uint32_t len,
                           void *ret, uint32_t *ret_len, bool *ret_eof);
co_fn uint32_t nfs_do_write(struct nfs_client *c, const struct nh *h, uint64_t off,
                            const void *data, uint32_t len, uint32_t stable, uint8_t *verifier);
co_fn uint32_t nfs_do_commit(struct nfs_client *c, const struct nh *h, uint8_t *verifier);
/* how: CREATE_*; verifier: of an exclusive one. */
co_fn uint32_t nfs_do_create(struct nfs_client *c, const struct nh *dir, const char *name,
                             uint32_t how, const struct nset *set, uint64_t verifier,
                             struct nh *ret);
co_fn uint32_t nfs_do_mkdir(struct nfs_client *c, const struct nh *dir, const char *name,
                            uint32_t mode, struct nh *ret);
co_fn uint32_t nfs_do_symlink(struct nfs_client *c, const struct nh *dir, const char *name,
                              const char *target, struct nh *ret);
co_fn uint32_t nfs_do_mknod(struct nfs_client *c, const struct nh *dir, const char *name,
                            uint32_t type, uint64_t rdev, struct nh *ret);
co_fn uint32_t nfs_do_remove(struct nfs_client *c, const struct nh *dir, const char *name);
co_fn uint32_t nfs_do_rmdir(struct nfs_client *c, const struct nh *dir, const char *name);
co_fn uint32_t nfs_do_rename(struct nfs_client *c, const struct nh *from, const char *from_name,
                             const struct nh *to, const char *to_name);
co_fn uint32_t nfs_do_link(struct nfs_client *c, const struct nh *h, const struct nh *dir,
                           const char *name);
/* At most `room` entries into ret. */
co_fn uint32_t nfs_do_readdir(struct nfs_client *c, const struct nh *dir, uint64_t cookie,
                              uint32_t bytes, bool plus, struct nentry *ret, uint32_t room,
                              uint32_t *ret_count, bool *ret_eof);
co_fn uint32_t nfs_do_fsstat(struct nfs_client *c, const struct nh *h, uint64_t *total,
                             uint64_t *available);
co_fn uint32_t nfs_do_fsinfo(struct nfs_client *c, const struct nh *h, uint32_t *rtmax,
                             uint64_t *maxfilesize);
co_fn uint32_t nfs_do_pathconf(struct nfs_client *c, const struct nh *h, uint32_t *name_max);

#endif
