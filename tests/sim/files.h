/* SPDX-License-Identifier: Apache-2.0
 *
 * A share in the simulated cluster, and clients of it. A client is not part of any server: it has
 * one request after the other and repeats each until it is answered, through whichever access
 * server is there, as one that mounted the share for good does. So what it did is known exactly:
 * the names in its own directory, and the sizes of the files that only it uses. What files contain
 * is recorded in the history, where cells of 128 bytes take the place of sectors, so that hardly
 * anything is aligned. */
#ifndef ZBS_TESTS_SIM_FILES_H
#define ZBS_TESTS_SIM_FILES_H

#include "tests/sim/cluster.h"

struct files_stats {
    uint64_t names, reads, writes, truncations, snapshots;
    uint64_t repeats; /* of requests */
};

void files_start(struct cluster *c);
void files_free(struct cluster *c);
const struct files_stats *files_stats(const struct cluster *c);

/* In an access server (accessd_conf.files_ready): its clients' way in begins, and ends. */
void files_ready(void *arg, struct nfs_files *files, struct meta_client *meta);
co_fn void files_stopping(struct node *n);

/* No new request begins. */
void files_stop(struct cluster *c);
uint32_t files_active(const struct cluster *c); /* requests that are not answered yet */
/* When none is: reads everything, compares all names and sizes, and removes all, through the access
 * server of `node`, which must run; files_done becomes true then. */
void files_final(struct cluster *c, uint32_t node);
bool files_done(const struct cluster *c);

#endif
