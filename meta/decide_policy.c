/* SPDX-License-Identifier: Apache-2.0
 *
 * Decisions about the policies of pools and volumes: limits, replicas, the pool that a volume is
 * in, a smaller size. What follows from a new number of replicas is done in the background. */
#include <inttypes.h>
#include <string.h>
#include "common/base/err.h"
#include "common/base/units.h"
#include "meta/check.h"
#include "meta/decide.h"
#include "meta/table.h"

#define IOPS_MAX      (1ull << 30)
#define BANDWIDTH_MAX (1ull << 40)

/* ---- limits ---- */

static int change(const char *what, uint64_t *to, const Zbs__Meta__Value *v, uint64_t max)
{
    if (v == NULL)
        return 0;
    if (v->value > max)
        return err_set(ERR_INVAL, "%s %" PRIu64 ": at most %" PRIu64 " is allowed", what, v->value,
                       max);
    *to = v->value;
    return 0;
}

static int decide_limits(const struct decide *d, const Zbs__Meta__Limits *now,
                         const Zbs__Meta__LimitsChange *c, Zbs__Metalog__KvLimits **ret)
{
    Zbs__Metalog__KvLimits *m = *ret = PAD_NEW(d->pad, Zbs__Metalog__KvLimits);
    int rc = 0;

    zbs__metalog__kv_limits__init(m);
    m->iops = now->iops;
    m->iops_burst = now->iops_burst;
    m->bandwidth = now->bandwidth;
    m->bandwidth_burst = now->bandwidth_burst;
    if (c == NULL)
        return 0;
    rc = change("iops", &m->iops, c->iops, IOPS_MAX);
    if (rc == 0)
        rc = change("iops burst", &m->iops_burst, c->iops_burst, IOPS_MAX);
    if (rc == 0)
        rc = change("bandwidth", &m->bandwidth, c->bandwidth, BANDWIDTH_MAX);
    if (rc == 0)
        rc = change("bandwidth burst", &m->bandwidth_burst, c->bandwidth_burst, BANDWIDTH_MAX);
    return rc;
}

static bool limits_same(const Zbs__Meta__Limits *a, const Zbs__Metalog__KvLimits *b)
{
    return a->iops == b->iops && a->iops_burst == b->iops_burst && a->bandwidth == b->bandwidth &&
           a->bandwidth_burst == b->bandwidth_burst;
}

/* ---- replicas ---- */

static const char *domain_of(const struct place_chunk *c, const char *domain)
{
    if (strcmp(domain, "zone") == 0)
        return c->zone;
    if (strcmp(domain, "rack") == 0)
        return c->rack;
    return c->host;
}

/* Failure domains that have a chunk server at work. */
static uint32_t domains_alive(const struct world *w, const char *domain)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < w->n_chunks; i++) {
        bool seen = !w->chunks[i].alive;

        for (uint32_t k = 0; k < i && !seen; k++)
            seen = w->chunks[k].alive &&
                   strcmp(domain_of(&w->chunks[i], domain), domain_of(&w->chunks[k], domain)) == 0;
        n += !seen;
    }
    return n;
}

/* The numbers that are asked for; 0: as they are. More replicas than there are places for would
 * leave every extent degraded for ever. */
static int decide_replicas(const struct decide *d, const char *domain, uint32_t replicas,
                           uint32_t min, uint32_t *to_replicas, uint32_t *to_min)
{
    uint32_t places;

    if (replicas > REPLICAS_MAX)
        return err_set(ERR_INVAL, "%u replicas: 1 to %u are allowed", replicas, REPLICAS_MAX);
    if (replicas != 0 && min == 0 && replicas != *to_replicas)
        min = MAX(replicas - 1, 1u);
    if (replicas == 0)
        replicas = *to_replicas;
    if (min == 0)
        min = *to_min;
    if (min > replicas)
        return err_set(ERR_INVAL, "at least %u replicas of %u can't be kept in sync", min,
                       replicas);
    places = domains_alive(d->w, domain);
    if (replicas > *to_replicas && replicas > places)
        return err_set(ERR_INVAL, "%u replicas need chunk servers on as many %ss: %u are at work",
                       replicas, domain, places);
    *to_replicas = replicas;
    *to_min = min;
    return 0;
}

/* ---- volumes ---- */

