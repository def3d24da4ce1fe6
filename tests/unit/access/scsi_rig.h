/* SPDX-License-Identifier: Apache-2.0
 *
 * A unit in memory, two initiators' nexuses, and one command at a time. Nothing suspends here, so
 * no runtime is needed. */
#ifndef ZBS_TESTS_UNIT_ACCESS_SCSI_RIG_H
#define ZBS_TESTS_UNIT_ACCESS_SCSI_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "access/scsi/scsi_int.h"
#include "common/base/units.h"

#define SIZE_BYTES (64u * 1024 * 1024)
#define BLOCKS     (SIZE_BYTES / 512)

struct rig {
    struct pr_registry registry;
    struct scsi_target target;
    struct scsi_lun *lun;
    struct block_backend *backend;
    struct scsi_nexus nexus, other;
    /* result of the last command */
    struct scsi_cmd cmd;
    uint8_t in[65536];
};

static UNUSED int setup(void **state)
{
    struct rig *r = calloc(1, sizeof(*r));
    struct pr_unit *pr;

    scsi_target_init(&r->target, "iqn.2024-01.example:t");
    r->lun = scsi_lun_add(&r->target, 0);
    r->backend = block_backend_mem_new(77, SIZE_BYTES);
    pr_registry_init(&r->registry, NULL);
    assert_int_equal(pr_unit_get(&r->registry, 77, &pr), 0);
    scsi_lun_attach(r->lun, r->backend, pr);
    scsi_nexus_init(&r->nexus, &r->target, "127.0.0.1:3260", 5, "iqn.one,i,0x000000000001");
    scsi_nexus_init(&r->other, &r->target, "127.0.0.1:3260", 5, "iqn.two,i,0x000000000002");
    memset(r->nexus.ua, 0, sizeof(r->nexus.ua));
    memset(r->other.ua, 0, sizeof(r->other.ua));
    *state = r;
    return 0;
}

static UNUSED int teardown(void **state)
{
    struct rig *r = *state;

    scsi_nexus_fini(&r->nexus);
    scsi_nexus_fini(&r->other);
    if (r->lun != NULL)
        scsi_lun_remove(r->lun);
    scsi_target_fini(&r->target);
    pr_registry_fini(&r->registry);
    free(r);
    return 0;
}

/* Runs one command; out: what the initiator has to send, of out_len bytes; in_len: its room. */
static UNUSED struct scsi_cmd *run_on(struct rig *r, struct scsi_nexus *n, uint16_t lun,
                                      const uint8_t *cdb, size_t cdb_len, const void *out,
                                      uint32_t out_len, uint32_t in_len)
{
    struct scsi_cmd *c = &r->cmd;

    memset(c, 0, sizeof(*c));
    memcpy(c->cdb, cdb, cdb_len);
    c->nexus = n;
    c->lun_number = lun;
    c->attr = SCSI_SIMPLE;
    c->out_expected = out_len;
    c->in_expected = in_len;
    scsi_cmd_start(c);
    if (!c->done) {
        assert_true(c->out_len <= out_len);
        if (c->out_len > 0) {
            c->out = buf_alloc(c->out_len);
            if (out != NULL)
                memcpy(c->out->data, out, c->out_len);
        }
        scsi_cmd_execute(c);
    }
    assert_true(c->done);
    assert_true(c->in_len <= in_len && c->in_len <= sizeof(r->in));
    memset(r->in, 0xee, sizeof(r->in));
    if (c->in_len > 0)
        memcpy(r->in, c->in->data, c->in_len);
    scsi_cmd_end(c);
    return c;
}

#define CDB(...) ((const uint8_t[]){__VA_ARGS__}), sizeof((const uint8_t[]){__VA_ARGS__})
#define RUN(r, out, out_len, in_len, ...)                                                          \
    run_on(r, &(r)->nexus, 0, CDB(__VA_ARGS__), out, out_len, in_len)

static UNUSED void expect_good(const struct scsi_cmd *c)
{
    assert_int_equal(c->status, SCSI_GOOD);
}

static UNUSED void expect_sense(const struct scsi_cmd *c, uint8_t key, uint8_t asc, uint8_t ascq)
{
    assert_int_equal(c->status, SCSI_CHECK_CONDITION);
    assert_int_equal(c->sense.key, key);
    assert_int_equal(c->sense.asc, asc);
    assert_int_equal(c->sense.ascq, ascq);
    assert_int_equal(c->in_len, 0);
}

static UNUSED void expect_cdb_field(const struct scsi_cmd *c, unsigned byte, unsigned bit)
{
    expect_sense(c, SENSE_ILLEGAL_REQUEST, 0x24, 0);
    assert_true(c->sense.field_valid && c->sense.field_in_cdb);
    assert_int_equal(c->sense.field, byte);
    assert_int_equal(c->sense.bit, bit);
}

#endif
