/* SPDX-License-Identifier: Apache-2.0
 *
 * Commands that read and write as one step: COMPARE AND WRITE, ORWRITE. */
#include <string.h>
#include "access/scsi/scsi_int.h"

/* ---- COMPARE AND WRITE ---- */

/* One block at most (PROTOCOL 8.4), as the Block Limits page says. A Data-Out buffer that does
 * not hold exactly the two instances that the CDB asks for is refused rather than guessed at. */
void scsi_check_caw(struct scsi_cmd *c)
{
    if (c->blocks > 1 || c->out_expected != 2 * c->blocks * SCSI_BLOCK_BYTES) {
        sense_invalid_cdb_field(c, 13, 8);
        return;
    }
    c->wanted = c->out_expected;
    c->out_len = c->out_expected;
    if (c->blocks == 0)
        c->done = true;
}

co_fn void scsi_run_caw(struct scsi_cmd *c)
{
    struct block_backend *b = c->lun->backend;
    uint32_t at = 0;
    int rc = b->ops->compare_and_write(b, c->lba * SCSI_BLOCK_BYTES, SCSI_BLOCK_BYTES, c->out, 0,
                                       c->out, SCSI_BLOCK_BYTES, &at);

    if (rc == ERR_MISCOMPARE)
        sense_miscompare(c, at);
    else if (rc < 0)
        sense_from_err(c, rc, SCSI_IO_ATOMIC);
}

/* ---- ORWRITE ---- */

#define OR_STEP  (SCSI_BLOCKS_PER_PHYS * SCSI_BLOCK_BYTES) /* what the engine compares at once */
#define OR_TRIES 64                                        /* against others that write there */

/* At most one physical block: `had` is what was read there. Writes the union if it is still there,
 * else reads again. Bits are only ever set, so a change in between costs another round and nothing
 * else. scratch: two physical blocks. */
static co_fn int or_step(struct scsi_cmd *c, uint64_t off, uint32_t len, const uint8_t *bits,
                         const uint8_t *had, struct buf *scratch)
{
    struct block_backend *b = c->lun->backend;
    uint32_t at;
    int rc = 0;

    memcpy(scratch->data, had, len);
    for (int i = 0; i < OR_TRIES && rc == 0; i++) {
        for (uint32_t k = 0; k < len; k++)
            scratch->data[OR_STEP + k] = scratch->data[k] | bits[k];
        rc = b->ops->compare_and_write(b, off, len, scratch, 0, scratch, OR_STEP, &at);
        if (rc != ERR_MISCOMPARE)
            return rc;
        rc = b->ops->read(b, off, len, scratch, 0);
    }
    return rc < 0 ? rc : err_set(ERR_AGAIN, "others write there");
}

void scsi_check_orwrite(struct scsi_cmd *c)
{
    scsi_check_write(c);
}

/* Done twice it is the same as done once, so it is treated as a write where its outcome is not
 * known. */
co_fn void scsi_run_orwrite(struct scsi_cmd *c)
{
    uint64_t off = c->lba * SCSI_BLOCK_BYTES;
    uint32_t len = ROUND_DOWN(c->out_len, SCSI_BLOCK_BYTES), n;
    struct buf *scratch = buf_alloc(2 * OR_STEP), *had = buf_alloc(MAX(len, 1u));
    int rc = len > 0 ? c->lun->backend->ops->read(c->lun->backend, off, len, had, 0) : 0;

    for (uint32_t at = 0; at < len && rc == 0 && !c->abort_requested; at += n) {
        n = MIN(len - at, OR_STEP - (uint32_t)((off + at) % OR_STEP));
        rc = or_step(c, off + at, n, c->out->data + at, had->data + at, scratch);
    }
    buf_put(had);
    buf_put(scratch);
    if (rc < 0)
        sense_from_err(c, rc, SCSI_IO_WRITE);
}
