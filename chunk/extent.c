/* SPDX-License-Identifier: Apache-2.0
 *
 * Extents: the table of them, what a journal record changes in one, the list. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "chunk/internal.h"

/* ---- table ---- */

struct ext *ext_find(struct engine *e, uint64_t id)
{
    return HTAB_ENTRY(htab_find(&e->exts, id), struct ext, node);
}

/* While a device is being opened its extents are in a table of its own. */
static struct htab *table_of(struct dev *d)
{
    return d->unsettled ? &d->opening : &d->e->exts;
}

struct ext *dev_ext_find(struct dev *d, uint64_t id)
{
    struct ext *x = HTAB_ENTRY(htab_find(table_of(d), id), struct ext, node);

    return x != NULL && x->dev == d ? x : NULL;
}

void dev_ext_foreach(struct dev *d, void (*fn)(void *arg, struct ext *x), void *arg)
{
    HTAB_FOREACH (x, table_of(d), struct ext, node) {
        if (x->dev == d)
            fn(arg, x);
    }
}

void ext_insert(struct ext *x)
{
    htab_insert(table_of(x->dev), &x->node, x->id);
}

void ext_unlist(struct ext *x)
{
    htab_remove(table_of(x->dev), &x->node);
}

void ext_remove(struct ext *x)
{
    ext_unlist(x);
    ext_forget(x);
}

void ext_forget(struct ext *x)
{
    ASSERT(!x->forgotten);
    x->forgotten = true;
    x->dev->extents--;
    x->dead = true;
    x->open_epoch = 0;
    corrupt_forget(x, 0, PAGES_PER_EXTENT);
    jpages_drop_all(x);
    mpage_forget(&x->head_page);
    for (uint32_t i = 0; i < MAP_PAGES && x->map != NULL; i++) {
        if (x->map->page[i] != NULL)
            mpage_forget(x->map->page[i]);
    }
    ext_put(x);
}

/* ---- apart ---- */

void ext_apart_begin(struct ext *x)
{
    htab_insert(&x->dev->apart, &ext_get(x)->node, x->id);
}

void ext_apart_end(struct ext *x)
{
    htab_remove(&x->dev->apart, &x->node);
    co_cond_broadcast(&x->dev->doomed_less);
    ext_put(x);
}

static struct ext *apart_find(struct engine *e, uint64_t id)
{
    struct ext *x = NULL;

    LIST_FOREACH (d, &e->devs, struct dev, link) {
        if (x == NULL && !d->failed && !d->stopping)
            x = HTAB_FIND(&d->apart, id, struct ext, node);
    }
    return x;
}

bool ext_is_apart(struct engine *e, uint64_t id)
{
    return apart_find(e, id) != NULL;
}

void ext_leave(struct ext *x)
{
    ext_unlist(x);
    ext_apart_begin(x);
    x->left = true;
    ext_forget(x);
}

bool ext_is_left(const struct engine *e, uint64_t id)
{
    LIST_FOREACH (d, &e->devs, struct dev, link) {
        const struct ext *x = d->failed ? HTAB_FIND(&d->apart, id, struct ext, node) : NULL;

        if (x != NULL && x->left)
            return true;
    }
    return false;
}

int ext_apart_wait(struct engine *e, uint64_t id)
{
    struct ext *x;
    int rc = 0;

    while (rc == 0 && (x = apart_find(e, id)) != NULL) {
        if (x->left)
            return err_set(ERR_IO, "a former copy of extent %" PRIu64 " is still on disk %s", id,
                           x->dev->path);
        ext_get(x);
        rc = co_cond_wait(&x->dev->doomed_less);
        ext_put(x);
    }
    return rc;
}

/* ---- life ---- */

struct ext *ext_new(struct dev *d, uint64_t id, uint32_t head)
{
    struct ext *x = MEM_NEW(struct ext);

    d->extents++;
    d->ext_count++;
    x->refs = 1;
    x->id = id;
    x->dev = d;
    x->head = head;
    mpage_init(&x->head_page, d, MP_HEAD, head, x);
    budget_fixed(&d->e->memory, sizeof(*x));
    co_mutex_init(&x->load_lock);
    co_mutex_init(&x->bind);
    co_range_lock_init(&x->lock);
    list_init(&x->ops);
    list_init(&x->doom);
    list_init(&x->journaled);
    co_cond_init(&x->ops_ended);
    return x;
}

struct ext *ext_get(struct ext *x)
{
    x->refs++;
    return x;
}

void ext_put(struct ext *x)
{
    ASSERT(x->refs > 0);
    if (--x->refs > 0)
        return;
    ASSERT(list_empty(&x->ops) && x->n_vblk == 0);
    credits_put(x, 0);
    x->dev->extents -= !x->forgotten;
    x->dev->ext_count--;
    co_cond_broadcast(&x->dev->doomed_less);
    map_free_all(x);
    version_free(x);
    missing_free_all(x);
    merge_free(x);
    readahead_free(x);
    budget_fixed(&x->dev->e->memory, -(int64_t)sizeof(*x));
    mem_free(x);
}

void ext_dirty(struct ext *x, uint64_t rsn)
{
    mpage_dirty(x->dev, &x->head_page, rsn);
}

/* ---- changes, also at replay ---- */

