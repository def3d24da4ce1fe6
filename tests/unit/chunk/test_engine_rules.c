/* SPDX-License-Identifier: Apache-2.0
 *
 * The replication protocol's rules for one replica (PROTOCOL 2, 3.4, 5, 10): epochs, versions,
 * commit points, missing sets, credits, deletion; all of it over restarts. */
#include "tests/unit/chunk/engine_fixture.h"

#define K(n) ((n)*1024u)

/* ---- 2.1, 2.2: existence and epochs ---- */

static void epochs_body(struct rig *r)
{
    CHECK(open_at(r, ID, 5) == ERR_NO_REPLICA);
    CHECK(create(r, ID, 3) == 0);
    CHECK(create(r, ID, 3) == 0);
    CHECK(create(r, ID, 2) == ERR_STALE);
    CHECK(put(r, (struct put){ID, V(3, 1), .len = K(4), .byte = 1}) == ERR_NOT_OPEN);
    CHECK(open_at(r, ID, 2) == ERR_STALE);
    CHECK(open_at(r, ID, 5) == 0);
    CHECK(put(r, (struct put){ID, V(5, 1), .len = K(4), .byte = 1}) == 0);
    CHECK(look(r, ID, 5, 0, K(4)) == 1);
    CHECK(open_at(r, ID, 8) == 0);
    CHECK(put(r, (struct put){ID, V(5, 2), .len = K(4), .byte = 2}) == ERR_STALE);
    CHECK(put(r, (struct put){ID, V(9, 2), .len = K(4), .byte = 2}) == ERR_NOT_OPEN);
    CHECK(look(r, ID, 5, 0, K(4)) == -1 && look(r, ID, 8, 0, K(4)) == 1);
    CHECK(engine_commit_point(r->e, ID, 5, V(5, 1)) == ERR_STALE);
    CHECK(engine_check_epoch(r->e, ID, 5) == ERR_STALE);
    CHECK(engine_check_epoch(r->e, ID, 8) == 0);
}

static void epochs_after(struct rig *r)
{
    struct missing_change c = {.replica = 2, .start = true, .everything = true};

    CHECK(engine_check_epoch(r->e, ID, 8) == ERR_NOT_OPEN);
    CHECK(look(r, ID, 8, 0, K(4)) == -1);
    CHECK(open_at(r, ID, 7) == ERR_STALE);
    CHECK(open_at(r, ID, 8) == 0);
    CHECK(look(r, ID, 8, 0, K(4)) == 1);
    CHECK(engine_missing_change(r->e, ID, 7, &c, 1) == ERR_STALE);
}

static void test_epochs(void **state)
{
    struct rig r = rig_new(1, 64 << 20, 0);

    (void)state;
    rig_life(&r, epochs_body, END_POWER);
    rig_life(&r, epochs_after, END_STOP);
    sim_free(r.s);
}

/* An open waits for what lower epochs have in flight, and refuses what they still hold. */
struct racer {
    struct rig *r;
    uint64_t gen;
    int rc;
    bool done;
};

static int racer_main(void *arg)
{
    struct racer *a = arg;

    a->rc = put(a->r, (struct put){ID, V(1, a->gen), .off = (uint32_t)a->gen * K(8), .len = K(8),
                                   .byte = (uint8_t)a->gen});
    a->done = true;
    return 0;
}

static void fence_body(struct rig *r)
{
    struct racer a[20] = {0};
    struct open_info oi;
    struct co_group g;

    CHECK(create(r, ID, 1) == 0 && open_at(r, ID, 1) == 0);
    co_group_init(&g);
    for (uint32_t i = 0; i < ARRAY_SIZE(a); i++) {
        a[i] = (struct racer){.r = r, .gen = i + 1};
        co_spawn(&g, "racer", racer_main, &a[i]);
    }
    for (uint64_t i = 0; i < r->x[0]; i++)
        (void)co_yield ();
    CHECK(engine_open(r->e, ID, 2, 0, &oi) == 0);
    for (uint32_t i = 0; i < ARRAY_SIZE(a); i++) {
        bool known = false;

        for (uint32_t k = 0; k < oi.n_uncommitted; k++)
            known |= oi.uncommitted[k].v.gen == a[i].gen;
        /* Admitted before the fence: ended, and reported if and only if it is there. */
        CHECK(!known || a[i].done);
        CHECK((look(r, ID, 2, (uint32_t)a[i].gen * K(8), K(8)) == (int)a[i].gen) == known);
    }
    open_info_free(&oi);
    CHECK(co_group_join(&g) == 0);
    for (uint32_t i = 0; i < ARRAY_SIZE(a); i++)
        CHECK(a[i].rc == 0 || a[i].rc == ERR_STALE);
}

