/* SPDX-License-Identifier: Apache-2.0
 *
 * An extent moves to another disk, and power is cut at every device write on the way: afterwards
 * one whole copy is in force, with all it had, and the move can be made again. */
#include <inttypes.h>
#include "chunk/chunkd.h"
#include "chunk/engine.h"
#include "common/base/crc32c.h"
#include "common/base/log.h"
#include "tests/unit/common/sim_fixture.h"

#define FROM       "/dev/from"
#define TO         "/dev/to"
#define ID         4711u
#define EPOCH      5u
#define DISK_BYTES ((uint64_t)32 << 20)
#define WRITES     16u

struct world {
    struct sim *s;
    struct sim_proc *p;
    struct engine *e;
    bool armed, from_gone;
    uint64_t writes, cut_at; /* while armed; 0: never */
    uint64_t epoch;
    bool swap; /* the order in which the disks are opened */
    uint64_t rate;
    nsec_t linger; /* before the power goes */
    bool done;
};

/* ---- what the extent has: writes at odd places, some zeroed again ---- */

static uint32_t write_off(uint32_t i)
{
    return i * 3 * BLOCK_BYTES / 2 / PAGE_BYTES * PAGE_BYTES;
}
static uint32_t write_len(uint32_t i)
{
    return i % 3 == 0 ? BLOCK_BYTES : (i % 3 == 1 ? 5 * PAGE_BYTES : 70 * PAGE_BYTES);
}
static bool zeroed(uint32_t i)
{
    return i % 4 == 3;
}

static void put(struct world *w, uint32_t i, enum write_kind kind, struct version v,
                struct version cp)
{
    uint32_t len = write_len(i), n = len / PAGE_BYTES, *crc = MEM_NEW_ARRAY(uint32_t, n);
    static const uint32_t absent[] = {9};
    struct write_args a = {.id = ID,
                           .v = v,
                           .commit_point = cp,
                           .kind = kind,
                           .off = write_off(i),
                           .len = len,
                           .crc = crc,
                           .missing = absent,
                           .n_missing = i % 2};
    struct write_result res;

    if (kind == W_DATA) {
        a.payload = buf_alloc(len);
        a.n_crc = n;
        memset(a.payload->data, (int)(i + 1), len);
        for (uint32_t k = 0; k < n; k++)
            crc[k] = crc32c(0, a.payload->data + (size_t)k * PAGE_BYTES, PAGE_BYTES);
    }
    CHECK(engine_write(w->e, &a, &res) == 0);
    buf_put(a.payload);
    mem_free(crc);
}

static void fill(struct world *w)
{
    for (uint32_t i = 0; i < WRITES; i++)
        put(w, i, W_DATA, (struct version){EPOCH, i + 1}, (struct version){0, 0});
    for (uint32_t i = 0; i < WRITES; i++) {
        if (zeroed(i))
            put(w, i, i % 8 == 3 ? W_ZERO : W_DISCARD, (struct version){EPOCH, WRITES + i + 1},
                (struct version){EPOCH, WRITES / 2});
    }
}

/* The byte at an offset: of the last write there that counts. */
static int expected(uint32_t off)
{
    int value = 0;

    for (uint32_t i = 0; i < WRITES; i++) {
        if (off >= write_off(i) && off < write_off(i) + write_len(i))
            value = (int)i + 1;
    }
    for (uint32_t i = 0; i < WRITES; i++) {
        if (zeroed(i) && off >= write_off(i) && off < write_off(i) + write_len(i))
            value = 0;
    }
    return value;
}

