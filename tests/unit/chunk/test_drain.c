/* SPDX-License-Identifier: Apache-2.0
 *
 * A chunk server's disks are drained and removed while it serves. */
#include "tests/unit/chunk/server_world.h"

#define BIG (200u * BLOCK_BYTES / 4) /* of an extent that fills a small disk */

/* Waits until the drain of a disk is in this state. */
static bool drain_becomes(struct server_world *w, const char *path, uint32_t drain, nsec_t within)
{
    nsec_t end = co_now() + within;
    struct sw_disk d;

    do {
        CHECK(sw_disk(w, path, &d));
        if (d.drain == drain)
            return true;
        (void)co_sleep(10 * NSEC_PER_MSEC);
    } while (co_now() < end);
    return false;
}

/* Slow enough for something to happen meanwhile. */
static void slow_disks(struct server_world *w)
{
    struct sim_disk_speed speed = {.latency = 5 * NSEC_PER_MSEC, .bytes_per_sec = 100 << 20};

    for (uint32_t i = 0; i < w->n_disks; i++)
        sim_disk_set_speed(w->p, disk_paths[i], &speed);
}

static void all_there(struct server_world *w, uint64_t epoch)
{
    for (uint64_t id = 1; id <= EXTENTS; id++)
        CHECK(sw_read(w, id, epoch, 0, 65536) == (int)id);
}

/* Writes to all extents until told to end; each write must succeed. */
struct writer {
    struct server_world *w;
    bool end;
    uint64_t writes;
};

static int writer_main(void *arg)
{
    struct writer *wr = arg;

    for (uint64_t gen = 2; !wr->end; gen++) {
        for (uint64_t id = 1; id <= EXTENTS && !wr->end; id++, wr->writes++) {
            uint32_t page = (uint32_t)(gen * 7 + id) % 16;

            CHECK(sw_write(wr->w, id, 2, gen, page * PAGE_BYTES, 4096, (uint8_t)id) == 0);
            CHECK(sw_read(wr->w, id, 2, 0, 65536) == (int)id);
        }
    }
    return 0;
}

static int drain_story(void *arg)
{
    struct server_world *w = arg;
    struct writer wr = {.w = w};
    struct co_group g;
    struct sw_disk d;

    CHECK(sw_start(w));
    sw_fill(w);
    CHECK(sw_remove(w, "/dev/b", false) == ERR_BUSY);
    CHECK(sw_remove(w, "/dev/b", true) == ERR_BUSY); /* it has not failed */
    CHECK(sw_drain(w, "/dev/nothing", false) == ERR_NOTFOUND);
    slow_disks(w);
    co_group_init(&g);
    co_spawn(&g, "writer", writer_main, &wr);
    CHECK(sw_drain(w, "/dev/b", false) == 0);
    CHECK(drain_becomes(w, "/dev/b", DRAIN_DONE, 60 * NSEC_PER_SEC));
    CHECK(sw_disk(w, "/dev/b", &d) && d.extents == 0 && d.used_bytes == 0);
    CHECK(d.state == DISK_DRAINING);
    wr.end = true;
    (void)co_group_join(&g);
    CHECK(wr.writes > 10);
    all_there(w, 2);
    /* It stays empty, over a restart, too. */
    CHECK(sw_create(w, 100, 1) == 0 && sw_create(w, 101, 1) == 0 && sw_create(w, 102, 1) == 0);
    CHECK(sw_start(w));
    CHECK(sw_disk(w, "/dev/b", &d) && d.extents == 0 && d.state == DISK_DRAINING);
    CHECK(sw_whole(w, 3) == EXTENTS);
    CHECK(sw_remove(w, "/dev/b", false) == 0);
    CHECK(!sw_disk(w, "/dev/b", &d));
    all_there(w, 3);
    /* The last one with room stays. */
    CHECK(sw_drain(w, "/dev/a", false) == 0);
    CHECK(drain_becomes(w, "/dev/a", DRAIN_DONE, 60 * NSEC_PER_SEC));
    CHECK(sw_drain(w, "/dev/c", false) == ERR_REFUSED);
    CHECK(sw_drain(w, "/dev/a", true) == 0);
    CHECK(sw_state_becomes(w, "/dev/a", DISK_HEALTHY, NSEC_PER_SEC));
    /* Still in the configuration: said, and not in the way. */
    CHECK(sw_start(w));
    CHECK(sw_state_becomes(w, "/dev/b", DISK_FAILED, 0));
    CHECK(sw_whole(w, 4) == EXTENTS);
    CHECK(sw_remove(w, "/dev/b", false) == ERR_BUSY);
    CHECK(sw_remove(w, "/dev/b", true) == 0);
    CHECK(!sw_disk(w, "/dev/b", &d));
    sw_close_clients(w);
    return 0;
}

