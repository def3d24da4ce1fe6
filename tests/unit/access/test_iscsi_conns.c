/* SPDX-License-Identifier: Apache-2.0
 *
 * Sessions of several connections: who may join, the order of commands over all of them, data that
 * stays with its command's connection, and how connections end. On the simulator. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "access/iscsi/iscsi_int.h"
#include "tests/lib/iscsiworld.h"

#define CHECK(x)     ASSERTF(x, "seen here")
#define MSEC(n)      ((n)*NSEC_PER_MSEC)
#define CONNECTION   "MaxRecvDataSegmentLength=65536\n" /* keys of a further one */
#define TOO_MANY     0x0206
#define NO_SESSION   0x020a
#define LOGOUT_THIS  0x81
#define LOGOUT_WHOLE 0x80

static void run(void (*body)(struct iscsiworld *w))
{
    struct iscsiworld w = {.body = body, .conf = {.reservations = true}};

    iscsiworld_run(&w);
}

static void lead(struct ini *i, struct iscsiworld *w, const char *connections)
{
    char keys[512];

    snprintf(keys, sizeof(keys), "%s%s", IW_NORMAL, connections);
    ini_connect(i, w->addr);
    CHECK(ini_login(i, IW_INI, IW_IQN, keys) == 0);
    ini_clear_attentions(i);
}

/* Another connection of that session; it has the same data rules, and numbers of its own only
 * where they belong to a connection. */
static uint16_t join(struct ini *i, struct iscsiworld *w, const struct ini *leader, uint16_t cid,
                     const char *keys)
{
    ini_connect(i, w->addr);
    i->tsih = leader->tsih;
    i->cid = cid;
    i->cmdsn = leader->cmdsn;
    i->itt = cid * 1000u;
    uint16_t status = ini_login(i, IW_INI, IW_IQN, keys);
    i->initial_r2t = leader->initial_r2t;
    i->first_burst = leader->first_burst;
    return status;
}

static void send_write(struct ini *i, uint32_t cmdsn, uint8_t lba, const uint8_t *data)
{
    const uint8_t cdb[16] = {0x2a, [5] = lba, [8] = 1};
    uint8_t bhs[BHS_BYTES];

    i->cmdsn = cmdsn;
    ini_cmd_bhs(i, bhs, FLAG_FINAL | FLAG_WRITE, cdb, 10, 512);
    CHECK(ini_send(i, bhs, data, 512) == 0);
}

static void expect_status(struct ini *i, uint8_t status)
{
    struct ini_pdu p;

    ini_expect(i, OP_SCSI_RESPONSE, &p);
    CHECK(p.bhs[3] == status);
    ini_pdu_free(&p);
}

static bool answered(struct ini *i)
{
    struct ini_pdu p;
    nsec_t former = co_deadline_push(co_now() + MSEC(50));
    int rc = ini_recv(i, &p);

    co_deadline_restore(former);
    if (rc == 0)
        ini_pdu_free(&p);
    return rc == 0;
}

static uint8_t logout(struct ini *i, uint32_t cmdsn, uint8_t reason, uint16_t cid)
{
    uint8_t bhs[BHS_BYTES] = {OP_LOGOUT, reason}, answer;
    struct ini_pdu p;

    put_be32(bhs + 16, ++i->itt);
    put_be16(bhs + 20, cid);
    put_be32(bhs + 24, cmdsn);
    CHECK(ini_send(i, bhs, NULL, 0) == 0);
    ini_expect(i, OP_LOGOUT_RESPONSE, &p);
    answer = p.bhs[2];
    ini_pdu_free(&p);
    return answer;
}

/* ---- joining ---- */

static void body_join(struct iscsiworld *w)
{
    struct ini a, b, c, other;
    uint8_t data[512];

    lead(&a, w, "MaxConnections=2\n");
    CHECK(strcmp(ini_text_value(&a, "MaxConnections"), "2") == 0);
    CHECK(join(&b, w, &a, 1, CONNECTION) == 0);
    CHECK(b.tsih == a.tsih);
    CHECK(ini_read(&b, 0, data, 512).status == 0); /* no attention: the nexus is the same */
    a.cmdsn = b.cmdsn;
    CHECK(ini_read(&a, 0, data, 512).status == 0);
    CHECK(join(&c, w, &a, 2, CONNECTION) == TOO_MANY);
    ini_close(&c);
    other = a;
    other.tsih++;
    CHECK(join(&c, w, &other, 1, CONNECTION) == NO_SESSION);
    ini_close(&c);
    /* what the leading login agreed on is not agreed on again */
    CHECK(join(&c, w, &a, 1, CONNECTION "MaxBurstLength=65536\n") >> 8 == 2);
    ini_close(&c);
    b.cmdsn = a.cmdsn;
    CHECK(ini_read(&b, 0, data, 512).status == 0);
    ini_close(&a);
    ini_close(&b);
    lead(&a, w, ""); /* one connection, unless more are asked for */
    CHECK(join(&b, w, &a, 1, CONNECTION) == TOO_MANY);
    ini_close(&b);
    ini_close(&a);
}

