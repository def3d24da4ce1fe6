/* SPDX-License-Identifier: Apache-2.0
 *
 * The client's requests (life.h). */
#include "tests/crash/life.h"
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "common/base/crc32c.h"
#include "common/base/mem.h"

bool life_fail(struct life *l, const char *fmt, ...)
{
    va_list ap;

    if (!life_ok(l))
        return false;
    va_start(ap, fmt);
    (void)vsnprintf(l->failure, sizeof(l->failure), fmt, ap);
    va_end(ap);
    co_cond_broadcast(&l->changed);
    return false;
}

uint64_t life_random(struct life *l)
{
    l->rng ^= l->rng << 13;
    l->rng ^= l->rng >> 7;
    l->rng ^= l->rng << 17;
    return l->rng >> 11;
}

uint32_t life_below(struct life *l, uint32_t n)
{
    return (uint32_t)(life_random(l) % n);
}

void life_change(struct life *l, const struct change *c)
{
    model_apply(l->m, c);
    if (!l->log)
        return;
    changes_add(l->log, c);
    if (l->tape)
        sim_tape_mark(l->tape, l->log->n);
}

static void begin(struct life *l, struct change *c)
{
    c->phase = PH_BEGIN;
    life_change(l, c);
}

/* Whether an extent is reserved does not change while it is written to. */
static bool may_refuse(const struct life *l, const struct change *c)
{
    return l->may_fill && !(c->kind == CH_WRITE && l->m->x[c->ext].reserved.acked);
}

static bool end(struct life *l, struct change *c, int rc, const char *what)
{
    if (rc == ERR_NOSPACE && may_refuse(l, c)) {
        c->phase = PH_REFUSED;
        l->refused++;
    } else if (rc < 0) {
        return life_fail(l, "%s of extent %u: %s", what, c->ext, err_text(rc));
    } else {
        c->phase = PH_DONE;
    }
    life_change(l, c);
    return life_ok(l);
}

const char *disk_path(uint32_t disk)
{
    static const char *const path[DISKS_MAX] = {"/dev/chunk0", "/dev/chunk1"};

    ASSERT(disk < DISKS_MAX);
    return path[disk];
}

bool life_start(struct life *l)
{
    struct super_block *sb = mem_alloc(sizeof(*sb)), *first = mem_alloc(sizeof(*first));
    struct journal_host host = {.path = disk_path(0), .sb = first};
    int rc = 0;

    co_cond_init(&l->changed);
    l->e = engine_new(&l->conf);
    for (uint32_t i = 0; i < l->disks && rc == 0; i++) {
        rc = super_read(disk_path(i), sb);
        if (rc == 0)
            rc = engine_dev_add_guest(l->e, disk_path(i), sb, super_is_guest(sb) ? &host : NULL);
        if (i == 0)
            *first = *sb;
    }
    mem_free(first);
    mem_free(sb);
    if (rc < 0)
        return life_fail(l, "start: %s", err_text(rc));
    if (engine_lost(l->e, NULL, 0) > 0)
        return life_fail(l, "start: extents count as damaged");
    return true;
}

/* ---- extents ---- */

bool life_create(struct life *l, uint32_t ext, bool reserve)
{
    struct change c = {
        .kind = CH_CREATE, .ext = ext, .epoch = l->m->x[ext].epoch_maybe + 1, .reserve = reserve};
    struct create_args a = {
        .id = model_id(ext), .epoch = c.epoch, .volume_id = 7, .slot = ext, .reserve = reserve};
    int rc;

    begin(l, &c);
    rc = engine_create_as(l->e, &a);
    return end(l, &c, rc, "creation");
}

bool life_child(struct life *l, uint32_t origin, uint32_t ext, bool reserve)
{
    const struct model_extent *o = &l->m->x[origin];
    struct change c = {.kind = CH_CREATE,
                       .ext = ext,
                       .epoch = MAX(l->m->x[ext].epoch_maybe, o->epoch_maybe) + 1,
                       .origin = origin + 1,
                       .reserve = reserve};
    struct create_args a = {.id = model_id(ext),
                            .epoch = c.epoch,
                            .volume_id = 8,
                            .slot = ext,
                            .origin = model_id(origin),
                            .origin_epoch = o->epoch,
                            .reserve = reserve};
    int rc;

    begin(l, &c);
    rc = engine_create_as(l->e, &a);
    return end(l, &c, rc, "creation from another");
}

