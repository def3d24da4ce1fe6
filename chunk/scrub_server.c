/* SPDX-License-Identifier: Apache-2.0
 *
 * Scrubbing as the server sees it: rounds by the calendar, and what an administrator asks for. */
#include "chunk/server.h"
#include "common/base/mem.h"

#define FIRST_ROUND (600 * NSEC_PER_SEC) /* after the start: a restart has enough to do */

/* Calls fn for every worker on its loop. */
static co_fn void each_worker(struct server *s, void (*fn)(struct engine *e, void *arg), void *arg)
{
    for (uint32_t i = 0; i < s->n_workers; i++) {
        struct co_loop *home = co_enter(s->workers[i].loop);

        fn(s->workers[i].engine, arg);
        co_enter(home);
    }
}

static void one_start(struct engine *e, void *rate)
{
    engine_scrub_start(e, *(uint64_t *)rate);
}

static void one_stop(struct engine *e, void *arg)
{
    (void)arg;
    engine_scrub_stop(e);
}

struct view {
    struct scrub_status sum;
    struct corrupt_page *bad;
    uint32_t n_bad, max;
};

static void one_view(struct engine *e, void *arg)
{
    struct view *v = arg;
    struct scrub_status st;

    engine_scrub_status(e, &st);
    v->sum.running |= st.running;
    v->sum.rounds += st.rounds;
    v->sum.extents += st.extents;
    v->sum.extents_total += st.extents_total;
    v->sum.bytes += st.bytes;
    v->sum.corrupt += st.corrupt;
    v->sum.errors += st.errors;
    v->n_bad += engine_corrupt(e, v->bad + v->n_bad, v->max - v->n_bad);
}

co_fn void server_scrub_start(struct server *s, uint64_t bytes_per_s)
{
    uint64_t each = bytes_per_s / s->n_workers;

    each_worker(s, one_start, &each);
}

co_fn void server_scrub_stop(struct server *s)
{
    each_worker(s, one_stop, NULL);
}

co_fn uint32_t server_scrub_view(struct server *s, struct scrub_status *ret,
                                 struct corrupt_page *bad, uint32_t max)
{
    struct view v = {.bad = bad, .max = max};

    each_worker(s, one_view, &v);
    *ret = v.sum;
    return v.n_bad;
}

int scrub_server_main(void *arg)
{
    struct server *s = arg;
    int rc = s->conf->scrub_bytes_per_s != 0 ? co_sleep(FIRST_ROUND) : 0;

    while (rc == 0 && s->conf->scrub_bytes_per_s != 0) {
        server_scrub_start(s, s->conf->scrub_bytes_per_s);
        rc = co_sleep(s->conf->scrub_interval);
    }
    return rc == ERR_CANCELED ? 0 : rc;
}
