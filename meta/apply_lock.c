/* SPDX-License-Identifier: Apache-2.0
 *
 * Applying records of locks. */
#include <string.h>
#include "meta/apply.h"
#include "meta/codec.h"
#include "meta/locks.h"

void apply_holder_drop(struct apply *a, struct lock_holder *h)
{
    codec_del_holder(a->to, h);
    tree_holder_remove(&a->st->tree, h);
}

int apply_lock_set(struct apply *a)
{
    const Zbs__Metalog__LockSet *m = a->record->lock_set;
    const struct lock_range r = {.start = m->start, .end = m->end, .exclusive = m->exclusive};
    struct inode *i = tree_inode(&a->st->tree, m->inode_id);
    struct lock_holder *h;

    if (i == NULL || m->start >= m->end)
        return apply_misfit(a, "lock");
    h = inode_lock_holder(i, m->client, &m->owner, m->svid);
    if (h == NULL && m->clear)
        return apply_misfit(a, "end of a lock that nobody has");
    if (h == NULL)
        h = tree_holder_add(&a->st->tree, i, a->number, m->client, &m->owner, m->svid);
    holder_change(h, &r, !m->clear);
    if (h->n_ranges == 0)
        apply_holder_drop(a, h);
    else
        codec_put_holder(a->to, h);
    return 0;
}

int apply_lock_forget(struct apply *a)
{
    const char *client = a->record->lock_forget->client;

    LIST_FOREACH_SAFE (h, &a->st->tree.lock_holders, struct lock_holder, link) {
        if (strcmp(h->client, client) == 0)
            apply_holder_drop(a, h);
    }
    return 0;
}
