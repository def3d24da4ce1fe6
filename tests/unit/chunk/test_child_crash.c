/* SPDX-License-Identifier: Apache-2.0
 *
 * Power fails at each device write while children are made, written and deleted; after each cut
 * the engine is started, compared with the model, used, cut once more during that, and compared
 * again. */
#define EXTENTS       3u
#define STREAMS       2u
#define STREAM_BLOCKS 2u
#include "tests/unit/chunk/engine_model.h"
#include "common/base/log.h"

#define DISK_BYTES (24u << 20)
#define RING_BYTES (JOURNAL_PAGES_MIN * PAGE_BYTES)

struct cut {
    uint64_t at, seen;
};

static bool cut_hook(void *arg, struct sim_proc *p, uint64_t n)
{
    struct cut *c = arg;

    (void)p;
    (void)n;
    return ++c->seen == c->at;
}

static bool life_over(void *arg)
{
    return !sim_proc_running(arg);
}

/* One life, cut at its device write number `at` (0: never). False if it got to its end. */
static bool life(struct model *m, uint64_t at)
{
    struct cut c = {.at = at};

    sim_disk_set_hook(m->p, DISK, cut_hook, &c);
    sim_proc_start(m->p, model_main, m);
    assert_true(sim_run_until(m->s, life_over, m->p, SEC(1000)));
    assert_null(sim_proc_halted(m->p));
    sim_disk_set_hook(m->p, DISK, NULL, NULL);
    return at != 0 && c.seen >= at;
}

/* Some lives without harm first, so that there are generations; then one that is cut. */
static uint32_t enumerate(uint64_t seed, uint32_t lives, uint32_t flush_delay_ms, uint32_t step)
{
    uint32_t points = 0;

    for (uint64_t at = 1 + seed % step;; at += step) {
        struct model *m = model_new(seed, DISK_BYTES, RING_BYTES, 6);
        bool was_cut;

        m->flush_delay_ms = flush_delay_ms;
        m->children = true;
        for (uint32_t i = 0; i < lives; i++)
            life(m, 0);
        was_cut = life(m, at);
        m->ops = 4;
        points += was_cut;
        points += life(m, 1 + at % 29);
        life(m, 0);
        model_free(m);
        if (!was_cut)
            return points;
    }
}

static void test_every_point(void **state)
{
    uint32_t points = 0;

    (void)state;
    points += enumerate(1, 0, 3, 1);
    points += enumerate(2, 3, 1000, 1);
    for (uint64_t seed = 3; seed < 12; seed++)
        points += enumerate(seed, (uint32_t)seed % 5, 1 + (uint32_t)seed % 7, 5);
    print_message("%u crash points\n", points);
    assert_true(points > 300);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_point),
    };

    log_threshold = LOG_LV_ERROR;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
