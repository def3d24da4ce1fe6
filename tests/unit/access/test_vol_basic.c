/* SPDX-License-Identifier: Apache-2.0
 *
 * The volume engine with real meta and chunk servers in the simulator: one client at a time. */
#include "tests/unit/access/vol_world.h"

#define VOLUME (1 * GIB)

/* ---- reading and writing ---- */

static int script_rw(struct vworld *w)
{
    static const struct {
        uint64_t off, len;
    } pieces[] = {
        {0, 4096},
        {8192, 512},
        {3 * 4096 + 512, 1024},
        {MIB - 4096, 8192},          /* over a stripe boundary */
        {5 * MIB + 512, 300 * 1024}, /* unaligned, two stripes */
        {32 * MIB, 2 * MIB},
        {VOLUME - 4096, 4096},
    };

    wait_ready(w);
    CHECK(volume_make(w, 3, VOLUME) == 0);
    CHECK(do_read(w, 1, 0, 64 * 1024) == 0); /* a hole */
    for (uint32_t i = 0; i < ARRAY_SIZE(pieces); i++)
        CHECK(do_write(w, 0, pieces[i].off, pieces[i].len, i + 1) == 0);
    for (uint32_t n = 0; n < HOSTS; n++)
        for (uint32_t i = 0; i < ARRAY_SIZE(pieces); i++)
            CHECK(do_read(w, n, pieces[i].off, pieces[i].len) == i + 1);
    CHECK(do_read(w, 2, 8192 + 512, 512) == 0);
    /* from another server: forwarded */
    CHECK(do_write(w, 2, 0, 4096, 77) == 0);
    CHECK(do_read(w, 0, 0, 4096) == 77);
    CHECK(do_write(w, 0, VOLUME, 512, 1) == ERR_TOO_LARGE);
    CHECK(do_write(w, 0, 100, 512, 1) == ERR_INVAL);
    CHECK(do_verify(w, 4) > 0);
    return 0;
}

static void test_rw(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 3; seed++)
        world_script(script_rw, seed, 2 * GIB);
}

static int script_zero(struct vworld *w)
{
    struct job z = {.fn = job_zero, .off = 4096, .len = 8 * MIB};
    struct job d = {.fn = job_zero, .off = 0, .len = VOLUME, .value = 1};

    wait_ready(w);
    CHECK(volume_make(w, 3, VOLUME) == 0);
    CHECK(do_write(w, 0, 0, MIB, 5) == 0);
    CHECK(do_write(w, 0, 8 * MIB, MIB, 6) == 0);
    CHECK(job_do(w, 1, &z) == 0);
    CHECK(do_read(w, 0, 0, 4096) == 5);
    CHECK(do_read(w, 0, 4096, MIB) == 0);
    CHECK(do_read(w, 2, 8 * MIB, 4096) == 0);
    CHECK(do_read(w, 2, 8 * MIB + 4096, 4096) == 6);
    CHECK(job_do(w, 0, &d) == 0);
    CHECK(do_read(w, 2, 0, MIB) == 0);
    CHECK(do_read(w, 2, 8 * MIB, MIB) == 0);
    CHECK(do_write(w, 0, 8 * MIB, MIB, 7) == 0);
    CHECK(do_read(w, 2, 8 * MIB, MIB) == 7);
    CHECK(do_verify(w, 4) > 0);
    return 0;
}

static void test_zero(void **state)
{
    (void)state;
    world_script(script_zero, 1, 2 * GIB);
}

/* ---- holes ---- */

/* Is there a hole at off, and how long is it (or what is none)? got: length, value: hole. */
static int job_hole(struct job *j, struct vol_engine *e)
{
    bool hole = false;
    struct vol *v;
    int rc = vol_open(e, j->w->volume, &v);

    if (rc < 0)
        return rc;
    rc = vol_hole(v, j->off, j->len, &hole, &j->got);
    j->value = hole;
    vol_close(v);
    return rc;
}

static bool hole_is(struct vworld *w, uint32_t node, uint64_t off, uint64_t len, bool hole,
                    uint64_t until)
{
    struct job j = {.fn = job_hole, .off = off, .len = len};

    CHECK(job_do(w, node, &j) == 0);
    return j.value == hole && off + j.got == until;
}

/* Stripe groups are 512 MiB here: two extents, dealt in pieces of 256 KiB. */
static int script_hole(struct vworld *w)
{
    const uint64_t group = 512 * MIB;
    struct job beyond = {.fn = job_hole, .off = VOLUME - 512, .len = 1024};

    wait_ready(w);
    CHECK(volume_make(w, 3, VOLUME) == 0);
    CHECK(hole_is(w, 0, 0, VOLUME, true, VOLUME));
    CHECK(hole_is(w, 0, 512, 1024, true, 1536));
    CHECK(do_write(w, 0, group + MIB, 4096, 1) == 0);
    CHECK(hole_is(w, 0, 0, VOLUME, true, group));
    CHECK(hole_is(w, 0, group, VOLUME - group, false, VOLUME));
    CHECK(hole_is(w, 0, group, 512, false, group + 512));
    /* what another access server owns is none */
    CHECK(hole_is(w, 1, 0, VOLUME, false, VOLUME));
    CHECK(job_do(w, 0, &beyond) == ERR_TOO_LARGE);
    return 0;
}

static void test_hole(void **state)
{
    (void)state;
    world_script(script_hole, 1, 2 * GIB);
}

/* ---- compare and write ---- */

