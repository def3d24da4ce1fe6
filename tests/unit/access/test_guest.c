/* SPDX-License-Identifier: Apache-2.0
 *
 * Clients that can't register, those of NBD, and initiators' reservations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>
#include "access/guest.h"
#include "common/base/assert.h"
#include "common/env/env.h"
#include "common/env/sim.h"

#define CHECK(x)   ASSERTF(x, "seen here")
#define VOLUME     7u
#define KEY        0xAu
#define SIZE_BYTES (1u << 20)

struct world {
    struct pr_registry registry;
    struct block_backend *memory, *guest;
    struct pr_unit *unit; /* as an initiator's front end has it */
    struct buf *buf;
    bool written, done;
};

static void reserve(struct world *w, enum pr_action action, enum pr_type type)
{
    struct pr_command c = {.action = action, .type = (uint8_t)type, .key = KEY};
    enum pr_answer answer;

    c.who = (struct pr_nexus){.port = 1, .initiator = "iqn.2024-01.example:anna"};
    if (action == PR_REGISTER) {
        c.key = 0;
        c.action_key = KEY;
    }
    CHECK(pr_unit_out(w->unit, &c, NULL, &answer) == 0 && answer == PR_GOOD);
}

static int all_writes(struct world *w)
{
    const struct block_backend_ops *ops = w->guest->ops;
    int rc = ops->write(w->guest, 0, 512, w->buf, 0);
    uint32_t at;

    CHECK(ops->zero(w->guest, 0, 512) == rc && ops->discard(w->guest, 0, 512) == rc);
    CHECK(rc < 0 || ops->write(w->guest, 0, 512, w->buf, 0) == 0);
    CHECK(ops->compare_and_write(w->guest, 0, 512, w->buf, 0, w->buf, 0, &at) == rc);
    return rc;
}

static int all_reads(struct world *w)
{
    const struct block_backend_ops *ops = w->guest->ops;
    int rc = ops->read(w->guest, 0, 512, w->buf, 0);
    uint64_t len;
    bool hole;

    CHECK(ops->hole(w->guest, 0, SIZE_BYTES, &hole, &len) == rc);
    CHECK(ops->flush(w->guest) == 0 && ops->confirm(w->guest) == 0);
    return rc;
}

static void types(struct world *w)
{
    static const struct {
        enum pr_type type;
        int reads;
    } rows[] = {
        {PR_WRITE_EXCLUSIVE, 0},    {PR_EXCLUSIVE_ACCESS, ERR_RESERVED},
        {PR_WRITE_EXCLUSIVE_RO, 0}, {PR_EXCLUSIVE_ACCESS_RO, ERR_RESERVED},
        {PR_WRITE_EXCLUSIVE_AR, 0}, {PR_EXCLUSIVE_ACCESS_AR, ERR_RESERVED},
    };

    CHECK(all_writes(w) == 0 && all_reads(w) == 0);
    reserve(w, PR_REGISTER, PR_NONE);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        CHECK(all_writes(w) == 0 && all_reads(w) == 0);
        reserve(w, PR_RESERVE, rows[i].type);
        CHECK(all_writes(w) == ERR_RESERVED && all_reads(w) == rows[i].reads);
        reserve(w, PR_RELEASE, rows[i].type);
    }
}

static int write_held(void *arg)
{
    struct world *w = arg;

    CHECK(w->guest->ops->write(w->guest, 0, 512, w->buf, 0) == 0);
    w->written = true;
    return 0;
}

static int let_go(void *arg)
{
    CHECK(co_sleep(300 * NSEC_PER_MSEC) == 0);
    co_event_set(arg, 0);
    return 0;
}

/* What it has under way ends before a reservation that excludes it is answered. */
static void drained(struct world *w)
{
    struct co_group group;
    struct co_event go;

    co_group_init(&group);
    co_event_init(&go);
    block_backend_mem_hold(w->memory, &go, 0, 1);
    co_spawn(&group, "write", write_held, w);
    co_spawn(&group, "let-go", let_go, &go);
    CHECK(co_sleep(NSEC_PER_MSEC) == 0 && !w->written);
    reserve(w, PR_RESERVE, PR_WRITE_EXCLUSIVE);
    CHECK(w->written);
    CHECK(co_group_join(&group) == 0);
    CHECK(all_writes(w) == ERR_RESERVED);
}

static int body(void *arg)
{
    struct world *w = arg;

    pr_registry_init(&w->registry, NULL);
    w->memory = block_backend_mem_new(VOLUME, SIZE_BYTES);
    w->buf = buf_alloc(512);
    CHECK(guest_backend_open(&w->registry, w->memory, &w->guest) == 0);
    CHECK(pr_unit_get(&w->registry, VOLUME, &w->unit) == 0);
    types(w);
    drained(w);
    pr_unit_put(w->unit);
    w->guest->ops->close(w->guest);
    pr_registry_fini(&w->registry);
    buf_put(w->buf);
    w->done = true;
    return 0;
}

static bool is_done(void *arg)
{
    return ((struct world *)arg)->done;
}

static void reservations_shut_out_guests(void **state)
{
    struct sim_conf conf = {.seed = 1};
    struct sim *s = sim_new(&conf);
    struct world w = {.done = false};

    (void)state;
    sim_control(s, "127.1.0.9", "body", body, &w);
    assert_true(sim_run_until(s, is_done, &w, 60 * NSEC_PER_SEC));
    sim_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(reservations_shut_out_guests)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
