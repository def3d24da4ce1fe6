/* SPDX-License-Identifier: Apache-2.0
 *
 * Full feature phase on the simulator: data in every way it can travel, digests, command
 * numbering, task management, bad input. */
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

static void run(void (*body)(struct iscsiworld *w))
{
    struct iscsiworld w = {.body = body};

    iscsiworld_run(&w);
}

static void fill(uint8_t *p, uint32_t len, uint8_t seed)
{
    for (uint32_t i = 0; i < len; i++)
        p[i] = (uint8_t)(seed + i * 31 + (i >> 8) * 7);
}

static void login(struct ini *i, struct iscsiworld *w, const char *keys)
{
    ini_connect(i, w->addr);
    CHECK(ini_login(i, IW_INI, IW_IQN, keys) == 0);
    ini_clear_attentions(i);
}

/* ---- data ---- */

/* Writes and reads of many sizes under each combination of keys. */
static void body_combinations(struct iscsiworld *w)
{
    static const uint32_t sizes[] = {512, 4096, 8192, 65536, 66048, 262144, 300032, 1048576};
    static const char *const keys[] = {
        "",
        IW_NORMAL,
        "HeaderDigest=CRC32C\nDataDigest=CRC32C\n",
        IW_NORMAL "HeaderDigest=CRC32C,None\nDataDigest=CRC32C,None\n",
        "InitialR2T=Yes\nImmediateData=No\nMaxRecvDataSegmentLength=512\nDataDigest=CRC32C\n",
        "InitialR2T=No\nImmediateData=No\nFirstBurstLength=512\nMaxBurstLength=1024\n"
        "MaxOutstandingR2T=2\nMaxRecvDataSegmentLength=1000\n",
        "InitialR2T=Yes\nImmediateData=Yes\nFirstBurstLength=4096\nMaxBurstLength=16384\n",
    };
    uint8_t *out = mem_alloc(1048576), *in = mem_alloc(1048576);
    struct ini_result r;

    for (size_t k = 0; k < ARRAY_SIZE(keys); k++) {
        struct ini i;

        login(&i, w, keys[k]);
        for (size_t s = 0; s < ARRAY_SIZE(sizes); s++) {
            fill(out, sizes[s], (uint8_t)(k * 16 + s));
            r = ini_write(&i, 8, out, sizes[s]);
            CHECK(r.status == 0 && r.residual == 0);
            r = ini_read(&i, 8, in, sizes[s]);
            CHECK(r.status == 0 && r.residual == 0 && r.got == sizes[s]);
            CHECK(memcmp(in, out, sizes[s]) == 0);
        }
        ini_close(&i);
    }
    mem_free(out);
    mem_free(in);
}

static void data_travels_under_all_keys(void **state)
{
    (void)state;
    run(body_combinations);
}

/* What the initiator sends beyond what the command takes is dropped, and counted. */
static void body_surplus(struct iscsiworld *w)
{
    static uint8_t out[65536], in[65536];
    const uint8_t one[10] = {0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0};
    const uint8_t beyond[10] = {0x2a, 0, 0x7f, 0, 0, 0, 0, 0, 1, 0};
    struct ini_result r;
    struct ini i;

    login(&i, w, IW_NORMAL);
    i.max_send = 1000; /* several PDUs */
    fill(out, sizeof(out), 3);
    r = ini_cmd(&i, one, 10, out, 4096, NULL, 0);
    CHECK(r.status == 0 && r.residual == 4096 - 512 && r.residual_flags == FLAG_UNDERFLOW);
    /* a command that fails at once still takes its unsolicited data */
    r = ini_cmd(&i, beyond, 10, out, 65536, NULL, 0);
    CHECK(r.status == 2 && r.asc == 0x21 && r.r2ts == 0);
    r = ini_read(&i, 0, in, 1024);
    CHECK(r.status == 0 && memcmp(in, out, 512) == 0 && mem_is_zero(in + 512, 512));
    ini_close(&i);
}

static void surplus_data_is_dropped(void **state)
{
    (void)state;
    run(body_surplus);
}

