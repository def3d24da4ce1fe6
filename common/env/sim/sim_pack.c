/* SPDX-License-Identifier: Apache-2.0
 *
 * Packed pages: items of a count and either one word or, with the top bit set, so many words. */
#include "common/env/sim/sim_pack.h"
#include <string.h>

#define PAGE_WORDS (SIM_PAGE / 4)
#define LITERAL    0x80000000u

struct sim_packed {
    uint32_t n; /* words */
    uint32_t w[];
};

static uint32_t repeats(const uint32_t *w, uint32_t i)
{
    uint32_t n = 1;

    while (i + n < PAGE_WORDS && w[i + n] == w[i])
        n++;
    return n;
}

struct sim_packed *sim_pack(const void *page)
{
    uint32_t w[PAGE_WORDS], out[2 * PAGE_WORDS], n = 0, literal = 0;
    struct sim_packed *p;

    memcpy(w, page, SIM_PAGE);
    for (uint32_t i = 0, k; i < PAGE_WORDS; i += k) {
        k = repeats(w, i);
        if (k < 3) { /* not worth an item of its own */
            if (literal == 0)
                out[n++] = LITERAL;
            literal += k;
            out[n - 1 - (literal - k)] += k;
            for (uint32_t j = 0; j < k; j++)
                out[n++] = w[i];
            continue;
        }
        literal = 0;
        out[n++] = k;
        out[n++] = w[i];
    }
    p = sim_alloc(sizeof(*p) + n * 4);
    p->n = n;
    memcpy(p->w, out, n * 4);
    return p;
}

void sim_unpack(const struct sim_packed *p, void *page)
{
    uint32_t w[PAGE_WORDS], at = 0;

    for (uint32_t i = 0; i < p->n;) {
        uint32_t k = p->w[i] & ~LITERAL;

        ASSERT(at + k <= PAGE_WORDS);
        if (p->w[i] & LITERAL) {
            memcpy(w + at, p->w + i + 1, k * 4);
            i += 1 + k;
        } else {
            for (uint32_t j = 0; j < k; j++)
                w[at + j] = p->w[i + 1];
            i += 2;
        }
        at += k;
    }
    ASSERT(at == PAGE_WORDS);
    memcpy(page, w, SIM_PAGE);
}

/* ---- runs ---- */

void sim_runs_fini(struct sim_runs *r)
{
    sim_mem_free(r->keys);
    sim_mem_free(r->words);
    *r = (struct sim_runs){0};
}

bool sim_run_is(const void *src)
{
    return memcmp(src, (const uint8_t *)src + 4, SIM_RUN_BYTES - 4) == 0;
}

static size_t slot_of(const struct sim_runs *r, uint64_t run)
{
    size_t i = (run * 0x9e3779b97f4a7c15u >> 20) & (r->size - 1);

    while (r->keys[i] != 0 && r->keys[i] != run + 1)
        i = (i + 1) & (r->size - 1);
    return i;
}

static void grow(struct sim_runs *r)
{
    struct sim_runs old = *r;

    r->size = old.size != 0 ? old.size * 2 : 1024;
    r->keys = sim_alloc(r->size * sizeof(*r->keys));
    r->words = sim_alloc(r->size * sizeof(*r->words));
    for (size_t i = 0; i < old.size; i++) {
        size_t to;

        if (old.keys[i] == 0)
            continue;
        to = slot_of(r, old.keys[i] - 1);
        r->keys[to] = old.keys[i];
        r->words[to] = old.words[i];
    }
    sim_runs_fini(&old);
}

void sim_runs_put(struct sim_runs *r, uint64_t run, uint32_t word)
{
    size_t i;

    if (r->count + 1 > r->size - r->size / 4)
        grow(r);
    i = slot_of(r, run);
    r->count += r->keys[i] == 0;
    r->keys[i] = run + 1;
    r->words[i] = word;
}

bool sim_runs_get(const struct sim_runs *r, uint64_t run, uint32_t *ret)
{
    size_t i;

    if (r->count == 0)
        return false;
    i = slot_of(r, run);
    *ret = r->words[i];
    return r->keys[i] != 0;
}
