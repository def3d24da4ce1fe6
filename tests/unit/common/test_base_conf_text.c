/* SPDX-License-Identifier: Apache-2.0
 *
 * Settings that are kept as text: names, paths, addresses and lists of them; the addresses' form
 * itself; the sample file that a table writes about itself. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include "common/base/addr.h"
#include "common/base/conf.h"
#include "common/base/err.h"
#include "common/base/mem.h"
#include "common/base/units.h"

struct settings {
    char *name, *rack, *dir, *disks, *listen, *portal, *front, *socket, *peers;
    uint64_t memory;
};

#define KEY(k) .section = "s", .key = #k, .offset = offsetof(struct settings, k)

static const struct conf_key keys[] = {
    {KEY(name), .type = CONF_NAME, .otherwise = "n", .min = 1, .max = 8, .help = "who"},
    {KEY(rack), .type = CONF_NAME, .otherwise = "", .max = 8, .help = "above the host"},
    {KEY(dir), .type = CONF_PATH, .otherwise = "/d", .min = 1, .max = 20, .help = "where"},
    {KEY(disks), .type = CONF_PATH_LIST, .otherwise = "", .example = "/dev/sda,/dev/sdb",
     .help = "devices"},
    {KEY(listen), .type = CONF_ADDRESS, .min = 1, .example = "10.0.0.1:7100", .help = "own"},
    {KEY(portal), .type = CONF_ADDRESS, .otherwise = "", .example = "10.0.0.1:3260",
     .help = "portal", .usual = true},
    {KEY(front), .type = CONF_ADDRESS_LISTEN, .otherwise = "", .help = "front"},
    {KEY(socket), .type = CONF_ADDRESS_UNIX, .otherwise = "", .help = "local"},
    {KEY(peers), .type = CONF_ADDRESS_LIST, .otherwise = "10.0.0.1:1", .min = 1,
     .help = "all of them"},
    {KEY(memory), .type = CONF_SIZE, .otherwise = "1G", .min = 64 * MIB, .max = 4 * GIB,
     .help = "how much"},
};

static int parse(const char *text, struct settings *s)
{
    memset(s, 0, sizeof(*s));
    return conf_parse("t.conf", text, strlen(text), keys, ARRAY_SIZE(keys), s);
}

#define LISTEN "[s]\nlisten = 127.0.0.1:7100\n"

static void good_values_are_tidied(void **state)
{
    struct settings s;

    (void)state;
    assert_int_equal(parse(LISTEN
                           "name = \xC3\xA4 b\ndir = //var///lib/\ndisks = /dev/a , /dev//b\n"
                           "portal = [::1]:3260\nfront = 0.0.0.0:2049\nsocket = unix:/run/x\n"
                           "peers = 1.2.3.4:5, [fe80::1]:6 7.8.9.0:65535\n",
                           &s),
                     0);
    assert_string_equal(s.name, "\xC3\xA4 b");
    assert_string_equal(s.rack, "");
    assert_string_equal(s.dir, "/var/lib");
    assert_string_equal(s.disks, "/dev/a,/dev/b");
    assert_string_equal(s.listen, "127.0.0.1:7100");
    assert_string_equal(s.portal, "[::1]:3260");
    assert_string_equal(s.front, "0.0.0.0:2049");
    assert_string_equal(s.socket, "unix:/run/x");
    assert_string_equal(s.peers, "1.2.3.4:5,[fe80::1]:6,7.8.9.0:65535");
    conf_free(keys, ARRAY_SIZE(keys), &s);
    assert_int_equal(parse(LISTEN, &s), 0);
    assert_string_equal(s.portal, "");
    assert_string_equal(s.disks, "");
    conf_free(keys, ARRAY_SIZE(keys), &s);
}

static void wrong_values_are_explained(void **state)
{
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"", "t.conf: [s] listen is required, for example 10.0.0.1:7100 (own)"},
        {"[s]\nlisten =\n",
         "t.conf:2: [s] listen: the value is empty: write for example 10.0.0.1:7100"},
        {"[s]\nlisten = not-an-address\n",
         "t.conf:2: [s] listen: 'not-an-address' has no port: write for example 10.0.0.1:7200 or "
         "[fd00::1]:7200"},
        {"[s]\nlisten = x:y:z\n", "t.conf:2: [s] listen: 'x:y:z': 'z' is not a port (0 to 65535)"},
        {"[s]\nlisten = 1.2.3.4:65536\n",
         "t.conf:2: [s] listen: '1.2.3.4:65536': '65536' is not a port (0 to 65535)"},
        {"[s]\nlisten = zk.example.org:2181\n",
         "t.conf:2: [s] listen: 'zk.example.org:2181' is not numeric: write for example "
         "10.0.0.1:7200 or [fd00::1]:7200"},
        {"[s]\nlisten = ::1:80\n", "t.conf:2: [s] listen: '::1:80' is not numeric: write for "
                                   "example 10.0.0.1:7200 or [fd00::1]:7200"},
        {"[s]\nlisten = 0.0.0.0:80\n",
         "t.conf:2: [s] listen: '0.0.0.0:80' is no address that others can connect to: write the "
         "host's own, for example 10.0.0.1:7100"},
        {"[s]\nlisten = unix:/x\n", "t.conf:2: [s] listen: 'unix:/x' is no network address: write "
                                    "for example 10.0.0.1:7100"},
        {"[s]\nfront = unix:/x\n", "t.conf:2: [s] front: 'unix:/x' is no network address: write "
                                   "for example 10.0.0.1:7200"},
        {"[s]\nname = a/b\n",
         "t.conf:2: [s] name: the name contains '/' (1 to 8 bytes are allowed)"},
        {"[s]\nname =\n", "t.conf:2: [s] name: 0 characters (allowed: 1 to 8)"},
        {"[s]\ndir = var/lib\n",
         "t.conf:2: [s] dir: 'var/lib' is not an absolute path: write for example /var/lib/zbs"},
        {"[s]\ndir = //\n",
         "t.conf:2: [s] dir: '/' cannot be meant: write for example /var/lib/zbs"},
        {"[s]\ndir = /a/../b\n", "t.conf:2: [s] dir: '/a/../b': write the path without . and .."},
        {"[s]\ndisks = /dev/a,dev/b\n", "t.conf:2: [s] disks: 'dev/b' is not an absolute path: "
                                        "write for example /dev/sda,/dev/sdb"},
        {"[s]\ndisks = /dev/a,/dev//a\n", "t.conf:2: [s] disks: '/dev/a' is listed twice"},
        {"[s]\nsocket = no-scheme\n",
         "t.conf:2: [s] socket: 'no-scheme' is no socket's path: write for example "
         "unix:/run/zbs/socket"},
        {"[s]\npeers = ,\n",
         "t.conf:2: [s] peers: the list is empty: write for example 10.0.0.1:7200"},
        {"[s]\npeers = 1.2.3.4:5,1.2.3.4:0\n",
         "t.conf:2: [s] peers: '1.2.3.4:0' has port 0: write for example 10.0.0.1:7200"},
        {"[s]\npeers = 1.2.3.4:5,1.2.3.4:5\n", "t.conf:2: [s] peers: '1.2.3.4:5' is listed twice"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct settings s;

        assert_int_equal(parse(cases[i].text, &s), ERR_INVAL);
        assert_string_equal(err_text(ERR_INVAL), cases[i].message);
        assert_null(s.name);
        assert_null(s.dir);
    }
}

static void addresses_have_one_form(void **state)
{
    static const uint8_t loopback[16] = {[15] = 1};
    struct addr a;

    (void)state;
    assert_int_equal(addr_parse("10.1.2.3:4", &a), 0);
    assert_int_equal(a.kind, ADDR_INET);
    assert_int_equal(a.port, 4);
    assert_memory_equal(a.ip, "\x0a\x01\x02\x03", 4);
    assert_false(addr_is_any(&a));
    assert_int_equal(addr_parse("[::1]:65535", &a), 0);
    assert_int_equal(a.kind, ADDR_INET6);
    assert_memory_equal(a.ip, loopback, 16);
    assert_int_equal(addr_parse("[::]:1", &a), 0);
    assert_true(addr_is_any(&a));
    assert_true(addr_same_host("10.1.2.3:4", "10.1.2.3:5"));
    assert_true(addr_same_host("[fd00::1]:4", "[fd00:0::1]:5"));
    assert_false(addr_same_host("10.1.2.3:4", "10.1.2.4:4"));
    assert_false(addr_same_host("0.0.0.1:4", "[1::]:4"));
    assert_false(addr_same_host("unix:/a", "unix:/a"));
    assert_false(addr_same_host("p", "p"));
    assert_int_equal(addr_parse("unix:/a b", &a), 0);
    assert_int_equal(a.kind, ADDR_UNIX);
    assert_string_equal(a.path, "/a b");
    assert_int_equal(addr_parse("unix:", &a), ERR_INVAL);
    assert_int_equal(addr_parse(":1", &a), ERR_INVAL);
    assert_int_equal(addr_parse("[]:1", &a), ERR_INVAL);
    assert_int_equal(addr_parse("1.2.3.4:-1", &a), ERR_INVAL);
    assert_int_equal(addr_parse("1.2.3.4:+1", &a), ERR_INVAL);
    assert_int_equal(addr_parse("1.2.3.4:", &a), ERR_INVAL);
    assert_int_equal(addr_parse("1.2.3:1", &a), ERR_INVAL);
    assert_int_equal(addr_parse("[1.2.3.4]:1", &a), ERR_INVAL);
    assert_int_equal(addr_parse("", &a), ERR_INVAL);
}

static void a_sample_is_a_configuration(void **state)
{
    char *text = conf_sample("Head of\nthe file.", keys, ARRAY_SIZE(keys));
    struct settings s;

    (void)state;
    assert_non_null(strstr(text, "# Head of\n# the file.\n\n[s]\n"));
    assert_non_null(strstr(text, "\n# own. Required.\nlisten = 10.0.0.1:7100\n"));
    assert_non_null(strstr(text, "\n# portal.\nportal = 10.0.0.1:3260\n"));
    assert_non_null(strstr(text, "\n# devices.\n#disks = /dev/sda,/dev/sdb\n"));
    assert_non_null(strstr(text, "\n# how much (64M to 4G).\n#memory = 1G\n"));
    assert_int_equal(parse(text, &s), 0);
    assert_string_equal(s.listen, "10.0.0.1:7100");
    conf_free(keys, ARRAY_SIZE(keys), &s);
    mem_free(text);
    text = conf_help(keys, ARRAY_SIZE(keys));
    assert_non_null(strstr(text, "  listen (required)\n      own\n"));
    mem_free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_values_are_tidied),
        cmocka_unit_test(wrong_values_are_explained),
        cmocka_unit_test(addresses_have_one_form),
        cmocka_unit_test(a_sample_is_a_configuration),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
