/* SPDX-License-Identifier: Apache-2.0
 *
 * Volumes, snapshots and clones in a state beside a model in which a volume's table is a plain
 * array of extent ids, and random requests to both. */
#ifndef ZBS_TESTS_UNIT_META_SNAPSHOT_MODEL_H
#define ZBS_TESTS_UNIT_META_SNAPSHOT_MODEL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "common/base/err.h"
#include "common/base/prng.h"
#include "common/base/units.h"
#include "common/env/sim.h"
#include "meta/apply.h"
#include "meta/codec.h"
#include "meta/decide.h"

#define CHUNKS   4u
#define SESSIONS 3u
#define VOLUMES  24u
#define SLOTS    200u

struct mvolume {
    uint64_t id, origin_id; /* id 0: free */
    bool snapshot;
    uint32_t n;
    char name[80];
    uint64_t ids[SLOTS];
};

struct model {
    struct prng prng;
    struct state st;
    struct kv *kv;
    struct world w;
    struct place_chunk chunks[CHUNKS];
    struct pad pad;
    struct packed reply;
    uint64_t number, names, sessions[SESSIONS];
    struct mvolume volumes[VOLUMES];
    struct idmap seen;     /* extent id -> 1: was ever in a table */
    struct idmap origins;  /* of extents that are not created: origin, or itself if it has none */
    struct idmap promised; /* extent id -> mutation number when its replicas promised its space */
};

/* Of all seeds: what the random requests have reached. */
static struct {
    uint64_t children, thawed, snapshots, rollbacks, clones, thick, thin;
} reached;

static inline uint64_t below(struct model *m, uint64_t n)
{
    return prng_below(&m->prng, n);
}

static inline void commit(struct model *m, Zbs__Metalog__Record *r)
{
    size_t len = zbs__metalog__record__get_packed_size(r);
    uint8_t *bytes = pad_alloc(&m->pad, len);
    struct codec_header h = {.applied = m->st.next_mutation};
    struct kv_batch *batch = m->kv != NULL ? kv_batch_new() : NULL;
    struct codec_sink to = {.batch = batch};

    zbs__metalog__record__pack(r, bytes);
    r = zbs__metalog__record__unpack(&m->pad.allocator, len, bytes);
    assert_int_equal(apply_record(&m->st, r, batch, &m->pad, &m->reply), 0);
    if (batch == NULL)
        return;
    codec_header_take(&h, &m->st);
    codec_put_header(&to, &h);
    assert_int_equal(kv_write(m->kv, batch, false), 0);
    kv_batch_free(batch);
}

static inline int act(struct model *m, decide_fn fn, ProtobufCMessage *rq)
{
    struct decide d = {.st = &m->st, .w = &m->w, .rq = rq, .pad = &m->pad};
    Zbs__Metalog__Record *r = NULL;
    int rc;

    m->w.random = prng_next(&m->prng);
    m->w.wall_ns = (int64_t)++m->number;
    prng_fill(&m->prng, m->w.uuid, sizeof(m->w.uuid));
    rc = fn(&d, &r);
    if (rc == 0 && r != NULL)
        commit(m, r);
    return rc;
}

static inline void sweep(struct model *m)
{
    Zbs__Metalog__Record *r;

    while ((r = decide_sweep(&m->st, &m->pad)) != NULL) {
        r->volume_sweep->max = 1 + (uint32_t)below(m, 100);
        commit(m, r);
    }
}

/* ---- the model ---- */

static inline struct mvolume *free_volume(struct model *m)
{
    for (uint32_t i = 0; i < VOLUMES; i++) {
        if (m->volumes[i].id == 0)
            return &m->volumes[i];
    }
    return NULL;
}

static inline struct mvolume *pick(struct model *m, bool snapshot)
{
    for (uint32_t i = 0, at = (uint32_t)below(m, VOLUMES); i < VOLUMES; i++) {
        struct mvolume *v = &m->volumes[(at + i) % VOLUMES];

        if (v->id != 0 && v->snapshot == snapshot)
            return v;
    }
    return NULL;
}

