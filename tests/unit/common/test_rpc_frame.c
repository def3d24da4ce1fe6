/* SPDX-License-Identifier: Apache-2.0
 *
 * Frame headers: what is encoded is read back, and nothing else is accepted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "common/base/crc32c.h"
#include "common/rpc/frame.h"

static struct frame_header request_header(void)
{
    return (struct frame_header){
        .version = 1,
        .kind = FRAME_REQUEST,
        .flags = FRAME_F_AREA_CRC,
        .service = 0x12345678,
        .method = 3,
        .id = UINT64_C(0x1122334455667788),
        .area_len = 100,
        .payload_len = 4096,
        .timeout_us = 1500000,
        .area_crc = 0xcafe,
    };
}

static struct frame_header error_header(void)
{
    return (struct frame_header){
        .version = 1,
        .kind = FRAME_REPLY,
        .id = 7,
        .area_len = 20,
        .text_len = 20,
        .status = ERR_IO,
    };
}

static int reparse(const struct frame_header *h)
{
    uint8_t bytes[FRAME_HEADER_BYTES];
    struct frame_header back;
    int rc;

    memset(&back, 0xee, sizeof(back));
    frame_header_encode(bytes, h);
    rc = frame_header_parse(bytes, &back);
    if (rc == 0) {
        assert_int_equal(back.version, h->version);
        assert_int_equal(back.kind, h->kind);
        assert_int_equal(back.flags, h->flags);
        assert_int_equal(back.service, h->service);
        assert_int_equal(back.method, h->method);
        assert_true(back.id == h->id);
        assert_int_equal(back.area_len, h->area_len);
        assert_int_equal(back.text_len, h->text_len);
        assert_int_equal(back.payload_len, h->payload_len);
        assert_int_equal(back.status, h->status);
        assert_int_equal(back.timeout_us, h->timeout_us);
        assert_int_equal(back.area_crc, h->area_crc);
    }
    return rc;
}

static void headers_are_read_back(void **state)
{
    struct frame_header h = request_header();
    uint8_t bytes[FRAME_HEADER_BYTES];

    (void)state;
    assert_int_equal(reparse(&h), 0);
    frame_header_encode(bytes, &h);
    assert_memory_equal(bytes, "ZBSR", 4); /* little-endian, whatever the machine */
    assert_int_equal(bytes[16], 0x88);
    h = error_header();
    assert_int_equal(reparse(&h), 0);
    h.flags = FRAME_F_MESSAGE;
    h.area_len = 500;
    h.payload_len = 4096;
    assert_int_equal(reparse(&h), 0);
    h = (struct frame_header){.version = 0, .kind = FRAME_HELLO, .area_len = FRAME_HELLO_MAX};
    assert_int_equal(reparse(&h), 0);
}

