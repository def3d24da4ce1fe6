/* SPDX-License-Identifier: Apache-2.0
 *
 * Leases follow the I/O: a slot moves to the access server that does most of its I/O, without an
 * error and without losing a write; two equal users leave it where it is. */
#include "tests/unit/access/vol_world.h"

#define AT   (64 * KIB) /* in the first slot */
#define UNIT (4 * KIB)

/* Name of a slot's owner, and the epoch of its lease. */
static uint64_t slot_owner(struct vworld *w, uint32_t slot, char *ret_name, size_t cap)
{
    Zbs__Meta__VolumeMapRequest q = ZBS__META__VOLUME_MAP_REQUEST__INIT;
    char pool[] = "pool", name[] = "volume";
    const Zbs__Meta__ExtentView *x;
    struct rpc_reply r;
    uint64_t epoch;

    q.pool = pool;
    q.name = name;
    q.first_slot = slot;
    q.max = 1;
    CHECK(meta_ask(w, META_VOLUME_MAP, &q.base, &r) == 0);
    CHECK(((Zbs__Meta__VolumeMapReply *)r.msg)->n_extents == 1);
    x = ((Zbs__Meta__VolumeMapReply *)r.msg)->extents[0];
    snprintf(ret_name, cap, "%s", x->owner);
    epoch = x->epoch;
    rpc_reply_free(&r);
    return epoch;
}

static uint64_t owner_of(struct vworld *w, char *ret_name, size_t cap)
{
    return slot_owner(w, 0, ret_name, cap);
}

/* I/O from two servers by turns, `a` and `b` in each turn, for a while: each write is seen by the
 * next reader, wherever it is. */
static void load(struct vworld *w, uint32_t na, uint32_t a, uint32_t nb, uint32_t b, nsec_t span,
                 uint64_t *value)
{
    nsec_t until = co_now() + span;

    while (co_now() < until) {
        for (uint32_t k = 0; k < a; k++)
            CHECK(do_write(w, na, AT, UNIT, ++*value) == 0);
        CHECK(do_read(w, nb, AT, UNIT) == *value);
        for (uint32_t k = 1; k < b; k++)
            CHECK(do_write(w, nb, AT, UNIT, ++*value) == 0);
        CHECK(do_read(w, na, AT, UNIT) == *value);
        (void)co_sleep(MSEC(2));
    }
}

static int script_follow(struct vworld *w)
{
    uint64_t value = 0, epoch, before;
    struct vol_engine_stats stats;
    char owner[64];

    wait_ready(w);
    CHECK(volume_make(w, 3, GIB) == 0);
    CHECK(do_write(w, 0, AT, UNIT, ++value) == 0);
    before = owner_of(w, owner, sizeof(owner));
    assert_string_equal(owner, "access-1");
    (void)co_sleep(SEC(5));

    /* the second server does nine tenths of it */
    load(w, 1, 17, 0, 1, SEC(5), &value);
    epoch = owner_of(w, owner, sizeof(owner));
    assert_string_equal(owner, "access-2");
    CHECK(epoch > before);
    vol_engine_stats(w->nodes[0].engine, &stats);
    CHECK(stats.leases_moved == 1);

    /* the same use goes on: it stays */
    load(w, 1, 17, 0, 1, SEC(8), &value);
    CHECK(owner_of(w, owner, sizeof(owner)) == epoch);

    /* and back, when the load moves back */
    load(w, 0, 17, 1, 1, SEC(8), &value);
    CHECK(owner_of(w, owner, sizeof(owner)) > epoch);
    assert_string_equal(owner, "access-1");
    CHECK(do_verify(w, 4) > 0);
    return 0;
}

static void test_follow(void **state)
{
    (void)state;
    world_script(script_follow, 11, 512 * MIB);
}

