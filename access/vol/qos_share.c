/* SPDX-License-Identifier: Apache-2.0
 *
 * This server's shares of limits that others use as well: each renewal tells meta what we need of
 * each, and its answer says what we may take (meta/shares.c). A limit that was not used for a while
 * is not reported; then we begin with an equal part, until the next renewal. */
#include "access/vol/qos.h"

#define REPORT_IDLE (10 * NSEC_PER_SEC)
#define SMOOTH_SPAN NSEC_PER_SEC

uint32_t qos_first_share(const struct vol_engine *e)
{
    uint32_t n = 0;

    LIST_FOREACH (a, &e->accesses, struct access_peer, link)
        n += !a->gone;
    return QOS_WHOLE / MAX(n, 1u);
}

/* What it takes, smoothed; and while somebody waits, what waits, as if it were to be done within
 * one report's time, and twice of what was taken: so a share that is too small grows fast. */
static double bucket_demand(struct qos_bucket *b, nsec_t span)
{
    double part = MIN((double)span / (double)SMOOTH_SPAN, 1.0);
    double rate = (double)b->taken / (double)span * (double)NSEC_PER_SEC;

    b->used += (rate - b->used) * part;
    b->taken = 0;
    if (b->queued == 0)
        return b->used;
    return MAX(b->used, 2 * rate) + (double)b->queued / (double)span * (double)NSEC_PER_SEC;
}

static bool limit_report(struct vol_engine *e, struct qos_limit *l, nsec_t span,
                         Zbs__Meta__LimitDemand *m)
{
    double ios = bucket_demand(&l->ios, span), bytes = bucket_demand(&l->bytes, span);

    if (!qos_limited(l) || (l->ios.queued == 0 && co_now() - l->used > REPORT_IDLE)) {
        l->shared = false;
        l->ios.share = l->bytes.share = qos_first_share(e);
        return false;
    }
    zbs__meta__limit_demand__init(m);
    m->milli_iops = (uint64_t)(ios * 1000);
    m->bandwidth = (uint64_t)bytes;
    m->iops_share = l->shared ? l->ios.share : 0;
    m->bandwidth_share = l->shared ? l->bytes.share : 0;
    return true;
}

void qos_report(struct vol_engine *e, Zbs__Meta__SessionRenewRequest *rq, struct qos_demands *d)
{
    nsec_t now = co_now(), span = MAX(now - e->qos_reported, NSEC_PER_MSEC);

    e->qos_reported = now;
    rq->demands = d->ptrs;
    LIST_FOREACH (p, &e->qos_pools, struct qos_pool, link) {
        Zbs__Meta__LimitDemand *m = &d->items[rq->n_demands];

        if (rq->n_demands < QOS_DEMANDS_MAX && limit_report(e, &p->limit, span, m)) {
            m->pool_id = p->id;
            d->ptrs[rq->n_demands++] = m;
        }
    }
    LIST_FOREACH (v, &e->volumes, struct volume, link) {
        Zbs__Meta__LimitDemand *m = &d->items[rq->n_demands];

        if (v->qos && rq->n_demands < QOS_DEMANDS_MAX && limit_report(e, &v->qos->limit, span, m)) {
            m->volume_id = v->info.id;
            d->ptrs[rq->n_demands++] = m;
        }
    }
}

static struct qos_limit *limit_find(struct vol_engine *e, const Zbs__Meta__LimitShare *m)
{
    struct volume *v = m->volume_id ? vol_object_find(e, m->volume_id) : NULL;

    if (m->volume_id)
        return v && v->qos ? &v->qos->limit : NULL;
    LIST_FOREACH (p, &e->qos_pools, struct qos_pool, link)
        if (p->id == m->pool_id)
            return &p->limit;
    return NULL;
}

void qos_answered(struct vol_engine *e, const Zbs__Meta__SessionRenewReply *a)
{
    for (size_t i = 0; i < a->n_shares; i++) {
        struct qos_limit *l = limit_find(e, a->shares[i]);

        if (!l)
            continue;
        l->shared = true;
        qos_share_set(l, a->shares[i]->iops_share, a->shares[i]->bandwidth_share);
    }
    if (a->n_shares)
        qos_kick(e);
}
