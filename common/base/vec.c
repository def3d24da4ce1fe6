/* SPDX-License-Identifier: Apache-2.0
 *
 * Growing arrays. */
#include "common/base/assert.h"
#include "common/base/vec.h"

void *vec_grow(void *data, size_t *cap, size_t need, size_t elem_bytes)
{
    size_t bytes, next = MAX(*cap, 4);

    while (next < need) {
        ASSERT(next <= SIZE_MAX / 2);
        next *= 2;
    }
    ASSERT(!__builtin_mul_overflow(next, elem_bytes, &bytes));
    *cap = next;
    return mem_realloc(data, bytes);
}
