/* SPDX-License-Identifier: Apache-2.0
 *
 * The volume engine: snapshots, clones, rollbacks, and what the volumes share. */
#include "access/vol/vol_int.h"
#include "tests/unit/access/vol_snapshots.h"

/* ---- volume, snapshot, clone ---- */

static int script_basic(struct vworld *w)
{
    uint64_t volume, snap, clone;

    wait_ready(w);
    CHECK(volume_make(w, 3, VOLUME) == 0);
    volume = w->volume;
    fill(w, 1, volume, 0, PIECES, 1000);
    snap = snapshot(w, "volume", "s1");
    expect(w, 1, volume, 0, PIECES, 1000); /* by its owner, without an open */
    expect(w, 0, volume, 0, 4, 1000);      /* forwarded */
    expect(w, 2, snap, 0, PIECES, 1000);
    CHECK(do_write(w, 2, 0, PIECE, 1) == ERR_PERM); /* of the snapshot */

    /* Both are written; neither is seen in the snapshot. */
    fill(w, 1, volume, 0, PIECES / 2, 2000);
    clone = clone_of(w, "volume@s1", "clone");
    fill(w, 0, clone, PIECES / 4, PIECES, 3000);
    expect(w, 2, snap, 0, PIECES, 1000);
    expect(w, 0, clone, 0, PIECES / 4, 1000);
    expect(w, 0, clone, PIECES / 4, PIECES, 3000);
    expect(w, 1, volume, 0, PIECES / 2, 2000);
    expect(w, 2, volume, PIECES / 2, PIECES, 1000);
    w->volume = volume;
    CHECK(do_verify(w, 4) >= 2);
    w->volume = clone;
    CHECK(do_verify(w, 4) >= 2);
    w->volume = snap;
    CHECK(do_verify(w, 4) >= 2);

    /* Deleted in any order: what is left stays, and all space comes back. */
    remove_volume(w, "volume@s1");
    expect(w, 1, clone, 0, PIECES / 4, 1000);
    expect(w, 1, volume, PIECES / 2, PIECES, 1000);
    remove_volume(w, "volume");
    expect(w, 1, clone, 0, PIECES / 4, 1000);
    fill(w, 0, clone, 0, PIECES, 5000); /* nothing shares its extents any more */
    expect(w, 2, clone, 0, PIECES, 5000);
    remove_volume(w, "clone");
    wait_empty(w);
    return 0;
}

static void test_basic(void **state)
{
    (void)state;
    world(script_basic, 21, SEC(200));
}

/* ---- rollback, and generations ---- */

static int script_generations(struct vworld *w)
{
    uint64_t volume, snaps[5];
    char name[16];

    wait_ready(w);
    CHECK(volume_make(w, 3, VOLUME) == 0);
    volume = w->volume;
    for (uint32_t g = 0; g < 5; g++) {
        fill(w, g % HOSTS, volume, 0, PIECES, 1000 * (g + 1));
        snprintf(name, sizeof(name), "g%u", g);
        snaps[g] = snapshot(w, "volume", name);
    }
    for (uint32_t g = 0; g < 5; g++)
        expect(w, (g + 1) % HOSTS, snaps[g], 0, PIECES, 1000 * (g + 1));
    roll_back(w, "volume", "g2");
    expect(w, 1, volume, 0, PIECES, 3000);
    fill(w, 2, volume, 0, PIECES / 2, 9000);
    expect(w, 0, volume, 0, PIECES / 2, 9000);
    expect(w, 0, volume, PIECES / 2, PIECES, 3000);
    expect(w, 0, snaps[2], 0, PIECES, 3000);
    for (uint32_t g = 0; g < 5; g++) {
        snprintf(name, sizeof(name), "volume@g%u", g * 2 % 5);
        remove_volume(w, name);
    }
    expect(w, 1, volume, PIECES / 2, PIECES, 3000);
    CHECK(do_verify(w, 4) >= 2);
    remove_volume(w, "volume");
    wait_empty(w);
    return 0;
}

