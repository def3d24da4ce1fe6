/* SPDX-License-Identifier: Apache-2.0
 *
 * The standby: follows the log, and takes over when the leader has been silent for takeover_ms
 * (PROTOCOL 6.1). It reads the leader's beat every half beat_ms; the beat names the head. What it
 * applies it writes unsynced: the log can be read again.
 *
 * Silence counts only while ZooKeeper can be read: after an interruption the leader gets two
 * beats' time to speak first, so that a stumble of ZooKeeper does not cost a change of leaders. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "common/base/assert.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/env/env.h"
#include "meta/apply.h"
#include "meta/codec.h"
#include "meta/server.h"

#define READ_AHEAD 16u

struct follow {
    struct metad *m;
    struct zk_beat beat;
    nsec_t last_change;  /* when the beat was last seen to change */
    nsec_t last_failure; /* when ZooKeeper last failed us */
    uint64_t seen_term;  /* highest read from the register */
    bool bootstrapped;
};

/* ---- applying ---- */

/* Input from outside, but written by a leader of this cluster: what does not fit means that going
 * on would make servers differ (invariant 7). */
static void apply_entry(struct metad *m, uint64_t index, const uint8_t *bytes, size_t len,
                        struct kv_batch *batch)
{
    Zbs__Metalog__LogEntry *e;
    struct packed reply;
    struct pad pad;

    pad_init(&pad);
    e = zbs__metalog__log_entry__unpack(&pad.allocator, len, bytes);
    if (e == NULL)
        env_halt("log entry %" PRIu64 " is damaged", index);
    if (e->first_mutation != m->st.next_mutation || e->term < m->entry_term)
        env_halt("log entry %" PRIu64 " begins with mutation %" PRIu64 " of term %" PRIu64
                 ", expected were %" PRIu64 " and at least %" PRIu64,
                 index, e->first_mutation, e->term, m->st.next_mutation, m->entry_term);
    m->entry_term = e->term;
    for (size_t i = 0; i < e->n_records; i++) {
        int rc = apply_record(&m->st, e->records[i], batch, &pad, &reply);

        if (rc < 0)
            env_halt("log entry %" PRIu64 ": %s", index, err_text(rc));
    }
    pad_fini(&pad);
}

struct entry_read {
    struct metad *m;
    uint64_t index;
    uint8_t *bytes;
    size_t len;
    int rc;
};

static co_fn int entry_read_main(void *arg)
{
    struct entry_read *r = arg;

    r->rc = zk_entry_read(r->m, r->index, &r->bytes, &r->len);
    return 0;
}

/* Applies entries first .. first + n - 1 in one batch of the store; fewer if some can't be read. */
static co_fn int apply_some(struct metad *m, uint64_t first, uint32_t n)
{
    struct entry_read reads[READ_AHEAD];
    struct kv_batch *batch = kv_batch_new();
    struct codec_sink to = {.batch = batch};
    struct codec_header h = {0};
    struct co_group group;
    uint64_t applied = m->applied;
    int rc = 0;

    co_group_init(&group);
    for (uint32_t i = 0; i < n; i++) {
        reads[i] = (struct entry_read){.m = m, .index = first + i};
        co_spawn(&group, "entry", entry_read_main, &reads[i]);
    }
    (void)co_group_join(&group);
    m->st_moving = true;
    for (uint32_t i = 0; i < n; i++) {
        if (rc == 0 && reads[i].rc == 0) {
            apply_entry(m, reads[i].index, reads[i].bytes, reads[i].len, batch);
            log_sizes_add(&m->log_sizes, reads[i].index, reads[i].len);
            applied = reads[i].index;
        } else if (rc == 0) {
            rc = reads[i].rc;
        }
        mem_free(reads[i].bytes);
    }
    if (applied > m->applied) {
        int write_rc;

        codec_header_take(&h, &m->st);
        h.applied = applied;
        codec_put_header(&to, &h);
        write_rc = kv_write(m->kv, batch, false);
        if (write_rc < 0)
            env_halt("%s: %s", m->conf.data_dir, err_text(write_rc));
        m->applied = applied;
    }
    m->st_moving = false;
    kv_batch_free(batch);
    return rc;
}

/* Is the entry after ours gone from the log? */
static co_fn int check_gap(struct metad *m, bool *ret_gap)
{
    uint64_t tail;
    int rc = zk_tail_read(m, &tail);

    *ret_gap = rc == 0 && m->applied + 1 < tail;
    return rc;
}

