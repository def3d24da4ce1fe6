/* SPDX-License-Identifier: Apache-2.0
 *
 * Clients of the simulated cluster: see workload.h. */
#include "tests/sim/workload_int.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/units.h"
#include "common/env/env.h"
#include "tests/sim/files.h"

#define PLACES       12
#define SECTORS_MAX  40             /* of one operation: five pages */
#define PRIVATE_BASE (480ull << 20) /* each client's own place, for zeroes and discards */
#define PRIVATE_STEP (1ull << 20)
#define COUNTER_BASE (500ull << 20)     /* sectors that are only ever compared and incremented */
#define HOT_SPAN     (6 * NSEC_PER_SEC) /* one access server at a time does most of the I/O */
#define EXTRA_PLACES 6                  /* the first ones, in the other volumes */
#define MIXED_FROM   9 /* places that are zeroed, discarded, compared and written, too */

/* Offsets of the hot places: page and block boundaries, stripe boundaries, second extent group. */
static const uint64_t places[PLACES] = {
    0,          3 * 4096,     255 * 1024,    256 * 1024,     511 * 1024,
    512 * 1024, (1ull << 20), (64ull << 20), (300ull << 20), (400ull << 20) - 8192,
    17 * 4096,  40 * 4096,
};

/* ---- contents: every sector names its value and place ---- */

static void sector_fill(uint8_t *dst, uint64_t value, uint64_t sector)
{
    uint64_t words[SECTOR_BYTES / 8];

    for (uint32_t i = 0; i < ARRAY_SIZE(words); i++)
        words[i] = value ? (i % 2 ? sector : value) + (uint64_t)(i / 2) * 0x9e3779b97f4a7c15u : 0;
    memcpy(dst, words, SECTOR_BYTES);
}

/* The value of a sector; false if it is no whole sector of any write here. */
static bool sector_parse(const uint8_t *src, uint64_t sector, uint64_t *ret)
{
    uint8_t want[SECTOR_BYTES];

    memcpy(ret, src, sizeof(*ret));
    sector_fill(want, *ret, sector);
    return memcmp(want, src, SECTOR_BYTES) == 0;
}

bool workload_is_data(const uint8_t *page, size_t len)
{
    for (size_t at = 0; at < len; at += SECTOR_BYTES) {
        uint64_t words[SECTOR_BYTES / 8];

        memcpy(words, page + at, sizeof(words));
        if (words[0] != 0 && words[2] == words[0] + 0x9e3779b97f4a7c15u)
            return true;
    }
    return false;
}

uint64_t client_draw(struct client *cl, uint64_t n)
{
    return sim_random(cl->w->c->sim) % n;
}

/* Some operations have a deadline, as an initiator's have. Not those of the last look: right after
 * the faults, some extents are still being opened, and it is bounded as a whole. */
nsec_t client_begin(struct client *cl)
{
    nsec_t until = client_draw(cl, 3) ? NSEC_NEVER
                                      : co_now() + (nsec_t)(1 + client_draw(cl, 5)) * NSEC_PER_SEC;

    cl->active = true;
    return co_deadline_push(cl->patient ? NSEC_NEVER : until);
}

void client_end(struct client *cl, nsec_t former)
{
    co_deadline_restore(former);
    cl->active = false;
}

/* ---- shared places ---- */

static void watch(const struct client *cl, uint64_t first, uint32_t count, const char *what,
                  uint64_t value, int rc)
{
    const struct cluster *c = cl->w->c;

    if (c->watch >= first && c->watch < first + count)
        sim_note(c->sim, "watch %" PRIu64 ": access-%u client %u %s %" PRIu64 " %s", c->watch,
                 cl->node + 1, cl->number, what, value, rc < 0 ? err_name(rc) : "ok");
}

/* Where the sectors of a snapshot's volume begin in the history. Only volumes that were always
 * themselves are taken snapshots of. */
static uint64_t snapshot_key(const struct cluster *c, uint32_t n)
{
    return SECTOR_OF(c->extras[n].space_of);
}

/* What a snapshot holds in a sector: the same whenever it is read, and what the volume held at some
 * moment while it was taken. False if it contradicts what was seen before. */