static void test_fence(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 30; i++) {
        struct rig r = rig_new(i, 64 << 20, 0);

        r.x[0] = i;
        rig_life(&r, fence_body, END_STOP);
        sim_free(r.s);
    }
}

/* ---- 2.2: once only; a higher version stays ---- */

static void versions_body(struct rig *r)
{
    CHECK(create(r, ID, 1) == 0 && open_at(r, ID, 1) == 0);
    CHECK(put(r, (struct put){ID, V(1, 5), .len = K(16), .byte = 5}) == 0);
    CHECK(put(r, (struct put){ID, V(1, 5), .len = K(16), .byte = 6}) == 0); /* again: not applied */
    CHECK(look(r, ID, 1, 0, K(16)) == 5);
    CHECK(put(r, (struct put){ID, V(1, 7), .off = K(4), .len = K(4), .byte = 7}) == 0);
    CHECK(put(r, (struct put){ID, V(1, 6), .len = K(16), .byte = 6}) == 0);
    CHECK(look(r, ID, 1, 0, K(4)) == 6 && look(r, ID, 1, K(4), K(4)) == 7);
    CHECK(look(r, ID, 1, K(8), K(8)) == 6);
    /* At or below the commit point: confirmed, not applied, whatever the pages say. */
    CHECK(engine_commit_point(r->e, ID, 1, V(1, 9)) == 0);
    CHECK(put(r, (struct put){ID, V(1, 8), .off = K(64), .len = K(4), .byte = 8}) == 0);
    CHECK(look(r, ID, 1, K(64), K(4)) == 0);
    CHECK(put(r, (struct put){ID, V(1, 10), V(1, 10), .len = K(4), .byte = 8}) == ERR_INVAL);
    CHECK(put(r, (struct put){ID, V(1, 10), .off = K(4), .len = K(4), .kind = W_ZERO}) == 0);
    CHECK(put(r, (struct put){ID, V(1, 11), .off = K(8), .len = 512, .byte = 11}) == 0);
}

static void versions_after(struct rig *r)
{
    struct open_info oi;

    CHECK(engine_open(r->e, ID, 2, 0, &oi) == 0);
    CHECK(version_cmp(oi.commit_point, V(1, 9)) == 0);
    CHECK(version_cmp(oi.last_version, V(1, 11)) == 0);
    CHECK(oi.n_uncommitted == 2);
    CHECK(oi.uncommitted[0].first == 1 && oi.uncommitted[0].last == 1);
    CHECK(version_cmp(oi.uncommitted[0].v, V(1, 10)) == 0);
    CHECK(oi.uncommitted[1].first == 2 && version_cmp(oi.uncommitted[1].v, V(1, 11)) == 0);
    open_info_free(&oi);
    CHECK(put(r, (struct put){ID, V(1, 10), .len = K(4), .byte = 1}) == ERR_STALE);
    CHECK(look(r, ID, 2, 0, K(4)) == 6 && look(r, ID, 2, K(4), K(4)) == 0);
    CHECK(look(r, ID, 2, K(8), 512) == 11 && look(r, ID, 2, K(8) + 512, K(4) - 512) == 6);
    CHECK(engine_flush(r->e) == 0); /* 2.3: survives trimming */
}

static void test_versions(void **state)
{
    (void)state;
    for (int end = END_STOP; end <= END_POWER; end++) {
        struct rig r = rig_new(2, 64 << 20, 0);

        rig_life(&r, versions_body, (enum rig_end)end);
        rig_life(&r, versions_after, (enum rig_end)end);
        rig_life(&r, versions_after, END_STOP);
        sim_free(r.s);
    }
}

