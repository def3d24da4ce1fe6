/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests to an extent: admission by epoch, opening, space, deletion (PROTOCOL 2, 10). */
#include <inttypes.h>
#include <string.h>
#include "chunk/internal.h"

/* ---- admission ---- */

static int no_replica(uint64_t id)
{
    return err_set(ERR_NO_REPLICA, "extent %" PRIu64 " is not here", id);
}

static int epoch_check(const struct ext *x, uint64_t epoch)
{
    if (x->dead || x->deleting)
        return no_replica(x->id);
    if (mutate(MUT_NO_EPOCH_CHECK))
        return 0;
    if (epoch < x->epoch)
        return err_set(ERR_STALE, "extent %" PRIu64 " is at epoch %" PRIu64 ", not %" PRIu64, x->id,
                       x->epoch, epoch);
    if (epoch != x->open_epoch)
        return err_set(ERR_NOT_OPEN, "extent %" PRIu64 " is not open under epoch %" PRIu64, x->id,
                       epoch);
    return 0;
}

int ext_admit(struct engine *e, uint64_t id, struct ext **ret)
{
    struct ext *x = ext_find(e, id);
    int rc = 0;

    while (UNLIKELY(x != NULL && x->switching) && rc == 0) {
        ext_get(x);
        rc = co_cond_wait(&x->ops_ended);
        ext_put(x);
        x = ext_find(e, id);
    }
    *ret = x;
    return rc;
}

int op_begin(struct engine *e, uint64_t id, uint64_t epoch, struct op *op)
{
    struct ext *x;
    int rc = ext_admit(e, id, &x);

    if (rc < 0)
        return rc;
    if (x == NULL)
        return no_replica(id);
    rc = epoch_check(x, epoch);
    if (rc == 0)
        rc = dev_check(x->dev);
    if (rc < 0)
        return rc;
    e->asked = co_now();
    *op = (struct op){.ext = ext_get(x), .epoch = epoch};
    list_push_back(&x->ops, &op->link);
    return 0;
}

/* Of a request that needs no open extent. */
static int closed_check(const struct ext *x, uint64_t epoch)
{
    if (x->dead || x->deleting)
        return no_replica(x->id);
    if (epoch < x->epoch)
        return err_set(ERR_STALE, "extent %" PRIu64 " is at epoch %" PRIu64 ", not %" PRIu64, x->id,
                       x->epoch, epoch);
    return 0;
}

int op_begin_closed(struct engine *e, uint64_t id, uint64_t epoch, struct op *op)
{
    struct ext *x;
    int rc = ext_admit(e, id, &x);

    if (rc == 0)
        rc = x != NULL ? closed_check(x, epoch) : no_replica(id);
    if (rc == 0)
        rc = dev_check(x->dev);
    if (rc < 0)
        return rc;
    *op = (struct op){.ext = ext_get(x), .epoch = epoch, .closed = true};
    list_push_back(&x->ops, &op->link);
    return 0;
}

/* Meta knows that it is clean; where this replica is not, it waits for its owner (PROTOCOL 1.1). So
 * it does after a start: without what the journal has lost unseen it looks as clean (2.5). */
static int shared_check(const struct ext *x)
{
    if (!x->vouched && !mutate(MUT_READ_UNVOUCHED))
        return err_set(ERR_AGAIN, "extent %" PRIu64 " was not opened since the start", x->id);
    if (x->is_void)
        return err_set(ERR_AGAIN, "extent %" PRIu64 " is void here", x->id);
    if (x->n_unc > 0)
        return err_set(ERR_AGAIN, "extent %" PRIu64 " has writes above its commit point", x->id);
    return 0;
}

int op_begin_shared(struct engine *e, uint64_t id, uint64_t view_epoch, struct op *op)
{
    int rc = op_begin_closed(e, id, view_epoch != 0 ? view_epoch : OP_EPOCH_NONE, op);

    if (rc < 0)
        return rc;
    e->asked = co_now();
    op->shared = true;
    rc = shared_check(op->ext);
    if (rc < 0)
        op_end(op);
    return rc;
}

int op_check(const struct op *op)
{
    int rc = op->closed ? closed_check(op->ext, op->epoch) : epoch_check(op->ext, op->epoch);

    if (rc == 0 && op->shared)
        rc = shared_check(op->ext);
    return rc < 0 ? rc : dev_check(op->ext->dev);
}

