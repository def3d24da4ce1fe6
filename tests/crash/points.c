/* SPDX-License-Identifier: Apache-2.0
 *
 * Going through a recording: at each completion of a device write or flush, just before it takes
 * effect, everything that led there has been acknowledged, and whatever is open can go any way.
 * Each point and outcome is a world of its own, with a device made of the tape's pages. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/mem.h"
#include "common/env/sim.h"
#include "tests/crash/crash.h"
#include "tests/crash/seen.h"

#define LIMIT    (1000 * NSEC_PER_SEC)
#define MORE_OPS 3u /* of each stream, where a life goes on */
#define RESTARTS 2u
#define RUN      64u /* points in a row that one process goes through: neighbours are alike */

static const char *const names[SIM_OUTCOMES] = {"lost", "kept", "subset", "torn"};

const char *outcome_name(int outcome)
{
    return names[outcome];
}

int outcome_by_name(const char *name)
{
    for (int i = 0; i < SIM_OUTCOMES; i++) {
        if (strcmp(name, names[i]) == 0)
            return i;
    }
    return -1;
}

uint64_t crash_points_of(const struct sim_tape *t)
{
    uint64_t n = 1; /* the end */

    for (uint64_t i = 0; i < t->n_ev; i++)
        n += t->ev[i].kind == SIM_TAPE_DONE || t->ev[i].kind == SIM_TAPE_FLUSH;
    return n;
}

static uint64_t mix(uint64_t a, uint64_t b)
{
    uint64_t x = (a ^ (b + 0x9e3779b97f4a7c15u)) * 0xbf58476d1ce4e5b9u;

    x = (x ^ (x >> 29)) * 0x94d049bb133111ebu;
    return x ^ (x >> 32);
}

void crash_again(const struct recording *r, const struct crash_conf *conf, uint64_t point,
                 int outcome)
{
    printf("  again: zbs-crash --workload %s --seed %" PRIu64 " --from %" PRIu64
           " --count 1 --outcome %s --draws %u --again %u --nested %u --verbose\n",
           r->w->name, conf->seed, point, outcome_name(outcome), conf->draws, conf->again_every,
           conf->nested_every);
    fflush(stdout);
}

/* ---- one start ---- */

struct check {
    struct life l;
    const struct workload *w;
    bool go_on; /* after it was verified: settle, send again what was on its way, write more */
    bool stop;  /* ends the engine in order */
    bool sound; /* zbs-fsck judged the same device before */
    bool done;
};

static bool fsck_ok(struct life *l, const struct workload *w)
{
    for (uint32_t i = 0; i < l->disks; i++) {
        struct fsck_run f = {.path = disk_path(i),
                             .journal = w->guest && i > 0 ? disk_path(0) : NULL};

        if (!fsck_clean(&f))
            return life_fail(l, "fsck of %s: %s", f.path, f.why);
    }
    return true;
}

/* The owner is still there, and sends again what nobody confirmed. */
static bool send_again(struct life *l, const struct change *pending, uint32_t n)
{
    bool ok = true;

    for (uint32_t i = 0; i < n && ok; i++) {
        if (pending[i].v.epoch == l->epoch[pending[i].ext])
            ok = life_again(l, &pending[i]);
    }
    for (uint32_t i = 0; i < l->m->n_ext && ok; i++) {
        if (l->epoch[i] != 0)
            ok = life_verify_data(l, i);
    }
    return ok;
}

static int check_main(void *arg)
{
    struct check *c = arg;
    struct life *l = &c->l;
    struct change pending[PENDING_MAX];
    uint32_t n = l->m->n_pending;

    memcpy(pending, l->m->pending, n * sizeof(*pending));
    if ((!c->sound && !fsck_ok(l, c->w)) || !life_start(l) || !life_verify(l, c->go_on))
        return 0;
    if (c->go_on && l->same_epoch && !send_again(l, pending, n))
        return 0;
    if (c->go_on)
        workload_few(l, MORE_OPS);
    if (life_ok(l) && c->go_on && c->stop && engine_flush(l->e) < 0)
        (void)life_fail(l, "flush: %s", err_text(ERR_IO));
    if (life_ok(l) && c->stop)
        engine_stop(l->e);
    c->done = true;
    return 0;
}

