/* SPDX-License-Identifier: Apache-2.0
 *
 * The records of a write request. Each is queued and applied to memory in one step, together with
 * what travels with it: commit point, version, missing sets. */
#include <inttypes.h>
#include <string.h>
#include "chunk/write.h"

/* Are there places for the missing sets that the request names? */
int missing_room(const struct writing *w)
{
    uint32_t wanted = 0;

    for (uint32_t i = 0; i < w->a->n_missing; i++)
        wanted += missing_find(w->x, w->a->missing[i]) == NULL;
    if (wanted > missing_free_sets(w->x))
        return err_set(ERR_TOO_LARGE, "extent %" PRIu64 ": more than %u absent replicas", w->x->id,
                       MISSING_MAX);
    return 0;
}

static struct rec_write *write_rec(const struct writing *w, enum rec_type type, uint32_t first,
                                   uint32_t count, size_t more_bytes)
{
    const struct write_args *a = w->a;
    struct rec_write *r = rec_new(w->x->dev, type, w->x->id,
                                  sizeof(*r) + a->n_missing * sizeof(uint32_t) + more_bytes);

    r->first = first;
    r->count = count;
    r->epoch = a->v.epoch;
    r->gen = a->v.gen;
    r->n_missing = a->n_missing;
    if (a->commit_point.epoch != 0) {
        r->h.flags |= REC_F_CP;
        r->cp_epoch = a->commit_point.epoch;
        r->cp_gen = a->commit_point.gen;
    }
    if (a->n_missing > 0)
        memcpy(r + 1, a->missing, a->n_missing * sizeof(uint32_t));
    return r;
}

static uint32_t *rec_tail(struct rec_write *r)
{
    return (uint32_t *)(r + 1) + r->n_missing;
}

#define REFS_ROOM (MAP_SOURCES * sizeof(struct rec_ref)) /* of one block */

/* The references that go when the record's pages leave shared sources (all: every source), put at
 * its end, which had REFS_ROOM. */
static void rec_refs_put(const struct writing *w, struct rec_write *r, bool all)
{
    uint32_t index = r->first / PAGES_PER_BLOCK, bit = r->first % PAGES_PER_BLOCK;
    uint64_t mask = (r->count == 64 ? UINT64_MAX : (1ull << r->count) - 1) << bit;
    struct rec_ref *refs = (struct rec_ref *)(rec_tail(r) + r->count);
    bool change;

    r->n_refs = (uint16_t)share_dropped(w->x, index, mask, all, refs, &change);
    if (r->h.type == REC_DATA && change)
        r->h.flags |= REC_F_MAP;
    r->h.bytes = (uint16_t)ROUND_UP((uint8_t *)(refs + r->n_refs) - (uint8_t *)r, 8);
}

static const struct rec_ref *rec_refs(struct rec_write *r)
{
    return (struct rec_ref *)(rec_tail(r) + r->count);
}

/* What every record of a write does besides its pages. */
static void note_apply(struct writing *w, const struct rec_write *r, uint64_t rsn)
{
    struct ext *x = w->x;

    if (r->h.flags & REC_F_CP) {
        x->is_void = false; /* only members are sent commit points (PROTOCOL 5.4) */
        version_commit(x, w->a->commit_point);
    }
    if (r->h.type != REC_NOTE)
        version_apply(x, r->first, r->count, w->a->v);
    if (r->h.type != REC_NOTE && x->move != NULL)
        move_note(x, r->first, r->count);
    for (uint32_t i = 0; i < w->a->n_missing; i++) {
        struct missing_set *m = missing_make(x, w->a->missing[i]);

        if (m != NULL) /* there was room when the request began */
            missing_add(m, r->first, r->count);
    }
    ext_dirty(x, rsn);
    w->last_rsn = rsn;
}

/* Waits for space in the ring; afterwards the request may have been overtaken by a new epoch. */
static int space_for(struct writing *w, uint32_t cost)
{
    int rc = journal_space(w->x->dev, cost, false);

    if (rc < 0)
        return rc;
    rc = op_check(&w->op);
    if (rc == 0)
        rc = missing_room(w);
    if (rc < 0)
        journal_space_return(w->x->dev, cost);
    return rc;
}

/* A few pages of a large buffer must not keep all of it in memory; and what its owner can still
 * change is copied before it gets into the ring and the cache, and the copy must be what the
 * checksums are of. *ret is NULL if the pages are good where they are. */
