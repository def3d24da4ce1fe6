/* SPDX-License-Identifier: Apache-2.0
 *
 * A region of a device: its layout, its blocks and heads, which are free, which are given out;
 * opening and closing it. */
#ifndef ZBS_CHUNK_SPACE_H
#define ZBS_CHUNK_SPACE_H

#include "chunk/engine.h"
#include "common/base/list.h"
#include "common/env/env.h"

struct dev;
struct engine;
struct ext;

struct pin { /* keeps freed blocks and ring pages from being reused */
    struct list link;
    uint64_t id;
};
#define BIT_TREE_LEVELS 6u
struct bit_tree { /* a set of numbers below n */
    uint32_t n, levels;
    uint32_t words[BIT_TREE_LEVELS];
    uint64_t *level[BIT_TREE_LEVELS]; /* [k]: which words of [k - 1] are not 0 */
};
struct place {                   /* where blocks are given out (place.c) */
    struct bit_tree some, whole; /* stretches with free blocks; those free as a whole */
    uint32_t cursor;             /* stretch of the last block of data */
    uint32_t meta;               /* behind the last block of metadata */
};
struct pending_free {
    struct list link;
    uint32_t block;
    uint64_t rsn, pin_id;
    uint64_t stage; /* a later batch must be in the staging area */
};
struct geometry {
    uint64_t anchors_off, journal_off; /* on the device that has the journals */
    uint64_t guests_off;               /* journals of guests */
    uint64_t stage_off, roll_off, bitmap_off, refs_off, heads_off, data_off;
    uint32_t stage_pages, journal_unit, journal_units, roll_pages, bitmap_pages, refs_pages, heads,
        blocks;
};

/* super.c */
/* Empty anchors of a region. */
co_fn int anchors_format(struct disk *d, const struct super_block *sb,
                         const struct geometry *g) MUST_CHECK;
/* For a guest, the places of its journal are still to be found (guest_place). */
int geometry_compute(const struct super_block *sb, uint32_t worker, struct geometry *ret);
uint32_t page_crc(const void *page, size_t crc_off);
void meta_seal(const struct super_block *sb, void *page, enum meta_kind kind, uint64_t off,
               uint64_t owner, uint32_t index, uint64_t gen);
/* ERR_CORRUPT unless the page is one of this kind, device and place; owner 0: any. */
int meta_check(const struct super_block *sb, const void *page, enum meta_kind kind, uint64_t off,
               uint64_t owner, uint32_t index);

/* guest.c */
#define ANCHORS_BYTES ((uint64_t)2 * PAGE_BYTES)
/* Where on the host the journal of a guest's region is. */
int guest_place(const struct super_block *sb, const struct super_block *host, uint32_t worker,
                struct geometry *g) MUST_CHECK;
/* While a device is formatted (chunk_format). begin: finds a free slot, and gives the superblock
 * what it has from its host. anchors: as in an empty region. commit: the slot is the device's. */
struct guest_format {
    const char *path;         /* of the host; NULL: the device has its own journals */
    struct super_block *host; /* the caller's of chunk_format, or `read` */
    struct super_block *read;
    struct disk *guard, *disk;
    uint32_t slot;
};
struct chunk_format_conf;
co_fn int guest_format_begin(struct guest_format *gf, const char *path,
                             const struct chunk_format_conf *conf) MUST_CHECK;
co_fn int guest_format_anchors(struct guest_format *gf, const struct super_block *sb) MUST_CHECK;
co_fn int guest_format_commit(struct guest_format *gf, const struct super_block *sb) MUST_CHECK;
co_fn void guest_format_end(struct guest_format *gf);

/* dev.c */
co_fn int dev_open(struct engine *e, const char *path, const struct super_block *sb,
                   const struct journal_host *host, struct dev **ret);
