/* SPDX-License-Identifier: Apache-2.0
 *
 * Shares in the state: inodes, and the entries of directories that name them. An entry is found by
 * directory and name in one hash table of all, and by its cookie, the mutation that made it, in its
 * directory's array: new entries go to the end of it. How many names an inode has, and which
 * directory it is in if it is one itself, follows from the entries. What state.h says holds for
 * this, too. */
#ifndef ZBS_META_TREE_H
#define ZBS_META_TREE_H

#include <stdbool.h>
#include "common/base/limits.h"
#include "common/base/list.h"
#include "meta/idmap.h"
#include "meta/sorted.h"
#include "proto/metalog.pb-c.h"
#include "proto/namespace.pb-c.h"

struct share_client {
    char *network;
    bool read_only;
    uint32_t squash; /* Zbs__Meta__ShareClient__Squash */
};
struct share {
    uint32_t id; /* from 1, never reused */
    char *name;
    uint32_t pool_id;
    uint64_t root;
    struct share_client *clients;
    uint32_t n_clients;
    uint32_t anonymous_uid, anonymous_gid;
    uint64_t version; /* mutation number of the last change */
    uint64_t inodes;
};

/* Sessions with a write lease of a file; they may have ended. */
#define FILE_WRITERS_MAX 8u
struct writers {
    uint32_t count;
    uint64_t sessions[FILE_WRITERS_MAX];
    uint64_t leases[FILE_WRITERS_MAX]; /* mutation numbers */
};

struct inode {
    uint64_t id; /* mutation number that made it */
    struct share *share;
    Zbs__Meta__InodeType type;
    uint32_t mode, uid, gid;
    uint32_t nlink;
    uint32_t data_len;
    uint64_t size; /* not of a directory */
    uint64_t atime_ns, mtime_ns, ctime_ns;
    uint64_t change; /* mutation number of the last change */
    uint64_t rdev;
    uint8_t *data;  /* a small file's bytes without zeroes at the end; a symbolic link's target */
    bool exclusive; /* made so, with this verifier */
    uint8_t verifier[8];
    uint64_t volume_id;      /* that has the bytes; 0: `data` has them */
    uint64_t candidate;      /* volume that is to become that */
    uint64_t dirty_end;      /* above size: the volume's bytes up to here are to be zeroed */
    uint64_t cut;            /* mutation number of its last truncation */
    uint64_t zeroer;         /* session that zeroes; it may have ended */
    struct writers *writers; /* NULL: none */
    struct list locks;       /* their holders, locks.h */
    struct dir_entry *name;  /* one of its names; NULL: which ones is not known */
    struct inode *parent;    /* of a directory; the root's is itself */
    struct sorted entries;   /* of a directory, by cookie */
};

struct dir_entry {
    uint64_t cookie;
    struct inode *dir, *inode;
    struct dir_entry *next; /* of the same hash */
    char name[];
};

struct tree {
    struct sorted shares; /* by name */
    uint32_t next_share_id;
    uint64_t shares_version;
    struct idmap inodes; /* id -> inode */
    struct list lock_holders;
    uint32_t n_lock_holders;
    struct idmap entries; /* hash of directory and name -> the first entry */
};

void tree_init(struct tree *t);
void tree_fini(struct tree *t);

/* ---- finding; NULL: absent ---- */
struct share *tree_share(const struct tree *t, const char *name);
struct share *tree_share_by_id(const struct tree *t, uint32_t id);
struct share *tree_pool_share(const struct tree *t, uint32_t pool_id); /* any of the pool */
struct inode *tree_inode(const struct tree *t, uint64_t id);
struct dir_entry *tree_entry(const struct tree *t, const struct inode *dir, const char *name);
/* Index of the first entry with a higher cookie. */
uint32_t inode_entries_after(const struct inode *dir, uint64_t cookie);
static inline bool inode_is_dir(const struct inode *i)
{
    return i->type == ZBS__META__INODE_TYPE__INODE_DIR;
}
/* As it is shown. */
uint64_t inode_size(const struct inode *i);
/* "/SHARE/dir/file", of one of its names; "inode 7 of /SHARE" if that is not known. To be freed. */
char *inode_path(const struct inode *i);
/* Is the directory this one, or somewhere below it? */
bool inode_is_below(const struct inode *dir, const struct inode *top);

/* ---- changing: for apply_tree.c and load_tree.c ---- */
struct share *tree_share_add(struct tree *t, uint32_t id, const char *name);
void share_set_clients(struct share *s, Zbs__Metalog__KvShareClient *const *clients, size_t n);
void tree_share_remove(struct tree *t, struct share *s); /* without inodes */
/* Without a name yet; a directory without a parent. */
struct inode *tree_inode_add(struct tree *t, struct share *s, uint64_t id,
                             Zbs__Meta__InodeType type);
void tree_inode_remove(struct tree *t, struct inode *i); /* nothing names it, nothing is in it */
/* The first bytes; what follows are zeroes. */
void inode_set_data(struct inode *i, const uint8_t *data, size_t len);
/* There is room for it. */
void inode_writer_add(struct inode *i, uint64_t session, uint64_t lease);
void inode_writer_remove(struct inode *i, uint32_t index);
struct dir_entry *tree_entry_add(struct tree *t, struct inode *dir, const char *name,
                                 struct inode *i, uint64_t cookie);
void tree_entry_remove(struct tree *t, struct dir_entry *e);

#endif
