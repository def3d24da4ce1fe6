/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests from their header to their coroutine. The reader takes a place among the requests in
 * flight and memory for the payload before it goes on, so a client that asks for too much waits in
 * its socket. */
#include <string.h>
#include "access/nbd/nbd_int.h"

void nbd_request_free(struct nbd_request *q)
{
    struct nbd_conn *c = q->c;

    buf_put(q->buf);
    if (q->held > 0)
        co_sem_release(&c->memory, q->held);
    mem_free(q);
    co_sem_release(&c->slots, 1);
}

/* ---- judging ---- */

static uint16_t legal_flags(const struct nbd_request *q)
{
    switch (q->type) {
    case NBD_CMD_READ:
        return NBD_CMD_FLAG_FUA | (q->c->structured ? NBD_CMD_FLAG_DF : 0);
    case NBD_CMD_WRITE_ZEROES:
        return NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO;
    case NBD_CMD_BLOCK_STATUS:
        return NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_REQ_ONE;
    default:
        return NBD_CMD_FLAG_FUA;
    }
}

static bool changes_data(const struct nbd_request *q)
{
    return q->type == NBD_CMD_WRITE || q->type == NBD_CMD_TRIM || q->type == NBD_CMD_WRITE_ZEROES;
}

uint32_t nbd_request_check(const struct nbd_request *q)
{
    uint64_t size = nbd_export_size(q->c);

    if (q->type > NBD_CMD_BLOCK_STATUS || (q->flags & ~legal_flags(q)))
        return NBD_EINVAL;
    if (q->type == NBD_CMD_FLUSH)
        return q->off == 0 && q->len == 0 ? 0 : NBD_EINVAL;
    if (q->off > size || q->len > size - q->off)
        return changes_data(q) ? NBD_ENOSPC : NBD_EINVAL;
    if ((q->off | q->len) % NBD_BLOCK_MIN != 0)
        return NBD_EINVAL;
    if (q->type == NBD_CMD_READ && q->len > NBD_PAYLOAD_MAX)
        return NBD_EOVERFLOW;
    if (q->type == NBD_CMD_BLOCK_STATUS && (!q->c->context || q->len == 0))
        return NBD_EINVAL;
    return 0;
}

/* ---- receiving ---- */

static uint32_t buffer_bytes(const struct nbd_request *q)
{
    if (q->type == NBD_CMD_READ || q->type == NBD_CMD_WRITE)
        return ROUND_UP(q->len, BUF_ALIGN);
    if (q->type == NBD_CMD_WRITE_ZEROES && (q->flags & NBD_CMD_FLAG_NO_HOLE))
        return ROUND_UP(MIN(q->len, NBD_ZERO_STEP), BUF_ALIGN);
    return 0;
}

static co_fn int request_memory(struct nbd_request *q)
{
    uint32_t bytes = buffer_bytes(q);
    int rc = bytes > 0 ? co_sem_acquire(&q->c->memory, bytes) : 0;

    if (rc < 0 || bytes == 0)
        return rc;
    q->held = bytes;
    q->buf = buf_alloc(bytes);
    return 0;
}

/* Starts it, or answers what is wrong with it. Owns q. */
static co_fn int request_begin(struct nbd_request *q)
{
    struct nbd_conn *c = q->c;
    uint32_t error = nbd_request_check(q);
    int rc = 0;

    if (error == 0)
        rc = request_memory(q);
    if (rc == 0 && q->type == NBD_CMD_WRITE && q->len > 0)
        rc = nbd_read(c, q->buf != NULL ? q->buf->data : NULL, q->len, true);
    if (rc < 0)
        nbd_request_free(q);
    else if (error != 0)
        nbd_reply_error(q, error, "the request is not valid for this export");
    else
        co_spawn_detached_deadline(&c->requests, "nbd-request", nbd_request_main, q);
    return rc;
}

static co_fn int read_header(struct nbd_conn *c, uint8_t *head)
{
    int rc = stream_turn(&c->stream);

    if (rc == 0)
        rc = nbd_read(c, head, NBD_REQUEST_BYTES, false);
    if (rc < 0)
        return rc;
    if (get_be32(head) != NBD_REQUEST_MAGIC)
        return err_set(ERR_PROTO, "a request without its magic number");
    return 0;
}

co_fn int nbd_serve(struct nbd_conn *c)
{
    uint8_t head[NBD_REQUEST_BYTES];

    for (;;) {
        struct nbd_request *q;
        int rc = read_header(c, head);

        if (rc < 0)
            return rc;
        if (get_be16(head + 6) == NBD_CMD_DISC)
            return 0;
        if (get_be16(head + 6) == NBD_CMD_WRITE && get_be32(head + 24) > NBD_PAYLOAD_MAX)
            return err_set(ERR_PROTO, "a write of %u bytes", get_be32(head + 24));
        rc = co_sem_acquire(&c->slots, 1);
        if (rc < 0)
            return rc;
        q = MEM_NEW(struct nbd_request);
        q->c = c;
        q->flags = get_be16(head + 4);
        q->type = get_be16(head + 6);
        q->cookie = get_be64(head + 8);
        q->off = get_be64(head + 16);
        q->len = get_be32(head + 24);
        if (q->type != NBD_CMD_WRITE)
            c->last_payload = 0;
        rc = request_begin(q);
        if (rc < 0)
            return rc;
    }
}
