/* SPDX-License-Identifier: Apache-2.0
 *
 * Journal records: checking what was read, and applying it to memory at start. */
#include <inttypes.h>
#include <string.h>
#include "chunk/replay.h"

const uint32_t *rec_missing_list(const struct rec_write *r)
{
    return (const uint32_t *)(r + 1);
}
const uint32_t *rec_crcs(const struct rec_write *r)
{
    return rec_missing_list(r) + r->n_missing;
}
const struct rec_freed *rec_freed_list(const struct rec_write *r)
{
    return (const struct rec_freed *)(rec_missing_list(r) + r->n_missing);
}

/* ---- checking ---- */

static bool block_ok(const struct geometry *g, uint32_t block)
{
    return block != BLOCK_NONE && block <= g->blocks;
}

static bool write_ok(const struct rec_write *r, const struct geometry *g)
{
    bool one_block = r->h.type == REC_DATA || r->h.type == REC_MAP;
    bool ok = true;

    if (r->count == 0 || r->count > PAGES_PER_EXTENT || r->first >= PAGES_PER_EXTENT ||
        r->first + r->count > PAGES_PER_EXTENT || r->n_missing > MISSING_MAX)
        return false;
    if (one_block && r->first / PAGES_PER_BLOCK != (r->first + r->count - 1) / PAGES_PER_BLOCK)
        return false;
    if (r->h.pages != (r->h.type == REC_DATA ? r->count : 0))
        return false;
    if (r->h.type == REC_MAP &&
        (!block_ok(g, r->block) || (r->old_block != BLOCK_NONE && !block_ok(g, r->old_block))))
        return false;
    for (uint32_t i = 0; r->h.type == REC_ZERO && i < r->n_freed; i++) {
        const struct rec_freed *f = &rec_freed_list(r)[i];

        ok = ok && f->index >= r->first / PAGES_PER_BLOCK &&
             f->index <= (r->first + r->count - 1) / PAGES_PER_BLOCK && block_ok(g, f->block);
    }
    return ok;
}

static uint64_t write_bytes(const struct rec_write *r)
{
    uint64_t n = sizeof(*r) + (uint64_t)r->n_missing * 4;

    if (r->h.type == REC_DATA || r->h.type == REC_MAP)
        n += (uint64_t)r->count * 4;
    if (r->h.type == REC_ZERO)
        n += (uint64_t)r->n_freed * sizeof(struct rec_freed);
    return n;
}

static bool masks_ok(const struct rec_missing *r)
{
    const struct disk_mask *m = (const struct disk_mask *)(r + 1);
    bool ok = r->replica != 0;

    for (uint32_t i = 0; i < r->count; i++)
        ok = ok && m[i].block < BLOCKS_PER_EXTENT;
    return ok;
}

static bool versions_ok(const struct rec_versions *r)
{
    const struct disk_uncommitted *u = (const struct disk_uncommitted *)(r + 1);
    bool ok = true;

    for (uint32_t i = 0; i < r->count; i++)
        ok = ok && u[i].first <= u[i].last;
    return ok;
}

static bool delete_ok(const struct rec_delete *r, const struct geometry *g)
{
    const uint32_t *blocks = (const uint32_t *)(r + 1);
    bool ok = r->head < g->heads;

    for (uint32_t i = 0; i < r->count; i++)
        ok = ok && block_ok(g, blocks[i]);
    return ok;
}

/* Length that a record of this type must have at least, then by its counts. 0: unknown type. */
static uint64_t rec_bytes(const struct rec_head *h)
{
    static const uint8_t fixed[REC_TYPES] = {
        [REC_CREATE] = sizeof(struct rec_create),
        [REC_EPOCH] = sizeof(struct rec_epoch),
        [REC_COMMIT_POINT] = sizeof(struct rec_commit_point),
        [REC_DATA] = sizeof(struct rec_write),
        [REC_MAP] = sizeof(struct rec_write),
        [REC_ZERO] = sizeof(struct rec_write),
        [REC_NOTE] = sizeof(struct rec_write),
        [REC_ALLOC] = sizeof(struct rec_alloc),
        [REC_MISSING] = sizeof(struct rec_missing),
        [REC_DELETE] = sizeof(struct rec_delete),
        [REC_VOID] = sizeof(struct rec_void),
        [REC_VERSIONS] = sizeof(struct rec_versions),
        [REC_ARRIVE] = sizeof(struct rec_arrive),
    };
    uint64_t n = h->type < REC_TYPES ? fixed[h->type] : 0;

    if (n == 0 || h->bytes < n)
        return 0;
    if (h->type >= REC_DATA && h->type <= REC_NOTE)
        n = write_bytes((const struct rec_write *)h);
    if (h->type == REC_MISSING)
        n += (uint64_t)((const struct rec_missing *)h)->count * sizeof(struct disk_mask);
    if (h->type == REC_DELETE)
        n += (uint64_t)((const struct rec_delete *)h)->count * 4;
    if (h->type == REC_VERSIONS)
        n += (uint64_t)((const struct rec_versions *)h)->count * sizeof(struct disk_uncommitted);
    return n;
}

