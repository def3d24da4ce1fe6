/* SPDX-License-Identifier: Apache-2.0
 *
 * Frames on the wire (field by field in common/README.md). A frame is this 64-byte little-endian
 * header, then the message area (hello and request: a protobuf message; reply: an error text and
 * a protobuf message), then the payload. frame_header_parse is the one place where a header from
 * outside is checked; what it accepts, the code above relies on. Callable anywhere. */
#ifndef ZBS_RPC_FRAME_H
#define ZBS_RPC_FRAME_H

#include <assert.h>
#include <stdbool.h>
#include "common/base/err.h"
#include "common/rpc/rpc.h"

#define FRAME_MAGIC         0x5253425au /* "ZBSR" on the wire */
#define FRAME_HEADER_BYTES  64u
#define FRAME_VERSION_HELLO 0 /* hellos look the same in every version */
#define FRAME_VERSION_MIN   1
#define FRAME_VERSION_MAX   1
#define FRAME_TEXT_MAX      512u  /* bytes of an error text */
#define FRAME_HELLO_MAX     4096u /* bytes of a hello's message area */
/* A reply may carry an error text besides the largest message. */
#define FRAME_AREA_MAX (RPC_MESSAGE_MAX + FRAME_TEXT_MAX)

enum frame_kind {
    FRAME_HELLO = 1,
    FRAME_REQUEST = 2,
    FRAME_REPLY = 3,
};

enum frame_flag {
    FRAME_F_AREA_CRC = 1 << 0, /* area_crc is valid */
    FRAME_F_MESSAGE = 1 << 1,  /* a reply with an error carries its message all the same */
    FRAME_F_SLOT = 1 << 2,     /* the payload does not follow: a request's lies at payload_at of the
                                * client's arena, a reply's where the request asked for it */
    FRAME_F_ROOM = 1 << 3,     /* a request: reply_at and reply_cap are valid */
};
#define FRAME_F_SLOTS (FRAME_F_SLOT | FRAME_F_ROOM)
#define FRAME_F_ALL   (FRAME_F_AREA_CRC | FRAME_F_MESSAGE | FRAME_F_SLOTS)

/* Feature bits of the hello: used on a connection if both sides set them. */
#define FRAME_FEATURE_AREA_CRC   (UINT64_C(1) << 0) /* message areas are checksummed */
#define FRAME_FEATURE_TLS        (UINT64_C(1) << 1) /* reserved: the stream turns into TLS */
#define FRAME_FEATURE_SHM        (UINT64_C(1) << 2) /* all after the hellos through shared memory */
#define FRAME_FEATURE_SLOTS      (UINT64_C(1) << 3) /* with SHM: payloads in the client's arena */
#define FRAME_FEATURES_SHARING   (FRAME_FEATURE_SHM | FRAME_FEATURE_SLOTS)
#define FRAME_FEATURES_SUPPORTED (FRAME_FEATURE_AREA_CRC | FRAME_FEATURES_SHARING)

struct frame_header {
    uint8_t version;
    uint8_t kind;
    uint16_t flags;
    uint32_t service;     /* request: frame_service_hash; else 0 */
    uint32_t method;      /* request: position in the service; else 0 */
    uint64_t id;          /* request: chosen by the caller; reply: the request's; hello: 0 */
    uint32_t area_len;    /* bytes of text and message */
    uint32_t text_len;    /* reply and hello with status < 0: text at the area's start; else 0 */
    uint32_t payload_len; /* bytes after the message area */
    int32_t status;       /* reply, hello: 0 or ERR_*; request: 0 */
    uint32_t timeout_us;  /* request: what is left of the caller's deadline, 0: none; else 0 */
    uint32_t area_crc;    /* CRC32C of the message area, if FRAME_F_AREA_CRC */
    uint32_t payload_at;  /* bytes into the client's arena, if FRAME_F_SLOT; else 0 */
    uint32_t reply_at;    /* the same for the reply's payload, if FRAME_F_ROOM; else 0 */
    uint32_t reply_cap;   /* and how much there is room for; else 0 */
};

void frame_header_encode(uint8_t dst[FRAME_HEADER_BYTES], const struct frame_header *h);

/* Checks everything that can be checked without knowing the connection and fills *ret: magic,
 * header checksum, version (0 .. FRAME_VERSION_MAX; hello exactly 0, others not), kind, flags,
 * every length against its limit, fields that the kind has no use for (must be zero). Returns 0,
 * ERR_PROTO, ERR_CORRUPT (checksum), ERR_VERSION or ERR_TOO_LARGE with a text; *ret is written on
 * success only. */
int frame_header_parse(const uint8_t src[FRAME_HEADER_BYTES], struct frame_header *ret) MUST_CHECK;

/* The CRC32C of a message area against its header: 0 or ERR_CORRUPT. */
int frame_area_check(const struct frame_header *h, const uint8_t *area) MUST_CHECK;

/* Identifies a service on the wire: CRC32C of its full name ("zbs.chunk.Chunk"). */
uint32_t frame_service_hash(const ProtobufCServiceDescriptor *service);

/* What is left until deadline, as timeout_us: 0 for none, at least 1. */
uint32_t frame_timeout_us(nsec_t deadline, nsec_t now);

#endif
