/* SPDX-License-Identifier: Apache-2.0
 *
 * One budget for all memory of an engine that is not needed but useful: what can be read again
 * from the device. Whoever keeps such things is a user of the budget: it says how much it holds,
 * and is asked to give some back when all together hold too much. */
#ifndef ZBS_CHUNK_MEMORY_H
#define ZBS_CHUNK_MEMORY_H

#include <stdbool.h>
#include <stdint.h>
#include "common/base/list.h"

struct budget_user {
    struct list link;
    uint64_t bytes; /* held now */
    uint64_t share; /* while it holds no more than this, others that do are asked first */
    /* Gives back at least so many bytes, by budget_sub, or as many as it can. Does not suspend,
     * and leaves alone what somebody is using. */
    void (*reclaim)(void *arg, uint64_t bytes);
    void *arg;
};
struct budget {
    uint64_t bytes;    /* the limit */
    uint64_t fixed;    /* needed in any case */
    uint64_t used;     /* by all users */
    struct list users; /* those of least value first */
    bool reclaiming;
};

void budget_init(struct budget *b, uint64_t bytes);
/* Users join in order of value, the least first. share_pct: of the limit. */
void budget_join(struct budget *b, struct budget_user *u, uint32_t share_pct,
                 void (*reclaim)(void *arg, uint64_t bytes), void *arg);
/* May ask any user to give something back, this one too. */
void budget_add(struct budget *b, struct budget_user *u, uint64_t bytes);
void budget_sub(struct budget *b, struct budget_user *u, uint64_t bytes);
/* Memory that can't be given back: it leaves less for the users, but never under a quarter. */
void budget_fixed(struct budget *b, int64_t bytes);
/* For users that could not give anything when they were asked. */
void budget_trim(struct budget *b);
uint64_t budget_room(const struct budget *b); /* for all users together */

#endif
