/* SPDX-License-Identifier: Apache-2.0
 *
 * The life of a command: checks in the order that SAM-5 gives to conditions, task set order,
 * residuals, task management. */
#include <string.h>
#include "access/scsi/scsi_int.h"
#include "common/base/assert.h"
#include "common/base/log.h"
#include "common/base/mem.h"

/* ---- answers and residuals ---- */

struct buf *scsi_answer_buf(uint32_t len)
{
    struct buf *b = buf_alloc(MAX(len, 1u));

    memset(b->data, 0, len);
    return b;
}

void scsi_cmd_answer(struct scsi_cmd *c, struct buf *in, uint32_t len)
{
    c->wanted = MIN(len, c->alloc_len);
    c->in_len = (uint32_t)MIN(c->wanted, c->in_expected);
    c->in = in;
    c->done = true;
}

static void scsi_cmd_residual(struct scsi_cmd *c)
{
    uint64_t expected = MAX(c->in_expected, c->out_expected);
    uint64_t moved = c->wanted;

    if (c->in != NULL)
        expected = c->in_expected;
    else if (c->out_len > 0)
        expected = c->out_expected;
    else if (c->row != NULL && (c->row->flags & ROW_READS))
        expected = c->in_expected;
    if (c->status != SCSI_GOOD)
        moved = c->out_len;
    c->residual = SCSI_RESIDUAL_NONE;
    c->residual_bytes = 0;
    if (moved < expected) {
        c->residual = SCSI_RESIDUAL_UNDERFLOW;
        c->residual_bytes = (uint32_t)(expected - moved);
    } else if (moved > expected) {
        c->residual = SCSI_RESIDUAL_OVERFLOW;
        c->residual_bytes = (uint32_t)MIN(moved - expected, UINT32_MAX);
    }
}

/* Status and sense stand: drops what was read, computes the residual. */
static void scsi_cmd_settle(struct scsi_cmd *c)
{
    if (c->status != SCSI_GOOD && c->in != NULL) {
        buf_put(c->in);
        c->in = NULL;
    }
    if (c->in == NULL)
        c->in_len = 0;
    scsi_cmd_residual(c);
    c->done = true;
}

/* ---- start ---- */

/* Reads LBA and length and checks them against the capacity: false if sense was set. */
static bool scsi_cmd_range(struct scsi_cmd *c)
{
    const uint8_t *p = c->cdb;

    switch (c->row->range) {
    case RANGE_6:
        c->lba = get_be24(p + 1) & 0x1fffff;
        c->blocks = p[4] ? p[4] : 256;
        break;
    case RANGE_10:
        c->lba = get_be32(p + 2);
        c->blocks = get_be16(p + 7);
        break;
    case RANGE_12:
        c->lba = get_be32(p + 2);
        c->blocks = get_be32(p + 6);
        break;
    case RANGE_16:
        c->lba = get_be64(p + 2);
        c->blocks = get_be32(p + 10);
        break;
    case RANGE_16_CAW:
        c->lba = get_be64(p + 2);
        c->blocks = p[13];
        break;
    default:
        return true;
    }
    if (c->lba > c->lun->blocks || c->blocks > c->lun->blocks - c->lba) {
        sense_lba_out_of_range(c, MAX(c->lba, c->lun->blocks));
        return false;
    }
    if (c->row->limit == LIMIT_TRANSFER && c->blocks > SCSI_TRANSFER_BLOCKS_MAX) {
        sense_invalid_cdb_field(c,
                                c->row->range == RANGE_10   ? 7
                                : c->row->range == RANGE_12 ? 6
                                                            : 10,
                                8);
        return false;
    }
    return true;
}