/* More commands than memory: they wait for each other, none is refused. */
static void body_memory(struct iscsiworld *w)
{
    enum { N = 24, LEN = 1024 * 1024 };
    const uint8_t read[10] = {0x28, 0, 0, 0, 0, 0, 0, 8, 0, 0};
    uint32_t got[N + 1] = {0};
    uint8_t bhs[BHS_BYTES];
    struct ini i;
    struct ini_pdu p;
    unsigned ended = 0;

    login(&i, w, IW_NORMAL);
    uint32_t first = i.itt + 1;
    for (int k = 0; k < N; k++) {
        ini_cmd_bhs(&i, bhs, FLAG_FINAL | FLAG_READ, read, 10, LEN);
        CHECK(ini_send(&i, bhs, NULL, 0) == 0);
    }
    while (ended < N) {
        ini_expect(&i, OP_DATA_IN, &p);
        uint32_t k = get_be32(p.bhs + 16) - first;
        CHECK(k < N && get_be32(p.bhs + 40) == got[k]);
        got[k] += p.len;
        ended += (p.bhs[1] & FLAG_STATUS) != 0;
        ini_pdu_free(&p);
    }
    /* the same with writes that bring some data along, answered by R2T as memory allows */
    uint8_t *out = mem_alloc(LEN);
    const uint8_t write[10] = {0x2a, 0, 0, 0, 0, 0, 0, 8, 0, 0};
    fill(out, LEN, 9);
    for (int k = 0; k < N; k++) {
        ini_cmd_bhs(&i, bhs, FLAG_FINAL | FLAG_WRITE, write, 10, LEN);
        CHECK(ini_send(&i, bhs, out, 65536) == 0);
    }
    for (ended = 0; ended < N;) {
        CHECK(ini_recv(&i, &p) == 0);
        if (p.op == OP_R2T) {
            uint32_t at = get_be32(p.bhs + 40), len = get_be32(p.bhs + 44);

            for (uint32_t n, sn = 0, end = at + len; at < end; at += n, sn++) {
                uint8_t d[BHS_BYTES] = {OP_DATA_OUT};

                n = MIN(end - at, i.max_send);
                d[1] = at + n == end ? FLAG_FINAL : 0;
                memcpy(d + 16, p.bhs + 16, 8);
                put_be32(d + 36, sn);
                put_be32(d + 40, at);
                CHECK(ini_send(&i, d, out + at, n) == 0);
            }
        } else {
            CHECK(p.op == OP_SCSI_RESPONSE && p.bhs[3] == 0);
            ended++;
        }
        ini_pdu_free(&p);
    }
    uint8_t *in = mem_alloc(LEN);
    CHECK(ini_read(&i, 0, in, LEN).status == 0 && memcmp(in, out, LEN) == 0);
    mem_free(in);
    mem_free(out);
    ini_close(&i);
}

static void commands_wait_for_memory(void **state)
{
    struct iscsiworld w = {.body = body_memory, .conf = {.memory_bytes = 4u * 1024 * 1024}};

    (void)state;
    iscsiworld_run(&w);
}

/* ---- damage on the way ---- */

