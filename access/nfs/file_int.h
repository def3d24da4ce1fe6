/* SPDX-License-Identifier: Apache-2.0
 *
 * Shared by the files that implement file.h.
 *
 * A copy of an inode is what meta said last, at most: whatever is decided by it is decided again by
 * meta, or confirmed. A write goes like this: what is to be zeroed first is zeroed; the bytes go to
 * the inode (if nobody was faster, `change`), or to the volume and are durable there; then meta is
 * told of the size, or asked, and only if the file was not truncated since the write began (`cut`)
 * it is answered, else done again. A write lease makes it needless to ask. So a truncation on
 * another access server never leaves bytes behind the size, and never loses an answered write.
 * Those that wait for meta at the same time share one request. */
#ifndef ZBS_ACCESS_NFS_FILE_INT_H
#define ZBS_ACCESS_NFS_FILE_INT_H

#include "access/nfs/file.h"
#include "common/base/assert.h"
#include "common/base/htab.h"
#include "common/base/limits.h"
#include "common/base/mem.h"
#include "common/env/env.h"

#define FILES_IDLE_MAX  4096u                /* copies that nobody uses */
#define FILE_IDLE_TIME  (60 * NSEC_PER_SEC)  /* then a volume is closed */
#define FILE_COPY_TIME  NSEC_PER_SEC         /* so long a copy is good enough */
#define FILE_TICK       NSEC_PER_SEC         /* of the background */
#define FILE_MTIME_TIME (5 * NSEC_PER_SEC)   /* so long a COMMIT of unstable writes may take */
#define FILE_CALL_TIME  (30 * NSEC_PER_SEC)  /* clients repeat after 60 s */
#define FILE_PAUSE      (20 * NSEC_PER_MSEC) /* before something is tried again */
#define FILE_RECALLED   (2 * NSEC_PER_SEC)   /* a write lease is not taken again so soon */
#define FILE_ASKED      4u                   /* writes that ask before one is taken */

/* One question to meta, for all who wait for its answer. */
struct file_round {
    uint32_t users;
    uint64_t size, cut; /* the size that they have written; 0: just ask */
    struct co_event done;
};

struct file {
    struct htab_node by_id;
    struct list link; /* files->idle, while nobody uses it */
    struct list owe;  /* files->owing */
    struct nfs_files *files;
    uint32_t users;
    nsec_t left; /* when the last user went */

    /* the copy */
    bool known, gone;
    nsec_t told; /* it was so then, or later */
    struct nfs_attr attr;
    uint64_t volume_id, volume_bytes, candidate, dirty_end, cut;
    uint8_t *data;
    uint32_t data_len;

    struct block_backend *volume; /* of volume_id; NULL: not open */
    struct co_mutex opening;      /* of the volume */
    struct co_mutex changing;     /* the inode's bytes, moving them out, growing */
    struct co_mutex zeroing;
    uint64_t lease, lease_session; /* file_lease.c; 0: none */
    uint64_t lease_over;           /* it and those before it are given back */
    uint32_t asked;                /* by writes, for want of a lease */
    nsec_t lease_from;             /* none is taken before */

    struct file_round *next; /* that will be asked; NULL: none */
    bool asking;             /* a coroutine asks, one round after the other */
    uint64_t mtime_ns;       /* of writes, not told yet; 0: none */
    uint64_t mtime_told;     /* the last one that we told */
    nsec_t mtime_due;        /* when the background tells it */
    bool zero_owed;          /* zeroing was begun, and others can't finish it while we live */
};

struct nfs_files {
    struct nfs_backend backend;
    struct htab by_id;
    struct list idle;  /* the one used last at the end */
    struct list owing; /* files that the background has something to do for; it uses them */
    uint32_t count;
    bool closing;
    struct co_group bg;
};

/* ---- file.c ---- */

