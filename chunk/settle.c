/* SPDX-License-Identifier: Apache-2.0
 *
 * The extents of a device that was opened join those of the others. Two devices may hold copies of
 * one extent: the move from one to the other was interrupted, or the replica was made anew on a
 * healthy disk while this one was out of service. One copy is in force, the other is deleted:
 *   - a twin that had not arrived loses;
 *   - a copy that is in use (the device was added while running) stays;
 *   - else the higher epoch wins: a replica is made anew only under a higher one (PROTOCOL 5.4);
 *   - else the higher last version, then the higher commit point: the other missed writes;
 *   - else they are equal, and the one on the device opened first stays. */
#include <inttypes.h>
#include "chunk/internal.h"

static int copy_cmp(const struct ext *a, const struct ext *b)
{
    int rc = a->epoch < b->epoch ? -1 : a->epoch > b->epoch;

    if (rc == 0)
        rc = version_cmp(a->last, b->last);
    return rc != 0 ? rc : version_cmp(a->cp, b->cp);
}

/* Deletes what lost, one after the other. One where that fails stays until the next start. */
static int discard_main(void *arg)
{
    struct dev *d = arg;

    while (!list_empty(&d->doomed) && dev_check(d) == 0) {
        struct ext *x = LIST_FIRST(&d->doomed, struct ext, doom);
        uint64_t id = x->id;
        int rc;

        list_del(&x->doom);
        rc = ext_discard(x);
        if (rc == 0)
            log_info("extent.discarded", "extent=%" PRIu64 " disk=%s", id, d->path);
        else if (rc != ERR_HALTED)
            log_warn("extent.discard", "extent=%" PRIu64 " disk=%s why=\"%s\"", id, d->path,
                     err_text(rc));
    }
    d->discarding = false;
    co_cond_broadcast(&d->doomed_less);
    return 0;
}

static void doom(struct ext *x)
{
    struct dev *d = x->dev;

    x->dead = true;
    x->open_epoch = 0;
    ext_apart_begin(x);
    list_push_back(&d->doomed, &x->doom);
    if (d->discarding)
        return;
    d->discarding = true;
    co_spawn_detached_deadline(&d->group, "discard", discard_main, d);
}

void dev_settle(struct dev *d)
{
    d->unsettled = false;
    HTAB_FOREACH (x, &d->opening, struct ext, node) {
        struct ext *other = ext_find(d->e, x->id);

        htab_remove(&d->opening, &x->node);
        if (x->arriving) { /* a move that did not end */
            doom(x);
            continue;
        }
        if (other == NULL) {
            ext_insert(x);
            continue;
        }
        log_warn("extent.twice", "extent=%" PRIu64 " disk=%s other=%s", x->id, d->path,
                 other->dev->path);
        if (other->open_epoch != 0 || !list_empty(&other->ops) || copy_cmp(x, other) <= 0) {
            doom(x);
            continue;
        }
        ext_unlist(other);
        ext_insert(x);
        doom(other);
    }
    htab_fini(&d->opening);
}

void dev_settled_wait(struct dev *d)
{
    while (d->discarding && !d->failed)
        co_cond_wait_always(&d->doomed_less);
}

void dev_settle_end(struct dev *d)
{
    struct list *l;

    while ((l = list_pop_front(&d->doomed)) != NULL) {
        struct ext *x = LIST_ENTRY(l, struct ext, doom);

        x->left = true;
        ext_forget(x);
    }
    HTAB_FOREACH (x, &d->apart, struct ext, node) {
        if (x->left) /* else a move has it, which is about to end */
            ext_apart_end(x);
    }
}