static void body_damage(struct iscsiworld *w)
{
    uint8_t data[1024], in[1024], bhs[BHS_BYTES];
    const uint8_t cdb[10] = {0x2a, 0, 0, 0, 0, 0, 0, 0, 2, 0};
    struct ini i;
    struct ini_pdu p;

    login(&i, w, IW_NORMAL "DataDigest=CRC32C\n");
    fill(data, sizeof(data), 1);
    /* numbers out of order: the command fails, the session goes on */
    for (uint32_t sn = 0; sn < 3; sn++) {
        ini_cmd_bhs(&i, bhs, FLAG_WRITE, cdb, 10, 1024);
        CHECK(ini_send(&i, bhs, NULL, 0) == 0);
        for (uint32_t k = 0; k < 2; k++) {
            uint8_t d[BHS_BYTES] = {OP_DATA_OUT, k == 1 ? FLAG_FINAL : 0};

            put_be32(d + 16, i.itt);
            put_be32(d + 20, TAG_NONE);
            put_be32(d + 36, sn == 0 ? 0 : sn == 1 ? 1 - k : k + 27);
            put_be32(d + 40, k * 512);
            CHECK(ini_send(&i, d, data + k * 512, 512) == 0);
        }
        ini_expect(&i, OP_SCSI_RESPONSE, &p);
        CHECK(p.bhs[3] == 2 && p.data[2 + 2] == 0xb && p.data[2 + 12] == 0x47);
        ini_pdu_free(&p);
    }
    /* a wrong digest of immediate data */
    ini_cmd_bhs(&i, bhs, FLAG_FINAL | FLAG_WRITE, cdb, 10, 1024);
    i.data_digest = false;
    uint8_t with_digest[1028];
    memcpy(with_digest, data, 1024);
    memset(with_digest + 1024, 0x55, 4);
    put_be24(bhs + 5, 1024);
    put_be32(bhs + 28, i.exp_statsn);
    struct iovec iov[2] = {{bhs, BHS_BYTES}, {with_digest, 1028}};
    CHECK(net_writev_full(i.net, iov, 2) == 0);
    i.data_digest = true;
    ini_expect(&i, OP_SCSI_RESPONSE, &p);
    CHECK(p.bhs[3] == 2 && p.data[2 + 12] == 0x47);
    ini_pdu_free(&p);
    CHECK(ini_read(&i, 0, in, 1024).status == 0 && mem_is_zero(in, 1024));
    CHECK(ini_write(&i, 0, data, 1024).status == 0);
    CHECK(ini_read(&i, 0, in, 1024).status == 0 && memcmp(in, data, 1024) == 0);
    ini_close(&i);
    /* a wrong header digest ends the connection */
    login(&i, w, "HeaderDigest=CRC32C\n");
    i.header_digest = false;
    ini_cmd_bhs(&i, bhs, FLAG_FINAL, (const uint8_t[6]){0}, 6, 0);
    CHECK(ini_send(&i, bhs, "abcd", 0) == 0);
    CHECK(net_writev_full(i.net, &(struct iovec){(void *)(uintptr_t) "abcd", 4}, 1) == 0);
    i.header_digest = true;
    ini_expect_closed(&i);
    ini_close(&i);
}

static void damaged_data_fails_its_command(void **state)
{
    (void)state;
    run(body_damage);
}

/* Data-Out that nobody asked for: gone tasks are forgiven, violations are not. */
static void body_stray_data(struct iscsiworld *w)
{
    uint8_t data[1024] = {0}, bhs[BHS_BYTES];
    const uint8_t cdb[10] = {0x2a, 0, 0, 0, 0, 0, 0, 0, 2, 0};
    struct ini i;

    login(&i, w, IW_NORMAL);
    for (int k = 0; k < 2; k++) {
        uint8_t d[BHS_BYTES] = {OP_DATA_OUT, FLAG_FINAL};

        put_be32(d + 16, 0x999);
        put_be32(d + 20, k == 0 ? TAG_NONE : 0x12345678);
        CHECK(ini_send(&i, d, data, 512) == 0);
    }
    CHECK(ini_write(&i, 0, data, 1024).status == 0);
    /* more than the first burst */
    ini_cmd_bhs(&i, bhs, FLAG_WRITE, cdb, 10, 1024);
    CHECK(ini_send(&i, bhs, NULL, 0) == 0);
    uint8_t d[BHS_BYTES] = {OP_DATA_OUT, FLAG_FINAL};
    static uint8_t big[2048];
    put_be32(d + 16, i.itt);
    put_be32(d + 20, TAG_NONE);
    CHECK(ini_send(&i, d, big, 2048) == 0);
    ini_expect_closed(&i);
    ini_close(&i);
    /* unsolicited data although it was refused */
    login(&i, w, "InitialR2T=Yes\n");
    ini_cmd_bhs(&i, bhs, FLAG_WRITE, cdb, 10, 1024);
    CHECK(ini_send(&i, bhs, NULL, 0) == 0);
    ini_expect_closed(&i);
    ini_close(&i);
    login(&i, w, "ImmediateData=No\n");
    ini_cmd_bhs(&i, bhs, FLAG_FINAL | FLAG_WRITE, cdb, 10, 1024);
    CHECK(ini_send(&i, bhs, data, 1024) == 0);
    ini_expect_closed(&i);
    ini_close(&i);
}

