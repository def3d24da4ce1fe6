/* SPDX-License-Identifier: Apache-2.0
 *
 * Simulated disks: what is durable when, and what crashes and power losses leave. Each page is
 * filled with one byte, so that a test reads it as a number; a torn page is found by comparing
 * its sectors. */
#include <unistd.h>
#include "tests/unit/common/sim_fixture.h"

#define DISK   "/dev/d"
#define PAGE   4096u
#define SECTOR 512u
#define SIZE   (8u << 20)

struct rig {
    struct sim *s;
    struct sim_proc *p;
    int (*body)(struct disk *d, struct rig *r);
    int stage;
    bool ready; /* to be killed */
    int value;
};

static int rig_main(void *arg)
{
    struct rig *r = arg;
    struct disk *d;
    int rc;

    CHECK(disk_open(DISK, DISK_EXCLUSIVE, &d) == 0);
    CHECK(disk_info(d)->size_bytes == SIZE && disk_info(d)->discard);
    rc = r->body(d, r);
    disk_close(d);
    return rc;
}

static struct rig rig_new(uint64_t seed, int (*body)(struct disk *d, struct rig *r))
{
    struct rig r = {.s = world_new(seed), .body = body};

    r.p = sim_proc_new(r.s, HOST_A, "p");
    sim_disk_create(r.p, DISK, SIZE);
    return r;
}

static uint8_t *filled(int byte)
{
    uint8_t *page = mem_alloc_aligned(PAGE, PAGE);

    memset(page, byte, PAGE);
    return page;
}

static void put(struct disk *d, uint64_t page_no, int byte, bool durable)
{
    uint8_t *page = filled(byte);

    CHECK(disk_write(d, page, PAGE, page_no * PAGE, durable) == 0);
    mem_free(page);
}

/* What the page holds: a byte, or -1 if its sectors differ. Never torn inside a sector. */
static int look(struct rig *r, uint64_t page_no)
{
    uint8_t page[PAGE];
    int value;

    sim_disk_peek(r->p, DISK, page, PAGE, page_no * PAGE);
    value = page[0];
    for (uint32_t i = 0; i < PAGE; i++) {
        assert_int_equal(page[i], page[i / SECTOR * SECTOR]);
        if (page[i] != page[0])
            value = -1;
    }
    return value;
}

/* ---- reading and writing ---- */

static int body_vectors(struct disk *d, struct rig *r)
{
    uint8_t *a = filled(1), *b = filled(2), *c = filled(9);
    struct iovec out[2] = {{a, PAGE}, {b, PAGE}}, in[3] = {{c, PAGE}, {a, PAGE}, {b, PAGE}};

    (void)r;
    CHECK(disk_writev(d, out, 2, PAGE, true) == 0);
    CHECK(disk_readv(d, in, 3, 0) == 0);
    CHECK(c[0] == 0 && c[PAGE - 1] == 0 && a[0] == 1 && b[PAGE - 1] == 2);
    CHECK(disk_flush(d) == 0);
    mem_free(a);
    mem_free(b);
    mem_free(c);
    return 0;
}

static void vectors_read_back(void **state)
{
    struct rig r = rig_new(1, body_vectors);

    (void)state;
    assert_int_equal(proc_run(r.s, r.p, rig_main, &r), 0);
    assert_int_equal(sim_disk_bytes_written(r.p, DISK), 2 * PAGE);
    assert_int_equal(look(&r, 2), 2);
    sim_disk_poke(r.p, DISK, "\x07", 1, 2 * PAGE + 3);
    sim_disk_wipe(r.p, DISK);
    assert_int_equal(look(&r, 2), 0);
    sim_free(r.s);
}

static int body_many(struct disk *d, struct rig *r)
{
    struct disk_req reqs[64] = {0};
    struct iovec iovs[64];
    nsec_t start = co_now();

    (void)r;
    for (int i = 0; i < 64; i++) {
        iovs[i] = (struct iovec){filled(i + 1), PAGE};
        reqs[i] = (struct disk_req){.op = DISK_WRITE,
                                    .disk = d,
                                    .off = (uint64_t)i * PAGE,
                                    .iov = &iovs[i],
                                    .iov_count = 1};
        disk_submit(&reqs[i]);
    }
    for (int i = 63; i >= 0; i--) {
        CHECK(disk_wait(&reqs[i]) == 0 && reqs[i].latency_ns >= 20 * NSEC_PER_USEC);
        mem_free(iovs[i].iov_base);
    }
    CHECK(co_now() - start < MSEC(1)); /* they overlap */
    return 0;
}

