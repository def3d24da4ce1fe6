/* SPDX-License-Identifier: Apache-2.0
 *
 * Meta servers in the simulator as chunk and access servers see them: sessions and their end,
 * views, tasks, garbage, and what of it survives a change of leaders. */
#include "tests/unit/meta/world.h"

#define CHUNKS   3u
#define ACCESSES 2u

struct chunk_twin {
    struct mworld *w;
    struct meta_client *mc;
    uint32_t index, id;
    bool silent; /* stops its heartbeats */
    uint64_t deleted[64];
    uint32_t n_deleted, n_confirmed;
};

struct access_twin {
    struct mworld *w;
    struct meta_client *mc;
    char name[16], host[16];
    uint64_t session_id, incarnation;
    bool silent, expired;
    uint32_t alive_chunks, accesses, returns, opens;
    uint64_t changed_volume, volumes_version, exports_version;
};

struct cast {
    struct mworld *w;
    struct chunk_twin chunks[CHUNKS];
    struct access_twin accesses[ACCESSES];
    struct co_group group;
    uint64_t volume_id;
};

static int chunk_register(struct chunk_twin *c)
{
    Zbs__Meta__ChunkRegisterRequest rq = ZBS__META__CHUNK_REGISTER_REQUEST__INIT;
    Zbs__Chunk__Disk disk = ZBS__CHUNK__DISK__INIT, *disks[1] = {&disk};
    uint8_t uuid[16] = {(uint8_t)(c->index + 1)};
    char host[16], addr[24];
    struct rpc_reply r;
    int rc;

    snprintf(host, sizeof(host), "host-%u", c->index);
    snprintf(addr, sizeof(addr), "127.1.0.%u:7200", c->index + 1);
    rq.uuid = (ProtobufCBinaryData){.data = uuid, .len = 16};
    rq.addr = addr;
    rq.host = host;
    rq.workers = 1;
    rq.incarnation = 7;
    rq.chunk_id = c->id;
    disk.size_bytes = 100ull << 30;
    disk.path = (char *)"/dev/x";
    rq.disks = disks;
    rq.n_disks = 1;
    rpc_reply_init(&r);
    rc = meta_call(c->mc, META_CHUNK_REGISTER, &rq.base, true, &r);
    if (rc == 0) {
        uint32_t id = ((Zbs__Meta__ChunkRegisterReply *)r.msg)->chunk_id;

        ASSERT(c->id == 0 || c->id == id);
        c->id = id;
    }
    rpc_reply_free(&r);
    return rc;
}

static int chunk_main(void *arg)
{
    struct chunk_twin *c = arg;
    bool registered = false;

    while (co_sleep(MSEC(250)) == 0) {
        Zbs__Meta__ChunkHeartbeatRequest rq = ZBS__META__CHUNK_HEARTBEAT_REQUEST__INIT;
        struct rpc_reply r;

        if (c->silent)
            continue;
        if (!registered) {
            registered = chunk_register(c) == 0;
            continue;
        }
        Zbs__Chunk__Disk disk = ZBS__CHUNK__DISK__INIT, *disks[1] = {&disk};

        disk.size_bytes = 100ull << 30;
        rq.chunk_id = c->id;
        rq.incarnation = 7;
        rq.disks = disks;
        rq.n_disks = 1;
        rq.deleted_extents = c->deleted;
        rq.n_deleted_extents = c->n_deleted;
        rpc_reply_init(&r);
        if (meta_call(c->mc, META_CHUNK_HEARTBEAT, &rq.base, true, &r) == 0) {
            Zbs__Meta__ChunkHeartbeatReply *m = (void *)r.msg;

            registered = !m->register_;
            c->n_confirmed += c->n_deleted;
            c->n_deleted = 0;
            for (size_t i = 0; i < m->n_deletes && i < 64; i++)
                c->deleted[c->n_deleted++] = m->deletes[i]->extent_id;
        }
        rpc_reply_free(&r);
    }
    return 0;
}

static int session_open(struct access_twin *a, bool former_is_dead)
{
    Zbs__Meta__SessionOpenRequest rq = ZBS__META__SESSION_OPEN_REQUEST__INIT;
    struct rpc_reply r;
    int rc;

    rq.name = a->name;
    rq.host = a->host;
    rq.addr = (char *)"127.1.0.9:7300";
    rq.incarnation = a->incarnation;
    rq.former_is_dead = former_is_dead;
    rpc_reply_init(&r);
    rc = meta_call(a->mc, META_SESSION_OPEN, &rq.base, true, &r);
    if (rc == 0)
        a->session_id = ((Zbs__Meta__SessionOpenReply *)r.msg)->session_id;
    a->expired = false;
    rpc_reply_free(&r);
    return rc;
}

