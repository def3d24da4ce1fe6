/* SPDX-License-Identifier: Apache-2.0
 *
 * The journal and the way home: records, the ring, journaled pages, the flusher and its pace. */
#ifndef ZBS_CHUNK_JOURNAL_H
#define ZBS_CHUNK_JOURNAL_H

#include "chunk/engine.h"
#include "common/base/buf.h"
#include "common/base/htab.h"
#include "common/base/list.h"
#include "common/co/sync.h"
#include "common/env/env.h"

struct dev;
struct ext;

#define RSN_NONE  UINT64_MAX
#define RSN_START 1u /* "before every record" */

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
    uint64_t flushing;        /* pages with a home write in flight */
    uint32_t users;           /* direct writes in flight */
    bool lent;                /* children of the frozen extent read the block's pages, too */
    struct htab_node by_home; /* dev->lent, by the block's number */
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

/* jpage.c */
struct vblk *vblk_get(const struct ext *x, uint32_t block); /* NULL if there is none */
struct vblk *vblk_make(struct ext *x, uint32_t block);
void vblk_tidy(struct ext *x, uint32_t block);               /* frees it if it holds nothing */
struct jpage *vblk_page(const struct vblk *v, uint32_t bit); /* NULL if it has none */
/* What the page is as long as that is not home: its own, or lent by whom it shares the block with.
 * The map must be held, if the block is mapped. NULL: the map has the answer. */
struct jpage *jpage_find(const struct ext *x, uint32_t page);
/* The block `home` is going to be a source of a child, which takes for home what is journaled. */
void vblk_lend(struct ext *x, uint32_t block, uint32_t home);
/* Takes a reference of the buffer; one reference for the caller. */
struct jpage *jpage_new(uint32_t page, struct buf *buf, const uint8_t *data, uint32_t crc);
void jpage_insert(struct ext *x, struct jpage *jp); /* replaces what was there */
void jpage_drop(struct ext *x, uint32_t first, uint32_t count);
void jpage_put(struct jpage *jp);
void jpages_drop_all(struct ext *x);
void jpages_init(struct engine *e);

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
/* What these blocks of an extent have lent, at once, beside the cycles. Before the block that it is
 * going to is no longer the extent's own, or the extent is gone. */
co_fn int home_lent(struct ext *x, uint32_t first_block, uint32_t last_block) MUST_CHECK;

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
