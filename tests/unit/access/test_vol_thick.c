/* SPDX-License-Identifier: Apache-2.0
 *
 * Thick volumes: their writes never lack space, whatever else fills the disks, and what they were
 * promised comes back when they are thin again. */
#include "tests/unit/access/vol_snapshots.h"

#define DISK_BYTES  (1280 * MIB) /* for two workers: each has room for both extents */
#define THICK_BYTES (512 * MIB)  /* two extents */
#define BLOCKS      (uint32_t)(THICK_BYTES / BLOCK_BYTES)
#define FILL_BLOCKS                                                                                \
    (uint32_t)(2 * DISK_BYTES / BLOCK_BYTES) /* so that all workers' parts are full */
#define THIN  ZBS__META__THICKNESS__THICKNESS_THIN
#define THICK ZBS__META__THICKNESS__THICKNESS_THICK

/* ---- asking meta ---- */

static Zbs__Meta__Provisioning provisioning(struct vworld *w, const char *name)
{
    Zbs__Meta__VolumeGetRequest q = ZBS__META__VOLUME_GET_REQUEST__INIT;
    Zbs__Meta__Provisioning p;
    struct rpc_reply r;

    q.pool = (char *)"pool";
    q.name = (char *)name;
    CHECK(meta_ask(w, META_VOLUME_GET, &q.base, &r) == 0);
    p = *((Zbs__Meta__Volume *)r.msg)->provisioning;
    rpc_reply_free(&r);
    return p;
}

static void provision(struct vworld *w, const char *name, Zbs__Meta__Thickness to)
{
    Zbs__Meta__VolumeSetRequest q = ZBS__META__VOLUME_SET_REQUEST__INIT;
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    struct rpc_reply r;

    meta_client_mutation(w->mc, &m);
    q.mutation = &m;
    q.pool = (char *)"pool";
    q.name = (char *)name;
    q.thickness = to;
    CHECK(meta_ask(w, META_VOLUME_SET, &q.base, &r) == 0);
    rpc_reply_free(&r);
}

static void wait_provisioned(struct vworld *w, const char *name, bool thick)
{
    nsec_t until = co_now() + SEC(120);

    for (; provisioning(w, name).pass != 0; (void)co_sleep(MSEC(50)))
        ASSERTF(co_now() < until, "%s is not done: slot %u, no space: %d", name,
                provisioning(w, name).next_slot, provisioning(w, name).no_space);
    CHECK(provisioning(w, name).thick == thick);
}

static uint64_t make(struct vworld *w, const char *name, uint64_t size_bytes, bool thick)
{
    Zbs__Meta__VolumeCreateRequest q = ZBS__META__VOLUME_CREATE_REQUEST__INIT;
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    struct rpc_reply r;
    uint64_t id;

    meta_client_mutation(w->mc, &m);
    q.mutation = &m;
    q.pool = (char *)"pool";
    q.name = (char *)name;
    q.size_bytes = size_bytes;
    q.stripe_count = 2;
    q.thick = thick;
    CHECK(meta_ask(w, META_VOLUME_CREATE, &q.base, &r) == 0);
    id = ((Zbs__Meta__Volume *)r.msg)->id;
    rpc_reply_free(&r);
    return id;
}

/* What servers that are alive have promised beyond what is used, as they last told. */
static uint64_t reserved_bytes(struct vworld *w)
{
    Zbs__Meta__ClusterStatusRequest q = ZBS__META__CLUSTER_STATUS_REQUEST__INIT;
    const Zbs__Meta__ClusterStatusReply *m;
    struct rpc_reply r;
    uint64_t sum = 0;

    CHECK(meta_ask(w, META_CLUSTER_STATUS, &q.base, &r) == 0);
    m = (const Zbs__Meta__ClusterStatusReply *)r.msg;
    for (size_t i = 0; i < m->n_chunks; i++)
        for (size_t d = 0; m->chunks[i]->view->alive && d < m->chunks[i]->n_disks; d++)
            sum += m->chunks[i]->disks[d]->reserved_bytes;
    rpc_reply_free(&r);
    return sum;
}

