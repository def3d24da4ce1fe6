/* SPDX-License-Identifier: Apache-2.0
 *
 * Contents of a simulated disk, with a volatile cache that a power loss damages. */
#include "common/env/sim/sim_media.h"
#include <string.h>
#include "common/base/buf.h"

#define BUCKETS_MIN 256u

enum fate { FATE_OPEN, FATE_KEPT, FATE_LOST, FATE_TORN };

struct sim_write {
    uint32_t refs;
    enum fate fate;
    uint64_t seq;
};

struct version {
    struct list link;
    struct sim_write *write;
    uint32_t off, len;      /* what it wrote */
    uint8_t data[SIM_PAGE]; /* the whole page as read */
};

struct sim_page {
    struct sim_page *next; /* of the bucket */
    uint64_t no;
    uint8_t *media; /* NULL: zeroes, or packed */
    struct sim_packed *packed;
    struct list versions; /* oldest first */
    struct list dirty;
};

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 33)) * 0xff51afd7ed558ccdu;
    return x ^ (x >> 33);
}

void sim_media_init(struct sim_media *m, struct sim *s)
{
    m->sim = s;
    m->bucket_count = BUCKETS_MIN;
    m->buckets = sim_alloc(m->bucket_count * sizeof(*m->buckets));
    m->page_count = 0;
    m->last_seq = 0;
    m->base = NULL;
    list_init(&m->dirty);
}

static void version_free(struct version *v)
{
    list_del(&v->link);
    sim_media_end(v->write);
    sim_mem_free(v);
}

static void versions_drop(struct sim_page *page)
{
    LIST_FOREACH_SAFE (v, &page->versions, struct version, link)
        version_free(v);
    list_del(&page->dirty);
}

static void page_free(struct sim_page *page)
{
    versions_drop(page);
    sim_mem_free(page->media);
    sim_mem_free(page->packed);
    sim_mem_free(page);
}

void sim_media_fini(struct sim_media *m)
{
    for (size_t i = 0; i < m->bucket_count; i++) {
        for (struct sim_page *page = m->buckets[i], *next; page; page = next) {
            next = page->next;
            page_free(page);
        }
    }
    sim_mem_free(m->buckets);
    sim_runs_fini(&m->runs);
    memset(m, 0, sizeof(*m));
}

static struct sim_page **slot_of(struct sim_media *m, uint64_t no)
{
    struct sim_page **slot = &m->buckets[mix(no) & (m->bucket_count - 1)];

    while (*slot && (*slot)->no != no)
        slot = &(*slot)->next;
    return slot;
}

static void media_grow(struct sim_media *m)
{
    struct sim_page **old = m->buckets;
    size_t count = m->bucket_count;

    m->bucket_count *= 2;
    m->buckets = sim_alloc(m->bucket_count * sizeof(*m->buckets));
    for (size_t i = 0; i < count; i++) {
        for (struct sim_page *page = old[i], *next; page; page = next) {
            struct sim_page **slot = slot_of(m, page->no);

            next = page->next;
            page->next = NULL;
            *slot = page;
        }
    }
    sim_mem_free(old);
}

static void media_set(struct sim_media *m, struct sim_page *page, const void *src)
{
    sim_mem_free(page->packed);
    page->packed = NULL;
    if (m->packed || mem_is_zero(src, SIM_PAGE)) {
        sim_mem_free(page->media);
        page->media = NULL;
        if (m->packed)
            page->packed = sim_pack(src);
        return;
    }
    if (!page->media)
        page->media = mem_raw_realloc(NULL, SIM_PAGE);
    memcpy(page->media, src, SIM_PAGE);
}

static void media_get(const struct sim_page *page, void *dst)
{
    if (page->packed)
        sim_unpack(page->packed, dst);
    else if (page->media)
        memcpy(dst, page->media, SIM_PAGE);
    else
        memset(dst, 0, SIM_PAGE);
}

static void word_fill(void *dst, uint32_t word)
{
    for (uint32_t i = 0; i < SIM_PAGE; i += 4)
        memcpy((uint8_t *)dst + i, &word, 4);
}

/* A page that was never written here, as read. */
static void page_unwritten(const struct sim_media *m, uint64_t no, void *dst)
{
    uint32_t word;

    if (sim_runs_get(&m->runs, no / SIM_RUN_PAGES, &word))
        word_fill(dst, word);
    else if (m->base && m->base[no])
        memcpy(dst, m->base[no], SIM_PAGE);
    else
        memset(dst, 0, SIM_PAGE);
}

