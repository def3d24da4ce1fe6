/* SPDX-License-Identifier: Apache-2.0
 *
 * ONC RPC: listening, limits, end. */
#include "access/nfs/rpc_int.h"

/* A peer whose address can't be understood belongs to no network. */
static void peer_set(struct onc_conn *c)
{
    if (addr_parse(net_peer(c->net), &c->peer) < 0)
        c->peer = (struct addr){.kind = ADDR_UNIX};
}

static struct onc_conn *conn_new(struct onc_server *s, struct net_conn *net)
{
    struct onc_conn *c = MEM_NEW(struct onc_conn);

    c->s = s;
    c->net = net;
    peer_set(c);
    c->rx = mem_alloc(ONC_RX_BYTES);
    c->head = mem_alloc(ONC_RECORD_BYTES);
    list_init(&c->calls);
    co_group_init(&c->requests);
    co_group_init(&c->writer);
    co_sem_init(&c->slots, s->conf.calls);
    co_sem_init(&c->memory, s->conf.memory_bytes);
    list_init(&c->tx);
    co_cond_init(&c->tx_wake);
    co_cond_init(&c->tx_done);
    list_push_back(&s->conns, &c->link);
    s->conn_count++;
    return c;
}

/* Connections that have just been closed may not have been noticed yet. */
static co_fn bool place_there(struct onc_server *s)
{
    nsec_t former = co_deadline_push(co_now() + NSEC_PER_SEC);

    while (s->conn_count >= s->conf.connections && co_cond_wait(&s->conn_gone) == 0)
        ;
    co_deadline_restore(former);
    return s->conn_count < s->conf.connections;
}

static co_fn int accept_main(void *arg)
{
    struct onc_server *s = arg;

    for (;;) {
        struct net_conn *net;
        int rc = net_accept(s->listener, &net);

        if (rc < 0 && co_canceled())
            return 0;
        if (rc < 0) { /* out of descriptors or the like: others may end */
            log_warn("onc.accept", "server=%s why=\"%s\"", s->conf.name, err_text(rc));
            if (co_sleep(100 * NSEC_PER_MSEC) < 0)
                return 0;
            continue;
        }
        if (!place_there(s)) {
            log_warn("onc.refused", "server=%s address=%s why=\"%u connections already\"",
                     s->conf.name, net_peer(net), s->conn_count);
            net_close(net);
            continue;
        }
        co_spawn_detached_deadline(&s->group, "onc-conn", onc_conn_main, conn_new(s, net));
    }
}

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
    list_init(&s->conns);
    co_group_init(&s->accept_group);
    co_group_init(&s->group);
    co_cond_init(&s->conn_gone);
    rc = net_listen(conf->listen, &s->listener);
    if (rc < 0) {
        mem_free(s);
        return err_prefix(rc, "%s at %s", conf->name, conf->listen);
    }
    log_info("onc.listen", "server=%s address=%s", conf->name, onc_server_addr(s));
    co_spawn_detached_deadline(&s->accept_group, "onc-accept", accept_main, s);
    *ret = s;
    return 0;
}

void onc_server_clients(const struct onc_server *s,
                        void (*fn)(void *arg, const struct onc_client_view *v), void *arg)
{
    LIST_FOREACH (c, &s->conns, struct onc_conn, link) {
        struct onc_client_view view = {net_peer(c->net), c->machine, c->call_count};

        fn(arg, &view);
    }
}

const char *onc_server_addr(const struct onc_server *s)
{
    return net_listener_addr(s->listener);
}

/* Readers are cancelled, so no new call comes in; connections end once those in flight have been
 * answered. */
co_fn void onc_server_stop(struct onc_server *s)
{
    struct co_shield shield;
    nsec_t former;

    co_shield_begin(&shield);
    co_group_close(&s->accept_group);
    co_group_cancel(&s->group);
    former = co_deadline_push(co_now() + s->conf.stop_timeout_ms * NSEC_PER_MSEC);
    while (s->conn_count > 0 && co_cond_wait(&s->conn_gone) == 0)
        ;
    co_deadline_restore(former);
    LIST_FOREACH (c, &s->conns, struct onc_conn, link)
        onc_conn_break(c, "the server stops");
    co_group_join(&s->group);
    co_shield_end(&shield);
    ASSERT(s->conn_count == 0);
    net_listener_close(s->listener);
    mem_free(s);
}

void onc_server_drop(struct onc_server *s, const char *why)
{
    if (s->conn_count > 0)
        log_warn("onc.drop", "server=%s connections=%u why=\"%s\"", s->conf.name, s->conn_count,
                 why);
    LIST_FOREACH (c, &s->conns, struct onc_conn, link)
        onc_conn_break(c, why);
}
