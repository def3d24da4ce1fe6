/* SPDX-License-Identifier: Apache-2.0
 *
 * Encoding and checking of frame headers. */
#include <endian.h>
#include <inttypes.h>
#include <string.h>
#include "common/base/crc32c.h"
#include "common/rpc/frame.h"

struct frame_wire {
    uint32_t magic;
    uint8_t version;
    uint8_t kind;
    uint16_t flags;
    uint32_t service;
    uint32_t method;
    uint64_t id;
    uint32_t area_len;
    uint32_t text_len;
    uint32_t payload_len;
    uint32_t status;
    uint32_t timeout_us;
    uint32_t area_crc;
    uint32_t payload_at;
    uint32_t reply_at;
    uint32_t reply_cap;
    uint32_t header_crc; /* CRC32C of all before */
} PACKED;
static_assert(sizeof(struct frame_wire) == FRAME_HEADER_BYTES, "header size");
static_assert(offsetof(struct frame_wire, header_crc) == FRAME_HEADER_BYTES - 4, "CRC is last");

void frame_header_encode(uint8_t dst[FRAME_HEADER_BYTES], const struct frame_header *h)
{
    struct frame_wire w = {
        .magic = htole32(FRAME_MAGIC),
        .version = h->version,
        .kind = h->kind,
        .flags = htole16(h->flags),
        .service = htole32(h->service),
        .method = htole32(h->method),
        .id = htole64(h->id),
        .area_len = htole32(h->area_len),
        .text_len = htole32(h->text_len),
        .payload_len = htole32(h->payload_len),
        .status = htole32((uint32_t)h->status),
        .timeout_us = htole32(h->timeout_us),
        .area_crc = htole32(h->area_crc),
        .payload_at = htole32(h->payload_at),
        .reply_at = htole32(h->reply_at),
        .reply_cap = htole32(h->reply_cap),
    };

    w.header_crc = htole32(crc32c(0, &w, offsetof(struct frame_wire, header_crc)));
    memcpy(dst, &w, sizeof(w));
}

/* Fields whose presence depends on the kind. */
static int frame_kind_check(const struct frame_header *h)
{
    bool fails = h->status < 0;

    switch (h->kind) {
    case FRAME_REQUEST:
        if (h->status != 0 || h->text_len != 0 || (h->flags & FRAME_F_MESSAGE) || h->service == 0)
            return err_set(ERR_PROTO, "request frame with fields of a reply");
        return 0;
    case FRAME_HELLO:
        if (h->id != 0 || h->payload_len != 0 || h->flags != 0)
            return err_set(ERR_PROTO, "hello frame with fields of a request");
        if (h->area_len > FRAME_HELLO_MAX)
            return err_set(ERR_TOO_LARGE, "hello of %u bytes", h->area_len);
        break;
    case FRAME_REPLY:
        if (!fails && (h->flags & FRAME_F_MESSAGE))
            return err_set(ERR_PROTO, "reply frame with a needless flag");
        break;
    default:
        return err_set(ERR_PROTO, "frame of unknown kind %u", h->kind);
    }
    if ((h->flags & FRAME_F_ROOM) || h->payload_at != 0 || h->service != 0 || h->method != 0 ||
        h->timeout_us != 0)
        return err_set(ERR_PROTO, "frame of kind %u with fields of a request", h->kind);
    if (h->status > 0)
        return err_set(ERR_PROTO, "frame with status %d", h->status);
    if (h->text_len > (fails ? FRAME_TEXT_MAX : 0) || h->text_len > h->area_len)
        return err_set(ERR_PROTO, "frame with a text of %u bytes", h->text_len);
    if (fails && !(h->flags & FRAME_F_MESSAGE) && h->kind == FRAME_REPLY &&
        (h->area_len != h->text_len || h->payload_len != 0))
        return err_set(ERR_PROTO, "error frame with more than its text");
    return 0;
}

