/* SPDX-License-Identifier: Apache-2.0
 *
 * Shared by the files of the lock manager: nlm.c has its procedures, nlm_wait.c the locks that are
 * waited for. */
#ifndef ZBS_ACCESS_NFS_NLM_H
#define ZBS_ACCESS_NFS_NLM_H

#include "access/nfs/nfs_int.h"

#define NLM_NAME_MAX   1024u
#define NLM_OWNER_MAX  1024u
#define NLM_COOKIE_MAX 1024u

enum nlm_procedure {
    NLMPROC4_NULL = 0,
    NLMPROC4_TEST = 1,
    NLMPROC4_LOCK = 2,
    NLMPROC4_CANCEL = 3,
    NLMPROC4_UNLOCK = 4,
    NLMPROC4_GRANTED = 5, /* of a client */
    NLMPROC4_SHARE = 20,
    NLMPROC4_UNSHARE = 21,
    NLMPROC4_NM_LOCK = 22,
    NLMPROC4_FREE_ALL = 23,
    NLMPROC4_PROCEDURES
};

enum nlm_status {
    NLM4_GRANTED = 0,
    NLM4_DENIED = 1,
    NLM4_DENIED_NOLOCKS = 2,
    NLM4_BLOCKED = 3,
    NLM4_DENIED_GRACE_PERIOD = 4,
    NLM4_ROFS = 6,
    NLM4_STALE_FH = 7,
    NLM4_FBIG = 8,
    NLM4_FAILED = 9,
};

struct nlm_args {
    struct nfs_handle h;
    char client[NLM_NAME_MAX + 1];
    Zbs__Meta__Lock lock; /* points into here and into the call */
    uint64_t length;      /* as the client says it: lock.length is 0 for all that go to the end */
};

/* A lock that is in another's way is waited for in the background; its client is called when it is
 * there. False: too many wait already. */
bool nlm_wait_begin(struct onc_call *call, const struct nlm_args *args);
/* What of the lock's owner waits for any of its bytes is not waited for any more, and not locked
 * when this returns. keep: but a lock of the very same bytes stays if it is there already. */
co_fn void nlm_waits_end(struct nfs_server *s, const Zbs__Meta__Lock *lock, bool keep);
/* The same for all of a client. */
co_fn void nlm_waits_forget(struct nfs_server *s, const char *client);
/* A lock of this inode has gone: whoever waits for one looks at once. */
void nlm_waits_look(struct nfs_server *s, uint64_t inode_id);

#endif
