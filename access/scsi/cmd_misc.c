/* SPDX-License-Identifier: Apache-2.0
 *
 * Commands about the unit itself: TEST UNIT READY, REQUEST SENSE, REPORT LUNS, READ CAPACITY,
 * START STOP UNIT, PREVENT ALLOW MEDIUM REMOVAL, READ DEFECT DATA, and what the target says about
 * its commands. */
#include <string.h>
#include "access/scsi/scsi_int.h"

void scsi_check_test_unit_ready(struct scsi_cmd *c)
{
    c->done = true; /* a unit without a back end was refused before */
}

/* Pending attentions are reported as data, with status GOOD. */
void scsi_check_request_sense(struct scsi_cmd *c)
{
    struct scsi_sense s = {0};
    struct buf *b = scsi_answer_buf(SCSI_SENSE_MAX);

    c->alloc_len = c->cdb[4];
    if (c->lun == NULL) {
        s = (struct scsi_sense){.key = SENSE_ILLEGAL_REQUEST, .asc = 0x25};
    } else if (scsi_nexus_take_ua(c->nexus, c->lun_number, &s.asc, &s.ascq)) {
        s.key = SENSE_UNIT_ATTENTION;
    } else if (c->lun->backend == NULL) {
        s = (struct scsi_sense){.key = SENSE_NOT_READY, .asc = 0x04, .ascq = 0x01};
    }
    scsi_cmd_answer(c, b, sense_encode(&s, c->cdb[1] & 0x01, b->data));
}

void scsi_check_report_luns(struct scsi_cmd *c)
{
    struct scsi_target *t = c->nexus->target;
    uint8_t select = c->cdb[2];
    uint32_t n = 0;

    c->alloc_len = get_be32(c->cdb + 6);
    if (select > 2) { /* 0: units, 1: well-known ones (none), 2: both */
        sense_invalid_cdb_field(c, 2, 8);
        return;
    }
    if (c->alloc_len < 16) {
        sense_invalid_cdb_field(c, 6, 8);
        return;
    }
    struct buf *b = scsi_answer_buf(8 + 8 * SCSI_LUNS_MAX);
    for (uint32_t i = 0; i < SCSI_LUNS_MAX && select != 1; i++) {
        if (t->luns[i] == NULL)
            continue;
        scsi_lun_encode((uint16_t)i, b->data + 8 + 8 * n++);
    }
    put_be32(b->data, 8 * n);
    /* The list is now known: that attention is settled for every unit of this nexus. */
    for (uint32_t i = 0; i < SCSI_LUNS_MAX; i++)
        c->nexus->ua[i] &= (uint16_t)~SCSI_UA_LUNS_CHANGED;
    scsi_cmd_answer(c, b, 8 + 8 * n);
}

void scsi_check_read_capacity_10(struct scsi_cmd *c)
{
    struct buf *b = scsi_answer_buf(8);

    c->alloc_len = 8;
    put_be32(b->data, (uint32_t)MIN(c->lun->blocks - 1, UINT32_MAX));
    put_be32(b->data + 4, SCSI_BLOCK_BYTES);
    scsi_cmd_answer(c, b, 8);
}

void scsi_check_read_capacity_16(struct scsi_cmd *c)
{
    struct buf *b = scsi_answer_buf(32);

    c->alloc_len = get_be32(c->cdb + 10);
    put_be64(b->data, c->lun->blocks - 1);
    put_be32(b->data + 8, SCSI_BLOCK_BYTES);
    b->data[13] = SCSI_LBPPBE;
    b->data[14] = 0x80 | 0x40; /* LBPME, LBPRZ */
    scsi_cmd_answer(c, b, 32);
}

/* A volume can't be stopped or ejected; what asks for that is accepted and has no effect. */
void scsi_check_start_stop(struct scsi_cmd *c)
{
    c->done = true;
}

void scsi_check_prevent_allow(struct scsi_cmd *c)
{
    c->done = true; /* not removable */
}

/* Empty lists in the format asked for. */
void scsi_check_defect_data_10(struct scsi_cmd *c)
{
    struct buf *b = scsi_answer_buf(4);

    c->alloc_len = get_be16(c->cdb + 7);
    b->data[1] = c->cdb[2] & 0x1f;
    scsi_cmd_answer(c, b, 4);
}

