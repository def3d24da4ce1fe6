/* SPDX-License-Identifier: Apache-2.0
 *
 * The model's changes, one by one. */
#include "tests/crash/model.h"
#include <stdlib.h>
#include <string.h>

#define FAR_BLOCK 500u

static size_t model_bytes(uint32_t extents)
{
    return sizeof(struct model) + extents * sizeof(struct model_extent);
}

struct model *model_new(uint32_t extents)
{
    struct model *m = calloc(1, model_bytes(extents));

    ASSERT(m != NULL && extents <= EXTENTS_MAX);
    m->n_ext = extents;
    return m;
}

struct model *model_copy(const struct model *m)
{
    struct model *copy = malloc(model_bytes(m->n_ext));

    ASSERT(copy != NULL);
    memcpy(copy, m, model_bytes(m->n_ext));
    return copy;
}

void changes_add(struct changes *l, const struct change *c)
{
    if (l->n == l->cap) {
        l->cap = l->cap ? 2 * l->cap : 256;
        l->c = realloc(l->c, l->cap * sizeof(*l->c));
    }
    l->c[l->n++] = *c;
}

uint32_t model_block(uint32_t b)
{
    return b < NEAR_BLOCKS ? b : FAR_BLOCK + b;
}

uint32_t model_off(uint32_t sector)
{
    return model_block(sector / BLOCK_SECTORS) * BLOCK_BYTES +
           sector % BLOCK_SECTORS * SECTOR_BYTES;
}

/* ---- small steps ---- */

/* Comes into being again only under higher epochs. */
static void extent_gone(struct model_extent *x)
{
    uint64_t epoch = x->epoch_maybe;

    memset(x, 0, sizeof(*x));
    x->epoch_maybe = epoch;
}

static struct version newer(struct version a, struct version b)
{
    return version_cmp(a, b) > 0 ? a : b;
}

static void version2_step(struct version2 *v, struct version to, enum change_phase ph)
{
    v->maybe = newer(v->maybe, to);
    if (ph == PH_DONE)
        v->acked = newer(v->acked, to);
}

static void flag2_step(struct flag2 *f, bool to, enum change_phase ph)
{
    f->maybe = ph == PH_REFUSED ? f->acked : to;
    if (ph == PH_DONE)
        f->acked = to;
}

/* Bits of replicas for the pages that the sectors lie in. */
static void missing_step(struct model_extent *x, const struct change *c, bool to)
{
    for (uint32_t r = 0; r < REPLICAS; r++) {
        if (!(c->replicas >> r & 1))
            continue;
        for (uint32_t p = c->first / SECTORS_PER_PAGE;
             p <= (c->first + c->n - 1) / SECTORS_PER_PAGE; p++)
            flag2_step(&x->page[p].missing[r], to, c->phase);
    }
}

/* ---- writes ---- */

static void pending_step(struct model *m, const struct change *c)
{
    if (c->phase == PH_BEGIN) {
        ASSERT(m->n_pending < PENDING_MAX);
        m->pending[m->n_pending++] = *c;
        return;
    }
    for (uint32_t i = 0; i < m->n_pending; i++) {
        if (m->pending[i].ext == c->ext && version_cmp(m->pending[i].v, c->v) == 0) {
            m->pending[i] = m->pending[--m->n_pending];
            return;
        }
    }
}

/* The write on its way in a page has happened, or has not. */
static void page_settle(struct model_extent *x, uint32_t page, bool happened)
{
    struct model_page *p = &x->page[page];

    if (happened)
        p->acked = p->maybe;
    p->maybe = (struct version){0, 0};
    for (uint32_t s = page * SECTORS_PER_PAGE; s < (page + 1) * SECTORS_PER_PAGE; s++) {
        if (happened)
            x->acked[s] = x->maybe[s];
        else
            x->maybe[s] = x->acked[s];
    }
}

static void write_step(struct model *m, struct model_extent *x, const struct change *c)
{
    uint32_t first_page = c->first / SECTORS_PER_PAGE;
    uint32_t last_page = (c->first + c->n - 1) / SECTORS_PER_PAGE;

    m->last_number = MAX(m->last_number, c->number);
    pending_step(m, c);
    if (c->phase == PH_BEGIN) {
        for (uint32_t s = c->first; s < c->first + c->n; s++)
            x->maybe[s] = c->number;
        for (uint32_t p = first_page; p <= last_page; p++)
            x->page[p].maybe = c->v;
        for (uint32_t b = first_page / PAGES_PER_BLOCK; b <= last_page / PAGES_PER_BLOCK; b++)
            x->freed[b] = x->freed[b] && c->write != W_DATA;
    } else {
        for (uint32_t p = first_page; p <= last_page; p++)
            page_settle(x, p, c->phase == PH_DONE);
    }
    if (c->phase == PH_DONE && c->write != W_DATA) {
        for (uint32_t b = DIV_UP(c->first, BLOCK_SECTORS);
             (b + 1) * BLOCK_SECTORS <= c->first + c->n; b++)
            x->freed[b] = true;
    }
    version2_step(&x->last, c->v, c->phase);
    if (c->cp.epoch != 0)
        version2_step(&x->cp, c->cp, c->phase);
    missing_step(x, c, true);
}

