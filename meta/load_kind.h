/* SPDX-License-Identifier: Apache-2.0
 *
 * Between load*.c: how one kind of pair is read from the store. */
#ifndef ZBS_META_LOAD_KIND_H
#define ZBS_META_LOAD_KIND_H

#include "meta/codec_key.h"
#include "meta/pad.h"
#include "meta/state.h"

struct loader {
    struct state *st;
    uint64_t applied;
    bool has_header;
    struct pad pad; /* emptied after each pair */
};
typedef int (*load_fn)(struct loader *l, const uint8_t *key, size_t key_len,
                       const ProtobufCMessage *msg);

/* ERR_FORMAT */
int load_damaged(const char *what);

int load_share(struct loader *l, const uint8_t *key, size_t key_len, const ProtobufCMessage *msg);
int load_inode(struct loader *l, const uint8_t *key, size_t key_len, const ProtobufCMessage *msg);
int load_entry(struct loader *l, const uint8_t *key, size_t key_len, const ProtobufCMessage *msg);
int load_locks(struct loader *l, const uint8_t *key, size_t key_len, const ProtobufCMessage *msg);
/* When all is there: nothing without a name or beside the tree. */
int load_check_tree(const struct state *st);

#endif
