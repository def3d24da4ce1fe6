/* SPDX-License-Identifier: Apache-2.0
 *
 * Reserved extents: whatever others do with the device, and whenever it restarts, a write to one is
 * never refused for want of space. The device has room for one of them and a few blocks more, which
 * a thin extent fills. */
#include "tests/unit/chunk/family.h"

#define THIN  (ID + 1)
#define BYTES (290 * MIB)
#define RING  (JOURNAL_PAGES_MIN * PAGE_BYTES)

static int create_reserved(struct rig *r, uint64_t id, uint64_t origin)
{
    struct create_args a = {.id = id,
                            .epoch = 1 + (origin != 0),
                            .volume_id = 1,
                            .origin = origin,
                            .origin_epoch = 1000000,
                            .reserve = true};

    return engine_create_as(r->e, &a);
}

/* One page of a block. */
static int touch(struct rig *r, uint64_t id, uint64_t epoch, uint64_t gen, uint32_t block)
{
    return put(r, (struct put){.id = id,
                               .v = V(epoch, gen),
                               .cp = V(epoch, gen - 1),
                               .off = block * BLOCK + (block % 64) * PAGE,
                               .len = PAGE,
                               .byte = (uint8_t)(1 + block % 200)});
}

static int discard(struct rig *r, uint64_t id, uint64_t epoch, uint64_t gen, uint32_t block)
{
    return put(
        r,
        (struct put){
            .id = id, .v = V(epoch, gen), .off = block * BLOCK, .len = BLOCK, .kind = W_DISCARD});
}

/* Takes all that is free and not promised; returns how many blocks that were. */
static uint32_t fill_up(struct rig *r, uint64_t epoch)
{
    uint64_t gen = 1;
    int rc = 0;

    for (; rc == 0; gen++)
        rc = touch(r, THIN, epoch, gen, (uint32_t)gen);
    ASSERTF(rc == ERR_NOSPACE, "write: %s", err_text(rc));
    return (uint32_t)gen - 2;
}

static bool is_reserved(struct rig *r, uint64_t id, uint64_t epoch)
{
    struct open_info oi;
    bool reserved;

    CHECK(engine_open(r->e, id, epoch, 0, &oi) == 0);
    reserved = oi.reserved;
    CHECK(!reserved || oi.credits > 0);
    open_info_free(&oi);
    return reserved;
}

static uint64_t reserved_blocks(struct rig *r)
{
    struct dev_stats s;

    engine_dev_stats(r->e, 0, &s);
    return s.reserved_bytes / BLOCK;
}

static uint64_t free_blocks(struct rig *r)
{
    struct dev_stats s;

    engine_dev_stats(r->e, 0, &s);
    return (s.size_bytes - s.used_bytes - s.reserved_bytes) / BLOCK;
}

/* ---- a full device ---- */

static void begin_body(struct rig *r)
{
    CHECK(create_reserved(r, ID, 0) == 0 && create(r, THIN, 1) == 0);
    CHECK(reserved_blocks(r) == BLOCKS_PER_EXTENT);
    CHECK(is_reserved(r, ID, 1) && !is_reserved(r, THIN, 1));
    for (uint32_t b = 0; b < 10; b++)
        CHECK(touch(r, ID, 1, 1 + b, b) == 0);
    CHECK(reserved_blocks(r) == BLOCKS_PER_EXTENT - 10);
    CHECK(fill_up(r, 1) > 0);
    CHECK(create(r, ID + 2, 1) == ERR_NOSPACE && create_reserved(r, ID + 2, 0) == ERR_NOSPACE);
}

