/* SPDX-License-Identifier: Apache-2.0
 *
 * A page that no replica can read: what needs it fails and says why, what does not goes on, and
 * whoever writes all of it mends it. */
#include "tests/unit/access/vol_world.h"

#define VOLUME GIB
#define AT     (5 * PAGE_BYTES) /* the page */
#define PIECE  (64 * KIB)
#define LIMIT  SEC(20)

static int try(struct vworld *w, int (*fn)(struct job *j, struct vol_engine *e), uint64_t off,
               uint64_t len, uint64_t value)
{
    struct job j = {.fn = fn, .off = off, .len = len, .value = value, .limit = LIMIT};

    return job_do(w, 0, &j);
}

/* What was written is home, and out of memory. */
static void settle(struct vworld *w)
{
    (void)co_sleep(SEC(4));
    for (uint32_t i = 0; i < HOSTS; i++) {
        if (!sim_proc_running(w->nodes[i].procs[CHUNK]))
            continue;
        crash(w, i, CHUNK);
        start(w, i, CHUNK);
    }
    (void)co_sleep(SEC(2));
}

static void rot_everywhere(struct vworld *w, uint32_t replicas, uint64_t value)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < HOSTS; i++)
        n += rot(w, i, AT, value) > 0;
    CHECK(n == replicas);
}

/* The page can't be read; it and its neighbours hold value. */
static void check_damaged(struct vworld *w, uint64_t value)
{
    CHECK(try(w, job_read, AT, PAGE_BYTES, 0) == ERR_CORRUPT);
    CHECK(try(w, job_write, AT + SECTOR_BYTES, SECTOR_BYTES, 7) == ERR_CORRUPT);
    CHECK(try(w, job_write, AT + 3 * SECTOR_BYTES, 4 * PAGE_BYTES, 7) == ERR_CORRUPT);
    CHECK(try(w, job_write, AT - 2 * PAGE_BYTES, 2 * PAGE_BYTES + SECTOR_BYTES, 7) == ERR_CORRUPT);
    CHECK(try(w, job_zero, AT + SECTOR_BYTES, 4 * PAGE_BYTES, 0) == ERR_CORRUPT);
    CHECK(try(w, job_zero, AT + SECTOR_BYTES, 4 * PAGE_BYTES, 1) == ERR_CORRUPT);
    CHECK(do_read(w, 0, 0, AT) == value);
    CHECK(do_read(w, 0, AT + PAGE_BYTES, PIECE - AT - PAGE_BYTES) == value);
}

static void check_mended(struct vworld *w, uint64_t value)
{
    CHECK(try(w, job_write, AT, PAGE_BYTES, 8) == 0);
    CHECK(do_read(w, 0, AT, PAGE_BYTES) == 8);
    CHECK(try(w, job_write, AT + SECTOR_BYTES, SECTOR_BYTES, 9) == 0);
    CHECK(do_read(w, 0, AT, SECTOR_BYTES) == 8);
    CHECK(do_read(w, 0, AT + SECTOR_BYTES, SECTOR_BYTES) == 9);
    CHECK(do_read(w, 0, AT + PAGE_BYTES, PIECE - AT - PAGE_BYTES) == value);
    CHECK(degraded(w) == 0);
    CHECK(do_verify(w, 4) > 0);
}

static int script_one(struct vworld *w)
{
    wait_ready(w);
    CHECK(volume_make(w, 1, VOLUME) == 0);
    CHECK(do_write(w, 0, 0, PIECE, 1) == 0);
    settle(w);
    rot_everywhere(w, 1, 1);
    check_damaged(w, 1);
    /* What failed stays undone after a start, too. */
    settle(w);
    check_damaged(w, 1);
    check_mended(w, 1);
    return 0;
}

static void test_one(void **state)
{
    (void)state;
    world_script(script_one, 1, GIB);
}

