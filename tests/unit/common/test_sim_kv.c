/* SPDX-License-Identifier: Apache-2.0
 *
 * The twin of the key-value store: order, batches, snapshots, and what crashes leave. */
#include "tests/unit/common/sim_fixture.h"

#define KEYS 500

struct rig {
    struct sim *s;
    struct sim_proc *p;
    int (*body)(struct kv *kv, struct rig *r);
    uint32_t acked, synced; /* numbers of batches */
    bool ready;
    int seen;
};

static int rig_main(void *arg)
{
    struct rig *r = arg;
    struct kv *kv;
    int rc;

    CHECK(kv_open("/var/kv", &kv) == 0);
    rc = r->body(kv, r);
    kv_close(kv);
    return rc;
}

static struct rig rig_new(uint64_t seed, int (*body)(struct kv *kv, struct rig *r))
{
    struct rig r = {.s = world_new(seed), .body = body};

    r.p = sim_proc_new(r.s, HOST_A, "p");
    return r;
}

static int put(struct kv *kv, const char *key, const char *val, bool sync)
{
    struct kv_batch *b = kv_batch_new();
    int rc;

    if (val)
        kv_batch_put(b, key, strlen(key), val, strlen(val));
    else
        kv_batch_delete(b, key, strlen(key));
    CHECK(kv_batch_bytes(b) > strlen(key));
    rc = kv_write(kv, b, sync);
    kv_batch_free(b);
    return rc;
}

static bool has(struct kv *kv, const char *key, const char *want)
{
    void *val;
    size_t len;
    int rc = kv_get(kv, key, strlen(key), &val, &len);
    bool same;

    if (rc == ERR_NOTFOUND)
        return want == NULL;
    CHECK(rc == 0);
    same = want && len == strlen(want) && memcmp(val, want, len) == 0;
    mem_free(val);
    return same;
}

/* ---- contents ---- */

static int body_basics(struct kv *kv, struct rig *r)
{
    struct kv_batch *b = kv_batch_new();
    struct kv *second;

    (void)r;
    CHECK(kv_open("/var/kv", &second) == ERR_BUSY);
    CHECK(kv_write(kv, b, true) == 0); /* empty */
    CHECK(has(kv, "a", NULL));
    CHECK(put(kv, "a", "1", false) == 0 && has(kv, "a", "1"));
    CHECK(put(kv, "a", "", false) == 0 && has(kv, "a", ""));
    kv_batch_put(b, "a", 1, "2", 1);
    kv_batch_put(b, "b", 1, "3", 1);
    kv_batch_delete(b, "a", 1);
    kv_batch_delete(b, "zz", 2);
    CHECK(kv_write(kv, b, true) == 0);
    CHECK(has(kv, "a", NULL) && has(kv, "b", "3"));
    CHECK(put(kv, "b", NULL, false) == 0 && has(kv, "b", NULL));
    kv_batch_free(b);
    CHECK(put(kv, "c", "1", false) == 0);
    CHECK(kv_clear(kv) == 0 && has(kv, "c", NULL));
    return 0;
}

static void batches_change_keys(void **state)
{
    struct rig r = rig_new(1, body_basics);

    (void)state;
    assert_int_equal(proc_run(r.s, r.p, rig_main, &r), 0);
    sim_free(r.s);
}

struct scan {
    struct kv *kv;
    const bool *model;
    int next, count, stop_after;
};

static void key_of(int i, char *key)
{
    snprintf(key, 16, "k%05d", i);
}

static int scan_step(void *arg, const void *key, size_t key_len, const void *val, size_t val_len)
{
    struct scan *sc = arg;
    char want[16];

    while (sc->next < KEYS && !sc->model[sc->next])
        sc->next++;
    CHECK(sc->next < KEYS);
    key_of(sc->next++, want);
    CHECK(key_len == strlen(want) && memcmp(key, want, key_len) == 0);
    CHECK(val_len == key_len && memcmp(val, want, val_len) == 0);
    if (++sc->count == sc->stop_after)
        return ERR_CANCELED;
    if (sc->count % 50 == 0) /* changes do not reach the snapshot */
        CHECK(put(sc->kv, "k00000x", "new", false) == 0);
    return 0;
}

static int body_scan(struct kv *kv, struct rig *r)
{
    bool model[KEYS] = {false};
    struct scan sc;
    char key[16], first[16], last[16];
    int want = 0;

    (void)r;
    for (int i = 0; i < 3000; i++) {
        int n = (int)(env_random() % KEYS);

        key_of(n, key);
        model[n] = env_random() % 3 > 0;
        CHECK(put(kv, key, model[n] ? key : NULL, i % 7 == 0) == 0);
    }
    sc = (struct scan){.kv = kv, .model = model};
    CHECK(kv_scan(kv, "k", 1, NULL, 0, scan_step, &sc) == 0);
    for (int i = 0; i < KEYS; i++)
        want += model[i];
    CHECK(sc.count == want && want > 200);
    CHECK(put(kv, "k00000x", NULL, false) == 0);
    key_of(100, first);
    key_of(200, last);
    sc = (struct scan){.kv = kv, .model = model, .next = 100};
    CHECK(kv_scan(kv, first, strlen(first), last, strlen(last), scan_step, &sc) == 0);
    CHECK(sc.next <= 200 && sc.count > 30);
    sc = (struct scan){.kv = kv, .model = model, .next = 100, .stop_after = 3};
    CHECK(kv_scan(kv, first, strlen(first), last, strlen(last), scan_step, &sc) == ERR_CANCELED);
    CHECK(sc.count == 3);
    return 0;
}

