/* SPDX-License-Identifier: Apache-2.0
 *
 * Logins that are sent on to another portal, and those that are not. On the simulator, where the
 * initiator is on the target's host. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "access/iscsi/iscsi_int.h"
#include "tests/lib/frontworld.h"
#include "tests/lib/iscsiworld.h"

#define CHECK(x)     ASSERTF(x, "seen here")
#define SEC(n)       ((n)*NSEC_PER_SEC)
#define VIRTUAL      FRONT_HOST ":3261"
#define MOVED        0x0101
#define IW_OTHER_INI "iqn.2024-01.example:other"

static bool switched_on;

static bool redirects(void *arg)
{
    (void)arg;
    return switched_on;
}

static void run(void (*body)(struct iscsiworld *w))
{
    struct iscsiworld w = {.body = body,
                           .conf = {.listen_virtual = VIRTUAL, .redirects = redirects}};

    switched_on = true;
    iscsiworld_run(&w);
}

/* Status of a login; where it was sent is checked, to NULL: nowhere. */
static void login(const char *portal, const char *initiator, const char *to)
{
    struct ini i;
    uint16_t status;

    ini_connect(&i, portal);
    status = ini_login(&i, initiator, IW_IQN, IW_NORMAL);
    if (to == NULL) {
        CHECK(status == 0);
    } else {
        CHECK(status == MOVED);
        CHECK(strcmp(ini_text_value(&i, "TargetAddress"), to) == 0);
    }
    ini_close(&i);
}

/* A portal on this host that comes before the target's own. */
static const char *portal_before(const char *own)
{
    static char addr[32];

    for (unsigned port = 4000;; port++) {
        snprintf(addr, sizeof(addr), FRONT_HOST ":%u", port);
        if (iscsi_portal_tag(addr) < iscsi_portal_tag(own))
            return addr;
    }
}

static void body_home(struct iscsiworld *w)
{
    const char *home[] = {IW_SECOND_PORTAL, portal_before(w->addr)};

    login(w->addr, IW_INI, NULL); /* this is its home */
    iscsi_target_portals_update(w->target, home, ARRAY_SIZE(home));
    login(w->addr, IW_INI, home[1]);
    login(w->addr, IW_OTHER_INI, home[1]);
    /* whoever could not log in there stays */
    login(w->addr, IW_INI, NULL);
    login(w->addr, IW_INI, home[1]);
    CHECK(co_sleep(SEC(11)) == 0);
    login(w->addr, IW_OTHER_INI, home[1]);
    /* the access server there failed */
    iscsi_target_portals_update(w->target, home, 1);
    login(w->addr, "iqn.2024-01.example:third", NULL);
}

static void initiators_are_sent_home(void **state)
{
    (void)state;
    run(body_home);
}

static void body_virtual(struct iscsiworld *w)
{
    login(VIRTUAL, IW_INI, w->addr); /* here, but at an address that stays */
    login(w->addr, IW_INI, NULL);
    switched_on = false;
    login(VIRTUAL, IW_OTHER_INI, NULL);
}

static void nobody_stays_at_the_virtual_portal(void **state)
{
    (void)state;
    run(body_virtual);
}

static void discover(const char *portal, struct ini *i)
{
    ini_connect(i, portal);
    CHECK(ini_login(i, IW_INI, NULL, "") == 0);
    ini_text(i, "SendTargets=All");
    ini_close(i);
}

static void body_discovery(struct iscsiworld *w)
{
    struct ini i;

    discover(VIRTUAL, &i); /* itself never sent on, and shown what leads back here */
    CHECK(strncmp(ini_text_value(&i, "TargetAddress"), VIRTUAL ",", strlen(VIRTUAL) + 1) == 0);
    discover(w->addr, &i);
    CHECK(strncmp(ini_text_value(&i, "TargetAddress"), w->addr, strlen(w->addr)) == 0);
    switched_on = false;
    discover(VIRTUAL, &i);
    CHECK(strncmp(ini_text_value(&i, "TargetAddress"), w->addr, strlen(w->addr)) == 0);
}

static void discovery_leads_to_the_virtual_portal(void **state)
{
    (void)state;
    run(body_discovery);
}

static void body_refused(struct iscsiworld *w)
{
    struct ini i;

    (void)w;
    ini_connect(&i, VIRTUAL);
    CHECK(ini_login(&i, IW_OTHER_INI, IW_IQN_CHAP, IW_NORMAL) == 0x0202);
    ini_close(&i);
    ini_connect(&i, VIRTUAL);
    CHECK(ini_login(&i, IW_INI, "iqn.none", IW_NORMAL) == 0x0203);
    ini_close(&i);
}

static void only_who_may_log_in_is_sent_on(void **state)
{
    (void)state;
    run(body_refused);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(initiators_are_sent_home),
        cmocka_unit_test(nobody_stays_at_the_virtual_portal),
        cmocka_unit_test(discovery_leads_to_the_virtual_portal),
        cmocka_unit_test(only_who_may_log_in_is_sent_on),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
