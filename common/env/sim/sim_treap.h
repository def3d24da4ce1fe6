/* SPDX-License-Identifier: Apache-2.0
 *
 * A persistent sorted map: a root never changes as long as someone else holds it, so a snapshot,
 * and the state before each batch of the store, is one reference. A treap whose priorities are
 * hashes of the keys, so that its shape depends on its contents only. NULL is the empty map. */
#ifndef ZBS_ENV_SIM_TREAP_H
#define ZBS_ENV_SIM_TREAP_H

#include "common/base/attr.h"

struct treap;

struct treap_item {
    uint32_t refs;
    uint32_t key_len, val_len;
    uint8_t bytes[]; /* key, value */
};

struct treap *treap_ref(struct treap *t);
void treap_unref(struct treap *t);
/* These take the reference they are given and return one to the result. */
struct treap *treap_put(struct treap *t, const void *key, size_t key_len, const void *val,
                        size_t val_len);
struct treap *treap_delete(struct treap *t, const void *key, size_t key_len);
/* NULL: not there. The item lives as long as the root. */
const struct treap_item *treap_get(const struct treap *t, const void *key, size_t key_len);
/* The first item >= key (> key if after is set). */
const struct treap_item *treap_seek(const struct treap *t, const void *key, size_t key_len,
                                    int after);
int treap_key_cmp(const void *a, size_t a_len, const void *b, size_t b_len);

#endif
