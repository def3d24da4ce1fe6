/* SPDX-License-Identifier: Apache-2.0
 *
 * Snapshots and rollbacks of volumes that are in use, with meta servers in the simulator: owners
 * are held before the record is logged and let go after it, whatever fails meanwhile (PROTOCOL
 * 7.1). */
#include "tests/unit/meta/world.h"

#define CHUNKS   3u
#define ACCESSES 2u
#define SLOTS    4u

struct twin {
    struct mworld *w;
    struct meta_client *mc, *mc_hold;
    uint32_t index;
    uint64_t session_id, volume_id;
    /* How it behaves. */
    bool dead, deaf; /* does not answer an attempt */
    char *error;     /* answers with it */
    nsec_t drain;
    bool opens_tasks;
    /* What it saw. */
    bool held;
    uint32_t attempts, releases, opened;
    uint64_t shared_at, table_at;
    uint64_t epochs[SLOTS];
};

struct cast {
    struct mworld *w;
    struct twin accesses[ACCESSES];
    struct meta_client *mc_chunks;
    struct co_group group;
    uint64_t volume_id;
};

static int chunks_main(void *arg)
{
    struct cast *c = arg;
    uint32_t ids[CHUNKS] = {0};

    do {
        for (uint32_t i = 0; i < CHUNKS; i++) {
            Zbs__Meta__ChunkRegisterRequest rq = ZBS__META__CHUNK_REGISTER_REQUEST__INIT;
            Zbs__Chunk__Disk disk = ZBS__CHUNK__DISK__INIT, *disks[1] = {&disk};
            uint8_t uuid[16] = {(uint8_t)(i + 1)};
            char host[16];
            struct rpc_reply r;

            snprintf(host, sizeof(host), "host-%u", i);
            rq.uuid = (ProtobufCBinaryData){.data = uuid, .len = 16};
            rq.addr = (char *)"127.1.0.1:7200";
            rq.host = host;
            rq.workers = 1;
            rq.incarnation = 7;
            rq.chunk_id = ids[i];
            disk.size_bytes = 100ull << 30;
            rq.disks = disks;
            rq.n_disks = 1;
            rpc_reply_init(&r);
            if (meta_call(c->mc_chunks, META_CHUNK_REGISTER, &rq.base, true, &r) == 0)
                ids[i] = ((Zbs__Meta__ChunkRegisterReply *)r.msg)->chunk_id;
            rpc_reply_free(&r);
        }
    } while (co_sleep(MSEC(250)) == 0);
    return 0;
}

static int acquire(struct twin *t, uint32_t first, uint32_t count, bool allocate)
{
    Zbs__Meta__LeaseAcquireRequest rq = ZBS__META__LEASE_ACQUIRE_REQUEST__INIT;
    Zbs__Meta__ExtentCreatedRequest made = ZBS__META__EXTENT_CREATED_REQUEST__INIT;
    uint64_t ids[SLOTS], epochs[SLOTS], sets[SLOTS];
    struct rpc_reply r;
    int rc;

    rq.session_id = made.session_id = t->session_id;
    rq.volume_id = t->volume_id;
    rq.first_slot = first;
    rq.count = count;
    rq.allocate = allocate;
    rpc_reply_init(&r);
    rc = meta_call(t->mc, META_LEASE_ACQUIRE, &rq.base, true, &r);
    for (uint32_t i = 0; rc == 0 && i < count; i++) {
        const Zbs__Meta__Grant *g = ((Zbs__Meta__LeaseAcquireReply *)r.msg)->grants[i];

        if (g->owner_session != t->session_id)
            rc = ERR_BUSY;
        t->epochs[g->slot] = g->epoch;
        if (g->created)
            continue;
        ids[made.n_extent_ids] = g->extent_id;
        sets[made.n_extent_ids] = g->set_number;
        epochs[made.n_extent_ids++] = g->epoch;
    }
    rpc_reply_free(&r);
    if (rc < 0 || made.n_extent_ids == 0)
        return rc;
    made.extent_ids = ids;
    made.epochs = epochs;
    made.set_numbers = sets;
    made.n_epochs = made.n_set_numbers = made.n_extent_ids;
    rpc_reply_init(&r);
    rc = meta_call(t->mc, META_EXTENT_CREATED, &made.base, true, &r);
    rpc_reply_free(&r);
    return rc;
}