static void who_may_join_does(void **state)
{
    (void)state;
    run(body_join);
}

/* ---- order, and where data goes ---- */

static void body_order(struct iscsiworld *w)
{
    static uint8_t one[512] = {1}, two[512] = {2}, in[512];
    uint8_t nop[BHS_BYTES] = {OP_NOP_OUT, FLAG_FINAL};
    struct ini_pdu p;
    struct ini a, b;

    lead(&a, w, "MaxConnections=4\n");
    CHECK(join(&b, w, &a, 1, CONNECTION) == 0);
    uint32_t sn = a.cmdsn;
    send_write(&b, sn + 1, 0, two);
    CHECK(!answered(&b)); /* not before what comes first */
    put_be32(nop + 16, ++b.itt);
    put_be32(nop + 20, TAG_NONE);
    put_be32(nop + 24, sn + 2);
    CHECK(ini_send(&b, nop, NULL, 0) == 0);
    send_write(&a, sn, 0, one);
    ini_expect(&b, OP_NOP_IN, &p);         /* while the write that came before it still runs */
    CHECK(get_be32(p.bhs + 28) == sn + 3); /* ExpCmdSN: of the session */
    ini_pdu_free(&p);
    expect_status(&a, 0);
    expect_status(&b, 0);
    a.cmdsn = sn + 3;
    CHECK(ini_read(&a, 0, in, 512).status == 0 && in[0] == 2);
    ini_close(&a);
    ini_close(&b);
}

static void commands_start_in_the_order_of_the_session(void **state)
{
    (void)state;
    run(body_order);
}

/* Solicited data comes where the command did; elsewhere it ends the session. */
static void body_allegiance(struct iscsiworld *w)
{
    const uint8_t cdb[16] = {0x2a, [8] = 1};
    uint8_t bhs[BHS_BYTES], data_out[BHS_BYTES] = {OP_DATA_OUT, FLAG_FINAL};
    static uint8_t data[512] = {1};
    struct ini_pdu p;
    struct ini a, b;

    lead(&a, w, "MaxConnections=4\n");
    CHECK(join(&b, w, &a, 1, CONNECTION) == 0);
    ini_cmd_bhs(&a, bhs, FLAG_FINAL | FLAG_WRITE, cdb, 10, 512);
    CHECK(ini_send(&a, bhs, NULL, 0) == 0);
    ini_expect(&a, OP_R2T, &p);
    memcpy(data_out + 16, p.bhs + 16, 8); /* both tags */
    ini_pdu_free(&p);
    CHECK(ini_send(&b, data_out, data, 512) == 0);
    ini_expect_closed(&b);
    ini_expect_closed(&a);
    ini_close(&a);
    ini_close(&b);
}

static void data_stays_with_its_commands_connection(void **state)
{
    (void)state;
    run(body_allegiance);
}

/* ---- ends ---- */

static void body_logout(struct iscsiworld *w)
{
    static uint8_t data[512] = {1}, in[512];
    struct ini a, b, c;

    lead(&a, w, "MaxConnections=4\n");
    CHECK(join(&b, w, &a, 1, CONNECTION) == 0);
    CHECK(join(&c, w, &a, 2, CONNECTION) == 0);
    /* one ends itself, and leaves a hole in the numbering that another one fills */
    send_write(&b, a.cmdsn + 1, 0, data);
    CHECK(!answered(&b));
    uint8_t bhs[BHS_BYTES] = {0x40 | OP_LOGOUT, LOGOUT_THIS};
    struct ini_pdu p;
    put_be16(bhs + 20, 1);
    put_be32(bhs + 24, a.cmdsn);
    CHECK(ini_send(&b, bhs, NULL, 0) == 0);
    ini_expect(&b, OP_LOGOUT_RESPONSE, &p);
    CHECK(p.bhs[2] == 0);
    ini_pdu_free(&p);
    ini_expect_closed(&b);
    ini_close(&b);
    CHECK(ini_read(&a, 0, in, 512).status == 0 && in[0] == 0); /* given up with its connection */
    send_write(&c, a.cmdsn, 0, data);
    expect_status(&c, 0);
    /* one ends another one */
    CHECK(logout(&a, ++a.cmdsn, LOGOUT_THIS, 2) == 0);
    ini_expect_closed(&c);
    ini_close(&c);
    CHECK(logout(&a, ++a.cmdsn, LOGOUT_THIS, 2) == 1); /* no such connection */
    a.cmdsn++;
    CHECK(ini_read(&a, 0, in, 512).status == 0 && in[0] == 1);
    /* all at once */
    CHECK(join(&b, w, &a, 1, CONNECTION) == 0);
    CHECK(logout(&b, a.cmdsn, LOGOUT_WHOLE, 0) == 0);
    ini_expect_closed(&a);
    ini_expect_closed(&b);
    CHECK(join(&c, w, &a, 1, CONNECTION) == NO_SESSION);
    ini_close(&a);
    ini_close(&b);
    ini_close(&c);
}

