/* SPDX-License-Identifier: Apache-2.0
 *
 * The offline check: nothing on a sound device, each kind of damage by its name, repairs that
 * make it sound again and lose nothing, and a device that is left alone unless asked. */
#include "chunk/fsck.h"
#include "chunk/internal.h"
#include "tests/unit/chunk/engine_fixture.h"

#define BYTES (64 * MIB)

struct told {
    uint32_t findings, notes;
    char all[4096], all_notes[4096];
};
struct check {
    bool repair, data;
    int rc;
    struct fsck_result r;
    struct told t;
};

static void line_add(char *all, size_t size, const char *text)
{
    size_t n = strlen(all);

    snprintf(all + n, size - n, "%s\n", text);
}

static void finding(void *arg, const char *text)
{
    struct told *t = arg;

    t->findings++;
    line_add(t->all, sizeof(t->all), text);
}

static void note(void *arg, const char *text)
{
    struct told *t = arg;

    CHECK(text[0] != 0);
    t->notes++;
    line_add(t->all_notes, sizeof(t->all_notes), text);
}

static int check_main(void *arg)
{
    struct check *c = arg;
    struct fsck_conf conf = {
        .repair = c->repair, .data = c->data, .finding = finding, .note = note, .arg = &c->t};

    c->rc = fsck_device(DISK, &conf, &c->r);
    return 0;
}

static struct check check_run(struct rig *r, bool repair, bool data)
{
    struct check c = {.repair = repair, .data = data};

    assert_int_equal(proc_run(r->s, r->p, check_main, &c), 0);
    return c;
}

/* Two extents, one with a child; small and large writes, some still in the journal. */
static void body_fill(struct rig *r)
{
    struct create_args a = {
        .id = ID + 2, .epoch = 2, .volume_id = 1, .origin = ID + 1, .origin_epoch = 1000};
    int rc;

    for (uint64_t id = ID; id < ID + 2; id++) {
        CHECK(create(r, id, 1) == 0 && open_at(r, id, 1) == 0);
        for (uint32_t i = 0; i < 8; i++)
            CHECK(put(r, (struct put){id, V(1, i + 1), V(0, 0), .off = i * BLOCK_BYTES,
                                      .len = BLOCK_BYTES, .byte = (uint8_t)(id + i)}) == 0);
        CHECK(engine_commit_point(r->e, id, 1, V(1, 8)) == 0);
    }
    rc = engine_create_as(r->e, &a);
    ASSERTF(rc == 0, "child: %s", err_text(rc));
    CHECK(open_at(r, ID + 2, 2) == 0);
    CHECK(engine_flush(r->e) == 0);
    CHECK(put(r, (struct put){ID, V(1, 9), V(1, 8), .off = PAGE_BYTES, .len = PAGE_BYTES,
                              .byte = 1}) == 0);
    CHECK(put(r, (struct put){ID + 2, V(2, 1), V(1, 8), .off = PAGE_BYTES, .len = PAGE_BYTES,
                              .byte = 2}) == 0);
}

static void body_flush(struct rig *r)
{
    CHECK(engine_flush(r->e) == 0);
}

/* A start empties the staging area, from which it would mend what the test changes. */
static void body_nothing(struct rig *r)
{
    (void)r;
}

static void body_expect(struct rig *r)
{
    for (uint64_t id = ID; id < ID + 3; id++) {
        uint64_t of = id < ID + 2 ? id : ID + 1;

        CHECK(open_at(r, id, 10) == 0);
        for (uint32_t i = 1; i < 8; i++)
            CHECK(look(r, id, 10, i * BLOCK_BYTES, BLOCK_BYTES) == (uint8_t)(of + i));
    }
    CHECK(look(r, ID, 10, PAGE_BYTES, PAGE_BYTES) == 1);
    CHECK(engine_check(r->e) == 0);
}

static struct rig filled_on(uint64_t bytes)
{
    struct rig r = rig_new(1, bytes, 2 * MIB);

    rig_life(&r, body_fill, END_STOP);
    return r;
}

static struct rig filled(void)
{
    return filled_on(BYTES);
}

