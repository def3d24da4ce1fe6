/* SPDX-License-Identifier: Apache-2.0
 *
 * Holding volumes for a snapshot or a rollback: see hold.h. */
#include "meta/hold.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "common/base/log.h"
#include "common/base/mem.h"
#include "meta/decide_tree.h"
#include "meta/hold_job.h"

#define TRIES     4u
#define TRY_PAUSE (200 * NSEC_PER_MSEC)
#define OPEN_WAIT (4 * NSEC_PER_SEC)
#define OPEN_TICK (50 * NSEC_PER_MSEC)
#define HOLD_WAIT (2 * NSEC_PER_SEC)

void hold_init(struct lead *l)
{
    l->holds = (struct holds){0};
    list_init(&l->holds.jobs);
}

void job_free(struct lead *l, struct job *j)
{
    list_del(&j->link);
    l->holds.n_jobs--;
    pad_fini(&j->pad);
    mem_free(j);
}

void hold_fini(struct lead *l)
{
    LIST_FOREACH_SAFE (j, &l->holds.jobs, struct job, link)
        job_free(l, j);
}

const uint64_t *hold_volumes(const struct lead *l, struct pad *pad, uint32_t *ret_n)
{
    uint64_t *ids = PAD_NEW_ARRAY(pad, uint64_t, l->holds.n_jobs * SNAPSHOT_GROUP_MAX + 1);

    *ret_n = 0;
    LIST_FOREACH (j, &l->holds.jobs, struct job, link) {
        for (uint32_t i = 0; j->attempt != 0 && i < j->n_volumes; i++)
            ids[(*ret_n)++] = j->volumes[i];
    }
    return ids;
}

uint32_t hold_to_open(const struct lead *l, uint32_t from, uint64_t *ret)
{
    uint32_t i = 0;

    LIST_FOREACH (j, &l->holds.jobs, struct job, link) {
        for (uint32_t k = 0; k < j->n_opens; k++) {
            if (i++ < from)
                continue;
            *ret = j->opens[k];
            return i;
        }
    }
    return 0;
}

/* ---- one try ---- */

static int job_volume(struct job *j, const Zbs__Meta__VolumeName *name)
{
    struct decide d = {.st = &j->l->m->st, .pad = &j->pad};
    struct volume *v;
    int rc = decide_volume(&d, name->pool, name->name, &v);

    if (rc < 0)
        return rc;
    j->volumes[j->n_volumes++] = v->id;
    return 0;
}

static int job_resolve(struct job *j)
{
    const Zbs__Meta__VolumeSnapshotRequest *group = (const void *)j->rq;
    int rc = 0;

    j->n_volumes = 0;
    if (j->decide == decide_volume_rollback)
        return job_volume(j, ((const Zbs__Meta__VolumeRollbackRequest *)j->rq)->volume);
    for (size_t i = 0; i < group->n_volumes && rc == 0; i++)
        rc = job_volume(j, group->volumes[i]);
    return rc;
}

static int job_decide(struct job *j, struct pad *pad, Zbs__Metalog__Record **ret)
{
    struct world w;
    struct decide d = {.st = &j->l->m->st, .w = &w, .rq = j->rq, .pad = pad};

    live_world(&j->l->live, pad, true, false, &w);
    return j->decide(&d, ret);
}

/* What could not be done by holding anybody? ERR_AGAIN: nothing. */
static int job_check(struct job *j)
{
    Zbs__Metalog__Record *r;
    struct pad pad;
    int rc;

    pad_init(&pad);
    rc = job_decide(j, &pad, &r);
    pad_fini(&pad);
    return rc == ERR_AGAIN ? 0 : rc;
}

/* A rollback takes away what was written: nobody may rely on its own writes any more. */
static bool job_recall(struct job *j)
{
    const struct state *st = &j->l->m->st;
    bool any = false;

    for (uint32_t i = 0; i < j->n_volumes && j->decide == decide_volume_rollback; i++) {
        const struct volume *v = state_volume(st, j->volumes[i]);
        const struct inode *inode =
            v != NULL && v->inode_id != 0 ? tree_inode(&st->tree, v->inode_id) : NULL;

        if (inode == NULL || file_leases(st, inode) == 0)
            continue;
        recall_note(j->l, inode->id);
        any = true;
    }
    return any;
}

static uint32_t job_find_opens(struct job *j)
{
    j->n_opens = 0;
    for (uint32_t i = 0; i < j->n_volumes && j->decide == decide_volume_snapshot; i++) {
        const struct volume *v = state_volume(&j->l->m->st, j->volumes[i]);

        if (v != NULL && !v->removed)
            j->n_opens += volume_unready(&j->l->m->st, v, true, j->opens + j->n_opens,
                                         OPENS_MAX - j->n_opens);
    }
    return j->n_opens;
}

static co_fn int job_open(struct job *j)
{
    nsec_t until = co_now() + OPEN_WAIT;

    while (job_find_opens(j) > 0 || job_recall(j)) {
        if (co_now() >= until)
            return err_set(ERR_AGAIN,
                           j->n_opens > 0
                               ? "extents that a dead access server left could not be opened"
                               : "an access server did not give its write lease back");
        if (j->l->ended || co_sleep(OPEN_TICK) < 0)
            return err_set(ERR_CANCELED, "the leader's term ended");
    }
    return 0;
}

struct holder *job_holder(struct job *j, uint64_t session_id)
{
    for (uint32_t i = 0; i < j->n_holders; i++) {
        if (j->holders[i].session_id == session_id)
            return &j->holders[i];
    }
    return NULL;
}

