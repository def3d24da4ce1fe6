/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside the clients: what the load (workload.c) and the filling of disks (fill.c) share. */
#ifndef ZBS_TESTS_SIM_WORKLOAD_INT_H
#define ZBS_TESTS_SIM_WORKLOAD_INT_H

#include "tests/sim/workload.h"

#define CLIENTS_MAX     8
#define PRIVATE_SECTORS 64
#define COUNTERS        2
#define STRIPE_BYTES    (256ull << 10)
#define FILL_BLOCKS     640 /* more than a small disk has */

/* What one client knows of its own place: for each sector the values it may hold. */
struct private_sector {
    uint64_t value, other; /* other: of an operation whose outcome is unknown */
    bool ambiguous;
};

struct client {
    struct workload *w;
    uint32_t node, number;
    bool active, started;
    bool patient;   /* its operations have no deadline */
    uint32_t extra; /* number of the other volume that it uses; 0: none */
    uint64_t pair;  /* the next to be written; odd: its first half is */
    uint64_t moved; /* leases that its server gave away by then */
    struct co_group group;
    struct private_sector sectors[PRIVATE_SECTORS];
};

struct workload {
    struct cluster *c;
    uint32_t per_node;
    bool running, final_done, final_fills;
    bool filling;             /* clients fill the disks; else they empty them again */
    bool filled[FILL_BLOCKS]; /* may have data of theirs */
    struct client clients[HOSTS * CLIENTS_MAX];
    struct client final[HOSTS]; /* one per access server: reads everything at the end */
    uint32_t final_node;
    uint64_t counted[COUNTERS], counted_unknown[COUNTERS]; /* increments: certain, possible */
    struct workload_stats stats;
};

/* Sectors of one of the volumes. `first` counts within the volume; `key` is its name in the
 * history. */
struct range {
    struct vol *v;
    uint64_t first, key;
    uint32_t count;
    uint32_t base; /* snapshot that it began with; 0: none */
};

/* Some operations have a deadline; returns what client_end needs. */
nsec_t client_begin(struct client *cl);
void client_end(struct client *cl, nsec_t former);
uint64_t client_draw(struct client *cl, uint64_t n); /* below n */
co_fn int client_write(struct client *cl, const struct range *r);
/* What is known of a change after its end. */
void client_changed(struct client *cl, uint64_t op, const struct range *r, int rc);

/* ---- fill.c: in a place of its own of the main volume ---- */

/* Is there something to be filled, or emptied again? */
bool fill_wanted(const struct client *cl);
co_fn void fill_operation(struct client *cl, struct vol *v);
/* While nothing is wrong: fills the disks to the end, then demands the proper answers, and that all
 * goes on once there is space. */
co_fn void fill_check(struct client *cl, struct vol *v);

#endif
