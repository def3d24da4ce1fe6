/* SPDX-License-Identifier: Apache-2.0
 *
 * What the leader knows of the world and never logs: who was heard from when, incarnations,
 * disks and space, lost replicas. A new leader begins with nothing and takes everybody for alive
 * until a time-to-live has passed. */
#ifndef ZBS_META_LIVE_H
#define ZBS_META_LIVE_H

#include "meta/decide.h"
#include "meta/pad.h"
#include "meta/shares.h"
#include "meta/state.h"
#include "proto/chunk.pb-c.h"
#include "proto/meta.pb-c.h"

struct metad;

struct disk_live {
    uint8_t uuid[16];
    char path[128], model[64], error[256], journal_on[128];
    uint64_t size_bytes, used_bytes, reserved_bytes, extents;
    uint32_t state, drain;
};

#define CORRUPT_MAX 64u

struct chunk_live {
    uint32_t id;
    nsec_t seen;
    bool heard; /* by this leader */
    bool alive; /* as the views say */
    uint64_t incarnation;
    struct disk_live disks[DISKS_MAX];
    uint32_t n_disks;
    uint64_t size_bytes, free_bytes; /* of healthy disks */
    uint64_t promised_bytes;         /* to extents placed since it last told */
    struct idmap lost;               /* extents whose replica there is gone */
    struct idmap away;               /* some with a member there, while it is gone itself */
    nsec_t unfit;                    /* since when it has no healthy disk; 0: it has */
    nsec_t full;                     /* since when none of those has room; 0: one has */
    struct corrupt_live {            /* pages that it can't read, as last told */
        uint64_t extent_id;
        uint32_t page;
    } corrupt[CORRUPT_MAX];
    uint32_t n_corrupt;
    nsec_t repair_ns; /* when they were last given out as tasks */
};

struct session_live {
    uint64_t id;
    nsec_t seen;
    bool told;          /* has renewed with this leader */
    bool leaving;       /* it stops soon */
    uint64_t copied;    /* bytes to replicas that return, as last told */
    uint64_t copy_left; /* to those under way */
    uint32_t copy_extents;
    nsec_t given_at; /* when returns were last given out as tasks, and how many */
    uint32_t given;
    uint64_t reservations_seen; /* up to which it obeys them */
};

#define CHANGES_SHOWN  (2 * NSEC_PER_SEC) /* a change is repeated: an answer may be lost */
#define VOLUME_CHANGES 4096u
struct volume_change {
    uint64_t volume_id;
    nsec_t at;
};

struct live {
    struct metad *m;
    struct sorted chunks, sessions; /* by id */
    nsec_t start;                   /* of the time-to-live of those not heard */
    uint64_t view_version;          /* term << 32 | count */
    struct volume_change *changes;  /* a ring of VOLUME_CHANGES */
    uint64_t n_changes;
    uint64_t volumes_version; /* term << 32 | count: changes when more did than the ring tells */
    struct shares shares;
};

void live_init(struct live *l, struct metad *m, uint64_t term);
void live_fini(struct live *l);
/* Every time-to-live starts anew. */
void live_restart(struct live *l, nsec_t now);
/* For a span in which nobody could be heard or answered: nobody aged in it. */
void live_extend(struct live *l, nsec_t span);
void live_view_changed(struct live *l);

/* Entries are made on demand. */
struct chunk_live *live_chunk(struct live *l, uint32_t id);
void live_chunk_drop(struct live *l, uint32_t id);
/* For how long it has been silent or without a healthy disk; 0: it can hold replicas. */
nsec_t live_chunk_away(const struct chunk_live *c, nsec_t now);
struct session_live *live_session(struct live *l, uint64_t id);
void live_session_drop(struct live *l, uint64_t id);

/* A registration (incarnation new or not) or heartbeat was received. */
void live_chunk_heard(struct live *l, struct chunk_live *c, uint64_t incarnation,
                      Zbs__Chunk__Disk *const *disks, size_t n_disks);
void live_chunk_lost(struct live *l, struct chunk_live *c, const uint64_t *extents, size_t n);
void live_chunk_corrupt(struct chunk_live *c, Zbs__Chunk__CorruptPage *const *pages, size_t n);
/* Brings `alive` of all up to date; what has changed shows in the views. */
void live_chunks_check(struct live *l, nsec_t now);
void live_volume_changed(struct live *l, uint64_t volume_id);
void live_pool_changed(struct live *l, const struct pool *pool); /* all its volumes */

/* What decisions may use. with_random: fresh random values; with_chunks: also the chunk servers
 * (copied into the pad). */
void live_world(struct live *l, struct pad *pad, bool with_random, bool with_chunks,
                struct world *ret);
/* Space that a grant has promised weighs until the server tells its real use. */
void live_promise(struct live *l, const Zbs__Metalog__LeaseGrant *g);

void live_view_chunk(struct live *l, const struct chunk *c, Zbs__Meta__ChunkView *m);
Zbs__Chunk__Disk **live_view_disks(const struct chunk_live *c, struct pad *pad);

/* ---- tasks.c ---- */
void tasks_fill(struct live *l, const struct session *s, struct pad *pad,
                Zbs__Meta__SessionRenewReply *m);

#endif
