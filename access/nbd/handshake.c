/* SPDX-License-Identifier: Apache-2.0
 *
 * Negotiation: greeting, client flags, then one option after the other. */
#include <string.h>
#include "access/nbd/nbd_int.h"

static co_fn int send_bytes(struct nbd_conn *c, struct iovec *iov, int n)
{
    return net_writev_full(c->stream.net, iov, n);
}

co_fn int nbd_option_reply(struct nbd_conn *c, uint32_t option, uint32_t type, const void *data,
                           uint32_t len)
{
    uint8_t head[NBD_OPTION_REPLY_BYTES];
    struct iovec iov[2] = {{head, sizeof(head)}, {(void *)(uintptr_t)data, len}};

    put_be64(head, NBD_OPTION_REPLY_MAGIC);
    put_be32(head + 8, option);
    put_be32(head + 12, type);
    put_be32(head + 16, len);
    return send_bytes(c, iov, len > 0 ? 2 : 1);
}

co_fn int nbd_option_error(struct nbd_conn *c, uint32_t option, uint32_t type, const char *text)
{
    return nbd_option_reply(c, option, type, text, (uint32_t)strlen(text));
}

static co_fn int greet(struct nbd_conn *c)
{
    uint8_t hello[18];
    struct iovec iov = {hello, sizeof(hello)};

    put_be64(hello, NBD_MAGIC);
    put_be64(hello + 8, NBD_OPTION_MAGIC);
    put_be16(hello + 16, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    return send_bytes(c, &iov, 1);
}

static co_fn int client_flags(struct nbd_conn *c)
{
    uint8_t bytes[4];
    uint32_t flags;
    int rc = nbd_read(c, bytes, sizeof(bytes), false);

    if (rc < 0)
        return rc;
    flags = get_be32(bytes);
    if (flags & ~(uint32_t)(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES))
        return err_set(ERR_PROTO, "unknown client flags 0x%x", flags);
    c->fixed = flags & NBD_FLAG_FIXED_NEWSTYLE;
    c->no_zeroes = flags & NBD_FLAG_NO_ZEROES;
    return 0;
}

/* The end of negotiation for clients that know nothing better: no error can be told. */
static co_fn int export_name(struct nbd_conn *c, const struct nbd_option_in *o)
{
    uint8_t answer[10 + 124] = {0};
    struct iovec iov = {answer, c->no_zeroes ? 10 : sizeof(answer)};
    int rc;

    if (nbd_tls_missing(c))
        return err_set(ERR_REFUSED, "an export was asked for without TLS");
    rc = nbd_export_open(c, o->data, o->len);
    if (rc == 0)
        rc = nbd_export_settle(c);
    if (rc < 0)
        return rc;
    put_be64(answer, nbd_export_size(c));
    put_be16(answer + 8, nbd_transmission_flags(c));
    rc = send_bytes(c, &iov, 1);
    return rc < 0 ? rc : NBD_OPTION_TRANSMIT;
}

static co_fn int option_too_big(struct nbd_conn *c, const struct nbd_option_in *o)
{
    int rc;

    if (o->len > NBD_OPTION_SKIP_MAX || o->type == NBD_OPT_EXPORT_NAME || !c->fixed)
        return err_set(ERR_PROTO, "an option of %u bytes", o->len);
    rc = nbd_read(c, NULL, o->len, false);
    return rc < 0 ? rc
                  : nbd_option_error(c, o->type, NBD_REP_ERR_TOO_BIG, "the option is too long");
}

/* NBD_OPTION_* or an error. */
static co_fn int next_option(struct nbd_conn *c, uint8_t *data)
{
    uint8_t head[NBD_OPTION_BYTES];
    struct nbd_option_in o = {.data = data};
    int rc = nbd_read(c, head, sizeof(head), false);

    if (rc < 0)
        return rc;
    if (get_be64(head) != NBD_OPTION_MAGIC)
        return err_set(ERR_PROTO, "an option without its magic number");
    o.type = get_be32(head + 8);
    o.len = get_be32(head + 12);
    if (o.len > NBD_OPTION_MAX)
        return option_too_big(c, &o);
    rc = nbd_read(c, data, o.len, false);
    if (rc < 0)
        return rc;
    if (o.type == NBD_OPT_EXPORT_NAME)
        return export_name(c, &o);
    if (!c->fixed)
        return err_set(ERR_PROTO, "option %u without fixed newstyle", o.type);
    return nbd_option(c, &o);
}

co_fn int nbd_handshake(struct nbd_conn *c)
{
    uint8_t *data;
    int rc = greet(c);

    if (rc == 0)
        rc = client_flags(c);
    if (rc < 0)
        return rc;
    data = mem_alloc(NBD_OPTION_MAX);
    do {
        rc = next_option(c, data);
    } while (rc == NBD_OPTION_NEXT);
    mem_free(data);
    return rc < 0 ? rc : 0;
}
