/* SPDX-License-Identifier: Apache-2.0
 *
 * Deciding and applying: random requests are decided on one state and their records, packed and
 * unpacked like log entries, applied to two. Both, and what the store holds, must stay equal, and
 * the sums in the state must be those of a recount (invariant 7). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "common/base/prng.h"
#include "common/env/sim.h"
#include "meta/apply.h"
#include "meta/codec.h"
#include "meta/decide.h"
#include "meta/reservations.h"
#include "meta/settings.h"

struct model {
    struct prng prng;
    struct state a, b;
    struct kv *kv_a, *kv_b;
    struct world w;
    struct pad pad;
    uint64_t number;
    uint64_t decided, refused, degraded_seen;
    uint64_t kinds[64]; /* records by kind */
};

static uint64_t below(struct model *m, uint64_t n)
{
    return prng_below(&m->prng, n);
}

static char *pick_name(struct model *m, const char *prefix, uint64_t n)
{
    return pad_printf(&m->pad, "%s%u", prefix, (unsigned)below(m, n));
}

static void make_world(struct model *m)
{
    m->w = (struct world){.wall_ns = (int64_t)prng_next(&m->prng) >> 2,
                          .random = prng_next(&m->prng),
                          .session_ttl_ms = 1000,
                          .chunk_dead_ms = 1000};
    prng_fill(&m->prng, m->w.uuid, sizeof(m->w.uuid));
    m->w.n_chunks = m->a.chunks.count;
    m->w.chunks = PAD_NEW_ARRAY(&m->pad, struct place_chunk, m->w.n_chunks);
    for (uint32_t i = 0; i < m->w.n_chunks; i++) {
        const struct chunk *c = m->a.chunks.items[i];

        m->w.chunks[i] = (struct place_chunk){.id = c->id,
                                              .host = c->host,
                                              .rack = c->rack,
                                              .zone = c->zone,
                                              .alive = below(m, 8) != 0,
                                              .heard = below(m, 16) != 0,
                                              .leaving = c->maintenance || c->removing,
                                              .removing = c->removing,
                                              .gone = c->removing || below(m, 8) == 0,
                                              .size_bytes = 100ull << 30,
                                              .free_bytes = below(m, 100) << 30};
    }
}

/* Applies to both states and writes both stores. */
static void commit(struct model *m, Zbs__Metalog__Record *r)
{
    size_t len = zbs__metalog__record__get_packed_size(r);
    uint8_t *bytes = pad_alloc(&m->pad, len);
    struct codec_header h = {.applied = m->a.next_mutation};
    struct kv_batch *batch_a = kv_batch_new(), *batch_b = kv_batch_new();
    struct codec_sink to_a = {.batch = batch_a}, to_b = {.batch = batch_b};
    struct packed reply_a, reply_b;
    Zbs__Metalog__Record *copy;

    m->kinds[r->kind_case % 64]++;
    zbs__metalog__record__pack(r, bytes);
    assert_int_equal(apply_record(&m->a, r, batch_a, &m->pad, &reply_a), 0);
    copy = zbs__metalog__record__unpack(&m->pad.allocator, len, bytes);
    assert_non_null(copy);
    assert_int_equal(apply_record(&m->b, copy, batch_b, &m->pad, &reply_b), 0);
    assert_int_equal(reply_a.len, reply_b.len);
    assert_memory_equal(reply_a.bytes, reply_b.bytes, reply_a.len);
    codec_header_take(&h, &m->a);
    codec_put_header(&to_a, &h);
    codec_put_header(&to_b, &h);
    assert_int_equal(kv_write(m->kv_a, batch_a, false), 0);
    assert_int_equal(kv_write(m->kv_b, batch_b, false), 0);
    kv_batch_free(batch_a);
    kv_batch_free(batch_b);
}

