/* SPDX-License-Identifier: Apache-2.0
 *
 * Where new replicas are placed. */
#include "tests/unit/meta/decide_rig.h"

static void first_replica_is_local_and_hosts_differ(void **state)
{
    struct fixture *f = *state;

    for (uint32_t i = 0; i < HOSTS; i++) {
        assert_int_equal(acquire(f, f->sessions[i], i * 64, 64, true, false), 0);
        for (uint32_t n = i * 64; n < i * 64 + 64; n++) {
            struct extent *e = extent_at(f, n);

            assert_int_equal(e->n_members, 3);
            assert_int_equal(e->n_absent, 0);
            assert_int_equal(e->replicas[0], f->chunks[i].id);
            assert_true(e->replicas[1] != e->replicas[0] && e->replicas[2] != e->replicas[0] &&
                        e->replicas[1] != e->replicas[2]);
        }
    }
}

static void racks_are_kept_apart(void **state)
{
    struct fixture *f = *state;
    struct place_want want = {.replicas = 2, .failure_domain = "rack", .preferred_host = "host-1"};
    uint32_t ids[SLOT_REPLICAS_MAX];

    for (want.seed = 0; want.seed < 50; want.seed++) {
        assert_int_equal(place_choose(f->chunks, HOSTS, &want, ids), 2);
        assert_int_equal(ids[0], f->chunks[1].id);
        assert_true(ids[1] == f->chunks[2].id || ids[1] == f->chunks[3].id);
    }
    /* Three replicas on two racks: hosts differ at least. */
    want.replicas = 3;
    assert_int_equal(place_choose(f->chunks, HOSTS, &want, ids), 3);
}

static void space_weighs(void **state)
{
    struct fixture *f = *state;
    struct place_want want = {.replicas = 1, .failure_domain = "host", .preferred_host = ""};
    uint32_t hits[HOSTS] = {0}, id;

    f->chunks[0].free_bytes = 300 * GIB;
    f->chunks[1].free_bytes = 0;
    for (want.seed = 0; want.seed < 1000; want.seed++) {
        assert_int_equal(place_choose(f->chunks, HOSTS, &want, &id), 1);
        for (uint32_t i = 0; i < HOSTS; i++)
            hits[i] += f->chunks[i].id == id;
    }
    assert_int_equal(hits[1], 0);
    assert_true(hits[0] > 500 && hits[2] > 100 && hits[3] > 100);
}

/* Rather in the same rack than on a full server, and rather there than not at all. */
static void the_full_come_last(void **state)
{
    struct fixture *f = *state;
    struct place_want want = {.replicas = 2, .failure_domain = "rack", .preferred_host = "host-1"};
    uint32_t ids[SLOT_REPLICAS_MAX];

    f->chunks[2].full = f->chunks[3].full = true;
    for (want.seed = 0; want.seed < 50; want.seed++) {
        assert_int_equal(place_choose(f->chunks, HOSTS, &want, ids), 2);
        assert_true(ids[0] == f->chunks[1].id && ids[1] == f->chunks[0].id);
    }
    want.replicas = HOSTS;
    assert_int_equal(place_choose(f->chunks, HOSTS, &want, ids), HOSTS);
    f->chunks[1].full = true; /* also the host that was asked for */
    want.replicas = 1;
    assert_int_equal(place_choose(f->chunks, HOSTS, &want, ids), 1);
    assert_int_equal(ids[0], f->chunks[0].id);
}

/* A thick extent's are rather in the same rack than where it can't have its space, and rather there
 * than not at all. */
static void the_thick_go_where_there_is_room(void **state)
{
    struct fixture *f = *state;
    struct place_want want = {
        .replicas = 2, .failure_domain = "rack", .preferred_host = "host-1", .room = GIB};
    uint32_t ids[SLOT_REPLICAS_MAX];

    f->chunks[2].free_bytes = f->chunks[3].free_bytes = GIB - 1;
    for (want.seed = 0; want.seed < 50; want.seed++) {
        assert_int_equal(place_choose(f->chunks, HOSTS, &want, ids), 2);
        assert_true(ids[0] == f->chunks[1].id && ids[1] == f->chunks[0].id);
    }
    want.replicas = HOSTS;
    assert_int_equal(place_choose(f->chunks, HOSTS, &want, ids), HOSTS);
}

static void too_few_servers_owe_a_replica(void **state)
{
    struct fixture *f = *state;
    struct extent *e;

    f->chunks[1].alive = f->chunks[2].alive = false;
    assert_int_equal(acquire(f, f->sessions[0], 0, 1, true, false), 0);
    e = extent_at(f, 0);
    assert_int_equal(e->n_members, 2);
    assert_int_equal(e->n_absent, 1);
    assert_true(extent_has_absent(e, f->chunks[1].id) || extent_has_absent(e, f->chunks[2].id));
    f->chunks[3].alive = false;
    assert_int_equal(acquire(f, f->sessions[0], 1, 1, true, false), ERR_AGAIN);
    assert_null(extent_at(f, 1));
    /* A new leader waits for those that may report yet. */
    f->chunks[3].alive = true;
    f->chunks[3].heard = false;
    assert_int_equal(acquire(f, f->sessions[0], 1, 1, true, false), ERR_AGAIN);
    f->chunks[3].heard = f->chunks[1].alive = f->chunks[2].alive = true;
    for (uint32_t i = 0; i < HOSTS; i++)
        f->chunks[i].free_bytes = 0;
    assert_int_equal(acquire(f, f->sessions[0], 1, 1, true, false), ERR_NOSPACE);
}

static void later_servers_are_adopted(void **state)
{
    struct fixture *f = *state;
    Zbs__Metalog__Record *r;
    struct packed reply;
    struct extent *e;
    uint64_t set_number;

    assert_int_equal(add_pool(f, "five", 5, 2), 0);
    assert_int_equal(add_volume(f, "five", "v", GIB), 0);
    f->volume_id = pool_volume(state_pool(&f->st, "five"), "v")->id;
    assert_int_equal(acquire(f, f->sessions[0], 0, 1, true, false), 0);
    e = extent_at(f, 0);
    assert_int_equal(e->n_members, 4);
    assert_int_equal(e->n_absent, 0);
    assert_null(decide_repair(&f->st, &f->w, e, &f->pad));
    add_chunk(f, HOSTS, "host-new", "left");
    r = decide_repair(&f->st, &f->w, e, &f->pad);
    assert_non_null(r);
    set_number = e->set_number;
    assert_int_equal(apply_record(&f->st, r, NULL, &f->pad, &reply), 0);
    assert_int_equal(e->n_absent, 1);
    assert_true(e->set_number > set_number);
    assert_null(decide_repair(&f->st, &f->w, e, &f->pad));
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(first_replica_is_local_and_hosts_differ),
        CASE(racks_are_kept_apart),
        CASE(space_weighs),
        CASE(the_full_come_last),
        CASE(the_thick_go_where_there_is_room),
        CASE(too_few_servers_owe_a_replica),
        CASE(later_servers_are_adopted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
