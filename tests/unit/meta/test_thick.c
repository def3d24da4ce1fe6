/* SPDX-License-Identifier: Apache-2.0
 *
 * Single decisions about thick volumes. That their promises are what is said of them, whatever
 * else happens, is checked in test_snapshot.c. */
#include "tests/unit/meta/snapshot_model.h"

#define SAME  ZBS__META__THICKNESS__THICKNESS_SAME
#define THIN  ZBS__META__THICKNESS__THICKNESS_THIN
#define THICK ZBS__META__THICKNESS__THICKNESS_THICK

static int set_up_model(void **state)
{
    struct model *m = calloc(1, sizeof(*m));

    prng_init(&m->prng, 1);
    set_up(m);
    *state = m;
    return 0;
}

static int tear_down_model(void **state)
{
    tear_down(*state);
    free(*state);
    return 0;
}

/* "v", of so many slots. */
static struct mvolume *make(struct model *m, uint32_t slots, bool thick)
{
    Zbs__Meta__VolumeCreateRequest rq = ZBS__META__VOLUME_CREATE_REQUEST__INIT;
    struct mvolume *v = free_volume(m);

    rq.pool = (char *)"p";
    rq.name = strcpy(v->name, "v");
    rq.size_bytes = (uint64_t)slots * EXTENT_BYTES;
    rq.stripe_count = 1;
    rq.thick = thick;
    assert_int_equal(act(m, decide_volume_create, &rq.base), 0);
    v->id = pool_volume(state_pool(&m->st, "p"), v->name)->id;
    v->n = slots;
    return v;
}

static int resize(struct model *m, struct mvolume *v, uint32_t slots)
{
    Zbs__Meta__VolumeResizeRequest rq = ZBS__META__VOLUME_RESIZE_REQUEST__INIT;

    rq.pool = (char *)"p";
    rq.name = v->name;
    rq.size_bytes = (uint64_t)slots * EXTENT_BYTES;
    rq.discard = true;
    return act(m, decide_volume_resize, &rq.base);
}

static const Zbs__Meta__Provisioning *of(struct model *m, struct mvolume *v)
{
    return &real(m, v)->provisioning;
}

static void provision_all(struct model *m, struct mvolume *v)
{
    while (of(m, v)->pass != 0)
        provision(m, v);
}

static bool at(struct model *m, struct mvolume *v, uint32_t slot)
{
    return of(m, v)->pass != 0 && of(m, v)->next_slot == slot;
}

static void slots_are_done_one_by_one(void **state)
{
    struct model *m = *state;
    struct mvolume *v = make(m, 3, true);
    uint64_t pass = of(m, v)->pass, number;

    assert_true(of(m, v)->thick && at(m, v, 0));
    number = m->st.next_mutation;
    assert_int_equal(provisioned(m, v->id, 1, pass, false), 0); /* not asked for */
    assert_int_equal(provisioned(m, v->id, 0, pass + 1, false), 0);
    assert_int_equal(provisioned(m, v->id + 1000, 0, pass, false), 0);
    assert_int_equal(m->st.next_mutation, number);
    provision(m, v);
    provision(m, v);
    assert_true(at(m, v, 2) && of(m, v)->pass == pass);
    provision(m, v);
    assert_true(of(m, v)->thick && of(m, v)->pass == 0);
    number = m->st.next_mutation;
    assert_int_equal(set_thickness(m, v->name, THICK), 0); /* it is */
    assert_int_equal(set_thickness(m, v->name, SAME), 0);
    assert_int_equal(m->st.next_mutation, number);
}

static void without_space_it_waits(void **state)
{
    struct model *m = *state;
    struct mvolume *v = make(m, 3, true);
    uint64_t number;

    provision(m, v);
    assert_int_equal(provisioned(m, v->id, 1, of(m, v)->pass, true), 0);
    assert_true(at(m, v, 1) && of(m, v)->no_space);
    number = m->st.next_mutation;
    assert_int_equal(provisioned(m, v->id, 1, of(m, v)->pass, true), 0); /* known */
    assert_int_equal(m->st.next_mutation, number);
    provision(m, v);
    assert_true(at(m, v, 2) && !of(m, v)->no_space);
    provision(m, v);
    assert_int_equal(of(m, v)->pass, 0);
}

static void a_replica_without_promise_is_seen_to(void **state)
{
    struct model *m = *state;
    struct mvolume *v = make(m, 3, true);
    uint64_t pass = of(m, v)->pass;

    provision(m, v);
    assert_int_equal(provisioned(m, v->id, 2, 0, true), 0); /* comes anyway */
    assert_true(at(m, v, 1) && of(m, v)->pass == pass && !of(m, v)->no_space);
    assert_int_equal(provisioned(m, v->id, 0, 0, true), 0);
    assert_true(at(m, v, 0) && of(m, v)->pass > pass && of(m, v)->no_space);
    assert_int_equal(provisioned(m, v->id, 0, pass, false), 0); /* from before */
    assert_true(at(m, v, 0));
    provision_all(m, v);
    assert_int_equal(provisioned(m, v->id, 2, 0, true), 0);
    assert_true(at(m, v, 2) && of(m, v)->no_space);
    assert_int_equal(set_thickness(m, v->name, THIN), 0);
    provision_all(m, v);
    assert_int_equal(provisioned(m, v->id, 2, 0, true), 0); /* it has none to have */
    assert_int_equal(of(m, v)->pass, 0);
}

