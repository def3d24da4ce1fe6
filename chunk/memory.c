/* SPDX-License-Identifier: Apache-2.0
 *
 * The budget: who is asked to give memory back, and how much. */
#include "chunk/memory.h"
#include "common/base/assert.h"
#include "common/base/attr.h"

void budget_init(struct budget *b, uint64_t bytes)
{
    *b = (struct budget){.bytes = bytes};
    list_init(&b->users);
}

void budget_join(struct budget *b, struct budget_user *u, uint32_t share_pct,
                 void (*reclaim)(void *arg, uint64_t bytes), void *arg)
{
    *u = (struct budget_user){.share = b->bytes / 100 * share_pct, .reclaim = reclaim, .arg = arg};
    list_push_back(&b->users, &u->link);
}

uint64_t budget_room(const struct budget *b)
{
    uint64_t least = b->bytes / 4;

    return b->bytes > b->fixed + least ? b->bytes - b->fixed : least;
}

static uint64_t over(const struct budget *b)
{
    uint64_t room = budget_room(b);

    return b->used > room ? b->used - room : 0;
}

void budget_trim(struct budget *b)
{
    if (b->reclaiming)
        return;
    b->reclaiming = true;
    LIST_FOREACH (u, &b->users, struct budget_user, link) {
        if (over(b) > 0 && u->bytes > u->share)
            u->reclaim(u->arg, MIN(over(b), u->bytes - u->share));
    }
    LIST_FOREACH (u, &b->users, struct budget_user, link) {
        if (over(b) > 0 && u->bytes > 0)
            u->reclaim(u->arg, over(b));
    }
    b->reclaiming = false;
}

void budget_add(struct budget *b, struct budget_user *u, uint64_t bytes)
{
    u->bytes += bytes;
    b->used += bytes;
    if (over(b) > 0)
        budget_trim(b);
}

void budget_sub(struct budget *b, struct budget_user *u, uint64_t bytes)
{
    ASSERT(u->bytes >= bytes && b->used >= bytes);
    u->bytes -= bytes;
    b->used -= bytes;
}

void budget_fixed(struct budget *b, int64_t bytes)
{
    b->fixed += (uint64_t)bytes;
    if (over(b) > 0)
        budget_trim(b);
}
