/* SPDX-License-Identifier: Apache-2.0
 *
 * Reservations among access servers (PROTOCOL 8.3): meta's renewals say which volumes' records
 * have changed, ours say up to where we obey them, and theirs again up to where everybody does.
 * What the records mean is the front end's affair: it judges the commands of its own clients. What
 * another access server judged and forwarded may have been on its way for long, so it says up to
 * where that obeyed the records then, and is refused if the volume's has changed since. */
#include "access/vol/vol_int.h"

#include <string.h>

#define OBEY_PAUSE (50 * NSEC_PER_MSEC) /* before the front end is asked again */

struct news {
    struct vol_engine *e;
    uint64_t version;
    size_t n;
    uint64_t volumes[];
};

/* The latest record that we obey, of a volume that ever had one while we ran. */
struct reserved {
    struct htab_node node; /* by volume */
    uint64_t version;
};

void reservations_init(struct vol_engine *e)
{
    htab_init(&e->reserved);
    list_init(&e->forwards);
    co_cond_init(&e->forward_less);
}

void reservations_fini(struct vol_engine *e)
{
    ASSERT(list_empty(&e->forwards));
    HTAB_FOREACH (r, &e->reserved, struct reserved, node) {
        htab_remove(&e->reserved, &r->node);
        mem_free(r);
    }
    htab_fini(&e->reserved);
}

static void reserved_set(struct vol_engine *e, uint64_t volume_id, uint64_t version)
{
    struct reserved *r = HTAB_FIND(&e->reserved, volume_id, struct reserved, node);

    if (!r) {
        r = MEM_NEW(struct reserved);
        htab_insert(&e->reserved, &r->node, volume_id);
    }
    r->version = version;
}

int reservations_check(const struct io *io)
{
    const struct volume *v = io->slot->vol;
    const struct reserved *r;

    if (LIKELY(!io->forwarded || v->e->reserved.count == 0))
        return 0;
    r = HTAB_FIND(&v->e->reserved, v->info.id, struct reserved, node);
    if (!r || io->reservations >= r->version)
        return 0;
    return err_set(ERR_REFUSED, "the reservations of volume %" PRIu64 " were changed meanwhile",
                   v->info.id);
}

void reservations_forward_begin(struct io *io)
{
    list_push_back(&io->slot->vol->e->forwards, &io->forward);
}

void reservations_forward_end(struct io *io)
{
    list_del(&io->forward);
    co_cond_broadcast(&io->slot->vol->e->forward_less);
}

/* Some forwarded I/O that began before, and would not begin now? */
static bool forwards_undrained(struct vol_engine *e)
{
    LIST_FOREACH (io, &e->forwards, struct io, forward)
        if (reservations_check(io) < 0)
            return true;
    return false;
}

static int forwards_obey(struct vol_engine *e, const struct news *n)
{
    int rc = 0;

    for (size_t i = 0; i < n->n; i++)
        reserved_set(e, n->volumes[i], n->version);
    while (rc == 0 && forwards_undrained(e))
        rc = co_cond_wait(&e->forward_less);
    return rc;
}

static int news_main(void *arg)
{
    struct news *n = arg;
    struct vol_engine *e = n->e;
    int rc = -1;

    while (rc < 0 && !co_canceled()) {
        rc = e->reservations_changed ? e->reservations_changed(e->arg, n->volumes, n->n) : 0;
        if (rc < 0)
            (void)co_sleep(OBEY_PAUSE);
    }
    if (rc == 0)
        rc = forwards_obey(e, n);
    if (rc == 0) {
        e->reservations_seen = MAX(e->reservations_seen, n->version);
        meta_session_renew_now(e);
        co_cond_broadcast(&e->lease_changed);
    }
    e->reservations_busy = false;
    mem_free(n);
    return 0;
}

void reservations_renewed(struct vol_engine *e, const Zbs__Meta__SessionRenewReply *a)
{
    size_t n = a->n_reservations_changed;
    struct news *news;

    if (a->reservations_settled > e->reservations_settled) {
        e->reservations_settled = a->reservations_settled;
        co_cond_broadcast(&e->lease_changed);
    }
    /* One piece of news at a time: what comes meanwhile is told again by the next renewal. */
    if (a->reservations_version <= e->reservations_seen || e->reservations_busy)
        return;
    e->reservations_busy = true;
    news = mem_alloc(sizeof(*news) + n * sizeof(news->volumes[0]));
    news->e = e;
    news->version = a->reservations_version;
    news->n = n;
    if (n > 0)
        memcpy(news->volumes, a->reservations_changed, n * sizeof(news->volumes[0]));
    co_spawn_detached_deadline(&e->bg, "reservations", news_main, news);
}

#define SETTLE_LOOK (20 * NSEC_PER_MSEC) /* renewals of who waits for the others */

int vol_engine_reservations_settled(struct vol_engine *e, uint64_t version)
{
    uint64_t session = e->session;

    while (MIN(e->reservations_settled, e->reservations_seen) < version) {
        nsec_t former;
        int rc;

        if (e->stopping || !session || e->session != session)
            return err_set(ERR_EXPIRED, "the session with meta ended");
        meta_session_renew_now(e);
        former = co_deadline_push(co_now() + SETTLE_LOOK);
        rc = co_cond_wait(&e->lease_changed);
        co_deadline_restore(former);
        if (rc < 0 && (rc != ERR_TIMEOUT || co_now() >= co_deadline()))
            return rc;
    }
    return 0;
}

int vol_engine_lease_wait(struct vol_engine *e)
{
    uint64_t session = e->session;

    while (UNLIKELY(!lease_valid(e))) {
        int rc = lease_change_wait(e, &session);

        if (rc < 0)
            return rc;
    }
    return 0;
}
