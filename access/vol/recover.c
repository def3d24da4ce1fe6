/* SPDX-License-Identifier: Apache-2.0
 *
 * Shared extents under leases of their own. Such an extent belongs to no volume's slot; when meta
 * wants a replica of it brought back, a page repaired, or the extent opened because somebody left
 * it unclean, it is leased by its id. A pseudo volume has a slot for each that is being worked on:
 * it is driven like any other, but no I/O enters, and all that is written are repairs and copies.
 */
#include "access/vol/vol_int.h"

#include <stdio.h>
#include <string.h>

void recover_init(struct vol_engine *e)
{
    struct volume *v = MEM_NEW(struct volume);

    v->e = e;
    v->known = true;
    v->info.layout = (struct layout){1, BLOCK_BYTES};
    snprintf(v->info.name, sizeof(v->info.name), "(shared extents)");
    co_mutex_init(&v->loading);
    list_push_back(&e->volumes, &v->link);
    e->extents = v;
}

static struct slot *slot_of(struct vol_engine *e, uint64_t extent_id)
{
    struct volume *v = e->extents;
    uint32_t at = v->n_slots;

    for (uint32_t i = 0; i < v->n_slots; i++) {
        if (v->slots[i] && v->slots[i]->extent_id == extent_id)
            return v->slots[i];
        if (!v->slots[i] && at == v->n_slots)
            at = i;
    }
    if (at == v->n_slots) {
        v->cap_slots = ++v->n_slots;
        v->slots = mem_realloc(v->slots, sizeof(*v->slots) * v->n_slots);
    }
    v->slots[at] = slot_new(v, at);
    v->slots[at]->extent_id = extent_id;
    return v->slots[at];
}

void recover_task(struct vol_engine *e, const Zbs__Meta__Task *task)
{
    if (task->extent_id != 0)
        slot_task(slot_of(e, task->extent_id), task);
}

void recover_open(struct vol_engine *e, uint64_t extent_id)
{
    Zbs__Meta__Task task = ZBS__META__TASK__INIT;

    task.extent_id = extent_id;
    task.kind = TASK_OPEN;
    recover_task(e, &task);
}

/* Nothing is known of it at meta that we should end. */
static bool is_over(const struct slot *s)
{
    return (s->state == SLOT_NONE || s->state == SLOT_FOREIGN) && !s->driving && !s->waiters &&
           !s->active && !s->tenures;
}

void recover_tidy(struct vol_engine *e)
{
    struct volume *v = e->extents;

    for (uint32_t i = 0; i < v->n_slots; i++) {
        struct slot *s = v->slots[i];

        if (!s || !is_over(s))
            continue;
        if (s->state == SLOT_NONE && e->session && s->owner == e->session) {
            /* Lost, perhaps unclean, or not known to be given back: once more, then it is. */
            s->want_open = true;
            slot_kick(s);
        } else if (!s->want_open && !s->n_join) {
            slot_free(s);
            v->slots[i] = NULL;
        }
    }
}
