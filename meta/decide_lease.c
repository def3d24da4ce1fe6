/* SPDX-License-Identifier: Apache-2.0
 *
 * Decisions about leases, extents and replica sets (PROTOCOL 1, 5.2, 5.3). */
#include <inttypes.h>
#include <string.h>
#include "common/base/err.h"
#include "common/base/mutate.h"
#include "common/base/units.h"
#include "meta/decide.h"

/* ---- leases ---- */

static int lease_volume(const struct decide *d, uint64_t id, struct volume **ret)
{
    struct volume *v = state_volume(d->st, id);

    if (v == NULL || v->removed) {
        err_set(ERR_NOTFOUND, "volume %" PRIu64 " does not exist", id);
        return ERR_NOTFOUND;
    }
    *ret = v;
    return 0;
}

static int check_range(const struct volume *v, uint32_t first, uint32_t count)
{
    if (count < 1 || count > GRANT_SLOTS_MAX)
        return err_set(ERR_INVAL, "%u slots: 1 to %u are allowed", count, GRANT_SLOTS_MAX);
    if (first >= v->n_slots || count > v->n_slots - first)
        return err_set(ERR_INVAL, "slots %u to %u of volume '%s', which has %u", first,
                       first + count - 1, v->name, v->n_slots);
    return 0;
}

/* Too few servers could be found: why, and is it worth asking again? */
static int no_place(const struct decide *d, const struct volume *v, uint32_t found)
{
    uint32_t alive = 0, heard = 0;

    for (uint32_t i = 0; i < d->w->n_chunks; i++) {
        alive += d->w->chunks[i].alive;
        heard += d->w->chunks[i].alive && d->w->chunks[i].heard;
    }
    if (heard >= v->min_replicas)
        return err_set(ERR_NOSPACE,
                       "%u chunk servers have space, volume '%s' needs %u: add disks or delete "
                       "volumes",
                       found, v->name, v->min_replicas);
    return err_set(ERR_AGAIN, "%u of %u chunk servers are alive, volume '%s' needs %u", alive,
                   d->w->n_chunks, v->name, v->min_replicas);
}

/* Servers that may be alive but have not reported to this leader yet are waited for, rather than
 * left out of new extents. */
static bool worth_waiting(const struct decide *d, uint32_t replicas)
{
    uint32_t heard = 0, unheard = 0;

    for (uint32_t i = 0; i < d->w->n_chunks; i++) {
        heard += d->w->chunks[i].alive && d->w->chunks[i].heard;
        unheard += d->w->chunks[i].alive && !d->w->chunks[i].heard;
    }
    return heard < replicas && unheard > 0;
}

void world_promise(struct world *w, const uint32_t *ids, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t k = 0; k < w->n_chunks; k++) {
            struct place_chunk *c = &w->chunks[k];

            /* Extents are thin: what is promised weighs, but never makes a server full. */
            if (c->id == ids[i])
                c->free_bytes = c->free_bytes > 2 * (uint64_t)EXTENT_BYTES
                                    ? c->free_bytes - EXTENT_BYTES
                                    : MAX(c->free_bytes / 2, c->free_bytes != 0);
        }
    }
}

static int place_extent(const struct decide *d, const struct volume *v,
                        const struct session *session, uint64_t salt, Zbs__Metalog__GrantItem *item)
{
    const char *host = v->preferred_host[0] != 0 ? v->preferred_host : session->host;
    struct place_want want = {.replicas = v->replicas,
                              .failure_domain = v->pool->failure_domain,
                              .preferred_host = host,
                              .seed = d->w->random + salt,
                              .room = volume_room(v)};
    uint32_t n;

    if (worth_waiting(d, v->replicas))
        return err_set(ERR_AGAIN, "not all chunk servers have reported to the new leader yet");
    item->members = PAD_NEW_ARRAY(d->pad, uint32_t, SLOT_REPLICAS_MAX);
    n = place_choose(d->w->chunks, d->w->n_chunks, &want, item->members);
    if (n < v->min_replicas || n == 0)
        return no_place(d, v, n);
    item->n_members = n;
    if (n < v->replicas) {
        item->absent = PAD_NEW_ARRAY(d->pad, uint32_t, SLOT_REPLICAS_MAX);
        item->n_absent = place_owed(d->w->chunks, d->w->n_chunks, &want, item->members, n,
                                    v->replicas - n, false, item->absent);
    }
    world_promise(d->w, item->members, n);
    return 0;
}