static int act(struct model *m, decide_fn fn, ProtobufCMessage *rq, bool mutation)
{
    struct decide d = {.st = &m->a, .w = &m->w, .rq = rq, .pad = &m->pad};
    Zbs__Metalog__Record *r = NULL;
    int rc = fn(&d, &r);

    if (rc < 0) {
        m->refused++;
        return rc;
    }
    if (r == NULL)
        return 0;
    m->decided++;
    if (mutation) {
        r->client = 1 + below(m, 5);
        r->number = ++m->number;
    }
    commit(m, r);
    return 0;
}

/* ---- requests ---- */

static void random_chunk(struct model *m)
{
    Zbs__Meta__ChunkRegisterRequest rq = ZBS__META__CHUNK_REGISTER_REQUEST__INIT;
    uint8_t uuid[16] = {1, (uint8_t)below(m, 6)};

    rq.uuid = (ProtobufCBinaryData){.data = uuid, .len = 16};
    rq.addr = pick_name(m, "127.0.0.1:", 4);
    rq.host = pad_printf(&m->pad, "host-%u", uuid[1]);
    rq.rack = pad_printf(&m->pad, "rack-%u", uuid[1] / 2);
    rq.workers = 1;
    act(m, decide_chunk_register, &rq.base, false);
}

static void random_session(struct model *m)
{
    Zbs__Meta__SessionOpenRequest rq = ZBS__META__SESSION_OPEN_REQUEST__INIT;

    rq.name = pick_name(m, "access-", 4);
    rq.host = pick_name(m, "host-", 4);
    rq.addr = (char *)"127.0.0.1:1";
    rq.incarnation = below(m, 3) + 1;
    rq.former_is_dead = below(m, 2) != 0;
    act(m, decide_session_open, &rq.base, false);
}

static void random_session_end(struct model *m)
{
    if (m->a.sessions.count == 0)
        return;
    commit(m, decide_session_expiry(
                  &m->pad,
                  ((struct session *)m->a.sessions.items[below(m, m->a.sessions.count)])->id));
}

static void random_pool(struct model *m)
{
    static const char *const domains[] = {"", "host", "rack", "zone"};

    if (below(m, 3) > 0) {
        Zbs__Meta__PoolCreateRequest rq = ZBS__META__POOL_CREATE_REQUEST__INIT;

        rq.name = pick_name(m, "pool", 4);
        rq.replicas = (uint32_t)below(m, 5);
        rq.failure_domain = (char *)domains[below(m, 4)];
        act(m, decide_pool_create, &rq.base, true);
    } else {
        Zbs__Meta__PoolDeleteRequest rq = ZBS__META__POOL_DELETE_REQUEST__INIT;

        rq.name = pick_name(m, "pool", 4);
        act(m, decide_pool_delete, &rq.base, true);
    }
}

static void random_volume(struct model *m)
{
    if (below(m, 2) == 0) {
        Zbs__Meta__VolumeCreateRequest rq = ZBS__META__VOLUME_CREATE_REQUEST__INIT;

        rq.pool = pick_name(m, "pool", 4);
        rq.name = pick_name(m, "vol", 8);
        rq.size_bytes = (below(m, 60) + 1) << 29;
        rq.replicas = (uint32_t)below(m, 4);
        rq.stripe_count = (uint32_t)below(m, 5);
        act(m, decide_volume_create, &rq.base, true);
    } else if (below(m, 2) == 0) {
        Zbs__Meta__VolumeResizeRequest rq = ZBS__META__VOLUME_RESIZE_REQUEST__INIT;

        rq.pool = pick_name(m, "pool", 4);
        rq.name = pick_name(m, "vol", 8);
        rq.size_bytes = (below(m, 60) + 1) << 29;
        rq.discard = below(m, 2) == 0;
        act(m, decide_volume_resize, &rq.base, true);
    } else {
        Zbs__Meta__VolumeRenameRequest rq = ZBS__META__VOLUME_RENAME_REQUEST__INIT;

        rq.pool = pick_name(m, "pool", 4);
        rq.name = pick_name(m, "vol", 8);
        rq.new_name = pick_name(m, "vol", 8);
        act(m, decide_volume_rename, &rq.base, true);
    }
}

