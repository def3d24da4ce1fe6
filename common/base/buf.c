/* SPDX-License-Identifier: Apache-2.0
 *
 * Payload buffers: size classes of 4, 8, 12, 16, 24 … 1024 KiB with one free list each; larger ones
 * come straight from the system. Single pages are cut from slabs, because the system's allocator
 * takes two for each; those given back keep their place in the slab, but no memory. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "common/base/assert.h"
#include "common/base/buf.h"
#include "common/base/mem.h"
#include "common/base/spin.h"

#if defined(__SANITIZE_ADDRESS__)
#define BUF_POOLED 0 /* so that an overrun or a use after the last put is seen */
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define BUF_POOLED 0
#endif
#endif
#ifndef BUF_POOLED
#define BUF_POOLED 1
#endif

#define BUF_CLASSES        17u
#define BUF_CLASS_NONE     UINT32_MAX       /* not pooled, counted */
#define BUF_CLASS_TRACKED  (UINT32_MAX - 1) /* belongs to a tracked heap */
#define BUF_CLASS_FOREIGN  (UINT32_MAX - 2) /* not our memory */
#define BUF_IDLE_BYTES_MAX (64u << 20)      /* of one class */
#define SLAB_PAGES         512u

struct buf_node { /* lies in the data of an idle buffer's header */
    struct buf buf;
    struct buf_node *next;
};

static struct {
    struct spin lock;
    struct buf_node *idle;
    uint64_t idle_bytes;
} pools[BUF_CLASSES];

/* Buffers without memory, given back or never used: single pages, and all that have their place in
 * the arena. */
static struct {
    struct spin lock;
    struct buf_node *first;
} hollow[BUF_CLASSES];

static struct {
    struct buf_arena memory;
    _Atomic uint64_t taken; /* may pass the end */
} arena;

static struct {
    _Atomic uint64_t limit; /* 0: none */
    _Atomic uint64_t used;
    _Atomic uint64_t idle;
} account;

const uint8_t zero_page[BUF_ALIGN] __attribute__((aligned(BUF_ALIGN)));

/* Sizes in pages: 1, 2, 3, 4, 6, 8, 12 … 256. */
static size_t class_bytes(uint32_t class)
{
    size_t power;

    if (class == 0)
        return BUF_ALIGN;
    power = (size_t)2 << ((class - 1) / 2);
    return BUF_ALIGN * (class % 2 == 1 ? power : power + power / 2);
}

static uint32_t class_of(size_t len)
{
    size_t pages = DIV_UP(len, BUF_ALIGN);
    uint32_t class, log;

    if (pages <= 1)
        return 0;
    log = 63 - (uint32_t)__builtin_clzl(pages);
    class = 2 * (log - 1) + 1; /* the class of 2^log pages */
    while (class < BUF_CLASSES && class_bytes(class) < len)
        class ++;
    return class < BUF_CLASSES ? class : BUF_CLASS_NONE;
}

static struct buf_node *node_of(struct buf *b)
{
    return CONTAINER_OF(b, struct buf_node, buf);
}

static bool in_arena(const void *data)
{
    return (uintptr_t)data - (uintptr_t)arena.memory.base < arena.memory.bytes;
}

static void *heap_new(size_t len)
{
    void *data = NULL;

    if (posix_memalign(&data, BUF_ALIGN, len) != 0)
        assert_fail("memory", __FILE__, __LINE__, "out of memory for a buffer of %zu bytes", len);
    return data;
}

/* For classes only, which never give their place in the arena away. */
static void *data_new(size_t len)
{
    if (arena.memory.bytes > 0) {
        uint64_t at = atomic_fetch_add_explicit(&arena.taken, len, memory_order_relaxed);

        if (at + len <= arena.memory.bytes)
            return arena.memory.base + at;
    }
    return heap_new(len);
}

/* ---- without memory ---- */

static struct buf_node *hollow_take(uint32_t class)
{
    struct buf_node *n;