static void test_drain(void **state)
{
    struct server_world w;

    (void)state;
    sw_init(&w, 20, 3);
    sw_run(&w, drain_story);
}

/* How long it takes, and what it moved. */
struct timing {
    struct server_world w;
    bool busy;
    nsec_t took;
    uint64_t bytes;
};

static int timed_story(void *arg)
{
    struct timing *t = CONTAINER_OF((struct server_world *)arg, struct timing, w);
    struct writer wr = {.w = &t->w};
    struct co_group g;
    struct sw_disk d;
    nsec_t begin;

    CHECK(sw_start(&t->w));
    sw_fill(&t->w);
    slow_disks(&t->w);
    CHECK(sw_disk(&t->w, "/dev/a", &d));
    t->bytes = d.extents * 65536;
    co_group_init(&g);
    if (t->busy)
        co_spawn(&g, "writer", writer_main, &wr);
    (void)co_sleep(NSEC_PER_SEC);
    begin = co_now();
    CHECK(sw_drain(&t->w, "/dev/a", false) == 0);
    CHECK(drain_becomes(&t->w, "/dev/a", DRAIN_DONE, 600 * NSEC_PER_SEC));
    t->took = co_now() - begin;
    wr.end = true;
    (void)co_group_join(&g);
    all_there(&t->w, 2);
    sw_close_clients(&t->w);
    return 0;
}

static nsec_t timed(bool busy, uint64_t rate, uint64_t *ret_bytes)
{
    struct timing t = {.busy = busy};

    sw_init(&t.w, 60, 2);
    t.w.conf.drain_bytes_per_s = rate;
    sw_run(&t.w, timed_story);
    *ret_bytes = t.bytes;
    return t.took;
}

/* It keeps to its rate, and gives way to requests. */
static void test_pace(void **state)
{
    const uint64_t rate = 65536;
    uint64_t bytes;
    nsec_t idle = timed(false, 0, &bytes), busy = timed(true, 0, &bytes);
    nsec_t limited = timed(false, rate, &bytes), least;

    (void)state;
    least = (nsec_t)(bytes * NSEC_PER_SEC / rate);
    print_message("idle %.2f s, busy %.2f s, limited %.2f s of %.2f s\n",
                  (double)idle / NSEC_PER_SEC, (double)busy / NSEC_PER_SEC,
                  (double)limited / NSEC_PER_SEC, (double)least / NSEC_PER_SEC);
    assert_true(busy > 2 * idle);
    assert_true(limited > least / 2 && limited < 2 * least + idle);
}

/* Killed in the middle, again and again: it goes on by itself, and nothing is lost. */
static int resume_story(void *arg)
{
    struct server_world *w = arg;
    struct sw_disk d;
    uint64_t epoch = 3;

    CHECK(sw_start(w));
    sw_fill(w);
    slow_disks(w);
    CHECK(sw_drain(w, "/dev/a", false) == 0);
    do {
        (void)co_sleep((nsec_t)(sim_random(w->s) % 400) * NSEC_PER_MSEC);
        if (sim_random(w->s) % 2)
            sim_proc_power_loss(w->p);
        CHECK(sw_start(w));
        CHECK(sw_whole(w, epoch++) == EXTENTS);
        CHECK(sw_disk(w, "/dev/a", &d) && d.state == DISK_DRAINING);
    } while (epoch < 15);
    CHECK(drain_becomes(w, "/dev/a", DRAIN_DONE, 60 * NSEC_PER_SEC));
    CHECK(sw_whole(w, epoch) == EXTENTS);
    CHECK(sw_remove(w, "/dev/a", false) == 0);
    sw_close_clients(w);
    return 0;
}

