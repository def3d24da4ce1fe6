/* SPDX-License-Identifier: Apache-2.0
 *
 * Fuzzes the parser of snapshot streams (tools/stream). The first byte chooses:
 *   0  bytes as they are
 *   1  a good header, then records made of input with the checksums that they ought to have
 *   2  as 1, but what says where in the stream a record belongs is right, too
 * Nothing may crash, and what is let through is within the volume, ascending, and adds up. */
#include <string.h>

#include "common/base/bytes.h"
#include "common/base/crc32c.h"
#include "common/base/assert.h"
#include "common/base/units.h"
#include "tests/lib/fuzz.h"
#include "tools/stream/stream.h"

#define CHECK(x) ASSERTF(x, "seen here")
#define SIZE     (8 * MIB)

struct sums {
    uint64_t data, zero, end;
};

static void header_make(uint8_t head[STREAM_HEADER_BYTES])
{
    struct stream_header h = {.size_bytes = SIZE, .content = {1}, .base = {2}, .volume = "v"};

    stream_header_pack(&h, head);
}

/* How a record's fields become plausible; the last two are its sums if it is the end. */
static void record_make(struct fuzz_input *in, const struct stream *s,
                        uint8_t rec[STREAM_RECORD_BYTES])
{
    uint32_t kind = fuzz_u8(in) % 5;
    uint64_t offset = fuzz_uint(in, 2) * 512ULL, length = fuzz_uint(in, 2) * 512ULL;

    memset(rec, 0, STREAM_RECORD_BYTES);
    put_le32(rec, kind);
    put_le64(rec + 8, fuzz_u8(in) < 250 ? s->records : s->records + 1);
    if (in->mode == 2) {
        offset = kind == STREAM_END ? s->data_bytes : s->next + offset % (64 * 1024);
        length = kind == STREAM_END ? s->zero_bytes : length % (64 * 1024) + 512;
        put_le32(rec + 4, kind == STREAM_END ? s->header_crc : 0);
    }
    put_le64(rec + 16, offset);
    put_le64(rec + 24, length);
    put_le32(rec + 36, crc32c(0, rec, 36));
}

static void record_judge(const struct stream *s, const struct stream_record *r, struct sums *sums)
{
    if (r->kind == STREAM_END) {
        CHECK(s->ended && r->offset == sums->data && r->length == sums->zero);
        return;
    }
    CHECK(!s->ended && r->offset >= sums->end && r->length > 0);
    CHECK(r->offset + r->length <= s->header.size_bytes);
    CHECK(r->kind == STREAM_ZERO || (r->kind == STREAM_DATA && r->length <= STREAM_DATA_MAX));
    sums->end = r->offset + r->length;
    *(r->kind == STREAM_DATA ? &sums->data : &sums->zero) += r->length;
}

static bool record_next(struct fuzz_input *in, const struct stream *s,
                        uint8_t rec[STREAM_RECORD_BYTES])
{
    if (in->size == 0)
        return false;
    if (in->mode > 0)
        record_make(in, s, rec);
    else
        return fuzz_take(in, rec, STREAM_RECORD_BYTES) == STREAM_RECORD_BYTES;
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t head[STREAM_HEADER_BYTES] = {0}, rec[STREAM_RECORD_BYTES];
    struct stream s = {0};
    struct sums sums = {0};
    struct fuzz_input in;

    if (!fuzz_begin(&in, data, size, 3))
        return 0;
    if (in.mode == 0)
        (void)fuzz_take(&in, head, sizeof(head));
    else
        header_make(head);
    if (stream_header_parse(head, &s.header) < 0) {
        CHECK(in.mode == 0);
        return 0;
    }
    while (!s.ended && record_next(&in, &s, rec)) {
        struct stream_record r;

        if (stream_record_parse(&s, rec, &r) < 0)
            break;
        record_judge(&s, &r, &sums);
        if (r.kind == STREAM_DATA && r.length <= in.size)
            (void)!stream_payload_check(&r, in.data);
    }
    return 0;
}
