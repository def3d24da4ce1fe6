/* SPDX-License-Identifier: Apache-2.0
 *
 * Extents that share blocks move to another device and go on sharing: origins and children, clones
 * whose origin is gone, over power losses in the middle, and while they are written to. */
#include "tests/unit/chunk/family.h"

#define TO    "/dev/to"
#define SMALL "/dev/small"
#define MANY  24u /* blocks of an origin */

static const struct sim_disk_speed slow = {.latency = 200 * NSEC_PER_USEC,
                                           .bytes_per_sec = 64 << 20};

static void disk_add(struct rig *r, const char *path)
{
    struct chunk_format_conf fc = {.journal_bytes = r->journal_bytes};
    struct super_block *sb = mem_alloc(sizeof(*sb));

    if (super_read(path, sb) < 0)
        CHECK(chunk_format(path, &fc) == 0 && super_read(path, sb) == 0);
    CHECK(engine_dev_add(r->e, path, sb) == 0);
    mem_free(sb);
}

static struct dev_stats stats_of(struct rig *r, const char *path)
{
    struct dev_stats st = {.path = NULL};

    for (uint32_t i = 0; i < engine_devs(r->e); i++) {
        engine_dev_stats(r->e, i, &st);
        if (strcmp(st.path, path) == 0)
            break;
    }
    return st;
}

static uint64_t used_on(struct rig *r, const char *path)
{
    return stats_of(r, path).used_bytes / BLOCK;
}

static void drain(struct rig *r)
{
    int rc = engine_drain(r->e, DISK);

    if (rc == 0)
        rc = engine_drain_wait(r->e, DISK);
    ASSERTF(rc == 0, "drain: %s", err_text(rc));
    CHECK(used_on(r, DISK) == 0);
}

static uint8_t byte_of(uint32_t block)
{
    return (uint8_t)(1 + block);
}

static void origin_fill(struct rig *r, uint64_t id)
{
    CHECK(create(r, id, 1) == 0 && open_at(r, id, 1) == 0);
    for (uint32_t b = 0; b < MANY; b++)
        fill(r, id, 1, b + 1, b * BLOCK, BLOCK, byte_of(b));
}

/* A child, with page `id` of every fourth block its own. */
static void child_fill(struct rig *r, uint64_t id, uint64_t origin, uint64_t epoch)
{
    CHECK(child(r, id, epoch, origin) == 0 && open_at(r, id, epoch) == 0);
    for (uint32_t b = 0; b < MANY; b += 4)
        fill(r, id, epoch, b + 1, b * BLOCK + (uint32_t)id * PAGE, PAGE, (uint8_t)(100 + id));
}

/* Of extent `id` in a chain from 1 on; the pages from 40 on are all the first one's. */
static void chain_expect(struct rig *r, uint64_t id, uint64_t epoch)
{
    for (uint32_t b = 0; b < MANY; b++) {
        for (uint32_t page = 2; page < 8; page++)
            CHECK(look(r, id, epoch, b * BLOCK + page * PAGE, PAGE) ==
                  (page <= id && b % 4 == 0 ? 100 + (int)page : byte_of(b)));
        CHECK(look(r, id, epoch, b * BLOCK + 40 * PAGE, 24 * PAGE) == byte_of(b));
    }
}

/* Deletes all, in an odd order; nothing may be left. */
static void chain_delete(struct rig *r, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        CHECK(engine_delete(r->e, 1, 1 + (i * 3 + 1) % n, 1000000) == 0);
    CHECK(used_on(r, TO) == 0);
}

/* ---- a chain of snapshots ---- */

static void chain_body(struct rig *r)
{
    uint64_t used;

    disk_add(r, TO);
    CHECK(engine_drain(r->e, TO) == 0 && engine_drain_wait(r->e, TO) == 0);
    origin_fill(r, 1);
    for (uint64_t id = 2; id <= 4; id++)
        child_fill(r, id, id - 1, id);
    engine_drain_stop(r->e, TO);
    used = used_on(r, DISK);
    drain(r);
    ASSERTF(used_on(r, TO) <= used + 4, "%" PRIu64 " blocks became %" PRIu64, used, used_on(r, TO));
    for (uint64_t id = 1; id <= 4; id++) {
        CHECK(open_at(r, id, 10) == 0);
        chain_expect(r, id, 10);
    }
    /* The last one is written to, and the first thawed: nobody else sees it. */
    fill(r, 4, 10, 1, 0, BLOCK, 0x77);
    fill(r, 4, 10, 2, BLOCK + 50 * PAGE, PAGE, 0x77);
    CHECK(look(r, 3, 10, 50 * PAGE, PAGE) == byte_of(0));
    CHECK(look(r, 3, 10, BLOCK + 50 * PAGE, PAGE) == byte_of(1));
    CHECK(look(r, 4, 10, BLOCK + 50 * PAGE, PAGE) == 0x77);
}

static void chain_after(struct rig *r)
{
    disk_add(r, TO);
    for (uint64_t id = 1; id <= 3; id++) {
        CHECK(open_at(r, id, 20) == 0);
        chain_expect(r, id, 20);
    }
    chain_delete(r, 4);
}

static struct rig rig_family(uint64_t seed)
{
    struct rig r = rig_new(seed, 64 * MIB, 0);

    sim_disk_create(r.p, TO, 64 * MIB);
    sim_disk_create(r.p, SMALL, 16 * MIB);
    return r;
}