static struct rig filled_home_on(uint64_t bytes)
{
    struct rig r = filled_on(bytes);

    rig_life(&r, body_flush, END_STOP);
    rig_life(&r, body_nothing, END_STOP);
    return r;
}

static struct rig filled_home(void)
{
    return filled_home_on(BYTES);
}

/* ---- the device, by hand ---- */

static void super_get(struct rig *r, struct super_block *sb, struct geometry *g)
{
    sim_disk_peek(r->p, DISK, sb, sizeof(*sb), 0);
    CHECK(geometry_compute(sb, 0, g) == 0);
}

static uint32_t device_sum(struct rig *r)
{
    uint8_t *page = mem_alloc(PAGE_BYTES);
    uint32_t sum = 0;

    for (uint64_t off = 0; off < BYTES; off += PAGE_BYTES) {
        sim_disk_peek(r->p, DISK, page, PAGE_BYTES, off);
        sum = crc32c(sum, page, PAGE_BYTES);
    }
    mem_free(page);
    return sum;
}

static void reseal(struct meta_head *h)
{
    h->crc = page_crc(h, offsetof(struct meta_head, crc));
}

/* Changes a bit of the allocation, checksum included. */
static void bitmap_flip(struct rig *r, uint32_t bit)
{
    struct super_block sb;
    struct geometry g;
    uint8_t page[PAGE_BYTES];
    uint64_t off;

    super_get(r, &sb, &g);
    off = g.bitmap_off + (uint64_t)(bit / BITS_PER_PAGE) * PAGE_BYTES;
    sim_disk_peek(r->p, DISK, page, PAGE_BYTES, off);
    page[sizeof(struct meta_head) + bit % BITS_PER_PAGE / 8] ^= (uint8_t)(1 << bit % 8);
    reseal((struct meta_head *)page);
    sim_disk_poke(r->p, DISK, page, PAGE_BYTES, off);
}

static bool bitmap_get(struct rig *r, uint32_t bit)
{
    struct super_block sb;
    struct geometry g;
    uint8_t byte;

    super_get(r, &sb, &g);
    sim_disk_peek(r->p, DISK, &byte, 1,
                  g.bitmap_off + (uint64_t)(bit / BITS_PER_PAGE) * PAGE_BYTES +
                      sizeof(struct meta_head) + bit % BITS_PER_PAGE / 8);
    return byte >> bit % 8 & 1;
}

/* Finds it, leaves it alone; repairs it; then all is well and nothing was lost. */
static void expect_repair(struct rig *r, const char *what)
{
    uint32_t sum = device_sum(r);
    struct check c = check_run(r, false, false);

    ASSERTF(c.rc == 0 && c.r.findings > 0 && c.r.left == c.r.findings, "%s", what);
    ASSERTF(strstr(c.t.all, what) != NULL, "'%s' in: %s", what, c.t.all);
    ASSERTF(device_sum(r) == sum, "a check wrote to the device");
    c = check_run(r, true, false);
    ASSERTF(c.rc == 0 && c.r.findings > 0 && c.r.left == 0, "%s: %" PRIu64 " left, %s", what,
            c.r.left, c.t.all);
    c = check_run(r, false, true);
    ASSERTF(c.rc == 0 && c.r.findings == 0, "%s: afterwards: %s", what, c.t.all);
    rig_life(r, body_expect, END_STOP);
    sim_free(r->s);
}

/* ---- tests ---- */

static void test_sound(void **state)
{
    struct rig r = filled();
    uint32_t sum = device_sum(&r);
    struct check c = check_run(&r, false, true);

    (void)state;
    ASSERTF(c.rc == 0 && c.r.findings == 0, "%s", c.t.all);
    CHECK(c.r.extents == 3 && c.r.shared_blocks > 0 && c.r.lost_extents == 0 && c.r.bad_pages == 0);
    CHECK(c.r.pages == 3 * 8 * PAGES_PER_BLOCK && c.t.notes >= 3);
    CHECK(device_sum(&r) == sum);
    c = check_run(&r, true, false); /* nothing to do */
    CHECK(c.rc == 0 && c.r.findings == 0 && device_sum(&r) == sum);
    rig_life(&r, body_expect, END_STOP);
    sim_free(r.s);
}

