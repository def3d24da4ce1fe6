/* SPDX-License-Identifier: Apache-2.0
 *
 * PERSISTENT RESERVE IN and OUT (SPC-4 6.15, 6.16): CDBs and parameter data. What they mean is in
 * pr.c. */
#include <string.h>
#include "access/scsi/scsi_int.h"
#include "common/base/mem.h"

enum { PR_IN_KEYS, PR_IN_RESERVATION, PR_IN_CAPABILITIES, PR_IN_FULL_STATUS };

/* ---- PERSISTENT RESERVE IN ---- */

static uint32_t in_keys(const struct pr_state *s, uint8_t *p)
{
    for (uint32_t i = 0; i < s->count; i++)
        put_be64(p + 8 + 8 * i, s->regs[i].key);
    put_be32(p + 4, 8 * s->count);
    return 8 + 8 * s->count;
}

/* The key is 0 where all registrants hold the reservation. */
static uint32_t in_reservation(const struct pr_state *s, uint8_t *p)
{
    if (s->type == PR_NONE)
        return 8;
    for (uint32_t i = 0; i < s->count; i++) {
        if (s->regs[i].holder)
            put_be64(p + 8, s->regs[i].key);
    }
    put_be32(p + 4, 16);
    p[21] = s->type; /* scope 0: the logical unit */
    return 24;
}

static uint32_t in_full_status(const struct pr_state *s, uint8_t *p)
{
    uint32_t len = 8;

    for (uint32_t i = 0; i < s->count; i++) {
        const struct pr_registrant *r = &s->regs[i];
        uint8_t *d = p + len;
        uint32_t id = pr_transport_id_put(d + 24, r->nexus.initiator);

        put_be64(d, r->key);
        d[12] = r->nexus.port == PR_PORT_ALL ? 0x02 : 0; /* ALL_TG_PT */
        if (pr_holds(s, r)) {
            d[12] |= 0x01; /* R_HOLDER */
            d[13] = s->type;
        }
        put_be16(d + 18, r->nexus.port);
        put_be32(d + 20, id);
        len += 24 + id;
    }
    put_be32(p + 4, len - 8);
    return len;
}

static uint32_t in_capabilities(const struct pr_unit *u, uint8_t *p)
{
    bool persistent = pr_unit_persistent(u);

    put_be16(p, 8);
    p[2] = (uint8_t)(0x08 | 0x04 | (persistent ? 0x01 : 0));            /* SIP_C, ATP_C, PTPL_C */
    p[3] = (uint8_t)(0x80 | (persistent && u->state.aptpl ? 0x01 : 0)); /* TMV, PTPL_A */
    p[4] = 0x80 | 0x40 | 0x20 | 0x08 | 0x02; /* WR_EX_AR, EX_AC_RO, WR_EX_RO, EX_AC, WR_EX */
    p[5] = 0x01;                             /* EX_AC_AR */
    return 8;
}

void scsi_check_pr_in(struct scsi_cmd *c)
{
    const struct pr_unit *u = c->lun->pr;
    const struct pr_state *s = &u->state;
    struct buf *b = scsi_answer_buf(24 + s->count * (24 + PR_INITIATOR_MAX + 8));
    uint8_t action = c->cdb[1] & 0x1f;
    uint32_t len;

    c->alloc_len = get_be16(c->cdb + 7);
    if (action != PR_IN_CAPABILITIES)
        put_be32(b->data, s->generation);
    switch (action) {
    case PR_IN_KEYS:
        len = in_keys(s, b->data);
        break;
    case PR_IN_RESERVATION:
        len = in_reservation(s, b->data);
        break;
    case PR_IN_FULL_STATUS:
        len = in_full_status(s, b->data);
        break;
    default:
        len = in_capabilities(u, b->data);
        break;
    }
    scsi_cmd_answer(c, b, len);
}

/* ---- RESERVE(6), RELEASE(6): whole units, for oneself ---- */

enum { RELEASE_6 = 0x17 };

void scsi_check_reserve_6(struct scsi_cmd *c)
{
    (void)c;
}

co_fn void scsi_run_reserve_6(struct scsi_cmd *c)
{
    enum pr_answer answer = PR_GOOD;
    enum pr_legacy what = c->cdb[0] == RELEASE_6 ? PR_LEGACY_RELEASE : PR_LEGACY_RESERVE;
    int rc = pr_unit_legacy(c->lun->pr, what, &c->nexus->id, c, &answer);

    if (rc < 0)
        sense_from_err(c, rc, SCSI_IO_ATOMIC);
    else if (answer == PR_CONFLICT)
        c->status = SCSI_RESERVATION_CONFLICT;
}

/* ---- PERSISTENT RESERVE OUT ---- */

#define OUT_BYTES     24u
#define OUT_BYTES_MAX 8192u
#define OTHERS_MAX    32u /* TransportIDs of one command */

enum { OUT_SPEC_I_PT = 0x08, OUT_ALL_TG_PT = 0x04, OUT_APTPL = 0x01 };
enum { MOVE_UNREG = 0x02, MOVE_APTPL = 0x01 };

static uint8_t out_action(const struct scsi_cmd *c)
{
    return c->cdb[1] & 0x1f;
}

static bool action_has_type(uint8_t action)
{
    return action == PR_RESERVE || action == PR_RELEASE || action == PR_PREEMPT ||
           action == PR_PREEMPT_AND_ABORT;
}

