/* SPDX-License-Identifier: Apache-2.0
 *
 * Emptying a device: its extents move to the engine's other devices, one after the other, while
 * they serve; the device gets no new ones. Taking an empty device out. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "chunk/move.h"

static struct dev *dev_named(struct engine *e, const char *path)
{
    LIST_FOREACH (d, &e->devs, struct dev, link) {
        if (strcmp(d->path, path) == 0)
            return d;
    }
    return NULL;
}

static int no_device(const char *path)
{
    return err_set(ERR_NOTFOUND, "no disk %s in use here", path);
}

/* ---- moving one after the other ---- */

#define RETRIES_MAX 16u /* of moves whose target was full all the same */

/* Frozen ones before those that are written to: what these share they find there. */
struct place_in_pass {
    bool written;
    uint64_t id;
};
struct choosing {
    struct place_in_pass after; /* this pass has done those up to it */
    struct ext *best;
};

static bool is_before(struct place_in_pass a, struct place_in_pass b)
{
    return a.written != b.written ? b.written : a.id < b.id;
}

static struct place_in_pass place_of(const struct ext *x)
{
    return (struct place_in_pass){!x->frozen, x->id};
}

static void choose_one(void *arg, struct ext *x)
{
    struct choosing *c = arg;

    if (!x->dead && !x->deleting && is_before(c->after, place_of(x)) &&
        (c->best == NULL || is_before(place_of(x), place_of(c->best))))
        c->best = x;
}

/* ---- where to ---- */

/* What a copy takes: its blocks, those that it shares too, and room for what its owner was
 * promised. */
static uint32_t blocks_of_copy(const struct ext *x)
{
    uint32_t blocks = META_BLOCKS + x->credits + 1;

    for (uint32_t b = 0; b < BLOCKS_PER_EXTENT; b++)
        blocks += block_mapped(x, b);
    return blocks;
}

struct family {
    const struct ext *x;
    struct dev *there; /* where relatives are that it might share with */
    uint32_t blocks;   /* that it needs, with those relatives that are still here */
};

static void family_one(void *arg, struct ext *z)
{
    struct family *f = arg;
    uint32_t own = META_BLOCKS + f->x->blocks + f->x->credits + 1;

    if (z == f->x || z->family != f->x->family || z->dead || z->deleting)
        return;
    if (z->dev == f->x->dev)
        f->blocks += META_BLOCKS + z->blocks + z->credits;
    else if (dev_may_take(z->dev, own))
        f->there = z->dev;
}

/* Relatives go on sharing: to where some are, or to where all have room. NULL: nowhere. alone: or
 * where only it has. */
static struct dev *target_for(struct ext *x, bool alone)
{
    struct family f = {.x = x, .blocks = blocks_of_copy(x)};
    struct dev *d;

    ext_foreach(x->dev->e, family_one, &f);
    if (f.there != NULL)
        return f.there;
    d = dev_choose(x->dev->e, f.blocks);
    return d == NULL && alone ? dev_choose(x->dev->e, blocks_of_copy(x)) : d;
}

static int target_find(struct ext *x, struct dev **ret)
{
    bool shares = false;
    int rc = x->dev->drain_copies ? 0 : ext_shares(x, &shares);

    if (rc < 0)
        return rc;
    *ret = target_for(x, !shares);
    if (*ret != NULL)
        return 0;
    if (shares && dev_choose(x->dev->e, blocks_of_copy(x)) != NULL)
        return err_set(ERR_REFUSED,
                       "no other disk has room for extent %" PRIu64
                       " and those that it shares blocks with",
                       x->id);
    return err_set(ERR_NOSPACE, "no other disk has room for extent %" PRIu64 " of %" PRIu32 " MiB",
                   x->id, x->blocks / 4);
}

static int drain_one(struct ext *x, uint32_t *retries)
{
    struct dev *to = NULL;
    int rc;

    ext_get(x);
    rc = target_find(x, &to);
    if (rc == 0)
        rc = ext_move(x, to);
    if (rc == ERR_NOSPACE && to != NULL && *retries > 0) {
        (*retries)--; /* others filled the target meanwhile */
        rc = 0;
    }
    ext_put(x);
    /* Whatever the target says is another one's problem: the next attempt chooses again. */
    return rc == ERR_NO_REPLICA || rc == ERR_AGAIN || (rc < 0 && to != NULL && to->failed) ? 0 : rc;
}

struct pass {
    struct place_in_pass after;
    uint32_t moved, refused;
};

static int pass_ended(struct pass *p)
{
    uint32_t refused = p->refused;

    if (refused == 0) /* what is left is being deleted */
        return co_sleep(10 * NSEC_PER_MSEC);
    if (p->moved == 0)
        return err_set(ERR_REFUSED,
                       "%" PRIu32 " replicas share blocks, and no other disk has room for all that"
                       " share the same (--copies moves each to where it has room, as a full copy)",
                       refused);
    *p = (struct pass){0}; /* perhaps there is room now, or they share no longer */
    return 0;
}

