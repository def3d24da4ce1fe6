/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside of the engine: structures shared by its files and what each file offers the others.
 * Everything belongs to one worker's loop.
 *
 * The order of truth: a change is put into the journal's queue and applied to memory in the same
 * step, without suspending between; its *record number* (rsn) orders it. Queued records leave in
 * order, so what is durable is always a prefix. Memory may run ahead of the journal; metadata
 * pages and data go home only when the records that they reflect are durable. A record stays in
 * the ring until everything it changed is home: journaled pages (jpage) and dirty metadata pages
 * (mpage) name the record that they need. */
#ifndef ZBS_CHUNK_INTERNAL_H
#define ZBS_CHUNK_INTERNAL_H

#include "chunk/cache.h"
#include "chunk/engine.h"
#include "chunk/memory.h"
#include "common/base/assert.h"
#include "common/base/crc32c.h"
#include "common/base/htab.h"
#include "common/base/list.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/mutate.h"
#include "common/co/sync.h"
#include "common/env/env.h"

#define RSN_NONE  UINT64_MAX
#define RSN_START 1u /* "before every record" */

struct dev;
struct ext;
struct merge;
struct ahead;

/* ---- metadata pages ---- */

/* Pages of the kinds BITMAP and HEAD are images of what is always in memory. The others are in
 * memory while somebody holds them, while they are dirty or on their way home, and otherwise for
 * as long as the budget has room. */
enum mpage_kind {
    MP_BITMAP,
    MP_HEAD,
    MP_MAP,
    MP_GENS, /* struct ext_map: comes from the head page, and goes home as part of it */
    MP_REFS,
    MP_ROLL, /* always in memory if a page that it names is in use */
};
struct mpage {
    struct dev *dev;
    struct list dirty;  /* dev->dirty */
    struct list idle;   /* engine->idle: it may leave */
    uint64_t dirty_rsn; /* oldest record not in the page's last image; RSN_NONE: clean */
    enum mpage_kind kind;
    uint32_t index; /* BITMAP, MAP, REFS, ROLL: number */
    uint32_t holds;
    uint32_t images;        /* on their way home */
    uint32_t bytes;         /* charged to the budget */
    struct ext *ext;        /* HEAD, MAP, GENS */
    struct map_page *map;   /* MAP: NULL means known to be empty */
    struct refs_page *refs; /* REFS */
    struct roll_page *roll; /* ROLL */
};

/* The map pages of an extent that are in memory. */
struct ext_map {
    struct mpage gens;             /* this structure; held while it has pages */
    uint64_t gen[MAP_PAGES];       /* as on the device; 0: the page was never written */
    struct mpage *page[MAP_PAGES]; /* NULL: not in memory */
};

/* What somebody needs of an extent's map. */
struct map_hold {
    struct ext *x;        /* NULL: nothing */
    uint32_t first, last; /* map pages */
};

/* ---- journaled pages that are not home ---- */

struct jpage {
    struct list live;   /* journal->live, by rsn */
    struct list cached; /* engine->cached, by rsn */
    struct ext *ext;    /* valid while current */
    uint64_t rsn;
    uint64_t pos;    /* in the ring (units), once its commit was formed */
    struct buf *buf; /* NULL: read it from the ring */
    const uint8_t *data;
    uint32_t crc;
    uint32_t refs;
    uint16_t page; /* of the extent */
    bool current;  /* in its vblk */
    bool counted;  /* the flusher has finished it, for its pace */
};

/* Volatile state of one block of an extent. */
struct vblk {
    struct htab_node node; /* ext->vblks, by block */
    uint64_t mask;         /* pages with a jpage */
    struct jpage **jp;     /* these, in order (vblk_page); &one as long as that is enough */
    struct jpage *one;
    uint32_t cap;
    uint64_t flushing; /* pages with a home write in flight */
    uint32_t users;    /* direct writes in flight */
};

