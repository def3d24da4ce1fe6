/* SPDX-License-Identifier: Apache-2.0
 *
 * One write request on its way: shared by write.c (where its bytes go) and write_journal.c (what
 * its records say). */
#ifndef ZBS_CHUNK_WRITE_H
#define ZBS_CHUNK_WRITE_H

#include "chunk/internal.h"

struct writing;

#define DIRECT_PAGES_MIN 16u /* 64 KiB: goes past the journal by itself */

enum seg_how {
    SEG_JOURNAL,  /* the pages travel in their record */
    SEG_IN_PLACE, /* pages of the block that never held anything */
    SEG_BLOCK,    /* all pages of the block, to a new one */
    SEG_ZERO,     /* no pages */
};
struct seg {
    enum seg_how how;
    uint32_t first, count; /* pages of one block (ZERO: of any) */
    uint32_t block;        /* IN_PLACE, BLOCK: where, number + 1 */
    bool is_new;           /* the extent's block had none before */
    bool whole;            /* pages as they came, none completed */
    bool direct, done;
    struct iovec iov;
    struct disk_req req; /* of a direct one: if it does not belong to the write of one before it */
    struct writing *w;
    struct list merge; /* with others of its stream (merge.c) */
    bool waiting;      /* there */
};
struct edge { /* a page of which only a part is written */
    struct buf *buf;
    uint32_t page, crc;
    bool zero; /* it was zero, and is afterwards */
};
struct merging {      /* a request's part in merge.c */
    struct merge *m;  /* of its extent; NULL: no data */
    struct gather *g; /* of its stream; NULL: random */
    bool joined;      /* counts as one of the stream's requests */
    uint32_t waiting; /* segments that wait for others to be written with */
    uint32_t running; /* segments that are being written */
    int rc;
    struct co_cond moved;
};
struct writing {
    const struct write_args *a;
    struct op op;
    struct ext *x;
    uint32_t first, last; /* pages, both included */
    struct map_hold hold; /* of their map */
    struct buf *copy;     /* the payload, shifted to page boundaries */
    struct edge edge[2];
    struct seg *segs; /* &one as long as that is enough */
    struct seg one;
    uint32_t n_segs, cap_segs;
    struct claim claim;
    uint32_t new_blocks;
    struct refs_hold refs; /* of the blocks that it may drop */
    uint64_t last_rsn;
    struct merging merging;
};

struct content {
    struct buf *buf;
    const uint8_t *data;
    uint32_t crc;
};
struct content page_content(const struct writing *w, uint32_t page);

/* May these pages of one block be written to their places past the journal, as far as the device
 * is concerned? */
bool pages_fresh(const struct ext *x, uint32_t first, uint32_t count);

/* merge.c */
/* Notes a request as it arrives. */
void merge_note(struct writing *w);
/* Has the segments for the journal that continue a stream written together with their neighbours:
 * they are SEG_IN_PLACE then, and written. Others stay as they are. */
co_fn int merge_write(struct writing *w);
void merge_leave(struct writing *w); /* the request is over */
/* It continues a stream in which not so much is under way at once as makes a block. */
bool merge_is_alone(const struct writing *w);

/* renew.c. Before the request is cut: its last block, which it writes from the beginning on, but
 * not to the end, gets a new place if that is better than the journal. */
co_fn int renew_last(struct writing *w) MUST_CHECK;

/* write_journal.c */
int missing_room(const struct writing *w);
co_fn int write_journal(struct writing *w); /* queues the records and waits for them */
/* Queues those of segments, of several requests, that are all of a block, for its new place. */
co_fn int write_journal_run(const struct list *segs, uint32_t block);

#endif
