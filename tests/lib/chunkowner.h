/* SPDX-License-Identifier: Apache-2.0
 *
 * The owner of some extents on one chunk server (PROTOCOL 2 and 3), for load generators: creates
 * and opens them, gives every write its version, tells commit points, holds the range locks. One
 * replica each, no meta server. Everything happens on the calling loop. */
#ifndef ZBS_TESTS_LIB_CHUNKOWNER_H
#define ZBS_TESTS_LIB_CHUNKOWNER_H

#include "common/base/buf.h"
#include "common/co/sync.h"
#include "common/rpc/rpc.h"

#define OWNER_WORKERS_MAX 64u

struct owner_conf {
    const char *addr;  /* of the chunk server */
    uint64_t first_id; /* of the extents: first_id, first_id + 1, … */
    uint32_t n_extents;
    uint64_t span_bytes; /* of each extent that will be used; space is reserved for it */
    bool verify;         /* reads are compared with what was written through this owner */
};

struct owner_extent {
    uint64_t id, family; /* family: the id that it had before it was its own first child */
    uint64_t epoch;
    struct rpc_client *client; /* of its worker */
    uint64_t next_gen;
    struct list writing; /* owner_write calls in flight, by version */
    struct co_range_lock ranges;
    uint32_t *crc; /* verify: of each page written here; 0: not known */
};

struct owner {
    struct owner_conf conf;
    uint64_t epoch;   /* in which all extents are opened */
    uint64_t next_id; /* of a child */
    struct rpc_client *clients[OWNER_WORKERS_MAX];
    uint32_t n_workers;
    struct owner_extent *extents;
};

/* Connects; creates what does not exist; opens everything under an epoch above all former ones. */
co_fn int owner_open(const struct owner_conf *conf, struct owner **ret) MUST_CHECK;
/* Tells the last commit points; frees. */
co_fn void owner_close(struct owner *o);

/* Of all disks, data blocks in use: metadata blocks count, journals don't. */
co_fn int owner_used_bytes(struct owner *o, uint64_t *ret) MUST_CHECK;

/* Whole pages at `off` of the extent; written from the beginning of `data`. Pages that are written
 * get a stamp, so that no two are equal. ERR_CORRUPT: not what was written. */
co_fn int owner_write(struct owner_extent *x, struct buf *data, uint32_t off,
                      uint32_t len) MUST_CHECK;
co_fn int owner_read(struct owner_extent *x, uint32_t off, uint32_t len) MUST_CHECK;

/* Makes children of all extents (a snapshot), in whose place they are used from then on. What is
 * asked for meanwhile waits. */
co_fn int owner_children(struct owner *o) MUST_CHECK;

#endif