/* ---- the others ---- */

/* A child is what its origin is now, all of which is committed. */
static void create_step(struct model *m, struct model_extent *x, const struct change *c)
{
    struct model_extent *origin = c->origin != 0 ? &m->x[c->origin - 1] : NULL;

    if (c->phase == PH_REFUSED) {
        if (origin)
            origin->frozen.maybe = origin->frozen.acked;
        extent_gone(x);
        return;
    }
    if (c->phase == PH_BEGIN && origin) {
        *x = *origin;
        memset(x->set, 0, sizeof(x->set));
        for (uint32_t p = 0; p < MODEL_PAGES; p++)
            memset(x->page[p].missing, 0, sizeof(x->page[p].missing));
        x->there = x->frozen = x->reserved = (struct flag2){false, false};
        x->epoch = 0;
        x->origin = c->origin;
    }
    flag2_step(&x->there, true, c->phase);
    flag2_step(&x->reserved, c->reserve, c->phase);
    x->epoch_maybe = c->epoch;
    if (origin) {
        flag2_step(&origin->frozen, true, c->phase);
        flag2_step(&origin->reserved, false, c->phase);
    }
    if (c->phase == PH_DONE) {
        x->epoch = c->epoch;
        x->origin = 0;
    }
}

static void set_step(struct model_extent *x, const struct change *c)
{
    for (uint32_t r = 0; r < REPLICAS; r++) {
        struct model_set *s = &x->set[r];

        if (!(c->replicas >> r & 1))
            continue;
        flag2_step(&s->there, !c->drop, c->phase);
        if (!c->drop)
            version2_step(&s->last, c->v, c->phase);
        for (uint32_t p = 0; (c->drop || c->everything) && p < MODEL_PAGES; p++)
            flag2_step(&x->page[p].missing[r], c->everything, c->phase);
        s->everything = (s->everything || c->everything) && !(c->drop && c->phase == PH_DONE);
        if (c->drop && c->phase == PH_DONE)
            *s = (struct model_set){0};
    }
}

static void seen_step(struct model *m, struct model_extent *x, const struct change *c)
{
    uint32_t r = c->replicas >> 1 & 1;

    switch (c->kind) {
    case CH_SEEN_EXTENT:
        if (x->origin != 0) { /* frozen by the same record */
            struct model_extent *o = &m->x[x->origin - 1];

            o->frozen.acked = o->frozen.maybe = o->frozen.acked || c->seen;
            o->reserved.acked = o->reserved.maybe = o->reserved.acked && !c->seen;
            x->origin = 0;
        }
        if (!c->seen)
            extent_gone(x);
        x->there = (struct flag2){c->seen, c->seen};
        break;
    case CH_SEEN_EPOCH:
        x->epoch = x->epoch_maybe = c->epoch;
        break;
    case CH_SEEN_OPEN:
        x->epoch = x->epoch_maybe = c->epoch;
        x->last = (struct version2){c->v, c->v};
        x->cp = (struct version2){c->cp, c->cp};
        x->frozen = (struct flag2){c->seen, c->seen};
        x->reserved = (struct flag2){c->reserve, c->reserve};
        break;
    case CH_SEEN_PAGE:
        page_settle(x, c->first, c->seen);
        break;
    case CH_SEEN_SET:
        if (!c->seen)
            x->set[r] = (struct model_set){0};
        x->set[r].there = (struct flag2){c->seen, c->seen};
        x->set[r].last = (struct version2){c->v, c->v};
        break;
    case CH_SEEN_MISSING:
    default:
        x->page[c->first].missing[r] = (struct flag2){c->seen, c->seen};
    }
}

void model_apply(struct model *m, const struct change *c)
{
    struct model_extent *x = &m->x[c->ext];

    ASSERT(c->ext < m->n_ext);
    switch (c->kind) {
    case CH_CREATE:
        create_step(m, x, c);
        break;
    case CH_DELETE:
        flag2_step(&x->there, false, c->phase);
        if (c->phase == PH_DONE)
            extent_gone(x);
        break;
    case CH_OPEN:
        x->epoch_maybe = MAX(x->epoch_maybe, c->epoch);
        if (c->phase == PH_DONE)
            x->epoch = MAX(x->epoch, c->epoch);
        if (c->thaw)
            flag2_step(&x->frozen, false, c->phase);
        break;
    case CH_WRITE:
        write_step(m, x, c);
        break;
    case CH_CP:
        version2_step(&x->cp, c->cp, c->phase);
        version2_step(&x->last, c->cp, c->phase);
        break;
    case CH_SET:
        set_step(x, c);
        break;
    case CH_ADD:
        missing_step(x, c, true);
        break;
    case CH_CLEAR:
        missing_step(x, c, false);
        break;
    case CH_RESERVE:
        flag2_step(&x->reserved, c->reserve, c->phase);
        break;
    case CH_FULL:
        x->full = true;
        break;
    case CH_RESTART:
        m->n_pending = 0;
        break;
    default:
        seen_step(m, x, c);
    }
}
