/* SPDX-License-Identifier: Apache-2.0
 *
 * TLS on a connection: who may ask for it, who has to, and going over to it. */
#include "access/nbd/nbd_int.h"

/* The rights of the UNIX socket's folder say who uses that one. */
static enum nbd_tls tls_of(const struct nbd_conn *c)
{
    return c->stream.listener == NBD_LOCAL ? NBD_TLS_OFF : c->s->conf.tls;
}

bool nbd_tls_missing(const struct nbd_conn *c)
{
    return tls_of(c) == NBD_TLS_REQUIRED && !c->tls;
}

/* What was negotiated in plain text may have been somebody else's wish. */
static co_fn void forget(struct nbd_conn *c)
{
    nbd_export_close(c);
    c->structured = false;
}

static co_fn int upgrade(struct nbd_conn *c)
{
    struct stream_conn *stream = &c->stream;
    int rc = net_tls_accept(stream->net, c->s->conf.tls_identity);

    if (rc == ERR_CANCELED)
        return rc;
    if (rc < 0) {
        log_warn("nbd.tls", "conn=%llu address=%s why=\"%s\"", (unsigned long long)stream->id,
                 net_peer(stream->net), err_text(rc));
        return err_set(ERR_CLOSED, "no TLS");
    }
    log_info("nbd.tls", "conn=%llu address=%s version=%s client=\"%s\"",
             (unsigned long long)stream->id, net_peer(stream->net), net_tls_version(stream->net),
             net_tls_peer(stream->net));
    c->tls = true;
    return NBD_OPTION_NEXT;
}

co_fn int nbd_option_starttls(struct nbd_conn *c, const struct nbd_option_in *o)
{
    int rc;

    if (tls_of(c) == NBD_TLS_OFF)
        return nbd_option_error(c, o->type, NBD_REP_ERR_POLICY, "TLS is switched off here");
    if (o->len > 0 || c->tls)
        return nbd_option_error(c, o->type, NBD_REP_ERR_INVALID,
                                c->tls ? "TLS is in force already" : "the option has no data");
    /* Put there by somebody in between, it would be taken for what is said under TLS. */
    if (c->stream.rx_pos != c->stream.rx_end)
        return err_set(ERR_PROTO, "bytes behind STARTTLS that did not wait for its answer");
    forget(c);
    rc = nbd_option_reply(c, o->type, NBD_REP_ACK, NULL, 0);
    return rc < 0 ? rc : upgrade(c);
}
