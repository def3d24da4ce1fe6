/* SPDX-License-Identifier: Apache-2.0
 *
 * Running a workload once, with its device's tape and the model's changes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "chunk/chunkd.h"
#include "common/base/mem.h"
#include "common/env/sim.h"
#include "tests/crash/crash.h"

#define LIMIT (1000 * NSEC_PER_SEC)

struct record_life {
    struct life l;
    const struct workload *w;
    bool last;
    uint64_t until_ops; /* a life that is not the last one is killed after so many writes */
};

static int format_main(void *arg)
{
    const struct workload *w = arg;
    struct chunk_format_conf fc = {.workers = 1, .journal_bytes = w->ring_bytes};

    int rc = 0;

    for (uint32_t i = 0; i < workload_disks(w) && rc == 0; i++) {
        fc.guests = w->guest && i == 0;
        fc.journal_on = w->guest && i > 0 ? disk_path(0) : NULL;
        rc = chunk_format(disk_path(i), &fc);
    }
    return rc;
}

/* Before anything is recorded. */
static int fill_main(void *arg)
{
    struct record_life *rl = arg;
    struct life *l = &rl->l;

    if (!life_start(l) || !life_create(l, 0, true) || !life_open(l, 0, false) || !life_full(l, 0))
        return 0;
    if (engine_flush(l->e) < 0)
        (void)life_fail(l, "flush: %s", err_text(ERR_IO));
    engine_stop(l->e);
    return 0;
}

static int record_main(void *arg)
{
    struct record_life *rl = arg;
    struct life *l = &rl->l;

    if (!life_start(l) || !life_verify(l, true))
        return 0;
    workload_run(l, rl->w, rl->w->ops);
    if (!life_ok(l))
        return 0;
    if (engine_flush(l->e) < 0)
        return 0;
    for (uint32_t i = 0; i < l->m->n_ext; i++) {
        if (l->epoch[i] != 0)
            (void)life_verify_data(l, i);
    }
    if (life_ok(l) && engine_check(l->e) < 0)
        (void)life_fail(l, "accounting: %s", err_text(ERR_CORRUPT));
    engine_stop(l->e);
    return 0;
}

static bool life_is_over(void *arg)
{
    struct record_life *rl = arg;

    return !life_ok(&rl->l) || (!rl->last && rl->l.ops >= rl->until_ops);
}

struct ending {
    struct sim_proc *p;
    struct record_life *rl;
};
static bool ended(void *arg)
{
    struct ending *e = arg;

    return !sim_proc_running(e->p) || life_is_over(e->rl);
}

static void record_life(struct recording *r, struct sim *s, struct sim_proc *p, struct model *m,
                        uint32_t no)
{
    struct record_life *rl = calloc(1, sizeof(*rl));
    struct ending e = {p, rl};
    const struct workload *w = r->w;
    bool fill = r->tape == NULL;

    rl->w = w;
    rl->last = fill || no + 1 == w->lives;
    rl->until_ops = w->ops * w->streams * (60 + sim_random(s) % 30) / 100;
    rl->l = (struct life){.m = m,
                          .log = &r->log,
                          .tape = r->tape,
                          .disks = workload_disks(w),
                          .conf = {.workers = 1,
                                   .flush_delay_ms = w->flush_delay_ms,
                                   .memory_bytes = w->memory_bytes},
                          .rng = sim_random(s) | 1,
                          .may_fill = w->may_fill};
    sim_proc_start(p, fill ? fill_main : record_main, rl);
    if (!sim_run_until(s, ended, &e, LIMIT) && life_ok(&rl->l))
        snprintf(r->failure, sizeof(r->failure), "life %u does not end", no);
    if (sim_proc_running(p))
        sim_proc_crash(p);
    if (!life_ok(&rl->l))
        snprintf(r->failure, sizeof(r->failure), "life %u: %s", no, rl->l.failure);
    r->ops += rl->l.ops;
    r->refused += rl->l.refused;
    sim_run_for(s, NSEC_PER_MSEC); /* the dead process is reaped */
    free(rl);
}

static bool is_over(void *arg)
{
    return !sim_proc_running(arg);
}

void recording_make(struct recording *r, const struct workload *w, uint64_t seed)
{
    struct sim_conf conf = {.seed = seed};
    struct sim *s = sim_new(&conf);
    struct sim_proc *p = sim_proc_new(s, "127.1.0.1", "chunk");
    struct model *m = model_new(w->extents);

    *r = (struct recording){.w = w};
    for (uint32_t i = 0; i < workload_disks(w); i++) {
        sim_disk_create(p, disk_path(i), w->disk_bytes);
        if (w->physical_bytes != 0)
            sim_disk_set_physical(p, disk_path(i), w->physical_bytes);
    }
    sim_proc_start(p, format_main, (void *)w);
    (void)sim_run_until(s, is_over, p, LIMIT);
    if (sim_proc_running(p) || sim_proc_result(p) != 0)
        snprintf(r->failure, sizeof(r->failure), "the device can't be formatted");
    if (w->reserved_first && r->failure[0] == 0)
        record_life(r, s, p, m, 0);
    r->start = sim_image_of(p);
    r->tape = sim_tape_start(p);
    sim_tape_mark(r->tape, r->log.n);
    for (uint32_t i = 0; i < w->lives && r->failure[0] == 0; i++)
        record_life(r, s, p, m, i);
    sim_tape_stop(p);
    sim_free(s);
    free(m);
}

void recording_free(struct recording *r)
{
    sim_tape_free(r->tape);
    sim_image_free(r->start);
    free(r->log.c);
}
