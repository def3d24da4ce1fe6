/* SPDX-License-Identifier: Apache-2.0
 *
 * Histogram of latencies (or any non-negative numbers) with buckets that are linear inside each
 * power of two: a percentile is off by 3% at most. 8 KiB, no allocation. */
#ifndef ZBS_BASE_HIST_H
#define ZBS_BASE_HIST_H

#include "common/base/attr.h"

#define HIST_SUB_BITS 4u  /* 16 buckets per power of two */
#define HIST_BITS_MAX 48u /* larger values count in the last bucket */
#define HIST_BUCKETS  ((HIST_BITS_MAX - HIST_SUB_BITS + 1) << HIST_SUB_BITS)

struct hist {
    uint64_t count, sum, min, max; /* min is UINT64_MAX while empty */
    uint64_t buckets[HIST_BUCKETS];
};

void hist_init(struct hist *h); /* also empties */
void hist_add(struct hist *h, uint64_t value);
void hist_merge(struct hist *into, const struct hist *from);

/* The value that the given share of the values (0 to 100) does not exceed; 0 if empty. */
uint64_t hist_percentile(const struct hist *h, double percent);
double hist_mean(const struct hist *h); /* 0 if empty */

#endif
