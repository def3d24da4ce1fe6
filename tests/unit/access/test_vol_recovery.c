/* SPDX-License-Identifier: Apache-2.0
 *
 * Recovery as a whole: a replica is made elsewhere when its server stays away, at the pace that a
 * setting allows, and what no extent has is collected. Two replicas on three hosts. */
#include "access/vol/vol_int.h"
#include "tests/unit/access/vol_world.h"

#define VOLUME (256 * MIB)
#define DATA   (24 * MIB)
#define LARGE  (96 * MIB)

enum { CHUNK_CREATE_METHOD = 1, CHUNK_LIST_METHOD = 13 }; /* in proto/chunk.proto */

/* Calls a chunk server's worker for an extent. */
static int chunk_ask(struct vworld *w, uint32_t node, uint32_t worker, uint32_t method,
                     const ProtobufCMessage *q, struct rpc_reply *r)
{
    struct rpc_client *c =
        rpc_client_new(&(struct rpc_client_conf){.addr = w->nodes[node].listen[CHUNK],
                                                 .self = "script",
                                                 .cluster_id = "",
                                                 .instance = worker});
    nsec_t former = co_deadline_push(co_now() + SEC(5));
    int rc;

    rpc_reply_init(r);
    rc = rpc_call(c, &zbs__chunk__chunk__descriptor, method, q, NULL, r);
    co_deadline_restore(former);
    rpc_client_close(c);
    return rc;
}

/* Replicas that a chunk server has, of both its workers. */
static uint32_t stored(struct vworld *w, uint32_t node)
{
    uint32_t n = 0;

    for (uint32_t worker = 0; worker < 2; worker++) {
        Zbs__Chunk__ListReplicasRequest q = ZBS__CHUNK__LIST_REPLICAS_REQUEST__INIT;
        struct rpc_reply r;

        q.max = 100;
        if (chunk_ask(w, node, worker, CHUNK_LIST_METHOD, &q.base, &r) == 0)
            n += (uint32_t)((Zbs__Chunk__ListReplicasReply *)r.msg)->n_replicas;
        rpc_reply_free(&r);
    }
    return n;
}

static void wait_stored(struct vworld *w, uint32_t node, uint32_t want, nsec_t limit)
{
    nsec_t until = co_now() + limit;

    while (stored(w, node) != want) {
        ASSERTF(co_now() < until, "node %u has %u replicas, not %u", node, stored(w, node), want);
        (void)co_sleep(MSEC(100));
    }
}

static void fill(struct vworld *w, uint64_t value)
{
    for (uint64_t at = 0; at < DATA; at += MIB)
        CHECK(do_write(w, 0, at, MIB, value) == 0);
}

/* A node with a replica, other than the first, whose access server owns the extent. */
static uint32_t holder(struct vworld *w)
{
    return stored(w, 1) > 0 ? 1 : 2;
}

/* Returns how long it took until the extent was whole again without that server. */
static nsec_t lose(struct vworld *w, uint32_t node)
{
    nsec_t since = co_now();

    crash(w, node, CHUNK);
    wait_degraded(w, true, SEC(20));
    wait_degraded(w, false, SEC(120));
    return co_now() - since;
}

static int script_replace(struct vworld *w)
{
    uint32_t node;
    nsec_t took;

    wait_ready(w);
    CHECK(volume_make(w, 2, VOLUME) == 0);
    setting_set(w, "recovery.grace", 2);
    setting_set(w, "balance.extents", 0);
    fill(w, 7);
    node = holder(w);
    took = lose(w, node);
    CHECK(took >= SEC(2) && took < SEC(15));
    CHECK(do_verify(w, 1) > 0);
    for (uint64_t at = 0; at < DATA; at += MIB)
        CHECK(do_read(w, 0, at, MIB) == 7);
    /* It comes back, and what it has is nobody's. */
    start(w, node, CHUNK);
    wait_stored(w, node, 0, SEC(30));
    CHECK(do_verify(w, 1) > 0);
    return 0;
}

/* Slower than the grace period: only what it missed. */
static int script_grace(struct vworld *w)
{
    uint32_t node;

    wait_ready(w);
    CHECK(volume_make(w, 2, VOLUME) == 0);
    setting_set(w, "recovery.grace", 60);
    setting_set(w, "balance.extents", 0);
    fill(w, 7);
    node = holder(w);
    crash(w, node, CHUNK);
    fill(w, 8);
    wait_degraded(w, true, SEC(20));
    (void)co_sleep(SEC(10));
    CHECK(degraded(w) > 0);
    start(w, node, CHUNK);
    wait_degraded(w, false, SEC(60));
    CHECK(stored(w, node) > 0);
    CHECK(do_verify(w, 1) > 0);
    return 0;
}

