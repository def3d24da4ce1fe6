/* SPDX-License-Identifier: Apache-2.0
 *
 * A job of holding volumes; private to hold.c and hold_call.c. */
#ifndef ZBS_META_HOLD_JOB_H
#define ZBS_META_HOLD_JOB_H

#include "meta/decide.h"
#include "meta/lead.h"

#define OPENS_MAX 256u /* looked for at a time */

struct holder {
    uint64_t session_id;
    bool holds;
};

struct job {
    struct list link;
    struct lead *l;
    struct pad pad; /* the request, and the volumes of the present try */
    uint64_t client, number;
    const ProtobufCMessage *rq;
    decide_fn decide;
    uint64_t volumes[SNAPSHOT_GROUP_MAX];
    uint32_t n_volumes;
    uint64_t opens[OPENS_MAX];
    uint32_t n_opens;
    uint64_t attempt;        /* 0: nobody is held */
    uint64_t granted_before; /* every lease of them, as of the attempt's beginning */
    struct holder holders[SESSIONS_MAX];
    uint32_t n_holders;
    nsec_t ended; /* 0: still working */
    int rc;       /* its outcome; ERR_* also during an attempt: it failed */
    char text[256];
};

struct holder *job_holder(struct job *j, uint64_t session_id); /* NULL: it has no lease of them */
int job_main(void *arg);
void job_free(struct lead *l, struct job *j);

#endif
