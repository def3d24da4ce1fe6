/* SPDX-License-Identifier: Apache-2.0
 *
 * Heap memory. In production this is malloc without any header. In a simulation each simulated
 * process has a tracked heap; a hash table finds the record of a block, so that a block may be
 * freed while another heap, or none, is set. */
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/assert.h"
#include "common/base/list.h"
#include "common/base/mem.h"

struct mem_block {
    void *ptr;
    size_t bytes;
    struct mem_heap *heap;
    struct mem_block *next; /* of its hash bucket, or of the spare list */
    struct list link;       /* of its heap */
};

struct mem_heap {
    struct list blocks;
    uint64_t bytes, peak;
};

/* Used only while a simulation runs, on its one thread; all zero otherwise. */
static struct {
    struct mem_heap *current;
    uint32_t heaps;
    struct mem_block **buckets;
    size_t bucket_count, block_count;
    struct mem_block *spare;
} tracker;

static NORETURN void mem_exhausted(size_t bytes)
{
    assert_fail("memory", __FILE__, __LINE__, "out of memory allocating %zu bytes", bytes);
}

static size_t mem_hash(const void *ptr)
{
    return (size_t)(((uint64_t)(uintptr_t)ptr >> 4) * 0x9E3779B97F4A7C15u >> 20);
}

static void tracker_grow(void)
{
    size_t count = tracker.bucket_count == 0 ? 4096 : tracker.bucket_count * 2;
    struct mem_block **buckets = mem_raw_alloc(count * sizeof(*buckets));

    for (size_t i = 0; i < tracker.bucket_count; i++) {
        for (struct mem_block *b = tracker.buckets[i], *next; b != NULL; b = next) {
            struct mem_block **slot = &buckets[mem_hash(b->ptr) & (count - 1)];

            next = b->next;
            b->next = *slot;
            *slot = b;
        }
    }
    free(tracker.buckets);
    tracker.buckets = buckets;
    tracker.bucket_count = count;
}

static void tracker_insert(struct mem_heap *heap, void *ptr, size_t bytes)
{
    struct mem_block *b = tracker.spare;
    struct mem_block **slot;

    if (tracker.block_count >= tracker.bucket_count)
        tracker_grow();
    if (b != NULL)
        tracker.spare = b->next;
    else
        b = mem_raw_alloc(sizeof(*b));
    slot = &tracker.buckets[mem_hash(ptr) & (tracker.bucket_count - 1)];
    b->ptr = ptr;
    b->bytes = bytes;
    b->heap = heap;
    b->next = *slot;
    *slot = b;
    list_push_back(&heap->blocks, &b->link);
    heap->bytes += bytes;
    if (heap->bytes > heap->peak)
        heap->peak = heap->bytes;
    tracker.block_count++;
}

/* Forgets a block; returns its heap, or NULL if no heap has it. */
static struct mem_heap *tracker_remove(void *ptr)
{
    struct mem_block **slot, *b;
    struct mem_heap *heap;

    if (tracker.bucket_count == 0)
        return NULL;
    slot = &tracker.buckets[mem_hash(ptr) & (tracker.bucket_count - 1)];
    while ((b = *slot) != NULL && b->ptr != ptr)
        slot = &b->next;
    if (b == NULL)
        return NULL;
    *slot = b->next;
    heap = b->heap;
    heap->bytes -= b->bytes;
    list_del(&b->link);
    b->next = tracker.spare;
    tracker.spare = b;
    tracker.block_count--;
    return heap;
}

void *mem_raw_alloc(size_t bytes)
{
    void *ptr = calloc(1, bytes != 0 ? bytes : 1);

    if (ptr == NULL)
        mem_exhausted(bytes);
    return ptr;
}

void *mem_raw_realloc(void *ptr, size_t bytes)
{
    void *moved = realloc(ptr, bytes != 0 ? bytes : 1);

    if (moved == NULL)
        mem_exhausted(bytes);
    return moved;
}

void mem_raw_free(void *ptr)
{
    free(ptr);
}

void *mem_alloc(size_t bytes)
{
    void *ptr = mem_raw_alloc(bytes);

    if (UNLIKELY(tracker.current != NULL))
        tracker_insert(tracker.current, ptr, bytes);
    return ptr;
}

void *mem_alloc_array(size_t elem_bytes, size_t n)
{
    size_t bytes;

    if (__builtin_mul_overflow(elem_bytes, n, &bytes))
        mem_exhausted(SIZE_MAX);
    return mem_alloc(bytes);
}

void *mem_alloc_aligned(size_t align, size_t bytes)
{
    void *ptr;

    if (posix_memalign(&ptr, align, bytes != 0 ? bytes : 1) != 0)
        mem_exhausted(bytes);
    if (UNLIKELY(tracker.current != NULL))
        tracker_insert(tracker.current, ptr, bytes);
    return ptr;
}

void *mem_realloc(void *ptr, size_t bytes)
{
    struct mem_heap *heap = tracker.current;
    void *moved;

    if (UNLIKELY(tracker.heaps > 0) && ptr != NULL)
        heap = tracker_remove(ptr); /* stays in the heap that it came from */
    moved = mem_raw_realloc(ptr, bytes);
    if (UNLIKELY(heap != NULL))
        tracker_insert(heap, moved, bytes);
    return moved;
}

void mem_free(void *ptr)
{
    if (UNLIKELY(tracker.heaps > 0) && ptr != NULL)
        (void)tracker_remove(ptr);
    free(ptr);
}

char *mem_strdup(const char *s)
{
    size_t len = strlen(s);
    char *copy = mem_alloc(len + 1);

    memcpy(copy, s, len + 1);
    return copy;
}

char *mem_printf(const char *fmt, ...)
{
    va_list ap, again;
    char *text;
    int len;

    va_start(ap, fmt);
    va_copy(again, ap);
    len = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    ASSERT(len >= 0);
    text = mem_alloc((size_t)len + 1);
    (void)vsnprintf(text, (size_t)len + 1, fmt, again);
    va_end(again);
    return text;
}

struct mem_heap *mem_heap_new(void)
{
    struct mem_heap *heap = mem_raw_alloc(sizeof(*heap));

    list_init(&heap->blocks);
    tracker.heaps++;
    return heap;
}

static void tracker_fini(void)
{
    ASSERT(tracker.block_count == 0);
    for (struct mem_block *b = tracker.spare, *next; b != NULL; b = next) {
        next = b->next;
        free(b);
    }
    free(tracker.buckets);
    memset(&tracker, 0, sizeof(tracker));
}

void mem_heap_destroy(struct mem_heap *heap)
{
    ASSERT(tracker.heaps > 0 && tracker.current != heap);
    LIST_FOREACH_SAFE (b, &heap->blocks, struct mem_block, link) {
        void *ptr = b->ptr;

        (void)tracker_remove(ptr);
        free(ptr);
    }
    free(heap);
    if (--tracker.heaps == 0)
        tracker_fini();
}

struct mem_heap *mem_heap_set(struct mem_heap *heap)
{
    struct mem_heap *former = tracker.current;

    if (former != heap) /* no write where nothing changes: real programs have threads */
        tracker.current = heap;
    return former;
}

struct mem_heap *mem_heap_current(void)
{
    return tracker.current;
}

uint64_t mem_heap_bytes(const struct mem_heap *heap)
{
    return heap->bytes;
}

uint64_t mem_heap_peak(const struct mem_heap *heap)
{
    return heap->peak;
}