static void random_limits(struct model *m, Zbs__Meta__LimitsChange *c, Zbs__Meta__Value v[2])
{
    zbs__meta__limits_change__init(c);
    for (uint32_t i = 0; i < 2; i++) {
        zbs__meta__value__init(&v[i]);
        v[i].value = below(m, 3) * 1000;
    }
    if (below(m, 2) == 0)
        c->iops = &v[0];
    if (below(m, 2) == 0)
        c->bandwidth_burst = &v[1];
}

static void random_policy(struct model *m)
{
    Zbs__Meta__VolumeSetRequest set = ZBS__META__VOLUME_SET_REQUEST__INIT;
    Zbs__Meta__VolumeMoveRequest move = ZBS__META__VOLUME_MOVE_REQUEST__INIT;
    Zbs__Meta__PoolSetRequest pool = ZBS__META__POOL_SET_REQUEST__INIT;
    Zbs__Meta__LimitsChange c;
    Zbs__Meta__Value v[2];

    random_limits(m, &c, v);
    set.limits = pool.limits = &c;
    set.pool = move.pool = pool.name = pick_name(m, "pool", 4);
    set.name = move.name = pick_name(m, "vol", 8);
    set.replicas = pool.replicas = (uint32_t)below(m, 5);
    set.min_replicas = pool.min_replicas = (uint32_t)below(m, 3);
    pool.failure_domain = (char *)(below(m, 2) == 0 ? "rack" : "");
    move.to_pool = pick_name(m, "pool", 4);
    switch (below(m, 3)) {
    case 0:
        act(m, decide_volume_set, &set.base, true);
        break;
    case 1:
        act(m, decide_volume_move, &move.base, true);
        break;
    default:
        act(m, decide_pool_set, &pool.base, true);
        break;
    }
}

static void random_delete(struct model *m)
{
    Zbs__Meta__VolumeDeleteRequest rq = ZBS__META__VOLUME_DELETE_REQUEST__INIT;

    rq.pool = pick_name(m, "pool", 4);
    rq.name = pick_name(m, "vol", 8);
    act(m, decide_volume_delete, &rq.base, true);
}

static struct volume *random_of_volumes(struct model *m)
{
    for (uint32_t i = 0; i < m->a.pools.count; i++) {
        struct pool *p = m->a.pools.items[(i + m->number) % m->a.pools.count];

        if (p->volumes.count > 0)
            return p->volumes.items[below(m, p->volumes.count)];
    }
    return NULL;
}

static void random_lease(struct model *m)
{
    Zbs__Meta__LeaseAcquireRequest rq = ZBS__META__LEASE_ACQUIRE_REQUEST__INIT;
    struct volume *v = random_of_volumes(m);

    if (v == NULL || m->a.sessions.count == 0)
        return;
    rq.volume_id = v->id;
    rq.session_id = ((struct session *)m->a.sessions.items[below(m, m->a.sessions.count)])->id;
    rq.first_slot = (uint32_t)below(m, v->n_slots);
    rq.count = (uint32_t)below(m, 12);
    rq.allocate = below(m, 4) > 0;
    rq.new_epoch = below(m, 4) == 0;
    act(m, decide_lease_acquire, &rq.base, false);
}

/* An extent of a live volume; NULL: not found by luck. */
static struct extent *random_extent(struct model *m, struct volume **ret)
{
    *ret = random_of_volumes(m);
    for (int i = 0; *ret != NULL && i < 50; i++) {
        struct extent *e = volume_extent(*ret, (uint32_t)below(m, (*ret)->n_slots));

        if (e != NULL)
            return e;
    }
    return NULL;
}

