/* SPDX-License-Identifier: Apache-2.0
 *
 * The workloads. Devices are small and rings the smallest allowed, so that a recording of some
 * hundred requests has rings that wrap, flushes, checkpoints, anchors and blocks used again. */
#include "tests/crash/workload.h"

#define RING_MIN (JOURNAL_PAGES_MIN * PAGE_BYTES)

/* ---- requests ---- */

enum shape { SMALL, ODD, LARGE, BLOCKS, ANY };

static void place(struct stream *st, enum shape shape, uint32_t *first, uint32_t *n)
{
    struct life *l = st->l;
    uint32_t align = SECTORS_PER_PAGE;

    switch (shape) {
    case SMALL: /* a few pages */
        *n = SECTORS_PER_PAGE * (1 + life_below(l, 3));
        break;
    case ODD: /* not at page boundaries */
        *n = 1 + life_below(l, 30);
        align = 1;
        break;
    case LARGE: /* what may go straight home */
        *n = SECTORS_PER_PAGE * (16 + life_below(l, 48));
        break;
    case BLOCKS:
        *n = BLOCK_SECTORS * (1 + life_below(l, st->room / BLOCK_SECTORS));
        align = BLOCK_SECTORS;
        break;
    case ANY:
    default:
        *n = 1 + life_below(l, st->room - 1);
        align = 1;
    }
    *first = st->first + life_below(l, (st->room - *n) / align + 1) * align;
}

static bool one_write(struct stream *st, enum shape shape, enum write_kind kind)
{
    uint32_t ext, first, n;
    bool ok;

    if (!life_enter(st->l, &ext))
        return false;
    place(st, shape, &first, &n);
    ok = life_write(st->l, ext, first, n, kind);
    life_leave(st->l, ext);
    return ok;
}

/* A commit point, or pages into or out of the missing sets. */
static bool one_note(struct stream *st)
{
    struct life *l = st->l;
    uint32_t ext, first, n;
    bool ok;

    if (!life_enter(l, &ext))
        return false;
    place(st, SMALL, &first, &n);
    if (life_below(l, 3) == 0)
        ok = life_cp(l, ext);
    else
        ok = life_missing(l, ext, first / SECTORS_PER_PAGE, n / SECTORS_PER_PAGE,
                          life_below(l, 2) != 0);
    life_leave(l, ext);
    return ok;
}

static enum write_kind any_kind(struct life *l, uint32_t data_percent)
{
    if (life_below(l, 100) < data_percent)
        return W_DATA;
    return life_below(l, 2) != 0 ? W_ZERO : W_DISCARD;
}

/* ---- what happens beside the streams ---- */

static bool admin_any(struct life *l, uint32_t i)
{
    uint32_t ext = life_below(l, l->m->n_ext), what = life_below(l, 10);
    uint32_t r = life_below(l, REPLICAS);
    bool there = l->m->x[ext].set[r].there.acked, ok = true;

    (void)i;
    life_close(l, ext);
    if (what < 2)
        ok = life_delete(l, ext) && life_create(l, ext, false) && life_open(l, ext, false);
    else if (what < 5)
        ok = life_open(l, ext, false);
    else
        ok = life_set(l, ext, r, !there && life_below(l, 4) == 0, there && life_below(l, 3) == 0);
    life_reopen(l, ext);
    return ok;
}

/* Deletes and makes extents: on a full device it may not find room for a new one. */
static bool room(struct life *l, uint32_t ext)
{
    bool ok = true;

    life_close(l, ext);
    if (l->m->x[ext].there.acked && life_below(l, 2) == 0)
        ok = life_delete(l, ext);
    if (ok && !l->m->x[ext].there.acked)
        ok = life_create(l, ext, false);
    if (ok && l->m->x[ext].there.acked && l->epoch[ext] == 0)
        ok = life_open(l, ext, false);
    life_reopen(l, ext);
    return ok;
}

static bool admin_room(struct life *l, uint32_t i)
{
    return room(l, i % l->m->n_ext);
}

/* Empties one device, then the other, and so on. */
static bool drain(struct life *l, uint32_t i)
{
    const char *path = disk_path(i % l->disks);
    int rc = engine_drain(l->e, path);

    if (rc == 0)
        rc = engine_drain_wait(l->e, path);
    if (rc < 0 && rc != ERR_NOSPACE)
        return life_fail(l, "drain: %s", err_text(rc));
    engine_drain_stop(l->e, path);
    return true;
}

