/* SPDX-License-Identifier: Apache-2.0
 *
 * What an initiator meets when paths, exports and sessions change under it: exports that have just
 * been made, writes without a certain outcome, sessions that die with writes under way, and
 * connections whose commands may be stale. On the simulator. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "common/base/assert.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "tests/lib/iscsiworld.h"

#define CHECK(x) ASSERTF(x, "seen here")
#define MSEC(n)  ((n)*NSEC_PER_MSEC)

/* Meta, as far as the target sees it. */
struct fake_meta {
    nsec_t takes;
    int rc;
    bool exported, without_second_lun;
    uint32_t calls, at_once;
};

static co_fn int refresh(void *arg)
{
    struct iscsiworld *w = arg;
    struct fake_meta *m = w->arg;
    bool exported = m->exported, without = m->without_second_lun; /* as of the call's begin */
    int rc;

    CHECK(++m->at_once == 1);
    m->calls++;
    rc = co_sleep(m->takes);
    m->at_once--;
    if (rc < 0 || m->rc < 0)
        return rc < 0 ? rc : err_set(m->rc, "no leader");
    if (exported)
        iscsiworld_export(w, without);
    else
        iscsiworld_export_nothing(w);
    return 0;
}

static void run(void (*body)(struct iscsiworld *w), struct fake_meta *m)
{
    struct iscsiworld w = {.body = body, .arg = m};

    if (m != NULL)
        w.conf.refresh = refresh;
    iscsiworld_run(&w);
}

static void login(struct ini *i, struct iscsiworld *w)
{
    ini_connect(i, w->addr);
    CHECK(ini_login(i, IW_INI, IW_IQN, IW_NORMAL) == 0);
    ini_clear_attentions(i);
}

/* ---- exports that the table does not show yet ---- */

static void body_new_target(struct iscsiworld *w)
{
    struct fake_meta *m = w->arg;
    uint8_t data[512] = {1};
    nsec_t before = co_now();
    struct ini i;

    iscsiworld_export_nothing(w);
    ini_connect(&i, w->addr);
    CHECK(ini_login(&i, IW_INI, IW_IQN, IW_NORMAL) == 0x0203);
    ini_close(&i);
    m->exported = true;
    w->open_takes = MSEC(300); /* commands wait for it */
    ini_connect(&i, w->addr);
    CHECK(ini_login(&i, IW_INI, IW_IQN, IW_NORMAL) == 0);
    CHECK(m->calls == 2);
    CHECK(ini_clear_attentions(&i) == 1); /* power on, and not "becoming ready" */
    CHECK(ini_write(&i, 0, data, 512).status == 0);
    CHECK(co_now() - before < MSEC(600));
    ini_close(&i);
    /* not for those who may not */
    ini_connect(&i, w->addr);
    CHECK(ini_login(&i, "iqn.stranger", IW_IQN_CHAP, IW_NORMAL) == 0x0202);
    ini_close(&i);
}

static void an_export_can_be_used_at_once(void **state)
{
    struct fake_meta m = {.takes = MSEC(2)};

    (void)state;
    run(body_new_target, &m);
}

static void body_discovery(struct iscsiworld *w)
{
    struct fake_meta *m = w->arg;
    struct ini i;

    iscsiworld_export_nothing(w);
    ini_connect(&i, w->addr);
    CHECK(ini_login(&i, IW_INI, NULL, "") == 0);
    ini_text(&i, "SendTargets=All");
    CHECK(ini_text_value(&i, "TargetName") == NULL);
    m->exported = true;
    ini_text(&i, "SendTargets=All");
    CHECK(ini_text_value(&i, "TargetName") != NULL);
    /* meta gone: what is known is told */
    m->takes = 60 * NSEC_PER_SEC;
    ini_text(&i, "SendTargets=All");
    CHECK(ini_text_value(&i, "TargetName") != NULL);
    ini_close(&i);
}

static void discovery_shows_what_was_just_exported(void **state)
{
    struct fake_meta m = {.takes = MSEC(2)};

    (void)state;
    run(body_discovery, &m);
}

