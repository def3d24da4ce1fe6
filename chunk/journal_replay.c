/* SPDX-License-Identifier: Apache-2.0
 *
 * Start of a region: finds the journal's commits from the anchor to the true tail, decides what a
 * damaged one means, and applies their records in order. Applying is idempotent, since every
 * record assigns absolute values and all later ones follow: metadata pages may be newer than the
 * records without harm. */
#include <inttypes.h>
#include <string.h>
#include "chunk/replay.h"

#define WINDOW_BYTES (2 * COMMIT_BYTES_MAX)

/* ---- the ring, through a window ---- */

struct ring {
    struct dev *d;
    uint8_t *buf;
    uint64_t pos; /* of buf's first unit */
    uint32_t n;   /* units in buf */
};

static uint32_t units_to_end(const struct journal *j, uint64_t pos)
{
    return (uint32_t)(j->units - pos % j->units);
}

/* The unit at pos, and with it up to `want` units, as many as there are to the ring's end. */
static int ring_unit(struct ring *r, uint64_t pos, uint32_t want, const uint8_t **ret)
{
    const struct journal *j = &r->d->j;
    uint32_t to_end = units_to_end(j, pos);
    int rc;

    want = MIN(want, to_end);
    if (pos < r->pos || pos + want > r->pos + r->n) {
        r->pos = pos;
        r->n = MIN(WINDOW_BYTES / j->unit, to_end);
        rc = disk_read(r->d->ring, r->buf, (size_t)r->n * j->unit, ring_off(j, pos));
        if (rc < 0) {
            r->n = 0;
            return rc;
        }
    }
    *ret = r->buf + (pos - r->pos) * j->unit;
    return 0;
}

/* ---- one commit ---- */

static uint32_t head_crc(const struct commit_head *h)
{
    static const uint8_t zero[4];
    const uint8_t *p = (const uint8_t *)h;
    size_t off = offsetof(struct commit_head, crc);
    uint32_t c = crc32c(0, p, off);

    c = crc32c(c, zero, sizeof(zero));
    return crc32c(c, p + off + 4, h->head_bytes - off - 4);
}

static uint32_t head_units(const struct dev *d, const struct commit_head *h)
{
    return DIV_UP(h->head_bytes, d->j.unit);
}

/* Is there a commit's head at pos, sound in itself? `room`: units to the ring's end. */
static bool head_sound(const struct dev *d, const struct commit_head *h, uint64_t pos,
                       uint32_t room)
{
    if (h->magic != COMMIT_MAGIC || memcmp(h->nonce, d->sb.nonce, NONCE_BYTES) != 0 ||
        h->pos != pos || h->head_bytes < sizeof(*h) || h->head_bytes > COMMIT_HEAD_MAX ||
        h->head_bytes % 8 != 0)
        return false;
    return h->units >= head_units(d, h) && h->units <= COMMIT_BYTES_MAX / d->j.unit &&
           h->units <= room && head_crc(h) == h->crc;
}

static int records_check(const struct dev *d, const struct commit_head *h)
{
    const uint8_t *at = (const uint8_t *)(h + 1), *end = (const uint8_t *)h + h->head_bytes;
    uint32_t units = head_units(d, h);

    for (uint32_t i = 0; i < h->records; i++) {
        const struct rec_head *r = (const struct rec_head *)at;
        int rc = rec_check(r, (size_t)(end - at), &d->g);

        if (rc < 0)
            return rc;
        units += r->pages * d->j.page_units;
        at += r->bytes;
    }
    if (at != end || units != h->units)
        return err_set(ERR_CORRUPT, "journal: a commit's lengths don't add up");
    return 0;
}

/* Checks the data pages against the records; bad[i] for page i of the data. */
static uint32_t data_check(const struct commit_head *h, const uint8_t *data, bool *bad)
{
    const uint8_t *at = (const uint8_t *)(h + 1);
    uint32_t page = 0, n_bad = 0;

    for (uint32_t i = 0; i < h->records; i++) {
        const struct rec_head *r = (const struct rec_head *)at;

        for (uint32_t k = 0; k < r->pages; k++, page++) {
            bad[page] = crc32c(0, data + (size_t)page * PAGE_BYTES, PAGE_BYTES) !=
                        rec_crcs((const struct rec_write *)r)[k];
            n_bad += bad[page];
        }
        at += r->bytes;
    }
    return n_bad;
}