static void whole_body(struct rig *r)
{
    uint32_t granted;
    uint64_t gen = 1;

    CHECK(reserved_blocks(r) == BLOCKS_PER_EXTENT - 10);
    CHECK(is_reserved(r, ID, 2) && open_at(r, THIN, 2) == 0);
    CHECK(engine_reserve(r->e, ID, 2, BLOCKS_PER_EXTENT, &granted) == 0 &&
          granted == BLOCKS_PER_EXTENT);
    CHECK(engine_reserve(r->e, THIN, 2, 1, &granted) == ERR_NOSPACE);
    CHECK(touch(r, THIN, 2, 1, 800) == ERR_NOSPACE);
    for (uint32_t b = 0; b < BLOCKS_PER_EXTENT; b++)
        CHECK(touch(r, ID, 2, gen++, b) == 0);
    CHECK(reserved_blocks(r) == 0);
    /* By copy, and by way of the journal. */
    for (uint32_t b = 0; b < 100; b++)
        CHECK(put(r,
                  (struct put){
                      .id = ID, .v = V(2, gen++), .off = b * BLOCK, .len = BLOCK, .byte = 9}) == 0);
    CHECK(put(r, (struct put){.id = ID, .v = V(2, gen++), .len = 16 * BLOCK, .byte = 7}) == 0);
    CHECK(look(r, ID, 2, 0, 4 * MIB) == 7 && look(r, ID, 2, 50 * BLOCK, BLOCK) == 9);
    /* What is discarded stays promised. */
    for (uint32_t b = 20; b < 60; b++)
        CHECK(discard(r, ID, 2, gen++, b) == 0);
    CHECK(reserved_blocks(r) == 40 && touch(r, THIN, 2, 1, 800) == ERR_NOSPACE);
}

static void again_body(struct rig *r)
{
    uint64_t gen = 1;

    CHECK(reserved_blocks(r) == 40);
    CHECK(open_at(r, ID, 3) == 0 && open_at(r, THIN, 3) == 0);
    CHECK(touch(r, THIN, 3, 1, 800) == ERR_NOSPACE);
    for (uint32_t b = 0; b < 100; b++)
        CHECK(touch(r, ID, 3, gen++, b) == 0);
    CHECK(look(r, ID, 3, 20 * BLOCK + 20 * PAGE, PAGE) == 21);
}

static void full_device(enum rig_end end, uint64_t seed)
{
    struct rig r = rig_new(seed, BYTES, RING);

    rig_life(&r, begin_body, end);
    rig_life(&r, whole_body, end);
    rig_life(&r, again_body, END_STOP);
    sim_free(r.s);
}

static void test_full_device(void **state)
{
    (void)state;
    full_device(END_STOP, 1);
    full_device(END_KILL, 2);
    full_device(END_POWER, 3);
}

/* ---- many writers, few blocks ---- */

struct writer {
    struct rig *r;
    uint32_t block, no;
};

static int writer_main(void *arg)
{
    struct writer *w = arg;

    return put(w->r, (struct put){.id = ID,
                                  .v = V(1, 2000 + w->no),
                                  .off = w->block * BLOCK + w->no % PAGES_PER_BLOCK * PAGE,
                                  .len = PAGE,
                                  .byte = 5});
}

#define GIVEN_BACK 40u
#define EACH       3u
#define SPARES_MAX 64u

/* Blocks that were given back, and can't be given out yet because of a reader; the device's reserve
 * is in use. Several writers wait for a place for the same block: all of them together for more
 * than there will be. */
