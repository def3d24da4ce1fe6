/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading everything that is stored, slowly, and checking it: pages that were written long ago
 * and are never read would otherwise be found bad only when the other replicas are gone. And the
 * list of pages that were found bad, by whomever, until they are written anew. */
#include <inttypes.h>
#include <stdlib.h>
#include "chunk/internal.h"

struct scrub {
    struct scrub_status st;
    uint64_t rate;
    nsec_t next; /* when the next read is due */
    bool stop;
    struct co_group group;
    struct co_cond changed;
    struct corrupt_page bad[CORRUPT_MAX];
    uint32_t n_bad;
};

struct scrub *scrub_new(void)
{
    struct scrub *s = MEM_NEW(struct scrub);

    co_group_init(&s->group);
    co_cond_init(&s->changed);
    return s;
}

void scrub_end(struct engine *e)
{
    engine_scrub_stop(e);
    (void)co_group_join(&e->scrub->group);
}

void scrub_free(struct engine *e)
{
    mem_free(e->scrub);
}

/* ---- pages found bad ---- */

void corrupt_note(const struct ext *x, uint32_t page)
{
    struct scrub *s = x->dev->e->scrub;

    for (uint32_t i = 0; i < s->n_bad; i++) {
        if (s->bad[i].id == x->id && s->bad[i].page == page)
            return;
    }
    s->st.corrupt++;
    if (s->n_bad < CORRUPT_MAX) /* the next round finds the others */
        s->bad[s->n_bad++] = (struct corrupt_page){x->id, page};
}

void corrupt_forget(const struct ext *x, uint32_t first, uint32_t count)
{
    struct scrub *s = x->dev->e->scrub;
    uint32_t n = 0;

    if (s->n_bad == 0)
        return;
    for (uint32_t i = 0; i < s->n_bad; i++) {
        const struct corrupt_page *b = &s->bad[i];

        if (b->id != x->id || b->page < first || b->page - first >= count)
            s->bad[n++] = *b;
    }
    s->n_bad = n;
}

uint32_t engine_corrupt(const struct engine *e, struct corrupt_page *ret, uint32_t max)
{
    uint32_t n = MIN(e->scrub->n_bad, max);

    for (uint32_t i = 0; i < n; i++)
        ret[i] = e->scrub->bad[i];
    return n;
}

/* ---- a round ---- */

/* Waits until the rate allows what was just read. False if the round is to end. */
static bool paced(struct scrub *s, uint64_t bytes)
{
    nsec_t now = co_now();

    s->st.bytes += bytes;
    s->next = MAX(s->next, now - NSEC_PER_SEC / 10) +
              (nsec_t)((double)bytes * NSEC_PER_SEC / (double)s->rate);
    while (!s->stop && co_now() < s->next) {
        nsec_t former = co_deadline_push(s->next);
        int rc = co_cond_wait(&s->changed); /* to end, or another rate */

        co_deadline_restore(former);
        if (rc == ERR_CANCELED)
            s->stop = true;
        else if (rc == 0)
            s->next = co_now();
    }
    return !s->stop;
}

/* What several extents share is read once in a round, if the first one reads all of it: false if
 * all of the extent's block was read so. */
static bool block_due(struct ext *x, uint32_t block)
{
    const struct map_entry *en = map_get(x, block);
    struct dev *d = x->dev;
    bool due = false;

    for (uint32_t k = 0; k < MAP_SOURCES; k++) {
        const struct map_src *s = &en->src[k];
        uint32_t i = s->block - 1;

        if (s->block == BLOCK_NONE)
            continue;
        if (!shared_bit_get(d, s->block)) {
            due = true;
            continue;
        }
        if (d->scrubbed == NULL)
            d->scrubbed = MEM_NEW_ARRAY(uint64_t, DIV_UP(d->g.blocks, 64));
        due |= !(d->scrubbed[i / 64] >> (i % 64) & 1);
        if (s->valid == UINT64_MAX)
            d->scrubbed[i / 64] |= 1ull << (i % 64);
    }
    return due;
}

