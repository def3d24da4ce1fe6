/* SPDX-License-Identifier: Apache-2.0
 *
 * Reservations and the volume engine (PROTOCOL 8.3): what another access server judged by a record
 * that is not the volume's any more is refused by the owner, and what runs has ended before the
 * owner says that it obeys. */
#include "tests/unit/access/vol_world.h"
#include "access/vol/vol_int.h"

#define VOLUME (64 * MIB)
#define OWNER  0u
#define OTHER  1u

/* A change of the volume's record, by the owner's session. Returns its version. */
static uint64_t reserve(struct vworld *w, uint64_t former)
{
    Zbs__Meta__ReservationSetRequest q = ZBS__META__RESERVATION_SET_REQUEST__INIT;
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    uint8_t record[4] = {1};
    struct rpc_reply r;
    uint64_t version;

    meta_client_mutation(w->mc, &m);
    q.mutation = &m;
    q.session_id = w->nodes[OWNER].engine->session;
    q.volume_id = w->volume;
    q.version = former;
    q.record = (ProtobufCBinaryData){sizeof(record), record};
    CHECK(meta_ask(w, META_RESERVATION_SET, &q.base, &r) == 0);
    version = ((Zbs__Meta__ReservationSetReply *)r.msg)->version;
    rpc_reply_free(&r);
    return version;
}

static void wait_obeyed(struct vworld *w, uint32_t node, uint64_t version)
{
    nsec_t until = co_now() + SEC(5);

    while (w->nodes[node].engine->reservations_seen < version) {
        CHECK(co_now() < until);
        (void)co_sleep(MSEC(1));
    }
}

static int script_stale(struct vworld *w)
{
    struct job zero = {.fn = job_zero, .off = 0, .len = MIB};
    uint64_t version;

    wait_ready(w);
    CHECK(volume_make(w, 3, VOLUME) == 0);
    CHECK(do_write(w, OWNER, 0, MIB, 1) == 0);
    CHECK(do_write(w, OTHER, 0, MIB, 2) == 0);
    version = reserve(w, 0);
    wait_obeyed(w, OWNER, version);
    wait_obeyed(w, OTHER, version);
    CHECK(do_write(w, OTHER, 0, MIB, 3) == 0);
    CHECK(w->nodes[OTHER].engine->session != 0 && do_read(w, OWNER, 0, MIB) == 3);
    /* As if they had been judged before the other server heard of it. */
    w->nodes[OTHER].engine->reservations_seen = version - 1;
    CHECK(do_write(w, OTHER, 0, MIB, 4) == ERR_REFUSED);
    CHECK(job_do(w, OTHER, &zero) == ERR_REFUSED);
    CHECK(do_read(w, OWNER, 0, MIB) == 3);
    /* The owner's own were judged, and are drained, by its front end. */
    CHECK(do_write(w, OWNER, 0, MIB, 5) == 0);
    /* It hears of it again. */
    wait_obeyed(w, OTHER, version);
    CHECK(do_write(w, OTHER, 0, MIB, 6) == 0 && do_read(w, OWNER, 0, MIB) == 6);
    return 0;
}

/* A forwarded write that a disk holds up. */
static int script_drain(struct vworld *w)
{
    struct job j = {.fn = job_write, .off = 0, .len = 4096, .value = 2};
    uint64_t version;

    wait_ready(w);
    CHECK(volume_make(w, 3, VOLUME) == 0);
    CHECK(do_write(w, OWNER, 0, MIB, 1) == 0);
    sim_disk_hang(w->nodes[2].procs[CHUNK], DISK, true);
    job_post(w, OTHER, &j);
    (void)co_sleep(MSEC(20));
    CHECK(!j.done && !list_empty(&w->nodes[OWNER].engine->forwards));
    version = reserve(w, 0);
    (void)co_sleep(MSEC(500));
    CHECK(!j.done);
    sim_disk_hang(w->nodes[2].procs[CHUNK], DISK, false);
    while (!j.done) {
        CHECK(w->nodes[OWNER].engine->reservations_seen < version);
        (void)co_sleep(MSEC(1));
    }
    CHECK(j.rc == 0 && w->nodes[OWNER].engine->reserved.count == 1);
    wait_obeyed(w, OWNER, version);
    return 0;
}

static void test_stale(void **state)
{
    (void)state;
    world_script(script_stale, 1, 2 * GIB);
}

static void test_drain(void **state)
{
    (void)state;
    world_script(script_drain, 1, 2 * GIB);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_stale), cmocka_unit_test(test_drain)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
