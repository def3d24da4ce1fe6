/* SPDX-License-Identifier: Apache-2.0
 *
 * Sorted vector of pointers: see sorted.h. */
#include "meta/sorted.h"

#include <string.h>
#include "common/base/assert.h"
#include "common/base/mem.h"

void sorted_fini(struct sorted *v)
{
    if (v->items != NULL)
        mem_free(v->items - v->gap);
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

/* A free place behind the items: half of all that are in front of them, or new ones. */
static void make_room(struct sorted *v)
{
    uint32_t gap = v->gap / 2;
    void **base = v->items != NULL ? v->items - v->gap : NULL;

    if (v->gap <= v->cap / 4) {
        v->cap = v->cap == 0 ? 8 : v->cap * 2;
        base = mem_realloc(base, v->cap * sizeof(void *));
        gap = v->gap;
    }
    ASSERT(base != NULL);
    memmove(base + gap, base + v->gap, v->count * sizeof(void *));
    v->items = base + gap;
    v->gap = gap;
}

void sorted_insert_at(struct sorted *v, uint32_t at, void *item)
{
    ASSERT(at <= v->count);
    if (v->gap > 0 && at < v->count - at) {
        v->items--;
        v->gap--;
        memmove(v->items, v->items + 1, at * sizeof(void *));
    } else {
        if (v->gap + v->count == v->cap)
            make_room(v);
        memmove(v->items + at + 1, v->items + at, (v->count - at) * sizeof(void *));
    }
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
    if (at < v->count - at) {
        memmove(v->items + 1, v->items, at * sizeof(void *));
        v->items++;
        v->gap++;
    } else {
        memmove(v->items + at, v->items + at + 1, (v->count - at) * sizeof(void *));
    }
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
