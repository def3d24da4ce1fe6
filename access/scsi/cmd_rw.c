/* SPDX-License-Identifier: Apache-2.0
 *
 * READ, WRITE, WRITE AND VERIFY, VERIFY, SYNCHRONIZE CACHE, PRE-FETCH in all their lengths.
 *
 * Every acknowledged write is durable (the engine knows no write-back cache), so FUA is always
 * honoured, WCE is 0 and SYNCHRONIZE CACHE only asks whether the volume is healthy. DPO is a hint
 * without effect. */
#include <string.h>
#include "access/scsi/scsi_int.h"
#include "common/base/assert.h"

static uint64_t cmd_offset(const struct scsi_cmd *c)
{
    return c->lba * SCSI_BLOCK_BYTES;
}

void scsi_check_read(struct scsi_cmd *c)
{
    c->wanted = (uint64_t)c->blocks * SCSI_BLOCK_BYTES;
    c->in_len = (uint32_t)MIN(c->wanted, c->in_expected);
    if (c->in_len == 0)
        c->done = true;
    else /* whole blocks are read, even if the initiator takes less */
        c->in_cap = ROUND_UP(c->in_len, SCSI_BLOCK_BYTES);
}

co_fn void scsi_run_read(struct scsi_cmd *c)
{
    struct block_backend *b = c->lun->backend;

    c->in = buf_alloc(c->in_cap);
    int rc = b->ops->read(b, cmd_offset(c), c->in_cap, c->in, 0);
    if (rc < 0)
        sense_from_err(c, rc, SCSI_IO_READ);
}

/* Data-Out of `len` bytes. What the initiator does not send is not written (residual overflow). */
static void check_data_out(struct scsi_cmd *c, uint64_t len)
{
    c->wanted = len;
    c->out_len = (uint32_t)MIN(len, c->out_expected);
}

void scsi_check_write(struct scsi_cmd *c)
{
    check_data_out(c, (uint64_t)c->blocks * SCSI_BLOCK_BYTES);
    if (c->out_len == 0)
        c->done = true;
}

co_fn void scsi_run_write(struct scsi_cmd *c)
{
    struct block_backend *b = c->lun->backend;
    uint32_t len = ROUND_DOWN(c->out_len, SCSI_BLOCK_BYTES);

    if (len == 0)
        return;
    int rc = b->ops->write(b, cmd_offset(c), len, c->out, 0);
    if (rc < 0)
        sense_from_err(c, rc, SCSI_IO_WRITE);
}

/* Compares [off, off+len) with data (or each block with the same one block); sense is set at a
 * difference or an error. */
static co_fn void compare(struct scsi_cmd *c, uint64_t off, uint64_t len, const uint8_t *data,
                          bool same_block)
{
    struct block_backend *b = c->lun->backend;
    uint32_t step = (uint32_t)MIN(len, 1024u * 1024);
    struct buf *have = buf_alloc(MAX(step, 1u));

    for (uint64_t at = 0; at < len && c->status == SCSI_GOOD; at += step) {
        uint32_t n = (uint32_t)MIN(step, len - at);
        int rc = b->ops->read(b, off + at, n, have, 0);

        if (rc < 0) {
            sense_from_err(c, rc, SCSI_IO_READ);
            break;
        }
        if (data == NULL)
            continue; /* only the medium is verified: the engine checked its checksums */
        for (uint32_t i = 0; i < n; i += SCSI_BLOCK_BYTES) {
            const uint8_t *want = same_block ? data : data + at + i;
            uint32_t m = MIN(SCSI_BLOCK_BYTES, n - i), k = 0;

            if (LIKELY(memcmp(have->data + i, want, m) == 0))
                continue;
            while (have->data[i + k] == want[k])
                k++;
            sense_miscompare(c, same_block ? k : at + i + k);
            break;
        }
    }
    buf_put(have);
}

void scsi_check_write_verify(struct scsi_cmd *c)
{
    if ((c->cdb[1] >> 1 & 3) > 1) {
        sense_invalid_cdb_field(c, 1, 2);
        return;
    }
    scsi_check_write(c);
}

co_fn void scsi_run_write_verify(struct scsi_cmd *c)
{
    bool bytes = c->cdb[1] & 0x02;

    scsi_run_write(c);
    if (c->status == SCSI_GOOD)
        compare(c, cmd_offset(c), ROUND_DOWN(c->out_len, SCSI_BLOCK_BYTES),
                bytes ? c->out->data : NULL, false);
}

/* BYTCHK of VERIFY: 0 the medium, 1 against as much data, 3 each block against one block. */
void scsi_check_verify(struct scsi_cmd *c)
{
    unsigned bytchk = c->cdb[1] >> 1 & 3;

    if (bytchk == 2) {
        sense_invalid_cdb_field(c, 1, 2);
        return;
    }
    if (bytchk != 0 && c->blocks > SCSI_TRANSFER_BLOCKS_MAX) {
        sense_invalid_cdb_field(c, c->row->cdb_len == 16 ? 10 : c->row->cdb_len == 12 ? 6 : 7, 8);
        return;
    }
    if (c->blocks == 0) {
        c->done = true;
        return;
    }
    if (bytchk == 1)
        check_data_out(c, (uint64_t)c->blocks * SCSI_BLOCK_BYTES);
    else if (bytchk == 3)
        check_data_out(c, SCSI_BLOCK_BYTES);
    if (bytchk == 3 && c->out_len < SCSI_BLOCK_BYTES)
        sense_invalid_cdb_field(c, 1, 2);
}

co_fn void scsi_run_verify(struct scsi_cmd *c)
{
    uint64_t len = (uint64_t)c->blocks * SCSI_BLOCK_BYTES;

    switch (c->cdb[1] >> 1 & 3) {
    case 0:
        compare(c, cmd_offset(c), len, NULL, false);
        break;
    case 1:
        if (c->out_len >= SCSI_BLOCK_BYTES)
            compare(c, cmd_offset(c), ROUND_DOWN(c->out_len, SCSI_BLOCK_BYTES), c->out->data,
                    false);
        break;
    default:
        compare(c, cmd_offset(c), len, c->out->data, true);
        break;
    }
}

void scsi_check_sync(struct scsi_cmd *c)
{
    if (c->cdb[1] & 0x02) /* IMMED */
        c->done = true;
}

co_fn void scsi_run_sync(struct scsi_cmd *c)
{
    int rc = c->lun->backend->ops->flush(c->lun->backend);

    if (rc < 0)
        sense_from_err(c, rc, SCSI_IO_FLUSH);
}

void scsi_check_prefetch(struct scsi_cmd *c)
{
    /* GOOD: nothing was (or needs to be) put into a cache of ours. */
    c->done = true;
}
