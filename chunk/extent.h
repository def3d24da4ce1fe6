/* SPDX-License-Identifier: Apache-2.0
 *
 * Extents: what is known of one, admission of requests, versions and missing sets, how they come,
 * share, move and go. */
#ifndef ZBS_CHUNK_EXTENT_H
#define ZBS_CHUNK_EXTENT_H

#include "chunk/meta.h"
#include "common/base/htab.h"
#include "common/base/list.h"
#include "common/co/sync.h"

struct ahead;
struct dev;
struct merge;
struct move;

struct mask_set { /* pages by block, ascending, no empty masks */
    struct mask_entry {
        uint32_t block;
        uint64_t mask;
    } * e;
    uint32_t n, cap;
};
struct missing_set {
    uint32_t replica; /* 0: unused */
    struct version last_version;
    bool everything;
    struct mask_set pages; /* empty while everything */
};

struct ext {
    struct htab_node node; /* engine->exts, dev->opening or dev->apart */
    uint32_t refs;
    uint64_t id;
    struct dev *dev;
    uint32_t head; /* number of the head page */
    struct mpage head_page;
    /* durable state */
    uint64_t epoch, volume_id, family;
    uint32_t slot;
    bool is_void;
    bool frozen;   /* an origin: repaired only; its own blocks may be its children's, too */
    bool reserved; /* blocks for all of it are promised (credits.c) */
    struct version cp, last;
    struct uncommitted *unc; /* by page, not overlapping */
    uint32_t n_unc, cap_unc;
    struct missing_set *missing; /* MISSING_MAX of them, or NULL */
    uint32_t meta_block[META_BLOCKS];
    uint64_t allocated[BLOCKS_PER_EXTENT / 64]; /* blocks that have their own (source 0) */
    uint64_t shared[BLOCKS_PER_EXTENT / 64];    /* blocks that have other sources */
    uint32_t blocks;                            /* bits set in allocated */
    /* volatile state */
    struct ext_map *map; /* NULL: not in memory; never so while map pages are */
    uint64_t map_seen[DIV_UP(MAP_PAGES, 64)]; /* pages whose blocks are in dev->owned */
    struct htab vblks; /* of blocks with journaled pages or writes in flight */
    uint32_t n_vblk;
    uint32_t latest_index; /* of its latest new block, */
    uint32_t latest_place; /* and where that is, number + 1; a hint, maybe about a former device */
    struct merge *merge;   /* its write streams; NULL before the first write */
    struct ahead *ahead;   /* its read streams */
    struct list journaled; /* dev->journaled or dev->cycle, while n_vblk > 0 */
    struct co_mutex load_lock;
    struct co_range_lock lock; /* in pages */
    struct list ops;
    struct co_cond ops_ended;
    uint64_t head_gen;
    uint64_t open_epoch;    /* 0: not open */
    uint64_t durable_epoch; /* the epoch as journaled */
    uint32_t credits;
    uint32_t claims;      /* blocks that its running requests have claimed, and not mapped yet */
    struct co_mutex bind; /* held while one of its blocks gets a place */
    bool vouched; /* made since the start, or compared since with other replicas by an owner */
    bool deleting, dead;
    bool damaged;     /* found at replay */
    struct list doom; /* dev->doomed */
    /* on its way to another device (move.h) */
    struct move *move; /* notes what is written */
    uint32_t opening;  /* engine_open calls that run */
    bool arriving;     /* a twin: it counts for nothing yet */
    bool switching;    /* requests wait */
    bool forgotten;    /* not counted in dev->extents any more */
    bool left;         /* apart, and could not be deleted: until the next start */
};

struct op { /* an admitted request */
    struct list link;
    struct ext *ext;
    uint64_t epoch;
    bool closed; /* the extent need not be open */
    bool shared; /* but clean */
};

/* extent.c */
struct ext *ext_find(struct engine *e, uint64_t id);
struct ext *ext_new(struct dev *d, uint64_t id, uint32_t head);
/* The same for one device, also while it is being opened. */
struct ext *dev_ext_find(struct dev *d, uint64_t id);
void dev_ext_foreach(struct dev *d, void (*fn)(void *arg, struct ext *x), void *arg);
void ext_insert(struct ext *x);
void ext_unlist(struct ext *x); /* out of the table; its reference is the caller's */
/* With everything that points to it; the table's reference is dropped. */
void ext_remove(struct ext *x);
void ext_forget(struct ext *x); /* the same of one that is in no table */
/* A device has at most one extent of an id: replay would take one for the other. So those on it
 * that are in no table of extents - a twin, a copy that is to be deleted - are *apart*, from when
 * they are made or leave that table until they count or their deletion is durable; meanwhile
 * nothing of their id is made there, and a deletion of the id waits for theirs. */