static void verify(struct world *w)
{
    struct read_result *res = mem_alloc(sizeof(*res));
    struct open_info oi;
    int rc = engine_open(w->e, ID, ++w->epoch, 4, &oi);

    ASSERTF(rc == 0, "open: %s", err_text(rc));
    CHECK(oi.commit_point.epoch == EPOCH && oi.commit_point.gen == WRITES / 2 && !oi.is_void);
    CHECK(oi.last_version.epoch == EPOCH && oi.last_version.gen == 2 * WRITES);
    CHECK(oi.n_uncommitted >= WRITES / 4 && oi.n_missing == 1 && oi.missing[0].replica == 9);
    CHECK(oi.missing[0].pages > 0 && !oi.missing[0].everything);
    open_info_free(&oi);
    for (uint32_t off = 0; off < write_off(WRITES) + BLOCK_BYTES; off += PAGE_BYTES) {
        rc = engine_read(w->e, ID, w->epoch, off, PAGE_BYTES, res);
        ASSERTF(rc == 0, "read: %s", err_text(rc));
        CHECK((res->zero ? 0 : res->buf->data[res->buf_off]) == expected(off));
        buf_put(res->buf);
    }
    mem_free(res);
}

static uint64_t extents_on(struct world *w, const char *path)
{
    for (uint32_t i = 0; i < engine_devs(w->e); i++) {
        struct dev_stats st;

        engine_dev_stats(w->e, i, &st);
        if (strcmp(st.path, path) == 0)
            return st.extents;
    }
    return 0;
}

/* ---- lives ---- */

static void start(struct world *w)
{
    struct engine_conf conf = {.workers = 1, .flush_delay_ms = 1, .drain_bytes_per_s = w->rate};
    const char *paths[] = {w->swap ? TO : FROM, w->swap ? FROM : TO};
    struct super_block *sb = mem_alloc(sizeof(*sb));

    w->e = engine_new(&conf);
    for (uint32_t i = 0; i < 2; i++) {
        int rc;

        if (w->from_gone && strcmp(paths[i], FROM) == 0)
            continue;
        CHECK(super_read(paths[i], sb) == 0);
        rc = engine_dev_add(w->e, paths[i], sb);
        ASSERTF(rc == 0, "start: %s", err_text(rc));
    }
    mem_free(sb);
}

static void stop(struct world *w)
{
    int rc = engine_check(w->e);

    ASSERTF(rc == 0, "check: %s", err_text(rc));
    engine_stop(w->e);
}

static void move_all(struct world *w, uint64_t n)
{
    int rc = engine_drain(w->e, FROM);

    if (rc == 0)
        rc = engine_drain_wait(w->e, FROM);
    ASSERTF(rc == 0, "drain: %s", err_text(rc));
    CHECK(extents_on(w, FROM) == 0 && extents_on(w, TO) == n);
}

static void move(struct world *w)
{
    move_all(w, 1);
}

static int first_life(void *arg)
{
    struct world *w = arg;
    struct chunk_format_conf fc = {.workers = 1, .force = true};
    struct open_info oi;

    CHECK(chunk_format(FROM, &fc) == 0 && chunk_format(TO, &fc) == 0);
    start(w);
    CHECK(engine_drain(w->e, TO) == 0 && engine_drain_wait(w->e, TO) == 0); /* it gets nothing */
    CHECK(engine_create(w->e, ID, 1, 7, 3) == 0);
    engine_drain_stop(w->e, TO);
    CHECK(engine_open(w->e, ID, EPOCH, 4, &oi) == 0);
    open_info_free(&oi);
    fill(w);
    CHECK(extents_on(w, FROM) == 1);
    w->armed = true;
    move(w);
    w->armed = false;
    verify(w);
    stop(w);
    return 0;
}

static int second_life(void *arg)
{
    struct world *w = arg;

    start(w);
    CHECK(engine_check(w->e) == 0); /* waits for what is deleted at start */
    CHECK(engine_flush(w->e) == 0);
    CHECK(extents_on(w, FROM) + extents_on(w, TO) == 1);
    verify(w);
    move(w);
    verify(w);
    stop(w);
    w->from_gone = true;
    start(w);
    verify(w);
    stop(w);
    return 0;
}

static bool count(void *arg, struct sim_proc *p, uint64_t n)
{
    struct world *w = arg;

    (void)p;
    (void)n;
    return w->armed && ++w->writes == w->cut_at;
}

static bool ended(void *arg)
{
    return !sim_proc_running(((struct world *)arg)->p);
}