/* Without a commit point the ranges are bounded. */
static void bounded_body(struct rig *r)
{
    uint64_t gen = 0;
    int rc = 0;

    CHECK(create(r, ID, 1) == 0 && open_at(r, ID, 1) == 0);
    while (rc == 0 && gen < 5000) {
        gen++;
        rc = put(r, (struct put){ID, V(1, gen), .off = (uint32_t)gen * K(8), .len = K(4)});
    }
    CHECK(rc == ERR_AGAIN && gen > 1000 && gen <= UNCOMMITTED_MAX);
    CHECK(engine_flush(r->e) == 0);
    r->x[0] = gen - 1;
}

static void bounded_after(struct rig *r)
{
    struct open_info oi;

    CHECK(engine_open(r->e, ID, 1, 0, &oi) == 0);
    CHECK(oi.n_uncommitted == r->x[0]);
    open_info_free(&oi);
    CHECK(engine_commit_point(r->e, ID, 1, V(1, r->x[0])) == 0);
    CHECK(put(r, (struct put){ID, V(1, 6000), .len = K(4)}) == 0);
}

static void test_bounded(void **state)
{
    struct rig r = rig_new(3, 64 << 20, 0);

    (void)state;
    rig_life(&r, bounded_body, END_POWER);
    rig_life(&r, bounded_after, END_STOP);
    sim_free(r.s);
}

/* ---- 5.1, 5.2: missing sets ---- */

static uint32_t missing_pages(struct rig *r, uint64_t epoch, uint32_t replica,
                              struct page_range *ranges)
{
    struct missing_page page;

    CHECK(engine_missing_get(r->e, ID, epoch, replica, 0, ranges, 16, &page) == 0);
    CHECK(!page.more);
    return page.known ? page.count : UINT32_MAX;
}

static void missing_body(struct rig *r)
{
    static const uint32_t absent[] = {7, 9};
    struct page_range add[] = {{10, 5}, {63, 3}};
    struct missing_change c[] = {
        {.replica = 7, .last_version = V(1, 3), .add = add, .n_add = 2, .start = true},
        {.replica = 9, .start = true, .everything = true},
    };

    CHECK(create(r, ID, 1) == 0 && open_at(r, ID, 1) == 0);
    CHECK(engine_missing_change(r->e, ID, 1, c, 2) == 0);
    CHECK(put(r, (struct put){ID, V(1, 4), .off = K(4) * 100, .len = K(8), .byte = 1,
                              .missing = absent, .n_missing = 2}) == 0);
    CHECK(put(r, (struct put){ID, V(1, 5), .off = 512, .len = 512, .byte = 1, .missing = absent,
                              .n_missing = 1}) == 0);
    CHECK(put(r, (struct put){ID, V(1, 6), .off = K(4) * 200, .len = K(4), .kind = W_ZERO,
                              .missing = absent, .n_missing = 1}) == 0);
    CHECK(put(r, (struct put){ID, V(1, 7), .off = K(4) * 300, .len = K(4), .byte = 1}) == 0);
    /* The same write again, now missed by 7: not applied, but noted. */
    CHECK(put(r, (struct put){ID, V(1, 7), .off = K(4) * 300, .len = K(4), .byte = 1,
                              .missing = absent, .n_missing = 1}) == 0);
}

static void missing_after(struct rig *r)
{
    static const struct page_range want[] = {{0, 1},   {10, 5},  {63, 3},
                                             {100, 2}, {200, 1}, {300, 1}};
    struct page_range got[16];
    struct open_info oi;

    CHECK(engine_open(r->e, ID, 1, 0, &oi) == 0);
    CHECK(oi.n_missing == 2 && oi.missing[0].replica == 7 && oi.missing[0].pages == 13);
    CHECK(version_cmp(oi.missing[0].last_version, V(1, 3)) == 0);
    CHECK(oi.missing[1].everything && oi.missing[1].pages == PAGES_PER_EXTENT);
    open_info_free(&oi);
    CHECK(missing_pages(r, 1, 7, got) == ARRAY_SIZE(want));
    CHECK(memcmp(got, want, sizeof(want)) == 0);
    CHECK(missing_pages(r, 1, 8, got) == UINT32_MAX);
    CHECK(missing_pages(r, 1, 9, got) == 1 && got[0].count == PAGES_PER_EXTENT);
    CHECK(engine_flush(r->e) == 0);
}

