/* SPDX-License-Identifier: Apache-2.0
 *
 * Sessions: their birth at the end of a login, reinstatement, command numbering. */
#include <string.h>
#include <strings.h>
#include "access/iscsi/iscsi_int.h"

#define REINSTATE_LIMIT (10 * NSEC_PER_SEC) /* initiators wait for 15 s as a rule */

/* A session of this initiator that has to end first: of the same port, because a login of the
 * port means that it is gone; of another port, if its connection is. */
static struct iscsi_session *session_former(const struct iscsi_conn *c, struct iscsi_node *node,
                                            const uint8_t isid[6])
{
    LIST_FOREACH (s, &node->sessions, struct iscsi_session, link) {
        if (strcasecmp(s->initiator, c->initiator) == 0 &&
            (memcmp(s->isid, isid, 6) == 0 || s->conn->broken != NULL))
            return s;
    }
    return NULL;
}

/* What the initiator's former sessions still do ends before the new one begins, so that no old
 * write lands after a new one. What they have not begun is dropped. */
static co_fn int session_reinstate(struct iscsi_conn *c, struct iscsi_node *node,
                                   const uint8_t isid[6])
{
    nsec_t until = MIN(c->login_deadline, co_now() + REINSTATE_LIMIT);
    struct iscsi_session *old;

    while ((old = session_former(c, node, isid)) != NULL) {
        if (old->conn->broken == NULL)
            log_info("iscsi.reinstated", "initiator=%s target=%s tsih=%u", c->initiator, node->iqn,
                     old->tsih);
        iscsi_conn_break(old->conn, "the initiator logged in again");
        nsec_t former = co_deadline_push(until);
        int rc = co_cond_wait(&node->t->conn_gone);
        co_deadline_restore(former);
        if (rc < 0)
            return err_set(rc, "commands of the initiator's former session do not end");
        if (c->broken != NULL)
            return err_set(ERR_CLOSED, "%s", c->broken);
    }
    return 0;
}

static uint16_t session_new_tsih(struct iscsi_target *t)
{
    if (++t->next_tsih == 0) /* 0 asks for a new session */
        t->next_tsih = 1;
    return t->next_tsih;
}

co_fn int session_open(struct iscsi_conn *c, struct iscsi_node *node, const uint8_t isid[6],
                       uint32_t cmdsn)
{
    struct iscsi_target *t = c->t;
    struct iscsi_session *s;
    char port[PR_INITIATOR_MAX];
    int rc;

    co_wg_add(&node->users, 1); /* keeps the node while we wait */
    rc = session_reinstate(c, node, isid);
    if (rc == 0 && node->removed)
        rc = err_set(ERR_NOTFOUND, "target %s was removed during login", node->iqn);
    if (rc < 0) {
        co_wg_done(&node->users);
        return rc;
    }
    s = MEM_NEW(struct iscsi_session);
    s->node = node;
    s->conn = c;
    memcpy(s->isid, isid, 6);
    memcpy(s->initiator, c->initiator, sizeof(s->initiator));
    s->tsih = session_new_tsih(t);
    s->exp_cmdsn = cmdsn;
    s->window = t->conf.window;
    list_init(&s->free);
    list_init(&s->active);
    list_init(&s->held);
    co_cond_init(&s->task_ended);
    s->task_count = s->window + ISCSI_IMMEDIATE_MAX;
    s->tasks = MEM_NEW_ARRAY(struct iscsi_task, s->task_count);
    for (uint32_t i = 0; i < s->task_count; i++) {
        s->tasks[i].slot = i;
        list_push_back(&s->free, &s->tasks[i].link);
    }
    pr_initiator_name(port, s->initiator, isid);
    scsi_nexus_init(&s->nexus, &node->scsi, net_peer(c->net),
                    iscsi_portal_tag(iscsi_target_addr(t)), port);
    list_push_back(&node->sessions, &s->link);
    c->session = s;
    return 0;
}

void session_free(struct iscsi_session *s)
{
    struct iscsi_node *node = s->node;

    ASSERT(list_empty(&s->active) && list_empty(&s->held));
    s->conn->session = NULL;
    scsi_nexus_fini(&s->nexus);
    list_del(&s->link);
    mem_free(s->tasks);
    mem_free(s);
    co_wg_done(&node->users);
}

uint32_t session_max_cmdsn(const struct iscsi_session *s)
{
    /* Never moves back: a command that arrives raises ExpCmdSN and in_flight together. */
    return s->exp_cmdsn + (s->window - s->in_flight) - 1;
}

enum cmdsn_verdict session_cmdsn(struct iscsi_session *s, const struct pdu_in *p)
{
    int32_t ahead = (int32_t)(p->cmdsn - s->exp_cmdsn);

    if (ahead < 0 || (int32_t)(session_max_cmdsn(s) - p->cmdsn) < 0)
        return CMDSN_IGNORE;
    return ahead == 0 ? CMDSN_RUN : CMDSN_HOLD;
}
