/* SPDX-License-Identifier: Apache-2.0
 *
 * Journaled pages that are not home yet, by block of their extent. There may be as many as the
 * ring has room for, so they take little memory besides their content, which may leave it. */
#include <string.h>
#include "chunk/internal.h"

/* ---- blocks ---- */

struct vblk *vblk_get(const struct ext *x, uint32_t block)
{
    return x->n_vblk != 0 ? HTAB_FIND(&x->vblks, block, struct vblk, node) : NULL;
}

struct vblk *vblk_make(struct ext *x, uint32_t block)
{
    struct vblk *v = vblk_get(x, block);

    if (v != NULL)
        return v;
    v = MEM_NEW(struct vblk);
    v->jp = &v->one;
    v->cap = 1;
    htab_insert(&x->vblks, &v->node, block);
    if (x->n_vblk++ == 0)
        list_push_back(&x->dev->journaled, &x->journaled);
    return v;
}

void vblk_lend(struct ext *x, uint32_t block, uint32_t home)
{
    struct vblk *v = vblk_get(x, block);

    if (v == NULL || v->mask == 0 || v->lent || htab_find(&x->dev->lent, home) != NULL)
        return;
    v->lent = true;
    htab_insert(&x->dev->lent, &v->by_home, home);
}

void vblk_tidy(struct ext *x, uint32_t block)
{
    struct vblk *v = vblk_get(x, block);

    if (v == NULL || v->mask != 0)
        return;
    if (v->lent) /* what comes next may go elsewhere */
        htab_remove(&x->dev->lent, &v->by_home);
    v->lent = false;
    if (v->flushing != 0 || v->users != 0)
        return;
    htab_remove(&x->vblks, &v->node);
    if (v->jp != &v->one)
        mem_free(v->jp);
    mem_free(v);
    if (--x->n_vblk > 0)
        return;
    htab_fini(&x->vblks);
    list_del(&x->journaled);
}

/* Where the page's pointer is, or belongs. */
static uint32_t place(const struct vblk *v, uint32_t bit)
{
    return (uint32_t)__builtin_popcountll(v->mask & ((1ull << bit) - 1));
}

struct jpage *vblk_page(const struct vblk *v, uint32_t bit)
{
    return v->mask >> bit & 1 ? v->jp[place(v, bit)] : NULL;
}

static void vblk_put(struct vblk *v, uint32_t bit, struct jpage *jp)
{
    uint32_t at = place(v, bit), n = (uint32_t)__builtin_popcountll(v->mask);

    if (n == v->cap) {
        struct jpage **jps = MEM_NEW_ARRAY(struct jpage *, 2 * n);

        memcpy(jps, v->jp, n * sizeof(struct jpage *));
        if (v->jp != &v->one)
            mem_free(v->jp);
        v->jp = jps;
        v->cap *= 2;
    }
    memmove(v->jp + at + 1, v->jp + at, (n - at) * sizeof(struct jpage *));
    v->jp[at] = jp;
    v->mask |= 1ull << bit;
}

static struct jpage *vblk_take(struct vblk *v, uint32_t bit)
{
    uint32_t at = place(v, bit), n = (uint32_t)__builtin_popcountll(v->mask);
    struct jpage *jp = v->jp[at];

    memmove(v->jp + at, v->jp + at + 1, (n - at - 1) * sizeof(struct jpage *));
    v->mask &= ~(1ull << bit);
    return jp;
}

/* ---- pages ---- */

static const struct vblk *vblk_borrowed(const struct ext *x, uint32_t page)
{
    const struct map_src *s;

    if (x->dev->lent.count == 0 || !block_shared(x, page / PAGES_PER_BLOCK))
        return NULL;
    s = entry_source(map_get(x, page / PAGES_PER_BLOCK), page % PAGES_PER_BLOCK);
    return s != NULL ? HTAB_FIND(&x->dev->lent, s->block, struct vblk, by_home) : NULL;
}

struct jpage *jpage_find(const struct ext *x, uint32_t page)
{
    const struct vblk *v = vblk_get(x, page / PAGES_PER_BLOCK);
    struct jpage *jp = v != NULL ? vblk_page(v, page % PAGES_PER_BLOCK) : NULL;

