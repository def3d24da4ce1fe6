/* SPDX-License-Identifier: Apache-2.0
 *
 * Holding volumes while a snapshot or a rollback of them is logged (PROTOCOL 7.1), known to the
 * leader only. A request starts a job, which goes on if the requester's call ends, and whose
 * outcome a repeated request finds: the record's answer in the state, or the job's error. A job
 * tries a few times:
 *   1. extents that nobody owns and that are unclean or not created are opened by tasks;
 *   2. from then on no lease of the volumes is granted; every session that has one is told in the
 *      answer to its Hold call, makes all its extents clean, and calls again;
 *   3. when all have, the record is decided and logged; or a session ends, says that it can't, or
 *      takes too long, and the attempt is over. The sessions' second calls are answered.
 * A leader that comes later knows no attempts: all are over, and what is in the log is done. */
#ifndef ZBS_META_HOLD_H
#define ZBS_META_HOLD_H

#include "meta/pad.h"
#include "meta/view.h"
#include "common/base/list.h"
#include "common/rpc/rpc.h"

struct lead;

struct holds {
    struct list jobs;  /* oldest first; ended ones for a while */
    uint32_t attempts; /* of this term */
    uint32_t n_jobs;
};

void hold_init(struct lead *l);
void hold_fini(struct lead *l); /* no job's coroutine may be running any more */
/* Volumes that get no grants now, in the pad. */
const uint64_t *hold_volumes(const struct lead *l, struct pad *pad, uint32_t *ret_n);
/* Extents that are to be opened for a job; the next index after *ret, 0: there are no more. */
uint32_t hold_to_open(const struct lead *l, uint32_t from, uint64_t *ret);

/* ---- the methods ---- */
int hold_wait(struct rpc_request *q);    /* Hold */
int hold_request(struct rpc_request *q); /* VolumeSnapshot, VolumeRollback */

/* A packed message becomes the request's reply (svc.c). */
void svc_give(struct rpc_request *q, const struct packed *reply);

#endif
