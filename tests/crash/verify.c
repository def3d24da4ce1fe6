/* SPDX-License-Identifier: Apache-2.0
 *
 * What a restarted engine says and holds, against the model (PROTOCOL 2.2, 2.3, 5.1): what was
 * acknowledged exactly, what was on its way entirely or not at all, page by page - and the
 * version that the replica reports for a page tells which. */
#include <inttypes.h>
#include <string.h>
#include "common/base/buf.h"
#include "common/base/mem.h"
#include "tests/crash/life.h"

/* One extent being looked at. */
struct look {
    struct life *l;
    uint32_t ext;
    const struct model_extent *x;
    bool settle;
    struct open_info oi;
    bool happened[MODEL_PAGES]; /* the write on its way */
};

static void settle(struct look *k, struct change c)
{
    c.ext = k->ext;
    if (k->settle)
        life_change(k->l, &c);
}

static uint32_t extent_page(uint32_t page)
{
    return model_off(page * SECTORS_PER_PAGE) / PAGE_BYTES;
}

/* ---- what opening answers ---- */

static struct version reported(const struct open_info *oi, uint32_t page)
{
    for (uint32_t i = 0; i < oi->n_uncommitted; i++) {
        const struct uncommitted *u = &oi->uncommitted[i];

        if (page >= u->first && page <= u->last)
            return u->v;
    }
    return (struct version){0, 0};
}

static bool look_page(struct look *k, uint32_t p)
{
    const struct model_page *mp = &k->x->page[p];
    struct version v = reported(&k->oi, extent_page(p));
    bool above = version_cmp(mp->acked, k->oi.commit_point) > 0;

    k->happened[p] = mp->maybe.epoch != 0 && version_cmp(v, mp->maybe) == 0;
    if (k->happened[p] || version_cmp(v, mp->acked) == 0 || (v.epoch == 0 && !above))
        return true;
    return life_fail(k->l,
                     "extent %u page %u: version %" PRIu64 ".%" PRIu64 " is reported, %" PRIu64
                     ".%" PRIu64 " was acknowledged, %" PRIu64 ".%" PRIu64 " on its way",
                     k->ext, p, v.epoch, v.gen, mp->acked.epoch, mp->acked.gen, mp->maybe.epoch,
                     mp->maybe.gen);
}

static bool within(const struct version2 *want, struct version v)
{
    return version_cmp(v, want->acked) >= 0 && version_cmp(v, want->maybe) <= 0;
}

/* Blocks that the extent has: none that nobody wrote to (unless it is full), all that hold
 * something, none of those that were given back. */
static bool look_blocks(struct look *k)
{
    uint8_t known[BLOCKS_PER_EXTENT / 8] = {0};

    for (uint32_t b = 0; b < MODEL_BLOCKS; b++) {
        uint32_t at = model_block(b);

        known[at / 8] |= (uint8_t)(1u << (at % 8));
        if (k->x->freed[b] && (k->oi.allocated[at / 8] >> (at % 8) & 1))
            return life_fail(k->l, "extent %u: block %u was given back and is here", k->ext, b);
    }
    for (uint32_t i = 0; i < sizeof(known); i++) {
        if (!k->x->full && (k->oi.allocated[i] & ~known[i]))
            return life_fail(k->l, "extent %u: it has blocks that nobody wrote", k->ext);
    }
    return true;
}

static bool look_open(struct look *k)
{
    const struct model_extent *x = k->x;
    bool ok = true;

    if (k->oi.is_void)
        return life_fail(k->l, "extent %u is void", k->ext);
    if (!within(&x->cp, k->oi.commit_point))
        return life_fail(k->l, "extent %u: commit point %" PRIu64 ".%" PRIu64, k->ext,
                         k->oi.commit_point.epoch, k->oi.commit_point.gen);
    if (!within(&x->last, k->oi.last_version))
        return life_fail(k->l, "extent %u: last version %" PRIu64 ".%" PRIu64, k->ext,
                         k->oi.last_version.epoch, k->oi.last_version.gen);
    if (k->oi.frozen != x->frozen.acked && k->oi.frozen != x->frozen.maybe)
        return life_fail(k->l, "extent %u: frozen: %d", k->ext, k->oi.frozen);
    if ((k->oi.reserved != x->reserved.acked && k->oi.reserved != x->reserved.maybe) ||
        (k->oi.reserved && k->oi.frozen))
        return life_fail(k->l, "extent %u: reserved: %d", k->ext, k->oi.reserved);
    for (uint32_t p = 0; p < MODEL_PAGES && ok; p++)
        ok = look_page(k, p);
    return ok && look_blocks(k);
}

