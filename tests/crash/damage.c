/* SPDX-License-Identifier: Apache-2.0
 *
 * Damage on the device is found, reported and never served: at some moments of a recording every
 * page of the device in turn (of data: some) gets a bit flipped, is replaced by what was there
 * earlier (a lost write) or by another page of its kind (a misdirected one). Whatever an engine
 * that starts on it then answers is right, an error, or an extent that says itself that it is void
 * or behind what its owner knows (PROTOCOL 2.5). */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "chunk/internal.h"
#include "common/env/sim.h"
#include "tests/crash/crash.h"

#define LIMIT     (1000 * NSEC_PER_SEC)
#define NEAR_PAST 40u /* device writes */
#define DATA_FSCK 16u /* zbs-fsck looks at one in so many of these */
#define DATA_STEP 8u  /* one page in so many of data: there are far more of them */

static const char *const struct_names[] = {"superblock", "anchor", "staging", "ring",     "roll",
                                           "bitmap",     "head",   "map",     "overflow", "data"};
static const char *const verdict_names[] = {"refused", "gone",    "void",
                                            "behind",  "corrupt", "right"};

const char *damage_name(int kind)
{
    static const char *const names[DAMAGES] = {"flip", "near", "far", "other", "zero"};

    return names[kind];
}

/* ---- what is where ---- */

enum {
    ST_SUPER,
    ST_ANCHOR,
    ST_STAGE,
    ST_RING,
    ST_ROLL,
    ST_BITMAP,
    ST_HEAD,
    ST_MAP,
    ST_OVERFLOW,
    ST_DATA
};

static int struct_of(const struct geometry *g, const struct sim_image *img, uint64_t page)
{
    uint64_t off = page * PAGE_BYTES;
    const struct meta_head *h = (const struct meta_head *)img->page[page];

    if (off < g->anchors_off || page + 1 == img->pages)
        return ST_SUPER;
    if (off < g->stage_off)
        return ST_ANCHOR;
    if (off < g->journal_off)
        return ST_STAGE;
    if (off < g->roll_off)
        return ST_RING;
    if (off < g->bitmap_off)
        return ST_ROLL;
    if (off < g->heads_off)
        return ST_BITMAP;
    if (off < g->data_off)
        return ST_HEAD;
    if (h && h->magic == META_MAGIC && h->off == off)
        return h->kind == META_MAP ? ST_MAP : ST_OVERFLOW;
    return ST_DATA;
}

/* ---- judging ---- */

struct judging {
    struct life l;
    uint64_t *verdicts; /* by verdict */
    bool done;
};

static bool page_right(struct judging *j, uint32_t ext, uint32_t page, const uint8_t *data)
{
    const struct model_extent *x = &j->l.m->x[ext];

    for (uint32_t s = page * SECTORS_PER_PAGE; s < (page + 1) * SECTORS_PER_PAGE;
         s++, data += SECTOR_BYTES) {
        uint64_t word;

        memcpy(&word, data, sizeof(word));
        if ((word != sector_word(x->acked[s], s) && word != sector_word(x->maybe[s], s)) ||
            memcmp(data, data + 8, SECTOR_BYTES - 8) != 0) {
            return life_fail(&j->l, "extent %u sector %u: word %016" PRIx64 " of write %u, not %u",
                             ext, s, word, (uint32_t)(word >> 32), x->acked[s]);
        }
    }
    return true;
}

/* Does the replica itself report a lower version of the page than its owner saw confirmed? Then it
 * lost the end of its journal, and opening makes the page equal to the others (PROTOCOL 2.4). */
static bool page_behind(const struct open_info *oi, const struct model_extent *x, uint32_t page)
{
    uint32_t at = model_off(page * SECTORS_PER_PAGE) / PAGE_BYTES;

    if (version_cmp(x->page[page].acked, oi->commit_point) <= 0)
        return false;
    for (uint32_t i = 0; i < oi->n_uncommitted; i++) {
        const struct uncommitted *u = &oi->uncommitted[i];

        if (at >= u->first && at <= u->last)
            return version_cmp(u->v, x->page[page].acked) < 0;
    }
    return true;
}

