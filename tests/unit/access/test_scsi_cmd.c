/* SPDX-License-Identifier: Apache-2.0
 *
 * SCSI commands against a back end in memory: CDB checks, data, sense, residuals, unit attentions.
 */
#include "tests/unit/access/scsi_rig.h"

static void put_pattern(uint8_t *p, size_t len, uint8_t seed)
{
    for (size_t i = 0; i < len; i++)
        p[i] = (uint8_t)(seed + i * 7 + (i >> 9));
}

/* ---- the table ---- */

static void table_is_sorted_and_whole(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < scsi_row_count; i++) {
        const struct scsi_row *row = &scsi_rows[i];
        uint8_t group = row->opcode >> 5;

        assert_int_equal(row->usage[0], row->opcode);
        assert_non_null(row->name);
        assert_non_null(row->check);
        if (group < 3 || group == 5 || group == 4)
            assert_int_equal(row->cdb_len, group == 0 ? 6 : group < 3 ? 10 : group == 4 ? 16 : 12);
        for (unsigned b = row->cdb_len; b < SCSI_CDB_MAX; b++)
            assert_int_equal(row->usage[b], 0);
        if (i > 0)
            assert_true(scsi_rows[i - 1].opcode < row->opcode ||
                        (scsi_rows[i - 1].opcode == row->opcode &&
                         scsi_rows[i - 1].service_action < row->service_action));
    }
}

/* Every bit that a row does not allow is refused, and the sense data points at it. */
static void reserved_bits_are_refused(void **state)
{
    struct rig *r = *state;

    for (uint32_t i = 0; i < scsi_row_count; i++) {
        const struct scsi_row *row = &scsi_rows[i];

        for (unsigned byte = 1; byte < row->cdb_len; byte++) {
            for (unsigned bit = 0; bit < 8; bit++) {
                uint8_t cdb[16] = {row->opcode};

                if (row->usage[byte] & 1u << bit)
                    continue;
                if (row->service_action >= 0) {
                    if (byte == 1 && bit < 5)
                        continue; /* another service action */
                    cdb[1] = (uint8_t)row->service_action;
                }
                cdb[byte] |= (uint8_t)(1u << bit);
                expect_cdb_field(run_on(r, &r->nexus, 0, cdb, row->cdb_len, NULL, 0, 0), byte, bit);
            }
        }
    }
}

static void unknown_commands_are_refused(void **state)
{
    struct rig *r = *state;

    expect_sense(RUN(r, NULL, 0, 0, 0xc1, 0, 0, 0, 0, 0), SENSE_ILLEGAL_REQUEST, 0x20, 0);
    expect_cdb_field(RUN(r, NULL, 0, 0, 0x9e, 0x1f), 1, 4);
}

static void supported_opcodes_agree_with_the_table(void **state)
{
    struct rig *r = *state;
    uint32_t n;

    expect_good(RUN(r, NULL, 0, 65535, 0xa3, 0x0c, 0x80, 0, 0, 0, 0, 0, 0xff, 0xff));
    n = get_be32(r->in) / 20;
    assert_int_equal(n, scsi_row_count);
    for (uint32_t i = 0; i < scsi_row_count; i++) {
        const struct scsi_row *row = &scsi_rows[i];
        uint8_t sa = (uint8_t)(row->service_action < 0 ? 0 : row->service_action);
        uint8_t option = row->service_action < 0 ? 1 : 2;

        expect_good(
            RUN(r, NULL, 0, 100, 0xa3, 0x0c, option, row->opcode, 0, sa, 0, 0, 0, 100, 0, 0));
        assert_int_equal(r->in[1], 3);
        assert_int_equal(get_be16(r->in + 2), row->cdb_len);
        assert_memory_equal(r->in + 4, row->usage, row->cdb_len);
        expect_cdb_field(
            RUN(r, NULL, 0, 100, 0xa3, 0x0c, 3 - option, row->opcode, 0, sa, 0, 0, 0, 100, 0, 0), 2,
            2);
    }
    expect_good(RUN(r, NULL, 0, 100, 0xa3, 0x0c, 1, 0xc1, 0, 0, 0, 0, 0, 100, 0, 0));
    assert_int_equal(r->in[1], 1);
}

/* ---- identity ---- */