static int compact(const struct writing *w, uint32_t first, uint32_t count, struct buf **ret)
{
    const struct content c = page_content(w, first);
    bool foreign = buf_is_foreign(c.buf);
    struct buf *b;

    *ret = NULL;
    if (!foreign && c.buf->cap <= 2 * (size_t)count * PAGE_BYTES)
        return 0;
    b = buf_alloc((size_t)count * PAGE_BYTES);
    for (uint32_t i = 0; i < count; i++) {
        const struct content p = page_content(w, first + i);
        uint8_t *dst = b->data + (size_t)i * PAGE_BYTES;

        memcpy(dst, p.data, PAGE_BYTES);
        if (!foreign || crc32c(0, dst, PAGE_BYTES) == p.crc)
            continue;
        buf_put(b);
        return err_set(ERR_CORRUPT,
                       "extent %" PRIu64 ": the payload for page %" PRIu32 " has changed", w->x->id,
                       first + i);
    }
    *ret = b;
    return 0;
}

static int journal_pages(struct writing *w, uint32_t first, uint32_t count)
{
    struct rec_write *r =
        write_rec(w, REC_DATA, first, count, count * sizeof(uint32_t) + REFS_ROOM);
    struct dev *d = w->x->dev;
    uint32_t cost = journal_cost(d, r->h.bytes, count);
    struct jpage **jp;
    struct buf *own;
    uint64_t rsn;
    int rc = space_for(w, cost);

    if (rc < 0)
        goto err_record;
    rc = compact(w, first, count, &own);
    if (rc < 0)
        goto err_space;
    jp = MEM_NEW_ARRAY(struct jpage *, count);
    r->h.pages = count;
    for (uint32_t i = 0; i < count; i++) {
        struct content c = page_content(w, first + i);

        if (own != NULL)
            c = (struct content){own, own->data + (size_t)i * PAGE_BYTES, c.crc};
        jp[i] = jpage_new(first + i, c.buf, c.data, c.crc);
        rec_tail(r)[i] = c.crc;
    }
    buf_put(own);
    rec_refs_put(w, r, false);
    rsn = journal_add(d, &r->h, jp, cost, false); /* numbers the pages */
    if (r->h.flags & REC_F_MAP)
        map_apply_data(w->x, r, rsn);
    refs_apply(d, rec_refs(r), r->n_refs, rsn);
    for (uint32_t i = 0; i < count; i++)
        jpage_insert(w->x, jp[i]);
    note_apply(w, r, rsn);
    return 0;
err_space:
    journal_space_return(d, cost);
err_record:
    mem_free(r);
    ASSERT(rc < 0);
    return rc;
}

static struct rec_write *map_rec(const struct seg *s, uint32_t block)
{
    struct rec_write *r =
        write_rec(s->w, REC_MAP, s->first, s->count, s->count * sizeof(uint32_t) + REFS_ROOM);

    r->block = block;
    for (uint32_t i = 0; i < s->count; i++)
        rec_tail(r)[i] = page_content(s->w, s->first + i).crc;
    return r;
}

/* all: the block is new, and nothing counts any more that the map names for it. */
static void map_queue(struct seg *s, struct rec_write *r, uint32_t cost, bool all)
{
    struct dev *d = s->w->x->dev;
    uint64_t rsn;

    r->h.flags |= all ? REC_F_REPLACE : 0;
    rec_refs_put(s->w, r, all);
    rsn = journal_add(d, &r->h, NULL, cost, false);
    map_apply_write(s->w->x, r, rec_tail(r), rsn);
    refs_apply(d, rec_refs(r), r->n_refs, rsn);
    note_apply(s->w, r, rsn);
}

static int journal_map(struct writing *w, struct seg *s)
{
    struct rec_write *r = map_rec(s, s->block);
    struct dev *d = w->x->dev;
    uint32_t cost = journal_cost(d, r->h.bytes, 0);
    int rc = space_for(w, cost);

    if (rc < 0) {
        mem_free(r);
        return rc;
    }
    if (s->how == SEG_BLOCK) {
        w->new_blocks += s->is_new;
        d->spares -= !s->is_new;
        ASSERT(s->is_new == !block_allocated(w->x, s->first / PAGES_PER_BLOCK));
    }
    map_queue(s, r, cost, s->how == SEG_BLOCK);
    if (s->how == SEG_BLOCK && s->is_new)
        block_placed(w->x);
    return 0;
}

/* Space for all of a run; each request may have been overtaken meanwhile. */
static int run_space(const struct list *segs, struct dev *d, uint32_t cost)
{
    int rc = journal_space(d, cost, false);

    if (rc < 0)
        return rc;
    LIST_FOREACH (s, segs, struct seg, merge) {
        if (rc == 0)
            rc = op_check(&s->w->op);
        if (rc == 0)
            rc = missing_room(s->w);
    }
    if (rc < 0)
        journal_space_return(d, cost);
    return rc;
}

