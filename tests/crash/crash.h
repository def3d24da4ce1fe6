/* SPDX-License-Identifier: Apache-2.0
 *
 * Recording a workload, and going through its crash points. */
#ifndef ZBS_TESTS_CRASH_CRASH_H
#define ZBS_TESTS_CRASH_CRASH_H

#include "tests/crash/workload.h"

struct crash_conf {
    uint64_t seed;
    uint64_t from, count;  /* crash points; count 0: to the end */
    uint64_t step;         /* every step-th of them */
    int outcome;           /* -1: all */
    uint32_t draws;        /* of each outcome that has chance in it */
    uint32_t again_every;  /* of so many checks one goes on, and restarts twice more; 0: none */
    uint32_t nested_every; /* ... one is recorded itself, and crashed at all its points; 0: none */
    uint32_t moments;      /* damage: so many of a workload; 0: crash points instead */
    uint32_t jobs;         /* processes */
    bool verbose;
};

/* What a workload left behind. */
struct recording {
    const struct workload *w;
    struct sim_image *start; /* the formatted device */
    struct sim_tape *tape;
    struct changes log;
    uint64_t ops, refused;
    char failure[512]; /* the recording itself went wrong */
};
void recording_make(struct recording *r, const struct workload *w, uint64_t seed);
void recording_free(struct recording *r);

/* Ways to damage a page: a bit flipped, as it was a little or long before, another one's. */
enum damage { DAMAGE_FLIP, DAMAGE_NEAR, DAMAGE_FAR, DAMAGE_OTHER, DAMAGES };
/* What became of it: starts that were refused; extents gone, void, or behind what their owner
 * knows; pages that answer an error, or what they should. */
enum verdict {
    VERDICT_REFUSED,
    VERDICT_GONE,
    VERDICT_VOID,
    VERDICT_BEHIND,
    VERDICT_CORRUPT,
    VERDICT_RIGHT,
    VERDICT_UNNOTICED, /* served wrong: a known gap (damage.c) */
    VERDICTS
};
#define DAMAGE_STRUCTS 9u

/* Counts; shared by the processes that check. */
struct tally {
    uint64_t points, checks, nested_points, restarts, failures;
    uint64_t damaged[DAMAGE_STRUCTS], verdict[DAMAGE_STRUCTS][VERDICTS];
    /* what is being checked: an engine that aborts does not return */
    uint64_t at_point;
    int at_outcome;
    uint32_t at_draw;
};
/* Checks the points whose number is `part` modulo conf->jobs, from number `from` on. */
void crash_points(const struct recording *r, const struct crash_conf *conf, uint32_t part,
                  uint64_t from, struct tally *t);
/* The same for damage, on workloads of one disk. */
void damage_moments(const struct recording *r, const struct crash_conf *conf, uint32_t part,
                    uint64_t from, struct tally *t);
void damage_print(const struct tally *sum);
void damage_again(const struct recording *r, const struct crash_conf *conf, uint64_t point);
const char *damage_name(int kind);
uint64_t crash_points_of(const struct sim_tape *t);
const char *outcome_name(int outcome);
int outcome_by_name(const char *name); /* -1: none */
/* How to repeat one check. */
void crash_again(const struct recording *r, const struct crash_conf *conf, uint64_t point,
                 int outcome);

/* Is the device at rest sound, all data included (zbs-fsck)? `why`: the first finding. Runs in a
 * process that has the device, before its engine starts. */
co_fn bool crash_fsck(const char *path, char *why, size_t size);

#endif