static void inquiry_identifies(void **state)
{
    struct rig *r = *state;
    const uint8_t *d;

    expect_good(RUN(r, NULL, 0, 255, 0x12, 0, 0, 0, 255, 0));
    assert_int_equal(r->cmd.in_len, 96);
    assert_int_equal(r->cmd.residual, SCSI_RESIDUAL_UNDERFLOW);
    assert_int_equal(r->cmd.residual_bytes, 255 - 96);
    assert_memory_equal(r->in + 8, "ZBS     VOLUME          0001", 28);
    expect_good(RUN(r, NULL, 0, 255, 0x12, 0, 0, 0, 5, 0)); /* allocation length cuts */
    assert_int_equal(r->cmd.in_len, 5);
    expect_cdb_field(RUN(r, NULL, 0, 255, 0x12, 0, 0x83, 0, 255, 0), 2, 8);
    expect_cdb_field(RUN(r, NULL, 0, 255, 0x12, 1, 0x84, 0, 255, 0), 2, 8);
    /* every page that page 0 names exists and has a right length */
    uint8_t pages[32];
    expect_good(RUN(r, NULL, 0, 255, 0x12, 1, 0, 0, 255, 0));
    uint32_t n = get_be16(r->in + 2);
    memcpy(pages, r->in + 4, n);
    for (uint32_t i = 0; i < n; i++) {
        assert_true(i == 0 || pages[i] > pages[i - 1]);
        expect_good(RUN(r, NULL, 0, 2000, 0x12, 1, pages[i], 3, 0, 0));
        assert_int_equal(r->in[1], pages[i]);
        assert_int_equal(r->cmd.in_len, get_be16(r->in + 2) + 4);
    }
    expect_good(RUN(r, NULL, 0, 2000, 0x12, 1, 0x83, 3, 0, 0));
    d = r->in + 4;
    assert_int_equal(d[0], 0x01);
    assert_int_equal(d[1], 0x03);
    assert_int_equal(d[3], 16);
    assert_int_equal(d[4] >> 4, 6);
    unsigned designators = 0;
    for (; d < r->in + r->cmd.in_len; d += 4 + d[3])
        designators++;
    assert_ptr_equal(d, r->in + r->cmd.in_len);
    assert_int_equal(designators, 6);
}

static void a_missing_unit_answers_what_it_must(void **state)
{
    struct rig *r = *state;

    expect_good(run_on(r, &r->nexus, 9, CDB(0x12, 0, 0, 0, 255, 0), NULL, 0, 255));
    assert_int_equal(r->in[0], 0x7f);
    expect_sense(run_on(r, &r->nexus, 9, CDB(0, 0, 0, 0, 0, 0), NULL, 0, 0), SENSE_ILLEGAL_REQUEST,
                 0x25, 0);
    expect_sense(
        run_on(r, &r->nexus, SCSI_LUNS_MAX, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0), NULL, 0, 512),
        SENSE_ILLEGAL_REQUEST, 0x25, 0);
    expect_good(run_on(r, &r->nexus, 9, CDB(0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0), NULL, 0, 256));
    assert_int_equal(get_be32(r->in), 8);
    expect_good(run_on(r, &r->nexus, 9, CDB(0x03, 0, 0, 0, 252, 0), NULL, 0, 252));
    assert_int_equal(r->in[2], SENSE_ILLEGAL_REQUEST);
}

static void a_unit_without_back_end_becomes_ready(void **state)
{
    struct rig *r = *state;
    struct scsi_lun *lun = scsi_lun_add(&r->target, 3);

    memset(r->nexus.ua, 0, sizeof(r->nexus.ua));
    expect_sense(run_on(r, &r->nexus, 3, CDB(0, 0, 0, 0, 0, 0), NULL, 0, 0), SENSE_NOT_READY, 4, 1);
    expect_sense(run_on(r, &r->nexus, 3, CDB(0x12, 1, 0x83, 0, 255, 0), NULL, 0, 255),
                 SENSE_NOT_READY, 4, 1);
    expect_good(run_on(r, &r->nexus, 3, CDB(0x12, 0, 0, 0, 255, 0), NULL, 0, 255));
    scsi_lun_attach(lun, block_backend_mem_new(1, 4096), NULL);
    expect_good(run_on(r, &r->nexus, 3, CDB(0, 0, 0, 0, 0, 0), NULL, 0, 0));
    scsi_lun_remove(lun);
}

static void capacity_is_reported(void **state)
{
    struct rig *r = *state;

    expect_good(RUN(r, NULL, 0, 8, 0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0));
    assert_int_equal(get_be32(r->in), BLOCKS - 1);
    assert_int_equal(get_be32(r->in + 4), 512);
    expect_good(RUN(r, NULL, 0, 32, 0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0));
    assert_int_equal(get_be64(r->in), BLOCKS - 1);
    assert_int_equal(r->in[13], 3);
    assert_int_equal(r->in[14], 0xc0);
}

/* ---- data ---- */

static void reads_return_what_writes_wrote(void **state)
{
    struct rig *r = *state;
    uint8_t data[8 * 512];

    put_pattern(data, sizeof(data), 1);
    expect_good(RUN(r, data, sizeof(data), 0, 0x2a, 0x18, 0, 0, 0, 100, 0, 0, 8, 0));
    assert_int_equal(r->cmd.residual, SCSI_RESIDUAL_NONE);
    expect_good(RUN(r, NULL, 0, sizeof(data), 0x28, 0x18, 0, 0, 0, 100, 0, 0, 8, 0));
    assert_memory_equal(r->in, data, sizeof(data));
    expect_good(RUN(r, NULL, 0, sizeof(data), 0x08, 0, 0, 100, 8, 0));
    assert_memory_equal(r->in, data, sizeof(data));
    expect_good(RUN(r, NULL, 0, sizeof(data), 0xa8, 0, 0, 0, 0, 100, 0, 0, 0, 8, 0, 0));
    assert_memory_equal(r->in, data, sizeof(data));
    expect_good(RUN(r, NULL, 0, sizeof(data), 0x88, 0, 0, 0, 0, 0, 0, 0, 0, 100, 0, 0, 0, 8, 0, 0));
    assert_memory_equal(r->in, data, sizeof(data));
    expect_good(RUN(r, data, 512, 0, 0x0a, 0, 0, 7, 1, 0));
    expect_good(RUN(r, data, 512, 0, 0xaa, 0, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0));
    expect_good(RUN(r, data, 512, 0, 0x8a, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0));
    expect_good(RUN(r, NULL, 0, 1536, 0x28, 0, 0, 0, 0, 7, 0, 0, 3, 0));
    for (int i = 0; i < 3; i++)
        assert_memory_equal(r->in + 512 * i, data, 512);
}

