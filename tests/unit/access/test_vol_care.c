/* SPDX-License-Identifier: Apache-2.0
 *
 * The volume engine: an orderly stop, read repair, damage, several absent replicas, servers that
 * come late. */
#include "tests/unit/access/vol_world.h"

#define VOLUME (1 * GIB)
#define PIECES 32u

static bool workers_gone(void *arg)
{
    return ((struct vnode *)arg)->workers.count == 0;
}

static void access_stop(struct vworld *w, uint32_t i)
{
    struct vnode *n = &w->nodes[i];

    n->ending = true;
    assert_true(sim_run_until(w->sim, workers_gone, n, SEC(10)));
    sim_proc_stop(n->procs[ACCESS]);
    assert_int_equal(sim_proc_result(n->procs[ACCESS]), 0);
    n->engine = NULL;
    n->life++;
}

/* ---- an orderly stop ---- */

static int script_fill(struct vworld *w)
{
    wait_ready(w);
    CHECK(volume_make(w, 3, VOLUME) == 0);
    for (uint32_t i = 0; i < PIECES; i++)
        CHECK(do_write(w, 1, i * MIB, 8192, i + 1) == 0);
    return 0;
}

/* Its leases were given back: another serves at once, without waiting for an expiry. */
static int script_look(struct vworld *w)
{
    nsec_t start_ns = co_now();

    for (uint32_t i = 0; i < PIECES; i++)
        CHECK(do_read(w, 0, i * MIB, 8192) == i + 1);
    CHECK(do_write(w, 2, 0, 4096, 99) == 0);
    CHECK(co_now() - start_ns < MSEC(900));
    CHECK(degraded(w) == 0);
    return 0;
}

static int script_after(struct vworld *w)
{
    wait_ready(w);
    CHECK(do_read(w, 1, 0, 4096) == 99);
    CHECK(do_verify(w, 4) > 0);
    return 0;
}

static int script_nothing(struct vworld *w)
{
    (void)w;
    return co_sleep(SEC(1));
}

static void test_stop(void **state)
{
    struct sim_conf conf = {.seed = 3};
    struct vworld w;

    (void)state;
    world_init(&w, &conf, 2 * GIB);
    world_run(&w, script_fill, SEC(100));
    access_stop(&w, 1);
    w.done = false;
    w.script = script_look;
    sim_control(w.sim, CONTROL, "script", script_main, &w);
    assert_true(sim_run_until(w.sim, is_done, &w, SEC(100)));
    world_run(&w, script_after, SEC(100));
    /* All of them, with nobody left to take over. */
    for (uint32_t i = 0; i < HOSTS; i++)
        access_stop(&w, i);
    world_run(&w, script_nothing, SEC(100));
    world_run(&w, script_after, SEC(100));
    world_fini(&w);
}

/* ---- a stop after a loss ---- */

#define BURST 16u

static void alone(struct vworld *w, uint32_t node, bool on)
{
    for (uint32_t i = 0; i < HOSTS; i++) {
        if (i == node)
            continue;
        (on ? sim_net_cut : sim_net_heal)(w->sim, w->nodes[node].addr, w->nodes[i].addr);
        (on ? sim_net_cut : sim_net_heal)(w->sim, w->nodes[i].addr, w->nodes[node].addr);
    }
}

/* Writes to one extent are under way, some confirmed by all behind one that is not, when its owner
 * is cut off for so long that it loses the session, and with it the extent. */
static int script_lose(struct vworld *w)
{
    static struct job jobs[BURST];

    wait_ready(w);
    CHECK(volume_make(w, 3, VOLUME) == 0);
    CHECK(do_write(w, 1, 0, 4096, 1) == 0);
    for (uint32_t round = 0; round < 10; round++) {
        uint32_t life = w->nodes[1].life;

        for (uint32_t i = 0; i < BURST; i++) {
            jobs[i] = (struct job){.fn = job_write,
                                   .off = i ? 600 * KIB + i * 4096ull : 0,
                                   .len = i ? 4096 : 512 * KIB,
                                   .value = round + 2,
                                   .limit = SEC(20)};
            job_post(w, 1, &jobs[i]);
        }
        (void)co_sleep(MSEC(1) / 2 + round * MSEC(1) / 4);
        alone(w, 1, true);
        (void)co_sleep(SEC(12));
        alone(w, 1, false);
        for (uint32_t i = 0; i < BURST; i++)
            (void)job_wait(w, 1, &jobs[i], life);
    }
    return 0;
}

