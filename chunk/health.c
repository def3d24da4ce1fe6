/* SPDX-License-Identifier: Apache-2.0
 *
 * Which devices may go on serving. Once in a window of a second the workers are asked what each
 * device did. One is isolated - in all workers, for good, until the server is restarted - if
 *   - a worker gave it up (its journal, metadata or a home could not be written),
 *   - disk_errors of its requests failed within ERROR_WINDOWS,
 *   - it has not answered a request for disk_hung, in which this process ran (one that was stopped,
 *     or whose host was, finds its requests old; the device may have answered them long ago),
 *   - it was slow in disk_slow_windows windows one after the other: the 99th percentile of its
 *     reads, or of its durable writes, was above disk_slow_floor and above disk_slow_factor times
 *     the median of its peers. Peers are the healthy disks of the same kind (rotational or not)
 *     that did something of that sort in the same window. With fewer than SLOW_PEERS of them
 *     nobody can tell who is slow, and a slow disk is only reported. A window in which it did
 *     nothing, or without peers, says nothing. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "chunk/server.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/co/sync.h"

#define WINDOW        NSEC_PER_SEC
#define ERROR_WINDOWS 60u
#define SLOW_PEERS    2u
#define PEER_REQUESTS 4u /* that a peer did in the window, at least */

/* ---- isolating ---- */

void server_disk_isolate(struct server *s, struct server_disk *sd, const char *why)
{
    if (sd->bad || sd->isolated)
        return;
    sd->isolated = true;
    snprintf(sd->why, sizeof(sd->why), "%s", why);
    log_error("disk.isolated",
              "disk=%s why=\"%s\" remedy=\"replace the device; its replicas are "
              "copied from the others\"",
              sd->path, sd->why);
    for (uint32_t i = 0; i < s->n_workers; i++) {
        struct co_loop *home = co_enter(s->workers[i].loop);

        engine_dev_fail(s->workers[i].engine, sd->path, sd->why);
        co_enter(home);
    }
}

/* ---- what the workers say ---- */

struct seen { /* of one disk, in one window */
    struct disk_window io;
    bool failed;
    char why[256];
};

static struct seen *seen_of(struct server *s, struct seen *seen, const char *path)
{
    for (uint32_t i = 0; i < s->n_disks; i++) {
        if (strcmp(s->disks[i].path, path) == 0)
            return &seen[i];
    }
    return NULL;
}

/* windows: of latencies and errors, too. */
static void gather(struct server *s, struct seen *seen, bool windows)
{
    for (uint32_t w = 0; w < s->n_workers; w++) {
        struct co_loop *home = co_enter(s->workers[w].loop);
        struct engine *e = s->workers[w].engine;

        for (uint32_t k = 0; k < engine_devs(e); k++) {
            struct disk_window io;
            struct dev_stats st;
            struct seen *to;

            engine_dev_stats(e, k, &st);
            to = seen_of(s, seen, st.path);
            if (to == NULL)
                continue;
            if (st.state == DISK_FAILED && !to->failed) {
                to->failed = true;
                snprintf(to->why, sizeof(to->why), "%s", st.error);
            }
            if (!windows)
                continue;
            engine_dev_window(e, k, &io);
            disk_window_add(&to->io, &io);
        }
        co_enter(home);
    }
}

/* ---- judging ---- */

static int nsec_cmp(const void *a, const void *b)
{
    nsec_t x = *(const nsec_t *)a, y = *(const nsec_t *)b;

    return x < y ? -1 : x > y;
}

/* The median of what disk i is compared with; *ret_n: of how many. */
static nsec_t peers_median(const struct server *s, const struct seen *seen, uint32_t i,
                           enum disk_window_class c, uint32_t *ret_n)
{
    nsec_t p99[CHUNKD_DISKS_MAX];
    uint32_t n = 0;

    for (uint32_t k = 0; k < s->n_disks; k++) {
        if (k != i && disk_serves(&s->disks[k]) && seen[k].io.count[c] >= PEER_REQUESTS &&
            disk_info(s->disks[k].guard)->rotational == disk_info(s->disks[i].guard)->rotational)
            p99[n++] = disk_window_p99(&seen[k].io, c);
    }
    qsort(p99, n, sizeof(*p99), nsec_cmp);
    *ret_n = n;
    return n > 0 ? p99[n / 2] : 0;
}

enum pace { PACE_UNKNOWN, PACE_FINE, PACE_SLOW };

