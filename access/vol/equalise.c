/* SPDX-License-Identifier: Apache-2.0
 *
 * Pages that may differ between the members after an owner died are made equal before anyone is
 * served (PROTOCOL 2.4): the highest version wins, by ordinary writes at the new epoch. */
#include "access/vol/open.h"

#include <string.h>

#define PIECE_PAGES 64u
#define AT_ONCE     8u

void uncommitted_free(struct uncommitted *u)
{
    rangeset_fini(&u->pages);
    mem_free(u->vers);
    u->vers = NULL;
}

struct ver open_commit_point(const struct open_state *o)
{
    const struct tenure *t = o->t;
    struct ver cp = {0, 0};

    for (uint32_t i = 0; i < t->n; i++)
        if ((t->set & t->open & ~t->leaving) >> i & 1)
            cp = ver_max(cp, o->reported_cp[i]);
    return cp;
}

/* Position of a page among the set's pages. */
static uint64_t rank_of(const struct rangeset *s, uint64_t page)
{
    uint64_t rank = 0;

    for (size_t k = 0; k < rangeset_count(s); k++) {
        const struct range *r = &s->ranges.data[k];

        if (page < r->end)
            return rank + page - r->start;
        rank += r->end - r->start;
    }
    ASSERTF(false, "page %" PRIu64 " is not in the set", page);
    return 0;
}

void open_compute_uncommitted(struct open_state *o)
{
    struct tenure *t = o->t;
    struct uncommitted *u = &t->unc;
    struct ver cp = open_commit_point(o);
    uint32_t from = t->set & t->open & ~t->leaving;

    uncommitted_free(u);
    rangeset_init(&u->pages);
    for (uint32_t i = 0; i < t->n; i++)
        for (uint32_t k = 0; (from >> i & 1) && k < o->n_unc[i]; k++)
            if (ver_cmp(o->unc[i][k].ver, cp) > 0)
                rangeset_add(&u->pages, o->unc[i][k].first,
                             o->unc[i][k].first + o->unc[i][k].count);
    if (rangeset_empty(&u->pages))
        return;
    u->vers = MEM_NEW_ARRAY(struct ver, rangeset_total(&u->pages) * t->n);
    for (uint32_t i = 0; i < t->n; i++) {
        for (uint32_t k = 0; (from >> i & 1) && k < o->n_unc[i]; k++) {
            const struct confirmed *c = &o->unc[i][k];
            struct ver *v;

            if (ver_cmp(c->ver, cp) <= 0)
                continue;
            v = &u->vers[i * rangeset_total(&u->pages) + rank_of(&u->pages, c->first)];
            for (uint32_t p = 0; p < c->count; p++)
                v[p] = ver_max(v[p], c->ver);
        }
    }
}

/* The member with the highest version of a page, and whether all have that one. */
static uint32_t best_of(const struct tenure *t, uint64_t rank, uint32_t except, bool *ret_equal)
{
    const struct uncommitted *u = &t->unc;
    uint64_t total = rangeset_total(&u->pages);
    uint32_t members = t->set & ~t->leaving & t->open;
    uint32_t best = MEMBERS_MAX;

    *ret_equal = true;
    for (uint32_t i = 0; i < t->n; i++) {
        struct ver v = u->vers[i * total + rank];

        if (!(members >> i & 1))
            continue;
        if (best < MEMBERS_MAX && ver_cmp(v, u->vers[best * total + rank]) != 0)
            *ret_equal = false;
        if (!(except >> i & 1) &&
            (best == MEMBERS_MAX || ver_cmp(v, u->vers[best * total + rank]) > 0))
            best = i;
    }
    return best;
}

struct piece {
    uint32_t first, count;
    uint64_t rank;
};

/* Whom to read a piece from: a member with its highest version. If that can't be read there, nor
 * from another that has it, then what a member without it has: some lack it, so it was never
 * acknowledged. MEMBERS_MAX: nobody is left. */
static uint32_t piece_source(const struct tenure *t, const struct piece *p, uint32_t unreadable)
{
    bool equal;
    uint32_t i = best_of(t, p->rank, unreadable, &equal);

    return i < MEMBERS_MAX ? i : best_of(t, p->rank, 0, &equal);
}

