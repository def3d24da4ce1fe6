/* SPDX-License-Identifier: Apache-2.0
 *
 * ONC RPC: a connection from its first call to its last. */
#include "access/nfs/rpc_int.h"

void onc_conn_break(struct onc_conn *c, const char *why)
{
    if (c->broken != NULL)
        return;
    c->broken = why;
    net_shutdown(c->net);
    /* What was not sent to a chunk server yet must not be: the client will send it again. */
    co_group_cancel(&c->requests);
}

static co_fn int serve(struct onc_conn *c)
{
    int rc = 0;

    co_spawn_detached_deadline(&c->writer, "onc-writer", onc_writer_main, c);
    while (rc == 0)
        rc = onc_call_receive(c);
    return c->broken != NULL ? err_set(ERR_CLOSED, "%s", c->broken) : rc;
}

/* Calls are waited for, answers leave if the client takes them. rc: of the reader. */
static co_fn void wind_up(struct onc_conn *c, int rc)
{
    nsec_t former;

    if (rc != ERR_CANCELED)
        onc_conn_break(c, "the reader ended");
    co_group_join(&c->requests);
    c->tx_closing = true;
    co_cond_signal(&c->tx_wake);
    former = co_deadline_push(co_now() + 2 * NSEC_PER_SEC);
    while (c->writer.count > 0 && !c->tx_ended && co_cond_wait(&c->tx_done) == 0)
        ;
    co_deadline_restore(former);
    onc_conn_break(c, "the connection ends");
    co_group_join(&c->writer);
}

co_fn int onc_conn_main(void *arg)
{
    struct onc_conn *c = arg;
    struct onc_server *s = c->s;
    struct co_shield shield;
    int rc;

    log_debug("onc.open", "server=%s address=%s", s->conf.name, net_peer(c->net));
    rc = serve(c);
    if (rc == ERR_PROTO)
        log_warn("onc.closed", "server=%s address=%s why=\"%s\"", s->conf.name, net_peer(c->net),
                 err_text(rc));
    else
        log_debug("onc.closed", "server=%s address=%s why=\"%s\"", s->conf.name, net_peer(c->net),
                  err_text(rc));
    co_shield_begin(&shield);
    wind_up(c, rc);
    co_shield_end(&shield);
    ASSERT(list_empty(&c->tx) && list_empty(&c->calls));
    net_close(c->net);
    mem_free(c->rx);
    mem_free(c->head);
    list_del(&c->link);
    mem_free(c);
    s->conn_count--;
    co_cond_broadcast(&s->conn_gone);
    return 0;
}
