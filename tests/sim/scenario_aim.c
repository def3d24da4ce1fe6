/* SPDX-License-Identifier: Apache-2.0
 *
 * Faults in the company of others: what brings a phase of the protocols about, and a fault in the
 * middle of it; a host that lags, then dies; a page that rots, then is read from the device. In
 * half of the seeds, so that the others keep to what chance brings together. */
#include "common/base/units.h"
#include "tests/sim/scenario_draw.h"

/* ---- faults in a phase ---- */

/* late: the phase comes when this is undone. */
static const struct cause {
    enum fault kind;
    enum role role;
    uint32_t span_ms;
    bool late;
} causes[PHASES] = {
    [PHASE_OPENING] = {FAULT_CRASH, ROLE_ACCESS, 300, false},
    [PHASE_EQUALISING] = {FAULT_PARTITION, ROLE_ACCESS, 500, true},
    [PHASE_GROWING] = {FAULT_SNAPSHOT, ROLE_META, 0, false},
    [PHASE_REMOVING] = {FAULT_CRASH, ROLE_CHUNK, 3000, false},
    [PHASE_JOINING] = {FAULT_CRASH, ROLE_CHUNK, 2500, true},
    [PHASE_REPAIRING] = {FAULT_BIT_ROT, ROLE_CHUNK, 0, false},
    [PHASE_DRAINING] = {FAULT_CRASH, ROLE_CHUNK, 2500, true},
    [PHASE_FORWARDING] = {FAULT_PARTITION, ROLE_ACCESS, 300, true},
    [PHASE_HOLDING] = {FAULT_SNAPSHOT, ROLE_META, 0, false},
    [PHASE_TAKING_OVER] = {FAULT_CRASH, ROLE_META, 2000, false},
    [PHASE_LEADING] = {FAULT_COORD_EXPIRE, ROLE_META, 0, false},
    [PHASE_RESOLVING] = {FAULT_COORD_CUT, ROLE_META, 300, true},
    [PHASE_LOADING] = {FAULT_CRASH, ROLE_META, 6000, true},
    [PHASE_REPLAYING] = {FAULT_CRASH, ROLE_CHUNK, 300, true},
    [PHASE_DISK_DRAINING] = {FAULT_DISK_DRAIN, ROLE_CHUNK, 1000, false},
};

/* Those whose moment matters most. */
static const enum fault strikes[] = {
    FAULT_CRASH,        FAULT_CRASH,     FAULT_POWER,     FAULT_POWER,     FAULT_POWER_ALL,
    FAULT_PAUSE,        FAULT_SUSPEND,   FAULT_PARTITION, FAULT_PARTITION, FAULT_RELEASE,
    FAULT_COORD_EXPIRE, FAULT_COORD_CUT, FAULT_DISK_SLOW, FAULT_DISK_HANG, FAULT_READDRESS,
};

/* Those that only one host of a seed may suffer. */
static const enum fault weak_strikes[] = {FAULT_DISK_FAIL, FAULT_DISK_LIE, FAULT_BIT_ROT};

static void insert(struct scenario *s, struct fault_event *e, uint32_t weak)
{
    if (draw_needs_others(e->kind)) {
        e->host = weak;
        s->replicas = HOSTS;
    }
    draw_insert(s, e);
}

/* A short one that is given whole. */
static void follow(struct scenario *s, enum fault kind, nsec_t at, uint32_t span_ms, uint32_t host,
                   enum role role)
{
    struct fault_event e = {.kind = kind,
                            .at = at,
                            .span = span_ms * NSEC_PER_MSEC,
                            .host = host,
                            .role = role,
                            .when = PHASES};

    draw_insert(s, &e);
}

static void cause_draw(struct scenario *s, enum phase phase, struct fault_event *ret, uint64_t *x,
                       uint32_t weak)
{
    const struct cause *why = &causes[phase];

    draw_event(ret, why->kind, x);
    ret->at = draw_moment(s, x);
    ret->span = why->span_ms * NSEC_PER_MSEC;
    ret->role = why->role;
    ret->when = PHASES;
    if (phase == PHASE_EQUALISING)
        ret->arg = 1 + 4 * (1 + (ret->host + 1) % HOSTS); /* to one of the others */
    if (why->kind == FAULT_CRASH && why->role == ROLE_META && !why->late)
        ret->host = ON_LEADER;
    if (phase == PHASE_DISK_DRAINING)
        s->disks = 2;
    if (phase == PHASE_RESOLVING)
        s->noise |= 1u << NOISE_UNCERTAIN;
    insert(s, ret, weak);
}

