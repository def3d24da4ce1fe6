/* SPDX-License-Identifier: Apache-2.0
 *
 * Extents that have children: what of them is in the journal, repairs, thawing, reading without an
 * open. */
#include "tests/unit/chunk/family.h"

/* ---- repairs of an origin ---- */

static void mend(struct rig *r, uint64_t epoch, uint64_t gen, uint32_t off, uint32_t len,
                 uint8_t byte)
{
    CHECK(put(r, (struct put){.id = ID,
                              .v = V(epoch, gen),
                              .off = off,
                              .len = len,
                              .byte = byte,
                              .repair = true}) == 0);
    CHECK(engine_commit_point(r->e, ID, epoch, V(epoch, gen)) == 0);
}

/* Where a repair is written is the origin's alone: with another content the children show it. */
static void repair_body(struct rig *r)
{
    uint64_t before;

    origin_make(r);
    CHECK(child(r, 2, 2, ID) == 0);
    CHECK(open_at(r, 2, 2) == 0);
    CHECK(open_at(r, ID, 3) == 0);
    before = used_blocks(r);
    mend(r, 3, 1, 3 * PAGE, PAGE, 0x31);
    mend(r, 3, 2, BLOCK, BLOCK, 0x32);
    CHECK(used_blocks(r) == before + 2);
    origin_expect(r, 2, 2);
    CHECK(look(r, ID, 3, 3 * PAGE, PAGE) == 0x31 && look(r, ID, 3, 4 * PAGE, PAGE) == 0x11);
    CHECK(look(r, ID, 3, BLOCK, BLOCK) == 0x32);
    /* It is frozen still. A second child has what it is now, and is not written to either. */
    CHECK(put(r, (struct put){.id = ID, .v = V(3, 3), .len = PAGE, .byte = 1}) == ERR_PERM);
    CHECK(child(r, 3, 4, ID) == 0);
    mend(r, 3, 4, 3 * PAGE, 2 * PAGE, 0x34);
    CHECK(engine_check(r->e) == 0);
}

static void repair_again(struct rig *r)
{
    CHECK(open_at(r, ID, 6) == 0 && open_at(r, 2, 6) == 0 && open_at(r, 3, 6) == 0);
    origin_expect(r, 2, 6);
    CHECK(look(r, ID, 6, 3 * PAGE, 2 * PAGE) == 0x34 && look(r, ID, 6, BLOCK, BLOCK) == 0x32);
    CHECK(look(r, 3, 6, 3 * PAGE, PAGE) == 0x31 && look(r, 3, 6, 4 * PAGE, PAGE) == 0x11);
    CHECK(look(r, 3, 6, BLOCK, BLOCK) == 0x32);
    CHECK(engine_check(r->e) == 0);
}

static void test_repair(void **state)
{
    struct rig r = rig_new(9, 64 << 20, 0);

    (void)state;
    rig_life(&r, repair_body, END_POWER);
    rig_life(&r, repair_again, END_KILL);
    rig_life(&r, repair_again, END_STOP);
    sim_free(r.s);
}

/* ---- what is in the journal when a child is made ---- */

#define LENT 40u /* pages, in the first blocks */

static void lent_expect(struct rig *r, uint64_t id, uint64_t epoch)
{
    for (uint32_t i = 0; i < LENT; i++)
        CHECK(look(r, id, epoch, 2 * i * PAGE, PAGE) == 0x40 + (int)i);
}

/* It stays there: the child costs a map page, its record and the heads of commits. */
static void lent_body(struct rig *r)
{
    uint64_t before;

    CHECK(create(r, ID, 1) == 0 && open_at(r, ID, 1) == 0);
    for (uint32_t i = 0; i < LENT; i++)
        fill(r, ID, 1, i + 1, 2 * i * PAGE, PAGE, (uint8_t)(0x40 + i));
    before = written(r);
    CHECK(child(r, 2, 2, ID) == 0);
    CHECK(written(r) - before <= (uint64_t)4 * PAGE);
    CHECK(child(r, 3, 3, 2) == 0); /* a child's child has it from the first */
    CHECK(open_at(r, 2, 4) == 0 && open_at(r, 3, 4) == 0);
    lent_expect(r, 2, 4);
    lent_expect(r, 3, 4);
    diff_expect(r, 3, ID, 0, 16, NULL, 0, false);
    CHECK(engine_check(r->e) == 0);
}

