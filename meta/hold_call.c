/* SPDX-License-Identifier: Apache-2.0
 *
 * The calls of those who want volumes held, and of the sessions that hold them: see hold.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/assert.h"
#include "common/base/mem.h"
#include "meta/hold_job.h"

#define CALL_WAIT (600 * NSEC_PER_MSEC) /* meta_call gives an attempt a second */
#define JOB_KEPT  (30 * NSEC_PER_SEC)   /* once ended: a request may be repeated */
#define JOBS_MAX  256u

/* ---- requests ---- */

static struct job *job_find(struct lead *l, uint64_t client, uint64_t number)
{
    LIST_FOREACH (j, &l->holds.jobs, struct job, link) {
        if (j->client == client && j->number == number)
            return j;
    }
    return NULL;
}

static void drop_old_jobs(struct lead *l)
{
    while (!list_empty(&l->holds.jobs)) {
        struct job *j = LIST_FIRST(&l->holds.jobs, struct job, link);

        if (j->ended == 0 || co_now() - j->ended < JOB_KEPT)
            break;
        job_free(l, j);
    }
}

static int job_start(struct lead *l, const ProtobufCMessage *rq,
                     const Zbs__Meta__Mutation *mutation)
{
    struct packed copy;
    struct job *j;

    drop_old_jobs(l);
    if (l->holds.n_jobs >= JOBS_MAX)
        return err_set(ERR_AGAIN, "%u snapshots and rollbacks are under way", JOBS_MAX);
    j = MEM_NEW(struct job);
    j->l = l;
    pad_init(&j->pad);
    copy = view_pack(rq, &j->pad);
    j->rq = protobuf_c_message_unpack(rq->descriptor, &j->pad.allocator, copy.len, copy.bytes);
    ASSERT(j->rq != NULL);
    j->decide = rq->descriptor == &zbs__meta__volume_rollback_request__descriptor
                    ? decide_volume_rollback
                    : decide_volume_snapshot;
    j->client = mutation->client;
    j->number = mutation->number;
    list_push_back(&l->holds.jobs, &j->link);
    l->holds.n_jobs++;
    co_spawn_detached_deadline(&l->group, "hold", job_main, j);
    return 0;
}

/* 0: done, *ret is the answer; ERR_AGAIN with *ret_wait: not yet. */
static int request_look(struct lead *l, const ProtobufCMessage *rq, struct pad *pad,
                        struct packed *ret, bool *ret_wait)
{
    const Zbs__Meta__Mutation *mutation =
        rq->descriptor == &zbs__meta__volume_rollback_request__descriptor
            ? ((const Zbs__Meta__VolumeRollbackRequest *)rq)->mutation
            : ((const Zbs__Meta__VolumeSnapshotRequest *)rq)->mutation;
    const struct result *first;
    struct job *j;
    int rc;

    *ret_wait = false;
    if (mutation == NULL || mutation->client == 0)
        return err_set(ERR_INVAL, "the request has no mutation number");
    first = state_result(&l->m->st, mutation->client, mutation->number);
    if (first != NULL) {
        ret->bytes = pad_memdup(pad, first->reply, first->reply_len);
        ret->len = first->reply_len;
        return 0;
    }
    j = job_find(l, mutation->client, mutation->number);
    if (j != NULL && j->ended != 0)
        return err_set(j->rc, "%s", j->text);
    if (j == NULL) {
        rc = job_start(l, rq, mutation);
        if (rc < 0)
            return rc;
    }
    *ret_wait = true;
    return err_set(ERR_AGAIN, "it is being worked on");
}

/* Gives what was found once it may be given. */
static co_fn int finish(struct rpc_request *q, int rc, const struct packed *reply)
{
    struct metad *m = q->ctx;
    char text[256] = "";
    int finish_rc;

    if (rc < 0)
        snprintf(text, sizeof(text), "%s", err_text(rc));
    finish_rc = lead_finish(m, lead_ticket(m));
    if (finish_rc < 0)
        return finish_rc;
    if (rc < 0)
        return err_set(rc, "%s", text);
    svc_give(q, reply);
    return 0;
}

int hold_request(struct rpc_request *q)
{
    struct metad *m = q->ctx;
    nsec_t until = co_now() + CALL_WAIT, former = co_deadline_push(until);
    struct packed reply = {0};
    struct pad pad;
    bool wait;
    int rc;

    pad_init(&pad);
    do {
        wait = false;
        rc = lead_enter_mutation(m);
        if (rc == 0)
            rc = request_look(m->lead, q->msg, &pad, &reply, &wait);
    } while (wait && co_now() < until && co_cond_wait(&m->changed) == 0);
    co_deadline_restore(former);
    if (!wait && rc != ERR_NOT_LEADER && m->lead != NULL)
        rc = finish(q, rc, &reply);
    pad_fini(&pad);
    return rc;
}