/* ---- extents ---- */

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
    struct htab_node node; /* engine->exts */
    uint32_t refs;
    uint64_t id;
    struct dev *dev;
    uint32_t head; /* number of the head page */
    struct mpage head_page;
    /* durable state */
    uint64_t epoch, volume_id, family;
    uint32_t slot;
    bool is_void;
    bool frozen; /* an origin: repaired only; its own blocks may be its children's, too */
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
    uint32_t stretch;      /* of its latest new block, plus one; 0: none */
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
    bool deleting, dead;
    bool damaged;     /* found at replay */
    struct list doom; /* dev->doomed */
    /* on its way to another device (move.h) */
    struct move *move; /* notes what is written */
    uint32_t opening;  /* engine_open calls that run */
    bool arriving;     /* a twin: it counts for nothing yet */
    bool switching;    /* requests wait */
    bool forgotten;    /* not counted in dev->extents any more */
};

struct op { /* an admitted request */
    struct list link;
    struct ext *ext;
    uint64_t epoch;
    bool closed; /* the extent need not be open */
    bool shared; /* but clean */
};

/* ---- journal ---- */

struct jrec { /* queued; freed when durable */
    struct list link;
    struct rec_head *rec;
    struct jpage **jp; /* rec->pages of them */
    uint64_t rsn;
    uint32_t space; /* units reserved for it */
    bool joined;    /* the next one leaves in the same commit */
};
struct commit {        /* some that follow one another */
    struct list link;  /* journal->commits */
    uint64_t seq, pos; /* of the first */
    uint64_t next_pos, last_rsn;
    uint32_t prev_crc; /* of the first */
};
struct jwait {
    struct list link;
    uint64_t rsn;
    struct co_wait wait;
};
struct journal {
    /* fixed after open; places and lengths are counted in units */
    uint64_t off;        /* bytes */
    uint32_t unit;       /* bytes */
    uint32_t page_units; /* in a page */
    uint32_t units;      /* in the ring */
    uint32_t commit_units_max, rec_pages_max;
    uint32_t urgent_units; /* set aside for what must work on a full ring */
    /* end of the ring */
    uint64_t seq;   /* of the next commit, or the one on its way */
    uint64_t start; /* where that one begins (or the ring's start, if it does not fit here) */
    uint64_t pos;   /* end of all, the one on its way included */
    uint32_t prev_crc;
    uint64_t tail_pos; /* from here on the ring is in use */
    uint64_t next_rsn, durable_rsn;
    uint64_t durable_seq; /* the last commit that is durable */
    struct list queue;    /* struct jrec */
    bool eager;           /* the queue wants to leave now */
    struct list waiters;  /* struct jwait by rsn */
    struct list commits;  /* in the ring */
    struct list live;     /* struct jpage */
    uint32_t live_pages;
    nsec_t commit_time; /* of the last one's end */
    bool commit_running;
    bool commit_alone; /* the next one is trimmed apart from those before */
    uint32_t reserved; /* units promised to records not yet in a commit */
    struct co_mutex space_turn;
    struct co_cond space;
    struct co_cond work;
    uint64_t anchor_gen;
    uint64_t anchor_pos; /* last written */
    uint64_t term;
};

/* ---- pace (pace.c explains it); bytes of the ring ---- */

#define FLUSH_WINDOW 64u /* device writes of the flusher in flight, at most */

struct pace {
    uint64_t start, pay, limit, burst; /* fixed after open */
    int64_t credit;
    bool running; /* a cycle */
    uint64_t frees, earned;
    uint64_t left_pages, left_metas, done_pages, done_metas;
    uint32_t left_waits, done_waits; /* for a device request alone */
    uint32_t meta_ratio;             /* metadata pages for 1024 pages of data */
    /* how long requests waited for space */
    uint64_t waits;
    nsec_t wait_max;
};

