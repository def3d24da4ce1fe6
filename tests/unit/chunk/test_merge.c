/* SPDX-License-Identifier: Apache-2.0
 *
 * Sequential writes with several requests in flight are written once, straight to their blocks;
 * what is random or comes one at a time is treated as before. */
#include "tests/unit/chunk/engine_fixture.h"
#include "chunk/internal.h"

#define K(n)      ((n)*1024u)
#define STREAMS   4u
#define DISK_SIZE (512ull << 20)

struct load {                            /* what is written */
    uint32_t streams, depth, len, bytes; /* depth: in flight of each stream; bytes: of each */
    bool random;
    bool again; /* written twice: the second time is measured */
    uint32_t merge_us;
};
struct figures {
    double amplification; /* bytes written to the device, all metadata included */
    nsec_t mean;          /* time of a request */
};
struct job {
    struct rig *r;
    const struct load *l;
    struct figures *f;
    uint32_t next[STREAMS]; /* offset in the stream */
    uint64_t gen;
    uint64_t rng;
    nsec_t sum;
    uint32_t n;
};
struct lane {
    struct job *j;
    uint32_t stream;
};

static uint32_t stream_off(uint32_t stream)
{
    return stream * (EXTENT_BYTES / STREAMS);
}

/* The byte that a round's data has at a place. */
static uint8_t pattern(uint32_t off, uint64_t round)
{
    return (uint8_t)(1 + (off / K(4) + round * 7) % 250);
}

static int lane_main(void *arg)
{
    struct lane *a = arg;
    struct job *j = a->j;

    while (j->next[a->stream] < j->l->bytes) {
        uint32_t off = j->next[a->stream];
        nsec_t start = co_now();

        j->next[a->stream] += j->l->len;
        if (j->l->random) {
            j->rng = j->rng * 6364136223846793005ull + 1442695040888963407ull;
            off = (uint32_t)(j->rng >> 33) % (j->l->bytes / j->l->len) * j->l->len;
        }
        off += stream_off(a->stream);
        CHECK(put(j->r, (struct put){ID, V(1, ++j->gen), .off = off, .len = j->l->len,
                                     .byte = pattern(off, 0)}) == 0);
        j->sum += co_now() - start;
        j->n++;
    }
    return 0;
}

static uint64_t written(struct rig *r)
{
    struct dev_stats s;

    CHECK(engine_flush(r->e) == 0);
    engine_dev_stats(r->e, 0, &s);
    return s.bytes_written;
}

static void load_round(struct job *j)
{
    struct lane lanes[STREAMS * 64];
    struct co_group g;

    memset(j->next, 0, sizeof(j->next));
    j->sum = j->n = 0;
    co_group_init(&g);
    for (uint32_t i = 0; i < j->l->streams * j->l->depth; i++) {
        lanes[i] = (struct lane){j, i % j->l->streams};
        co_spawn(&g, "lane", lane_main, &lanes[i]);
    }
    CHECK(co_group_join(&g) == 0);
    CHECK(engine_commit_point(j->r->e, ID, 1, V(1, j->gen)) == 0);
}

static void load_body(struct rig *r)
{
    struct job *j = (struct job *)r->x[0];
    uint64_t before;

    j->r = r;
    CHECK(create(r, ID, 1) == 0 && open_at(r, ID, 1) == 0);
    if (j->l->again)
        load_round(j);
    before = written(r);
    load_round(j);
    CHECK(j->n > 0);
    j->f->amplification = (double)(written(r) - before) / ((double)j->n * j->l->len);
    j->f->mean = j->sum / j->n;
}

static void load_after(struct rig *r)
{
    const struct load *l = ((struct job *)r->x[0])->l;

    CHECK(open_at(r, ID, 1) == 0);
    for (uint32_t i = 0; i < l->streams && !l->random; i++) {
        for (uint32_t at = 0; at < l->bytes; at += l->len) {
            uint32_t off = stream_off(i) + at;

            CHECK(look(r, ID, 1, off, l->len) == pattern(off, 0));
        }
    }
}

static struct figures load_run(struct load l)
{
    struct figures f = {0};
    struct job j = {.l = &l, .f = &f, .rng = 1};
    struct rig r = rig_new(1, DISK_SIZE, 0);

    r.merge_us = l.merge_us;
    r.x[0] = (uint64_t)&j;
    rig_life(&r, load_body, END_POWER);
    rig_life(&r, load_after, END_STOP);
    sim_free(r.s);
    print_message("%u streams of %u, %u KiB%s: written %.3f times, %.0f us a request\n", l.streams,
                  l.depth, l.len / 1024,
                  l.random  ? " random"
                  : l.again ? " again"
                            : "",
                  f.amplification, (double)f.mean / (double)NSEC_PER_USEC);
    return f;
}