static void stray_data_is_judged(void **state)
{
    (void)state;
    run(body_stray_data);
}

/* ---- numbering ---- */

static void send_tur(struct ini *i, uint32_t cmdsn, uint8_t op_bits)
{
    uint8_t bhs[BHS_BYTES];

    ini_cmd_bhs(i, bhs, FLAG_FINAL, (const uint8_t[6]){0}, 6, 0);
    bhs[0] |= op_bits;
    put_be32(bhs + 24, cmdsn);
    CHECK(ini_send(i, bhs, NULL, 0) == 0);
}

static void body_numbers(struct iscsiworld *w)
{
    struct ini i;
    struct ini_pdu p;
    uint32_t sn;

    login(&i, w, IW_NORMAL);
    sn = i.cmdsn;
    uint32_t itt = i.itt;
    send_tur(&i, sn - 1, 0);      /* old: ignored */
    send_tur(&i, sn + 100000, 0); /* beyond the window: ignored */
    send_tur(&i, sn + 2, 0);      /* ahead: waits */
    send_tur(&i, sn + 2, 0);      /* a second claim on the number: ignored */
    send_tur(&i, sn + 1, 0);
    send_tur(&i, sn, 0x40); /* immediate: at once */
    ini_expect(&i, OP_SCSI_RESPONSE, &p);
    CHECK(get_be32(p.bhs + 16) == itt + 6);
    send_tur(&i, sn, 0); /* closes the gap */
    static const uint32_t order[] = {7, 5, 3};
    for (int k = 0; k < 3; k++) {
        ini_expect(&i, OP_SCSI_RESPONSE, &p);
        CHECK(get_be32(p.bhs + 16) == itt + order[k]);
    }
    CHECK(get_be32(p.bhs + 28) == sn + 3);          /* ExpCmdSN */
    CHECK(get_be32(p.bhs + 32) == sn + 3 + 16 - 1); /* MaxCmdSN: window of 16 */
    ini_close(&i);
}

static void commands_run_in_order(void **state)
{
    struct iscsiworld w = {.body = body_numbers, .conf = {.window = 16}};

    (void)state;
    iscsiworld_run(&w);
}

/* A full window: what is sent beyond it is ignored; each answer opens it by one. */
static void body_window(struct iscsiworld *w)
{
    const uint8_t read[10] = {0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0};
    uint8_t bhs[BHS_BYTES];
    struct co_event go;
    struct ini i;
    struct ini_pdu p;

    co_event_init(&go);
    login(&i, w, IW_NORMAL);
    block_backend_mem_hold(w->backends[1], &go, 0, 100);
    for (int k = 0; k < 5; k++) {
        ini_cmd_bhs(&i, bhs, FLAG_FINAL | FLAG_READ, read, 10, 512);
        CHECK(ini_send(&i, bhs, NULL, 0) == 0);
    }
    send_tur(&i, i.cmdsn, 0x40); /* immediate ones pass */
    ini_expect(&i, OP_SCSI_RESPONSE, &p);
    CHECK(get_be32(p.bhs + 32) == get_be32(p.bhs + 28) - 1); /* closed */
    co_event_set(&go, 0);
    for (int k = 0; k < 4; k++) {
        ini_expect(&i, OP_DATA_IN, &p);
        ini_pdu_free(&p);
    }
    CHECK(get_be32(p.bhs + 32) == get_be32(p.bhs + 28) + 3);
    ini_close(&i);
}

static void the_window_limits_commands(void **state)
{
    struct iscsiworld w = {.body = body_window, .conf = {.window = 4}};

    (void)state;
    iscsiworld_run(&w);
}

