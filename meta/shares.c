/* SPDX-License-Identifier: Apache-2.0
 *
 * Shares of limits: see shares.h. What is divided is divided by need: who needs less than an equal
 * part gets what it needs, the others equal parts of the rest, and what nobody needs goes to all in
 * the same proportion. A share rises only by what others have given back, so the sum in force is
 * never above the limit, but for the time that an answer is on its way. */
#include "meta/shares.h"

#include "common/base/mem.h"
#include "meta/state_compare.h"

#define IDLE_PART   100u /* of a limit: kept for who reports, so that it can begin at once */
#define HEADROOM(n) ((n) + (n) / 32)

struct part {
    uint64_t need;  /* per second: bytes, or thousandths of I/Os */
    uint32_t share; /* in force, or answered */
};
struct user {
    uint64_t session;
    struct part ios, bytes;
};
struct limit {
    uint64_t volume_id;
    uint32_t pool_id;
    struct user *users;
    uint32_t n_users;
};

static int compare_limit(const void *item, const void *key)
{
    const struct limit *a = item, *b = key;

    return a->volume_id != b->volume_id ? compare_u64(a->volume_id, b->volume_id)
                                        : compare_u64(a->pool_id, b->pool_id);
}

static void limit_free(struct limit *l)
{
    mem_free(l->users);
    mem_free(l);
}

void shares_fini(struct shares *sh)
{
    for (uint32_t i = 0; i < sh->limits.count; i++)
        limit_free(sh->limits.items[i]);
    sorted_fini(&sh->limits);
}

static struct limit *limit_of(struct shares *sh, const Zbs__Meta__LimitDemand *m)
{
    struct limit key = {.volume_id = m->volume_id, .pool_id = m->volume_id ? 0 : m->pool_id};
    struct limit *l = sorted_find(&sh->limits, compare_limit, &key);

    if (l != NULL)
        return l;
    l = MEM_NEW(struct limit);
    *l = key;
    sorted_insert(&sh->limits, compare_limit, &key, l);
    return l;
}

static struct user *user_of(struct limit *l, uint64_t session)
{
    for (uint32_t i = 0; i < l->n_users; i++) {
        if (l->users[i].session == session)
            return &l->users[i];
    }
    l->users = mem_realloc(l->users, (l->n_users + 1) * sizeof(*l->users));
    l->users[l->n_users] = (struct user){.session = session};
    return &l->users[l->n_users++];
}

static void user_drop(struct limit *l, uint32_t at)
{
    l->users[at] = l->users[--l->n_users];
}

static struct part *part_of(struct user *u, bool bytes)
{
    return bytes ? &u->bytes : &u->ios;
}

/* The level up to which needs are met: by halving, because needs are no order of magnitude. */
static uint64_t fill_level(const struct limit *l, bool bytes, uint64_t limit)
{
    uint64_t low = 0, high = limit;

    while (low < high) {
        uint64_t level = low + (high - low + 1) / 2, sum = 0;

        for (uint32_t i = 0; i < l->n_users; i++)
            sum += MIN(part_of(&l->users[i], bytes)->need, level);
        if (sum <= limit)
            low = level;
        else
            high = level - 1;
    }
    return low;
}

/* Of one user, in millionths, as if all began anew. */
static uint32_t fair_share(const struct limit *l, const struct part *p, bool bytes, uint64_t limit)
{
    uint64_t level = fill_level(l, bytes, limit), sum = 0;

    for (uint32_t i = 0; i < l->n_users; i++)
        sum += MIN(part_of(&l->users[i], bytes)->need, level);
    return (uint32_t)((double)MIN(p->need, level) * SHARE_WHOLE / (double)MAX(sum, 1u));
}

static uint32_t part_answer(struct limit *l, struct user *u, bool bytes, uint64_t limit,
                            bool may_raise)
{
    struct part *p = part_of(u, bytes);
    uint32_t others = 0, share;

    if (limit == 0)
        return p->share = SHARE_WHOLE;
    p->need = MIN(MAX(HEADROOM(p->need), limit / IDLE_PART), limit);
    for (uint32_t i = 0; i < l->n_users; i++) {
        if (&l->users[i] != u)
            others += part_of(&l->users[i], bytes)->share;
    }
    share = MIN(fair_share(l, p, bytes, limit), SHARE_WHOLE - MIN(others, SHARE_WHOLE));
    if (!may_raise)
        share = MIN(share, p->share);
    return p->share = share;
}

static const Zbs__Meta__Limits *limits_now(const struct state *st, const struct limit *l)
{
    const struct volume *v = l->volume_id ? state_volume(st, l->volume_id) : NULL;
    const struct pool *pool = l->volume_id ? NULL : state_pool_by_id(st, l->pool_id);

    if (v != NULL && !v->removed)
        return &v->limits;
    return pool != NULL ? &pool->limits : NULL;
}

/* Sessions that have ended, and this one where it names a limit no more, hold nothing. */
static void shares_trim(struct shares *sh, const struct state *st, uint64_t session,
                        const Zbs__Meta__SessionRenewRequest *rq)
{
    for (uint32_t i = 0; i < sh->limits.count; i++) {
        struct limit *l = sh->limits.items[i];
        bool named = false;

        for (size_t k = 0; k < rq->n_demands && !named; k++)
            named = l->volume_id
                        ? rq->demands[k]->volume_id == l->volume_id
                        : rq->demands[k]->volume_id == 0 && rq->demands[k]->pool_id == l->pool_id;
        for (uint32_t k = l->n_users; k-- > 0;) {
            uint64_t id = l->users[k].session;

            if ((id == session && !named) || state_session(st, id) == NULL)
                user_drop(l, k);
        }
        if (l->n_users == 0)
            limit_free(sorted_remove_at(&sh->limits, i--));
    }
}

void shares_fill(struct shares *sh, const struct state *st, uint64_t session, bool may_raise,
                 const Zbs__Meta__SessionRenewRequest *rq, struct pad *pad,
                 Zbs__Meta__SessionRenewReply *m)
{
    shares_trim(sh, st, session, rq);
    if (rq->n_demands == 0)
        return;
    m->shares = PAD_NEW_ARRAY(pad, Zbs__Meta__LimitShare *, rq->n_demands);
    for (size_t i = 0; i < rq->n_demands; i++) {
        const Zbs__Meta__LimitDemand *need = rq->demands[i];
        struct limit *l = limit_of(sh, need);
        const Zbs__Meta__Limits *now = limits_now(st, l);
        struct user *u = user_of(l, session);
        Zbs__Meta__LimitShare *s;

        if (now == NULL)
            continue;
        u->ios = (struct part){need->milli_iops, need->iops_share};
        u->bytes = (struct part){need->bandwidth, need->bandwidth_share};
        s = m->shares[m->n_shares++] = PAD_NEW(pad, Zbs__Meta__LimitShare);
        zbs__meta__limit_share__init(s);
        s->volume_id = need->volume_id;
        s->pool_id = need->pool_id;
        s->iops_share = part_answer(l, u, false, now->iops * 1000, may_raise);
        s->bandwidth_share = part_answer(l, u, true, now->bandwidth, may_raise);
    }
}
