/* SPDX-License-Identifier: Apache-2.0
 *
 * What happens to a chunk server at given times of a run of a load generator, and how long it took.
 */
#ifndef ZBS_TESTS_LIB_LOADEVENT_H
#define ZBS_TESTS_LIB_LOADEVENT_H

#include <stdio.h>
#include "common/co/co.h"
#include "tests/lib/chunkowner.h"

#define LOADEVENTS_MAX 16u

struct loadevents;

struct loadevent {
    struct loadevents *all;
    double at; /* seconds from the begin */
    const struct loadevent_kind *kind;
    const char *arg;
    uint64_t size;       /* arg, of kinds that want a number */
    nsec_t began, ended; /* 0: not */
};

struct loadevents {
    struct loadevent events[LOADEVENTS_MAX];
    uint32_t n;
    struct owner *owner;
    void (*rate)(void *arg, uint64_t per_s); /* the generator's own */
    void *arg;
    nsec_t begin;
    struct co_group group;
    bool stop;
    int rc; /* of the first that failed */
    char why[256];
};

/* SECOND:NAME[=ARGUMENT]: add=DEVICE, drain=DEVICE, scrub=BYTES (a second), children, rate=N (0:
 * none). */
bool loadevents_parse(struct loadevents *all, const char *text);
co_fn void loadevents_start(struct loadevents *all, struct owner *owner, nsec_t begin);
/* Waits for no event's end. An error if one failed. */
co_fn int loadevents_stop(struct loadevents *all) MUST_CHECK;
/* A JSON array. */
void loadevents_print(const struct loadevents *all, FILE *to);

#endif