/* A child lies where its origin does. */
static void place_child(const struct decide *d, const struct extent *origin,
                        Zbs__Metalog__GrantItem *item)
{
    item->origin = origin->id;
    item->members =
        pad_memdup(d->pad, extent_members(origin), origin->n_members * sizeof(uint32_t));
    item->n_members = origin->n_members;
    item->absent = pad_memdup(d->pad, extent_absent(origin), origin->n_absent * sizeof(uint32_t));
    item->n_absent = origin->n_absent;
}

/* Is there anything to grant that the session does not hold already? */
static bool needs_grant(const struct decide *d, const struct volume *v, const struct slot *s,
                        const struct session *session)
{
    const Zbs__Meta__LeaseAcquireRequest *rq = (const void *)d->rq;
    const struct session *owner = s != NULL ? slot_owner(d->st, s) : NULL;

    if (owner != session)
        return owner == NULL;
    if (rq->new_epoch || s->epoch < v->table_at)
        return true;
    return rq->allocate && !slot_writes(s, slot_extent(s));
}

static int decide_slots(const struct decide *d, const struct session *session,
                        const struct volume *v, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__LeaseAcquireRequest *rq = (const void *)d->rq;
    Zbs__Metalog__LeaseGrant *m;
    uint32_t placed = 0;
    int place_rc = 0;

    m = PAD_NEW(d->pad, Zbs__Metalog__LeaseGrant);
    zbs__metalog__lease_grant__init(m);
    m->session_id = session->id;
    m->volume_id = v->id;
    m->items = PAD_NEW_ARRAY(d->pad, Zbs__Metalog__GrantItem *, rq->count);
    for (uint32_t n = rq->first_slot; n < rq->first_slot + rq->count; n++) {
        const struct extent *e = volume_extent(v, n);
        Zbs__Metalog__GrantItem *item;

        if (!needs_grant(d, v, volume_slot(v, n), session))
            continue;
        item = PAD_NEW(d->pad, Zbs__Metalog__GrantItem);
        zbs__metalog__grant_item__init(item);
        item->slot = n;
        if (rq->allocate && e == NULL && place_rc == 0) {
            place_rc = place_extent(d, v, session, n, item);
            placed += place_rc == 0;
        } else if (rq->allocate && e != NULL && extent_is_shared(d->st, e)) {
            place_child(d, e, item);
            placed++;
        }
        m->items[m->n_items++] = item;
    }
    /* Extents ahead of a writer are a favour; only if nothing could be placed it is an error. */
    if (place_rc < 0 && placed == 0)
        return place_rc;
    *ret = NULL;
    if (m->n_items > 0) {
        *ret = record_new(d->pad, ZBS__METALOG__RECORD__KIND_LEASE_GRANT);
        (*ret)->lease_grant = m;
    }
    return 0;
}

static int lease_shared(const struct decide *d, uint64_t extent_id, struct extent **ret)
{
    struct extent *e = state_extent(d->st, extent_id);

    if (e == NULL)
        return err_set(ERR_NOTFOUND, "extent %" PRIu64 " does not exist", extent_id);
    if (!extent_is_shared(d->st, e))
        return err_set(ERR_STALE, "extent %" PRIu64 " is leased with its volume's slot", extent_id);
    *ret = e;
    return 0;
}

/* The lease of a shared extent by itself. */
static int decide_shared(const struct decide *d, const struct session *session,
                         Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__LeaseAcquireRequest *rq = (const void *)d->rq;
    const struct session *owner;
    struct extent *e;
    int rc = lease_shared(d, rq->extent_id, &e);

    *ret = NULL;
    if (rc < 0)
        return rc;
    owner = e->lease != NULL ? slot_owner(d->st, e->lease) : NULL;
    if (owner != NULL && (owner != session || !rq->new_epoch))
        return 0;
    *ret = record_new(d->pad, ZBS__METALOG__RECORD__KIND_LEASE_GRANT);
    (*ret)->lease_grant = PAD_NEW(d->pad, Zbs__Metalog__LeaseGrant);
    zbs__metalog__lease_grant__init((*ret)->lease_grant);
    (*ret)->lease_grant->session_id = session->id;
    (*ret)->lease_grant->extent_id = e->id;
    return 0;
}

/* A snapshot is read without leases: nothing is granted, the answer shows where its extents are. */
static int decide_leaseless(const struct decide *d, const struct volume *v,
                            Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__LeaseAcquireRequest *rq = (const void *)d->rq;

    *ret = NULL;
    if (rq->allocate)
        return err_set(ERR_PERM, "'%s' is a snapshot: it can't be written to; clone it", v->name);
    return 0;
}

