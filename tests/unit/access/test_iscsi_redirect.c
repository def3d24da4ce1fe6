/* SPDX-License-Identifier: Apache-2.0
 *
 * Logins that are sent on to another portal, and those that are not; sessions that are asked to
 * move. On the simulator, where the initiator is on the target's host. */
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
static nsec_t return_after;

static bool redirects(void *arg)
{
    (void)arg;
    return switched_on;
}

static nsec_t return_delay(void *arg)
{
    (void)arg;
    return return_after;
}

static void run(void (*body)(struct iscsiworld *w))
{
    struct iscsiworld w = {.body = body,
                           .conf = {.listen_virtual = VIRTUAL,
                                    .redirects = redirects,
                                    .return_delay = return_delay,
                                    .ping_ms = 3600 * 1000}};

    switched_on = true;
    return_after = SEC(30);
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
    const struct iscsi_portal home[] = {{.addr = IW_SECOND_PORTAL},
                                        {.addr = portal_before(w->addr)}};

    login(w->addr, IW_INI, NULL); /* this is its home */
    iscsi_target_portals_update(w->target, home, ARRAY_SIZE(home));
    login(w->addr, IW_INI, home[1].addr);
    login(w->addr, IW_OTHER_INI, home[1].addr);
    /* whoever could not log in there stays */
    login(w->addr, IW_INI, NULL);
    login(w->addr, IW_INI, home[1].addr);
    CHECK(co_sleep(SEC(21)) == 0);
    login(w->addr, IW_OTHER_INI, home[1].addr);
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

/* ---- sessions that are asked to move ---- */

static void stay(struct ini *i, const char *portal, const char *initiator)
{
    ini_connect(i, portal);
    CHECK(ini_login(i, initiator, IW_IQN, IW_NORMAL) == 0);
    ini_clear_attentions(i);
}

/* Is it asked to log out within that time? */
static bool asked(struct ini *i, nsec_t within)
{
    struct ini_pdu p;
    nsec_t former = co_deadline_push(co_now() + within);
    int rc = ini_recv(i, &p);

    co_deadline_restore(former);
    if (rc < 0)
        return false;
    CHECK(p.op == OP_ASYNC && p.bhs[36] == 1);
    CHECK(get_be32(p.bhs + 16) == TAG_NONE && get_be16(p.bhs + 42) == 10);
    ini_pdu_free(&p);
    return true;
}

static void logout(struct ini *i)
{
    uint8_t bhs[BHS_BYTES] = {0x40 | OP_LOGOUT, FLAG_FINAL};
    struct ini_pdu p;

    put_be32(bhs + 16, ++i->itt);
    put_be32(bhs + 24, i->cmdsn);
    CHECK(ini_send(i, bhs, NULL, 0) == 0);
    ini_expect(i, OP_LOGOUT_RESPONSE, &p);
    CHECK(p.bhs[2] == 0);
    ini_pdu_free(&p);
    ini_expect_closed(i);
    ini_close(i);
}

/* A home that the initiators did not have when they logged in. */
static const char *home_appears(struct iscsiworld *w)
{
    const struct iscsi_portal home = {.addr = portal_before(w->addr)};

    iscsi_target_portals_update(w->target, &home, 1);
    return home.addr;
}

static void home_fails(struct iscsiworld *w)
{
    iscsi_target_portals_update(w->target, NULL, 0);
}

static void body_return(struct iscsiworld *w)
{
    struct ini one, two, third;
    const char *home;

    stay(&one, w->addr, IW_INI);
    stay(&two, w->addr, IW_OTHER_INI);
    CHECK(!asked(&one, SEC(100)));
    home_appears(w);
    CHECK(!asked(&one, SEC(25)));
    home_fails(w); /* not for long enough */
    CHECK(!asked(&one, SEC(25)));
    home = home_appears(w);
    CHECK(!asked(&one, SEC(28)));
    CHECK(asked(&one, SEC(4)));
    CHECK(!asked(&two, SEC(1) / 2)); /* not all at once */
    CHECK(asked(&two, SEC(1)));
    logout(&one);
    login(w->addr, IW_INI, home);
    logout(&two);
    login(w->addr, IW_OTHER_INI, home);
    /* who does not get in there is left here for a while */
    stay(&third, w->addr, IW_INI);
    CHECK(!asked(&third, SEC(290)));
    CHECK(asked(&third, SEC(20)));
    ini_close(&third);
}

/* An initiator that comes before the loss of its home was noticed, and is turned away there. */
static void body_early(struct iscsiworld *w)
{
    const char *home = home_appears(w);
    struct ini i;

    login(w->addr, IW_INI, home);
    stay(&i, w->addr, IW_INI);
    CHECK(!asked(&i, SEC(5)));
    home_fails(w);
    CHECK(!asked(&i, SEC(60)));
    home_appears(w);
    CHECK(!asked(&i, SEC(29)));
    CHECK(asked(&i, SEC(4)));
    logout(&i);
    /* a home that fails again and again: not every time */
    login(w->addr, IW_INI, home);
    stay(&i, w->addr, IW_INI);
    CHECK(!asked(&i, SEC(5)));
    home_fails(w);
    CHECK(!asked(&i, SEC(5)));
    home_appears(w);
    CHECK(!asked(&i, SEC(270)));
    CHECK(asked(&i, SEC(30)));
    ini_close(&i);
}

static void a_home_that_was_about_to_fail_counts_once_it_is_back(void **state)
{
    (void)state;
    run(body_early);
}

/* One port may have sessions with several targets. */
static void body_targets(struct iscsiworld *w)
{
    const char *home = home_appears(w);
    struct ini i;

    login(w->addr, IW_INI, home);
    ini_connect(&i, w->addr);
    CHECK(ini_login(&i, IW_INI, IW_IQN_CHAP, IW_NORMAL) == MOVED);
    ini_close(&i);
}

static void targets_are_told_apart(void **state)
{
    (void)state;
    run(body_targets);
}

static void sessions_return_home(void **state)
{
    (void)state;
    run(body_return);
}

static void body_deaf(struct iscsiworld *w)
{
    static uint8_t data[4096] = {1}, in[4096];
    struct ini i;

    stay(&i, w->addr, IW_INI);
    home_appears(w);
    CHECK(asked(&i, SEC(40)));
    ini_clear_attentions(&i);
    for (int n = 0; n < 29; n++) {
        data[1] = (uint8_t)n;
        CHECK(ini_write(&i, 8, data, sizeof(data)).status == 0);
        CHECK(ini_read(&i, 8, in, sizeof(in)).status == 0 && memcmp(in, data, sizeof(in)) == 0);
        CHECK(!asked(&i, SEC(10)));
    }
    CHECK(asked(&i, SEC(20))); /* it may hear this time */
    ini_close(&i);
}

static void who_does_not_listen_is_left_alone(void **state)
{
    (void)state;
    run(body_deaf);
}

static void body_not_asked(struct iscsiworld *w)
{
    struct ini follows, fixed;

    stay(&follows, w->addr, IW_INI);
    switched_on = false;
    stay(&fixed, w->addr, IW_OTHER_INI); /* of an initiator that chose its portals */
    home_appears(w);
    CHECK(!asked(&follows, SEC(100)));
    switched_on = true;
    return_after = 0;
    CHECK(!asked(&follows, SEC(100)));
    return_after = SEC(30);
    CHECK(asked(&follows, SEC(40)));
    CHECK(!asked(&fixed, SEC(100)));
    ini_close(&follows);
    ini_close(&fixed);
}

static void only_sessions_that_were_sent_on_are_asked(void **state)
{
    (void)state;
    run(body_not_asked);
}

/* Its host goes into maintenance, and comes out of it. */
static void body_leaving(struct iscsiworld *w)
{
    const struct iscsi_portal leaving[] = {{w->addr, true}, {IW_SECOND_PORTAL, false}},
                              all[] = {{w->addr, true}, {IW_SECOND_PORTAL, true}};
    struct ini i;

    stay(&i, w->addr, IW_INI);
    iscsi_target_portals_update(w->target, all, 2); /* there is nowhere to go */
    CHECK(!asked(&i, SEC(10)));
    login(w->addr, IW_OTHER_INI, NULL);
    iscsi_target_portals_update(w->target, leaving, 2);
    CHECK(asked(&i, SEC(2)));
    logout(&i);
    login(w->addr, IW_INI, IW_SECOND_PORTAL);
    login(VIRTUAL, IW_OTHER_INI, IW_SECOND_PORTAL);
    iscsi_target_portals_update(w->target, NULL, 0);
    login(w->addr, "iqn.2024-01.example:third", NULL);
}

static void who_is_at_a_server_that_leaves_is_asked(void **state)
{
    (void)state;
    run(body_leaving);
}

/* Every connection of a session is asked: each has to be logged out. */
static void body_connections(struct iscsiworld *w)
{
    struct ini a, b;

    ini_connect(&a, w->addr);
    CHECK(ini_login(&a, IW_INI, IW_IQN, IW_NORMAL "MaxConnections=2\n") == 0);
    ini_clear_attentions(&a);
    ini_connect(&b, w->addr);
    b.tsih = a.tsih;
    b.cid = 1;
    b.cmdsn = a.cmdsn;
    CHECK(ini_login(&b, IW_INI, IW_IQN, "MaxRecvDataSegmentLength=65536\n") == 0);
    home_appears(w);
    CHECK(asked(&a, SEC(40)));
    CHECK(asked(&b, SEC(1)));
    logout(&a); /* of the session */
    ini_expect_closed(&b);
    ini_close(&b);
}

static void every_connection_is_asked(void **state)
{
    (void)state;
    run(body_connections);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(initiators_are_sent_home),
        cmocka_unit_test(nobody_stays_at_the_virtual_portal),
        cmocka_unit_test(discovery_leads_to_the_virtual_portal),
        cmocka_unit_test(only_who_may_log_in_is_sent_on),
        cmocka_unit_test(sessions_return_home),
        cmocka_unit_test(a_home_that_was_about_to_fail_counts_once_it_is_back),
        cmocka_unit_test(targets_are_told_apart),
        cmocka_unit_test(who_does_not_listen_is_left_alone),
        cmocka_unit_test(only_sessions_that_were_sent_on_are_asked),
        cmocka_unit_test(every_connection_is_asked),
        cmocka_unit_test(who_is_at_a_server_that_leaves_is_asked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
