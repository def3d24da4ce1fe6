/* SPDX-License-Identifier: Apache-2.0
 *
 * A model of what an engine must hold, and a random workload that keeps it. The model lives
 * outside the simulated process, so that it survives the crashes that it judges. Each sector of
 * a write carries the write's number, so that a sector read back names the write it came from. */
#ifndef ZBS_TESTS_ENGINE_MODEL_H
#define ZBS_TESTS_ENGINE_MODEL_H

#include <inttypes.h>
#include "chunk/chunkd.h"
#include "chunk/engine.h"
#include "common/base/crc32c.h"
#include "common/co/sync.h"
#include "tests/unit/common/sim_fixture.h"

#define DISK  "/dev/chunk"
#define DISK2 "/dev/second"
#ifndef EXTENTS /* a test may ask for less */
#define EXTENTS       3u
#define STREAMS       4u
#define STREAM_BLOCKS 3u /* each stream has its own blocks of every extent */
#endif
#define MODEL_BLOCKS  (STREAMS * STREAM_BLOCKS)
#define MODEL_PAGES   (MODEL_BLOCKS * PAGES_PER_BLOCK)
#define MODEL_SECTORS (MODEL_PAGES * SECTORS_PER_PAGE)
#define EXTENT_ID(i)  (1000u + (i))
#define FAR_BLOCK     500u /* the last stream's blocks lie here, in other map pages */

struct model_extent {
    uint32_t acked[MODEL_SECTORS]; /* number of the write it must hold; 0: zeroes */
    uint32_t maybe[MODEL_SECTORS]; /* in flight: it may hold this one instead */
    bool in_flight[MODEL_SECTORS];
    struct version page_acked[MODEL_PAGES]; /* last acknowledged */
    uint64_t gen;                           /* last given out */
    uint64_t in_flight_gen[STREAMS];        /* 0: none */
    struct version cp_sent;                 /* highest commit point that was acknowledged */
    bool created, deleting;
    bool unborn; /* its creation as a child was not confirmed */
    bool frozen; /* it has children: only read */
};
struct model {
    struct sim *s;
    struct sim_proc *p;
    uint64_t disk_bytes, journal_bytes;
    uint32_t flush_delay_ms;
    uint64_t memory_bytes;
    uint32_t disks; /* 0: one; extents move between them all the time */
    enum {
        NO_GUEST,
        GUEST,
        GUEST_ALONE
    } guest;         /* the second disk's journals are on the first;
                      * alone: which has no extents */
    bool deletes;    /* an extent is deleted and made again in each life */
    bool children;   /* or made again as a child of another */
    bool sequential; /* the streams continue one another's writes, but for one */
    uint32_t ops;    /* of each stream in one life */
    uint64_t rng;    /* of the workload */
    bool formatted;
    uint64_t epoch;
    uint32_t writes; /* numbers given out */
    uint64_t ops_done, reads_done, lives, drains, born;
    struct model_extent x[EXTENTS];
    struct engine *e; /* of the running life */
    struct {
        uint32_t ext, at; /* sector */
        uint32_t sectors; /* of a request, at most */
        enum write_kind kind;
    } seq;
};

static inline uint64_t model_random(struct model *m)
{
    m->rng ^= m->rng << 13;
    m->rng ^= m->rng >> 7;
    m->rng ^= m->rng << 17;
    return m->rng;
}
static inline uint32_t model_below(struct model *m, uint32_t n)
{
    return (uint32_t)(model_random(m) >> 20) % n;
}

/* Where the model's block lies in the extent. */
static inline uint32_t model_block(uint32_t b)
{
    return b < MODEL_BLOCKS - STREAM_BLOCKS ? b : FAR_BLOCK + b;
}
static inline uint32_t model_off(uint32_t sector)
{
    uint32_t per_block = PAGES_PER_BLOCK * SECTORS_PER_PAGE;

    return model_block(sector / per_block) * BLOCK_BYTES + sector % per_block * SECTOR_BYTES;
}

static inline void sector_fill(uint8_t *dst, uint32_t number, uint32_t sector)
{
    uint32_t words[SECTOR_BYTES / 4];

    for (uint32_t i = 0; i < ARRAY_SIZE(words); i++)
        words[i] = number == 0 ? 0 : number * 2654435761u + sector * 40503u + i;
    if (number != 0)
        words[0] = number;
    memcpy(dst, words, SECTOR_BYTES);
}