/* Both can't read it: neither is to blame more than the other, so both stay. */
static int script_both(struct vworld *w)
{
    wait_ready(w);
    CHECK(volume_make(w, 2, VOLUME) == 0);
    CHECK(do_write(w, 0, 0, PIECE, 1) == 0);
    settle(w);
    wait_degraded(w, false, SEC(60));
    rot_everywhere(w, 2, 1);
    check_damaged(w, 1);
    check_mended(w, 1);
    return 0;
}

static void test_both(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 3; seed++)
        world_script(script_both, seed, GIB);
}

static uint32_t host_with(struct vworld *w, uint64_t value)
{
    uint32_t i = 0;

    while (i < HOSTS && rot(w, i, AT, value) == 0)
        i++;
    CHECK(i < HOSTS);
    return i;
}

/* The last of two can't read it, but the other one, which is away and missed other writes, could:
 * it is read again when that is back. */
static int script_last(struct vworld *w)
{
    uint32_t bad;

    wait_ready(w);
    CHECK(volume_make(w, 2, VOLUME) == 0);
    CHECK(do_write(w, 0, 0, PIECE, 1) == 0);
    settle(w);
    wait_degraded(w, false, SEC(60));
    bad = host_with(w, 1);
    for (uint32_t i = 0; i < HOSTS; i++)
        if (i != bad)
            crash(w, i, CHUNK);
    CHECK(do_write(w, 0, 2 * PIECE, PIECE, 2) == 0);
    check_damaged(w, 1);
    for (uint32_t i = 0; i < HOSTS; i++)
        if (i != bad)
            start(w, i, CHUNK);
    wait_ready(w);
    wait_degraded(w, false, SEC(60));
    CHECK(try(w, job_write, AT + SECTOR_BYTES, SECTOR_BYTES, 7) == 0);
    CHECK(do_read(w, 0, AT, SECTOR_BYTES) == 1);
    CHECK(do_read(w, 0, AT + SECTOR_BYTES, SECTOR_BYTES) == 7);
    (void)co_sleep(SEC(1));
    CHECK(do_verify(w, 4) > 0);
    return 0;
}

static void test_last(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 3; seed++)
        world_script(script_last, seed, GIB);
}

/* A write reached one of two members before its owner died, and can't be read there. It was never
 * answered, so it need not be kept; that member can't be removed for it either. */
static int script_latest(struct vworld *w)
{
    struct job j = {.fn = job_write, .off = AT, .len = PAGE_BYTES, .value = 2};

    wait_ready(w);
    CHECK(volume_make(w, 3, VOLUME) == 0);
    CHECK(do_write(w, 0, 0, PIECE, 1) == 0);
    crash(w, 2, CHUNK);
    CHECK(do_write(w, 0, 2 * PIECE, PIECE, 1) == 0);
    (void)co_sleep(SEC(1)); /* the commit point is known */
    sim_net_cut(w->sim, w->nodes[0].addr, w->nodes[1].addr);
    job_post(w, 0, &j);
    (void)co_sleep(MSEC(100));
    CHECK(!j.done);
    for (uint32_t i = 0; i < HOSTS; i++)
        crash(w, i, ACCESS);
    sim_net_heal_all(w->sim);
    settle(w);
    CHECK(rot(w, 0, AT, 2) > 0);
    for (uint32_t i = 0; i < HOSTS; i++)
        start(w, i, ACCESS);
    start(w, 2, CHUNK);
    wait_ready(w);
    CHECK(try(w, job_read, AT, PAGE_BYTES, 0) == 0);
    wait_degraded(w, false, SEC(60));
    CHECK(do_read(w, 0, 0, PIECE) == 1);
    CHECK(do_verify(w, 4) > 0);
    return 0;
}

static void test_latest(void **state)
{
    (void)state;
    world_script(script_latest, 1, GIB);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one),
        cmocka_unit_test(test_both),
        cmocka_unit_test(test_last),
        cmocka_unit_test(test_latest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
