/* SPDX-License-Identifier: Apache-2.0
 *
 * An origin, children of it, and what they hold. */
#ifndef ZBS_TESTS_UNIT_CHUNK_FAMILY_H
#define ZBS_TESTS_UNIT_CHUNK_FAMILY_H

#include "tests/unit/chunk/engine_fixture.h"
#include "chunk/internal.h"

#define BLOCK BLOCK_BYTES
#define PAGE  PAGE_BYTES

static inline int child(struct rig *r, uint64_t id, uint64_t epoch, uint64_t origin)
{
    struct create_args a = {
        .id = id, .epoch = epoch, .volume_id = 1, .origin = origin, .origin_epoch = 1000000};

    return engine_create_as(r->e, &a);
}

static inline uint64_t used_blocks(struct rig *r)
{
    struct dev_stats s;

    engine_dev_stats(r->e, 0, &s);
    return s.used_bytes / BLOCK;
}

static inline uint64_t written(struct rig *r)
{
    struct dev_stats s;

    engine_dev_stats(r->e, 0, &s);
    return s.bytes_written;
}

/* Writes with a commit point that leaves nothing above it. */
static inline void fill(struct rig *r, uint64_t id, uint64_t epoch, uint64_t gen, uint32_t off,
                        uint32_t len, uint8_t byte)
{
    int rc =
        put(r, (struct put){.id = id, .v = V(epoch, gen), .off = off, .len = len, .byte = byte});

    ASSERTF(rc == 0, "write: %s", err_text(rc));
    CHECK(engine_commit_point(r->e, id, epoch, V(epoch, gen)) == 0);
    CHECK(engine_vouch(r->e, id, epoch) == 0);
}

/* An origin of two blocks and some single pages, open at epoch 1. */
static inline void origin_make(struct rig *r)
{
    CHECK(create(r, ID, 1) == 0);
    CHECK(open_at(r, ID, 1) == 0);
    fill(r, ID, 1, 1, 0, 2 * BLOCK, 0x11);
    fill(r, ID, 1, 2, 3 * PAGE, PAGE, 0x12);
    fill(r, ID, 1, 3, 100 * BLOCK + 5 * PAGE, 2 * PAGE, 0x13);
}

static inline void origin_expect(struct rig *r, uint64_t id, uint64_t epoch)
{
    CHECK(look(r, id, epoch, 0, 3 * PAGE) == 0x11);
    CHECK(look(r, id, epoch, 3 * PAGE, PAGE) == 0x12);
    CHECK(look(r, id, epoch, 4 * PAGE, 2 * BLOCK - 4 * PAGE) == 0x11);
    CHECK(look(r, id, epoch, 100 * BLOCK + 5 * PAGE, 2 * PAGE) == 0x13);
    CHECK(look(r, id, epoch, 100 * BLOCK, 5 * PAGE) == 0);
    CHECK(look(r, id, epoch, 2 * BLOCK, BLOCK) == 0);
}

static inline void diff_expect(struct rig *r, uint64_t a, uint64_t b, uint32_t from, uint32_t max,
                               const struct page_range *want, uint32_t n, bool more)
{
    struct page_range got[16];
    struct diff_result res;
    int rc = engine_diff(r->e, a, b, from, got, max, &res);

    ASSERTF(rc == 0, "diff: %s", err_text(rc));
    assert_int_equal(res.count, n);
    assert_int_equal(res.more, more);
    for (uint32_t i = 0; i < n; i++) {
        assert_int_equal(got[i].first, want[i].first);
        assert_int_equal(got[i].count, want[i].count);
    }
}

#endif
