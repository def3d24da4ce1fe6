/* SPDX-License-Identifier: Apache-2.0
 *
 * Settings of the cluster: their texts, what is refused, what a state has of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "common/base/err.h"
#include "common/base/units.h"
#include "meta/apply.h"
#include "meta/settings.h"

static void table_is_sound(void **state)
{
    (void)state;
    for (int s = 0; s < SETTINGS; s++) {
        const struct setting_def *d = &setting_defs[s];
        uint64_t values[] = {d->def, d->min, d->max}, back;
        char text[32];

        assert_int_equal(setting_find(d->name), s);
        assert_true(s == 0 || strcmp(setting_defs[s - 1].name, d->name) < 0);
        for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
            assert_int_equal(setting_check(d, values[i]), 0);
            setting_format(d, values[i], text);
            assert_int_equal(setting_parse(d, text, &back), 0);
            assert_int_equal(back, values[i]);
        }
    }
    assert_int_equal(setting_find("none.such"), -1);
}

static uint64_t parsed(enum setting s, const char *text)
{
    uint64_t v;

    return setting_parse(&setting_defs[s], text, &v) < 0 ? UINT64_MAX : v;
}

static void texts_are_read(void **state)
{
    (void)state;
    assert_int_equal(parsed(SETTING_RECOVERY_GRACE, "90"), 90);
    assert_int_equal(parsed(SETTING_RECOVERY_GRACE, "5s"), 5);
    assert_int_equal(parsed(SETTING_RECOVERY_GRACE, "2h"), 7200);
    assert_int_equal(parsed(SETTING_RECOVERY_GRACE, "default"), 600);
    assert_int_equal(parsed(SETTING_RECOVERY_RATE, "64M"), 64 * MIB);
    assert_int_equal(parsed(SETTING_RECOVERY_RATE, "1 GiB/s"), GIB);
    assert_int_equal(parsed(SETTING_BALANCE_THRESHOLD, "25%"), 25);
    assert_int_equal(parsed(SETTING_RECOVERY_EXTENTS, "3"), 3);
    assert_int_equal(parsed(SETTING_RECOVERY_EXTENTS, "3s"), UINT64_MAX);
    assert_int_equal(parsed(SETTING_RECOVERY_EXTENTS, "0"), UINT64_MAX);
    assert_int_equal(parsed(SETTING_RECOVERY_RATE, "64Q"), UINT64_MAX);
    assert_int_equal(parsed(SETTING_RECOVERY_RATE, ""), UINT64_MAX);
    assert_int_equal(parsed(SETTING_RECOVERY_RATE, "99999999999999999999999T"), UINT64_MAX);
    assert_int_equal(parsed(SETTING_RECOVERY_GRACE, "-1"), UINT64_MAX);
}

static int set(struct state *st, const char *name, uint64_t value, bool *ret_logged)
{
    Zbs__Meta__SettingSetRequest rq = ZBS__META__SETTING_SET_REQUEST__INIT;
    Zbs__Metalog__Record *r = NULL;
    struct world w = {0};
    struct pad pad;
    struct decide d = {.st = st, .w = &w, .rq = &rq.base, .pad = &pad};
    struct packed reply;
    int rc;

    pad_init(&pad);
    rq.name = (char *)name;
    rq.value = value;
    rc = decide_setting_set(&d, &r);
    *ret_logged = r != NULL;
    if (r != NULL)
        assert_int_equal(apply_record(st, r, NULL, &pad, &reply), 0);
    pad_fini(&pad);
    return rc;
}

static void changes_are_logged_once(void **state)
{
    struct state st;
    bool logged;

    (void)state;
    state_init(&st);
    assert_int_equal(state_setting(&st, SETTING_RECOVERY_GRACE), 600);
    assert_int_equal(set(&st, "recovery.grace", 600, &logged), 0);
    assert_false(logged); /* that it is already */
    assert_int_equal(set(&st, "recovery.grace", 5, &logged), 0);
    assert_true(logged);
    assert_int_equal(state_setting(&st, SETTING_RECOVERY_GRACE), 5);
    assert_int_equal(st.settings_version, st.next_mutation - 1);
    assert_int_equal(set(&st, "recovery.grace", 0, &logged), ERR_INVAL);
    assert_int_equal(set(&st, "recovery.groce", 5, &logged), ERR_NOTFOUND);
    assert_int_equal(state_setting(&st, SETTING_RECOVERY_GRACE), 5);
    state_fini(&st);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table_is_sound),
        cmocka_unit_test(texts_are_read),
        cmocka_unit_test(changes_are_logged_once),
    };

    return cmocka_run_group_tests_name("settings", tests, NULL, NULL);
}
