/* SPDX-License-Identifier: Apache-2.0
 *
 * Where the replicas of a new extent go: the first on the preferred host, the others in distinct
 * failure domains, weighted by free space. A pure function of its arguments. */
#ifndef ZBS_META_PLACE_H
#define ZBS_META_PLACE_H

#include <stdbool.h>
#include "common/base/attr.h"

/* A chunk server as placement sees it. */
struct place_chunk {
    uint32_t id;
    const char *host, *rack, *zone;
    uint64_t free_bytes; /* of healthy disks, less what was promised since it last told */
    bool alive;          /* was heard from lately, or may still be */
    bool heard;          /* has told this leader how much space it has */
    bool leaving;        /* in maintenance, or to be removed: nothing new is placed there */
    bool gone;           /* its replicas are to be made elsewhere */
    bool removing;       /* for good */
    bool full;           /* none of its disks has room to speak of */
    bool crowded;        /* and that for so long that what is absent there is made elsewhere */
    bool avoid;          /* for the decision at hand */
    bool kin;            /* likewise: rather there than anywhere else as far */
    uint64_t size_bytes; /* of healthy disks */
};

struct place_want {
    uint32_t replicas;
    const char *failure_domain; /* "host", "rack", "zone" */
    const char *preferred_host; /* "": none */
    uint64_t seed;
    uint64_t room; /* bytes that had better be free there; 0: any will do */
};

/* Fills ret_ids with at most want->replicas chunk ids, the preferred host's first, and returns how
 * many. Only servers that are alive, heard and have space. If the topology has fewer domains than
 * replicas, distinct hosts do, and at last distinct servers; then full ones, while anything is free
 * there. */
uint32_t place_choose(const struct place_chunk *chunks, uint32_t n, const struct place_want *want,
                      uint32_t *ret_ids);

/* Fills ret_ids with at most `more` ids of servers that are not among `taken`, dead ones too
 * unless live_only (which also asks for space, and takes no full ones): they are owed a replica. In
 * distinct domains where possible. */
uint32_t place_owed(const struct place_chunk *chunks, uint32_t n, const struct place_want *want,
                    const uint32_t *taken, uint32_t n_taken, uint32_t more, bool live_only,
                    uint32_t *ret_ids);

#endif
