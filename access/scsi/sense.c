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

void sense_from_err(struct scsi_cmd *c, int rc, bool writing)
{
    switch (rc) {
    case ERR_NOSPACE:
        sense_set(c, SENSE_DATA_PROTECT, 0x27, 0x07); /* space allocation failed */
        return;
    case ERR_TOO_LARGE: /* the volume shrank, or grew less than we thought */
        sense_lba_out_of_range(c, c->lba);
        return;
    case ERR_NOTFOUND: /* the volume was deleted */
        sense_lun_not_supported(c);
        return;
    case ERR_RESERVED:
        c->status = SCSI_RESERVATION_CONFLICT;
        return;
    case ERR_PERM:
        sense_write_protected(c);
        return;
    case ERR_AGAIN:
    case ERR_BUSY:
        c->status = SCSI_BUSY;
        return;
    case ERR_HALTED:
    case ERR_EXPIRED:
        sense_set(c, SENSE_NOT_READY, 0x04, 0x01);
        return;
    case ERR_IO:
    case ERR_CORRUPT:
    case ERR_NO_REPLICA:
        if (writing)
            sense_set(c, SENSE_MEDIUM_ERROR, 0x0c, 0x00); /* write error */
        else
            sense_set(c, SENSE_MEDIUM_ERROR, 0x11, 0x00); /* unrecovered read error */
        return;
    default:
        /* ERR_AMBIGUOUS, ERR_TIMEOUT, ERR_CANCELED, …: not known to have happened; the
         * initiator decides whether to repeat (PROTOCOL 8.2). */
        sense_set(c, SENSE_ABORTED_COMMAND, 0x00, 0x00);
        return;
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
