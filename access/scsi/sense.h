/* SPDX-License-Identifier: Apache-2.0
 *
 * Sense data: why a command failed. Handlers use the named setters only, so that key and code of
 * each condition are written down once; sense_encode gives the bytes. */
#ifndef ZBS_ACCESS_SCSI_SENSE_H
#define ZBS_ACCESS_SCSI_SENSE_H

#include <stdbool.h>
#include <stdint.h>
#include "common/base/attr.h"

struct scsi_cmd;

enum scsi_sense_key {
    SENSE_NO_SENSE = 0x0,
    SENSE_NOT_READY = 0x2,
    SENSE_MEDIUM_ERROR = 0x3,
    SENSE_HARDWARE_ERROR = 0x4,
    SENSE_ILLEGAL_REQUEST = 0x5,
    SENSE_UNIT_ATTENTION = 0x6,
    SENSE_DATA_PROTECT = 0x7,
    SENSE_COPY_ABORTED = 0xa,
    SENSE_ABORTED_COMMAND = 0xb,
    SENSE_MISCOMPARE = 0xe,
};

struct scsi_sense {
    uint8_t key, asc, ascq;
    bool info_valid;
    uint64_t info; /* LBA or byte offset */
    /* field pointer of ILLEGAL REQUEST */
    bool field_valid;
    bool field_in_cdb; /* else in the parameter list */
    uint8_t bit;       /* leftmost bit of the field, 8: none given */
    uint16_t field;    /* first byte of the field */
};

/* Each sets CHECK CONDITION and the sense of its condition. bit: 0..7, or 8 for the whole byte. */
void sense_invalid_opcode(struct scsi_cmd *c);
void sense_invalid_cdb_field(struct scsi_cmd *c, unsigned byte, unsigned bit);
void sense_invalid_parameter(struct scsi_cmd *c, unsigned byte, unsigned bit);
void sense_parameter_list_length(struct scsi_cmd *c);
void sense_lba_out_of_range(struct scsi_cmd *c, uint64_t lba);
void sense_lun_not_supported(struct scsi_cmd *c);
void sense_saving_not_supported(struct scsi_cmd *c);
void sense_becoming_ready(struct scsi_cmd *c);
void sense_write_protected(struct scsi_cmd *c);
/* PERSISTENT RESERVE OUT: released as another type; too many registrations. */
void sense_invalid_release(struct scsi_cmd *c);
void sense_registration_resources(struct scsi_cmd *c);
/* EXTENDED COPY: a descriptor that is not understood, or one too many. The code is the ASCQ. */
enum sense_copy {
    COPY_TARGETS_MANY = 0x06,
    COPY_TARGET_TYPE = 0x07,
    COPY_SEGMENTS_MANY = 0x08,
    COPY_SEGMENT_TYPE = 0x09,
};
void sense_copy_descriptor(struct scsi_cmd *c, enum sense_copy what);
void sense_copy_unreachable(struct scsi_cmd *c);
void sense_copy_aborted(struct scsi_cmd *c);
/* SET TARGET PORT GROUPS asks for a combination that there can't be. */
void sense_set_groups_failed(struct scsi_cmd *c);
void sense_miscompare(struct scsi_cmd *c, uint64_t offset);
void sense_unit_attention(struct scsi_cmd *c, uint8_t asc, uint8_t ascq);
/* Data from the initiator was damaged or out of order on its way. */
void sense_transfer_damaged(struct scsi_cmd *c);
/* What a command asks of the back end, as far as the meaning of its errors goes. */
enum scsi_io {
    SCSI_IO_READ,
    SCSI_IO_WRITE,  /* may be repeated: WRITE, WRITE SAME, UNMAP */
    SCSI_IO_ATOMIC, /* may not: COMPARE AND WRITE */
    SCSI_IO_FLUSH,
};
/* What an error of the back end (rc < 0) means to the initiator: status and sense, or cmd->lost. */
void sense_from_err(struct scsi_cmd *c, int rc, enum scsi_io io);

/* Fixed or descriptor format; returns the length (18 .. 36). dst holds SCSI_SENSE_MAX bytes. */
uint32_t sense_encode(const struct scsi_sense *s, bool descriptor, uint8_t *dst);

#endif
