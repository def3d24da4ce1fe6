/* SPDX-License-Identifier: Apache-2.0
 *
 * Leases follow the I/O. The owner of a slot counts who uses it over a sliding window: itself, and
 * each session that forwards to it. When one other session does most of a slot's I/O, the owner
 * drains it, releases the lease, and answers NOT_OWNER with that session as the hint: so the other
 * finds itself named, and acquires.
 *
 * Two equal users never pass a lease to and fro: a user needs FOLLOW_PERCENT of a whole window, and
 * a new owner keeps a slot for FOLLOW_REST at least. Nothing is counted until somebody forwards, so
 * a slot with one user costs one comparison. */
#include "access/vol/vol_int.h"

#include <string.h>

#define FOLLOW_SPAN    (500 * NSEC_PER_MSEC)
#define FOLLOW_SPANS   6u  /* the window: 3 s */
#define FOLLOW_USERS   4u  /* counted apart; the least of them makes room for another */
#define FOLLOW_ENOUGH  60u /* I/Os in a window: below it a move is not worth its pause */
#define FOLLOW_PERCENT 80u
#define FOLLOW_REST    (5 * NSEC_PER_SEC)

struct follow_user {
    uint64_t session;
    uint32_t ios[FOLLOW_SPANS];
};

struct follow {
    nsec_t span_end;
    uint32_t span;                          /* where is counted now */
    uint32_t spans;                         /* complete ones since counting began */
    struct follow_user users[FOLLOW_USERS]; /* [0]: ourselves */
};

static uint32_t user_ios(const struct follow_user *u)
{
    uint32_t sum = 0;

    for (uint32_t k = 0; k < FOLLOW_SPANS; k++)
        sum += u->ios[k];
    return sum;
}

static struct follow_user *user_of(struct follow *f, uint64_t session)
{
    struct follow_user *least = &f->users[1];

    if (session == 0)
        return &f->users[0];
    for (uint32_t i = 1; i < FOLLOW_USERS; i++) {
        if (f->users[i].session == session)
            return &f->users[i];
        if (user_ios(&f->users[i]) < user_ios(least))
            least = &f->users[i];
    }
    *least = (struct follow_user){.session = session};
    return least;
}

/* Begins the span that `now` is in; spans without I/O pass empty. */
static void window_move(struct follow *f, nsec_t now)
{
    uint32_t passed = (uint32_t)MIN((now - f->span_end) / FOLLOW_SPAN + 1, (nsec_t)FOLLOW_SPANS);

    for (uint32_t k = 0; k < passed; k++) {
        f->span = (f->span + 1) % FOLLOW_SPANS;
        for (uint32_t i = 0; i < FOLLOW_USERS; i++)
            f->users[i].ios[f->span] = 0;
    }
    f->spans += passed;
    f->span_end = MAX(f->span_end + passed * FOLLOW_SPAN, now);
}

/* Who does most of it: another session, or 0. */
static uint64_t window_judge(const struct follow *f)
{
    uint64_t sum = 0, most = 0, session = 0;

    for (uint32_t i = 0; i < FOLLOW_USERS; i++) {
        uint32_t ios = user_ios(&f->users[i]);

        sum += ios;
        if (i > 0 && ios > most) {
            most = ios;
            session = f->users[i].session;
        }
    }
    return sum >= FOLLOW_ENOUGH && most * 100 >= sum * FOLLOW_PERCENT ? session : 0;
}

/* Ours long enough, and nothing under way that would begin anew at another owner. */
static bool slot_may_move(const struct slot *s, nsec_t now)
{
    const struct tenure *t = s->tenure;

    return now - s->owned_since >= FOLLOW_REST && !s->driving && !s->holding &&
           !(t && (t->joining || t->adding || t->leaving));
}

void follow_count(struct slot *s, uint64_t session)
{
    struct vol_engine *e = s->vol->e;
    struct follow *f = s->follow;
    nsec_t now = co_now();
    uint64_t to;

    if (!f) {
        f = s->follow = MEM_NEW(struct follow);
        f->span_end = now + FOLLOW_SPAN;
    }
    if (now >= f->span_end) {
        to = f->spans >= FOLLOW_SPANS ? window_judge(f) : 0;
        if (to && slot_may_move(s, now) && access_find(e, to)) {
            log_info("slot.follow", "volume=%" PRIu64 " slot=%u to=%s", s->vol->info.id, s->index,
                     access_find(e, to)->name);
            s->release_to = to;
            s->want_release = true;
            slot_kick(s);
        }
        window_move(f, now);
    }
    user_of(f, session)->ios[f->span]++;
}

void follow_forget(struct slot *s)
{
    mem_free(s->follow);
    s->follow = NULL;
    s->release_to = 0;
}
