/* SPDX-License-Identifier: Apache-2.0
 *
 * A chunk server whose slow disks have their journals on a fast one. */
#include "tests/unit/chunk/server_world.h"

#define FAST "/dev/a"
#define SLOW "/dev/b"
#define OWN  "/dev/c"
#define NEW  "/dev/d"

static int guests_format(void *arg)
{
    struct server_world *w = arg;
    struct chunk_format_conf fc = {.workers = WORKERS, .guests = 2};

    memset(w->uuid, 7, sizeof(w->uuid));
    memcpy(fc.server_uuid, w->uuid, 16);
    CHECK(chunk_format(FAST, &fc) == 0);
    fc.guests = 0;
    CHECK(chunk_format(OWN, &fc) == 0);
    fc = (struct chunk_format_conf){.journal_on = OWN};
    CHECK(chunk_format(SLOW, &fc) == ERR_REFUSED); /* it has no room for others' */
    fc.journal_on = FAST;
    CHECK(chunk_format(SLOW, &fc) == 0);
    w->formatted = true;
    return 0;
}

/* From a control coroutine. */
static void in_process(struct server_world *w, int (*fn)(void *arg))
{
    if (sim_proc_running(w->p))
        sim_proc_crash(w->p);
    sim_proc_start(w->p, fn, w);
    while (sim_proc_running(w->p))
        (void)co_sleep(NSEC_PER_MSEC);
    CHECK(sim_proc_result(w->p) == 0);
}

static void world(struct server_world *w, uint64_t seed)
{
    sw_init(w, seed, 3);
    /* The guest comes first: the order does not matter. */
    w->conf.disks[0] = SLOW;
    w->conf.disks[1] = FAST;
}

static void failed_for(struct server_world *w, const char *path, const char *why)
{
    struct sw_disk d;

    CHECK(sw_disk(w, path, &d));
    CHECK(d.state == DISK_FAILED);
    ASSERTF(strstr(d.error, why) != NULL, "'%s' does not say '%s'", d.error, why);
}

static uint32_t extents_on(struct server_world *w, const char *path)
{
    struct sw_disk d;

    CHECK(sw_disk(w, path, &d));
    return (uint32_t)d.extents;
}

static void overwrite(struct server_world *w, uint64_t epoch)
{
    for (uint64_t id = 1; id <= EXTENTS; id++) {
        CHECK(sw_open(w, id, epoch) == 0);
        CHECK(sw_write(w, id, epoch, 1, 4096, 4096, (uint8_t)id) == 0);
    }
}

/* Small writes are in the ring on the other disk when power fails. */
static int restart_story(void *arg)
{
    struct server_world *w = arg;
    struct sw_disk d;

    in_process(w, guests_format);
    CHECK(sw_start(w));
    sw_fill(w);
    overwrite(w, 3);
    CHECK(sw_disk(w, SLOW, &d) && d.state == DISK_HEALTHY && d.extents > 0);
    CHECK(strcmp(d.journal_on, FAST) == 0);
    CHECK(sw_disk(w, FAST, &d) && d.journal_on[0] == 0);
    sim_proc_power_loss(w->p);
    CHECK(sw_start(w));
    CHECK(sw_whole(w, 4) == EXTENTS);
    sw_close_clients(w);
    return 0;
}

static void test_restart(void **state)
{
    struct server_world w;

    (void)state;
    world(&w, 1);
    sw_run(&w, restart_story);
}

/* The disk with the rings is absent at a start, then there again; then its guest is. */
static int absent_story(void *arg)
{
    struct server_world *w = arg;
    uint32_t fast, slow;

    in_process(w, guests_format);
    CHECK(sw_start(w));
    sw_fill(w);
    overwrite(w, 3);
    fast = extents_on(w, FAST);
    slow = extents_on(w, SLOW);
    sim_disk_fail(w->p, FAST, true);
    CHECK(sw_start(w));
    failed_for(w, SLOW, "none of this server's");
    CHECK(sw_whole(w, 4) == EXTENTS - fast - slow);
    sim_disk_fail(w->p, FAST, false);
    CHECK(sw_start(w));
    CHECK(sw_whole(w, 5) == EXTENTS);
    sim_disk_fail(w->p, SLOW, true);
    CHECK(sw_start(w));
    CHECK(sw_whole(w, 6) == EXTENTS - slow);
    /* It may come back, and its journals are here. */
    CHECK(sw_remove(w, FAST, false) == ERR_BUSY);
    sim_disk_fail(w->p, SLOW, false);
    CHECK(sw_start(w));
    CHECK(sw_whole(w, 7) == EXTENTS);
    sw_close_clients(w);
    return 0;
}

