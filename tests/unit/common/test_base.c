/* SPDX-License-Identifier: Apache-2.0
 *
 * Small parts of common/base: errors, checksum, bytes, names, generator, table, heap, histogram,
 * vector, log, assertions. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "common/base/assert.h"
#include "common/base/bytes.h"
#include "common/base/crc32c.h"
#include "common/base/err.h"
#include "common/base/heap.h"
#include "common/base/hist.h"
#include "common/base/htab.h"
#include "common/base/limits.h"
#include "common/base/list.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/name.h"
#include "common/base/prng.h"
#include "common/base/trace.h"
#include "common/base/vec.h"

static void err_texts_are_set_prefixed_and_matched(void **state)
{
    char longer[600];

    (void)state;
    assert_string_equal(err_name(ERR_NOSPACE), "NOSPACE");
    assert_string_equal(err_name(-999), "?");
    assert_string_equal(err_name(0), "?");
    assert_string_equal(err_default_text(ERR_MISCOMPARE), "compared data differs");
    assert_string_equal(err_default_text(-999), "unknown error");
    assert_int_equal(err_set(ERR_IO, "sector %d", 7), ERR_IO);
    assert_string_equal(err_text(ERR_IO), "sector 7");
    assert_string_equal(err_text(ERR_BUSY), "busy");
    assert_int_equal(err_prefix(ERR_IO, "disk %s", "d0"), ERR_IO);
    assert_string_equal(err_text(ERR_IO), "disk d0: sector 7");
    assert_int_equal(err_set(ERR_CORRUPT, "[%s]", err_text(ERR_IO)), ERR_CORRUPT);
    assert_string_equal(err_text(ERR_CORRUPT), "[disk d0: sector 7]");
    assert_int_equal(err_prefix(ERR_PERM, "volume"), ERR_PERM);
    assert_string_equal(err_text(ERR_PERM), "volume: not permitted");
    assert_int_equal(err_from_errno(ENOENT, "open %s", "/x"), ERR_NOTFOUND);
    assert_string_equal(err_text(ERR_NOTFOUND), "open /x: No such file or directory");
    assert_int_equal(err_from_errno(ECONNRESET, "read"), ERR_CLOSED);
    assert_int_equal(err_from_errno(12345, "read"), ERR_IO);
    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    assert_int_equal(err_set(ERR_IO, "%s", longer), ERR_IO);
    assert_int_equal(strlen(err_text(ERR_IO)), 255);
}

static void crc32c_matches_its_test_vectors_and_chains(void **state)
{
    uint8_t zeroes[32] = {0}, data[1000];
    struct prng p;

    (void)state;
    assert_int_equal(crc32c(0, "123456789", 9), 0xE3069283);
    assert_int_equal(crc32c(0, zeroes, sizeof(zeroes)), 0x8A9136AA);
    assert_int_equal(crc32c(0, NULL, 0), 0);
    prng_init(&p, 1);
    prng_fill(&p, data, sizeof(data));
    for (size_t cut = 0; cut <= sizeof(data); cut += 37)
        assert_int_equal(crc32c(crc32c(0, data, cut), data + cut, sizeof(data) - cut),
                         crc32c(0, data, sizeof(data)));
}

static void bytes_are_read_and_written_in_their_order(void **state)
{
    uint8_t b[9] = {0, 1, 2, 3, 4, 5, 6, 7, 8};

    (void)state;
    assert_int_equal(get_be16(b + 1), 0x0102);
    assert_int_equal(get_le16(b + 1), 0x0201);
    assert_int_equal(get_be24(b + 1), 0x010203);
    assert_int_equal(get_be32(b + 1), 0x01020304);
    assert_int_equal(get_le32(b + 1), 0x04030201);
    assert_true(get_be64(b + 1) == 0x0102030405060708u);
    assert_true(get_le64(b + 1) == 0x0807060504030201u);
    put_be24(b + 1, 0xABCDEF);
    put_le32(b + 4, 0x11223344);
    assert_int_equal(get_be24(b + 1), 0xABCDEF);
    assert_int_equal(b[4], 0x44);
    put_be64(b + 1, UINT64_MAX - 1);
    assert_true(get_be64(b + 1) == UINT64_MAX - 1);
}

static void names_from_outside_are_judged(void **state)
{
    static const char *const good[] = {"a", "vm 01", "Größe", "日本", ".hidden", "😀", "a.b"};
    static const char *const bad[] = {"",
                                      ".",
                                      "..",
                                      "a/b",
                                      "a\nb",
                                      "\x7f",
                                      "\xc2\x85",         /* C1 control */
                                      "\xff",             /* never in UTF-8 */
                                      "\xc0\xaf",         /* '/' in two bytes */
                                      "\xe0\x80\xaf",     /* and in three */
                                      "\xed\xa0\x80",     /* surrogate */
                                      "\xf4\x90\x80\x80", /* beyond the last character */
                                      "\xe6\x97",         /* cut */
                                      "12345678901"};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(good); i++)
        assert_int_equal(name_check("name", good[i], 10), 0);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(name_check("name", bad[i], 10), ERR_INVAL);
    assert_string_equal(err_text(ERR_INVAL), "name is too long (1 to 10 bytes are allowed)");
    assert_false(name_valid("a\0b", 3, 10));
}

