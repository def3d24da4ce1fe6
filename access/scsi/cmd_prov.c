/* SPDX-License-Identifier: Apache-2.0
 *
 * Provisioning: UNMAP, WRITE SAME, GET LBA STATUS. */
#include <string.h>
#include "access/scsi/scsi_int.h"

/* ---- UNMAP ---- */

#define UNMAP_HEADER     8u
#define UNMAP_DESCRIPTOR 16u

void scsi_check_unmap(struct scsi_cmd *c)
{
    uint32_t len = get_be16(c->cdb + 7);

    c->wanted = len;
    if (len == 0) {
        c->done = true;
        return;
    }
    if (len < UNMAP_HEADER || c->out_expected < len) {
        sense_parameter_list_length(c);
        return;
    }
    c->out_len = len;
}

/* Checks every descriptor before the first block is unmapped. Number of descriptors, or -1 with
 * sense set. */
static int unmap_check_list(struct scsi_cmd *c)
{
    const uint8_t *p = c->out->data;
    uint32_t n = MIN(get_be16(p + 2), c->out_len - UNMAP_HEADER) / UNMAP_DESCRIPTOR;
    uint64_t total = 0;

    if (n > SCSI_UNMAP_DESCRIPTORS_MAX) {
        sense_invalid_parameter(c, 2, 8);
        return -1;
    }
    for (uint32_t i = 0; i < n; i++) {
        const uint8_t *d = p + UNMAP_HEADER + i * UNMAP_DESCRIPTOR;
        uint64_t lba = get_be64(d);
        uint32_t blocks = get_be32(d + 8);

        if (lba > c->lun->blocks || blocks > c->lun->blocks - lba) {
            sense_lba_out_of_range(c, MAX(lba, c->lun->blocks));
            return -1;
        }
        total += blocks;
        if (total > SCSI_UNMAP_BLOCKS_MAX) {
            sense_invalid_parameter(c, UNMAP_HEADER + i * UNMAP_DESCRIPTOR + 8, 8);
            return -1;
        }
    }
    return (int)n;
}

co_fn void scsi_run_unmap(struct scsi_cmd *c)
{
    struct block_backend *b = c->lun->backend;
    int n = unmap_check_list(c);

    for (int i = 0; i < n && !c->abort_requested; i++) {
        const uint8_t *d = c->out->data + UNMAP_HEADER + (uint32_t)i * UNMAP_DESCRIPTOR;
        uint64_t len = (uint64_t)get_be32(d + 8) * SCSI_BLOCK_BYTES;

        if (len == 0)
            continue;
        int rc = b->ops->discard(b, get_be64(d) * SCSI_BLOCK_BYTES, len);
        if (rc < 0) {
            sense_from_err(c, rc, SCSI_IO_WRITE);
            return;
        }
    }
}

/* ---- WRITE SAME ---- */

enum { WRITE_SAME_UNMAP = 0x08, WRITE_SAME_NDOB = 0x01 };

void scsi_check_write_same(struct scsi_cmd *c)
{
    unsigned len_byte = c->row->range == RANGE_16 ? 10 : 7;
    bool ndob = c->row->range == RANGE_16 && (c->cdb[1] & WRITE_SAME_NDOB);
    uint32_t data = ndob ? 0 : SCSI_BLOCK_BYTES;

    c->to_end = c->blocks == 0; /* WSNZ is 0 */
    if (c->to_end)
        c->blocks = (uint32_t)MIN(c->lun->blocks - c->lba, UINT32_MAX);
    if (c->blocks > SCSI_WRITE_SAME_BLOCKS_MAX) {
        sense_invalid_cdb_field(c, len_byte, 8);
        return;
    }
    if (c->out_expected != data) { /* a block, no more and no less */
        sense_invalid_cdb_field(c, len_byte, 8);
        return;
    }
    c->wanted = data;
    c->out_len = data;
    if (c->blocks == 0)
        c->done = true;
}

/* Writes the block everywhere, a buffer full of copies at a time. */
static co_fn int write_same_fill(struct scsi_cmd *c, uint64_t off, uint64_t len)
{
    struct block_backend *b = c->lun->backend;
    uint32_t step = (uint32_t)MIN(len, 1024u * 1024);
    struct buf *run = buf_alloc(step);
    int rc = 0;

    for (uint32_t i = 0; i < step; i += SCSI_BLOCK_BYTES)
        memcpy(run->data + i, c->out->data, SCSI_BLOCK_BYTES);
    for (uint64_t at = 0; at < len && rc == 0 && !c->abort_requested; at += step)
        rc = b->ops->write(b, off + at, (uint32_t)MIN(step, len - at), run, 0);
    buf_put(run);
    return rc;
}

co_fn void scsi_run_write_same(struct scsi_cmd *c)
{
    struct block_backend *b = c->lun->backend;
    uint64_t off = c->lba * SCSI_BLOCK_BYTES;
    uint64_t len = (uint64_t)c->blocks * SCSI_BLOCK_BYTES;
    bool zeroes = c->out_len == 0 || mem_is_zero(c->out->data, SCSI_BLOCK_BYTES);
    int rc;

    /* With UNMAP a block that is not zero is still written, because unmapped blocks read as zeroes
     * (LBPRZ). The exception is a range "to the end": there the form is taken as nothing but a
     * request to unmap, as other targets do and iscsi-test-cu 1.19 expects. */
    if (c->to_end && (c->cdb[1] & WRITE_SAME_UNMAP))
        zeroes = true;
    if (!zeroes)
        rc = write_same_fill(c, off, len);
    else if (c->cdb[1] & WRITE_SAME_UNMAP)
        rc = b->ops->discard(b, off, len);
    else
        rc = b->ops->zero(b, off, len);
    if (rc < 0)
        sense_from_err(c, rc, SCSI_IO_WRITE);
}

/* ---- GET LBA STATUS ---- */

/* One descriptor: from the LBA asked for to the end, "mapped or unknown" (0h): the front end does
 * not know what the chunk servers have provisioned. */
void scsi_check_lba_status(struct scsi_cmd *c)
{
    struct buf *b;

    c->lba = get_be64(c->cdb + 2);
    c->alloc_len = get_be32(c->cdb + 10);
    if (c->lba >= c->lun->blocks) {
        sense_lba_out_of_range(c, c->lba);
        return;
    }
    b = scsi_answer_buf(24);
    put_be32(b->data, 20);
    put_be64(b->data + 8, c->lba);
    put_be32(b->data + 16, (uint32_t)MIN(c->lun->blocks - c->lba, UINT32_MAX));
    scsi_cmd_answer(c, b, 24);
}
