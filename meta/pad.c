/* SPDX-License-Identifier: Apache-2.0
 *
 * Scratch memory: see pad.h. */
#include "meta/pad.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "common/base/assert.h"
#include "common/base/mem.h"

#define PAD_CHUNK_BYTES 4000u

struct pad_chunk {
    struct pad_chunk *next;
    size_t used, cap;
    uint8_t data[];
};

static void *pad_proto_alloc(void *arg, size_t bytes)
{
    return pad_alloc(arg, bytes);
}

static void pad_proto_free(void *arg, void *ptr)
{
    (void)arg;
    (void)ptr;
}

void pad_init(struct pad *p)
{
    p->chunks = NULL;
    p->allocator =
        (ProtobufCAllocator){.alloc = pad_proto_alloc, .free = pad_proto_free, .allocator_data = p};
}

void pad_fini(struct pad *p)
{
    while (p->chunks != NULL) {
        struct pad_chunk *c = p->chunks;

        p->chunks = c->next;
        mem_free(c);
    }
}

void *pad_alloc(struct pad *p, size_t bytes)
{
    struct pad_chunk *c = p->chunks;
    size_t need = ROUND_UP(MAX(bytes, (size_t)1), (size_t)16);
    void *at;

    if (c == NULL || c->cap - c->used < need) {
        size_t cap = MAX(need, (size_t)PAD_CHUNK_BYTES);

        c = mem_alloc(sizeof(*c) + cap);
        c->cap = cap;
        c->next = p->chunks;
        p->chunks = c;
    }
    at = c->data + c->used;
    c->used += need;
    return at;
}

void *pad_memdup(struct pad *p, const void *src, size_t bytes)
{
    void *copy = pad_alloc(p, bytes);

    if (bytes > 0)
        memcpy(copy, src, bytes);
    return copy;
}

char *pad_strdup(struct pad *p, const char *s)
{
    return pad_memdup(p, s, strlen(s) + 1);
}

char *pad_printf(struct pad *p, const char *fmt, ...)
{
    va_list args;
    char *s;
    int n;

    va_start(args, fmt);
    n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    ASSERT(n >= 0);
    s = pad_alloc(p, (size_t)n + 1);
    va_start(args, fmt);
    vsnprintf(s, (size_t)n + 1, fmt, args);
    va_end(args);
    return s;
}
