/* SPDX-License-Identifier: Apache-2.0
 *
 * The leader's term: authority, beats, and what happens when ZooKeeper fails it. See lead.h.
 *
 * After a failed or uncertain write everything stops (`broken`) until nobody is inside a call any
 * more; then the register and the head are read. If the register still has our term, then nobody
 * else wrote, what the head covers is confirmed, and the rest is sent again. Otherwise the term is
 * over. So a lost reply, or a change of ZooKeeper's own leader, costs no term. */
#include "meta/lead.h"

#include <inttypes.h>
#include <string.h>
#include "common/base/assert.h"
#include "common/base/log.h"
#include "common/base/mutate.h"
#include "common/env/env.h"
#include "meta/apply.h"
#include "meta/decide.h"

#define QUEUE_BYTES_MAX (4u << 20)

bool lead_has_authority(const struct lead *l)
{
    return co_now() < l->authority_until || mutate(MUT_NO_AUTHORITY);
}

bool lead_is_idle(const struct lead *l)
{
    return list_empty(&l->queue) && list_empty(&l->flight) && l->m->applied == l->confirmed_index;
}

/* ---- requests ---- */

static int not_leader(const struct metad *m)
{
    if (m->role == ROLE_LEADER)
        return err_set(ERR_NOT_LEADER, "%s is taking over or cut off from ZooKeeper", m->conf.name);
    if (m->leader_addr[0] == 0)
        return err_set(ERR_NOT_LEADER, "no leader is known");
    return err_set(ERR_NOT_LEADER, "the leader is %s", m->leader_addr);
}

int lead_enter(struct metad *m)
{
    struct lead *l = m->lead;

    if (l == NULL || l->ended || !l->serving || !lead_has_authority(l))
        return not_leader(m);
    return 0;
}

int lead_enter_mutation(struct metad *m)
{
    struct lead *l = m->lead;
    int rc = lead_enter(m);

    if (rc < 0)
        return rc;
    if (l->queue_bytes > QUEUE_BYTES_MAX)
        return err_set(ERR_AGAIN, "%zu bytes wait to be logged", l->queue_bytes);
    if (m->log_sizes.sum + 512ull * m->log_sizes.count > LOG_BYTES_MAX)
        return err_set(ERR_AGAIN,
                       "the log in ZooKeeper is full: it is trimmed when %u of %u meta servers are "
                       "running",
                       metad_majority(m), m->n_peers + 1);
    return 0;
}

struct lead_ticket lead_ticket(const struct metad *m)
{
    return (struct lead_ticket){.term = m->lead->term.term, .ticket = m->lead->ticket};
}

co_fn int lead_finish(struct metad *m, struct lead_ticket t)
{
    for (;;) {
        struct lead *l = m->lead;
        int rc;

        if (l == NULL || l->ended || l->term.term != t.term)
            return not_leader(m);
        if (l->confirmed_ticket >= t.ticket && lead_has_authority(l))
            return 0;
        rc = co_cond_wait(&l->m->changed);
        if (rc < 0)
            return err_set(rc, "waiting for the log: %s", err_default_text(rc));
    }
}

/* ---- the term ---- */

void lead_break(struct lead *l, const char *what, int rc)
{
    if (!l->broken && !l->ended)
        log_warn("lead.interrupted", "term=%" PRIu64 " write=%s why=\"%s\"", l->term.term, what,
                 err_text(rc));
    l->broken = true;
    co_cond_broadcast(&l->m->changed);
}

static void lead_end(struct lead *l, const char *why)
{
    if (!l->ended)
        log_warn("lead.end", "term=%" PRIu64 " why=\"%s\"", l->term.term, why);
    l->ended = true;
    l->authority_until = 0;
    co_cond_broadcast(&l->m->changed);
}

void lead_written(struct lead *l, nsec_t sent)
{
    nsec_t span = l->m->conf.authority_ms * NSEC_PER_MSEC;
    nsec_t margin = mutate(MUT_NO_DRIFT_MARGIN) ? 0 : span / 16;

    l->authority_until = MAX(l->authority_until, sent + span - margin);
}