static inline struct mvolume *by_id(struct model *m, uint64_t id)
{
    for (uint32_t i = 0; i < VOLUMES; i++) {
        if (id != 0 && m->volumes[i].id == id)
            return &m->volumes[i];
    }
    return NULL;
}

/* Is it in another's table, in a snapshot's, or awaited by a child? */
static inline bool model_shared(struct model *m, uint64_t id, uint32_t slot)
{
    uint32_t places = 0;

    for (uint32_t i = 0; i < VOLUMES; i++) {
        const struct mvolume *v = &m->volumes[i];

        if (v->id == 0 || slot >= v->n || v->ids[slot] == 0)
            continue;
        places += v->ids[slot] == id ? 1 + v->snapshot : 0;
        if (v->ids[slot] != id && idmap_get(&m->origins, v->ids[slot]) == id)
            return true;
    }
    return places != 1;
}

static inline struct volume *real(struct model *m, const struct mvolume *v)
{
    struct volume *found = state_volume(&m->st, v->id);

    assert_non_null(found);
    return found;
}

/* ---- requests ---- */

static inline void make_volume(struct model *m)
{
    Zbs__Meta__VolumeCreateRequest rq = ZBS__META__VOLUME_CREATE_REQUEST__INIT;
    struct mvolume *v = free_volume(m);

    if (v == NULL)
        return;
    snprintf(v->name, sizeof(v->name), "v%u", (unsigned)++m->names);
    v->n = 1 + (uint32_t)below(m, SLOTS);
    rq.pool = (char *)"p";
    rq.name = v->name;
    rq.size_bytes = (uint64_t)v->n * EXTENT_BYTES;
    rq.stripe_count = 1;
    assert_int_equal(act(m, decide_volume_create, &rq.base), 0);
    v->id = pool_volume(state_pool(&m->st, "p"), v->name)->id;
    v->origin_id = 0;
    v->snapshot = false;
    memset(v->ids, 0, sizeof(v->ids));
}

static inline uint64_t open_session(struct model *m, uint32_t i)
{
    Zbs__Meta__SessionOpenRequest rq = ZBS__META__SESSION_OPEN_REQUEST__INIT;

    rq.name = pad_printf(&m->pad, "access-%u", i);
    rq.addr = (char *)"127.0.0.1:7300";
    rq.incarnation = ++m->number;
    rq.former_is_dead = true;
    assert_int_equal(act(m, decide_session_open, &rq.base), 0);
    return state_session_by_name(&m->st, rq.name)->id;
}

static inline void end_session(struct model *m)
{
    uint32_t i = (uint32_t)below(m, SESSIONS);

    m->sessions[i] = open_session(m, i);
}

static inline int acquire(struct model *m, uint64_t session, uint64_t volume_id, uint32_t first,
                          uint32_t count, bool allocate, bool new_epoch)
{
    Zbs__Meta__LeaseAcquireRequest rq = ZBS__META__LEASE_ACQUIRE_REQUEST__INIT;

    rq.session_id = session;
    rq.volume_id = volume_id;
    rq.first_slot = first;
    rq.count = count;
    rq.allocate = allocate;
    rq.new_epoch = new_epoch;
    return act(m, decide_lease_acquire, &rq.base);
}

