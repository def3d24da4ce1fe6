/* SPDX-License-Identifier: Apache-2.0
 *
 * The roll: for each bitmap, reference and head page the generation of its last image. A device
 * that says a write is done and loses it leaves the former page, which is valid in itself: it is
 * found because the roll, written elsewhere in the same batch, calls for a newer one. Batches are
 * atomic and generations never come twice, so after any crash page and roll agree; a page that is
 * newer than the roll says shows that the roll's own write was lost, and is taken as it is.
 *
 * In memory are the roll's pages for the bitmap and the references, and those for heads that are
 * in use: few, since heads are given out from the first on. */
#include <inttypes.h>
#include <string.h>
#include "chunk/internal.h"

void roll_init(struct dev *d)
{
    d->roll = MEM_NEW_ARRAY(struct mpage *, d->g.roll_pages + 1);
    budget_fixed(&d->e->memory, d->g.roll_pages * (int64_t)sizeof(struct mpage *));
}

#define PAGE_MEMORY (int64_t)(sizeof(struct mpage) + PAGE_BYTES)

void roll_free(struct dev *d)
{
    for (uint32_t i = 0; d->roll != NULL && i < d->g.roll_pages; i++) {
        struct mpage *m = d->roll[i];

        if (m == NULL)
            continue;
        mpage_fini(m);
        mem_free(m->roll);
        mem_free(m);
        budget_fixed(&d->e->memory, -PAGE_MEMORY);
    }
    budget_fixed(&d->e->memory, -(d->g.roll_pages * (int64_t)sizeof(struct mpage *)));
    mem_free(d->roll);
}

/* The entries follow the order of the pages on the device. */
static uint32_t entry_of(const struct geometry *g, enum meta_kind kind, uint32_t index)
{
    switch (kind) {
    case META_BITMAP:
        return index;
    case META_REFS:
        return g->bitmap_pages + index;
    default:
        ASSERT(kind == META_HEAD);
        return g->bitmap_pages + g->refs_pages + index;
    }
}

uint32_t roll_page_of(const struct geometry *g, enum meta_kind kind, uint32_t index)
{
    return entry_of(g, kind, index) / ROLL_PER_PAGE;
}

uint32_t roll_first_head(const struct geometry *g, uint32_t page)
{
    uint64_t first = (uint64_t)page * ROLL_PER_PAGE, before = entry_of(g, META_HEAD, 0);

    return first > before ? (uint32_t)(first - before) : 0;
}

static uint64_t roll_off(const struct geometry *g, uint32_t page)
{
    return g->roll_off + (uint64_t)page * PAGE_BYTES;
}

/* One that was not read has nothing to say: none of its pages is in use. */
static struct mpage *page_get(struct dev *d, uint32_t index)
{
    struct mpage *m = d->roll[index];

    if (m != NULL)
        return m;
    m = MEM_NEW(struct mpage);
    mpage_init(m, d, MP_ROLL, index, NULL);
    m->roll = mem_alloc_aligned(PAGE_BYTES, PAGE_BYTES);
    memset(m->roll, 0, PAGE_BYTES);
    d->roll[index] = m;
    budget_fixed(&d->e->memory, PAGE_MEMORY);
    return m;
}

static void roll_mend(struct dev *d, struct mpage *m, const char *why)
{
    log_error("roll.damaged", "disk=%s page=%" PRIu32 " why=\"%s\"", d->path, m->index, why);
    d->roll_damaged++;
    mpage_dirty(d, m, d->replaying ? RSN_START : d->j.durable_rsn);
}

void roll_take(struct dev *d, uint32_t index, const uint8_t *page)
{
    struct mpage *m = page_get(d, index);

    if (meta_check(&d->sb, page, META_ROLL, roll_off(&d->g, index), 0, index) < 0) {
        roll_mend(d, m, err_text(ERR_CORRUPT)); /* what it was about is taken as it is */
        return;
    }
    memcpy(m->roll, page, PAGE_BYTES);
    for (uint32_t i = 0; i < ROLL_PER_PAGE; i++)
        d->gen_last = MAX(d->gen_last, m->roll->gen[i]);
}

int roll_check(struct dev *d, enum meta_kind kind, uint32_t index, const struct meta_head *h)
{
    uint32_t at = entry_of(&d->g, kind, index);
    struct mpage *m = page_get(d, at / ROLL_PER_PAGE);
    uint64_t gen = m->roll->gen[at % ROLL_PER_PAGE];

    if (h->gen < gen)
        return err_set(ERR_CORRUPT, "metadata page at byte %" PRIu64 ": its last write was lost",
                       h->off);
    if (h->gen > gen && m->dirty_rsn == RSN_NONE)
        roll_mend(d, m, "its last write was lost");
    m->roll->gen[at % ROLL_PER_PAGE] = h->gen;
    return 0;
}

struct mpage *roll_set(struct dev *d, enum meta_kind kind, uint32_t index, uint64_t gen)
{
    uint32_t at = entry_of(&d->g, kind, index);
    struct mpage *m = page_get(d, at / ROLL_PER_PAGE);

    m->roll->gen[at % ROLL_PER_PAGE] = gen;
    return m;
}

uint64_t roll_get(const struct dev *d, enum meta_kind kind, uint32_t index)
{
    uint32_t at = entry_of(&d->g, kind, index);
    const struct mpage *m = d->roll[at / ROLL_PER_PAGE];

    return m != NULL ? m->roll->gen[at % ROLL_PER_PAGE] : 0;
}

void roll_pack(struct dev *d, uint32_t index, uint8_t *page, uint64_t *off)
{
    *off = roll_off(&d->g, index);
    memcpy(page, d->roll[index]->roll, PAGE_BYTES);
    meta_seal(&d->sb, page, META_ROLL, *off, 0, index, 0);
}