/* ORDERED waits for what came before and holds what comes after; HEAD OF QUEUE does neither. */
static void body_attributes(struct iscsiworld *w)
{
    const uint8_t read[10] = {0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0};
    static const uint8_t attrs[] = {1, 2, 1, 3};
    uint8_t bhs[BHS_BYTES];
    struct co_event go;
    struct ini i;
    struct ini_pdu p;

    co_event_init(&go);
    login(&i, w, IW_NORMAL);
    uint32_t first = i.itt + 1;
    block_backend_mem_hold(w->backends[1], &go, 0, 1); /* the first command only */
    for (size_t k = 0; k < ARRAY_SIZE(attrs); k++) {
        ini_cmd_bhs(&i, bhs, FLAG_FINAL | FLAG_READ, read, 10, 512);
        bhs[1] = (uint8_t)((bhs[1] & ~7) | attrs[k]);
        CHECK(ini_send(&i, bhs, NULL, 0) == 0);
    }
    ini_expect(&i, OP_DATA_IN, &p);
    CHECK(get_be32(p.bhs + 16) == first + 3);
    ini_pdu_free(&p);
    CHECK(co_sleep(NSEC_PER_SEC) == 0 && !net_readable(i.net));
    co_event_set(&go, 0);
    for (uint32_t k = 0; k < 3; k++) {
        ini_expect(&i, OP_DATA_IN, &p);
        CHECK(get_be32(p.bhs + 16) == first + k);
        ini_pdu_free(&p);
    }
    ini_close(&i);
}

static void task_attributes_order_commands(void **state)
{
    (void)state;
    run(body_attributes);
}

/* ---- task management ---- */

static void send_tmf(struct ini *i, uint8_t function, uint8_t lun, uint32_t ref_itt)
{
    uint8_t bhs[BHS_BYTES] = {0x40 | OP_TASK_MGMT, (uint8_t)(0x80 | function)};

    bhs[9] = lun;
    put_be32(bhs + 16, ++i->itt);
    put_be32(bhs + 20, ref_itt);
    put_be32(bhs + 24, i->cmdsn);
    CHECK(ini_send(i, bhs, NULL, 0) == 0);
}

static uint8_t tmf(struct ini *i, uint8_t function, uint8_t lun, uint32_t ref_itt)
{
    struct ini_pdu p;

    send_tmf(i, function, lun, ref_itt);
    ini_expect(i, OP_TASK_MGMT_RESPONSE, &p);
    CHECK(get_be32(p.bhs + 16) == i->itt);
    return p.bhs[2];
}

static void body_abort(struct iscsiworld *w)
{
    const uint8_t cdb[10] = {0x2a, 0, 0, 0, 0, 0, 0, 1, 0, 0};
    uint8_t bhs[BHS_BYTES], data[512] = {1};
    struct co_event go;
    struct ini i;
    struct ini_pdu p;

    co_event_init(&go);
    login(&i, w, "InitialR2T=Yes\nImmediateData=No\n");
    /* a write that waits for its data */
    ini_cmd_bhs(&i, bhs, FLAG_FINAL | FLAG_WRITE, cdb, 10, 131072);
    CHECK(ini_send(&i, bhs, NULL, 0) == 0);
    ini_expect(&i, OP_R2T, &p);
    uint32_t ttt = get_be32(p.bhs + 20), itt = i.itt;
    CHECK(tmf(&i, 1, 0, itt) == 0);
    CHECK(tmf(&i, 1, 0, itt) == 1); /* no such task */
    /* its data comes late and hits nobody */
    uint8_t d[BHS_BYTES] = {OP_DATA_OUT, FLAG_FINAL};
    put_be32(d + 16, itt);
    put_be32(d + 20, ttt);
    CHECK(ini_send(&i, d, data, 512) == 0);
    CHECK(ini_write(&i, 0, data, 512).status == 0);
    ini_close(&i);
    /* a write under way is not cancelled: the answer waits for its end */
    login(&i, w, IW_NORMAL);
    block_backend_mem_hold(w->backends[1], &go, 0, 1);
    const uint8_t small[10] = {0x2a, 0, 0, 0, 0, 5, 0, 0, 1, 0};
    ini_cmd_bhs(&i, bhs, FLAG_FINAL | FLAG_WRITE, small, 10, 512);
    CHECK(ini_send(&i, bhs, data, 512) == 0);
    send_tmf(&i, 1, 0, i.itt);
    CHECK(co_sleep(NSEC_PER_SEC) == 0);
    CHECK(!net_readable(i.net));
    co_event_set(&go, 0);
    ini_expect(&i, OP_TASK_MGMT_RESPONSE, &p);
    CHECK(p.bhs[2] == 0);
    CHECK(tmf(&i, 5, 77, TAG_NONE) == 2); /* no such unit */
    CHECK(tmf(&i, 3, 0, TAG_NONE) == 5);  /* CLEAR ACA */
    CHECK(tmf(&i, 8, 0, TAG_NONE) == 4);  /* TASK REASSIGN */
    CHECK(tmf(&i, 99, 0, TAG_NONE) == 255);
    ini_close(&i);
}