    if (jp != NULL)
        return jp;
    v = vblk_borrowed(x, page);
    return v != NULL ? vblk_page(v, page % PAGES_PER_BLOCK) : NULL;
}

static void jpage_uncache(struct engine *e, struct jpage *jp)
{
    if (!list_linked(&jp->cached))
        return;
    list_del(&jp->cached);
    budget_sub(&e->memory, &e->mem_journal, PAGE_BYTES);
}

void jpage_put(struct jpage *jp)
{
    ASSERT(jp->refs > 0);
    if (--jp->refs > 0)
        return;
    ASSERT(!jp->current && !list_linked(&jp->cached) && !list_linked(&jp->live));
    buf_put(jp->buf);
    mem_free(jp);
}

struct jpage *jpage_new(uint32_t page, struct buf *buf, const uint8_t *data, uint32_t crc)
{
    struct jpage *jp = MEM_NEW(struct jpage);

    list_init(&jp->live);
    list_init(&jp->cached);
    jp->page = (uint16_t)page;
    jp->buf = buf != NULL ? buf_get(buf) : NULL;
    jp->data = data;
    jp->crc = crc;
    jp->refs = 1;
    return jp;
}

/* No longer what the page reads as. */
static void jpage_retire(struct ext *x, struct vblk *v, uint32_t bit)
{
    struct jpage *jp = vblk_take(v, bit);

    jp->current = false;
    list_del(&jp->live);
    x->dev->j.live_pages--;
    if (!jp->counted && jp->rsn <= x->dev->cycle_rsn)
        pace_pages(x->dev, 1); /* nothing of it is left to do */
    jpage_uncache(x->dev->e, jp);
    jpage_put(jp);
}

void jpage_insert(struct ext *x, struct jpage *jp)
{
    struct vblk *v = vblk_make(x, jp->page / PAGES_PER_BLOCK);
    uint32_t bit = jp->page % PAGES_PER_BLOCK;
    struct journal *j = &x->dev->j;

    corrupt_forget(x, jp->page, 1);
    if (v->mask >> bit & 1)
        jpage_retire(x, v, bit);
    jp->ext = x;
    jp->current = true;
    jp->refs++;
    vblk_put(v, bit, jp);
    list_push_back(&j->live, &jp->live);
    j->live_pages++;
    if (jp->buf != NULL) {
        list_push_back(&x->dev->e->cached, &jp->cached);
        budget_add(&x->dev->e->memory, &x->dev->e->mem_journal, PAGE_BYTES);
    }
}

void jpage_drop(struct ext *x, uint32_t first, uint32_t count)
{
    uint32_t page = first, end = first + count;

    if (x->n_vblk == 0)
        return;
    while (page < end) {
        uint32_t bit = page % PAGES_PER_BLOCK, n = MIN(end - page, PAGES_PER_BLOCK - bit);
        uint32_t block = page / PAGES_PER_BLOCK;
        struct vblk *v = vblk_get(x, block);
        uint64_t hit = v != NULL ? v->mask & page_mask(bit, n) : 0;

        for (; hit != 0; hit &= hit - 1)
            jpage_retire(x, v, (uint32_t)__builtin_ctzll(hit));
        vblk_tidy(x, block);
        page += n;
    }
}

void jpages_drop_all(struct ext *x)
{
    jpage_drop(x, 0, PAGES_PER_EXTENT);
}

/* For the budget: the oldest pages are only in the ring from now on. */
static void jpages_reclaim(void *arg, uint64_t bytes)
{
    struct engine *e = arg;
    uint64_t until = e->mem_journal.bytes > bytes ? e->mem_journal.bytes - bytes : 0;

    while (e->mem_journal.bytes > until) {
        struct jpage *jp = LIST_FIRST(&e->cached, struct jpage, cached);

        if (jp->rsn > jp->ext->dev->j.durable_rsn)
            break;
        jpage_uncache(e, jp);
        if (jp->refs == 1) { /* nobody is using the memory */
            buf_put(jp->buf);
            jp->buf = NULL;
            jp->data = NULL;
        }
    }
}

void jpages_init(struct engine *e)
{
    list_init(&e->cached);
    budget_join(&e->memory, &e->mem_journal, 25, jpages_reclaim, e);
}
