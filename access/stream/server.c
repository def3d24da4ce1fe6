/* SPDX-License-Identifier: Apache-2.0
 *
 * Listening, limits, end. */
#include "access/stream/stream.h"
#include "common/base/assert.h"
#include "common/base/log.h"
#include "common/base/mem.h"

#define PLACE_PATIENCE NSEC_PER_SEC
#define ACCEPT_PAUSE   (100 * NSEC_PER_MSEC)

void stream_server_init(struct stream_server *s, const struct stream_ops *ops, const char *name,
                        uint32_t conn_max)
{
    s->ops = ops;
    s->name = name;
    s->conn_max = conn_max;
    list_init(&s->conns);
    co_cond_init(&s->conn_gone);
    co_group_init(&s->accepting);
    co_group_init(&s->serving);
    for (uint32_t i = 0; i < STREAM_LISTENERS; i++)
        s->listeners[i] = (struct stream_listener){.server = s};
}

/* ---- connections ---- */

static struct stream_conn *conn_new(struct stream_listener *l, struct net_conn *net)
{
    struct stream_server *s = l->server;
    struct stream_conn *c = mem_alloc(s->ops->conn_bytes);

    c->server = s;
    c->net = net;
    c->id = ++s->next_id;
    c->listener = (uint32_t)(l - s->listeners);
    c->rx = mem_alloc(STREAM_RX_BYTES);
    list_init(&c->tx);
    co_group_init(&c->sender);
    co_cond_init(&c->tx_wake);
    co_cond_init(&c->tx_progress);
    s->ops->init(c);
    list_push_back(&s->conns, &c->link);
    s->conn_count++;
    return c;
}

static co_fn int conn_main(void *arg)
{
    struct stream_conn *c = arg;
    struct stream_server *s = c->server;

    s->ops->serve(c);
    ASSERT(c->sender.count == 0 && list_empty(&c->tx));
    net_close(c->net);
    mem_free(c->rx);
    list_del(&c->link);
    mem_free(c);
    s->conn_count--;
    co_cond_broadcast(&s->conn_gone);
    return 0;
}

void stream_break(struct stream_conn *c, const char *why)
{
    if (c->broken != NULL)
        return;
    c->broken = why;
    net_shutdown(c->net);
    c->server->ops->broken(c);
}

/* ---- accepting ---- */

/* Waits until fewer than `than` connections are left, but not for long. */
static co_fn bool conns_fewer(struct stream_server *s, uint32_t than, nsec_t patience)
{
    nsec_t former = co_deadline_push(co_now() + patience);

    while (s->conn_count >= than && co_cond_wait(&s->conn_gone) == 0)
        ;
    co_deadline_restore(former);
    return s->conn_count < than;
}

static co_fn int accept_main(void *arg)
{
    struct stream_listener *l = arg;
    struct stream_server *s = l->server;

    for (;;) {
        struct net_conn *net;
        int rc = net_accept(l->net, &net);

        if (rc < 0 && co_canceled())
            return 0;
        if (rc < 0) { /* out of descriptors or the like: others may end */
            log_warn("stream.accept", "server=%s why=\"%s\"", s->name, err_text(rc));
            if (co_sleep(ACCEPT_PAUSE) < 0)
                return 0;
            continue;
        }
        /* Connections that have just been closed may not have been noticed yet. */
        if (!conns_fewer(s, s->conn_max, PLACE_PATIENCE)) {
            log_warn("stream.refused", "server=%s address=%s why=\"%u connections already\"",
                     s->name, net_peer(net), s->conn_count);
            net_close(net);
            continue;
        }
        co_spawn_detached_deadline(&s->serving, "stream-conn", conn_main, conn_new(l, net));
    }
}

co_fn int stream_listen(struct stream_server *s, uint32_t listener, const char *addr)
{
    int rc;

    ASSERT(listener < STREAM_LISTENERS);
    if (addr == NULL || addr[0] == '\0')
        return 0;
    rc = net_listen(addr, &s->listeners[listener].net);
    if (rc < 0)
        return err_prefix(rc, "%s at %s", s->name, addr);
    log_info("stream.listen", "server=%s address=%s", s->name, stream_server_addr(s, listener));
    return 0;
}

const char *stream_server_addr(const struct stream_server *s, uint32_t listener)
{
    const struct net_listener *l = s->listeners[listener].net;

    return l != NULL ? net_listener_addr(l) : "";
}

void stream_accept(struct stream_server *s)
{
    for (uint32_t i = 0; i < STREAM_LISTENERS; i++) {
        if (s->listeners[i].net != NULL)
            co_spawn_detached_deadline(&s->accepting, "stream-accept", accept_main,
                                       &s->listeners[i]);
    }
}

/* ---- end ---- */

void stream_server_drop(struct stream_server *s, const char *why)
{
    if (s->conn_count > 0)
        log_warn("stream.drop", "server=%s connections=%u why=\"%s\"", s->name, s->conn_count, why);
    LIST_FOREACH (c, &s->conns, struct stream_conn, link)
        stream_break(c, why);
}

co_fn void stream_accept_end(struct stream_server *s)
{
    co_group_close(&s->accepting);
}

co_fn void stream_server_end(struct stream_server *s, uint32_t patience_ms)
{
    struct co_shield shield;

    co_shield_begin(&shield);
    (void)conns_fewer(s, 1, patience_ms * NSEC_PER_MSEC);
    LIST_FOREACH (c, &s->conns, struct stream_conn, link)
        stream_break(c, "the server stops");
    co_group_join(&s->serving);
    ASSERT(s->conn_count == 0);
    for (uint32_t i = 0; i < STREAM_LISTENERS; i++) {
        if (s->listeners[i].net != NULL)
            net_listener_close(s->listeners[i].net);
        s->listeners[i].net = NULL;
    }
    co_shield_end(&shield);
}

co_fn void stream_server_stop(struct stream_server *s, uint32_t patience_ms)
{
    stream_accept_end(s);
    co_group_cancel(&s->serving);
    stream_server_end(s, patience_ms);
}
