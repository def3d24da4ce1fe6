/* SPDX-License-Identifier: Apache-2.0
 *
 * Shared by the files of access/iscsi. Objects and who holds them:
 *
 *     iscsi_target 1--* iscsi_node (an exported target) 1--* scsi_lun
 *     iscsi_target 1--* iscsi_conn 1..*--0..1 iscsi_session *--1 iscsi_node
 *     iscsi_session 1--* iscsi_task (a SCSI command in flight)
 *
 * A connection is a coroutine that reads (login, then full feature phase) and one that writes; a
 * command that does not end at once is a coroutine in the connection's group. When the reader
 * ends, for whatever reason, its tasks are aborted, the group is joined, and the connection is
 * freed, with the session if it was the last: nothing of a connection outlives its reader. */
#ifndef ZBS_ACCESS_ISCSI_ISCSI_INT_H
#define ZBS_ACCESS_ISCSI_ISCSI_INT_H

#include "access/iscsi/chap.h"
#include "access/iscsi/iscsi.h"
#include "access/iscsi/param.h"
#include "access/iscsi/pdu.h"
#include "access/stream/stream.h"
#include "common/base/assert.h"
#include "common/base/log.h"
#include "common/base/mem.h"

#define ISCSI_NAME_MAX      223u
#define ISCSI_TEXT_MAX      16384u /* text of one negotiation, collected over several PDUs */
#define ISCSI_IMMEDIATE_MAX 16u    /* immediate commands beyond the window */
#define ISCSI_PATHS_WAIT    (2 * NSEC_PER_SEC) /* for other paths to hear of a reset, an end */
#define ISCSI_PLAIN_MAX     64u                /* queued answers to anything but commands */

/* ---- exported targets ---- */

struct iscsi_lun {
    struct list link; /* node->luns */
    struct iscsi_target *t;
    struct iscsi_node *node;
    struct scsi_lun *scsi;
    uint64_t volume_id;
    struct co_event tried; /* its back end is open, or could not be opened at first */
    struct co_event gone;
};

struct iscsi_node {
    struct list link; /* t->nodes, until removed */
    struct iscsi_target *t;
    char iqn[ISCSI_NAME_MAX + 1];
    struct scsi_target scsi;
    char *chap_user, *chap_secret; /* "": none */
    char **initiators;             /* allowed; empty: all */
    size_t n_initiators;
    struct list luns;
    struct list sessions;
    struct co_wg users; /* luns and sessions */
    bool removed;
    bool marked; /* of exports_update */
};

enum { ISCSI_PORTAL, ISCSI_VIRTUAL_PORTAL }; /* the target's listeners */

/* Initiator ports to which something was done at a target, and when (seen.c). */
struct iscsi_seen {
    struct {
        uint64_t key;
        nsec_t at;
    } list[512];
};

uint64_t seen_key(const char *iqn, const char *initiator, const uint8_t isid[6]);
void seen_init(struct iscsi_seen *seen);
void seen_note(struct iscsi_seen *seen, uint64_t key);
void seen_forget(struct iscsi_seen *seen, uint64_t key);
/* Was it noted within that time? */
bool seen_lately(const struct iscsi_seen *seen, uint64_t key, nsec_t span);

struct iscsi_target {
    struct stream_server stream;
    struct iscsi_conf conf;  /* with defaults filled in */
    struct iscsi_seen sent;  /* to another portal */
    struct iscsi_seen asked; /* to move back to their own */
    struct pr_registry reservations;
    struct co_wg reservation_news; /* being obeyed */
    struct list nodes;
    struct scsi_ports *ports; /* the portals of the cluster, this one among them */
    uint16_t next_tsih;
    struct co_group group; /* units; removed nodes */
    struct co_group return_group;
    /* reading the export table anew (refresh.c); counts of calls */
    struct co_group refresh_group;
    uint64_t refresh_wanted, refresh_begun, refresh_ended;
    int refresh_rc; /* of the last one */
    bool refreshing, stopping;
    nsec_t refresh_paced;
    struct co_cond refreshed;
    nsec_t lost_logged; /* last report of a command that got no answer */
    uint32_t lost_unlogged;
};

