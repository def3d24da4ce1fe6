/* SPDX-License-Identifier: Apache-2.0
 *
 * A stream is a front that moves: everything before it has come. A request at the front moves it;
 * one a little ahead is remembered until what is missing has come. Any other request starts a
 * stream of its own, which is a mere candidate until its front has moved a few times. */
#include "chunk/stream.h"

#define WINDOW_PAGES_MIN 64u /* how far ahead a request may be: this, */
#define WINDOW_REQUESTS  8u  /* or so many of its own length */

struct span { /* whole pages; an end inside a page is not passed yet */
    uint32_t first, end;
};

static bool established(const struct stream *s)
{
    return s->hits >= STREAM_HITS;
}

static bool idle(const struct stream *s, nsec_t now)
{
    return s->last == 0 || now - s->last > STREAM_IDLE;
}

static bool came_early(const struct stream *s, struct span r)
{
    for (uint32_t i = 0; i < s->early; i++) {
        if (r.first < s->ahead[i].end && s->ahead[i].first < r.end)
            return true;
    }
    return false;
}

/* How far the request is ahead of the stream's front; UINT32_MAX if it is none of its. */
static uint32_t distance(const struct stream *s, struct span r, nsec_t now)
{
    uint32_t window = MAX(WINDOW_PAGES_MIN, WINDOW_REQUESTS * (r.end - r.first));

    if (idle(s, now) || r.first < s->next || r.first - s->next > window || came_early(s, r))
        return UINT32_MAX;
    return r.first - s->next;
}

/* The one to give up: one that is over, else the candidate that waited longest. Streams that are
 * established make way only if there is nothing else, so that random requests drive out none. */
static struct stream *victim(struct stream_set *set, nsec_t now)
{
    struct stream *best = NULL;

    for (uint32_t i = 0; i < STREAMS_MAX; i++) {
        struct stream *s = &set->s[i];
        bool weak = idle(s, now) || !established(s);
        bool best_weak = best != NULL && (idle(best, now) || !established(best));

        if (best == NULL || (weak && !best_weak) || (weak == best_weak && s->last < best->last))
            best = s;
    }
    return best;
}

/* The front reached `end`: what came early may move it on. */
static void advance(struct stream *s, uint32_t end)
{
    uint32_t i = 0;

    s->hits += end > s->next;
    s->next = end;
    while (i < s->early) {
        if (s->ahead[i].first > s->next) {
            i++;
            continue;
        }
        s->next = MAX(s->next, s->ahead[i].end);
        s->hits++;
        s->ahead[i] = s->ahead[--s->early];
        i = 0;
    }
}

int stream_note(struct stream_set *set, uint32_t off, uint32_t len, nsec_t now)
{
    struct span r = {off / PAGE_BYTES, (uint32_t)(((uint64_t)off + len) / PAGE_BYTES)};
    uint32_t nearest = UINT32_MAX;
    struct stream *s = NULL;

    for (uint32_t i = 0; i < STREAMS_MAX; i++) {
        uint32_t far = distance(&set->s[i], r, now);

        if (far < nearest) {
            nearest = far;
            s = &set->s[i];
        }
    }
    if (s == NULL || (nearest > 0 && s->early == STREAM_EARLY_MAX)) { /* unknown, or a jump */
        s = s != NULL ? s : victim(set, now);
        *s = (struct stream){.last = now, .next = r.end};
        return -1;
    }
    s->last = now;
    if (nearest == 0)
        advance(s, r.end);
    else
        s->ahead[s->early++] = (struct stream_early){r.first, r.end};
    return established(s) ? (int)(s - set->s) : -1;
}
