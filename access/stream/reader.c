/* SPDX-License-Identifier: Apache-2.0
 *
 * Receiving on a connection. What is read ahead lands in a small buffer. */
#include <string.h>
#include "access/stream/stream.h"
#include "common/base/assert.h"

#define BURST_MAX 64u /* turns before others get theirs */

co_fn int stream_turn(struct stream_conn *c)
{
    if (++c->burst < BURST_MAX)
        return 0;
    c->burst = 0;
    return co_yield ();
}

/* Reads at least one byte into dst (of len), and what follows into rx, which is empty. */
static co_fn int read_some(struct stream_conn *c, uint8_t *dst, uint32_t len, uint32_t ahead)
{
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

co_fn int stream_read(struct stream_conn *c, void *dst, uint32_t len, bool streaming,
                      uint32_t ahead)
{
    uint32_t done = MIN(len, c->rx_end - c->rx_pos);

    memcpy(dst, c->rx + c->rx_pos, done);
    c->rx_pos += done;
    while (done < len) {
        bool direct = streaming || len - done >= STREAM_DIRECT_MIN;
        int n = read_some(c, (uint8_t *)dst + done, len - done, direct ? ahead : STREAM_RX_BYTES);

        if (n < 0)
            return n;
        done += (uint32_t)n;
    }
    /* What was read ahead is void once the connection is broken. */
    return c->broken != NULL ? err_set(ERR_CLOSED, "%s", c->broken) : 0;
}
