/* SPDX-License-Identifier: Apache-2.0
 *
 * Growing hash table. While it grows, old buckets below old_next are empty. */
#include <string.h>
#include "common/base/assert.h"
#include "common/base/htab.h"
#include "common/base/mem.h"
#include "common/base/prng.h"

#define BUCKETS_MIN    16u
#define MOVES_PER_STEP 4u /* at least 2, so that growing ends before the next doubling */

void htab_init(struct htab *h)
{
    memset(h, 0, sizeof(*h));
}

void htab_fini(struct htab *h)
{
    mem_free(h->buckets);
    mem_free(h->old);
    memset(h, 0, sizeof(*h));
}

static void grow_step(struct htab *h)
{
    for (uint32_t moves = 0; h->old != NULL && moves < MOVES_PER_STEP; moves++) {
        struct htab_node *node = h->old[h->old_next], *next;

        h->old[h->old_next++] = NULL;
        for (; node != NULL; node = next) {
            struct htab_node **slot = &h->buckets[prng_mix(node->key) & (h->bucket_count - 1)];

            next = node->next;
            node->next = *slot;
            *slot = node;
        }
        if (h->old_next == h->old_count) {
            mem_free(h->old);
            h->old = NULL;
        }
    }
}

static void grow_begin(struct htab *h)
{
    ASSERT(h->old == NULL);
    h->old = h->buckets;
    h->old_count = h->bucket_count;
    h->old_next = 0;
    h->bucket_count = h->old_count == 0 ? BUCKETS_MIN : h->old_count * 2;
    h->buckets = MEM_NEW_ARRAY(struct htab_node *, h->bucket_count);
}

/* The bucket that holds or would hold a key. */
static struct htab_node **bucket_of(const struct htab *h, uint64_t key)
{
    uint64_t hash = prng_mix(key);

    if (h->old != NULL && (hash & (h->old_count - 1)) >= h->old_next)
        return &h->old[hash & (h->old_count - 1)];
    return &h->buckets[hash & (h->bucket_count - 1)];
}

struct htab_node *htab_find(const struct htab *h, uint64_t key)
{
    if (h->count == 0)
        return NULL;
    for (struct htab_node *node = *bucket_of(h, key); node != NULL; node = node->next)
        if (node->key == key)
            return node;
    return NULL;
}

void htab_insert(struct htab *h, struct htab_node *node, uint64_t key)
{
    struct htab_node **slot;

    ASSERTF(htab_find(h, key) == NULL, "key %llu is in the table", (unsigned long long)key);
    grow_step(h);
    if (h->count >= h->bucket_count)
        grow_begin(h);
    slot = bucket_of(h, key);
    node->key = key;
    node->next = *slot;
    *slot = node;
    h->count++;
}

void htab_remove(struct htab *h, struct htab_node *node)
{
    struct htab_node **slot;

    ASSERT(h->count > 0);
    slot = bucket_of(h, node->key);
    while (*slot != NULL && *slot != node)
        slot = &(*slot)->next;
    ASSERTF(*slot == node, "key %llu is not in the table", (unsigned long long)node->key);
    *slot = node->next;
    node->next = NULL;
    h->count--;
}

/* First element of old[from…], else of buckets[…]. */
static struct htab_node *first_from(const struct htab *h, bool in_old, uint64_t from)
{
    if (in_old) {
        for (; from < h->old_count; from++)
            if (h->old[from] != NULL)
                return h->old[from];
        from = 0;
    }
    for (; from < h->bucket_count; from++)
        if (h->buckets[from] != NULL)
            return h->buckets[from];
    return NULL;
}

struct htab_node *htab_first(const struct htab *h)
{
    return first_from(h, h->old != NULL, 0);
}

struct htab_node *htab_next(const struct htab *h, const struct htab_node *node)
{
    struct htab_node **slot;
    bool in_old;

    if (node->next != NULL)
        return node->next;
    slot = bucket_of(h, node->key);
    in_old = h->old != NULL && slot >= h->old && slot < h->old + h->old_count;
    return first_from(h, in_old, (uint64_t)(slot - (in_old ? h->old : h->buckets)) + 1);
}
