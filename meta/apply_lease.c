/* SPDX-License-Identifier: Apache-2.0
 *
 * Applying records of leases, extents and replica sets (PROTOCOL 1, 5). */
#include <string.h>
#include "common/base/assert.h"
#include "meta/apply.h"
#include "meta/codec.h"

/* Adds a replica at the end: a member if there are no absent ones yet and `member`. */
static int add_replica(struct apply *a, struct extent *e, uint32_t chunk_id, bool member)
{
    const struct chunk *c = state_chunk(a->st, chunk_id);

    if (c == NULL || extent_has_member(e, chunk_id) || extent_has_absent(e, chunk_id) ||
        e->n_members + e->n_absent >= SLOT_REPLICAS_MAX)
        return apply_misfit(a, "replica on an unknown chunk server, or twice, or too many");
    if (chunk_garbage(c, e->id) != NULL)
        return apply_misfit(a, "replica where a former one is still to be deleted");
    e->replicas[e->n_members + e->n_absent] = chunk_id;
    if (member)
        e->n_members++;
    else
        e->n_absent++;
    return 0;
}

/* A new extent in a slot that was a hole, or had a shared extent, the new one's origin. */
static int grant_extent(struct apply *a, struct volume *v, const Zbs__Metalog__GrantItem *item,
                        uint64_t extent_id)
{
    struct extent *origin = volume_extent(v, item->slot), *e;
    struct table_page *p;
    int rc = 0;

    if ((origin != NULL ? origin->id : 0) != item->origin ||
        (origin != NULL && (!origin->created || !extent_is_shared(a->st, origin))))
        return apply_misfit(a, "a new extent in a slot that has another");
    e = state_extent_add(a->st, extent_id, origin != NULL ? origin->family : extent_id, item->slot);
    extent_set_origin(e, origin);
    e->set_number = 1;
    e->pool_id = v->pool_id;
    e->wanted = (uint8_t)v->replicas;
    e->min_replicas = (uint8_t)v->min_replicas;
    for (size_t i = 0; i < item->n_members && rc == 0; i++)
        rc = add_replica(a, e, item->members[i], true);
    for (size_t i = 0; i < item->n_absent && rc == 0; i++)
        rc = add_replica(a, e, item->absent[i], false);
    if (rc < 0)
        return rc;
    state_extent_count(a->st, e);
    p = apply_page_own(a, v, item->slot / SLOTS_PER_PAGE);
    page_set(p, v, item->slot % SLOTS_PER_PAGE, e);
    codec_put_page(a->to, p);
    return 0;
}

/* A slot's lease; also its extent's, if no other volume has that. */
static int grant_slot(struct apply *a, struct volume *v, const Zbs__Metalog__LeaseGrant *m,
                      size_t i)
{
    const Zbs__Metalog__GrantItem *item = m->items[i];
    struct session *owner;
    struct extent *e;
    struct slot *s;
    int rc;

    if (item->slot >= v->n_slots)
        return apply_misfit(a, "slot beyond the volume");
    s = volume_slot_make(v, item->slot);
    owner = slot_owner(a->st, s);
    if (owner != NULL && owner->id != m->session_id)
        return apply_misfit(a, "slot has another live owner");
    ASSERT(s->epoch < a->number);
    s->epoch = v->granted_at = a->number;
    state_slot_own(a->st, s, m->session_id);
    codec_put_slot(a->to, s);
    if (item->n_members > 0) {
        rc = grant_extent(a, v, item, a->number + i);
        if (rc < 0)
            return rc;
    }
    e = volume_extent(v, item->slot);
    if (e == NULL || extent_is_shared(a->st, e))
        return 0;
    e->epoch = a->number;
    extent_lease_end(a->st, e);
    apply_extent_policy(a, v, e); /* others that had it may have asked for more */
    codec_put_extent(a->to, e);
    return 0;
}

/* A shared extent's own lease. */
static int grant_shared(struct apply *a, const Zbs__Metalog__LeaseGrant *m)
{
    struct extent *e = state_extent(a->st, m->extent_id);
    struct session *owner;

    if (e == NULL || !extent_is_shared(a->st, e))
        return apply_misfit(a, "lease of an extent that is not shared");
    owner = e->lease != NULL ? slot_owner(a->st, e->lease) : NULL;
    if (owner != NULL && owner->id != m->session_id)
        return apply_misfit(a, "extent has another live owner");
    e->epoch = extent_lease_make(e)->epoch = a->number;
    state_slot_own(a->st, e->lease, m->session_id);
    codec_put_extent(a->to, e);
    return 0;
}

int apply_lease_grant(struct apply *a)
{
    const Zbs__Metalog__LeaseGrant *m = a->record->lease_grant;
    struct volume *v = state_volume(a->st, m->volume_id);
    int rc = 0;

    if (state_session(a->st, m->session_id) == NULL)
        return apply_misfit(a, "grant to an unknown session");
    if (m->volume_id == 0)
        return grant_shared(a, m);
    if (v == NULL || v->removed || v->snapshot)
        return apply_misfit(a, "grant of an unknown volume or of a snapshot");
    for (size_t i = 0; i < m->n_items && rc == 0; i++)
        rc = grant_slot(a, v, m, i);
    return rc;
}