/* ---- data ---- */

static bool look_sector(struct look *k, uint32_t s, const uint8_t *data)
{
    const uint32_t *hold = k->happened[s / SECTORS_PER_PAGE] ? k->x->maybe : k->x->acked;
    uint64_t want = sector_word(hold[s], s), word;

    memcpy(&word, data, sizeof(word));
    if (word == want && memcmp(data, data + 8, SECTOR_BYTES - 8) == 0)
        return true;
    return life_fail(k->l,
                     "extent %u sector %u: word %016" PRIx64 ", must be %016" PRIx64
                     " (write %u; acknowledged %u, on its way %u)",
                     k->ext, s, word, want, hold[s], k->x->acked[s], k->x->maybe[s]);
}

static bool look_block(struct look *k, uint32_t b, struct read_result *r)
{
    static const uint8_t zeroes[BLOCK_BYTES];
    uint32_t first = b * BLOCK_SECTORS;
    const uint8_t *data;
    bool ok = true;
    int rc = engine_read(k->l->e, model_id(k->ext), k->l->epoch[k->ext], model_off(first),
                         BLOCK_BYTES, r);

    if (rc < 0)
        return life_fail(k->l, "extent %u: reading block %u: %s", k->ext, b, err_text(rc));
    data = r->zero ? zeroes : r->buf->data + r->buf_off;
    for (uint32_t i = 0; i < BLOCK_SECTORS && ok; i++)
        ok = look_sector(k, first + i, data + (size_t)i * SECTOR_BYTES);
    buf_put(r->buf);
    return ok;
}

static bool look_data(struct look *k)
{
    struct read_result *r = mem_alloc(sizeof(*r));
    bool ok = true;

    for (uint32_t b = 0; b < MODEL_BLOCKS && ok; b++)
        ok = look_block(k, b, r);
    mem_free(r);
    return ok;
}

bool life_verify_data(struct life *l, uint32_t ext)
{
    struct look k = {.l = l, .ext = ext, .x = &l->m->x[ext]};

    return look_data(&k);
}

/* ---- missing sets ---- */

/* Reads a whole set: a bit per page of the model. */
static bool missing_fetch(struct look *k, uint32_t r, bool *in, struct missing_page *mp)
{
    struct page_range ranges[64];
    uint32_t from = 0, seen = 0, mine = 0;

    do {
        int rc = engine_missing_get(k->l->e, model_id(k->ext), k->l->epoch[k->ext], replica_id(r),
                                    from, ranges, ARRAY_SIZE(ranges), mp);

        if (rc < 0)
            return life_fail(k->l, "extent %u: missing set: %s", k->ext, err_text(rc));
        for (uint32_t i = 0; i < mp->count; i++) {
            for (uint32_t p = 0; p < MODEL_PAGES; p++)
                in[p] |= extent_page(p) - ranges[i].first < ranges[i].count;
            seen += ranges[i].count;
            from = ranges[i].first + ranges[i].count;
        }
    } while (mp->more);
    for (uint32_t p = 0; p < MODEL_PAGES; p++)
        mine += in[p];
    if (seen != mine && !k->x->set[r].everything)
        return life_fail(k->l, "extent %u: replica %u misses pages that nobody wrote", k->ext, r);
    return true;
}

static bool look_set(struct look *k, uint32_t r)
{
    const struct model_set *s = &k->x->set[r];
    struct missing_page mp = {0};
    bool in[MODEL_PAGES] = {0};

    if (!missing_fetch(k, r, in, &mp))
        return false;
    if (mp.known != s->there.acked && mp.known != s->there.maybe)
        return life_fail(k->l, "extent %u: missing set %u: known %d", k->ext, r, mp.known);
    if (mp.known && !within(&s->last, mp.last_version))
        return life_fail(k->l, "extent %u: missing set %u: last version %" PRIu64 ".%" PRIu64,
                         k->ext, r, mp.last_version.epoch, mp.last_version.gen);
    for (uint32_t p = 0; p < MODEL_PAGES; p++) {
        struct flag2 want = k->x->page[p].missing[r];

        if (in[p] != want.acked && in[p] != want.maybe)
            return life_fail(k->l, "extent %u page %u: in missing set %u: %d", k->ext, p, r, in[p]);
        /* A page is missed by the same record that changes it. */
        if (want.acked != want.maybe && want.maybe && k->x->page[p].maybe.epoch != 0 &&
            in[p] < k->happened[p])
            return life_fail(k->l, "extent %u page %u: changed, not missed by %u", k->ext, p, r);
        if (want.acked != want.maybe)
            settle(k, (struct change){
                          .kind = CH_SEEN_MISSING, .replicas = 1u << r, .first = p, .seen = in[p]});
    }
    if (s->there.acked != s->there.maybe || version_cmp(s->last.acked, s->last.maybe) != 0)
        settle(k, (struct change){.kind = CH_SEEN_SET,
                                  .replicas = 1u << r,
                                  .seen = mp.known,
                                  .v = mp.last_version});
    return true;
}

