/* SPDX-License-Identifier: Apache-2.0
 *
 * A SCSI command from its PDU to its response. A command that needs nothing (no data from the
 * initiator, no back end) is answered by the reader at once; every other one gets a coroutine:
 *
 *     HELD ---> LOOKUP ---> GATHER ---> CREDIT ---> DATA ---> EXECUTE ---> RESPOND
 *     CmdSN     the unit    unsolicited memory      R2T       the command  PDUs queued
 *
 * LOOKUP is for units that are not there yet: meta may know of them already, or their volumes are
 * being opened. Initiators that begin to use a unit do not all try again.
 *
 * Memory: a command whose data fits the first burst and that brings some along gets its buffer at
 * once, because the bytes are already under way; their sum is bounded by window x first burst.
 * Every other buffer waits for the connection's credits. A long write that brings data along
 * while credits are short starts in a buffer for the first burst alone and is moved (the one
 * copy) when there is room for all of it. */
#include <string.h>
#include "access/iscsi/iscsi_int.h"

#define REPORT_LUNS   0xa0
#define LOOK_AGAIN    NSEC_PER_SEC       /* before meta is asked for the same unit again */
#define OPEN_PATIENCE (2 * NSEC_PER_SEC) /* of a command, with the opening of its volume */

/* ---- birth and end ---- */

static void task_aborted(struct scsi_cmd *cmd)
{
    struct iscsi_task *task = CONTAINER_OF(cmd, struct iscsi_task, cmd);

    if (!task->running) /* the reader has it in hand */
        return;
    switch (task->phase) {
    case TASK_GATHER:
    case TASK_DATA:
        co_cond_broadcast(&task->data_wake);
        break;
    case TASK_LOOKUP:
    case TASK_CREDIT:
        co_cancel(task->co);
        break;
    case TASK_EXECUTE:
        /* A read may be dropped half-way; a write that was sent may not (PROTOCOL 3.2). */
        if (scsi_cmd_is_read(cmd) || !cmd->begun)
            co_cancel(task->co);
        break;
    default:
        break;
    }
}

static struct scsi_lun *task_lun(const struct iscsi_task *task)
{
    const struct scsi_target *t = &task->session->node->scsi;

    return task->cmd.lun_number < SCSI_LUNS_MAX ? t->luns[task->cmd.lun_number] : NULL;
}

/* Is there a chance that meta's export table shows more than ours? */
static bool task_wants_refresh(const struct iscsi_task *task)
{
    const struct iscsi_session *s = task->session;
    uint16_t number = task->cmd.lun_number;

    if (task->conn->t->conf.refresh == NULL)
        return false;
    if (task->cmd.cdb[0] == REPORT_LUNS)
        return true;
    return number < SCSI_LUNS_MAX && task_lun(task) == NULL &&
           co_now() >= s->looked[number] + LOOK_AGAIN;
}

/* Is its volume being opened for the first time? NULL: no, or the command does not need it. */
static struct iscsi_lun *task_opening(const struct iscsi_task *task)
{
    const struct scsi_lun *scsi = task_lun(task);
    struct iscsi_lun *lun;

    if (scsi == NULL || scsi->backend != NULL || !scsi_cdb_needs_medium(task->cmd.cdb))
        return NULL;
    lun = iscsi_lun_find(task->session->node, scsi->number);
    return lun != NULL && !lun->tried.set ? lun : NULL;
}

/* From here on it counts: towards the window, or as an immediate one. */
static void task_admit(struct iscsi_task *task)
{
    if (task->immediate) {
        task->session->immediates++;
    } else {
        task->session->exp_cmdsn++;
        task->session->in_flight++;
    }
    if (task_wants_refresh(task) || task_opening(task) != NULL) {
        task->phase = TASK_LOOKUP;
        return;
    }
    task->phase = TASK_GATHER;
    scsi_cmd_start(&task->cmd);
}