static void same_blocks_body(struct rig *r)
{
    struct writer w[GIVEN_BACK * EACH];
    uint64_t gen = 1;
    struct co_group g;
    struct dev *d;
    struct pin pin;
    uint32_t spare[SPARES_MAX];

    CHECK(create_reserved(r, ID, 0) == 0 && create(r, THIN, 1) == 0);
    CHECK(open_at(r, ID, 1) == 0 && open_at(r, THIN, 1) == 0);
    fill_up(r, 1);
    d = ext_find(r->e, ID)->dev;
    for (uint32_t b = 0; b < BLOCKS_PER_EXTENT; b++)
        CHECK(touch(r, ID, 1, gen++, b) == 0);
    ASSERT(d->reserve_blocks <= SPARES_MAX);
    while (d->spares < d->reserve_blocks)
        CHECK(block_take_spare(ext_find(r->e, ID), 0, false, &spare[d->spares]));
    CHECK(d->free_blocks == 0);
    pin_begin(d, &pin);
    for (uint32_t b = 0; b < GIVEN_BACK; b++)
        CHECK(discard(r, ID, 1, gen++, b) == 0);
    co_group_init(&g);
    for (uint32_t i = 0; i < ARRAY_SIZE(w); i++) {
        w[i] = (struct writer){r, i % GIVEN_BACK, i};
        co_spawn(&g, "writer", writer_main, &w[i]);
    }
    (void)co_sleep(100 * NSEC_PER_MSEC);
    pin_end(d, &pin);
    CHECK(co_group_join(&g) == 0);
    CHECK(reserved_blocks(r) == 0 && d->free_blocks == 0);
    while (d->spares > 0)
        block_untake(d, spare[--d->spares]);
}

static void test_same_blocks(void **state)
{
    struct rig r = rig_new(4, BYTES, RING);

    (void)state;
    rig_life(&r, same_blocks_body, END_STOP);
    sim_free(r.s);
}

/* Of a thin extent such writers give back what they did not need. */
static void thin_writers_body(struct rig *r)
{
    struct writer w[PAGES_PER_BLOCK];
    struct open_info oi;
    struct co_group g;
    uint64_t before;

    CHECK(create(r, ID, 1) == 0 && engine_open(r->e, ID, 1, PAGES_PER_BLOCK, &oi) == 0);
    open_info_free(&oi);
    before = used_blocks(r);
    co_group_init(&g);
    for (uint32_t i = 0; i < PAGES_PER_BLOCK; i++) {
        w[i] = (struct writer){r, 3, i};
        co_spawn(&g, "writer", writer_main, &w[i]);
    }
    CHECK(co_group_join(&g) == 0 && used_blocks(r) == before + 1);
    CHECK(ext_find(r->e, ID)->credits == PAGES_PER_BLOCK - 1);
}

static void test_thin_writers(void **state)
{
    struct rig r = rig_new(5, 32 * MIB, RING);

    (void)state;
    rig_life(&r, thin_writers_body, END_STOP);
    sim_free(r.s);
}

/* ---- an extent that is there ---- */

static void change_body(struct rig *r)
{
    uint64_t before;
    uint32_t n;

    CHECK(create(r, ID, 1) == 0 && create(r, THIN, 1) == 0);
    CHECK(open_at(r, ID, 1) == 0 && open_at(r, THIN, 1) == 0);
    for (uint32_t b = 0; b < 10; b++)
        CHECK(touch(r, ID, 1, 1 + b, 7 * b) == 0);
    before = free_blocks(r);
    CHECK(engine_reserve_extent(r->e, ID, 1, true, 0) == 0);
    CHECK(engine_reserve_extent(r->e, ID, 1, true, 0) == 0);
    CHECK(reserved_blocks(r) == BLOCKS_PER_EXTENT - 10);
    CHECK(free_blocks(r) == before - reserved_blocks(r));
    CHECK(engine_reserve_extent(r->e, THIN, 1, true, 0) == ERR_NOSPACE);
    CHECK(reserved_blocks(r) == BLOCKS_PER_EXTENT - 10);
    n = fill_up(r, 1);
    CHECK(engine_reserve_extent(r->e, ID, 1, false, 3) == 0);
    CHECK(reserved_blocks(r) == 0 && ext_find(r->e, ID)->credits == 3);
    for (uint32_t b = 0; b < 20; b++)
        CHECK(touch(r, THIN, 1, n + 2 + b, n + 2 + b) == 0);
    CHECK(engine_reserve_extent(r->e, ID, 1, true, 0) == ERR_NOSPACE);
    for (uint32_t b = 0; b < 20; b++)
        CHECK(discard(r, THIN, 1, n + 50 + b, n + 2 + b) == 0);
    CHECK(engine_reserve_extent(r->e, ID, 1, true, 0) == 0);
    CHECK(engine_reserve_extent(r->e, ID, 2, true, 0) == ERR_NOT_OPEN);
    CHECK(engine_reserve_extent(r->e, 99, 1, true, 0) == ERR_NO_REPLICA);
}