/* Pages from `first` on; how many were read at once. */
static uint32_t judge_pages(struct judging *j, uint32_t ext, const struct open_info *oi,
                            uint32_t first, uint32_t count, struct read_result *r)
{
    static const uint8_t zeroes[BLOCK_BYTES];
    struct life *l = &j->l;
    int rc = engine_read(l->e, model_id(ext), l->epoch[ext], model_off(first * SECTORS_PER_PAGE),
                         count * PAGE_BYTES, r);
    const uint8_t *data;

    if (rc < 0 && count > 1)
        return judge_pages(j, ext, oi, first, 1, r);
    if (rc < 0) {
        if (rc != ERR_CORRUPT && rc != ERR_NOT_OPEN)
            (void)life_fail(l, "reading extent %u: %s", ext, err_text(rc));
        j->verdicts[VERDICT_CORRUPT]++;
        return 1;
    }
    data = r->zero ? zeroes : r->buf->data + r->buf_off;
    for (uint32_t i = 0; i < count && life_ok(l); i++) {
        if (page_behind(oi, &l->m->x[ext], first + i))
            j->verdicts[VERDICT_BEHIND]++;
        else if (page_right(j, ext, first + i, data + (size_t)i * PAGE_BYTES))
            j->verdicts[VERDICT_RIGHT]++;
    }
    buf_put(r->buf);
    return count;
}

/* Is it an extent that was deleted, of the same id? Ids are never given twice, but here they are;
 * its versions would tell it from the present one if that had any. */
static bool is_former(struct life *l, uint32_t ext)
{
    const struct model_extent *x = &l->m->x[ext];
    struct replica_info info;
    bool more;

    return x->last.acked.epoch == 0 && engine_list(l->e, model_id(ext) - 1, &info, 1, &more) == 1 &&
           info.id == model_id(ext) && info.epoch < x->epoch;
}

static void judge_extent(struct judging *j, uint32_t ext)
{
    struct life *l = &j->l;
    const struct model_extent *x = &l->m->x[ext];
    struct read_result *r;
    struct open_info oi;
    int rc;

    if (engine_check_epoch(l->e, model_id(ext), 1) == ERR_NO_REPLICA) {
        j->verdicts[VERDICT_GONE] += x->there.acked && x->there.maybe;
        return;
    }
    if (is_former(l, ext)) {
        j->verdicts[VERDICT_GONE]++;
        return;
    }
    if (!x->there.acked) /* made in flight, or deleted and back: nobody asks for it */
        return;
    l->epoch[ext] = x->epoch_maybe + 1;
    rc = engine_open(l->e, model_id(ext), l->epoch[ext], 0, &oi);
    if (rc < 0) {
        (void)life_fail(l, "opening extent %u: %s", ext, err_text(rc));
        return;
    }
    if (oi.is_void) {
        j->verdicts[VERDICT_VOID]++;
        if (engine_lost(l->e, NULL, 0) == 0)
            (void)life_fail(l, "extent %u is void and does not count as lost", ext);
    } else if (version_cmp(oi.last_version, x->last.acked) < 0) {
        j->verdicts[VERDICT_BEHIND]++;
    } else {
        r = mem_alloc(sizeof(*r));
        for (uint32_t p = 0; p < MODEL_PAGES && life_ok(l);)
            p += judge_pages(j, ext, &oi, p,
                             MIN(MODEL_PAGES - p, PAGES_PER_BLOCK - p % PAGES_PER_BLOCK), r);
        mem_free(r);
    }
    open_info_free(&oi);
}

static int judge_main(void *arg)
{
    struct judging *j = arg;
    struct life *l = &j->l;
    struct super_block *sb = mem_alloc(sizeof(*sb));
    int rc = super_read(disk_path(0), sb);

    co_cond_init(&l->changed);
    l->e = engine_new(&l->conf);
    if (rc == 0)
        rc = engine_dev_add(l->e, disk_path(0), sb);
    mem_free(sb);
    if (rc < 0) {
        if (rc != ERR_FORMAT && rc != ERR_CORRUPT && rc != ERR_VERSION)
            (void)life_fail(l, "start: %s", err_text(rc));
        j->verdicts[VERDICT_REFUSED]++;
    }
    for (uint32_t i = 0; i < l->m->n_ext && rc == 0 && life_ok(l); i++)
        judge_extent(j, i);
    if (rc == 0 && engine_flush(l->e) < 0) /* what shows now must not do harm either */
        (void)life_fail(l, "flush: %s", err_text(ERR_CORRUPT));
    if (life_ok(l))
        engine_stop(l->e);
    j->done = true;
    return 0;
}

