/* SPDX-License-Identifier: Apache-2.0
 *
 * Hash table from 64-bit keys to elements that carry the link. Grows a few buckets at a time, so
 * that no insertion ever pays for all. Keys are unique. The order of iteration depends only on
 * the history of the table. */
#ifndef ZBS_BASE_HTAB_H
#define ZBS_BASE_HTAB_H

#include <stdbool.h>
#include "common/base/attr.h"

struct htab_node {
    struct htab_node *next;
    uint64_t key;
};

struct htab {
    struct htab_node **buckets; /* NULL until the first insertion */
    struct htab_node **old;     /* being emptied into buckets; NULL: not growing */
    uint64_t bucket_count, old_count, old_next;
    uint64_t count;
};

void htab_init(struct htab *h);
void htab_fini(struct htab *h); /* elements are not touched */

/* The key must not be in the table (asserted). */
void htab_insert(struct htab *h, struct htab_node *node, uint64_t key);
struct htab_node *htab_find(const struct htab *h, uint64_t key); /* NULL: not there */
void htab_remove(struct htab *h, struct htab_node *node);        /* must be there */

/* For HTAB_FOREACH: the first element, and the one after a key's place. */
struct htab_node *htab_first(const struct htab *h);
struct htab_node *htab_next(const struct htab *h, const struct htab_node *node);

/* NULL or the element that contains the node. */
#define HTAB_ENTRY(node, type, m)                                                                  \
    ({                                                                                             \
        struct htab_node *node_ = (node);                                                          \
        node_ != NULL ? CONTAINER_OF(node_, type, m) : (type *)NULL;                               \
    })
#define HTAB_FIND(h, key, type, m) HTAB_ENTRY(htab_find(h, key), type, m)

/* The body may remove and free var, and nothing else may change the table. */
#define HTAB_FOREACH(var, h, type, m)                                                              \
    for (type *var = HTAB_ENTRY(htab_first(h), type, m),                                           \
              *var##_next = var != NULL ? HTAB_ENTRY(htab_next(h, &var->m), type, m) : NULL;       \
         var != NULL; var = var##_next,                                                            \
              var##_next = var != NULL ? HTAB_ENTRY(htab_next(h, &var->m), type, m) : NULL)

#endif