void ext_apply_create(struct ext *x, const struct rec_create *r, uint64_t rsn)
{
    x->epoch = r->epoch;
    x->volume_id = r->volume_id;
    x->family = r->family;
    x->slot = r->slot;
    x->arriving = (r->h.flags & REC_F_ARRIVING) != 0;
    head_bit_set(x->dev, r->head, rsn);
    /* The map is empty (no generations): no former content of these blocks is ever read. */
    map_new(x);
    for (uint32_t k = 0; k < META_BLOCKS; k++) {
        x->meta_block[k] = r->meta_block[k];
        bit_set(x->dev, r->meta_block[k], rsn);
    }
    ext_apply_reserve(x, (r->h.flags & REC_F_RESERVED) != 0, rsn);
    mpage_release(&x->map->gens);
}

void ext_apply_versions(struct ext *x, const struct rec_versions *r)
{
    const struct disk_uncommitted *u = (const struct disk_uncommitted *)(r + 1);

    for (uint32_t i = 0; i < r->count; i++)
        version_apply(x, u[i].first, u[i].last - u[i].first + 1u,
                      (struct version){u[i].epoch, u[i].gen});
}

void ext_apply_arrive(struct ext *x, const struct rec_arrive *r, uint64_t rsn)
{
    struct version last = {r->last_epoch, r->last_gen};

    x->arriving = false;
    x->epoch = MAX(x->epoch, r->epoch);
    x->durable_epoch = MAX(x->durable_epoch, r->epoch);
    version_commit(x, (struct version){r->cp_epoch, r->cp_gen});
    if (version_cmp(last, x->last) > 0)
        x->last = last;
    x->is_void = r->is_void != 0;
    x->frozen = r->frozen != 0;
    x->dev->e->any_void |= x->is_void;
    ext_apply_reserve(x, (r->h.flags & REC_F_RESERVED) != 0, rsn);
}

/* Of the extent itself; its blocks' references go besides. */
void ext_apply_delete(struct dev *d, const struct rec_delete *r, uint64_t rsn)
{
    for (uint32_t k = 0; k < META_BLOCKS; k++)
        bit_clear(d, r->meta_block[k], rsn, true);
    head_bit_clear(d, r->head, rsn);
    d->j.term = MAX(d->j.term, r->term);
}

void ext_apply_void(struct ext *x, bool on, uint64_t rsn)
{
    x->is_void = on;
    if (on) {
        x->dev->e->any_void = true;
        x->cp = x->last = (struct version){0, 0};
        version_free(x);
    }
    ext_dirty(x, rsn);
}

/* It is an origin: nothing more is written but repairs, and nothing need be promised. */
void ext_apply_freeze(struct ext *x, uint64_t rsn)
{
    x->frozen = true;
    ext_apply_reserve(x, false, rsn);
}

/* What it held can't be trusted: it is a missing replica from now on, until its owner, who has to
 * open it again and is told, has filled it and sends commit points again. */
void ext_damaged(struct ext *x, const char *why)
{
    struct dev *d = x->dev;
    struct rec_void *r;
    uint64_t rsn;

    log_error("extent.damaged", "extent=%" PRIu64 " disk=%s why=\"%s\"", x->id, d->path, why);
    x->open_epoch = 0;
    if (d->replaying) {
        x->damaged = true;
        return;
    }
    x->is_void = true;
    r = rec_new(d, REC_VOID, x->id, sizeof(*r));
    r->on = 1;
    if (journal_space(d, journal_cost(d, r->h.bytes, 0), true) < 0) {
        mem_free(r);
        return;
    }
    if (x->dead) {
        journal_space_return(d, journal_cost(d, r->h.bytes, 0));
        mem_free(r);
        return;
    }
    rsn = journal_add(d, &r->h, NULL, journal_cost(d, r->h.bytes, 0), false);
    ext_apply_void(x, true, rsn);
    if (journal_wait(d, rsn) < 0)
        log_error("extent.damaged_unsaved", "extent=%" PRIu64, x->id);
}

/* ---- list ---- */

static int info_cmp(const void *a, const void *b)
{
    const struct replica_info *x = a, *y = b;

    return x->id < y->id ? -1 : x->id > y->id;
}

void ext_foreach(struct engine *e, void (*fn)(void *arg, struct ext *x), void *arg)
{
    HTAB_FOREACH (x, &e->exts, struct ext, node)
        fn(arg, x);
}

struct listing {
    struct replica_info *all;
    uint32_t n;
    uint64_t after;
};

static void list_one(void *arg, struct ext *x)
{
    struct listing *l = arg;

    if (x->id > l->after && !x->deleting)
        l->all[l->n++] = (struct replica_info){
            .id = x->id,
            .epoch = x->epoch,
            .volume_id = x->volume_id,
            .family = x->family,
            .last_version = x->last,
            .blocks = x->blocks,
            .frozen = x->frozen,
            .reserved = x->reserved,
        };
}

uint32_t engine_list(struct engine *e, uint64_t after, struct replica_info *ret, uint32_t max,
                     bool *ret_more)
{
    struct listing l = {.all = MEM_NEW_ARRAY(struct replica_info, e->exts.count + 1),
                        .after = after};

    ext_foreach(e, list_one, &l);
    qsort(l.all, l.n, sizeof(*l.all), info_cmp);
    *ret_more = l.n > max;
    max = MIN(max, l.n);
    memcpy(ret, l.all, max * sizeof(*ret));
    mem_free(l.all);
    return max;
}
