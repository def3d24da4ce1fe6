/* SPDX-License-Identifier: Apache-2.0
 *
 * How each kind of event strikes and is undone: see faults.h. */
#include "tests/sim/faults.h"

#include <string.h>

#include "common/env/env.h"
#include "tests/sim/operator.h"
#include "tests/sim/workload.h"

#define GRACE_SECONDS     600 /* before a replica is made anew, by default */
#define ROT_TRIES         64
#define OPERATOR_PATIENCE (20 * NSEC_PER_SEC) /* with a disk that is to go */

/* One event that is being carried out. */
struct strike {
    struct cluster *c;
    const struct fault_event *e;
    struct fault_stats *stats;
    struct node *n; /* where it strikes */
};

static struct sim_proc *victim(const struct strike *s)
{
    return s->n->procs[s->e->role];
}

/* ---- processes and hosts ---- */

static bool crash_begin(struct strike *s)
{
    if (!sim_proc_running(victim(s)))
        return false;
    sim_proc_crash(victim(s));
    return true;
}

static void start_again(struct strike *s)
{
    cluster_start(s->c, s->n->index, (enum role)s->e->role);
}

static void power_host(struct node *n)
{
    sim_note(n->cluster->sim, "host-%u loses power", n->index + 1);
    for (uint32_t r = 0; r < ROLES; r++)
        sim_proc_power_loss(n->procs[r]);
}

/* Its processes come up in any order. */
static void start_host(struct node *n)
{
    struct cluster *c = n->cluster;
    uint32_t first = (uint32_t)(sim_random(c->sim) % ROLES);

    for (uint32_t i = 0; i < ROLES; i++) {
        cluster_start(c, n->index, (enum role)((first + i) % ROLES));
        (void)co_sleep((nsec_t)(sim_random(c->sim) % 300) * NSEC_PER_MSEC);
    }
}

static bool power_begin(struct strike *s)
{
    power_host(s->n);
    return true;
}

static void power_end(struct strike *s)
{
    start_host(s->n);
}

static bool power_all_begin(struct strike *s)
{
    for (uint32_t n = 0; n < HOSTS; n++)
        power_host(&s->c->nodes[n]);
    return true;
}

static void power_all_end(struct strike *s)
{
    for (uint32_t n = 0; n < HOSTS; n++)
        start_host(&s->c->nodes[(s->n->index + n) % HOSTS]);
}

static void pause_roles(struct node *n, uint32_t mask, bool pause)
{
    for (uint32_t r = 0; r < ROLES; r++) {
        if (!(mask >> r & 1) || !sim_proc_running(n->procs[r]))
            continue;
        if (pause)
            sim_proc_pause(n->procs[r]);
        else if (sim_proc_paused(n->procs[r]))
            sim_proc_resume(n->procs[r]);
    }
}

static bool pause_begin(struct strike *s)
{
    pause_roles(s->n, s->e->arg, true);
    return true;
}

static void pause_end(struct strike *s)
{
    pause_roles(s->n, s->e->arg, false);
}

static bool suspend_begin(struct strike *s)
{
    pause_roles(s->n, (1u << ROLES) - 1, true);
    return true;
}

static void suspend_end(struct strike *s)
{
    pause_roles(s->n, (1u << ROLES) - 1, false);
}

static bool release_begin(struct strike *s)
{
    if (!sim_proc_running(victim(s)))
        return false;
    sim_proc_stop(victim(s));
    return true;
}

static bool readdress_begin(struct strike *s)
{
    struct node *n = s->n;

    if (!sim_proc_running(victim(s)))
        return false;
    sim_proc_crash(victim(s));
    snprintf(n->listen[ROLE_CHUNK], sizeof(n->listen[ROLE_CHUNK]), "%s:%u", n->addr,
             7200 + ++n->moves % 100);
    return true;
}

static bool wall_jump_begin(struct strike *s)
{
    sim_clock_jump(s->c->sim, s->n->addr, s->e->arg * NSEC_PER_SEC);
    return true;
}