static void prng_is_reproducible_and_fair(void **state)
{
    struct prng a, b;
    uint32_t seen[7] = {0}, hits = 0;

    (void)state;
    prng_init(&a, 5);
    prng_init(&b, 5);
    for (int i = 0; i < 100; i++)
        assert_true(prng_next(&a) == prng_next(&b));
    prng_init(&b, 6);
    assert_true(prng_next(&a) != prng_next(&b));
    for (int i = 0; i < 70000; i++) {
        seen[prng_below(&a, 7)]++;
        hits += prng_chance(&a, 10000);
        assert_in_range(prng_between(&a, 3, 5), 3, 5);
    }
    for (size_t i = 0; i < ARRAY_SIZE(seen); i++)
        assert_in_range(seen[i], 9500, 10500);
    assert_in_range(hits, 550, 850);
    assert_false(prng_chance(&a, 0));
    assert_true(prng_chance(&a, 1000000));
}

struct item {
    struct htab_node node;
    uint32_t heap_pos;
    int64_t key;
    bool seen;
};

static void htab_grows_and_keeps_every_element(void **state)
{
    enum { N = 5000 };
    struct item *items = calloc(N, sizeof(*items));
    struct htab h;
    size_t seen = 0;

    (void)state;
    htab_init(&h);
    assert_null(htab_find(&h, 1));
    for (uint64_t i = 0; i < N; i++) {
        htab_insert(&h, &items[i].node, i * i);
        for (uint64_t j = i > 40 ? i - 40 : 0; j <= i; j++)
            assert_ptr_equal(HTAB_FIND(&h, j * j, struct item, node), &items[j]);
        if (i % 1000 == 500) { /* in the middle of growing, too */
            size_t n = 0;

            HTAB_FOREACH (it, &h, struct item, node)
                n++;
            assert_int_equal(n, i + 1);
        }
    }
    HTAB_FOREACH (it, &h, struct item, node) {
        assert_false(it->seen);
        it->seen = true;
        seen++;
        if ((it - items) % 2 == 0)
            htab_remove(&h, &it->node);
    }
    assert_int_equal(seen, N);
    assert_int_equal(h.count, N / 2);
    for (uint64_t i = 0; i < N; i++)
        assert_int_equal(htab_find(&h, i * i) != NULL, i % 2 == 1);
    htab_fini(&h);
    free(items);
}

static void heap_sorts_and_removes_anywhere(void **state)
{
    enum { N = 1000 };
    static struct item items[N];
    struct heap h;
    struct prng p;
    int64_t last = INT64_MIN;
    uint32_t *pos;
    size_t left = 0;

    (void)state;
    prng_init(&p, 3);
    heap_init(&h, mem_realloc);
    assert_null(heap_pop(&h));
    for (size_t i = 0; i < N; i++) {
        items[i].key = (int64_t)prng_below(&p, 50);
        heap_push(&h, items[i].key, &items[i].heap_pos);
    }
    for (size_t i = 0; i < N; i += 3)
        heap_remove(&h, &items[i].heap_pos);
    heap_remove(&h, &items[0].heap_pos); /* not there: nothing happens */
    const struct item *former = NULL;
    while ((pos = heap_pop(&h)) != NULL) {
        const struct item *it = CONTAINER_OF(pos, struct item, heap_pos);

        assert_true(it->key >= last);
        if (it->key == last)
            assert_true(it > former); /* first come, first served */
        assert_int_equal(it->heap_pos, 0);
        last = it->key;
        former = it;
        left++;
    }
    assert_int_equal(left, N - (N + 2) / 3);
    heap_fini(&h, mem_free);
}