/* What a slot of the volume has to be after a grant that allocates. */
static inline void check_allocated(struct model *m, struct mvolume *v, uint32_t slot, bool shared)
{
    const struct extent *e = volume_extent(real(m, v), slot);
    uint64_t before = v->ids[slot];

    assert_non_null(e);
    assert_false(extent_is_shared(&m->st, e));
    assert_true(slot_writes(volume_slot(real(m, v), slot), e));
    if (real(m, v)->granted_at == e->epoch)
        assert_int_equal(e->wanted, real(m, v)->replicas);
    if (before != 0 && !shared) {
        assert_int_equal(e->id, before);
        return;
    }
    assert_int_equal(idmap_get(&m->seen, e->id), 0);
    assert_int_equal(e->origin != NULL ? e->origin->id : 0, before);
    assert_int_equal(e->family, e->origin != NULL ? e->origin->family : e->id);
    idmap_put(&m->seen, e->id, 1);
    idmap_put(&m->origins, e->id, before != 0 ? before : e->id);
    reached.children += before != 0;
    v->ids[slot] = e->id;
}

static inline void random_acquire(struct model *m)
{
    struct mvolume *v = pick(m, false);
    uint64_t session = m->sessions[below(m, SESSIONS)];
    bool allocate = below(m, 2) == 0, shared[32], mine[32];
    uint32_t first, count;

    if (v == NULL)
        return;
    first = (uint32_t)below(m, v->n);
    count = 1 + (uint32_t)below(m, 32);
    count = MIN(count, v->n - first);
    for (uint32_t i = 0; i < count; i++) {
        const struct slot *s = volume_slot(real(m, v), first + i);
        const struct session *owner = s != NULL ? slot_owner(&m->st, s) : NULL;

        shared[i] = model_shared(m, v->ids[first + i], first + i);
        mine[i] = owner == NULL || owner->id == session;
        /* What was shared, and is no more, is written again under a new lease only. */
        if (s != NULL && allocate && mine[i] && v->ids[first + i] != 0 && !shared[i] &&
            s->epoch <= real(m, v)->shared_at)
            reached.thawed++;
    }
    assert_int_equal(acquire(m, session, v->id, first, count, allocate, below(m, 4) == 0), 0);
    for (uint32_t i = 0; i < count; i++) {
        if (mine[i])
            assert_int_equal(volume_slot(real(m, v), first + i)->owner, session);
        if (mine[i] && allocate)
            check_allocated(m, v, first + i, shared[i]);
    }
}

static inline void made(struct model *m, struct mvolume *v, uint32_t slot)
{
    Zbs__Meta__ExtentCreatedRequest rq = ZBS__META__EXTENT_CREATED_REQUEST__INIT;
    struct slot *s = volume_slot(real(m, v), slot);

    rq.session_id = s->owner;
    rq.extent_ids = &v->ids[slot];
    rq.epochs = &s->epoch;
    rq.set_numbers = &volume_extent(real(m, v), slot)->set_number;
    rq.n_extent_ids = rq.n_epochs = rq.n_set_numbers = 1;
    assert_int_equal(act(m, decide_extent_created, &rq.base), 0);
    idmap_del(&m->origins, v->ids[slot]);
}

static inline void random_created(struct model *m)
{
    struct mvolume *v = pick(m, false);

    for (uint32_t n = 0; v != NULL && n < v->n; n++) {
        struct slot *s = volume_slot(real(m, v), n);

        if (v->ids[n] != 0 && idmap_get(&m->origins, v->ids[n]) != 0 &&
            slot_owner(&m->st, s) != NULL && below(m, 2) == 0)
            made(m, v, n);
    }
}

static inline void random_release(struct model *m)
{
    Zbs__Meta__LeaseReleaseRequest rq = ZBS__META__LEASE_RELEASE_REQUEST__INIT;
    struct mvolume *v = pick(m, false);
    uint32_t slot;
    struct slot *s;

    if (v == NULL)
        return;
    slot = (uint32_t)below(m, v->n);
    s = volume_slot(real(m, v), slot);
    if (s == NULL || slot_owner(&m->st, s) == NULL)
        return;
    rq.session_id = s->owner;
    rq.volume_id = v->id;
    rq.slots = &slot;
    rq.epochs = &s->epoch;
    rq.n_slots = rq.n_epochs = 1;
    assert_int_equal(act(m, decide_lease_release, &rq.base), 0);
    assert_int_equal(s->owner, 0);
}