enum found { NOT_A_COMMIT, TORN, WHOLE };

/* Looks for the next commit at pos: *ret gets a copy of it (mem_ memory) unless NOT_A_COMMIT. */
static int commit_read(struct ring *r, uint64_t pos, enum found *found, struct rcommit **ret)
{
    struct dev *d = r->d;
    struct commit_head *h;
    struct rcommit *c;
    const uint8_t *p;
    uint32_t room = units_to_end(&d->j, pos);
    int rc = ring_unit(r, pos, COMMIT_HEAD_MAX / d->j.unit, &p);

    *found = NOT_A_COMMIT;
    *ret = NULL;
    if (rc < 0)
        return rc;
    h = (struct commit_head *)p;
    /* A head longer than what is left of the ring was not read: check before its checksum. */
    if (h->head_bytes > (uint64_t)room * d->j.unit)
        return 0;
    if (!head_sound(d, h, pos, room) || h->prev_crc != d->j.prev_crc || h->seq < d->j.seq)
        return 0;
    rc = ring_unit(r, pos, h->units, &p);
    if (rc < 0)
        return rc;
    h = (struct commit_head *)p;
    if (records_check(d, h) < 0) {
        log_error("journal.bad_commit", "disk=%s seq=%" PRIu64 " why=\"%s\"", d->path, h->seq,
                  err_text(ERR_CORRUPT));
        return 0;
    }
    c = MEM_NEW(struct rcommit);
    list_init(&c->link);
    c->head = mem_alloc(h->head_bytes);
    memcpy(c->head, h, h->head_bytes);
    c->bad = MEM_NEW_ARRAY(bool, h->units);
    c->n_bad = data_check(c->head, p + (size_t)head_units(d, h) * d->j.unit, c->bad);
    *found = c->n_bad > 0 ? TORN : WHOLE;
    *ret = c;
    return 0;
}

static void rcommit_free(struct rcommit *c)
{
    if (c == NULL)
        return;
    mem_free(c->head);
    mem_free(c->bad);
    mem_free(c);
}

/* ---- the tail ---- */

/* Where the commit after one that ends at `pos` may begin. */
static uint32_t places(const struct dev *d, uint64_t pos, uint64_t out[2])
{
    out[0] = pos;
    out[1] = ROUND_UP(pos, (uint64_t)d->j.units);
    return out[0] == out[1] ? 1 : 2;
}

/* After a torn commit: does another one follow it? Then it was durable once. */
static int torn_is_damage(struct ring *r, const struct rcommit *torn, bool *ret)
{
    uint64_t seq = r->d->j.seq;
    uint32_t prev_crc = r->d->j.prev_crc;
    uint64_t at[2];
    uint32_t n = places(r->d, torn->head->pos + torn->head->units, at);
    int rc = 0;

    *ret = false;
    r->d->j.prev_crc = torn->head->crc;
    r->d->j.seq = torn->head->seq + 1;
    for (uint32_t i = 0; i < n && rc == 0 && !*ret; i++) {
        enum found found;
        struct rcommit *c;

        rc = commit_read(r, at[i], &found, &c);
        *ret = rc == 0 && found != NOT_A_COMMIT;
        rcommit_free(c);
    }
    r->d->j.prev_crc = prev_crc;
    r->d->j.seq = seq;
    return rc;
}

/* No commit where the next one should be: is there a later one within reach? */
static int later_exists(struct ring *r, uint64_t pos, bool *ret)
{
    struct dev *d = r->d;
    uint64_t at[2];
    uint32_t n = places(d, pos, at);

    *ret = false;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t room = units_to_end(&d->j, at[i]);
        uint32_t reach = MIN(2 * d->j.commit_units_max, room);

        for (uint32_t k = 0; k < reach; k++) {
            uint32_t want = MIN(COMMIT_HEAD_MAX / d->j.unit, reach - k);
            const struct commit_head *h;
            const uint8_t *p;
            int rc = ring_unit(r, at[i] + k, want, &p);

            if (rc < 0)
                return rc;
            h = (const struct commit_head *)p;
            if (h->magic == COMMIT_MAGIC && h->seq > d->j.seq &&
                h->head_bytes <= (uint64_t)want * d->j.unit &&
                head_sound(d, h, at[i] + k, room - k)) {
                *ret = true;
                return 0;
            }
        }
    }
    return 0;
}