static void test_generations(void **state)
{
    (void)state;
    world(script_generations, 22, SEC(200));
}

/* ---- under load: every snapshot is one moment, the pause is short ---- */

#define WRITERS 6u

struct load {
    struct vworld *w;
    uint32_t no;
    uint64_t acked, begun;
    nsec_t longest;
    bool stop;
};

/* Writes 1, 2, 3 ... to a place of its own, each value to two extents, one after the other. */
static int load_run(void *arg)
{
    struct load *l = arg;

    while (!l->stop) {
        uint64_t off = l->no * STEP;
        nsec_t begin = co_now();

        l->begun++;
        CHECK(do_write(l->w, l->no % HOSTS, off, PIECE, l->begun) == 0);
        CHECK(do_write(l->w, l->no % HOSTS, off + 600 * MIB, PIECE, l->begun) == 0);
        l->acked = l->begun;
        l->longest = MAX(l->longest, co_now() - begin);
    }
    return 0;
}

static void moment_check(struct vworld *w, uint64_t volume, uint64_t snap, uint32_t no,
                         uint64_t least, uint64_t most)
{
    uint64_t first, second;

    w->volume = snap;
    first = do_read(w, (no + 1) % HOSTS, no * STEP, PIECE);
    second = do_read(w, (no + 1) % HOSTS, no * STEP + 600 * MIB, PIECE);
    w->volume = volume;
    ASSERTF(first >= least && first <= most && (second == first || second + 1 == first),
            "writer %u: %" PRIu64 " and %" PRIu64 ", of %" PRIu64 " to %" PRIu64, no, first, second,
            least, most);
}

static int script_load(struct vworld *w)
{
    struct load l[WRITERS];
    uint64_t snaps[4], least[4][WRITERS], most[4][WRITERS], volume;
    struct co_group g;
    char name[16];

    wait_ready(w);
    CHECK(volume_make(w, 3, VOLUME) == 0);
    volume = w->volume;
    co_group_init(&g);
    for (uint32_t i = 0; i < WRITERS; i++) {
        l[i] = (struct load){.w = w, .no = i};
        co_spawn(&g, "load", load_run, &l[i]);
    }
    (void)co_sleep(SEC(1));
    for (uint32_t k = 0; k < ARRAY_SIZE(snaps); k++) {
        for (uint32_t i = 0; i < WRITERS; i++) {
            least[k][i] = l[i].acked;
            l[i].longest = 0;
        }
        snprintf(name, sizeof(name), "m%u", k);
        snaps[k] = snapshot(w, "volume", name);
        for (uint32_t i = 0; i < WRITERS; i++)
            most[k][i] = l[i].begun;
        (void)co_sleep(MSEC(300));
        for (uint32_t i = 0; i < WRITERS; i++)
            CHECK(l[i].longest < MSEC(200));
    }
    for (uint32_t i = 0; i < WRITERS; i++)
        l[i].stop = true;
    CHECK(co_group_join(&g) == 0);
    for (uint32_t k = 0; k < ARRAY_SIZE(snaps); k++)
        for (uint32_t i = 0; i < WRITERS; i++)
            moment_check(w, volume, snaps[k], i, least[k][i], most[k][i]);
    CHECK(do_verify(w, 64) > 0);
    return 0;
}

static void test_load(void **state)
{
    (void)state;
    world(script_load, 23, SEC(200));
}

/* ---- on full disks ---- */

#define HALF (16 * MIB)

/* A page to each block from `off` on, until there is no space. */
static void fill_up(struct vworld *w, uint64_t off)
{
    int rc = 0;

    for (; rc == 0 && off < VOLUME; off += BLOCK_BYTES)
        rc = do_write(w, 0, off, PAGE_BYTES, 1);
    CHECK(rc == ERR_NOSPACE);
}

/* A page that is zeroed in part is written, which needs a place where its block is shared. What is
 * shared stays readable where there is no room for a child, also after attempts to write. */