void ext_apart_begin(struct ext *x);
void ext_apart_end(struct ext *x);
bool ext_is_apart(struct engine *e, uint64_t id); /* on a device that serves */
/* Out of the table because its device has failed: another is made elsewhere. */
void ext_leave(struct ext *x);
/* On a device that has failed, and of which the next start may find it there. */
bool ext_is_left(const struct engine *e, uint64_t id);
/* Waits until it is not. ERR_IO: it could not be deleted. */
co_fn int ext_apart_wait(struct engine *e, uint64_t id) MUST_CHECK;
struct ext *ext_get(struct ext *x);
void ext_put(struct ext *x);
void ext_foreach(struct engine *e, void (*fn)(void *arg, struct ext *x), void *arg);
void ext_dirty(struct ext *x, uint64_t rsn);
co_fn void ext_damaged(struct ext *x, const char *why); /* void from now on, and closed */
void ext_apply_create(struct ext *x, const struct rec_create *r, uint64_t rsn);
void ext_apply_delete(struct dev *d, const struct rec_delete *r, uint64_t rsn);
void ext_apply_void(struct ext *x, bool on, uint64_t rsn);
void ext_apply_freeze(struct ext *x, uint64_t rsn);
void ext_apply_versions(struct ext *x, const struct rec_versions *r);
void ext_apply_arrive(struct ext *x, const struct rec_arrive *r, uint64_t rsn);

/* credits.c: what is promised to extents. A reserved one has as many credits as blocks may yet get
 * a place of their own in it, but for those that running requests have claimed. */
void credits_put(struct ext *x, uint32_t n); /* so many, whatever they were */
void credits_keep(struct ext *x);            /* a reserved one has other blocks or claims now */
void credits_open(struct ext *x, uint32_t wanted); /* of a new owner */
/* Room for all of a reserved extent, of which it has so many blocks, or gets them from another.
 * ERR_NOSPACE. */
int reserve_room(const struct dev *d, uint64_t id, uint32_t own) MUST_CHECK;
int reserve_check(const struct ext *x) MUST_CHECK; /* the same for one that is not reserved yet */
void ext_apply_reserve(struct ext *x, bool on, uint64_t rsn);

/* extent_ops.c */
/* The extent in force; NULL: none. Waits while it changes its device. */
co_fn int ext_admit(struct engine *e, uint64_t id, struct ext **ret) MUST_CHECK;
int op_begin(struct engine *e, uint64_t id, uint64_t epoch, struct op *op);
/* A reader of whatever is there, open or not. */
#define OP_EPOCH_NONE (UINT64_MAX - 1) /* no opener waits for it; a deletion does */
int op_begin_closed(struct engine *e, uint64_t id, uint64_t epoch, struct op *op);
/* A reader of a replica that is whole, clean and vouched for, as known at an epoch (0: any), open
 * or not. */
co_fn int op_begin_shared(struct engine *e, uint64_t id, uint64_t view_epoch,
                          struct op *op) MUST_CHECK;
int op_check(const struct op *op); /* still admitted? */
void op_end(struct op *op);
/* Another request of the same kind, admitted because this one is. */
void op_again(const struct op *op, struct op *ret);
/* Deletes an extent that is apart, journaled; drops the reference. After an error it is still on
 * the device, and apart, until the next start. */
co_fn int ext_discard(struct ext *x) MUST_CHECK;

/* version.c */
void version_apply(struct ext *x, uint32_t first, uint32_t count, struct version v);
void version_commit(struct ext *x, struct version cp);
/* The run of pages from `first` on, at most to `last`, of which either all or none have version v
 * or a higher one: returns its length. */
uint32_t version_run(const struct ext *x, uint32_t first, uint32_t last, struct version v,
                     bool *ret_have);
bool version_room(const struct ext *x);
void version_free(struct ext *x);

/* missing.c */
struct missing_set *missing_find(struct ext *x, uint32_t replica);
struct missing_set *missing_make(struct ext *x, uint32_t replica); /* NULL: too many */
void missing_drop(struct missing_set *m);
void missing_add(struct missing_set *m, uint32_t first, uint32_t count);
bool missing_has(const struct missing_set *m, uint32_t first, uint32_t count);
void missing_apply(struct ext *x, const struct rec_missing *r, const struct disk_mask *masks);
void mask_set_add(struct mask_set *s, uint32_t block, uint64_t mask);
void mask_set_clear(struct mask_set *s, uint32_t block, uint64_t mask);
void mask_set_free(struct mask_set *s);
void missing_free_all(struct ext *x);
uint32_t missing_free_sets(const struct ext *x); /* how many more replicas can have sets */