static void missing_clear(struct rig *r)
{
    struct page_range clear7[] = {{0, 64}, {65, 1000}}, clear9[] = {{1, 65534}};
    struct missing_change c[] = {{.replica = 7, .clear = clear7, .n_clear = 2},
                                 {.replica = 9, .clear = clear9, .n_clear = 1}};
    struct page_range got[16];

    CHECK(open_at(r, ID, 1) == 0);
    CHECK(engine_missing_change(r->e, ID, 1, c, 2) == 0);
    CHECK(missing_pages(r, 1, 7, got) == 1 && got[0].first == 64 && got[0].count == 1);
    CHECK(missing_pages(r, 1, 9, got) == 2 && got[1].first == 65535);
}

static void missing_drop_body(struct rig *r)
{
    struct missing_change c = {.replica = 9, .drop = true};
    struct page_range got[16];

    CHECK(open_at(r, ID, 1) == 0);
    CHECK(missing_pages(r, 1, 7, got) == 1 && got[0].first == 64 && got[0].count == 1);
    CHECK(missing_pages(r, 1, 9, got) == 2);
    CHECK(engine_missing_change(r->e, ID, 1, &c, 1) == 0);
    CHECK(missing_pages(r, 1, 9, got) == UINT32_MAX);
}

static void test_missing(void **state)
{
    (void)state;
    for (int end = END_STOP; end <= END_POWER; end++) {
        struct rig r = rig_new(4, 64 << 20, 0);

        rig_life(&r, missing_body, (enum rig_end)end);
        rig_life(&r, missing_after, (enum rig_end)end);
        rig_life(&r, missing_after, END_STOP);
        rig_life(&r, missing_clear, (enum rig_end)end);
        rig_life(&r, missing_drop_body, (enum rig_end)end);
        sim_free(r.s);
    }
}

/* ---- 3.4: space ---- */

static void full_body(struct rig *r)
{
    uint64_t gen = 0;
    uint32_t blocks = 0, granted;
    struct dev_stats st;
    int rc;

    CHECK(create(r, ID, 1) == 0 && open_at(r, ID, 1) == 0);
    do {
        gen++;
        rc = put(r, (struct put){ID, V(1, gen), V(1, gen - 1), .off = blocks * BLOCK_BYTES,
                                 .len = BLOCK_BYTES, .byte = (uint8_t)(1 + blocks)});
        blocks += rc == 0;
    } while (rc == 0 && blocks < BLOCKS_PER_EXTENT);
    CHECK(rc == ERR_NOSPACE && blocks > 10);
    /* Nothing of the refused one was applied; what is there can be overwritten, small and large. */
    CHECK(look(r, ID, 1, blocks * BLOCK_BYTES, BLOCK_BYTES) == 0);
    CHECK(engine_reserve(r->e, ID, 1, 1, &granted) == ERR_NOSPACE && granted == 0);
    for (uint32_t i = 0; i < 40; i++) {
        gen++;
        CHECK(put(r, (struct put){ID, V(1, gen), V(1, gen - 1), .off = i % 8 * BLOCK_BYTES,
                                  .len = i % 2 ? K(4) : BLOCK_BYTES, .byte = 99}) == 0);
    }
    /* Emptying it works, and gives everything back. */
    gen++;
    CHECK(put(r, (struct put){ID, V(1, gen), V(1, gen - 1), .off = BLOCK_BYTES,
                              .len = (blocks - 1) * BLOCK_BYTES, .kind = W_DISCARD}) == 0);
    CHECK(look(r, ID, 1, BLOCK_BYTES, BLOCK_BYTES) == 0 && look(r, ID, 1, 0, K(4)) == 99);
    engine_dev_stats(r->e, 0, &st);
    CHECK(st.used_bytes == (1 + META_BLOCKS) * BLOCK_BYTES);
    CHECK(engine_reserve(r->e, ID, 1, 1, &granted) == 0 && granted == 1);
    CHECK(engine_delete(r->e, 1, ID, 1) == 0);
    engine_dev_stats(r->e, 0, &st);
    CHECK(st.used_bytes == 0);
}

static void test_full(void **state)
{
    struct rig r = rig_new(5, 16 << 20, JOURNAL_PAGES_MIN * PAGE_BYTES);

    (void)state;
    rig_life(&r, full_body, END_STOP);
    sim_free(r.s);
}

