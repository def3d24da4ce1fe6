/* SPDX-License-Identifier: Apache-2.0
 *
 * One write request on its way: shared by write.c (where its bytes go) and write_journal.c (what
 * its records say). */
#ifndef ZBS_CHUNK_WRITE_H
#define ZBS_CHUNK_WRITE_H

#include "chunk/internal.h"

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
    bool submitted, done;
    struct iovec iov;
    struct disk_req req;
};
struct edge { /* a page of which only a part is written */
    struct buf *buf;
    uint32_t page, crc;
    bool zero; /* it was zero, and is afterwards */
};
struct writing {
    const struct write_args *a;
    struct op op;
    struct ext *x;
    uint32_t first, last; /* pages, both included */
    struct buf *copy;     /* the payload, shifted to page boundaries */
    struct edge edge[2];
    struct seg *segs;
    uint32_t n_segs, cap_segs;
    uint32_t claimed, new_blocks;
    uint64_t last_rsn;
};

struct content {
    struct buf *buf;
    const uint8_t *data;
    uint32_t crc;
};
struct content page_content(const struct writing *w, uint32_t page);

/* write_journal.c */
int missing_room(const struct writing *w);
co_fn int write_journal(struct writing *w); /* queues the records and waits for them */

#endif
