/* SPDX-License-Identifier: Apache-2.0
 *
 * Children: an extent that begins as a copy of its origin's map. The child's map pages, in which
 * all sources are shared, are written to its new metadata blocks and are durable before the one
 * record that makes it exist, freezes the origin and says how many references each block has. What
 * the origin holds in the journal is in the child's map as if it were home already, and lent by the
 * origin until it is (jpage_find): the flusher brings it there in its own time. */
#include <inttypes.h>
#include <string.h>
#include "chunk/internal.h"

struct child {
    const struct create_args *a;
    struct op op; /* of the origin */
    struct ext *o;
    struct dev *d;
    struct map_page *pages;
    uint32_t *blocks; /* that the map names */
    uint32_t n_blocks;
    uint32_t own[BLOCKS_PER_EXTENT]; /* those that are the origin's own */
    uint64_t shared[BLOCKS_PER_EXTENT / 64];
    uint64_t map_gen[MAP_PAGES];
    struct refs_hold refs;
    bool has_place;
    struct ext_place place;
    struct ext *x; /* not in the table yet */
};

/* ---- what the origin holds ---- */

static int origin_check(const struct child *c)
{
    const struct ext *o = c->o;

    if (o->is_void)
        return err_set(ERR_CORRUPT, "origin %" PRIu64 " is void", o->id);
    if (!o->vouched && !mutate(MUT_READ_UNVOUCHED))
        return err_set(ERR_AGAIN, "origin %" PRIu64 " was not opened since the start", o->id);
    if (o->n_unc > 0)
        return err_set(ERR_AGAIN, "origin %" PRIu64 " has writes above its commit point", o->id);
    if (c->a->epoch <= o->last.epoch || c->a->epoch <= o->cp.epoch)
        return err_set(ERR_INVAL,
                       "a child at epoch %" PRIu64 " of extent %" PRIu64
                       ", whose last version is of epoch %" PRIu64,
                       c->a->epoch, o->id, o->last.epoch);
    return 0;
}

/* The entry as it will be when everything is home. */
static void entry_home(const struct ext *o, uint32_t block, struct map_entry *en)
{
    const struct vblk *v = vblk_get(o, block);

    for (uint64_t mask = v != NULL ? v->mask : 0; mask != 0; mask &= mask - 1) {
        uint32_t bit = (uint32_t)__builtin_ctzll(mask);

        en->src[0].valid |= 1ull << bit;
        en->crc[bit] = vblk_page(v, bit)->crc;
    }
}

static int entry_copy(struct child *c, uint32_t block)
{
    struct map_entry *to = &c->pages[block / MAP_ENTRIES].e[block % MAP_ENTRIES];
    struct map_entry from = *map_get(c->o, block);
    uint32_t k = 1;

    entry_home(c->o, block, &from);
    for (uint32_t i = 0; i < MAP_SOURCES; i++) {
        if (from.src[i].valid == 0)
            continue;
        if (k == MAP_SOURCES) /* a writer left it so, after the merge */
            return err_set(ERR_AGAIN, "origin %" PRIu64 " changes", c->o->id);
        to->src[k++] = from.src[i];
        c->blocks[c->n_blocks++] = from.src[i].block;
    }
    if (k > 1) {
        memcpy(to->crc, from.crc, sizeof(to->crc));
        c->shared[block / 64] |= 1ull << (block % 64);
        c->own[block] = from.src[0].block;
    }
    return 0;
}

static int entries_copy(struct child *c, uint32_t first, uint32_t last)
{
    struct map_hold hold;
    int rc = map_hold(c->o, first, last, &hold);

    for (uint32_t b = first; b <= last && rc == 0; b++) {
        if (block_mapped(c->o, b))
            rc = entry_copy(c, b);
    }
    map_release(&hold);
    return rc;
}

static int map_copy(struct child *c)
{
    uint32_t first = 0, last = BLOCKS_PER_EXTENT;

    c->pages = mem_alloc_aligned(PAGE_BYTES, (size_t)MAP_PAGES * PAGE_BYTES);
    memset(c->pages, 0, (size_t)MAP_PAGES * PAGE_BYTES);
    c->blocks = MEM_NEW_ARRAY(uint32_t, BLOCKS_PER_EXTENT * MAP_SOURCES);
    while (first < last && !block_mapped(c->o, first))
        first++;
    while (first < last && !block_mapped(c->o, last - 1))
        last--;
    return first < last ? entries_copy(c, first, last - 1) : 0;
}

