/* SPDX-License-Identifier: Apache-2.0
 *
 * A pool with 100,000 volumes, each a file's: made, found by name, listed, and removed with their
 * files, the first one first as `rm -r` does, and in any order. Prints what each costs. */
#include "tests/unit/meta/tree_rig.h"

#include <inttypes.h>
#include <stdlib.h>
#include <time.h>
#include "common/base/log.h"

#define FILES 100000u

static nsec_t now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * NSEC_PER_SEC + t.tv_nsec;
}

static double us_each(nsec_t begin, uint32_t n)
{
    return (double)(now() - begin) / 1000 / n;
}

static void name_of(char dst[32], uint32_t n)
{
    snprintf(dst, 32, "f%u", n);
}

static void make(struct rig *r, uint64_t *inodes)
{
    char name[32];

    for (uint32_t i = 0; i < FILES; i++) {
        int64_t f;

        name_of(name, i);
        f = create(r, r->root, name, REG);
        assert_true(f > 0 && volume_for(r, (uint64_t)f, 1) > 0);
        inodes[i] = (uint64_t)f;
        pad_fini(&r->pad);
    }
}

static void find(struct rig *r, const uint64_t *inodes)
{
    Zbs__Meta__VolumeGetRequest rq = ZBS__META__VOLUME_GET_REQUEST__INIT;
    struct decide d = {.st = &r->st, .rq = &rq.base, .pad = &r->pad};
    char name[64];

    rq.pool = (char *)"p";
    rq.name = name;
    for (uint32_t i = 0; i < FILES; i++) {
        Zbs__Meta__Volume m = ZBS__META__VOLUME__INIT;

        snprintf(name, sizeof(name), FILE_VOLUME_NAME, inodes[i]);
        assert_int_equal(answer_volume_get(&d, &m.base), 0);
        assert_int_equal(m.inode_id, inodes[i]);
    }
}

/* Page by page, as zbs-cli does. */
static void list(struct rig *r)
{
    Zbs__Meta__VolumeListRequest rq = ZBS__META__VOLUME_LIST_REQUEST__INIT;
    struct decide d = {.st = &r->st, .rq = &rq.base, .pad = &r->pad};
    uint32_t n = 0, pages = 0;
    bool more = true;

    while (more) {
        Zbs__Meta__VolumeListReply m = ZBS__META__VOLUME_LIST_REPLY__INIT;
        char after[64];

        assert_int_equal(answer_volume_list(&d, &m.base), 0);
        assert_true(n == 0 || strcmp(m.volumes[0]->name, rq.after_name) > 0);
        n += (uint32_t)m.n_volumes;
        pages++;
        more = m.more;
        snprintf(after, sizeof(after), "%s", m.volumes[m.n_volumes - 1]->name);
        pad_fini(&r->pad);
        rq.after_pool = (char *)"p";
        rq.after_name = pad_strdup(&r->pad, after);
    }
    pad_fini(&r->pad);
    assert_int_equal(n, FILES);
    assert_int_equal(pages, DIV_UP(FILES, VOLUME_LIST_MAX));
}

/* Every second one, from the first on or as the numbers fall. */
static void remove_half(struct rig *r, bool in_order)
{
    char name[32];

    for (uint32_t i = 0; i < FILES / 2; i++) {
        name_of(name, in_order ? 2 * i : (uint32_t)((2 * i * 7919ull + 1) % FILES));
        assert_int_equal(removes(r, r->root, name, false), 0);
        pad_fini(&r->pad);
    }
}

static void sweep(struct rig *r)
{
    Zbs__Metalog__Record *record;
    struct packed reply;

    while ((record = decide_sweep(&r->st, &r->pad)) != NULL) {
        assert_int_equal(apply_record(&r->st, record, NULL, &r->pad, &reply), 0);
        pad_fini(&r->pad);
    }
}

static void a_volume_for_each_file_is_cheap(void **state)
{
    uint64_t *inodes = calloc(FILES, sizeof(*inodes));
    struct pool *pool;
    struct rig r;
    nsec_t begin;

    (void)state;
    log_threshold = LOG_LV_ERROR;
    rig_init(&r);
    pool = state_pool(&r.st, "p");
    begin = now();
    make(&r, inodes);
    printf("%u files with volumes, each: create %.1f us", FILES, us_each(begin, FILES));
    assert_int_equal(pool->volumes.count, FILES);
    assert_int_equal(pool->bytes, FILES * VOLUME_BYTES_MIN);
    begin = now();
    find(&r, inodes);
    printf(", find %.1f us", us_each(begin, FILES));
    begin = now();
    list(&r);
    printf(", list %.1f us", us_each(begin, FILES));
    begin = now();
    remove_half(&r, true);
    printf(", remove in order %.1f us", us_each(begin, FILES / 2));
    begin = now();
    remove_half(&r, false);
    printf(", in any order %.1f us", us_each(begin, FILES / 2));
    assert_int_equal(pool->volumes.count, 0);
    assert_int_equal(pool->bytes, 0);
    begin = now();
    sweep(&r);
    printf(", sweep %.1f us\n", us_each(begin, FILES));
    assert_int_equal(r.st.n_file_volumes, 0);
    rig_fini(&r);
    free(inodes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_volume_for_each_file_is_cheap),
    };

    return cmocka_run_group_tests_name("large pool", tests, NULL, NULL);
}
