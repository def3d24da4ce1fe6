/* SPDX-License-Identifier: Apache-2.0
 *
 * The stream under a client or session: receive buffer, send queue, breaking. */
#include <string.h>
#include "common/base/assert.h"
#include "common/base/crc32c.h"
#include "common/base/mem.h"
#include "common/rpc/conn.h"

#define CONN_IOV_MAX 1024 /* entries of one writev */

void conn_init(struct rpc_conn *c, struct net_conn *net)
{
    *c = (struct rpc_conn){.net = net};
    c->rx_cap = CONN_RX_BYTES_MIN;
    c->rx = mem_alloc_aligned(64, c->rx_cap);
    co_cond_init(&c->tx_ready);
}

static void batch_clear(struct conn_batch *b)
{
    for (uint32_t i = 0; i < b->n_segs; i++)
        buf_put(b->segs[i].buf);
    b->n_segs = 0;
    b->len = 0;
    b->total = 0;
    b->credit_frames = 0;
    b->credit_bytes = 0;
    if (b->cap > CONN_TX_KEEP_BYTES) {
        mem_free(b->bytes);
        b->bytes = NULL;
        b->cap = 0;
    }
}

void conn_fini(struct rpc_conn *c)
{
    if (c->net != NULL)
        net_close(c->net);
    for (int i = 0; i < 2; i++) {
        batch_clear(&c->batches[i]);
        mem_free(c->batches[i].bytes);
        mem_free(c->batches[i].segs);
        mem_free(c->batches[i].iov);
    }
    mem_free(c->rx);
    *c = (struct rpc_conn){0};
}

void conn_break(struct rpc_conn *c, int rc, const char *text)
{
    ASSERT(rc < 0);
    if (c->broken)
        return;
    c->broken = true;
    c->broken_rc = rc;
    conn_text_copy(c->broken_text, sizeof(c->broken_text), text, strlen(text));
    net_shutdown(c->net);
    co_cond_broadcast(&c->tx_ready);
}

/* ---- sending ---- */

/* Room for `bytes` at the end of the staging bytes. */
static uint8_t *batch_reserve(struct conn_batch *b, uint32_t bytes)
{
    if (UNLIKELY(bytes > b->cap - b->len)) {
        uint32_t cap = MAX(b->cap, 16384u);

        while (cap - b->len < bytes)
            cap *= 2;
        b->bytes = mem_realloc(b->bytes, cap);
        b->cap = cap;
    }
    return b->bytes + b->len;
}

static void batch_add_seg(struct conn_batch *b, struct buf *buf, uint32_t off, uint32_t len)
{
    if (UNLIKELY(b->n_segs == b->segs_cap)) {
        b->segs_cap = MAX(2 * b->segs_cap, 64u);
        b->segs = mem_realloc(b->segs, b->segs_cap * sizeof(b->segs[0]));
        b->iov = mem_realloc(b->iov, b->segs_cap * sizeof(b->iov[0]));
    }
    ASSERT(b->segs != NULL && b->n_segs < b->segs_cap);
    b->segs[b->n_segs++] = (struct conn_seg){buf, off, len};
    b->total += len;
}

/* `len` bytes behind the staging bytes are filled: headers and messages of frames without a
 * payload between them become one segment. */
static void batch_commit(struct conn_batch *b, uint32_t len)
{
    struct conn_seg *last = b->n_segs > 0 ? &b->segs[b->n_segs - 1] : NULL;

    if (last != NULL && last->buf == NULL) {
        last->len += len;
        b->total += len;
    } else {
        batch_add_seg(b, NULL, b->len, len);
    }
    b->len += len;
}

void payload_drop(struct rpc_payload *out)
{
    if (out == NULL)
        return;
    for (uint32_t i = 0; i < out->count; i++)
        buf_put(out->slices[i].buf);
    out->count = 0;
    out->len = 0;
}

