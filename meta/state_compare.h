/* SPDX-License-Identifier: Apache-2.0
 *
 * Orders of the state's vectors; private to state*.c. */
#ifndef ZBS_META_STATE_COMPARE_H
#define ZBS_META_STATE_COMPARE_H

#include <string.h>
#include "meta/state.h"

static inline int compare_u64(uint64_t a, uint64_t b)
{
    return a < b ? -1 : a > b;
}

static inline int compare_pool(const void *item, const void *key)
{
    return strcmp(((const struct pool *)item)->name, key);
}

static inline int compare_volume(const void *item, const void *key)
{
    return strcmp(((const struct volume *)item)->name, key);
}

/* The key is a volume: all its snapshots are equal. */
static inline int compare_snapshot(const void *item, const void *key)
{
    const char *name = ((const struct volume *)item)->name;
    const char *of = ((const struct volume *)key)->name;
    size_t len = strlen(of);
    int order = strncmp(name, of, len);

    return order != 0 ? order : (unsigned char)name[len] - '@';
}

static inline int compare_volume_id(const void *item, const void *key)
{
    return compare_u64(((const struct volume *)item)->id, *(const uint64_t *)key);
}

static inline int compare_chunk(const void *item, const void *key)
{
    return compare_u64(((const struct chunk *)item)->id, *(const uint32_t *)key);
}

static inline int compare_session(const void *item, const void *key)
{
    return compare_u64(((const struct session *)item)->id, *(const uint64_t *)key);
}

static inline int compare_target(const void *item, const void *key)
{
    return strcmp(((const struct target *)item)->iqn, key);
}

#endif