static void thin_again_where_there_is_an_extent(void **state)
{
    struct model *m = *state;
    struct mvolume *v = make(m, 4, false);

    assert_true(!of(m, v)->thick && of(m, v)->pass == 0);
    assert_int_equal(set_thickness(m, v->name, THICK), 0);
    assert_int_equal(set_thickness(m, v->name, THIN), 0); /* nothing was done yet */
    assert_true(!of(m, v)->thick && of(m, v)->pass == 0);
    assert_int_equal(acquire(m, m->sessions[0], v->id, 2, 1, true, false), 0);
    check_allocated(m, v, 2, false);
    assert_int_equal(set_thickness(m, v->name, THICK), 0);
    provision(m, v);
    assert_int_equal(set_thickness(m, v->name, THIN), 0);
    assert_true(at(m, v, 0));
    provision(m, v);
    assert_true(at(m, v, 2)); /* no hole is asked for */
    provision(m, v);
    assert_int_equal(of(m, v)->pass, 0);
    assert_int_equal(set_thickness(m, v->name, (Zbs__Meta__Thickness)7), ERR_INVAL);
}

static void sharing_begins_it_anew(void **state)
{
    struct model *m = *state;
    struct mvolume *v = make(m, 2, true), s = {.name = "v@s"};
    uint64_t pass = of(m, v)->pass;

    provision_all(m, v);
    make_ready(m, v);
    assert_int_equal(snapshot_of(m, &v, 1, (char *)"s"), 0);
    assert_true(at(m, v, 0) && of(m, v)->pass > pass);
    s.id = pool_volume(state_pool(&m->st, "p"), s.name)->id;
    assert_true(!of(m, &s)->thick && of(m, &s)->pass == 0);
    assert_int_equal(set_thickness(m, s.name, THICK), ERR_PERM);
    pass = of(m, v)->pass;
    make_ready(m, v);
    assert_int_equal(snapshot_of(m, &v, 1, (char *)"t"), 0); /* also at the first slot */
    assert_true(at(m, v, 0) && of(m, v)->pass > pass);
    assert_int_equal(provisioned(m, v->id, 0, pass, false), 0);
    assert_true(at(m, v, 0));
}

static void new_slots_are_done_and_old_ones_stay(void **state)
{
    struct model *m = *state;
    struct mvolume *v = make(m, 2, true);
    uint64_t pass;

    provision_all(m, v);
    assert_int_equal(resize(m, v, 5), 0);
    assert_true(at(m, v, 2));
    pass = of(m, v)->pass;
    assert_int_equal(resize(m, v, 7), 0); /* comes there, too */
    assert_true(at(m, v, 2) && of(m, v)->pass == pass);
    provision(m, v);
    assert_int_equal(resize(m, v, 3), 0);
    assert_int_equal(of(m, v)->pass, 0);
    assert_int_equal(m->st.passes.count, 0);
}

static void whoever_is_not_in_the_way_goes_on(void **state)
{
    struct model *m = *state;
    struct mvolume *v = make(m, 3, true);
    Zbs__Meta__SlotProvisionedRequest rq = ZBS__META__SLOT_PROVISIONED_REQUEST__INIT;
    Zbs__Meta__SlotProvisionedReply reply = ZBS__META__SLOT_PROVISIONED_REPLY__INIT;
    struct decide d = {.st = &m->st, .w = &m->w, .rq = &rq.base, .pad = &m->pad};

    assert_int_equal(acquire(m, m->sessions[1], v->id, 2, 1, true, false), 0);
    check_allocated(m, v, 2, false);
    rq.session_id = m->sessions[0];
    rq.volume_id = v->id;
    rq.pass = of(m, v)->pass;
    provision(m, v);
    assert_int_equal(answer_slot_provisioned(&d, &reply.base), 0);
    assert_true(reply.pass == rq.pass && reply.next_slot == 1);
    provision(m, v);
    zbs__meta__slot_provisioned_reply__init(&reply);
    assert_int_equal(answer_slot_provisioned(&d, &reply.base), 0);
    assert_int_equal(reply.pass, 0); /* another has the next one */
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up_model, tear_down_model)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(slots_are_done_one_by_one),
        CASE(without_space_it_waits),
        CASE(a_replica_without_promise_is_seen_to),
        CASE(thin_again_where_there_is_an_extent),
        CASE(sharing_begins_it_anew),
        CASE(new_slots_are_done_and_old_ones_stay),
        CASE(whoever_is_not_in_the_way_goes_on),
    };

    return cmocka_run_group_tests_name("thick", tests, NULL, NULL);
}
