/* SPDX-License-Identifier: Apache-2.0
 *
 * Children: extents that share blocks. */
#include "tests/unit/chunk/family.h"

/* ---- what a child is ---- */

static void child_body(struct rig *r)
{
    struct open_info oi;
    uint64_t before;

    origin_make(r);
    before = used_blocks(r);
    CHECK(child(r, 2, 2, ID) == 0);
    CHECK(child(r, 2, 2, ID) == 0); /* once more: nothing happens */
    assert_int_equal(used_blocks(r), before + META_BLOCKS);
    CHECK(engine_open(r->e, 2, 2, 0, &oi) == 0);
    CHECK(version_cmp(oi.commit_point, V(1, 3)) == 0 && version_cmp(oi.last_version, V(1, 3)) == 0);
    CHECK(oi.n_uncommitted == 0 && oi.n_missing == 0 && !oi.frozen);
    CHECK(oi.allocated[0] == 3 && oi.shared[0] == 3 && (oi.allocated[100 / 8] >> 100 % 8 & 1));
    open_info_free(&oi);
    origin_expect(r, 2, 2);

    /* The origin can be opened and read, takes commit points, and no writes. */
    CHECK(engine_open(r->e, ID, 3, 0, &oi) == 0 && oi.frozen);
    open_info_free(&oi);
    origin_expect(r, ID, 3);
    CHECK(engine_commit_point(r->e, ID, 3, V(3, 1)) == 0);
    for (int kind = W_DATA; kind <= W_DISCARD; kind++)
        CHECK(put(r, (struct put){.id = ID, .v = V(3, 2), .len = PAGE, .kind = kind}) == ERR_PERM);

    /* The child is written; the origin stays as it is. */
    fill(r, 2, 2, 1, 2 * PAGE, PAGE, 0x21);
    fill(r, 2, 2, 2, BLOCK, BLOCK, 0x22);
    CHECK(put(r, (struct put){
                     .id = 2, .v = V(2, 3), .off = PAGE + 512, .len = 512, .byte = 0x23}) == 0);
    CHECK(put(r,
              (struct put){
                  .id = 2, .v = V(2, 4), .off = 100 * BLOCK, .len = BLOCK, .kind = W_DISCARD}) ==
          0);
    origin_expect(r, ID, 3);
    CHECK(look(r, 2, 2, 0, PAGE) == 0x11 && look(r, 2, 2, PAGE, 512) == 0x11);
    CHECK(look(r, 2, 2, PAGE + 512, 512) == 0x23 && look(r, 2, 2, PAGE + 1024, 512) == 0x11);
    CHECK(look(r, 2, 2, 2 * PAGE, PAGE) == 0x21 && look(r, 2, 2, 3 * PAGE, PAGE) == 0x12);
    CHECK(look(r, 2, 2, BLOCK, BLOCK) == 0x22 && look(r, 2, 2, 100 * BLOCK, BLOCK) == 0);
    CHECK(engine_check(r->e) == 0);
}

static void child_again(struct rig *r)
{
    CHECK(open_at(r, ID, 4) == 0);
    CHECK(open_at(r, 2, 4) == 0);
    origin_expect(r, ID, 4);
    CHECK(put(r, (struct put){.id = ID, .v = V(4, 1), .len = PAGE}) == ERR_PERM);
    CHECK(look(r, 2, 4, 2 * PAGE, PAGE) == 0x21 && look(r, 2, 4, 3 * PAGE, PAGE) == 0x12);
    CHECK(look(r, 2, 4, BLOCK, BLOCK) == 0x22 && look(r, 2, 4, 100 * BLOCK, BLOCK) == 0);
    CHECK(engine_check(r->e) == 0);
}

static void test_child(void **state)
{
    struct rig r = rig_new(1, 64 << 20, 0);

    (void)state;
    rig_life(&r, child_body, END_POWER);
    rig_life(&r, child_again, END_KILL);
    rig_life(&r, child_again, END_STOP);
    sim_free(r.s);
}

/* ---- what is refused ---- */

static void refused_body(struct rig *r)
{
    struct create_args a = {.id = 2, .epoch = 2, .origin = ID, .origin_epoch = 0};

    CHECK(child(r, 2, 2, ID) == ERR_NO_REPLICA);
    origin_make(r);
    CHECK(engine_create_as(r->e, &a) == ERR_STALE);
    CHECK(child(r, 2, 1, ID) == ERR_INVAL); /* not above the origin's versions */
    CHECK(put(r, (struct put){.id = ID, .v = V(1, 9), .len = PAGE, .byte = 1}) == 0);
    CHECK(child(r, 2, 2, ID) == ERR_AGAIN);
    CHECK(put(r, (struct put){.id = ID, .v = V(1, 10), .len = PAGE, .byte = 1}) == 0);
    CHECK(engine_commit_point(r->e, ID, 1, V(1, 10)) == 0);
    CHECK(child(r, 2, 2, ID) == 0);
}

