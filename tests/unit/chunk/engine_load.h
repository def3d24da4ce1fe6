/* SPDX-License-Identifier: Apache-2.0
 *
 * A load of writes on one engine, in virtual time, on a simulated device of known speed: what it
 * takes, how long requests wait, what is written to the device. */
#ifndef ZBS_TESTS_ENGINE_LOAD_H
#define ZBS_TESTS_ENGINE_LOAD_H

#include "chunk/internal.h"
#include "tests/unit/chunk/engine_fixture.h"

#define DISK_BYTES  (256u << 20)
#define RING_BYTES  (16u << 20)
#define WORKERS_ALL 128u
#define TENTHS      10u

struct load {
    /* what to do */
    struct sim_disk_speed speed;
    const struct sim_disk_speed *ring_speed; /* of the device that has the ring; NULL: itself */
    uint32_t depth, requests, set_pages;
    uint32_t bytes, big_bytes; /* of a request; of every tenth one, if given */
    uint64_t memory_bytes;
    bool sequential; /* one stream, over the set again and again, or to new blocks; else random */
    nsec_t pause;    /* of each worker, between its requests */
    /* what happened */
    uint64_t ring_bytes, dev_bytes, user_bytes, waits;
    nsec_t start, end, wait_max;
    nsec_t *latency, *done_at; /* by number of the request, in order of completion */
    uint32_t by_worker[WORKERS_ALL], n;
    nsec_t worst_of[WORKERS_ALL];
};
struct worker_arg {
    struct rig *r;
    struct load *l;
    uint32_t number;
};

static uint64_t gen;    /* of the writes */
static uint32_t issued; /* requests begun */

static inline int worker_main(void *arg)
{
    struct worker_arg *w = arg;
    struct load *l = w->l;

    while (issued < l->requests) {
        uint32_t i = issued++, bytes = l->big_bytes != 0 && i % 10 == 0 ? l->big_bytes : l->bytes;
        uint32_t page = (uint32_t)(env_random() % MAX(l->set_pages - bytes / PAGE_BYTES, 1u));
        nsec_t begin = co_now(), took;
        uint64_t number = ++gen;

        if (l->sequential)
            page = l->set_pages > 0 ? i * (bytes / PAGE_BYTES) % l->set_pages
                                    : i * (bytes / PAGE_BYTES);

        CHECK(put(w->r, (struct put){.id = ID,
                                     .v = V(1, number),
                                     .off = page * PAGE_BYTES,
                                     .len = bytes,
                                     .byte = (uint8_t)(1 + i % 200)}) == 0);
        took = co_now() - begin;
        l->latency[l->n] = took;
        l->done_at[l->n++] = co_now();
        l->user_bytes += bytes;
        l->by_worker[w->number]++;
        l->worst_of[w->number] = MAX(l->worst_of[w->number], took);
        if (number % 256 == 0) /* keeps the number of ranges above the commit point low */
            CHECK(engine_commit_point(w->r->e, ID, 1, V(1, number - l->depth)) == 0);
        if (l->pause > 0)
            (void)co_sleep(l->pause);
    }
    return 0;
}

static inline struct dev *the_dev(const struct rig *r)
{
    return LIST_FIRST(&r->e->devs, struct dev, link);
}

/* Gives every block of the working set its place, and brings all home. */
static inline void fill(struct rig *r, uint32_t pages)
{
    CHECK(create(r, ID, 1) == 0 && open_at(r, ID, 1) == 0);
    for (uint32_t p = 0; p < pages; p += PAGES_PER_BLOCK)
        CHECK(put(r, (struct put){.id = ID,
                                  .v = V(1, ++gen),
                                  .off = p * PAGE_BYTES,
                                  .len = BLOCK_BYTES,
                                  .byte = 1}) == 0);
    if (gen > 0)
        CHECK(engine_commit_point(r->e, ID, 1, V(1, gen)) == 0);
    CHECK(engine_flush(r->e) == 0);
}

