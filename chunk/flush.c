/* SPDX-License-Identifier: Apache-2.0
 *
 * The flusher works in cycles: what was journaled when the cycle began goes home (home.c), then
 * the metadata that says so (checkpoint.c), then the ring is trimmed, all of it at once. Large
 * cycles write each metadata page once for many pages of data; pace.c says when they begin and
 * how fast they go. */
#include "chunk/internal.h"

/* Pages brought home before the map pages that they dirtied follow. The cycle does not come back
 * to these, so this spreads the work and bounds memory without writing anything twice. */
#define MAPS_AFTER_PAGES 8192u

/* ---- trimming ---- */

/* The oldest record that something not yet home depends on. */
static uint64_t needed_rsn(const struct dev *d)
{
    const struct jpage *jp = LIST_FIRST(&d->j.live, struct jpage, live);
    uint64_t rsn = jp != NULL ? jp->rsn : RSN_NONE;

    LIST_FOREACH (m, &d->dirty, struct mpage, dirty)
        rsn = MIN(rsn, m->dirty_rsn);
    return rsn;
}

static int trim(struct dev *d)
{
    struct journal *j = &d->j;
    uint64_t needed = MIN(needed_rsn(d), j->next_rsn);
    struct commit *c;
    int rc;

    /* What is needed no more may have been superseded by records that are only queued. */
    rc = journal_sync(d);
    if (rc < 0)
        return rc;
    while ((c = LIST_FIRST(&j->commits, struct commit, link)) != NULL && c->last_rsn < needed) {
        list_del(&c->link);
        mem_free(c);
    }
    if ((c != NULL ? c->pos : j->start) == j->anchor_pos)
        return 0;
    rc = anchor_write(d); /* sets anchor_pos */
    if (rc < 0)
        return rc;
    pin_barrier(d); /* somebody may be reading pages from the ring */
    j->tail_pos = j->anchor_pos;
    return 0;
}

/* ---- a cycle ---- */

static uint32_t dirty_count(const struct dev *d)
{
    uint32_t n = 0;

    LIST_FOREACH (m, &d->dirty, struct mpage, dirty)
        n += m->dirty_rsn <= d->cycle_rsn;
    return n;
}

/* What will be free when everything up to the cycle's last record is home. */
static uint64_t cycle_frees(const struct dev *d)
{
    const struct journal *j = &d->j;
    uint64_t end = j->tail_pos;

    LIST_FOREACH (c, &j->commits, struct commit, link) {
        if (c->last_rsn > d->cycle_rsn)
            break;
        end = c->next_pos;
    }
    return (end - j->tail_pos) * j->unit;
}

static int cycle_pages(struct dev *d)
{
    uint64_t mark = 0;
    bool more = true;
    int rc = 0;

    while (rc == 0 && more) {
        rc = home_step(d, &more);
        if (rc < 0 || !more)
            continue;
        if (!memory_dirty(d->e) && d->pace.done_pages - mark < MAPS_AFTER_PAGES)
            continue;
        mark = d->pace.done_pages;
        rc = maps_to(d, d->j.next_rsn - 1);
        co_cond_broadcast(&d->maps_written);
        pace_estimate(d, dirty_count(d));
    }
    pace_pages_end(d);
    return rc;
}

int flush_to(struct dev *d, uint64_t rsn)
{
    int rc;

    co_mutex_lock_always(&d->flush_turn);
    rc = dev_check(d);
    d->cycle_rsn = MIN(rsn, d->j.durable_rsn);
    d->j.commit_alone = true; /* so that the ring can be trimmed right here */
    pace_begin(d, cycle_frees(d), dirty_count(d));
    home_begin(d);
    if (rc == 0)
        rc = cycle_pages(d);
    pace_estimate(d, dirty_count(d));
    if (rc == 0)
        rc = checkpoint_to(d, d->cycle_rsn);
    if (rc == 0)
        rc = trim(d);
    pace_end(d);
    d->cycle_time = co_now();
    co_cond_broadcast(&d->maps_written);
    if (rc < 0 && rc != ERR_HALTED)
        dev_fail(d, rc, "flush");
    co_mutex_unlock(&d->flush_turn);
    return rc;
}

/* Waits until the flusher has written map pages, which it does after each step of a cycle while
 * there are too many. */
int dirty_throttle(struct dev *d)
{
    int rc;

    if (!memory_full_of_dirt(d->e))
        return 0;
    rc = dev_check(d);
    if (rc < 0)
        return rc;
    flush_kick(d);
    rc = co_cond_wait(&d->maps_written);
    return rc < 0 ? rc : dev_check(d);
}

/* ---- when ---- */

void flush_kick(struct dev *d)
{
    d->flush_now = true;
    co_cond_signal(&d->flush_work);
}

/* Waits for work. True: writers have been quiet for long enough. */
static bool flush_sleep(struct dev *d)
{
    nsec_t former, at = MAX(d->j.commit_time, d->cycle_time) +
                        (nsec_t)d->e->conf.flush_delay_ms * NSEC_PER_MSEC;

    if (list_empty(&d->j.live) && list_empty(&d->dirty)) {
        d->flush_idle = true;
        co_cond_wait_always(&d->flush_work);
        d->flush_idle = false;
        return false;
    }
    if (co_now() >= at)
        return true;
    former = co_deadline_push(at);
    (void)co_cond_wait(&d->flush_work);
    co_deadline_restore(former);
    return false;
}

int flush_main(void *arg)
{
    struct dev *d = arg;
    int rc = 0;

    while (!d->stopping && !d->failed && rc == 0) {
        if (!pace_pressed(d) && !d->flush_now && !flush_sleep(d))
            continue;
        if (d->flush_now) { /* for what is queued, too */
            d->flush_now = false;
            rc = journal_sync(d);
        }
        if (rc == 0)
            rc = flush_to(d, d->j.durable_rsn);
    }
    return 0;
}
