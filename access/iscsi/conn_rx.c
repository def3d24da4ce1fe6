/* SPDX-License-Identifier: Apache-2.0
 *
 * Receiving on a connection. What is read ahead of the PDU in hand lands in a small buffer, so
 * that a burst of small commands costs one system call; a large data segment is received in its
 * command's buffer, and then nothing but the next header is read ahead, so that its data can be
 * received in place too. A small segment that came with its header is copied: for less than
 * STREAM_RX_BYTES that is cheaper than a second system call. */
#include <string.h>
#include "access/iscsi/iscsi_int.h"
#include "common/base/crc32c.h"

/* Reads into iov; waits at most until the connection is due for a ping or, during login, for
 * its end. */
static co_fn ssize_t conn_readv(struct iscsi_conn *c, struct iovec *iov, int n)
{
    for (;;) {
        nsec_t until = c->login_deadline;
        if (c->stream.broken != NULL)
            return err_set(ERR_CLOSED, "%s", c->stream.broken);
        if (c->phase != CONN_LOGIN)
            until = co_now() + c->t->conf.ping_ms * NSEC_PER_MSEC;
        nsec_t former = co_deadline_push(until);
        ssize_t got = net_readv(c->stream.net, iov, n);
        co_deadline_restore(former);

        c->stream.burst = 0;
        if (got > 0) {
            c->pinged = false;
            return got;
        }
        ASSERT(got < 0);
        if (got != ERR_TIMEOUT || c->phase == CONN_LOGIN)
            return got;
        if (c->pinged)
            return err_set(ERR_TIMEOUT, "initiator does not answer a NOP-In");
        c->pinged = true;
        struct pdu_out *p = conn_pdu(c, OP_NOP_IN);
        p->bhs[1] = FLAG_FINAL;
        put_be32(p->bhs + 16, TAG_NONE);
        put_be32(p->bhs + 20, (uint32_t)c->stream.id & 0x7fffffff);
        p->statsn = STATSN_NEXT;
        iscsi_conn_send_plain(c, p);
    }
}

/* At least `need` bytes in rx, read-ahead of up to `most`. */
static co_fn int conn_fill(struct iscsi_conn *c, uint32_t need, uint32_t most)
{
    ASSERT(need <= most && most <= STREAM_RX_BYTES);
    if (c->stream.rx_end - c->stream.rx_pos >= need)
        return 0;
    if (c->stream.rx_pos > 0) {
        memmove(c->stream.rx, c->stream.rx + c->stream.rx_pos, c->stream.rx_end - c->stream.rx_pos);
        c->stream.rx_end -= c->stream.rx_pos;
        c->stream.rx_pos = 0;
    }
    while (c->stream.rx_end < need) {
        struct iovec iov = {c->stream.rx + c->stream.rx_end, most - c->stream.rx_end};
        ssize_t got = conn_readv(c, &iov, 1);

        if (got < 0)
            return (int)got;
        c->stream.rx_end += (uint32_t)got;
    }
    return 0;
}

static uint32_t conn_head_bytes(const struct iscsi_conn *c)
{
    return BHS_BYTES + (c->header_digest ? DIGEST_BYTES : 0);
}

/* How far to read ahead of what is needed: to the next header only if data is expected to be
 * received in place. */
static uint32_t conn_ahead(const struct iscsi_conn *c, uint32_t need)
{
    if (c->last_data_len >= STREAM_DIRECT_MIN)
        return need;
    return STREAM_RX_BYTES;
}

/* Bytes straight to dst, behind what was read ahead. `after`: bytes needed next. */
static co_fn int conn_read_bytes(struct iscsi_conn *c, uint8_t *dst, uint32_t len, uint32_t after)
{
    uint32_t n = MIN(len, c->stream.rx_end - c->stream.rx_pos);

    memcpy(dst, c->stream.rx + c->stream.rx_pos, n);
    c->stream.rx_pos += n;
    dst += n;
    len -= n;
    if (len == 0)
        return 0;
    c->stream.rx_pos = c->stream.rx_end = 0;
    while (len > 0) {
        uint32_t ahead = len >= STREAM_DIRECT_MIN || c->last_data_len >= STREAM_DIRECT_MIN
                             ? after + conn_head_bytes(c)
                             : STREAM_RX_BYTES;
        struct iovec iov[2] = {{dst, len}, {c->stream.rx, ahead}};
        ssize_t got = conn_readv(c, iov, 2);

        if (got < 0)
            return (int)got;
        n = MIN((uint32_t)got, len);
        dst += n;
        len -= n;
        c->stream.rx_end = (uint32_t)got - n;
    }
    return 0;
}

co_fn int conn_read_header(struct iscsi_conn *c, struct pdu_in *ret, enum pdu_reject *ret_reason)
{
    uint32_t head = conn_head_bytes(c), ahs;
    int rc;

    rc = stream_turn(&c->stream);
    if (rc < 0)
        return rc;
    rc = conn_fill(c, head, conn_ahead(c, head));
    if (rc < 0)
        return rc;
    if (c->stream.broken != NULL) /* what was read ahead is void */
        return err_set(ERR_CLOSED, "%s", c->stream.broken);
    const uint8_t *bhs = c->stream.rx + c->stream.rx_pos;
    ahs = bhs[4] * 4u;
    if (ahs > 0) {
        rc = conn_fill(c, head + ahs, conn_ahead(c, head + ahs));
        if (rc < 0)
            return rc;
        bhs = c->stream.rx + c->stream.rx_pos;
    }
    if (c->header_digest) {
        if (crc32c(0, bhs, BHS_BYTES + ahs) != get_le32(bhs + BHS_BYTES + ahs))
            return err_set(ERR_PROTO, "header digest does not match");
    }
    rc = pdu_parse(bhs, c->phase == CONN_LOGIN ? 8192 : OUR_MAX_RECV_DATA, ret, ret_reason);
    c->stream.rx_pos += head + ahs;
    return rc;
}

co_fn int conn_read_data(struct iscsi_conn *c, uint8_t *dst, uint32_t len)
{
    uint32_t pad = pdu_pad(len), tail = pad + (c->data_digest ? DIGEST_BYTES : 0);
    int rc;

    c->last_data_len = len;
    if (len == 0)
        return 0;
    if (dst == NULL) {
        struct buf *drop = buf_alloc(len);

        rc = conn_read_data(c, drop->data, len);
        buf_put(drop);
        return rc;
    }
    rc = conn_read_bytes(c, dst, len, tail);
    if (rc < 0 || tail == 0)
        return rc;
    rc = conn_fill(c, tail, conn_ahead(c, tail));
    if (rc < 0)
        return rc;
    if (c->data_digest) {
        const uint8_t *end = c->stream.rx + c->stream.rx_pos;

        if (crc32c(crc32c(0, dst, len), end, pad) != get_le32(end + pad))
            rc = err_set(ERR_CORRUPT, "data digest does not match");
    }
    c->stream.rx_pos += tail;
    return rc;
}
