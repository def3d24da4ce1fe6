/* SPDX-License-Identifier: Apache-2.0
 *
 * Whole meta servers in the simulator: beginning, take-over, deposed leaders, lost replies,
 * trimming, snapshots. */
#include "tests/unit/meta/world.h"

static int bootstrap_script(struct mworld *w)
{
    uint64_t id = 0;

    assert_int_equal(pool_create(w, "p", 3), 0);
    assert_int_equal(pool_create(w, "p", 3), ERR_EXISTS);
    assert_int_equal(volume_create(w, "p", "v", 1ull << 30, &id), 0);
    assert_true(id > 0);
    assert_int_equal(volume_create(w, "q", "v", 1ull << 30, &id), ERR_NOTFOUND);
    assert_non_null(strstr(err_text(ERR_NOTFOUND), "zbs-cli pool create q"));
    assert_int_equal(pool_count(w), 1);
    check_equal(w);
    return 0;
}

static void one_server_begins(void **state)
{
    struct sim_conf conf = {.seed = 1};
    struct mworld w;

    (void)state;
    world_init(&w, &conf, 1);
    world_run(&w, bootstrap_script);
    world_fini(&w);
}

static void three_servers_begin(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        struct sim_conf conf = {.seed = seed};
        struct mworld w;

        world_init(&w, &conf, 3);
        world_run(&w, bootstrap_script);
        world_fini(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_server_begins),
        cmocka_unit_test(three_servers_begin),
    };

    return cmocka_run_group_tests_name("metad", tests, NULL, NULL);
}