static void test_refused(void **state)
{
    struct rig r = rig_new(2, 64 << 20, 0);

    (void)state;
    rig_life(&r, refused_body, END_STOP);
    sim_free(r.s);
}

/* ---- the first write to a shared block copies no block ---- */

static void cost_body(struct rig *r)
{
    uint64_t before;

    origin_make(r);
    CHECK(engine_flush(r->e) == 0);
    before = written(r);
    CHECK(child(r, 2, 2, ID) == 0);
    CHECK(written(r) - before <= 6 * PAGE); /* two map pages, the record */
    CHECK(open_at(r, 2, 2) == 0);
    CHECK(engine_flush(r->e) == 0);
    before = written(r);
    CHECK(put(r, (struct put){.id = 2, .v = V(2, 1), .off = 7 * PAGE, .len = PAGE, .byte = 9}) ==
          0);
    CHECK(written(r) - before <= 2 * PAGE);
    CHECK(engine_flush(r->e) == 0);
    CHECK(written(r) - before <= 12 * PAGE); /* home, map page, staged head and bitmap, anchor */
    CHECK(look(r, 2, 2, 7 * PAGE, PAGE) == 9 && look(r, 2, 2, 8 * PAGE, PAGE) == 0x11);
}

static void test_cost(void **state)
{
    struct rig r = rig_new(3, 64 << 20, 0);

    (void)state;
    rig_life(&r, cost_body, END_STOP);
    sim_free(r.s);
}

/* ---- generations of the same block, deleted in some order ---- */

#define GENERATIONS 9u

/* Generation g is a child of g - 1 and differs from it in page 3 * g and those behind. */
static void generations_make(struct rig *r)
{
    CHECK(create(r, 1, 1) == 0);
    CHECK(open_at(r, 1, 1) == 0);
    fill(r, 1, 1, 1, 0, BLOCK, 1);
    for (uint64_t g = 2; g <= GENERATIONS; g++) {
        int rc = child(r, g, g, g - 1);

        ASSERTF(rc == 0, "child: %s", err_text(rc));
        CHECK(open_at(r, g, g) == 0);
        fill(r, g, g, 1, (uint32_t)g * 3 * PAGE, (uint32_t)(1 + g % 3) * PAGE, (uint8_t)g);
        CHECK(engine_check(r->e) == 0);
    }
}

static void generation_expect(struct rig *r, uint64_t g)
{
    CHECK(open_at(r, g, 100 + r->x[0]) == 0);
    for (uint64_t k = 2; k <= GENERATIONS; k++)
        CHECK(look(r, g, 100 + r->x[0], (uint32_t)k * 3 * PAGE, (uint32_t)(1 + k % 3) * PAGE) ==
              (k <= g ? (int)k : 1));
    CHECK(look(r, g, 100 + r->x[0], 0, 6 * PAGE) == 1);
}

static void generations_read(struct rig *r)
{
    r->x[0]++;
    for (uint64_t g = 1; g <= GENERATIONS; g++) {
        if (!(r->x[1] >> g & 1))
            generation_expect(r, g);
    }
    CHECK(engine_check(r->e) == 0);
}

/* Deletes one more, by x[2]'s order. */
static void generations_delete(struct rig *r)
{
    uint64_t order = r->x[2], left = 0, g;

    for (g = 1; g <= GENERATIONS; g++)
        left += !(r->x[1] >> g & 1);
    order %= left;
    for (g = 1; g <= GENERATIONS; g++) {
        if (!(r->x[1] >> g & 1) && order-- == 0)
            break;
    }
    CHECK(engine_delete(r->e, 1, g, 1000000) == 0);
    r->x[1] |= 1ull << g;
    r->x[2] = r->x[2] * 6364136223846793005ull + 1442695040888963407ull;
    r->x[2] ^= r->x[2] >> 29;
    generations_read(r);
}

static void generations_gone(struct rig *r)
{
    assert_int_equal(used_blocks(r), 0);
}

static void test_generations(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 8; seed++) {
        struct rig r = rig_new(10 + seed, 64 << 20, JOURNAL_PAGES_MIN * PAGE);

        r.x[2] = seed;
        rig_life(&r, generations_make, seed % 2 ? END_KILL : END_POWER);
        rig_life(&r, generations_read, END_STOP);
        for (uint32_t i = 0; i < GENERATIONS; i++)
            rig_life(&r, generations_delete, (enum rig_end)((seed + i) % 3));
        rig_life(&r, generations_gone, END_STOP);
        sim_free(r.s);
    }
}