/* Nothing is left of what was lost. */
static void test_stop_lost(void **state)
{
    struct sim_conf conf = {.seed = 4};
    struct vworld w;

    (void)state;
    world_init(&w, &conf, 2 * GIB);
    world_run(&w, script_lose, SEC(1000));
    access_stop(&w, 1);
    world_run(&w, script_nothing, SEC(100));
    world_fini(&w);
}

/* ---- repair ---- */

static int script_rot(struct vworld *w)
{
    uint32_t found = 0;

    wait_ready(w);
    CHECK(volume_make(w, 3, VOLUME) == 0);
    for (uint32_t i = 0; i < PIECES; i++)
        CHECK(do_write(w, 1, i * MIB, 256 * 1024, i + 1) == 0);
    (void)co_sleep(SEC(4)); /* flushed home, and out of memory after a restart */
    for (uint32_t i = 0; i < HOSTS; i++) {
        crash(w, i, CHUNK);
        start(w, i, CHUNK);
    }
    (void)co_sleep(SEC(2));
    for (uint32_t i = 0; i < PIECES; i++)
        found += rot(w, i % HOSTS, i * MIB + i % 64 * PAGE_BYTES, i + 1) > 0;
    CHECK(found > PIECES / 2);
    for (uint32_t node = 0; node < HOSTS; node++)
        for (uint32_t i = 0; i < PIECES; i++)
            CHECK(do_read(w, node, i * MIB, 256 * 1024) == i + 1);
    (void)co_sleep(SEC(1));
    return 0;
}

static void test_rot(void **state)
{
    struct sim_conf conf = {.seed = 5};
    struct vworld w;

    (void)state;
    world_init(&w, &conf, GIB);
    world_run(&w, script_rot, SEC(300));
    world_fini(&w);
}

/* Part of a page is written that one of the last two members can't read, and it can't be removed:
 * the write mends it. */
static int script_rot_part(struct vworld *w)
{
    uint64_t at = 5 * PAGE_BYTES;

    wait_ready(w);
    CHECK(volume_make(w, 3, VOLUME) == 0);
    CHECK(do_write(w, 0, 0, 64 * KIB, 1) == 0);
    crash(w, 2, CHUNK);
    CHECK(do_write(w, 0, 0, 64 * KIB, 2) == 0);
    (void)co_sleep(SEC(4)); /* flushed home, and out of memory after a restart */
    crash(w, 1, CHUNK);
    start(w, 1, CHUNK);
    (void)co_sleep(SEC(2));
    CHECK(rot(w, 1, at, 2) > 0);
    CHECK(do_write(w, 0, at + SECTOR_BYTES, SECTOR_BYTES, 3) == 0);
    CHECK(do_write(w, 0, at + 3 * SECTOR_BYTES, 4 * PAGE_BYTES, 4) == 0);
    crash(w, 0, CHUNK); /* what it has need not be asked for: the other has all of it */
    CHECK(do_read(w, 0, at, SECTOR_BYTES) == 2);
    CHECK(do_read(w, 0, at + SECTOR_BYTES, SECTOR_BYTES) == 3);
    CHECK(do_read(w, 0, at + 3 * SECTOR_BYTES, 4 * PAGE_BYTES) == 4);
    start(w, 0, CHUNK);
    start(w, 2, CHUNK);
    wait_ready(w);
    wait_degraded(w, false, SEC(60));
    CHECK(do_verify(w, 4) > 0);
    return 0;
}

