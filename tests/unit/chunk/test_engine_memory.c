/* SPDX-License-Identifier: Apache-2.0
 *
 * More metadata than memory: many extents on a simulated disk that is far larger than what the
 * engine may use, written and read at random, judged by a model, within a bound that is checked.
 * And the time that a start takes, which must not depend on what is allocated.
 *
 * `make test` runs a small size. On demand, with a release build: ZBS_MEMORY_LARGE=1, ten million
 * blocks on 100 TiB within 1 GiB; it prints its figures. */
#include <malloc.h>
#include <time.h>
#include <unistd.h>
#include "common/base/htab.h"
#include "common/base/prng.h"
#include "tests/unit/chunk/engine_fixture.h"

#define STREAMS    64u
#define FIRST_PART (16 * PAGE_BYTES) /* of each block: written first, straight to its place */

struct size {
    const char *name;
    uint64_t disk_bytes, journal_bytes;
    uint32_t extents, blocks; /* blocks of each */
    uint64_t memory_bytes, limit_bytes;
    uint32_t ops; /* random ones, after the blocks */
};

struct over { /* a page that was written again */
    struct htab_node node;
    uint32_t word;
};
struct world {
    struct size z;
    struct sim *s;
    struct sim_proc *p;
    struct engine *e;
    bool formatted, keep; /* keep: the journal is left as it is */
    uint32_t life, journal_ops;
    uint64_t peak, ops_done;
    struct htab over;
    uint32_t *gens; /* of each extent */
    struct memory_stats mem;
    uint64_t ring_bytes; /* in use at the last start's end */
    nsec_t start_ns;     /* of the last start, by the simulated clock */
    double start_s;      /* by a real one */
    uint64_t rss_before, rss_end;
};

