/* SPDX-License-Identifier: Apache-2.0
 *
 * An extent's head page and its overflow pages: packing for a checkpoint, reading at start. */
#include <inttypes.h>
#include <string.h>
#include "chunk/internal.h"

/* ---- the tail: a run of bytes over the head's end and the overflow pages ---- */

static uint32_t tail_bytes(const struct ext *x)
{
    uint32_t n = x->n_unc * (uint32_t)sizeof(struct disk_uncommitted);

    for (uint32_t i = 0; i < MISSING_MAX && x->missing != NULL; i++) {
        if (x->missing[i].replica != 0)
            n += (uint32_t)sizeof(struct disk_missing) +
                 x->missing[i].pages.n * (uint32_t)sizeof(struct disk_mask);
    }
    return n;
}

static uint16_t tail_fill(const struct ext *x, uint8_t *at)
{
    uint16_t n_missing = 0;

    for (uint32_t i = 0; i < x->n_unc; i++, at += sizeof(struct disk_uncommitted)) {
        const struct uncommitted *u = &x->unc[i];

        *(struct disk_uncommitted *)at =
            (struct disk_uncommitted){u->first, u->last, u->v.epoch, u->v.gen};
    }
    for (uint32_t i = 0; i < MISSING_MAX && x->missing != NULL; i++) {
        const struct missing_set *m = &x->missing[i];

        if (m->replica == 0)
            continue;
        n_missing++;
        *(struct disk_missing *)at = (struct disk_missing){
            .replica = m->replica,
            .flags = m->everything ? MISSING_F_EVERYTHING : 0,
            .last_epoch = m->last_version.epoch,
            .last_gen = m->last_version.gen,
            .count = m->pages.n,
        };
        at += sizeof(struct disk_missing);
        for (uint32_t k = 0; k < m->pages.n; k++, at += sizeof(struct disk_mask))
            *(struct disk_mask *)at =
                (struct disk_mask){(uint16_t)m->pages.e[k].block, m->pages.e[k].mask};
    }
    return n_missing;
}

static uint64_t head_off(const struct dev *d, uint32_t head)
{
    return d->g.heads_off + (uint64_t)head * PAGE_BYTES;
}

static uint64_t overflow_off(const struct ext *x, uint32_t i)
{
    return meta_off(x, OVERFLOW_FIRST + i);
}

uint32_t head_pack(struct ext *x, uint8_t *pages, uint64_t *offs, uint64_t gen)
{
    const struct super_block *sb = &x->dev->sb;
    struct extent_head *h = (struct extent_head *)pages;
    uint32_t len = tail_bytes(x), done = MIN(len, EXTENT_TAIL_INLINE), n = 0;
    uint8_t *tail = mem_alloc(len + 1);

    ASSERT(len <= EXTENT_TAIL_MAX);
    memset(h, 0, PAGE_BYTES);
    h->epoch = x->durable_epoch;
    h->volume_id = x->volume_id;
    h->slot = x->slot;
    h->family = x->family;
    h->flags = (x->is_void ? EXTENT_F_VOID : 0) | (x->frozen ? EXTENT_F_FROZEN : 0) |
               (x->arriving ? EXTENT_F_ARRIVING : 0) | (x->reserved ? EXTENT_F_RESERVED : 0);
    h->cp_epoch = x->cp.epoch;
    h->cp_gen = x->cp.gen;
    h->last_epoch = x->last.epoch;
    h->last_gen = x->last.gen;
    memcpy(h->meta_block, x->meta_block, sizeof(x->meta_block));
    memcpy(h->map_gen, x->map->gen, sizeof(h->map_gen));
    memcpy(h->allocated, x->allocated, sizeof(h->allocated));
    memcpy(h->shared, x->shared, sizeof(h->shared));
    h->tail_bytes = len;
    h->uncommitted = (uint16_t)x->n_unc;
    h->missing = tail_fill(x, tail);
    memcpy(h + 1, tail, done);
    x->head_gen = gen;
    offs[0] = head_off(x->dev, x->head);
    meta_seal(sb, h, META_HEAD, offs[0], x->id, x->head, x->head_gen);
    while (done < len) {
        uint8_t *page = pages + (n + 1) * PAGE_BYTES;
        uint32_t part = MIN(len - done, (uint32_t)META_BODY_BYTES);

        memset(page, 0, PAGE_BYTES);
        memcpy(page + sizeof(struct meta_head), tail + done, part);
        offs[n + 1] = overflow_off(x, n);
        meta_seal(sb, page, META_OVERFLOW, offs[n + 1], x->id, n, x->head_gen);
        done += part;
        n++;
    }
    mem_free(tail);
    return n + 1;
}

