/* SPDX-License-Identifier: Apache-2.0
 *
 * Data from the initiator: unsolicited and solicited Data-Out PDUs, R2T. DataPDUInOrder and
 * DataSequenceInOrder are Yes, so bytes come in order; `received` is where the next one belongs.
 * They go from the socket into the command's buffer.
 *
 * A PDU that is out of order or fails its digest damages its command only (RFC 7143, 7.8 and
 * 7.9): what the initiator was asked for is awaited and dropped, then the command ends with
 * ABORTED COMMAND. A Data-Out that no command asked for, or on another connection than its
 * command's, ends the connection; one for a task that is gone is dropped in silence. */
#include <string.h>
#include "access/iscsi/iscsi_int.h"

bool data_out_complete(const struct iscsi_task *task)
{
    if (task->damaged)
        return !task->unsolicited && task->r2t_count == 0;
    return !task->unsolicited && task->received >= task->cmd.out_len;
}

void data_out_damaged(struct iscsi_task *task, const char *why)
{
    if (!task->damaged)
        log_info("iscsi.damaged", "conn=%llu itt=0x%08x why=\"%s\"",
                 (unsigned long long)task->conn->stream.id, task->itt, why);
    task->damaged = true;
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
        iscsi_conn_send(c, p);
    }
}

/* Bytes at task->received: what the command takes into its buffer, the rest is dropped. The task
 * may be aborted while we read: *ret_gone. */
static co_fn int data_out_bytes(struct iscsi_task *task, const struct pdu_in *p, bool *ret_gone)
{
    struct iscsi_conn *c = task->conn;
    uint16_t generation = task->generation;
    uint32_t at = task->received, len = p->data_len;
    bool direct = !task->damaged && task->cmd.out != NULL && at + len <= task->held_bytes;
    struct buf *b = direct ? buf_get(task->cmd.out) : buf_alloc(MAX(len, 1u));
    int rc = conn_read_data(c, b->data + (direct ? at : 0), len);

    *ret_gone = task->generation != generation || task->cmd.abort_requested;
    if (rc == 0 && !*ret_gone && !direct && !task->damaged && task->cmd.out != NULL &&
        at < task->held_bytes)
        memcpy(task->cmd.out->data + at, b->data, task->held_bytes - at);
    buf_put(b);
    if (rc == ERR_CORRUPT) {
        conn_reject(c, p, REJECT_DATA_DIGEST);
        rc = conn_plain_wait(c);
        if (!*ret_gone)
            data_out_damaged(task, "data digest does not match");
    }
    return rc;
}

static struct iscsi_task *task_find_any(struct iscsi_session *s, uint32_t itt)
{
    LIST_FOREACH (held, &s->held, struct iscsi_task, link) {
        if (held->itt == itt)
            return held;
    }
    return task_find(s, itt);
}

static co_fn int data_out_unsolicited(struct iscsi_conn *c, const struct pdu_in *p)
{
    struct iscsi_task *task = task_find_any(c->session, p->itt);
    bool gone;
    int rc;

    if (task == NULL || task->cmd.abort_requested)
        return conn_read_data(c, NULL, p->data_len);
    if (task->conn != c)
        return err_set(ERR_PROTO, "Data-Out on another connection than its command");
    if (!task->unsolicited)
        return err_set(ERR_PROTO, "unsolicited Data-Out for a task that announced none");
    if (p->data_len > task->unsol_max - MIN(task->received, task->unsol_max))
        return err_set(ERR_PROTO, "unsolicited Data-Out beyond the first burst");
    if (p->datasn != task->unsol_datasn || p->offset != task->received)
        data_out_damaged(task, "unsolicited Data-Out out of order");
    rc = data_out_bytes(task, p, &gone);
    if (rc < 0 || gone)
        return rc;
    task->received += p->data_len;
    task->unsol_datasn++;
    if (p->final) {
        task->unsolicited = false;
        co_cond_signal(&task->data_wake);
    }
    return 0;
}

static co_fn int data_out_solicited(struct iscsi_conn *c, const struct pdu_in *p)
{
    struct iscsi_session *s = c->session;
    uint32_t slot = p->ttt >> 16;
    struct iscsi_task *task = slot < s->task_count ? &s->tasks[slot] : NULL;
    struct r2t *r;
    bool gone;
    int rc;

    if (task == NULL || task->generation != (uint16_t)p->ttt || task->phase != TASK_DATA ||
        task->cmd.abort_requested || task->session == NULL)
        return conn_read_data(c, NULL, p->data_len);
    if (task->conn != c)
        return err_set(ERR_PROTO, "Data-Out on another connection than its command");
    r = &task->r2ts[task->r2t_head];
    if (p->itt != task->itt || task->r2t_count == 0 || p->data_len > r->len - r->got)
        return err_set(ERR_PROTO, "Data-Out beyond what was asked for");
    if (p->datasn != r->datasn || p->offset != r->offset + r->got ||
        p->final != (r->got + p->data_len == r->len))
        data_out_damaged(task, "Data-Out out of order");
    rc = data_out_bytes(task, p, &gone);
    if (rc < 0 || gone)
        return rc;
    r->datasn++;
    r->got += p->data_len;
    task->received += p->data_len;
    if (p->final) {
        task->r2t_head = (task->r2t_head + 1) % OUR_MAX_R2T;
        task->r2t_count--;
        if (!task->damaged)
            data_out_ask(task);
    }
    if (data_out_complete(task))
        co_cond_signal(&task->data_wake);
    return 0;
}

co_fn int data_out_receive(struct iscsi_conn *c, const struct pdu_in *p)
{
    return p->ttt == TAG_NONE ? data_out_unsolicited(c, p) : data_out_solicited(c, p);
}
