/* SPDX-License-Identifier: Apache-2.0
 *
 * Sorted vector of pointers: see sorted.h. */
#include "meta/sorted.h"

#include <string.h>
#include "common/base/assert.h"
#include "common/base/mem.h"

void sorted_fini(struct sorted *v)
{
    mem_free(v->items);
    *v = (struct sorted){0};
}

uint32_t sorted_lower(const struct sorted *v, sorted_compare compare, const void *key,
                      bool *ret_found)
{
    uint32_t low = 0, high = v->count;

    while (low < high) {
        uint32_t mid = low + (high - low) / 2;

        if (compare(v->items[mid], key) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    *ret_found = low < v->count && compare(v->items[low], key) == 0;
    return low;
}

void *sorted_find(const struct sorted *v, sorted_compare compare, const void *key)
{
    bool found;
    uint32_t at = sorted_lower(v, compare, key, &found);

    return found ? v->items[at] : NULL;
}

void sorted_insert_at(struct sorted *v, uint32_t at, void *item)
{
    ASSERT(at <= v->count);
    if (v->count == v->cap) {
        v->cap = v->cap == 0 ? 8 : v->cap * 2;
        v->items = mem_realloc(v->items, v->cap * sizeof(void *));
    }
    memmove(v->items + at + 1, v->items + at, (v->count - at) * sizeof(void *));
    v->items[at] = item;
    v->count++;
}

void sorted_insert(struct sorted *v, sorted_compare compare, const void *key, void *item)
{
    bool found;
    uint32_t at = sorted_lower(v, compare, key, &found);

    ASSERT(!found);
    sorted_insert_at(v, at, item);
}

void *sorted_remove_at(struct sorted *v, uint32_t at)
{
    void *item;

    ASSERT(at < v->count);
    item = v->items[at];
    v->count--;
    memmove(v->items + at, v->items + at + 1, (v->count - at) * sizeof(void *));
    return item;
}

void *sorted_remove(struct sorted *v, sorted_compare compare, const void *key)
{
    bool found;
    uint32_t at = sorted_lower(v, compare, key, &found);

    return found ? sorted_remove_at(v, at) : NULL;
}

void sorted_push(struct sorted *v, void *item)
{
    sorted_insert_at(v, v->count, item);
}