static void round_forget(struct engine *e)
{
    LIST_FOREACH (d, &e->devs, struct dev, link) {
        mem_free(d->scrubbed);
        d->scrubbed = NULL;
    }
}

static int scrub_block(struct ext *x, uint32_t block, uint8_t *buf)
{
    struct map_hold hold;
    bool zero;
    int rc = map_hold(x, block, block, &hold);

    if (rc == 0 && block_due(x, block))
        rc = pages_read(x, block * PAGES_PER_BLOCK, PAGES_PER_BLOCK, buf, NULL, &zero);
    map_release(&hold);
    return rc;
}

/* One block at a time, so that a deletion never waits for the rate. */
static bool scrub_next(struct engine *e, uint64_t id, uint32_t *block, uint8_t *buf)
{
    struct co_range range;
    struct op op;
    uint32_t b = *block;
    bool more = false;

    if (op_begin_closed(e, id, OP_EPOCH_NONE, &op) < 0)
        return false; /* deleted meanwhile, or on a failed disk */
    while (b < BLOCKS_PER_EXTENT && !block_mapped(op.ext, b))
        b++;
    *block = b + 1;
    if (b < BLOCKS_PER_EXTENT &&
        co_range_acquire(&op.ext->lock, &range, b * PAGES_PER_BLOCK, PAGES_PER_BLOCK, false) == 0) {
        e->scrub->st.errors += scrub_block(op.ext, b, buf) < 0;
        co_range_release(&op.ext->lock, &range);
        if (share_join(&op, b) < 0)
            log_debug("scrub.join", "extent=%" PRIu64 " block=%" PRIu32, id, b);
        more = true;
    }
    op_end(&op);
    return more;
}

struct id_list {
    uint64_t *ids;
    uint32_t n;
};

static void id_add(void *arg, struct ext *x)
{
    struct id_list *l = arg;

    l->ids[l->n++] = x->id;
}

static int id_cmp(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static co_fn int scrub_main(void *arg)
{
    struct engine *e = arg;
    struct scrub *s = e->scrub;
    struct id_list l = {.ids = MEM_NEW_ARRAY(uint64_t, e->exts.count + 1)};
    uint8_t *buf = mem_alloc_aligned(PAGE_BYTES, BLOCK_BYTES);

    ext_foreach(e, id_add, &l);
    qsort(l.ids, l.n, sizeof(*l.ids), id_cmp);
    s->st.extents_total = l.n;
    for (; s->st.extents < l.n && !s->stop; s->st.extents++) {
        uint32_t block = 0;

        while (scrub_next(e, l.ids[s->st.extents], &block, buf) && paced(s, BLOCK_BYTES))
            ;
    }
    round_forget(e);
    s->st.running = false;
    s->st.rounds += !s->stop;
    log_info("scrub.end",
             "worker=%" PRIu32 " extents=%" PRIu32 "/%" PRIu32 " bytes=%" PRIu64
             " corrupt_pages=%" PRIu64 " errors=%" PRIu64,
             e->conf.worker, s->st.extents, l.n, s->st.bytes, s->st.corrupt, s->st.errors);
    mem_free(buf);
    mem_free(l.ids);
    return 0;
}

void engine_scrub_start(struct engine *e, uint64_t bytes_per_s)
{
    struct scrub *s = e->scrub;

    s->rate = MAX(bytes_per_s, 4096u);
    if (s->st.running) {
        co_cond_signal(&s->changed);
        return;
    }
    s->st = (struct scrub_status){.running = true, .rounds = s->st.rounds};
    s->st.corrupt = s->n_bad;
    s->stop = false;
    s->next = 0;
    co_spawn_detached_deadline(&s->group, "scrub", scrub_main, e);
}

void engine_scrub_stop(struct engine *e)
{
    e->scrub->stop = true;
    co_cond_signal(&e->scrub->changed);
}

void engine_scrub_status(const struct engine *e, struct scrub_status *ret)
{
    *ret = e->scrub->st;
}
