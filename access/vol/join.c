/* SPDX-License-Identifier: Apache-2.0
 *
 * An absent replica returns (PROTOCOL 5.4 to 5.6): what it misses is copied to it under the range
 * lock while writes go on, and goes to it as well; when nothing is missing, it is asked in. The
 * members' missing sets are the only progress that survives us. */
#include "access/vol/open.h"

#define PASSES_MAX   16u
#define LAST_PAGES   512u  /* so few are left to the time when writes are held */
#define ZERO_PAGES   1024u /* at once, where nothing is allocated */
#define COMMIT_EACH  256u  /* copies between commit points of the joining replica */
#define REGIONS      2u    /* at once: one goes on while the other ends */
#define REGION_PAGES 4096u /* cleared from the missing sets in one go, */
#define CLEARS_MAX   1000u /* in so many ranges a call */
#define COMPARE_MIN  64u   /* pages: fewer are rather copied than compared */

struct join {
    struct list link; /* of the engine's joins */
    struct tenure *t;
    uint32_t i;
    uint32_t copies; /* since its last commit point */
    bool telling;    /* a commit point is being told */
    bool held;       /* all of the extent is locked already */
    uint64_t next;   /* region of the present pass */
};

/* Pages that are being copied, several pieces at a time. */
struct region {
    struct join *j;
    uint64_t at, end;
    int rc; /* of the first copier that failed */
};

static bool joining(const struct join *j)
{
    return !j->t->lost && (j->t->joining >> j->i & 1);
}

/* ---- copying ---- */

static uint32_t copy_begin(struct member *m, uint64_t gen)
{
    uint32_t slot = 0;

    while (m->copy_gens[slot])
        slot++;
    ASSERT(slot < COPY_WINDOW);
    m->copy_gens[slot] = gen;
    return slot;
}

/* One versioned write to the joining replica alone. No commit point goes with it. */
static int copy_send(struct join *j, uint32_t off, uint32_t len, struct buf *b)
{
    struct tenure *t = j->t;
    struct member *m = &t->m[j->i];
    Zbs__Chunk__WriteRequest req = ZBS__CHUNK__WRITE_REQUEST__INIT;
    struct slice data = {b, 0, len};
    struct member_req q = {.method = CHUNK_WRITE, .msg = &req.base, .data = b ? &data : NULL};
    uint32_t crc[PAGES_PER_BLOCK + 1];
    struct rpc_reply r;
    uint32_t slot;
    int rc;

    req.extent_id = t->extent_id;
    req.family = t->family;
    req.epoch = t->epoch;
    req.gen = ++t->gen;
    req.repair = t->repair;
    req.kind = b ? ZBS__CHUNK__WRITE_KIND__WRITE_DATA : ZBS__CHUNK__WRITE_KIND__WRITE_ZERO;
    req.offset = off;
    req.length = len;
    if (b) {
        ASSERT(len <= BLOCK_BYTES);
        req.n_crc = page_crcs(off, len, b->data, crc);
        req.crc = crc;
    }
    slot = copy_begin(m, req.gen);
    rpc_reply_init(&r);
    rc = member_call(t, j->i, &q, &r);
    rpc_reply_free(&r);
    m->copy_gens[slot] = 0;
    if (rc == 0) {
        member_confirmed(t, j->i, req.gen, off / PAGE_BYTES, len / PAGE_BYTES);
        j->copies++;
    }
    return rc;
}

/* Under the exclusive range lock. The pages lie in one block, or where nothing is allocated. */
static int copy_pages(struct join *j, uint32_t first, uint32_t count)
{
    struct tenure *t = j->t;
    uint32_t off = first * PAGE_BYTES, len = count * PAGE_BYTES;
    struct buf *b;
    bool zero = false;
    int rc;

    if (mutate(MUT_CLEAR_WITHOUT_COPY)) {
        rangeset_remove(&t->m[j->i].stale, first, first + count);
        return 0;
    }
    b = buf_alloc(len);
    rc = members_read(t, 0, off, len, b, 0, &zero);
    if (rc == 0 && zero) {
        rc = copy_send(j, off, len, NULL);
    } else if (rc == 0 && count > PAGES_PER_BLOCK) {
        /* Not all zero after all: by blocks. */
        for (uint32_t p = first; rc == 0 && p < first + count;) {
            uint32_t n = MIN(PAGES_PER_BLOCK - p % PAGES_PER_BLOCK, first + count - p);

            rc = copy_pages(j, p, n);
            p += n;
        }
    } else if (rc == 0) {
        rc = credits_ensure(t, off, len);
        if (rc == 0)
            rc = joining(j) ? copy_send(j, off, len, b) : ERR_NO_REPLICA;
    }
    buf_put(b);
    if (rc == 0)
        rangeset_remove(&t->m[j->i].stale, first, first + count);
    return rc;
}