void scsi_check_defect_data_12(struct scsi_cmd *c)
{
    struct buf *b = scsi_answer_buf(8);

    c->alloc_len = get_be32(c->cdb + 6);
    b->data[1] = c->cdb[1] & 0x1f;
    scsi_cmd_answer(c, b, 8);
}

/* ---- REPORT SUPPORTED OPERATION CODES ---- */

#define TIMEOUTS_BYTES 12u /* descriptor without any figures */

static void put_timeouts(uint8_t *p)
{
    put_be16(p, TIMEOUTS_BYTES - 2);
}

static void report_all_opcodes(struct scsi_cmd *c, bool timeouts)
{
    uint32_t each = 8 + (timeouts ? TIMEOUTS_BYTES : 0), len = 4;
    struct buf *b = scsi_answer_buf(4 + scsi_row_count * each);

    for (uint32_t i = 0; i < scsi_row_count; i++) {
        const struct scsi_row *row = &scsi_rows[i];
        uint8_t *p = b->data + len;

        if (!scsi_row_there(row, c->lun))
            continue;
        len += each;
        p[0] = row->opcode;
        if (row->service_action >= 0) {
            put_be16(p + 2, (uint16_t)row->service_action);
            p[5] = 0x01; /* SERVACTV */
        }
        put_be16(p + 6, row->cdb_len);
        if (timeouts) {
            p[5] |= 0x02; /* CTDP */
            put_timeouts(p + 8);
        }
    }
    put_be32(b->data, len - 4);
    scsi_cmd_answer(c, b, len);
}

static void report_one_opcode(struct scsi_cmd *c, unsigned option, bool timeouts)
{
    uint8_t cdb[2] = {c->cdb[3], c->cdb[5]};
    uint16_t action = get_be16(c->cdb + 4);
    bool opcode_known;
    const struct scsi_row *row = scsi_row_find(cdb, &opcode_known);
    if (row != NULL && !scsi_row_there(row, c->lun)) {
        row = NULL;
        opcode_known = false;
    }
    bool has_actions = opcode_known && (row == NULL || row->service_action >= 0);

    /* Option 1 names an opcode without service actions, 2 one with, 3 either. */
    if ((option == 1 && has_actions) || (option == 2 && opcode_known && !has_actions)) {
        sense_invalid_cdb_field(c, 2, 2);
        return;
    }
    if (row != NULL && row->service_action >= 0 && row->service_action != action)
        row = NULL;
    if (row != NULL && row->service_action < 0 && option == 3 && action != 0)
        row = NULL;

    struct buf *b = scsi_answer_buf(4 + SCSI_CDB_MAX + TIMEOUTS_BYTES);
    uint32_t len = 4;
    b->data[1] = 0x01; /* not supported */
    if (row != NULL) {
        b->data[1] = 0x03; /* supported as the standard has it */
        put_be16(b->data + 2, row->cdb_len);
        memcpy(b->data + 4, row->usage, row->cdb_len);
        len += row->cdb_len;
        if (timeouts) {
            b->data[1] |= 0x80;
            put_timeouts(b->data + len);
            len += TIMEOUTS_BYTES;
        }
    }
    scsi_cmd_answer(c, b, len);
}

void scsi_check_supported_opcodes(struct scsi_cmd *c)
{
    unsigned option = c->cdb[2] & 7;
    bool timeouts = c->cdb[2] & 0x80;

    c->alloc_len = get_be32(c->cdb + 6);
    if (option == 0)
        report_all_opcodes(c, timeouts);
    else if (option <= 3)
        report_one_opcode(c, option, timeouts);
    else
        sense_invalid_cdb_field(c, 2, 2);
}

void scsi_check_supported_tmf(struct scsi_cmd *c)
{
    bool extended = c->cdb[2] & 0x80; /* REPD */
    struct buf *b = scsi_answer_buf(16);

    c->alloc_len = get_be32(c->cdb + 6);
    if (c->alloc_len < 4) {
        buf_put(b);
        sense_invalid_cdb_field(c, 6, 8);
        return;
    }
    /* ABORT TASK, ABORT TASK SET, CLEAR TASK SET, LOGICAL UNIT RESET, TARGET RESET */
    b->data[0] = 0x80 | 0x40 | 0x10 | 0x08 | 0x02;
    b->data[3] = extended ? 12 : 0;
    scsi_cmd_answer(c, b, extended ? 16 : 4);
}
