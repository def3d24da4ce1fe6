/* SPDX-License-Identifier: Apache-2.0
 *
 * Clients of the simulated cluster. They run inside each access server's process, as a protocol
 * front end would, and die with it; what they did is recorded in the world's memory. Most I/O goes
 * to a few hot places, with sizes and offsets that cross pages, blocks and stripes. */
#ifndef ZBS_TESTS_SIM_WORKLOAD_H
#define ZBS_TESTS_SIM_WORKLOAD_H

#include "tests/sim/cluster.h"

struct workload_stats {
    uint64_t reads, writes, zeroes, compares, unknown, failed_reads;
    uint64_t no_space; /* changes refused for want of it */
    uint64_t moves;    /* of leases to the server that does most of the I/O */
};

/* clients per access server; they start when the servers' engines run. */
void workload_start(struct cluster *c, uint32_t clients);
/* No new operation begins; those under way end when they can. */
void workload_stop(struct cluster *c);
uint32_t workload_active(const struct cluster *c); /* clients still in an operation */
void workload_free(struct cluster *c);
const struct workload_stats *workload_stats(const struct cluster *c);

/* Is some client in an operation on the other volume at n? */
bool workload_uses(const struct cluster *c, uint32_t n);
/* Does a page hold what clients wrote? */
bool workload_is_data(const uint8_t *page, size_t len);

/* Clients fill the disks, until off; then they discard that. */
void workload_fill(struct cluster *c, bool on);
/* Is some of it there still? */
bool workload_filled(const struct cluster *c);

/* After the load: has the access server of `node` (which must run) read every place once more, into
 * the history, and check private places and counters; done becomes true then. */
void workload_final_read(struct cluster *c, uint32_t node);
/* Or has it fill the disks to the end, and empties them (fill.c). */
void workload_final_fill(struct cluster *c, uint32_t node);
bool workload_final_done(const struct cluster *c);

#endif
