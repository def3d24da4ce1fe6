/* SPDX-License-Identifier: Apache-2.0
 *
 * What a start reads besides the journal: the bitmap, the heads that are in use, and what the roll
 * says of these, in large pieces, several in flight. Map pages are not read before something needs
 * them. */
#include <inttypes.h>
#include <string.h>
#include "chunk/replay.h"

#define PIECE_PAGES 256u /* 1 MiB */
#define PIECES      8u   /* in flight */
#define GAP_PAGES   32u  /* between wanted pages, that are read rather than left out */

struct sweep {
    struct dev *d;
    uint64_t off; /* of the first page */
    uint32_t end; /* number of pages */
    /* The first page at or behind `from` that is wanted; `end` if there is none. */
    uint32_t (*next)(const struct sweep *s, uint32_t from);
    int (*fn)(struct sweep *s, uint32_t index, const uint8_t *page);
    struct replay *rp;
    uint32_t at; /* not yet submitted from here on */
};
struct piece {
    struct disk_req req;
    struct iovec iov;
    uint8_t *buf;
    uint32_t first, n;
};

static void piece_submit(struct sweep *s, struct piece *p)
{
    uint32_t next;

    p->first = s->at;
    for (p->n = 1;; p->n = next - p->first + 1) {
        next = s->next(s, p->first + p->n);
        if (next >= MIN(s->end, p->first + PIECE_PAGES) || next - (p->first + p->n) > GAP_PAGES)
            break;
    }
    s->at = next;
    if (p->buf == NULL)
        p->buf = mem_alloc_aligned(PAGE_BYTES, (size_t)PIECE_PAGES * PAGE_BYTES);
    p->iov = (struct iovec){p->buf, (size_t)p->n * PAGE_BYTES};
    p->req = (struct disk_req){.op = DISK_READ,
                               .disk = s->d->disk,
                               .off = s->off + (uint64_t)p->first * PAGE_BYTES,
                               .iov = &p->iov,
                               .iov_count = 1};
    disk_submit(&p->req);
}

static int piece_use(struct sweep *s, const struct piece *p)
{
    int rc = 0;

    for (uint32_t i = 0; i < p->n && rc == 0; i = s->next(s, p->first + i + 1) - p->first)
        rc = s->fn(s, p->first + i, p->buf + (size_t)i * PAGE_BYTES);
    return rc;
}

static int sweep_run(struct sweep *s)
{
    struct piece *pieces = MEM_NEW_ARRAY(struct piece, PIECES);
    uint32_t submitted = 0, waited = 0;
    int rc = 0;

    s->at = s->next(s, 0);
    while (waited < submitted || (rc == 0 && s->at < s->end)) {
        struct piece *p = &pieces[waited % PIECES];
        int one;

        if (rc == 0 && s->at < s->end && submitted - waited < PIECES) {
            piece_submit(s, &pieces[submitted++ % PIECES]);
            continue;
        }
        one = disk_wait(&p->req);
        waited++;
        if (rc == 0)
            rc = one < 0 ? one : piece_use(s, p);
    }
    for (uint32_t i = 0; i < PIECES; i++)
        mem_free(pieces[i].buf);
    mem_free(pieces);
    return rc;
}

static uint32_t all_next(const struct sweep *s, uint32_t from)
{
    return MIN(from, s->end);
}

/* ---- the roll ---- */

/* Before what it says is compared with anything. */
static int roll_page(struct sweep *s, uint32_t index, const uint8_t *page)
{
    roll_take(s->d, index, page);
    return 0;
}

static uint32_t roll_fixed(const struct dev *d)
{
    return roll_page_of(&d->g, META_REFS, d->g.refs_pages - 1) + 1;
}

/* Those of the bitmap and the references. */
static int roll_load_fixed(struct dev *d)
{
    struct sweep s = {
        .d = d, .off = d->g.roll_off, .end = roll_fixed(d), .next = all_next, .fn = roll_page};

    return sweep_run(&s);
}

/* ---- the bitmap ---- */