static void scsi_cmd_check(struct scsi_cmd *c)
{
    bool opcode_known;
    uint8_t asc, ascq;

    c->row = scsi_row_find(c->cdb, &opcode_known);
    if (c->lun == NULL) {
        if (c->row == NULL || !(c->row->flags & ROW_NO_LUN)) {
            sense_lun_not_supported(c);
            return;
        }
    } else if ((c->row == NULL || !(c->row->flags & ROW_NO_UA)) &&
               scsi_nexus_take_ua(c->nexus, c->lun_number, &asc, &ascq)) {
        sense_unit_attention(c, asc, ascq);
        return;
    }
    if (c->row != NULL && !scsi_row_there(c->row, c->lun)) {
        sense_invalid_opcode(c);
        return;
    }
    if (c->row == NULL) {
        if (opcode_known)
            sense_invalid_cdb_field(c, 1, 4);
        else
            sense_invalid_opcode(c);
        return;
    }
    if (!scsi_row_check_bits(c))
        return;
    if (c->lun != NULL) {
        if (c->lun->backend == NULL && !(c->row->flags & ROW_NO_MEDIUM)) {
            sense_becoming_ready(c);
            return;
        }
        if (c->lun->pr != NULL && pr_unit_refuses(c->lun->pr, c)) {
            c->status = SCSI_RESERVATION_CONFLICT;
            return;
        }
        if (!scsi_cmd_range(c))
            return;
        if ((c->row->flags & (ROW_WRITES | ROW_ELSEWHERE)) == ROW_WRITES &&
            scsi_lun_protected(c->lun)) {
            sense_write_protected(c);
            return;
        }
    }
    if (c->row->check != NULL)
        c->row->check(c);
}

void scsi_cmd_start(struct scsi_cmd *c)
{
    struct scsi_target *t = c->nexus->target;

    c->lun = c->lun_number < SCSI_LUNS_MAX ? t->luns[c->lun_number] : NULL;
    list_init(&c->link);
    if (c->lun != NULL) {
        list_push_back(&c->lun->cmds, &c->link);
        c->in_task_set = true;
        if (c->attr == SCSI_ORDERED)
            c->lun->ordered++;
    }
    scsi_cmd_check(c);
    if (c->status != SCSI_GOOD || c->done) {
        c->out_len = 0;
        scsi_cmd_settle(c);
        return;
    }
    if (c->row->run == NULL)
        scsi_cmd_settle(c);
}

void scsi_cmd_refuse(struct scsi_cmd *c, enum scsi_status status)
{
    c->status = (uint8_t)status;
    c->out_len = 0;
    scsi_cmd_settle(c);
}

void scsi_cmd_damaged(struct scsi_cmd *c)
{
    sense_transfer_damaged(c);
    c->out_len = 0;
    scsi_cmd_settle(c);
}

void scsi_cmd_lose(struct scsi_cmd *c, int rc)
{
    ASSERT(rc < 0);
    c->lost = rc;
    c->status = SCSI_TASK_ABORTED;
}

bool scsi_cdb_needs_medium(const uint8_t cdb[SCSI_CDB_MAX])
{
    bool opcode_known;
    const struct scsi_row *row = scsi_row_find(cdb, &opcode_known);

    return row != NULL && !(row->flags & ROW_NO_MEDIUM);
}

/* ---- execute ---- */

/* May the command run, by its own task attribute and those before it? */
static bool scsi_cmd_may_run(const struct scsi_cmd *c)
{
    if (c->lun->ordered == 0 || c->attr == SCSI_HEAD_OF_QUEUE)
        return true;
    LIST_FOREACH (other, &c->lun->cmds, struct scsi_cmd, link) {
        if (other == c)
            return true;
        if (c->attr == SCSI_ORDERED || other->attr == SCSI_ORDERED)
            return false;
    }
    return true;
}

/* A write that waited too long somewhere (in a socket of a stopped process, behind a cut link)
 * may have been repeated over another path, and overwritten since. */
static co_fn void scsi_cmd_confirm(struct scsi_cmd *c)
{
    struct block_backend *b = c->lun->backend;
    int rc = b->ops->confirm != NULL && !c->abort_requested ? b->ops->confirm(b) : 0;

    if (rc < 0 && !c->abort_requested)
        scsi_cmd_lose(c, rc);
}

/* Others may have reserved the unit while we were cut off. */
static co_fn void scsi_cmd_fresh(struct scsi_cmd *c)
{
    int rc = c->lun->pr != NULL && !c->abort_requested ? pr_unit_fresh(c->lun->pr, c) : 0;

    if (rc < 0 && !c->abort_requested)
        scsi_cmd_lose(c, rc);
}