/* Checks what was read against the model; what was ambiguous is settled by it. */
static inline void sectors_check(struct model *m, uint32_t ext, uint32_t first, uint32_t n,
                                 const uint8_t *data)
{
    struct model_extent *x = &m->x[ext];

    for (uint32_t i = 0; i < n; i++) {
        uint32_t s = first + i, number;
        uint8_t want[SECTOR_BYTES];

        memcpy(&number, data + (size_t)i * SECTOR_BYTES, 4);
        ASSERTF(number == x->acked[s] || (x->in_flight[s] && number == x->maybe[s]),
                "extent %u sector %u: holds write %u, acknowledged %u, in flight %d %u", ext, s,
                number, x->acked[s], x->in_flight[s], x->maybe[s]);
        sector_fill(want, number, s);
        ASSERTF(memcmp(want, data + (size_t)i * SECTOR_BYTES, SECTOR_BYTES) == 0,
                "extent %u sector %u: its content is not write %u's", ext, s, number);
        x->acked[s] = number;
        x->in_flight[s] = false;
    }
}

static inline void model_read(struct model *m, uint32_t ext, uint32_t first, uint32_t n)
{
    static const uint8_t zeroes[READ_MAX_BYTES];
    struct read_result *r = mem_alloc(sizeof(*r));
    int rc = engine_read(m->e, EXTENT_ID(ext), m->epoch, model_off(first), n * SECTOR_BYTES, r);
    const uint8_t *data;
    uint32_t at = 0, page_off = model_off(first) % PAGE_BYTES;

    ASSERTF(rc == 0, "read: %s", err_text(rc));
    data = r->zero ? zeroes : r->buf->data + r->buf_off;
    for (uint32_t i = 0; i < r->n_crc; i++) {
        uint32_t len = MIN(PAGE_BYTES - page_off, n * SECTOR_BYTES - at);

        ASSERTF(crc32c(0, data + at, len) == r->crc[i], "checksum of piece %u", i);
        at += len;
        page_off = 0;
    }
    sectors_check(m, ext, first, n, data);
    buf_put(r->buf);
    mem_free(r);
    m->reads_done++;
}

/* The commit point that an owner would know: everything below what is in flight. */
static inline struct version model_cp(struct model *m, uint32_t ext)
{
    struct model_extent *x = &m->x[ext];
    uint64_t gen = x->gen;

    for (uint32_t i = 0; i < STREAMS; i++) {
        if (x->in_flight_gen[i] != 0)
            gen = MIN(gen, x->in_flight_gen[i] - 1);
    }
    return (struct version){gen > 0 ? m->epoch : 0, gen};
}

static inline void model_write(struct model *m, uint32_t ext, uint32_t stream, uint32_t first,
                               uint32_t n, enum write_kind kind, bool with_cp)
{
    struct model_extent *x = &m->x[ext];
    uint32_t number = kind == W_DATA ? ++m->writes : 0, off = model_off(first), crcs[1026];
    bool as_data = kind == W_DATA || (kind == W_ZERO && model_below(m, 2) != 0);
    struct write_args a = {.id = EXTENT_ID(ext),
                           .kind = as_data ? W_DATA : kind,
                           .off = off,
                           .len = n * SECTOR_BYTES,
                           .crc = crcs};
    struct write_result res;
    uint32_t page_off = off % PAGE_BYTES, at = 0;
    int rc;

    if (with_cp)
        a.commit_point = model_cp(m, ext);
    a.v = (struct version){m->epoch, ++x->gen};
    x->in_flight_gen[stream] = x->gen;
    if (as_data) {
        a.payload = buf_alloc(a.len);
        for (uint32_t i = 0; i < n; i++)
            sector_fill(a.payload->data + (size_t)i * SECTOR_BYTES, number, first + i);
        for (; at < a.len; page_off = 0) {
            uint32_t len = MIN(PAGE_BYTES - page_off, a.len - at);

            crcs[a.n_crc++] = crc32c(0, a.payload->data + at, len);
            at += len;
        }
    }
    for (uint32_t i = 0; i < n; i++) {
        x->maybe[first + i] = number;
        x->in_flight[first + i] = true;
    }
    rc = engine_write(m->e, &a, &res);
    ASSERTF(rc == 0, "write of %u sectors at %u, kind %d: %s", n, first, kind, err_text(rc));
    buf_put(a.payload);
    for (uint32_t i = 0; i < n; i++) {
        x->acked[first + i] = number;
        x->in_flight[first + i] = false;
        x->page_acked[(first + i) / SECTORS_PER_PAGE] = a.v;
    }
    x->in_flight_gen[stream] = 0;
    if (version_cmp(a.commit_point, x->cp_sent) > 0)
        x->cp_sent = a.commit_point;
    m->ops_done++;
}

