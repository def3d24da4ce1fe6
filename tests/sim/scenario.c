/* SPDX-License-Identifier: Apache-2.0
 *
 * Scenarios as text: written and read. See scenario.h. */
#include "tests/sim/scenario.h"

#include <inttypes.h>
#include <stdlib.h>
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

    fprintf(to,
            "seed %" PRIu64 "\nspan %" PRId64
            "\nclients %u\nfiles %u\nreplicas %u\ndisks %u\ndisk_mib %u\nnoise",
            s->seed, s->span / NSEC_PER_MSEC, s->clients, s->files, s->replicas, s->disks,
            s->disk_mib);
    for (uint32_t i = 0; i < NOISES; i++)
        if (s->noise >> i & 1)
            fprintf(to, " %s", noises[i]);
    fputs("\ndrift", to);
    for (uint32_t h = 0; h < HOSTS; h++)
        fprintf(to, " %d", s->drift_ppm[h]);
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

static bool drift_read(struct scenario *s, const char *words)
{
    int used = 0;

    for (uint32_t h = 0; h < HOSTS; h++, words += used)
        if (sscanf(words, "%d%n", &s->drift_ppm[h], &used) != 1 ||
            abs(s->drift_ppm[h]) > DRIFT_MAX_PPM)
            return false;
    return true;
}

bool scenario_read(struct scenario *s, FILE *from)
{
    char line[256], word[32];

    memset(s, 0, sizeof(*s));
    s->disk_mib = LARGE_DISK_MIB;
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
        else if (strcmp(word, "files") == 0)
            s->files = (uint32_t)number;
        else if (strcmp(word, "replicas") == 0)
            s->replicas = (uint32_t)number;
        else if (strcmp(word, "disks") == 0)
            s->disks = (uint32_t)number;
        else if (strcmp(word, "disk_mib") == 0)
            s->disk_mib = (uint32_t)number;
        else if (strcmp(word, "noise") == 0)
            ok = noise_read(s, line + used);
        else if (strcmp(word, "drift") == 0)
            ok = drift_read(s, line + used);
        else
            ok = strcmp(word, "event") == 0 && event_read(s, line + used);
        if (!ok) {
            fprintf(stderr, "zbs-sim: not understood: %s", line);
            return false;
        }
    }
    return s->span > 0 && s->replicas > 0 && s->disks > 0;
}
