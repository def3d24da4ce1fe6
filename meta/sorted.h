/* SPDX-License-Identifier: Apache-2.0
 *
 * Vector of pointers kept in the order of a key that a comparison function knows. What comes and
 * goes at either end costs nothing, and elsewhere the shorter side moves. */
#ifndef ZBS_META_SORTED_H
#define ZBS_META_SORTED_H

#include <stdbool.h>
#include "common/base/attr.h"

struct sorted {
    void **items;
    uint32_t count, cap;
    uint32_t gap; /* free places before the items, of cap */
};
/* < 0: the item comes before the key, 0: is it, > 0: comes after. */
typedef int (*sorted_compare)(const void *item, const void *key);

void sorted_fini(struct sorted *v); /* a zeroed struct is empty */
/* Index of the first item that is not before the key; *ret_found: it is the key. */
uint32_t sorted_lower(const struct sorted *v, sorted_compare compare, const void *key,
                      bool *ret_found);
void *sorted_find(const struct sorted *v, sorted_compare compare,
                  const void *key); /* NULL: absent */
void sorted_insert_at(struct sorted *v, uint32_t at, void *item);
/* The key may not be there yet (asserted). */
void sorted_insert(struct sorted *v, sorted_compare compare, const void *key, void *item);
void *sorted_remove_at(struct sorted *v, uint32_t at);
void *sorted_remove(struct sorted *v, sorted_compare compare, const void *key); /* NULL: absent */
void sorted_push(struct sorted *v, void *item);                                 /* at the end */

#endif
