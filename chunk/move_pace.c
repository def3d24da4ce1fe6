/* SPDX-License-Identifier: Apache-2.0
 *
 * How fast extents move. The first pass over an extent, which copies all of it, keeps to the rate
 * that was set, and gives way to requests: as long as there are any, each of its four coroutines
 * rests seven times as long as its last block took, so that a block is on its way half of the time
 * at most; but never longer than REST_MAX, or a slow disk would take weeks. The passes behind it
 * copy what was written meanwhile: they don't rest, or they would never catch up with the writers.
 */
#include "chunk/move.h"

#define BUSY_NS  (100 * NSEC_PER_MSEC) /* since the last request: there are others */
#define REST     7                     /* times as long as the work */
#define REST_MAX (100 * NSEC_PER_MSEC)
#define BURST_NS (10 * NSEC_PER_MSEC) /* of the rate, saved up */

/* When the rate allows the next block. */
static nsec_t rate_due(struct engine *e, uint32_t pages)
{
    uint64_t bytes = (uint64_t)pages * PAGE_BYTES;

    if (e->conf.drain_bytes_per_s == 0)
        return 0;
    e->drain_due = MAX(e->drain_due, co_now() - BURST_NS) +
                   (nsec_t)((double)bytes * NSEC_PER_SEC / (double)e->conf.drain_bytes_per_s);
    return e->drain_due;
}

int move_rest(struct move *m, uint32_t pages, nsec_t took)
{
    struct engine *e = m->from->dev->e;
    nsec_t now = co_now(), due;

    if (m->passes > 1 || m->alone)
        return 0;
    due = rate_due(e, pages);
    if (now - e->asked < BUSY_NS)
        due = MAX(due, now + MIN(took * REST, REST_MAX));
    while (due > co_now() && !m->from->dev->drain_stop && !m->from->dev->failed &&
           !m->from->deleting) {
        int rc = co_sleep_until(MIN(due, co_now() + BUSY_NS));

        if (rc < 0)
            return rc;
    }
    return 0;
}
