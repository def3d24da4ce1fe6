/* SPDX-License-Identifier: Apache-2.0
 *
 * Disks that fail, hang or become slow while their server runs: they are taken out of service,
 * the others go on. */
#include "tests/unit/chunk/server_world.h"

/* How many of the extents answer reads; the others answer ERR_IO, soon. */
static uint32_t served(struct server_world *w, uint64_t epoch)
{
    uint32_t n = 0;

    for (uint64_t id = 1; id <= EXTENTS; id++) {
        nsec_t start = co_now();
        int got = sw_read(w, id, epoch, 0, 65536);

        ASSERTF(got == (int)id || got == ERR_IO, "extent %d: %d", (int)id, got);
        CHECK(co_now() - start < NSEC_PER_SEC / 2);
        n += got == (int)id;
    }
    return n;
}

static uint64_t extents_on(struct server_world *w, const char *path)
{
    struct sw_disk d;

    CHECK(sw_disk(w, path, &d) && d.state == DISK_HEALTHY && d.extents > 0);
    return d.extents;
}

/* A journal that can't be written: at once. */
static int write_error_story(void *arg)
{
    struct server_world *w = arg;
    uint32_t refused = 0;
    uint64_t there;

    CHECK(sw_start(w));
    sw_fill(w);
    there = extents_on(w, "/dev/b");
    sim_disk_fail(w->p, "/dev/b", true);
    for (uint64_t id = 1; id <= EXTENTS; id++) {
        int rc = sw_write(w, id, 2, 2, 0, 4096, (uint8_t)id);

        CHECK(rc == 0 || rc == ERR_IO);
        refused += rc == ERR_IO;
    }
    CHECK(refused == there);
    CHECK(sw_state_becomes(w, "/dev/b", DISK_FAILED, NSEC_PER_SEC));
    sim_disk_fail(w->p, "/dev/b", false); /* it stays out, all the same */
    CHECK(served(w, 2) == EXTENTS - there);
    /* A replica that its owner makes anew comes to lie on a disk that serves. */
    for (uint64_t id = 1; id <= EXTENTS; id++) {
        if (sw_check_epoch(w, id, 2) != ERR_IO)
            continue;
        CHECK(sw_create(w, id, 2) == ERR_IO); /* in the same epoch it is lost, not empty */
        CHECK(sw_open(w, id, 2) == ERR_IO && sw_open(w, id, 3) == ERR_NO_REPLICA);
        CHECK(sw_create(w, id, 3) == 0 && sw_open(w, id, 3) == 0);
        CHECK(sw_read(w, id, 3, 0, 4096) == 0);
        CHECK(sw_write(w, id, 3, 1, 0, 65536, (uint8_t)(id + 100)) == 0);
        there--;
    }
    CHECK(there == 0);
    /* The former ones are back at the next start, and lose. */
    CHECK(sw_start(w));
    CHECK(sw_state_becomes(w, "/dev/b", DISK_HEALTHY, 0));
    for (uint64_t id = 1; id <= EXTENTS; id++) {
        int got;

        CHECK(sw_open(w, id, 4) == 0);
        got = sw_read(w, id, 4, 0, 65536);
        CHECK(got == (int)id || got == (int)id + 100);
        there += got == (int)id + 100;
    }
    CHECK(there == refused);
    CHECK(sw_state_becomes(w, "/dev/b", DISK_HEALTHY, 0));
    sw_close_clients(w);
    return 0;
}

static void test_write_error(void **state)
{
    struct server_world w;

    (void)state;
    sw_init(&w, 5, 3);
    sw_run(&w, write_error_story);
}

/* Data that can't be read: after a few times. */
static int read_error_story(void *arg)
{
    struct server_world *w = arg;
    uint64_t there;

    CHECK(sw_start(w));
    sw_fill(w);
    (void)co_sleep(5 * NSEC_PER_SEC); /* everything is home */
    there = extents_on(w, "/dev/b");
    sim_disk_fail(w->p, "/dev/b", true);
    for (int i = 0; i < 9; i++)
        CHECK(served(w, 2) == EXTENTS - there);
    CHECK(sw_state_becomes(w, "/dev/b", DISK_FAILED, 2 * NSEC_PER_SEC));
    sim_disk_fail(w->p, "/dev/b", false);
    CHECK(served(w, 2) == EXTENTS - there);
    sw_close_clients(w);
    return 0;
}

