/* SPDX-License-Identifier: Apache-2.0
 *
 * The leader (PROTOCOL 6.2 to 6.4). Decisions are made on the state in memory, which is ahead of
 * the log: a record is applied at once, queued, and written to the log with others. An answer
 * waits until everything that its reader could see is confirmed, and is given only while the
 * leader has authority. */
#ifndef ZBS_META_LEAD_H
#define ZBS_META_LEAD_H

#include "meta/codec.h"
#include "meta/gc.h"
#include "meta/hold.h"
#include "meta/live.h"
#include "meta/recall.h"
#include "meta/recovery.h"
#include "meta/server.h"
#include "meta/view.h"

/* One log entry, from its first record until it is in the store. */
struct entry {
    struct list link;
    uint64_t index; /* once sent */
    uint64_t first_mutation, last_ticket;
    uint8_t *bytes;
    size_t len, cap;
    struct kv_batch *batch;
    struct codec_header header; /* behind its last record */
    bool sealed;                /* was sent: may not grow any more */
    bool done;
};

struct lead {
    struct metad *m;
    struct zk_term term;
    struct live live;
    struct holds holds;
    struct recalls recalls;
    struct recovery recovery;
    struct gc gc;
    struct co_group group;
    /* Whoever changes any of this broadcasts m->changed. */
    bool ended;     /* the term is over, or the server stops */
    bool broken;    /* a write failed: nothing is sent before the log was read */
    uint32_t users; /* coroutines inside a ZooKeeper call */

    /* Entries: unsent (the last one may be open), sent, confirmed. */
    struct list queue, flight, confirmed;
    uint64_t next_index;
    int32_t head_version;
    uint64_t confirmed_index;
    uint64_t ticket, confirmed_ticket; /* of records: given out, in the log */
    uint32_t store_backlog;            /* entries in `confirmed` */
    size_t queue_bytes;

    nsec_t serve_from;      /* T_auth after the term's write was confirmed */
    bool serving;           /* and its first entry is in the log */
    enum phase phase;       /* taking over, then leading */
    nsec_t authority_until; /* PROTOCOL 6.3 */
    uint64_t tail;          /* lowest index in the log */
};

/* Leads until the term is over or the server is stopped. since: when the term was taken. */
co_fn void lead_run(struct metad *m, const struct zk_term *term, nsec_t since);

bool lead_has_authority(const struct lead *l);
/* Is the state in memory exactly what is in the store? */
bool lead_is_idle(const struct lead *l);

/* ---- requests ---- */

/* What an answer depends on. */
struct lead_ticket {
    uint64_t term, ticket;
};
/* ERR_NOT_LEADER with the leader's address. */
int lead_enter(struct metad *m) MUST_CHECK;
/* Also ERR_AGAIN if too much waits for the log already. */
int lead_enter_mutation(struct metad *m) MUST_CHECK;
/* Applies and queues. The record may be in memory of the caller; reply as in apply.h. */
void lead_submit(struct metad *m, const Zbs__Metalog__Record *r, struct pad *pad,
                 struct packed *ret_reply);
struct lead_ticket lead_ticket(const struct metad *m);
/* Waits until everything that was there at the ticket is confirmed and we have authority. 0: the
 * answer may be given. ERR_NOT_LEADER, ERR_TIMEOUT, ERR_CANCELED. */
co_fn int lead_finish(struct metad *m, struct lead_ticket t) MUST_CHECK;

/* ---- between lead.c, append.c and upkeep.c ---- */
int append_main(void *arg);
int store_main(void *arg);
int beat_main(void *arg);
int upkeep_main(void *arg);
int trim_main(void *arg);
void append_confirm(struct lead *l); /* moves what is done at the front of `flight` */
void append_requeue(struct lead *l, uint64_t head, int32_t head_version);
co_fn void store_drain(struct lead *l);
void lead_written(struct lead *l, nsec_t sent); /* a term-checked write succeeded */
void lead_break(struct lead *l, const char *what, int rc);
void entry_free(struct entry *e);

#endif