static void wall_jump_end(struct strike *s)
{
    sim_clock_jump(s->c->sim, s->n->addr, -(s->e->arg * NSEC_PER_SEC));
}

/* ---- network and coordination ---- */

static void cut(struct strike *s, bool set)
{
    void (*change)(struct sim *, const char *, const char *) = set ? sim_net_cut : sim_net_heal;
    uint32_t other = s->e->arg / 4, how = s->e->arg % 4;
    const char *peer = other ? s->c->nodes[(other - 1) % HOSTS].addr : "*";

    if (how != 0)
        change(s->c->sim, s->n->addr, peer);
    if (how != 1)
        change(s->c->sim, peer, s->n->addr);
}

static bool partition_begin(struct strike *s)
{
    cut(s, true);
    return true;
}

static void partition_end(struct strike *s)
{
    cut(s, false);
}

static bool expire_begin(struct strike *s)
{
    sim_coord_expire(s->c->sim, victim(s));
    return true;
}

static bool coord_cut_begin(struct strike *s)
{
    sim_coord_cut(s->c->sim, victim(s), true);
    return true;
}

static void coord_cut_end(struct strike *s)
{
    sim_coord_cut(s->c->sim, victim(s), false);
}

static bool coord_down_begin(struct strike *s)
{
    sim_coord_available(s->c->sim, false);
    return true;
}

static void coord_down_end(struct strike *s)
{
    sim_coord_available(s->c->sim, true);
}

/* ---- disks ---- */

/* Which of the server's disks is struck. */
static uint32_t disk_no(const struct strike *s)
{
    return s->e->kind == FAULT_DISK_SLOW ? s->e->arg / SLOW_DISK_STEP : s->e->arg;
}

static const char *disk(const struct strike *s)
{
    return cluster_disk(disk_no(s) % DISKS_MAX);
}

static bool has_disk(const struct strike *s)
{
    return cluster_has_disk(s->n, disk_no(s));
}

static bool slow_begin(struct strike *s)
{
    struct sim_disk_speed slow = {.latency = s->e->arg % SLOW_DISK_STEP * NSEC_PER_MSEC,
                                  .bytes_per_sec = 1ull << 30};

    if (!has_disk(s))
        return false;
    sim_disk_set_speed(victim(s), disk(s), &slow);
    return true;
}

static void slow_end(struct strike *s)
{
    sim_disk_set_speed(victim(s), disk(s), &(struct sim_disk_speed){0});
}

static bool hang_begin(struct strike *s)
{
    if (!has_disk(s))
        return false;
    sim_disk_hang(victim(s), disk(s), true);
    return true;
}

/* A disk that was given up is looked at again at a start. */
static void restart(struct strike *s)
{
    if (sim_proc_running(victim(s)))
        sim_proc_crash(victim(s));
    start_again(s);
}

static void hang_end(struct strike *s)
{
    sim_disk_hang(victim(s), disk(s), false);
    if (s->e->span > 5 * NSEC_PER_SEC)
        restart(s);
}

static bool fail_begin(struct strike *s)
{
    if (!has_disk(s))
        return false;
    sim_disk_fail(victim(s), disk(s), true);
    return true;
}

static void fail_end(struct strike *s)
{
    sim_disk_fail(victim(s), disk(s), false);
    restart(s);
}

static bool replace_begin(struct strike *s)
{
    return s->c->disks > 1 && fail_begin(s);
}

/* What it held is given up; the new disk has the old one's path. If the operator can't reach the
 * server in time, the old one comes back as it was. */