static void test_read_error(void **state)
{
    struct server_world w;

    (void)state;
    sw_init(&w, 6, 3);
    sw_run(&w, read_error_story);
}

/* A device that does not answer. */
static int hung_write(void *arg)
{
    struct server_world *w = arg;
    uint64_t id = 1;

    while (id <= EXTENTS && sw_check_epoch(w, id, 2) == 0 &&
           sw_write(w, id, 2, 2, 0, 4096, (uint8_t)id) == 0)
        id++;
    CHECK(id <= EXTENTS);
    return 0;
}

static int hung_story(void *arg)
{
    struct server_world *w = arg;
    struct co_group g;
    uint64_t there;

    CHECK(sw_start(w));
    sw_fill(w);
    there = extents_on(w, "/dev/b");
    sim_disk_hang(w->p, "/dev/b", true);
    co_group_init(&g);
    for (int i = 0; i < 3; i++)
        co_spawn(&g, "write", hung_write, w);
    (void)co_group_join(&g);
    CHECK(sw_state_becomes(w, "/dev/b", DISK_FAILED, 12 * NSEC_PER_SEC));
    CHECK(served(w, 2) == EXTENTS - there);
    for (uint64_t id = 1; id <= EXTENTS; id++) {
        nsec_t start = co_now();
        int rc = sw_write(w, id, 2, 3, 0, 4096, (uint8_t)id), open = sw_open(w, id, 3);

        CHECK((rc == 0 && open == 0) || (rc == ERR_IO && open == ERR_NO_REPLICA));
        CHECK(co_now() - start < NSEC_PER_SEC / 2);
    }
    sim_disk_hang(w->p, "/dev/b", false); /* so that the server can end */
    (void)co_sleep(NSEC_PER_SEC);
    for (uint64_t id = 1; id <= EXTENTS; id++)
        there += sw_open(w, id, 4) == 0;
    CHECK(there == EXTENTS);
    sw_close_clients(w);
    return 0;
}

static void test_hung(void **state)
{
    struct server_world w;

    (void)state;
    sw_init(&w, 7, 3);
    sw_run(&w, hung_story);
}

/* The server was stopped while a device had requests: they are old, but not for want of an answer.
 */
static int stopped_story(void *arg)
{
    struct server_world *w = arg;
    struct co_group g;

    CHECK(sw_start(w));
    sw_fill(w);
    (void)extents_on(w, "/dev/b");
    sim_disk_hang(w->p, "/dev/b", true);
    co_group_init(&g);
    for (int i = 0; i < 3; i++)
        co_spawn(&g, "write", hung_write, w);
    (void)co_sleep(NSEC_PER_SEC);
    sim_proc_pause(w->p);
    (void)co_group_join(&g);
    (void)co_sleep(30 * NSEC_PER_SEC);
    sim_proc_resume(w->p);
    (void)co_sleep(5 * NSEC_PER_SEC); /* still less than it may take */
    (void)extents_on(w, "/dev/b");
    sim_disk_hang(w->p, "/dev/b", false);
    (void)co_sleep(NSEC_PER_SEC);
    CHECK(served(w, 2) == EXTENTS);
    sim_disk_hang(w->p, "/dev/b", true);
    CHECK(hung_write(w) == 0);
    CHECK(sw_state_becomes(w, "/dev/b", DISK_FAILED, 12 * NSEC_PER_SEC));
    sim_disk_hang(w->p, "/dev/b", false);
    sw_close_clients(w);
    return 0;
}

static void test_stopped(void **state)
{
    struct server_world w;

    (void)state;
    sw_init(&w, 7, 3);
    sw_run(&w, stopped_story);
}

/* ---- slow ones ---- */

