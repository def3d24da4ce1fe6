/* SPDX-License-Identifier: Apache-2.0
 *
 * Recordings of simulated disks: what a player says a power loss leaves is what the rules of the
 * disk allow, at each place of the tape. */
#include "common/env/sim_tape.h"
#include "tests/unit/common/sim_fixture.h"

#define DISK "/dev/d"
#define PAGE 4096u
#define SIZE (64u * PAGE)

static uint8_t *filled(int byte, size_t len)
{
    uint8_t *data = mem_alloc_aligned(PAGE, len);

    memset(data, byte, len);
    return data;
}

static void put(struct disk *d, uint64_t off, size_t len, int byte, bool durable)
{
    uint8_t *data = filled(byte, len);

    CHECK(disk_write(d, data, len, off, durable) == 0);
    mem_free(data);
}

static int script(void *arg)
{
    struct sim_tape **tape = arg;
    struct disk *d;

    CHECK(disk_open(DISK, 0, &d) == 0);
    put(d, 0, PAGE, 1, true);
    put(d, PAGE, 2 * PAGE, 2, false);
    sim_tape_mark(*tape, 1);
    put(d, PAGE, PAGE, 3, true); /* supersedes half of it */
    sim_tape_mark(*tape, 2);
    put(d, 3 * PAGE + 512, 1024, 4, false);
    CHECK(disk_flush(d) == 0);
    sim_tape_mark(*tape, 3);
    put(d, 0, PAGE, 5, false);
    sim_tape_mark(*tape, 4);
    disk_close(d);
    return 0;
}

static struct sim_tape *record(struct sim_image **start)
{
    struct sim *s = world_new(1);
    struct sim_proc *p = sim_proc_new(s, HOST_A, "p");
    struct sim_tape *t;
    uint8_t nine[512];

    memset(nine, 9, sizeof(nine));
    sim_disk_create(p, DISK, SIZE);
    sim_disk_poke(p, DISK, nine, sizeof(nine), 3 * PAGE);
    *start = sim_image_of(p);
    t = sim_tape_start(p);
    assert_int_equal(proc_run(s, p, script, &t), 0);
    sim_tape_stop(p);
    sim_free(s);
    return t;
}

static struct sim_player *play_to(const struct sim_tape *t, const struct sim_image *start,
                                  uint64_t mark)
{
    struct sim_player *pl = sim_player_new(start);

    for (uint64_t i = 0; i < t->n_ev; i++) {
        if (t->ev[i].kind == SIM_TAPE_MARK && t->ev[i].n == mark)
            return pl;
        sim_player_event(pl, t, &t->ev[i]);
    }
    fail();
    return NULL;
}

/* The byte at an offset, as a disk made of the image reads it. */
static int look(const struct sim_image *img, uint64_t off)
{
    struct sim *s = world_new(1);
    struct sim_proc *p = sim_proc_new(s, HOST_A, "p");
    uint8_t byte;

    sim_disk_create_from(p, DISK, img, 0, img->pages);
    sim_disk_peek(p, DISK, &byte, 1, off);
    sim_free(s);
    return byte;
}

static int crash(const struct sim_player *pl, enum sim_outcome how, uint64_t seed, uint64_t off)
{
    struct sim_image *img = sim_player_crash(pl, how, seed);
    int byte = look(img, off);

    sim_image_free(img);
    return byte;
}

