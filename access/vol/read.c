/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading (PROTOCOL 4, 1.4, 1.5): from one member, the local one first; checked, failed over, and
 * answered only after we are known to have been the owner when the data had arrived. */
#include "access/vol/vol_int.h"

#include <string.h>

static int reply_check(uint32_t off, uint32_t len, const struct rpc_reply *r, struct buf *dst,
                       uint32_t dst_off, bool *ret_zero)
{
    const Zbs__Chunk__ReadReply *a = (const Zbs__Chunk__ReadReply *)r->msg;
    uint32_t pieces = page_pieces(off, len);
    uint32_t small[64];
    uint32_t *crc = small;
    int rc = 0;

    if (ret_zero)
        *ret_zero = a->zero;
    if (a->zero) {
        memset(dst->data + dst_off, 0, len);
        return 0;
    }
    if (r->payload_len != len || a->n_crc != pieces)
        return err_set(ERR_PROTO, "a read of %u bytes was answered with %u", len, r->payload_len);
    if (pieces > ARRAY_SIZE(small))
        crc = MEM_NEW_ARRAY(uint32_t, pieces);
    page_crcs(off, len, dst->data + dst_off, crc);
    if (memcmp(crc, a->crc, sizeof(*crc) * pieces) != 0 && !mutate(MUT_NO_CHECKSUM))
        rc = err_set(ERR_CORRUPT, "what arrived does not match its checksums");
    if (crc != small)
        mem_free(crc);
    return rc;
}

int chunk_read(struct chunk *c, const struct read_of *of, uint32_t off, uint32_t len,
               struct buf *dst, uint32_t dst_off, bool *ret_zero, nsec_t timeout)
{
    Zbs__Chunk__ReadRequest req = ZBS__CHUNK__READ_REQUEST__INIT;
    struct rpc_reply r;
    int rc;

    req.extent_id = of->extent_id;
    req.family = of->family;
    req.epoch = of->epoch;
    req.view_epoch = of->view_epoch;
    req.offset = off;
    req.length = len;
    rpc_reply_init(&r);
    r.dst = dst;
    r.dst_off = dst_off;
    r.dst_cap = len;
    rc = chunk_call(c, of->family, CHUNK_READ, &req.base, NULL, &r, timeout);
    if (rc == 0)
        rc = reply_check(off, len, &r, dst, dst_off, ret_zero);
    rpc_reply_free(&r);
    return rc;
}

int replica_read(struct tenure *t, uint32_t i, uint32_t off, uint32_t len, struct buf *dst,
                 uint32_t dst_off, bool *ret_zero, nsec_t timeout)
{
    struct read_of of = {.extent_id = t->extent_id, .family = t->family, .epoch = t->epoch};

    return chunk_read(t->m[i].chunk, &of, off, len, dst, dst_off, ret_zero, timeout);
}

static int choose(const struct tenure *t, uint32_t mask)
{
    int best = -1;
    uint64_t best_cost = 0;

    for (uint32_t i = 0; i < t->n; i++) {
        uint64_t cost = chunk_read_cost(t->m[i].chunk);

        if (!(mask >> i & 1))
            continue;
        if (best < 0 || cost < best_cost) {
            best = (int)i;
            best_cost = cost;
        }
    }
    return best;
}

static bool caller_done(int rc)
{
    return rc == ERR_CANCELED || (rc == ERR_TIMEOUT && co_now() >= co_deadline());
}

struct reading {
    struct tenure *t;
    bool for_client;
    uint32_t tried, bad;
    int bad_rc;
};

/* What a failed read says about its member. 0: go on with another. */
static int read_failed(struct reading *rd, uint32_t i, int rc)
{
    struct tenure *t = rd->t;
    uint32_t bit = 1u << i;

    switch (rc) {
    case ERR_STALE:
        tenure_lose(t, "a read was refused");
        return ERR_STALE;
    case ERR_NOT_OPEN:
        t->open &= ~bit;
        return 0;
    case ERR_NO_REPLICA:
        member_fail(t, i, true, "unknown there");
        break;
    case ERR_IO:
    case ERR_CORRUPT:
        log_warn("replica.read_error", "extent=%" PRIu64 " chunk=%u error=%s \"%s\"", t->extent_id,
                 t->m[i].chunk->id, err_name(rc), err_text(rc));
        rd->bad |= bit;
        rd->bad_rc = rc;
        break;
    default:
        break;
    }
    rd->tried |= bit;
    return 0;
}

/* No readable member is left to try: reopen one, or wait. */
static int read_retry(struct reading *rd, uint32_t except)
{
    struct tenure *t = rd->t;
    uint32_t members = t->set & ~t->adding & ~t->leaving & ~except;
    uint32_t closed = members & ~t->open & ~rd->tried;
    int rc;

    if (closed) {
        uint32_t i = (uint32_t)__builtin_ctz(closed);

        rc = member_reopen(t, i);
        if (rc == ERR_STALE || rc == ERR_CANCELED)
            return rc;
        if (rc < 0)
            rd->tried |= 1u << i;
        return 0;
    }
    if ((members & ~rd->bad) == 0 && (rd->bad || except))
        return rd->bad ? rd->bad_rc : err_set(ERR_IO, "no other replica is left to read from");
    rd->tried = rd->bad;
    return co_sleep(RETRY_PAUSE);
}

