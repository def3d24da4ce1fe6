/* SPDX-License-Identifier: Apache-2.0
 *
 * A directory with 100,000 files, with a real store: made, found, listed, loaded again and removed,
 * from its first entry on as `rm -r` does. Prints what each costs. */
#include "tests/unit/meta/tree_rig.h"

#include <ftw.h>
#include <malloc.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include "common/base/log.h"
#include "common/env/env_real.h"

#define FILES 100000u
#define BATCH 64u /* records in one entry of the log, and so in one batch of the store */

struct large {
    struct rig r; /* first */
    char dir[64];
    struct kv *kv;
    uint32_t records;
    nsec_t begin;
};

static nsec_t now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * NSEC_PER_SEC + t.tv_nsec;
}

static void start(struct large *l)
{
    l->begin = now();
}

static double us_each(const struct large *l)
{
    return (double)(now() - l->begin) / 1000 / FILES;
}

static void flush(struct large *l)
{
    struct codec_sink to = {.batch = l->r.batch};
    struct codec_header h = {.applied = 1};

    codec_header_take(&h, &l->r.st);
    codec_put_header(&to, &h);
    assert_int_equal(kv_write(l->kv, l->r.batch, false), 0);
    kv_batch_free(l->r.batch);
    l->r.batch = kv_batch_new();
}

static void applied(struct rig *r, const Zbs__Metalog__Record *record)
{
    struct large *l = (struct large *)r;

    (void)record;
    if (++l->records % BATCH == 0)
        flush(l);
}

static void name_of(char dst[32], uint32_t n)
{
    snprintf(dst, 32, "file-number-%u", n);
}

static void make(struct large *l)
{
    char name[32];

    for (uint32_t i = 0; i < FILES; i++) {
        name_of(name, i);
        assert_true(create(&l->r, l->r.root, name, REG) > 0);
        pad_fini(&l->r.pad);
    }
    flush(l);
}

static void find(struct large *l)
{
    char name[32];

    for (uint32_t i = 0; i < FILES; i++) {
        name_of(name, i);
        assert_true(lookup(&l->r, l->r.root, name) > 0);
        pad_fini(&l->r.pad);
    }
}

static void list(struct large *l)
{
    Zbs__Meta__DirListRequest rq = ZBS__META__DIR_LIST_REQUEST__INIT;
    struct decide d = {.st = &l->r.st, .rq = &rq.base, .pad = &l->r.pad};
    uint32_t n = 0;
    bool end = false;

    rq.dir_id = l->r.root;
    rq.max_entries = DIR_LIST_MAX;
    rq.with_inodes = true;
    while (!end) {
        Zbs__Meta__DirListReply m = ZBS__META__DIR_LIST_REPLY__INIT;

        assert_int_equal(answer_dir_list(&d, &m.base), 0);
        (void)view_pack(&m.base, &l->r.pad);
        n += (uint32_t)m.n_entries;
        rq.after = m.entries[m.n_entries - 1]->cookie;
        end = m.end;
        pad_fini(&l->r.pad);
    }
    assert_int_equal(n, FILES);
}

static void load(struct large *l)
{
    struct state loaded;
    uint64_t index;

    state_init(&loaded);
    assert_int_equal(codec_load(l->kv, &loaded, &index), 0);
    assert_int_equal(loaded.tree.inodes.count, FILES + 1);
    state_fini(&loaded);
}

static void remove_all(struct large *l)
{
    char name[32];

    for (uint32_t i = 0; i < FILES; i++) {
        name_of(name, i);
        assert_int_equal(removes(&l->r, l->r.root, name, false), 0);
        pad_fini(&l->r.pad);
    }
    flush(l);
    assert_int_equal(l->r.st.tree.inodes.count, 1);
}

static int large_main(void *arg)
{
    struct large *l = arg;
    size_t before;

    assert_int_equal(kv_open(l->dir, &l->kv), 0);
    rig_init(&l->r);
    l->r.batch = kv_batch_new();
    l->r.applied = applied;
    before = mallinfo2().uordblks;
    start(l);
    make(l);
    printf("%u files in one directory, each: create %.1f us", FILES, us_each(l));
    printf(", %zu bytes", (mallinfo2().uordblks - before) / FILES);
    start(l);
    find(l);
    printf(", lookup %.1f us", us_each(l));
    start(l);
    list(l);
    printf(", list %.1f us", us_each(l));
    /* what the rig's share and pool left out of the store is not needed for this */
    codec_put_pool(&(struct codec_sink){.batch = l->r.batch}, state_pool(&l->r.st, "p"));
    codec_put_tree(&(struct codec_sink){.batch = l->r.batch}, &l->r.st.tree);
    flush(l);
    start(l);
    load(l);
    printf(", load %.1f us", us_each(l));
    start(l);
    remove_all(l);
    printf(", remove %.1f us\n", us_each(l));
    kv_batch_free(l->r.batch);
    kv_close(l->kv);
    rig_fini(&l->r);
    return 0;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static void a_large_directory_is_cheap(void **state)
{
    static struct large l = {.dir = "/tmp/zbs-tree-XXXXXX"};
    const struct env_real_conf conf = {.name = "test"};

    (void)state;
    log_threshold = LOG_LV_ERROR; /* it holds the loop for long */
    assert_non_null(mkdtemp(l.dir));
    assert_int_equal(env_real_run(&conf, large_main, &l), 0);
    assert_int_equal(nftw(l.dir, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_large_directory_is_cheap),
    };

    return cmocka_run_group_tests_name("large tree", tests, NULL, NULL);
}
