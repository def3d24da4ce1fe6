/* SPDX-License-Identifier: Apache-2.0
 *
 * Listening, limits, end. */
#include "access/nbd/nbd_int.h"

static struct nbd_conn *conn_new(struct nbd_server *s, struct net_conn *net)
{
    struct nbd_conn *c = MEM_NEW(struct nbd_conn);

    c->s = s;
    c->net = net;
    c->id = ++s->next_conn_id;
    c->rx = mem_alloc(NBD_RX_BYTES);
    co_group_init(&c->requests);
    co_group_init(&c->writer);
    co_sem_init(&c->slots, s->conf.requests);
    co_sem_init(&c->memory, s->conf.memory_bytes);
    list_init(&c->tx);
    list_init(&c->tx_free);
    co_cond_init(&c->tx_wake);
    co_cond_init(&c->tx_done);
    list_push_back(&s->conns, &c->link);
    s->conn_count++;
    return c;
}

/* Connections that have just been closed may not have been noticed yet. */
static co_fn bool place_there(struct nbd_server *s)
{
    nsec_t former = co_deadline_push(co_now() + NSEC_PER_SEC);

    while (s->conn_count >= s->conf.connections && co_cond_wait(&s->conn_gone) == 0)
        ;
    co_deadline_restore(former);
    return s->conn_count < s->conf.connections;
}

static co_fn int accept_loop(struct nbd_server *s, struct net_listener *l)
{
    for (;;) {
        struct net_conn *net;
        int rc = net_accept(l, &net);

        if (rc < 0 && co_canceled())
            return 0;
        if (rc < 0) { /* out of descriptors or the like: others may end */
            log_warn("nbd.accept", "why=\"%s\"", err_text(rc));
            if (co_sleep(100 * NSEC_PER_MSEC) < 0)
                return 0;
            continue;
        }
        if (!place_there(s)) {
            log_warn("nbd.refused", "address=%s why=\"%u connections already\"", net_peer(net),
                     s->conn_count);
            net_close(net);
            continue;
        }
        co_spawn_detached_deadline(&s->group, "nbd-conn", nbd_conn_main, conn_new(s, net));
    }
}

static co_fn int accept_tcp(void *arg)
{
    struct nbd_server *s = arg;

    return accept_loop(s, s->tcp);
}

static co_fn int accept_local(void *arg)
{
    struct nbd_server *s = arg;

    return accept_loop(s, s->local);
}

static co_fn int listen_at(const char *addr, struct net_listener **ret)
{
    if (addr == NULL || addr[0] == '\0')
        return 0;
    int rc = net_listen(addr, ret);
    if (rc < 0)
        return err_prefix(rc, "NBD at %s", addr);
    log_info("nbd.listen", "address=%s", net_listener_addr(*ret));
    return 0;
}

static void server_free(struct nbd_server *s)
{
    if (s->tcp != NULL)
        net_listener_close(s->tcp);
    if (s->local != NULL)
        net_listener_close(s->local);
    mem_free(s);
}

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
    list_init(&s->conns);
    co_group_init(&s->accept_group);
    co_group_init(&s->group);
    co_cond_init(&s->conn_gone);
    rc = listen_at(conf->listen, &s->tcp);
    if (rc == 0)
        rc = listen_at(conf->listen_unix, &s->local);
    if (rc < 0) {
        server_free(s);
        return rc;
    }
    if (s->tcp != NULL)
        co_spawn_detached_deadline(&s->accept_group, "nbd-accept", accept_tcp, s);
    if (s->local != NULL)
        co_spawn_detached_deadline(&s->accept_group, "nbd-accept", accept_local, s);
    *ret = s;
    return 0;
}

const char *nbd_server_addr(const struct nbd_server *s)
{
    return s->tcp != NULL ? net_listener_addr(s->tcp) : "";
}

/* Readers are cancelled, so no new request comes in; connections end once those in flight have
 * been answered. */
co_fn void nbd_server_stop(struct nbd_server *s)
{
    struct co_shield shield;

    co_shield_begin(&shield);
    co_group_close(&s->accept_group);
    co_group_cancel(&s->group);
    nsec_t former = co_deadline_push(co_now() + s->conf.stop_timeout_ms * NSEC_PER_MSEC);
    while (s->conn_count > 0 && co_cond_wait(&s->conn_gone) == 0)
        ;
    co_deadline_restore(former);
    LIST_FOREACH (c, &s->conns, struct nbd_conn, link)
        nbd_conn_break(c, "the server stops");
    co_group_join(&s->group);
    co_shield_end(&shield);
    ASSERT(s->conn_count == 0);
    server_free(s);
}

void nbd_server_drop(struct nbd_server *s, const char *why)
{
    if (s->conn_count > 0)
        log_warn("nbd.drop", "connections=%u why=\"%s\"", s->conn_count, why);
    LIST_FOREACH (c, &s->conns, struct nbd_conn, link)
        nbd_conn_break(c, why);
}
