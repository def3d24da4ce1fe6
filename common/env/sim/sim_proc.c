/* SPDX-License-Identifier: Apache-2.0
 *
 * Simulated processes and their loops: starting, running, pausing, ending. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/env/sim/sim_internal.h"

#define RUN_MAX      2000 /* resumptions in one step, so that a spinning process lets time move */
#define COST_MIN     (nsec_t)100
#define COST_MAX     (nsec_t)1500
#define STOP_MAX     (600 * NSEC_PER_SEC)
#define MAIN_IS_OVER 1

/* What is left of an ended incarnation: reclaimed outside coroutines. */
struct sim_zombie {
    struct list link;
    struct list loops;
    struct mem_heap *heap;
};

/* A coroutine of the world. */
struct sim_control {
    struct list link;
    struct sim_event ev;
    char *name;
    int (*fn)(void *arg);
    void *arg;
    struct sim_proc *proc;
};

/* ---- loops ---- */

static nsec_t loop_now(struct co_loop *co)
{
    struct sim_loop *l = co_loop_driver(co);

    return sim_clock_local(l->proc);
}

static void loop_wakeup(struct co_loop *co)
{
    sim_loop_want(co_loop_driver(co));
}

static uint32_t loop_pick(struct co_loop *co, uint32_t n)
{
    struct sim_loop *l = co_loop_driver(co);

    return n > 1 ? (uint32_t)sim_below(l->proc->sim, n) : 0;
}

static const struct co_loop_ops loop_ops = {
    .now = loop_now,
    .wakeup = loop_wakeup,
    .kick = loop_wakeup,
    .pick = loop_pick,
};

void sim_loop_want(struct sim_loop *l)
{
    struct sim *s = l->proc->sim;
    nsec_t at = MAX(s->now, l->busy_until);

    if (l->running)
        return; /* looks again after the run */
    if (l->proc->paused)
        l->wanted = true;
    else if (!sim_event_armed(&l->run_ev) || l->run_ev.at > at)
        sim_event_arm(s, &l->run_ev, at);
}

/* Arms the next run: at once if something is ready, else for the first timer. */
static void loop_rearm(struct sim_loop *l)
{
    nsec_t timer = co_loop_next_timer(l->co);

    if (co_loop_ready(l->co))
        sim_loop_want(l);
    else if (timer != NSEC_NEVER)
        sim_event_arm(l->proc->sim, &l->run_ev,
                      MAX(sim_clock_world(l->proc, timer), l->busy_until));
}

static void loop_run(struct sim *s, struct sim_event *e)
{
    struct sim_loop *l = CONTAINER_OF(e, struct sim_loop, run_ev);
    struct sim_proc *p = l->proc;
    struct mem_heap *former;
    nsec_t cost = 0;
    uint32_t n = 0;
    bool more = true;

    if (p->paused) {
        l->wanted = true;
        return;
    }
    former = mem_heap_set(p->heap);
    s->running = p;
    l->running = true;
    while (more && !p->doomed && n < RUN_MAX) {
        more = co_loop_run(l->co, 1);
        cost += sim_span(s, COST_MIN, COST_MAX);
        n++;
    }
    l->running = false;
    s->running = NULL;
    mem_heap_set(former);
    l->busy_until = s->now + cost;
    if (p->doomed) {
        sim_proc_end(p, SIM_END_KILL);
    } else if (p->exited) {
        sim_proc_end(p, SIM_END_EXIT);
    } else {
        loop_rearm(l);
        if (l->stopper && co_loop_count(l->co) == 0 && !co_loop_ready(l->co)) {
            co_resume(l->stopper, 0);
            l->stopper = NULL;
        }
    }
}

struct sim_loop *sim_loop_new(struct sim_proc *p, const char *name)
{
    struct sim_loop *l = SIM_NEW(struct sim_loop);
    struct mem_heap *former = mem_heap_set(p->heap);

    snprintf(l->name, sizeof(l->name), "%s", name);
    l->proc = p;
    sim_event_init(&l->run_ev, SIM_RUN, p, p->next_loop++, loop_run);
    l->co = co_loop_new(l->name, &loop_ops, l, &p->env);
    mem_heap_set(former);
    list_push_back(&p->loops, &l->link);
    return l;
}

void sim_loop_free(struct sim_loop *l)
{
    sim_event_disarm(l->proc->sim, &l->run_ev);
    list_del(&l->link);
    co_loop_free(l->co, false);
    sim_mem_free(l);
}

/* ---- starting ---- */

struct sim_proc *sim_proc_new(struct sim *s, const char *host, const char *name)
{
    struct sim_proc *p = SIM_NEW(struct sim_proc);
    struct list *lists[] = {&p->loops,     &p->end_waiters, &p->files, &p->disks,
                            &p->stores,    &p->calls,       &p->ios,   &p->disk_handles,
                            &p->listeners, &p->controls,    &p->ends,  &p->coords,
                            &p->kvs,       &p->scans,       &p->dgrams};

