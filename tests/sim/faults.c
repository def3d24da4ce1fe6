/* SPDX-License-Identifier: Apache-2.0
 *
 * Fault schedules: see faults.h. */
#include "tests/sim/faults.h"

#include "common/env/env.h"

static const char *const names[FAULTS] = {
    [FAULT_CRASH] = "crash",
    [FAULT_POWER] = "power loss",
    [FAULT_POWER_ALL] = "power loss everywhere",
    [FAULT_PAUSE] = "pause",
    [FAULT_PARTITION] = "partition",
    [FAULT_COORD_EXPIRE] = "session expiry",
    [FAULT_COORD_CUT] = "coordination cut off",
    [FAULT_COORD_DOWN] = "coordination down",
    [FAULT_SLOW_DISK] = "slow disks",
    [FAULT_DEPOSE] = "leader pause",
    [FAULT_ISOLATE] = "isolation then power loss",
};

const char *fault_name(enum fault f)
{
    return names[f];
}

uint32_t faults_choose(uint64_t seed, struct sim_conf *conf)
{
    uint64_t x = seed * 0x9e3779b97f4a7c15u + 1;
    uint32_t kinds;

    x ^= x >> 29;
    x *= 0xbf58476d1ce4e5b9u;
    x ^= x >> 32;
    kinds = (uint32_t)(x & ((1u << FAULTS) - 1));
    if (kinds == 0)
        kinds = 1u << FAULT_CRASH;
    x >>= FAULTS;
    conf->seed = seed;
    if (x & 1)
        conf->net_spike_ppm = 2000;
    if (x & 2)
        conf->net_reset_ppm = 200;
    if (x & 4)
        conf->coord_uncertain_ppm = 20000;
    if (kinds & 1u << FAULT_SLOW_DISK)
        conf->disk_spike_ppm = 2000;
    return kinds;
}

static uint64_t draw(struct cluster *c, uint64_t n)
{
    return sim_random(c->sim) % n;
}

static nsec_t some_time(struct cluster *c)
{
    /* mostly short, sometimes long enough for every timeout */
    return (nsec_t)(100 + draw(c, draw(c, 4) ? 1500 : 8000)) * NSEC_PER_MSEC;
}

static void crash_one(struct cluster *c)
{
    uint32_t n = (uint32_t)draw(c, HOSTS), r = (uint32_t)draw(c, ROLES);
    struct sim_proc *p = c->nodes[n].procs[r];

    if (!sim_proc_running(p))
        return;
    sim_note(c->sim, "crash %s", c->nodes[n].names[r]);
    sim_proc_crash(p);
    (void)co_sleep(some_time(c));
    if (!sim_proc_running(p))
        cluster_start(c, n, r);
}

static void power_host(struct cluster *c, uint32_t n)
{
    sim_note(c->sim, "host-%u loses power", n + 1);
    for (uint32_t r = 0; r < ROLES; r++)
        if (sim_proc_running(c->nodes[n].procs[r]))
            sim_proc_power_loss(c->nodes[n].procs[r]);
}

static void start_host(struct cluster *c, uint32_t n)
{
    uint32_t first = (uint32_t)draw(c, ROLES);

    for (uint32_t i = 0; i < ROLES; i++) {
        uint32_t r = (first + i) % ROLES;

        if (!sim_proc_running(c->nodes[n].procs[r]))
            cluster_start(c, n, r);
        (void)co_sleep((nsec_t)draw(c, 300) * NSEC_PER_MSEC);
    }
}

static void power_all(struct cluster *c)
{
    uint32_t first = (uint32_t)draw(c, HOSTS);

    for (uint32_t n = 0; n < HOSTS; n++)
        power_host(c, n);
    (void)co_sleep(some_time(c));
    for (uint32_t n = 0; n < HOSTS; n++)
        start_host(c, (first + n) % HOSTS);
    (void)co_sleep(5 * NSEC_PER_SEC);
}

static void pause_some(struct cluster *c)
{
    uint32_t n = (uint32_t)draw(c, HOSTS), mask = 1 + (uint32_t)draw(c, (1u << ROLES) - 1);

    sim_note(c->sim, "host-%u pauses %x", n + 1, mask);
    for (uint32_t r = 0; r < ROLES; r++)
        if ((mask >> r & 1) && sim_proc_running(c->nodes[n].procs[r]))
            sim_proc_pause(c->nodes[n].procs[r]);
    (void)co_sleep(some_time(c));
    for (uint32_t r = 0; r < ROLES; r++)
        if (sim_proc_running(c->nodes[n].procs[r]) && sim_proc_paused(c->nodes[n].procs[r]))
            sim_proc_resume(c->nodes[n].procs[r]);
}

