/* SPDX-License-Identifier: Apache-2.0
 *
 * Extents that share blocks go on sharing them when their replicas are made elsewhere, because a
 * server was lost, is removed, or is fuller than others. Two replicas on three hosts. */
#include "tests/unit/access/vol_snapshots.h"

#define DATA  (24 * MIB) /* in four extents, each the origin of a family */
#define GROUP (512 * MIB)
#define SNAPS 3u

/* What meta says of one host's chunk server: 0 in all if it knows none. */
struct seen {
    uint32_t id, replicas;
    uint64_t used;
};

static struct seen look(struct vworld *w, uint32_t node)
{
    Zbs__Meta__ClusterStatusRequest q = ZBS__META__CLUSTER_STATUS_REQUEST__INIT;
    const Zbs__Meta__ClusterStatusReply *s;
    struct seen seen = {0};
    struct rpc_reply r;

    CHECK(meta_ask(w, META_CLUSTER_STATUS, &q.base, &r) == 0);
    s = (const Zbs__Meta__ClusterStatusReply *)r.msg;
    for (size_t i = 0; i < s->n_chunks; i++) {
        const Zbs__Meta__ChunkStatus *c = s->chunks[i];

        if (strcmp(c->view->host, w->nodes[node].host) == 0)
            seen = (struct seen){c->view->chunk_id, c->replicas,
                                 c->n_disks > 0 ? c->disks[0]->used_bytes : 0};
    }
    rpc_reply_free(&r);
    return seen;
}

static uint64_t used(struct vworld *w, uint32_t node)
{
    return look(w, node).used;
}

/* Until all that it had is made elsewhere. */
static void wait_left(struct vworld *w, uint32_t node)
{
    nsec_t until = co_now() + SEC(120);

    while (look(w, node).replicas > 0 || degraded(w) > 0) {
        ASSERTF(co_now() < until, "host %u has %u replicas, %u extents are degraded", node + 1,
                look(w, node).replicas, degraded(w));
        (void)co_sleep(MSEC(200));
    }
}

static void chunk_remove(struct vworld *w, uint32_t node)
{
    Zbs__Meta__ChunkMarkRequest q = ZBS__META__CHUNK_MARK_REQUEST__INIT;
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    struct rpc_reply r;

    meta_client_mutation(w->mc, &m);
    q.mutation = &m;
    q.chunk_id = look(w, node).id;
    q.removing = true;
    CHECK(meta_ask(w, META_CHUNK_MARK, &q.base, &r) == 0);
    rpc_reply_free(&r);
}

static uint64_t place(uint32_t k)
{
    return k % 2 * GROUP + k / 2 * MIB;
}

/* A volume of which much is in snapshots, and little differs between any two of them. */
static void make(struct vworld *w, uint64_t *snaps)
{
    CHECK(volume_make(w, 2, VOLUME) == 0);
    setting_set(w, "balance.extents", 0);
    for (uint32_t k = 0; k < DATA / MIB; k++)
        CHECK(do_write(w, 0, place(k), MIB, 1) == 0);
    for (uint32_t k = 0; k < SNAPS; k++) {
        char name[8];

        snprintf(name, sizeof(name), "s%u", k);
        snaps[k] = snapshot(w, "volume", name);
        CHECK(do_write(w, 0, place(k), 64 * KIB, 10 + k) == 0);
    }
}

/* The content of all of them, and that their replicas are equal. */
static void check(struct vworld *w, const uint64_t *snaps)
{
    uint64_t volume = w->volume;

    for (uint32_t v = 0; v <= SNAPS; v++) {
        w->volume = v < SNAPS ? snaps[v] : volume;
        for (uint32_t k = 0; k < DATA / MIB; k++)
            CHECK(do_read(w, 0, place(k), 64 * KIB) == (k < v ? 10 + k : 1));
        CHECK(do_verify(w, 4) > 0);
    }
    w->volume = volume;
}

/* The host that has nothing, and one that has something but is not the first. */
static void find(struct vworld *w, uint32_t *ret_empty, uint32_t *ret_full)
{
    (void)co_sleep(SEC(2)); /* until all servers have told */
    *ret_empty = used(w, 1) < used(w, 2) ? 1 : 2;
    *ret_full = 3 - *ret_empty;
}

/* All the data is there once, and something for what differs and for metadata. */
static void check_shared(struct vworld *w, uint32_t node)
{
    (void)co_sleep(SEC(2));
    ASSERTF(used(w, node) >= DATA && used(w, node) < DATA + DATA / 2,
            "%" PRIu64 " KiB are used on host %u", used(w, node) / KIB, node + 1);
}