static int read_members(struct reading *rd, uint32_t except, uint32_t off, uint32_t len,
                        struct buf *dst, uint32_t dst_off, bool *ret_zero)
{
    struct tenure *t = rd->t;

    for (;;) {
        uint32_t mask = tenure_readable(t) & ~rd->tried & ~except;
        nsec_t timeout = t->e->member_deadline, sent;
        int i, rc;

        if (t->lost)
            return ERR_STALE;
        i = choose(t, mask);
        if (i < 0) {
            rc = read_retry(rd, except);
            if (rc < 0)
                return rc;
            continue;
        }
        if (mask & (mask - 1))
            timeout /= 2; /* there is another to turn to */
        sent = co_now();
        rc = replica_read(t, (uint32_t)i, off, len, dst, dst_off, ret_zero, timeout);
        if (rc == 0) {
            if (rd->for_client)
                pace_foreground(t->m[i].chunk, co_now() - sent);
            for (uint32_t k = 0; k < t->n && rd->bad; k++)
                if (rd->bad >> k & 1)
                    repair_start(t, k, off, len);
            return 0;
        }
        if (caller_done(rc))
            return rc;
        rc = read_failed(rd, (uint32_t)i, rc);
        if (rc < 0)
            return rc;
    }
}

int members_read(struct tenure *t, uint32_t except, uint32_t off, uint32_t len, struct buf *dst,
                 uint32_t dst_off, bool *ret_zero)
{
    struct reading rd = {.t = t};

    return read_members(&rd, except, off, len, dst, dst_off, ret_zero);
}

/* ---- are we the owner? ---- */

struct check {
    struct tenure *t;
    uint32_t i;
    int rc;
};

static int check_one(void *arg)
{
    struct check *c = arg;
    struct tenure *t = c->t;
    Zbs__Chunk__CheckEpochRequest req = ZBS__CHUNK__CHECK_EPOCH_REQUEST__INIT;
    struct rpc_reply r;

    req.extent_id = t->extent_id;
    req.family = t->family;
    req.epoch = t->epoch;
    rpc_reply_init(&r);
    c->rc = chunk_call(t->m[c->i].chunk, t->family, CHUNK_CHECK_EPOCH, &req.base, NULL, &r,
                       t->e->member_deadline / 2);
    rpc_reply_free(&r);
    if (c->rc == ERR_STALE)
        tenure_lose(t, "an epoch check was refused");
    if (c->rc == ERR_NOT_OPEN) {
        t->open &= ~(1u << c->i);
        if (member_reopen(t, c->i) == 0)
            c->rc = 0;
    }
    return 0;
}

/* One epoch check at every replica that may be in the logged set. True: all agreed. */
static bool epochs_checked(struct tenure *t)
{
    struct check checks[MEMBERS_MAX];
    struct co_group g;
    uint32_t mask = t->set;
    bool all = true;

    co_group_init(&g);
    for (uint32_t i = 0; i < t->n; i++) {
        if (!(mask >> i & 1))
            continue;
        checks[i] = (struct check){t, i, 0};
        co_spawn(&g, "check-epoch", check_one, &checks[i]);
    }
    (void)co_group_join(&g);
    for (uint32_t i = 0; i < t->n; i++)
        if (mask >> i & 1)
            all &= checks[i].rc == 0;
    return all && !t->lost && (t->set & ~mask) == 0;
}

int ownership_check(struct tenure *t)
{
    struct vol_engine *e = t->e;

    for (;;) {
        nsec_t former;
        int rc;

        if (t->lost)
            return ERR_STALE;
        if (LIKELY(lease_valid(e)) && t->session == e->session)
            return 0;
        if (epochs_checked(t))
            return 0;
        if (t->lost)
            return ERR_STALE;
        former = co_deadline_push(co_now() + IDLE_PAUSE);
        rc = co_cond_wait(&e->lease_changed);
        co_deadline_restore(former);
        if (caller_done(rc))
            return rc;
    }
}

int tenure_read(struct tenure *t, uint32_t off, uint32_t len, struct buf *dst, uint32_t dst_off)
{
    uint64_t start = ROUND_DOWN(off, PAGE_BYTES);
    uint64_t end = ROUND_UP((uint64_t)off + len, PAGE_BYTES);
    struct reading rd = {.t = t, .for_client = true};
    struct co_range range;
    int rc = co_range_acquire(&t->ranges, &range, start, end - start, false);

    if (rc < 0)
        return rc;
    rc = t->lost ? ERR_STALE : read_members(&rd, 0, off, len, dst, dst_off, NULL);
    if (rc == 0)
        rc = ownership_check(t);
    co_range_release(&t->ranges, &range);
    return rc;
}
