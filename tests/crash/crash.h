/* SPDX-License-Identifier: Apache-2.0
 *
 * Recording a workload, and going through its crash points. */
#ifndef ZBS_TESTS_CRASH_CRASH_H
#define ZBS_TESTS_CRASH_CRASH_H

#include "chunk/fsck.h"
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

/* Ways to damage a page: a bit flipped, as it was a little or long before, another one's, zeroes.
 */
enum damage { DAMAGE_FLIP, DAMAGE_NEAR, DAMAGE_FAR, DAMAGE_OTHER, DAMAGE_ZERO, DAMAGES };
/* What became of it: starts that were refused; extents gone, void, or behind what their owner
 * knows; pages that answer an error, or what they should. */
enum verdict {
    VERDICT_REFUSED,
    VERDICT_GONE,
    VERDICT_VOID,
    VERDICT_BEHIND,
    VERDICT_CORRUPT,
    VERDICT_RIGHT,
    VERDICTS
};
#define DAMAGE_STRUCTS 10u
/* Of damaged devices: the check ended with an error; found something; a repair left nothing of it;
 * more pages can be read after it. */
enum fsck_counts { FSCK_REFUSED, FSCK_FOUND, FSCK_MENDED, FSCK_SAVED, FSCK_COUNTS };

/* Counts; shared by the processes that check. */
struct tally {
    uint64_t points, checks, nested_points, restarts, failures;
    uint64_t known; /* of the checks: the same was judged before, so nothing was started */
    uint64_t damaged[DAMAGE_STRUCTS], verdict[DAMAGE_STRUCTS][VERDICTS];
    uint64_t fsck[DAMAGE_STRUCTS][FSCK_COUNTS];
    /* what is being checked: an engine that aborts does not return */
    uint64_t at_point;
    int at_outcome;
    uint32_t at_draw;
};
/* Checks the part's share of the points, from number `from` on. */
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

/* ---- zbs-fsck: in a process that has the device, while no engine does ---- */

struct fsck_run {
    const char *path, *journal; /* journal: fsck_conf's */
    bool repair;
    bool done;
    int rc;
    struct fsck_result r;
    char why[300];    /* the first finding, or error */
    uint64_t written; /* bytes, by this run */
};
co_fn int fsck_run_main(void *fsck_run);
/* Is all well, all data included? */
co_fn bool fsck_clean(struct fsck_run *f);
/* Of a damaged device: whatever an engine has lost, the check has found something. */
bool fsck_explains(const struct fsck_run *check, const uint64_t verdicts[VERDICTS], char *why,
                   size_t size);
/* What could be read before a repair can be read after it, and a check agrees with its result. */
bool fsck_no_worse(const struct fsck_run *repair, const struct fsck_run *after,
                   const uint64_t was[VERDICTS], const uint64_t is[VERDICTS], char *why,
                   size_t size);
void fsck_count(struct tally *t, uint32_t where, const struct fsck_run *check,
                const struct fsck_run *repair, const uint64_t was[VERDICTS],
                const uint64_t is[VERDICTS]);

#endif
