/* SPDX-License-Identifier: Apache-2.0
 *
 * The pace of copies in virtual time: the rate, how copies give way where clients' requests become
 * slow, and how they come back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "access/vol/vol_int.h"
#include "common/env/sim.h"

#define FULL     256u
#define RATE     (UINT64_C(16) * MIB)
#define COPY     (256u * KIB) /* 1/64 s of the rate */
#define MSEC(n)  ((n)*NSEC_PER_MSEC)
#define SEC(n)   ((n)*NSEC_PER_SEC)
#define CHECK(x) ASSERTF(x, "at %" PRId64 " ms", co_now() / NSEC_PER_MSEC)

/* An extent with a member and a replica that returns, and a server that it has nothing to do with.
 */
struct world {
    struct vol_engine e;
    struct tenure t;
    struct chunk member, returning, other;
    int (*script)(struct world *w);
    bool done;
};

static void world_init(struct world *w)
{
    w->e.recovery.rate = RATE;
    w->t.e = &w->e;
    w->t.n = 2;
    w->t.m[0].chunk = &w->member;
    w->t.m[1].chunk = &w->returning;
    w->t.set = 1;
    w->t.joining = 2;
    w->t.open = 3;
    list_init(&w->e.recovery.joins);
    co_cond_init(&w->e.recovery.room);
}

static int script_main(void *arg)
{
    struct world *w = arg;
    int rc = w->script(w);

    w->done = true;
    return rc;
}

static bool is_done(void *arg)
{
    return ((struct world *)arg)->done;
}

static void run(int (*script)(struct world *w))
{
    struct sim_conf conf = {.seed = 1};
    struct sim *sim = sim_new(&conf);
    struct world *w = MEM_NEW(struct world);

    world_init(w);
    w->script = script;
    sim_control(sim, "127.1.0.9", "script", script_main, w);
    assert_true(sim_run_until(sim, is_done, w, SEC(300)));
    sim_free(sim);
    mem_free(w);
}

/* ---- what happens in it ---- */

/* A client that has one request after the other at this server, each so long. */
static void clients(struct chunk *c, nsec_t latency, nsec_t span)
{
    for (nsec_t until = co_now() + span; co_now() < until;) {
        CHECK(co_sleep(latency) == 0);
        pace_foreground(c, latency);
    }
}

/* Copies for so long: how many bytes a second that were. */
static uint64_t copies(struct world *w, nsec_t span)
{
    nsec_t began = co_now();
    uint64_t n = 0;

    for (; co_now() < began + span; n++)
        CHECK(pace_copy(&w->t, COPY) == 0);
    return n * COPY * NSEC_PER_SEC / (uint64_t)(co_now() - began);
}

static bool about(uint64_t is, uint64_t want)
{
    return is >= want - want / 8 && is <= want + want / 8;
}

/* ---- the rate ---- */

static int script_rate(struct world *w)
{
    CHECK(about(copies(w, SEC(4)), RATE));
    /* a pause is not made up for, but for a moment */
    CHECK(co_sleep(SEC(3)) == 0);
    CHECK(about(copies(w, SEC(2)), RATE));
    w->t.open = 0; /* whoever is not open does not count */
    w->member.pace = (struct pace){.backoff = FULL / 2, .last = co_now()};
    CHECK(about(copies(w, SEC(1) / 4), RATE));
    return 0;
}

static int copy_one(void *arg)
{
    return pace_copy(&((struct world *)arg)->t, 64 * COPY);
}

/* Who waits as a slow rate had it begins when the new one says. */
static int script_rate_changed(struct world *w)
{
    struct co_group g;
    nsec_t began;

    joins_limit(&w->e, 8, COPY); /* a minute for what follows */
    CHECK(pace_copy(&w->t, 64 * COPY) == 0);
    co_group_init(&g);
    began = co_now();
    co_spawn(&g, "copy", copy_one, w);
    CHECK(co_sleep(SEC(1)) == 0);
    joins_limit(&w->e, 8, RATE);
    CHECK(co_group_join(&g) == 0);
    CHECK(co_now() - began <= SEC(1) + MSEC(150));
    return 0;
}

/* ---- giving way ---- */

static int script_gives_way(struct world *w)
{
    nsec_t began;

    clients(&w->member, MSEC(1), SEC(2));
    CHECK(pace_share(&w->member) == FULL);

    /* a little slower is no reason: up to twice as long and half a millisecond */
    clients(&w->member, MSEC(2), SEC(1));
    CHECK(pace_share(&w->member) == FULL);

    /* slow: down within half a second or so, never to nothing */
    began = co_now();
    while (pace_share(&w->member) > FULL / 8)
        clients(&w->member, MSEC(8), MSEC(8));
    CHECK(co_now() - began < MSEC(800));
    clients(&w->member, MSEC(8), SEC(2));
    CHECK(pace_share(&w->member) == FULL / 16);

    /* fast again: half of the rate within a second, all of it within two or three */
    clients(&w->member, MSEC(1), SEC(1));
    CHECK(pace_share(&w->member) >= FULL / 2);
    clients(&w->member, MSEC(1), SEC(2));
    CHECK(pace_share(&w->member) == FULL);
    return 0;
}

struct client {
    struct chunk *c;
    bool stop;
};

static int slow_clients(void *arg)
{
    struct client *k = arg;

    while (!k->stop)
        clients(k->c, MSEC(8), MSEC(8));
    return 0;
}

/* What copies get meanwhile, while clients wait at this server. */
static uint64_t copies_beside(struct world *w, struct chunk *c)
{
    struct client k = {.c = c};
    struct co_group g;
    uint64_t rate;

    clients(c, MSEC(1), SEC(1));
    clients(c, MSEC(8), SEC(2));
    co_group_init(&g);
    co_spawn(&g, "clients", slow_clients, &k);
    rate = copies(w, SEC(4));
    k.stop = true;
    CHECK(co_group_join(&g) == 0);
    return rate;
}

/* Where it is read from as well as where it is written to; no other server matters. */
static int script_whose_clients(struct world *w)
{
    CHECK(about(copies_beside(w, &w->other), RATE));
    CHECK(about(copies_beside(w, &w->member), RATE / 16));
    CHECK(co_sleep(SEC(1)) == 0); /* nobody waits any more */
    CHECK(pace_share(&w->member) == FULL);
    CHECK(about(copies(w, SEC(1)), RATE));
    CHECK(about(copies_beside(w, &w->returning), RATE / 16));
    return 0;
}

/* What has been slow for longer than is looked back at is how this server is. */
static int script_slow_for_good(struct world *w)
{
    clients(&w->member, MSEC(1), SEC(2));
    clients(&w->member, MSEC(8), SEC(5));
    CHECK(pace_share(&w->member) == FULL / 16);
    clients(&w->member, MSEC(8), SEC(25));
    CHECK(pace_share(&w->member) == FULL);
    return 0;
}

static void test_rate(void **state)
{
    (void)state;
    run(script_rate);
    run(script_rate_changed);
}

static void test_gives_way(void **state)
{
    (void)state;
    run(script_gives_way);
    run(script_whose_clients);
    run(script_slow_for_good);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rate),
        cmocka_unit_test(test_gives_way),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
