/* SPDX-License-Identifier: Apache-2.0
 *
 * What files contain (access/nfs/file.h), over a meta server and volumes in memory: where bytes go,
 * what is asked of meta, what two access servers see of each other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "common/base/assert.h"
#include "common/base/limits.h"
#include "common/base/mem.h"
#include "common/env/env.h"
#include "tests/lib/filesworld.h"

#define CHECK(x) ASSERTF(x, "seen here")

static void run(int (*body)(void *w))
{
    struct filesworld w = {.latency = 50 * NSEC_PER_USEC};

    filesworld_run(&w, 1, body);
}

/* The bytes at off are these, and the file ends behind them or doesn't. */
static co_fn void expect(struct fw_server *s, uint64_t inode, uint64_t off, const void *data,
                         uint32_t len, bool eof)
{
    uint8_t *have = mem_alloc(len + 1);
    uint32_t n;
    bool end;

    CHECK(fw_read(s, inode, off, have, len, &n, &end) == 0);
    CHECK(n == len && end == eof && memcmp(have, data, len) == 0);
    mem_free(have);
}

static co_fn void expect_zeroes(struct fw_server *s, uint64_t inode, uint64_t off, uint32_t len,
                                bool eof)
{
    uint8_t *zeroes = mem_alloc(len);

    expect(s, inode, off, zeroes, len, eof);
    mem_free(zeroes);
}

/* ---- where bytes go ---- */

static co_fn int body_small(void *arg)
{
    struct filesworld *w = arg;
    struct fw_server *s = &w->servers[0];
    uint8_t byte;
    uint32_t n;
    bool eof;

    CHECK(fw_read(s, 1, 0, &byte, 1, &n, &eof) == 0 && n == 0 && eof);
    CHECK(fw_write(s, 1, 0, "hello", 5) == 0);
    CHECK(fw_write(s, 1, 3, "p", 1) == 0);
    expect(s, 1, 0, "helpo", 5, true);
    expect(s, 1, 1, "el", 2, false);
    CHECK(fw_write(s, 1, FILE_INLINE_BYTES - 2, "xy", 2) == 0);
    expect_zeroes(s, 1, 5, FILE_INLINE_BYTES - 7, false);
    CHECK(fw_inode(w, 1)->volume_id == 0 && w->calls[META_FILE_VOLUME] == 0);
    CHECK(fw_inode(w, 1)->size == FILE_INLINE_BYTES);
    return 0;
}

static void small_files_need_no_volume(void **state)
{
    (void)state;
    run(body_small);
}

static co_fn int body_sparse(void *arg)
{
    struct filesworld *w = arg;
    struct fw_server *s = &w->servers[0];
    uint64_t size = (uint64_t)3 << 30;

    CHECK(fw_resize(s, 1, size) == 0);
    CHECK(fw_write(s, 1, 7, "few", 3) == 0); /* still in the inode */
    CHECK(fw_inode(w, 1)->volume_id == 0 && fw_inode(w, 1)->size == size);
    expect_zeroes(s, 1, size - 1000, 1000, true);
    CHECK(fw_write(s, 1, size / 2 + 1, "middle", 6) == 0);
    CHECK(fw_inode(w, 1)->volume_id != 0 && fw_inode(w, 1)->volume_bytes >= size);
    expect(s, 1, 7, "few", 3, false);
    expect(s, 1, size / 2 + 1, "middle", 6, false);
    expect_zeroes(s, 1, size - 4097, 4097, true);
    return 0;
}

static void sizes_cost_nothing(void **state)
{
    (void)state;
    run(body_sparse);
}

static co_fn int body_out(void *arg)
{
    struct filesworld *w = arg;
    struct fw_server *s = &w->servers[0], *other = &w->servers[1];
    uint8_t data[5000];

    CHECK(fw_write(s, 1, 0, "begin", 5) == 0);
    memset(data, 'a', sizeof(data));
    CHECK(fw_write(s, 1, 4000, data, sizeof(data)) == 0);
    CHECK(fw_inode(w, 1)->volume_id != 0 && fw_inode(w, 1)->data.len == 0);
    CHECK(fw_inode(w, 1)->candidate == 0 && fw_inode(w, 1)->size == 9000);
    for (int k = 0; k < 2; k++) {
        expect(&w->servers[k], 1, 0, "begin", 5, false);
        expect(&w->servers[k], 1, 4000, data, sizeof(data), true);
    }
    CHECK(fw_write(other, 1, 4095, "bc", 2) == 0); /* across a page */
    CHECK(fw_write(s, 1, 200000, "end", 3) == 0);  /* the volume grows */
    expect(s, 1, 4095, "bc", 2, false);
    expect_zeroes(other, 1, 9000, 191000, false);
    expect(other, 1, 200000, "end", 3, true);
    return 0;
}

