/* SPDX-License-Identifier: Apache-2.0
 *
 * The world itself: its generator, its events in order of time, its trace. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/log.h"
#include "common/env/sim/sim_internal.h"

#define TIE_BITS  10                             /* seeded order of events of one nanosecond */
#define TIME_MAX  ((nsec_t)1 << (62 - TIE_BITS)) /* 52 days: never */
#define FNV_START 0xcbf29ce484222325u
#define FNV_PRIME 0x100000001b3u

static const char *const kind_names[] = {
#define X(name, text) [SIM_##name] = text,
    SIM_KIND_LIST(X)
#undef X
};

/* ---- helpers ---- */

void *sim_alloc(size_t bytes)
{
    return mem_raw_alloc(bytes);
}

void sim_mem_free(void *ptr)
{
    mem_raw_free(ptr);
}

void *sim_memdup(const void *src, size_t len)
{
    char *copy = sim_alloc(len + 1);

    if (len > 0)
        memcpy(copy, src, len);
    return copy;
}

char *sim_strdup(const char *s)
{
    return sim_memdup(s, strlen(s));
}

char *sim_printf(const char *fmt, ...)
{
    char text[2048];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    return sim_strdup(text);
}

void sim_wake_all(struct list *waiters, int rc)
{
    struct list *elem;

    while ((elem = list_pop_front(waiters)))
        co_resume(LIST_ENTRY(elem, struct co_wait, link), rc);
}

/* ---- the generator: xoshiro256**, seeded by splitmix64 ---- */

static uint64_t rotl(uint64_t x, int k)
{
    return (x << k) | (x >> (64 - k));
}

static void rand_seed(struct sim *s, uint64_t seed)
{
    for (int i = 0; i < 4; i++) {
        uint64_t z = (seed += 0x9e3779b97f4a7c15u);

        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        s->rng[i] = z ^ (z >> 31);
    }
}

uint64_t sim_rand(struct sim *s)
{
    uint64_t *r = s->rng;
    uint64_t result = rotl(r[1] * 5, 7) * 9;
    uint64_t t = r[1] << 17;

    r[2] ^= r[0];
    r[3] ^= r[1];
    r[1] ^= r[2];
    r[0] ^= r[3];
    r[2] ^= t;
    r[3] = rotl(r[3], 45);
    return result;
}

uint64_t sim_below(struct sim *s, uint64_t n)
{
    return (uint64_t)(((unsigned __int128)sim_rand(s) * n) >> 64);
}

bool sim_chance(struct sim *s, uint32_t ppm)
{
    return ppm > 0 && sim_below(s, 1000000) < ppm;
}

bool sim_coin(struct sim *s)
{
    return sim_rand(s) >> 63;
}

nsec_t sim_span(struct sim *s, nsec_t min, nsec_t max)
{
    ASSERT(min >= 0 && min <= max);
    return min + (nsec_t)sim_below(s, (uint64_t)(max - min) + 1);
}

uint64_t sim_random(struct sim *s)
{
    return sim_rand(s);
}

/* ---- trace ---- */

static void fold_word(struct sim *s, uint64_t word)
{
    s->hash = (s->hash ^ word) * FNV_PRIME;
    s->hash ^= s->hash >> 29;
}

static void text_add(struct sim *s, const char *line)
{
    size_t len = strlen(line);

    if (s->text_cap - s->text_len < len + 1) {
        s->text_cap = MAX(s->text_cap * 2, s->text_len + len + 4096);
        s->text = mem_raw_realloc(s->text, s->text_cap);
    }
    memcpy(s->text + s->text_len, line, len + 1);
    s->text_len += len;
}

static void stamp(const struct sim *s, char *dst, size_t room)
{
    snprintf(dst, room, "%" PRId64 ".%09" PRId64, s->now / NSEC_PER_SEC, s->now % NSEC_PER_SEC);
}

void sim_fold(struct sim *s, enum sim_kind kind, const struct sim_proc *p, uint64_t id)
{
    fold_word(s, (uint64_t)s->now);
    fold_word(s, (uint64_t)kind << 32 | (p ? p->id : 0));
    fold_word(s, id);
    if (s->conf.trace) {
        char line[256], time[40];

        stamp(s, time, sizeof(time));
        snprintf(line, sizeof(line), "%s %s %s %" PRIu64 "\n", time, p ? p->name : "-",
                 kind_names[kind], id);
        text_add(s, line);
    }
}

void sim_note(struct sim *s, const char *fmt, ...)
{
    char text[1024], time[40];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    fold_word(s, (uint64_t)s->now);
    for (const char *p = text; *p; p++)
        fold_word(s, (uint8_t)*p);
    stamp(s, time, sizeof(time));
    if (s->conf.trace) {
        text_add(s, time);
        text_add(s, " - note ");
        text_add(s, text);
        text_add(s, "\n");
    }
    if (s->log)
        fprintf(stderr, "%s - note %s\n", time, text);
}

uint64_t sim_trace_hash(const struct sim *s)
{
    return s->hash;
}

const char *sim_trace_text(const struct sim *s)
{
    if (!s->conf.trace)
        return NULL;
    return s->text ? s->text : "";
}

