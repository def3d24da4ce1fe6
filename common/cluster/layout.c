/* SPDX-License-Identifier: Apache-2.0
 *
 * Where a byte of a volume lives: see layout.h. */
#include "common/cluster/layout.h"

#include "common/base/assert.h"
#include "common/base/units.h"

struct layout_run layout_first_run(const struct layout *l, uint64_t off, uint64_t len)
{
    uint64_t group_bytes = (uint64_t)l->stripe_count * EXTENT_BYTES;
    uint64_t in_group = off % group_bytes;
    uint64_t unit = in_group / l->stripe_bytes;
    uint32_t in_unit = (uint32_t)(in_group % l->stripe_bytes);
    uint64_t rest = l->stripe_bytes - in_unit;

    return (struct layout_run){
        .slot = (uint32_t)(off / group_bytes * l->stripe_count + unit % l->stripe_count),
        .offset = (uint32_t)(unit / l->stripe_count * l->stripe_bytes + in_unit),
        .len = (uint32_t)MIN(rest, len),
    };
}

uint32_t layout_slots(const struct layout *l, uint64_t size_bytes)
{
    uint64_t group_bytes = (uint64_t)l->stripe_count * EXTENT_BYTES;

    return (uint32_t)(DIV_UP(size_bytes, group_bytes) * l->stripe_count);
}

uint64_t layout_volume_offset(const struct layout *l, uint32_t slot, uint32_t offset)
{
    uint64_t group_bytes = (uint64_t)l->stripe_count * EXTENT_BYTES;
    uint64_t unit = (uint64_t)(offset / l->stripe_bytes) * l->stripe_count + slot % l->stripe_count;

    ASSERT(offset < EXTENT_BYTES);
    return slot / l->stripe_count * group_bytes + unit * l->stripe_bytes + offset % l->stripe_bytes;
}

uint32_t extent_worker(uint64_t extent_id, uint32_t workers)
{
    /* Fibonacci hashing: consecutive ids, as a striped volume has, spread evenly. */
    return (uint32_t)((extent_id * 0x9e3779b97f4a7c15u >> 32) % workers);
}
