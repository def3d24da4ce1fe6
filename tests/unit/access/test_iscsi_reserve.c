/* SPDX-License-Identifier: Apache-2.0
 *
 * Reservations between initiators: who is shut out has nothing under way any more when that is
 * answered. On the simulator. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "common/base/assert.h"
#include "common/base/bytes.h"
#include "tests/lib/iscsiworld.h"

#define CHECK(x)    ASSERTF(x, "seen here")
#define MSEC(n)     ((n)*NSEC_PER_MSEC)
#define CONFLICT    0x18
#define IW_SECOND   "iqn.2024-01.example:second"
#define ATTR_SIMPLE 1

static void run(void (*body)(struct iscsiworld *w))
{
    struct iscsiworld w = {.body = body, .conf = {.reservations = true}};

    iscsiworld_run(&w);
}

static void login(struct ini *i, struct iscsiworld *w, const char *name)
{
    ini_connect(i, w->addr);
    CHECK(ini_login(i, name, IW_IQN, IW_NORMAL) == 0);
    ini_clear_attentions(i);
}

static int reserve_out(struct ini *i, uint8_t action, uint64_t key, uint64_t action_key,
                       uint8_t type)
{
    uint8_t cdb[16] = {0x5f, action, type, [8] = 24}, list[24] = {0};

    put_be64(list, key);
    put_be64(list + 8, action_key);
    return ini_cmd(i, cdb, 10, list, sizeof(list), NULL, 0).status;
}

static void start_write(struct ini *i, uint8_t lba, const uint8_t *data)
{
    const uint8_t cdb[16] = {0x2a, [5] = lba, [8] = 1};
    uint8_t bhs[BHS_BYTES];

    ini_cmd_bhs(i, bhs, FLAG_FINAL | FLAG_WRITE, cdb, 10, 512);
    bhs[1] |= ATTR_SIMPLE;
    CHECK(ini_send(i, bhs, data, 512) == 0);
}

struct release {
    struct co_event go;
    bool released;
};

static co_fn int release_later(void *arg)
{
    struct release *r = arg;

    CHECK(co_sleep(MSEC(300)) == 0);
    r->released = true;
    co_event_set(&r->go, 0);
    return 0;
}

/* One write of the preempted nexus is under way: PREEMPT is answered when it has ended. */
static void body_fence(struct iscsiworld *w)
{
    static const uint8_t old[512] = {1};
    struct release r = {0};
    struct co_group group;
    uint8_t in[512];
    struct ini a, b;

    co_group_init(&group);
    co_event_init(&r.go);
    login(&a, w, IW_INI);
    login(&b, w, IW_SECOND);
    CHECK(reserve_out(&a, 0, 0, 0xa, 0) == 0 && reserve_out(&b, 0, 0, 0xb, 0) == 0);
    CHECK(reserve_out(&a, 1, 0xa, 0, 5) == 0); /* write exclusive, registrants only */
    block_backend_mem_hold(w->backends[1], &r.go, 0, 1);
    start_write(&a, 0, old);
    CHECK(co_sleep(MSEC(10)) == 0);
    co_spawn(&group, "release", release_later, &r);
    CHECK(reserve_out(&b, 4, 0xb, 0xa, 1) == 0);
    CHECK(r.released);
    CHECK(ini_read(&b, 0, in, 512).status == 0 && in[0] == 1);
    co_group_join(&group);
    ini_close(&a);
    /* a new session of the same port is no registrant */
    login(&a, w, IW_INI);
    CHECK(ini_write(&a, 0, old, 512).status == CONFLICT);
    CHECK(ini_read(&a, 0, in, 512).status == 0);
    ini_close(&a);
    ini_close(&b);
}

static void who_is_shut_out_has_nothing_under_way(void **state)
{
    (void)state;
    run(body_fence);
}

/* A reservation of SPC-2 ends with its nexus, and by a reset. */
static void body_legacy(struct iscsiworld *w)
{
    const uint8_t reserve[16] = {0x16};
    static const uint8_t data[512] = {1};
    struct ini a, b;

    login(&a, w, IW_INI);
    login(&b, w, IW_SECOND);
    CHECK(ini_cmd(&a, reserve, 6, NULL, 0, NULL, 0).status == 0);
    CHECK(ini_write(&b, 0, data, 512).status == CONFLICT);
    ini_close(&a);
    CHECK(co_sleep(MSEC(100)) == 0);
    CHECK(ini_write(&b, 0, data, 512).status == 0);
    ini_close(&b);
}

static void old_reservations_end_with_their_nexus(void **state)
{
    (void)state;
    run(body_legacy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_is_shut_out_has_nothing_under_way),
        cmocka_unit_test(old_reservations_end_with_their_nexus),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