int rec_check(const struct rec_head *h, size_t room, const struct geometry *g)
{
    const struct rec_alloc *a = (const struct rec_alloc *)h;
    uint64_t bytes;
    bool ok = true;

    if (room < sizeof(*h) || h->bytes > room || h->bytes % 8 != 0)
        return err_set(ERR_CORRUPT, "journal: a record is cut off");
    bytes = rec_bytes(h);
    if (bytes == 0 || ROUND_UP(bytes, 8) != h->bytes || h->extent_id == 0)
        return err_set(ERR_CORRUPT, "journal: record type %u of %" PRIu32 " bytes", h->type,
                       h->bytes);
    switch (h->type) {
    case REC_CREATE:
        ok = ((const struct rec_create *)h)->head < g->heads;
        for (uint32_t k = 0; k < META_BLOCKS; k++)
            ok = ok && block_ok(g, ((const struct rec_create *)h)->meta_block[k]);
        break;
    case REC_DATA:
    case REC_MAP:
    case REC_ZERO:
    case REC_NOTE:
        ok = write_ok((const struct rec_write *)h, g);
        break;
    case REC_ALLOC:
        ok = a->index < BLOCKS_PER_EXTENT && block_ok(g, a->block);
        break;
    case REC_MISSING:
        ok = masks_ok((const struct rec_missing *)h);
        break;
    case REC_VERSIONS:
        ok = versions_ok((const struct rec_versions *)h);
        break;
    case REC_DELETE:
        ok = delete_ok((const struct rec_delete *)h, g);
        break;
    default:
        break;
    }
    if (h->type != REC_DATA)
        ok = ok && h->pages == 0;
    return ok ? 0
              : err_set(ERR_CORRUPT, "journal: record type %u: a field is out of range", h->type);
}

/* ---- sets of numbers ---- */

struct idset_item {
    struct htab_node node;
};

bool idset_has(const struct htab *set, uint64_t id)
{
    return htab_find(set, id) != NULL;
}

void idset_add(struct htab *set, uint64_t id)
{
    if (!idset_has(set, id))
        htab_insert(set, &MEM_NEW(struct idset_item)->node, id);
}

void idset_remove(struct htab *set, uint64_t id)
{
    struct idset_item *i = HTAB_FIND(set, id, struct idset_item, node);

    if (i == NULL)
        return;
    htab_remove(set, &i->node);
    mem_free(i);
}

static void idset_free(struct htab *set)
{
    HTAB_FOREACH (i, set, struct idset_item, node) {
        htab_remove(set, &i->node);
        mem_free(i);
    }
    htab_fini(set);
}

/* ---- which heads count ---- */

void replay_mark(struct replay *rp, const struct commit_head *h)
{
    const uint8_t *at = (const uint8_t *)(h + 1);

    for (uint32_t i = 0; i < h->records; i++) {
        const struct rec_head *r = (const struct rec_head *)at;

        idset_add(&rp->touched, r->extent_id);
        if (r->type == REC_CREATE)
            idset_add(&rp->heads, ((const struct rec_create *)r)->head);
        if (r->type == REC_DELETE)
            idset_add(&rp->heads, ((const struct rec_delete *)r)->head);
        at += r->bytes;
    }
}

/* ---- applying ---- */

static void apply_create(struct replay *rp, const struct rec_create *r, uint64_t rsn)
{
    struct ext *x = dev_ext_find(rp->d, r->h.extent_id);

    if (x != NULL) {
        log_error("extent.twice", "extent=%" PRIu64 " disk=%s other=%s", x->id, rp->d->path,
                  x->dev->path);
        return;
    }
    x = ext_new(rp->d, r->h.extent_id, r->head);
    x->durable_epoch = r->epoch;
    ext_insert(x);
    ext_apply_create(x, r, rsn);
}

