/* SPDX-License-Identifier: Apache-2.0
 *
 * The portal: listening, limits, end; and what the outside asks about sessions. */
#include <stdio.h>
#include <string.h>
#include "access/iscsi/iscsi_int.h"

uint16_t iscsi_portal_tag(const char *addr)
{
    uint32_t h = 2166136261u; /* FNV-1a: every access server computes the same tag */

    for (const char *p = addr; *p != '\0'; p++)
        h = (h ^ (uint8_t)*p) * 16777619u;
    return (uint16_t)((h ^ h >> 16) % 65535 + 1);
}

static void port_add(struct scsi_ports *ports, const char *addr)
{
    struct scsi_port *p = &ports->list[ports->count];
    uint16_t tag = iscsi_portal_tag(addr);

    if (addr[0] == '\0' || scsi_ports_have(ports, tag))
        return;
    snprintf(p->addr, sizeof(p->addr), "%s", addr);
    p->number = tag;
    ports->count++;
}

static void ports_free(struct scsi_ports *ports)
{
    mem_free(ports->list);
    mem_free(ports);
}

void iscsi_target_portals_update(struct iscsi_target *t, const char *const *addrs, size_t n)
{
    struct scsi_ports *former = t->ports, *ports = MEM_NEW(struct scsi_ports);

    ports->list = MEM_NEW_ARRAY(struct scsi_port, n + 1);
    for (size_t i = 0; i < n; i++)
        port_add(ports, addrs[i]);
    port_add(ports, iscsi_target_addr(t)); /* which meta may not show yet */
    LIST_FOREACH (node, &t->nodes, struct iscsi_node, link)
        scsi_target_set_ports(&node->scsi, ports);
    t->ports = ports;
    if (former != NULL)
        ports_free(former);
}

static struct iscsi_conn *conn_new(const struct iscsi_portal *portal, struct net_conn *net)
{
    struct iscsi_target *t = portal->t;
    struct iscsi_conn *c = MEM_NEW(struct iscsi_conn);

    c->t = t;
    c->net = net;
    c->is_virtual = portal->is_virtual;
    c->id = ++t->next_conn_id;
    c->statsn = 1;
    c->login_deadline = co_now() + t->conf.login_timeout_ms * NSEC_PER_MSEC;
    c->rx = mem_alloc(ISCSI_RX_BYTES);
    c->text_in = mem_alloc(ISCSI_TEXT_MAX);
    params_init(&c->params);
    list_init(&c->tx);
    list_init(&c->tx_free);
    co_cond_init(&c->tx_wake);
    co_cond_init(&c->tx_done);
    co_sem_init(&c->credits, t->conf.memory_bytes);
    co_group_init(&c->group);
    list_push_back(&t->conns, &c->link);
    t->conn_count++;
    return c;
}

/* Connections that have just been closed may not have been noticed yet. */
#define PLACE_PATIENCE NSEC_PER_SEC

static co_fn bool place_there(struct iscsi_target *t)
{
    nsec_t former = co_deadline_push(co_now() + PLACE_PATIENCE);

    while (t->conn_count >= t->conf.connections && co_cond_wait(&t->conn_gone) == 0)
        ;
    co_deadline_restore(former);
    return t->conn_count < t->conf.connections;
}

static co_fn int accept_main(void *arg)
{
    struct iscsi_portal *portal = arg;
    struct iscsi_target *t = portal->t;

    for (;;) {
        struct net_conn *net;
        int rc = net_accept(portal->listener, &net);

        if (rc == ERR_CANCELED || co_canceled())
            return 0;
        if (rc < 0) {
            /* Out of descriptors or the like: others may end. */
            log_warn("iscsi.accept", "why=\"%s\"", err_text(rc));
            if (co_sleep(100 * NSEC_PER_MSEC) < 0)
                return 0;
            continue;
        }
        if (!place_there(t)) {
            log_warn("iscsi.refused", "address=%s why=\"%u connections already\"", net_peer(net),
                     t->conn_count);
            net_close(net);
            continue;
        }
        co_spawn(&t->group, "iscsi-conn", iscsi_conn_main, conn_new(portal, net));
    }
}

static co_fn int portal_listen(struct iscsi_target *t, struct iscsi_portal *portal,
                               const char *addr)
{
    int rc = net_listen(addr, &portal->listener);

    portal->t = t;
    if (rc < 0)
        return err_prefix(rc, "iSCSI portal %s", addr);
    log_info("iscsi.listen", "portal=%s", net_listener_addr(portal->listener));
    return 0;
}

static co_fn int portals_listen(struct iscsi_target *t)
{
    const char *addr = t->conf.listen_virtual;
    int rc = portal_listen(t, &t->portal, t->conf.listen);

    if (rc < 0 || addr == NULL || addr[0] == '\0')
        return rc;
    rc = portal_listen(t, &t->virtual_portal, addr);
    t->virtual_portal.is_virtual = true;
    if (rc < 0)
        net_listener_close(t->portal.listener);
    return rc;
}

