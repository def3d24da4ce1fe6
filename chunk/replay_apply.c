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
static bool has_crcs(const struct rec_write *r)
{
    return r->h.type == REC_DATA || r->h.type == REC_MAP;
}
static const struct rec_ref *write_refs(const struct rec_write *r)
{
    return (const struct rec_ref *)(rec_crcs(r) + (has_crcs(r) ? r->count : 0));
}

/* ---- checking ---- */

static bool block_ok(const struct geometry *g, uint32_t block)
{
    return block != BLOCK_NONE && block <= g->blocks;
}

static bool refs_ok(const struct rec_ref *r, uint32_t n, const struct geometry *g)
{
    bool ok = true;

    for (uint32_t i = 0; i < n; i++)
        ok = ok && block_ok(g, r[i].block) && (r[i].left <= REFS_MAX || r[i].left == REFS_LOST);
    return ok;
}

static bool write_ok(const struct rec_write *r, const struct geometry *g)
{
    bool one_block = has_crcs(r);

    if (r->count == 0 || r->count > PAGES_PER_EXTENT || r->first >= PAGES_PER_EXTENT ||
        r->first + r->count > PAGES_PER_EXTENT || r->n_missing > MISSING_MAX)
        return false;
    if (one_block && r->first / PAGES_PER_BLOCK != (r->first + r->count - 1) / PAGES_PER_BLOCK)
        return false;
    if (r->h.pages != (r->h.type == REC_DATA ? r->count : 0))
        return false;
    if (r->h.type == REC_MAP && !block_ok(g, r->block))
        return false;
    return refs_ok(write_refs(r), r->n_refs, g);
}

static uint64_t write_bytes(const struct rec_write *r)
{
    uint64_t n = sizeof(*r) + (uint64_t)r->n_missing * 4;

    if (has_crcs(r))
        n += (uint64_t)r->count * 4;
    return n + (uint64_t)r->n_refs * sizeof(struct rec_ref);
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
    bool ok = r->head < g->heads;

    for (uint32_t k = 0; k < META_BLOCKS; k++)
        ok = ok && block_ok(g, r->meta_block[k]);
    return ok && refs_ok((const struct rec_ref *)(r + 1), r->n_refs, g);
}

static bool create_ok(const struct rec_create *r, const struct geometry *g)
{
    bool ok = r->head < g->heads;

    for (uint32_t k = 0; k < META_BLOCKS; k++)
        ok = ok && block_ok(g, r->meta_block[k]);
    return ok;
}

static bool child_ok(const struct rec_child *r, const struct geometry *g)
{
    const struct rec_ref *refs = (const struct rec_ref *)(r + 1);
    bool ok = create_ok(&r->c, g) && r->origin != 0 && r->origin != r->c.h.extent_id;

    for (uint32_t i = 0; i < r->n_refs; i++)
        ok = ok && refs[i].left > 1;
    return ok && refs_ok(refs, r->n_refs, g);
}

/* Length that a record of this type must have at least, then by its counts. 0: unknown type. */
static uint64_t rec_bytes(const struct rec_head *h)
{
    static const uint16_t fixed[REC_TYPES] = {
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
        [REC_CHILD] = sizeof(struct rec_child),
        [REC_THAW] = sizeof(struct rec_thaw),
        [REC_RESERVE] = sizeof(struct rec_reserve),
    };
    uint64_t n = h->type < REC_TYPES ? fixed[h->type] : 0;

    if (n == 0 || h->bytes < n)
        return 0;
    if (h->type >= REC_DATA && h->type <= REC_NOTE)
        n = write_bytes((const struct rec_write *)h);
    if (h->type == REC_MISSING)
        n += (uint64_t)((const struct rec_missing *)h)->count * sizeof(struct disk_mask);
    if (h->type == REC_DELETE)
        n += (uint64_t)((const struct rec_delete *)h)->n_refs * sizeof(struct rec_ref);
    if (h->type == REC_CHILD)
        n += (uint64_t)((const struct rec_child *)h)->n_refs * sizeof(struct rec_ref);
    if (h->type == REC_THAW)
        n += (uint64_t)((const struct rec_thaw *)h)->count * sizeof(struct thaw_block);
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
        ok = create_ok((const struct rec_create *)h, g);
        break;
    case REC_CHILD:
        ok = child_ok((const struct rec_child *)h, g);
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
    case REC_THAW:
        ok = thaw_ok((const struct rec_thaw *)h, g->blocks);
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
    uint32_t n; /* times it was added */
};

