/* SPDX-License-Identifier: Apache-2.0
 *
 * Login, authentication, discovery, sessions and exports, on the simulator. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "access/iscsi/chap.h"
#include "common/base/assert.h"
#include "common/base/log.h"
#include "tests/lib/iscsiworld.h"

#define CHECK(x) ASSERTF(x, "seen here")

static void run(void (*body)(struct iscsiworld *w))
{
    struct iscsiworld w = {.body = body};

    iscsiworld_run(&w);
}

static void body_normal(struct iscsiworld *w)
{
    struct ini i;
    uint8_t data[4096];

    ini_connect(&i, w->addr);
    CHECK(ini_login(&i, IW_INI, IW_IQN, IW_NORMAL) == 0);
    CHECK(strcmp(ini_text_value(&i, "InitialR2T"), "No") == 0);
    CHECK(strcmp(ini_text_value(&i, "MaxBurstLength"), "262144") == 0);
    CHECK(ini_text_value(&i, "TargetPortalGroupTag") != NULL);
    CHECK(ini_clear_attentions(&i) == 1); /* power on */
    CHECK(ini_read(&i, 0, data, 4096).status == 0);
    ini_close(&i);
}

static void a_normal_session_works(void **state)
{
    (void)state;
    run(body_normal);
}

/* Each wrong login gets its status, then the connection ends. */
static void body_refusals(struct iscsiworld *w)
{
    static const struct {
        const char *initiator, *target, *keys;
        uint16_t status;
    } table[] = {
        {IW_INI, "iqn.none", "", 0x0203},
        {"iqn.stranger", IW_IQN_CHAP, "", 0x0202},
        {IW_INI, IW_IQN_CHAP, "", 0x0201},
        {IW_INI, IW_IQN, "InitialR2T=Perhaps\n", 0x0200},
        {IW_INI, IW_IQN, "InitialR2T=No\nInitialR2T=No\n", 0x0200},
        {"", IW_IQN, "", 0x0200},
        {IW_INI, IW_IQN, "nonsense\n", 0x0200},
    };
    struct ini i;

    for (size_t k = 0; k < ARRAY_SIZE(table); k++) {
        ini_connect(&i, w->addr);
        CHECK(ini_login(&i, table[k].initiator, table[k].target, table[k].keys) == table[k].status);
        ini_expect_closed(&i);
        ini_close(&i);
    }
    ini_connect(&i, w->addr);
    CHECK(ini_login_step(&i, 0x87, "TargetName=" IW_IQN "\n", NULL) == 0x0207);
    ini_close(&i);
    ini_connect(&i, w->addr);
    CHECK(ini_login_step(&i, 0x87, "InitiatorName=a\nSessionType=Odd\n", NULL) == 0x0209);
    ini_close(&i);
    ini_connect(&i, w->addr); /* next stage before the present one */
    CHECK(ini_login_step(&i, 0x84, "InitiatorName=a\nTargetName=" IW_IQN "\n", NULL) == 0x0200);
    ini_close(&i);
    /* something else than a login */
    uint8_t bhs[BHS_BYTES] = {0x40 | OP_NOP_OUT, 0x80};
    ini_connect(&i, w->addr);
    CHECK(ini_send(&i, bhs, NULL, 0) == 0);
    ini_expect_closed(&i);
    ini_close(&i);
}

static void bad_logins_are_refused(void **state)
{
    (void)state;
    run(body_refusals);
}

/* A CHAP login with the given algorithms, name and secret; the final status. */
static uint16_t chap_login(struct ini *i, const char *addr, const char *algorithms,
                           const char *name, const char *secret)
{
    uint8_t challenge[64], digest[CHAP_DIGEST_BYTES], flags;
    char text[512], hex[2 * CHAP_DIGEST_BYTES + 1];
    unsigned id, algorithm;
    uint16_t status;

    ini_connect(i, addr);
    status = ini_login_step(
        i, 0x81, "InitiatorName=" IW_INI "\nTargetName=" IW_IQN_CHAP "\nAuthMethod=CHAP,None\n",
        &flags);
    CHECK(status == 0 && !(flags & 0x80)); /* no transit before the proof */
    CHECK(strcmp(ini_text_value(i, "AuthMethod"), "CHAP") == 0);
    snprintf(text, sizeof(text), "CHAP_A=%s\n", algorithms);
    status = ini_login_step(i, 0x00, text, &flags);
    if (status != 0)
        return status;
    CHECK(sscanf(ini_text_value(i, "CHAP_A"), "%u", &algorithm) == 1);
    CHECK(sscanf(ini_text_value(i, "CHAP_I"), "%u", &id) == 1);
    int n = chap_decode(ini_text_value(i, "CHAP_C"), challenge, sizeof(challenge));
    CHECK(n == (int)CHAP_CHALLENGE_BYTES);
    size_t len =
        chap_response((uint8_t)algorithm, (uint8_t)id, secret, challenge, (size_t)n, digest);
    CHECK(len > 0);
    for (size_t k = 0; k < len; k++)
        snprintf(hex + 2 * k, 3, "%02x", digest[k]);
    snprintf(text, sizeof(text), "CHAP_N=%s\nCHAP_R=0x%s\n", name, hex);
    status = ini_login_step(i, 0x81, text, &flags);
    if (status != 0)
        return status;
    CHECK(flags == 0x81);
    return ini_login_step(i, 0x87, IW_NORMAL, &flags);
}