/* What sessions do before a snapshot: everything is created and clean. */
static inline void make_ready(struct model *m, struct mvolume *v)
{
    uint64_t ids[SLOTS];
    uint32_t n = volume_unready(&m->st, real(m, v), false, ids, SLOTS);

    for (uint32_t i = 0; i < n; i++) {
        uint32_t slot = state_extent(&m->st, ids[i])->slot;
        struct slot *s = volume_slot(real(m, v), slot);

        if (slot_owner(&m->st, s) == NULL)
            assert_int_equal(acquire(m, m->sessions[0], v->id, slot, 1, false, false), 0);
        if (idmap_get(&m->origins, ids[i]) != 0)
            made(m, v, slot);
    }
    assert_int_equal(volume_unready(&m->st, real(m, v), false, ids, SLOTS), 0);
}

static inline int snapshot_of(struct model *m, struct mvolume *const *of, uint32_t n, char *name)
{
    Zbs__Meta__VolumeSnapshotRequest rq = ZBS__META__VOLUME_SNAPSHOT_REQUEST__INIT;
    Zbs__Meta__VolumeName names[4], *ptrs[4];

    for (uint32_t i = 0; i < n; i++) {
        zbs__meta__volume_name__init(&names[i]);
        names[i].pool = (char *)"p";
        names[i].name = of[i]->name;
        ptrs[i] = &names[i];
    }
    rq.volumes = ptrs;
    rq.n_volumes = n;
    rq.snapshot = name;
    return act(m, decide_volume_snapshot, &rq.base);
}

static inline void random_snapshot(struct model *m)
{
    uint32_t n = 1 + (uint32_t)below(m, 3), k = 0;
    struct mvolume *of[3], *to;
    char *name = pad_printf(&m->pad, "s%u", (unsigned)++m->names);

    for (uint32_t i = 0; i < n; i++) {
        struct mvolume *v = pick(m, false);
        bool twice = v == NULL;

        for (uint32_t j = 0; j < k; j++)
            twice = twice || of[j] == v;
        if (!twice)
            of[k++] = v;
    }
    for (uint32_t i = 0; i < VOLUMES; i++)
        n += m->volumes[i].id == 0;
    if (k == 0 || n - k < k + 3)
        return;
    if (snapshot_of(m, of, k, name) == ERR_AGAIN) {
        for (uint32_t i = 0; i < k; i++)
            make_ready(m, of[i]);
        assert_int_equal(snapshot_of(m, of, k, name), 0);
    }
    for (uint32_t i = 0; i < k; i++) {
        to = free_volume(m);
        *to = *of[i];
        snprintf(to->name, sizeof(to->name), "%.30s@%.30s", of[i]->name, name);
        to->snapshot = true;
        to->origin_id = of[i]->id;
        to->id = pool_volume(state_pool(&m->st, "p"), to->name)->id;
        assert_int_equal(real(m, to)->n_slots, to->n);
        assert_int_equal(real(m, to)->origin_id, of[i]->id);
    }
    reached.snapshots++;
}

static inline void random_clone(struct model *m)
{
    Zbs__Meta__VolumeCloneRequest rq = ZBS__META__VOLUME_CLONE_REQUEST__INIT;
    Zbs__Meta__VolumeName name = ZBS__META__VOLUME_NAME__INIT;
    struct mvolume *s = pick(m, true), *to = free_volume(m);

    if (s == NULL || to == NULL)
        return;
    *to = *s;
    to->snapshot = false;
    to->origin_id = s->id;
    snprintf(to->name, sizeof(to->name), "c%u", (unsigned)++m->names);
    name.pool = rq.pool = (char *)"p";
    name.name = s->name;
    rq.snapshot = &name;
    rq.name = to->name;
    assert_int_equal(act(m, decide_volume_clone, &rq.base), 0);
    to->id = pool_volume(state_pool(&m->st, "p"), to->name)->id;
    reached.clones++;
}