static Zbs__Metalog__VolumePolicy *policy_of(const struct decide *d, const struct volume *v,
                                             Zbs__Metalog__Record **ret)
{
    Zbs__Metalog__VolumePolicy *m = PAD_NEW(d->pad, Zbs__Metalog__VolumePolicy);

    zbs__metalog__volume_policy__init(m);
    m->volume_id = v->id;
    m->replicas = v->replicas;
    m->min_replicas = v->min_replicas;
    m->pool_id = v->pool_id;
    m->thick = v->provisioning.thick;
    *ret = record_new(d->pad, ZBS__METALOG__RECORD__KIND_VOLUME_POLICY);
    (*ret)->volume_policy = m;
    return m;
}

int decide_volume_set(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__VolumeSetRequest *rq = (const void *)d->rq;
    Zbs__Metalog__VolumePolicy *m;
    struct volume *v;
    int rc = decide_volume(d, rq->pool, rq->name, &v);

    if (rc < 0)
        return rc;
    m = policy_of(d, v, ret);
    rc = decide_replicas(d, v->pool->failure_domain, rq->replicas, rq->min_replicas, &m->replicas,
                         &m->min_replicas);
    if (rc == 0)
        rc = decide_limits(d, &v->limits, rq->limits, &m->limits);
    if (rc == 0)
        rc = decide_thickness(v, rq->thickness, m);
    if (rc == 0 && m->replicas == v->replicas && m->min_replicas == v->min_replicas &&
        m->thick == v->provisioning.thick && limits_same(&v->limits, m->limits))
        *ret = NULL;
    return rc;
}

int answer_volume_set(const struct decide *d, ProtobufCMessage *reply)
{
    const Zbs__Meta__VolumeSetRequest *rq = (const void *)d->rq;
    struct volume *v;
    int rc = decide_volume(d, rq->pool, rq->name, &v);

    if (rc == 0)
        view_volume((Zbs__Meta__Volume *)reply, d->st, v);
    return rc;
}

int decide_volume_move(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__VolumeMoveRequest *rq = (const void *)d->rq;
    Zbs__Metalog__VolumePolicy *m;
    struct volume *v, **snapshots;
    const struct volume *taken;
    struct pool *to;
    uint32_t n;
    int rc = decide_volume(d, rq->pool, rq->name, &v);

    if (rc == 0)
        rc = decide_pool(d, rq->to_pool, &to);
    if (rc != 0)
        return rc;
    *ret = NULL;
    if (to == v->pool)
        return 0;
    if (v->snapshot)
        return err_set(ERR_PERM, "'%s/%s' is a snapshot: it is moved with its volume", rq->pool,
                       rq->name);
    snapshots = volume_snapshots(v, &n);
    taken = pool_volume(to, v->name);
    for (uint32_t i = 0; i < n && taken == NULL; i++)
        if (snapshots[i]->origin_id == v->id)
            taken = pool_volume(to, snapshots[i]->name);
    if (taken != NULL)
        return err_set(ERR_EXISTS, "volume '%s/%s' exists already", to->name, taken->name);
    m = policy_of(d, v, ret);
    m->pool_id = to->id;
    return decide_limits(d, &v->limits, NULL, &m->limits);
}

int answer_volume_move(const struct decide *d, ProtobufCMessage *reply)
{
    const Zbs__Meta__VolumeMoveRequest *rq = (const void *)d->rq;
    struct volume *v;
    int rc = decide_volume(d, rq->to_pool, rq->name, &v);

    if (rc == 0)
        view_volume((Zbs__Meta__Volume *)reply, d->st, v);
    return rc;
}

/* ---- pools ---- */

static int check_domain(const char *domain)
{
    if (domain[0] != 0 && strcmp(domain, "host") != 0 && strcmp(domain, "rack") != 0 &&
        strcmp(domain, "zone") != 0)
        return err_set(ERR_INVAL, "failure domain '%s': use host, rack or zone", domain);
    return 0;
}

