/* SPDX-License-Identifier: Apache-2.0
 *
 * Placement: see place.h. */
#include "meta/place.h"

#include <string.h>
#include "common/base/assert.h"
#include "common/base/prng.h"
#include "common/base/units.h"
#include "meta/limits.h"

/* How different a further replica must be from those chosen; relaxed step by step. */
enum distance { BY_DOMAIN, BY_HOST, BY_SERVER, DISTANCES };

static const char *chunk_domain(const struct place_chunk *c, const char *failure_domain)
{
    if (strcmp(failure_domain, "zone") == 0)
        return c->zone;
    if (strcmp(failure_domain, "rack") == 0)
        return c->rack;
    return c->host;
}

/* An empty name says nothing: such servers count as apart. */
static bool same_place(const char *a, const char *b)
{
    return a[0] != 0 && strcmp(a, b) == 0;
}

static bool far_enough(const struct place_chunk *c, const struct place_chunk *other,
                       const char *failure_domain, enum distance distance)
{
    if (c->id == other->id)
        return false;
    if (distance == BY_DOMAIN)
        return !same_place(chunk_domain(c, failure_domain), chunk_domain(other, failure_domain)) &&
               !same_place(c->host, other->host);
    if (distance == BY_HOST)
        return !same_place(c->host, other->host);
    return true;
}

struct choice {
    const struct place_chunk *chunks;
    uint32_t n;
    const struct place_want *want;
    const struct place_chunk *chosen[SLOT_REPLICAS_MAX];
    uint32_t n_chosen;
    bool owed; /* any server may be chosen, else only one that can take data now */
    bool live_only;
    bool full;     /* full ones, too */
    bool kin;      /* only those that are preferred */
    uint64_t room; /* only those with so much free */
    struct prng prng;
};

static bool is_candidate(const struct choice *ch, const struct place_chunk *c,
                         enum distance distance, const char *host)
{
    if (c->leaving || c->gone || c->avoid || (c->full && !ch->full) || (ch->kin && !c->kin))
        return false;
    if (!ch->owed && (!c->alive || !c->heard || c->free_bytes == 0))
        return false;
    if (ch->live_only && (!c->alive || !c->heard || c->free_bytes == 0))
        return false;
    if (c->free_bytes < ch->room)
        return false;
    if (host != NULL && !same_place(c->host, host))
        return false;
    for (uint32_t i = 0; i < ch->n_chosen; i++) {
        if (!far_enough(c, ch->chosen[i], ch->want->failure_domain, distance))
            return false;
    }
    return true;
}

static uint64_t weight(const struct place_chunk *c)
{
    return c->free_bytes / MIB + 1;
}

/* One weighted draw among the candidates; NULL: there is none. */
static const struct place_chunk *draw(struct choice *ch, enum distance distance, const char *host)
{
    uint64_t sum = 0, at;

    for (uint32_t i = 0; i < ch->n; i++) {
        if (is_candidate(ch, &ch->chunks[i], distance, host))
            sum += weight(&ch->chunks[i]);
    }
    if (sum == 0)
        return NULL;
    at = prng_below(&ch->prng, sum);
    for (uint32_t i = 0; i < ch->n; i++) {
        if (!is_candidate(ch, &ch->chunks[i], distance, host))
            continue;
        if (at < weight(&ch->chunks[i]))
            return &ch->chunks[i];
        at -= weight(&ch->chunks[i]);
    }
    ASSERT(false);
    return NULL;
}

static bool choose_by_distance(struct choice *ch, const char *host)
{
    for (int distance = BY_DOMAIN; distance < DISTANCES; distance++) {
        const struct place_chunk *c;

        ch->kin = true;
        c = draw(ch, (enum distance)distance, host);
        ch->kin = false;
        if (c == NULL)
            c = draw(ch, (enum distance)distance, host);
        if (c != NULL) {
            ch->chosen[ch->n_chosen++] = c;
            return true;
        }
    }
    return false;
}

/* What is full will soon refuse writes: rather nearer than there, and nobody's copy goes there.
 * Rather nearer, too, than where the space can't be promised. */
static bool choose_one(struct choice *ch, const char *host)
{
    ch->full = false;
    ch->room = ch->want->room;
    if (choose_by_distance(ch, host))
        return true;
    ch->room = 0;
    if (ch->want->room > 0 && choose_by_distance(ch, host))
        return true;
    ch->full = host == NULL && !ch->live_only;
    return ch->full && choose_by_distance(ch, host);
}

uint32_t place_choose(const struct place_chunk *chunks, uint32_t n, const struct place_want *want,
                      uint32_t *ret_ids)
{
    struct choice ch = {.chunks = chunks, .n = n, .want = want};

    ASSERT(want->replicas <= SLOT_REPLICAS_MAX);
    prng_init(&ch.prng, want->seed);
    if (want->preferred_host[0] != 0)
        choose_one(&ch, want->preferred_host);
    while (ch.n_chosen < want->replicas && choose_one(&ch, NULL))
        ;
    for (uint32_t i = 0; i < ch.n_chosen; i++)
        ret_ids[i] = ch.chosen[i]->id;
    return ch.n_chosen;
}

uint32_t place_owed(const struct place_chunk *chunks, uint32_t n, const struct place_want *want,
                    const uint32_t *taken, uint32_t n_taken, uint32_t more, bool live_only,
                    uint32_t *ret_ids)
{
    struct choice ch = {
        .chunks = chunks, .n = n, .want = want, .owed = true, .live_only = live_only};
    uint32_t found = 0;

    ASSERT(n_taken + more <= SLOT_REPLICAS_MAX);
    prng_init(&ch.prng, want->seed);
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t k = 0; k < n_taken; k++) {
            if (chunks[i].id == taken[k])
                ch.chosen[ch.n_chosen++] = &chunks[i];
        }
    }
    while (found < more && choose_one(&ch, NULL))
        ret_ids[found++] = ch.chosen[ch.n_chosen - 1]->id;
    return found;
}