    spin_lock(&hollow[class].lock);
    n = hollow[class].first;
    if (n != NULL)
        hollow[class].first = n->next;
    spin_unlock(&hollow[class].lock);
    return n;
}

static void hollow_put(uint32_t class, struct buf_node *first, struct buf_node *last)
{
    spin_lock(&hollow[class].lock);
    last->next = hollow[class].first;
    hollow[class].first = first;
    spin_unlock(&hollow[class].lock);
}

/* Slabs and their nodes stay for good. */
static struct buf_node *slab_new(void)
{
    struct buf_node *nodes = mem_raw_alloc(SLAB_PAGES * sizeof(*nodes));
    uint8_t *data = data_new((size_t)SLAB_PAGES * BUF_ALIGN);

    for (uint32_t i = 0; i < SLAB_PAGES; i++) {
        nodes[i].buf.data = data + (size_t)i * BUF_ALIGN;
        nodes[i].buf.cap = BUF_ALIGN;
        nodes[i].next = i + 1 < SLAB_PAGES ? &nodes[i + 1] : NULL;
    }
    hollow_put(0, &nodes[1], &nodes[SLAB_PAGES - 1]);
    return &nodes[0];
}

/* ---- */

static void node_free(struct buf_node *n)
{
    bool shared = in_arena(n->buf.data);

    if (n->buf.pool == 0 || shared) {
        (void)madvise(n->buf.data, n->buf.cap, shared ? MADV_REMOVE : MADV_DONTNEED);
        hollow_put(n->buf.pool, n, n);
        return;
    }
    free(n->buf.data);
    mem_raw_free(n);
}

static struct buf_node *node_new(uint32_t class, size_t cap)
{
    struct buf_node *n = class < BUF_CLASSES ? hollow_take(class) : NULL;

    if (n != NULL)
        return n;
    if (class == 0)
        return slab_new();
    n = mem_raw_alloc(sizeof(*n));
    n->buf.data = class < BUF_CLASSES ? data_new(cap) : heap_new(cap);
    n->buf.cap = cap;
    return n;
}

static struct buf_node *pool_take(uint32_t class)
{
    struct buf_node *n;

    spin_lock(&pools[class].lock);
    n = pools[class].idle;
    if (n != NULL) {
        pools[class].idle = n->next;
        pools[class].idle_bytes -= n->buf.cap;
    }
    spin_unlock(&pools[class].lock);
    if (n != NULL)
        atomic_fetch_sub_explicit(&account.idle, n->buf.cap, memory_order_relaxed);
    return n;
}

static bool pool_keep(uint32_t class, struct buf_node *n)
{
    uint64_t limit = atomic_load_explicit(&account.limit, memory_order_relaxed);
    uint64_t held = atomic_load_explicit(&account.used, memory_order_relaxed) +
                    atomic_load_explicit(&account.idle, memory_order_relaxed);
    bool keep;

    if (limit != 0 && held + n->buf.cap > limit)
        return false;
    spin_lock(&pools[class].lock);
    keep = pools[class].idle_bytes + n->buf.cap <= BUF_IDLE_BYTES_MAX;
    if (keep) {
        n->next = pools[class].idle;
        pools[class].idle = n;
        pools[class].idle_bytes += n->buf.cap;
    }
    spin_unlock(&pools[class].lock);
    if (keep)
        atomic_fetch_add_explicit(&account.idle, n->buf.cap, memory_order_relaxed);
    return keep;
}

static struct buf *buf_alloc_tracked(size_t len)
{
    struct buf *b = mem_alloc(sizeof(*b));

    b->cap = ROUND_UP(MAX(len, 1), BUF_ALIGN);
    b->data = mem_alloc_aligned(BUF_ALIGN, b->cap);
    b->pool = BUF_CLASS_TRACKED;
    atomic_init(&b->refs, 1);
    return b;
}