bool idset_has(const struct htab *set, uint64_t id)
{
    return htab_find(set, id) != NULL;
}

void idset_add(struct htab *set, uint64_t id)
{
    struct idset_item *i = HTAB_FIND(set, id, struct idset_item, node);

    if (i == NULL) {
        i = MEM_NEW(struct idset_item);
        htab_insert(set, &i->node, id);
    }
    i->n++;
}

void idset_remove(struct htab *set, uint64_t id)
{
    struct idset_item *i = HTAB_FIND(set, id, struct idset_item, node);

    if (i == NULL || --i->n > 0)
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
        if (r->type == REC_CREATE || r->type == REC_CHILD)
            idset_add(&rp->heads, ((const struct rec_create *)r)->head);
        if (r->type == REC_CHILD)
            idset_add(&rp->touched, ((const struct rec_child *)r)->origin);
        if (r->type == REC_DELETE) {
            idset_add(&rp->heads, ((const struct rec_delete *)r)->head);
            idset_add(&rp->doomed, r->extent_id);
        }
        at += r->bytes;
    }
}

/* ---- applying ---- */

/* What a record did to the allocation, whether or not its extent is still there at the end: the
 * deletion names only what it held then. */
static int apply_allocation(struct dev *d, const struct rec_head *h, uint64_t rsn)
{
    const struct rec_create *create = (const struct rec_create *)h;
    const struct rec_child *child = (const struct rec_child *)h;
    const struct rec_delete *del = (const struct rec_delete *)h;
    const struct rec_write *w = (const struct rec_write *)h;

    switch (h->type) {
    case REC_CREATE:
    case REC_CHILD:
        head_bit_set(d, create->head, rsn);
        for (uint32_t k = 0; k < META_BLOCKS; k++)
            bit_set(d, create->meta_block[k], rsn);
        if (h->type == REC_CREATE)
            return 0;
        return refs_replay(d, (const struct rec_ref *)(child + 1), child->n_refs, rsn);
    case REC_DELETE:
        ext_apply_delete(d, del, rsn);
        return refs_replay(d, (const struct rec_ref *)(del + 1), del->n_refs, rsn);
    case REC_ALLOC:
        bit_set(d, ((const struct rec_alloc *)h)->block, rsn);
        return 0;
    case REC_DATA:
    case REC_MAP:
    case REC_ZERO:
        if (h->flags & REC_F_REPLACE)
            bit_set(d, w->block, rsn);
        return refs_replay(d, write_refs(w), w->n_refs, rsn);
    default:
        return 0;
    }
}

static void apply_origin(struct replay *rp, const struct rec_child *r, uint64_t rsn)
{
    struct ext *o = dev_ext_find(rp->d, r->origin);

    if (o == NULL || (r->c.h.flags & REC_F_ARRIVING)) /* a relative of a twin */
        return;
    ext_apply_freeze(o, rsn);
}

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
    if (r->h.type == REC_CHILD)
        child_apply(x, (const struct rec_child *)r, rsn);
    else
        ext_apply_create(x, r, rsn);
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
    if (r->h.type != REC_NOTE && !(r->h.flags & REC_F_MOVE))
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

    if (r->h.type == REC_MAP || r->h.type == REC_ZERO || (r->h.flags & REC_F_MAP))
        rc = map_hold(x, first, last, &hold);
    if (rc < 0 && rc != ERR_CORRUPT) /* the latter: it is void now */
        return rc;
    if (r->h.type == REC_MAP)
        map_apply_write(x, r, rec_crcs(r), rsn);
    if (r->h.type == REC_ZERO)
        map_apply_zero(x, r, rsn);
    if (r->h.flags & REC_F_MAP)
        map_apply_data(x, r, rsn);
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

