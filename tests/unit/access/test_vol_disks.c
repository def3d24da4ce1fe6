/* SPDX-License-Identifier: Apache-2.0
 *
 * One of a chunk server's disks fails, is drained or is absent at a start: clients notice nothing,
 * and all replicas are there again afterwards. */
#include "chunk/engine.h"
#include "tests/unit/access/vol_world.h"

#define DISK2  "/dev/disk2"
#define VOLUME (4 * GIB)
#define PIECES 48u
#define STEP   (80 * MIB) /* over many extents */

static int format_second(void *arg)
{
    struct chunk_format_conf conf = {.workers = 2, .journal_bytes = 8 * MIB};
    struct super_block *sb = mem_alloc(sizeof(*sb));

    (void)arg;
    CHECK(super_read(DISK, sb) == 0);
    memcpy(conf.server_uuid, sb->server_uuid, 16);
    mem_free(sb);
    return chunk_format(DISK2, &conf);
}

static void disks_init(struct vworld *w, uint64_t seed)
{
    struct sim_conf conf = {.seed = seed};

    world_init(w, &conf, GIB);
    for (uint32_t i = 0; i < HOSTS; i++) {
        struct vnode *n = &w->nodes[i];

        sim_disk_create(n->procs[CHUNK], DISK2, GIB);
        n->chunk.disks[n->chunk.n_disks++] = DISK2;
        sim_proc_start(n->procs[CHUNK], format_second, n);
        while (sim_proc_running(n->procs[CHUNK]))
            assert_true(sim_step(w->sim));
        assert_int_equal(sim_proc_result(n->procs[CHUNK]), 0);
    }
}

static void fill(struct vworld *w, uint64_t value)
{
    for (uint32_t i = 0; i < PIECES; i++)
        CHECK(do_write(w, i % HOSTS, i * STEP, 64 * 1024, value + i) == 0);
}

static void look(struct vworld *w, uint64_t value)
{
    for (uint32_t i = 0; i < PIECES; i++)
        CHECK(do_read(w, (i + 1) % HOSTS, i * STEP, 64 * 1024) == value + i);
}

/* What the leader says about a disk of a node. */
static void disk_status(struct vworld *w, uint32_t node, const char *path, uint32_t *ret_state,
                        uint64_t *ret_extents)
{
    Zbs__Meta__ClusterStatusRequest q = ZBS__META__CLUSTER_STATUS_REQUEST__INIT;
    const Zbs__Meta__ClusterStatusReply *m;
    struct rpc_reply r;

    *ret_state = UINT32_MAX;
    CHECK(meta_ask(w, META_CLUSTER_STATUS, &q.base, &r) == 0);
    m = (const Zbs__Meta__ClusterStatusReply *)r.msg;
    for (size_t i = 0; i < m->n_chunks; i++) {
        if (strcmp(m->chunks[i]->view->host, w->nodes[node].host) != 0)
            continue;
        for (size_t d = 0; d < m->chunks[i]->n_disks; d++) {
            if (strcmp(m->chunks[i]->disks[d]->path, path) != 0)
                continue;
            *ret_state = m->chunks[i]->disks[d]->state;
            *ret_extents = m->chunks[i]->disks[d]->extents;
        }
    }
    rpc_reply_free(&r);
}

/* ---- a disk fails under load ---- */

static int script_fail(struct vworld *w)
{
    uint32_t state;
    uint64_t extents;

    wait_ready(w);
    CHECK(volume_make(w, 3, VOLUME) == 0);
    fill(w, 1);
    (void)co_sleep(SEC(1));
    disk_status(w, 1, DISK2, &state, &extents);
    CHECK(state == DISK_HEALTHY && extents > 0);
    sim_disk_fail(w->nodes[1].procs[CHUNK], DISK2, true);
    fill(w, 1001);
    (void)co_sleep(SEC(1));
    disk_status(w, 1, DISK2, &state, &extents);
    CHECK(state == DISK_FAILED);
    look(w, 1001);
    /* The same server has its replicas again, on the other disk. */
    wait_degraded(w, false, SEC(120));
    disk_status(w, 1, DISK2, &state, &extents);
    CHECK(state == DISK_FAILED && extents == 0);
    CHECK(do_verify(w, 16) > 0);
    fill(w, 2001);
    /* It comes back with the next start, with copies that nobody wants any more. */
    crash(w, 1, CHUNK);
    sim_disk_fail(w->nodes[1].procs[CHUNK], DISK2, false);
    start(w, 1, CHUNK);
    wait_ready(w);
    wait_degraded(w, false, SEC(120));
    look(w, 2001);
    CHECK(do_verify(w, 16) > 0);
    return 0;
}

static void test_fail(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        struct vworld w;

        disks_init(&w, seed);
        world_run(&w, script_fail, SEC(1000));
        world_fini(&w);
    }
}

/* ---- the last disk fails ---- */

/* What recovery's status says of a node's chunk server. False: nothing, so all is well there. */
static bool recovery_status(struct vworld *w, uint32_t node, bool *ret_alive)
{
    Zbs__Meta__RecoveryStatusRequest q = ZBS__META__RECOVERY_STATUS_REQUEST__INIT;
    const Zbs__Meta__RecoveryStatusReply *m;
    struct rpc_reply r;
    bool found = false;

    CHECK(meta_ask(w, META_RECOVERY_STATUS, &q.base, &r) == 0);
    m = (const Zbs__Meta__RecoveryStatusReply *)r.msg;
    for (size_t i = 0; i < m->n_chunks; i++) {
        if (strcmp(m->chunks[i]->host, w->nodes[node].host) != 0)
            continue;
        *ret_alive = m->chunks[i]->alive;
        found = true;
    }
    rpc_reply_free(&r);
    return found;
}

