/* SPDX-License-Identifier: Apache-2.0
 *
 * Late deletions are remembered. Whoever owned an extent when it was deleted may not know yet, and
 * still be bringing a replica back: it is unknown here, so the owner asks to create it. Made anew,
 * it would be nobody's, and take space until meta has watched it for as long as its setting
 * gc.delay says. An owner's epoch is at most the one that meta names with the deletion; who makes
 * the replica again in earnest, later, has a higher one (PROTOCOL 5.4).
 *
 * In memory only, and ids that are equal modulo the table's size push one another out: what slips
 * through is collected by meta all the same. */
#include "chunk/internal.h"

#define PLACES 4096u

struct deletion {
    uint64_t id, epoch;
};

void deleted_init(struct engine *e)
{
    e->deleted = MEM_NEW_ARRAY(struct deletion, PLACES);
    budget_fixed(&e->memory, PLACES * sizeof(struct deletion));
}

void deleted_fini(struct engine *e)
{
    mem_free(e->deleted);
    budget_fixed(&e->memory, -(int64_t)(PLACES * sizeof(struct deletion)));
}

void deleted_note(struct engine *e, uint64_t id, uint64_t epoch)
{
    e->deleted[id % PLACES] = (struct deletion){id, epoch};
}

bool deleted_since(const struct engine *e, uint64_t id, uint64_t epoch)
{
    const struct deletion *d = &e->deleted[id % PLACES];

    return d->id == id && epoch <= d->epoch;
}
