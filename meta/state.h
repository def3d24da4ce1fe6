/* SPDX-License-Identifier: Apache-2.0
 *
 * All metadata in memory: a function of the log (invariant 7). Only meta/apply.c changes it, and
 * meta/codec.c when it loads it; everybody else reads. Nothing here suspends. Pointers into it
 * do not survive a suspension: the state is discarded when a term ends. */
#ifndef ZBS_META_STATE_H
#define ZBS_META_STATE_H

#include <stdbool.h>
#include "common/base/list.h"
#include "common/cluster/layout.h"
#include "meta/idmap.h"
#include "meta/limits.h"
#include "meta/sorted.h"
#include "meta/tree.h"
#include "proto/meta.pb-c.h"

struct pool {
    uint32_t id;
    char *name;
    uint32_t replicas, min_replicas;
    char *failure_domain;     /* "host", "rack", "zone" */
    struct sorted volumes;    /* by name; without removed ones */
    uint64_t bytes;           /* sum of their sizes, without snapshots */
    Zbs__Meta__Limits limits; /* as they are shown */
};

struct session {
    uint64_t id; /* ascending, never reused */
    char *name;
    uint64_t incarnation;
    char *addr, *host, *rack, *zone, *iscsi_portal;
    struct list owned; /* slots */
};

struct garbage {
    uint64_t epoch, family;
};

struct chunk {
    uint32_t id; /* from 1, never reused */
    uint8_t uuid[16];
    char *addr, *addr_unix, *host, *rack, *zone;
    uint32_t workers;
    uint32_t replicas;       /* of live volumes, members and absent ones */
    struct idmap garbage;    /* extent id -> struct garbage: to be deleted there */
    bool maintenance;        /* away on purpose: no recovery for it, no new replicas on it */
    uint64_t marked_at;      /* mutation that last set or unset one of these */
    bool removing;           /* its replicas are moved away, for good */
    uint64_t garbage_cursor; /* not replicated: where the next heartbeat's answer goes on */
};

struct extent;
/* An extent whose replicas are not just the wanted number of members. */
struct unsettled {
    struct list link;
    struct extent *extent;
    uint32_t danger;
    int64_t task_ns; /* not replicated: when a session was last asked to mend it */
};

/* How near to its loss an extent is: 0 has one in-sync replica, 1 two, and so on, if more are
 * wanted; the last has as many as are wanted, but others too, which return or are to go. */
#define DANGERS     (SLOT_REPLICAS_MAX + 1)
#define DANGER_NONE (DANGERS - 1)

/* An extent is at the same slot number in every volume that has it. */
struct extent {
    uint64_t id;
    uint64_t family;       /* id of the first of its origins; its own if it has none */
    struct extent *origin; /* until it is created: what it begins as a copy of */
    uint64_t epoch; /* of the last grant under which it may be written, or had a lease itself */
    uint64_t set_number;
    uint32_t slot;
    uint32_t pool_id;    /* of a volume that has it */
    uint32_t refs;       /* table pages that name it */
    struct list unborn;  /* extents that are to begin as its copy and are not created yet */
    struct list sibling; /* on its origin's list of them */
    struct list fresh;   /* on the list of those that are not created yet */
    struct list kin;     /* the ring of its family */
    uint64_t pages_sum;  /* of the addresses of those pages: of a single one, the address */
    uint8_t n_members, n_absent;
    uint8_t wanted, min_replicas;         /* the policy */
    bool created;                         /* every member once confirmed its creation */
    uint32_t replicas[SLOT_REPLICAS_MAX]; /* chunk ids: the members, then the absent ones */
    struct slot *lease;                   /* of its own, while it is shared; NULL: none */
    struct unsettled *unsettled;
    int64_t task_ns; /* not replicated: when a session was last asked to open it */
};

#define OWNER_GONE UINT64_MAX /* a session that has ended, whichever */

/* A lease: of a volume's slot, or of one shared extent. */
struct slot {
    struct volume *volume; /* NULL: of the extent */
    struct extent *extent; /* with volume NULL only; else volume_extent() */
    uint32_t number;
    bool used; /* was ever leased: it exists in the store */
    uint64_t epoch;
    uint64_t owner;    /* session; 0: none and clean; one that has ended: none, perhaps unclean */
    struct list owned; /* on its owner's list, or on the orphans' if that has ended */
};

#define SLOTS_PER_PAGE 64u
struct slot_page {
    struct slot slots[SLOTS_PER_PAGE];
};