static void requests_overlap(void **state)
{
    struct rig r = rig_new(2, body_many);

    (void)state;
    assert_int_equal(proc_run(r.s, r.p, rig_main, &r), 0);
    for (uint64_t i = 0; i < 64; i++)
        assert_int_equal(look(&r, i), (int)i + 1);
    sim_free(r.s);
}

/* ---- sectors, speed ---- */

static bool is_ready(void *arg)
{
    return ((struct rig *)arg)->ready;
}

static int body_sectors(struct disk *d, struct rig *r)
{
    uint8_t *a = filled(1), *b = filled(2), *c = filled(9);
    struct iovec out[2] = {{a, SECTOR}, {b, PAGE}}, in[2] = {{c, SECTOR}, {b, PAGE}};

    (void)r;
    CHECK(disk_writev(d, out, 2, PAGE - SECTOR, true) == 0);
    memset(b, 7, PAGE);
    CHECK(disk_readv(d, in, 2, PAGE - SECTOR) == 0);
    CHECK(c[0] == 1 && c[SECTOR - 1] == 1 && c[SECTOR] == 9 && b[0] == 2 && b[PAGE - 1] == 2);
    CHECK(disk_read(d, b, PAGE, PAGE) == 0);
    CHECK(b[0] == 2 && b[PAGE - 1] == 2);
    mem_free(a);
    mem_free(b);
    mem_free(c);
    return 0;
}

static void sectors_read_back(void **state)
{
    struct rig r = rig_new(3, body_sectors);

    (void)state;
    assert_int_equal(proc_run(r.s, r.p, rig_main, &r), 0);
    sim_free(r.s);
}

/* Sector 0 of page 0 unsynced, 1 durable, 2 unsynced and durable later. */
static int body_neighbours(struct disk *d, struct rig *r)
{
    uint8_t *one = filled(1), *two = filled(2);

    CHECK(disk_write(d, one, SECTOR, 0, false) == 0);
    CHECK(disk_write(d, one, SECTOR, 2 * SECTOR, false) == 0);
    CHECK(disk_write(d, one, SECTOR, SECTOR, true) == 0);
    CHECK(disk_write(d, two, SECTOR, 2 * SECTOR, true) == 0);
    mem_free(one);
    mem_free(two);
    r->ready = true;
    return co_sleep(SEC(100));
}

/* A durable sector is safe whatever becomes of its neighbours in the cache. */
static void sectors_have_their_own_fate(void **state)
{
    int lost = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct rig r = rig_new(seed, body_neighbours);
        uint8_t got[4 * SECTOR];

        sim_proc_start(r.p, rig_main, &r);
        assert_true(sim_run_until(r.s, is_ready, &r, SEC(10)));
        sim_proc_power_loss(r.p);
        sim_disk_peek(r.p, DISK, got, sizeof(got), 0);
        lost += got[0] == 0;
        assert_true(got[0] <= 1 && got[SECTOR] == 1 && got[2 * SECTOR] == 2 &&
                    got[3 * SECTOR] == 0);
        sim_free(r.s);
    }
    assert_true(lost > 0 && lost < 20);
}

static int body_speed(struct disk *d, struct rig *r)
{
    struct disk_req reqs[8] = {0};
    struct iovec iov = {filled(1), PAGE};
    nsec_t start = co_now();

    (void)r;
    CHECK(disk_info(d)->physical_bytes == PAGE && disk_info(d)->block_bytes == PAGE);
    for (uint32_t i = 0; i < 8; i++) {
        reqs[i] = (struct disk_req){
            .op = DISK_WRITE, .disk = d, .off = i * PAGE, .iov = &iov, .iov_count = 1};
        disk_submit(&reqs[i]);
    }
    for (uint32_t i = 0; i < 8; i++)
        CHECK(disk_wait(&reqs[i]) == 0);
    CHECK(co_now() - start == 8 * (NSEC_PER_USEC + 4 * NSEC_PER_USEC) + 50 * NSEC_PER_USEC);
    mem_free(iov.iov_base);
    return 0;
}

static void speed_is_kept(void **state)
{
    struct sim_disk_speed speed = {50 * NSEC_PER_USEC, NSEC_PER_USEC, 1024000000};
    struct rig r = rig_new(4, body_speed);

    (void)state;
    sim_disk_set_speed(r.p, DISK, &speed);
    sim_disk_set_physical(r.p, DISK, PAGE);
    assert_int_equal(proc_run(r.s, r.p, rig_main, &r), 0);
    sim_free(r.s);
}

/* ---- crashes ---- */

/* Pages 0: durable; 1: flushed; 2..9: completed, not flushed; 10: durable over unsynced; then one
 * write in flight to page 11. */