/* ---- a region of a device ---- */

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
struct dev {
    struct list link;
    struct engine *e;
    char *path;
    struct super_block sb;
    struct geometry g;
    struct disk *disk;
    struct disk *ring;     /* of its journal: disk, or a handle of another device */
    char *ring_path;       /* of that device */
    uint16_t number;       /* among those that the engine ever had: its pages in the cache */
    struct co_cond loaded; /* some pages that were being read ahead are there, or not */
    struct co_group group;
    bool stopping, failed, replaying;
    bool unsettled;   /* its extents are in `opening` */
    bool any_damaged; /* found at replay */
    uint32_t io_errors;
    uint32_t extents;    /* it holds so many, twins and doomed ones included */
    uint32_t ext_count;  /* there are so many struct ext: some are gone and still in use */
    struct htab opening; /* see dev_settle */
    struct list doomed;  /* struct ext: copies that lost (settle.c) */
    struct co_cond doomed_less;
    bool discarding; /* the doomed ones */
    enum drain drain;
    bool drain_running, drain_stop, drain_copies;
    char drain_why[256];
    struct co_cond drain_ended;
    char error[256];
    uint64_t bytes_written;
    struct journal j;
    /* allocation: bits 0..blocks-1 are blocks, then heads, then the blocks that are shared */
    struct mpage *bitmap;
    uint64_t *bits;  /* as journaled */
    uint64_t *busy;  /* of blocks and heads: may not be given out */
    uint64_t *owned; /* of blocks not shared: named by a head or a map page that was loaded */
    uint32_t bits_total;
    uint32_t head_cursor; /* heads before this bit are taken */
    struct place place;
    struct mpage **refs; /* by number; NULL: not in memory */
    struct co_mutex refs_lock;
    uint64_t *scrubbed;      /* shared blocks that the round has read; NULL: none */
    struct mpage **roll;     /* by number; NULL: it names nothing that is in use */
    uint32_t roll_damaged;   /* so many of its pages were damaged, or older than what they name */
    uint32_t free_blocks;    /* not allocated, those pending included */
    uint32_t claimed;        /* promised to running writes */
    uint32_t credits;        /* promised to extents */
    uint32_t reserve_blocks; /* for overwrites by copy */
    uint32_t spares;         /* taken by such, and no former block is free for it yet */
    struct list pending;     /* struct pending_free by rsn */
    struct co_cond freed;
    struct co_cond homed; /* pages have come home */
    struct list pins;
    uint64_t next_pin;
    struct co_cond unpinned;
    /* flusher */
    struct list dirty; /* struct mpage */
    struct co_mutex flush_turn;
    struct co_cond flush_work;
    struct co_cond maps_written; /* by the flusher: some, or a cycle has ended */
    bool flush_now, flush_idle;
    struct list journaled; /* struct ext with journaled pages; */
    struct list cycle;     /* those that the running cycle has not yet done */
    struct ext *cycle_ext; /* the first of them, done up to cycle_block */
    uint32_t cycle_block;
    uint64_t cycle_rsn; /* the last record that the running, or last, cycle brings home */
    nsec_t cycle_time;  /* of its end */
    struct pace pace;
    uint64_t stage_started, stage_durable; /* batches */
    uint64_t gen_last;                     /* of map pages and batches */
};

struct engine {
    struct engine_conf conf;
    struct co_loop *loop;
    struct list devs;
    uint32_t n_devs;
    struct htab exts;
    struct scrub *scrub;
    struct budget memory;
    struct budget_user mem_journal, mem_meta;
    struct list cached;   /* struct jpage with a buffer */
    struct list idle;     /* struct mpage that may leave, last used last */
    uint64_t dirty_pages; /* of those kinds that leave */
    uint64_t map_reads, map_evictions;
    struct cache *cache;
    struct list aheads; /* struct ahead, last used last */
    uint32_t n_aheads;
    struct co_group readers; /* ahead */
    uint16_t dev_numbers;    /* given out */
    struct list merges;      /* struct merge, last used last */
    uint32_t n_merges;
    bool any_void;        /* some extent may be */
    uint32_t devs_absent; /* of the server, not in devs */
    struct co_group drains;
};

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

/* dev.c */
co_fn int dev_open(struct engine *e, const char *path, const struct super_block *sb,
                   const struct journal_host *host, struct dev **ret);
co_fn void dev_close(struct dev *d);
/* A device for a new extent that needs so many blocks; NULL: none has room. */
struct dev *dev_choose(struct engine *e, uint32_t blocks);
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
int64_t blocks_available(const struct dev *d); /* for credits and new blocks */
/* Promises n blocks to a write of x: its credits first. ERR_NOSPACE. */
int blocks_claim(struct ext *x, uint32_t n);
void blocks_unclaim(struct ext *x, uint32_t n); /* back to the extent's credits */
/* Gives out one claimed block, for block `index` of the extent or for metadata; waits for pending
 * ones. */
co_fn int block_take(struct ext *x, uint32_t index, uint32_t *ret);
co_fn int block_take_meta(struct dev *d, uint32_t *ret);
/* One for a copy, from the reserve: false if there is none at once. The caller counts dev->spares
 * down when the former block is freed, or this one is given back. */
