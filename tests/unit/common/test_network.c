/* SPDX-License-Identifier: Apache-2.0
 *
 * Networks of access lists. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include "common/base/err.h"
#include "common/base/network.h"

static bool contains(const char *network, const char *address)
{
    struct network n;
    struct addr a;

    assert_int_equal(network_parse(network, &n), 0);
    assert_int_equal(addr_parse(address, &a), 0);
    return network_contains(&n, &a);
}

static void test_contains(void **state)
{
    (void)state;
    assert_true(contains("*", "10.0.0.7:813"));
    assert_true(contains("*", "[fd00::1]:813"));
    assert_true(contains("10.0.0.7", "10.0.0.7:1"));
    assert_false(contains("10.0.0.7", "10.0.0.8:1"));
    assert_true(contains("10.0.0.0/24", "10.0.0.255:1"));
    assert_false(contains("10.0.0.0/24", "10.0.1.0:1"));
    assert_true(contains("10.0.0.128/25", "10.0.0.129:1"));
    assert_false(contains("10.0.0.128/25", "10.0.0.127:1"));
    assert_true(contains("0.0.0.0/0", "192.168.1.1:1"));
    assert_false(contains("0.0.0.0/0", "[fd00::1]:1"));
    assert_true(contains("fd00::/8", "[fdff::1]:1"));
    assert_false(contains("fd00::/8", "[fe00::1]:1"));
    assert_true(contains("fd00::7", "[fd00::7]:1"));
    assert_false(contains("fd00::7", "[fd00::8]:1"));
    assert_true(contains("10.0.0.0/8", "[::ffff:10.1.2.3]:1"));
    assert_false(contains("::/0", "[::ffff:10.1.2.3]:1"));
    assert_false(contains("0.0.0.0/0", "unix:/run/x"));
}

static void test_refused(void **state)
{
    static const char *const bad[] = {
        "",           "10.0.0",    "10.0.0.0/33", "10.0.0.0/",   "10.0.0.1/24", "host",
        "fd00::/129", "fd00::1/8", "10.0.0.0/-1", "10.0.0.0/8 ", "**",          "10.0.0.7:80"};
    struct network n;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        if (network_parse(bad[i], &n) != ERR_INVAL)
            fail_msg("'%s' was taken for a network", bad[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_contains),
        cmocka_unit_test(test_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
