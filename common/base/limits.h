/* SPDX-License-Identifier: Apache-2.0
 *
 * Every maximum that more than one part relies on, and how they relate. */
#ifndef ZBS_BASE_LIMITS_H
#define ZBS_BASE_LIMITS_H

#include "common/base/buf.h"
#include "common/base/units.h"

#define VOLUME_BYTES_MAX   (64ull << 40)
#define VOLUME_EXTENTS_MAX (VOLUME_BYTES_MAX / EXTENT_BYTES)
#define REPLICAS_MAX       5u

#define IO_BYTES_MAX (1u << 20) /* one request of the data path */

/* Files of shares. */
#define FILE_INLINE_BYTES 4096u /* up to this offset bytes may be in the inode */
#define FILE_BYTES_MAX    VOLUME_BYTES_MAX
#define FILE_NAME_MAX     255u   /* bytes of one name */
#define FILE_LINKS_MAX    65000u /* names of one file; directories in a directory */
#define SYMLINK_BYTES_MAX 1024u
#define DIR_LIST_MAX      1024u /* entries in one answer */
#define FILE_GROUPS_MAX   16u   /* of who asks, besides the first */

_Static_assert(VOLUME_BYTES_MAX % EXTENT_BYTES == 0, "the largest volume is whole extents");
_Static_assert(VOLUME_EXTENTS_MAX <= UINT32_MAX, "an extent number fits 32 bits");
_Static_assert(IO_BYTES_MAX % PAGE_BYTES == 0, "the largest request is whole pages");
_Static_assert(IO_BYTES_MAX <= EXTENT_BYTES, "a request touches two extents at most");
_Static_assert(IO_BYTES_MAX <= BUF_BYTES_MAX, "a request's payload fits one buffer");
_Static_assert(PAGE_BYTES % BUF_ALIGN == 0, "a page in a buffer is aligned for the device");

#endif
