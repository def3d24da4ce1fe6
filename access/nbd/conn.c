/* SPDX-License-Identifier: Apache-2.0
 *
 * A connection from its first byte to its last, and receiving on it. What is read ahead lands in a
 * small buffer, so that a burst of small requests costs one system call. After a long payload
 * nothing but the next header is read ahead, so that the payload behind it is received in place. */
#include <string.h>
#include "access/nbd/nbd_int.h"

void nbd_conn_break(struct nbd_conn *c, const char *why)
{
    if (c->broken != NULL)
        return;
    c->broken = why;
    net_shutdown(c->net);
    /* What was not sent to a chunk server yet must not be: the client will send it again. */
    co_group_cancel(&c->requests);
}

/* ---- receiving ---- */

/* Reads at least one byte into dst (of len), and what follows into rx, which is empty. */
static co_fn int read_some(struct nbd_conn *c, uint8_t *dst, uint32_t len, bool payload)
{
    bool streaming = len >= NBD_DIRECT_BYTES || c->last_payload >= NBD_DIRECT_BYTES;
    uint32_t ahead = !streaming ? NBD_RX_BYTES : payload ? NBD_REQUEST_BYTES : 0;
    struct iovec iov[2] = {{dst, len}, {c->rx, ahead}};
    ssize_t got;

    ASSERT(c->rx_pos == c->rx_end);
    got = net_readv(c->net, iov, ahead > 0 ? 2 : 1);
    if (got < 0)
        return (int)got;
    c->burst = 0;
    c->rx_pos = 0;
    c->rx_end = (uint32_t)got > len ? (uint32_t)got - len : 0;
    return (int)MIN((uint32_t)got, len);
}

static co_fn int read_drop(struct nbd_conn *c, uint32_t len)
{
    struct buf *b = buf_alloc(NBD_RX_BYTES);
    int rc = 0;

    for (uint32_t n; len > 0 && rc == 0; len -= n) {
        n = MIN(len, NBD_RX_BYTES);
        rc = nbd_read(c, b->data, n, len == n);
    }
    buf_put(b);
    return rc;
}

co_fn int nbd_read(struct nbd_conn *c, void *dst, uint32_t len, bool payload)
{
    uint32_t done = MIN(len, c->rx_end - c->rx_pos);

    if (dst == NULL)
        return read_drop(c, len);
    memcpy(dst, c->rx + c->rx_pos, done);
    c->rx_pos += done;
    while (done < len) {
        int n = read_some(c, (uint8_t *)dst + done, len - done, payload);

        if (n < 0)
            return n;
        done += (uint32_t)n;
    }
    if (payload)
        c->last_payload = len;
    /* What was read ahead is void once the connection is broken. */
    return c->broken != NULL ? err_set(ERR_CLOSED, "%s", c->broken) : 0;
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
    log_info("nbd.open", "conn=%llu address=%s export=%s", (unsigned long long)c->id,
             net_peer(c->net), c->name);
    co_spawn_detached_deadline(&c->writer, "nbd-writer", nbd_writer_main, c);
    int rc = nbd_serve(c);
    if (c->broken != NULL)
        rc = err_set(ERR_CLOSED, "%s", c->broken);
    log_info("nbd.closed", "conn=%llu address=%s export=%s why=\"%s\"", (unsigned long long)c->id,
             net_peer(c->net), c->name, rc < 0 ? err_text(rc) : "the client disconnected");
    return rc;
}

/* Requests are waited for, answers leave if the client takes them. rc: of the reader. */
static co_fn void wind_up(struct nbd_conn *c, int rc)
{
    c->ending = true;
    if (rc < 0 && rc != ERR_CANCELED)
        nbd_conn_break(c, "the reader ended");
    co_group_join(&c->requests);
    c->tx_closing = true;
    co_cond_signal(&c->tx_wake);
    nsec_t former = co_deadline_push(co_now() + 2 * NSEC_PER_SEC);
    while (c->writer.count > 0 && !c->tx_ended && co_cond_wait(&c->tx_done) == 0)
        ;
    co_deadline_restore(former);
    nbd_conn_break(c, "the connection ends");
    co_group_join(&c->writer);
}

co_fn int nbd_conn_main(void *arg)
{
    struct nbd_conn *c = arg;
    struct nbd_server *s = c->s;
    struct co_shield shield;
    int rc = negotiate(c);

    if (rc == 0)
        rc = transmit(c);
    else if (rc != ERR_CLOSED && rc != ERR_CANCELED)
        log_info("nbd.refused", "address=%s why=\"%s\"", net_peer(c->net), err_text(rc));
    co_shield_begin(&shield);
    wind_up(c, rc);
    if (c->backend != NULL)
        c->backend->ops->close(c->backend);
    co_shield_end(&shield);
    ASSERT(list_empty(&c->tx));
    while (!list_empty(&c->tx_free))
        mem_free(list_pop_front(&c->tx_free)); /* link is an answer's first member */
    net_close(c->net);
    mem_free(c->rx);
    list_del(&c->link);
    mem_free(c);
    s->conn_count--;
    co_cond_broadcast(&s->conn_gone);
    return 0;
}