/* Would iscsi_target_refresh ask at once, without waiting for its pace? */
bool iscsi_target_refresh_ready(const struct iscsi_target *t);
struct iscsi_lun *iscsi_lun_find(struct iscsi_node *n, uint32_t number);
struct iscsi_node *iscsi_node_find(struct iscsi_target *t, const char *iqn);
bool iscsi_node_allows(const struct iscsi_node *n, const char *initiator);
/* Group tag of a portal: the same on every access server. */
uint16_t iscsi_portal_tag(const char *addr);

/* ---- outgoing PDUs ---- */

enum statsn_use { STATSN_NONE, STATSN_NEXT, STATSN_ADVANCE };

struct pdu_out {
    struct stream_item item; /* `last`: the connection ends after it */
    struct iscsi_conn *conn;
    uint8_t bhs[BHS_BYTES];
    uint8_t head_digest[DIGEST_BYTES];
    const uint8_t *data; /* inside buf, or `small` */
    uint32_t len;
    struct buf *buf;                /* reference, dropped once sent; NULL */
    uint8_t tail[3 + DIGEST_BYTES]; /* padding, data digest */
    uint8_t statsn;                 /* enum statsn_use */
    bool plain;                     /* counts towards ISCSI_PLAIN_MAX */
    uint32_t credit_bytes;          /* given back once sent */
    uint8_t small[2 + SCSI_SENSE_MAX];
};

/* ---- connections ---- */

enum conn_phase { CONN_LOGIN, CONN_FULL, CONN_LOGOUT };

struct iscsi_conn {
    struct stream_conn stream; /* first member */
    struct iscsi_target *t;
    enum conn_phase phase;
    struct co_group group; /* tasks, task management */
    struct params params;
    bool header_digest, data_digest; /* in force */
    bool came_back;                  /* was sent elsewhere, and could not log in there */
    bool discovery;
    uint16_t cid;
    char initiator[ISCSI_NAME_MAX + 1];
    struct iscsi_session *session; /* NULL before full feature phase and in discovery */
    struct list session_link;      /* session->conns */
    bool logged_out;               /* it ends without the others of its session */
    uint32_t exp_cmdsn;            /* discovery and login; a session has its own */
    uint32_t statsn;

    /* receiving */
    uint32_t last_data_len;
    nsec_t login_deadline;
    bool pinged;
    char *text_in; /* of a request that spans PDUs */
    uint32_t text_in_len;
    struct buf *text_answer; /* what is left of a long answer */
    uint32_t text_answer_at, text_answer_len, text_itt;

    /* sending */
    struct list tx_free; /* PDUs for reuse */
    uint32_t tx_free_count, tx_plain;

    struct co_sem credits; /* payload bytes */
    uint32_t tmfs;         /* task management requests in progress */
};

static inline bool iscsi_conn_is_virtual(const struct iscsi_conn *c)
{
    return c->stream.listener == ISCSI_VIRTUAL_PORTAL;
}

/* Reads one header and judges it as pdu_parse does. Additional header segments are skipped. */
co_fn int conn_read_header(struct iscsi_conn *c, struct pdu_in *ret,
                           enum pdu_reject *ret_reason) MUST_CHECK;
/* Reads the data segment of len bytes with padding and digest; dst NULL: drops it. ERR_CORRUPT:
 * the digest does not match, the stream can be followed further. Others end the connection. */
co_fn int conn_read_data(struct iscsi_conn *c, uint8_t *dst, uint32_t len) MUST_CHECK;

struct pdu_out *conn_pdu(struct iscsi_conn *c, enum iscsi_op op);
/* Queues it; the writer takes it with all others of this turn of the loop. */
void iscsi_conn_send(struct iscsi_conn *c, struct pdu_out *p);
/* As iscsi_conn_send for answers that no window bounds: the reader waits in conn_plain_wait when
 * too many are queued. */
void iscsi_conn_send_plain(struct iscsi_conn *c, struct pdu_out *p);
co_fn int conn_plain_wait(struct iscsi_conn *c) MUST_CHECK;
void conn_reject(struct iscsi_conn *c, const struct pdu_in *p, enum pdu_reject reason);
uint32_t conn_exp_cmdsn(const struct iscsi_conn *c);

/* Of the target's streams (conn.c, conn_tx.c). A connection that is broken takes the others of its
 * session with it (error recovery level 0), unless it logged out. */
