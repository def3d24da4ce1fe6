/* SPDX-License-Identifier: Apache-2.0
 *
 * The story of a seed: see seed.h. */
#include "tests/sim/seed.h"

#include <stdio.h>

#include "tests/sim/files.h"
#include "tests/sim/operator.h"

#define HEAL_SECONDS 120
#define VOLUME_BYTES (512ull << 20)

struct run {
    struct cluster *c;
    const struct scenario *s;
    struct fault_stats faults;
    bool done;
};

/* What an operator does whose disks are full: replicas that lack space can't return before, and
 * what snapshots have is not freed by a discard. */
static void make_space(struct cluster *c)
{
    nsec_t until = co_now() + HEAL_SECONDS * NSEC_PER_SEC;

    operator_delete_extras(c, HEAL_SECONDS * NSEC_PER_SEC);
    while (workload_filled(c) && co_now() < until && !c->failure[0])
        (void)co_sleep(100 * NSEC_PER_MSEC);
    if (workload_filled(c))
        cluster_fail(c, "what fills the disks can't be discarded");
}

static void wait_idle(struct cluster *c)
{
    nsec_t until = co_now() + HEAL_SECONDS * NSEC_PER_SEC;

    workload_stop(c);
    files_stop(c);
    while (workload_active(c) + files_active(c) && co_now() < until)
        (void)co_sleep(100 * NSEC_PER_MSEC);
    if (workload_active(c))
        cluster_fail(c, "no progress: %u operations still hang %d s after all faults ended",
                     workload_active(c), HEAL_SECONDS);
    if (files_active(c))
        cluster_fail(c, "no progress: %u requests about files are repeated %d s after all faults",
                     files_active(c), HEAL_SECONDS);
}

static void wait_final(struct cluster *c, const char *what)
{
    nsec_t until = co_now() + HEAL_SECONDS * NSEC_PER_SEC;

    while (!workload_final_done(c) && co_now() < until && !c->failure[0])
        (void)co_sleep(100 * NSEC_PER_MSEC);
    if (!workload_final_done(c))
        cluster_fail(c, "no progress: the final %s hang", what);
}

static void check_files(struct cluster *c)
{
    nsec_t until = co_now() + HEAL_SECONDS * NSEC_PER_SEC;

    files_final(c, (uint32_t)(sim_random(c->sim) % HOSTS));
    while (!files_done(c) && co_now() < until && !c->failure[0])
        (void)co_sleep(100 * NSEC_PER_MSEC);
    if (!files_done(c))
        cluster_fail(c, "no progress: the files can't be read and removed");
}

static void check_contents(struct cluster *c)
{
    workload_final_read(c, (uint32_t)(sim_random(c->sim) % HOSTS));
    wait_final(c, "reads");
    (void)cluster_verify(c);
}

static void check_full(struct cluster *c)
{
    workload_final_fill(c, (uint32_t)(sim_random(c->sim) % HOSTS));
    wait_final(c, "writes to full disks");
    (void)cluster_verify(c);
}

/* Straight code on a loop that no fault touches. */
static int director(void *arg)
{
    struct run *r = arg;
    struct cluster *c = r->c;

    cluster_start_all(c);
    if (operator_create(c, r->s->replicas, VOLUME_BYTES) < 0) {
        cluster_fail(c, "the volume cannot be created");
        return 0;
    }
    (void)co_sleep(2 * NSEC_PER_SEC);
    faults_run(c, r->s, &r->faults);
    sim_note(c->sim, "healing");
    faults_heal(c);
    if (c->small)
        make_space(c);
    wait_idle(c);
    if (!c->failure[0] && cluster_wait_in_sync(c, HEAL_SECONDS * NSEC_PER_SEC) == 0)
        check_contents(c);
    if (!c->failure[0])
        check_files(c);
    if (!c->failure[0] && c->small)
        check_full(c);
    if (!c->failure[0])
        operator_delete_all(c, HEAL_SECONDS * NSEC_PER_SEC);
    if (!c->failure[0])
        (void)cluster_check_metas(c);
    r->done = true;
    return 0;
}

static bool is_done(void *arg)
{
    const struct run *r = arg;

    return r->done || r->c->failure[0];
}

static void check_halts(struct cluster *c)
{
    for (uint32_t n = 0; n < HOSTS; n++)
        for (uint32_t p = 0; p < ROLES; p++)
            if (sim_proc_halted(c->nodes[n].procs[p]))
                cluster_fail(c, "%s halted: %s", c->nodes[n].names[p],
                             sim_proc_halted(c->nodes[n].procs[p]));
}

struct seed_result seed_run(const struct scenario *s, bool trace, uint64_t watch)
{
    struct run r = {.s = s};
    struct seed_result out = {0};
    const char *bad;

    r.c = cluster_new(s, trace);
    r.c->watch = watch;
    workload_start(r.c, s->clients);
    if (s->files)
        files_start(r.c);
    sim_control(r.c->sim, "127.1.0.99", "director", director, &r);
    if (!sim_run_until(r.c->sim, is_done, &r, s->span + 20 * 60 * NSEC_PER_SEC))
        cluster_fail(r.c, "no end after the whole time");
    check_halts(r.c);
    bad = history_check(r.c->history);
    if (bad)
        cluster_fail(r.c, "%s", bad);
    snprintf(out.failure, sizeof(out.failure), "%s", r.c->failure);
    out.hash = sim_trace_hash(r.c->sim);
    out.ops = history_ops(r.c->history);
    history_searched(r.c->history, &out.searched, &out.undecided);
    out.faults = r.faults;
    out.work = *workload_stats(r.c);
    out.files = *files_stats(r.c);
    out.virtual_time = sim_now(r.c->sim);
    if (trace && sim_trace_text(r.c->sim))
        fputs(sim_trace_text(r.c->sim), stdout);
    workload_free(r.c);
    files_free(r.c);
    cluster_free(r.c);
    return out;
}
