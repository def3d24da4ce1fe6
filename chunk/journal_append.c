/* SPDX-License-Identifier: Apache-2.0
 *
 * The end of the journal: records are queued, and one coroutine writes all that is queued as one
 * commit - one contiguous, durable device write - while the next ones gather. Only one commit is
 * on its way, so a commit that is valid proves that those before it were durable. */
#include <inttypes.h>
#include <string.h>
#include "chunk/internal.h"
#include "common/base/mutate.h"

#define WRITE_TRIES      3
#define URGENT_BYTES_MAX (1u << 20)
#define COMMIT_GROUPS    256u /* that the ring's commits are remembered in, about */

void journal_init(struct dev *d)
{
    struct journal *j = &d->j;

    j->off = d->g.journal_off;
    j->unit = d->g.journal_unit;
    j->page_units = PAGE_BYTES / j->unit;
    j->units = d->g.journal_units;
    j->commit_units_max =
        MIN(MAX(j->units / 8, COMMIT_BYTES_MIN / j->unit), COMMIT_BYTES_MAX / j->unit);
    j->rec_pages_max =
        MIN((j->commit_units_max - COMMIT_HEAD_MAX / j->unit) / j->page_units, PAGES_PER_BLOCK);
    j->urgent_units = MIN(j->units / 16, URGENT_BYTES_MAX / j->unit);
    j->durable_rsn = RSN_START;
    j->next_rsn = RSN_START + 1;
    list_init(&j->queue);
    list_init(&j->waiters);
    list_init(&j->commits);
    list_init(&j->live);
    co_mutex_init(&j->space_turn);
    co_cond_init(&j->space);
    co_cond_init(&j->work);
    pace_init(d);
}

static void jrec_free(struct jrec *r)
{
    for (uint32_t i = 0; i < r->rec->pages; i++)
        jpage_put(r->jp[i]);
    mem_free(r->jp);
    mem_free(r->rec);
    mem_free(r);
}

void journal_free(struct dev *d)
{
    struct journal *j = &d->j;
    struct list *l;

    while ((l = list_pop_front(&j->queue)) != NULL)
        jrec_free(LIST_ENTRY(l, struct jrec, link));
    while ((l = list_pop_front(&j->commits)) != NULL)
        mem_free(LIST_ENTRY(l, struct commit, link));
    ASSERT(list_empty(&j->live) && list_empty(&j->waiters));
}

uint64_t journal_used(const struct dev *d)
{
    return d->j.pos - d->j.tail_pos;
}

uint64_t ring_off(const struct journal *j, uint64_t pos)
{
    return j->off + pos % j->units * j->unit;
}

/* ---- space ---- */

static uint32_t head_units(const struct journal *j, uint32_t head_bytes)
{
    return DIV_UP(head_bytes, j->unit);
}

uint32_t journal_cost(const struct dev *d, uint32_t rec_bytes, uint32_t pages)
{
    return head_units(&d->j, (uint32_t)sizeof(struct commit_head) + rec_bytes) +
           pages * d->j.page_units;
}

static bool space_there(struct dev *d, uint32_t units, bool urgent)
{
    const struct journal *j = &d->j;
    /* At the ring's end a commit may have to jump over as many units as it has. */
    uint64_t held = journal_used(d) + j->reserved + j->commit_units_max + units;

    if (urgent)
        return held <= j->units;
    return held + j->urgent_units <= j->units && pace_admit(d, (uint64_t)units * j->unit);
}

/* Without waiting, nor overtaking those who do. */
static bool space_now(struct dev *d, uint32_t units, bool urgent)
{
    bool there;

    if (urgent)
        return space_there(d, units, true);
    if (!co_mutex_trylock(&d->j.space_turn))
        return false;
    there = space_there(d, units, false);
    co_mutex_unlock(&d->j.space_turn);
    return there;
}

static int space_wait(struct dev *d, uint32_t units, bool urgent)
{
    struct journal *j = &d->j;
    int rc = urgent ? 0 : co_mutex_lock(&j->space_turn);

    if (rc < 0)
        return rc;
    while ((rc = dev_check(d)) == 0 && !space_there(d, units, urgent)) {
        journal_kick(d);
        co_cond_signal(&d->flush_work);
        rc = co_cond_wait(&j->space);
        if (rc < 0)
            break;
    }
    if (!urgent)
        co_mutex_unlock(&j->space_turn);
    return rc;
}