/* Which heads are in use can't be found out in another way: those of deleted extents stay. */
static bool bitmap_has_heads(const struct dev *d, uint32_t index)
{
    uint64_t first = (uint64_t)index * BITS_PER_PAGE;

    return first < (uint64_t)d->g.blocks + d->g.heads && first + BITS_PER_PAGE > d->g.blocks;
}

static int bitmap_page(struct sweep *s, uint32_t index, const uint8_t *page)
{
    struct dev *d = s->d;
    int rc = meta_check(&d->sb, page, META_BITMAP, s->off + (uint64_t)index * PAGE_BYTES, 0, index);

    if (rc == 0)
        rc = roll_check(d, META_BITMAP, index, (const struct meta_head *)page);
    if (rc == ERR_CORRUPT && d->e->conf.rebuild && !bitmap_has_heads(d, index))
        return 0; /* it is counted anew */
    if (rc == ERR_CORRUPT && bitmap_has_heads(d, index))
        return err_prefix(rc, "the part that says which heads are in use");
    if (rc == 0)
        memcpy(d->bits + (size_t)index * (BITS_PER_PAGE / 64), page + sizeof(struct meta_head),
               META_BODY_BYTES);
    return rc;
}

int bitmap_load(struct dev *d)
{
    struct sweep s = {.d = d,
                      .off = d->g.bitmap_off,
                      .end = d->g.bitmap_pages,
                      .next = all_next,
                      .fn = bitmap_page};
    int rc = roll_load_fixed(d);

    if (rc == 0)
        rc = sweep_run(&s);
    return rc < 0 ? err_prefix(rc, "allocation bitmap") : 0;
}

/* ---- heads ---- */

/* In use, and not what the journal says better; g.heads: none. */
static uint32_t head_wanted(const struct replay *rp, uint32_t from)
{
    while ((from = head_bit_next(rp->d, from)) < rp->d->g.heads && idset_has(&rp->heads, from))
        from++;
    return from;
}

/* The roll's pages that name heads which will be read. */
static uint32_t heads_roll_next(const struct sweep *s, uint32_t from)
{
    const struct geometry *g = &s->d->g;
    uint32_t head;

    from = MAX(from, roll_fixed(s->d)); /* these are there */
    if (from >= s->end)
        return s->end;
    head = head_wanted(s->rp, roll_first_head(g, from));
    return head < g->heads ? roll_page_of(g, META_HEAD, head) : s->end;
}

static uint32_t heads_next(const struct sweep *s, uint32_t from)
{
    return head_wanted(s->rp, from);
}

static int heads_page(struct sweep *s, uint32_t index, const uint8_t *page)
{
    const struct extent_head *h = (const struct extent_head *)page;
    struct dev *d = s->d;
    struct ext *x, *other;
    int rc = head_open(d, index, h, idset_has(&s->rp->touched, h->h.owner), &x);

    if (rc == ERR_CORRUPT) { /* which extent it was is not known: it is simply missing */
        log_error("extent.head_lost", "disk=%s head=%" PRIu32 " why=\"%s\"", d->path, index,
                  err_text(rc));
        return 0;
    }
    if (rc < 0)
        return rc;
    other = dev_ext_find(d, x->id);
    if (other != NULL) {
        log_error("extent.twice", "extent=%" PRIu64 " disk=%s other=%s", x->id, d->path,
                  other->dev->path);
        ext_put(x);
        return 0;
    }
    ext_insert(x);
    if (h->commit >= d->j.seq)
        ext_damaged(x, "the journal's end, which its head has seen, is lost");
    return 0;
}

int heads_load(struct replay *rp)
{
    struct sweep s = {.d = rp->d,
                      .off = rp->d->g.heads_off,
                      .end = rp->d->g.heads,
                      .next = heads_next,
                      .fn = heads_page,
                      .rp = rp};
    struct sweep roll = {.d = rp->d,
                         .off = rp->d->g.roll_off,
                         .end = rp->d->g.roll_pages,
                         .next = heads_roll_next,
                         .fn = roll_page,
                         .rp = rp};
    int rc = sweep_run(&roll);

    return rc < 0 ? rc : sweep_run(&s);
}