/* The same while extents come and go. */
static bool admin_drain(struct life *l, uint32_t i)
{
    return drain(l, i) && admin_any(l, i);
}

/* Makes an extent anew as the child of another, which is frozen from then on, until it is thawed,
 * or deletes one: origins before their children, and children before their origins. What is written
 * to a frozen one must not be seen in its children. */
static bool snapshot(struct life *l, bool reserve)
{
    uint32_t from = life_below(l, l->m->n_ext), n = l->m->n_ext - 1;
    uint32_t to = (from + 1 + life_below(l, n)) % l->m->n_ext;
    bool ok = true;

    life_close(l, from);
    life_close(l, to);
    if (l->m->x[to].there.acked)
        ok = life_delete(l, to);
    if (ok && l->m->x[from].frozen.acked && life_below(l, 3) == 0)
        ok = life_open(l, from, true);
    if (ok && l->m->x[from].there.acked)
        ok = life_write(l, from, life_below(l, MODEL_PAGES) * SECTORS_PER_PAGE, SECTORS_PER_PAGE,
                        W_DATA) &&
             life_cp(l, from);
    if (ok && l->m->x[from].there.acked && life_below(l, 5) != 0)
        ok = life_child(l, from, to, reserve);
    else if (ok)
        ok = life_create(l, to, reserve);
    if (ok && l->m->x[to].there.acked)
        ok = life_open(l, to, false);
    life_reopen(l, from);
    life_reopen(l, to);
    return ok;
}

static bool admin_snapshot(struct life *l, uint32_t i)
{
    (void)i;
    return snapshot(l, false);
}

/* Families that grow and shrink move to and fro. */
static bool admin_family(struct life *l, uint32_t i)
{
    return (i % 3 != 2 || drain(l, i / 3)) && admin_snapshot(l, i);
}

/* The same, and for some all is promised. */
static bool admin_thick_family(struct life *l, uint32_t i)
{
    uint32_t ext = life_below(l, l->m->n_ext);
    const struct model_extent *x = &l->m->x[ext];
    bool ok = true;

    life_close(l, ext);
    if (x->there.acked && !x->frozen.acked && l->epoch[ext] != 0 && life_below(l, 2) == 0)
        ok = life_reserve(l, ext, !x->reserved.acked);
    life_reopen(l, ext);
    return ok && (i % 3 != 2 || drain(l, i / 3)) && snapshot(l, life_below(l, 2) == 0);
}

/* The first extent is reserved, but for moments; others come and go beside it. */
static bool admin_thick(struct life *l, uint32_t i)
{
    uint32_t ext = 1 + i % (l->m->n_ext - 1);
    bool ok = true;

    life_close(l, 0);
    if (life_below(l, 3) == 0)
        ok = life_open(l, 0, false);
    if (ok && l->m->x[0].reserved.acked && life_below(l, 3) == 0)
        ok = life_reserve(l, 0, false);
    if (ok && !l->m->x[0].reserved.acked)
        ok = life_reserve(l, 0, true);
    life_reopen(l, 0);
    return ok && room(l, ext);
}

/* The scrubber joins what sequential writers left in two places. */
static bool admin_scrub(struct life *l, uint32_t i)
{
    struct scrub_status st;

    (void)i;
    engine_scrub_start(l->e, 1u << 30);
    do {
        (void)co_sleep(NSEC_PER_MSEC);
        engine_scrub_status(l->e, &st);
    } while (st.running);
    return true;
}

/* ---- streams ---- */

static bool op_random(struct stream *st, uint32_t i)
{
    (void)i;
    return one_write(st, life_below(st->l, 5) == 0 ? ODD : SMALL, W_DATA);
}

/* Each stream appends to its own range of an extent, round and round, in pieces of its own size:
 * a page, three, a large part of a block, more than a block. */
static bool op_sequential(struct stream *st, uint32_t i)
{
    static const uint32_t pages[] = {1, 3, 32, 64, 20, 100};
    uint32_t piece = pages[st->no % ARRAY_SIZE(pages)] * SECTORS_PER_PAGE;
    uint32_t steps = DIV_UP(st->room, piece), at = i % steps * piece, turn = i / steps;
    uint32_t ext = (st->no + turn) % st->l->m->n_ext;

    return life_write(st->l, ext, st->first + at, MIN(piece, st->room - at), W_DATA);
}

/* All streams together are one, pass after pass over an extent: in one of them in pieces that are
 * merged in new blocks, in the other in pieces that are when they fill old ones. */