/* A server without a healthy disk is not one that is away. */
static int script_last(struct vworld *w)
{
    bool alive;

    wait_ready(w);
    CHECK(volume_make(w, 3, VOLUME) == 0);
    fill(w, 1);
    (void)co_sleep(SEC(1));
    CHECK(!recovery_status(w, 1, &alive));
    sim_disk_fail(w->nodes[1].procs[CHUNK], DISK, true);
    sim_disk_fail(w->nodes[1].procs[CHUNK], DISK2, true);
    fill(w, 1001);
    (void)co_sleep(SEC(2));
    CHECK(recovery_status(w, 1, &alive) && alive);
    crash(w, 1, CHUNK);
    (void)co_sleep(SEC(2));
    CHECK(recovery_status(w, 1, &alive) && !alive);
    return 0;
}

static void test_last(void **state)
{
    struct vworld w;

    (void)state;
    disks_init(&w, 4);
    world_run(&w, script_last, SEC(1000));
    world_fini(&w);
}

/* ---- a disk is absent at a start ---- */

static int script_absent(struct vworld *w)
{
    uint32_t state;
    uint64_t extents;

    wait_ready(w);
    CHECK(volume_make(w, 3, VOLUME) == 0);
    fill(w, 1);
    crash(w, 1, CHUNK);
    sim_disk_fail(w->nodes[1].procs[CHUNK], DISK2, true);
    start(w, 1, CHUNK);
    wait_ready(w);
    fill(w, 1001);
    (void)co_sleep(SEC(1));
    disk_status(w, 1, DISK2, &state, &extents);
    CHECK(state == DISK_FAILED);
    wait_degraded(w, false, SEC(120));
    look(w, 1001);
    CHECK(do_verify(w, 16) > 0);
    crash(w, 1, CHUNK);
    sim_disk_fail(w->nodes[1].procs[CHUNK], DISK2, false);
    start(w, 1, CHUNK);
    wait_ready(w);
    fill(w, 2001);
    wait_degraded(w, false, SEC(120));
    look(w, 2001);
    CHECK(do_verify(w, 16) > 0);
    return 0;
}

static void test_absent(void **state)
{
    (void)state;
    for (uint64_t seed = 11; seed <= 13; seed++) {
        struct vworld w;

        disks_init(&w, seed);
        world_run(&w, script_absent, SEC(1000));
        world_fini(&w);
    }
}

/* ---- a disk is drained under load ---- */

static int drain_call(struct vworld *w, uint32_t node)
{
    Zbs__Chunk__DiskDrainRequest q = ZBS__CHUNK__DISK_DRAIN_REQUEST__INIT;
    struct rpc_client_conf conf = {
        .addr = w->nodes[node].listen[CHUNK], .self = "script", .cluster_id = ""};
    struct rpc_client *c = rpc_client_new(&conf);
    char path[] = DISK2;
    struct rpc_reply r;
    int rc;

    q.path = path;
    rpc_reply_init(&r);
    rc = rpc_call(c, &zbs__chunk__chunk__descriptor, 16, &q.base, NULL, &r);
    rpc_reply_free(&r);
    rpc_client_close(c);
    return rc;
}

static int script_drain(struct vworld *w)
{
    nsec_t until = co_now() + SEC(120);
    uint64_t extents = 1, value = 1;
    uint32_t state = DISK_HEALTHY;

    wait_ready(w);
    CHECK(volume_make(w, 3, VOLUME) == 0);
    fill(w, value);
    CHECK(drain_call(w, 1) == 0);
    while (state != DISK_DRAINING || extents > 0) { /* meta hears of it with a heartbeat */
        value += 1000;
        fill(w, value);
        look(w, value);
        CHECK(degraded(w) == 0); /* nobody was removed for it */
        disk_status(w, 1, DISK2, &state, &extents);
        CHECK(co_now() < until);
    }
    CHECK(do_verify(w, 16) > 0);
    return 0;
}

static void test_drain(void **state)
{
    (void)state;
    for (uint64_t seed = 21; seed <= 23; seed++) {
        struct vworld w;

        disks_init(&w, seed);
        world_run(&w, script_drain, SEC(1000));
        world_fini(&w);
    }
}

/* ---- one of two is lost while the third is away ---- */

/* Two are demanded, so the lost one can't leave before the third has everything in its place. */
static int script_exchange(struct vworld *w)
{
    wait_ready(w);
    CHECK(volume_make(w, 3, VOLUME) == 0);
    fill(w, 1);
    crash(w, 2, CHUNK);
    for (uint32_t i = 0; i < PIECES; i++)
        CHECK(do_write(w, 0, i * STEP, 64 * 1024, 1001 + i) == 0);
    crash(w, 1, CHUNK);
    for (uint32_t i = 0; i < HOSTS; i++)
        crash(w, i, ACCESS); /* whoever owned an extent */
    sim_disk_fail(w->nodes[1].procs[CHUNK], DISK2, true);
    for (uint32_t i = 1; i < HOSTS; i++)
        start(w, i, CHUNK);
    for (uint32_t i = 0; i < HOSTS; i++)
        start(w, i, ACCESS);
    wait_ready(w);
    look(w, 1001);
    fill(w, 2001);
    wait_degraded(w, false, SEC(120));
    look(w, 2001);
    CHECK(do_verify(w, 16) > 0);
    return 0;
}

static void test_exchange(void **state)
{
    (void)state;
    for (uint64_t seed = 31; seed <= 33; seed++) {
        struct vworld w;

        disks_init(&w, seed);
        world_run(&w, script_exchange, SEC(1000));
        world_fini(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fail),     cmocka_unit_test(test_last),
        cmocka_unit_test(test_absent),   cmocka_unit_test(test_drain),
        cmocka_unit_test(test_exchange),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
