/* SPDX-License-Identifier: Apache-2.0
 *
 * What an engine must hold at one moment of a workload: of everything, what was acknowledged and
 * what is on its way. A model is plain data, changed by a list of changes only, so that the state
 * of any moment is had by applying the list up to there. */
#ifndef ZBS_TESTS_CRASH_MODEL_H
#define ZBS_TESTS_CRASH_MODEL_H

#include "chunk/engine.h"

#define MODEL_BLOCKS  12u /* of each extent that are used */
#define NEAR_BLOCKS   8u  /* the first of these, in one piece; the others lie far away */
#define MODEL_PAGES   (MODEL_BLOCKS * PAGES_PER_BLOCK)
#define BLOCK_SECTORS (PAGES_PER_BLOCK * SECTORS_PER_PAGE)
#define MODEL_SECTORS (MODEL_BLOCKS * BLOCK_SECTORS)
#define EXTENTS_MAX   6u
#define REPLICAS      2u /* absent ones, with a missing set */
#define PENDING_MAX   16u

/* Two values: as acknowledged, and as it is if what is on its way happened. Equal: certain. */
struct flag2 {
    bool acked, maybe;
};
struct version2 {
    struct version acked, maybe;
};
struct model_page {
    struct version acked; /* of the last write that was acknowledged */
    struct version maybe; /* of the write on its way; epoch 0: none */
    struct flag2 missing[REPLICAS];
};
struct model_set {
    struct flag2 there;
    struct version2 last;
    bool everything; /* it once was: pages that the model does not have may be in it */
};
struct model_extent {
    struct flag2 there;
    struct flag2 frozen; /* it has, or had, a child, and was not thawed since */
    struct flag2 reserved;
    bool full;       /* its other blocks hold something, too */
    uint32_t origin; /* plus one, while the child is being made; 0: none */
    uint64_t epoch, epoch_maybe;
    struct version2 cp, last; /* at least acked, at most maybe */
    struct model_set set[REPLICAS];
    bool freed[MODEL_BLOCKS]; /* the last that happened to the block: all of it was discarded */
    struct model_page page[MODEL_PAGES];
    uint32_t acked[MODEL_SECTORS]; /* number of the write that it holds; 0: zeroes */
    uint32_t maybe[MODEL_SECTORS];
};

enum change_kind {
    CH_CREATE, /* epoch; origin: plus one, or 0; reserve */
    CH_DELETE,
    CH_OPEN,  /* epoch, thaw */
    CH_WRITE, /* first, n: sectors; number, v, cp, replicas, write */
    CH_CP,    /* cp */
    CH_SET,   /* replicas, v: start; everything; drop */
    CH_ADD,   /* replicas; first, n: sectors of whole pages */
    CH_CLEAR,
    CH_RESERVE, /* reserve */
    CH_FULL,
    /* what a restart showed of what was on its way */
    CH_SEEN_EXTENT,  /* seen */
    CH_SEEN_EPOCH,   /* epoch */
    CH_SEEN_OPEN,    /* epoch, v: last version, cp, seen: frozen, reserve */
    CH_SEEN_PAGE,    /* first: page; seen: the write on its way happened */
    CH_SEEN_SET,     /* replicas, seen, v */
    CH_SEEN_MISSING, /* replicas, first: page, seen */
    CH_RESTART,      /* all of it was seen: nothing is on its way */
};
enum change_phase { PH_BEGIN, PH_DONE, PH_REFUSED };
struct change {
    enum change_kind kind;
    enum change_phase phase;
    uint32_t ext, first, n, number;
    uint32_t replicas; /* bits */
    uint32_t origin;
    uint64_t epoch;
    struct version v, cp;
    enum write_kind write;
    bool everything, drop, seen, thaw, reserve;
};

struct model {
    uint32_t n_ext, last_number;
    uint32_t n_pending;
    struct change pending[PENDING_MAX]; /* writes on their way */
    struct model_extent x[];
};
struct changes {
    struct change *c;
    uint32_t n, cap;
};

struct model *model_new(uint32_t extents);
struct model *model_copy(const struct model *m);
void model_apply(struct model *m, const struct change *c);
void changes_add(struct changes *l, const struct change *c);

/* Where the model's sectors lie in an extent: some blocks in a row, others in far map pages. */
uint32_t model_block(uint32_t b);
uint32_t model_off(uint32_t sector);
static inline uint64_t model_id(uint32_t ext)
{
    return 1000u + ext;
}
static inline uint32_t replica_id(uint32_t r)
{
    return 77u + r;
}
/* A sector is filled with this word: which write, of all extents, and which place. */
static inline uint64_t sector_word(uint32_t number, uint32_t sector)
{
    return number == 0 ? 0 : (uint64_t)number << 32 | sector;
}

#endif
