/* SPDX-License-Identifier: Apache-2.0
 *
 * Pacing: how fast writers may fill the ring, and how hard the flusher works to empty it.
 *
 * The problem. Flushing pays only in large cycles, because a metadata page is then written once
 * for many data pages, and a cycle frees its part of the ring all at once, at its end. Writers who
 * simply take what is free run at the ring's speed until it is full, and then stand still for the
 * rest of the cycle.
 *
 * What is measured. A cycle knows how many bytes of the ring it will free (`frees`) and how much
 * work is left: pages of data, exactly, and pages of metadata, estimated by what they have been to
 * each page of data (in this cycle, once there is experience, else in the former one). Each page
 * that a device write has finished, and each that was overwritten before it had to be written,
 * *earns* its share of what is still to be earned:
 *
 *     gain = (frees - earned) * pages finished / (pages finished + pages left)
 *
 * When the flusher waits for the device alone (for a flush, for the staging area), that takes as
 * long as some pages of a full window, and is counted as so many; how often it will, the former
 * cycle tells. A wrong estimate changes the rate of earning for the rest of the cycle; it can
 * neither stop it nor earn more than will be freed. One page counts as left until the ring is
 * trimmed.
 *
 * The *level* is what the ring would hold if it were freed as it is earned:
 *
 *     level = used + reserved - earned
 *
 * When a cycle ends, used and earned fall by the same, so the level does not notice cycles.
 *
 * What is set. Between three marks, from the level alone:
 *
 *     0 ... start   nothing: the ring is to fill; the flusher runs only when writers are quiet
 *     start ...     the flusher works, the more device writes in flight the nearer to `limit`; as
 *                   many as are allowed when nobody is writing or reading
 *     pay ...       a byte of the ring costs credit, which is earned as above. The price rises from
 *                   0 at `pay` to 1 at `limit`, and on
 *
 * Credit is saved up to `burst`, so that steps of the flusher aren't felt, and a writer who finds
 * any may overdraw it: large requests don't starve, small ones behind it wait a little longer. All
 * that wait are served in order.
 *
 * Why it does not swing. Writers in excess are admitted at (earning rate / price), so the level
 * moves by earning rate * (1 / price - 1): towards `limit` from below, where the price is less than
 * one, and from above, the slower the nearer. That is one quantity with one state and no delay
 * but that of a device write; throughput goes from the ring's speed to that of the flusher along a
 * curve and stays there.
 *
 * Why the ring is never full. Above `limit` every byte admitted was earned, so the level stays
 * below limit + burst + a few requests; a cycle frees at most what was used when it began, thus
 * at most that level; and before the ring is trimmed, used = level + earned, at most twice that.
 * `limit` is chosen so that this fits, beside what is set aside for urgent records and for the
 * jump at the ring's end. (In a ring of less than a few MiB single requests are too large for the
 * sum; there the ring's real end is the limit now and then, which only costs time.)
 *
 * Why nobody starves. Above `start` and with anything durable in the ring a cycle runs or begins;
 * a cycle ends, and earns all that it frees. So the first in line waits until the flusher has
 * finished as much work as the request (and what was overdrawn before it) costs: the bytes before
 * it in line * price / earning rate, plus the longest pause between two finished device writes.
 *
 * A queue at depth 1 is slower than a flusher with several writes in flight, so its level stays
 * near `start` and it pays nothing. */
#include "chunk/internal.h"

#define BUSY_NS    (100 * NSEC_PER_MSEC) /* since the last commit: writers are at work */
#define WINDOW_MIN 4u                    /* device writes of the flusher in flight */
#define WAIT_PAGES (FLUSH_WINDOW / 2)
#define META_ONE   1024u /* scale of meta_ratio */
#define META_MAX   (4 * META_ONE)

void pace_init(struct dev *d)
{
    const struct journal *j = &d->j;
    struct pace *p = &d->pace;
    uint64_t request = COMMIT_HEAD_MAX + (uint64_t)j->rec_pages_max * PAGE_BYTES;
    uint64_t room = (uint64_t)(j->units - j->commit_units_max - j->urgent_units) * j->unit;

    p->burst = room / 64;
    p->limit = room / 4;
    if (room / 2 > p->limit + p->burst + 2 * request)
        p->limit = room / 2 - p->burst - 2 * request;
    p->start = p->limit / 4 * 3;
    p->pay = p->limit / 8 * 7;
    p->credit = (int64_t)p->burst;
    p->meta_ratio = META_ONE / 4;
    p->done_waits = 8;
}

uint64_t pace_level(const struct dev *d)
{
    uint64_t held = (journal_used(d) + d->j.reserved) * d->j.unit;

    return held > d->pace.earned ? held - d->pace.earned : 0;
}

