/* SPDX-License-Identifier: Apache-2.0
 *
 * CRC32C (Castagnoli), the checksum of pages, frames and on-disk structures. */
#ifndef ZBS_BASE_CRC32C_H
#define ZBS_BASE_CRC32C_H

#include "common/base/attr.h"

/* seed: 0, or the result for the bytes before: crc32c(crc32c(0, a), b) is that of a followed by
 * b. crc32c(0, "123456789", 9) is 0xE3069283. */
uint32_t crc32c(uint32_t seed, const void *data, size_t len);

#endif