static bool frozen_is(struct cluster *c, uint32_t n, uint64_t sector, uint64_t value)
{
    struct extra *x = &c->extras[n];

    for (uint32_t i = (uint32_t)(sector * 0x9e3779b97f4a7c15u >> 54);; i++) {
        struct frozen *f = &x->frozen[i % FROZEN_MAX];

        if (f->sector == sector + 1)
            return f->value == value;
        if (f->sector)
            continue;
        *f = (struct frozen){sector + 1, value};
        history_saw_between(c->history, x->call, x->ret, snapshot_key(c, n) + sector, value);
        return true;
    }
}

/* What is known of a change after its end. Want of space is found before anything is done, by each
 * of the extents that it touches: stripes are of several. */
void client_changed(struct client *cl, uint64_t op, const struct range *r, int rc)
{
    struct history *h = cl->w->c->history;
    uint64_t stripe = STRIPE_BYTES / SECTOR_BYTES;
    bool single = r->first / stripe == (r->first + r->count - 1) / stripe;

    if (rc == 0)
        history_return(h, op);
    else if (rc == ERR_NOSPACE && single)
        history_void(h, op);
    cl->w->stats.no_space += rc == ERR_NOSPACE;
    cl->w->stats.unknown += rc < 0 && rc != ERR_NOSPACE;
}

int client_write(struct client *cl, const struct range *r)
{
    struct buf *b = buf_alloc((size_t)r->count * SECTOR_BYTES);
    nsec_t former = client_begin(cl);
    uint64_t value = history_write_call(cl->w->c->history, r->key, r->count);
    int rc;

    for (uint32_t i = 0; i < r->count; i++)
        sector_fill(b->data + (size_t)i * SECTOR_BYTES, value, r->key + i);
    watch(cl, r->key, r->count, "writes", value, 0);
    rc = vol_write(r->v, r->first * SECTOR_BYTES, r->count * SECTOR_BYTES, b, 0);
    watch(cl, r->key, r->count, "wrote", value, rc);
    client_changed(cl, value, r, rc);
    cl->w->stats.writes++;
    client_end(cl, former);
    buf_put(b);
    return rc;
}

/* As sector_parse; what comes from the snapshot that the volume began with counts as 0. */
static bool sector_is(struct client *cl, const struct range *r, const uint8_t *src, uint32_t i,
                      uint64_t *ret)
{
    struct cluster *c = cl->w->c;
    uint64_t value;

    if (sector_parse(src, r->key + i, ret) && (*ret != 0 || !r->base))
        return true;
    if (!r->base || !sector_parse(src, snapshot_key(c, r->base - 1) + r->first + i, &value))
        return false;
    if (!frozen_is(c, r->base - 1, r->first + i, value)) {
        cluster_fail(c,
                     "sector %" PRIu64 " has %" PRIu64 " from %s, which has something else there",
                     r->key + i, value, c->extras[r->base - 1].name);
    }
    *ret = 0;
    return true;
}

static void snapshot_read(struct client *cl, uint32_t n, const struct range *r)
{
    struct cluster *c = cl->w->c;
    struct buf *b = buf_alloc((size_t)r->count * SECTOR_BYTES);
    nsec_t former = client_begin(cl);
    int rc = vol_read(r->v, r->first * SECTOR_BYTES, r->count * SECTOR_BYTES, b, 0);

    for (uint32_t i = 0; i < r->count && rc == 0; i++) {
        uint64_t value;

        if (!sector_parse(b->data + (size_t)i * SECTOR_BYTES, snapshot_key(c, n) + r->first + i,
                          &value))
            cluster_fail(c, "%s: sector %" PRIu64 " read torn or foreign: %016" PRIx64,
                         c->extras[n].name, r->first + i, value);
        else if (!frozen_is(c, n, r->first + i, value))
            cluster_fail(c, "%s changed: sector %" PRIu64 " has %" PRIu64 " now", c->extras[n].name,
                         r->first + i, value);
    }
    cl->w->stats.reads++;
    cl->w->stats.failed_reads += rc != 0;
    client_end(cl, former);
    buf_put(b);
}

