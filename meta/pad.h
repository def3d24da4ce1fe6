/* SPDX-License-Identifier: Apache-2.0
 *
 * Scratch memory for one request or record: allocate freely, release in one go. Zeroed. */
#ifndef ZBS_META_PAD_H
#define ZBS_META_PAD_H

#include <protobuf-c/protobuf-c.h>
#include "common/base/attr.h"

struct pad_chunk;
struct pad {
    struct pad_chunk *chunks;
    ProtobufCAllocator allocator; /* for protobuf-c: memory lives as long as the pad */
};

void pad_init(struct pad *p);
void pad_fini(struct pad *p);
void *pad_alloc(struct pad *p, size_t bytes);
char *pad_strdup(struct pad *p, const char *s);
char *pad_printf(struct pad *p, const char *fmt, ...) PRINTF_FMT(2, 3);
void *pad_memdup(struct pad *p, const void *src, size_t bytes);

#define PAD_NEW(p, type)          ((type *)pad_alloc((p), sizeof(type)))
#define PAD_NEW_ARRAY(p, type, n) ((type *)pad_alloc((p), sizeof(type) * (size_t)(n)))

#endif