/* ---- the last one to have a block takes it ---- */

static void adopt_body(struct rig *r)
{
    uint64_t before;

    origin_make(r);
    CHECK(child(r, 2, 2, ID) == 0);
    CHECK(open_at(r, 2, 2) == 0);
    CHECK(engine_delete(r->e, 1, ID, 100) == 0);
    before = used_blocks(r);
    fill(r, 2, 2, 1, 9 * PAGE, PAGE, 0x31);
    assert_int_equal(used_blocks(r), before);
    CHECK(look(r, 2, 2, 8 * PAGE, PAGE) == 0x11 && look(r, 2, 2, 9 * PAGE, PAGE) == 0x31);
    CHECK(engine_check(r->e) == 0);
}

static void adopt_again(struct rig *r)
{
    CHECK(open_at(r, 2, 3) == 0);
    CHECK(look(r, 2, 3, 8 * PAGE, PAGE) == 0x11 && look(r, 2, 3, 9 * PAGE, PAGE) == 0x31);
}

static void test_adopt(void **state)
{
    struct rig r = rig_new(4, 64 << 20, 0);

    (void)state;
    rig_life(&r, adopt_body, END_POWER);
    rig_life(&r, adopt_again, END_STOP);
    sim_free(r.s);
}

/* ---- many children of one block ---- */

#define MANY 1000u

static void many_body(struct rig *r)
{
    CHECK(create(r, 1, 1) == 0);
    CHECK(open_at(r, 1, 1) == 0);
    fill(r, 1, 1, 1, 0, BLOCK, 7);
    for (uint64_t i = 2; i < 2 + MANY; i++) {
        int rc = child(r, i, 2, 1);

        ASSERTF(rc == 0, "child %" PRIu64 ": %s", i, err_text(rc));
    }
    assert_int_equal(used_blocks(r), 1 + (MANY + 1) * META_BLOCKS);
    CHECK(engine_check(r->e) == 0);
}

static void many_again(struct rig *r)
{
    CHECK(engine_check(r->e) == 0);
    CHECK(engine_delete(r->e, 1, 1, 100) == 0);
    for (uint64_t i = 2; i < 2 + MANY; i++) {
        CHECK(open_at(r, i, 3) == 0);
        CHECK(look(r, i, 3, 5 * PAGE, PAGE) == 7);
        if (i + 1 < 2 + MANY)
            CHECK(engine_delete(r->e, 1, i, 100) == 0);
    }
    assert_int_equal(used_blocks(r), 1 + META_BLOCKS);
}

static void test_many(void **state)
{
    struct rig r = rig_new(5, 1536u << 20, 8 << 20);

    (void)state;
    rig_life(&r, many_body, END_POWER);
    rig_life(&r, many_again, END_STOP);
    sim_free(r.s);
}

/* A count at its limit, made by hand: the origin gets another block, for as many children more. */
static void limit_body(struct rig *r)
{
    struct dev *d;
    struct refs_hold hold = {0};
    uint32_t block = 0, i;

    origin_make(r);
    CHECK(child(r, 2, 2, ID) == 0);
    d = LIST_FIRST(&r->e->devs, struct dev, link);
    for (uint32_t b = 1; b <= d->g.blocks && block == 0; b++)
        block = shared_bit_get(d, b) ? b : 0;
    CHECK(block != 0 && refs_load(d, block, &hold) == 0);
    i = (block - 1) % REFS_PER_PAGE;
    assert_int_equal(d->refs[0]->refs->more[i], 1);
    d->refs[0]->refs->more[i] = REFS_MAX - 1;
    CHECK(child(r, 3, 2, ID) == 0);
    assert_int_equal(d->refs[0]->refs->more[i], REFS_MAX - 2);
    refs_apply(d, &(const struct rec_ref){block, 1}, 1, d->j.next_rsn - 1); /* it is the child's */
    refs_hold_free(&hold);
    CHECK(child(r, 4, 2, ID) == 0);
    for (uint64_t id = 2; id <= 4; id++) {
        struct diff_result res;
        struct page_range one;

        CHECK(open_at(r, id, 2) == 0);
        origin_expect(r, id, 2);
        CHECK(engine_diff(r->e, ID, id, 0, &one, 1, &res) == 0);
        assert_true((res.count == 0) == (id > 2));
    }
}

static void test_limit(void **state)
{
    struct rig r = rig_new(6, 64 << 20, 0);

    (void)state;
    rig_life(&r, limit_body, END_STOP);
    sim_free(r.s);
}

