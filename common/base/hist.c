/* SPDX-License-Identifier: Apache-2.0
 *
 * Log-linear histogram. Values below 2^SUB have buckets of their own; a value whose highest bit
 * is b >= SUB lies in group b - SUB + 1, at the place of the SUB bits below that bit. */
#include <string.h>
#include "common/base/hist.h"

#define SUB (1u << HIST_SUB_BITS)

static uint32_t bucket_of(uint64_t value)
{
    uint32_t top, group;

    if (value < SUB)
        return (uint32_t)value;
    top = 63 - (uint32_t)__builtin_clzll(value);
    if (top >= HIST_BITS_MAX)
        return HIST_BUCKETS - 1;
    group = top - HIST_SUB_BITS + 1;
    return group * SUB + (uint32_t)((value >> (top - HIST_SUB_BITS)) & (SUB - 1));
}

/* The middle of a bucket. */
static uint64_t bucket_value(uint32_t bucket)
{
    uint32_t group = bucket / SUB;
    uint64_t width;

    if (group == 0)
        return bucket;
    width = (uint64_t)1 << (group - 1);
    return (SUB + bucket % SUB) * width + width / 2;
}

void hist_init(struct hist *h)
{
    memset(h, 0, sizeof(*h));
    h->min = UINT64_MAX;
}

void hist_add(struct hist *h, uint64_t value)
{
    h->buckets[bucket_of(value)]++;
    h->count++;
    h->sum += value;
    h->min = MIN(h->min, value);
    h->max = MAX(h->max, value);
}

void hist_merge(struct hist *into, const struct hist *from)
{
    for (uint32_t i = 0; i < HIST_BUCKETS; i++)
        into->buckets[i] += from->buckets[i];
    into->count += from->count;
    into->sum += from->sum;
    into->min = MIN(into->min, from->min);
    into->max = MAX(into->max, from->max);
}

uint64_t hist_percentile(const struct hist *h, double percent)
{
    double wanted = (double)h->count * percent / 100.0;
    uint64_t seen = 0;

    if (h->count == 0)
        return 0;
    for (uint32_t i = 0; i < HIST_BUCKETS; i++) {
        seen += h->buckets[i];
        if (seen > 0 && (double)seen >= wanted)
            return MAX(h->min, MIN(h->max, bucket_value(i)));
    }
    return h->max;
}

double hist_mean(const struct hist *h)
{
    return h->count == 0 ? 0.0 : (double)h->sum / (double)h->count;
}
