/* SPDX-License-Identifier: Apache-2.0
 *
 * One extent on its way to another device of its worker: move.c (its life), move_share.c (what its
 * relatives have there), move_copy.c (its pages) and move_pace.c (how fast). The extent in force
 * (from) serves all the time; its twin (to) is in no table and counts for nothing, also after a
 * crash, until the record that makes it arrive is durable. */
#ifndef ZBS_CHUNK_MOVE_H
#define ZBS_CHUNK_MOVE_H

#include "chunk/internal.h"

struct move {
    struct dev *dev; /* the target */
    struct ext *from, *to;
    struct create_args twin;
    struct sharing *sharing;           /* while blocks of relatives are looked for */
    uint64_t dirty[BLOCKS_PER_EXTENT]; /* pages that are not copied as they are now */
    uint32_t passes;                   /* begun */
    bool alone;                        /* no request is running or admitted: nothing is locked */
    /* of a pass: what is done with the dirty pages of a block, whose extent is locked against
     * writers; *ret_pages: what that was worth */
    int (*each)(struct move *m, uint32_t b, uint64_t dirty, uint32_t *ret_pages);
    uint32_t next;
    int rc;
};

uint32_t move_dirty_blocks(const struct move *m);
/* Does `each` for every block that is dirty now; what is written meanwhile is dirty again. */
co_fn int move_pass(struct move *m);
co_fn int move_copy_block(struct move *m, uint32_t b, uint64_t dirty, uint32_t *ret_pages);

/* move_share.c. Makes a twin that shares what relatives have on the target; none (m->to is NULL) if
 * there is nothing of the kind. What it does not share is dirty. */
co_fn int move_share(struct move *m) MUST_CHECK;
co_fn int move_share_block(struct move *m, uint32_t b, uint64_t dirty, uint32_t *ret_pages);

/* move_pace.c. Rests after a block of which so many pages were copied, in so long. */
co_fn int move_rest(struct move *m, uint32_t pages, nsec_t took) MUST_CHECK;

/* move.c */
/* Nothing is in the way of a twin, now. */
int twin_check(const struct move *m) MUST_CHECK;
/* Are there blocks that other extents name, too? */
co_fn int ext_shares(struct ext *x, bool *ret) MUST_CHECK;
/* Moves an extent; when 0 is returned it is in force on d. ERR_NO_REPLICA: it was deleted
 * meanwhile. After any error it is in force where it was. */
co_fn int ext_move(struct ext *x, struct dev *d) MUST_CHECK;

#endif