/* What is stale of these pages. Under the lock of all of them. */
static int copy_stale(struct join *j, uint32_t first, uint32_t end)
{
    struct rangeset *stale = &j->t->m[j->i].stale;
    struct range r;
    uint64_t at = first;
    int rc = 0;

    while (rc == 0 && rangeset_next(stale, at, &r) && r.start < end) {
        r.end = MIN(r.end, end);
        rc = joining(j) ? copy_pages(j, (uint32_t)r.start, (uint32_t)(r.end - r.start))
                        : ERR_NO_REPLICA;
        at = r.end;
    }
    return rc;
}

/* ---- clearing ---- */

static int clear_call(struct join *j, const struct range *ranges, uint32_t n)
{
    struct tenure *t = j->t;
    struct member *m = &t->m[j->i];
    Zbs__Chunk__MissingUpdateRequest req = ZBS__CHUNK__MISSING_UPDATE_REQUEST__INIT;
    Zbs__PageRange *pages = MEM_NEW_ARRAY(Zbs__PageRange, n);
    Zbs__PageRange **ptrs = MEM_NEW_ARRAY(Zbs__PageRange *, n);
    Zbs__Version last = ZBS__VERSION__INIT;
    struct member_req q = {.method = CHUNK_MISSING_UPDATE, .msg = &req.base};
    int rc;

    for (uint32_t k = 0; k < n; k++) {
        zbs__page_range__init(&pages[k]);
        pages[k].first = (uint32_t)ranges[k].start;
        pages[k].count = (uint32_t)(ranges[k].end - ranges[k].start);
        ptrs[k] = &pages[k];
    }
    last.epoch = m->confirmed.epoch;
    last.gen = m->confirmed.gen;
    req.extent_id = t->extent_id;
    req.family = t->family;
    req.epoch = t->epoch;
    req.replica = m->chunk->id;
    req.clear = ptrs;
    req.n_clear = n;
    req.last_version = &last;
    rc = members_call(t, t->set & ~t->leaving, &q); /* who leaves may keep more than is missing */
    mem_free(ptrs);
    mem_free(pages);
    if (rc == 0 && !joining(j))
        rc = ERR_NO_REPLICA;
    for (uint32_t k = 0; rc == 0 && k < n; k++)
        rangeset_remove(&m->missing, ranges[k].start, ranges[k].end);
    return rc;
}

/* Pages that the replica has leave the missing set at every member, durably. Under the lock of all
 * of them, so that no write to one of them is under way. */
static int clear_pages(struct join *j, uint32_t first, uint32_t end)
{
    struct member *m = &j->t->m[j->i];
    struct rangeset has;
    struct range r;
    int rc = 0;

    rangeset_init(&has);
    for (uint64_t at = first; rangeset_next(&m->missing, at, &r) && r.start < end; at = r.end) {
        r.end = MIN(r.end, end);
        rangeset_add(&has, r.start, r.end);
    }
    rangeset_remove_set(&has, &m->stale);
    for (size_t done = 0; rc == 0 && done < rangeset_count(&has);) {
        uint32_t n = (uint32_t)MIN(rangeset_count(&has) - done, (size_t)CLEARS_MAX);

        rc = clear_call(j, has.ranges.data + done, n);
        done += n;
    }
    rangeset_fini(&has);
    return rc;
}

/* ---- passes ---- */

static bool block_allocated(const struct tenure *t, uint32_t block)
{
    for (uint32_t i = 0; i < t->n; i++) {
        const struct member *m = &t->m[i];
        uint64_t held = m->allocated[block / 64] | m->shared[block / 64];

        if ((t->set & t->open) >> i & 1 && (held >> (block % 64) & 1))
            return true;
    }
    return false;
}

/* How much of a missing run is done in one go: up to the end of its block, or further where
 * nothing is allocated. */