/* Returns how many device writes the move took. */
static uint64_t run(uint64_t seed, uint64_t cut_at)
{
    struct world w = {
        .s = world_new(seed), .cut_at = cut_at, .epoch = EPOCH, .swap = cut_at % 2 != 0};

    w.p = sim_proc_new(w.s, HOST_A, "chunk");
    sim_disk_create(w.p, FROM, DISK_BYTES);
    sim_disk_create(w.p, TO, DISK_BYTES);
    sim_disk_set_hook(w.p, FROM, count, &w);
    sim_disk_set_hook(w.p, TO, count, &w);
    sim_proc_start(w.p, first_life, &w);
    assert_true(sim_run_until(w.s, ended, &w, SEC(1000)));
    assert_null(sim_proc_halted(w.p));
    w.armed = false;
    w.swap = cut_at % 4 >= 2;
    assert_int_equal(proc_run(w.s, w.p, second_life, &w), 0);
    sim_free(w.s);
    return w.writes;
}

static void test_every_write(void **state)
{
    uint64_t n = run(1, 0);

    (void)state;
    print_message("%" PRIu64 " writes\n", n);
    assert_true(n > 15);
    for (uint64_t i = 1; i <= n; i++) {
        for (uint64_t seed = 1; seed <= 10; seed++)
            (void)run(seed, i);
    }
}

/* ---- deleted on the way, and made again where the twin was ---- */

#define ORIGIN (ID + 1)

static int again_life(void *arg)
{
    struct world *w = arg;
    struct chunk_format_conf fc = {.workers = 1, .force = true};
    struct create_args child = {
        .id = ID, .epoch = EPOCH + 1, .volume_id = 7, .origin = ORIGIN, .origin_epoch = EPOCH};
    struct open_info oi;
    int rc;

    CHECK(chunk_format(FROM, &fc) == 0 && chunk_format(TO, &fc) == 0);
    start(w);
    CHECK(engine_drain(w->e, TO) == 0 && engine_drain_wait(w->e, TO) == 0);
    CHECK(engine_create(w->e, ID, 1, 7, 3) == 0);
    engine_drain_stop(w->e, TO);
    CHECK(engine_open(w->e, ID, EPOCH, 4, &oi) == 0);
    open_info_free(&oi);
    fill(w);
    CHECK(engine_drain(w->e, FROM) == 0);
    CHECK(engine_create(w->e, ORIGIN, EPOCH, 7, 4) == 0); /* on TO: the other one is drained */
    (void)co_sleep(100 * NSEC_PER_MSEC);
    CHECK(extents_on(w, FROM) == 1 && extents_on(w, TO) == 2); /* the move is under way */
    rc = engine_delete(w->e, 1, ID, EPOCH);
    ASSERTF(rc == 0, "delete: %s", err_text(rc));
    rc = engine_create_as(w->e, &child);
    ASSERTF(rc == 0, "child: %s", err_text(rc));
    CHECK(engine_open(w->e, ID, EPOCH + 1, 0, &oi) == 0);
    open_info_free(&oi);
    (void)co_sleep(w->linger);
    w->done = true;
    for (;;)
        (void)co_sleep(SEC(1000));
}

static int again_next_life(void *arg)
{
    struct world *w = arg;
    struct open_info oi;
    int rc;

    start(w);
    rc = engine_open(w->e, ID, EPOCH + 2, 0, &oi);
    ASSERTF(rc == 0, "open: %s", err_text(rc));
    CHECK(!oi.is_void);
    open_info_free(&oi);
    CHECK(engine_check(w->e) == 0);
    CHECK(extents_on(w, FROM) == 0 && extents_on(w, TO) == 2);
    stop(w);
    return 0;
}

static bool again_done(void *arg)
{
    struct world *w = arg;

    return w->done || !sim_proc_running(w->p);
}

/* A child that was confirmed is there, whenever the power goes. */
static void test_again(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 20; i++) {
        struct world w = {
            .s = world_new(i + 1), .rate = 1 << 20, .linger = (nsec_t)i * 40 * NSEC_PER_MSEC};

        w.p = sim_proc_new(w.s, HOST_A, "chunk");
        sim_disk_create(w.p, FROM, DISK_BYTES);
        sim_disk_create(w.p, TO, DISK_BYTES);
        sim_proc_start(w.p, again_life, &w);
        assert_true(sim_run_until(w.s, again_done, &w, SEC(1000)));
        assert_true(w.done);
        sim_proc_power_loss(w.p);
        assert_int_equal(proc_run(w.s, w.p, again_next_life, &w), 0);
        sim_free(w.s);
    }
}