/* deleted.c */
void deleted_init(struct engine *e);
void deleted_fini(struct engine *e);
/* Meta wants no replica made of the extent under this epoch or a lower one. */
void deleted_note(struct engine *e, uint64_t id, uint64_t epoch);
bool deleted_since(const struct engine *e, uint64_t id, uint64_t epoch);

/* create.c */
struct ext_place;
/* Nothing of its id is in the way, now. */
bool create_admitted(struct engine *e, const struct create_args *a);
/* Somebody else has made the extent, or deletes or has deleted one: what a creation answers. */
co_fn int create_exists(struct engine *e, const struct create_args *a);
void create_fill(struct rec_create *r, const struct create_args *a, const struct ext_place *p);
/* Room for a new extent's metadata, without and with space in the journal for REC_CREATE. */
struct ext_place {
    uint32_t head, meta[META_BLOCKS];
};
co_fn int ext_blocks_take(struct dev *d, struct ext_place *ret) MUST_CHECK;
void ext_blocks_return(struct dev *d, const struct ext_place *p);
co_fn int ext_place_take(struct dev *d, struct ext_place *ret) MUST_CHECK;
void ext_place_return(struct dev *d, const struct ext_place *p);
/* Journals a new extent that has a place. No suspension. */
uint64_t ext_create_add(struct ext *x, const struct create_args *a, const struct ext_place *p,
                        bool arriving);

/* child.c */
co_fn int child_create(struct engine *e, const struct create_args *a);
void child_apply(struct ext *x, const struct rec_child *r, uint64_t rsn);

/* share.c */
/* Before a write takes its range lock: no block that it writes in part has so many sources that a
 * child would have no room for them. */
co_fn int share_merge(struct op *op, uint32_t first_block, uint32_t last_block) MUST_CHECK;
/* A block that has its own, and others that nobody else has: these move there. */
co_fn int share_join(struct op *op, uint32_t index) MUST_CHECK;
bool entry_may_renew(const struct map_entry *en); /* its own may become one that is only read */
/* Before a child is made: it has room for the sources of each block. */
co_fn int share_fit(struct op *op) MUST_CHECK;
/* Blocks that may have no more references are replaced: what the extent has there moves to others.
 * So many in one request; ERR_AGAIN: there are more. */
co_fn int share_renew(struct op *op) MUST_CHECK;
/* Under the range lock, the map loaded: what nobody else has is the extent's own from now on. */
co_fn int share_adopt(struct op *op, uint32_t first_block, uint32_t last_block) MUST_CHECK;
/* Journals and applies that `block` is the own of the extent's block; space was waited for. */
uint64_t share_alloc_add(struct ext *x, uint32_t index, uint32_t block, uint32_t space);
/* Which blocks the map will not name any more when some pages of one block leave all sources (all:
 * also the block's own), at most MAP_SOURCES. *ret_change: some page does leave a shared source. */
uint32_t share_dropped(const struct ext *x, uint32_t index, uint64_t mask, bool all,
                       struct rec_ref *ret, bool *ret_change);

/* thaw.c */
/* Under the range lock, the map loaded: no block of a frozen extent is its children's own, too. */
co_fn int thaw_blocks(struct op *op, uint32_t first_block, uint32_t last_block) MUST_CHECK;
/* The same of all of it, which is not frozen any more, queued. The opener waits for it. */
co_fn int ext_thaw(struct ext *x, uint64_t epoch) MUST_CHECK;
uint32_t thaw_cost(const struct ext *x, uint32_t blocks);
/* Journals and applies that a block's own is only read from now on; space was waited for, and no
 * page of the block is in the journal. */
void thaw_add_one(struct ext *x, uint32_t index, uint32_t space);
bool entry_has_room(const struct map_entry *en);
co_fn int thaw_replay(struct ext *x, const struct rec_thaw *r, uint64_t rsn) MUST_CHECK;
bool thaw_ok(const struct rec_thaw *r, uint32_t blocks);

/* settle.c */
/* A device was opened: its extents join the others. Of two copies one is in force, the other is
 * deleted in the background. */
void dev_settle(struct dev *d);
co_fn void dev_settled_wait(struct dev *d); /* nothing is left to delete, or the device failed */
void dev_settle_end(struct dev *d);         /* no coroutine runs any more */

/* move.c */
void move_target_failed(struct ext *x, const struct dev *d);

/* move_copy.c */
void move_note(struct ext *x, uint32_t first, uint32_t count); /* these pages have changed */

/* drain.c */
co_fn void drains_end(struct engine *e);

#endif