static void shared_read(struct client *cl, const struct range *r)
{
    struct history *h = cl->w->c->history;
    struct buf *b = buf_alloc((size_t)r->count * SECTOR_BYTES);
    nsec_t former = client_begin(cl);
    uint64_t read = history_read_call(h), value;
    int rc = vol_read(r->v, r->first * SECTOR_BYTES, r->count * SECTOR_BYTES, b, 0);

    for (uint32_t i = 0; i < r->count && rc == 0; i++) {
        if (!sector_is(cl, r, b->data + (size_t)i * SECTOR_BYTES, i, &value))
            cluster_fail(cl->w->c, "sector %" PRIu64 " read torn or foreign: %016" PRIx64,
                         r->key + i, value);
        history_read_saw(h, read, r->key + i, value);
        watch(cl, r->key + i, 1, "read", value, rc);
    }
    if (rc < 0)
        sim_note(cl->w->c->sim, "access-%u client %u: read of %u sectors at %" PRIu64 " failed: %s",
                 cl->node + 1, cl->number, r->count, r->key, err_text(rc));
    cl->w->stats.reads++;
    cl->w->stats.failed_reads += rc != 0;
    client_end(cl, former);
    buf_put(b);
}

static void shared_zero(struct client *cl, const struct range *r, bool discard)
{
    nsec_t former = client_begin(cl);
    uint64_t op = history_zero_call(cl->w->c->history, r->key, r->count);
    uint64_t off = r->first * SECTOR_BYTES, len = (uint64_t)r->count * SECTOR_BYTES;
    int rc;

    watch(cl, r->key, r->count, discard ? "discards" : "zeroes", op, 0);
    rc = discard ? vol_discard(r->v, off, len) : vol_zero(r->v, off, len);
    watch(cl, r->key, r->count, discard ? "discarded" : "zeroed", op, rc);
    client_changed(cl, op, r, rc);
    cl->w->stats.zeroes++;
    client_end(cl, former);
}

/* Reads a sector, then writes it if nobody did meanwhile. */
static void shared_swap(struct client *cl, const struct range *r)
{
    struct buf *was = buf_alloc(SECTOR_BYTES), *new = buf_alloc(SECTOR_BYTES);
    uint64_t off = r->first * SECTOR_BYTES, old, value;
    nsec_t former = client_begin(cl);
    uint32_t differs = 0;
    int rc = vol_read(r->v, off, SECTOR_BYTES, was, 0);

    watch(cl, r->key, 1, "read before comparing", rc == 0 ? *(uint64_t *)(void *)was->data : 0, rc);
    if (rc == 0 && !sector_parse(was->data, r->key, &old))
        cluster_fail(cl->w->c, "sector %" PRIu64 " read torn or foreign: %016" PRIx64, r->key, old);
    if (rc == 0) {
        value = history_swap_call(cl->w->c->history, r->key, old);
        sector_fill(new->data, value, r->key);
        watch(cl, r->key, 1, "compares and writes", value, 0);
        rc = vol_compare_and_write(r->v, off, SECTOR_BYTES, was, 0, new, 0, &differs);
        watch(cl, r->key, 1, "compared and wrote", value, rc);
        if (rc == ERR_MISCOMPARE)
            history_void(cl->w->c->history, value);
        else
            client_changed(cl, value, r, rc);
    }
    cl->w->stats.compares++;
    client_end(cl, former);
    buf_put(was);
    buf_put(new);
}

static void shared_operation(struct client *cl, const struct range *r, bool mixed)
{
    uint64_t kind = client_draw(cl, mixed ? 10 : 7);

    if (kind < 4)
        shared_read(cl, r);
    else if (kind < 7)
        (void)client_write(cl, r);
    else if (kind < 9)
        shared_zero(cl, r, kind == 7);
    else
        shared_swap(cl, r);
}

/* ---- a client's own place: zeroes, discards, writes, exact expectations ---- */

static uint64_t private_first(const struct client *cl)
{
    return (PRIVATE_BASE + cl->number * PRIVATE_STEP) / SECTOR_BYTES;
}

static void private_check(struct client *cl, struct vol *v)
{
    struct buf *b = buf_alloc(PRIVATE_SECTORS * SECTOR_BYTES);
    nsec_t former = client_begin(cl);
    int rc = vol_read(v, private_first(cl) * SECTOR_BYTES, PRIVATE_SECTORS * SECTOR_BYTES, b, 0);

    for (uint32_t i = 0; i < PRIVATE_SECTORS && rc == 0; i++) {
        struct private_sector *s = &cl->sectors[i];
        uint64_t value, at = private_first(cl) + i;

        if (!sector_parse(b->data + (size_t)i * SECTOR_BYTES, at, &value) ||
            (value != s->value && !(s->ambiguous && value == s->other)))
            cluster_fail(cl->w->c,
                         "private sector %" PRIu64 ": %" PRIu64 " expected (or %" PRIu64
                         "), found %" PRIu64,
                         at, s->value, s->ambiguous ? s->other : s->value, value);
        s->value = value;
        s->ambiguous = false;
    }
    cl->w->stats.reads++;
    client_end(cl, former);
    buf_put(b);
}