static void body_new_lun(struct iscsiworld *w)
{
    const uint8_t luns[12] = {0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0};
    static uint8_t out[65536], in[65536];
    struct fake_meta *m = w->arg;
    struct ini_result r;
    struct ini i;

    m->exported = m->without_second_lun = true;
    login(&i, w);
    CHECK(ini_cmd(&i, luns, 12, NULL, 0, in, 256).status == 0 && get_be32(in) == 8);
    i.lun = 1;
    r = ini_read(&i, 0, in, 512);
    CHECK(r.key == 5 && r.asc == 0x25);
    uint32_t calls = m->calls; /* meta was asked, but is not for every command */
    r = ini_read(&i, 0, in, 512);
    CHECK(r.key == 5 && r.asc == 0x25 && m->calls == calls);
    CHECK(co_sleep(2 * NSEC_PER_SEC) == 0);
    m->without_second_lun = false;
    w->open_takes = MSEC(200);
    /* a long write whose data comes while the unit is looked for */
    memset(out, 7, sizeof(out));
    i.max_send = 5000;
    r = ini_write(&i, 0, out, sizeof(out));
    CHECK(r.key == 6 && r.asc == 0x3f && r.ascq == 0x0e); /* the units changed, says the unit */
    CHECK(ini_write(&i, 0, out, sizeof(out)).status == 0);
    CHECK(ini_read(&i, 0, in, sizeof(in)).status == 0 && memcmp(in, out, sizeof(in)) == 0);
    i.lun = 0;
    r = ini_cmd(&i, luns, 12, NULL, 0, in, 256);
    CHECK(r.status == 0 && get_be32(in) == 16);
    m->without_second_lun = true; /* REPORT LUNS always asks */
    r = ini_cmd(&i, luns, 12, NULL, 0, in, 256);
    CHECK(r.status == 0 && get_be32(in) == 8);
    ini_close(&i);
}

static void a_session_finds_units_added_under_it(void **state)
{
    struct fake_meta m = {.takes = MSEC(2)};

    (void)state;
    run(body_new_lun, &m);
}

/* The data of a write that waits for its unit is kept. */
static void body_write_waits(struct iscsiworld *w)
{
    static uint8_t out[131072], in[131072];
    struct fake_meta *m = w->arg;
    struct ini i;

    m->exported = true;
    w->open_takes = MSEC(500);
    iscsiworld_export_nothing(w);
    ini_connect(&i, w->addr);
    CHECK(ini_login(&i, IW_INI, IW_IQN, IW_NORMAL) == 0);
    i.max_send = 5000;
    for (uint32_t k = 0; k < sizeof(out); k++)
        out[k] = (uint8_t)(k / 512);
    CHECK(ini_write(&i, 0, out, sizeof(out)).key == 6); /* power on: once open */
    CHECK(ini_write(&i, 0, out, sizeof(out)).status == 0);
    iscsiworld_export(w, true); /* the second unit goes, and comes while it is asked for */
    CHECK(co_sleep(2 * NSEC_PER_SEC) == 0);
    m->without_second_lun = false;
    CHECK(ini_read(&i, 0, in, sizeof(in)).key == 6); /* units changed */
    CHECK(ini_read(&i, 0, in, sizeof(in)).status == 0 && memcmp(in, out, sizeof(in)) == 0);
    /* a connection that ends meanwhile leaves nothing */
    const uint8_t cdb[10] = {0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0};
    uint8_t bhs[BHS_BYTES];
    i.lun = 1;
    m->takes = NSEC_PER_SEC;
    ini_cmd_bhs(&i, bhs, FLAG_FINAL | FLAG_WRITE, cdb, 10, 512);
    CHECK(ini_send(&i, bhs, out, 512) == 0);
    CHECK(co_sleep(MSEC(100)) == 0);
    ini_close(&i);
}

static void data_of_a_waiting_write_is_kept(void **state)
{
    struct fake_meta m = {.takes = MSEC(2)};

    (void)state;
    run(body_write_waits, &m);
}

struct flood {
    struct iscsiworld *w;
    uint16_t expected;
    const char *iqn;
};

static co_fn int flood_main(void *arg)
{
    struct flood *f = arg;
    struct ini i;

    ini_connect(&i, f->w->addr);
    CHECK(ini_login(&i, IW_INI, f->iqn, IW_NORMAL) == f->expected);
    ini_close(&i);
    return 0;
}