/* 64 places of a volume's table, for all volumes that have the same there. */
struct table_page {
    uint64_t id;
    uint32_t index;       /* in the volumes' tables */
    uint32_t refs;        /* volumes that have it */
    uint64_t volumes_sum; /* of their ids: of a single one, its id */
    uint32_t n_extents;
    struct extent *extents[SLOTS_PER_PAGE]; /* NULL: a hole */
    uint64_t health_at; /* state.health for which the following are right; 0: none */
    uint8_t degraded, at_risk;
};

struct volume {
    uint64_t id;
    struct pool *pool; /* NULL once removed */
    uint32_t pool_id;
    char *name;
    uint64_t size_bytes;
    uint32_t replicas, min_replicas;
    struct layout layout;
    char *preferred_host;
    uint64_t created_ns;
    uint8_t uuid[16];
    uint64_t version; /* mutation number of the last change */
    bool removed;
    uint32_t sweep_next;
    uint32_t policy_left; /* pages of its table whose extents do not have its policy yet */
    Zbs__Meta__Limits limits;
    uint32_t luns;                /* that show it */
    bool snapshot;                /* never changes; its slots are never leased */
    uint64_t origin_id;           /* the volume that it is a snapshot or a clone of; 0: none */
    uint64_t shared_at, table_at; /* mutations: what was granted before is shared, or replaced */
    bool flattening;              /* its slots from flatten_next on get blocks of their own */
    uint32_t flatten_next;
    nsec_t flatten_task_ns; /* when that was last asked of a session; not in the store */
    Zbs__Meta__Provisioning provisioning; /* as it is shown */
    nsec_t pass_task_ns; /* when its next slot was last asked for; not in the store */
    uint64_t importing;  /* mutation: of the import's begin; 0: there is none */
    uint8_t content[16]; /* of a snapshot: its uuid where it was taken; what an import makes */
    uint64_t granted_at; /* mutation of the last grant */
    uint64_t inode_id;   /* of the file whose volume it is, or is to be; 0: none */
    uint64_t file_bytes; /* of a snapshot of such a volume: the file's size */
    uint32_t n_slots, n_pages;
    struct slot_page **pages;  /* leases; NULL: nothing used in it */
    struct table_page **table; /* extents; NULL: holes */
    uint32_t extents;
};

struct target_lun {
    uint32_t lun;
    uint64_t volume_id;
};
struct target {
    char *iqn;
    char *chap_user, *chap_secret;
    char **initiators;
    uint32_t n_initiators;
    struct target_lun *luns; /* by number */
    uint32_t n_luns;
};

/* The answer of a mutation, for a retry. */
struct result {
    struct list link; /* oldest first */
    uint64_t mutation;
    uint64_t client, number;
    uint8_t *reply;
    uint32_t reply_len;
    struct result *next; /* of the same hash */
};

struct state {
    char cluster_id[40]; /* "" before the first record */
    uint64_t next_mutation;
    uint64_t term; /* highest seen in the log */
    uint64_t exports_version;
    uint32_t next_pool_id, next_chunk_id;
    uint64_t next_page_id;
    struct sorted pools;    /* by name */
    struct sorted chunks;   /* by id */
    struct sorted sessions; /* by id */
    struct sorted targets;  /* by iqn */
    struct sorted settings; /* by name; settings.h */
    uint64_t settings_version;
    struct sorted reservations; /* by volume; reservations.h */
    uint64_t reservations_version;
    struct tree tree;       /* shares and what is in them */
    struct idmap volumes;   /* id -> volume, removed ones too */
    struct idmap extents;   /* id -> extent */
    struct idmap families;  /* family -> the first of its extents, if the origin of all is gone */
    uint64_t n_copies;      /* extents that began as another's copy */
    struct idmap pages;     /* id -> table page */
    struct sorted removed;  /* volumes to be swept, by id */
    struct sorted policies; /* volumes with policy_left, by id */
    struct sorted flattens; /* volumes that are flattened, by id */
    struct sorted passes;   /* volumes that are being made thick or thin, by id */
    struct list orphans;    /* slots whose owner has ended */
    struct list fresh;      /* extents that are not created yet */
    struct list unsettled[DANGERS];
    uint64_t n_unsettled[DANGERS];
    struct list results;
    struct idmap results_by_hash;
    uint32_t n_results, n_volumes;
    uint32_t n_file_volumes; /* removed ones, too */
    uint64_t n_extents, n_degraded, n_at_risk;
    uint64_t health; /* not replicated: changes with every extent that becomes or ceases degraded */
};

void state_init(struct state *st);
void state_fini(struct state *st); /* leaves it as after state_init, empty */

/* ---- finding; NULL: absent ---- */
struct pool *state_pool(const struct state *st, const char *name);
struct pool *state_pool_by_id(const struct state *st, uint32_t id);
struct volume *state_volume(const struct state *st, uint64_t id); /* removed ones too */
struct volume *pool_volume(const struct pool *pool, const char *name);
/* Index in pool->volumes of the first whose name comes behind this one. */
uint32_t pool_volumes_behind(const struct pool *pool, const char *name);
/* The volumes whose names are of its snapshots, in its pool's vector: its own, and those of a
 * former volume of its name. */