/* ---- differences ---- */

static void diff_body(struct rig *r)
{
    const struct page_range all[] = {{0, 128}, {6405, 2}},
                            changed[] = {{2, 1}, {6400, 6}, {6500, 1}};
    struct diff_result res;
    struct page_range one;

    origin_make(r);
    diff_expect(r, ID, 0, 0, 16, all, 2, false);
    CHECK(child(r, 2, 2, ID) == 0);
    diff_expect(r, 2, 0, 0, 16, all, 2, false);
    diff_expect(r, 2, ID, 0, 16, NULL, 0, false);
    CHECK(open_at(r, 2, 2) == 0);
    fill(r, 2, 2, 1, 2 * PAGE, PAGE, 0x21);
    fill(r, 2, 2, 2, 6400 * PAGE, 6 * PAGE, 0x22);
    fill(r, 2, 2, 3, 6500 * PAGE, PAGE, 0x22);
    diff_expect(r, 2, ID, 0, 16, changed, 3, false);
    diff_expect(r, ID, 2, 0, 16, changed, 3, false);
    CHECK(engine_flush(r->e) == 0);
    diff_expect(r, 2, ID, 0, 16, changed, 3, false);
    diff_expect(r, 2, ID, 0, 2, changed, 2, true);
    diff_expect(r, 2, ID, 6403, 2, (struct page_range[]){{6403, 3}, {6500, 1}}, 2, false);
    CHECK(engine_diff(r->e, 2, ID, 0, &one, 1, &res) == 0 && res.more && res.next_page == 6400);
    CHECK(engine_diff(r->e, 2, 99, 0, &one, 1, &res) == ERR_NO_REPLICA);
    CHECK(engine_diff(r->e, 2, 0, PAGES_PER_EXTENT, &one, 1, &res) == ERR_INVAL);
}

static void in_common_expect(struct rig *r, uint64_t id, const struct page_range *want, uint32_t n)
{
    struct page_range got[16];
    struct diff_result res;

    CHECK(engine_in_common(r->e, id, 0, got, 16, &res) == 0);
    assert_int_equal(res.count, n);
    assert_false(res.more);
    assert_memory_equal(got, want, n * sizeof(*want));
}

/* What is written anew is not in common any more, and nothing is when the other is deleted. */
static void in_common_body(struct rig *r)
{
    const struct page_range all[] = {{0, 128}, {6405, 2}}, rest[] = {{0, 2}, {3, 61}, {6405, 2}};

    origin_make(r);
    in_common_expect(r, ID, NULL, 0);
    CHECK(child(r, 2, 2, ID) == 0);
    in_common_expect(r, 2, all, 2);
    in_common_expect(r, ID, all, 2);
    CHECK(open_at(r, 2, 2) == 0);
    fill(r, 2, 2, 1, 2 * PAGE, PAGE, 0x21);
    fill(r, 2, 2, 2, BLOCK_BYTES, BLOCK_BYTES, 0x22);
    in_common_expect(r, 2, rest, 3);
    CHECK(engine_flush(r->e) == 0);
    in_common_expect(r, 2, rest, 3);
    CHECK(engine_delete(r->e, 1, ID, 100) == 0);
    in_common_expect(r, 2, NULL, 0);
}

static void test_in_common(void **state)
{
    struct rig r = rig_new(7, 64 << 20, 0);

    (void)state;
    rig_life(&r, in_common_body, END_STOP);
    sim_free(r.s);
}

static void test_diff(void **state)
{
    struct rig r = rig_new(7, 64 << 20, 0);

    (void)state;
    rig_life(&r, diff_body, END_STOP);
    sim_free(r.s);
}

/* ---- the scrubber reads what only children have ---- */

static void scrub_make(struct rig *r)
{
    origin_make(r);
    CHECK(child(r, 2, 2, ID) == 0 && child(r, 3, 2, ID) == 0);
    CHECK(engine_delete(r->e, 1, ID, 100) == 0);
    CHECK(engine_flush(r->e) == 0);
}

static void scrub_body(struct rig *r)
{
    struct scrub_status st;

    engine_scrub_start(r->e, GIB);
    do {
        CHECK(co_sleep(NSEC_PER_MSEC) == 0);
        engine_scrub_status(r->e, &st);
    } while (st.running);
    assert_int_equal(st.errors, r->x[0]);
}