bool block_take_spare(struct ext *x, uint32_t index, uint32_t *ret);
void block_untake(struct dev *d, uint32_t block); /* never written to the journal; not claimed */
int head_take(struct dev *d, uint32_t *ret);
void head_untake(struct dev *d, uint32_t head);

/* place.c: a place among those that are not busy (as a bit's number); false if all are */
bool place_data(struct ext *x, uint32_t index, uint32_t *ret);
bool place_meta(struct dev *d, uint32_t *ret);
void place_init(struct dev *d);
void place_build(struct dev *d);
void place_fini(struct dev *d);
void place_changed(struct dev *d, uint32_t i); /* the block's busy bit has another value */
bool place_check(const struct dev *d);
/* refs.c */
void refs_init(struct dev *d);
void refs_free(struct dev *d);
struct refs_hold { /* pages that stay in memory */
    struct mpage **pages;
    uint32_t n, cap;
};
/* Brings the count of a block into memory, if it has one. Wanted before refs_get and refs_drop of
 * a shared block, and before refs_apply makes one shared. */
co_fn int refs_load(struct dev *d, uint32_t block, struct refs_hold *h) MUST_CHECK;
/* Those of all sources of some blocks; their map must be loaded. */
co_fn int refs_load_map(struct ext *x, uint32_t first_block, uint32_t last_block,
                        struct refs_hold *h) MUST_CHECK;
void refs_evict(struct mpage *m);
void refs_hold_free(struct refs_hold *h);
uint32_t refs_get(const struct dev *d, uint32_t block); /* of an allocated block */
/* The block's references less one. Nothing changes: the caller journals it. */
struct rec_ref refs_less(const struct dev *d, uint32_t block);
/* Applies what a record says. */
void refs_apply(struct dev *d, const struct rec_ref *r, uint32_t n, uint64_t rsn);
void refs_pack(struct dev *d, uint32_t index, uint8_t *page, uint64_t *off, uint64_t gen);
co_fn int refs_replay(struct dev *d, const struct rec_ref *r, uint32_t n, uint64_t rsn);
void refs_finish_replay(struct dev *d);

/* roll.c */
void roll_init(struct dev *d);
void roll_free(struct dev *d);
/* Which of the roll's pages names a bitmap, reference or head page; the first head in one. */
uint32_t roll_page_of(const struct geometry *g, enum meta_kind kind, uint32_t index);
uint32_t roll_first_head(const struct geometry *g, uint32_t page);
void roll_take(struct dev *d, uint32_t index, const uint8_t *page); /* as read at start */
/* Of a page that was read and is valid: ERR_CORRUPT if it is not the last one written. */
int roll_check(struct dev *d, enum meta_kind kind, uint32_t index, const struct meta_head *h);
/* An image is about to go home: returns the roll's page, which must be in the same batch. */
struct mpage *roll_set(struct dev *d, enum meta_kind kind, uint32_t index, uint64_t gen);
uint64_t roll_get(const struct dev *d, enum meta_kind kind, uint32_t index);
void roll_pack(struct dev *d, uint32_t index, uint8_t *page, uint64_t *off);

/* share.c */
/* Before a write takes its range lock: no block that it writes in part has so many sources that a
 * child would have no room for them. Before a child is made: the same of the whole extent. */
co_fn int share_merge(struct op *op, uint32_t first_block, uint32_t last_block) MUST_CHECK;
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
co_fn int thaw_replay(struct ext *x, const struct rec_thaw *r, uint64_t rsn) MUST_CHECK;
bool thaw_ok(const struct rec_thaw *r, uint32_t blocks);

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
struct ext *ext_get(struct ext *x);
void ext_put(struct ext *x);
void ext_foreach(struct engine *e, void (*fn)(void *arg, struct ext *x), void *arg);
void ext_dirty(struct ext *x, uint64_t rsn);
co_fn void ext_damaged(struct ext *x, const char *why); /* void from now on, and closed */
void ext_apply_create(struct ext *x, const struct rec_create *r, uint64_t rsn);
void ext_apply_delete(struct dev *d, const struct rec_delete *r, uint64_t rsn);
void ext_apply_void(struct ext *x, bool on, uint64_t rsn);
void ext_apply_versions(struct ext *x, const struct rec_versions *r);
void ext_apply_arrive(struct ext *x, const struct rec_arrive *r, uint64_t rsn);