/* Whose lease it is under. */
static uint64_t owner_of(struct model *m, const struct extent *e)
{
    const struct slot *s = extent_lease(&m->a, e);

    return s != NULL ? s->owner : 0;
}

static void random_release(struct model *m)
{
    Zbs__Meta__LeaseReleaseRequest rq = ZBS__META__LEASE_RELEASE_REQUEST__INIT;
    struct volume *v;
    struct extent *e = random_extent(m, &v);
    struct slot *s = e != NULL ? volume_slot(v, e->slot) : NULL;
    uint32_t slots[2];
    uint64_t epochs[2];

    if (s == NULL)
        return;
    slots[0] = slots[1] = s->number;
    epochs[0] = epochs[1] = s->epoch;
    rq.session_id = s->owner;
    rq.volume_id = s->volume->id;
    rq.slots = slots;
    rq.epochs = epochs;
    rq.n_slots = rq.n_epochs = 2;
    rq.unclean = below(m, 2) == 0;
    act(m, decide_lease_release, &rq.base, false);
}

static void random_replicas(struct model *m)
{
    Zbs__Meta__ReplicaChangeRequest rq = ZBS__META__REPLICA_CHANGE_REQUEST__INIT;
    struct volume *v;
    struct extent *e = random_extent(m, &v);
    uint32_t remove[SLOT_REPLICAS_MAX], add[SLOT_REPLICAS_MAX];

    if (e == NULL)
        return;
    rq.session_id = owner_of(m, e);
    rq.volume_id = v->id;
    rq.slot = e->slot;
    rq.extent_id = e->id;
    rq.epoch = e->epoch;
    rq.set_number = e->set_number - (below(m, 8) == 0);
    rq.remove = remove;
    rq.add = add;
    rq.forget = remove;
    rq.reason = (char *)"test";
    for (uint32_t i = 0; i < e->n_members; i++) {
        if (below(m, 3) == 0)
            remove[rq.n_remove++] = e->replicas[i];
    }
    for (uint32_t i = 0; i < e->n_absent; i++) {
        if (below(m, 2) == 0)
            add[rq.n_add++] = extent_absent(e)[i];
    }
    rq.n_forget = below(m, 2) == 0 ? rq.n_remove : 0;
    act(m, decide_replica_change, &rq.base, true);
}

static void random_created(struct model *m)
{
    Zbs__Meta__ExtentCreatedRequest rq = ZBS__META__EXTENT_CREATED_REQUEST__INIT;
    struct volume *v;
    struct extent *e = random_extent(m, &v);

    if (e == NULL)
        return;
    rq.session_id = owner_of(m, e);
    rq.extent_ids = &e->id;
    rq.epochs = &e->epoch;
    rq.set_numbers = &e->set_number;
    rq.n_extent_ids = rq.n_epochs = rq.n_set_numbers = 1;
    act(m, decide_extent_created, &rq.base, false);
}

static void random_garbage(struct model *m)
{
    Zbs__Meta__ChunkHeartbeatRequest rq = ZBS__META__CHUNK_HEARTBEAT_REQUEST__INIT;
    uint64_t ids[64];

    if (m->a.chunks.count == 0)
        return;
    struct chunk *c = m->a.chunks.items[below(m, m->a.chunks.count)];

    rq.chunk_id = c->id;
    rq.deleted_extents = ids;
    for (uint64_t i = 0; i < c->garbage.cap && rq.n_deleted_extents < 64; i++) {
        if (c->garbage.entries[i].id != 0 && below(m, 2) == 0)
            ids[rq.n_deleted_extents++] = c->garbage.entries[i].id;
    }
    act(m, decide_chunk_heartbeat, &rq.base, false);
}

