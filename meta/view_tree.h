/* SPDX-License-Identifier: Apache-2.0
 *
 * Shares and inodes as messages of the interface; what view.h says holds here. */
#ifndef ZBS_META_VIEW_TREE_H
#define ZBS_META_VIEW_TREE_H

#include "meta/pad.h"
#include "meta/state.h"

void view_share(Zbs__Meta__Share *m, const struct state *st, const struct share *s,
                struct pad *pad);
void view_inode(Zbs__Meta__Inode *m, const struct state *st, const struct inode *i);
Zbs__Meta__Inode *view_inode_new(const struct state *st, const struct inode *i, struct pad *pad);
/* The inode as it is now, before it is changed; `after` is still to be set. */
Zbs__Meta__InodeWcc *view_wcc_before(const struct inode *i, struct pad *pad);

#endif