int journal_space(struct dev *d, uint32_t units, bool urgent)
{
    int rc = dev_check(d);
    nsec_t since;

    ASSERT(units <= d->j.commit_units_max);
    if (rc < 0)
        return rc;
    if (!space_now(d, units, urgent)) {
        since = co_now();
        rc = space_wait(d, units, urgent);
        d->pace.waits++;
        d->pace.wait_max = MAX(d->pace.wait_max, co_now() - since);
    }
    if (rc == 0)
        d->j.reserved += units;
    return rc;
}

void journal_space_return(struct dev *d, uint32_t units)
{
    ASSERT(d->j.reserved >= units);
    d->j.reserved -= units;
    co_cond_broadcast(&d->j.space);
}

/* ---- queueing ---- */

void *rec_new(struct dev *d, enum rec_type type, uint64_t extent_id, size_t bytes)
{
    struct rec_head *h;

    (void)d;
    bytes = ROUND_UP(bytes, 8);
    ASSERT(bytes + sizeof(struct commit_head) <= COMMIT_HEAD_MAX);
    h = mem_alloc(bytes);
    h->type = (uint16_t)type;
    h->bytes = (uint16_t)bytes;
    h->extent_id = extent_id;
    return h;
}

void journal_kick(struct dev *d)
{
    if (!list_empty(&d->j.queue)) {
        d->j.eager = true;
        co_cond_signal(&d->j.work);
    }
}

/* The last record; the queue is not empty. */
static struct jrec *queue_last(const struct journal *j)
{
    return LIST_ENTRY(j->queue.prev, struct jrec, link);
}

void journal_join(struct dev *d)
{
    ASSERT(!list_empty(&d->j.queue));
    queue_last(&d->j)->joined = true;
}

uint64_t journal_add(struct dev *d, struct rec_head *rec, struct jpage **jp, uint32_t space,
                     bool lazy)
{
    struct jrec *r = MEM_NEW(struct jrec);
    struct journal *j = &d->j;
    bool follows = !list_empty(&j->queue) && queue_last(j)->joined;

    ASSERT(!d->replaying);
    ASSERT(follows || space >= journal_cost(d, rec->bytes, rec->pages));
    ASSERT(j->reserved >= space);
    ASSERT(rec->pages <= j->rec_pages_max && (rec->pages == 0) == (jp == NULL));
    r->rec = rec;
    r->jp = jp;
    r->space = space;
    r->rsn = j->next_rsn++;
    for (uint32_t i = 0; i < rec->pages; i++)
        jp[i]->rsn = r->rsn;
    list_push_back(&j->queue, &r->link);
    if (!lazy)
        journal_kick(d);
    return r->rsn;
}

int journal_wait(struct dev *d, uint64_t rsn)
{
    struct journal *j = &d->j;
    struct jwait w = {.rsn = rsn};
    struct list *pos = j->waiters.prev;
    int rc;

    if (j->durable_rsn >= rsn)
        return 0;
    rc = dev_check(d);
    if (rc < 0)
        return rc;
    ASSERT(rsn < j->next_rsn);
    while (pos != &j->waiters && LIST_ENTRY(pos, struct jwait, link)->rsn > rsn)
        pos = pos->prev;
    list_add_after(pos, &w.link);
    co_wait_init(&w.wait);
    journal_kick(d);
    rc = co_suspend(&w.wait, CO_UNINTERRUPTIBLE);
    return rc < 0 ? dev_check(d) : 0;
}

int journal_sync(struct dev *d)
{
    return journal_wait(d, d->j.next_rsn - 1);
}

static void waiters_wake(struct journal *j, uint64_t rsn, int rc)
{
    while (!list_empty(&j->waiters)) {
        struct jwait *w = LIST_FIRST(&j->waiters, struct jwait, link);

        if (w->rsn > rsn)
            break;
        list_del(&w->link);
        co_resume(&w->wait, rc);
    }
}

void journal_wake_failed(struct dev *d)
{
    waiters_wake(&d->j, RSN_NONE, ERR_IO);
    co_cond_broadcast(&d->j.space);
    co_cond_broadcast(&d->j.work);
}

/* ---- one commit ---- */

