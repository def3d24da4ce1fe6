/* SPDX-License-Identifier: Apache-2.0
 *
 * Applying records of leases, extents and replica sets (PROTOCOL 1, 5). */
#include <string.h>
#include "common/base/assert.h"
#include "meta/apply.h"
#include "meta/codec.h"

/* Adds a replica at the end: a member if there are no absent ones yet and `member`. */
static int slot_add_replica(struct apply *a, struct slot *s, uint32_t chunk_id, bool member)
{
    if (state_chunk(a->st, chunk_id) == NULL || slot_has_member(s, chunk_id) ||
        slot_has_absent(s, chunk_id) || s->n_members + s->n_absent >= SLOT_REPLICAS_MAX)
        return apply_misfit(a, "replica on an unknown chunk server, or twice, or too many");
    s->replicas[s->n_members + s->n_absent] = chunk_id;
    if (member)
        s->n_members++;
    else
        s->n_absent++;
    return 0;
}

static int grant_extent(struct apply *a, struct slot *s, const Zbs__Metalog__GrantItem *item,
                        uint64_t extent_id)
{
    int rc = 0;

    if (s->extent_id != 0)
        return apply_misfit(a, "a new extent in a slot that has one");
    for (size_t i = 0; i < item->n_members && rc == 0; i++)
        rc = slot_add_replica(a, s, item->members[i], true);
    for (size_t i = 0; i < item->n_absent && rc == 0; i++)
        rc = slot_add_replica(a, s, item->absent[i], false);
    if (rc < 0)
        return rc;
    s->extent_id = extent_id;
    s->set_number = 1;
    s->created = false;
    idmap_put_ptr(&a->st->extents, extent_id, s);
    return 0;
}

int apply_lease_grant(struct apply *a)
{
    const Zbs__Metalog__LeaseGrant *m = a->record->lease_grant;
    struct volume *v = state_volume(a->st, m->volume_id);

    if (v == NULL || v->removed || state_session(a->st, m->session_id) == NULL)
        return apply_misfit(a, "grant of an unknown volume or to an unknown session");
    for (size_t i = 0; i < m->n_items; i++) {
        const Zbs__Metalog__GrantItem *item = m->items[i];
        struct slot *s;
        struct session *owner;

        if (item->slot >= v->n_slots)
            return apply_misfit(a, "slot beyond the volume");
        s = volume_slot_make(v, item->slot);
        owner = slot_owner(a->st, s);
        if (owner != NULL && owner->id != m->session_id)
            return apply_misfit(a, "slot has another live owner");
        ASSERT(s->epoch < a->number);
        s->epoch = a->number;
        state_slot_own(a->st, s, m->session_id);
        if (item->n_members > 0) {
            int rc;

            state_slot_uncount(a->st, s);
            rc = grant_extent(a, s, item, a->number + i);
            if (rc < 0)
                return rc;
            state_slot_count(a->st, s);
        }
        codec_put_slot(a->to, s);
    }
    return 0;
}

int apply_lease_return(struct apply *a)
{
    const Zbs__Metalog__LeaseReturn *m = a->record->lease_return;
    struct volume *v = state_volume(a->st, m->volume_id);

    if (v == NULL)
        return apply_misfit(a, "return for an unknown volume");
    for (size_t i = 0; i < m->n_slots; i++) {
        struct slot *s = volume_slot(v, m->slots[i]);

        if (s == NULL || s->owner != m->session_id)
            return apply_misfit(a, "return by another than the owner");
        state_slot_own(a->st, s, 0);
        codec_put_slot(a->to, s);
    }
    return 0;
}

int apply_extents_created(struct apply *a)
{
    const Zbs__Metalog__ExtentsCreated *m = a->record->extents_created;

    for (size_t i = 0; i < m->n_extent_ids; i++) {
        struct slot *s = state_extent(a->st, m->extent_ids[i]);

        if (s == NULL)
            return apply_misfit(a, "creation of an unknown extent");
        s->created = true;
        codec_put_slot(a->to, s);
    }
    return 0;
}

static bool list_has(const uint32_t *ids, size_t n, uint32_t id)
{
    for (size_t i = 0; i < n; i++) {
        if (ids[i] == id)
            return true;
    }
    return false;
}

int apply_replica_set(struct apply *a)
{
    const Zbs__Metalog__ReplicaSet *m = a->record->replica_set;
    struct volume *v = state_volume(a->st, m->volume_id);
    struct slot *s = v != NULL ? volume_slot(v, m->slot) : NULL;
    uint32_t members[SLOT_REPLICAS_MAX], absent[SLOT_REPLICAS_MAX];
    uint32_t n_members = 0, n_absent = 0;
    int rc = 0;
    Zbs__Meta__ReplicaChangeReply view;

    if (s == NULL || s->extent_id == 0)
        return apply_misfit(a, "replica set of an unknown extent");
    for (uint32_t i = 0; i < s->n_members; i++) {
        if (!list_has(m->remove, m->n_remove, s->replicas[i]))
            members[n_members++] = s->replicas[i];
    }
    for (uint32_t i = 0; i < s->n_members; i++) {
        if (list_has(m->remove, m->n_remove, s->replicas[i]))
            absent[n_absent++] = s->replicas[i];
    }
    for (uint32_t i = 0; i < s->n_absent; i++) {
        uint32_t id = slot_absent(s)[i];

        if (list_has(m->add, m->n_add, id))
            members[n_members++] = id;
        else
            absent[n_absent++] = id;
    }
    if (n_members == 0 || n_members != s->n_members - m->n_remove + m->n_add)
        return apply_misfit(a, "replica set");
    state_slot_uncount(a->st, s);
    s->n_members = (uint8_t)n_members;
    s->n_absent = (uint8_t)n_absent;
    memcpy(s->replicas, members, n_members * sizeof(members[0]));
    memcpy(s->replicas + n_members, absent, n_absent * sizeof(absent[0]));
    for (size_t i = 0; i < m->n_adopt && rc == 0; i++)
        rc = slot_add_replica(a, s, m->adopt[i], false);
    s->set_number++;
    state_slot_count(a->st, s);
    codec_put_slot(a->to, s);
    view_replicas(&view, s);
    a->reply = view_pack(&view.base, a->pad);
    return rc;
}