static void random_background(struct model *m)
{
    Zbs__Metalog__Record *r = decide_sweep(&m->a, &m->pad);

    if (r != NULL) {
        r->volume_sweep->max = 1 + (uint32_t)below(m, 8);
        commit(m, r);
    }
    r = decide_policy_sweep(&m->a, &m->pad);
    if (r != NULL) {
        r->policy_sweep->max = 1 + (uint32_t)below(m, 8);
        commit(m, r);
    }
    for (uint32_t danger = 0; danger < DANGERS; danger++) {
        struct unsettled *u = LIST_FIRST(&m->a.unsettled[danger], struct unsettled, link);

        r = u != NULL ? decide_repair(&m->a, &m->w, u->extent, &m->pad) : NULL;
        if (r != NULL)
            commit(m, r);
    }
}

static void random_mark(struct model *m)
{
    Zbs__Meta__ChunkMarkRequest rq = ZBS__META__CHUNK_MARK_REQUEST__INIT;

    rq.chunk_id = 1 + (uint32_t)below(m, m->a.next_chunk_id);
    rq.maintenance = below(m, 4) == 0;
    rq.removing = below(m, 8) == 0;
    rq.force = below(m, 2) == 0;
    act(m, decide_chunk_mark, &rq.base, true);
}

static void random_removal(struct model *m)
{
    for (uint32_t i = 0; i < m->a.chunks.count; i++) {
        Zbs__Metalog__Record *r =
            decide_chunk_remove(&m->a, m->a.chunks.items[i], below(m, 2) == 0, &m->pad);

        if (r == NULL)
            continue;
        commit(m, r);
        make_world(m); /* it knows all chunk servers of the state */
        return;
    }
}

static void random_move(struct model *m)
{
    struct volume *v;
    struct extent *e = random_extent(m, &v);
    Zbs__Metalog__Record *r;

    if (e == NULL)
        return;
    r = decide_move(&m->a, &m->w, e, e->replicas[below(m, e->n_members)], below(m, 2) == 0,
                    &m->pad);
    if (r != NULL)
        commit(m, r);
    (void)surplus_member(&m->a, &m->w, e);
}

static void random_export(struct model *m)
{
    static const char *const iqns[] = {"iqn.2020-01.x:a", "iqn.2020-01.x:b", "iqn.2020-01.x:c"};
    char *iqn = (char *)iqns[below(m, 3)];
    char *initiators[] = {(char *)"iqn.2020-01.y:i"};
    Zbs__Meta__Target t = ZBS__META__TARGET__INIT;
    Zbs__Meta__TargetCreateRequest create = ZBS__META__TARGET_CREATE_REQUEST__INIT;
    Zbs__Meta__TargetUpdateRequest update = ZBS__META__TARGET_UPDATE_REQUEST__INIT;
    Zbs__Meta__TargetDeleteRequest del = ZBS__META__TARGET_DELETE_REQUEST__INIT;
    Zbs__Meta__LunAddRequest add = ZBS__META__LUN_ADD_REQUEST__INIT;
    Zbs__Meta__LunRemoveRequest remove = ZBS__META__LUN_REMOVE_REQUEST__INIT;

    t.iqn = del.iqn = add.iqn = remove.iqn = iqn;
    create.target = update.target = &t;
    add.pool = pick_name(m, "pool", 4);
    add.volume = pick_name(m, "vol", 8);
    add.lun = (uint32_t)below(m, 3);
    add.any_lun = below(m, 2) == 0;
    remove.lun = (uint32_t)below(m, 3);
    switch (below(m, 6)) {
    case 0:
        act(m, decide_target_create, &create.base, true);
        break;
    case 1:
        t.initiators = initiators;
        t.n_initiators = 1;
        t.chap_user = (char *)"user";
        t.chap_secret = (char *)"secret secret";
        act(m, decide_target_update, &update.base, true);
        break;
    case 2:
        if (below(m, 4) == 0)
            act(m, decide_target_delete, &del.base, true);
        break;
    case 3:
        act(m, decide_lun_remove, &remove.base, true);
        break;
    default:
        act(m, decide_lun_add, &add.base, true);
        break;
    }
}