int conn_send(struct rpc_conn *c, struct frame_header *h, const char *text,
              const ProtobufCMessage *msg, struct rpc_payload *out, uint64_t credit_bytes)
{
    struct conn_batch *b = &c->batches[c->open];
    size_t msg_len = msg != NULL ? protobuf_c_message_get_packed_size(msg) : 0;
    uint8_t *dst;

    if (c->broken) {
        payload_drop(out);
        return err_set(ERR_CLOSED, "%s", c->broken_text);
    }
    if (msg_len > RPC_MESSAGE_MAX || (out != NULL && out->len > RPC_PAYLOAD_MAX)) {
        payload_drop(out);
        return err_set(ERR_TOO_LARGE, "message of %zu bytes or payload over the limit", msg_len);
    }
    h->version = c->version;
    h->area_len = h->text_len + (uint32_t)msg_len;
    if (!(h->flags & FRAME_F_SLOT))
        h->payload_len = out != NULL ? out->len : 0;
    dst = batch_reserve(b, FRAME_HEADER_BYTES + h->area_len);
    if (h->text_len > 0)
        memcpy(dst + FRAME_HEADER_BYTES, text, h->text_len);
    if (msg_len > 0)
        protobuf_c_message_pack(msg, dst + FRAME_HEADER_BYTES + h->text_len);
    if (c->features & FRAME_FEATURE_AREA_CRC) {
        h->flags |= FRAME_F_AREA_CRC;
        h->area_crc = crc32c(0, dst + FRAME_HEADER_BYTES, h->area_len);
    }
    frame_header_encode(dst, h);
    if (b->n_segs == 0)
        co_cond_signal(&c->tx_ready);
    batch_commit(b, FRAME_HEADER_BYTES + h->area_len);
    if (out != NULL) {
        for (uint32_t i = 0; i < out->count; i++)
            batch_add_seg(b, out->slices[i].buf, out->slices[i].off, out->slices[i].len);
        out->count = 0;
        out->len = 0;
    }
    b->credit_frames++;
    b->credit_bytes += credit_bytes;
    return 0;
}

uint64_t conn_queued_bytes(const struct rpc_conn *c)
{
    return c->batches[0].total + c->batches[1].total;
}

static co_fn int batch_write(struct rpc_conn *c, struct conn_batch *b)
{
    for (uint32_t i = 0; i < b->n_segs; i++) {
        const struct conn_seg *s = &b->segs[i];

        b->iov[i].iov_base = (s->buf != NULL ? s->buf->data : b->bytes) + s->off;
        b->iov[i].iov_len = s->len;
    }
    for (uint32_t i = 0; i < b->n_segs; i += CONN_IOV_MAX) {
        int rc = net_writev_full(c->net, b->iov + i, (int)MIN(b->n_segs - i, CONN_IOV_MAX));

        if (rc < 0)
            return rc;
    }
    return 0;
}

static void batch_done(struct rpc_conn *c, struct conn_batch *b)
{
    uint32_t frames = b->credit_frames;
    uint64_t bytes = b->credit_bytes;

    batch_clear(b);
    if (c->on_sent != NULL)
        c->on_sent(c, frames, bytes);
}

co_fn void conn_sender_run(struct rpc_conn *c)
{
    while (!c->broken) {
        struct conn_batch *b = &c->batches[c->open];
        int rc = 0;

        if (b->n_segs == 0) {
            rc = co_cond_wait(&c->tx_ready);
        } else {
            /* Whoever is ready now may have something to add. */
            co_yield ();
            c->open ^= 1;
            ASSERT(c->batches[c->open].n_segs == 0);
            if (!c->broken)
                rc = batch_write(c, b);
            batch_done(c, b);
        }
        if (rc < 0)
            conn_break(c, rc, err_text(rc));
    }
    batch_done(c, &c->batches[c->open]);
}

/* ---- receiving ---- */

/* Makes room for `need` bytes from rx_head on. */
static void rx_room(struct rpc_conn *c, uint32_t need)
{
    uint32_t have = c->rx_tail - c->rx_head;

    ASSERT(need <= CONN_RX_BYTES_MAX);
    if (need > c->rx_cap) {
        uint32_t cap = c->rx_cap;
        uint8_t *bigger;

        while (cap < need)
            cap *= 4;
        bigger = mem_alloc_aligned(64, cap);
        memcpy(bigger, c->rx + c->rx_head, have);
        mem_free(c->rx);
        c->rx = bigger;
        c->rx_cap = cap;
    } else if (c->rx_cap - c->rx_head < need) {
        memmove(c->rx, c->rx + c->rx_head, have);
    } else {
        return;
    }
    c->rx_head = 0;
    c->rx_tail = have;
}

/* A read that filled the buffer to the brim says that more would have come. */
static void rx_grow_if_full(struct rpc_conn *c)
{
    if (c->rx_tail == c->rx_cap && c->rx_cap < CONN_RX_BYTES_MAX && !c->rx_bulk)
        rx_room(c, c->rx_cap * 4);
}

static uint32_t rx_ahead_bytes(const struct rpc_conn *c)
{
    return c->rx_bulk ? MIN(c->rx_cap, CONN_RX_BYTES_MIN) : c->rx_cap;
}

static int rx_error(struct rpc_conn *c, ssize_t rc)
{
    if (rc == ERR_CLOSED && (c->rx_mid_frame || c->rx_head != c->rx_tail))
        return err_set(ERR_CLOSED, "connection ended in the middle of a frame");
    return (int)rc;
}