static uint32_t piece_end(const struct tenure *t, const struct range *r)
{
    uint64_t end = ROUND_DOWN(r->start, PAGES_PER_BLOCK) + PAGES_PER_BLOCK;

    if (!block_allocated(t, (uint32_t)(r->start / PAGES_PER_BLOCK)))
        while (end < r->end && end - r->start + PAGES_PER_BLOCK <= ZERO_PAGES &&
               !block_allocated(t, (uint32_t)(end / PAGES_PER_BLOCK)))
            end += PAGES_PER_BLOCK;
    return (uint32_t)MIN(end, r->end);
}

/* Versions above its commit point are bounded at the replica (2.3), and only writes of members
 * move the commit point: if there were none, a page is written once more as it is. */
static int commit_move(struct join *j, uint32_t page)
{
    struct tenure *t = j->t;
    uint32_t off = page * PAGE_BYTES;
    struct buf *b = buf_alloc(PAGE_BYTES);
    struct slice data = {b, 0, PAGE_BYTES};
    struct op *op = op_new(t, ZBS__CHUNK__WRITE_KIND__WRITE_ZERO, off, PAGE_BYTES, NULL);
    bool zero = false;
    int rc = op_lock(op);

    if (rc == 0)
        rc = members_read(t, 0, off, PAGE_BYTES, b, 0, &zero);
    if (rc == 0 && !zero) {
        op->kind = ZBS__CHUNK__WRITE_KIND__WRITE_DATA;
        op->data = data;
        buf_get(b);
        op->n_crc = page_crcs(off, PAGE_BYTES, b->data, op->crc);
    }
    if (rc == 0 && !zero)
        rc = credits_ensure(t, off, PAGE_BYTES);
    if (rc == 0 && t->lost)
        rc = ERR_STALE;
    if (rc == 0 && t->slot->vol->held)
        rc = ERR_AGAIN; /* nothing begins */
    if (rc == 0) {
        op_send(op);
        rc = op_wait(op);
    }
    op_put(op);
    buf_put(b);
    return rc;
}

/* A replica that began as a relative's copy has that one's versions. The members' have to be above
 * them before it is one: else they would seem to have lost their journals' tails (PROTOCOL 2.5). */
static int members_catch_up(struct join *j)
{
    struct tenure *t = j->t;
    int rc = 0;

    while (rc == 0 && joining(j) && ver_cmp(t->cp, t->m[j->i].last_reported) < 0) {
        rc = commit_move(j, 0);
        if (rc == ERR_AGAIN)
            rc = co_sleep(RETRY_PAUSE);
    }
    return rc;
}

/* The last copies are above the commit point. Without a write to come, as of a shared extent, they
 * would stay there, and the replica would never be clean. */
static void commit_last(struct join *j)
{
    struct tenure *t = j->t;
    int rc = 0;

    do {
        if (rc == ERR_AGAIN)
            rc = co_sleep(RETRY_PAUSE);
        if (rc == 0 && !t->lost && ver_cmp(t->cp, t->m[j->i].confirmed) < 0)
            rc = commit_move(j, 0);
    } while (rc == ERR_AGAIN);
    if (rc == 0 && !t->lost)
        commit_flush(t);
}

static int commit_tell(struct join *j, uint32_t page)
{
    struct tenure *t = j->t;
    struct member *m = &t->m[j->i];
    int rc = 0;

    if (j->copies < COMMIT_EACH || j->telling || !t->serving)
        return 0;
    j->telling = true;
    if (ver_cmp(t->cp, m->confirmed) < 0)
        rc = commit_move(j, page);
    if (rc == 0 && joining(j)) {
        commit_flush(t);
        j->copies = 0;
    }
    j->telling = false;
    return rc;
}

/* The next piece of the region that needs copying; false: there is none. */
static bool next_piece(struct region *g, struct range *ret)
{
    const struct tenure *t = g->j->t;

    if (!rangeset_next(&t->m[g->j->i].stale, g->at, ret) || ret->start >= g->end)
        return false;
    ret->end = MIN(piece_end(t, ret), g->end);
    g->at = ret->end;
    return true;
}