static void body_chap(struct iscsiworld *w)
{
    static const char *const algorithms[] = {"5", "6", "7", "8,5", "5,6,7"};
    struct ini i;
    uint8_t data[512];

    for (size_t k = 0; k < ARRAY_SIZE(algorithms); k++) {
        CHECK(chap_login(&i, w->addr, algorithms[k], "alice", "secretsecret12") == 0);
        ini_clear_attentions(&i);
        CHECK(ini_read(&i, 0, data, 512).status == 0);
        ini_close(&i);
    }
    CHECK(chap_login(&i, w->addr, "5", "alice", "secretsecret13") == 0x0201);
    ini_expect_closed(&i);
    ini_close(&i);
    CHECK(chap_login(&i, w->addr, "5", "bob", "secretsecret12") == 0x0201);
    ini_close(&i);
    CHECK(chap_login(&i, w->addr, "8", "alice", "secretsecret12") == 0x0201);
    ini_close(&i);
    /* a challenge does not serve for a second try on another connection, nor keys out of order */
    ini_connect(&i, w->addr);
    CHECK(ini_login_step(&i, 0x00,
                         "InitiatorName=" IW_INI "\nTargetName=" IW_IQN_CHAP
                         "\nAuthMethod=CHAP\nCHAP_N=alice\nCHAP_R=0x00\n",
                         NULL) != 0 ||
          ini_login_step(&i, 0x87, "", NULL) != 0);
    ini_close(&i);
}

static void chap_opens_what_it_should(void **state)
{
    (void)state;
    run(body_chap);
}

/* ---- discovery ---- */

static unsigned count_key(const struct ini *i, const char *key)
{
    unsigned n = 0;

    for (uint32_t at = 0; at < i->text_len; at += (uint32_t)strlen(i->text + at) + 1)
        n += strncmp(i->text + at, key, strlen(key)) == 0;
    return n;
}

static void body_discovery(struct iscsiworld *w)
{
    static const char *const segment[] = {"", "MaxRecvDataSegmentLength=512\n"};
    struct ini i;
    uint8_t bhs[BHS_BYTES];

    for (int k = 0; k < 2; k++) {
        ini_connect(&i, w->addr);
        CHECK(ini_login(&i, IW_INI, NULL, segment[k]) == 0);
        ini_text(&i, "SendTargets=All");
        CHECK(count_key(&i, "TargetName=") == 2);
        CHECK(count_key(&i, "TargetAddress=") == 4);
        CHECK(count_key(&i, "TargetAddress=127.1.0.2:3260,") == 2);
        ini_text(&i, "SendTargets=" IW_IQN);
        CHECK(count_key(&i, "TargetName=") == 1);
        ini_text(&i, "SendTargets=iqn.none");
        CHECK(i.text_len == 0);
        ini_text(&i, "Odd=1");
        CHECK(strcmp(ini_text_value(&i, "Odd"), "NotUnderstood") == 0);
        ini_close(&i);
    }
    ini_connect(&i, w->addr); /* not for strangers */
    CHECK(ini_login(&i, "iqn.stranger", NULL, "") == 0);
    ini_text(&i, "SendTargets=All");
    CHECK(count_key(&i, "TargetName=") == 1);
    /* no SCSI here */
    ini_cmd_bhs(&i, bhs, FLAG_FINAL, (const uint8_t[6]){0}, 6, 0);
    CHECK(ini_send(&i, bhs, NULL, 0) == 0);
    ini_expect_closed(&i);
    ini_close(&i);
}

static void discovery_lists_targets_and_portals(void **state)
{
    (void)state;
    run(body_discovery);
}

/* ---- sessions ---- */

