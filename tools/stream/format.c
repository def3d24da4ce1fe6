/* SPDX-License-Identifier: Apache-2.0
 *
 * The bytes of a stream: see stream.h, and tools/README.md for their places. */
#include "tools/stream/stream.h"

#include <inttypes.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/bytes.h"
#include "common/base/crc32c.h"
#include "common/base/units.h"

static const char magic[8] = "ZBSSNAP\n";

enum header_at {
    H_MAGIC = 0,
    H_VERSION = 8,
    H_BYTES = 12,
    H_SIZE = 16,
    H_CREATED = 24,
    H_CONTENT = 32,
    H_BASE = 48,
    H_POOL = 64,
    H_VOLUME = H_POOL + STREAM_NAME_ROOM,
    H_SNAPSHOT = H_VOLUME + STREAM_NAME_ROOM,
    H_END = H_SNAPSHOT + STREAM_NAME_ROOM,
    H_CRC = STREAM_HEADER_BYTES - 4,
};
_Static_assert((int)H_END <= (int)H_CRC, "the names fit");

enum record_at {
    R_KIND = 0,
    R_PAYLOAD_CRC = 4,
    R_NUMBER = 8,
    R_OFFSET = 16,
    R_LENGTH = 24,
    R_CRC = 36
};

/* ---- header ---- */

void stream_header_pack(const struct stream_header *h, uint8_t dst[STREAM_HEADER_BYTES])
{
    memset(dst, 0, STREAM_HEADER_BYTES);
    memcpy(dst + H_MAGIC, magic, sizeof(magic));
    put_le32(dst + H_VERSION, STREAM_VERSION);
    put_le32(dst + H_BYTES, STREAM_HEADER_BYTES);
    put_le64(dst + H_SIZE, h->size_bytes);
    put_le64(dst + H_CREATED, h->created_ns);
    memcpy(dst + H_CONTENT, h->content, STREAM_ID_BYTES);
    memcpy(dst + H_BASE, h->base, STREAM_ID_BYTES);
    memcpy(dst + H_POOL, h->pool, STREAM_NAME_ROOM);
    memcpy(dst + H_VOLUME, h->volume, STREAM_NAME_ROOM);
    memcpy(dst + H_SNAPSHOT, h->snapshot, STREAM_NAME_ROOM);
    put_le32(dst + H_CRC, crc32c(0, dst, H_CRC));
}

/* False if it has no end. */
static bool name_get(const uint8_t *src, char dst[STREAM_NAME_ROOM])
{
    memcpy(dst, src, STREAM_NAME_ROOM);
    return memchr(dst, 0, STREAM_NAME_ROOM) != NULL;
}

static bool is_zero(const uint8_t id[STREAM_ID_BYTES])
{
    static const uint8_t zeroes[STREAM_ID_BYTES];

    return memcmp(id, zeroes, STREAM_ID_BYTES) == 0;
}

int stream_header_parse(const uint8_t src[STREAM_HEADER_BYTES], struct stream_header *ret)
{
    struct stream_header h = {0};

    if (memcmp(src + H_MAGIC, magic, sizeof(magic)) != 0)
        return err_set(ERR_FORMAT, "this is not a stream of a snapshot");
    if (get_le32(src + H_VERSION) != STREAM_VERSION)
        return err_set(ERR_FORMAT, "the stream has version %u, only %u is known",
                       get_le32(src + H_VERSION), STREAM_VERSION);
    if (get_le32(src + H_BYTES) != STREAM_HEADER_BYTES ||
        get_le32(src + H_CRC) != crc32c(0, src, H_CRC))
        return err_set(ERR_FORMAT, "the stream's header is damaged");
    h.size_bytes = get_le64(src + H_SIZE);
    h.created_ns = get_le64(src + H_CREATED);
    memcpy(h.content, src + H_CONTENT, STREAM_ID_BYTES);
    memcpy(h.base, src + H_BASE, STREAM_ID_BYTES);
    h.incremental = !is_zero(h.base);
    if (!name_get(src + H_POOL, h.pool) || !name_get(src + H_VOLUME, h.volume) ||
        !name_get(src + H_SNAPSHOT, h.snapshot) || is_zero(h.content) || h.size_bytes == 0 ||
        h.size_bytes % SECTOR_BYTES != 0 || h.size_bytes > 64 * TIB)
        return err_set(ERR_FORMAT, "the stream's header says what can't be");
    *ret = h;
    return 0;
}