static void a_file_that_grows_gets_a_volume(void **state)
{
    (void)state;
    run(body_out);
}

/* ---- truncation ---- */

static co_fn int body_truncate(void *arg)
{
    struct filesworld *w = arg;
    struct fw_server *s = &w->servers[0], *other = &w->servers[1];
    uint8_t data[10000];

    memset(data, 'a', sizeof(data));
    CHECK(fw_write(s, 1, 0, data, sizeof(data)) == 0);
    expect(other, 1, 0, data, sizeof(data), true);
    CHECK(fw_resize(s, 1, 700) == 0);
    CHECK(fw_inode(w, 1)->dirty_end == 0 && fw_inode(w, 1)->zeroer == 0);
    /* What the other one knows is old: it writes where the file seems to be. */
    CHECK(fw_write(other, 1, 5000, "b", 1) == 0);
    CHECK(fw_inode(w, 1)->size == 5001);
    expect_zeroes(s, 1, 700, 4300, false);
    CHECK(fw_resize(other, 1, 0) == 0);
    CHECK(fw_resize(s, 1, sizeof(data)) == 0);
    expect_zeroes(s, 1, 0, sizeof(data), true);
    return 0;
}

static void what_was_cut_off_does_not_come_back(void **state)
{
    (void)state;
    run(body_truncate);
}

static co_fn int body_zeroer_dies(void *arg)
{
    struct filesworld *w = arg;
    struct fw_server *s = &w->servers[0], *other = &w->servers[1];
    uint8_t data[10000];

    memset(data, 'a', sizeof(data));
    CHECK(fw_write(s, 1, 0, data, sizeof(data)) == 0);
    s->crash_in = 7; /* it has the right to zero */
    CHECK(fw_resize(s, 1, 10) < 0);
    CHECK(fw_inode(w, 1)->size == 10 && fw_inode(w, 1)->zeroer == s->session);
    nsec_t former = co_deadline_push(co_now() + NSEC_PER_SEC);
    CHECK(fw_resize(other, 1, 20) == ERR_TIMEOUT); /* its session lives */
    co_deadline_restore(former);
    fw_restart(s);
    CHECK(fw_resize(other, 1, 20) == 0);
    expect_zeroes(s, 1, 10, 10, true);
    return 0;
}

static void another_zeroes_once_the_session_has_ended(void **state)
{
    (void)state;
    run(body_zeroer_dies);
}

static co_fn int body_background(void *arg)
{
    struct filesworld *w = arg;
    struct fw_server *s = &w->servers[0];
    uint8_t data[10000];

    memset(data, 'a', sizeof(data));
    CHECK(fw_write(s, 1, 0, data, sizeof(data)) == 0);
    s->fail_in = 7;
    CHECK(fw_resize(s, 1, 10) == ERR_TIMEOUT);
    CHECK(fw_inode(w, 1)->zeroer == s->session);
    while (fw_inode(w, 1)->dirty_end != 0) /* nobody asks for it any more */
        CHECK(co_sleep(NSEC_PER_MSEC) == 0);
    return 0;
}

static void zeroing_that_was_begun_is_finished(void **state)
{
    (void)state;
    run(body_background);
}

/* ---- write leases ---- */

#define LEASED 20000u /* bytes of the file */

/* Writes until meta is not asked any more. */
static co_fn void take_lease(struct filesworld *w, struct fw_server *s)
{
    uint64_t calls = 1;

    for (uint32_t k = 0; calls > 0; k++) {
        CHECK(k < 10);
        memset(w->calls, 0, sizeof(w->calls));
        CHECK(fw_write(s, 1, 100, "a", 1) == 0);
        calls = w->calls[META_INODE_GET] + w->calls[META_FILE_LEASE];
    }
}

static co_fn void make_leased(struct filesworld *w)
{
    uint8_t *data = mem_alloc(LEASED);

    memset(data, 'a', LEASED);
    CHECK(fw_write(&w->servers[0], 1, 0, data, LEASED) == 0);
    mem_free(data);
    for (uint32_t k = 0; k < FW_SERVERS; k++)
        take_lease(w, &w->servers[k]);
    CHECK(fw_writers(w, 1) == FW_SERVERS);
}

