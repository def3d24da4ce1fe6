/* SPDX-License-Identifier: Apache-2.0
 *
 * Volumes whose size and pool change while access servers use them. */
#include "tests/unit/access/vol_world.h"

#define UNIT (64 * KIB)
#define TAIL (3 * GIB) /* in a stripe group of its own */

static int resize(struct vworld *w, uint64_t size_bytes, bool discard)
{
    Zbs__Meta__VolumeResizeRequest q = ZBS__META__VOLUME_RESIZE_REQUEST__INIT;
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    char pool[] = "pool", name[] = "volume";
    struct rpc_reply r;
    int rc;

    meta_client_mutation(w->mc, &m);
    q.mutation = &m;
    q.pool = pool;
    q.name = name;
    q.size_bytes = size_bytes;
    q.discard = discard;
    rc = meta_ask(w, META_VOLUME_RESIZE, &q.base, &r);
    rpc_reply_free(&r);
    (void)co_sleep(SEC(1)); /* reaches the access servers with their next renewal */
    return rc;
}

static int job_write_tail(struct job *j, struct vol_engine *e)
{
    int rc = 0;

    for (uint64_t n = 0; rc == 0; n++) {
        j->got = n;
        rc = job_write(j, e);
    }
    return rc;
}

static int script_smaller(struct vworld *w)
{
    struct job writers[2];
    uint32_t life[2];

    wait_ready(w);
    CHECK(volume_make(w, 3, 4 * GIB) == 0);
    CHECK(do_write(w, 0, 0, UNIT, 1) == 0);
    for (uint32_t i = 0; i < 2; i++) { /* the owner, and one that forwards to it */
        writers[i] = (struct job){.fn = job_write_tail, .off = TAIL, .len = UNIT, .value = 2 + i};
        life[i] = w->nodes[i].life;
        job_post(w, i, &writers[i]);
        (void)co_sleep(MSEC(300));
    }
    CHECK(resize(w, 2 * GIB, false) == ERR_NOT_EMPTY);
    CHECK(resize(w, 2 * GIB, true) == 0);
    for (uint32_t i = 0; i < 2; i++) {
        int rc = job_wait(w, i, &writers[i], life[i]);

        ASSERTF(rc == ERR_TOO_LARGE || rc == ERR_AMBIGUOUS, "server %u: %s", i, err_name(rc));
        CHECK(writers[i].got > 10);
        CHECK(do_write(w, i, TAIL, UNIT, 9) == ERR_TOO_LARGE);
        CHECK(do_read(w, i, 0, UNIT) == 1);
    }
    CHECK(resize(w, 4 * GIB, false) == 0); /* and the tail is empty */
    for (uint32_t i = 0; i < HOSTS; i++)
        CHECK(do_read(w, i, TAIL, UNIT) == 0);
    CHECK(do_write(w, 1, TAIL, UNIT, 10) == 0);
    CHECK(do_read(w, 0, TAIL, UNIT) == 10);
    return 0;
}

static void test_smaller(void **state)
{
    struct sim_conf conf = {.seed = 31};
    struct vworld w;

    (void)state;
    world_init(&w, &conf, 512 * MIB);
    world_run(&w, script_smaller, SEC(300));
    world_fini(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_smaller),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