struct forming {
    struct list recs;
    uint32_t n_recs;
    uint32_t head_bytes, head_units;
    uint32_t units; /* of the head and the pages */
    uint64_t pos;
};

/* Is there room for this record and those that are joined to it? */
static bool fits(const struct journal *j, const struct forming *f, uint32_t pages,
                 const struct jrec *r)
{
    uint32_t head = f->head_bytes + r->rec->bytes;

    pages += r->rec->pages;
    for (; r->joined; pages += r->rec->pages) {
        r = LIST_ENTRY(r->link.next, struct jrec, link);
        head += r->rec->bytes;
    }
    return head <= COMMIT_HEAD_MAX &&
           head_units(j, head) + pages * j->page_units <= j->commit_units_max;
}

/* Takes from the queue what fits in one commit, and fixes its place. */
static void commit_take(struct dev *d, struct forming *f)
{
    struct journal *j = &d->j;
    uint32_t pages = 0;

    list_init(&f->recs);
    f->n_recs = 0;
    f->head_bytes = sizeof(struct commit_head);
    while (!list_empty(&j->queue)) {
        struct jrec *r = LIST_FIRST(&j->queue, struct jrec, link);

        if (!fits(j, f, pages, r))
            break;
        f->head_bytes += r->rec->bytes;
        pages += r->rec->pages;
        f->n_recs++;
        j->reserved -= r->space;
        list_del(&r->link);
        list_push_back(&f->recs, &r->link);
    }
    ASSERT(f->n_recs > 0);
    f->head_units = head_units(j, f->head_bytes);
    f->units = f->head_units + pages * j->page_units;
    f->pos = j->pos;
    if (f->pos % j->units + f->units > j->units)
        f->pos = ROUND_UP(f->pos, (uint64_t)j->units); /* contiguous: starts anew */
    ASSERT(f->pos + f->units - j->tail_pos <= j->units);
}

/* Builds the head; iov gets head and pages, neighbours in memory as one. */
static int commit_build(struct dev *d, struct forming *f, uint8_t *head, struct iovec *iov)
{
    struct commit_head *h = (struct commit_head *)head;
    uint64_t page_pos = f->pos + f->head_units;
    size_t head_len = (size_t)f->head_units * d->j.unit;
    uint8_t *at = head + sizeof(*h);
    int n = 1;

    memset(head, 0, head_len);
    h->magic = COMMIT_MAGIC;
    memcpy(h->nonce, d->sb.nonce, NONCE_BYTES);
    h->prev_crc = d->j.prev_crc;
    h->seq = d->j.seq;
    h->pos = f->pos;
    h->units = f->units;
    h->head_bytes = f->head_bytes;
    h->records = f->n_recs;
    iov[0] = (struct iovec){head, head_len};
    LIST_FOREACH (r, &f->recs, struct jrec, link) {
        memcpy(at, r->rec, r->rec->bytes);
        at += r->rec->bytes;
        for (uint32_t i = 0; i < r->rec->pages; i++) {
            struct jpage *jp = r->jp[i];

            jp->pos = page_pos;
            page_pos += d->j.page_units;
            ASSERT(jp->buf != NULL);
            if ((uint8_t *)iov[n - 1].iov_base + iov[n - 1].iov_len == jp->data)
                iov[n - 1].iov_len += PAGE_BYTES;
            else
                iov[n++] = (struct iovec){(void *)jp->data, PAGE_BYTES};
        }
    }
    h->crc = crc32c(0, head, f->head_bytes);
    return n;
}

/* Urgent, so that the device works while requests that come next are looked at. */
static int commit_write(struct dev *d, const struct forming *f, const struct iovec *iov, int n)
{
    int rc = 0;

    for (int i = 0; i < WRITE_TRIES; i++) {
        struct disk_req r = {.op = DISK_WRITE,
                             .durable = !mutate(MUT_JOURNAL_VOLATILE),
                             .urgent = true,
                             .disk = d->ring,
                             .off = ring_off(&d->j, f->pos),
                             .iov = iov,
                             .iov_count = n};

        disk_submit(&r);
        rc = disk_wait(&r);
        if (rc == 0)
            break;
        d->io_errors++;
        log_warn("journal.write_failed", "disk=%s try=%d why=\"%s\"", d->ring_path, i,
                 err_text(rc));
    }
    d->bytes_written += (uint64_t)f->units * d->j.unit;
    return rc;
}

