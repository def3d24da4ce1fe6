/* SPDX-License-Identifier: Apache-2.0
 *
 * The states that a register may be in: see search.h. */
#include "tests/sim/search.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS      64
#define STATES_MAX 4096

struct state {
    uint64_t done; /* of the open operations, by slot: took effect */
    uint64_t value;
};

struct event {
    uint64_t at;
    uint32_t op;
    int ret;
};

struct search {
    const struct search_op *ops;
    uint32_t open[SLOTS]; /* op + 1 in each slot; 0: free */
    struct state *states;
    uint32_t n;
};

static int event_compare(const void *a, const void *b)
{
    const struct event *x = a, *y = b;

    return (x->at > y->at) - (x->at < y->at);
}

/* A read that may take effect now loses nothing by doing so. */
static struct state reads_done(const struct search *s, struct state st)
{
    for (uint32_t i = 0; i < SLOTS; i++)
        if (s->open[i] && !(st.done >> i & 1)) {
            const struct search_op *op = &s->ops[s->open[i] - 1];

            if (op->kind == SEARCH_READ && op->value == st.value)
                st.done |= 1ull << i;
        }
    return st;
}

/* False if there is no room. */
static int add(struct search *s, struct state st)
{
    st = reads_done(s, st);
    for (uint32_t i = 0; i < s->n; i++)
        if (s->states[i].done == st.done && s->states[i].value == st.value)
            return 1;
    if (s->n == STATES_MAX)
        return 0;
    s->states[s->n++] = st;
    return 1;
}

static bool is_again(const struct search *s, uint32_t slot)
{
    return s->open[slot] && s->ops[s->open[slot] - 1].kind == SEARCH_AGAIN;
}

/* Every state that open operations can lead to, from each that lacks the one in `slot`, or in which
 * that one may take effect once more. */
static int expand(struct search *s, uint32_t slot)
{
    for (uint32_t i = 0; i < s->n; i++) {
        if (s->states[i].done >> slot & 1 && !is_again(s, slot))
            continue;
        for (uint32_t k = 0; k < SLOTS; k++) {
            const struct search_op *op = s->open[k] ? &s->ops[s->open[k] - 1] : NULL;
            struct state st = s->states[i];

            if (!op || (st.done >> k & 1 && !is_again(s, k)) || op->kind == SEARCH_READ ||
                (op->kind == SEARCH_SWAP && op->old != st.value))
                continue;
            st.done |= 1ull << k;
            st.value = op->value;
            if (!add(s, st))
                return 0;
        }
    }
    return 1;
}

static void explain(const struct search *s, uint32_t op, char *why, uint32_t room)
{
    static const char *const kinds[] = {"read", "write", "compare-and-write", "write"};
    const struct search_op *o = &s->ops[op];
    int at = snprintf(why, room,
                      "%s of value %" PRIu64 " (called at %" PRIu64 ", returned at %" PRIu64
                      ") is impossible: the sector may hold",
                      kinds[o->kind], o->kind == SEARCH_SWAP ? o->old : o->value, o->call, o->ret);

    for (uint32_t i = 0; i < s->n && i < 8 && at > 0 && at < (int)room; i++)
        at += snprintf(why + at, room - (uint32_t)at, " %" PRIu64, s->states[i].value);
}

/* Keeps the states in which the operation in `slot` took effect, and frees the slot. */
static int returned(struct search *s, uint32_t slot)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < s->n; i++)
        if (s->states[i].done >> slot & 1) {
            struct state st = s->states[i];

            st.done &= ~(1ull << slot);
            s->states[kept++] = st;
        }
    if (kept == 0)
        return 0;
    s->n = kept;
    s->open[slot] = 0;
    return 1;
}

static int64_t walk(struct search *s, const struct event *events, uint64_t n, char *why,
                    uint32_t room)
{
    for (uint64_t i = 0; i < n; i++) {
        uint32_t op = events[i].op, slot = 0;

        while (slot < SLOTS && s->open[slot] != (events[i].ret ? op + 1 : 0))
            slot++;
        if (slot == SLOTS)
            return -2;
        if (!events[i].ret) {
            s->open[slot] = op + 1;
            for (uint32_t k = 0; k < s->n; k++)
                s->states[k] = reads_done(s, s->states[k]);
            continue;
        }
        if (!expand(s, slot))
            return -2;
        if (!returned(s, slot)) {
            explain(s, op, why, room);
            return op;
        }
    }
    return -1;
}

int64_t search_check(const struct search_op *ops, uint64_t count, char *why, uint32_t room)
{
    struct search s = {.ops = ops, .n = 1};
    struct event *events = calloc(2 * count + 1, sizeof(*events));
    uint64_t n = 0;
    int64_t bad;

    s.states = calloc(STATES_MAX, sizeof(*s.states));
    if (!events || !s.states)
        abort();
    for (uint32_t i = 0; i < count; i++) {
        events[n++] = (struct event){.at = ops[i].call, .op = i};
        if (ops[i].ret != SEARCH_NEVER)
            events[n++] = (struct event){.at = ops[i].ret, .op = i, .ret = 1};
    }
    qsort(events, n, sizeof(*events), event_compare);
    bad = walk(&s, events, n, why, room);
    free(events);
    free(s.states);
    return bad;
}
