/* SPDX-License-Identifier: Apache-2.0
 *
 * What goes wrong in a seed. Each seed draws which kinds of faults it has at all (so that some
 * seeds concentrate on few), then one fault after another until the time is over. */
#ifndef ZBS_TESTS_SIM_FAULTS_H
#define ZBS_TESTS_SIM_FAULTS_H

#include "tests/sim/cluster.h"

enum fault {
    FAULT_CRASH,        /* kill -9 of one process, restarted later */
    FAULT_POWER,        /* a host loses power: all its processes, unsynced writes too */
    FAULT_POWER_ALL,    /* all hosts at once */
    FAULT_PAUSE,        /* SIGSTOP of one process, of several on one host */
    FAULT_PARTITION,    /* a host cut off, both ways or one way, from one or all others */
    FAULT_COORD_EXPIRE, /* a coordination session expires */
    FAULT_COORD_CUT,    /* a meta server cannot reach the coordination service */
    FAULT_COORD_DOWN,   /* nobody can */
    FAULT_SLOW_DISK,
    FAULT_DEPOSE,  /* the meta leader is paused about as long as a take-over lasts */
    FAULT_ISOLATE, /* a host is cut off from all others, then loses power */
    FAULTS
};

struct fault_stats {
    uint32_t count[FAULTS];
};

const char *fault_name(enum fault f);

/* Draws this seed's kinds and noise (delays, lost replies) into conf before the world is made. */
uint32_t faults_choose(uint64_t seed, struct sim_conf *conf);

/* Runs the schedule for `span` of virtual time, from a control coroutine. */
co_fn void faults_run(struct cluster *c, uint32_t kinds, nsec_t span, struct fault_stats *stats);

/* Ends every fault: starts, resumes, heals, quiets the noise. */
void faults_heal(struct cluster *c);

#endif
