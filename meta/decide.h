/* SPDX-License-Identifier: Apache-2.0
 *
 * What the leader makes of a request: pure functions from (state, what it knows of the world,
 * request) to a record for the log, or to an error. They also check everything that came from
 * outside. And the answers: functions from the state to a reply. Nothing here suspends. */
#ifndef ZBS_META_DECIDE_H
#define ZBS_META_DECIDE_H

#include "meta/pad.h"
#include "meta/place.h"
#include "meta/table.h"
#include "meta/view.h"
#include "proto/meta.pb-c.h"
#include "proto/metalog.pb-c.h"

/* What is not in the log. */
struct world {
    int64_t wall_ns;
    uint64_t random;
    uint8_t uuid[16];
    struct place_chunk *chunks; /* all; changed while slots are placed, so in the pad */
    uint32_t n_chunks;
    uint32_t session_ttl_ms, chunk_dead_ms;
    const uint64_t *held; /* volumes that get no grants now */
    uint32_t n_held;
};

struct decide {
    const struct state *st;
    struct world *w;
    const ProtobufCMessage *rq;
    struct pad *pad;
};

/* 0: *ret is the record, NULL if the request is fulfilled already. Else the error and its text. */
typedef int (*decide_fn)(const struct decide *d, Zbs__Metalog__Record **ret);
/* Fills a reply, an initialised message of the right type. */
typedef int (*answer_fn)(const struct decide *d, ProtobufCMessage *reply);

int decide_chunk_register(const struct decide *d, Zbs__Metalog__Record **ret);
int answer_chunk_register(const struct decide *d, ProtobufCMessage *reply);
int decide_chunk_heartbeat(const struct decide *d, Zbs__Metalog__Record **ret);
int decide_session_open(const struct decide *d, Zbs__Metalog__Record **ret);
int answer_session_open(const struct decide *d, ProtobufCMessage *reply);
int decide_session_close(const struct decide *d, Zbs__Metalog__Record **ret);

int decide_lease_acquire(const struct decide *d, Zbs__Metalog__Record **ret);
int answer_lease_acquire(const struct decide *d, ProtobufCMessage *reply);
int decide_lease_release(const struct decide *d, Zbs__Metalog__Record **ret);
int decide_extent_created(const struct decide *d, Zbs__Metalog__Record **ret);
int decide_replica_change(const struct decide *d, Zbs__Metalog__Record **ret);
int answer_replica_change(const struct decide *d, ProtobufCMessage *reply);

int decide_pool_create(const struct decide *d, Zbs__Metalog__Record **ret);
int answer_pool_list(const struct decide *d, ProtobufCMessage *reply);
int decide_pool_delete(const struct decide *d, Zbs__Metalog__Record **ret);
int decide_volume_create(const struct decide *d, Zbs__Metalog__Record **ret);
int decide_volume_resize(const struct decide *d, Zbs__Metalog__Record **ret);
int decide_volume_rename(const struct decide *d, Zbs__Metalog__Record **ret);
int decide_volume_delete(const struct decide *d, Zbs__Metalog__Record **ret);
int answer_volume_resize(const struct decide *d, ProtobufCMessage *reply);
int answer_volume_rename(const struct decide *d, ProtobufCMessage *reply);
int answer_volume_get(const struct decide *d, ProtobufCMessage *reply);
int answer_volume_list(const struct decide *d, ProtobufCMessage *reply);
int answer_volume_map(const struct decide *d, ProtobufCMessage *reply);

/* The volumes' owners have to be held already. ERR_AGAIN: extents are to be opened first, or write
 * leases of a file to be recalled. */
int decide_volume_snapshot(const struct decide *d, Zbs__Metalog__Record **ret);
int decide_volume_clone(const struct decide *d, Zbs__Metalog__Record **ret);
int decide_volume_rollback(const struct decide *d, Zbs__Metalog__Record **ret);

/* ---- blocks of a volume's own, decide_flatten.c ---- */
int decide_volume_flatten(const struct decide *d, Zbs__Metalog__Record **ret);
int answer_volume_flatten(const struct decide *d, ProtobufCMessage *reply);
int decide_slot_flattened(const struct decide *d, Zbs__Metalog__Record **ret);

/* ---- thick and thin volumes, decide_thick.c ---- */
/* The policy is to have this thickness. */
int decide_thickness(const struct volume *v, Zbs__Meta__Thickness to,
                     Zbs__Metalog__VolumePolicy *policy);