static void test_rot_part(void **state)
{
    (void)state;
    world_script(script_rot_part, 6, GIB);
}

/* ---- absence ---- */

/* Two of three go, one after the other: the second removal is refused (below min_replicas), so
 * writes wait until one is back, and nothing is lost. */
static int script_two(struct vworld *w)
{
    struct job j = {.fn = job_write, .off = 4096, .len = 4096, .value = 7};

    wait_ready(w);
    CHECK(volume_make(w, 3, VOLUME) == 0);
    for (uint32_t i = 0; i < PIECES; i++)
        CHECK(do_write(w, 0, i * MIB, 64 * 1024, i + 1) == 0);
    crash(w, 1, CHUNK);
    for (uint32_t i = 0; i < PIECES; i++)
        CHECK(do_write(w, 0, i * MIB, 64 * 1024, i + 101) == 0);
    crash(w, 2, CHUNK);
    job_post(w, 0, &j);
    (void)co_sleep(SEC(5));
    CHECK(!j.done);
    CHECK(do_read(w, 0, MIB, 4096) == 102);
    start(w, 2, CHUNK);
    CHECK(job_wait(w, 0, &j, 1) == 0);
    start(w, 1, CHUNK);
    wait_degraded(w, false, SEC(60));
    CHECK(do_verify(w, 4) > 0);
    for (uint32_t i = 1; i < PIECES; i++)
        CHECK(do_read(w, 2, i * MIB, 64 * 1024) == i + 101);
    CHECK(do_read(w, 1, 4096, 4096) == 7);
    return 0;
}

/* One of the last two members can't be opened, because its disk fails, nor removed. It is waited
 * for, and is a member again once its disk is back. */
static int script_back(struct vworld *w)
{
    struct job j = {.fn = job_write, .off = 4096, .len = 4096, .value = 3};

    wait_ready(w);
    CHECK(volume_make(w, 3, VOLUME) == 0);
    CHECK(do_write(w, 0, 0, 64 * 1024, 1) == 0);
    crash(w, 2, CHUNK);
    CHECK(do_write(w, 0, 0, 64 * 1024, 2) == 0);
    sim_disk_fail(w->nodes[1].procs[CHUNK], DISK, true);
    crash(w, 0, ACCESS);
    job_post(w, 2, &j);
    (void)co_sleep(SEC(5));
    CHECK(!j.done);
    crash(w, 1, CHUNK);
    sim_disk_fail(w->nodes[1].procs[CHUNK], DISK, false);
    start(w, 1, CHUNK);
    CHECK(job_wait(w, 2, &j, 1) == 0);
    start(w, 0, ACCESS);
    start(w, 2, CHUNK);
    wait_ready(w);
    wait_degraded(w, false, SEC(60));
    CHECK(do_read(w, 1, 0, 4096) == 2);
    CHECK(do_read(w, 1, 4096, 4096) == 3);
    CHECK(do_verify(w, 4) > 0);
    return 0;
}

/* One of the last two members has no space left, and is away for a moment: what needs space waits
 * for it, to be refused like before; what does not is done. */
static int script_small(struct vworld *w)
{
    uint64_t off = BLOCK_BYTES;

    wait_ready(w);
    CHECK(volume_make(w, 3, VOLUME) == 0);
    crash(w, 2, CHUNK);
    CHECK(do_write(w, 0, 0, 4096, 1) == 0);
    while (do_write(w, 0, off, 4096, 1) == 0)
        off += BLOCK_BYTES;
    for (uint32_t i = 0; i < 20; i++) {
        struct job had = {.fn = job_write, .off = 4096, .len = 4096, .value = i + 2};
        struct job new = {.fn = job_write, .off = off, .len = 4096, .value = i + 2};

        crash(w, 1, CHUNK);
        job_post(w, 0, &had);
        (void)co_sleep(SEC(1) + i * MSEC(50));
        job_post(w, 0, &new);
        (void)co_sleep(SEC(1));
        start(w, 1, CHUNK);
        CHECK(job_wait(w, 0, &had, 1) == 0);
        CHECK(job_wait(w, 0, &new, 1) == ERR_NOSPACE);
    }
    return 0;
}