/* Never NULL. Pairs with file_put. */
struct file *file_use(struct nfs_files *files, uint64_t inode_id);
co_fn void file_put(struct file *f);
/* The background looks after it: mtime_ns, zero_owed. */
void file_owe(struct file *f);
/* Its volume, open. Stays so while the file is used. */
co_fn int file_volume(struct file *f, struct block_backend **ret) MUST_CHECK;

/* ---- file_meta.c: each tells meta, or asks, and renews the copy ---- */

void file_learn(struct file *f, const Zbs__Meta__Inode *inode, nsec_t since);
co_fn int file_get(struct file *f) MUST_CHECK;
/* What an error of its volume means: that is gone if the file is (ERR_STALE). */
co_fn int file_missing(struct file *f, int rc);
co_fn int file_tell_data(struct file *f, uint64_t off, const void *data, uint32_t len) MUST_CHECK;
co_fn int file_tell_written(struct file *f, uint64_t size, uint64_t cut) MUST_CHECK;
/* Somebody else than uid 0 writes, and the mode loses what it has to (permission_lost_by_write). */
co_fn int file_tell_user(struct file *f) MUST_CHECK;
co_fn int file_ask_candidate(struct file *f, uint64_t bytes) MUST_CHECK;
co_fn int file_ask_attach(struct file *f, uint64_t volume_id, uint64_t change) MUST_CHECK;
co_fn int file_ask_grow(struct file *f, uint64_t bytes) MUST_CHECK;
co_fn int file_ask_zero(struct file *f, uint64_t session) MUST_CHECK;
co_fn int file_tell_zeroed(struct file *f, uint64_t session) MUST_CHECK;
/* *ret: 0 if there is none to be had. */
co_fn int file_ask_lease(struct file *f, uint64_t session, uint64_t *ret) MUST_CHECK;
co_fn int file_tell_return(struct file *f, uint64_t lease) MUST_CHECK;
/* *ret: how many sessions still have one. */
co_fn int file_ask_recall(struct file *f, uint32_t *ret) MUST_CHECK;

/* ---- file_round.c ---- */

/* Meta's word that is not older than this call; with a size: of bytes that were written under this
 * cut. The copy then says what has become of them. */
co_fn int file_confirm(struct file *f, uint64_t size, uint64_t cut) MUST_CHECK;
/* A copy that is younger than FILE_COPY_TIME: asks meta unless there is one. */
co_fn int file_fresh(struct file *f) MUST_CHECK;

/* ---- file_lease.c ---- */

/* Is it certain without asking that the file was not truncated since the copy was made? */
co_fn bool file_leased(struct file *f);
/* Meta's word for a write, and a write lease if the file is written often. */
co_fn int file_get_lease(struct file *f) MUST_CHECK;
/* Ours, if there is one; meta is told. */
co_fn void file_lease_return(struct file *f);

/* ---- file_volume.c ---- */

/* Any bytes to the volume, durable. Repeated as long as it is not known whether they are. */
co_fn int file_put_bytes(struct block_backend *b, uint64_t off, uint32_t len, struct buf *src,
                         uint32_t src_off) MUST_CHECK;
/* Gives it a volume with the inode's bytes, unless it has one. */
co_fn int file_move_out(struct file *f, uint64_t bytes) MUST_CHECK;
/* The volume has room for so many bytes. */
co_fn int file_grow(struct file *f, uint64_t bytes) MUST_CHECK;

/* ---- file_zero.c ---- */

static inline bool file_dirty(const struct file *f)
{
    return f->dirty_end > f->attr.size;
}
/* Does the session certainly live? ERR_EXPIRED: it is not ours any more. */
co_fn int file_session_lives(struct file *f, uint64_t session) MUST_CHECK;
/* Until nothing behind the size is to be zeroed any more. */
co_fn int file_zero(struct file *f) MUST_CHECK;

/* ---- file_write.c ---- */

/* May it be read, or written (PERMISSION_*)? By a copy that is known. */
int file_permit(const struct file *f, const struct nfs_cred *who, uint32_t wanted) MUST_CHECK;
/* Its attributes with what meta is not told yet. */
void file_attr(const struct file *f, struct nfs_attr *ret);

#endif
