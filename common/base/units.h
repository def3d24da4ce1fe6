/* SPDX-License-Identifier: Apache-2.0
 *
 * Units of space and the conversions between them. A conversion to a larger unit asserts that
 * nothing is lost; the _down and _up forms round on purpose. */
#ifndef ZBS_BASE_UNITS_H
#define ZBS_BASE_UNITS_H

#include <stdbool.h>
#include "common/base/assert.h"

#define KIB ((uint64_t)1 << 10)
#define MIB ((uint64_t)1 << 20)
#define GIB ((uint64_t)1 << 30)
#define TIB ((uint64_t)1 << 40)

#define SECTOR_BYTES 512u          /* what initiators address */
#define PAGE_BYTES   4096u         /* unit of checksum and of validity */
#define BLOCK_BYTES  (256u * 1024) /* what a chunk server provisions inside an extent */
#define EXTENT_BYTES (256u << 20)  /* what the meta server provisions */

#define SECTORS_PER_PAGE  (PAGE_BYTES / SECTOR_BYTES)
#define PAGES_PER_BLOCK   64u
#define BLOCKS_PER_EXTENT 1024u
#define PAGES_PER_EXTENT  65536u

_Static_assert(PAGE_BYTES % SECTOR_BYTES == 0, "a page is whole sectors");
_Static_assert(BLOCK_BYTES == PAGES_PER_BLOCK * PAGE_BYTES, "a block is whole pages");
_Static_assert(EXTENT_BYTES == BLOCKS_PER_EXTENT * BLOCK_BYTES, "an extent is whole blocks");
_Static_assert(PAGES_PER_EXTENT == BLOCKS_PER_EXTENT * PAGES_PER_BLOCK, "");
_Static_assert(PAGES_PER_BLOCK == 64, "a block's pages fit one 64-bit mask");
_Static_assert(PAGES_PER_EXTENT - 1 <= UINT16_MAX, "a page number in an extent fits 16 bits");

static inline bool bytes_aligned(uint64_t bytes, uint32_t unit)
{
    return bytes % unit == 0;
}

static inline uint64_t bytes_to_sectors(uint64_t bytes)
{
    ASSERT(bytes % SECTOR_BYTES == 0);
    return bytes / SECTOR_BYTES;
}

static inline uint64_t sectors_to_bytes(uint64_t sectors)
{
    ASSERT(sectors <= UINT64_MAX / SECTOR_BYTES);
    return sectors * SECTOR_BYTES;
}

static inline uint64_t bytes_to_pages(uint64_t bytes)
{
    ASSERT(bytes % PAGE_BYTES == 0);
    return bytes / PAGE_BYTES;
}

static inline uint64_t bytes_to_pages_up(uint64_t bytes)
{
    return bytes / PAGE_BYTES + (bytes % PAGE_BYTES != 0);
}

static inline uint64_t pages_to_bytes(uint64_t pages)
{
    ASSERT(pages <= UINT64_MAX / PAGE_BYTES);
    return pages * PAGE_BYTES;
}

static inline uint64_t blocks_to_bytes(uint64_t blocks)
{
    ASSERT(blocks <= UINT64_MAX / BLOCK_BYTES);
    return blocks * BLOCK_BYTES;
}

/* How many extents hold this many bytes. */
static inline uint64_t bytes_to_extents_up(uint64_t bytes)
{
    return bytes / EXTENT_BYTES + (bytes % EXTENT_BYTES != 0);
}

#endif
