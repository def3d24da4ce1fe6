/* SPDX-License-Identifier: Apache-2.0
 *
 * Recovery as the leader drives it, a step each tick: replacements of replicas that are gone, moves
 * off servers that are to be removed or fuller than others; and how far all of that is. What it
 * knows beside the state is not logged: a new leader begins anew, the state says where. */
#ifndef ZBS_META_RECOVERY_H
#define ZBS_META_RECOVERY_H

#include "meta/decide.h"

struct lead;

struct recovery {
    uint64_t cursor; /* in the map of extents */
    bool balancing;
    bool gathering;       /* in this round over all extents there was one to follow its elder */
    bool gathered;        /* in the last one there was none, and no elder has been moved since */
    uint64_t copied;      /* bytes, by all sessions, since there was something to do */
    uint64_t copied_then; /* at the last look */
    nsec_t looked;        /* when */
    uint64_t rate;        /* bytes a second, of late */
    uint64_t replaced, moved; /* replicas, in this term */
};

void recovery_tick(struct lead *l, nsec_t now);
/* A session tells how many bytes it has copied since its start. */
void recovery_copied(struct lead *l, uint64_t bytes);
/* What is still to be copied: told by those who copy, estimated for what nobody has begun. */
uint64_t recovery_left(struct lead *l);
int status_recovery(struct lead *l, const struct decide *d, ProtobufCMessage *reply);

#endif