/* ---- one stream of requests ---- */

#define SEQ_SECTORS ((STREAMS - 1) * STREAM_BLOCKS * PAGES_PER_BLOCK * SECTORS_PER_PAGE)

static inline bool model_idle(const struct model *m, uint32_t ext)
{
    for (uint32_t i = 0; i < STREAMS; i++) {
        if (m->x[ext].in_flight_gen[i] != 0)
            return false;
    }
    return true;
}

/* Each pass has its own extent, length of requests, and kind. */
static inline bool model_seq_begin(struct model *m)
{
    static const uint32_t lengths[] = {8, 32, 32, 48, 64, 128, 256, 512, 31};
    bool data = model_below(m, 4) != 0;

    m->seq.ext = model_below(m, EXTENTS);
    m->seq.kind = data ? W_DATA : model_below(m, 2) ? W_ZERO : W_DISCARD;
    m->seq.sectors =
        data ? lengths[model_below(m, ARRAY_SIZE(lengths))] : PAGES_PER_BLOCK * SECTORS_PER_PAGE;
    m->seq.at = 0;
    return model_idle(m, m->seq.ext);
}

/* The owner orders writes that touch the same page (PROTOCOL 3.1). */
static inline void model_await_pages(struct model *m, uint32_t ext, uint32_t first, uint32_t n)
{
    uint32_t end = ROUND_UP(first + n, SECTORS_PER_PAGE);

    for (uint32_t s = ROUND_DOWN(first, SECTORS_PER_PAGE); s < end; s++) {
        while (m->x[ext].in_flight[s])
            (void)co_sleep(50 * NSEC_PER_USEC);
    }
}

/* The next piece of a sequential pass over the blocks that are neighbours. */
static inline void model_seq_op(struct model *m, uint32_t stream)
{
    enum write_kind kind;
    uint32_t ext, at, n;

    while ((m->seq.at == SEQ_SECTORS || m->seq.sectors == 0) && !model_seq_begin(m)) {
        m->seq.sectors = 0; /* another's request of the pass before is under way */
        (void)co_sleep(100 * NSEC_PER_USEC);
    }
    at = m->seq.at;
    n = MIN(m->seq.sectors, SEQ_SECTORS - at);
    m->seq.at = at + n;
    ext = m->seq.ext;
    if (m->x[ext].frozen)
        return;
    kind = m->seq.kind;
    model_await_pages(m, ext, at, n);
    model_write(m, ext, stream, at, n, kind, model_below(m, 4) != 0);
}

static inline void model_op(struct model *m, uint32_t stream)
{
    uint32_t ext = model_below(m, EXTENTS), kind = model_below(m, 100);
    uint32_t base = stream * STREAM_BLOCKS * PAGES_PER_BLOCK * SECTORS_PER_PAGE;
    uint32_t room = STREAM_BLOCKS * PAGES_PER_BLOCK * SECTORS_PER_PAGE;
    uint32_t block = PAGES_PER_BLOCK * SECTORS_PER_PAGE, first, n;
    bool cp = model_below(m, 4) != 0;

    if (m->sequential && (STREAMS == 2 || stream < STREAMS - 1)) {
        model_seq_op(m, stream);
        return;
    }
    if (kind < 35) { /* a page or so, aligned */
        n = SECTORS_PER_PAGE * (1 + model_below(m, 3));
        first = model_below(m, (room - n) / 8) * 8;
    } else if (kind < 50) { /* sectors */
        n = 1 + model_below(m, 30);
        first = model_below(m, room - n);
    } else if (kind < 65) { /* large, aligned */
        n = SECTORS_PER_PAGE * (16 + model_below(m, 48));
        first = model_below(m, (room - n) / 8) * 8;
    } else if (kind < 75) { /* whole blocks */
        n = block * (1 + model_below(m, STREAM_BLOCKS));
        first = model_below(m, (room - n) / block + 1) * block;
    } else { /* anything, over block boundaries */
        n = 1 + model_below(m, room - 1);
        first = model_below(m, room - n);
    }
    if (kind >= 85 || m->x[ext].frozen) {
        model_read(m, ext, base + first, n);
        return;
    }
    model_write(m, ext, stream, base + first, n,
                model_below(m, 10) < 8 ? W_DATA
                : model_below(m, 2)    ? W_ZERO
                                       : W_DISCARD,
                cp);
}