bool pace_pressed(const struct dev *d)
{
    return pace_level(d) >= d->pace.start && !list_empty(&d->j.commits);
}

/* ---- admission ---- */

/* What `bytes` of the ring cost at this level. */
static uint64_t cost(const struct pace *p, uint64_t level, uint64_t bytes)
{
    uint64_t span = p->limit - p->pay;

    if (level <= p->pay)
        return 0;
    return bytes * (level - p->pay) / span;
}

bool pace_admit(struct dev *d, uint64_t bytes)
{
    struct pace *p = &d->pace;
    uint64_t n = cost(p, pace_level(d) + bytes, bytes);

    if (n > 0 && p->credit <= 0)
        return false;
    if (n == 0)
        p->credit = (int64_t)p->burst;
    p->credit -= (int64_t)n;
    return true;
}

/* ---- the flusher's work ---- */

/* Is anybody writing or reading? */
static bool foreground(const struct dev *d)
{
    bool reading = d->pins.next->next != &d->pins; /* others' pins than the flusher's own */

    return reading || d->j.commit_running || co_now() - d->j.commit_time < BUSY_NS;
}

uint32_t pace_window(const struct dev *d)
{
    const struct pace *p = &d->pace;
    uint64_t level = pace_level(d);

    if (level >= p->limit || !foreground(d))
        return FLUSH_WINDOW;
    if (level <= p->start)
        return WINDOW_MIN;
    return WINDOW_MIN +
           (uint32_t)((FLUSH_WINDOW - WINDOW_MIN) * (level - p->start) / (p->limit - p->start));
}

void pace_begin(struct dev *d, uint64_t frees, uint32_t metas)
{
    struct pace *p = &d->pace;

    p->frees = frees;
    p->earned = 0;
    p->left_waits = p->done_waits;
    p->done_pages = p->done_metas = p->done_waits = 0;
    p->left_pages = d->j.live_pages;
    p->left_metas = metas + p->left_pages * p->meta_ratio / META_ONE;
    p->running = true;
}

static void earn(struct dev *d, uint64_t n)
{
    struct pace *p = &d->pace;
    uint64_t left = p->left_pages + p->left_metas + (uint64_t)p->left_waits * WAIT_PAGES + 1;
    uint64_t gain = (p->frees - p->earned) * n / (n + left);

    p->earned += gain;
    p->credit = MIN(p->credit + (int64_t)gain, (int64_t)p->burst);
    co_cond_broadcast(&d->j.space);
}

void pace_pages(struct dev *d, uint32_t n)
{
    struct pace *p = &d->pace;

    if (!p->running)
        return;
    p->done_pages += n;
    p->left_pages -= MIN(p->left_pages, n);
    earn(d, n);
}

void pace_metas(struct dev *d, uint32_t n)
{
    struct pace *p = &d->pace;

    if (!p->running)
        return;
    p->done_metas += n;
    p->left_metas -= MIN(p->left_metas, n);
    earn(d, n);
}

void pace_waited(struct dev *d)
{
    struct pace *p = &d->pace;

    if (!p->running)
        return;
    p->done_waits++;
    p->left_waits -= p->left_waits > 0;
    earn(d, WAIT_PAGES);
}

void pace_estimate(struct dev *d, uint32_t metas)
{
    struct pace *p = &d->pace;

    if (p->done_pages > 0)
        p->meta_ratio =
            (uint32_t)MIN((p->done_metas + metas) * META_ONE / p->done_pages, (uint64_t)META_MAX);
    p->left_metas = metas + p->left_pages * p->meta_ratio / META_ONE;
}

int pace_writes(struct dev *d, struct disk_req *reqs, uint32_t n)
{
    uint32_t waited = 0;
    int rc = 0;

    for (uint32_t submitted = 0; waited < n;) {
        int one;

        if (submitted < n && submitted - waited < pace_window(d)) {
            disk_submit(&reqs[submitted++]);
            continue;
        }
        one = disk_wait(&reqs[waited]);
        if (one < 0)
            rc = one;
        pace_metas(d, (uint32_t)(reqs[waited++].len / PAGE_BYTES));
    }
    return rc;
}

void pace_pages_end(struct dev *d)
{
    d->pace.left_pages = 0;
}

void pace_end(struct dev *d)
{
    struct pace *p = &d->pace;
    uint64_t rest = p->frees - p->earned;

    p->credit = MIN(p->credit + (int64_t)rest, (int64_t)p->burst);
    p->frees = p->earned = 0;
    p->running = false;
    co_cond_broadcast(&d->j.space);
}