static struct iscsi_task *task_new(struct iscsi_conn *c, const struct pdu_in *p)
{
    struct iscsi_session *s = c->session;
    struct list *l = list_pop_front(&s->free);
    struct iscsi_task *task;
    int lun = scsi_lun_decode(p->lun);
    uint32_t slot;
    uint16_t generation;

    if (l == NULL)
        return NULL;
    task = LIST_ENTRY(l, struct iscsi_task, link);
    slot = task->slot;
    generation = (uint16_t)(task->generation + 1);
    memset(task, 0, sizeof(*task));
    task->slot = slot;
    task->generation = generation;
    list_push_back(&s->active, &task->link);
    co_cond_init(&task->data_wake);
    task->session = s;
    task->conn = c;
    task->itt = p->itt;
    task->cmdsn = p->cmdsn;
    task->immediate = p->immediate;
    task->edtl = p->edtl;
    memcpy(task->lun, p->lun, 8);
    task->cmd.nexus = &s->nexus;
    task->cmd.lun_number =
        (uint16_t)(lun < 0 || lun >= (int)SCSI_LUNS_MAX ? (int)SCSI_LUNS_MAX : lun);
    memcpy(task->cmd.cdb, p->cdb, SCSI_CDB_MAX);
    task->cmd.attr = (enum scsi_attr)(p->flags & 7);
    task->cmd.out_expected = p->flags & FLAG_WRITE ? p->edtl : 0;
    /* Reads of bidirectional commands would have their length in an additional header; none of
     * our commands has both. */
    task->cmd.in_expected = (p->flags & (FLAG_WRITE | FLAG_READ)) == FLAG_READ ? p->edtl : 0;
    task->cmd.aborted = task_aborted;
    list_init(&task->cmd.link);
    return task;
}

void task_free(struct iscsi_task *task)
{
    struct iscsi_session *s = task->session;

    scsi_cmd_end(&task->cmd);
    if (task->credit_bytes > 0)
        co_sem_release(&task->conn->credits, task->credit_bytes);
    if (task->phase != TASK_HELD && task->immediate)
        s->immediates--;
    else if (task->phase != TASK_HELD)
        s->in_flight--;
    list_del(&task->link);
    /* Recently used first: it is in the cache. */
    list_push_front(&s->free, &task->link);
    co_cond_broadcast(&s->task_ended);
}

struct iscsi_task *task_find(struct iscsi_session *s, uint32_t itt)
{
    LIST_FOREACH (task, &s->active, struct iscsi_task, link) {
        if (task->itt == itt)
            return task;
    }
    return NULL;
}

/* ---- the coroutine's steps ---- */

static bool task_dead(const struct iscsi_task *task)
{
    return task->cmd.abort_requested || task->conn->stream.broken != NULL;
}

/* Waits for the unit to appear and to be open, not for long; then the command's checks. */
static co_fn void task_lookup(struct iscsi_task *task)
{
    uint16_t number = task->cmd.lun_number;
    struct iscsi_lun *lun;

    if (task_wants_refresh(task)) {
        int rc = iscsi_target_refresh(task->conn->t);

        if (rc < 0 && !task_dead(task))
            log_info("iscsi.lookup", "target=%s lun=%u why=\"%s\"", task->session->node->iqn,
                     number, err_text(rc));
        if (number < SCSI_LUNS_MAX && task_lun(task) == NULL)
            task->session->looked[number] = co_now();
    }
    lun = task_opening(task);
    if (lun != NULL && !task_dead(task)) {
        nsec_t former = co_deadline_push(co_now() + OPEN_PATIENCE);

        (void)co_event_wait(&lun->tried); /* the unit may be gone, and lun with it */
        co_deadline_restore(former);
    }
    task->phase = TASK_GATHER;
    if (!task_dead(task))
        scsi_cmd_start(&task->cmd);
}

