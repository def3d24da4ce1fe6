/* SPDX-License-Identifier: Apache-2.0
 *
 * A small iSCSI initiator for tests: it sends what it is told to, right or wrong, and takes PDUs
 * apart. Runs in a coroutine, on either environment. Whatever a test did not expect aborts. */
#ifndef ZBS_TESTS_ISCSI_INI_H
#define ZBS_TESTS_ISCSI_INI_H

#include "access/iscsi/pdu.h"
#include "common/env/env.h"

struct ini {
    struct net_conn *net;
    bool header_digest, data_digest;
    uint32_t cmdsn, exp_statsn, itt;
    uint32_t max_send; /* MaxRecvDataSegmentLength of the target */
    bool initial_r2t, immediate_data;
    uint32_t first_burst;
    uint8_t qualifier;     /* of the ISID; 7 */
    uint16_t tsih, cid;    /* tsih: of the session; not 0 before a login: to become one of it */
    uint8_t lun;           /* that commands go to */
    uint16_t login_status; /* of the last login response */
    char text[8192];       /* data of the last login or text response */
    uint32_t text_len;
};

/* A received PDU. */
struct ini_pdu {
    uint8_t bhs[BHS_BYTES];
    uint8_t *data; /* mem_ memory; ini_pdu_free */
    uint32_t len;
    uint8_t op;
};

/* Connects without a login. */
co_fn void ini_connect(struct ini *i, const char *addr);
void ini_close(struct ini *i);

/* Sends a header with its lengths, digests and padding filled in, and data. */
co_fn int ini_send(struct ini *i, uint8_t bhs[BHS_BYTES], const void *data, uint32_t len);
/* The next PDU: 0, or the error of the connection. */
co_fn int ini_recv(struct ini *i, struct ini_pdu *ret);
void ini_pdu_free(struct ini_pdu *p);
/* The next PDU must be of this kind. */
co_fn void ini_expect(struct ini *i, enum iscsi_op op, struct ini_pdu *ret);
/* The connection must be closed by the target, perhaps behind other PDUs. */
co_fn void ini_expect_closed(struct ini *i);

/* A login in one step to full feature phase with operational keys: "A=b\nC=d\n" (newlines become
 * NULs); target NULL: discovery. Returns the status (0: full feature phase). */
co_fn uint16_t ini_login(struct ini *i, const char *initiator, const char *target,
                         const char *keys);
/* One login exchange: flags is byte 1. Answer in text; returns the status. */
co_fn uint16_t ini_login_step(struct ini *i, uint8_t flags, const char *keys, uint8_t *ret_flags);
/* A text request in full feature phase ("SendTargets=All") and its whole answer, in text. */
co_fn void ini_text(struct ini *i, const char *keys);
/* Value of a key in the last text, or NULL. */
const char *ini_text_value(const struct ini *i, const char *key);

/* Starts a SCSI command header: flags is byte 1. */
void ini_cmd_bhs(struct ini *i, uint8_t bhs[BHS_BYTES], uint8_t flags, const uint8_t *cdb,
                 size_t cdb_len, uint32_t edtl);

struct ini_result {
    uint8_t status;
    uint8_t key, asc, ascq;
    uint32_t residual;
    uint8_t residual_flags;
    uint32_t got; /* bytes of Data-In */
    uint32_t r2ts;
    uint32_t data_pdus;
};
/* A whole command: sends out (immediate, unsolicited and solicited as was negotiated), collects
 * Data-In. */
co_fn struct ini_result ini_cmd(struct ini *i, const uint8_t *cdb, size_t cdb_len, const void *out,
                                uint32_t out_len, void *in, uint32_t in_len);
/* READ(10) and WRITE(10) of blocks. */
co_fn struct ini_result ini_read(struct ini *i, uint32_t lba, void *dst, uint32_t len);
co_fn struct ini_result ini_write(struct ini *i, uint32_t lba, const void *src, uint32_t len);
/* TEST UNIT READY until no attention is pending; their number. */
co_fn unsigned ini_clear_attentions(struct ini *i);

#endif
