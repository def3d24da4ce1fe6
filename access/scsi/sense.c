/* SPDX-License-Identifier: Apache-2.0
 *
 * Sense data: see sense.h. */
#include "access/scsi/sense.h"

#include <string.h>
#include "access/scsi/scsi_int.h"

static void sense_set(struct scsi_cmd *c, enum scsi_sense_key key, uint8_t asc, uint8_t ascq)
{
    c->status = SCSI_CHECK_CONDITION;
    c->sense = (struct scsi_sense){.key = (uint8_t)key, .asc = asc, .ascq = ascq};
}

static void sense_set_field(struct scsi_cmd *c, bool in_cdb, unsigned byte, unsigned bit)
{
    c->sense.field_valid = true;
    c->sense.field_in_cdb = in_cdb;
    c->sense.field = (uint16_t)byte;
    c->sense.bit = (uint8_t)bit;
}

void sense_invalid_opcode(struct scsi_cmd *c)
{
    sense_set(c, SENSE_ILLEGAL_REQUEST, 0x20, 0x00);
    sense_set_field(c, true, 0, 8);
}

void sense_invalid_cdb_field(struct scsi_cmd *c, unsigned byte, unsigned bit)
{
    sense_set(c, SENSE_ILLEGAL_REQUEST, 0x24, 0x00);
    sense_set_field(c, true, byte, bit);
}

void sense_invalid_parameter(struct scsi_cmd *c, unsigned byte, unsigned bit)
{
    sense_set(c, SENSE_ILLEGAL_REQUEST, 0x26, 0x00);
    sense_set_field(c, false, byte, bit);
}

void sense_parameter_list_length(struct scsi_cmd *c)
{
    sense_set(c, SENSE_ILLEGAL_REQUEST, 0x1a, 0x00);
}

void sense_lba_out_of_range(struct scsi_cmd *c, uint64_t lba)
{
    sense_set(c, SENSE_ILLEGAL_REQUEST, 0x21, 0x00);
    c->sense.info_valid = true;
    c->sense.info = lba;
}

void sense_lun_not_supported(struct scsi_cmd *c)
{
    sense_set(c, SENSE_ILLEGAL_REQUEST, 0x25, 0x00);
}

void sense_saving_not_supported(struct scsi_cmd *c)
{
    sense_set(c, SENSE_ILLEGAL_REQUEST, 0x39, 0x00);
}

void sense_becoming_ready(struct scsi_cmd *c)
{
    sense_set(c, SENSE_NOT_READY, 0x04, 0x01);
}

void sense_write_protected(struct scsi_cmd *c)
{
    sense_set(c, SENSE_DATA_PROTECT, 0x27, 0x02); /* logical unit software write protected */
}

void sense_invalid_release(struct scsi_cmd *c)
{
    sense_set(c, SENSE_ILLEGAL_REQUEST, 0x26, 0x04);
}

void sense_registration_resources(struct scsi_cmd *c)
{
    sense_set(c, SENSE_ILLEGAL_REQUEST, 0x55, 0x04);
}

void sense_copy_descriptor(struct scsi_cmd *c, enum sense_copy what)
{
    sense_set(c, SENSE_ILLEGAL_REQUEST, 0x26, (uint8_t)what);
}

void sense_copy_unreachable(struct scsi_cmd *c)
{
    sense_set(c, SENSE_COPY_ABORTED, 0x0d, 0x02); /* copy target device not reachable */
}

void sense_copy_aborted(struct scsi_cmd *c)
{
    sense_set(c, SENSE_COPY_ABORTED, 0x00, 0x00);
}

void sense_set_groups_failed(struct scsi_cmd *c)
{
    sense_set(c, SENSE_HARDWARE_ERROR, 0x67, 0x0a);
}

void sense_miscompare(struct scsi_cmd *c, uint64_t offset)
{
    sense_set(c, SENSE_MISCOMPARE, 0x1d, 0x00);
    c->sense.info_valid = true;
    c->sense.info = offset;
}

void sense_unit_attention(struct scsi_cmd *c, uint8_t asc, uint8_t ascq)
{
    sense_set(c, SENSE_UNIT_ATTENTION, asc, ascq);
}

void sense_transfer_damaged(struct scsi_cmd *c)
{
    sense_set(c, SENSE_ABORTED_COMMAND, 0x47, 0x05); /* protocol service CRC error */
}

/* ---- errors of the back end ---- */