/* An operation of unknown outcome must be resolved by a read before the next change. */
static void private_change(struct client *cl, struct vol *v)
{
    uint32_t at = (uint32_t)client_draw(cl, PRIVATE_SECTORS),
             count = (uint32_t)(1 + client_draw(cl, PRIVATE_SECTORS - at)),
             kind = (uint32_t)client_draw(cl, 3);
    uint64_t first = private_first(cl) + at;
    uint64_t value = kind == 0 ? history_write_call(cl->w->c->history, 0, 0) : 0;
    struct buf *b = kind == 0 ? buf_alloc((size_t)count * SECTOR_BYTES) : NULL;
    nsec_t former = client_begin(cl);
    int rc;

    for (uint32_t i = 0; i < count; i++) {
        struct private_sector *s = &cl->sectors[at + i];

        s->other = value;
        s->ambiguous = true;
        if (b)
            sector_fill(b->data + (size_t)i * SECTOR_BYTES, value, first + i);
    }
    if (b)
        rc = vol_write(v, first * SECTOR_BYTES, count * SECTOR_BYTES, b, 0);
    else if (kind == 1)
        rc = vol_zero(v, first * SECTOR_BYTES, (uint64_t)count * SECTOR_BYTES);
    else
        rc = vol_discard(v, first * SECTOR_BYTES, (uint64_t)count * SECTOR_BYTES);
    for (uint32_t i = 0; i < count && rc == 0; i++) {
        cl->sectors[at + i].value = value;
        cl->sectors[at + i].ambiguous = false;
    }
    cl->w->stats.zeroes += kind != 0;
    cl->w->stats.unknown += rc != 0;
    client_end(cl, former);
    buf_put(b);
}

static bool private_ambiguous(const struct client *cl)
{
    for (uint32_t i = 0; i < PRIVATE_SECTORS; i++)
        if (cl->sectors[i].ambiguous)
            return true;
    return false;
}

/* ---- counters: COMPARE AND WRITE of the whole sector, each increment once ---- */

static void counter_increment(struct client *cl, struct vol *v)
{
    uint32_t k = (uint32_t)client_draw(cl, COUNTERS), differs = 0;
    uint64_t at = COUNTER_BASE + k * 8192ull, sector = at / SECTOR_BYTES, value;
    struct buf *was = buf_alloc(SECTOR_BYTES), *next = buf_alloc(SECTOR_BYTES);
    nsec_t former = client_begin(cl);
    int rc = vol_read(v, at, SECTOR_BYTES, was, 0);

    if (rc == 0 && !sector_parse(was->data, sector, &value))
        cluster_fail(cl->w->c, "counter %u read torn", k);
    if (rc == 0) {
        sector_fill(next->data, value + 1, sector);
        cl->w->counted_unknown[k]++; /* from here on it may happen */
        rc = vol_compare_and_write(v, at, SECTOR_BYTES, was, 0, next, 0, &differs);
        if (rc == 0)
            cl->w->counted[k]++;
        if (rc == 0 || rc == ERR_MISCOMPARE)
            cl->w->counted_unknown[k]--;
    }
    cl->w->stats.compares++;
    client_end(cl, former);
    buf_put(was);
    buf_put(next);
}

static void counter_check(struct client *cl, struct vol *v)
{
    for (uint32_t k = 0; k < COUNTERS; k++) {
        uint64_t at = COUNTER_BASE + k * 8192ull, value;
        struct buf *b = buf_alloc(SECTOR_BYTES);
        int rc = vol_read(v, at, SECTOR_BYTES, b, 0);
        struct workload *w = cl->w;

        if (rc == 0 && sector_parse(b->data, at / SECTOR_BYTES, &value)) {
            if (value < w->counted[k] || value > w->counted[k] + w->counted_unknown[k])
                cluster_fail(w->c,
                             "counter %u is %" PRIu64 " after %" PRIu64
                             " successful increments and %" PRIu64 " of unknown outcome",
                             k, value, w->counted[k], w->counted_unknown[k]);
        } else {
            cluster_fail(w->c, "counter %u can't be read: %s", k, rc < 0 ? err_text(rc) : "torn");
        }
        buf_put(b);
    }
}