static int piece_copy(struct join *j, const struct range *r)
{
    struct tenure *t = j->t;
    uint64_t bytes = (r->end - r->start) * PAGE_BYTES;
    bool data = block_allocated(t, (uint32_t)(r->start / PAGES_PER_BLOCK));
    struct co_range lock;
    int rc = pace_copy(t, data ? (uint32_t)bytes : PAGE_BYTES);

    if (rc == 0)
        rc = co_range_acquire(&t->ranges, &lock, r->start * PAGE_BYTES, bytes, true);
    if (rc < 0)
        return rc;
    rc = joining(j) ? copy_stale(j, (uint32_t)r->start, (uint32_t)r->end) : ERR_NO_REPLICA;
    co_range_release(&t->ranges, &lock);
    return rc == 0 ? commit_tell(j, (uint32_t)r->start) : rc;
}

static int copier(void *arg)
{
    struct region *g = arg;
    struct join *j = g->j;
    struct range r;

    while (g->rc == 0 && next_piece(g, &r)) {
        bool data = block_allocated(j->t, (uint32_t)(r.start / PAGES_PER_BLOCK));
        int rc = j->held ? copy_stale(j, (uint32_t)r.start, (uint32_t)r.end) : piece_copy(j, &r);

        if (rc == 0 && data)
            j->t->e->recovery.copied_bytes += (r.end - r.start) * PAGE_BYTES;
        else if (rc < 0 && g->rc == 0)
            g->rc = rc;
    }
    return 0;
}

static uint64_t stale_pages(const struct join *j, uint64_t first, uint64_t end)
{
    uint64_t pages = 0;
    struct range r;

    for (uint64_t at = first; rangeset_next(&j->t->m[j->i].stale, at, &r) && r.start < end;
         at = r.end)
        pages += MIN(r.end, end) - r.start;
    return pages;
}

/* What is stale of these pages. */
static int region_copy(struct join *j, uint64_t first, uint64_t end)
{
    struct region region = {.j = j, .at = first, .end = end};
    struct co_group g;

    co_group_init(&g);
    for (uint32_t k = 1; k < COPY_WINDOW / REGIONS; k++)
        co_spawn(&g, "copy", copier, &region);
    (void)copier(&region);
    (void)co_group_join(&g);
    return region.rc;
}

/* What it shares with a relative it has. With nobody writing: a write that is on its way to the
 * members, and not to the replica, would not show. */
static int region_compare(struct join *j, uint64_t first, uint64_t end)
{
    struct tenure *t = j->t;
    struct co_range lock;
    int rc;

    if (!relative_at(t, j->i, 0) || stale_pages(j, first, end) < COMPARE_MIN)
        return 0;
    rc = co_range_acquire(&t->ranges, &lock, first * PAGE_BYTES, (end - first) * PAGE_BYTES, true);
    if (rc < 0)
        return rc;
    if (joining(j))
        relative_compare(t, j->i, (uint32_t)first, (uint32_t)end);
    co_range_release(&t->ranges, &lock);
    return 0;
}

/* One region: copied, each piece under its own lock; then all that the replica has of it is
 * cleared. */
static int region_settle(struct join *j, uint64_t first, uint64_t end)
{
    struct tenure *t = j->t;
    struct co_range lock;
    int rc = region_compare(j, first, end);

    if (rc == 0)
        rc = region_copy(j, first, end);
    if (rc == 0)
        rc = co_range_acquire(&t->ranges, &lock, first * PAGE_BYTES, (end - first) * PAGE_BYTES,
                              true);
    if (rc < 0)
        return rc;
    rc = joining(j) ? clear_pages(j, (uint32_t)first, (uint32_t)end) : ERR_NO_REPLICA;
    co_range_release(&t->ranges, &lock);
    return rc;
}

static int regions_settle(void *arg)
{
    struct join *j = arg;
    struct range r;
    int rc = 0;

    while (rc == 0 && rangeset_next(&j->t->m[j->i].missing, j->next, &r)) {
        j->next = ROUND_DOWN(r.start, REGION_PAGES) + REGION_PAGES;
        rc = region_settle(j, r.start, j->next);
    }
    return rc;
}

/* Everything that is missing now, region by region. */
static int join_pass(struct join *j)
{
    struct co_group g;
    int rc, group_rc;

    j->next = 0;
    co_group_init(&g);
    for (uint32_t k = 1; k < REGIONS; k++)
        co_spawn(&g, "region", regions_settle, j);
    rc = regions_settle(j);
    group_rc = co_group_join(&g);
    return rc < 0 ? rc : group_rc;
}

