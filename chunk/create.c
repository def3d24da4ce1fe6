/* SPDX-License-Identifier: Apache-2.0
 *
 * New extents. */
#include <inttypes.h>
#include <string.h>
#include "chunk/internal.h"

static uint32_t create_cost(const struct dev *d)
{
    return journal_cost(d, sizeof(struct rec_create), 0);
}

/* ---- places ---- */

int ext_blocks_take(struct dev *d, struct ext_place *ret)
{
    uint32_t n = 0;
    int rc;

    if (blocks_available(d) < META_BLOCKS)
        return err_set(ERR_NOSPACE, "disk %s is full", d->path);
    rc = head_take(d, &ret->head);
    if (rc < 0)
        return rc;
    d->claimed += META_BLOCKS;
    while (rc == 0 && n < META_BLOCKS) {
        rc = block_take_meta(d, &ret->meta[n]);
        n += rc == 0;
    }
    if (rc == 0)
        return 0;
    d->claimed -= META_BLOCKS - n;
    while (n > 0)
        block_untake(d, ret->meta[--n]);
    head_untake(d, ret->head);
    return rc;
}

void ext_blocks_return(struct dev *d, const struct ext_place *p)
{
    for (uint32_t k = 0; k < META_BLOCKS; k++)
        block_untake(d, p->meta[k]);
    head_untake(d, p->head);
}

int ext_place_take(struct dev *d, struct ext_place *ret)
{
    int rc = journal_space(d, create_cost(d), false);

    if (rc < 0)
        return rc;
    rc = ext_blocks_take(d, ret);
    if (rc < 0)
        journal_space_return(d, create_cost(d));
    return rc;
}

void ext_place_return(struct dev *d, const struct ext_place *p)
{
    ext_blocks_return(d, p);
    journal_space_return(d, create_cost(d));
}

/* ---- creating ---- */

void create_fill(struct rec_create *r, const struct create_args *a, const struct ext_place *p)
{
    r->h.flags = a->reserve ? REC_F_RESERVED : 0;
    r->epoch = a->epoch;
    r->volume_id = a->volume_id;
    r->family = a->family != 0 ? a->family : a->id;
    r->slot = a->slot;
    r->head = p->head;
    memcpy(r->meta_block, p->meta, sizeof(r->meta_block));
}

uint64_t ext_create_add(struct ext *x, const struct create_args *a, const struct ext_place *p,
                        bool arriving)
{
    struct dev *d = x->dev;
    struct rec_create *r = rec_new(d, REC_CREATE, x->id, sizeof(*r));
    uint64_t rsn;

    create_fill(r, a, p);
    r->h.flags |= arriving ? REC_F_ARRIVING : 0;
    x->durable_epoch = a->epoch;
    rsn = journal_add(d, &r->h, NULL, create_cost(d), false);
    ext_apply_create(x, r, rsn);
    return rsn;
}

bool create_admitted(struct engine *e, const struct create_args *a)
{
    return ext_find(e, a->id) == NULL && !ext_is_apart(e, a->id) &&
           !deleted_since(e, a->id, a->epoch);
}

int create_exists(struct engine *e, const struct create_args *a)
{
    struct ext *x = ext_find(e, a->id);
    int rc;

    if (x == NULL && deleted_since(e, a->id, a->epoch))
        return err_set(ERR_STALE, "extent %" PRIu64 " was deleted at epoch %" PRIu64 " or later",
                       a->id, a->epoch);
    if (x == NULL || x->deleting)
        return err_set(ERR_AGAIN, "extent %" PRIu64 " is being deleted", a->id);
    if (x->epoch > a->epoch)
        return err_set(ERR_STALE, "extent %" PRIu64 " exists with epoch %" PRIu64, x->id, x->epoch);
    rc = dev_check(x->dev);
    return rc < 0 ? rc : journal_sync(x->dev); /* its creation may be on its way */
}

static int create_plain(struct engine *e, const struct create_args *a)
{
    struct dev *d = dev_choose(e, META_BLOCKS + (a->reserve ? BLOCKS_PER_EXTENT : 0));
    struct ext_place place;
    struct ext *x;
    int rc;

    if (d == NULL)
        return err_set(ERR_NOSPACE, "no disk has room for extent %" PRIu64, a->id);
    rc = ext_place_take(d, &place);
    if (rc < 0)
        return rc;
    if (!create_admitted(e, a)) { /* meanwhile */
        ext_place_return(d, &place);
        return create_exists(e, a);
    }
    if (a->reserve)
        rc = reserve_room(d, a->id, 0);
    if (rc < 0) {
        ext_place_return(d, &place);
        return rc;
    }
    x = ext_new(d, a->id, place.head);
    x->vouched = true;
    ext_insert(x);
    return journal_wait(d, ext_create_add(x, a, &place, false));
}

int engine_create_as(struct engine *e, const struct create_args *a)
{
    struct ext *x;
    int rc = ext_admit(e, a->id, &x);

    if (rc < 0)
        return rc;
    if (a->id == 0)
        return err_set(ERR_INVAL, "extent 0");
    if (x != NULL && x->dev->failed && !x->deleting && a->epoch > x->epoch) {
        log_info("extent.given_up", "extent=%" PRIu64 " disk=%s", x->id, x->dev->path);
        ext_leave(x); /* made anew on a disk that serves; at a start the higher epoch counts */
        x = NULL;
    }
    if (x != NULL || deleted_since(e, a->id, a->epoch))
        return create_exists(e, a);
    rc = ext_apart_wait(e, a->id);
    if (rc < 0)
        return rc;
    return a->origin != 0 ? child_create(e, a) : create_plain(e, a);
}

int engine_create(struct engine *e, uint64_t id, uint64_t epoch, uint64_t volume_id, uint32_t slot)
{
    const struct create_args a = {.id = id, .epoch = epoch, .volume_id = volume_id, .slot = slot};

    return engine_create_as(e, &a);
}