int decide_pool_set(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__PoolSetRequest *rq = (const void *)d->rq;
    Zbs__Metalog__PoolPolicy *m;
    struct pool *p;
    int rc = decide_pool(d, rq->name, &p);

    if (rc == 0)
        rc = check_domain(rq->failure_domain);
    if (rc < 0)
        return rc;
    *ret = record_new(d->pad, ZBS__METALOG__RECORD__KIND_POOL_POLICY);
    (*ret)->pool_policy = m = PAD_NEW(d->pad, Zbs__Metalog__PoolPolicy);
    zbs__metalog__pool_policy__init(m);
    m->pool_id = p->id;
    m->replicas = p->replicas;
    m->min_replicas = p->min_replicas;
    m->failure_domain = rq->failure_domain[0] != 0 ? rq->failure_domain : p->failure_domain;
    rc = decide_replicas(d, m->failure_domain, rq->replicas, rq->min_replicas, &m->replicas,
                         &m->min_replicas);
    if (rc == 0)
        rc = decide_limits(d, &p->limits, rq->limits, &m->limits);
    if (rc == 0 && m->replicas == p->replicas && m->min_replicas == p->min_replicas &&
        strcmp(m->failure_domain, p->failure_domain) == 0 && limits_same(&p->limits, m->limits))
        *ret = NULL;
    return rc;
}

int answer_pool_set(const struct decide *d, ProtobufCMessage *reply)
{
    const Zbs__Meta__PoolSetRequest *rq = (const void *)d->rq;
    struct pool *p;
    int rc = decide_pool(d, rq->name, &p);

    if (rc == 0)
        view_pool((Zbs__Meta__Pool *)reply, p);
    return rc;
}

Zbs__Metalog__Record *decide_policy_sweep(const struct state *st, struct pad *pad)
{
    const struct volume *v = st->policies.count > 0 ? st->policies.items[0] : NULL;
    Zbs__Metalog__Record *r;

    if (v == NULL)
        return NULL;
    r = record_new(pad, ZBS__METALOG__RECORD__KIND_POLICY_SWEEP);
    r->policy_sweep = PAD_NEW(pad, Zbs__Metalog__PolicySweep);
    zbs__metalog__policy_sweep__init(r->policy_sweep);
    r->policy_sweep->volume_id = v->id;
    r->policy_sweep->max = SWEEP_MAX;
    return r;
}

/* ---- a smaller size ---- */

#define SHRINK_SLOTS_MAX 4096u /* in one record */

struct tail {
    uint32_t extents, used;
};

static struct tail tail_from(const struct volume *v, uint32_t first)
{
    struct tail t = {0};

    for (uint32_t n = first; n < v->n_slots; n++) {
        bool has = volume_extent(v, n) != NULL;

        t.extents += has;
        t.used += has || volume_slot(v, n) != NULL;
    }
    return t;
}

/* The last stripe group is kept or dropped as a whole: what a part of it held beyond the end would
 * be there again when the volume grows. */
static bool cuts_group(const struct volume *v, uint64_t size_bytes)
{
    uint64_t group = (uint64_t)v->layout.stripe_count * EXTENT_BYTES;
    uint32_t end = layout_slots(&v->layout, size_bytes);

    if (size_bytes % group == 0)
        return false;
    for (uint32_t n = end - v->layout.stripe_count; n < end; n++) {
        if (volume_extent(v, n) != NULL)
            return true;
    }
    return false;
}

int decide_shrink(const struct decide *d, const struct volume *v, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__VolumeResizeRequest *rq = (const void *)d->rq;
    uint64_t group = (uint64_t)v->layout.stripe_count * EXTENT_BYTES;
    struct tail t = tail_from(v, layout_slots(&v->layout, rq->size_bytes));

    if (cuts_group(v, rq->size_bytes))
        return err_set(ERR_INVAL,
                       "volume '%s/%s' has data where it would end: its size can become a multiple "
                       "of %" PRIu64 " MiB",
                       rq->pool, rq->name, group / MIB);
    if (t.extents > 0 && !rq->discard)
        return err_set(ERR_NOT_EMPTY,
                       "volume '%s/%s' has %u extents of data beyond the new end, which would be "
                       "lost: say --yes",
                       rq->pool, rq->name, t.extents);
    if (t.used > SHRINK_SLOTS_MAX)
        return err_set(ERR_TOO_LARGE,
                       "%u extents would go, %u can at once: make it smaller in several steps",
                       t.used, SHRINK_SLOTS_MAX);
    *ret = record_new(d->pad, ZBS__METALOG__RECORD__KIND_VOLUME_SHRINK);
    (*ret)->volume_shrink = PAD_NEW(d->pad, Zbs__Metalog__VolumeShrink);
    zbs__metalog__volume_shrink__init((*ret)->volume_shrink);
    (*ret)->volume_shrink->volume_id = v->id;
    (*ret)->volume_shrink->size_bytes = rq->size_bytes;
    return 0;
}
