/* SPDX-License-Identifier: Apache-2.0
 *
 * Pure functions of the address (PROTOCOL 11.1): where a byte of a volume lives. A volume is a
 * sequence of stripe groups; a group is stripe_count extents, over which stripe units are dealt
 * in turn. Slot = extent number in the volume. No state; callable anywhere. */
#ifndef ZBS_CLUSTER_LAYOUT_H
#define ZBS_CLUSTER_LAYOUT_H

#include "common/base/attr.h"

#define STRIPE_COUNT_DEFAULT 4u
#define STRIPE_BYTES_DEFAULT (256u * 1024)

struct layout {
    uint32_t stripe_count; /* 1 .. 64 */
    uint32_t stripe_bytes; /* a multiple of 256 KiB that divides 256 MiB */
};

/* A run of bytes inside one extent. */
struct layout_run {
    uint32_t slot;
    uint32_t offset; /* bytes in the extent */
    uint32_t len;
};

/* The longest run that starts at byte `off` of the volume, at most `len` bytes. */
struct layout_run layout_first_run(const struct layout *l, uint64_t off, uint64_t len);

/* How many slots a volume of this size has (all stripes of its last group included). */
uint32_t layout_slots(const struct layout *l, uint64_t size_bytes);

/* The volume address of a byte in a slot; inverse of layout_first_run. */
uint64_t layout_volume_offset(const struct layout *l, uint32_t slot, uint32_t offset);

/* The worker of a chunk server that serves an extent: a stable hash. */
uint32_t extent_worker(uint64_t extent_id, uint32_t workers);

#endif