static int drain_run(struct dev *d)
{
    uint32_t retries = RETRIES_MAX;
    struct pass p = {0};
    int rc = 0;

    while (rc == 0 && d->extents > 0 && !d->drain_stop) {
        struct choosing c = {.after = p.after};
        struct place_in_pass at;

        rc = dev_check(d);
        if (rc < 0)
            break;
        dev_ext_foreach(d, choose_one, &c);
        if (c.best == NULL) {
            rc = pass_ended(&p);
            continue;
        }
        at = place_of(c.best);
        rc = drain_one(c.best, &retries);
        p.moved += rc == 0;
        if (rc == ERR_REFUSED) {
            p.refused++;
            p.after = at;
            rc = 0;
        }
    }
    return rc;
}

static int drain_main(void *arg)
{
    struct dev *d = arg;
    int rc;

    phase_enter(PHASE_DISK_DRAINING);
    rc = drain_run(d);
    phase_leave(PHASE_DISK_DRAINING);

    if (d->drain_stop) {
        d->drain = DRAIN_NONE;
    } else if (rc == 0) {
        d->drain = DRAIN_DONE;
        log_info("drain.done", "disk=%s worker=%" PRIu32, d->path, d->e->conf.worker);
    } else {
        d->drain = DRAIN_STOPPED;
        snprintf(d->drain_why, sizeof(d->drain_why), "%s", err_text(rc));
        log_warn("drain.stopped", "disk=%s worker=%" PRIu32 " extents=%" PRIu32 " why=\"%s\"",
                 d->path, d->e->conf.worker, d->extents, d->drain_why);
    }
    d->drain_running = false;
    co_cond_broadcast(&d->drain_ended);
    return 0;
}

/* ---- the engine's interface ---- */

int engine_drain(struct engine *e, const char *path)
{
    struct dev *d = dev_named(e, path);
    int rc = d != NULL ? dev_check(d) : no_device(path);

    if (rc < 0 || d->drain_running)
        return rc;
    d->drain = DRAIN_RUNNING;
    d->drain_why[0] = 0;
    d->drain_stop = false;
    d->drain_running = true;
    co_spawn_detached_deadline(&e->drains, "drain", drain_main, d);
    return 0;
}

void engine_drain_copies(struct engine *e, const char *path, bool on)
{
    struct dev *d = dev_named(e, path);

    if (d != NULL)
        d->drain_copies = on;
}

int engine_drain_wait(struct engine *e, const char *path)
{
    struct dev *d = dev_named(e, path);

    if (d == NULL)
        return no_device(path);
    while (d->drain_running)
        co_cond_wait_always(&d->drain_ended);
    if (d->drain == DRAIN_STOPPED)
        return err_set(ERR_NOSPACE, "%s", d->drain_why);
    return d->drain == DRAIN_DONE ? 0 : err_set(ERR_CANCELED, "the drain of %s was ended", path);
}

void engine_drain_stop(struct engine *e, const char *path)
{
    struct dev *d = dev_named(e, path);

    if (d == NULL)
        return;
    d->drain_stop = true;
    while (d->drain_running)
        co_cond_wait_always(&d->drain_ended);
    d->drain = DRAIN_NONE;
}

void drains_end(struct engine *e)
{
    LIST_FOREACH (d, &e->devs, struct dev, link)
        d->drain_stop = true;
    (void)co_group_join(&e->drains);
}

/* ---- taking out ---- */

/* The highest term that deleted something outlives the device that knew it. */
static int terms_carry(struct engine *e, const struct dev *gone)
{
    int rc = 0;

    LIST_FOREACH (d, &e->devs, struct dev, link) {
        if (d == gone || d->failed || d->j.term >= gone->j.term)
            continue;
        co_mutex_lock_always(&d->flush_turn);
        d->j.term = MAX(d->j.term, gone->j.term);
        rc = anchor_write(d);
        co_mutex_unlock(&d->flush_turn);
        if (rc < 0)
            return err_prefix(rc, "disk %s", d->path);
    }
    return 0;
}

int engine_dev_remove(struct engine *e, const char *path, bool force)
{
    struct dev *d = dev_named(e, path);
    struct disk_window w;
    int rc;

    if (d == NULL)
        return 0;
    if (d->drain_running)
        return err_set(ERR_BUSY, "disk %s is being drained", path);
    if (d->extents > 0 && !(force && d->failed))
        return err_set(ERR_BUSY, "disk %s holds %" PRIu32 " replicas%s", path, d->extents,
                       d->failed ? "" : "; drain it first");
    disk_window_take(d->disk, &w);
    if (d->failed && w.oldest > 0)
        return err_set(ERR_BUSY, "disk %s has not answered all requests yet", path);
    rc = terms_carry(e, d);
    if (rc < 0)
        return rc;
    if (d->extents > 0 && !d->failed) /* meanwhile */
        return err_set(ERR_BUSY, "disk %s holds %" PRIu32 " replicas", path, d->extents);
    engine_dev_drop(e, path);
    return 0;
}
