/* SPDX-License-Identifier: Apache-2.0
 *
 * What load generators report: the ramp is not measured, windows are whole, directions apart. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "common/base/err.h"
#include "tests/lib/loadstat.h"

#define MS 1000000

static char *printed(const struct loadstat *s)
{
    char *text = NULL;
    size_t len;
    FILE *f = open_memstream(&text, &len);

    assert_non_null(f);
    loadstat_print(s, f);
    fclose(f);
    return text;
}

static void only_what_completes_in_time_is_measured(void **state)
{
    struct loadstat_conf conf = {.from = 1000L * MS, .to = 3000L * MS};
    struct loadstat s;
    char *text;

    (void)state;
    assert_int_equal(loadstat_start(&s, &conf, 0), 0);
    loadstat_add(&s, LOADSTAT_WRITE, 999L * MS, 500L * MS, 4096); /* ramp */
    loadstat_add(&s, LOADSTAT_WRITE, 1000L * MS, 2L * MS, 4096);
    loadstat_add(&s, LOADSTAT_READ, 2999L * MS, 4L * MS, 8192);
    loadstat_add(&s, LOADSTAT_READ, 3000L * MS, 500L * MS, 4096); /* too late */
    loadstat_stop(&s, 3001L * MS);
    text = printed(&s);
    assert_non_null(strstr(text, "\"seconds\": 2.000, \"bytes\": 12288"));
    assert_non_null(strstr(text, "\"ios\": 2, \"iops\": 1.0, \"mean_us\": 3000.00"));
    assert_non_null(strstr(text, "\"read\": {\"ios\": 1"));
    assert_non_null(strstr(text, "\"write\": {\"ios\": 1"));
    assert_null(strstr(text, "server"));
    free(text);
}

static void windows_without_completions_are_listed(void **state)
{
    char path[] = "/tmp/zbs-loadstat-XXXXXX", line[200];
    struct loadstat_conf conf = {.to = INT64_MAX, .csv = path, .window = 100L * MS};
    struct loadstat s;
    FILE *f;
    int fd = mkstemp(path), ops[8] = {0}, n = 0;

    (void)state;
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(loadstat_start(&s, &conf, 0), 0);
    loadstat_add(&s, LOADSTAT_WRITE, 10L * MS, MS, 4096);
    loadstat_add(&s, LOADSTAT_WRITE, 99L * MS, MS, 4096);
    loadstat_add(&s, LOADSTAT_WRITE, 250L * MS, 160L * MS, 4096); /* a stall */
    loadstat_stop(&s, 310L * MS);
    f = fopen(path, "r");
    assert_non_null(f);
    assert_non_null(fgets(line, sizeof(line), f)); /* the head */
    while (n < 8 && fgets(line, sizeof(line), f) != NULL)
        ops[n++] = atoi(strchr(line, ',') + 1);
    fclose(f);
    unlink(path);
    assert_int_equal(n, 3);
    assert_int_equal(ops[0], 2);
    assert_int_equal(ops[1], 0);
    assert_int_equal(ops[2], 1);
}

static void a_file_that_cannot_be_made_is_an_error(void **state)
{
    struct loadstat_conf conf = {.csv = "/nowhere/at/all"};
    struct loadstat s;

    (void)state;
    assert_true(loadstat_start(&s, &conf, 0) < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_what_completes_in_time_is_measured),
        cmocka_unit_test(windows_without_completions_are_listed),
        cmocka_unit_test(a_file_that_cannot_be_made_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
