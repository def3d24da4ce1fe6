/* SPDX-License-Identifier: Apache-2.0
 *
 * An iSCSI initiator for tests: see iscsi_ini.h. */
#include "tests/lib/iscsi_ini.h"

#include <stdio.h>
#include <string.h>
#include "common/base/assert.h"
#include "common/base/crc32c.h"
#include "common/base/mem.h"

#define CHECK(x) ASSERTF(x, "in the test's initiator")

co_fn void ini_connect(struct ini *i, const char *addr)
{
    memset(i, 0, sizeof(*i));
    i->cmdsn = 100;
    i->qualifier = 7;
    i->max_send = 8192;
    i->initial_r2t = true;
    i->immediate_data = true;
    i->first_burst = 65536;
    CHECK(net_connect(addr, &i->net) == 0);
}

void ini_close(struct ini *i)
{
    net_close(i->net);
    i->net = NULL;
}

co_fn int ini_send(struct ini *i, uint8_t bhs[BHS_BYTES], const void *data, uint32_t len)
{
    uint8_t head_digest[4], tail[8] = {0};
    uint32_t pad = pdu_pad(len);
    struct iovec iov[4];
    int n = 0;

    put_be24(bhs + 5, len);
    put_be32(bhs + 28, i->exp_statsn);
    iov[n++] = (struct iovec){bhs, BHS_BYTES};
    if (i->header_digest) {
        put_le32(head_digest, crc32c(0, bhs, BHS_BYTES));
        iov[n++] = (struct iovec){head_digest, 4};
    }
    if (len > 0) {
        iov[n++] = (struct iovec){(void *)(uintptr_t)data, len};
        if (i->data_digest)
            put_le32(tail + pad, crc32c(crc32c(0, data, len), tail, pad));
        if (pad > 0 || i->data_digest)
            iov[n++] = (struct iovec){tail, pad + (i->data_digest ? 4 : 0)};
    }
    return net_writev_full(i->net, iov, n);
}

co_fn int ini_recv(struct ini *i, struct ini_pdu *ret)
{
    uint8_t digest[4], tail[8];
    uint32_t n;
    int rc;

    memset(ret, 0, sizeof(*ret));
    rc = net_read_full(i->net, ret->bhs, BHS_BYTES);
    if (rc == 0 && i->header_digest) {
        rc = net_read_full(i->net, digest, 4);
        if (rc == 0)
            CHECK(get_le32(digest) == crc32c(0, ret->bhs, BHS_BYTES));
    }
    if (rc < 0)
        return rc;
    ret->op = ret->bhs[0] & 0x3f;
    ret->len = get_be24(ret->bhs + 5);
    if (ret->len > 0) {
        ret->data = mem_alloc(ret->len);
        rc = net_read_full(i->net, ret->data, ret->len);
        n = pdu_pad(ret->len) + (i->data_digest ? 4 : 0);
        if (rc == 0 && n > 0)
            rc = net_read_full(i->net, tail, n);
        if (rc == 0 && i->data_digest)
            CHECK(get_le32(tail + n - 4) ==
                  crc32c(crc32c(0, ret->data, ret->len), tail, pdu_pad(ret->len)));
    }
    if (rc < 0) {
        mem_free(ret->data);
        return rc;
    }
    /* StatSN counts answers; R2T and unasked NOP-In only show the next one */
    bool numbered = ret->op != OP_R2T && !(ret->op == OP_DATA_IN && !(ret->bhs[1] & FLAG_STATUS)) &&
                    !(ret->op == OP_NOP_IN && get_be32(ret->bhs + 16) == TAG_NONE);
    if (i->exp_statsn != 0 && !(ret->op == OP_DATA_IN && !(ret->bhs[1] & FLAG_STATUS)))
        CHECK(get_be32(ret->bhs + 24) == i->exp_statsn);
    if (numbered)
        i->exp_statsn = get_be32(ret->bhs + 24) + 1;
    return 0;
}

void ini_pdu_free(struct ini_pdu *p)
{
    mem_free(p->data);
    p->data = NULL;
}

co_fn void ini_expect(struct ini *i, enum iscsi_op op, struct ini_pdu *ret)
{
    int rc = ini_recv(i, ret);

    ASSERTF(rc == 0, "expected a PDU: %s", err_text(rc));
    ASSERTF(ret->op == (uint8_t)op, "expected opcode 0x%02x, got 0x%02x", op, ret->op);
}

co_fn void ini_expect_closed(struct ini *i)
{
    struct ini_pdu p;
    int rc;

    while ((rc = ini_recv(i, &p)) == 0)
        ini_pdu_free(&p);
    CHECK(rc == ERR_CLOSED);
}