static struct sim_page *page_get(struct sim_media *m, uint64_t no)
{
    struct sim_page **slot = slot_of(m, no), *page = *slot;
    uint8_t data[SIM_PAGE];

    if (page)
        return page;
    if (m->page_count >= m->bucket_count) {
        media_grow(m);
        slot = slot_of(m, no);
    }
    page = SIM_NEW(struct sim_page);
    page->no = no;
    list_init(&page->versions);
    list_init(&page->dirty);
    *slot = page;
    m->page_count++;
    if (m->base || m->runs.count > 0) {
        page_unwritten(m, no, data);
        media_set(m, page, data);
    }
    return page;
}

/* As read. */
static void page_get_view(const struct sim_page *page, void *dst)
{
    if (!list_empty(&page->versions))
        memcpy(dst, LIST_ENTRY(page->versions.prev, struct version, link)->data, SIM_PAGE);
    else
        media_get(page, dst);
}

void sim_media_read(struct sim_media *m, uint64_t page_no, void *dst)
{
    struct sim_page *page = *slot_of(m, page_no);

    if (page)
        page_get_view(page, dst);
    else
        page_unwritten(m, page_no, dst);
}

struct sim_write *sim_media_begin(struct sim_media *m)
{
    struct sim_write *w = SIM_NEW(struct sim_write);

    w->refs = 1;
    w->seq = ++m->last_seq;
    return w;
}

void sim_media_end(struct sim_write *w)
{
    if (--w->refs == 0)
        sim_mem_free(w);
}

/* Takes each sector from src by chance. */
static void tear(struct sim *s, uint8_t *dst, const uint8_t *src, uint32_t len)
{
    for (uint32_t off = 0; off < len; off += SIM_SECTOR)
        if (sim_coin(s))
            memcpy(dst + off, src + off, SIM_SECTOR);
}

/* Sectors that are newer than everything the cache has of them. */
static void media_put(struct sim_media *m, struct sim_page *page, uint32_t off, const void *src,
                      uint32_t len)
{
    uint8_t data[SIM_PAGE];

    if (len == SIM_PAGE) {
        media_set(m, page, src);
        versions_drop(page);
        return;
    }
    media_get(page, data);
    memcpy(data + off, src, len);
    media_set(m, page, data);
    LIST_FOREACH (v, &page->versions, struct version, link)
        memcpy(v->data + off, src, len);
}

void sim_media_write(struct sim_media *m, struct sim_write *w, uint64_t page_no, uint32_t off,
                     const void *src, uint32_t len, bool durable, bool torn)
{
    struct sim_page *page = page_get(m, page_no);
    uint8_t data[SIM_PAGE];
    struct version *v;

    ASSERT(off % SIM_SECTOR == 0 && len % SIM_SECTOR == 0 && off < SIM_PAGE &&
           len <= SIM_PAGE - off);
    durable = durable && !m->lying;
    if (durable && !torn) {
        media_put(m, page, off, src, len);
        return;
    }
    if (torn) {
        page_get_view(page, data);
        tear(m->sim, data + off, src, len);
        src = data + off;
    }
    if (durable) {
        media_put(m, page, off, src, len);
        return;
    }
    v = mem_raw_realloc(NULL, sizeof(*v));
    list_init(&v->link);
    v->write = w;
    v->off = off;
    v->len = len;
    w->refs++;
    if (len < SIM_PAGE)
        page_get_view(page, v->data);
    memcpy(v->data + off, src, len);
    if (list_empty(&page->versions))
        list_push_back(&m->dirty, &page->dirty);
    list_push_back(&page->versions, &v->link);
}

void sim_media_poke(struct sim_media *m, uint64_t page_no, uint32_t off, const void *src,
                    uint32_t len)
{
    struct sim_page *page = page_get(m, page_no);
    uint8_t data[SIM_PAGE];

    ASSERT(off <= SIM_PAGE && len <= SIM_PAGE - off);
    media_get(page, data);
    memcpy(data + off, src, len);
    media_set(m, page, data);
    LIST_FOREACH (v, &page->versions, struct version, link)
        memcpy(v->data + off, src, len);
}

