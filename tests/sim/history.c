/* SPDX-License-Identifier: Apache-2.0
 *
 * Recorded operations and the linearizability check: see history.h. */
#include "tests/sim/history.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/search.h"

#define NEVER UINT64_MAX

/* What changes sectors. */
struct change {
    uint64_t first, call, ret; /* ret NEVER: unknown */
    uint64_t value, old;       /* value 0: makes them zero; old: of a swap */
    uint32_t count;
    bool is_void, is_swap, is_again;
};

struct seen {
    uint64_t sector, value, call, ret;
};

/* One value's operations on one sector. */
struct zone {
    uint64_t value, write_call, min_ret, max_call;
    bool read;
};

struct history {
    uint64_t clock, completed;
    struct change *changes; /* value n is at n - 1 */
    uint64_t n_changes, cap_changes;
    struct seen *seen;
    uint64_t n_seen, cap_seen;
    uint64_t *read_calls;
    uint64_t n_reads, cap_reads;
    uint64_t searched, undecided; /* sectors */
    char text[600];
};

static void *grow(void *array, uint64_t count, uint64_t *cap, size_t size)
{
    if (count < *cap)
        return array;
    *cap = *cap ? *cap * 2 : 256;
    array = realloc(array, *cap * size);
    if (!array)
        abort();
    return array;
}

struct history *history_new(void)
{
    struct history *h = calloc(1, sizeof(*h));

    if (!h)
        abort();
    return h;
}

void history_free(struct history *h)
{
    free(h->changes);
    free(h->seen);
    free(h->read_calls);
    free(h);
}

static struct change *change_new(struct history *h, uint64_t first, uint32_t count)
{
    struct change *c;

    h->changes = grow(h->changes, h->n_changes, &h->cap_changes, sizeof(*h->changes));
    c = &h->changes[h->n_changes++];
    *c = (struct change){.first = first, .count = count, .call = ++h->clock, .ret = NEVER};
    return c;
}

uint64_t history_write_call(struct history *h, uint64_t first, uint32_t count)
{
    change_new(h, first, count)->value = h->n_changes;
    return h->n_changes;
}

uint64_t history_repeated_call(struct history *h, uint64_t first, uint32_t count)
{
    uint64_t value = history_write_call(h, first, count);

    h->changes[value - 1].is_again = true;
    return value;
}

uint64_t history_zero_call(struct history *h, uint64_t first, uint32_t count)
{
    (void)change_new(h, first, count);
    return h->n_changes;
}

uint64_t history_swap_call(struct history *h, uint64_t sector, uint64_t old)
{
    struct change *c = change_new(h, sector, 1);

    c->value = h->n_changes;
    c->old = old;
    c->is_swap = true;
    return h->n_changes;
}

void history_return(struct history *h, uint64_t op)
{
    h->changes[op - 1].ret = ++h->clock;
    h->completed++;
}

void history_void(struct history *h, uint64_t op)
{
    h->changes[op - 1].is_void = true;
}

uint64_t history_read_call(struct history *h)
{
    h->read_calls = grow(h->read_calls, h->n_reads, &h->cap_reads, sizeof(*h->read_calls));
    h->read_calls[h->n_reads++] = ++h->clock;
    return h->n_reads;
}

void history_read_saw(struct history *h, uint64_t read, uint64_t sector, uint64_t value)
{
    h->seen = grow(h->seen, h->n_seen, &h->cap_seen, sizeof(*h->seen));
    h->seen[h->n_seen++] = (struct seen){
        .sector = sector, .value = value, .call = h->read_calls[read - 1], .ret = ++h->clock};
    h->completed++;
}

uint64_t history_tick(struct history *h)
{
    return ++h->clock;
}

void history_saw_between(struct history *h, uint64_t call, uint64_t ret, uint64_t sector,
                         uint64_t value)
{
    h->seen = grow(h->seen, h->n_seen, &h->cap_seen, sizeof(*h->seen));
    h->seen[h->n_seen++] =
        (struct seen){.sector = sector, .value = value, .call = call, .ret = ret};
    h->completed++;
}