static void wait_reserved(struct vworld *w, uint64_t want)
{
    nsec_t until = co_now() + SEC(60);

    for (; reserved_bytes(w) != want; (void)co_sleep(MSEC(100)))
        ASSERTF(co_now() < until, "%" PRIu64 " bytes are reserved, not %" PRIu64, reserved_bytes(w),
                want);
}

/* ---- writing ---- */

/* A page of each of these blocks. */
static int write_blocks(struct vworld *w, uint64_t volume, uint32_t from, uint32_t to)
{
    int rc = 0;

    w->volume = volume;
    for (uint32_t i = from; i < to && rc == 0; i++)
        rc = do_write(w, i % HOSTS, (uint64_t)i * BLOCK_BYTES, PAGE_BYTES, i + 1);
    return rc;
}

/* How many there is room for: when one worker's part of the disk is full, another's may not be. */
static uint32_t fill_blocks(struct vworld *w, uint64_t volume)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < FILL_BLOCKS; i++) {
        int rc = write_blocks(w, volume, i, i + 1);

        CHECK(rc == 0 || rc == ERR_NOSPACE);
        n += rc == 0;
    }
    CHECK(n < FILL_BLOCKS);
    return n;
}

static void check_blocks(struct vworld *w, uint64_t volume, uint32_t from, uint32_t to)
{
    w->volume = volume;
    for (uint32_t i = from; i < to; i += 7)
        CHECK(do_read(w, i % HOSTS, (uint64_t)i * BLOCK_BYTES, PAGE_BYTES) == i + 1);
}

static void restart_all(struct vworld *w, enum role r)
{
    for (uint32_t i = 0; i < HOSTS; i++)
        crash(w, i, r);
    for (uint32_t i = 0; i < HOSTS; i++)
        start(w, i, r);
    wait_ready(w);
}

/* ---- scripts ---- */

/* Another volume takes all the space there is. */
static int script_full(struct vworld *w)
{
    uint64_t thin, thick;
    uint32_t filled;

    wait_ready(w);
    CHECK(volume_make(w, 3, 4 * GIB) == 0);
    thin = w->volume;
    thick = make(w, "thick", THICK_BYTES, true);
    wait_provisioned(w, "thick", true);
    wait_reserved(w, 3 * THICK_BYTES);
    (void)fill_blocks(w, thin);
    CHECK(write_blocks(w, thick, 0, BLOCKS / 4) == 0);
    restart_all(w, CHUNK);
    CHECK(write_blocks(w, thick, BLOCKS / 4, BLOCKS / 2) == 0);
    restart_all(w, ACCESS);
    CHECK(write_blocks(w, thick, BLOCKS / 2, BLOCKS * 3 / 4) == 0);
    check_blocks(w, thick, 0, BLOCKS * 3 / 4);
    filled = fill_blocks(w, thin); /* what owners had in hand came back with them */
    wait_reserved(w, 3 * THICK_BYTES / 4);
    provision(w, "thick", THIN);
    wait_provisioned(w, "thick", false);
    wait_reserved(w, 0);
    CHECK(fill_blocks(w, thin) > filled + BLOCKS / 8);
    check_blocks(w, thick, 0, BLOCKS * 3 / 4);
    return 0;
}

static void test_full(void **state)
{
    (void)state;
    world_of(script_full, 71, SEC(1000), DISK_BYTES);
}

