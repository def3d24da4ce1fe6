/* SPDX-License-Identifier: Apache-2.0
 *
 * Growing arrays: VEC(struct x) v = {0}; *VEC_PUSH(&v) = …; v.data[i], v.count; VEC_FINI(&v). An
 * element's address is valid until the next VEC_PUSH. */
#ifndef ZBS_BASE_VEC_H
#define ZBS_BASE_VEC_H

#include "common/base/mem.h"

#define VEC(type)                                                                                  \
    struct {                                                                                       \
        type *data;                                                                                \
        size_t count, cap;                                                                         \
    }

/* Room for `need` elements: returns the array, doubled as often as it takes. */
void *vec_grow(void *data, size_t *cap, size_t need, size_t elem_bytes);

#define VEC_RESERVE(v, need)                                                                       \
    ((v)->cap < (size_t)(need)                                                                     \
         ? (void)((v)->data = vec_grow((v)->data, &(v)->cap, (need), sizeof(*(v)->data)))          \
         : (void)0)
/* Address of a new last element, contents undefined. */
#define VEC_PUSH(v) (VEC_RESERVE(v, (v)->count + 1), &(v)->data[(v)->count++])
#define VEC_FINI(v) (mem_free((v)->data), (v)->data = NULL, (v)->count = (v)->cap = 0)

#endif