int frame_header_parse(const uint8_t src[FRAME_HEADER_BYTES], struct frame_header *ret)
{
    struct frame_wire w;
    struct frame_header h;
    int rc;

    memcpy(&w, src, sizeof(w));
    if (le32toh(w.magic) != FRAME_MAGIC)
        return err_set(ERR_PROTO, "no frame here (magic 0x%08" PRIx32 ")", le32toh(w.magic));
    if (le32toh(w.header_crc) != crc32c(0, &w, offsetof(struct frame_wire, header_crc)))
        return err_set(ERR_CORRUPT, "checksum of the frame header is wrong");
    h = (struct frame_header){
        .version = w.version,
        .kind = w.kind,
        .flags = le16toh(w.flags),
        .service = le32toh(w.service),
        .method = le32toh(w.method),
        .id = le64toh(w.id),
        .area_len = le32toh(w.area_len),
        .text_len = le32toh(w.text_len),
        .payload_len = le32toh(w.payload_len),
        .status = (int32_t)le32toh(w.status),
        .timeout_us = le32toh(w.timeout_us),
        .area_crc = le32toh(w.area_crc),
        .payload_at = le32toh(w.payload_at),
        .reply_at = le32toh(w.reply_at),
        .reply_cap = le32toh(w.reply_cap),
    };
    if (h.version > FRAME_VERSION_MAX ||
        (h.version == FRAME_VERSION_HELLO) != (h.kind == FRAME_HELLO))
        return err_set(ERR_VERSION, "frame of kind %u has version %u", h.kind, h.version);
    if ((h.flags & ~FRAME_F_ALL) || (!(h.flags & FRAME_F_SLOT) && h.payload_at != 0) ||
        (!(h.flags & FRAME_F_ROOM) && (h.reply_at != 0 || h.reply_cap != 0)))
        return err_set(ERR_PROTO, "frame uses flags or fields that were not negotiated");
    if (!(h.flags & FRAME_F_AREA_CRC) && h.area_crc != 0)
        return err_set(ERR_PROTO, "frame with an unannounced checksum");
    if (h.area_len > FRAME_AREA_MAX || h.area_len - MIN(h.text_len, h.area_len) > RPC_MESSAGE_MAX)
        return err_set(ERR_TOO_LARGE, "message of %u bytes (at most %u)", h.area_len,
                       RPC_MESSAGE_MAX);
    if (h.payload_len > RPC_PAYLOAD_MAX)
        return err_set(ERR_TOO_LARGE, "payload of %u bytes (at most %u)", h.payload_len,
                       RPC_PAYLOAD_MAX);
    if (h.reply_cap > RPC_PAYLOAD_MAX)
        return err_set(ERR_TOO_LARGE, "room for a payload of %u bytes (at most %u)", h.reply_cap,
                       RPC_PAYLOAD_MAX);
    if (((h.flags & FRAME_F_SLOT) && h.payload_len == 0) ||
        ((h.flags & FRAME_F_ROOM) && h.reply_cap == 0))
        return err_set(ERR_PROTO, "frame with an empty slot");
    rc = frame_kind_check(&h);
    if (rc < 0)
        return rc;
    *ret = h;
    return 0;
}

int frame_area_check(const struct frame_header *h, const uint8_t *area)
{
    if ((h->flags & FRAME_F_AREA_CRC) && crc32c(0, area, h->area_len) != h->area_crc)
        return err_set(ERR_CORRUPT, "checksum of a message of %u bytes is wrong", h->area_len);
    return 0;
}

uint32_t frame_service_hash(const ProtobufCServiceDescriptor *service)
{
    uint32_t hash = crc32c(0, service->name, strlen(service->name));

    return hash != 0 ? hash : 1; /* 0 means none on the wire */
}

uint32_t frame_timeout_us(nsec_t deadline, nsec_t now)
{
    nsec_t left;

    if (deadline == NSEC_NEVER)
        return 0;
    left = (deadline - now) / NSEC_PER_USEC;
    return (uint32_t)MIN(MAX(left, 1), (nsec_t)UINT32_MAX);
}
