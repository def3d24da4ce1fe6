/* SPDX-License-Identifier: Apache-2.0
 *
 * What load generators measure: latencies after a ramp, percentiles over time, a server's CPU
 * time; printed as one JSON object. Times are nanoseconds of one clock of the caller's. */
#ifndef ZBS_TESTS_LIB_LOADSTAT_H
#define ZBS_TESTS_LIB_LOADSTAT_H

#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>
#include "common/base/hist.h"

enum loadstat_dir { LOADSTAT_READ, LOADSTAT_WRITE };

struct loadstat_conf {
    int64_t from, to; /* what completes between them is measured; to: INT64_MAX for no end */
    pid_t server;     /* whose CPU time is measured; 0: none */
    const char *csv;  /* a line for each window, the ramp's too; NULL: none */
    int64_t window;   /* 0: one second */
};

struct loadstat {
    struct loadstat_conf conf;
    struct hist lat[2]; /* by direction; nanoseconds */
    uint64_t bytes;
    int64_t first, last; /* of the measured completions' span */
    double cpu_begin, cpu_end;
    bool cpu_begun, cpu_ended;
    FILE *csv;
    struct hist window;
    uint64_t window_bytes;
    int64_t window_end;
};

/* 0 or a negative ERR_*: the file. `now`: when the load begins. */
int loadstat_start(struct loadstat *s, const struct loadstat_conf *conf, int64_t now) MUST_CHECK;
/* One operation has ended. */
void loadstat_add(struct loadstat *s, enum loadstat_dir dir, int64_t now, int64_t took,
                  uint32_t bytes);
/* The load has ended: closes the file. */
void loadstat_stop(struct loadstat *s, int64_t now);
/* The members of a JSON object, without its braces. */
void loadstat_print(const struct loadstat *s, FILE *to);

#endif
