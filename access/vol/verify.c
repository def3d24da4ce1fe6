/* SPDX-License-Identifier: Apache-2.0
 *
 * Comparing the replicas of slots that we own, page by page, by their checksums, while I/O goes
 * on around the pages being compared. */
#include "access/vol/vol_int.h"

#define SLOTS_MAX      64u
#define MISMATCHES_MAX 100u
#define PAGES_AT_ONCE  2048u

struct verify {
    struct rpc_request *q;
    Zbs__Access__VerifyReply *reply;
    struct tenure *t;
    struct shared *shared; /* if not t */
    uint32_t slot;
};

struct digest {
    struct tenure *t;
    struct shared *shared;
    uint32_t i, first;
    struct rpc_reply r;
    int rc;
};

static int digest_check(const struct digest *d, int rc)
{
    if (rc == 0 && ((const Zbs__Chunk__DigestReply *)d->r.msg)->n_crc != PAGES_AT_ONCE)
        return err_set(ERR_PROTO, "a digest of another length");
    return rc;
}

static int digest_one(void *arg)
{
    struct digest *d = arg;
    Zbs__Chunk__DigestRequest req = ZBS__CHUNK__DIGEST_REQUEST__INIT;
    struct member_req q = {.method = CHUNK_DIGEST, .msg = &req.base, .stop_leaving = true};

    req.extent_id = d->t->extent_id;
    req.family = d->t->family;
    req.epoch = d->t->epoch;
    req.first_page = d->first;
    req.count = PAGES_AT_ONCE;
    req.verify = true;
    d->rc = digest_check(d, member_call(d->t, d->i, &q, &d->r));
    return 0;
}

/* Of a shared extent nobody is the owner: a server that does not answer stays a member. */
static int digest_shared(void *arg)
{
    struct digest *d = arg;
    struct shared *sh = d->shared;
    Zbs__Chunk__DigestRequest req = ZBS__CHUNK__DIGEST_REQUEST__INIT;

    req.extent_id = sh->extent_id;
    req.family = sh->family;
    req.first_page = d->first;
    req.count = PAGES_AT_ONCE;
    req.verify = true;
    d->rc = digest_check(d, chunk_call(sh->chunks[d->i], sh->family, CHUNK_DIGEST, &req.base, NULL,
                                       &d->r, 2 * sh->e->member_deadline));
    return 0;
}

static uint32_t member_id(const struct verify *v, uint32_t i)
{
    return v->t ? v->t->m[i].chunk->id : v->shared->chunks[i]->id;
}

static uint32_t member_count(const struct verify *v)
{
    return v->t ? v->t->n : v->shared->n;
}

static uint64_t extent_of(const struct verify *v)
{
    return v->t ? v->t->extent_id : v->shared->extent_id;
}

static void mismatch_add(struct verify *v, const struct digest *d, uint32_t mask, uint32_t page)
{
    Zbs__Access__VerifyReply *reply = v->reply;
    Zbs__Access__VerifyMismatch *m;

    if (reply->mismatch_count++ >= MISMATCHES_MAX)
        return;
    if (!reply->mismatches)
        reply->mismatches = rpc_alloc(v->q, sizeof(*reply->mismatches) * MISMATCHES_MAX);
    m = rpc_alloc(v->q, sizeof(*m));
    zbs__access__verify_mismatch__init(m);
    m->slot = v->slot;
    m->extent_id = extent_of(v);
    m->page = page;
    m->chunks = rpc_alloc(v->q, sizeof(*m->chunks) * MEMBERS_MAX);
    m->crc = rpc_alloc(v->q, sizeof(*m->crc) * MEMBERS_MAX);
    for (uint32_t i = 0; i < member_count(v); i++) {
        if (!(mask >> i & 1))
            continue;
        m->chunks[m->n_chunks++] = member_id(v, i);
        m->crc[m->n_crc++] = ((const Zbs__Chunk__DigestReply *)d[i].r.msg)->crc[page - d[i].first];
    }
    reply->mismatches[reply->n_mismatches++] = m;
    log_error("replica.mismatch", "extent=%" PRIu64 " page=%u", extent_of(v), page);
}

static void digests_compare(struct verify *v, const struct digest *d, uint32_t mask)
{
    uint32_t ref = (uint32_t)__builtin_ctz(mask);
    const Zbs__Chunk__DigestReply *a = (const Zbs__Chunk__DigestReply *)d[ref].r.msg;

    ASSERT(a != NULL);
    for (uint32_t p = 0; p < PAGES_AT_ONCE; p++) {
        bool same = true;

        for (uint32_t i = ref + 1; i < member_count(v); i++)
            if (mask >> i & 1)
                same &= ((const Zbs__Chunk__DigestReply *)d[i].r.msg)->crc[p] == a->crc[p];
        if (!same)
            mismatch_add(v, d, mask, d[ref].first + p);
    }
    v->reply->pages += PAGES_AT_ONCE;
}