static bool op_merged(struct stream *st, uint32_t i)
{
    static const uint32_t pages[] = {12, 16};
    struct stream *all = st - st->no;
    uint32_t piece = pages[all->pass % ARRAY_SIZE(pages)] * SECTORS_PER_PAGE, at = all->next;

    (void)i;
    if (at + piece > NEAR_BLOCKS * BLOCK_SECTORS) {
        all->pass++;
        at = 0;
        piece = pages[all->pass % ARRAY_SIZE(pages)] * SECTORS_PER_PAGE;
    }
    all->next = at + piece;
    return life_write(st->l, all->pass % st->l->m->n_ext, at, piece, W_DATA);
}

static bool op_mixed(struct stream *st, uint32_t i)
{
    uint32_t what = life_below(st->l, 100);
    enum shape shape = what < 30   ? SMALL
                       : what < 50 ? ODD
                       : what < 65 ? LARGE
                       : what < 75 ? BLOCKS
                                   : ANY;

    (void)i;
    if (what >= 85)
        return one_note(st);
    return one_write(st, shape, any_kind(st->l, 80));
}

static bool op_discard(struct stream *st, uint32_t i)
{
    static const enum shape shapes[] = {SMALL, ODD, LARGE, BLOCKS, ANY};
    enum shape shape = shapes[life_below(st->l, ARRAY_SIZE(shapes))];

    (void)i;
    return one_write(st, shape, any_kind(st->l, 45));
}

/* Fills what there is; from time to time something is given back. */
static bool op_full(struct stream *st, uint32_t i)
{
    if (i % 8 == 7)
        return one_write(st, BLOCKS, W_DISCARD);
    return one_write(st, i % 3 == 0 ? LARGE : i % 3 == 1 ? BLOCKS : SMALL, W_DATA);
}

/* Deep queues of tiny writes: commits with many records, a ring that is always under pressure. */
static bool op_pressure(struct stream *st, uint32_t i)
{
    return one_write(st, i % 4 == 0 ? LARGE : SMALL, W_DATA);
}

const struct workload workloads[] = {
    {.name = "random",
     .disk_bytes = 24u << 20,
     .ring_bytes = RING_MIN,
     .flush_delay_ms = 5,
     .extents = 2,
     .streams = 3,
     .ops = 150,
     .lives = 2,
     .op = op_random},
    {.name = "sequential",
     .disk_bytes = 32u << 20,
     .ring_bytes = RING_MIN,
     .flush_delay_ms = 4,
     .extents = 2,
     .streams = 6,
     .ops = 60,
     .lives = 2,
     .op = op_sequential,
     .admin = admin_scrub,
     .admin_ops = 6},
    {.name = "merged",
     .disk_bytes = 32u << 20,
     .ring_bytes = 8 * RING_MIN, /* under pressure they come one at a time */
     .flush_delay_ms = 4,
     .extents = 2,
     .streams = 6,
     .ops = 60, /* over either extent four times and more */
     .lives = 2,
     .op = op_merged},
    {.name = "mixed",
     .disk_bytes = 28u << 20,
     .ring_bytes = RING_MIN,
     .flush_delay_ms = 3,
     .memory_bytes = 1u << 20,
     .extents = 3,
     .streams = 3,
     .ops = 80,
     .lives = 3,
     .op = op_mixed,
     .admin = admin_any,
     .admin_ops = 25},
    {.name = "discard",
     .disk_bytes = 13u << 19,
     .ring_bytes = RING_MIN,
     .flush_delay_ms = 3,
     .memory_bytes = 8u << 10, /* no map page stays longer than it is needed */
     .extents = 2,
     .streams = 3,
     .ops = 180,
     .lives = 2,
     .may_fill = true,
     .op = op_discard},
    {.name = "full",
     .disk_bytes = 10u << 20,
     .physical_bytes = 4096,
     .ring_bytes = RING_MIN,
     .flush_delay_ms = 3,
     .extents = 3,
     .streams = 3,
     .ops = 90,
     .lives = 2,
     .may_fill = true,
     .op = op_full,
     .admin = admin_room,
     .admin_ops = 40},
    {.name = "thick",
     .disk_bytes = 270u << 20,
     .ring_bytes = RING_MIN,
     .flush_delay_ms = 3,
     .extents = 3,
     .streams = 3,
     .ops = 60,
     .lives = 3,
     .may_fill = true,
     .reserved_first = true,
     .op = op_full,
     .admin = admin_thick,
     .admin_ops = 24},
    {.name = "pressure",
     .disk_bytes = 24u << 20,
     .physical_bytes = 4096,
     .ring_bytes = RING_MIN,
     .flush_delay_ms = 1000,
     .memory_bytes = 1u << 20,
     .extents = 2,
     .streams = 6,
     .ops = 60,
     .lives = 2,
     .op = op_pressure},
    {.name = "drain",
     .disk_bytes = 24u << 20,
     .disks = 2,
     .ring_bytes = RING_MIN,
     .flush_delay_ms = 4,
     .extents = 3,
     .streams = 3,
     .ops = 40,
     .lives = 3,
     .op = op_mixed,
     .admin = admin_drain,
     .admin_ops = 8},
    {.name = "guest",
     .disk_bytes = 24u << 20,
     .disks = 2,
     .guest = true,
     .ring_bytes = RING_MIN,
     .flush_delay_ms = 4,
     .extents = 3,
     .streams = 3,
     .ops = 50,
     .lives = 3,
     .op = op_mixed,
     .admin = admin_drain,
     .admin_ops = 6},
    {.name = "snapshots",
     .disk_bytes = 40u << 20,
     .ring_bytes = RING_MIN,
     .flush_delay_ms = 4,
     .extents = 5,
     .streams = 3,
     .ops = 60,
     .lives = 3,
     .op = op_mixed,
     .admin = admin_snapshot,
     .admin_ops = 30},
    {.name = "family",
     .disk_bytes = 40u << 20,
     .disks = 2,
     .ring_bytes = RING_MIN,
     .flush_delay_ms = 4,
     .extents = 5,
     .streams = 3,
     .ops = 40,
     .lives = 3,
     .op = op_mixed,
     .admin = admin_family,
     .admin_ops = 18},
    {.name = "thick-family",
     .disk_bytes = 560u << 20,
     .disks = 2,
     .ring_bytes = RING_MIN,
     .flush_delay_ms = 4,
     .extents = 5,
     .streams = 3,
     .ops = 40,
     .lives = 3,
     .may_fill = true,
     .op = op_mixed,
     .admin = admin_thick_family,
     .admin_ops = 24},
};
const uint32_t n_workloads = ARRAY_SIZE(workloads);