static void test_leak(void **state)
{
    struct rig r = filled_home();
    struct super_block sb;
    struct geometry g;

    (void)state;
    super_get(&r, &sb, &g);
    CHECK(!bitmap_get(&r, g.blocks - 1));
    bitmap_flip(&r, g.blocks - 1);
    expect_repair(&r, "blocks are taken and nothing names them");
}

/* A reserved extent, and another that has taken the rest. */
static void body_reserved(struct rig *r)
{
    const struct create_args a = {.id = ID, .epoch = 1, .volume_id = 1, .reserve = true};
    uint32_t n = 0;
    int rc = 0;

    CHECK(engine_create_as(r->e, &a) == 0 && create(r, ID + 1, 1) == 0);
    CHECK(open_at(r, ID, 1) == 0 && open_at(r, ID + 1, 1) == 0);
    for (; rc == 0; n++)
        rc = put(r, (struct put){.id = ID + 1,
                                 .v = V(1, n + 1),
                                 .off = n * BLOCK_BYTES,
                                 .len = PAGE_BYTES,
                                 .byte = 1});
    CHECK(rc == ERR_NOSPACE && engine_flush(r->e) == 0);
}

static void test_promise(void **state)
{
    struct rig r = rig_new(1, 290 * MIB, 2 * MIB);
    struct super_block sb;
    struct geometry g;
    struct check c;

    (void)state;
    rig_life(&r, body_reserved, END_STOP);
    rig_life(&r, body_nothing, END_STOP);
    c = check_run(&r, false, true);
    CHECK(c.rc == 0 && c.r.findings == 0);
    CHECK(strstr(c.t.all_notes, "1 extents are reserved: 1024 blocks are promised") != NULL);
    super_get(&r, &sb, &g);
    for (uint32_t i = 0; i < 100; i++) {
        CHECK(!bitmap_get(&r, g.blocks - 1 - i));
        bitmap_flip(&r, g.blocks - 1 - i);
    }
    c = check_run(&r, false, false);
    CHECK(c.rc == 0 && strstr(c.t.all, "1024 blocks are promised to reserved extents") != NULL);
    c = check_run(&r, true, false);
    CHECK(c.rc == 0 && c.r.findings > 0 && c.r.left == 0);
    c = check_run(&r, false, false);
    CHECK(c.rc == 0 && c.r.findings == 0);
    rig_life(&r, body_nothing, END_STOP);
    sim_free(r.s);
}

/* The dangerous way round: the engine gives the extent up. The same contradiction may be all that
 * shows that the end of the journal is lost, so it is not counted away. */
static void test_used_counts_as_free(void **state)
{
    struct rig r = filled_home();
    uint32_t bit = 0, n = 0, sum;
    struct check c;

    (void)state;
    for (;; bit++) { /* the first blocks are metadata of the first extent; take one of data */
        n += bitmap_get(&r, bit);
        if (n == 5)
            break;
    }
    bitmap_flip(&r, bit);
    sum = device_sum(&r);
    c = check_run(&r, true, false);
    CHECK(c.rc == 0 && c.r.findings > 0 && c.r.left == c.r.findings);
    CHECK(strstr(c.t.all, "extent") != NULL && device_sum(&r) == sum);
    sim_free(r.s);
}

static void test_references(void **state)
{
    struct rig r = filled_home();
    struct super_block sb;
    struct geometry g;
    uint8_t page[PAGE_BYTES];
    uint16_t *more = (uint16_t *)(page + sizeof(struct meta_head));
    uint32_t i = 0;

    (void)state;
    super_get(&r, &sb, &g);
    sim_disk_peek(r.p, DISK, page, PAGE_BYTES, g.refs_off);
    while (more[i] == 0)
        i++;
    more[i] = 7;
    reseal((struct meta_head *)page);
    sim_disk_poke(r.p, DISK, page, PAGE_BYTES, g.refs_off);
    expect_repair(&r, "counts 8 references and has 2");
}

