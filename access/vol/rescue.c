/* SPDX-License-Identifier: Apache-2.0
 *
 * Opening an extent of which one whole member is left, and meta does not let the lost ones go,
 * because too few would remain. All but one of them can go. An absent replica that is there takes
 * the place of the last one: it is made equal to the whole member, while nobody is served, and then
 * joins the set in the record that removes that one (PROTOCOL 5.2, 5.4, 5.5). The extent is opened
 * anew after each step, under a higher epoch. */
#include "access/vol/open.h"

#define AWAY_LONG (10 * NSEC_PER_SEC) /* a server that just starts anew is back sooner */

static bool is_there(const struct tenure *t, uint32_t i)
{
    return t->m[i].chunk->alive && !chunk_given_up(t->m[i].chunk);
}

static uint32_t candidates(const struct tenure *t)
{
    uint32_t found = 0;

    for (uint32_t i = 0; i < t->n; i++)
        if ((t->absent | t->joining) >> i & 1 && is_there(t, i))
            found |= 1u << i;
    return found;
}

/* Meta has not heard of its server for so long that it is not waited for where another can take its
 * place. */
static bool is_away(const struct tenure *t, uint32_t i)
{
    const struct chunk *c = t->m[i].chunk;

    return !c->alive && co_now() - MAX(c->alive_changed, t->e->session_since) >= AWAY_LONG;
}

static uint32_t away(const struct tenure *t, uint32_t lost)
{
    uint32_t found = 0;

    for (uint32_t i = 0; i < t->n; i++)
        if (lost >> i & 1 && is_away(t, i))
            found |= 1u << i;
    return found;
}

/* Of several that are whole pages may differ (2.4). */
static bool one_is_whole(const struct tenure *t, uint32_t lost)
{
    return __builtin_popcount(t->set & ~lost) == 1;
}

bool rescue_due(struct open_state *o)
{
    const struct tenure *t = o->t;
    uint32_t lost = t->set & ~t->open;

    /* One that may come back is waited for. */
    if (!o->created || (lost & ~(o->gone | away(t, lost))) || !one_is_whole(t, lost))
        return false;
    o->want_join |= candidates(t);
    return o->want_join || o->join || __builtin_popcount(lost) > 1;
}

bool rescue_possible(const struct tenure *t, uint32_t lost)
{
    uint32_t gone = 0;

    for (uint32_t i = 0; i < t->n; i++)
        if (lost >> i & 1 && t->m[i].everything)
            gone |= 1u << i;
    if ((lost & ~(gone | away(t, lost))) || !one_is_whole(t, lost))
        return false;
    /* Those that are only away may be back before anybody else, and until then there are reads. */
    return candidates(t) || (lost == gone && __builtin_popcount(lost) > 1);
}

/* All of the lost but one, which is the last to be there again. They are candidates then. */
static int remove_others(struct tenure *t)
{
    uint32_t keep = (uint32_t)__builtin_ctz(t->leaving);

    for (uint32_t i = 0; i < t->n; i++)
        if (t->leaving >> i & 1 && !is_there(t, i))
            keep = i;
    return leave_exchange(t, t->leaving & ~(1u << keep), 0);
}

static int rescue_one(struct tenure *t, uint32_t i)
{
    int rc;

    t->absent &= ~(1u << i);
    t->joining |= 1u << i;
    credits_recount(t);
    rc = join_unserved(t, i);
    if (rc == 0)
        rc = leave_exchange(t, t->leaving, 1u << i);
    if (rc < 0)
        member_give_up_join(t, i, err_text(rc));
    return rc;
}

int open_rescue(struct open_state *o)
{
    struct tenure *t = o->t;
    uint32_t lost = t->set & ~t->open;
    int rc;

    if (__builtin_popcount(lost) == 1 && !o->join)
        return ERR_AGAIN; /* nobody could be opened in its place */
    t->rescuing = true;
    t->leaving = lost;
    for (uint32_t i = 0; i < t->n; i++)
        if (t->leaving >> i & 1)
            o->n_info[i] = 0; /* what it keeps of others counts no more */
    open_compute_uncommitted(o);
    if (__builtin_popcount(lost) > 1) {
        rc = remove_others(t);
    } else {
        rc = open_missing_sets(o);
        for (uint32_t i = 0; i < t->n && rc == 0 && !t->adding && !t->lost; i++)
            if (o->join >> i & 1 && rescue_one(t, i) == 0)
                break; /* the others return as usual */
    }
    if (rc == ERR_CANCELED || co_canceled())
        return ERR_CANCELED;
    if (rc == ERR_REFUSED) {
        t->rescuing = false;
        t->leaving = t->asked = 0;
        return ERR_AGAIN;
    }
    return err_set(ERR_STALE, "the set has changed: a higher epoch is needed");
}
