/* SPDX-License-Identifier: Apache-2.0
 *
 * Recognising sequential streams. Each case is a list of requests and what is said of each. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "chunk/stream.h"
#include "common/base/attr.h"

#define K(n) ((n)*1024u)

enum said { RANDOM, SEQ, PAUSED /* random, after a long time */ };
struct step {
    uint32_t off, len;
    enum said said;
};
struct row {
    const char *name;
    struct step step[40];
};

static const struct row rows[] = {
    {"in order",
     {{K(0), K(16), RANDOM},
      {K(16), K(16), RANDOM},
      {K(32), K(16), SEQ},
      {K(48), K(16), SEQ},
      {K(64), K(256), SEQ}, /* lengths may differ */
      {K(320), K(4), SEQ}}},
    {"a jump is forgotten, and made good again",
     {{K(0), K(16), RANDOM},
      {K(16), K(16), RANDOM},
      {K(32), K(16), SEQ},
      {K(9000), K(16), RANDOM},
      {K(9016), K(16), RANDOM},
      {K(9032), K(16), SEQ}}},
    {"backwards",
     {{K(64), K(16), RANDOM},
      {K(48), K(16), RANDOM},
      {K(32), K(16), RANDOM},
      {K(16), K(16), RANDOM},
      {K(0), K(16), RANDOM}}},
    {"one place again and again",
     {{K(16), K(4), RANDOM},
      {K(16), K(4), RANDOM},
      {K(16), K(4), RANDOM},
      {K(16), K(4), RANDOM},
      {K(16), K(4), RANDOM}}},
    {"a queue's disorder",
     {{K(16), K(16), RANDOM},
      {K(32), K(16), RANDOM},
      {K(64), K(16), RANDOM}, /* early */
      {K(48), K(16), SEQ},    /* moves the front over both */
      {K(112), K(16), SEQ},
      {K(96), K(16), SEQ},
      {K(80), K(16), SEQ},
      {K(128), K(16), SEQ}}},
    {"three at a time",
     {{K(0), K(16), RANDOM},
      {K(90000), K(16), RANDOM},
      {K(50000), K(16), RANDOM},
      {K(16), K(16), RANDOM},
      {K(90016), K(16), RANDOM},
      {K(50016), K(16), RANDOM},
      {K(32), K(16), SEQ},
      {K(90032), K(16), SEQ},
      {K(50032), K(16), SEQ},
      {K(7000), K(16), RANDOM},
      {K(50048), K(16), SEQ},
      {K(48), K(16), SEQ},
      {K(90048), K(16), SEQ}}},
    {"a hole that is never filled",
     {{K(0), K(4), RANDOM},
      {K(4), K(4), RANDOM},
      {K(8), K(4), SEQ},
      {K(16), K(4), SEQ}, /* early: what is at 12 is missing */
      {K(20), K(4), SEQ},
      {K(24), K(4), SEQ},
      {K(28), K(4), SEQ},
      {K(32), K(4), SEQ},
      {K(36), K(4), SEQ},
      {K(40), K(4), SEQ},
      {K(44), K(4), SEQ},
      {K(48), K(4), RANDOM}, /* a jump after all */
      {K(52), K(4), RANDOM},
      {K(56), K(4), SEQ}}},
    {"sectors",
     {{0, 1536, RANDOM},
      {1536, 1536, RANDOM},
      {3072, 1536, RANDOM},
      {4608, 4096, SEQ},
      {8704, 4096, SEQ},
      {12800, 512, SEQ}}},
    {"idle for long",
     {{K(0), K(16), RANDOM},
      {K(16), K(16), RANDOM},
      {K(32), K(16), SEQ},
      {K(48), K(16), PAUSED},
      {K(64), K(16), RANDOM},
      {K(80), K(16), SEQ}}},
    {"to the extent's end",
     {{EXTENT_BYTES - K(48), K(16), RANDOM},
      {EXTENT_BYTES - K(32), K(16), RANDOM},
      {EXTENT_BYTES - K(16), K(16), SEQ},
      {K(0), K(16), RANDOM}}},
};

static void test_rows(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct stream_set set = {0};
        nsec_t now = 1;

        for (const struct step *s = rows[i].step; s->len != 0; s++) {
            bool seq;

            now += s->said == PAUSED ? STREAM_IDLE + 1 : 1;
            seq = stream_note(&set, s->off, s->len, now) >= 0;
            if (seq != (s->said == SEQ))
                fail_msg("%s: request %zu", rows[i].name, (size_t)(s - rows[i].step));
        }
    }
}

static uint32_t random_next(uint64_t *x)
{
    *x = *x * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(*x >> 33);
}

/* As many streams as are followed, less one, live on among random requests. */
static void test_noise(void **state)
{
    uint32_t n = STREAMS_MAX - 1, false_seq = 0, requests = 0;
    struct stream_set set = {0};
    uint64_t rng = 42;
    nsec_t now = 1;

    (void)state;
    for (uint32_t round = 0; round < 1000; round++) {
        for (uint32_t i = 0; i < n; i++) {
            int who = stream_note(&set, i * (EXTENT_BYTES / 8) + round * K(16), K(16), now);

            assert_true(who >= 0 || round < 2);
        }
        for (uint32_t i = 0; i < 5 && round >= 2; i++, requests++) {
            uint32_t off = EXTENT_BYTES / 8 * 7 + random_next(&rng) % (EXTENT_BYTES / 8);

            false_seq += stream_note(&set, off / K(4) * K(4), K(4), now) >= 0;
        }
        now += NSEC_PER_USEC;
    }
    assert_true(false_seq <= requests / 1000);
}

/* A small place that is written at random is not taken for a stream. */
static void test_small_place(void **state)
{
    struct stream_set set = {0};
    uint32_t seq = 0;
    uint64_t rng = 7;

    (void)state;
    for (uint32_t i = 0; i < 20000; i++)
        seq += stream_note(&set, random_next(&rng) % 4096 * K(4), K(4), 1 + i * NSEC_PER_USEC) >= 0;
    assert_true(seq < 200);
}

/* Established streams that went idle make room. */
static void test_idle_makes_room(void **state)
{
    struct stream_set set = {0};
    nsec_t now = 1;

    (void)state;
    for (uint32_t i = 0; i < STREAMS_MAX * 3; i++)
        (void)stream_note(&set, i % STREAMS_MAX * (EXTENT_BYTES / 8) + i / STREAMS_MAX * K(16),
                          K(16), now);
    for (uint32_t i = 0; i < STREAMS_MAX; i++)
        assert_true(set.s[i].hits >= STREAM_HITS);
    now += STREAM_IDLE + 1;
    for (uint32_t i = 0; i < 6; i++) /* two new ones, interleaved */
        (void)stream_note(&set, K(8000) + i % 2 * K(1000) + i / 2 * K(16), K(16), now);
    assert_true(stream_note(&set, K(8048), K(16), now) >= 0);
    assert_true(stream_note(&set, K(9048), K(16), now) >= 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_noise),
        cmocka_unit_test(test_small_place),
        cmocka_unit_test(test_idle_makes_room),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
