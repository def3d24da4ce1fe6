/* SPDX-License-Identifier: Apache-2.0
 *
 * Damage on the device is found, reported and never served (invariant 8): a bit is flipped
 * anywhere, and what the engine then answers is either right or an error. */
#define EXTENTS       2u
#define STREAMS       2u
#define STREAM_BLOCKS 2u
#include "tests/unit/chunk/engine_model.h"
#include "chunk/internal.h"

#define DISK_BYTES (12u << 20)
#define RING_BYTES (2 * JOURNAL_PAGES_MIN * PAGE_BYTES)

struct verdict {
    struct model *m;
    uint32_t refused, gone, voided, tail_lost, corrupt, right;
};

static void flip(struct model *m, uint64_t off, uint32_t bit)
{
    uint8_t page[PAGE_BYTES];

    sim_disk_peek(m->p, DISK, page, PAGE_BYTES, off / PAGE_BYTES * PAGE_BYTES);
    page[off % PAGE_BYTES] ^= (uint8_t)(1u << bit);
    sim_disk_poke(m->p, DISK, page, PAGE_BYTES, off / PAGE_BYTES * PAGE_BYTES);
}

static struct version newest(const struct model_extent *x)
{
    struct version v = {0, 0};

    for (uint32_t p = 0; p < MODEL_PAGES; p++) {
        if (version_cmp(x->page_acked[p], v) > 0)
            v = x->page_acked[p];
    }
    return v;
}

/* A flip in the last commit looks like a write that power loss tore. The extent's owner sees it by
 * what the others have (PROTOCOL 2.5): the last version, or a version of a page that is missing
 * above the commit point. */
static bool tail_lost(const struct model_extent *x, const struct open_info *oi)
{
    if (version_cmp(oi->last_version, newest(x)) < 0)
        return true;
    for (uint32_t p = 0; p < MODEL_PAGES; p++) {
        uint32_t page = model_off(p * SECTORS_PER_PAGE) / PAGE_BYTES;

        if (version_cmp(x->page_acked[p], oi->commit_point) > 0 &&
            !open_has(oi, page, x->page_acked[p]))
            return true;
    }
    return false;
}

/* Reads everything, page by page. */
static void judge_extent(struct verdict *v, uint32_t ext)
{
    struct read_result *r = mem_alloc(sizeof(*r));
    static const uint8_t zeroes[PAGE_BYTES];

    for (uint32_t s = 0; s < MODEL_SECTORS; s += SECTORS_PER_PAGE) {
        int rc = engine_read(v->m->e, EXTENT_ID(ext), v->m->epoch, model_off(s), PAGE_BYTES, r);

        if (rc < 0) {
            CHECK(rc == ERR_CORRUPT || rc == ERR_NOT_OPEN);
            v->corrupt++;
            continue;
        }
        sectors_check(v->m, ext, s, SECTORS_PER_PAGE, r->zero ? zeroes : r->buf->data + r->buf_off);
        buf_put(r->buf);
        v->right++;
    }
    mem_free(r);
}

static int judge_main(void *arg)
{
    struct verdict *v = arg;
    struct model *m = v->m;
    struct engine_conf conf = {.workers = 1};
    struct super_block *sb = mem_alloc(sizeof(*sb));
    int rc = super_read(DISK, sb);

    m->e = engine_new(&conf);
    if (rc == 0)
        rc = engine_dev_add(m->e, DISK, sb);
    mem_free(sb);
    if (rc < 0) {
        CHECK(rc == ERR_FORMAT || rc == ERR_CORRUPT || rc == ERR_VERSION);
        v->refused++;
        engine_stop(m->e);
        return 0;
    }
    m->epoch++;
    for (uint32_t i = 0; i < EXTENTS; i++) {
        struct open_info oi;

        rc = engine_open(m->e, EXTENT_ID(i), m->epoch, 0, &oi);
        CHECK(rc == 0 || rc == ERR_NO_REPLICA);
        v->gone += rc < 0;
        if (rc == 0 && oi.is_void) {
            v->voided++;
            CHECK(engine_lost(m->e, NULL, 0) > 0);
        } else if (rc == 0 && tail_lost(&m->x[i], &oi)) {
            v->tail_lost++;
        } else if (rc == 0) {
            judge_extent(v, i);
        }
        open_info_free(&oi);
    }
    rc = engine_flush(m->e); /* damage that shows now must not do harm either */
    CHECK(rc == 0);
    engine_stop(m->e);
    return 0;
}

