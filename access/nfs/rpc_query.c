/* SPDX-License-Identifier: Apache-2.0
 *
 * ONC RPC, the client's side: see rpc_query.h. */
#include "access/nfs/rpc_query.h"

#include <stdio.h>
#include "access/nfs/rpc_int.h"

#define RESEND_TIME NSEC_PER_SEC
#define CRED_BYTES  24u /* of ours: uid 0 of a machine without groups */

/* ---- messages ---- */

static void put_call(struct xdr_out *out, uint32_t xid, const struct onc_service *service,
                     uint32_t procedure, const struct xdr_out *args)
{
    xdr_put_u32(out, 0); /* the record's mark */
    xdr_put_u32(out, xid);
    xdr_put_u32(out, ONC_CALL);
    xdr_put_u32(out, ONC_VERSION);
    xdr_put_u32(out, service->program);
    xdr_put_u32(out, service->version);
    xdr_put_u32(out, procedure);
    xdr_put_u32(out, ONC_AUTH_SYS);
    xdr_put_u32(out, CRED_BYTES);
    xdr_put_u32(out, 0); /* stamp */
    xdr_put_string(out, "zbs");
    for (int i = 0; i < 3; i++)
        xdr_put_u32(out, 0);         /* uid, gid, number of groups */
    xdr_put_u32(out, ONC_AUTH_NONE); /* verifier */
    xdr_put_u32(out, 0);
    xdr_put_fixed(out, args->data, args->len);
    xdr_set_u32(out, 0, ONC_LAST | (uint32_t)(out->len - ONC_MARK_BYTES));
}

/* Is it this call's? */
static bool is_reply(const uint8_t *bytes, size_t len, uint32_t xid)
{
    return len >= 8 && get_be32(bytes) == xid && get_be32(bytes + 4) == ONC_REPLY;
}

static int take_reply(struct onc_answered *a, size_t len)
{
    uint32_t denied, stat, verifier;

    xdr_in_init(&a->in, a->bytes, len);
    (void)xdr_u64(&a->in); /* xid and type */
    denied = xdr_u32(&a->in);
    (void)xdr_u32(&a->in); /* the verifier's flavor */
    (void)xdr_opaque(&a->in, ONC_AUTH_BYTES, &verifier);
    stat = xdr_u32(&a->in);
    if (a->in.bad || denied != 0 || stat != ONC_SUCCESS)
        return err_set(ERR_PROTO, "the call was refused");
    return 0;
}

/* ---- TCP ---- */

static co_fn int read_record(struct net_conn *c, struct onc_answered *a, size_t *ret_len)
{
    uint8_t mark[ONC_MARK_BYTES];
    size_t len = 0, n;
    int rc;

    do {
        rc = net_read_full(c, mark, sizeof(mark));
        n = rc == 0 ? get_be32(mark) & ~ONC_LAST : 0;
        if (n > sizeof(a->bytes) - len)
            return err_set(ERR_PROTO, "an answer of more than %u bytes", ONC_QUERY_BYTES);
        if (rc == 0 && n > 0)
            rc = net_read_full(c, a->bytes + len, n);
        len += n;
    } while (rc == 0 && (get_be32(mark) & ONC_LAST) == 0);
    *ret_len = len;
    return rc;
}

static co_fn int query_tcp(const struct onc_service *service, uint32_t xid,
                           const struct xdr_out *message, struct onc_answered *a)
{
    struct iovec iov = {message->data, message->len};
    struct net_conn *c;
    size_t len = 0;
    int rc = net_connect_from(service->from, service->to, &c);

    if (rc < 0)
        return rc;
    rc = net_writev_full(c, &iov, 1);
    if (rc == 0)
        rc = read_record(c, a, &len);
    net_close(c);
    if (rc == 0 && !is_reply(a->bytes, len, xid))
        rc = err_set(ERR_PROTO, "an answer to something else");
    return rc < 0 ? rc : take_reply(a, len);
}

/* ---- UDP ---- */

/* What is no answer of the service's is not heard. */
static co_fn ssize_t receive(struct net_dgram *d, const char *from, uint32_t xid,
                             struct onc_answered *a)
{
    struct net_way way;
    ssize_t len;

    do
        len = net_dgram_recv(d, a->bytes, sizeof(a->bytes), &way);
    while (len >= 0 && (strcmp(way.peer, from) != 0 || !is_reply(a->bytes, (size_t)len, xid)));
    return len;
}

static co_fn int query_udp(const struct onc_service *service, uint32_t xid,
                           const struct xdr_out *message, struct onc_answered *a)
{
    char from[NET_ADDR_MAX];
    struct net_way way = {.local = ""};
    nsec_t until = co_deadline();
    struct net_dgram *d;
    ssize_t len;
    int rc;

    onc_address_with_port(from, service->from, 0);
    strcpy(way.peer, service->to);
    rc = net_dgram_open(from, &d);
    if (rc < 0)
        return rc;
    do {
        nsec_t former = co_deadline_push(co_now() + RESEND_TIME);

        len =
            net_dgram_send(d, message->data + ONC_MARK_BYTES, message->len - ONC_MARK_BYTES, &way);
        if (len == 0)
            len = receive(d, way.peer, xid, a);
        co_deadline_restore(former);
    } while (len == ERR_TIMEOUT && co_now() < until);
    net_dgram_close(d);
    return len < 0 ? (int)len : take_reply(a, (size_t)len);
}

/* ---- either ---- */

void onc_address_with_port(char ret[NET_ADDR_MAX], const char *address, uint32_t port)
{
    const char *colon = strrchr(address, ':');
    int host = colon != NULL ? (int)(colon - address) : (int)strlen(address);

    snprintf(ret, NET_ADDR_MAX, "%.*s:%u", host, address, port);
}

co_fn int onc_query(const struct onc_service *service, uint32_t procedure,
                    const struct xdr_out *args, struct onc_answered *ret)
{
    uint32_t xid = (uint32_t)env_random();
    struct xdr_out message;
    int rc;

    ASSERT(co_deadline() != NSEC_NEVER);
    xdr_out_init(&message);
    put_call(&message, xid, service, procedure, args);
    rc = service->udp ? query_udp(service, xid, &message, ret)
                      : query_tcp(service, xid, &message, ret);
    xdr_out_fini(&message);
    return rc < 0 ? err_prefix(rc, "program %u at %s", service->program, service->to) : 0;
}
