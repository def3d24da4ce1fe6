/* SPDX-License-Identifier: Apache-2.0
 *
 * References: how many map sources, of all extents, name a block. Almost every block has one, so
 * there is a bit for "more than one" in the bitmap, which is always in memory, and only then a
 * count, in a page that is loaded when somebody needs it. A count has a meaning only while the bit
 * is set: the record that sets the bit gives the count, and stays in the journal until both are
 * home. So a page in whose span no bit is set is never read, and formatting need not write it. */
#include <inttypes.h>
#include <string.h>
#include "chunk/internal.h"

void refs_init(struct dev *d)
{
    d->refs = MEM_NEW_ARRAY(struct mpage *, d->g.refs_pages + 1);
    co_mutex_init(&d->refs_lock);
}

static void refs_page_free(struct mpage *m)
{
    m->dev->refs[m->index] = NULL;
    mpage_fini(m);
    mem_free(m->refs);
    mem_free(m);
}

void refs_evict(struct mpage *m)
{
    refs_page_free(m);
}

void refs_free(struct dev *d)
{
    for (uint32_t i = 0; d->refs != NULL && i < d->g.refs_pages; i++) {
        if (d->refs[i] != NULL)
            refs_page_free(d->refs[i]);
    }
    mem_free(d->refs);
}

/* ---- loading ---- */

static uint64_t refs_off(const struct dev *d, uint32_t index)
{
    return d->g.refs_off + (uint64_t)index * PAGE_BYTES;
}

static uint32_t refs_span(const struct dev *d, uint32_t index)
{
    return MIN(REFS_PER_PAGE, d->g.blocks - index * REFS_PER_PAGE);
}

/* Whether some block in a page's span is shared. */
static bool span_shared(const struct dev *d, uint32_t index)
{
    for (uint32_t i = 0; i < refs_span(d, index); i++) {
        if (shared_bit_get(d, index * REFS_PER_PAGE + i + 1))
            return true;
    }
    return false;
}

/* Shared blocks without a count are not given out any more, whoever drops them, until somebody
 * counts them (zbs-fsck) or a record in the journal says how many references they have. */
static uint32_t counts_mend(struct dev *d, uint32_t index, struct refs_page *p)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < refs_span(d, index); i++) {
        if (!shared_bit_get(d, index * REFS_PER_PAGE + i + 1) || p->more[i] != 0)
            continue;
        p->more[i] = REFS_LOST;
        n++;
    }
    return n;
}

static void counts_lost(struct dev *d, struct mpage *m, uint32_t n)
{
    if (n == 0)
        return;
    log_error("refs.lost", "disk=%s page=%" PRIu32 " blocks=%" PRIu32 " why=\"%s\"", d->path,
              m->index, n, "their counts of references are damaged: zbs-fsck counts anew");
    mpage_dirty(d, m, d->replaying ? RSN_START : d->j.durable_rsn);
}

/* A page that is damaged is as one of zeroes. During replay it may also be that it was never
 * written: then the journal has all its counts. */
static int page_read(struct dev *d, uint32_t index, struct refs_page *p)
{
    int rc = disk_read(d->disk, p, PAGE_BYTES, refs_off(d, index));

    if (rc == 0)
        rc = meta_check(&d->sb, p, META_REFS, refs_off(d, index), 0, index);
    if (rc == 0)
        rc = roll_check(d, META_REFS, index, &p->h);
    if (rc != ERR_CORRUPT)
        return rc < 0 ? err_prefix(rc, "disk %s: references", d->path) : 0;
    memset(p, 0, sizeof(*p));
    return 0;
}

/* Brings a page into memory, and holds it. */
static int page_hold(struct dev *d, uint32_t index)
{
    struct refs_page *p;
    struct mpage *m;
    int rc = 0;

    co_mutex_lock_always(&d->refs_lock);
    if (d->refs[index] != NULL) { /* somebody else brought it */
        mpage_hold(d->refs[index]);
        goto out;
    }
    p = mem_alloc_aligned(PAGE_BYTES, PAGE_BYTES);
    memset(p, 0, PAGE_BYTES);
    if (span_shared(d, index))
        rc = page_read(d, index, p);
    if (rc < 0) {
        mem_free(p);
        goto out;
    }
    m = MEM_NEW(struct mpage);
    mpage_init(m, d, MP_REFS, index, NULL);
    m->refs = p;
    d->refs[index] = m;
    mpage_hold(m);
    mpage_charge(m, sizeof(*m) + PAGE_BYTES);
    if (!d->replaying)
        counts_lost(d, m, counts_mend(d, index, p));
out:
    co_mutex_unlock(&d->refs_lock);
    return rc;
}