static void test_absent(void **state)
{
    struct server_world w;

    (void)state;
    world(&w, 2);
    sw_run(&w, absent_story);
}

/* The disk with the rings fails while the server runs; and the guest alone. */
static int fails_story(void *arg)
{
    struct server_world *w = arg;

    in_process(w, guests_format);
    CHECK(sw_start(w));
    sw_fill(w);
    sim_disk_fail(w->p, SLOW, true);
    for (uint64_t id = 1; id <= EXTENTS; id++) /* what is on the guest fails when it goes home */
        (void)sw_write(w, id, 2, 2, 4096, 4096, (uint8_t)id);
    CHECK(sw_state_becomes(w, SLOW, DISK_FAILED, SEC(70)));
    CHECK(sw_state_becomes(w, FAST, DISK_HEALTHY, SEC(70)));
    sim_disk_fail(w->p, SLOW, false);
    CHECK(sw_start(w));
    CHECK(sw_whole(w, 3) == EXTENTS);
    sim_disk_fail(w->p, FAST, true);
    for (uint64_t id = 1; id <= EXTENTS; id++)
        (void)sw_write(w, id, 3, 1, 8192, 4096, (uint8_t)id);
    CHECK(sw_state_becomes(w, FAST, DISK_FAILED, SEC(70)));
    CHECK(sw_state_becomes(w, SLOW, DISK_FAILED, SEC(70)));
    CHECK(sw_state_becomes(w, OWN, DISK_HEALTHY, SEC(70)));
    CHECK(sw_remove(w, FAST, true) == ERR_BUSY); /* not before its guest */
    CHECK(sw_remove(w, SLOW, true) == 0);
    CHECK(sw_remove(w, FAST, true) == 0);
    sw_close_clients(w);
    return 0;
}

static void test_fails(void **state)
{
    struct server_world w;

    (void)state;
    world(&w, 3);
    sw_run(&w, fails_story);
}

/* Only the fast disk is taken out of service, by what its guest's requests there show. */
static int hangs_story(void *arg)
{
    struct server_world *w = arg;

    in_process(w, guests_format);
    CHECK(sw_start(w));
    sw_fill(w);
    sim_disk_hang(w->p, FAST, true);
    for (uint64_t id = 1; id <= EXTENTS; id++)
        (void)sw_write(w, id, 2, 2, 4096, 4096, (uint8_t)id);
    CHECK(sw_state_becomes(w, FAST, DISK_FAILED, SEC(30)));
    CHECK(sw_state_becomes(w, SLOW, DISK_FAILED, SEC(5)));
    failed_for(w, SLOW, "its journal is on " FAST);
    sim_disk_hang(w->p, FAST, false);
    CHECK(sw_start(w));
    CHECK(sw_whole(w, 3) == EXTENTS);
    sw_close_clients(w);
    return 0;
}

static void test_hangs(void **state)
{
    struct server_world w;

    (void)state;
    world(&w, 4);
    sw_run(&w, hangs_story);
}

