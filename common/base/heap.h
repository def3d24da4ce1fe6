/* SPDX-License-Identifier: Apache-2.0
 *
 * Binary min-heap of elements that carry only their position (a uint32_t, 0 when not in the
 * heap). Equal keys leave in the order in which they came. The keys lie in the heap's array, so
 * that sifting touches no element but to tell it its position.
 *
 *     struct job { uint32_t heap_pos; … };
 *     heap_push(&h, due, &job->heap_pos);
 *     job = CONTAINER_OF(heap_top(&h), struct job, heap_pos);
 */
#ifndef ZBS_BASE_HEAP_H
#define ZBS_BASE_HEAP_H

#include <stdbool.h>
#include "common/base/attr.h"

struct heap_entry {
    int64_t key;
    uint64_t order;
    uint32_t *pos;
};

struct heap {
    struct heap_entry *entries; /* [0] is unused */
    uint32_t count, cap;
    uint64_t next_order;
    void *(*realloc_fn)(void *ptr, size_t bytes);
};

/* realloc_fn: mem_realloc, or mem_raw_realloc (then free with mem_raw_free). */
void heap_init(struct heap *h, void *(*realloc_fn)(void *ptr, size_t bytes));
/* free_fn: the counterpart of realloc_fn. Elements are not touched. */
void heap_fini(struct heap *h, void (*free_fn)(void *ptr));

void heap_push(struct heap *h, int64_t key, uint32_t *pos); /* *pos must be 0 */
void heap_remove(struct heap *h, uint32_t *pos);            /* no-op if *pos is 0 */
uint32_t *heap_top(const struct heap *h);                   /* NULL: empty */
uint32_t *heap_pop(struct heap *h);                         /* NULL: empty */

/* Is this element in this very heap? */
bool heap_has(const struct heap *h, const uint32_t *pos);

/* Key of the first element; INT64_MAX if empty. */
static inline int64_t heap_top_key(const struct heap *h)
{
    return h->count == 0 ? INT64_MAX : h->entries[1].key;
}

#endif