/* Until `need` bytes are in the buffer. */
static co_fn int rx_fill(struct rpc_conn *c, uint32_t need)
{
    if (LIKELY(c->rx_tail - c->rx_head >= need))
        return 0;
    /* Let the handlers of what came with the last read run first: their replies leave together,
     * and a stream that never runs dry cannot starve the loop. */
    if (co_yield () < 0)
        return err_set(ERR_CANCELED, "receiving was cancelled");
    if (c->rx_head == c->rx_tail)
        c->rx_head = c->rx_tail = 0;
    rx_room(c, need);
    while (c->rx_tail - c->rx_head < need) {
        uint32_t room = c->rx_cap - c->rx_tail;
        struct iovec iov = {c->rx + c->rx_tail, MIN(room, MAX(need, rx_ahead_bytes(c)))};
        ssize_t n = net_readv(c->net, &iov, 1);

        if (n < 0)
            return rx_error(c, n);
        c->rx_tail += (uint32_t)n;
        rx_grow_if_full(c);
    }
    return 0;
}

co_fn int conn_recv_header(struct rpc_conn *c, struct frame_header *ret)
{
    bool crc_wanted = (c->features & FRAME_FEATURE_AREA_CRC) != 0;
    struct frame_header h;
    int rc;

    c->rx_mid_frame = false;
    rc = rx_fill(c, FRAME_HEADER_BYTES);
    if (rc < 0)
        return rc;
    rc = frame_header_parse(c->rx + c->rx_head, &h);
    if (rc < 0)
        return rc;
    if (h.version != c->version)
        return err_set(ERR_VERSION, "frame of version %u on a connection of version %u", h.version,
                       c->version);
    if (((h.flags & FRAME_F_AREA_CRC) != 0) != crc_wanted)
        return err_set(ERR_PROTO, "frame %s a checksum", crc_wanted ? "without" : "with");
    if ((h.flags & FRAME_F_SLOTS) && !(c->features & FRAME_FEATURE_SLOTS))
        return err_set(ERR_PROTO, "frame with slots that were not negotiated");
    c->rx_head += FRAME_HEADER_BYTES;
    c->rx_mid_frame = true;
    *ret = h;
    return 0;
}

co_fn int conn_recv_payload(struct rpc_conn *c, void *dst, uint32_t len)
{
    uint32_t got = MIN(len, c->rx_tail - c->rx_head);

    c->rx_bulk = len >= CONN_RX_BULK_BYTES;
    memcpy(dst, c->rx + c->rx_head, got);
    c->rx_head += got;
    while (got < len) {
        struct iovec iov[2] = {{(uint8_t *)dst + got, len - got}, {c->rx, rx_ahead_bytes(c)}};
        ssize_t n = net_readv(c->net, iov, 2);

        if (n < 0)
            return rx_error(c, n);
        c->rx_head = 0;
        c->rx_tail = (size_t)n > len - got ? (uint32_t)n - (len - got) : 0;
        got = MIN(len, got + (uint32_t)n);
        rx_grow_if_full(c);
    }
    return 0;
}

co_fn int conn_recv_area(struct rpc_conn *c, const struct frame_header *h, const uint8_t **ret,
                         void **tmp)
{
    const uint8_t *area;
    int rc;

    *tmp = NULL;
    if (LIKELY(h->area_len <= CONN_RX_BYTES_MAX)) {
        rc = rx_fill(c, h->area_len);
        if (rc < 0)
            return rc;
        area = c->rx + c->rx_head;
        c->rx_head += h->area_len;
    } else {
        *tmp = mem_alloc_aligned(64, h->area_len);
        rc = conn_recv_payload(c, *tmp, h->area_len);
        area = *tmp;
    }
    if (rc == 0)
        rc = frame_area_check(h, area);
    if (rc < 0) {
        mem_free(*tmp);
        *tmp = NULL;
        return rc;
    }
    *ret = area;
    return 0;
}

co_fn int conn_skip(struct rpc_conn *c, uint32_t len)
{
    while (len > 0) {
        uint32_t part = MIN(len, c->rx_tail - c->rx_head);

        if (part == 0) {
            int rc = rx_fill(c, 1);

            if (rc < 0)
                return rc;
            continue;
        }
        c->rx_head += part;
        len -= part;
    }
    return 0;
}

void conn_text_copy(char *dst, size_t dst_bytes, const void *src, size_t len)
{
    const unsigned char *s = src;
    size_t n = MIN(len, dst_bytes - 1);

    for (size_t i = 0; i < n; i++)
        dst[i] = s[i] < 0x20 || s[i] == 0x7f ? '?' : (char)s[i];
    dst[n] = '\0';
}

bool conn_log_allowed(struct conn_log_gate *g)
{
    nsec_t now = co_now();

    if (now - g->window_start >= 10 * NSEC_PER_SEC || g->window_start == 0) {
        g->window_start = now;
        g->count = 0;
    }
    return g->count++ < 5;
}