/* Found again in the ring; written to; home, when the origin goes. */
static void lent_again(struct rig *r)
{
    CHECK(open_at(r, ID, 5) == 0 && open_at(r, 3, 5) == 0);
    lent_expect(r, ID, 5);
    lent_expect(r, 3, 5);
    fill(r, 3, 5, 1, 0, PAGE, 0x21);
    CHECK(look(r, ID, 5, 0, PAGE) == 0x40);
    mend(r, 5, 1, 2 * PAGE, PAGE, 0x31);
    CHECK(look(r, ID, 5, 2 * PAGE, PAGE) == 0x31 && look(r, 3, 5, 2 * PAGE, PAGE) == 0x41);
    CHECK(engine_delete(r->e, 1, ID, 100) == 0);
    CHECK(open_at(r, 2, 5) == 0);
    lent_expect(r, 2, 5);
}

static void lent_last(struct rig *r)
{
    CHECK(open_at(r, 2, 6) == 0 && open_at(r, 3, 6) == 0);
    CHECK(look(r, 3, 6, 0, PAGE) == 0x21 && look(r, 3, 6, 2 * PAGE, PAGE) == 0x41);
    CHECK(engine_delete(r->e, 1, 3, 100) == 0);
    CHECK(engine_flush(r->e) == 0);
    lent_expect(r, 2, 6);
    CHECK(engine_check(r->e) == 0);
}

static void test_lent(void **state)
{
    struct rig r = rig_new(12, 64 << 20, 0);

    (void)state;
    rig_life(&r, lent_body, END_POWER);
    rig_life(&r, lent_again, END_POWER);
    rig_life(&r, lent_last, END_STOP);
    sim_free(r.s);
}

/* All that is left to bring home is on its way already, for a deletion, while the ring is so full
 * that the flusher does not rest. */
static int delete_main(void *arg)
{
    return engine_delete(((struct rig *)arg)->e, 1, ID, 100);
}

static void pressed_body(struct rig *r)
{
    const struct dev *d = LIST_FIRST(&r->e->devs, struct dev, link);
    uint64_t near = d->pace.start - 16 * (uint64_t)PAGE;
    struct co_group g;
    uint32_t n = 0;

    CHECK(create(r, ID, 1) == 0 && open_at(r, ID, 1) == 0);
    for (; pace_level(d) < near; n++)
        fill(r, ID, 1, n + 1, 2 * n * PAGE, PAGE, 0x51);
    CHECK(child(r, 2, 2, ID) == 0 && open_at(r, 2, 2) == 0);
    co_group_init(&g);
    co_spawn(&g, "delete", delete_main, r);
    for (uint64_t gen = 1; !pace_pressed(d); gen++)
        fill(r, 2, 2, gen, PAGE, PAGE, 0x52);
    CHECK(co_group_join(&g) == 0);
    CHECK(look(r, 2, 2, PAGE, PAGE) == 0x52 && look(r, 2, 2, 2 * (n - 1) * PAGE, PAGE) == 0x51);
}

static void test_pressed(void **state)
{
    struct rig r = rig_new(14, 64 << 20, 0);

    (void)state;
    rig_life(&r, pressed_body, END_STOP);
    sim_free(r.s);
}

/* ---- an origin that nobody shares any more ---- */

static void thaw(struct rig *r, uint64_t epoch)
{
    const struct open_args a = {.id = ID, .epoch = epoch, .thaw = true};
    struct open_info oi;

    CHECK(engine_open_as(r->e, &a, &oi) == 0 && !oi.frozen);
    /* What its children may have, too, needs a new block. */
    CHECK(oi.allocated[0] == 3 && oi.shared[0] == 3);
    open_info_free(&oi);
}

static void thaw_body(struct rig *r)
{
    origin_make(r);
    CHECK(child(r, 2, 2, ID) == 0);
    CHECK(open_at(r, 2, 2) == 0);
    thaw(r, 3);
    fill(r, ID, 3, 1, 3 * PAGE, PAGE, 0x31);
    fill(r, ID, 3, 2, BLOCK, BLOCK, 0x32);
    origin_expect(r, 2, 2);
    CHECK(look(r, ID, 3, 3 * PAGE, PAGE) == 0x31 && look(r, ID, 3, 4 * PAGE, PAGE) == 0x11);
    CHECK(look(r, ID, 3, BLOCK, BLOCK) == 0x32);
    CHECK(engine_check(r->e) == 0);
}