struct model_stream {
    struct model *m;
    uint32_t stream;
};

static inline int model_stream_main(void *arg)
{
    struct model_stream *ms = arg;

    for (uint32_t i = 0; i < ms->m->ops; i++)
        model_op(ms->m, ms->stream);
    return 0;
}

/* ---- one life of the process ---- */

static inline bool open_has(const struct open_info *oi, uint32_t page, struct version v)
{
    for (uint32_t i = 0; i < oi->n_uncommitted; i++) {
        const struct uncommitted *u = &oi->uncommitted[i];

        if (page >= u->first && page <= u->last)
            return version_cmp(u->v, v) >= 0;
    }
    return false;
}

/* PROTOCOL 2.2, 2.3: what is above the commit point must be known after any crash. */
static inline void model_open_check(struct model *m, uint32_t ext, const struct open_info *oi)
{
    struct model_extent *x = &m->x[ext];

    ASSERT(!oi->is_void);
    ASSERTF(version_cmp(oi->commit_point, x->cp_sent) >= 0, "the commit point went back");
    for (uint32_t p = 0; p < MODEL_PAGES; p++) {
        uint32_t page = model_off(p * SECTORS_PER_PAGE) / PAGE_BYTES;

        ASSERTF(version_cmp(x->page_acked[p], oi->last_version) <= 0, "the last version went back");
        if (version_cmp(x->page_acked[p], oi->commit_point) > 0)
            ASSERTF(open_has(oi, page, x->page_acked[p]),
                    "extent %u page %u: version %" PRIu64 ".%" PRIu64 " is not reported", ext, page,
                    x->page_acked[p].epoch, x->page_acked[p].gen);
    }
}

static inline void model_extent_gone(struct model *m, uint32_t ext)
{
    memset(&m->x[ext], 0, sizeof(m->x[ext]));
}

/* Its blocks are used by the others afterwards, and by itself when it comes again. */
static inline void model_delete(struct model *m, uint32_t ext)
{
    int rc;

    m->x[ext].deleting = true;
    rc = engine_delete(m->e, 1, EXTENT_ID(ext), m->epoch);
    ASSERTF(rc == 0, "delete: %s", err_text(rc));
    model_extent_gone(m, ext);
}

/* An extent comes again as a child of another one, which nobody is writing to. */
static inline void model_child(struct model *m)
{
    uint32_t from = model_below(m, EXTENTS),
             to = (from + 1 + model_below(m, EXTENTS - 1)) % EXTENTS;
    struct create_args a = {.id = EXTENT_ID(to),
                            .epoch = m->epoch + 1,
                            .volume_id = 7,
                            .slot = to,
                            .origin = EXTENT_ID(from),
                            .origin_epoch = m->epoch};
    struct version cp = {m->epoch, m->x[from].gen};
    int rc;

    model_delete(m, to);
    rc = engine_commit_point(m->e, EXTENT_ID(from), m->epoch, cp);
    if (rc == 0)
        rc = engine_vouch(m->e, EXTENT_ID(from), m->epoch);
    ASSERTF(rc == 0, "commit point: %s", err_text(rc));
    if (version_cmp(cp, m->x[from].cp_sent) > 0)
        m->x[from].cp_sent = cp;
    m->x[to] = m->x[from];
    m->x[to].unborn = true;
    m->x[to].frozen = false;
    rc = engine_create_as(m->e, &a);
    ASSERTF(rc == 0, "child: %s", err_text(rc));
    m->x[to].unborn = false;
    m->x[from].frozen = true;
    m->born++;
}

