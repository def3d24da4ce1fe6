/* SPDX-License-Identifier: Apache-2.0
 *
 * Binary min-heap. */
#include <string.h>
#include "common/base/assert.h"
#include "common/base/heap.h"

void heap_init(struct heap *h, void *(*realloc_fn)(void *ptr, size_t bytes))
{
    memset(h, 0, sizeof(*h));
    h->realloc_fn = realloc_fn;
}

void heap_fini(struct heap *h, void (*free_fn)(void *ptr))
{
    if (h->entries != NULL)
        free_fn(h->entries);
    memset(h, 0, sizeof(*h));
}

static bool entry_before(const struct heap_entry *a, const struct heap_entry *b)
{
    return a->key != b->key ? a->key < b->key : a->order < b->order;
}

static void entry_put(struct heap *h, uint32_t pos, struct heap_entry e)
{
    h->entries[pos] = e;
    *e.pos = pos;
}

static void sift_up(struct heap *h, uint32_t pos, struct heap_entry e)
{
    while (pos > 1 && entry_before(&e, &h->entries[pos / 2])) {
        entry_put(h, pos, h->entries[pos / 2]);
        pos /= 2;
    }
    entry_put(h, pos, e);
}

static void sift_down(struct heap *h, uint32_t pos, struct heap_entry e)
{
    for (;;) {
        uint32_t child = pos * 2;

        if (child > h->count)
            break;
        if (child < h->count && entry_before(&h->entries[child + 1], &h->entries[child]))
            child++;
        if (!entry_before(&h->entries[child], &e))
            break;
        entry_put(h, pos, h->entries[child]);
        pos = child;
    }
    entry_put(h, pos, e);
}

void heap_push(struct heap *h, int64_t key, uint32_t *pos)
{
    ASSERT(*pos == 0);
    if (h->count + 1 >= h->cap) {
        ASSERT(h->cap < UINT32_MAX / 4);
        h->cap = h->cap == 0 ? 16 : h->cap * 2;
        h->entries = h->realloc_fn(h->entries, h->cap * sizeof(*h->entries));
    }
    h->count++;
    sift_up(h, h->count, (struct heap_entry){key, h->next_order++, pos});
}

bool heap_has(const struct heap *h, const uint32_t *pos)
{
    return *pos != 0 && *pos <= h->count && h->entries[*pos].pos == pos;
}

void heap_remove(struct heap *h, uint32_t *pos)
{
    uint32_t at = *pos;
    struct heap_entry last;

    if (at == 0)
        return;
    ASSERT(heap_has(h, pos));
    last = h->entries[h->count--];
    *pos = 0;
    if (last.pos == pos)
        return;
    if (at > 1 && entry_before(&last, &h->entries[at / 2]))
        sift_up(h, at, last);
    else
        sift_down(h, at, last);
}

uint32_t *heap_top(const struct heap *h)
{
    return h->count == 0 ? NULL : h->entries[1].pos;
}

uint32_t *heap_pop(struct heap *h)
{
    uint32_t *pos = heap_top(h);

    if (pos != NULL)
        heap_remove(h, pos);
    return pos;
}