static void apply_delete(struct replay *rp, struct ext *x, const struct rec_delete *r, uint64_t rsn)
{
    const uint32_t *blocks = (const uint32_t *)(r + 1);

    idset_remove(&rp->unknown, r->h.extent_id);
    for (uint32_t i = 0; i < r->count; i++)
        bit_clear(rp->d, blocks[i], rsn, i < META_BLOCKS);
    head_bit_clear(rp->d, r->head, rsn);
    rp->d->j.term = MAX(rp->d->j.term, r->term);
    if (x != NULL)
        ext_remove(x);
}

static void apply_data(struct ext *x, const struct rec_write *r, uint64_t rsn, uint64_t pos,
                       const bool *bad)
{
    for (uint32_t i = 0; i < r->count; i++) {
        struct jpage *jp;

        if (bad[i]) {
            jpage_drop(x, r->first + i, 1);
            ext_damaged(x, "a page in the journal has another checksum");
            continue;
        }
        jp = jpage_new(r->first + i, NULL, NULL, rec_crcs(r)[i]);
        jp->rsn = rsn;
        jp->pos = pos + (uint64_t)i * x->dev->j.page_units;
        jpage_insert(x, jp);
        jpage_put(jp);
    }
}

static void apply_note(struct ext *x, const struct rec_write *r, uint64_t rsn)
{
    struct version v = {r->epoch, r->gen};

    if (r->h.flags & REC_F_CP) {
        x->is_void = false;
        version_commit(x, (struct version){r->cp_epoch, r->cp_gen});
    }
    if (r->h.type != REC_NOTE)
        version_apply(x, r->first, r->count, v);
    for (uint32_t i = 0; i < r->n_missing; i++) {
        struct missing_set *m = missing_make(x, rec_missing_list(r)[i]);

        if (m != NULL)
            missing_add(m, r->first, r->count);
    }
    ext_dirty(x, rsn);
}

static int apply_write(struct ext *x, const struct rec_write *r, uint64_t rsn, uint64_t pos,
                       const bool *bad)
{
    uint32_t first = r->first / PAGES_PER_BLOCK;
    uint32_t last = (r->first + r->count - 1) / PAGES_PER_BLOCK;
    struct map_hold hold = {0};
    int rc = 0;

    if (r->h.type == REC_MAP || r->h.type == REC_ZERO)
        rc = map_hold(x, first, last, &hold);
    if (rc < 0 && rc != ERR_CORRUPT) /* the latter: it is void now */
        return rc;
    if (r->h.type == REC_MAP)
        map_apply_write(x, r, rec_crcs(r), rsn);
    if (r->h.type == REC_ZERO)
        map_apply_zero(x, r, rec_freed_list(r), rsn);
    if (r->h.type == REC_DATA)
        apply_data(x, r, rsn, pos, bad);
    map_release(&hold);
    apply_note(x, r, rsn);
    return 0;
}

static int apply_alloc(struct ext *x, const struct rec_alloc *r, uint64_t rsn)
{
    struct map_hold hold;
    int rc = map_hold(x, r->index, r->index, &hold);

    if (rc < 0 && rc != ERR_CORRUPT)
        return rc;
    map_apply_alloc(x, r->index, r->block, rsn);
    map_release(&hold);
    return 0;
}

/* A record of an extent that a later record deletes, and whose base may be gone: what it did to
 * the allocation counts all the same, since the deletion names only the blocks held then. */
static void apply_bits(struct dev *d, const struct rec_head *h, uint64_t rsn)
{
    const struct rec_write *w = (const struct rec_write *)h;

    if (h->type == REC_ALLOC)
        bit_set(d, ((const struct rec_alloc *)h)->block, rsn);
    if (h->type == REC_MAP && (h->flags & REC_F_REPLACE)) {
        if (w->old_block != BLOCK_NONE)
            bit_clear(d, w->old_block, rsn, false);
        bit_set(d, w->block, rsn);
    }
    for (uint32_t i = 0; h->type == REC_ZERO && i < w->n_freed; i++)
        bit_clear(d, rec_freed_list(w)[i].block, rsn, false);
}

