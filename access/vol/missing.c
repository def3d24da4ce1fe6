/* SPDX-License-Identifier: Apache-2.0
 *
 * Missing sets as the owner handles them (PROTOCOL 5.1): the members keep them durably; at an
 * open the owner makes them equal and widens them by what may have been written last. */
#include "access/vol/open.h"

#define RANGES_PER_CALL 1000u

/* ---- calls ---- */

static int missing_start_piece(struct tenure *t, uint32_t at, uint32_t replica, struct ver last,
                               const struct range *ranges, uint32_t n, bool everything)
{
    Zbs__Chunk__MissingStartRequest req = ZBS__CHUNK__MISSING_START_REQUEST__INIT;
    Zbs__Chunk__MissingStartItem item = ZBS__CHUNK__MISSING_START_ITEM__INIT;
    Zbs__Chunk__MissingStartItem *items[] = {&item};
    Zbs__Version v = ZBS__VERSION__INIT;
    Zbs__PageRange *pages = MEM_NEW_ARRAY(Zbs__PageRange, MAX(n, 1u));
    Zbs__PageRange **ptrs = MEM_NEW_ARRAY(Zbs__PageRange *, MAX(n, 1u));
    struct member_req q = {.method = CHUNK_MISSING_START, .msg = &req.base, .stop_leaving = true};
    int rc;

    for (uint32_t k = 0; k < n; k++) {
        zbs__page_range__init(&pages[k]);
        pages[k].first = (uint32_t)ranges[k].start;
        pages[k].count = (uint32_t)(ranges[k].end - ranges[k].start);
        ptrs[k] = &pages[k];
    }
    v.epoch = last.epoch;
    v.gen = last.gen;
    item.replica = replica;
    item.last_version = &v;
    item.ranges = ptrs;
    item.n_ranges = n;
    item.everything = everything;
    req.extent_id = t->extent_id;
    req.family = t->family;
    req.epoch = t->epoch;
    req.items = items;
    req.n_items = 1;
    rc = members_call(t, at, &q);
    mem_free(ptrs);
    mem_free(pages);
    return rc;
}

int mset_start(struct tenure *t, uint32_t at, uint32_t replica, struct ver last,
               const struct rangeset *pages, bool everything)
{
    size_t count = everything || !pages ? 0 : rangeset_count(pages);
    size_t done = 0;
    int rc;

    do {
        uint32_t n = (uint32_t)MIN(count - done, RANGES_PER_CALL);
        const struct range *from = n ? pages->ranges.data + done : NULL;

        rc = missing_start_piece(t, at, replica, last, from, n, everything);
        done += n;
    } while (rc == 0 && done < count);
    return rc;
}

int mset_drop(struct tenure *t, uint32_t at, uint32_t replica)
{
    Zbs__Chunk__MissingUpdateRequest req = ZBS__CHUNK__MISSING_UPDATE_REQUEST__INIT;
    struct member_req q = {.method = CHUNK_MISSING_UPDATE, .msg = &req.base, .stop_leaving = true};

    req.extent_id = t->extent_id;
    req.family = t->family;
    req.epoch = t->epoch;
    req.replica = replica;
    req.drop = true;
    return members_call(t, at, &q);
}

static int missing_fetch_piece(struct tenure *t, uint32_t i, uint32_t replica, uint32_t *from,
                               struct rangeset *ret, struct ver *ret_last, bool *ret_known)
{
    Zbs__Chunk__MissingGetRequest req = ZBS__CHUNK__MISSING_GET_REQUEST__INIT;
    struct member_req q = {.method = CHUNK_MISSING_GET, .msg = &req.base, .stop_leaving = true};
    const Zbs__Chunk__MissingGetReply *a;
    struct rpc_reply r;
    int rc;

    req.extent_id = t->extent_id;
    req.family = t->family;
    req.epoch = t->epoch;
    req.replica = replica;
    req.from_page = *from;
    req.max_ranges = RANGES_PER_CALL;
    rpc_reply_init(&r);
    rc = member_call(t, i, &q, &r);
    if (rc < 0)
        goto out;
    a = (const Zbs__Chunk__MissingGetReply *)r.msg;
    *ret_known = a->known;
    *ret_last = ver_max(*ret_last, ver_of(a->last_version));
    for (size_t k = 0; k < a->n_ranges; k++) {
        const Zbs__PageRange *p = a->ranges[k];

        if (p->first < *from || p->count == 0 || p->first >= PAGES_PER_EXTENT ||
            p->count > PAGES_PER_EXTENT - p->first) {
            rc = err_set(ERR_PROTO, "a missing set with pages %u+%u", p->first, p->count);
            goto out;
        }
        rangeset_add(ret, p->first, p->first + p->count);
        *from = p->first + p->count;
    }
    if (!a->more || a->n_ranges == 0)
        *from = PAGES_PER_EXTENT;
out:
    rpc_reply_free(&r);
    return rc;
}

int mset_fetch(struct tenure *t, uint32_t i, uint32_t replica, struct rangeset *ret,
               struct ver *ret_last, bool *ret_known)
{
    uint32_t from = 0;

    *ret_known = false;
    while (from < PAGES_PER_EXTENT) {
        int rc = missing_fetch_piece(t, i, replica, &from, ret, ret_last, ret_known);

        if (rc < 0)
            return rc;
    }
    return 0;
}