static bool is_held(const struct decide *d, const struct volume *v)
{
    for (uint32_t i = 0; i < d->w->n_held; i++) {
        if (d->w->held[i] == v->id)
            return true;
    }
    return false;
}

int decide_lease_acquire(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__LeaseAcquireRequest *rq = (const void *)d->rq;
    struct session *session;
    struct volume *v;
    int rc = decide_session(d, rq->session_id, &session);

    if (rc == 0 && rq->volume_id == 0)
        return decide_shared(d, session, ret);
    if (rc == 0)
        rc = lease_volume(d, rq->volume_id, &v);
    if (rc == 0)
        rc = check_range(v, rq->first_slot, rq->count);
    if (rc != 0)
        return rc;
    if (v->snapshot)
        return decide_leaseless(d, v, ret);
    rc = decide_slots(d, session, v, ret);
    if (rc == 0 && *ret != NULL && is_held(d, v))
        return err_set(ERR_AGAIN, "volume '%s' is held for a moment for a snapshot or a rollback",
                       v->name);
    return rc;
}

static int answer_shared(const struct decide *d, Zbs__Meta__LeaseAcquireReply *m)
{
    const Zbs__Meta__LeaseAcquireRequest *rq = (const void *)d->rq;
    struct extent *e;
    int rc = lease_shared(d, rq->extent_id, &e);

    if (rc < 0)
        return rc;
    m->grants = PAD_NEW(d->pad, Zbs__Meta__Grant *);
    m->n_grants = 1;
    m->grants[0] = PAD_NEW(d->pad, Zbs__Meta__Grant);
    view_grant_shared(m->grants[0], d->st, e, d->pad);
    return 0;
}

int answer_lease_acquire(const struct decide *d, ProtobufCMessage *reply)
{
    const Zbs__Meta__LeaseAcquireRequest *rq = (const void *)d->rq;
    Zbs__Meta__LeaseAcquireReply *m = (void *)reply;
    struct volume *v;
    int rc;

    if (rq->volume_id == 0)
        return answer_shared(d, m);
    rc = lease_volume(d, rq->volume_id, &v);
    if (rc < 0)
        return rc;
    m->grants = PAD_NEW_ARRAY(d->pad, Zbs__Meta__Grant *, rq->count);
    m->n_grants = rq->count;
    for (uint32_t i = 0; i < rq->count; i++) {
        m->grants[i] = PAD_NEW(d->pad, Zbs__Meta__Grant);
        view_grant(m->grants[i], d->st, v, rq->first_slot + i, d->pad);
    }
    return 0;
}

static int release_shared(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__LeaseReleaseRequest *rq = (const void *)d->rq;
    Zbs__Metalog__LeaseReturn *m = PAD_NEW(d->pad, Zbs__Metalog__LeaseReturn);

    if (rq->n_extent_ids > BATCH_ITEMS_MAX || rq->n_extent_ids != rq->n_epochs)
        return err_set(ERR_INVAL, "%zu extents with %zu epochs: at most %u, as many of both",
                       rq->n_extent_ids, rq->n_epochs, BATCH_ITEMS_MAX);
    zbs__metalog__lease_return__init(m);
    m->session_id = rq->session_id;
    m->unclean = rq->unclean;
    m->extent_ids = PAD_NEW_ARRAY(d->pad, uint64_t, rq->n_extent_ids);
    for (size_t i = 0; i < rq->n_extent_ids; i++) {
        const struct extent *e = state_extent(d->st, rq->extent_ids[i]);
        bool twice = false;

        for (size_t k = 0; k < m->n_extent_ids; k++)
            twice = twice || m->extent_ids[k] == rq->extent_ids[i];
        if (!twice && e != NULL && e->lease != NULL && e->lease->owner == rq->session_id &&
            e->epoch == rq->epochs[i])
            m->extent_ids[m->n_extent_ids++] = e->id;
    }
    if (m->n_extent_ids > 0) {
        *ret = record_new(d->pad, ZBS__METALOG__RECORD__KIND_LEASE_RETURN);
        (*ret)->lease_return = m;
    }
    return 0;
}

