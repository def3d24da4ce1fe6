/* SPDX-License-Identifier: Apache-2.0
 *
 * Children: an extent that begins as a copy of its origin's map. The child's map pages, in which
 * all sources are shared, are written to its new metadata blocks and are durable before the one
 * record that makes it exist, freezes the origin and says how many references each block has. What
 * the origin holds in the journal is in the child's map as if it were home already, and lent by the
 * origin until it is (jpage_find): the flusher brings it there in its own time. */
#include <inttypes.h>
#include <string.h>
#include "chunk/child.h"

struct child {
    const struct create_args *a;
    struct op op; /* of the origin */
    struct ext *o;
    struct dev *d;
    uint32_t own[BLOCKS_PER_EXTENT]; /* blocks that are the origin's own */
    struct child_map map;
};

/* ---- what the origin holds ---- */

static int origin_check(const struct child *c)
{
    const struct ext *o = c->o;

    if (o->is_void)
        return err_set(ERR_CORRUPT, "origin %" PRIu64 " is void", o->id);
    if (!o->vouched && !mutate(MUT_READ_UNVOUCHED))
        return err_set(ERR_AGAIN, "origin %" PRIu64 " was not opened since the start", o->id);
    if (o->n_unc > 0)
        return err_set(ERR_AGAIN, "origin %" PRIu64 " has writes above its commit point", o->id);
    if (c->a->epoch <= o->last.epoch || c->a->epoch <= o->cp.epoch)
        return err_set(ERR_INVAL,
                       "a child at epoch %" PRIu64 " of extent %" PRIu64
                       ", whose last version is of epoch %" PRIu64,
                       c->a->epoch, o->id, o->last.epoch);
    return 0;
}

/* The entry as it will be when everything is home. */
static void entry_home(const struct ext *o, uint32_t block, struct map_entry *en)
{
    const struct vblk *v = vblk_get(o, block);

    for (uint64_t mask = v != NULL ? v->mask : 0; mask != 0; mask &= mask - 1) {
        uint32_t bit = (uint32_t)__builtin_ctzll(mask);

        en->src[0].valid |= 1ull << bit;
        en->crc[bit] = vblk_page(v, bit)->crc;
    }
}

static int entry_copy(struct child *c, uint32_t block)
{
    struct map_entry *to = child_map_entry(&c->map, block);
    struct map_entry from = *map_get(c->o, block);
    bool any = false;

    entry_home(c->o, block, &from);
    for (uint32_t i = 0; i < MAP_SOURCES; i++) {
        if (from.src[i].valid == 0)
            continue;
        if (!child_map_add(&c->map, block, &from.src[i])) /* a writer left it so, after the merge */
            return err_set(ERR_AGAIN, "origin %" PRIu64 " changes", c->o->id);
        any = true;
    }
    if (any) {
        memcpy(to->crc, from.crc, sizeof(to->crc));
        c->own[block] = from.src[0].block;
    }
    return 0;
}

static int entries_copy(struct child *c, uint32_t first, uint32_t last)
{
    struct map_hold hold;
    int rc = map_hold(c->o, first, last, &hold);

    for (uint32_t b = first; b <= last && rc == 0; b++) {
        if (block_mapped(c->o, b))
            rc = entry_copy(c, b);
    }
    map_release(&hold);
    return rc;
}

static int map_copy(struct child *c)
{
    uint32_t first = 0, last = BLOCKS_PER_EXTENT;
    struct create_args a = *c->a;

    a.family = c->o->family;
    child_map_init(&c->map, c->d, &a);
    while (first < last && !block_mapped(c->o, first))
        first++;
    while (first < last && !block_mapped(c->o, last - 1))
        last--;
    return first < last ? entries_copy(c, first, last - 1) : 0;
}

/* ---- the record ---- */

/* All in one step, so that counts and versions are those of the moment. */
static uint64_t child_add(struct child *c, uint32_t space)
{
    struct rec_child *r = child_map_rec(&c->map, c->o->id);
    struct ext *x, *o = c->o;
    uint64_t rsn;

    r->cp_epoch = o->cp.epoch;
    r->cp_gen = o->cp.gen;
    r->last_epoch = o->last.epoch;
    r->last_gen = o->last.gen;
    x = child_map_journal(&c->map, r, space, &rsn);
    x->vouched = true;
    ext_insert(x);
    ext_apply_freeze(o, rsn);
    for (uint32_t b = 0; b < BLOCKS_PER_EXTENT; b++)
        vblk_lend(o, b, c->own[b]);
    return rsn;
}

static int child_journal(struct child *c)
{
    uint32_t cost = child_map_cost(&c->map);
    int rc = journal_space(c->d, cost, false);

    if (rc < 0)
        return rc;
    rc = op_check(&c->op);
    if (rc == 0)
        rc = origin_check(c);
    if (rc == 0)
        rc = child_map_room(&c->map);
    if (rc == 0 && c->a->reserve)
        rc = reserve_room(c->d, c->a->id, c->o->credits);
    if (rc == 0 && create_admitted(c->d->e, c->a))
        return journal_wait(c->d, child_add(c, cost));
    journal_space_return(c->d, cost);
    return rc < 0 ? rc : create_exists(c->d->e, c->a);
}

/* ---- the request ---- */

/* Nobody is writing to the origin, and nobody will: they find it frozen, or this has failed. What
 * was written before is queued for the journal, so it is durable when the child's record is. */
static int child_locked(struct child *c)
{
    int rc = op_check(&c->op);

    if (rc == 0)
        rc = origin_check(c);
    if (rc == 0)
        rc = map_copy(c);
    if (rc == 0)
        rc = child_map_write(&c->map);
    return rc == 0 ? child_journal(c) : rc;
}

static int child_try(struct engine *e, const struct create_args *a, bool renew)
{
    struct child c = {.a = a};
    struct co_range range;
    int rc = op_begin_closed(e, a->origin, a->origin_epoch, &c.op);

    if (rc < 0)
        return err_prefix(rc, "origin of extent %" PRIu64, a->id);
    c.o = c.op.ext;
    c.d = c.o->dev;
    rc = share_fit(&c.op);
    if (rc == 0 && renew)
        rc = share_renew(&c.op);
    if (rc == 0)
        rc = co_range_acquire(&c.o->lock, &range, 0, PAGES_PER_EXTENT, false);
    if (rc == 0) {
        rc = child_locked(&c);
        child_map_free(&c.map);
        co_range_release(&c.o->lock, &range);
    }
    op_end(&c.op);
    return rc;
}

/* A block has had as many children as can be counted: the origin gets another in its place, for
 * as many again. */
int child_create(struct engine *e, const struct create_args *a)
{
    int rc = child_try(e, a, false);

    return rc == ERR_TOO_LARGE ? child_try(e, a, true) : rc;
}
