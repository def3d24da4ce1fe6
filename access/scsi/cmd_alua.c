/* SPDX-License-Identifier: Apache-2.0
 *
 * REPORT TARGET PORT GROUPS and SET TARGET PORT GROUPS (SPC-4 6.37, 6.45): see alua.h. */
#include "access/scsi/scsi_int.h"

enum { STATE_OPTIMIZED = 0, STATE_NON_OPTIMIZED = 1, STATE_PREF = 0x80 };
enum { SUPPORTS_OPTIMIZED = 0x01, SUPPORTS_NON_OPTIMIZED = 0x02 };
enum { STATUS_EXPLICIT = 1, STATUS_IMPLICIT = 2 };

#define REPORT_EXTENDED 0x20u /* of CDB byte 1: the answer has a longer header */
#define GROUP_BYTES     12u   /* of one with a single port */
#define SET_HEADER      4u
#define SET_BYTES       4u

static void group_put(const struct scsi_cmd *c, uint16_t number, uint8_t *p)
{
    const struct scsi_lun *lun = c->lun;
    const struct scsi_port *chosen =
        lun->pr != NULL ? scsi_port_find(c->nexus->target->ports, lun->pr->state.optimized) : NULL;

    p[0] = number == scsi_alua_optimized(c->nexus, lun) ? STATE_OPTIMIZED : STATE_NON_OPTIMIZED;
    if (number == scsi_alua_preferred(c->nexus, lun))
        p[0] |= STATE_PREF;
    p[1] = SUPPORTS_OPTIMIZED | SUPPORTS_NON_OPTIMIZED;
    put_be16(p + 2, number);
    p[5] = chosen != NULL && !chosen->leaving ? STATUS_EXPLICIT : STATUS_IMPLICIT;
    p[7] = 1; /* ports in the group */
    put_be16(p + 10, number);
}

void scsi_check_report_groups(struct scsi_cmd *c)
{
    const struct scsi_ports *ports = c->nexus->target->ports;
    uint32_t count = ports != NULL ? ports->count : 0;
    uint32_t len = c->cdb[1] & REPORT_EXTENDED ? 8 : 4;
    struct buf *b = scsi_answer_buf(len + count * GROUP_BYTES);

    c->alloc_len = get_be32(c->cdb + 6);
    if (c->cdb[1] & REPORT_EXTENDED)
        b->data[4] = 0x10; /* this format; a change takes no time */
    for (uint32_t i = 0; i < count; i++, len += GROUP_BYTES)
        group_put(c, ports->list[i].number, b->data + len);
    put_be32(b->data, len - 4);
    scsi_cmd_answer(c, b, len);
}

void scsi_check_set_groups(struct scsi_cmd *c)
{
    uint32_t len = get_be32(c->cdb + 6);

    c->wanted = len;
    if (len == 0) {
        c->done = true;
        return;
    }
    if (len < SET_HEADER || len % SET_BYTES != 0 || len > SCSI_PARAMETER_BYTES_MAX ||
        c->out_expected < len) {
        sense_parameter_list_length(c);
        return;
    }
    c->out_len = len;
}

/* Which port the list wants to be optimized; 0 with sense set. */
static uint16_t set_parse(struct scsi_cmd *c)
{
    const uint8_t *p = c->out->data;
    uint16_t next = scsi_alua_optimized(c->nexus, c->lun);

    for (uint32_t at = SET_HEADER; at < c->out_len; at += SET_BYTES) {
        if ((p[at] & 0x0f) > STATE_NON_OPTIMIZED) { /* standby and the like are not supported */
            sense_invalid_parameter(c, at, 3);
            return 0;
        }
        if (scsi_port_find(c->nexus->target->ports, get_be16(p + at + 2)) == NULL) {
            sense_invalid_parameter(c, at + 2, 8);
            return 0;
        }
        if ((p[at] & 0x0f) == STATE_OPTIMIZED)
            next = get_be16(p + at + 2);
    }
    for (uint32_t at = SET_HEADER; at < c->out_len; at += SET_BYTES) {
        if (((p[at] & 0x0f) == STATE_OPTIMIZED) == (get_be16(p + at + 2) == next))
            continue;
        sense_set_groups_failed(c); /* one port is optimized, not none and not two */
        return 0;
    }
    return next;
}

co_fn void scsi_run_set_groups(struct scsi_cmd *c)
{
    uint16_t next = set_parse(c);
    int rc;

    if (next == 0 || next == scsi_alua_optimized(c->nexus, c->lun))
        return;
    /* Back to where the initiator would be anyway: the others are, too. */
    if (next == scsi_alua_preferred(c->nexus, c->lun))
        next = 0;
    rc = pr_unit_optimize(c->lun->pr, next, c);
    if (rc < 0)
        sense_from_err(c, rc, SCSI_IO_ATOMIC);
}