/* What is not held any more is returned already. */
int decide_lease_release(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__LeaseReleaseRequest *rq = (const void *)d->rq;
    struct volume *v = state_volume(d->st, rq->volume_id);
    Zbs__Metalog__LeaseReturn *m;

    *ret = NULL;
    if (rq->volume_id == 0)
        return state_session(d->st, rq->session_id) != NULL ? release_shared(d, ret) : 0;
    if (rq->n_slots > BATCH_ITEMS_MAX || rq->n_slots != rq->n_epochs)
        return err_set(ERR_INVAL, "%zu slots with %zu epochs: at most %u, as many of both",
                       rq->n_slots, rq->n_epochs, BATCH_ITEMS_MAX);
    if (v == NULL || state_session(d->st, rq->session_id) == NULL)
        return 0;
    m = PAD_NEW(d->pad, Zbs__Metalog__LeaseReturn);
    zbs__metalog__lease_return__init(m);
    m->session_id = rq->session_id;
    m->unclean = rq->unclean;
    m->volume_id = v->id;
    m->slots = PAD_NEW_ARRAY(d->pad, uint32_t, rq->n_slots);
    for (size_t i = 0; i < rq->n_slots; i++) {
        struct slot *s = volume_slot(v, rq->slots[i]);
        bool twice = false;

        for (size_t k = 0; k < m->n_slots; k++)
            twice = twice || m->slots[k] == rq->slots[i];
        if (!twice && s != NULL && s->owner == rq->session_id && s->epoch == rq->epochs[i])
            m->slots[m->n_slots++] = rq->slots[i];
    }
    if (m->n_slots > 0) {
        *ret = record_new(d->pad, ZBS__METALOG__RECORD__KIND_LEASE_RETURN);
        (*ret)->lease_return = m;
    }
    return 0;
}

/* ---- extents ---- */

int decide_extent_created(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__ExtentCreatedRequest *rq = (const void *)d->rq;
    Zbs__Metalog__ExtentsCreated *m;

    *ret = NULL;
    if (rq->n_extent_ids > BATCH_ITEMS_MAX || rq->n_extent_ids != rq->n_epochs ||
        rq->n_extent_ids != rq->n_set_numbers)
        return err_set(
            ERR_INVAL,
            "%zu extents with %zu epochs and %zu set numbers: at most %u, as many of all",
            rq->n_extent_ids, rq->n_epochs, rq->n_set_numbers, BATCH_ITEMS_MAX);
    m = PAD_NEW(d->pad, Zbs__Metalog__ExtentsCreated);
    zbs__metalog__extents_created__init(m);
    m->extent_ids = PAD_NEW_ARRAY(d->pad, uint64_t, rq->n_extent_ids);
    for (size_t i = 0; i < rq->n_extent_ids; i++) {
        const struct extent *e = state_extent(d->st, rq->extent_ids[i]);
        const struct slot *s = e != NULL ? extent_lease(d->st, e) : NULL;

        /* The owner may have got a higher epoch meanwhile; what was created stays created. */
        if (s == NULL || s->owner != rq->session_id || s->epoch < rq->epochs[i] ||
            state_session(d->st, rq->session_id) == NULL)
            return err_set(ERR_STALE, "extent %" PRIu64 " is not owned at epoch %" PRIu64,
                           rq->extent_ids[i], rq->epochs[i]);
        if (e->created)
            continue;
        if (e->set_number != rq->set_numbers[i])
            return err_set(ERR_STALE, "extent %" PRIu64 " has set number %" PRIu64 ", not %" PRIu64,
                           e->id, e->set_number, rq->set_numbers[i]);
        m->extent_ids[m->n_extent_ids++] = e->id;
    }
    if (m->n_extent_ids > 0) {
        *ret = record_new(d->pad, ZBS__METALOG__RECORD__KIND_EXTENTS_CREATED);
        (*ret)->extents_created = m;
    }
    return 0;
}

static bool has_duplicates(const uint32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < i; k++) {
            if (ids[i] == ids[k])
                return true;
        }
    }
    return false;
}

static int check_replicas(const struct extent *e, const Zbs__Meta__ReplicaChangeRequest *rq)
{
    if (rq->n_remove > SLOT_REPLICAS_MAX || rq->n_add > SLOT_REPLICAS_MAX ||
        has_duplicates(rq->remove, rq->n_remove) || has_duplicates(rq->add, rq->n_add))
        return err_set(ERR_INVAL, "too many replicas, or one twice");
    for (size_t i = 0; i < rq->n_remove; i++) {
        if (!extent_has_member(e, rq->remove[i]))
            return err_set(ERR_INVAL, "chunk server %u is no member of extent %" PRIu64,
                           rq->remove[i], e->id);
    }
    for (size_t i = 0; i < rq->n_add; i++) {
        if (!extent_has_absent(e, rq->add[i]))
            return err_set(ERR_INVAL, "chunk server %u holds no absent replica of extent %" PRIu64,
                           rq->add[i], e->id);
    }
    return 0;
}

/* A reporter that accuses every member off its own host, two or more, while all of these talk to
 * meta, is most likely the isolated one itself (PROTOCOL 5.2). */