static void test_outcomes(void **state)
{
    struct sim_image *start;
    struct sim_tape *t = record(&start);
    struct sim_player *pl = play_to(t, start, 1);

    (void)state;
    assert_int_equal(sim_player_open(pl), 1);
    for (int how = 0; how < SIM_OUTCOMES; how++)
        assert_int_equal(crash(pl, (enum sim_outcome)how, 3, 0), 1);
    assert_int_equal(crash(pl, SIM_ALL_LOST, 1, PAGE), 0);
    assert_int_equal(crash(pl, SIM_ALL_KEPT, 1, PAGE), 2);
    sim_player_free(pl);

    pl = play_to(t, start, 2); /* the durable write counts, whatever becomes of the other */
    for (uint64_t seed = 0; seed < 20; seed++) {
        for (int how = 0; how < SIM_OUTCOMES; how++)
            assert_int_equal(crash(pl, (enum sim_outcome)how, seed, PAGE), 3);
    }
    assert_int_equal(crash(pl, SIM_ALL_KEPT, 1, 2 * PAGE), 2);
    sim_player_free(pl);

    pl = play_to(t, start, 3);
    assert_int_equal(sim_player_open(pl), 0);
    assert_int_equal(crash(pl, SIM_ALL_LOST, 1, 2 * PAGE), 2);
    assert_int_equal(crash(pl, SIM_ALL_LOST, 1, 3 * PAGE), 9);
    assert_int_equal(crash(pl, SIM_ALL_LOST, 1, 3 * PAGE + 512), 4);
    assert_int_equal(crash(pl, SIM_ALL_LOST, 1, 3 * PAGE + 1536), 0);
    sim_player_free(pl);
    sim_tape_free(t);
    sim_image_free(start);
}

/* Both ways of every sector come up, and nothing else. */
static void test_torn(void **state)
{
    struct sim_image *start;
    struct sim_tape *t = record(&start);
    struct sim_player *pl = play_to(t, start, 4);
    uint32_t old = 0, new = 0;

    (void)state;
    for (uint64_t seed = 0; seed < 100; seed++) {
        int byte = crash(pl, SIM_TORN, seed, 1024);

        assert_true(byte == 1 || byte == 5);
        old += byte == 1;
        new += byte == 5;
    }
    assert_true(old > 20 && new > 20);
    sim_player_free(pl);
    sim_tape_free(t);
    sim_image_free(start);
}

/* Killed, not cut: what is in the cache goes into the next tape open. */
static void test_kill(void **state)
{
    struct sim_image *start;
    struct sim_tape *t = record(&start);
    struct sim_player *pl = play_to(t, start, 4), *copy;

    (void)state;
    sim_player_kill(pl, 1);
    assert_int_equal(sim_player_open(pl), 1);
    copy = sim_player_copy(pl);
    assert_int_equal(crash(copy, SIM_ALL_LOST, 1, 0), 1);
    sim_player_event(copy, t, &(struct sim_tape_event){.kind = SIM_TAPE_FLUSH});
    assert_int_equal(crash(copy, SIM_ALL_LOST, 1, 0), 5);
    assert_int_equal(crash(pl, SIM_ALL_LOST, 1, 0), 1);
    sim_player_free(copy);
    sim_player_free(pl);
    sim_tape_free(t);
    sim_image_free(start);
}

static int overwrite(void *arg)
{
    struct disk *d;

    (void)arg;
    CHECK(disk_open(DISK, 0, &d) == 0);
    put(d, 3 * PAGE + 1024, 512, 7, false);
    disk_close(d);
    return 0;
}

/* A disk made of an image leaves the image alone. */
static void test_copy_on_write(void **state)
{
    struct sim_image *start;
    struct sim_tape *t = record(&start);
    struct sim *s = world_new(1);
    struct sim_proc *p = sim_proc_new(s, HOST_A, "p");
    uint8_t page[PAGE];

    (void)state;
    sim_disk_create_from(p, DISK, start, 0, start->pages);
    assert_int_equal(proc_run(s, p, overwrite, NULL), 0);
    sim_disk_peek(p, DISK, page, PAGE, 3 * PAGE);
    assert_int_equal(page[0], 9);
    assert_int_equal(page[1024], 7);
    sim_proc_start(p, overwrite, NULL);
    sim_proc_power_loss(p);
    sim_free(s);
    assert_int_equal(look(start, 3 * PAGE), 9);
    assert_int_equal(look(start, 3 * PAGE + 1024), 0);
    sim_tape_free(t);
    sim_image_free(start);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_outcomes),
        cmocka_unit_test(test_torn),
        cmocka_unit_test(test_kill),
        cmocka_unit_test(test_copy_on_write),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