enum answer {
    ANSWER_BUSY,      /* status BUSY */
    ANSWER_DROP,      /* none: the connection ends */
    ANSWER_ABORTED,   /* ABORTED COMMAND 00h/00h: no additional sense information */
    ANSWER_SPACE,     /* DATA PROTECT 27h/07h: space allocation failed */
    ANSWER_PROTECTED, /* DATA PROTECT 27h/02h: logical unit software write protected */
    ANSWER_RANGE,     /* ILLEGAL REQUEST 21h/00h: LBA out of range */
    ANSWER_NO_UNIT,   /* ILLEGAL REQUEST 25h/00h: logical unit not supported */
    ANSWER_RESERVED,  /* status RESERVATION CONFLICT */
    ANSWER_MEDIUM,    /* MEDIUM ERROR 11h/00h or 0Ch/00h: unrecovered read error, write error */
};

/* What initiators make of an answer:
 *
 *     answer           Linux                    ESXi             qemu               libiscsi alone
 *     BUSY             repeats after pauses,    repeats          repeats 7 times    gives it to its
 *                      6 x its timeout at most                   in 44 s            user
 *     ABORTED COMMAND  repeats at once,         fails or         I/O error          gives it to its
 *                      5 times at most          repeats                             user
 *     NOT READY 04/01  repeats for a while      repeats          I/O error          login fails
 *     dropped          logs in again and        another path,    as libiscsi        logs in again,
 *                      repeats                  or as Linux                         repeats
 *     others           an error                 an error         an error           an error
 *
 * So "not now" is BUSY, because nobody takes it for a failure. A write of unknown outcome has no
 * right status: an error would reach applications although the write may be there, and BUSY is
 * not repeated by all. Dropping the connection is: whoever waits repeats it, and the login that
 * comes first waits until nothing of the old session runs any more (session.c). What must not be
 * repeated blindly (PROTOCOL 8.2) ends with ABORTED COMMAND; who uses COMPARE AND WRITE as a lock
 * reads the block then. TASK SET FULL is not used: it makes Linux shrink its queue for good. */
static const struct err_row {
    int rc;
    uint8_t read, write, atomic, flush; /* enum answer */
} err_rows[] = {
    /* nothing was done, and not because of the command */
    {ERR_AGAIN, ANSWER_BUSY, ANSWER_BUSY, ANSWER_BUSY, ANSWER_BUSY},
    {ERR_BUSY, ANSWER_BUSY, ANSWER_BUSY, ANSWER_BUSY, ANSWER_BUSY},
    {ERR_NOMEM, ANSWER_BUSY, ANSWER_BUSY, ANSWER_BUSY, ANSWER_BUSY},
    {ERR_NOT_OWNER, ANSWER_BUSY, ANSWER_BUSY, ANSWER_BUSY, ANSWER_BUSY},
    {ERR_NOT_LEADER, ANSWER_BUSY, ANSWER_BUSY, ANSWER_BUSY, ANSWER_BUSY},
    {ERR_UNREACHABLE, ANSWER_BUSY, ANSWER_BUSY, ANSWER_BUSY, ANSWER_BUSY},
    {ERR_REFUSED, ANSWER_BUSY, ANSWER_BUSY, ANSWER_BUSY, ANSWER_BUSY},
    /* something may have been done; a read has no outcome to be unsure of */
    {ERR_AMBIGUOUS, ANSWER_BUSY, ANSWER_DROP, ANSWER_ABORTED, ANSWER_BUSY},
    {ERR_UNCERTAIN, ANSWER_BUSY, ANSWER_DROP, ANSWER_ABORTED, ANSWER_BUSY},
    {ERR_EXPIRED, ANSWER_BUSY, ANSWER_DROP, ANSWER_ABORTED, ANSWER_BUSY},
    {ERR_STALE, ANSWER_BUSY, ANSWER_DROP, ANSWER_ABORTED, ANSWER_BUSY},
    {ERR_CLOSED, ANSWER_BUSY, ANSWER_DROP, ANSWER_ABORTED, ANSWER_BUSY},
    {ERR_TIMEOUT, ANSWER_BUSY, ANSWER_DROP, ANSWER_ABORTED, ANSWER_BUSY},
    {ERR_CANCELED, ANSWER_BUSY, ANSWER_DROP, ANSWER_ABORTED, ANSWER_BUSY},
    {ERR_HALTED, ANSWER_BUSY, ANSWER_DROP, ANSWER_ABORTED, ANSWER_BUSY},
    /* answers that stay what they are */
    {ERR_NOSPACE, ANSWER_SPACE, ANSWER_SPACE, ANSWER_SPACE, ANSWER_SPACE},
    {ERR_PERM, ANSWER_PROTECTED, ANSWER_PROTECTED, ANSWER_PROTECTED, ANSWER_PROTECTED},
    {ERR_RESERVED, ANSWER_RESERVED, ANSWER_RESERVED, ANSWER_RESERVED, ANSWER_RESERVED},
    /* the volume shrank, or grew less than we thought; it was deleted */
    {ERR_TOO_LARGE, ANSWER_RANGE, ANSWER_RANGE, ANSWER_RANGE, ANSWER_RANGE},
    {ERR_NOTFOUND, ANSWER_NO_UNIT, ANSWER_NO_UNIT, ANSWER_NO_UNIT, ANSWER_NO_UNIT},
    {ERR_IO, ANSWER_MEDIUM, ANSWER_MEDIUM, ANSWER_MEDIUM, ANSWER_MEDIUM},
    {ERR_CORRUPT, ANSWER_MEDIUM, ANSWER_MEDIUM, ANSWER_MEDIUM, ANSWER_MEDIUM},
    {ERR_NO_REPLICA, ANSWER_MEDIUM, ANSWER_MEDIUM, ANSWER_MEDIUM, ANSWER_MEDIUM},
};