static void test_chain(void **state)
{
    (void)state;
    for (enum rig_end end = END_STOP; end <= END_POWER; end++) {
        struct rig r = rig_family(1 + end);

        rig_life(&r, chain_body, end);
        rig_life(&r, chain_after, END_STOP);
        sim_free(r.s);
    }
}

/* ---- clones whose origin is gone, one of them written to all the time ---- */

struct scribbler {
    struct rig *r;
    bool end;
    uint32_t writes;
};

static int scribble_main(void *arg)
{
    struct scribbler *s = arg;

    for (; !s->end; s->writes++)
        CHECK(put(s->r, (struct put){.id = 3,
                                     .v = V(3, 100 + s->writes),
                                     .cp = V(3, 99 + s->writes),
                                     .off = s->writes * 7 % MANY * BLOCK + 20 * PAGE,
                                     .len = PAGE,
                                     .byte = 0x55}) == 0);
    return 0;
}

static void clones_body(struct rig *r)
{
    struct scribbler s = {.r = r};
    struct co_group g;
    uint64_t used;

    disk_add(r, TO);
    CHECK(engine_drain(r->e, TO) == 0 && engine_drain_wait(r->e, TO) == 0);
    origin_fill(r, 1);
    for (uint64_t id = 2; id <= 5; id++)
        CHECK(child(r, id, id, 1) == 0 && open_at(r, id, id) == 0);
    CHECK(engine_delete(r->e, 1, 1, 1) == 0);
    engine_drain_stop(r->e, TO);
    used = used_on(r, DISK);
    sim_disk_set_speed(r->p, TO, &slow);
    co_group_init(&g);
    co_spawn(&g, "scribbler", scribble_main, &s);
    drain(r);
    s.end = true;
    CHECK(co_group_join(&g) == 0 && s.writes > 100);
    ASSERTF(used_on(r, TO) <= used + MANY + 4, "%" PRIu64 " blocks became %" PRIu64, used,
            used_on(r, TO));
    for (uint64_t id = 2; id <= 5; id++) {
        for (uint32_t b = 0; b < MANY; b++) {
            CHECK(look(r, id, id, b * BLOCK, 20 * PAGE) == byte_of(b));
            CHECK(look(r, id, id, b * BLOCK + 20 * PAGE, PAGE) == (id == 3 ? 0x55 : byte_of(b)));
        }
    }
    for (uint64_t id = 2; id <= 5; id++)
        CHECK(engine_delete(r->e, 1, id, id) == 0);
    CHECK(used_on(r, TO) == 0);
}

static void test_clones(void **state)
{
    struct rig r = rig_family(5);

    (void)state;
    rig_life(&r, clones_body, END_STOP);
    sim_free(r.s);
}

/* ---- power losses on the way ---- */

static void begin_body(struct rig *r)
{
    disk_add(r, TO);
    CHECK(engine_drain(r->e, TO) == 0 && engine_drain_wait(r->e, TO) == 0);
    origin_fill(r, 1);
    for (uint64_t id = 2; id <= 5; id++)
        child_fill(r, id, id - 1, id);
    r->x[0] = used_on(r, DISK);
}

static void cut_body(struct rig *r)
{
    disk_add(r, TO);
    sim_disk_set_speed(r->p, TO, &slow);
    CHECK(engine_drain(r->e, DISK) == 0);
    (void)co_sleep((nsec_t)(sim_random(r->s) % 120) * NSEC_PER_MSEC);
}

static void end_body(struct rig *r)
{
    disk_add(r, TO);
    drain(r);
    ASSERTF(used_on(r, TO) <= r->x[0] + 8, "%" PRIu64 " blocks became %" PRIu64, r->x[0],
            used_on(r, TO));
    for (uint64_t id = 1; id <= 5; id++) {
        CHECK(open_at(r, id, 10) == 0);
        chain_expect(r, id, 10);
    }
    chain_delete(r, 5);
}

static void test_cut(void **state)
{
    (void)state;
    for (uint64_t seed = 10; seed < 16; seed++) {
        struct rig r = rig_family(seed);

        rig_life(&r, begin_body, END_STOP);
        for (uint32_t i = 0; i < 6; i++)
            rig_life(&r, cut_body, i % 3 == 0 ? END_KILL : END_POWER);
        rig_life(&r, end_body, END_STOP);
        sim_free(r.s);
    }
}

/* ---- no room for all of them in one place ---- */

static void apart_body(struct rig *r)
{
    int rc;

    disk_add(r, SMALL);
    CHECK(engine_drain(r->e, SMALL) == 0 && engine_drain_wait(r->e, SMALL) == 0);
    origin_fill(r, 1);
    for (uint64_t id = 2; id <= 4; id++)
        child_fill(r, id, id - 1, id);
    engine_drain_stop(r->e, SMALL);
    CHECK(engine_drain(r->e, DISK) == 0);
    rc = engine_drain_wait(r->e, DISK);
    CHECK(rc < 0 && strstr(err_text(rc), "share") != NULL && used_on(r, SMALL) == 0);
    disk_add(r, RING_DISK);
    engine_drain_copies(r->e, DISK, true);
    drain(r);
    for (uint64_t id = 1; id <= 4; id++) {
        CHECK(open_at(r, id, 10) == 0);
        chain_expect(r, id, 10);
    }
}

static void test_apart(void **state)
{
    struct rig r = rig_family(20);

    (void)state;
    rig_life(&r, apart_body, END_STOP);
    sim_free(r.s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chain),
        cmocka_unit_test(test_clones),
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_apart),
    };

    log_threshold = LOG_LV_ERROR;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