static void take_renewal(struct access_twin *a, const Zbs__Meta__SessionRenewReply *m)
{
    if (m->n_chunks > 0) {
        a->alive_chunks = 0;
        a->accesses = (uint32_t)m->n_accesses;
        for (size_t i = 0; i < m->n_chunks; i++)
            a->alive_chunks += m->chunks[i]->alive;
    }
    a->exports_version = m->exports_version;
    a->volumes_version = m->volumes_version;
    for (size_t i = 0; i < m->n_tasks; i++) {
        a->returns += m->tasks[i]->kind == 0;
        a->opens += m->tasks[i]->kind == 2;
    }
    for (size_t i = 0; i < m->n_volumes_changed; i++)
        a->changed_volume = m->volumes_changed[i];
}

static int access_main(void *arg)
{
    struct access_twin *a = arg;

    while (co_sleep(MSEC(250)) == 0) {
        Zbs__Meta__SessionRenewRequest rq = ZBS__META__SESSION_RENEW_REQUEST__INIT;
        struct rpc_reply r;
        int rc;

        if (a->silent)
            continue;
        rq.session_id = a->session_id;
        rpc_reply_init(&r);
        rc = meta_call(a->mc, META_SESSION_RENEW, &rq.base, true, &r);
        if (rc == 0)
            take_renewal(a, (void *)r.msg);
        a->expired = a->expired || rc == ERR_EXPIRED;
        rpc_reply_free(&r);
    }
    return 0;
}

static void cast_enter(struct cast *c, struct mworld *w)
{
    *c = (struct cast){.w = w};
    co_group_init(&c->group);
    assert_int_equal(pool_create(w, "p", 3), 0);
    assert_int_equal(volume_create(w, "p", "v", 16ull << 30, &c->volume_id), 0);
    for (uint32_t i = 0; i < CHUNKS; i++) {
        c->chunks[i] = (struct chunk_twin){.w = w, .index = i};
        c->chunks[i].mc = meta_client_new(w->peers, "chunk");
        co_spawn(&c->group, "chunk", chunk_main, &c->chunks[i]);
    }
    for (uint32_t i = 0; i < ACCESSES; i++) {
        struct access_twin *a = &c->accesses[i];

        *a = (struct access_twin){.w = w, .incarnation = i + 1};
        a->mc = meta_client_new(w->peers, "access");
        snprintf(a->name, sizeof(a->name), "access-%u", i);
        snprintf(a->host, sizeof(a->host), "host-%u", i);
        assert_int_equal(session_open(a, false), 0);
        co_spawn(&c->group, "access", access_main, a);
    }
    (void)co_sleep(SEC(1)); /* everybody has registered */
    assert_int_equal(c->accesses[0].alive_chunks, CHUNKS);
    assert_int_equal(c->accesses[0].accesses, ACCESSES);
}

static void cast_leave(struct cast *c)
{
    (void)co_group_close(&c->group);
    for (uint32_t i = 0; i < CHUNKS; i++)
        meta_client_close(c->chunks[i].mc);
    for (uint32_t i = 0; i < ACCESSES; i++)
        meta_client_close(c->accesses[i].mc);
}

struct grant {
    uint64_t owner, epoch, extent_id, set_number;
    uint32_t members[8], n_members, n_absent;
};

static int acquire(struct cast *c, uint32_t access, bool new_epoch, struct grant *ret)
{
    Zbs__Meta__LeaseAcquireRequest rq = ZBS__META__LEASE_ACQUIRE_REQUEST__INIT;
    struct rpc_reply r;
    int rc;

    rq.session_id = c->accesses[access].session_id;
    rq.volume_id = c->volume_id;
    rq.count = 4;
    rq.allocate = true;
    rq.new_epoch = new_epoch;
    rpc_reply_init(&r);
    rc = meta_call(c->accesses[access].mc, META_LEASE_ACQUIRE, &rq.base, true, &r);
    if (rc == 0) {
        const Zbs__Meta__Grant *g = ((Zbs__Meta__LeaseAcquireReply *)r.msg)->grants[0];

        *ret = (struct grant){.owner = g->owner_session,
                              .epoch = g->epoch,
                              .extent_id = g->extent_id,
                              .set_number = g->set_number,
                              .n_members = (uint32_t)g->n_members,
                              .n_absent = (uint32_t)g->n_absent};
        memcpy(ret->members, g->members, g->n_members * sizeof(uint32_t));
    }
    rpc_reply_free(&r);
    return rc;
}