static int body_unsynced(struct disk *d, struct rig *r)
{
    put(d, 0, 1, true);
    put(d, 1, 1, false);
    CHECK(disk_flush(d) == 0);
    for (uint64_t i = 2; i < 10; i++)
        put(d, i, 1, false);
    put(d, 10, 1, false);
    put(d, 10, 2, true);
    r->ready = true;
    return co_sleep(SEC(100));
}

static void kill_keeps_completed_writes(void **state)
{
    struct rig r = rig_new(3, body_unsynced);

    (void)state;
    sim_proc_start(r.p, rig_main, &r);
    assert_true(sim_run_until(r.s, is_ready, &r, SEC(10)));
    sim_proc_crash(r.p);
    for (uint64_t i = 0; i < 10; i++)
        assert_int_equal(look(&r, i), 1);
    assert_int_equal(look(&r, 10), 2);
    /* they are still in the cache, where a later power loss finds them */
    sim_proc_power_loss(r.p);
    assert_int_equal(look(&r, 0), 1);
    sim_free(r.s);
}

static void power_loss_spares_only_synced_writes(void **state)
{
    int kept = 0, lost = 0, torn = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct rig r = rig_new(seed, body_unsynced);

        sim_proc_start(r.p, rig_main, &r);
        assert_true(sim_run_until(r.s, is_ready, &r, SEC(10)));
        sim_proc_power_loss(r.p);
        assert_int_equal(look(&r, 0), 1);
        assert_int_equal(look(&r, 1), 1);
        assert_int_equal(look(&r, 10), 2);
        for (uint64_t i = 2; i < 10; i++) {
            int value = look(&r, i);

            kept += value == 1;
            lost += value == 0;
            torn += value == -1;
        }
        sim_free(r.s);
    }
    assert_int_equal(kept + lost + torn, 160);
    assert_true(kept > 30 && lost > 30 && torn > 30);
}

static int body_in_flight(struct disk *d, struct rig *r)
{
    for (uint8_t round = 1; round < 200; round++) {
        put(d, round, round, true);
        r->stage = round; /* acknowledged */
    }
    return 0;
}

/* A durable write that was not acknowledged may be there, or not, or torn; one that was is. */
static void in_flight_writes_are_uncertain(void **state)
{
    int there = 0, absent = 0, torn = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct rig r = rig_new(seed, body_in_flight);
        int last;

        sim_proc_start(r.p, rig_main, &r);
        sim_run_for(r.s, MSEC(5));
        if (seed % 2)
            sim_proc_crash(r.p);
        else
            sim_proc_power_loss(r.p);
        for (int i = 1; i <= r.stage; i++)
            assert_int_equal(look(&r, (uint64_t)i), i);
        last = look(&r, (uint64_t)r.stage + 1);
        there += last == r.stage + 1;
        absent += last == 0;
        torn += last == -1;
        sim_free(r.s);
    }
    assert_true(there > 0 && absent > 0 && torn > 0);
}

static bool cut_at(void *arg, struct sim_proc *p, uint64_t n)
{
    (void)p;
    return n == *(uint64_t *)arg;
}

/* Every crash point is reached once, in order. */
static void hook_enumerates_crash_points(void **state)
{
    (void)state;
    for (uint64_t n = 1; n <= 30; n++) {
        struct rig r = rig_new(7, body_in_flight);

        sim_disk_set_hook(r.p, DISK, cut_at, &n);
        sim_proc_start(r.p, rig_main, &r);
        assert_true(sim_run_until(r.s, proc_is_over, r.p, SEC(10)));
        assert_int_equal(r.stage, n - 1);
        sim_free(r.s);
    }
}

/* A flush covers what completed before it was submitted, nothing later. */
static int body_flush_order(struct disk *d, struct rig *r)
{
    struct disk_req flush = {.op = DISK_FLUSH, .disk = d};

    put(d, 0, 1, false);
    disk_submit(&flush);
    (void)co_yield ();
    put(d, 1, 1, false);
    CHECK(disk_wait(&flush) == 0);
    r->ready = true;
    return co_sleep(SEC(10));
}

static void flush_covers_earlier_writes_only(void **state)
{
    bool lost = false;

    (void)state;
    for (uint64_t seed = 1; seed < 20; seed++) {
        struct rig r = rig_new(seed, body_flush_order);

        sim_proc_start(r.p, rig_main, &r);
        assert_true(sim_run_until(r.s, is_ready, &r, SEC(10)));
        sim_proc_power_loss(r.p);
        assert_int_equal(look(&r, 0), 1);
        lost |= look(&r, 1) != 1;
        sim_free(r.s);
    }
    assert_true(lost);
}

/* ---- errors and the rest ---- */

