/* SPDX-License-Identifier: Apache-2.0
 *
 * Shared by the files of access/scsi: the command table's rows, handlers, big-endian fields. */
#ifndef ZBS_ACCESS_SCSI_SCSI_INT_H
#define ZBS_ACCESS_SCSI_SCSI_INT_H

#include "common/base/bytes.h"
#include "access/scsi/scsi.h"

/* Limits that the Block Limits page announces. */
#define SCSI_TRANSFER_BLOCKS_MAX     (SCSI_TRANSFER_BYTES_MAX / SCSI_BLOCK_BYTES)
#define SCSI_TRANSFER_BLOCKS_OPTIMAL 2048u          /* 1 MiB: one R2T or one Data-In sequence */
#define SCSI_WRITE_SAME_BLOCKS_MAX   32768u         /* 16 MiB */
#define SCSI_UNMAP_BLOCKS_MAX        (1024u * 1024) /* of all descriptors of a command */
#define SCSI_UNMAP_DESCRIPTORS_MAX   256u
#define SCSI_PARAMETER_BYTES_MAX     65536u /* parameter lists and answers */

/* Room is counted in threshold sets of 1 MiB. */
#define SCSI_THRESHOLD_EXPONENT 11u
uint32_t scsi_space_sets(uint64_t bytes);

enum scsi_row_flags {
    ROW_WRITES = 1,     /* changes the medium: refused while software write protected */
    ROW_READS = 2,      /* moves medium data in; for counters */
    ROW_NO_UA = 4,      /* answered although a unit attention is pending */
    ROW_NO_LUN = 8,     /* answered for a LUN without a unit */
    ROW_NO_MEDIUM = 16, /* answered while the unit is becoming ready */
    ROW_ELSEWHERE = 64, /* ROW_WRITES, but not to the unit that it came to */
    ROW_RESERVES = 32,  /* there is no such command for a unit without reservations */
};

/* Where a CDB has its LBA and its number of blocks. */
enum scsi_range { RANGE_NONE, RANGE_6, RANGE_10, RANGE_12, RANGE_16, RANGE_16_CAW };

/* What the command asks of the transfer length. */
enum scsi_limit {
    LIMIT_NONE,
    LIMIT_TRANSFER, /* at most SCSI_TRANSFER_BLOCKS_MAX */
};

struct scsi_row {
    uint8_t opcode;
    int8_t service_action; /* -1: the opcode has none */
    uint8_t cdb_len;
    uint8_t flags;  /* enum scsi_row_flags */
    uint8_t range;  /* enum scsi_range */
    uint8_t limit;  /* enum scsi_limit */
    uint8_t access; /* enum pr_access */
    /* Bits that an initiator may set; byte 0 is the opcode itself, as REPORT SUPPORTED OPERATION
     * CODES shows it. */
    uint8_t usage[SCSI_CDB_MAX];
    const char *name;
    /* Checks what the table cannot say; sets c->wanted (bytes moved), out_len, in_cap. May set
     * sense or c->done. NULL: nothing to check. */
    void (*check)(struct scsi_cmd *c);
    /* NULL: done after the check. */
    co_fn void (*run)(struct scsi_cmd *c);
};

extern const struct scsi_row scsi_rows[];
extern const uint32_t scsi_row_count;

/* The row for a CDB; NULL with *ret_opcode_known telling whether only the service action is
 * unknown. */
const struct scsi_row *scsi_row_find(const uint8_t *cdb, bool *ret_opcode_known);
/* Is the command there for this unit (NULL: none)? */
bool scsi_row_there(const struct scsi_row *row, const struct scsi_lun *lun);
/* What the command means to reservations. */
enum pr_access scsi_cmd_access(const struct scsi_cmd *c);
/* Bits outside the row's usage: false and sense set. */
bool scsi_row_check_bits(struct scsi_cmd *c);

/* Shows a parameter answer: at most alloc_len bytes of it travel; residual against in_expected
 * is computed from that. `in` takes over the reference. */