static void abort_task_answers_after_the_end(void **state)
{
    (void)state;
    run(body_abort);
}

static void body_reset(struct iscsiworld *w)
{
    const uint8_t cdb[10] = {0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0};
    const uint8_t tur[6] = {0};
    static const struct {
        uint8_t function;
        uint8_t own, other; /* attention codes expected, 0: none */
    } table[] = {{2, 0, 0}, {4, 0, 0x2f}, {5, 0x29, 0x29}, {6, 0x29, 0x29}};
    uint8_t bhs[BHS_BYTES];
    struct ini a, b;
    struct ini_result r;

    login(&a, w, IW_NORMAL);
    ini_connect(&b, w->addr);
    CHECK(ini_login(&b, "iqn.b", IW_IQN, IW_NORMAL) == 0);
    ini_clear_attentions(&b);
    for (size_t k = 0; k < ARRAY_SIZE(table); k++) {
        struct co_event go;
        struct ini_pdu p;

        co_event_init(&go);
        block_backend_mem_hold(w->backends[1], &go, 0, 2);
        ini_cmd_bhs(&a, bhs, FLAG_FINAL | FLAG_READ, cdb, 10, 512);
        CHECK(ini_send(&a, bhs, NULL, 0) == 0);
        ini_cmd_bhs(&b, bhs, FLAG_FINAL | FLAG_READ, cdb, 10, 512);
        CHECK(ini_send(&b, bhs, NULL, 0) == 0);
        CHECK(co_sleep(10 * NSEC_PER_MSEC) == 0);
        send_tmf(&a, table[k].function, 0, TAG_NONE);
        CHECK(co_sleep(10 * NSEC_PER_MSEC) == 0);
        co_event_set(&go, 0);
        ini_expect(&a, OP_TASK_MGMT_RESPONSE, &p);
        CHECK(p.bhs[2] == 0);
        if (table[k].function == 2) { /* the other's command is untouched */
            ini_expect(&b, OP_DATA_IN, &p);
            ini_pdu_free(&p);
        }
        r = ini_cmd(&a, tur, 6, NULL, 0, NULL, 0);
        CHECK(r.asc == table[k].own);
        r = ini_cmd(&b, tur, 6, NULL, 0, NULL, 0);
        CHECK(r.asc == table[k].other);
    }
    /* cold: everybody goes */
    send_tmf(&a, 7, 0, TAG_NONE);
    struct ini_pdu p;
    ini_expect(&a, OP_TASK_MGMT_RESPONSE, &p);
    ini_expect_closed(&a);
    ini_expect_closed(&b);
    ini_close(&a);
    ini_close(&b);
}

static void resets_reach_every_session(void **state)
{
    (void)state;
    run(body_reset);
}

/* ---- other requests ---- */