static void hist_percentiles_are_close(void **state)
{
    struct hist a, b;

    (void)state;
    hist_init(&a);
    hist_init(&b);
    assert_int_equal(hist_percentile(&a, 99), 0);
    for (uint64_t i = 1; i <= 100000; i++)
        hist_add(i % 2 == 0 ? &a : &b, i);
    hist_merge(&a, &b);
    assert_int_equal(a.count, 100000);
    assert_int_equal(a.min, 1);
    assert_int_equal(a.max, 100000);
    assert_in_range(hist_percentile(&a, 50), 48400, 51600);
    assert_in_range(hist_percentile(&a, 99), 95900, 100000);
    assert_int_equal(hist_percentile(&a, 100), 100000);
    assert_int_equal(hist_percentile(&a, 0), 1);
    assert_true(hist_mean(&a) > 50000.0 && hist_mean(&a) < 50001.0);
    hist_add(&a, UINT64_MAX);
    assert_true(hist_percentile(&a, 100) > 100000);
}

static void vec_grows(void **state)
{
    VEC(uint32_t) v = {0};

    (void)state;
    for (uint32_t i = 0; i < 1000; i++)
        *VEC_PUSH(&v) = i;
    assert_int_equal(v.count, 1000);
    for (uint32_t i = 0; i < 1000; i++)
        assert_int_equal(v.data[i], i);
    VEC_FINI(&v);
}

static void units_convert_exactly(void **state)
{
    (void)state;
    assert_int_equal(bytes_to_sectors(4096), 8);
    assert_int_equal(bytes_to_pages(8192), 2);
    assert_int_equal(bytes_to_pages_up(8193), 3);
    assert_int_equal(bytes_to_extents_up(1), 1);
    assert_int_equal(bytes_to_extents_up(VOLUME_BYTES_MAX), VOLUME_EXTENTS_MAX);
    assert_true(bytes_aligned(GIB, EXTENT_BYTES));
}

static char logged[512];

static void keep_line(void *arg, enum log_level level, const char *line)
{
    (void)arg;
    assert_int_equal(level, LOG_LV_WARN);
    (void)snprintf(logged, sizeof(logged), "%s", line);
}

static void log_lines_are_single_and_filtered(void **state)
{
    (void)state;
    log_set_service("zbs-test");
    log_set_sink(keep_line, NULL);
    log_debug("dropped", "x=%d", 1);
    assert_string_equal(logged, "");
    log_warn("disk.slow", "path=\"%s\" ms=%d", "a\nb", 7);
    assert_string_equal(logged, "WARN zbs-test[-] disk.slow path=\"a?b\" ms=7");
    log_set_sink(NULL, NULL);
}

static void broken_assertion_says_what_is_known(void **state)
{
    char text[8192];
    size_t len = 0;
    ssize_t n;
    int fds[2], status;
    pid_t pid;

    (void)state;
    assert_int_equal(pipe(fds), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)signal(SIGABRT, SIG_DFL);
        (void)dup2(fds[1], STDERR_FILENO);
        trace("journal.commit", 1, 2, 3);
        ASSERTF(pid == 1, "extent %d", 42);
        _exit(0);
    }
    (void)close(fds[1]);
    while (len < sizeof(text) - 1 && (n = read(fds[0], text + len, sizeof(text) - 1 - len)) > 0)
        len += (size_t)n;
    text[len] = '\0';
    (void)close(fds[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    assert_non_null(strstr(text, "assertion failed: pid == 1 at "));
    assert_non_null(strstr(text, "test_base.c:"));
    assert_non_null(strstr(text, "extent 42"));
    assert_non_null(strstr(text, "journal.commit 1 2 3"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(err_texts_are_set_prefixed_and_matched),
        cmocka_unit_test(crc32c_matches_its_test_vectors_and_chains),
        cmocka_unit_test(bytes_are_read_and_written_in_their_order),
        cmocka_unit_test(names_from_outside_are_judged),
        cmocka_unit_test(prng_is_reproducible_and_fair),
        cmocka_unit_test(htab_grows_and_keeps_every_element),
        cmocka_unit_test(heap_sorts_and_removes_anywhere),
        cmocka_unit_test(hist_percentiles_are_close),
        cmocka_unit_test(vec_grows),
        cmocka_unit_test(units_convert_exactly),
        cmocka_unit_test(log_lines_are_single_and_filtered),
        cmocka_unit_test(broken_assertion_says_what_is_known),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
