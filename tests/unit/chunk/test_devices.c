/* SPDX-License-Identifier: Apache-2.0
 *
 * A chunk server whose disks are bad at start. */
#include "tests/unit/chunk/server_world.h"

static void bad_is_told(struct server_world *w, const char *path, const char *why)
{
    struct sw_disk d;

    CHECK(sw_disk(w, path, &d));
    CHECK(d.state == DISK_FAILED);
    ASSERTF(strstr(d.error, why) != NULL, "'%s' does not say '%s'", d.error, why);
}

/* One unreadable, later it is back. */
static int unreadable_story(void *arg)
{
    struct server_world *w = arg;
    struct sw_disk d;
    uint32_t n;

    CHECK(sw_start(w));
    sw_fill(w);
    CHECK(sw_disk(w, "/dev/b", &d) && d.state == DISK_HEALTHY && d.extents > 0);
    sim_disk_fail(w->p, "/dev/b", true);
    CHECK(sw_start(w));
    bad_is_told(w, "/dev/b", "failed");
    n = sw_whole(w, 3);
    CHECK(n == EXTENTS - d.extents);
    /* What it has can be made anew meanwhile; the new one is in force later. */
    CHECK(sw_create(w, EXTENTS + 1, 3) == 0);
    sim_disk_fail(w->p, "/dev/b", false);
    CHECK(sw_start(w));
    CHECK(sw_whole(w, 4) == EXTENTS);
    CHECK(sw_disk(w, "/dev/b", &d) && d.state == DISK_HEALTHY);
    sw_close_clients(w);
    return 0;
}

static void test_unreadable(void **state)
{
    struct server_world w;

    (void)state;
    sw_init(&w, 1, 3);
    sw_run(&w, unreadable_story);
}

/* All kinds at once, and one good disk. */
static int kinds_story(void *arg)
{
    struct server_world *w = arg;
    uint8_t page[PAGE_BYTES];
    struct sw_disk good;

    CHECK(sw_start(w));
    sw_fill(w);
    CHECK(sw_disk(w, "/dev/c", &good));
    sim_proc_crash(w->p);
    memset(page, 0x5a, sizeof(page));
    sim_disk_poke(w->p, "/dev/a", page, sizeof(page), 0);
    sim_disk_poke(w->p, "/dev/a", page, sizeof(page), DISK_BYTES - PAGE_BYTES);
    sim_disk_poke(w->p, "/dev/b", page, sizeof(page), REGIONS_OFF); /* both anchors */
    sim_disk_poke(w->p, "/dev/b", page, sizeof(page), REGIONS_OFF + PAGE_BYTES);
    w->conf.disks[w->conf.n_disks++] = "/dev/absent";
    w->conf.disks[w->conf.n_disks++] = "/dev/d"; /* never formatted */
    CHECK(sw_start(w));
    bad_is_told(w, "/dev/a", "superblock");
    bad_is_told(w, "/dev/b", "anchor");
    bad_is_told(w, "/dev/absent", "no disk");
    bad_is_told(w, "/dev/d", "format");
    CHECK(sw_whole(w, 3) == good.extents);
    sw_close_clients(w);
    return 0;
}

static void test_kinds(void **state)
{
    struct server_world w;

    (void)state;
    sw_init(&w, 2, 3);
    sw_run(&w, kinds_story);
}

/* A disk of another server among this one's, whatever the order. */
static int format_new(void *arg)
{
    struct chunk_format_conf fc = {.workers = WORKERS, .force = true};

    return chunk_format(arg, &fc);
}

/* It has been in use in a cluster. */
static void register_disk(const char *path, uint32_t chunk_id)
{
    struct super_block *sb = mem_alloc(sizeof(*sb));

    CHECK(super_read(path, sb) == 0);
    sb->chunk_id = chunk_id;
    memcpy(sb->cluster_id, "cluster", 8);
    CHECK(super_write(path, sb) == 0);
    mem_free(sb);
}

static int format_foreign(void *arg)
{
    CHECK(format_new(arg) == 0);
    register_disk(disk_paths[0], 9);
    register_disk(disk_paths[1], 1);
    register_disk(disk_paths[2], 1);
    return 0;
}

static int foreign_story(void *arg)
{
    struct server_world *w = arg;

    CHECK(sw_start(w));
    sw_fill(w);
    sim_proc_crash(w->p);
    sim_proc_start(w->p, format_foreign, (void *)disk_paths[0]);
    while (sim_proc_running(w->p))
        (void)co_sleep(NSEC_PER_MSEC);
    CHECK(sw_start(w));
    bad_is_told(w, "/dev/a", "another chunk server");
    CHECK(sw_whole(w, 3) > 0);
    sw_close_clients(w);
    return 0;
}

static void test_foreign(void **state)
{
    struct server_world w;

    (void)state;
    sw_init(&w, 3, 3);
    sw_run(&w, foreign_story);
}

/* Disks that were formatted one by one become one server's. */
static int formatted_story(void *arg)
{
    struct server_world *w = arg;
    struct sw_disk d;

    CHECK(sw_start(w));
    sim_proc_crash(w->p);
    for (uint32_t i = 0; i < 2; i++) {
        sim_proc_start(w->p, format_new, (void *)disk_paths[i]);
        while (sim_proc_running(w->p))
            (void)co_sleep(NSEC_PER_MSEC);
    }
    for (uint32_t i = 0; i < 2; i++) { /* and stay it */
        CHECK(sw_start(w));
        for (uint32_t k = 0; k < 3; k++)
            CHECK(sw_disk(w, disk_paths[k], &d) && d.state == DISK_HEALTHY);
        sim_proc_crash(w->p);
    }
    CHECK(sw_start(w));
    sw_close_clients(w);
    return 0;
}

static void test_formatted_one_by_one(void **state)
{
    struct server_world w;

    (void)state;
    sw_init(&w, 3, 3);
    sw_run(&w, formatted_story);
}

/* Nothing is left to serve. */
static int none_story(void *arg)
{
    struct server_world *w = arg;

    CHECK(sw_start(w));
    sim_proc_crash(w->p);
    for (uint32_t i = 0; i < w->n_disks; i++)
        sim_disk_wipe(w->p, disk_paths[i]);
    CHECK(!sw_start(w));
    CHECK(sim_proc_result(w->p) == ERR_FORMAT);
    sw_close_clients(w);
    return 0;
}

static void test_none(void **state)
{
    struct server_world w;

    (void)state;
    sw_init(&w, 4, 2);
    sw_run(&w, none_story);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unreadable), cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_foreign),    cmocka_unit_test(test_formatted_one_by_one),
        cmocka_unit_test(test_none),
    };

    log_threshold = LOG_LV_ERROR;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
