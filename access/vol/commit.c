/* SPDX-License-Identifier: Apache-2.0
 *
 * The commit point: the version up to which every member has every write. It travels with the
 * next writes; when there are none, a sender tells it within a second, many extents to a request
 * (PROTOCOL 2.3). */
#include "access/vol/vol_int.h"

#define COMMIT_TICK  (300 * NSEC_PER_MSEC)
#define COMMIT_BATCH 128u

void commit_advance(struct tenure *t)
{
    for (;;) {
        struct op *op = LIST_FIRST(&t->ops, struct op, link);

        if (!op || !op->done)
            break;
        list_del(&op->link);
        op->in_list = false;
        /* While it is being opened, only its end may move the commit point (2.4). */
        if (t->serving) {
            ASSERT(ver_cmp(t->cp, (struct ver){t->epoch, op->gen}) < 0);
            t->cp = (struct ver){t->epoch, op->gen};
        }
        op_put(op);
    }
    commit_note_dirty(t);
}

void commit_note_dirty(struct tenure *t)
{
    if (t->serving && !t->lost && !list_linked(&t->dirty_link))
        list_push_back(&t->e->dirty, &t->dirty_link);
}

/* A joining replica confirms whatever lies at or below its commit point without looking, so it
 * must not cover a copy that is on its way. Writes of ours are never covered before they are
 * done, and what it had before its return is in the missing sets by now (PROTOCOL 5.4). */
struct ver commit_for(const struct tenure *t, uint32_t i)
{
    const struct member *m = &t->m[i];
    struct ver cp = t->cp;

    if (!(t->joining >> i & 1) || cp.epoch < t->epoch)
        return cp;
    for (uint32_t k = 0; k < COPY_WINDOW; k++)
        if (m->copy_gens[k] && m->copy_gens[k] <= cp.gen)
            cp.gen = m->copy_gens[k] - 1;
    return cp;
}

/* Is it known to be logged, so that it lacks nothing that another member has? */
static bool may_vouch(const struct tenure *t, uint32_t i)
{
    return (t->set & ~t->adding & ~t->leaving) >> i & 1;
}

bool commit_owed(const struct tenure *t, uint32_t i)
{
    const struct member *m = &t->m[i];

    return ver_cmp(m->cp_sent, commit_for(t, i)) < 0 || (may_vouch(t, i) && !m->vouched);
}

void commit_item_fill(struct commit_item *it, const struct tenure *t, uint32_t i)
{
    struct ver cp = commit_for(t, i);

    zbs__chunk__commit_point_item__init(&it->msg);
    zbs__version__init(&it->cp);
    it->cp.epoch = cp.epoch;
    it->cp.gen = cp.gen;
    it->msg.extent_id = t->extent_id;
    it->msg.family = t->family;
    it->msg.epoch = t->epoch;
    it->msg.commit_point = &it->cp;
    it->msg.vouch = may_vouch(t, i);
}

void commit_item_confirmed(const struct commit_item *it, struct tenure *t, uint32_t i)
{
    struct member *m = &t->m[i];

    m->cp_sent = ver_max(m->cp_sent, ver_of(&it->cp));
    m->vouched |= it->msg.vouch;
}

/* Replicas that should be told. */
static bool wants_commit(const struct tenure *t, uint32_t i)
{
    return t->serving && (((t->set & ~t->leaving) | t->joining) & t->open) >> i & 1 &&
           commit_owed(t, i);
}

struct commit_batch {
    struct chunk *chunk;
    struct tenure *t[COMMIT_BATCH]; /* references */
    uint32_t i[COMMIT_BATCH];
    struct commit_item items[COMMIT_BATCH];
    uint32_t n;
    nsec_t limit; /* of a call */
};

static void commit_batch_add(struct commit_batch *b, struct tenure *t, uint32_t i)
{
    b->t[b->n] = tenure_get(t);
    b->i[b->n] = i;
    commit_item_fill(&b->items[b->n++], t, i);
}