/* Writes to all extents, again and again, until the time is over. */
struct traffic {
    struct server_world *w;
    nsec_t end;
    uint64_t first;
};

static int traffic_one(void *arg)
{
    struct traffic *t = arg;

    for (uint64_t gen = (uint64_t)co_now(); co_now() < t->end; gen++) {
        for (uint64_t id = t->first; id <= EXTENTS; id += 4) {
            int rc = sw_write(t->w, id, 2, gen, 0, 65536, (uint8_t)id);

            CHECK(rc == 0 || rc == ERR_IO);
            (void)co_sleep(10 * NSEC_PER_MSEC);
        }
    }
    return 0;
}

static void traffic(struct server_world *w, nsec_t span)
{
    struct traffic t[4];
    struct co_group g;

    co_group_init(&g);
    for (uint64_t i = 0; i < ARRAY_SIZE(t); i++) {
        t[i] = (struct traffic){w, co_now() + span, i + 1};
        co_spawn(&g, "traffic", traffic_one, &t[i]);
    }
    (void)co_group_join(&g);
}

static void slow_down(struct server_world *w, const char *path)
{
    struct sim_disk_speed speed = {.latency = 400 * NSEC_PER_MSEC, .bytes_per_sec = 1 << 30};

    sim_disk_set_speed(w->p, path, &speed);
}

static int slow_story(void *arg)
{
    struct server_world *w = arg;
    uint64_t there;

    CHECK(sw_start(w));
    sw_fill(w);
    there = extents_on(w, "/dev/c");
    traffic(w, 15 * NSEC_PER_SEC);
    CHECK(sw_state_becomes(w, "/dev/c", DISK_HEALTHY, 0));
    slow_down(w, "/dev/c");
    traffic(w, 3 * NSEC_PER_SEC); /* not at once */
    CHECK(sw_state_becomes(w, "/dev/c", DISK_HEALTHY, 0));
    traffic(w, 40 * NSEC_PER_SEC);
    CHECK(sw_state_becomes(w, "/dev/c", DISK_FAILED, 0));
    CHECK(served(w, 2) == EXTENTS - there);
    sw_close_clients(w);
    return 0;
}

static void test_slow(void **state)
{
    struct server_world w;

    (void)state;
    sw_init(&w, 8, 3);
    sw_run(&w, slow_story);
}

/* Two disks: nobody can tell which of them is right. It is only said. */
static int slow_of_two_story(void *arg)
{
    struct server_world *w = arg;

    CHECK(sw_start(w));
    sw_fill(w);
    slow_down(w, "/dev/b");
    traffic(w, 40 * NSEC_PER_SEC);
    CHECK(sw_state_becomes(w, "/dev/b", DISK_FAILING, 0));
    CHECK(served(w, 2) == EXTENTS);
    sw_close_clients(w);
    return 0;
}

static void test_slow_of_two(void **state)
{
    struct server_world w;

    (void)state;
    sw_init(&w, 9, 2);
    sw_run(&w, slow_of_two_story);
}

/* All of them: that is the load, or the controller. */
static int slow_all_story(void *arg)
{
    struct server_world *w = arg;

    CHECK(sw_start(w));
    sw_fill(w);
    for (uint32_t i = 0; i < w->n_disks; i++)
        slow_down(w, disk_paths[i]);
    traffic(w, 40 * NSEC_PER_SEC);
    for (uint32_t i = 0; i < w->n_disks; i++)
        CHECK(sw_state_becomes(w, disk_paths[i], DISK_HEALTHY, 0));
    CHECK(served(w, 2) == EXTENTS);
    sw_close_clients(w);
    return 0;
}

static void test_slow_all(void **state)
{
    struct server_world w;

    (void)state;
    sw_init(&w, 10, 3);
    sw_run(&w, slow_all_story);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_write_error), cmocka_unit_test(test_read_error),
        cmocka_unit_test(test_hung),        cmocka_unit_test(test_stopped),
        cmocka_unit_test(test_slow),        cmocka_unit_test(test_slow_of_two),
        cmocka_unit_test(test_slow_all),
    };

    log_threshold = LOG_LV_ERROR;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