static void test_small(void **state)
{
    struct sim_conf conf = {.seed = 8};
    struct vworld w;

    (void)state;
    world_init(&w, &conf, GIB);
    world_disk(&w, 1, DISK "-small", 128 * MIB);
    world_run(&w, script_small, SEC(300));
    world_fini(&w);
}

/* A disk that lost everything is filled again. */
static int script_wipe(struct vworld *w)
{
    wait_ready(w);
    CHECK(volume_make(w, 3, VOLUME) == 0);
    for (uint32_t i = 0; i < PIECES; i++)
        CHECK(do_write(w, 0, i * 3 * MIB, 64 * 1024, i + 1) == 0);
    crash(w, 1, CHUNK);
    crash(w, 0, ACCESS); /* so that the new owner finds the loss at its open */
    for (uint32_t i = 0; i < PIECES; i++)
        CHECK(do_write(w, 2, i * 3 * MIB + 4096, 4096, i + 1) == 0);
    start(w, 0, ACCESS);
    start(w, 1, CHUNK);
    wait_ready(w);
    wait_degraded(w, false, SEC(60));
    CHECK(do_verify(w, 4) > 0);
    for (uint32_t i = 0; i < PIECES; i++)
        CHECK(do_read(w, 1, i * 3 * MIB, 64 * 1024) == i + 1);
    return 0;
}

/* Everything is off and comes back, the chunk servers last and apart: nobody is removed. */
static int script_boot(struct vworld *w)
{
    wait_ready(w);
    CHECK(volume_make(w, 3, VOLUME) == 0);
    for (uint32_t i = 0; i < PIECES; i++)
        CHECK(do_write(w, i % HOSTS, i * MIB, 64 * 1024, i + 1) == 0);
    for (uint32_t i = 0; i < HOSTS; i++)
        for (uint32_t r = 0; r < ROLES; r++)
            crash(w, i, (enum role)r);
    (void)co_sleep(SEC(2));
    for (uint32_t i = 0; i < HOSTS; i++) {
        start(w, i, META);
        start(w, i, ACCESS);
    }
    start(w, 2, CHUNK);
    while (!w->nodes[0].engine)
        (void)co_sleep(MSEC(10));
    struct job j = {.fn = job_read, .off = 0, .len = 4096};
    job_post(w, 0, &j);
    (void)co_sleep(SEC(1));
    start(w, 0, CHUNK);
    (void)co_sleep(SEC(1));
    start(w, 1, CHUNK);
    CHECK(job_wait(w, 0, &j, w->nodes[0].life) == 0 && j.got == 1);
    CHECK(degraded(w) == 0);
    wait_ready(w);
    for (uint32_t i = 0; i < PIECES; i++)
        CHECK(do_read(w, 1, i * MIB, 64 * 1024) == i + 1);
    CHECK(do_verify(w, 4) > 0);
    return 0;
}

static void run(int (*script)(struct vworld *w), uint64_t seeds)
{
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        struct sim_conf conf = {.seed = seed};
        struct vworld w;

        world_init(&w, &conf, 2 * GIB);
        world_run(&w, script, SEC(300));
        world_fini(&w);
    }
}

static void test_two(void **state)
{
    (void)state;
    run(script_two, 3);
}

static void test_back(void **state)
{
    (void)state;
    run(script_back, 2);
}

static void test_wipe(void **state)
{
    (void)state;
    run(script_wipe, 2);
}

static void test_boot(void **state)
{
    (void)state;
    run(script_boot, 3);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stop),  cmocka_unit_test(test_stop_lost),
        cmocka_unit_test(test_rot),   cmocka_unit_test(test_rot_part),
        cmocka_unit_test(test_two),   cmocka_unit_test(test_back),
        cmocka_unit_test(test_small), cmocka_unit_test(test_wipe),
        cmocka_unit_test(test_boot),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
