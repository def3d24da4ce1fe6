/* SPDX-License-Identifier: Apache-2.0
 *
 * Fuzzes what an iSCSI portal receives. The first byte chooses:
 *   0  a header, as it is; the rest as login text
 *   1  bytes to a portal, from the very start
 *   2  bytes to a portal behind a good login (full feature phase)
 *   3  the same, but cut into PDUs whose lengths and numbers are made right, so that what lies
 *      behind the header checks is reached; a byte chooses how a PDU is made
 *   4  as 3, with header and data digests
 *   5  a CDB with its data, to the SCSI target alone
 *   6  as 3 in a discovery session
 *   7  a record of reservations
 * Whatever comes, nothing may crash, hang or leak, and a good initiator is still served. */
#include <string.h>
#include "access/iscsi/param.h"
#include "access/scsi/scsi_int.h"
#include "common/base/assert.h"
#include "common/base/mem.h"
#include "tests/lib/fuzz.h"
#include "tests/lib/iscsiworld.h"

#define CHECK(x) ASSERTF(x, "seen here")

/* ---- parsers ---- */

static void fuzz_header(struct fuzz_input *in)
{
    uint8_t bhs[BHS_BYTES] = {0};
    char text[8192], answer[8192], *k, *v;
    struct text_out out = {answer, sizeof(answer), 0, false};
    enum pdu_reject reason;
    struct params params;
    struct pdu_in p;

    fuzz_take(in, bhs, sizeof(bhs));
    int rc = pdu_parse(bhs, 65536, &p, &reason);
    CHECK(rc == 0 || rc == ERR_PROTO || rc == ERR_INVAL);
    CHECK(rc == ERR_PROTO || p.data_len <= 65536);
    struct text_in t = {text, text + fuzz_take(in, text, sizeof(text))};
    params_init(&params);
    while (text_next(&t, &k, &v) > 0)
        if (params_negotiate(&params, k, v, false, &out) < 0)
            break;
    params_finish(&params);
    CHECK(params.value[PARAM_FIRST_BURST] <= params.value[PARAM_MAX_BURST]);
    CHECK(params.value[PARAM_MAX_RECV_DATA] >= 512);
    CHECK(params.value[PARAM_MAX_R2T] >= 1 && params.value[PARAM_MAX_R2T] <= OUR_MAX_R2T);
}

static void fuzz_cdb(struct fuzz_input *in)
{
    struct pr_registry reservations;
    struct pr_unit *pr;
    struct scsi_target t;
    struct scsi_nexus n;
    struct scsi_lun *lun;

    pr_registry_init(&reservations, NULL);
    CHECK(pr_unit_get(&reservations, 1, &pr) == 0);
    scsi_target_init(&t, IW_IQN);
    lun = scsi_lun_add(&t, 0);
    scsi_lun_attach(lun, block_backend_mem_new(1, 1024 * 1024), pr);
    scsi_nexus_init(&n, &t, "127.0.0.1:3260", 1, "iqn.one,i,0x000000000001");
    memset(n.ua, 0, sizeof(n.ua));
    while (in->size > 0) {
        struct scsi_cmd c = {.nexus = &n};
        uint8_t sense[SCSI_SENSE_MAX], pick = fuzz_u8(in);
        bool known;

        fuzz_take(in, c.cdb, sizeof(c.cdb));
        if (pick & 1) { /* a command that exists, with legal bits only */
            const struct scsi_row *row = &scsi_rows[c.cdb[0] % scsi_row_count];

            for (unsigned i = 0; i < row->cdb_len; i++)
                c.cdb[i] &= row->usage[i];
            c.cdb[0] = row->opcode;
            if (row->service_action >= 0)
                c.cdb[1] = (uint8_t)((c.cdb[1] & 0xe0) | row->service_action);
            CHECK(scsi_row_find(c.cdb, &known) == row);
        }
        c.lun_number = pick >> 6 == 3;
        c.out_expected = fuzz_u8(in) * 128u;
        c.in_expected = pick & 2 ? fuzz_u8(in) * 128u : 0;
        scsi_cmd_start(&c);
        CHECK(c.out_len <= c.out_expected);
        if (!c.done) {
            if (c.out_len > 0) {
                c.out = buf_alloc(c.out_len);
                memset(c.out->data, 0, c.out_len);
                fuzz_take(in, c.out->data, c.out_len);
            }
            scsi_cmd_execute(&c);
        }
        CHECK(c.done && c.in_len <= c.in_expected);
        CHECK(c.in_len == 0 || c.in->cap >= c.in_len);
        CHECK(scsi_cmd_sense(&c, sense) <= SCSI_SENSE_MAX);
        scsi_cmd_end(&c);
    }
    scsi_nexus_fini(&n);
    scsi_lun_remove(lun);
    scsi_target_fini(&t);
    pr_registry_fini(&reservations);
}