/* Names that do not exist: meta is asked a few times in a second, and those whose names exist get
 * in all the same. */
static void body_flood(struct iscsiworld *w)
{
    struct flood bad = {w, 0x0203, "iqn.none"}, good = {w, 0, IW_IQN};
    struct fake_meta *m = w->arg;
    nsec_t before = co_now();
    struct co_group g;

    m->exported = true;
    co_group_init(&g);
    for (int round = 0; round < 100; round++) {
        for (int k = 0; k < 5; k++)
            co_spawn(&g, "bad", flood_main, &bad);
        if (round == 50)
            co_spawn(&g, "good", flood_main, &good);
        CHECK(co_sleep(MSEC(100)) == 0);
    }
    CHECK(co_group_join(&g) == 0);
    CHECK(co_now() - before < 11 * NSEC_PER_SEC);
    CHECK(m->calls > 10 && m->calls < 4 * 11 + 10);
}

static void bad_names_do_not_flood_meta(void **state)
{
    struct fake_meta m = {.takes = MSEC(20)};

    (void)state;
    run(body_flood, &m);
}

/* Without an answer an unknown name is refused after 2 s, a known one served long before. */
static void body_meta_silent(struct iscsiworld *w)
{
    struct fake_meta *m = w->arg;
    nsec_t before = co_now();
    struct ini i;

    ini_connect(&i, w->addr);
    CHECK(ini_login(&i, IW_INI, "iqn.none", IW_NORMAL) == 0x0203);
    CHECK(co_now() - before >= 2 * NSEC_PER_SEC && co_now() - before < MSEC(2200));
    ini_close(&i);
    before = co_now();
    ini_connect(&i, w->addr);
    CHECK(ini_login(&i, IW_INI, IW_IQN, IW_NORMAL) == 0);
    CHECK(co_now() - before < MSEC(600));
    ini_close(&i);
    m->takes = 0;
    m->rc = ERR_UNREACHABLE;
    before = co_now();
    ini_connect(&i, w->addr);
    CHECK(ini_login(&i, IW_INI, IW_IQN, IW_NORMAL) == 0);
    CHECK(co_now() - before < MSEC(600));
    ini_close(&i);
    /* a stop does not wait for it */
    m->takes = 60 * NSEC_PER_SEC;
    struct flood last = {w, 0xffff, IW_IQN};
    struct co_group g;
    co_group_init(&g);
    co_spawn(&g, "last", flood_main, &last);
    CHECK(co_sleep(MSEC(100)) == 0);
    iscsi_target_stop(w->target);
    w->target = NULL;
    CHECK(co_group_join(&g) == 0);
}

static void a_silent_meta_is_not_waited_for_long(void **state)
{
    struct fake_meta m = {.takes = 60 * NSEC_PER_SEC};

    (void)state;
    run(body_meta_silent, &m);
}

/* ---- unknown outcomes ---- */

/* Sends a write of one block, with its data, and does not wait. */
static void start_write(struct ini *i, uint8_t attribute, uint8_t lba, const uint8_t *data)
{
    const uint8_t cdb[10] = {0x2a, 0, 0, 0, 0, lba, 0, 0, 1, 0};
    uint8_t bhs[BHS_BYTES];

    ini_cmd_bhs(i, bhs, FLAG_FINAL | FLAG_WRITE, cdb, 10, 512);
    bhs[1] = (uint8_t)((bhs[1] & ~7) | attribute);
    CHECK(ini_send(i, bhs, data, 512) == 0);
}