    ASSERT(strlen(host) < sizeof(p->host) && strlen(name) < sizeof(p->name));
    for (size_t i = 0; i < ARRAY_SIZE(lists); i++)
        list_init(lists[i]);
    strcpy(p->host, host);
    strcpy(p->name, name);
    p->sim = s;
    p->id = ++s->next_proc_id;
    p->env.ops = &sim_env_ops;
    p->env.name = p->name;
    list_push_back(&s->procs, &p->link);
    return p;
}

static int proc_main(void *arg)
{
    struct sim_proc *p = arg;

    p->result = p->main_fn(p->main_arg);
    if (p->supervisor)
        co_resume(p->supervisor, MAIN_IS_OVER);
    p->supervisor = NULL;
    return 0;
}

/* Runs main in a group, so that sim_proc_stop can cancel it. */
static int proc_supervise(void *arg)
{
    struct sim_proc *p = arg;
    struct co_group group;
    struct co_wait wait;

    co_group_init(&group);
    co_wait_init(&wait);
    p->supervisor = &wait;
    co_spawn(&group, "main", proc_main, p);
    if (!p->stopping)
        (void)co_suspend(&wait, CO_UNINTERRUPTIBLE);
    p->supervisor = NULL;
    (void)co_group_close(&group);
    return 0;
}

static void proc_done(void *arg, int rc)
{
    struct sim_proc *p = arg;

    (void)rc;
    p->exited = true;
}

static void proc_started(struct sim *s, struct sim_event *e)
{
    struct sim_proc *p = CONTAINER_OF(e, struct sim_proc, start_ev);
    struct mem_heap *former;

    (void)s;
    p->heap = mem_heap_new();
    p->next_loop = 0;
    p->main = sim_loop_new(p, "main");
    p->pool = sim_loop_new(p, "pool");
    former = mem_heap_set(p->heap);
    co_loop_start(p->main->co, "supervisor", proc_supervise, p, proc_done);
    mem_heap_set(former);
    sim_loop_want(p->main);
}

static void proc_stop_told(struct sim *s, struct sim_event *e)
{
    struct sim_proc *p = CONTAINER_OF(e, struct sim_proc, stop_ev);

    (void)s;
    if (p->supervisor)
        co_resume(p->supervisor, 0);
    p->supervisor = NULL;
}

static void proc_ended(struct sim *s, struct sim_event *e)
{
    struct sim_proc *p = CONTAINER_OF(e, struct sim_proc, end_ev);

    (void)s;
    sim_wake_all(&p->end_waiters, 0);
}

void sim_proc_start(struct sim_proc *p, int (*main_fn)(void *arg), void *arg)
{
    ASSERTF(!p->running, "%s is running", p->name);
    p->running = true;
    p->paused = p->stopping = p->exited = p->doomed = false;
#ifdef ZBS_MUTATE
    memset(p->env.phases, 0, sizeof(p->env.phases));
#endif
    p->result = 0;
    sim_mem_free(p->halted);
    p->halted = NULL;
    p->main_fn = main_fn;
    p->main_arg = arg;
    sim_event_init(&p->start_ev, SIM_START, p, 0, proc_started);
    sim_event_init(&p->stop_ev, SIM_STOP, p, 0, proc_stop_told);
    sim_event_arm(p->sim, &p->start_ev, p->sim->now);
}

/* ---- ending ---- */

/* The incarnation is over. Its part in the world is settled now; its memory is reclaimed as soon
 * as no coroutine runs. */
void sim_proc_end(struct sim_proc *p, enum sim_end_how how)
{
    struct sim *s = p->sim;
    struct sim_zombie *z = SIM_NEW(struct sim_zombie);

    ASSERT(p->running && s->running != p);
    sim_fold(s, SIM_END, p, how);
    p->running = p->paused = false;
    p->supervisor = NULL;
    sim_event_disarm(s, &p->start_ev);
    sim_event_disarm(s, &p->stop_ev);
    LIST_FOREACH (c, &p->controls, struct sim_control, link)
        sim_event_disarm(s, &c->ev);
    sim_calls_proc_ended(p);
    sim_disks_proc_ended(p, how);
    sim_net_proc_ended(p, how);
    sim_coord_proc_ended(p, how);
    sim_kv_proc_ended(p, how);
    sim_locks_proc_ended(p);
    list_init(&z->loops);
    list_splice_back(&z->loops, &p->loops);
    LIST_FOREACH (l, &z->loops, struct sim_loop, link)
        sim_event_disarm(s, &l->run_ev);
    z->heap = p->heap;
    p->heap = NULL;
    p->main = p->pool = NULL;
    list_push_back(&s->zombies, &z->link);
    if (!list_empty(&p->end_waiters)) {
        sim_event_init(&p->end_ev, SIM_END, p, 0, proc_ended);
        sim_event_arm(s, &p->end_ev, s->now);
    }
}