static bool blames_everybody(const struct decide *d, const struct extent *e,
                             const struct session *reporter,
                             const Zbs__Meta__ReplicaChangeRequest *rq)
{
    if (rq->n_remove < 2)
        return false;
    for (size_t i = 0; i < rq->n_remove; i++) {
        const struct place_chunk *c = world_chunk(d->w, rq->remove[i]);

        if (c == NULL || !c->alive)
            return false;
    }
    for (uint32_t i = 0; i < e->n_members; i++) {
        const struct chunk *c = state_chunk(d->st, e->replicas[i]);
        bool accused = false;

        for (size_t k = 0; k < rq->n_remove; k++)
            accused = accused || rq->remove[k] == c->id;
        if (!accused && strcmp(c->host, reporter->host) != 0)
            return false;
    }
    return true;
}

static int check_removal(const struct decide *d, const struct extent *e,
                         const struct session *reporter, const Zbs__Meta__ReplicaChangeRequest *rq)
{
    size_t left = e->n_members - rq->n_remove + rq->n_add;

    if (rq->n_remove == 0)
        return 0;
    if (left < e->min_replicas || left == 0)
        return err_set(ERR_REFUSED,
                       "extent %" PRIu64 " would have %zu in-sync replicas, it needs %u", e->id,
                       left, e->min_replicas);
    if (blames_everybody(d, e, reporter, rq))
        return err_set(ERR_REFUSED,
                       "the accused members of extent %" PRIu64
                       " are alive here: '%s' seems to be the isolated one",
                       e->id, reporter->name);
    return 0;
}

/* Only what is one too many, however the set has changed since the owner was asked. */
static bool may_forget(const struct extent *e, const Zbs__Meta__ReplicaChangeRequest *rq)
{
    for (size_t i = 0; i < rq->n_forget; i++) {
        bool removed = false;

        for (size_t k = 0; k < rq->n_remove; k++)
            removed |= rq->remove[k] == rq->forget[i];
        if (!removed)
            return false;
    }
    if (e->origin != NULL || !list_empty(&e->unborn))
        return false;
    return !has_duplicates(rq->forget, rq->n_forget) &&
           e->n_members - rq->n_remove + rq->n_add >= e->wanted;
}

int decide_replica_change(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__ReplicaChangeRequest *rq = (const void *)d->rq;
    const struct extent *e = state_extent(d->st, rq->extent_id);
    const struct slot *s;
    struct session *session;
    Zbs__Metalog__ReplicaSet *m;
    int rc = decide_session(d, rq->session_id, &session);

    if (rc != 0)
        return rc;
    if (e == NULL)
        return err_set(ERR_NOTFOUND, "extent %" PRIu64 " does not exist", rq->extent_id);
    s = extent_lease(d->st, e);
    if (s == NULL || s->owner != session->id || e->epoch != rq->epoch || !slot_writes(s, e))
        return err_set(ERR_STALE,
                       "extent %" PRIu64 " is at epoch %" PRIu64 " of session %" PRIu64
                       ", not at %" PRIu64,
                       e->id, e->epoch, s != NULL ? s->owner : 0, rq->epoch);
    if (e->set_number != rq->set_number && !mutate(MUT_ANY_SET_NUMBER))
        return err_set(ERR_STALE, "extent %" PRIu64 " has set number %" PRIu64 ", not %" PRIu64,
                       e->id, e->set_number, rq->set_number);
    rc = check_replicas(e, rq);
    if (rc == 0)
        rc = check_removal(d, e, session, rq);
    if (rc < 0)
        return rc;
    *ret = record_new(d->pad, ZBS__METALOG__RECORD__KIND_REPLICA_SET);
    (*ret)->replica_set = m = PAD_NEW(d->pad, Zbs__Metalog__ReplicaSet);
    zbs__metalog__replica_set__init(m);
    m->extent_id = e->id;
    m->remove = rq->remove;
    m->n_remove = rq->n_remove;
    m->add = rq->add;
    m->n_add = rq->n_add;
    m->forget = rq->forget;
    m->n_forget = may_forget(e, rq) ? rq->n_forget : 0;
    m->reason = pad_printf(d->pad, "%.200s", rq->reason);
    return 0;
}

int answer_replica_change(const struct decide *d, ProtobufCMessage *reply)
{
    const Zbs__Meta__ReplicaChangeRequest *rq = (const void *)d->rq;

    view_replicas((Zbs__Meta__ReplicaChangeReply *)reply, state_extent(d->st, rq->extent_id));
    return 0;
}