static void scans_are_ordered_snapshots(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed < 4; seed++) {
        struct rig r = rig_new(seed, body_scan);

        assert_int_equal(proc_run(r.s, r.p, rig_main, &r), 0);
        sim_free(r.s);
    }
}

/* ---- crashes ---- */

/* Batch n writes n to the key "n" and to key "last". */
static int body_stream(struct kv *kv, struct rig *r)
{
    for (uint32_t n = 1; n < 2000; n++) {
        struct kv_batch *b = kv_batch_new();
        bool sync = n % 16 == 0;
        char key[16];

        snprintf(key, sizeof(key), "%u", n);
        kv_batch_put(b, key, strlen(key), &n, sizeof(n));
        kv_batch_put(b, "last", 4, &n, sizeof(n));
        CHECK(kv_write(kv, b, sync) == 0);
        kv_batch_free(b);
        r->acked = n;
        if (sync)
            r->synced = n;
    }
    return 0;
}

/* The store holds exactly the batches 1..last. */
static int body_verify(struct kv *kv, struct rig *r)
{
    uint32_t *last, *val;

    CHECK(kv_get(kv, "last", 4, (void **)&last, NULL) == 0);
    for (uint32_t n = 1; n <= *last + 20; n++) {
        char key[16];
        int rc;

        snprintf(key, sizeof(key), "%u", n);
        rc = kv_get(kv, key, strlen(key), (void **)&val, NULL);
        CHECK(n <= *last ? rc == 0 && *val == n : rc == ERR_NOTFOUND);
        if (rc == 0)
            mem_free(val);
    }
    r->seen = (int)*last;
    mem_free(last);
    return 0;
}

static void crashes_lose_a_suffix(void **state)
{
    int lost = 0, bonus = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct rig r = rig_new(seed, body_stream);
        bool power = seed % 2;

        sim_proc_start(r.p, rig_main, &r);
        sim_run_for(r.s, MSEC(5) + (nsec_t)seed * 10000);
        assert_true(r.synced > 0 && sim_proc_running(r.p));
        if (power)
            sim_proc_power_loss(r.p);
        else
            sim_proc_crash(r.p);
        r.body = body_verify;
        assert_int_equal(proc_run(r.s, r.p, rig_main, &r), 0);
        assert_true((uint32_t)r.seen >= (power ? r.synced : r.acked));
        assert_true((uint32_t)r.seen <= r.acked + 1);
        lost += (uint32_t)r.seen < r.acked;
        bonus += (uint32_t)r.seen > r.acked; /* in flight */
        sim_free(r.s);
    }
    assert_true(lost > 5 && bonus > 2);
}

static int wait_in_scan(void *arg, const void *key, size_t key_len, const void *val, size_t val_len)
{
    (void)key, (void)key_len, (void)val, (void)val_len;
    ((struct rig *)arg)->ready = true;
    return co_sleep(SEC(100));
}

static int body_crash_in_scan(struct kv *kv, struct rig *r)
{
    CHECK(put(kv, "a", "1", true) == 0);
    return kv_scan(kv, "a", 1, NULL, 0, wait_in_scan, r);
}

static bool is_ready(void *arg)
{
    return ((struct rig *)arg)->ready;
}

static void crash_in_a_scan_leaks_nothing(void **state)
{
    struct rig r = rig_new(5, body_crash_in_scan);

    (void)state;
    sim_proc_start(r.p, rig_main, &r);
    assert_true(sim_run_until(r.s, is_ready, &r, SEC(1)));
    sim_proc_crash(r.p);
    sim_free(r.s);
}

static int body_large(struct kv *kv, struct rig *r)
{
    struct kv_batch *b;

    (void)r;
    for (int round = 0; round < 100; round++) {
        b = kv_batch_new();
        for (int i = 0; i < 1000; i++) {
            uint64_t key = (uint64_t)i * 100 + (uint64_t)round;

            kv_batch_put(b, &key, sizeof(key), &key, sizeof(key));
        }
        CHECK(kv_write(kv, b, round % 4 == 3) == 0);
        kv_batch_free(b);
    }
    return 0;
}

static void hundred_thousand_keys(void **state)
{
    struct rig r = rig_new(6, body_large);

    (void)state;
    assert_int_equal(proc_run(r.s, r.p, rig_main, &r), 0);
    sim_free(r.s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batches_change_keys),   cmocka_unit_test(scans_are_ordered_snapshots),
        cmocka_unit_test(crashes_lose_a_suffix), cmocka_unit_test(crash_in_a_scan_leaks_nothing),
        cmocka_unit_test(hundred_thousand_keys),
    };

    return cmocka_run_group_tests_name("sim_kv", tests, NULL, NULL);
}
