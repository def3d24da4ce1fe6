/* SPDX-License-Identifier: Apache-2.0
 *
 * Replay: shared by journal_replay.c (which commits count) and replay_apply.c (what they say). */
#ifndef ZBS_CHUNK_REPLAY_H
#define ZBS_CHUNK_REPLAY_H

#include "chunk/internal.h"

struct rcommit { /* a commit of the ring that counts */
    struct list link;
    struct commit_head *head; /* with its records */
    bool *bad;                /* by data page: another checksum */
    uint32_t n_bad;
};
struct replay {
    struct dev *d;
    struct list commits;
    struct htab heads;   /* created or deleted in the journal: their pages don't count */
    struct htab touched; /* extents that records name */
    struct htab doomed;  /* extents that records still to come delete */
    struct htab unknown; /* extents that records name, and nobody else */
    bool hole;           /* the journal is damaged in the middle */
};

/* The checksums in a DATA or MAP record. */
const uint32_t *rec_crcs(const struct rec_write *r);
const uint32_t *rec_missing_list(const struct rec_write *r);

/* Sets of numbers: of struct idset_item, memory for what is in them only. */
bool idset_has(const struct htab *set, uint64_t id);
void idset_add(struct htab *set, uint64_t id);
void idset_remove(struct htab *set, uint64_t id);

void replay_mark(struct replay *rp, const struct commit_head *h); /* heads, touched */
/* replay_ahead.c: holds what the commits from `from` on need of the maps, as many of them as make
 * a good number of reads; *ret_until: the first that is left (NULL: none). */
struct replay_ahead;
co_fn struct replay_ahead *replay_ahead_new(struct dev *d, struct list *commits,
                                            struct rcommit *from, struct rcommit **ret_until);
void replay_ahead_free(struct replay_ahead *a); /* NULL is allowed */
/* start.c */
co_fn int bitmap_load(struct dev *d) MUST_CHECK;
co_fn int heads_load(struct replay *rp) MUST_CHECK;
co_fn int replay_finish(struct replay *rp);
void replay_free(struct replay *rp);
/* bad: one for each of the record's pages. */
co_fn int replay_record(struct replay *rp, const struct rec_head *h, uint64_t first_page_pos,
                        const bool *bad);
/* Everything in a record is in range, so that applying needs no further check. */
int rec_check(const struct rec_head *h, size_t room, const struct geometry *g);

#endif
