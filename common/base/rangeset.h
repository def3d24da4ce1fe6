/* SPDX-License-Identifier: Apache-2.0
 *
 * A set of numbers kept as sorted, disjoint, non-touching ranges [start, end). Lookups are
 * logarithmic; changes move the array behind them, so it suits sets of up to some ten thousand
 * ranges (what a replica misses, what is in flight). */
#ifndef ZBS_BASE_RANGESET_H
#define ZBS_BASE_RANGESET_H

#include <stdbool.h>
#include "common/base/vec.h"

struct range {
    uint64_t start, end;
};

struct rangeset {
    VEC(struct range) ranges; /* read them at will: ranges.data[0..ranges.count-1] */
    uint64_t total;           /* numbers in the set */
};

void rangeset_init(struct rangeset *s);
void rangeset_fini(struct rangeset *s);
void rangeset_clear(struct rangeset *s); /* keeps the memory */

/* start <= end; an empty range changes nothing. */
void rangeset_add(struct rangeset *s, uint64_t start, uint64_t end);
void rangeset_remove(struct rangeset *s, uint64_t start, uint64_t end);
void rangeset_add_set(struct rangeset *s, const struct rangeset *other); /* union */
void rangeset_remove_set(struct rangeset *s, const struct rangeset *other);
void rangeset_copy(struct rangeset *to, const struct rangeset *from); /* to: initialised */

/* The whole range; an empty one always is. */
bool rangeset_contains(const struct rangeset *s, uint64_t start, uint64_t end);
/* Any of it; an empty range never does. */
bool rangeset_intersects(const struct rangeset *s, uint64_t start, uint64_t end);

/* The first range that ends behind `from`, cut at `from`: false if there is none. Iterate with
 *     for (uint64_t at = 0; rangeset_next(s, at, &r); at = r.end)
 * which tolerates changes of the set in between. */
bool rangeset_next(const struct rangeset *s, uint64_t from, struct range *ret);

static inline size_t rangeset_count(const struct rangeset *s)
{
    return s->ranges.count;
}

static inline uint64_t rangeset_total(const struct rangeset *s)
{
    return s->total;
}

static inline bool rangeset_empty(const struct rangeset *s)
{
    return s->ranges.count == 0;
}

#endif