static int piece_read(struct tenure *t, const struct piece *p, struct buf *b, bool *ret_zero)
{
    nsec_t since = co_now();
    uint32_t once = 0, unreadable = 0;

    for (;;) {
        uint32_t i = piece_source(t, p, unreadable);
        int rc;

        if (t->lost)
            return ERR_STALE;
        if (i == MEMBERS_MAX)
            return ERR_AGAIN; /* all are leaving */
        rc = replica_read(t, i, p->first * PAGE_BYTES, p->count * PAGE_BYTES, b, 0, ret_zero,
                          t->e->member_deadline);
        if (rc == 0 || rc == ERR_CANCELED)
            return rc;
        if (rc == ERR_STALE) {
            tenure_lose(t, "refused while equalising");
        } else if (rc == ERR_NOT_OPEN) {
            t->open &= ~(1u << i);
            return ERR_AGAIN; /* it restarted: its versions are asked anew */
        } else if (rc == ERR_NO_REPLICA || (is_unread(rc) && unreadable >> i & 1)) {
            member_fail(t, i, true, "its latest pages cannot be read");
        } else if (is_unread(rc)) { /* once it may have been damaged on its way */
            unreadable |= once & 1u << i;
            once |= 1u << i;
        } else if (co_now() - since >= t->e->member_deadline) {
            member_fail(t, i, false, "silent while equalising");
        }
        if (t->leaving >> i & 1)
            return ERR_AGAIN;
        rc = co_sleep(RETRY_PAUSE);
        if (rc < 0)
            return rc;
    }
}

static int piece_send(struct tenure *t, const struct piece *p, struct op **ret)
{
    uint32_t off = p->first * PAGE_BYTES, len = p->count * PAGE_BYTES;
    struct buf *b = buf_alloc(len);
    struct slice data = {b, 0, len};
    bool zero = false;
    int rc = piece_read(t, p, b, &zero);

    if (rc == 0) {
        struct op *op = zero ? op_new(t, ZBS__CHUNK__WRITE_KIND__WRITE_ZERO, off, len, NULL)
                             : op_new(t, ZBS__CHUNK__WRITE_KIND__WRITE_DATA, off, len, &data);

        rc = op_lock(op);
        if (rc == 0 && !zero && credits_ensure(t, off, len) == ERR_STALE)
            rc = ERR_STALE; /* without credits it is tried all the same: it must be */
        if (rc == 0 && !t->lost) {
            op_send(op);
            *ret = op;
        } else {
            op_put(op);
            rc = t->lost ? ERR_STALE : rc;
        }
    }
    buf_put(b);
    return rc;
}

static int ops_wait(struct op **ops, uint32_t *n)
{
    int rc = 0;

    while (*n > 0) {
        struct op *op = ops[--*n];
        int op_rc = op_wait(op);

        op_put(op);
        rc = rc < 0 ? rc : op_rc;
    }
    return rc;
}

/* The next run of pages that differ and have the same best member. */
static bool piece_next(const struct tenure *t, uint64_t *at, struct piece *ret)
{
    const struct rangeset *s = &t->unc.pages;
    struct range r;

    while (rangeset_next(s, *at, &r)) {
        uint64_t rank = rank_of(s, r.start);
        bool equal;
        uint32_t best = best_of(t, rank, 0, &equal);
        uint32_t n = 1;

        *at = r.start + 1;
        if (equal)
            continue;
        while (n < PIECE_PAGES && r.start + n < r.end && best_of(t, rank + n, 0, &equal) == best &&
               !equal)
            n++;
        *at = r.start + n;
        *ret = (struct piece){(uint32_t)r.start, n, rank};
        return true;
    }
    return false;
}

int open_equalise(struct open_state *o)
{
    struct tenure *t = o->t;
    struct op *ops[AT_ONCE];
    uint32_t n = 0;
    uint64_t at = 0;
    struct piece p;
    int rc = 0, wait_rc;

    if (mutate(MUT_NO_EQUALISE))
        return 0;
    while (rc == 0 && piece_next(t, &at, &p)) {
        rc = piece_send(t, &p, &ops[n]);
        if (rc == 0 && ++n == AT_ONCE)
            rc = ops_wait(ops, &n);
    }
    wait_rc = ops_wait(ops, &n);
    return rc < 0 ? rc : wait_rc;
}
