/* SPDX-License-Identifier: Apache-2.0
 *
 * The read cache and reading ahead, in virtual time on a device of known speed: what costs a
 * device request and what does not, what stays, and that nothing stale is ever served. */
#include "tests/unit/chunk/engine_fixture.h"
#include "chunk/internal.h"
#include "chunk/stream.h"

#define PAGE  PAGE_BYTES
#define BLOCK BLOCK_BYTES

static const struct sim_disk_speed ssd = {
    .latency = 80 * NSEC_PER_USEC, .per_request = 10 * NSEC_PER_USEC, .bytes_per_sec = GIB};

static struct rig rig_fast(uint64_t seed, uint64_t memory_bytes)
{
    struct rig r = rig_new(seed, 192 * MIB, 0);

    r.memory_bytes = memory_bytes;
    sim_disk_set_speed(r.p, DISK, &ssd);
    return r;
}

static uint8_t byte_of(uint32_t block)
{
    return (uint8_t)(1 + block % 250);
}

/* An extent with so many blocks of data, at home. */
static void fill_extent(struct rig *r, uint64_t id, uint32_t blocks)
{
    CHECK(create(r, id, 1) == 0 && open_at(r, id, 1) == 0);
    for (uint32_t b = 0; b < blocks; b++)
        CHECK(put(r, (struct put){id, V(1, b + 1), V(b > 0, b), .off = b * BLOCK, .len = BLOCK,
                                  .byte = byte_of(b)}) == 0);
}

static void fill(struct rig *r, uint32_t blocks)
{
    fill_extent(r, ID, blocks);
}

static void read_page(struct rig *r, uint32_t page)
{
    CHECK(look(r, ID, 1, page * PAGE, PAGE) == byte_of(page / PAGES_PER_BLOCK));
}

/* Requests of readers that the device has had since the last time. */
static uint32_t device_reads(struct rig *r)
{
    struct disk_window w;

    engine_dev_window(r->e, 0, &w);
    return w.count[DISK_WINDOW_READS];
}

static struct cache_stats stats(struct rig *r)
{
    struct cache_stats st;

    engine_cache(r->e, &st);
    CHECK(st.stale == 0);
    return st;
}

/* ---- what is read again ---- */

static void again_body(struct rig *r)
{
    struct read_result *a = mem_alloc(sizeof(*a)), *b = mem_alloc(sizeof(*b));
    nsec_t before;

    fill(r, 8);
    read_page(r, 100);
    (void)device_reads(r);
    before = co_now();
    CHECK(engine_read(r->e, ID, 1, 100 * PAGE, PAGE, a) == 0);
    CHECK(engine_read(r->e, ID, 1, 100 * PAGE + 512, 1024, b) == 0);
    CHECK(co_now() == before && device_reads(r) == 0);
    CHECK(a->buf == b->buf && b->buf_off == a->buf_off + 512); /* the same memory */
    CHECK(a->n_crc == 1 && a->crc[0] == crc32c(0, a->buf->data + a->buf_off, PAGE));
    CHECK(b->n_crc == 1 && b->crc[0] == crc32c(0, b->buf->data + b->buf_off, 1024));
    buf_put(b->buf);

    /* several pages, of which one is there */
    CHECK(engine_read(r->e, ID, 1, 98 * PAGE, 4 * PAGE, b) == 0);
    CHECK(b->n_crc == 4 && device_reads(r) == 2);
    buf_put(b->buf);
    CHECK(look(r, ID, 1, 98 * PAGE + 1024, 5 * PAGE) == byte_of(1) && device_reads(r) == 1);

    /* what a reader still has outlives its page in the cache */
    CHECK(put(r, (struct put){ID, V(1, 100), .off = BLOCK, .len = BLOCK, .byte = 7}) == 0);
    CHECK(look(r, ID, 1, 100 * PAGE, PAGE) == 7);
    CHECK(a->buf->data[a->buf_off] == byte_of(1));
    buf_put(a->buf);
    mem_free(a);
    mem_free(b);
    CHECK(stats(r).hits >= 4);
}

static void test_again(void **state)
{
    struct rig r = rig_fast(1, 0);

    (void)state;
    rig_life(&r, again_body, END_STOP);
    sim_free(r.s);
}

