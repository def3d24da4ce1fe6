/* SPDX-License-Identifier: Apache-2.0
 *
 * Applying records of shares, inodes and entries. */
#include <string.h>
#include "meta/apply.h"
#include "meta/codec.h"
#include "meta/locks.h"
#include "meta/view_tree.h"

/* The inode was changed. Its ctime never stands still, whatever the clocks of leaders say: clients
 * take an unchanged one for an unchanged inode. */
void apply_inode_touch(struct apply *a, struct inode *i, uint64_t time_ns)
{
    i->ctime_ns = MAX(time_ns, i->ctime_ns + 1);
    i->change = a->number;
    codec_put_inode(a->to, i);
}

/* The names in a directory were changed. */
static void touch_names(struct apply *a, struct inode *dir, uint64_t time_ns)
{
    dir->mtime_ns = MAX(time_ns, dir->ctime_ns + 1);
    apply_inode_touch(a, dir, time_ns);
}

static struct inode *find_dir(struct apply *a, uint64_t id)
{
    struct inode *dir = tree_inode(&a->st->tree, id);

    return dir != NULL && inode_is_dir(dir) ? dir : NULL;
}

static struct dir_entry *find_entry(struct apply *a, uint64_t dir_id, const char *name)
{
    const struct inode *dir = find_dir(a, dir_id);

    return dir != NULL ? tree_entry(&a->st->tree, dir, name) : NULL;
}

/* ---- shares ---- */

static struct inode *root_add(struct apply *a, struct share *s, uint64_t time_ns)
{
    struct inode *root =
        tree_inode_add(&a->st->tree, s, a->number, ZBS__META__INODE_TYPE__INODE_DIR);

    root->mode = 0755;
    root->atime_ns = root->mtime_ns = time_ns;
    root->parent = root;
    apply_inode_touch(a, root, time_ns);
    return root;
}

int apply_share_set(struct apply *a)
{
    const Zbs__Metalog__ShareSet *m = a->record->share_set;
    struct tree *t = &a->st->tree;
    struct share *s = tree_share_by_id(t, m->share_id);
    Zbs__Meta__Share view;

    if (m->n_clients > SHARE_CLIENTS_MAX)
        return apply_misfit(a, "too many clients of a share");
    if (m->share_id == 0) {
        if (tree_share(t, m->name) != NULL || state_pool_by_id(a->st, m->pool_id) == NULL)
            return apply_misfit(a, "share twice, or without its pool");
        s = tree_share_add(t, t->next_share_id++, m->name);
        s->pool_id = m->pool_id;
        s->root = root_add(a, s, m->time_ns)->id;
    } else if (s == NULL) {
        return apply_misfit(a, "unknown share");
    }
    share_set_clients(s, m->clients, m->n_clients);
    s->anonymous_uid = m->anonymous_uid;
    s->anonymous_gid = m->anonymous_gid;
    s->version = t->shares_version = a->number;
    codec_put_share(a->to, s);
    view_share(&view, a->st, s, a->pad);
    a->reply = view_pack(&view.base, a->pad);
    return 0;
}

int apply_share_remove(struct apply *a)
{
    struct tree *t = &a->st->tree;
    struct share *s = tree_share_by_id(t, a->record->share_remove->share_id);

    if (s == NULL || s->inodes != 1)
        return apply_misfit(a, "share is unknown or not empty");
    codec_del_inode(a->to, s->root);
    tree_inode_remove(t, tree_inode(t, s->root));
    codec_del_share(a->to, s->id);
    tree_share_remove(t, s);
    t->shares_version = a->number;
    return 0;
}

/* ---- inodes ---- */

static void entry_add(struct apply *a, struct inode *dir, const char *name, struct inode *i)
{
    codec_put_entry(a->to, tree_entry_add(&a->st->tree, dir, name, i, a->number));
}

static void reply_create(struct apply *a, const struct inode *i, Zbs__Meta__InodeWcc *dir_wcc,
                         const struct inode *dir)
{
    Zbs__Meta__InodeCreateReply reply = ZBS__META__INODE_CREATE_REPLY__INIT;

    dir_wcc->after = view_inode_new(a->st, dir, a->pad);
    reply.inode = view_inode_new(a->st, i, a->pad);
    reply.dir = dir_wcc;
    a->reply = view_pack(&reply.base, a->pad);
}

