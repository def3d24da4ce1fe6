/* SPDX-License-Identifier: Apache-2.0
 *
 * The boundary of the key-value store, and the batch: a run of operations, each
 * u8 kind (0 put, 1 delete), u32 key bytes, u32 value bytes (put only), key, value. It never
 * leaves memory, so lengths are in the machine's own byte order. */
#include "common/kv/kv.h"
#include <string.h>
#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/co/loop.h"
#include "common/env/env_ops.h"

#define KEY_MAX   (64u * 1024)
#define VALUE_MAX (64u * 1024 * 1024)

struct kv_batch {
    uint8_t *data;
    size_t len, cap;
};

enum { ITEM_PUT, ITEM_DELETE };

struct kv_batch *kv_batch_new(void)
{
    return MEM_NEW(struct kv_batch);
}

static void batch_append(struct kv_batch *b, const void *src, size_t len)
{
    if (b->cap - b->len < len) {
        b->cap = MAX(b->cap * 2, b->len + len + 256);
        b->data = mem_realloc(b->data, b->cap);
    }
    if (len > 0)
        memcpy(b->data + b->len, src, len);
    b->len += len;
}

static void batch_item(struct kv_batch *b, uint8_t kind, const void *key, size_t key_len,
                       const void *val, size_t val_len)
{
    uint32_t lens[2] = {(uint32_t)key_len, (uint32_t)val_len};

    ASSERTF(key_len > 0 && key_len <= KEY_MAX, "key of %zu bytes", key_len);
    ASSERTF(val_len <= VALUE_MAX, "value of %zu bytes", val_len);
    batch_append(b, &kind, 1);
    batch_append(b, lens, kind == ITEM_PUT ? sizeof(lens) : sizeof(lens[0]));
    batch_append(b, key, key_len);
    batch_append(b, val, val_len);
}

void kv_batch_put(struct kv_batch *b, const void *key, size_t key_len, const void *val,
                  size_t val_len)
{
    batch_item(b, ITEM_PUT, key, key_len, val, val_len);
}

void kv_batch_delete(struct kv_batch *b, const void *key, size_t key_len)
{
    batch_item(b, ITEM_DELETE, key, key_len, NULL, 0);
}

size_t kv_batch_bytes(const struct kv_batch *b)
{
    return b->len;
}

void kv_batch_free(struct kv_batch *b)
{
    if (!b)
        return;
    mem_free(b->data);
    mem_free(b);
}

void kv_batch_iter_init(struct kv_batch_iter *it, const struct kv_batch *b)
{
    it->pos = b->data;
    it->end = b->data ? b->data + b->len : NULL;
}

static const void *iter_take(struct kv_batch_iter *it, size_t len)
{
    const uint8_t *p = it->pos;

    ASSERT((size_t)(it->end - it->pos) >= len);
    it->pos += len;
    return p;
}

bool kv_batch_iter_next(struct kv_batch_iter *it, struct kv_batch_item *ret)
{
    uint32_t key_len, val_len = 0;

    if (it->pos == it->end)
        return false;
    ret->is_delete = *(const uint8_t *)iter_take(it, 1) == ITEM_DELETE;
    memcpy(&key_len, iter_take(it, sizeof(key_len)), sizeof(key_len));
    if (!ret->is_delete)
        memcpy(&val_len, iter_take(it, sizeof(val_len)), sizeof(val_len));
    ret->key_len = key_len;
    ret->key = iter_take(it, key_len);
    ret->val_len = val_len;
    ret->val = iter_take(it, val_len);
    return true;
}

int kv_open(const char *path, struct kv **ret)
{
    struct env *env = co_loop_env(co_loop());
    struct kv *kv = NULL;
    int rc;

    ASSERT(path && path[0]);
    rc = env->ops->kv_open(env, path, &kv);
    ASSERT(rc <= 0);
    if (rc < 0)
        return rc;
    ASSERT(kv->env == env && kv->loop == co_loop());
    *ret = kv;
    return 0;
}

void kv_close(struct kv *kv)
{
    ASSERT(kv->loop == co_loop());
    kv->env->ops->kv_close(kv);
}

int kv_get(struct kv *kv, const void *key, size_t key_len, void **ret, size_t *ret_len)
{
    void *val = NULL;
    size_t len = 0;
    int rc;

    ASSERT(kv->loop == co_loop() && key_len > 0 && key_len <= KEY_MAX);
    rc = kv->env->ops->kv_get(kv, key, key_len, &val, &len);
    ASSERT(rc <= 0 && (rc < 0 || val));
    if (rc < 0)
        return rc;
    if (ret)
        *ret = val;
    else
        mem_free(val);
    if (ret_len)
        *ret_len = len;
    return 0;
}

int kv_write(struct kv *kv, const struct kv_batch *b, bool sync)
{
    int rc;

    ASSERT(kv->loop == co_loop());
    rc = kv->env->ops->kv_write(kv, b, sync);
    ASSERT(rc <= 0);
    return rc;
}

int kv_scan(struct kv *kv, const void *first, size_t first_len, const void *last, size_t last_len,
            kv_scan_fn fn, void *arg)
{
    ASSERT(kv->loop == co_loop() && (first || first_len == 0));
    return kv->env->ops->kv_scan(kv, first, first_len, last, last_len, fn, arg);
}

int kv_clear(struct kv *kv)
{
    int rc;

    ASSERT(kv->loop == co_loop());
    rc = kv->env->ops->kv_clear(kv);
    ASSERT(rc <= 0);
    return rc;
}
