/* SPDX-License-Identifier: Apache-2.0
 *
 * The key-value store on LevelDB, in a temporary folder. Bodies run as coroutines, where cmocka's
 * jumps must not go, so they ASSERT. */
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/env/env_real.h"
#include "common/kv/kv.h"

static char dir[64], store[80];

static int group_setup(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/zbs-kv-XXXXXX");
    if (mkdtemp(dir) == NULL)
        return -1;
    snprintf(store, sizeof(store), "%s/db", dir);
    return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static int group_teardown(void **state)
{
    (void)state;
    return nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static int run(int (*fn)(void *arg))
{
    struct env_real_conf conf = {.name = "test"};

    return env_real_run(&conf, fn, NULL);
}

static void put(struct kv *kv, const char *key, const char *val, bool sync)
{
    struct kv_batch *b = kv_batch_new();

    kv_batch_put(b, key, strlen(key), val, strlen(val));
    ASSERT(kv_write(kv, b, sync) == 0);
    kv_batch_free(b);
}

static void expect(struct kv *kv, const char *key, const char *want)
{
    void *val = NULL;
    size_t len = 0;
    int rc = kv_get(kv, key, strlen(key), &val, &len);

    if (want == NULL) {
        ASSERT(rc == ERR_NOTFOUND);
        return;
    }
    ASSERTF(rc == 0, "%s", err_text(rc));
    ASSERT(len == strlen(want) && memcmp(val, want, len) == 0);
    mem_free(val);
}

/* ---- basics ---- */

static int body_basics(void *arg)
{
    struct kv_batch *b;
    struct kv *kv, *second;

    (void)arg;
    ASSERT(kv_open(store, &kv) == 0);
    ASSERT(kv_open(store, &second) == ERR_BUSY);
    put(kv, "a", "1", true);
    put(kv, "empty", "", false);
    b = kv_batch_new();
    kv_batch_put(b, "b", 1, "2", 1);
    kv_batch_delete(b, "a", 1);
    kv_batch_put(b, "c\0d", 3, "3", 1);
    ASSERT(kv_write(kv, b, false) == 0);
    kv_batch_free(b);
    expect(kv, "a", NULL);
    expect(kv, "b", "2");
    expect(kv, "c", NULL);
    expect(kv, "empty", "");
    kv_close(kv);
    ASSERT(kv_open(store, &kv) == 0);
    expect(kv, "b", "2");
    kv_close(kv);
    return 0;
}

static void batches_apply_and_survive_reopening(void **state)
{
    (void)state;
    assert_int_equal(run(body_basics), 0);
}

/* ---- scans ---- */

struct scan_check {
    struct kv *kv;
    uint32_t next, seen, stop_at;
};

static int scan_fn(void *arg, const void *key, size_t key_len, const void *val, size_t val_len)
{
    struct scan_check *c = arg;
    char want[16];

    snprintf(want, sizeof(want), "k%06u", c->next++);
    ASSERT(key_len == 7 && memcmp(key, want, 7) == 0);
    ASSERT(val_len == 4);
    ASSERT(memcmp(val, "old!", 4) == 0); /* as of the scan's start */
    if (c->seen == 100)
        put(c->kv, "k000900", "new!", false);
    return ++c->seen == c->stop_at ? 42 : 0;
}

static int body_scan(void *arg)
{
    struct scan_check c = {0};
    struct kv_batch *b = kv_batch_new();
    char key[16];

    (void)arg;
    ASSERT(kv_open(store, &c.kv) == 0);
    ASSERT(kv_clear(c.kv) == 0);
    for (uint32_t i = 0; i < 1000; i++) {
        snprintf(key, sizeof(key), "k%06u", i);
        kv_batch_put(b, key, 7, "old!", 4);
    }
    ASSERT(kv_write(c.kv, b, true) == 0);
    kv_batch_free(b);
    ASSERT(kv_scan(c.kv, NULL, 0, NULL, 0, scan_fn, &c) == 0);
    ASSERT(c.seen == 1000);
    expect(c.kv, "k000900", "new!");
    c = (struct scan_check){.kv = c.kv, .next = 10, .seen = 200};
    ASSERT(kv_scan(c.kv, "k000010", 7, "k000700", 7, scan_fn, &c) == 0);
    ASSERT(c.seen == 200 + 690);
    c = (struct scan_check){.kv = c.kv, .stop_at = 5};
    ASSERT(kv_scan(c.kv, "k", 1, "l", 1, scan_fn, &c) == 42);
    ASSERT(c.seen == 5);
    c = (struct scan_check){.kv = c.kv};
    ASSERT(kv_scan(c.kv, "x", 1, NULL, 0, scan_fn, &c) == 0 && c.seen == 0);
    ASSERT(kv_clear(c.kv) == 0);
    ASSERT(kv_scan(c.kv, NULL, 0, NULL, 0, scan_fn, &c) == 0 && c.seen == 0);
    kv_close(c.kv);
    return 0;
}

static void scans_see_a_snapshot_in_order(void **state)
{
    (void)state;
    assert_int_equal(run(body_scan), 0);
}

/* ---- order of concurrent writes, and more than a table in memory holds ---- */

#define WRITERS 20

struct writer {
    struct kv *kv;
    char value[16];
};

static int writer(void *arg)
{
    struct writer *w = arg;

    put(w->kv, "same", w->value, false);
    return 0;
}

static int body_order(void *arg)
{
    struct writer w[WRITERS];
    struct co_group g;
    struct kv *kv;

    (void)arg;
    ASSERT(kv_open(store, &kv) == 0);
    co_group_init(&g);
    for (int i = 0; i < WRITERS; i++) {
        w[i].kv = kv;
        snprintf(w[i].value, sizeof(w[i].value), "%d", i);
        (void)co_spawn(&g, "writer", writer, &w[i]);
    }
    ASSERT(co_group_join(&g) == 0);
    expect(kv, "same", "19");
    kv_close(kv);
    return 0;
}

static void writes_keep_their_order(void **state)
{
    (void)state;
    assert_int_equal(run(body_order), 0);
}

static int body_volume(void *arg)
{
    enum { ROUNDS = 40, KEYS = 16, BYTES = 100 * 1024 };
    char *val = mem_alloc(BYTES), key[16];
    struct kv *kv;

    (void)arg;
    memset(val, 'v', BYTES);
    ASSERT(kv_open(store, &kv) == 0);
    for (int i = 0; i < ROUNDS; i++) {
        struct kv_batch *b = kv_batch_new();

        for (int k = 0; k < KEYS; k++) {
            snprintf(key, sizeof(key), "v%04d", i * KEYS + k);
            kv_batch_put(b, key, 5, val, BYTES);
        }
        ASSERT(kv_write(kv, b, i % 7 == 6) == 0);
        kv_batch_free(b);
    }
    kv_close(kv);
    ASSERT(kv_open(store, &kv) == 0);
    for (int i = 0; i < ROUNDS * KEYS; i++) {
        void *got;
        size_t len;

        snprintf(key, sizeof(key), "v%04d", i);
        ASSERT(kv_get(kv, key, 5, &got, &len) == 0 && len == BYTES);
        mem_free(got);
    }
    ASSERT(kv_clear(kv) == 0);
    expect(kv, "v0000", NULL);
    kv_close(kv);
    mem_free(val);
    return 0;
}

static void more_than_the_table_in_memory(void **state)
{
    (void)state;
    assert_int_equal(run(body_volume), 0);
}

/* ---- errors ---- */

static int body_errors(void *arg)
{
    char path[100];
    struct kv *kv;
    FILE *f;

    (void)arg;
    ASSERT(kv_open("/proc/nothing/here", &kv) == ERR_IO);
    snprintf(path, sizeof(path), "%s/CURRENT", store);
    f = fopen(path, "w");
    ASSERT(f != NULL);
    (void)fputs("garbage", f);
    (void)fclose(f);
    ASSERT(kv_open(store, &kv) == ERR_CORRUPT);
    return 0;
}

static void damage_is_reported(void **state)
{
    (void)state;
    assert_int_equal(run(body_errors), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batches_apply_and_survive_reopening),
        cmocka_unit_test(scans_see_a_snapshot_in_order),
        cmocka_unit_test(writes_keep_their_order),
        cmocka_unit_test(more_than_the_table_in_memory),
        cmocka_unit_test(damage_is_reported),
    };

    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