/* Credits are kept for their extent. */
static void credits_body(struct rig *r)
{
    struct open_info oi;
    uint64_t gen = 0;
    int rc = 0;

    CHECK(create(r, ID, 1) == 0 && create(r, ID + 1, 1) == 0);
    CHECK(engine_open(r->e, ID, 1, 5, &oi) == 0 && oi.credits == 5);
    CHECK(open_at(r, ID + 1, 1) == 0);
    while (rc == 0) {
        gen++;
        rc = put(r, (struct put){ID + 1, V(1, gen), V(1, gen - 1),
                                 .off = (uint32_t)gen * BLOCK_BYTES, .len = K(4), .byte = 1});
    }
    CHECK(rc == ERR_NOSPACE);
    for (gen = 1; gen <= 5; gen++)
        CHECK(put(r, (struct put){ID, V(1, gen), V(1, gen - 1), .off = (uint32_t)gen * BLOCK_BYTES,
                                  .len = K(4), .byte = 1}) == 0);
    CHECK(put(r, (struct put){ID, V(1, gen), V(1, gen - 1), .len = K(4), .byte = 1}) ==
          ERR_NOSPACE);
    open_info_free(&oi);
}

static void test_credits(void **state)
{
    struct rig r = rig_new(6, 16 << 20, JOURNAL_PAGES_MIN * PAGE_BYTES);

    (void)state;
    rig_life(&r, credits_body, END_STOP);
    sim_free(r.s);
}

/* ---- 10: deletion ---- */

static void delete_body(struct rig *r)
{
    for (uint64_t id = 1; id <= 10; id++) {
        CHECK(create(r, id, 5) == 0 && open_at(r, id, 6) == 0);
        CHECK(put(r, (struct put){id, V(6, 1), .off = (uint32_t)id * BLOCK_BYTES, .len = K(12),
                                  .byte = (uint8_t)id}) == 0);
    }
    CHECK(engine_delete(r->e, 3, 1, 5) == ERR_STALE);
    CHECK(engine_delete(r->e, 3, 1, 6) == 0);
    CHECK(engine_delete(r->e, 3, 1, 6) == 0); /* gone already */
    CHECK(engine_delete(r->e, 2, 2, 9) == ERR_STALE);
    CHECK(engine_delete(r->e, 4, 3, 9) == 0);
    CHECK(open_at(r, 1, 7) == ERR_NO_REPLICA);
    /* An owner that has not heard of it makes none anew, of one that never was there either. */
    CHECK(create(r, 1, 6) == ERR_STALE && open_at(r, 1, 6) == ERR_NO_REPLICA);
    CHECK(engine_delete(r->e, 4, 77, 6) == 0 && create(r, 77, 6) == ERR_STALE);
    CHECK(engine_create_as(r->e, &(struct create_args){.id = 77, .epoch = 6, .origin = 4}) ==
          ERR_STALE);
    CHECK(create(r, 1, 8) == 0 && open_at(r, 1, 8) == 0);
    CHECK(look(r, 1, 8, BLOCK_BYTES, K(12)) == 0);
    if (r->x[0] != 0)
        CHECK(engine_flush(r->e) == 0);
}

static void delete_after(struct rig *r)
{
    struct replica_info info[20];
    bool more;

    CHECK(engine_delete(r->e, 3, 2, 9) == ERR_STALE); /* the term is remembered */
    CHECK(open_at(r, 3, 10) == ERR_NO_REPLICA);
    CHECK(open_at(r, 1, 9) == 0 && look(r, 1, 9, BLOCK_BYTES, K(12)) == 0);
    CHECK(open_at(r, 2, 9) == 0 && look(r, 2, 9, 2 * BLOCK_BYTES, K(12)) == 2);
    CHECK(engine_list(r->e, 0, info, 20, &more) == 9 && !more);
    CHECK(engine_list(r->e, 4, info, 3, &more) == 3 && more && info[0].id == 5);
    CHECK(engine_check(r->e) == 0);
}

static void test_delete(void **state)
{
    (void)state;
    for (int i = 0; i < 6; i++) {
        struct rig r = rig_new(7, 64 << 20, 0);

        r.x[0] = (uint64_t)i % 2;
        rig_life(&r, delete_body, (enum rig_end)(i / 2));
        rig_life(&r, delete_after, (enum rig_end)(i / 2));
        rig_life(&r, delete_after, END_STOP);
        sim_free(r.s);
    }
}

/* ---- bad requests ---- */

