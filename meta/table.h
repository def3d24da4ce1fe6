/* SPDX-License-Identifier: Apache-2.0
 *
 * Which extents a volume has: an array of pointers to reference-counted pages of 64 places. A
 * snapshot, a clone or a rollback copies the pointers; a page that several volumes have is copied
 * when one of them changes it, and then its extents are named by two pages. References are counted
 * from the pages, never stored. What is said here about the state holds for this, too. */
#ifndef ZBS_META_TABLE_H
#define ZBS_META_TABLE_H

#include "meta/state.h"

/* NULL: a hole. */
struct extent *volume_extent(const struct volume *v, uint32_t number);
/* The only volume that has the extent and may write to it in place; NULL: it is shared, and gets a
 * child when it is written to (PROTOCOL 1.3). A snapshot's extents are always shared. */
struct volume *extent_volume(const struct state *st, const struct extent *e);
static inline bool extent_is_shared(const struct state *st, const struct extent *e)
{
    return extent_volume(st, e) == NULL;
}
/* The lease under which an extent's replicas are changed; NULL: it never had one. */
struct slot *extent_lease(const struct state *st, const struct extent *e);
/* What each server that has an extent of the volume is to have room for. */
static inline uint64_t volume_room(const struct volume *v)
{
    return v->provisioning.thick ? EXTENT_BYTES : 0;
}
/* What a lease is about; NULL: a hole. */
struct extent *slot_extent(const struct slot *s);
/* Was the extent granted with this lease to be written in place, and not become shared since? If
 * not, it is clean, and reading it under the lease needs no open. e may be NULL. */
bool slot_writes(const struct slot *s, const struct extent *e);

/* Extents that stand in the way of a snapshot: not created, or left unclean; unowned_only: without
 * those that a live owner has yet to create. */
uint32_t volume_unready(const struct state *st, const struct volume *v, bool unowned_only,
                        uint64_t *ids, uint32_t max);

struct health {
    uint32_t degraded, at_risk;
};
/* Of the volume's extents. */
struct health volume_health(const struct state *st, const struct volume *v);

/* ---- changing: for apply*.c and load.c ---- */

/* In no page yet, without replicas, not counted. */
struct extent *state_extent_add(struct state *st, uint64_t id, uint64_t family, uint32_t slot);
void state_extent_free(struct state *st, struct extent *e); /* nothing names it; not counted */
/* Before and after any change of an extent's replicas or policy: keeps the sums. */
void state_extent_uncount(struct state *st, struct extent *e);
void state_extent_count(struct state *st, struct extent *e);
void extent_set_created(struct extent *e); /* it stops being a copy to be */
void extent_set_origin(struct extent *e, struct extent *origin);
struct slot *extent_lease_make(struct extent *e);
void extent_lease_end(struct state *st, struct extent *e);

struct table_page *state_page_add(struct state *st, uint64_t id, uint32_t index);
/* Its extents lose a reference each; they are the caller's to free. */
void state_page_free(struct state *st, struct table_page *p);
/* In a page that at most one volume has, v, or none (NULL). */
void page_set(struct table_page *p, struct volume *v, uint32_t at, struct extent *e);
/* Returns the page that was there, with a reference less: it is the caller's to free. */
struct table_page *volume_set_page(struct volume *v, uint32_t index, struct table_page *p);

#endif