static bool check_ended(void *arg)
{
    struct sim_proc *p = arg;

    return !sim_proc_running(p);
}

/* What a seed decides about a start. */
static struct check check_new(const struct recording *r, struct model *m, uint64_t seed)
{
    /* The least: whatever may leave memory leaves it at once. */
    static const uint64_t memory[4] = {0, 1u << 20, 0, 8u << 10};
    struct check c = {.w = r->w, .stop = (seed >> 8 & 1) != 0};

    c.l = (struct life){.m = m,
                        .disks = workload_disks(r->w),
                        .conf = {.workers = 1,
                                 .flush_delay_ms = (seed >> 9 & 1) ? 2 : 1000,
                                 .memory_bytes = memory[seed >> 10 & 3]},
                        .rng = seed | 1,
                        .may_fill = r->w->may_fill,
                        .same_epoch = (seed >> 12 & 1) != 0};
    return c;
}

static bool check_run(struct check *c, struct sim *s, struct sim_proc *p)
{
    sim_proc_start(p, check_main, c);
    if (!sim_run_until(s, check_ended, p, LIMIT)) {
        (void)life_fail(&c->l, "it does not end");
        sim_proc_crash(p);
    }
    if (life_ok(&c->l) && !c->done)
        (void)life_fail(&c->l, "it stopped: %s", sim_proc_halted(p) ? sim_proc_halted(p) : "?");
    return life_ok(&c->l);
}

/* ---- one point ---- */

struct place {
    const struct recording *r;
    const struct crash_conf *conf;
    struct tally *t;
    struct seen *devices; /* judged by zbs-fsck */
    struct seen *states;  /* ... and by an engine: devices, with what was acknowledged */
    uint64_t point, sum;  /* sum: of the model there */
    int outcome;
    uint32_t draw;
};

static uint64_t model_sum(const struct model *m)
{
    return seen_sum(m, sizeof(*m) + m->n_ext * sizeof(m->x[0]));
}

static void failed(const struct place *at, const char *where, const char *why)
{
    at->t->failures++;
    printf("%s: point %" PRIu64 ", %s%s: %s\n", at->r->w->name, at->point,
           outcome_name(at->outcome), where, why);
    crash_again(at->r, at->conf, at->point, at->outcome);
}

static struct sim_proc *world(struct sim **s, const struct workload *w, uint64_t seed,
                              const struct sim_image *img)
{
    struct sim_conf conf = {.seed = seed};
    struct sim_proc *p;

    *s = sim_new(&conf);
    p = sim_proc_new(*s, "127.1.0.1", "chunk");
    for (uint32_t i = 0; i < workload_disks(w); i++) {
        uint64_t pages = w->disk_bytes / PAGE_BYTES;

        sim_disk_create_from(p, disk_path(i), img, i * pages, pages);
        if (w->physical_bytes != 0)
            sim_disk_set_physical(p, disk_path(i), w->physical_bytes);
    }
    return p;
}

/* Verifies only, unless the same was verified before; sum: the model's. */
static bool point_once(const struct place *at, const struct model *m, uint64_t sum,
                       const struct sim_image *img, uint64_t seed, const char *where)
{
    struct check c = check_new(at->r, (struct model *)m, seed);
    struct sim_proc *p;
    struct sim *s;
    bool ok;

    at->t->checks++;
    if (!seen_add(at->states, mix(img->sum, sum))) {
        at->t->known++;
        return true;
    }
    c.sound = !seen_add(at->devices, img->sum);
    p = world(&s, at->r->w, seed, img);
    ok = check_run(&c, s, p);
    at->t->restarts++;
    sim_free(s);
    if (!ok)
        failed(at, where, c.l.failure);
    return ok;
}