/* ---- a scan drives out nothing that is read often ---- */

#define HOT_PAGES 256u

static uint32_t hot(uint32_t i) /* scattered over the extent */
{
    return i * 61 % (300 * PAGES_PER_BLOCK);
}

static void hot_round(struct rig *r)
{
    for (uint32_t i = 0; i < HOT_PAGES; i++)
        read_page(r, hot(i * 37 % HOT_PAGES));
}

/* Every page of 75 MiB once, in order, with requests of `pages`; the hot ones now and then. */
static void scan_body(struct rig *r)
{
    uint32_t pages = (uint32_t)r->x[0], at = 0;

    fill(r, 300);
    for (uint32_t i = 0; i < 3; i++)
        hot_round(r);
    for (; at < 300 * PAGES_PER_BLOCK; at += pages) {
        CHECK(look(r, ID, 1, at * PAGE, pages * PAGE) == byte_of(at / PAGES_PER_BLOCK));
        if (at % 64 == 0)
            read_page(r, hot(at / 64 % HOT_PAGES));
    }
    (void)device_reads(r);
    hot_round(r);
    ASSERTF(device_reads(r) <= HOT_PAGES / 20, "the scan drove out hot pages");
    CHECK(stats(r).bytes <= r->memory_bytes);
}

static void test_scan(void **state)
{
    static const uint32_t pages[] = {1, 2, 8, 16};

    (void)state;
    for (uint32_t i = 0; i < 2 * ARRAY_SIZE(pages); i++) {
        struct rig r = rig_fast(2, 4 * MIB);

        r.x[0] = pages[i / 2];
        r.readahead = i % 2 ? READAHEAD_NEVER : 0; /* then the scan goes through the cache */
        rig_life(&r, scan_body, END_STOP);
        sim_free(r.s);
    }
}

/* ---- reading ahead ---- */

#define STREAM_PAGES 8192u

struct reader {
    struct rig *r;
    uint32_t first, pages, step;
};

static int reader_main(void *arg)
{
    struct reader *t = arg;

    for (uint32_t i = 0; i < t->pages; i += t->step)
        CHECK(look(t->r, ID, 1, (t->first + i) * PAGE, t->step * PAGE) ==
              byte_of((t->first + i) / PAGES_PER_BLOCK));
    return 0;
}

/* Bytes a second of n readers, each sequential at depth 1. */
static double readers_run(struct rig *r, uint32_t n, uint32_t step)
{
    struct reader t[8];
    struct co_group g;
    nsec_t start = co_now();

    co_group_init(&g);
    for (uint32_t i = 0; i < n; i++) {
        t[i] = (struct reader){r, i * STREAM_PAGES, STREAM_PAGES, step};
        co_spawn(&g, "reader", reader_main, &t[i]);
    }
    CHECK(co_group_join(&g) == 0);
    return (double)n * STREAM_PAGES * PAGE * (double)NSEC_PER_SEC / (double)(co_now() - start);
}

static void sequential_body(struct rig *r)
{
    uint32_t n = (uint32_t)r->x[0], step = (uint32_t)r->x[1];
    struct cache_stats st;
    uint32_t reads;
    double speed;

    fill(r, 4 * STREAM_PAGES / PAGES_PER_BLOCK);
    (void)device_reads(r);
    speed = readers_run(r, n, step);
    st = stats(r);
    ASSERTF(speed > 0.9 * (double)ssd.bytes_per_sec,
            "%u readers, %u pages at a time: %.0f MiB/s; read ahead %" PRIu64 ", used %" PRIu64, n,
            step, speed / MIB, st.ahead_read, st.ahead_used);
    /* at most a window each is read in vain, behind the reader's end */
    CHECK(st.ahead_read - st.ahead_used <= n * (MIB / PAGE));
    ASSERTF(st.misses <= n * 3 * step, "%u readers, %u pages at a time: %" PRIu64 " misses", n,
            step, st.misses);
    reads = device_reads(r);
    ASSERTF(reads < n * STREAM_PAGES / 32, "%u device reads", reads);
}

