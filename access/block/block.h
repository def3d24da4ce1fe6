/* SPDX-License-Identifier: Apache-2.0
 *
 * What a protocol front end needs of the bytes that it serves: a volume of the engine or, for
 * tests and tools, memory. access/scsi and access/nbd know volumes only through this. */
#ifndef ZBS_ACCESS_BLOCK_BLOCK_H
#define ZBS_ACCESS_BLOCK_BLOCK_H

#include <stdbool.h>
#include "common/base/buf.h"
#include "common/co/co.h"
#include "common/co/sync.h"

#define BLOCK_SECTOR_BYTES 512u /* offsets and lengths are multiples of it */

struct block_backend_info {
    uint64_t volume_id; /* for front ends' volume_changed and messages */
    uint8_t uuid[16];   /* identity of the volume on every path */
    uint64_t size_bytes;
    bool read_only; /* writes answer ERR_PERM */
    /* Room where the volume's blocks come from, which others take from too: in all (0: not known),
     * what is left, and from how little on initiators are warned (0: never). */
    uint64_t space_bytes, space_free_bytes, space_warn_bytes;
};

struct block_backend;

/* Semantics and errors are those of access/vol/vol.h. All but info may suspend. */
struct block_backend_ops {
    void (*info)(struct block_backend *b, struct block_backend_info *ret);
    int (*read)(struct block_backend *b, uint64_t off, uint32_t len, struct buf *dst,
                uint32_t dst_off);
    int (*write)(struct block_backend *b, uint64_t off, uint32_t len, struct buf *src,
                 uint32_t src_off);
    int (*zero)(struct block_backend *b, uint64_t off, uint64_t len);
    int (*discard)(struct block_backend *b, uint64_t off, uint64_t len);
    int (*compare_and_write)(struct block_backend *b, uint64_t off, uint32_t len, struct buf *cmp,
                             uint32_t cmp_off, struct buf *src, uint32_t src_off,
                             uint32_t *ret_offset);
    /* Is what begins at off a hole (not allocated, reads as zeroes)? *ret_len: how far the answer
     * holds, 1 .. len. What is not known to be a hole is none. len > 0. */
    int (*hole)(struct block_backend *b, uint64_t off, uint64_t len, bool *ret_hole,
                uint64_t *ret_len);
    int (*flush)(struct block_backend *b);
    /* The volume was made larger: info and I/O know of it from here on. NULL: they always do. */
    int (*refresh)(struct block_backend *b);
    /* Asked before each write: 0 once it is certain that nobody else could have served the volume
     * since the request came; an error: it must not be executed (vol_engine_confirm). NULL: 0. */
    int (*confirm)(struct block_backend *b);
    void (*close)(struct block_backend *b); /* frees */
};

/* First member of every back end. */
struct block_backend {
    const struct block_backend_ops *ops;
};

struct vol_engine;
/* A volume of the engine. Suspends; errors of vol_open. */
co_fn int block_backend_vol_open(struct vol_engine *e, uint64_t volume_id,
                                 struct block_backend **ret) MUST_CHECK;

/* Zeroed memory, for tests and tools. */
struct block_backend *block_backend_mem_new(uint64_t volume_id, uint64_t size_bytes);
/* Grows (or cuts) it; tell the front end that the volume changed. */
void block_backend_mem_resize(struct block_backend *b, uint64_t size_bytes);
void block_backend_mem_protect(struct block_backend *b, bool on); /* read only */
/* Room, as block_backend_info has it; tell the front end that it changed. */
void block_backend_mem_space(struct block_backend *b, uint64_t bytes, uint64_t free_bytes,
                             uint64_t warn_bytes);
/* The next `count` data operations suspend until the event is set (NULL: none), then return rc.
 * Tests use it to hold requests and to inject errors. */
void block_backend_mem_hold(struct block_backend *b, struct co_event *until, int rc,
                            uint32_t count);
/* From now on confirm waits (interruptibly) for the event and returns its code; NULL: 0 at once. */
void block_backend_mem_confirm(struct block_backend *b, struct co_event *until);

#endif