static void body_unknown(struct iscsiworld *w)
{
    uint8_t data[1024] = {1}, in[512];
    const uint8_t caw[16] = {0x89, [13] = 1};
    struct ini_result r;
    struct ini i;

    for (int k = 0; k < 3; k++) { /* no answer; after a login it can be repeated */
        login(&i, w);
        block_backend_mem_hold(w->backends[1], NULL, ERR_AMBIGUOUS, 1);
        start_write(&i, 1, 0, data);
        struct ini_pdu p;
        CHECK(ini_recv(&i, &p) == ERR_CLOSED);
        ini_close(&i);
    }
    login(&i, w);
    CHECK(ini_write(&i, 0, data, 512).status == 0);
    block_backend_mem_hold(w->backends[1], NULL, ERR_AMBIGUOUS, 1);
    r = ini_cmd(&i, caw, 16, data, 1024, NULL, 0);
    CHECK(r.status == 2 && r.key == 0xb);
    block_backend_mem_hold(w->backends[1], NULL, ERR_EXPIRED, 1);
    CHECK(ini_read(&i, 0, in, 512).status == 8); /* BUSY */
    CHECK(ini_read(&i, 0, in, 512).status == 0 && in[0] == 1);
    ini_close(&i);
}

static void writes_without_outcome_end_the_connection(void **state)
{
    (void)state;
    run(body_unknown, NULL);
}

/* ---- sessions that die ---- */

/* The connection breaks while one write runs and others wait. A login of the same initiator under
 * another ISID waits for the first, and the others are not executed; a login of another initiator
 * does not wait. */
static void body_dead_session(struct iscsiworld *w)
{
    static const uint8_t old[512] = {1}, new[512] = {2};
    uint8_t in[512];
    struct co_event go;
    struct ini a, b, c;
    nsec_t before;

    co_event_init(&go);
    login(&a, w);
    block_backend_mem_hold(w->backends[1], &go, 0, 1);
    start_write(&a, 1, 0, old);
    start_write(&a, 2, 1, old); /* ORDERED: behind the first */
    start_write(&a, 1, 2, old); /* behind the second */
    CHECK(co_sleep(MSEC(10)) == 0);
    ini_close(&a);
    CHECK(co_sleep(MSEC(10)) == 0);
    ini_connect(&c, w->addr);
    CHECK(ini_login(&c, "iqn.other", IW_IQN, IW_NORMAL) == 0);
    ini_close(&c);
    before = co_now();
    ini_connect(&b, w->addr);
    b.qualifier = 9;
    CHECK(ini_login(&b, IW_INI, IW_IQN, IW_NORMAL) == 0x0301);
    CHECK(co_now() - before > 9 * NSEC_PER_SEC && co_now() - before < 12 * NSEC_PER_SEC);
    ini_close(&b);
    co_event_set(&go, 0);
    ini_connect(&b, w->addr);
    b.qualifier = 9;
    CHECK(ini_login(&b, IW_INI, IW_IQN, IW_NORMAL) == 0);
    ini_clear_attentions(&b);
    CHECK(ini_read(&b, 0, in, 512).status == 0 && in[0] == 1); /* it was under way */
    CHECK(ini_write(&b, 0, new, 512).status == 0);
    CHECK(ini_read(&b, 1, in, 512).status == 0 && in[0] == 0);
    CHECK(ini_read(&b, 2, in, 512).status == 0 && in[0] == 0);
    CHECK(co_sleep(5 * NSEC_PER_SEC) == 0);
    CHECK(ini_read(&b, 0, in, 512).status == 0 && in[0] == 2);
    ini_close(&b);
}

static void writes_of_a_dead_session_end_first(void **state)
{
    (void)state;
    run(body_dead_session, NULL);
}

/* Two live sessions of one initiator do not disturb each other. */
static void body_two_ports(struct iscsiworld *w)
{
    uint8_t in[512];
    struct ini a, b;

    login(&a, w);
    ini_connect(&b, w->addr);
    b.qualifier = 9;
    CHECK(ini_login(&b, IW_INI, IW_IQN, IW_NORMAL) == 0);
    ini_clear_attentions(&b);
    CHECK(ini_read(&a, 0, in, 512).status == 0);
    CHECK(ini_read(&b, 0, in, 512).status == 0);
    ini_close(&a);
    ini_close(&b);
}

static void two_ports_of_an_initiator_live_together(void **state)
{
    (void)state;
    run(body_two_ports, NULL);
}

/* ---- stale commands ---- */

/* Writes that wait for their confirmation when the session with meta is lost are not executed, nor
 * is what comes behind them; every connection ends, also one that logs in. */
