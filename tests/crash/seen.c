/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/crash/seen.h"

#include <stdlib.h>
#include <string.h>
#include "common/base/mem.h"

/* The slot that has it, or gets it. */
static uint64_t *slot_of(struct seen *s, uint64_t sum)
{
    size_t i = sum & (s->cap - 1);

    while (s->slots[i] != 0 && s->slots[i] != sum)
        i = (i + 1) & (s->cap - 1);
    return &s->slots[i];
}

static void grow(struct seen *s)
{
    struct seen more = {.cap = s->cap != 0 ? 2 * s->cap : 1024};

    more.slots = MEM_NEW_ARRAY(uint64_t, more.cap);
    for (size_t i = 0; i < s->cap; i++) {
        if (s->slots[i] != 0)
            *slot_of(&more, s->slots[i]) = s->slots[i];
    }
    more.n = s->n;
    mem_free(s->slots);
    *s = more;
}

bool seen_add(struct seen *s, uint64_t sum)
{
    uint64_t *slot;

    sum += sum == 0;
    if (2 * s->n >= s->cap)
        grow(s);
    slot = slot_of(s, sum);
    if (*slot == sum)
        return false;
    *slot = sum;
    s->n++;
    return true;
}

void seen_free(struct seen *s)
{
    mem_free(s->slots);
    *s = (struct seen){0};
}

uint64_t seen_sum(const void *p, size_t bytes)
{
    const uint8_t *at = p;
    uint64_t sum = bytes;

    for (size_t i = 0; i < bytes; i += 8) {
        uint64_t w;

        memcpy(&w, at + i, 8);
        sum = (sum ^ w) * 0x9e3779b97f4a7c15u;
        sum ^= sum >> 32;
    }
    return sum;
}
