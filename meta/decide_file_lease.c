/* SPDX-License-Identifier: Apache-2.0
 *
 * Decisions about write leases of files. A session that has one relies on the file's `cut` being
 * what it was, without asking: nothing that changes it is decided while the session lives. */
#include <inttypes.h>
#include "common/base/err.h"
#include "meta/decide_tree.h"
#include "meta/view_tree.h"

uint32_t file_leases(const struct state *st, const struct inode *i)
{
    uint32_t n = 0;

    for (uint32_t k = 0; i->writers != NULL && k < i->writers->count; k++)
        n += state_session(st, i->writers->sessions[k]) != NULL;
    return n;
}

int check_file_leases(const struct state *st, const struct inode *i)
{
    uint32_t n = file_leases(st, i);

    if (n > 0)
        return err_set(ERR_BUSY, "inode %" PRIu64 " is being written by %u access servers", i->id,
                       n);
    return 0;
}

static uint64_t lease_of(const struct inode *i, uint64_t session_id)
{
    for (uint32_t k = 0; i->writers != NULL && k < i->writers->count; k++) {
        if (i->writers->sessions[k] == session_id)
            return i->writers->leases[k];
    }
    return 0;
}

/* A session's new lease takes the place of its former one, so that a return of that which comes
 * late does not end it. None for a file without a volume, for a session that has ended, and when
 * there are too many: they go on asking. */
int decide_file_lease(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__FileLeaseRequest *rq = (const void *)d->rq;
    struct inode *i;
    int rc = decide_file(d, rq->inode_id, &i);

    *ret = NULL;
    if (rc < 0 || i->volume_id == 0 || state_session(d->st, rq->session_id) == NULL ||
        (lease_of(i, rq->session_id) == 0 && file_leases(d->st, i) >= FILE_WRITERS_MAX))
        return rc;
    *ret = record_new(d->pad, ZBS__METALOG__RECORD__KIND_FILE_LEASE);
    (*ret)->file_lease = PAD_NEW(d->pad, Zbs__Metalog__FileLease);
    zbs__metalog__file_lease__init((*ret)->file_lease);
    (*ret)->file_lease->inode_id = i->id;
    (*ret)->file_lease->session_id = rq->session_id;
    return 0;
}

int answer_file_lease(const struct decide *d, ProtobufCMessage *reply)
{
    const Zbs__Meta__FileLeaseRequest *rq = (const void *)d->rq;
    Zbs__Meta__FileLeaseReply *m = (void *)reply;
    struct inode *i;
    int rc = decide_file(d, rq->inode_id, &i);

    if (rc < 0)
        return rc;
    m->inode = view_inode_new(d->st, i, d->pad);
    m->lease = state_session(d->st, rq->session_id) != NULL ? lease_of(i, rq->session_id) : 0;
    return 0;
}

/* The file may be gone, and so may the lease. */
int decide_file_return(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__FileReturnRequest *rq = (const void *)d->rq;
    const struct inode *i = tree_inode(&d->st->tree, rq->inode_id);
    bool there = false;

    for (uint32_t k = 0; i != NULL && i->writers != NULL && k < i->writers->count; k++)
        there |= i->writers->leases[k] == rq->lease;
    *ret = NULL;
    if (!there)
        return 0;
    *ret = record_new(d->pad, ZBS__METALOG__RECORD__KIND_FILE_RETURN);
    (*ret)->file_return = PAD_NEW(d->pad, Zbs__Metalog__FileReturn);
    zbs__metalog__file_return__init((*ret)->file_return);
    (*ret)->file_return->inode_id = rq->inode_id;
    (*ret)->file_return->lease = rq->lease;
    return 0;
}
