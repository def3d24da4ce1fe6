/* SPDX-License-Identifier: Apache-2.0
 *
 * Images, tapes and players (sim_tape.h). */
#include <inttypes.h>
#include <string.h>
#include "common/base/buf.h"
#include "common/env/sim/sim_media.h"

/* ---- images ---- */

/* Pages that belong to one image. */
struct own {
    struct own *next;
    uint8_t data[SIM_PAGE];
};

static struct sim_image *image_new(uint64_t pages)
{
    struct sim_image *img = SIM_NEW(struct sim_image);

    img->pages = pages;
    img->page = sim_alloc(pages * sizeof(*img->page));
    return img;
}

struct sim_image *sim_image_copy(const struct sim_image *img)
{
    struct sim_image *copy = image_new(img->pages);

    memcpy(copy->page, img->page, img->pages * sizeof(*img->page));
    copy->sum = img->sum;
    return copy;
}

/* What a page contributes to the sum of its image: it depends on the place and on the content. */
static uint64_t page_sum(uint64_t no, const uint8_t *page)
{
    uint64_t a = no + 1, b = ~no;

    if (!page)
        return 0;
    for (uint32_t i = 0; i < SIM_PAGE; i += 16) {
        uint64_t w[2];

        memcpy(w, page + i, sizeof(w));
        a = (a ^ w[0]) * 0x9e3779b97f4a7c15u;
        b = (b ^ w[1]) * 0xbf58476d1ce4e5b9u;
        a ^= a >> 32;
        b ^= b >> 29;
    }
    return (a ^ (b << 17 | b >> 47)) * 0x94d049bb133111ebu;
}

/* Before a page changes and after it. */
static void sum_page(struct sim_image *img, uint64_t page)
{
    img->sum ^= page_sum(page, img->page[page]);
}

/* A page that may be changed, with what the image has there. */
static uint8_t *image_own(struct sim_image *img, uint64_t page)
{
    struct own *o = SIM_NEW(struct own);

    ASSERT(page < img->pages);
    if (img->page[page])
        memcpy(o->data, img->page[page], SIM_PAGE);
    o->next = img->own;
    img->own = o;
    img->page[page] = o->data;
    return o->data;
}

void sim_image_set(struct sim_image *img, uint64_t page, const void *src)
{
    sum_page(img, page);
    if (mem_is_zero(src, SIM_PAGE))
        img->page[page] = NULL;
    else
        memcpy(image_own(img, page), src, SIM_PAGE);
    sum_page(img, page);
}

void sim_image_free(struct sim_image *img)
{
    struct own *next;

    if (!img)
        return;
    for (struct own *o = img->own; o; o = next) {
        next = o->next;
        sim_mem_free(o);
    }
    sim_mem_free(img->page);
    sim_mem_free(img);
}

struct sim_image *sim_image_of(struct sim_proc *p)
{
    struct sim_image *img = image_new(sim_disks_bytes(p) / SIM_PAGE);
    uint8_t data[SIM_PAGE];

    for (uint64_t no = 0; no < img->pages; no++) {
        sim_disks_peek(p, no, data);
        sim_image_set(img, no, data);
    }
    return img;
}

/* ---- tapes ---- */

static void tape_add(struct sim_tape *t, enum sim_tape_kind kind, uint32_t disk, uint64_t n)
{
    if (t->n_ev == t->cap_ev) {
        t->cap_ev = t->cap_ev ? 2 * t->cap_ev : 256;
        t->ev = mem_raw_realloc(t->ev, t->cap_ev * sizeof(*t->ev));
    }
    t->ev[t->n_ev++] = (struct sim_tape_event){kind, disk, n};
}

struct sim_tape *sim_tape_new(void)
{
    return SIM_NEW(struct sim_tape);
}

void sim_tape_free(struct sim_tape *t)
{
    if (!t)
        return;
    for (uint64_t i = 0; i < t->n_w; i++)
        sim_mem_free(t->w[i].data);
    sim_mem_free(t->w);
    sim_mem_free(t->ev);
    sim_mem_free(t);
}

void sim_tape_mark(struct sim_tape *t, uint64_t n)
{
    tape_add(t, SIM_TAPE_MARK, 0, n);
}

uint64_t sim_tape_submit(struct sim_tape *t, uint32_t disk, uint64_t base, const struct disk_req *r)
{
    struct sim_tape_write *w;
    uint32_t at = 0;

    if (t->n_w == t->cap_w) {
        t->cap_w = t->cap_w ? 2 * t->cap_w : 256;
        t->w = mem_raw_realloc(t->w, t->cap_w * sizeof(*t->w));
    }
    w = &t->w[t->n_w];
    *w = (struct sim_tape_write){
        .disk = disk, .off = base + r->off, .len = (uint32_t)r->len, .durable = r->durable};
    ASSERT(w->off % SIM_SECTOR == 0 && w->len % SIM_SECTOR == 0);
    w->data = sim_alloc(w->len);
    for (int i = 0; i < r->iov_count; i++) {
        memcpy(w->data + at, r->iov[i].iov_base, r->iov[i].iov_len);
        at += (uint32_t)r->iov[i].iov_len;
    }
    ASSERT(at == w->len);
    t->bytes += at;
    tape_add(t, SIM_TAPE_SUBMIT, disk, t->n_w);
    return t->n_w++;
}