static int change(struct cast *c, uint32_t access, const struct grant *g, uint32_t remove,
                  uint32_t add)
{
    Zbs__Meta__ReplicaChangeRequest rq = ZBS__META__REPLICA_CHANGE_REQUEST__INIT;
    Zbs__Meta__Mutation mutation;
    struct rpc_reply r;
    int rc;

    meta_client_mutation(c->accesses[access].mc, &mutation);
    rq.mutation = &mutation;
    rq.session_id = c->accesses[access].session_id;
    rq.volume_id = c->volume_id;
    rq.extent_id = g->extent_id;
    rq.epoch = g->epoch;
    rq.set_number = g->set_number;
    rq.remove = &remove;
    rq.n_remove = remove != 0;
    rq.add = &add;
    rq.n_add = add != 0;
    rpc_reply_init(&r);
    rc = meta_call(c->accesses[access].mc, META_REPLICA_CHANGE, &rq.base, true, &r);
    rpc_reply_free(&r);
    return rc;
}

/* ---- scripts ---- */

static int expiry_script(struct mworld *w)
{
    struct grant g = {0}, other = {0};
    struct cast c;
    nsec_t start;

    cast_enter(&c, w);
    assert_int_equal(acquire(&c, 0, false, &g), 0);
    assert_int_equal(g.owner, c.accesses[0].session_id);
    assert_int_equal(g.n_members, 3);
    assert_int_equal(acquire(&c, 1, false, &other), 0);
    assert_int_equal(other.owner, g.owner); /* a hint, no grant */
    c.accesses[0].silent = true;
    start = co_now();
    do {
        (void)co_sleep(MSEC(20));
        assert_int_equal(acquire(&c, 1, false, &other), 0);
    } while (other.owner == g.owner);
    assert_int_equal(other.owner, c.accesses[1].session_id);
    assert_true(other.epoch > g.epoch && other.extent_id == g.extent_id);
    assert_true(co_now() - start > MSEC(700) && co_now() - start < MSEC(1500));
    c.accesses[0].silent = false;
    (void)co_sleep(MSEC(600));
    assert_true(c.accesses[0].expired);
    assert_int_equal(c.accesses[1].accesses, 1);
    /* The former owner's changes are refused. */
    assert_int_equal(change(&c, 0, &g, g.members[1], 0), ERR_EXPIRED);
    c.accesses[0].incarnation = 100;
    assert_int_equal(session_open(&c.accesses[0], false), 0);
    assert_int_equal(change(&c, 0, &g, g.members[1], 0), ERR_STALE);
    cast_leave(&c);
    return 0;
}

static int takeover_script(struct mworld *w)
{
    struct grant g = {0}, again = {0};
    struct cast c;
    nsec_t start;

    cast_enter(&c, w);
    assert_int_equal(acquire(&c, 0, false, &g), 0);
    for (int i = 0; i < 3; i++) {
        uint32_t l = wait_leader(w);

        sim_proc_crash(w->metas[l].proc);
        assert_int_equal(acquire(&c, 0, false, &again), 0);
        assert_true(again.epoch == g.epoch && again.owner == g.owner); /* leases survive */
        world_start(w, l);
        (void)co_sleep(SEC(2));
        assert_false(c.accesses[0].expired || c.accesses[1].expired);
        assert_int_equal(c.accesses[0].alive_chunks, CHUNKS);
    }
    /* The owner and the leader are lost at once. */
    c.accesses[0].silent = true;
    start = co_now();
    sim_proc_crash(w->metas[wait_leader(w)].proc);
    do {
        (void)co_sleep(MSEC(20));
        assert_int_equal(acquire(&c, 1, false, &again), 0);
    } while (again.owner == g.owner);
    assert_true(co_now() - start < SEC(3) + MSEC(200));
    cast_leave(&c);
    return 0;
}

static struct chunk_twin *twin_of(struct cast *c, uint32_t chunk_id)
{
    for (uint32_t i = 0; i < CHUNKS; i++) {
        if (c->chunks[i].id == chunk_id)
            return &c->chunks[i];
    }
    ASSERT(false);
    return NULL;
}

