/* SPDX-License-Identifier: Apache-2.0
 *
 * Seeded generator for schedules, tests and jitter (xoshiro256**, seeded through splitmix64). Not
 * for secrets: see env_random_bytes. */
#ifndef ZBS_BASE_PRNG_H
#define ZBS_BASE_PRNG_H

#include <stdbool.h>
#include "common/base/attr.h"

struct prng {
    uint64_t s[4];
};

/* Any seed will do; nearby seeds give unrelated sequences. */
void prng_init(struct prng *p, uint64_t seed);
uint64_t prng_next(struct prng *p);

/* Uniform in 0..bound-1; bound > 0. */
uint64_t prng_below(struct prng *p, uint64_t bound);
/* Uniform in from..to, both included. */
uint64_t prng_between(struct prng *p, uint64_t from, uint64_t to);
/* True with a probability of ppm parts per million. */
bool prng_chance(struct prng *p, uint32_t ppm);
void prng_fill(struct prng *p, void *dst, size_t len);

/* One step of splitmix64: a good mixer of a counter or of an id. */
uint64_t prng_mix(uint64_t x);

#endif