static void random_setting(struct model *m)
{
    Zbs__Meta__SettingSetRequest rq = ZBS__META__SETTING_SET_REQUEST__INIT;
    const struct setting_def *d = &setting_defs[below(m, SETTINGS)];

    rq.name = (char *)(below(m, 8) == 0 ? "none.such" : d->name);
    rq.value = below(m, 4) == 0 ? d->max + 1 : d->min + below(m, d->max - d->min + 1);
    act(m, decide_setting_set, &rq.base, true);
}

static void random_reservation(struct model *m)
{
    Zbs__Meta__ReservationSetRequest rq = ZBS__META__RESERVATION_SET_REQUEST__INIT;
    const struct volume *v = random_of_volumes(m);
    const struct reservation *now = v != NULL ? state_reservation(&m->a, v->id) : NULL;
    uint8_t record[40] = {(uint8_t)below(m, 256)};

    if (v == NULL || m->a.sessions.count == 0)
        return;
    rq.session_id = ((struct session *)m->a.sessions.items[below(m, m->a.sessions.count)])->id;
    rq.volume_id = v->id;
    rq.version = below(m, 8) == 0 ? 1 : now != NULL ? now->version : 0;
    rq.record = (ProtobufCBinaryData){.data = record, .len = below(m, sizeof(record) + 1)};
    act(m, decide_reservation_set, &rq.base, true);
}

/* ---- checks ---- */

static void recount_leases(const struct state *st, const struct volume *v, uint64_t *owned,
                           uint64_t *orphans)
{
    for (uint32_t n = 0; n < v->n_slots; n++) {
        struct slot *s = volume_slot(v, n);

        if (s == NULL)
            continue;
        assert_true(s->owner != 0 ? list_linked(&s->owned) : !list_linked(&s->owned));
        *owned += slot_owner(st, s) != NULL;
        *orphans += s->owner != 0 && slot_owner(st, s) == NULL;
    }
}

static void recount_extents(const struct state *st, uint64_t *owned, uint64_t *orphans)
{
    uint64_t degraded = 0, n = 0, unsettled[DANGERS] = {0};

    for (uint64_t i = 0; i < st->extents.cap; i++) {
        const struct extent *e = (const struct extent *)(uintptr_t)st->extents.entries[i].value;

        if (e == NULL)
            continue;
        n++;
        assert_true(e->n_members > 0 && (e->refs > 0 || !list_empty(&e->unborn)));
        assert_true((e->unsettled == NULL) == (e->n_members == e->wanted && e->n_absent == 0));
        degraded += e->n_members < e->wanted;
        if (e->unsettled != NULL) {
            assert_int_equal(e->unsettled->danger,
                             e->n_members < e->wanted ? e->n_members - 1u : DANGER_NONE);
            unsettled[e->unsettled->danger]++;
        }
        assert_true(e->epoch < st->next_mutation && e->id < st->next_mutation);
        if (e->lease == NULL)
            continue;
        *owned += slot_owner(st, e->lease) != NULL;
        *orphans += slot_owner(st, e->lease) == NULL;
    }
    assert_int_equal(n, st->n_extents);
    assert_int_equal(degraded, st->n_degraded);
    assert_memory_equal(unsettled, st->n_unsettled, sizeof(unsettled));
}

static void recount(const struct state *st)
{
    uint64_t owned = 0, orphans = 0, owned_listed = 0;

    for (uint64_t i = 0; i < st->volumes.cap; i++) {
        struct volume *v = (struct volume *)(uintptr_t)st->volumes.entries[i].value;
        uint32_t mine = 0, degraded = 0;

        if (v == NULL)
            continue;
        for (uint32_t n = 0; n < v->n_slots; n++) {
            const struct extent *e = volume_extent(v, n);

            mine += e != NULL;
            degraded += e != NULL && e->n_members < e->wanted;
        }
        assert_int_equal(mine, v->extents);
        assert_int_equal(degraded, volume_health(st, v).degraded);
        recount_leases(st, v, &owned, &orphans);
    }
    recount_extents(st, &owned, &orphans);
    for (uint32_t i = 0; i < st->sessions.count; i++) {
        LIST_FOREACH (s, &((struct session *)st->sessions.items[i])->owned, struct slot, owned)
            owned_listed++;
    }
    assert_int_equal(owned, owned_listed);
    LIST_FOREACH (s, &st->orphans, struct slot, owned)
        orphans--;
    assert_int_equal(orphans, 0);
}

