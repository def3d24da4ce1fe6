/* SPDX-License-Identifier: Apache-2.0
 *
 * What a device did in a window of time: kept by env.c for every handle. */
#include <string.h>
#include "common/base/units.h"
#include "common/env/env.h"

/* Four buckets to an octave of microseconds; the last one is for everything longer. */
static uint32_t bucket_of(nsec_t ns)
{
    uint64_t us = (uint64_t)MAX(ns, 0) / 1000 + 4;
    uint32_t octave = 63 - (uint32_t)__builtin_clzll(us);
    uint32_t b = (octave - 2) * 4 + (uint32_t)(us >> (octave - 2) & 3);

    return MIN(b, DISK_WINDOW_BUCKETS - 1);
}

/* Upper end of a bucket. */
static nsec_t bucket_ns(uint32_t b)
{
    uint64_t us = ((uint64_t)(b % 4 + 5) << (b / 4)) - 4;

    return (nsec_t)us * 1000;
}

void disk_window_count(struct disk_window *w, const struct disk_req *r)
{
    enum disk_window_class c = r->op == DISK_READ ? DISK_WINDOW_READS : DISK_WINDOW_DURABLE;

    w->errors += r->rc < 0;
    if (r->rc < 0 || (r->op == DISK_WRITE && !r->durable) || r->op == DISK_DISCARD)
        return;
    w->count[c]++;
    w->hist[c][bucket_of(r->latency_ns)]++;
}

void disk_window_add(struct disk_window *to, const struct disk_window *from)
{
    to->errors += from->errors;
    to->oldest = MAX(to->oldest, from->oldest);
    for (uint32_t c = 0; c < DISK_WINDOW_CLASSES; c++) {
        to->count[c] += from->count[c];
        for (uint32_t b = 0; b < DISK_WINDOW_BUCKETS; b++)
            to->hist[c][b] += from->hist[c][b];
    }
}

nsec_t disk_window_p99(const struct disk_window *w, enum disk_window_class c)
{
    uint32_t above = w->count[c] / 100, seen = 0; /* that may be longer */

    for (uint32_t b = DISK_WINDOW_BUCKETS; b-- > 0;) {
        seen += w->hist[c][b];
        if (seen > above)
            return bucket_ns(b);
    }
    return 0;
}