/* Takes the next commit into the list. *ret_end: there is none. */
static int next_commit(struct replay *rp, struct ring *r, bool *ret_end)
{
    struct journal *j = &rp->d->j;
    struct rcommit *c[2] = {NULL, NULL}, *take = NULL;
    enum found f[2] = {NOT_A_COMMIT, NOT_A_COMMIT};
    uint64_t at[2];
    uint32_t n = places(rp->d, j->pos, at);
    bool damage = false;
    int rc = 0;

    for (uint32_t i = 0; i < n && rc == 0 && take == NULL; i++) {
        rc = commit_read(r, at[i], &f[i], &c[i]);
        take = f[i] == WHOLE ? c[i] : NULL;
    }
    for (uint32_t i = 0; i < n && rc == 0 && take == NULL; i++) {
        if (f[i] == TORN)
            rc = torn_is_damage(r, c[i], &damage);
        take = damage ? c[i] : NULL;
    }
    *ret_end = take == NULL;
    if (rc == 0 && take == NULL && f[0] == NOT_A_COMMIT && f[1] == NOT_A_COMMIT)
        rc = later_exists(r, j->pos, &rp->hole);
    if (rc == 0 && take != NULL) {
        list_push_back(&rp->commits, &take->link);
        j->prev_crc = take->head->crc;
        j->seq = take->head->seq + 1;
        j->start = j->pos = take->head->pos + take->head->units;
    }
    for (uint32_t i = 0; i < 2; i++) {
        if (c[i] != take || rc < 0)
            rcommit_free(c[i]);
    }
    return rc;
}

/* ---- anchor ---- */

/* Counters that start at zero never get here; sums of them don't overflow. */
#define COUNT_MAX (1ull << 56)
#define SEQ_MAX   (1ull << 44)

static int anchor_read(struct dev *d, bool *ret_both)
{
    struct anchor *a = mem_alloc_aligned(PAGE_BYTES, PAGE_BYTES);
    struct journal *j = &d->j;
    bool found = false;
    int rc = 0;

    *ret_both = true;
    for (uint32_t slot = 0; slot < 2 && rc == 0; slot++) {
        uint64_t off = d->g.anchors_off + slot * PAGE_BYTES;

        rc = disk_read(d->ring, a, PAGE_BYTES, off);
        if (rc < 0 || meta_check(&d->sb, a, META_ANCHOR, off, 0, slot) < 0 || a->seq > SEQ_MAX ||
            a->last_seq > SEQ_MAX || a->pos > COUNT_MAX || a->h.gen > COUNT_MAX) {
            *ret_both = false;
            continue;
        }
        if (found && a->h.gen <= j->anchor_gen)
            continue;
        found = true;
        j->anchor_gen = a->h.gen;
        j->seq = a->seq;
        j->start = j->pos = j->tail_pos = j->anchor_pos = a->pos;
        j->prev_crc = a->prev_crc;
        j->term = a->term;
        j->durable_seq = a->last_seq;
    }
    mem_free(a);
    if (rc == 0 && !found)
        rc = err_set(ERR_FORMAT, "journal: neither anchor is valid");
    return rc;
}

/* ---- all of it ---- */

static int journal_scan(struct replay *rp)
{
    struct ring r = {.d = rp->d};
    bool end = false, both;
    int rc = anchor_read(rp->d, &both);

    r.buf = mem_alloc_aligned(PAGE_BYTES, WINDOW_BYTES);
    while (rc == 0 && !end) {
        rc = next_commit(rp, &r, &end);
        if (rc == 0 && rp->d->j.pos - rp->d->j.tail_pos > rp->d->j.units)
            rc = err_set(ERR_CORRUPT, "journal: it runs into itself");
    }
    mem_free(r.buf);
    /* The end is damaged, and it looked like the end of what was written. */
    if (rc == 0 && rp->d->j.durable_seq >= rp->d->j.seq)
        rp->hole = true;
    /* An anchor that was torn while it was written leaves the former one with its commits. If these
     * are gone, it was the newer one that was lost later. */
    if (!both && list_empty(&rp->commits))
        rp->hole = true;
    return rc;
}