/* Pages that the difference does not name are equal. */
static inline void model_diff(struct model *m, uint32_t a, uint32_t b)
{
    struct page_range r[64] = {0};
    struct diff_result res;
    uint32_t n = 0, i = 0;
    bool more = true;

    for (uint32_t p = 0; p < MODEL_PAGES; p++) {
        uint32_t page = model_off(p * SECTORS_PER_PAGE) / PAGE_BYTES, s = p * SECTORS_PER_PAGE;
        bool equal = memcmp(&m->x[a].acked[s], &m->x[b].acked[s],
                            SECTORS_PER_PAGE * sizeof(m->x[a].acked[0])) == 0;

        while (i < n && r[i].first + r[i].count <= page)
            i++;
        if (i == n && more) {
            int rc = engine_diff(m->e, EXTENT_ID(a), EXTENT_ID(b), page, r, 64, &res);

            ASSERTF(rc == 0, "diff: %s", err_text(rc));
            n = res.count;
            more = res.more;
            i = 0;
        }
        ASSERTF(equal || (i < n && page >= r[i].first),
                "extents %u and %u, page %u: the difference does not name it", a, b, page);
    }
}

static inline void model_open_all(struct model *m)
{
    m->epoch++;
    for (uint32_t i = 0; i < EXTENTS; i++) {
        struct open_info oi;
        int rc;

        if (m->x[i].deleting && engine_check_epoch(m->e, EXTENT_ID(i), 1) == ERR_NO_REPLICA)
            model_extent_gone(m, i);
        m->x[i].deleting = false;
        if (m->x[i].unborn && engine_check_epoch(m->e, EXTENT_ID(i), 1) == ERR_NO_REPLICA)
            model_extent_gone(m, i);
        m->x[i].unborn = false;
        if (!m->x[i].created) {
            rc = engine_create(m->e, EXTENT_ID(i), m->epoch, 7, i);
            ASSERTF(rc == 0, "create: %s", err_text(rc));
            m->x[i].created = true;
        }
        rc = engine_open(m->e, EXTENT_ID(i), m->epoch, 1, &oi);
        ASSERTF(rc == 0, "open: %s", err_text(rc));
        model_open_check(m, i, &oi);
        ASSERT(oi.frozen || !m->x[i].frozen);
        m->x[i].frozen = oi.frozen;
        open_info_free(&oi);
        memset(m->x[i].in_flight_gen, 0, sizeof(m->x[i].in_flight_gen));
        m->x[i].gen = 0;
    }
}

static inline void model_verify(struct model *m)
{
    uint32_t step = PAGES_PER_BLOCK * SECTORS_PER_PAGE;
    int rc;

    for (uint32_t i = 0; i < EXTENTS; i++) {
        for (uint32_t s = 0; s < MODEL_SECTORS; s += step)
            model_read(m, i, s, step);
    }
    for (uint32_t i = 1; i < EXTENTS && m->children; i++)
        model_diff(m, i - 1, i);
    rc = engine_check(m->e);
    ASSERTF(rc == 0, "check: %s", err_text(rc));
}

/* Formats the disks, or opens one. */
static inline void model_format(struct model *m)
{
    struct chunk_format_conf fc = {.workers = 1,
                                   .journal_bytes = m->journal_bytes,
                                   .guests = m->guest != NO_GUEST ? 2 : 0,
                                   .force = true};
    int rc = chunk_format(DISK, &fc);

    ASSERTF(rc == 0, "format: %s", err_text(rc));
    fc.guests = 0;
    fc.journal_on = m->guest != NO_GUEST ? DISK : NULL;
    rc = m->disks > 1 || m->guest != NO_GUEST ? chunk_format(DISK2, &fc) : 0;
    ASSERTF(rc == 0, "format: %s", err_text(rc));
    m->formatted = true;
}