static bool is_over(void *arg)
{
    return !sim_proc_running(arg);
}

/* A check, or a repair and a check. */
static bool fsck_first(struct sim *s, struct sim_proc *p, struct fsck_run runs[2])
{
    bool ok = true;

    for (uint32_t i = 0; i < 2 && ok && runs[i].path; i++) {
        uint64_t before = sim_disk_bytes_written(p, disk_path(0));

        sim_proc_start(p, fsck_run_main, &runs[i]);
        ok = sim_run_until(s, is_over, p, LIMIT) && runs[i].done;
        runs[i].written = sim_disk_bytes_written(p, disk_path(0)) - before;
    }
    return ok;
}

/* After zbs-fsck, starts twice: the second one sees what the first made of the damage. */
static bool judge(const struct recording *r, const struct model *m, const struct sim_image *img,
                  uint64_t seed, struct fsck_run fsck[2], uint64_t *verdicts, char *why,
                  size_t why_len)
{
    struct sim_conf conf = {.seed = seed};
    struct sim *s = sim_new(&conf);
    struct sim_proc *p = sim_proc_new(s, "127.1.0.1", "chunk");
    struct model *copy = model_copy(m);
    uint64_t second[VERDICTS] = {0};
    bool ok = true;

    sim_disk_create_from(p, disk_path(0), img, 0, img->pages);
    if (r->w->physical_bytes != 0)
        sim_disk_set_physical(p, disk_path(0), r->w->physical_bytes);
    ok = fsck_first(s, p, fsck);
    if (!ok)
        snprintf(why, why_len, "fsck does not end");
    for (uint32_t i = 0; i < 2 && ok; i++) {
        struct judging j = {.l = {.m = copy, .disks = 1, .rng = seed | 1, .conf = {.workers = 1}},
                            .verdicts = i == 0 ? verdicts : second};

        if (!sim_proc_running(p))
            sim_proc_start(p, judge_main, &j);
        ok = sim_run_until(s, is_over, p, LIMIT) && j.done && life_ok(&j.l);
        if (!ok)
            snprintf(why, why_len, "start %u: %s", i + 1,
                     j.l.failure[0] ? j.l.failure : "it does not end");
        for (uint32_t k = 0; k < m->n_ext; k++)
            copy->x[k].epoch_maybe++;
        if (sim_proc_running(p))
            sim_proc_crash(p);
        sim_run_for(s, NSEC_PER_MSEC);
    }
    sim_free(s);
    free(copy);
    return ok;
}

/* ---- damaging ---- */

struct moment {
    const struct recording *r;
    const struct crash_conf *conf;
    struct tally *t;
    const struct model *m;
    const struct sim_image *now, *near, *far;
    struct geometry g;
    uint64_t no, base; /* number of the moment, of its first damage */
    uint64_t rng;
};

static uint64_t draw(uint64_t *rng)
{
    *rng ^= *rng << 13;
    *rng ^= *rng >> 7;
    *rng ^= *rng << 17;
    return *rng >> 8;
}

static const uint8_t *page_or_zero(const struct sim_image *img, uint64_t page)
{
    return img->page[page] ? img->page[page] : zero_page;
}

/* Another page of the same kind: NULL if none was found. */
static const uint8_t *other_page(struct moment *mo, uint64_t page)
{
    int kind = struct_of(&mo->g, mo->now, page);

    for (uint32_t i = 0; i < 200; i++) {
        uint64_t other = draw(&mo->rng) % mo->now->pages;

        if (other != page && mo->now->page[other] && struct_of(&mo->g, mo->now, other) == kind)
            return mo->now->page[other];
    }
    return NULL;
}

