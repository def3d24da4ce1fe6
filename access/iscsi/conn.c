/* SPDX-License-Identifier: Apache-2.0
 *
 * A connection from its first byte to its last, and the full feature phase's dispatch. */
#include <string.h>
#include "access/iscsi/iscsi_int.h"

#define TURN_PATIENCE (10 * NSEC_PER_SEC)

void iscsi_conn_init(struct stream_conn *stream)
{
    struct iscsi_conn *c = CONTAINER_OF(stream, struct iscsi_conn, stream);
    struct iscsi_target *t = CONTAINER_OF(stream->server, struct iscsi_target, stream);

    c->t = t;
    c->statsn = 1;
    c->login_deadline = co_now() + t->conf.login_timeout_ms * NSEC_PER_MSEC;
    c->text_in = mem_alloc(ISCSI_TEXT_MAX);
    params_init(&c->params);
    list_init(&c->tx_free);
    co_sem_init(&c->credits, t->conf.memory_bytes);
    co_group_init(&c->group);
}

void iscsi_conn_broken(struct stream_conn *stream)
{
    struct iscsi_conn *c = CONTAINER_OF(stream, struct iscsi_conn, stream);

    if (c->session == NULL)
        return;
    task_abort_running(c);
    co_cond_broadcast(&c->session->turn);
    if (!c->logged_out && c->phase != CONN_LOGIN)
        session_break(c->session, "another connection of the session ended");
}

/* ---- requests that are answered here ---- */

static co_fn int nop_receive(struct iscsi_conn *c, const struct pdu_in *in)
{
    uint32_t len = MIN(in->data_len, c->params.value[PARAM_MAX_RECV_DATA]);
    struct buf *data = in->data_len > 0 ? buf_alloc(in->data_len) : NULL;
    int rc = conn_read_data(c, data != NULL ? data->data : NULL, in->data_len);

    if (rc < 0 || in->itt == TAG_NONE) { /* no answer wanted: one to our own NOP-In */
        buf_put(data);
        return rc;
    }
    struct pdu_out *p = conn_pdu(c, OP_NOP_IN);
    p->bhs[1] = FLAG_FINAL;
    memcpy(p->bhs + 8, in->lun, 8);
    put_be32(p->bhs + 16, in->itt);
    put_be32(p->bhs + 20, TAG_NONE);
    p->buf = data;
    p->data = data != NULL ? data->data : NULL;
    p->len = data != NULL ? len : 0;
    iscsi_conn_send_plain(c, p);
    return conn_plain_wait(c);
}

enum logout_reason { LOGOUT_SESSION = 0, LOGOUT_CONNECTION = 1, LOGOUT_RECOVERY = 2 };
enum logout_answer {
    LOGOUT_DONE = 0,
    LOGOUT_NO_CONNECTION = 1,
    LOGOUT_NO_RECOVERY = 2,
    LOGOUT_FAILED = 3
};

/* This connection ends with the answer. Its tasks end now: an initiator that still waits for some
 * gives them up. */
static co_fn void logout_tasks(struct iscsi_conn *c)
{
    c->logged_out = true;
    c->phase = CONN_LOGOUT;
    if (c->session == NULL)
        return;
    task_abort_all(c);
    while (task_any(c))
        co_cond_wait_always(&c->session->task_ended);
}

/* Of the session: the other connections end before the answer leaves. */
static co_fn enum logout_answer logout_session(struct iscsi_conn *c)
{
    struct iscsi_conn *other;

    logout_tasks(c);
    while (c->session != NULL && (other = session_other(c)) != NULL) {
        if (session_drop(c, other, "the session was logged out") < 0)
            return LOGOUT_FAILED;
    }
    return LOGOUT_DONE;
}

/* Of one connection, this or another one. */
static co_fn enum logout_answer logout_connection(struct iscsi_conn *c, uint16_t cid)
{
    struct iscsi_conn *other = c->session != NULL ? session_conn(c->session, cid, c) : NULL;

    if (cid == c->cid) {
        logout_tasks(c);
        return LOGOUT_DONE;
    }
    if (other == NULL)
        return LOGOUT_NO_CONNECTION;
    return session_drop(c, other, "the connection was logged out") < 0 ? LOGOUT_FAILED
                                                                       : LOGOUT_DONE;
}

/* The response leaves after the tasks ended; the connection that it ends, if it is this one, ends
 * after the response. */
static co_fn int logout_receive(struct iscsi_conn *c, const struct pdu_in *in)
{
    enum logout_answer answer = LOGOUT_NO_CONNECTION;
    uint8_t reason = in->flags & 0x7f;

    if (reason == LOGOUT_SESSION)
        answer = logout_session(c);
    else if (reason == LOGOUT_CONNECTION)
        answer = logout_connection(c, in->cid);
    else if (reason == LOGOUT_RECOVERY)
        answer = LOGOUT_NO_RECOVERY;
    struct pdu_out *p = conn_pdu(c, OP_LOGOUT_RESPONSE);
    p->bhs[1] = FLAG_FINAL;
    p->bhs[2] = (uint8_t)answer;
    put_be32(p->bhs + 16, in->itt);
    p->item.last = c->phase == CONN_LOGOUT;
    iscsi_conn_send_plain(c, p);
    return 0;
}

