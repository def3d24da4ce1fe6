/* SPDX-License-Identifier: Apache-2.0
 *
 * The engine against the model: random requests, crashes at random moments, small journals. */
#include "tests/unit/chunk/engine_model.h"
#include "common/base/log.h"

#define DISK_BYTES (64u << 20)
/* Little more than the extents can hold, so that blocks are used again at once. */
#define DISK_TIGHT (16u << 20)
#define RING_SMALL (JOURNAL_PAGES_MIN * PAGE_BYTES)

static void test_no_crash(void **state)
{
    struct model *m = model_new(1, DISK_BYTES, 0, 300);

    (void)state;
    model_live(m);
    model_live(m);
    assert_true(m->ops_done > 1000);
    model_free(m);
}

/* A ring of half a MiB wraps all the time. */
static void test_small_ring(void **state)
{
    (void)state;
    for (uint64_t seed = 10; seed < 14; seed++) {
        struct model *m = model_new(seed, DISK_BYTES, RING_SMALL, 150);

        m->memory_bytes = 1 << 20; /* most pages are in the ring only */
        m->flush_delay_ms = 5;
        model_live(m);
        model_live(m);
        model_free(m);
    }
}

#define NO_MEMORY 8192u /* whatever may leave memory leaves it at once */

static void crashes_of(struct model *m, uint64_t seed, bool power, uint64_t memory_bytes)
{
    uint32_t cut = 0;

    m->flush_delay_ms = 1 + (uint32_t)(seed % 20);
    m->deletes = seed % 3 == 0;
    m->memory_bytes = memory_bytes;
    m->sequential = seed % 5 == 0;
    for (uint32_t i = 0; i < 12; i++) {
        sim_proc_start(m->p, model_main, m);
        sim_run_for(m->s, (nsec_t)(sim_random(m->s) % 60) * NSEC_PER_MSEC);
        assert_null(sim_proc_halted(m->p));
        if (!sim_proc_running(m->p))
            continue;
        cut++;
        if (power || sim_random(m->s) % 2)
            sim_proc_power_loss(m->p);
        else
            sim_proc_crash(m->p);
    }
    assert_true(cut > 0);
    m->ops = 20;
    model_live(m);
    model_free(m);
}

static void crashes_in(uint64_t seed, uint64_t journal_bytes, bool power, uint64_t memory_bytes)
{
    crashes_of(model_new(seed, seed % 4 == 0 ? DISK_TIGHT : DISK_BYTES, journal_bytes, 200), seed,
               power, memory_bytes);
}

static void crashes(uint64_t seed, uint64_t journal_bytes, bool power)
{
    crashes_in(seed, journal_bytes, power, seed % 2 ? 1 << 20 : 0);
}

/* Map pages and generations are read again all the time. */
static void test_no_memory(void **state)
{
    (void)state;
    for (uint64_t seed = 400; seed < 420; seed++)
        crashes_in(seed, seed % 2 ? RING_SMALL : 0, seed % 3 != 0, NO_MEMORY);
}

static void test_crashes(void **state)
{
    (void)state;
    for (uint64_t seed = 100; seed < 112; seed++)
        crashes(seed, RING_SMALL, false);
    for (uint64_t seed = 200; seed < 212; seed++)
        crashes(seed, 0, true);
    for (uint64_t seed = 300; seed < 312; seed++)
        crashes(seed, 2 * RING_SMALL, true);
}

/* Extents change their disk under load, and at each crash some are on their way. */
static void moves_in(uint64_t seed, uint64_t journal_bytes, bool power, bool guest)
{
    struct model *m = model_new(seed, DISK_BYTES, journal_bytes, 200);

    m->disks = 2;
    m->guest = guest ? GUEST : NO_GUEST;
    m->sequential = seed % 3 == 0;
    m->flush_delay_ms = 1 + (uint32_t)(seed % 20);
    m->deletes = seed % 3 == 0;
    m->memory_bytes = seed % 2 ? 1 << 20 : 0;
    for (uint32_t i = 0; i < 12; i++) {
        sim_proc_start(m->p, model_main, m);
        sim_run_for(m->s, (nsec_t)(sim_random(m->s) % 100) * NSEC_PER_MSEC);
        assert_null(sim_proc_halted(m->p));
        if (!sim_proc_running(m->p))
            continue;
        if (power || sim_random(m->s) % 2)
            sim_proc_power_loss(m->p);
        else
            sim_proc_crash(m->p);
    }
    model_live(m);
    assert_true(m->drains > 0);
    model_free(m);
}