static int script_equal(struct vworld *w)
{
    uint64_t value = 0, epoch;
    char owner[64];

    wait_ready(w);
    CHECK(volume_make(w, 3, GIB) == 0);
    CHECK(do_write(w, 0, AT, UNIT, ++value) == 0);
    epoch = owner_of(w, owner, sizeof(owner));
    load(w, 1, 4, 0, 4, SEC(12), &value);
    CHECK(owner_of(w, owner, sizeof(owner)) == epoch);
    load(w, 1, 6, 0, 3, SEC(12), &value); /* two thirds are not most */
    CHECK(owner_of(w, owner, sizeof(owner)) == epoch);
    return 0;
}

static void test_equal_users(void **state)
{
    (void)state;
    world_script(script_equal, 12, 512 * MIB);
}

#define DEPTH 12u

/* A write of its own page over and over, until told to stop; the longest is the job's result. */
static int job_stream(struct job *j, struct vol_engine *e)
{
    const bool *stop = (const bool *)(uintptr_t)j->value;
    struct job one = {.w = j->w, .off = j->off, .len = UNIT};

    while (!*stop) {
        nsec_t began = co_now();
        int rc;

        one.value++;
        rc = job_write(&one, e);
        if (rc < 0)
            return rc;
        j->got = MAX(j->got, (uint64_t)(co_now() - began));
        (void)co_sleep(MSEC(5));
    }
    return 0;
}

/* With many writes under way from the server that gets it, both slots of a stripe group. */
static int script_pause(struct vworld *w)
{
    struct job jobs[DEPTH] = {0};
    uint64_t longest = 0;
    bool stop = false;
    char owner[64];

    wait_ready(w);
    CHECK(volume_make(w, 3, GIB) == 0);
    CHECK(do_write(w, 0, AT, UNIT, 1) == 0);
    (void)co_sleep(SEC(5));
    for (uint32_t i = 0; i < DEPTH; i++) {
        jobs[i].fn = job_stream;
        jobs[i].off = AT + 37 * UNIT * i;
        jobs[i].value = (uintptr_t)&stop;
        job_post(w, 1, &jobs[i]);
    }
    (void)co_sleep(SEC(5)); /* less than a slot would stay if it came back */
    stop = true;
    for (uint32_t i = 0; i < DEPTH; i++) {
        CHECK(job_wait(w, 1, &jobs[i], w->nodes[1].life) == 0);
        longest = MAX(longest, jobs[i].got);
    }
    CHECK(longest < MSEC(50));
    for (uint32_t slot = 0; slot < 2; slot++) {
        slot_owner(w, slot, owner, sizeof(owner));
        assert_string_equal(owner, "access-2");
    }
    return 0;
}

static void test_pause(void **state)
{
    (void)state;
    for (uint64_t seed = 14; seed < 17; seed++)
        world_script(script_pause, seed, 512 * MIB);
}

/* Who is to have it dies as it is given: the others go on. */
static int script_target_dies(struct vworld *w)
{
    uint64_t value = 0;
    char owner[64];
    int rc;

    wait_ready(w);
    CHECK(volume_make(w, 3, GIB) == 0);
    CHECK(do_write(w, 0, AT, UNIT, ++value) == 0);
    (void)co_sleep(SEC(5));
    for (uint32_t k = 0; k < 12; k++) {
        struct vol_engine_stats stats;

        load(w, 1, 17, 0, 1, MSEC(400), &value);
        vol_engine_stats(w->nodes[0].engine, &stats);
        if (stats.leases_moved)
            break;
    }
    crash(w, 1, ACCESS);
    rc = do_write(w, 0, AT, UNIT, ++value);
    CHECK(rc == 0 || rc == ERR_AMBIGUOUS); /* it was on its way to the server that died */
    CHECK(do_write(w, 0, AT, UNIT, ++value) == 0);
    CHECK(do_read(w, 2, AT, UNIT) == value);
    owner_of(w, owner, sizeof(owner));
    CHECK(strcmp(owner, "access-2") != 0);
    return 0;
}

static void test_target_dies(void **state)
{
    (void)state;
    world_script(script_target_dies, 13, 512 * MIB);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_follow),
        cmocka_unit_test(test_equal_users),
        cmocka_unit_test(test_pause),
        cmocka_unit_test(test_target_dies),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