/* ---- full feature phase ---- */

/* What comes before it may be under way on other connections; on this one it can't be. */
static co_fn int conn_wait_turn(struct iscsi_conn *c, const struct pdu_in *p)
{
    struct iscsi_session *s = c->session;
    nsec_t former = co_deadline_push(co_now() + TURN_PATIENCE);
    int rc = 0;

    while (rc == 0 && s->conn_count > 1 && c->stream.broken == NULL &&
           session_cmdsn(s, p) == CMDSN_HOLD)
        rc = co_cond_wait(&s->turn);
    co_deadline_restore(former);
    if (session_cmdsn(s, p) == CMDSN_HOLD)
        return err_set(ERR_PROTO, "%s out of turn", pdu_op_name(p->opcode));
    return rc;
}

/* Numbered requests other than SCSI commands. true: it is this one's turn. */
static co_fn bool conn_take_number(struct iscsi_conn *c, const struct pdu_in *p, int *ret_rc)
{
    *ret_rc = 0;
    if (p->immediate)
        return true;
    if (c->session == NULL) { /* discovery: numbers are followed, not judged */
        c->exp_cmdsn = p->cmdsn + 1;
        return true;
    }
    *ret_rc = conn_wait_turn(c, p);
    if (*ret_rc < 0 || session_cmdsn(c->session, p) != CMDSN_RUN)
        return false; /* outside the window: ignored */
    c->session->exp_cmdsn++;
    return true;
}

static co_fn int conn_dispatch(struct iscsi_conn *c, const struct pdu_in *p)
{
    int rc;

    if (c->session != NULL && p->opcode == OP_SCSI_COMMAND)
        return task_receive(c, p);
    if (c->session != NULL && p->opcode == OP_DATA_OUT)
        return data_out_receive(c, p);
    if (!conn_take_number(c, p, &rc))
        return rc < 0 ? rc : conn_read_data(c, NULL, p->data_len);
    if (p->opcode == OP_NOP_OUT)
        rc = nop_receive(c, p);
    else if (p->opcode == OP_TEXT)
        rc = text_receive(c, p);
    else if (p->opcode == OP_LOGOUT)
        rc = logout_receive(c, p);
    else if (p->opcode == OP_TASK_MGMT && c->session != NULL)
        rc = tmf_receive(c, p);
    else
        rc = err_set(ERR_PROTO, "%s in %s", pdu_op_name(p->opcode),
                     c->session != NULL ? "full feature phase" : "a discovery session");
    if (rc == 0 && c->session != NULL && !p->immediate)
        task_release_held(c->session);
    return rc;
}

co_fn int iscsi_serve(struct iscsi_conn *c)
{
    struct pdu_in p;
    enum pdu_reject reason;

    while (c->phase == CONN_FULL) {
        int rc = conn_read_header(c, &p, &reason);

        if (rc == ERR_INVAL) {
            conn_reject(c, &p, reason);
            rc = conn_read_data(c, NULL, p.data_len);
            if (rc == 0 && reason == REJECT_PROTOCOL)
                rc = err_set(ERR_PROTO, "%s refused", pdu_op_name(p.opcode));
            if (rc == 0)
                rc = conn_plain_wait(c);
        } else if (rc == 0) {
            rc = conn_dispatch(c, &p);
        }
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* ---- life ---- */

static void conn_fini(struct iscsi_conn *c)
{
    ASSERT(c->session == NULL);
    while (!list_empty(&c->tx_free))
        mem_free(list_pop_front(&c->tx_free)); /* link is a PDU's first member */
    buf_put(c->text_answer);
    mem_free(c->text_in);
}

/* Login and full feature phase. */
static co_fn int conn_run(struct iscsi_conn *c)
{
    unsigned long long id = c->stream.id;
    const char *peer = net_peer(c->stream.net);
    int rc = iscsi_login(c);

    if (rc == 0) {
        if (c->session != NULL)
            log_info("iscsi.session", "conn=%llu initiator=%s address=%s target=%s tsih=%u cid=%u",
                     id, c->initiator, peer, c->session->node->iqn, c->session->tsih, c->cid);
        rc = iscsi_serve(c);
    }
    if (rc < 0 && !(c->phase == CONN_LOGIN && rc == ERR_CLOSED))
        log_info("iscsi.closed", "conn=%llu initiator=%s address=%s why=\"%s\"", id, c->initiator,
                 peer, err_text(rc));
    return rc;
}

co_fn void iscsi_conn_serve(struct stream_conn *stream)
{
    struct iscsi_conn *c = CONTAINER_OF(stream, struct iscsi_conn, stream);
    struct co_shield shield;
    int rc;

    stream_sender_start(stream);
    rc = conn_run(c);
    co_shield_begin(&shield);
    if (rc < 0 && c->phase != CONN_LOGIN)
        stream_break(stream, "the reader ended");
    /* Otherwise what is queued may still leave: a login's refusal, a logout's answer. */
    stream_sender_end(stream);
    if (c->session != NULL)
        task_abort_all(c);
    co_group_join(&c->group);
    if (c->session != NULL)
        session_leave(c);
    co_shield_end(&shield);
    conn_fini(c);
}