/* A disk in the middle of its work, as a kill leaves it. */
static struct model *used_disk(uint64_t seed)
{
    struct model *m = model_new(seed, DISK_BYTES, RING_BYTES, 30);

    m->flush_delay_ms = seed % 3 == 0 ? 2 : 20;
    sim_proc_start(m->p, model_main, m);
    sim_run_for(m->s, (nsec_t)(20 + sim_random(m->s) % 60) * NSEC_PER_MSEC);
    if (sim_proc_running(m->p))
        sim_proc_crash(m->p);
    return m;
}

/* A byte of the small structures: anchors, staging area, bitmap, the first heads. */
static uint64_t small_place(struct model *m)
{
    struct super_block sb;
    struct geometry g;
    uint64_t at = sim_random(m->s), off = sim_random(m->s);

    sim_disk_peek(m->p, DISK, &sb, sizeof(sb), 0);
    assert_int_equal(geometry_compute(&sb, 0, &g), 0);
    switch (at % 4) {
    case 0:
        return g.anchors_off + off % (2 * PAGE_BYTES);
    case 1:
        return g.stage_off + off % (4 * PAGE_BYTES);
    case 2:
        return g.bitmap_off + off % PAGE_BYTES;
    default:
        return g.heads_off + off % (EXTENTS * PAGE_BYTES);
    }
}

static void test_any_bit(void **state)
{
    struct verdict v = {0};

    (void)state;
    for (uint64_t seed = 1; seed <= 250; seed++) {
        struct model *m = used_disk(seed);
        uint64_t range = seed % 2 ? DISK_BYTES : 5u << 20; /* the latter: mostly metadata */

        v.m = m;
        for (uint32_t n = 1 + (uint32_t)(seed % 5) * 4; n > 0 && seed % 4 != 0; n--)
            flip(m, sim_random(m->s) % range, (uint32_t)(sim_random(m->s) % 8));
        if (seed % 4 == 0)
            flip(m, small_place(m), (uint32_t)(sim_random(m->s) % 8));
        assert_int_equal(proc_run(m->s, m->p, judge_main, &v), 0);
        model_free(m);
    }
    print_message("starts refused %u; extents gone %u, void %u, tail lost %u; pages corrupt %u, "
                  "right %u\n",
                  v.refused, v.gone, v.voided, v.tail_lost, v.corrupt, v.right);
    assert_true(v.refused > 0 && v.gone > 0 && v.voided > 0 && v.corrupt > 0);
    assert_true(v.right > 10000);
}

/* Whole pages of the metadata replaced: zeroes, noise, other pages of the same device. */
static void test_pages_swapped(void **state)
{
    struct verdict v = {0};

    (void)state;
    for (uint64_t seed = 1; seed <= 100; seed++) {
        struct model *m = used_disk(1000 + seed);
        uint8_t page[PAGE_BYTES];

        v.m = m;
        for (uint32_t n = 1 + (uint32_t)(seed % 3) * 3; n > 0; n--) {
            uint64_t to = sim_random(m->s) % (DISK_BYTES / PAGE_BYTES);
            uint64_t from = sim_random(m->s) % (DISK_BYTES / PAGE_BYTES);

            sim_disk_peek(m->p, DISK, page, PAGE_BYTES, from * PAGE_BYTES);
            if (n % 3 == 0)
                memset(page, 0, PAGE_BYTES);
            sim_disk_poke(m->p, DISK, page, PAGE_BYTES, to * PAGE_BYTES);
        }
        assert_int_equal(proc_run(m->s, m->p, judge_main, &v), 0);
        model_free(m);
    }
    assert_true(v.right > 1000);
}

