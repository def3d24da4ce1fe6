/* SPDX-License-Identifier: Apache-2.0
 *
 * Numbers in bytes from outside: unaligned, in a stated byte order. */
#ifndef ZBS_BASE_BYTES_H
#define ZBS_BASE_BYTES_H

#include <endian.h>
#include <string.h>
#include "common/base/attr.h"

#define BYTES_ACCESSORS(order, bits)                                                               \
    static inline uint##bits##_t get_##order##bits(const void *p)                                  \
    {                                                                                              \
        uint##bits##_t raw;                                                                        \
                                                                                                   \
        memcpy(&raw, p, sizeof(raw));                                                              \
        return order##bits##toh(raw);                                                              \
    }                                                                                              \
    static inline void put_##order##bits(void *p, uint##bits##_t value)                            \
    {                                                                                              \
        uint##bits##_t raw = hto##order##bits(value);                                              \
                                                                                                   \
        memcpy(p, &raw, sizeof(raw));                                                              \
    }

/* get_le16(p), put_le16(p, value) … get_be64(p), put_be64(p, value) */
BYTES_ACCESSORS(le, 16)
BYTES_ACCESSORS(le, 32)
BYTES_ACCESSORS(le, 64)
BYTES_ACCESSORS(be, 16)
BYTES_ACCESSORS(be, 32)
BYTES_ACCESSORS(be, 64)

static inline uint32_t get_be24(const void *p)
{
    const uint8_t *b = (const uint8_t *)p;

    return (uint32_t)b[0] << 16 | (uint32_t)b[1] << 8 | b[2];
}

static inline void put_be24(void *p, uint32_t value)
{
    uint8_t *b = (uint8_t *)p;

    b[0] = (uint8_t)(value >> 16);
    b[1] = (uint8_t)(value >> 8);
    b[2] = (uint8_t)value;
}

#endif