/* ---- running them ---- */

static int stream_main(void *arg)
{
    struct stream *st = arg;

    for (uint32_t i = 0; i < st->ops && life_ok(st->l); i++)
        (void)st->w->op(st, i);
    return 0;
}

static bool extents_make(struct life *l)
{
    bool ok = true;

    for (uint32_t i = 0; i < l->m->n_ext && ok; i++) {
        if (!l->m->x[i].there.acked)
            ok = life_create(l, i, false);
        if (ok && l->m->x[i].there.acked && l->epoch[i] == 0)
            ok = life_open(l, i, false);
    }
    return ok;
}

static int admin_main(void *arg)
{
    struct stream *st = arg;

    for (uint32_t i = 0; i < st->w->admin_ops && life_ok(st->l); i++) {
        (void)co_sleep((nsec_t)life_below(st->l, 3000) * NSEC_PER_USEC);
        (void)st->w->admin(st->l, i);
    }
    (void)extents_make(st->l); /* the streams need some */
    return 0;
}

void workload_run(struct life *l, const struct workload *w, uint32_t ops)
{
    struct stream st[7];
    struct co_group g;

    ASSERT(w->streams < ARRAY_SIZE(st));
    if (!extents_make(l))
        return;
    co_group_init(&g);
    for (uint32_t i = 0; i < w->streams; i++) {
        uint32_t room = MODEL_SECTORS / w->streams;

        st[i] =
            (struct stream){.l = l, .w = w, .no = i, .ops = ops, .first = i * room, .room = room};
        co_spawn(&g, "stream", stream_main, &st[i]);
    }
    if (w->admin) {
        st[w->streams] = (struct stream){.l = l, .w = w};
        co_spawn(&g, "admin", admin_main, &st[w->streams]);
    }
    if (co_group_join(&g) < 0)
        (void)life_fail(l, "a stream was cancelled");
}

void workload_few(struct life *l, uint32_t ops)
{
    static const struct workload few = {
        .extents = 0, .streams = 3, .may_fill = true, .op = op_mixed};

    l->may_fill = true;
    workload_run(l, &few, ops);
}