static void thaw_again(struct rig *r)
{
    uint64_t before;

    CHECK(open_at(r, ID, 4) == 0 && open_at(r, 2, 4) == 0);
    origin_expect(r, 2, 4);
    CHECK(look(r, ID, 4, 3 * PAGE, PAGE) == 0x31 && look(r, ID, 4, BLOCK, BLOCK) == 0x32);
    fill(r, ID, 4, 1, 0, PAGE, 0x41);
    CHECK(child(r, 3, 5, ID) == 0); /* frozen again */
    CHECK(put(r, (struct put){.id = ID, .v = V(4, 2), .len = PAGE, .byte = 1}) == ERR_PERM);
    before = used_blocks(r);
    CHECK(engine_delete(r->e, 1, 2, 100) == 0);
    CHECK(used_blocks(r) < before - META_BLOCKS);
    CHECK(engine_delete(r->e, 1, ID, 100) == 0);
    CHECK(open_at(r, 3, 6) == 0);
    CHECK(look(r, 3, 6, 0, PAGE) == 0x41 && look(r, 3, 6, PAGE, PAGE) == 0x11);
    CHECK(look(r, 3, 6, BLOCK, BLOCK) == 0x32);
    CHECK(engine_check(r->e) == 0);
    CHECK(engine_delete(r->e, 1, 3, 100) == 0);
    assert_int_equal(used_blocks(r), 0);
}

static void test_thaw(void **state)
{
    struct rig r = rig_new(10, 64 << 20, 0);

    (void)state;
    rig_life(&r, thaw_body, END_POWER);
    rig_life(&r, thaw_again, END_STOP);
    sim_free(r.s);
}

/* ---- reading what volumes share ---- */

static int peek(struct rig *r, uint64_t view_epoch)
{
    struct read_result res;
    const struct read_args a = {.id = ID, .view_epoch = view_epoch, .off = 3 * PAGE, .len = PAGE};
    int rc = engine_read_as(r->e, &a, &res);

    if (rc == 0)
        CHECK(!res.zero && res.buf->data[res.buf_off] == 0x12);
    buf_put(res.buf);
    return rc;
}

static void shared_body(struct rig *r)
{
    uint32_t crc;

    CHECK(peek(r, 0) == ERR_NO_REPLICA);
    origin_make(r);
    CHECK(peek(r, 0) == 0 && peek(r, 1) == 0);
    CHECK(put(r, (struct put){.id = ID, .v = V(1, 9), .len = PAGE, .byte = 1}) == 0);
    CHECK(peek(r, 0) == ERR_AGAIN);
    CHECK(engine_digest(r->e, ID, 0, 0, 1, true, &crc) == ERR_AGAIN);
    CHECK(engine_commit_point(r->e, ID, 1, V(1, 9)) == 0);
    CHECK(peek(r, 1) == 0);
    CHECK(engine_digest(r->e, ID, 0, 0, 1, true, &crc) == 0);
}

/* After a restart it may lack what the journal lost, and look as clean as before: it is neither
 * read nor copied until an owner has vouched for it. Under a higher epoch others may be its
 * members. */
static void shared_again(struct rig *r)
{
    struct open_info oi;
    uint32_t crc;

    CHECK(peek(r, 1) == ERR_AGAIN && child(r, 2, 9, ID) == ERR_AGAIN);
    CHECK(engine_digest(r->e, ID, 0, 0, 1, true, &crc) == ERR_AGAIN);
    CHECK(engine_digest(r->e, ID, 1, 0, 1, true, &crc) == ERR_NOT_OPEN);
    CHECK(engine_vouch(r->e, ID, 1) == ERR_NOT_OPEN);
    CHECK(engine_open(r->e, ID, 5, 0, &oi) == 0 && !oi.vouched);
    open_info_free(&oi);
    CHECK(engine_digest(r->e, ID, 5, 0, 1, true, &crc) == 0);
    CHECK(peek(r, 5) == ERR_AGAIN && child(r, 2, 9, ID) == ERR_AGAIN);
    CHECK(engine_vouch(r->e, ID, 4) == ERR_STALE && engine_vouch(r->e, ID, 5) == 0);
    CHECK(peek(r, 4) == ERR_STALE && peek(r, 5) == 0 && peek(r, 0) == 0);
    CHECK(engine_open(r->e, ID, 6, 0, &oi) == 0 && oi.vouched);
    open_info_free(&oi);
    CHECK(peek(r, 6) == 0 && child(r, 2, 9, ID) == 0);
}

static void test_shared(void **state)
{
    struct rig r = rig_new(11, 64 << 20, 0);

    (void)state;
    rig_life(&r, shared_body, END_POWER);
    rig_life(&r, shared_again, END_STOP);
    sim_free(r.s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_repair),  cmocka_unit_test(test_lent),
        cmocka_unit_test(test_pressed), cmocka_unit_test(test_thaw),
        cmocka_unit_test(test_shared),
    };

    log_threshold = LOG_LV_ERROR;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