void sim_tape_done(struct sim_tape *t, uint64_t n)
{
    t->n_done++;
    tape_add(t, SIM_TAPE_DONE, t->w[n].disk, n);
}

void sim_tape_drop(struct sim_tape *t, uint64_t n)
{
    tape_add(t, SIM_TAPE_DROP, t->w[n].disk, n);
}

void sim_tape_flush(struct sim_tape *t, uint32_t disk, uint64_t n_done)
{
    tape_add(t, SIM_TAPE_FLUSH, disk, n_done);
}

/* ---- players ---- */

struct open_write {
    const struct sim_tape_write *w;
    uint64_t n;     /* its number, while in flight */
    uint64_t done;  /* how many had completed since its tape's start, itself included */
    uint64_t *dead; /* sectors that a later durable write has superseded; NULL: none */
};
struct sim_player {
    struct sim_image *img;   /* what is durable */
    struct open_write *open; /* completed ones first, in order; then those in flight */
    uint32_t n_open, n_done, cap;
    uint64_t done;
};

struct sim_player *sim_player_new(const struct sim_image *start)
{
    struct sim_player *pl = SIM_NEW(struct sim_player);

    pl->img = sim_image_copy(start);
    return pl;
}

static uint64_t dead_bytes(const struct sim_tape_write *w)
{
    return DIV_UP(w->len / SIM_SECTOR, 64) * sizeof(uint64_t);
}

struct sim_player *sim_player_copy(const struct sim_player *pl)
{
    struct sim_player *copy = sim_player_new(pl->img);

    copy->n_open = pl->n_open;
    copy->n_done = pl->n_done;
    copy->done = pl->done;
    copy->cap = pl->n_open;
    copy->open = sim_memdup(pl->open, pl->n_open * sizeof(*pl->open));
    for (uint32_t i = 0; i < pl->n_open; i++) {
        if (pl->open[i].dead)
            copy->open[i].dead = sim_memdup(pl->open[i].dead, dead_bytes(pl->open[i].w));
    }
    return copy;
}

void sim_player_free(struct sim_player *pl)
{
    if (!pl)
        return;
    for (uint32_t i = 0; i < pl->n_open; i++)
        sim_mem_free(pl->open[i].dead);
    sim_mem_free(pl->open);
    sim_image_free(pl->img);
    sim_mem_free(pl);
}

uint32_t sim_player_open(const struct sim_player *pl)
{
    return pl->n_open;
}

