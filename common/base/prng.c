/* SPDX-License-Identifier: Apache-2.0
 *
 * Seeded generator. */
#include <string.h>
#include "common/base/assert.h"
#include "common/base/prng.h"

uint64_t prng_mix(uint64_t x)
{
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

void prng_init(struct prng *p, uint64_t seed)
{
    for (uint32_t i = 0; i < ARRAY_SIZE(p->s); i++)
        p->s[i] = prng_mix(seed + i * 0x9E3779B97F4A7C15u);
}

static uint64_t rotate_left(uint64_t x, unsigned bits)
{
    return x << bits | x >> (64 - bits);
}

uint64_t prng_next(struct prng *p)
{
    uint64_t *s = p->s;
    uint64_t result = rotate_left(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;

    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate_left(s[3], 45);
    return result;
}

uint64_t prng_below(struct prng *p, uint64_t bound)
{
    uint64_t x, unfair;

    ASSERT(bound > 0);
    unfair = -bound % bound; /* 2^64 mod bound: the first values would come once more often */
    do
        x = prng_next(p);
    while (x < unfair);
    return x % bound;
}

uint64_t prng_between(struct prng *p, uint64_t from, uint64_t to)
{
    ASSERT(from <= to);
    return to - from == UINT64_MAX ? prng_next(p) : from + prng_below(p, to - from + 1);
}

bool prng_chance(struct prng *p, uint32_t ppm)
{
    return ppm != 0 && prng_below(p, 1000000) < ppm;
}

void prng_fill(struct prng *p, void *dst, size_t len)
{
    uint8_t *at = dst;

    while (len > 0) {
        uint64_t x = prng_next(p);
        size_t part = MIN(len, sizeof(x));

        memcpy(at, &x, part);
        at += part;
        len -= part;
    }
}