bool life_open(struct life *l, uint32_t ext, bool thaw)
{
    struct change c = {
        .kind = CH_OPEN, .ext = ext, .epoch = l->m->x[ext].epoch_maybe + 1, .thaw = thaw};
    struct open_args a = {.id = model_id(ext), .epoch = c.epoch, .thaw = thaw};
    struct open_info oi;
    int rc;

    begin(l, &c);
    l->epoch[ext] = 0;
    a.credit_blocks = life_below(l, 3);
    rc = engine_open_as(l->e, &a, &oi);
    open_info_free(&oi);
    if (rc == 0)
        rc = engine_vouch(l->e, a.id, a.epoch); /* the only replica */
    if (!end(l, &c, rc, "open"))
        return false;
    l->epoch[ext] = c.epoch;
    l->gen[ext] = 0;
    co_cond_broadcast(&l->changed);
    return true;
}

bool life_reserve(struct life *l, uint32_t ext, bool on)
{
    struct change c = {.kind = CH_RESERVE, .ext = ext, .reserve = on};
    int rc;

    begin(l, &c);
    rc = engine_reserve_extent(l->e, model_id(ext), l->epoch[ext], on, life_below(l, 3));
    return end(l, &c, rc, "reservation");
}

bool life_delete(struct life *l, uint32_t ext)
{
    struct change c = {.kind = CH_DELETE, .ext = ext};
    int rc;

    begin(l, &c);
    l->epoch[ext] = 0;
    rc = engine_delete(l->e, 1, model_id(ext), l->m->x[ext].epoch);
    return end(l, &c, rc, "deletion");
}

bool life_enter(struct life *l, uint32_t *ret_ext)
{
    for (;;) {
        uint32_t first = life_below(l, l->m->n_ext);

        for (uint32_t i = 0; i < 2 * l->m->n_ext; i++) {
            uint32_t ext = (first + i) % l->m->n_ext;
            bool avoid = i < l->m->n_ext && life_below(l, 3) != 0; /* frozen ones */

            if (l->closed[ext] || l->epoch[ext] == 0 || (l->m->x[ext].frozen.maybe && avoid))
                continue;
            l->busy[ext]++;
            *ret_ext = ext;
            return true;
        }
        if (!life_ok(l))
            return false;
        co_cond_wait_always(&l->changed);
    }
}

void life_leave(struct life *l, uint32_t ext)
{
    l->busy[ext]--;
    co_cond_broadcast(&l->changed);
}

void life_close(struct life *l, uint32_t ext)
{
    ASSERT(!l->closed[ext]);
    l->closed[ext] = true;
    while (l->busy[ext] > 0)
        co_cond_wait_always(&l->changed);
}

void life_reopen(struct life *l, uint32_t ext)
{
    l->closed[ext] = false;
    co_cond_broadcast(&l->changed);
}

/* ---- writes ---- */

/* The commit point that an owner knows: everything below what is on its way. */
static struct version known_cp(const struct life *l, uint32_t ext)
{
    struct version v = {l->epoch[ext], l->gen[ext]};

    for (uint32_t i = 0; i < l->m->n_pending; i++) {
        const struct change *c = &l->m->pending[i];

        if (c->ext == ext && version_cmp(c->v, v) <= 0)
            v = (struct version){c->v.epoch, c->v.gen - 1};
    }
    return v.gen > 0 ? v : (struct version){0, 0};
}

static struct buf *payload_new(const struct change *c)
{
    struct buf *b = buf_alloc((size_t)c->n * SECTOR_BYTES);
    uint64_t *words = (uint64_t *)b->data;

    for (uint32_t i = 0; i < c->n; i++) {
        uint64_t word = sector_word(c->number, c->first + i);

        for (uint32_t k = 0; k < SECTOR_BYTES / 8; k++)
            *words++ = word;
    }
    return b;
}

static int write_send(struct life *l, const struct change *c)
{
    struct write_args a = {.id = model_id(c->ext),
                           .v = c->v,
                           .commit_point = c->cp,
                           .kind = c->write,
                           .off = model_off(c->first),
                           .len = c->n * SECTOR_BYTES,
                           .repair = l->m->x[c->ext].frozen.maybe};
    uint32_t page_off = a.off % PAGE_BYTES, replicas[REPLICAS];
    uint32_t *crcs = MEM_NEW_ARRAY(uint32_t, c->n + 1);
    struct write_result res;
    int rc;

    for (uint32_t r = 0; r < REPLICAS; r++) {
        if (c->replicas >> r & 1)
            replicas[a.n_missing++] = replica_id(r);
    }
    a.missing = replicas;
    a.crc = crcs;
    if (c->write == W_DATA)
        a.payload = payload_new(c);
    for (uint32_t at = 0; a.payload && at < a.len; page_off = 0) {
        uint32_t n = MIN(PAGE_BYTES - page_off, a.len - at);

        crcs[a.n_crc++] = crc32c(0, a.payload->data + at, n);
        at += n;
    }
    rc = engine_write(l->e, &a, &res);
    buf_put(a.payload);
    mem_free(crcs);
    return rc;
}

