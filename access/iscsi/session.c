/* SPDX-License-Identifier: Apache-2.0
 *
 * Sessions: their birth at the end of a login, their connections, reinstatement of both, command
 * numbering. */
#include <string.h>
#include <strings.h>
#include "access/iscsi/iscsi_int.h"

#define REINSTATE_LIMIT (10 * NSEC_PER_SEC) /* initiators wait for 15 s as a rule */

/* Has it no connection left that goes on? */
static bool session_ends(const struct iscsi_session *s)
{
    LIST_FOREACH (c, &s->conns, const struct iscsi_conn, session_link) {
        if (c->stream.broken == NULL)
            return false;
    }
    return true;
}

void session_break(struct iscsi_session *s, const char *why)
{
    LIST_FOREACH (c, &s->conns, struct iscsi_conn, session_link)
        stream_break(&c->stream, why);
}

/* A session of this initiator that has to end first: of the same port, because a login of the
 * port means that it is gone; of another port, if its connections are. */
static struct iscsi_session *session_former(const struct iscsi_conn *c, struct iscsi_node *node,
                                            const uint8_t isid[6])
{
    LIST_FOREACH (s, &node->sessions, struct iscsi_session, link) {
        if (strcasecmp(s->initiator, c->initiator) == 0 &&
            (memcmp(s->isid, isid, 6) == 0 || session_ends(s)))
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
        if (!session_ends(old))
            log_info("iscsi.reinstated", "initiator=%s target=%s tsih=%u", c->initiator, node->iqn,
                     old->tsih);
        session_break(old, "the initiator logged in again");
        nsec_t former = co_deadline_push(until);
        int rc = co_cond_wait(&node->t->stream.conn_gone);
        co_deadline_restore(former);
        if (rc < 0)
            return err_set(rc, "commands of the initiator's former session do not end");
        if (c->stream.broken != NULL)
            return err_set(ERR_CLOSED, "%s", c->stream.broken);
    }
    return 0;
}

static uint16_t session_new_tsih(struct iscsi_target *t)
{
    if (++t->next_tsih == 0) /* 0 asks for a new session */
        t->next_tsih = 1;
    return t->next_tsih;
}

static void session_add(struct iscsi_session *s, struct iscsi_conn *c)
{
    list_push_back(&s->conns, &c->session_link);
    s->conn_count++;
    c->session = s;
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
    memcpy(s->isid, isid, 6);
    memcpy(s->initiator, c->initiator, sizeof(s->initiator));
    s->tsih = session_new_tsih(t);
    s->exp_cmdsn = cmdsn;
    s->window = t->conf.window;
    session_return_init(s, c);
    list_init(&s->free);
    list_init(&s->active);
    list_init(&s->held);
    co_cond_init(&s->task_ended);
    co_cond_init(&s->turn);
    list_init(&s->conns);
    s->params = c->params;
    s->task_count = s->window + ISCSI_IMMEDIATE_MAX;
    s->tasks = MEM_NEW_ARRAY(struct iscsi_task, s->task_count);
    for (uint32_t i = 0; i < s->task_count; i++) {
        s->tasks[i].slot = i;
        list_push_back(&s->free, &s->tasks[i].link);
    }
    pr_initiator_name(port, s->initiator, isid);
    scsi_nexus_init(&s->nexus, &node->scsi, net_peer(c->stream.net),
                    iscsi_portal_tag(iscsi_target_addr(t)), port);
    list_push_back(&node->sessions, &s->link);
    session_add(s, c);
    return 0;
}

static void session_free(struct iscsi_session *s)
{
    struct iscsi_node *node = s->node;

    ASSERT(list_empty(&s->active) && list_empty(&s->held) && list_empty(&s->conns));
    scsi_nexus_fini(&s->nexus);
    list_del(&s->link);
    mem_free(s->tasks);
    mem_free(s);
    co_wg_done(&node->users);
}

/* ---- connections ---- */

struct iscsi_session *session_find(struct iscsi_node *node, const char *initiator,
                                   const uint8_t isid[6], uint16_t tsih)
{
    LIST_FOREACH (s, &node->sessions, struct iscsi_session, link) {
        if (s->tsih == tsih && memcmp(s->isid, isid, 6) == 0 &&
            strcasecmp(s->initiator, initiator) == 0 && !session_ends(s))
            return s;
    }
    return NULL;
}

struct iscsi_conn *session_conn(struct iscsi_session *s, uint16_t cid,
                                const struct iscsi_conn *except)
{
    LIST_FOREACH (c, &s->conns, struct iscsi_conn, session_link) {
        if (c->cid == cid && c != except)
            return c;
    }
    return NULL;
}

struct iscsi_conn *session_other(const struct iscsi_conn *c)
{
    LIST_FOREACH (other, &c->session->conns, struct iscsi_conn, session_link) {
        if (other != c)
            return other;
    }
    return NULL;
}

bool session_has_room(struct iscsi_session *s, uint16_t cid)
{
    return session_conn(s, cid, NULL) != NULL ||
           s->conn_count < s->params.value[PARAM_MAX_CONNECTIONS];
}

static bool session_has(const struct iscsi_session *s, uint64_t conn_id)
{
    LIST_FOREACH (c, &s->conns, struct iscsi_conn, session_link) {
        if (c->stream.id == conn_id)
            return true;
    }
    return false;
}

co_fn int session_drop(struct iscsi_conn *c, struct iscsi_conn *other, const char *why)
{
    uint64_t id = other->stream.id;
    nsec_t former = co_deadline_push(co_now() + REINSTATE_LIMIT);
    int rc = 0;

    other->logged_out = true;
    stream_break(&other->stream, why);
    while (rc == 0 && session_has(c->session, id))
        rc = c->stream.broken != NULL ? err_set(ERR_CLOSED, "%s", c->stream.broken)
                                      : co_cond_wait(&c->t->stream.conn_gone);
    co_deadline_restore(former);
    return rc < 0 ? err_prefix(rc, "the session's other connection does not end") : 0;
}

co_fn int session_join(struct iscsi_conn *c, struct iscsi_session *s)
{
    struct iscsi_conn *former;
    int rc = 0;

    session_add(s, c); /* from here on the session stays, whatever becomes of the former one */
    while (rc == 0 && (former = session_conn(s, c->cid, c)) != NULL) {
        log_info("iscsi.reinstated", "initiator=%s target=%s tsih=%u cid=%u", c->initiator,
                 s->node->iqn, s->tsih, c->cid);
        rc = session_drop(c, former, "the initiator logged in with its CID again");
    }
    return rc;
}

co_fn void session_leave(struct iscsi_conn *c)
{
    struct iscsi_session *s = c->session;

    list_del(&c->session_link);
    s->conn_count--;
    c->session = NULL;
    if (!list_empty(&s->conns))
        return;
    nsec_t former = co_deadline_push(co_now() + ISCSI_PATHS_WAIT);
    scsi_nexus_leave(&s->nexus);
    co_deadline_restore(former);
    session_free(s);
}

/* ---- numbers ---- */

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