static void zero_blocks_move_nothing(void **state)
{
    struct rig *r = *state;

    expect_good(RUN(r, NULL, 0, 0, 0x28, 0, 0, 0, 0, 0, 0, 0, 0, 0));
    expect_good(RUN(r, NULL, 0, 512, 0x28, 0, 0, 0, 0, 0, 0, 0, 0, 0));
    assert_int_equal(r->cmd.residual_bytes, 512);
    expect_good(RUN(r, NULL, 0, 0, 0x2a, 0, 0, 0, 0, 0, 0, 0, 0, 0));
    expect_good(RUN(r, NULL, 0, 256 * 512u > 65536 ? 65536 : 0, 0x08, 0, 0, 0, 0, 0));
    assert_int_equal(r->cmd.wanted, 256 * 512);
}

static void ranges_beyond_the_end_are_refused(void **state)
{
    struct rig *r = *state;
    uint8_t data[1024] = {0};

    expect_sense(RUN(r, NULL, 0, 1024, 0x28, 0, 0, 1, 0xff, 0xff, 0, 0, 2, 0),
                 SENSE_ILLEGAL_REQUEST, 0x21, 0);
    assert_true(r->cmd.sense.info_valid);
    assert_int_equal(r->cmd.sense.info, BLOCKS);
    expect_good(RUN(r, NULL, 0, 512, 0x28, 0, 0, 1, 0xff, 0xff, 0, 0, 1, 0));
    expect_sense(RUN(r, data, 1024, 0, 0x2a, 0, 0, 1, 0xff, 0xff, 0, 0, 2, 0),
                 SENSE_ILLEGAL_REQUEST, 0x21, 0);
    expect_sense(RUN(r, NULL, 0, 0, 0x88, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0,
                     0, 0, 0, 0),
                 SENSE_ILLEGAL_REQUEST, 0x21, 0);
    expect_sense(RUN(r, NULL, 0, 24, 0x9e, 0x12, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 24, 0, 0),
                 SENSE_ILLEGAL_REQUEST, 0x21, 0);
    /* more than the Block Limits page allows */
    expect_cdb_field(RUN(r, NULL, 0, 0, 0x28, 0, 0, 0, 0, 0, 0, 0x20, 1, 0), 7, 8);
}

static void lengths_that_differ_give_residuals(void **state)
{
    struct rig *r = *state;
    uint8_t data[2048], zero[512] = {0};

    put_pattern(data, sizeof(data), 9);
    expect_good(RUN(r, NULL, 0, 200, 0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0));
    assert_int_equal(r->cmd.in_len, 200);
    assert_int_equal(r->cmd.residual, SCSI_RESIDUAL_OVERFLOW);
    assert_int_equal(r->cmd.residual_bytes, 312);
    expect_good(RUN(r, data, 1024, 0, 0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0));
    assert_int_equal(r->cmd.residual, SCSI_RESIDUAL_UNDERFLOW);
    assert_int_equal(r->cmd.residual_bytes, 512);
    expect_good(RUN(r, data, 700, 0, 0x2a, 0, 0, 0, 0, 10, 0, 0, 2, 0));
    assert_int_equal(r->cmd.residual, SCSI_RESIDUAL_OVERFLOW);
    assert_int_equal(r->cmd.residual_bytes, 324);
    /* only the whole block that came was written */
    expect_good(RUN(r, NULL, 0, 1024, 0x28, 0, 0, 0, 0, 10, 0, 0, 2, 0));
    assert_memory_equal(r->in, data, 512);
    assert_memory_equal(r->in + 512, zero, 512);
}

static void verify_compares(void **state)
{
    struct rig *r = *state;
    uint8_t data[2048];

    put_pattern(data, sizeof(data), 5);
    expect_good(RUN(r, data, 2048, 0, 0x2e, 0x02, 0, 0, 0, 40, 0, 0, 4, 0));
    expect_good(RUN(r, data, 2048, 0, 0x2f, 0x02, 0, 0, 0, 40, 0, 0, 4, 0));
    data[1700] ^= 1;
    expect_sense(RUN(r, data, 2048, 0, 0x2f, 0x02, 0, 0, 0, 40, 0, 0, 4, 0), SENSE_MISCOMPARE, 0x1d,
                 0);
    assert_int_equal(r->cmd.sense.info, 1700);
    expect_good(RUN(r, data, 2048, 0, 0x2f, 0, 0, 0, 0, 40, 0, 0, 4, 0)); /* medium only */
    expect_good(RUN(r, NULL, 0, 0, 0x2f, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0));
    expect_cdb_field(RUN(r, data, 2048, 0, 0x2f, 0x04, 0, 0, 0, 40, 0, 0, 4, 0), 1, 2);
    /* one block against each */
    memset(data, 0, 512);
    expect_good(RUN(r, data, 512, 0, 0x2f, 0x06, 0, 0, 0, 100, 0, 0, 9, 0));
    data[3] = 1;
    expect_sense(RUN(r, data, 512, 0, 0x2f, 0x06, 0, 0, 0, 100, 0, 0, 9, 0), SENSE_MISCOMPARE, 0x1d,
                 0);
    assert_int_equal(r->cmd.sense.info, 3);
}