/* ---- devices that are not ours ---- */

static int strange_main(void *arg)
{
    struct super_block *sb = mem_alloc(sizeof(*sb));
    struct chunk_format_conf fc = {0};
    int rc = super_read(DISK, sb);

    (void)arg;
    CHECK(rc == ERR_FORMAT);
    CHECK(chunk_format(DISK, &fc) == ERR_EXISTS);
    fc.force = true;
    CHECK(chunk_format(DISK, &fc) == 0);
    CHECK(super_read(DISK, sb) == 0);
    fc.force = false;
    CHECK(chunk_format(DISK, &fc) == ERR_EXISTS); /* it is ours now */
    mem_free(sb);
    return 0;
}

static int blank_main(void *arg)
{
    struct super_block *sb = mem_alloc(sizeof(*sb));
    struct chunk_format_conf fc = {.workers = 65};

    (void)arg;
    CHECK(super_read(DISK, sb) == ERR_FORMAT);
    CHECK(chunk_format(DISK, &fc) == ERR_INVAL);
    fc.workers = 64; /* too small for that many */
    CHECK(chunk_format(DISK, &fc) == ERR_INVAL);
    fc.workers = 2;
    CHECK(chunk_format(DISK, &fc) == 0);
    CHECK(super_read(DISK, sb) == 0 && sb->workers == 2);
    CHECK(super_write(DISK, sb) == 0);
    mem_free(sb);
    return 0;
}

static void run_strange(int (*main_fn)(void *), bool noise)
{
    struct sim *s = world_new(1);
    struct sim_proc *p = sim_proc_new(s, HOST_A, "chunk");
    uint8_t page[PAGE_BYTES];

    sim_disk_create(p, DISK, DISK_BYTES);
    for (uint64_t off = 0; noise && off < DISK_BYTES; off += PAGE_BYTES) {
        for (uint32_t i = 0; i < PAGE_BYTES; i++)
            page[i] = (uint8_t)sim_random(s);
        sim_disk_poke(p, DISK, page, PAGE_BYTES, off);
    }
    assert_int_equal(proc_run(s, p, main_fn, NULL), 0);
    sim_free(s);
}

static void test_strange_devices(void **state)
{
    (void)state;
    run_strange(strange_main, true);
    run_strange(blank_main, false);
}

static int super_copy_main(void *arg)
{
    struct super_block *sb = mem_alloc(sizeof(*sb));
    int *want = arg;

    CHECK(super_read(DISK, sb) == *want);
    mem_free(sb);
    return 0;
}

/* Either superblock alone is enough. */
static void test_superblocks(void **state)
{
    struct model *m = used_disk(7);
    uint8_t first[PAGE_BYTES], zero[PAGE_BYTES] = {0};
    int want = 0;

    (void)state;
    sim_disk_peek(m->p, DISK, first, PAGE_BYTES, 0);
    sim_disk_poke(m->p, DISK, zero, PAGE_BYTES, 0);
    assert_int_equal(proc_run(m->s, m->p, super_copy_main, &want), 0);
    sim_disk_poke(m->p, DISK, first, PAGE_BYTES, 0);
    flip(m, DISK_BYTES - PAGE_BYTES + 100, 3);
    assert_int_equal(proc_run(m->s, m->p, super_copy_main, &want), 0);
    flip(m, 200, 3);
    want = ERR_FORMAT;
    assert_int_equal(proc_run(m->s, m->p, super_copy_main, &want), 0);
    model_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_bit),
        cmocka_unit_test(test_pages_swapped),
        cmocka_unit_test(test_strange_devices),
        cmocka_unit_test(test_superblocks),
    };

    log_threshold = LOG_LV_ERROR + 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