/* ---- pairs: two places in different extents, one written after the other was acknowledged ---- */

#define PAIR_AT   (512ull << 10) /* in the client's own part */
#define PAIR_STEP (256ull << 10) /* a stripe: the next extent */

static uint64_t pair_off(const struct client *cl, uint64_t half)
{
    return PRIVATE_BASE + cl->number * PRIVATE_STEP + PAIR_AT + half * PAIR_STEP;
}

/* The next half; again if it is not known to be written. */
static void pair_write(struct client *cl, struct vol *v)
{
    struct buf *b = buf_alloc(SECTOR_BYTES);
    uint64_t off = pair_off(cl, cl->pair % 2);
    nsec_t former = client_begin(cl);

    sector_fill(b->data, cl->pair / 2 + 1, off / SECTOR_BYTES);
    if (vol_write(v, off, SECTOR_BYTES, b, 0) == 0)
        cl->pair++;
    cl->w->stats.writes++;
    client_end(cl, former);
    buf_put(b);
}

/* At any one moment the first half is the second's number, or one ahead. */
static void pairs_check(struct client *reader, uint32_t snapshot, struct vol *v)
{
    struct workload *w = reader->w;
    struct buf *b = buf_alloc(SECTOR_BYTES);

    for (uint32_t i = 0; i < HOSTS * CLIENTS_MAX; i++) {
        const struct client *cl = &w->clients[i];
        uint64_t half[2] = {0, 0};
        int rc = 0;

        for (uint32_t k = 0; k < 2 && rc == 0 && i % CLIENTS_MAX < w->per_node; k++) {
            rc = vol_read(v, pair_off(cl, k), SECTOR_BYTES, b, 0);
            if (rc == 0 && !sector_parse(b->data, pair_off(cl, k) / SECTOR_BYTES, &half[k]))
                cluster_fail(w->c, "%s: half %u of pair %u read torn", w->c->extras[snapshot].name,
                             k, i);
        }
        if (rc == 0 && half[0] != half[1] && half[0] != half[1] + 1)
            cluster_fail(w->c, "%s is not one point in time: pair %u is %" PRIu64 ", %" PRIu64,
                         w->c->extras[snapshot].name, i, half[0], half[1]);
    }
    buf_put(b);
}

/* ---- a client's life ---- */

static uint32_t some_count(struct client *cl)
{
    return (uint32_t)(client_draw(cl, 3) ? 1 + client_draw(cl, SECTORS_MAX) : 8);
}

/* In one of the volumes that come and go. */
static void extra_operation(struct client *cl)
{
    const struct cluster *c = cl->w->c;
    uint32_t n = c->n_extras ? (uint32_t)client_draw(cl, c->n_extras) : 0;
    const struct extra *x = &c->extras[n];
    uint64_t first = places[client_draw(cl, EXTRA_PLACES)] / SECTOR_BYTES + client_draw(cl, 8);
    struct range r = {.first = first, .count = some_count(cl), .base = x->base};

    if (n >= c->n_extras || !x->there)
        return;
    r.key = SECTOR_OF(x->space) + first;
    cl->extra = n + 1;
    if (vol_open(c->nodes[cl->node].engine, x->id, &r.v) == 0) {
        if (x->snapshot)
            snapshot_read(cl, n, &r);
        else if (x->there)
            shared_operation(cl, &r, n % 2 && !x->base);
        vol_close(r.v);
    }
    cl->extra = 0;
}

/* In the main volume, at one of the hot places or at what its end was a moment ago. */
static void main_operation(struct client *cl, struct vol *v)
{
    uint32_t place = (uint32_t)client_draw(cl, PLACES + 1);
    uint64_t at = place < PLACES ? places[place] : cl->w->c->size_bytes - 8192;
    struct range r = {
        .v = v, .first = at / SECTOR_BYTES + client_draw(cl, 8), .count = some_count(cl)};

    r.key = r.first;
    r.count = place < PLACES ? r.count : 8;
    shared_operation(cl, &r, place >= MIXED_FROM && place < PLACES);
}