static void changed_body(struct rig *r)
{
    CHECK(is_reserved(r, ID, 2) && reserved_blocks(r) == BLOCKS_PER_EXTENT - 10);
    CHECK(engine_reserve_extent(r->e, ID, 2, false, 0) == 0);
}

static void changed_again_body(struct rig *r)
{
    CHECK(!is_reserved(r, ID, 3) && reserved_blocks(r) == 0);
    CHECK(open_at(r, THIN, 3) == 0 && touch(r, THIN, 3, 1, 800) == 0);
}

static void test_change(void **state)
{
    struct rig r = rig_new(6, BYTES, RING);

    (void)state;
    rig_life(&r, change_body, END_POWER);
    rig_life(&r, changed_body, END_POWER);
    rig_life(&r, changed_again_body, END_STOP);
    sim_free(r.s);
}

/* ---- deletion gives all of it back ---- */

static void delete_body(struct rig *r)
{
    uint64_t before = free_blocks(r);

    for (uint64_t epoch = 1; epoch < 4; epoch++) {
        CHECK(create_reserved(r, ID + epoch, 0) == 0 && open_at(r, ID + epoch, 1) == 0);
        CHECK(create_reserved(r, ID, 0) == ERR_NOSPACE);
        CHECK(touch(r, ID + epoch, 1, 1, 5) == 0);
        CHECK(engine_delete(r->e, 1, ID + epoch, 1) == 0);
        CHECK(reserved_blocks(r) == 0 && free_blocks(r) == before);
    }
}

static void test_delete(void **state)
{
    struct rig r = rig_new(7, BYTES, RING);

    (void)state;
    rig_life(&r, delete_body, END_STOP);
    sim_free(r.s);
}

/* ---- children ---- */

#define OWN 10u /* blocks of the origin */

static void child_body(struct rig *r)
{
    CHECK(create_reserved(r, ID, 0) == 0 && open_at(r, ID, 1) == 0);
    for (uint32_t b = 0; b < OWN; b++)
        fill(r, ID, 1, 1 + b, b * BLOCK, BLOCK, 3);
    /* It takes what its origin need not have any more, and the blocks that both share besides. */
    CHECK(create_reserved(r, ID + 2, ID) == 0);
    CHECK(reserved_blocks(r) == BLOCKS_PER_EXTENT);
    CHECK(!is_reserved(r, ID, 2));
    CHECK(engine_reserve_extent(r->e, ID, 2, true, 0) == ERR_PERM);
    CHECK(create(r, THIN, 1) == 0 && open_at(r, THIN, 1) == 0);
    fill_up(r, 1);
}

static void child_write_body(struct rig *r)
{
    uint64_t gen = 1;

    CHECK(is_reserved(r, ID + 2, 3) && !is_reserved(r, ID, 3));
    CHECK(reserved_blocks(r) == BLOCKS_PER_EXTENT);
    for (uint32_t b = 0; b < BLOCKS_PER_EXTENT; b++)
        CHECK(touch(r, ID + 2, 3, gen++, b) == 0);
    CHECK(look(r, ID + 2, 3, BLOCK, PAGE) == 3 && look(r, ID + 2, 3, BLOCK + PAGE, PAGE) == 2);
    CHECK(look(r, ID, 3, 0, OWN * BLOCK) == 3);
}

