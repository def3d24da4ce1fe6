/* SPDX-License-Identifier: Apache-2.0
 *
 * What the leader does by itself: sessions that expire, chunk servers that fall silent, removed
 * volumes that are swept in bounded records (PROTOCOL 6.6), recovery, and the trimming of the log
 * (PROTOCOL 6.5). */
#include <inttypes.h>
#include <stdlib.h>
#include "common/base/log.h"
#include "common/base/mutate.h"
#include "common/env/env.h"
#include "meta/decide.h"
#include "meta/lead.h"

#define TICK       (50 * NSEC_PER_MSEC)
#define TRIM_EVERY NSEC_PER_SEC
#define TRIM_MIN   64u /* entries; fewer are not worth the writes */

struct upkeep {
    struct lead *l;
    struct metad *m;
    nsec_t last_tick;
};

static void expire_sessions(struct upkeep *u, nsec_t now)
{
    struct state *st = &u->m->st;
    nsec_t ttl = u->m->conf.session_ttl_ms * NSEC_PER_MSEC / (mutate(MUT_EXPIRE_EARLY) ? 3 : 1);

    for (uint32_t i = 0; i < st->sessions.count;) {
        struct session *s = st->sessions.items[i];
        struct packed reply;
        struct pad pad;

        if (now - live_session(&u->l->live, s->id)->seen <= ttl) {
            i++;
            continue;
        }
        log_warn("session.expire", "session=%" PRIu64 " name=%s", s->id, s->name);
        live_session_drop(&u->l->live, s->id);
        live_view_changed(&u->l->live);
        pad_init(&pad);
        lead_submit(u->m, decide_session_expiry(&pad, s->id), &pad, &reply);
        pad_fini(&pad);
    }
}

/* Small volumes, as files have them, go by the hundred: as much as a large one loses at once. */
static void sweep_volumes(struct upkeep *u)
{
    const struct state *st = &u->m->st;
    uint32_t changes = 0;

    while (st->removed.count > 0 && changes < SWEEP_MAX) {
        struct packed reply;
        struct pad pad;

        changes += 1 + ((const struct volume *)st->removed.items[0])->extents;
        pad_init(&pad);
        lead_submit(u->m, decide_sweep(st, &pad), &pad, &reply);
        pad_fini(&pad);
    }
}

static void sweep_policies(struct upkeep *u)
{
    struct packed reply;
    struct pad pad;
    Zbs__Metalog__Record *r;

    pad_init(&pad);
    r = decide_policy_sweep(&u->m->st, &pad);
    if (r != NULL)
        lead_submit(u->m, r, &pad, &reply);
    pad_fini(&pad);
}

/* A process that was stopped for a while did not hear anybody: that is no sign of their death. */
static void forgive_pause(struct upkeep *u, nsec_t now)
{
    if (now - u->last_tick > 3 * TICK)
        live_extend(&u->l->live, now - u->last_tick - TICK);
    u->last_tick = now;
}

int upkeep_main(void *arg)
{
    struct lead *l = arg;
    struct upkeep u = {.l = l, .m = l->m, .last_tick = co_now()};

    while (!l->ended && co_sleep(TICK) == 0) {
        nsec_t now = co_now();

        forgive_pause(&u, now);
        if (lead_enter_mutation(l->m) < 0)
            continue;
        live_chunks_check(&l->live, now);
        expire_sessions(&u, now);
        sweep_volumes(&u);
        sweep_policies(&u);
        recovery_tick(l, now);
    }
    return 0;
}

/* ---- trimming ---- */

static int compare_descending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x > y ? -1 : x < y;
}

/* What a majority of the configured servers has applied with a synced write. */
static uint64_t synced_by_majority(const struct metad *m)
{
    uint64_t synced[PEERS_MAX + 1];

    synced[0] = m->synced;
    for (uint32_t i = 0; i < m->n_peers; i++)
        synced[i + 1] = m->peers[i].synced;
    qsort(synced, m->n_peers + 1, sizeof(synced[0]), compare_descending);
    return synced[metad_majority(m) - 1];
}

/* The highest entry that is neither kept for log_keep's sake nor fits LOG_BYTES_KEEP. */
static uint64_t not_worth_keeping(const struct lead *l)
{
    const struct log_sizes *sizes = &l->m->log_sizes;
    uint64_t keep = l->m->conf.log_keep;
    uint64_t by_count = l->confirmed_index > keep ? l->confirmed_index - keep : 0;
    uint64_t by_bytes = 0, sum = 0;

    for (uint32_t i = sizes->count; i > 0; i--) {
        sum += sizes->sizes[i - 1];
        if (sum > LOG_BYTES_KEEP) {
            by_bytes = sizes->first + i - 1;
            break;
        }
    }
    return MAX(by_count, by_bytes);
}

static co_fn void sync_store(struct metad *m)
{
    uint64_t applied = m->applied;
    struct kv_batch *b;

    if (m->synced == applied)
        return;
    b = kv_batch_new();
    if (kv_write(m->kv, b, true) < 0)
        env_halt("%s: %s", m->conf.data_dir, err_text(ERR_IO));
    kv_batch_free(b);
    m->synced = MAX(m->synced, applied);
}

static co_fn void trim_to(struct lead *l, uint64_t last)
{
    while (!l->ended && !l->broken && l->tail <= last) {
        uint32_t n = (uint32_t)MIN(last - l->tail + 1, (uint64_t)ZK_TRIM_MAX / 2);
        nsec_t sent = co_now();
        int rc;

        l->users++;
        rc = zk_trim(l->m, l->term.version, l->tail, n);
        l->users--;
        if (rc < 0) {
            lead_break(l, "trim", rc);
            return;
        }
        lead_written(l, sent);
        l->tail += n;
        log_sizes_trim(&l->m->log_sizes, l->tail);
    }
}

int trim_main(void *arg)
{
    struct lead *l = arg;
    struct metad *m = l->m;

    while (!l->ended && co_sleep(TRIM_EVERY) == 0) {
        uint64_t last;

        (void)peers_ask(m, NSEC_PER_SEC / 2);
        last = not_worth_keeping(l);
        if (l->broken || !l->serving || last < l->tail + TRIM_MIN)
            continue;
        sync_store(m);
        trim_to(l, MIN(last, synced_by_majority(m)));
    }
    return 0;
}