int beat_main(void *arg)
{
    struct lead *l = arg;
    struct metad *m = l->m;

    while (!l->ended && !co_canceled()) {
        struct zk_beat b = {.term = l->term.term, .head = l->confirmed_index};
        nsec_t sent = co_now();
        nsec_t lapsed = sent - l->authority_until;
        int rc;

        if (l->broken) {
            if (co_cond_wait(&l->m->changed) < 0)
                break;
            continue;
        }
        strcpy(b.name, m->conf.name);
        strcpy(b.addr, m->conf.listen);
        l->users++;
        rc = zk_beat_write(m, l->term.version, &b);
        l->users--;
        if (rc < 0) {
            lead_break(l, "beat", rc);
            continue;
        }
        /* Whoever knocked in vain while we had none may not be taken for dead. */
        if (lapsed > 0 && l->serving)
            live_extend(&l->live, co_now() - sent + lapsed);
        lead_written(l, sent);
        l->users++;
        zk_announce(m);
        l->users--;
        co_cond_broadcast(&m->changed);
        (void)co_sleep_until(sent + m->conf.beat_ms * NSEC_PER_MSEC);
    }
    return 0;
}

/* Reads what the log and the register say. 0: done, else try again. */
static co_fn int lead_resolve(struct lead *l)
{
    struct metad *m = l->m;
    struct zk_term t;
    uint64_t head;
    int32_t version;
    int rc = zk_ready(m);

    if (rc == 0)
        rc = zk_head_read(m, &head, &version);
    if (rc == 0)
        rc = zk_term_read(m, &t); /* after the head: if it is ours, so was the head */
    if (rc == ERR_NOTFOUND)
        lead_end(l, "the nodes in ZooKeeper are gone");
    if (rc != 0)
        return rc;
    if (t.version != l->term.version || t.term != l->term.term) {
        lead_end(l, "deposed");
        return 0;
    }
    if (head < l->confirmed_index || head >= l->next_index)
        env_halt("ZooKeeper's log ends at entry %" PRIu64 ", but %" PRIu64 " to %" PRIu64
                 " were confirmed or sent: ZooKeeper has lost writes",
                 head, l->confirmed_index, l->next_index - 1);
    append_requeue(l, head, version);
    l->broken = false;
    log_info("lead.resume", "term=%" PRIu64 " head=%" PRIu64, l->term.term, head);
    co_cond_broadcast(&l->m->changed);
    return 0;
}

static void lead_serve(struct lead *l)
{
    struct metad *m = l->m;

    l->serving = true;
    phase_leave(l->phase);
    l->phase = PHASE_LEADING;
    phase_enter(l->phase);
    live_restart(&l->live, co_now()); /* every time-to-live starts now (PROTOCOL 6.3) */
    log_info("lead.serve", "term=%" PRIu64 " index=%" PRIu64 " cluster=%s", l->term.term,
             l->confirmed_index, m->st.cluster_id);
    metad_set_ready(m);
    co_cond_broadcast(&l->m->changed);
}

static co_fn void wait_change(struct lead *l, nsec_t until)
{
    nsec_t former = co_deadline_push(until);

    (void)co_cond_wait(&l->m->changed);
    co_deadline_restore(former);
}

static co_fn void lead_watch(struct lead *l)
{
    while (!l->ended) {
        if (co_canceled()) {
            lead_end(l, "stopping");
        } else if (l->broken && l->users > 0) {
            (void)co_cond_wait(&l->m->changed);
        } else if (l->broken) {
            phase_enter(PHASE_RESOLVING);
            if (lead_resolve(l) < 0)
                (void)co_sleep(20 * NSEC_PER_MSEC);
            phase_leave(PHASE_RESOLVING);
        } else if (!l->serving && l->confirmed_ticket > 0 && co_now() >= l->serve_from &&
                   lead_has_authority(l)) {
            lead_serve(l);
        } else {
            wait_change(l, l->serving ? NSEC_NEVER
                                      : MAX(l->serve_from, co_now() + 20 * NSEC_PER_MSEC));
        }
    }
}