/* How disk i was in this window; slow: *ret_peers says against how many, why says it. */
static enum pace pace_now(const struct server *s, const struct seen *seen, uint32_t i,
                          uint32_t *ret_peers, char *why, size_t len)
{
    static const char *const what[] = {"reads", "durable writes"};
    const struct chunkd_health *h = &s->conf->health;
    enum pace pace = PACE_UNKNOWN;

    for (enum disk_window_class c = 0; c < DISK_WINDOW_CLASSES; c++) {
        nsec_t own = MAX(disk_window_p99(&seen[i].io, c), seen[i].io.oldest), median;

        if (own == 0)
            continue;
        median = peers_median(s, seen, i, c, ret_peers);
        if (own > h->slow_floor && *ret_peers == 0)
            continue;
        if (own <= h->slow_floor || own <= (nsec_t)h->slow_factor * median) {
            pace = PACE_FINE;
            continue;
        }
        snprintf(
            why, len,
            "slow: its %s take %" PRId64 " ms, those of %" PRIu32 " other disk(s) %" PRId64 " ms",
            what[c], (int64_t)(own / NSEC_PER_MSEC), *ret_peers, (int64_t)(median / NSEC_PER_MSEC));
        return PACE_SLOW;
    }
    return pace;
}

static void judge_slow(struct server *s, const struct seen *seen, uint32_t i)
{
    struct server_disk *sd = &s->disks[i];
    uint32_t peers = 0;
    char why[200];
    enum pace pace = pace_now(s, seen, i, &peers, why, sizeof(why));

    if (pace == PACE_FINE) {
        sd->slow_windows = 0;
        sd->slow[0] = 0;
    }
    if (pace != PACE_SLOW || ++sd->slow_windows < s->conf->health.slow_windows)
        return;
    if (peers >= SLOW_PEERS) {
        server_disk_isolate(s, sd, why);
        return;
    }
    if (sd->slow[0] == 0)
        log_warn("disk.slow", "disk=%s why=\"%s\"", sd->path, why);
    snprintf(sd->slow, sizeof(sd->slow), "%s", why);
}

static void judge(struct server *s, const struct seen *seen, uint32_t i)
{
    const struct chunkd_health *h = &s->conf->health;
    struct server_disk *sd = &s->disks[i];
    nsec_t oldest = MIN(seen[i].io.oldest, co_now() - s->resumed);
    char why[200];

    if (++sd->error_windows > ERROR_WINDOWS)
        sd->errors = sd->error_windows = 0;
    sd->errors += seen[i].io.errors;
    if (sd->errors >= h->errors) {
        snprintf(why, sizeof(why), "%" PRIu32 " requests have failed within %u s", sd->errors,
                 ERROR_WINDOWS);
        server_disk_isolate(s, sd, why);
    } else if (oldest >= h->hung) {
        snprintf(why, sizeof(why), "a request has not been answered for %" PRId64 " s",
                 (int64_t)(oldest / NSEC_PER_SEC));
        server_disk_isolate(s, sd, why);
    } else {
        judge_slow(s, seen, i);
    }
}

static void check(struct server *s, bool windows)
{
    struct seen *seen = MEM_NEW_ARRAY(struct seen, CHUNKD_DISKS_MAX);
    uint32_t n = s->n_disks;

    gather(s, seen, windows);
    for (uint32_t i = 0; i < MIN(n, s->n_disks); i++) {
        if (!disk_serves(&s->disks[i]))
            continue;
        if (seen[i].failed)
            server_disk_isolate(s, &s->disks[i], seen[i].why);
        else if (windows)
            judge(s, seen, i);
    }
    mem_free(seen);
}

/* ---- the coroutine ---- */

static void failed_here(void *arg)
{
    struct server *s = arg;

    s->disk_failed = true;
    co_cond_broadcast(&s->health_work);
}

/* On a worker's loop. */
void health_dev_failed(void *server)
{
    struct server *s = server;

    if (co_loop() == s->loop)
        failed_here(s);
    else
        co_post(s->loop, failed_here, s);
}

int health_main(void *arg)
{
    struct server *s = arg;
    nsec_t next = co_now() + WINDOW;

    while (!co_canceled()) {
        nsec_t former = co_deadline_push(next);
        bool windows;

        if (!s->disk_failed)
            (void)co_cond_wait(&s->health_work);
        co_deadline_restore(former);
        windows = co_now() >= next;
        if (co_now() - next >= WINDOW)
            s->resumed = co_now();
        if (windows)
            next = co_now() + WINDOW;
        s->disk_failed = false;
        if (co_canceled() || s->disks_busy)
            continue;
        s->disks_checking = true; /* the list stays as it is */
        check(s, windows);
        s->disks_checking = false;
        co_cond_broadcast(&s->disks_free);
    }
    return 0;
}