co_fn uint16_t ini_login_step(struct ini *i, uint8_t flags, const char *keys, uint8_t *ret_flags)
{
    uint8_t bhs[BHS_BYTES] = {0x40 | OP_LOGIN, flags};
    char text[8192];
    size_t len = strlen(keys);
    struct ini_pdu p;

    CHECK(len < sizeof(text));
    for (size_t k = 0; k < len; k++)
        text[k] = keys[k] == '\n' ? '\0' : keys[k];
    bhs[8] = 0x80; /* ISID: random format */
    bhs[13] = i->qualifier;
    put_be16(bhs + 14, i->tsih);
    put_be16(bhs + 20, i->cid);
    put_be32(bhs + 16, i->itt);
    put_be32(bhs + 24, i->cmdsn);
    CHECK(ini_send(i, bhs, text, (uint32_t)len) == 0);
    if (ini_recv(i, &p) < 0)
        return 0xffff;
    CHECK(p.op == OP_LOGIN_RESPONSE && p.len < sizeof(i->text));
    CHECK(get_be32(p.bhs + 16) == i->itt);
    if (p.len > 0)
        memcpy(i->text, p.data, p.len);
    i->text_len = p.len;
    i->login_status = get_be16(p.bhs + 36);
    if (i->login_status == 0 && (p.bhs[1] & 0x83) == 0x83)
        i->tsih = get_be16(p.bhs + 14);
    if (ret_flags != NULL)
        *ret_flags = p.bhs[1];
    ini_pdu_free(&p);
    return i->login_status;
}

co_fn void ini_text(struct ini *i, const char *keys)
{
    uint8_t bhs[BHS_BYTES] = {OP_TEXT, FLAG_FINAL};
    struct ini_pdu p;
    char text[256];
    size_t len = strlen(keys) + 1;

    memcpy(text, keys, len);
    put_be32(bhs + 16, ++i->itt);
    put_be32(bhs + 20, TAG_NONE);
    put_be32(bhs + 24, i->cmdsn++);
    CHECK(ini_send(i, bhs, text, (uint32_t)len) == 0);
    i->text_len = 0;
    for (;;) {
        ini_expect(i, OP_TEXT_RESPONSE, &p);
        CHECK(i->text_len + p.len < sizeof(i->text));
        if (p.len > 0)
            memcpy(i->text + i->text_len, p.data, p.len);
        i->text_len += p.len;
        bool more = !(p.bhs[1] & FLAG_FINAL);
        uint32_t ttt = get_be32(p.bhs + 20);
        ini_pdu_free(&p);
        if (!more)
            return;
        memset(bhs, 0, sizeof(bhs));
        bhs[0] = OP_TEXT;
        bhs[1] = FLAG_FINAL;
        put_be32(bhs + 16, i->itt);
        put_be32(bhs + 20, ttt);
        put_be32(bhs + 24, i->cmdsn++);
        CHECK(ini_send(i, bhs, NULL, 0) == 0);
    }
}

const char *ini_text_value(const struct ini *i, const char *key)
{
    size_t n = strlen(key);

    for (uint32_t at = 0; at < i->text_len; at += (uint32_t)strlen(i->text + at) + 1) {
        if (strncmp(i->text + at, key, n) == 0 && i->text[at + n] == '=')
            return i->text + at + n + 1;
    }
    return NULL;
}

co_fn uint16_t ini_login(struct ini *i, const char *initiator, const char *target, const char *keys)
{
    char *all = target != NULL
                    ? mem_printf("InitiatorName=%s\nTargetName=%s\nSessionType=Normal\n%s",
                                 initiator, target, keys)
                    : mem_printf("InitiatorName=%s\nSessionType=Discovery\n%s", initiator, keys);
    uint8_t flags = 0;
    uint16_t status = ini_login_step(i, 0x87, all, &flags); /* T, operational to full feature */
    const char *v;

    mem_free(all);
    if (status != 0)
        return status;
    CHECK(flags == 0x87);
    if ((v = ini_text_value(i, "HeaderDigest")) != NULL)
        i->header_digest = strcmp(v, "CRC32C") == 0;
    if ((v = ini_text_value(i, "DataDigest")) != NULL)
        i->data_digest = strcmp(v, "CRC32C") == 0;
    if ((v = ini_text_value(i, "InitialR2T")) != NULL)
        i->initial_r2t = strcmp(v, "Yes") == 0;
    if ((v = ini_text_value(i, "ImmediateData")) != NULL)
        i->immediate_data = strcmp(v, "Yes") == 0;
    if ((v = ini_text_value(i, "FirstBurstLength")) != NULL)
        CHECK(sscanf(v, "%u", &i->first_burst) == 1);
    if ((v = ini_text_value(i, "MaxRecvDataSegmentLength")) != NULL)
        CHECK(sscanf(v, "%u", &i->max_send) == 1);
    return 0;
}

void ini_cmd_bhs(struct ini *i, uint8_t bhs[BHS_BYTES], uint8_t flags, const uint8_t *cdb,
                 size_t cdb_len, uint32_t edtl)
{
    memset(bhs, 0, BHS_BYTES);
    bhs[0] = OP_SCSI_COMMAND;
    bhs[1] = (uint8_t)(flags | 1); /* SIMPLE */
    bhs[9] = i->lun;
    put_be32(bhs + 16, ++i->itt);
    put_be32(bhs + 20, edtl);
    put_be32(bhs + 24, i->cmdsn++);
    memcpy(bhs + 32, cdb, cdb_len);
}