co_fn void dev_close(struct dev *d);
/* A device for a new extent that needs so many blocks; NULL: none has room. */
struct dev *dev_choose(struct engine *e, uint32_t blocks);
bool dev_may_take(const struct dev *d, uint32_t blocks);
void dev_isolate(struct dev *d, const char *why);
void dev_host_failed(struct dev *d, const struct dev *host); /* nothing if it isn't its guest */
void dev_fail(struct dev *d, int rc, const char *what);
int dev_check(const struct dev *d); /* ERR_IO if failed */
void pin_begin(struct dev *d, struct pin *p);
void pin_end(struct dev *d, struct pin *p);
co_fn void pin_barrier(struct dev *d); /* waits for the pins that exist now */
co_fn int dev_write(struct dev *d, const void *src, size_t len, uint64_t off, bool durable);
co_fn int ring_flush(struct dev *d) MUST_CHECK; /* the journal's device, too */
co_fn int dev_flush(struct dev *d);
void pending_release(struct dev *d);

/* alloc.c */
uint64_t block_off(const struct dev *d, uint32_t block); /* number + 1 */
void bits_init(struct dev *d);
void bits_finish_replay(struct dev *d);
void bits_take_all(struct dev *d); /* every block is in use, and shared: the maps decide */
void bits_free(struct dev *d);
void bit_set(struct dev *d, uint32_t block, uint64_t rsn); /* journaled: now allocated */
/* Journaled: now free. meta: it held metadata, and the staging area may still hold images of it. */
void bit_clear(struct dev *d, uint32_t block, uint64_t rsn, bool meta);
void head_bit_set(struct dev *d, uint32_t head, uint64_t rsn);
void head_bit_clear(struct dev *d, uint32_t head, uint64_t rsn);
bool head_bit_get(const struct dev *d, uint32_t head);
uint32_t head_bit_next(const struct dev *d, uint32_t from); /* in use, or g.heads */
/* Something read from the device names this block: false if it is free, or somebody else's and not
 * shared. */
bool block_own(struct dev *d, uint32_t block);
bool block_owned(const struct dev *d, uint32_t block);
void block_disown(struct dev *d, uint32_t block);
bool shared_bit_get(const struct dev *d, uint32_t block);
void shared_bit_put(struct dev *d, uint32_t block, bool on, uint64_t rsn);
/* Gives out one claimed block, for block `index` of the extent or for metadata; waits for pending
 * ones. */
co_fn int block_take(struct ext *x, uint32_t index, uint32_t *ret);
co_fn int block_take_meta(struct dev *d, uint32_t *ret);
/* One for a copy, from the reserve: false if there is none at once. The caller counts dev->spares
 * down when the former block is freed, or this one is given back. */
bool block_take_spare(struct ext *x, uint32_t index, bool in_row, uint32_t *ret);
void block_untake(struct dev *d, uint32_t block); /* never written to the journal; not claimed */
int head_take(struct dev *d, uint32_t *ret);
void head_untake(struct dev *d, uint32_t head);

/* credits.c */
int64_t blocks_available(const struct dev *d); /* for credits and new blocks */
struct claim {                                 /* blocks promised to a running request */
    uint32_t n;                                /* those not yet taken (block_take) */
    uint32_t credits;                          /* so many were the extent's credits before */
};
/* Promises n blocks to a request of x: its credits first. ERR_NOSPACE, unless it is reserved. */
int blocks_claim(struct ext *x, uint32_t n, struct claim *ret) MUST_CHECK;
void blocks_unclaim(struct ext *x, struct claim *c); /* those that are left */
void block_placed(struct ext *x);                    /* one that was taken is in the map now */
/* One that was taken, and never written to the journal, is only claimed again. */
void block_return(struct ext *x, struct claim *c, uint32_t block);

/* place.c: a place among those that are not busy (as a bit's number); false if all are. in_row: the
 * blocks behind it will be written next, so a long run is better than what is free near */
bool place_data(struct ext *x, uint32_t index, bool in_row, uint32_t *ret);
bool place_meta(struct dev *d, uint32_t *ret);
void place_init(struct dev *d);
void place_build(struct dev *d);
void place_fini(struct dev *d);
void place_changed(struct dev *d, uint32_t i); /* the block's busy bit has another value */
bool place_check(const struct dev *d);

#endif
