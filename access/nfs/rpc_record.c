/* SPDX-License-Identifier: Apache-2.0
 *
 * ONC RPC: records out of a stream (RFC 5531, 11): fragments, each behind a mark that has its
 * length and says whether it is the record's last. What is read ahead lands in a small buffer, so
 * that a burst of small calls costs one system call; behind long bulk data only the next mark and
 * header are read ahead, so that the bulk data after them is received in place. */
#include "access/nfs/rpc_int.h"

#define BURST_MAX  64u /* fragments before others get a turn */
#define RECORD_MAX (ONC_RECORD_BYTES + ONC_BULK_BYTES)

/* ---- the stream ---- */

/* Reads at least one byte into dst (of len), and what follows into rx, which is empty. */
static co_fn int read_some(struct onc_conn *c, uint8_t *dst, uint32_t len)
{
    bool streaming = len >= ONC_DIRECT_BYTES || c->last_bulk >= ONC_DIRECT_BYTES;
    struct iovec iov[2] = {{dst, len}, {c->rx, streaming ? ONC_MARK_BYTES : ONC_RX_BYTES}};
    ssize_t got;

    ASSERT(c->rx_pos == c->rx_end);
    got = net_readv(c->net, iov, 2);
    if (got < 0)
        return (int)got;
    c->burst = 0;
    c->rx_pos = 0;
    c->rx_end = (uint32_t)got > len ? (uint32_t)got - len : 0;
    return (int)MIN((uint32_t)got, len);
}

static co_fn int stream_read(struct onc_conn *c, uint8_t *dst, uint32_t len)
{
    uint32_t done = MIN(len, c->rx_end - c->rx_pos);

    memcpy(dst, c->rx + c->rx_pos, done);
    c->rx_pos += done;
    while (done < len) {
        int n = read_some(c, dst + done, len - done);

        if (n < 0)
            return n;
        done += (uint32_t)n;
    }
    /* What was read ahead is void once the connection is broken. */
    return c->broken != NULL ? err_set(ERR_CLOSED, "%s", c->broken) : 0;
}

/* ---- records ---- */

static co_fn int fragment_begin(struct onc_conn *c)
{
    uint8_t mark[ONC_MARK_BYTES];
    int rc = 0;

    if (++c->burst >= BURST_MAX) { /* a flood of input may not hold the loop */
        c->burst = 0;
        rc = co_yield ();
    }
    if (rc == 0)
        rc = stream_read(c, mark, sizeof(mark));
    if (rc < 0)
        return rc;
    c->last = get_be32(mark) & ONC_LAST;
    c->fragment = get_be32(mark) & ~ONC_LAST;
    if (c->fragment > RECORD_MAX - c->record)
        return err_set(ERR_PROTO, "a record of more than %u bytes", RECORD_MAX);
    c->record += c->fragment;
    return 0;
}

co_fn int onc_record_begin(struct onc_conn *c)
{
    c->record = 0;
    return fragment_begin(c);
}

co_fn int onc_record_read(struct onc_conn *c, void *dst, uint32_t len, uint32_t *ret)
{
    uint32_t done = 0;
    int rc = 0;

    while (done < len && rc == 0) {
        uint32_t n = MIN(len - done, c->fragment);

        if (n == 0 && c->last)
            break;
        if (n == 0) {
            rc = fragment_begin(c);
            continue;
        }
        rc = stream_read(c, (uint8_t *)dst + done, n);
        c->fragment -= n;
        done += n;
    }
    *ret = done;
    return rc;
}

bool onc_record_ended(const struct onc_conn *c)
{
    return c->last && c->fragment == 0;
}

co_fn int onc_record_skip(struct onc_conn *c)
{
    uint8_t waste[512];
    uint32_t got;
    int rc;

    do {
        rc = onc_record_read(c, waste, sizeof(waste), &got);
    } while (rc == 0 && got == sizeof(waste));
    return rc;
}