void scsi_check_pr_out(struct scsi_cmd *c)
{
    uint32_t len = get_be32(c->cdb + 5);

    if (action_has_type(out_action(c)) &&
        (c->cdb[2] >> 4 != 0 || !pr_type_valid(c->cdb[2] & 0x0f))) {
        sense_invalid_cdb_field(c, 2, c->cdb[2] >> 4 != 0 ? 7 : 3);
        return;
    }
    c->wanted = len;
    if (len < OUT_BYTES || len > OUT_BYTES_MAX || c->out_expected < len) {
        sense_parameter_list_length(c);
        return;
    }
    c->out_len = len;
}

/* REGISTER with SPEC_I_PT: who else is registered. Through the same target port. */
static bool out_parse_others(struct scsi_cmd *c, struct pr_command *cmd, struct pr_nexus *others)
{
    const uint8_t *p = c->out->data;
    uint32_t at = OUT_BYTES + 4, end, n;

    if (c->out_len < at || get_be32(p + OUT_BYTES) != c->out_len - at) {
        sense_parameter_list_length(c);
        return false;
    }
    for (end = c->out_len; at < end; at += n) {
        struct pr_nexus *o = &others[cmd->other_count];

        n = cmd->other_count < OTHERS_MAX ? pr_transport_id_parse(p + at, end - at, o->initiator)
                                          : 0;
        if (n == 0) {
            sense_invalid_parameter(c, at, 8);
            return false;
        }
        o->port = cmd->who.port;
        cmd->other_count++;
    }
    return true;
}

static bool out_parse_move(struct scsi_cmd *c, struct pr_command *cmd, struct pr_nexus *to)
{
    const uint8_t *p = c->out->data;

    cmd->unregister = p[17] & MOVE_UNREG;
    cmd->aptpl = p[17] & MOVE_APTPL;
    to->port = get_be16(p + 18);
    cmd->other_count = 1;
    if (get_be32(p + 20) != c->out_len - OUT_BYTES) {
        sense_parameter_list_length(c);
        return false;
    }
    if (pr_transport_id_parse(p + OUT_BYTES, c->out_len - OUT_BYTES, to->initiator) !=
        c->out_len - OUT_BYTES) {
        sense_invalid_parameter(c, OUT_BYTES, 8);
        return false;
    }
    if (to->port == PR_PORT_ALL) { /* a relative target port is never 0 */
        sense_invalid_parameter(c, 18, 8);
        return false;
    }
    return true;
}

/* false: sense is set. others: room for OTHERS_MAX. */
static bool out_parse(struct scsi_cmd *c, struct pr_command *cmd, struct pr_nexus *others)
{
    const uint8_t *p = c->out->data;
    uint8_t flags = p[20];

    cmd->action = (enum pr_action)out_action(c);
    cmd->type = c->cdb[2] & 0x0f;
    cmd->key = get_be64(p);
    cmd->action_key = get_be64(p + 8);
    cmd->who = c->nexus->id;
    cmd->others = others;
    if (cmd->action == PR_REGISTER_AND_MOVE) {
        if (!out_parse_move(c, cmd, &others[0]))
            return false;
    } else if (cmd->action == PR_REGISTER || cmd->action == PR_REGISTER_AND_IGNORE) {
        cmd->aptpl = flags & OUT_APTPL;
        cmd->all_ports = flags & OUT_ALL_TG_PT;
    }
    if (cmd->aptpl && !pr_unit_persistent(c->lun->pr)) {
        sense_invalid_parameter(c, cmd->action == PR_REGISTER_AND_MOVE ? 17 : 20, 0);
        return false;
    }
    if (cmd->action == PR_REGISTER_AND_MOVE)
        return true;
    if ((flags & OUT_SPEC_I_PT) && cmd->action != PR_REGISTER) {
        sense_invalid_parameter(c, 20, 3);
        return false;
    }
    if (flags & OUT_SPEC_I_PT)
        return out_parse_others(c, cmd, others);
    if (c->out_len != OUT_BYTES) {
        sense_parameter_list_length(c);
        return false;
    }
    return true;
}

static void out_answer(struct scsi_cmd *c, enum pr_answer answer)
{
    switch (answer) {
    case PR_GOOD:
        break;
    case PR_CONFLICT:
        c->status = SCSI_RESERVATION_CONFLICT;
        break;
    case PR_INVALID_RELEASE:
        sense_invalid_release(c);
        break;
    case PR_NO_ROOM:
        sense_registration_resources(c);
        break;
    case PR_INVALID_KEY:
        sense_invalid_parameter(c, 8, 8);
        break;
    case PR_INVALID_OTHER:
        sense_invalid_parameter(c, OUT_BYTES, 8);
        break;
    }
}

co_fn void scsi_run_pr_out(struct scsi_cmd *c)
{
    struct pr_nexus *others = MEM_NEW_ARRAY(struct pr_nexus, OTHERS_MAX);
    struct pr_command cmd = {0};
    enum pr_answer answer = PR_GOOD;

    if (out_parse(c, &cmd, others)) {
        int rc = pr_unit_out(c->lun->pr, &cmd, c, &answer);

        if (rc < 0)
            sense_from_err(c, rc, SCSI_IO_ATOMIC);
        else
            out_answer(c, answer);
    }
    mem_free(others);
}
