/* SPDX-License-Identifier: Apache-2.0
 *
 * Data that is all zeroes is recorded, not written, and takes no space. */
#include "tests/unit/chunk/engine_fixture.h"

#define K(n) ((n)*1024u)

struct piece {
    uint32_t off, len; /* KiB */
    uint8_t byte;
};
struct row {
    const char *name;
    struct piece before; /* written first; len 0: nothing */
    uint32_t off, len;   /* KiB: of the request, zeroes but for: */
    struct piece data[2];
    int blocks;  /* the extent has afterwards */
    int written; /* KiB of pages that went to the device, their way home included */
};

static const struct row rows[] = {
    {"a whole block that never was", {0}, 0, 256, {{0}}, 0, 0},
    {"four of them, beginning inside", {0}, 100, 1024, {{0}}, 0, 0},
    {"a few pages that never were", {0}, 40, 12, {{0}}, 0, 0},
    {"a block with data is freed", {0, 256, 7}, 0, 256, {{0}}, 0, 0},
    {"two of three", {0, 768, 7}, 256, 512, {{0}}, 1, 0},
    {"part of a block with data", {0, 256, 7}, 64, 128, {{0}}, 1, 0},
    {"in the middle of a new block", {0}, 0, 256, {{0, 64, 3}, {192, 64, 4}}, 1, 128},
    {"a little data in a new block", {0}, 0, 256, {{128, 4, 3}}, 1, 8},
    {"few zeroes among data", {0}, 0, 256, {{0, 100, 3}, {132, 124, 4}}, 1, 256},
    {"a replaced block is written whole", {0, 256, 7}, 0, 256, {{0, 64, 3}}, 1, 256},
    {"sectors", {0, 8, 7}, 1, 5, {{0}}, 1, 16},
};

static void piece_fill(uint8_t *image, const struct piece *p)
{
    memset(image + K(p->off), p->byte, K(p->len));
}

static void row_write(struct rig *r, const struct row *row)
{
    struct write_args a = {
        .id = ID, .v = V(1, 2), .kind = W_DATA, .off = K(row->off), .len = K(row->len)};
    uint32_t crcs[1026], page_off = a.off % PAGE_BYTES;
    struct write_result res;

    a.payload = buf_alloc(a.len);
    memset(a.payload->data, 0, a.len);
    for (uint32_t i = 0; i < ARRAY_SIZE(row->data); i++)
        piece_fill(a.payload->data, &row->data[i]);
    for (uint32_t at = 0; at < a.len; page_off = 0) {
        uint32_t len = MIN(PAGE_BYTES - page_off, a.len - at);

        crcs[a.n_crc++] = crc32c(0, a.payload->data + at, len);
        at += len;
    }
    a.crc = crcs;
    CHECK(engine_write(r->e, &a, &res) == 0);
    buf_put(a.payload);
}

static uint64_t used_blocks(struct rig *r)
{
    struct dev_stats s;

    engine_dev_stats(r->e, 0, &s);
    return s.used_bytes / BLOCK_BYTES;
}

static void row_check(struct rig *r, const struct row *row)
{
    uint8_t *image = mem_alloc(K(2048));
    struct read_result *res = mem_alloc(sizeof(*res));

    piece_fill(image, &row->before);
    memset(image + K(row->off), 0, K(row->len));
    for (uint32_t i = 0; i < ARRAY_SIZE(row->data); i++)
        memset(image + K(row->off + row->data[i].off), row->data[i].byte, K(row->data[i].len));
    CHECK(engine_read(r->e, ID, 1, 0, K(2048), res) == 0);
    if (res->zero)
        CHECK(mem_is_zero(image, K(2048)));
    else
        CHECK(memcmp(image, res->buf->data, K(2048)) == 0);
    buf_put(res->buf);
    mem_free(res);
    mem_free(image);
}

static void row_body(struct rig *r)
{
    const struct row *row = (const struct row *)r->x[0];
    struct dev_stats s0, s1;
    uint64_t used, metadata = K(48);
    struct open_info oi;

    CHECK(create(r, ID, 1) == 0);
    used = used_blocks(r);
    CHECK(engine_open(r->e, ID, 1, 0, &oi) == 0);
    open_info_free(&oi);
    if (row->before.len > 0)
        CHECK(put(r, (struct put){ID, V(1, 1), .off = K(row->before.off), .len = K(row->before.len),
                                  .byte = row->before.byte}) == 0);
    CHECK(engine_flush(r->e) == 0);
    engine_dev_stats(r->e, 0, &s0);
    row_write(r, row);
    CHECK(engine_flush(r->e) == 0);
    engine_dev_stats(r->e, 0, &s1);
    ASSERTF(used_blocks(r) - used == (uint64_t)row->blocks, "%s: %" PRIu64 " blocks", row->name,
            used_blocks(r) - used);
    s1.bytes_written -= s0.bytes_written;
    ASSERTF(s1.bytes_written >= K((uint64_t)row->written) &&
                s1.bytes_written < K((uint64_t)row->written) + metadata,
            "%s: %" PRIu64 " KiB written", row->name, s1.bytes_written / 1024);
    r->x[1] = s1.bytes_written;
    row_check(r, row);
}

static void row_after(struct rig *r)
{
    struct open_info oi;

    CHECK(engine_open(r->e, ID, 1, 0, &oi) == 0);
    CHECK(version_cmp(oi.last_version, V(1, 2)) == 0); /* also of what was not written */
    open_info_free(&oi);
    row_check(r, (const struct row *)r->x[0]);
}

static void test_rows(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct rig r = rig_new(i, 64 << 20, 0);

        r.x[0] = (uint64_t)&rows[i];
        rig_life(&r, row_body, END_POWER);
        print_message("%s: %" PRIu64 " KiB\n", rows[i].name, r.x[1] / 1024);
        rig_life(&r, row_after, END_STOP);
        sim_free(r.s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
    };

    log_threshold = LOG_LV_ERROR;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