/* What a record did to its extent. */
static int apply_extent(struct ext *x, const struct rec_head *h, uint64_t rsn, uint64_t pos,
                        const bool *bad)
{
    const struct rec_commit_point *cp = (const struct rec_commit_point *)h;
    const struct rec_epoch *ep = (const struct rec_epoch *)h;

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
    case REC_RESERVE:
        ext_apply_reserve(x, ((const struct rec_reserve *)h)->on != 0, rsn);
        return 0;
    case REC_ALLOC:
        return apply_alloc(x, (const struct rec_alloc *)h, rsn);
    case REC_THAW:
        return thaw_replay(x, (const struct rec_thaw *)h, rsn);
    default:
        return apply_write(x, (const struct rec_write *)h, rsn, pos, bad);
    }
}

/* An extent that a later record deletes is not made or changed any more: what its maps were may be
 * gone from the device. */
int replay_record(struct replay *rp, const struct rec_head *h, uint64_t first_page_pos,
                  const bool *bad)
{
    uint64_t rsn = rp->d->j.next_rsn++;
    struct ext *x;
    int rc = apply_allocation(rp->d, h, rsn);

    if (rc == 0 && h->type == REC_CHILD)
        apply_origin(rp, (const struct rec_child *)h, rsn);
    if (h->type == REC_DELETE) {
        x = dev_ext_find(rp->d, h->extent_id);
        if (x != NULL) /* its head was not to be read: another has its number */
            ext_remove(x);
        idset_remove(&rp->doomed, h->extent_id);
        return rc;
    }
    if (rc < 0 || idset_has(&rp->doomed, h->extent_id))
        return rc;
    if (h->type == REC_CREATE || h->type == REC_CHILD) {
        apply_create(rp, (const struct rec_create *)h, rsn);
        return 0;
    }
    x = dev_ext_find(rp->d, h->extent_id);
    if (x != NULL)
        return apply_extent(x, h, rsn, first_page_pos, bad);
    idset_add(&rp->unknown, h->extent_id);
    return 0;
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

/* A page in the journal was given a block before: a head that does not know it is not the last. */
static bool pages_have_blocks(const struct ext *x)
{
    if (x->n_vblk == 0)
        return true;
    HTAB_FOREACH (v, &x->vblks, struct vblk, node) {
        if (v->mask != 0 && !block_allocated(x, (uint32_t)v->node.key))
            return false;
    }
    return true;
}

static void own_maps(void *arg, struct ext *x)
{
    if (x->dev != arg)
        return;
    map_check_loaded(x);
    if (!pages_have_blocks(x))
        ext_damaged(x, "a page in the journal has no block");
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

/* What is journaled of a frozen extent is its children's, too. */
static int lend_all(struct ext *x)
{
    int rc = 0;

    for (uint32_t b = 0; b < BLOCKS_PER_EXTENT && rc == 0; b++) {
        struct map_hold hold;

        if (vblk_get(x, b) == NULL)
            continue;
        rc = map_hold(x, b, b, &hold);
        if (rc == 0 && block_allocated(x, b))
            vblk_lend(x, b, map_get(x, b)->src[0].block);
        map_release(&hold);
        if (rc == ERR_CORRUPT)
            rc = 0; /* it is void */
    }
    return rc;
}

static int replay_lend(struct dev *d)
{
    int rc = 0;

    LIST_FOREACH (x, &d->journaled, struct ext, journaled) {
        if (rc == 0 && x->frozen)
            rc = lend_all(x);
    }
    return rc;
}

int replay_finish(struct replay *rp)
{
    struct dev *d = rp->d;
    int rc = replay_lend(d);

    if (rc < 0)
        return rc;

    HTAB_FOREACH (u, &rp->unknown, struct idset_item, node)
        log_error("journal.unknown_extent", "disk=%s extent=%" PRIu64, d->path, u->node.key);
    if (d->e->conf.rebuild)
        bits_take_all(d);
    replay_own(d);
    if (rp->hole)
        dev_ext_foreach(d, damage_all, d);
    dev_ext_foreach(d, damage_apply, d);
    refs_finish_replay(d);
    bits_finish_replay(d);
    return 0;
}

void replay_free(struct replay *rp)
{
    idset_free(&rp->unknown);
    idset_free(&rp->doomed);
    idset_free(&rp->heads);
    idset_free(&rp->touched);
}