/* Applies the log up to `head`; loads a snapshot first if its beginning is gone. */
static co_fn int catch_up(struct metad *m, uint64_t head)
{
    while (m->applied < head) {
        uint32_t n = (uint32_t)MIN(head - m->applied, (uint64_t)READ_AHEAD);
        bool gap;
        int rc = apply_some(m, m->applied + 1, n);

        if (co_canceled())
            return err_set(ERR_CANCELED, "stopping");
        if (rc == ERR_NOTFOUND) {
            rc = check_gap(m, &gap);
            phase_enter(PHASE_LOADING);
            if (rc == 0)
                rc = gap ? snapshot_load(m)
                         : err_set(ERR_AGAIN, "log entry %" PRIu64 " is not visible yet",
                                   m->applied + 1);
            phase_leave(PHASE_LOADING);
        }
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* ---- taking over ---- */

/* What was read may be behind: a sync, then another look. ERR_AGAIN: somebody leads, or has just
 * taken the term and deserves the time to say so. */
static co_fn int look_again(struct follow *f, struct zk_term *ret)
{
    struct metad *m = f->m;
    int64_t before = f->beat.change;
    uint64_t head;
    int rc = zk_head_read(m, &head, NULL);

    if (rc == 0)
        rc = zk_beat_read(m, &f->beat);
    if (rc == 0)
        rc = zk_term_read(m, ret);
    if (rc != 0)
        return rc;
    /* A term of our own may come from a write whose reply was lost. */
    if (f->beat.change == before &&
        (ret->term <= MAX(f->seen_term, f->beat.term) || strcmp(ret->addr, m->conf.listen) == 0))
        return catch_up(m, head);
    f->seen_term = MAX(f->seen_term, ret->term);
    f->last_change = co_now();
    return err_set(ERR_AGAIN, "somebody else has just taken over");
}

/* ERR_STALE, ERR_AGAIN: somebody else was faster. */
static co_fn int take_over(struct follow *f, const char *why, struct zk_term *ret_term,
                           nsec_t *ret_since)
{
    struct metad *m = f->m;
    struct zk_term t = {0};
    uint64_t head;
    int rc = look_again(f, &t);

    if (rc != 0)
        return rc;
    t.term = MAX(t.term, m->st.term) + 1;
    snprintf(t.name, sizeof(t.name), "%s", m->conf.name);
    snprintf(t.addr, sizeof(t.addr), "%s", m->conf.listen);
    rc = zk_term_write(m, &t);
    if (rc < 0)
        return rc;
    *ret_since = co_now();
    *ret_term = t;
    log_info("term.taken", "term=%" PRIu64 " why=\"%s\"", t.term, why);
    /* The former leader may have appended until a moment ago; now it can't any more. */
    do {
        rc = zk_head_read(m, &head, NULL);
        if (rc == 0)
            rc = catch_up(m, head);
        if (rc == ERR_AGAIN)
            (void)co_sleep(5 * NSEC_PER_MSEC);
    } while (rc == ERR_AGAIN && !co_canceled());
    return rc;
}

static const char *reason_to_take_over(const struct follow *f)
{
    const struct metad *m = f->m;
    nsec_t now = co_now();

    if (f->beat.name[0] == 0)
        return "there is no leader";
    if (strcmp(f->beat.addr, m->conf.listen) == 0 && strcmp(f->beat.name, m->conf.name) == 0)
        return "we led before"; /* an earlier incarnation or term of ours, which is over */
    if (now - f->last_change >= m->conf.takeover_ms * NSEC_PER_MSEC &&
        now - f->last_failure >= 2 * m->conf.beat_ms * NSEC_PER_MSEC)
        return "the leader is silent";
    return NULL;
}

/* ---- following ---- */

static co_fn int observe(struct follow *f)
{
    struct metad *m = f->m;
    int64_t before = f->beat.change;
    int rc = zk_ready(m);

    if (rc == 0 && !f->bootstrapped) {
        rc = zk_bootstrap(m);
        f->bootstrapped = rc == 0;
    }
    if (rc == 0)
        rc = zk_beat_read(m, &f->beat);
    if (rc < 0)
        return rc;
    if (f->beat.change != before || f->last_change == 0)
        f->last_change = co_now();
    m->term = f->beat.term;
    strcpy(m->leader_addr, f->beat.addr);
    strcpy(m->leader_name, f->beat.name);
    rc = catch_up(m, f->beat.head);
    if (rc == 0)
        zk_announce(m);
    return rc;
}

static void complain(struct metad *m, int rc)
{
    if (rc == ERR_CANCELED || co_now() - m->complained < 5 * NSEC_PER_SEC)
        return;
    m->complained = co_now();
    log_warn("zookeeper.wait", "servers=%s why=\"%s\" next=\"keep trying\"", m->conf.zookeeper,
             err_text(rc));
}

co_fn int follow_run(struct metad *m, struct zk_term *ret_term, nsec_t *ret_since)
{
    struct follow f = {.m = m, .last_failure = co_now() - 3600 * NSEC_PER_SEC};

    m->role = ROLE_STANDBY;
    while (!co_canceled()) {
        const char *why = NULL;
        nsec_t asked = co_now();
        int rc = observe(&f);

        /* A read may also have waited long for its connection: that is an interruption, too. */
        if (co_now() - asked > m->conf.beat_ms * NSEC_PER_MSEC)
            f.last_failure = co_now();
        if (rc == 0) {
            why = reason_to_take_over(&f);
            if (why == NULL)
                metad_set_ready(m);
            else
                rc = take_over(&f, why, ret_term, ret_since);
        }
        if (rc == 0 && why != NULL)
            return 0;
        if (rc < 0) {
            if (rc == ERR_NOTFOUND)
                f.bootstrapped = false; /* the nodes have gone */
            if (rc != ERR_AGAIN && rc != ERR_STALE)
                f.last_failure = co_now();
            complain(m, rc);
        }
        (void)co_sleep(m->conf.beat_ms / 2 * NSEC_PER_MSEC);
    }
    return err_set(ERR_CANCELED, "stopping");
}