void op_again(const struct op *op, struct op *ret)
{
    ret->ext = ext_get(op->ext);
    ret->epoch = op->epoch;
    ret->closed = op->closed;
    ret->shared = op->shared;
    list_push_back(&op->ext->ops, &ret->link);
}

void op_end(struct op *op)
{
    list_del(&op->link);
    co_cond_broadcast(&op->ext->ops_ended);
    ext_put(op->ext);
}

/* Waits for the requests admitted under lower epochs. */
static void ops_wait_below(struct ext *x, uint64_t epoch)
{
    for (;;) {
        bool any = false;

        LIST_FOREACH (op, &x->ops, struct op, link)
            any |= op->epoch < epoch;
        if (!any || x->dev->failed) /* the device may never answer them */
            return;
        co_cond_wait_always(&x->ops_ended);
    }
}

int engine_check_epoch(struct engine *e, uint64_t id, uint64_t epoch)
{
    struct ext *x = ext_find(e, id);
    int rc = x != NULL ? epoch_check(x, epoch) : no_replica(id);

    return rc < 0 ? rc : dev_check(x->dev);
}

/* ---- open ---- */

static void open_fill(struct ext *x, struct open_info *ret)
{
    ret->commit_point = x->cp;
    ret->last_version = x->last;
    ret->epoch = x->epoch;
    ret->is_void = x->is_void;
    ret->vouched = x->vouched;
    ret->credits = x->credits;
    ret->n_uncommitted = x->n_unc;
    if (x->n_unc > 0) {
        ret->uncommitted = MEM_NEW_ARRAY(struct uncommitted, x->n_unc);
        memcpy(ret->uncommitted, x->unc, x->n_unc * sizeof(*x->unc));
    }
    ret->frozen = x->frozen;
    ret->reserved = x->reserved;
    for (uint32_t w = 0; w < BLOCKS_PER_EXTENT / 64; w++) {
        uint64_t mapped = x->allocated[w] | x->shared[w];
        uint64_t need = x->frozen ? mapped : mapped & ~x->allocated[w];

        memcpy(ret->allocated + w * 8, &mapped, 8);
        memcpy(ret->shared + w * 8, &need, 8);
    }
    for (uint32_t i = 0; i < MISSING_MAX && x->missing != NULL; i++) {
        const struct missing_set *m = &x->missing[i];
        struct missing_info *o = &ret->missing[ret->n_missing];

        if (m->replica == 0)
            continue;
        ret->n_missing++;
        o->replica = m->replica;
        o->last_version = m->last_version;
        o->everything = m->everything;
        o->pages = m->everything ? PAGES_PER_EXTENT : 0;
        for (uint32_t k = 0; k < m->pages.n; k++)
            o->pages += (uint32_t)__builtin_popcountll(m->pages.e[k].mask);
    }
}

void open_info_free(struct open_info *oi)
{
    mem_free(oi->uncommitted);
    oi->uncommitted = NULL;
}

/* The new epoch is durable, and what lower ones admitted has ended. */
static int open_fence(struct ext *x, uint64_t epoch, bool thaw)
{
    struct dev *d = x->dev;
    struct rec_epoch *r;
    uint32_t cost;
    int rc;

    if (x->durable_epoch < epoch) {
        r = rec_new(d, REC_EPOCH, x->id, sizeof(*r));
        r->epoch = epoch;
        cost = journal_cost(d, r->h.bytes, 0);
        rc = journal_space(d, cost, true);
        if (rc < 0) {
            mem_free(r);
            return rc;
        }
        if (x->durable_epoch >= epoch || x->dead) { /* meanwhile */
            journal_space_return(d, cost);
            mem_free(r);
        } else {
            x->durable_epoch = epoch;
            ext_dirty(x, journal_add(d, &r->h, NULL, cost, false));
        }
    }
    rc = journal_sync(d);
    if (rc < 0)
        return rc;
    ops_wait_below(x, epoch);
    if (thaw)
        rc = ext_thaw(x, epoch);
    return rc < 0 ? rc : journal_sync(d); /* what they queued last, too */
}

int engine_open(struct engine *e, uint64_t id, uint64_t epoch, uint32_t credit_blocks,
                struct open_info *ret)
{
    const struct open_args a = {.id = id, .epoch = epoch, .credit_blocks = credit_blocks};

    return engine_open_as(e, &a, ret);
}