void sim_reap(struct sim *s)
{
    struct list *elem;

    while ((elem = list_pop_front(&s->zombies))) {
        struct sim_zombie *z = LIST_ENTRY(elem, struct sim_zombie, link);

        LIST_FOREACH_SAFE (l, &z->loops, struct sim_loop, link) {
            sim_event_disarm(s, &l->run_ev);
            co_loop_free(l->co, true);
            sim_mem_free(l);
        }
        if (z->heap)
            mem_heap_destroy(z->heap);
        sim_mem_free(z);
    }
}

static void controls_free(struct sim_proc *p)
{
    LIST_FOREACH_SAFE (c, &p->controls, struct sim_control, link) {
        sim_mem_free(c->name);
        sim_mem_free(c);
    }
}

void sim_proc_free(struct sim_proc *p)
{
    ASSERT(!p->running);
    sim_event_disarm(p->sim, &p->end_ev);
    controls_free(p);
    sim_files_free(p);
    sim_disks_free(p);
    sim_stores_free(p);
    list_del(&p->link);
    sim_mem_free(p->halted);
    sim_mem_free(p);
}

void sim_proc_crash(struct sim_proc *p)
{
    if (p->running)
        sim_proc_end(p, SIM_END_KILL);
}

void sim_proc_power_loss(struct sim_proc *p)
{
    if (p->running)
        sim_proc_end(p, SIM_END_POWER);
    else
        sim_disks_proc_ended(p, SIM_END_POWER); /* the cache goes even so */
}

void sim_proc_stop(struct sim_proc *p)
{
    struct sim *s = p->sim;
    nsec_t limit = s->now + STOP_MAX;

    if (!p->running)
        return;
    sim_proc_resume(p);
    p->stopping = true;
    sim_event_arm(s, &p->stop_ev, s->now);
    if (co_self()) {
        struct co_wait wait;

        co_wait_init(&wait);
        list_push_back(&p->end_waiters, &wait.link);
        (void)co_suspend(&wait, CO_UNINTERRUPTIBLE);
        return;
    }
    while (p->running) {
        bool more = sim_step(s);

        ASSERTF(more && s->now < limit, "%s does not stop", p->name);
    }
}

void sim_proc_pause(struct sim_proc *p)
{
    if (p->running)
        p->paused = true;
}

void sim_proc_resume(struct sim_proc *p)
{
    if (!p->paused)
        return;
    p->paused = false;
    LIST_FOREACH (l, &p->loops, struct sim_loop, link) {
        if (l->wanted)
            sim_loop_want(l);
        l->wanted = false;
    }
}

bool sim_proc_in(const struct sim_proc *p, enum phase phase)
{
#ifdef ZBS_MUTATE
    return p->running && p->env.phases[phase] > 0;
#else
    (void)p;
    (void)phase;
    return false;
#endif
}

bool sim_proc_running(const struct sim_proc *p)
{
    return p->running;
}

bool sim_proc_paused(const struct sim_proc *p)
{
    return p->paused;
}

int sim_proc_result(const struct sim_proc *p)
{
    return p->result;
}

const char *sim_proc_halted(const struct sim_proc *p)
{
    return p->halted;
}

/* ---- control coroutines: a process per host that no fault reaches ---- */

static int control_main(void *arg)
{
    struct sim_control *c = arg;

    return c->fn(c->arg);
}

static void control_done(void *arg, int rc)
{
    struct sim_control *c = arg;

    (void)rc;
    c->proc->sim->controls--;
}

static void control_started(struct sim *s, struct sim_event *e)
{
    struct sim_control *c = CONTAINER_OF(e, struct sim_control, ev);
    struct mem_heap *former = mem_heap_set(c->proc->heap);

    (void)s;
    co_loop_start(c->proc->main->co, c->name, control_main, c, control_done);
    mem_heap_set(former);
    sim_loop_want(c->proc->main);
}

static struct sim_proc *control_proc(struct sim *s, const char *host)
{
    struct sim_proc *p;

    LIST_FOREACH (old, &s->procs, struct sim_proc, link)
        if (old->control && strcmp(old->host, host) == 0)
            return old;
    p = sim_proc_new(s, host, "control");
    p->control = p->running = true;
    p->heap = mem_heap_new();
    p->main = sim_loop_new(p, "control");
    p->pool = sim_loop_new(p, "pool");
    return p;
}

void sim_control(struct sim *s, const char *host, const char *name, int (*fn)(void *arg), void *arg)
{
    struct sim_proc *p = control_proc(s, host);
    struct sim_control *c = SIM_NEW(struct sim_control);

    list_push_back(&p->controls, &c->link);
    c->name = sim_strdup(name);
    c->fn = fn;
    c->arg = arg;
    c->proc = p;
    sim_event_init(&c->ev, SIM_START, p, 0, control_started);
    sim_event_arm(s, &c->ev, s->now);
    s->controls++;
}

uint32_t sim_control_running(const struct sim *s)
{
    return s->controls;
}
