/* SPDX-License-Identifier: Apache-2.0
 *
 * Task management: marks what is affected and answers once it has ended, in a coroutine of its
 * own, so that the reader goes on. */
#include <string.h>
#include "access/iscsi/iscsi_int.h"

enum tmf_function {
    TMF_ABORT_TASK = 1,
    TMF_ABORT_TASK_SET = 2,
    TMF_CLEAR_ACA = 3,
    TMF_CLEAR_TASK_SET = 4,
    TMF_LUN_RESET = 5,
    TMF_WARM_RESET = 6,
    TMF_COLD_RESET = 7,
    TMF_TASK_REASSIGN = 8,
};

enum tmf_response {
    TMF_COMPLETE = 0,
    TMF_NO_TASK = 1,
    TMF_NO_LUN = 2,
    TMF_NO_REASSIGN = 4,
    TMF_NOT_SUPPORTED = 5,
    TMF_REJECTED = 255,
};

struct tmf {
    struct iscsi_conn *conn;
    struct pdu_in pdu;
};

static co_fn enum tmf_response tmf_abort_task(struct iscsi_session *s, const struct pdu_in *p)
{
    struct iscsi_task *task = task_find(s, p->ref_itt);

    if (task == NULL || memcmp(task->lun, p->lun, 8) != 0)
        return TMF_NO_TASK;
    uint16_t generation = task->generation;
    task->cmd.abort_requested = true;
    task->cmd.aborted(&task->cmd);
    if (task->cmd.lun != NULL)
        co_cond_broadcast(&task->cmd.lun->ended);
    while (task->generation == generation && task_find(s, p->ref_itt) == task)
        co_cond_wait_always(&s->task_ended);
    return TMF_COMPLETE;
}

/* Aborts all commands on every unit, then tells every nexus; a cold reset also ends every
 * session of the target, the asker's after its answer. */
static co_fn void tmf_target_reset(struct iscsi_session *s, bool cold)
{
    struct iscsi_node *node = s->node;

    for (uint32_t i = 0; i < SCSI_LUNS_MAX; i++) {
        if (node->scsi.luns[i] != NULL)
            scsi_lun_reset(node->scsi.luns[i]);
    }
    if (!cold)
        return;
    LIST_FOREACH (other, &node->sessions, struct iscsi_session, link) {
        if (other != s)
            session_break(other, "target cold reset");
    }
}

static co_fn enum tmf_response tmf_run(struct iscsi_session *s, const struct pdu_in *p)
{
    uint8_t function = p->flags & 0x7f;
    int number = scsi_lun_decode(p->lun);
    struct scsi_lun *lun =
        number >= 0 && number < (int)SCSI_LUNS_MAX ? s->node->scsi.luns[number] : NULL;

    switch (function) {
    case TMF_ABORT_TASK_SET:
    case TMF_CLEAR_TASK_SET:
    case TMF_LUN_RESET:
    case TMF_ABORT_TASK:
        if (lun == NULL)
            return TMF_NO_LUN;
        break;
    default:
        break;
    }
    if (function == TMF_ABORT_TASK_SET)
        task_abort_lookups(s->node, s, p->lun);
    else if (function == TMF_CLEAR_TASK_SET || function == TMF_LUN_RESET)
        task_abort_lookups(s->node, NULL, p->lun);
    else if (function == TMF_WARM_RESET || function == TMF_COLD_RESET)
        task_abort_lookups(s->node, NULL, NULL);
    switch (function) {
    case TMF_ABORT_TASK:
        return tmf_abort_task(s, p);
    case TMF_ABORT_TASK_SET:
        scsi_lun_abort(lun, &s->nexus);
        return TMF_COMPLETE;
    case TMF_CLEAR_TASK_SET:
        scsi_target_attention(&s->node->scsi, lun, SCSI_UA_CLEARED, &s->nexus);
        scsi_lun_abort(lun, NULL);
        return TMF_COMPLETE;
    case TMF_LUN_RESET:
        scsi_lun_reset(lun);
        return TMF_COMPLETE;
    case TMF_WARM_RESET:
    case TMF_COLD_RESET:
        tmf_target_reset(s, function == TMF_COLD_RESET);
        return TMF_COMPLETE;
    case TMF_TASK_REASSIGN:
        return TMF_NO_REASSIGN;
    case TMF_CLEAR_ACA:
        return TMF_NOT_SUPPORTED; /* NACA is 0 */
    default:
        return TMF_REJECTED;
    }
}

/* A reset tells other access servers; they are not waited for without end. */
static co_fn enum tmf_response tmf_run_bounded(struct iscsi_session *s, const struct pdu_in *p)
{
    nsec_t former = co_deadline_push(co_now() + ISCSI_PATHS_WAIT);
    enum tmf_response response = tmf_run(s, p);

    co_deadline_restore(former);
    return response;
}

static co_fn int tmf_main(void *arg)
{
    struct tmf *tmf = arg;
    struct iscsi_conn *c = tmf->conn;
    struct iscsi_session *s = c->session;
    uint8_t function = tmf->pdu.flags & 0x7f;
    enum tmf_response response = tmf_run_bounded(s, &tmf->pdu);
    struct pdu_out *p = conn_pdu(c, OP_TASK_MGMT_RESPONSE);

    if (function > TMF_ABORT_TASK)
        log_info("iscsi.tmf", "initiator=%s target=%s function=%u response=%u", s->initiator,
                 s->node->iqn, function, response);
    p->bhs[1] = FLAG_FINAL;
    p->bhs[2] = (uint8_t)response;
    put_be32(p->bhs + 16, tmf->pdu.itt);
    p->item.last = function == TMF_COLD_RESET && response == TMF_COMPLETE;
    c->tmfs--;
    iscsi_conn_send_plain(c, p);
    mem_free(tmf);
    return 0;
}

co_fn int tmf_receive(struct iscsi_conn *c, const struct pdu_in *p)
{
    if (c->tmfs >= ISCSI_IMMEDIATE_MAX) {
        (void)err_set(ERR_INVAL, "too many task management requests");
        conn_reject(c, p, REJECT_TOO_MANY_IMMEDIATE);
        return conn_plain_wait(c);
    }
    struct tmf *tmf = MEM_NEW(struct tmf);
    tmf->conn = c;
    tmf->pdu = *p;
    tmf->pdu.cdb = NULL;
    c->tmfs++;
    co_spawn(&c->group, "iscsi-tmf", tmf_main, tmf);
    return conn_plain_wait(c);
}
