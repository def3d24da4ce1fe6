/* SPDX-License-Identifier: Apache-2.0
 *
 * The server as a whole: start, limits, end. */
#include "access/nbd/nbd_int.h"

static const struct stream_ops stream_ops = {
    .conn_bytes = sizeof(struct nbd_conn),
    .init = nbd_conn_init,
    .serve = nbd_conn_serve,
    .broken = nbd_conn_broken,
    .pieces = nbd_reply_pieces,
    .sent = nbd_reply_sent,
};

static void conf_defaults(struct nbd_conf *conf)
{
    conf->connections = conf->connections ? conf->connections : 256;
    conf->requests = conf->requests ? conf->requests : 128;
    /* The longest payload must fit, or it would wait for ever. */
    conf->memory_bytes = MAX(conf->memory_bytes, NBD_PAYLOAD_MAX);
    conf->handshake_timeout_ms = conf->handshake_timeout_ms ? conf->handshake_timeout_ms : 15000;
    conf->stop_timeout_ms = conf->stop_timeout_ms ? conf->stop_timeout_ms : 1000;
}

co_fn int nbd_server_start(const struct nbd_conf *conf, struct nbd_server **ret)
{
    struct nbd_server *s = MEM_NEW(struct nbd_server);
    int rc;

    s->conf = *conf;
    conf_defaults(&s->conf);
    stream_server_init(&s->stream, &stream_ops, "nbd", s->conf.connections);
    rc = stream_listen(&s->stream, NBD_TCP, conf->listen);
    if (rc == 0)
        rc = stream_listen(&s->stream, NBD_LOCAL, conf->listen_unix);
    if (rc < 0) {
        nbd_server_stop(s);
        return rc;
    }
    stream_accept(&s->stream);
    *ret = s;
    return 0;
}

const char *nbd_server_addr(const struct nbd_server *s)
{
    return stream_server_addr(&s->stream, NBD_TCP);
}

co_fn void nbd_server_stop(struct nbd_server *s)
{
    stream_server_stop(&s->stream, s->conf.stop_timeout_ms);
    mem_free(s);
}

void nbd_server_drop(struct nbd_server *s, const char *why)
{
    stream_server_drop(&s->stream, why);
}
