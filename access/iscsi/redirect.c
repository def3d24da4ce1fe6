/* SPDX-License-Identifier: Apache-2.0
 *
 * Where an initiator should log in: at the access server of its own host, wherever it came in; and
 * never at the virtual portal, whose address moves to another host when its host fails, nor at an
 * access server that is leaving. Switched on by the cluster's setting iscsi.redirect.
 *
 * Nobody is sent around in a circle: a portal to which an initiator is sent is, as that access
 * server sees it, the initiator's own; and whoever comes back soon, because it could not log in
 * there, stays. */
#include "access/iscsi/iscsi_int.h"

/* Initiators wait for a connection and a login for 15 s as a rule. */
#define BACK_SOON (20 * NSEC_PER_SEC)

bool iscsi_redirects(const struct iscsi_target *t)
{
    return t->conf.redirects != NULL && t->conf.redirects(t->conf.arg);
}

bool iscsi_leaves(const struct iscsi_target *t)
{
    const struct scsi_port *own = scsi_port_find(t->ports, iscsi_portal_tag(iscsi_target_addr(t)));
    bool others = false;

    for (uint32_t i = 0; i < t->ports->count; i++)
        others = others || !t->ports->list[i].leaving;
    return others && own->leaving;
}

/* Was it sent away from here a moment ago? If not, it will have been. */
static bool back_soon(struct iscsi_target *t, uint64_t key)
{
    bool back = seen_lately(&t->sent, key, BACK_SOON);

    if (back)
        seen_forget(&t->sent, key);
    else
        seen_note(&t->sent, key);
    return back;
}

const char *iscsi_redirect(struct iscsi_conn *c, const struct iscsi_node *node,
                           const uint8_t isid[6])
{
    struct iscsi_target *t = c->t;
    uint16_t own = iscsi_portal_tag(iscsi_target_addr(t)), to;
    const struct scsi_port *p;

    if (!iscsi_redirects(t))
        return NULL;
    to = iscsi_conn_is_virtual(c) || iscsi_leaves(t)
             ? scsi_alua_place(&node->scsi, net_peer(c->stream.net))
             : scsi_ports_home(t->ports, net_peer(c->stream.net));
    if (to == 0)
        to = own;
    if (to == own && !iscsi_conn_is_virtual(c))
        return NULL;
    c->came_back = back_soon(t, seen_key(node->iqn, c->initiator, isid));
    if (c->came_back)
        return NULL;
    p = scsi_port_find(t->ports, to);
    return p != NULL ? p->addr : NULL;
}