/* Increments a counter in one sector; value: how many times. */
static int job_count(struct job *j, struct vol_engine *e)
{
    struct buf *old = buf_alloc(SECTOR_BYTES), *fresh = buf_alloc(SECTOR_BYTES);
    struct vol *v;
    int rc = vol_open(e, j->w->volume, &v);

    if (rc < 0)
        return rc;
    while (j->got < j->value && rc == 0) {
        uint32_t at = 0;
        uint64_t n;

        rc = vol_read(v, j->off, SECTOR_BYTES, old, 0);
        memcpy(&n, old->data, sizeof(n));
        n++;
        memcpy(fresh->data, old->data, SECTOR_BYTES);
        memcpy(fresh->data, &n, sizeof(n));
        if (rc == 0)
            rc = vol_compare_and_write(v, j->off, SECTOR_BYTES, old, 0, fresh, 0, &at);
        j->got += rc == 0;
        if (rc == ERR_MISCOMPARE) {
            ASSERT(at < SECTOR_BYTES);
            rc = 0;
        }
    }
    vol_close(v);
    buf_put(old);
    buf_put(fresh);
    return rc;
}

static int job_peek(struct job *j, struct vol_engine *e)
{
    struct buf *b = buf_alloc(SECTOR_BYTES);
    struct vol *v;
    int rc = vol_open(e, j->w->volume, &v);

    if (rc == 0) {
        rc = vol_read(v, j->off, SECTOR_BYTES, b, 0);
        memcpy(&j->got, b->data, 8);
        vol_close(v);
    }
    buf_put(b);
    return rc;
}

static int script_count(struct vworld *w)
{
    struct job jobs[9], peek = {.fn = job_peek, .off = 1536};

    wait_ready(w);
    CHECK(volume_make(w, 3, VOLUME) == 0);
    for (uint32_t i = 0; i < ARRAY_SIZE(jobs); i++) {
        jobs[i] = (struct job){.fn = job_count, .off = 1536, .value = 20};
        job_post(w, i % HOSTS, &jobs[i]);
    }
    for (uint32_t i = 0; i < ARRAY_SIZE(jobs); i++) {
        int rc = job_wait(w, i % HOSTS, &jobs[i], 1);

        ASSERTF(rc == 0, "counting at %u: %s %s", i % HOSTS, err_name(rc), err_text(rc));
    }
    CHECK(job_do(w, 1, &peek) == 0);
    CHECK(peek.got == 20 * ARRAY_SIZE(jobs));
    return 0;
}

static void test_compare_and_write(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 3; seed++)
        world_script(script_count, seed, 2 * GIB);
}

/* ---- space ---- */

static int script_full(struct vworld *w)
{
    uint64_t written = 0;
    int rc = 0;
    struct job d = {.fn = job_zero, .off = 0, .len = 64 * MIB, .value = 1};

    wait_ready(w);
    CHECK(volume_make(w, 3, VOLUME) == 0);
    while (rc == 0 && written < VOLUME) {
        rc = do_write(w, 0, written, MIB, written / MIB + 1);
        written += rc == 0 ? MIB : 0;
    }
    CHECK(rc == ERR_NOSPACE);
    CHECK(written > 32 * MIB);
    /* What was acknowledged is there, and so is nothing of what was refused. */
    for (uint64_t off = 0; off < written; off += 7 * MIB)
        CHECK(do_read(w, 1, off, MIB) == off / MIB + 1);
    CHECK(degraded(w) == 0);
    /* Overwriting needs no space, deleting makes some. */
    CHECK(do_write(w, 0, 3 * MIB, MIB, 4) == 0);
    CHECK(job_do(w, 0, &d) == 0);
    for (uint32_t i = 0;; i++) {
        rc = do_write(w, 0, written, MIB, 1);
        if (rc == 0)
            break;
        CHECK(rc == ERR_NOSPACE && i < 100);
        (void)co_sleep(MSEC(100));
    }
    CHECK(do_verify(w, 4) > 0);
    return 0;
}

static void test_full(void **state)
{
    (void)state;
    world_script(script_full, 1, 160 * MIB);
}

/* ---- one replica ---- */

static int script_single(struct vworld *w)
{
    uint32_t holder = HOSTS;

    wait_ready(w);
    CHECK(volume_make(w, 1, VOLUME) == 0);
    CHECK(do_write(w, 0, 0, 4096, 1) == 0);
    CHECK(do_write(w, 0, MIB, 4096, 2) == 0);
    for (uint32_t i = 0; i < HOSTS; i++)
        crash(w, i, CHUNK);
    (void)holder;
    /* The last member is never removed: I/O waits for it. */
    struct job j = {.fn = job_write, .off = 0, .len = 4096, .value = 3};
    job_post(w, 0, &j);
    (void)co_sleep(SEC(4));
    CHECK(!j.done);
    for (uint32_t i = 0; i < HOSTS; i++)
        start(w, i, CHUNK);
    CHECK(job_wait(w, 0, &j, 1) == 0);
    CHECK(do_read(w, 1, 0, 4096) == 3);
    CHECK(do_read(w, 1, MIB, 4096) == 2);
    return 0;
}

static void test_single(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 3; seed++)
        world_script(script_single, seed, 2 * GIB);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rw),   cmocka_unit_test(test_zero),
        cmocka_unit_test(test_hole), cmocka_unit_test(test_compare_and_write),
        cmocka_unit_test(test_full), cmocka_unit_test(test_single),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