/* extent_ops.c */
/* The extent in force; NULL: none. Waits while it changes its device. */
co_fn int ext_admit(struct engine *e, uint64_t id, struct ext **ret) MUST_CHECK;
int op_begin(struct engine *e, uint64_t id, uint64_t epoch, struct op *op);
/* A reader of whatever is there, open or not. */
#define OP_EPOCH_NONE (UINT64_MAX - 1) /* no opener waits for it; a deletion does */
int op_begin_closed(struct engine *e, uint64_t id, uint64_t epoch, struct op *op);
/* A reader of a replica that is whole and clean, as known at an epoch (0: any), open or not. */
co_fn int op_begin_shared(struct engine *e, uint64_t id, uint64_t view_epoch,
                          struct op *op) MUST_CHECK;
int op_check(const struct op *op); /* still admitted? */
void op_end(struct op *op);
/* Another request of the same kind, admitted because this one is. */
void op_again(const struct op *op, struct op *ret);
/* Deletes an extent that is in no table, journaled; drops the reference. After an error it is still
 * on the device, for the next start. */
co_fn int ext_discard(struct ext *x) MUST_CHECK;

/* move.c */
void move_target_failed(struct ext *x, const struct dev *d);

/* move_copy.c */
void move_note(struct ext *x, uint32_t first, uint32_t count); /* these pages have changed */

/* drain.c */
co_fn void drains_end(struct engine *e);

/* settle.c */
/* A device was opened: its extents join the others. Of two copies one is in force, the other is
 * deleted in the background. */
void dev_settle(struct dev *d);
co_fn void dev_settled_wait(struct dev *d); /* nothing is left to delete, or the device failed */
void dev_settle_end(struct dev *d);         /* no coroutine runs any more */
/* create.c */
struct ext_place;
co_fn int create_exists(struct ext *x, uint64_t epoch);
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

/* head.c */
/* Builds the images of a head and its overflow pages: returns how many, at most
 * 1 + OVERFLOW_PAGES; offs gets their places. */
uint32_t head_pack(struct ext *x, uint8_t *pages, uint64_t *offs, uint64_t gen);
/* To be called for each page when what they reflect is durable. */
void head_seal(const struct dev *d, uint8_t *page);
/* A new extent from its head page as read; keep_gens: it gets its ext_map at once. */
co_fn int head_open(struct dev *d, uint32_t head, const struct extent_head *h, bool keep_gens,
                    struct ext **ret);
/* Reads the generations of an extent's map pages again. */
co_fn int head_read_gens(struct ext *x, uint64_t gen[MAP_PAGES]) MUST_CHECK;

/* mpage.c */
void mpages_init(struct engine *e);
void mpage_init(struct mpage *m, struct dev *d, enum mpage_kind kind, uint32_t index,
                struct ext *x);
void mpage_fini(struct mpage *m);
void mpage_charge(struct mpage *m, uint32_t bytes); /* more memory of it; may evict others */
void mpage_hold(struct mpage *m);
void mpage_release(struct mpage *m);
void mpage_dirty(struct dev *d, struct mpage *m, uint64_t rsn);
void mpage_forget(struct mpage *m); /* clean, though it was not written */
/* Around the writing of an image: clean from the first on, in memory until the second. */
void mpage_image_begin(struct mpage *m);
void mpage_image_end(struct mpage *m);
/* So much that can leave is dirty that the flusher has to write it; that writers have to wait. */
bool memory_dirty(const struct engine *e);
bool memory_full_of_dirt(const struct engine *e);

/* map.c */
/* A map page's gen says in which of its two slots it lies, and later ones are higher. */
uint32_t map_slot(uint64_t gen);
uint64_t map_gen_next(struct dev *d, uint32_t slot);
uint64_t gen_next(struct dev *d); /* of a batch: the same numbers, whatever the slot */
uint64_t meta_off(const struct ext *x, uint32_t page); /* of the pages of its metadata blocks */
uint64_t map_off(const struct ext *x, uint32_t index, uint32_t slot);
/* The map pages of these blocks are in memory from here on until they are released. ERR_CORRUPT:
 * some were damaged; the extent is void, they count as empty, and are held all the same. Any
 * other error: nothing is held. Release whatever the result was. */
