/* SPDX-License-Identifier: Apache-2.0
 *
 * What records do to the pages of volumes' tables, and what goes with the last reference. */
#include "common/base/assert.h"
#include "meta/apply.h"
#include "meta/codec.h"

struct table_page *apply_page_own(struct apply *a, struct volume *v, uint32_t index)
{
    struct table_page *p = v->table[index], *copy;

    if (p != NULL && p->refs == 1)
        return p;
    copy = state_page_add(a->st, a->st->next_page_id++, index);
    for (uint32_t i = 0; p != NULL && i < SLOTS_PER_PAGE; i++) {
        if (p->extents[i] != NULL)
            page_set(copy, NULL, i, p->extents[i]);
    }
    volume_set_page(v, index, copy);
    codec_put_table(a->to, v, index);
    return copy;
}

void apply_page_drop(struct apply *a, struct table_page *p)
{
    struct extent *extents[SLOTS_PER_PAGE];

    if (p == NULL || p->refs > 0)
        return;
    for (uint32_t i = 0; i < SLOTS_PER_PAGE; i++)
        extents[i] = p->extents[i];
    codec_del_page(a->to, p->id);
    state_page_free(a->st, p);
    for (uint32_t i = 0; i < SLOTS_PER_PAGE; i++) {
        if (extents[i] != NULL)
            apply_extent_drop(a, extents[i]);
    }
}

void apply_extent_drop(struct apply *a, struct extent *e)
{
    struct extent *origin = e->origin;

    if (e->refs > 0 || !list_empty(&e->unborn))
        return;
    state_extent_uncount(a->st, e);
    for (uint32_t i = 0; i < e->n_members + e->n_absent; i++) {
        struct chunk *c = state_chunk(a->st, e->replicas[i]);

        chunk_garbage_add(c, e->id, e->epoch, e->family);
        codec_put_garbage(a->to, c->id, e->id, chunk_garbage(c, e->id));
    }
    codec_del_extent(a->to, e->id);
    state_extent_free(a->st, e);
    if (origin != NULL)
        apply_extent_drop(a, origin);
}
