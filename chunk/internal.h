/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside of the engine: structures shared by its files and what each file offers the others. Here:
 * a device's region and the engine as a whole; the rest in the headers included below.
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
#include "chunk/extent.h"
#include "chunk/journal.h"
#include "chunk/memory.h"
#include "chunk/meta.h"
#include "chunk/space.h"
#include "common/base/assert.h"
#include "common/base/crc32c.h"
#include "common/base/htab.h"
#include "common/base/list.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/mutate.h"
#include "common/co/sync.h"
#include "common/env/env.h"
#include "common/env/phase.h"

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
    struct htab apart;   /* struct ext: in no other table, and on the device all the same */
    struct list doomed;  /* of those: copies that lost (settle.c) */
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
    uint32_t credits;        /* promised to extents, */
    uint32_t reserved;       /* of these, to reserved ones */
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
    struct htab lent;      /* struct vblk that children read, by the number of their block */
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
    struct deletion *deleted; /* confirmed lately */
    struct scrub *scrub;
    struct budget memory;
    struct budget_user mem_journal, mem_meta, mem_merges, mem_aheads;
    struct list cached;   /* struct jpage with a buffer */
    struct list idle;     /* struct mpage that may leave, last used last */
    uint64_t dirty_pages; /* of those kinds that leave */
    uint64_t map_reads, map_evictions;
    struct cache *cache;
    struct list aheads;      /* struct ahead, last used last */
    struct co_group readers; /* ahead */
    uint16_t dev_numbers;    /* given out */
    struct list merges;      /* struct merge, last used last */
    bool any_void;           /* some extent may be */
    uint32_t devs_absent;    /* of the server, not in devs */
    struct co_group drains;
    nsec_t drain_due; /* by its rate */
    nsec_t asked;     /* the last request, for data */
};

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
void merges_init(struct engine *e);
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
void readahead_init(struct engine *e);

#endif