static void test_child(void **state)
{
    struct rig r = rig_new(8, BYTES, RING);

    (void)state;
    rig_life(&r, child_body, END_KILL);
    rig_life(&r, child_write_body, END_STOP);
    sim_free(r.s);
}

/* Blocks that only the child is left with become its own: it needs no others for them then. */
static void orphans_body(struct rig *r)
{
    child_body(r);
    CHECK(engine_delete(r->e, 1, ID, 2) == 0);
    CHECK(open_at(r, ID + 2, 3) == 0);
    for (uint32_t b = 0; b < OWN; b++)
        CHECK(touch(r, ID + 2, 3, 1 + b, b) == 0);
    CHECK(reserved_blocks(r) == BLOCKS_PER_EXTENT - OWN);
    CHECK(touch(r, THIN, 1, 900, 900) == 0);
}

static void test_orphans(void **state)
{
    struct rig r = rig_new(9, BYTES, RING);

    (void)state;
    rig_life(&r, orphans_body, END_STOP);
    sim_free(r.s);
}

/* A child for which there is no room: its origin is as it was. */
static void no_child_body(struct rig *r)
{
    CHECK(create_reserved(r, ID, 0) == 0 && open_at(r, ID, 1) == 0);
    for (uint32_t b = 0; b < 200; b++)
        CHECK(touch(r, ID, 1, 1 + b, b) == 0);
    CHECK(engine_commit_point(r->e, ID, 1, V(1, 200)) == 0);
    CHECK(create_reserved(r, ID + 2, ID) == ERR_NOSPACE);
    CHECK(touch(r, ID, 1, 201, 200) == 0);
    CHECK(reserved_blocks(r) == BLOCKS_PER_EXTENT - 201);
    CHECK(child(r, ID + 2, 2, ID) != 0); /* its last write is not committed */
    CHECK(engine_commit_point(r->e, ID, 1, V(1, 201)) == 0);
    CHECK(child(r, ID + 2, 2, ID) == 0 && reserved_blocks(r) == 0);
}

static void test_no_child(void **state)
{
    struct rig r = rig_new(10, BYTES, RING);

    (void)state;
    rig_life(&r, no_child_body, END_STOP);
    sim_free(r.s);
}

/* ---- another device ---- */

#define OTHER "/dev/other"

static void other_add(struct rig *r, bool format)
{
    struct chunk_format_conf fc = {.journal_bytes = RING};
    struct super_block *sb = mem_alloc(sizeof(*sb));

    if (format)
        CHECK(chunk_format(OTHER, &fc) == 0);
    CHECK(super_read(OTHER, sb) == 0 && engine_dev_add(r->e, OTHER, sb) == 0);
    mem_free(sb);
}

static struct dev_stats stats_of(struct rig *r, const char *path)
{
    struct dev_stats s = {.path = NULL};

    for (uint32_t i = 0; i < engine_devs(r->e); i++) {
        engine_dev_stats(r->e, i, &s);
        if (strcmp(s.path, path) == 0)
            break;
    }
    return s;
}

static int drain(struct rig *r, const char *path)
{
    int rc = engine_drain(r->e, path);

    return rc == 0 ? engine_drain_wait(r->e, path) : rc;
}

static void move_body(struct rig *r)
{
    CHECK(create_reserved(r, ID, 0) == 0 && open_at(r, ID, 1) == 0);
    CHECK(touch(r, ID, 1, 1, 5) == 0);
    other_add(r, true);
    CHECK(drain(r, DISK) == 0);
    CHECK(stats_of(r, DISK).reserved_bytes == 0);
    CHECK(stats_of(r, OTHER).reserved_bytes == (uint64_t)(BLOCKS_PER_EXTENT - 1) * BLOCK);
    CHECK(touch(r, ID, 1, 2, 6) == 0);
    CHECK(is_reserved(r, ID, 1));
}

