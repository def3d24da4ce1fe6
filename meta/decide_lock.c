/* SPDX-License-Identifier: Apache-2.0
 *
 * Decisions and answers about locks of files' bytes. */
#include <inttypes.h>
#include <string.h>
#include "common/base/err.h"
#include "meta/decide_tree.h"
#include "meta/locks.h"

static struct lock_range range_of(const Zbs__Meta__Lock *l)
{
    bool to_end = l->length == 0 || l->offset > UINT64_MAX - l->length;

    return (struct lock_range){.start = l->offset,
                               .end = to_end ? UINT64_MAX : l->offset + l->length,
                               .exclusive = l->exclusive};
}

static int check_lock_client(const char *client)
{
    if (client[0] == 0 || strlen(client) > LOCK_CLIENT_MAX)
        return err_set(ERR_INVAL, "a client's name has 1 to %u bytes", LOCK_CLIENT_MAX);
    return 0;
}

static int check_lock(const Zbs__Meta__Lock *l)
{
    if (l == NULL || l->offset == UINT64_MAX)
        return err_set(ERR_INVAL, "no lock given");
    if (l->owner.len > LOCK_OWNER_MAX)
        return err_set(ERR_INVAL, "a lock's owner has at most %u bytes", LOCK_OWNER_MAX);
    return check_lock_client(l->client);
}

static int decide_lock(const struct decide *d, const Zbs__Meta__Lock *l, struct inode **inode,
                       struct lock_holder **holder)
{
    int rc = check_lock(l);

    if (rc == 0)
        rc = decide_file(d, l->inode_id, inode);
    if (rc == 0)
        *holder = inode_lock_holder(*inode, l->client, &l->owner, l->svid);
    return rc;
}

static void lock_set(const struct decide *d, const Zbs__Meta__Lock *l, bool clear,
                     Zbs__Metalog__Record **ret)
{
    Zbs__Metalog__LockSet *m = PAD_NEW(d->pad, Zbs__Metalog__LockSet);
    struct lock_range r = range_of(l);

    *ret = record_new(d->pad, ZBS__METALOG__RECORD__KIND_LOCK_SET);
    (*ret)->lock_set = m;
    zbs__metalog__lock_set__init(m);
    m->inode_id = l->inode_id;
    m->client = l->client;
    m->owner = l->owner;
    m->svid = l->svid;
    m->start = r.start;
    m->end = r.end;
    m->exclusive = l->exclusive;
    m->clear = clear;
}

static int check_lock_room(const struct decide *d, const struct lock_holder *h)
{
    if (h == NULL && d->st->tree.n_lock_holders >= LOCK_HOLDERS_MAX)
        return err_set(ERR_NOSPACE, "%u processes have locks, the most allowed", LOCK_HOLDERS_MAX);
    if (h != NULL && h->n_ranges >= LOCK_RANGES_MAX)
        return err_set(ERR_NOSPACE, "one process has %u locks of one file, the most allowed",
                       h->n_ranges);
    return 0;
}

int decide_lock_set(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__LockSetRequest *rq = (const void *)d->rq;
    const Zbs__Meta__Lock *l = rq->lock;
    const struct lock_holder *other;
    struct lock_holder *h;
    struct lock_range r;
    struct inode *i;
    int rc = decide_lock(d, l, &i, &h);

    if (rc == 0)
        rc = check_lock_room(d, h);
    if (rc != 0)
        return rc;
    r = range_of(l);
    if (rq->only_new && h != NULL && holder_has(h, &r))
        return err_set(ERR_EXISTS, "client '%s' has a lock there itself", h->client);
    if (inode_lock_conflict(i, h, &r, &other) != NULL)
        return err_set(ERR_CONFLICT, "client '%s' has a lock of inode %" PRIu64, other->client,
                       i->id);
    lock_set(d, l, false, ret);
    return 0;
}

int decide_lock_clear(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__Lock *l = ((const Zbs__Meta__LockClearRequest *)d->rq)->lock;
    struct lock_holder *h;
    struct inode *i;
    int rc = decide_lock(d, l, &i, &h);

    *ret = NULL;
    /* cutting a lock in two makes one more */
    if (rc == 0 && h != NULL && h->n_ranges > LOCK_RANGES_MAX)
        rc = check_lock_room(d, h);
    if (rc == 0 && h != NULL)
        lock_set(d, l, true, ret);
    return rc;
}

int decide_lock_forget(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__LockForgetRequest *rq = (const void *)d->rq;
    int rc = check_lock_client(rq->client);

    if (rc < 0)
        return rc;
    *ret = NULL;
    LIST_FOREACH (h, &d->st->tree.lock_holders, struct lock_holder, link) {
        if (strcmp(h->client, rq->client) != 0)
            continue;
        *ret = record_new(d->pad, ZBS__METALOG__RECORD__KIND_LOCK_FORGET);
        (*ret)->lock_forget = PAD_NEW(d->pad, Zbs__Metalog__LockForget);
        zbs__metalog__lock_forget__init((*ret)->lock_forget);
        (*ret)->lock_forget->client = rq->client;
        return 0;
    }
    return 0;
}

/* ---- answers ---- */

static Zbs__Meta__Lock *view_lock(const struct decide *d, const struct lock_holder *h,
                                  const struct lock_range *r)
{
    Zbs__Meta__Lock *m = PAD_NEW(d->pad, Zbs__Meta__Lock);

    zbs__meta__lock__init(m);
    m->inode_id = h->inode->id;
    m->client = h->client;
    m->owner = (ProtobufCBinaryData){.data = h->owner, .len = h->owner_len};
    m->svid = h->svid;
    m->exclusive = r->exclusive;
    m->offset = r->start;
    m->length = r->end == UINT64_MAX ? 0 : r->end - r->start;
    return m;
}

int answer_lock_test(const struct decide *d, ProtobufCMessage *reply)
{
    const Zbs__Meta__Lock *l = ((const Zbs__Meta__LockTestRequest *)d->rq)->lock;
    const struct lock_range *found;
    const struct lock_holder *other;
    struct lock_holder *h;
    struct lock_range r;
    struct inode *i;
    int rc = decide_lock(d, l, &i, &h);

    if (rc != 0)
        return rc;
    r = range_of(l);
    found = inode_lock_conflict(i, h, &r, &other);
    if (found != NULL)
        ((Zbs__Meta__LockTestReply *)reply)->holder = view_lock(d, other, found);
    return 0;
}

int answer_lock_list(const struct decide *d, ProtobufCMessage *reply)
{
    const Zbs__Meta__LockListRequest *rq = (const void *)d->rq;
    Zbs__Meta__LockListReply *m = (void *)reply;

    m->locks = PAD_NEW_ARRAY(d->pad, Zbs__Meta__Lock *, LOCK_LIST_MAX);
    LIST_FOREACH (h, &d->st->tree.lock_holders, struct lock_holder, link) {
        if (rq->inode_id != 0 && h->inode->id != rq->inode_id)
            continue;
        for (uint32_t i = 0; i < h->n_ranges && m->n_locks < LOCK_LIST_MAX; i++)
            m->locks[m->n_locks++] = view_lock(d, h, &h->ranges[i]);
    }
    return 0;
}