static void connections_log_out(void **state)
{
    (void)state;
    run(body_logout);
}

/* At error recovery level 0 a connection that fails takes the session with it. */
static void body_failure(struct iscsiworld *w)
{
    struct ini a, b;

    lead(&a, w, "MaxConnections=4\n");
    CHECK(join(&b, w, &a, 1, CONNECTION) == 0);
    ini_close(&b);
    ini_expect_closed(&a);
    CHECK(join(&b, w, &a, 1, CONNECTION) == NO_SESSION);
    ini_close(&a);
    ini_close(&b);
}

static void a_connection_that_fails_ends_the_session(void **state)
{
    (void)state;
    run(body_failure);
}

struct release {
    struct iscsiworld *w;
    struct co_event go;
    bool released;
};

static co_fn int release_later(void *arg)
{
    struct release *r = arg;
    struct ini other;

    CHECK(co_sleep(MSEC(300)) == 0);
    /* another port of the initiator has nothing to do with it */
    ini_connect(&other, r->w->addr);
    other.qualifier++;
    CHECK(ini_login(&other, IW_INI, IW_IQN, IW_NORMAL) == 0);
    ini_close(&other);
    r->released = true;
    co_event_set(&r->go, 0);
    return 0;
}

/* A login with a CID that is in use takes the place of that connection; its commands end first. */
static void body_reinstated(struct iscsiworld *w)
{
    static uint8_t data[512] = {1}, in[512];
    struct release r = {.w = w};
    struct co_group group;
    struct ini a, b, again;

    co_group_init(&group);
    co_event_init(&r.go);
    lead(&a, w, "MaxConnections=2\n");
    CHECK(join(&b, w, &a, 1, CONNECTION) == 0);
    block_backend_mem_hold(w->backends[1], &r.go, 0, 1);
    send_write(&b, a.cmdsn++, 0, data); /* is executed, and not answered */
    CHECK(co_sleep(MSEC(10)) == 0);
    co_spawn(&group, "release", release_later, &r);
    CHECK(join(&again, w, &a, 1, CONNECTION) == 0);
    CHECK(r.released);
    co_group_join(&group);
    ini_expect_closed(&b);
    ini_close(&b);
    CHECK(ini_read(&again, 0, in, 512).status == 0 && in[0] == 1);
    a.cmdsn = again.cmdsn;
    CHECK(ini_read(&a, 0, in, 512).status == 0);
    /* the only one, too */
    ini_close(&again);
    ini_close(&a);
    lead(&a, w, "");
    CHECK(join(&again, w, &a, 0, CONNECTION) == 0);
    ini_expect_closed(&a);
    CHECK(ini_read(&again, 0, in, 512).status == 0);
    ini_close(&a);
    ini_close(&again);
}

static void connections_are_reinstated(void **state)
{
    (void)state;
    run(body_reinstated);
}

static unsigned seen_sessions;

static void count_session(void *arg, const struct iscsi_session_view *v)
{
    CHECK(v->reads == *(unsigned *)arg);
    seen_sessions++;
}

/* A session of two connections is one session, with one reservation and one count. */
static void body_one(struct iscsiworld *w)
{
    const uint8_t reserve[16] = {0x16};
    static uint8_t in[512];
    unsigned reads = 2;
    struct ini a, b;

    lead(&a, w, "MaxConnections=2\n");
    CHECK(join(&b, w, &a, 1, CONNECTION) == 0);
    CHECK(ini_cmd(&b, reserve, 6, NULL, 0, NULL, 0).status == 0);
    CHECK(ini_read(&b, 0, in, 512).status == 0);
    a.cmdsn = b.cmdsn;
    CHECK(ini_read(&a, 0, in, 512).status == 0);
    seen_sessions = 0;
    iscsi_target_sessions(w->target, count_session, &reads);
    CHECK(seen_sessions == 1);
    /* the session of that port logs in anew: both are gone, and the reservation with them */
    struct ini fresh;
    ini_connect(&fresh, w->addr);
    CHECK(ini_login(&fresh, IW_INI, IW_IQN, IW_NORMAL) == 0);
    ini_expect_closed(&a);
    ini_expect_closed(&b);
    ini_close(&a);
    ini_close(&b);
    ini_close(&fresh);
}

static void several_connections_are_one_session(void **state)
{
    (void)state;
    run(body_one);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_may_join_does),
        cmocka_unit_test(commands_start_in_the_order_of_the_session),
        cmocka_unit_test(data_stays_with_its_commands_connection),
        cmocka_unit_test(connections_log_out),
        cmocka_unit_test(a_connection_that_fails_ends_the_session),
        cmocka_unit_test(connections_are_reinstated),
        cmocka_unit_test(several_connections_are_one_session),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