static co_fn void task_gather(struct iscsi_task *task)
{
    task->phase = TASK_GATHER;
    while (task->unsolicited && !task_dead(task))
        co_cond_wait_always(&task->data_wake);
}

/* Waits for memory for what the command still needs; moves a first burst that came already. */
static co_fn void task_credit(struct iscsi_task *task)
{
    struct scsi_cmd *cmd = &task->cmd;
    uint32_t need = cmd->out_len > 0 ? cmd->out_len : cmd->in_cap;

    if (need == 0 || (cmd->out_len > 0 && task->held_bytes >= need))
        return;
    task->phase = TASK_CREDIT;
    if (co_sem_acquire(&task->conn->credits, need) < 0) {
        cmd->abort_requested = true; /* only a cancel gets here */
        return;
    }
    task->credit_bytes += need;
    if (cmd->out_len == 0)
        return;
    struct buf *whole = buf_alloc(need);
    if (task->received > 0)
        memcpy(whole->data, cmd->out->data, task->received);
    buf_put(cmd->out);
    cmd->out = whole;
    task->held_bytes = need;
}

static co_fn void task_data(struct iscsi_task *task)
{
    task->phase = TASK_DATA;
    data_out_ask(task);
    while (!data_out_complete(task) && !task_dead(task))
        co_cond_wait_always(&task->data_wake);
}

static void task_count(struct iscsi_task *task)
{
    struct iscsi_session *s = task->session;

    if (task->cmd.status != SCSI_GOOD)
        return;
    if (scsi_cmd_is_read(&task->cmd)) {
        s->reads++;
        s->read_bytes += task->cmd.in_len;
    } else if (scsi_cmd_is_write(&task->cmd)) {
        s->writes++;
        s->write_bytes += task->cmd.out_len;
    }
}

/* Its outcome is unknown, or it may be too old to be executed: the initiator repeats it once it
 * has logged in again. One report a second. */
static void task_lost(struct iscsi_task *task)
{
    struct iscsi_target *t = task->conn->t;
    const struct scsi_cmd *cmd = &task->cmd;
    nsec_t now = co_now();

    task->phase = TASK_RESPOND;
    if (task->conn->stream.broken != NULL)
        return;
    if (now - t->lost_logged >= NSEC_PER_SEC) {
        log_warn("iscsi.unanswered",
                 "conn=%llu initiator=%s target=%s lun=%u opcode=0x%02x error=%s why=\"%s\" "
                 "unreported=%u",
                 (unsigned long long)task->conn->stream.id, task->session->initiator,
                 task->session->node->iqn, cmd->lun_number, cmd->cdb[0], err_name(cmd->lost),
                 err_text(cmd->lost), t->lost_unlogged);
        t->lost_logged = now;
        t->lost_unlogged = 0;
    } else {
        t->lost_unlogged++;
    }
    stream_break(&task->conn->stream, "a write has no certain outcome");
}

static void task_respond(struct iscsi_task *task)
{
    task->phase = TASK_RESPOND;
    task_count(task);
    data_in_respond(task);
    task_free(task);
}

static co_fn int task_main(void *arg)
{
    struct iscsi_task *task = arg;
    struct scsi_cmd *cmd = &task->cmd;

    if (task->phase == TASK_LOOKUP)
        task_lookup(task);
    task_gather(task);
    if (!cmd->done && !task->damaged && !task_dead(task)) {
        task_credit(task);
        if (!task_dead(task) && cmd->out_len > 0)
            task_data(task);
        if (!task_dead(task) && !task->damaged) {
            task->phase = TASK_EXECUTE;
            scsi_cmd_execute(cmd);
        }
    }
    if (task->damaged && !cmd->done)
        scsi_cmd_damaged(cmd);
    if (cmd->lost != 0)
        task_lost(task);
    if (task_dead(task))
        task_free(task); /* aborted: no response */
    else
        task_respond(task);
    return 0;
}