static co_fn int body_leases(void *arg)
{
    struct filesworld *w = arg;

    make_leased(w);
    for (uint32_t k = 0; k < FW_SERVERS; k++) {
        struct fw_server *next = &w->servers[(k + 1) % FW_SERVERS];

        CHECK(fw_resize(&w->servers[k], 1, 5000) == 0);
        CHECK(fw_writers(w, 1) == 0);
        CHECK(fw_write(next, 1, 10000, "b", 1) == 0); /* it knew a longer file */
        CHECK(fw_inode(w, 1)->size == 10001);
        expect_zeroes(&w->servers[k], 1, 5000, 5000, false);
        CHECK(fw_resize(&w->servers[k], 1, LEASED) == 0);
        CHECK(co_sleep(3 * NSEC_PER_SEC) == 0); /* what was recalled is not taken again at once */
        for (uint32_t n = 0; n < FW_SERVERS; n++)
            take_lease(w, &w->servers[n]);
    }
    CHECK(co_sleep(70 * NSEC_PER_SEC) == 0);
    CHECK(fw_writers(w, 1) == 0); /* given back when it was closed */
    return 0;
}

static void who_writes_often_need_not_ask(void **state)
{
    (void)state;
    run(body_leases);
}

static co_fn int late_write(void *arg)
{
    CHECK(fw_write(arg, 1, 10000, "b", 1) == 0);
    return 0;
}

/* Meta takes the session for ended; the server, which has a lease and knows a longer file, has yet
 * to see that. */
static co_fn int body_stopped(void *arg)
{
    struct filesworld *w = arg;
    struct fw_server *s = &w->servers[0], *other = &w->servers[1];
    struct co_group g;

    make_leased(w);
    fw_suspend(s);
    CHECK(fw_resize(other, 1, 5000) == 0);
    co_group_init(&g);
    co_spawn(&g, "late", late_write, s);
    CHECK(co_sleep(NSEC_PER_SEC / 2) == 0);
    CHECK(fw_inode(w, 1)->size == 5000);
    fw_resume(s);
    (void)co_group_join(&g);
    CHECK(fw_inode(w, 1)->size == 10001);
    expect_zeroes(other, 1, 5000, 5000, false);
    expect(other, 1, 10000, "b", 1, true);
    return 0;
}

static void a_lease_ends_with_its_session(void **state)
{
    (void)state;
    run(body_stopped);
}

static co_fn int write_main(void *arg)
{
    CHECK(fw_write(arg, 1, 100, "a", 1) == 0);
    return 0;
}

/* A lease is recalled before the answer that brings it arrives. */
static co_fn int body_overtaken(void *arg)
{
    struct filesworld *w = arg;
    struct fw_server *s = &w->servers[0];
    struct co_group g;

    make_leased(w);
    for (nsec_t delay = 0; delay < 200 * NSEC_PER_USEC; delay += NSEC_PER_USEC) {
        fw_restart(s);
        CHECK(fw_resize(s, 1, LEASED) == 0);
        CHECK(co_sleep(3 * NSEC_PER_SEC) == 0);
        take_lease(w, &w->servers[2]);
        for (uint32_t k = 0; k < 3; k++) /* the next one asks for it */
            CHECK(fw_write(s, 1, 100, "a", 1) == 0);
        co_group_init(&g);
        co_spawn(&g, "write", write_main, s);
        CHECK(co_sleep(delay) == 0);
        CHECK(fw_resize(&w->servers[1], 1, 5000) == 0);
        (void)co_group_join(&g);
        CHECK(fw_write(s, 1, 10000, "b", 1) == 0);
        CHECK(fw_inode(w, 1)->size == 10001);
    }
    return 0;
}

static void what_was_recalled_is_not_used(void **state)
{
    (void)state;
    run(body_overtaken);
}

static co_fn int body_holder_stops(void *arg)
{
    struct filesworld *w = arg;
    nsec_t former;

    make_leased(w);
    w->servers[0].crashed = true; /* and meta does not know yet */
    former = co_deadline_push(co_now() + NSEC_PER_SEC);
    CHECK(fw_resize(&w->servers[1], 1, 5000) == ERR_TIMEOUT);
    co_deadline_restore(former);
    CHECK(fw_inode(w, 1)->size == LEASED);
    fw_restart(&w->servers[0]);
    CHECK(fw_resize(&w->servers[1], 1, 5000) == 0);
    return 0;
}

static void a_truncation_waits_for_a_session_that_holds_a_lease(void **state)
{
    (void)state;
    run(body_holder_stops);
}

/* ---- several at once ---- */

struct writer {
    struct fw_server *s;
    uint64_t inode, off;
    uint32_t step, count;
    uint8_t byte;
};