/* ---- provisioning and atomics ---- */

static void compare_and_write_is_one_block(void **state)
{
    struct rig *r = *state;
    uint8_t data[2048] = {0};

    put_pattern(data + 512, 512, 3);
    expect_good(RUN(r, data, 1024, 0, 0x89, 0, 0, 0, 0, 0, 0, 0, 0, 50, 0, 0, 0, 1, 0, 0));
    expect_sense(RUN(r, data, 1024, 0, 0x89, 0, 0, 0, 0, 0, 0, 0, 0, 50, 0, 0, 0, 1, 0, 0),
                 SENSE_MISCOMPARE, 0x1d, 0);
    assert_int_equal(r->cmd.sense.info, 0);
    memcpy(data, data + 512, 512);
    data[511] ^= 1;
    expect_sense(RUN(r, data, 1024, 0, 0x89, 0, 0, 0, 0, 0, 0, 0, 0, 50, 0, 0, 0, 1, 0, 0),
                 SENSE_MISCOMPARE, 0x1d, 0);
    assert_int_equal(r->cmd.sense.info, 511);
    expect_cdb_field(RUN(r, data, 2048, 0, 0x89, 0, 0, 0, 0, 0, 0, 0, 0, 50, 0, 0, 0, 2, 0, 0), 13,
                     8);
    expect_cdb_field(RUN(r, data, 2048, 0, 0x89, 0, 0, 0, 0, 0, 0, 0, 0, 50, 0, 0, 0, 1, 0, 0), 13,
                     8);
    expect_good(RUN(r, NULL, 0, 0, 0x89, 0, 0, 0, 0, 0, 0, 0, 0, 50, 0, 0, 0, 0, 0, 0));
}

static void orwrite_sets_bits(void **state)
{
    struct rig *r = *state;
    uint8_t low[20 * 512], high[20 * 512], both[20 * 512];

    memset(low, 0x05, sizeof(low));
    memset(high, 0x50, sizeof(high));
    memset(both, 0x55, sizeof(both));
    /* from the middle of a physical block, over three of them */
    expect_good(RUN(r, low, sizeof(low), 0, 0x2a, 0, 0, 0, 0, 11, 0, 0, 20, 0));
    expect_good(
        RUN(r, high, sizeof(high), 0, 0x8b, 0x18, 0, 0, 0, 0, 0, 0, 0, 11, 0, 0, 0, 20, 0, 0));
    expect_good(RUN(r, NULL, 0, sizeof(both), 0x28, 0, 0, 0, 0, 11, 0, 0, 20, 0));
    assert_memory_equal(r->in, both, sizeof(both));
    expect_good(RUN(r, NULL, 0, 512, 0x28, 0, 0, 0, 0, 10, 0, 0, 1, 0));
    assert_true(mem_is_zero(r->in, 512));
    expect_good(RUN(r, NULL, 0, 0, 0x8b, 0, 0, 0, 0, 0, 0, 0, 0, 11, 0, 0, 0, 0, 0, 0));
    block_backend_mem_hold(r->backend, NULL, ERR_AMBIGUOUS, 1);
    assert_int_equal(RUN(r, low, 512, 0, 0x8b, 0, 0, 0, 0, 0, 0, 0, 0, 11, 0, 0, 0, 1, 0, 0)->lost,
                     ERR_AMBIGUOUS);
}

static void unmap_checks_its_list_first(void **state)
{
    struct rig *r = *state;
    uint8_t data[4096], list[40] = {0};

    put_pattern(data, sizeof(data), 8);
    expect_good(RUN(r, data, 4096, 0, 0x2a, 0, 0, 0, 0, 0, 0, 0, 8, 0));
    put_be16(list, 38);
    put_be16(list + 2, 32);
    put_be32(list + 8 + 8, 4);
    put_be64(list + 24, BLOCKS);
    put_be32(list + 24 + 8, 1);
    /* the second descriptor is beyond the end: nothing happens */
    expect_sense(RUN(r, list, 40, 0, 0x42, 0, 0, 0, 0, 0, 0, 0, 40, 0), SENSE_ILLEGAL_REQUEST, 0x21,
                 0);
    expect_good(RUN(r, NULL, 0, 4096, 0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0));
    assert_memory_equal(r->in, data, 4096);
    put_be64(list + 24, 6);
    expect_good(RUN(r, list, 40, 0, 0x42, 0, 0, 0, 0, 0, 0, 0, 40, 0));
    expect_good(RUN(r, NULL, 0, 4096, 0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0));
    memset(data, 0, 2048);
    memset(data + 3072, 0, 512);
    assert_memory_equal(r->in, data, 4096);
    expect_good(RUN(r, NULL, 0, 0, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0));
    expect_sense(RUN(r, list, 40, 0, 0x42, 0, 0, 0, 0, 0, 0, 0, 4, 0), SENSE_ILLEGAL_REQUEST, 0x1a,
                 0);
    expect_sense(RUN(r, list, 24, 0, 0x42, 0, 0, 0, 0, 0, 0, 0, 40, 0), SENSE_ILLEGAL_REQUEST, 0x1a,
                 0);
    /* a list whose own length lies is cut to what came */
    put_be16(list + 2, 0xfff0);
    expect_good(RUN(r, list, 40, 0, 0x42, 0, 0, 0, 0, 0, 0, 0, 40, 0));
}

