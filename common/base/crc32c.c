/* SPDX-License-Identifier: Apache-2.0
 *
 * CRC32C through ISA-L, which uses the CPU's instructions where there are any. */
#include <isa-l/crc.h>
#include "common/base/crc32c.h"

uint32_t crc32c(uint32_t seed, const void *data, size_t len)
{
    /* The library neither changes the data nor does the two inversions, and takes an int. */
    unsigned char *p = (unsigned char *)(uintptr_t)data;
    uint32_t crc = ~seed;

    while (len > 0) {
        size_t part = MIN(len, (size_t)1 << 30);

        crc = crc32_iscsi(p, (int)part, crc);
        p += part;
        len -= part;
    }
    return ~crc;
}