void iscsi_conn_init(struct stream_conn *c);
co_fn void iscsi_conn_serve(struct stream_conn *c);
void iscsi_conn_broken(struct stream_conn *c);
int iscsi_pdu_pieces(struct stream_conn *c, struct stream_item *item, struct iovec *iov);
void iscsi_pdu_sent(struct stream_conn *c, struct stream_item *item);

/* 0 once in full feature phase. */
co_fn int iscsi_login(struct iscsi_conn *c) MUST_CHECK;
bool iscsi_redirects(const struct iscsi_target *t);
/* Is this access server leaving, and another one staying? */
bool iscsi_leaves(const struct iscsi_target *t);
/* Address of the portal at which the initiator, which logs in here, should do it instead; NULL: it
 * stays. */
const char *iscsi_redirect(struct iscsi_conn *c, const struct iscsi_node *node,
                           const uint8_t isid[6]);
/* Full feature phase until logout (0) or an error. */
co_fn int iscsi_serve(struct iscsi_conn *c) MUST_CHECK;

/* Asks the initiator to end this connection, which has a session, by a logout within some seconds.
 * Does not suspend. */
void iscsi_ask_logout(struct iscsi_conn *c, uint32_t seconds);
void session_return_init(struct iscsi_session *s, const struct iscsi_conn *c);
/* return.c: struct iscsi_target; asks sessions to move back to their initiators' own portals. */
co_fn int iscsi_return_main(void *arg);

/* ---- sessions ---- */

struct iscsi_session {
    struct list link; /* node->sessions */
    struct iscsi_node *node;
    struct list conns; /* struct iscsi_conn; empty: it ends */
    uint32_t conn_count;
    struct params params; /* of the leading login: what holds for all connections */
    char initiator[ISCSI_NAME_MAX + 1];
    uint8_t isid[6];
    uint16_t tsih;
    struct scsi_nexus nexus;
    uint32_t exp_cmdsn;
    uint32_t window, in_flight; /* in_flight: started or held, not immediate */
    uint32_t immediates;
    struct iscsi_task *tasks; /* window + ISCSI_IMMEDIATE_MAX of them */
    uint32_t task_count;
    struct list free, active, held; /* held: a command before them is missing */
    struct co_cond task_ended;
    struct co_cond turn;          /* ExpCmdSN has moved */
    nsec_t looked[SCSI_LUNS_MAX]; /* when meta was asked for a unit that there was not */
    /* return.c */
    bool follows;   /* it came in while logins were sent on, as its initiator's next one will be */
    bool came_back; /* from its home, where it could not log in */
    uint16_t home;  /* number of the portal at home; 0: it is here, or there is none */
    nsec_t home_since; /* that has been so */
    uint64_t reads, writes, read_bytes, write_bytes;
};

/* Makes the session of a connection that is about to enter full feature phase; ends an older one
 * of the same initiator port first. May suspend. ERR_NOTFOUND: the target went meanwhile. */
co_fn int session_open(struct iscsi_conn *c, struct iscsi_node *node, const uint8_t isid[6],
                       uint32_t cmdsn) MUST_CHECK;
/* The session that a login with a TSIH names; NULL: there is none. */
struct iscsi_session *session_find(struct iscsi_node *node, const char *initiator,
                                   const uint8_t isid[6], uint16_t tsih);
/* Is there room for a connection of this CID? One that has it already makes room. */
bool session_has_room(struct iscsi_session *s, uint16_t cid);
/* Makes a connection that is about to enter full feature phase one of the session's; ends an older
 * one of the same CID first. May suspend. */
co_fn int session_join(struct iscsi_conn *c, struct iscsi_session *s) MUST_CHECK;
/* The connection's tasks ended. The last one ends the session. */
co_fn void session_leave(struct iscsi_conn *c);
/* Ends another connection of the session of `c` without the rest, and waits until it is gone. */
co_fn int session_drop(struct iscsi_conn *c, struct iscsi_conn *other, const char *why) MUST_CHECK;
/* Breaks every connection. why: static. */
void session_break(struct iscsi_session *s, const char *why);
/* The connection of this CID, but for `except`; NULL: none. */
struct iscsi_conn *session_conn(struct iscsi_session *s, uint16_t cid,
                                const struct iscsi_conn *except);