/* Every step-th byte. */
static co_fn int writer_main(void *arg)
{
    struct writer *wr = arg;

    for (uint32_t k = 0; k < wr->count; k++)
        CHECK(fw_write(wr->s, wr->inode, wr->off + (uint64_t)k * wr->step, &wr->byte, 1) == 0);
    return 0;
}

static co_fn int body_neighbours(void *arg)
{
    struct filesworld *w = arg;
    struct co_group g;
    struct writer wr[FW_SERVERS];
    uint8_t want[FW_SERVERS * 300];

    CHECK(fw_write(&w->servers[0], 1, 8000, "far", 3) == 0);
    co_group_init(&g);
    for (uint32_t k = 0; k < FW_SERVERS; k++) {
        wr[k] = (struct writer){&w->servers[k], 1, 4000 + k, FW_SERVERS, 300, (uint8_t)('a' + k)};
        co_spawn(&g, "writer", writer_main, &wr[k]);
    }
    co_group_join(&g);
    for (uint32_t k = 0; k < sizeof(want); k++)
        want[k] = (uint8_t)('a' + k % FW_SERVERS);
    expect(&w->servers[0], 1, 4000, want, sizeof(want), false);
    return 0;
}

static void neighbours_lose_nothing(void **state)
{
    (void)state;
    run(body_neighbours);
}

static co_fn int body_coalesce(void *arg)
{
    struct filesworld *w = arg;
    struct writer wr[64];
    struct co_group g;

    CHECK(fw_write(&w->servers[0], 1, 5000, "x", 1) == 0);
    memset(w->calls, 0, sizeof(w->calls));
    co_group_init(&g);
    for (uint32_t k = 0; k < ARRAY_SIZE(wr); k++) {
        wr[k] = (struct writer){&w->servers[0], 1, 10000 + (uint64_t)k * 512, 1, 1, 'a'};
        co_spawn(&g, "writer", writer_main, &wr[k]);
    }
    co_group_join(&g);
    CHECK(fw_inode(w, 1)->size == 10000 + 63 * 512 + 1);
    CHECK(w->calls[META_FILE_WRITTEN] + w->calls[META_INODE_GET] < 32);
    return 0;
}

static void those_who_wait_for_meta_share_a_request(void **state)
{
    (void)state;
    run(body_coalesce);
}

static co_fn int body_end(void *arg)
{
    struct filesworld *w = arg;
    uint8_t data[6000];
    uint64_t reads;

    memset(data, 'a', sizeof(data));
    CHECK(fw_write(&w->servers[0], 1, 0, data, sizeof(data)) == 0);
    expect(&w->servers[1], 1, 0, data, sizeof(data), true);
    CHECK(fw_write(&w->servers[0], 1, 6000, "more", 4) == 0);
    expect(&w->servers[1], 1, 6000, "more", 4, true); /* known there as the end */
    reads = w->calls[META_INODE_GET];
    expect(&w->servers[1], 1, 100, data, 100, false); /* and that is good enough */
    CHECK(w->calls[META_INODE_GET] == reads);
    return 0;
}

static void the_end_is_confirmed(void **state)
{
    (void)state;
    run(body_end);
}

/* ---- who may, and times ---- */

static co_fn int body_permission(void *arg)
{
    static const struct nfs_cred stranger = {.uid = 200, .gid = 200}, owner = {.uid = FW_UID};
    struct filesworld *w = arg;
    struct nfs_files *files = w->servers[0].files;
    struct buf *b = buf_alloc(512);
    struct nfs_read r;
    struct nfs_wcc wcc;

    CHECK(nfs_file_read(files, 1, &stranger, 0, 1, &r) == ERR_ACCESS && r.data == NULL);
    CHECK(r.attr.inode_id == 1);
    CHECK(nfs_file_write(files, 1, &stranger, 0, b, 0, 1, true, &wcc) == ERR_ACCESS);
    CHECK(nfs_file_write(files, 1, &owner, FILE_BYTES_MAX, b, 0, 1, true, &wcc) == ERR_TOO_LARGE);
    CHECK(nfs_file_write(files, 1, &owner, 0, b, 0, 1, true, &wcc) == 0 && wcc.before_known);
    CHECK(nfs_file_write(files, 1, &owner, 9000, b, 0, 1, true, &wcc) == 0 && wcc.after_known);
    fw_remove(w, 1);
    CHECK(nfs_file_write(files, 1, &owner, 0, b, 0, 1, true, &wcc) == ERR_STALE);
    CHECK(nfs_file_read(files, 1, &owner, 0, 1, &r) == ERR_STALE);
    CHECK(nfs_file_read(files, 99, &owner, 0, 1, &r) == ERR_STALE);
    buf_put(b);
    return 0;
}