static bool fits_inode_add(const Zbs__Metalog__InodeAdd *m)
{
    return m->type > ZBS__META__INODE_TYPE__INODE_NONE &&
           m->type <= ZBS__META__INODE_TYPE__INODE_FIFO && m->data.len <= SYMLINK_BYTES_MAX &&
           (m->verifier.len == 0 || m->verifier.len == sizeof(((struct inode *)0)->verifier));
}

int apply_inode_add(struct apply *a)
{
    const Zbs__Metalog__InodeAdd *m = a->record->inode_add;
    struct tree *t = &a->st->tree;
    struct inode *dir = find_dir(a, m->dir_id), *i;
    Zbs__Meta__InodeWcc *before;

    if (dir == NULL || tree_entry(t, dir, m->name) != NULL || !fits_inode_add(m))
        return apply_misfit(a, "inode");
    before = view_wcc_before(dir, a->pad);
    i = tree_inode_add(t, dir->share, a->number, (Zbs__Meta__InodeType)m->type);
    i->mode = m->mode;
    i->uid = m->uid;
    i->gid = m->gid;
    i->size = m->size;
    i->atime_ns = m->atime_ns;
    i->mtime_ns = m->mtime_ns;
    i->rdev = m->rdev;
    inode_set_data(i, m->data.data, m->data.len);
    i->exclusive = m->verifier.len > 0;
    if (i->exclusive)
        memcpy(i->verifier, m->verifier.data, sizeof(i->verifier));
    apply_inode_touch(a, i, m->time_ns);
    entry_add(a, dir, m->name, i);
    touch_names(a, dir, m->time_ns);
    reply_create(a, i, before, dir);
    return 0;
}

/* What a volume has behind a new, lower end is not to be seen again. */
static void set_size(struct apply *a, struct inode *i, uint64_t size)
{
    if (size < i->data_len)
        inode_set_data(i, i->data, size);
    if (size < i->size) {
        i->cut = a->number;
        apply_writers_ended(a, i);
    }
    if (size < i->size && i->volume_id != 0)
        i->dirty_end =
            MAX(i->dirty_end, MIN(i->size, state_volume(a->st, i->volume_id)->size_bytes));
    i->size = size;
    if (i->dirty_end <= size)
        i->dirty_end = 0;
}

int apply_inode_set(struct apply *a)
{
    const Zbs__Metalog__InodeSet *m = a->record->inode_set;
    Zbs__Meta__InodeSetReply reply = ZBS__META__INODE_SET_REPLY__INIT;
    struct inode *i = tree_inode(&a->st->tree, m->inode_id);
    const struct inode *dir = m->dir_id != 0 ? find_dir(a, m->dir_id) : NULL;

    if (i == NULL || (m->dir_id != 0) != (dir != NULL))
        return apply_misfit(a, "unknown inode");
    reply.inode = view_wcc_before(i, a->pad);
    i->mode = m->mode;
    i->uid = m->uid;
    i->gid = m->gid;
    i->atime_ns = m->atime_ns;
    i->mtime_ns = m->mtime_ns;
    if (i->type == ZBS__META__INODE_TYPE__INODE_REG)
        set_size(a, i, m->size);
    apply_inode_touch(a, i, m->time_ns);
    if (dir != NULL) {
        reply_create(a, i, view_wcc_before(dir, a->pad), dir);
        return 0;
    }
    reply.inode->after = view_inode_new(a->st, i, a->pad);
    a->reply = view_pack(&reply.base, a->pad);
    return 0;
}

/* ---- entries ---- */

static void entry_remove(struct apply *a, struct dir_entry *e)
{
    codec_del_entry(a->to, e);
    tree_entry_remove(&a->st->tree, e);
}

/* Its volumes are those that the record names. */
static bool drop_volumes(struct apply *a, const struct inode *i, const uint64_t *volumes, size_t n)
{
    if (n != (i->volume_id != 0 ? 1u : 0u) + (i->candidate != 0 ? 1u : 0u))
        return false;
    for (size_t k = 0; k < n; k++) {
        if ((volumes[k] != i->volume_id && volumes[k] != i->candidate) ||
            !apply_volume_drop(a, volumes[k]))
            return false;
    }
    return true;
}

/* With its last name the inode goes, and its volumes with it. */
static bool entry_unlink(struct apply *a, struct dir_entry *e, uint64_t time_ns,
                         const uint64_t *volumes, size_t n_volumes)
{
    struct inode *i = e->inode;

    entry_remove(a, e);
    if (!inode_is_dir(i) && i->nlink > 0) {
        apply_inode_touch(a, i, time_ns);
        return n_volumes == 0;
    }
    if (!drop_volumes(a, i, volumes, n_volumes))
        return false;
    LIST_FOREACH_SAFE (h, &i->locks, struct lock_holder, of_inode)
        apply_holder_drop(a, h);
    codec_del_inode(a->to, i->id);
    tree_inode_remove(&a->st->tree, i);
    return true;
}

