/* SPDX-License-Identifier: Apache-2.0
 *
 * EXTENDED COPY(LID1) and RECEIVE COPY RESULTS (SPC-4 6.4, 6.23): block to block, between units of
 * one target, which are named by their NAA designators. Nothing is copied before the whole
 * parameter list has been checked. */
#include <string.h>
#include "access/scsi/scsi_int.h"
#include "common/base/mem.h"

#define HEADER_BYTES  16u
#define TARGET_BYTES  32u
#define SEGMENT_BYTES 28u
#define TARGETS_MAX   16u
#define SEGMENTS_MAX  128u
#define LIST_MAX      (TARGETS_MAX * TARGET_BYTES + SEGMENTS_MAX * SEGMENT_BYTES)
#define STEP_BYTES    (1024u * 1024)

enum { TARGET_IDENTIFICATION = 0xe4, SEGMENT_BLOCK_TO_BLOCK = 0x02 };
enum { LIST_HOLD = 0, LIST_DISCARD = 2, LIST_NO_ID = 3 };
enum { RESULTS_STATUS = 0x00, RESULTS_PARAMETERS = 0x03 };
enum { COPY_DONE = 1, COPY_FAILED = 2 };

/* A parameter list that was found to be whole. */
struct copy {
    struct scsi_cmd *c;
    uint32_t n_targets, n_segments;
    struct scsi_lun *luns[TARGETS_MAX]; /* pinned; NULL: not of this target, or not ready */
    const uint8_t *segments;
    uint32_t done; /* segments */
    uint64_t bytes;
};

/* ---- the parameter list ---- */

void scsi_check_copy(struct scsi_cmd *c)
{
    uint32_t len = get_be32(c->cdb + 10);

    c->wanted = len;
    if (len == 0) {
        c->done = true;
        return;
    }
    /* Room for what exceeds LIST_MAX a little, so that it is answered by what is wrong with it. */
    if (len < HEADER_BYTES || len > SCSI_PARAMETER_BYTES_MAX || c->out_expected < len) {
        sense_parameter_list_length(c);
        return;
    }
    c->out_len = len;
}

static struct scsi_lun *lun_named(const struct scsi_target *t, const uint8_t *designator,
                                  uint8_t len)
{
    uint8_t naa[SCSI_NAA_BYTES];

    for (uint32_t i = 0; i < SCSI_LUNS_MAX; i++) {
        if (t->luns[i] == NULL || t->luns[i]->backend == NULL)
            continue;
        scsi_lun_naa(t->luns[i], naa);
        if (len == sizeof(naa) && memcmp(naa, designator, len) == 0)
            return t->luns[i];
    }
    return NULL;
}

/* false: sense is set. */
static bool copy_parse_targets(struct copy *copy, const uint8_t *p, uint32_t len)
{
    struct scsi_cmd *c = copy->c;

    for (uint32_t at = 0; at < len; at += TARGET_BYTES) {
        const uint8_t *d = p + at;

        if (d[0] != TARGET_IDENTIFICATION || (d[1] & 0x1f) != 0 || len - at < TARGET_BYTES) {
            sense_copy_descriptor(c, COPY_TARGET_TYPE);
            return false;
        }
        if (copy->n_targets == TARGETS_MAX) {
            sense_copy_descriptor(c, COPY_TARGETS_MANY);
            return false;
        }
        if (d[7] > 20 || get_be24(d + 29) != SCSI_BLOCK_BYTES) {
            sense_invalid_parameter(c, HEADER_BYTES + at + (d[7] > 20 ? 7 : 29), 8);
            return false;
        }
        copy->luns[copy->n_targets++] = lun_named(c->nexus->target, d + 8, d[7]);
    }
    return true;
}

static bool copy_parse_segments(struct copy *copy, const uint8_t *p, uint32_t len, uint32_t base)
{
    struct scsi_cmd *c = copy->c;

    copy->segments = p;
    for (uint32_t at = 0; at < len; at += SEGMENT_BYTES) {
        if (p[at] != SEGMENT_BLOCK_TO_BLOCK) {
            sense_copy_descriptor(c, COPY_SEGMENT_TYPE);
            return false;
        }
        if (len - at < SEGMENT_BYTES || get_be16(p + at + 2) != SEGMENT_BYTES - 4) {
            sense_invalid_parameter(c, base + at + 2, 8);
            return false;
        }
        if (copy->n_segments == SEGMENTS_MAX) {
            sense_copy_descriptor(c, COPY_SEGMENTS_MANY);
            return false;
        }
        copy->n_segments++;
    }
    return true;
}

