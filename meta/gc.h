/* SPDX-License-Identifier: Apache-2.0
 *
 * Garbage that the log does not know: replicas on chunk servers that are no extent's. The leader
 * lists what live chunk servers have, and what it sees unknown all the time for `gc.delay` becomes
 * ordinary garbage, by a logged record. A new leader begins to watch anew. */
#ifndef ZBS_META_GC_H
#define ZBS_META_GC_H

#include "common/co/sync.h"
#include "meta/decide.h"

struct lead;

/* One that was seen and is not known. */
struct gc_unknown {
    uint64_t extent_id, epoch, family;
    nsec_t since;
    uint64_t round; /* that saw it last */
};

struct gc {
    uint64_t round;
    struct idmap chunks; /* chunk id -> struct gc_chunk */
};

/* Is it a replica that this chunk server should have, or is deleting already, or one of an extent
 * that may just be coming into being? */
bool gc_is_known(const struct state *st, uint32_t chunk_id, uint64_t extent_id, uint64_t applied);
Zbs__Metalog__Record *decide_garbage_add(struct pad *pad, uint32_t chunk_id,
                                         const struct gc_unknown *items, uint32_t n);
void gc_fini(struct gc *g);
int gc_main(void *arg); /* coroutine of the leader */

#endif
