/* SPDX-License-Identifier: Apache-2.0
 *
 * All heap memory of product code comes from here, so that the simulator can give back what a
 * crashed process held. Memory is zeroed. Running out aborts: memory is bounded by admission, so
 * exhaustion is a configuration error, not a condition to limp through. Callable anywhere. */
#ifndef ZBS_BASE_MEM_H
#define ZBS_BASE_MEM_H

#include "common/base/attr.h"

void *mem_alloc(size_t bytes);
void *mem_alloc_array(size_t elem_bytes, size_t n); /* the product may not overflow */
/* align: a power of two, at least sizeof(void *). Not zeroed. Free with mem_free. */
void *mem_alloc_aligned(size_t align, size_t bytes);
void *mem_realloc(void *ptr, size_t bytes); /* new tail is not zeroed */
void mem_free(void *ptr);                   /* NULL is allowed */
char *mem_strdup(const char *s);
char *mem_printf(const char *fmt, ...) PRINTF_FMT(1, 2);

#define MEM_NEW(type)          ((type *)mem_alloc(sizeof(type)))
#define MEM_NEW_ARRAY(type, n) ((type *)mem_alloc_array(sizeof(type), (size_t)(n)))

/* A heap that tracks its allocations; the simulator sets one per simulated process before it
 * runs any of that process's coroutines. NULL (the default) means plain malloc. Set and read
 * only in single-threaded simulation builds of a world. */
struct mem_heap;
struct mem_heap *mem_heap_new(void);
void mem_heap_destroy(struct mem_heap *heap);         /* frees everything still allocated from it */
struct mem_heap *mem_heap_set(struct mem_heap *heap); /* returns the former one */
struct mem_heap *mem_heap_current(void);              /* NULL: none is set */
uint64_t mem_heap_bytes(const struct mem_heap *heap); /* allocated from it now */
uint64_t mem_heap_peak(const struct mem_heap *heap);  /* the most that ever was */

/* Memory that no tracked heap owns, for what outlives a simulated process: the runtime's own
 * structures. Zeroed. raw_realloc as mem_realloc; it can serve as a struct heap's allocator. */
void *mem_raw_alloc(size_t bytes);
void *mem_raw_realloc(void *ptr, size_t bytes);
void mem_raw_free(void *ptr);

#endif