static int script_full(struct vworld *w)
{
    struct job z = {.fn = job_zero, .off = 512, .len = 512};

    wait_ready(w);
    CHECK(volume_make(w, 3, VOLUME) == 0);
    for (uint64_t off = 0; off < HALF; off += MIB)
        CHECK(do_write(w, 0, off, MIB, off / MIB + 1) == 0);
    (void)snapshot(w, "volume", "s1");
    for (uint64_t off = 0; off < MIB; off += BLOCK_BYTES)
        CHECK(do_write(w, 0, HALF + off, PAGE_BYTES, 1) == 0); /* children */
    fill_up(w, HALF + MIB);
    CHECK(job_do(w, 0, &z) == ERR_NOSPACE);
    CHECK(do_read(w, 1, 0, MIB) == 1);
    CHECK(degraded(w) == 0);
    (void)snapshot(w, "volume", "s2");
    for (uint64_t off = 0; off < HALF; off += MIB) {
        CHECK(do_write(w, 0, off, PAGE_BYTES, 1000) == ERR_NOSPACE);
        CHECK(do_read(w, off / MIB % HOSTS, off, MIB) == off / MIB + 1);
    }
    remove_volume(w, "volume@s1");
    remove_volume(w, "volume");
    remove_volume(w, "volume@s2");
    wait_empty(w);
    return 0;
}

static void test_full(void **state)
{
    (void)state;
    world_of(script_full, 26, SEC(300), 160 * MIB);
}

/* ---- with servers that die ---- */

static int script_faults(struct vworld *w)
{
    uint64_t volume, snap, clone;

    wait_ready(w);
    CHECK(volume_make(w, 3, VOLUME) == 0);
    volume = w->volume;
    fill(w, 1, volume, 0, PIECES, 1000);
    crash(w, 1, ACCESS); /* what it left is opened before it is shared */
    snap = snapshot(w, "volume", "s1");
    expect(w, 0, snap, 0, PIECES, 1000);
    fill(w, 2, volume, 0, PIECES / 2, 2000);
    start(w, 1, ACCESS);
    /* Reads of what is shared go on without a member; what is written leaves it out. */
    crash(w, 0, CHUNK);
    expect(w, 0, snap, 0, PIECES, 1000);
    expect(w, 2, volume, PIECES / 2, PIECES, 1000);
    clone = clone_of(w, "volume@s1", "clone");
    fill(w, 2, clone, 0, PIECES, 4000);
    expect(w, 2, clone, 0, PIECES, 4000);
    start(w, 0, CHUNK);
    wait_ready(w);
    wait_degraded(w, false, SEC(30));
    expect(w, 1, snap, 0, PIECES, 1000);
    w->volume = snap;
    CHECK(do_verify(w, 4) >= 2);
    w->volume = clone;
    CHECK(do_verify(w, 4) >= 2);
    w->volume = volume;
    CHECK(do_verify(w, 4) >= 2);
    return 0;
}

static void test_faults(void **state)
{
    (void)state;
    world(script_faults, 24, SEC(300));
}

/* ---- with a replica that has forgotten ---- */

/* A disk loses what it had confirmed, some of the snapshot's content with it, in one world more, in
 * another less. Its replica may be as clean as the others: it is neither read nor copied. */
static int script_forgotten(struct vworld *w)
{
    struct sim_proc *chunk = w->nodes[1].procs[CHUNK];
    uint64_t volume, snap;

    wait_ready(w);
    CHECK(volume_make(w, 3, VOLUME) == 0);
    volume = w->volume;
    fill(w, 1, volume, 0, PIECES, 1000);
    (void)co_sleep(SEC(1));
    sim_disk_lie(chunk, DISK, true);
    fill(w, 1, volume, 0, 1, 2000);
    snap = snapshot(w, "volume", "s1");
    sim_proc_power_loss(chunk);
    sim_disk_lie(chunk, DISK, false);
    start(w, 1, CHUNK);
    wait_ready(w);
    fill(w, 1, volume, 1, PIECES, 3000); /* in a child of what is shared */
    expect(w, 1, volume, 0, 1, 2000);
    expect(w, 1, snap, 0, 1, 2000);
    return 0;
}