static void test_written_once(void **state)
{
    static const struct load loads[] = {
        {.streams = 1, .depth = 8, .len = K(16), .bytes = 8 << 20},
        {.streams = 2, .depth = 8, .len = K(16), .bytes = 8 << 20},
        {.streams = 4, .depth = 8, .len = K(16), .bytes = 8 << 20},
        {.streams = 2, .depth = 4, .len = K(16), .bytes = 8 << 20},
        {.streams = 4, .depth = 2, .len = K(16), .bytes = 8 << 20},
        {.streams = 1, .depth = 32, .len = K(16), .bytes = 8 << 20},
        {.streams = 1, .depth = 32, .len = K(4), .bytes = 8 << 20},
    };

    (void)state;
    for (uint32_t i = 0; i < ARRAY_SIZE(loads); i++) {
        assert_true(load_run(loads[i]).amplification <= 1.1);
    }
}

/* Overwriting: what is under way fills blocks, which go to new ones. */
static void test_overwritten_once(void **state)
{
    static const struct load loads[] = {
        {.streams = 1, .depth = 32, .len = K(16), .bytes = 8 << 20, .again = true},
        {.streams = 1, .depth = 16, .len = K(16), .bytes = 8 << 20, .again = true},
        {.streams = 1, .depth = 4, .len = K(128), .bytes = 8 << 20, .again = true},
        {.streams = 1, .depth = 8, .len = K(128), .bytes = 8 << 20, .again = true},
        {.streams = 4, .depth = 2, .len = K(128), .bytes = 8 << 20, .again = true},
        {.streams = 2, .depth = 8, .len = K(64), .bytes = 8 << 20, .again = true},
    };

    (void)state;
    for (uint32_t i = 0; i < ARRAY_SIZE(loads); i++)
        assert_true(load_run(loads[i]).amplification <= 1.2);
}

/* One request at a time never waits; nor does a random one. */
static void test_unaffected(void **state)
{
    static const struct load same[] = {
        {.streams = 1, .depth = 1, .len = K(16), .bytes = 4 << 20},
        {.streams = 4, .depth = 1, .len = K(16), .bytes = 4 << 20},
        {.streams = 1, .depth = 16, .len = K(4), .bytes = 4 << 20, .random = true},
    };

    (void)state;
    for (uint32_t i = 0; i < ARRAY_SIZE(same); i++) {
        struct load never = same[i];
        struct figures with, without;

        never.merge_us = MERGE_NEVER;
        with = load_run(same[i]);
        without = load_run(never);
        assert_true(with.mean == without.mean);
        assert_true(with.amplification == without.amplification);
    }
}

/* ---- one of several goes wrong ---- */

struct one {
    struct rig *r;
    uint32_t off;
    uint64_t gen;
    nsec_t deadline; /* from now; 0: none */
    int rc;
    nsec_t took;
};

static int one_main(void *arg)
{
    struct one *o = arg;
    nsec_t start = co_now();

    if (o->deadline > 0)
        (void)co_deadline_push(start + o->deadline);
    o->rc = put(
        o->r, (struct put){ID, V(1, o->gen), .off = o->off, .len = K(16), .byte = (uint8_t)o->gen});
    o->took = co_now() - start;
    return 0;
}

/* Requests that continue a stream, all at once: n of them, from page `from` of 16 KiB each. */
static void burst(struct rig *r, struct co_group *g, struct one *o, struct co **co, uint32_t from,
                  uint32_t n)
{
    co_group_init(g);
    for (uint32_t i = 0; i < n; i++) {
        o[i] = (struct one){
            .r = r, .off = (from + i) * K(16), .gen = from + i + 1, .deadline = o[i].deadline};
        co[i] = co_spawn(g, "one", one_main, &o[i]);
    }
}

/* A stream that has been seen with four requests at once, of 64 in all. */
static void stream_begin(struct rig *r)
{
    struct one o[4] = {0};
    struct co *co[4];
    struct co_group g;

    CHECK(create(r, ID, 1) == 0 && open_at(r, ID, 1) == 0);
    for (uint32_t i = 0; i < 64; i += 4) {
        burst(r, &g, o, co, i, 4);
        CHECK(co_group_join(&g) == 0);
    }
}