struct iscsi_conn *session_other(const struct iscsi_conn *c); /* NULL: it is the only one */
uint32_t session_max_cmdsn(const struct iscsi_session *s);
/* What to do with a numbered PDU. */
enum cmdsn_verdict { CMDSN_RUN, CMDSN_HOLD, CMDSN_IGNORE };
enum cmdsn_verdict session_cmdsn(struct iscsi_session *s, const struct pdu_in *p);

/* ---- tasks ---- */

enum task_phase {
    TASK_HELD,    /* waits for its CmdSN */
    TASK_LOOKUP,  /* waits for its unit: for news of the export table, or to be opened */
    TASK_GATHER,  /* waits for unsolicited data */
    TASK_CREDIT,  /* waits for memory */
    TASK_DATA,    /* waits for solicited data */
    TASK_EXECUTE, /* below */
    TASK_RESPOND,
};

struct r2t {
    uint32_t number, offset, len, got, datasn;
};

struct iscsi_task {
    struct scsi_cmd cmd; /* first: cmd->aborted finds the task */
    struct list link;    /* session->free, active or held */
    struct iscsi_conn *conn;
    struct iscsi_session *session;
    struct co *co;
    enum task_phase phase;
    uint32_t itt, cmdsn;
    uint32_t slot;
    uint16_t generation; /* of the slot, so that a late Data-Out finds nobody */
    uint8_t lun[8];
    bool immediate;
    bool running; /* has a coroutine */
    bool in_hand; /* held, and the reader has not read its data yet */
    bool damaged; /* its data did not arrive in order and whole: it will be refused */
    uint32_t edtl;
    /* data from the initiator, in order */
    bool unsolicited;   /* a sequence of Data-Out is still to come */
    uint32_t unsol_max; /* bytes that may come unsolicited, immediate ones included */
    uint32_t unsol_datasn;
    uint32_t received;   /* contiguous bytes of the sequence expected next */
    uint32_t held_bytes; /* capacity of cmd.out */
    uint32_t asked;      /* end of what R2Ts asked for */
    uint32_t r2t_number; /* next */
    struct r2t r2ts[OUR_MAX_R2T];
    uint32_t r2t_head, r2t_count;
    struct co_cond data_wake;
    uint32_t credit_bytes; /* held */
    uint32_t in_datasn;
};

/* A SCSI command PDU whose data segment has not been read yet. Errors end the connection. */
co_fn int task_receive(struct iscsi_conn *c, const struct pdu_in *p) MUST_CHECK;
/* ExpCmdSN has moved: starts the commands that were held for it, wakes who waits for its turn. */
void task_release_held(struct iscsi_session *s);
struct iscsi_task *task_find(struct iscsi_session *s, uint32_t itt);
/* By the connection's reader, which reads no more: every task of it is to end soon. */
void task_abort_all(struct iscsi_conn *c);
/* The same, but for those that the reader has in hand: it will see to them. */
void task_abort_running(struct iscsi_conn *c);
/* Has the connection any that have not ended? */
bool task_any(const struct iscsi_conn *c);
/* Those that wait for their unit, and are in no task set. only, lun: NULL: of every session of the
 * target, of every unit. */
void task_abort_lookups(struct iscsi_node *n, const struct iscsi_session *only, const uint8_t *lun);
void task_free(struct iscsi_task *task);

co_fn int data_out_receive(struct iscsi_conn *c, const struct pdu_in *p) MUST_CHECK;
/* Asks for what is missing, as far as MaxOutstandingR2T allows. */
void data_out_ask(struct iscsi_task *task);
bool data_out_complete(const struct iscsi_task *task);
/* The task's data is lost: what still comes is dropped, then the command ends with a sense. */
void data_out_damaged(struct iscsi_task *task, const char *why);

/* Queues Data-In PDUs and the response, or one of both in one. Gives up cmd.in. */
void data_in_respond(struct iscsi_task *task);

/* ---- other requests ---- */

co_fn int tmf_receive(struct iscsi_conn *c, const struct pdu_in *p) MUST_CHECK;
co_fn int text_receive(struct iscsi_conn *c, const struct pdu_in *p) MUST_CHECK;

#endif