static void test_sequential(void **state)
{
    (void)state;
    for (uint32_t n = 1; n <= 4; n += 3) {
        for (uint32_t step = 1; step <= 16; step *= 4) {
            struct rig r = rig_fast(3, 0);

            r.x[0] = n;
            r.x[1] = step;
            rig_life(&r, sequential_body, END_STOP);
            sim_free(r.s);
        }
    }
}

static void off_body(struct rig *r)
{
    fill(r, STREAM_PAGES / PAGES_PER_BLOCK);
    CHECK(readers_run(r, 1, 1) < 0.05 * (double)ssd.bytes_per_sec);
    CHECK(stats(r).ahead_read == 0);
}

/* With no memory to speak of it does no harm. */
static void tiny_body(struct rig *r)
{
    fill(r, STREAM_PAGES / PAGES_PER_BLOCK);
    (void)readers_run(r, 1, 1);
    CHECK(stats(r).bytes <= r->memory_bytes);
}

static void random_body(struct rig *r)
{
    struct cache_stats st;
    uint32_t reads;

    fill(r, 256);
    (void)device_reads(r);
    for (uint32_t i = 0; i < 4000; i++)
        read_page(r, (uint32_t)(env_random() % (256 * PAGES_PER_BLOCK)));
    reads = device_reads(r);
    st = stats(r);
    CHECK(st.ahead_read == 0 && reads == st.misses && st.hits + st.misses == 4000);
}

/* Runs of six pages here and there look like streams: what is read in vain is little. */
static void jumps_body(struct rig *r)
{
    struct cache_stats st;

    fill(r, 256);
    for (uint32_t i = 0; i < 1000; i++) {
        uint32_t first = (uint32_t)(env_random() % (255 * PAGES_PER_BLOCK)) / 8 * 8;

        for (uint32_t k = 0; k < 6; k++)
            read_page(r, first + k);
    }
    st = stats(r);
    ASSERTF(st.ahead_read - st.ahead_used <= 1000 * 8, "read ahead %" PRIu64 ", used %" PRIu64,
            st.ahead_read, st.ahead_used);
}

/* Many readers, and memory for few: what is ahead of all together, with all that its buffers hold,
 * stays within its part. */
#define CROWD  4u /* extents */
#define BLOCKS (4 * STREAMS_MAX)

struct watched {
    struct rig *r;
    uint64_t id;
    uint32_t first;
};

static int watched_main(void *arg)
{
    struct watched *t = arg;

    for (uint32_t i = t->first; i < t->first + 4 * PAGES_PER_BLOCK; i++) {
        struct cache_stats st = stats(t->r);

        ASSERTF(st.ahead_bytes <= t->r->memory_bytes / 4, "%" PRIu64 " bytes", st.ahead_bytes);
        CHECK(st.ahead_bytes <= st.bytes);
        CHECK(look(t->r, t->id, 1, i * PAGE, PAGE) == byte_of(i / PAGES_PER_BLOCK));
        t->r->x[1] = MAX(t->r->x[1], st.ahead_bytes);
    }
    return 0;
}

static void crowd_body(struct rig *r)
{
    struct watched t[CROWD * STREAMS_MAX];
    struct co_group g;

    for (uint32_t id = 1; id <= CROWD; id++)
        fill_extent(r, id, BLOCKS);
    co_group_init(&g);
    for (uint32_t i = 0; i < ARRAY_SIZE(t); i++) {
        t[i] = (struct watched){r, 1 + i / STREAMS_MAX, i % STREAMS_MAX * 4 * PAGES_PER_BLOCK};
        co_spawn(&g, "reader", watched_main, &t[i]);
    }
    CHECK(co_group_join(&g) == 0);
    ASSERTF(r->x[1] > r->memory_bytes / 16, "%" PRIu64 " bytes", r->x[1]);
}

/* A buffer counts until the last of its pages has left. */
static void whole_body(struct rig *r)
{
    struct dev *d = LIST_FIRST(&r->e->devs, struct dev, link);
    struct buf *buf = buf_alloc(8 * PAGE);
    uint64_t before = stats(r).bytes;
    struct cache_run *run = NULL;

    for (uint32_t i = 0; i < 8; i++)
        CHECK(cache_ahead_begin(d, i * PAGE, &run) && stats(r).ahead_bytes == (i + 1) * PAGE);
    CHECK(stats(r).bytes >= before + 8 * PAGE);
    cache_ahead_end(d, 0, NULL, NULL, 0); /* it could not be read */
    for (uint32_t i = 1; i < 8; i++)
        cache_ahead_end(d, i * PAGE, buf, buf->data + i * PAGE, 0);
    for (uint32_t i = 1; i < 8; i++) {
        CHECK(stats(r).ahead_bytes == 8 * PAGE);
        cache_ahead_used(d, i * PAGE);
    }
    CHECK(stats(r).ahead_bytes == 0 && stats(r).bytes == before);
    buf_put(buf);
}