static bool copy_parse(struct copy *copy)
{
    struct scsi_cmd *c = copy->c;
    const uint8_t *p = c->out->data;
    uint64_t targets = get_be16(p + 2), segments = get_be32(p + 8), inline_data = get_be32(p + 12);
    uint8_t usage = p[1] >> 3 & 3;

    if (targets + segments + inline_data > c->out_len - HEADER_BYTES ||
        targets + segments > LIST_MAX) {
        sense_parameter_list_length(c);
        return false;
    }
    if (usage == 1 || (usage == LIST_NO_ID && p[0] != 0)) {
        sense_invalid_parameter(c, usage == 1, usage == 1 ? 4 : 8);
        return false;
    }
    if (inline_data > 0) {
        sense_invalid_parameter(c, 12, 8);
        return false;
    }
    return copy_parse_targets(copy, p + HEADER_BYTES, (uint32_t)targets) &&
           copy_parse_segments(copy, p + HEADER_BYTES + targets, (uint32_t)segments,
                               HEADER_BYTES + (uint32_t)targets);
}

/* ---- copying ---- */

/* May the nexus do that to the unit now? Asked before each step, because others may reserve it. */
static bool copy_allowed(struct scsi_cmd *c, const struct scsi_lun *lun, enum pr_access access)
{
    if (lun->removed) {
        sense_copy_unreachable(c);
        return false;
    }
    if (access == PR_ACCESS_EXCLUSIVE && scsi_lun_protected(lun)) {
        sense_copy_aborted(c);
        return false;
    }
    if (lun->pr != NULL && pr_conflicts(&lun->pr->state, &c->nexus->id, access)) {
        c->status = SCSI_RESERVATION_CONFLICT;
        return false;
    }
    return true;
}

/* What is a hole in the source becomes one, as far as the destination can. */
static co_fn int copy_step(struct block_backend *from, uint64_t src, struct block_backend *to,
                           uint64_t dst, uint32_t len, struct buf *buf)
{
    uint64_t holds;
    bool hole;
    int rc = from->ops->hole(from, src, len, &hole, &holds);

    if (rc == 0 && hole && holds == len)
        return to->ops->zero(to, dst, len);
    rc = from->ops->read(from, src, len, buf, 0);
    return rc < 0 ? rc : to->ops->write(to, dst, len, buf, 0);
}

static bool range_fits(const struct scsi_lun *lun, uint64_t lba, uint32_t blocks)
{
    return lba <= lun->blocks && blocks <= lun->blocks - lba;
}

/* Sense is set if it was not copied whole. */
static co_fn void copy_segment(struct copy *copy, const uint8_t *d, struct buf *buf)
{
    struct scsi_cmd *c = copy->c;
    uint16_t from_index = get_be16(d + 4), to_index = get_be16(d + 6);
    uint32_t blocks = get_be16(d + 10);
    uint64_t src = get_be64(d + 12), dst = get_be64(d + 20), len = blocks * SCSI_BLOCK_BYTES;
    struct scsi_lun *from = from_index < copy->n_targets ? copy->luns[from_index] : NULL;
    struct scsi_lun *to = to_index < copy->n_targets ? copy->luns[to_index] : NULL;

    if (from == NULL || to == NULL) {
        sense_copy_unreachable(c);
        return;
    }
    if (!range_fits(from, src, blocks) || !range_fits(to, dst, blocks)) {
        sense_copy_aborted(c);
        return;
    }
    /* Overlapping ranges: the end first, if it would be overwritten otherwise. */
    bool backwards = from == to && dst > src && dst < src + blocks;
    for (uint64_t at = 0; at < len && !c->abort_requested; at += STEP_BYTES) {
        uint32_t n = (uint32_t)MIN(STEP_BYTES, len - at);
        uint64_t off = backwards ? len - at - n : at;

        if (!copy_allowed(c, from, PR_ACCESS_READ) || !copy_allowed(c, to, PR_ACCESS_EXCLUSIVE))
            return;
        int rc = copy_step(from->backend, src * SCSI_BLOCK_BYTES + off, to->backend,
                           dst * SCSI_BLOCK_BYTES + off, n, buf);
        if (rc < 0) { /* not to be repeated blindly: the source may change meanwhile */
            sense_from_err(c, rc, SCSI_IO_ATOMIC);
            return;
        }
        copy->bytes += n;
    }
    copy->done++;
}

