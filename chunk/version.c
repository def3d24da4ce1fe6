/* SPDX-License-Identifier: Apache-2.0
 *
 * Versions above the commit point, page by page (PROTOCOL 2.2, 2.3): a sorted list of runs. */
#include <string.h>
#include "chunk/internal.h"

/* Room for the most runs that one write can add. */
#define WRITE_RUNS_MAX 80u

bool version_room(const struct ext *x)
{
    return x->n_unc + WRITE_RUNS_MAX <= UNCOMMITTED_MAX;
}

void version_free(struct ext *x)
{
    mem_free(x->unc);
    x->unc = NULL;
    x->n_unc = x->cap_unc = 0;
}

struct runs {
    struct uncommitted *r;
    uint32_t n;
};

static void runs_push(struct runs *o, uint32_t first, uint32_t last, struct version v)
{
    struct uncommitted *prev = o->n > 0 ? &o->r[o->n - 1] : NULL;

    if (first > last)
        return;
    if (prev != NULL && prev->last + 1u == first && version_cmp(prev->v, v) == 0) {
        prev->last = (uint16_t)last;
        return;
    }
    o->r[o->n++] = (struct uncommitted){(uint16_t)first, (uint16_t)last, v};
}

/* The first run that ends at this page or behind it. */
static uint32_t run_find(const struct ext *x, uint32_t page)
{
    uint32_t low = 0, high = x->n_unc;

    while (low < high) {
        uint32_t mid = low + (high - low) / 2;

        if (x->unc[mid].last < page)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

/* The usual case: nothing is known of these pages, nor of a neighbour with the same version. */
static bool insert_apart(struct ext *x, uint32_t first, uint32_t last, struct version v)
{
    uint32_t i = run_find(x, first);

    if (i < x->n_unc && x->unc[i].first <= last + 1)
        return false;
    if (i > 0 && x->unc[i - 1].last + 1u == first)
        return false;
    if (x->n_unc == x->cap_unc) {
        x->cap_unc = 2 * x->cap_unc + 8;
        x->unc = mem_realloc(x->unc, x->cap_unc * sizeof(*x->unc));
    }
    memmove(&x->unc[i + 1], &x->unc[i], (x->n_unc - i) * sizeof(*x->unc));
    x->unc[i] = (struct uncommitted){(uint16_t)first, (uint16_t)last, v};
    x->n_unc++;
    return true;
}

/* Beside what is known of the range already: of each page the higher version stays. */
static void insert_over(struct ext *x, uint32_t first, uint32_t last, struct version v)
{
    uint32_t at = first; /* first page of the range not yet put */
    struct runs o = {0};

    /* A run may be cut in two, and gaps filled: at most 2n + 1 come out. */
    o.r = MEM_NEW_ARRAY(struct uncommitted, 2 * x->n_unc + 2);
    for (uint32_t i = 0; i < x->n_unc; i++) {
        const struct uncommitted *u = &x->unc[i];
        uint32_t from, to;

        if (u->last < first || u->first > last) {
            if (u->first > last && at <= last) {
                runs_push(&o, at, last, v);
                at = last + 1;
            }
            runs_push(&o, u->first, u->last, u->v);
            continue;
        }
        from = MAX(u->first, first);
        to = MIN(u->last, last);
        if (u->first < first)
            runs_push(&o, u->first, first - 1, u->v);
        if (at < from)
            runs_push(&o, at, from - 1, v);
        runs_push(&o, from, to, version_cmp(u->v, v) > 0 ? u->v : v);
        at = to + 1;
        if (u->last > last)
            runs_push(&o, last + 1, u->last, u->v);
    }
    if (at <= last)
        runs_push(&o, at, last, v);
    mem_free(x->unc);
    x->unc = o.r;
    x->cap_unc = 2 * x->n_unc + 2;
    x->n_unc = o.n;
}

void version_apply(struct ext *x, uint32_t first, uint32_t count, struct version v)
{
    uint32_t last = first + count - 1;

    if (version_cmp(v, x->last) > 0)
        x->last = v;
    if (count > 0 && version_cmp(v, x->cp) > 0 && !insert_apart(x, first, last, v))
        insert_over(x, first, last, v);
}

void version_commit(struct ext *x, struct version cp)
{
    uint32_t n = 0;

    if (version_cmp(cp, x->cp) <= 0)
        return;
    x->cp = cp;
    if (version_cmp(cp, x->last) > 0)
        x->last = cp;
    for (uint32_t i = 0; i < x->n_unc; i++) {
        if (version_cmp(x->unc[i].v, cp) > 0)
            x->unc[n++] = x->unc[i];
    }
    x->n_unc = n;
}

uint32_t version_run(const struct ext *x, uint32_t first, uint32_t last, struct version v,
                     bool *ret_have)
{
    uint32_t at = first;

    if (version_cmp(v, x->cp) <= 0) {
        *ret_have = true;
        return last - first + 1;
    }
    *ret_have = false;
    for (uint32_t i = 0; i < x->n_unc; i++) {
        const struct uncommitted *u = &x->unc[i];
        bool have;

        if (u->last < at)
            continue;
        if (u->first > last)
            break;
        have = version_cmp(u->v, v) >= 0;
        if (u->first > at) { /* a gap has nothing */
            if (*ret_have)
                return at - first;
            at = u->first;
        }
        if (at == first && u->first <= first)
            *ret_have = have;
        else if (have != *ret_have)
            return at - first;
        at = u->last + 1u;
        if (at > last)
            return last - first + 1;
    }
    return *ret_have ? at - first : last - first + 1;
}
