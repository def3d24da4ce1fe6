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

struct pool {
    uint32_t id;
    char *name;
    uint32_t replicas, min_replicas;
    char *failure_domain;  /* "host", "rack", "zone" */
    struct sorted volumes; /* by name; without removed ones */
    uint64_t size_bytes;   /* sum of the volumes' */
};

struct session {
    uint64_t id; /* ascending, never reused */
    char *name;
    uint64_t incarnation;
    char *addr, *host, *rack, *zone, *iscsi_portal;
    struct list owned; /* slots */
};

struct chunk {
    uint32_t id; /* from 1, never reused */
    uint8_t uuid[16];
    char *addr, *addr_unix, *host, *rack, *zone;
    uint32_t workers;
    uint32_t replicas;       /* of live volumes, members and absent ones */
    struct idmap garbage;    /* extent id -> epoch: to be deleted there */
    uint64_t garbage_cursor; /* not replicated: where the next heartbeat's answer goes on */
};

struct slot;
/* An extent with fewer members than wanted. */
struct degraded {
    struct list link;
    struct slot *slot;
    int64_t task_ns; /* not replicated: when a session was last asked to mend it */
};

struct slot {
    struct volume *volume;
    uint32_t number;
    uint8_t n_members, n_absent;
    bool created; /* every member once confirmed its creation */
    bool used;    /* was ever leased: it exists in the store */
    uint64_t epoch;
    uint64_t owner; /* session; 0: none and clean; one that has ended: none and unclean */
    uint64_t extent_id;
    uint64_t set_number;
    uint32_t replicas[SLOT_REPLICAS_MAX]; /* chunk ids: the members, then the absent ones */
    struct list owned; /* on its owner's list, or on the orphans' if that has ended */
    struct degraded *degraded;
    int64_t task_ns; /* not replicated: when a session was last asked to open it */
};

#define SLOTS_PER_PAGE 64u
struct slot_page {
    struct slot slots[SLOTS_PER_PAGE];
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
    uint32_t luns; /* that show it */
    uint32_t n_slots, n_pages;
    struct slot_page **pages; /* NULL: nothing used in it */
    uint32_t extents, extents_degraded, extents_at_risk;
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
    struct sorted pools;    /* by name */
    struct sorted chunks;   /* by id */
    struct sorted sessions; /* by id */
    struct sorted targets;  /* by iqn */
    struct sorted settings; /* by name; settings.h */
    uint64_t settings_version;
    struct idmap volumes;  /* id -> volume, removed ones too */
    struct idmap extents;  /* id -> slot */
    struct sorted removed; /* volumes to be swept, by id */
    struct list orphans;   /* slots whose owner has ended */
    struct list degraded;
    struct list results;
    struct idmap results_by_hash;
    uint32_t n_results, n_volumes;
    uint64_t n_extents, n_degraded, n_at_risk;
};

void state_init(struct state *st);
void state_fini(struct state *st); /* leaves it as after state_init, empty */

/* ---- finding; NULL: absent ---- */
struct pool *state_pool(const struct state *st, const char *name);
struct pool *state_pool_by_id(const struct state *st, uint32_t id);
struct volume *state_volume(const struct state *st, uint64_t id); /* removed ones too */
struct volume *pool_volume(const struct pool *pool, const char *name);
struct chunk *state_chunk(const struct state *st, uint32_t id);
struct chunk *state_chunk_by_uuid(const struct state *st, const uint8_t *uuid);
struct session *state_session(const struct state *st, uint64_t id);
struct session *state_session_by_name(const struct state *st, const char *name);
struct target *state_target(const struct state *st, const char *iqn);
struct target_lun *target_lun(const struct target *t, uint32_t lun);
struct slot *state_extent(const struct state *st, uint64_t extent_id);
struct result *state_result(const struct state *st, uint64_t client, uint64_t number);
/* NULL also for a slot that was never used. */
struct slot *volume_slot(const struct volume *v, uint32_t number);
/* Is there a live owner? */
struct session *slot_owner(const struct state *st, const struct slot *s);
bool slot_has_member(const struct slot *s, uint32_t chunk_id);
bool slot_has_absent(const struct slot *s, uint32_t chunk_id);
static inline const uint32_t *slot_members(const struct slot *s)
{
    return s->replicas;
}
static inline const uint32_t *slot_absent(const struct slot *s)
{
    return s->replicas + s->n_members;
}

/* ---- changing: for apply.c and codec.c ---- */
struct pool *state_pool_add(struct state *st, uint32_t id, const char *name);
void state_pool_remove(struct state *st, struct pool *pool);
struct volume *state_volume_add(struct state *st, struct pool *pool, uint64_t id, const char *name,
                                const struct layout *layout, uint64_t size_bytes);
/* A removed volume, on loading: it has no pool any more. */
struct volume *state_volume_add_removed(struct state *st, uint64_t id, const char *name,
                                        const struct layout *layout, uint64_t size_bytes);
void state_volume_resize(struct volume *v, uint64_t size_bytes);
void state_volume_rename(struct volume *v, const char *name);
void state_volume_mark_removed(struct state *st, struct volume *v);
void state_volume_free(struct state *st, struct volume *v); /* a removed one */
struct slot *volume_slot_make(struct volume *v, uint32_t number);
struct chunk *state_chunk_add(struct state *st, uint32_t id);
struct session *state_session_add(struct state *st, uint64_t id);
void state_session_remove(struct state *st, struct session *s); /* its slots become orphans */
struct target *state_target_add(struct state *st, const char *iqn);
void state_target_remove(struct state *st, struct target *t);
void state_lun_set(struct state *st, struct target *t, uint32_t lun, struct volume *v);
void state_lun_unset(struct state *st, struct target *t, struct target_lun *lun);
void state_slot_own(struct state *st, struct slot *s, uint64_t owner); /* 0: nobody */
/* Before and after any change of a slot's extent or replicas: keeps the sums. */
void state_slot_uncount(struct state *st, struct slot *s);
void state_slot_count(struct state *st, struct slot *s);
void state_result_add(struct state *st, uint64_t mutation, uint64_t client, uint64_t number,
                      const void *reply, size_t len);
struct result *state_result_oldest(const struct state *st); /* there must be one */
void state_result_drop_oldest(struct state *st);
void str_set(char **to, const char *from);

#endif
