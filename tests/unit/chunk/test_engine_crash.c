/* SPDX-License-Identifier: Apache-2.0
 *
 * Every crash point: a short workload is run again and again, and power fails at its device write
 * number 1, 2, 3 ... until it gets through. After each cut the engine is started, checked against
 * the model, used, cut once more during that, and checked again. */
#define EXTENTS       2u
#define STREAMS       2u
#define STREAM_BLOCKS 2u
#include "tests/unit/chunk/engine_model.h"
#include "common/base/log.h"

#define DISK_BYTES (24u << 20)
#define DISK_TIGHT (13u << 19) /* blocks are used again at once */
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

static uint32_t enumerate(uint64_t seed, uint32_t ops, uint32_t flush_delay_ms, uint32_t step,
                          uint64_t disk_bytes)
{
    uint32_t points = 0;

    for (uint64_t at = 1 + seed % step;; at += step) {
        struct model *m = model_new(seed, disk_bytes, RING_BYTES, ops);
        bool was_cut;

        m->flush_delay_ms = flush_delay_ms;
        m->deletes = true;
        m->sequential = seed % 3 == 0;
        m->memory_bytes = seed % 2 == 0 ? 8192 : 0; /* nothing stays in memory that can leave */
        was_cut = life(m, at);
        m->ops = 4;
        points += was_cut;
        points += life(m, 1 + at % 23);
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
    points += enumerate(1, 12, 3, 1, DISK_BYTES);
    points += enumerate(2, 12, 1000, 1, DISK_TIGHT);
    for (uint64_t seed = 3; seed < 20; seed++)
        points +=
            enumerate(seed, 12, 1 + (uint32_t)seed % 7, 5, seed % 2 ? DISK_BYTES : DISK_TIGHT);
    print_message("%u crash points\n", points);
    assert_true(points > 500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_point),
    };

    log_threshold = LOG_LV_ERROR;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
