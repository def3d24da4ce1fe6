/* SPDX-License-Identifier: Apache-2.0
 *
 * Locks of files' bytes in the state, as NLM has them. A *holder* is a client's process (client,
 * owner, svid) with its locks of one file: ranges that neither meet nor overlap unless they differ
 * in kind. What state.h says holds for this, too. */
#ifndef ZBS_META_LOCKS_H
#define ZBS_META_LOCKS_H

#include "common/base/list.h"
#include "meta/tree.h"

struct decide;
struct apply;

struct lock_range {
    uint64_t start, end; /* end: not included; UINT64_MAX: to the end of all files */
    bool exclusive;
};
struct lock_holder {
    struct list link;     /* of all holders */
    struct list of_inode; /* of those of the inode */
    uint64_t id;          /* mutation number that made it */
    struct inode *inode;
    char *client;
    uint8_t *owner;
    uint32_t owner_len, svid;
    struct lock_range *ranges; /* in order */
    uint32_t n_ranges;
};

/* ---- finding; NULL: there is none ---- */
struct lock_holder *inode_lock_holder(const struct inode *i, const char *client,
                                      const ProtobufCBinaryData *owner, uint32_t svid);
/* A lock that another than `self` (may be NULL) has and that `want` can't be beside. */
const struct lock_range *inode_lock_conflict(const struct inode *i, const struct lock_holder *self,
                                             const struct lock_range *want,
                                             const struct lock_holder **ret_holder);
/* Has it a lock of any byte there? */
bool holder_has(const struct lock_holder *h, const struct lock_range *r);

/* ---- changing: for apply and load ---- */
struct lock_holder *tree_holder_add(struct tree *t, struct inode *i, uint64_t id,
                                    const char *client, const ProtobufCBinaryData *owner,
                                    uint32_t svid);
void tree_holder_remove(struct tree *t, struct lock_holder *h);
/* What it has there is replaced by r; set: else it only goes. */
void holder_change(struct lock_holder *h, const struct lock_range *r, bool set);

#endif