/* Data-Out of [at, end) in as many PDUs as needed; ttt TAG_NONE: unsolicited. */
static co_fn void send_data(struct ini *i, uint32_t itt, uint32_t ttt, const uint8_t *out,
                            uint32_t at, uint32_t end)
{
    for (uint32_t sn = 0, n; at < end; at += n, sn++) {
        uint8_t bhs[BHS_BYTES] = {OP_DATA_OUT};

        n = MIN(end - at, i->max_send);
        bhs[1] = at + n == end ? FLAG_FINAL : 0;
        put_be32(bhs + 16, itt);
        put_be32(bhs + 20, ttt);
        put_be32(bhs + 36, sn);
        put_be32(bhs + 40, at);
        CHECK(ini_send(i, bhs, out + at, n) == 0);
    }
}

static void take_response(const struct ini_pdu *p, struct ini_result *r)
{
    r->status = p->bhs[3];
    r->residual = get_be32(p->bhs + 44);
    r->residual_flags = p->bhs[1] & (FLAG_OVERFLOW | FLAG_UNDERFLOW);
    if (p->op == OP_SCSI_RESPONSE && p->len >= 2 + 18 && (p->data[2] & 0x7f) == 0x70) {
        r->key = p->data[2 + 2];
        r->asc = p->data[2 + 12];
        r->ascq = p->data[2 + 13];
    }
}

co_fn struct ini_result ini_cmd(struct ini *i, const uint8_t *cdb, size_t cdb_len, const void *out,
                                uint32_t out_len, void *in, uint32_t in_len)
{
    uint32_t immediate = 0, unsolicited = 0, sn = 0;
    struct ini_result r = {0};
    uint8_t bhs[BHS_BYTES];
    struct ini_pdu p;

    if (out_len > 0 && i->immediate_data)
        immediate = MIN(MIN(out_len, i->first_burst), i->max_send);
    if (out_len > 0 && !i->initial_r2t)
        unsolicited = MIN(out_len, i->first_burst);
    unsolicited = MAX(unsolicited, immediate);
    ini_cmd_bhs(i, bhs,
                (uint8_t)((unsolicited > immediate ? 0 : FLAG_FINAL) | (out_len ? FLAG_WRITE : 0) |
                          (in_len ? FLAG_READ : 0)),
                cdb, cdb_len, MAX(out_len, in_len));
    uint32_t itt = i->itt;
    CHECK(ini_send(i, bhs, out, immediate) == 0);
    if (unsolicited > immediate)
        send_data(i, itt, TAG_NONE, out, immediate, unsolicited);
    for (;;) {
        CHECK(ini_recv(i, &p) == 0);
        CHECK(get_be32(p.bhs + 16) == itt);
        if (p.op == OP_R2T) {
            uint32_t at = get_be32(p.bhs + 40), len = get_be32(p.bhs + 44);

            CHECK(get_be32(p.bhs + 36) == r.r2ts && at + len <= out_len);
            r.r2ts++;
            send_data(i, itt, get_be32(p.bhs + 20), out, at, at + len);
            ini_pdu_free(&p);
            continue;
        }
        if (p.op == OP_DATA_IN) {
            uint32_t at = get_be32(p.bhs + 40);

            CHECK(at == r.got && at + p.len <= in_len);
            CHECK(get_be32(p.bhs + 36) == sn++);
            CHECK(in != NULL && p.data != NULL);
            memcpy((uint8_t *)in + at, p.data, p.len);
            r.got += p.len;
            r.data_pdus++;
            if (!(p.bhs[1] & FLAG_STATUS)) {
                ini_pdu_free(&p);
                continue;
            }
        } else {
            CHECK(p.op == OP_SCSI_RESPONSE);
        }
        take_response(&p, &r);
        ini_pdu_free(&p);
        return r;
    }
}

co_fn struct ini_result ini_read(struct ini *i, uint32_t lba, void *dst, uint32_t len)
{
    uint8_t cdb[10] = {0x28};

    put_be32(cdb + 2, lba);
    put_be16(cdb + 7, (uint16_t)(len / 512));
    return ini_cmd(i, cdb, 10, NULL, 0, dst, len);
}

co_fn struct ini_result ini_write(struct ini *i, uint32_t lba, const void *src, uint32_t len)
{
    uint8_t cdb[10] = {0x2a};

    put_be32(cdb + 2, lba);
    put_be16(cdb + 7, (uint16_t)(len / 512));
    return ini_cmd(i, cdb, 10, src, len, NULL, 0);
}

co_fn unsigned ini_clear_attentions(struct ini *i)
{
    uint8_t cdb[6] = {0};
    unsigned n = 0;

    while (ini_cmd(i, cdb, 6, NULL, 0, NULL, 0).status != 0)
        CHECK(++n < 10);
    return n;
}