struct volume **volume_snapshots(const struct volume *v, uint32_t *ret_count);
struct chunk *state_chunk(const struct state *st, uint32_t id);
/* The mutation at which the chunk server of this host went into maintenance; 0: it did not. */
uint64_t state_host_maintenance(const struct state *st, const char *host);
struct chunk *state_chunk_by_uuid(const struct state *st, const uint8_t *uuid);
struct session *state_session(const struct state *st, uint64_t id);
struct session *state_session_by_name(const struct state *st, const char *name);
struct target *state_target(const struct state *st, const char *iqn);
struct target_lun *target_lun(const struct target *t, uint32_t lun);
struct extent *state_extent(const struct state *st, uint64_t extent_id);
struct result *state_result(const struct state *st, uint64_t client, uint64_t number);
/* NULL also for a slot that was never used. */
struct slot *volume_slot(const struct volume *v, uint32_t number);
/* Is there a live owner? */
struct session *slot_owner(const struct state *st, const struct slot *s);
bool extent_has_member(const struct extent *e, uint32_t chunk_id);
bool extent_has_absent(const struct extent *e, uint32_t chunk_id);
static inline const uint32_t *extent_members(const struct extent *e)
{
    return e->replicas;
}
static inline const uint32_t *extent_absent(const struct extent *e)
{
    return e->replicas + e->n_members;
}
const struct garbage *chunk_garbage(const struct chunk *c, uint64_t extent_id);

/* ---- changing: for apply.c and codec.c ---- */
struct pool *state_pool_add(struct state *st, uint32_t id, const char *name);
void state_pool_remove(struct state *st, struct pool *pool);
struct volume *state_volume_add(struct state *st, struct pool *pool, uint64_t id, const char *name,
                                const struct layout *layout, uint64_t size_bytes);
/* A removed volume, on loading: it has no pool any more. */
struct volume *state_volume_add_removed(struct state *st, uint64_t id, const char *name,
                                        const struct layout *layout, uint64_t size_bytes);
void state_volume_snapshot(struct volume *v); /* a new one: it is one */
void state_volume_of_file(struct state *st, struct volume *v, uint64_t inode_id);
void state_volume_resize(struct volume *v, uint64_t size_bytes);
void state_volume_rename(struct volume *v, const char *name);
void state_volume_move(struct volume *v, struct pool *to);
/* Its slots beyond have no leases, its table no extents any more. */
void state_volume_shrink(struct state *st, struct volume *v, uint64_t size_bytes);
/* Its extents get it by and by. */
void state_volume_policy(struct state *st, struct volume *v, uint32_t replicas, uint32_t min);
void state_volume_policy_left(struct state *st, struct volume *v, uint32_t pages);
void state_volume_flatten(struct state *st, struct volume *v, bool on, uint32_t next_slot);
/* The walk over its slots that makes it thick, or thin, goes on at this one; it ends behind the
 * last, and with number 0. */
void state_volume_pass(struct state *st, struct volume *v, uint64_t pass, uint32_t next_slot,
                       bool no_space);
void state_volume_mark_removed(struct state *st, struct volume *v);
void state_volume_free(struct state *st, struct volume *v); /* a removed one */
struct slot *volume_slot_make(struct volume *v, uint32_t number);
struct chunk *state_chunk_add(struct state *st, uint32_t id);
void state_chunk_remove(struct state *st, struct chunk *c); /* without replicas */
struct session *state_session_add(struct state *st, uint64_t id);
void state_session_remove(struct state *st, struct session *s); /* its slots become orphans */
struct target *state_target_add(struct state *st, const char *iqn);
void state_target_remove(struct state *st, struct target *t);
void state_lun_set(struct state *st, struct target *t, uint32_t lun, struct volume *v);
void state_lun_unset(struct state *st, struct target *t, struct target_lun *lun);
void state_slot_own(struct state *st, struct slot *s, uint64_t owner); /* 0: nobody */
void chunk_garbage_add(struct chunk *c, uint64_t extent_id, uint64_t epoch, uint64_t family);
bool chunk_garbage_del(struct chunk *c, uint64_t extent_id); /* false: was absent */
void state_result_add(struct state *st, uint64_t mutation, uint64_t client, uint64_t number,
                      const void *reply, size_t len);
struct result *state_result_oldest(const struct state *st); /* there must be one */
void state_result_drop_oldest(struct state *st);
void str_set(char **to, const char *from);

#endif