static double wall(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static uint64_t rss(void)
{
    FILE *f = fopen("/proc/self/statm", "r");
    unsigned long total = 0, resident = 0;

    if (f == NULL)
        return 0;
    if (fscanf(f, "%lu %lu", &total, &resident) != 2)
        resident = 0;
    fclose(f);
    return (uint64_t)resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* ---- the model ---- */

static uint64_t ext_id(uint32_t ext)
{
    return 1000 + ext;
}

/* The blocks of an extent lie apart. */
static uint32_t block_at(const struct world *w, uint32_t n)
{
    return n * (BLOCKS_PER_EXTENT / w->z.blocks);
}

static uint32_t first_word(uint32_t ext, uint32_t block)
{
    return (uint32_t)prng_mix((uint64_t)ext << 32 | block) | 1;
}

static uint64_t page_key(uint32_t ext, uint32_t page)
{
    return (uint64_t)ext << 32 | page;
}

static uint32_t page_word(const struct world *w, uint32_t ext, uint32_t page)
{
    const struct over *o = HTAB_FIND(&w->over, page_key(ext, page), struct over, node);

    if (o != NULL)
        return o->word;
    return page % PAGES_PER_BLOCK < FIRST_PART / PAGE_BYTES
               ? first_word(ext, page / PAGES_PER_BLOCK)
               : 0;
}

static void page_word_set(struct world *w, uint32_t ext, uint32_t page, uint32_t word)
{
    struct over *o = HTAB_FIND(&w->over, page_key(ext, page), struct over, node);

    if (o == NULL) {
        struct mem_heap *heap = mem_heap_set(NULL); /* the model outlives the process */

        o = calloc(1, sizeof(*o));
        htab_insert(&w->over, &o->node, page_key(ext, page));
        (void)mem_heap_set(heap);
    }
    o->word = word;
}

/* ---- requests ---- */

static void words_fill(uint8_t *dst, uint32_t len, uint32_t word)
{
    memcpy(dst, &word, 4);
    for (uint32_t n = 4; n < len; n *= 2)
        memcpy(dst + n, dst, MIN(n, len - n));
}

static void write_word(struct world *w, uint32_t ext, uint32_t off, uint32_t len, uint32_t word)
{
    uint32_t crcs[FIRST_PART / PAGE_BYTES];
    struct write_args a = {.id = ext_id(ext), .off = off, .len = len, .crc = crcs};
    struct write_result res;
    int rc;

    a.v = V(w->life, ++w->gens[ext]);
    if (a.v.gen > 1)
        a.commit_point = V(w->life, a.v.gen - 1);
    a.payload = buf_alloc(len);
    words_fill(a.payload->data, len, word);
    a.n_crc = len / PAGE_BYTES;
    for (uint32_t i = 0; i < a.n_crc; i++)
        crcs[i] = i == 0 ? crc32c(0, a.payload->data, PAGE_BYTES) : crcs[0];
    rc = engine_write(w->e, &a, &res);
    ASSERTF(rc == 0, "write: %s", err_text(rc));
    buf_put(a.payload);
}

static void read_page(struct world *w, uint32_t ext, uint32_t page)
{
    struct read_result *r = mem_alloc(sizeof(*r));
    uint32_t want = page_word(w, ext, page), got = 0;
    int rc = engine_read(w->e, ext_id(ext), w->life, page * PAGE_BYTES, PAGE_BYTES, r);

    ASSERTF(rc == 0, "read: %s", err_text(rc));
    for (uint32_t i = 0; i < PAGE_BYTES; i += 4) {
        if (!r->zero)
            memcpy(&got, r->buf->data + r->buf_off + i, 4);
        ASSERTF(got == want, "extent %u page %u: %#x, not %#x", ext, page, got, want);
    }
    buf_put(r->buf);
    mem_free(r);
}

/* ---- streams, each with extents of its own ---- */

struct stream {
    struct world *w;
    uint32_t n;
    void (*fn)(struct stream *st, uint32_t ext);
    uint32_t ops; /* 0: fn once for each extent; else at random */
    uint64_t rng;
};

static uint32_t below(struct stream *st, uint32_t n)
{
    return (uint32_t)((prng_mix(++st->rng) >> 16) % n);
}

static int stream_main(void *arg)
{
    struct stream *st = arg;
    uint32_t extents = st->w->z.extents, mine = (extents - st->n + STREAMS - 1) / STREAMS;

    for (uint32_t i = 0; i < (st->ops > 0 ? st->ops : mine); i++)
        st->fn(st, st->n + STREAMS * (st->ops > 0 ? below(st, mine) : i));
    return 0;
}

static void streams_run(struct world *w, void (*fn)(struct stream *st, uint32_t ext), uint32_t ops)
{
    struct stream st[STREAMS];
    struct co_group g;

    co_group_init(&g);
    for (uint32_t i = 0; i < MIN(STREAMS, w->z.extents); i++) {
        st[i] = (struct stream){w, i, fn, ops / STREAMS, (uint64_t)w->life << 40 | i << 24};
        co_spawn(&g, "stream", stream_main, &st[i]);
    }
    CHECK(co_group_join(&g) == 0);
}

static void open_one(struct stream *st, uint32_t ext)
{
    struct world *w = st->w;
    struct open_info oi;

    if (w->life == 1)
        CHECK(engine_create(w->e, ext_id(ext), 1, 1, ext) == 0);
    CHECK(engine_open(w->e, ext_id(ext), w->life, 0, &oi) == 0);
    open_info_free(&oi);
    w->gens[ext] = 0;
}

static void build_one(struct stream *st, uint32_t ext)
{
    for (uint32_t n = 0; n < st->w->z.blocks; n++) {
        uint32_t block = block_at(st->w, n);

        write_word(st->w, ext, block * BLOCK_BYTES, FIRST_PART, first_word(ext, block));
    }
}

static uint32_t page_any(struct stream *st)
{
    return block_at(st->w, below(st, st->w->z.blocks)) * PAGES_PER_BLOCK +
           below(st, PAGES_PER_BLOCK);
}

static void write_any(struct stream *st, uint32_t ext)
{
    uint32_t page = page_any(st), word = (uint32_t)++st->w->ops_done * 2 + 2;

    write_word(st->w, ext, page * PAGE_BYTES, PAGE_BYTES, word);
    page_word_set(st->w, ext, page, word);
}

static void mixed_op(struct stream *st, uint32_t ext)
{
    if (below(st, 2) == 0)
        write_any(st, ext);
    else
        read_page(st->w, ext, page_any(st));
}

static void read_op(struct stream *st, uint32_t ext)
{
    read_page(st->w, ext, page_any(st));
}

/* ---- lives ---- */

static void engine_begin(struct world *w)
{
    struct engine_conf conf = {.workers = 1, .memory_bytes = w->z.memory_bytes};
    struct chunk_format_conf fc = {.journal_bytes = w->z.journal_bytes, .force = true};
    struct super_block *sb = mem_alloc(sizeof(*sb));
    struct dev_stats ds;
    nsec_t began;
    double real;
    int rc;

    if (!w->formatted)
        CHECK(chunk_format(DISK, &fc) == 0);
    w->formatted = true;
    if (w->keep)
        conf.flush_delay_ms = 1000000;
    CHECK(super_read(DISK, sb) == 0);
    w->life++;
    w->e = engine_new(&conf);
    began = co_now();
    real = wall();
    rc = engine_dev_add(w->e, DISK, sb);
    ASSERTF(rc == 0, "start: %s", err_text(rc));
    w->start_ns = co_now() - began;
    w->start_s = wall() - real;
    mem_free(sb);
    engine_dev_stats(w->e, 0, &ds);
    w->ring_bytes = ds.journal_used_bytes;
    engine_memory(w->e, &w->mem);
}

static void engine_end(struct world *w)
{
    engine_memory(w->e, &w->mem);
    w->rss_end = rss();
    engine_stop(w->e);
    w->peak = mem_heap_peak(mem_heap_current());
}

static int life_build(void *arg)
{
    struct world *w = arg;

    engine_begin(w);
    streams_run(w, open_one, 0);
    streams_run(w, build_one, 0);
    CHECK(engine_flush(w->e) == 0);
    engine_end(w);
    return 0;
}

static int life_random(void *arg)
{
    struct world *w = arg;

    engine_begin(w);
    streams_run(w, open_one, 0);
    streams_run(w, mixed_op, w->z.ops);
    engine_end(w); /* what is not home stays in the journal */
    return 0;
}

static int life_verify(void *arg)
{
    struct world *w = arg;
    int rc;

    engine_begin(w);
    streams_run(w, open_one, 0);
    streams_run(w, read_op, w->z.ops);
    rc = engine_check(w->e);
    ASSERTF(rc == 0, "check: %s", err_text(rc));
    engine_end(w);
    return 0;
}

/* A journal of a given length, whatever is allocated. */
static int life_journal(void *arg)
{
    struct world *w = arg;

    w->keep = false;
    engine_begin(w);
    CHECK(engine_flush(w->e) == 0);
    engine_stop(w->e);
    w->keep = true;
    engine_begin(w);
    streams_run(w, open_one, STREAMS);
    for (uint32_t i = 0; i < w->journal_ops; i++) {
        struct stream st = {.w = w, .rng = i * 1000003ull};
        uint32_t ext = below(&st, MIN(STREAMS, w->z.extents));

        if (engine_check_epoch(w->e, ext_id(ext), w->life) < 0)
            open_one(&st, ext);
        write_any(&st, ext);
    }
    engine_end(w);
    return 0;
}

static int life_start(void *arg)
{
    struct world *w = arg;

    engine_begin(w);
    engine_end(w);
    return 0;
}

static bool world_still(void *arg)
{
    return !sim_proc_running(arg);
}

static void live(struct world *w, const char *what, int (*fn)(void *arg))
{
    double began = wall();

    malloc_trim(0);
    w->peak = 0;
    w->rss_before = rss();
    sim_proc_start(w->p, fn, w);
    assert_true(sim_run_until(w->s, world_still, w->p, SEC(1000000)));
    assert_null(sim_proc_halted(w->p));
    assert_int_equal(sim_proc_result(w->p), 0);
    print_message("%s, %s: %.1f s; peak %.1f MiB of %.1f; start %.1f ms, simulated %.1f ms, with "
                  "%.1f MiB of journal; fixed %.1f MiB; map pages: %" PRIu64 " read, %" PRIu64
                  " evicted; process grew by "
                  "%.1f MiB, what the disk gained included\n",
                  w->z.name, what, wall() - began, (double)w->peak / (double)MIB,
                  (double)w->z.limit_bytes / (double)MIB, w->start_s * 1e3,
                  (double)w->start_ns / 1e6, (double)w->ring_bytes / (double)MIB,
                  (double)w->mem.fixed / (double)MIB, w->mem.meta_reads, w->mem.evicted,
                  ((double)w->rss_end - (double)w->rss_before) / (double)MIB);
    assert_true(w->peak <= w->z.limit_bytes);
}

static struct world *world_of(const struct size *z)
{
    static const struct sim_disk_speed nvme = {
        .latency = 80000, .per_request = 1000, .bytes_per_sec = 2ull << 30};
    struct world *w = calloc(1, sizeof(*w));

    w->z = *z;
    w->s = world_new(1);
    w->p = sim_proc_new(w->s, HOST_A, "chunk");
    sim_disk_create(w->p, DISK, z->disk_bytes);
    sim_disk_pack(w->p, DISK);
    sim_disk_set_speed(w->p, DISK, &nvme);
    htab_init(&w->over);
    w->gens = calloc(z->extents, sizeof(*w->gens));
    return w;
}

static void world_end(struct world *w)
{
    HTAB_FOREACH (o, &w->over, struct over, node) {
        htab_remove(&w->over, &o->node);
        free(o);
    }
    htab_fini(&w->over);
    sim_free(w->s);
    free(w->gens);
    free(w);
}

/* ---- tests ---- */

static void paging(const struct size *z)
{
    struct world *w = world_of(z);

    live(w, "build", life_build);
    live(w, "random", life_random);
    /* Of all map pages only a part had room. */
    assert_true(w->mem.evicted > z->ops / 2);
    live(w, "verify", life_verify);
    world_end(w);
}

static void test_paging(void **state)
{
    static const struct size small = {.name = "1 TiB, 100,000 blocks",
                                      .disk_bytes = 1ull << 40,
                                      .journal_bytes = 8 << 20,
                                      .extents = 400,
                                      .blocks = 250,
                                      .memory_bytes = 16 << 20,
                                      .limit_bytes = 24 << 20,
                                      .ops = 20000};

    (void)state;
    paging(&small);
}

static void test_paging_large(void **state)
{
    static const struct size large = {.name = "100 TiB, 10,000,000 blocks",
                                      .disk_bytes = 100ull << 40,
                                      .journal_bytes = 512 << 20,
                                      .extents = 20000,
                                      .blocks = 500,
                                      .memory_bytes = 900ull << 20,
                                      .limit_bytes = 1ull << 30,
                                      .ops = 1000000};

    (void)state;
    if (getenv("ZBS_MEMORY_LARGE") == NULL)
        skip();
    paging(&large);
}

/* The same journal over little and over much: returns the simulated time of a start. */
static nsec_t start_time(const struct size *z, uint32_t journal_ops, uint64_t *ret_ring_bytes)
{
    struct world *w = world_of(z);
    nsec_t ns;

    live(w, "build", life_build);
    w->journal_ops = journal_ops;
    live(w, "journal", life_journal);
    live(w, "start", life_start);
    ns = w->start_ns;
    *ret_ring_bytes = w->ring_bytes;
    world_end(w);
    return ns;
}

static void starts(struct size z, uint32_t few, uint32_t many, uint32_t journal_ops)
{
    uint64_t ring_little, ring_much;
    nsec_t little, much;

    z.extents = few;
    z.name = "little allocated";
    little = start_time(&z, journal_ops, &ring_little);
    z.extents = many;
    z.name = "much allocated";
    much = start_time(&z, journal_ops, &ring_much);
    print_message("a start takes %.1f ms with %u extents, %.1f ms with %u\n", (double)little / 1e6,
                  few, (double)much / 1e6, many);
    assert_true(ring_little >= (uint64_t)journal_ops * PAGE_BYTES);
    assert_true(ring_much < ring_little + ring_little / 50);
    assert_true(much < little * 12 / 10);
}

static void test_starts(void **state)
{
    static const struct size z = {.disk_bytes = 1ull << 40,
                                  .journal_bytes = 512 << 20,
                                  .blocks = 1,
                                  .memory_bytes = 64 << 20,
                                  .limit_bytes = 96 << 20};

    (void)state;
    starts(z, 1, 1024, 20000);
}

static void test_starts_large(void **state)
{
    static const struct size z = {.disk_bytes = 2ull << 40,
                                  .journal_bytes = 512 << 20,
                                  .blocks = BLOCKS_PER_EXTENT,
                                  .memory_bytes = 900ull << 20,
                                  .limit_bytes = 1ull << 30};

    (void)state;
    if (getenv("ZBS_MEMORY_LARGE") == NULL)
        skip();
    starts(z, 4, 4096, 30000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_paging),
        cmocka_unit_test(test_starts),
        cmocka_unit_test(test_paging_large),
        cmocka_unit_test(test_starts_large),
    };

    log_threshold = LOG_LV_ERROR;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