/* A record of reservations: what is taken for one is written back as it was. */
static void fuzz_record(struct fuzz_input *in)
{
    uint8_t bytes[4096], *again;
    size_t len = fuzz_take(in, bytes, sizeof(bytes));
    struct pr_state s;

    pr_state_init(&s);
    if (pr_decode(&s, bytes, len) == 0) {
        CHECK(pr_encode(&s, &again) == len);
        mem_free(again);
    }
    pr_state_fini(&s);
}

/* ---- connections ---- */

/* One PDU made of input: opcode among those that exist, numbers and lengths plausible. */
static void send_pdu(struct ini *i, struct fuzz_input *in)
{
    static const uint8_t ops[] = {OP_SCSI_COMMAND, OP_SCSI_COMMAND, OP_DATA_OUT, OP_DATA_OUT,
                                  OP_NOP_OUT,      OP_TASK_MGMT,    OP_TEXT,     OP_SNACK,
                                  OP_SCSI_COMMAND, OP_LOGIN,        OP_LOGOUT,   OP_DATA_OUT};
    uint8_t bhs[BHS_BYTES] = {0}, data[2048], how = fuzz_u8(in);
    uint32_t len;

    fuzz_take(in, bhs, sizeof(bhs));
    bhs[0] = (uint8_t)(ops[how % ARRAY_SIZE(ops)] | (how & 0x40));
    bhs[4] = how & 0x80 ? bhs[4] & 1 : 0;
    if (bhs[4])
        i->header_digest = false; /* ini_send knows no additional header: end of the line */
    memset(bhs + 8, 0, 8);
    bhs[9] = how >> 4 & 1;
    put_be32(bhs + 16, bhs[19] & 7); /* few tags, so that they collide */
    if (bhs[0] == OP_DATA_OUT)
        put_be32(bhs + 20, how & 0x20 ? TAG_NONE : get_be32(bhs + 20) & 0x0007000f);
    else if (bhs[0] == OP_SCSI_COMMAND)
        put_be32(bhs + 20, get_be32(bhs + 20) & 0xffff);
    if (bhs[0] != OP_DATA_OUT)
        put_be32(bhs + 24, bhs[0] & 0x40 || !(bhs[27] & 0xe0) ? i->cmdsn : i->cmdsn++);
    if (bhs[0] == OP_DATA_OUT) {
        put_be32(bhs + 36, bhs[39] & 3);
        put_be32(bhs + 40, get_be32(bhs + 40) & 0x0e00);
    }
    len = (uint32_t)fuzz_take(in, data, (bhs[7] & 3) * 512u);
    if (ini_send(i, bhs, data, len) < 0)
        in->size = 0;
}

/* A good initiator is served as if nothing had happened. */
static void check_good(struct iscsiworld *w)
{
    uint8_t data[1024], back[1024];
    struct ini i;

    ini_connect(&i, w->addr);
    CHECK(ini_login(&i, "iqn.good", IW_IQN, IW_NORMAL) == 0);
    ini_clear_attentions(&i);
    memset(data, 0x5a, sizeof(data));
    struct ini_result r = ini_write(&i, 16, data, sizeof(data));
    CHECK(r.status == 0 || r.asc == 0x27); /* 27: the fuzzer may have write-protected it */
    if (r.status == 0) {
        CHECK(ini_read(&i, 16, back, sizeof(back)).status == 0);
        CHECK(memcmp(data, back, sizeof(data)) == 0);
    }
    ini_close(&i);
}

static void body(struct iscsiworld *w)
{
    struct fuzz_input *in = w->arg;
    struct ini i;

    ini_connect(&i, w->addr);
    if (in->mode == 6)
        CHECK(ini_login(&i, IW_INI, NULL, "") == 0);
    else if (in->mode == 4)
        CHECK(ini_login(&i, IW_INI, IW_IQN, IW_NORMAL "HeaderDigest=CRC32C\nDataDigest=CRC32C\n") ==
              0);
    else if (in->mode >= 2)
        CHECK(ini_login(&i, IW_INI, IW_IQN, IW_NORMAL) == 0);
    if (in->mode <= 2) {
        (void)fuzz_send(i.net, in->data, in->size);
    } else {
        while (in->size > 0)
            send_pdu(&i, in);
    }
    (void)!co_sleep(NSEC_PER_MSEC);
    ini_close(&i);
    check_good(w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct iscsiworld w = {.body = body, .conf = {.window = 8, .logout_timeout_ms = 1}};
    struct fuzz_input in;

    w.conf.reservations = true;
    if (!fuzz_begin(&in, data, size, 8))
        return 0;
    w.arg = &in;
    if (in.mode == 0)
        fuzz_header(&in);
    else if (in.mode == 5)
        fuzz_cdb(&in);
    else if (in.mode == 7)
        fuzz_record(&in);
    else
        iscsiworld_run(&w);
    return 0;
}
