/* SPDX-License-Identifier: Apache-2.0
 *
 * What an operator does to a simulated cluster, through the same requests as zbs-cli. All from a
 * control coroutine; a few seconds at most for each, then ERR_TIMEOUT. */
#ifndef ZBS_TESTS_SIM_OPERATOR_H
#define ZBS_TESTS_SIM_OPERATOR_H

#include "tests/sim/cluster.h"

/* The pool and the volume that clients use. */
co_fn int operator_create(struct cluster *c, uint32_t replicas, uint64_t size_bytes);
co_fn int operator_setting(struct cluster *c, const char *name, uint64_t value);
co_fn int operator_resize(struct cluster *c);
/* So many replicas of that volume, and an I/O limit (0: none). */
co_fn int operator_policy(struct cluster *c, uint32_t replicas, uint64_t iops);
co_fn int operator_extra_create(struct cluster *c);
co_fn int operator_extra_delete(struct cluster *c);
/* A snapshot of the main volume, or of it and another at one moment. */
co_fn int operator_snapshot(struct cluster *c, bool group);
/* A volume from some snapshot. */
co_fn int operator_clone(struct cluster *c);
/* Some other volume becomes what a snapshot of it holds; nobody uses it meanwhile. */
co_fn int operator_rollback(struct cluster *c);
/* Some volume, a clone if there is one, is to have blocks of its own. */
co_fn int operator_flatten(struct cluster *c);
/* Begins or cancels the drain of a disk of the node's; copies: also of what shares blocks. */
co_fn int operator_drain(struct node *n, const char *path, bool begin, bool copies);
co_fn int operator_disk_add(struct node *n, const char *path);
/* force: what it holds is given up; for one that has failed. */
co_fn int operator_disk_remove(struct node *n, const char *path, bool force);

struct cluster_counts {
    uint32_t degraded, chunks_alive;
    uint64_t used_bytes;
};
co_fn int operator_status(struct cluster *c, struct cluster_counts *ret);

/* All volumes but the main one. */
co_fn void operator_delete_extras(struct cluster *c, nsec_t limit);
/* At rest: deletes every volume and demands that every block comes back (invariant 9): by
 * itself, or where a disk may have lost a confirmed deletion, by what meta collects. */
co_fn void operator_delete_all(struct cluster *c, nsec_t limit);

#endif