co_fn int map_hold(struct ext *x, uint32_t first_block, uint32_t last_block, struct map_hold *ret);
void map_release(struct map_hold *h); /* of nothing, or twice: does nothing */
/* Of a block that is held (asserted). The entry is good until it is released, its content until
 * the next suspension. All zero if the block is not allocated. */
const struct map_entry *map_get(const struct ext *x, uint32_t block);
const struct map_entry *map_peek(const struct ext *x, uint32_t block); /* NULL: not in memory */
struct map_entry *map_change(struct ext *x, uint32_t block, uint64_t rsn);
/* After replay: what heads and map pages say against the allocation. */
void map_check_loaded(struct ext *x);
struct ext_map *map_new(struct ext *x);       /* nothing was ever written; held for the caller */
co_fn int map_gens(struct ext *x) MUST_CHECK; /* sees to it that x->map is there now */
void map_evict(struct mpage *m);
void map_free_all(struct ext *x);
bool block_allocated(const struct ext *x, uint32_t block); /* has its own: writes need no other */
bool block_shared(const struct ext *x, uint32_t block);    /* has other sources */
bool block_mapped(const struct ext *x, uint32_t block);    /* holds anything */
const struct map_src *entry_source(const struct map_entry *en, uint32_t bit); /* NULL: zero */
bool entry_empty(const struct map_entry *en);                                 /* maps nothing */
/* What the head says of a block, after its entry changed. */
void head_bits_put(struct ext *x, uint32_t block, const struct map_entry *en);
/* Pages of a block as bits; count is at least 1. */
static inline uint64_t page_mask(uint32_t first_bit, uint32_t count)
{
    return (count == 64 ? UINT64_MAX : (1ull << count) - 1) << first_bit;
}

/* map_apply.c */
void map_apply_alloc(struct ext *x, uint32_t index, uint32_t block, uint64_t rsn);
void map_apply_thaw(struct ext *x, const struct thaw_block *t, uint64_t rsn);
void map_apply_write(struct ext *x, const struct rec_write *r, const uint32_t *crc, uint64_t rsn);
void map_apply_data(struct ext *x, const struct rec_write *r, uint64_t rsn); /* REC_F_MAP */
void map_apply_zero(struct ext *x, const struct rec_write *r, uint64_t rsn);

/* jpage.c */
struct vblk *vblk_get(const struct ext *x, uint32_t block); /* NULL if there is none */
struct vblk *vblk_make(struct ext *x, uint32_t block);
void vblk_tidy(struct ext *x, uint32_t block);               /* frees it if it holds nothing */
struct jpage *vblk_page(const struct vblk *v, uint32_t bit); /* NULL if it has none */
struct jpage *jpage_find(const struct ext *x, uint32_t page);
/* Takes a reference of the buffer; one reference for the caller. */
struct jpage *jpage_new(uint32_t page, struct buf *buf, const uint8_t *data, uint32_t crc);
void jpage_insert(struct ext *x, struct jpage *jp); /* replaces what was there */
void jpage_drop(struct ext *x, uint32_t first, uint32_t count);
void jpage_put(struct jpage *jp);
void jpages_drop_all(struct ext *x);
void jpages_init(struct engine *e);

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

/* journal_append.c */
void journal_init(struct dev *d);
co_fn int journal_main(void *dev);
void journal_wake_failed(struct dev *d);
void journal_kick(struct dev *d); /* lets lazy records leave */
/* Waits until so many units are free for records to be queued. urgent: may use the reserve. */
co_fn int journal_space(struct dev *d, uint32_t units, bool urgent) MUST_CHECK;
void journal_space_return(struct dev *d, uint32_t units);
/* Space of one record, in units. */
uint32_t journal_cost(const struct dev *d, uint32_t rec_bytes, uint32_t pages);
/* Queues a record (mem_ memory, taken) with its pages' jpages (mem_ array, taken; a reference of
 * each). `space` of what was waited for goes to it. lazy: leaves with the next one. Returns its
 * number. */
uint64_t journal_add(struct dev *d, struct rec_head *rec, struct jpage **jp, uint32_t space,
                     bool lazy);
/* The record queued last and the next one, which follows without a suspension, leave in one commit.
 * The first of such a group has the space of all. */