/* Added while it runs, drained, removed: its slot is free again. */
static int change_story(void *arg)
{
    struct server_world *w = arg;
    struct sw_disk d;

    in_process(w, guests_format);
    CHECK(sw_start(w));
    sw_fill(w);
    CHECK(sw_drain(w, FAST, false) == ERR_BUSY);
    CHECK(sw_remove(w, FAST, false) == ERR_BUSY);
    for (uint32_t round = 0; round < 4; round++) { /* more often than there are slots */
        CHECK(sw_add(w, NEW, "/dev/nothing", 0) == ERR_NOTFOUND);
        CHECK(sw_add(w, NEW, OWN, 0) == ERR_REFUSED);
        CHECK(sw_add(w, NEW, FAST, 0) == 0);
        CHECK(sw_disk(w, NEW, &d) && strcmp(d.journal_on, FAST) == 0);
        for (uint64_t id = 1; id <= 8; id++) {
            CHECK(sw_create(w, 1000 * (round + 1) + id, 1) == 0);
            CHECK(sw_open(w, 1000 * (round + 1) + id, 2) == 0);
            CHECK(sw_write(w, 1000 * (round + 1) + id, 2, 1, 0, 4096, 9) == 0);
        }
        if (round % 2) { /* it is known at the next start, too */
            CHECK(sw_start(w));
            CHECK(sw_disk(w, NEW, &d) && d.state == DISK_HEALTHY);
        }
        CHECK(sw_drain(w, NEW, false) == 0);
        CHECK(sw_state_becomes(w, NEW, DISK_DRAINING, SEC(5)));
        while (sw_remove(w, NEW, false) != 0)
            (void)co_sleep(100 * NSEC_PER_MSEC);
    }
    CHECK(sw_start(w));
    CHECK(sw_whole(w, 5) == EXTENTS);
    CHECK(sw_drain(w, SLOW, false) == 0);
    while (sw_remove(w, SLOW, false) != 0)
        (void)co_sleep(100 * NSEC_PER_MSEC);
    CHECK(sw_drain(w, FAST, false) == 0);
    while (sw_remove(w, FAST, false) != 0)
        (void)co_sleep(100 * NSEC_PER_MSEC);
    CHECK(sw_whole(w, 6) == EXTENTS);
    /* Both again, the other way round. */
    CHECK(sw_add(w, SLOW, "", 1) == 0 && sw_add(w, FAST, SLOW, 1) == ERR_INVAL);
    CHECK(sw_add(w, FAST, SLOW, 0) == 0 && sw_add(w, NEW, SLOW, 0) == ERR_NOSPACE);
    CHECK(sw_disk(w, FAST, &d) && strcmp(d.journal_on, SLOW) == 0);
    sw_close_clients(w);
    return 0;
}

static void test_change(void **state)
{
    struct server_world w;

    (void)state;
    world(&w, 5);
    sw_run(&w, change_story);
}

/* ---- formatting that ends half way ---- */

struct cut {
    uint32_t at, writes;
};

static bool cut_here(void *arg, struct sim_proc *p, uint64_t n)
{
    struct cut *c = arg;

    (void)p;
    (void)n;
    return ++c->writes == c->at;
}

static int format_guest(void *arg)
{
    struct chunk_format_conf fc = {.journal_on = FAST, .force = true};

    (void)arg;
    return chunk_format(NEW, &fc);
}

struct slots {
    uint32_t taken;
    bool usable; /* the guest */
};
static struct slots found;

static int slots_look(void *arg)
{
    struct super_block *fast = mem_alloc(sizeof(*fast)), *sb = mem_alloc(sizeof(*sb));
    int rc = super_read(FAST, fast);

    (void)arg;
    found = (struct slots){0};
    for (uint32_t i = 0; rc == 0 && i < fast->guests; i++)
        found.taken += !mem_is_zero(fast->guest[i], 16);
    found.usable = super_read(NEW, sb) == 0 && guest_check(sb, FAST, fast) == 0;
    mem_free(sb);
    mem_free(fast);
    return rc;
}

/* At every device write, of both disks, power fails: the guest is usable or not, and no slot is
 * lost for ever. */
static int cut_story(void *arg)
{
    struct server_world *w = arg;
    uint32_t cuts = 0, unusable = 0;

    in_process(w, guests_format);
    in_process(w, format_guest);
    for (uint32_t disk = 0; disk < 2; disk++) {
        const char *path = disk == 0 ? NEW : FAST;

        for (uint32_t at = 1;; at++) {
            struct cut c = {.at = at};

            sim_disk_set_hook(w->p, path, cut_here, &c);
            sim_proc_start(w->p, format_guest, w);
            while (sim_proc_running(w->p))
                (void)co_sleep(NSEC_PER_MSEC);
            sim_disk_set_hook(w->p, path, NULL, NULL);
            if (c.writes < at)
                break; /* it came to its end */
            cuts++;
            in_process(w, slots_look);
            CHECK(found.taken == (found.usable ? 2u : 1u));
            unusable += !found.usable;
            in_process(w, format_guest);
            in_process(w, slots_look);
            CHECK(found.taken == 2 && found.usable);
        }
    }
    CHECK(cuts > 10 && unusable > 5);
    return 0;
}

static void test_cut(void **state)
{
    struct server_world w;

    (void)state;
    world(&w, 6);
    sw_run(&w, cut_story);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_restart), cmocka_unit_test(test_absent), cmocka_unit_test(test_fails),
        cmocka_unit_test(test_hangs),   cmocka_unit_test(test_change), cmocka_unit_test(test_cut),
    };

    log_threshold = LOG_LV_ERROR + 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