void head_seal(const struct dev *d, uint8_t *page)
{
    struct extent_head *h = (struct extent_head *)page;

    if (h->h.kind != META_HEAD)
        return;
    h->commit = d->j.durable_seq;
    h->h.crc = page_crc(page, offsetof(struct meta_head, crc));
}

/* ---- reading ---- */

static int bad_head(const struct ext *x, const char *what)
{
    return err_set(ERR_CORRUPT, "head of extent %" PRIu64 ": %s", x->id, what);
}

static int tail_parse_uncommitted(struct ext *x, const uint8_t *at, uint32_t n)
{
    x->unc = MEM_NEW_ARRAY(struct uncommitted, n + 1);
    x->cap_unc = n + 1;
    for (uint32_t i = 0; i < n; i++, at += sizeof(struct disk_uncommitted)) {
        const struct disk_uncommitted *u = (const struct disk_uncommitted *)at;

        if (u->first > u->last || (i > 0 && u->first <= x->unc[i - 1].last))
            return bad_head(x, "uncommitted ranges out of order");
        x->unc[x->n_unc++] = (struct uncommitted){u->first, u->last, {u->epoch, u->gen}};
    }
    return 0;
}

static int tail_parse_missing(struct ext *x, const uint8_t *at, const uint8_t *end, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        const struct disk_missing *m = (const struct disk_missing *)at;
        struct missing_set *s;

        if ((size_t)(end - at) < sizeof(*m))
            return bad_head(x, "missing sets are cut off");
        at += sizeof(*m);
        if (m->replica == 0 || missing_find(x, m->replica) != NULL ||
            m->count > BLOCKS_PER_EXTENT ||
            (size_t)(end - at) < m->count * sizeof(struct disk_mask))
            return bad_head(x, "a missing set is out of range");
        s = missing_make(x, m->replica);
        s->everything = (m->flags & MISSING_F_EVERYTHING) != 0;
        s->last_version = (struct version){m->last_epoch, m->last_gen};
        for (uint32_t k = 0; k < m->count; k++, at += sizeof(struct disk_mask)) {
            const struct disk_mask *dm = (const struct disk_mask *)at;

            if (dm->block >= BLOCKS_PER_EXTENT)
                return bad_head(x, "a missing set is out of range");
            mask_set_add(&s->pages, dm->block, dm->mask);
        }
    }
    return at == end ? 0 : bad_head(x, "its tail has another length");
}

static int tail_load(struct ext *x, const struct extent_head *h)
{
    uint32_t len = h->tail_bytes, done = MIN(len, EXTENT_TAIL_INLINE);
    uint32_t unc = h->uncommitted * (uint32_t)sizeof(struct disk_uncommitted);
    uint8_t *tail = mem_alloc(len + 1), *page = mem_alloc_aligned(PAGE_BYTES, PAGE_BYTES);
    int rc = 0;

    memcpy(tail, h + 1, done);
    for (uint32_t i = 0; done < len && rc == 0; i++) {
        uint32_t part = MIN(len - done, (uint32_t)META_BODY_BYTES);

        rc = disk_read(x->dev->disk, page, PAGE_BYTES, overflow_off(x, i));
        if (rc == 0)
            rc = meta_check(&x->dev->sb, page, META_OVERFLOW, overflow_off(x, i), x->id, i);
        if (rc == 0 && ((struct meta_head *)page)->gen != h->h.gen)
            rc = bad_head(x, "an overflow page is of another version");
        memcpy(tail + done, page + sizeof(struct meta_head), part);
        done += part;
    }
    if (rc == 0)
        rc = tail_parse_uncommitted(x, tail, h->uncommitted);
    if (rc == 0)
        rc = tail_parse_missing(x, tail + unc, tail + len, h->missing);
    mem_free(page);
    mem_free(tail);
    return rc;
}

