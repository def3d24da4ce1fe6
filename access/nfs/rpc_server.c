/* SPDX-License-Identifier: Apache-2.0
 *
 * ONC RPC: the server as a whole. */
#include "access/nfs/rpc_int.h"

static const struct stream_ops stream_ops = {
    .conn_bytes = sizeof(struct onc_conn),
    .init = onc_conn_init,
    .serve = onc_conn_serve,
    .broken = onc_conn_broken,
    .pieces = onc_reply_pieces,
    .sent = onc_reply_sent,
};

static void conf_defaults(struct onc_conf *conf)
{
    conf->connections = conf->connections ? conf->connections : 1024;
    conf->calls = conf->calls ? conf->calls : 128;
    conf->memory_bytes = conf->memory_bytes ? conf->memory_bytes : 32u << 20;
    /* The longest bulk data must fit, or it would wait for ever. */
    conf->memory_bytes = MAX(conf->memory_bytes, ONC_BULK_BYTES + 2 * BUF_ALIGN);
    conf->stop_timeout_ms = conf->stop_timeout_ms ? conf->stop_timeout_ms : 1000;
}

co_fn int onc_server_start(const struct onc_conf *conf, struct onc_server **ret)
{
    struct onc_server *s = MEM_NEW(struct onc_server);
    int rc;

    s->conf = *conf;
    conf_defaults(&s->conf);
    stream_server_init(&s->stream, &stream_ops, conf->name, s->conf.connections);
    rc = stream_listen(&s->stream, 0, conf->listen);
    if (rc < 0) {
        onc_server_stop(s);
        return rc;
    }
    stream_accept(&s->stream);
    *ret = s;
    return 0;
}

void onc_server_clients(const struct onc_server *s,
                        void (*fn)(void *arg, const struct onc_client_view *v), void *arg)
{
    LIST_FOREACH (c, &s->stream.conns, struct onc_conn, stream.link) {
        struct onc_client_view view = {net_peer(c->stream.net), c->machine, c->call_count};

        fn(arg, &view);
    }
}

const char *onc_server_addr(const struct onc_server *s)
{
    return stream_server_addr(&s->stream, 0);
}

co_fn void onc_server_stop(struct onc_server *s)
{
    stream_server_stop(&s->stream, s->conf.stop_timeout_ms);
    mem_free(s);
}

void onc_server_drop(struct onc_server *s, const char *why)
{
    stream_server_drop(&s->stream, why);
}