static struct mpage *page_of(const struct dev *d, uint32_t block)
{
    return d->refs[(block - 1) / REFS_PER_PAGE];
}

/* Takes over one hold of the page. */
static void hold_add(struct refs_hold *h, struct mpage *m)
{
    for (uint32_t i = h->n; i > 0 && i + 8 > h->n; i--) { /* most are neighbours */
        if (h->pages[i - 1] == m) {
            mpage_release(m);
            return;
        }
    }
    if (h->n == h->cap) {
        h->cap = h->cap != 0 ? 2 * h->cap : 4;
        h->pages = mem_realloc(h->pages, h->cap * sizeof(struct mpage *));
    }
    h->pages[h->n++] = m;
}

int refs_load(struct dev *d, uint32_t block, struct refs_hold *h)
{
    int rc = page_hold(d, (block - 1) / REFS_PER_PAGE);

    if (rc == 0)
        hold_add(h, page_of(d, block));
    return rc;
}

int refs_load_map(struct ext *x, uint32_t first_block, uint32_t last_block, struct refs_hold *h)
{
    for (uint32_t b = first_block; b <= last_block; b++) {
        for (uint32_t k = 0; k < MAP_SOURCES && block_mapped(x, b); k++) {
            uint32_t block = map_get(x, b)->src[k].block;
            int rc = 0;

            if (block != BLOCK_NONE && shared_bit_get(x->dev, block))
                rc = refs_load(x->dev, block, h);
            if (rc < 0)
                return rc;
        }
    }
    return 0;
}

void refs_hold_free(struct refs_hold *h)
{
    for (uint32_t i = 0; i < h->n; i++)
        mpage_release(h->pages[i]);
    mem_free(h->pages);
    *h = (struct refs_hold){0};
}

/* ---- counts ---- */

static struct refs_page *counts_of(const struct dev *d, uint32_t block)
{
    ASSERTF(page_of(d, block) != NULL, "references of block %" PRIu32 " are not loaded", block);
    return page_of(d, block)->refs;
}

uint32_t refs_get(const struct dev *d, uint32_t block)
{
    uint32_t i = (block - 1) % REFS_PER_PAGE;
    uint32_t more = shared_bit_get(d, block) ? counts_of(d, block)->more[i] : 0;

    return more == REFS_LOST ? REFS_LOST : more + 1;
}

bool refs_full(const struct dev *d, uint32_t block)
{
    uint32_t n = refs_get(d, block);

    return n >= REFS_MAX && n != REFS_LOST;
}

struct rec_ref refs_less(const struct dev *d, uint32_t block)
{
    uint32_t n = refs_get(d, block);

    return (struct rec_ref){block, (uint16_t)(n == REFS_LOST ? n : n - 1)};
}

static void ref_apply(struct dev *d, const struct rec_ref *r, uint64_t rsn)
{
    if (r->left <= 1) {
        shared_bit_put(d, r->block, false, rsn);
        if (r->left == 0)
            bit_clear(d, r->block, rsn, false);
        return;
    }
    counts_of(d, r->block)->more[(r->block - 1) % REFS_PER_PAGE] =
        (uint16_t)(r->left == REFS_LOST ? r->left : r->left - 1);
    mpage_dirty(d, page_of(d, r->block), rsn);
    shared_bit_put(d, r->block, true, rsn);
}

void refs_apply(struct dev *d, const struct rec_ref *r, uint32_t n, uint64_t rsn)
{
    for (uint32_t i = 0; i < n; i++)
        ref_apply(d, &r[i], rsn);
}

void refs_pack(struct dev *d, uint32_t index, uint8_t *page, uint64_t *off, uint64_t gen)
{
    *off = refs_off(d, index);
    memcpy(page, d->refs[index]->refs, PAGE_BYTES);
    meta_seal(&d->sb, page, META_REFS, *off, 0, index, gen);
}

/* ---- at start ---- */

int refs_replay(struct dev *d, const struct rec_ref *r, uint32_t n, uint64_t rsn)
{
    struct refs_hold h = {0};
    int rc = 0;

    for (uint32_t i = 0; i < n && rc == 0; i++) {
        if (r[i].left > 1)
            rc = refs_load(d, r[i].block, &h);
        if (rc == 0)
            ref_apply(d, &r[i], rsn);
    }
    refs_hold_free(&h);
    return rc;
}

void refs_finish_replay(struct dev *d)
{
    for (uint32_t i = 0; i < d->g.refs_pages; i++) {
        if (d->refs[i] != NULL)
            counts_lost(d, d->refs[i], counts_mend(d, i, d->refs[i]->refs));
    }
}