/* Goes on after the restart, loses power or is stopped, and is verified again. */
static void point_again(const struct place *at, const struct model *was,
                        const struct sim_image *img, uint64_t seed)
{
    struct model *m = model_copy(was);
    struct sim *s;
    struct sim_proc *p = world(&s, at->r->w, seed, img);
    bool ok = true;

    for (uint32_t i = 0; i < RESTARTS && ok; i++) {
        struct check c = check_new(at->r, m, mix(seed, i));
        char where[64];

        c.go_on = i + 1 < RESTARTS;
        c.sound = i == 0 && !seen_add(at->devices, img->sum);
        ok = check_run(&c, s, p);
        at->t->restarts++;
        snprintf(where, sizeof(where), ", start %u", i + 1);
        if (!ok)
            failed(at, where, c.l.failure);
        sim_run_for(s, NSEC_PER_MSEC);
    }
    at->t->checks++;
    sim_free(s);
    free(m);
}

/* ---- crashes inside recoveries ---- */

static void nested_points(const struct place *at, struct sim_player *pl, struct model *m,
                          const struct sim_tape *tape, const struct changes *log, uint64_t seed)
{
    uint32_t applied = 0;
    uint64_t no = 0, sum = model_sum(m);

    for (uint64_t i = 0; i < tape->n_ev; i++) {
        const struct sim_tape_event *ev = &tape->ev[i];
        char where[96];

        if (ev->kind == SIM_TAPE_MARK) {
            while (applied < ev->n)
                model_apply(m, &log->c[applied++]);
            sum = model_sum(m);
        } else if (ev->kind == SIM_TAPE_DONE || ev->kind == SIM_TAPE_FLUSH) {
            for (int how = 0; how < SIM_OUTCOMES; how++) {
                struct sim_image *img;

                if (how == SIM_SUBSET) /* torn writes are subsets, too */
                    continue;
                img =
                    sim_player_crash(pl, (enum sim_outcome)how, mix(seed, no * 8 + (uint64_t)how));
                snprintf(where, sizeof(where), ", then point %" PRIu64 " after the restart, %s", no,
                         outcome_name(how));
                (void)point_once(at, m, sum, img, mix(seed, no), where);
                sim_image_free(img);
            }
            no++;
        }
        sim_player_event(pl, tape, ev);
    }
    at->t->nested_points += no;
}

/* The engine that comes back after the crash is recorded, with a few requests, and crashed at all
 * points of that. */
static void point_nested(const struct place *at, const struct model *was, struct sim_player *pl,
                         const struct sim_image *img, uint64_t seed)
{
    struct model *m = model_copy(was), *settled = model_copy(was);
    struct check c = check_new(at->r, settled, seed);
    struct changes log = {0};
    struct sim *s;
    struct sim_proc *p = world(&s, at->r->w, seed, img);
    struct sim_tape *tape = sim_tape_start(p);
    bool ok;

    c.l.log = &log;
    c.l.tape = tape;
    c.sound = !seen_add(at->devices, img->sum);
    c.go_on = c.stop = true;
    ok = check_run(&c, s, p);
    at->t->restarts++;
    sim_run_for(s, NSEC_PER_MSEC);
    sim_tape_stop(p);
    sim_free(s);
    if (!ok)
        failed(at, ", recorded", c.l.failure);
    else
        nested_points(at, pl, m, tape, &log, seed);
    sim_tape_free(tape);
    free(log.c);
    free(settled);
    free(m);
}

/* Power is lost, then there are crashes inside the recovery from that. */
static void nested_power(const struct place *at, const struct model *m, const struct sim_image *img,
                         uint64_t seed)
{
    struct sim_player *pl = sim_player_new(img);

    point_nested(at, m, pl, img, seed);
    sim_player_free(pl);
}