static int renew_main(void *arg)
{
    struct twin *t = arg;

    while (co_sleep(MSEC(200)) == 0 && !t->dead) {
        Zbs__Meta__SessionRenewRequest rq = ZBS__META__SESSION_RENEW_REQUEST__INIT;
        uint32_t slots[64], n = 0;
        struct rpc_reply r;

        rq.session_id = t->session_id;
        rpc_reply_init(&r);
        if (meta_call(t->mc, META_SESSION_RENEW, &rq.base, true, &r) == 0) {
            const Zbs__Meta__SessionRenewReply *m = (void *)r.msg;

            for (size_t i = 0; i < m->n_tasks; i++) {
                if (m->tasks[i]->kind == 2 && m->tasks[i]->volume_id == t->volume_id)
                    slots[n++] = m->tasks[i]->slot;
            }
        }
        rpc_reply_free(&r);
        for (uint32_t i = 0; t->opens_tasks && i < n; i++)
            t->opened += acquire(t, slots[i], 1, false) == 0;
    }
    return 0;
}

/* One Hold call; 0: answered. */
static int hold(struct twin *t, uint64_t attempt, uint64_t *ret)
{
    Zbs__Meta__HoldRequest rq = ZBS__META__HOLD_REQUEST__INIT;
    struct rpc_reply r;
    int rc;

    rq.session_id = t->session_id;
    rq.attempt = attempt;
    if (attempt != 0 && t->error != NULL)
        rq.error = t->error;
    rpc_reply_init(&r);
    rc = meta_call(t->mc_hold, META_HOLD, &rq.base, true, &r);
    if (rc == 0) {
        const Zbs__Meta__HoldReply *m = (void *)r.msg;

        *ret = m->attempt;
        for (size_t i = 0; i < m->n_volumes; i++) {
            if (m->volumes[i]->id == t->volume_id) {
                t->shared_at = m->volumes[i]->shared_at;
                t->table_at = m->volumes[i]->table_at;
            }
        }
    }
    rpc_reply_free(&r);
    return rc;
}

static int hold_main(void *arg)
{
    struct twin *t = arg;

    while (!co_canceled() && !t->dead) {
        uint64_t attempt = 0, over = 0;

        if (hold(t, 0, &attempt) < 0 || attempt == 0 || t->deaf) {
            (void)co_sleep(MSEC(10));
            continue;
        }
        t->attempts++;
        t->held = true;
        (void)co_sleep(t->drain);
        while (!co_canceled() && !t->dead && hold(t, attempt, &over) < 0)
            (void)co_sleep(MSEC(10));
        t->held = false;
        t->releases++;
    }
    return 0;
}

static int open_session(struct twin *t)
{
    Zbs__Meta__SessionOpenRequest rq = ZBS__META__SESSION_OPEN_REQUEST__INIT;
    char name[16];
    struct rpc_reply r;
    int rc;

    snprintf(name, sizeof(name), "access-%u", t->index);
    rq.name = name;
    rq.addr = (char *)"127.1.0.9:7300";
    rq.incarnation = t->index + 1;
    rpc_reply_init(&r);
    rc = meta_call(t->mc, META_SESSION_OPEN, &rq.base, true, &r);
    if (rc == 0)
        t->session_id = ((Zbs__Meta__SessionOpenReply *)r.msg)->session_id;
    rpc_reply_free(&r);
    return rc;
}

