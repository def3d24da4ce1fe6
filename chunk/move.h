/* SPDX-License-Identifier: Apache-2.0
 *
 * One extent on its way to another device of its worker: move.c (its life), move_copy.c (its
 * pages) and move_pace.c (how fast). The extent in force (from) serves all the time; its twin (to)
 * is in no table and counts for nothing, also after a crash, until the record that makes it arrive
 * is durable. */
#ifndef ZBS_CHUNK_MOVE_H
#define ZBS_CHUNK_MOVE_H

#include "chunk/internal.h"

struct move {
    struct ext *from, *to;
    uint64_t dirty[BLOCKS_PER_EXTENT]; /* pages that are not copied as they are now */
    uint32_t passes;                   /* begun */
    bool alone;                        /* no request is running or admitted: nothing is locked */
    /* of a pass */
    uint32_t next;
    int rc;
};

uint32_t move_dirty_blocks(const struct move *m);
/* Copies what is dirty now; what is written meanwhile is dirty again. */
co_fn int move_pass(struct move *m);

/* move_pace.c. Rests after a block of which so many pages were copied, in so long. */
co_fn int move_rest(struct move *m, uint32_t pages, nsec_t took) MUST_CHECK;

/* move.c. Moves an extent; when 0 is returned it is in force on d. ERR_NO_REPLICA: it was deleted
 * meanwhile. After any error it is in force where it was. */
co_fn int ext_move(struct ext *x, struct dev *d) MUST_CHECK;

#endif
