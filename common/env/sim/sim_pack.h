/* SPDX-License-Identifier: Apache-2.0
 *
 * Pages in little memory, for simulated disks that hold far more than the machine's memory:
 * repeated words are stored once (the contents stay exact), and aligned runs of 64 KiB that
 * repeat one word take 12 bytes in a table of their own. */
#ifndef ZBS_ENV_SIM_PACK_H
#define ZBS_ENV_SIM_PACK_H

#include "common/env/sim/sim_internal.h"

struct sim_packed; /* sim_ memory */
struct sim_packed *sim_pack(const void *page);
void sim_unpack(const struct sim_packed *p, void *page);

#define SIM_RUN_PAGES 16u
#define SIM_RUN_BYTES (SIM_RUN_PAGES * SIM_PAGE)

struct sim_runs {
    uint64_t *keys; /* run number + 1; 0: free */
    uint32_t *words;
    size_t size, count;
};
void sim_runs_fini(struct sim_runs *r);
/* Is it one word, over and over? */
bool sim_run_is(const void *src);
void sim_runs_put(struct sim_runs *r, uint64_t run, uint32_t word);
bool sim_runs_get(const struct sim_runs *r, uint64_t run, uint32_t *ret);

#endif