static void page_zero(struct sim_media *m, struct sim_page **slot)
{
    struct sim_page *page = *slot;

    *slot = page->next;
    m->page_count--;
    page_free(page);
}

bool sim_media_write_run(struct sim_media *m, uint64_t page_no, const void *src)
{
    uint32_t word;

    if (!m->packed || page_no % SIM_RUN_PAGES != 0 || !sim_run_is(src))
        return false;
    for (uint32_t i = 0; i < SIM_RUN_PAGES; i++) {
        struct sim_page **slot = slot_of(m, page_no + i);

        if (*slot)
            page_zero(m, slot);
    }
    memcpy(&word, src, 4);
    sim_runs_put(&m->runs, page_no / SIM_RUN_PAGES, word);
    return true;
}

void sim_media_discard(struct sim_media *m, uint64_t page_no, uint64_t count)
{
    uint64_t draw = sim_rand(m->sim);

    ASSERT(m->runs.count == 0 && !m->base); /* pages of theirs would come back */
    if (m->lying)
        return; /* it may have to come back */
    if (count < m->bucket_count) {
        for (uint64_t no = page_no; no < page_no + count; no++) {
            struct sim_page **slot = slot_of(m, no);

            if (*slot && (mix(no ^ draw) & 1))
                page_zero(m, slot);
        }
        return;
    }
    for (size_t i = 0; i < m->bucket_count; i++) {
        struct sim_page **slot = &m->buckets[i];

        while (*slot) {
            uint64_t no = (*slot)->no;

            if (no >= page_no && no - page_no < count && (mix(no ^ draw) & 1))
                page_zero(m, slot);
            else
                slot = &(*slot)->next;
        }
    }
}

void sim_media_flush(struct sim_media *m, uint64_t up_to_seq)
{
    if (m->lying)
        up_to_seq = MIN(up_to_seq, m->lie_from);
    LIST_FOREACH_SAFE (page, &m->dirty, struct sim_page, dirty) {
        LIST_FOREACH_SAFE (v, &page->versions, struct version, link) {
            if (v->write->seq > up_to_seq)
                break; /* versions are in order of their writes */
            media_set(m, page, v->data);
            version_free(v);
        }
        if (list_empty(&page->versions))
            list_del(&page->dirty);
    }
}

static enum fate fate_draw(struct sim *s)
{
    uint64_t n = sim_below(s, 3);

    return n == 0 ? FATE_KEPT : n == 1 ? FATE_LOST : FATE_TORN;
}

void sim_media_lie(struct sim_media *m, bool lying)
{
    if (lying && !m->lying)
        m->lie_from = m->last_seq;
    m->lying = lying;
    if (!lying)
        sim_media_flush(m, m->last_seq);
}

bool sim_media_some_page(const struct sim_media *m, uint64_t draw, uint64_t *ret_no)
{
    for (size_t i = 0; i < m->bucket_count; i++) {
        const struct sim_page *page = m->buckets[(draw + i) & (m->bucket_count - 1)];

        if (!page)
            continue;
        *ret_no = page->no;
        return true;
    }
    return false;
}

/* While lying, a write's fate depends on its time alone. */
static enum fate fate_of(const struct sim_media *m, const struct sim_write *w, uint64_t last_kept)
{
    if (m->lying && w->seq > m->lie_from)
        return w->seq <= last_kept ? FATE_KEPT : FATE_LOST;
    return fate_draw(m->sim);
}

void sim_media_power_loss(struct sim_media *m)
{
    uint64_t last_kept = m->last_seq;
    struct list *elem;

    if (m->lying)
        last_kept = m->lie_from + sim_below(m->sim, m->last_seq - m->lie_from + 1);
    while ((elem = list_pop_front(&m->dirty))) {
        struct sim_page *page = LIST_ENTRY(elem, struct sim_page, dirty);
        uint8_t data[SIM_PAGE];

        media_get(page, data);
        LIST_FOREACH (v, &page->versions, struct version, link) {
            if (v->write->fate == FATE_OPEN)
                v->write->fate = fate_of(m, v->write, last_kept);
            if (v->write->fate == FATE_KEPT)
                memcpy(data + v->off, v->data + v->off, v->len);
            else if (v->write->fate == FATE_TORN)
                tear(m->sim, data + v->off, v->data + v->off, v->len);
        }
        media_set(m, page, data);
        versions_drop(page);
    }
    m->lie_from = m->last_seq;
}