static void test_scrub(void **state)
{
    struct rig r = rig_new(9, 64 << 20, 0);
    struct super_block sb;
    struct geometry g;
    uint8_t page[PAGE_BYTES] = {0}, same[PAGE_BYTES];
    uint64_t off;

    (void)state;
    rig_life(&r, scrub_make, END_STOP);
    rig_life(&r, scrub_body, END_STOP);
    sim_disk_peek(r.p, DISK, &sb, sizeof(sb), 0);
    assert_int_equal(geometry_compute(&sb, 0, &g), 0);
    memset(same, 0x12, sizeof(same));
    for (off = g.data_off; off < 64 << 20; off += PAGE_BYTES) {
        sim_disk_peek(r.p, DISK, page, PAGE_BYTES, off);
        if (memcmp(page, same, PAGE_BYTES) == 0)
            break;
    }
    page[5] ^= 1;
    sim_disk_poke(r.p, DISK, page, PAGE_BYTES, off);
    r.x[0] = 1; /* once, though two have it */
    rig_life(&r, scrub_body, END_STOP);
    sim_free(r.s);
}

/* ---- damage of the counts: blocks stay, nothing is given out twice ---- */

static void lost_make(struct rig *r)
{
    origin_make(r);
    CHECK(child(r, 2, 2, ID) == 0);
    CHECK(engine_flush(r->e) == 0);
}

static void lost_use(struct rig *r)
{
    uint64_t before = used_blocks(r);

    CHECK(open_at(r, ID, 5) == 0);
    origin_expect(r, ID, 5);
    CHECK(engine_delete(r->e, 1, ID, 100) == 0);
    assert_int_equal(used_blocks(r), before - META_BLOCKS);
    CHECK(open_at(r, 2, 5) == 0);
    origin_expect(r, 2, 5);
    fill(r, 2, 5, 1, 0, BLOCK, 0x44);
    CHECK(look(r, 2, 5, 0, BLOCK) == 0x44);
    CHECK(engine_delete(r->e, 1, 2, 100) == 0);
    CHECK(used_blocks(r) > 0);
}

static void test_lost_counts(void **state)
{
    struct rig r = rig_new(8, 64 << 20, 0);
    static const uint8_t zero[PAGE_BYTES];
    struct super_block sb;
    struct geometry g;

    (void)state;
    rig_life(&r, lost_make, END_STOP);
    sim_disk_peek(r.p, DISK, &sb, sizeof(sb), 0);
    assert_int_equal(geometry_compute(&sb, 0, &g), 0);
    /* The staging area would mend it. */
    sim_disk_poke(r.p, DISK, zero, PAGE_BYTES, g.stage_off);
    sim_disk_poke(r.p, DISK, zero, PAGE_BYTES, g.refs_off);
    rig_life(&r, lost_use, END_KILL);
    sim_free(r.s);
}

/* ---- a block that is not written any more costs its descendants nothing ---- */

static void idle_body(struct rig *r)
{
    uint64_t before, g;

    CHECK(create(r, 1, 1) == 0 && open_at(r, 1, 1) == 0);
    fill(r, 1, 1, 1, 0, BLOCK, 1);
    for (g = 2; g <= 4; g++) { /* it has as many sources as a child has room for */
        CHECK(child(r, g, g, g - 1) == 0 && open_at(r, g, g) == 0);
        if (g < 4)
            fill(r, g, g, 1, (uint32_t)g * 3 * PAGE, PAGE, (uint8_t)g);
    }
    before = used_blocks(r);
    for (; g < 20; g++)
        CHECK(child(r, g, g, g - 1) == 0 && open_at(r, g, g) == 0);
    assert_int_equal(used_blocks(r), before + 15 * META_BLOCKS);
    CHECK(look(r, 19, 19, 6 * PAGE, PAGE) == 2 && look(r, 19, 19, 9 * PAGE, PAGE) == 3);
    fill(r, 19, 19, 1, 0, PAGE, 19); /* now it is merged, and has room again */
    CHECK(child(r, 20, 20, 19) == 0);
    CHECK(engine_check(r->e) == 0);
}

static void test_idle(void **state)
{
    struct rig r = rig_new(13, 64 << 20, 0);

    (void)state;
    rig_life(&r, idle_body, END_STOP);
    sim_free(r.s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_child),       cmocka_unit_test(test_refused),
        cmocka_unit_test(test_cost),        cmocka_unit_test(test_generations),
        cmocka_unit_test(test_adopt),       cmocka_unit_test(test_many),
        cmocka_unit_test(test_limit),       cmocka_unit_test(test_diff),
        cmocka_unit_test(test_in_common),   cmocka_unit_test(test_scrub),
        cmocka_unit_test(test_lost_counts), cmocka_unit_test(test_idle),
    };

    log_threshold = LOG_LV_ERROR;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