co_fn void scsi_cmd_execute(struct scsi_cmd *c)
{
    ASSERT(!c->done && c->row != NULL && c->row->run != NULL && c->lun != NULL);
    while (!scsi_cmd_may_run(c) && !c->abort_requested)
        co_cond_wait_always(&c->lun->ended);
    if (c->row->flags & ROW_WRITES)
        scsi_cmd_confirm(c);
    if (c->lost == 0)
        scsi_cmd_fresh(c);
    c->begun = true;
    if (c->abort_requested)
        c->status = SCSI_TASK_ABORTED;
    else if (c->lost == 0 && c->lun->pr != NULL &&
             pr_unit_refuses(c->lun->pr, c)) /* reserved meanwhile */
        c->status = SCSI_RESERVATION_CONFLICT;
    else if (c->lost == 0)
        c->row->run(c);
    scsi_cmd_settle(c);
}

void scsi_cmd_end(struct scsi_cmd *c)
{
    if (c->in_task_set) {
        c->in_task_set = false;
        list_del(&c->link);
        if (c->attr == SCSI_ORDERED)
            c->lun->ordered--;
        co_cond_broadcast(&c->lun->ended);
    }
    buf_put(c->in);
    buf_put(c->out);
    c->in = c->out = NULL;
}

uint32_t scsi_cmd_sense(const struct scsi_cmd *c, uint8_t dst[SCSI_SENSE_MAX])
{
    if (c->status != SCSI_CHECK_CONDITION)
        return 0;
    return sense_encode(&c->sense, c->lun != NULL && c->lun->d_sense, dst);
}

bool scsi_cmd_is_read(const struct scsi_cmd *c)
{
    return c->row != NULL && (c->row->flags & ROW_READS);
}

bool scsi_cmd_is_write(const struct scsi_cmd *c)
{
    return c->row != NULL && (c->row->flags & ROW_WRITES);
}

/* ---- task management ---- */

static bool scsi_lun_has_aborting(struct scsi_lun *lun, const struct scsi_nexus *only)
{
    LIST_FOREACH (c, &lun->cmds, struct scsi_cmd, link) {
        if (c->abort_requested && (only == NULL || c->nexus == only))
            return true;
    }
    return false;
}

co_fn void scsi_lun_abort(struct scsi_lun *lun, const struct scsi_nexus *only)
{
    lun->pins++;
    LIST_FOREACH_SAFE (c, &lun->cmds, struct scsi_cmd, link) {
        if (only != NULL && c->nexus != only)
            continue;
        c->abort_requested = true;
        if (c->aborted != NULL)
            c->aborted(c);
    }
    co_cond_broadcast(&lun->ended); /* those that wait for their turn */
    while (scsi_lun_has_aborting(lun, only))
        co_cond_wait_always(&lun->ended);
    lun->pins--;
    co_cond_broadcast(&lun->ended);
}

/* Resets all units of the volume, on other paths too: false if that can't be done now. */
static co_fn bool scsi_lun_reset_volume(struct scsi_lun *lun)
{
    enum pr_answer answer;

    if (lun->pr == NULL)
        return false;
    int rc = pr_unit_legacy(lun->pr, PR_LEGACY_RESET, NULL, NULL, &answer);
    if (rc < 0)
        log_warn("scsi.reset", "volume=%llu why=\"other paths were not told: %s\"",
                 (unsigned long long)lun->info.volume_id, err_text(rc));
    return rc == 0;
}

co_fn void scsi_lun_reset(struct scsi_lun *lun)
{
    lun->pins++;
    scsi_lun_abort(lun, NULL);
    if (!scsi_lun_reset_volume(lun)) {
        lun->d_sense = false;
        lun->swp = false;
        if (!lun->removed)
            scsi_target_attention(lun->target, lun, SCSI_UA_RESET, NULL);
    }
    lun->pins--;
    co_cond_broadcast(&lun->ended);
}
