/* SPDX-License-Identifier: Apache-2.0
 *
 * Byte-range lock. The records stand in order of request; one is held as soon as no earlier
 * record, held or waiting, conflicts with it. Hence no starvation, and no deadlock among
 * requests that each hold one range. */
#include "common/base/assert.h"
#include "common/co/sync.h"

void co_range_lock_init(struct co_range_lock *l)
{
    list_init(&l->records);
}

static bool overlap(const struct co_range *a, const struct co_range *b)
{
    return a->start < b->end && b->start < a->end;
}

static bool may_hold(struct co_range_lock *l, const struct co_range *r)
{
    LIST_FOREACH (earlier, &l->records, struct co_range, link) {
        if (earlier == r)
            break;
        if (overlap(earlier, r) && (earlier->exclusive || r->exclusive))
            return false;
    }
    return true;
}

/* Takes a record out and grants what only it stood in the way of. */
static void record_remove(struct co_range_lock *l, struct co_range *r)
{
    struct list *next = r->link.next;

    list_del(&r->link);
    r->held = false;
    for (; next != &l->records; next = next->next) {
        struct co_range *later = LIST_ENTRY(next, struct co_range, link);

        if (!later->held && overlap(later, r) && may_hold(l, later)) {
            later->held = true;
            co_resume(&later->wait, 0);
        }
    }
}

static int acquire(struct co_range_lock *l, struct co_range *r, uint64_t start, uint64_t len,
                   bool exclusive, enum co_wait_kind kind)
{
    int rc;

    ASSERT(len > 0 && start <= UINT64_MAX - len);
    r->start = start;
    r->end = start + len;
    r->exclusive = exclusive;
    r->always = kind == CO_UNINTERRUPTIBLE;
    co_wait_init(&r->wait);
    list_push_back(&l->records, &r->link);
    r->held = may_hold(l, r);
    if (LIKELY(r->held))
        return 0;
    rc = co_suspend(&r->wait, kind);
    if (rc < 0)
        record_remove(l, r);
    return rc;
}

int co_range_acquire(struct co_range_lock *l, struct co_range *r, uint64_t start, uint64_t len,
                     bool exclusive)
{
    return acquire(l, r, start, len, exclusive, CO_INTERRUPTIBLE);
}

void co_range_acquire_always(struct co_range_lock *l, struct co_range *r, uint64_t start,
                             uint64_t len, bool exclusive)
{
    (void)acquire(l, r, start, len, exclusive, CO_UNINTERRUPTIBLE);
}

void co_range_lock_break(struct co_range_lock *l, int rc)
{
    ASSERT(rc < 0);
    LIST_FOREACH (r, &l->records, struct co_range, link) {
        if (!r->held && !r->always)
            co_resume(&r->wait, rc);
    }
}

void co_range_release(struct co_range_lock *l, struct co_range *r)
{
    ASSERTF(r->held, "a range is released that is not held");
    record_remove(l, r);
}