static void moved_body(struct rig *r)
{
    other_add(r, false);
    CHECK(is_reserved(r, ID, 2));
    CHECK(stats_of(r, OTHER).reserved_bytes == (uint64_t)(BLOCKS_PER_EXTENT - 2) * BLOCK);
}

static void test_move(void **state)
{
    struct rig r = rig_new(11, BYTES, RING);

    (void)state;
    sim_disk_create(r.p, OTHER, BYTES);
    rig_life(&r, move_body, END_POWER);
    rig_life(&r, moved_body, END_STOP);
    sim_free(r.s);
}

/* Where there is no room for all of it it does not go. */
static void no_move_body(struct rig *r)
{
    CHECK(create_reserved(r, ID, 0) == 0 && open_at(r, ID, 1) == 0);
    other_add(r, true);
    CHECK(drain(r, DISK) == ERR_NOSPACE);
    CHECK(is_reserved(r, ID, 1) && stats_of(r, OTHER).reserved_bytes == 0);
    CHECK(touch(r, ID, 1, 1, 5) == 0);
    CHECK(engine_reserve_extent(r->e, ID, 1, false, 0) == 0 && drain(r, DISK) == 0);
    CHECK(touch(r, ID, 1, 2, 6) == 0);
    CHECK(engine_reserve_extent(r->e, ID, 1, true, 0) == ERR_NOSPACE);
}

static void test_no_move(void **state)
{
    struct rig r = rig_new(12, BYTES, RING);

    (void)state;
    sim_disk_create(r.p, OTHER, 200 * MIB);
    rig_life(&r, no_move_body, END_STOP);
    sim_free(r.s);
}

static int drain_main(void *arg)
{
    return drain(arg, DISK);
}

/* Promised, or not any more, while it moves: what counts at the end arrives with it. */
static void move_change_body(struct rig *r)
{
    struct co_group g;

    CHECK(create(r, ID, 1) == 0 && open_at(r, ID, 1) == 0);
    for (uint32_t b = 0; b < 200; b++)
        CHECK(touch(r, ID, 1, 1 + b, b) == 0);
    CHECK(engine_reserve_extent(r->e, ID, 1, r->x[0] == 0, 0) == 0);
    other_add(r, true);
    co_group_init(&g);
    co_spawn(&g, "drain", drain_main, r);
    while (ext_find(r->e, ID)->move == NULL)
        (void)co_sleep(NSEC_PER_USEC);
    CHECK(engine_reserve_extent(r->e, ID, 1, r->x[0] != 0, 0) == 0);
    CHECK(co_group_join(&g) == 0);
    CHECK(is_reserved(r, ID, 1) == (r->x[0] != 0));
    CHECK(stats_of(r, DISK).reserved_bytes == 0);
    CHECK(stats_of(r, OTHER).reserved_bytes ==
          (r->x[0] != 0 ? (uint64_t)(BLOCKS_PER_EXTENT - 200) * BLOCK : 0));
}

static void move_changed_body(struct rig *r)
{
    other_add(r, false);
    CHECK(is_reserved(r, ID, 2) == (r->x[0] != 0));
}

static void test_move_change(void **state)
{
    (void)state;
    for (uint64_t to = 0; to < 2; to++) {
        struct rig r = rig_new(13 + to, BYTES, RING);

        r.x[0] = to;
        sim_disk_create(r.p, OTHER, BYTES);
        rig_life(&r, move_change_body, END_POWER);
        rig_life(&r, move_changed_body, END_STOP);
        sim_free(r.s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full_device),  cmocka_unit_test(test_same_blocks),
        cmocka_unit_test(test_thin_writers), cmocka_unit_test(test_change),
        cmocka_unit_test(test_delete),       cmocka_unit_test(test_child),
        cmocka_unit_test(test_orphans),      cmocka_unit_test(test_no_child),
        cmocka_unit_test(test_move),         cmocka_unit_test(test_no_move),
        cmocka_unit_test(test_move_change),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
