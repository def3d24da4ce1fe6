/* SPDX-License-Identifier: Apache-2.0
 *
 * Persistent treap. A node that only its parent holds is changed in place, others are copied. */
#include "common/env/sim/sim_treap.h"
#include <string.h>
#include "common/base/assert.h"
#include "common/env/sim/sim_internal.h"

struct treap {
    uint32_t refs;
    uint64_t prio;
    struct treap *left, *right;
    struct treap_item *item;
};

int treap_key_cmp(const void *a, size_t a_len, const void *b, size_t b_len)
{
    size_t n = MIN(a_len, b_len);
    int c = n > 0 ? memcmp(a, b, n) : 0;

    if (c != 0)
        return c;
    return a_len < b_len ? -1 : a_len > b_len;
}

static int item_cmp(const struct treap_item *it, const void *key, size_t key_len)
{
    return treap_key_cmp(it->bytes, it->key_len, key, key_len);
}

static uint64_t key_prio(const uint8_t *key, size_t len)
{
    uint64_t h = 0xcbf29ce484222325u;

    for (size_t i = 0; i < len; i++)
        h = (h ^ key[i]) * 0x100000001b3u;
    h = (h ^ (h >> 33)) * 0xff51afd7ed558ccdu;
    h = (h ^ (h >> 33)) * 0xc4ceb9fe1a85ec53u;
    return h ^ (h >> 33);
}

static void item_unref(struct treap_item *it)
{
    if (--it->refs == 0)
        sim_mem_free(it);
}

struct treap *treap_ref(struct treap *t)
{
    if (t)
        t->refs++;
    return t;
}

void treap_unref(struct treap *t)
{
    if (!t || --t->refs > 0)
        return;
    treap_unref(t->left);
    treap_unref(t->right);
    item_unref(t->item);
    sim_mem_free(t);
}

/* A node equal to t that nobody else holds. */
static struct treap *own(struct treap *t)
{
    struct treap *copy;

    if (t->refs == 1)
        return t;
    copy = SIM_NEW(struct treap);
    copy->refs = 1;
    copy->prio = t->prio;
    copy->left = treap_ref(t->left);
    copy->right = treap_ref(t->right);
    copy->item = t->item;
    copy->item->refs++;
    treap_unref(t);
    return copy;
}

/* Splits by a key that is not in t. */
static void split(struct treap *t, const struct treap_item *at, struct treap **left,
                  struct treap **right)
{
    if (!t) {
        *left = *right = NULL;
        return;
    }
    t = own(t);
    if (item_cmp(t->item, at->bytes, at->key_len) < 0) {
        split(t->right, at, &t->right, right);
        *left = t;
    } else {
        split(t->left, at, left, &t->left);
        *right = t;
    }
}

/* All keys of a are below those of b. */
static struct treap *merge(struct treap *a, struct treap *b)
{
    if (!a || !b)
        return a ? a : b;
    if (a->prio >= b->prio) {
        a = own(a);
        a->right = merge(a->right, b);
        return a;
    }
    b = own(b);
    b->left = merge(a, b->left);
    return b;
}

static struct treap *put_item(struct treap *t, struct treap_item *it, uint64_t prio)
{
    int c;

    if (!t || prio > t->prio) { /* then the key is not below t either */
        struct treap *node = SIM_NEW(struct treap);

        node->refs = 1;
        node->prio = prio;
        node->item = it;
        split(t, it, &node->left, &node->right);
        return node;
    }
    t = own(t);
    c = item_cmp(t->item, it->bytes, it->key_len);
    if (c == 0) {
        item_unref(t->item);
        t->item = it;
    } else if (c > 0) {
        t->left = put_item(t->left, it, prio);
    } else {
        t->right = put_item(t->right, it, prio);
    }
    return t;
}

struct treap *treap_put(struct treap *t, const void *key, size_t key_len, const void *val,
                        size_t val_len)
{
    struct treap_item *it = sim_alloc(sizeof(*it) + key_len + val_len + 1);

    it->refs = 1;
    it->key_len = (uint32_t)key_len;
    it->val_len = (uint32_t)val_len;
    memcpy(it->bytes, key, key_len);
    if (val_len > 0)
        memcpy(it->bytes + key_len, val, val_len);
    return put_item(t, it, key_prio(it->bytes, key_len));
}

static struct treap *delete_found(struct treap *t, const void *key, size_t key_len)
{
    struct treap *joined;
    int c;

    ASSERT(t);
    t = own(t);
    c = item_cmp(t->item, key, key_len);
    if (c > 0) {
        t->left = delete_found(t->left, key, key_len);
        return t;
    }
    if (c < 0) {
        t->right = delete_found(t->right, key, key_len);
        return t;
    }
    joined = merge(t->left, t->right);
    t->left = t->right = NULL;
    treap_unref(t);
    return joined;
}

struct treap *treap_delete(struct treap *t, const void *key, size_t key_len)
{
    return treap_get(t, key, key_len) ? delete_found(t, key, key_len) : t;
}

const struct treap_item *treap_get(const struct treap *t, const void *key, size_t key_len)
{
    while (t) {
        int c = item_cmp(t->item, key, key_len);

        if (c == 0)
            return t->item;
        t = c > 0 ? t->left : t->right;
    }
    return NULL;
}

const struct treap_item *treap_seek(const struct treap *t, const void *key, size_t key_len,
                                    int after)
{
    const struct treap_item *best = NULL;

    while (t) {
        int c = item_cmp(t->item, key, key_len);

        if (c > 0 || (c == 0 && !after)) {
            best = t->item;
            t = t->left;
        } else {
            t = t->right;
        }
    }
    return best;
}
