/* SPDX-License-Identifier: Apache-2.0
 *
 * Carries out the events of a scenario: each strikes at its time and is undone after its span, by a
 * coroutine of its own, so that they may overlap. What makes no sense at that moment (to kill what
 * does not run) is left out and not counted. */
#ifndef ZBS_TESTS_SIM_FAULTS_H
#define ZBS_TESTS_SIM_FAULTS_H

#include "tests/sim/cluster.h"

/* Whom it hit. */
enum whom { WHOM_OWNER, WHOM_MEMBER, WHOM_LEADER, WHOM_NEW_LEADER, WHOM_STANDBY, WHOMS };

struct fault_stats {
    uint32_t count[FAULTS];
    /* How often it hit an access server that was in that phase itself, or another server while
     * somebody was in it. */
    uint32_t cover[FAULTS][WHOMS][PHASES];
};

const char *whom_name(enum whom w);

/* Runs all events, from a control coroutine; returns when the span is over and all are undone. */
co_fn void faults_run(struct cluster *c, const struct scenario *s, struct fault_stats *stats);

/* Ends every fault: starts, resumes, heals, quiets the noise. */
void faults_heal(struct cluster *c);

#endif