uint64_t history_ops(const struct history *h)
{
    return h->completed;
}

/* One row per (sector, value): writes and reads merged by sorting. */
struct row {
    uint64_t sector, value, old, call, ret;
    bool is_write, is_void, is_swap, is_again;
};

static int row_compare(const void *a, const void *b)
{
    const struct row *x = a, *y = b;

    if (x->sector != y->sector)
        return x->sector < y->sector ? -1 : 1;
    if (x->value != y->value)
        return x->value < y->value ? -1 : 1;
    return (x->is_write < y->is_write) - (x->is_write > y->is_write);
}

static int zone_compare(const void *a, const void *b)
{
    const struct zone *x = a, *y = b;

    return (x->min_ret > y->min_ret) - (x->min_ret < y->min_ret);
}

static bool is_forward(const struct zone *z)
{
    return z->min_ret < z->max_call;
}

static const char *describe(struct history *h, uint64_t sector, const char *what,
                            const struct zone *a, const struct zone *b)
{
    snprintf(h->text, sizeof(h->text),
             "sector %" PRIu64 ": %s: value %" PRIu64 " (write called at %" PRIu64
             ", first return %" PRIu64 ", last call %" PRIu64 ") against value %" PRIu64
             " (write called at %" PRIu64 ", first return %" PRIu64 ", last call %" PRIu64 ")",
             sector, what, a->value, a->write_call, a->min_ret, a->max_call, b ? b->value : 0,
             b ? b->write_call : 0, b ? b->min_ret : 0, b ? b->max_call : 0);
    return h->text;
}

/* The zones of one sector, which are its rows [rows, rows + n). */
static const char *check_sector(struct history *h, const struct row *rows, uint64_t n,
                                struct zone *zones)
{
    uint64_t n_zones = 0, sector = rows[0].sector, forward_end = 0;
    const struct zone *forward = NULL;

    for (uint64_t i = 0; i < n;) {
        struct zone z = {.value = rows[i].value, .min_ret = NEVER};
        bool written = rows[i].value == 0, is_void = false;

        if (rows[i].value == 0)
            z.min_ret = z.write_call = z.max_call = 0; /* the initial zeroes */
        for (; i < n && rows[i].value == z.value; i++) {
            const struct row *r = &rows[i];

            if (r->is_write) {
                written = true;
                is_void = r->is_void;
                z.write_call = r->call;
            } else {
                z.read = true;
                if (r->ret < z.write_call)
                    return describe(h, sector, "read before it was written", &z, NULL);
            }
            z.max_call = r->call > z.max_call ? r->call : z.max_call;
            z.min_ret = r->ret < z.min_ret ? r->ret : z.min_ret;
        }
        if (z.read && !written)
            return describe(h, sector, "read a value that was never written here", &z, NULL);
        if (z.read && is_void)
            return describe(h, sector, "read a write that was refused", &z, NULL);
        if (z.min_ret != NEVER && !is_void)
            zones[n_zones++] = z;
    }
    qsort(zones, n_zones, sizeof(*zones), zone_compare);
    for (uint64_t i = 0; i < n_zones; i++) {
        if (!is_forward(&zones[i]))
            continue;
        if (forward && zones[i].min_ret < forward_end)
            return describe(h, sector, "an older value came back", forward, &zones[i]);
        forward = &zones[i];
        forward_end = zones[i].max_call;
    }
    for (uint64_t i = 0, k = 0; i < n_zones; i++) {
        if (is_forward(&zones[i]))
            continue;
        /* backward zone [max_call, min_ret]: inside the last forward zone that starts before it? */
        for (k = 0; k < n_zones && zones[k].min_ret < zones[i].min_ret; k++)
            if (is_forward(&zones[k]) && zones[k].min_ret < zones[i].max_call &&
                zones[i].min_ret < zones[k].max_call)
                return describe(h, sector, "an acknowledged write was not seen", &zones[i],
                                &zones[k]);
    }
    return NULL;
}

