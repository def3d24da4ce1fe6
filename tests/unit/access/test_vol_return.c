/* SPDX-License-Identifier: Apache-2.0
 *
 * What meta asks of the owner of an extent is done, whatever became of the attempt before: replicas
 * return although nobody reads or writes. Three replicas on three hosts. */
#include "access/vol/vol_int.h"
#include "tests/unit/access/vol_world.h"

#define VOLUME (1 * GIB)
#define GROUP  (2 * (uint64_t)EXTENT_BYTES) /* a stripe group */
#define PIECE  (64 * KIB)

static struct slot *slot_at(struct vworld *w, uint32_t node, uint32_t index)
{
    struct volume *v = vol_object_find(w->nodes[node].engine, w->volume);

    return v && index < v->cap_slots ? v->slots[index] : NULL;
}

/* ---- an extent that could not be created ---- */

/* A page to each block: where a page fits, so does nothing else. */
static uint64_t fill_up(struct vworld *w)
{
    uint64_t off = 0;
    int rc = 0;

    for (; rc == 0 && off < GROUP; off += rc == 0 ? BLOCK_BYTES : 0)
        rc = do_write(w, 0, off, PAGE_BYTES, 1);
    CHECK(rc == ERR_NOSPACE);
    return off;
}

/* There was no room for it, so its slot is a hole to its owner; meta has the extent, and wants the
 * replica that was owed from the beginning as soon as there is space. */
static int script_unplaced(struct vworld *w)
{
    struct job d = {.fn = job_zero, .off = 0, .value = 1};
    const struct slot *s;

    wait_ready(w);
    CHECK(volume_make(w, 3, VOLUME) == 0);
    d.len = fill_up(w);
    crash(w, 2, CHUNK);
    while (chunks_alive(w) == HOSTS)
        (void)co_sleep(MSEC(50));
    CHECK(do_write(w, 0, GROUP, PAGE_BYTES, 2) == ERR_NOSPACE);
    s = slot_at(w, 0, 2);
    CHECK(s && s->state == SLOT_HOLE && s->unplaced);
    start(w, 2, CHUNK);
    CHECK(job_do(w, 0, &d) == 0);
    wait_degraded(w, false, SEC(30));
    CHECK(do_verify(w, 4) > 0);
    return 0;
}

static void test_unplaced(void **state)
{
    (void)state;
    world_script(script_unplaced, 1, 160 * MIB);
}

/* ---- a session that ends ---- */

static void cut_host(struct vworld *w, uint32_t node)
{
    for (uint32_t k = 0; k < HOSTS; k++) {
        if (k == node)
            continue;
        sim_net_cut(w->sim, w->nodes[node].addr, w->nodes[k].addr);
        sim_net_cut(w->sim, w->nodes[k].addr, w->nodes[node].addr);
    }
}

/* How long the opening goes on before. */
static nsec_t cut_after;

static void crowd(struct vworld *w, struct job *jobs, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        jobs[i] = (struct job){.fn = job_write, .off = i * PIECE, .len = PIECE, .value = 1};
        job_post(w, 0, &jobs[i]);
    }
    while (!jobs[0].done)
        (void)co_sleep(MSEC(1) / 50);
}

/* While an extent is opened, the owner's session ends and a member can't be reached. Nobody else is
 * there to open it: the next session has to. */
static int script_session(struct vworld *w)
{
    struct job j = {.fn = job_write, .off = 0, .len = PIECE, .value = 2}, former[16];
    const struct slot *s;

    wait_ready(w);
    CHECK(volume_make(w, 3, VOLUME) == 0);
    CHECK(do_write(w, 0, 0, PIECE, 1) == 0);
    CHECK(do_write(w, 1, GROUP, PIECE, 1) == 0);
    crash(w, 2, CHUNK);
    wait_degraded(w, true, SEC(30));
    crowd(w, former, ARRAY_SIZE(former)); /* so that the members have much to settle */
    crash(w, 0, ACCESS);
    crash(w, 2, ACCESS);
    job_post(w, 1, &j);
    while (!(s = slot_at(w, 1, 0)) || s->state != SLOT_GRANTED)
        (void)co_sleep(MSEC(1) / 50);
    (void)co_sleep(cut_after);
    cut_host(w, 1);
    (void)co_sleep(SEC(3));
    sim_net_heal_all(w->sim);
    start(w, 2, CHUNK);
    for (nsec_t until = co_now() + SEC(30); !j.done; (void)co_sleep(MSEC(10)))
        CHECK(co_now() < until);
    CHECK(j.rc == 0 || j.rc == ERR_AMBIGUOUS);
    wait_degraded(w, false, SEC(30));
    return 0;
}

static void test_session(void **state)
{
    (void)state;
    for (cut_after = 0; cut_after < 2 * MSEC(1); cut_after += MSEC(1) / 10)
        world_script(script_session, 1, 2 * GIB);
}

/* ---- one server after the other ---- */

/* A write that the second failure holds up ends soon after the first server is there. */
static void second_fails(struct vworld *w, bool there, nsec_t limit)
{
    struct job j = {.fn = job_write, .off = PIECE, .len = PIECE, .value = 3};

    crash(w, 1, CHUNK);
    job_post(w, 0, &j);
    (void)co_sleep(SEC(8));
    CHECK(!j.done && do_read(w, 0, 0, PIECE) == 2);
    if (!there)
        start(w, 2, CHUNK);
    for (nsec_t until = co_now() + limit; !j.done; (void)co_sleep(MSEC(10)))
        CHECK(co_now() < until);
    CHECK(j.rc == 0 || j.rc == ERR_AMBIGUOUS);
    CHECK(do_read(w, 0, 0, PIECE) == 2 && do_write(w, 0, 0, PIECE, 4) == 0);
    start(w, 1, CHUNK);
    wait_degraded(w, false, SEC(60));
    CHECK(do_verify(w, 1) > 0 && do_read(w, 1, 0, PIECE) == 4);
}

/* A server fails while another is away, and only that one comes back. What is left of the set is
 * whole, but must not be alone: the one that is there takes the place of the other. */
static int script_second(struct vworld *w)
{
    wait_ready(w);
    CHECK(volume_make(w, 3, VOLUME) == 0);
    CHECK(do_write(w, 0, 0, PIECE, 1) == 0);
    crash(w, 2, CHUNK);
    wait_degraded(w, true, SEC(30));
    CHECK(do_write(w, 0, 0, PIECE, 2) == 0);
    second_fails(w, false, SEC(10));
    return 0;
}

/* Likewise while it is on its way back. */
static int script_joining(struct vworld *w)
{
    wait_ready(w);
    CHECK(volume_make(w, 3, VOLUME) == 0);
    CHECK(do_write(w, 0, 0, PIECE, 1) == 0);
    crash(w, 2, CHUNK);
    wait_degraded(w, true, SEC(30));
    for (uint64_t at = 0; at < 16 * MIB; at += MIB)
        CHECK(do_write(w, 0, at, MIB, 2) == 0);
    setting_set(w, "recovery.rate", MIB);
    start(w, 2, CHUNK);
    while (!w->nodes[0].engine->recovery.running)
        (void)co_sleep(MSEC(10));
    second_fails(w, true, SEC(60));
    return 0;
}

static void test_second(void **state)
{
    (void)state;
    world_script(script_second, 1, 2 * GIB);
    world_script(script_joining, 1, 2 * GIB);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unplaced),
        cmocka_unit_test(test_session),
        cmocka_unit_test(test_second),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
