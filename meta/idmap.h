/* SPDX-License-Identifier: Apache-2.0
 *
 * Hash map from a non-zero 64-bit id to a non-zero 64-bit value (often a pointer). Open
 * addressing with linear probing; deletion moves entries back, so there are no tombstones. */
#ifndef ZBS_META_IDMAP_H
#define ZBS_META_IDMAP_H

#include <stdbool.h>
#include "common/base/attr.h"

struct idmap_entry {
    uint64_t id; /* 0: free */
    uint64_t value;
};
struct idmap {
    struct idmap_entry *entries;
    uint64_t cap; /* a power of two, or 0 */
    uint64_t count;
};

void idmap_fini(struct idmap *m);                             /* a zeroed struct is an empty map */
uint64_t idmap_get(const struct idmap *m, uint64_t id);       /* 0: absent */
void idmap_put(struct idmap *m, uint64_t id, uint64_t value); /* replaces */
bool idmap_del(struct idmap *m, uint64_t id);                 /* false: was absent */

static inline void *idmap_get_ptr(const struct idmap *m, uint64_t id)
{
    return (void *)(uintptr_t)idmap_get(m, id);
}

static inline void idmap_put_ptr(struct idmap *m, uint64_t id, void *ptr)
{
    idmap_put(m, id, (uint64_t)(uintptr_t)ptr);
}

#endif