static void test_resume(void **state)
{
    (void)state;
    for (uint64_t seed = 30; seed < 36; seed++) {
        struct server_world w;

        sw_init(&w, seed, 2);
        sw_run(&w, resume_story);
    }
}

/* No room: it says so, what was moved stays moved, and it can be tried again. */
static int no_room_story(void *arg)
{
    struct server_world *w = arg;
    struct sw_disk d;
    uint32_t off = 0;

    CHECK(sw_start(w));
    sw_fill(w);
    for (uint64_t id = 1; id <= EXTENTS; id++) { /* until the disks are full */
        for (off = 65536; off < BIG && sw_write(w, id, 2, 2 + off, off, 65536, (uint8_t)id) == 0;)
            off += 65536;
    }
    CHECK(sw_drain(w, "/dev/a", false) == 0);
    CHECK(drain_becomes(w, "/dev/a", DRAIN_STOPPED, 60 * NSEC_PER_SEC));
    CHECK(sw_disk(w, "/dev/a", &d) && d.extents > 0 && strstr(d.error, "room") != NULL);
    all_there(w, 2);
    CHECK(sw_remove(w, "/dev/a", false) == ERR_BUSY);
    for (uint64_t id = 1; id <= EXTENTS; id++) {
        if (id % 8 != 0)
            CHECK(sw_delete(w, id, 2) == 0);
    }
    CHECK(sw_drain(w, "/dev/a", false) == 0);
    CHECK(drain_becomes(w, "/dev/a", DRAIN_DONE, 60 * NSEC_PER_SEC));
    for (uint64_t id = 8; id <= EXTENTS; id += 8)
        CHECK(sw_read(w, id, 2, 0, 65536) == (int)id);
    sw_close_clients(w);
    return 0;
}

static void test_no_room(void **state)
{
    struct server_world w;

    (void)state;
    sw_init(&w, 40, 2);
    sw_run(&w, no_room_story);
}

/* The disk that is drained fails in the middle: what moved is safe, the rest is lost. */
static int source_fails_story(void *arg)
{
    struct server_world *w = arg;
    struct sw_disk d;
    uint32_t lost = 0;

    CHECK(sw_start(w));
    sw_fill(w);
    slow_disks(w);
    CHECK(sw_drain(w, "/dev/a", false) == 0);
    (void)co_sleep(100 * NSEC_PER_MSEC);
    sim_disk_fail(w->p, "/dev/a", true);
    CHECK(sw_state_becomes(w, "/dev/a", DISK_FAILED, 20 * NSEC_PER_SEC));
    for (uint64_t id = 1; id <= EXTENTS; id++) {
        int got = sw_read(w, id, 2, 0, 65536);

        CHECK(got == (int)id || got == ERR_IO);
        lost += got == ERR_IO;
    }
    CHECK(sw_disk(w, "/dev/a", &d));
    CHECK(sw_remove(w, "/dev/a", false) == (d.extents > 0 ? ERR_BUSY : 0));
    if (d.extents > 0)
        CHECK(sw_remove(w, "/dev/a", true) == 0);
    for (uint64_t id = 1; id <= EXTENTS; id++)
        lost -= sw_open(w, id, 3) == ERR_NO_REPLICA;
    CHECK(lost == 0);
    sw_close_clients(w);
    return 0;
}

static void test_source_fails(void **state)
{
    (void)state;
    for (uint64_t seed = 50; seed < 54; seed++) {
        struct server_world w;

        sw_init(&w, seed, 3);
        sw_run(&w, source_fails_story);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_drain),        cmocka_unit_test(test_pace),
        cmocka_unit_test(test_resume),       cmocka_unit_test(test_no_room),
        cmocka_unit_test(test_source_fails),
    };

    log_threshold = LOG_LV_ERROR;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