static inline void random_rollback(struct model *m)
{
    Zbs__Meta__VolumeRollbackRequest rq = ZBS__META__VOLUME_ROLLBACK_REQUEST__INIT;
    Zbs__Meta__VolumeName name = ZBS__META__VOLUME_NAME__INIT;
    struct mvolume *s = pick(m, true), *v = s != NULL ? by_id(m, s->origin_id) : NULL;

    if (v == NULL)
        return;
    name.pool = (char *)"p";
    name.name = v->name;
    rq.volume = &name;
    rq.snapshot = strchr(s->name, '@') + 1;
    assert_int_equal(act(m, decide_volume_rollback, &rq.base), 0);
    memcpy(v->ids, s->ids, sizeof(v->ids));
    v->n = MAX(v->n, s->n);
    sweep(m);
    reached.rollbacks++;
}

static inline void random_delete(struct model *m)
{
    Zbs__Meta__VolumeDeleteRequest rq = ZBS__META__VOLUME_DELETE_REQUEST__INIT;
    struct mvolume *v = pick(m, below(m, 3) > 0);

    v = v != NULL ? v : pick(m, false);
    if (v == NULL)
        return;
    rq.pool = (char *)"p";
    rq.name = v->name;
    assert_int_equal(act(m, decide_volume_delete, &rq.base), 0);
    sweep(m);
    assert_null(state_volume(&m->st, v->id));
    v->id = 0;
}

static inline void random_resize(struct model *m)
{
    Zbs__Meta__VolumeResizeRequest rq = ZBS__META__VOLUME_RESIZE_REQUEST__INIT;
    struct mvolume *v = pick(m, false);

    if (v == NULL)
        return;
    if (below(m, 3) == 0)
        v->n = 1 + (uint32_t)below(m, v->n);
    else
        v->n += (uint32_t)below(m, SLOTS - v->n + 1);
    memset(v->ids + v->n, 0, (SLOTS - v->n) * sizeof(v->ids[0]));
    rq.discard = true;
    rq.pool = (char *)"p";
    rq.name = v->name;
    rq.size_bytes = (uint64_t)v->n * EXTENT_BYTES;
    assert_int_equal(act(m, decide_volume_resize, &rq.base), 0);
}

static inline void random_policy(struct model *m)
{
    Zbs__Meta__VolumeSetRequest rq = ZBS__META__VOLUME_SET_REQUEST__INIT;
    struct mvolume *v = pick(m, false);
    Zbs__Metalog__Record *r;

    if (v == NULL)
        return;
    rq.pool = (char *)"p";
    rq.name = v->name;
    rq.replicas = 1 + (uint32_t)below(m, 4);
    rq.min_replicas = 1;
    assert_int_equal(act(m, decide_volume_set, &rq.base), 0);
    while ((r = decide_policy_sweep(&m->st, &m->pad)) != NULL) {
        r->policy_sweep->max = 1 + (uint32_t)below(m, 100);
        commit(m, r);
    }
    for (uint32_t n = 0; n < v->n; n++) {
        const struct extent *e = volume_extent(real(m, v), n);

        assert_true(e == NULL || e->wanted >= rq.replicas); /* the most that one asks for */
    }
}

static inline int set_thickness(struct model *m, char *name, Zbs__Meta__Thickness to)
{
    Zbs__Meta__VolumeSetRequest rq = ZBS__META__VOLUME_SET_REQUEST__INIT;

    rq.pool = (char *)"p";
    rq.name = name;
    rq.thickness = to;
    return act(m, decide_volume_set, &rq.base);
}