static enum answer err_answer(int rc, enum scsi_io io)
{
    for (size_t i = 0; i < ARRAY_SIZE(err_rows); i++) {
        const struct err_row *row = &err_rows[i];

        if (row->rc != rc)
            continue;
        switch (io) {
        case SCSI_IO_READ:
            return (enum answer)row->read;
        case SCSI_IO_WRITE:
            return (enum answer)row->write;
        case SCSI_IO_ATOMIC:
            return (enum answer)row->atomic;
        case SCSI_IO_FLUSH:
            return (enum answer)row->flush;
        }
    }
    return ANSWER_ABORTED; /* nothing that the back end is known to return */
}

void sense_from_err(struct scsi_cmd *c, int rc, enum scsi_io io)
{
    switch (err_answer(rc, io)) {
    case ANSWER_BUSY:
        c->status = SCSI_BUSY;
        break;
    case ANSWER_DROP:
        scsi_cmd_lose(c, rc);
        break;
    case ANSWER_ABORTED:
        sense_set(c, SENSE_ABORTED_COMMAND, 0x00, 0x00);
        break;
    case ANSWER_SPACE:
        sense_set(c, SENSE_DATA_PROTECT, 0x27, 0x07);
        break;
    case ANSWER_PROTECTED:
        sense_write_protected(c);
        break;
    case ANSWER_RANGE:
        sense_lba_out_of_range(c, c->lba);
        break;
    case ANSWER_NO_UNIT:
        sense_lun_not_supported(c);
        break;
    case ANSWER_RESERVED:
        c->status = SCSI_RESERVATION_CONFLICT;
        break;
    case ANSWER_MEDIUM:
        sense_set(c, SENSE_MEDIUM_ERROR, io == SCSI_IO_READ ? 0x11 : 0x0c, 0x00);
        break;
    }
}

static uint32_t sense_encode_fixed(const struct scsi_sense *s, uint8_t *dst)
{
    dst[0] = 0x70;
    dst[2] = s->key;
    if (s->info_valid && s->info <= UINT32_MAX) {
        dst[0] |= 0x80;
        put_be32(dst + 3, (uint32_t)s->info);
    }
    dst[7] = 10;
    dst[12] = s->asc;
    dst[13] = s->ascq;
    if (s->field_valid) {
        dst[15] = (uint8_t)(0x80 | (s->field_in_cdb ? 0x40 : 0) | (s->bit < 8 ? 8 | s->bit : 0));
        put_be16(dst + 16, s->field);
    }
    return 18;
}

static uint32_t sense_encode_descriptors(const struct scsi_sense *s, uint8_t *dst)
{
    uint8_t *d = dst + 8;

    dst[0] = 0x72;
    dst[1] = s->key;
    dst[2] = s->asc;
    dst[3] = s->ascq;
    if (s->info_valid) {
        d[0] = 0x00; /* information */
        d[1] = 0x0a;
        d[2] = 0x80;
        put_be64(d + 4, s->info);
        d += 12;
    }
    if (s->field_valid) {
        d[0] = 0x02; /* sense key specific */
        d[1] = 0x06;
        d[4] = (uint8_t)(0x80 | (s->field_in_cdb ? 0x40 : 0) | (s->bit < 8 ? 8 | s->bit : 0));
        put_be16(d + 5, s->field);
        d += 8;
    }
    dst[7] = (uint8_t)(d - dst - 8);
    return (uint32_t)(d - dst);
}

uint32_t sense_encode(const struct scsi_sense *s, bool descriptor, uint8_t *dst)
{
    memset(dst, 0, SCSI_SENSE_MAX);
    return descriptor ? sense_encode_descriptors(s, dst) : sense_encode_fixed(s, dst);
}
