/* SPDX-License-Identifier: Apache-2.0
 *
 * The story of a seed: three hosts start, clients run while the scenario's events strike (safety),
 * then all faults end and progress is demanded: every replica in-sync again, all equal, everything
 * acknowledged readable, the history linearizable, every block back once all is deleted. */
#ifndef ZBS_TESTS_SIM_SEED_H
#define ZBS_TESTS_SIM_SEED_H

#include "tests/sim/faults.h"
#include "tests/sim/files.h"
#include "tests/sim/workload.h"

struct seed_result {
    char failure[700]; /* the first violation; "" for none */
    uint64_t hash, ops, searched, undecided;
    struct fault_stats faults;
    struct workload_stats work;
    struct files_stats files;
    nsec_t virtual_time;
};

/* trace: its text goes to standard output. watch: see struct cluster. */
struct seed_result seed_run(const struct scenario *s, bool trace, uint64_t watch);

#endif