static void test_references_lost(void **state)
{
    struct rig r = filled_home();
    struct super_block sb;
    struct geometry g;
    uint8_t zero[PAGE_BYTES] = {0};

    (void)state;
    super_get(&r, &sb, &g);
    sim_disk_poke(r.p, DISK, zero, PAGE_BYTES, g.refs_off);
    expect_repair(&r, "references");
}

static void test_superblock(void **state)
{
    struct rig r = filled();
    uint8_t zero[PAGE_BYTES] = {0};

    (void)state;
    sim_disk_poke(r.p, DISK, zero, PAGE_BYTES, 0);
    {
        struct check c = check_run(&r, false, false);

        CHECK(c.rc == 0 && c.r.findings == 1);
        CHECK(strstr(c.t.all, "first copy of the superblock") != NULL);
    }
    {
        struct check c = check_run(&r, true, false);

        CHECK(c.rc == 0 && c.r.findings == 1 && c.r.left == 0);
        c = check_run(&r, false, false);
        CHECK(c.rc == 0 && c.r.findings == 0);
    }
    rig_life(&r, body_expect, END_STOP);
    sim_free(r.s);
}

/* Without them nobody knows where the journal begins. */
static void test_anchors(void **state)
{
    struct rig r = filled();
    struct super_block sb;
    struct geometry g;
    uint8_t zero[2 * PAGE_BYTES] = {0};
    uint32_t sum;
    struct check c;

    (void)state;
    super_get(&r, &sb, &g);
    sim_disk_poke(r.p, DISK, zero, PAGE_BYTES, g.anchors_off);
    c = check_run(&r, false, true); /* the other one, if the newer is lost, may not do */
    CHECK(c.rc == 0);
    sim_disk_poke(r.p, DISK, zero, sizeof(zero), g.anchors_off);
    sum = device_sum(&r);
    c = check_run(&r, true, true);
    ASSERTF(c.rc == 0 && c.r.findings == 1 && c.r.left == 1, "%s", c.t.all);
    CHECK(strstr(c.t.all, "neither anchor is valid") != NULL);
    CHECK(strstr(c.t.all_notes, "the cluster makes its replicas anew") != NULL);
    CHECK(strstr(c.t.all_notes, "nothing of it can be rebuilt") != NULL);
    CHECK(device_sum(&r) == sum);
    sim_free(r.s);
}

/* A device so large that most pages of its bitmap say nothing of heads: these are counted anew. */
static void test_bitmap_pages(void **state)
{
    struct rig r = filled_home_on(26ull << 30);
    uint8_t page[PAGE_BYTES], zero[PAGE_BYTES] = {0};
    uint32_t rebuilt = 0, refused = 0;
    struct super_block sb;
    struct geometry g;

    (void)state;
    super_get(&r, &sb, &g);
    for (uint32_t i = 0; i < g.bitmap_pages; i++) {
        uint64_t off = g.bitmap_off + (uint64_t)i * PAGE_BYTES, first = (uint64_t)i * BITS_PER_PAGE;
        bool heads = first < g.blocks + g.heads && first + BITS_PER_PAGE > g.blocks;
        struct check c;

        sim_disk_peek(r.p, DISK, page, PAGE_BYTES, off);
        sim_disk_poke(r.p, DISK, zero, PAGE_BYTES, off);
        c = check_run(&r, false, false);
        ASSERTF(c.rc == 0 && c.r.findings == 1, "page %" PRIu32 ": %s", i, c.t.all);
        CHECK(strstr(c.t.all, "allocation bitmap") != NULL);
        c = check_run(&r, true, false);
        ASSERTF(c.rc == 0 && c.r.left == heads, "page %" PRIu32 ": %s", i, c.t.all);
        if (heads) {
            CHECK(strstr(c.t.all, "which heads are in use") != NULL);
            CHECK(strstr(c.t.all_notes, "format it") != NULL);
            sim_disk_poke(r.p, DISK, page, PAGE_BYTES, off);
        }
        c = check_run(&r, false, true);
        ASSERTF(c.rc == 0 && c.r.findings == 0, "page %" PRIu32 ": %s", i, c.t.all);
        rebuilt += !heads;
        refused += heads;
    }
    CHECK(rebuilt >= 6 && refused >= 1);
    rig_life(&r, body_expect, END_STOP);
    sim_free(r.s);
}