void journal_join(struct dev *d);
co_fn int journal_wait(struct dev *d, uint64_t rsn) MUST_CHECK; /* until it is durable */
co_fn int journal_sync(struct dev *d) MUST_CHECK;               /* everything queued so far */
void *rec_new(struct dev *d, enum rec_type type, uint64_t extent_id, size_t bytes);
/* Notes that a commit, or some, are in the ring (mem_ memory, taken). */
void commit_add(struct journal *j, struct commit *c);
uint64_t journal_used(const struct dev *d);               /* units */
uint64_t ring_off(const struct journal *j, uint64_t pos); /* on the device */
co_fn int anchor_write(struct dev *d) MUST_CHECK;
void journal_free(struct dev *d);

/* journal_replay.c (replay.h) */
co_fn int journal_replay(struct dev *d) MUST_CHECK;

/* read.c */
/* Reads whole pages of an extent into dst, verified. The range must be locked and the map loaded;
 * *ret_zero: nothing but zeroes, dst untouched. crc may be NULL. */
co_fn int pages_read(struct ext *x, uint32_t first, uint32_t count, uint8_t *dst, uint32_t *crc,
                     bool *ret_zero) MUST_CHECK;
/* Where a page that has no journaled one lies at home; false: it is zero. The map must be held. */
bool page_home(struct ext *x, uint32_t page, uint64_t *ret_off, uint32_t *ret_crc);
#define ZERO_PAGE_CRC 0x98f94189u /* asserted at start */
uint32_t zero_page_crc(void);

/* scrub.c */
struct scrub *scrub_new(void);
co_fn void scrub_end(struct engine *e); /* it is not running any more */
void scrub_free(struct engine *e);
void corrupt_note(const struct ext *x, uint32_t page);
void corrupt_forget(const struct ext *x, uint32_t first, uint32_t count); /* written anew */

/* merge.c */
void merge_free(struct ext *x);

/* readahead.c */
struct ahead_stream;
struct ahead_use { /* of a read request */
    struct ahead *a;
    struct ahead_stream *s; /* NULL: it belongs to no sequential stream */
};
/* Notes a request that was admitted, and reads ahead in the background if that is worth it. */
co_fn void readahead_begin(const struct op *op, uint32_t off, uint32_t len, struct ahead_use *ret);
void readahead_end(struct ahead_use *u, uint32_t hits); /* pages that were in memory */
void readahead_free(struct ext *x);

/* pace.c */
void pace_init(struct dev *d);
uint64_t pace_level(const struct dev *d);
bool pace_pressed(const struct dev *d); /* the flusher must work */
/* May a record of so many bytes enter the ring? Takes what it costs. */
bool pace_admit(struct dev *d, uint64_t bytes);
uint32_t pace_window(const struct dev *d); /* device writes to have in flight */
/* A cycle: begin, work, end. metas: metadata pages that are dirty now. */
void pace_begin(struct dev *d, uint64_t frees, uint32_t metas);
void pace_pages(struct dev *d, uint32_t n); /* finished */
void pace_metas(struct dev *d, uint32_t n);
void pace_waited(struct dev *d); /* for a single device request */
/* Writes metadata pages, a window of requests in flight. */
co_fn int pace_writes(struct dev *d, struct disk_req *reqs, uint32_t n) MUST_CHECK;
void pace_estimate(struct dev *d, uint32_t metas); /* anew, in the middle of a cycle */
void pace_pages_end(struct dev *d);                /* all pages of data are finished */
void pace_end(struct dev *d);                      /* together with the ring's new tail */

/* home.c */
void home_begin(struct dev *d); /* everything that is journaled now */
/* Brings the next pages home; *ret_more: there are others. */
co_fn int home_step(struct dev *d, bool *ret_more) MUST_CHECK;
/* All pages of one extent, at once, beside the cycles. Writers must be kept out. */
co_fn int home_extent(struct ext *x) MUST_CHECK;

/* flush.c, checkpoint.c */
co_fn int flush_main(void *dev);
void flush_kick(struct dev *d);
co_fn int flush_to(struct dev *d, uint64_t rsn) MUST_CHECK;
co_fn int checkpoint_to(struct dev *d, uint64_t rsn) MUST_CHECK;
co_fn int maps_to(struct dev *d, uint64_t rsn) MUST_CHECK; /* map pages only */
/* For writers: waits while too much metadata is dirty. */
co_fn int dirty_throttle(struct dev *d) MUST_CHECK;
co_fn int stage_recover(struct dev *d) MUST_CHECK;

#endif
