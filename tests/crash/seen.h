/* SPDX-License-Identifier: Apache-2.0
 *
 * A set of sums: what was judged before. */
#ifndef ZBS_TESTS_CRASH_SEEN_H
#define ZBS_TESTS_CRASH_SEEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct seen {
    uint64_t *slots; /* 0: free */
    size_t n, cap;
};
/* Is it new? It is not any more. */
bool seen_add(struct seen *s, uint64_t sum);
void seen_free(struct seen *s);
/* Of `bytes`, a multiple of 8. */
uint64_t seen_sum(const void *p, size_t bytes);

#endif