int apply_entry_remove(struct apply *a)
{
    const Zbs__Metalog__EntryRemove *m = a->record->entry_remove;
    struct dir_entry *e = find_entry(a, m->dir_id, m->name);
    Zbs__Meta__InodeRemoveReply reply = ZBS__META__INODE_REMOVE_REPLY__INIT;
    struct inode *dir;

    if (e == NULL || e->inode->entries.count > 0)
        return apply_misfit(a, "removal of what is not there, or not empty");
    dir = e->dir;
    reply.dir = view_wcc_before(dir, a->pad);
    reply.inode_id = e->inode->id;
    if (!entry_unlink(a, e, m->time_ns, m->volumes, m->n_volumes))
        return apply_misfit(a, "volumes of a file that is removed");
    touch_names(a, dir, m->time_ns);
    reply.dir->after = view_inode_new(a->st, dir, a->pad);
    a->reply = view_pack(&reply.base, a->pad);
    return 0;
}

int apply_entry_add(struct apply *a)
{
    const Zbs__Metalog__EntryAdd *m = a->record->entry_add;
    struct inode *i = tree_inode(&a->st->tree, m->inode_id), *dir = find_dir(a, m->dir_id);
    Zbs__Meta__InodeLinkReply reply = ZBS__META__INODE_LINK_REPLY__INIT;

    if (i == NULL || dir == NULL || inode_is_dir(i) || i->share != dir->share ||
        tree_entry(&a->st->tree, dir, m->name) != NULL)
        return apply_misfit(a, "link");
    reply.dir = view_wcc_before(dir, a->pad);
    entry_add(a, dir, m->name, i);
    apply_inode_touch(a, i, m->time_ns);
    touch_names(a, dir, m->time_ns);
    reply.dir->after = view_inode_new(a->st, dir, a->pad);
    reply.inode = view_inode_new(a->st, i, a->pad);
    a->reply = view_pack(&reply.base, a->pad);
    return 0;
}

static bool entry_move(struct apply *a, struct dir_entry *from, struct inode *to,
                       const Zbs__Metalog__EntryMove *m)
{
    struct dir_entry *replaced = tree_entry(&a->st->tree, to, m->to_name);
    struct inode *i = from->inode;

    if (replaced != NULL && !entry_unlink(a, replaced, m->time_ns, m->volumes, m->n_volumes))
        return false;
    entry_remove(a, from);
    entry_add(a, to, m->to_name, i);
    apply_inode_touch(a, i, m->time_ns);
    return true;
}

int apply_entry_move(struct apply *a)
{
    const Zbs__Metalog__EntryMove *m = a->record->entry_move;
    struct dir_entry *from = find_entry(a, m->from_dir_id, m->from_name);
    struct inode *to_dir = find_dir(a, m->to_dir_id), *from_dir;
    Zbs__Meta__InodeRenameReply reply = ZBS__META__INODE_RENAME_REPLY__INIT;
    const struct dir_entry *replaced;

    if (from == NULL || to_dir == NULL || from->dir->share != to_dir->share)
        return apply_misfit(a, "rename");
    replaced = tree_entry(&a->st->tree, to_dir, m->to_name);
    if (replaced != NULL && (replaced->inode == from->inode || replaced->inode->entries.count > 0 ||
                             inode_is_dir(replaced->inode) != inode_is_dir(from->inode)))
        return apply_misfit(a, "rename to what can't be replaced");
    if (inode_is_dir(from->inode) && inode_is_below(to_dir, from->inode))
        return apply_misfit(a, "a directory below itself");
    from_dir = from->dir;
    reply.from_dir = view_wcc_before(from_dir, a->pad);
    reply.to_dir = view_wcc_before(to_dir, a->pad);
    if (!entry_move(a, from, to_dir, m))
        return apply_misfit(a, "volumes of a file that is replaced");
    touch_names(a, from_dir, m->time_ns);
    if (to_dir != from_dir)
        touch_names(a, to_dir, m->time_ns);
    reply.from_dir->after = view_inode_new(a->st, from_dir, a->pad);
    reply.to_dir->after = view_inode_new(a->st, to_dir, a->pad);
    a->reply = view_pack(&reply.base, a->pad);
    return 0;
}
