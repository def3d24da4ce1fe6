/* SPDX-License-Identifier: Apache-2.0
 *
 * Families of extents: see family.h. A family is a ring in the order of ids, which is that of their
 * creation; it is entered at the first of its origins, or, when that is gone, by a map. */
#include "meta/family.h"

#include "meta/table.h"

#define LOOK_MAX 256u /* relatives looked at: a family may have any number */

void family_join(struct state *st, struct extent *e)
{
    struct extent *first;

    list_init(&e->kin);
    if (e->family == e->id)
        return;
    st->n_copies++;
    first = state_extent(st, e->family);
    if (first == NULL)
        first = idmap_get_ptr(&st->families, e->family);
    if (first != NULL)
        list_push_back(&first->kin, &e->kin);
    else
        idmap_put_ptr(&st->families, e->family, e);
}

void family_leave(struct state *st, struct extent *e)
{
    struct extent *next = LIST_FIRST(&e->kin, struct extent, kin);

    list_del(&e->kin);
    st->n_copies -= e->id != e->family;
    if (e->id != e->family && idmap_get_ptr(&st->families, e->family) != e)
        return;
    if (next != NULL)
        idmap_put_ptr(&st->families, e->family, next);
    else
        idmap_del(&st->families, e->family);
}

static bool is_elder(const struct state *st, const struct extent *x)
{
    return x->created && extent_is_shared(st, x);
}

uint32_t family_elders(const struct state *st, const struct extent *e,
                       const struct extent *ret[ELDERS_MAX])
{
    const struct extent *x = e, *first = state_extent(st, e->family);
    uint32_t n = 0;

    for (uint32_t looked = 0; looked < LOOK_MAX && n < ELDERS_MAX; looked++) {
        x = LIST_ENTRY(x->kin.prev, const struct extent, kin);
        if (x->id >= e->id)
            return n;
        if (is_elder(st, x))
            ret[n++] = x;
    }
    /* Perhaps all that were looked at are copies of one. */
    if (first != NULL && is_elder(st, first) && n < ELDERS_MAX)
        ret[n++] = first;
    return n;
}

const struct extent *family_elder(const struct state *st, const struct extent *e)
{
    const struct extent *elders[ELDERS_MAX];

    return family_is_large(e) && family_elders(st, e, elders) > 0 ? elders[0] : NULL;
}

static bool extent_is_at(const struct extent *e, uint32_t chunk_id)
{
    return extent_has_member(e, chunk_id) || extent_has_absent(e, chunk_id);
}

bool family_is_at(const struct extent *e, uint32_t chunk_id)
{
    const struct extent *before = e, *after = e;

    for (uint32_t looked = 0; looked < LOOK_MAX / 4; looked++) {
        before = LIST_ENTRY(before->kin.prev, const struct extent, kin);
        after = LIST_ENTRY(after->kin.next, const struct extent, kin);
        if (before == e || after == e)
            return false;
        if (extent_is_at(before, chunk_id) || extent_is_at(after, chunk_id))
            return true;
    }
    return false;
}
