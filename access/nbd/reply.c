/* SPDX-License-Identifier: Apache-2.0
 *
 * Answers. The last piece of an answer carries its request, which is freed (with its payload and
 * its place among those in flight) once that has left. */
#include <string.h>
#include "access/nbd/nbd_int.h"

#define TX_FREE_MAX  64u /* pieces kept for reuse */
#define TEXT_MAX     160u
#define HOLE_BYTES   32768u /* shorter runs of zeroes are sent as data */
#define ERROR_FIXED  6u     /* error number and length of its text */
#define CHUNK_OFFSET 8u
#define HEAD_MAX     (NBD_STRUCTURED_REPLY_BYTES + ERROR_FIXED + TEXT_MAX)

struct piece {
    struct stream_item item; /* first member */
    uint32_t head_len, len;
    const uint8_t *data;      /* in the request's buffer */
    struct nbd_request *ends; /* NULL: more of this answer follows */
    uint8_t head[HEAD_MAX];
};

/* ---- pieces ---- */

static struct piece *piece_new(struct nbd_conn *c, uint32_t head_len)
{
    struct piece *p;

    if (list_empty(&c->tx_free)) {
        p = MEM_NEW(struct piece);
    } else {
        p = LIST_ENTRY(list_pop_front(&c->tx_free), struct piece, item.link);
        c->tx_free_count--;
    }
    p->head_len = head_len;
    p->len = 0;
    p->data = NULL;
    p->ends = NULL;
    return p;
}

int nbd_reply_pieces(struct stream_conn *stream, struct stream_item *item, struct iovec *iov)
{
    struct piece *p = CONTAINER_OF(item, struct piece, item);

    (void)stream;
    iov[0] = (struct iovec){p->head, p->head_len};
    iov[1] = (struct iovec){(void *)(uintptr_t)p->data, p->len};
    return p->len > 0 ? 2 : 1;
}

void nbd_reply_sent(struct stream_conn *stream, struct stream_item *item)
{
    struct nbd_conn *c = CONTAINER_OF(stream, struct nbd_conn, stream);
    struct piece *p = CONTAINER_OF(item, struct piece, item);

    if (p->ends != NULL)
        nbd_request_free(p->ends);
    if (c->tx_free_count < TX_FREE_MAX) {
        c->tx_free_count++;
        list_push_back(&c->tx_free, &p->item.link);
    } else {
        mem_free(p);
    }
}

static void piece_send(struct nbd_conn *c, struct piece *p)
{
    stream_queue(&c->stream, &p->item);
}

/* ---- answers ---- */

static void simple_reply(struct nbd_request *q, uint32_t error, uint32_t len)
{
    struct piece *p = piece_new(q->c, NBD_SIMPLE_REPLY_BYTES);

    put_be32(p->head, NBD_SIMPLE_REPLY_MAGIC);
    put_be32(p->head + 4, error);
    put_be64(p->head + 8, q->cookie);
    p->data = len > 0 ? q->buf->data : NULL;
    p->len = len;
    p->ends = q;
    piece_send(q->c, p);
}

/* A chunk with `fixed` bytes of its payload in the head, to be filled in, and `more` to come. */
static struct piece *chunk_new(struct nbd_request *q, enum nbd_reply_type type, uint32_t fixed,
                               uint32_t more, bool last)
{
    struct piece *p = piece_new(q->c, NBD_STRUCTURED_REPLY_BYTES + fixed);

    put_be32(p->head, NBD_STRUCTURED_REPLY_MAGIC);
    put_be16(p->head + 4, last ? NBD_REPLY_FLAG_DONE : 0);
    put_be16(p->head + 6, (uint16_t)type);
    put_be64(p->head + 8, q->cookie);
    put_be32(p->head + 16, fixed + more);
    p->ends = last ? q : NULL;
    return p;
}

void nbd_reply_done(struct nbd_request *q)
{
    simple_reply(q, 0, 0);
}

void nbd_reply_error(struct nbd_request *q, uint32_t error, const char *text)
{
    uint32_t len = (uint32_t)strnlen(text, TEXT_MAX);

    if (!q->c->structured || (q->type != NBD_CMD_READ && q->type != NBD_CMD_BLOCK_STATUS)) {
        simple_reply(q, error, 0);
        return;
    }
    struct piece *p = chunk_new(q, NBD_REPLY_TYPE_ERROR, ERROR_FIXED + len, 0, true);
    uint8_t *payload = p->head + NBD_STRUCTURED_REPLY_BYTES;
    put_be32(payload, error);
    put_be16(payload + 4, (uint16_t)len);
    memcpy(payload + ERROR_FIXED, text, len);
    piece_send(q->c, p);
}

static void send_data(struct nbd_request *q, uint32_t at, uint32_t len)
{
    bool last = at + len == q->len;
    struct piece *p = chunk_new(q, NBD_REPLY_TYPE_OFFSET_DATA, CHUNK_OFFSET, len, last);

    put_be64(p->head + NBD_STRUCTURED_REPLY_BYTES, q->off + at);
    p->data = q->buf->data + at;
    p->len = len;
    piece_send(q->c, p);
}

static void send_hole(struct nbd_request *q, uint32_t at, uint32_t len)
{
    bool last = at + len == q->len;
    struct piece *p = chunk_new(q, NBD_REPLY_TYPE_OFFSET_HOLE, CHUNK_OFFSET + 4, 0, last);

    put_be64(p->head + NBD_STRUCTURED_REPLY_BYTES, q->off + at);
    put_be32(p->head + NBD_STRUCTURED_REPLY_BYTES + CHUNK_OFFSET, len);
    piece_send(q->c, p);
}

/* How far it is zeroes (or not) from `at` on, looked at in steps. */
static uint32_t run_of(const struct nbd_request *q, uint32_t at, bool *ret_zero)
{
    uint32_t end = at;

    while (end < q->len) {
        uint32_t n = MIN(HOLE_BYTES, q->len - end);
        bool zero = mem_is_zero(q->buf->data + end, n);

        if (end == at)
            *ret_zero = zero;
        if (zero != *ret_zero)
            break;
        end += n;
    }
    return end - at;
}

/* Finding zeroes costs nothing where there are none: the first byte that differs ends the look. */
void nbd_reply_read(struct nbd_request *q)
{
    uint32_t len = q->len;

    if (!q->c->structured) {
        simple_reply(q, 0, len);
    } else if (len == 0) {
        piece_send(q->c, chunk_new(q, NBD_REPLY_TYPE_NONE, 0, 0, true));
    } else if (q->flags & NBD_CMD_FLAG_DF) {
        send_data(q, 0, len);
    } else {
        for (uint32_t at = 0, n; at < len; at += n) { /* q is gone after the last piece */
            bool zero = false;

            n = run_of(q, at, &zero);
            if (zero)
                send_hole(q, at, n);
            else
                send_data(q, at, n);
        }
    }
}

void nbd_reply_status(struct nbd_request *q, uint32_t count)
{
    struct piece *p = chunk_new(q, NBD_REPLY_TYPE_BLOCK_STATUS, 4, count * 8, true);

    put_be32(p->head + NBD_STRUCTURED_REPLY_BYTES, NBD_CONTEXT_ID);
    p->data = q->buf->data;
    p->len = count * 8;
    piece_send(q->c, p);
}
