/* SPDX-License-Identifier: Apache-2.0
 *
 * The map of a new extent that names blocks of others, and the record that makes it exist. */
#include <inttypes.h>
#include <string.h>
#include "chunk/child.h"

void child_map_init(struct child_map *c, struct dev *d, const struct create_args *a)
{
    *c = (struct child_map){.d = d, .a = *a};
    c->pages = mem_alloc_aligned(PAGE_BYTES, (size_t)MAP_PAGES * PAGE_BYTES);
    memset(c->pages, 0, (size_t)MAP_PAGES * PAGE_BYTES);
    c->blocks = MEM_NEW_ARRAY(uint32_t, BLOCKS_PER_EXTENT * MAP_SOURCES);
}

void child_map_free(struct child_map *c)
{
    if (c->has_place)
        ext_blocks_return(c->d, &c->place);
    if (c->x != NULL)
        ext_put(c->x);
    refs_hold_free(&c->refs);
    mem_free(c->blocks);
    mem_free(c->pages);
}

struct map_entry *child_map_entry(struct child_map *c, uint32_t index)
{
    return &c->pages[index / MAP_ENTRIES].e[index % MAP_ENTRIES];
}

bool child_map_add(struct child_map *c, uint32_t index, const struct map_src *src)
{
    struct map_entry *en = child_map_entry(c, index);
    uint32_t k = 1;

    while (k < MAP_SOURCES && en->src[k].block != BLOCK_NONE)
        k++;
    if (k == MAP_SOURCES)
        return false;
    en->src[k] = *src;
    c->blocks[c->n_blocks++] = src->block;
    c->shared[index / 64] |= 1ull << (index % 64);
    return true;
}

/* ---- metadata ---- */

int child_map_room(const struct child_map *c)
{
    for (uint32_t i = 0; i < c->n_blocks; i++) {
        if (refs_full(c->d, c->blocks[i]))
            return err_set(ERR_TOO_LARGE,
                           "extent %" PRIu64 ": a block is shared by %u extents already", c->a.id,
                           REFS_MAX);
    }
    return 0;
}

static bool map_empty(const struct child_map *c, uint32_t i)
{
    return mem_is_zero(c->pages[i].e, sizeof(c->pages[i].e)); /* never written */
}

/* The image of map page i gets its place: always the first slot. */
static void map_seal(struct child_map *c, uint32_t i)
{
    c->map_gen[i] = map_gen_next(c->d, 0);
    meta_seal(&c->d->sb, &c->pages[i], META_MAP, map_off(c->x, i, 0), c->x->id, i, c->map_gen[i]);
}

/* The device write of the pages from `first` on that follow one another in a metadata block; the
 * other slots between them are written, too, with zeroes, which are no page. Returns the page
 * behind. */
static uint32_t maps_submit(struct child_map *c, uint32_t first, struct iovec *iov,
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

static int maps_write(struct child_map *c)
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

int child_map_write(struct child_map *c)
{
    int rc = 0;

    for (uint32_t i = 0; i < c->n_blocks && rc == 0; i++)
        rc = refs_load(c->d, c->blocks[i], &c->refs);
    if (rc == 0)
        rc = child_map_room(c);
    if (rc == 0)
        rc = ext_blocks_take(c->d, &c->place);
    if (rc < 0)
        return rc;
    c->has_place = true;
    c->x = ext_new(c->d, c->a.id, c->place.head);
    memcpy(c->x->meta_block, c->place.meta, sizeof(c->x->meta_block));
    return maps_write(c);
}

/* ---- the record ---- */

uint32_t child_map_cost(const struct child_map *c)
{
    uint32_t bytes = sizeof(struct rec_child) + c->n_blocks * (uint32_t)sizeof(struct rec_ref);

    return journal_cost(c->d, ROUND_UP(bytes, 8u), 0);
}

struct rec_child *child_map_rec(const struct child_map *c, uint64_t origin)
{
    struct rec_child *r =
        rec_new(c->d, REC_CHILD, c->a.id, sizeof(*r) + c->n_blocks * sizeof(struct rec_ref));
    struct rec_ref *refs = (struct rec_ref *)(r + 1);

    create_fill(&r->c, &c->a, &c->place);
    r->origin = origin;
    memcpy(r->map_gen, c->map_gen, sizeof(r->map_gen));
    memcpy(r->shared, c->shared, sizeof(r->shared));
    r->n_refs = c->n_blocks;
    for (uint32_t i = 0; i < c->n_blocks; i++) {
        uint32_t n = refs_get(c->d, c->blocks[i]);

        refs[i] = (struct rec_ref){c->blocks[i], (uint16_t)(n == REFS_LOST ? n : n + 1)};
    }
    return r;
}

struct ext *child_map_journal(struct child_map *c, struct rec_child *r, uint32_t space,
                              uint64_t *ret_rsn)
{
    struct ext *x = c->x;

    c->x = NULL;
    c->has_place = false;
    x->durable_epoch = c->a.epoch;
    *ret_rsn = journal_add(c->d, &r->c.h, NULL, space, false);
    child_apply(x, r, *ret_rsn);
    refs_apply(c->d, (const struct rec_ref *)(r + 1), r->n_refs, *ret_rsn);
    return x;
}

void child_apply(struct ext *x, const struct rec_child *r, uint64_t rsn)
{
    ext_apply_create(x, &r->c, rsn);
    x->cp = (struct version){r->cp_epoch, r->cp_gen};
    x->last = (struct version){r->last_epoch, r->last_gen};
    memcpy(x->map->gen, r->map_gen, sizeof(x->map->gen)); /* they stay, since the head is dirty */
    memcpy(x->shared, r->shared, sizeof(x->shared));
}