static int tasks_script(struct mworld *w)
{
    struct grant g = {0}, other = {0};
    struct cast c;
    uint32_t gone;

    cast_enter(&c, w);
    assert_int_equal(acquire(&c, 0, false, &g), 0);
    gone = g.members[2];
    twin_of(&c, gone)->silent = true;
    (void)co_sleep(SEC(2));
    assert_int_equal(c.accesses[1].alive_chunks, CHUNKS - 1);
    assert_int_equal(change(&c, 0, &g, gone, 0), 0);
    (void)co_sleep(SEC(3));
    assert_int_equal(c.accesses[0].returns, 0); /* nothing can return */
    twin_of(&c, gone)->silent = false;
    (void)co_sleep(SEC(3));
    assert_true(c.accesses[0].returns >= 1 && c.accesses[0].returns <= 3);
    assert_int_equal(c.accesses[1].returns, 0); /* the owner's business */
    assert_int_equal(acquire(&c, 0, true, &other), 0);
    assert_true(other.epoch > g.epoch && other.n_absent == 1);
    assert_int_equal(change(&c, 0, &other, 0, gone), 0);
    c.accesses[0].returns = 0;
    (void)co_sleep(SEC(3));
    assert_int_equal(c.accesses[0].returns, 0);
    /* A dead owner's extents are to be opened by somebody. */
    c.accesses[0].silent = true;
    (void)co_sleep(SEC(5));
    assert_true(c.accesses[1].opens >= 4);
    cast_leave(&c);
    return 0;
}

static int garbage_script(struct mworld *w)
{
    Zbs__Meta__VolumeResizeRequest resize = ZBS__META__VOLUME_RESIZE_REQUEST__INIT;
    Zbs__Meta__VolumeDeleteRequest del = ZBS__META__VOLUME_DELETE_REQUEST__INIT;
    struct rpc_reply r;
    struct grant g = {0};
    uint64_t version;
    struct cast c;

    cast_enter(&c, w);
    assert_int_equal(acquire(&c, 0, false, &g), 0);
    (void)co_sleep(SEC(3));
    c.accesses[0].changed_volume = 0;
    resize.pool = del.pool = (char *)"p";
    resize.name = del.name = (char *)"v";
    resize.size_bytes = 32ull << 30;
    assert_int_equal(call(w, META_VOLUME_RESIZE, &resize.base, &r), 0);
    assert_int_equal(((Zbs__Meta__Volume *)r.msg)->size_bytes, 32ull << 30);
    rpc_reply_free(&r);
    (void)co_sleep(MSEC(600));
    assert_int_equal(c.accesses[0].changed_volume, c.volume_id);
    version = c.accesses[0].volumes_version; /* one change is named */
    assert_true(version != 0);
    assert_int_equal(call(w, META_VOLUME_DELETE, &del.base, &r), 0);
    rpc_reply_free(&r);
    sim_proc_crash(w->metas[wait_leader(w)].proc);
    (void)co_sleep(SEC(6));
    assert_true(c.accesses[0].volumes_version != version); /* another leader knows of none */
    for (uint32_t i = 0; i < CHUNKS; i++) {
        assert_true(c.chunks[i].n_confirmed >= 4);
        assert_int_equal(c.chunks[i].n_deleted, 0); /* confirmed ones are not given again */
    }
    cast_leave(&c);
    return 0;
}

static void expired_session_frees_its_leases(void **state)
{
    (void)state;
    for_seeds(expiry_script, 5);
}

static void sessions_survive_a_change_of_leaders(void **state)
{
    (void)state;
    for_seeds(takeover_script, 5);
}

static void tasks_go_to_who_can_do_them(void **state)
{
    (void)state;
    for_seeds(tasks_script, 5);
}

static void garbage_is_given_until_confirmed(void **state)
{
    (void)state;
    for_seeds(garbage_script, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(expired_session_frees_its_leases),
        cmocka_unit_test(sessions_survive_a_change_of_leaders),
        cmocka_unit_test(tasks_go_to_who_can_do_them),
        cmocka_unit_test(garbage_is_given_until_confirmed),
    };

    cmocka_set_test_filter(getenv("ZBS_TEST"));
    return cmocka_run_group_tests_name("sessions", tests, NULL, NULL);
}