static int head_parse(struct ext *x, const struct extent_head *h)
{
    const struct dev *d = x->dev;

    if (h->h.owner == 0 || h->uncommitted > UNCOMMITTED_MAX || h->missing > MISSING_MAX ||
        h->tail_bytes > EXTENT_TAIL_MAX ||
        h->uncommitted * sizeof(struct disk_uncommitted) > h->tail_bytes ||
        (h->flags & ~(EXTENT_F_VOID | EXTENT_F_FROZEN | EXTENT_F_ARRIVING | EXTENT_F_RESERVED)) !=
            0)
        return bad_head(x, "a field is out of range");
    for (uint32_t k = 0; k < META_BLOCKS; k++) {
        if (h->meta_block[k] == BLOCK_NONE || h->meta_block[k] > d->g.blocks)
            return bad_head(x, "a metadata block is out of range");
    }
    x->epoch = x->durable_epoch = h->epoch;
    x->volume_id = h->volume_id;
    x->slot = h->slot;
    x->family = h->family;
    x->is_void = (h->flags & EXTENT_F_VOID) != 0;
    x->arriving = (h->flags & EXTENT_F_ARRIVING) != 0;
    x->frozen = (h->flags & EXTENT_F_FROZEN) != 0;
    x->reserved = (h->flags & EXTENT_F_RESERVED) != 0;
    x->dev->e->any_void |= x->is_void;
    x->cp = (struct version){h->cp_epoch, h->cp_gen};
    x->last = (struct version){h->last_epoch, h->last_gen};
    x->head_gen = h->h.gen;
    memcpy(x->meta_block, h->meta_block, sizeof(x->meta_block));
    memcpy(x->allocated, h->allocated, sizeof(x->allocated));
    memcpy(x->shared, h->shared, sizeof(x->shared));
    for (uint32_t i = 0; i < BLOCKS_PER_EXTENT / 64; i++)
        x->blocks += (uint32_t)__builtin_popcountll(x->allocated[i]);
    return tail_load(x, h);
}

int head_open(struct dev *d, uint32_t head, const struct extent_head *h, bool keep_gens,
              struct ext **ret)
{
    struct ext *x = NULL;
    int rc = meta_check(&d->sb, h, META_HEAD, head_off(d, head), 0, head);

    if (rc == 0) {
        rc = roll_check(d, META_HEAD, head, &h->h);
        if (rc < 0)
            rc = err_prefix(rc, "it was of extent %" PRIu64, h->h.owner);
    }
    if (rc == 0) {
        x = ext_new(d, h->h.owner, head);
        rc = head_parse(x, h);
    }
    if (rc < 0 && x != NULL) {
        ext_put(x);
        x = NULL;
    }
    if (rc == 0 && keep_gens) {
        memcpy(map_new(x)->gen, h->map_gen, sizeof(h->map_gen));
        mpage_release(&x->map->gens);
    }
    *ret = x;
    return rc;
}

int head_read_gens(struct ext *x, uint64_t gen[MAP_PAGES])
{
    struct extent_head *h = mem_alloc_aligned(PAGE_BYTES, PAGE_BYTES);
    uint64_t off = head_off(x->dev, x->head);
    int rc = disk_read(x->dev->disk, h, PAGE_BYTES, off);

    if (rc == 0)
        rc = meta_check(&x->dev->sb, h, META_HEAD, off, x->id, x->head);
    if (rc == 0 && h->h.gen != x->head_gen)
        rc = bad_head(x, "its last write was lost");
    if (rc == 0)
        memcpy(gen, h->map_gen, sizeof(h->map_gen));
    mem_free(h);
    return rc;
}
