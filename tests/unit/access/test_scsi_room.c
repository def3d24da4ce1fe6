/* SPDX-License-Identifier: Apache-2.0
 *
 * What initiators are told of the room that is left: thresholds, attentions, log pages. */
#include "tests/unit/access/scsi_rig.h"

static uint32_t threshold(struct rig *r)
{
    expect_good(RUN(r, NULL, 0, 255, 0x1a, 0x08, 0x1c, 0x02, 255, 0));
    assert_int_equal(r->cmd.in_len, 4 + 24);
    assert_int_equal(r->in[4], 0x5c);
    assert_int_equal(r->in[5], 0x02);
    assert_int_equal(get_be16(r->in + 6), 20);
    assert_int_equal(r->in[4 + 17], 1); /* what is available */
    return r->in[4 + 16] & 0x80 ? get_be32(r->in + 4 + 20) : 0;
}

/* Room is shown in the log, and who runs short of it is told once. */
static void little_room_is_told(void **state)
{
    struct rig *r = *state;

    assert_int_equal(threshold(r), 0); /* nothing is known */
    expect_good(RUN(r, NULL, 0, 255, 0x4d, 0, 0x0c, 0, 0, 0, 0, 0, 255, 0));
    assert_int_equal(r->cmd.in_len, 4);
    block_backend_mem_space(r->backend, 1000 * MIB, 300 * MIB, 200 * MIB);
    scsi_target_space_changed(&r->target);
    assert_int_equal(threshold(r), 200);
    block_backend_mem_space(r->backend, 1000 * MIB, 300 * MIB, 250 * MIB);
    scsi_target_space_changed(&r->target);
    expect_sense(RUN(r, NULL, 0, 0, 0, 0, 0, 0, 0, 0), SENSE_UNIT_ATTENTION, 0x2a, 0x01);
    assert_int_equal(threshold(r), 250);
    block_backend_mem_space(r->backend, 1000 * MIB, 250 * MIB, 250 * MIB);
    scsi_target_space_changed(&r->target);
    expect_sense(RUN(r, NULL, 0, 0, 0, 0, 0, 0, 0, 0), SENSE_UNIT_ATTENTION, 0x38, 0x07);
    /* a little more and less again is nothing new */
    block_backend_mem_space(r->backend, 1000 * MIB, 251 * MIB, 250 * MIB);
    scsi_target_space_changed(&r->target);
    block_backend_mem_space(r->backend, 1000 * MIB, 249 * MIB, 250 * MIB);
    scsi_target_space_changed(&r->target);
    expect_good(RUN(r, NULL, 0, 0, 0, 0, 0, 0, 0, 0));
    block_backend_mem_space(r->backend, 1000 * MIB, 400 * MIB, 250 * MIB);
    scsi_target_space_changed(&r->target);
    block_backend_mem_space(r->backend, 1000 * MIB, 100 * MIB, 250 * MIB);
    scsi_target_space_changed(&r->target);
    expect_sense(RUN(r, NULL, 0, 0, 0, 0, 0, 0, 0, 0), SENSE_UNIT_ATTENTION, 0x38, 0x07);
    /* a disk more changes the count and not the share */
    block_backend_mem_space(r->backend, 2000 * MIB, 1000 * MIB, 500 * MIB);
    scsi_target_space_changed(&r->target);
    assert_int_equal(threshold(r), 500);
    expect_good(RUN(r, NULL, 0, 255, 0x12, 1, 0xb2, 0, 255, 0));
    assert_int_equal(r->in[4], 11); /* threshold sets of 1 MiB */
}

static void log_pages_show_the_room(void **state)
{
    static const uint8_t pages[] = {0x80, 0, 0, 2, 0x00, 0x0c};
    static const uint8_t pairs[] = {0xc0, 0xff, 0, 6, 0, 0, 0, 0xff, 0x0c, 0};
    struct rig *r = *state;

    expect_good(RUN(r, NULL, 0, 255, 0x4d, 0, 0x40, 0, 0, 0, 0, 0, 255, 0));
    assert_int_equal(r->cmd.in_len, sizeof(pages));
    assert_memory_equal(r->in, pages, sizeof(pages));
    expect_good(RUN(r, NULL, 0, 255, 0x4d, 0, 0x40, 0xff, 0, 0, 0, 0, 255, 0));
    assert_int_equal(r->cmd.in_len, sizeof(pairs));
    assert_memory_equal(r->in, pairs, sizeof(pairs));
    block_backend_mem_space(r->backend, 1000 * MIB, 300 * MIB, 0);
    expect_good(RUN(r, NULL, 0, 255, 0x4d, 0, 0x4c, 0, 0, 0, 0, 0, 255, 0));
    assert_int_equal(r->cmd.in_len, 4 + 2 * 12);
    assert_int_equal(get_be16(r->in + 4), 1);
    assert_int_equal(get_be32(r->in + 8), 300);
    assert_int_equal(get_be16(r->in + 16), 2);
    assert_int_equal(get_be32(r->in + 20), 700);
    assert_int_equal(r->in[24], 2);
    expect_good(RUN(r, NULL, 0, 255, 0x4d, 0, 0x4c, 0, 0, 0, 2, 0, 255, 0));
    assert_int_equal(r->cmd.in_len, 4 + 12);
    expect_cdb_field(RUN(r, NULL, 0, 255, 0x4d, 0, 0x4c, 0, 0, 0, 3, 0, 255, 0), 5, 8);
    expect_cdb_field(RUN(r, NULL, 0, 255, 0x4d, 0, 0x4d, 0, 0, 0, 0, 0, 255, 0), 2, 5);
    expect_cdb_field(RUN(r, NULL, 0, 255, 0x4d, 0, 0x4c, 1, 0, 0, 0, 0, 255, 0), 3, 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(little_room_is_told, setup, teardown),
        cmocka_unit_test_setup_teardown(log_pages_show_the_room, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