static void body_drop(struct iscsiworld *w)
{
    static const uint8_t old[512] = {1};
    struct ini a, b, c;
    struct co_event never, go;
    struct ini_pdu p;
    uint8_t in[512];

    co_event_init(&never);
    co_event_init(&go);
    login(&a, w);
    login(&b, w); /* ends the first */
    CHECK(ini_recv(&a, &p) == ERR_CLOSED);
    ini_close(&a);
    ini_connect(&a, w->addr);
    CHECK(ini_login(&a, "iqn.other", IW_IQN, IW_NORMAL) == 0);
    ini_clear_attentions(&a);
    ini_connect(&c, w->addr); /* no login yet */
    CHECK(co_sleep(MSEC(10)) == 0);
    block_backend_mem_confirm(w->backends[1], &never);
    start_write(&b, 1, 0, old);
    start_write(&b, 2, 1, old);
    CHECK(co_sleep(MSEC(10)) == 0);
    iscsi_target_drop(w->target, "lost");
    block_backend_mem_confirm(w->backends[1], NULL);
    start_write(&b, 1, 2, old); /* may be read by the target, or not */
    CHECK(ini_recv(&b, &p) == ERR_CLOSED);
    CHECK(ini_recv(&a, &p) == ERR_CLOSED);
    CHECK(ini_recv(&c, &p) == ERR_CLOSED);
    ini_close(&a);
    ini_close(&b);
    ini_close(&c);
    login(&b, w);
    for (uint32_t lba = 0; lba < 3; lba++)
        CHECK(ini_read(&b, lba, in, 512).status == 0 && in[0] == 0);
    /* a late confirmation: the write goes on */
    block_backend_mem_confirm(w->backends[1], &go);
    start_write(&b, 1, 0, old);
    CHECK(co_sleep(NSEC_PER_SEC) == 0);
    co_event_set(&go, 0);
    ini_expect(&b, OP_SCSI_RESPONSE, &p);
    CHECK(p.bhs[3] == 0);
    ini_pdu_free(&p);
    /* one that is aborted while it waits ends, and the session goes on */
    block_backend_mem_confirm(w->backends[1], &never);
    start_write(&b, 1, 1, old);
    uint8_t bhs[BHS_BYTES] = {0x40 | OP_TASK_MGMT, FLAG_FINAL | 1};
    put_be32(bhs + 16, 4711);
    put_be32(bhs + 20, b.itt);
    put_be32(bhs + 24, b.cmdsn);
    CHECK(ini_send(&b, bhs, NULL, 0) == 0);
    ini_expect(&b, OP_TASK_MGMT_RESPONSE, &p);
    CHECK(p.bhs[2] == 0);
    block_backend_mem_confirm(w->backends[1], NULL);
    CHECK(ini_read(&b, 1, in, 512).status == 0 && in[0] == 0);
    /* what may be old gets no answer */
    co_event_init(&go);
    co_event_set(&go, ERR_EXPIRED);
    block_backend_mem_confirm(w->backends[1], &go);
    start_write(&b, 1, 1, old);
    CHECK(ini_recv(&b, &p) == ERR_CLOSED);
    ini_close(&b);
    block_backend_mem_confirm(w->backends[1], NULL);
    login(&b, w);
    CHECK(ini_read(&b, 1, in, 512).status == 0 && in[0] == 0);
    ini_close(&b);
}

static void stale_commands_are_not_executed(void **state)
{
    (void)state;
    run(body_drop, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_export_can_be_used_at_once),
        cmocka_unit_test(discovery_shows_what_was_just_exported),
        cmocka_unit_test(a_session_finds_units_added_under_it),
        cmocka_unit_test(data_of_a_waiting_write_is_kept),
        cmocka_unit_test(bad_names_do_not_flood_meta),
        cmocka_unit_test(a_silent_meta_is_not_waited_for_long),
        cmocka_unit_test(writes_without_outcome_end_the_connection),
        cmocka_unit_test(writes_of_a_dead_session_end_first),
        cmocka_unit_test(two_ports_of_an_initiator_live_together),
        cmocka_unit_test(stale_commands_are_not_executed),
    };

    log_threshold = getenv("ZBS_TEST_LOG") ? LOG_LV_DEBUG : LOG_LV_ERROR;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