/* With three of four there, the fourth is waited for; meanwhile one of them gives up. */
static void giving_up_body(struct rig *r)
{
    bool deadline = r->x[0] != 0;
    struct one o[3] = {0};
    struct co *co[3];
    struct co_group g;

    stream_begin(r);
    o[1].deadline = deadline ? 50 * NSEC_PER_USEC : 0;
    burst(r, &g, o, co, 64, 3);
    (void)co_sleep(60 * NSEC_PER_USEC);
    if (!deadline)
        co_cancel(co[1]);
    CHECK(co_group_join(&g) == 0);
    CHECK(o[0].rc == 0 && o[2].rc == 0);
    CHECK(o[1].rc == (deadline ? ERR_TIMEOUT : ERR_CANCELED));
    CHECK(o[1].took < 100 * NSEC_PER_USEC && o[0].took > 200 * NSEC_PER_USEC);
}

static void giving_up_after(struct rig *r)
{
    CHECK(open_at(r, ID, 1) == 0);
    for (uint32_t i = 0; i < 67; i++)
        CHECK(look(r, ID, 1, i * K(16), K(16)) == (i == 65 ? 0 : (int)i + 1));
}

static void test_giving_up(void **state)
{
    (void)state;
    for (uint64_t deadline = 0; deadline < 2; deadline++) {
        struct rig r = rig_new(1, DISK_SIZE, 0);

        r.x[0] = deadline;
        rig_life(&r, giving_up_body, END_POWER);
        rig_life(&r, giving_up_after, END_STOP);
        sim_free(r.s);
    }
}

/* An error of the device is everybody's. */
static void error_body(struct rig *r)
{
    struct one o[4] = {0};
    struct co *co[4];
    struct co_group g;

    stream_begin(r);
    burst(r, &g, o, co, 64, 4);
    sim_disk_fail(r->p, DISK, true);
    CHECK(co_group_join(&g) == 0);
    sim_disk_fail(r->p, DISK, false);
    for (uint32_t i = 0; i < 4; i++)
        CHECK(o[i].rc == ERR_IO);
    burst(r, &g, o, co, 68, 4); /* the journal was not touched */
    CHECK(co_group_join(&g) == 0);
    for (uint32_t i = 0; i < 4; i++)
        CHECK(o[i].rc == 0 && look(r, ID, 1, (64 + i) * K(16), K(16)) == 0);
}

static void error_after(struct rig *r)
{
    CHECK(open_at(r, ID, 1) == 0);
    for (uint32_t i = 0; i < 72; i++)
        CHECK(look(r, ID, 1, i * K(16), K(16)) == (i / 4 == 16 ? 0 : (int)i + 1));
}

static void test_error(void **state)
{
    struct rig r = rig_new(2, DISK_SIZE, 0);

    (void)state;
    rig_life(&r, error_body, END_POWER);
    rig_life(&r, error_after, END_STOP);
    sim_free(r.s);
}

/* ---- records of one commit ---- */

static uint64_t record(struct dev *d, uint32_t space)
{
    struct rec_commit_point *r = rec_new(d, REC_COMMIT_POINT, ID, sizeof(*r));

    r->epoch = 1;
    r->gen = 1;
    return journal_add(d, &r->h, NULL, space, true);
}

/* However full a commit is, records that are joined are not torn apart. */
static void joined_body(struct rig *r)
{
    struct dev *d = LIST_FIRST(&r->e->devs, struct dev, link);
    uint32_t bytes = ROUND_UP(sizeof(struct rec_commit_point), 8), group = 64;

    CHECK(create(r, ID, 1) == 0 && open_at(r, ID, 1) == 0);
    for (uint32_t others = COMMIT_HEAD_MAX / bytes - 80; others <= COMMIT_HEAD_MAX / bytes;
         others += 3) {
        uint32_t one = journal_cost(d, bytes, 0), all = journal_cost(d, group * bytes, 0);
        uint64_t first, last = 0;

        for (uint32_t i = 0; i < others; i++) {
            CHECK(journal_space(d, one, true) == 0);
            (void)record(d, one);
        }
        CHECK(journal_space(d, all, true) == 0);
        first = record(d, all);
        for (uint32_t i = 1; i < group; i++) {
            journal_join(d);
            last = record(d, 0);
        }
        CHECK(journal_wait(d, first - 1) == 0);
        CHECK(d->j.durable_rsn == first - 1 || d->j.durable_rsn == last);
        r->x[0] += d->j.durable_rsn == first - 1;
        CHECK(journal_wait(d, first) == 0 && d->j.durable_rsn == last);
    }
    CHECK(r->x[0] > 0);
}

static void test_joined(void **state)
{
    struct rig r = rig_new(3, DISK_SIZE, 0);

    (void)state;
    rig_life(&r, joined_body, END_STOP);
    sim_free(r.s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_written_once), cmocka_unit_test(test_overwritten_once),
        cmocka_unit_test(test_unaffected),   cmocka_unit_test(test_giving_up),
        cmocka_unit_test(test_error),        cmocka_unit_test(test_joined),
    };

    log_threshold = LOG_LV_ERROR;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
