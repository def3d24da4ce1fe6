/* SPDX-License-Identifier: Apache-2.0
 *
 * A connection from its first byte to its last, and receiving on it. After a long payload nothing
 * but the next header is read ahead, so that the payload behind it is received in place. */
#include "access/nbd/nbd_int.h"

#define DROP_BYTES 16384u

void nbd_conn_init(struct stream_conn *stream)
{
    struct nbd_conn *c = CONTAINER_OF(stream, struct nbd_conn, stream);

    c->s = CONTAINER_OF(stream->server, struct nbd_server, stream);
    co_group_init(&c->requests);
    co_sem_init(&c->slots, c->s->conf.requests);
    co_sem_init(&c->memory, c->s->conf.memory_bytes);
    list_init(&c->tx_free);
}

void nbd_conn_broken(struct stream_conn *stream)
{
    struct nbd_conn *c = CONTAINER_OF(stream, struct nbd_conn, stream);

    /* What was not sent to a chunk server yet must not be: the client will send it again. */
    co_group_cancel(&c->requests);
}

/* ---- receiving ---- */

static co_fn int read_drop(struct nbd_conn *c, uint32_t len)
{
    struct buf *b = buf_alloc(DROP_BYTES);
    int rc = 0;

    for (uint32_t n; len > 0 && rc == 0; len -= n) {
        n = MIN(len, DROP_BYTES);
        rc = nbd_read(c, b->data, n, len == n);
    }
    buf_put(b);
    return rc;
}

co_fn int nbd_read(struct nbd_conn *c, void *dst, uint32_t len, bool payload)
{
    bool streaming = c->last_payload >= STREAM_DIRECT_MIN;

    if (dst == NULL)
        return read_drop(c, len);
    if (payload)
        c->last_payload = len;
    return stream_read(&c->stream, dst, len, streaming, payload ? NBD_REQUEST_BYTES : 0);
}

/* ---- life ---- */

static co_fn int negotiate(struct nbd_conn *c)
{
    nsec_t limit = c->s->conf.handshake_timeout_ms * NSEC_PER_MSEC;
    nsec_t former = co_deadline_push(co_now() + limit);
    int rc = nbd_handshake(c);

    co_deadline_restore(former);
    return rc;
}

static co_fn int transmit(struct nbd_conn *c)
{
    struct stream_conn *stream = &c->stream;
    int rc;

    log_info("nbd.open", "conn=%llu address=%s export=%s tls=%s", (unsigned long long)stream->id,
             net_peer(stream->net), c->name, c->tls ? net_tls_version(stream->net) : "no");
    stream_sender_start(stream);
    rc = nbd_serve(c);
    if (stream->broken != NULL)
        rc = err_set(ERR_CLOSED, "%s", stream->broken);
    log_info("nbd.closed", "conn=%llu address=%s export=%s why=\"%s\"",
             (unsigned long long)stream->id, net_peer(stream->net), c->name,
             rc < 0 ? err_text(rc) : "the client disconnected");
    return rc;
}

/* Requests are waited for, answers leave if the client takes them. rc: of the reader. */
static co_fn void wind_up(struct nbd_conn *c, int rc)
{
    c->ending = true;
    if (rc < 0 && rc != ERR_CANCELED)
        stream_break(&c->stream, "the reader ended");
    co_group_join(&c->requests);
    stream_sender_end(&c->stream);
}

co_fn void nbd_conn_serve(struct stream_conn *stream)
{
    struct nbd_conn *c = CONTAINER_OF(stream, struct nbd_conn, stream);
    struct co_shield shield;
    int rc = negotiate(c);

    if (rc == 0)
        rc = transmit(c);
    else if (rc != ERR_CLOSED && rc != ERR_CANCELED)
        log_info("nbd.refused", "address=%s why=\"%s\"", net_peer(stream->net), err_text(rc));
    co_shield_begin(&shield);
    wind_up(c, rc);
    nbd_export_close(c);
    co_shield_end(&shield);
    while (!list_empty(&c->tx_free))
        mem_free(list_pop_front(&c->tx_free)); /* link is an answer's first member */
}