static void test_forgotten(void **state)
{
    (void)state;
    for (uint64_t seed = 41; seed < 49; seed++)
        world(script_forgotten, seed, SEC(300));
}

/* ---- everything dies now and then, while volumes are written and snapshots taken ---- */

#define STORM_SNAPSHOTS 6u

/* The same value again until it is acknowledged. */
static void storm_write(struct load *l, uint64_t off)
{
    uint32_t node = l->no % HOSTS;

    while (!l->w->nodes[node].engine || do_write(l->w, node, off, PIECE, l->begun) < 0)
        (void)co_sleep(MSEC(20));
}

static int storm_run(void *arg)
{
    struct load *l = arg;

    while (!l->stop) {
        l->begun++;
        storm_write(l, l->no * STEP);
        storm_write(l, l->no * STEP + 600 * MIB);
        l->acked = l->begun;
    }
    return 0;
}

static int storm_faults(void *arg)
{
    struct load *l = arg;
    struct vworld *w = l->w;

    while (!l->stop) {
        uint32_t node = (uint32_t)(sim_random(w->sim) % HOSTS);
        enum role r = (enum role)(sim_random(w->sim) % ROLES);

        (void)co_sleep((nsec_t)(sim_random(w->sim) % MSEC(2500)));
        crash(w, node, r);
        (void)co_sleep((nsec_t)(sim_random(w->sim) % MSEC(1500)));
        start(w, node, r);
    }
    return 0;
}

static int script_storm(struct vworld *w)
{
    struct load l[WRITERS + 1];
    uint64_t snaps[STORM_SNAPSHOTS], least[STORM_SNAPSHOTS][WRITERS],
        most[STORM_SNAPSHOTS][WRITERS];
    uint64_t volume;
    uint32_t n = 0, tries = 0;
    struct co_group g;

    wait_ready(w);
    CHECK(volume_make(w, 3, VOLUME) == 0);
    volume = w->volume;
    co_group_init(&g);
    for (uint32_t i = 0; i <= WRITERS; i++) {
        l[i] = (struct load){.w = w, .no = i};
        co_spawn(&g, "load", i < WRITERS ? storm_run : storm_faults, &l[i]);
    }
    (void)co_sleep(SEC(1));
    while (n < STORM_SNAPSHOTS && tries++ < 40) {
        char name[16];

        for (uint32_t i = 0; i < WRITERS; i++)
            least[n][i] = l[i].acked;
        snprintf(name, sizeof(name), "t%u", tries);
        if (ask_snapshot(w, "volume", name, &snaps[n]) == 0) {
            for (uint32_t i = 0; i < WRITERS; i++)
                most[n][i] = l[i].begun;
            n++;
        }
        (void)co_sleep(MSEC(500));
    }
    ASSERTF(n == STORM_SNAPSHOTS, "only %u snapshots of %u tries", n, tries);
    l[WRITERS].stop = true;
    (void)co_sleep(SEC(3));
    for (uint32_t i = 0; i < WRITERS; i++)
        l[i].stop = true;
    CHECK(co_group_join(&g) == 0);
    wait_ready(w);
    wait_degraded(w, false, SEC(60));
    for (uint32_t k = 0; k < n; k++)
        for (uint32_t i = 0; i < WRITERS; i++)
            moment_check(w, volume, snaps[k], i, least[k][i], most[k][i]);
    CHECK(do_verify(w, 64) > 0);
    for (uint32_t k = 0; k < n; k++) {
        w->volume = snaps[k];
        CHECK(do_verify(w, 64) > 0);
    }
    return 0;
}

/* Shared extents that access servers have leases of, or are after. */
static uint32_t recovering(struct vworld *w)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < HOSTS; i++) {
        const struct volume *v = w->nodes[i].engine->extents;

        for (uint32_t k = 0; k < v->n_slots; k++)
            n += v->slots[k] != NULL;
    }
    return n;
}

