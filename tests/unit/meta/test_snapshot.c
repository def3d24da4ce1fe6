/* SPDX-License-Identifier: Apache-2.0
 *
 * Snapshots, clones and rollbacks decided and applied by the thousand: what is shared, who gets a
 * child, what becomes garbage, and that the store holds the same. And a store of another format. */
#include "tests/unit/meta/snapshot_model.h"

/* ---- checks ---- */

static void check_extent(struct model *m, uint64_t id, const struct idmap *live)
{
    const struct extent *e = state_extent(&m->st, id);
    uint32_t garbage = 0;

    for (uint32_t i = 0; i < m->st.chunks.count; i++)
        garbage += chunk_garbage(m->st.chunks.items[i], id) != NULL;
    if (idmap_get(live, id) == 0) {
        assert_null(e);
        assert_true(garbage > 0);
        return;
    }
    assert_non_null(e);
    assert_int_equal(garbage, 0);
    assert_true(e->created == (idmap_get(&m->origins, id) == 0));
    assert_true(extent_is_shared(&m->st, e) == model_shared(m, id, e->slot));
}

static void check_reload(struct model *m)
{
    struct state loaded;
    uint64_t applied;

    state_init(&loaded);
    assert_int_equal(codec_load(m->kv, &loaded, &applied), 0);
    assert_int_equal(codec_digest(&loaded), codec_digest(&m->st));
    assert_int_equal(loaded.n_extents, m->st.n_extents);
    assert_int_equal(loaded.n_degraded, m->st.n_degraded);
    assert_int_equal(loaded.pages.count, m->st.pages.count);
    assert_int_equal(loaded.passes.count, m->st.passes.count);
    for (uint64_t i = 0; i < loaded.extents.cap; i++) {
        const struct extent *e = (const void *)(uintptr_t)loaded.extents.entries[i].value, *other;

        if (e == NULL)
            continue;
        other = state_extent(&m->st, e->id);
        assert_int_equal(e->refs, other->refs);
        assert_true(extent_is_shared(&loaded, e) == extent_is_shared(&m->st, other));
    }
    state_fini(&loaded);
}

/* All slots of a thick volume that are said to be done have an extent of their own with a promise
 * from after it was last shared; those of a thin one have none. */
static void check_promises(struct model *m, struct mvolume *v)
{
    const struct volume *r = real(m, v);
    uint32_t done = r->provisioning.pass != 0 ? r->provisioning.next_slot : r->n_slots;

    for (uint32_t n = 0; n < done; n++) {
        const struct extent *e = volume_extent(r, n);
        uint64_t promised = e != NULL ? idmap_get(&m->promised, e->id) : 0;

        if (r->provisioning.thick)
            assert_true(promised > r->shared_at && extent_volume(&m->st, e) == r);
        else if (e != NULL && extent_volume(&m->st, e) == r)
            assert_true(promised <= r->shared_at);
    }
}

static void check_all(struct model *m)
{
    struct idmap live = {0};

    for (uint32_t i = 0; i < VOLUMES; i++) {
        struct mvolume *v = &m->volumes[i];
        uint32_t extents = 0;

        for (uint32_t n = 0; v->id != 0 && n < v->n; n++) {
            const struct extent *e = volume_extent(real(m, v), n);

            assert_int_equal(e != NULL ? e->id : 0, v->ids[n]);
            if (e == NULL)
                continue;
            extents++;
            idmap_put(&live, e->id, 1);
            if (idmap_get(&m->origins, e->id) != 0)
                idmap_put(&live, idmap_get(&m->origins, e->id), 1);
        }
        if (v->id == 0)
            continue;
        assert_int_equal(real(m, v)->extents, extents);
        if (!v->snapshot)
            check_promises(m, v);
    }
    assert_int_equal(live.count, m->st.extents.count);
    for (uint64_t i = 0; i < m->seen.cap; i++) {
        if (m->seen.entries[i].id != 0)
            check_extent(m, m->seen.entries[i].id, &live);
    }
    idmap_fini(&live);
    check_reload(m);
}

static void (*const actions[])(struct model *) = {
    random_acquire,  random_acquire, random_acquire, random_acquire,  random_acquire,
    random_created,  random_created, random_release, random_snapshot, random_clone,
    random_rollback, random_delete,  random_resize,  random_rename,   random_recovery,
    random_recovery, random_policy,  end_session,    make_volume,     random_release,
    random_thick,    random_thick,
};

static int model_main(void *arg)
{
    struct model *m = arg;

    assert_int_equal(kv_open("/kv", &m->kv), 0);
    set_up(m);
    for (uint32_t i = 0; i < 3000; i++) {
        actions[below(m, ARRAY_SIZE(actions))](m);
        pad_fini(&m->pad);
        if (i % 100 == 99)
            check_all(m);
    }
    /* Everything goes, in any order. */
    for (uint32_t i = 0; i < 100; i++) {
        random_delete(m);
        pad_fini(&m->pad);
    }
    assert_int_equal(m->st.extents.count, 0);
    assert_int_equal(m->st.pages.count, 0);
    assert_int_equal(m->st.passes.count, 0);
    check_all(m);
    kv_close(m->kv);
    tear_down(m);
    return 0;
}

static void tables_are_like_plain_arrays(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        struct sim_conf conf = {.seed = seed};
        struct sim *s = sim_new(&conf);
        struct model *m = calloc(1, sizeof(*m));

        prng_init(&m->prng, seed);
        sim_control(s, "127.1.0.9", "model", model_main, m);
        while (sim_control_running(s) > 0)
            assert_true(sim_step(s));
        sim_free(s);
        free(m);
    }
    assert_true(reached.children > 500 && reached.thawed > 50);
    assert_true(reached.thick > 50 && reached.thin > 50);
    assert_true(reached.snapshots > 50 && reached.clones > 50 && reached.rollbacks > 50);
}

/* ---- the store's format ---- */

static int format_main(void *arg)
{
    Zbs__Metalog__KvHeader h = ZBS__METALOG__KV_HEADER__INIT;
    struct kv_batch *batch = kv_batch_new();
    uint8_t bytes[64];
    struct state st;
    uint64_t applied;
    struct kv *kv;

    (void)arg;
    h.format = 1;
    h.next_mutation = 7;
    assert_int_equal(kv_open("/kv", &kv), 0);
    kv_batch_put(batch, "h", 1, bytes, zbs__metalog__kv_header__pack(&h, bytes));
    assert_int_equal(kv_write(kv, batch, false), 0);
    kv_batch_free(batch);
    state_init(&st);
    assert_int_equal(codec_load(kv, &st, &applied), ERR_FORMAT);
    assert_non_null(strstr(err_text(ERR_FORMAT), "format 1"));
    state_fini(&st);
    kv_close(kv);
    return 0;
}

static void store_of_another_format_is_refused(void **state)
{
    struct sim_conf conf = {.seed = 1};
    struct sim *s = sim_new(&conf);

    (void)state;
    sim_control(s, "127.1.0.9", "format", format_main, NULL);
    while (sim_control_running(s) > 0)
        assert_true(sim_step(s));
    sim_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_are_like_plain_arrays),
        cmocka_unit_test(store_of_another_format_is_refused),
    };

    return cmocka_run_group_tests_name("snapshot", tests, NULL, NULL);
}
