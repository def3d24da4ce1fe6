/* SPDX-License-Identifier: Apache-2.0
 *
 * A snapshot, or what changed from an older one to it, as a stream of bytes: the format
 * (tools/README.md describes it field by field), sending one, and receiving one into a volume.
 *
 * format.c is pure: bytes in and out, everything from a stream is checked before it is used. send.c
 * and receive.c talk to access servers and meta; the stream itself comes and goes through struct
 * stream_io, so that they run in the simulator as they do in zbs-cli. Errors are ERR_*, with a text
 * that says what to do. */
#ifndef ZBS_TOOLS_STREAM_H
#define ZBS_TOOLS_STREAM_H

#include "common/cluster/meta_client.h"

/* ---- format ---- */

#define STREAM_VERSION      1u
#define STREAM_HEADER_BYTES 512u
#define STREAM_RECORD_BYTES 40u
#define STREAM_DATA_MAX     (1024u * 1024) /* of one data record */
#define STREAM_ID_BYTES     16u
#define STREAM_NAME_ROOM    136u /* a name of 128 bytes, and its terminator */

struct stream_header {
    uint64_t size_bytes;              /* of the snapshot */
    uint8_t content[STREAM_ID_BYTES]; /* identity of what it is */
    uint8_t base[STREAM_ID_BYTES];    /* of what it is the difference to */
    bool incremental;                 /* false: base is all zeroes, the stream says everything */
    uint64_t created_ns;              /* when the snapshot was taken, UTC */
    char pool[STREAM_NAME_ROOM];      /* where it came from: for people, but for the default of */
    char volume[STREAM_NAME_ROOM];    /* the new snapshot's name */
    char snapshot[STREAM_NAME_ROOM];
};

enum stream_kind {
    STREAM_DATA = 1, /* `length` bytes follow */
    STREAM_ZERO = 2, /* reads as zeroes */
    STREAM_END = 3,
};

struct stream_record {
    enum stream_kind kind;
    uint64_t offset, length; /* in the volume; END: sums of data and of zeroes */
    uint32_t payload_crc;
};

/* What has passed of a stream, in either direction. Begin with the header alone. */
struct stream {
    struct stream_header header;
    uint64_t records, data_bytes, zero_bytes;
    uint64_t next;       /* records are ascending and apart: the next begins here or later */
    uint32_t header_crc; /* of all record headers so far */
    bool ended;
};

void stream_header_pack(const struct stream_header *h, uint8_t dst[STREAM_HEADER_BYTES]);
/* ERR_FORMAT: no stream, a version that is not known, or damaged. */
int stream_header_parse(const uint8_t src[STREAM_HEADER_BYTES],
                        struct stream_header *ret) MUST_CHECK;

/* payload: of DATA. offset and length of END are filled in. */
void stream_record_pack(struct stream *s, struct stream_record *r, const void *payload,
                        uint8_t dst[STREAM_RECORD_BYTES]);
/* ERR_CORRUPT: damaged, or something before it is missing. After END s->ended is set. */
int stream_record_parse(struct stream *s, const uint8_t src[STREAM_RECORD_BYTES],
                        struct stream_record *ret) MUST_CHECK;
/* Of a DATA record; ERR_CORRUPT. */
int stream_payload_check(const struct stream_record *r, const void *payload) MUST_CHECK;

/* ---- transfer ---- */

/* All may suspend. */
struct stream_io {
    void *arg;
    /* Fills dst, but for the stream's end: *ret_got is less only there. */
    co_fn int (*read)(void *arg, void *dst, size_t len, size_t *ret_got);
    co_fn int (*write)(void *arg, const void *src, size_t len);
    /* What has been done so far of a volume of that size. May be NULL. */
    void (*progress)(void *arg, const struct stream *s, uint64_t position);
};

#define STREAM_ACCESSES_MAX 64u

/* Whom to talk to. Any access server will do; when one fails another is asked. */
struct stream_cluster {
    struct meta_client *meta;
    struct rpc_client *accesses[STREAM_ACCESSES_MAX];
    uint32_t n_accesses, at;
};
/* Finds the access servers. ERR_UNREACHABLE: there are none. */
co_fn int stream_cluster_init(struct stream_cluster *c, struct meta_client *meta) MUST_CHECK;
co_fn void stream_cluster_fini(struct stream_cluster *c);

struct stream_name {
    const char *pool, *volume, *snapshot; /* receiving: snapshot may be NULL, as in the stream */
};

/* since: an older snapshot of the same volume, NULL: none. *ret: what was sent. */
co_fn int stream_send(struct stream_cluster *c, const struct stream_name *name,
                      const struct stream_name *since, const struct stream_io *io,
                      struct stream *ret) MUST_CHECK;

/* A full stream makes a volume, an incremental one continues one whose newest snapshot is the
 * stream's base and that has not changed since (ERR_STALE). 0: everything is durable, the volume
 * has a new snapshot of that content, and may be written again. Otherwise there is no snapshot, and
 * the volume stays reserved for an import: it may be imported again (what there is of an earlier
 * attempt is given up first), rolled back or deleted. *snapshot (owned by r): the new snapshot. */
co_fn int stream_receive(struct stream_cluster *c, const struct stream_name *name,
                         const struct stream_io *io, struct stream *ret,
                         struct rpc_reply *r) MUST_CHECK;

#endif