/* Applies one commit and remembers it as being in the ring. */
static int commit_apply(struct replay *rp, const struct rcommit *rc_, uint32_t prev_crc)
{
    const struct commit_head *h = rc_->head;
    const uint8_t *at = (const uint8_t *)(h + 1);
    uint64_t pages_pos = h->pos + head_units(rp->d, h);
    struct journal *j = &rp->d->j;
    struct commit *c;
    uint32_t page = 0;
    int rc = 0;

    for (uint32_t i = 0; i < h->records && rc == 0; i++) {
        const struct rec_head *r = (const struct rec_head *)at;

        rc = replay_record(rp, r, pages_pos + (uint64_t)page * j->page_units, rc_->bad + page);
        page += r->pages;
        at += r->bytes;
    }
    c = MEM_NEW(struct commit);
    c->seq = h->seq;
    c->pos = h->pos;
    c->next_pos = h->pos + h->units;
    c->last_rsn = j->next_rsn - 1;
    c->prev_crc = prev_crc;
    j->durable_rsn = c->last_rsn;
    commit_add(j, c);
    return rc;
}

/* After a hole in the journal: what is behind it must never be taken for a continuation. */
#define SEQ_JUMP 1000000u

/* Applies the commits, and takes them off the list. */
static int commits_apply(struct replay *rp, uint32_t prev_crc)
{
    struct replay_ahead *ahead = NULL;
    struct rcommit *until = LIST_FIRST(&rp->commits, struct rcommit, link);
    int rc = 0;

    LIST_FOREACH_SAFE (c, &rp->commits, struct rcommit, link) {
        if (rc == 0 && c == until) {
            replay_ahead_free(ahead);
            ahead = replay_ahead_new(rp->d, &rp->commits, c, &until);
        }
        if (rc == 0)
            rc = commit_apply(rp, c, prev_crc);
        prev_crc = c->head->crc;
        list_del(&c->link);
        rcommit_free(c);
    }
    replay_ahead_free(ahead);
    return rc;
}

int journal_replay(struct dev *d)
{
    struct replay rp = {.d = d};
    uint32_t n = 0;
    int rc;

    list_init(&rp.commits);
    htab_init(&rp.doomed);
    htab_init(&rp.unknown);
    htab_init(&rp.heads);
    htab_init(&rp.touched);
    rc = journal_scan(&rp);
    if (rc == 0) {
        struct rcommit *first = LIST_FIRST(&rp.commits, struct rcommit, link);
        uint32_t prev_crc = first != NULL ? first->head->prev_crc : d->j.prev_crc;

        LIST_FOREACH (c, &rp.commits, struct rcommit, link) {
            replay_mark(&rp, c->head);
            n++;
        }
        rc = heads_load(&rp);
        if (rc == 0)
            rc = commits_apply(&rp, prev_crc);
    }
    d->j.seq = MAX(d->j.seq, d->j.durable_seq + 1);
    d->j.durable_seq = d->j.seq - 1;
    /* Every start has numbers of its own (map_gen_next). */
    d->j.seq += rp.hole ? SEQ_JUMP : 1;
    /* What was read may still be in the devices' caches only. */
    if (rc == 0)
        rc = ring_flush(d);
    if (rc == 0)
        rc = replay_finish(&rp);
    if (rc == 0)
        log_info("journal.replayed",
                 "disk=%s worker=%" PRIu32 " commits=%" PRIu32 " bytes=%" PRIu64
                 " extents=%" PRIu64,
                 d->path, d->e->conf.worker, n, journal_used(d) * d->j.unit, (uint64_t)d->extents);
    LIST_FOREACH_SAFE (c, &rp.commits, struct rcommit, link) /* after an error */
        rcommit_free(c);
    replay_free(&rp);
    return rc;
}
