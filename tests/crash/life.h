/* SPDX-License-Identifier: Apache-2.0
 *
 * One life of an engine, from its start on a disk to its end: the client that asks it, changes
 * the model accordingly and, if it is recorded, dates each change on the tape. The client is an
 * owner as PROTOCOL wants one: writes to the same page follow one another, and an extent is
 * opened, deleted and the like only while none of its writes is on its way. */
#ifndef ZBS_TESTS_CRASH_LIFE_H
#define ZBS_TESTS_CRASH_LIFE_H

#include "common/co/sync.h"
#include "common/env/sim_tape.h"
#include "tests/crash/model.h"

#define DISKS_MAX 2u

struct life {
    /* given */
    struct model *m;
    struct changes *log;   /* NULL: changes are applied only */
    struct sim_tape *tape; /* gets a mark for each change; NULL: none */
    struct engine_conf conf;
    uint32_t disks;
    uint64_t rng;
    bool same_epoch; /* opens under the epoch that extents have: the owner is still the same */
    bool may_fill;   /* running out of space is an answer, not a failure, but to a write to a
                      * reserved extent */
    /* its state */
    struct engine *e;
    uint64_t epoch[EXTENTS_MAX]; /* opened under; 0: not open */
    uint64_t gen[EXTENTS_MAX];
    uint32_t busy[EXTENTS_MAX]; /* requests */
    bool closed[EXTENTS_MAX];   /* admits none */
    struct co_cond changed;
    uint64_t ops, refused; /* writes */
    char failure[400];     /* the first one; "": none */
};

const char *disk_path(uint32_t disk);

/* Records a failure; the life should come to its end. Returns false. */
bool life_fail(struct life *l, const char *fmt, ...) PRINTF_FMT(2, 3);
static inline bool life_ok(const struct life *l)
{
    return l->failure[0] == 0;
}
uint64_t life_random(struct life *l);
uint32_t life_below(struct life *l, uint32_t n);
void life_change(struct life *l, const struct change *c);

/* All of these return false after a failure. */
co_fn bool life_start(struct life *l); /* opens the disk, replays */
co_fn bool life_create(struct life *l, uint32_t ext, bool reserve);
co_fn bool life_child(struct life *l, uint32_t origin, uint32_t ext, bool reserve);
co_fn bool life_reserve(struct life *l, uint32_t ext, bool on);
co_fn bool life_full(struct life *l,
                     uint32_t ext); /* fills the blocks that the model does not use */
co_fn bool life_open(struct life *l, uint32_t ext, bool thaw); /* under a higher epoch */
co_fn bool life_delete(struct life *l, uint32_t ext);
/* Sectors of the extent, as writes of the stream; where it is frozen, as repairs. */
co_fn bool life_write(struct life *l, uint32_t ext, uint32_t first, uint32_t n,
                      enum write_kind kind);
co_fn bool life_again(struct life *l, const struct change *c); /* the same write once more */
co_fn bool life_cp(struct life *l, uint32_t ext);
co_fn bool life_set(struct life *l, uint32_t ext, uint32_t replica, bool everything, bool drop);
/* Pages out of the missing sets, or into them. */
co_fn bool life_missing(struct life *l, uint32_t ext, uint32_t first_page, uint32_t pages,
                        bool clear);
co_fn bool life_read(struct life *l, uint32_t ext, uint32_t first, uint32_t n);

/* An extent for a request: one that is open. Waits; false: the life ends. */
co_fn bool life_enter(struct life *l, uint32_t *ret_ext);
void life_leave(struct life *l, uint32_t ext);
/* Keeps requests from an extent, and waits for those on their way. */
co_fn void life_close(struct life *l, uint32_t ext);
void life_reopen(struct life *l, uint32_t ext);

/* verify.c: after life_start. Everything is as the model demands; all extents are open then.
 * What was on its way is settled in the model if `settle`. */
co_fn bool life_verify(struct life *l, bool settle);
/* Data only, of extents that are open and quiet. */
co_fn bool life_verify_data(struct life *l, uint32_t ext);

#endif