static inline void model_disk_open(struct model *m, const char *path)
{
    struct super_block *sb = mem_alloc(sizeof(*sb)), *on = mem_alloc(sizeof(*on));
    struct journal_host host = {.path = DISK, .sb = on};
    int rc = super_read(path, sb);

    if (rc == 0)
        rc = super_read(DISK, on);
    ASSERTF(rc == 0, "superblock: %s", err_text(rc));
    rc = engine_dev_add_guest(m->e, path, sb, super_is_guest(sb) ? &host : NULL);
    ASSERTF(rc == 0, "open: %s", err_text(rc));
    mem_free(on);
    mem_free(sb);
}

static inline void model_start(struct model *m)
{
    struct engine_conf conf = {
        .workers = 1, .flush_delay_ms = m->flush_delay_ms, .memory_bytes = m->memory_bytes};
    static const char *const paths[] = {DISK, DISK2};
    uint32_t disks = MAX(m->disks, 1u);

    m->lives++;
    if (!m->formatted)
        model_format(m);
    m->e = engine_new(&conf);
    for (uint32_t i = 0; i < disks; i++) /* opened in this order and that */
        model_disk_open(m, m->guest == GUEST_ALONE ? DISK2 : paths[(i + m->lives) % disks]);
}

/* ---- extents move between the disks, all the time ---- */

static inline int model_mover_main(void *arg)
{
    struct model *m = arg;

    for (uint32_t i = 0; !co_canceled(); i++) {
        const char *from = i % 2 ? DISK2 : DISK;
        int rc = engine_drain(m->e, from);

        ASSERTF(rc == 0, "drain: %s", err_text(rc));
        if (m->rng % 3 != 0)
            rc = engine_drain_wait(m->e, from);
        else
            (void)co_sleep((nsec_t)(m->rng % 30) * NSEC_PER_MSEC);
        ASSERTF(rc == 0 || rc == ERR_NOSPACE, "drain: %s", err_text(rc));
        m->drains += rc == 0;
        engine_drain_stop(m->e, from);
        (void)co_sleep(NSEC_PER_MSEC);
    }
    return 0;
}

static inline int model_main(void *arg)
{
    struct model *m = arg;
    struct model_stream ms[STREAMS];
    struct co_group g, movers;
    struct cache_stats cache;

    co_group_init(&movers);
    model_start(m);
    model_open_all(m);
    model_verify(m);
    for (uint32_t round = 0; round < 2; round++) {
        co_group_init(&g);
        if (m->disks > 1)
            co_spawn(&movers, "mover", model_mover_main, m);
        for (uint32_t i = 0; i < STREAMS; i++) {
            ms[i] = (struct model_stream){m, i};
            co_spawn(&g, "stream", model_stream_main, &ms[i]);
        }
        CHECK(co_group_join(&g) == 0);
        if (round == 0 && m->deletes) {
            model_delete(m, model_below(m, EXTENTS));
            model_open_all(m);
        } else if (round == 0 && m->children) {
            model_child(m);
            model_open_all(m);
        }
        (void)co_group_close(&movers); /* the check is of an engine at rest */
    }
    model_verify(m);
    CHECK(engine_flush(m->e) == 0);
    model_verify(m);
    engine_cache(m->e, &cache);
    CHECK(cache.stale == 0);
    engine_stop(m->e);
    return 0;
}

static inline struct model *model_new(uint64_t seed, uint64_t disk_bytes, uint64_t journal_bytes,
                                      uint32_t ops)
{
    struct model *m = calloc(1, sizeof(*m));

    m->s = world_new(seed);
    m->p = sim_proc_new(m->s, HOST_A, "chunk");
    m->disk_bytes = disk_bytes;
    m->journal_bytes = journal_bytes;
    m->ops = ops;
    m->rng = seed * 0x9e3779b97f4a7c15ull + 88172645463325252ull;
    sim_disk_create(m->p, DISK, disk_bytes);
    sim_disk_create(m->p, DISK2, disk_bytes);
    if (seed % 2) /* the other units of the journal */
        sim_disk_set_physical(m->p, DISK, PAGE_BYTES);
    return m;
}

static inline void model_free(struct model *m)
{
    sim_free(m->s);
    free(m);
}

/* Runs one life to its end. */
static inline void model_live(struct model *m)
{
    assert_int_equal(proc_run(m->s, m->p, model_main, m), 0);
}

#endif