struct buf *buf_alloc(size_t len)
{
    struct buf_node *n = NULL;
    uint32_t class;
    size_t cap;

    ASSERTF(len <= BUF_BYTES_MAX, "buffer of %zu bytes", len);
    if (UNLIKELY(mem_heap_current() != NULL))
        return buf_alloc_tracked(len);
    class = BUF_POOLED || arena.memory.bytes > 0 ? class_of(len) : BUF_CLASS_NONE;
    cap = class != BUF_CLASS_NONE ? class_bytes(class) : ROUND_UP(MAX(len, 1), BUF_ALIGN);
    if (class != BUF_CLASS_NONE)
        n = pool_take(class);
    if (n == NULL)
        n = node_new(class, cap);
    n->buf.pool = class;
    atomic_store_explicit(&n->buf.refs, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&account.used, cap, memory_order_relaxed);
    return &n->buf;
}

struct buf *buf_try_alloc(size_t len)
{
    uint64_t limit = atomic_load_explicit(&account.limit, memory_order_relaxed);

    if (limit != 0 && atomic_load_explicit(&account.used, memory_order_relaxed) + len > limit)
        return NULL;
    return buf_alloc(len);
}

struct buf *buf_foreign(void *data, size_t cap)
{
    struct buf *b = mem_alloc(sizeof(*b));

    ASSERT((uintptr_t)data % BUF_ALIGN == 0 && cap % BUF_ALIGN == 0);
    b->data = data;
    b->cap = cap;
    b->pool = BUF_CLASS_FOREIGN;
    atomic_init(&b->refs, 1);
    return b;
}

bool buf_is_foreign(const struct buf *b)
{
    return b->pool == BUF_CLASS_FOREIGN;
}

struct buf *buf_get(struct buf *b)
{
    unsigned before = atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);

    ASSERT(before > 0 && before < UINT32_MAX / 2);
    return b;
}

void buf_put(struct buf *b)
{
    struct buf_node *n;
    unsigned before;

    if (b == NULL)
        return;
    before = atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel);
    ASSERT(before > 0);
    if (before > 1)
        return;
    if (UNLIKELY(b->pool == BUF_CLASS_TRACKED)) {
        mem_free(b->data);
        mem_free(b);
        return;
    }
    if (b->pool == BUF_CLASS_FOREIGN) {
        mem_free(b);
        return;
    }
    n = node_of(b);
    atomic_fetch_sub_explicit(&account.used, b->cap, memory_order_relaxed);
    if (b->pool == BUF_CLASS_NONE || !pool_keep(b->pool, n))
        node_free(n);
}

void buf_limit_set(uint64_t bytes)
{
    atomic_store(&account.limit, bytes);
}

void buf_arena_set(const struct buf_arena *a)
{
    ASSERT(arena.memory.bytes == 0 && buf_used_bytes() == 0);
    arena.memory = *a;
}

const struct buf_arena *buf_arena(void)
{
    return arena.memory.bytes > 0 ? &arena.memory : NULL;
}

bool buf_arena_offset(const struct buf *b, uint64_t *ret)
{
    *ret = (uint64_t)((uintptr_t)b->data - (uintptr_t)arena.memory.base);
    return in_arena(b->data);
}

uint64_t buf_used_bytes(void)
{
    return atomic_load(&account.used);
}

void buf_pool_trim(void)
{
    for (uint32_t class = 0; class < BUF_CLASSES; class ++)
        for (struct buf_node *n; (n = pool_take(class)) != NULL;)
            node_free(n);
}

int mem_is_zero(const void *p, size_t len)
{
    const uint8_t *bytes = p;
    size_t head = MIN(len, 16);

    for (size_t i = 0; i < head; i++)
        if (bytes[i] != 0)
            return 0;
    /* Sixteen zeroes, and every later byte equals the one sixteen before it. */
    return len <= 16 || memcmp(bytes, bytes + 16, len - 16) == 0;
}