/* ---- extents that share blocks ---- */

static uint64_t used_on(struct world *w, const char *path)
{
    for (uint32_t i = 0; i < engine_devs(w->e); i++) {
        struct dev_stats st;

        engine_dev_stats(w->e, i, &st);
        if (strcmp(st.path, path) == 0)
            return st.used_bytes;
    }
    return 0;
}

static void reads(struct world *w, uint64_t id, uint64_t epoch)
{
    struct read_result *res = mem_alloc(sizeof(*res));

    for (uint32_t off = 0; off < write_off(WRITES) + BLOCK_BYTES; off += PAGE_BYTES) {
        int rc = engine_read(w->e, id, epoch, off, PAGE_BYTES, res);

        ASSERTF(rc == 0, "read: %s", err_text(rc));
        CHECK((res->zero ? 0 : res->buf->data[res->buf_off]) == expected(off));
        buf_put(res->buf);
    }
    mem_free(res);
}

static int family_life(void *arg)
{
    struct world *w = arg;
    struct chunk_format_conf fc = {.workers = 1, .force = true};
    struct create_args child = {
        .id = ID + 1, .epoch = EPOCH + 1, .volume_id = 8, .origin = ID, .origin_epoch = EPOCH};
    struct open_info oi;
    uint64_t used;
    int rc;

    CHECK(chunk_format(FROM, &fc) == 0 && chunk_format(TO, &fc) == 0);
    start(w);
    CHECK(engine_drain(w->e, TO) == 0 && engine_drain_wait(w->e, TO) == 0);
    CHECK(engine_create(w->e, ID, 1, 7, 3) == 0 && engine_create(w->e, ID + 2, 1, 7, 4) == 0);
    engine_drain_stop(w->e, TO);
    CHECK(engine_open(w->e, ID, EPOCH, 4, &oi) == 0);
    open_info_free(&oi);
    fill(w);
    CHECK(engine_commit_point(w->e, ID, EPOCH, (struct version){EPOCH, 2 * WRITES}) == 0);
    used = used_on(w, FROM);
    rc = engine_create_as(w->e, &child);
    ASSERTF(rc == 0, "child: %s", err_text(rc));
    CHECK(engine_open(w->e, ID + 1, EPOCH + 1, 0, &oi) == 0);
    open_info_free(&oi);
    CHECK(used_on(w, FROM) < used + 8 * BLOCK_BYTES);
    /* They go on sharing there; the origin is still frozen. */
    move_all(w, 3);
    CHECK(used_on(w, FROM) == 0 && used_on(w, TO) < used + 8 * BLOCK_BYTES);
    reads(w, ID + 1, EPOCH + 1);
    CHECK(engine_open(w->e, ID, EPOCH + 2, 0, &oi) == 0);
    open_info_free(&oi);
    reads(w, ID, EPOCH + 2);
    stop(w);
    /* And over a restart, the other way round. */
    start(w);
    CHECK(extents_on(w, FROM) == 0 && extents_on(w, TO) == 3);
    CHECK(engine_open(w->e, ID + 1, EPOCH + 3, 0, &oi) == 0);
    open_info_free(&oi);
    reads(w, ID + 1, EPOCH + 3);
    stop(w);
    return 0;
}

static void test_family(void **state)
{
    struct world w = {.s = world_new(1), .epoch = EPOCH};

    (void)state;
    w.p = sim_proc_new(w.s, HOST_A, "chunk");
    sim_disk_create(w.p, FROM, DISK_BYTES);
    sim_disk_create(w.p, TO, DISK_BYTES);
    assert_int_equal(proc_run(w.s, w.p, family_life, &w), 0);
    sim_free(w.s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_write),
        cmocka_unit_test(test_again),
        cmocka_unit_test(test_family),
    };

    log_threshold = LOG_LV_ERROR;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