static void write_same_fills_or_frees(void **state)
{
    struct rig *r = *state;
    uint8_t block[512], zero[512] = {0};

    put_pattern(block, 512, 4);
    expect_good(RUN(r, block, 512, 0, 0x41, 0, 0, 0, 0, 0, 0, 0, 100, 0));
    expect_good(RUN(r, NULL, 0, 51200, 0x28, 0, 0, 0, 0, 0, 0, 0, 100, 0));
    for (int i = 0; i < 100; i++)
        assert_memory_equal(r->in + 512 * i, block, 512);
    /* UNMAP with a block that is not zero is a write */
    expect_good(RUN(r, block, 512, 0, 0x41, 0x08, 0, 0, 0, 200, 0, 0, 1, 0));
    expect_good(RUN(r, NULL, 0, 512, 0x28, 0, 0, 0, 0, 200, 0, 0, 1, 0));
    assert_memory_equal(r->in, block, 512);
    expect_good(RUN(r, zero, 512, 0, 0x93, 0x08, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 50, 0, 0));
    expect_good(RUN(r, NULL, 0, 0, 0x93, 0x01, 0, 0, 0, 0, 0, 0, 0, 50, 0, 0, 0, 49, 0, 0));
    expect_good(RUN(r, NULL, 0, 51200, 0x28, 0, 0, 0, 0, 0, 0, 0, 100, 0));
    assert_true(mem_is_zero(r->in, 99 * 512));
    assert_memory_equal(r->in + 99 * 512, block, 512);
    expect_cdb_field(RUN(r, block, 1024, 0, 0x41, 0, 0, 0, 0, 0, 0, 0, 1, 0), 7, 8);
    expect_cdb_field(RUN(r, block, 512, 0, 0x41, 0, 0, 0, 0, 0, 0, 0, 0, 0), 7, 8); /* too far */
    expect_good(RUN(r, block, 512, 0, 0x41, 0, 0, 1, 0xff, 0xfe, 0, 0, 0, 0));
    expect_good(RUN(r, NULL, 0, 1024, 0x28, 0, 0, 1, 0xff, 0xfe, 0, 0, 2, 0));
    assert_memory_equal(r->in + 512, block, 512);
}

/* ---- EXTENDED COPY ---- */

/* One target and one segment descriptor; the list's length. */
static uint32_t copy_list(struct rig *r, uint8_t *list, uint16_t blocks, uint64_t src, uint64_t dst)
{
    memset(list, 0, 76);
    list[0] = 7; /* list identifier */
    put_be16(list + 2, 32);
    put_be32(list + 8, 28);
    list[16] = 0xe4;
    list[16 + 4] = 1;
    list[16 + 5] = 3;
    list[16 + 7] = SCSI_NAA_BYTES;
    scsi_lun_naa(r->lun, list + 16 + 8);
    put_be24(list + 16 + 29, 512);
    list[48] = 0x02;
    put_be16(list + 48 + 2, 24);
    put_be16(list + 48 + 10, blocks);
    put_be64(list + 48 + 12, src);
    put_be64(list + 48 + 20, dst);
    return 76;
}

#define COPY(r, list, len)                                                                         \
    RUN(r, list, len, 0, 0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, (uint8_t)(len), 0, 0)