int replay_record(struct replay *rp, const struct rec_head *h, uint64_t first_page_pos,
                  const bool *bad)
{
    struct ext *x = dev_ext_find(rp->d, h->extent_id);
    const struct rec_commit_point *cp = (const struct rec_commit_point *)h;
    const struct rec_epoch *ep = (const struct rec_epoch *)h;
    uint64_t rsn = rp->d->j.next_rsn++;

    if (h->type == REC_CREATE) {
        apply_create(rp, (const struct rec_create *)h, rsn);
        return 0;
    }
    if (h->type == REC_DELETE) {
        apply_delete(rp, x, (const struct rec_delete *)h, rsn);
        return 0;
    }
    if (x == NULL) {
        idset_add(&rp->unknown, h->extent_id);
        apply_bits(rp->d, h, rsn);
        return 0;
    }
    switch (h->type) {
    case REC_EPOCH:
        x->epoch = x->durable_epoch = MAX(x->epoch, ep->epoch);
        ext_dirty(x, rsn);
        return 0;
    case REC_COMMIT_POINT:
        x->is_void = false;
        version_commit(x, (struct version){cp->epoch, cp->gen});
        ext_dirty(x, rsn);
        return 0;
    case REC_MISSING:
        missing_apply(x, (const struct rec_missing *)h,
                      (const struct disk_mask *)((const struct rec_missing *)h + 1));
        ext_dirty(x, rsn);
        return 0;
    case REC_VERSIONS:
        ext_apply_versions(x, (const struct rec_versions *)h);
        ext_dirty(x, rsn);
        return 0;
    case REC_ARRIVE:
        ext_apply_arrive(x, (const struct rec_arrive *)h, rsn);
        return 0;
    case REC_VOID:
        ext_apply_void(x, ((const struct rec_void *)h)->on != 0, rsn);
        return 0;
    case REC_ALLOC:
        return apply_alloc(x, (const struct rec_alloc *)h, rsn);
    default:
        return apply_write(x, (const struct rec_write *)h, rsn, first_page_pos, bad);
    }
}

/* ---- the end ---- */

static void damage_all(void *arg, struct ext *x)
{
    if (x->dev == arg)
        ext_damaged(x, "its journal is damaged in the middle");
}

/* Damage counts from the end of the journal on: what it says after it was written in ignorance. */
static void damage_apply(void *arg, struct ext *x)
{
    struct dev *d = arg;

    if (x->dev != d || !x->damaged)
        return;
    ext_apply_void(x, true, RSN_START);
    d->any_damaged = true;
}

struct owning {
    struct dev *d;
    struct ext **bad; /* whose metadata blocks are not theirs */
    uint32_t n_bad;
};

static void own_meta(void *arg, struct ext *x)
{
    struct owning *o = arg;
    uint32_t k = 0;

    if (x->dev != o->d)
        return;
    while (k < META_BLOCKS && block_own(x->dev, x->meta_block[k]))
        k++;
    if (k == META_BLOCKS)
        return;
    while (k-- > 0)
        block_disown(x->dev, x->meta_block[k]);
    o->bad[o->n_bad++] = x;
}

static void own_maps(void *arg, struct ext *x)
{
    if (x->dev == arg)
        map_check_loaded(x);
}

/* Checksums are right, and yet it can't be: what contradicts the allocation is given up. */
static void replay_own(struct dev *d)
{
    struct owning o = {d, MEM_NEW_ARRAY(struct ext *, d->extents + 1), 0};

    dev_ext_foreach(d, own_meta, &o);
    for (uint32_t i = 0; i < o.n_bad; i++) {
        log_error("extent.head_lost",
                  "extent=%" PRIu64 " disk=%s why=\"its metadata blocks are "
                  "not its own\"",
                  o.bad[i]->id, d->path);
        ext_remove(o.bad[i]);
    }
    dev_ext_foreach(d, own_maps, d);
    mem_free(o.bad);
}

int replay_finish(struct replay *rp)
{
    struct dev *d = rp->d;

    HTAB_FOREACH (u, &rp->unknown, struct idset_item, node)
        log_error("journal.unknown_extent", "disk=%s extent=%" PRIu64, d->path, u->node.key);
    replay_own(d);
    if (rp->hole)
        dev_ext_foreach(d, damage_all, d);
    dev_ext_foreach(d, damage_apply, d);
    bits_finish_replay(d);
    return 0;
}

void replay_free(struct replay *rp)
{
    idset_free(&rp->unknown);
    idset_free(&rp->heads);
    idset_free(&rp->touched);
}