/* What is known of readers' streams leaves, too, when there is no room. */
static void streams_body(struct rig *r)
{
    struct memory_stats m;

    for (uint64_t id = 1; id <= 64; id++) {
        CHECK(create(r, id, 1) == 0 && open_at(r, id, 1) == 0);
        CHECK(look(r, id, 1, 0, PAGE) == 0);
    }
    engine_memory(r->e, &m);
    ASSERTF(m.streams > 0 && m.streams <= r->memory_bytes / 4, "%" PRIu64 " bytes", m.streams);
}

static void one_life(struct rig r, void (*body)(struct rig *r))
{
    rig_life(&r, body, END_STOP);
    sim_free(r.s);
}

static void test_not_ahead(void **state)
{
    struct rig off = rig_fast(4, 0);

    (void)state;
    off.readahead = READAHEAD_NEVER;
    one_life(off, off_body);
    one_life(rig_fast(4, 300 * 1024), tiny_body);
    one_life(rig_fast(4, 0), random_body);
    one_life(rig_fast(4, 0), jumps_body);
}

static void test_bounds(void **state)
{
    (void)state;
    one_life(rig_fast(6, 4 * MIB), crowd_body);
    one_life(rig_fast(6, 0), whole_body);
    one_life(rig_fast(6, 64 * 1024), streams_body);
}

/* A reader of a page that is being read ahead is woken when the device fails. */
static int hung_main(void *arg)
{
    struct rig *r = arg;

    for (uint32_t page = 0; page < 64; page++) {
        if (look(r, ID, 1, page * PAGE, PAGE) == -1)
            return 0;
        if (page == 8)
            sim_disk_fail(r->p, DISK, true);
    }
    CHECK(false);
    return 0;
}

static void failing_body(struct rig *r)
{
    fill(r, 8);
    CHECK(hung_main(r) == 0);
    sim_disk_fail(r->p, DISK, false);
    for (uint32_t page = 0; page < 256; page++)
        read_page(r, page);
}

static void test_failing(void **state)
{
    (void)state;
    one_life(rig_fast(5, 0), failing_body);
}

/* ---- nothing stale ---- */

#define AREA_BLOCKS 6u
#define AREA_PAGES  (AREA_BLOCKS * PAGES_PER_BLOCK)
#define KINDS       3u /* extents: one, another, and a child of one */

struct area {
    bool there, frozen;
    uint64_t id, epoch, gen;
    uint8_t byte[AREA_PAGES];
};

static uint32_t below(uint32_t n)
{
    return (uint32_t)(env_random() % n);
}

static void area_read(struct rig *r, const struct area *a, uint32_t first, uint32_t n)
{
    struct read_result *res = mem_alloc(sizeof(*res));
    int rc = engine_read(r->e, a->id, a->epoch, first * PAGE, n * PAGE, res);

    ASSERTF(rc == 0, "read: %s", err_text(rc));
    for (uint32_t i = 0; i < n; i++) {
        const uint8_t *data =
            res->zero ? zero_page : res->buf->data + res->buf_off + (size_t)i * PAGE;

        ASSERTF(data[0] == a->byte[first + i] && memcmp(data, data + 1, PAGE - 1) == 0,
                "extent %" PRIu64 " page %u: %u instead of %u", a->id, first + i, data[0],
                a->byte[first + i]);
        CHECK(crc32c(0, data, PAGE) == res->crc[i]);
    }
    buf_put(res->buf);
    mem_free(res);
}

static void area_read_some(struct rig *r, const struct area *a)
{
    uint32_t n = 1 + below(below(4) == 0 ? 24 : 4), first = below(AREA_PAGES - n);

    if (below(8) != 0) {
        area_read(r, a, first, n);
        return;
    }
    for (uint32_t page = first; page < MIN(first + 40, AREA_PAGES); page++) /* ahead */
        area_read(r, a, page, 1);
}

