/* SPDX-License-Identifier: Apache-2.0
 *
 * Arenas of messages and the pools of their first chunks. */
#include <stdatomic.h>
#include "common/base/assert.h"
#include "common/base/list.h"
#include "common/base/mem.h"
#include "common/co/co.h"
#include "common/rpc/arena.h"

#define ARENA_ALIGN       8u
#define ARENA_CHUNK_BYTES 16384u /* of the second and later chunks, unless one needs more */

struct arena_pool {
    struct co_loop *loop;
    atomic_uint refs; /* the owner's and one per arena that is out */
    bool closed;      /* on loop */
    uint32_t kept;
    struct list unused; /* struct arena.link */
};

struct chunk {
    struct chunk *next;
    size_t pad; /* keeps the data aligned to 16 */
    uint8_t data[];
};

struct arena {
    struct list link;
    struct arena_pool *pool;
    struct chunk *chunks; /* after the first */
    uint8_t *pos, *end;
    size_t held, limit;
    bool exhausted;
    ProtobufCAllocator allocator;
    uint8_t first[];
};

struct arena_pool *arena_pool_new(void)
{
    struct arena_pool *p = MEM_NEW(struct arena_pool);

    p->loop = co_loop();
    atomic_init(&p->refs, 1);
    list_init(&p->unused);
    return p;
}

static void pool_put(struct arena_pool *p)
{
    if (atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) == 1)
        mem_free(p);
}

void arena_pool_close(struct arena_pool *p)
{
    struct list *e;

    ASSERT(!p->closed && co_loop() == p->loop);
    p->closed = true;
    while ((e = list_pop_front(&p->unused)) != NULL)
        mem_free(LIST_ENTRY(e, struct arena, link));
    pool_put(p);
}

static void *allocator_alloc(void *data, size_t bytes)
{
    return arena_alloc(data, bytes);
}

static void allocator_free(void *data UNUSED, void *ptr UNUSED)
{
}

struct arena *arena_new(struct arena_pool *p, size_t limit_bytes)
{
    struct list *e;
    struct arena *a;

    ASSERT(!p->closed && co_loop() == p->loop);
    e = list_pop_front(&p->unused);
    if (e != NULL) {
        a = LIST_ENTRY(e, struct arena, link);
        p->kept--;
    } else {
        a = mem_alloc_aligned(64, ARENA_FIRST_BYTES);
        list_init(&a->link);
        a->pool = p;
        a->allocator = (ProtobufCAllocator){allocator_alloc, allocator_free, a};
    }
    atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
    a->chunks = NULL;
    a->pos = (uint8_t *)ROUND_UP((uintptr_t)a->first, ARENA_ALIGN);
    a->end = (uint8_t *)a + ARENA_FIRST_BYTES;
    a->held = ARENA_FIRST_BYTES;
    a->limit = limit_bytes;
    a->exhausted = false;
    return a;
}

void arena_free(struct arena *a)
{
    struct arena_pool *p;
    struct chunk *c;

    if (a == NULL)
        return;
    while ((c = a->chunks) != NULL) {
        a->chunks = c->next;
        mem_free(c);
    }
    p = a->pool;
    if (co_loop() == p->loop && !p->closed && p->kept < ARENA_POOL_KEEP) {
        list_push_front(&p->unused, &a->link);
        p->kept++;
    } else {
        mem_free(a);
    }
    pool_put(p);
}

void *arena_alloc(struct arena *a, size_t bytes)
{
    size_t need = ROUND_UP(MAX(bytes, 1), ARENA_ALIGN), size;
    struct chunk *c;
    void *ret;

    if (need < bytes || need > a->limit) {
        a->exhausted = true;
        return NULL;
    }
    if (LIKELY(need <= (size_t)(a->end - a->pos))) {
        ret = a->pos;
        a->pos += need;
        return ret;
    }
    size = MAX(need + sizeof(*c), ARENA_CHUNK_BYTES);
    if (a->held + size > a->limit) {
        a->exhausted = true;
        return NULL;
    }
    c = mem_alloc_aligned(16, size);
    c->next = a->chunks;
    a->chunks = c;
    a->held += size;
    ret = c->data;
    /* A big block of its own leaves what remains of the present chunk in use. */
    if (size == ARENA_CHUNK_BYTES) {
        a->pos = c->data + need;
        a->end = (uint8_t *)c + size;
    }
    return ret;
}

void arena_set_limit(struct arena *a, size_t limit_bytes)
{
    a->limit = limit_bytes;
}

size_t arena_bytes(const struct arena *a)
{
    return a->held;
}

bool arena_exhausted(const struct arena *a)
{
    return a->exhausted;
}

ProtobufCAllocator *arena_allocator(struct arena *a)
{
    return &a->allocator;
}
