/* SPDX-License-Identifier: Apache-2.0
 *
 * Space credits (PROTOCOL 3.4): before a write that needs new blocks is sent to anyone, every
 * replica that it goes to has promised the space. */
#include "access/vol/vol_int.h"

#include <string.h>

static bool bit_get(const uint64_t *bits, uint32_t n)
{
    return bits[n / 64] >> (n % 64) & 1;
}

static void bit_set(uint64_t *bits, uint32_t n)
{
    bits[n / 64] |= UINT64_C(1) << (n % 64);
}

static void bit_clear(uint64_t *bits, uint32_t n)
{
    bits[n / 64] &= ~(UINT64_C(1) << (n % 64));
}

void credits_recount(struct tenure *t)
{
    memset(t->allocated, 0xff, sizeof(t->allocated));
    for (uint32_t i = 0; i < t->n; i++)
        if ((t->set | t->joining) >> i & 1)
            for (uint32_t w = 0; w < ARRAY_SIZE(t->allocated); w++)
                t->allocated[w] &= t->m[i].allocated[w];
}

/* Of an extent's blocks; what a message leaves out is zero. */
static void bitmap_read(uint64_t *dst, const ProtobufCBinaryData *src)
{
    size_t len = MIN(src->len, (size_t)BLOCKS_PER_EXTENT / 8);

    memset(dst, 0, BLOCKS_PER_EXTENT / 8);
    if (len > 0)
        memcpy(dst, src->data, len);
}

/* Adds the blocks that a write may need at a replica. */
static void blocks_of(const struct op *op, const struct member *m, uint64_t *bits)
{
    uint32_t end = op->off + op->len;
    uint32_t first = op->off / BLOCK_BYTES, last = (end - 1) / BLOCK_BYTES;

    if (op->kind == ZBS__CHUNK__WRITE_KIND__WRITE_DATA) {
        for (uint32_t b = first; b <= last; b++)
            bit_set(bits, b);
        return;
    }
    if (op->off % PAGE_BYTES && bit_get(m->shared, first))
        bit_set(bits, first);
    if (end % PAGE_BYTES && bit_get(m->shared, last))
        bit_set(bits, last);
}

/* Of writes under way that a replica has not confirmed, and may not have seen. */
static void blocks_under_way(const struct tenure *t, uint32_t i, uint64_t *ret)
{
    memset(ret, 0, BLOCKS_PER_EXTENT / 8);
    LIST_FOREACH (op, &t->ops, struct op, link)
        if (op->dst & ~op->got & 1u << i)
            blocks_of(op, &t->m[i], ret);
}

uint32_t credits_to_reopen(const struct tenure *t, uint32_t i)
{
    uint64_t bits[BLOCKS_PER_EXTENT / 64];
    uint32_t n = CREDITS_OPEN;

    blocks_under_way(t, i, bits);
    for (uint32_t w = 0; w < ARRAY_SIZE(bits); w++)
        n += (uint32_t)__builtin_popcountll(bits[w]);
    return n;
}

/* Writes under way when a replica is opened again took theirs before. */
static void credits_under_way(struct tenure *t, uint32_t i)
{
    struct member *m = &t->m[i];
    uint64_t bits[BLOCKS_PER_EXTENT / 64];

    blocks_under_way(t, i, bits);
    for (uint32_t b = 0; b < BLOCKS_PER_EXTENT; b++) {
        if (!bit_get(bits, b) || bit_get(m->allocated, b))
            continue;
        m->credits -= m->credits > 0;
        bit_set(m->allocated, b);
    }
}

void credits_opened(struct tenure *t, uint32_t i, const Zbs__Chunk__OpenResult *r)
{
    struct member *m = &t->m[i];

    bitmap_read(m->allocated, &r->allocated);
    bitmap_read(m->shared, &r->shared);
    for (uint32_t w = 0; w < ARRAY_SIZE(m->allocated); w++)
        m->allocated[w] &= ~m->shared[w];
    m->credits = r->credit_blocks;
    credits_under_way(t, i);
    credits_recount(t);
}

static uint32_t blocks_needed(const struct member *m, uint32_t first, uint32_t last)
{
    uint32_t n = 0;

    for (uint32_t b = first; b <= last; b++)
        n += !bit_get(m->allocated, b);
    return n;
}