/* The process is killed: what the device has in its cache only is lost in a later crash. */
static void nested_kill(const struct place *at, const struct model *m, const struct sim_player *was,
                        uint64_t seed)
{
    struct sim_player *pl = sim_player_copy(was);
    struct sim_image *img;

    sim_player_kill(pl, seed);
    img = sim_player_crash(pl, SIM_ALL_KEPT, seed);
    point_nested(at, m, pl, img, seed);
    sim_image_free(img);
    sim_player_free(pl);
}

/* ---- all points ---- */

static bool one_of(uint64_t seed, uint32_t every)
{
    return every != 0 && seed % every == 0;
}

static void one_check(const struct place *at, const struct sim_player *pl, const struct model *m)
{
    const struct crash_conf *conf = at->conf;
    uint64_t seed = mix(mix(conf->seed, at->point), (uint64_t)at->outcome * 1000 + at->draw);
    struct sim_image *img = sim_player_crash(pl, (enum sim_outcome)at->outcome, seed);

    at->t->at_point = at->point;
    at->t->at_outcome = at->outcome;
    at->t->at_draw = at->draw;
    if (conf->verbose) {
        printf("%s: point %" PRIu64 ", %s, %u writes open\n", at->r->w->name, at->point,
               outcome_name(at->outcome), sim_player_open(pl));
        fflush(stdout);
    }
    if (one_of(seed >> 3, conf->nested_every)) {
        if (seed >> 40 & 1)
            nested_power(at, m, img, seed);
        else
            nested_kill(at, m, pl, seed);
    } else if (one_of(seed >> 20, conf->again_every)) {
        point_again(at, m, img, seed);
    } else {
        (void)point_once(at, m, at->sum, img, seed, "");
    }
    sim_image_free(img);
}

/* All outcomes of one point. With nothing open they are all the same. */
static void one_point(struct place *at, const struct sim_player *pl, const struct model *m)
{
    const struct crash_conf *conf = at->conf;

    at->sum = model_sum(m);
    for (at->outcome = 0; at->outcome < SIM_OUTCOMES; at->outcome++) {
        bool chance = at->outcome == SIM_SUBSET || at->outcome == SIM_TORN;

        if (conf->outcome >= 0 && conf->outcome != at->outcome)
            continue;
        for (at->draw = 0; at->draw < (chance ? conf->draws : 1); at->draw++)
            one_check(at, pl, m);
        if (sim_player_open(pl) == 0 && conf->outcome < 0)
            break;
    }
    at->t->points++;
}

void crash_points(const struct recording *r, const struct crash_conf *conf, uint32_t part,
                  uint64_t from, struct tally *t)
{
    struct sim_player *pl = sim_player_new(r->start);
    struct model *m = model_new(r->w->extents);
    struct seen devices = {0}, states = {0};
    struct place at = {.r = r, .conf = conf, .t = t, .devices = &devices, .states = &states};
    uint64_t end = conf->count != 0 ? conf->from + conf->count : UINT64_MAX;
    uint32_t applied = 0;

    for (uint64_t i = 0; i <= r->tape->n_ev && at.point < end; i++) {
        const struct sim_tape_event *ev = i < r->tape->n_ev ? &r->tape->ev[i] : NULL;

        while (ev && ev->kind == SIM_TAPE_MARK && applied < ev->n)
            model_apply(m, &r->log.c[applied++]);
        if (!ev || ev->kind == SIM_TAPE_DONE || ev->kind == SIM_TAPE_FLUSH) {
            if (at.point >= from && at.point % conf->step == 0 &&
                at.point / conf->step / RUN % conf->jobs == part)
                one_point(&at, pl, m);
            at.point++;
        }
        if (ev)
            sim_player_event(pl, r->tape, ev);
    }
    seen_free(&states);
    seen_free(&devices);
    free(m);
    sim_player_free(pl);
}