void scsi_cmd_answer(struct scsi_cmd *c, struct buf *in, uint32_t len);
/* A zeroed buffer for an answer. */
struct buf *scsi_answer_buf(uint32_t len);

/* check and run functions, by file */
void scsi_check_read(struct scsi_cmd *c); /* cmd_rw.c */
co_fn void scsi_run_read(struct scsi_cmd *c);
void scsi_check_write(struct scsi_cmd *c);
co_fn void scsi_run_write(struct scsi_cmd *c);
void scsi_check_write_verify(struct scsi_cmd *c);
co_fn void scsi_run_write_verify(struct scsi_cmd *c);
void scsi_check_verify(struct scsi_cmd *c);
co_fn void scsi_run_verify(struct scsi_cmd *c);
void scsi_check_sync(struct scsi_cmd *c);
co_fn void scsi_run_sync(struct scsi_cmd *c);
void scsi_check_prefetch(struct scsi_cmd *c);

void scsi_check_unmap(struct scsi_cmd *c); /* cmd_prov.c */
co_fn void scsi_run_unmap(struct scsi_cmd *c);
void scsi_check_write_same(struct scsi_cmd *c);
co_fn void scsi_run_write_same(struct scsi_cmd *c);
void scsi_check_lba_status(struct scsi_cmd *c);

void scsi_check_caw(struct scsi_cmd *c); /* cmd_atomic.c */
co_fn void scsi_run_caw(struct scsi_cmd *c);
void scsi_check_orwrite(struct scsi_cmd *c);
co_fn void scsi_run_orwrite(struct scsi_cmd *c);

void scsi_check_report_groups(struct scsi_cmd *c); /* cmd_alua.c */
void scsi_check_set_groups(struct scsi_cmd *c);
co_fn void scsi_run_set_groups(struct scsi_cmd *c);

void scsi_check_copy(struct scsi_cmd *c); /* cmd_copy.c */
co_fn void scsi_run_copy(struct scsi_cmd *c);
void scsi_check_copy_results(struct scsi_cmd *c);

#define SCSI_NAA_BYTES 16u
void scsi_check_inquiry(struct scsi_cmd *c); /* cmd_inquiry.c */
/* The designator of the unit, the same on every path. It has a back end. */
void scsi_lun_naa(const struct scsi_lun *lun, uint8_t dst[SCSI_NAA_BYTES]);

void scsi_check_log_sense(struct scsi_cmd *c); /* cmd_log.c */

void scsi_check_mode_sense(struct scsi_cmd *c); /* cmd_mode.c */
void scsi_check_mode_select(struct scsi_cmd *c);
co_fn void scsi_run_mode_select(struct scsi_cmd *c);

void scsi_check_test_unit_ready(struct scsi_cmd *c); /* cmd_misc.c */
void scsi_check_request_sense(struct scsi_cmd *c);
void scsi_check_report_luns(struct scsi_cmd *c);
void scsi_check_read_capacity_10(struct scsi_cmd *c);
void scsi_check_read_capacity_16(struct scsi_cmd *c);
void scsi_check_start_stop(struct scsi_cmd *c);
void scsi_check_prevent_allow(struct scsi_cmd *c);
void scsi_check_defect_data_10(struct scsi_cmd *c);
void scsi_check_defect_data_12(struct scsi_cmd *c);
void scsi_check_supported_opcodes(struct scsi_cmd *c);
void scsi_check_supported_tmf(struct scsi_cmd *c);

void scsi_check_pr_in(struct scsi_cmd *c); /* cmd_pr.c */
void scsi_check_pr_out(struct scsi_cmd *c);
void scsi_check_reserve_6(struct scsi_cmd *c);
co_fn void scsi_run_reserve_6(struct scsi_cmd *c);
co_fn void scsi_run_pr_out(struct scsi_cmd *c);

/* Takes the highest pending attention of this nexus and unit: false if there is none. */
bool scsi_nexus_take_ua(struct scsi_nexus *n, uint16_t lun, uint8_t *ret_asc, uint8_t *ret_ascq);

#endif
