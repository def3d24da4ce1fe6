/* SPDX-License-Identifier: Apache-2.0
 *
 * Locks of files' bytes: see locks.h. */
#include "meta/locks.h"

#include <string.h>
#include "common/base/assert.h"
#include "common/base/mem.h"

struct lock_holder *inode_lock_holder(const struct inode *i, const char *client,
                                      const ProtobufCBinaryData *owner, uint32_t svid)
{
    LIST_FOREACH (h, &i->locks, struct lock_holder, of_inode) {
        if (h->svid == svid && h->owner_len == owner->len &&
            (owner->len == 0 || memcmp(h->owner, owner->data, owner->len) == 0) &&
            strcmp(h->client, client) == 0)
            return h;
    }
    return NULL;
}

static bool ranges_meet(const struct lock_range *a, const struct lock_range *b)
{
    return a->start < b->end && b->start < a->end;
}

static bool ranges_conflict(const struct lock_range *a, const struct lock_range *b)
{
    return ranges_meet(a, b) && (a->exclusive || b->exclusive);
}

bool holder_has(const struct lock_holder *h, const struct lock_range *r)
{
    for (uint32_t i = 0; i < h->n_ranges; i++) {
        if (ranges_meet(&h->ranges[i], r))
            return true;
    }
    return false;
}

const struct lock_range *inode_lock_conflict(const struct inode *i, const struct lock_holder *self,
                                             const struct lock_range *want,
                                             const struct lock_holder **ret_holder)
{
    LIST_FOREACH (h, &i->locks, struct lock_holder, of_inode) {
        for (uint32_t k = 0; h != self && k < h->n_ranges; k++) {
            if (!ranges_conflict(&h->ranges[k], want))
                continue;
            *ret_holder = h;
            return &h->ranges[k];
        }
    }
    return NULL;
}

struct lock_holder *tree_holder_add(struct tree *t, struct inode *i, uint64_t id,
                                    const char *client, const ProtobufCBinaryData *owner,
                                    uint32_t svid)
{
    struct lock_holder *h = MEM_NEW(struct lock_holder);

    h->id = id;
    h->inode = i;
    h->client = mem_strdup(client);
    h->owner = mem_alloc(MAX(owner->len, (size_t)1));
    if (owner->len > 0)
        memcpy(h->owner, owner->data, owner->len);
    h->owner_len = (uint32_t)owner->len;
    h->svid = svid;
    list_push_back(&t->lock_holders, &h->link);
    list_push_back(&i->locks, &h->of_inode);
    t->n_lock_holders++;
    return h;
}

void tree_holder_remove(struct tree *t, struct lock_holder *h)
{
    list_del(&h->link);
    list_del(&h->of_inode);
    t->n_lock_holders--;
    mem_free(h->client);
    mem_free(h->owner);
    mem_free(h->ranges);
    mem_free(h);
}

/* Joins it to the last one if they meet and are of one kind. */
static void push(struct lock_range *to, uint32_t *n, const struct lock_range *r)
{
    if (r->start >= r->end)
        return;
    if (*n > 0 && to[*n - 1].end == r->start && to[*n - 1].exclusive == r->exclusive)
        to[*n - 1].end = r->end;
    else
        to[(*n)++] = *r;
}

void holder_change(struct lock_holder *h, const struct lock_range *r, bool set)
{
    struct lock_range *ranges = MEM_NEW_ARRAY(struct lock_range, h->n_ranges + 2);
    bool placed = !set;
    uint32_t n = 0;

    for (uint32_t i = 0; i < h->n_ranges; i++) {
        const struct lock_range *old = &h->ranges[i];
        struct lock_range before = *old, after = *old;

        before.end = MIN(before.end, r->start);
        after.start = MAX(after.start, r->end);
        push(ranges, &n, &before);
        if (!placed && old->end > r->start) {
            push(ranges, &n, r);
            placed = true;
        }
        push(ranges, &n, &after);
    }
    if (!placed)
        push(ranges, &n, r);
    mem_free(h->ranges);
    h->ranges = ranges;
    h->n_ranges = n;
}