static int reserve(struct tenure *t, uint32_t i, uint32_t need)
{
    uint32_t asks[] = {need + CREDITS_MORE, need};
    int rc = 0;

    /* Near the end of the space there is no reserve ahead. */
    for (uint32_t k = 0; k < ARRAY_SIZE(asks); k++) {
        Zbs__Chunk__ReserveRequest req = ZBS__CHUNK__RESERVE_REQUEST__INIT;
        struct member_req q = {.method = CHUNK_RESERVE, .msg = &req.base, .pass_nospace = true};
        struct rpc_reply r;

        req.extent_id = t->extent_id;
        req.family = t->family;
        req.epoch = t->epoch;
        req.blocks = asks[k];
        rpc_reply_init(&r);
        rc = member_call(t, i, &q, &r);
        if (rc == 0)
            t->m[i].credits += ((const Zbs__Chunk__ReserveReply *)r.msg)->granted;
        if (rc == 0 && ((const Zbs__Chunk__ReserveReply *)r.msg)->granted == 0)
            rc = err_set(ERR_NOSPACE, "chunk server %u has no space left", t->m[i].chunk->id);
        rpc_reply_free(&r);
        if (rc != ERR_NOSPACE)
            break;
    }
    return rc;
}

/* One replica that lacks credits for these blocks, or -1. One that is leaving counts, too: it may
 * have to stay, and then what was sent to others could never end. Not so while it is replaced. */
static int find_short(struct tenure *t, uint32_t first, uint32_t last, uint32_t *ret_need)
{
    for (uint32_t i = 0; i < t->n; i++) {
        uint32_t need;

        if (!((t->set | t->joining) >> i & 1) || (t->rescuing && t->leaving >> i & 1))
            continue;
        need = blocks_needed(&t->m[i], first, last);
        if (need > t->m[i].credits) {
            *ret_need = need - t->m[i].credits;
            return (int)i;
        }
    }
    return -1;
}

static void credits_take(struct tenure *t, uint32_t first, uint32_t last)
{
    for (uint32_t i = 0; i < t->n; i++) {
        struct member *m = &t->m[i];
        uint32_t need = blocks_needed(m, first, last);

        m->credits -= MIN(need, m->credits);
        for (uint32_t b = first; b <= last; b++)
            bit_set(m->allocated, b);
    }
    for (uint32_t b = first; b <= last; b++)
        bit_set(t->allocated, b);
}

static bool allocated_everywhere(const struct tenure *t, uint32_t first, uint32_t last)
{
    for (uint32_t b = first; b <= last; b++)
        if (!bit_get(t->allocated, b))
            return false;
    return true;
}

int credits_ensure(struct tenure *t, uint32_t off, uint32_t len)
{
    uint32_t first = off / BLOCK_BYTES, last = (off + len - 1) / BLOCK_BYTES;
    uint32_t need = 0;
    int rc;

    if (LIKELY(allocated_everywhere(t, first, last)))
        return 0;
    rc = co_mutex_lock(&t->credit);
    if (rc < 0)
        return rc;
    while (!t->lost) {
        int i = find_short(t, first, last, &need);

        if (i < 0)
            break;
        /* Nothing is lost by waiting: a write is acknowledged only after the removal, too. */
        rc = t->leaving >> i & 1 ? co_cond_wait(&t->changed) : reserve(t, (uint32_t)i, need);
        if (rc == ERR_NOSPACE && (t->joining >> i & 1)) {
            member_give_up_join(t, (uint32_t)i, "no space there");
            continue;
        }
        if (rc < 0 && rc != ERR_NO_REPLICA)
            break;
        rc = 0;
    }
    co_mutex_unlock(&t->credit);
    if (t->lost)
        return ERR_STALE;
    if (rc == 0)
        credits_take(t, first, last);
    return rc;
}

static bool shared_anywhere(const struct tenure *t, uint32_t block)
{
    bool shared = false;

    for (uint32_t i = 0; i < t->n; i++)
        shared |= ((t->set | t->joining) >> i & 1) && bit_get(t->m[i].shared, block);
    return shared;
}

int credits_ensure_edges(struct tenure *t, uint32_t off, uint32_t len)
{
    uint32_t last = off + len - 1;
    int rc = 0;

    if (off % PAGE_BYTES && shared_anywhere(t, off / BLOCK_BYTES))
        rc = credits_ensure(t, off, 1);
    if (rc == 0 && (last + 1) % PAGE_BYTES && shared_anywhere(t, last / BLOCK_BYTES))
        rc = credits_ensure(t, last, 1);
    return rc;
}

void credits_unused(struct tenure *t, uint32_t off, uint32_t len)
{
    for (uint32_t b = off / BLOCK_BYTES; b <= (off + len - 1) / BLOCK_BYTES; b++) {
        bit_clear(t->allocated, b);
        for (uint32_t i = 0; i < t->n; i++)
            bit_clear(t->m[i].allocated, b);
    }
}

void credits_freed(struct tenure *t, uint32_t off, uint32_t len)
{
    uint32_t first = DIV_UP(off, BLOCK_BYTES), end = (off + len) / BLOCK_BYTES;

    for (uint32_t b = first; b < end; b++) {
        bit_clear(t->allocated, b);
        for (uint32_t i = 0; i < t->n; i++) {
            bit_clear(t->m[i].allocated, b);
            bit_clear(t->m[i].shared, b);
        }
    }
}