/* One piece of the extent, quiet under the range lock. */
static int verify_piece(struct verify *v, uint32_t first)
{
    struct tenure *t = v->t;
    struct digest d[MEMBERS_MAX] = {0};
    struct co_range lock;
    struct co_group g;
    uint32_t mask;
    int rc = co_range_acquire(&t->ranges, &lock, (uint64_t)first * PAGE_BYTES,
                              (uint64_t)PAGES_AT_ONCE * PAGE_BYTES, true);

    if (rc < 0)
        return rc;
    mask = t->lost ? 0 : t->set & ~t->adding & ~t->leaving;
    co_group_init(&g);
    for (uint32_t i = 0; i < t->n; i++) {
        if (!(mask >> i & 1))
            continue;
        d[i] = (struct digest){.t = t, .i = i, .first = first};
        rpc_reply_init(&d[i].r);
        co_spawn(&g, "digest", digest_one, &d[i]);
    }
    (void)co_group_join(&g);
    rc = t->lost ? ERR_STALE : ownership_check(t);
    for (uint32_t i = 0; i < t->n && rc == 0; i++)
        if (mask >> i & 1 && d[i].rc < 0)
            rc = d[i].rc == ERR_NO_REPLICA ? ERR_STALE : d[i].rc;
    if (rc == 0 && mask)
        digests_compare(v, d, mask);
    for (uint32_t i = 0; i < t->n; i++)
        if (mask >> i & 1)
            rpc_reply_free(&d[i].r);
    co_range_release(&t->ranges, &lock);
    return rc;
}

static int verify_shared_piece(struct verify *v, uint32_t first)
{
    struct shared *sh = v->shared;
    struct digest d[MEMBERS_MAX] = {0};
    struct co_group g;
    int rc = 0;

    co_group_init(&g);
    for (uint32_t i = 0; i < sh->n; i++) {
        d[i] = (struct digest){.shared = sh, .i = i, .first = first};
        rpc_reply_init(&d[i].r);
        co_spawn(&g, "digest", digest_shared, &d[i]);
    }
    (void)co_group_join(&g);
    for (uint32_t i = 0; i < sh->n && rc == 0; i++) {
        shared_refused(sh, d[i].rc);
        rc = d[i].rc == ERR_AGAIN || d[i].rc == ERR_NO_REPLICA ? ERR_STALE : d[i].rc;
    }
    if (rc == 0)
        digests_compare(v, d, (1u << sh->n) - 1);
    for (uint32_t i = 0; i < sh->n; i++)
        rpc_reply_free(&d[i].r);
    return rc;
}

static int verify_shared(struct verify *v, uint32_t wanted)
{
    for (uint32_t first = 0; first < PAGES_PER_EXTENT; first += PAGES_AT_ONCE) {
        int rc = verify_shared_piece(v, first);

        if (rc < 0)
            return rc;
    }
    v->reply->extents++;
    v->reply->replicas += v->shared->n;
    v->reply->incomplete += v->shared->n < wanted;
    return 0;
}

static int verify_extent(struct verify *v)
{
    struct tenure *t = v->t;
    uint32_t members;

    for (uint32_t first = 0; first < PAGES_PER_EXTENT; first += PAGES_AT_ONCE) {
        int rc = verify_piece(v, first);

        if (rc < 0)
            return rc;
    }
    members = (uint32_t)__builtin_popcount(t->set & ~t->adding & ~t->leaving);
    v->reply->extents++;
    v->reply->replicas += members;
    v->reply->incomplete += members < t->slot->vol->info.replicas;
    return 0;
}

static int verify_slot(struct rpc_request *q, struct slot *s)
{
    struct verify v = {.q = q, .reply = (Zbs__Access__VerifyReply *)q->reply, .slot = s->index};
    uint64_t pages = v.reply->pages;

    if (s->shared)
        slot_shared_stale(s, s->shared); /* all members there are now */
    for (;;) {
        struct entry en;
        int rc = slot_enter(s, ENTER_READ, &en);

        if (rc == ERR_NOT_OWNER)
            return 0; /* its owner is asked about it */
        if (rc < 0 || (!en.t && !en.shared))
            return rc;
        v.t = en.t;
        v.shared = en.shared;
        rc = en.shared ? verify_shared(&v, s->vol->info.replicas) : verify_extent(&v);
        if (rc == ERR_STALE && en.shared)
            slot_shared_stale(s, en.shared);
        slot_leave(s, &en);
        if (rc != ERR_STALE)
            return rc;
        v.reply->pages = pages; /* once more, under the next tenure */
        rc = co_sleep(RETRY_PAUSE);
        if (rc < 0)
            return rc;
    }
}

int access_verify(struct rpc_request *q)
{
    struct vol_engine *e = q->ctx;
    const Zbs__Access__VerifyRequest *m = (const Zbs__Access__VerifyRequest *)q->msg;
    struct volume *vol;
    int rc;

    if (m->count > SLOTS_MAX)
        return err_set(ERR_INVAL, "%u slots at once: at most %u", m->count, SLOTS_MAX);
    rc = vol_object_get(e, m->volume_id, &vol);
    for (uint32_t k = 0; k < m->count && rc == 0; k++) {
        struct slot *s =
            m->first_slot <= UINT32_MAX - k ? vol_slot_at(vol, m->first_slot + k) : NULL;

        if (s)
            rc = verify_slot(q, s);
    }
    return rc;
}
