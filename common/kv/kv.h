/* SPDX-License-Identifier: Apache-2.0
 *
 * Ordered key-value store with atomic batches (LevelDB; in the simulator a sorted map with crash
 * semantics). Calls run in the blocking pool, so they suspend; a handle may be used from one
 * loop, several coroutines. Keys and values are bytes; keys order by memcmp. */
#ifndef ZBS_KV_KV_H
#define ZBS_KV_KV_H

#include "common/co/co.h"

struct kv;
struct kv_batch;

/* Opens or creates the store in the folder path. ERR_CORRUPT, ERR_IO, ERR_BUSY. */
co_fn int kv_open(const char *path, struct kv **ret) MUST_CHECK;
co_fn void kv_close(struct kv *kv);

/* *ret: mem_ memory; ERR_NOTFOUND. */
co_fn int kv_get(struct kv *kv, const void *key, size_t key_len, void **ret,
                 size_t *ret_len) MUST_CHECK;

struct kv_batch *kv_batch_new(void);
void kv_batch_put(struct kv_batch *b, const void *key, size_t key_len, const void *val,
                  size_t val_len);
void kv_batch_delete(struct kv_batch *b, const void *key, size_t key_len);
size_t kv_batch_bytes(const struct kv_batch *b);
void kv_batch_free(struct kv_batch *b);

/* Atomic. sync: durable on return; otherwise a crash may lose a suffix of the unsynced batches
 * (never a part of one, never one before another that survived). */
co_fn int kv_write(struct kv *kv, const struct kv_batch *b, bool sync) MUST_CHECK;

/* Calls fn for each pair with first <= key < last, in order, from a snapshot taken at the start;
 * fn returns 0 to go on, anything else ends the scan and is returned. fn runs on the caller's
 * loop and may suspend. last NULL: to the end. */
typedef int (*kv_scan_fn)(void *arg, const void *key, size_t key_len, const void *val,
                          size_t val_len);
co_fn int kv_scan(struct kv *kv, const void *first, size_t first_len, const void *last,
                  size_t last_len, kv_scan_fn fn, void *arg) MUST_CHECK;

/* Removes every key (before loading a snapshot from another server); durable on return. */
co_fn int kv_clear(struct kv *kv) MUST_CHECK;

#endif