static void copies_between_blocks(void **state)
{
    struct rig *r = *state;
    uint8_t list[76], data[8 * 512];

    put_pattern(data, sizeof(data), 2);
    expect_good(RUN(r, data, sizeof(data), 0, 0x2a, 0, 0, 0, 0, 100, 0, 0, 8, 0));
    expect_good(COPY(r, list, copy_list(r, list, 8, 100, 200)));
    expect_good(RUN(r, NULL, 0, sizeof(data), 0x28, 0, 0, 0, 0, 200, 0, 0, 8, 0));
    assert_memory_equal(r->in, data, sizeof(data));
    /* 3 blocks further on, over itself, more than one step */
    expect_good(COPY(r, list, copy_list(r, list, 4000, 200, 203)));
    expect_good(RUN(r, NULL, 0, sizeof(data), 0x28, 0, 0, 0, 0, 203, 0, 0, 8, 0));
    assert_memory_equal(r->in, data, sizeof(data));
    expect_good(RUN(r, NULL, 0, 512, 0x28, 0, 0, 0, 0, 211, 0, 0, 1, 0));
    assert_true(mem_is_zero(r->in, 512));
    /* how it ended; for this nexus and list alone */
    expect_good(RUN(r, NULL, 0, 64, 0x84, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0));
    assert_int_equal(r->in[4], 1);
    assert_int_equal(get_be16(r->in + 5), 1);
    assert_int_equal(get_be32(r->in + 8), 2000);
    expect_cdb_field(RUN(r, NULL, 0, 64, 0x84, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0), 2, 8);
    expect_cdb_field(run_on(r, &r->other, 0,
                            CDB(0x84, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0), NULL, 0, 64),
                     2, 8);
    expect_good(RUN(r, NULL, 0, 64, 0x84, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0));
    assert_int_equal(get_be32(r->in), r->cmd.in_len - 4);
    expect_good(RUN(r, NULL, 0, 0, 0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0));
}

static void copies_that_make_no_sense_are_refused(void **state)
{
    struct rig *r = *state;
    uint8_t list[76];
    uint32_t len = copy_list(r, list, 8, 0, BLOCKS - 7);

    expect_sense(COPY(r, list, len), SENSE_COPY_ABORTED, 0, 0);
    copy_list(r, list, 8, 0, 100);
    list[48 + 7] = 1; /* no such target */
    expect_sense(COPY(r, list, len), SENSE_COPY_ABORTED, 0x0d, 2);
    copy_list(r, list, 8, 0, 100);
    list[16 + 9] ^= 1; /* of somebody else */
    expect_sense(COPY(r, list, len), SENSE_COPY_ABORTED, 0x0d, 2);
    copy_list(r, list, 8, 0, 100);
    list[16] = 0xe0;
    expect_sense(COPY(r, list, len), SENSE_ILLEGAL_REQUEST, 0x26, 7);
    copy_list(r, list, 8, 0, 100);
    list[48] = 3;
    expect_sense(COPY(r, list, len), SENSE_ILLEGAL_REQUEST, 0x26, 9);
    copy_list(r, list, 8, 0, 100);
    for (uint32_t cut = 1; cut < len; cut++)
        expect_sense(COPY(r, list, cut), SENSE_ILLEGAL_REQUEST, 0x1a, 0);
    list[31 + 16] ^= 1; /* block length */
    expect_sense(COPY(r, list, len), SENSE_ILLEGAL_REQUEST, 0x26, 0);
    copy_list(r, list, 8, 0, 100);
    block_backend_mem_hold(r->backend, NULL, ERR_AMBIGUOUS, 2); /* hole, read */
    expect_sense(COPY(r, list, len), SENSE_ABORTED_COMMAND, 0, 0);
}

/* ---- errors of the back end ---- */

static void errors_become_sense(void **state)
{
    static const struct {
        int rc;
        uint8_t status, key, asc, ascq;
    } table[] = {
        {ERR_NOSPACE, SCSI_CHECK_CONDITION, SENSE_DATA_PROTECT, 0x27, 0x07},
        {ERR_PERM, SCSI_CHECK_CONDITION, SENSE_DATA_PROTECT, 0x27, 0x02},
        {ERR_IO, SCSI_CHECK_CONDITION, SENSE_MEDIUM_ERROR, 0x0c, 0},
        {ERR_TOO_LARGE, SCSI_CHECK_CONDITION, SENSE_ILLEGAL_REQUEST, 0x21, 0},
        {ERR_NOTFOUND, SCSI_CHECK_CONDITION, SENSE_ILLEGAL_REQUEST, 0x25, 0},
        {ERR_FORMAT, SCSI_CHECK_CONDITION, SENSE_ABORTED_COMMAND, 0, 0},
        {ERR_RESERVED, SCSI_RESERVATION_CONFLICT, 0, 0, 0},
        {ERR_AGAIN, SCSI_BUSY, 0, 0, 0},
        {ERR_UNREACHABLE, SCSI_BUSY, 0, 0, 0},
        {ERR_NOT_OWNER, SCSI_BUSY, 0, 0, 0},
    };
    struct rig *r = *state;
    uint8_t data[512] = {0};

    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        block_backend_mem_hold(r->backend, NULL, table[i].rc, 1);
        RUN(r, data, 512, 0, 0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0);
        assert_int_equal(r->cmd.status, table[i].status);
        assert_int_equal(r->cmd.lost, 0);
        if (table[i].status == SCSI_CHECK_CONDITION)
            expect_sense(&r->cmd, table[i].key, table[i].asc, table[i].ascq);
    }
    block_backend_mem_hold(r->backend, NULL, ERR_CORRUPT, 1);
    expect_sense(RUN(r, NULL, 0, 512, 0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0), SENSE_MEDIUM_ERROR, 0x11,
                 0);
    assert_int_equal(r->cmd.residual_bytes, 512);
}

/* A write that may or may not have happened gets no answer; a read is to be tried again; what
 * must not be repeated ends with ABORTED COMMAND. */
