/* SPDX-License-Identifier: Apache-2.0
 *
 * See onc_client.h. */
#include "tests/lib/onc_client.h"

#include <string.h>
#include "common/base/assert.h"
#include "common/base/bytes.h"
#include "common/base/mem.h"

#define LAST      (UINT32_C(1) << 31)
#define REPLY_MAX (4u << 20)

co_fn void onc_open(struct onc_client *o, const char *addr)
{
    memset(o, 0, sizeof(*o));
    ASSERT(net_connect(addr, &o->net) == 0);
}

co_fn void onc_open_udp(struct onc_client *o, const char *from, const char *addr)
{
    memset(o, 0, sizeof(*o));
    strcpy(o->way.peer, addr);
    ASSERT(net_dgram_open(from, &o->udp) == 0);
}

void onc_close(struct onc_client *o)
{
    if (o->udp != NULL)
        net_dgram_close(o->udp);
    else
        net_close(o->net);
}

static void put_auth(const struct onc_client *o, struct xdr_out *out)
{
    xdr_put_u32(out, o->none ? ONC_AUTH_NONE : ONC_AUTH_SYS);
    xdr_put_u32(out, o->none ? 0 : 28);
    if (!o->none) {
        xdr_put_u32(out, 1); /* stamp */
        xdr_put_string(out, "test");
        xdr_put_u32(out, o->uid);
        xdr_put_u32(out, o->gid);
        xdr_put_u32(out, 1);
        xdr_put_u32(out, o->gid);
    }
    xdr_put_u32(out, ONC_AUTH_NONE); /* verifier */
    xdr_put_u32(out, 0);
}

void onc_begin(struct onc_client *o, struct xdr_out *out, uint32_t program, uint32_t version,
               uint32_t procedure)
{
    xdr_out_init(out);
    xdr_put_u32(out, ++o->xid);
    xdr_put_u32(out, 0); /* CALL */
    xdr_put_u32(out, 2);
    xdr_put_u32(out, program);
    xdr_put_u32(out, version);
    xdr_put_u32(out, procedure);
    put_auth(o, out);
}

co_fn int onc_send_bytes(struct onc_client *o, const void *data, size_t len)
{
    struct iovec iov = {(void *)(uintptr_t)data, len};

    return len == 0 ? 0 : net_writev_full(o->net, &iov, 1);
}

co_fn int onc_send(struct onc_client *o, struct xdr_out *out)
{
    size_t step = o->fragment != 0 ? o->fragment : out->len, at = 0;
    int rc = 0;

    if (o->udp != NULL) {
        rc = net_dgram_send(o->udp, out->data, out->len, &o->way);
        at = out->len;
    }
    while (rc == 0 && at < out->len) {
        size_t n = MIN(step, out->len - at);
        uint8_t mark[4];

        put_be32(mark, (uint32_t)n | (at + n == out->len ? LAST : 0));
        rc = onc_send_bytes(o, mark, sizeof(mark));
        if (rc == 0)
            rc = onc_send_bytes(o, out->data + at, n);
        at += n;
    }
    xdr_out_fini(out);
    return rc;
}

static void take_answer(struct onc_answer *a)
{
    uint32_t len;

    a->xid = xdr_u32(&a->in);
    ASSERT(xdr_u32(&a->in) == 1); /* REPLY */
    a->denied = xdr_bool(&a->in);
    if (!a->denied) {
        ASSERT(xdr_u32(&a->in) == ONC_AUTH_NONE);
        ASSERT(xdr_opaque(&a->in, 400, &len) != NULL && len == 0);
    }
    a->stat = xdr_u32(&a->in);
    if (a->denied && a->stat == 1)
        a->why = xdr_u32(&a->in);
    if ((a->denied && a->stat == 0) || (!a->denied && a->stat == ONC_PROG_MISMATCH)) {
        a->low = xdr_u32(&a->in);
        a->high = xdr_u32(&a->in);
    }
    ASSERT(!a->in.bad);
    if (a->denied || a->stat != ONC_SUCCESS)
        ASSERT(a->in.left == 0);
}

static co_fn int recv_udp(struct onc_client *o, struct onc_answer *a)
{
    struct net_way way;
    ssize_t len;

    a->record = mem_alloc(NET_DATAGRAM_MAX);
    len = net_dgram_recv(o->udp, a->record, NET_DATAGRAM_MAX, &way);
    if (len < 0) {
        onc_answer_free(a);
        return (int)len;
    }
    ASSERT(len % 4 == 0 && len <= (ssize_t)ONC_DATAGRAM_BYTES &&
           strcmp(way.peer, o->way.peer) == 0);
    xdr_in_init(&a->in, a->record, (size_t)len);
    take_answer(a);
    return 0;
}

co_fn int onc_recv(struct onc_client *o, struct onc_answer *a)
{
    uint8_t mark[4];
    uint32_t len;
    int rc;

    memset(a, 0, sizeof(*a));
    if (o->udp != NULL)
        return recv_udp(o, a);
    rc = net_read_full(o->net, mark, sizeof(mark));
    if (rc < 0)
        return rc;
    len = get_be32(mark) & ~LAST;
    ASSERT((get_be32(mark) & LAST) && len % 4 == 0 && len <= REPLY_MAX);
    a->record = mem_alloc(len);
    rc = net_read_full(o->net, a->record, len);
    if (rc < 0) {
        onc_answer_free(a);
        return rc;
    }
    xdr_in_init(&a->in, a->record, len);
    take_answer(a);
    return 0;
}

void onc_answer_free(struct onc_answer *a)
{
    mem_free(a->record);
    a->record = NULL;
}

co_fn void onc_ask(struct onc_client *o, struct xdr_out *out, struct onc_answer *a)
{
    uint32_t xid = o->xid;

    ASSERT(onc_send(o, out) == 0);
    ASSERT(onc_recv(o, a) == 0);
    ASSERT(a->xid == xid && !a->denied && a->stat == ONC_SUCCESS);
}