/* ---- asking it in ---- */

/* Before it is logged it holds the missing sets of the other absent replicas too (5.5). */
static int hand_over_sets(struct join *j)
{
    struct tenure *t = j->t;
    uint32_t from = tenure_readable(t);
    int rc = 0;

    for (uint32_t y = 0; y < t->n && rc == 0; y++) {
        struct rangeset pages;
        struct ver last = {0, 0};
        bool known;

        if (y == j->i || !((t->absent | t->joining) >> y & 1))
            continue;
        if (!from)
            return ERR_AGAIN;
        rangeset_init(&pages);
        rc = mset_fetch(t, (uint32_t)__builtin_ctz(from), t->m[y].chunk->id, &pages, &last, &known);
        if (rc == 0)
            rc = mset_start(t, 1u << j->i, t->m[y].chunk->id, last, &pages,
                            !known || rangeset_total(&pages) == PAGES_PER_EXTENT);
        rangeset_fini(&pages);
    }
    return rc == 0 && !joining(j) ? ERR_NO_REPLICA : rc;
}

int join_unserved(struct tenure *t, uint32_t i)
{
    struct join j = {.t = t, .i = i};
    struct member *m = &t->m[i];
    int rc;

    /* No commit point moves meanwhile, so the copies must be few (2.3). */
    if (rangeset_count(&m->stale) > BLOCKS_PER_EXTENT) {
        rangeset_add(&m->missing, 0, PAGES_PER_EXTENT);
        rangeset_add(&m->stale, 0, PAGES_PER_EXTENT);
    }
    log_info("replica.returning",
             "extent=%" PRIu64 " epoch=%" PRIu64 " chunk=%u pages=%" PRIu64 " in place of one lost",
             t->extent_id, t->epoch, m->chunk->id, rangeset_total(&m->missing));
    list_push_back(&t->e->recovery.joins, &j.link);
    phase_enter(PHASE_JOINING);
    rc = join_pass(&j);
    if (rc == 0)
        rc = hand_over_sets(&j);
    phase_leave(PHASE_JOINING);
    list_del(&j.link);
    ASSERT(rc < 0 || rangeset_empty(&m->missing));
    return rc;
}

/* With all writes held: the rest is copied, and it counts as a member from now on. */
static int join_finish(struct join *j)
{
    struct tenure *t = j->t;
    struct member *m = &t->m[j->i];
    uint32_t bit = 1u << j->i;
    struct co_range lock;
    int rc = co_range_acquire(&t->ranges, &lock, 0, EXTENT_BYTES, true);

    if (rc < 0)
        return rc;
    if (!joining(j))
        rc = ERR_NO_REPLICA;
    else if (t->leaving)
        rc = ERR_AGAIN; /* after their removal, so that it gets their sets too */
    j->held = true;
    if (rc == 0)
        rc = region_copy(j, 0, PAGES_PER_EXTENT);
    j->held = false;
    if (rc == 0)
        rc = clear_pages(j, 0, PAGES_PER_EXTENT);
    if (rc == 0)
        rc = hand_over_sets(j);
    if (rc == 0 && (t->leaving || !(t->open & bit)))
        rc = ERR_AGAIN;
    if (rc == 0) {
        ASSERT(rangeset_empty(&m->stale) && rangeset_empty(&m->missing));
        t->joining &= ~bit;
        t->adding |= bit;
        t->set |= bit;
        credits_recount(t);
        co_cond_broadcast(&t->changed);
    }
    co_range_release(&t->ranges, &lock);
    return rc;
}

static int join_ask(struct join *j)
{
    struct tenure *t = j->t;
    uint32_t bit = 1u << j->i;
    int rc = 0;

    co_mutex_lock_always(&t->change);
    while (!t->lost && (t->adding & bit) && !(t->leaving & bit)) {
        rc = set_change(t, 0, bit, "is in sync again");
        if (rc == ERR_REFUSED)
            member_fail(t, j->i, false, "meta does not take it back");
        else if (rc == ERR_CANCELED)
            tenure_lose(t, "stopped with an unanswered change of the set");
        else if (rc < 0 && rc != ERR_STALE)
            (void)co_sleep(RETRY_PAUSE);
    }
    co_mutex_unlock(&t->change);
    if (t->lost)
        return ERR_STALE;
    return t->set & ~t->adding & bit ? 0 : ERR_REFUSED;
}