/* ---- records ---- */

/* Is that the next one? Sums are not touched. */
static bool record_fits(const struct stream *s, const struct stream_record *r)
{
    uint64_t size = s->header.size_bytes;

    if (r->kind == STREAM_END)
        return r->offset == s->data_bytes && r->length == s->zero_bytes;
    return (r->kind == STREAM_DATA || r->kind == STREAM_ZERO) && r->length > 0 &&
           (r->kind != STREAM_DATA || r->length <= STREAM_DATA_MAX) &&
           r->offset % SECTOR_BYTES == 0 && r->length % SECTOR_BYTES == 0 && r->offset >= s->next &&
           r->offset <= size && r->length <= size - r->offset;
}

static void record_count(struct stream *s, const struct stream_record *r, const uint8_t *bytes)
{
    s->header_crc = crc32c(s->header_crc, bytes, STREAM_RECORD_BYTES);
    s->records++;
    if (r->kind == STREAM_END) {
        s->ended = true;
        return;
    }
    s->next = r->offset + r->length;
    if (r->kind == STREAM_DATA)
        s->data_bytes += r->length;
    else
        s->zero_bytes += r->length;
}

void stream_record_pack(struct stream *s, struct stream_record *r, const void *payload,
                        uint8_t dst[STREAM_RECORD_BYTES])
{
    r->payload_crc = 0;
    if (r->kind == STREAM_END) {
        r->offset = s->data_bytes;
        r->length = s->zero_bytes;
        r->payload_crc = s->header_crc;
    } else if (r->kind == STREAM_DATA) {
        r->payload_crc = crc32c(0, payload, r->length);
    }
    ASSERT(!s->ended && record_fits(s, r));
    memset(dst, 0, STREAM_RECORD_BYTES);
    put_le32(dst + R_KIND, r->kind);
    put_le32(dst + R_PAYLOAD_CRC, r->payload_crc);
    put_le64(dst + R_NUMBER, s->records);
    put_le64(dst + R_OFFSET, r->offset);
    put_le64(dst + R_LENGTH, r->length);
    put_le32(dst + R_CRC, crc32c(0, dst, R_CRC));
    record_count(s, r, dst);
}

int stream_record_parse(struct stream *s, const uint8_t src[STREAM_RECORD_BYTES],
                        struct stream_record *ret)
{
    struct stream_record r = {.kind = (enum stream_kind)get_le32(src + R_KIND),
                              .payload_crc = get_le32(src + R_PAYLOAD_CRC),
                              .offset = get_le64(src + R_OFFSET),
                              .length = get_le64(src + R_LENGTH)};

    ASSERT(!s->ended);
    if (get_le32(src + R_CRC) != crc32c(0, src, R_CRC))
        return err_set(ERR_CORRUPT, "record %" PRIu64 " of the stream is damaged", s->records);
    if (get_le64(src + R_NUMBER) != s->records ||
        (r.kind == STREAM_END && r.payload_crc != s->header_crc))
        return err_set(ERR_CORRUPT, "something is missing before record %" PRIu64 " of the stream",
                       s->records);
    if (!record_fits(s, &r))
        return err_set(ERR_CORRUPT, "record %" PRIu64 " of the stream says what can't be",
                       s->records);
    record_count(s, &r, src);
    *ret = r;
    return 0;
}

int stream_payload_check(const struct stream_record *r, const void *payload)
{
    if (crc32c(0, payload, r->length) == r->payload_crc)
        return 0;
    return err_set(ERR_CORRUPT, "the stream's data for %" PRIu64 " bytes at %" PRIu64 " is damaged",
                   r->length, r->offset);
}