/* ---- the child's metadata ---- */

static int refs_room(const struct child *c)
{
    for (uint32_t i = 0; i < c->n_blocks; i++) {
        if (refs_full(c->d, c->blocks[i]))
            return err_set(ERR_TOO_LARGE,
                           "extent %" PRIu64 ": a block is shared by %u extents already", c->o->id,
                           REFS_MAX);
    }
    return 0;
}

static bool map_empty(const struct child *c, uint32_t i)
{
    return mem_is_zero(c->pages[i].e, sizeof(c->pages[i].e)); /* never written */
}

/* The image of map page i gets its place: always the first slot. */
static void map_seal(struct child *c, uint32_t i)
{
    c->map_gen[i] = map_gen_next(c->d, 0);
    meta_seal(&c->d->sb, &c->pages[i], META_MAP, map_off(c->x, i, 0), c->x->id, i, c->map_gen[i]);
}

/* The device write of the pages from `first` on that follow one another in a metadata block; the
 * other slots between them are written, too, with zeroes, which are no page. Returns the page
 * behind. */
static uint32_t maps_submit(struct child *c, uint32_t first, struct iovec *iov,
                            struct disk_req *req)
{
    uint32_t i = first, n = 0;

    do {
        if (n > 0)
            iov[n++] = (struct iovec){(void *)(uintptr_t)zero_page, PAGE_BYTES};
        map_seal(c, i);
        iov[n++] = (struct iovec){&c->pages[i++], PAGE_BYTES};
    } while (i < MAP_PAGES && i % MAP_PAGES_A_BLOCK != 0 && !map_empty(c, i));
    *req = (struct disk_req){.op = DISK_WRITE,
                             .durable = true,
                             .disk = c->d->disk,
                             .off = map_off(c->x, first, 0),
                             .iov = iov,
                             .iov_count = (int)n};
    c->d->bytes_written += (uint64_t)n * PAGE_BYTES;
    disk_submit(req);
    return i;
}

static int maps_write(struct child *c)
{
    struct disk_req *reqs = MEM_NEW_ARRAY(struct disk_req, MAP_PAGES);
    struct iovec *iov = MEM_NEW_ARRAY(struct iovec, MAP_PAGES * MAP_SLOTS);
    uint32_t n = 0;
    int rc = 0;

    for (uint32_t i = 0; i < MAP_PAGES;) {
        if (map_empty(c, i))
            i++;
        else
            i = maps_submit(c, i, &iov[i * MAP_SLOTS], &reqs[n++]);
    }
    for (uint32_t i = 0; i < n; i++) {
        int one = disk_wait(&reqs[i]);

        if (one < 0)
            rc = one;
    }
    mem_free(iov);
    mem_free(reqs);
    if (rc == 0)
        return 0;
    c->d->io_errors++;
    return err_prefix(rc, "disk %s", c->d->path);
}

static int metadata_prepare(struct child *c)
{
    int rc = 0;

    for (uint32_t i = 0; i < c->n_blocks && rc == 0; i++)
        rc = refs_load(c->d, c->blocks[i], &c->refs);
    if (rc == 0)
        rc = refs_room(c);
    if (rc == 0)
        rc = ext_blocks_take(c->d, &c->place);
    if (rc < 0)
        return rc;
    c->has_place = true;
    c->x = ext_new(c->d, c->a->id, c->place.head);
    c->x->vouched = true;
    memcpy(c->x->meta_block, c->place.meta, sizeof(c->x->meta_block));
    return maps_write(c);
}

/* ---- the record ---- */

void child_apply(struct ext *x, const struct rec_child *r, uint64_t rsn)
{
    ext_apply_create(x, &r->c, rsn);
    x->cp = (struct version){r->cp_epoch, r->cp_gen};
    x->last = (struct version){r->last_epoch, r->last_gen};
    memcpy(x->map->gen, r->map_gen, sizeof(x->map->gen)); /* they stay, since the head is dirty */
    memcpy(x->shared, r->shared, sizeof(x->shared));
}

static struct rec_child *child_rec(struct child *c)
{
    struct rec_child *r =
        rec_new(c->d, REC_CHILD, c->a->id, sizeof(*r) + c->n_blocks * sizeof(struct rec_ref));
    struct rec_ref *refs = (struct rec_ref *)(r + 1);