static void replace_end(struct strike *s)
{
    nsec_t until = co_now() + OPERATOR_PATIENCE;
    bool removed = false;
    int rc = ERR_TIMEOUT;

    while (rc < 0 && co_now() < until && disk_no(s) < DISKS_MAX) {
        rc = operator_disk_remove(s->n, disk(s), true);
        removed |= rc == 0;
        if (rc < 0 && rc != ERR_NOTFOUND) {
            (void)co_sleep(300 * NSEC_PER_MSEC);
            continue;
        }
        sim_disk_fail(victim(s), disk(s), false);
        rc = operator_disk_add(s->n, disk(s));
        sim_disk_fail(victim(s), disk(s), rc < 0);
    }
    sim_note(s->c->sim, "%s of host-%u %s", disk(s), s->n->index + 1,
             rc == 0   ? "is replaced"
             : removed ? "is removed"
                       : "comes back");
    fail_end(s);
}

static bool lie_begin(struct strike *s)
{
    if (!has_disk(s))
        return false;
    sim_disk_lie(victim(s), disk(s), true);
    return true;
}

/* The power fails only while the other two replicas are there: min_replicas lets nobody drop the
 * one that lost its tail from a set of two, so such an extent waits for an operator. */
static void lie_end(struct strike *s)
{
    struct cluster_counts n = {.degraded = 1};

    if (operator_status(s->c, &n) < 0 || n.degraded > 0 || n.chunks_alive < HOSTS) {
        sim_disk_lie(victim(s), disk(s), false);
        return;
    }
    power_host(s->n);
    sim_disk_lie(victim(s), disk(s), false);
    (void)co_sleep(500 * NSEC_PER_MSEC);
    start_host(s->n);
}

/* Flips a bit of a page of clients' data; metadata has its own tests. */
static bool rot_begin(struct strike *s)
{
    struct sim *sim = s->c->sim;
    uint8_t page[4096];
    uint64_t no;

    if (!has_disk(s))
        return false;
    for (uint32_t i = 0; i < ROT_TRIES; i++) {
        if (!sim_disk_some_page(victim(s), disk(s), sim_random(sim), &no))
            return false;
        sim_disk_peek(victim(s), disk(s), page, sizeof(page), no * sizeof(page));
        if (!workload_is_data(page, sizeof(page)))
            continue;
        page[sim_random(sim) % sizeof(page)] ^= (uint8_t)(1u << sim_random(sim) % 8);
        sim_disk_poke(victim(s), disk(s), page, sizeof(page), no * sizeof(page));
        return true;
    }
    return false;
}

static bool fill_begin(struct strike *s)
{
    workload_fill(s->c, true);
    return true;
}

static void fill_end(struct strike *s)
{
    workload_fill(s->c, false);
}

/* ---- what an operator does ---- */

static bool drain_begin(struct strike *s)
{
    return s->c->disks > 1 && operator_drain(s->n, cluster_disk(1), true, false) == 0;
}

static void drain_end(struct strike *s)
{
    (void)operator_drain(s->n, cluster_disk(1), false, false);
}

static bool disk_add_begin(struct strike *s)
{
    if (s->n->added || operator_disk_add(s->n, cluster_disk(DISK_ADDED)) < 0)
        return false;
    s->n->added = true;
    return true;
}

/* Empties it and takes it out; it stays if that takes too long. */
static bool disk_remove_begin(struct strike *s)
{
    const char *path = cluster_disk(DISK_ADDED);
    nsec_t until = co_now() + OPERATOR_PATIENCE;
    int rc = s->n->added ? ERR_BUSY : ERR_NOTFOUND;

    while (rc < 0 && rc != ERR_NOTFOUND && co_now() < until) {
        (void)operator_drain(s->n, path, true, true);
        (void)co_sleep(500 * NSEC_PER_MSEC);
        rc = operator_disk_remove(s->n, path, false);
    }
    if (rc < 0)
        (void)operator_drain(s->n, path, false, false);
    s->n->added &= rc < 0 && rc != ERR_NOTFOUND;
    return rc == 0;
}

static bool resize_begin(struct strike *s)
{
    return operator_resize(s->c) == 0;
}

static bool extra_create_begin(struct strike *s)
{
    return operator_extra_create(s->c) == 0;
}

