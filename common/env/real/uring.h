/* SPDX-License-Identifier: Apache-2.0
 *
 * A loop's io_uring: what leaves for the kernel in one call, and where the loop sleeps. Everything
 * on the loop's thread. */
#ifndef ZBS_ENV_REAL_URING_H
#define ZBS_ENV_REAL_URING_H

#include <liburing.h>
#include "common/env/real/real.h"

/* What one submission entry was for; stays until its last completion. */
struct ring_op {
    /* more: this was not the last one. */
    void (*done)(struct ring_op *op, int res, bool more);
};

struct real_ring {
    struct io_uring uring;
    struct real_loop *loop;
    /* libev's descriptor: one look at a time */
    int ev_fd;
    bool ev_armed;
    struct ring_op ev_op;
    struct list edges; /* edge_poll of edge.c */
    /* disk requests, of disk_uring.c */
    uint32_t depth, in_flight; /* at most so many are in the kernel */
    uint32_t gathered;         /* since the last submission */
    uint32_t completed;        /* while completions are delivered: of this batch */
    struct list queue;         /* of disk_req, by its private link */
    struct real_prewait prewait;
};

/* An entry to be filled by liburing's io_uring_prep functions and then named; it leaves when the
 * loop sleeps or looks next. May deliver completions, if the ring was full. */
struct io_uring_sqe *real_ring_sqe(struct real_ring *ring);
/* op: NULL if nobody wants to know how it ended. */
void real_ring_name(struct real_ring *ring, struct io_uring_sqe *sqe, struct ring_op *op);
/* Sends what was filled, and delivers what is there: both without waiting. */
void real_ring_submit(struct real_ring *ring);

/* The same if there is anything of either. */
void real_ring_look(struct real_ring *ring);
/* Has libev's descriptor watched: to be called, and what it may deliver to be looked at, before: */
void real_ring_arm(struct real_ring *ring);
/* Sends what was filled, and waits until there is something to deliver. */
void real_ring_sleep(struct real_ring *ring);

void real_edges_free(struct real_ring *ring); /* those that are still watched, or being forgotten */

/* ---- disk requests (disk_uring.c) ---- */

void real_disk_init(struct real_ring *ring);

#endif