bool life_write(struct life *l, uint32_t ext, uint32_t first, uint32_t n, enum write_kind kind)
{
    struct change c = {.kind = CH_WRITE,
                       .ext = ext,
                       .first = first,
                       .n = n,
                       .number = kind == W_DATA ? l->m->last_number + 1 : 0,
                       .write = kind};

    if (life_below(l, 4) != 0)
        c.cp = known_cp(l, ext);
    c.v = (struct version){l->epoch[ext], ++l->gen[ext]};
    for (uint32_t r = 0; r < REPLICAS; r++)
        c.replicas |= (uint32_t)l->m->x[ext].set[r].there.acked << r;
    begin(l, &c);
    l->ops++;
    return end(l, &c, write_send(l, &c), "write");
}

static bool model_uses(uint32_t block)
{
    bool uses = false;

    for (uint32_t b = 0; b < MODEL_BLOCKS; b++)
        uses |= model_block(b) == block;
    return uses;
}

bool life_full(struct life *l, uint32_t ext)
{
    struct buf *page = buf_alloc(PAGE_BYTES);
    uint32_t crc;
    int rc = 0;

    memset(page->data, 1, PAGE_BYTES);
    crc = crc32c(0, page->data, PAGE_BYTES);
    for (uint32_t b = 0; b < BLOCKS_PER_EXTENT && rc == 0; b++) {
        struct write_args a = {.id = model_id(ext),
                               .v = {l->epoch[ext], l->gen[ext] + 1},
                               .off = b * BLOCK_BYTES,
                               .len = PAGE_BYTES,
                               .payload = page,
                               .crc = &crc,
                               .n_crc = 1};
        struct write_result res;

        if (model_uses(b))
            continue;
        rc = engine_write(l->e, &a, &res);
        l->gen[ext]++;
    }
    buf_put(page);
    if (rc < 0)
        return life_fail(l, "filling extent %u: %s", ext, err_text(rc));
    life_change(l, &(struct change){.kind = CH_FULL, .ext = ext});
    return life_cp(l, ext);
}

bool life_again(struct life *l, const struct change *c)
{
    struct change again = *c;

    l->gen[c->ext] = MAX(l->gen[c->ext], c->v.gen);
    begin(l, &again);
    return end(l, &again, write_send(l, c), "write sent again");
}

/* ---- commit points, missing sets ---- */

bool life_cp(struct life *l, uint32_t ext)
{
    struct change c = {.kind = CH_CP, .ext = ext, .cp = known_cp(l, ext)};

    if (c.cp.epoch == 0)
        return true;
    begin(l, &c);
    return end(l, &c, engine_commit_point(l->e, model_id(ext), l->epoch[ext], c.cp),
               "commit point");
}

static bool missing_send(struct life *l, struct change *c, struct missing_change *mc, uint32_t n)
{
    begin(l, c);
    return end(l, c, engine_missing_change(l->e, model_id(c->ext), l->epoch[c->ext], mc, n),
               "missing set");
}

bool life_set(struct life *l, uint32_t ext, uint32_t replica, bool everything, bool drop)
{
    struct change c = {.kind = CH_SET,
                       .ext = ext,
                       .replicas = 1u << replica,
                       .everything = everything,
                       .drop = drop};
    struct missing_change mc = {
        .replica = replica_id(replica), .start = !drop, .everything = everything, .drop = drop};

    if (!drop)
        c.v = mc.last_version = known_cp(l, ext);
    return missing_send(l, &c, &mc, 1);
}

bool life_missing(struct life *l, uint32_t ext, uint32_t first_page, uint32_t pages, bool clear)
{
    struct change c = {.kind = clear ? CH_CLEAR : CH_ADD,
                       .ext = ext,
                       .first = first_page * SECTORS_PER_PAGE,
                       .n = pages * SECTORS_PER_PAGE};
    struct page_range range = {model_off(c.first) / PAGE_BYTES, pages};
    struct missing_change mc[REPLICAS];
    uint32_t n = 0;

    for (uint32_t r = 0; r < REPLICAS; r++) {
        if (!l->m->x[ext].set[r].there.acked)
            continue;
        c.replicas |= 1u << r;
        mc[n] = (struct missing_change){.replica = replica_id(r)};
        if (clear)
            mc[n].clear = &range, mc[n].n_clear = 1;
        else
            mc[n].add = &range, mc[n].n_add = 1;
        n++;
    }
    return n == 0 || missing_send(l, &c, mc, n);
}
