/* SPDX-License-Identifier: Apache-2.0
 *
 * Settings: every type, defaults, and every way in which a text can be wrong. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "common/base/conf.h"
#include "common/base/err.h"
#include "common/base/units.h"

struct settings {
    char *name, *path;
    uint64_t journal_bytes, count;
    uint32_t workers, mode;
    nsec_t timeout;
    bool sync;
};

static const char *const modes[] = {"slow", "fast", NULL};
#define KEY(s, k, f) .section = s, .key = k, .offset = offsetof(struct settings, f)

static const struct conf_key keys[] = {
    {KEY("main", "name", name), .type = CONF_STRING, .min = 1, .max = 8, .help = "who"},
    {KEY("main", "path", path), .type = CONF_STRING, .otherwise = "", .help = "where"},
    {KEY("main", "workers", workers), .type = CONF_U32, .otherwise = "2", .min = 1, .max = 64},
    {KEY("main", "count", count), .type = CONF_U64, .otherwise = "0"},
    {KEY("main", "mode", mode), .type = CONF_CHOICE, .otherwise = "fast", .choices = modes},
    {KEY("io", "journal", journal_bytes), .type = CONF_SIZE, .otherwise = "4G", .min = 256 * MIB,
     .max = 64 * GIB},
    {KEY("io", "timeout", timeout), .type = CONF_SPAN, .otherwise = "100ms", .min = 1000000,
     .max = 60000000000},
    {KEY("io", "sync", sync), .type = CONF_BOOL, .otherwise = "yes"},
};

static int parse(const char *text, struct settings *s)
{
    memset(s, 0, sizeof(*s));
    return conf_parse("t.conf", text, strlen(text), keys, ARRAY_SIZE(keys), s);
}

static void values_and_defaults_arrive(void **state)
{
    struct settings s;

    (void)state;
    assert_int_equal(parse("# comment\n[main]\nname = n1 ; why\ncount=18446744073709551615\n"
                           "\n[io]\njournal: 256M\r\ntimeout = 2s\nsync = off",
                           &s),
                     0);
    assert_string_equal(s.name, "n1");
    assert_string_equal(s.path, "");
    assert_int_equal(s.workers, 2);
    assert_true(s.count == UINT64_MAX);
    assert_int_equal(s.mode, 1);
    assert_int_equal(s.journal_bytes, 256 * MIB);
    assert_int_equal(s.timeout, 2 * NSEC_PER_SEC);
    assert_false(s.sync);
    conf_free(keys, ARRAY_SIZE(keys), &s);
    assert_null(s.name);
    assert_int_equal(parse("[main]\nname=a\n", &s), 0);
    assert_int_equal(s.journal_bytes, 4 * GIB);
    assert_int_equal(s.timeout, 100 * NSEC_PER_MSEC);
    assert_true(s.sync);
    conf_free(keys, ARRAY_SIZE(keys), &s);
}

static void errors_say_where_and_what_is_allowed(void **state)
{
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"", "t.conf: [main] name is required (who)"},
        {"[main]\nname=\n", "t.conf:2: [main] name: 0 characters (allowed: 1 to 8)"},
        {"[main]\nname=123456789\n", "t.conf:2: [main] name: 9 characters (allowed: 1 to 8)"},
        {"[main]\nname=\xff\n", "t.conf:2: [main] name: the value is not valid UTF-8"},
        {"[main]\nname=a\nworkers=0\n",
         "t.conf:3: [main] workers: 0 is out of range (allowed: 1 to 64)"},
        {"[main]\nworkers=-1\n", "t.conf:2: [main] workers: '-1' is not a number"},
        {"[main]\nworkers=4294967297\n", "t.conf:2: [main] workers: '4294967297' is too large"},
        {"[main]\ncount=18446744073709551616\n",
         "t.conf:2: [main] count: '18446744073709551616' is too large"},
        {"[main]\nmode=x\n", "t.conf:2: [main] mode: 'x' is not one of: slow, fast"},
        {"\n\n[io]\njournal=1K\n",
         "t.conf:4: [io] journal: 1K is out of range (allowed: 256M to 64G)"},
        {"[io]\njournal=16777216T\n", "t.conf:2: [io] journal: '16777216T' is too large"},
        {"[io]\njournal=4X\n",
         "t.conf:2: [io] journal: '4X' is not a size (examples: 512, 256K, 4G)"},
        {"[io]\ntimeout=5\n",
         "t.conf:2: [io] timeout: '5' is not a span of time (examples: 100ms, 30s, 5m)"},
        {"[io]\ntimeout=5m\n",
         "t.conf:2: [io] timeout: 5m is out of range (allowed: 1ms to 60000ms)"},
        {"[io]\nsync=maybe\n", "t.conf:2: [io] sync: 'maybe' is neither yes nor no"},
        {"[io]\nsync=yes\nsync=no\n", "t.conf:3: [io] sync was set in line 2 already"},
        {"[io]\nspeed=9\n", "t.conf:2: unknown key [io] speed"},
        {"[oi]\nsync=yes\n", "t.conf:2: unknown section [oi]"},
        {"[main]\nnonsense\n", "t.conf:2: neither [section] nor key = value"},
        {"[main\n", "t.conf:1: neither [section] nor key = value"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct settings s;

        assert_int_equal(parse(cases[i].text, &s), ERR_INVAL);
        assert_string_equal(err_text(ERR_INVAL), cases[i].message);
        assert_null(s.name);
    }
}

static void overlong_lines_and_nul_bytes_are_refused(void **state)
{
    static char text[10000];
    struct settings s = {0};

    (void)state;
    memset(text, 'x', sizeof(text));
    assert_int_equal(conf_parse("t.conf", text, sizeof(text), keys, ARRAY_SIZE(keys), &s),
                     ERR_INVAL);
    assert_non_null(strstr(err_text(ERR_INVAL), "t.conf:1: the line is longer"));
    assert_int_equal(conf_parse("t.conf", "[main]\nna\0me=x\n", 15, keys, ARRAY_SIZE(keys), &s),
                     ERR_INVAL);
    assert_non_null(strstr(err_text(ERR_INVAL), "t.conf:2: the line contains a NUL"));
}

static void sizes_read_back(void **state)
{
    static const uint64_t sizes[] = {0, 1, 512, 1536, KIB, 256 * KIB, 4 * GIB, 5 * TIB, 4097};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        char text[32];
        uint64_t back;

        conf_size_format(sizes[i], text, sizeof(text));
        assert_int_equal(conf_size_parse(text, &back), 0);
        assert_true(back == sizes[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_and_defaults_arrive),
        cmocka_unit_test(errors_say_where_and_what_is_allowed),
        cmocka_unit_test(overlong_lines_and_nul_bytes_are_refused),
        cmocka_unit_test(sizes_read_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
