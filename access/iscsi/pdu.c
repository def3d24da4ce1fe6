/* SPDX-License-Identifier: Apache-2.0
 *
 * iSCSI headers: see pdu.h. */
#include "access/iscsi/pdu.h"

#include <string.h>
#include "common/base/err.h"

/* Data segments that an opcode may carry. */
static uint32_t pdu_data_max(uint8_t opcode, uint32_t limit_bytes)
{
    switch (opcode) {
    case OP_TASK_MGMT:
    case OP_LOGOUT:
    case OP_SNACK:
        return 0;
    default:
        return limit_bytes;
    }
}

static void pdu_parse_fields(struct pdu_in *p)
{
    const uint8_t *b = p->bhs;

    memcpy(p->lun, b + 8, 8);
    p->itt = get_be32(b + 16);
    p->cmdsn = get_be32(b + 24);
    p->exp_statsn = get_be32(b + 28);
    switch (p->opcode) {
    case OP_SCSI_COMMAND:
        p->edtl = get_be32(b + 20);
        p->cdb = p->bhs + 32;
        break;
    case OP_TASK_MGMT:
        p->ref_itt = get_be32(b + 20);
        p->ref_cmdsn = get_be32(b + 32);
        break;
    case OP_DATA_OUT:
        p->cmdsn = 0;
        p->ttt = get_be32(b + 20);
        p->datasn = get_be32(b + 36);
        p->offset = get_be32(b + 40);
        break;
    case OP_LOGIN:
        memcpy(p->isid, b + 8, 6);
        p->tsih = get_be16(b + 14);
        p->cid = get_be16(b + 20);
        break;
    case OP_LOGOUT:
        p->cid = get_be16(b + 20);
        break;
    default:
        p->ttt = get_be32(b + 20);
        break;
    }
}

/* What a header of known opcode must hold beyond its lengths. */
static int pdu_check_fields(const struct pdu_in *p, enum pdu_reject *ret_reason)
{
    *ret_reason = REJECT_PROTOCOL;
    switch (p->opcode) {
    case OP_NOP_OUT:
        if (p->itt == TAG_NONE && p->ttt == TAG_NONE && !p->immediate)
            return err_set(ERR_INVAL, "NOP-Out without a tag that is not immediate");
        return 0;
    case OP_SCSI_COMMAND:
        if (p->itt == TAG_NONE)
            return err_set(ERR_INVAL, "SCSI command without a task tag");
        if (!p->final && !(p->flags & FLAG_WRITE))
            return err_set(ERR_INVAL, "SCSI command announces Data-Out without the W bit");
        if (p->data_len > 0 && (!(p->flags & FLAG_WRITE) || p->data_len > p->edtl))
            return err_set(ERR_INVAL, "immediate data beyond the expected length");
        if ((p->flags & 7) > 4) {
            *ret_reason = REJECT_INVALID_FIELD;
            return err_set(ERR_INVAL, "unknown task attribute");
        }
        return 0;
    case OP_DATA_OUT:
        if (p->offset + p->data_len < p->offset)
            return err_set(ERR_INVAL, "Data-Out offset overflows");
        return 0;
    case OP_TEXT:
    case OP_LOGIN:
        if (p->final && (p->flags & FLAG_CONTINUE))
            return err_set(ERR_INVAL, "final and continue bits together");
        return 0;
    case OP_TASK_MGMT:
    case OP_LOGOUT:
        if (!p->final) {
            *ret_reason = REJECT_INVALID_FIELD;
            return err_set(ERR_INVAL, "F bit missing");
        }
        return 0;
    case OP_SNACK: /* error recovery level 0 has none */
        *ret_reason = REJECT_SNACK;
        return err_set(ERR_INVAL, "SNACK at error recovery level 0");
    default:
        *ret_reason = REJECT_UNSUPPORTED;
        return err_set(ERR_INVAL, "opcode 0x%02x is not a request", p->opcode);
    }
}

int pdu_parse(const uint8_t bhs[BHS_BYTES], uint32_t limit_bytes, struct pdu_in *ret,
              enum pdu_reject *ret_reason)
{
    memset(ret, 0, sizeof(*ret));
    memcpy(ret->bhs, bhs, BHS_BYTES);
    ret->opcode = bhs[0] & 0x3f;
    ret->immediate = bhs[0] & 0x40;
    ret->flags = bhs[1];
    ret->final = bhs[1] & FLAG_FINAL;
    ret->ahs_len = bhs[4] * 4u;
    ret->data_len = get_be24(bhs + 5);
    if (ret->data_len > pdu_data_max(ret->opcode, limit_bytes))
        return err_set(ERR_PROTO, "%s with a data segment of %u bytes", pdu_op_name(ret->opcode),
                       ret->data_len);
    if (ret->ahs_len > 0 && ret->opcode != OP_SCSI_COMMAND)
        return err_set(ERR_PROTO, "%s with an additional header", pdu_op_name(ret->opcode));
    pdu_parse_fields(ret);
    return pdu_check_fields(ret, ret_reason);
}

const char *pdu_op_name(uint8_t opcode)
{
    switch (opcode) {
    case OP_NOP_OUT:
        return "NOP-Out";
    case OP_SCSI_COMMAND:
        return "SCSI command";
    case OP_TASK_MGMT:
        return "task management request";
    case OP_LOGIN:
        return "login request";
    case OP_TEXT:
        return "text request";
    case OP_DATA_OUT:
        return "Data-Out";
    case OP_LOGOUT:
        return "logout request";
    case OP_SNACK:
        return "SNACK request";
    default:
        return "unknown PDU";
    }
}