static void every_flipped_bit_is_refused(void **state)
{
    struct frame_header h = request_header(), back;
    uint8_t bytes[FRAME_HEADER_BYTES];

    (void)state;
    frame_header_encode(bytes, &h);
    for (unsigned bit = 0; bit < FRAME_HEADER_BYTES * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_true(frame_header_parse(bytes, &back) < 0);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    assert_int_equal(frame_header_parse(bytes, &back), 0);
}

static void limits_are_enforced(void **state)
{
    struct frame_header h = request_header();

    (void)state;
    h.area_len = RPC_MESSAGE_MAX;
    h.payload_len = RPC_PAYLOAD_MAX;
    assert_int_equal(reparse(&h), 0);
    h.area_len = RPC_MESSAGE_MAX + 1;
    assert_int_equal(reparse(&h), ERR_TOO_LARGE);
    h = request_header();
    h.payload_len = RPC_PAYLOAD_MAX + 1;
    assert_int_equal(reparse(&h), ERR_TOO_LARGE);
    h = error_header();
    h.text_len = h.area_len = FRAME_TEXT_MAX + 1;
    assert_int_equal(reparse(&h), ERR_PROTO);
    h = error_header();
    h.text_len = 21; /* beyond the area */
    assert_int_equal(reparse(&h), ERR_PROTO);
    h = (struct frame_header){.version = 0, .kind = FRAME_HELLO, .area_len = FRAME_HELLO_MAX + 1};
    assert_int_equal(reparse(&h), ERR_TOO_LARGE);
}

static void fields_of_another_kind_are_refused(void **state)
{
    struct frame_header h;

    (void)state;
#define REFUSED(start, change, code)                                                               \
    do {                                                                                           \
        h = start();                                                                               \
        change;                                                                                    \
        assert_int_equal(reparse(&h), code);                                                       \
    } while (0)
    REFUSED(request_header, h.status = -1, ERR_PROTO);
    REFUSED(request_header, h.text_len = 1, ERR_PROTO);
    REFUSED(request_header, h.service = 0, ERR_PROTO);
    REFUSED(request_header, h.flags = FRAME_F_MESSAGE | FRAME_F_AREA_CRC, ERR_PROTO);
    REFUSED(request_header, h.flags = 16 | FRAME_F_AREA_CRC, ERR_PROTO);
    REFUSED(request_header, h.flags |= FRAME_F_ROOM, ERR_PROTO); /* for nothing */
    REFUSED(request_header, h.reply_cap = 4096, ERR_PROTO);      /* not announced */
    REFUSED(request_header, h.payload_at = 4096, ERR_PROTO);
    REFUSED(error_header, h.flags |= FRAME_F_SLOT, ERR_PROTO);
    REFUSED(request_header, h.flags = 0, ERR_PROTO); /* a checksum that is not announced */
    REFUSED(request_header, h.version = 0, ERR_VERSION);
    REFUSED(request_header, h.version = FRAME_VERSION_MAX + 1, ERR_VERSION);
    REFUSED(request_header, h.kind = 0, ERR_PROTO);
    REFUSED(request_header, h.kind = 4, ERR_PROTO);
    REFUSED(error_header, h.status = 1, ERR_PROTO);
    REFUSED(error_header, h.service = 1, ERR_PROTO);
    REFUSED(error_header, h.timeout_us = 1, ERR_PROTO);
    REFUSED(error_header, h.payload_len = 1, ERR_PROTO);
    REFUSED(error_header, h.area_len = 30, ERR_PROTO); /* a message without its flag */
    REFUSED(error_header, h.status = 0, ERR_PROTO);    /* a text without an error */
    REFUSED(error_header, h.kind = FRAME_HELLO, ERR_VERSION);
#undef REFUSED
}

static void damaged_areas_are_noticed(void **state)
{
    struct frame_header h = request_header();
    uint8_t area[100];

    (void)state;
    for (size_t i = 0; i < sizeof(area); i++)
        area[i] = (uint8_t)i;
    h.area_crc = crc32c(0, area, sizeof(area));
    assert_int_equal(frame_area_check(&h, area), 0);
    area[50] ^= 1;
    assert_int_equal(frame_area_check(&h, area), ERR_CORRUPT);
    h.flags = 0;
    assert_int_equal(frame_area_check(&h, area), 0);
}

static void deadlines_become_remaining_time(void **state)
{
    (void)state;
    assert_int_equal(frame_timeout_us(NSEC_NEVER, 5), 0);
    assert_int_equal(frame_timeout_us(3 * NSEC_PER_USEC, NSEC_PER_USEC), 2);
    assert_int_equal(frame_timeout_us(1, 2), 1); /* passed: as short as can be said */
    assert_int_equal(frame_timeout_us(NSEC_PER_SEC * 1000000, 0), UINT32_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(headers_are_read_back),
        cmocka_unit_test(every_flipped_bit_is_refused),
        cmocka_unit_test(limits_are_enforced),
        cmocka_unit_test(fields_of_another_kind_are_refused),
        cmocka_unit_test(damaged_areas_are_noticed),
        cmocka_unit_test(deadlines_become_remaining_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
