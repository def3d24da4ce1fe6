/* SPDX-License-Identifier: Apache-2.0
 *
 * ONC RPC: a connection from its first call to its last. */
#include "access/nfs/rpc_int.h"

void onc_conn_init(struct stream_conn *stream)
{
    struct onc_conn *c = CONTAINER_OF(stream, struct onc_conn, stream);

    c->s = CONTAINER_OF(stream->server, struct onc_server, stream);
    onc_source_init(&c->source, &c->s->conf, net_peer(stream->net), net_local(stream->net));
    c->head = mem_alloc(ONC_RECORD_BYTES);
    list_init(&c->calls);
    co_group_init(&c->requests);
    co_sem_init(&c->slots, c->s->conf.calls);
    co_sem_init(&c->memory, c->s->conf.memory_bytes);
}

void onc_conn_broken(struct stream_conn *stream)
{
    struct onc_conn *c = CONTAINER_OF(stream, struct onc_conn, stream);

    /* What was not sent to a chunk server yet must not be: the client will send it again. */
    co_group_cancel(&c->requests);
}

static co_fn int serve(struct onc_conn *c)
{
    int rc = 0;

    stream_sender_start(&c->stream);
    while (rc == 0)
        rc = onc_call_receive(c);
    return c->stream.broken != NULL ? err_set(ERR_CLOSED, "%s", c->stream.broken) : rc;
}

/* Calls are waited for, answers leave if the client takes them. rc: of the reader. */
static co_fn void wind_up(struct onc_conn *c, int rc)
{
    if (rc != ERR_CANCELED)
        stream_break(&c->stream, "the reader ended");
    co_group_join(&c->requests);
    stream_sender_end(&c->stream);
}

co_fn void onc_conn_serve(struct stream_conn *stream)
{
    struct onc_conn *c = CONTAINER_OF(stream, struct onc_conn, stream);
    const char *name = c->s->conf.name, *peer = net_peer(stream->net);
    struct co_shield shield;
    int rc;

    log_debug("onc.open", "server=%s address=%s", name, peer);
    rc = serve(c);
    if (rc == ERR_PROTO)
        log_warn("onc.closed", "server=%s address=%s why=\"%s\"", name, peer, err_text(rc));
    else
        log_debug("onc.closed", "server=%s address=%s why=\"%s\"", name, peer, err_text(rc));
    co_shield_begin(&shield);
    wind_up(c, rc);
    co_shield_end(&shield);
    ASSERT(list_empty(&c->calls));
    mem_free(c->head);
}