static void log_sink(void *arg, enum log_level level, const char *line)
{
    const struct sim *s = arg;
    char time[40];

    (void)level;
    if (!s->log)
        return;
    stamp(s, time, sizeof(time));
    fprintf(stderr, "%s %s@%s %s\n", time, s->running ? s->running->name : "-",
            s->running ? s->running->host : "-", line);
}

/* ---- the world ---- */

static void conf_set(struct sim *s, const struct sim_conf *conf)
{
    bool trace = s->conf.trace;

    s->conf = *conf;
    s->conf.trace = trace;
    if (s->conf.net_delay_max == 0) {
        s->conf.net_delay_min = 20 * NSEC_PER_USEC;
        s->conf.net_delay_max = 200 * NSEC_PER_USEC;
    }
    if (s->conf.disk_delay_max == 0) {
        s->conf.disk_delay_min = 20 * NSEC_PER_USEC;
        s->conf.disk_delay_max = 300 * NSEC_PER_USEC;
    }
    if (s->conf.coord_delay_max == 0) {
        s->conf.coord_delay_min = 200 * NSEC_PER_USEC;
        s->conf.coord_delay_max = 3 * NSEC_PER_MSEC;
    }
}

void sim_set_conf(struct sim *s, const struct sim_conf *conf)
{
    uint64_t seed = s->conf.seed;

    conf_set(s, conf);
    s->conf.seed = seed;
}

struct sim *sim_new(const struct sim_conf *conf)
{
    struct sim *s = SIM_NEW(struct sim);
    const char *log = getenv("ZBS_SIM_LOG");

    s->conf.trace = conf->trace;
    conf_set(s, conf);
    s->now = NSEC_PER_SEC; /* 0 is nobody's time */
    s->hash = FNV_START;
    s->next_port = 20000;
    s->log = log && log[0] == '1';
    rand_seed(s, conf->seed);
    heap_init(&s->events, mem_raw_realloc);
    list_init(&s->procs);
    list_init(&s->zombies);
    list_init(&s->locks);
    list_init(&s->listeners);
    list_init(&s->pairs);
    list_init(&s->cuts);
    list_init(&s->dgrams);
    list_init(&s->flights);
    s->coordd = sim_coordd_new(s);
    log_set_sink(log_sink, s);
    return s;
}

void sim_free(struct sim *s)
{
    if (!s)
        return;
    ASSERT(!s->stepping && !co_self());
    LIST_FOREACH (p, &s->procs, struct sim_proc, link)
        if (p->running)
            sim_proc_end(p, SIM_END_KILL);
    sim_reap(s);
    LIST_FOREACH_SAFE (p, &s->procs, struct sim_proc, link)
        sim_proc_free(p);
    sim_net_free(s);
    sim_coordd_free(s->coordd);
    ASSERT(list_empty(&s->locks));
    heap_fini(&s->events, mem_raw_free);
    sim_mem_free(s->text);
    log_set_sink(NULL, NULL);
    sim_mem_free(s);
}

nsec_t sim_now(const struct sim *s)
{
    return s->now;
}

/* ---- events ---- */

void sim_event_init(struct sim_event *e, enum sim_kind kind, struct sim_proc *p, uint64_t id,
                    void (*fn)(struct sim *s, struct sim_event *e))
{
    *e = (struct sim_event){.kind = kind, .proc = p, .id = id, .fn = fn};
}

void sim_event_arm(struct sim *s, struct sim_event *e, nsec_t at)
{
    ASSERT(e->fn);
    sim_event_disarm(s, e);
    e->at = MIN(MAX(at, s->now), TIME_MAX);
    heap_push(&s->events, (int64_t)((uint64_t)e->at << TIE_BITS | sim_rand(s) >> (64 - TIE_BITS)),
              &e->heap_pos);
}

void sim_event_disarm(struct sim *s, struct sim_event *e)
{
    heap_remove(&s->events, &e->heap_pos);
}

/* When the next event is due; TIME_MAX stands for never. */
static nsec_t next_at(const struct sim *s)
{
    uint32_t *top = heap_top(&s->events);

    return top ? CONTAINER_OF(top, struct sim_event, heap_pos)->at : TIME_MAX;
}

bool sim_step(struct sim *s)
{
    struct sim_event *e;
    uint32_t *top;

    ASSERTF(!s->stepping && !co_self(), "the world is stepped from inside");
    sim_reap(s);
    if (next_at(s) >= TIME_MAX)
        return false;
    top = heap_pop(&s->events);
    e = CONTAINER_OF(top, struct sim_event, heap_pos);
    ASSERT(e->at >= s->now);
    s->stepping = true;
    s->now = e->at;
    sim_fold(s, e->kind, e->proc, e->id);
    e->fn(s, e);
    s->stepping = false;
    sim_reap(s);
    return true;
}

static bool never(void *arg)
{
    (void)arg;
    return false;
}

void sim_run_for(struct sim *s, nsec_t span)
{
    (void)sim_run_until(s, never, NULL, span);
}

bool sim_run_until(struct sim *s, bool (*pred)(void *arg), void *arg, nsec_t limit)
{
    nsec_t end = limit >= TIME_MAX - s->now ? TIME_MAX : s->now + limit;

    for (;;) {
        if (pred(arg))
            return true;
        if (next_at(s) > end || !sim_step(s))
            break;
    }
    s->now = MAX(s->now, end);
    return pred(arg);
}