static void bad_body(struct rig *r)
{
    struct write_args a = {.id = ID, .v = V(1, 1), .len = K(4), .payload = buf_alloc(K(4))};
    struct write_result res;
    struct read_result rr;
    uint32_t crc = 0, crcs[4], replica0 = 0;
    struct page_range out[] = {{65535, 2}};
    struct missing_change c = {.replica = 1, .add = out, .n_add = 1};

    CHECK(create(r, 0, 1) == ERR_INVAL);
    CHECK(create(r, ID, 1) == 0 && open_at(r, ID, 1) == 0);
    memset(a.payload->data, 1, K(4));
    CHECK(engine_write(r->e, &a, &res) == ERR_INVAL); /* no checksum */
    a.crc = &crc;
    a.n_crc = 1;
    CHECK(engine_write(r->e, &a, &res) == ERR_CORRUPT); /* a wrong one */
    a.len = 100;
    CHECK(engine_write(r->e, &a, &res) == ERR_INVAL);
    a.len = K(8);
    CHECK(engine_write(r->e, &a, &res) == ERR_INVAL); /* beyond the payload */
    a.len = K(4);
    a.off = EXTENT_BYTES - 512;
    CHECK(engine_write(r->e, &a, &res) == ERR_INVAL);
    a.off = 0;
    a.missing = &replica0;
    a.n_missing = 1;
    CHECK(engine_write(r->e, &a, &res) == ERR_INVAL);
    buf_put(a.payload);
    CHECK(engine_read(r->e, ID, 1, 1, 512, &rr) == ERR_INVAL);
    CHECK(engine_read(r->e, ID, 1, 0, 8 << 20, &rr) == ERR_INVAL);
    CHECK(engine_read(r->e, ID, 1, EXTENT_BYTES, 512, &rr) == ERR_INVAL);
    CHECK(engine_digest(r->e, ID, 1, 65535, 2, false, crcs) == ERR_INVAL);
    CHECK(engine_missing_change(r->e, ID, 1, &c, 1) == ERR_INVAL);
    c.replica = 0;
    CHECK(engine_missing_change(r->e, ID, 1, &c, 1) == ERR_INVAL);
    CHECK(put(r, (struct put){ID, V(1, 1), .off = EXTENT_BYTES - K(4), .len = K(4), .byte = 3}) ==
          0);
    CHECK(look(r, ID, 1, EXTENT_BYTES - K(4), K(4)) == 3);
    CHECK(engine_digest(r->e, ID, 1, 65534, 2, true, crcs) == 0);
    CHECK(crcs[0] == crc32c(0, zero_page, PAGE_BYTES) && crcs[0] != crcs[1]);
}

static void test_bad_requests(void **state)
{
    struct rig r = rig_new(8, 64 << 20, 0);

    (void)state;
    rig_life(&r, bad_body, END_STOP);
    sim_free(r.s);
}

/* ---- a disk that fails ---- */

static void failing_body(struct rig *r)
{
    struct dev_stats st;

    CHECK(create(r, ID, 1) == 0 && open_at(r, ID, 1) == 0);
    CHECK(put(r, (struct put){ID, V(1, 1), .len = K(4), .byte = 1}) == 0);
    CHECK(put(r, (struct put){ID, V(1, 2), .off = BLOCK_BYTES, .len = BLOCK_BYTES, .byte = 2}) ==
          0);
    sim_disk_fail(r->p, DISK, true);
    CHECK(look(r, ID, 1, BLOCK_BYTES, K(4)) == -1);
    CHECK(put(r, (struct put){ID, V(1, 3), .len = K(4), .byte = 3}) == ERR_IO);
    CHECK(put(r, (struct put){ID, V(1, 4), .len = BLOCK_BYTES, .byte = 4}) == ERR_IO);
    engine_dev_stats(r->e, 0, &st);
    CHECK(st.state == 2 && st.error[0] != 0);
    sim_disk_fail(r->p, DISK, false);
    /* Memory is ahead of the device: nothing of it is served until the next start. */
    CHECK(look(r, ID, 1, 0, K(4)) == -1);
    CHECK(open_at(r, ID, 1) == ERR_IO && open_at(r, ID, 2) == ERR_NO_REPLICA);
    CHECK(create(r, ID + 1, 1) == ERR_NOSPACE);
    CHECK(engine_flush(r->e) == ERR_IO);
    engine_stop(r->e);
}