static void partition(struct cluster *c)
{
    uint32_t n = (uint32_t)draw(c, HOSTS);
    uint32_t other = (n + 1 + (uint32_t)draw(c, HOSTS - 1)) % HOSTS;
    const char *peer = draw(c, 2) ? "*" : c->nodes[other].addr;
    uint64_t how = draw(c, 3);

    sim_note(c->sim, "host-%u cut off from %s, direction %d", n + 1, peer, (int)how);
    if (how != 0)
        sim_net_cut(c->sim, c->nodes[n].addr, peer);
    if (how != 1)
        sim_net_cut(c->sim, peer, c->nodes[n].addr);
    (void)co_sleep(some_time(c));
    sim_net_heal_all(c->sim);
}

static void coord_cut(struct cluster *c)
{
    struct sim_proc *p = c->nodes[draw(c, HOSTS)].procs[ROLE_META];

    sim_coord_cut(c->sim, p, true);
    (void)co_sleep(some_time(c));
    sim_coord_cut(c->sim, p, false);
}

static void coord_down(struct cluster *c)
{
    sim_coord_available(c->sim, false);
    (void)co_sleep((nsec_t)(100 + draw(c, 4000)) * NSEC_PER_MSEC);
    sim_coord_available(c->sim, true);
}

static void depose(struct cluster *c)
{
    uint32_t n = cluster_leader(c);
    struct sim_proc *p = n < HOSTS ? c->nodes[n].procs[ROLE_META] : NULL;

    if (!p || !sim_proc_running(p) || sim_proc_paused(p))
        return;
    sim_note(c->sim, "leader meta-%u pauses", n + 1);
    sim_proc_pause(p);
    (void)co_sleep((nsec_t)(800 + draw(c, 1200)) * NSEC_PER_MSEC);
    if (sim_proc_running(p) && sim_proc_paused(p))
        sim_proc_resume(p);
}

static void isolate(struct cluster *c)
{
    uint32_t n = (uint32_t)draw(c, HOSTS);

    sim_note(c->sim, "host-%u is isolated", n + 1);
    sim_net_cut(c->sim, c->nodes[n].addr, "*");
    sim_net_cut(c->sim, "*", c->nodes[n].addr);
    (void)co_sleep((nsec_t)(50 + draw(c, 1500)) * NSEC_PER_MSEC);
    power_host(c, n);
    sim_net_heal_all(c->sim);
    (void)co_sleep(some_time(c));
    start_host(c, n);
}

static void strike(struct cluster *c, enum fault f)
{
    switch (f) {
    case FAULT_CRASH:
        crash_one(c);
        break;
    case FAULT_POWER: {
        uint32_t n = (uint32_t)draw(c, HOSTS);

        power_host(c, n);
        (void)co_sleep(some_time(c));
        start_host(c, n);
        break;
    }
    case FAULT_POWER_ALL:
        power_all(c);
        break;
    case FAULT_PAUSE:
        pause_some(c);
        break;
    case FAULT_PARTITION:
        partition(c);
        break;
    case FAULT_COORD_EXPIRE:
        sim_coord_expire(c->sim, c->nodes[draw(c, HOSTS)].procs[ROLE_META]);
        break;
    case FAULT_COORD_CUT:
        coord_cut(c);
        break;
    case FAULT_COORD_DOWN:
        coord_down(c);
        break;
    case FAULT_DEPOSE:
        depose(c);
        break;
    case FAULT_ISOLATE:
        isolate(c);
        break;
    default:
        (void)co_sleep(some_time(c)); /* slow disks act by themselves */
        break;
    }
}

void faults_run(struct cluster *c, uint32_t kinds, nsec_t span, struct fault_stats *stats)
{
    nsec_t until = co_now() + span;

    while (co_now() < until && !c->failure[0]) {
        enum fault f = (enum fault)draw(c, FAULTS);

        (void)co_sleep((nsec_t)draw(c, 1500) * NSEC_PER_MSEC);
        if (!(kinds >> f & 1))
            continue;
        /* everything at once is rare; half of the time it strikes in the middle of a repair */
        if (f == FAULT_POWER_ALL && draw(c, 3))
            continue;
        stats->count[f]++;
        sim_note(c->sim, "fault: %s", names[f]);
        strike(c, f);
        if (draw(c, 2))
            (void)co_sleep((nsec_t)draw(c, 4000) * NSEC_PER_MSEC);
    }
}

void faults_heal(struct cluster *c)
{
    struct sim_conf quiet = {.seed = c->seed};

    sim_set_conf(c->sim, &quiet);
    sim_net_heal_all(c->sim);
    sim_coord_available(c->sim, true);
    for (uint32_t n = 0; n < HOSTS; n++)
        sim_coord_cut(c->sim, c->nodes[n].procs[ROLE_META], false);
    cluster_start_all(c);
}
