/* SPDX-License-Identifier: Apache-2.0
 *
 * The workloads that are recorded. */
#ifndef ZBS_TESTS_CRASH_WORKLOAD_H
#define ZBS_TESTS_CRASH_WORKLOAD_H

#include "tests/crash/life.h"

struct stream {
    struct life *l;
    const struct workload *w;
    uint32_t no, ops;
    uint32_t first, room; /* its own sectors of every extent */
    uint32_t pass, next;  /* of the first stream: what all of them do next */
};
struct workload {
    const char *name;
    uint64_t disk_bytes, ring_bytes;
    uint32_t disks;          /* of that size each; 0: 1 */
    bool guest;              /* the second disk's journals are on the first */
    uint32_t physical_bytes; /* of the device's blocks; 0: 512 */
    uint32_t flush_delay_ms;
    uint64_t memory_bytes;
    uint32_t extents, streams; /* 3 or 6 streams */
    uint32_t ops;              /* of each stream in one life */
    uint32_t lives;            /* all but the last end by a kill */
    bool may_fill;
    bool reserved_first; /* the first extent is reserved, and full (life_full), from the start */
    bool (*op)(struct stream *st, uint32_t i); /* co_fn: the i-th of a stream */
    bool (*admin)(struct life *l, uint32_t i); /* co_fn: beside the streams, or NULL */
    uint32_t admin_ops;
};
static inline uint32_t workload_disks(const struct workload *w)
{
    return MAX(w->disks, 1u);
}
extern const struct workload workloads[];
extern const uint32_t n_workloads;

/* Makes the extents that are not there, runs the streams to their end. */
co_fn void workload_run(struct life *l, const struct workload *w, uint32_t ops);
/* A few requests of any kind, for an engine that just came back. */
co_fn void workload_few(struct life *l, uint32_t ops);

#endif
