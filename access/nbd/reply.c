/* SPDX-License-Identifier: Apache-2.0
 *
 * Answers and the writer. The last piece of an answer carries its request, which is freed (with
 * its payload and its place among those in flight) once that has left: a client that does not read
 * its answers stops itself. */
#include <string.h>
#include "access/nbd/nbd_int.h"

#define TX_FREE_MAX  64u /* pieces kept for reuse */
#define TX_IOVS      96  /* of one writev */
#define TEXT_MAX     160u
#define HOLE_BYTES   32768u /* shorter runs of zeroes are sent as data */
#define ERROR_FIXED  6u     /* error number and length of its text */
#define CHUNK_OFFSET 8u
#define HEAD_MAX     (NBD_STRUCTURED_REPLY_BYTES + ERROR_FIXED + TEXT_MAX)

struct piece {
    struct list link; /* first member */
    uint32_t head_len, len;
    const uint8_t *data;      /* in the request's buffer */
    struct nbd_request *ends; /* NULL: more of this answer follows */
    uint8_t head[HEAD_MAX];
};

/* ---- queue ---- */

static struct piece *piece_new(struct nbd_conn *c, uint32_t head_len)
{
    struct piece *p;

    if (list_empty(&c->tx_free)) {
        p = MEM_NEW(struct piece);
    } else {
        p = LIST_ENTRY(list_pop_front(&c->tx_free), struct piece, link);
        c->tx_free_count--;
    }
    list_init(&p->link);
    p->head_len = head_len;
    p->len = 0;
    p->data = NULL;
    p->ends = NULL;
    return p;
}

static void piece_done(struct nbd_conn *c, struct piece *p)
{
    if (p->ends != NULL)
        nbd_request_free(p->ends);
    if (c->tx_free_count < TX_FREE_MAX) {
        c->tx_free_count++;
        list_push_back(&c->tx_free, &p->link);
    } else {
        mem_free(p);
    }
}

static void piece_send(struct nbd_conn *c, struct piece *p)
{
    if (c->tx_ended) {
        piece_done(c, p);
        return;
    }
    list_push_back(&c->tx, &p->link);
    co_cond_signal(&c->tx_wake);
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

/* ---- writer ---- */

/* As much of the queue as one writev takes. */
static co_fn int send_some(struct nbd_conn *c)
{
    struct iovec iov[TX_IOVS];
    struct list out;
    int n = 0, rc;

    list_init(&out);
    while (!list_empty(&c->tx) && n + 2 <= TX_IOVS) {
        struct piece *p = LIST_ENTRY(list_pop_front(&c->tx), struct piece, link);

        iov[n++] = (struct iovec){p->head, p->head_len};
        if (p->len > 0)
            iov[n++] = (struct iovec){(void *)(uintptr_t)p->data, p->len};
        list_push_back(&out, &p->link);
    }
    rc = net_writev_full(c->net, iov, n);
    while (!list_empty(&out))
        piece_done(c, LIST_ENTRY(list_pop_front(&out), struct piece, link));
    return rc;
}

co_fn int nbd_writer_main(void *arg)
{
    struct nbd_conn *c = arg;
    int rc = 0;

    while (rc == 0) {
        if (!list_empty(&c->tx)) {
            rc = send_some(c);
        } else if (c->tx_closing) {
            break;
        } else {
            rc = co_cond_wait(&c->tx_wake);
        }
    }
    c->tx_ended = true;
    while (!list_empty(&c->tx))
        piece_done(c, LIST_ENTRY(list_pop_front(&c->tx), struct piece, link));
    co_cond_broadcast(&c->tx_done);
    if (rc < 0)
        nbd_conn_break(c, "the client takes no answers");
    return 0;
}