static int commit_call(struct commit_batch *b, uint32_t from, uint32_t n)
{
    Zbs__Chunk__CommitPointRequest req = ZBS__CHUNK__COMMIT_POINT_REQUEST__INIT;
    Zbs__Chunk__CommitPointItem *ptrs[COMMIT_BATCH];
    struct rpc_reply r;
    int rc;

    for (uint32_t k = 0; k < n; k++)
        ptrs[k] = &b->items[from + k].msg;
    req.items = ptrs;
    req.n_items = n;
    rpc_reply_init(&r);
    rc =
        chunk_call(b->chunk, b->t[from]->family, CHUNK_COMMIT_POINT, &req.base, NULL, &r, b->limit);
    rpc_reply_free(&r);
    for (uint32_t k = from; rc == 0 && k < from + n; k++)
        commit_item_confirmed(&b->items[k], b->t[k], b->i[k]);
    if (n == 1 && rc == ERR_STALE)
        tenure_lose(b->t[from], "a member refused the commit point");
    if (n == 1 && rc == ERR_NOT_OPEN)
        b->t[from]->open &= ~(1u << b->i[from]);
    return rc;
}

static int commit_batch_send(void *arg)
{
    struct commit_batch *b = arg;
    int rc = commit_call(b, 0, b->n);

    /* One refused item refuses its batch: find it. */
    if (rc < 0 && rc != ERR_TIMEOUT && rc != ERR_CLOSED && rc != ERR_UNREACHABLE && b->n > 1)
        for (uint32_t k = 0; k < b->n; k++)
            (void)commit_call(b, k, 1);
    for (uint32_t k = 0; k < b->n; k++)
        tenure_put(b->t[k]);
    mem_free(b);
    return 0;
}

static bool any_of(struct volume *const *volumes, uint32_t n, const struct volume *v)
{
    uint32_t i = 0;

    while (i < n && volumes[i] != v)
        i++;
    return n == 0 || i < n;
}

/* One worker of a chunk server, and the volumes that it is told of; none: all. */
struct commit_to {
    struct chunk *c;
    uint32_t worker;
    struct volume *const *volumes;
    uint32_t n;
    nsec_t limit;
};

/* Sends what it should know. */
static void commit_worker(struct vol_engine *e, struct co_group *g, const struct commit_to *to)
{
    struct commit_batch *b = NULL;
    struct chunk *c = to->c;

    LIST_FOREACH (t, &e->dirty, struct tenure, dirty_link) {
        int i = tenure_member(t, c->id);

        if (i < 0 || !wants_commit(t, (uint32_t)i) ||
            extent_worker(t->family, c->workers) != to->worker ||
            !any_of(to->volumes, to->n, t->slot->vol))
            continue;
        if (!b) {
            b = MEM_NEW(struct commit_batch);
            b->chunk = c;
            b->limit = to->limit;
        }
        commit_batch_add(b, t, (uint32_t)i);
        if (b->n == COMMIT_BATCH) {
            co_spawn(g, "commit", commit_batch_send, b);
            b = NULL;
        }
    }
    if (b)
        co_spawn(g, "commit", commit_batch_send, b);
}

void commit_round(struct vol_engine *e, struct volume *const *volumes, uint32_t n, nsec_t limit)
{
    struct commit_to to = {.volumes = volumes, .n = n, .limit = limit};
    struct co_group g;

    co_group_init(&g);
    LIST_FOREACH (c, &e->chunks, struct chunk, link) {
        to.c = c;
        for (to.worker = 0; to.worker < c->workers; to.worker++)
            commit_worker(e, &g, &to);
    }
    (void)co_group_join(&g);
}

int commit_sender(void *arg)
{
    struct vol_engine *e = arg;

    while (co_sleep(COMMIT_TICK) == 0) {
        LIST_FOREACH_SAFE (t, &e->dirty, struct tenure, dirty_link) {
            bool wanted = false;

            for (uint32_t i = 0; i < t->n; i++)
                wanted |= wants_commit(t, i);
            if (!wanted)
                list_del(&t->dirty_link);
        }
        commit_round(e, NULL, 0, e->member_deadline);
    }
    return 0;
}

void commit_flush(struct tenure *t)
{
    for (uint32_t i = 0; i < t->n; i++) {
        struct commit_batch *b;

        if (!wants_commit(t, i))
            continue;
        b = MEM_NEW(struct commit_batch);
        b->chunk = t->m[i].chunk;
        b->limit = t->e->member_deadline;
        commit_batch_add(b, t, i);
        (void)commit_batch_send(b);
    }
}