static void cast_enter(struct cast *c, struct mworld *w)
{
    *c = (struct cast){.w = w};
    co_group_init(&c->group);
    assert_int_equal(pool_create(w, "p", 3), 0);
    assert_int_equal(volume_create(w, "p", "v", 16ull << 30, &c->volume_id), 0);
    c->mc_chunks = meta_client_new(w->peers, "chunks");
    co_spawn(&c->group, "chunks", chunks_main, c);
    (void)co_sleep(SEC(1));
    for (uint32_t i = 0; i < ACCESSES; i++) {
        struct twin *t = &c->accesses[i];

        *t = (struct twin){.w = w, .index = i, .volume_id = c->volume_id, .drain = MSEC(30)};
        t->opens_tasks = true;
        t->mc = meta_client_new(w->peers, "access");
        t->mc_hold = meta_client_new(w->peers, "access");
        assert_int_equal(open_session(t), 0);
        co_spawn(&c->group, "renew", renew_main, t);
        co_spawn(&c->group, "hold", hold_main, t);
    }
    assert_int_equal(acquire(&c->accesses[0], 0, 2, true), 0);
    assert_int_equal(acquire(&c->accesses[1], 2, 2, true), 0);
}

static void cast_leave(struct cast *c)
{
    check_equal(c->w);
    (void)co_group_close(&c->group);
    meta_client_close(c->mc_chunks);
    for (uint32_t i = 0; i < ACCESSES; i++) {
        meta_client_close(c->accesses[i].mc);
        meta_client_close(c->accesses[i].mc_hold);
    }
}

/* ERR_*, or 0; as zbs-cli calls it. *ret_id: the snapshot. */
static int snapshot(struct mworld *w, const char *name, uint64_t *ret_id)
{
    Zbs__Meta__VolumeSnapshotRequest rq = ZBS__META__VOLUME_SNAPSHOT_REQUEST__INIT;
    Zbs__Meta__VolumeName of = ZBS__META__VOLUME_NAME__INIT, *ofs[] = {&of};
    nsec_t former = co_deadline_push(co_now() + SEC(15));
    Zbs__Meta__Mutation mutation;
    struct rpc_reply r;
    int rc;

    meta_client_mutation(w->mc, &mutation);
    rq.mutation = &mutation;
    of.pool = (char *)"p";
    of.name = (char *)"v";
    rq.volumes = ofs;
    rq.n_volumes = 1;
    rq.snapshot = (char *)name;
    rc = call(w, META_VOLUME_SNAPSHOT, &rq.base, &r);
    if (rc == 0)
        *ret_id = ((Zbs__Meta__VolumeSnapshotReply *)r.msg)->snapshots[0]->id;
    rpc_reply_free(&r);
    co_deadline_restore(former);
    return rc;
}

static int rollback(struct mworld *w, const char *name, uint64_t *ret_table_at)
{
    Zbs__Meta__VolumeRollbackRequest rq = ZBS__META__VOLUME_ROLLBACK_REQUEST__INIT;
    Zbs__Meta__VolumeName of = ZBS__META__VOLUME_NAME__INIT;
    Zbs__Meta__Mutation mutation;
    struct rpc_reply r;
    int rc;

    meta_client_mutation(w->mc, &mutation);
    rq.mutation = &mutation;
    of.pool = (char *)"p";
    of.name = (char *)"v";
    rq.volume = &of;
    rq.snapshot = (char *)name;
    rc = call(w, META_VOLUME_ROLLBACK, &rq.base, &r);
    if (rc == 0)
        *ret_table_at = ((Zbs__Meta__Volume *)r.msg)->table_at;
    rpc_reply_free(&r);
    return rc;
}

/* ---- scripts ---- */

static int plain_script(struct mworld *w)
{
    uint64_t id = 0, table_at = 0, epoch;
    struct cast c;
    nsec_t begin;

    cast_enter(&c, w);
    begin = co_now();
    assert_int_equal(snapshot(w, "s", &id), 0);
    assert_true(co_now() - begin < SEC(1));
    (void)co_sleep(MSEC(100));
    for (uint32_t i = 0; i < ACCESSES; i++) {
        struct twin *t = &c.accesses[i];

        assert_true(t->attempts == 1 && t->releases == 1 && !t->held);
        assert_int_equal(t->shared_at, id);
        assert_true(t->epochs[2 * i] < t->shared_at);
    }
    assert_int_equal(snapshot(w, "s", &id), ERR_EXISTS);
    /* Who writes gets children at a new epoch; the next attempt holds them again. */
    epoch = c.accesses[0].epochs[0];
    assert_int_equal(acquire(&c.accesses[0], 0, 1, true), 0);
    assert_true(c.accesses[0].epochs[0] > c.accesses[0].shared_at && epoch < id);
    assert_int_equal(rollback(w, "s", &table_at), 0);
    (void)co_sleep(MSEC(100));
    assert_int_equal(c.accesses[0].table_at, table_at);
    assert_int_equal(c.accesses[1].table_at, table_at);
    /* A lease from before it is not given again, but a new one. */
    assert_int_equal(acquire(&c.accesses[0], 0, 1, false), 0);
    assert_true(c.accesses[0].epochs[0] > table_at);
    cast_leave(&c);
    return 0;
}

