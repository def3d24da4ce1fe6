/* SPDX-License-Identifier: Apache-2.0
 *
 * iSCSI protocol data units (RFC 7143, section 11): the 48-byte header as numbers, and back.
 * pdu_parse is the one place where a header from outside is judged; what it returned may be
 * relied on. */
#ifndef ZBS_ACCESS_ISCSI_PDU_H
#define ZBS_ACCESS_ISCSI_PDU_H

#include <stdbool.h>
#include <stddef.h>
#include "common/base/bytes.h"
#include "common/base/attr.h"

#define BHS_BYTES    48u
#define DIGEST_BYTES 4u
#define TAG_NONE     0xffffffffu /* ITT or TTT that names no task */

enum iscsi_op {
    OP_NOP_OUT = 0x00,
    OP_SCSI_COMMAND = 0x01,
    OP_TASK_MGMT = 0x02,
    OP_LOGIN = 0x03,
    OP_TEXT = 0x04,
    OP_DATA_OUT = 0x05,
    OP_LOGOUT = 0x06,
    OP_SNACK = 0x10,
    OP_NOP_IN = 0x20,
    OP_SCSI_RESPONSE = 0x21,
    OP_TASK_MGMT_RESPONSE = 0x22,
    OP_LOGIN_RESPONSE = 0x23,
    OP_TEXT_RESPONSE = 0x24,
    OP_DATA_IN = 0x25,
    OP_LOGOUT_RESPONSE = 0x26,
    OP_R2T = 0x31,
    OP_ASYNC = 0x32,
    OP_REJECT = 0x3f,
};

enum pdu_reject {
    REJECT_DATA_DIGEST = 0x02,
    REJECT_SNACK = 0x03,
    REJECT_PROTOCOL = 0x04,
    REJECT_UNSUPPORTED = 0x05,
    REJECT_TOO_MANY_IMMEDIATE = 0x06,
    REJECT_INVALID_FIELD = 0x09,
};

/* flags of byte 1 */
enum {
    FLAG_FINAL = 0x80,
    FLAG_CONTINUE = 0x40, /* login, text */
    FLAG_READ = 0x40,     /* SCSI command */
    FLAG_WRITE = 0x20,
    FLAG_ACK = 0x40,      /* Data-In */
    FLAG_OVERFLOW = 0x04, /* SCSI response, Data-In */
    FLAG_UNDERFLOW = 0x02,
    FLAG_STATUS = 0x01, /* Data-In */
};

/* A request from an initiator. Fields that the opcode does not have are 0. */
struct pdu_in {
    uint8_t bhs[BHS_BYTES]; /* as received; a Reject shows it */
    uint8_t opcode;         /* enum iscsi_op */
    bool immediate, final;
    uint8_t flags; /* byte 1 */
    uint32_t ahs_len, data_len;
    uint8_t lun[8];
    uint32_t itt, cmdsn, exp_statsn;
    uint32_t ttt;                /* NOP-Out, Text, Data-Out */
    uint32_t edtl;               /* SCSI command: expected data transfer length */
    uint32_t datasn, offset;     /* Data-Out */
    uint32_t ref_itt, ref_cmdsn; /* task management */
    uint8_t isid[6];             /* login */
    uint16_t tsih, cid;          /* login, logout (cid) */
    const uint8_t *cdb;          /* SCSI command: 16 bytes, in bhs */
};

/* Judges a header. limit_bytes: the MaxRecvDataSegmentLength that we declared. 0; ERR_PROTO: the
 * stream can't be followed further (lengths are wrong); ERR_INVAL: it can, but the PDU is to be
 * rejected with *ret_reason after its data was skipped. `ret` is filled in both of the latter
 * cases as far as lengths go. Does not suspend. */
int pdu_parse(const uint8_t bhs[BHS_BYTES], uint32_t limit_bytes, struct pdu_in *ret,
              enum pdu_reject *ret_reason) MUST_CHECK;

static inline uint32_t pdu_pad(uint32_t len)
{
    return -len & 3;
}

const char *pdu_op_name(uint8_t opcode);

#endif