/* ---- at an open ---- */

static const struct absent_info *info_of(const struct open_state *o, uint32_t i, uint32_t replica)
{
    for (uint32_t k = 0; k < o->n_info[i]; k++)
        if (o->info[i][k].replica == replica)
            return &o->info[i][k];
    return NULL;
}

struct wanted {
    struct rangeset pages;
    struct ver last;
    bool everything;
    bool any; /* some member keeps a set of it */
};

/* What the members' sets of one absent replica say together. */
static int sets_collect(struct open_state *o, uint32_t replica, struct wanted *w)
{
    struct tenure *t = o->t;

    for (uint32_t i = 0; i < t->n; i++) {
        const struct absent_info *info = t->set >> i & 1 ? info_of(o, i, replica) : NULL;

        if (!info)
            continue;
        w->any = true;
        w->everything |= info->everything;
        w->last = ver_max(w->last, info->last);
    }
    for (uint32_t i = 0; i < t->n && !w->everything; i++) {
        const struct absent_info *info = t->set >> i & 1 ? info_of(o, i, replica) : NULL;
        bool known;
        int rc;

        if (!info || info->pages == 0)
            continue;
        rc = mset_fetch(t, i, replica, &w->pages, &w->last, &known);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* What it must be at every member (2.4, 5.4): their sets together, what lies above the commit
 * point, and of a replica that returns its own ranges above its own commit point. */
static int wanted_compute(struct open_state *o, uint32_t x, struct wanted *w)
{
    struct tenure *t = o->t;
    const struct member *m = &t->m[x];
    bool was_member = o->members >> x & 1;
    int rc = sets_collect(o, m->chunk->id, w);

    if (rc < 0)
        return rc;
    if (!mutate(MUT_NO_OPEN_MISSING))
        rangeset_add_set(&w->pages, &t->unc.pages);
    w->everything |= m->everything || o->lacks[x];
    if (!w->any && !was_member)
        w->everything = true; /* nobody knows it: new */
    if (was_member)
        w->last = ver_max(w->last, ver_max(m->confirmed, m->last_reported));
    if (!(o->join >> x & 1))
        return 0;
    if (ver_cmp(m->last_reported, w->last) < 0 && !mutate(MUT_NO_TAIL_CHECK)) {
        log_warn("replica.behind", "extent=%" PRIu64 " chunk=%u: it lost writes", t->extent_id,
                 m->chunk->id);
        w->everything = true;
    }
    for (uint32_t k = 0; k < o->n_unc[x]; k++) {
        const struct confirmed *u = &o->unc[x][k];

        if (ver_cmp(u->ver, o->reported_cp[x]) > 0)
            rangeset_add(&w->pages, u->first, u->first + u->count);
    }
    return 0;
}

/* Is every member's set that already? */
static bool sets_equal(const struct open_state *o, uint32_t x, const struct wanted *w)
{
    const struct tenure *t = o->t;

    for (uint32_t i = 0; i < t->n; i++) {
        const struct absent_info *info;

        if (!(t->set >> i & 1))
            continue;
        info = info_of(o, i, t->m[x].chunk->id);
        if (!info || ver_cmp(info->last, w->last) < 0)
            return false;
        if (w->everything ? !info->everything
                          : info->everything || info->pages != rangeset_total(&w->pages))
            return false;
    }
    /* Each is contained in the union, so equal sizes are equal sets. */
    return true;
}

static int absent_settle(struct open_state *o, uint32_t x)
{
    struct tenure *t = o->t;
    struct member *m = &t->m[x];
    struct wanted w = {.any = false};
    int rc;

    rangeset_init(&w.pages);
    rc = wanted_compute(o, x, &w);
    if (rc == 0 && !sets_equal(o, x, &w))
        rc = mset_start(t, t->set, m->chunk->id, w.last, &w.pages, w.everything);
    if (rc == 0 && (o->join >> x & 1)) {
        rangeset_clear(&m->missing);
        if (w.everything)
            rangeset_add(&m->missing, 0, PAGES_PER_EXTENT);
        else
            rangeset_copy(&m->missing, &w.pages);
        rangeset_copy(&m->stale, &m->missing);
        m->everything = false;
    }
    rangeset_fini(&w.pages);
    return rc;
}

/* Sets of replicas that are members, or none of the extent's any more, are forgotten. */
static int sets_forget(struct open_state *o)
{
    struct tenure *t = o->t;

    for (uint32_t i = 0; i < t->n; i++) {
        if (!(t->set >> i & 1))
            continue;
        for (uint32_t k = 0; k < o->n_info[i]; k++) {
            uint32_t replica = o->info[i][k].replica;
            int known = tenure_member(t, replica);
            int rc;

            if (known >= 0 && !(t->set >> known & 1))
                continue;
            rc = mset_drop(t, 1u << i, replica);
            if (rc < 0)
                return rc;
        }
    }
    return 0;
}

int open_missing_sets(struct open_state *o)
{
    struct tenure *t = o->t;
    int rc = sets_forget(o);

    for (uint32_t x = 0; x < t->n && rc == 0; x++)
        if (t->absent >> x & 1)
            rc = absent_settle(o, x);
    return rc;
}