static bool grace_begin(struct strike *s)
{
    return operator_setting(s->c, "recovery.grace", s->e->arg) == 0;
}

static void grace_end(struct strike *s)
{
    (void)operator_setting(s->c, "recovery.grace", GRACE_SECONDS);
}

static bool policy_begin(struct strike *s)
{
    uint32_t other = s->c->replicas == HOSTS ? HOSTS - 1 : HOSTS;

    return (!s->c->fragile || other == HOSTS) && operator_policy(s->c, other, 2000) == 0;
}

static void policy_end(struct strike *s)
{
    (void)operator_policy(s->c, s->c->replicas, 0);
}

static bool snapshot_begin(struct strike *s)
{
    return operator_snapshot(s->c, s->e->arg == 1) == 0;
}

static bool clone_begin(struct strike *s)
{
    return operator_clone(s->c) == 0;
}

static bool rollback_begin(struct strike *s)
{
    return operator_rollback(s->c) == 0;
}

static bool flatten_begin(struct strike *s)
{
    return operator_flatten(s->c) == 0;
}

static bool extra_delete_begin(struct strike *s)
{
    return operator_extra_delete(s->c) == 0;
}

/* ---- carrying them out ---- */

static const struct {
    bool (*begin)(struct strike *s); /* false: makes no sense now */
    void (*end)(struct strike *s);   /* NULL: nothing to undo */
} kinds[FAULTS] = {
    [FAULT_CRASH] = {crash_begin, start_again},
    [FAULT_POWER] = {power_begin, power_end},
    [FAULT_POWER_ALL] = {power_all_begin, power_all_end},
    [FAULT_PAUSE] = {pause_begin, pause_end},
    [FAULT_SUSPEND] = {suspend_begin, suspend_end},
    [FAULT_PARTITION] = {partition_begin, partition_end},
    [FAULT_COORD_EXPIRE] = {expire_begin, NULL},
    [FAULT_COORD_CUT] = {coord_cut_begin, coord_cut_end},
    [FAULT_COORD_DOWN] = {coord_down_begin, coord_down_end},
    [FAULT_DISK_SLOW] = {slow_begin, slow_end},
    [FAULT_DISK_HANG] = {hang_begin, hang_end},
    [FAULT_DISK_FAIL] = {fail_begin, fail_end},
    [FAULT_DISK_LIE] = {lie_begin, lie_end},
    [FAULT_BIT_ROT] = {rot_begin, NULL},
    [FAULT_READDRESS] = {readdress_begin, start_again},
    [FAULT_DISK_DRAIN] = {drain_begin, drain_end},
    [FAULT_RESIZE] = {resize_begin, NULL},
    [FAULT_EXTRA_CREATE] = {extra_create_begin, NULL},
    [FAULT_EXTRA_DELETE] = {extra_delete_begin, NULL},
    [FAULT_SNAPSHOT] = {snapshot_begin, NULL},
    [FAULT_CLONE] = {clone_begin, NULL},
    [FAULT_ROLLBACK] = {rollback_begin, NULL},
    [FAULT_FLATTEN] = {flatten_begin, NULL},
    [FAULT_RELEASE] = {release_begin, start_again},
    [FAULT_POLICY] = {policy_begin, policy_end},
    [FAULT_DISK_ADD] = {disk_add_begin, NULL},
    [FAULT_DISK_REMOVE] = {disk_remove_begin, NULL},
    [FAULT_DISK_REPLACE] = {replace_begin, replace_end},
    [FAULT_FILL] = {fill_begin, fill_end},
    [FAULT_GRACE] = {grace_begin, grace_end},
    [FAULT_WALL_JUMP] = {wall_jump_begin, wall_jump_end},
};

const char *whom_name(enum whom w)
{
    static const char *const whoms[WHOMS] = {"owner", "member", "leader", "new-leader", "standby"};

    return whoms[w];
}

/* ---- which phases are hit ---- */