/* ---- arrival ---- */

/* In CmdSN order: the command's checks, then its answer or its coroutine. */
static void task_start(struct iscsi_task *task)
{
    struct scsi_cmd *cmd = &task->cmd;

    if (task->damaged && !cmd->done && !task->unsolicited && task->phase != TASK_LOOKUP)
        scsi_cmd_damaged(cmd);
    if (cmd->done && !task->unsolicited) {
        task_respond(task);
        return;
    }
    task->running = true;
    task->co = co_spawn(&task->conn->group, "iscsi-task", task_main, task);
}

void task_release_held(struct iscsi_session *s)
{
    bool again;

    do {
        again = false;
        LIST_FOREACH_SAFE (task, &s->held, struct iscsi_task, link) {
            if (task->cmdsn != s->exp_cmdsn || task->in_hand)
                continue;
            list_del(&task->link);
            list_push_back(&s->active, &task->link);
            task_admit(task);
            task_start(task);
            again = true;
        }
    } while (again);
    co_cond_broadcast(&s->turn);
}

/* A buffer for data that is already under way; NULL if the command takes none. What a command
 * takes is not known before its checks: room for all that may come unsolicited then. */
static void task_early_buffer(struct iscsi_task *task)
{
    struct scsi_cmd *cmd = &task->cmd;
    bool checked = task->phase != TASK_HELD && task->phase != TASK_LOOKUP;
    uint32_t early = checked ? MIN(cmd->out_len, task->unsol_max) : task->unsol_max, size = early;

    if (early == 0)
        return;
    if (cmd->out_len > early && co_sem_try(&task->conn->credits, cmd->out_len)) {
        size = cmd->out_len;
        task->credit_bytes = size;
    }
    cmd->out = buf_alloc(size);
    task->held_bytes = size;
}

/* Immediate data: what the command takes goes to its buffer, the rest is dropped. */
static co_fn int task_immediate_data(struct iscsi_task *task, uint32_t len)
{
    struct scsi_cmd *cmd = &task->cmd;
    int rc;

    if (len == 0)
        return 0;
    if (len <= task->held_bytes) {
        rc = conn_read_data(task->conn, cmd->out->data, len);
    } else {
        struct buf *b = buf_alloc(len);

        rc = conn_read_data(task->conn, b->data, len);
        if (task->held_bytes > 0)
            memcpy(cmd->out->data, b->data, task->held_bytes);
        buf_put(b);
    }
    task->received = len;
    if (rc == ERR_CORRUPT) {
        data_out_damaged(task, "data digest does not match");
        rc = 0;
    }
    return rc;
}

static int task_check_immediate(const struct iscsi_conn *c, const struct pdu_in *p)
{
    if (p->data_len > 0 && !c->params.value[PARAM_IMMEDIATE_DATA])
        return err_set(ERR_PROTO, "immediate data although ImmediateData=No");
    if (p->data_len > c->params.value[PARAM_FIRST_BURST])
        return err_set(ERR_PROTO, "immediate data beyond the first burst");
    if (!p->final && c->params.value[PARAM_INITIAL_R2T])
        return err_set(ERR_PROTO, "unsolicited data although InitialR2T=Yes");
    return 0;
}

/* A command ahead of its turn: those before it are under way on other connections, or there is a
 * gap in the numbering. It waits unchecked, with room for all that may come unsolicited. */
static co_fn int task_hold(struct iscsi_task *task, uint32_t data_len)
{
    struct iscsi_session *s = task->session;
    int rc;

    list_del(&task->link);
    list_push_back(&s->held, &task->link);
    task->phase = TASK_HELD;
    task->in_hand = true;
    task_early_buffer(task);
    rc = task_immediate_data(task, data_len);
    task->in_hand = false;
    if (rc == 0)
        task_release_held(s); /* its turn may have come while we read */
    return rc;
}

