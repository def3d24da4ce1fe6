/* SPDX-License-Identifier: Apache-2.0
 *
 * Keys of the store: a letter, then big-endian ids, so that memcmp order is id order. Private to
 * codec*.c and load*.c. */
#ifndef ZBS_META_CODEC_KEY_H
#define ZBS_META_CODEC_KEY_H

#include <protobuf-c/protobuf-c.h>
#include <string.h>
#include "common/base/assert.h"
#include "meta/limits.h"

#define STORE_FORMAT 2u

enum key_kind {
    KEY_SESSION = 'a',
    KEY_CHUNK = 'c',
    KEY_ENTRY = 'd', /* directory, cookie */
    KEY_EXTENT = 'e',
    KEY_SHARE = 'f',
    KEY_GARBAGE = 'g', /* chunk, extent -> epoch, family */
    KEY_HEADER = 'h',
    KEY_PAGE = 'i',  /* of volumes' tables */
    KEY_LOCKS = 'k', /* inode, holder */
    KEY_LOADING = 'l',
    KEY_TABLE = 'm', /* volume, number of a group of table pages */
    KEY_INODE = 'n',
    KEY_SETTING = 'o', /* name */
    KEY_POOL = 'p',
    KEY_RESULT = 'r', /* mutation number */
    KEY_SLOT = 's',   /* volume, slot: leases */
    KEY_TARGET = 't', /* iqn */
    KEY_VOLUME = 'v',
    KEY_RESERVATION = 'x', /* volume */
};

struct key {
    uint8_t bytes[IQN_BYTES_MAX + 1];
    size_t len;
};

static inline struct key key_of(enum key_kind kind)
{
    return (struct key){.bytes = {(uint8_t)kind}, .len = 1};
}

static inline void key_u32(struct key *k, uint32_t v)
{
    for (int shift = 24; shift >= 0; shift -= 8)
        k->bytes[k->len++] = (uint8_t)(v >> shift);
}

static inline void key_u64(struct key *k, uint64_t v)
{
    key_u32(k, (uint32_t)(v >> 32));
    key_u32(k, (uint32_t)v);
}

static inline void key_str(struct key *k, const char *s)
{
    size_t len = strlen(s);

    ASSERT(len <= IQN_BYTES_MAX);
    memcpy(k->bytes + k->len, s, len);
    k->len += len;
}

/* Keys that are one number. */
static inline struct key key_of_u32(enum key_kind kind, uint32_t id)
{
    struct key k = key_of(kind);

    key_u32(&k, id);
    return k;
}

static inline struct key key_of_u64(enum key_kind kind, uint64_t id)
{
    struct key k = key_of(kind);

    key_u64(&k, id);
    return k;
}

static inline struct key key_slot(uint64_t volume_id, uint32_t number)
{
    struct key k = key_of_u64(KEY_SLOT, volume_id);

    key_u32(&k, number);
    return k;
}

static inline struct key key_table(uint64_t volume_id, uint32_t group)
{
    struct key k = key_of_u64(KEY_TABLE, volume_id);

    key_u32(&k, group);
    return k;
}

static inline struct key key_entry(uint64_t dir_id, uint64_t cookie)
{
    struct key k = key_of_u64(KEY_ENTRY, dir_id);

    key_u64(&k, cookie);
    return k;
}

static inline struct key key_locks(uint64_t inode_id, uint64_t holder_id)
{
    struct key k = key_of_u64(KEY_LOCKS, inode_id);

    key_u64(&k, holder_id);
    return k;
}

static inline struct key key_target(const char *iqn)
{
    struct key k = key_of(KEY_TARGET);

    key_str(&k, iqn);
    return k;
}

static inline struct key key_setting(const char *name)
{
    struct key k = key_of(KEY_SETTING);

    key_str(&k, name);
    return k;
}

static inline struct key key_garbage(uint32_t chunk_id, uint64_t extent_id)
{
    struct key k = key_of_u32(KEY_GARBAGE, chunk_id);

    key_u64(&k, extent_id);
    return k;
}

struct codec_sink;
void codec_sink_put(const struct codec_sink *to, const struct key *k, const ProtobufCMessage *msg);
void codec_sink_del(const struct codec_sink *to, struct key k);

static inline uint32_t key_get_u32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline uint64_t key_get_u64(const uint8_t *p)
{
    return (uint64_t)key_get_u32(p) << 32 | key_get_u32(p + 4);
}

#endif