    create_fill(&r->c, c->a, &c->place);
    r->c.family = c->o->family;
    r->origin = c->o->id;
    r->cp_epoch = c->o->cp.epoch;
    r->cp_gen = c->o->cp.gen;
    r->last_epoch = c->o->last.epoch;
    r->last_gen = c->o->last.gen;
    memcpy(r->map_gen, c->map_gen, sizeof(r->map_gen));
    memcpy(r->shared, c->shared, sizeof(r->shared));
    r->n_refs = c->n_blocks;
    for (uint32_t i = 0; i < c->n_blocks; i++) {
        uint32_t n = refs_get(c->d, c->blocks[i]);

        refs[i] = (struct rec_ref){c->blocks[i], (uint16_t)(n == REFS_LOST ? n : n + 1)};
    }
    return r;
}

/* All in one step, so that counts and versions are those of the moment. */
static uint64_t child_add(struct child *c, uint32_t space)
{
    struct rec_child *r = child_rec(c);
    struct ext *x = c->x, *o = c->o;
    uint64_t rsn;

    c->x = NULL; /* the table's */
    c->has_place = false;
    ext_insert(x);
    x->durable_epoch = c->a->epoch;
    rsn = journal_add(c->d, &r->c.h, NULL, space, false);
    child_apply(x, r, rsn);
    refs_apply(c->d, (const struct rec_ref *)(r + 1), r->n_refs, rsn);
    o->frozen = true;
    for (uint32_t b = 0; b < BLOCKS_PER_EXTENT; b++)
        vblk_lend(o, b, c->own[b]);
    c->d->credits -= o->credits;
    o->credits = 0;
    ext_dirty(o, rsn);
    return rsn;
}

static int child_journal(struct child *c)
{
    uint32_t bytes = sizeof(struct rec_child) + c->n_blocks * (uint32_t)sizeof(struct rec_ref);
    uint32_t cost = journal_cost(c->d, ROUND_UP(bytes, 8u), 0);
    int rc = journal_space(c->d, cost, false);

    if (rc < 0)
        return rc;
    rc = op_check(&c->op);
    if (rc == 0)
        rc = origin_check(c);
    if (rc == 0)
        rc = refs_room(c);
    if (rc == 0 && create_admitted(c->d->e, c->a))
        return journal_wait(c->d, child_add(c, cost));
    journal_space_return(c->d, cost);
    return rc < 0 ? rc : create_exists(c->d->e, c->a);
}

/* ---- the request ---- */

/* Nobody is writing to the origin, and nobody will: they find it frozen, or this has failed. What
 * was written before is queued for the journal, so it is durable when the child's record is. */
static int child_locked(struct child *c)
{
    int rc = op_check(&c->op);

    if (rc == 0)
        rc = origin_check(c);
    if (rc == 0)
        rc = map_copy(c);
    if (rc == 0)
        rc = metadata_prepare(c);
    return rc == 0 ? child_journal(c) : rc;
}

static void child_free(struct child *c)
{
    if (c->has_place)
        ext_blocks_return(c->d, &c->place);
    if (c->x != NULL)
        ext_put(c->x);
    refs_hold_free(&c->refs);
    mem_free(c->blocks);
    mem_free(c->pages);
}

static int child_try(struct engine *e, const struct create_args *a, bool renew)
{
    struct child c = {.a = a};
    struct co_range range;
    int rc = op_begin_closed(e, a->origin, a->origin_epoch, &c.op);

    if (rc < 0)
        return err_prefix(rc, "origin of extent %" PRIu64, a->id);
    c.o = c.op.ext;
    c.d = c.o->dev;
    rc = share_fit(&c.op);
    if (rc == 0 && renew)
        rc = share_renew(&c.op);
    if (rc == 0)
        rc = co_range_acquire(&c.o->lock, &range, 0, PAGES_PER_EXTENT, false);
    if (rc == 0) {
        rc = child_locked(&c);
        child_free(&c);
        co_range_release(&c.o->lock, &range);
    }
    op_end(&c.op);
    return rc;
}

/* A block has had as many children as can be counted: the origin gets another in its place, for
 * as many again. */
int child_create(struct engine *e, const struct create_args *a)
{
    int rc = child_try(e, a, false);

    return rc == ERR_TOO_LARGE ? child_try(e, a, true) : rc;
}
