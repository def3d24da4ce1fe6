/* SPDX-License-Identifier: Apache-2.0
 *
 * Executing requests, and what an error of the back end means to a client. */
#include <string.h>
#include "access/nbd/nbd_int.h"

/* ---- errors ---- */

/* NBD has no status for "not now" or "perhaps": what is neither done nor refused for good ends the
 * connection, and the client sends it again over its next one. So does a write whose outcome is
 * not known. */
static const struct {
    int rc;
    uint32_t error;
} error_rows[] = {
    {ERR_NOSPACE, NBD_ENOSPC},   {ERR_PERM, NBD_EPERM},   {ERR_RESERVED, NBD_EPERM},
    {ERR_TOO_LARGE, NBD_ENOSPC},                          /* the volume shrank, or was cut short */
    {ERR_INVAL, NBD_EINVAL},     {ERR_NOTFOUND, NBD_EIO}, /* deleted */
    {ERR_IO, NBD_EIO},           {ERR_CORRUPT, NBD_EIO},  {ERR_NO_REPLICA, NBD_EIO},
};

static void request_failed(struct nbd_request *q, int rc)
{
    bool changes =
        q->type != NBD_CMD_READ && q->type != NBD_CMD_BLOCK_STATUS && q->type != NBD_CMD_FLUSH;
    uint32_t error = 0;

    for (size_t i = 0; i < ARRAY_SIZE(error_rows); i++) {
        if (error_rows[i].rc == rc)
            error = error_rows[i].error;
    }
    if (rc == ERR_HALTED && !changes)
        error = NBD_ESHUTDOWN;
    if (rc == ERR_TOO_LARGE && !changes)
        error = NBD_EINVAL;
    if (error != 0) {
        nbd_reply_error(q, error, err_text(rc));
        return;
    }
    if (q->c->stream.broken == NULL)
        log_warn("nbd.unanswered", "conn=%llu export=%s command=%u offset=%llu len=%u why=\"%s\"",
                 (unsigned long long)q->c->stream.id, q->c->name, q->type,
                 (unsigned long long)q->off, q->len, err_text(rc));
    stream_break(&q->c->stream, "a request's outcome is not known");
    nbd_request_free(q);
}

/* ---- commands ---- */

/* Zeroes that keep their space are written like any other data. */
static co_fn int write_zero_data(struct nbd_request *q)
{
    struct block_backend *b = q->c->backend;
    int rc = 0;

    memset(q->buf->data, 0, MIN(q->len, NBD_ZERO_STEP));
    for (uint32_t at = 0, n; at < q->len && rc == 0; at += n) {
        n = MIN(q->len - at, NBD_ZERO_STEP);
        rc = q->c->stream.broken != NULL ? err_set(ERR_CLOSED, "%s", q->c->stream.broken)
                                         : b->ops->write(b, q->off + at, n, q->buf, 0);
    }
    return rc;
}

static co_fn int write_zeroes(struct nbd_request *q)
{
    struct block_backend *b = q->c->backend;

    return q->flags & NBD_CMD_FLAG_NO_HOLE ? write_zero_data(q) : b->ops->zero(b, q->off, q->len);
}

/* A write that waited too long somewhere may have been sent again over another connection, and
 * overwritten since: the engine is asked first (README.md). */
static co_fn int change(struct nbd_request *q)
{
    struct block_backend *b = q->c->backend;
    int rc = b->ops->confirm != NULL ? b->ops->confirm(b) : 0;

    if (rc == 0 && q->c->stream.broken != NULL)
        rc = err_set(ERR_CLOSED, "%s", q->c->stream.broken);
    if (rc < 0 || q->len == 0)
        return rc;
    if (q->type == NBD_CMD_WRITE)
        return b->ops->write(b, q->off, q->len, q->buf, 0);
    if (q->type == NBD_CMD_TRIM)
        return b->ops->discard(b, q->off, q->len);
    return write_zeroes(q);
}

static co_fn int block_status(struct nbd_request *q, uint32_t *ret_count)
{
    struct block_backend *b = q->c->backend;
    uint32_t most = q->flags & NBD_CMD_FLAG_REQ_ONE ? 1 : NBD_EXTENTS_MAX, n = 0;

    q->buf = buf_alloc(NBD_EXTENTS_MAX * 8);
    for (uint64_t at = 0, len; at < q->len && n < most; at += len, n++) {
        bool hole;
        int rc = b->ops->hole(b, q->off + at, q->len - at, &hole, &len);

        if (rc < 0)
            return rc;
        put_be32(q->buf->data + n * 8, (uint32_t)len);
        put_be32(q->buf->data + n * 8 + 4, hole ? NBD_STATE_HOLE | NBD_STATE_ZERO : 0);
    }
    *ret_count = n;
    return 0;
}

static co_fn int execute(struct nbd_request *q, uint32_t *ret_count)
{
    struct block_backend *b = q->c->backend;

    switch (q->type) {
    case NBD_CMD_READ:
        return q->len > 0 ? b->ops->read(b, q->off, q->len, q->buf, 0) : 0;
    case NBD_CMD_FLUSH: /* every acknowledged write is durable: asks for the volume's health */
        return b->ops->flush(b);
    case NBD_CMD_CACHE: /* there is no cache to fill */
        return 0;
    case NBD_CMD_BLOCK_STATUS:
        return block_status(q, ret_count);
    default:
        return change(q);
    }
}

co_fn int nbd_request_main(void *arg)
{
    struct nbd_request *q = arg;
    uint32_t count = 0;
    int rc;

    if ((q->flags & NBD_CMD_FLAG_FAST_ZERO) && (q->flags & NBD_CMD_FLAG_NO_HOLE)) {
        nbd_reply_error(q, NBD_ENOTSUP, "zeroes that keep their space are not fast");
        return 0;
    }
    rc = execute(q, &count);
    if (rc < 0)
        request_failed(q, rc);
    else if (q->type == NBD_CMD_READ)
        nbd_reply_read(q);
    else if (q->type == NBD_CMD_BLOCK_STATUS)
        nbd_reply_status(q, count);
    else
        nbd_reply_done(q);
    return 0;
}