static int join_steps(struct join *j)
{
    struct tenure *t = j->t;
    const struct member *m = &t->m[j->i];
    int rc = 0;

    for (uint32_t pass = 0; rc == 0 && pass < PASSES_MAX; pass++) {
        rc = join_pass(j);
        if (rangeset_total(&m->missing) <= LAST_PAGES)
            break;
    }
    if (rc == 0)
        rc = members_catch_up(j);
    while (rc == 0) {
        rc = join_finish(j);
        if (rc != ERR_AGAIN)
            break;
        rc = co_sleep(2 * RETRY_PAUSE);
    }
    return rc < 0 ? rc : join_ask(j);
}

/* So many at once as the setting says, in the order in which they came. */
static int room_wait(struct vol_engine *e)
{
    struct recovery *rec = &e->recovery;
    int rc = 0;

    rec->waiting++;
    while (rc == 0 && rec->running >= rec->extents_max)
        rc = co_cond_wait(&rec->room);
    rec->waiting--;
    if (rc == 0)
        rec->running++;
    return rc;
}

static void room_leave(struct vol_engine *e)
{
    e->recovery.running--;
    co_cond_signal(&e->recovery.room);
}

static int join_run(void *arg)
{
    struct join *j = arg;
    struct tenure *t = j->t;
    struct member *m = &t->m[j->i];
    int rc = room_wait(t->e);

    if (rc == 0) {
        log_info("replica.returning",
                 "extent=%" PRIu64 " epoch=%" PRIu64 " chunk=%u pages=%" PRIu64, t->extent_id,
                 t->epoch, m->chunk->id, rangeset_total(&m->missing));
        phase_enter(PHASE_JOINING);
        rc = join_steps(j);
        phase_leave(PHASE_JOINING);
        room_leave(t->e);
    }
    if (rc == 0) {
        log_info("replica.in_sync", "extent=%" PRIu64 " epoch=%" PRIu64 " chunk=%u", t->extent_id,
                 t->epoch, m->chunk->id);
        best_effort(mset_drop(t, t->set & ~(1u << j->i), m->chunk->id));
        commit_last(j);
    }
    member_give_up_join(t, j->i, err_text(rc < 0 ? rc : ERR_CANCELED));
    /* It lost what it had confirmed (5.4). */
    if (!t->lost && m->everything && (t->absent >> j->i & 1))
        best_effort(mset_start(t, t->set, m->chunk->id, m->confirmed, NULL, true));
    list_del(&j->link);
    tenure_put(t);
    mem_free(j);
    return 0;
}

void join_start(struct tenure *t, uint32_t i)
{
    struct join *j = MEM_NEW(struct join);

    ASSERT(t->joining >> i & 1);
    j->t = tenure_get(t);
    j->i = i;
    list_push_back(&t->e->recovery.joins, &j->link);
    co_spawn_detached_deadline(&t->e->bg, "return", join_run, j);
}

void joins_limit(struct vol_engine *e, uint32_t extents_max, uint64_t rate)
{
    struct recovery *rec = &e->recovery;

    if (rec->rate != rate)
        rec->next = rec->rate_set = co_now(); /* nobody waits as the former rate had it */
    rec->rate = rate;
    rec->extents_max = extents_max;
    co_cond_broadcast(&rec->room);
}

/* Pages that are missing there and hold anything at the members. */
static uint64_t pages_left(const struct join *j)
{
    uint64_t pages = 0, at = 0;
    struct range r;

    while (rangeset_next(&j->t->m[j->i].missing, at, &r)) {
        r.end = MIN(r.end, ROUND_DOWN(r.start, PAGES_PER_BLOCK) + PAGES_PER_BLOCK);
        if (block_allocated(j->t, (uint32_t)(r.start / PAGES_PER_BLOCK)))
            pages += r.end - r.start;
        at = r.end;
    }
    return pages;
}

uint64_t joins_left(const struct vol_engine *e, uint32_t *ret_extents)
{
    uint64_t pages = 0;

    *ret_extents = 0;
    LIST_FOREACH (j, &e->recovery.joins, struct join, link) {
        if (!joining(j))
            continue;
        pages += pages_left(j);
        (*ret_extents)++;
    }
    return pages * PAGE_BYTES;
}
