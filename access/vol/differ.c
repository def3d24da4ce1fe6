/* SPDX-License-Identifier: Apache-2.0
 *
 * Where two snapshots of a volume differ. Extents that both have are skipped without a look; of two
 * extents of one family a chunk server that has both compares the maps (proto/chunk.proto, Diff);
 * of any others everything that either holds is named. Nothing is read but maps, so a range that is
 * named may be equal all the same, never the other way round.
 *
 * The answer goes by ascending volume addresses. Each slot of a stripe group is asked for some
 * ranges; what all of them have answered for is sorted and merged. */
#include "access/vol/vol_int.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/vec.h"

#define SLOT_RANGES 256u /* asked for at once, of each slot of a group */
#define GROUPS_MAX  64u  /* looked at in one call */

struct span {
    uint64_t off, end;
};

struct differ {
    struct volume *a, *b; /* b: NULL, to be compared with nothing */
    VEC(struct span) spans;
    uint64_t covered; /* volume address up to which they are complete */
};

/* ---- one slot ---- */

static void spans_add(struct differ *d, uint32_t slot, const Zbs__PageRange *r)
{
    const struct layout *l = &d->a->info.layout;
    uint32_t unit = l->stripe_bytes / PAGE_BYTES, page = r->first, end = r->first + r->count;

    while (page < end) {
        uint32_t n = MIN(unit - page % unit, end - page);
        uint64_t off = layout_volume_offset(l, slot, page * PAGE_BYTES);

        *VEC_PUSH(&d->spans) = (struct span){off, off + (uint64_t)n * PAGE_BYTES};
        page += n;
    }
}

static int reply_take(struct differ *d, uint32_t slot, uint32_t from_page,
                      const Zbs__Chunk__DiffReply *m)
{
    if (m->more && (m->next_page <= from_page || m->next_page >= PAGES_PER_EXTENT))
        return err_set(ERR_PROTO, "a difference that does not advance");
    for (size_t i = 0; i < m->n_ranges; i++) {
        const Zbs__PageRange *r = m->ranges[i];

        if (r->first >= PAGES_PER_EXTENT || r->count > PAGES_PER_EXTENT - r->first)
            return err_set(ERR_PROTO, "a difference beyond its extent");
        spans_add(d, slot, r);
    }
    if (m->more)
        d->covered = MIN(d->covered,
                         layout_volume_offset(&d->a->info.layout, slot, m->next_page * PAGE_BYTES));
    return 0;
}

static bool is_member(const struct shared *sh, const struct chunk *c)
{
    for (uint32_t i = 0; i < sh->n; i++)
        if (sh->chunks[i] == c)
            return true;
    return false;
}

/* Asks the members of x, and of y (NULL: none), in turn. ERR_STALE: none has answered. */
static int ask(struct differ *d, uint32_t slot, struct shared *x, struct shared *y,
               uint32_t from_page)
{
    Zbs__Chunk__DiffRequest req = ZBS__CHUNK__DIFF_REQUEST__INIT;

    req.extent_id = x->extent_id;
    req.view_epoch = x->epoch;
    req.other_id = y ? y->extent_id : 0;
    req.other_view_epoch = y ? y->epoch : 0;
    req.family = x->family;
    req.shared = true;
    req.from_page = from_page;
    req.max_ranges = SLOT_RANGES;
    for (uint32_t i = 0; i < x->n; i++) {
        struct rpc_reply r;
        int rc;

        if (y && !is_member(y, x->chunks[i]))
            continue;
        rpc_reply_init(&r);
        rc = chunk_call(x->chunks[i], x->family, CHUNK_DIFF, &req.base, NULL, &r,
                        x->e->member_deadline);
        if (rc == 0)
            rc = reply_take(d, slot, from_page, (const Zbs__Chunk__DiffReply *)r.msg);
        rpc_reply_free(&r);
        if (rc == 0 || rc == ERR_CANCELED || (rc == ERR_TIMEOUT && co_now() >= co_deadline()))
            return rc;
        shared_refused(x, rc);
        if (y)
            shared_refused(y, rc);
    }
    return err_set(ERR_STALE, "no chunk server compares extent %" PRIu64, x->extent_id);
}

/* Do they share blocks, and does a chunk server have both? */
static bool comparable(const struct shared *x, const struct shared *y)
{
    bool both = false;

    for (uint32_t i = 0; i < x->n; i++)
        both = both || is_member(y, x->chunks[i]);
    return both && x->family == y->family;
}

static int ask_either(struct differ *d, uint32_t slot, struct shared *x, struct shared *y,
                      uint32_t from_page)
{
    int rc = 0;

    if (x && y && x->extent_id == y->extent_id)
        return 0;
    if (x && y && comparable(x, y))
        return ask(d, slot, x, y, from_page);
    if (x)
        rc = ask(d, slot, x, NULL, from_page);
    return rc == 0 && y ? ask(d, slot, y, NULL, from_page) : rc;
}

/* What a snapshot has there; a hole: neither error nor extent. */
static int snapshot_enter(struct volume *v, uint32_t index, struct slot **ret, struct entry *en)
{
    int rc = 0;

    *en = (struct entry){0};
    *ret = v ? vol_slot_at(v, index) : NULL;
    if (*ret)
        rc = slot_enter(*ret, ENTER_READ, en);
    ASSERT(!en->t);
    return rc;
}

static void snapshot_leave(struct slot *s, struct entry *en, bool stale)
{
    if (s && stale && en->shared)
        slot_shared_stale(s, en->shared);
    if (s)
        slot_leave(s, en);
}