static void first_records(struct metad *m)
{
    struct pad pad;
    struct packed reply;
    Zbs__Metalog__Record *r;

    pad_init(&pad);
    if (m->st.cluster_id[0] == 0) {
        r = record_new(&pad, ZBS__METALOG__RECORD__KIND_CLUSTER_INIT);
        r->cluster_init = PAD_NEW(&pad, Zbs__Metalog__ClusterInit);
        zbs__metalog__cluster_init__init(r->cluster_init);
        r->cluster_init->cluster_id = m->cluster_id;
        lead_submit(m, r, &pad, &reply);
    }
    r = record_new(&pad, ZBS__METALOG__RECORD__KIND_TERM_START);
    r->term_start = PAD_NEW(&pad, Zbs__Metalog__TermStart);
    zbs__metalog__term_start__init(r->term_start);
    r->term_start->term = m->lead->term.term;
    lead_submit(m, r, &pad, &reply);
    pad_fini(&pad);
}

/* Lets a standby take over at once. */
static co_fn void lead_resign(struct lead *l)
{
    struct zk_beat b = {.term = l->term.term, .head = l->confirmed_index};
    struct co_shield shield;
    nsec_t former;

    co_shield_begin(&shield);
    former = co_deadline_push(co_now() + 200 * NSEC_PER_MSEC);
    if (l->m->coord != NULL && coord_state(l->m->coord) == COORD_CONNECTED)
        (void)!zk_beat_write(l->m, l->term.version, &b);
    co_deadline_restore(former);
    co_shield_end(&shield);
}

static void free_entries(struct list *entries)
{
    while (!list_empty(entries)) {
        struct entry *e = LIST_FIRST(entries, struct entry, link);

        list_del(&e->link);
        entry_free(e);
    }
}

static co_fn void lead_fini(struct lead *l)
{
    struct metad *m = l->m;
    bool ahead;

    lead_end(l, "stopping");
    phase_leave(l->phase);
    m->role = ROLE_STANDBY;
    m->lead = NULL;
    co_cond_broadcast(&m->changed); /* requests that wait for confirmations */
    (void)co_group_close(&l->group);
    store_drain(l);
    if (co_canceled())
        lead_resign(l);
    /* What is in memory but perhaps not in the log must go. */
    ahead = !list_empty(&l->flight) || !list_empty(&l->queue);
    free_entries(&l->flight);
    free_entries(&l->queue);
    hold_fini(l);
    gc_fini(&l->gc);
    live_fini(&l->live);
    if (ahead && !co_canceled() && metad_load(m) < 0)
        env_halt("%s: %s", m->conf.data_dir, err_text(ERR_FORMAT));
}

co_fn void lead_run(struct metad *m, const struct zk_term *term, nsec_t since)
{
    static int (*const mains[])(void *) = {beat_main, store_main, upkeep_main, trim_main, gc_main};
    struct lead l = {.m = m, .term = *term, .confirmed_index = m->applied};
    uint64_t head;

    if (zk_head_read(m, &head, &l.head_version) < 0 || head != m->applied ||
        zk_tail_read(m, &l.tail) < 0)
        return; /* somebody else, or we, will take the next term */
    if (m->st.term >= term->term)
        return; /* somebody else took a later one while we read the log */
    l.next_index = head + 1;
    l.serve_from = since + (mutate(MUT_LEAD_AT_ONCE) ? 0 : m->conf.authority_ms * NSEC_PER_MSEC);
    list_init(&l.queue);
    list_init(&l.flight);
    list_init(&l.confirmed);
    co_group_init(&l.group);
    live_init(&l.live, m, term->term);
    hold_init(&l);
    l.phase = PHASE_TAKING_OVER;
    phase_enter(l.phase);
    m->role = ROLE_LEADER;
    m->lead = &l;
    m->entry_term = m->term = term->term;
    strcpy(m->leader_addr, m->conf.listen);
    strcpy(m->leader_name, m->conf.name);
    first_records(m);
    for (size_t i = 0; i < ARRAY_SIZE(mains); i++)
        co_spawn(&l.group, "lead", mains[i], &l);
    for (uint32_t i = 0; i < APPENDS_MAX; i++)
        co_spawn(&l.group, "append", append_main, &l);
    lead_watch(&l);
    lead_fini(&l);
}