static int count_pair(void *arg, const void *key, size_t key_len, const void *val, size_t val_len)
{
    (void)key;
    (void)key_len;
    (void)val;
    (void)val_len;
    ++*(uint64_t *)arg;
    return 0;
}

static void check_all(struct model *m)
{
    struct state loaded;
    uint64_t applied, pairs_a = 0, pairs_b = 0, digest = codec_digest(&m->a);

    m->degraded_seen += m->a.n_degraded;
    assert_int_equal(digest, codec_digest(&m->b));
    state_init(&loaded);
    assert_int_equal(codec_load(m->kv_a, &loaded, &applied), 0);
    assert_int_equal(codec_digest(&loaded), digest);
    recount(&m->a);
    recount(&loaded);
    state_fini(&loaded);
    assert_int_equal(kv_scan(m->kv_a, "", 0, NULL, 0, count_pair, &pairs_a), 0);
    assert_int_equal(kv_scan(m->kv_b, "", 0, NULL, 0, count_pair, &pairs_b), 0);
    assert_int_equal(pairs_a, pairs_b);
}

static void (*const actions[])(struct model *) = {
    random_chunk,   random_session,    random_session_end, random_pool,     random_volume,
    random_volume,  random_delete,     random_lease,       random_lease,    random_lease,
    random_lease,   random_release,    random_replicas,    random_replicas, random_created,
    random_garbage, random_background, random_export,      random_lease,    random_volume,
    random_setting, random_mark,       random_move,        random_removal,  random_setting,
    random_policy,  random_policy,     random_reservation,
};

static int model_main(void *arg)
{
    struct model *m = arg;
    const uint32_t steps = 4000;

    state_init(&m->a);
    state_init(&m->b);
    assert_int_equal(kv_open("/a", &m->kv_a), 0);
    assert_int_equal(kv_open("/b", &m->kv_b), 0);
    pad_init(&m->pad);
    for (uint32_t i = 0; i < steps; i++) {
        make_world(m);
        actions[below(m, ARRAY_SIZE(actions))](m);
        pad_fini(&m->pad);
        if (i % 500 == 499)
            check_all(m);
    }
    assert_true(m->decided > steps / 10 && m->refused > steps / 20);
    assert_true(m->a.n_extents > 0 && m->degraded_seen > 0);
    for (uint32_t kind = ZBS__METALOG__RECORD__KIND_VOLUME_POLICY;
         kind <= ZBS__METALOG__RECORD__KIND_VOLUME_SHRINK; kind++)
        assert_true(m->kinds[kind] > 0);
    assert_true(m->kinds[ZBS__METALOG__RECORD__KIND_POLICY_SWEEP] > 0);
    kv_close(m->kv_a);
    kv_close(m->kv_b);
    state_fini(&m->a);
    state_fini(&m->b);
    return 0;
}

static void random_events_keep_states_equal(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 8; seed++) {
        struct sim_conf conf = {.seed = seed};
        struct sim *s = sim_new(&conf);
        struct model m = {0};

        prng_init(&m.prng, seed);
        sim_control(s, "127.1.0.9", "model", model_main, &m);
        while (sim_control_running(s) > 0)
            assert_true(sim_step(s));
        sim_free(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_events_keep_states_equal),
    };

    return cmocka_run_group_tests_name("state", tests, NULL, NULL);
}