co_fn int iscsi_target_start(const struct iscsi_conf *conf, struct iscsi_target **ret)
{
    struct iscsi_target *t = MEM_NEW(struct iscsi_target);
    int rc;

    t->conf = *conf;
    t->conf.connections = conf->connections ? conf->connections : 256;
    t->conf.window = conf->window ? conf->window : 128;
    t->conf.memory_bytes = conf->memory_bytes ? conf->memory_bytes : 32u * 1024 * 1024;
    t->conf.login_timeout_ms = conf->login_timeout_ms ? conf->login_timeout_ms : 15000;
    t->conf.ping_ms = conf->ping_ms ? conf->ping_ms : 30000;
    t->conf.logout_timeout_ms = conf->logout_timeout_ms ? conf->logout_timeout_ms : 1000;
    /* The longest transfer must fit, or it would wait for ever. */
    t->conf.memory_bytes = MAX(t->conf.memory_bytes, SCSI_TRANSFER_BYTES_MAX);
    ASSERT(t->conf.window <= 4096);
    pr_registry_init(&t->reservations, conf->pr_store);
    co_wg_init(&t->reservation_news);
    list_init(&t->nodes);
    list_init(&t->conns);
    co_cond_init(&t->conn_gone);
    co_group_init(&t->accept_group);
    co_group_init(&t->group);
    co_group_init(&t->refresh_group);
    co_cond_init(&t->refreshed);
    t->lost_logged = -NSEC_PER_SEC;
    t->next_tsih = (uint16_t)env_random();
    for (size_t i = 0; i < ARRAY_SIZE(t->sent); i++)
        t->sent[i].at = INT64_MIN / 2; /* never */
    rc = portals_listen(t);
    if (rc < 0) {
        mem_free(t);
        return rc;
    }
    t->conf.listen = net_listener_addr(t->portal.listener);
    iscsi_target_portals_update(t, NULL, 0);
    co_spawn_detached_deadline(&t->accept_group, "iscsi-accept", accept_main, &t->portal);
    if (t->virtual_portal.listener != NULL)
        co_spawn_detached_deadline(&t->accept_group, "iscsi-accept", accept_main,
                                   &t->virtual_portal);
    *ret = t;
    return 0;
}

const char *iscsi_target_addr(const struct iscsi_target *t)
{
    return t->conf.listen;
}

/* Asynchronous event 1: log out within some seconds. */
static void conn_ask_logout(struct iscsi_conn *c, uint32_t timeout_ms)
{
    struct pdu_out *p;

    if (c->phase == CONN_LOGIN || c->session == NULL) {
        iscsi_conn_break(c, "the target stops");
        return;
    }
    p = conn_pdu(c, OP_ASYNC);
    p->bhs[1] = FLAG_FINAL;
    put_be32(p->bhs + 16, TAG_NONE);
    p->bhs[36] = 1;
    put_be16(p->bhs + 42, (uint16_t)DIV_UP(timeout_ms, 1000));
    iscsi_conn_send_plain(c, p);
}

co_fn void iscsi_target_stop(struct iscsi_target *t)
{
    struct co_shield shield;

    co_shield_begin(&shield);
    co_group_close(&t->accept_group);
    t->stopping = true;
    co_group_close(&t->refresh_group);
    co_cond_broadcast(&t->refreshed);
    LIST_FOREACH (c, &t->conns, struct iscsi_conn, link)
        conn_ask_logout(c, t->conf.logout_timeout_ms);
    nsec_t former = co_deadline_push(co_now() + t->conf.logout_timeout_ms * NSEC_PER_MSEC);
    while (t->conn_count > 0 && co_cond_wait(&t->conn_gone) == 0)
        ;
    co_deadline_restore(former);
    LIST_FOREACH (c, &t->conns, struct iscsi_conn, link)
        iscsi_conn_break(c, "the target stops");
    while (t->conn_count > 0)
        co_cond_wait_always(&t->conn_gone);
    iscsi_target_exports_update(t, &(Zbs__Meta__ExportsGetReply)ZBS__META__EXPORTS_GET_REPLY__INIT);
    co_group_join(&t->group);
    co_wg_wait(&t->reservation_news);
    co_shield_end(&shield);
    net_listener_close(t->portal.listener);
    if (t->virtual_portal.listener != NULL)
        net_listener_close(t->virtual_portal.listener);
    ports_free(t->ports);
    ASSERT(list_empty(&t->nodes));
    pr_registry_fini(&t->reservations);
    mem_free(t);
}

void iscsi_target_drop(struct iscsi_target *t, const char *why)
{
    log_warn("iscsi.drop", "connections=%u why=\"%s\"", t->conn_count, why);
    LIST_FOREACH (c, &t->conns, struct iscsi_conn, link)
        iscsi_conn_break(c, why);
}

int iscsi_target_reservations_changed(struct iscsi_target *t, uint64_t volume_id)
{
    nsec_t former;
    int rc;

    if (t->stopping)
        return err_set(ERR_AGAIN, "the target stops");
    co_wg_add(&t->reservation_news, 1);
    former = co_deadline_push(co_now() + ISCSI_PATHS_WAIT);
    rc = pr_registry_changed(&t->reservations, volume_id);
    co_deadline_restore(former);
    co_wg_done(&t->reservation_news);
    return rc;
}

void iscsi_target_volume_changed(struct iscsi_target *t, uint64_t volume_id)
{
    LIST_FOREACH (node, &t->nodes, struct iscsi_node, link)
        scsi_target_volume_changed(&node->scsi, volume_id);
}

void iscsi_target_space_changed(struct iscsi_target *t)
{
    LIST_FOREACH (node, &t->nodes, struct iscsi_node, link)
        scsi_target_space_changed(&node->scsi);
}

void iscsi_target_sessions(struct iscsi_target *t,
                           void (*fn)(void *arg, const struct iscsi_session_view *v), void *arg)
{
    LIST_FOREACH (c, &t->conns, struct iscsi_conn, link) {
        const struct iscsi_session *s = c->session;

        if (s == NULL || LIST_FIRST(&s->conns, struct iscsi_conn, session_link) != c)
            continue; /* each session once, with the address of its oldest connection */
        struct iscsi_session_view v = {.target = s->node->iqn,
                                       .initiator = s->initiator,
                                       .address = net_peer(c->net),
                                       .reads = s->reads,
                                       .writes = s->writes,
                                       .read_bytes = s->read_bytes,
                                       .write_bytes = s->write_bytes};
        fn(arg, &v);
    }
}
