/* SPDX-License-Identifier: Apache-2.0
 *
 * Asymmetric logical unit access (SPC-4 5.15). Every portal of the cluster is a target port, and a
 * target port group of its own. All serve every unit; for each unit one is active/optimized, the
 * others, which as a rule have to ask another access server for their answers, are
 * active/non-optimized. Which one it is follows from what all access servers know alike, so that
 * they tell an initiator the same:
 *
 *     1. the port that SET TARGET PORT GROUPS chose, if it is there and stays (pr_state.optimized)
 *     2. the port on the initiator's own host
 *     3. one that the unit's name and the ports' numbers choose: units spread over the ports, and
 *        only those of a port that goes move */
#ifndef ZBS_ACCESS_SCSI_ALUA_H
#define ZBS_ACCESS_SCSI_ALUA_H

#include <stdbool.h>
#include <stdint.h>

#define SCSI_PORT_ADDR_MAX 128u

struct scsi_lun;
struct scsi_nexus;
struct scsi_target;

struct scsi_port {
    char addr[SCSI_PORT_ADDR_MAX]; /* "10.0.0.1:3260" */
    uint16_t number;               /* relative target port and target port group; never 0 */
    bool leaving;                  /* not for long: the optimized one only if all are */
};

struct scsi_ports {
    struct scsi_port *list;
    uint32_t count;
};

/* Another view of which ports there are, for all units of the target; the former one may be freed
 * afterwards. Nexuses for which another port is optimized now are told. NULL: none are known. */
void scsi_target_set_ports(struct scsi_target *t, const struct scsi_ports *ports);

/* The port on the host of an address; 0: there is none, or it is leaving. */
uint16_t scsi_ports_home(const struct scsi_ports *ports, const char *peer);
const struct scsi_port *scsi_port_find(const struct scsi_ports *ports, uint16_t number);

/* The number of the unit's optimized port, as that nexus sees it. The unit has a back end. */
uint16_t scsi_alua_optimized(const struct scsi_nexus *n, const struct scsi_lun *lun);
/* The same if nobody had chosen one. */
uint16_t scsi_alua_preferred(const struct scsi_nexus *n, const struct scsi_lun *lun);
/* The port at which an initiator from that address does best: that of its host, else the optimized
 * one of the target's first unit; 0: there is none. */
uint16_t scsi_alua_place(const struct scsi_target *t, const char *peer);
/* Somebody chose another port for the unit than `former` (0: none): tells the nexuses that see a
 * difference. except: who did; NULL: somebody elsewhere. */
void scsi_alua_chosen(const struct scsi_lun *lun, uint16_t former, const struct scsi_nexus *except);

#endif