static void body_reinstatement(struct iscsiworld *w)
{
    struct ini a, b;
    uint8_t data[512];

    ini_connect(&a, w->addr);
    CHECK(ini_login(&a, IW_INI, IW_IQN, IW_NORMAL) == 0);
    ini_clear_attentions(&a);
    ini_connect(&b, w->addr); /* the same port again: the first session ends */
    CHECK(ini_login(&b, IW_INI, IW_IQN, IW_NORMAL) == 0);
    ini_expect_closed(&a);
    ini_clear_attentions(&b);
    CHECK(ini_read(&b, 0, data, 512).status == 0);
    ini_close(&a);
    ini_connect(&a, w->addr); /* another initiator does not disturb */
    CHECK(ini_login(&a, "iqn.other", IW_IQN, IW_NORMAL) == 0);
    ini_clear_attentions(&a);
    CHECK(ini_read(&b, 0, data, 512).status == 0);
    ini_close(&a);
    ini_close(&b);
}

static void a_new_login_replaces_the_session(void **state)
{
    (void)state;
    run(body_reinstatement);
}

/* A write of the former session that is under way ends before the new session begins. */
static void body_reinstatement_waits(struct iscsiworld *w)
{
    struct ini a, b;
    uint8_t data[512] = {1}, bhs[BHS_BYTES];
    const uint8_t cdb[10] = {0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0};
    struct co_event go;
    nsec_t before;

    co_event_init(&go);
    ini_connect(&a, w->addr);
    CHECK(ini_login(&a, IW_INI, IW_IQN, IW_NORMAL) == 0);
    ini_clear_attentions(&a);
    block_backend_mem_hold(w->backends[1], &go, 0, 1);
    ini_cmd_bhs(&a, bhs, FLAG_FINAL | FLAG_WRITE, cdb, 10, 512);
    CHECK(ini_send(&a, bhs, data, 512) == 0);
    CHECK(co_sleep(10 * NSEC_PER_MSEC) == 0);
    ini_connect(&b, w->addr);
    before = co_now();
    /* the login is answered only after the write ended */
    struct ini c = b;
    (void)c;
    CHECK(ini_login(&b, IW_INI, IW_IQN, IW_NORMAL) == 0x0301); /* gives up at its deadline */
    CHECK(co_now() - before > 10 * NSEC_PER_SEC);
    ini_close(&b);
    co_event_set(&go, 0);
    ini_connect(&b, w->addr);
    CHECK(ini_login(&b, IW_INI, IW_IQN, IW_NORMAL) == 0);
    ini_close(&a);
    ini_close(&b);
}

static void old_writes_end_before_a_new_session(void **state)
{
    (void)state;
    run(body_reinstatement_waits);
}

static void body_timeouts(struct iscsiworld *w)
{
    struct ini i;
    struct ini_pdu p;
    nsec_t before = co_now();

    ini_connect(&i, w->addr); /* no login */
    ini_expect_closed(&i);
    CHECK(co_now() - before >= 15 * NSEC_PER_SEC && co_now() - before < 16 * NSEC_PER_SEC);
    ini_close(&i);
    /* an idle session is asked whether it lives, and ends if it does not answer */
    ini_connect(&i, w->addr);
    CHECK(ini_login(&i, IW_INI, IW_IQN, IW_NORMAL) == 0);
    for (int k = 0; k < 3; k++) {
        uint8_t bhs[BHS_BYTES] = {0x40 | OP_NOP_OUT, FLAG_FINAL};

        ini_expect(&i, OP_NOP_IN, &p);
        CHECK(get_be32(p.bhs + 16) == TAG_NONE);
        put_be32(bhs + 16, TAG_NONE);
        memcpy(bhs + 20, p.bhs + 20, 4);
        put_be32(bhs + 24, i.cmdsn);
        CHECK(ini_send(&i, bhs, NULL, 0) == 0);
    }
    before = co_now();
    ini_expect(&i, OP_NOP_IN, &p);
    ini_expect_closed(&i);
    CHECK(co_now() - before >= 60 * NSEC_PER_SEC);
    ini_close(&i);
}

static void silent_connections_end(void **state)
{
    (void)state;
    run(body_timeouts);
}

static void body_too_many(struct iscsiworld *w)
{
    struct ini a, b, c;

    ini_connect(&a, w->addr);
    CHECK(ini_login(&a, IW_INI, IW_IQN, IW_NORMAL) == 0);
    ini_connect(&b, w->addr);
    CHECK(ini_login(&b, "iqn.b", IW_IQN, IW_NORMAL) == 0);
    ini_connect(&c, w->addr);
    ini_expect_closed(&c);
    ini_close(&c);
    ini_connect(&c, w->addr); /* comes before the end of another one is noticed */
    ini_close(&b);
    CHECK(ini_login(&c, "iqn.c", IW_IQN, IW_NORMAL) == 0);
    ini_close(&a);
    ini_close(&c);
}