static inline int provisioned(struct model *m, uint64_t volume_id, uint32_t slot, uint64_t pass,
                              bool no_space)
{
    Zbs__Meta__SlotProvisionedRequest rq = ZBS__META__SLOT_PROVISIONED_REQUEST__INIT;

    rq.session_id = m->sessions[0];
    rq.volume_id = volume_id;
    rq.slot = slot;
    rq.pass = pass;
    rq.no_space = no_space;
    return act(m, decide_slot_provisioned, &rq.base);
}

/* What the session that is asked to does with the next slot. */
static inline void provision(struct model *m, struct mvolume *v)
{
    const Zbs__Meta__Provisioning *p = &real(m, v)->provisioning;
    uint32_t n = p->next_slot;
    const struct slot *s = volume_slot(real(m, v), n);
    const struct session *owner = s != NULL ? slot_owner(&m->st, s) : NULL;
    bool shared = model_shared(m, v->ids[n], n);

    if (p->thick) {
        assert_int_equal(
            acquire(m, owner != NULL ? owner->id : m->sessions[0], v->id, n, 1, true, false), 0);
        check_allocated(m, v, n, shared);
        idmap_put(&m->promised, v->ids[n], m->st.next_mutation);
    } else if (v->ids[n] != 0 && !shared) {
        idmap_del(&m->promised, v->ids[n]);
    }
    assert_int_equal(provisioned(m, v->id, n, p->pass, false), 0);
}

static inline void random_thick(struct model *m)
{
    struct mvolume *v = pick(m, false);
    const Zbs__Meta__Provisioning *p;

    if (v == NULL)
        return;
    p = &real(m, v)->provisioning;
    if (below(m, 3) == 0)
        assert_int_equal(set_thickness(m, v->name, 1 + (Zbs__Meta__Thickness)below(m, 2)), 0);
    for (uint64_t n = below(m, 2 * SLOTS); n > 0 && p->pass != 0; n--) {
        if (below(m, 20) == 0)
            assert_int_equal(provisioned(m, v->id, p->next_slot, p->pass, true), 0);
        provision(m, v);
    }
    if (p->pass == 0)
        *(p->thick ? &reached.thick : &reached.thin) += 1;
    if (p->thick && below(m, 4) == 0) { /* a replica could not promise */
        uint32_t slot = (uint32_t)below(m, v->n);

        assert_int_equal(provisioned(m, v->id, slot, 0, true), 0);
        assert_true(p->pass != 0 && p->next_slot <= slot);
    }
}

static inline void random_rename(struct model *m)
{
    Zbs__Meta__VolumeRenameRequest rq = ZBS__META__VOLUME_RENAME_REQUEST__INIT;
    struct mvolume *v = pick(m, false);
    char name[16];

    if (v == NULL)
        return;
    snprintf(name, sizeof(name), "r%u", (unsigned)++m->names);
    rq.pool = (char *)"p";
    rq.name = v->name;
    rq.new_name = name;
    assert_int_equal(act(m, decide_volume_rename, &rq.base), 0);
    strcpy(v->name, name);
    for (uint32_t i = 0; i < VOLUMES; i++) {
        struct mvolume *s = &m->volumes[i];
        char *at = strchr(s->name, '@');

        if (s->id != 0 && s->snapshot && s->origin_id == v->id)
            snprintf(s->name, sizeof(s->name), "%.30s%.30s", name, pad_strdup(&m->pad, at));
    }
}

