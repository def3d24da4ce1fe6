/* SPDX-License-Identifier: Apache-2.0
 *
 * Sorted disjoint ranges in one array. */
#include <string.h>
#include "common/base/assert.h"
#include "common/base/rangeset.h"

void rangeset_init(struct rangeset *s)
{
    memset(s, 0, sizeof(*s));
}

void rangeset_fini(struct rangeset *s)
{
    VEC_FINI(&s->ranges);
    s->total = 0;
}

void rangeset_clear(struct rangeset *s)
{
    s->ranges.count = 0;
    s->total = 0;
}

/* Index of the first range whose end is at least `at` (touching counts), or behind it. */
static size_t first_end_from(const struct rangeset *s, uint64_t at)
{
    size_t low = 0, high = s->ranges.count;

    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if (s->ranges.data[mid].end < at)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

/* Index of the first range that ends behind `at`. */
static size_t first_end_behind(const struct rangeset *s, uint64_t at)
{
    size_t i = first_end_from(s, at);

    return i < s->ranges.count && s->ranges.data[i].end == at ? i + 1 : i;
}

/* Replaces ranges [from, to) by n others (n <= 2). */
static void splice(struct rangeset *s, size_t from, size_t to, const struct range *with, size_t n)
{
    size_t count = s->ranges.count - (to - from) + n;

    for (size_t i = from; i < to; i++)
        s->total -= s->ranges.data[i].end - s->ranges.data[i].start;
    VEC_RESERVE(&s->ranges, count);
    if (s->ranges.count > to)
        memmove(&s->ranges.data[from + n], &s->ranges.data[to],
                (s->ranges.count - to) * sizeof(*with));
    for (size_t i = 0; i < n; i++) {
        s->ranges.data[from + i] = with[i];
        s->total += with[i].end - with[i].start;
    }
    s->ranges.count = count;
}

void rangeset_add(struct rangeset *s, uint64_t start, uint64_t end)
{
    struct range merged = {start, end};
    size_t from, to;

    ASSERT(start <= end);
    if (start == end)
        return;
    from = to = first_end_from(s, start);
    for (; to < s->ranges.count && s->ranges.data[to].start <= end; to++) {
        merged.start = MIN(merged.start, s->ranges.data[to].start);
        merged.end = MAX(merged.end, s->ranges.data[to].end);
    }
    splice(s, from, to, &merged, 1);
}

void rangeset_remove(struct rangeset *s, uint64_t start, uint64_t end)
{
    struct range left[2];
    size_t from, to, n = 0;

    ASSERT(start <= end);
    if (start == end)
        return;
    from = to = first_end_behind(s, start);
    for (; to < s->ranges.count && s->ranges.data[to].start < end; to++) {
        struct range r = s->ranges.data[to];

        if (r.start < start)
            left[n++] = (struct range){r.start, start};
        if (r.end > end)
            left[n++] = (struct range){end, r.end};
    }
    if (from < to)
        splice(s, from, to, left, n);
}

void rangeset_add_set(struct rangeset *s, const struct rangeset *other)
{
    ASSERT(s != other);
    for (size_t i = 0; i < other->ranges.count; i++)
        rangeset_add(s, other->ranges.data[i].start, other->ranges.data[i].end);
}

void rangeset_remove_set(struct rangeset *s, const struct rangeset *other)
{
    ASSERT(s != other);
    for (size_t i = 0; i < other->ranges.count; i++)
        rangeset_remove(s, other->ranges.data[i].start, other->ranges.data[i].end);
}

void rangeset_copy(struct rangeset *to, const struct rangeset *from)
{
    ASSERT(to != from);
    VEC_RESERVE(&to->ranges, from->ranges.count);
    if (from->ranges.count > 0)
        memcpy(to->ranges.data, from->ranges.data, from->ranges.count * sizeof(*from->ranges.data));
    to->ranges.count = from->ranges.count;
    to->total = from->total;
}

bool rangeset_contains(const struct rangeset *s, uint64_t start, uint64_t end)
{
    size_t i;

    ASSERT(start <= end);
    if (start == end)
        return true;
    i = first_end_behind(s, start);
    return i < s->ranges.count && s->ranges.data[i].start <= start && s->ranges.data[i].end >= end;
}

bool rangeset_intersects(const struct rangeset *s, uint64_t start, uint64_t end)
{
    size_t i;

    ASSERT(start <= end);
    if (start == end)
        return false;
    i = first_end_behind(s, start);
    return i < s->ranges.count && s->ranges.data[i].start < end;
}

bool rangeset_next(const struct rangeset *s, uint64_t from, struct range *ret)
{
    size_t i = first_end_behind(s, from);

    if (i == s->ranges.count)
        return false;
    *ret = s->ranges.data[i];
    ret->start = MAX(ret->start, from);
    return true;
}
