/* SPDX-License-Identifier: Apache-2.0
 *
 * Fuzzes what is read from memory that a peer shares: the positions in a ring, which it may set to
 * anything between any two steps of ours, and the slots that a request names. The first byte
 * chooses:
 *   0  steps of a reader and a writer of a ring, and words of it overwritten
 *   1  headers of requests, whose payloads and rooms are then used
 * Nothing outside the memory may be touched (the sanitizer knows its size), and what is said to
 * have been moved was asked for. */
#include <string.h>
#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/env/ring.h"
#include "common/rpc/conn.h"
#include "tests/lib/fuzz.h"

#define CHECK(x) ASSERTF(x, "seen here")

/* ---- a ring ---- */

#define MOVE_BYTES_MAX 70000u

/* A read or a write of two pieces. */
static void ring_move(struct fuzz_input *in, struct ring *side, bool reader)
{
    uint32_t len = fuzz_uint(in, 3) % MOVE_BYTES_MAX, first = len > 0 ? fuzz_uint(in, 3) % len : 0;
    uint8_t *bytes = mem_alloc(len + 1);
    struct iovec iov[2] = {{bytes, first}, {bytes + first, len - first}};
    uint32_t before = side->pos;
    bool ring;
    ssize_t n;

    memset(bytes, 0x5a, len + 1);
    n = reader ? ring_read(side, iov, 2, &ring) : ring_write(side, iov, 2, &ring);
    CHECK(n == ERR_PROTO || (n >= 0 && n <= (ssize_t)MIN(len, RING_BYTES)));
    CHECK(side->pos - before == (uint32_t)MAX(n, 0));
    CHECK(!ring || n > 0);
    CHECK(bytes[len] == 0x5a);
    mem_free(bytes);
}

static void fuzz_ring(struct fuzz_input *in)
{
    struct ring_mem *mem = MEM_NEW(struct ring_mem);
    struct ring w = {mem, 0}, r = {mem, 0};

    while (in->size > 0) {
        switch (fuzz_u8(in) % 7) {
        case 0:
            atomic_store(&mem->tail, fuzz_uint(in, 4));
            break;
        case 1:
            atomic_store(&mem->head, fuzz_uint(in, 4));
            break;
        case 2: /* near what is possible */
            atomic_store(&mem->tail, r.pos + RING_BYTES - 2 + fuzz_u8(in) % 5);
            break;
        case 3:
            CHECK(ring_reader_sleeps(&r) == !ring_readable(&r));
            break;
        case 4:
            CHECK(ring_writer_sleeps(&w) == !ring_writable(&w));
            break;
        case 5:
            ring_move(in, &r, true);
            break;
        default:
            ring_move(in, &w, false);
            break;
        }
    }
    mem_free(mem);
}

/* ---- slots ---- */

#define ARENA_PAGES 4u

static void slots_use(const struct rpc_conn *c, const struct frame_header *h, uint32_t shared_min)
{
    struct buf *room = slot_room(c, h), *payload = NULL;

    if (h->flags & FRAME_F_SLOT) {
        payload = slot_payload(c, h, shared_min);
        CHECK(payload->cap >= h->payload_len);
        CHECK(mem_is_zero(payload->data, h->payload_len) >= 0);
    }
    if (room != NULL) {
        struct rpc_payload out = {.count = 0};
        struct buf *b = buf_alloc(h->reply_cap);

        memset(b->data, 1, h->reply_cap);
        rpc_payload_add(&out, b, 0, h->reply_cap / 2);
        rpc_payload_add(&out, b, h->reply_cap / 2, h->reply_cap - h->reply_cap / 2);
        buf_put(b);
        slot_fill(room, &out);
        CHECK(out.count == 0);
    }
    buf_put(payload);
    buf_put(room);
}

static void fuzz_slots(struct fuzz_input *in)
{
    struct rpc_conn c = {
        .arena = {mem_alloc_aligned(BUF_ALIGN, ARENA_PAGES * BUF_ALIGN), ARENA_PAGES * BUF_ALIGN}};

    memset(c.arena.base, 0, c.arena.bytes);
    while (in->size > 0) {
        uint8_t bytes[FRAME_HEADER_BYTES];
        struct frame_header h = {.version = 1, .kind = FRAME_REQUEST, .service = 1}, back;
        uint8_t how = fuzz_u8(in);
        size_t wide = how & 1 ? 4 : 2; /* mostly inside, or anything */

        h.flags = how & (FRAME_F_SLOT | FRAME_F_ROOM);
        h.payload_at = h.flags & FRAME_F_SLOT ? fuzz_uint(in, wide) : 0;
        h.payload_len = fuzz_uint(in, wide);
        if (h.flags & FRAME_F_ROOM) {
            h.reply_at = fuzz_uint(in, wide) & (how & 16 ? UINT32_MAX : ~(BUF_ALIGN - 1));
            h.reply_cap = fuzz_uint(in, wide);
        }
        frame_header_encode(bytes, &h);
        if (frame_header_parse(bytes, &back) == 0 && slot_check(&c, &back) == 0)
            slots_use(&c, &back, how & 32 ? 1 : 0);
    }
    mem_free(c.arena.base);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in;

    if (!fuzz_begin(&in, data, size, 2))
        return 0;
    if (in.mode == 0)
        fuzz_ring(&in);
    else
        fuzz_slots(&in);
    return 0;
}
