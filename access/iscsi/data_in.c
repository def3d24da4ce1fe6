/* SPDX-License-Identifier: Apache-2.0
 *
 * The end of a command: Data-In PDUs that point into the buffer that the back end filled, and the
 * response. A GOOD status travels in the last Data-In PDU (phase collapse). The reference to the
 * buffer and its memory credits go with the last PDU, so a slow initiator slows down itself. */
#include <string.h>
#include "access/iscsi/iscsi_int.h"

static void put_residual(const struct scsi_cmd *cmd, uint8_t *bhs)
{
    if (cmd->residual == SCSI_RESIDUAL_OVERFLOW)
        bhs[1] |= FLAG_OVERFLOW;
    else if (cmd->residual == SCSI_RESIDUAL_UNDERFLOW)
        bhs[1] |= FLAG_UNDERFLOW;
    put_be32(bhs + 44, cmd->residual_bytes);
}

static void send_data(struct iscsi_task *task)
{
    struct iscsi_conn *c = task->conn;
    struct scsi_cmd *cmd = &task->cmd;
    uint32_t segment = c->params.value[PARAM_MAX_RECV_DATA];
    uint32_t burst = c->params.value[PARAM_MAX_BURST], in_burst = 0;

    for (uint32_t at = 0, n; at < cmd->in_len; at += n) {
        struct pdu_out *p = conn_pdu(c, OP_DATA_IN);

        n = MIN(MIN(segment, burst - in_burst), cmd->in_len - at);
        in_burst += n;
        if (in_burst == burst || at + n == cmd->in_len) {
            p->bhs[1] |= FLAG_FINAL;
            in_burst = 0;
        }
        p->statsn = STATSN_NONE;
        put_be32(p->bhs + 16, task->itt);
        put_be32(p->bhs + 20, TAG_NONE);
        put_be32(p->bhs + 36, task->in_datasn++);
        put_be32(p->bhs + 40, at);
        p->data = cmd->in->data + at;
        p->len = n;
        if (at + n == cmd->in_len) {
            p->bhs[1] |= FLAG_STATUS;
            p->statsn = STATSN_ADVANCE;
            p->bhs[3] = cmd->status;
            put_residual(cmd, p->bhs);
            p->buf = cmd->in;
            cmd->in = NULL;
            p->credit_bytes = task->credit_bytes;
            task->credit_bytes = 0;
            iscsi_conn_send(c, p);
            return;
        }
        iscsi_conn_send(c, p);
    }
}

void data_in_respond(struct iscsi_task *task)
{
    struct scsi_cmd *cmd = &task->cmd;

    if (cmd->status == SCSI_GOOD && cmd->in_len > 0) {
        send_data(task);
        return;
    }
    struct pdu_out *p = conn_pdu(task->conn, OP_SCSI_RESPONSE);
    p->bhs[1] = FLAG_FINAL;
    p->bhs[3] = cmd->status;
    put_be32(p->bhs + 16, task->itt);
    put_residual(cmd, p->bhs);
    uint32_t n = scsi_cmd_sense(cmd, p->small + 2);
    if (n > 0) {
        put_be16(p->small, (uint16_t)n);
        p->data = p->small;
        p->len = 2 + n;
    }
    iscsi_conn_send(task->conn, p);
}
