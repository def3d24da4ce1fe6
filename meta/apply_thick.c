/* SPDX-License-Identifier: Apache-2.0
 *
 * Applying records that make volumes thick, or thin again: a walk over the volume's slots. */
#include "meta/apply.h"
#include "meta/codec.h"
#include "meta/table.h"

/* A promise is made for every slot, but only an extent that the volume alone has can have one that
 * is to be taken back. */
static uint32_t slot_to_do(const struct state *st, const struct volume *v, uint32_t from)
{
    for (uint32_t n = from; n < v->n_slots; n++) {
        const struct extent *e = volume_extent(v, n);

        if (v->provisioning.thick || (e != NULL && extent_volume(st, e) == v))
            return n;
    }
    return v->n_slots;
}

void apply_volume_thick(struct apply *a, struct volume *v, bool thick)
{
    if (thick == v->provisioning.thick)
        return;
    v->provisioning.thick = thick;
    state_volume_pass(a->st, v, a->number, slot_to_do(a->st, v, 0), false);
}

/* A walk that comes there later goes on; else a new one, so that nobody's answer about a slot as it
 * was before is taken for one about what is there now. */
void apply_volume_thick_from(struct apply *a, struct volume *v, uint32_t slot)
{
    const Zbs__Meta__Provisioning *p = &v->provisioning;

    if (p->thick && slot < v->n_slots && (p->pass == 0 || p->next_slot >= slot))
        state_volume_pass(a->st, v, a->number, slot, false);
}

int apply_volume_pass(struct apply *a)
{
    const Zbs__Metalog__VolumePass *m = a->record->volume_pass;
    struct volume *v = state_volume(a->st, m->volume_id);
    uint64_t pass;

    if (v == NULL || v->removed || v->snapshot)
        return apply_misfit(a, "volume");
    pass = m->again ? a->number : v->provisioning.pass;
    if (pass == 0 || (m->again && !v->provisioning.thick))
        return apply_misfit(a, "volume whose slots are all as they should be");
    state_volume_pass(a->st, v, pass, slot_to_do(a->st, v, m->next_slot), m->no_space);
    v->version = a->number;
    codec_put_volume(a->to, v);
    return 0;
}