/* 12 MiB or more at 1 MiB a second; then the rate is raised while it runs. */
static int script_throttle(struct vworld *w)
{
    nsec_t since;
    uint32_t node;

    wait_ready(w);
    CHECK(volume_make(w, 2, VOLUME) == 0);
    setting_set(w, "recovery.grace", 1);
    setting_set(w, "balance.extents", 0);
    setting_set(w, "recovery.rate", MIB);
    fill(w, 7);
    node = holder(w);
    since = co_now();
    crash(w, node, CHUNK);
    (void)co_sleep(SEC(9));
    CHECK(degraded(w) > 0);
    setting_set(w, "recovery.rate", 1024 * MIB);
    wait_degraded(w, false, SEC(3));
    CHECK(co_now() - since < SEC(12));
    CHECK(do_verify(w, 1) > 0);
    return 0;
}

static uint64_t copied(struct vworld *w)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < HOSTS; i++)
        bytes += w->nodes[i].engine->recovery.copied_bytes;
    return bytes;
}

/* With nothing else to do, copies go at the speed of the disks: what is read, what is on its way
 * and what is written overlap. */
static int script_bandwidth(struct vworld *w)
{
    const struct sim_disk_speed speed = {.latency = 100 * NSEC_PER_USEC,
                                         .per_request = 10 * NSEC_PER_USEC,
                                         .bytes_per_sec = 400 * MIB};
    uint64_t first, last, rate;
    nsec_t began, ended;

    wait_ready(w);
    CHECK(volume_make(w, 2, VOLUME) == 0);
    setting_set(w, "recovery.grace", 1);
    setting_set(w, "balance.extents", 0);
    setting_set(w, "recovery.rate", 1024 * GIB);
    for (uint64_t at = 0; at < LARGE; at += MIB)
        CHECK(do_write(w, 0, at, MIB, 7) == 0);
    for (uint32_t i = 0; i < HOSTS; i++)
        sim_disk_set_speed(w->nodes[i].procs[CHUNK], DISK, &speed);
    crash(w, holder(w), CHUNK);
    while ((first = copied(w)) == 0)
        (void)co_sleep(MSEC(1));
    began = ended = co_now();
    for (last = first; last < LARGE / 2; (void)co_sleep(MSEC(1)))
        if (copied(w) > last) { /* of one of two extents at least */
            last = copied(w);
            ended = co_now();
        }
    rate = (last - first) * NSEC_PER_SEC / (uint64_t)(ended - began);
    ASSERTF(rate >= speed.bytes_per_sec / 10 * 8, "%" PRIu64 " MiB/s", rate / MIB);
    return 0;
}

/* A replica that meta knows nothing of; its id is one that was never an extent's. */
static int script_unknown(struct vworld *w)
{
    Zbs__Chunk__CreateRequest q = ZBS__CHUNK__CREATE_REQUEST__INIT;
    Zbs__Chunk__CreateItem item = ZBS__CHUNK__CREATE_ITEM__INIT;
    Zbs__Chunk__CreateItem *items[] = {&item};
    struct rpc_reply r;
    uint32_t before;
    int rc;

    wait_ready(w);
    CHECK(volume_make(w, 2, VOLUME) == 0);
    fill(w, 7);
    setting_set(w, "gc.delay", 10);
    before = stored(w, 1);
    item.extent_id = item.family = 1;
    item.epoch = 1;
    q.items = items;
    q.n_items = 1;
    rc = chunk_ask(w, 1, extent_worker(1, 2), CHUNK_CREATE_METHOD, &q.base, &r);
    CHECK(rc == 0 && ((Zbs__Chunk__CreateReply *)r.msg)->results[0]->rc == 0);
    rpc_reply_free(&r);
    CHECK(stored(w, 1) == before + 1);
    (void)co_sleep(SEC(8));
    CHECK(stored(w, 1) == before + 1);
    wait_stored(w, 1, before, SEC(20));
    CHECK(do_verify(w, 1) > 0);
    return 0;
}

static void test_replace(void **state)
{
    (void)state;
    world_script(script_replace, 1, 2 * GIB);
}

static void test_grace(void **state)
{
    (void)state;
    world_script(script_grace, 1, 2 * GIB);
}

static void test_throttle(void **state)
{
    (void)state;
    world_script(script_throttle, 1, 2 * GIB);
}

static void test_bandwidth(void **state)
{
    (void)state;
    world_script(script_bandwidth, 1, 2 * GIB);
}

static void test_unknown(void **state)
{
    (void)state;
    world_script(script_unknown, 1, 2 * GIB);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replace),  cmocka_unit_test(test_grace),
        cmocka_unit_test(test_throttle), cmocka_unit_test(test_bandwidth),
        cmocka_unit_test(test_unknown),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