static int script_lost(struct vworld *w)
{
    uint64_t snaps[SNAPS];
    uint32_t empty, full;

    wait_ready(w);
    setting_set(w, "recovery.grace", 1);
    make(w, snaps);
    find(w, &empty, &full);
    crash(w, full, CHUNK);
    wait_left(w, full);
    check_shared(w, empty);
    check(w, snaps);
    /* What was made there is written to, and copied from, like anything else. */
    for (uint32_t k = 0; k < DATA / MIB; k++)
        CHECK(do_write(w, 1, place(k), 64 * KIB, 1) == 0);
    start(w, full, CHUNK);
    crash(w, 0, CHUNK);
    wait_left(w, 0);
    w->volume = snaps[0];
    for (uint32_t k = 0; k < DATA / MIB; k++)
        CHECK(do_read(w, 0, place(k), 64 * KIB) == 1);
    CHECK(do_verify(w, 4) > 0);
    return 0;
}

static int script_removed(struct vworld *w)
{
    uint64_t snaps[SNAPS];
    uint32_t empty, full;

    wait_ready(w);
    make(w, snaps);
    find(w, &empty, &full);
    chunk_remove(w, full);
    wait_left(w, full);
    check_shared(w, empty);
    check(w, snaps);
    return 0;
}

/* Until nothing moves any more: it does not go to and fro. */
static void wait_quiet(struct vworld *w)
{
    nsec_t until = co_now() + SEC(120), since = co_now();
    uint32_t last = 0;

    while (co_now() - since < SEC(10)) {
        uint32_t now = 0;

        for (uint32_t i = 0; i < HOSTS; i++)
            now = now * 256 + look(w, i).replicas;
        if (now != last)
            since = co_now();
        last = now;
        ASSERTF(co_now() < until, "replicas still move: %#x", now);
        (void)co_sleep(MSEC(100));
    }
}

static int script_balanced(struct vworld *w)
{
    uint64_t snaps[SNAPS], sum = 0;
    const uint32_t empty = 2;

    wait_ready(w);
    crash(w, empty, CHUNK);
    while (chunks_alive(w) == HOSTS)
        (void)co_sleep(MSEC(100));
    make(w, snaps);
    start(w, empty, CHUNK);
    wait_ready(w);
    setting_set(w, "balance.threshold", 1);
    setting_set(w, "balance.extents", 4);
    wait_quiet(w);
    CHECK(used(w, empty) >= DATA / 4);
    for (uint32_t i = 0; i < HOSTS; i++)
        sum += used(w, i);
    ASSERTF(sum < 2 * DATA + DATA, "%" PRIu64 " KiB are used", sum / KIB);
    check(w, snaps);
    return 0;
}

/* Two of three are left of a volume's extent, and one of them loses it: the third, which has only
 * the snapshot's extent so far, takes its place. */
static int script_exchanged(struct vworld *w)
{
    uint64_t snap;

    wait_ready(w);
    CHECK(volume_make(w, 3, VOLUME) == 0);
    CHECK(do_write(w, 0, 0, 64 * KIB, 1) == 0);
    crash(w, 2, CHUNK);
    CHECK(do_write(w, 0, 0, 64 * KIB, 2) == 0);
    snap = snapshot(w, "volume", "s");
    CHECK(do_write(w, 0, 0, 64 * KIB, 3) == 0);
    start(w, 2, CHUNK);
    while (degraded(w) > 2)
        (void)co_sleep(MSEC(1));
    CHECK(degraded(w) == 2);
    CHECK(do_write(w, 0, 0, PAGE_BYTES, 4) == 0);
    CHECK(rot(w, 1, 0, 4) > 0); /* in the journal still */
    crash(w, 1, CHUNK);
    start(w, 1, CHUNK);
    while (do_write(w, 0, PAGE_BYTES, PAGE_BYTES, 5) < 0) /* what was on its way may be lost */
        (void)co_sleep(MSEC(20));
    wait_ready(w);
    wait_degraded(w, false, SEC(60));
    CHECK(do_read(w, 1, 0, PAGE_BYTES) == 4);
    CHECK(do_read(w, 1, PAGE_BYTES, PAGE_BYTES) == 5);
    CHECK(do_read(w, 1, 8 * PAGE_BYTES, PAGE_BYTES) == 3);
    CHECK(do_verify(w, 1) > 0);
    w->volume = snap;
    CHECK(do_read(w, 1, 0, 64 * KIB) == 2);
    CHECK(do_verify(w, 1) > 0);
    return 0;
}

static void test_lost(void **state)
{
    (void)state;
    world_script(script_lost, 1, GIB);
}

static void test_removed(void **state)
{
    (void)state;
    world_script(script_removed, 2, GIB);
}

static void test_balanced(void **state)
{
    (void)state;
    world_script(script_balanced, 3, GIB);
}

static void test_exchanged(void **state)
{
    (void)state;
    world_script(script_exchanged, 4, GIB);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lost),
        cmocka_unit_test(test_removed),
        cmocka_unit_test(test_balanced),
        cmocka_unit_test(test_exchanged),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