static void phase_draw(struct scenario *s, uint64_t *x, uint32_t weak)
{
    enum phase phase = (enum phase)draw_below(x, PHASES);
    struct fault_event cause, e;

    cause_draw(s, phase, &cause, x, weak);
    if (phase == PHASE_EQUALISING) /* its writes are at some members */
        follow(s, FAULT_CRASH, cause.at + 400 * NSEC_PER_MSEC, 300, cause.host, ROLE_ACCESS);
    if (phase == PHASE_REPAIRING) /* what is in memory is not read from the device */
        follow(s, FAULT_CRASH, cause.at + NSEC_PER_MSEC, 100, weak, ROLE_CHUNK);
    if (draw_below(x, 4))
        draw_event(&e, strikes[draw_below(x, ARRAY_SIZE(strikes))], x);
    else
        draw_event(&e, weak_strikes[draw_below(x, ARRAY_SIZE(weak_strikes))], x);
    e.at = cause.at + (causes[phase].late ? cause.span : 0);
    e.when = phase;
    insert(s, &e, weak);
}

/* ---- one after the other ---- */

/* Writes are under way to its disk that others have already, when its power fails. */
static void lag_draw(struct scenario *s, uint64_t *x)
{
    nsec_t at = draw_moment(s, x);
    uint32_t host = draw_below(x, HOSTS), wait_ms = 100 + draw_below(x, 700);
    bool hangs = draw_below(x, 2);
    struct fault_event lag;

    draw_event(&lag, hangs ? FAULT_DISK_HANG : FAULT_DISK_SLOW, x);
    lag.at = at;
    lag.host = host;
    lag.span = 900 * NSEC_PER_MSEC;
    lag.arg = hangs ? 0 : 100 + draw_below(x, 400);
    draw_insert(s, &lag);
    follow(s, FAULT_POWER, at + wait_ms * NSEC_PER_MSEC, 200 + draw_below(x, 3000), host,
           ROLE_META);
}

/* One of the others takes its chunk server for dead while its lease is good, then it is alone. */
static void alone_draw(struct scenario *s, uint64_t *x)
{
    nsec_t at = draw_moment(s, x);
    uint32_t host = draw_below(x, HOSTS), peer = (host + 1 + draw_below(x, HOSTS - 1)) % HOSTS;
    struct fault_event cut;

    draw_event(&cut, FAULT_PARTITION, x);
    cut.at = at;
    cut.when = PHASES;
    cut.host = host;
    cut.span = 4 * NSEC_PER_SEC;
    cut.arg = 2 + 4 * (1 + peer);
    draw_insert(s, &cut);
    cut.at = at + (1000 + draw_below(x, 1000)) * NSEC_PER_MSEC;
    cut.span = (500 + draw_below(x, 2000)) * NSEC_PER_MSEC;
    cut.arg = 2;
    draw_insert(s, &cut);
}

/* Pages that are bad on the device, and have to be read from there. */
static void rot_draw(struct scenario *s, uint64_t *x, uint32_t weak)
{
    nsec_t at = draw_moment(s, x);

    s->replicas = HOSTS;
    for (uint32_t n = 4 + draw_below(x, 8); n > 0; n--)
        follow(s, FAULT_BIT_ROT, at, 0, weak, ROLE_CHUNK);
    follow(s, FAULT_CRASH, at + NSEC_PER_MSEC, 100, weak, ROLE_CHUNK);
}

void aims_draw(struct scenario *s, uint64_t x)
{
    uint32_t weak = draw_weak_host(s, &x);

    if (draw_below(&x, 2))
        return;
    for (uint32_t n = 2 + draw_below(&x, 4); n > 0; n--) {
        uint32_t what = draw_below(&x, 12);

        if (what < 7)
            phase_draw(s, &x, weak);
        else if (what < 9)
            lag_draw(s, &x);
        else if (what < 11)
            alone_draw(s, &x);
        else
            rot_draw(s, &x, weak);
    }
}
