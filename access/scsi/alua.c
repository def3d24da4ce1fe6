/* SPDX-License-Identifier: Apache-2.0
 *
 * Which port is optimized: see alua.h. */
#include "access/scsi/alua.h"

#include "access/scsi/scsi_int.h"
#include "common/base/addr.h"

const struct scsi_port *scsi_port_find(const struct scsi_ports *ports, uint16_t number)
{
    for (uint32_t i = 0; ports != NULL && i < ports->count; i++) {
        if (ports->list[i].number == number)
            return &ports->list[i];
    }
    return NULL;
}

static bool port_stays(const struct scsi_ports *ports, uint16_t number)
{
    const struct scsi_port *p = scsi_port_find(ports, number);

    return p != NULL && !p->leaving;
}

uint16_t scsi_ports_home(const struct scsi_ports *ports, const char *peer)
{
    uint16_t home = 0;

    for (uint32_t i = 0; ports != NULL && i < ports->count; i++) {
        const struct scsi_port *p = &ports->list[i];

        /* Of several the lowest: the order is not the same everywhere. */
        if (!p->leaving && addr_same_host(p->addr, peer) && (home == 0 || p->number < home))
            home = p->number;
    }
    return home;
}

/* FNV-1a over the unit's name and the port's number, its bits mixed: the highest wins, so a port
 * that comes or goes moves no unit between two others. */
static uint64_t port_weight(const struct scsi_lun *lun, uint16_t number)
{
    uint64_t h = 14695981039346656037u;

    for (size_t i = 0; i < sizeof(lun->info.uuid); i++)
        h = (h ^ lun->info.uuid[i]) * 1099511628211u;
    h = (h ^ number) * 1099511628211u;
    h = (h ^ h >> 32) * 0xd6e8feb86659fd93u;
    return h ^ h >> 32;
}

static uint16_t port_of_unit(const struct scsi_ports *ports, const struct scsi_lun *lun)
{
    const struct scsi_port *best = NULL;
    uint64_t best_weight = 0;

    for (uint32_t i = 0; ports != NULL && i < ports->count; i++) {
        const struct scsi_port *p = &ports->list[i];
        uint64_t weight = port_weight(lun, p->number);

        if (best == NULL || (best->leaving && !p->leaving) ||
            (best->leaving == p->leaving && weight > best_weight)) {
            best = p;
            best_weight = weight;
        }
    }
    return best != NULL ? best->number : 0;
}

/* home, chosen: 0 for none. */
static uint16_t port_optimized(const struct scsi_ports *ports, const struct scsi_lun *lun,
                               uint16_t home, uint16_t chosen)
{
    if (chosen != 0 && port_stays(ports, chosen))
        return chosen;
    return home != 0 ? home : port_of_unit(ports, lun);
}

static uint16_t lun_chosen(const struct scsi_lun *lun)
{
    return lun->pr != NULL ? lun->pr->state.optimized : 0;
}

static uint16_t nexus_home(const struct scsi_nexus *n)
{
    return scsi_ports_home(n->target->ports, n->peer);
}

uint16_t scsi_alua_optimized(const struct scsi_nexus *n, const struct scsi_lun *lun)
{
    return port_optimized(n->target->ports, lun, nexus_home(n), lun_chosen(lun));
}

uint16_t scsi_alua_preferred(const struct scsi_nexus *n, const struct scsi_lun *lun)
{
    return port_optimized(n->target->ports, lun, nexus_home(n), 0);
}

uint16_t scsi_alua_place(const struct scsi_target *t, const char *peer)
{
    uint16_t home = scsi_ports_home(t->ports, peer);

    if (home != 0)
        return home;
    for (uint32_t i = 0; i < SCSI_LUNS_MAX; i++) {
        const struct scsi_lun *lun = t->luns[i];

        if (lun != NULL && lun->backend != NULL)
            return port_optimized(t->ports, lun, 0, lun_chosen(lun));
    }
    return 0;
}

/* ---- telling ---- */

static void nexus_set_ports(struct scsi_nexus *n, const struct scsi_ports *ports)
{
    const struct scsi_target *t = n->target;
    uint16_t former_home = nexus_home(n), home = scsi_ports_home(ports, n->peer);

    for (uint32_t i = 0; i < SCSI_LUNS_MAX; i++) {
        const struct scsi_lun *lun = t->luns[i];

        if (lun == NULL || lun->backend == NULL)
            continue;
        if (port_optimized(t->ports, lun, former_home, lun_chosen(lun)) !=
            port_optimized(ports, lun, home, lun_chosen(lun)))
            n->ua[i] |= SCSI_UA_ACCESS_STATE;
    }
}

void scsi_target_set_ports(struct scsi_target *t, const struct scsi_ports *ports)
{
    LIST_FOREACH (n, &t->nexuses, struct scsi_nexus, link)
        nexus_set_ports(n, ports);
    t->ports = ports;
}

void scsi_alua_chosen(const struct scsi_lun *lun, uint16_t former, const struct scsi_nexus *except)
{
    const struct scsi_target *t = lun->target;

    if (lun->removed || lun_chosen(lun) == former)
        return;
    LIST_FOREACH (n, &t->nexuses, struct scsi_nexus, link) {
        uint16_t home = nexus_home(n);

        if (n != except && port_optimized(t->ports, lun, home, former) !=
                               port_optimized(t->ports, lun, home, lun_chosen(lun)))
            n->ua[lun->number] |= SCSI_UA_ACCESS_STATE;
    }
}