/* A snapshot is deleted while a replica of what only it has is being brought back: whoever does
 * that finds out, stops, and makes no replica anew. */
static int script_gone(struct vworld *w)
{
    nsec_t until;

    wait_ready(w);
    CHECK(volume_make(w, 3, VOLUME) == 0);
    setting_set(w, "recovery.rate", MIB);
    CHECK(do_write(w, 0, 0, MIB, 1) == 0);
    crash(w, 2, CHUNK);
    for (uint64_t at = 0; at < 16 * MIB; at += MIB)
        CHECK(do_write(w, 0, at, MIB, 2) == 0);
    (void)snapshot(w, "volume", "s");
    for (uint64_t at = 0; at < 16 * MIB; at += MIB)
        CHECK(do_write(w, 0, at, MIB, 3) == 0);
    start(w, 2, CHUNK);
    for (until = co_now() + SEC(20); recovering(w) == 0; (void)co_sleep(MSEC(10)))
        CHECK(co_now() < until);
    (void)co_sleep(MSEC(500));
    CHECK(recovering(w) > 0);
    remove_volume(w, "volume@s");
    for (until = co_now() + SEC(20); recovering(w) > 0; (void)co_sleep(MSEC(10)))
        CHECK(co_now() < until);
    remove_volume(w, "volume");
    wait_empty(w);
    return 0;
}

static void test_gone(void **state)
{
    (void)state;
    world(script_gone, 41, SEC(600));
}

/* ---- a shared extent that is given back while meta is away ---- */

static void chunk_restart(struct vworld *w, uint32_t node)
{
    crash(w, node, CHUNK);
    start(w, node, CHUNK);
    wait_ready(w);
}

/* The first write after a member's start needs its origin opened, which is given back a while
 * later. Meta does not hear of that. Another session, which needs the same after another start,
 * must not wait for an owner that thinks of it no more. */
static int script_unheard(struct vworld *w)
{
    struct job j = {.fn = job_write, .len = PIECE, .value = 3000, .limit = SEC(20)};
    uint64_t volume, clone;

    wait_ready(w);
    CHECK(volume_make(w, 3, VOLUME) == 0);
    volume = w->volume;
    fill(w, 1, volume, 0, 1, 1000);
    (void)snapshot(w, "volume", "s");
    clone = clone_of(w, "volume@s", "clone");
    chunk_restart(w, 1);
    fill(w, 0, volume, 0, 1, 2000);
    CHECK(recovering(w) > 0);
    for (uint32_t i = 0; i < HOSTS; i++)
        crash(w, i, META);
    (void)co_sleep(SEC(20));
    for (uint32_t i = 0; i < HOSTS; i++)
        start(w, i, META);
    wait_ready(w);
    chunk_restart(w, 1);
    w->volume = clone;
    CHECK(job_do(w, 2, &j) == 0);
    expect(w, 1, clone, 0, 1, 3000);
    return 0;
}

static void test_unheard(void **state)
{
    (void)state;
    world(script_unheard, 42, SEC(300));
}

static void test_storm(void **state)
{
    const char *more = getenv("ZBS_SEEDS"), *from = getenv("ZBS_SEED");
    uint64_t first = from ? strtoull(from, NULL, 10) : 31;

    (void)state;
    for (uint64_t seed = first; seed < first + (more ? strtoull(more, NULL, 10) : 1); seed++) {
        printf("seed %" PRIu64 "\n", seed);
        world(script_storm, seed, SEC(600));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_basic),   cmocka_unit_test(test_generations),
        cmocka_unit_test(test_load),    cmocka_unit_test(test_full),
        cmocka_unit_test(test_faults),  cmocka_unit_test(test_forgotten),
        cmocka_unit_test(test_storm),   cmocka_unit_test(test_gone),
        cmocka_unit_test(test_unheard),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