/* There is no room at first. */
static int script_wait(struct vworld *w)
{
    uint64_t thick, filler;

    wait_ready(w);
    CHECK(volume_make(w, 3, 4 * GIB) == 0);
    filler = w->volume;
    thick = make(w, "thick", THICK_BYTES, false);
    CHECK(write_blocks(w, thick, 0, 40) == 0);
    (void)fill_blocks(w, filler);
    provision(w, "thick", THICK);
    while (!provisioning(w, "thick").no_space)
        CHECK(provisioning(w, "thick").pass != 0 && co_sleep(MSEC(50)) == 0);
    CHECK(write_blocks(w, thick, 0, 40) == 0); /* nothing is lost */
    remove_volume(w, "volume");
    wait_provisioned(w, "thick", true);
    check_blocks(w, thick, 0, 40);
    wait_reserved(w, 3 * THICK_BYTES - 40 * 3 * BLOCK_BYTES);
    return 0;
}

static void test_wait(void **state)
{
    (void)state;
    world_of(script_wait, 72, SEC(1000), DISK_BYTES);
}

/* Whoever works on it goes away, and what was done is shared anew. */
static int script_midway(struct vworld *w)
{
    uint64_t thick, snap;

    wait_ready(w);
    CHECK(volume_make(w, 3, MIB) == 0);
    thick = make(w, "thick", THICK_BYTES, false);
    CHECK(write_blocks(w, thick, 0, 100) == 0);
    provision(w, "thick", THICK);
    crash(w, 0, ACCESS);
    crash(w, 1, META);
    crash(w, 2, CHUNK);
    (void)co_sleep(SEC(2));
    start(w, 0, ACCESS);
    start(w, 1, META);
    start(w, 2, CHUNK);
    wait_ready(w);
    wait_provisioned(w, "thick", true);
    wait_degraded(w, false, SEC(60));
    wait_reserved(w, 3 * (THICK_BYTES - 100 * BLOCK_BYTES));
    snap = snapshot(w, "thick", "s");
    CHECK(provisioning(w, "thick").pass != 0);
    restart_all(w, ACCESS);
    wait_provisioned(w, "thick", true);
    wait_reserved(w, 3 * THICK_BYTES); /* what the snapshot has is not its own */
    CHECK(write_blocks(w, thick, 50, 150) == 0);
    check_blocks(w, snap, 0, 100);
    check_blocks(w, thick, 0, 150);
    wait_reserved(w, 3 * (THICK_BYTES - 100 * BLOCK_BYTES));
    remove_volume(w, "thick@s");
    remove_volume(w, "thick");
    remove_volume(w, "volume");
    wait_empty(w);
    return 0;
}

static void test_midway(void **state)
{
    (void)state;
    world_of(script_midway, 73, SEC(1000), DISK_BYTES);
}

/* A copy that is made elsewhere promises, too; one where there is no room is made all the same. */
static int script_recovery(struct vworld *w)
{
    uint64_t filler, thick;

    wait_ready(w);
    setting_set(w, "recovery.grace", 5);
    CHECK(volume_make(w, 2, 4 * GIB) == 0);
    filler = w->volume;
    thick = make(w, "thick", THICK_BYTES, true);
    wait_provisioned(w, "thick", true);
    CHECK(write_blocks(w, thick, 0, 100) == 0);
    wait_reserved(w, 2 * (THICK_BYTES - 100 * BLOCK_BYTES));
    crash(w, 2, CHUNK);
    (void)co_sleep(SEC(10));
    wait_degraded(w, false, SEC(120));
    wait_provisioned(w, "thick", true);
    wait_reserved(w, 2 * (THICK_BYTES - 100 * BLOCK_BYTES));
    (void)fill_blocks(w, filler);
    CHECK(write_blocks(w, thick, 0, BLOCKS) == 0);
    check_blocks(w, thick, 0, BLOCKS);
    return 0;
}

static void test_recovery(void **state)
{
    (void)state;
    world_of(script_recovery, 74, SEC(1000), DISK_BYTES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full),
        cmocka_unit_test(test_wait),
        cmocka_unit_test(test_midway),
        cmocka_unit_test(test_recovery),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
