/* SPDX-License-Identifier: Apache-2.0
 *
 * What a process is in the middle of, for the simulator: it tells which faults ever struck in which
 * phase of the protocols, so that one that is never hit is seen. In builds without mutations
 * (base/mutate.h) nothing is counted and nothing is left of it. */
#ifndef ZBS_ENV_PHASE_H
#define ZBS_ENV_PHASE_H

#include "common/base/attr.h"

#define PHASE_LIST(X)                                                                              \
    X(OPENING, "opening")             /* access: an extent under a new epoch */                    \
    X(EQUALISING, "equalising")       /* access: pages that differ after an open */                \
    X(GROWING, "growing")             /* access: a replica is created */                           \
    X(REMOVING, "removing")           /* access: members leave the set */                          \
    X(JOINING, "joining")             /* access: a replica comes back */                           \
    X(REPAIRING, "repairing")         /* access: a page is written anew */                         \
    X(DRAINING, "draining")           /* access: I/O ends, to release or for a new epoch */        \
    X(FORWARDING, "forwarding")       /* access: a request is at another owner */                  \
    X(HOLDING, "holding")             /* access: volumes are held for a snapshot */                \
    X(TAKING_OVER, "taking-over")     /* meta: has the term, does not answer yet */                \
    X(LEADING, "leading")             /* meta */                                                   \
    X(RESOLVING, "resolving")         /* meta: the leader does not know what it has written */     \
    X(LOADING, "loading")             /* meta: the whole state comes from another server */        \
    X(REPLAYING, "replaying")         /* chunk: reads its journals at a start */                   \
    X(DISK_DRAINING, "disk-draining") /* chunk: a disk is emptied */

enum phase {
#define X(name, text) PHASE_##name,
    PHASE_LIST(X)
#undef X
        PHASES
};

const char *phase_name(enum phase p);

/* In a coroutine of the process. A phase may be entered several times at once. */
#ifdef ZBS_MUTATE
void phase_enter(enum phase p);
void phase_leave(enum phase p);
#else
static inline void phase_enter(enum phase p)
{
    (void)p;
}
static inline void phase_leave(enum phase p)
{
    (void)p;
}
#endif

#endif
