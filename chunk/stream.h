/* SPDX-License-Identifier: Apache-2.0
 *
 * Recognises sequential streams among the requests of an extent. Pure logic: nothing is waited
 * for and nobody is asked. Several streams may be interleaved, and each may come slightly out of
 * order, as a client with several requests in flight sends it. */
#ifndef ZBS_CHUNK_STREAM_H
#define ZBS_CHUNK_STREAM_H

#include <stdint.h>
#include "common/base/attr.h"
#include "common/base/units.h"

#define STREAMS_MAX      8u                 /* that are followed at a time */
#define STREAM_EARLY_MAX 8u                 /* requests ahead of one that is still missing */
#define STREAM_HITS      2u                 /* times that a request has to follow another */
#define STREAM_IDLE      (2 * NSEC_PER_SEC) /* afterwards it is over */

struct stream {
    nsec_t last;    /* its latest request; 0: unused */
    uint32_t next;  /* everything before this page has come */
    uint32_t hits;  /* how often `next` moved */
    uint32_t early; /* requests that came ahead, by no order: */
    struct stream_early {
        uint32_t first, end;
    } ahead[STREAM_EARLY_MAX];
};
struct stream_set {
    struct stream s[STREAMS_MAX];
};

/* Takes note of a request at time `now` (above 0, not falling). Returns the number of the
 * sequential stream that it belongs to, -1 if it is random as far as one can tell. A number is
 * given to another stream when its own is idle, or broken by a jump. */
int stream_note(struct stream_set *set, uint32_t off, uint32_t len, nsec_t now);

#endif