int decide_slot_provisioned(const struct decide *d, Zbs__Metalog__Record **ret);
int answer_slot_provisioned(const struct decide *d, ProtobufCMessage *reply);
/* Is the session that says this to do the next slot, too? Else another is asked. */
bool pass_goes_on(const struct state *st, const Zbs__Meta__SlotProvisionedRequest *rq);

int decide_volume_set(const struct decide *d, Zbs__Metalog__Record **ret);
int answer_volume_set(const struct decide *d, ProtobufCMessage *reply);
int decide_volume_move(const struct decide *d, Zbs__Metalog__Record **ret);
int answer_volume_move(const struct decide *d, ProtobufCMessage *reply);
int decide_pool_set(const struct decide *d, Zbs__Metalog__Record **ret);
int answer_pool_set(const struct decide *d, ProtobufCMessage *reply);
/* A smaller size, as asked for by a VolumeResizeRequest. */
int decide_shrink(const struct decide *d, const struct volume *v, Zbs__Metalog__Record **ret);

int decide_target_create(const struct decide *d, Zbs__Metalog__Record **ret);
int decide_target_delete(const struct decide *d, Zbs__Metalog__Record **ret);
int decide_target_update(const struct decide *d, Zbs__Metalog__Record **ret);
int decide_lun_add(const struct decide *d, Zbs__Metalog__Record **ret);
int decide_lun_remove(const struct decide *d, Zbs__Metalog__Record **ret);
int answer_exports_get(const struct decide *d, ProtobufCMessage *reply);

/* ---- of the leader itself ---- */
Zbs__Metalog__Record *decide_session_expiry(struct pad *pad, uint64_t session_id);
/* The next piece of sweeping a removed volume; NULL: nothing to do. */
Zbs__Metalog__Record *decide_sweep(const struct state *st, struct pad *pad);
/* The next extents that get their volume's new policy; NULL: nothing to do. */
Zbs__Metalog__Record *decide_policy_sweep(const struct state *st, struct pad *pad);

/* ---- recovery, decide_recovery.c ---- */

/* Replicas that are gone for longer than the grace period are replaced, those that were never
 * placed are, and gone ones that nobody needs are forgotten; NULL: nothing to do, or no place. */
Zbs__Metalog__Record *decide_repair(const struct state *st, struct world *w, const struct extent *e,
                                    struct pad *pad);
/* The first step of moving a replica off a chunk server: another place for it, as far from the
 * others as the present one; `anyway`: or nearer. NULL: not now, or no place. */
Zbs__Metalog__Record *decide_move(const struct state *st, struct world *w, const struct extent *e,
                                  uint32_t from, bool anyway, struct pad *pad);
/* The first step of moving a replica to where the extent's elder is and it is not (family.h). NULL:
 * not now, or no such place. */
Zbs__Metalog__Record *decide_gather(const struct state *st, struct world *w, const struct extent *e,
                                    struct pad *pad);
/* The member that an extent with more than it wants can best do without; 0: it has no more. */
uint32_t surplus_member(const struct state *st, const struct world *w, const struct extent *e);
int decide_chunk_mark(const struct decide *d, Zbs__Metalog__Record **ret);
int answer_chunk_mark(const struct decide *d, ProtobufCMessage *reply);
/* The next piece of forgetting a chunk server that is to be removed and holds nothing any more;
 * alive: it may still delete its garbage. NULL: not yet. */
Zbs__Metalog__Record *decide_chunk_remove(const struct state *st, const struct chunk *c, bool alive,
                                          struct pad *pad);

/* ---- helpers of decide_*.c ---- */
Zbs__Metalog__Record *record_new(struct pad *pad, Zbs__Metalog__Record__KindCase kind);
int decide_pool(const struct decide *d, const char *name, struct pool **ret);
int decide_volume(const struct decide *d, const char *pool, const char *name, struct volume **ret);
int decide_session(const struct decide *d, uint64_t id, struct session **ret);
int decide_exported(const struct decide *d, const struct volume *v); /* ERR_BUSY: it is */
/* ERR_PERM, with the file: it is a file's, so it can't be `what` (renamed, …) by itself. */
int decide_not_of_file(const struct decide *d, const struct volume *v, const char *what);
/* ERR_BUSY: an access server is about to write there, for the file whose volume it is. ERR_AGAIN:
 * some have write leases of the file, which are to be recalled first. */
int decide_file_quiet(const struct decide *d, const struct volume *v);
/* For n more, snapshots and removed ones included; those of files have a limit of their own. */
int decide_volume_room(const struct decide *d, size_t n);
/* What is placed weighs in the decisions that follow. */
void world_promise(struct world *w, const uint32_t *ids, uint32_t n);
const struct place_chunk *world_chunk(const struct world *w, uint32_t id);

#endif