static void one_operation(struct client *cl, struct vol *v)
{
    if (fill_wanted(cl) && client_draw(cl, 2)) {
        fill_operation(cl, v);
        return;
    }
    switch (client_draw(cl, 11)) {
    case 10:
        pair_write(cl, v);
        break;
    case 0:
        if (private_ambiguous(cl))
            private_check(cl, v);
        else
            private_change(cl, v);
        break;
    case 1:
        private_check(cl, v);
        break;
    case 2:
        counter_increment(cl, v);
        break;
    case 3:
        extra_operation(cl);
        break;
    default:
        main_operation(cl, v);
        break;
    }
}

/* Which server has the load now; HOSTS: all alike. */
static uint32_t hot_node(void)
{
    return (uint32_t)(co_now() / HOT_SPAN % (HOSTS + 1));
}

static void think(struct client *cl)
{
    bool hot = hot_node() == HOSTS || hot_node() == cl->node;

    (void)co_sleep((nsec_t)client_draw(cl, hot ? 20 : 600) * NSEC_PER_MSEC);
}

static void count_moves(struct client *cl)
{
    struct vol_engine_stats stats;

    if (cl->number % CLIENTS_MAX != 0)
        return;
    vol_engine_stats(cl->w->c->nodes[cl->node].engine, &stats);
    cl->w->stats.moves += stats.leases_moved - cl->moved;
    cl->moved = stats.leases_moved;
}

static int client_main(void *arg)
{
    struct client *cl = arg;
    struct vol_engine *engine = cl->w->c->nodes[cl->node].engine;
    struct vol *v = NULL;

    while (!v && cl->w->running) {
        if (cl->w->c->volume_id == 0 || vol_open(engine, cl->w->c->volume_id, &v) < 0) {
            if (co_sleep(50 * NSEC_PER_MSEC) == ERR_CANCELED)
                return 0;
        }
    }
    while (v && cl->w->running && !co_canceled()) {
        one_operation(cl, v);
        count_moves(cl);
        think(cl);
    }
    if (v)
        vol_close(v);
    return 0;
}

static int final_main(void *arg);

static void start_client(struct client *cl, int (*fn)(void *))
{
    cl->extra = 0;
    cl->active = false;
    cl->moved = 0;
    cl->started = true;
    co_group_init(&cl->group);
    co_spawn(&cl->group, "client", fn, cl);
}

void workload_engine_ready(void *arg, struct vol_engine *engine)
{
    struct node *n = arg;
    struct workload *w = n->cluster->workload;

    n->engine = engine;
    if (!w)
        return;
    start_client(&w->final[n->index], final_main);
    for (uint32_t i = 0; i < w->per_node; i++) {
        struct client *cl = &w->clients[n->index * CLIENTS_MAX + i];

        cl->active = cl->started = false; /* they died with the former process */
        cl->extra = 0;
    }
    for (uint32_t i = 0; i < w->per_node && w->running; i++)
        start_client(&w->clients[n->index * CLIENTS_MAX + i], client_main);
}

static void stop_client(struct client *cl)
{
    if (cl->started)
        (void)co_group_close(&cl->group);
    cl->started = false;
}

void workload_engine_stopping(void *arg)
{
    struct node *n = arg;
    struct workload *w = n->cluster->workload;

    if (!w)
        return;
    files_stopping(n);
    stop_client(&w->final[n->index]);
    for (uint32_t i = 0; i < w->per_node; i++)
        stop_client(&w->clients[n->index * CLIENTS_MAX + i]);
}

void workload_start(struct cluster *c, uint32_t clients)
{
    struct workload *w = calloc(1, sizeof(*w));

    ASSERT(w && clients <= CLIENTS_MAX);
    w->c = c;
    w->per_node = clients;
    w->running = true;
    for (uint32_t n = 0; n < HOSTS; n++)
        for (uint32_t i = 0; i < CLIENTS_MAX; i++) {
            struct client *cl = &w->clients[n * CLIENTS_MAX + i];

            cl->w = w;
            cl->node = n;
            cl->number = n * CLIENTS_MAX + i;
        }
    w->final_node = UINT32_MAX;
    for (uint32_t n = 0; n < HOSTS; n++) {
        w->final[n].w = w;
        w->final[n].node = n;
    }
    c->workload = w;
}