static void body_others(struct iscsiworld *w)
{
    uint8_t bhs[BHS_BYTES] = {OP_NOP_OUT, FLAG_FINAL}, data[513];
    struct ini i;
    struct ini_pdu p;

    login(&i, w, IW_NORMAL);
    fill(data, sizeof(data), 7);
    put_be32(bhs + 16, 5);
    put_be32(bhs + 20, TAG_NONE);
    put_be32(bhs + 24, i.cmdsn++);
    CHECK(ini_send(&i, bhs, data, sizeof(data)) == 0);
    ini_expect(&i, OP_NOP_IN, &p);
    CHECK(p.len == sizeof(data) && memcmp(p.data, data, p.len) == 0);
    CHECK(get_be32(p.bhs + 16) == 5 && get_be32(p.bhs + 20) == TAG_NONE);
    ini_pdu_free(&p);
    /* what is refused shows its header */
    memset(bhs, 0, sizeof(bhs));
    bhs[0] = 0x40 | 0x1d;
    CHECK(ini_send(&i, bhs, NULL, 0) == 0);
    ini_expect(&i, OP_REJECT, &p);
    CHECK(p.bhs[2] == REJECT_UNSUPPORTED && p.len == BHS_BYTES && p.data[0] == bhs[0]);
    ini_pdu_free(&p);
    /* connection recovery is not ours; then a real logout */
    memset(bhs, 0, sizeof(bhs));
    bhs[0] = 0x40 | OP_LOGOUT;
    bhs[1] = 0x82;
    CHECK(ini_send(&i, bhs, NULL, 0) == 0);
    ini_expect(&i, OP_LOGOUT_RESPONSE, &p);
    CHECK(p.bhs[2] == 2);
    bhs[1] = 0x80;
    CHECK(ini_send(&i, bhs, NULL, 0) == 0);
    ini_expect(&i, OP_LOGOUT_RESPONSE, &p);
    CHECK(p.bhs[2] == 0);
    ini_expect_closed(&i);
    ini_close(&i);
    /* a data segment beyond what we declared can't be followed */
    login(&i, w, IW_NORMAL);
    memset(bhs, 0, sizeof(bhs));
    bhs[0] = 0x40 | OP_NOP_OUT;
    bhs[1] = 0x80;
    put_be24(bhs + 5, 0xffffff);
    CHECK(net_writev_full(i.net, &(struct iovec){bhs, BHS_BYTES}, 1) == 0);
    ini_expect_closed(&i);
    ini_close(&i);
}

static void other_requests_are_answered(void **state)
{
    (void)state;
    run(body_others);
}

/* An initiator that vanishes in the middle of things leaves nothing behind. */
static void body_vanish(struct iscsiworld *w)
{
    const uint8_t read[10] = {0x28, 0, 0, 0, 0, 0, 0, 8, 0, 0};
    const uint8_t write[10] = {0x2a, 0, 0, 0, 0, 0, 0, 8, 0, 0};
    static uint8_t data[65536];
    struct ini i;

    for (unsigned k = 0; k < 20; k++) {
        uint8_t bhs[BHS_BYTES];

        login(&i, w, IW_NORMAL);
        for (unsigned n = 0; n < 40; n++) {
            bool writes = (n + k) % 3 == 0;

            ini_cmd_bhs(&i, bhs, (uint8_t)(FLAG_FINAL | (writes ? FLAG_WRITE : FLAG_READ)),
                        writes ? write : read, 10, 1048576);
            CHECK(ini_send(&i, bhs, data, writes ? 65536 : 0) == 0);
        }
        CHECK(co_sleep(k * 100 * NSEC_PER_USEC) == 0);
        ini_close(&i);
    }
}

static void vanishing_initiators_leave_nothing(void **state)
{
    struct iscsiworld w = {.body = body_vanish, .conf = {.memory_bytes = 4u * 1024 * 1024}};

    (void)state;
    iscsiworld_run(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(data_travels_under_all_keys),
        cmocka_unit_test(surplus_data_is_dropped),
        cmocka_unit_test(commands_wait_for_memory),
        cmocka_unit_test(damaged_data_fails_its_command),
        cmocka_unit_test(stray_data_is_judged),
        cmocka_unit_test(commands_run_in_order),
        cmocka_unit_test(the_window_limits_commands),
        cmocka_unit_test(task_attributes_order_commands),
        cmocka_unit_test(abort_task_answers_after_the_end),
        cmocka_unit_test(resets_reach_every_session),
        cmocka_unit_test(other_requests_are_answered),
        cmocka_unit_test(vanishing_initiators_leave_nothing),
    };

    log_threshold = getenv("ZBS_TEST_LOG") ? LOG_LV_DEBUG : LOG_LV_ERROR;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