static void unknown_outcomes_depend_on_the_command(void **state)
{
    static const int codes[] = {ERR_AMBIGUOUS, ERR_UNCERTAIN, ERR_EXPIRED, ERR_CLOSED,
                                ERR_TIMEOUT,   ERR_CANCELED,  ERR_HALTED,  ERR_STALE};
    struct rig *r = *state;
    uint8_t data[1024] = {0}, unmap[24] = {0, 22, 0, 16};

    unmap[19] = 1;
    for (size_t i = 0; i < ARRAY_SIZE(codes); i++) {
        block_backend_mem_hold(r->backend, NULL, codes[i], 1);
        assert_int_equal(RUN(r, data, 512, 0, 0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0)->lost, codes[i]);
        block_backend_mem_hold(r->backend, NULL, codes[i], 1);
        assert_int_equal(RUN(r, data, 512, 0, 0x2e, 2, 0, 0, 0, 0, 0, 0, 1, 0)->lost, codes[i]);
        block_backend_mem_hold(r->backend, NULL, codes[i], 1);
        assert_int_equal(RUN(r, data, 512, 0, 0x41, 0, 0, 0, 0, 0, 0, 0, 1, 0)->lost, codes[i]);
        block_backend_mem_hold(r->backend, NULL, codes[i], 1);
        assert_int_equal(RUN(r, unmap, 24, 0, 0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0)->lost, codes[i]);
        block_backend_mem_hold(r->backend, NULL, codes[i], 1);
        expect_sense(RUN(r, data, 1024, 0, 0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0),
                     SENSE_ABORTED_COMMAND, 0, 0);
        assert_int_equal(r->cmd.lost, 0);
        block_backend_mem_hold(r->backend, NULL, codes[i], 1);
        assert_int_equal(RUN(r, NULL, 0, 512, 0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0)->status, SCSI_BUSY);
        block_backend_mem_hold(r->backend, NULL, codes[i], 1);
        assert_int_equal(RUN(r, NULL, 0, 0, 0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0)->status, SCSI_BUSY);
    }
}

/* What may be too old is not executed, reads are not asked about. */
static void unconfirmed_writes_are_not_executed(void **state)
{
    struct rig *r = *state;
    uint8_t ones[512];
    struct co_event gone;

    memset(ones, 1, sizeof(ones));
    co_event_init(&gone);
    co_event_set(&gone, ERR_EXPIRED);
    block_backend_mem_confirm(r->backend, &gone);
    assert_int_equal(RUN(r, ones, 512, 0, 0x2a, 0, 0, 0, 0, 9, 0, 0, 1, 0)->lost, ERR_EXPIRED);
    expect_good(RUN(r, NULL, 0, 512, 0x28, 0, 0, 0, 0, 9, 0, 0, 1, 0));
    assert_int_equal(r->in[0], 0);
    block_backend_mem_confirm(r->backend, NULL);
    expect_good(RUN(r, ones, 512, 0, 0x2a, 0, 0, 0, 0, 9, 0, 0, 1, 0));
    expect_good(RUN(r, NULL, 0, 512, 0x28, 0, 0, 0, 0, 9, 0, 0, 1, 0));
    assert_int_equal(r->in[0], 1);
}

/* ---- attentions and mode pages ---- */

static void attentions_are_reported_once(void **state)
{
    struct rig *r = *state;

    r->nexus.ua[0] = SCSI_UA_POWER_ON | SCSI_UA_CAPACITY;
    expect_good(RUN(r, NULL, 0, 96, 0x12, 0, 0, 0, 96, 0)); /* INQUIRY does not take them */
    expect_sense(RUN(r, NULL, 0, 0, 0, 0, 0, 0, 0, 0), SENSE_UNIT_ATTENTION, 0x29, 0);
    expect_good(RUN(r, NULL, 0, 252, 0x03, 0, 0, 0, 252, 0));
    assert_int_equal(r->in[2], SENSE_UNIT_ATTENTION);
    assert_int_equal(r->in[12], 0x2a);
    expect_good(RUN(r, NULL, 0, 0, 0, 0, 0, 0, 0, 0));

    block_backend_mem_resize(r->backend, SIZE_BYTES * 2);
    scsi_target_volume_changed(&r->target, 77);
    expect_sense(RUN(r, NULL, 0, 0, 0, 0, 0, 0, 0, 0), SENSE_UNIT_ATTENTION, 0x2a, 0x09);
    expect_sense(run_on(r, &r->other, 0, CDB(0, 0, 0, 0, 0, 0), NULL, 0, 0), SENSE_UNIT_ATTENTION,
                 0x2a, 0x09);
    expect_good(RUN(r, NULL, 0, 8, 0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0));
    assert_int_equal(get_be32(r->in), 2 * BLOCKS - 1);

    struct scsi_lun *lun = scsi_lun_add(&r->target, 1);
    expect_good(RUN(r, NULL, 0, 256, 0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0)); /* settles it */
    expect_good(RUN(r, NULL, 0, 0, 0, 0, 0, 0, 0, 0));
    expect_sense(run_on(r, &r->other, 0, CDB(0, 0, 0, 0, 0, 0), NULL, 0, 0), SENSE_UNIT_ATTENTION,
                 0x3f, 0x0e);
    scsi_lun_remove(lun);
    scsi_lun_reset(r->lun);
    expect_sense(RUN(r, NULL, 0, 0, 0, 0, 0, 0, 0, 0), SENSE_UNIT_ATTENTION, 0x29, 0x03);
}

