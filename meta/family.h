/* SPDX-License-Identifier: Apache-2.0
 *
 * Extents that may share blocks: one, and what began as its copy, or as a copy of that. They are
 * kept together (PROTOCOL 5.8): a replica of one begins, where it can, as a copy of a relative that
 * is there already, so that nothing is copied but the difference. */
#ifndef ZBS_META_FAMILY_H
#define ZBS_META_FAMILY_H

#include "meta/state.h"

#define ELDERS_MAX 4u

/* An extent comes to its family, or leaves it. Part of the state, though it can be told from it. */
void family_join(struct state *st, struct extent *e);
void family_leave(struct state *st, struct extent *e);
/* Has it any relatives? */
static inline bool family_is_large(const struct extent *e)
{
    return list_linked(&e->kin);
}
/* Relatives that this extent, or a common origin of both, began as a copy of, and that never
 * change: volumes share them. The nearest ones first, as far as the order of their ids tells. */
uint32_t family_elders(const struct state *st, const struct extent *e,
                       const struct extent *ret[ELDERS_MAX]);
/* The first of them; NULL: none. */
const struct extent *family_elder(const struct state *st, const struct extent *e);
/* Has one of the relatives near to it a replica there? */
bool family_is_at(const struct extent *e, uint32_t chunk_id);

#endif