int engine_open_as(struct engine *e, const struct open_args *a, struct open_info *ret)
{
    uint64_t id = a->id, epoch = a->epoch;
    struct ext *x;
    int rc = ext_admit(e, id, &x);

    *ret = (struct open_info){0};
    if (rc < 0)
        return rc;
    if (x == NULL)
        return no_replica(id);
    ret->epoch = x->epoch;
    if (x->dev->failed && epoch > x->epoch) /* so that it may be made anew, on another disk */
        return err_set(ERR_NO_REPLICA, "extent %" PRIu64 " was on disk %s, which has failed", id,
                       x->dev->path);
    rc = dev_check(x->dev);
    if (rc < 0)
        return rc;
    if (epoch < x->epoch)
        return err_set(ERR_STALE, "extent %" PRIu64 " is at epoch %" PRIu64 ", not %" PRIu64, id,
                       x->epoch, epoch);
    ext_get(x);
    if (epoch > x->epoch) {
        x->epoch = epoch; /* refuses the lower ones from here on */
        x->open_epoch = 0;
    }
    x->opening++;
    rc = open_fence(x, epoch, a->thaw);
    x->opening--;
    co_cond_broadcast(&x->ops_ended);
    ret->epoch = x->epoch;
    if (rc == 0 && (x->dead || x->deleting))
        rc = no_replica(id);
    else if (rc == 0 && x->epoch != epoch)
        rc = err_set(ERR_STALE, "extent %" PRIu64 " is at epoch %" PRIu64, id, x->epoch);
    if (rc == 0) {
        x->open_epoch = epoch;
        credits_open(x, a->credit_blocks);
        open_fill(x, ret);
    }
    ext_put(x);
    return rc;
}

int engine_commit_point(struct engine *e, uint64_t id, uint64_t epoch, struct version cp)
{
    struct rec_commit_point *r;
    uint32_t cost;
    struct op op;
    struct dev *d;
    int rc = op_begin(e, id, epoch, &op);

    if (rc < 0)
        return rc;
    d = op.ext->dev;
    cost = journal_cost(d, sizeof(*r), 0);
    if (version_cmp(cp, op.ext->cp) <= 0 && !op.ext->is_void) {
        rc = journal_sync(d);
        goto out;
    }
    rc = journal_space(d, cost, true);
    if (rc < 0)
        goto out;
    rc = op_check(&op);
    if (rc < 0) {
        journal_space_return(d, cost);
        goto out;
    }
    r = rec_new(d, REC_COMMIT_POINT, id, sizeof(*r));
    r->epoch = cp.epoch;
    r->gen = cp.gen;
    op.ext->is_void = false; /* only members are sent commit points (PROTOCOL 5.4) */
    version_commit(op.ext, cp);
    ext_dirty(op.ext, journal_add(d, &r->h, NULL, cost, false));
    rc = journal_sync(d);
out:
    op_end(&op);
    return rc;
}

int engine_vouch(struct engine *e, uint64_t id, uint64_t epoch)
{
    struct ext *x = ext_find(e, id);
    int rc = x != NULL ? epoch_check(x, epoch) : no_replica(id);

    if (rc == 0)
        x->vouched = true;
    return rc;
}

/* ---- delete ---- */

/* The extent's map and the counts of its blocks are in memory. No suspension. */
static struct rec_delete *delete_rec(struct ext *x, uint64_t term)
{
    size_t room = 0;
    struct rec_delete *r;
    struct rec_ref *refs;

    for (uint32_t b = 0; b < BLOCKS_PER_EXTENT; b++)
        room += block_mapped(x, b) ? MAP_SOURCES : 0;
    r = rec_new(x->dev, REC_DELETE, x->id, sizeof(*r) + room * sizeof(*refs));
    refs = (struct rec_ref *)(r + 1);
    r->term = term;
    r->head = x->head;
    memcpy(r->meta_block, x->meta_block, sizeof(r->meta_block));
    for (uint32_t b = 0; b < BLOCKS_PER_EXTENT; b++) {
        bool change;

        if (block_mapped(x, b))
            r->n_refs += share_dropped(x, b, 0, true, refs + r->n_refs, &change);
    }
    r->h.bytes = (uint16_t)ROUND_UP((uint8_t *)(refs + r->n_refs) - (uint8_t *)r, 8);
    return r;
}

static uint32_t delete_cost(const struct dev *d)
{
    return COMMIT_HEAD_MAX / d->j.unit; /* the largest record */
}