static inline void body_load(struct rig *r)
{
    struct load *l = (struct load *)(uintptr_t)r->x[0];
    struct worker_arg w[WORKERS_ALL];
    struct co_group g;
    struct dev *d = the_dev(r);
    uint64_t before;

    fill(r, l->set_pages);
    issued = 0;
    before = d->bytes_written;
    l->start = co_now();
    co_group_init(&g);
    for (uint32_t i = 0; i < l->depth; i++) {
        w[i] = (struct worker_arg){r, l, i};
        co_spawn(&g, "worker", worker_main, &w[i]);
    }
    CHECK(co_group_join(&g) == 0);
    l->end = co_now();
    CHECK(engine_flush(r->e) == 0);
    l->dev_bytes = d->bytes_written - before;
    l->ring_bytes = (uint64_t)d->j.units * d->j.unit;
    l->waits = d->pace.waits;
    l->wait_max = d->pace.wait_max;
}

static inline void load_run(uint64_t seed, struct load *l)
{
    struct rig r = rig_new(seed, DISK_BYTES, RING_BYTES);

    gen = 0;
    r.memory_bytes = l->memory_bytes;
    assert_true(l->depth <= WORKERS_ALL);
    l->latency = calloc(l->requests, sizeof(nsec_t));
    l->done_at = calloc(l->requests, sizeof(nsec_t));
    sim_disk_set_speed(r.p, DISK, &l->speed);
    r.journal_host = l->ring_speed != NULL;
    if (r.journal_host)
        sim_disk_set_speed(r.p, RING_DISK, l->ring_speed);
    r.x[0] = (uint64_t)(uintptr_t)l;
    rig_life(&r, body_load, END_STOP);
    assert_int_equal(l->n, l->requests);
    sim_free(r.s);
}

static inline void load_free(struct load *l)
{
    free(l->latency);
    free(l->done_at);
}

/* ---- what is measured ---- */

static inline uint32_t usec(nsec_t t)
{
    return (uint32_t)(t / NSEC_PER_USEC);
}

/* Requests a second in one tenth of the time. */
static inline double tenth_rate(const struct load *l, uint32_t tenth)
{
    nsec_t span = (l->end - l->start) / TENTHS, from = l->start + span * tenth;
    uint32_t n = 0;

    for (uint32_t i = 0; i < l->n; i++)
        n += l->done_at[i] > from && l->done_at[i] <= from + span;
    return (double)n * NSEC_PER_SEC / (double)span;
}

static inline nsec_t latency_mean(const struct load *l, uint32_t first)
{
    nsec_t sum = 0;

    for (uint32_t i = first; i < l->n; i++)
        sum += l->latency[i];
    return sum / (l->n - first);
}

static inline nsec_t latency_max(const struct load *l)
{
    nsec_t max = 0;

    for (uint32_t i = 0; i < l->n; i++)
        max = MAX(max, l->latency[i]);
    return max;
}

static inline int nsec_cmp(const void *a, const void *b)
{
    const nsec_t *x = a, *y = b;

    return *x < *y ? -1 : *x > *y;
}

/* Of the requests that ended in one tenth of the time. */
static inline nsec_t tenth_p99(const struct load *l, uint32_t tenth)
{
    nsec_t span = (l->end - l->start) / TENTHS, from = l->start + span * tenth, p99;
    nsec_t *some = calloc(l->n, sizeof(*some));
    uint32_t n = 0;

    for (uint32_t i = 0; i < l->n; i++) {
        if (l->done_at[i] > from && l->done_at[i] <= from + span)
            some[n++] = l->latency[i];
    }
    qsort(some, n, sizeof(*some), nsec_cmp);
    p99 = n > 0 ? some[n * 99 / 100] : 0;
    free(some);
    return p99;
}

static inline void load_print(const char *what, const struct load *l)
{
    print_message(
        "%s: %.1f ring-fulls, %.3f bytes written per byte; latency mean %u us, max %u us; "
        "%" PRIu64 " waits of up to %u us; rates:",
        what, (double)l->user_bytes / (double)l->ring_bytes,
        (double)l->dev_bytes / (double)l->user_bytes, usec(latency_mean(l, l->n / 2)),
        usec(latency_max(l)), l->waits, usec(l->wait_max));
    for (uint32_t i = 0; i < TENTHS; i++)
        print_message(" %.0f", tenth_rate(l, i));
    print_message("; p99 in ms:");
    for (uint32_t i = 0; i < TENTHS; i++)
        print_message(" %.2f", usec(tenth_p99(l, i)) / 1000.0);
    print_message("\n");
}

#endif
