/* SPDX-License-Identifier: Apache-2.0
 *
 * Scenarios drawn from a seed, by generators of their own, so that a scenario is known before its
 * world is. See scenario.h. */
#include <string.h>

#include "common/base/units.h"
#include "tests/sim/scenario_draw.h"

static uint64_t next(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint32_t draw_below(uint64_t *state, uint32_t n)
{
    return (uint32_t)(((unsigned __int128)next(state) * n) >> 64);
}

nsec_t draw_span(uint64_t *x)
{
    uint32_t most = draw_below(x, 4) ? 1500 : 8000;

    return (nsec_t)(100 + draw_below(x, most)) * NSEC_PER_MSEC;
}

void draw_event(struct fault_event *e, enum fault kind, uint64_t *x)
{
    *e = (struct fault_event){
        .kind = kind, .host = draw_below(x, HOSTS), .span = draw_span(x), .when = PHASES};
    if ((kind == FAULT_EXTRA_DELETE || kind == FAULT_ROLLBACK) && e->host == 0)
        e->kind = FAULT_SNAPSHOT; /* more often made than deleted */
    if (kind <= FAULT_PARTITION && draw_below(x, 2))
        e->when = (enum phase)draw_below(x, PHASES);
    switch (kind) {
    case FAULT_CRASH:
        e->role = draw_below(x, ROLES);
        if (e->role == ROLE_META && draw_below(x, 2))
            e->host = ON_LEADER;
        break;
    case FAULT_PAUSE:
        e->role = ROLE_META;
        e->arg = 1 + draw_below(x, (1u << ROLES) - 1);
        if (draw_below(x, 3) == 0) { /* the leader, for about as long as a take-over lasts */
            e->host = ON_LEADER;
            e->arg = 1u << ROLE_META;
            e->span = (nsec_t)(800 + draw_below(x, 1200)) * NSEC_PER_MSEC;
        }
        break;
    case FAULT_PARTITION:
        e->arg = draw_below(x, 3);
        if (draw_below(x, 2))
            e->arg += 4 * (1 + (e->host + 1 + draw_below(x, HOSTS - 1)) % HOSTS);
        break;
    case FAULT_COORD_EXPIRE:
    case FAULT_COORD_CUT:
    case FAULT_COORD_DOWN:
        e->role = ROLE_META;
        if (draw_below(x, 3) == 0)
            e->host = ON_LEADER;
        break;
    case FAULT_DISK_SLOW:
        e->arg = 1 + draw_below(x, draw_below(x, 2) ? 20 : 400);
        break;
    default:
        break;
    }
    if (kind >= FAULT_DISK_SLOW && kind <= FAULT_DISK_DRAIN)
        e->role = ROLE_CHUNK;
    if (e->kind == FAULT_SNAPSHOT)
        e->arg = draw_below(x, 4) != 0;
    if (kind == FAULT_RELEASE)
        e->role = ROLE_ACCESS;
}

bool draw_needs_others(enum fault f)
{
    return f == FAULT_DISK_LIE || f == FAULT_BIT_ROT || f == FAULT_DISK_FAIL ||
           f == FAULT_DISK_REPLACE;
}

bool scenario_fragile(const struct scenario *s)
{
    for (uint32_t i = 0; i < s->count; i++)
        if (draw_needs_others(s->events[i].kind))
            return true;
    return false;
}

/* Half of the seeds have a certain kind of fault at all, so that some concentrate on few. */
static uint32_t kinds_draw(uint64_t *x)
{
    uint32_t kinds = (uint32_t)next(x) & ((1u << FAULTS_FIRST) - 1);

    if (draw_below(x, 4)) /* what changes a replica behind the cluster's back: not everywhere */
        kinds &= ~(1u << FAULT_DISK_LIE | 1u << FAULT_BIT_ROT | 1u << FAULT_DISK_FAIL |
                   1u << FAULT_DISK_HANG);
    if (kinds & (1u << FAULT_SNAPSHOT | 1u << FAULT_CLONE | 1u << FAULT_ROLLBACK))
        kinds |= 1u << FAULT_SNAPSHOT | 1u << FAULT_EXTRA_CREATE;
    return kinds ? kinds : 1u << FAULT_CRASH;
}

static void events_draw(struct scenario *s, uint64_t x)
{
    uint32_t kinds = kinds_draw(&x), weak = draw_below(&x, HOSTS);
    nsec_t at = 0;

    s->replicas = draw_below(&x, 5) ? 3 : 2;
    s->disks = draw_below(&x, 3) ? 1 : 2;
    s->noise = (uint32_t)next(&x) & ((1u << NOISES) - 1);
    while (s->count < EVENTS_MAX) {
        enum fault kind = (enum fault)draw_below(&x, FAULTS_FIRST);
        struct fault_event *e = &s->events[s->count];

        at += (nsec_t)draw_below(&x, 300) * NSEC_PER_MSEC;
        if (at >= s->span)
            break;
        if (!(kinds >> kind & 1))
            continue;
        if (kind == FAULT_POWER_ALL && draw_below(&x, 3))
            continue; /* everything at once is rare */
        draw_event(e, kind, &x);
        if (draw_needs_others(kind)) {
            e->host = weak;
            s->replicas = HOSTS; /* so that two at least always have it */
        }
        e->at = at;
        s->count++;
        if (draw_below(&x, 4)) /* most of them one after the other, some in the middle of another */
            at += e->span;
        if (kind == FAULT_PARTITION && draw_below(&x, 3) == 0 && s->count < EVENTS_MAX) {
            s->events[s->count++] = (struct fault_event){/* isolated, then dead */
                                                         .kind = FAULT_POWER,
                                                         .at = e->at + e->span,
                                                         .host = e->host,
                                                         .when = PHASES,
                                                         .span = draw_span(&x)};
        }
        if (draw_below(&x, 2))
            at += (nsec_t)draw_below(&x, 3000) * NSEC_PER_MSEC;
    }
}

/* ---- what came later: drawn apart, so that the events of a seed stay what they were ---- */

void draw_insert(struct scenario *s, const struct fault_event *e)
{
    uint32_t i = s->count;

    if (s->count == EVENTS_MAX)
        return;
    for (s->count++; i > 0 && s->events[i - 1].at > e->at; i--)
        s->events[i] = s->events[i - 1];
    s->events[i] = *e;
}

nsec_t draw_moment(const struct scenario *s, uint64_t *x)
{
    return (nsec_t)draw_below(x, 1000) * s->span / 1000;
}

uint32_t draw_weak_host(const struct scenario *s, uint64_t *x)
{
    uint32_t weak = draw_below(x, HOSTS);

    for (uint32_t i = 0; i < s->count; i++)
        if (draw_needs_others(s->events[i].kind))
            weak = s->events[i].host;
    return weak;
}

/* In a quarter of the seeds servers have several disks, which come and go, and fail while the
 * others serve. */
static void disks_draw(struct scenario *s, uint64_t x)
{
    static const enum fault kinds[] = {
        FAULT_DISK_ADD,  FAULT_DISK_ADD,  FAULT_DISK_REMOVE,  FAULT_DISK_REMOVE, FAULT_DISK_SLOW,
        FAULT_DISK_HANG, FAULT_DISK_FAIL, FAULT_DISK_REPLACE, FAULT_DISK_DRAIN,  FAULT_BIT_ROT,
    };
    uint32_t weak = draw_weak_host(s, &x), mask = (uint32_t)next(&x) | 3;

    if (draw_below(&x, 4))
        return;
    s->disks = 2;
    for (uint32_t n = 3 + draw_below(&x, 6); n > 0; n--) {
        uint32_t i = draw_below(&x, ARRAY_SIZE(kinds)),
                 number = draw_below(&x, 4) ? 1 : draw_below(&x, 2) * 2;
        struct fault_event e;

        draw_event(&e, kinds[mask >> i & 1 ? i : i % 4], &x);
        e.at = draw_moment(s, &x);
        e.role = ROLE_CHUNK;
        e.arg += e.kind == FAULT_DISK_SLOW ? SLOW_DISK_STEP * number : number;
        if (e.kind == FAULT_DISK_HANG && draw_below(&x, 2))
            e.span += 10 * NSEC_PER_SEC; /* until it is given up */
        if (draw_needs_others(e.kind)) {
            e.host = weak;
            s->replicas = HOSTS;
        }
        draw_insert(s, &e);
    }
}

/* In half of the seeds clocks run apart, in some as far as leases allow. */
static void clocks_draw(struct scenario *s, uint64_t x)
{
    bool drifts = draw_below(&x, 2), most = draw_below(&x, 3) == 0;

    for (uint32_t h = 0; h < HOSTS; h++) {
        int32_t ppm = (int32_t)draw_below(&x, 2 * DRIFT_MAX_PPM + 1) - DRIFT_MAX_PPM;

        if (most)
            ppm = ppm < 0 ? -DRIFT_MAX_PPM : DRIFT_MAX_PPM;
        s->drift_ppm[h] = drifts ? ppm : 0;
    }
    for (uint32_t n = drifts ? draw_below(&x, 4) : 0; n > 0; n--) {
        struct fault_event e = {.kind = FAULT_WALL_JUMP,
                                .at = draw_moment(s, &x),
                                .host = draw_below(&x, HOSTS),
                                .span = draw_span(&x),
                                .arg = 1 + draw_below(&x, draw_below(&x, 2) ? 60 : 1000000),
                                .when = PHASES};

        draw_insert(s, &e);
    }
}

static bool shares(enum fault f)
{
    return f == FAULT_SNAPSHOT || f == FAULT_CLONE || f == FAULT_ROLLBACK;
}

/* In a quarter of the seeds disks are so small that they become full. Not with snapshots: then
 * nothing can be discarded before the volume is deleted, since a shared extent is changed through a
 * child, which needs space. */
static void space_draw(struct scenario *s, uint64_t x)
{
    uint32_t kept = 0;

    if (draw_below(&x, 4))
        return;
    for (uint32_t i = 0; i < s->count; i++)
        if (!shares(s->events[i].kind))
            s->events[kept++] = s->events[i];
    s->count = kept;
    s->disk_mib = 96 + draw_below(&x, 96);
    for (uint32_t n = 1 + draw_below(&x, 3); n > 0; n--) {
        struct fault_event e;

        draw_event(&e, FAULT_FILL, &x);
        e.at = draw_moment(s, &x);
        e.span += 3 * NSEC_PER_SEC;
        draw_insert(s, &e);
    }
}

/* In half of the seeds in which volumes share anything some cease to. */
static void flatten_draw(struct scenario *s, uint64_t x)
{
    uint32_t n = draw_below(&x, 2) ? 1 + draw_below(&x, 4) : 0;
    bool any = false;

    for (uint32_t i = 0; i < s->count; i++)
        any = any || shares(s->events[i].kind);
    for (; any && n > 0; n--) {
        struct fault_event e;

        draw_event(&e, FAULT_FLATTEN, &x);
        e.at = draw_moment(s, &x);
        draw_insert(s, &e);
    }
}

/* In some seeds extents have two replicas, and one that is away for a little while is made anew on
 * the third host; that works it off while the former one comes back. */
static void recovery_draw(struct scenario *s, uint64_t x)
{
    struct fault_event grace;

    if (draw_below(&x, 5) || scenario_fragile(s))
        return;
    s->replicas = HOSTS - 1;
    draw_event(&grace, FAULT_GRACE, &x);
    grace.span = s->span;
    grace.arg = 1 + draw_below(&x, 3);
    draw_insert(s, &grace);
    for (uint32_t n = 1 + draw_below(&x, 3); n > 0; n--) {
        struct fault_event e;

        draw_event(&e, draw_below(&x, 2) ? FAULT_CRASH : FAULT_POWER, &x);
        e.role = ROLE_CHUNK;
        e.host = draw_below(&x, HOSTS);
        e.at = draw_moment(s, &x);
        e.span += 4 * NSEC_PER_SEC;
        draw_insert(s, &e);
    }
}

/* In a sixth of the seeds whose disks are never full: a client of files waits for space. */
static void share_draw(struct scenario *s, uint64_t x)
{
    s->files = s->disk_mib == LARGE_DISK_MIB && draw_below(&x, 6) == 0;
}

void scenario_draw(struct scenario *s, uint64_t seed, nsec_t span)
{
    uint64_t x = seed * 0xd1342543de82ef95u + 1;

    memset(s, 0, sizeof(*s));
    s->seed = seed;
    s->span = span;
    s->clients = 2;
    s->disk_mib = LARGE_DISK_MIB;
    events_draw(s, x);
    clocks_draw(s, ~x);
    disks_draw(s, x ^ 0x5bd1e9955bd1e995u);
    aims_draw(s, x ^ 0x880355f21e6d1965u);
    recovery_draw(s, x ^ 0x3c79ac492ba7b653u);
    space_draw(s, x ^ 0x2127599bf4325c37u);
    flatten_draw(s, x ^ 0x9e6c63d0676a9a99u);
    share_draw(s, x ^ 0x7d4ab5a1f3e86c21u);
}