static uint64_t draw(uint64_t *state)
{
    uint64_t x = *state += 0x9e3779b97f4a7c15u;

    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* Is sector i of the write still the newest? */
static bool alive(const struct open_write *o, uint32_t i)
{
    return !o->dead || !(o->dead[i / 64] >> (i % 64) & 1);
}

/* Puts the first `sectors` of a write into the image; with a generator, each of them by chance. */
static void image_put(struct sim_image *img, const struct open_write *o, uint32_t sectors,
                      uint64_t *rng)
{
    const uint32_t per = SIM_PAGE / SIM_SECTOR;
    uint64_t first = o->w->off / SIM_SECTOR; /* of the disk */

    for (uint32_t i = 0, n; i < sectors; i += n) {
        const uint8_t *src = o->w->data + (size_t)i * SIM_SECTOR;
        uint32_t in_page = (uint32_t)((first + i) % per);
        uint64_t chosen = rng ? draw(rng) : UINT64_MAX;
        uint64_t page = (first + i) / per;
        uint8_t *dst;

        n = MIN(per - in_page, sectors - i);
        sum_page(img, page);
        if (n == per && !o->dead && !rng) {
            img->page[page] = src;
        } else {
            dst = image_own(img, page) + (size_t)in_page * SIM_SECTOR;
            for (uint32_t k = 0; k < n; k++)
                if ((chosen >> k & 1) && alive(o, i + k))
                    memcpy(dst + (size_t)k * SIM_SECTOR, src + (size_t)k * SIM_SECTOR, SIM_SECTOR);
        }
        sum_page(img, page);
    }
}

static void put_whole(struct sim_image *img, const struct open_write *o)
{
    image_put(img, o, o->w->len / SIM_SECTOR, NULL);
}

static struct open_write open_take(struct sim_player *pl, uint32_t i)
{
    struct open_write o = pl->open[i];

    pl->n_open--;
    memmove(&pl->open[i], &pl->open[i + 1], (pl->n_open - i) * sizeof(*pl->open));
    if (i < pl->n_done)
        pl->n_done--;
    return o;
}

static void open_insert(struct sim_player *pl, uint32_t i, struct open_write o)
{
    if (pl->n_open == pl->cap) {
        pl->cap = 2 * pl->cap + 8;
        pl->open = mem_raw_realloc(pl->open, pl->cap * sizeof(*pl->open));
    }
    memmove(&pl->open[i + 1], &pl->open[i], (pl->n_open - i) * sizeof(*pl->open));
    pl->open[i] = o;
    pl->n_open++;
}

static uint32_t in_flight(const struct sim_player *pl, uint64_t n)
{
    for (uint32_t i = pl->n_done; i < pl->n_open; i++)
        if (pl->open[i].n == n)
            return i;
    ASSERTF(false, "write %" PRIu64 " is not in flight", n);
}

/* A durable write supersedes what the cache held of its sectors. */
static void supersede(struct open_write *o, const struct sim_tape_write *by)
{
    uint64_t from = MAX(o->w->off, by->off);
    uint64_t to = MIN(o->w->off + o->w->len, by->off + by->len);

    for (uint64_t off = from; off < to; off += SIM_SECTOR) {
        uint64_t k = (off - o->w->off) / SIM_SECTOR;

        if (!o->dead)
            o->dead = sim_alloc(dead_bytes(o->w));
        o->dead[k / 64] |= 1ull << (k % 64);
    }
}

static void done(struct sim_player *pl, uint32_t i)
{
    struct open_write o = open_take(pl, i);

    o.done = ++pl->done;
    if (!o.w->durable) {
        open_insert(pl, pl->n_done++, o);
        return;
    }
    for (uint32_t k = 0; k < pl->n_done; k++)
        supersede(&pl->open[k], o.w);
    put_whole(pl->img, &o);
    sim_mem_free(o.dead);
}

static void flush(struct sim_player *pl, uint32_t disk, uint64_t n)
{
    for (uint32_t i = 0; i < pl->n_done && pl->open[i].done <= n;) {
        struct open_write o;

        if (pl->open[i].w->disk != disk) {
            i++;
            continue;
        }
        o = open_take(pl, i);
        put_whole(pl->img, &o);
        sim_mem_free(o.dead);
    }
}

void sim_player_event(struct sim_player *pl, const struct sim_tape *t,
                      const struct sim_tape_event *ev)
{
    switch (ev->kind) {
    case SIM_TAPE_SUBMIT:
        open_insert(pl, pl->n_open, (struct open_write){.w = &t->w[ev->n], .n = ev->n});
        break;
    case SIM_TAPE_DONE:
        done(pl, in_flight(pl, ev->n));
        break;
    case SIM_TAPE_DROP:
        (void)open_take(pl, in_flight(pl, ev->n));
        break;
    case SIM_TAPE_FLUSH:
        flush(pl, ev->disk, ev->n);
        break;
    case SIM_TAPE_MARK:
        break;
    }
}

/* ---- crashes ---- */

void sim_player_kill(struct sim_player *pl, uint64_t seed)
{
    uint32_t kept = 0;

    while (kept < pl->n_open - pl->n_done) {
        if (draw(&seed) % 2)
            kept++;
        else
            sim_mem_free(open_take(pl, pl->n_done + kept).dead);
    }
    pl->n_done = pl->n_open;
    for (uint32_t i = 0; i < pl->n_open; i++)
        pl->open[i].done = 0; /* before whatever completes on the next tape */
    pl->done = 0;
}

static void put_by(struct sim_image *img, const struct open_write *o, enum sim_outcome how,
                   uint64_t *rng)
{
    uint32_t sectors = o->w->len / SIM_SECTOR, per = SIM_PAGE / SIM_SECTOR;
    uint32_t some = (uint32_t)(1 + draw(rng) % DIV_UP(sectors, per)) * per;
    uint64_t n = draw(rng);

    switch (how) {
    case SIM_ALL_LOST:
        break;
    case SIM_SUBSET:
        if (n % 3 == 1)
            put_whole(img, o);
        else if (n % 3 == 2)
            image_put(img, o, MIN(sectors, some), NULL);
        break;
    case SIM_TORN:
        if (n % 4 == 1)
            put_whole(img, o);
        else if (n % 4 > 1)
            image_put(img, o, sectors, rng);
        break;
    case SIM_ALL_KEPT:
    default:
        put_whole(img, o);
    }
}

struct sim_image *sim_player_crash(const struct sim_player *pl, enum sim_outcome how, uint64_t seed)
{
    struct sim_image *img = sim_image_copy(pl->img);
    uint32_t flying = pl->n_open - pl->n_done;
    bool reverse = draw(&seed) % 2; /* what is in flight has no order */

    for (uint32_t i = 0; i < pl->n_done; i++)
        put_by(img, &pl->open[i], how, &seed);
    for (uint32_t i = 0; i < flying; i++)
        put_by(img, &pl->open[pl->n_done + (reverse ? flying - 1 - i : i)], how, &seed);
    return img;
}
