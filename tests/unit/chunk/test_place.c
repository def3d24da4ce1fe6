/* SPDX-License-Identifier: Apache-2.0
 *
 * Which blocks are given out: neighbours in an extent are neighbours on the device. */
#include "tests/unit/chunk/engine_fixture.h"
#include "chunk/internal.h"

#define STRETCH 64u

/* Where block `index` of an extent lies. */
static uint32_t place_of(struct rig *r, uint64_t id, uint32_t index)
{
    const struct map_entry *en = map_peek(ext_find(r->e, id), index);

    CHECK(en != NULL && en->src[0].block != BLOCK_NONE);
    return en->src[0].block - 1;
}

static struct dev *rig_dev(struct rig *r)
{
    return LIST_FIRST(&r->e->devs, struct dev, link);
}

/* How many runs of neighbours the blocks first .. first + n - 1 are. */
static uint32_t runs(struct rig *r, uint64_t id, uint32_t first, uint32_t n)
{
    uint32_t count = 1;

    for (uint32_t i = first + 1; i < first + n; i++)
        count += place_of(r, id, i) != place_of(r, id, i - 1) + 1;
    return count;
}

static uint64_t gen;

/* Blocks of an extent, whole or only a page of each. */
static void fill(struct rig *r, uint64_t id, uint32_t first, uint32_t n, uint32_t len)
{
    for (uint32_t i = first; i < first + n; i++)
        CHECK(put(r, (struct put){id, V(1, ++gen), .cp = V(1, gen - 1), .off = i * BLOCK_BYTES,
                                  .len = len, .byte = 1}) == 0);
}

/* Four blocks at a time. */
static void fill_wide(struct rig *r, uint64_t id, uint32_t first, uint32_t end)
{
    for (uint32_t i = first; i < end; i += 4)
        fill(r, id, i, 1, MIN(end - i, 4) * BLOCK_BYTES);
}

static void make(struct rig *r, uint64_t id)
{
    CHECK(create(r, id, 1) == 0 && open_at(r, id, 1) == 0);
}

static void sequential_body(struct rig *r)
{
    gen = 1;
    make(r, 1);
    make(r, 2);
    for (uint32_t i = 0; i < 150; i++) { /* interleaved, in large and in small requests */
        fill(r, 1, i, 1, BLOCK_BYTES);
        fill(r, 2, i, 1, PAGE_BYTES);
        if (i == 70)
            make(r, 3); /* metadata does not come between */
    }
    CHECK(runs(r, 1, 0, 150) <= 3 && runs(r, 2, 0, 150) <= 3);
    CHECK(place_of(r, 1, 0) % STRETCH == 0 && place_of(r, 2, 0) % STRETCH == 0);
    fill(r, 3, 500, 40, BLOCK_BYTES); /* a stream that starts in the middle */
    fill(r, 3, 100, 40, BLOCK_BYTES);
    CHECK(runs(r, 3, 500, 40) <= 2 && runs(r, 3, 100, 40) <= 2);
    CHECK(place_of(r, 3, 511) + 1 == place_of(r, 3, 512) || place_of(r, 3, 512) % STRETCH == 0);
    fill(r, 1, 0, 128, BLOCK_BYTES); /* copied while it is overwritten */
    CHECK(runs(r, 1, 0, 128) <= 3);
}

/* In the end the order of writing makes no difference. */
static void random_body(struct rig *r)
{
    gen = 1;
    make(r, 1);
    for (uint32_t i = 0; i < 128; i++)
        fill(r, 1, i * 37 % 128, 1, PAGE_BYTES);
    CHECK(runs(r, 1, 0, 64) == 1 && runs(r, 1, 64, 64) == 1);
    for (uint32_t i = 0; i < 128; i++)
        fill(r, 1, i * 53 % 128, 1, BLOCK_BYTES);
    CHECK(runs(r, 1, 0, 128) <= 64); /* copies take what is free near, not a stretch each */
}

static bool any_whole(const struct dev *d)
{
    for (uint32_t k = 0; k < d->place.whole.words[0]; k++) {
        if (d->place.whole.level[0][k] != 0)
            return true;
    }
    return false;
}

/* No stretch is free as a whole: the longest run near is taken, down to the last block. */
static void worn_body(struct rig *r)
{
    struct dev *d = rig_dev(r);
    uint32_t n = 0;

    gen = 1;
    make(r, 1);
    make(r, 2);
    while (any_whole(d)) { /* all but the last 20 of 64, then holes of 1 and 8 */
        fill(r, 1, n, 44, PAGE_BYTES);
        n += 64;
    }
    for (uint32_t i = 0; i + 64 <= n; i += 64) {
        CHECK(put(r, (struct put){1, V(1, ++gen), .off = (i + 3) * BLOCK_BYTES, .len = BLOCK_BYTES,
                                  .kind = W_DISCARD}) == 0);
        CHECK(put(r, (struct put){1, V(1, ++gen), .off = (i + 20) * BLOCK_BYTES,
                                  .len = 8 * BLOCK_BYTES, .kind = W_DISCARD}) == 0);
    }
    CHECK(engine_flush(r->e) == 0);
    fill(r, 2, 0, 20, BLOCK_BYTES);
    CHECK(runs(r, 2, 0, 20) == 1);
    n = 20;
    while (put(r, (struct put){2, V(1, ++gen), .cp = V(1, gen - 1), .off = n * BLOCK_BYTES,
                               .len = BLOCK_BYTES, .byte = 1}) == 0)
        n++;
    CHECK(blocks_available(d) <= 0);
    CHECK(runs(r, 2, 0, n) < n / 5);
}

/* Sequential writers that begin anew at odd places, on a device two thirds full. */
static void overwritten_body(struct rig *r)
{
    static const uint32_t begin[] = {0, 100, 7, 333, 0, 251};

    gen = 1;
    make(r, 1);
    fill_wide(r, 1, 0, 500);
    for (uint32_t i = 0; i < ARRAY_SIZE(begin); i++) {
        fill_wide(r, 1, begin[i], 500);
        fill_wide(r, 1, 0, begin[i] / 2);
    }
    CHECK(runs(r, 1, 0, 500) <= 500 / 16);
}

static void run(void (*body)(struct rig *r), uint64_t disk_bytes)
{
    struct rig r = rig_new(1, disk_bytes, 4 << 20);

    rig_life(&r, body, END_STOP);
    sim_free(r.s);
}

static void test_sequential(void **state)
{
    (void)state;
    run(sequential_body, 512ull << 20);
}

static void test_random(void **state)
{
    (void)state;
    run(random_body, 512ull << 20);
}

static void test_worn(void **state)
{
    (void)state;
    run(worn_body, 200ull << 20);
}

static void test_overwritten(void **state)
{
    (void)state;
    run(overwritten_body, 200ull << 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sequential),
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_worn),
        cmocka_unit_test(test_overwritten),
    };

    log_threshold = LOG_LV_ERROR;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