static void who_may_not_is_refused(void **state)
{
    (void)state;
    run(body_permission);
}

static co_fn int body_times(void *arg)
{
    static const struct nfs_cred owner = {.uid = FW_UID};
    struct filesworld *w = arg;
    struct nfs_files *files = w->servers[0].files;
    struct buf *b = buf_alloc(512);
    uint64_t first, then;
    Zbs__Meta__Inode set;
    struct nfs_wcc wcc;
    struct nfs_attr a;

    memset(b->data, 1, 512);
    CHECK(nfs_file_write(files, 1, &owner, 9000, b, 0, 512, false, &wcc) == 0);
    first = fw_inode(w, 1)->mtime_ns;
    CHECK(nfs_file_write(files, 1, &owner, 0, b, 0, 512, false, &wcc) == 0);
    CHECK(wcc.after.mtime_ns > first && fw_inode(w, 1)->mtime_ns == first);
    a = (struct nfs_attr){.inode_id = 1, .mtime_ns = first};
    nfs_files_amend(files, &a);
    CHECK(a.mtime_ns == wcc.after.mtime_ns);
    then = a.mtime_ns;
    CHECK(nfs_file_commit(files, 1, &wcc) == 0);
    CHECK(fw_inode(w, 1)->mtime_ns == first && wcc.after.mtime_ns == then);
    CHECK(co_sleep(NSEC_PER_SEC + 10 * NSEC_PER_MSEC) == 0);
    CHECK(fw_inode(w, 1)->mtime_ns == then);

    CHECK(nfs_file_write(files, 1, &owner, 0, b, 0, 512, true, &wcc) == 0);
    CHECK(co_sleep(NSEC_PER_SEC + 10 * NSEC_PER_MSEC) == 0);
    CHECK(fw_inode(w, 1)->mtime_ns == wcc.after.mtime_ns);

    CHECK(nfs_file_write(files, 1, &owner, 0, b, 0, 512, true, &wcc) == 0);
    set = *fw_inode(w, 1); /* as by a SETATTR */
    set.change++;
    set.mtime_ns = 5;
    nfs_files_learn(files, &set);
    then = w->calls[META_FILE_WRITTEN];
    CHECK(co_sleep(2 * NSEC_PER_SEC) == 0);
    CHECK(w->calls[META_FILE_WRITTEN] == then); /* it counts */

    CHECK(nfs_file_write(files, 1, &owner, 0, b, 0, 512, false, &wcc) == 0);
    fw_restart(&w->servers[0]);
    CHECK(fw_inode(w, 1)->mtime_ns == wcc.after.mtime_ns); /* told at the end */
    buf_put(b);
    return 0;
}

static void meta_learns_the_modification_time(void **state)
{
    (void)state;
    run(body_times);
}

static co_fn int body_idle(void *arg)
{
    struct filesworld *w = arg;

    for (uint64_t id = 1; id <= FW_INODES; id++)
        CHECK(fw_write(&w->servers[0], id, 5000, "x", 1) == 0);
    CHECK(w->volumes_open == FW_INODES);
    CHECK(co_sleep(50 * NSEC_PER_SEC) == 0);
    CHECK(fw_write(&w->servers[0], 3, 5000, "y", 1) == 0);
    CHECK(co_sleep(15 * NSEC_PER_SEC) == 0);
    CHECK(w->volumes_open == 1);
    expect(&w->servers[0], 5, 5000, "x", 1, true);
    return 0;
}

static void volumes_that_nobody_uses_are_closed(void **state)
{
    (void)state;
    run(body_idle);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_files_need_no_volume),
        cmocka_unit_test(sizes_cost_nothing),
        cmocka_unit_test(a_file_that_grows_gets_a_volume),
        cmocka_unit_test(what_was_cut_off_does_not_come_back),
        cmocka_unit_test(another_zeroes_once_the_session_has_ended),
        cmocka_unit_test(zeroing_that_was_begun_is_finished),
        cmocka_unit_test(who_writes_often_need_not_ask),
        cmocka_unit_test(a_lease_ends_with_its_session),
        cmocka_unit_test(what_was_recalled_is_not_used),
        cmocka_unit_test(a_truncation_waits_for_a_session_that_holds_a_lease),
        cmocka_unit_test(neighbours_lose_nothing),
        cmocka_unit_test(those_who_wait_for_meta_share_a_request),
        cmocka_unit_test(the_end_is_confirmed),
        cmocka_unit_test(who_may_not_is_refused),
        cmocka_unit_test(meta_learns_the_modification_time),
        cmocka_unit_test(volumes_that_nobody_uses_are_closed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