static bool session_holds(struct iscsi_session *s, uint32_t cmdsn)
{
    LIST_FOREACH (task, &s->held, struct iscsi_task, link) {
        if (task->cmdsn == cmdsn)
            return true;
    }
    return false;
}

co_fn int task_receive(struct iscsi_conn *c, const struct pdu_in *p)
{
    struct iscsi_session *s = c->session;
    enum cmdsn_verdict verdict = p->immediate ? CMDSN_RUN : session_cmdsn(s, p);
    struct iscsi_task *task;
    int rc = task_check_immediate(c, p);

    if (rc < 0)
        return rc;
    if (verdict == CMDSN_IGNORE || (verdict == CMDSN_HOLD && session_holds(s, p->cmdsn)))
        return conn_read_data(c, NULL, p->data_len);
    if (task_find(s, p->itt) != NULL)
        return err_set(ERR_PROTO, "task tag 0x%08x is in use", p->itt);
    if (p->immediate && s->immediates >= ISCSI_IMMEDIATE_MAX) {
        (void)err_set(ERR_INVAL, "too many immediate commands");
        conn_reject(c, p, REJECT_TOO_MANY_IMMEDIATE);
        rc = conn_read_data(c, NULL, p->data_len);
        return rc < 0 ? rc : conn_plain_wait(c);
    }
    task = task_new(c, p);
    ASSERT(task != NULL); /* the window and the limit of immediates bound their number */
    task->unsolicited = !p->final;
    task->unsol_max = MIN(task->cmd.out_expected, c->params.value[PARAM_FIRST_BURST]);
    if (p->final)
        task->unsol_max = p->data_len;
    if (verdict == CMDSN_HOLD)
        return task_hold(task, p->data_len);
    task_admit(task);
    task_early_buffer(task);
    if (!p->immediate && p->data_len > 0) /* other connections need not wait for its data */
        task_release_held(s);
    rc = task_immediate_data(task, p->data_len);
    if (rc < 0 || task_dead(task)) { /* dead: aborted while we read */
        task_free(task);
        return rc;
    }
    task_start(task);
    if (!p->immediate)
        task_release_held(s);
    return 0;
}

void task_abort_running(struct iscsi_conn *c)
{
    struct iscsi_session *s = c->session;

    LIST_FOREACH (task, &s->active, struct iscsi_task, link) {
        if (task->conn != c)
            continue;
        task->cmd.abort_requested = true;
        task_aborted(&task->cmd);
    }
    for (uint32_t i = 0; i < SCSI_LUNS_MAX; i++) { /* those that wait for their turn */
        if (s->node->scsi.luns[i] != NULL)
            co_cond_broadcast(&s->node->scsi.luns[i]->ended);
    }
}

void task_abort_all(struct iscsi_conn *c)
{
    struct iscsi_session *s = c->session;

    LIST_FOREACH_SAFE (task, &s->held, struct iscsi_task, link) {
        if (task->conn == c)
            task_free(task);
    }
    LIST_FOREACH_SAFE (task, &s->active, struct iscsi_task, link) {
        if (task->conn == c && !task->running)
            task_free(task);
    }
    task_abort_running(c);
}

bool task_any(const struct iscsi_conn *c)
{
    LIST_FOREACH (task, &c->session->active, struct iscsi_task, link) {
        if (task->conn == c)
            return true;
    }
    return false;
}

void task_abort_lookups(struct iscsi_node *n, const struct iscsi_session *only, const uint8_t *lun)
{
    LIST_FOREACH (s, &n->sessions, struct iscsi_session, link) {
        if (only != NULL && s != only)
            continue;
        LIST_FOREACH (task, &s->active, struct iscsi_task, link) {
            if (task->phase != TASK_LOOKUP || (lun != NULL && memcmp(task->lun, lun, 8) != 0))
                continue;
            task->cmd.abort_requested = true;
            task_aborted(&task->cmd);
        }
    }
}