/* Recovery of an extent: under its volume's lease, or its own if it is shared. */
static inline void random_recovery(struct model *m)
{
    struct mvolume *v = pick(m, below(m, 2) == 0);
    Zbs__Meta__LeaseAcquireRequest rq = ZBS__META__LEASE_ACQUIRE_REQUEST__INIT;
    Zbs__Meta__ReplicaChangeRequest change = ZBS__META__REPLICA_CHANGE_REQUEST__INIT;
    uint32_t slot = v != NULL ? (uint32_t)below(m, v->n) : 0, chunk;
    const struct extent *e = v != NULL ? volume_extent(real(m, v), slot) : NULL;
    const struct slot *s;
    uint64_t epoch;

    if (e == NULL)
        return;
    rq.session_id = m->sessions[below(m, SESSIONS)];
    rq.extent_id = e->id;
    if (!extent_is_shared(&m->st, e)) {
        assert_int_equal(act(m, decide_lease_acquire, &rq.base), ERR_STALE);
        return;
    }
    epoch = e->epoch;
    assert_int_equal(act(m, decide_lease_acquire, &rq.base), 0);
    s = extent_lease(&m->st, e);
    assert_ptr_equal(s, e->lease);
    assert_true(s->owner != rq.session_id || e->epoch >= epoch);
    if (e->n_members + e->n_absent == 1)
        return;
    chunk = e->replicas[0];
    change.session_id = s->owner;
    change.extent_id = e->id;
    change.epoch = e->epoch;
    change.set_number = e->set_number;
    change.reason = (char *)"test";
    if (e->n_absent == 0) {
        change.remove = &chunk;
        change.n_remove = 1;
    } else {
        chunk = extent_absent(e)[0];
        change.add = &chunk;
        change.n_add = 1;
    }
    assert_int_equal(act(m, decide_replica_change, &change.base), 0);
    /* Nobody is to begin as the copy of a replica that has left. */
    LIST_FOREACH (child, &e->unborn, struct extent, sibling)
        assert_true(e->n_absent == 0 || child->n_members == 1 || !extent_has_member(child, chunk));
    if (below(m, 2) == 0) {
        Zbs__Meta__LeaseReleaseRequest release = ZBS__META__LEASE_RELEASE_REQUEST__INIT;
        uint64_t id = e->id, at = e->epoch;

        release.session_id = s->owner;
        release.extent_ids = &id;
        release.epochs = &at;
        release.n_extent_ids = release.n_epochs = 1;
        assert_int_equal(act(m, decide_lease_release, &release.base), 0);
        assert_null(e->lease);
    }
}

static inline void set_up(struct model *m)
{
    Zbs__Meta__PoolCreateRequest pool = ZBS__META__POOL_CREATE_REQUEST__INIT;

    state_init(&m->st);
    pad_init(&m->pad);
    m->w = (struct world){.chunks = m->chunks, .session_ttl_ms = 1000};
    for (uint32_t i = 0; i < CHUNKS; i++) {
        Zbs__Meta__ChunkRegisterRequest rq = ZBS__META__CHUNK_REGISTER_REQUEST__INIT;
        uint8_t uuid[16] = {(uint8_t)(i + 1)};
        struct chunk *c;

        rq.uuid = (ProtobufCBinaryData){.data = uuid, .len = 16};
        rq.addr = (char *)"127.0.0.1:7200";
        rq.host = pad_printf(&m->pad, "host-%u", i);
        rq.workers = 1;
        assert_int_equal(act(m, decide_chunk_register, &rq.base), 0);
        c = state_chunk_by_uuid(&m->st, uuid);
        m->chunks[m->w.n_chunks++] = (struct place_chunk){.id = c->id,
                                                          .host = c->host,
                                                          .rack = c->rack,
                                                          .zone = c->zone,
                                                          .free_bytes = 100 * TIB,
                                                          .alive = true,
                                                          .heard = true};
    }
    for (uint32_t i = 0; i < SESSIONS; i++)
        m->sessions[i] = open_session(m, i);
    pool.name = (char *)"p";
    pool.replicas = 3;
    pool.min_replicas = 1;
    assert_int_equal(act(m, decide_pool_create, &pool.base), 0);
}

static inline void tear_down(struct model *m)
{
    idmap_fini(&m->seen);
    idmap_fini(&m->origins);
    idmap_fini(&m->promised);
    pad_fini(&m->pad);
    state_fini(&m->st);
}

#endif