int write_journal_run(const struct list *segs, uint32_t block)
{
    struct rec_write *recs[PAGES_PER_BLOCK] = {0};
    struct dev *d = LIST_ENTRY(segs->next, struct seg, merge)->w->x->dev;
    uint32_t n = 0, bytes = 0, cost;
    int rc;

    LIST_FOREACH (s, segs, struct seg, merge) {
        recs[n] = map_rec(s, block);
        bytes += recs[n++]->h.bytes;
    }
    cost = journal_cost(d, bytes, 0);
    rc = run_space(segs, d, cost);
    if (rc < 0) {
        while (n > 0)
            mem_free(recs[--n]);
        return rc;
    }
    n = 0;
    LIST_FOREACH (s, segs, struct seg, merge) {
        ASSERT(recs[n] != NULL);
        if (n > 0)
            journal_join(d);
        map_queue(s, recs[n], n == 0 ? cost : 0, n == 0);
        s->done = true;
        n++;
    }
    d->spares--;
    return 0;
}

/* All references that go with some pages; ret may be NULL, to count them. */
static uint32_t zero_refs(const struct writing *w, const struct seg *s, struct rec_ref *ret)
{
    uint32_t page = s->first, end = s->first + s->count, n = 0;

    while (page < end) {
        uint32_t bit = page % PAGES_PER_BLOCK, count = MIN(end - page, PAGES_PER_BLOCK - bit);
        uint64_t mask = (count == 64 ? UINT64_MAX : (1ull << count) - 1) << bit;
        struct rec_ref refs[MAP_SOURCES];
        bool change;
        uint32_t k = share_dropped(w->x, page / PAGES_PER_BLOCK, mask, count == 64, refs, &change);

        if (ret != NULL)
            memcpy(ret + n, refs, k * sizeof(*refs));
        n += k;
        page += count;
    }
    return n;
}

static int journal_zero(struct writing *w, const struct seg *s)
{
    uint32_t room = zero_refs(w, s, NULL) + 2 * MAP_SOURCES; /* others write in the outer blocks */
    struct dev *d = w->x->dev;
    struct rec_write *r = write_rec(w, REC_ZERO, s->first, s->count, room * sizeof(struct rec_ref));
    uint32_t cost = journal_cost(d, r->h.bytes, 0);
    struct rec_ref *refs = (struct rec_ref *)rec_tail(r);
    uint64_t rsn;
    int rc = space_for(w, cost);

    if (rc < 0) {
        mem_free(r);
        return rc;
    }
    r->n_refs = (uint16_t)zero_refs(w, s, refs);
    ASSERT(r->n_refs <= room);
    r->h.bytes = (uint16_t)ROUND_UP((uint8_t *)(refs + r->n_refs) - (uint8_t *)r, 8);
    rsn = journal_add(d, &r->h, NULL, cost, false);
    map_apply_zero(w->x, r, rsn);
    refs_apply(d, refs, r->n_refs, rsn);
    note_apply(w, r, rsn);
    return 0;
}

/* Nothing had to be applied, but the commit point or a missing set may be news. */
static int journal_note(struct writing *w)
{
    const struct write_args *a = w->a;
    uint32_t count = w->last - w->first + 1;
    bool news = version_cmp(a->commit_point, w->x->cp) > 0;
    struct rec_write *r;
    uint32_t cost;
    int rc;

    for (uint32_t i = 0; i < a->n_missing; i++) {
        const struct missing_set *m = missing_find(w->x, a->missing[i]);

        news = news || m == NULL || !missing_has(m, w->first, count);
    }
    if (!news)
        return 0;
    r = write_rec(w, REC_NOTE, w->first, count, 0);
    cost = journal_cost(w->x->dev, r->h.bytes, 0);
    rc = space_for(w, cost);
    if (rc < 0) {
        mem_free(r);
        return rc;
    }
    note_apply(w, r, journal_add(w->x->dev, &r->h, NULL, cost, false));
    return 0;
}

static int journal_seg(struct writing *w, struct seg *s)
{
    uint32_t max = w->x->dev->j.rec_pages_max;
    int rc = 0;

    if (s->how == SEG_ZERO)
        return journal_zero(w, s);
    if (s->how != SEG_JOURNAL)
        return journal_map(w, s);
    for (uint32_t done = 0; done < s->count && rc == 0; done += max)
        rc = journal_pages(w, s->first + done, MIN(max, s->count - done));
    return rc;
}

int write_journal(struct writing *w)
{
    int rc = 0;

    for (uint32_t i = 0; i < w->n_segs && rc == 0; i++) {
        if (!w->segs[i].done)
            rc = journal_seg(w, &w->segs[i]);
        w->segs[i].done = rc == 0;
    }
    if (rc == 0)
        rc = journal_note(w);
    if (rc < 0) { /* what was queued before is done nevertheless, before anybody reads it */
        if (w->last_rsn != 0 && journal_wait(w->x->dev, w->last_rsn) < 0)
            log_debug("write.failed_twice", "extent=%" PRIu64, w->x->id);
        return rc;
    }
    /* Without a record of its own it confirms what an earlier one, or another request, queued. */
    return w->last_rsn != 0 ? journal_wait(w->x->dev, w->last_rsn) : journal_sync(w->x->dev);
}
