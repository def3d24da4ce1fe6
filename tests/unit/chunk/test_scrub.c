/* SPDX-License-Identifier: Apache-2.0
 *
 * The scrubber: finds what went bad, keeps to its rate, makes nobody wait. */
#include "tests/unit/chunk/engine_fixture.h"

#define BLOCKS 16u

static void fill(struct rig *r, uint64_t id)
{
    CHECK(create(r, id, 1) == 0 && open_at(r, id, 1) == 0);
    for (uint32_t b = 0; b < BLOCKS; b++)
        CHECK(put(r, (struct put){id, V(1, b + 1), V(0, 0), .off = b * BLOCK_BYTES,
                                  .len = BLOCK_BYTES, .byte = (uint8_t)(b + 1)}) == 0);
    CHECK(engine_flush(r->e) == 0);
}

static struct scrub_status scrub_wait(struct rig *r)
{
    struct scrub_status st;

    do {
        CHECK(co_sleep(MSEC(10)) == 0);
        engine_scrub_status(r->e, &st);
    } while (st.running);
    return st;
}

static void body_fill(struct rig *r)
{
    fill(r, ID);
}

/* The first page on the device that is full of this byte. */
static uint64_t find_page(struct rig *r, uint8_t byte)
{
    uint8_t page[PAGE_BYTES], want[PAGE_BYTES];

    memset(want, byte, sizeof(want));
    for (uint64_t off = REGIONS_OFF; off < r->disk_bytes; off += PAGE_BYTES) {
        sim_disk_peek(r->p, DISK, page, PAGE_BYTES, off);
        if (memcmp(page, want, PAGE_BYTES) == 0)
            return off;
    }
    ASSERTF(false, "no page of byte %u", byte);
    return 0;
}

static void body_scrub(struct rig *r)
{
    struct corrupt_page bad[4];
    struct scrub_status st;

    CHECK(open_at(r, ID, 2) == 0);
    engine_scrub_start(r->e, GIB);
    st = scrub_wait(r);
    CHECK(st.rounds == 1 && st.extents == 1 && st.bytes == BLOCKS * BLOCK_BYTES);
    CHECK(st.corrupt == 1 && st.errors == 1);
    CHECK(engine_corrupt(r->e, bad, 4) == 1);
    CHECK(bad[0].id == ID && bad[0].page == 2 * PAGES_PER_BLOCK);
    CHECK(look(r, ID, 2, 2 * BLOCK_BYTES, PAGE_BYTES) == -1);
    CHECK(engine_corrupt(r->e, bad, 4) == 1); /* known once */
    /* Its owner writes it anew: then it is good. */
    CHECK(put(r, (struct put){ID, V(2, 1), V(1, BLOCKS), .off = 2 * BLOCK_BYTES, .len = PAGE_BYTES,
                              .byte = 3}) == 0);
    CHECK(engine_corrupt(r->e, bad, 4) == 0);
    CHECK(engine_flush(r->e) == 0);
    engine_scrub_start(r->e, GIB);
    st = scrub_wait(r);
    CHECK(st.rounds == 2 && st.corrupt == 0 && st.errors == 0);
}

static void test_finds(void **state)
{
    struct rig r = rig_new(1, 64 * MIB, 2 * MIB);
    uint8_t byte;
    uint64_t off;

    (void)state;
    rig_life(&r, body_fill, END_STOP);
    off = find_page(&r, 3) + 77;
    sim_disk_peek(r.p, DISK, &byte, 1, off);
    byte ^= 4;
    sim_disk_poke(r.p, DISK, &byte, 1, off);
    rig_life(&r, body_scrub, END_STOP);
    sim_free(r.s);
}

static void body_rate(struct rig *r)
{
    struct scrub_status st;
    nsec_t start;

    fill(r, ID);
    fill(r, ID + 1);
    start = co_now();
    engine_scrub_start(r->e, MIB); /* 8 MiB altogether */
    CHECK(co_sleep(SEC(2)) == 0);
    engine_scrub_status(r->e, &st);
    CHECK(st.running && st.bytes >= 2 * MIB && st.bytes <= 3 * MIB);
    /* A deletion does not wait for it; what is gone is passed over. */
    CHECK(engine_delete(r->e, 1, ID + 1, 1) == 0);
    CHECK(co_now() - start < MSEC(2100));
    engine_scrub_start(r->e, 4 * MIB); /* faster from now on */
    st = scrub_wait(r);
    CHECK(st.bytes == BLOCKS * BLOCK_BYTES && st.rounds == 1 && st.extents == 2);
    CHECK(co_now() - start < MSEC(2800));
    /* One that is stopped is no round. */
    engine_scrub_start(r->e, MIB);
    engine_scrub_stop(r->e);
    st = scrub_wait(r);
    CHECK(st.rounds == 1);
    engine_scrub_start(r->e, MIB); /* ends with the engine */
}

static void test_rate(void **state)
{
    struct rig r = rig_new(1, 64 * MIB, 2 * MIB);

    (void)state;
    rig_life(&r, body_rate, END_STOP);
    sim_free(r.s);
}

/* A sequential writer stopped in the middle of a block, which has two places: joined, also after a
 * start, and what was written later is what counts. */
static uint64_t blocks_used(struct rig *r)
{
    struct dev_stats st;

    engine_dev_stats(r->e, 0, &st);
    return st.used_bytes / BLOCK_BYTES;
}

static void body_stop(struct rig *r)
{
    const uint32_t step = 32 * PAGE_BYTES;
    uint64_t used;

    fill(r, ID);
    used = blocks_used(r);
    for (uint32_t i = 0; i < 2 * BLOCKS - 1; i++)
        CHECK(put(r, (struct put){ID, V(1, BLOCKS + i + 1), V(0, 0), .off = i * step, .len = step,
                                  .byte = 100}) == 0);
    CHECK(put(r, (struct put){ID, V(1, 100), V(0, 0), .off = BLOCKS * BLOCK_BYTES - PAGE_BYTES,
                              .len = PAGE_BYTES, .byte = 101}) == 0);
    CHECK(engine_flush(r->e) == 0);
    CHECK(blocks_used(r) == used + 1);
    r->x[0] = used;
}

static void body_join(struct rig *r)
{
    CHECK(open_at(r, ID, 2) == 0 && blocks_used(r) == r->x[0] + 1);
    engine_scrub_start(r->e, GIB);
    (void)scrub_wait(r);
    CHECK(blocks_used(r) == r->x[0]);
    CHECK(look(r, ID, 2, 0, BLOCKS * BLOCK_BYTES - BLOCK_BYTES / 2) == 100);
    CHECK(look(r, ID, 2, BLOCKS * BLOCK_BYTES - BLOCK_BYTES / 2, BLOCK_BYTES / 2 - PAGE_BYTES) ==
          BLOCKS);
    CHECK(look(r, ID, 2, BLOCKS * BLOCK_BYTES - PAGE_BYTES, PAGE_BYTES) == 101);
}

static void test_joins(void **state)
{
    struct rig r = rig_new(2, 64 * MIB, 2 * MIB);

    (void)state;
    rig_life(&r, body_stop, END_POWER);
    rig_life(&r, body_join, END_STOP);
    sim_free(r.s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_finds),
        cmocka_unit_test(test_rate),
        cmocka_unit_test(test_joins),
    };

    log_threshold = LOG_LV_ERROR + 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