static int differ_slot(struct differ *d, uint32_t index, uint32_t from_page)
{
    for (;;) {
        struct slot *sa, *sb = NULL;
        struct entry a, b = {0};
        size_t before = d->spans.count;
        int rc = snapshot_enter(d->a, index, &sa, &a);

        if (rc < 0)
            return rc;
        rc = snapshot_enter(d->b, index, &sb, &b);
        if (rc == 0)
            rc = ask_either(d, index, a.shared, b.shared, from_page);
        snapshot_leave(sb, &b, rc == ERR_STALE);
        snapshot_leave(sa, &a, rc == ERR_STALE);
        if (rc != ERR_STALE)
            return rc;
        d->spans.count = before;
        rc = co_sleep(RETRY_PAUSE); /* the members are asked of meta again */
        if (rc < 0)
            return rc;
    }
}

/* ---- one stripe group ---- */

/* The first page of the slot whose address is not below `from`. */
static uint32_t first_page(const struct layout *l, uint32_t slot, uint64_t from)
{
    uint64_t group_bytes = (uint64_t)l->stripe_count * EXTENT_BYTES;
    uint64_t in_group = from % group_bytes, unit = in_group / l->stripe_bytes;
    uint64_t row = unit / l->stripe_count;
    uint32_t column = (uint32_t)(unit % l->stripe_count), mine = slot % l->stripe_count;
    uint64_t at = mine < column ? (row + 1) * l->stripe_bytes : row * l->stripe_bytes;

    if (mine == column)
        at += in_group % l->stripe_bytes;
    return (uint32_t)(at / PAGE_BYTES);
}

static int by_address(const void *x, const void *y)
{
    const struct span *a = x, *b = y;

    return a->off < b->off ? -1 : a->off > b->off;
}

/* Sorted, those that touch made one, and nothing beyond what is covered. */
static void spans_merge(struct differ *d)
{
    struct span *s = d->spans.data;
    size_t n = 0;

    if (d->spans.count > 0)
        qsort(s, d->spans.count, sizeof(*s), by_address);
    for (size_t i = 0; i < d->spans.count; i++) {
        struct span x = {s[i].off, MIN(s[i].end, d->covered)};

        if (x.off >= x.end)
            continue;
        if (n > 0 && x.off <= s[n - 1].end)
            s[n - 1].end = MAX(s[n - 1].end, x.end);
        else
            s[n++] = x;
    }
    d->spans.count = n;
}

/* From an address in the group on; d->covered says how far. */
static int differ_group(struct differ *d, uint64_t from)
{
    const struct layout *l = &d->a->info.layout;
    uint64_t group_bytes = (uint64_t)l->stripe_count * EXTENT_BYTES;
    uint32_t base = (uint32_t)(from / group_bytes * l->stripe_count);
    int rc = 0;

    d->covered = MIN((from / group_bytes + 1) * group_bytes, d->a->info.size_bytes);
    for (uint32_t k = 0; k < l->stripe_count && rc == 0; k++) {
        uint32_t page = first_page(l, base + k, from);

        if (page < PAGES_PER_EXTENT)
            rc = differ_slot(d, base + k, page);
    }
    if (rc == 0)
        spans_merge(d);
    return rc;
}

/* ---- the call ---- */

static int snapshot_get(struct vol_engine *e, uint64_t id, struct volume **ret)
{
    int rc = vol_object_get(e, id, ret);

    if (rc == 0 && !(*ret)->info.read_only)
        rc = err_set(ERR_INVAL, "volume '%s/%s' is not a snapshot", (*ret)->info.pool,
                     (*ret)->info.name);
    return rc;
}

static int differ_begin(struct vol_engine *e, const Zbs__Access__DifferencesRequest *m,
                        struct differ *d)
{
    int rc = snapshot_get(e, m->volume_id, &d->a);

    if (rc == 0 && m->base_id != 0)
        rc = snapshot_get(e, m->base_id, &d->b);
    if (rc < 0)
        return rc;
    if (d->b && memcmp(&d->a->info.layout, &d->b->info.layout, sizeof(d->a->info.layout)) != 0)
        return err_set(ERR_INVAL, "'%s' and '%s' are striped differently: not of one volume",
                       d->a->info.name, d->b->info.name);
    if (m->from % PAGE_BYTES != 0 || m->from >= d->a->info.size_bytes)
        return err_set(ERR_INVAL, "a difference from %" PRIu64 " on", m->from);
    return 0;
}

static void differ_reply(struct rpc_request *q, const struct differ *d)
{
    Zbs__Access__DifferencesReply *reply = (Zbs__Access__DifferencesReply *)q->reply;

    reply->offsets = rpc_alloc(q, d->spans.count * sizeof(*reply->offsets));
    reply->lengths = rpc_alloc(q, d->spans.count * sizeof(*reply->lengths));
    for (size_t i = 0; i < d->spans.count; i++) {
        reply->offsets[i] = d->spans.data[i].off;
        reply->lengths[i] = d->spans.data[i].end - d->spans.data[i].off;
    }
    reply->n_offsets = reply->n_lengths = d->spans.count;
    reply->next = d->covered;
}

int access_differences(struct rpc_request *q)
{
    const Zbs__Access__DifferencesRequest *m = (const Zbs__Access__DifferencesRequest *)q->msg;
    struct differ d = {0};
    int rc = differ_begin(q->ctx, m, &d);

    d.covered = m->from;
    for (uint32_t k = 0; k < GROUPS_MAX && rc == 0 && d.spans.count == 0; k++) {
        if (d.covered >= d.a->info.size_bytes)
            break;
        rc = differ_group(&d, d.covered);
    }
    if (rc == 0)
        differ_reply(q, &d);
    VEC_FINI(&d.spans);
    return rc;
}