static uint64_t delete_add(struct ext *x, uint64_t term)
{
    struct dev *d = x->dev;
    struct rec_delete *r = delete_rec(x, term);
    uint64_t rsn = journal_add(d, &r->h, NULL, delete_cost(d), false);

    ext_apply_delete(d, r, rsn);
    refs_apply(d, (const struct rec_ref *)(r + 1), r->n_refs, rsn);
    return rsn;
}

/* One that is apart was deleted, or with an error could not be. */
static int apart_deleted(struct ext *x, int rc)
{
    struct dev *d = x->dev;

    x->left = rc < 0 && !d->stopping;
    if (x->left)
        co_cond_broadcast(&d->doomed_less);
    else
        ext_apart_end(x);
    return rc;
}

/* Gone for good only if it can't be where nobody can look. */
static int delete_absent(struct engine *e, uint64_t id, uint64_t epoch)
{
    int rc;

    deleted_note(e, id, epoch);
    rc = ext_apart_wait(e, id);
    if (rc == 0 && (e->devs_absent > 0 || ext_is_left(e, id)))
        return err_set(ERR_IO, "extent %" PRIu64 " may be on a disk that is out of service", id);
    return rc;
}

int engine_delete(struct engine *e, uint64_t term, uint64_t id, uint64_t epoch)
{
    struct map_hold hold = {0};
    struct ext *x;
    struct refs_hold refs = {0};
    struct dev *d;
    uint64_t rsn;
    int rc = ext_admit(e, id, &x);

    if (rc < 0)
        return rc;
    LIST_FOREACH (any, &e->devs, struct dev, link) {
        if (term < any->j.term)
            return err_set(ERR_STALE, "term %" PRIu64 " is over, %" PRIu64 " was seen", term,
                           any->j.term);
    }
    if (x == NULL)
        return delete_absent(e, id, epoch);
    d = x->dev;
    rc = dev_check(d);
    if (rc < 0)
        return rc;
    if (epoch < x->epoch)
        return err_set(ERR_STALE, "extent %" PRIu64 " is at epoch %" PRIu64 ", not %" PRIu64, id,
                       x->epoch, epoch);
    if (x->deleting)
        return err_set(ERR_BUSY, "extent %" PRIu64 " is being deleted", id);
    ext_get(x);
    x->deleting = true; /* admits nothing more */
    x->open_epoch = 0;
    ops_wait_below(x, UINT64_MAX);
    rc = ext_apart_wait(e, id); /* or a start would find that copy, and take it for the extent */
    if (rc == 0)
        rc = dev_check(d);
    if (rc == 0)
        rc = home_lent(x, 0, BLOCKS_PER_EXTENT - 1);
    if (rc == 0)
        rc = map_hold(x, 0, BLOCKS_PER_EXTENT - 1, &hold);
    if (rc == ERR_CORRUPT)
        rc = 0; /* its blocks can't be named: they stay allocated until a check finds them */
    if (rc == 0)
        rc = refs_load_map(x, 0, BLOCKS_PER_EXTENT - 1, &refs);
    if (rc == 0)
        rc = journal_space(d, delete_cost(d), true);
    x->deleting = false;
    if (rc == 0) {
        rsn = delete_add(x, term);
        ext_unlist(x);
        ext_apart_begin(x);
        ext_forget(x);
        deleted_note(e, id, epoch);
        rc = apart_deleted(x, journal_wait(d, rsn));
    }
    if (rc == 0 && ext_is_left(e, id))
        rc = err_set(ERR_IO, "a former copy of extent %" PRIu64 " is on a disk that failed", id);
    map_release(&hold);
    refs_hold_free(&refs);
    ext_put(x);
    return rc;
}

int ext_discard(struct ext *x)
{
    struct dev *d = x->dev;
    struct refs_hold refs = {0};
    struct map_hold hold = {0};
    uint64_t rsn;
    int rc = home_lent(x, 0, BLOCKS_PER_EXTENT - 1);

    if (rc == 0)
        rc = map_hold(x, 0, BLOCKS_PER_EXTENT - 1, &hold);
    if (rc == ERR_CORRUPT)
        rc = 0; /* as above */
    if (rc == 0)
        rc = refs_load_map(x, 0, BLOCKS_PER_EXTENT - 1, &refs);
    if (rc == 0)
        rc = journal_space(d, delete_cost(d), true);
    rsn = rc == 0 ? delete_add(x, d->j.term) : 0;
    ext_forget(x);
    map_release(&hold);
    refs_hold_free(&refs);
    if (rc == 0)
        rc = journal_wait(d, rsn);
    return apart_deleted(x, rc);
}
