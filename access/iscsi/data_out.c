/* SPDX-License-Identifier: Apache-2.0
 *
 * Data from the initiator: unsolicited and solicited Data-Out PDUs, R2T. DataPDUInOrder and
 * DataSequenceInOrder are Yes, so bytes come in order; `received` is where the next one belongs.
 * They go from the socket into the command's buffer. Any violation ends the connection (error
 * recovery level 0); a Data-Out for a task that is gone is dropped in silence. */
#include <string.h>
#include "access/iscsi/iscsi_int.h"

bool data_out_complete(const struct iscsi_task *task)
{
    return !task->unsolicited && task->received >= task->cmd.out_len;
}

void data_out_ask(struct iscsi_task *task)
{
    struct iscsi_conn *c = task->conn;
    uint32_t total = task->cmd.out_len;

    task->asked = MAX(task->asked, task->received);
    while (task->r2t_count < c->params.value[PARAM_MAX_R2T] && task->asked < total) {
        struct r2t *r = &task->r2ts[(task->r2t_head + task->r2t_count) % OUR_MAX_R2T];
        struct pdu_out *p = conn_pdu(c, OP_R2T);

        *r = (struct r2t){.number = task->r2t_number++,
                          .offset = task->asked,
                          .len = MIN(total - task->asked, c->params.value[PARAM_MAX_BURST])};
        task->asked += r->len;
        task->r2t_count++;
        p->statsn = STATSN_NEXT;
        p->bhs[1] = FLAG_FINAL;
        memcpy(p->bhs + 8, task->lun, 8);
        put_be32(p->bhs + 16, task->itt);
        put_be32(p->bhs + 20, task->slot << 16 | task->generation);
        put_be32(p->bhs + 36, r->number);
        put_be32(p->bhs + 40, r->offset);
        put_be32(p->bhs + 44, r->len);
        conn_send(c, p);
    }
}

/* Bytes at task->received: what the command takes into its buffer, the rest is dropped. */
static co_fn int data_out_bytes(struct iscsi_task *task, uint32_t len)
{
    struct scsi_cmd *cmd = &task->cmd;
    uint32_t at = task->received;
    int rc;

    if (at + len <= task->held_bytes) {
        struct buf *b = buf_get(cmd->out); /* the task may be aborted while we read */

        rc = conn_read_data(task->conn, b->data + at, len);
        buf_put(b);
        return rc;
    }
    struct buf *b = buf_alloc(MAX(len, 1u));
    rc = conn_read_data(task->conn, b->data, len);
    if (rc == 0 && at < task->held_bytes && cmd->out != NULL)
        memcpy(cmd->out->data + at, b->data, task->held_bytes - at);
    buf_put(b);
    return rc;
}

static co_fn int data_out_unsolicited(struct iscsi_session *s, const struct pdu_in *p)
{
    struct iscsi_task *task = task_find(s, p->itt);
    int rc;

    if (task == NULL) {
        LIST_FOREACH (held, &s->held, struct iscsi_task, link) {
            if (held->itt == p->itt)
                task = held;
        }
    }
    if (task == NULL || task->cmd.abort_requested)
        return conn_read_data(s->conn, NULL, p->data_len);
    if (!task->unsolicited)
        return err_set(ERR_PROTO, "unsolicited Data-Out for a task that announced none");
    if (p->datasn != task->unsol_datasn || p->offset != task->received)
        return err_set(ERR_PROTO, "Data-Out number %u at %u, expected %u at %u", p->datasn,
                       p->offset, task->unsol_datasn, task->received);
    if (p->data_len > task->unsol_max - MIN(task->received, task->unsol_max))
        return err_set(ERR_PROTO, "unsolicited Data-Out beyond the first burst");
    uint16_t generation = task->generation;
    rc = data_out_bytes(task, p->data_len);
    if (rc < 0 || task->generation != generation || task->cmd.abort_requested)
        return rc; /* aborted meanwhile */
    task->received += p->data_len;
    task->unsol_datasn++;
    if (p->final) {
        task->unsolicited = false;
        co_cond_signal(&task->data_wake);
    }
    return 0;
}

static co_fn int data_out_solicited(struct iscsi_session *s, const struct pdu_in *p)
{
    uint32_t slot = p->ttt >> 16;
    struct iscsi_task *task = slot < s->task_count ? &s->tasks[slot] : NULL;
    struct r2t *r;
    int rc;

    if (task == NULL || task->generation != (uint16_t)p->ttt || task->phase != TASK_DATA ||
        task->cmd.abort_requested || task->session == NULL)
        return conn_read_data(s->conn, NULL, p->data_len);
    r = &task->r2ts[task->r2t_head];
    if (p->itt != task->itt || task->r2t_count == 0)
        return err_set(ERR_PROTO, "Data-Out without an R2T");
    if (p->datasn != r->datasn || p->offset != r->offset + r->got ||
        p->data_len > r->len - r->got || p->final != (r->got + p->data_len == r->len))
        return err_set(
            ERR_PROTO, "Data-Out number %u at %u of %u bytes, expected number %u at %u of up to %u",
            p->datasn, p->offset, p->data_len, r->datasn, r->offset + r->got, r->len - r->got);
    uint16_t generation = task->generation;
    rc = data_out_bytes(task, p->data_len);
    if (rc < 0 || task->generation != generation || task->cmd.abort_requested)
        return rc;
    r->datasn++;
    r->got += p->data_len;
    task->received += p->data_len;
    if (r->got == r->len) {
        task->r2t_head = (task->r2t_head + 1) % OUR_MAX_R2T;
        task->r2t_count--;
        data_out_ask(task);
    }
    if (data_out_complete(task))
        co_cond_signal(&task->data_wake);
    return 0;
}

co_fn int data_out_receive(struct iscsi_session *s, const struct pdu_in *p)
{
    return p->ttt == TAG_NONE ? data_out_unsolicited(s, p) : data_out_solicited(s, p);
}