/* ---- extents ---- */

static void settle_open(struct look *k)
{
    settle(k, (struct change){.kind = CH_SEEN_OPEN,
                              .epoch = k->l->epoch[k->ext],
                              .v = k->oi.last_version,
                              .cp = k->oi.commit_point,
                              .seen = k->oi.frozen,
                              .reserve = k->oi.reserved});
    for (uint32_t p = 0; p < MODEL_PAGES && k->settle; p++) {
        if (k->x->page[p].maybe.epoch != 0)
            settle(k, (struct change){.kind = CH_SEEN_PAGE, .first = p, .seen = k->happened[p]});
    }
}

static bool look_extent(struct look *k, uint64_t epoch)
{
    struct life *l = k->l;
    const struct model_extent *x = k->x;
    struct change open = {.kind = CH_OPEN, .ext = k->ext};
    bool ok;
    int rc;

    if (epoch != x->epoch && epoch != x->epoch_maybe)
        return life_fail(l, "extent %u: epoch %" PRIu64, k->ext, epoch);
    if (x->there.acked != x->there.maybe)
        settle(k, (struct change){.kind = CH_SEEN_EXTENT, .seen = true});
    settle(k, (struct change){.kind = CH_SEEN_EPOCH, .epoch = epoch});
    open.epoch = l->same_epoch ? epoch : x->epoch_maybe + 1;
    if (k->settle)
        life_change(l, &open);
    rc = engine_open(l->e, model_id(k->ext), open.epoch, 1, &k->oi);
    if (rc == 0)
        rc = engine_vouch(l->e, model_id(k->ext), open.epoch); /* the only replica */
    if (rc < 0)
        return life_fail(l, "opening extent %u: %s", k->ext, err_text(rc));
    l->epoch[k->ext] = open.epoch;
    l->gen[k->ext] = l->same_epoch ? MAX(x->last.maybe.gen, x->cp.maybe.gen) : 0;
    ok = look_open(k) && look_data(k);
    for (uint32_t r = 0; r < REPLICAS && ok; r++)
        ok = look_set(k, r);
    if (ok)
        settle_open(k);
    open_info_free(&k->oi);
    return ok;
}

bool life_verify(struct life *l, bool settle_too)
{
    struct replica_info list[EXTENTS_MAX + 1];
    bool more, ok = true;
    uint32_t n = engine_list(l->e, 0, list, ARRAY_SIZE(list), &more), at = 0;
    struct look *k = mem_alloc(sizeof(*k));
    int rc;

    for (uint32_t i = 0; i < l->m->n_ext && ok; i++) {
        const struct model_extent *x = &l->m->x[i];
        bool here = at < n && list[at].id == model_id(i);

        *k = (struct look){.l = l, .ext = i, .x = x, .settle = settle_too};
        if (here != x->there.acked && here != x->there.maybe)
            ok = life_fail(l, "extent %u: there %d, must be %d or %d", i, here, x->there.acked,
                           x->there.maybe);
        else if (here)
            ok = look_extent(k, list[at].epoch);
        else if (x->there.acked != x->there.maybe)
            settle(k, (struct change){.kind = CH_SEEN_EXTENT});
        at += here;
    }
    mem_free(k);
    if (ok && (at != n || more))
        return life_fail(l, "there are extents that nobody made");
    rc = ok ? engine_check(l->e) : 0;
    if (rc < 0)
        return life_fail(l, "accounting: %s", err_text(rc));
    if (ok && engine_lost(l->e, NULL, 0) > 0)
        return life_fail(l, "extents count as damaged");
    if (settle_too)
        life_change(l, &(struct change){.kind = CH_RESTART});
    return ok;
}
