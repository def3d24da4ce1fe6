/* SPDX-License-Identifier: Apache-2.0
 *
 * Opening a granted extent (open.c, equalise.c, missing.c, rescue.c; PROTOCOL 2, 5.1): what its
 * steps share. All on the engine's loop. */
#ifndef ZBS_ACCESS_VOL_OPEN_H
#define ZBS_ACCESS_VOL_OPEN_H

#include "access/vol/vol_int.h"

/* Opens the granted extent and the replicas that are to return: the tenure serves afterwards. */
co_fn int tenure_open(struct slot *s, struct tenure **ret) MUST_CHECK;
/* Creates a replica: empty, or as a copy of its origin there. */
co_fn int replica_create(struct tenure *t, uint32_t i, uint64_t origin,
                         uint64_t origin_epoch) MUST_CHECK;
/* What members said about absent replicas at this open. */
struct absent_info {
    uint32_t replica;
    bool known, everything;
    uint32_t pages;
    struct ver last;
};
struct open_state {
    struct tenure *t;
    struct ver reported_cp[MEMBERS_MAX];
    bool reported[MEMBERS_MAX];
    /* [member][k]: what it holds of other replicas */
    struct absent_info info[MEMBERS_MAX][MEMBERS_MAX * 2];
    uint32_t n_info[MEMBERS_MAX];
    struct confirmed *unc[MEMBERS_MAX]; /* above the member's own commit point */
    uint32_t n_unc[MEMBERS_MAX];
    bool created;       /* meta knows that every member has it */
    uint32_t members;   /* at the grant */
    uint32_t join;      /* absent ones that return and are open */
    uint32_t want_join; /* and those that should */
    uint32_t gone;      /* members that can't stay: unknown there, void, behind, failed disk */
    uint32_t full;      /* those of them whose disk has no room for a new extent */
    uint32_t busy;      /* can't make a child yet */
    uint32_t late;      /* joining: to be made as copies of relatives */
    bool refused;       /* meta does not let them go: too few would be left */
    nsec_t since;
    bool lacks[MEMBERS_MAX]; /* a joining replica that misses everything */
};
struct ver open_commit_point(const struct open_state *o); /* highest of the set's members */
void open_compute_uncommitted(struct open_state *o);
void uncommitted_free(struct uncommitted *u);
co_fn int open_equalise(struct open_state *o) MUST_CHECK;
/* Makes the missing sets of all absent replicas equal at all members, and widens them. */
co_fn int open_missing_sets(struct open_state *o) MUST_CHECK;
/* All of one replica's missing set as a member keeps it. */
co_fn int mset_fetch(struct tenure *t, uint32_t i, uint32_t replica, struct rangeset *ret,
                     struct ver *ret_last, bool *ret_known) MUST_CHECK;
/* Starts or widens a missing set at members. */
co_fn int mset_start(struct tenure *t, uint32_t at, uint32_t replica, struct ver last,
                     const struct rangeset *pages, bool everything) MUST_CHECK;
co_fn int mset_drop(struct tenure *t, uint32_t at, uint32_t replica) MUST_CHECK;

/* Can lost members, which can't be removed, be replaced? By those that it names in want_join. */
bool rescue_due(struct open_state *o);
/* Would they be replaced, if it were opened now? */
bool rescue_possible(const struct tenure *t, uint32_t lost);
/* With those that have been opened to return. Never 0. ERR_STALE: the set is another now, or the
 * attempt has failed; ERR_AGAIN: meta allows no step of it. */
co_fn int open_rescue(struct open_state *o) MUST_CHECK;

#endif