static void snapshots_are_write_protected(void **state)
{
    struct rig *r = *state;
    uint8_t data[512] = {0};

    block_backend_mem_protect(r->backend, true);
    scsi_target_volume_changed(&r->target, 77);
    while (RUN(r, NULL, 0, 0, 0, 0, 0, 0, 0, 0)->status != SCSI_GOOD)
        continue; /* attentions */
    expect_good(RUN(r, NULL, 0, 255, 0x1a, 0, 0x3f, 0, 255, 0));
    assert_true(r->in[2] & 0x80);
    expect_sense(RUN(r, data, 512, 0, 0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0), SENSE_DATA_PROTECT, 0x27,
                 2);
    expect_sense(RUN(r, data, 512, 0, 0x93, 0x08, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0),
                 SENSE_DATA_PROTECT, 0x27, 2);
    expect_good(RUN(r, NULL, 0, 512, 0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0));
    block_backend_mem_protect(r->backend, false);
}

static void mode_pages_change_what_they_may(void **state)
{
    struct rig *r = *state;
    uint8_t list[16] = {0}, data[512] = {0};

    expect_good(RUN(r, NULL, 0, 255, 0x1a, 0x08, 0x0a, 0, 255, 0));
    assert_int_equal(r->cmd.in_len, 4 + 12);
    memcpy(list, r->in, 16);
    list[0] = 0;
    list[4 + 4] = 0x08; /* SWP */
    expect_good(RUN(r, list, 16, 0, 0x15, 0x10, 0, 0, 16, 0));
    expect_sense(RUN(r, data, 512, 0, 0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0), SENSE_DATA_PROTECT, 0x27,
                 2);
    expect_good(RUN(r, NULL, 0, 255, 0x1a, 0, 0x3f, 0, 255, 0));
    assert_true(r->in[2] & 0x80);
    expect_sense(run_on(r, &r->other, 0, CDB(0, 0, 0, 0, 0, 0), NULL, 0, 0), SENSE_UNIT_ATTENTION,
                 0x2a, 0x01);
    list[4 + 4] = 0;
    list[4 + 2] = 0x04; /* D_SENSE */
    list[2] = 0;
    expect_good(RUN(r, list, 16, 0, 0x15, 0x10, 0, 0, 16, 0));
    expect_good(RUN(r, data, 512, 0, 0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0));
    uint8_t sense[SCSI_SENSE_MAX];
    RUN(r, NULL, 0, 512, 0x28, 0, 0x7f, 0, 0, 0, 0, 0, 1, 0);
    assert_int_equal(scsi_cmd_sense(&r->cmd, sense), 20);
    assert_int_equal(sense[0], 0x72);
    list[4 + 3] ^= 0x10; /* not changeable */
    expect_sense(RUN(r, list, 16, 0, 0x15, 0x10, 0, 0, 16, 0), SENSE_ILLEGAL_REQUEST, 0x26, 0);
    assert_int_equal(r->cmd.sense.field, 4 + 3);
    expect_sense(RUN(r, list, 16, 0, 0x15, 0x10, 0, 0, 9, 0), SENSE_ILLEGAL_REQUEST, 0x1a, 0);
    expect_sense(RUN(r, NULL, 0, 255, 0x1a, 0, 0xff, 0, 255, 0), SENSE_ILLEGAL_REQUEST, 0x39, 0);
    expect_cdb_field(RUN(r, NULL, 0, 255, 0x1a, 0, 0x11, 0, 255, 0), 2, 5);
    expect_good(RUN(r, NULL, 0, 255, 0x5a, 0x10, 0x3f, 0xff, 0, 0, 0, 0, 255, 0));
    assert_int_equal(get_be16(r->in) + 2, r->cmd.in_len);
    assert_int_equal(get_be64(r->in + 8), BLOCKS);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table_is_sorted_and_whole),
        T(reserved_bits_are_refused),
        T(unknown_commands_are_refused),
        T(supported_opcodes_agree_with_the_table),
        T(inquiry_identifies),
        T(a_missing_unit_answers_what_it_must),
        T(a_unit_without_back_end_becomes_ready),
        T(capacity_is_reported),
        T(reads_return_what_writes_wrote),
        T(zero_blocks_move_nothing),
        T(ranges_beyond_the_end_are_refused),
        T(lengths_that_differ_give_residuals),
        T(verify_compares),
        T(compare_and_write_is_one_block),
        T(orwrite_sets_bits),
        T(unmap_checks_its_list_first),
        T(write_same_fills_or_frees),
        T(copies_between_blocks),
        T(copies_that_make_no_sense_are_refused),
        T(errors_become_sense),
        T(unknown_outcomes_depend_on_the_command),
        T(unconfirmed_writes_are_not_executed),
        T(attentions_are_reported_once),
        T(mode_pages_change_what_they_may),
        T(snapshots_are_write_protected),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