static void test_moves(void **state)
{
    (void)state;
    for (uint64_t seed = 500; seed < 508; seed++)
        moves_in(seed, seed % 3 * RING_SMALL, seed % 2, false);
}

/* The journals of the disk are on another one, which loses power, too. */
static void test_guest(void **state)
{
    (void)state;
    for (uint64_t seed = 700; seed < 724; seed++) {
        struct model *m = model_new(seed, DISK_BYTES, (1 + seed % 3) * RING_SMALL, 200);

        m->guest = GUEST_ALONE;
        crashes_of(m, seed, seed % 2 != 0, seed % 3 == 0 ? NO_MEMORY : seed % 3 == 1 ? 1 << 20 : 0);
    }
    for (uint64_t seed = 730; seed < 738; seed++)
        moves_in(seed, (1 + seed % 3) * RING_SMALL, seed % 2, true);
}

/* Extents share blocks over many generations; their origins are deleted before and after them. */
static uint64_t children_in(uint64_t seed, uint64_t journal_bytes, uint64_t memory_bytes)
{
    struct model *m = model_new(seed, DISK_BYTES, journal_bytes, 40);
    uint64_t born;

    m->children = true;
    m->disks = seed % 4 == 0 ? 2 : 1;
    m->flush_delay_ms = 1 + (uint32_t)(seed % 20);
    m->memory_bytes = memory_bytes;
    m->sequential = seed % 5 == 0;
    for (uint32_t i = 0; i < 20; i++) {
        sim_proc_start(m->p, model_main, m);
        sim_run_for(m->s, (nsec_t)(sim_random(m->s) % 200) * NSEC_PER_MSEC);
        assert_null(sim_proc_halted(m->p));
        if (!sim_proc_running(m->p))
            continue;
        if (seed % 3 != 0 || sim_random(m->s) % 2)
            sim_proc_power_loss(m->p);
        else
            sim_proc_crash(m->p);
    }
    model_live(m);
    born = m->born;
    model_free(m);
    return born;
}

static void test_children(void **state)
{
    uint64_t born = 0;

    (void)state;
    for (uint64_t seed = 600; seed < 624; seed++)
        born += children_in(seed, seed % 3 * RING_SMALL, seed % 2 ? NO_MEMORY : 1 << 20);
    print_message("%" PRIu64 " children\n", born);
    assert_true(born > 200);
}

/* ZBS_SOAK=N: N more seeds, on demand. ZBS_SOAK_FROM=S: the first of them. */
static void test_soak(void **state)
{
    const char *n = getenv("ZBS_SOAK"), *from = getenv("ZBS_SOAK_FROM");
    uint64_t first = from != NULL ? strtoull(from, NULL, 10) : 1000;
    uint64_t end = first + (n != NULL ? strtoull(n, NULL, 10) : 0);

    (void)state;
    for (uint64_t seed = first; seed < end; seed++) {
        print_message("seed %" PRIu64 "\n", seed);
        children_in(seed, seed % 3 * RING_SMALL, seed % 2 ? NO_MEMORY : 1 << 20);
        crashes_in(seed, seed % 5 < 2 ? 0 : (1 + seed % 3) * RING_SMALL, seed % 2 != 0,
                   seed % 7 < 3 ? NO_MEMORY : (seed % 7 < 5 ? 1 << 20 : 0));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_crash), cmocka_unit_test(test_small_ring),
        cmocka_unit_test(test_crashes),  cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_moves),    cmocka_unit_test(test_children),
        cmocka_unit_test(test_guest),    cmocka_unit_test(test_soak),
    };

    log_threshold = LOG_LV_ERROR;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
