/* SPDX-License-Identifier: Apache-2.0
 *
 * Deliberately broken rules, for the proof that the simulator would find such a bug. mutate() is
 * the constant false unless the build defines ZBS_MUTATE; then it answers for the one mutation
 * that a test has set for the process. */
#ifndef ZBS_BASE_MUTATE_H
#define ZBS_BASE_MUTATE_H

#include <stdbool.h>

enum mutation {
    MUT_NONE,
    MUT_LEASE_NEVER_EXPIRES, /* 1.4: local reads however late the renewal is */
    MUT_NO_EPOCH_CHECK,      /* 2.2: a replica takes writes and reads of lower epochs */
    MUT_NO_EQUALISE,         /* 2.4: a new owner serves without making pages equal */
    MUT_ACK_EARLY,           /* 3.3: a write is acknowledged by the first member's confirmation */
    MUT_SKIP_MISSING_START,  /* 5.2: a member is removed without noting what it lacks */
    MUT_CLEAR_WITHOUT_COPY,  /* 5.4: the missing set is cleared, nothing is copied */
    MUT_NO_TERM_CHECK,       /* 6.2: a deposed leader writes its heartbeat and appends to the log */
    MUT_NO_TAIL_CHECK,       /* 2.5: a replica that lost its journal's tail is taken for whole */
    MUT_NO_OPEN_MISSING,     /* 2.4: what is above the commit point is not missing at the absent */
    MUT_NO_RANGE_LOCK,       /* 3.1: writes that touch the same page are in flight together */
    MUT_ANY_SET_NUMBER,      /* 5.3: meta takes a change that starts from another set */
    MUT_LEAD_AT_ONCE,        /* 6.3: a new leader does not wait for the former's authority to end */
    MUT_EXPIRE_EARLY,        /* 1.4: meta ends a session before its lease has run out */
    MUT_JOURNAL_VOLATILE,    /* 9.1: a record is acknowledged before it is durable */
    MUT_NO_CHECKSUM,         /* what is read is returned, whatever its checksum */
    MUT_READ_UNVOUCHED,      /* 2.5: what is shared is read at once after a restart */
    MUT_WRITE_SHARED,        /* 1.3: an owner writes on in place after a snapshot */
    MUT_HOLD_NO_DRAIN,       /* 7.1: volumes are told to be held while writes are in flight */
    MUT_NO_DRIFT_MARGIN,     /* 1.4, 6.3: clocks are taken to run alike */
    MUT_NO_AUTHORITY,        /* 6.3: a leader answers however old its last successful write is */
    MUT_COUNT
};

#ifdef ZBS_MUTATE
extern enum mutation mutation_active;
static inline bool mutate(enum mutation m)
{
    return mutation_active == m;
}
#else
static inline bool mutate(enum mutation m)
{
    (void)m;
    return false;
}
#endif

/* "ack_early" and so on; MUT_NONE for an unknown name. Always there, so that a tool can list. */
const char *mutation_name(enum mutation m);
enum mutation mutation_by_name(const char *name);

#endif