/* An owner that does not hold in time: nothing is done, everybody goes on. */
static int deaf_script(struct mworld *w)
{
    uint64_t id = 0;
    struct cast c;

    cast_enter(&c, w);
    c.accesses[1].deaf = true;
    assert_int_equal(snapshot(w, "s", &id), ERR_BUSY);
    assert_non_null(strstr(err_text(ERR_BUSY), "access-1"));
    (void)co_sleep(SEC(1));
    assert_true(c.accesses[0].attempts >= 2);
    assert_int_equal(c.accesses[0].releases, c.accesses[0].attempts);
    assert_int_equal(c.accesses[0].shared_at, 0);
    assert_int_equal(acquire(&c.accesses[0], 0, 2, true), 0);
    c.accesses[1].deaf = false;
    c.accesses[0].error = (char *)"no room";
    assert_int_equal(snapshot(w, "s", &id), ERR_BUSY);
    assert_non_null(strstr(err_text(ERR_BUSY), "no room"));
    c.accesses[0].error = NULL;
    assert_int_equal(snapshot(w, "s", &id), 0);
    cast_leave(&c);
    return 0;
}

/* An owner dies while it is held: what it left is opened by the other, then it is tried again. */
static int death_script(struct mworld *w)
{
    uint64_t id = 0;
    struct cast c;

    cast_enter(&c, w);
    c.accesses[1].drain = SEC(100);
    c.accesses[1].dead = true;
    assert_int_equal(snapshot(w, "s", &id), 0);
    assert_true(c.accesses[0].opened >= 2);
    (void)co_sleep(MSEC(100));
    assert_int_equal(c.accesses[0].shared_at, id);
    cast_leave(&c);
    return 0;
}

static int crash_main(void *arg)
{
    struct cast *c = arg;

    while (!c->accesses[0].held && co_sleep(MSEC(5)) == 0)
        ;
    sim_proc_crash(c->w->metas[wait_leader(c->w)].proc);
    return 0;
}

/* The leader dies while owners are held: they resume, and the repeated request does it once. */
static int takeover_script(struct mworld *w)
{
    uint64_t id = 0;
    struct cast c;

    cast_enter(&c, w);
    c.accesses[0].drain = c.accesses[1].drain = MSEC(400);
    co_spawn(&c.group, "crash", crash_main, &c);
    assert_int_equal(snapshot(w, "s", &id), 0);
    assert_true(c.accesses[0].attempts >= 2);
    (void)co_sleep(MSEC(1500));
    for (uint32_t i = 0; i < ACCESSES; i++) {
        assert_false(c.accesses[i].held);
        assert_int_equal(c.accesses[i].shared_at, id);
    }
    cast_leave(&c);
    return 0;
}

static void owners_are_held_and_let_go(void **state)
{
    (void)state;
    for_seeds(plain_script, 4);
}

static void who_does_not_hold_stops_it(void **state)
{
    (void)state;
    for_seeds(deaf_script, 3);
}

static void dead_owners_are_replaced(void **state)
{
    (void)state;
    for_seeds(death_script, 3);
}

static void another_leader_knows_no_attempt(void **state)
{
    (void)state;
    for_seeds(takeover_script, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(owners_are_held_and_let_go),
        cmocka_unit_test(who_does_not_hold_stops_it),
        cmocka_unit_test(dead_owners_are_replaced),
        cmocka_unit_test(another_leader_knows_no_attempt),
    };

    cmocka_set_test_filter(getenv("ZBS_TEST"));
    return cmocka_run_group_tests_name("hold", tests, NULL, NULL);
}