static void area_write(struct rig *r, struct area *a)
{
    static const uint32_t lengths[] = {1, 1, 2, 5, 16, 20, 64, 64, 128};
    uint32_t n = lengths[below(ARRAY_SIZE(lengths))], first = below(AREA_PAGES - n + 1);
    enum write_kind kind = below(4) != 0 ? W_DATA : below(2) ? W_ZERO : W_DISCARD;
    struct put w = {.id = a->id, .kind = kind, .byte = (uint8_t)(1 + below(255))};
    int rc;

    if (n >= PAGES_PER_BLOCK)
        first = first / PAGES_PER_BLOCK * PAGES_PER_BLOCK;
    w.v = V(a->epoch, ++a->gen);
    w.cp = V(a->gen > 1 ? a->epoch : 0, a->gen - 1);
    w.off = first * PAGE;
    w.len = n * PAGE;
    rc = put(r, w);
    ASSERTF(rc == 0, "write: %s", err_text(rc));
    memset(a->byte + first, kind == W_DATA ? w.byte : 0, n);
    area_read(r, a, first, n);
}

static void area_make(struct rig *r, struct area *areas, uint32_t i)
{
    struct area *a = &areas[i];
    struct create_args c = {.id = a->id, .epoch = 1, .volume_id = 1};
    int rc;

    if (i == 2 && areas[0].there) { /* the origin takes no more writes from here on */
        c.origin = areas[0].id;
        c.origin_epoch = areas[0].epoch;
        c.epoch = areas[0].epoch + 1;
        areas[0].frozen = true;
        CHECK(engine_commit_point(r->e, areas[0].id, areas[0].epoch,
                                  V(areas[0].epoch, areas[0].gen)) == 0);
    }
    rc = engine_create_as(r->e, &c);
    ASSERTF(rc == 0, "create: %s", err_text(rc));
    a->epoch = c.epoch + 1;
    a->gen = 0;
    CHECK(open_at(r, a->id, a->epoch) == 0);
    if (c.origin != 0)
        memcpy(a->byte, areas[0].byte, sizeof(a->byte));
    else
        memset(a->byte, 0, sizeof(a->byte));
    a->there = true;
}

static void area_delete(struct rig *r, struct area *a)
{
    CHECK(engine_delete(r->e, 1, a->id, a->epoch) == 0);
    a->there = a->frozen = false;
    a->id += KINDS; /* ids are not used twice */
}

static void stale_body(struct rig *r)
{
    struct area *areas = MEM_NEW_ARRAY(struct area, KINDS);
    uint32_t ops = (uint32_t)r->x[0];

    for (uint32_t i = 0; i < KINDS; i++)
        areas[i].id = 10 + i;
    for (uint32_t k = 0; k < ops; k++) {
        uint32_t i = below(KINDS), what = below(100);
        struct area *a = &areas[i];

        if (!a->there)
            area_make(r, areas, i);
        else if (what < 60)
            area_read_some(r, a);
        else if (what < 94 && !a->frozen)
            area_write(r, a);
        else if (what < 97)
            CHECK(engine_flush(r->e) == 0);
        else if (what < 98 || a->frozen)
            area_delete(r, a);
    }
    CHECK(stats(r).hits > 0);
    r->x[1] += stats(r).ahead_used;
    mem_free(areas);
}

static void test_stale(void **state)
{
    uint64_t used = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 24; seed++) {
        struct rig r = rig_new(seed, 24 * MIB, 2 * MIB);

        r.x[0] = 800;
        r.memory_bytes = seed % 3 == 0 ? 600 * 1024 : seed % 3 == 1 ? 2 * MIB : 0;
        rig_life(&r, stale_body, END_STOP);
        used += r.x[1];
        sim_free(r.s);
    }
    assert_true(used > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_again),      cmocka_unit_test(test_scan),
        cmocka_unit_test(test_sequential), cmocka_unit_test(test_not_ahead),
        cmocka_unit_test(test_bounds),     cmocka_unit_test(test_failing),
        cmocka_unit_test(test_stale),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