static void copy_pin(struct copy *copy, int by)
{
    for (uint32_t i = 0; i < copy->n_targets; i++) {
        if (copy->luns[i] == NULL)
            continue;
        copy->luns[i]->pins += (uint32_t)by;
        co_cond_broadcast(&copy->luns[i]->ended);
    }
}

/* Kept for RECEIVE COPY RESULTS: the last ones of each nexus. */
static void copy_keep(const struct copy *copy)
{
    struct scsi_nexus *n = copy->c->nexus;
    const uint8_t *p = copy->c->out->data;

    if ((p[1] >> 3 & 3) != LIST_HOLD)
        return;
    n->copies[n->copy_next++ % SCSI_COPIES_HELD] = (struct scsi_copy_result){
        .lun = copy->c->lun_number,
        .list_id = p[0],
        .status = copy->c->status == SCSI_GOOD ? COPY_DONE : COPY_FAILED,
        .segments = (uint16_t)copy->done,
        .bytes = copy->bytes,
    };
}

co_fn void scsi_run_copy(struct scsi_cmd *c)
{
    struct copy copy = {.c = c};

    if (!copy_parse(&copy))
        return;
    struct buf *buf = buf_alloc(STEP_BYTES);
    copy_pin(&copy, 1);
    for (uint32_t i = 0; i < copy.n_segments && c->status == SCSI_GOOD && !c->abort_requested; i++)
        copy_segment(&copy, copy.segments + i * SEGMENT_BYTES, buf);
    copy_pin(&copy, -1);
    buf_put(buf);
    copy_keep(&copy);
}

/* ---- RECEIVE COPY RESULTS ---- */

static const struct scsi_copy_result *copy_find(const struct scsi_cmd *c, uint8_t list_id)
{
    const struct scsi_nexus *n = c->nexus;

    for (uint32_t i = n->copy_next; i > 0 && n->copy_next - i < SCSI_COPIES_HELD; i--) {
        const struct scsi_copy_result *r = &n->copies[(i - 1) % SCSI_COPIES_HELD];

        if (r->lun == c->lun_number && r->list_id == list_id)
            return r;
    }
    return NULL;
}

static void results_status(struct scsi_cmd *c)
{
    const struct scsi_copy_result *r = copy_find(c, c->cdb[2]);

    if (r == NULL) {
        sense_invalid_cdb_field(c, 2, 8);
        return;
    }
    struct buf *b = scsi_answer_buf(12);
    put_be32(b->data, 8);
    b->data[4] = r->status;
    put_be16(b->data + 5, r->segments);
    b->data[7] = 1; /* KiB */
    put_be32(b->data + 8, (uint32_t)(r->bytes >> 10));
    scsi_cmd_answer(c, b, 12);
}

static void results_parameters(struct scsi_cmd *c)
{
    struct buf *b = scsi_answer_buf(46);
    uint8_t *p = b->data;

    put_be32(p, 42);
    p[4] = 0x01; /* SNLID */
    put_be16(p + 8, TARGETS_MAX);
    put_be16(p + 10, SEGMENTS_MAX);
    put_be32(p + 12, LIST_MAX);
    put_be32(p + 16, UINT16_MAX * SCSI_BLOCK_BYTES);
    put_be16(p + 34, SCSI_COPIES_HELD);
    p[36] = SCSI_COPIES_HELD;
    p[37] = 9; /* granularity: a block */
    p[43] = 2; /* descriptors that we know */
    p[44] = SEGMENT_BLOCK_TO_BLOCK;
    p[45] = TARGET_IDENTIFICATION;
    scsi_cmd_answer(c, b, 46);
}

void scsi_check_copy_results(struct scsi_cmd *c)
{
    c->alloc_len = get_be32(c->cdb + 10);
    if ((c->cdb[1] & 0x1f) == RESULTS_STATUS)
        results_status(c);
    else
        results_parameters(c);
}