static bool needs_search(const struct row *rows, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        if (rows[i].is_write && !rows[i].is_void &&
            (rows[i].is_swap || rows[i].is_again || rows[i].value == 0))
            return true;
    return false;
}

/* Changes of unknown outcome whose value nobody saw are left out: they may have happened last. */
static const char *search_sector(struct history *h, const struct row *rows, uint64_t n,
                                 struct search_op *ops)
{
    uint64_t count = 0;
    int64_t bad;
    char why[400];

    for (uint64_t i = 0; i < n; i++) {
        const struct row *r = &rows[i];
        bool seen = i + 1 < n && rows[i + 1].value == r->value;

        if (r->is_void)
            continue;
        for (uint64_t k = 0; k < n && r->is_write && !seen; k++)
            seen = rows[k].is_swap && rows[k].old == r->value;
        if (r->is_write && r->ret == NEVER && r->value != 0 && !seen)
            continue;
        ops[count++] = (struct search_op){.kind = r->is_swap    ? SEARCH_SWAP
                                                  : r->is_again ? SEARCH_AGAIN
                                                  : r->is_write ? SEARCH_WRITE
                                                                : SEARCH_READ,
                                          .old = r->old,
                                          .value = r->value,
                                          .call = r->call,
                                          .ret = r->ret == NEVER ? SEARCH_NEVER : r->ret};
    }
    h->searched++;
    bad = search_check(ops, count, why, sizeof(why));
    h->undecided += bad == -2;
    if (bad < 0)
        return NULL;
    snprintf(h->text, sizeof(h->text), "sector %" PRIu64 ": %s", rows[0].sector, why);
    return h->text;
}

static uint64_t rows_make(const struct history *h, struct row *rows)
{
    uint64_t at = 0;

    for (uint64_t i = 0; i < h->n_changes; i++) {
        const struct change *c = &h->changes[i];

        if (c->is_void && c->value == 0)
            continue; /* as if it had never been; of a write, it is an error to see it */
        for (uint32_t s = 0; s < c->count; s++)
            rows[at++] = (struct row){.sector = c->first + s,
                                      .value = c->value,
                                      .old = c->old,
                                      .call = c->call,
                                      .ret = c->ret,
                                      .is_write = true,
                                      .is_swap = c->is_swap,
                                      .is_again = c->is_again && c->ret != NEVER,
                                      .is_void = c->is_void};
    }
    for (uint64_t i = 0; i < h->n_seen; i++)
        rows[at++] = (struct row){.sector = h->seen[i].sector,
                                  .value = h->seen[i].value,
                                  .call = h->seen[i].call,
                                  .ret = h->seen[i].ret};
    qsort(rows, at, sizeof(*rows), row_compare);
    return at;
}

const char *history_check(struct history *h)
{
    uint64_t n = h->n_seen;
    const char *bad = NULL;
    struct search_op *ops;
    struct row *rows;
    struct zone *zones;

    for (uint64_t i = 0; i < h->n_changes; i++)
        n += h->changes[i].count;
    rows = calloc(n + 1, sizeof(*rows));
    zones = calloc(n + 1, sizeof(*zones));
    ops = calloc(n + 1, sizeof(*ops));
    if (!rows || !zones || !ops)
        abort();
    n = rows_make(h, rows);
    h->searched = h->undecided = 0;
    for (uint64_t i = 0, k; i < n && !bad; i = k) {
        for (k = i + 1; k < n && rows[k].sector == rows[i].sector; k++)
            ;
        bad = needs_search(rows + i, k - i) ? search_sector(h, rows + i, k - i, ops)
                                            : check_sector(h, rows + i, k - i, zones);
    }
    free(rows);
    free(zones);
    free(ops);
    return bad;
}

void history_searched(const struct history *h, uint64_t *ret_searched, uint64_t *ret_undecided)
{
    *ret_searched = h->searched;
    *ret_undecided = h->undecided;
}