static bool cut_here(void *arg, struct sim_proc *p, uint64_t n)
{
    uint64_t *left = arg;

    (void)p;
    (void)n;
    return *left > 0 && --*left == 0;
}

/* Power is cut at the n-th write of a repair; the next one mends what is left. False: the repair
 * has fewer. */
static bool repair_cut(uint64_t n)
{
    struct rig r = filled_home_on(26ull << 30);
    struct check c = {.repair = true};
    uint8_t zero[PAGE_BYTES] = {0};
    struct super_block sb;
    struct geometry g;
    uint64_t left = n;

    super_get(&r, &sb, &g);
    sim_disk_poke(r.p, DISK, zero, PAGE_BYTES, g.bitmap_off);
    sim_disk_poke(r.p, DISK, zero, PAGE_BYTES, g.refs_off);
    sim_disk_set_hook(r.p, DISK, cut_here, &left);
    sim_proc_start(r.p, check_main, &c);
    while (sim_proc_running(r.p))
        CHECK(sim_step(r.s));
    sim_disk_set_hook(r.p, DISK, NULL, NULL);
    c = check_run(&r, true, false);
    ASSERTF(c.rc == 0 && c.r.left == 0, "cut at write %" PRIu64 ": %s", n, c.t.all);
    c = check_run(&r, false, true);
    ASSERTF(c.rc == 0 && c.r.findings == 0, "cut at write %" PRIu64 ": %s", n, c.t.all);
    rig_life(&r, body_expect, END_STOP);
    sim_free(r.s);
    return left == 0;
}

static void test_repair_cut(void **state)
{
    uint64_t n = 1;

    (void)state;
    while (repair_cut(n))
        n++;
    ASSERTF(n > 3, "a repair in %" PRIu64 " writes", n - 1);
}

/* Data can't be made up. */
static void test_data(void **state)
{
    struct rig r = filled_home();
    struct super_block sb;
    struct geometry g;
    uint8_t page[PAGE_BYTES], want[PAGE_BYTES];
    struct check c;
    uint64_t off;

    (void)state;
    super_get(&r, &sb, &g);
    memset(want, (uint8_t)ID, sizeof(want)); /* of no other extent */
    for (off = g.data_off;; off += PAGE_BYTES) {
        sim_disk_peek(r.p, DISK, page, PAGE_BYTES, off);
        if (memcmp(page, want, PAGE_BYTES) == 0)
            break;
    }
    page[9] ^= 1;
    sim_disk_poke(r.p, DISK, page, PAGE_BYTES, off);
    c = check_run(&r, false, false);
    CHECK(c.rc == 0 && c.r.findings == 0); /* not asked to read it */
    c = check_run(&r, true, true);
    CHECK(c.rc == 0 && c.r.findings == 1 && c.r.left == 1 && c.r.bad_pages == 1);
    CHECK(strstr(c.t.all, "fails its checksum") != NULL);
    sim_free(r.s);
}

static void test_not_ours(void **state)
{
    struct rig r = filled();
    uint8_t zero[PAGE_BYTES] = {0};
    struct check c;

    (void)state;
    sim_disk_poke(r.p, DISK, zero, PAGE_BYTES, 0);
    sim_disk_poke(r.p, DISK, zero, PAGE_BYTES, BYTES - PAGE_BYTES);
    c = check_run(&r, true, true);
    CHECK(c.rc == ERR_FORMAT && c.t.findings == 0);
    sim_free(r.s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sound),        cmocka_unit_test(test_leak),
        cmocka_unit_test(test_promise),      cmocka_unit_test(test_used_counts_as_free),
        cmocka_unit_test(test_references),   cmocka_unit_test(test_references_lost),
        cmocka_unit_test(test_superblock),   cmocka_unit_test(test_anchors),
        cmocka_unit_test(test_bitmap_pages), cmocka_unit_test(test_repair_cut),
        cmocka_unit_test(test_data),         cmocka_unit_test(test_not_ours),
    };

    log_threshold = LOG_LV_ERROR + 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