static int body_failing(struct disk *d, struct rig *r)
{
    uint8_t *page = filled(3);

    sim_disk_fail(r->p, DISK, true);
    CHECK(disk_read(d, page, PAGE, 0) == ERR_IO);
    CHECK(strstr(err_text(ERR_IO), "read of 4096 bytes at 0"));
    CHECK(disk_write(d, page, PAGE, 0, true) == ERR_IO);
    CHECK(disk_flush(d) == ERR_IO);
    sim_disk_fail(r->p, DISK, false);
    CHECK(disk_write(d, page, PAGE, 0, true) == 0);
    CHECK(disk_discard(d, 0, SIZE) == 0);
    CHECK(disk_read(d, page, PAGE, 0) == 0);
    r->value = page[0];
    mem_free(page);
    return 0;
}

static void failing_disk_fails(void **state)
{
    bool zero = false, old = false;

    (void)state;
    for (uint64_t seed = 1; seed < 20; seed++) {
        struct rig r = rig_new(seed, body_failing);

        assert_int_equal(proc_run(r.s, r.p, rig_main, &r), 0);
        zero |= r.value == 0;
        old |= r.value == 3;
        sim_free(r.s);
    }
    assert_true(zero && old); /* a discarded range reads as either */
}

static int body_probe(struct disk *d, struct rig *r)
{
    struct disk *second;

    CHECK(disk_open(DISK, DISK_EXCLUSIVE, &second) == ERR_BUSY);
    CHECK(disk_open("/dev/none", 0, &second) == ERR_NOTFOUND);
    CHECK(disk_open(DISK, DISK_READ_ONLY, &second) == 0);
    disk_close(second);
    CHECK(disk_probe(DISK) == ERR_EXISTS); /* in use */
    if (r->stage == 1)
        put(d, SIZE / PAGE - 3, 1, true); /* in the last MiB */
    if (r->stage == 2)
        put(d, SIZE / PAGE / 2, 1, true); /* in the middle */
    return 0;
}

static int probe_main(void *arg)
{
    (void)arg;
    return disk_probe(DISK);
}

static void probe_sees_what_is_there(void **state)
{
    static const int want[] = {0, ERR_EXISTS, 0};

    (void)state;
    for (int stage = 0; stage < 3; stage++) {
        struct rig r = rig_new(5, body_probe);

        r.stage = stage;
        assert_int_equal(proc_run(r.s, r.p, rig_main, &r), 0);
        assert_int_equal(proc_run(r.s, r.p, probe_main, NULL), want[stage]);
        sim_free(r.s);
    }
}

/* ---- packed contents ---- */

/* Repeated words, words that repeat a little, anything, zeroes. */
static void packed_fill(uint32_t *w, uint32_t kind)
{
    for (uint32_t i = 0; i < 1024; i++)
        w[i] = kind == 0   ? 0
               : kind == 1 ? 4711
               : kind == 2 ? i / (1 + i % 5)
               : kind == 3 ? i * 2654435761u
                           : (i < 100 ? i : 0xabcdef01u);
}

static void test_packed(void **state)
{
    struct sim *s = world_new(1);
    struct sim_proc *p = sim_proc_new(s, HOST_A, "p");
    uint32_t want[1024], got[1024];

    (void)state;
    sim_disk_create(p, "/dev/packed", 1ull << 50);
    sim_disk_pack(p, "/dev/packed");
    for (uint32_t round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < 40; i++) {
            packed_fill(want, (i + round) % 5);
            sim_disk_poke(p, "/dev/packed", want, sizeof(want), (uint64_t)i << 40);
        }
        for (uint32_t i = 0; i < 40; i++) {
            packed_fill(want, (i + round) % 5);
            sim_disk_peek(p, "/dev/packed", got, sizeof(got), (uint64_t)i << 40);
            assert_memory_equal(got, want, sizeof(got));
        }
    }
    sim_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_packed),
        cmocka_unit_test(vectors_read_back),
        cmocka_unit_test(requests_overlap),
        cmocka_unit_test(sectors_read_back),
        cmocka_unit_test(sectors_have_their_own_fate),
        cmocka_unit_test(speed_is_kept),
        cmocka_unit_test(kill_keeps_completed_writes),
        cmocka_unit_test(power_loss_spares_only_synced_writes),
        cmocka_unit_test(in_flight_writes_are_uncertain),
        cmocka_unit_test(hook_enumerates_crash_points),
        cmocka_unit_test(flush_covers_earlier_writes_only),
        cmocka_unit_test(failing_disk_fails),
        cmocka_unit_test(probe_sees_what_is_there),
    };

    return cmocka_run_group_tests_name("sim_disk", tests, NULL, NULL);
}
