/* SPDX-License-Identifier: Apache-2.0
 *
 * Replay, reading ahead: the map pages that the next records change are read several at a time
 * before these records are applied one after the other. */
#include "chunk/replay.h"

#define RECORDS 256u /* at a time, at least */
#define LANES   16u  /* reads in flight */

struct need {
    struct ext *x;
    uint32_t first, last; /* blocks */
};
struct replay_ahead {
    struct need *needs;
    struct map_hold *holds;
    uint32_t n, cap, next;
};

static void need_add(struct replay_ahead *a, struct ext *x, uint32_t first, uint32_t last)
{
    if (a->n == a->cap) {
        a->cap = a->cap != 0 ? 2 * a->cap : RECORDS;
        a->needs = mem_realloc(a->needs, a->cap * sizeof(*a->needs));
    }
    a->needs[a->n++] = (struct need){ext_get(x), first, last};
}

/* What is not known here (an extent that is yet to be created) is found when it is applied. */
static void needs_of(struct replay_ahead *a, struct dev *d, const struct commit_head *h)
{
    const uint8_t *at = (const uint8_t *)(h + 1);

    for (uint32_t i = 0; i < h->records; i++) {
        const struct rec_head *r = (const struct rec_head *)at;
        const struct rec_write *w = (const struct rec_write *)r;
        struct ext *x = dev_ext_find(d, r->extent_id);

        if (x != NULL && (r->type == REC_MAP || r->type == REC_ZERO ||
                          (r->type == REC_DATA && (r->flags & REC_F_MAP))))
            need_add(a, x, w->first / PAGES_PER_BLOCK, (w->first + w->count - 1) / PAGES_PER_BLOCK);
        if (x != NULL && r->type == REC_ALLOC)
            need_add(a, x, ((const struct rec_alloc *)r)->index,
                     ((const struct rec_alloc *)r)->index);
        at += r->bytes;
    }
}

static int lane(void *arg)
{
    struct replay_ahead *a = arg;

    while (a->next < a->n) {
        uint32_t i = a->next++;
        const struct need *n = &a->needs[i];
        int rc = map_hold(n->x, n->first, n->last, &a->holds[i]);

        if (rc < 0 && rc != ERR_CORRUPT) /* met again, and reported, by who applies the record */
            break;
    }
    return 0;
}

struct replay_ahead *replay_ahead_new(struct dev *d, struct list *commits, struct rcommit *from,
                                      struct rcommit **ret_until)
{
    struct replay_ahead *a = MEM_NEW(struct replay_ahead);
    struct list *at = &from->link;
    uint32_t records = 0;
    struct co_group g;

    for (; at != commits && records < RECORDS; at = at->next) {
        const struct rcommit *c = LIST_ENTRY(at, struct rcommit, link);

        needs_of(a, d, c->head);
        records += c->head->records;
    }
    *ret_until = at != commits ? LIST_ENTRY(at, struct rcommit, link) : NULL;
    a->holds = MEM_NEW_ARRAY(struct map_hold, a->n + 1);
    co_group_init(&g);
    for (uint32_t i = 0; i < MIN(LANES, a->n); i++)
        co_spawn(&g, "replay_ahead", lane, a);
    (void)co_group_join(&g);
    return a;
}

void replay_ahead_free(struct replay_ahead *a)
{
    if (a == NULL)
        return;
    for (uint32_t i = 0; i < a->n; i++) {
        map_release(&a->holds[i]);
        ext_put(a->needs[i].x);
    }
    mem_free(a->holds);
    mem_free(a->needs);
    mem_free(a);
}
