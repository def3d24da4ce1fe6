/* SPDX-License-Identifier: Apache-2.0
 *
 * Headers, text keys, negotiation, CHAP: what needs no connection. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "access/iscsi/chap.h"
#include "access/iscsi/pdu.h"

#define LIMIT 65536u

static int parse(uint8_t *bhs, struct pdu_in *p, enum pdu_reject *reason)
{
    *reason = 0;
    return pdu_parse(bhs, LIMIT, p, reason);
}

static void header_fields_are_read(void **state)
{
    uint8_t b[BHS_BYTES] = {0x41, 0xa1};
    enum pdu_reject reason;
    struct pdu_in p;

    (void)state;
    put_be24(b + 5, 512);
    put_be32(b + 16, 0x11223344);
    put_be32(b + 20, 4096);
    put_be32(b + 24, 7);
    put_be32(b + 28, 8);
    b[32] = 0x2a;
    assert_int_equal(parse(b, &p, &reason), 0);
    assert_int_equal(p.opcode, OP_SCSI_COMMAND);
    assert_true(p.immediate && p.final);
    assert_int_equal(p.data_len, 512);
    assert_int_equal(p.itt, 0x11223344);
    assert_int_equal(p.edtl, 4096);
    assert_int_equal(p.cmdsn, 7);
    assert_int_equal(p.exp_statsn, 8);
    assert_int_equal(p.cdb[0], 0x2a);

    memset(b, 0, sizeof(b));
    b[0] = OP_DATA_OUT;
    put_be32(b + 20, 5);
    put_be32(b + 36, 6);
    put_be32(b + 40, 0xfffff000);
    put_be24(b + 5, 0x800);
    assert_int_equal(parse(b, &p, &reason), 0);
    assert_false(p.final);
    assert_int_equal(p.ttt, 5);
    assert_int_equal(p.datasn, 6);
    assert_int_equal(p.offset, 0xfffff000);
}

/* What a header may not say; ERR_PROTO where its lengths can't be trusted. */
static void bad_headers_are_refused(void **state)
{
    static const struct {
        uint8_t op, flags, ahs;
        uint32_t len, itt, at20, at40;
        int rc;
        enum pdu_reject reason;
    } table[] = {
        {OP_SCSI_COMMAND, 0x80, 0, LIMIT + 1, 1, 0, 0, ERR_PROTO, 0},
        {OP_SCSI_COMMAND, 0x80, 0, 0, TAG_NONE, 0, 0, ERR_INVAL, REJECT_PROTOCOL},
        {OP_SCSI_COMMAND, 0x00, 0, 0, 1, 0, 0, ERR_INVAL, REJECT_PROTOCOL},
        {OP_SCSI_COMMAND, 0x80, 0, 512, 1, 512, 0, ERR_INVAL, REJECT_PROTOCOL},
        {OP_SCSI_COMMAND, 0xa0, 0, 513, 1, 512, 0, ERR_INVAL, REJECT_PROTOCOL},
        {OP_SCSI_COMMAND, 0xa0, 0, 512, 1, 512, 0, 0, 0},
        {OP_SCSI_COMMAND, 0x85, 0, 0, 1, 0, 0, ERR_INVAL, REJECT_INVALID_FIELD},
        {OP_SCSI_COMMAND, 0x80, 1, 0, 1, 0, 0, 0, 0},
        {OP_NOP_OUT, 0x80, 1, 0, 1, 0, 0, ERR_PROTO, 0},
        {OP_NOP_OUT, 0x80, 0, 0, TAG_NONE, TAG_NONE, 0, ERR_INVAL, REJECT_PROTOCOL},
        {OP_TASK_MGMT, 0x81, 0, 4, 1, 0, 0, ERR_PROTO, 0},
        {OP_TASK_MGMT, 0x01, 0, 0, 1, 0, 0, ERR_INVAL, REJECT_INVALID_FIELD},
        {OP_TEXT, 0xc0, 0, 0, 1, 0, 0, ERR_INVAL, REJECT_PROTOCOL},
        {OP_DATA_OUT, 0x80, 0, 8, 1, 1, 0xfffffffc, ERR_INVAL, REJECT_PROTOCOL},
        {OP_LOGOUT, 0x80, 0, 0, 1, 0, 0, 0, 0},
        {OP_SNACK, 0x80, 0, 0, 1, 0, 0, ERR_INVAL, REJECT_SNACK},
        {0x1c, 0x80, 0, 0, 1, 0, 0, ERR_INVAL, REJECT_UNSUPPORTED},
        {OP_SCSI_RESPONSE, 0x80, 0, 0, 1, 0, 0, ERR_INVAL, REJECT_UNSUPPORTED},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        uint8_t b[BHS_BYTES] = {table[i].op, table[i].flags};
        enum pdu_reject reason;
        struct pdu_in p;

        b[4] = table[i].ahs;
        put_be24(b + 5, table[i].len);
        put_be32(b + 16, table[i].itt);
        put_be32(b + 20, table[i].at20);
        put_be32(b + 40, table[i].at40);
        assert_int_equal(parse(b, &p, &reason), table[i].rc);
        if (table[i].rc == ERR_INVAL)
            assert_int_equal(reason, table[i].reason);
    }
}

