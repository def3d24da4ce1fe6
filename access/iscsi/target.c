/* SPDX-License-Identifier: Apache-2.0
 *
 * The target as a whole: start, limits, end; and what the outside asks about sessions. */
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

static void port_add(struct scsi_ports *ports, const char *addr, bool leaving)
{
    struct scsi_port *p = &ports->list[ports->count];
    uint16_t tag = iscsi_portal_tag(addr);

    if (addr[0] == '\0' || scsi_port_find(ports, tag) != NULL)
        return;
    snprintf(p->addr, sizeof(p->addr), "%s", addr);
    p->number = tag;
    p->leaving = leaving;
    ports->count++;
}

static void ports_free(struct scsi_ports *ports)
{
    mem_free(ports->list);
    mem_free(ports);
}

void iscsi_target_portals_update(struct iscsi_target *t, const struct iscsi_portal *portals,
                                 size_t n)
{
    struct scsi_ports *former = t->ports, *ports = MEM_NEW(struct scsi_ports);

    ports->list = MEM_NEW_ARRAY(struct scsi_port, n + 1);
    for (size_t i = 0; i < n; i++)
        port_add(ports, portals[i].addr, portals[i].leaving);
    port_add(ports, iscsi_target_addr(t), false); /* which meta may not show yet */
    LIST_FOREACH (node, &t->nodes, struct iscsi_node, link)
        scsi_target_set_ports(&node->scsi, ports);
    t->ports = ports;
    if (former != NULL)
        ports_free(former);
}

static const struct stream_ops stream_ops = {
    .conn_bytes = sizeof(struct iscsi_conn),
    .init = iscsi_conn_init,
    .serve = iscsi_conn_serve,
    .broken = iscsi_conn_broken,
    .pieces = iscsi_pdu_pieces,
    .sent = iscsi_pdu_sent,
};

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
    stream_server_init(&t->stream, &stream_ops, "iscsi", t->conf.connections);
    pr_registry_init(&t->reservations, conf->pr_store);
    co_wg_init(&t->reservation_news);
    list_init(&t->nodes);
    co_group_init(&t->group);
    co_group_init(&t->refresh_group);
    co_group_init(&t->return_group);
    co_cond_init(&t->refreshed);
    t->lost_logged = -NSEC_PER_SEC;
    t->next_tsih = (uint16_t)env_random();
    seen_init(&t->sent);
    seen_init(&t->asked);
    rc = stream_listen(&t->stream, ISCSI_PORTAL, conf->listen);
    if (rc == 0)
        rc = stream_listen(&t->stream, ISCSI_VIRTUAL_PORTAL, conf->listen_virtual);
    if (rc < 0) {
        stream_server_end(&t->stream, 0);
        mem_free(t);
        return rc;
    }
    iscsi_target_portals_update(t, NULL, 0);
    stream_accept(&t->stream);
    if (conf->return_delay != NULL)
        co_spawn_detached_deadline(&t->return_group, "iscsi-return", iscsi_return_main, t);
    *ret = t;
    return 0;
}

const char *iscsi_target_addr(const struct iscsi_target *t)
{
    return stream_server_addr(&t->stream, ISCSI_PORTAL);
}

co_fn void iscsi_target_stop(struct iscsi_target *t)
{
    struct co_shield shield;

    co_shield_begin(&shield);
    stream_accept_end(&t->stream);
    t->stopping = true;
    co_group_close(&t->refresh_group);
    co_group_close(&t->return_group);
    co_cond_broadcast(&t->refreshed);
    LIST_FOREACH (c, &t->stream.conns, struct iscsi_conn, stream.link) {
        if (c->phase == CONN_LOGIN || c->session == NULL)
            stream_break(&c->stream, "the target stops");
        else
            iscsi_ask_logout(c, DIV_UP(t->conf.logout_timeout_ms, 1000));
    }
    stream_server_end(&t->stream, t->conf.logout_timeout_ms);
    iscsi_target_exports_update(t, &(Zbs__Meta__ExportsGetReply)ZBS__META__EXPORTS_GET_REPLY__INIT);
    co_group_join(&t->group);
    co_wg_wait(&t->reservation_news);
    co_shield_end(&shield);
    ports_free(t->ports);
    ASSERT(list_empty(&t->nodes));
    pr_registry_fini(&t->reservations);
    mem_free(t);
}

void iscsi_target_drop(struct iscsi_target *t, const char *why)
{
    stream_server_drop(&t->stream, why);
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
    LIST_FOREACH (c, &t->stream.conns, struct iscsi_conn, stream.link) {
        const struct iscsi_session *s = c->session;

        if (s == NULL || LIST_FIRST(&s->conns, struct iscsi_conn, session_link) != c)
            continue; /* each session once, with the address of its oldest connection */
        struct iscsi_session_view v = {.target = s->node->iqn,
                                       .initiator = s->initiator,
                                       .address = net_peer(c->stream.net),
                                       .reads = s->reads,
                                       .writes = s->writes,
                                       .read_bytes = s->read_bytes,
                                       .write_bytes = s->write_bytes};
        fn(arg, &v);
    }
}