static int return_shared(struct apply *a, const Zbs__Metalog__LeaseReturn *m)
{
    for (size_t i = 0; i < m->n_extent_ids; i++) {
        struct extent *e = state_extent(a->st, m->extent_ids[i]);

        if (e == NULL || e->lease == NULL || e->lease->owner != m->session_id)
            return apply_misfit(a, "return by another than the owner");
        if (m->unclean)
            state_slot_own(a->st, e->lease, OWNER_GONE);
        else
            extent_lease_end(a->st, e);
        codec_put_extent(a->to, e);
    }
    return 0;
}

int apply_lease_return(struct apply *a)
{
    const Zbs__Metalog__LeaseReturn *m = a->record->lease_return;
    struct volume *v = state_volume(a->st, m->volume_id);

    if (m->volume_id == 0)
        return return_shared(a, m);
    if (v == NULL)
        return apply_misfit(a, "return for an unknown volume");
    for (size_t i = 0; i < m->n_slots; i++) {
        struct slot *s = volume_slot(v, m->slots[i]);

        if (s == NULL || s->owner != m->session_id)
            return apply_misfit(a, "return by another than the owner");
        state_slot_own(a->st, s, m->unclean ? OWNER_GONE : 0);
        codec_put_slot(a->to, s);
    }
    return 0;
}

int apply_extents_created(struct apply *a)
{
    const Zbs__Metalog__ExtentsCreated *m = a->record->extents_created;

    for (size_t i = 0; i < m->n_extent_ids; i++) {
        struct extent *e = state_extent(a->st, m->extent_ids[i]), *origin;

        if (e == NULL)
            return apply_misfit(a, "creation of an unknown extent");
        origin = e->origin;
        extent_set_created(e);
        codec_put_extent(a->to, e);
        if (origin != NULL)
            apply_extent_drop(a, origin);
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

/* Absent replicas that are none any more: garbage where they were. */
static int forget_replicas(struct apply *a, struct extent *e, const Zbs__Metalog__ReplicaSet *m)
{
    uint32_t kept = e->n_members;

    for (uint32_t i = e->n_members; i < e->n_members + e->n_absent; i++) {
        struct chunk *c = state_chunk(a->st, e->replicas[i]);

        if (!list_has(m->forget, m->n_forget, c->id)) {
            e->replicas[kept++] = c->id;
            continue;
        }
        chunk_garbage_add(c, e->id, e->epoch, e->family);
        codec_put_garbage(a->to, c->id, e->id, chunk_garbage(c, e->id));
    }
    if (kept + m->n_forget != e->n_members + e->n_absent)
        return apply_misfit(a, "forgotten replica");
    e->n_absent = (uint8_t)(kept - e->n_members);
    return 0;
}

/* The set after removals and additions. */
static bool change_set(struct extent *e, const Zbs__Metalog__ReplicaSet *m)
{
    uint32_t members[SLOT_REPLICAS_MAX], absent[SLOT_REPLICAS_MAX];
    uint32_t n_members = 0, n_absent = 0;

    for (uint32_t i = 0; i < e->n_members; i++) {
        if (!list_has(m->remove, m->n_remove, e->replicas[i]))
            members[n_members++] = e->replicas[i];
    }
    for (uint32_t i = 0; i < e->n_members; i++) {
        if (list_has(m->remove, m->n_remove, e->replicas[i]))
            absent[n_absent++] = e->replicas[i];
    }
    for (uint32_t i = 0; i < e->n_absent; i++) {
        uint32_t id = extent_absent(e)[i];

        if (list_has(m->add, m->n_add, id))
            members[n_members++] = id;
        else
            absent[n_absent++] = id;
    }
    if (n_members == 0)
        return false;
    e->n_members = (uint8_t)n_members;
    e->n_absent = (uint8_t)n_absent;
    memcpy(e->replicas, members, n_members * sizeof(members[0]));
    memcpy(e->replicas + n_members, absent, n_absent * sizeof(absent[0]));
    e->set_number++;
    return true;
}

/* A child that is to begin as the copy of a replica which left the set would not begin whole. */
static void children_leave(struct apply *a, const struct extent *e,
                           const Zbs__Metalog__ReplicaSet *m)
{
    Zbs__Metalog__ReplicaSet removal = ZBS__METALOG__REPLICA_SET__INIT;

    removal.remove = m->remove;
    removal.n_remove = m->n_remove;
    LIST_FOREACH (child, &e->unborn, struct extent, sibling) {
        state_extent_uncount(a->st, child);
        (void)change_set(child, &removal);
        state_extent_count(a->st, child);
        codec_put_extent(a->to, child);
    }
}

int apply_replica_set(struct apply *a)
{
    const Zbs__Metalog__ReplicaSet *m = a->record->replica_set;
    struct extent *e = state_extent(a->st, m->extent_id);
    Zbs__Meta__ReplicaChangeReply view;
    uint32_t n_members;
    int rc = 0;

    if (e == NULL)
        return apply_misfit(a, "replica set of an unknown extent");
    n_members = e->n_members;
    state_extent_uncount(a->st, e);
    if (!change_set(e, m) || e->n_members != n_members - m->n_remove + m->n_add)
        return apply_misfit(a, "replica set");
    rc = forget_replicas(a, e, m);
    for (size_t i = 0; i < m->n_adopt && rc == 0; i++)
        rc = add_replica(a, e, m->adopt[i], false);
    state_extent_count(a->st, e);
    codec_put_extent(a->to, e);
    if (m->n_remove > 0)
        children_leave(a, e, m);
    view_replicas(&view, e);
    a->reply = view_pack(&view.base, a->pad);
    return rc;
}