/* Some process that is in the phase; NULL if none is. */
static struct sim_proc *in_phase(struct cluster *c, enum phase p, uint32_t *ret_host,
                                 uint32_t *ret_role)
{
    for (uint32_t h = 0; h < HOSTS; h++)
        for (uint32_t r = 0; r < ROLES; r++)
            if (sim_proc_in(c->nodes[h].procs[r], p)) {
                *ret_host = h;
                *ret_role = r;
                return c->nodes[h].procs[r];
            }
    return NULL;
}

static enum whom whom(const struct sim_proc *p, uint32_t role)
{
    if (role == ROLE_ACCESS)
        return WHOM_OWNER;
    if (role == ROLE_CHUNK)
        return WHOM_MEMBER;
    if (sim_proc_in(p, PHASE_LEADING))
        return WHOM_LEADER;
    return sim_proc_in(p, PHASE_TAKING_OVER) ? WHOM_NEW_LEADER : WHOM_STANDBY;
}

static bool hits(const struct fault_event *e, uint32_t role)
{
    if (e->kind == FAULT_PAUSE)
        return e->arg >> role & 1;
    if (e->kind >= FAULT_POWER && e->kind <= FAULT_PARTITION)
        return true;
    return e->role == role;
}

static void cover(struct strike *s)
{
    for (uint32_t h = 0; h < HOSTS; h++)
        for (uint32_t r = 0; r < ROLES; r++) {
            struct sim_proc *p = s->c->nodes[h].procs[r];
            uint32_t host, role;

            if ((h != s->n->index && s->e->kind != FAULT_POWER_ALL) || !hits(s->e, r) ||
                !sim_proc_running(p))
                continue;
            for (int ph = 0; ph < PHASES; ph++)
                if (r == ROLE_ACCESS ? sim_proc_in(p, (enum phase)ph)
                                     : in_phase(s->c, (enum phase)ph, &host, &role) != NULL)
                    s->stats->cover[s->e->kind][whom(p, r)][ph]++;
        }
}

/* Waits for the event's phase; where it strikes then. */
static uint32_t await_phase(struct strike *s, uint32_t host)
{
    nsec_t until = co_now() + WHEN_LIMIT;
    uint32_t there, role;

    while (s->e->when < PHASES && co_now() < until && !s->c->failure[0]) {
        if (in_phase(s->c, s->e->when, &there, &role))
            return hits(s->e, role) && s->e->host != ON_LEADER ? there : host;
        (void)co_sleep(200 * NSEC_PER_USEC);
    }
    return host;
}

static int strike_main(void *arg)
{
    struct strike *s = arg;
    const struct fault_event *e = s->e;
    uint32_t host = e->host;
    char text[128];

    (void)co_sleep(e->at);
    if (host == ON_LEADER)
        host = cluster_leader(s->c);
    host = await_phase(s, host);
    if (host >= HOSTS || s->c->failure[0])
        return 0;
    s->n = &s->c->nodes[host];
    sim_note(s->c->sim, "event: %s, at host-%u", event_text(e, text, sizeof(text)), host + 1);
    cover(s);
    if (!kinds[e->kind].begin(s))
        return 0;
    s->stats->count[e->kind]++;
    if (!kinds[e->kind].end)
        return 0;
    (void)co_sleep(e->span);
    sim_note(s->c->sim, "undone: %s", text);
    kinds[e->kind].end(s);
    return 0;
}

void faults_run(struct cluster *c, const struct scenario *s, struct fault_stats *stats)
{
    struct strike strikes[EVENTS_MAX];
    struct co_group group;

    co_group_init(&group);
    for (uint32_t i = 0; i < s->count; i++) {
        strikes[i] = (struct strike){.c = c, .e = &s->events[i], .stats = stats};
        co_spawn(&group, fault_name(s->events[i].kind), strike_main, &strikes[i]);
    }
    (void)co_sleep(s->span);
    (void)co_group_join(&group);
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