/* ---- the sessions' calls ---- */

static void answer_volumes(const struct state *st, const uint64_t *ids, uint32_t n, struct pad *pad,
                           Zbs__Meta__HoldReply *m)
{
    m->volumes = PAD_NEW_ARRAY(pad, Zbs__Meta__Volume *, n + 1);
    for (uint32_t i = 0; i < n; i++) {
        const struct volume *v = state_volume(st, ids[i]);

        if (v == NULL)
            continue;
        m->volumes[m->n_volumes] = PAD_NEW(pad, Zbs__Meta__Volume);
        view_volume(m->volumes[m->n_volumes++], st, v);
    }
}

static int compare_ids(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* All that the session has leases of. */
static void answer_owned(const struct state *st, const struct session *s, struct pad *pad,
                         Zbs__Meta__HoldReply *m)
{
    uint32_t n = 0, kept = 0;
    uint64_t *ids;

    LIST_FOREACH (slot, &s->owned, struct slot, owned)
        n++;
    ids = PAD_NEW_ARRAY(pad, uint64_t, n + 1);
    n = 0;
    LIST_FOREACH (slot, &s->owned, struct slot, owned) {
        if (slot->volume != NULL && (n == 0 || ids[n - 1] != slot->volume->id))
            ids[n++] = slot->volume->id;
    }
    qsort(ids, n, sizeof(*ids), compare_ids);
    for (uint32_t i = 0; i < n; i++) {
        if (kept == 0 || ids[kept - 1] != ids[i])
            ids[kept++] = ids[i];
    }
    answer_volumes(st, ids, kept, pad, m);
}

/* The attempt that the session takes part in: a certain one, or (0) one that it has to be told of.
 */
static struct job *find_attempt(struct lead *l, uint64_t attempt, uint64_t session_id)
{
    LIST_FOREACH (j, &l->holds.jobs, struct job, link) {
        struct holder *h = j->attempt != 0 ? job_holder(j, session_id) : NULL;

        if (h != NULL && (attempt != 0 ? j->attempt == attempt : !h->holds))
            return j;
    }
    return NULL;
}

/* 1: *m is the answer, 0: not yet. */
static int hold_look(struct lead *l, const Zbs__Meta__HoldRequest *rq, struct pad *pad,
                     Zbs__Meta__HoldReply *m)
{
    struct decide d = {.st = &l->m->st, .pad = pad};
    struct session *s;
    struct job *j;
    int rc = decide_session(&d, rq->session_id, &s);

    if (rc < 0)
        return rc;
    j = find_attempt(l, rq->attempt, rq->session_id);
    m->attempt = rq->attempt;
    if (rq->attempt == 0) {
        if (j == NULL)
            return recall_fill(l, s->id, pad, m);
        m->attempt = j->attempt;
        answer_volumes(d.st, j->volumes, j->n_volumes, pad, m);
        return 1;
    }
    if (j == NULL) {
        answer_owned(d.st, s, pad, m);
        return 1;
    }
    if (rq->error[0] != 0 && j->rc == 0) {
        j->rc = ERR_BUSY;
        snprintf(j->text, sizeof(j->text), "access server '%s': %.180s", s->name, rq->error);
        co_cond_broadcast(&l->m->changed);
    } else if (!job_holder(j, s->id)->holds) {
        job_holder(j, s->id)->holds = true;
        co_cond_broadcast(&l->m->changed);
    }
    return 0;
}

int hold_wait(struct rpc_request *q)
{
    const Zbs__Meta__HoldRequest *rq = (const void *)q->msg;
    struct metad *m = q->ctx;
    nsec_t until = co_now() + CALL_WAIT, former = co_deadline_push(until);
    Zbs__Meta__HoldReply reply = ZBS__META__HOLD_REPLY__INIT;
    struct packed packed = {0};
    struct pad pad;
    int rc;

    pad_init(&pad);
    do {
        rc = lead_enter(m);
        if (rc == 0)
            rc = hold_look(m->lead, rq, &pad, &reply);
    } while (rc == 0 && co_now() < until && co_cond_wait(&m->changed) == 0);
    co_deadline_restore(former);
    if (rc == 0 && rq->attempt != 0)
        rc = err_set(ERR_AGAIN, "the volumes are still to be held");
    if (rc >= 0)
        packed = view_pack(&reply.base, &pad);
    if (rc != ERR_NOT_LEADER && m->lead != NULL)
        rc = finish(q, rc < 0 ? rc : 0, &packed);
    pad_fini(&pad);
    return rc;
}
