/* SPDX-License-Identifier: Apache-2.0
 *
 * Relatives: extents that share blocks with ours, are clean, and are where a replica of ours is to
 * be made (PROTOCOL 5.8). The replica begins there as a relative's child, and then lacks only what
 * differs: pages that both extents have in one place at a member, and at the replica as well, hold
 * the same there as here, whatever was written to the relative since. So nothing has to be
 * remembered: whoever goes on with the copy compares again. */
#include "access/vol/open.h"

#define RANGES_PER_CALL 256u
#define REFUSED_MAX     8u /* then everything is copied: that ends, too */

void relatives_read(struct slot *s, const Zbs__Meta__Grant *m)
{
    mem_free(s->kin);
    s->kin = NULL;
    if (m->n_relatives == 0)
        return;
    s->kin = MEM_NEW(struct relatives);
    for (size_t k = 0; k < m->n_relatives && k < RELATIVES_MAX; k++) {
        const Zbs__Meta__Relative *from = m->relatives[k];
        struct relative *r = &s->kin->all[s->kin->n++];

        r->extent_id = from->extent_id;
        r->epoch = from->epoch;
        for (size_t i = 0; i < from->n_members && r->n < MEMBERS_MAX; i++)
            r->members[r->n++] = from->members[i];
    }
}

static bool relative_is_at(const struct relative *r, const struct chunk *c)
{
    for (uint32_t i = 0; i < r->n; i++)
        if (r->members[i] == c->id)
            return true;
    return false;
}

const struct relative *relative_at(const struct tenure *t, uint32_t i, uint32_t from)
{
    for (uint32_t k = from; t->kin && k < t->kin->n; k++)
        if (relative_is_at(&t->kin->all[k], t->m[i].chunk))
            return &t->kin->all[k];
    return NULL;
}

/* ---- beginning as a copy ---- */

/* The replica does not take this relative, now or ever. */
static bool is_refusal(int rc)
{
    return rc == ERR_NO_REPLICA || rc == ERR_CORRUPT || rc == ERR_STALE || rc == ERR_INVAL ||
           rc == ERR_AGAIN || rc == ERR_TOO_LARGE;
}

int relative_copy(struct tenure *t, uint32_t i)
{
    struct slot *s = t->slot;
    const struct relative *r = relative_at(t, i, 0);

    while (r && s->kin_refused < REFUSED_MAX) {
        int rc = replica_create(t, i, r->extent_id, r->epoch);

        if (!is_refusal(rc)) {
            s->kin_refused = 0;
            return rc;
        }
        log_info("replica.kin_refused",
                 "extent=%" PRIu64 " chunk=%u origin=%" PRIu64 " error=%s \"%s\"", t->extent_id,
                 t->m[i].chunk->id, r->extent_id, err_name(rc), err_text(rc));
        if (rc == ERR_STALE || rc == ERR_INVAL || rc == ERR_AGAIN) {
            s->kin_refused++; /* it was opened since, or is not clean there yet */
            if (rc == ERR_AGAIN)
                recover_open(t->e, r->extent_id);
            return ERR_AGAIN;
        }
        r = relative_at(t, i, (uint32_t)(r - t->kin->all) + 1);
    }
    s->kin_refused = 0;
    return replica_create(t, i, 0, 0);
}

/* ---- the difference ---- */

/* Takes what differs at one replica out of the set, which are pages from `first` on. */
static int remove_differing(struct tenure *t, uint32_t i, const struct relative *r, uint32_t first,
                            uint32_t end, struct rangeset *same)
{
    Zbs__Chunk__DiffRequest req = ZBS__CHUNK__DIFF_REQUEST__INIT;
    bool more = true;
    int rc = 0;

    req.extent_id = t->extent_id;
    req.family = t->family;
    req.other_id = r->extent_id;
    req.max_ranges = RANGES_PER_CALL;
    for (req.from_page = first; rc == 0 && more && req.from_page < end;) {
        const Zbs__Chunk__DiffReply *a;
        struct rpc_reply reply;

        rpc_reply_init(&reply);
        rc = chunk_call(t->m[i].chunk, t->family, CHUNK_DIFF, &req.base, NULL, &reply,
                        t->e->member_deadline);
        a = (const Zbs__Chunk__DiffReply *)reply.msg;
        for (size_t k = 0; rc == 0 && k < a->n_ranges; k++)
            rangeset_remove(same, a->ranges[k]->first,
                            (uint64_t)a->ranges[k]->first + a->ranges[k]->count);
        more = rc == 0 && a->more;
        if (more && a->next_page <= req.from_page)
            rc = err_set(ERR_PROTO, "a difference goes on at page %u", a->next_page);
        else if (more)
            req.from_page = a->next_page;
        rpc_reply_free(&reply);
    }
    return rc;
}

/* A difference needs no open, so one that restarted and lost writes would answer, too (PROTOCOL
 * 2.5). */
static int open_check(struct tenure *t, uint32_t i)
{
    Zbs__Chunk__CheckEpochRequest req = ZBS__CHUNK__CHECK_EPOCH_REQUEST__INIT;
    struct rpc_reply r;
    int rc;

    req.extent_id = t->extent_id;
    req.family = t->family;
    req.epoch = t->epoch;
    rpc_reply_init(&r);
    rc = chunk_call(t->m[i].chunk, t->family, CHUNK_CHECK_EPOCH, &req.base, NULL, &r,
                    t->e->member_deadline);
    rpc_reply_free(&r);
    return rc;
}

/* A member to ask, which has the relative too; -1: none. */
static int source(const struct tenure *t, const struct relative *r)
{
    uint32_t members = tenure_readable(t);

    for (uint32_t i = 0; i < t->n; i++)
        if (members >> i & 1 && relative_is_at(r, t->m[i].chunk))
            return (int)i;
    return -1;
}

void relative_compare(struct tenure *t, uint32_t i, uint32_t first, uint32_t end)
{
    const struct relative *r = relative_at(t, i, 0);
    int from = r ? source(t, r) : -1;
    struct rangeset same;
    int rc;

    if (from < 0)
        return;
    rangeset_init(&same);
    rangeset_add(&same, first, end);
    rc = remove_differing(t, (uint32_t)from, r, first, end, &same);
    if (rc == 0)
        rc = remove_differing(t, i, r, first, end, &same);
    if (rc == 0)
        rc = open_check(t, (uint32_t)from);
    if (rc == 0)
        rc = open_check(t, i);
    if (rc == 0 && !t->lost)
        rangeset_remove_set(&t->m[i].stale, &same);
    rangeset_fini(&same);
}
