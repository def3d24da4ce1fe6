/* SPDX-License-Identifier: Apache-2.0
 *
 * A new extent on its way whose map names blocks of others, all as sources that are only read: a
 * child (child.c), or a twin of an extent whose relatives have moved before it (move_share.c). */
#ifndef ZBS_CHUNK_CHILD_H
#define ZBS_CHUNK_CHILD_H

#include "chunk/internal.h"

struct child_map {
    struct dev *d;
    struct create_args a;
    struct map_page *pages;
    uint32_t *blocks; /* that the map names */
    uint32_t n_blocks;
    uint64_t shared[BLOCKS_PER_EXTENT / 64];
    uint64_t map_gen[MAP_PAGES];
    struct refs_hold refs;
    bool has_place;
    struct ext_place place;
    struct ext *x; /* in no table yet */
};

void child_map_init(struct child_map *c, struct dev *d, const struct create_args *a);
void child_map_free(struct child_map *c);
struct map_entry *child_map_entry(struct child_map *c, uint32_t index);
/* One more source of a block; false: no slot is free. */
bool child_map_add(struct child_map *c, uint32_t index, const struct map_src *src);
/* The new extent gets its place, and its map pages are durable there. ERR_TOO_LARGE: a block can't
 * be shared by one more. */
co_fn int child_map_write(struct child_map *c) MUST_CHECK;
int child_map_room(const struct child_map *c); /* the last of these, once more */
uint32_t child_map_cost(const struct child_map *c);
/* The record, with the counts of this moment; the caller adds what else it has, and journals it in
 * the same step. Returns the new extent. */
struct rec_child *child_map_rec(const struct child_map *c, uint64_t origin);
struct ext *child_map_journal(struct child_map *c, struct rec_child *r, uint32_t space,
                              uint64_t *ret_rsn) MUST_CHECK;

#endif