/* What the page becomes; false: this damage would change nothing. */
static bool damaged(struct moment *mo, uint64_t page, int kind, uint8_t *dst)
{
    const uint8_t *was = page_or_zero(mo->now, page), *to = was;
    uint64_t bit = draw(&mo->rng) % (PAGE_BYTES * 8);

    if (kind == DAMAGE_NEAR)
        to = page_or_zero(mo->near, page);
    else if (kind == DAMAGE_FAR)
        to = page_or_zero(mo->far, page);
    else if (kind == DAMAGE_OTHER)
        to = other_page(mo, page);
    else if (kind == DAMAGE_ZERO)
        to = zero_page;
    if (!to)
        return false;
    memcpy(dst, to, PAGE_BYTES);
    if (kind == DAMAGE_FLIP) {
        if (bit % 4 == 0) /* the first bytes matter most */
            bit %= 1024 * 8;
        dst[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
    return memcmp(dst, was, PAGE_BYTES) != 0;
}

/* A check explains what is lost; a repair of what it found makes nothing worse. */
static bool fsck_judge(struct moment *mo, const struct sim_image *img, int where,
                       const struct fsck_run *check, const uint64_t was[VERDICTS], char *why,
                       size_t size)
{
    struct fsck_run repair[2] = {{.path = disk_path(0), .repair = true}, {.path = disk_path(0)}};
    uint64_t is[VERDICTS] = {0};
    bool ok = !check->done || fsck_explains(check, was, why, size);

    if (ok && check->rc == 0 && check->r.findings > 0)
        ok = judge(mo->r, mo->m, img, mo->rng, repair, is, why, size) &&
             fsck_no_worse(&repair[0], &repair[1], was, is, why, size);
    fsck_count(mo->t, (uint32_t)where, check, &repair[0], was, is);
    return ok;
}

static void one_damage(struct moment *mo, uint64_t page, int kind)
{
    struct fsck_run check[2] = {{0}};
    uint64_t verdicts[VERDICTS] = {0};
    struct tally *t = mo->t;
    int where = struct_of(&mo->g, mo->now, page);
    uint8_t bytes[PAGE_BYTES];
    struct sim_image *img;
    char why[500];

    t->at_point = mo->base + page * DAMAGES + (uint64_t)kind;
    mo->rng = (mo->conf->seed * 0x9e3779b97f4a7c15u ^ t->at_point * 0xbf58476d1ce4e5b9u) | 1;
    if (!damaged(mo, page, kind, bytes))
        return;
    img = sim_image_copy(mo->now);
    sim_image_set(img, page, bytes);
    /* As soon after a start, when nothing is restored from there: all that was staged is in place.
     */
    if (where != ST_STAGE && draw(&mo->rng) % 2)
        sim_image_set(img, mo->g.stage_off / PAGE_BYTES, zero_page);
    if (mo->conf->verbose) {
        printf("%s: damage %" PRIu64 ": page %" PRIu64 ", %s, %s\n", mo->r->w->name, t->at_point,
               page, struct_names[where], damage_name(kind));
        fflush(stdout);
    }
    if (where != ST_DATA || draw(&mo->rng) % DATA_FSCK == 0)
        check[0].path = disk_path(0);
    if (!judge(mo->r, mo->m, img, mo->rng, check, verdicts, why, sizeof(why)) ||
        !fsck_judge(mo, img, where, check, verdicts, why, sizeof(why))) {
        t->failures++;
        printf("%s: page %" PRIu64 " (%s), %s: %s\n", mo->r->w->name, page, struct_names[where],
               damage_name(kind), why);
        damage_again(mo->r, mo->conf, t->at_point);
    }
    for (uint32_t v = 0; v < VERDICTS; v++)
        t->verdict[where][v] += verdicts[v];
    t->damaged[where]++;
    t->checks++;
    sim_image_free(img);
}

static bool page_chosen(const struct moment *mo, uint64_t page)
{
    return struct_of(&mo->g, mo->now, page) != ST_DATA || (page + mo->no) % DATA_STEP == 0;
}

static void one_moment(struct moment *mo, uint32_t part, uint64_t from, uint64_t end)
{
    uint64_t n = mo->now->pages * DAMAGES;
    struct super_block sb;

    memcpy(&sb, mo->now->page[0], sizeof(sb));
    if (geometry_compute(&sb, 0, &mo->g) < 0)
        return;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t page = i / DAMAGES, at = mo->base + i;

        if (at < from || at >= end || page % mo->conf->step != 0 ||
            page / mo->conf->step % mo->conf->jobs != part || !page_chosen(mo, page) ||
            (!mo->now->page[page] && !mo->near->page[page] && !mo->far->page[page]))
            continue;
        one_damage(mo, page, (int)(i % DAMAGES));
    }
    mo->t->points++;
}

/* Is there an older image from so many completions before the moment? */
static bool before_moment(uint64_t point, uint64_t every, uint64_t past)
{
    return (point + past) % every == 0;
}

void damage_moments(const struct recording *r, const struct crash_conf *conf, uint32_t part,
                    uint64_t from, struct tally *t)
{
    struct sim_player *pl = sim_player_new(r->start);
    struct model *m = model_new(r->w->extents);
    uint64_t end = conf->count != 0 ? conf->from + conf->count : UINT64_MAX, point = 0, no = 0;
    uint64_t every = MAX(crash_points_of(r->tape) / (conf->moments + 1), 2 * NEAR_PAST);
    struct sim_image *near = NULL, *far = NULL;
    uint32_t applied = 0;

    for (uint64_t i = 0; i < r->tape->n_ev && no < conf->moments; i++) {
        const struct sim_tape_event *ev = &r->tape->ev[i];
        bool completes = ev->kind == SIM_TAPE_DONE || ev->kind == SIM_TAPE_FLUSH;

        while (ev->kind == SIM_TAPE_MARK && applied < ev->n)
            model_apply(m, &r->log.c[applied++]);
        point += completes;
        if (completes && before_moment(point, every, NEAR_PAST * 6)) {
            sim_image_free(far);
            far = sim_player_crash(pl, SIM_ALL_KEPT, 1);
        } else if (completes && before_moment(point, every, NEAR_PAST)) {
            sim_image_free(near);
            near = sim_player_crash(pl, SIM_ALL_KEPT, 1);
        } else if (completes && point % every == 0 && near && far) {
            struct moment mo = {.r = r, .conf = conf, .t = t, .m = m, .near = near, .far = far};

            mo.now = sim_player_crash(pl, SIM_ALL_KEPT, 1);
            mo.no = no++;
            mo.base = mo.no * mo.now->pages * DAMAGES;
            one_moment(&mo, part, from, end);
            sim_image_free((struct sim_image *)mo.now);
        }
        sim_player_event(pl, r->tape, ev);
    }
    sim_image_free(near);
    sim_image_free(far);
    free(m);
    sim_player_free(pl);
}

/* ---- the report ---- */

void damage_again(const struct recording *r, const struct crash_conf *conf, uint64_t point)
{
    printf("  again: zbs-crash --damage %u --workload %s --seed %" PRIu64 " --from %" PRIu64
           " --count 1 --verbose\n",
           conf->moments, r->w->name, conf->seed, point);
    fflush(stdout);
}

void damage_print(const struct tally *sum)
{
    for (uint32_t w = 0; w < ARRAY_SIZE(struct_names); w++) {
        printf("  %-10s %6" PRIu64 " damaged:", struct_names[w], sum->damaged[w]);
        for (uint32_t v = 0; v < VERDICTS; v++)
            printf(" %s %" PRIu64 "%s", verdict_names[v], sum->verdict[w][v],
                   v + 1 < VERDICTS ? "," : ";");
        printf(" fsck: refused %" PRIu64 ", found %" PRIu64 ", mended %" PRIu64 ", saved %" PRIu64
               "\n",
               sum->fsck[w][FSCK_REFUSED], sum->fsck[w][FSCK_FOUND], sum->fsck[w][FSCK_MENDED],
               sum->fsck[w][FSCK_SAVED]);
    }
}