static void failing_after(struct rig *r)
{
    int v;

    CHECK(open_at(r, ID, 2) == 0);
    v = look(r, ID, 2, 0, K(4));
    CHECK(v == 1 || v == 3);
    CHECK(look(r, ID, 2, BLOCK_BYTES, BLOCK_BYTES) == 2);
}

static void test_failing_disk(void **state)
{
    struct rig r = rig_new(9, 64 << 20, 0);

    (void)state;
    rig_life(&r, failing_body, END_KILL);
    rig_life(&r, failing_after, END_STOP);
    sim_free(r.s);
}

/* Its deletion was on its way when the disk failed: a start may find it again, so nobody is told
 * that it has gone. */
static void undeleted_body(struct rig *r)
{
    CHECK(create(r, ID, 1) == 0);
    sim_disk_fail(r->p, DISK, true);
    CHECK(engine_delete(r->e, 1, ID, 1) == ERR_IO);
    sim_disk_fail(r->p, DISK, false);
    CHECK(engine_delete(r->e, 1, ID, 1) == ERR_IO);
    engine_stop(r->e);
}

static void undeleted_after(struct rig *r)
{
    CHECK(engine_delete(r->e, 1, ID, 1) == 0);
    CHECK(open_at(r, ID, 1) == ERR_NO_REPLICA);
}

static void test_undeleted(void **state)
{
    struct rig r = rig_new(10, 64 << 20, 0);

    (void)state;
    rig_life(&r, undeleted_body, END_KILL);
    rig_life(&r, undeleted_after, END_STOP);
    sim_free(r.s);
}

/* ---- killed, then without power: what was told in between stays ---- */

#define KILLS 60u

/* x[0]: writes confirmed in all; x[1]: what a start found. */
static void body_write_on(struct rig *r)
{
    CHECK(open_at(r, ID, r->x[2]) == 0);
    for (uint64_t gen = 1;; gen++) {
        CHECK(put(r, (struct put){ID, V(r->x[2], gen), V(0, 0), .off = 0, .len = PAGE_BYTES,
                                  .byte = (uint8_t)(r->x[0] % 200 + 1)}) == 0);
        r->x[0]++;
    }
}

static void body_killed_create(struct rig *r)
{
    CHECK(create(r, ID, 1) == 0);
}

static void body_told(struct rig *r)
{
    CHECK(open_at(r, ID, r->x[2]) == 0);
    r->x[1] = (uint64_t)look(r, ID, r->x[2], 0, PAGE_BYTES);
    CHECK(r->x[1] <= 200);
}

static void body_told_again(struct rig *r)
{
    CHECK(open_at(r, ID, r->x[2]) == 0);
    CHECK((uint64_t)look(r, ID, r->x[2], 0, PAGE_BYTES) == r->x[1]);
}

static void killed(bool guest)
{
    struct rig r = rig_new(77, 64 << 20, 0);

    r.journal_host = guest;
    rig_life(&r, body_killed_create, END_STOP);
    for (uint32_t i = 0; i < KILLS; i++) {
        r.x[2] = 3 * i + 2;
        r.body = body_write_on;
        sim_proc_start(r.p, rig_main, &r);
        sim_run_for(r.s, 3 * NSEC_PER_MSEC + (nsec_t)(sim_random(r.s) % 1000) * NSEC_PER_USEC);
        sim_proc_crash(r.p);
        r.x[2]++;
        rig_life(&r, body_told, END_POWER);
        r.x[2]++;
        rig_life(&r, body_told_again, END_POWER);
    }
    assert_true(r.x[0] > 2 * KILLS);
    sim_free(r.s);
}

static void test_killed(void **state)
{
    (void)state;
    killed(false);
    killed(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_epochs),       cmocka_unit_test(test_fence),
        cmocka_unit_test(test_versions),     cmocka_unit_test(test_bounded),
        cmocka_unit_test(test_missing),      cmocka_unit_test(test_full),
        cmocka_unit_test(test_credits),      cmocka_unit_test(test_delete),
        cmocka_unit_test(test_bad_requests), cmocka_unit_test(test_failing_disk),
        cmocka_unit_test(test_undeleted),    cmocka_unit_test(test_killed),
    };

    log_threshold = LOG_LV_ERROR;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
