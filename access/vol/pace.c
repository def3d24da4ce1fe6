/* SPDX-License-Identifier: Apache-2.0
 *
 * The pace of copies: a rate for the whole access server, and less of it where they make clients
 * wait. Each chunk server's latency for clients' requests is compared with the lowest that it had
 * of late: when it rises, copies that touch that server give way, quickly, and come back slowly. */
#include "access/vol/vol_int.h"

#define FULL      256u
#define BACK_MAX  (FULL - FULL / 16) /* a sixteenth of the rate is always left */
#define BACK_STEP (FULL / 32)        /* given back each time */
#define JUDGE     (50 * NSEC_PER_MSEC)
#define WINDOW    (10 * NSEC_PER_SEC)
#define CALM      (NSEC_PER_SEC / 2)    /* without clients' requests: nobody waits */
#define SLACK     (500 * NSEC_PER_USEC) /* a rise that does not count */
#define BURST     (20 * NSEC_PER_MSEC)  /* of copies after a pause */
#define SLEEP_MAX (100 * NSEC_PER_MSEC) /* then the rate is looked at again */

static nsec_t lowest(const struct pace *p)
{
    return p->low[1] ? MIN(p->low[0], p->low[1]) : p->low[0];
}

static void judge(struct pace *p, nsec_t now)
{
    if (now - p->judged < JUDGE)
        return;
    p->judged = now;
    if (p->smooth > 2 * lowest(p) + SLACK)
        p->backoff = MIN(p->backoff + MAX((FULL - p->backoff) / 4, 1u), BACK_MAX);
    else
        p->backoff -= MIN(p->backoff, BACK_STEP);
}

void pace_foreground(struct chunk *c, nsec_t took)
{
    struct pace *p = &c->pace;
    nsec_t now = co_now();

    p->smooth = p->smooth ? p->smooth + (took - p->smooth) / 16 : took;
    if (p->low[0] == 0 || now - p->window >= WINDOW) {
        p->low[1] = now - p->window >= 2 * WINDOW ? 0 : p->low[0];
        p->low[0] = p->smooth;
        p->window = now;
    }
    p->low[0] = MIN(p->low[0], p->smooth);
    p->last = now;
    judge(p, now);
}

uint32_t pace_share(const struct chunk *c)
{
    return co_now() - c->pace.last > CALM ? FULL : FULL - c->pace.backoff;
}

static uint32_t tenure_share(const struct tenure *t)
{
    uint32_t share = FULL;

    for (uint32_t i = 0; i < t->n; i++)
        if (((t->set | t->joining) & t->open) >> i & 1)
            share = MIN(share, pace_share(t->m[i].chunk));
    return share;
}

/* The place of so many bytes in the queue of copies. */
static nsec_t enqueue(struct tenure *t, uint32_t bytes)
{
    struct recovery *rec = &t->e->recovery;
    uint64_t rate = MAX(rec->rate * tenure_share(t) / FULL, UINT64_C(1));
    nsec_t at = MAX(rec->next, co_now() - BURST);

    rec->next = at + (nsec_t)((uint64_t)bytes * NSEC_PER_SEC / rate);
    return at;
}

int pace_copy(struct tenure *t, uint32_t bytes)
{
    const struct recovery *rec = &t->e->recovery;
    nsec_t at = enqueue(t, bytes), queued = co_now();

    while (co_now() < at) {
        int rc = co_sleep(MIN(at - co_now(), SLEEP_MAX));

        if (rc < 0)
            return rc;
        if (rec->rate_set > queued) {
            at = enqueue(t, bytes);
            queued = co_now();
        }
    }
    return 0;
}