static void connections_are_limited(void **state)
{
    struct iscsiworld w = {.body = body_too_many, .conf = {.connections = 2}};

    (void)state;
    iscsiworld_run(&w);
}

/* ---- exports ---- */

static void body_exports(struct iscsiworld *w)
{
    const uint8_t tur[6] = {0}, luns[12] = {0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0};
    struct ini_result r;
    uint8_t in[256];
    struct ini i;

    ini_connect(&i, w->addr);
    CHECK(ini_login(&i, IW_INI, IW_IQN, IW_NORMAL) == 0);
    ini_clear_attentions(&i);
    r = ini_cmd(&i, luns, 12, NULL, 0, in, sizeof(in));
    CHECK(r.status == 0 && get_be32(in) == 16);
    iscsiworld_export(w, true);
    r = ini_cmd(&i, tur, 6, NULL, 0, NULL, 0);
    CHECK(r.key == 6 && r.asc == 0x3f && r.ascq == 0x0e);
    r = ini_cmd(&i, luns, 12, NULL, 0, in, sizeof(in));
    CHECK(r.status == 0 && get_be32(in) == 8);
    /* a unit that comes back is not ready until its volume opens */
    w->opens_to_fail = 3;
    iscsiworld_export(w, false);
    r = ini_cmd(&i, luns, 12, NULL, 0, in, sizeof(in));
    CHECK(r.status == 0 && get_be32(in) == 16);
    CHECK(co_sleep(5 * NSEC_PER_SEC) == 0);
    CHECK(w->opens_to_fail == 0);
    /* capacity */
    block_backend_mem_resize(w->backends[1], 2 * IW_SIZE);
    iscsi_target_volume_changed(w->target, 1);
    r = ini_cmd(&i, tur, 6, NULL, 0, NULL, 0);
    CHECK(r.key == 6 && r.asc == 0x2a && r.ascq == 0x09);
    /* the target goes, and its sessions with it */
    iscsiworld_export_nothing(w);
    ini_expect_closed(&i);
    ini_close(&i);
    ini_connect(&i, w->addr);
    CHECK(ini_login(&i, IW_INI, IW_IQN, IW_NORMAL) == 0x0203);
    ini_close(&i);
}

static void exports_come_and_go(void **state)
{
    (void)state;
    run(body_exports);
}

static int stop_main(void *arg)
{
    iscsi_target_stop(arg);
    return 0;
}

/* At a stop initiators are asked to log out. */
static void body_stop(struct iscsiworld *w)
{
    uint8_t bhs[BHS_BYTES] = {0x40 | OP_LOGOUT, FLAG_FINAL};
    struct ini polite, deaf;
    struct co_group g;
    struct ini_pdu p;

    ini_connect(&polite, w->addr);
    CHECK(ini_login(&polite, IW_INI, IW_IQN, IW_NORMAL) == 0);
    ini_connect(&deaf, w->addr);
    CHECK(ini_login(&deaf, "iqn.deaf", IW_IQN, IW_NORMAL) == 0);
    co_group_init(&g);
    co_spawn(&g, "stop", stop_main, w->target);
    w->target = NULL;
    ini_expect(&polite, OP_ASYNC, &p);
    CHECK(p.bhs[36] == 1);
    put_be32(bhs + 16, 77);
    put_be32(bhs + 24, polite.cmdsn);
    CHECK(ini_send(&polite, bhs, NULL, 0) == 0);
    ini_expect(&polite, OP_LOGOUT_RESPONSE, &p);
    CHECK(p.bhs[2] == 0);
    ini_expect_closed(&polite);
    ini_expect_closed(&deaf);
    co_group_join(&g);
    ini_close(&polite);
    ini_close(&deaf);
}

static void a_stop_asks_for_logout(void **state)
{
    (void)state;
    run(body_stop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_normal_session_works),
        cmocka_unit_test(bad_logins_are_refused),
        cmocka_unit_test(chap_opens_what_it_should),
        cmocka_unit_test(discovery_lists_targets_and_portals),
        cmocka_unit_test(a_new_login_replaces_the_session),
        cmocka_unit_test(old_writes_end_before_a_new_session),
        cmocka_unit_test(silent_connections_end),
        cmocka_unit_test(connections_are_limited),
        cmocka_unit_test(exports_come_and_go),
        cmocka_unit_test(a_stop_asks_for_logout),
    };

    log_threshold = getenv("ZBS_TEST_LOG") ? LOG_LV_DEBUG : LOG_LV_ERROR;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