void workload_stop(struct cluster *c)
{
    c->workload->running = false;
}

bool workload_uses(const struct cluster *c, uint32_t n)
{
    for (uint32_t i = 0; i < HOSTS * CLIENTS_MAX; i++) {
        const struct client *cl = &c->workload->clients[i];

        if (cl->extra == n + 1 && sim_proc_running(c->nodes[cl->node].procs[ROLE_ACCESS]))
            return true;
    }
    return false;
}

uint32_t workload_active(const struct cluster *c)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < HOSTS * CLIENTS_MAX; i++)
        n += c->workload->clients[i].active;
    return n;
}

void workload_free(struct cluster *c)
{
    free(c->workload);
    c->workload = NULL;
}

const struct workload_stats *workload_stats(const struct cluster *c)
{
    return &c->workload->stats;
}

static void final_extra(struct client *cl, uint32_t n)
{
    struct cluster *c = cl->w->c;
    const struct extra *x = &c->extras[n];
    struct range r = {.count = SECTORS_MAX + 8, .base = x->base};
    uint32_t most = x->snapshot && x->of == 0 ? PLACES : EXTRA_PLACES;
    int rc = vol_open(c->nodes[cl->node].engine, x->id, &r.v);

    if (rc < 0) {
        cluster_fail(c, "%s can't be opened: %s", x->name, err_text(rc));
        return;
    }
    for (uint32_t i = 0; i < most; i++) {
        r.first = places[i] / SECTOR_BYTES;
        r.key = SECTOR_OF(x->space) + r.first;
        if (x->snapshot)
            snapshot_read(cl, n, &r);
        else
            shared_read(cl, &r);
    }
    if (x->snapshot && x->of == 0)
        pairs_check(cl, n, r.v);
    vol_close(r.v);
}

static void final_extras(struct client *cl)
{
    for (uint32_t n = 0; n < cl->w->c->n_extras; n++)
        if (cl->w->c->extras[n].there)
            final_extra(cl, n);
}

static void final_read(struct client *cl, struct vol *v)
{
    struct workload *w = cl->w;
    uint64_t failed = w->stats.failed_reads;

    for (uint32_t i = 0; i < PLACES; i++) {
        struct range r = {.v = v, .first = places[i] / SECTOR_BYTES, .count = SECTORS_MAX + 8};

        r.key = r.first;
        shared_read(cl, &r);
    }
    final_extras(cl);
    if (w->stats.failed_reads != failed)
        cluster_fail(w->c, "a final read failed");
    for (uint32_t i = 0; i < HOSTS * CLIENTS_MAX; i++)
        if (i % CLIENTS_MAX < w->per_node)
            private_check(&w->clients[i], v);
    counter_check(cl, v);
}

/* Waits in each access server for its turn: reads everything once more, or fills the disks. */
static int final_main(void *arg)
{
    struct client *cl = arg;
    struct workload *w = cl->w;

    cl->patient = true;
    for (;;) {
        struct vol *v = NULL;

        while (w->final_node != cl->node || w->final_done)
            if (co_sleep(100 * NSEC_PER_MSEC) == ERR_CANCELED)
                return 0;
        while (!v && vol_open(w->c->nodes[cl->node].engine, w->c->volume_id, &v) < 0)
            if (co_sleep(100 * NSEC_PER_MSEC) == ERR_CANCELED)
                return 0;
        if (w->final_fills)
            fill_check(cl, v);
        else
            final_read(cl, v);
        vol_close(v);
        w->final_done = true;
    }
}

static void final_begin(struct cluster *c, uint32_t node, bool fills)
{
    c->workload->final_done = false;
    c->workload->final_fills = fills;
    c->workload->final_node = node;
}

void workload_final_read(struct cluster *c, uint32_t node)
{
    final_begin(c, node, false);
}

void workload_final_fill(struct cluster *c, uint32_t node)
{
    final_begin(c, node, true);
}

bool workload_filled(const struct cluster *c)
{
    return fill_wanted(&c->workload->clients[0]);
}

bool workload_final_done(const struct cluster *c)
{
    return c->workload->final_done;
}

void workload_fill(struct cluster *c, bool on)
{
    c->workload->filling = on;
}
