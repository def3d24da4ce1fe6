/* SPDX-License-Identifier: Apache-2.0
 *
 * One record of the log applied to the state: deterministic, the same on every server. Everything
 * that was chosen (ids come from the mutation number, times, placement, random bytes) is in the
 * record. The changed objects' pairs go into the batch, so that the store mirrors the state. */
#ifndef ZBS_META_APPLY_H
#define ZBS_META_APPLY_H

#include "common/kv/kv.h"
#include "meta/table.h"
#include "meta/view.h"
#include "proto/metalog.pb-c.h"

/* How many mutation numbers a record takes: 1, or one for each slot of a grant and each snapshot.
 */
uint32_t record_width(const Zbs__Metalog__Record *r);

/* The record's mutation number is st->next_mutation before the call. batch may be NULL (tests).
 * *ret_reply: the packed answer for the client, in the pad; empty if the kind has none; kept for
 * retries if the record names a client. ERR_UNSUPPORTED: a kind that this program does not know;
 * ERR_CORRUPT: the record does not fit the state (then the state is unusable). Does not suspend. */
int apply_record(struct state *st, const Zbs__Metalog__Record *r, struct kv_batch *batch,
                 struct pad *pad, struct packed *ret_reply) MUST_CHECK;

/* ---- between apply*.c ---- */
struct apply {
    struct state *st;
    const Zbs__Metalog__Record *record;
    uint64_t number;
    struct codec_sink *to;
    struct pad *pad;
    struct packed reply;
};
int apply_misfit(const struct apply *a, const char *why);
/* The volume's own page of its table, made or copied if need be; to be put into the store by the
 * caller once changed. */
struct table_page *apply_page_own(struct apply *a, struct volume *v, uint32_t index);
/* If nothing refers to them any more: they go; extents become garbage at their chunk servers. */
void apply_page_drop(struct apply *a, struct table_page *p); /* may be NULL */
void apply_extent_drop(struct apply *a, struct extent *e);
/* The extent gets the volume's policy; if others have it, too, the most that one of them asked for.
 */
void apply_extent_policy(struct apply *a, const struct volume *v, struct extent *e);
int apply_lease_grant(struct apply *a);
int apply_lease_return(struct apply *a);
int apply_extents_created(struct apply *a);
int apply_replica_set(struct apply *a);
/* The volume is imported from now on, if content has the 16 bytes of what it becomes; else not. */
void apply_import_begin(struct apply *a, struct volume *v, const ProtobufCBinaryData *content);
int apply_volume_add(struct apply *a);
int apply_volume_set(struct apply *a);
int apply_volume_remove(struct apply *a);
/* It is removed, to be swept; false: it is unknown, or exported. */
bool apply_volume_drop(struct apply *a, uint64_t volume_id) MUST_CHECK;
/* The volume's snapshots, in the pad, with room for one more. */
struct volume **apply_snapshots_of(struct apply *a, const struct volume *v, uint32_t *ret_count);
int apply_volume_sweep(struct apply *a);
int apply_volumes_snapshot(struct apply *a);
int apply_volume_clone(struct apply *a);
int apply_volume_rollback(struct apply *a);
int apply_volume_flatten(struct apply *a);
int apply_volume_pass(struct apply *a);
/* It is thick or thin from now on; its slots become so by and by. */
void apply_volume_thick(struct apply *a, struct volume *v, bool thick);
/* Its slots from this one on are others than they were: if it is thick, they have to become so. */
void apply_volume_thick_from(struct apply *a, struct volume *v, uint32_t slot);
int apply_volume_policy(struct apply *a);
int apply_pool_policy(struct apply *a);
int apply_policy_sweep(struct apply *a);
int apply_volume_shrink(struct apply *a);
int apply_target_set(struct apply *a);
int apply_target_remove(struct apply *a);
int apply_lun_set(struct apply *a);
int apply_lun_unset(struct apply *a);
int apply_share_set(struct apply *a);
int apply_share_remove(struct apply *a);
int apply_inode_add(struct apply *a);
int apply_inode_set(struct apply *a);
int apply_entry_add(struct apply *a);
int apply_entry_remove(struct apply *a);
int apply_entry_move(struct apply *a);
int apply_file_data(struct apply *a);
int apply_file_volume(struct apply *a);
int apply_file_attach(struct apply *a);
int apply_file_grow(struct apply *a);
int apply_file_written(struct apply *a);
int apply_file_zeroed(struct apply *a);
int apply_file_zero(struct apply *a);
/* Write leases of sessions that have ended are forgotten when the file is written anyway. */
void apply_writers_ended(struct apply *a, struct inode *i);
int apply_file_lease(struct apply *a);
int apply_file_return(struct apply *a);
struct lock_holder;
int apply_lock_set(struct apply *a);
int apply_lock_forget(struct apply *a);
void apply_holder_drop(struct apply *a, struct lock_holder *h);
/* The inode was changed, at this time. */
void apply_inode_touch(struct apply *a, struct inode *i, uint64_t time_ns);
/* The file of a volume that goes back to a snapshot goes back with it. */
void apply_file_rollback(struct apply *a, const struct volume *v, const struct volume *snapshot,
                         uint64_t time_ns);

#endif