void commit_add(struct journal *j, struct commit *c)
{
    struct commit *last = LIST_ENTRY(j->commits.prev, struct commit, link);

    if (!list_empty(&j->commits) && !j->commit_alone &&
        c->next_pos - last->pos <= j->units / COMMIT_GROUPS) {
        last->next_pos = c->next_pos;
        last->last_rsn = c->last_rsn;
        mem_free(c);
        return;
    }
    j->commit_alone = false;
    list_push_back(&j->commits, &c->link);
}

static void commit_done(struct dev *d, struct forming *f, uint32_t crc, uint64_t last_rsn)
{
    struct journal *j = &d->j;
    struct commit *c = MEM_NEW(struct commit);
    struct list *l;

    c->seq = j->seq;
    c->pos = f->pos;
    c->next_pos = f->pos + f->units;
    c->last_rsn = last_rsn;
    c->prev_crc = j->prev_crc;
    commit_add(j, c);
    j->commit_time = co_now();
    j->durable_seq = j->seq++;
    j->start = j->pos;
    j->prev_crc = crc;
    j->durable_rsn = last_rsn;
    waiters_wake(j, last_rsn, 0);
    while ((l = list_pop_front(&f->recs)) != NULL)
        jrec_free(LIST_ENTRY(l, struct jrec, link));
    pending_release(d);
    budget_trim(&d->e->memory);
    co_cond_broadcast(&j->space); /* what was reserved and not needed */
    if (d->flush_idle || pace_pressed(d))
        co_cond_signal(&d->flush_work);
}

static int commit_one(struct dev *d)
{
    struct journal *j = &d->j;
    struct iovec iov[1 + COMMIT_BYTES_MAX / PAGE_BYTES];
    struct forming f;
    struct buf *head;
    uint64_t last_rsn;
    uint32_t crc;
    int n, rc;

    commit_take(d, &f);
    last_rsn = LIST_ENTRY(f.recs.prev, struct jrec, link)->rsn;
    if (list_empty(&j->queue))
        j->eager = false;
    head = buf_alloc((size_t)f.head_units * j->unit);
    n = commit_build(d, &f, head->data, iov);
    crc = ((struct commit_head *)head->data)->crc;
    j->start = f.pos;
    j->pos = f.pos + f.units; /* used from now on */
    j->commit_running = true;
    rc = commit_write(d, &f, iov, n);
    j->commit_running = false;
    if (rc == 0)
        commit_done(d, &f, crc, last_rsn);
    else
        list_splice_back(&j->queue, &f.recs); /* freed with the journal */
    buf_put(head);
    return rc;
}

int journal_main(void *arg)
{
    struct dev *d = arg;
    struct journal *j = &d->j;

    while (!d->stopping && !d->failed) {
        int rc;

        if (!j->eager || list_empty(&j->queue)) {
            co_cond_wait_always(&j->work);
            continue;
        }
        rc = commit_one(d);
        if (rc < 0)
            dev_fail(d, rc, "journal");
    }
    return 0;
}

/* ---- anchor ---- */

int anchor_write(struct dev *d)
{
    struct journal *j = &d->j;
    struct commit *first = LIST_FIRST(&j->commits, struct commit, link);
    struct anchor *a = mem_alloc_aligned(PAGE_BYTES, PAGE_BYTES);
    uint32_t slot = j->anchor_gen % 2;
    uint64_t off = d->g.anchors_off + slot * PAGE_BYTES;
    int rc;

    memset(a, 0, PAGE_BYTES);
    a->seq = first != NULL ? first->seq : j->seq;
    a->pos = first != NULL ? first->pos : j->start;
    a->prev_crc = first != NULL ? first->prev_crc : j->prev_crc;
    a->term = j->term;
    a->last_seq = j->durable_seq;
    meta_seal(&d->sb, a, META_ANCHOR, off, 0, slot, j->anchor_gen + 1);
    rc = disk_write(d->ring, a, PAGE_BYTES, off, true);
    d->io_errors += rc < 0;
    if (rc < 0)
        err_prefix(rc, "disk %s", d->ring_path);
    if (rc == 0) {
        d->bytes_written += PAGE_BYTES;
        pace_waited(d);
        j->anchor_gen++;
        j->anchor_pos = a->pos;
    }
    mem_free(a);
    return rc;
}