static void text_is_split(void **state)
{
    char good[] = "A=1\0Key=a=b\0\0Empty=\0";
    char open[] = {'A', '=', '1'};
    char no_equals[] = "Abc";
    struct text_in in = {good, good + sizeof(good) - 1};
    char *k, *v;

    (void)state;
    assert_int_equal(text_next(&in, &k, &v), 1);
    assert_string_equal(k, "A");
    assert_string_equal(v, "1");
    assert_int_equal(text_next(&in, &k, &v), 1);
    assert_string_equal(v, "a=b");
    assert_int_equal(text_next(&in, &k, &v), 1);
    assert_string_equal(k, "Empty");
    assert_string_equal(v, "");
    assert_int_equal(text_next(&in, &k, &v), 0);
    in = (struct text_in){open, open + 3};
    assert_int_equal(text_next(&in, &k, &v), ERR_PROTO);
    in = (struct text_in){no_equals, no_equals + 4};
    assert_int_equal(text_next(&in, &k, &v), ERR_PROTO);
    assert_true(text_list_has("CHAP,None", "None"));
    assert_false(text_list_has("CHAPX,No", "CHAP"));
}

static void keys_are_negotiated(void **state)
{
    static const struct {
        const char *key, *value, *answer;
        int param; /* -1: none */
        uint32_t result;
    } table[] = {
        {"HeaderDigest", "CRC32C,None", "CRC32C", PARAM_HEADER_DIGEST, 1},
        {"DataDigest", "Foo,None", "None", PARAM_DATA_DIGEST, 0},
        {"InitialR2T", "Yes", "Yes", PARAM_INITIAL_R2T, 1},
        {"ImmediateData", "No", "No", PARAM_IMMEDIATE_DATA, 0},
        {"MaxRecvDataSegmentLength", "65536", NULL, PARAM_MAX_RECV_DATA, 65536},
        {"MaxBurstLength", "16776192", "1048576", PARAM_MAX_BURST, 1048576},
        {"FirstBurstLength", "0x1000", "4096", PARAM_FIRST_BURST, 4096},
        {"DefaultTime2Wait", "3", "3", PARAM_TIME2WAIT, 3},
        {"MaxOutstandingR2T", "16", "4", PARAM_MAX_R2T, 4},
        {"MaxConnections", "16", "8", PARAM_MAX_CONNECTIONS, 8},
        {"ErrorRecoveryLevel", "2", "0", PARAM_ERROR_RECOVERY, 0},
        {"IFMarker", "No", "No", PARAM_IF_MARKER, 0},
        {"X-com.example.Foo", "1", "NotUnderstood", -1, 0},
    };
    char answer[512];
    struct text_out out = {answer, sizeof(answer), 0, false};
    struct params p;

    (void)state;
    params_init(&p);
    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        out.len = 0;
        assert_int_equal(params_negotiate(&p, table[i].key, table[i].value, false, &out), 0);
        if (table[i].answer == NULL) {
            assert_int_equal(out.len, 0);
        } else {
            assert_memory_equal(answer, table[i].key, strlen(table[i].key));
            assert_string_equal(answer + strlen(table[i].key) + 1, table[i].answer);
        }
        if (table[i].param >= 0)
            assert_int_equal(p.value[table[i].param], table[i].result);
    }
    params_finish(&p);
    assert_int_equal(p.value[PARAM_FIRST_BURST], 4096);
    assert_int_equal(params_negotiate(&p, "InitialR2T", "No", false, &out), ERR_PROTO); /* twice */
    params_init(&p);
    assert_int_equal(params_negotiate(&p, "InitialR2T", "Maybe", false, &out), ERR_PROTO);
    assert_int_equal(params_negotiate(&p, "MaxBurstLength", "511", false, &out), ERR_PROTO);
    assert_int_equal(params_negotiate(&p, "FirstBurstLength", "1x", false, &out), ERR_PROTO);
    out.len = 0;
    params_init(&p);
    assert_int_equal(params_negotiate(&p, "MaxConnections", "8", true, &out), 0);
    assert_string_equal(answer, "MaxConnections=Irrelevant");
    out.len = out.cap - 3;
    assert_int_equal(params_negotiate(&p, "InitialR2T", "No", false, &out), 0);
    assert_true(out.overflow);
}

static void chap_responses_are_right(void **state)
{
    /* computed with openssl dgst over id, secret, challenge */
    static const uint8_t challenge[4] = {0xde, 0xad, 0xbe, 0xef};
    uint8_t got[CHAP_DIGEST_BYTES], want[CHAP_DIGEST_BYTES];

    (void)state;
    assert_int_equal(chap_response(5, 0x2a, "secretsecret12", challenge, 4, got), 16);
    assert_int_equal(chap_decode("0x374242664c945028d97f468e073fffcd", want, sizeof(want)), 16);
    assert_memory_equal(got, want, 16);
    assert_int_equal(chap_response(7, 0x2a, "secretsecret12", challenge, 4, got), 32);
    assert_int_equal(
        chap_decode("0x920a27d55e660934c335ad1578d03a75c5a8896dad143fc4bdac77b10a95c5c9", want,
                    sizeof(want)),
        32);
    assert_memory_equal(got, want, 32);
    assert_int_equal(chap_response(9, 0x2a, "x", challenge, 4, got), 0);

    assert_int_equal(chap_decode("0b3q2+7w==", want, sizeof(want)), 4);
    assert_memory_equal(want, challenge, 4);
    assert_int_equal(chap_decode("0xabc", want, sizeof(want)), 2);
    assert_int_equal(want[0], 0x0a);
    assert_int_equal(chap_decode("0xzz", want, sizeof(want)), -1);
    assert_int_equal(chap_decode("1234", want, sizeof(want)), -1);
    assert_int_equal(chap_decode("0x112233", want, 2), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(header_fields_are_read),
        cmocka_unit_test(bad_headers_are_refused),
        cmocka_unit_test(text_is_split),
        cmocka_unit_test(keys_are_negotiated),
        cmocka_unit_test(chap_responses_are_right),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
