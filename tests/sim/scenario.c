/* SPDX-License-Identifier: Apache-2.0
 *
 * Scenarios: drawn from a seed, written and read as text. See scenario.h. */
#include "tests/sim/scenario.h"

#include <inttypes.h>
#include <string.h>

#include "common/base/units.h"

static const char *const names[FAULTS] = {
#define X(name, text) [FAULT_##name] = text,
    FAULT_LIST(X)
#undef X
};
static const char *const roles[ROLES] = {"meta", "chunk", "access"};
static const char *const noises[NOISES] = {"net-spike", "net-reset", "uncertain", "disk-spike"};

const char *fault_name(enum fault f)
{
    return names[f];
}

const char *role_name(enum role r)
{
    return roles[r];
}

/* ---- drawing: a generator of its own, so that the scenario is known before the world is ---- */

static uint64_t next(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static uint32_t below(uint64_t *state, uint32_t n)
{
    return (uint32_t)(((unsigned __int128)next(state) * n) >> 64);
}

/* Mostly short, sometimes long enough for every timeout. */
static nsec_t some_time(uint64_t *x)
{
    uint32_t most = below(x, 4) ? 1500 : 8000;

    return (nsec_t)(100 + below(x, most)) * NSEC_PER_MSEC;
}

static void event_draw(struct fault_event *e, enum fault kind, uint64_t *x)
{
    *e = (struct fault_event){
        .kind = kind, .host = below(x, HOSTS), .span = some_time(x), .when = PHASES};
    if ((kind == FAULT_EXTRA_DELETE || kind == FAULT_ROLLBACK) && e->host == 0)
        e->kind = FAULT_SNAPSHOT; /* more often made than deleted */
    if (kind <= FAULT_PARTITION && below(x, 2))
        e->when = (enum phase)below(x, PHASES);
    switch (kind) {
    case FAULT_CRASH:
        e->role = below(x, ROLES);
        if (e->role == ROLE_META && below(x, 2))
            e->host = ON_LEADER;
        break;
    case FAULT_PAUSE:
        e->role = ROLE_META;
        e->arg = 1 + below(x, (1u << ROLES) - 1);
        if (below(x, 3) == 0) { /* the leader, for about as long as a take-over lasts */
            e->host = ON_LEADER;
            e->arg = 1u << ROLE_META;
            e->span = (nsec_t)(800 + below(x, 1200)) * NSEC_PER_MSEC;
        }
        break;
    case FAULT_PARTITION:
        e->arg = below(x, 3);
        if (below(x, 2))
            e->arg += 4 * (1 + (e->host + 1 + below(x, HOSTS - 1)) % HOSTS);
        break;
    case FAULT_COORD_EXPIRE:
    case FAULT_COORD_CUT:
    case FAULT_COORD_DOWN:
        e->role = ROLE_META;
        if (below(x, 3) == 0)
            e->host = ON_LEADER;
        break;
    case FAULT_DISK_SLOW:
        e->arg = 1 + below(x, below(x, 2) ? 20 : 400);
        break;
    default:
        break;
    }
    if (kind >= FAULT_DISK_SLOW && kind <= FAULT_DISK_DRAIN)
        e->role = ROLE_CHUNK;
    if (e->kind == FAULT_SNAPSHOT)
        e->arg = below(x, 4) != 0;
    if (kind == FAULT_RELEASE)
        e->role = ROLE_ACCESS;
}

/* Data that only one host has wrong, or does not have, is what replication promises to survive:
 * so it is always the same host of a seed. */
static bool needs_the_others(enum fault f)
{
    return f == FAULT_DISK_LIE || f == FAULT_BIT_ROT || f == FAULT_DISK_FAIL;
}

bool scenario_fragile(const struct scenario *s)
{
    for (uint32_t i = 0; i < s->count; i++)
        if (needs_the_others(s->events[i].kind))
            return true;
    return false;
}

/* Half of the seeds have a certain kind of fault at all, so that some concentrate on few. */
static uint32_t kinds_draw(uint64_t *x)
{
    uint32_t kinds = (uint32_t)next(x) & ((1u << FAULTS) - 1);

    if (below(x, 4)) /* what changes a replica behind the cluster's back: not everywhere */
        kinds &= ~(1u << FAULT_DISK_LIE | 1u << FAULT_BIT_ROT | 1u << FAULT_DISK_FAIL |
                   1u << FAULT_DISK_HANG);
    if (kinds & (1u << FAULT_SNAPSHOT | 1u << FAULT_CLONE | 1u << FAULT_ROLLBACK))
        kinds |= 1u << FAULT_SNAPSHOT | 1u << FAULT_EXTRA_CREATE;
    return kinds ? kinds : 1u << FAULT_CRASH;
}

void scenario_draw(struct scenario *s, uint64_t seed, nsec_t span)
{
    uint64_t x = seed * 0xd1342543de82ef95u + 1;
    uint32_t kinds = kinds_draw(&x), weak = below(&x, HOSTS);
    nsec_t at = 0;

    memset(s, 0, sizeof(*s));
    s->seed = seed;
    s->span = span;
    s->clients = 2;
    s->replicas = below(&x, 5) ? 3 : 2;
    s->disks = below(&x, 3) ? 1 : 2;
    s->noise = (uint32_t)next(&x) & ((1u << NOISES) - 1);
    while (s->count < EVENTS_MAX) {
        enum fault kind = (enum fault)below(&x, FAULTS);
        struct fault_event *e = &s->events[s->count];

        at += (nsec_t)below(&x, 300) * NSEC_PER_MSEC;
        if (at >= span)
            break;
        if (!(kinds >> kind & 1))
            continue;
        if (kind == FAULT_POWER_ALL && below(&x, 3))
            continue; /* everything at once is rare */
        event_draw(e, kind, &x);
        if (needs_the_others(kind)) {
            e->host = weak;
            s->replicas = HOSTS; /* so that two at least always have it */
        }
        e->at = at;
        s->count++;
        if (below(&x, 4)) /* most of them one after the other, some in the middle of another */
            at += e->span;
        if (kind == FAULT_PARTITION && below(&x, 3) == 0 && s->count < EVENTS_MAX) {
            s->events[s->count++] = (struct fault_event){/* isolated, then dead */
                                                         .kind = FAULT_POWER,
                                                         .at = e->at + e->span,
                                                         .host = e->host,
                                                         .when = PHASES,
                                                         .span = some_time(&x)};
        }
        if (below(&x, 2))
            at += (nsec_t)below(&x, 3000) * NSEC_PER_MSEC;
    }
}

void scenario_conf(const struct scenario *s, struct sim_conf *conf)
{
    conf->seed = s->seed;
    conf->net_spike_ppm = s->noise >> NOISE_NET_SPIKE & 1 ? 2000 : 0;
    conf->net_reset_ppm = s->noise >> NOISE_NET_RESET & 1 ? 200 : 0;
    conf->coord_uncertain_ppm = s->noise >> NOISE_UNCERTAIN & 1 ? 20000 : 0;
    conf->disk_spike_ppm = s->noise >> NOISE_DISK_SPIKE & 1 ? 2000 : 0;
}

/* ---- text ---- */

const char *event_text(const struct fault_event *e, char *dst, size_t room)
{
    char where[16] = "leader";

    if (e->host != ON_LEADER)
        snprintf(where, sizeof(where), "host-%u", e->host + 1);
    snprintf(dst, room, "%s %s %s %u %" PRId64 " %s", names[e->kind], where, roles[e->role], e->arg,
             e->span / NSEC_PER_MSEC, e->when < PHASES ? phase_name(e->when) : "-");
    return dst;
}

void scenario_print(const struct scenario *s, FILE *to)
{
    char text[128];

    fprintf(to, "seed %" PRIu64 "\nspan %" PRId64 "\nclients %u\nreplicas %u\ndisks %u\nnoise",
            s->seed, s->span / NSEC_PER_MSEC, s->clients, s->replicas, s->disks);
    for (uint32_t i = 0; i < NOISES; i++)
        if (s->noise >> i & 1)
            fprintf(to, " %s", noises[i]);
    fputc('\n', to);
    for (uint32_t i = 0; i < s->count; i++)
        fprintf(to, "event %" PRId64 " %s\n", s->events[i].at / NSEC_PER_MSEC,
                event_text(&s->events[i], text, sizeof(text)));
}

/* The index of a name, or n. */
static uint32_t find(const char *const *list, uint32_t n, const char *name)
{
    uint32_t i = 0;

    while (i < n && strcmp(list[i], name) != 0)
        i++;
    return i;
}

/* PHASES if there is none of that name. */
static enum phase phase_find(const char *name)
{
    int p = 0;

    while (p < PHASES && strcmp(phase_name((enum phase)p), name) != 0)
        p++;
    return (enum phase)p;
}

static bool event_read(struct scenario *s, const char *words)
{
    struct fault_event *e = &s->events[s->count];
    char kind[32], where[32], role[32], when[32];
    uint64_t at, span;

    if (s->count == EVENTS_MAX || sscanf(words, "%" SCNu64 " %31s %31s %31s %u %" SCNu64 " %31s",
                                         &at, kind, where, role, &e->arg, &span, when) != 7)
        return false;
    *e = (struct fault_event){.at = (nsec_t)at * NSEC_PER_MSEC,
                              .span = (nsec_t)span * NSEC_PER_MSEC,
                              .kind = (enum fault)find(names, FAULTS, kind),
                              .role = find(roles, ROLES, role),
                              .arg = e->arg,
                              .when = phase_find(when)};
    if (strcmp(where, "leader") == 0)
        e->host = ON_LEADER;
    else if (sscanf(where, "host-%u", &e->host) != 1 || e->host < 1 || e->host-- > HOSTS)
        return false;
    s->count++;
    return e->kind < FAULTS && e->role < ROLES && (e->when < PHASES || strcmp(when, "-") == 0);
}

static bool noise_read(struct scenario *s, char *words)
{
    char *save = NULL;

    for (char *w = strtok_r(words, " \n", &save); w; w = strtok_r(NULL, " \n", &save)) {
        uint32_t i = find(noises, NOISES, w);

        if (i == NOISES)
            return false;
        s->noise |= 1u << i;
    }
    return true;
}

bool scenario_read(struct scenario *s, FILE *from)
{
    char line[256], word[32];

    memset(s, 0, sizeof(*s));
    while (fgets(line, sizeof(line), from)) {
        uint64_t number = 0;
        int used = 0;
        bool ok = true;

        if (sscanf(line, "%31s %n", word, &used) != 1 || word[0] == '#')
            continue;
        (void)sscanf(line + used, "%" SCNu64, &number);
        if (strcmp(word, "seed") == 0)
            s->seed = number;
        else if (strcmp(word, "span") == 0)
            s->span = (nsec_t)number * NSEC_PER_MSEC;
        else if (strcmp(word, "clients") == 0)
            s->clients = (uint32_t)number;
        else if (strcmp(word, "replicas") == 0)
            s->replicas = (uint32_t)number;
        else if (strcmp(word, "disks") == 0)
            s->disks = (uint32_t)number;
        else if (strcmp(word, "noise") == 0)
            ok = noise_read(s, line + used);
        else
            ok = strcmp(word, "event") == 0 && event_read(s, line + used);
        if (!ok) {
            fprintf(stderr, "zbs-sim: not understood: %s", line);
            return false;
        }
    }
    return s->span > 0 && s->replicas > 0 && s->disks > 0;
}