static void job_find_holders(struct job *j)
{
    const struct state *st = &j->l->m->st;

    j->n_holders = 0;
    for (uint32_t i = 0; i < j->n_volumes; i++) {
        const struct volume *v = state_volume(st, j->volumes[i]);

        for (uint32_t n = 0; n < v->n_slots; n++) {
            const struct slot *s = volume_slot(v, n);
            const struct session *owner = s != NULL ? slot_owner(st, s) : NULL;

            if (owner != NULL && job_holder(j, owner->id) == NULL && j->n_holders < SESSIONS_MAX)
                j->holders[j->n_holders++] = (struct holder){.session_id = owner->id};
        }
    }
}

/* 1: all hold, 0: not yet. */
static int job_held(struct job *j)
{
    bool all = true;

    if (j->rc < 0)
        return err_set(ERR_AGAIN, "%s", j->text);
    for (uint32_t i = 0; i < j->n_holders; i++) {
        const struct holder *h = &j->holders[i];

        if (state_session(&j->l->m->st, h->session_id) == NULL)
            return err_set(ERR_AGAIN, "an access server's session ended meanwhile");
        all = all && h->holds;
    }
    return all;
}

static const char *job_laggard(const struct job *j)
{
    for (uint32_t i = 0; i < j->n_holders; i++) {
        if (!j->holders[i].holds)
            return state_session(&j->l->m->st, j->holders[i].session_id)->name;
    }
    return "";
}

/* Until all owners hold. The attempt stays open if they do. */
static co_fn int job_hold(struct job *j)
{
    struct metad *m = j->l->m;
    nsec_t until = co_now() + HOLD_WAIT, former;
    int rc;

    job_find_holders(j);
    j->n_opens = 0;
    j->rc = 0;
    j->granted_before = m->st.next_mutation;
    j->attempt = j->l->term.term << 32 | ++j->l->holds.attempts;
    co_cond_broadcast(&m->changed);
    former = co_deadline_push(until);
    while ((rc = job_held(j)) == 0) {
        if (j->l->ended || co_canceled())
            rc = err_set(ERR_CANCELED, "the leader's term ended");
        else if (co_now() >= until)
            rc = err_set(ERR_AGAIN, "access server '%s' did not stop I/O in time", job_laggard(j));
        if (rc < 0)
            break;
        (void)co_cond_wait(&m->changed);
    }
    co_deadline_restore(former);
    return rc < 0 ? rc : 0;
}

/* All owners hold. Does not suspend. */
static int job_commit(struct job *j)
{
    struct metad *m = j->l->m;
    Zbs__Metalog__Record *r = NULL;
    struct packed reply;
    struct pad pad;
    int rc = lead_enter_mutation(m);

    for (uint32_t i = 0; i < j->n_volumes && rc == 0; i++) {
        const struct volume *v = state_volume(&m->st, j->volumes[i]);

        if (v != NULL && v->granted_at >= j->granted_before)
            rc = err_set(ERR_AGAIN, "a lease was granted meanwhile");
    }
    if (rc < 0)
        return rc;
    pad_init(&pad);
    rc = job_decide(j, &pad, &r);
    if (rc == 0) {
        r->client = j->client;
        r->number = j->number;
        lead_submit(m, r, &pad, &reply);
        for (uint32_t i = 0; i < j->n_volumes; i++)
            live_volume_changed(&j->l->live, j->volumes[i]);
    }
    pad_fini(&pad);
    return rc;
}

static bool job_overlaps(const struct job *j)
{
    LIST_FOREACH (other, &j->l->holds.jobs, struct job, link) {
        for (uint32_t i = 0; other != j && other->attempt != 0 && i < other->n_volumes; i++) {
            for (uint32_t k = 0; k < j->n_volumes; k++) {
                if (other->volumes[i] == j->volumes[k])
                    return true;
            }
        }
    }
    return false;
}

static co_fn int job_try(struct job *j)
{
    nsec_t begin;
    int rc = job_check(j);

    if (rc == 0)
        rc = job_resolve(j);
    if (rc == 0)
        rc = job_open(j);
    if (rc == 0 && job_overlaps(j))
        rc = err_set(ERR_AGAIN, "another snapshot of the volume is being taken");
    if (rc == 0)
        rc = job_resolve(j); /* they may have been deleted meanwhile */
    if (rc < 0)
        return rc;
    begin = co_now();
    rc = job_hold(j);
    if (rc == 0)
        rc = job_commit(j);
    log_info("volume.hold", "attempt=%" PRIu64 " volumes=%u sessions=%u ms=%" PRIi64 " why=\"%s\"",
             j->attempt, j->n_volumes, j->n_holders, (co_now() - begin) / NSEC_PER_MSEC,
             rc < 0 ? err_text(rc) : "done");
    j->attempt = 0;
    co_cond_broadcast(&j->l->m->changed);
    return rc;
}

int job_main(void *arg)
{
    struct job *j = arg;
    int rc = 0;

    for (uint32_t i = 0; i < TRIES; i++) {
        rc = job_try(j);
        if (rc != ERR_AGAIN || j->l->ended)
            break;
        snprintf(j->text, sizeof(j->text), "%s", err_text(rc));
        if (i + 1 < TRIES && co_sleep(TRY_PAUSE) < 0)
            break;
    }
    j->rc = rc == ERR_AGAIN ? ERR_BUSY : rc; /* who is told ERR_AGAIN asks the same again */
    if (rc < 0 && rc != ERR_AGAIN)
        snprintf(j->text, sizeof(j->text), "%s", err_text(rc));
    j->n_opens = 0;
    j->ended = co_now();
    co_cond_broadcast(&j->l->m->changed);
    return 0;
}
